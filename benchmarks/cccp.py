"""CCCP in figures: `python -m benchmarks.cccp` starts revtunnel-cccp on loopback and prints a table.

- ping-pong: 12 bytes to the device and 13 back, as Modbus/TCP reads a register, beside a direct connection;
- `/on`, connect, first byte; and `/on` with `/off`, over one kept connection, each a second;
- a storm of registrations at once: until the last one is known; memory and descriptors a parked device.

Nothing is judged. `--devices N` (5,000), `--seconds S` (3) change how much.
"""

from __future__ import annotations

import argparse
import http.client
import json
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.peers import free_ports

__all__ = ["main"]

ASK, ANSWER = bytes(12), bytes(13)
PATIENCE = 60.0


class Site:
    """One daemon and its caller."""

    def __init__(self, place: Path) -> None:
        self.devices, self.api = free_ports(2)
        config = place / "cccp.ini"
        config.write_text(
            f"[cccp]\nhttp = 127.0.0.1:{self.api}\nstate_directory = {place / 'state'}\n"
            f"admin_socket = {place / 'cccp.sock'}\nlog_level = warn\npending_per_source = 8192\n"
            f"[cccp-project main]\naddress = 127.0.0.1:{self.devices}\nranges = 21000-21199\nquarantine = 0\n"
        )
        command = [sys.executable, "-m", "revtunnel.daemons.run", "cccp", "--config", str(config)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.api), 1).close()
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
        self._connection = http.client.HTTPConnection("127.0.0.1", self.api, timeout=PATIENCE)

    def ask(self, target: str) -> dict[str, object]:
        """One call; its answer has to be good."""
        self._connection.request("GET", target)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{target}: {answer.status} {body!r}")
        found: dict[str, object] = json.loads(body)
        return found

    def resident(self) -> int:
        """Bytes of memory, without what is shared."""
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Private_"))

    def close(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(PATIENCE)


def device(site: Site, serial: str) -> socket.socket:
    """A device that says its serial."""
    found = socket.create_connection(("127.0.0.1", site.devices), PATIENCE)
    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    found.sendall(serial.encode() + b"\r")
    return found


def answer(sock: socket.socket) -> None:
    """A Modbus server, as far as sizes go."""
    while sock.recv(len(ASK)):
        sock.sendall(ANSWER)


def ping_pong(client: socket.socket, seconds: float) -> list[float]:
    """Round trips, in microseconds."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    trips: list[float] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        begun = time.perf_counter()
        client.sendall(ASK)
        client.recv(100)
        trips.append((time.perf_counter() - begun) * 1e6)
    return sorted(trips)


def show(name: str, trips: list[float]) -> None:
    """Median and 99th percentile."""
    print(f"{name:<42}{statistics.median(trips):10.0f}{trips[int(len(trips) * 0.99)]:10.0f}   us, p50 p99")


def round_trips(site: Site, seconds: float) -> None:
    """Direct, and through a proxy."""
    near, far = socket.create_server(("127.0.0.1", 0)), socket.socket()
    far.connect(near.getsockname())
    thing = near.accept()[0]
    thing.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=answer, args=(thing,), daemon=True).start()
    direct = ping_pong(far, seconds)
    thing = device(site, "PLC")
    threading.Thread(target=answer, args=(thing,), daemon=True).start()
    port = site.ask("/on?serial=PLC")["port"]
    with socket.create_connection(("127.0.0.1", int(str(port)))) as client:
        through = ping_pong(client, seconds)
    show("ping-pong, direct", direct)
    show("ping-pong, through revtunnel-cccp", through)
    print(f"{'added':<42}{statistics.median(through) - statistics.median(direct):10.0f}")


def cycles(site: Site, seconds: float) -> None:
    """/on with /off; and /on, connect, first byte with /off."""
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        site.ask("/on?serial=C")
        site.ask("/off?serial=C")
        count += 1
    print(f"{'/on and /off':<42}{count / seconds:10.0f}   a second")
    trips = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with device(site, "F") as thing:
            begun = time.perf_counter()
            port = int(str(site.ask("/on?serial=F")["port"]))
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"x")
                thing.recv(1)
                trips.append((time.perf_counter() - begun) * 1e6)
                site.ask("/off?serial=F")
    show("/on, connect, first byte", sorted(trips))


def storm(site: Site, count: int) -> None:
    """Everybody at once."""
    before = site.resident()
    begun = time.monotonic()
    parked = [device(site, f"S{number:05}") for number in range(count)]
    connected = time.monotonic() - begun
    while len(list(known(site))) < count:
        if time.monotonic() - begun > PATIENCE:
            raise TimeoutError("not all are registered")
        time.sleep(0.05)
    took = time.monotonic() - begun
    print(
        f"{f'{count} registrations':<42}{took:10.2f}   s until all are known ({connected:.2f} s to connect)"
    )
    print(f"{'memory of a parked device':<42}{(site.resident() - before) / count:10.0f}   bytes")
    for each in parked:
        each.close()


def known(site: Site) -> list[str]:
    """The serials of the storm that are registered."""
    found: list[str] = []
    after = "S"
    while after:
        page = site.ask(f"/devices?after={after}")
        found += [row["serial"] for row in page["devices"]]  # type: ignore[attr-defined]
        after = str(page["next"] or "")
    return [serial for serial in found if serial.startswith("S")]


def main(arguments: list[str] | None = None) -> int:
    """The table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cccp", description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=5000)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args(arguments)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="revtunnel-bench-") as place:
        site = Site(Path(place))
        try:
            round_trips(site, options.seconds)
            cycles(site, options.seconds)
            storm(site, options.devices)
        finally:
            site.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
