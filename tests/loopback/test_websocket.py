"""WebSockets on real sockets: the ``websockets`` package as the other side, TLS, a proxy; Autobahn too."""

import asyncio
import contextlib
import hashlib
import json
import os
import socket as sockets
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import End, PlainEnd
from revtunnel.sockets.opening import open_end
from revtunnel.sockets.stages import client_tls, server_tls
from revtunnel.sockets.ways.http_proxy import open_way
from revtunnel.sockets.ways.proxy_choice import ProxyChoice, parse_proxy
from revtunnel.sockets.ways.websocket import WebSocketEnd
from revtunnel.sockets.ways.websocket_messages import WebSocketMessages
from revtunnel.sockets.ways.websocket_upgrade import UpgradeRequest, accept_end, connect_end
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits, WebSocketWire
from tests.support.epoll import Loop
from tests.support.http_proxies import HttpProxy
from tests.support.throwaway_tls import Issuer, contexts

pytestmark = pytest.mark.slow
LIMITS = WebSocketLimits()
MIB = 1 << 20
AUTOBAHN = os.environ.get("REVTUNNEL_WSTEST", "")  # how wstest is called, words apart by blanks


class Echo:
    """Says every message back, with back-pressure, and ends as it is told to."""

    def __init__(self, reactor: Any, upgraded: Any, limits: WebSocketLimits) -> None:
        self.ends: list[tuple[int, str]] = []
        self.messages: list[bytes | str] = []
        self.socket = WebSocketMessages(reactor, WebSocketWire(upgraded.engine, limits), self)
        EndTransport(reactor, upgraded.end, self.socket).start()

    def received(self, message: bytes | str) -> None:
        """Back."""
        self.messages = [message]  # the last one
        if not self.socket.send(message):
            self.socket.pause()

    def may_send(self) -> None:
        """Go on."""
        self.socket.resume()

    def closed(self, code: int, reason: str) -> None:
        """The end."""
        self.ends.append((code, reason))


class Server:
    """Our server on a port of this machine; each connection is an echo of messages, or of a stream."""

    def __init__(
        self, loop: Loop, tls: bool = False, stream: bool = False, limits: WebSocketLimits = LIMITS
    ) -> None:
        self.listener = sockets.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.loop, self.tls, self.limits, self.stream = loop, tls, limits, stream
        self.faces: list[Any] = []
        self.faults: list[Any] = []
        loop.reactor.addReader(self)

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def fileno(self) -> int:
        return self.listener.fileno()

    def logPrefix(self) -> str:
        return "-"

    def connectionLost(self, reason: Any) -> None:
        """Twisted's."""

    def doRead(self) -> None:
        end = PlainEnd(self.listener.accept()[0])
        Deferred.fromCoroutine(self.serve(end)).addErrback(lambda failure: self.faults.append(failure.value))

    async def serve(self, end: End) -> None:
        if self.tls:
            end = await server_tls(self.loop.reactor, contexts()[0].getContext())(end)
        upgraded = await accept_end(
            self.loop.reactor, end, lambda request, offered: (*offered, "")[0], self.limits
        )
        if self.stream:
            face = WebSocketEnd(self.loop.reactor, upgraded, self.limits)
            self.faces.append(face)
            EndTransport(self.loop.reactor, face, EchoStream()).start()
        else:
            self.faces.append(Echo(self.loop.reactor, upgraded, self.limits))

    def close(self) -> None:
        self.loop.reactor.removeReader(self)
        self.listener.close()


class EchoStream(Protocol):
    """A Twisted protocol that says its stream back; what is not taken stops the reading."""

    transport: Any

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)

    def pauseProducing(self) -> None:
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Twisted's."""


@contextlib.contextmanager
def other_side(doing: Callable[[], Awaitable[Any]]) -> Iterator[list[Any]]:
    """An asyncio program in a thread of its own; the list gets its result, or what it raised."""
    result: list[Any] = []

    def run() -> None:
        try:
            result.append(asyncio.run(doing()))  # type: ignore[arg-type]
        except BaseException as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield result
    finally:
        thread.join(20.0)
        assert not thread.is_alive()


