"""The frame of ReadyAgent links, rt1 and data sockets: ``size:u16 command:u8 channel:u8``, big endian.

Rule of this file: a header is judged before its payload is waited for, and good frames before a bad one
are delivered. Storing (``receive``) and cutting (``frames``) are separate for that reason.

Source: wire/readyagent.md section 1 (ReadyAgent "1.3 Specific protocol"); wire/link-extension.md.
"""

from collections.abc import Callable, Iterator
from struct import Struct
from typing import NamedTuple

from revtunnel.ground.errors import LocalError

__all__ = ["HEADER_SIZE", "MAX_PAYLOAD", "Frame", "FrameDecoder", "encode_frame", "encode_header"]

_HEADER = Struct("!HBB")
HEADER_SIZE = 4
MAX_PAYLOAD = 65535  # bytes; what the size field can say


class Frame(NamedTuple):
    """One unit of the wire. ``payload`` is bytes of its own: it may be kept."""

    command: int
    channel: int
    payload: bytes


def encode_header(size: int, command: int, channel: int) -> bytes:
    """The four header bytes of a frame with ``size`` bytes of payload."""
    return _HEADER.pack(size, command, channel)


def encode_frame(command: int, channel: int, payload: bytes = b"") -> bytes:
    """One whole frame.

    Raises:
        LocalError: the payload is longer than 65535 bytes.
    """
    if len(payload) > MAX_PAYLOAD:
        raise LocalError(f"payload of {len(payload)} bytes, limit {MAX_PAYLOAD}")
    return _HEADER.pack(len(payload), command, channel) + payload


class FrameDecoder:
    """Cut a byte stream into frames; holds at most one incomplete frame and what one ``receive`` brought.

    ``judge(size, command, channel)`` is called once for every header, before the payload is there; it
    raises RemoteError to refuse the frame. After that the decoder must not be used again.
    """

    __slots__ = ("_buffer", "_judge", "_judged", "_start")

    def __init__(self, judge: Callable[[int, int, int], None]) -> None:
        self._judge = judge
        self._buffer = bytearray()
        self._start = 0
        self._judged = False

    @property
    def held(self) -> int:
        """Bytes stored and not yet cut."""
        return len(self._buffer) - self._start

    def rest(self) -> bytes:
        """What is stored and not yet cut, when the stream goes on without frames."""
        return bytes(self._buffer[self._start :])

    def receive(self, data: bytes | memoryview) -> None:
        """Store what the transport read."""
        if self._start:
            del self._buffer[: self._start]
            self._start = 0
        self._buffer += data

    def frames(self, most: int = 1 << 30) -> Iterator[Frame]:
        """Yield complete frames, at most ``most`` of them; RemoteError from ``judge`` passes through."""
        unpack = _HEADER.unpack_from
        buffer = self._buffer
        while most > 0 and len(buffer) - self._start >= HEADER_SIZE:
            size, command, channel = unpack(buffer, self._start)
            if not self._judged:
                self._judge(size, command, channel)
                self._judged = True
            begin = self._start + HEADER_SIZE
            if len(buffer) - begin < size:
                return
            self._start = begin + size
            self._judged = False
            most -= 1
            yield Frame(command, channel, bytes(memoryview(buffer)[begin : begin + size]))
