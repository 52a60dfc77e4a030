"""What does a cluster's directory cost its engine and its nodes?

`python -m benchmarks.engine` starts a redis-server that keeps nothing, joins some nodes to it, all in one
process, and tells of many devices. Figures: records a second, memory of a record, the time of a search, how
long everything takes to be told again after the engine was emptied, and what the engine does for nodes at
rest. Nothing is judged.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor

from benchmarks import machine
from benchmarks.peers import accepts, free_ports
from benchmarks.processes import Crew, become_reaper, end_everything
from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.redis_directory import RedisDirectory
from revtunnel.cluster.redis_engine import EngineWay
from revtunnel.sockets.reactor_turn import shorten_turns

__all__ = ["FIGURES", "Engine", "main", "measure"]

PATIENCE = 300.0  # seconds for anything
SEARCHES = 2000
FIGURES = {
    "records_s": "records told a second, all nodes together",
    "record_bytes": "bytes of the engine's memory for a record",
    "find_us": "microseconds of a search, median",
    "find_99_us": "the same of the slowest in a hundred",
    "emptied_s": "seconds until an emptied engine knows everything again",
    "idle_ops_s": "commands a second, those in scripts too, that the engine does for a node at rest",
    "idle_cpu": "share of a core that the engine takes for a node at rest, percent",
}


class Engine:
    """A redis-server of our own."""

    def __init__(self, crew: Crew) -> None:
        self.port = free_ports(1)[0]
        words = [
            "redis-server",
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        crew.start("engine", [*words, "--dir", crew.folder])
        crew.wait_until(lambda: accepts(self.port), "redis-server")

    def ask(self, *words: str) -> str:
        """One command, its whole answer."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
            sock.sendall((" ".join(words) + "\r\nQUIT\r\n").encode())
            return b"".join(iter(lambda: sock.recv(65536), b"")).decode()

    def told(self, name: str) -> float:
        """One number of INFO."""
        lines = self.ask("INFO").splitlines()
        return float(next(line for line in lines if line.startswith(name + ":")).partition(":")[2])


class _Loop:
    """A reactor that is turned here."""

    def __init__(self) -> None:
        self.reactor: Any = EPollReactor()
        shorten_turns(self.reactor)

    def until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("it does not come")
            self.reactor.iterate(0.01)

    def wait(self, coming: Deferred[Any]) -> Any:
        found: list[Any] = []
        coming.addBoth(found.append)
        self.until(lambda: found)
        return found[0]


@contextlib.contextmanager
def _joined(loop: _Loop, engine: Engine, count: int) -> Iterator[list[RedisDirectory]]:
    way = EngineWay("127.0.0.1", engine.port)
    nodes = [RedisDirectory(loop.reactor, way, "bench", f"n{number}") for number in range(count)]
    for node in nodes:
        loop.wait(node.start())
    yield nodes
    for node in nodes:
        loop.wait(node.stop())


def measure(devices: int, nodes: int, seconds: float) -> dict[str, float]:
    """The figures of one size."""
    loop = _Loop()
    with tempfile.TemporaryDirectory() as folder, Crew(Path(folder)) as crew:
        engine = Engine(crew)
        with _joined(loop, engine, nodes) as views:
            before, figures = engine.told("used_memory"), dict[str, float]()
            figures["records_s"] = devices / _told(loop, engine, views, devices)
            figures["record_bytes"] = (engine.told("used_memory") - before) / devices
            trips = []
            for number in range(SEARCHES):
                begun = time.perf_counter()
                loop.wait(views[number % nodes].find(f"plc-{number * 7919 % devices:07}"))
                trips.append((time.perf_counter() - begun) * 1e6)
            figures["find_us"], figures["find_99_us"] = (
                statistics.median(trips),
                sorted(trips)[-SEARCHES // 100],
            )
            commands, cpu = engine.told("total_commands_processed"), crew.cpu()["engine"]
            end = time.monotonic() + seconds
            loop.until(lambda: time.monotonic() > end)
            figures["idle_ops_s"] = (engine.told("total_commands_processed") - commands) / seconds / nodes
            figures["idle_cpu"] = (crew.cpu()["engine"] - cpu) / seconds / nodes * 100
            begun = time.monotonic()
            engine.ask("FLUSHALL")
            loop.until(lambda: _has(engine, devices, nodes))
            figures["emptied_s"] = time.monotonic() - begun
    return figures


def _told(loop: _Loop, engine: Engine, views: list[RedisDirectory], devices: int) -> float:
    """Seconds until all devices are told."""
    begun = time.monotonic()
    for number in range(devices):
        views[number % len(views)].arrived(f"plc-{number:07}", number + 1, "rt1")
    loop.until(lambda: _has(engine, devices, len(views)))
    return time.monotonic() - begun


def _has(engine: Engine, devices: int, nodes: int) -> bool:
    """Whether all records are there; the other keys are clock, era, nodes, and two for each node."""
    return int(engine.ask("DBSIZE").splitlines()[0].removeprefix(":")) >= devices + 3 + 2 * nodes


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__.split("\n")[0])
    parser.add_argument("--devices", type=int, default=100_000)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="at rest")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(argv)
    become_reaper()
    try:
        figures = measure(options.devices, options.nodes, options.seconds)
    except DirectoryAway as error:
        print(error, file=sys.stderr)
        return 69
    finally:
        end_everything()
    for key, text in FIGURES.items():
        print(f"{figures[key]:12.4g}  {text}")
    options.out.mkdir(parents=True, exist_ok=True)
    told = {"machine": machine.describe(), "devices": options.devices, "nodes": options.nodes, **figures}
    (options.out / "engine.json").write_text(json.dumps(told, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
