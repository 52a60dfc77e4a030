"""How often one source may come, or one name be tried: a bucket of tokens for each, in a bounded table.

Source: issue "Bad input" (10,000 upgrades a minute from one address must not hurt others); ours.
"""

from collections import OrderedDict
from collections.abc import Hashable

from revtunnel.ground.networks import address_of, block_of

__all__ = ["Rates"]


class Rates:
    """A source is one IPv4 address or one IPv6 /64. The one that was quiet longest is forgotten first."""

    def __init__(self, burst: float = 200.0, second: float = 20.0, sources: int = 16_384) -> None:
        """``burst``: at once; ``second``: that come back each second."""
        self.burst = burst
        self.second = second
        self._most = sources
        self._left: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        """Sources that are remembered."""
        return len(self._left)

    def take(self, peer: str, now: float) -> bool:
        """Count one; False: that is one too many. Who has no address is not counted."""
        address = address_of(peer)
        if address is None:
            return True
        return self.spend(block_of(address), now)

    def forget(self, key: Hashable) -> None:
        """Begin anew with one."""
        self._left.pop(key, None)

    def spend(self, source: Hashable, now: float) -> bool:
        """The same for anything."""
        left, since = self._left.pop(source, (self.burst, now))
        left = min(self.burst, left + max(0.0, now - since) * self.second)
        self._left[source] = (left - 1.0 if left >= 1.0 else left), now
        while len(self._left) > self._most:
            self._left.popitem(last=False)
        return left >= 1.0
