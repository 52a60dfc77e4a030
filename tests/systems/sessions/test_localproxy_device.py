"""AWS's localproxy as a device: a client's stream on its WebSocket, its ends, room, limits, garbage."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from revtunnel.ground.facts import ClientRefused, LinkDown
from revtunnel.ground.reasons import GoAway
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ways.websocket_messages import WebSocketMessages
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits, WebSocketWire
from revtunnel.systems.sessions import localproxy_device
from revtunnel.systems.sessions.localproxy import (
    MAX_CONNECTIONS,
    LocalproxyDecoder,
    LocalproxyMessage,
    LocalproxyType,
    encode_localproxy,
)
from revtunnel.systems.sessions.localproxy_device import LocalproxyDevice
from revtunnel.systems.sessions.localproxy_link import HELD
from tests.support.edge_world import EdgeWorld, edge_world
from tests.support.epoll import Loop, own_reactor
from tests.support.services import reset
from tests.support.traffic import read_exactly
from tests.support.web_ends import join_upgraded

T, M = LocalproxyType, LocalproxyMessage


class Far:
    """The localproxy's side, driven by hand."""

    def __init__(self, world: EdgeWorld, version: int = 3, dismissed: bool = False) -> None:
        self.world = world
        self.heard: list[LocalproxyMessage] = []
        self.ends: list[tuple[int, str]] = []
        self._decoder = LocalproxyDecoder()
        client, server = join_upgraded(world.loop, tcp=True)
        self.socket = WebSocketMessages(
            world.loop.reactor, WebSocketWire(client.engine, WebSocketLimits(queue=1 << 30)), self
        )
        EndTransport(world.loop.reactor, client.end, self.socket).start()
        self.device = LocalproxyDevice(
            *(world.loop.reactor, world.board, world.agents, "Robot1", world.offers, version),
            *("192.0.2.7:1234", "", world.board.report),
        )
        self.device.arrive()
        if dismissed:
            self.device.dismiss("kicked", "a test", GoAway.OPERATOR)
        self.device.carried_by(server)
        if not dismissed:
            self.next(T.SERVICE_IDS)

    def received(self, message: bytes | str) -> None:
        assert isinstance(message, bytes)
        self.heard += self._decoder.receive(message)

    def may_send(self) -> None:
        """There is room always."""

    def closed(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))

    def say(self, *message: Any, **fields: Any) -> None:
        """One message."""
        self.socket.send(encode_localproxy(M(*message, **fields)))

    def next(self, kind: LocalproxyType) -> LocalproxyMessage:
        """The next message, which is of this kind."""
        self.world.loop.until(lambda: self.heard, kind.name)
        message = self.heard.pop(0)
        assert message.type == kind, message
        return message


@pytest.fixture
def world() -> Iterator[EdgeWorld]:
    """A server; its service is called echo."""
    with own_reactor() as loop, edge_world(loop) as world:
        yield world


@pytest.fixture
def far(world: EdgeWorld) -> Iterator[Far]:
    """A localproxy, which is Robot1."""
    found = Far(world)
    yield found
    found.socket.close()
    world.loop.until(lambda: found.socket.over, "the end of the WebSocket")


def loop_of(far: Far) -> Loop:
    """Its loop."""
    return far.world.loop


def test_a_clients_stream(far: Far) -> None:
    """It begins at once, goes both ways, and its end in order comes behind the last byte."""
    client = far.world.client()
    start = far.next(T.STREAM_START)
    assert (start.stream, start.service, start.number) == (1, "echo", 1)
    client.sendall(b"question")
    data = far.next(T.DATA)
    assert (data.data, data.number) == (b"question", 1)
    far.say(T.DATA, 1, b"answer", "echo", number=1)
    far.say(T.CONNECTION_RESET, 1, service="echo", number=1)
    assert far.world.call(lambda: client.recv(100)) == b"answer"
    assert far.world.call(lambda: client.recv(100)) == b""
    assert far.world.ended() == ["closed"]
    assert far.world.board.fleet.get("Robot1").system == "localproxy"  # type: ignore[union-attr]


def test_one_that_is_dismissed_while_its_websocket_comes(world: EdgeWorld) -> None:
    """The WebSocket does not stay."""
    far = Far(world, dismissed=True)
    world.loop.until(lambda: far.socket.over, "the end of the WebSocket")
    assert far.device.ended == ("kicked", "a test")


def test_a_refusal_and_a_lost_client(far: Far) -> None:
    """A reset without a byte is one for the client; a client that is cut is told at once."""
    client = far.world.client()
    far.next(T.STREAM_START)
    far.say(T.CONNECTION_RESET, 1, service="echo", number=1)
    with pytest.raises(ConnectionResetError):
        far.world.call(lambda: client.recv(1))
    client = far.world.client()
    assert far.next(T.CONNECTION_START).number == 2
    reset(client)
    assert far.next(T.CONNECTION_RESET).number == 2
    assert far.world.ended() == ["refused", "reset-by-peer"]