def unchecked() -> ssl.SSLContext:
    """A client's TLS that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def until(loop: Loop, result: list[Any]) -> Any:
    """The other side's result; raises what it raised."""
    loop.until(lambda: result, "the other side")
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_packages_client_at_our_server(loop: Loop, tls: bool) -> None:
    """Subprotocol, no compression although it asks, both kinds, fragments, pings, a close with a reason."""
    server = Server(loop, tls)

    async def client() -> Any:
        where = f"{'wss' if tls else 'ws'}://127.0.0.1:{server.port}/x"
        async with connect(where, subprotocols=["b", "a"], ssl=unchecked() if tls else None) as socket:  # type: ignore[list-item]
            assert socket.response is not None
            assert (socket.subprotocol, socket.protocol.extensions) == ("b", [])
            for message in ("text ä", b"\x00\xff", "x" * 131_072, b"y" * 131_072, ""):
                await socket.send(message)
                assert await socket.recv() == message
            await socket.send(["frag", "ment", "ed"])
            assert await socket.recv() == "fragmented"
            await (await socket.ping(b"12"))
            await socket.close(4321, "enough")
            return socket.close_code

    with other_side(client) as result:
        assert until(loop, result) == 4321
    loop.until(lambda: server.faces[0].ends, "our end")
    assert server.faces[0].ends == [(4321, "enough")]
    server.close()


def test_the_packages_client_sends_too_much(loop: Loop) -> None:
    """1009, which it is told in a close."""
    server = Server(loop)

    async def client() -> Any:
        async with connect(f"ws://127.0.0.1:{server.port}/") as socket:
            await socket.send(b"x" * 131_073)
            try:
                await socket.recv()
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else None

    with other_side(client) as result:
        assert until(loop, result) == 1009
    server.close()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_the_packages_client_at_our_stream(loop: Loop, tls: bool) -> None:
    """64 MiB there and back through messages of any size, read and written at once; equal by hash."""
    server = Server(loop, tls, stream=True)
    size = 64 * MIB

    async def client() -> Any:
        where = f"{'wss' if tls else 'ws'}://127.0.0.1:{server.port}/"
        async with connect(
            where, compression=None, ssl=unchecked() if tls else None, max_size=None
        ) as socket:
            sent = hashlib.sha256()

            async def send() -> None:
                left, n = size, 0
                while left:
                    n = (n * 7 + 4001) % 100_000 + 1
                    data = os.urandom(min(n, left))
                    sent.update(data)
                    left -= len(data)
                    await socket.send(data)

            sending = asyncio.create_task(send())
            got, heard = hashlib.sha256(), 0
            while heard < size:
                data = await socket.recv()
                assert isinstance(data, bytes) and len(data) <= LIMITS.piece
                got.update(data)
                heard += len(data)
            await sending
            return got.hexdigest() == sent.hexdigest()

    with other_side(client) as result:
        assert until(loop, result) is True
    server.close()


@contextlib.contextmanager
def package_server(
    handler: Callable[[ServerConnection], Awaitable[None]], context: ssl.SSLContext | None
) -> Iterator[int]:
    """The package's server, which offers compression; its port."""
    stop, ready = threading.Event(), threading.Event()
    port: list[int] = []

    async def run() -> None:
        subprotocol = Subprotocol("revtunnel.session.1")
        async with serve(handler, "127.0.0.1", 0, subprotocols=[subprotocol], ssl=context) as server:
            port.append(next(iter(server.sockets)).getsockname()[1])
            ready.set()
            while not stop.is_set():
                await asyncio.sleep(0.01)

    with other_side(run):
        assert ready.wait(10.0)
        try:
            yield port[0]
        finally:
            stop.set()


