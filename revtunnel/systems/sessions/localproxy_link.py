"""One WebSocket of AWS's localproxy with the connections on it, whichever side it is.

It is the ``Link`` (streams/streams.py) of its channels: of clients of a device, or of the clients that a
localproxy brings. The rules: a channel that has ``HELD`` bytes for its local side to take stops the reading
of the WebSocket, for there is no window; a WebSocket that does not take what is said stops the reading of all
local sides. What the two sides mean by an end is for ``localproxy_source.py`` and ``localproxy_device.py``.

Source: next/remote-sessions.md section 5.
"""

from collections import deque
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ways.websocket_messages import WebSocketMessages
from revtunnel.sockets.ways.websocket_upgrade import Upgraded
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits, WebSocketWire, close_code, close_words
from revtunnel.systems.sessions.localproxy import Arrived, Begun, LocalproxyConnections

__all__ = ["HELD", "LIMITS", "LocalproxyChannel", "LocalproxyLink"]

HELD = 256 * 1024  # bytes that one channel may have for its local side to take
LIMITS = WebSocketLimits()


class LocalproxyChannel:
    """One connection, in the form that a local side knows."""

    __slots__ = (
        "blocked",
        "bytes_received",
        "bytes_sent",
        "cut",
        "ended",
        "flushed",
        "key",
        "number",
        "over",
        "owed",
        "owner",
        "patience",
        "service",
        "since",
    )

    def __init__(self, key: int, service: str, number: int, since: float) -> None:
        self.key = key
        self.service = service
        self.number = number
        self.since = since
        self.owner: Any = None
        self.blocked = False
        self.over = False
        self.cut = False  # the localproxy has ended it
        self.ended = False  # the local side has said its end of file
        self.flushed = False  # and has the other's
        self.owed = 0  # bytes that it has not taken
        self.bytes_sent = 0  # to the localproxy
        self.bytes_received = 0
        self.patience: IDelayedCall | None = None


