"""Channel numbers of one link, and a counter of odd behaviour.

A number is given back only when nothing that the other side may still send can mean its old holder; who
decides that is the mux of the wire. Numbers come round in turn, longest unused first, so that a late frame
meets a number that rests.

Source: wire/readyagent.md section 5.1; faults.md F5, F9, N23, N24.
"""

from collections import deque

from revtunnel.ground.errors import LocalError, RemoteError

__all__ = ["Numbers", "Tally"]


class Numbers:
    """The numbers 1 to ``most``; 0 is never a channel. Nothing is held for a link that never had one."""

    __slots__ = ("_fresh", "_most", "_rested", "_taken")

    def __init__(self, most: int) -> None:
        self._most = most
        self._fresh = 1  # the least that was never taken: those rested longest
        self._rested: deque[int] | None = None  # made with the first that comes back
        self._taken = 0  # a bit for each

    @property
    def free(self) -> int:
        """How many can be taken now."""
        return self._most + 1 - self._fresh + len(self._rested or ())

    def take(self) -> int | None:
        """The number that rested longest, or None when all are in use."""
        if self._fresh <= self._most:
            number = self._fresh
            self._fresh += 1
        elif self._rested:
            number = self._rested.popleft()
        else:
            return None
        self._taken |= 1 << number
        return number

    def give(self, number: int) -> None:
        """A number rests again."""
        if number < 0 or not self._taken >> number & 1:
            raise LocalError(f"number {number} was not taken")
        self._taken ^= 1 << number
        if self._rested is None:
            self._rested = deque()
        self._rested.append(number)


class Tally:
    """Counts oddities of the other side; too many in a time end the link."""

    __slots__ = ("_begun", "_count", "_most", "_what", "_window", "total")

    def __init__(self, most: int, window: float, what: str) -> None:
        self.total = 0
        self._most = most
        self._window = window
        self._what = what
        self._begun = float("-inf")
        self._count = 0

    def add(self, now: float) -> None:
        """Count one.

        Raises:
            RemoteError: that was the last one too many in this window of time.
        """
        self.total += 1
        if now - self._begun > self._window:
            self._begun, self._count = now, 0
        self._count += 1
        if self._count >= self._most:
            raise RemoteError(f"{self._count} {self._what} in {self._window:g} s")
