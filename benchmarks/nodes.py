"""What do very many idle devices cost three nodes, and how soon are all back when one of the nodes dies?

`python -m benchmarks.nodes --devices N` starts an engine, three nodes with workers (descriptors: 20,000 are a
usual limit of a process), a device at the second node with a client at the first, and N simulated agents
(agents.py) over as many processes as they need, each with an address of its own and a connection of its own.
`--tls`: by certificates; `--kill`: then the third node dies, and its devices go to the others.

Figures: memory (PSS) and CPU of nodes, engine and simulators, each by itself; what a client waits meanwhile,
whose stream passes two nodes, and what new ones wait. Nothing is judged. The time it takes at most is printed
first. ^C, SIGTERM and any failure end everything that was started; so does a machine with too little memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import resource
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.agents import returns
from benchmarks.agents_tls import authority
from benchmarks.nodes_crew import NodesCrew
from benchmarks.processes import (
    Crew,
    CrewError,
    become_reaper,
    cpu_of,
    end_everything,
    end_in_order,
    memory_of,
)

__all__ = ["arguments", "main", "measure"]

PER_HERD = 15_000  # simulated agents of a process: a descriptor each
PER_WORKER = 14_000  # links of a worker once a node is dead: 17,000 descriptors are for connections
ENDURED = 200.0  # seconds for anything, and a second for each
A_SECOND, A_SECOND_TLS = 250, 40  # devices
BASE = 10.0  # seconds that nodes are looked at without devices, and the client at rest
LEAST_LEFT = 1.5  # GiB of memory of the machine
PROBE = "probe"
TOLD = "return #redis.call('KEYS', 'rt:revtunnel:dev:*')"
AT = (
    "local n = 0 for _, key in ipairs(redis.call('KEYS', 'rt:revtunnel:dev:*')) do"
    " if cjson.decode(redis.call('GET', key))[1] == '{}' then n = n + 1 end end return n"
)


def serve_echo() -> int:
    """An echo service for many clients at once, in threads; its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError):
            while data := peer.recv(4096):
                peer.sendall(data)

    def accept() -> None:
        while True:
            threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(listening.getsockname()[1])


class Client:
    """Has 64 bytes echoed again and again, by one stream, and by a new one each time."""

    def __init__(self, host: str, port: int) -> None:
        self._place = host, port
        self._waits: dict[str, list[float]] = {"stream": [], "new": []}
        self.failed = Counter[str]()
        self.goes = threading.Event()  # unset: it rests
        self.goes.set()
        for kind, how in (("stream", self._stream), ("new", self._new)):
            threading.Thread(target=how, args=(self._waits[kind],), daemon=True).start()

    def waited(self) -> dict[str, float]:
        """Milliseconds, of what was since this was asked last; failures too."""
        found = dict[str, float]()
        for kind, waits in self._waits.items():
            known, waits[:] = sorted(waits), []
            if known:
                found[f"{kind}_ms"] = statistics.median(known) * 1e3
                found[f"{kind}_99_ms"] = known[len(known) * 99 // 100] * 1e3
                found[f"{kind}_most_ms"] = known[-1] * 1e3
        failed, self.failed = self.failed, Counter()
        return found | {f"failed {word}": float(number) for word, number in failed.items()}

    def _stream(self, waits: list[float]) -> None:
        while True:
            try:
                with self._connected() as sock:
                    while self.goes.wait():
                        self._echo(sock, waits, time.perf_counter())
                        time.sleep(0.01)
            except OSError as error:
                self.failed[f"stream {type(error).__name__}"] += 1
                time.sleep(0.2)

    def _new(self, waits: list[float]) -> None:
        while self.goes.wait():
            begun = time.perf_counter()
            try:
                with self._connected() as sock:
                    self._echo(sock, waits, begun)
            except OSError as error:
                self.failed[f"new {type(error).__name__}"] += 1
            time.sleep(0.1)

    def _connected(self) -> socket.socket:
        sock = socket.create_connection(self._place, 30)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    @staticmethod
    def _echo(sock: socket.socket, waits: list[float], begun: float) -> None:
        sock.sendall(bytes(64))
        left = 64
        while left:
            if not (got := len(sock.recv(left))):
                raise ConnectionAbortedError("it was ended")
            left -= got
        waits.append(time.perf_counter() - begun)


@dataclass
class Peaks:
    """The most CPU of each role in a second, in cores; until ``stop``."""

    crew: Crew
    most: dict[str, float] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, float]:
        """What was found."""
        self._over.set()
        self._thread.join()
        return self.most

    def _run(self) -> None:
        before, at = self.crew.cpu(), time.monotonic()
        while not self._over.wait(1.0):
            used, now = self.crew.cpu(), time.monotonic()
            for role, seconds in used.items():
                share = (seconds - before.get(role, seconds)) / (now - at)
                self.most[role] = max(self.most.get(role, 0.0), share)
            before, at = used, now


