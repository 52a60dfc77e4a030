"""Measure revtunnel's links beside a direct connection and the peers found on this machine.

`python -m benchmarks.relay` has all systems up at once, measures each row of one after the other, and so pass
by pass, and writes relay.md and relay.json.  No figure is ever judged here: a run that could measure nothing
exits with 1, one without a C compiler with 69.
"""

from __future__ import annotations

import argparse
import json
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from benchmarks import machine, table
from benchmarks.load import CompilerMissing, Load, compile_load
from benchmarks.ours import OURS
from benchmarks.peers import PEERS, System, free_ports
from benchmarks.processes import become_reaper, end_everything
from benchmarks.rows import Plan, answers, measure

__all__ = ["Bout", "main"]

EX_USAGE, EX_UNAVAILABLE, INTERRUPTED = 64, 69, 130
Pass = dict[str, dict[str, float]]


class Arguments(argparse.ArgumentParser):
    """Usage errors exit with 64."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")


@dataclass(frozen=True)
class Bout:
    """What is measured by one command: `name` is the module's and the report's."""

    name: str
    systems: tuple[System, ...]
    idle: int  # connections held, where nothing else is said
    about: str


RELAY = Bout("relay", PEERS + OURS, 1000, __doc__.split("\n")[0])


def arguments(argv: Sequence[str] | None, bout: Bout) -> argparse.Namespace:
    parser = Arguments(prog=f"python -m benchmarks.{bout.name}", description=bout.about)
    parser.add_argument("--systems", help="only these, comma separated; see --list", metavar="LIST")
    parser.add_argument(
        "--list", action="store_true", help="name the systems, say which are missing, and end"
    )
    parser.add_argument("--passes", type=int, default=3, help="how often each system is measured (3)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of each measurement (3)")
    parser.add_argument("--idle", type=int, default=bout.idle, help=f"idle connections held ({bout.idle})")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", metavar="DIR")
    parser.add_argument(
        "--quick", action="store_true", help="one pass of half a second each, 200 idle: does it work?"
    )
    options = parser.parse_args(argv)
    if options.quick:
        options.passes, options.seconds, options.idle = 1, 0.5, 200
    if options.passes < 1 or not 0.1 <= options.seconds <= 600 or not 1 <= options.idle <= 2500:
        parser.error("--passes from 1, --seconds from 0.1 to 600, --idle from 1 to 2500")
    options.systems = chosen(options.systems, bout.systems, parser)
    return options


def chosen(names: str | None, systems: tuple[System, ...], parser: Arguments) -> list[System]:
    """Return the systems whose names are listed, in the order of the table."""
    if names is None:
        return list(systems)
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    unknown = wanted - {system.name for system in systems}
    if unknown or not wanted:
        parser.error(f"no system is called {', '.join(sorted(unknown)) or '(nothing)'}; see --list")
    return [system for system in systems if system.name in wanted]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(
    options: argparse.Namespace, systems: list[System], program: Path
) -> tuple[list[Pass], list[machine.Quiet], list[str]]:
    """Measure; return the passes, how quiet the machine was before each, and what went wrong."""
    passes: list[Pass] = []
    quiet: list[machine.Quiet] = []
    troubles: list[str] = []
    plan = Plan(options.seconds, options.idle)
    with tempfile.TemporaryDirectory(prefix="relay-") as folder:
        load = Load.serve(program, Path(folder), free_ports(1)[0])
        with load.service:
            load.service.wait_until(lambda: answers(load.port), "the service")
            for turn in range(1, options.passes + 1):
                quiet.append(machine.wait_for_quiet())
                say(f"pass {turn} of {options.passes}: {quiet[-1]}")
                benches = measure(systems, load, plan, say)
                for bench in benches:
                    troubles += [f"pass {turn}, {bench.system.name}: {trouble}" for trouble in bench.troubles]
                passes.append({bench.system.name: bench.figures for bench in benches})
    return passes, quiet, troubles


def write(
    report: Path, facts: dict[str, object], systems: list[System], passes: list[Pass], remarks: list[str]
) -> str:
    """Write the report as .md and .json; return the Markdown."""
    middle, spread = table.medians(passes), table.spreads(passes)
    peers = [system.name for system in systems if system.kind == "peer"]
    best = table.best_peers(middle, peers)
    text = table.markdown(middle, spread, peers, "direct", facts, remarks)
    record = {
        "facts": facts,
        "medians": middle,
        "spread": spread,
        "best_peer": best,
        "ratio_to_direct": table.ratios(middle, middle.get("direct", {})),
        "ratio_to_best_peer": table.ratios(middle, {key: value for key, (_, value) in best.items()}),
        "passes": passes,
        "rows": [asdict(row) for row in table.ROWS],
        "remarks": remarks,
    }
    report.parent.mkdir(parents=True, exist_ok=True)
    report.with_suffix(".md").write_text(text)
    report.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    return text


def summary(options: argparse.Namespace, quiet: list[machine.Quiet]) -> dict[str, object]:
    """Return what heads the report: when, how long, how quiet, machine and versions."""
    loads = "; ".join(str(one) for one in quiet)
    return {
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "run": f"{options.passes} passes, {options.seconds:g} s each row, {options.idle} idle connections",
        "machine before each pass": loads,
        **machine.describe(),
    }


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None, bout: Bout = RELAY) -> int:
    """Run the command line; return the exit code."""
    options = arguments(argv, bout)
    absent = {system.name: why for system in options.systems if (why := system.missing())}
    if options.list:
        print("\n".join(f"{system.name:33} {absent.get(system.name, 'found')}" for system in options.systems))
        return 0
    try:
        program = compile_load()
    except CompilerMissing as reason:
        say(str(reason))
        return EX_UNAVAILABLE
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _interrupt)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    become_reaper()
    try:
        return _measured(options, absent, program, options.out / bout.name)
    except KeyboardInterrupt:
        say("interrupted: nothing written")
        return INTERRUPTED
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        end_everything()


def _measured(options: argparse.Namespace, absent: dict[str, str], program: Path, report: Path) -> int:
    systems = [system for system in options.systems if system.name not in absent]
    passes, quiet, troubles = run(options, systems, program)
    remarks = [f"not measured: {name}: {why}" for name, why in absent.items()] + troubles
    print(write(report, summary(options, quiet), systems, passes, remarks))
    say(f"written: {report.with_suffix('.md')} and {report.name}.json")
    return 0 if any(passes[0].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
