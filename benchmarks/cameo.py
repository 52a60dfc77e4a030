"""The CAMEO relays beside what pyzmq makes of libzmq: `zmq.proxy` in a thread, the frame swap in a thread.

`python -m benchmarks.cameo` measures, in turn within each pass, requests (round trip; 64 in flight; 16 of
100 kB in flight), publications (100 B and 100 kB) and memory; it writes results/cameo.md and cameo.json. The
peers are libzmq sockets in processes of their own. No figure is judged.

`zmq.proxy` cannot route by name, so for requests it stands for the cost of a hop through libzmq of the same
frames; what a CAMEO site could put in the place of its C++ program with pyzmq is the swap.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import zmq

from benchmarks import machine
from benchmarks.cameo_load import SERVER, connected
from benchmarks.peers import free_ports
from benchmarks.processes import Crew, become_reaper, end_everything

__all__ = ["main"]

SMALL, LARGE = 100, 100_000  # bytes
PATIENCE = 30_000  # milliseconds
PROGRAM = "from revtunnel.daemons.cameo_programs import {0}; {0}()"
Figures = dict[str, float]


@dataclass(frozen=True)
class Row:
    """A figure; ``up``: more is better."""

    key: str
    title: str
    up: bool


ROWS = (
    Row("trip_p50", "request round trip p50, us", False),
    Row("trip_p99", "request round trip p99, us", False),
    Row("requests", "requests/s, 64 in flight", True),
    Row("request_cpu", "CPU us of the relay a request", False),
    Row("large_requests", "requests/s of 100 kB, 16 in flight", True),
    Row("large_cpu", "CPU us of the relay a request of 100 kB", False),
    Row("published", "publications/s received, 100 B", True),
    Row("publish_cpu", "CPU us of the relay a publication", False),
    Row("lost", "of them lost, %", False),
    Row("large_published", "MB/s received, 100 kB", True),
    Row("idle_memory", "memory of the relay(s) before that, MiB", False),
    Row("memory", "memory of the relay(s) after that, MiB", False),
)


@dataclass(frozen=True)
class System:
    """One pair of relays. ``plain``: two ports for requests, whose names nobody reads."""

    name: str
    responder: Callable[[int, int], list[str]]  # ports for clients and backends
    publisher: Callable[[int, int], list[str]]  # ports for subscribers and publishers
    plain: bool = False


def _role(name: str, *ports: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.cameo_load", name, *map(str, ports)]


def _ours(name: str, *ports: int) -> list[str]:
    return [sys.executable, "-c", PROGRAM.format(name), *map(str, ports)]


def _forwarder(subscribers: int, publishers: int) -> list[str]:
    return _role("forwarder", subscribers, publishers)


SYSTEMS = (
    System("revtunnel", lambda port, _: _ours("responder", port), lambda *ports: _ours("publisher", *ports)),
    System("zmq.proxy", lambda *ports: _role("broker", *ports), _forwarder, plain=True),
    System("pyzmq swap", lambda port, _: _role("swap", port), _forwarder),
)


class Bench:
    """One system, running, and its peers."""

    def __init__(self, system: System, crew: Crew, scale: float) -> None:
        self.system = system
        self.crew = crew
        self.scale = scale
        self.context = zmq.Context()
        clients, backends, self.subscribers, self.publishers = free_ports(4)
        self.clients, self.backends = clients, backends if system.plain else clients
        crew.start("responder", list(system.responder(clients, backends)))
        crew.start("publisher", list(system.publisher(self.subscribers, self.publishers)))
        crew.start("backend", list(_role("worker" if system.plain else "backend", self.backends)))
        receiver = _role("receiver", self.subscribers)
        self.receiver = crew.start("receiver", list(receiver), talks=True)

    def message(self, size: int) -> list[bytes]:
        """A request behind the empty frame of REQ: CAMEO's frames, also where nobody looks at them."""
        return [SERVER, b"", b"x" * size]

    def client(self, kind: int) -> Any:
        """A socket for requests; zmq.Again when an answer does not come."""
        made = connected(self.context, kind, self.clients)
        made.setsockopt(zmq.RCVTIMEO, PATIENCE)
        return made

    def answers(self) -> bool:
        """Whether a request comes back; the swap loses those that come before its backend is there."""
        client = self.client(zmq.REQ)
        client.send_multipart(self.message(SMALL))
        came = bool(client.poll(200))
        client.close()
        return came

    def round_trips(self) -> Figures:
        """One at a time."""
        client = self.client(zmq.REQ)
        message, times = self.message(SMALL), []
        for number in range(int(4000 * self.scale) + 200):
            started = time.perf_counter()
            client.send_multipart(message)
            client.recv_multipart()
            if number >= 200:
                times.append((time.perf_counter() - started) * 1e6)
        client.close()
        times.sort()
        return {"trip_p50": times[len(times) // 2], "trip_p99": times[len(times) * 99 // 100]}

    def in_flight(self, count: int, flying: int, size: int) -> tuple[float, float]:
        """Requests a second with so many unanswered, and microseconds of CPU of the relay for each."""
        client = self.client(zmq.DEALER)
        message = [b"", *self.message(size)]
        for _ in range(flying):
            client.send_multipart(message)
        cpu, started = self.crew.cpu()["responder"], time.perf_counter()
        copy = size < LARGE  # frames of pyzmq's are for what is large
        for _ in range(count):
            client.recv_multipart(copy=copy)
            client.send_multipart(message, copy=copy)
        seconds, cpu = time.perf_counter() - started, self.crew.cpu()["responder"] - cpu
        client.close()
        return count / seconds, cpu / count * 1e6

    def published(self, count: int, size: int) -> tuple[float, float, float]:
        """Publications received a second, percent lost, microseconds of CPU of the relay for each."""
        publisher = connected(self.context, zmq.PUB, self.publishers)
        assert self.receiver.stdin is not None and self.receiver.stdout is not None
        for _ in range(200):  # until the subscription has come through
            publisher.send_multipart([b"t", b""])
            time.sleep(0.002)
        self.receiver.stdin.write(b"%d %d\n" % (count, size))
        self.receiver.stdin.flush()
        self.receiver.stdout.readline()
        cpu = self.crew.cpu()["publisher"]
        message = [b"t", b"x" * size]
        for _ in range(count):
            publisher.send_multipart(message, copy=size < LARGE)
        seen, seconds = self.receiver.stdout.readline().split()
        cpu = self.crew.cpu()["publisher"] - cpu
        publisher.close()
        return int(seen) / float(seconds), 100 * (1 - int(seen) / count), cpu / int(seen) * 1e6

    def measure(self) -> Figures:
        """All rows."""
        self.crew.wait_until(self.answers, f"an answer through {self.system.name}")
        figures = {"idle_memory": self.memory()} | self.round_trips()
        figures["requests"], figures["request_cpu"] = self.in_flight(int(30_000 * self.scale), 64, SMALL)
        large = self.in_flight(int(5_000 * self.scale), 16, LARGE)
        figures["large_requests"], figures["large_cpu"] = large
        rate, figures["lost"], figures["publish_cpu"] = self.published(int(100_000 * self.scale), SMALL)
        figures["published"] = rate
        rate, _, _ = self.published(int(5_000 * self.scale), LARGE)
        figures["large_published"] = rate * LARGE / 1e6
        return {**figures, "memory": self.memory()}

    def memory(self) -> float:
        """MiB of the relays, proportional."""
        memory = self.crew.memory()
        return sum(memory[role].proportional for role in ("responder", "publisher")) / 1024**2


def run(passes: int, scale: float) -> list[dict[str, Figures]]:
    """Figures by system, for each pass."""
    found: list[dict[str, Figures]] = []
    for turn in range(1, passes + 1):
        print(f"pass {turn} of {passes}: {machine.wait_for_quiet(10.0)}", file=sys.stderr, flush=True)
        results: dict[str, Figures] = {}
        for system in SYSTEMS:
            with tempfile.TemporaryDirectory(prefix="cameo-") as folder, Crew(Path(folder)) as crew:
                bench = Bench(system, crew, scale)
                try:
                    results[system.name] = bench.measure()
                finally:
                    bench.context.destroy(linger=0)
        found.append(results)
    return found


def table(passes: list[dict[str, Figures]]) -> tuple[list[str], dict[str, Any]]:
    """Medians and ratios, as lines of Markdown and as a record; a ratio above 1 is in our favour."""
    names = [system.name for system in SYSTEMS]
    middle = {
        name: {row.key: median(each[name][row.key] for each in passes) for row in ROWS} for name in names
    }
    lines = [f"| | {' | '.join(names)} | {' | '.join(f'ours : {name}' for name in names[1:])} |"]
    lines.append("|---" * (2 * len(names)) + "|")
    ratios: dict[str, Figures] = {name: {} for name in names[1:]}
    for row in ROWS:
        ours = middle[names[0]][row.key]
        for name in names[1:]:
            theirs = middle[name][row.key]
            top, bottom = (ours, theirs) if row.up else (theirs, ours)
            ratios[name][row.key] = top / bottom if bottom else 1.0 if top == bottom else float("inf")
        cells = [f"{middle[name][row.key]:,.1f}" for name in names]
        cells += [f"{ratios[name][row.key]:.2f}" for name in names[1:]]
        lines.append(f"| {row.title} | {' | '.join(cells)} |")
    return lines, {"medians": middle, "ratios": ratios, "passes": passes}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cameo", description=__doc__)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one short pass: does everything start?")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", metavar="DIR")
    options = parser.parse_args(arguments)
    become_reaper()
    try:
        passes = run(1 if options.quick else options.passes, 0.05 if options.quick else 1.0)
    finally:
        end_everything()
    lines, record = table(passes)
    facts = {"date": time.strftime("%Y-%m-%d %H:%M %Z"), **machine.describe()}
    facts |= {"pyzmq": zmq.__version__, "libzmq": zmq.zmq_version(), "passes": len(passes)}
    text = "\n".join(
        ["# CAMEO relays", "", *(f"- {name}: {value}" for name, value in facts.items()), "", *lines]
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "cameo.md").write_text(f"{text}\n")
    (options.out / "cameo.json").write_text(json.dumps({"facts": facts, **record}, indent=1) + "\n")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
