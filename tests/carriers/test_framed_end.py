"""One End with frames on it: what its owner hears, and that a death is said once, released and aborted."""

import socket
from collections.abc import Iterator

import pytest
from twisted.python.failure import Failure

from revtunnel.carriers.framed_end import FramedEnd
from revtunnel.ground.errors import RemoteError
from revtunnel.sockets.ends import End, PlainEnd
from tests.support.epoll import Loop, own_reactor
from tests.support.web_ends import end_pair


class Kept(FramedEnd):
    """It keeps what it is told, and dies of ``bad``."""

    __slots__ = ("deaths", "heard")

    def __init__(self, loop: Loop, end: End) -> None:
        super().__init__(loop.reactor, end)
        self.heard = b""
        self.deaths: list[tuple[str, int]] = []  # and the descriptor by then

    def received(self, data: bytes) -> None:
        if b"bad" in data:
            raise RemoteError("that is bad")
        self.heard += data

    def died(self, detail: str) -> None:
        self.deaths.append((detail, self.fileno()))


@pytest.fixture
def loop(no_leaks: None) -> Iterator[Loop]:
    with own_reactor() as loop:
        yield loop


Pair = tuple[Kept, socket.socket]


@pytest.fixture
def pair(loop: Loop) -> Iterator[Pair]:
    """One that is watched, and a plain socket at the other side."""
    near, far = socket.socketpair()
    near.setblocking(False)
    kept = Kept(loop, PlainEnd(near))
    kept.watch()
    yield kept, far
    far.close()
    kept.abort()


def test_bytes_go_both_ways_until_it_is_released(loop: Loop, pair: Pair) -> None:
    """Then the end is its new owner's, who finds in the kernel what nobody has read."""
    kept, far = pair
    far.send(b"one")
    loop.until(lambda: kept.heard == b"one")
    assert kept.say(b"two") and far.recv(9) == b"two"
    end = kept.release()
    far.send(b"three")
    kept.doRead()  # as when both came in one turn
    loop.settle()
    assert kept.heard == b"one" and end.sock.recv(9) == b"three"
    kept.connectionLost(Failure(ConnectionResetError()))
    assert kept.deaths == [] and kept.release() is end


@pytest.mark.parametrize(
    ("act", "detail"),
    [
        (lambda far: far.close(), "ended by the other side"),
        (lambda far: far.send(b"bad"), "that is bad"),
    ],
    ids=["end of file", "no frame"],
)
def test_a_death_is_said_once(loop: Loop, pair: Pair, act: object, detail: str) -> None:
    """With its cause, when the descriptor is closed already; and nothing of it is watched any more."""
    kept, far = pair
    act(far)  # type: ignore[operator]
    loop.until(lambda: kept.deaths)
    assert kept.deaths == [(detail, -1)]
    assert not kept.say(b"late")
    kept.connectionLost(Failure(ConnectionResetError()))
    assert len(kept.deaths) == 1 and kept not in loop.reactor.getReaders()


def test_a_hang_up_that_the_reactor_tells(loop: Loop, pair: Pair) -> None:
    """It has forgotten the descriptor by then."""
    kept, _ = pair
    loop.reactor.removeReader(kept)
    kept.connectionLost(Failure(ConnectionResetError("it hung up")))
    assert kept.deaths == [("it hung up", -1)]


def test_a_frame_that_is_not_taken_whole_is_a_death(loop: Loop, pair: Pair) -> None:
    """Frames here are small: a kernel that is full has a peer that reads nothing."""
    kept, _ = pair
    assert not kept.say(bytes(1 << 24))
    ((detail, _),) = kept.deaths
    assert detail.startswith("took ") and detail.endswith("of 16777216 bytes")


def test_a_frame_for_one_that_has_gone_is_a_death(loop: Loop, pair: Pair) -> None:
    """Found out by writing, before the reactor tells it."""
    kept, far = pair
    far.close()
    assert not kept.say(b"x")
    assert kept.deaths == [("reset the connection", -1)]


def test_an_end_that_waited_until_it_was_writable_is_read_again(
    loop: Loop, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes behind that is told as ever."""
    kept, far = pair
    read, waits = PlainEnd.read_into, [True]

    def reads(end: PlainEnd, view: memoryview) -> int | None:
        end.reads_when_writable = bool(waits and waits.pop())
        return None if end.reads_when_writable else read(end, view)

    monkeypatch.setattr(PlainEnd, "read_into", reads)
    for word in (b"one", b"two"):
        far.send(word)
        loop.until(lambda word=word: kept.heard.endswith(word))  # type: ignore[misc]


def test_what_tls_has_read_already_is_told_without_an_event(loop: Loop) -> None:
    """Two records came in one reading: of the second the kernel says nothing more."""
    near, far = end_pair(tls=True)
    far.write(b"x" * 16384)
    far.write(b"y" * 100)
    kept = Kept(loop, near)
    first = memoryview(bytearray(10))
    loop.until(lambda: near.read_into(first))
    assert near.pending
    kept.watch()
    loop.until(lambda: len(kept.heard) == 16384 - 10 + 100)
    kept.abort()
    far.abort()
