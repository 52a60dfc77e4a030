"""One tunnel of a ThingWorx device: one client, one StartTunnel, one WebSocket of base64 text.

It is the ``Link`` of its client (streams/streams.py) and the channel on it at once.

========  =====================================  =============================================================
stage     what is so                             it ends, or goes on, when
========  =====================================  =============================================================
STARTING  the device was told; no WebSocket yet  it comes: OPEN; an error, CANCEL, DISCONNECT, too late: the
                                                 client is refused
OPEN      bytes flow both ways                   DISCONNECT: ENDING, or refused where no byte ever came or
                                                 went; anything else that ends it is a reset
ENDING    the service has ended; bytes may be    ``quiet`` seconds without one: PARTING
          under way behind that word
PARTING   the device was told that it is over    its WebSocket has ended, or 2 s: the client's end of file
OVER      the client is gone or told             -
========  =====================================  =============================================================

The rules: the end of a service comes on another connection than its bytes, so nothing is ended before these
have come; a drop without that word is a reset. There is no half-close: a client's end of file is held back.
When the service has then said nothing for ``hold`` seconds, or for 2 s while others wait, both ends are cut.
A client is not read while the device does not take what it said, a WebSocket not while its client has
``held`` bytes to take. Nothing is said at once: the SDK drops what comes in one reading with our answer to
its request, so the first byte waits until the answer is acknowledged, and ``settle`` seconds more.

Source: next/remote-sessions.md section 4; PTC's public Edge C SDK 2.2.1, twTunnelManager.c.
"""

from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Any
from typing import Protocol as Typing

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, Report
from revtunnel.ground.limits import EdgeLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.tcp_info import unacknowledged
from revtunnel.sockets.ways.websocket_messages import WebSocketMessages
from revtunnel.sockets.ways.websocket_upgrade import Upgraded
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits, WebSocketWire, close_words
from revtunnel.streams.clients import ClientSocket
from revtunnel.streams.running import Running
from revtunnel.systems.thingworx.alwayson_messages import decode_tunnel, encode_tunnel

__all__ = ["EdgeTunnel", "Stage", "TunnelOwner", "tunnel_limits"]

PARTING = 2.0  # seconds that the device gets to end a tunnel that it was told to end
MESSAGE = 16_384  # bytes of one message: its base64 with some room
QUEUE = 65_536  # bytes of messages that wait for a device which does not take them
SILENT = 7 * 86_400.0  # seconds: the SDK answers no ping on a tunnel, so none is sent; TCP notices
ENVELOPE = 16  # what the SDK keeps free of a chunk


class Stage(Enum):
    """The life of a tunnel, see the head of this file."""

    STARTING = auto()
    OPEN = auto()
    ENDING = auto()
    PARTING = auto()
    OVER = auto()


class TunnelOwner(Typing):
    """What a tunnel asks of its device's others (edge_tunnels.py)."""

    serial: str
    clock: IReactorTime
    limits: EdgeLimits
    report: Report

    def end_of(self, tunnel: "EdgeTunnel", why: str) -> None:
        """Tell the device that it is over."""

    def gone(self, tunnel: "EdgeTunnel") -> None:
        """Nothing is left of it."""


def tunnel_limits(frame: int) -> WebSocketLimits:
    """Those of a tunnel whose device takes frames of ``frame`` bytes."""
    return WebSocketLimits(message=MESSAGE, piece=min(frame, MESSAGE), queue=QUEUE, keepalive=SILENT)


