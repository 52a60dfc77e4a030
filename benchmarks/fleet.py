"""What does a device cost a server that has thousands of them, and does anybody stand still meanwhile?

`python -m benchmarks.fleet` measures twice. In one process, over the server's real objects and connections
that lead nowhere (herd.py): arrivals, leaves, registrations of CCCP, a page of devices, new records for all.
Over loopback, with revtunnel-server and real links (agents.py), each with a client port: arrivals, memory,
idle CPU, a reload that every device is looked at for, one with a record for each, a listing; meanwhile a
client of one more device has bytes echoed, and how long it waits at most is how long the server stood still.

The tables go to results/fleet.md and .json. Nothing is judged.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.comeback import serve_echo
from benchmarks.herd import WEB, Herd
from benchmarks.ours import CTL, RUN, listed
from benchmarks.peers import free_ports
from benchmarks.processes import Crew, become_reaper, end_everything
from revtunnel.fleet.device_records import DEFAULT, DeviceRecord, DeviceRecords

__all__ = ["main"]

PATIENCE = 120.0  # seconds for anything
CLIENTS = "127.77.0.1"  # where client ports are: nobody else's
SETTINGS = """\
[server]
state_directory = {folder}
log_level = warn
[admin]
socket = {folder}/admin.sock
[limits]
pending = 20000
pending_per_source = 20000
[listener main]
address = 127.0.0.1:{port}
[pool default]
ranges = 1024-19999
bind = {clients}
clients = any
"""


# -- in one process: CPU, which does not depend on what else the machine does


def inside(count: int) -> dict[str, float]:
    """The figures of one size."""
    pauses = _watch_collections()
    herd, before = Herd(), _proportional()
    links: list[Any] = []
    arrivals = _times(count, lambda number: links.append(herd.agent(f"plc-{number:06}", WEB)), herd)
    herd.reactor.turn()
    memory = (_proportional() - before) / count
    reload, turns, collected = _reload(herd, pauses)
    page = _times(50, lambda number: herd.board.fleet.page(f"plc-{count // 2:06}", 200))
    leaves = _times(min(count, 1000), lambda number: links[-1 - number].lose())
    registered = _times(1000, lambda number: herd.registered(f"CLD-{number:06}"))
    return {
        "arrival_us": statistics.median(arrivals),
        "arrival_mean_us": statistics.fmean(arrivals),
        "last_arrivals_us": statistics.median(arrivals[-1000:]),
        "leave_us": statistics.median(leaves),
        "registration_us": statistics.median(registered),
        "page_us": statistics.median(page),
        "reload_s": reload,
        "reload_us": reload / count * 1e6,
        "turn_ms": turns * 1e3,
        "collection_ms": max([*collected, 0.0]) * 1e3,
        "arrival_collection_ms": max([*pauses, 0.0]) * 1e3,
        "memory_kib": memory / 1024,
    }


def _times(count: int, call: Callable[[int], Any], herd: Herd | None = None) -> list[float]:
    """Microseconds of CPU for each; timers have their turn after every fifty."""
    found = []
    for number in range(count):
        begun = time.thread_time()
        call(number)
        found.append((time.thread_time() - begun) * 1e6)
        if herd is not None and number % 50 == 49:
            herd.reactor.turn()
    return found


def _reload(herd: Herd, pauses: list[float]) -> tuple[float, float, list[float]]:
    """CPU seconds until new records hold for all, of the longest turn, and of Python's own pauses in them."""
    before, turns, done = len(pauses), [], list[None]()
    begun = time.thread_time()
    herd.board.enforcement.set_records(DeviceRecords({DEFAULT: DeviceRecord(channels=9)})).addCallback(
        done.append
    )
    while not done:
        turn = time.thread_time()
        herd.reactor.turn()
        turns.append(time.thread_time() - turn)
    return time.thread_time() - begun, max(turns), pauses[before:]


