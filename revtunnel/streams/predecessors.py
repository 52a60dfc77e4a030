"""Streams of one agent that are not closed at their services yet, and the dials that wait for some of them.

The rules: a stream is here from before its dial, or as a data socket that waits, until its service's
connection is closed by us too, in order or by a reset. A dial waits for those that AFTER names, as long as it
says and no longer; one that is not here has been closed, since a server names none that we may not know yet.

Source: docs/link-protocol.rst "One after the other"; issue "a PLC that takes one connection at a time"; ours.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from revtunnel.streams.commands import After

__all__ = ["Predecessors"]

Stream = tuple[Any, int]  # the link that it is of, and its number there


class _Waiting:
    """A dial that has to wait; ``left``: for these streams yet."""

    __slots__ = ("go", "left", "timer")

    def __init__(self, left: set[Stream], forget: "Callable[[_Waiting], None]") -> None:
        self.left = left
        self.go: Deferred[None] = Deferred(lambda _: forget(self))
        self.timer: IDelayedCall | None = None


class Predecessors:
    """All streams of an agent, whatever carries them."""

    def __init__(self, reactor: Any) -> None:
        self.elsewhere: Callable[[Any, int], None] = lambda link, number: None  # has it be here, if it is not
        self._reactor = reactor
        self._open: set[Stream] = set()
        self._waiting: dict[Stream, list[_Waiting]] = {}

    def began(self, link: Any, number: int) -> None:
        """There is a stream, or there will be one."""
        self._open.add((link, number))

    def ended(self, link: Any, number: int) -> None:
        """It is closed at its service; said twice it means nothing more."""
        stream = link, number
        self._open.discard(stream)
        for waiting in self._waiting.pop(stream, ()):
            waiting.left.discard(stream)
            if not waiting.left and not waiting.go.called:  # one before it may have given it up
                self._end(waiting)

    def wait(self, link: Any, after: After | None) -> "Deferred[None] | None":
        """Fires when those streams are closed, or their time is over; None: there is nothing to wait for."""
        if after is None or not after.seconds:
            return None
        for number in after.numbers:
            self.elsewhere(link, number)
        left = self._open.intersection((link, number) for number in after.numbers)
        if not left:
            return None
        waiting = _Waiting(left, self._forget)
        waiting.timer = self._reactor.callLater(after.seconds, self._end, waiting)
        for stream in left:
            self._waiting.setdefault(stream, []).append(waiting)
        return waiting.go

    def _end(self, waiting: _Waiting) -> None:
        self._forget(waiting)
        waiting.go.callback(None)

    def _forget(self, waiting: _Waiting) -> None:
        """Nobody waits there any more."""
        if waiting.timer is not None and waiting.timer.active():
            waiting.timer.cancel()
        for stream in waiting.left:
            others = [each for each in self._waiting.pop(stream, ()) if each is not waiting]
            if others:
                self._waiting[stream] = others
