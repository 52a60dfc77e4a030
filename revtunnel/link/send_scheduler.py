"""Who sends next on a link: control frames first, then messages, then the channels in turn.

A channel's turn is one DATA frame: while others wait ``frame`` bytes, or on a fast link a quarter of the
quantum where that is more; as large as a frame can be when it is alone. A channel that was idle and has a
message (MESSAGE bytes at most) to say goes before that circle, but only once between two turns of the circle.
So a keystroke waits behind no bulk that is still here, and bulk, between two frames, behind one message of
each other channel and no more.

What is handed to the kernel at once (the quantum), and what that may hold unsent, follow the speed of the
link, so that on a slow link a keystroke does not wait behind a large write.

Source: wire/link-extension.md "Flow control on the link"; the messages and the moving quantum are ours (the
former after fq_codel's new flows, RFC 8290 4.2).
"""

from collections import deque

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.streams.channel import Channel
from revtunnel.streams.commands import Command
from revtunnel.streams.frames import encode_header

__all__ = ["MESSAGE", "Pace", "Piece", "SendScheduler"]

Piece = bytes | memoryview  # of what is written
CONTROL_LIMIT = 256 * 1024  # bytes of control frames the other side may leave unread
MESSAGE = 4 * 1024  # bytes that are said by somebody who waits for an answer, rather than a part of bulk
QUICK = 0.005  # seconds in which a quantum should drain
SLOW = 0.020
LEAST_UNSENT, MOST_UNSENT = 8 * 1024, 128 * 1024  # bytes


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

    @property
    def unsent(self) -> int:
        """Bytes that the kernel may hold unsent (TCP_NOTSENT_LOWAT): more would delay a keystroke."""
        return min(max(self.quantum // 2, LEAST_UNSENT), MOST_UNSENT)

    def drained(self, now: float) -> bool:
        """The transport is empty again; whether that changed the pace."""
        took, before = now - self._began, self.quantum
        if took > SLOW:
            self.quantum = max(self.quantum // 2, self._limits.smallest_quantum)
        elif took < QUICK and self._size >= self.quantum // 2:
            self.quantum = min(self.quantum * 2, self._limits.largest_quantum)
        return self.quantum != before


class SendScheduler:
    """What waits to be sent on one link."""

    __slots__ = ("_control", "_control_size", "_limits", "_messages", "_ready", "_round", "asks", "passing")

    def __init__(self, limits: LinkLimits) -> None:
        self._limits = limits
        self._control: list[bytes] = []
        self._control_size = 0
        self._ready: deque[Channel] | None = None  # the circle, made with the first that waits
        self._messages: deque[Channel] | None = None  # channels that go before it, likewise
        self._round = 0  # turns of the circle so far
        self.passing = False  # the channel whose turn it is went before the circle
        self.asks = False  # some control frame that waits wants something to come back

    @property
    def waiting(self) -> bool:
        """Whether there is anything to take."""
        return bool(self._control or self._messages or self._ready)

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
        """Give a channel a turn if it has something to send and has none yet; before the circle if it may."""
        if channel.scheduled or not channel.sendable:
            return
        channel.scheduled = True
        if channel.queued <= MESSAGE and channel.overtook != self._round:
            channel.overtook = self._round
            if self._messages is None:
                self._messages = deque()
            self._messages.append(channel)
        else:
            if self._ready is None:
                self._ready = deque()
            self._ready.append(channel)

    def had_turn(self, channel: Channel) -> None:
        """Put a channel that has more to send at the end of the circle."""
        if not channel.scheduled and channel.sendable:
            channel.scheduled = True
            if self._ready is None:
                self._ready = deque()
            self._ready.append(channel)

    def remove(self, channel: Channel) -> None:
        """Take a channel's turn away."""
        if channel.scheduled:
            channel.scheduled = False
            for waiting in (self._messages, self._ready):
                if waiting and channel in waiting:
                    waiting.remove(channel)

    def take_control(self) -> tuple[list[Piece], int]:
        """All control frames and their size."""
        parts, size = self._control, self._control_size
        if parts:
            self._control, self._control_size = [], 0
        self.asks = False
        return [*parts], size

    def next(self) -> Channel | None:
        """The channel whose turn it is; it waits no longer, ``had_turn`` puts it back."""
        self.passing = bool(self._messages)
        if self._messages:
            channel = self._messages.popleft()
        elif self._ready:
            self._round += 1
            channel = self._ready.popleft()
        else:
            return None
        channel.scheduled = False
        return channel

    def cut(self, channel: Channel, quantum: int) -> tuple[list[Piece], int]:
        """One DATA frame of a channel, as pieces with its header first, and its size."""
        limits = self._limits
        most = max(limits.frame, quantum // 4) if self._ready else limits.lone_frame
        if self.passing:
            most = MESSAGE
        pieces = channel.cut(min(most, max(quantum, limits.smallest_quantum), limits.lone_frame))
        size = sum(map(len, pieces))
        return [encode_header(size, Command.DATA, channel.number), *pieces], size + 4
