"""ZMTP 3.0, mechanism NULL: what the listening side of a ZeroMQ socket reads and writes.

Rule of this file: a header is judged before its body is waited for; whole messages before a bad frame are
delivered; the bytes of a message that nobody looks at are never taken apart, nor written anew.

A connection begins with 64 bytes each way, whose first ten a peer may send before it waits for ours::

    ff 00*8 01|7f   signature: the first byte and the low bit of the tenth count, the rest is anybody's
    03 mm           version 3, minor 0 or more
    "NULL" 00*16    mechanism
    as 00*31        as-server, of no meaning here; filler

Then frames: ``flags:u8 size:u8|u64 body``, big endian.

======= ==================================================================
flag    meaning
======= ==================================================================
``01``  more frames of this message follow
``02``  the size has eight bytes
``04``  a command; may stand between two frames of a message
======= ==================================================================

======================================== =====================================================
bytes                                    meaning
======================================== =====================================================
``00 03 666f6f``                         message "foo"
``01 01 61 00 00``                       message of two frames, "a" and ""
``02 0000000000000003 666f6f``           message "foo", size in eight bytes
``00 07 01 737461747573``                subscribe to "status" (3.0)
``00 07 00 737461747573``                cancel it (3.0)
``04 10 09 535542534352494245            subscribe to "status" (3.1)
737461747573``
``04 0d 06 43414e43454c 737461747573``   cancel it (3.1)
``04 07 04 50494e47 0064``               PING, drop me after 10 s of silence
``04 05 04 504f4e47``                    PONG
======================================== =====================================================

Source: wire/cameo.md section 5; rfc.zeromq.org 23/ZMTP and 37/ZMTP.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from revtunnel.wire.errors import LocalError, RemoteError

__all__ = [
    "GREETING",
    "MAX_COMMAND",
    "MAX_IDENTITY",
    "Command",
    "Message",
    "MessageDecoder",
    "check_greeting",
    "decode_command",
    "decode_ping",
    "decode_properties",
    "encode_command",
    "encode_error",
    "encode_message",
    "encode_more",
    "encode_pong",
    "encode_ready",
    "split_frames",
    "split_run",
]

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
MAX_IDENTITY = 255  # bytes
MAX_COMMAND = 4096  # bytes of a command; READY with room for properties that nobody knows
MAX_CONTEXT = 16  # bytes of a PING that PONG repeats
SHORT = 1024  # bytes of frames that may be joined with each frame behind them
_MORE, _LONG, _COMMAND = 1, 2, 4
_MECHANISM = GREETING[12:32]


class Message(NamedTuple):
    """One whole message. ``heads`` are the bodies of its first frames, ``rest`` the wire bytes kept of it.

    With more than one of ``messages`` it is a run: so many, of two frames, one behind the other, the first frame being
    the same in all of them.
    """

    heads: list[bytes]
    rest: bytes
    frames: int
    messages: int = 1


class Command(NamedTuple):
    """The body of a command frame."""

    body: bytes


# ---- the greeting


def check_greeting(data: bytes | bytearray) -> bool:
    """Whether a whole greeting is at the start of ``data``; judged as early as its bytes allow.

    Raises:
        RemoteError: this peer does not speak ZMTP 3 with mechanism NULL.
    """
    if data[:1] not in (b"", b"\xff"):
        raise RemoteError(f"greeting begins with 0x{data[0]:02x}, 0xff wanted")
    if len(data) > 9 and not data[9] & 1:
        raise RemoteError(f"byte 9 of the greeting is 0x{data[9]:02x}, an odd one wanted")
    if len(data) > 10 and data[10] < 3:
        raise RemoteError(f"ZMTP version {data[10]}, 3 wanted")
    mechanism = data[12:32]
    if mechanism != _MECHANISM[: len(mechanism)]:
        raise RemoteError(f"mechanism {bytes(mechanism.rstrip(bytes(1)))!a}, NULL wanted")
    return len(data) >= len(GREETING)


# ---- frames


def encode_more(body: bytes) -> bytes:
    """A frame that others of its message follow."""
    return _frame(body, _MORE)


def encode_message(bodies: Sequence[bytes]) -> bytes:
    """A whole message, at least one frame."""
    return b"".join([*(_frame(body, _MORE) for body in bodies[:-1]), _frame(bodies[-1], 0)])


def _frame(body: bytes, flags: int) -> bytes:
    size = len(body)
    if size < 256:
        return bytes((flags, size)) + body
    return bytes((flags | _LONG,)) + size.to_bytes(8, "big") + body


def split_run(run: bytes) -> list[bytes]:
    """The messages of a run, as wire bytes."""
    messages, start, at = [], 0, 0
    while at < len(run):
        flags = run[at]
        at += 9 + int.from_bytes(run[at + 1 : at + 9], "big") if flags & _LONG else 2 + run[at + 1]
        if not flags & _MORE:
            messages.append(run[start:at])
            start = at
    return messages


def split_frames(rest: bytes) -> list[bytes]:
    """The bodies of whole message frames, as ``Message.rest`` has them."""
    bodies, at = [], 0
    while at < len(rest):
        size, body = rest[at + 1], at + 2
        if rest[at] & _LONG:
            size, body = int.from_bytes(rest[at + 1 : at + 9], "big"), at + 9
        bodies.append(rest[body : body + size])
        at = body + size
    return bodies


class MessageDecoder:
    """Cut a byte stream behind its greeting into messages and commands.

    Args:
        most_bytes: of one message on the wire, headers counted; 0: no message may come yet. May be changed
            at any time.
        most_frames: of one message.
        heads: how many first frames have their bodies cut out.
        keep: number of the frame at which ``rest`` begins.
        runs: messages may come as runs; with ``heads`` 1 and ``keep`` 0.

    It holds at most one incomplete message, frame or command, in the pieces it came in.
    """

    def __init__(
        self, most_bytes: int, most_frames: int, heads: int = 1, keep: int = 0, runs: bool = False
    ) -> None:
        self.most_bytes = most_bytes
        self.most_frames = most_frames
        self.held = 0  # bytes that wait for more; right when ``units`` is exhausted
        self._heads_wanted = heads
        self._keep = keep
        self._runs = runs
        self._pieces: list[bytes | memoryview] = []  # of an incomplete frame, and what stands before it
        self._missing = 0  # bytes until it is worth looking again
        self._look_at = 0  # where in the pieces that is
        self._heads: list[bytes] = []  # the message under way: heads, what is kept of its
        self._done: list[bytes] = []  # whole frames, how many they were
        self._frames = 0
        self._size = 0  # and their bytes

    def units(self, data: bytes | memoryview) -> Iterator[Message | Command]:
        """Yield what ``data`` completes. Go through all of it before the next call.

        Nothing of a view is kept, what is needed of it is copied.

        Raises:
            RemoteError: a header breaks a rule or a limit; the decoder must not be used again.
        """
        while self._pieces and len(data) >= self._missing:  # an image: it alone is joined, and once
            whole = b"".join([*self._pieces, data[: self._missing]])
            self._pieces.clear()
            data = data[self._missing :]
            yield from self._cut(whole, self._look_at)
        if self._pieces:
            self._pieces.append(bytes(data))
            self._missing -= len(data)
            self.held += len(data)
        elif data:
            yield from self._cut(bytes(data))

    def _cut(self, data: bytes, at: int = 0) -> Iterator[Message | Command]:
        """The loop over frames; all state is in local names until the data ends."""
        start = 0
        end_of_data = len(data)
        heads, frames, size, done = self._heads, self._frames, self._size, self._done
        wanted, keep = self._heads_wanted, self._keep
        while at < end_of_data:
            flags = data[at]
            if flags > 3 and flags != 4 and flags != 6:
                raise RemoteError(f"frame flags 0x{flags:02x}")
            body = at + (9 if flags & 2 else 2)
            if body > end_of_data:
                missing = body - end_of_data
                break
            length = data[at + 1] if body == at + 2 else int.from_bytes(data[at + 1 : body], "big")
            end = body + length
            if flags & 4:
                if length > MAX_COMMAND:
                    raise RemoteError(f"command of {length} bytes, limit {MAX_COMMAND}")
                if end > end_of_data:
                    missing = end - end_of_data
                    break
                if frames > keep:
                    done.append(data[start:at])
                at = start = end
                yield Command(data[body:end])
                continue
            size += end - at
            if size > self.most_bytes or frames >= self.most_frames:
                raise self._too_large(size, frames + 1)
            if end > end_of_data:
                size -= end - at
                missing = end - end_of_data
                break
            if frames == keep:
                start = at
            if frames < wanted:
                heads.append(data[body:end])
            frames += 1
            at = end
            if flags & 1:
                continue
            count = 1
            if self._runs and frames == 2 and not done:
                at, count = self._run(data, start, end)
            rest = data[start:at] if frames > keep else b""
            if done:
                rest = b"".join([*done, rest])
                done = []
            yield Message(heads, rest, frames, count)
            heads, frames, size, start = [], 0, 0, at
        else:
            missing = 2  # at least, if there is a part of a message
        if frames <= keep:
            start = at
        elif at - start > SHORT:  # else it is copied again with the next frame, which is less work
            done.append(data[start:at])
            start = at
        if start < end_of_data:
            self._pieces.append(_tail(data, start))
        self._look_at = at - start
        self._missing = missing
        self._heads, self._frames, self._size, self._done = heads, frames, size, done
        self.held = size + end_of_data - at

    def _run(self, data: bytes, start: int, end: int) -> tuple[int, int]:
        """Where a run ends whose first message is from ``start`` to ``end``, and how many messages it has."""
        count = 1
        if data[start] != _MORE:
            return end, count
        first = data[start : start + 2 + data[start + 1]]
        length, size = len(first), len(data)
        while data.startswith(first, end):
            body = end + length
            if body + 2 > size:
                break
            if data[body] == 0:
                stop = body + 2 + data[body + 1]
            elif data[body] == _LONG and body + 9 <= size:
                stop = body + 9 + int.from_bytes(data[body + 1 : body + 9], "big")
            else:
                break
            if stop > size or stop - end > self.most_bytes:
                break
            end, count = stop, count + 1
        return end, count

    def _too_large(self, size: int, frames: int) -> RemoteError:
        if not self.most_bytes:
            return RemoteError("a message before READY")
        if frames > self.most_frames:
            return RemoteError(f"message of more than {self.most_frames} frames")
        return RemoteError(f"message of {size} bytes or more, limit {self.most_bytes}")


def _tail(data: bytes, start: int) -> bytes | memoryview:
    """What is behind ``start``; a view of it keeps all of ``data`` alive, so most of it must be that."""
    return data[start:] if start > len(data) // 2 else memoryview(data)[start:]


# ---- commands


def encode_command(name: bytes, data: bytes = b"") -> bytes:
    """A command frame; both together at most ``MAX_COMMAND`` bytes."""
    body = bytes((len(name),)) + name + data
    if len(body) > MAX_COMMAND:
        raise LocalError(f"command of {len(body)} bytes, limit {MAX_COMMAND}")
    return _frame(body, _COMMAND)


def decode_command(body: bytes) -> tuple[bytes, bytes]:
    """Name and data of a command.

    Raises:
        RemoteError: there is no name.
    """
    size = body[0] if body else 0
    if not size or len(body) <= size:
        raise RemoteError(f"command of {len(body)} bytes without a name")
    return body[1 : 1 + size], body[1 + size :]


def encode_ready(socket_type: bytes, identity: bytes | None = None) -> bytes:
    """READY with our socket type, and our routing id where the type has one."""
    properties = [(b"Socket-Type", socket_type)]
    if identity is not None:
        properties.append((b"Identity", identity))
    data = [bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value for name, value in properties]
    return encode_command(b"READY", b"".join(data))


def decode_properties(data: bytes) -> dict[bytes, bytes]:
    """The properties of READY by name in lower case: names compare without case.

    Raises:
        RemoteError: the list is cut short, or a name has no bytes.
    """
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        value = at + 1 + data[at] + 4
        size = int.from_bytes(data[value - 4 : value], "big")
        if not data[at] or value + size > len(data):
            raise RemoteError(f"READY is broken at byte {at} of {len(data)}")
        found[data[at + 1 : value - 4].lower()] = data[value : value + size]
        at = value + size
    return found


def decode_ping(data: bytes) -> tuple[float | None, bytes]:
    """Seconds of silence after which the peer wants to be dropped, None for never; and its context."""
    ttl = int.from_bytes(data[:2], "big") if len(data) >= 2 else 0
    return (ttl / 10 if ttl else None), data[2 : 2 + MAX_CONTEXT]


def encode_pong(context: bytes) -> bytes:
    """The answer to a PING of that context."""
    return encode_command(b"PONG", context)


def encode_error(reason: str) -> bytes:
    """ERROR, in place of READY: the peer gives up, it does not come back by itself."""
    text = reason.encode("ascii", "replace")[:255]
    return encode_command(b"ERROR", bytes((len(text),)) + text)
