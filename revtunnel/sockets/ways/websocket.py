"""A WebSocket as an End: binary messages are one byte stream, whose borders mean nothing.

It stands wherever an End does: under a transport with a link on it, on either side of a relay. The rules: the
end in order is a close with a code that is ``clean``; any other close, and a connection that ends without
one, is a cut. There is no half-close in a WebSocket: our end of file is our close, after which the other side
sends no more than what is under way; who needs the other direction carries its end in band, as rt1 does.
What is written goes out in pieces of at most 64 KiB, each begun only when the one before it was taken, so
that no pong, ping or text is behind more than one. Held are at most one piece out and one message in.

Text messages are refused, or bytes as well (terminals in browsers), or commands beside the stream.

Traps stepped around: a pong that the kernel does not take has nobody who waits for the socket when the stream
is silent, and a descriptor can be watched by one only; so a second descriptor of the same socket is, until
the pong is out. What came in one reading with the handshake is told by no event: ``reads_when_writable`` has
it read at once.

Source: RFC 6455 sections 5.5 and 7; next/remote-sessions.md sections 2 and 6; ours.
"""

import contextlib
import errno
import fcntl
import os
import struct
import termios
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from twisted.internet.interfaces import IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.errors import LocalError
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ends import End
from revtunnel.sockets.ways.websocket_upgrade import Upgraded
from revtunnel.sockets.ways.websocket_wire import (
    CUT,
    NORMAL,
    UNSUPPORTED,
    Bytes,
    Closed,
    Failed,
    Happening,
    Pong,
    Text,
    WebSocketLimits,
    WebSocketWire,
    close_code,
    close_words,
)

__all__ = ["CLEAN", "LENIENT", "Texts", "WebSocketEnd", "unread"]

CLEAN = frozenset((NORMAL,))
LENIENT = frozenset((NORMAL, 1005))  # a browser's or a tool's close() without a code is one in order
ROUNDS = 16  # readings without a byte of the stream, after which others have their turn
_OUTQ_NOT_SENT = 0x894B  # SIOCOUTQNSD of linux/sockios.h
Texts = Callable[[str], None] | Literal["bytes"] | None


