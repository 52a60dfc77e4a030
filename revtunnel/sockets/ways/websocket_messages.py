"""A WebSocket as messages, text and binary, on a transport: for commands, AlwaysOn, tunnels of base64.

The rules: a message goes out in frames of at most ``piece`` bytes, each written when the transport is empty;
beyond ``limits.queue`` bytes that wait its owner is told to stop. One who has paused is given nothing: the
connection is not read. The other side is asked for a sign of life when it is silent; if it owes one, a close
or the end of the connection, it is cut when its time is up.

::

    socket = WebSocketMessages(reactor, WebSocketWire(upgraded.engine, limits), owner)
    EndTransport(reactor, upgraded.end, socket).start()

Source: RFC 6455 sections 5.4, 5.5 and 7.1; ours.
"""

from collections import deque
from typing import TYPE_CHECKING
from typing import Protocol as Typing

from twisted.internet.interfaces import IDelayedCall, IPullProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.errors import LocalError
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.end_transport import EndTransport, in_words
from revtunnel.sockets.tcp_info import silence
from revtunnel.sockets.ways.websocket_wire import (
    CUT,
    NORMAL,
    Bytes,
    Closed,
    Failed,
    Happening,
    Pong,
    Text,
    WebSocketWire,
    close_code,
)

__all__ = ["MessageOwner", "WebSocketMessages"]

READ = 16 * 1024  # bytes of a reading: what is held when its owner pauses in the middle of it
LOST = 1006  # the code that is never sent: there was no close
_MARK = 8  # bytes of a ping's payload


class MessageOwner(Typing):
    """Who is told what happens on one WebSocket."""

    def received(self, message: bytes | str) -> None:
        """A whole message."""

    def may_send(self) -> None:
        """There is room again, after ``send`` said no."""

    def closed(self, code: int, reason: str) -> None:
        """It is over, said once: with the other side's close, the fault it made (a code of ours), or 1006."""


