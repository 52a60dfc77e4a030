"""How soon is a device reachable again after its server was restarted?

`python -m benchmarks.comeback` starts server, agent and an echo service, then ends the server (SIGTERM and
SIGKILL in turn) and starts it again. Two figures a round, in seconds: from the start of the new server until
it listens, and from then until a client gets its echo at the port it had before. Nothing is judged.

With `--agents 10000` so many come back at once, simulated (agents.py): each from an address of its own, every
second over TLS with a certificate, with `--tls` all of them, none of them exempt from limits, which are as
shipped but for herd_spread.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.agents import returns
from benchmarks.agents_tls import authority
from benchmarks.ours import CTL, RT1, RUN, SERVER, listed
from benchmarks.peers import free_ports
from benchmarks.processes import Crew, become_reaper, end_everything

__all__ = ["main"]

PATIENCE = 30.0  # seconds for anything to become ready
HERD_PATIENCE = 300.0  # seconds for a herd
PORTS = 8  # client ports of a herd's server: none of its agents offers anything


def serve_echo() -> int:
    """An echo service in a thread; its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            peer, _ = listening.accept()
            with peer, contextlib.suppress(ConnectionError):
                while data := peer.recv(4096):
                    peer.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    return int(listening.getsockname()[1])


def _echoes(port: int) -> bool:
    """Whether a client gets its byte back there."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as client:
            client.settimeout(1)
            client.sendall(b"?")
            return client.recv(1) == b"?"
    except OSError:
        return False


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _time_until(ready: Callable[[int], bool], crew: Crew, port: int) -> float:
    begun = time.monotonic()
    while not ready(port):
        if time.monotonic() - begun > PATIENCE:
            raise TimeoutError(crew.last_words())
        time.sleep(0.005)
    return time.monotonic() - begun


def measure(how: signal.Signals, service: int, folder: Path) -> tuple[str, float, float]:
    """How it ended, seconds to listen, seconds from then to the first echo.

    Everything is started anew for each figure: an agent whose link lived less than a minute backs off.
    """
    link, *pool = free_ports(4, adjacent=True)
    config = folder / "revtunnel.ini"
    config.write_text(
        SERVER.format(folder=folder) + RT1.format(port=link, first=pool[0], last=pool[-1], more="")
    )
    local = f"echo=127.0.0.1:{service}"
    agent = [*RUN, "agent", "--server", f"127.0.0.1:{link}", "--serial", "plc-1", "--local", local]
    with Crew(folder) as crew:
        server = crew.start("server", [*RUN, "server", "--config", config])
        crew.start("agent", agent)
        crew.wait_until(lambda: "plc-1" in listed(folder / "admin.sock"), "the agent's port")
        port = listed(folder / "admin.sock")["plc-1"]
        _time_until(_echoes, crew, port)
        server.send_signal(how)
        server.wait(PATIENCE)
        crew.start("server", [*RUN, "server", "--config", config])
        return how.name, _time_until(_listens, crew, link), _time_until(_echoes, crew, port)


# ---- a herd


HERD = """\
[listener plain]
address = 127.0.0.1:{plain}
[listener tls]
address = 127.0.0.1:{tls}
{lines}
[penalties]
exempt =
[limits]
herd_spread = {spread}
[pool default]
ranges = {first}-{last}
"""
PER_PROCESS = 5000  # simulated agents: a descriptor each, and they have a processor beside the server's


@dataclass(frozen=True)
class Return:
    """How a herd came back, in seconds from the new server's listening, and what that cost."""

    how: str
    linked: int  # devices that the server says it has
    ended: float  # seconds from the signal to the end of the first server
    half: float
    most: float  # 99 of 100
    last: float
    tries: int
    failed: dict[str, int]
    cpu: float  # seconds of the server from its start
    memory: int  # bytes of the server with all of them


