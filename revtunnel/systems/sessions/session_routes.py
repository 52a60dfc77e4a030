"""The endpoints of remote sessions: ``/session/client/<id>`` for programs, ``/session/raw/<id>/<service>``.

A nonce lets in, as ``Authorization: Bearer``, or from a browser as a subprotocol ``nonce.<value>`` beside the
one that is spoken; never in a query. Whoever may only watch looks at the raw endpoint (session_watching.py).

The rules: a refusal is told with its status (nonces.py) and uses
nothing up; in the raw endpoint one WebSocket is one connection to the service, binary and text payloads are
its bytes, a close of either side is an end of file there, and anything cut is never a 1000.

A raw WebSocket that takes nothing for ``limits.stall`` seconds, does not answer our close in
``limits.closing``, or lets the service talk on behind its own close for 5 s, is ended.

Source: next/remote-sessions.md sections 2 and 6; ours.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import is_label
from revtunnel.link.handshake import ServerHello
from revtunnel.process.web.web_routes import WebCall, bearer
from revtunnel.sockets.ways.websocket import unread
from revtunnel.sockets.ways.websocket_upgrade import HandshakeRefused, Upgraded
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits
from revtunnel.streams.channel import Channel
from revtunnel.streams.clients import Clients, ClientSocket
from revtunnel.streams.window import CreditPool
from revtunnel.systems.sessions.live_sessions import LiveSessions
from revtunnel.systems.sessions.nonces import NONCE, NonceRefused
from revtunnel.systems.sessions.raw_end import RawEnd
from revtunnel.systems.sessions.remote_sessions import Came
from revtunnel.systems.sessions.rfb_watching import is_screen
from revtunnel.systems.sessions.session_life import RemoteSession, Role, Seat, SessionEvent, SessionRefused
from revtunnel.systems.sessions.session_link import SUBPROTOCOL, SessionServer, serve_session
from revtunnel.systems.sessions.session_seats import HOW_ENDED
from revtunnel.systems.sessions.session_watching import Screens, WatchingEnd, WatchLine

__all__ = ["BINARY", "STATUS", "ClientRoute", "Dial", "Entrance", "RawRoute"]

BINARY = "binary"
DRAINED = 5.0  # seconds that a service may talk on to one who has closed
_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_NONCE = "nonce."
STATUS = {"too-many": 503, "not-of-it": 404, "ended": 410}  # all others: 403

# serial, name of a service, what is called when its client has left, id of the session
Dial = Callable[[str, str, Callable[[ClientSocket], None], str], Clients]


class Entrance:
    """What both endpoints ask of whoever comes."""

    browsers = True
    prefix: str  # of its paths

    def __init__(self, reactor: Any, live: LiveSessions, dial: Dial, limits: WebSocketLimits) -> None:
        self.limits = limits
        self._reactor = reactor
        self._live = live
        self._dial = dial

    def _asked(self, call: WebCall) -> tuple[str, str]:
        """The session and the service that a path names."""
        number, _, service = call.path.removeprefix(self.prefix).partition("/")
        if not is_label(service):
            raise HandshakeRefused(404, "nothing is here")
        return number, service

    def _enter(self, call: WebCall, offered: tuple[str, ...], number: str, service: str | None) -> None:
        """Use the nonce up that came in a field."""
        if not _ID.fullmatch(number):
            raise HandshakeRefused(404, "nothing is here")
        enter(self._live, call, _nonce_of(call, offered), number, service)


def enter(
    live: LiveSessions, call: WebCall, nonce: str, number: str, service: str | None = None, token: str = ""
) -> None:
    """Use a nonce up; what that gave is undone if the connection is lost. HandshakeRefused: it is no good."""
    try:
        came = live.enter(nonce, number, call.peer, service, token)
    except NonceRefused as error:
        raise HandshakeRefused(error.status, str(error)) from None
    except SessionRefused as error:
        raise HandshakeRefused(STATUS.get(error.word, 403), str(error)) from None
    call.found = came
    call.undo = partial(live.left, came.session, came.seat)


class ClientRoute(Entrance):
    """Programs: rt1 frames inside, any number of connections."""

    prefix = "/session/client/"

    def __init__(
        self,
        reactor: Any,
        live: LiveSessions,
        dial: Dial,
        limits: WebSocketLimits,
        hello: Callable[[], tuple[LinkLimits, ServerHello]],
        pool: CreditPool,
    ) -> None:
        """``hello``: what a link is told now; ``pool``: credit of all of them."""
        super().__init__(reactor, live, dial, limits)
        self._hello = hello
        self._pool = pool

    def judge(self, call: WebCall, offered: tuple[str, ...]) -> str:
        if SUBPROTOCOL not in offered:
            raise HandshakeRefused(400, f"subprotocol {SUBPROTOCOL} wanted")
        self._enter(call, offered, call.path.removeprefix(self.prefix), None)
        return SUBPROTOCOL

    def opened(self, call: WebCall, upgraded: Upgraded) -> None:
        came: Came = call.found
        line = _ProgramLine(self._live, came, call.peer, self._dial)
        limits, hello = self._hello()
        line.link = SessionServer(self._reactor, limits, hello, self._pool, line)
        serve_session(self._reactor, upgraded, line.link, self.limits)
        line.greet()
        self._live.attach(came.session, came.seat, line)


class _ProgramLine:
    """One program's connection."""

    link: SessionServer

    def __init__(self, live: LiveSessions, came: Came, peer: str, dial: Dial) -> None:
        self.peer = peer
        self.listening: dict[str, str] = {}  # where the program takes connections, by service
        self._live = live
        self._session: RemoteSession = came.session
        self._seat: Seat = came.seat
        self._resume = came.resume
        self._dial = dial

    def greet(self) -> None:
        """Say what session this is, and how to come back."""
        session, limits = self._session, self._session.limits
        offers = {offer.name: offer for offer in self._live.rights.services(session.wish.serial)}
        left = max(0.0, session.since + limits.maximum - self._live.now())
        self.link.say(
            {
                "say": "session",
                "session": session.id,
                "device": session.wish.serial,
                "services": [
                    {"name": name, "port": offers[name].target.port if name in offers else 0}
                    for name in session.wish.offers
                ],
                "idle": round(limits.idle),
                "maximum": round(left),
                "role": self._seat.role.value,
            }
        )
        self.link.say({"say": "resume", "nonce": self._resume})

    # -- as a Line

    def moved(self) -> tuple[int, int]:
        moved = self.link.moved
        return moved.to_device, moved.to_client

    def connections(self) -> int:
        return self.link.channels_opened

    def say(self, said: dict[str, Any]) -> None:
        self.link.say(said)

    def end(self, word: str, detail: str) -> None:
        self.link.say({"say": "ended", "word": word, "detail": detail})
        self.link.finish(HOW_ENDED.get(word, Ended.OPERATOR), word)

    def look(self, now: float) -> None:
        """Nothing: a link has its own signs of life."""

    # -- as the events of its link

    def clients_of(self, link: SessionServer, service: str) -> Clients | None:
        wish, seat = self._session.wish, self._seat
        here = seat.number in self._session.seats and seat.role is not Role.WATCH
        if service not in wish.offers or not here:
            return None
        return self._dial(wish.serial, service, lambda client: None, self._session.id)

    def texted(self, link: SessionServer, said: dict[str, Any]) -> None:
        if said.get("say") == "end":
            if self._seat.role is Role.OWNER and self._seat.number in self._session.seats:
                self._live.end(self._session.id, SessionEvent.OWNER_END)
            else:
                link.finish(Ended.OPERATOR, "left")
        elif said.get("say") == "listening" and said.get("service") in self._session.wish.offers:
            self.listening[said["service"]] = f"{said.get('address')}:{said.get('port')}"[:80]

    def channel_ended(self, link: SessionServer, channel: Channel, reason: Ended, detail: str) -> None:
        """Nothing: its client is told of as every client of the device is."""

    def gone(self, link: SessionServer, reason: str, detail: str, cut: int) -> None:
        self._live.left(self._session, self._seat)