def _watch_collections() -> list[float]:
    """The CPU seconds of each of Python's garbage collections from now on."""
    pauses: list[float] = []
    begun = [0.0]

    def told(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            begun[0] = time.thread_time()
        else:
            pauses.append(time.thread_time() - begun[0])

    gc.callbacks.append(told)
    return pauses


def _proportional() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


# -- over loopback


class Probe:
    """A client that has 64 bytes echoed again and again, and how long it waited for them at most."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((CLIENTS, port), 5)
        self._socket.settimeout(PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._longest = 0.0
        threading.Thread(target=self._run, daemon=True).start()

    def longest(self) -> float:
        """Milliseconds, since this was asked last."""
        longest, self._longest = self._longest, 0.0
        return longest * 1e3

    def _run(self) -> None:
        with contextlib.suppress(ConnectionError):  # its server is ended
            while True:
                begun = time.perf_counter()
                self._socket.sendall(bytes(64))
                left = 64
                while left:
                    left -= len(self._socket.recv(left))
                self._longest = max(self._longest, time.perf_counter() - begun)
                time.sleep(0.002)


class Site:
    """A server of ours, and one device whose client is the probe."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.admin = crew.folder / "admin.sock"
        self._config = crew.folder / "revtunnel.ini"
        (self.port,) = free_ports(1)
        self.configure("")
        crew.start("server", [*RUN, "server", "--config", self._config])
        crew.wait_until(self.admin.exists, "the server's admin socket")
        local = f"echo=127.0.0.1:{serve_echo()}"
        agent = [*RUN, "agent", "--server", f"127.0.0.1:{self.port}", "--serial", "probe", "--local", local]
        crew.start("agent", agent)
        crew.wait_until(lambda: "probe" in listed(self.admin), "the probe's port")
        self.probe = Probe(listed(self.admin)["probe"])

    def configure(self, more: str) -> None:
        """Other settings."""
        text = SETTINGS.format(folder=self.crew.folder, port=self.port, clients=CLIENTS)
        self._config.write_text(text + more)

    def control(self, *words: str) -> float:
        """Seconds that a command takes; its answer has to be good."""
        begun = time.monotonic()
        command = [*CTL, "--socket", str(self.admin), "--json", *words]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True, timeout=PATIENCE)
        return time.monotonic() - begun

    def memory(self) -> int:
        """Proportional bytes of the server."""
        return self.crew.memory()["server"].proportional

    def cpu(self) -> float:
        """Seconds that the server used so far."""
        return self.crew.cpu()["server"]


def outside(count: int, seconds: float) -> dict[str, float]:
    """The figures of one number of links."""
    with tempfile.TemporaryDirectory(prefix="fleet-") as folder, Crew(Path(folder)) as crew:
        site = Site(crew)
        time.sleep(1.0)
        found = {"quiet_ms": site.probe.longest()}
        memory, cpu = site.memory(), site.cpu()
        took = _bring(crew, site.port, count)
        found |= {"up_s": took, "up_a_second": count / took, "up_ms": site.probe.longest()}
        found["up_cpu_us"] = (site.cpu() - cpu) / count * 1e6
        crew.settle(5.0)
        found["memory_kib"] = (site.memory() - memory) / count / 1024
        site.probe.longest()
        cpu = site.cpu()
        time.sleep(seconds)
        found["idle_cores"] = (site.cpu() - cpu) / seconds
        found["idle_ms"] = site.probe.longest()
        site.configure("[device *]\nchannels = 9\n")
        found |= {"reload_s": site.control("reload"), "reload_ms": site.probe.longest()}
        records = "".join(f"[device plc-{number:05}]\nchannels = 8\n" for number in range(count))
        site.configure(records)
        found |= {"records_s": site.control("reload"), "records_ms": site.probe.longest()}
        found |= {"list_s": site.control("devices"), "list_ms": site.probe.longest()}
        found |= {"status_s": site.control("status"), "status_ms": site.probe.longest()}
        crew.check()
    return found


