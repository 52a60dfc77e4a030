"""One connection of a browser to a device's page: whose it is, what we answer, and what the device does.

The rules: every request is judged by itself: its Host is that of the place, its cookie somebody's who was let
in there, and no page of elsewhere has made it. What is not judged well is answered by us, and is the last of
its connection; so nothing of a refused request is ever read as another. A connection has one to the device of
its own, kept for its next request where both sides like that.

Source: issue "The web listener for people"; RFC 9110, RFC 9112 section 3.2; W3C Fetch Metadata; ours.
"""

import html
from collections.abc import Callable
from typing import Any
from typing import Protocol as Typing

import h11
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target
from revtunnel.process.web.awaited_connection import AwaitedConnection
from revtunnel.process.web.http_exchange import DeviceFault, HttpSide, exchange, fields_of, join
from revtunnel.process.web.proxy_headers import Field, PageOrigin, fault_of
from revtunnel.process.web.web_rules import WebRules
from revtunnel.sockets.ends import End
from revtunnel.sockets.twisted_transport import TwistedTransport
from revtunnel.streams.clients import Clients, ClientSocket
from revtunnel.systems.sessions.page_device import PageDevice, open_device
from revtunnel.systems.sessions.page_names import named_by
from revtunnel.systems.sessions.page_places import PagePlace
from revtunnel.systems.sessions.page_seat import PageSeat

__all__ = ["ENTER", "PageConnection", "PageRefused", "Pages"]

log = Logger(namespace="revtunnel.web")
ENTER = "/.well-known/revtunnel/enter"
KEEP = 60.0  # seconds from one answer to the next whole request
_TOP = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>revtunnel</title>"
    '<meta name=viewport content="width=device-width"><meta name=color-scheme content="light dark">'
)
_OWN = {"none", "same-origin"}  # of Sec-Fetch-Site
_WORDS = {400: "Not understood", 401: "Not let in", 403: "Not from there", 404: "Not here", 405: "Not so",
          410: "Over", 421: "Elsewhere", 429: "Later", 431: "Too large", 501: "Not so",
          502: "The device failed", 503: "Not now", 504: "The device does not answer"}  # fmt: skip


class PageRefused(Exception):
    """What we answer in place of the device: a status and a sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Pages(Typing):
    """What a connection asks of those who keep all of them."""

    connections: "set[PageConnection]"
    reactor: Any
    dial: Callable[[str, str, Callable[[ClientSocket], None], str], Clients]
    head: int
    stall: float

    def enter(self, connection: "PageConnection", word: str, fields: list[Field]) -> str:
        """Let a browser in by its word: its cookie's secret. PageRefused: it is not let in."""

    def seat(self, connection: "PageConnection", fields: list[Field]) -> PageSeat | None:
        """Whose cookie a request has."""

    def is_at(self, connection: "PageConnection", host: str) -> bool:
        """Whether a request is for the place where its connection came in."""

    def page(self, seat: PageSeat, own: str, rules: WebRules) -> tuple[PageOrigin, Target, bool]:
        """How a seat's device is asked. PageRefused: not now."""


