"""WebSocket frames by hand, from RFC 6455 section 5.2 and nothing else: to read, and to write wrong ones too.

Rule of this file: it shares no code with what is tested, and judges nothing.
"""

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

__all__ = ["BINARY", "CLOSE", "CONT", "PING", "PONG", "TEXT", "RawFrame", "close", "frame", "frames"]

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MASK = bytes.fromhex("37fa213d")  # of the RFC's examples
_U16, _U64 = Struct("!H"), Struct("!Q")


class RawFrame(NamedTuple):
    """One frame as it stood on the wire."""

    opcode: int
    payload: bytes
    last: bool
    reserved: int
    masked: bool


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    masked: bool,
    last: bool = True,
    reserved: int = 0,
    form: int | None = None,
    size: int | None = None,
) -> bytes:
    """A frame. ``form``: bits of length, 7, 16 or 64, where another is shorter; ``size``: a lie."""
    length = len(payload) if size is None else size
    form = form or (7 if length < 126 else 16 if length < 65536 else 64)
    first = (0x80 if last else 0) | reserved << 4 | opcode
    second = (0x80 if masked else 0) | (length if form == 7 else 126 if form == 16 else 127)
    head = bytes((first, second)) + {7: b"", 16: _U16.pack(length & 0xFFFF), 64: _U64.pack(length)}[form]
    return head + (MASK + _masked(payload, MASK) if masked else payload)


def close(code: int | None, reason: bytes = b"", *, masked: bool) -> bytes:
    """A close; without a code it is empty."""
    return frame(CLOSE, (b"" if code is None else _U16.pack(code)) + reason, masked=masked)


def frames(data: bytes) -> Iterator[RawFrame]:
    """What stands on the wire; the last one has to be whole."""
    while data:
        first, second = data[0], data[1]
        length, at = second & 0x7F, 2
        if length == 126:
            (length,), at = _U16.unpack_from(data, 2), 4
        elif length == 127:
            (length,), at = _U64.unpack_from(data, 2), 10
        mask = data[at : at + 4] if second & 0x80 else b""
        at += len(mask)
        payload = data[at : at + length]
        assert len(payload) == length, "half a frame"
        yield RawFrame(
            first & 15,
            _masked(payload, mask) if mask else payload,
            bool(first & 0x80),
            first >> 4 & 7,
            bool(mask),
        )
        data = data[at + length :]


def _masked(payload: bytes, mask: bytes) -> bytes:
    key = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)], "big")
    return (int.from_bytes(payload, "big") ^ key).to_bytes(len(payload), "big")