def _bring(crew: Crew, port: int, count: int) -> float:
    """Seconds until so many links are up."""
    words = ["--port", str(port), "--count", str(count), "--offer", "web=127.0.0.1:9"]
    crew.start("herd", [sys.executable, "-m", "benchmarks.agents", *words])
    log = next(crew.folder.glob("*-herd.log"))
    said: list[str] = []

    def up() -> bool:
        said[:] = log.read_text().split()
        return "up" in said

    crew.wait_until(up, f"{count} links", PATIENCE)
    if "lost" in said:
        raise RuntimeError(f"the server ended links: {' '.join(said[:20])}")
    return float(said[said.index("up") + 1])


# -- tables

INSIDE = {
    "arrival_us": "arrival, median us",
    "arrival_mean_us": "arrival, mean us",
    "last_arrivals_us": "the last 1,000, median us",
    "leave_us": "leave, us",
    "registration_us": "CCCP registration, us",
    "page_us": "page of 200, us",
    "reload_us": "new records, us a device",
    "reload_s": "all, s",
    "turn_ms": "longest turn, ms",
    "collection_ms": "of it garbage collection, ms",
    "arrival_collection_ms": "longest collection of all, ms",
    "memory_kib": "memory, KiB a device",
}
OUTSIDE = {
    "quiet_ms": "longest wait before, ms",
    "up_s": "all up, s",
    "up_a_second": "a second",
    "up_cpu_us": "CPU us each",
    "up_ms": "longest wait, ms",
    "memory_kib": "memory, KiB a device",
    "idle_cores": "idle, cores",
    "idle_ms": "longest wait, ms",
    "reload_s": "reload, s",
    "reload_ms": "longest wait, ms",
    "records_s": "reload, a record each, s",
    "records_ms": "longest wait, ms",
    "list_s": "listing, s",
    "list_ms": "longest wait, ms",
    "status_s": "status, s",
    "status_ms": "longest wait, ms",
}


def table(titles: dict[str, str], figures: dict[int, dict[str, float]]) -> str:
    """A line for each figure, a column for each size."""
    sizes = list(figures)
    lines = ["|  | " + " | ".join(f"{size:,}" for size in sizes) + " |", "| --- |" + " ---: |" * len(sizes)]
    for key, title in titles.items():
        values = " | ".join(_written(figures[size][key]) for size in sizes)
        lines.append(f"| {title} | {values} |")
    return "\n".join(lines) + "\n"


def _written(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__.split("\n")[0])
    parser.add_argument("--devices", default="1000,5000,20000,50000", help="sizes in one process")
    parser.add_argument("--links", default="1000,5000", help="numbers of real links, 8,000 at most")
    parser.add_argument("--seconds", type=float, default=10.0, help="of idleness (%(default)g)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", metavar="DIR")
    parser.add_argument("--inside", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.inside is not None:
        print(json.dumps(inside(options.inside)))
        return 0
    become_reaper()
    quiet = machine.wait_for_quiet(10.0)
    one: dict[int, dict[str, float]] = {}
    links: dict[int, dict[str, float]] = {}
    try:
        for size in map(int, filter(None, options.devices.split(","))):
            command = [sys.executable, "-m", "benchmarks.fleet", "--inside", str(size)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            one[size] = json.loads(done.stdout)
        for size in map(int, filter(None, options.links.split(","))):
            links[size] = outside(size, options.seconds)
    finally:
        end_everything()
    about = "\n".join(f"{name}: {value}" for name, value in machine.describe().items())
    parts = ["# Fleet", about, f"Before it: {quiet}.", "## In one process", table(INSIDE, one)]
    text = "\n\n".join([*parts, "## Links", table(OUTSIDE, links)])
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "fleet.md").write_text(text)
    (options.out / "fleet.json").write_text(json.dumps({"devices": one, "links": links}, indent=1))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
