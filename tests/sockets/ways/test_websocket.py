"""A WebSocket as an End: the stream, both endings, cuts, what it holds; under transports and relays."""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost

from revtunnel.ground.errors import LocalError
from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import RECORD, End, PlainEnd, said
from revtunnel.sockets.relay import Relay
from revtunnel.sockets.ways.websocket import LENIENT, WebSocketEnd
from revtunnel.sockets.ways.websocket_upgrade import Upgraded, accept_end, connect_end
from tests.support.depth import deep
from tests.support.epoll import Loop, own_reactor
from tests.support.memory import Recorder
from tests.support.web_ends import ASKED, LIMITS, SmallEnd, anybody, end_pair, join_upgraded, join_web_ends
from tests.support.web_frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, close, frame, frames

ROOM = memoryview(bytearray(4 * RECORD))
WAYS: list[dict[str, Any]] = [{}, {"tls": True}, {"most": 1}, {"most": 1000}]


@pytest.fixture
def loop(no_leaks: None) -> Iterator[Loop]:
    with own_reactor() as loop:
        yield loop


@pytest.fixture
def lasting() -> Iterator[Loop]:
    """For relays, which keep one descriptor for the next."""
    with own_reactor() as loop:
        yield loop


@pytest.fixture(params=[(way, turned) for way in WAYS for turned in (False, True)], ids=str)
def pair(loop: Loop, request: pytest.FixtureRequest) -> Iterator[tuple[WebSocketEnd, WebSocketEnd]]:
    """Two ends, client and server or turned round."""
    way, turned = request.param
    ends = join_web_ends(loop, **way)
    yield ends[::-1] if turned else ends
    for each in ends:
        each.abort()


def take(end: End) -> bytes | None:
    """One read: bytes, empty at the end, None for nothing now."""
    size = end.read_into(ROOM)
    return None if size is None else bytes(ROOM[:size])


def drain(end: End) -> bytes:
    """All that is there, also where the end wants others to have their turn between."""
    got = b""
    while (data := take(end)) or (data is None and end.reads_when_writable):
        got += data or b""
    return got


def push(end: End, data: bytes) -> None:
    """All of it; the other side takes it at once."""
    while data:
        data = data[end.write(data) :]


def finish(end: End) -> None:
    while not end.end_writing():
        pass


class Raw:
    """A server's end of ours, and the client's raw socket."""

    def __init__(self, loop: Loop, **face: Any) -> None:
        client, server = join_upgraded(loop)
        self.end = WebSocketEnd(loop.reactor, server, LIMITS, **face)
        self.sock = client.end.sock
        self.client = client.end

    def say(self, *data: bytes) -> None:
        self.sock.sendall(b"".join(data))

    def hear(self) -> list[tuple[int, bytes]]:
        """Frames that came."""
        try:
            return [(each.opcode, each.payload) for each in frames(self.sock.recv(1 << 20))]
        except BlockingIOError:
            return []

    def close(self) -> None:
        self.end.abort()
        self.client.abort()


# -- the stream


def test_bytes_go_both_ways(pair: tuple[WebSocketEnd, WebSocketEnd]) -> None:
    """As over any End, as bytes or as a memoryview."""
    near, far = pair
    assert (take(near), take(far)) == (None, None)
    push(near, b"question")
    push(far, b"the answer")
    assert (drain(far), drain(near)) == (b"question", b"the answer")
    assert not (near.pending or far.pending)


def test_a_full_one_takes_nothing_and_goes_on_later(pair: tuple[WebSocketEnd, WebSocketEnd]) -> None:
    """What was not taken begins the next write; every byte comes once; one message is held at most."""
    near, far = pair
    small = isinstance(near.inner, SmallEnd)
    data = os.urandom(3000 if small else 3 << 20)
    sent, got, blocked = 0, b"", 0
    while len(got) < len(data):
        taken = near.write(data[sent : sent + 300_000]) if sent < len(data) else 0
        sent += taken
        blocked += not taken
        if not taken:
            got += take(far) or b""
        assert len(near._out) <= LIMITS.piece + 14
        assert sum(map(len, far._held)) <= LIMITS.message + len(ROOM)
    assert got == data
    assert blocked


