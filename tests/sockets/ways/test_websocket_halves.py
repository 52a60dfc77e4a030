"""A WebSocket with half-close: each direction ends by itself, and whatever else ends is a cut."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from revtunnel.ground.errors import LocalError
from revtunnel.sockets.ends import PlainEnd, said
from revtunnel.sockets.ways.websocket_halves import HalfClosingEnd
from tests.sockets.ways.test_websocket import cut_of, drain, finish, push, take
from tests.support.epoll import Loop, own_reactor
from tests.support.web_ends import end_pair, halves

Pair = tuple[HalfClosingEnd, HalfClosingEnd]


@pytest.fixture
def loop(no_leaks: None) -> Iterator[Loop]:
    with own_reactor() as loop:
        yield loop


@pytest.fixture(params=[(tls, turned) for tls in (False, True) for turned in (False, True)], ids=str)
def pair(loop: Loop, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Client and server, or turned round."""
    tls, turned = request.param
    ends = halves(loop.reactor, *end_pair(tls=tls))
    yield ends[::-1] if turned else ends
    for each in ends:
        each.abort()


def test_each_direction_ends_by_itself(pair: Pair) -> None:
    """What is written behind the other side's end of file arrives, and then comes our own end."""
    near, far = pair
    push(near, b"question")
    finish(near)
    assert drain(far) == b"question"
    assert take(far) == b""
    assert far.pending
    push(far, b"answer" * 1000)
    assert drain(near) == b"answer" * 1000
    assert take(near) is None
    finish(far)
    assert take(near) == b""
    far.close()
    near.close()


def test_the_close_behind_both_ends_takes_nothing_away(pair: Pair) -> None:
    """Who was last closes at once: bytes, end of file and close come in one reading."""
    near, far = pair
    finish(near)
    assert take(far) == b""
    push(far, b"last words")
    finish(far)
    far.close()
    assert drain(near) == b"last words"
    assert take(near) == b""
    assert near.closed in (None, (1000, ""))
    near.close()


@pytest.mark.parametrize("ends", [False, True])
def test_a_close_before_both_have_ended_is_a_cut(pair: Pair, ends: bool) -> None:
    """Also that of 1000: a stream without its end of file is no stream that has ended."""
    near, far = pair
    push(far, b"half of it")
    if ends:
        finish(far)
    far.close()
    assert drain_to_the_fault(near) == b"half of it"
    with pytest.raises(OSError):
        for _ in range(100):
            near.write(b"for nobody")
            take(near)


def drain_to_the_fault(end: HalfClosingEnd) -> bytes:
    """What comes before the end, be that one in order or a cut."""
    got = b""
    try:
        while data := take(end):
            got += data
    except OSError:
        pass
    return got


def test_an_abort_is_a_cut(pair: Pair) -> None:
    """Whatever was said before."""
    near, far = pair
    push(far, b"x")
    drain(near)
    far.abort()
    assert cut_of(near)


def test_what_is_no_end_of_file_is_refused(pair: Pair) -> None:
    """Another text, a second end of file, bytes behind one."""
    near, far = pair
    far.wire.queue(far.wire.text(b"EOF"))
    far._push()
    assert cut_of(near) == "WebSocket: a text message, where bytes are wanted"


@pytest.mark.parametrize(("late", "words"), [("text", "a text message, where"), ("bytes", "bytes behind")])
def test_nothing_comes_behind_an_end_of_file(loop: Loop, late: str, words: str) -> None:
    """It is a fault of the other side."""
    near, far = halves(loop.reactor, *end_pair())
    finish(far)
    frame = far.wire.text(b"eof") if late == "text" else far.wire.binary(b"more")
    far.wire.queue(frame)
    far._push()
    near._take(memoryview(_all_of(near)))
    assert near._cut is not None and words in said(near._cut)
    for each in (near, far):
        each.abort()


def _all_of(end: HalfClosingEnd) -> bytes:
    room = memoryview(bytearray(65536))
    size = end.inner.read_into(room)
    return bytes(room[: size or 0])  # nothing where there is nothing now


def test_signs_of_life(pair: Pair) -> None:
    """They are no bytes, and not answered; none comes behind our end of file, or while we are busy anyway."""
    near, far = pair
    frames = far.wire.frames
    near.beat()
    assert take(far) is None
    assert far.wire.frames == frames + 1
    assert far.wire.waiting == 0 and take(near) is None and near.wire.frames == 0
    push(near, b"between")
    near.beat()
    assert drain(far) == b"between"
    finish(near)
    near.beat()
    assert take(far) == b""
    assert _all_of(far) == b""
    near.close()
    near.beat()


def test_an_end_before_the_last_write_is_a_bug(loop: Loop) -> None:
    """As on any End."""
    near, far = halves(loop.reactor, *end_pair())
    while near.write(bytes(65536)):
        pass
    with pytest.raises(LocalError):
        near.end_writing()
    near.abort()
    far.abort()


def test_an_end_of_file_that_does_not_fit_is_said_once(loop: Loop) -> None:
    """It goes out in pieces, and nothing is said behind it."""
    pair = socket.socketpair()
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ends: Any = halves(loop.reactor, *map(PlainEnd, pair))
    near, far = ends
    block = bytes(1000)
    sent = 0
    while taken := near.write(block):
        sent += taken
    got = 0
    data = block
    while data:
        data = data[near.write(data) :]
        got += len(drain(far))
    while not near.end_writing():
        got += len(drain(far))
    assert near.end_writing()
    while (more := take(far)) != b"":
        got += len(more or b"")
    assert got == sent + len(block)
    assert far.closed is None
    near.abort()
    far.abort()
