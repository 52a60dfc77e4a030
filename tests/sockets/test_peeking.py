"""Heads are read to their last byte and no further, however they are cut."""

import socket
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import pytest
from twisted.internet.defer import CancelledError, Deferred

from revtunnel.ground.errors import RemoteError
from revtunnel.sockets.ends import PlainEnd, said
from revtunnel.sockets.peeking import read_head
from revtunnel.sockets.ways.proxy_header import VERSIONS, decode_header
from tests.sockets.ways.test_proxy_header import GOLDEN
from tests.support.epoll import Loop


class Line(NamedTuple):
    """A head that ends with a line feed."""

    text: bytes
    size: int


def line(data: bytes) -> Line | None:
    """Decode one; nothing longer than ten bytes."""
    text, end, _ = data.partition(b"\n")
    if len(text) > 10:
        raise RemoteError("too long")
    return Line(text, len(text) + 1) if end else None


@pytest.fixture
def pair() -> Iterator[tuple[PlainEnd, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield PlainEnd(near), far


def reading(loop: Loop, end: PlainEnd) -> "Deferred[Line]":
    """A read under way."""
    return Deferred.fromCoroutine(read_head(loop.reactor, end, line))


@pytest.mark.parametrize("cut", [1, 2, 3, 100])
def test_not_one_byte_of_what_stands_behind(
    loop: Loop, pair: tuple[PlainEnd, socket.socket], cut: int
) -> None:
    """Two heads and a rest: each reader takes its own."""
    end, far = pair
    first = reading(loop, end)
    data = b"hello\n\nrest"
    for at in range(0, len(data), cut):
        far.send(data[at : at + cut])
        loop.settle()
    assert loop.wait(first) == Line(b"hello", 6)
    assert loop.wait(reading(loop, end)) == Line(b"", 1)
    assert end.sock.recv(100) == b"rest"
    assert loop.reactor.getReaders() == [loop.reactor.waker]


@pytest.mark.parametrize(("origin", "wire"), GOLDEN)
def test_proxy_headers_byte_by_byte(
    loop: Loop, pair: tuple[PlainEnd, socket.socket], origin: object, wire: bytes
) -> None:
    """Each golden header, sent so, with a client's bytes in the last segment."""
    end, far = pair
    decode = partial(decode_header, versions=VERSIONS["any"], limit=4096)
    found = Deferred.fromCoroutine(read_head(loop.reactor, end, decode))
    for byte in wire[:-1]:
        far.send(bytes((byte,)))
        loop.reactor.iterate(0)
    far.send(wire[-1:] + b"client")
    assert loop.wait(found).origin == origin
    assert end.sock.recv(100) == b"client"


def test_an_end_within_a_head(loop: Loop, pair: tuple[PlainEnd, socket.socket]) -> None:
    """It is an OSError in words, whatever came before."""
    end, far = pair
    far.send(b"hel")
    far.close()
    with pytest.raises(OSError) as caught:
        loop.wait(reading(loop, end))
    assert said(caught.value) == "ended after 3 bytes of its head"


def test_a_head_that_is_none(loop: Loop, pair: tuple[PlainEnd, socket.socket]) -> None:
    """What the decoder raises passes through, before more is waited for."""
    end, far = pair
    far.send(b"x" * 11)
    with pytest.raises(RemoteError, match="too long"):
        loop.wait(reading(loop, end))


def test_giving_up_aborts_the_socket(loop: Loop, pair: tuple[PlainEnd, socket.socket]) -> None:
    """A deadline of the caller's leaves nothing behind."""
    end, far = pair
    far.send(b"hel")
    late = reading(loop, end)
    loop.settle()
    late.cancel()
    with pytest.raises(CancelledError):
        loop.wait(late)
    assert end.fileno() == -1
    assert loop.reactor.getReaders() == [loop.reactor.waker]
