"""The processes under measurement: started, found in /proc, ended for certain.

Every process started here has a role ("server", "agent", "service" or "generator").  What a role costs is the
sum over its processes and all of their descendants (sshd forks one for each link).  Nothing outlives the
benchmark: a crew ends whole trees, the kernel kills direct children should the benchmark itself be killed,
and forked grandchildren fall to us as subreaper, so that `end_everything` finds them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

__all__ = [
    "Crew",
    "CrewError",
    "Memory",
    "become_reaper",
    "cpu_of",
    "end_everything",
    "end_in_order",
    "memory_of",
]

TICK = 1 / os.sysconf("SC_CLK_TCK")
PATIENCE = 3.0  # seconds between SIGTERM and SIGKILL
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


class CrewError(Exception):
    """A process ended or did not become ready; the text names it and ends with its last words."""


@dataclass(frozen=True)
class Memory:
    """Bytes: resident set size, and proportional set size (shared pages divided among their users)."""

    resident: int
    proportional: int


def become_reaper() -> None:
    """Adopt descendants whose parent dies, so that they can be found and ended."""
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_in_order() -> None:
    """Have SIGTERM end this process as ^C does, with what stands in ``finally``."""

    def ended(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, ended)


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@dataclass(frozen=True)
class _Stat:
    parent: int
    cpu: float
    started: int
    zombie: bool


def _stat(pid: int) -> _Stat | None:
    """Parse /proc/PID/stat (proc(5)); None when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return _Stat(
        int(fields[1]), (int(fields[11]) + int(fields[12])) * TICK, int(fields[19]), fields[0] in "ZX"
    )


def cpu_of(pid: int) -> float:
    """CPU seconds of one process so far; 0 when it is gone."""
    stat = _stat(pid)
    return 0.0 if stat is None else stat.cpu


def _tree(roots: Iterable[int]) -> dict[int, _Stat]:
    """Return the given processes and all their descendants that are alive."""
    everyone = {int(p.name): _stat(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()}
    living = {pid: stat for pid, stat in everyone.items() if stat is not None and not stat.zombie}
    found: dict[int, _Stat] = {}
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid in living and pid not in found:
            found[pid] = living[pid]
            waiting += [child for child, stat in living.items() if stat.parent == pid]
    return found


def memory_of(pid: int) -> Memory:
    """Of one process; nothing when it is gone."""
    sizes = {}
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            name, _, value = line.partition(":")
            sizes[name] = int(value.split()[0]) * 1024
    except (OSError, IndexError, ValueError):
        return Memory(0, 0)
    return Memory(sizes.get("Rss", 0), sizes.get("Pss", 0))


def _signal(processes: dict[int, _Stat], number: int) -> None:
    for pid, stat in processes.items():
        now = _stat(pid)
        if now is not None and now.started == stat.started:  # never somebody who got the number since
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


def _end(roots: Iterable[int]) -> None:
    """End the trees: SIGTERM, then SIGKILL after PATIENCE seconds for what is left of them."""
    doomed = _tree(roots)
    _signal(doomed, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and any(_alive(pid, stat) for pid, stat in doomed.items()):
        time.sleep(0.02)
    _signal(doomed, signal.SIGKILL)


def _alive(pid: int, known: _Stat) -> bool:
    now = _stat(pid)
    return now is not None and now.started == known.started and not now.zombie


def _reap() -> None:
    """Collect adopted children that have ended; a Popen that loses its child this way reports status 0."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def end_everything() -> None:
    """End every descendant of this process; the last thing the benchmark does."""
    _end(pid for pid, stat in _tree([os.getpid()]).items() if stat.parent == os.getpid())
    time.sleep(0.05)
    _reap()


@dataclass
class Crew:
    """The processes of one measured system; a context manager that ends them; files and logs in `folder`."""

    folder: Path
    _members: list[tuple[str, subprocess.Popen[bytes], Path]] = field(default_factory=list)
    _started: int = 0

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, role: str, argv: list[str | Path], talks: bool = False) -> subprocess.Popen[bytes]:
        """Start a process; its output goes to one of `logs`.  `talks`: its input and output are pipes."""
        log = self.folder / f"{self._started}-{role}.log"
        self._started += 1
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else output,
                stderr=output,
                process_group=0,  # a ^C at the terminal reaches the benchmark only, which ends us in order
                preexec_fn=_die_with_parent,
            )
        self._members.append((role, process, log))
        return process

    def check(self) -> None:
        """Raise CrewError when a member has ended by itself."""
        for role, process, log in self._members:
            if process.poll() is not None:
                raise CrewError(f"{role} ended with status {process.returncode}: {_last_words(log)}")

    def wait_until(
        self, ready: Callable[[], bool], what: str, seconds: float = 20.0, every: float = 0.05
    ) -> None:
        """Poll until `ready`; CrewError when a member ends first or the time is over."""
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise CrewError(f"{what}: not within {seconds:g} s; {self.last_words()}")
            time.sleep(every)

    def last_words(self) -> str:
        return "; ".join(f"{role}: {_last_words(log)}" for role, _, log in self._members)

    def cpu(self) -> dict[str, float]:
        """CPU seconds, user and system, so far, by role."""
        return {role: sum(stat.cpu for stat in tree.values()) for role, tree in self._trees().items()}

    def memory(self) -> dict[str, Memory]:
        """Memory by role, summed over the role's processes."""
        result = {}
        for role, tree in self._trees().items():
            parts = [memory_of(pid) for pid in tree]
            result[role] = Memory(sum(p.resident for p in parts), sum(p.proportional for p in parts))
        return result

    def processes(self) -> dict[str, list[int]]:
        """Process numbers by role."""
        return {role: sorted(tree) for role, tree in self._trees().items()}

    def logs(self, role: str) -> list[Path]:
        """Where the processes of a role write."""
        return [log for each, _, log in self._members if each == role]

    def roots(self, role: str) -> list[int]:
        """Those processes of a role that were started here, not their descendants."""
        return [process.pid for each, process, _ in self._members if each == role]

    def settle(self, seconds: float = 3.0) -> None:
        """Wait until the members rest (at most 1 tick in 100 ms), for `seconds` at most."""
        deadline = time.monotonic() + seconds
        used = sum(self.cpu().values())
        while time.monotonic() < deadline:
            time.sleep(0.1)
            before, used = used, sum(self.cpu().values())
            if used - before < 1.5 * TICK:
                return

    def kill(self, role: str) -> None:
        """End a role by SIGKILL, descendants too, and have nothing more to do with it."""
        gone = [each for each in self._members if each[0] == role]
        _signal(_tree(process.pid for _, process, _ in gone), signal.SIGKILL)
        self._members = [each for each in self._members if each not in gone]
        for _, process, _ in gone:
            process.wait()

    def stop(self) -> None:
        _end([process.pid for _, process, _ in self._members])
        for _, process, _ in self._members:
            for pipe in (process.stdin, process.stdout):
                _close(pipe)
            process.wait()
        self._members.clear()

    def _trees(self) -> dict[str, dict[int, _Stat]]:
        roots: dict[str, list[int]] = {}
        for role, process, _ in self._members:
            roots.setdefault(role, []).append(process.pid)
        return {role: _tree(pids) for role, pids in roots.items()}


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return " | ".join(line.strip() for line in lines[-6:] if line.strip())[-600:] or "(it said nothing)"
