"""Frames and messages of ZMTP 3: a byte stream cut into messages and commands, and messages made.

Rules of this file: a header is judged before its body is waited for; whole messages before a bad frame are
delivered; the bytes of a message that nobody looks at are never taken apart, nor written anew, and copied as
seldom as can be. What frames look like is told in zmtp.py.

Source: wire/cameo.md section 5; rfc.zeromq.org 23/ZMTP and 37/ZMTP; ours for runs and rooms.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from revtunnel.ground.errors import RemoteError

__all__ = [
    "COMMAND",
    "MAX_COMMAND",
    "MAX_ROOM",
    "MessageDecoder",
    "ZmtpCommand",
    "ZmtpMessage",
    "encode_frame",
    "encode_message",
    "encode_more",
    "split_frames",
    "split_run",
]

MAX_COMMAND = 4096  # bytes of a command; READY with room for properties that nobody knows
ROOM, MAX_ROOM = 32 * 1024, 256 * 1024  # bytes missing of a frame that gets its room at once
SHORT = 1024  # bytes of frames that may be joined with each frame behind them
COMMAND = 4  # of the flags
_MORE, _LONG = 1, 2


class ZmtpMessage(NamedTuple):
    """One whole message. ``heads`` are the bodies of its first frames, ``rest`` the wire bytes kept of it.

    With more than one of ``messages`` it is a run: so many, of two frames, one behind the other, the first
    frame being the same in all of them.
    """

    heads: list[bytes]
    rest: bytes | memoryview  # a view of what nobody changes any more
    frames: int
    messages: int = 1


class ZmtpCommand(NamedTuple):
    """The body of a command frame."""

    body: bytes


def encode_more(body: bytes) -> bytes:
    """A frame that others of its message follow."""
    return encode_frame(body, _MORE)


def encode_message(bodies: Sequence[bytes]) -> bytes:
    """A whole message, at least one frame."""
    return b"".join([*(encode_frame(body, _MORE) for body in bodies[:-1]), encode_frame(bodies[-1], 0)])


def encode_frame(body: bytes, flags: int) -> bytes:
    """One frame with these flags, LONG as needed."""
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
    """The bodies of whole message frames, as ``ZmtpMessage.rest`` has them."""
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

    It holds at most one incomplete message, frame or command, in the pieces it came in. What is missing of a
    frame of some size may be read straight into ``room``; then ``filled`` takes the place of ``units``.
    """

    def __init__(
        self, most_bytes: int, most_frames: int, heads: int = 1, keep: int = 0, runs: bool = False
    ) -> None:
        self.most_bytes = most_bytes
        self.most_frames = most_frames
        self.held = 0  # bytes that wait for more, or have their room; right when ``units`` is exhausted
        self.room: memoryview | None = None  # for what is missing of a frame
        self._heads_wanted = heads
        self._keep = keep
        self._runs = runs
        self._pieces: list[bytes | memoryview] = []  # of an incomplete frame, and what stands before it
        self._missing = 0  # bytes until it is worth looking again
        self._look_at = 0  # where in the pieces that is
        self._heads: list[bytes] = []  # the message under way: heads, what is kept of its
        self._whole: memoryview | None = None  # that frame and what stands before it
        self._done: list[bytes | memoryview] = []  # whole frames, how many they were
        self._frames = 0
        self._size = 0  # and their bytes

    def units(self, data: bytes | memoryview) -> Iterator[ZmtpMessage | ZmtpCommand]:
        """Yield what ``data`` completes. Go through all of it before the next call.

        Nothing of a view is kept, what is needed of it is copied.

        Raises:
            RemoteError: a header breaks a rule or a limit; the decoder must not be used again.
        """
        while self.room is not None and data:
            size = min(len(data), len(self.room))
            self.room[:size] = data[:size]
            data = data[size:]
            yield from self.filled(size)
        while self._pieces and len(data) >= self._missing:
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
        if ROOM <= self._missing <= MAX_ROOM and self._pieces:
            self._make_room()

    def filled(self, size: int) -> Iterator[ZmtpMessage]:
        """Yield what so many bytes complete that were put into ``room``."""
        assert self.room is not None and self._whole is not None
        self.room = self.room[size:]
        self._missing -= size
        if self._missing:
            return
        whole, at = self._whole.toreadonly(), self._look_at
        self.room = self._whole = None
        self._missing, self._look_at = 2, 0
        if self._frames < self._heads_wanted:
            self._heads.append(bytes(whole[at + 9 :]))
        self._frames += 1
        self._size += len(whole) - at
        if self._frames > self._keep:
            self._done.append(whole)
        if whole[at] & _MORE:
            return
        rest = self._done[0] if len(self._done) == 1 else b"".join(self._done)
        message = ZmtpMessage(self._heads, rest, self._frames)
        self._heads, self._frames, self._size, self._done, self.held = [], 0, 0, [], 0
        yield message

    def _make_room(self) -> None:
        """A frame of some size: give it all the memory it needs, so that it is copied once at most."""
        have = sum(map(len, self._pieces))
        whole = memoryview(bytearray(have + self._missing))
        at = 0
        for piece in self._pieces:
            whole[at : at + len(piece)] = piece
            at += len(piece)
        self._pieces.clear()
        self._whole, self.room = whole, whole[have:]
        self.held += self._missing

    def _cut(self, data: bytes, at: int = 0) -> Iterator[ZmtpMessage | ZmtpCommand]:
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
                yield ZmtpCommand(data[body:end])
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
            yield ZmtpMessage(heads, rest, frames, count)
            heads, frames, size, start = [], 0, 0, at
        else:
            missing = 2  # at least, if there is a part of a message
        self._heads, self._frames, self._size, self._done = heads, frames, size, done
        self._missing = missing
        self._keep_rest(data, start, at)

    def _keep_rest(self, data: bytes, start: int, at: int) -> None:
        """The message under way is from ``start``, of which nobody has looked at what is from ``at``."""
        if self._frames <= self._keep:
            start = at
        elif at - start > SHORT:  # else it is copied again with the next frame, which is less work
            self._done.append(data[start:at])
            start = at
        if start < len(data):
            self._pieces.append(_tail(data, start))
        self._look_at = at - start
        self.held = self._size + len(data) - at

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
