"""Who comes to a web listener: one bounded request head, then a WebSocket of some route, or one answer.

The rules: from accept to the answer there is one absolute deadline, TLS included, after which the socket is
aborted. Whoever failed too often, asks too often, or has too many requests under way is turned away unread.
``Host`` has to be one of ours, so that no page rebinds a name of its own to us, and a page may come from the
origins that are named, or from us; both are judged before any route is asked. Whom a connection of a balancer
is for says its X-Forwarded-For, if the balancer is named in the settings, and what others are judged by when
they connect is asked of that client then.

A refusal is told with its HTTP status, reported once, and costs the source what the word of it costs
(fleet/penalties.py). A page of another origin costs nothing: whose browser it is cannot help it.

Source: next/remote-sessions.md sections 1 and 2; RFC 9112 section 3.2; issue "Web listener"; ours.
"""

import re
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.python import log
from twisted.python.failure import Failure

from revtunnel.fleet.access_control import AccessControl
from revtunnel.ground.facts import Report, WebRefused
from revtunnel.ground.limits import ServerLimits
from revtunnel.ground.networks import Network, address_of, within
from revtunnel.ground.targets import is_literal, place
from revtunnel.process.web.rates import Rates
from revtunnel.process.web.web_pages import WebPages
from revtunnel.process.web.web_routes import WebCall, WebRoute, route_of
from revtunnel.sockets.ends import End, said
from revtunnel.sockets.stages import read_some
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.sockets.tls.tls_stages import TlsFailed, TlsHandshakes
from revtunnel.sockets.twisted_transport import TwistedTransport
from revtunnel.sockets.ways.websocket_upgrade import (
    HandshakeRefused,
    Request,
    RequestReader,
    Upgraded,
    answer_end,
    part,
)
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits

__all__ = ["WebListener", "WebRules"]

_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:[^\r\n]*websocket", re.IGNORECASE)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?", re.ASCII)
_WORDS = {
    **dict.fromkeys((400, 414, 431), "protocol"),
    **dict.fromkeys((401, 403, 410), "denied"),
    404: "not-found",
    405: "method",
    429: "too-many",
    503: "busy",
}  # of a status, for counters and penalties


@dataclass(frozen=True, slots=True)
class WebRules:
    """What holds at one listener; may be replaced for later connections."""

    name: str
    hosts: frozenset[str] = frozenset()  # names that a Host header may have, beside addresses and localhost
    origins: frozenset[str] = frozenset()  # of pages that may ask, beside our own
    identity: Identity | None = None  # None: plain
    forwarded_from: tuple[Network, ...] = ()  # balancers whose X-Forwarded-For counts

    def is_balancer(self, peer: str) -> bool:
        """Whether ``HOST:PORT`` may say whom it speaks for."""
        return within(address_of(peer), self.forwarded_from)

    def client_of(self, peer: str, said: list[str]) -> str:
        """Whom a connection is for: the last in X-Forwarded-For that is no balancer, if one says so."""
        client = peer
        for each in reversed(",".join(said).split(",")):
            address = address_of(each.strip())
            if address is None or not self.is_balancer(client):
                break
            client = place(str(address), 0)
        return client


