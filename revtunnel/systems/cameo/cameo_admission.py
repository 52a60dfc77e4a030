"""Who may connect to a relay, who counts as local, and how many may be there.

A peer is local when it is on this machine: its address is a loopback one, or the very address it reached us
at; or when it is in one of the trusted networks. Only local peers may hold a name or publish. At an outside
listener nobody is local by being on this machine: an agent that carries strangers dials from there.

Source: wire/cameo.md section 5; faults.md "Bind defaults".
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

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
        self, limits: CameoLimits, allowed: tuple[Network, ...] = (), trusted: tuple[Network, ...] = ()
    ) -> None:
        self.limits = limits
        self.allowed = allowed
        self.trusted = trusted
        self.connections = 0
        self._sources: Counter[str] = Counter()

    def is_local(self, peer: str, here: str, rules: CameoRules) -> bool:
        """Whether the peer at address ``peer``, which dialled our address ``here``, is local."""
        address = address_of(peer)
        on_this_machine = is_loopback(peer) or address == address_of(here)
        return (on_this_machine and not rules.outside) or within(address, self.trusted)

    def enter(self, peer: str, here: str, rules: CameoRules) -> str:
        """Count a connection; a word that says why not, empty when it may stay."""
        local, loopback = self.is_local(peer, here, rules), is_loopback(peer)
        if rules.publishing and not local:
            return "not-local"
        if self.allowed and not (local or loopback or within(address_of(peer), self.allowed)):
            return "not-allowed"
        most = self.limits.connections
        if self.connections >= (most if local else most - most // 4):
            return "too-many-connections"
        if not (local or loopback):
            if self._sources[peer] >= self.limits.connections_per_source:
                return "too-many-of-this-address"
            self._sources[peer] += 1
        self.connections += 1
        return ""

    def leave(self, peer: str, local: bool) -> None:
        """A connection that was counted is gone."""
        self.connections -= 1
        if not local and peer in self._sources:
            self._sources[peer] -= 1
            if not self._sources[peer]:
                del self._sources[peer]
