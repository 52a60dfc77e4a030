"""``/session/ssh/<id>/<service>``: a shell of a device's ssh service, for a terminal in a browser.

The server is the ssh client (ssh_client.py): name, host key and password are asked for in the terminal. A
host key that nobody knows is shown with its fingerprint and kept once somebody says yes, for all who come
after; another key is refused in words. The connection to the service is a client of the device as any other.

From the page: binary messages are what is typed, texts ``{"size": [columns, rows]}``. To it: binary messages
are the screen's. A close says how it ended: 1000 with the exit status of the shell.

The rules: who does not take what the shell says is not read for, and holds one reading; what is typed while
the shell takes nothing is not read from the page. A service that has not proved its key in 30 s is given up.

Source: issue 13, "SSH/telnet/raw terminal"; ours.
"""

import json
import socket
from collections import deque
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from revtunnel.ground.reasons import Ended
from revtunnel.process.admin.refusals import Conflict
from revtunnel.process.web.web_routes import WebCall
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import PlainEnd
from revtunnel.sockets.ways.websocket_messages import WebSocketMessages
from revtunnel.sockets.ways.websocket_upgrade import HandshakeRefused, Upgraded
from revtunnel.sockets.ways.websocket_wire import NORMAL, WebSocketLimits, WebSocketWire, close_code
from revtunnel.streams.clients import ClientSocket
from revtunnel.systems.sessions.live_sessions import LiveSessions
from revtunnel.systems.sessions.remote_sessions import Came
from revtunnel.systems.sessions.session_life import Role
from revtunnel.systems.sessions.session_routes import Dial, Entrance
from revtunnel.systems.sessions.session_seats import HOW_ENDED
from revtunnel.systems.sessions.session_watching import Screens, WatchLine
from revtunnel.systems.sessions.typed_lines import GivenUp, Typed, TypedLines
from revtunnel.trust.host_keys import HostKeys, fingerprint_of, kind_of

__all__ = ["SUBPROTOCOL", "SshRoute"]

SUBPROTOCOL = "revtunnel.terminal.1"
HANDSHAKE = 30.0  # seconds from the dial to the key of the service
SIZE = 80, 24
MOST_SIZE = 1000  # columns, rows
EXTRA = "the server has no ssh client: pip install 'revtunnel[ssh]' there"
log = Logger(namespace="revtunnel.web")


class SshRoute(Entrance):
    """All of them. ``screens``: for who watches, shared with raw connections."""

    prefix = "/session/ssh/"

    def __init__(
        self,
        reactor: Any,
        live: LiveSessions,
        dial: Dial,
        limits: WebSocketLimits,
        screens: Screens,
        keys: HostKeys,
    ) -> None:
        super().__init__(reactor, live, dial, limits)
        self._screens = screens
        self._keys = keys

    def judge(self, call: WebCall, offered: tuple[str, ...]) -> str:
        number, service = self._asked(call)
        if SUBPROTOCOL not in offered:
            raise HandshakeRefused(400, f"subprotocol {SUBPROTOCOL} wanted")
        self._enter(call, offered, number, service)
        return SUBPROTOCOL

    def opened(self, call: WebCall, upgraded: Upgraded) -> None:
        came: Came = call.found
        service = call.path.rpartition("/")[2]
        if came.seat.role is Role.WATCH:
            watching = WatchLine(self._live, came, call.peer, self._screens, service)
            watching.open(self._reactor, upgraded, self.limits)
            return
        line = _SshLine(self._reactor, self._live, came, call.peer, service, self._keys)
        if came.seat.person == came.session.owner:
            line.watched(self._screens)
        line.open(upgraded, self.limits, self._dial)


