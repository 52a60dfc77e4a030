"""Both ends of a remote session's WebSocket: rt1 frames in binary messages, commands in text messages.

The rules: the server says HELLO, and nothing is proved here, for the upgrade has proved it; the client
opens channels, whose CONNECT names a service and port 0; everything else is rt1 as it is (credit, end of
file, connect result, reset reasons, heartbeat). A text is a JSON object of at most 16 KiB, and is told in a
turn of its own, before the end of the connection is. The two kinds of messages have no order between them.

=========  ===============================================================  ==================================
``say``    with                                                             who says it
=========  ===============================================================  ==================================
session    session, device, services [{name, port}], idle, maximum, role    the server, first; in seconds
resume     nonce                                                            the server, behind it; good once
warning    seconds, why: idle or maximum                                    the server
ended      word, detail                                                     the server, last
listening  service, address, port                                           the client, for each local port
end                                                                         the client: end the session
=========  ===============================================================  ==================================

An end in order is a close 1000, and only when no channel runs. Otherwise the channels are reset, and the
close says 4000 + ``Ended`` with a word.

Source: next/remote-sessions.md section 2; docs/link-protocol.rst; ours.
"""

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from typing import Protocol as Typing

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.origin import Origin
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Target, is_label
from revtunnel.link.handshake import ServerHello
from revtunnel.link.hellos import decode_server_hello, encode_server_hello
from revtunnel.link.link import LinkProtocol
from revtunnel.link.mux import Dial, Happening, Opened, Over
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ways.websocket import WebSocketEnd
from revtunnel.sockets.ways.websocket_upgrade import Upgraded
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits, close_code
from revtunnel.streams.channel import Channel
from revtunnel.streams.channel_transport import ChannelTransport
from revtunnel.streams.commands import VERSION, Command, named
from revtunnel.streams.frames import Frame
from revtunnel.streams.streams import ChannelSocket
from revtunnel.streams.window import CreditPool

__all__ = [
    "SUBPROTOCOL",
    "ClientEvents",
    "ServerEvents",
    "SessionClient",
    "SessionLink",
    "SessionServer",
    "read_text",
    "serve_session",
    "write_text",
]

SUBPROTOCOL = "revtunnel.session.1"
TEXT = 16_384  # bytes of a command
TEXTS = 64  # commands of one turn
Said = dict[str, Any]


def write_text(said: Said) -> str:
    """A command as it is sent. LocalError: over its limit."""
    text = json.dumps(said, separators=(",", ":"))
    if len(text) > TEXT:
        raise LocalError(f"a command of {len(text)} bytes, limit {TEXT}")
    return text


def read_text(text: str) -> Said:
    """A command that came. RemoteError: no JSON object, or over its limit."""
    if len(text) > TEXT:
        raise RemoteError(f"a command of {len(text)} characters, limit {TEXT}")
    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RemoteError(f"a command that is no JSON: {str(error)[:80]}") from None
    if not isinstance(said, dict):
        raise RemoteError("a command that is no JSON object")
    return said


class SessionMux(Rt1Mux):
    """rt1, but a CONNECT names a service."""

    def target_of(self, payload: bytes) -> Target:
        """The name of a service as host, and port 0."""
        name = payload[2:-2]
        if len(payload) < 4 or int.from_bytes(payload[:2], "big") != len(name):
            raise RemoteError(f"CONNECT of {len(payload)} bytes does not hold what it says")
        text = name.decode("latin-1")
        if payload[-2:] != b"\0\0" or not is_label(text):
            raise RemoteError(f"CONNECT: {text[:40]!a} is no name of a service, or it has a port")
        return Target(text, 0)


@dataclass
class Moved:
    """Payload bytes of one end of a session, all channels."""

    to_device: int = 0
    to_client: int = 0


class SessionEvents(Typing):
    """Who owns an end. ``link``: that end."""

    def texted(self, link: Any, said: Said) -> None:
        """The other end's command."""

    def channel_ended(self, link: Any, channel: Channel, reason: Ended, detail: str) -> None:
        """A channel is over. Its bytes: ``bytes_sent`` to the other end, ``bytes_received`` from it."""

    def gone(self, link: Any, reason: str, detail: str, cut: int) -> None:
        """It is over, and so are so many channels with it; ``link.in_order``: the other end ended it."""


