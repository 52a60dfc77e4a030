"""Dials that wait until other streams are closed."""

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from revtunnel.streams.commands import After
from revtunnel.streams.predecessors import Predecessors


def outcome(waiting: "Deferred[None] | None") -> list[object]:
    """What comes of it, once it does."""
    assert waiting is not None
    found: list[object] = []
    waiting.addBoth(found.append)
    return found


def test_a_dial_waits_for_all_that_are_named_and_here() -> None:
    """For no other link's, and for none that is not here."""
    clock = Clock()
    streams = Predecessors(clock)
    for number in (1, 2, 300):
        streams.began("link", number)
    streams.began("another", 4)
    assert streams.wait("link", None) is None
    assert streams.wait("link", After((4, 5), 1.0)) is None
    assert streams.wait("link", After((1,), 0.0)) is None
    found = outcome(streams.wait("link", After((1, 300, 5), 1.0)))
    streams.ended("link", 1)
    streams.ended("link", 1)
    streams.ended("link", 2)
    assert found == []
    streams.ended("link", 300)
    assert found == [None] and clock.getDelayedCalls() == []


def test_it_waits_no_longer_than_it_is_told() -> None:
    """What is closed later means nothing to it."""
    clock = Clock()
    streams = Predecessors(clock)
    streams.began("link", 1)
    found = outcome(streams.wait("link", After((1,), 0.1)))
    later = outcome(streams.wait("link", After((1,), 0.2)))
    clock.advance(0.1)
    assert (found, later) == ([None], [])
    streams.ended("link", 1)
    assert (found, later) == ([None], [None])
    assert clock.getDelayedCalls() == [] and streams._waiting == {} and streams._open == set()


def test_nothing_is_left_of_a_dial_that_is_not_wanted_any_more() -> None:
    """No timer, and nobody is told twice."""
    clock = Clock()
    streams = Predecessors(clock)
    streams.began("link", 1)
    waiting = streams.wait("link", After((1,), 0.1))
    found = outcome(waiting)
    assert waiting is not None
    waiting.cancel()
    (failure,) = found
    assert failure.check(CancelledError)  # type: ignore[attr-defined]
    streams.ended("link", 1)
    assert clock.getDelayedCalls() == [] and streams._waiting == {}


def test_one_that_goes_on_may_give_up_another() -> None:
    """Both waited for the same stream: the other has ended then, once."""
    clock = Clock()
    streams = Predecessors(clock)
    streams.began("link", 1)
    first, second = (streams.wait("link", After((1,), 1.0)) for _ in range(2))
    assert first is not None and second is not None
    found = outcome(second)
    first.addCallback(lambda _: second.cancel())
    streams.ended("link", 1)
    assert isinstance(getattr(found[0], "value", None), CancelledError)
    assert clock.getDelayedCalls() == []
