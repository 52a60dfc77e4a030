"""Both relays of a site with what they share, and the listeners of their doors; from settings.

Source: wire/cameo.md section 5.
"""

import os
from collections.abc import Iterable
from typing import Any

from revtunnel.ground.facts import Report
from revtunnel.sockets.lean_reactor import LeanReactor
from revtunnel.streams.window import CreditPool
from revtunnel.systems.cameo.cameo_admission import CameoAdmission, CameoRules
from revtunnel.systems.cameo.cameo_settings import CameoSettings
from revtunnel.systems.cameo.relays import CameoRelay, PublisherRelay, RelayPort, ResponderRelay

__all__ = ["CameoSystem"]

MAIN = CameoRules("")


class CameoSystem:
    """The relays. ``ports`` are the listening ones."""

    def __init__(self, reactor: Any, settings: CameoSettings, report: Report) -> None:
        limits = settings.limits
        self.admission = CameoAdmission(limits, settings.allow, settings.trusted)
        common = (reactor, limits, self.admission, CreditPool(limits.pool), report)
        self.responder = ResponderRelay(*common, random_bytes=os.urandom)
        self.publisher = PublisherRelay(*common)
        self.ports: list[Any] = []
        self._settings = settings
        self._lean = LeanReactor(reactor, report)
        self._outside: list[RelayPort] = []

    @property
    def relays(self) -> tuple[CameoRelay, CameoRelay]:
        """Both."""
        return self.responder, self.publisher

    def main_ports(self) -> tuple[RelayPort, RelayPort, RelayPort]:
        """The factories of the three ports, in the order of ``proxy_ports``."""
        third = self.publisher.publishers(CameoRules("", publishing=True))
        return self.responder.port(MAIN), self.publisher.subscribers(MAIN), third

    def listen(self, places: Iterable[tuple[str, int]], factory: RelayPort) -> None:
        """Open ports. CannotListenError: one cannot be had."""
        for host, port in places:
            opened = self._lean.listenTCP(port, factory, self._settings.limits.backlog, host)
            self.ports.append(opened)

    def adopt(self, descriptor: int, family: int, factory: RelayPort) -> None:
        """Use a socket that listens already; it is duplicated."""
        self.ports.append(self._lean.adoptStreamPort(descriptor, family, factory))

    def listen_outside(self, responder: bool, publisher: bool) -> None:
        """Open the outside doors of one or both relays."""
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
        for factory in self._outside:
            factory.rules = rules.get(factory.rules.name, factory.rules)

    def _open(self, places: Iterable[tuple[str, int]], factory: RelayPort) -> None:
        self._outside.append(factory)
        self.listen(places, factory)
