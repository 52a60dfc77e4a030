"""Web pages of devices, each under an origin of its own, through a session of whoever opens it.

A word, good once and soon over, is bound to one service of one session (nonces.py) and comes in an address;
what it gives is a cookie of that origin alone. The rules: a request without the cookie gets to no device; nor
does one that a page of another origin made, of a neighbour as little as of anybody (Origin, Sec-Fetch-Site),
but for the word itself. What the cookie opened ends with its session: every request under way is cut, and its
port closed.

Why a device's page never has, sets or replaces our cookies: see docs/web.rst "Cookies of devices' pages".

Source: issue "The web listener for people"; RFC 6265bis, W3C Fetch Metadata; ours.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

from revtunnel.fleet.device_records import DeviceRecord
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target
from revtunnel.process.web.askers import Place
from revtunnel.process.web.proxy_headers import Field, PageOrigin, cookies_named
from revtunnel.process.web.web_listener import WebListener
from revtunnel.process.web.web_rules import WebRules
from revtunnel.sockets.ends import End
from revtunnel.sockets.listening import Listeners
from revtunnel.systems.sessions.live_sessions import LiveSessions
from revtunnel.systems.sessions.nonces import NONCE, NonceRefused
from revtunnel.systems.sessions.page_connection import ENTER, PageConnection, PageRefused
from revtunnel.systems.sessions.page_names import spoken_by, told_host
from revtunnel.systems.sessions.page_places import PageList
from revtunnel.systems.sessions.page_seat import PageSeat
from revtunnel.systems.sessions.session_life import RemoteSession, Role, SessionRefused
from revtunnel.systems.sessions.session_routes import STATUS, Dial

__all__ = ["BROWSERS", "DevicePages"]

BROWSERS = 4  # that are let in at one page of a session: one that has lost its cookie does not come back


class DevicePages:
    """All of a server."""

    def __init__(
        self,
        reactor: Any,
        live: LiveSessions,
        listener: WebListener,
        listeners: Listeners,
        dial: Dial,
        record_of: Callable[[str], DeviceRecord],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.connections: set[PageConnection] = set()
        self.reactor = reactor
        self.dial = dial
        self.head = listener.wire.head  # bytes of a request's
        self.stall = listener.wire.stall
        self._live = live
        self._listener = listener
        self._record_of = record_of
        self._random_bytes = random_bytes
        self._places = PageList(listeners, listener.came, random_bytes)
        self._seats: dict[bytes, PageSeat] = {}  # by hash of the cookie
        listener.elsewhere = self._take
        live.pages = self
        live.on_tick.append(self._tick)

    def __len__(self) -> int:
        """Browsers that were let in."""
        return len(self._seats)

    def address(self, user: str, number: str, service: str, place: Place) -> str:
        """Where the owner of a session opens the page of a service of it, once.

        Raises:
            SessionRefused: ``off``, ``no-page``, and as ``LiveSessions.nonce``.
        """
        session = self._live.sessions.get(number)
        if session is None or session.owner != user or session.over or service not in session.wish.offers:
            raise SessionRefused("unknown", "there is no such session of yours")
        origin = self._origin(session, user, service, place)
        return f"{origin}{ENTER}?code={self._live.nonce(user, number, True, service)}"

    def invited(self, nonce: str, number: str, service: str, place: Place) -> str:
        """The same for whoever has a link to somebody's session, which this uses up.

        Raises:
            NonceRefused: the link is not good.
            SessionRefused: it is not for using that service, or as for ``address``.
        """
        bound = self._live.judge(nonce, number, place.peer, service)
        if bound.role is not Role.USE:
            raise SessionRefused("not-of-it", "this link is not for using the session")
        sessions = self._live.sessions
        session = sessions.running(number)
        origin = self._origin(session, bound.person, service, place)
        sessions.nonces.spend(nonce)
        word = sessions.nonce(session, Role.USE, bound.person, self._live.now(), True, service)
        return f"{origin}{ENTER}?code={word}"

    def of(self, session: RemoteSession, place: Place) -> list[str]:
        """The services of a session that are web pages, for one who came in at ``place``."""
        serial, offers = session.wish.serial, session.wish.offers
        return (
            [each for each in offers if self._spoken(serial, each)] if place.rules.pages is not None else []
        )

    def stop(self) -> None:
        """End all of it."""
        self._places.close(lambda session: True)
        for each in [*self.connections]:
            each.cut(Ended.OPERATOR, "stopping")

    # -- for connections

    def enter(self, connection: PageConnection, word: str, fields: list[Field]) -> str:
        """Let a browser in by its word: its cookie's secret.

        Raises:
            PageRefused: it is not good, or not here.
        """
        where, peer = connection.where, connection.peer
        why = self._listener.owing(peer, connection.is_forwarded)
        if why:
            raise PageRefused(429, why)
        number = self._live.sessions.nonces.session_of(word) if NONCE.fullmatch(word) else ""
        session = self._live.sessions.get(number)
        serial, offers = (session.wish.serial, session.wish.offers) if session is not None else ("", ())
        service = next((each for each in offers if where.is_for(number, serial, each)), "")
        try:
            came = self._live.enter(word, number, peer, service, page=service or "?")
        except NonceRefused as error:
            self._listener.failed(peer)
            raise PageRefused(error.status, "this link is good once, for half a minute") from None
        except SessionRefused as error:
            raise PageRefused(STATUS.get(error.word, 403), str(error)) from None
        before = self.seat(connection, fields)
        if before is not None and before.session is came.session:
            before.leave()
        here = [each for each in self._seats.values() if (each.session, each.where) == (came.session, where)]
        for each in here[: 1 - BROWSERS]:
            each.leave()
        secret = self._random_bytes(32).hex()
        left = partial(self._live.left, came.session, came.seat)
        seat = PageSeat(came, where, service, self._spoken(serial, service), peer, left)
        self._seats[_hash(secret)] = seat
        seat.forget = lambda: self._seats.pop(_hash(secret), None)
        self._live.attach(came.session, came.seat, seat)
        return secret

    def seat(self, connection: PageConnection, fields: list[Field]) -> PageSeat | None:
        """Whose cookie a request has; None: nobody's. Two of a name are none: one was put there."""
        said = cookies_named(fields, connection.where.cookie(connection.rules).encode())
        found = self._seats.get(_hash(said[0].decode("latin-1"))) if len(said) == 1 else None
        return found if found is not None and found.where == connection.where else None

    def is_at(self, connection: PageConnection, host: str) -> bool:
        """Whether a request is for the place where its connection came in."""
        rules, where = connection.rules, connection.where
        if where.port:
            return rules.pages is not None and host.lower() == f"{rules.pages.host}:{where.port}"
        return self._places.find(rules, host, 0) == where

    def page(self, seat: PageSeat, own: str, rules: WebRules) -> tuple[PageOrigin, Target, bool]:
        """Where a seat's page is for the browser, what the agent dials, and whether connections are kept.

        They are not where others wait in line for them.

        Raises:
            PageRefused: the device does not offer it now.
        """
        record, offers = self._record_of(seat.serial), self._live.rights.services(seat.serial)
        target = next((each.target for each in offers if each.name == seat.service), None)
        if target is None:
            raise PageRefused(503, f"{seat.serial} does not offer {seat.service} now")
        if self._spoken(seat.serial, seat.service) != seat.spoken:
            raise PageRefused(503, f"{seat.service} of {seat.serial} is another page now: open it anew")
        secure = seat.spoken != "http"
        host = told_host(target, record.web_host, secure).encode()
        cookie, prefix = seat.where.cookie(rules).encode(), seat.where.prefix.encode()
        return PageOrigin(own.encode(), host, secure, cookie, prefix), target, record.at_once is None

    # -- inside

    def _origin(self, session: RemoteSession, person: str, service: str, place: Place) -> str:
        if not self._spoken(session.wish.serial, service):
            raise SessionRefused("no-page", f"{service} is no web page: see web of its [device NAME]")
        self._places.close(self._is_over)
        return self._places.address(place, person, session.id, session.wish.serial, service)

    def _spoken(self, serial: str, service: str) -> str:
        return spoken_by(service, self._record_of(serial).web)

    def _take(self, rules: WebRules, end: End, host: str, head: bytes) -> bool:
        """Have a connection, whose first head came, if it is for a device's page."""
        where = self._places.find(rules, host, end.sock.getsockname()[1])
        if where is None:
            return False
        PageConnection(self, rules, end, where).start(head)
        return True

    def _tick(self, now: float) -> None:
        self._places.close(self._is_over)
        for each in [*self.connections]:
            each.look(now)

    def _is_over(self, number: str) -> bool:
        session = self._live.sessions.get(number)
        return session is None or session.over


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8")).digest()
