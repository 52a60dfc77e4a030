"""The same line over and over: how many are printed, and what is said about the rest.

Rule of this file: pure decision; ``now`` is monotonic seconds. A key is what makes two lines the same: level,
event, reason or words, serial.
"""

from dataclasses import dataclass

__all__ = ["Flood"]

Key = tuple[str, str, str, str]


@dataclass(slots=True)
class _Window:
    ends: float
    seen: int


class Flood:
    """At most ``lines`` of one key per window; the suppressed ones are told as a number when it ends.

    Args:
        lines: printed per key and window.
        window: seconds, from the first line of a key.
        keys: keys remembered at once; beyond it the oldest window ends early.
    """

    def __init__(self, lines: int = 10, window: float = 60.0, keys: int = 4096) -> None:
        self._lines = lines
        self._length = window
        self._keys = keys
        self._windows: dict[Key, _Window] = {}  # in the order in which they end
        self._early: list[tuple[Key, int]] = []

    def admit(self, key: Key, now: float) -> bool:
        """Whether this line is printed. Call ``over`` first, so that ended windows are gone."""
        window = self._windows.get(key)
        if window is None:
            self._make_room()
            window = _Window(now + self._length, 0)
            self._windows[key] = window
        window.seen += 1
        return window.seen <= self._lines

    def over(self, now: float) -> list[tuple[Key, int]]:
        """The keys whose window has ended with suppressed lines, and how many; each is said once."""
        told, self._early = self._early, []
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if window.ends > now:
                break
            self._end(key, window, told)
        return told

    def _make_room(self) -> None:
        if len(self._windows) >= self._keys:
            key, window = next(iter(self._windows.items()))
            self._end(key, window, self._early)

    def _end(self, key: Key, window: _Window, told: list[tuple[Key, int]]) -> None:
        del self._windows[key]
        if window.seen > self._lines:
            told.append((key, window.seen - self._lines))
