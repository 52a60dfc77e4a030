"""A small real server for the person's program: ``/control`` and ``/session/client/``, with what it was told.

Handshakes, messages and frames are the real ones; what a test steers is what is answered. Services are
factories in memory.

::

    gate = Gate(loop, {"plc-7": {"ssh": (22, services)}})
    gate.url                       # http://127.0.0.1:PORT
    gate.cut()                     # the TCP connections of sessions, without a close
"""

import json
import secrets
import socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.reasons import Ended
from revtunnel.link.handshake import ServerHello
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import PlainEnd, tune
from revtunnel.sockets.stages import server_tls
from revtunnel.sockets.ways.websocket_messages import WebSocketMessages
from revtunnel.sockets.ways.websocket_upgrade import HandshakeRefused, Upgraded, accept_end
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits, WebSocketWire
from revtunnel.streams.window import CreditPool
from revtunnel.systems.sessions.session_link import SessionServer, serve_session
from tests.support.epoll import Loop
from tests.support.session_ends import Made

__all__ = ["TOKEN", "Gate"]

TOKEN = "token-of-ana"
LIMITS = WebSocketLimits()


class _Control:
    """One control connection."""

    socket: WebSocketMessages

    def __init__(self, gate: "Gate") -> None:
        self._gate = gate

    def received(self, message: bytes | str) -> None:
        """A question."""
        asked = json.loads(message)
        self._gate.asked.append(asked)
        answer = self._gate.answer(asked)
        if answer is not None:
            self.socket.send(json.dumps({"id": asked["id"], **answer}))

    def may_send(self) -> None:
        """Nothing waits."""

    def closed(self, code: int, reason: str) -> None:
        """It is over."""


