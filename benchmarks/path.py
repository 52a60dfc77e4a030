"""A long path between server and agent: first bytes, pings, and pings beside a download over it.

`python -m benchmarks.path --path 50` makes a network namespace of its own in which what goes between server
and agent, and nothing else, crosses a TUN device whose other end is here: each packet is held for half the
round trip, behind those before it at `--rate`, and dropped when more than `--buffer` of them wait. Clients
and services are on loopback, the systems those of benchmarks.relay, one after the other. Figures are
milliseconds, medians; "first byte" is from a client's connect until its service's first byte, each alone,
"at once" the same while the one before it still closes.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.load import CompilerMissing, Load, compile_load
from benchmarks.ours import OURS
from benchmarks.peers import PEERS, PORTS, System, free_ports
from benchmarks.processes import Crew, CrewError, become_reaper, end_everything
from benchmarks.relay import EX_UNAVAILABLE, Arguments, chosen
from benchmarks.rows import answers

__all__ = ["main"]

SYSTEMS = "revtunnel data sockets,revtunnel rt1 link,revtunnel data sockets TLS,revtunnel rt1 link TLS,"
SYSTEMS += "rathole,ssh -R aes128-gcm"
INSIDE = "BENCHMARKS_PATH_INSIDE"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
TABLE = "100"
HEAD = f"{'system':36}{'first byte':>11}{'at once':>9}{'ping':>8}{'beside':>8}{'p99':>8}{'Mbit/s':>8}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _rule(preference: int, ports: str, table: str) -> None:
    """What this machine sends to such ports, and from them, is looked up in that table."""
    for way in ("dport", "sport"):
        tcp = ["ipproto", "tcp", way, ports]
        _ip("rule", "add", "pref", str(preference), "iif", "lo", *tcp, "lookup", table)


def make_path() -> int:
    """Have what goes to and from PORTS cross a device; its descriptor."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", b"path", IFF_TUN | IFF_NO_PI))
    _ip("link", "set", "lo", "up")
    _ip("link", "set", "path", "mtu", "1500", "up")
    for name, value in (("route_localnet", "1"), ("accept_local", "1"), ("rp_filter", "0")):
        for where in ("all", "path"):
            Path(f"/proc/sys/net/ipv4/conf/{where}/{name}").write_text(value)
    _ip("route", "add", "127.0.0.1/32", "dev", "path", "src", "127.0.0.1", "table", TABLE)
    _ip("rule", "add", "pref", "30", "lookup", "local")
    _ip("rule", "del", "pref", "0")
    _rule(20, f"{PORTS.start}-{PORTS.stop}", TABLE)
    return device


def carry(device: int, delay: float, rate: float, buffer: float) -> None:
    """Be the path, for ever: `delay` in seconds one way, `rate` in bytes a second, `buffer` in seconds."""
    waiting: deque[tuple[float, bytes]] = deque()
    free = {True: 0.0, False: 0.0}  # when each direction has sent what it has
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            os.write(device, waiting.popleft()[1])
        wait = waiting[0][0] - now if waiting else None
        if not select.select([device], [], [], wait)[0]:
            continue
        now = time.monotonic()
        for _ in range(64):
            try:
                packet = os.read(device, 65535)
            except BlockingIOError:
                break
            if packet[0] >> 4 != 4:
                continue
            (to,) = struct.unpack_from("!H", packet, (packet[0] & 15) * 4 + 2)
            up = to in PORTS
            if free[up] - now > buffer:
                continue
            free[up] = max(free[up], now) + len(packet) / rate
            due = free[up] + delay
            if waiting and due < waiting[-1][0]:  # of the other direction, which is busier
                at = len(waiting)
                while at and waiting[at - 1][0] > due:
                    at -= 1
                waiting.insert(at, (due, packet))
            else:
                waiting.append((due, packet))


def first_byte(port: int) -> float:
    """Milliseconds from a client's connect to its service's first byte."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), 10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.send(b"O")
        if client.recv(1) == b"":
            raise CrewError("a client was closed without an answer")
        return (time.monotonic() - began) * 1000


def measured(system: System, load: Load, crew: Crew, seconds: float, count: int) -> str:
    """One line."""
    (port,) = system.start(crew, load.port, 1)
    _rule(10, str(port), "local")
    crew.wait_until(lambda: answers(port), f"{system.name} at its front port", 30.0)
    time.sleep(1.0)
    alone = []
    for _ in range(count):
        alone.append(first_byte(port))
        time.sleep(0.4)
    at_once = [first_byte(port) for _ in range(count)]
    ping = load.run(crew, "ping", port, seconds, 0, seconds=seconds).figures
    beside = load.run(crew, "ping", port, seconds, 1, seconds=seconds).figures
    mbit = beside["bytes"] * 8 / beside["seconds"] / 1e6
    line = f"{system.name:36}{median(alone):11.1f}{median(at_once):9.1f}{ping['p50_us'] / 1000:8.1f}"
    return f"{line}{beside['p50_us'] / 1000:8.1f}{beside['p99_us'] / 1000:8.1f}{mbit:8.1f}"


def run(options: argparse.Namespace, program: Path) -> None:
    device = make_path()
    if not (path := os.fork()):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        carry(device, options.path / 2000, options.rate * 125_000, options.buffer / 1000)
    try:
        with tempfile.TemporaryDirectory(prefix="path-") as folder:
            port = free_ports(1)[0]
            _rule(10, str(port), "local")
            load = Load.serve(program, Path(folder), port)
            with load.service:
                load.service.wait_until(lambda: answers(load.port), "the service")
                print(
                    f"{options.path:g} ms there and back, {options.rate:g} Mbit/s, {options.buffer:g} ms wait"
                )
                print(HEAD, flush=True)
                for number, system in enumerate(options.systems):
                    if missing := system.missing():
                        print(f"not measured: {system.name}: {missing}", file=sys.stderr)
                        continue
                    inner = Path(folder) / str(number)
                    inner.mkdir()
                    try:
                        with Crew(inner) as crew:
                            print(measured(system, load, crew, options.seconds, options.count), flush=True)
                    except CrewError as error:
                        print(f"not measured: {system.name}: {error}", file=sys.stderr)
    finally:
        os.kill(path, signal.SIGKILL)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Arguments(prog="python -m benchmarks.path", description=__doc__.split("\n")[0])
    parser.add_argument("--systems", default=SYSTEMS, metavar="LIST")
    parser.add_argument("--path", type=float, default=50.0, metavar="MS", help="round trip (50)")
    parser.add_argument("--rate", type=float, default=100.0, metavar="MBIT", help="of each direction (100)")
    parser.add_argument("--buffer", type=float, default=50.0, metavar="MS", help="of that, before it (50)")
    parser.add_argument("--count", type=int, default=15, help="connections of each kind (15)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a window (5)")
    options = parser.parse_args(argv)
    options.systems = chosen(options.systems, PEERS + OURS, parser)
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 69 without a C compiler or what a namespace needs, 64 for a wrong command line."""
    options = arguments(argv)
    if INSIDE not in os.environ:
        if missing := [each for each in ("unshare", "ip") if shutil.which(each) is None]:
            print(f"not on PATH: {', '.join(missing)}", file=sys.stderr)
            return EX_UNAVAILABLE
        own = ["-n"] if os.geteuid() == 0 else ["-Urn"]
        words = [sys.executable, "-m", "benchmarks.path", *(sys.argv[1:] if argv is None else argv)]
        return subprocess.run(["unshare", *own, *words], env={**os.environ, INSIDE: "1"}).returncode
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
