"""Which of many keys is due next.

Rule of this file: nothing walks over all keys, and times come from the caller.

Source: ours.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

__all__ = ["Deadlines"]

Key = TypeVar("Key", int, str, bytes, tuple[str, str])


class Deadlines(Generic[Key]):
    """One deadline per key, the earliest first; changing one costs log n, and old entries never pile up."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, Key]] = []
        self._live: dict[Key, float] = {}

    def set(self, key: Key, when: float | None) -> None:
        """Give ``key`` this deadline instead of any other; None is none."""
        self._live.pop(key, None)
        if when is None:
            return
        self._live[key] = when
        heappush(self._heap, (when, key))
        if len(self._heap) > 2 * len(self._live) + 64:
            self._heap = [(at, key) for key, at in self._live.items()]
            heapify(self._heap)

    def earliest(self) -> float | None:
        """The next deadline, or None."""
        while self._heap and self._live.get(self._heap[0][1]) != self._heap[0][0]:
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def due(self, now: float) -> Iterator[Key]:
        """Take out every key whose deadline is at or before ``now``, in order of deadlines."""
        while (when := self.earliest()) is not None and when <= now:
            key = heappop(self._heap)[1]
            del self._live[key]
            yield key
