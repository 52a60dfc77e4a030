"""One session as the person's program holds it: connected, lost and taken up again, over.

The rules: programs that come while it is lost, or while all channels are in use, wait unread, so many at
most; a lost connection resets what ran, for rt1 cannot replay, and the session is taken up again with the
nonce for that, at growing intervals, until its grace is over or the server says that it has ended. An end
that the server gave a word for is not tried against.

Source: next/remote-sessions.md sections 2 and 3; ours.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any
from typing import Protocol as Typing

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python import log

from revtunnel.connect.local_ports import LocalSocket
from revtunnel.connect.outcomes import UNREACHABLE, Stop
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ways.websocket import WebSocketEnd
from revtunnel.sockets.ways.websocket_upgrade import Upgraded
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits
from revtunnel.streams.channel import Channel
from revtunnel.streams.window import CreditPool
from revtunnel.systems.sessions.session_link import SessionClient

__all__ = ["HeldSession", "Teller"]

GRACE = 60.0  # seconds that a lost connection has to come back
FIRST, MOST = 0.1, 5.0  # seconds before a try, doubled each time, and at most
WAITING = 256  # programs that wait
PARTING = 2.0  # seconds for the server's word, once we have said that it is over
POOL = 256 * 1024 * 1024  # bytes of credit beyond the first windows
_GONE = frozenset((404, 410))  # of HTTP: there is no such session any more
_BUSY = frozenset((429, 500, 502, 503, 504))  # perhaps later
_SILENT = 4000 + Ended.LINK_LOST  # the close code for one who did not answer
Said = dict[str, Any]


class Teller(Typing):
    """Who tells the person what happens."""

    def happened(self, event: str, **more: Any) -> None:
        """By its word: session, lost, back, warning, reset."""


class HeldSession:
    """A session. ``dial`` connects with a nonce; ``fresh`` asks for a new one where that is possible.

    ``over`` fires with a Stop, once: how the program ends.
    """

    def __init__(
        self,
        reactor: Any,
        dial: Callable[[str], Awaitable[Upgraded]],
        fresh: Callable[[], Awaitable[str]] | None,
        teller: Teller,
        limits: WebSocketLimits,
    ) -> None:
        self.over: Deferred[Stop] = Deferred()
        self.known: Deferred[Said] = Deferred()  # what the server says of it, first
        self.link: SessionClient | None = None
        self.on_channel: Callable[[Channel, Ended, str], None] = lambda channel, reason, detail: None
        self._reactor = reactor
        self._dial = dial
        self._fresh = fresh
        self._teller = teller
        self._limits = limits
        self._pool = CreditPool(POOL)
        self._nonce = ""
        self._waiting: deque[LocalSocket] = deque()
        self._serving = False
        self._lost_at: float | None = None
        self._tries = 0
        self._end: tuple[str, str] | None = None  # the server's word, once it said that it has ended
        self._ending = False  # we said so
        self._timer: IDelayedCall | None = None
        self._moved = 0, 0  # bytes of connections that are lost
        self._was_up = False

    @property
    def moved(self) -> tuple[int, int]:
        """Payload bytes to the device and to here."""
        now = self.link.moved if self.link is not None else None
        to_device, to_client = self._moved
        return (to_device + now.to_device, to_client + now.to_client) if now else self._moved

    @property
    def running(self) -> int:
        """Channels."""
        return self.link.mux.running if self.link is not None and self.link.mux is not None else 0

    # -- what its owner calls

    async def start(self, nonce: str) -> Said:
        """Connect for the first time: what the server says of the session. Stop: it does not let us in."""
        try:
            await self._connect(nonce)
        except BaseException:
            self.known.callback({})  # nobody waits for it
            raise
        return await self.known

    def give(self, socket: LocalSocket) -> None:
        """A program wants a channel: now, or when there can be one."""
        if self._end is not None or self._ending or len(self._waiting) >= WAITING:
            socket.abort()
            return
        self._waiting.append(socket)
        self._serve()

    def left(self, socket: LocalSocket) -> None:
        """A program's connection is over."""
        if socket.channel is None and socket in self._waiting:
            self._waiting.remove(socket)

    def listening(self, service: str, address: str, port: int) -> None:
        """Tell the server of a local port."""
        if self.link is not None:
            self.link.say({"say": "listening", "service": service, "address": address, "port": port})

    def end(self) -> None:
        """End the session for all, within 2 s."""
        if self._ending:
            return
        self._ending = True
        self._cancel()
        if self.link is None or not self.link.say({"say": "end"}):
            self._finish(Stop(0, ""))
        else:
            self._timer = self._reactor.callLater(PARTING, self._part)

    # -- from its link

    def up(self, link: SessionClient) -> None:
        """It is there."""
        if self._lost_at is not None:
            self._teller.happened("back", seconds=round(self._reactor.seconds() - self._lost_at, 1))
        self._lost_at, self._tries, self._was_up = None, 0, True
        self._serve()

    def texted(self, link: SessionClient, said: Said) -> None:
        """The server's command; what is not known is skipped."""
        word = said.get("say")
        if word == "session" and not self.known.called:
            self.known.callback(said)
        elif word == "resume":
            self._nonce = str(said.get("nonce", ""))
        elif word == "warning":
            self._teller.happened("warning", seconds=said.get("seconds"), why=str(said.get("why", "")))
        elif word == "ended":
            self._end = str(said.get("word", "")) or "ended", str(said.get("detail", ""))

    def channel_ended(self, link: SessionClient, channel: Channel, reason: Ended, detail: str) -> None:
        """A channel is over; one that was refused is told, for its program sees a reset only.

        Not what we cut by ending the session: ssh lets its ProxyCommand no time for an end in order.
        """
        self.on_channel(channel, reason, detail)
        told = reason not in (Ended.CLOSED, Ended.RESET_BY_PEER) and not self._ending
        if told and link.ended is None:
            self._teller.happened("reset", service=channel.target.host, word=reason.word, detail=detail)
        self._reactor.callLater(0, self._serve)

    def gone(self, link: SessionClient, reason: str, detail: str, cut: int) -> None:
        """The connection is over; the session perhaps not."""
        moved = link.moved
        self._moved = self._moved[0] + moved.to_device, self._moved[1] + moved.to_client
        self.link = None
        closed = link.web.closed if link.web is not None else None
        if self._ending:
            self._finish(Stop(0, ""))
        elif self._end is not None:
            self._finish(Stop.by_word(*self._end))
        elif reason == "protocol":
            self._finish(Stop(UNREACHABLE, f"the server broke the rules: {detail}"))
        elif link.in_order or (closed is not None and closed[0] >= 4000 and closed[0] != _SILENT):
            word, _, more = (closed[1] if closed else "").partition(": ")
            self._finish(Stop.by_word(word or "ended", more))
        else:
            self._lost(detail, cut)

    # -- inside

    async def _connect(self, nonce: str) -> None:
        upgraded = await self._dial(nonce)
        if self.over.called or self._ending:
            upgraded.end.abort()
            return
        link = SessionClient(self._reactor, LinkLimits(), self._pool, self)
        end = WebSocketEnd(self._reactor, upgraded, self._limits, link.text_came)
        self.link = link
        link.carried_by(end, self._reactor)

    def _serve(self) -> None:
        """Give channels to those who wait, as long as there are some."""
        if self._serving:
            return
        self._serving = True
        while self._waiting and self.link is not None and self.link.free:
            socket = self._waiting.popleft()
            if socket.waits:
                self.link.open(socket, socket.service)
        self._serving = False

    def _lost(self, detail: str, cut: int) -> None:
        now = self._reactor.seconds()
        if not self._was_up:
            self._finish(Stop(UNREACHABLE, f"the connection was lost: {detail}"))
            return
        if self._lost_at is None:
            self._lost_at = now
            self._teller.happened("lost", detail=detail, channels=cut)
        self._again(detail)

    def _again(self, detail: str) -> None:
        """Try later, if there is time for it."""
        assert self._lost_at is not None
        delay = min(FIRST * 2**self._tries, MOST)
        self._tries += 1
        if self._reactor.seconds() + delay - self._lost_at > GRACE:
            self._finish(Stop(UNREACHABLE, f"the connection was lost and did not come back: {detail}"))
        else:
            self._timer = self._reactor.callLater(delay, self._try)

    def _try(self) -> None:
        self._timer = None
        Deferred.fromCoroutine(self._take_up()).addErrback(self._bug)

    async def _take_up(self) -> None:
        """One try to come back."""
        nonce, self._nonce = self._nonce, ""  # good once
        asks = not nonce and self._fresh is not None
        try:
            if self._fresh is not None and asks:
                nonce = await self._fresh()
                asks = False
            await self._connect(nonce)
        except Stop as stop:
            http = getattr(stop, "http", 0)
            if self._ending or self.over.called:
                return
            if http in _GONE:
                self._finish(Stop.by_word("ended", str(stop)))
            elif stop.status == UNREACHABLE or http in _BUSY:
                self._nonce = "" if asks or http else nonce  # the server has not seen it
                self._again(str(stop))
            elif asks or self._fresh is None:
                self._finish(stop)
            else:
                self._again(str(stop))  # with another nonce

    def _part(self) -> None:
        self._timer = None
        if self.link is not None:
            self.link.finish(Ended.OPERATOR, "owner")
        else:
            self._finish(Stop(0, ""))

    def _bug(self, failure: Any) -> None:
        log.err(failure)
        self._finish(Stop(1, "a fault of this program"))

    def _finish(self, stop: Stop) -> None:
        self._cancel()
        self._end = self._end or ("over", "")
        waiting, self._waiting = self._waiting, deque()
        for socket in waiting:
            socket.abort()
        if not self.known.called:
            self.known.errback(stop)
        if not self.over.called:
            self.over.callback(stop)

    def _cancel(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