class WebListener:
    """The connections of all web listeners of a server that are no WebSocket yet."""

    def __init__(
        self,
        reactor: Any,
        limits: Callable[[], ServerLimits],
        access: AccessControl,
        report: Report,
        state: Callable[[], str] = lambda: "ready",
        full: Callable[[], bool] = lambda: False,
    ) -> None:
        """``state``: what /healthz says; ``full``: no descriptor is left for more."""
        self.rules: dict[str, WebRules] = {}
        self.routes: list[WebRoute] = []
        self.wire = WebSocketLimits()
        self.pages = WebPages(reactor, lambda path: route_of(self.routes, path) is not None, state)
        self.rates = Rates()
        self.expected: Callable[[str], int] = lambda source: 0  # connections that were asked of an address
        self._reactor = reactor
        self._limits = limits
        self._access = access
        self._report = report
        self._full = full
        self._tls = TlsHandshakes(reactor, lambda: limits().handshakes)
        self._serving: set[Deferred[None]] = set()
        self._pending: Counter[str] = Counter()
        self._stopping = False

    def not_let_in(self, name: str, peer: str, reason: str, detail: str) -> None:
        """Whoever is no sender of a PROXY header, or sent none that is right."""
        self._report(WebRefused(name, peer, "", 0, reason, detail))

    @property
    def pending(self) -> int:
        """Connections that are not answered yet."""
        return len(self._serving)

    def stop(self) -> None:
        """Turn away whoever is not answered yet, and all who come."""
        self._stopping = True
        for serving in [*self._serving]:
            serving.cancel()

    # -- a connection

    def came(self, name: str, end: End) -> None:
        """Somebody connected where ``rules[name]`` holds."""
        peer, rules = end.peer, self.rules.get(name)
        source = peer.rpartition(":")[0]
        reason, detail = "stopping", "not even read"
        if rules is not None:  # else its listener is gone
            reason, detail = self._refusal(peer, source, rules.is_balancer(peer))
        if rules is None or reason:
            end.abort()
            self._report(WebRefused(name, peer, "", 0, reason, detail))
        else:
            self._serve(rules, source, end)

    def _refusal(self, peer: str, source: str, is_balancer: bool) -> tuple[str, str]:
        """Why a connection is not even read: word and detail, or nothing."""
        limits, expected = self._limits(), self.expected(source)
        if self._stopping:
            return "stopping", "not even read"
        if len(self._serving) >= limits.pending + expected:
            return "overloaded", "not even read"
        if self._full():
            return "descriptors", "not even read"
        if is_balancer:
            return "", ""
        if self._pending[source] >= limits.pending_per_source + expected:
            return "overloaded", "not even read"
        return self._owing(peer, source)

    def _owing(self, peer: str, source: str) -> tuple[str, str]:
        """Whether a client failed or came too often: word and detail, or nothing."""
        now = self._reactor.seconds()
        penalty = self._access.stranger(peer, now)
        if penalty:
            return "penalty", penalty
        is_free = self.expected(source) or self._access.penalties.is_exempt(peer)
        is_free = is_free or self.rates.take(source, now)
        return ("", "") if is_free else ("too-often", "not even read")

    def _serve(self, rules: WebRules, source: str, end: End) -> None:
        """Read a connection and answer it, in time."""
        visit = _Visit(rules, end)
        serving = Deferred.fromCoroutine(self._answer(visit))
        self._serving.add(serving)
        self._pending[source] += 1
        serving.addTimeout(self.wire.handshake, self._reactor)

        def done(result: Any) -> Any:
            self._serving.discard(serving)
            self._pending[source] -= 1
            if not self._pending[source]:
                del self._pending[source]
            if isinstance(result, Failure):
                self._failed(visit, result)

        serving.addBoth(done).addErrback(lambda bug: log.err(bug))

    async def _answer(self, visit: "_Visit") -> None:
        rules = visit.rules
        if rules.identity is not None:
            secured = await self._tls.serve(visit.end, rules.identity, self.wire.handshake)
            visit.end = secured.end
        head = await self._read_head(visit)
        asked, early = self._asked(visit, head)
        if asked is not None:
            judge = partial(self._judge, visit)
            try:
                upgraded = await answer_end(self._reactor, visit.end, asked, early, judge, self.wire)
            except HandshakeRefused as refused:
                self._told(visit, refused)
                await self._part(visit.end)
            else:
                self._opened(visit, upgraded)

    def _asked(self, visit: "_Visit", head: bytes) -> tuple[Request | HandshakeRefused | None, bool]:
        """A request for a WebSocket, or what is wrong; None: it was no such request, and others have it."""
        if _UPGRADE.search(head.partition(b"\r\n\r\n")[0]) is not None or len(head) > self.wire.head:
            found = RequestReader(self.wire).receive(head)
            return found or (HandshakeRefused(400, "the request is not whole"), False)
        host = _head_host(head)
        if host is not None and not self._is_ours(visit.rules, host):
            return HandshakeRefused(421, f"Host {host[:80]!a} is not one of ours"), False
        channel = self.pages.channel()
        if channel is None:
            return HandshakeRefused(503, "too many callers"), False
        visit.taken = True
        TwistedTransport(self._reactor, visit.end, channel).start()
        channel.dataReceived(head)  # with deadlines of its own
        return None, False

    async def _read_head(self, visit: "_Visit") -> bytes:
        """All that comes up to an empty line and what stands behind it; one reading more than ``head``."""
        head = b""
        while b"\r\n\r\n" not in head and len(head) <= self.wire.head:
            data = await read_some(self._reactor, visit.end)
            if not data:
                raise ConnectionResetError(f"ended after {len(head)} bytes of a request")
            head += data
            visit.heard = len(head)
        return head

    # -- a WebSocket

    def _judge(self, visit: "_Visit", request: Request, offered: tuple[str, ...]) -> str:
        """Whether there is a WebSocket for this, and which; what was used up for it is undone if it fails."""
        path, _, query = request.path.partition("?")
        visit.path = path
        balancer = visit.end.peer
        visit.end.peer = visit.rules.client_of(balancer, request.headers.get_all("X-Forwarded-For"))
        origin = request.headers.get("Origin")
        call = WebCall(
            *(request, path, query, visit.end.peer, visit.rules.identity is not None, origin),
            listener=visit.rules.name,
        )
        visit.call = call
        if visit.end.peer != balancer:
            call.reason, why = self._owing(visit.end.peer, visit.end.peer.rpartition(":")[0])
            if call.reason:
                raise HandshakeRefused(429, why)
        route = visit.route = route_of(self.routes, path)
        host = request.headers["Host"]
        if not self._is_ours(visit.rules, host):
            call.reason = "host"
            raise HandshakeRefused(421, f"Host {host[:80]!a} is not one of ours")
        if origin is not None and not self._is_our_page(visit.rules, origin, host, call.secure):
            call.reason = "origin"
            raise HandshakeRefused(403, "not for pages of another origin")
        if route is None:
            raise HandshakeRefused(404, "nothing is here")
        if origin is not None and not route.browsers:
            call.reason = "origin"
            raise HandshakeRefused(403, "not for web pages")
        if self._stopping:
            raise HandshakeRefused(503, "the server is stopping")
        return route.judge(call, offered)

    def _opened(self, visit: "_Visit", upgraded: Upgraded) -> None:
        assert visit.route is not None and visit.call is not None
        visit.call.undo = None
        visit.route.opened(visit.call, upgraded)
        visit.taken = True

    @staticmethod
    def _is_ours(rules: WebRules, host: str) -> bool:
        match = _HOST.fullmatch(host)
        if match is None:
            return False
        name = match[1].strip("[]").lower().rstrip(".")
        return name == "localhost" or name in rules.hosts or is_literal(name)

    @staticmethod
    def _is_our_page(rules: WebRules, origin: str, host: str, secure: bool) -> bool:
        """Whether a page is one of those named, or has come from this very place."""
        said_origin = origin.lower()
        schemes = ("https",) if secure else ("https", "http")  # a balancer may have ended the TLS
        own = {f"{scheme}://{host.lower()}" for scheme in schemes}
        return said_origin in rules.origins or said_origin in own

    # -- the end of one that came to nothing

    def _told(self, visit: "_Visit", refused: HandshakeRefused) -> None:
        """It was answered no: that counts at once, however long the other side keeps its connection."""
        named = visit.call.reason if visit.call is not None else ""
        reason = named or _WORDS.get(refused.status, "refused")
        self._count(visit, refused.status, reason, refused.why)

    async def _part(self, end: End) -> None:
        """Let it read its answer."""
        parting = Deferred.fromCoroutine(part(self._reactor, end))
        with suppress(TimeoutError, CancelledError):
            await parting.addTimeout(self.wire.parting, self._reactor)

    def _failed(self, visit: "_Visit", failure: Failure) -> None:
        """Say what was wrong; the socket is gone, or goes now."""
        error, call = failure.value, visit.call
        if not visit.taken:
            visit.end.abort()
        if call is not None and call.undo is not None:
            undo, call.undo = call.undo, None
            undo()
        if isinstance(error, TlsFailed):
            if error.reason != "lost":  # as below
                self._count(visit, 0, error.reason, str(error))
        elif isinstance(error, CancelledError):
            self._count(visit, 0, "stopping", "")
        elif isinstance(error, TimeoutError):
            self._count(visit, 0, "silent", f"no whole request in {self.wire.handshake:g} s")
        elif not isinstance(error, OSError):
            failure.raiseException()
        elif visit.heard:  # else somebody looked whether we live
            self._count(visit, 0, "lost", said(error))

    def _count(self, visit: "_Visit", status: int, reason: str, detail: str) -> None:
        rules, peer = visit.rules, visit.end.peer
        self._access.failed(peer, reason, "", False, self._reactor.seconds())
        self._report(WebRefused(rules.name, peer, visit.path[:80], status, reason, detail))


class _Visit:
    """One connection on its way to an answer."""

    __slots__ = ("call", "end", "heard", "path", "route", "rules", "taken")

    def __init__(self, rules: WebRules, end: End) -> None:
        self.rules = rules
        self.end = end
        self.path = ""
        self.heard = 0  # bytes of its request
        self.call: WebCall | None = None
        self.route: WebRoute | None = None
        self.taken = False  # the connection has another owner


def _head_host(head: bytes) -> str | None:
    """The one Host of a head; None: there is none, or several, which HTTP itself refuses."""
    found = re.findall(rb"\r\nhost[ \t]*:[ \t]*([^\r\n]*)", head.partition(b"\r\n\r\n")[0], re.IGNORECASE)
    return found[0].decode("latin-1").strip() if len(found) == 1 else None