def test_an_end_of_file_is_held(far: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer comes whole; silence ends it with a reset, and not before."""
    monkeypatch.setattr(localproxy_device, "HOLD", 0.1)
    client = far.world.client()
    far.next(T.STREAM_START)
    client.shutdown(socket.SHUT_WR)
    far.say(T.DATA, 1, b"answer", "echo", number=1)
    assert far.world.call(lambda: client.recv(100)) == b"answer"
    with pytest.raises(ConnectionResetError):
        far.world.call(lambda: client.recv(1))
    assert far.next(T.CONNECTION_RESET).number == 1
    assert far.world.ended() == ["idle"]


def test_a_client_that_takes_nothing_stops_the_reading(far: Far) -> None:
    """256 KiB of one channel, and what the kernel has; then all comes."""
    client = far.world.client()
    far.next(T.STREAM_START)
    size, piece = 0, b"z" * 60_000
    (channel,) = far.device.channels.values()
    while channel.owed < HELD and size < 64 << 20:
        far.say(T.DATA, 1, piece, "echo", number=1)
        size += len(piece)
        loop_of(far).settle()
    assert channel.owed < HELD + 200_000
    for _ in range(20):
        far.say(T.DATA, 1, piece, "echo", number=1)
        size += len(piece)
    loop_of(far).settle(lambda: channel.bytes_received, 0.1)
    assert channel.bytes_received < size
    assert len(far.world.call(lambda: read_exactly(client, size))) == size
    assert channel.owed == 0


def test_a_websocket_that_takes_nothing_stops_the_clients(far: Far) -> None:
    """Little waits here; then all comes."""
    client = far.world.client()
    far.next(T.STREAM_START)
    far.socket.pause()
    client.setblocking(False)
    sent = 0

    def push() -> int:
        nonlocal sent
        try:
            while True:
                sent += client.send(b"y" * 65536)
        except BlockingIOError:
            return sent

    loop_of(far).settle(push, 0.3)
    (channel,) = far.device.channels.values()
    assert channel.blocked and channel.bytes_sent < 12 << 20
    far.socket.resume()
    loop_of(far).until(lambda: sum(len(each.data) for each in far.heard) == sent, "all of it")


def test_garbage_ends_everything(far: Far) -> None:
    """What is no message: the clients are cut, and the other side is told that it broke the rules."""
    client = far.world.client()
    far.next(T.STREAM_START)
    far.socket.send(b"\0\4\xff\xff\xff\xff")
    with pytest.raises(ConnectionResetError):
        far.world.call(lambda: client.recv(1))
    loop_of(far).until(lambda: far.ends, "the close")
    assert far.ends[0][0] == 1002
    (down,) = [fact for fact in far.world.facts if isinstance(fact, LinkDown)]
    assert down.reason == "protocol"
    assert far.world.ended() == ["protocol"]


def test_before_version_3_there_is_one_client_for_a_service(world: EdgeWorld) -> None:
    """A second one is refused, for it would end the first."""
    far = Far(world, 2)
    first = world.client()
    assert far.next(T.STREAM_START).number == 0
    second = world.client()
    with pytest.raises(ConnectionResetError):
        world.call(lambda: second.recv(1))
    (refused,) = [fact for fact in world.facts if isinstance(fact, ClientRefused)]
    assert refused.reason == "no-channel"
    far.say(T.DATA, 1, b"still", "echo")
    assert world.call(lambda: first.recv(9)) == b"still"
    far.socket.close()
    loop_of(far).until(lambda: far.socket.over, "the end of the WebSocket")


def test_no_more_connections_than_a_localproxy_has(far: Far) -> None:
    """The one beyond is refused at once."""
    clients: list[socket.socket] = []
    while len(clients) < MAX_CONNECTIONS:
        clients.append(far.world.client())
        loop_of(far).until(lambda: far.device.running == len(clients), "one more")
    beyond = far.world.client()
    with pytest.raises(ConnectionResetError):
        far.world.call(lambda: beyond.recv(1))
    (refused,) = [fact for fact in far.world.facts if isinstance(fact, ClientRefused)]
    assert refused.reason == "too-many-clients"
    assert len({message.number for message in far.heard}) == len(clients)


def test_a_kick_closes_it(far: Far) -> None:
    """Its clients are cut, and it is told the word."""
    client = far.world.client()
    far.next(T.STREAM_START)
    far.world.board.kick("Robot1", "by an operator", 0)
    far.next(T.SESSION_RESET)
    with pytest.raises(ConnectionResetError):
        far.world.call(lambda: client.recv(1))
    loop_of(far).until(lambda: far.ends, "the close")
    assert len(far.world.board.fleet) == 0
