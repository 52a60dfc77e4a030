"""A short turn does what Twisted's does, event for event."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.selectreactor import SelectReactor
from twisted.python import log
from twisted.python.failure import Failure

from revtunnel.sockets.reactor_turn import shorten_turns
from tests.support.epoll import Loop, own_reactor


@pytest.fixture(params=["ours", "twisted's"])
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    """A reactor with the turn of either: the tests hold for both."""
    with own_reactor() as loop:
        if request.param == "twisted's":
            del loop.reactor.doIteration
        yield loop


class Watched:
    """One end of a socket pair, and what the reactor told of it."""

    def __init__(self, loop: Loop, act: Callable[[], Any] = lambda: None) -> None:
        self.near, self.far = socket.socketpair()
        self.loop = loop
        self.act = act
        self.told: list[str] = []
        loop.reactor.addReader(self)  # type: ignore[arg-type]

    def fileno(self) -> int:
        return self.near.fileno()

    def logPrefix(self) -> str:
        return "-"

    def doRead(self) -> Any:
        self.told.append("read")
        self.near.recv(100)
        return self.act()

    def doWrite(self) -> None:
        self.told.append("write")
        self.loop.reactor.removeWriter(self)  # type: ignore[arg-type]

    def connectionLost(self, reason: Failure) -> None:
        self.told.append(reason.type.__name__)

    def close(self) -> None:
        self.loop.reactor.removeReader(self)  # type: ignore[arg-type]
        self.near.close()
        self.far.close()


def test_a_reader_is_called_for_its_event(loop: Loop) -> None:
    """And a writer for its own, both in one turn when both are due."""
    watched = Watched(loop)
    watched.far.send(b"x")
    loop.reactor.iterate(0)
    assert watched.told == ["read"]
    watched.far.send(b"x")
    loop.reactor.addWriter(watched)  # type: ignore[arg-type]
    loop.reactor.iterate(0)
    assert watched.told == ["read", "read", "write"]
    watched.close()


@pytest.mark.parametrize("error", [ConnectionDone(), ConnectionLost(), OSError("odd")])
def test_what_a_reader_returns_ends_it(loop: Loop, error: Exception) -> None:
    watched = Watched(loop, lambda: error)
    watched.far.send(b"xx")
    loop.reactor.iterate(0)
    loop.reactor.iterate(0)
    assert watched.told == ["read", type(error).__name__]
    watched.close()


def test_what_a_reader_raises_is_logged_and_ends_it(loop: Loop) -> None:
    def fail() -> None:
        raise ValueError("a bug")

    seen: list[Any] = []
    log.addObserver(seen.append)
    watched = Watched(loop, fail)
    watched.far.send(b"x")
    loop.reactor.iterate(0)
    log.removeObserver(seen.append)
    assert watched.told == ["read", "ValueError"]
    assert ["a bug" in str(event["failure"]) for event in seen if event["isError"]] == [True]
    watched.close()


def test_a_hang_up_is_told(loop: Loop) -> None:
    watched = Watched(loop)
    watched.far.close()
    for _ in range(3):
        loop.reactor.iterate(0)
    assert watched.told[-1] == "ConnectionDone" or set(watched.told) == {"read"}
    watched.close()


def test_who_left_in_the_same_turn_is_not_called(loop: Loop) -> None:
    """One reader takes the other away, whichever comes first."""
    both: list[Watched] = []

    def take_the_other() -> None:
        for each in both:
            if not each.told:
                loop.reactor.removeReader(each)  # type: ignore[arg-type]

    both += Watched(loop, take_the_other), Watched(loop, take_the_other)
    for each in both:
        each.far.send(b"x")
    loop.reactor.iterate(0)
    assert sorted(each.told for each in both) == [[], ["read"]]
    for each in both:
        each.close()


def test_another_reactor_is_left_alone() -> None:
    other = SelectReactor()
    before = other.doIteration
    assert not shorten_turns(other)
    assert other.doIteration == before

    class Mine(EPollReactor):
        """Somebody's, whose turns are his."""

    mine = Mine()
    assert not shorten_turns(mine)
    for reactor in (other, mine):
        reactor.removeAll()
        reactor.waker.connectionLost(Failure(ConnectionError()))
    mine._poller.close()
