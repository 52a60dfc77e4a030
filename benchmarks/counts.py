"""What one connection costs: microseconds of CPU at server and agent, and system calls where strace is there.

`python -m benchmarks.counts` has all its systems up at once and measures them in turn, window by window,
so that what else the machine does meets all of them alike. A connection is connect, one byte each way, close.
CPU time is more comparable than rates. System calls are counted over connections of their own: strace slows a
process tenfold.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.load import CompilerMissing, Load, compile_load
from benchmarks.ours import OURS
from benchmarks.peers import PEERS, System, free_ports
from benchmarks.processes import Crew, become_reaper, end_everything
from benchmarks.relay import EX_UNAVAILABLE, Arguments, chosen
from benchmarks.rows import answers

__all__ = ["main"]

ROLES = ("server", "agent")
COUNTED = 1000  # connections under strace
_LINE = re.compile(r"\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$")  # of `strace -c`


@dataclass
class Measured:
    """A running system, and what was found of it, by how many connections at a time."""

    system: System
    crew: Crew
    port: int
    rates: dict[int, list[float]] = field(default_factory=dict)
    costs: dict[int, list[dict[str, float]]] = field(default_factory=dict)

    def window(self, load: Load, at_once: int, seconds: float) -> None:
        """Connect for so long; note the rate, and the CPU of each connection."""
        window = load.run(self.crew, "connect-rate", self.port, at_once, seconds, seconds=seconds)
        made = window.figures["connections"] or 1
        costs = {role: window.cpu.get(role, 0.0) / made * 1e6 for role in ROLES}
        self.rates.setdefault(at_once, []).append(made / window.figures["seconds"])
        self.costs.setdefault(at_once, []).append(costs)

    def row(self, at_once: int) -> str:
        """What the windows of so many at a time said: medians."""
        rates, costs = self.rates[at_once], self.costs[at_once]
        spread = (max(rates) - min(rates)) / median(rates)
        cpu = ", ".join(f"{role} {median(cost[role] for cost in costs):.0f}" for role in ROLES)
        head = f"{self.system.name:28} {at_once:3} at a time {median(rates):7.0f}/s (spread {spread:4.0%})"
        return f"{head}  CPU us: {cpu}"

    def count_calls(self, at_once: int) -> str:
        """System calls per connection, by role and name."""
        lines = []
        with contextlib.ExitStack() as stack:
            tracers = {role: stack.enter_context(_Tracer(self, role)) for role in ROLES}
            with ThreadPoolExecutor(at_once) as pool:
                made = sum(pool.map(lambda _: answers(self.port), range(COUNTED)))
            time.sleep(0.3)  # the last ends
        for role, tracer in tracers.items():
            calls = [
                f"{name} {count / made:.2f}"
                for name, count in tracer.calls.most_common()
                if count >= made / 50
            ]
            lines.append(
                f"  {at_once:3} at a time, {role}: {tracer.calls.total() / made:.1f}: {', '.join(calls)}"
            )
        return "\n".join(lines)


class _Tracer:
    """strace on the processes of one role, while it is entered."""

    def __init__(self, measured: Measured, role: str) -> None:
        self.calls: Counter[str] = Counter()
        self._pids = measured.crew.processes().get(role, [])
        self._output = measured.crew.folder / f"strace-{role}"

    def __enter__(self) -> _Tracer:
        words = [word for pid in self._pids for word in ("-p", str(pid))]
        command = ["strace", "-c", "-f", "-o", str(self._output), *words]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None
        while "attached" not in self._process.stderr.readline():
            if self._process.poll() is not None:
                raise OSError("strace may not look at other processes here")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.communicate()
        for line in self._output.read_text().splitlines():
            if (found := _LINE.match(line)) and found[2] != "total":
                self.calls[found[2]] += int(found[1])


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Arguments(prog="python -m benchmarks.counts", description=__doc__.split("\n")[0])
    parser.add_argument("--systems", default="revtunnel data sockets,revtunnel rt1 link", metavar="LIST")
    parser.add_argument("--windows", type=int, default=3, help="windows of each (3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a window (2)")
    parser.add_argument("--at-once", default="1,16", metavar="LIST", help="connections at a time (1,16)")
    parser.add_argument("--no-calls", action="store_true", help="count no system calls")
    options = parser.parse_args(argv)
    options.systems = chosen(options.systems, PEERS + OURS, parser)
    options.at_once = [int(word) for word in options.at_once.split(",")]
    return options


def run(options: argparse.Namespace, program: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="counts-") as folder, contextlib.ExitStack() as stack:
        load = Load.serve(program, Path(folder), free_ports(1)[0])
        stack.enter_context(load.service)
        load.service.wait_until(lambda: answers(load.port), "the service")
        running = []
        for number, system in enumerate(options.systems):
            (Path(folder) / str(number)).mkdir()
            crew = stack.enter_context(Crew(Path(folder) / str(number)))
            (port,) = system.start(crew, load.port, 1)
            crew.wait_until(lambda port=port: answers(port), f"{system.name} at its front port")  # type: ignore[misc]
            running.append(Measured(system, crew, port))
        for at_once in options.at_once:
            for _ in range(options.windows):
                for each in running:
                    each.window(load, at_once, options.seconds)
            for each in running:
                print(each.row(at_once), flush=True)
        if not options.no_calls and shutil.which("strace"):
            for each in running:
                print(each.system.name, "system calls per connection", flush=True)
                for at_once in options.at_once:
                    print(each.count_calls(at_once), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 69 without a C compiler, 64 for a wrong command line."""
    options = arguments(argv)
    become_reaper()
    try:
        run(options, compile_load())
    except CompilerMissing as missing:
        print(missing, file=sys.stderr)
        return EX_UNAVAILABLE
    finally:
        end_everything()
    return 0


if __name__ == "__main__":
    sys.exit(main())