class EdgeTunnel:
    """One tunnel; ``number`` is its stream's among those of the device."""

    def __init__(self, owner: TunnelOwner, client: ClientSocket, tid: str, number: int) -> None:
        self.tid = tid
        self.number = number
        self.clock = owner.clock
        self.stage = Stage.STARTING
        self.serial = owner.serial
        # what a channel has
        self.owner: Any = None
        self.blocked = False  # the device does not take what is said
        self.bytes_sent = 0  # to the device
        self.bytes_received = 0
        self._owner = owner
        self._client = client
        self._socket: WebSocketMessages | None = None
        self._chunk = 0
        self._pending: deque[str] = deque()  # messages of one reading of the client, at most
        self._owed = 0  # bytes that the client has not taken
        self._held = False
        self._settled = False  # the device has read the answer to its request
        self._ended_at: float | None = None  # the client's end of file, or the last byte for it since
        self._timer: IDelayedCall | None = None
        client.on_lost = self._client_left
        self._set_timer(
            owner.limits.wait, partial(self.finish, Ended.TIMED_OUT, "the device brought no tunnel")
        )

    @property
    def open(self) -> bool:
        """Whether it has its client still."""
        return self.stage is not Stage.OVER

    def row(self) -> Running:
        """It, as listings show it."""
        client = self._client
        who = self.serial, self.number, client.name, client.peer
        sums = self.bytes_sent, self.bytes_received
        waiting = self._socket.waiting if self._socket is not None else 0
        return Running(*who, "tunnel", self.stage.name.lower(), client.since, *sums, waiting, self._owed)

    def look(self) -> None:
        """Notice a client that left and is not read at present."""
        if self.open:
            self._client.look()

    @property
    def lingers(self) -> float:
        """Seconds since its client's end of file, or the last byte after it; 0.0: it has not ended."""
        held = self.stage is Stage.OPEN and self._ended_at is not None and not self._unsent
        return self.clock.seconds() - self._ended_at if held and self._ended_at is not None else 0.0

    @property
    def _unsent(self) -> bool:
        return bool(self._pending) or (self._socket is not None and self._socket.waiting > 0)

    # -- from the device

    def came(self, reactor: Any, upgraded: Upgraded, frame: int) -> None:
        """Its WebSocket, which takes frames of ``frame`` bytes."""
        if self.stage is not Stage.STARTING:
            upgraded.end.abort()
            self._owner.gone(self)
            return
        limits = tunnel_limits(frame)
        self._chunk = limits.piece // 4 * 3 + ENVELOPE
        socket = WebSocketMessages(reactor, WebSocketWire(upgraded.engine, limits), self)
        self._socket, self.stage = socket, Stage.OPEN
        self._stop_timer()
        client = self._client
        client.on_lost = None
        milliseconds = round((self.clock.seconds() - client.since) * 1000, 3)
        self._owner.report(ChannelOpened(self.serial, self.number, client.name, client.peer, milliseconds))
        client.attach(self, self)  # type: ignore[arg-type]
        self._set_timer(self._owner.limits.settle, self._settle)
        EndTransport(reactor, upgraded.end, socket).start()

    def received(self, message: bytes | str) -> None:
        if not self.open:
            return
        try:
            if isinstance(message, bytes):
                raise RemoteError("a binary message, where base64 is wanted")
            data = decode_tunnel(message)
        except RemoteError as error:
            self.finish(Ended.PROTOCOL, str(error))
            return
        if not data:
            return
        if not self._settled:
            self._go_on()  # who speaks has read our answer
        elif self._timer is not None and self.stage is not Stage.PARTING:
            self._set_timer(*self._waits())
        if self._ended_at is not None:
            self._ended_at = self.clock.seconds()
        self.bytes_received += len(data)
        self._owed += len(data)
        self._client.deliver(data)
        self._hold_or_release()

    def may_send(self) -> None:
        self.blocked = False
        self._push()
        if not self.blocked and self.open:
            self._client.may_read()

    def closed(self, code: int, reason: str) -> None:
        """The WebSocket has ended: in order only where the device had been told to end it."""
        self._socket = None
        if self.stage is Stage.PARTING:
            self.finish(Ended.CLOSED, "")
        else:
            self.finish(Ended.LINK_LOST, f"its tunnel was dropped: {close_words(code, reason)}")
        self._owner.gone(self)

    def service_ended(self) -> None:
        """DISCONNECT; it may be said many times."""
        if self.stage is Stage.STARTING:
            self.finish(Ended.REFUSED, "the device says that it is over")
        elif self.stage is Stage.OPEN and not (self.bytes_sent or self.bytes_received):
            self.finish(Ended.REFUSED, "the service refused, or ended without a byte")
        elif self.stage is Stage.OPEN:
            self.stage = Stage.ENDING
            self._pending.clear()
            self._set_timer(*self._waits())

    def cancelled(self, why: str = "the device has cancelled it") -> None:
        """CANCEL, which it also says of every tunnel that it was told to end; or an error for StartTunnel."""
        if self.stage is not Stage.PARTING:
            self.finish(Ended.RESET_BY_PEER, why)

    # -- from the client (streams.Link)

    def send(self, channel: Any, data: bytes) -> bool:
        if self.stage is not Stage.OPEN:
            return True  # the service has ended: to nobody, as with TCP
        self.bytes_sent += len(data)
        self._pending.extend(encode_tunnel(data, min(self._chunk, 8192)))
        self._push()
        return not self.blocked

    def end(self, channel: Any) -> None:
        self._ended_at = self.clock.seconds()
        if self.stage is Stage.OPEN:
            self._set_timer(*self._waits())

    def consumed(self, channel: Any, size: int) -> None:
        self._owed -= size
        self._hold_or_release()

    def flushed(self, channel: Any) -> None:
        """Nothing: the client's stream is over before it is flushed."""

    def reset(self, channel: Any, reason: Ended, detail: str) -> None:
        self.finish(reason, detail)

    # -- ends

    def finish(self, reason: Ended, detail: str) -> None:
        """End it: with a reset, but for CLOSED; where its client waits, it is refused."""
        before = self.stage
        if before is Stage.OVER:
            return
        self._over(reason, detail, "no-data-socket")
        if before is not Stage.PARTING:
            self._owner.end_of(self, reason.word)
        self._close()

    def _over(self, reason: Ended, detail: str, word: str) -> None:
        before, self.stage = self.stage, Stage.OVER
        client = self._client
        self._stop_timer()
        self._pending.clear()
        if before is Stage.STARTING:
            client.on_lost = None
            client.refuse(word)
            return
        seconds = round(self.clock.seconds() - client.since, 3)
        who = self.serial, self.number, client.name, client.peer
        sums = self.bytes_sent, self.bytes_received
        self._owner.report(ChannelEnded(*who, reason, detail, seconds, *sums))
        if reason is Ended.CLOSED:
            client.end_of_file()
        client.over(reason)

    def _close(self) -> None:
        if self._socket is None:
            self._owner.gone(self)
            return
        if self._held:
            self._held = False
            self._socket.resume()  # or its end would not be noticed
        self._socket.close()

    def _client_left(self) -> None:
        """It left while the tunnel was being brought."""
        self._client.on_lost = None
        self.stage = Stage.OVER
        self._stop_timer()
        self._owner.end_of(self, "client-gone")
        self._owner.gone(self)

    # -- time

    def _waits(self) -> tuple[float, Callable[[], None]]:
        """For how long silence means nothing, and what it means then."""
        limits = self._owner.limits
        if self.stage is Stage.ENDING:
            return limits.quiet, self._quiet
        return limits.hold, self._unanswered

    def _settle(self) -> None:
        """Its kernel has our answer, and it had the time to read that."""
        socket = self._socket
        if socket is not None and unacknowledged(socket.transport.getHandle()):
            self._set_timer(self._owner.limits.settle, self._settle)
        else:
            self._go_on()

    def _go_on(self) -> None:
        self._settled = True
        self._stop_timer()
        self._client.may_read()

    def _quiet(self) -> None:
        if self._held:  # what is under way was not even read
            self._set_timer(*self._waits())
            return
        self.stage = Stage.PARTING
        self._set_timer(PARTING, partial(self.finish, Ended.CLOSED, ""))
        self._owner.end_of(self, "service-ended")

    def _unanswered(self) -> None:
        if self._unsent:
            self._set_timer(*self._waits())
            return
        hold = self._owner.limits.hold
        self.finish(Ended.IDLE, f"nothing came for {hold:g} s behind an end of file, which no tunnel carries")

    def _set_timer(self, delay: float, what: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self.clock.callLater(delay, what)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    # -- room

    def _push(self) -> None:
        """Say what the client said, as far as there is room."""
        while self._pending and not self.blocked and self._socket is not None:
            self.blocked = not self._socket.send(self._pending.popleft())

    def _hold_or_release(self) -> None:
        hold = self._owed >= self._owner.limits.held
        if self._socket is not None and hold != self._held and self.open:
            self._held = hold
            if hold:
                self._socket.pause()
            else:
                self._socket.resume()