class LocalproxyLink:
    """A WebSocket of one localproxy; a MessageOwner (websocket_messages.py)."""

    def __init__(self, reactor: Any, connections: LocalproxyConnections) -> None:
        self.clock: IReactorTime = reactor
        self.connections = connections
        self.channels: dict[int, LocalproxyChannel] = {}
        self.opened_channels = 0  # so far
        self._socket: WebSocketMessages | None = None
        self._reactor = reactor
        self._pending: deque[bytes] = deque()  # one reading of each channel, at most
        self._full = False  # the WebSocket takes no more
        self._paused = False
        self._closed = False
        self._sums = [0, 0]  # bytes of channels that are over: to the localproxy, and from it

    # -- what each side has to provide

    def begun(self, key: int, service: str) -> None:
        """The localproxy has a connection."""
        raise NotImplementedError

    def cut_off(self, channel: LocalproxyChannel) -> None:
        """The localproxy has ended one."""
        raise NotImplementedError

    def local_ended(self, channel: LocalproxyChannel) -> None:
        """The local side sends no more."""
        raise NotImplementedError

    def gone(self, reason: str, detail: str) -> None:
        """The WebSocket is over, and no channel is left; once."""
        raise NotImplementedError

    def noted(self, channel: LocalproxyChannel, reason: Ended, detail: str) -> None:
        """One is over."""

    # -- the WebSocket

    def carried_by(self, upgraded: Upgraded) -> None:
        """Speak on this connection; the first word is which services there are."""
        if self._closed:  # ended while it came
            upgraded.end.abort()
            return
        socket = WebSocketMessages(self._reactor, WebSocketWire(upgraded.engine, LIMITS), self)
        self._socket = socket
        EndTransport(self._reactor, upgraded.end, socket).start()
        self.say(self.connections.service_ids())

    def received(self, message: bytes | str) -> None:
        found, fault = [], ""
        try:
            if isinstance(message, str):
                raise RemoteError("a text message, where protobuf is wanted")
            for happening in self.connections.receive(message):
                found.append(happening)
        except RemoteError as error:
            fault = str(error)
        for happening in found:
            if isinstance(happening, Begun):
                self.begun(happening.key, happening.service)
                continue
            channel = self.channels.get(happening.key)
            if channel is not None and isinstance(happening, Arrived):
                self._deliver(channel, happening.data)
            elif channel is not None:
                channel.cut = True
                self.cut_off(channel)
        if fault:
            self.fail(Ended.PROTOCOL, "protocol", fault)
            return
        replies = bytes(self.connections.replies)
        self.connections.replies.clear()
        self.say(replies)

    def may_send(self) -> None:
        self._full = False
        while self._pending and not self._full and self._socket is not None:
            self._full = not self._socket.send(self._pending.popleft())
        if self._full:
            return
        for channel in [*self.channels.values()]:
            if channel.blocked and not self._full:
                channel.blocked = False
                channel.owner.may_read()

    def closed(self, code: int, reason: str) -> None:
        self._socket = None
        self._over(Ended.LINK_LOST, "lost", close_words(code, reason))

    def say(self, data: bytes) -> None:
        """Write, behind what waits."""
        if not data or self._socket is None or self._closed:
            return
        if self._full:
            self._pending.append(data)
        else:
            self._full = not self._socket.send(data)

    def fail(self, ended: Ended, reason: str, detail: str) -> None:
        """End it: every connection, and the WebSocket behind that."""
        if self._closed:
            return
        if not self._full:
            self.say(self.connections.session_reset())
        socket = self._socket
        self._over(ended, reason, detail)
        if socket is not None:
            socket.close(close_code(ended) if ended is not Ended.PROTOCOL else 1002, reason)
            socket.resume()

    @property
    def sums(self) -> tuple[int, int]:
        """Bytes to the localproxy and from it, so far."""
        sent, received = self._sums
        for channel in self.channels.values():
            sent, received = sent + channel.bytes_sent, received + channel.bytes_received
        return sent, received

    # -- channels

    def add(self, key: int, service: str, number: int) -> LocalproxyChannel:
        """One more connection."""
        channel = LocalproxyChannel(key, service, number, self.clock.seconds())
        self.channels[key] = channel
        self.opened_channels += 1
        return channel

    def finish(self, channel: LocalproxyChannel, reason: Ended, detail: str = "") -> None:
        """It is over: the localproxy is told if it does not know, the local side in any case."""
        if channel.over:
            return
        channel.over = True
        del self.channels[channel.key]
        self._sums[0] += channel.bytes_sent
        self._sums[1] += channel.bytes_received
        if channel.patience is not None and channel.patience.active():
            channel.patience.cancel()
        self.say(self.connections.reset(channel.key))
        self.noted(channel, reason, detail)
        channel.owner.over(reason)
        self._release()

    # -- from local sides (streams.Link)

    def send(self, channel: Any, data: bytes) -> bool:
        if channel.over or channel.cut:
            return True  # to nobody
        channel.bytes_sent += len(data)
        self.say(self.connections.data(channel.key, data))
        channel.blocked = self._full
        return not self._full

    def end(self, channel: Any) -> None:
        if not (channel.over or channel.ended):
            channel.ended = True
            self.local_ended(channel)

    def consumed(self, channel: Any, size: int) -> None:
        channel.owed -= size
        self._release()

    def flushed(self, channel: Any) -> None:
        channel.flushed = True

    def reset(self, channel: Any, reason: Ended, detail: str) -> None:
        self.finish(channel, reason, detail)

    # -- inside

    def _deliver(self, channel: LocalproxyChannel, data: bytes) -> None:
        channel.bytes_received += len(data)
        channel.owed += len(data)
        channel.owner.deliver(data)
        if channel.owed >= HELD and not (channel.over or self._paused) and self._socket is not None:
            self._paused = True
            self._socket.pause()

    def _release(self) -> None:
        """Read on, if no channel has too much any more."""
        if not self._paused or self._socket is None or self._closed:
            return
        if all(channel.owed < HELD for channel in self.channels.values()):
            self._paused = False
            self._socket.resume()

    def _over(self, ended: Ended, reason: str, detail: str) -> None:
        if self._closed:
            return
        for channel in [*self.channels.values()]:
            self.finish(channel, ended, detail)
        self._closed = True
        self._pending.clear()
        self.gone(reason, detail)