class Gate:
    """The server; it owns its listening socket and all its connections until ``close``."""

    def __init__(self, loop: Loop, devices: dict[str, dict[str, tuple[int, Any]]], tls: Any = None) -> None:
        self.loop = loop
        self.devices = devices
        self.asked: list[dict[str, Any]] = []  # at /control
        self.requests: list[tuple[str, str]] = []  # path, bearer
        self.refusals: dict[str, dict[str, str]] = {}  # word of a question -> the error
        self.texts: list[dict[str, Any]] = []  # of clients in sessions
        self.over: list[str] = []  # why their connections ended
        self.sessions: dict[str, str] = {}  # nonce -> session
        self.device_of: dict[str, str] = {}
        self.links: list[SessionServer] = []
        self.controls: list[_Control] = []
        self.greets = True  # at /control
        self.refuse = 0  # HTTP status for sessions, while it is not 0
        self._tls = tls
        self._sock = socket.create_server(("127.0.0.1", 0))
        self._sock.setblocking(False)
        self._socks: list[socket.socket] = []
        self._serving: list[Deferred[None]] = []
        loop.reactor.addReader(self)
        self.port = self._sock.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://{'localhost' if tls else '127.0.0.1'}:{self.port}"

    # -- what a test does

    def nonce(self, session: str) -> str:
        """One that lets somebody into a session, once."""
        nonce = secrets.token_urlsafe(32)
        self.sessions[nonce] = session
        return nonce

    def start(self, device: str) -> str:
        """A session to all services of a device."""
        session = secrets.token_hex(16)
        self.device_of[session] = device
        return session

    def cut(self) -> None:
        """Lose the connections of sessions."""
        for link in self.links:
            if not link._lost:
                link.transport.abortConnection()

    def end(self, ended: Any, word: str) -> None:
        """End the sessions."""
        for link in self.links:
            if not link._lost:
                link.say({"say": "ended", "word": word, "detail": "a test"})
                link.finish(ended, word)

    def close(self) -> None:
        """No server any more."""
        self.loop.reactor.removeReader(self)
        self._sock.close()
        for serving in self._serving:
            serving.cancel()
        self.cut()
        for sock in self._socks:
            if sock.fileno() >= 0:
                sock.close()
        self.loop.settle()

    def answer(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """What /control says to a question."""
        word = asked["ask"]
        if word in self.refusals:
            return {"error": self.refusals[word]}
        if word == "services":
            rows = [
                {"device": device, "service": name, "port": port, "online": True, "labels": {}}
                for device, services in self.devices.items()
                for name, (port, _) in services.items()
            ]
            return {"ok": {"services": rows, "more": False}}
        if word == "start":
            session = self.start(asked["device"])
            return {"ok": {"session": session, "nonce": self.nonce(session)}}
        if word == "nonce":
            return {"ok": {"nonce": self.nonce(asked["session"])}}
        if word == "share":
            url = f"revtunnel://127.0.0.1:{self.port}/s/{asked['session']}#{self.nonce(asked['session'])}"
            return {"ok": {"nonce": "", "url": url}}
        if word == "sessions":
            rows = [{"session": key, "device": value} for key, value in self.device_of.items()]
            return {"ok": {"sessions": rows}}
        return {"ok": {}}

    # -- of a session (ServerEvents)

    def clients_of(self, link: Any, service: str) -> Any:
        """The services of its device."""
        found = self.devices[self.device_of[link.session]].get(service)
        return Made(found[1]) if found else None

    def texted(self, link: Any, said: dict[str, Any]) -> None:
        """A client's command."""
        self.texts.append(said)
        if said.get("say") == "end":
            link.say({"say": "ended", "word": "owner", "detail": ""})
            link.finish(Ended.OPERATOR, "owner")

    def channel_ended(self, *about: Any) -> None:
        """Nothing to do."""

    def gone(self, link: Any, reason: str, detail: str, cut: int) -> None:
        """A client's connection is over."""
        self.over.append(reason)

    # -- the reactor calls

    def fileno(self) -> int:
        """Twisted calls this."""
        return self._sock.fileno()

    def logPrefix(self) -> str:
        """Twisted calls this."""
        return "-"

    def connectionLost(self, reason: Any) -> None:
        """Twisted calls this."""

    def doRead(self) -> None:
        """Twisted calls this: somebody comes."""
        sock = self._sock.accept()[0]
        tune(sock)
        self._socks.append(sock)
        serving = Deferred.fromCoroutine(self._serve(PlainEnd(sock)))
        self._serving.append(serving)
        serving.addErrback(self._failed)

    def _failed(self, failure: Any) -> None:
        failure.trap(OSError, CancelledError)

    async def _serve(self, end: Any) -> None:
        if self._tls is not None:
            end = await server_tls(self.loop.reactor, self._tls)(end)
        upgraded = await accept_end(self.loop.reactor, end, self._judge, LIMITS)
        path = upgraded.request.path
        if path == "/control":
            self._control(upgraded)
        else:
            self._session(upgraded, path.rpartition("/")[2])

    def _judge(self, request: Any, offered: tuple[str, ...]) -> str:
        bearer = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.requests.append((request.path, bearer))
        if request.path == "/control":
            if bearer != TOKEN:
                raise HandshakeRefused(401, "no such token")
        elif self.refuse:
            raise HandshakeRefused(self.refuse, "a test says so")
        elif self.sessions.pop(bearer, None) != request.path.rpartition("/")[2]:
            raise HandshakeRefused(401, "the nonce is used")
        return offered[0]

    def _control(self, upgraded: Upgraded) -> None:
        control = _Control(self)
        self.controls.append(control)
        control.socket = WebSocketMessages(self.loop.reactor, WebSocketWire(upgraded.engine, LIMITS), control)
        EndTransport(self.loop.reactor, upgraded.end, control.socket).start()
        if self.greets:
            hello = {"say": "hello", "user": "ana", "server": "gate", "version": "0"}
            control.socket.send(json.dumps(hello))

    def _session(self, upgraded: Upgraded, session: str) -> None:
        device = self.device_of[session]
        link = SessionServer(
            self.loop.reactor, LinkLimits(), ServerHello("gate", "a test"), CreditPool(1 << 30), self
        )
        link.session = session  # type: ignore[attr-defined]
        self.links.append(link)
        serve_session(self.loop.reactor, upgraded, link, LIMITS)
        services = [{"name": name, "port": port} for name, (port, _) in self.devices[device].items()]
        link.say(
            {
                "say": "session",
                "session": session,
                "device": device,
                "services": services,
                "idle": 900,
                "maximum": 86400,
                "role": "owner",
            }
        )
        link.say({"say": "resume", "nonce": self.nonce(session)})
