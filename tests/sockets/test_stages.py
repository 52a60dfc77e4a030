"""Steps before a connection has an owner: waiting, giving up, handshakes, and the way to an address."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from revtunnel.ground.errors import RemoteError
from revtunnel.sockets.ends import RECORD, End, PlainEnd, TlsEnd, said
from revtunnel.sockets.stages import (
    client_tls,
    read_some,
    readable,
    server_tls,
    shake_hands,
    writable,
    write_all,
)
from tests.support.epoll import Loop
from tests.support.throwaway_tls import contexts


@pytest.fixture
def ends() -> Iterator[tuple[PlainEnd, PlainEnd]]:
    near, far = socket.socketpair()
    with near, far:
        yield PlainEnd(near), PlainEnd(far)


def start(step: Any) -> "Deferred[Any]":
    """A step under way."""
    return Deferred.fromCoroutine(step)


def fill(end: End) -> int:
    """Write until nothing more is taken."""
    size = 0
    while taken := end.write(bytes(RECORD)):
        size += taken
    return size


def test_reading_waits_for_bytes_and_tells_the_end(loop: Loop, ends: tuple[PlainEnd, PlainEnd]) -> None:
    """read_some gives what has come, at most what was asked for, then nothing at the end of file."""
    near, far = ends
    reading = start(read_some(loop.reactor, near, 3))
    loop.settle()
    assert not reading.called
    far.write(b"hello")
    assert loop.wait(reading) == b"hel"
    assert loop.wait(start(read_some(loop.reactor, near))) == b"lo"
    far.end_writing()
    assert loop.wait(start(read_some(loop.reactor, near))) == b""
    assert loop.reactor.getReaders() == [loop.reactor.waker]


def test_writing_waits_for_room(loop: Loop, ends: tuple[PlainEnd, PlainEnd]) -> None:
    """write_all returns when the kernel has everything, however little it takes at a time."""
    near, far = ends
    data = bytes(range(256)) * 4096 * 2
    writing = start(write_all(loop.reactor, near, data))
    got = bytearray()
    loop.settle()
    assert not writing.called
    while len(got) < len(data):
        got += loop.wait(start(read_some(loop.reactor, far)))
    loop.wait(writing)
    assert got == data
    assert loop.reactor.getWriters() == []


def test_who_waits_for_room_is_told_of_the_end(loop: Loop, ends: tuple[PlainEnd, PlainEnd]) -> None:
    """The other side goes away while a write waits: the step ends, and the next call says why."""
    near, far = ends
    fill(near)
    waiting = writable(loop.reactor, near)
    far.abort()
    loop.wait(waiting)
    with pytest.raises(OSError):
        near.write(b"x")


@pytest.mark.parametrize("wait", [readable, writable])
def test_giving_up_aborts_the_socket(loop: Loop, ends: tuple[PlainEnd, PlainEnd], wait: Any) -> None:
    """A cancelled wait leaves nothing behind, in the reactor or open."""
    near, _ = ends
    fill(near)
    waiting = wait(loop.reactor, near)
    waiting.cancel()
    with pytest.raises(CancelledError):
        loop.wait(waiting)
    assert near.fileno() == -1
    assert loop.reactor.getWriters() == []
    assert loop.reactor.getReaders() == [loop.reactor.waker]


def test_a_deadline_of_the_callers(loop: Loop, ends: tuple[PlainEnd, PlainEnd]) -> None:
    """addTimeout is a deadline for a step; the socket goes with it."""
    near, _ = ends
    late = start(read_some(loop.reactor, near)).addTimeout(0.01, loop.reactor)
    with pytest.raises(Exception, match="Deferred"):
        loop.wait(late)
    assert near.fileno() == -1


def test_hands_are_shaken_and_checked(loop: Loop, ends: tuple[PlainEnd, PlainEnd]) -> None:
    """Both TLS stages end with ends that carry bytes; the check has seen the connection."""
    server, client = (options.getContext() for options in contexts())
    seen: list[Any] = []
    near = start(client_tls(loop.reactor, client, "memory", seen.append)(ends[0]))
    far = start(server_tls(loop.reactor, server)(ends[1]))
    near_end, far_end = loop.wait(near), loop.wait(far)
    assert seen == [near_end.connection]
    loop.wait(start(write_all(loop.reactor, near_end, b"secret")))
    assert loop.wait(start(read_some(loop.reactor, far_end, 1))) == b"s"
    assert loop.wait(start(read_some(loop.reactor, far_end))) == b"ecret"  # held inside, not in the kernel


def test_a_check_that_fails_aborts(loop: Loop, ends: tuple[PlainEnd, PlainEnd]) -> None:
    """What the check raises is what the stage fails with, and the socket is gone."""

    def refuse(_: object) -> None:
        raise RemoteError("not one of ours")

    server, client = (options.getContext() for options in contexts())
    near = start(client_tls(loop.reactor, client, "", refuse)(ends[0]))
    far = start(server_tls(loop.reactor, server)(ends[1]))
    with pytest.raises(RemoteError, match="not one of ours"):
        loop.wait(near)
    loop.wait(far)
    assert ends[0].fileno() == -1


def test_a_handshake_with_garbage_fails_in_words(loop: Loop, ends: tuple[PlainEnd, PlainEnd]) -> None:
    """No TLS on the other side: an OSError that says so, and the socket is aborted."""
    server, _ = contexts()
    end = TlsEnd.accepting(server.getContext(), ends[0].sock)
    ends[1].write(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(OSError) as caught:
        loop.wait(start(shake_hands(loop.reactor, end)))
    assert said(caught.value).startswith("broke TLS: ")
    assert end.fileno() == -1
