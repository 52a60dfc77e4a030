"""Long work in slices: a few milliseconds of it, then the reactor's turn, then the next few.

The rule: whoever has something to do for every device hands it over as steps, one for each. Only the latest
such work counts: what is under way is dropped for it, because it would be done with what is not so any more.

Source: ours.
"""

from collections.abc import Iterator

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

__all__ = ["Slices"]

SLICE = 0.005  # seconds


class Slices:
    """One work at a time."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._steps: Iterator[None] = iter(())
        self._next: IDelayedCall | None = None
        self._waiting: list[Deferred[None]] = []

    def run(self, steps: Iterator[None]) -> "Deferred[None]":
        """Take all steps, from the next turn on. Fires when they, or what came instead of them, are done."""
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        self._steps = steps
        if self._next is None:
            self._next = self._clock.callLater(0, self._slice)
        return done

    @property
    def busy(self) -> bool:
        """Whether some of it is not done yet."""
        return self._next is not None

    def stop(self) -> None:
        """Do no more of it; whoever waits is told that it is over."""
        if self._next is not None:
            self._next.cancel()
            self._over(None)

    def _slice(self) -> None:
        self._next = None
        until = self._clock.seconds() + SLICE
        steps = self._steps
        try:
            for _ in steps:
                if self._steps is not steps:  # a step began something else
                    return
                if self._clock.seconds() >= until:
                    self._next = self._clock.callLater(0, self._slice)
                    return
        except Exception:
            self._over(Failure())
        else:
            self._over(None)

    def _over(self, failure: Failure | None) -> None:
        self._next = None
        waiting, self._waiting = self._waiting, []
        for done in waiting:
            done.callback(failure)
