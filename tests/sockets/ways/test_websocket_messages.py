"""A WebSocket as messages, over transports in memory: order, room, pauses, signs of life, every end."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.protocol import OPEN
from websockets.uri import WebSocketURI

from revtunnel.ground.errors import LocalError
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ways.websocket_messages import WebSocketMessages
from revtunnel.sockets.ways.websocket_wire import ClientEngine, WebSocketLimits, WebSocketWire
from tests.support.depth import deep
from tests.support.ends import join_ends
from tests.support.epoll import Loop, own_reactor
from tests.support.memory import Network, Pair, Recorder
from tests.support.web_frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, close, frame, frames

LIMITS = WebSocketLimits()
CUTS = [None, 1, 7]


class Owner:
    """Keeps what it was told; ``asked`` is what it does with a message."""

    def __init__(self) -> None:
        self.messages: list[bytes | str] = []
        self.rooms = 0
        self.ends: list[tuple[int, str]] = []
        self.asked: Callable[[bytes | str], None] = lambda message: None
        self.room: Callable[[], None] = lambda: None

    def received(self, message: bytes | str) -> None:
        """A message."""
        assert not self.ends
        self.messages.append(message)
        self.asked(message)

    def may_send(self) -> None:
        """Room again."""
        assert not self.ends
        self.rooms += 1
        self.room()

    def closed(self, code: int, reason: str) -> None:
        """The end."""
        self.ends.append((code, reason))


class World:
    """A client and a server of ours, joined in memory."""

    def __init__(self, limits: WebSocketLimits = LIMITS, **join: Any) -> None:
        self.network = Network()
        clock = self.network.clock
        self.near_owner, self.far_owner = Owner(), Owner()
        engine = ClientEngine(
            WebSocketURI(True, "gate.example", 443, "/", ""), state=OPEN, max_size=limits.message
        )
        self.near = WebSocketMessages(clock, WebSocketWire(engine, limits), self.near_owner)
        self.far = WebSocketMessages(clock, WebSocketWire.server(limits), self.far_owner)
        self.pair: Pair = self.network.join(self.near, self.far, **join)

    @property
    def owners(self) -> tuple[Owner, Owner]:
        return self.near_owner, self.far_owner

    def ended(self) -> None:
        """Nothing is left of it: no connection, no timer, no byte."""
        assert not self.pair.open
        assert self.network.clock.getDelayedCalls() == []
        assert (self.near.waiting, self.far.waiting) == (0, 0)


class RawWorld:
    """A server of ours, and a client that is driven by hand."""

    def __init__(self, limits: WebSocketLimits = LIMITS, **join: Any) -> None:
        self.network = Network()
        self.owner = Owner()
        self.ours = WebSocketMessages(self.network.clock, WebSocketWire.server(limits), self.owner)
        self.raw = Recorder()
        self.pair = self.network.join(self.raw, self.ours, **join)

    def say(self, *data: bytes) -> None:
        assert self.raw.transport is not None
        self.raw.transport.write(b"".join(data))
        self.network.pump()

    def heard(self) -> list[tuple[int, bytes]]:
        """Frames that came since."""
        found = [(each.opcode, each.payload) for each in frames(bytes(self.raw.data))]
        self.raw.data.clear()
        return found


@pytest.mark.parametrize("cuts", CUTS)
def test_messages_of_both_kinds_go_both_ways_in_order(cuts: int | None) -> None:
    """However the bytes are cut; then a close in order, which both are told."""
    world = World(cuts=cuts)
    sent: list[bytes | str] = ["", b"", "text ä", b"\x00\xff", "x" * 3000, b"y" * 3000]
    for message in sent:
        assert world.near.send(message) and world.far.send(message)
    world.network.pump()
    assert world.near_owner.messages == world.far_owner.messages == sent
    world.near.send(b"last")
    world.near.close(1000, "bye")
    world.near.close(4000, "twice")
    assert world.near.send(b"nobody") is True
    world.network.pump()
    assert world.far_owner.messages[-1] == b"last"
    assert world.far_owner.ends == world.near_owner.ends == [(1000, "bye")]
    world.ended()


def test_a_large_message_goes_in_pieces_with_pongs_between() -> None:
    """At most 64 KiB a frame, each when the transport is empty: a ping waits for one piece only."""
    world = RawWorld(capacity=1000)
    world.ours.send("x" * 131_072)
    world.network.turn()
    world.say(frame(PING, b"quick", masked=True))
    told = [(each.opcode, len(each.payload), each.last) for each in frames(bytes(world.raw.data))]
    assert told == [(TEXT, 65_536, False), (PONG, 5, True), (CONT, 65_536, True)]
    with pytest.raises(LocalError, match="131073"):
        world.ours.send(b"x" * 131_073)


def test_whoever_never_reads_holds_one_queue() -> None:
    """Its owner is told to stop, a further message is a bug, and there is room again when half is gone."""
    world = World(capacity=10_000)
    world.far.pause()
    sent = 0
    while world.near.send(b"x" * 20_000):
        sent += 1
    world.network.pump()
    assert LIMITS.queue <= world.near._queued <= LIMITS.queue + 20_000
    assert sum(world.network.held().values()) <= LIMITS.piece + 3 * 10_000
    with pytest.raises(LocalError, match="wait"):
        world.near.send(b"x")
    assert (world.far_owner.messages, world.near_owner.rooms) == ([], 0)
    queued: list[int] = []
    world.near_owner.room = lambda: queued.append(world.near._queued)
    world.far.resume()
    world.network.pump()
    assert (len(world.far_owner.messages), world.near_owner.rooms) == (sent + 1, 1)
    assert LIMITS.queue // 2 - 20_000 < queued[0] < LIMITS.queue // 2
    assert world.near.send(b"more")


def test_a_pause_holds_in_the_middle_of_a_reading() -> None:
    """Nothing comes until it is over, then the rest in order, and the end behind it."""
    world = RawWorld()
    world.owner.asked = lambda message: world.ours.pause()
    world.say(*(frame(TEXT, each, masked=True) for each in (b"1", b"2", b"3")), close(1000, masked=True))
    assert (world.owner.messages, world.owner.ends) == (["1"], [])
    for count in (2, 3):
        world.ours.resume()
        assert len(world.owner.messages) == count
    assert world.owner.ends == []
    world.ours.resume()
    assert (world.owner.messages, world.owner.ends) == (["1", "2", "3"], [(1000, "")])


def test_a_loss_is_told_behind_what_was_held() -> None:
    """Also when it happens while its owner has paused."""
    world = RawWorld()
    world.owner.asked = lambda message: world.ours.pause()
    world.say(frame(TEXT, b"1", masked=True), frame(TEXT, b"2", masked=True))
    world.ours.resume()  # "2", and paused again
    world.owner.asked = lambda message: None
    world.pair.far.abortConnection()
    world.network.pump()
    assert world.owner.ends == []
    world.ours.resume()
    assert (world.owner.messages, [code for code, _ in world.owner.ends]) == (["1", "2"], [1006])


# -- endings


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(BINARY, b"x", masked=False), 1002),
        (frame(TEXT, b"\xff", masked=True), 1007),
        (frame(BINARY, b"", masked=True, size=131_073), 1009),
    ],
)
@pytest.mark.parametrize("cuts", CUTS)
def test_a_fault_is_told_to_both_and_ends_it(sent: bytes, code: int, cuts: int | None) -> None:
    """Its owner once, the other side by a close, and the connection is over."""
    world = RawWorld(cuts=cuts, cuts_to_near=None)
    world.say(frame(TEXT, b"good", masked=True), sent, frame(TEXT, b"late", masked=True))
    assert world.owner.messages == ["good"]
    ((told, reason),) = world.owner.ends
    assert told == code and reason
    ((opcode, payload),) = world.heard()
    assert (opcode, payload[:2]) == (CLOSE, code.to_bytes(2, "big"))
    world.network.advance(LIMITS.parting)
    assert not world.pair.open
    assert world.network.clock.getDelayedCalls() == []


def test_a_connection_that_is_lost_is_no_close() -> None:
    """1006, which nobody can send."""
    world = RawWorld()
    assert world.raw.transport is not None
    world.raw.transport.loseConnection()
    world.network.pump()
    ((code, reason),) = world.owner.ends
    assert code == 1006 and "without a close" in reason
    assert world.network.clock.getDelayedCalls() == []


def test_the_words_of_an_ending() -> None:
    """4000 + its number, and its word."""
    world = World()
    world.far.end(Ended.IDLE, "nothing for 900 s")
    world.network.pump()
    assert world.near_owner.ends == [(4008, "idle: nothing for 900 s")]
    world.ended()


def test_an_abort_says_why_if_it_can_and_calls_nobody() -> None:
    """The other side is told, our owner knows it already."""
    world = World()
    world.far.abort(4009, "operator")
    world.network.pump()
    assert (world.near_owner.ends, world.far_owner.ends) == ([(4009, "operator")], [])
    world.ended()
    full = World(capacity=100)
    full.near.pause()
    full.far.send(b"x" * 50_000)
    full.network.pump()
    full.far.abort(4009, "operator")
    full.network.pump()
    assert not full.pair.far.connected
    full.near.resume()
    full.network.pump()
    assert full.near_owner.ends[0][0] == 1006 and full.far_owner.ends == []
    full.ended()


def test_whoever_does_not_answer_a_close_is_cut() -> None:
    """After 10 s; what was queued before it was written."""
    world = RawWorld()
    world.ours.send("last words")
    world.ours.close(1001, "stopping")
    world.network.pump()
    assert world.heard() == [(TEXT, b"last words"), (CLOSE, b"\x03\xe9stopping")]
    world.network.advance(LIMITS.closing - 0.1)
    assert world.pair.open and world.owner.ends == []
    world.network.advance(0.2)
    assert [code for code, _ in world.owner.ends] == [1006]
    assert not world.pair.far.connected
    assert world.network.clock.getDelayedCalls() == []


def test_a_client_waits_for_its_server_to_end_the_connection_but_not_for_ever() -> None:
    """As RFC 6455 7.1.1 has it."""
    limits = LIMITS
    network, owner, raw = Network(), Owner(), Recorder()
    engine = ClientEngine(WebSocketURI(True, "h", 443, "/", ""), state=OPEN, max_size=limits.message)
    ours = WebSocketMessages(network.clock, WebSocketWire(engine, limits), owner)
    pair = network.join(ours, raw)
    assert raw.transport is not None
    raw.transport.write(close(4003, b"timed-out", masked=False))
    network.pump()
    assert owner.ends == [(4003, "timed-out")]
    assert [each.opcode for each in frames(bytes(raw.data))] == [CLOSE]
    network.advance(limits.closing - 0.1)
    assert pair.near.connected
    network.advance(0.2)
    assert not pair.near.connected
    assert network.clock.getDelayedCalls() == []


def test_a_close_answers_although_the_transport_is_full() -> None:
    """What was queued is dropped, for nobody takes it; the answer goes out behind what was begun."""
    world = RawWorld(capacity=100)
    world.raw.transport.pauseProducing()  # type: ignore[union-attr]
    for _ in range(3):
        world.ours.send(b"x" * 50_000)
    world.say(close(1000, masked=True))
    assert (world.owner.ends, world.ours.waiting) == ([(1000, "")], 0)
    world.raw.transport.resumeProducing()  # type: ignore[union-attr]
    world.network.pump()
    assert [opcode for opcode, _ in world.heard()] == [BINARY, CLOSE]
    assert not world.pair.open
    stuck = RawWorld(capacity=100)
    stuck.raw.transport.pauseProducing()  # type: ignore[union-attr]
    stuck.ours.send(b"x" * 50_000)
    stuck.say(close(1000, masked=True))
    stuck.network.advance(LIMITS.closing)
    assert not stuck.pair.far.connected


# -- signs of life


def test_a_silent_side_is_asked_and_cut_when_it_does_not_answer() -> None:
    """25 s, then 20 s; anything it says counts."""
    world = RawWorld()
    world.network.advance(24.9)
    assert world.heard() == []
    world.network.advance(0.2)
    assert [opcode for opcode, _ in world.heard()] == [PING]
    world.network.advance(19.0)
    world.say(frame(PONG, b"another", masked=True))
    world.network.advance(44.8)
    assert world.pair.open and [opcode for opcode, _ in world.heard()] == []
    world.network.advance(0.3)
    assert [(code, reason) for code, reason in world.owner.ends] == [(1006, "silent for 45 s")]
    assert world.raw.lost is not None
    assert world.network.clock.getDelayedCalls() == []


def test_a_side_that_answers_lives_and_is_measured() -> None:
    """For as long as it likes."""
    world = World()
    world.network.advance(3600.0)
    assert world.pair.open
    assert world.near.round_trip is not None and world.far.round_trip is not None
    world.near.ping()
    world.pair.sever()
    world.network.advance(0.25)
    world.pair.restore()
    world.network.pump()
    assert world.near.round_trip == 0.25
    world.network.advance(100.0)
    world.pair.sever()
    world.network.advance(LIMITS.keepalive + LIMITS.answer + LIMITS.keepalive)
    assert [code for code, _ in world.near_owner.ends] == [code for code, _ in world.far_owner.ends] == [1006]
    world.ended()


def test_whoever_takes_nothing_hides_its_answer_and_has_more_time() -> None:
    """300 s, not 20: it may be a program that waits for its own user."""
    world = World(capacity=100)
    world.far.pause()
    world.near.send(b"x" * 50_000)
    world.network.advance(200.0)
    assert world.near_owner.ends == []
    world.far.resume()
    world.network.advance(1000.0)
    assert world.pair.open and world.far_owner.messages == [b"x" * 50_000]
    world.far.pause()
    world.near.send(b"x" * 50_000)
    world.network.advance(LIMITS.keepalive + LIMITS.stall + LIMITS.answer + 1)
    assert [code for code, _ in world.near_owner.ends] == [1006]


def test_an_owner_who_has_paused_does_not_judge() -> None:
    """It does not read, so it cannot hear an answer."""
    world = RawWorld()
    world.ours.pause()
    world.network.advance(500.0)
    assert world.pair.open and world.heard() == []
    world.ours.resume()
    world.network.advance(25.1)
    assert [opcode for opcode, _ in world.heard()] == [PING]


def test_messages_that_came_with_the_handshake_come_first() -> None:
    """The engine holds them when the face is put on."""
    engine = ClientEngine(WebSocketURI(True, "h", 443, "/", ""), state=OPEN, max_size=LIMITS.message)
    engine.receive_data(frame(TEXT, b"early", masked=False) + frame(PING, b"p", masked=False))
    network, owner, raw = Network(), Owner(), Recorder()
    ours = WebSocketMessages(network.clock, WebSocketWire(engine, LIMITS), owner)
    network.join(ours, raw)
    network.pump()
    assert owner.messages == ["early"]
    assert [each.payload for each in frames(bytes(raw.data))] == [b"p"]


@given(
    messages=st.lists(st.one_of(st.text(max_size=400), st.binary(max_size=400)), max_size=12),
    cuts=st.sampled_from([None, 1, 5, 64]),
    capacity=st.sampled_from([1, 50, 65536]),
    piece=st.sampled_from([1, 30, 1000]),
    pauses=st.sets(st.integers(0, 12)),
)
@settings(max_examples=deep(60), deadline=None)
def test_any_messages_over_any_transport(
    messages: list[bytes | str], cuts: int | None, capacity: int, piece: int, pauses: set[int]
) -> None:
    """The same messages in the same order, with an owner who pauses now and then; then the close."""
    world = World(replace(LIMITS, piece=piece), cuts=cuts, capacity=capacity)

    def asked(message: bytes | str) -> None:
        if len(world.far_owner.messages) in pauses:
            world.far.pause()
            world.network.clock.callLater(1.0, world.far.resume)

    world.far_owner.asked = asked
    for message in messages:
        world.near.send(message)
    world.near.close()
    world.network.advance(13.0 if pauses else 0.0)
    if len(pauses) < 9:
        assert world.far_owner.messages == messages
        assert world.far_owner.ends == [(1000, "")]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_over_our_own_transports(tls: bool) -> None:
    """On sockets, plain and TLS: many messages each way, then a close in order."""
    with own_reactor() as loop:
        owners = Owner(), Owner()
        engine = ClientEngine(WebSocketURI(True, "h", 443, "/", ""), state=OPEN, max_size=LIMITS.message)
        near = WebSocketMessages(loop.reactor, WebSocketWire(engine, LIMITS), owners[0])
        far = WebSocketMessages(loop.reactor, WebSocketWire.server(LIMITS), owners[1])
        join_ends(loop, near, far, tls=tls, tcp=True)
        stream(loop, near, owners[0], far, owners[1])


def stream(
    loop: Loop, near: WebSocketMessages, near_owner: Owner, far: WebSocketMessages, far_owner: Owner
) -> None:
    """Two hundred messages, as fast as there is room, each way."""
    for socket, owner in ((near, near_owner), (far, far_owner)):
        left = [b"%d " % n * 5000 for n in range(200)]

        def more(socket: WebSocketMessages = socket, left: list[bytes] = left) -> None:
            while left and socket.send(left.pop(0)):
                pass

        owner.room = more
        more()
    loop.until(lambda: len(near_owner.messages) == len(far_owner.messages) == 200, "all messages")
    assert near_owner.messages == far_owner.messages == [b"%d " % n * 5000 for n in range(200)]
    near.close()
    loop.until(lambda: near_owner.ends and far_owner.ends, "both ends")
    assert near_owner.ends == far_owner.ends == [(1000, "")]
    loop.until(lambda: near._lost and far._lost, "the connection's end")
