"""Sources from which a device proved lately who it is: by a certificate, a key or a one-time token.

The rules: a source is one IPv4 address or one IPv6 /64. It is known while a link from there is up, and for a
time after that. Behind such an address there are devices of ours, and perhaps a wrong agent or an attacker
beside them: it says nothing of a connection, only that it is worth a look (fleet/strangers.py).

Source: issue "Under attack", 1; ours.
"""

from collections import Counter, OrderedDict

from revtunnel.ground.networks import Network, address_of, block_of

__all__ = ["KnownSources"]


class KnownSources:
    """A bounded table; the source that was known longest ago is forgotten first."""

    def __init__(self) -> None:
        self._up: Counter[Network] = Counter()  # links that are up
        self._until: OrderedDict[Network, float] = OrderedDict()

    def __len__(self) -> int:
        """Sources that are remembered."""
        return len(self._until)

    def arrived(self, peer: str) -> None:
        """A device that proved itself has a link from there; ``left`` follows."""
        address = address_of(peer)
        if address is not None:
            self._up[block_of(address)] += 1

    def left(self, peer: str, now: float, seconds: float, most: int) -> None:
        """Its link is gone."""
        address = address_of(peer)
        if address is None:
            return
        source = block_of(address)
        self._up[source] -= 1
        if self._up[source] <= 0:
            del self._up[source]
        self.proved(peer, now, seconds, most)

    def proved(self, peer: str, now: float, seconds: float, most: int) -> None:
        """Remember a source for ``seconds``, and ``most`` of them in all."""
        address = address_of(peer)
        if address is None or not seconds:
            return
        source = block_of(address)
        self._until[source] = now + seconds
        self._until.move_to_end(source)
        while len(self._until) > most:
            self._until.popitem(last=False)

    def knows(self, peer: str, now: float) -> bool:
        """Whether a device proved itself from there lately."""
        address = address_of(peer)
        if address is None:
            return False
        source = block_of(address)
        return source in self._up or self._until.get(source, now) > now
