"""Long work in slices: all of it is done, others have their turn between, the latest work counts."""

from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from revtunnel.sockets.slices import SLICE, Slices


class Work:
    """Steps, each of which takes a fifth of a slice."""

    def __init__(self, clock: Clock, count: int) -> None:
        self.done = 0
        self._clock = clock
        self._count = count

    def __iter__(self) -> Iterator[None]:
        for _ in range(self._count):
            self._clock.rightNow += SLICE / 5
            self.done += 1
            yield


def test_others_have_their_turn_every_few_steps() -> None:
    """Five steps are a slice here; the end is told once, after the last."""
    clock = Clock()
    slices, work = Slices(clock), Work(clock, 12)
    told: list[None] = []
    seen: list[int] = []

    def look() -> None:
        seen.append(work.done)
        if not told:
            clock.callLater(0, look)

    slices.run(iter(work)).addCallback(told.append)
    assert work.done == 0
    clock.callLater(0, look)
    clock.advance(0)
    assert seen == [5, 10, 12] and told == [None]


def test_the_latest_work_is_done_instead_of_the_one_under_way() -> None:
    """Whoever waits for either hears when that is done."""
    clock = Clock()
    slices, first, second = Slices(clock), Work(clock, 100), Work(clock, 3)
    told: list[tuple[str, int]] = []
    slices.run(iter(first)).addCallback(lambda _: told.append(("first", second.done)))
    clock.callLater(
        0, lambda: slices.run(iter(second)).addCallback(lambda _: told.append(("second", second.done)))
    )
    clock.advance(0)
    assert (first.done, told) == (5, [("first", 3), ("second", 3)])
    assert clock.getDelayedCalls() == []


def test_a_step_may_begin_other_work() -> None:
    """That is done instead of the rest."""
    clock = Clock()
    slices, second = Slices(clock), Work(clock, 2)

    def first() -> Iterator[None]:
        slices.run(iter(second))
        yield
        raise AssertionError("it goes on")

    told: list[None] = []
    slices.run(first()).addCallback(told.append)
    for _ in range(3):
        clock.advance(0)
    assert (second.done, told) == (2, [None])


def test_stopped_work_is_over_and_nothing_is_due() -> None:
    """Also when there is none."""
    clock = Clock()
    slices, work = Slices(clock), Work(clock, 100)
    slices.stop()
    told: list[None] = []
    slices.run(iter(work)).addCallback(told.append)
    clock.callLater(0, slices.stop)
    clock.advance(0)
    assert (work.done, told, clock.getDelayedCalls()) == (5, [None], [])


def test_a_fault_of_a_step_is_told_to_who_waits() -> None:
    """The next work is done."""
    clock = Clock()
    slices = Slices(clock)

    def faulty() -> Iterator[None]:
        yield
        raise ValueError("a bug")

    faults: list[Exception] = []
    slices.run(faulty()).addErrback(lambda failure: faults.append(failure.value))
    clock.advance(0)
    with pytest.raises(ValueError, match="a bug"):
        raise faults[0]
    work = Work(clock, 1)
    slices.run(iter(work))
    clock.advance(0)
    assert work.done == 1
