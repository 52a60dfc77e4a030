"""What does a server in several processes gain and cost, and what does a second node on the way?

`python -m benchmarks.workers` has all systems up at once: two nodes of one process and of two workers each,
with the native and with the Python data plane, and two devices at the second node, with a load generator at
each. Row by row, and in turn: clients of the node that the devices are at ("same"), and of the other one
("across"): connections a second, CPU of both nodes for each, ping, bulk. It prints medians and ratios. Where
agents and generators have no processors of their own, the CPU says more than the rates. No figure is judged;
connections that fail, or a system that does not start, end it with 1.

A run takes a minute to start, and then passes * 8 ways * (3 * seconds + 2), twice that with both planes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import machine
from benchmarks.agents_tls import authority
from benchmarks.load import Load, Window, compile_load
from benchmarks.nodes_crew import NodesCrew
from benchmarks.peers import free_ports
from benchmarks.processes import Crew, CrewError, become_reaper, end_everything, end_in_order

__all__ = ["main"]

DEVICES = ("plc-1", "plc-2")
NODES = ("one", "two")
WAYS = {"same": "two", "across": "one"}  # where clients come in
GIB = 2**30


class System:
    """Two nodes, and devices at the second."""

    def __init__(self, folder: Path, stack: ExitStack, workers: int, plane: str, load: Load, tls: bool):
        self.name = f"{plane}, {workers} {'process' if workers == 1 else 'workers'}"
        folder.mkdir()
        self.crew = stack.enter_context(Crew(folder))
        lines = authority(folder, *DEVICES) if tls else ""
        self._nodes = NodesCrew(self.crew, NODES, workers, plane, lines)
        config = folder / "agents.ini"
        config.write_text(f"[agent]\ndata_plane = {plane}\n")
        words: list[str | Path] = ["--config", config]
        self._ports = [
            self._nodes.agent("two", serial, load.port, [*words, *self._nodes.certificate(serial)])
            for serial in DEVICES
        ]

    def both(
        self, load: Load, way: str, mode: str, *words: object, seconds: float
    ) -> tuple[list[Window], float]:
        """A generator at each device at once: what they found, and CPU seconds of both nodes meanwhile."""
        found: list[Window] = []
        troubles: list[Exception] = []
        host = self._nodes.hosts[WAYS[way]]

        def run(port: int) -> None:
            try:
                found.append(load.run(self.crew, mode, port, *words, seconds=seconds, host=host))
            except Exception as error:
                troubles.append(error)

        before = self._cpu()
        threads = [threading.Thread(target=run, args=(port,)) for port in self._ports]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        if troubles:
            raise troubles[0]
        return found, self._cpu() - before

    def _cpu(self) -> float:
        return sum(seconds for role, seconds in self.crew.cpu().items() if role.startswith("node"))


def _connections(system: System, load: Load, way: str, seconds: float) -> dict[str, float]:
    system.both(load, way, "ping", 0.5, 0, seconds=0.5)  # to its warm sockets
    found, cpu = system.both(load, way, "connect-rate", 16, seconds, seconds=seconds)
    if any(each.figures["failed"] for each in found):
        raise CrewError(f"{system.name}, {way}: connections failed")
    rate = sum(each.figures["connections"] / each.figures["seconds"] for each in found)
    count = sum(each.figures["connections"] for each in found)
    return {"connections/s": rate, "CPU ms/connection": 1000 * cpu / count}


def _ping(system: System, load: Load, way: str, seconds: float) -> dict[str, float]:
    found, _ = system.both(load, way, "ping", seconds, 0, seconds=seconds)
    return {"ping us": statistics.mean(each.figures["p50_us"] for each in found)}


def _bulk(system: System, load: Load, way: str, seconds: float) -> dict[str, float]:
    found, cpu = system.both(load, way, "bulk-down", 2, seconds, seconds=seconds)
    moved = sum(each.figures["bytes"] for each in found)
    rate = sum(each.figures["bytes"] / each.figures["seconds"] for each in found) / 1e6
    return {"bulk MB/s": rate, "CPU s/GiB": cpu / (moved / GIB)}


ROWS: tuple[Callable[[System, Load, str, float], dict[str, float]], ...] = (_connections, _ping, _bulk)
Found = dict[str, dict[tuple[str, str], list[float]]]  # by figure, then by system and way


def _measure(options: argparse.Namespace, folder: Path) -> Found:
    found: Found = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        (folder / "service").mkdir()
        load = Load.serve(compile_load(), folder / "service", free_ports(1)[0])
        stack.callback(load.service.stop)
        systems = [
            System(folder / f"{plane}-{workers}", stack, workers, plane, load, options.tls)
            for plane in options.planes.split(",")
            for workers in (1, 2)
        ]
        for _ in range(options.passes):
            for row in ROWS:
                for system in systems:
                    for way in WAYS:
                        system.crew.settle()
                        for name, value in row(system, load, way, options.seconds).items():
                            found[name][system.name, way].append(value)
    return found


def _table(found: Found) -> str:
    lines = []
    for name, columns in found.items():
        medians = {key: statistics.median(values) for key, values in columns.items()}
        systems = [*dict.fromkeys(system for system, _ in medians)]
        lines.append(f"{name:20}{'same':>10}{'across':>10}{'ratio':>8}")
        for system in systems:
            same, across = medians[system, "same"], medians[system, "across"]
            lines.append(f"  {system:18}{same:10.2f}{across:10.2f}{across / same:8.2f}")
        for one, two in zip(systems[::2], systems[1::2], strict=True):
            ratios = [medians[two, way] / medians[one, way] for way in WAYS]
            lines.append(f"  {one.partition(',')[0] + ', 2 to 1':18}{ratios[0]:10.2f}{ratios[1]:10.2f}")
    return "\n".join(lines)


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--passes", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement (2)")
    parser.add_argument("--planes", default="native,python", help="data planes (native,python)")
    parser.add_argument("--tls", action="store_true", help="agents come with TLS")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command: its exit status."""
    options = _arguments(argv)
    become_reaper()
    end_in_order()
    try:
        with tempfile.TemporaryDirectory(prefix="workers-") as folder:
            found = _measure(options, Path(folder))
    except (CrewError, OSError) as reason:
        print(f"workers: {reason}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        end_everything()
    print(_table(found))
    told = {name: {", ".join(key): values for key, values in each.items()} for name, each in found.items()}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "workers.json").write_text(
        json.dumps({"machine": machine.describe(), **told}, indent=2) + "\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
