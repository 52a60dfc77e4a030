"""Who may connect to a relay, who counts as local, and how many may be there.

A peer is local when it is on this machine: its address is a loopback one, or the very address it reached us
at; or when it is in one of the trusted networks. Only local peers may hold a name or publish. At an outside
listener nobody is local by being on this machine: an agent that carries strangers dials from there.

Source: wire/cameo.md section 5; faults.md "Bind defaults".
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from revtunnel.fleet.strangers import NotLetIn, Stranger, Strangers
from revtunnel.ground.limits import CameoLimits
from revtunnel.ground.networks import Network, address_of, is_loopback, within

__all__ = ["CameoAdmission", "CameoRules"]


@dataclass(frozen=True, slots=True)
class CameoRules:
    """What holds for the peers of one listener."""

    name: str  # of the outside, or ""
    publishing: bool = False  # the third port: local peers only
    outside: bool = False
    advertise: Mapping[int, int] = field(default_factory=dict)  # port the server reports: port to report
    refused_types: frozenset[int] = frozenset()  # of requests to the CAMEO server

    @property
    def watches(self) -> bool:
        """Whether requests to the CAMEO server are looked at."""
        return bool(self.advertise or self.refused_types)


class CameoAdmission:
    """Admits connections and counts them. ``allowed`` empty: from everywhere."""

    def __init__(
        self,
        limits: CameoLimits,
        allowed: tuple[Network, ...] = (),
        trusted: tuple[Network, ...] = (),
        seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.limits = limits
        self.allowed = allowed
        self.trusted = trusted
        self._strangers = Strangers(seconds, self._places)

    @property
    def connections(self) -> int:
        """All that were let in and have not left."""
        return len(self._strangers)

    def is_local(self, peer: str, here: str, rules: CameoRules) -> bool:
        """Whether the peer at address ``peer``, which dialled our address ``here``, is local."""
        address = address_of(peer)
        on_this_machine = is_loopback(peer) or address == address_of(here)
        return (on_this_machine and not rules.outside) or within(address, self.trusted)

    def enter(
        self,
        peer: str,
        here: str,
        rules: CameoRules,
        give_way: Callable[[str], None],
        speaks: Callable[[], bool] = lambda: False,
    ) -> Stranger:
        """Count a connection until it leaves (fleet/strangers.py). NotLetIn: it may not stay, by its word."""
        local, loopback = self.is_local(peer, here, rules), is_loopback(peer)
        if rules.publishing and not local:
            raise NotLetIn("not-local", "")
        if self.allowed and not (local or loopback or within(address_of(peer), self.allowed)):
            raise NotLetIn("not-allowed", "")
        counts = not (local or loopback)
        try:
            return self._strangers.enter(peer, give_way, speaks, known=local, counts=counts)
        except NotLetIn as refused:
            word = "too-many-of-this-address" if refused.of_source else "too-many-connections"
            raise NotLetIn(word, "") from None

    def _places(self) -> "_Places":
        return _Places(self.limits.connections, self.limits.connections_per_source)


class _Places(NamedTuple):
    """As Strangers ask for them."""

    pending: int
    pending_per_source: int
