"""What is measured on one system: a list of steps, each giving figures by key.

Keys and units: up_1 ... down_16 in 10^6 bytes/s; cpu_<row>_<role> in CPU seconds per GiB; ping_* in
microseconds, ping_beside_bulk in 10^6 bytes/s; connect_* per second; cpu_ping_<role> and cpu_connect_*_<role>
in microseconds of CPU each; <when>_rss_<role> and _pss_ in MiB; held_kib in KiB of proportional memory for
each idle connection, both sides; stall_rate without unit; stall_pss_<role> in MiB, at the end of the stall,
and stall_growth_<role> over the same streams without it; others in cores that something else kept busy, mean
over the windows.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.load import Load, Window
from benchmarks.peers import System
from benchmarks.processes import Crew, CrewError, Memory

__all__ = ["Bench", "Figures", "Plan", "measure"]

GIB = 2**30
MIB = 2**20
STREAMS = 8  # of the stalled row; one of them stalls
Figures = dict[str, float]
Step = Callable[["Bench"], Figures]


@dataclass(frozen=True)
class Plan:
    """How long each window is open (seconds), and how many idle connections are held."""

    seconds: float
    idle: int


@dataclass
class Bench:
    """One system under measurement; started anew when a step has killed it."""

    system: System
    load: Load
    plan: Plan
    folder: Path
    figures: Figures = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    others: list[float] = field(default_factory=list)  # cores busy with something else, of each window
    crew: Crew | None = None
    port: int = 0
    starts: int = 0

    def ready(self) -> Crew:
        """Return the running crew, started when there is none or it has lost a process."""
        if self.crew is not None:
            try:
                self.crew.check()
                return self.crew
            except CrewError as reason:
                self.troubles.append(f"died between rows: {reason}")
                self.stop()
        self.crew, ports = self.start(1)
        self.port = ports[0]
        return self.crew

    def start(self, width: int) -> tuple[Crew, list[int]]:
        """Start the system for `width` connections wait until each front port carries a byte both ways."""
        self.starts += 1
        folder = self.folder / str(self.starts)
        folder.mkdir()
        crew = Crew(folder)
        try:
            ports = self.system.start(crew, self.load.port, width)
            crew.wait_until(lambda: all(map(answers, ports)), f"{self.system.name} at its front ports")
            crew.settle()
        except BaseException:
            crew.stop()
            raise
        return crew, ports

    def stop(self) -> None:
        if self.crew is not None:
            self.crew.stop()
            self.crew = None

    def window(self, mode: str, *words: object, held: Callable[[], None] | None = None) -> Window:
        """Run the generator against the running system, then let its processes come to rest."""
        crew = self.ready()
        window = self.load.run(crew, mode, self.port, *words, seconds=self.plan.seconds, held=held)
        self.others.append(window.others)
        crew.settle()
        return window


def answers(port: int) -> bool:
    """Return whether one byte goes through to the service and back."""
    try:
        with socket.create_connection(("127.0.0.1", port), 2) as connection:
            connection.settimeout(2)
            connection.sendall(b"O")
            return connection.recv(1) == b"O"
    except OSError:
        return False


def measure(systems: Sequence[System], load: Load, plan: Plan, say: Callable[[str], None]) -> list[Bench]:
    """Take every step; one that fails is a line of `troubles`, never the end of the run.

    Memory is measured of each system by itself, because those that share a program share its pages. Then all
    are up at once and each step is taken with one after the other, so that what changes on the machine
    meanwhile meets all of them alike.
    """
    with TemporaryDirectory(prefix="relay-") as name, contextlib.ExitStack() as stack:
        benches = []
        for number, system in enumerate(systems):
            folder = Path(name) / str(number)
            folder.mkdir()
            bench = Bench(system, load, plan, folder)
            stack.callback(bench.stop)
            benches.append(bench)
            for what, step in ALONE:
                if not _taken(bench, what, step, say) and not bench.figures:
                    break  # it does not even start
            bench.stop()
        for what, step in STEPS:
            for bench in benches:
                if bench.figures:
                    _taken(bench, what, step, say)
    for bench in benches:
        if bench.others:
            bench.figures["others"] = sum(bench.others) / len(bench.others)
    return benches


def _taken(bench: Bench, name: str, step: Step, say: Callable[[str], None]) -> bool:
    """Take one step; return whether that went well."""
    say(f"  {bench.system.name}: {name}")
    try:
        bench.figures.update(step(bench))
    except (CrewError, OSError) as reason:
        bench.troubles.append(f"{name}: {reason}")
        bench.stop()
        return False
    return True


def _up(bench: Bench) -> Figures:
    bench.ready()
    return {}


def _idle(bench: Bench) -> Figures:
    return dict(_memory_figures("idle", bench.ready().memory()))


def _held(bench: Bench) -> Figures:
    """Memory with many idle connections, on processes that have done nothing else."""
    bench.stop()  # its processes would share pages with those below
    count = bench.plan.idle
    crew, ports = bench.start(count)
    after: dict[str, Memory] = {}
    with crew:
        before = crew.memory()

        def look() -> None:
            crew.settle()
            after.update(crew.memory())

        window = bench.load.run(crew, "idle-hold", ",".join(map(str, ports)), count, held=look)
    held = window.figures["open"]
    if held < count:
        bench.troubles.append(f"idle connections: {held:.0f} of {count} could be held")
    if not held:
        return {}
    grown = sum(m.proportional for m in after.values()) - sum(m.proportional for m in before.values())
    figures = dict(_memory_figures("held", after)) | {"held_count": held, "held_agents": len(ports)}
    return figures | ({"held_kib": grown / held / 1024} if before else {})


def _memory_figures(when: str, memory: dict[str, Memory]) -> Iterator[tuple[str, float]]:
    for role, size in memory.items():
        yield f"{when}_rss_{role}", size.resident / MIB
        yield f"{when}_pss_{role}", size.proportional / MIB


def _ping(bench: Bench) -> Figures:
    window = bench.window("ping", bench.plan.seconds, 0)
    figures = window.figures
    cost = _cost(window, "cpu_ping", figures["count"])
    return {"ping_p50": figures["p50_us"], "ping_p99": figures["p99_us"]} | cost


def _cost(window: Window, key: str, count: float) -> Figures:
    """Microseconds of CPU for each of `count`, by role."""
    return {f"{key}_{role}": cpu / count * 1e6 for role, cpu in window.cpu.items()} if count else {}


def _ping_beside(bench: Bench) -> Figures:
    figures = bench.window("ping", bench.plan.seconds, 1).figures
    _note_broken(bench, "ping beside bulk", figures)
    rate = figures["bytes"] / figures["seconds"] / 1e6
    return {
        "ping_beside_p50": figures["p50_us"],
        "ping_beside_p99": figures["p99_us"],
        "ping_beside_bulk": rate,
    }


def _connect(at_once: int) -> Callable[[Bench], Figures]:
    def step(bench: Bench) -> Figures:
        window = bench.window("connect-rate", at_once, bench.plan.seconds)
        figures, made = window.figures, window.figures["connections"]
        if figures["failed"]:
            bench.troubles.append(f"connections, {at_once} at a time: {figures['failed']:.0f} failed")
        rate = {f"connect_{at_once}": made / figures["seconds"]}
        return rate | _cost(window, f"cpu_connect_{at_once}", made)

    return step


def _bulk(direction: str, streams: int) -> Callable[[Bench], Figures]:
    def step(bench: Bench) -> Figures:
        row = f"{direction}_{streams}"
        window = bench.window(f"bulk-{direction}", streams, bench.plan.seconds)
        _note_broken(bench, row, window.figures)
        moved = window.figures["bytes"]
        if not moved:
            raise CrewError("no byte arrived")
        costs = {f"cpu_{row}_{role}": cpu / (moved / GIB) for role, cpu in window.cpu.items()}
        return costs | {row: moved / window.figures["seconds"] / 1e6}

    return step


def _stalled(bench: Bench) -> Figures:
    """Eight streams down, then with the first not read: what the other seven keep, what memory it costs."""
    before: dict[str, Memory] = {}
    after: dict[str, Memory] = {}
    seconds = bench.plan.seconds
    free = bench.window(
        "bulk-down", STREAMS, seconds, held=lambda: before.update(bench.ready().memory())
    ).figures
    stalled = bench.window(
        "stalled", STREAMS, seconds, held=lambda: after.update(bench.ready().memory())
    ).figures
    _note_broken(bench, "stalled", stalled)
    share = (STREAMS - 1) / STREAMS
    if not free["bytes"]:
        raise CrewError("no byte arrived without the stall")
    fair = free["bytes"] / free["seconds"] * share
    growth = {
        f"stall_growth_{role}": (after[role].proportional - size.proportional) / MIB
        for role, size in before.items()
    }
    growth |= {f"stall_pss_{role}": size.proportional / MIB for role, size in after.items()}
    slowest = stalled["slowest_bytes"] / stalled["seconds"] * (STREAMS - 1)
    rate = stalled["bytes"] / stalled["seconds"]
    return growth | {"stall_free": fair / 1e6, "stall_rate": rate / fair, "stall_slowest": slowest / fair}


def _note_broken(bench: Bench, row: str, figures: Figures) -> None:
    if figures["broken"]:
        bench.troubles.append(f"{row}: {figures['broken']:.0f} streams ended early")


ALONE: tuple[tuple[str, Step], ...] = (("idle", _idle), ("idle connections", _held))
STEPS: tuple[tuple[str, Step], ...] = (
    ("up", _up),
    ("ping", _ping),
    ("connections, 1 at a time", _connect(1)),
    ("connections, 16 at a time", _connect(16)),
    ("bulk up, 1 stream", _bulk("up", 1)),
    ("bulk down, 1 stream", _bulk("down", 1)),
    ("bulk up, 16 streams", _bulk("up", 16)),
    ("bulk down, 16 streams", _bulk("down", 16)),
    ("ping beside bulk", _ping_beside),
    ("stalled stream", _stalled),
)