def test_the_end_in_order_is_a_close(pair: tuple[WebSocketEnd, WebSocketEnd]) -> None:
    """Behind all bytes; the other side's answer is the end of its direction."""
    near, far = pair
    push(near, b"last")
    finish(near)
    assert (drain(far), take(far), take(far)) == (b"last", b"", b"")
    assert far.closed == (1000, "")
    assert take(near) in (b"", None)
    finish(far)
    assert take(near) == b""
    near.close()
    far.close()


def test_what_is_under_way_at_our_end_is_still_read(loop: Loop) -> None:
    """Until the other side's close."""
    near, far = join_web_ends(loop)
    push(far, b"under way")
    finish(near)
    assert take(near) == b"under way"
    assert take(near) is None
    assert drain(far) == b""
    assert take(near) == b""
    for each in (near, far):
        each.close()


def test_bytes_behind_the_other_sides_close_are_dropped_and_counted(loop: Loop) -> None:
    """It reads no more, and a relay may finish."""
    near, far = join_web_ends(loop)
    finish(near)
    assert take(far) == b""
    assert (far.write(b"nobody reads it"), far.dropped) == (15, 15)
    assert far.end_writing()
    for each in (near, far):
        each.close()


# -- cuts


def cut_of(end: End) -> str:
    """The sentence of the next read, and again."""
    with pytest.raises(OSError) as caught:
        take(end)
    with pytest.raises(OSError):
        take(end)
    return said(caught.value)


@pytest.mark.parametrize("way", [{"tcp": True}, {"tcp": True, "tls": True}], ids=str)
def test_an_abort_is_never_a_clean_end(loop: Loop, way: dict[str, Any]) -> None:
    """It says why, in a code of its own; what had come is read before."""
    near, far = join_web_ends(loop, **way)
    push(near, b"bytes")
    near.because(Ended.LINK_LOST, "the device is gone")
    near.abort()
    loop.until(lambda: take(far) == b"bytes")
    assert (
        cut_of(far) == "the other side closed the WebSocket: 4011 link-lost (link-lost: the device is gone)"
    )
    assert far.closed == (4011, "link-lost: the device is gone")
    with pytest.raises(OSError):
        far.write(b"more")
    far.abort()


def test_who_takes_nothing_is_reset_at_once(loop: Loop) -> None:
    """No close waits in the kernel for a side that does not read."""
    near, far = join_web_ends(loop, tcp=True)
    while near.write(b"x" * 100_000):
        pass
    near.abort()
    assert near.fileno() == -1
    with pytest.raises(ConnectionResetError):
        while True:
            take(far)
    far.abort()


def test_who_leaves_bytes_in_our_kernel_is_reset_too(loop: Loop) -> None:
    """They were taken by our kernel, and not by the other one: a close behind them would wait there."""
    client, server = join_upgraded(loop, tcp=True)
    client.end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    server.end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
    near, far = (WebSocketEnd(loop.reactor, each, LIMITS) for each in (server, client))
    for _ in range(20):  # the window is opened by what is sent, the kernel's buffer takes the rest
        assert near.write(b"x" * 50_000) == 50_000
    near.abort()
    with pytest.raises(ConnectionResetError):
        while True:
            take(far)
    assert far.closed is None
    far.abort()


def test_a_connection_without_a_close_is_a_cut(loop: Loop) -> None:
    """FIN alone says nothing; the frame before it does not come half."""
    raw = Raw(loop)
    raw.say(frame(BINARY, b"whole", masked=True), frame(BINARY, b"half", masked=True)[:-2])
    raw.sock.shutdown(socket.SHUT_WR)
    assert take(raw.end) == b"whole"
    assert cut_of(raw.end) == "cut the connection: no WebSocket close"
    raw.close()


