"""What a ping costs and how long it takes, alone and beside one bulk stream, and what the bulk then moves.

`python -m benchmarks.pings` has all its systems up at once and measures them in turn, window by window, so
that what else the machine does meets all of them alike; `--before TREE` has revtunnel's systems of another
worktree beside those of this one. A ping is 64 bytes there and back on an open connection. "KiB" is what the
bulk stream brought while a ping was away: on a busy machine that says more than its time. Figures are medians
of the windows; CPU is that of server and agent together, in microseconds a ping and seconds a GiB.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from benchmarks.load import CompilerMissing, Load, Window, compile_load
from benchmarks.ours import OURS
from benchmarks.peers import PEERS, System, free_ports
from benchmarks.processes import Crew, become_reaper, end_everything
from benchmarks.relay import EX_UNAVAILABLE, Arguments, chosen
from benchmarks.rows import answers

__all__ = ["main"]

GIB = 2**30
HEAD = f"{'system':36}{'ping p50':>9}{'p99':>7}{'CPU us':>8}{'beside p50':>12}{'p99':>7}"
HEAD += f"{'KiB':>7}{'p99':>7}{'MB/s':>6}"
BULK = ("bulk-up", "bulk-down")


@dataclass
class Measured:
    """A running system, and what was found of it."""

    system: System
    crew: Crew
    port: int
    found: dict[str, list[float]] = field(default_factory=dict)

    def note(self, key: str, value: float) -> None:
        self.found.setdefault(key, []).append(value)

    def cpu(self, window: Window) -> float:
        """Seconds, of its own processes."""
        return sum(window.cpu.get(role, 0.0) for role in self.crew.processes())

    def windows(self, load: Load, seconds: float, bulk: bool) -> None:
        """One of each."""
        for beside, key in ((0, "alone"), (1, "beside")):
            window = load.run(self.crew, "ping", self.port, seconds, beside, seconds=seconds)
            self.note(f"{key} p50", window.figures["p50_us"])
            self.note(f"{key} p99", window.figures["p99_us"])
            if beside:
                self.note("behind p50", window.figures["behind_p50"] / 1024)
                self.note("behind p99", window.figures["behind_p99"] / 1024)
                self.note("rate beside", window.figures["bytes"] / window.figures["seconds"] / 1e6)
            else:
                self.note("cpu", self.cpu(window) / (window.figures["count"] or 1) * 1e6)
        for mode in BULK if bulk else ():
            window = load.run(self.crew, mode, self.port, 1, seconds, seconds=seconds)
            moved = window.figures["bytes"] or 1
            self.note(mode, moved / window.figures["seconds"] / 1e6)
            self.note(f"{mode} cpu", self.cpu(window) / (moved / GIB))

    def row(self) -> str:
        """Medians."""
        of = {key: median(values) for key, values in self.found.items()}
        line = f"{self.system.name:36}{of['alone p50']:9.0f}{of['alone p99']:7.0f}{of['cpu']:8.1f}"
        line += f"{of['beside p50']:12.0f}{of['beside p99']:7.0f}"
        line += f"{of['behind p50']:7.0f}{of['behind p99']:7.0f}{of['rate beside']:6.0f}"
        for mode in BULK:
            if mode in of:
                line += f"{of[mode]:9.0f}{of[f'{mode} cpu']:6.2f}"
        return line


@contextlib.contextmanager
def _code_of(tree: Path | None) -> Iterator[None]:
    """Start Python programs with the modules of another worktree, and not with those of this directory."""
    wanted = {} if tree is None else {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Arguments(prog="python -m benchmarks.pings", description=__doc__.split("\n")[0])
    parser.add_argument("--systems", default="revtunnel data sockets,revtunnel rt1 link", metavar="LIST")
    parser.add_argument("--windows", type=int, default=3, help="windows of each (3)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a window (1)")
    parser.add_argument("--bulk", action="store_true", help="bulk alone as well, up and down")
    parser.add_argument(
        "--before", type=Path, action="append", default=[], metavar="TREE", help="a worktree with other code"
    )
    options = parser.parse_args(argv)
    options.systems = chosen(options.systems, PEERS + OURS, parser)
    return options


def _both(options: argparse.Namespace) -> Iterator[tuple[System, Path | None]]:
    for system in options.systems:
        if missing := system.missing():
            print(f"not measured: {system.name}: {missing}", file=sys.stderr)
            continue
        for tree in options.before if system.kind == "ours" else ():
            yield replace(system, name=f"{system.name}, {tree.name}"), tree
        yield system, None


def run(options: argparse.Namespace, program: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="pings-") as folder, contextlib.ExitStack() as stack:
        load = Load.serve(program, Path(folder), free_ports(1)[0])
        stack.enter_context(load.service)
        load.service.wait_until(lambda: answers(load.port), "the service")
        running = []
        for number, (system, tree) in enumerate(_both(options)):
            (Path(folder) / str(number)).mkdir()
            crew = stack.enter_context(Crew(Path(folder) / str(number)))
            with _code_of(tree):
                (port,) = system.start(crew, load.port, 1)
            crew.wait_until(lambda port=port: answers(port), f"{system.name} at its front port")  # type: ignore[misc]
            running.append(Measured(system, crew, port))
        for _ in range(options.windows):
            for each in running:
                each.windows(load, options.seconds, options.bulk)
        print(HEAD + (f"{'up':>9}{'CPU':>6}{'down':>9}{'CPU':>6}" if options.bulk else ""))
        for each in running:
            print(each.row(), flush=True)


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