async def echo(socket: ServerConnection) -> None:
    """Every message back."""
    async for message in socket:
        await socket.send(message)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_our_client_at_the_packages_server_through_a_proxy(loop: Loop, tls: bool, tmp_path: Path) -> None:
    """By the CONNECT of our own way out; a stream there and back, then a close in order."""
    issued = Issuer(tmp_path).server("gate.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate_file, issued.key_file)
    reactor = loop.reactor
    with (
        package_server(echo, context if tls else None) as port,
        HttpProxy(hosts={"gate.test": ("127.0.0.1", port)}) as proxy,
    ):
        asked = UpgradeRequest("gate.test", port, "/s", secure=tls, subprotocols=("revtunnel.session.1",))

        async def websocket(end: End) -> End:
            return WebSocketEnd(reactor, await connect_end(reactor, end, asked, LIMITS), LIMITS)

        stages = [websocket]
        if tls:
            stages.insert(0, client_tls(reactor, contexts()[1].getContext(), "gate.test"))
        choice = ProxyChoice(parse_proxy(proxy.url))
        end = loop.wait(open_way(reactor, choice, "gate.test", port, 10.0, stages))
        assert isinstance(end, WebSocketEnd)
        proxy.record.wait("CONNECT", f"gate.test:{port}")
        data, room = os.urandom(3 * MIB), memoryview(bytearray(1 << 18))
        sent, got = 0, b""
        while len(got) < len(data):
            if sent < len(data):
                sent += end.write(memoryview(data)[sent : sent + 100_000])
            got += bytes(room[: end.read_into(room) or 0])
            reactor.iterate(0)
        assert got == data
        assert end.end_writing()
        loop.until(lambda: end.read_into(room) == 0, "the answer to our close")
        end.close()


@contextlib.contextmanager
def autobahn(mode: str, spec: dict[str, Any], directory: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """Autobahn's program in one of its modes."""
    (directory / "spec.json").write_text(json.dumps({"outdir": str(directory / "reports"), **spec}))
    command = [*AUTOBAHN.split(), "-m", mode, "-s", str(directory / "spec.json")]
    with (directory / "log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
        try:
            yield running
        finally:
            running.kill()
            running.wait()


def check_reports(directory: Path) -> None:
    """Every case is as the RFC has it."""
    cases = json.loads((directory / "reports" / "index.json").read_text())["revtunnel"]
    right = ("OK", "INFORMATIONAL", "NON-STRICT")
    wrong = {
        name: case
        for name, case in cases.items()
        if case["behavior"] not in right or case["behaviorClose"] not in right
    }
    assert len(cases) > 200
    assert wrong == {}


ON_DEMAND = pytest.mark.skipif(not AUTOBAHN, reason="REVTUNNEL_WSTEST does not say how wstest is called")
WITHOUT_COMPRESSION = {"cases": ["*"], "exclude-cases": ["12.*", "13.*"], "exclude-agent-cases": {}}
ROOMY = WebSocketLimits(message=32 * MIB, queue=64 * MIB)  # its section 9 sends 16 MiB


@ON_DEMAND
@pytest.mark.timeout(1800)
def test_autobahn_has_nothing_to_say_of_our_server(loop: Loop, tmp_path: Path) -> None:
    """Its fuzzing client: every case but compression, which we do not agree to."""
    server = Server(loop, limits=ROOMY)
    spec = {
        "servers": [{"agent": "revtunnel", "url": f"ws://127.0.0.1:{server.port}"}],
        **WITHOUT_COMPRESSION,
    }
    with autobahn("fuzzingclient", spec, tmp_path) as running:
        while running.poll() is None:
            loop.reactor.iterate(0.1)
    server.close()
    check_reports(tmp_path)


@ON_DEMAND
@pytest.mark.timeout(1800)
def test_autobahn_has_nothing_to_say_of_our_client(loop: Loop, tmp_path: Path) -> None:
    """Its fuzzing server: the same cases, each on a connection of our client."""
    with sockets.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def run(path: str) -> Echo:
        asked = UpgradeRequest("127.0.0.1", port, path, secure=False)
        connecting = open_end(loop.reactor, "127.0.0.1", port, 10.0)
        connecting.addCallback(
            lambda end: Deferred.fromCoroutine(connect_end(loop.reactor, end, asked, ROOMY))
        )
        echo = Echo(loop.reactor, loop.wait(connecting), ROOMY)
        while not (echo.ends and echo.socket.over):
            loop.reactor.iterate(0.1)
        return echo

    with autobahn("fuzzingserver", {"url": f"ws://127.0.0.1:{port}", **WITHOUT_COMPRESSION}, tmp_path):
        loop.until(lambda: listens(port), "the fuzzing server")
        counting = run("/getCaseCount")
        for number in range(1, int(counting.messages[0]) + 1):
            run(f"/runCase?case={number}&agent=revtunnel")
        run("/updateReports?agent=revtunnel")
        loop.until(lambda: (tmp_path / "reports" / "index.json").exists(), "the reports")
    check_reports(tmp_path)


def listens(port: int) -> bool:
    """Whether somebody accepts there."""
    with sockets.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
