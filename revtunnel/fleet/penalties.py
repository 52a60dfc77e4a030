"""Who failed too often of late and is not listened to for a while.

Failures count, connections do not: behind one address may stand thousands of devices. Each failure adds its
weight to the penalty of its source, one IPv4 address or one IPv6 /64, and time takes it away, a second a
second. When a failure brings it above ``applied`` its source is refused, until nothing is left.

A serial that fails again and again is refused too, but only to the sources that failed: a lockout for all
would be a way to lock the device itself out.

Source: faults.md "Pre-auth limits", "Lockout per serial".
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import networks
from revtunnel.ground.limits import PenaltyLimits
from revtunnel.ground.networks import Network, address_of, block_of, within

__all__ = ["Penalties", "PenaltySettings", "weight_of"]

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


SHARE = 16  # sources of one site have one place of so many
SITE = 48  # bits of an IPv6 address that one customer may have for himself


def weight_of(limits: PenaltyLimits, reason: str) -> float:
    """Seconds that a refusal costs its source, by its word; 0.0 for what is nobody's fault.

    Tickets of data sockets are not counted: those of a link that was just lost fail in honest hands, many at
    a time, and their agent could not come back.
    """
    weights = {
        "denied": limits.authentication,
        "certificate": limits.authentication,
        "silent": limits.silence,
        "protocol": limits.garbage,
        "tls": limits.garbage,
        "lost": limits.hangup,
    }
    return weights.get(reason, 0.0)


# fmt: off
@dataclass(frozen=True, slots=True)
class PenaltySettings(PenaltyLimits):
    """All that is said of them."""

    exempt: tuple[Network, ...] = setting(networks(1024), "127.0.0.0/8, ::1", "who pays nothing; a load "
        "balancer without a PROXY header belongs here, or all behind it pay for one", live=True)
# fmt: on


@dataclass(slots=True)
class _Source:
    until: float = 0.0
    applied: bool = False


@dataclass(slots=True)
class _Serial:
    failures: deque[tuple[float, Network]] = field(default_factory=deque)
    locked: dict[Network, float] = field(default_factory=dict)  # until


class Penalties:
    """Two bounded tables; the source or serial that failed longest ago is forgotten first.

    Whoever has an IPv6 /48 has as many sources as the table has places: he gets a sixteenth of them, and
    beyond it one of his own is forgotten.
    """

    def __init__(self, limits: PenaltyLimits, exempt: Sequence[Network] = ()) -> None:
        self.limits = limits
        self.exempt = exempt
        # each failure: who, and the seconds that it costs
        self.told: Callable[[Network, float], object] = lambda source, weight: None
        self._sources: OrderedDict[Network, _Source] = OrderedDict()
        self._sites: dict[Network, OrderedDict[Network, None]] = {}  # by /48 of IPv6, who failed first first
        self._serials: OrderedDict[str, _Serial] = OrderedDict()

    def take(self, settings: PenaltySettings) -> None:
        """Other settings from now on; what is owed is owed."""
        self.limits, self.exempt = settings, settings.exempt

    @property
    def known(self) -> int:
        """Sources that failed of late, refused or not."""
        return len(self._sources)

    def failed(self, peer: str, reason: str, serial: str, now: float) -> None:
        """Somebody was refused.

        Args:
            peer: ``HOST:PORT`` or ``HOST``.
            reason: the word of the refusal.
            serial: as whom, if the failure is one of authentication; else nothing.
        """
        source = self._source(peer)
        weight = weight_of(self.limits, reason)
        if source is None or not weight:
            return
        self.owe(source, weight, now)
        self.told(source, weight)
        if serial:
            self._count(serial, source, now)

    def owe(self, source: Network, weight: float, now: float) -> None:
        """Add to what a source owes, unless nothing is counted against it; also for failures elsewhere."""
        if within(source.network_address, self.exempt):
            return
        entry = self._sources.pop(source, None) or _Source()
        if entry.until <= now:
            entry = _Source(now)
        entry.until = min(entry.until + weight, now + self.limits.most)
        entry.applied = entry.applied or entry.until - now > self.limits.applied
        self._remember(source, entry)

    def refused_for(self, peer: str, now: float) -> float:
        """Seconds for which this peer is refused from now on; 0.0: it is not."""
        source = self._source(peer)
        entry = self._sources.get(source) if source is not None else None
        return max(0.0, entry.until - now) if entry is not None and entry.applied else 0.0

    def refused_after(self, peer: str, reason: str, now: float) -> float:
        """The same as it will be after one more failure."""
        source = self._source(peer)
        if source is None:
            return 0.0
        entry = self._sources.get(source) or _Source()
        owed = min(max(0.0, entry.until - now) + weight_of(self.limits, reason), self.limits.most)
        return owed if owed > self.limits.applied or (entry.applied and entry.until > now) else 0.0

    def locked_for(self, serial: str, peer: str, now: float) -> float:
        """Seconds for which this serial is refused to this peer; 0.0: it is not."""
        source, entry = self._source(peer), self._serials.get(serial)
        if source is None or entry is None:
            return 0.0
        return max(0.0, entry.locked.get(source, now) - now)

    def is_exempt(self, peer: str) -> bool:
        """Whether nothing is counted against this peer, or it has no address."""
        return self._source(peer) is None

    def refused(self, now: float) -> int:
        """How many sources are refused now; walks over all that are known."""
        return sum(entry.applied and entry.until > now for entry in self._sources.values())

    def locked_of(self, serial: str, now: float) -> list[str]:
        """The sources that are locked out of a serial now, as networks."""
        entry = self._serials.get(serial)
        return sorted(str(where) for where, until in entry.locked.items() if until > now) if entry else []

    # -- inside

    def _remember(self, source: Network, entry: _Source) -> None:
        """Put a source last, and forget the first ones beyond its site's share and beyond all places."""
        self._sources[source] = entry
        if source.version == 6:
            own = self._sites.setdefault(source.supernet(new_prefix=SITE), OrderedDict())
            own[source] = None
            own.move_to_end(source)
            if len(own) > max(1, self.limits.sources // SHARE):
                self._forget(next(iter(own)))
        while len(self._sources) > self.limits.sources:
            self._forget(next(iter(self._sources)))

    def _forget(self, source: Network) -> None:
        del self._sources[source]
        if source.version == 6:
            site = source.supernet(new_prefix=SITE)
            del self._sites[site][source]
            if not self._sites[site]:
                del self._sites[site]

    def _source(self, peer: str) -> Network | None:
        """What is punished for a peer; None: nothing is."""
        address = address_of(peer)
        return None if address is None or within(address, self.exempt) else block_of(address)

    def _count(self, serial: str, source: Network, now: float) -> None:
        limits = self.limits
        entry = self._serials.pop(serial, None) or _Serial()
        while entry.failures and now - entry.failures[0][0] >= limits.serial_window:
            entry.failures.popleft()
        entry.locked = {where: until for where, until in entry.locked.items() if until > now}
        entry.failures.append((now, source))
        if len(entry.failures) >= limits.serial_failures:
            entry.locked |= {where: now + limits.serial_lockout for _, where in entry.failures}
            entry.failures.popleft()
            while len(entry.locked) > limits.serial_failures:
                del entry.locked[min(entry.locked, key=lambda where: entry.locked[where])]
        _push(self._serials, serial, entry, limits.sources)


def _push(table: "OrderedDict[_Key, _Value]", key: _Key, value: _Value, most: int) -> None:
    """Put an entry last, and forget the first ones beyond ``most``."""
    table[key] = value
    while len(table) > most:
        table.popitem(last=False)
