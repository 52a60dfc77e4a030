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

import math
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.python import log
from twisted.python.failure import Failure

from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.rates import Rates
from revtunnel.fleet.strangers import NotLetIn, Stranger, Strangers
from revtunnel.ground.facts import Report, WebRefused
from revtunnel.ground.limits import ServerLimits
from revtunnel.process.web.web_pages import WebPages
from revtunnel.process.web.web_routes import WebCall, WebRoute, route_of
from revtunnel.process.web.web_rules import WebRules
from revtunnel.sockets.ends import End, said
from revtunnel.sockets.peeking import has_spoken
from revtunnel.sockets.stages import read_some
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

__all__ = ["WebListener"]

_UPGRADE = re.compile(rb"\r\nupgrade[ \t]*:[^\r\n]*websocket", re.IGNORECASE)
_WORDS = {
    **dict.fromkeys((400, 414, 431), "protocol"),
    **dict.fromkeys((401, 403, 410), "denied"),
    404: "not-found",
    405: "method",
    429: "too-many",
    503: "busy",
}  # of a status, for counters and penalties


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
        # whether another has a connection: by its rules, its end, the Host and all of its first head
        self.elsewhere: Callable[[WebRules, End, str, bytes], bool] = lambda *_: False
        self._reactor = reactor
        self._limits = limits
        self._access = access
        self._report = report
        self._full = full
        self._tls = TlsHandshakes(reactor, lambda: limits().handshakes)
        self._serving: set[Deferred[None]] = set()
        self._places = Strangers(reactor.seconds, limits, access)
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
        rules = self.rules.get(name)
        try:
            if rules is None:
                raise NotLetIn("stopping", "its listener is gone")
            visit = _Visit(rules, end)
            visit.stranger = self._enter(visit)
        except NotLetIn as refused:
            end.abort()
            self._report(WebRefused(name, end.peer, "", 0, refused.reason, str(refused)))
        else:
            self._serve(visit)

    def _enter(self, visit: "_Visit") -> Stranger:
        """A place for a connection that is not even read yet. NotLetIn: it has none."""
        end = visit.end
        source, is_balancer = end.peer.rpartition(":")[0], visit.rules.is_balancer(end.peer)
        if self._stopping:
            raise NotLetIn("stopping", "not even read")
        if self._full() and not self._places.make_room():
            raise NotLetIn("descriptors", "not even read")
        expected, speaks = self.expected(source), partial(has_spoken, end)
        stranger = self._places.enter(
            end.peer, visit.give_way, speaks, expected=expected, counts=not is_balancer
        )
        if not is_balancer and self._comes_too_often(end.peer, source):
            stranger.leave()
            raise NotLetIn("too-often", "not even read")
        return stranger

    def owing(self, peer: str, is_forwarded: bool) -> str:
        """Why a client is not heard now, or nothing; one whom a balancer brought was not asked yet."""
        why = self._access.stranger(peer, self._reactor.seconds())
        if not why and is_forwarded and self._comes_too_often(peer, peer.rpartition(":")[0]):
            why = "not even read"
        return why

    def failed(self, peer: str) -> None:
        """A client was not who he said."""
        self._access.failed(peer, "denied", "", False, self._reactor.seconds())

    def _comes_too_often(self, peer: str, source: str) -> bool:
        is_free = self.expected(source) or self._access.penalties.is_exempt(peer)
        return not (is_free or self.rates.take(source, self._reactor.seconds()))

    def _serve(self, visit: "_Visit") -> None:
        """Read a connection and answer it, in time."""
        visit.serving = serving = Deferred.fromCoroutine(self._answer(visit))
        self._serving.add(serving)
        serving.addTimeout(self.wire.handshake, self._reactor)

        def done(result: Any) -> Any:
            self._serving.discard(serving)
            visit.stranger.leave()
            if isinstance(result, Failure):
                self._failed(visit, result)

        serving.addBoth(done).addErrback(lambda bug: log.err(bug))

    async def _answer(self, visit: "_Visit") -> None:
        rules = visit.rules
        if rules.identity is not None:
            secured = await self._tls.serve(
                visit.end, rules.identity, self.wire.handshake, visit.stranger.heard
            )
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
        host = _head_host(head)
        if len(head) <= self.wire.head and self.elsewhere(visit.rules, visit.end, host or "", head):
            visit.taken = True
            return None, False
        if _UPGRADE.search(head.partition(b"\r\n\r\n")[0]) is not None or len(head) > self.wire.head:
            found = RequestReader(self.wire).receive(head)
            return found or (HandshakeRefused(400, "the request is not whole"), False)
        if host is not None and not visit.rules.is_ours(host):
            return HandshakeRefused(421, f"Host {host[:80]!a} is not one of ours"), False
        channel = self.pages.channel()
        if channel is None:
            return HandshakeRefused(503, "too many callers"), False
        visit.taken = True
        channel.rules, channel.came_from = visit.rules, visit.end.peer
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
            visit.stranger.heard()
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
            self._judge_client(call)
        route = visit.route = route_of(self.routes, path)
        host = request.headers["Host"]
        if not visit.rules.is_ours(host):
            call.reason = "host"
            raise HandshakeRefused(421, f"Host {host[:80]!a} is not one of ours")
        if origin is not None and not visit.rules.is_our_page(origin, host):
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

    def _judge_client(self, call: WebCall) -> None:
        """As others are judged when they connect. HandshakeRefused: he owes too much, or comes too often."""
        now, source = self._reactor.seconds(), call.peer.rpartition(":")[0]
        if self.expected(source):
            return
        seconds = self._access.next_try(call.peer, now)
        why = self._access.stranger(call.peer, now)
        if why:
            call.reason = "penalty"
        elif self._comes_too_often(call.peer, source):
            call.reason, why = "too-often", "not even read"
        if why:
            raise HandshakeRefused(429, why, retry_after=math.ceil(seconds))

    def _opened(self, visit: "_Visit", upgraded: Upgraded) -> None:
        assert visit.route is not None and visit.call is not None
        visit.call.undo = None
        visit.route.opened(visit.call, upgraded)
        visit.taken = True

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
            if error.reason != "lost":
                self._count(visit, 0, error.reason, str(error))
            else:
                self._looked(visit)
        elif isinstance(error, CancelledError):
            self._count(visit, 0, *(("overloaded", visit.gave_way) if visit.gave_way else ("stopping", "")))
        elif isinstance(error, TimeoutError):
            self._count(visit, 0, "silent", f"no whole request in {self.wire.handshake:g} s")
        elif not isinstance(error, OSError):
            failure.raiseException()
        elif visit.heard:
            self._count(visit, 0, "lost", said(error))
        else:
            self._looked(visit)

    def _looked(self, visit: "_Visit") -> None:
        """Somebody looked whether we live: that is told to nobody, and costs hardly anything."""
        if not visit.rules.is_balancer(visit.end.peer):
            self._access.failed(visit.end.peer, "lost", "", False, self._reactor.seconds())

    def _count(self, visit: "_Visit", status: int, reason: str, detail: str) -> None:
        rules, peer = visit.rules, visit.end.peer
        self._access.failed(peer, reason, "", False, self._reactor.seconds())
        self._report(WebRefused(rules.name, peer, visit.path[:80], status, reason, detail))


class _Visit:
    """One connection on its way to an answer."""

    __slots__ = ("call", "end", "gave_way", "heard", "path", "route", "rules", "serving", "stranger", "taken")
    serving: "Deferred[None]"
    stranger: Stranger

    def __init__(self, rules: WebRules, end: End) -> None:
        self.rules = rules
        self.end = end
        self.path = ""
        self.heard = 0  # bytes of its request
        self.call: WebCall | None = None
        self.route: WebRoute | None = None
        self.taken = False  # the connection has another owner
        self.gave_way = ""  # why, if its place was needed

    def give_way(self, why: str) -> None:
        """Its place is needed for another."""
        self.gave_way = why
        self.serving.cancel()


def _head_host(head: bytes) -> str | None:
    """The one Host of a head; None: there is none, or several, which HTTP itself refuses."""
    found = re.findall(rb"\r\nhost[ \t]*:[ \t]*([^\r\n]*)", head.partition(b"\r\n\r\n")[0], re.IGNORECASE)
    return found[0].decode("latin-1").strip() if len(found) == 1 else None