class _SshLine:
    """One terminal: the page, the person's answers, the ssh client, the service."""

    socket: WebSocketMessages
    _dial: Dial

    def __init__(
        self, reactor: Any, live: LiveSessions, came: Came, peer: str, service: str, keys: HostKeys
    ) -> None:
        self.peer = peer
        self._reactor = reactor
        self._live = live
        self._came = came
        self._where = came.session.wish.serial, service
        self._keys = keys
        self._typed = TypedLines()
        self._answered: Deferred[str] | None = None  # a question is put
        self._size = SIZE
        self._ssh: Any = None
        self._open = False  # there is a shell
        self._accepted = b""  # the key that the person said yes to
        self._last: tuple[int, str] | None = None  # our close, behind what the page does not take yet
        self._client: ClientSocket | None = None
        self._dialled: float | None = None  # until the key is known
        self._held: deque[bytes] = deque()  # for the page, which takes nothing now
        self._full = False
        self._over = False
        self._moved = [0, 0]  # bytes to the device and to the client
        self._shown: Callable[[bytes], None] = lambda data: None
        self._shaped: Callable[[int, int], None] = lambda columns, rows: None
        self._unwatched: Callable[[], None] = lambda: None

    def watched(self, screens: Screens) -> None:
        """Have others see it."""
        terminal, self._shown, self._unwatched = screens.begin(self._came.session.id, self._where[1])
        self._shaped = terminal.shaped

    def open(self, upgraded: Upgraded, limits: WebSocketLimits, dial: Dial) -> None:
        """Begin to ask."""
        self._dial = dial
        self.socket = WebSocketMessages(self._reactor, WebSocketWire(upgraded.engine, limits), self)
        EndTransport(self._reactor, upgraded.end, self.socket).start()
        self._live.attach(self._came.session, self._came.seat, self)
        if self._over:
            return
        if find_spec("bcrypt") is None:
            self._cut(Ended.NOT_ALLOWED, EXTRA)
            return
        asked = Deferred.fromCoroutine(self._begin())
        asked.addErrback(lambda failure: failure.trap(GivenUp) and None)
        asked.addErrback(lambda bug: log.failure("a terminal failed", bug))

    async def _begin(self) -> None:
        """Who it is, then the service."""
        from revtunnel.systems.sessions.ssh_client import SshClient

        serial, service = self._where
        own = self._came.seat.person
        user = await self.ask(f"{serial}/{service}: user name [{own}]: ", True) or own
        near, far = socket.socketpair()
        end = PlainEnd(near, self.peer)
        self._dialled = self._live.now()
        self._ssh = SshClient(self, user, self._keys.of(serial, service), self._size)
        EndTransport(self._reactor, PlainEnd(far, self.peer), self._ssh).start()
        clients = self._dial(serial, service, self._left, self._came.session.id)
        self._client = clients.client(end)
        clients.let_in(self._client)

    def _left(self, client: ClientSocket) -> None:
        """The service is gone; what it said is on its way still."""
        self._client = None

    # -- as a Line

    def moved(self) -> tuple[int, int]:
        return self._moved[0], self._moved[1]

    def connections(self) -> int:
        return int(self._ssh is not None)

    def say(self, said: dict[str, Any]) -> None:
        """Nothing: there is only a screen."""

    def end(self, word: str, detail: str) -> None:
        self._gone()
        self.socket.close(close_code(HOW_ENDED.get(word, Ended.OPERATOR)), word)

    def look(self, now: float) -> None:
        if self._dialled is not None and now - self._dialled >= HANDSHAKE:
            self._ssh.end(f"the service has not proved its key in {HANDSHAKE:.0f} s")

    # -- as the owner of its WebSocket

    def received(self, message: bytes | str) -> None:
        if isinstance(message, str):
            self._resized(message)
            return
        self._moved[0] += len(message)
        if self._answered is not None:
            self._answer(self._typed.take, message)
        elif not self._open:
            self._typed.keep(message)
            if b"\x03" in message:
                self._cut(Ended.CLOSED, "given up")
        elif not self._ssh.type(message):
            self.socket.pause()

    def may_send(self) -> None:
        self._full = False
        while self._held and not self._full:
            self._full = not self.socket.send(self._held.popleft())
        if self._full:
            return
        if self._last is not None:
            self.socket.close(*self._last)
        elif self._ssh is not None and not self._over:
            self._ssh.resume()

    def closed(self, code: int, reason: str) -> None:
        self._leave()

    # -- as the owner of the ssh client

    def host_key(self, blob: bytes) -> "Deferred[None]":
        self._dialled = None
        return Deferred.fromCoroutine(self._judge_key(blob))

    async def _judge_key(self, blob: bytes) -> None:
        serial, service = self._where
        known, shown = self._keys.of(serial, service), f"{kind_of(blob)} {fingerprint_of(blob)}"
        if known == blob:
            return
        if known:
            self.show(
                f"\r\nThe host key of {serial}/{service} is another one: {shown}.\r\n"
                f"The one that is known: {kind_of(known)} {fingerprint_of(known)}.\r\n"
                "Somebody may sit in between, or the device was set up anew; an administrator knows, and\r\n"
                f"can forget the old one: revtunnelctl hostkey forget {serial}/{service}\r\n".encode()
            )
            self._ssh.end("the host key is another one")
            raise GivenUp
        self.show(f"The host key of {serial}/{service} is not known yet: {shown}\r\n".encode())
        while True:
            answer = (await self.ask("Keep it, and go on (yes/no)? ", True)).strip().lower()
            if answer in ("yes", "no"):
                break
        if answer == "no":
            self._ssh.end("the host key was not accepted")
            raise GivenUp
        self._accepted = blob

    def secured(self) -> None:
        serial, service = self._where
        if self._accepted and not self._keys.of(serial, service):
            try:
                self._keys.keep(serial, service, self._accepted, self._came.seat.person)
            except Conflict as error:
                self._ssh.end(str(error))

    def ask(self, prompt: str, echo: bool) -> "Deferred[str]":
        """What the person answers; never, once he is gone."""
        if self._over:
            return Deferred()
        self.show(prompt.encode())
        answered = self._answered = Deferred()
        self._answer(self._typed.ask, echo)
        return answered

    def show(self, data: bytes) -> None:
        self._moved[1] += len(data)
        self._shown(data)
        if self._over:
            return
        if self._full:
            self._held.append(data)
        elif data and not self.socket.send(data):
            self._full = True
            if self._ssh is not None:
                self._ssh.pause()

    def opened(self) -> None:
        self._open = True
        self._ssh.resize(*self._size)
        if ahead := self._typed.rest():
            self._ssh.type(ahead)

    def took(self) -> None:
        if not self._over:
            self.socket.resume()

    def ended(self, why: str, in_order: bool) -> None:
        if not self._over:
            self._cut(
                Ended.CLOSED if in_order else Ended.REFUSED if not self._open else Ended.RESET_BY_PEER, why
            )

    # -- inside

    def _answer(self, take: Callable[[Any], Typed], given: Any) -> None:
        try:
            typed = take(given)
        except GivenUp:
            self._answered = None
            self._cut(Ended.CLOSED, "given up")
            return
        self.show(typed.shown.encode())
        if typed.answer is not None:
            answered, self._answered = self._answered, None
            if answered is not None:
                answered.callback(typed.answer)

    def _resized(self, text: str) -> None:
        try:
            columns, rows = json.loads(text)["size"]
            if not (1 <= columns <= MOST_SIZE and 1 <= rows <= MOST_SIZE):
                raise ValueError
            self._size = int(columns), int(rows)
        except (ValueError, TypeError, KeyError, RecursionError):
            self._cut(Ended.PROTOCOL, '{"size": [columns, rows]} wanted')
            return
        self._shaped(*self._size)
        if self._open and not self._ssh.resize(*self._size):
            self.socket.pause()

    def _cut(self, ended: Ended, why: str) -> None:
        """It is over by itself: behind all that the page was shown."""
        self._leave()
        self._last = NORMAL if ended is Ended.CLOSED else close_code(ended), why[:120]
        if not self._held:
            self.socket.close(*self._last)

    def _leave(self) -> None:
        if not self._over:
            self._gone()
            self._live.left(self._came.session, self._came.seat)

    def _gone(self) -> None:
        if self._over:
            return
        self._over = True
        self._answered = None
        self._unwatched()
        if self._ssh is not None:
            self._ssh.leave()
        if self._client is not None:
            self._client.end(Ended.OPERATOR, "the terminal is closed")
