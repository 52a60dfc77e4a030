"""The endpoints of two vendors at the web listeners: ThingWorx devices, and AWS's localproxy at either end.

Rule of this file: it joins what others made, and gives devices that come so what links of agents get.

Source: next/remote-sessions.md sections 4 and 5; ours.
"""

from collections.abc import Callable
from typing import Any

from revtunnel import __version__
from revtunnel.daemons.server_settings import ServerSettings
from revtunnel.daemons.switchboard import Switchboard
from revtunnel.ground.targets import Offer
from revtunnel.link.handshake import ListenerRules, ServerHello
from revtunnel.link.server_link import AgentListener
from revtunnel.process.web.web_routes import WebRoute
from revtunnel.systems.sessions.live_sessions import LiveSessions
from revtunnel.systems.sessions.localproxy_route import LocalproxyRoute
from revtunnel.systems.thingworx.edge_system import EdgeSystem
from revtunnel.trust.app_keys import AppKeys

__all__ = ["VendorEndpoints"]


class VendorEndpoints:
    """Both, as far as the settings want them."""

    def __init__(
        self,
        reactor: Any,
        settings: ServerSettings,
        board: Switchboard,
        live: LiveSessions,
        keys: AppKeys,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._settings = settings
        self._board = board
        dial = board.client_streams.clients_by_name
        self.routes: list[WebRoute] = [
            LocalproxyRoute(
                *(reactor, live, dial, board, keys, self._services, self._for_localproxy, board.report)
            )
        ]
        self.edge: EdgeSystem | None = None
        if settings.thingworx.enabled:
            self.edge = EdgeSystem(
                *(reactor, board, keys, settings.thingworx.limits, self._services, self._for_thingworx),
                *(random_bytes, board.report),
            )
            self.routes.append(self.edge)

    @property
    def sockets(self) -> int:
        """Connections that are counted nowhere else."""
        return self.edge.sockets if self.edge is not None else 0

    def take(self, settings: ServerSettings) -> None:
        """Other settings from now on, other services of devices that are here among them."""
        self._settings = settings
        if self.edge is None:
            return
        self.edge.limits = settings.thingworx.limits
        for link in self.edge.links:
            device = self._board.fleet.get(link.serial)
            if device is not None and device.link is link and device.offers != link.offers:
                device.offers = link.offers
                self._board.enforcement.open_ports(link)

    def stop(self) -> None:
        """Let nobody in."""
        if self.edge is not None:
            self.edge.stop()

    def _services(self, serial: str) -> tuple[Offer, ...]:
        return self._board.access.records.of(serial).services

    def _for_thingworx(self, name: str) -> AgentListener:
        return self._listener(name, self._settings.thingworx.pool)

    def _for_localproxy(self, name: str) -> AgentListener | None:
        mine = self._settings.localproxy
        return self._listener(name, mine.pool) if mine.devices else None

    def _listener(self, name: str, pool: str) -> AgentListener:
        """What links get; there is no handshake of ours in it."""
        link = self._settings.link
        hello = ServerHello(self._settings.name, f"revtunnel {__version__}", link.first_window)
        return AgentListener(ListenerRules(name), link, hello, pool=pool, data="link")
