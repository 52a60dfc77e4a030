"""What waits for one peer of a relay: whole messages, bounded in number and bytes.

Rule of this file: a message is taken whole or dropped whole. While the peer takes what is written nothing
waits longer than a turn, and nothing is dropped; the limits hold from the moment it does not. One message
may always wait, however large, if the pool has room.

Source: wire/cameo.md section 5 ("Bounded output per peer"); faults.md Z5.
"""

from collections import deque
from collections.abc import Callable

from revtunnel.ground.limits import CameoLimits
from revtunnel.streams.window import CreditPool
from revtunnel.systems.cameo.zmtp_messages import split_run

__all__ = ["Outbox", "Piece"]

Piece = bytes | memoryview
PORTION = 256 * 1024  # bytes handed to the transport at once when it takes again


class Outbox:
    """Messages for one peer.

    Args:
        limits: queue_messages and queue.
        pool: bytes that may wait for all peers.
        slow: called at the first message that is dropped since the last time that nothing waited.
    """

    __slots__ = (
        "_limits",
        "_pool",
        "_slow",
        "_waiting",
        "bytes_sent",
        "dropped",
        "full",
        "messages_sent",
        "pieces",
        "telling",
        "waiting_bytes",
    )

    def __init__(self, limits: CameoLimits, pool: CreditPool, slow: Callable[[], None]) -> None:
        self.pieces: list[Piece] = []  # of this turn, while the transport takes them
        self.full = False  # the transport does not
        self.dropped = 0  # messages
        self.messages_sent = 0
        self.bytes_sent = 0
        self.waiting_bytes = 0
        self.telling = False  # a burst of drops was reported and is not over
        self._waiting: deque[bytes] = deque()
        self._limits = limits
        self._pool = pool
        self._slow = slow

    @property
    def waiting(self) -> int:
        """Messages that wait because the transport is full."""
        return len(self._waiting)

    def add(self, *pieces: Piece) -> bool:
        """Take one message in pieces; False: dropped."""
        if not self.full:
            self.pieces += pieces
            self.messages_sent += 1
            return True
        message = b"".join(pieces)
        if not self._has_room(len(message)):
            self.dropped += 1
            if not self.telling:
                self.telling = True
                self._slow()
            return False
        self._waiting.append(message)
        self.waiting_bytes += len(message)
        self.messages_sent += 1
        return True

    def add_run(self, run: Piece, count: int) -> int:
        """Take a run of so many messages; how many were dropped."""
        if not self.full:
            self.pieces.append(run)
            self.messages_sent += count
            return 0
        return sum(not self.add(message) for message in (split_run(bytes(run)) if count > 1 else (run,)))

    def turn(self) -> list[Piece]:
        """What this turn brought, in pieces, to be written now; empty: nothing."""
        pieces, self.pieces = self.pieces, []
        self.bytes_sent += sum(map(len, pieces))
        return pieces

    def portion(self) -> bytes:
        """What has waited longest, to be written when the transport takes again; empty: nothing waits."""
        taken: list[bytes] = []
        size = 0
        while self._waiting and size < PORTION:
            message = self._waiting.popleft()
            taken.append(message)
            size += len(message)
        self.waiting_bytes -= size
        self.bytes_sent += size
        self._pool.give(size)
        if not self._waiting:
            self.telling = False
        return b"".join(taken)

    def clear(self) -> None:
        """The peer is gone: give back what waited."""
        self.pieces.clear()
        self._waiting.clear()
        self._pool.give(self.waiting_bytes)
        self.waiting_bytes = 0

    def _has_room(self, size: int) -> bool:
        limits, waiting = self._limits, self._waiting
        if waiting and (len(waiting) >= limits.queue_messages or self.waiting_bytes + size > limits.queue):
            return False
        return self._pool.take(size)