class PageConnection:
    """One."""

    def __init__(self, pages: Pages, rules: WebRules, end: End, where: PagePlace) -> None:
        self.rules = rules
        self.where = where
        self.peer = end.peer
        self.is_forwarded = False
        self._pages = pages
        self._end = end
        self._origin = end.origin
        self._seat: PageSeat | None = None
        self._front = HttpSide(AwaitedConnection(pages.reactor), h11.SERVER, pages.head)
        self._back: PageDevice | None = None
        self._waits_since: float | None = None  # for a request
        self._parts = False  # it ends in order
        self._sums = 0, 0  # bytes of connections to the device that are gone
        self._running: Deferred[None]

    def start(self, head: bytes) -> None:
        """Go on behind what was read."""
        self._pages.connections.add(self)
        TwistedTransport(self._pages.reactor, self._end, self._front.connection).start()
        self._front.h11.receive_data(head)
        self._running = Deferred.fromCoroutine(self._serve())
        self._running.addBoth(self._over).addErrback(lambda bug: log.failure("a page failed", bug))

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes to the device and to the client."""
        back = self._back.connection if self._back is not None else None
        down, up = (back.sent, back.received) if back is not None else (0, 0)
        return self._sums[0] + down, self._sums[1] + up

    def cut(self, ended: Ended, word: str) -> None:
        """End it with resets on both sides."""
        self._drop(ended, word)
        self._front.connection.abort()
        self._running.cancel()

    def look(self, now: float) -> None:
        """A second has passed: end what takes too long."""
        full = self._front.connection.full_since
        if full is not None and now - full >= self._pages.stall:
            self.cut(Ended.STALLED, "the browser takes nothing")
        elif self._waits_since is not None and now - self._waits_since >= KEEP:
            self._parts = True
            self._running.cancel()

    # -- inside

    async def _serve(self) -> None:
        front, seconds = self._front, self._pages.reactor.seconds
        try:
            while True:
                self._waits_since = seconds()
                event = await front.event()
                self._waits_since = None
                if not isinstance(event, h11.Request) or not await self._answer(event):
                    return
        except h11.RemoteProtocolError as error:
            if front.h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
                raise
            await self._refuse(PageRefused(error.error_status_hint, str(error)))

    def _over(self, result: Any) -> Any:
        """It has ended: in order, or cut."""
        self._pages.connections.discard(self)
        expected = isinstance(result, Failure) and result.check(OSError, h11.ProtocolError, CancelledError)
        if not isinstance(result, Failure) or self._parts:
            self._drop()
            self._front.connection.part()
        else:
            self._drop(Ended.RESET_BY_PEER, "the browser's connection was cut")
            self._front.connection.abort()
        if self._seat is not None:
            self._seat.part(self)
        return None if expected else result

    async def _answer(self, request: h11.Request) -> bool:
        """Answer a request; whether another may follow."""
        fields = fields_of(request)
        try:
            own = self._judge(request, fields)
            path, _, query = request.target.decode("ascii").partition("?")
            if path == ENTER:
                await self._enter(request, query, fields)
                return False
            seat = self._pages.seat(self, fields)
            if seat is None or self._seat not in (None, seat):
                raise PageRefused(401, "this browser was not let in here, or its session is over")
            self._judge_origin(fields, own)
            if not seat.join(self):
                raise PageRefused(503, "this browser has too many connections")
            self._seat = seat
            return await self._pass(request, seat, own)
        except PageRefused as refused:
            await self._refuse(refused)
            return False

    def _judge(self, request: h11.Request, fields: list[Field]) -> str:
        """Our own origin, of a request that may be one for here.

        Raises:
            PageRefused: it is not.
        """
        peer = self.rules.client_of(self._end.peer, _values(fields, b"x-forwarded-for"))
        self.is_forwarded, self.peer = peer != self._end.peer, peer
        hosts = _values(fields, b"host")
        if fault := fault_of(fields):
            raise PageRefused(400, fault)
        if len(hosts) != 1 or (not request.target.startswith(b"/") and request.target != b"*"):
            raise PageRefused(400, "one Host and a path wanted")
        if not self._pages.is_at(self, hosts[0]):
            raise PageRefused(421, "nothing is here by that name")
        if request.method in (b"CONNECT", b"TRACE"):
            raise PageRefused(405, "not with this method")
        secure = self.rules.identity is not None or self.is_forwarded
        return f"{'https' if secure else 'http'}://{hosts[0].lower()}"

    def _judge_origin(self, fields: list[Field], own: str) -> None:
        """PageRefused: a page of elsewhere has made this request."""
        sites, origins = _values(fields, b"sec-fetch-site"), _values(fields, b"origin")
        good = {own, "null"} if sites else {own}  # a page's own policy may hide it; its site is told then
        if self.rules.identity is None:  # a balancer may end the TLS
            good |= {f"https:{own.partition(':')[2]}"}
        if not (set(sites) <= _OWN and {each.lower() for each in origins} <= good):
            raise PageRefused(403, "a page of elsewhere asked for this")
        if self.where.port and _values(fields, b"service-worker"):
            raise PageRefused(403, "no service worker may stay at a port, where another page comes next")

    async def _enter(self, request: h11.Request, query: str, fields: list[Field]) -> None:
        """Let a browser in, and lead it to the page."""
        if request.method != b"GET":
            raise PageRefused(405, "not with this method, but GET")
        if set(_values(fields, b"sec-fetch-dest")) - {"document"}:
            raise PageRefused(403, "a page of elsewhere would let this browser in unseen")
        if self._seat is not None:  # it is given up for this one, perhaps, and this connection not with it
            self._seat.part(self)
            self._seat = None
            self._drop()
        secret = self._pages.enter(self, query.removeprefix("code="), fields)
        secure = "" if self.rules.plain_cookies else " Secure;"
        cookie = f"{self.where.cookie(self.rules)}={secret}; Path=/; HttpOnly;{secure} SameSite=Strict"
        text = '<meta http-equiv="refresh" content="0; url=/"><p><a href="/">Go on</a>'
        clear = [(b"Clear-Site-Data", b'"cache", "storage"')] if self.where.port else []
        await self._say(200, text, [(b"Set-Cookie", cookie.encode()), *clear])

    async def _pass(self, request: h11.Request, seat: PageSeat, own: str) -> bool:
        """Ask the device; whether another request may follow."""
        page, target, keep = self._pages.page(seat, own, self.rules)
        if self.rules.is_balancer(self._end.peer):  # who asks next may be another, for another place
            page, keep = page._replace(last=True), False
        try:
            back = await self._device(seat, target)
            switches = await exchange(self._front, back, request, page, keep)
        except DeviceFault as fault:
            if self._front.h11.our_state is not h11.SEND_RESPONSE:
                raise ConnectionResetError(str(fault)) from None
            self._drop(Ended.PROTOCOL, str(fault))
            raise PageRefused(_status_of(str(fault)), str(fault)) from None
        if switches:
            await join(self._front, back)
            return False
        if keep and back.next():
            back.connection.watch(self._drop)
        else:
            self._drop()
        return self._front.next()

    async def _device(self, seat: PageSeat, target: Target) -> PageDevice:
        """The connection that there is, or another."""
        if self._back is not None and self._back.connection.is_over:
            self._drop()
        if self._back is None:
            seat.opened += 1
            clients = self._pages.dial(seat.serial, seat.service, lambda client: None, seat.session.id)
            opening = open_device(self._pages.reactor, clients, seat.peer, self._origin, target, seat.spoken)
            self._back = await opening
        self._back.connection.watch(None)
        return self._back

    def _drop(self, ended: Ended = Ended.CLOSED, word: str = "") -> None:
        """Part with the device: in order, or not."""
        self._sums, back, self._back = self.moved, self._back, None
        if back is None:
            return
        if ended is Ended.CLOSED:
            back.connection.part()
        else:
            back.abort(ended, word)

    async def _refuse(self, refused: PageRefused) -> None:
        """Answer ourselves."""
        known = named_by(self.where.label) if self.where.label else None
        what = f"{known[1]} of {known[0]}" if known else "it"
        said = str(refused)
        text = f"<h1>{_WORDS.get(refused.status, 'No')}</h1><p>{html.escape(said[:1].upper() + said[1:])}."
        if refused.status in (401, 410):
            text += f"<p>Open {html.escape(what)} from the page of the server."
        elif refused.status == 403:
            text += "<p><a href='/'>Go on</a>"
        await self._say(refused.status, text, [])

    async def _say(self, status: int, text: str, more: list[Field]) -> None:
        body = f"{_TOP}{text}\n".encode()
        headers = [
            *((b"Content-Type", b"text/html; charset=utf-8"), (b"Content-Length", b"%d" % len(body))),
            *((b"Cache-Control", b"no-store"), (b"Referrer-Policy", b"no-referrer")),
            *((b"X-Content-Type-Options", b"nosniff"), (b"Connection", b"close")),
            (b"Content-Security-Policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
        ]
        await self._front.say(h11.Response(status_code=status, headers=[*headers, *more]))
        await self._front.say(h11.Data(data=body))
        await self._front.say(h11.EndOfMessage())


def _values(fields: list[Field], name: bytes) -> list[str]:
    return [value.decode("latin-1") for found, value in fields if found.lower() == name]


def _status_of(fault: str) -> int:
    """Of HTTP, for what befell a device's connection."""
    word = fault.partition(":")[0]
    return {"timed-out": 504, "link-lost": 503, "out-of-resources": 503, "operator": 503}.get(word, 502)
