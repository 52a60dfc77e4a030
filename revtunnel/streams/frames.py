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
DATA = 0x03  # the command whose payload is a stream's
_PIECES = 256  # of one payload, before they are made one: each costs more than its bytes where those are few


class Frame(NamedTuple):
    """One unit of the wire. ``payload`` is bytes of its own, which may be kept; DATA's: see FrameDecoder."""

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

    A frame that lies whole in what came is copied once, into its payload; but the payload of a whole DATA in
    a view that was lent is a view too, and good until the next frame is asked for.
    """

    __slots__ = ("_at", "_data", "_head", "_judged", "_lacks", "_pieces", "judge")

    def __init__(self, judge: Callable[[int, int, int], None]) -> None:
        self.judge = judge
        self._head = b""  # of the frame that is begun; with the pieces of its payload before what is in _data
        self._pieces: list[bytes] = []
        self._lacks = 0  # bytes of its payload, once it is judged
        self._judged = False
        self._data: bytes | memoryview = b""
        self._at = 0  # bytes of it that are cut

    @property
    def held(self) -> int:
        """Bytes stored and not yet cut."""
        return len(self._head) + sum(map(len, self._pieces)) + len(self._data) - self._at

    def rest(self) -> bytes:
        """What is stored and not yet cut, when the stream goes on without frames."""
        return b"".join([self._head, *self._pieces, self._data[self._at :]])

    def receive(self, data: bytes | memoryview) -> None:
        """Store what the transport read."""
        self.lend(bytes(data))

    def lend(self, data: bytes | memoryview) -> None:
        """The same; a view has to stay as it is until ``keep`` is called."""
        rest = self._data[self._at :]
        self._data, self._at = bytes(rest) + data if rest else data, 0

    def keep(self) -> None:
        """Copy what is left of a view that was lent."""
        if self._at < len(self._data):
            self._data, self._at = bytes(self._data[self._at :]), 0
        else:
            self._data, self._at = b"", 0

    def frames(self, most: int = 1 << 30) -> Iterator[Frame]:
        """Yield complete frames, at most ``most`` of them; RemoteError from ``judge`` passes through."""
        unpack = _HEADER.unpack_from
        while most > 0:
            data, begin, there = self._data, self._at + HEADER_SIZE, len(self._data)
            frame = None
            if self._at == there and not self._judged:
                return
            if not self._head and begin <= there:
                size, command, channel = unpack(data, self._at)
                self._look(size, command, channel)
                end = begin + size
                if end <= there:
                    self._at, self._judged = end, False
                    payload = data[begin:end]
                    frame = Frame(command, channel, payload if command == DATA else bytes(payload))  # type: ignore[arg-type]
            if frame is None:
                frame = self._finish_begun()
            if frame is None:
                return
            most -= 1
            yield frame

    def _look(self, size: int, command: int, channel: int) -> None:
        """Judge a header, once."""
        if not self._judged:
            self.judge(size, command, channel)
            self._judged, self._lacks = True, size

    def _finish_begun(self) -> Frame | None:
        """The frame that is begun, if all of it is there."""
        if len(self._head) < HEADER_SIZE:
            self._head += self._cut(HEADER_SIZE - len(self._head))
            if len(self._head) < HEADER_SIZE:
                return None
        size, command, channel = _HEADER.unpack(self._head)
        self._look(size, command, channel)
        piece = self._cut(self._lacks)
        self._lacks -= len(piece)
        if self._lacks:
            self._pieces += [bytes(piece)] if piece else []
            if len(self._pieces) >= _PIECES:
                self._pieces = [b"".join(self._pieces)]
            return None
        frame = Frame(command, channel, b"".join([*self._pieces, piece]))
        self._head, self._pieces, self._judged = b"", [], False
        return frame

    def _cut(self, most: int) -> bytes | memoryview:
        """So many bytes of what came, or what there is."""
        piece = self._data[self._at : self._at + most]
        self._at += len(piece)
        return piece