@implementer(IPullProducer)
class WebSocketMessages(Protocol):
    """One WebSocket whose handshake is done."""

    if TYPE_CHECKING:
        transport: EndTransport  # type: ignore[assignment]

    def __init__(self, reactor: IReactorTime, wire: WebSocketWire, owner: MessageOwner) -> None:
        self.wire = wire
        self.limits = wire.limits
        self.round_trip: float | None = None  # seconds, of the last ping that was answered
        self._reactor = reactor
        self._owner = owner
        self._queue: deque[tuple[memoryview, bool]] = deque()  # what waits, and whether it is text
        self._queued = 0  # bytes
        self._sent = 0  # bytes of the first that are out
        self._refused = False  # somebody waits for ``may_send``
        self._full = False  # the transport has not taken the last frame
        self._paused = False
        self._held: deque[Happening] = deque()  # came in one reading, before the owner paused
        self._delivering = False
        self._told = False  # the owner knows that it is over
        self._lost = False
        self._parting = False
        self._closing: tuple[int, str] | None = None  # our close, behind what is queued
        self._heard = 0.0
        self._asked: tuple[bytes, float] | None = None  # the ping that is out, and since when
        self._pings = 0
        self._timer: IDelayedCall | None = None

    # -- what its owner calls

    def send(self, message: bytes | str) -> bool:
        """Send a message, behind those that wait; False: no more before ``may_send``.

        Raises:
            LocalError: larger than ``limits.message``, or sent after no was said.
        """
        data = message.encode() if isinstance(message, str) else message
        if len(data) > self.limits.message:
            raise LocalError(f"a message of {len(data)} bytes, limit {self.limits.message}")
        if self._told or self._closing is not None:
            return True  # to nobody, as with any transport
        if self._refused:
            raise LocalError(f"{self._queued} bytes wait and {len(data)} more are sent")
        self._queue.append((memoryview(data), isinstance(message, str)))
        self._queued += len(data)
        self._write()
        self._refused = self._queued >= self.limits.queue
        return not self._refused

    @property
    def waiting(self) -> int:
        """Bytes of messages that are not with the transport yet."""
        return self._queued - self._sent

    @property
    def over(self) -> bool:
        """Whether the connection itself has ended."""
        return self._lost

    def pause(self) -> None:
        """Give nothing more; the other side is not read."""
        if not self._paused:
            self._paused = True
            if not self._lost:
                self.transport.pauseProducing()

    def resume(self) -> None:
        """Go on giving, what came before the pause first."""
        if self._paused:
            self._paused = False
            self._heard = self._reactor.seconds()
            self._deliver()
            if not (self._paused or self._lost):
                self.transport.resumeProducing()

    def ping(self) -> None:
        """Measure ``round_trip``, unless that is being done."""
        if self._asked is None and self.wire.may_say and not self._told:
            self._pings += 1
            mark = self._pings.to_bytes(_MARK, "big")
            self._asked = mark, self._reactor.seconds()
            self.wire.queue(self.wire.ping(mark))
            self._write()

    def close(self, code: int = NORMAL, reason: str = "") -> None:
        """End it in order: behind all that waits, and with the other side's close, in ``limits.closing``."""
        if self._told or self._closing is not None:
            return
        self._closing = code, reason
        self._set_timer(self.limits.closing, self._cut_off)
        self._write()

    def end(self, ended: Ended, detail: str = "") -> None:
        """As ``close``, with the code and the word of an ending."""
        self.close(close_code(ended), f"{ended.word}: {detail}" if detail else ended.word)

    def abort(self, code: int = CUT, reason: str = "") -> None:
        """End it now; the other side is told why if its connection takes it. ``closed`` is not called."""
        self._told = True
        if self._full:
            self._cut_off()
        else:
            self._part(code, reason)

    # -- from the transport

    def connectionMade(self) -> None:
        self.transport.read_size = READ
        self._heard = self._reactor.seconds()
        self.transport.registerProducer(self, False)
        self._look_later()
        self._take(b"")  # what came with the handshake

    def dataReceived(self, data: bytes) -> None:
        self._heard = self._reactor.seconds()
        self._take(data)

    def resumeProducing(self) -> None:
        """Twisted calls this: the transport is empty."""
        if self._full:
            self._heard = self._reactor.seconds()
            self._full = False
        self._write()

    def stopProducing(self) -> None:
        """Twisted calls this: the transport is lost; ``connectionLost`` says it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        self._cancel_timer()
        self._forget()
        self._held.append(Closed(LOST, f"the other side {in_words(reason)}, without a close"))
        self._deliver()

    # -- inside: what comes

    def _take(self, data: bytes) -> None:
        """Answer at once, also when its owner has paused; he is told in his order."""
        came = [*self.wire.receive(data)]
        last = came[-1] if came else None
        self._held.extend(came)
        if isinstance(last, Closed):
            self._leave()
        elif isinstance(last, Failed):
            self._part(*last)
        else:
            self._write()
        self._deliver()

    def _deliver(self) -> None:
        """Give what came, as long as its owner wants it."""
        if self._delivering:
            return
        self._delivering = True
        try:
            while self._held and not self._paused:
                self._happened(self._held.popleft())
        finally:
            self._delivering = False

    def _happened(self, happening: Happening) -> None:
        if isinstance(happening, Bytes | Text):
            if not self._told:
                self._owner.received(
                    bytes(happening.data) if isinstance(happening, Bytes) else happening.text
                )
        elif isinstance(happening, Pong):
            if self._asked is not None and happening.payload == self._asked[0]:
                self.round_trip = self._reactor.seconds() - self._asked[1]
                self._asked = None
        else:
            self._tell(*happening)

    # -- inside: what goes

    def _write(self) -> None:
        """Write the next frame, if the transport has taken the last one; replies first."""
        while not (self._full or self._lost):
            frame = b"".join(self.wire.replies()) or self._next_frame()
            if not frame:
                break
            self._full = True
            self.transport.write(frame)  # asks for more before it returns, if it has taken it
        if self._refused and self._queued < self.limits.queue // 2 and not self._told:
            self._refused = False
            self._owner.may_send()

    def _next_frame(self) -> bytes:
        """A piece of the first message that waits, or our close behind the last; b"": there is none."""
        if not self.wire.may_say:
            return b""
        if not self._queue:
            return self.wire.close(*self._closing) if self._closing is not None else b""
        data, is_text = self._queue[0]
        piece = data[self._sent : self._sent + self.limits.piece]
        first, last = self._sent == 0, self._sent + len(piece) == len(data)
        self._sent += len(piece)
        if last:
            self._queue.popleft()
            self._queued -= len(data)
            self._sent = 0
        say = self.wire.text if is_text else self.wire.binary
        return say(piece, first, last)

    # -- inside: how it ends

    def _tell(self, code: int, reason: str) -> None:
        if not self._told:
            self._told = True
            self._forget()
            self._owner.closed(code, reason)

    def _forget(self) -> None:
        """Nobody takes what waits."""
        self._queue.clear()
        self._queued = self._sent = 0

    def _leave(self) -> None:
        """Both have closed: a server ends the connection, a client waits for that; within ``closing``."""
        self._forget()
        self._set_timer(self.limits.closing, self._cut_off)
        self.transport.unregisterProducer()
        self.transport.write(b"".join(self.wire.replies()))
        if self.wire.is_server:
            self.transport.loseConnection()

    def _part(self, code: int, reason: str) -> None:
        """Say why, wait for no answer, and give it ``parting`` to take that."""
        if self._lost or self._parting:
            return
        self._parting = True
        self._forget()
        self._set_timer(self.limits.parting, self._cut_off)
        self.transport.unregisterProducer()
        self.transport.write(b"".join([*self.wire.replies(), self.wire.close(code, reason)]))
        self.transport.loseConnection()

    def _cut_off(self) -> None:
        """A deadline has passed."""
        self._cancel_timer()
        if not self._lost:
            self._tell(LOST, "the connection did not end in time")
            self._forget()
            self.transport.unregisterProducer()
            self.transport.abortConnection()

    # -- inside: signs of life

    def _look_later(self) -> None:
        self._set_timer(self.limits.keepalive, self._look)

    def _look(self) -> None:
        """Ask who is silent, and cut who does not answer."""
        silent = self._reactor.seconds() - self._heard
        patience = self.limits.stall if self._full else self.limits.answer
        if silence(self.transport.getHandle()) >= self.limits.answer:
            patience = 0.0  # not even its kernel answers
        if self._paused or silent < self.limits.keepalive:
            self._set_timer(self.limits.keepalive - (0 if self._paused else silent), self._look)
        elif silent >= self.limits.keepalive + patience:
            self._timer = None
            self._tell(LOST, f"silent for {silent:.0f} s")
            self._cut_off()
        else:
            self.ping()
            self._set_timer(min(self.limits.answer, self.limits.keepalive + patience - silent), self._look)

    def _set_timer(self, delay: float, what: object) -> None:
        self._cancel_timer()
        if not self._lost:
            self._timer = self._reactor.callLater(delay, what)  # type: ignore[arg-type]

    def _cancel_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