class RawRoute(Entrance):
    """Browsers, websocat, anything: one connection to one service, or to look at the owner's."""

    prefix = "/session/raw/"

    def __init__(
        self,
        reactor: Any,
        live: LiveSessions,
        dial: Dial,
        limits: WebSocketLimits,
        screens: Screens | None = None,
    ) -> None:
        super().__init__(reactor, live, dial, limits)
        self.screens = screens or Screens()

    def judge(self, call: WebCall, offered: tuple[str, ...]) -> str:
        number, service = self._asked(call)
        if any(each.startswith(_NONCE) for each in offered) and BINARY not in offered:
            raise HandshakeRefused(400, f"subprotocol {BINARY} wanted beside the nonce")
        self._enter(call, offered, number, service)
        return BINARY if BINARY in offered else ""

    def opened(self, call: WebCall, upgraded: Upgraded) -> None:
        came: Came = call.found
        service = call.path.rpartition("/")[2]
        watches = came.seat.role is Role.WATCH
        if watches and not is_screen(service):
            watching = WatchLine(self._live, came, call.peer, self.screens, service)
            watching.open(self._reactor, upgraded, self.limits)
            return
        end = (WatchingEnd if watches else RawEnd)(self._reactor, upgraded, self.limits)
        line = _RawLine(self._live, came, call.peer, end)
        if came.seat.person == came.session.owner and not is_screen(service):
            _, end.told, line.shown = self.screens.begin(came.session.id, service)
        clients = self._dial(came.session.wish.serial, service, line.left, came.session.id)
        line.client = clients.client(end)
        self._live.attach(came.session, came.seat, line)
        if not line.over:
            line.begun = True
            clients.let_in(line.client)