@pytest.mark.parametrize(
    ("sent", "words", "answer"),
    [
        (frame(BINARY, b"x", masked=False), "WebSocket: incorrect masking", 1002),
        (frame(BINARY, b"x", masked=True, reserved=4), "WebSocket: reserved bits", 1002),
        (frame(BINARY, b"", masked=True, size=131_073), "WebSocket: ", 1009),
        (frame(TEXT, b"hello", masked=True), "WebSocket: a text message, where bytes are wanted", 1003),
        (frame(TEXT, b"\xff", masked=True), "WebSocket: text that is no UTF-8", 1007),
    ],
)
def test_a_fault_of_the_other_side_is_a_cut(loop: Loop, sent: bytes, words: str, answer: int) -> None:
    """In words, behind the good bytes; it is told the code."""
    raw = Raw(loop)
    raw.say(frame(BINARY, b"good", masked=True), sent, frame(BINARY, b"late", masked=True))
    assert take(raw.end) == b"good"
    assert cut_of(raw.end).startswith(words)
    raw.end.abort()
    ((opcode, payload),) = raw.hear()
    assert (opcode, payload[:2]) == (CLOSE, answer.to_bytes(2, "big"))
    assert raw.sock.recv(1) == b""  # in order, so that the close is read anywhere
    raw.close()


@pytest.mark.parametrize(
    ("code", "clean", "lenient"),
    [
        (1000, True, True),
        (None, False, True),
        (1001, False, False),
        (1011, False, False),
        (4009, False, False),
    ],
)
def test_which_closes_are_clean(loop: Loop, code: int | None, clean: bool, lenient: bool) -> None:
    """1000; where people's tools are the other side, also one without a code."""
    for codes, wanted in (({1000}, clean), (LENIENT, lenient)):
        raw = Raw(loop, clean=frozenset(codes))
        raw.say(frame(BINARY, b"last", masked=True), close(code, masked=True))
        assert take(raw.end) == b"last"
        if wanted:
            assert take(raw.end) == b""
        else:
            assert f"closed the WebSocket: {code or 1005}" in cut_of(raw.end)
        assert raw.hear() == [(CLOSE, b"" if code is None else code.to_bytes(2, "big"))]
        raw.close()


def test_an_end_before_the_last_write_is_a_bug(loop: Loop) -> None:
    """As with TLS: it is begun, and has to be whole first."""
    near, far = join_web_ends(loop)
    while near.write(b"x" * 100_000):
        pass
    with pytest.raises(LocalError):
        near.end_writing()
    for each in (near, far):
        each.abort()


# -- texts and control frames


def test_texts_as_bytes_and_as_commands(loop: Loop) -> None:
    """A terminal in a browser sends keys as text; else they go beside the stream."""
    raw = Raw(loop, texts="bytes")
    raw.say(
        frame(TEXT, "ä".encode(), masked=True), frame(BINARY, b"b", masked=True), frame(TEXT, masked=True)
    )
    assert drain(raw.end) == "äb".encode()
    raw.close()
    heard: list[str] = []
    raw = Raw(loop, texts=heard.append)
    raw.say(
        frame(BINARY, b"one", masked=True, last=False),
        frame(CONT, b"two", masked=True),
        frame(TEXT, b'{"end"', masked=True, last=False),
        frame(PING, masked=True),
        frame(CONT, b": 1}", masked=True),
        frame(TEXT, b"y" * (LIMITS.text + 1), masked=True),
    )
    assert drain_until_cut(raw.end) == b"onetwo"
    assert heard == ['{"end": 1}']
    raw.close()


def drain_until_cut(end: End) -> bytes:
    got = b""
    with pytest.raises(OSError, match="limit 16384"):
        while True:
            got += take(end) or b""
    return got


def test_what_we_say_beside_the_stream(loop: Loop) -> None:
    """Between two pieces, also when nobody writes; too much of it is refused."""
    raw = Raw(loop, texts=lambda text: None)
    assert raw.end.say("one")
    push(raw.end, b"bytes")
    assert raw.end.say("two")
    assert raw.hear() == [(TEXT, b"one"), (BINARY, b"bytes"), (TEXT, b"two")]
    with pytest.raises(LocalError):
        raw.end.say("x" * (LIMITS.message + 1))
    said_yes = 0
    while raw.end.say("x" * 10_000):
        said_yes += 1
        assert said_yes < 200
    assert raw.end.wire.waiting <= 2 * LIMITS.message
    raw.close()


