"""Who sends next on a link: control frames first, then the channels in turn.

A channel's turn is one DATA frame: while others wait ``frame`` bytes, or on a fast link a quarter of the
quantum where that is more; as large as a frame can be when it is alone. What is handed to the
kernel at once (the quantum) follows the speed of the link, so that on a slow link a keystroke does not wait
behind a large write.

Source: wire/link-extension.md "Flow control on the link"; the moving quantum is ours.
"""

from collections import deque

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.streams.channel import Channel
from revtunnel.streams.commands import Command
from revtunnel.streams.frames import encode_header

__all__ = ["Pace", "Piece", "SendScheduler"]

Piece = bytes | memoryview  # of what is written
CONTROL_LIMIT = 256 * 1024  # bytes of control frames the other side may leave unread
QUICK = 0.005  # seconds in which a quantum should drain
SLOW = 0.020


class Pace:
    """How many bytes go to the kernel at once: doubled when they drain quickly, halved when slowly."""

    __slots__ = ("_began", "_limits", "_size", "quantum")

    def __init__(self, limits: LinkLimits) -> None:
        self._limits = limits
        self.quantum = 64 * 1024
        self._began = 0.0
        self._size = 0

    def handed(self, size: int, now: float) -> None:
        """``size`` bytes were given to the transport."""
        self._began, self._size = now, size

    def drained(self, now: float) -> None:
        """The transport is empty again."""
        took = now - self._began
        if took > SLOW:
            self.quantum = max(self.quantum // 2, self._limits.smallest_quantum)
        elif took < QUICK and self._size >= self.quantum // 2:
            self.quantum = min(self.quantum * 2, self._limits.largest_quantum)


class SendScheduler:
    """What waits to be sent on one link."""

    __slots__ = ("_control", "_control_size", "_limits", "_ready", "asks")

    def __init__(self, limits: LinkLimits) -> None:
        self._limits = limits
        self._control: list[bytes] = []
        self._control_size = 0
        self._ready: deque[Channel] | None = None  # made with the first
        self.asks = False  # some control frame that waits wants something to come back

    @property
    def waiting(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._control or self._ready)

    def control(self, frame: bytes, asks: bool = False) -> None:
        """Queue a frame that goes before all data; ``asks``: something has to come back for it.

        Raises:
            RemoteError: 256 KiB of control frames were left unread.
        """
        self.asks = self.asks or asks
        self._control.append(frame)
        self._control_size += len(frame)
        if self._control_size > CONTROL_LIMIT:
            raise RemoteError(f"{self._control_size} bytes of control frames unread, limit {CONTROL_LIMIT}")

    def schedule(self, channel: Channel) -> None:
        """Give a channel a turn if it has something to send and has none yet."""
        if not channel.scheduled and channel.sendable:
            channel.scheduled = True
            if self._ready is None:
                self._ready = deque()
            self._ready.append(channel)

    def remove(self, channel: Channel) -> None:
        """Take a channel's turn away."""
        if channel.scheduled and self._ready is not None:
            channel.scheduled = False
            self._ready.remove(channel)

    def take_control(self) -> tuple[list[Piece], int]:
        """All control frames and their size."""
        parts, size = self._control, self._control_size
        if parts:
            self._control, self._control_size = [], 0
        self.asks = False
        return [*parts], size

    def next(self) -> Channel | None:
        """The channel whose turn it is; it leaves the circle, ``schedule`` puts it back."""
        if not self._ready:
            return None
        channel = self._ready.popleft()
        channel.scheduled = False
        return channel

    def cut(self, channel: Channel, quantum: int) -> tuple[list[Piece], int]:
        """One DATA frame of a channel, as pieces with its header first, and its size."""
        limits = self._limits
        most = max(limits.frame, quantum // 4) if self._ready else limits.lone_frame
        pieces = channel.cut(min(most, max(quantum, limits.smallest_quantum), limits.lone_frame))
        size = sum(map(len, pieces))
        return [encode_header(size, Command.DATA, channel.number), *pieces], size + 4
