"""The life of one channel: a table with two halves and two last words.

Each direction ends by itself (EOF), and each side says exactly one last word on a channel: CLOSE, when both
directions have ended and everything was delivered, or RESET, when not. After its last word a side sends
nothing more on that number; when both have been said the number is free. A RESET that arrives before our last
word is answered by a CLOSE.

Two laws: events change the state and nothing else does; data bytes do not pass through the table.

Source: wire/link-extension.md "Commands" (EOF, CLOSE, RESET); the last-word rule is ours. The legacy wire has
CLOSE only, and says no opening: wire/readyagent.md sections 1 to 3.
"""

from collections import deque
from enum import Enum, auto
from typing import Any

from revtunnel.ground.errors import LocalError
from revtunnel.ground.origin import Origin
from revtunnel.ground.targets import Target
from revtunnel.streams.commands import After
from revtunnel.streams.window import ReceiveWindow, SendCredit

__all__ = ["LEGACY_NEXT", "NEXT", "Channel", "ChannelEvent", "ChannelState"]


class ChannelState(Enum):
    """Where a channel is; "we" is the side that holds the object."""

    OPENING = auto()  # the agent is dialling the target
    OPEN = auto()  # bytes flow both ways
    SENT_EOF = auto()  # our direction ended, theirs flows
    GOT_EOF = auto()  # theirs ended, ours flows
    ENDED = auto()  # both ended; no last word yet
    GOT_CLOSE = auto()  # both ended; their last word came, ours is owed
    SENT_LAST = auto()  # our last word is said, theirs is awaited
    CLOSED = auto()  # both said; the number is free


class ChannelEvent(Enum):
    """What happens to a channel; SEND is ours, GET is theirs."""

    OPENED = auto()
    SEND_EOF = auto()
    GET_EOF = auto()
    SEND_CLOSE = auto()
    GET_CLOSE = auto()
    SEND_RESET = auto()
    GET_RESET = auto()


_BEFORE_LAST = (
    ChannelState.OPENING,
    ChannelState.OPEN,
    ChannelState.SENT_EOF,
    ChannelState.GOT_EOF,
    ChannelState.ENDED,
)

NEXT = {
    (ChannelState.OPENING, ChannelEvent.OPENED): ChannelState.OPEN,
    (ChannelState.OPEN, ChannelEvent.SEND_EOF): ChannelState.SENT_EOF,
    (ChannelState.OPEN, ChannelEvent.GET_EOF): ChannelState.GOT_EOF,
    (ChannelState.SENT_EOF, ChannelEvent.GET_EOF): ChannelState.ENDED,
    (ChannelState.GOT_EOF, ChannelEvent.SEND_EOF): ChannelState.ENDED,
    (ChannelState.ENDED, ChannelEvent.SEND_CLOSE): ChannelState.SENT_LAST,
    (ChannelState.ENDED, ChannelEvent.GET_CLOSE): ChannelState.GOT_CLOSE,
    (ChannelState.GOT_CLOSE, ChannelEvent.SEND_CLOSE): ChannelState.CLOSED,
    (ChannelState.GOT_CLOSE, ChannelEvent.SEND_RESET): ChannelState.CLOSED,
    (ChannelState.SENT_LAST, ChannelEvent.GET_CLOSE): ChannelState.CLOSED,
    (ChannelState.SENT_LAST, ChannelEvent.GET_RESET): ChannelState.CLOSED,
    **{(state, ChannelEvent.SEND_RESET): ChannelState.SENT_LAST for state in _BEFORE_LAST},
    **{(state, ChannelEvent.GET_RESET): ChannelState.CLOSED for state in _BEFORE_LAST},
}

# The legacy wire: CLOSE ends both directions; a CLOSE that was not ours to answer needs no answer.
LEGACY_NEXT = {
    (ChannelState.OPENING, ChannelEvent.OPENED): ChannelState.OPEN,
    **{
        (state, ChannelEvent.SEND_CLOSE): ChannelState.SENT_LAST
        for state in (ChannelState.OPENING, ChannelState.OPEN)
    },
    **{
        (state, ChannelEvent.GET_CLOSE): ChannelState.GOT_CLOSE
        for state in (ChannelState.OPENING, ChannelState.OPEN)
    },
    (ChannelState.GOT_CLOSE, ChannelEvent.SEND_CLOSE): ChannelState.CLOSED,
    (ChannelState.SENT_LAST, ChannelEvent.GET_CLOSE): ChannelState.CLOSED,
}


