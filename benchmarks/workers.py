"""What does a server in several processes gain and cost?

`python -m benchmarks.workers` runs one server as one process and with two workers in turn, each with two
devices and a load generator at each of them, and prints medians and ratios: connections a second, CPU of all
the server's processes for each, ping, bulk. Where agents and generators have no processors of their own, the
CPU says more than the rates. No figure is judged; connections that fail, or a system that does not start, end
it with 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
from pathlib import Path

from benchmarks.load import Load, Window, compile_load
from benchmarks.ours import Several
from benchmarks.peers import free_ports
from benchmarks.processes import Crew, CrewError, become_reaper, end_everything

__all__ = ["main"]

DEVICES = 2
GIB = 2**30


def _both(
    load: Load, crew: Crew, ports: list[int], mode: str, *words: object, seconds: float
) -> tuple[list[Window], float]:
    """A generator at each device at once: what they found, and the CPU seconds of the server meanwhile."""
    found: list[Window] = []
    troubles: list[Exception] = []

    def run(port: int) -> None:
        try:
            found.append(load.run(crew, mode, port, *words, seconds=seconds))
        except Exception as error:
            troubles.append(error)

    before = crew.cpu()["server"]
    threads = [threading.Thread(target=run, args=(port,)) for port in ports]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if troubles:
        raise troubles[0]
    return found, crew.cpu()["server"] - before


def _measure(load: Load, system: Several, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="workers-") as folder, Crew(Path(folder)) as crew:
        ports = system.start(crew, load.port, DEVICES)
        _both(load, crew, ports, "ping", 0.5, 0, seconds=0.5)  # to its warm sockets
        crew.settle()
        found, cpu = _both(load, crew, ports, "connect-rate", 16, seconds, seconds=seconds)
        if any(each.figures["failed"] for each in found):
            raise CrewError("connections failed")
        count = sum(each.figures["connections"] for each in found)
        rate = sum(each.figures["connections"] / each.figures["seconds"] for each in found)
        figures = {"connections/s": rate, "CPU ms/connection": 1000 * cpu / count}
        found, _ = _both(load, crew, ports, "ping", seconds, 0, seconds=seconds)
        figures["ping us"] = statistics.mean(each.figures["p50_us"] for each in found)
        found, cpu = _both(load, crew, ports, "bulk-down", 2, seconds, seconds=seconds)
        moved = sum(each.figures["bytes"] for each in found)
        figures["bulk MB/s"] = sum(each.figures["bytes"] / each.figures["seconds"] for each in found) / 1e6
        return figures | {"CPU s/GiB": cpu / (moved / GIB)}


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workers", description=__doc__)
    parser.add_argument("--passes", type=int, default=3, help="how often each is measured (3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of each measurement (2)")
    parser.add_argument("--tls", action="store_true", help="agents come with TLS")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command: its exit status."""
    options = _arguments(argv)
    become_reaper()
    systems = [
        Several(
            f"{count} {'process' if count == 1 else 'workers'}", "ours", str, tls=options.tls, workers=count
        )
        for count in (1, 2)
    ]
    found: dict[str, list[dict[str, float]]] = {each.name: [] for each in systems}
    with tempfile.TemporaryDirectory(prefix="workers-") as folder:
        load = Load.serve(compile_load(), Path(folder), free_ports(1)[0])
        try:
            for _ in range(options.passes):
                for each in systems:
                    found[each.name].append(_measure(load, each, options.seconds))
        except (CrewError, OSError) as reason:
            print(f"workers: {reason}", file=sys.stderr)
            return 1
        finally:
            load.service.stop()
            end_everything()
    one, two = (
        {row: statistics.median(each[row] for each in figures) for row in figures[0]}
        for figures in found.values()
    )
    print(f"{'':20}{systems[0].name:>12}{systems[1].name:>12}{'ratio':>8}")
    for row, value in one.items():
        print(f"{row:20}{value:12.2f}{two[row]:12.2f}{two[row] / value:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