class WebSocketEnd(End):
    """The byte stream of an upgraded connection. ``closed`` is what the other side's close said, once it has.

    ``texts``: who is given text messages of at most ``limits.text`` bytes, as they come and not in order with
    the stream; ``bytes``: they belong to the stream; None: they are refused (1003).
    """

    __slots__ = (
        "_begun",
        "_cut",
        "_ended",
        "_flusher",
        "_held",
        "_out",
        "_reactor",
        "_texts",
        "_why",
        "clean",
        "dropped",
        "inner",
        "last",
        "limits",
        "ponged",
        "wire",
    )

    def __init__(
        self,
        reactor: Any,
        upgraded: Upgraded,
        limits: WebSocketLimits,
        texts: Texts = None,
        clean: frozenset[int] = CLEAN,
    ) -> None:
        super().__init__(upgraded.end.sock, upgraded.end.peer)
        self.inner = upgraded.end
        self.tls_version = upgraded.end.tls_version
        self.limits = limits
        most_text = limits.text if callable(texts) else limits.message
        self.wire = WebSocketWire(upgraded.engine, limits, streams=True, text=most_text)
        self.clean = clean
        self.last = NORMAL, ""  # code and reason of our end of file
        self.dropped = 0  # bytes of ours that came after the other side's close
        self.ponged: Callable[[bytes], None] | None = None  # is given the payload of each pong
        self._reactor = reactor
        self._texts = texts
        self._held: deque[memoryview] = deque()  # of the stream, not read yet
        self._out: bytes | memoryview = b""  # framed, not taken yet
        self._begun = 0  # bytes of the stream in it, which were not said to be taken
        self._ended = False
        self._cut: OSError | None = None
        self._why = CUT, "cut"
        self._flusher: _Flusher | None = None
        self._take(b"")  # what came with the handshake
        self.reads_when_writable = self.pending

    @property
    def closed(self) -> tuple[int, str] | None:
        """Code and reason of the other side's close, or of the fault for which it was ended; None: open."""
        return self.wire.closed

    # -- the stream

    @property
    def pending(self) -> bool:
        """As ``End`` says."""
        return bool(self._held) or self._ended or self._cut is not None or self.inner.pending

    def read_into(self, view: memoryview) -> int | None:
        """As ``End`` says; the view takes the frames first, then what was in them."""
        self.reads_when_writable = False
        self._push()
        for _ in range(ROUNDS):
            if self._held:
                return self._deliver(view)
            if self._cut is not None:
                raise self._cut
            if self._ended:
                return 0
            size = self.inner.read_into(view)
            if size is None:
                self.reads_when_writable = self.inner.reads_when_writable
                return None
            if size == 0:
                self._cut = ConnectionResetError(errno.ECONNRESET, "cut the connection: no WebSocket close")
            else:
                self._take(view[:size])
                self._push()
        self.reads_when_writable = True  # to come back when it is our turn again
        return None

    def write(self, data: bytes | memoryview) -> int:
        """As ``End`` says, in pieces. After the other side's close all is taken, and ``dropped``."""
        if self._cut is not None:
            raise self._cut
        if self.wire.closed is not None:
            self._begun = 0
            self.dropped += len(data)
            return len(data)
        if not self._flush():
            return 0
        taken, self._begun = self._begun, 0
        view = memoryview(data)
        while taken < len(view):
            piece = view[taken : taken + self.limits.piece]
            self._out = self.wire.binary(piece)
            if not self._flush():
                self._begun = len(piece)
                break
            taken += len(piece)
        return taken

    def end_writing(self) -> bool:
        """As ``End`` says: our close, 1000 unless ``last`` was set."""
        if self._begun:
            raise LocalError("an end of file before the last write was taken")
        if not self._flush():
            return False
        self._out = self._last_word()
        return self._flush()

    def close(self) -> None:
        """As ``End`` says."""
        self._stop_flusher()
        with contextlib.suppress(OSError):
            self.inner.end_writing()
        self.inner.close()

    def abort(self) -> None:
        """As ``End`` says; the other side sees a cut, and is told why if it takes what it is sent."""
        self._stop_flusher()
        told = False
        with contextlib.suppress(OSError):
            if self.inner.fileno() >= 0 and not (self._out or _unsent(self.inner)):
                self._out = self.wire.close(*self._why)
                told = self.wire.close_said and self._flush() and self.inner.end_writing()
        (self.inner.close if told else self.inner.abort)()

    def because(self, ended: Ended, detail: str = "") -> None:
        """What ``abort`` is to say."""
        code = CUT if ended is Ended.CLOSED else close_code(ended)
        self._why = code, f"{ended.word}: {detail}" if detail else ended.word

    # -- beside the stream

    def say(self, text: str) -> bool:
        """Send a text message, between two pieces; False: too many wait, and this one is not sent."""
        data = text.encode()
        if len(data) > self.limits.message:
            raise LocalError(f"text of {len(data)} bytes, limit {self.limits.message}")
        if not self.wire.may_say or self.wire.waiting + len(data) > 2 * self.limits.message:
            return False
        self.wire.queue(self.wire.text(data))
        self._push()
        return True

    def ping(self, payload: bytes) -> None:
        """Ask for a pong; whoever set ``ponged`` is given it."""
        frame = self.wire.ping(payload)
        if frame:
            self.wire.queue(frame)
            self._push()

    # -- inside

    def _last_word(self) -> bytes:
        """What our end of file is, once."""
        return self.wire.close(*self.last)

    def _deliver(self, view: memoryview) -> int:
        """Give what is held."""
        got = 0
        while self._held and got < len(view):
            piece = self._held.popleft()
            size = min(len(piece), len(view) - got)
            view[got : got + size] = piece[:size]
            got += size
            if size < len(piece):
                self._held.appendleft(piece[size:])
        return got

    def _take(self, data: bytes | memoryview) -> None:
        for happening in self.wire.receive(data):
            self._happened(happening)

    def _happened(self, happening: Happening) -> None:
        if isinstance(happening, Bytes):
            self._held.append(memoryview(happening.data))
        elif isinstance(happening, Text):
            self._text(happening.text)
        elif isinstance(happening, Pong):
            if self.ponged is not None:
                self.ponged(happening.payload)
        elif isinstance(happening, Failed):
            self._cut = ConnectionAbortedError(errno.EPROTO, f"WebSocket: {happening.detail}")
        else:
            self._close_came(happening)

    def _text(self, text: str) -> None:
        if self._texts is None:
            self._happened(self.wire.refuse(UNSUPPORTED, "a text message, where bytes are wanted"))
        elif self._texts == "bytes":
            if text:
                self._held.append(memoryview(text.encode()))
        else:
            self._texts(text)

    def _close_came(self, close: Closed) -> None:
        if close.code in self.clean:
            self._ended = True
        else:
            words = f"the other side closed the WebSocket: {close_words(*close)}"
            self._cut = ConnectionResetError(errno.ECONNRESET, words)

    def _flush(self) -> bool:
        """Write what is framed, then what is to be replied; whether all of it was taken."""
        while self._out or self.wire.waiting:
            if not self._out:
                self._out = b"".join(self.wire.replies())
            taken = self.inner.write(self._out)
            self.writes_when_readable = self.inner.writes_when_readable
            if taken < len(self._out):
                self._out = memoryview(self._out)[taken:]
                return False
            self._out = b""
        return True

    def _push(self) -> None:
        """Write replies now, or as soon as the socket takes them; a write of the stream waits by itself."""
        if not (self._out or self.wire.waiting):
            return
        try:
            if not self._flush() and not self._begun and self._flusher is None:
                self._flusher = _Flusher(self._reactor, self)
        except OSError:
            pass  # a cut, or no descriptor left: the next reading or writing says so, or goes on with it

    def _stop_flusher(self) -> None:
        flusher, self._flusher = self._flusher, None
        if flusher is not None:
            flusher.stop()

    def flush_more(self) -> None:
        """The flusher calls this: writable."""
        try:
            done = self._flush()
        except OSError:
            done = True
        if done:
            self._stop_flusher()


