"""Connections that nobody reads: who is told that their other side left, and what it costs to ask."""

import socket
from collections.abc import Iterator

import pytest

from revtunnel.sockets.ends import PlainEnd
from revtunnel.sockets.hangups import Hangups, hung_up, is_cut, reserve
from tests.support.ends import tcp_pair
from tests.support.epoll import Loop, own_reactor


class Unread:
    """One that keeps what it is told."""

    def __init__(self) -> None:
        near, far = tcp_pair()
        self.end, self.far = PlainEnd(near), PlainEnd(far)
        self.told: list[bool] = []

    @property
    def sock(self) -> socket.socket:
        """Its socket."""
        return self.end.sock

    def left(self, cut: bool) -> None:
        """Keep it."""
        self.told.append(cut)


@pytest.fixture
def loop() -> Iterator[Loop]:
    with own_reactor() as loop:
        yield loop


def test_a_fin_and_a_reset_are_told_apart(loop: Loop) -> None:
    """Each once, also when it came before; what was read before is of no account."""
    ended, cut, early = Unread(), Unread(), Unread()
    early.far.end_writing()
    for each in (ended, cut, early):
        Hangups.of(loop.reactor).add(each)
    ended.far.end_writing()
    cut.far.abort()
    loop.until(lambda: ended.told and cut.told and early.told)
    loop.settle()
    assert (ended.told, cut.told, early.told) == ([False], [True], [False])
    assert is_cut(cut.sock) and not is_cut(ended.sock)
    error = hung_up(cut.sock)
    assert error is not None and error.strerror == "Connection reset by peer"
    for each in (ended, cut, early):
        Hangups.of(loop.reactor).remove(each)
        each.end.abort()
        each.far.abort()
    assert loop.reactor.getReaders() == [loop.reactor.waker]


def test_one_whose_end_is_known_hears_of_a_reset_only(loop: Loop) -> None:
    """Its FIN has been read."""
    one = Unread()
    one.far.end_writing()
    Hangups.of(loop.reactor).add(one, ended=True)
    loop.settle()
    assert one.told == []
    one.far.abort()
    loop.until(lambda: one.told)
    assert one.told == [True]
    Hangups.of(loop.reactor).remove(one)
    one.end.abort()


def test_the_epoll_is_kept_for_the_next(loop: Loop) -> None:
    """So that it can be had before descriptors are short."""
    reserve()
    spare = len(Hangups._spare)
    one = Unread()
    watch = Hangups.of(loop.reactor)
    watch.add(one)
    assert len(Hangups._spare) == spare - 1
    watch.remove(one)
    assert len(Hangups._spare) == spare
    one.end.abort()
    one.far.abort()