def test_pings_are_answered_and_pongs_measured(loop: Loop) -> None:
    """By whoever reads; the payload is given to who asked."""
    near, far = join_web_ends(loop)
    pongs: list[bytes] = []
    near.ponged = pongs.append
    near.ping(b"12345678")
    assert (take(far), take(near)) == (None, None)
    assert pongs == [b"12345678"]
    finish(near)
    near.ping(b"late")
    assert take(far) == b""
    for each in (near, far):
        each.close()


def test_a_pong_that_did_not_fit_goes_out_by_itself(loop: Loop) -> None:
    """When the socket takes it, although nobody writes; and it goes out behind what was begun before."""
    raw = Raw(loop)
    sent = 0
    while taken := raw.end.write(b"x" * 5000):
        sent += taken
    raw.end._begun = 0  # its writer has given up: nobody will write again
    raw.say(frame(PING, b"are you there", masked=True))
    assert take(raw.end) is None
    assert raw.end._flusher is not None
    data = b""

    def came() -> bool:
        nonlocal data
        try:
            data += raw.sock.recv(1 << 20)
        except BlockingIOError:
            return False
        return data.endswith(b"are you there")

    loop.until(came, "the pong")
    loop.until(lambda: raw.end._flusher is None, "the second descriptor's end")
    told = [*frames(data)]
    assert told[-1].opcode == PONG and {each.opcode for each in told[:-1]} == {BINARY}
    assert sum(len(each.payload) for each in told[:-1]) == sent + 5000
    raw.close()