class SessionLink(LinkProtocol):
    """What both ends share. Its channels' payload bytes are counted in ``moved``, also after their end."""

    _events: SessionEvents

    def __init__(self, clock: IReactorTime, limits: LinkLimits) -> None:
        super().__init__(clock, limits)
        self.web: WebSocketEnd | None = None  # once it is connected
        self.in_order = False  # the other side ended it with a close 1000
        self._ended_bytes = Moved()
        self._texts: deque[str] = deque()
        self._telling = False

    @property
    def moved(self) -> Moved:
        """Payload bytes so far."""
        moved = Moved(self._ended_bytes.to_device, self._ended_bytes.to_client)
        for channel in self.mux.channels.values() if self.mux is not None else ():
            if not channel.over:
                self._add(moved, channel)
        return moved

    def _add(self, moved: Moved, channel: Channel) -> None:
        sent, received = channel.bytes_sent, channel.bytes_received
        opens = self.mux is not None and self.mux.opens
        moved.to_device += sent if opens else received
        moved.to_client += received if opens else sent

    # -- commands

    def say(self, said: Said) -> bool:
        """Send a command; False: it is gone, or takes nothing, and this one is not sent."""
        return self.web is not None and not self._lost and self.web.say(write_text(said))

    def text_came(self, text: str) -> None:
        """The WebSocket calls this, while it reads."""
        self._texts.append(text)
        if not self._telling:
            self._telling = True
            self.clock.callLater(0, self._tell)

    # -- the connection

    def carried_by(self, end: WebSocketEnd, reactor: Any) -> None:
        """Take the connection; the WebSocket must give its texts to ``text_came``."""
        self.web = end
        EndTransport(reactor, end, self).start()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._tell()
        self.in_order = self.ended is None and reason.check(ConnectionDone) is not None
        if self.in_order:
            self.ended = ("closed", "")
        super().connectionLost(reason)

    def finish(self, ended: Ended, word: str) -> None:
        """End it from our side, within 2 s: channels that run are reset for this reason, which is not CLOSED.

        The close is 1000 if none ran, else 4000 + ``ended``; ``word`` is in ``gone``, and in the close.
        """
        if self.ended is not None:
            return
        running = (
            [each for each in self.mux.channels.values() if not each.over] if self.mux is not None else []
        )
        if self.web is not None and running:
            self.web.last = close_code(ended), word
        for channel in running:
            self.reset(channel, ended, word)
        self.ended = self.ended or (word, "")
        self.leave()

    @property
    def round_trip(self) -> float | None:
        """Seconds, as measured last; None: not yet."""
        return self.mux.liveness.round_trip if self.mux is not None else None

    def _tell(self) -> None:
        self._telling = False
        if len(self._texts) > TEXTS:
            self._texts.clear()
            self.fail("protocol", f"more than {TEXTS} commands at once")
        while self._texts:
            try:
                said = read_text(self._texts.popleft())
            except RemoteError as error:
                self._texts.clear()
                self.fail("protocol", str(error))
                return
            self._events.texted(self, said)

    def gone(self, reason: str, detail: str, cut: list[Channel]) -> None:
        for channel in cut:
            self._note(channel, Ended.LINK_LOST, detail)
        self._events.gone(self, reason, detail, len(cut))

    def _note(self, channel: Channel, reason: Ended, detail: str) -> None:
        self._add(self._ended_bytes, channel)
        self._events.channel_ended(self, channel, reason, detail)

    def fail(self, reason: str, detail: str, say: GoAway | None = GoAway.PROTOCOL) -> None:
        if self.web is not None and self.ended is None:
            ended = Ended.LINK_LOST if reason == "silent" else Ended.PROTOCOL
            self.web.because(ended, detail)
            self.web.last = close_code(ended), detail
        super().fail(reason, detail, say)


# -- the server's end


class Far(Typing):
    """Where channels go on."""

    def came_by(self, begin: Callable[[Any], None], peer: str, origin: Origin | None) -> None:
        """One came; ``begin`` gives a protocol the channel as its transport."""


class ServerEvents(SessionEvents, Typing):
    """Who owns a session at the server."""

    def clients_of(self, link: "SessionServer", service: str) -> "Far | None":
        """Who takes channels to a service, ``Clients``; None: not a service of this session."""