class Herds:
    """Processes of simulated agents at a server, the first `plain` of them without TLS."""

    def __init__(self, crew: Crew, count: int, plain: int, spread: float) -> None:
        self._crew, self._count, self._without = crew, count, plain
        self._config = crew.folder / "revtunnel.ini"
        self._plain, self._tls, *pool = free_ports(2 + PORTS, adjacent=True)
        ports = {"plain": self._plain, "tls": self._tls, "first": pool[0], "last": pool[-1]}
        text = HERD.format(lines=authority(crew.folder), spread=spread, **ports)
        self._config.write_text(SERVER.format(folder=crew.folder) + text)
        self._logs: list[Path] = []
        self._told = 0

    def start(self) -> subprocess.Popen[bytes]:
        """A server."""
        server = self._crew.start("server", [*RUN, "server", "--config", self._config])
        _time_until(_listens, self._crew, self._tls)
        return server

    def come(self) -> None:
        """All of them for the first time."""
        for first, last, port, more in (
            (0, self._without, self._plain, []),
            (self._without, self._count, self._tls, ["--tls", self._crew.folder]),
        ):
            for begin in range(first, last, PER_PROCESS):
                words = ["--port", port, "--first", begin, "--count", min(PER_PROCESS, last - begin)]
                argv = [sys.executable, "-m", "benchmarks.agents", "--again", "--sources", *words, *more]
                self._crew.start("herd", argv)
                self._logs.append(self._crew.folder / f"{len(self._logs) + 1}-herd.log")
        self.all_up()

    def all_up(self) -> list[dict[str, Any]]:
        """Wait until all are up once more: what each process says of it."""
        self._told += 1
        deadline = time.monotonic() + HERD_PATIENCE
        while True:
            said = [returns(log) for log in self._logs]
            if all(len(times) >= self._told for times in said):
                return [times[self._told - 1] for times in said]
            if time.monotonic() > deadline:
                raise TimeoutError(f"of {self._count} agents not all came back: {self._crew.last_words()}")
            time.sleep(0.1)


def herd(how: signal.Signals, count: int, plain: int, spread: float, folder: Path) -> Return:
    """End the server of so many agents, start another, and see them come."""
    with Crew(folder) as crew:
        herds = Herds(crew, count, plain, spread)
        server = herds.start()
        herds.come()
        begun = time.monotonic()
        server.send_signal(how)
        server.wait(HERD_PATIENCE)
        ended = time.monotonic() - begun
        herds.start()
        listening = time.monotonic()
        told = herds.all_up()
        came = sorted(when - listening for each in told for when in each["came"])
        failed = sum((Counter(each["failed"]) for each in told), Counter[str]())
        tries = sum(each["tries"] for each in told)
        cpu, memory = crew.cpu()["server"], crew.memory()["server"].proportional
        status = [*CTL, "--socket", folder / "admin.sock", "status", "--json"]
        linked = json.loads(subprocess.run(status, stdout=subprocess.PIPE, check=True).stdout)["devices"]
    times = ended, came[count // 2], came[count * 99 // 100], came[-1]
    return Return(how.name, linked, *times, tries, failed, cpu, memory)


def _herd_table(found: list[Return]) -> None:
    titles = ("ended by", "agents", "it took, s", "half back, s", "99 %", "all", "tries", "failed")
    print("| " + " | ".join((*titles, "server CPU, s", "memory, MiB")) + " |")
    print("| --- |" + " ---: |" * 9)
    for each in found:
        times = f"{each.ended:.1f} | {each.half:.1f} | {each.most:.1f} | {each.last:.1f}"
        failed = ", ".join(f"{number} {name}" for name, number in each.failed.items()) or "none"
        cost = f"{each.cpu:.1f} | {each.memory / 2**20:.0f}"
        print(f"| {each.how} | {each.linked:,} | {times} | {each.tries:,} | {failed} | {cost} |")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.comeback", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="restarts, SIGTERM and SIGKILL in turn (20)")
    parser.add_argument("--agents", type=int, help="that come back at once, simulated; one round each")
    parser.add_argument("--tls", action="store_true", help="all of them over TLS")
    parser.add_argument("--spread", type=float, default=10.0, help="herd_spread, in seconds (10)")
    options = parser.parse_args(argv)
    become_reaper()
    found: list[tuple[str, float, float]] = []
    returns: list[Return] = []
    if options.agents:
        try:
            for how in (signal.SIGTERM, signal.SIGKILL):
                with tempfile.TemporaryDirectory(prefix="comeback-") as folder:
                    plain = 0 if options.tls else options.agents // 2
                    returns.append(herd(how, options.agents, plain, options.spread, Path(folder)))
        finally:
            end_everything()
        _herd_table(returns)
        return 0
    try:
        service = serve_echo()
        for number in range(options.rounds):
            with tempfile.TemporaryDirectory(prefix="comeback-") as folder:
                found.append(measure((signal.SIGTERM, signal.SIGKILL)[number % 2], service, Path(folder)))
    finally:
        end_everything()
    print("| ended by | rounds | start to listening, s | listening to first echo, median s | most, s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for how in sorted({row[0] for row in found}):
        starts = [row[1] for row in found if row[0] == how]
        backs = [row[2] for row in found if row[0] == how]
        median = statistics.median(backs)
        print(f"| {how} | {len(backs)} | {statistics.median(starts):.2f} | {median:.2f} | {max(backs):.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
