"""Do honest agents get in, and links stay as they are, while strangers fill a server's places?

`python -m benchmarks.storm` starts a server that wants certificates and exempts no address, an agent with an
echo service, and a process of strangers: 2,000 connections from 1,000 addresses, none of which says a word.
Each hangs up after 4 to 9 s, and whichever ends is replaced at once. Meanwhile honest agents, each from an
address of its own that was never there before, come one after the other: TLS, HELLO, the server's HELLO.
Beside them a client of the agent that is linked sends a byte every 50 ms and waits for its echo.

`--manner stalled`: each of the strangers says the first byte of a TLS handshake, and no more.
`--manner site`: ten of them, at the one address of which all honest agents are, speak nonsense, each once a
second. Nothing is judged. Everything is on loopback: 127.0.0.0/8 has the addresses.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import selectors
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.comeback import serve_echo
from benchmarks.ours import CTL, RT1, RUN, SERVER, listed
from benchmarks.peers import free_ports
from benchmarks.processes import Crew, become_reaper, end_everything
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.targets import parse_offer
from revtunnel.link.handshake import AgentHandshake, AgentHello
from revtunnel.streams.frames import FrameDecoder
from tests.support.throwaway_tls import Issued, Issuer

__all__ = ["main"]

PATIENCE = 10.0  # seconds for one handshake, what an agent has
SITE = "127.200.0.1"  # the one address of --manner site
OFFER = parse_offer("web=127.0.0.1:80")
TLS = "tls = yes\ncertificate = {certificate}\ncertificate_key = {key}\nauthority = {authority}\n"


def _address(number: int) -> str:
    """One of a million, 127.1.0.1 and on."""
    return f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"


# ---- the strangers, a process of their own


class _Strangers:
    """So many connections, until killed; what has become of them is told on standard output."""

    def __init__(self, port: int, options: argparse.Namespace) -> None:
        self._port = port
        self._addresses = options.addresses
        self._site = options.manner == "site"
        self._word = {"silent": b"", "stalled": b"\x16", "site": b"GET / HTTP/1.1\r\n\r\n"}[options.manner]
        self._chooser = selectors.DefaultSelector()
        self._ends: dict[socket.socket, tuple[int, float]] = {}
        self._due: list[tuple[float, int]] = []
        self._told = {"opened": 0, "hung_up": 0, "cut": 0, "refused": 0}
        for number in range(10 if self._site else options.sockets):
            self._dial(number)

    def run(self) -> None:
        """For ever."""
        said = swept = time.monotonic()
        while True:
            for key, events in self._chooser.select(0.02):
                self._happened(key.fileobj, events)  # type: ignore[arg-type]
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                self._dial(self._due.pop(0)[1])
            if now - swept > 0.2:
                swept = now
                for sock in [each for each, (_, until) in self._ends.items() if until < now]:
                    self._end(sock, "hung_up")
            if now - said > 0.5:
                said = now
                print(json.dumps(self._told), flush=True)

    def _dial(self, number: int) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        sock.bind((SITE if self._site else _address(number % self._addresses), 0))
        with contextlib.suppress(BlockingIOError):
            sock.connect(("127.0.0.1", self._port))
        self._chooser.register(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if self._word else 0))
        self._ends[sock] = number, time.monotonic() + random.uniform(4.0, 9.0)
        self._told["opened"] += 1

    def _happened(self, sock: socket.socket, events: int) -> None:
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._end(sock, "refused")
        elif events & selectors.EVENT_READ:
            self._end(sock, "cut")
        else:
            with contextlib.suppress(OSError):
                sock.send(self._word)
            self._chooser.modify(sock, selectors.EVENT_READ)

    def _end(self, sock: socket.socket, how: str) -> None:
        self._chooser.unregister(sock)
        number, _ = self._ends.pop(sock)
        sock.close()
        self._told[how] += 1
        if self._site:
            self._due.append((time.monotonic() + 1.0, number))
        else:
            self._dial(number)


# ---- the honest


@dataclass
class _Honest:
    """What honest agents and the client of the linked one met."""

    tries: int = 0
    failures: dict[str, int] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    echoes: list[float] = field(default_factory=list)


def handshake(context: ssl.SSLContext, port: int, serial: str, source: str) -> None:
    """One agent's way in, and out again. OSError or RemoteError: it was not let in."""
    shake = AgentHandshake(AgentHello(serial, bytes(32), (OFFER,), "storm"), None, False)
    shake.server_known = True
    frames = FrameDecoder(shake.judge)
    with socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0)) as plain:
        plain.settimeout(PATIENCE)
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as sock:
            sock.sendall(shake.start())
            while data := sock.recv(16384):
                frames.receive(data)
                for frame in frames.frames(8):
                    answer, up = shake.receive(frame)
                    sock.sendall(answer)
                    if up is not None:
                        return
    raise ConnectionError("it hung up")


def _try(honest: _Honest, context: ssl.SSLContext, port: int, serial: str, source: str) -> None:
    begun = time.monotonic()
    honest.tries += 1
    try:
        handshake(context, port, serial, source)
    except (OSError, RemoteError) as error:
        word = type(error).__name__
        honest.failures[word] = honest.failures.get(word, 0) + 1
    else:
        honest.seconds.append(time.monotonic() - begun)