class Run:
    """One run; ``figures`` as far as it came."""

    def __init__(self, options: argparse.Namespace, crew: Crew) -> None:
        self._options = options
        self._crew = crew
        self._count: int = options.devices
        self._base = [0.0, 0.0]
        self._patience = ENDURED + self._count / (A_SECOND_TLS if options.tls else A_SECOND)
        self.longest = options.rest + options.seconds + (4 if options.kill else 2) * self._patience
        self.figures: dict[str, Any] = {"devices": self._count, "tls": options.tls}
        self._workers = options.workers or max(2, math.ceil(self._count / 2 / PER_WORKER))
        lines = authority(crew.folder, PROBE) if options.tls else ""
        self._nodes = NodesCrew(crew, workers=self._workers, tls=lines, spread=options.spread)
        self.figures |= {"nodes": len(self._nodes.names), "workers": self._workers}

    def run(self) -> None:
        """All of it."""
        port = self._nodes.agent("two", PROBE, serve_echo(), self._nodes.certificate(PROBE))
        self._client = Client(self._nodes.hosts["one"], port)
        self._crew.settle(5.0)
        self._client.waited()
        time.sleep(BASE)
        self._say("client without devices", self._client.waited())
        self._client.goes.clear()
        before, begun = self._nodes_cpu(), time.monotonic()
        time.sleep(BASE)
        self._base = [
            (n - b) / (time.monotonic() - begun) for n, b in zip(self._nodes_cpu(), before, strict=True)
        ]
        self._say("without devices", {"cores of nodes": self._base[0]})
        self._client.goes.set()
        self._arrive()
        self._rest()
        if self._options.kill:
            self._die("three")

    # -- the steps

    def _arrive(self) -> None:
        """All of them for the first time."""
        self._memory, self._kept = self._parts(), self._engine_bytes()
        self._free = machine.available()
        cpu, begun, peaks = self._crew.cpu(), time.monotonic(), Peaks(self._crew)
        ports = [word for port in self._nodes.ports.values() for word in ("--port", str(port))]
        words = ["--again", "--sources", *ports] + ["--tls", str(self._crew.folder)] * self._options.tls
        for first in range(0, self._count, PER_HERD):
            share = ["--first", str(first), "--count", str(min(PER_HERD, self._count - first))]
            herd = [sys.executable, "-m", "benchmarks.agents", *words, *share]
            self._crew.start("herd", herd)
        told = self._all_up(1)
        last = max(when for each in told for when in each["came"]) - begun
        self._wait(lambda: self._nodes.ask_engine(TOLD) >= self._count, "records in the engine")
        found = {"all_up_s": last, "a_second": self._count / last, "told_s": time.monotonic() - begun}
        self._say("arrival", found | self._outcome(told) | self._used(cpu, self._count))
        self._say("arrival peak cores", peaks.stop())
        self._say("arrival client", self._client.waited())

    def _rest(self) -> None:
        """What they cost once their kernels probe as seldom as they ever will."""
        self._pause(self._options.rest)
        parts, count = self._parts(), self._count
        kib = {name: (parts[name] - self._memory.get(name, 0)) / count / 1024 for name in parts}
        kib["nodes"] = kib["parents"] + kib["workers"]
        kib["engine"] = (self._engine_bytes() - self._kept) / count / 1024
        kib["machine, kernel and all"] = (self._free - machine.available()) / count / 1024
        self._say("KiB a device", kib)
        links = {f"links of {name}": self._nodes.links(name) for name in self._nodes.names}
        self._say("at rest", links)
        self._client.waited()
        self._pause(BASE)
        self._say("client at rest", self._client.waited())
        self._client.goes.clear()
        cpu, before, begun = self._crew.cpu(), self._nodes_cpu(), time.monotonic()
        self._pause(self._options.seconds)
        taken = time.monotonic() - begun
        used = {role: seconds - cpu[role] for role, seconds in self._crew.cpu().items() if role in cpu}
        nodes, parents = (
            (now - then) / taken - base
            for now, then, base in zip(self._nodes_cpu(), before, self._base, strict=True)
        )
        scale = 60 / count * 1000
        found = {"nodes": nodes * scale, "of it parents": parents * scale}
        found |= {"herds": used["herd"] / taken * scale, "engine, % of a core": used["engine"] / taken * 100}
        self._say("idle CPU, s a minute for 1,000", found)
        self._client.goes.set()
        if any(len(returns(log)) > 1 for log in self._crew.logs("herd")):
            raise CrewError("links were lost at rest")

    def _die(self, name: str) -> None:
        """A node dies; its devices go to the others."""
        gone = self._nodes.links(name)
        cpu, peaks, begun = self._crew.cpu(), Peaks(self._crew), time.monotonic()
        self._nodes.kill(name)
        told = self._all_up(2)
        came = sorted(when - begun for each in told for when in each["came"])
        wanted = AT.format(name)
        self._wait(lambda: self._nodes.ask_engine(wanted) == 0, "records in the engine")
        found = {"devices": float(gone), "half_s": came[len(came) // 2], "all_s": came[-1]}
        found |= {"99_s": came[len(came) * 99 // 100], "told_s": time.monotonic() - begun}
        self._say("death of a node", found | self._outcome(told) | self._used(cpu, len(came)))
        self._say("death peak cores", peaks.stop())
        self._say("death client", self._client.waited())
        self._say("after it", {f"links of {each}": self._nodes.links(each) for each in self._nodes.names})

    # -- inside

    def _all_up(self, times: int) -> list[dict[str, Any]]:
        """Wait until all are up for the so-manieth time: what each process says of it."""
        logs = self._crew.logs("herd")
        self._wait(lambda: all(len(returns(log)) >= times for log in logs), "all agents")
        return [returns(log)[times - 1] for log in logs]

    def _wait(self, ready: Callable[[], bool], what: str) -> None:
        self._crew.wait_until(lambda: _has_room() and ready(), what, self._patience, 0.5)

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self._wait(lambda: time.monotonic() >= end, "the end of a pause")

    @staticmethod
    def _outcome(told: list[dict[str, Any]]) -> dict[str, float]:
        failed = sum((Counter(each["failed"]) for each in told), Counter[str]())
        return {"tries": sum(each["tries"] for each in told)} | {f"failed {w}": n for w, n in failed.items()}

    def _used(self, before: dict[str, float], count: int) -> dict[str, float]:
        """CPU milliseconds of each role for each of so many links."""
        now = self._crew.cpu()
        spent = Counter[str]()
        for role, seconds in now.items():
            spent[role.partition("-")[0]] += (seconds - before.get(role, 0.0)) * 1e3 / count
        return {f"CPU ms each, {role}": spent[role] for role in ("node", "engine", "herd")}

    def _parts(self) -> dict[str, int]:
        """Proportional bytes."""
        roles = [f"node-{name}" for name in self._nodes.names]
        parents = sum(memory_of(pid).proportional for role in roles for pid in self._crew.roots(role))
        memory = {role: each.proportional for role, each in self._crew.memory().items()}
        workers = sum(memory[role] for role in roles) - parents
        return {"parents": parents, "workers": workers, "herds": memory.get("herd", 0)}

    def _nodes_cpu(self) -> tuple[float, float]:
        """Seconds of all their processes so far, and of their first ones."""
        roles, cpu = [f"node-{name}" for name in self._nodes.names], self._crew.cpu()
        first = sum(cpu_of(pid) for role in roles for pid in self._crew.roots(role))
        return sum(cpu[role] for role in roles), first

    def _engine_bytes(self) -> float:
        return self._nodes.engine.told("used_memory")

    def _say(self, what: str, found: dict[str, float]) -> None:
        self.figures[what] = found
        told = "  ".join(f"{name} {value:.4g}" for name, value in found.items())
        print(f"{what}: {told}", flush=True)


def _has_room() -> bool:
    """CrewError: the machine has too little memory left."""
    left = machine.available() / 2**30
    if left < LEAST_LEFT:
        raise CrewError(f"the machine has {left:.1f} GiB of memory left")
    return True


def measure(options: argparse.Namespace, figures: dict[str, Any]) -> None:
    """Add what is found, as far as it comes. CrewError, OSError: it did not come further."""
    with tempfile.TemporaryDirectory(prefix="nodes-") as folder, Crew(Path(folder)) as crew:
        run = Run(options, crew)
        print(f"{run.longest:.0f} seconds at most", flush=True)
        try:
            run.run()
        finally:
            figures |= run.figures


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """What is to be measured."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nodes", description=__doc__.split("\n")[0])
    parser.add_argument("--devices", type=int, default=6000)
    parser.add_argument("--tls", action="store_true", help="each with a certificate of its own")
    parser.add_argument("--kill", action="store_true", help="the third node, at the end")
    parser.add_argument("--workers", type=int, help="of a node (as many as its devices need, two at least)")
    parser.add_argument("--spread", type=float, default=10.0, help="herd_spread, in seconds (%(default)g)")
    parser.add_argument("--rest", type=float, default=100.0, help="seconds before looking (%(default)g)")
    parser.add_argument("--seconds", type=float, default=60.0, help="that it is looked at (%(default)g)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command: its exit status."""
    options = arguments(argv)
    become_reaper()
    end_in_order()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    figures: dict[str, Any] = {"machine": machine.describe(), "before": str(machine.wait_for_quiet(5.0))}
    try:
        measure(options, figures)
    except (CrewError, OSError) as error:
        print(f"nodes: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        end_everything()
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "nodes.json").write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
