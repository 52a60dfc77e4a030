"""The web listeners of a server, and the remote sessions that come by them.

Rule of this file: it joins what others made: people, grants and the audit file (trust, state), clients of
devices (client_streams.py), the listener (process/web) and the endpoints (systems/sessions). Imported only
where a [web NAME] is set, for twisted.web costs 70 ms.

Source: next/remote-sessions.md section 1; ours.
"""

import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from revtunnel import __version__
from revtunnel.daemons.agent_route import AgentRoute
from revtunnel.daemons.operator import Operator
from revtunnel.daemons.server_settings import ServerSettings
from revtunnel.daemons.switchboard import Switchboard
from revtunnel.daemons.vendor_endpoints import VendorEndpoints
from revtunnel.fleet.device_records import DeviceRecord
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.targets import place
from revtunnel.link.handshake import ServerHello
from revtunnel.process.web.web_listener import WebListener
from revtunnel.process.web.web_rules import (
    API,
    DEVICE_METRICS,
    METRICS,
    OPEN_METRICS,
    PAGE,
    PagePlaces,
    WebRules,
)
from revtunnel.sockets.listening import Listeners
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits
from revtunnel.state.ledger import SqliteLedger
from revtunnel.state.session_audit import SessionAudit
from revtunnel.systems.sessions.control_asks import MAX_TEXT, ControlAsks
from revtunnel.systems.sessions.control_route import ControlRoute
from revtunnel.systems.sessions.live_sessions import LiveSessions
from revtunnel.systems.sessions.remote_sessions import RemoteSessions
from revtunnel.systems.sessions.session_operator import SessionRows
from revtunnel.systems.sessions.session_rights import Rights
from revtunnel.systems.sessions.session_routes import ClientRoute, RawRoute
from revtunnel.systems.sessions.session_settings import WebSettings
from revtunnel.systems.sessions.session_watching import Screens
from revtunnel.systems.sessions.ssh_route import SshRoute
from revtunnel.trust.grants import Grants
from revtunnel.trust.identities import Identities
from revtunnel.trust.mutes import Mutes
from revtunnel.trust.people import People

__all__ = ["WebSystem", "check_packages", "parts_of", "web_rules"]

EXTRA = "pip install 'revtunnel[web]'"


def web_rules(listeners: tuple[WebSettings, ...], identities: Identities) -> dict[str, WebRules]:
    """What holds at each listener."""
    return {
        each.name: WebRules(
            *(each.name, frozenset(each.hosts), frozenset(each.origins)),
            *(identities.of(each.name), each.forwarded_from),
            parts=parts_of(each)[0],
            plain_cookies=each.plain_cookies,
            pages=_places_of(each),
        )
        for each in listeners
    }


def _places_of(each: WebSettings) -> PagePlaces | None:
    if not each.device_names and each.device_ports is None:
        return None
    addresses = tuple(host for host, _ in each.address)
    return PagePlaces(each.device_names, each.device_host, each.device_ports or (0, 0), addresses)


def check_packages(listeners: tuple[WebSettings, ...]) -> None:
    """SettingsError: what is wanted at a listener needs a package that is not here."""
    missing = [text for each in listeners for text in parts_of(each)[1]]
    if missing:
        raise SettingsError(missing)


def parts_of(each: WebSettings) -> tuple[frozenset[str], list[str]]:
    """What is at a listener beside WebSockets, and which packages are missing for that."""
    found, missing = set(), []
    wanted = (API, each.api, ""), (PAGE, each.page, "argon2"), (METRICS, each.metrics, "prometheus_client")
    for part, said, package in wanted:
        is_there = not package or find_spec(package) is not None
        if said not in ("auto", "no") and not is_there:
            missing.append(f"[web {each.name}] {part}: package {package} is not here: {EXTRA}")
        if said not in ("auto", "no") or (said == "auto" and each.is_safe and is_there):
            found.add(part)
    if _places_of(each) is not None and find_spec("h11") is None:
        missing.append(f"[web {each.name}] device_names: package h11 is not here: {EXTRA}")
    if METRICS in found:
        found |= {OPEN_METRICS} if each.metrics == "open" else set()
        found |= {DEVICE_METRICS} if each.metrics_devices else set()
    if PAGE in found:
        found.add(API)
    return frozenset(found), missing


