"""How often one source may come, or one name be tried: a bucket of tokens for each, in a bounded table.

Source: issue "Bad input" (10,000 upgrades a minute from one address must not hurt others); ours.
"""

from collections import OrderedDict
from collections.abc import Hashable

from revtunnel.ground.networks import address_of, block_of

__all__ = ["Bucket", "Rates"]


class Bucket:
    """``burst`` at once, and ``second`` more each second; once it is empty none until ``batch`` are there."""

    __slots__ = ("_batch", "_burst", "_least", "_left", "_second", "_since")

    def __init__(self, burst: float, second: float, now: float, batch: float = 1.0) -> None:
        self._burst = self._left = burst
        self._second = second
        self._since = now
        self._batch = batch
        self._least = 1.0

    def take(self, now: float) -> bool:
        """Count one; False: that is one too many."""
        self._left = min(self._burst, self._left + max(0.0, now - self._since) * self._second)
        self._since = now
        if self._left < self._least:
            self._least = self._batch
            return False
        self._least = 1.0
        self._left -= 1.0
        return True


class Rates:
    """A source is one IPv4 address or one IPv6 /64. The one that was quiet longest is forgotten first."""

    def __init__(
        self, burst: float = 200.0, second: float = 20.0, sources: int = 16_384, batch: float = 1.0
    ) -> None:
        """``burst``: at once; ``second``: that come back each second, not before there are ``batch``."""
        self.burst = burst
        self.second = second
        self._most = sources
        self._batch = batch
        self._buckets: OrderedDict[Hashable, Bucket] = OrderedDict()

    def __len__(self) -> int:
        """Sources that are remembered."""
        return len(self._buckets)

    def take(self, peer: str, now: float) -> bool:
        """Count one; False: that is one too many. Who has no address is not counted."""
        address = address_of(peer)
        if address is None:
            return True
        return self.spend(block_of(address), now)

    def forget(self, key: Hashable) -> None:
        """Begin anew with one."""
        self._buckets.pop(key, None)

    def spend(self, source: Hashable, now: float) -> bool:
        """The same for anything."""
        bucket = self._buckets.pop(source, None) or Bucket(self.burst, self.second, now, self._batch)
        self._buckets[source] = bucket
        while len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return bucket.take(now)