class SessionServer(SessionLink):
    """The server's end: a channel goes on at what ``events.clients_of`` says, no socket between them."""

    _events: ServerEvents

    def __init__(
        self,
        clock: IReactorTime,
        limits: LinkLimits,
        hello: ServerHello,
        pool: CreditPool,
        events: ServerEvents,
    ) -> None:
        super().__init__(clock, limits)
        self.hello = hello
        self.channels_opened = 0
        self._pool = pool
        self._events = events
        self.origin: Origin | None = None  # of the person's program

    def connectionMade(self) -> None:
        super().connectionMade()
        self.write(encode_server_hello(self.hello))
        self.up(SessionMux(self.limits, False, self.clock.seconds(), self._pool))

    def happened(self, happening: Happening) -> None:
        if isinstance(happening, Dial):
            self._dial(happening.channel)
        elif isinstance(happening, Over):
            self._note(happening.channel, happening.reason, happening.detail)
            if happening.channel.owner is not None:
                happening.channel.owner.over(happening.reason)

    def _dial(self, channel: Channel) -> None:
        far = self._events.clients_of(self, channel.target.host)
        if far is None:
            self.reset(channel, Ended.NOT_ALLOWED, f"{channel.target.host} is not a service of this session")
            return
        self.channels_opened += 1

        def opened() -> None:
            self._guarded(lambda mux: mux.opened(channel))

        def begin(protocol: Any) -> None:
            ChannelTransport(self, channel, protocol, opened).start()

        far.came_by(begin, self.peer, self.origin)


def serve_session(
    reactor: Any, upgraded: Upgraded, link: SessionServer, limits: WebSocketLimits
) -> SessionServer:
    """Put a session's end on a connection that was upgraded."""
    link.peer, link.origin = upgraded.end.peer, upgraded.end.origin
    link.carried_by(WebSocketEnd(reactor, upgraded, limits, link.text_came), reactor)
    return link


# -- the client's end


class ClientEvents(SessionEvents, Typing):
    """Who has a session at the person's side."""

    def up(self, link: "SessionClient") -> None:
        """The server has said HELLO: channels can be opened."""


class SessionClient(SessionLink):
    """The person's end; a ``ChannelSocket`` is given a channel with ``open``."""

    _events: ClientEvents

    def __init__(
        self, clock: IReactorTime, limits: LinkLimits, pool: CreditPool, events: ClientEvents
    ) -> None:
        super().__init__(clock, limits)
        self.server: ServerHello | None = None
        self._pool = pool
        self._events = events

    @property
    def free(self) -> int:
        """Channels that can be opened now."""
        return self.mux.free_numbers if self.mux is not None and self.ended is None else 0

    def open(self, socket: ChannelSocket, service: str) -> Channel | None:
        """Ask for a connection to a service; the socket is read once that has answered. None: none free."""
        mux = self.mux
        channel = mux.connect(Target(service, 0), self.clock.seconds()) if self.free and mux else None
        if channel is not None:
            socket.attach(self, channel)
            self.flush()
        return channel

    def judge_stranger(self, size: int, command: int, channel: int) -> None:
        if command != Command.HELLO or channel != VERSION:
            raise RemoteError(f"the server said {named(command)} before HELLO")

    def shake(self, frame: Frame) -> None:
        self.server = hello = decode_server_hello(frame.payload)
        largest = min(self.limits.lone_frame, hello.largest_data)
        self.limits = replace(
            self.limits,
            lone_frame=largest,
            frame=min(self.limits.frame, largest),
            keepalive=hello.keepalive,
        )
        self.up(SessionMux(self.limits, True, self.clock.seconds(), self._pool, hello.first_window))
        self._events.up(self)

    def handshake_is_late(self) -> None:
        self.fail("silent", f"the server said no HELLO in {self.limits.handshake:g} s", None)

    def happened(self, happening: Happening) -> None:
        owner = getattr(getattr(happening, "channel", None), "owner", None)
        if isinstance(happening, Opened):
            if owner is not None:
                owner.may_read()
        elif isinstance(happening, Over):
            self._note(happening.channel, happening.reason, happening.detail)
            if owner is not None:
                owner.over(happening.reason)
