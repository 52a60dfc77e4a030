"""Both relays of a site with what they share, and their listeners; from settings.

Source: wire/cameo.md section 5.
"""

import os
from collections.abc import Iterable
from typing import Any

from revtunnel.ground.facts import Report
from revtunnel.ground.retries import Retries
from revtunnel.sockets.listening import Listener, Listeners
from revtunnel.streams.window import CreditPool
from revtunnel.systems.cameo.cameo_admission import CameoAdmission, CameoRules
from revtunnel.systems.cameo.cameo_settings import CameoSettings
from revtunnel.systems.cameo.relays import CameoRelay, PublisherRelay, RelayPort, ResponderRelay

__all__ = ["CameoSystem"]

MAIN = CameoRules("")


class CameoSystem:
    """The relays. ``ports`` are the listening ones."""

    def __init__(
        self, reactor: Any, settings: CameoSettings, report: Report, retries: Retries | None = None
    ) -> None:
        limits = settings.limits
        self.admission = CameoAdmission(limits, settings.allow, settings.trusted, reactor.seconds)
        common = (reactor, limits, self.admission, CreditPool(limits.pool), report)
        self.responder = ResponderRelay(*common, random_bytes=os.urandom)
        self.publisher = PublisherRelay(*common)
        self.ports: list[Listener] = []
        self._settings = settings
        self._listeners = Listeners(reactor, report, retries)
        self._outside: list[RelayPort] = []

    @property
    def relays(self) -> tuple[CameoRelay, CameoRelay]:
        """Both."""
        return self.responder, self.publisher

    def main_ports(self) -> tuple[RelayPort, RelayPort, RelayPort]:
        """The connections of the three ports, in the order of ``proxy_ports``."""
        third = self.publisher.publishers(CameoRules("", publishing=True))
        return self.responder.port(MAIN), self.publisher.subscribers(MAIN), third

    def listen(
        self, places: Iterable[tuple[str, int]], peers: RelayPort, name: str = "[cameo]", must: bool = True
    ) -> None:
        """Open ports; ``must`` as in ``Listeners.keep``. CannotListenError: one cannot be had."""
        for host, port in places:
            backlog = self._settings.limits.backlog
            self.ports.append(self._listeners.keep(name, host, port, backlog, peers.came, must))

    def adopt(self, descriptor: int, family: int, peers: RelayPort) -> None:
        """Use a socket that listens already; it is duplicated."""
        self.ports.append(self._listeners.adopt(descriptor, family, peers.came))

    def listen_outside(self, responder: bool, publisher: bool) -> None:
        """Open the outside listeners of one or both relays."""
        for outside in self._settings.outside:
            if responder:
                self._open(outside.responder, self.responder.port(outside.rules))
            if publisher:
                self._open(outside.subscriber, self.publisher.subscribers(outside.rules))

    def take(self, settings: CameoSettings) -> None:
        """Apply new settings to what runs; ports that came or went need a restart."""
        self.admission.allowed, self.admission.trusted = settings.allow, settings.trusted
        for relay in self.relays:
            relay.set_limits(settings.limits)
        rules = {outside.name: outside.rules for outside in settings.outside}
        for peers in self._outside:
            peers.rules = rules.get(peers.rules.name, peers.rules)

    def _open(self, places: Iterable[tuple[str, int]], peers: RelayPort) -> None:
        self._outside.append(peers)
        self.listen(places, peers, f"[cameo-outside {peers.rules.name}]", must=False)
