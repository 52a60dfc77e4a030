"""What running daemons hold: descriptors by kind, threads, timers, channels, memory; is it back to before?

Descriptors and memory come from /proc, timers from the daemons themselves (inside.py), channels from the
server's admin socket.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import inside
from benchmarks.ours import CTL
from benchmarks.processes import Crew, CrewError

__all__ = ["COUNTED", "Standing", "at_rest", "back_to", "standing"]

MIB = 2**20
PATIENCE = 60.0  # seconds until the daemons have let go of everything
REST = 6.0  # seconds without a change; the server looks at waiting data sockets every 5 s
BY_THE_HOUR = {"HourlyCount.say"}  # timers that are there while there is something to say, one a listener
COUNTED = ("sockets", "pipes", "others", "threads", "timers", "watched")


@dataclass
class Standing:
    """What one role holds. ``timers`` and ``watched`` are its reactor's; memory is resident MiB."""

    sockets: int = 0
    pipes: int = 0
    others: int = 0
    threads: int = 0
    timers: int = 0
    watched: int = 0  # readers and writers
    memory: float = 0.0
    calls: list[str] = field(default_factory=list)  # of the timers

    def beyond(self, before: Standing, keeps: int) -> list[str]:
        """Name what is held now and was not before, but for `keeps` sockets; memory is not judged."""
        allowed = {"sockets": keeps, "watched": keeps}
        more = ", ".join(Counter(self.calls) - Counter(before.calls))
        return [
            f"{getattr(self, name)} {name}, {getattr(before, name)} before"
            + (f" (more: {more})" if name == "timers" and more else "")
            for name in COUNTED
            if getattr(self, name) > getattr(before, name) + allowed.get(name, 0)
        ]


def _descriptors(pid: int) -> Iterator[str]:
    with contextlib.suppress(OSError):
        for one in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                yield os.readlink(one).partition(":")[0]


def _from_inside(pid: int) -> dict[str, Any]:
    path = Path(os.environ[inside.FOLDER]) / f"{pid}.json"
    path.unlink(missing_ok=True)
    os.kill(pid, signal.SIGUSR2)
    end = time.monotonic() + 10
    while not path.exists():
        if time.monotonic() > end:
            raise CrewError(f"process {pid} does not say what it holds")
        time.sleep(0.01)
    return dict(json.loads(path.read_text()))


def standing(crew: Crew) -> dict[str, Standing]:
    """Count what each role holds now."""
    held = {}
    memory = crew.memory()
    for role, processes in crew.processes().items():
        held[role] = now = Standing(memory=round(memory[role].resident / MIB, 1))
        for pid in processes:
            kinds = list(_descriptors(pid))
            now.sockets += kinds.count("socket")
            now.pipes += kinds.count("pipe")
            now.others += len(kinds) - kinds.count("socket") - kinds.count("pipe")
            now.threads += len(os.listdir(f"/proc/{pid}/task"))
            said = _from_inside(pid)
            now.calls += (call for call in said["timers"] if call not in BY_THE_HOUR)
            now.timers = len(now.calls)
            now.watched += said["watched"]
    return held


def _channels(crew: Crew) -> int:
    """Return how many the server says it has; 0 where there is no server of ours."""
    admin = crew.folder / "admin.sock"
    if not admin.exists():
        return 0
    done = subprocess.run([*CTL, "--socket", admin, "status", "--json"], capture_output=True, timeout=20)
    return int(json.loads(done.stdout)["channels"])


def at_rest(crew: Crew) -> dict[str, Standing]:
    """Wait until the server has no channel and what is held does not change any more."""
    end = time.monotonic() + PATIENCE
    last = None
    while True:
        held = standing(crew)
        now = [[getattr(one, name) for name in COUNTED] for one in held.values()]
        if (now == last and not _channels(crew)) or time.monotonic() > end:
            return held
        last = now
        time.sleep(REST)


def back_to(
    crew: Crew, before: dict[str, Standing], keeps: int
) -> tuple[dict[str, Standing], int, list[str]]:
    """Wait until no more is held than before: what is, the server's channels, and what is too much."""
    end = time.monotonic() + PATIENCE
    while True:
        held, left = standing(crew), _channels(crew)
        beyond = [f"{role} holds {what}" for role in held for what in held[role].beyond(before[role], keeps)]
        if left:
            beyond.append(f"the server has {left} channels")
        if not beyond or time.monotonic() > end:
            return held, left, beyond
        time.sleep(1.0)
