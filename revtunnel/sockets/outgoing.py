"""The writing half of a transport: what waits for the socket, and the producer of more.

The rules: a write is tried at once, and only what the kernel does not take waits; a push producer is asked
to pause at 64 KiB of that, and to go on when nothing waits; a pull producer is asked when nothing waits, and
again as long as what it writes is taken at once. Beyond 256 KiB the others have their turn first: the rest
waits for the reactor.

Source: Twisted's IConsumer; performance.md (a write of Twisted's waits for the next turn); ours.
"""

from collections.abc import Iterable
from typing import Any

from revtunnel.sockets.ends import End

__all__ = ["TURN", "Outgoing"]

TURN = 256 * 1024  # bytes that one transport writes, or at most reads, before others have their turn
GATHER = 32 * 1024  # bytes whose copying costs more than a call with many pieces
HIGH_WATER = 64 * 1024  # bytes waiting at which a push producer is asked to pause


class Outgoing:
    """Bytes on their way out; a subclass watches the socket and ends it."""

    __slots__ = (
        "_asking",
        "_end",
        "_head",
        "_paused",
        "_producer",
        "_size",
        "_spent",
        "_streaming",
        "_tail",
        "_taken",
    )

    def __init__(self, end: End) -> None:
        self._end = end
        self._head: bytes | memoryview = b""  # perhaps begun: the next write must start with it
        self._tail: list[bytes | memoryview] = []
        self._size = 0  # bytes in both
        self._spent = 0  # bytes written since the reactor called
        self._producer: Any = None
        self._streaming = False
        self._paused = False  # the push producer, by us
        self._asking = False  # the pull producer, just now
        self._taken = False  # all that it wrote was taken at once

    # -- what a subclass has to provide

    @property
    def _deaf(self) -> bool:
        """Whether nothing is written any more."""
        raise NotImplementedError

    def _watch(self) -> None:
        """Have the reactor say when the socket is writable, if anything waits."""
        raise NotImplementedError

    def _write_failed(self, error: OSError) -> None:
        """The connection is cut; what waits is to be dropped."""
        raise NotImplementedError

    # -- Twisted's IConsumer

    def write(self, data: bytes | memoryview) -> None:
        """Twisted's; of a view, what is not taken at once is copied."""
        if not isinstance(data, bytes | memoryview):
            raise TypeError(f"bytes are written, not {type(data).__name__}")
        if not data or self._deaf:
            return
        if self._size or self._spent >= TURN:
            self._tail.append(bytes(data))
            self._size += len(data)
        else:
            taken = self._attempt(data)
            if taken == len(data):
                if self._producer is not None and not self._streaming:
                    self._ask()
                return
            if taken < 0:
                return
            self._head = memoryview(data)[taken:] if isinstance(data, bytes) else bytes(data[taken:])
            self._size = len(self._head)
        self._wait()

    def writeSequence(self, data: Iterable[bytes | memoryview]) -> None:
        """Twisted's; what is large is not joined for it, where the socket takes pieces. Views as above."""
        pieces = list(data)
        size = sum(map(len, pieces))
        if size < GATHER or not self._end.gathers or self._size or self._spent >= TURN or self._deaf:
            self.write(b"".join(pieces))
            return
        try:
            taken = self._end.write_pieces(pieces)
        except OSError as error:
            self._write_failed(error)
            return
        self._spent += taken
        if taken < size:
            self._size = size - taken
            while taken >= len(pieces[0]):
                taken -= len(pieces.pop(0))
            self._head = b"".join([memoryview(pieces[0])[taken:], *pieces[1:]])
            self._wait()
        elif self._producer is not None and not self._streaming:
            self._ask()

    def _wait(self) -> None:
        """Not all was taken: ask for the moment when it can be, and the producer to pause."""
        self._watch()
        if self._size > HIGH_WATER and self._streaming and not self._paused and self._producer is not None:
            self._paused = True
            self._producer.pauseProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Twisted's."""
        if self._producer is not None:
            raise RuntimeError(f"{self._producer} is registered and was never unregistered")
        self._producer, self._streaming, self._paused = producer, streaming, False
        if not streaming and not self._size:
            self._ask()

    def unregisterProducer(self) -> None:
        """Twisted's; it does not have to come before a loss here."""
        self._producer = None

    # -- inside

    def _attempt(self, data: bytes | memoryview) -> int:
        """Write, and say how many bytes were taken; -1: the connection is cut, and told of."""
        try:
            taken = self._end.write(data)
        except OSError as error:
            self._write_failed(error)
            return -1
        self._spent += taken
        return taken

    def _write_waiting(self) -> bool:
        """Write what waits; whether all of it was taken."""
        while self._size and self._spent < TURN:
            if not self._head:
                self._head = self._tail[0] if len(self._tail) == 1 else b"".join(self._tail)
                self._tail = []
            taken = self._attempt(self._head)
            if taken < 0:
                return False
            self._size -= taken
            if taken < len(self._head):
                self._head = memoryview(self._head)[taken:]
                return False
            self._head = b""
        return not self._size

    def _want_more(self) -> None:
        """Nothing waits: let the producer go on."""
        if self._producer is None:
            return
        if not self._streaming:
            self._ask()
        elif self._paused:
            self._paused = False
            self._producer.resumeProducing()

    def _ask(self) -> None:
        """Ask the pull producer; one that writes while it is asked is asked again when it is done."""
        self._taken = True
        if self._asking:
            return
        self._asking = True
        try:
            while self._taken and not self._size and self._producer is not None and not self._streaming:
                self._taken = False
                self._producer.resumeProducing()
        finally:
            self._asking = False

    def _drop(self) -> None:
        """Forget what waits."""
        self._head, self._tail, self._size = b"", [], 0
