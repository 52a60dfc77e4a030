"""A barrier on a wire that answers in order: "everything before this has been handled over there".

A legacy device answers DATA for an unknown number with CLOSE at once and in order, so one byte of DATA on
number 0, which is never a channel, is a question, and CLOSE 0 its answer. One question is open at a time.

Source: wire/readyagent.md sections 5.1, 5.3 and 5.4.
"""

from collections import deque
from typing import Generic, TypeVar

__all__ = ["Barrier"]

T = TypeVar("T")


class Barrier(Generic[T]):
    """Things that wait for answers to questions which were sent after they began to wait."""

    def __init__(self) -> None:
        self._asked = 0
        self._answered = 0
        self._waiting: deque[tuple[int, T]] = deque()

    @property
    def open(self) -> bool:
        """Whether a question is out."""
        return self._asked > self._answered

    @property
    def wanted(self) -> bool:
        """Whether a question should be sent now."""
        return bool(self._waiting) and not self.open

    def wait(self, thing: T, answers: int = 1) -> None:
        """Let ``thing`` pass after ``answers`` questions, all of them sent after now, were answered."""
        self._waiting.append((self._asked + answers, thing))

    def ask(self) -> None:
        """A question was sent."""
        self._asked += 1

    def answer(self) -> list[T] | None:
        """An answer came: what may pass now; None when nothing was asked."""
        if not self.open:
            return None
        self._answered += 1
        passed = [thing for needed, thing in self._waiting if needed <= self._answered]
        self._waiting = deque(entry for entry in self._waiting if entry[0] > self._answered)
        return passed
