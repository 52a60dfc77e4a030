"""Both relays of a site with what they share, and the listeners of their doors; from settings.

Source: wire/cameo.md section 5.
"""

import os
from collections.abc import Iterable
from typing import Any

from revtunnel.ground.facts import Report
from revtunnel.sockets.listening import Listener, Listeners
from revtunnel.streams.window import CreditPool
from revtunnel.systems.cameo.cameo_admission import Admission, Door
from revtunnel.systems.cameo.cameo_settings import CameoSettings
from revtunnel.systems.cameo.relays import PublisherRelay, Relay, RelayPort, ResponderRelay

__all__ = ["CameoSite"]

MAIN = Door("")


class CameoSite:
    """The relays. ``ports`` are the listening ones."""

    def __init__(self, reactor: Any, settings: CameoSettings, report: Report) -> None:
        limits = settings.limits
        self.admission = Admission(limits, settings.allow, settings.trusted)
        common = (reactor, limits, self.admission, CreditPool(limits.pool), report)
        self.responder = ResponderRelay(*common, random_bytes=os.urandom)
        self.publisher = PublisherRelay(*common)
        self.ports: list[Listener] = []
        self._settings = settings
        self._listeners = Listeners(reactor, report)
        self._outside: list[RelayPort] = []

    @property
    def relays(self) -> tuple[Relay, Relay]:
        """Both."""
        return self.responder, self.publisher

    def main_doors(self) -> tuple[RelayPort, RelayPort, RelayPort]:
        """The connections of the three ports, in the order of ``proxy_ports``."""
        third = self.publisher.publishers(Door("", publishing=True))
        return self.responder.port(MAIN), self.publisher.subscribers(MAIN), third

    def listen(self, places: Iterable[tuple[str, int]], peers: RelayPort) -> None:
        """Open ports. CannotListenError: one cannot be had."""
        for host, port in places:
            backlog = self._settings.limits.backlog
            self.ports.append(self._listeners.listen(host, port, backlog, peers.came))

    def adopt(self, descriptor: int, family: int, peers: RelayPort) -> None:
        """Use a socket that listens already; it is duplicated."""
        self.ports.append(self._listeners.adopt(descriptor, family, peers.came))

    def listen_outside(self, responder: bool, publisher: bool) -> None:
        """Open the outside doors of one or both relays."""
        for outside in self._settings.outside:
            if responder:
                self._open(outside.responder, self.responder.port(outside.door))
            if publisher:
                self._open(outside.subscriber, self.publisher.subscribers(outside.door))

    def take(self, settings: CameoSettings) -> None:
        """Apply new settings to what runs; ports that came or went need a restart."""
        self.admission.allowed, self.admission.trusted = settings.allow, settings.trusted
        for relay in self.relays:
            relay.set_limits(settings.limits)
        doors = {outside.name: outside.door for outside in settings.outside}
        for peers in self._outside:
            peers.door = doors.get(peers.door.name, peers.door)

    def _open(self, places: Iterable[tuple[str, int]], peers: RelayPort) -> None:
        self._outside.append(peers)
        self.listen(places, peers)
