"""The kernel's part of a connection in memory: two wires with a capacity, and a socket at each end.

Rule of this file: it behaves as Linux does over loopback, as far as Twisted's Connection can see: what was
under way is read before a reset is told; after an end of file a reset is told to the writer only; bytes to a
closed socket, and closing with unread input, make a reset.
"""

import random
import socket
import struct
from collections.abc import Iterable, Iterator
from errno import EAGAIN, EBADF
from itertools import repeat
from typing import Any

__all__ = ["CAPACITY", "Cuts", "MemorySocket", "Wire", "random_cuts"]

_IN_ORDER = struct.pack("ii", 0, 0)
CAPACITY = 64 * 1024  # bytes a wire takes before the writer has to wait
Cuts = int | Iterable[int] | None


def random_cuts(seed: int, most: int = 64) -> Iterator[int]:
    """Endless piece sizes of 1 to ``most`` bytes, the same for the same seed."""
    sizes = random.Random(seed)
    while True:
        yield sizes.randint(1, most)


class Wire:
    """One direction between two sockets: bytes under way, then perhaps an end of file or a reset.

    ``blocked`` holds everything back from the reader, as a silent network does. ``cuts`` says where reads
    end, counted from the first byte: an int is the size of every piece, an iterable gives one size after the
    other and then whole reads. ``lossy``: a reset destroys what was under way; else it is read first.
    """

    def __init__(self, capacity: int, cuts: Cuts = None, lossy: bool = False) -> None:
        self.data = bytearray()
        self.capacity = capacity
        self.blocked = False
        self.lossy = lossy
        self.end_of_file = False
        self.was_reset = False
        self.reader_closed = False
        self.carried = 0  # bytes the reader has taken
        self.peak = 0  # most bytes that were under way
        self._cuts = repeat(cuts) if isinstance(cuts, int) else iter(cuts or ())
        self._piece = next(self._cuts, 0)

    @property
    def anything(self) -> bool:
        """Whether there is something for the reader, here or held back."""
        return bool(self.data) or self.end_of_file or self.was_reset

    @property
    def readable(self) -> bool:
        """Whether a read would not block."""
        return self.anything and not self.blocked

    @property
    def room(self) -> int:
        """Bytes that can be put in."""
        return max(0, self.capacity - len(self.data))

    def put(self, data: bytes) -> None:
        """The writer's bytes."""
        self.data += data
        self.peak = max(self.peak, len(self.data))

    def take(self, most: int) -> bytes:
        """The reader's next piece."""
        size = min(most, len(self.data), self._piece or most)
        piece = bytes(self.data[:size])
        del self.data[:size]
        self.carried += size
        if self._piece:
            self._piece -= size
            if not self._piece:
                self._piece = next(self._cuts, 0)
        return piece

    def reset(self) -> None:
        """A RST comes after (or, if lossy, instead of) the bytes under way."""
        self.was_reset = True
        if self.lossy:
            self.data.clear()


class MemorySocket:
    """The kernel's end of a connection, as far as Twisted's Connection and a PlainEnd ask for it."""

    family = socket.AF_INET

    def __init__(
        self, inbox: Wire, outbox: Wire, number: int, host: tuple[str, int], peer: tuple[str, int]
    ) -> None:
        self._host, self._peer = host, peer
        self.inbox = inbox
        self.outbox = outbox
        self.options: dict[tuple[int, int], Any] = {}
        self.closed = False
        self._number = number
        self._shut = False

    def gettimeout(self) -> float:
        """Always non-blocking."""
        return 0.0

    def setblocking(self, flag: bool) -> None:
        """The same."""

    def fileno(self) -> int:
        """A number of no system descriptor."""
        return -1 if self.closed else self._number

    def getsockname(self) -> tuple[str, int]:
        """Our address."""
        return self._host

    def getpeername(self) -> tuple[str, int]:
        """The other side's."""
        if self.closed:
            raise OSError(EBADF, "closed")
        return self._peer

    def setsockopt(self, level: int, name: int, value: Any) -> None:
        """Keep the option for the test to look at."""
        self.options[level, name] = value

    def getsockopt(self, level: int, name: int) -> Any:
        """What was set, else 0."""
        return self.options.get((level, name), 0)

    @property
    def broken(self) -> bool:
        """Whether a reset has arrived."""
        return self.inbox.was_reset and not self.inbox.blocked

    @property
    def readable(self) -> bool:
        """What EPOLLIN says."""
        return self.inbox.readable

    @property
    def writable(self) -> bool:
        """What EPOLLOUT says."""
        return self.broken or self._shut or self.outbox.room > 0

    @property
    def hung_up(self) -> bool:
        """What EPOLLHUP says: a reset, or both directions at their end."""
        return self.broken or (self._shut and self.inbox.end_of_file and not self.inbox.blocked)

    def recv(self, most: int, flags: int = 0) -> bytes:
        """Bytes, then end of file or the reset; MSG_PEEK leaves them there."""
        if not self.inbox.readable:
            raise BlockingIOError(EAGAIN, "nothing to read")
        if self.inbox.data:
            return bytes(self.inbox.data[:most]) if flags & socket.MSG_PEEK else self.inbox.take(most)
        if self.inbox.end_of_file:
            return b""
        raise ConnectionResetError("reset by the other side")

    def recv_into(self, view: memoryview) -> int:
        """The same into a buffer."""
        data = self.recv(len(view))
        view[: len(data)] = data
        return len(data)

    def sendmsg(self, pieces: list[bytes | memoryview]) -> int:
        """As ``send`` of all of them."""
        return self.send(b"".join(pieces))

    def send(self, data: bytes | memoryview) -> int:
        """As many bytes as the wire has room for."""
        if self.broken or self._shut:
            raise BrokenPipeError("the other side is gone")
        if data and not self.outbox.room:
            raise BlockingIOError(EAGAIN, "no room")
        taken = bytes(data[: self.outbox.room])
        self.outbox.put(taken)
        return len(taken)

    def shutdown(self, how: int) -> None:
        """End of file for the other side (every ``how`` that Twisted uses includes it)."""
        self.outbox.end_of_file = True
        self._shut = True

    def close(self) -> None:
        """Close; linger 0 or unread input make it a reset."""
        lingers = self.options.get((socket.SOL_SOCKET, socket.SO_LINGER), _IN_ORDER)
        if lingers != _IN_ORDER or self.inbox.data:
            self.outbox.reset()
        self.closed = True
        self.inbox.reader_closed = True
        self.inbox.data.clear()
