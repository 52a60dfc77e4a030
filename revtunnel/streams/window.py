"""Credit of one direction of one channel, and the pools that bound the sum of it.

Three rules, and the invariant ``left + held + owed == size``, where ``held`` is what arrived and was not yet
consumed:

1. Credit is spent when bytes arrive; one byte over is the sender's fault (``RemoteError``).
2. It is owed again when the bytes have left for the far socket, never on receipt, and announced when half a
   window is owed.
3. A window doubles while it has no room for what comes in two round trips, if both pools allow it: one
   is what a flow needs, one is on its way while half a window is announced, and each more would be a queue
   before whoever comes next. What lies beyond ``first`` comes out of the pools and goes back when the channel
   ends, so windows never exceed them.

Source: wire/link-extension.md "Flow control on the link".
"""

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.streams.commands import MAX_CREDIT

__all__ = ["CreditPool", "ReceiveWindow", "SendCredit"]

ROUND_TRIPS = 2  # whose bytes a window should have room for
PERIOD = 0.01  # seconds over which that is judged, or a round trip if it is longer: bytes come in heaps


class CreditPool:
    """Bytes of credit that may be granted beyond the first windows; a link's pool draws on the server's."""

    __slots__ = ("_parent", "limit", "used")

    def __init__(self, limit: int, parent: "CreditPool | None" = None) -> None:
        self.limit = limit
        self.used = 0
        self._parent = parent

    def take(self, size: int) -> bool:
        """Take ``size`` bytes, here and above, or nothing."""
        if self.used + size > self.limit or (self._parent is not None and not self._parent.take(size)):
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        """Return bytes that were taken."""
        if size > self.used:
            raise LocalError(f"{size} bytes returned to a pool of which {self.used} are used")
        self.used -= size
        if self._parent is not None:
            self._parent.give(size)


class SendCredit:
    """What we may still send on a channel."""

    __slots__ = ("left",)

    def __init__(self, first: int) -> None:
        self.left = first

    def spend(self, size: int) -> None:
        """Note ``size`` bytes as sent."""
        if size > self.left:
            raise LocalError(f"{size} bytes sent with {self.left} of credit")
        self.left -= size

    def grow(self, size: int) -> None:
        """The other side announced ``size`` bytes more.

        Raises:
            RemoteError: the sum passes 2^31-1 (faults.md F21).
        """
        if self.left + size > MAX_CREDIT:
            raise RemoteError(f"WINDOW of {size} bytes on top of {self.left} passes {MAX_CREDIT}")
        self.left += size


class ReceiveWindow:
    """What the other side may still send to us on a channel."""

    __slots__ = ("_first", "_largest", "_moved", "_pool", "_since", "left", "owed", "size")

    def __init__(self, first: int, largest: int, pool: CreditPool) -> None:
        self.size = first
        self.left = first
        self.owed = 0
        self._first = first
        self._largest = largest
        self._pool = pool
        self._since = float("-inf")  # when the bytes below began to be counted
        self._moved = 0  # bytes consumed since

    @property
    def held(self) -> int:
        """Bytes that arrived and are not consumed yet."""
        return self.size - self.left - self.owed

    def arrive(self, size: int) -> None:
        """Spend credit for bytes that came in.

        Raises:
            RemoteError: more than was granted (faults.md F22).
        """
        if size > self.left:
            raise RemoteError(f"{size} bytes with {self.left} of credit left")
        self.left -= size

    def consumed(self, size: int, now: float, round_trip: float | None) -> int:
        """Bytes have left for the far socket: the credit to announce now, 0 for none yet."""
        if size > self.held:
            raise LocalError(f"{size} bytes consumed, {self.held} held")
        self.owed += size
        self._moved += size
        if self.owed < self.size // 2:
            return 0
        narrow = round_trip is not None and self._is_narrow(now, round_trip)
        return self._announce(self._widen(min(2 * self.size, self._largest)) if narrow else 0)

    def enlarge(self, size: int) -> int:
        """Raise the window to ``size`` if the pools allow it: the credit to announce, 0 for none."""
        return self._announce(self._widen(min(size, self._largest)))

    def end(self) -> None:
        """The channel is over: what was taken from the pools goes back."""
        self._pool.give(self.size - self._first)
        self.size = self._first

    def _is_narrow(self, now: float, round_trip: float) -> bool:
        """Whether the bytes of ROUND_TRIPS have no room."""
        took = now - self._since
        if took < max(round_trip, PERIOD):
            return False
        narrow = self.size * took < ROUND_TRIPS * self._moved * round_trip
        self._since, self._moved = now, 0
        return narrow

    def _widen(self, size: int) -> int:
        extra = size - self.size
        if extra <= 0 or not self._pool.take(extra):
            return 0
        self.size += extra
        return extra

    def _announce(self, extra: int) -> int:
        credit = self.owed + extra
        self.owed = 0
        self.left += credit
        return credit
