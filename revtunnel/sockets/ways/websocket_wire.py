"""WebSocket without I/O: bytes in, happenings out, frames to write. The grammar is the library's.

The rules: no extension is ever agreed to, so nothing is compressed. A message beyond its limit is refused by
its first header that passes it (1009). Text is judged as it comes, over the borders of frames, not at its end
(1007). A ping is answered at once; when answers pile up because nobody takes them, only the last is kept, as
the RFC allows. After a close, theirs or ours, nothing more is delivered or said.

Close codes that we say beside those of the RFC: 1000 for what ended in order, else 4000 + the number of
``Ended``, with its word as the reason.

====  ====================================================
code  what it means when we say it
====  ====================================================
1000  all ended in order, everything was delivered
1002  the other side broke the rules of RFC 6455
1003  a kind of message that is not taken here
1007  text that is no UTF-8
1009  a message beyond the limit
1011  it was cut, for a reason that has no number
4001  4000 + ``Ended``: refused, and so on to 4012 protocol
====  ====================================================

Source: RFC 6455 sections 5 to 8; next/remote-sessions.md section 2; twisted.md 2.8 for the choice.
"""

import codecs
import contextlib
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import CLOSE_CODE_EXPLANATIONS, Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side
from websockets.server import ServerProtocol

from revtunnel.ground.errors import LocalError
from revtunnel.ground.reasons import Ended

__all__ = [
    "Bytes",
    "ClientEngine",
    "Closed",
    "Failed",
    "Happening",
    "Pong",
    "ServerEngine",
    "Text",
    "WebSocketLimits",
    "WebSocketWire",
    "close_code",
    "close_reason",
    "close_words",
]

logger = logging.getLogger("revtunnel.websocket")  # the library insists on one; faults are ours to tell
logger.addHandler(logging.NullHandler())
logger.propagate = False

NORMAL, UNSUPPORTED, NO_UTF8, TOO_BIG, CUT = 1000, 1003, 1007, 1009, 1011
PRIVATE = 4000
MAX_REASON = 123  # bytes of UTF-8 behind the code


@dataclass(frozen=True, slots=True)
class WebSocketLimits:
    """What one WebSocket may hold and how long it is waited for."""

    # websocket_wire.py
    message: int = 131_072  # bytes of one message, text or binary; more is 1009
    text: int = 16_384  # bytes of one text message where texts are commands beside a byte stream
    pongs: int = 4096  # bytes of answered pings that nobody takes, beyond which only the last is kept
    # websocket.py, websocket_messages.py
    piece: int = 65_536  # bytes of one frame that we write
    queue: int = 262_144  # bytes of messages that wait for a peer that does not take them
    # websocket_upgrade.py
    head: int = 16_384  # bytes of a request or of an answer, all that came before the handshake is done
    handshake: float = 10.0  # seconds from the first byte to a done handshake, absolute
    # websocket_messages.py
    keepalive: float = 25.0  # seconds of silence before a ping
    answer: float = 20.0  # seconds without a byte after it until the other side counts as dead
    stall: float = 300.0  # the same while it does not take what is written, which hides its answer
    closing: float = 10.0  # seconds from a close to the end of the connection
    parting: float = 2.0  # the same after the other side broke the rules


class _CloseAnywhere(Protocol):
    """The library, but a close may stand between the fragments of a message, as any control frame."""

    def recv_frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self.current_size = None
        super().recv_frame(frame)


class ServerEngine(_CloseAnywhere, ServerProtocol):
    """The server's side of the library."""


class ClientEngine(_CloseAnywhere, ClientProtocol):
    """The client's side of the library."""


class Bytes(NamedTuple):
    """A binary message, or any piece of one where borders mean nothing."""

    data: bytes | bytearray


class Text(NamedTuple):
    """A text message."""

    text: str


class Pong(NamedTuple):
    """An answer to a ping."""

    payload: bytes


class Closed(NamedTuple):
    """The other side closed, and was answered. ``code`` 1005: it named none."""

    code: int
    reason: str


class Failed(NamedTuple):
    """The other side broke the rules; it was told the code, and nothing of it is read any more."""

    code: int
    detail: str


Happening = Bytes | Text | Pong | Closed | Failed