def _echo(honest: _Honest, client: socket.socket) -> None:
    begun = time.monotonic()
    client.sendall(b"?")
    if client.recv(1) != b"?":
        raise ConnectionError("the client of the linked agent was cut")
    honest.echoes.append(time.monotonic() - begun)


def _measure(
    honest: _Honest,
    contexts: list[ssl.SSLContext],
    port: int,
    client: socket.socket,
    seconds: float,
    site: bool,
) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        number = honest.tries
        which = number % len(contexts)
        source = SITE if site else _address(500_000 + number)
        _try(honest, contexts[which], port, f"honest-{which}", source)
        for _ in range(2):
            _echo(honest, client)
            time.sleep(0.05)


# ---- one run


def _context(issuer: Issuer, issued: Issued) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=issuer.file)
    context.load_cert_chain(issued.certificate_file, issued.key_file)
    return context


def _state(admin: Path) -> dict[str, int]:
    done = subprocess.run([*CTL, "--socket", admin, "status", "--json"], capture_output=True, timeout=20)
    found: dict[str, int] = json.loads(done.stdout)
    return found


def run(options: argparse.Namespace, folder: Path) -> list[str]:
    """The rows of the table."""
    issuer = Issuer(folder)
    server = issuer.server("127.0.0.1")
    files = {"certificate": server.certificate_file, "key": server.key_file, "authority": issuer.file}
    contexts = [_context(issuer, issuer.device(f"honest-{n}", file=f"honest-{n}")) for n in range(48)]
    linked = issuer.device("plc-1")
    link, *pool = free_ports(100, adjacent=True)
    config = folder / "revtunnel.ini"
    ports = RT1.format(port=link, first=pool[0], last=pool[-1], more=TLS.format(**files))
    config.write_text(SERVER.format(folder=folder) + ports + "\n[penalties]\nexempt =\n")
    service = serve_echo()
    agent = [*RUN, "agent", "--server", f"127.0.0.1:{link}", "--serial", "plc-1", "--authority", issuer.file]
    agent += ["--certificate", linked.certificate_file, "--certificate-key", linked.key_file]
    with Crew(folder) as crew:
        crew.start("server", [*RUN, "server", "--config", config])
        crew.start("agent", [*agent, "--local", f"echo=127.0.0.1:{service}"])
        crew.wait_until(lambda: "plc-1" in listed(folder / "admin.sock"), "the agent's port")
        port = listed(folder / "admin.sock")["plc-1"]
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            client.settimeout(PATIENCE)
            quiet, storm, site = _Honest(), _Honest(), options.manner == "site"
            _measure(quiet, contexts, link, client, options.quiet, site)
            argv = [sys.executable, "-m", "benchmarks.storm", "--strangers", link, "--manner", options.manner]
            argv += ["--sockets", options.sockets, "--addresses", options.addresses]
            crew.start("strangers", argv)
            log = folder / "2-strangers.log"
            crew.wait_until(lambda: log.stat().st_size > 0, "the strangers")
            cpu, begun = crew.cpu()["server"], time.monotonic()
            _measure(storm, contexts, link, client, options.seconds, site)
            cpu, spent = crew.cpu()["server"] - cpu, time.monotonic() - begun
        told = json.loads(log.read_text().splitlines()[-1])
        lost = (folder / "1-agent.log").read_text().count("link-down")
    return [
        _row("quiet", quiet, 0.0, 0),
        _row("storm", storm, cpu / spent, lost),
        "",
        f"failures: {storm.failures or 'none'}; of the strangers' connections {told}",
    ]


def _row(name: str, honest: _Honest, cpu: float, lost: int) -> str:
    share = len(honest.seconds) / honest.tries

    def pair(values: list[float]) -> str:
        if len(values) < 2:
            return "-"
        return (
            f"{statistics.median(values) * 1000:.1f} / {statistics.quantiles(values, n=100)[98] * 1000:.1f}"
        )

    row = (
        name,
        f"{honest.tries}",
        f"{share:.1%}",
        pair(honest.seconds),
        pair(honest.echoes),
        f"{cpu:.0%}",
        f"{lost}",
    )
    return "| " + " | ".join(row) + " |"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.storm", description=__doc__.split("\n")[0])
    parser.add_argument("--sockets", type=int, default=2000, help="of the strangers, at once (2000)")
    parser.add_argument("--addresses", type=int, default=1000, help="that they come from (1000)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the storm (60)")
    parser.add_argument("--quiet", type=float, default=5.0, help="seconds before it (5)")
    manners = ("silent", "stalled", "site")
    parser.add_argument("--manner", choices=manners, default="silent", help="what the strangers do (silent)")
    parser.add_argument("--strangers", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.strangers:
        _Strangers(options.strangers, options).run()
    become_reaper()
    try:
        with tempfile.TemporaryDirectory(prefix="storm-") as folder:
            rows = run(options, Path(folder))
    finally:
        end_everything()
    print("| | tries | let in | handshake p50 / p99, ms | echo p50 / p99, ms | server's CPU | links lost |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    print("\n".join(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