class _RawLine:
    """One raw connection."""

    client: ClientSocket

    def __init__(self, live: LiveSessions, came: Came, peer: str, end: RawEnd) -> None:
        self.peer = peer
        self.over = False
        self.begun = False  # its client was let in
        self._live = live
        self._session: RemoteSession = came.session
        self._seat: Seat = came.seat
        self._end = end
        self._taken = 0  # bytes, when it was looked at last
        self._taken_at = live.now()
        self._closing_at: float | None = None  # since when one side has closed
        self.shown: Callable[[], None] = lambda: None  # is called when it is over
        self._heard = 0  # frames, when it was looked at last
        self._heard_at = self._taken_at
        self._asked_at: float | None = None  # since when a ping is out

    def left(self, client: ClientSocket) -> None:
        """Its client is gone: for the device's accounts, and for the session's."""
        if not self.over:
            self._gone()
            self._live.left(self._session, self._seat)

    def _gone(self) -> None:
        self.over = True
        self.shown()

    # -- as a Line

    def moved(self) -> tuple[int, int]:
        return self._end.to_device, self._end.to_client

    def connections(self) -> int:
        return 1

    def say(self, said: dict[str, Any]) -> None:
        """Nothing: there are only bytes."""

    def end(self, word: str, detail: str) -> None:
        ended = HOW_ENDED.get(word, Ended.OPERATOR)
        self._end.because_of(word)
        if self.begun:
            self.client.end(ended, word)
        else:  # it was not even begun
            self._gone()
            self._end.abort()

    def look(self, now: float) -> None:
        end, limits = self._end, self._end.limits
        if end.to_client != self._taken or not end.stuck:
            self._taken, self._taken_at = end.to_client, now
        parting = end.closed is not None or end.wire.close_said
        if parting and self._closing_at is None:
            self._closing_at = now
        patience = limits.closing if end.closed is None else DRAINED
        if self._closing_at is not None and now - self._closing_at >= patience:
            self.client.end(Ended.STALLED, "one side had closed, and the other did not end")
        elif now - self._taken_at >= limits.stall:
            end.because(Ended.STALLED, "it takes nothing")
            self.client.end(Ended.STALLED, "the WebSocket takes nothing")
        else:
            self._listen(now)

    def _listen(self, now: float) -> None:
        """Ping a silent one, also for balancers; one that answers nothing is dead, unless nobody reads it."""
        end, limits = self._end, self._end.limits
        if end.wire.frames != self._heard:
            self._heard, self._heard_at, self._asked_at = end.wire.frames, now, None
        elif self._asked_at is None:
            if now - self._heard_at >= limits.keepalive:
                self._asked_at = now
                end.ping(b"")
        elif now - self._asked_at >= limits.answer:
            if end.stuck or unread(end):
                self._heard_at, self._asked_at = now, None
            else:
                end.because(Ended.STALLED, "it is silent")
                self.client.end(Ended.STALLED, "the WebSocket is silent")


def _nonce_of(call: WebCall, offered: tuple[str, ...]) -> str:
    """What lets in; "" where there is none, or it could be none."""
    text = bearer(call.request) or next(
        (each.removeprefix(_NONCE) for each in offered if each.startswith(_NONCE)), ""
    )
    return text if NONCE.fullmatch(text) else ""