def close_code(ended: Ended) -> int:
    """The code for an ending of ours."""
    return NORMAL if ended is Ended.CLOSED else PRIVATE + ended


def close_words(code: int, reason: str) -> str:
    """A close for people: one line, printable, bounded."""
    words = CLOSE_CODE_EXPLANATIONS.get(code, "").removesuffix(" [internal]")
    if code > PRIVATE:
        with contextlib.suppress(ValueError):
            words = Ended(code - PRIVATE).word
    shown = "".join(each if each.isprintable() else "?" for each in reason)
    parts = [str(code), words, f"({shown})" if shown and shown != words else ""]
    return " ".join(part for part in parts if part)


class WebSocketWire:
    """One open WebSocket, our side of it. ``streams``: binary messages are one byte stream, in any pieces."""

    def __init__(
        self, engine: Protocol, limits: WebSocketLimits, streams: bool = False, text: int | None = None
    ) -> None:
        """``engine`` has done its handshake; ``text``: bytes of one text message, where not ``message``."""
        self.engine = engine
        self.limits = limits
        self.open = True  # neither side has closed
        self.closed: tuple[int, str] | None = None  # what the other side's close said, or what it was told
        self.frames = 0  # that came
        self._streams = streams
        self._most_text = limits.message if text is None else text
        self._early = engine.events_received()  # behind the handshake, in one reading with it
        self._opcode = Opcode.BINARY
        self._parts = bytearray()  # of a message that is not whole
        self._text = ""
        self._text_size = 0
        self._decode = codecs.getincrementaldecoder("utf-8")()
        self._replies: deque[bytes] = deque()
        self._collect()

    @classmethod
    def server(
        cls, limits: WebSocketLimits, streams: bool = False, text: int | None = None
    ) -> "WebSocketWire":
        """The server's side, where somebody else has done the handshake."""
        engine = ServerEngine(state=OPEN, max_size=limits.message, logger=logger)
        return cls(engine, limits, streams, text)

    # -- what comes

    def receive(self, data: bytes | memoryview) -> Iterator[Happening]:
        """What these bytes bring, in order; then ``replies`` has what is to be written at once."""
        if not self.open:
            return
        self.engine.receive_data(data)  # type: ignore[arg-type]
        self._collect()
        for frame in self._frames():
            yield from self._read(frame)
            if not self.open:
                return
        if self.engine.parser_exc is not None:
            yield self._broken(self.engine.parser_exc)

    def replies(self) -> list[bytes]:
        """Pongs and the answer to a close, to be written before anything else."""
        replies = [*self._replies]
        self._replies.clear()
        return replies

    def queue(self, frame: bytes) -> None:
        """Have a whole frame of our own written among the replies."""
        self._replies.append(frame)

    @property
    def waiting(self) -> int:
        """Bytes of replies."""
        return sum(map(len, self._replies))

    # -- what is said; each returns the bytes

    def binary(self, data: bytes | memoryview, first: bool = True, last: bool = True) -> bytes:
        """A binary message in one frame, or one piece of it."""
        return self._say(Opcode.BINARY, data, first, last)

    def text(self, data: bytes | memoryview, first: bool = True, last: bool = True) -> bytes:
        """A text message of UTF-8 in one frame, or one piece of it."""
        return self._say(Opcode.TEXT, data, first, last)

    def ping(self, payload: bytes) -> bytes:
        """A ping of at most 125 bytes; none after a close."""
        if not self.may_say:
            return b""
        self.engine.send_ping(payload)
        return self._written()

    def beat(self) -> bytes:
        """A pong that nobody asked for, and that asks for nothing; none after a close."""
        if not self.may_say:
            return b""
        self.engine.send_pong(b"")
        return self._written()

    def close(self, code: int = NORMAL, reason: str = "") -> bytes:
        """Our close, once: nothing is said after it, and what comes until theirs is still delivered."""
        if not self.may_say:
            return b""
        self.engine.send_close(code, close_reason(reason))
        return self._written()

    def refuse(self, code: int, detail: str) -> Failed:
        """End it for what the other side did; the close is all that it is told any more."""
        self.open = False
        self._replies = deque(each for each in self._replies if not _is_pong(each))
        self.closed = code, detail
        if self.engine.state is OPEN:
            self.engine.fail(code, close_reason(detail))
        self._collect()
        return Failed(code, detail)

    @property
    def is_server(self) -> bool:
        """Whether we are the server: then it is for us to end the connection."""
        return self.engine.side is Side.SERVER

    @property
    def close_said(self) -> bool:
        """Whether our close, or our answer to theirs, is said or waits to be written."""
        return self.engine.close_sent is not None

    @property
    def may_say(self) -> bool:
        """Whether neither side has closed."""
        return self.open and not self.close_said

    # -- inside

    def _frames(self) -> Iterator[Frame]:
        early, self._early = self._early, []
        for event in (*early, *self.engine.events_received()):
            assert isinstance(event, Frame)
            yield event

    def _read(self, frame: Frame) -> Iterator[Happening]:
        self.frames += 1
        opcode, data = frame.opcode, frame.data
        assert not isinstance(data, memoryview)
        if opcode is Opcode.CLOSE:
            close = self.engine.close_rcvd
            assert close is not None
            self.open = False
            self.closed = int(close.code), close.reason
            yield Closed(*self.closed)
        elif opcode is Opcode.PONG:
            yield Pong(bytes(data))
        elif opcode is not Opcode.PING:
            self._opcode = self._opcode if opcode is Opcode.CONT else opcode
            read = self._read_text if self._opcode is Opcode.TEXT else self._read_bytes
            yield from read(data, frame.fin)

    def _read_bytes(self, data: bytes | bytearray, last: bool) -> Iterator[Happening]:
        if self._streams:
            if data:
                yield Bytes(data)
            return
        if last and not self._parts:
            yield Bytes(bytes(data))
            return
        self._parts += data
        if last:
            whole = bytes(self._parts)
            self._parts = bytearray()
            yield Bytes(whole)

    def _read_text(self, data: bytes | bytearray, last: bool) -> Iterator[Happening]:
        self._text_size += len(data)
        if self._text_size > self._most_text:
            yield self.refuse(TOO_BIG, f"text of {self._text_size} bytes, limit {self._most_text}")
            return
        try:
            self._decode.decode(data, last)
        except UnicodeDecodeError as error:
            yield self.refuse(NO_UTF8, f"text that is no UTF-8: {error.reason}")
            return
        self._parts += data
        if last:
            text = self._parts.decode()
            self._parts, self._text_size = bytearray(), 0
            yield Text(text)

    def _broken(self, error: Exception) -> Failed:
        """The library found a fault, and has put the close among the replies."""
        if not isinstance(error, ProtocolError | PayloadTooBig | UnicodeDecodeError):
            raise LocalError(f"the WebSocket engine failed: {error!r}") from error
        sent = self.engine.close_sent
        code = int(sent.code) if sent is not None else 1002
        return self.refuse(code, str(error))

    def _say(self, opcode: Opcode, data: bytes | memoryview, first: bool, last: bool) -> bytes:
        if not self.may_say:
            raise LocalError("a message after a close")
        if not first:
            self.engine.send_continuation(data, last)
        elif opcode is Opcode.TEXT:
            self.engine.send_text(data, last)
        else:
            self.engine.send_binary(data, last)
        return self._written()

    def _written(self) -> bytes:
        """What the engine has made of our own words."""
        return b"".join(self.engine.data_to_send())

    def _collect(self) -> None:
        """Take the engine's answers; of pongs that pile up the last is enough."""
        self._replies.extend(filter(None, self.engine.data_to_send()))
        if self.waiting > self.limits.pongs:
            last = max((at for at, each in enumerate(self._replies) if _is_pong(each)), default=-1)
            replies = [each for at, each in enumerate(self._replies) if at == last or not _is_pong(each)]
            self._replies = deque(replies)


def _is_pong(frame: bytes) -> bool:
    return frame[0] & 15 == Opcode.PONG


def close_reason(text: str) -> str:
    """A reason that fits into a close: 123 bytes of UTF-8, printable, and no half of a character."""
    shown = "".join(each if each.isprintable() else "?" for each in text)
    return shown.encode("utf-8", "replace")[:MAX_REASON].decode("utf-8", "ignore")
