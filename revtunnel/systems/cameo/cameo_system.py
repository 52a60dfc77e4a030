"""Both relays of a site with what they share, and their listeners; from settings.

Source: wire/cameo.md section 5.
"""

import os
from typing import Any

from revtunnel.ground.facts import Report
from revtunnel.ground.retries import Retries
from revtunnel.sockets.listening import Listener, Listeners
from revtunnel.sockets.open_listeners import OpenListeners, WantedListener
from revtunnel.streams.window import CreditPool
from revtunnel.systems.cameo.cameo_admission import CameoAdmission, CameoRules
from revtunnel.systems.cameo.cameo_settings import CameoSettings, OutsideSettings
from revtunnel.systems.cameo.relays import CameoRelay, PublisherRelay, RelayPort, ResponderRelay

__all__ = ["CameoSystem"]

MAIN = CameoRules("")


class CameoSystem:
    """The relays, and ``listening``, their ports; the programs of CAMEO's names adopt the main ones."""

    def __init__(
        self, reactor: Any, settings: CameoSettings, report: Report, retries: Retries | None = None
    ) -> None:
        limits = settings.limits
        self.admission = CameoAdmission(limits, settings.allow, settings.trusted, reactor.seconds)
        common = (reactor, limits, self.admission, CreditPool(limits.pool), report)
        self.responder = ResponderRelay(*common, random_bytes=os.urandom)
        self.publisher = PublisherRelay(*common)
        self._settings = settings
        self._listeners = Listeners(reactor, report, retries)
        self.listening = OpenListeners(self._listeners)
        self._adopted: list[Listener] = []
        self._main: tuple[RelayPort, ...] = ()  # whose ports are of settings
        self._outside: dict[tuple[str, str], RelayPort] = {}  # by name and key

    @property
    def relays(self) -> tuple[CameoRelay, CameoRelay]:
        """Both."""
        return self.responder, self.publisher

    @property
    def ports(self) -> list[Listener]:
        """All that are open."""
        return self._adopted + self.listening.all

    def main_ports(self) -> tuple[RelayPort, RelayPort, RelayPort]:
        """The connections of the three ports, in the order of ``proxy_ports``."""
        third = self.publisher.publishers(CameoRules("", publishing=True))
        return self.responder.port(MAIN), self.publisher.subscribers(MAIN), third

    def start(self) -> None:
        """Open all ports. CannotListenError: one cannot be had."""
        self._main = self.main_ports()
        self.listening.start(self._wanted())

    def adopt(self, descriptor: int, family: int, peers: RelayPort) -> None:
        """Use a socket that listens already; it is duplicated."""
        self._adopted.append(self._listeners.adopt(descriptor, family, peers.came))

    def start_outside(self, key: str) -> None:
        """Open the outside listeners of one relay: ``responder`` or ``subscriber``."""
        self.listening.start([each for each in self._wanted() if each.name.endswith(f"] {key}")])

    def take(self, settings: CameoSettings) -> list[str]:
        """Apply new settings to what runs; a line for each port that cannot be opened. Peers stay."""
        self._settings = settings
        self.admission.allowed, self.admission.trusted = settings.allow, settings.trusted
        for relay in self.relays:
            relay.set_limits(settings.limits)
        wanted = self._wanted()
        self.listening.close_others(wanted)
        return self.listening.open_missing(wanted)

    def stop_listening(self) -> None:
        """Let nobody in any more."""
        for port in self._adopted:
            port.stop()
        self.listening.stop()

    def _wanted(self) -> list[WantedListener]:
        settings = self._settings
        backlog = settings.limits.backlog
        found = [
            WantedListener("[cameo]", host, port, backlog, peers.came, must=True)
            for port, peers in zip(settings.proxy_ports, self._main, strict=False)
            for host in settings.bind
        ]
        for each in settings.outside:
            for key, places in (("responder", each.responder), ("subscriber", each.subscriber)):
                name, came = f"[cameo-outside {each.name}] {key}", self._outside_port(each, key).came
                found += [WantedListener(name, *place, backlog, came) for place in places]
        return found

    def _outside_port(self, outside: OutsideSettings, key: str) -> RelayPort:
        """The connections of an outside listener, by its rules of now."""
        make = self.responder.port if key == "responder" else self.publisher.subscribers
        found = self._outside.setdefault((outside.name, key), make(outside.rules))
        found.rules = outside.rules
        return found