def test_a_pong_without_a_descriptor_to_spare_goes_with_the_next_reading(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is raised for it."""
    raw = Raw(loop)
    while raw.end.write(b"x" * 5000):
        pass
    raw.end._begun = 0
    monkeypatch.setattr(os, "dup", lambda number: os.open("/nonexistent", os.O_RDONLY))
    raw.say(frame(PING, b"are you there", masked=True))
    assert take(raw.end) is None
    data = raw.sock.recv(1 << 20)
    assert take(raw.end) is None
    assert [*frames(data + raw.sock.recv(1 << 20))][-1].payload == b"are you there"
    raw.close()


def test_a_flood_of_pings_holds_nothing(loop: Loop) -> None:
    """From a side that never reads: its answers stay a few kilobytes, and no second descriptor is left."""
    raw = Raw(loop)
    raw.sock.setblocking(True)
    raw.sock.settimeout(5.0)
    for _ in range(3000):
        raw.say(frame(PING, b"x" * 125, masked=True))
        assert take(raw.end) is None
        assert raw.end.wire.waiting + len(raw.end._out) <= 2 * LIMITS.pongs + 254
    assert raw.end._flusher is not None
    raw.close()


def test_a_flood_of_empty_frames_gives_others_their_turn(loop: Loop) -> None:
    """After some readings without a byte it is left until the next turn, and read on then."""
    near, far = end_pair(most=100)
    client, server = join_upgraded(loop)
    raw = WebSocketEnd(loop.reactor, Upgraded(far, server.engine, "", server.request), LIMITS)
    near.sock.sendall(frame(BINARY, masked=True) * 2000 + frame(BINARY, b"at last", masked=True))
    turns = 0
    while (data := take(raw)) is None:
        assert raw.reads_when_writable
        turns += 1
    assert data == b"at last" and turns > 2
    for each in (near, raw, client.end, server.end):
        each.abort()


# -- where an End is used


def test_bytes_that_came_with_the_handshake_are_delivered_at_once(loop: Loop) -> None:
    """The first frames stand in one reading with the answer, and no event tells of them."""
    near, far = end_pair()
    accepting = Deferred.fromCoroutine(accept_end(loop.reactor, far, anybody, LIMITS))
    connecting = Deferred.fromCoroutine(connect_end(loop.reactor, near, ASKED, LIMITS))
    upgraded = loop.wait(accepting)
    server = WebSocketEnd(loop.reactor, upgraded, LIMITS)
    server.write(b"HELLO")  # before the client has read the answer
    recorder = Recorder()
    client = WebSocketEnd(loop.reactor, loop.wait(connecting), LIMITS)
    transport = EndTransport(loop.reactor, client, recorder)
    transport.start()
    loop.until(lambda: recorder.data == b"HELLO")
    transport.write(b"answer")
    loop.until(lambda: take(server) == b"answer")
    transport.abortConnection()
    server.abort()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_under_a_transport(loop: Loop, tls: bool) -> None:
    """Bulk both ways with back-pressure, then a close in order, then one that is none."""
    for end_in_order in (True, False):
        ends = join_web_ends(loop, tls=tls, tcp=True)
        near, far = Recorder(), Recorder()
        transports = [
            EndTransport(loop.reactor, end, each) for end, each in zip(ends, (near, far), strict=True)
        ]
        for transport in transports:
            transport.start()
        data = os.urandom(1 << 20)
        for transport in transports:
            transport.write(data)
        loop.until(lambda near=near, far=far, data=data: near.data == far.data == data, "all bytes")
        if end_in_order:
            transports[0].loseConnection()
        else:
            transports[0].abortConnection()
        loop.until(lambda far=far: far.lost is not None, "the end")
        assert far.lost is (ConnectionDone if end_in_order else ConnectionLost)
        transports[1].abortConnection()


@pytest.mark.parametrize("way", [{}, {"tls": True}, {"most": 1000}], ids=str)
def test_beside_a_relay(lasting: Loop, way: dict[str, Any]) -> None:
    """A client's WebSocket and a service's socket: all bytes, then the service's end as a close."""
    loop = lasting
    client, server = join_web_ends(loop, **way)
    ours, service = socket.socketpair()
    ended: list[Ended] = []
    relay = Relay(
        loop.reactor, server, PlainEnd(ours), lambda reason, detail: ended.append(reason), RelayLimits()
    )
    relay.start()
    question, answer = os.urandom(70_000), os.urandom(90_000)
    service.setblocking(False)
    got, heard, left = b"", b"", question
    while len(got) < len(question):
        if left:
            left = left[client.write(left) :]
        loop.reactor.iterate(0)
        try:
            got += service.recv(1 << 20)
        except BlockingIOError:
            continue
    left = answer
    while len(heard) < len(answer):
        if left:
            with contextlib.suppress(BlockingIOError):
                left = left[service.send(left) :]
        loop.reactor.iterate(0)
        heard += take(client) or b""
    assert (got, heard) == (question, answer)
    service.close()
    loop.until(lambda: take(client) == b"", "the service's end")
    loop.until(lambda: ended, "the relay's end")
    assert ended == [Ended.CLOSED]
    client.close()


def test_a_relay_that_is_cut_tells_the_client_so(lasting: Loop) -> None:
    """The service's reset is no clean close."""
    loop = lasting
    client, server = join_web_ends(loop, tcp=True)
    ours, service = end_pair(tcp=True)
    ended: list[Ended] = []
    relay = Relay(loop.reactor, server, ours, lambda reason, detail: ended.append(reason), RelayLimits())
    relay.start()
    server.because(Ended.RESET_BY_PEER)
    service.abort()
    loop.until(lambda: ended, "the relay's end")
    with pytest.raises(OSError, match="4007 reset-by-peer"):
        loop.until(lambda: take(client), "the close")
    client.abort()


@given(
    data=st.data(),
    sizes=st.lists(st.integers(1, 5000), min_size=1, max_size=12),
    most=st.sampled_from([1, 13, 500, 1 << 16]),
)
@settings(max_examples=deep(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_writes_and_readings(loop: Loop, data: st.DataObject, sizes: list[int], most: int) -> None:
    """Whatever is written in whatever pieces, with pings between, is read in order, both ways."""
    ends = join_web_ends(loop, replace(LIMITS, piece=700), most=most)
    sent: dict[int, bytes] = {0: b"", 1: b""}
    got: dict[int, bytes] = {0: b"", 1: b""}
    for size in sizes:
        side = data.draw(st.integers(0, 1))
        left = os.urandom(size)
        sent[side] += left
        if data.draw(st.booleans()):
            ends[1 - side].ping(b"x")
        while left:
            left = left[ends[side].write(left) :]
            got[side] += take(ends[1 - side]) or b""
    for side in (0, 1):
        got[side] += drain(ends[1 - side])
    assert got == sent
    for end in ends:
        end.abort()