class Channel:
    """One client's byte stream through a link: its life, its credit and what waits to be sent.

    ``owner`` belongs to the rooms above and is not looked at here. ``flushed`` says that everything the other
    side sent has left for our socket, end of file included.
    """

    __slots__ = (
        "after",
        "blocked",
        "bytes_received",
        "bytes_sent",
        "credit",
        "ending",
        "flushed",
        "heard_at",
        "late",
        "number",
        "offset",
        "origin",
        "over",
        "overtook",
        "owed",
        "owner",
        "queue",
        "queued",
        "rested",
        "scheduled",
        "session",
        "since",
        "spare",
        "state",
        "table",
        "target",
        "window",
    )

    def __init__(
        self,
        number: int,
        target: Target,
        now: float,
        table: dict[tuple[ChannelState, ChannelEvent], ChannelState] = NEXT,
        credit: SendCredit | None = None,
        window: ReceiveWindow | None = None,
    ) -> None:
        self.number = number
        self.target = target
        self.since = now
        self.heard_at = now
        self.table = table
        self.credit = credit  # None: the legacy wire knows no credit
        self.window = window
        self.state = ChannelState.OPENING
        self.owner: Any = None
        self.origin: Origin | None = None  # agent: where its client came from, if the server says so
        self.session = ""  # agent: the remote session that it is of; empty: of none
        self.after: After | None = None  # agent: the streams whose end its dial waits for
        self.queue: deque[bytes] = deque()
        self.offset = 0  # bytes of queue[0] that are already sent
        self.queued = 0
        self.scheduled = False
        self.overtook = -1  # the turn of its link at which it last went before others
        self.blocked = False  # the owner was told to stop reading
        self.ending = False  # our end of file waits behind the queue
        self.flushed = False
        self.over = False  # its end was reported
        self.late = 0  # frames without data that came for it since
        self.spare = 0  # bytes that the other side may have sent for it since
        self.rested = False  # legacy: nothing late can come for the number any more
        self.owed = 0  # bytes received and not yet consumed
        self.bytes_sent = 0
        self.bytes_received = 0

    def step(self, event: ChannelEvent) -> ChannelState:
        """Move, and return where to.

        Raises:
            LocalError: the table has no such move; the state stays.
        """
        try:
            self.state = self.table[self.state, event]
        except KeyError:
            raise LocalError(f"channel {self.number}: {event.name} in {self.state.name}") from None
        return self.state

    def allows(self, event: ChannelEvent) -> bool:
        """Whether the table has a move."""
        return (self.state, event) in self.table

    @property
    def sendable(self) -> bool:
        """Whether a turn of this channel would send something."""
        if self.queued:
            return self.credit is None or self.credit.left > 0
        # on rt1 an end of file waits for the target's answer
        return self.ending and (self.credit is None or self.state is not ChannelState.OPENING)

    def put(self, data: bytes) -> None:
        """Queue bytes behind what waits already."""
        self.queue.append(data)
        self.queued += len(data)

    def cut(self, most: int) -> list[bytes | memoryview]:
        """Take up to ``most`` bytes, within the credit, off the queue."""
        if self.credit is not None:
            most = min(most, self.credit.left)
        pieces: list[bytes | memoryview] = []
        wanted = min(most, self.queued)
        size = 0
        while size < wanted:
            head = self.queue[0]
            rest = len(head) - self.offset
            piece = min(rest, wanted - size)
            pieces.append(head if piece == len(head) else memoryview(head)[self.offset : self.offset + piece])
            size += piece
            if piece == rest:
                self.queue.popleft()
                self.offset = 0
            else:
                self.offset += piece
        self.queued -= size
        self.bytes_sent += size
        if self.credit is not None:
            self.credit.spend(size)
        return pieces

    def drop(self) -> None:
        """Forget what waits to be sent, and give the window back."""
        self.queue.clear()
        self.offset = self.queued = 0
        self.ending = False
        if self.window is not None:
            self.spare = self.window.left
            self.window.end()
            self.window = None