class WebSystem:
    """All of it. SettingsError: a certificate cannot be used."""

    def __init__(
        self,
        reactor: Any,
        settings: ServerSettings,
        board: Switchboard,
        people: People,
        grants: Grants,
        mutes: Mutes,
        audit: SessionAudit,
        operator: Operator,
        ledger: SqliteLedger,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        at = operator.at
        self._reactor = reactor
        self._settings = settings
        self._board = board
        rights = Rights(grants, board.fleet, board.access, self._labels_of, lambda: board.say.nodes)
        sessions = RemoteSessions(settings.sessions, random_bytes)
        self.live = LiveSessions(
            *(reactor, time.time, sessions, people, rights, audit, board.report, board.say),
            muted=lambda serial: mutes.of(serial) is not None,
        )
        mutes.watchers.append(self.live.mute)
        self.listener = WebListener(
            *(reactor, lambda: board.limits, board.access, board.report, self._state, board.admission.full)
        )
        self.listener.expected = board.data.expected
        check_packages(settings.web)
        self.identities = self._fresh = Identities(section="web").read(settings.web)
        self.listener.rules = web_rules(settings.web, self.identities)
        wire, dial = self.listener.wire, board.client_streams.clients_by_name
        asks = ControlAsks(self.live, at)
        small = WebSocketLimits(message=MAX_TEXT, text=MAX_TEXT)
        self.control = ControlRoute(reactor, self.live, asks, settings.name, small)
        self.rows = SessionRows(self.live, at)
        screens = Screens()
        self.listener.routes += [
            self.control,
            ClientRoute(reactor, self.live, dial, wire, self._hello, board.admission.pool),
            RawRoute(reactor, self.live, dial, wire, screens),
            SshRoute(reactor, self.live, dial, wire, screens, operator.host_keys),
            AgentRoute(reactor, board, wire),
        ]
        self.vendors = VendorEndpoints(reactor, settings, board, self.live, operator.app_keys, random_bytes)
        self.listener.routes += self.vendors.routes
        self._made_of = operator, self.live, self.listener, people, ledger, audit, random_bytes
        self.people: Any = None
        self.pages: Any = None  # of devices
        self._random_bytes = random_bytes
        self._take_parts()
        board.beside = lambda: (
            self.listener.pending
            + self.listener.pages.site.callers
            + len(self.control)
            + self.live.connected
            + self.vendors.sockets
            + (len(self.pages.connections) if self.pages is not None else 0)
        )

    def _take_parts(self) -> None:
        """Have what a listener has beside WebSockets: API, page, logins, metrics, pages of devices."""
        if self.pages is None and any(each.pages for each in self.listener.rules.values()):
            from revtunnel.systems.sessions.device_pages import DevicePages

            board = self._board
            self.pages = DevicePages(
                *(self._reactor, self.live, self.listener, Listeners(self._reactor, board.report)),
                *(board.client_streams.clients_by_name, self._record_of, self._random_bytes),
            )
        parts = frozenset(part for each in self.listener.rules.values() for part in each.parts)
        if parts and self.people is None:
            from revtunnel.daemons.web_people import WebPeople

            self.people = WebPeople(self._reactor, self._settings, self._board, *self._made_of)
        if self.people is not None:
            self.people.take(parts, self._settings.oidc)

    def start(self) -> None:
        """Look at sessions once a second from now on."""
        self.live.tick()

    def offer_first(self, port_of: Callable[[str], int]) -> None:
        """While nobody is known: tell where somebody becomes the administrator."""
        for each in self._settings.web:
            rules = self.listener.rules[each.name]
            if self.people is not None and PAGE in rules.parts:
                host = (*each.hosts, each.address[0][0])[0]
                scheme = "http" if rules.identity is None else "https"
                self.people.offer_first(f"{scheme}://{place(host, port_of(each.name))}")
                return

    def read(self, listeners: tuple[WebSettings, ...]) -> None:
        """Read the certificates of these, for ``take``; SettingsError: one cannot be used."""
        check_packages(listeners)
        self._fresh = self.identities.read(listeners)

    def take(self, settings: ServerSettings) -> list[str]:
        """Other settings from now on, with what was ``read``: whose certificates are others now, by name."""
        self._settings = settings
        self.live.sessions.limits = settings.sessions
        changed, self.identities = self._fresh.changed(self.identities), self._fresh
        self.listener.rules = web_rules(settings.web, self._fresh)
        self._take_parts()
        return changed

    def drain(self) -> None:
        """End all sessions, and let nobody in."""
        self.live.drain()
        self.vendors.stop()
        self.control.stop()

    def stop(self) -> None:
        """As ``drain``, and turn away who is on his way in."""
        self.live.stop()
        self.control.stop()
        if self.people is not None:
            self.people.stop()
        if self.pages is not None:
            self.pages.stop()
        self.vendors.stop()
        self.listener.stop()

    def _labels_of(self, serial: str) -> tuple[str, ...]:
        return self._record_of(serial).labels

    def _record_of(self, serial: str) -> DeviceRecord:
        return self._board.access.records.of(serial)

    def _state(self) -> str:
        return "draining" if self._board.draining else "ready"

    def _hello(self) -> tuple[LinkLimits, ServerHello]:
        link = self._settings.link
        software = f"revtunnel {__version__}"
        name, window = self._settings.name, link.first_window
        return link, ServerHello(name, software, window, keepalive=link.keepalive)