@implementer(IWriteDescriptor)
class _Flusher:
    """Waits until a socket takes what is to be replied, beside whoever reads and writes its stream."""

    __slots__ = ("_end", "_number", "_reactor")

    def __init__(self, reactor: Any, end: WebSocketEnd) -> None:
        self._reactor = reactor
        self._end = end
        self._number = os.dup(end.fileno())
        reactor.addWriter(self)

    def fileno(self) -> int:
        """Twisted calls this."""
        return self._number

    def logPrefix(self) -> str:
        """Twisted calls this."""
        return "-"

    def doWrite(self) -> None:
        """Twisted calls this: writable."""
        self._end.flush_more()

    def connectionLost(self, reason: Failure) -> None:
        """Twisted calls this: a hang-up."""
        self._end._stop_flusher()

    def stop(self) -> None:
        """Wait no more."""
        self._reactor.removeWriter(self)
        os.close(self._number)


def _unsent(end: End) -> int:
    """Bytes that the kernel could not send yet, because the other side does not take them."""
    with contextlib.suppress(OSError):  # UNIX sockets do not say it
        return int(struct.unpack("i", fcntl.ioctl(end.sock, _OUTQ_NOT_SENT, b"\0" * 4))[0])
    return 0


def unread(end: End) -> int:
    """Bytes that came and that we have not read."""
    with contextlib.suppress(OSError):
        return int(struct.unpack("i", fcntl.ioctl(end.sock, termios.FIONREAD, b"\0" * 4))[0])
    return 0
