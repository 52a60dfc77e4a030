"""``/control``: a person's lasting connection, by which sessions are found, started, shared and ended.

``Authorization: Bearer`` has the user's token, subprotocol ``revtunnel.control.1``. Text messages, one JSON
object of at most 16 KiB each. The server says ``hello`` first; ``ask`` is answered with the same ``id`` by
``ok`` or by ``error`` with a word, in the order in which it was asked, one at a time: whoever does not read
his answers is not read.

========  =====================================  ====================================================
ask       with                                   ok
========  =====================================  ====================================================
services  [after] [device, a pattern]            services [{device, service, port, online, labels}],
                                                 more, after
start     device services [private] [take_over]  session nonce services state idle maximum
end       session                                {}
share     session with role (watch, use, take)   nonce url
sessions                                         sessions [{session, device, services, ...}], more
nonce     session [browser]                      nonce
========  =====================================  ====================================================

Errors: ``malformed``, ``denied``, ``unknown``, ``offline``, ``muted``, ``too-many``, ``audit``, ``private``,
``no-take-over``, ``ended``, ``stopping``. A token that counts no more closes the connection, 4001.

Source: issue 10, part 4; next/remote-sessions.md; ours.
"""

import json
from collections import Counter, deque
from typing import Any

from revtunnel import __version__
from revtunnel.process.web.web_routes import WebCall, bearer
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ways.websocket_messages import WebSocketMessages
from revtunnel.sockets.ways.websocket_upgrade import HandshakeRefused, Upgraded
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits, WebSocketWire
from revtunnel.systems.sessions.control_asks import MAX_TEXT, ControlAsks
from revtunnel.systems.sessions.live_sessions import LiveSessions
from revtunnel.trust.user_tokens import BROWSER, READ, BadToken, Login

__all__ = ["SUBPROTOCOL", "ControlRoute"]

SUBPROTOCOL = "revtunnel.control.1"
REVOKED = 4001
UNSUPPORTED = 1003
GOING_AWAY = 1001


class ControlRoute:
    """All control connections of a server."""

    prefix = "/control"
    browsers = False
    most = 10_000  # connections in all
    most_per_user = 16

    def __init__(
        self, reactor: Any, live: LiveSessions, asks: ControlAsks, name: str, limits: WebSocketLimits
    ) -> None:
        self.asks = asks
        self.name = name
        self._limits = limits
        self._reactor = reactor
        self._live = live
        self._open: dict[_Control, None] = {}
        self._users: Counter[str] = Counter()  # connections, those that are being made among them
        self._unwatch = live.people.watch(self._changed)
        live.on_tick.append(self._tick)

    def __len__(self) -> int:
        """Connections."""
        return len(self._open)

    def judge(self, call: WebCall, offered: tuple[str, ...]) -> str:
        if SUBPROTOCOL not in offered:
            raise HandshakeRefused(400, f"subprotocol {SUBPROTOCOL} wanted")
        try:
            login = self._live.people.log_in(bearer(call.request), self._live.wall())
        except BadToken as error:
            self._live.refused("login", "", "", (), call.peer, error.word)
            raise HandshakeRefused(401, "this token lets nobody in") from None
        if not {BROWSER, READ}.isdisjoint(login.scope.split()):
            self._live.refused("login", login.user, "", (), call.peer, "scope")
            raise HandshakeRefused(403, "this token is good for less")
        if self._users[login.user] >= self.most_per_user or self._users.total() >= self.most:
            raise HandshakeRefused(503, "too many connections")
        self._users[login.user] += 1
        call.found = login
        call.undo = lambda: self._discount(login)
        return SUBPROTOCOL

    def opened(self, call: WebCall, upgraded: Upgraded) -> None:
        login: Login = call.found
        control = _Control(self, login, call)
        wire = WebSocketWire(upgraded.engine, self._limits, text=MAX_TEXT)
        control.socket = WebSocketMessages(self._reactor, wire, control)
        self._open[control] = None
        EndTransport(self._reactor, upgraded.end, control.socket).start()
        control.say({"say": "hello", "user": login.user, "server": self.name, "version": __version__})
        self._judge_again(control)

    def left(self, control: "_Control") -> None:
        """One is over."""
        if self._open.pop(control, 0) is None:
            self._discount(control.login)

    def stop(self, code: int = GOING_AWAY, reason: str = "stopping") -> None:
        """Close all."""
        self._unwatch()
        self._unwatch = lambda: None
        for control in [*self._open]:
            control.socket.close(code, reason)

    # -- tokens that count no more

    def _changed(self, users: frozenset[str]) -> None:
        for control in [*self._open]:
            if control.login.user in users:
                self._judge_again(control)

    def _tick(self, now: float) -> None:
        wall = self._live.wall()
        for control in [*self._open]:
            if control.login.until <= wall:
                self._judge_again(control)

    def _judge_again(self, control: "_Control") -> None:
        why = self._live.people.standing(control.login, self._live.wall())
        if why:
            control.socket.close(REVOKED, why.removeprefix("token-") if why != "no-user" else "revoked")

    def _discount(self, login: Login) -> None:
        self._users[login.user] -= 1
        if self._users[login.user] <= 0:
            del self._users[login.user]


class _Control:
    """One connection (a MessageOwner)."""

    socket: WebSocketMessages

    def __init__(self, route: ControlRoute, login: Login, call: WebCall) -> None:
        self.login = login
        self._route = route
        self._call = call
        self._full = False
        self._late: deque[str] = deque()  # while it was full; one for each session that waits

    def say(self, said: dict[str, Any]) -> None:
        """Send an object; who does not take it is not read until he has."""
        self._late.append(json.dumps(said, separators=(",", ":")))
        while self._late and not self._full:
            if not self.socket.send(self._late.popleft()):
                self._full = True
                self.socket.pause()

    def received(self, message: bytes | str) -> None:
        if isinstance(message, bytes):
            self.socket.close(UNSUPPORTED, "text messages wanted")
            return
        self._route.asks.answer(message, self.login, self._call, self.say)

    def may_send(self) -> None:
        self._full = False
        while self._late and not self._full:
            self._full = not self.socket.send(self._late.popleft())
        if not self._full:
            self.socket.resume()

    def closed(self, code: int, reason: str) -> None:
        self._route.left(self)
