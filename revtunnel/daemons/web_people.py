"""The HTTP API, the page and the logins of people at a server's web listeners, joined with what they ask.

Rule of this file: it joins. Imported only where a listener has one of them; argon2 only where one has a page.

Source: issue 13; ours.
"""

import time
from collections.abc import Callable
from typing import Any

from revtunnel.daemons.operator import Operator
from revtunnel.daemons.own_operations import OWN
from revtunnel.daemons.server_settings import ServerSettings
from revtunnel.daemons.switchboard import Switchboard
from revtunnel.daemons.traffic import Traffic
from revtunnel.process.logs import timestamp
from revtunnel.process.web.api import Api
from revtunnel.process.web.askers import Asker
from revtunnel.process.web.event_streams import EventStreams
from revtunnel.process.web.page_files import PageFiles
from revtunnel.process.web.series import Sample, Series
from revtunnel.process.web.web_listener import WebListener
from revtunnel.process.web.web_rules import METRICS, PAGE
from revtunnel.state.ledger import SqliteLedger
from revtunnel.state.session_audit import SessionAudit
from revtunnel.systems.sessions.live_sessions import LiveSessions
from revtunnel.systems.sessions.person_operator import PersonOperator
from revtunnel.trust.account_operator import AccountOperator, Accounts
from revtunnel.trust.login_secrets import LoginSecrets
from revtunnel.trust.oidc_settings import OidcSettings
from revtunnel.trust.people import People
from revtunnel.trust.web_askers import WebAskers

__all__ = ["WebPeople"]


class _Mine:
    """What OWN is asked of, for one person who asks now."""

    def __init__(self, account: AccountOperator, sessions: PersonOperator, charts: Series) -> None:
        self.account = account
        self.sessions = sessions
        self.charts = charts


class WebPeople:
    """All of it, for the listeners of one server."""

    def __init__(
        self,
        reactor: Any,
        settings: ServerSettings,
        board: Switchboard,
        operator: Operator,
        live: LiveSessions,
        listener: WebListener,
        people: People,
        ledger: SqliteLedger,
        audit: SessionAudit,
        random_bytes: Callable[[int], bytes],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.traffic = Traffic(reactor, board)
        self._board = board
        self._live = live
        self._at = operator.at
        self._people = people
        self._ledger = ledger
        self._kept = LoginSecrets(people, ledger)
        operator.people.forget_login = self._kept.forget
        self._unwatch = [operator.watch(self.traffic.told), people.watch(lambda _: self.events.look())]
        askers = self.askers = WebAskers(people, audit, board.report, wall, listener.owing, listener.failed)
        self.events = EventStreams(reactor, operator.watch, lambda: timestamp(wall()), askers.stands)
        self.series = Series(reactor, operator.at, self._sample, self._of_device)
        self.logins: Any = None
        self._oidc: Any = None
        self._delay: Any = None
        self._pages = listener.pages
        self._more = operator, board.report, audit.changed, random_bytes, wall
        self._reactor = reactor
        self._accounts = Accounts(
            *(people, operator.people, self._kept, None, wall, random_bytes),
            *(audit.changed, settings.name),
        )
        self._api = Api(reactor, operator, OWN, self._mine, askers.who, self.events)
        self._pages.put("api", self._api)
        self.traffic.start()
        self.series.start()

    def take(self, parts: frozenset[str], oidc: OidcSettings) -> None:
        """Have what listeners have from now on; what is there already stays."""
        if PAGE in parts and self.logins is None:
            self._add_page()
        if self.logins is not None and self._oidc is None and oidc.issuer:
            self._add_oidc()
        if self._oidc is not None:
            self._oidc.take(oidc)
        if METRICS in parts and self._delay is None:
            self._add_metrics()

    def offer_first(self, place: str) -> None:
        """Nobody is known, perhaps: ``place`` is where somebody becomes the administrator."""
        if self.logins is not None and not len(self._people) and not self.logins.first:
            self.logins.offer_first(place)

    def _add_page(self) -> None:
        from revtunnel.systems.sessions.invitation_page import InvitationPage
        from revtunnel.trust.login_routes import LoginRoutes
        from revtunnel.trust.password_hashing import PasswordHashing

        _, report, tell, random_bytes, wall = self._more
        hashing = self._accounts.hashing = PasswordHashing(self._reactor)
        self.logins = LoginRoutes(
            *(self._reactor, wall, self._people, self._kept, hashing, self.askers, report, tell),
            random_bytes,
        )
        files = PageFiles()
        self._pages.put("", files.root)
        self._pages.put("page", files)
        for each in (*self.logins.pages, *InvitationPage(self._live, self.askers).pages):
            self._pages.put(each.about.route.rpartition("/")[2], each)
            self._api.beside += each.rows

    def _add_oidc(self) -> None:
        from revtunnel.trust.oidc_people import OidcPeople
        from revtunnel.trust.oidc_routes import OidcRoutes

        operator, report, tell, _, wall = self._more
        tied = OidcPeople(self._people, operator.people, self._ledger, wall, tell)
        self._oidc = OidcRoutes(self._reactor, wall, self.logins, tied, self.askers, report)
        self._pages.put("oidc", self._oidc)
        operator.people.forget_login = lambda user: self._kept.forget(user) | tied.forget(user)

    def _add_metrics(self) -> None:
        from revtunnel.daemons.web_metrics import Figures, MetricsPage

        figures = Figures(self._more[0], self._board, self.traffic, self.events)
        page = MetricsPage(self._reactor, figures, self.askers.who)
        self._delay = page.delay
        self._delay.start()
        self._pages.put("metrics", page)

    def stop(self) -> None:
        """Count no more, end what is read, and let nobody in by what a provider still says."""
        for each in self._unwatch:
            each()
        self._unwatch = []
        if self._oidc is not None:
            self._oidc.take(OidcSettings())
        self.events.stop()
        self.series.stop()
        self.traffic.stop()
        if self._delay is not None:
            self._delay.stop()

    def _mine(self, asker: Asker) -> _Mine:
        account = AccountOperator(self._accounts, asker)
        return _Mine(account, PersonOperator(self._live, self._at, asker), self.series)

    def _sample(self) -> Sample:
        board = self._board
        return {
            "devices": len(board.fleet),
            "links": len(board.links),
            "clients": board.clients,
            "channels": len(board.streams),
            "sessions": len(self._live),
            "bytes_to_device": self.traffic.to_device,
            "bytes_to_client": self.traffic.to_client,
        }

    def _of_device(self, serial: str) -> Sample | None:
        device = self._board.fleet.get(serial)
        if device is None:
            return None
        running = self._board.streams.rows(serial)
        trip = device.link.round_trip if device.link is not None else None
        return {
            "online": int(device.online),
            "channels": len(running),
            "round_trip": trip,
            "bytes_to_device": device.bytes_to_device + sum(each.bytes_to_device for each in running),
            "bytes_to_client": device.bytes_to_client + sum(each.bytes_to_client for each in running),
        }
