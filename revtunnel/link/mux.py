"""The channels of one link, whatever the wire; ``rt1.py`` and ``legacy.py`` speak the wires.

Frames go in (``receive``) and come back as a list of happenings for the owner to act on; bytes to write come
out of ``take``. Nothing here knows a socket or a clock. A RemoteError from any method ends the link.

Source: house.md rules 3 and 5; wire/readyagent.md section 5; wire/link-extension.md.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.origin import Origin
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Offer, Target
from revtunnel.link.liveness import Liveness
from revtunnel.link.send_scheduler import Piece, SendScheduler
from revtunnel.streams.channel import Channel
from revtunnel.streams.commands import After, Command
from revtunnel.streams.consent_messages import ConsentRequest
from revtunnel.streams.frames import Frame, encode_header
from revtunnel.streams.numbers import Numbers, Tally
from revtunnel.streams.offer_messages import Answer, OfferChange
from revtunnel.streams.service_state import ServiceState

__all__ = [
    "Consented",
    "Data",
    "Dial",
    "EndOfFile",
    "Glitch",
    "GoingAway",
    "Happening",
    "Mux",
    "Offered",
    "OffersAsked",
    "Opened",
    "Over",
    "RecallOf",
    "Recalled",
    "ServiceSaid",
    "SessionAsked",
    "SessionOver",
    "Stalled",
    "Wanted",
]


class Dial(NamedTuple):
    """Agent: the server wants this channel's target; answer with ``opened`` or ``reset``."""

    channel: Channel


class Opened(NamedTuple):
    """Server: the target answered; the client may be read."""

    channel: Channel


class Data(NamedTuple):
    """Bytes for this channel's socket; tell ``consumed`` when they have left for it."""

    channel: Channel
    payload: bytes


class EndOfFile(NamedTuple):
    """No more bytes for this channel's socket; tell ``flushed`` when that reached it."""

    channel: Channel


class Over(NamedTuple):
    """The channel is over, said once. Anything but CLOSED: abort the socket."""

    channel: Channel
    reason: Ended
    detail: str


class Glitch(NamedTuple):
    """The other side did something odd that was tolerated."""

    detail: str


class GoingAway(NamedTuple):
    """The other side opens no more channels and wants us to leave when the running ones end."""

    reason: GoAway
    retry_after: int  # seconds
    detail: str
    place: str = ""  # where to go instead


class Stalled(NamedTuple):
    """A wire without credit: the link is not read any more because this channel's socket takes nothing."""

    channel: Channel
    owed: int  # bytes


class Wanted(NamedTuple):
    """Agent: the server wants one data socket for each ticket."""

    tickets: list[bytes]


class RecallOf(NamedTuple):
    """Agent: the data socket of this number failed its client at the server; answer with ``recalled``."""

    number: int


class Recalled(NamedTuple):
    """Server: tell ``told`` whether the target of a data socket has had nothing and never will."""

    told: Callable[[bool], None]
    in_time: bool


class SessionAsked(NamedTuple):
    """Agent: may this session be? Answer with CONSENT, whenever that is known."""

    asked: ConsentRequest


class SessionOver(NamedTuple):
    """Agent: this session is over."""

    session: str


class Consented(NamedTuple):
    """Server: the device's site says yes or no to a session; after a yes a no takes it back."""

    session: str
    yes: bool
    why: str


class Offered(NamedTuple):
    """Server: what the agent offers from now on; ``answer``: to what it was asked for."""

    offers: tuple[Offer, ...]
    answer: Answer | None


class OffersAsked(NamedTuple):
    """Agent: the server wants another offer, or one less; None: it cannot be read, and why."""

    change: OfferChange | None
    why: str


class ServiceSaid(NamedTuple):
    """Server: whether a service answers, as the agent has found."""

    state: ServiceState


Happening = (
    Dial
    | Opened
    | Data
    | EndOfFile
    | Over
    | Glitch
    | GoingAway
    | Stalled
    | Wanted
    | SessionAsked
    | SessionOver
    | Consented
    | Offered
    | OffersAsked
    | ServiceSaid
    | RecallOf
    | Recalled
)


class Mux(ABC):
    """What both wires share. ``opens`` is True at the server, which opens channels, False at the agent."""

    wire = ""
    early_read = False  # whether a client is read before its target answered
    answers = True  # whether the wire says that the target answered
    origins = False  # whether a client's origin is told to the agent
    services = False  # whether the agent says which services answer
    sessions = False  # whether the agent is asked for sessions, and told which one a channel is of
    after = False  # whether the agent waits for streams that have ended before it dials

    def __init__(self, limits: LinkLimits, opens: bool, now: float) -> None:
        self.limits = limits
        self.opens = opens
        self.liveness = Liveness(limits, now)
        self.channels: dict[int, Channel] = {}
        self.service_states: dict[str, ServiceState] = {}  # server: of those that the agent looks at
        self.glitches = Tally(limits.glitches, limits.glitch_window, "oddities")
        self._numbers = Numbers(limits.channels)
        self._turns = SendScheduler(limits)
        self._later: list[Happening] = []
        self._pong: bytes | None = None  # rt1: the answer to a PING, which waits
        self._listens = 1  # the one that began the link

    # -- what the owner calls

    @property
    def free_numbers(self) -> int:
        """How many channels could be opened now."""
        return self._numbers.free

    @property
    def running(self) -> int:
        """Channels that are not over."""
        return sum(not channel.over for channel in self.channels.values())

    @abstractmethod
    def judge(self, size: int, command: int, channel: int) -> None:
        """Refuse a frame by its header; see FrameDecoder."""

    @abstractmethod
    def receive(self, frame: Frame, now: float) -> list[Happening]:
        """Take one frame.

        Raises:
            RemoteError: the link is over.
        """

    @abstractmethod
    def connect(
        self,
        target: Target,
        now: float,
        origin: Origin | None = None,
        session: str = "",
        after: After | None = None,
    ) -> Channel | None:
        """Server: open a channel to a target, or None when no number is free.

        ``origin``, where the client came from, ``session``, of which it is, and ``after``, which streams are
        to be closed before, are told to an agent that asked for that.
        """

    @abstractmethod
    def opened(self, channel: Channel) -> None:
        """Agent: the target answered."""

    @abstractmethod
    def reset(self, channel: Channel, reason: Ended, detail: str, now: float) -> list[Happening]:
        """End a channel abnormally; what waits in its queue is dropped. The answer says Over, once."""

    @abstractmethod
    def consumed(self, channel: Channel, size: int, now: float) -> None:
        """Bytes of a Data happening have left for the channel's socket."""

    @abstractmethod
    def flushed(self, channel: Channel, now: float) -> list[Happening]:
        """Everything of the other side, and its end of file, has left for the channel's socket."""

    @abstractmethod
    def tick(self, now: float) -> list[Happening]:
        """Do what time asks for; look again after ``due``."""

    def due(self, now: float) -> float:
        """Seconds until the next ``tick``; while there are channels their sockets are looked at as well."""
        due = self.liveness.due(now)
        return min(due, self.limits.busy_keepalive) if self.channels else due

    @abstractmethod
    def goaway(self, reason: GoAway, retry_after: int, detail: str, place: str = "") -> None:
        """Ask the other side to leave, for another place. Silent on a wire that has no word for it."""

    @property
    def holds_back(self) -> bool:
        """Whether the link itself should not be read now (a wire without credit)."""
        return False

    @property
    def waiting(self) -> bool:
        """Whether ``take`` has anything to give."""
        return self._turns.waiting or bool(self._later) or self._pong is not None

    def straight(self, channel: Channel, size: int, quantum: int, now: float) -> bytes:
        """The header of DATA before which nothing waits, to be written now with it; empty: ``send`` it."""
        if self.waiting or channel.queued or channel.ending or channel.over:
            return b""
        if not 0 < size <= min(quantum, self.limits.lone_frame):
            return b""
        if channel.credit is not None:
            if channel.credit.left < size:
                return b""
            channel.credit.spend(size)
        channel.bytes_sent += size
        self.liveness.sent(now)
        return encode_header(size, Command.DATA, channel.number)

    def send(self, channel: Channel, data: bytes) -> bool:
        """Queue a socket's bytes; False: stop reading it until ``take`` names the channel."""
        if channel.over:
            return True
        channel.put(data)
        self._turns.schedule(channel)
        if channel.queued >= self.limits.queue:
            channel.blocked = True
        return not channel.blocked

    def end(self, channel: Channel) -> None:
        """A socket reached its end of file: it is passed on behind the queue."""
        if not channel.over:
            channel.ending = True
            self._turns.schedule(channel)

    def take(self, quantum: int, now: float) -> tuple[list[Piece], list[Channel], list[Happening]]:
        """About ``quantum`` bytes in pieces, the channels whose sockets may be read again, what happened."""
        unanswered = self._turns.asks
        parts, size = self._turns.take_control()
        readable: list[Channel] = []
        while size < quantum and (channel := self._turns.next()) is not None:
            if channel.queued:
                pieces, cut = self._turns.cut(channel, quantum)
                parts += pieces
                size += cut
                unanswered = True
            if not channel.queued and channel.sendable:
                channel.ending = False
                parts.append(self._last_of_direction(channel, now))
                unanswered = True
            elif channel.blocked and channel.queued < self.limits.queue // 2:
                channel.blocked = False
                readable.append(channel)
            self._turns.had_turn(channel)
        if unanswered:
            self.liveness.sent(now)
        late, _ = self._turns.take_control()
        later, self._later = self._later, []
        return parts + late, readable, later

    def lost(self) -> list[Channel]:
        """The link is gone: the channels that were not over, now over."""
        cut = [channel for channel in self.channels.values() if not channel.over]
        for channel in cut:
            channel.over = True
        for channel in self.channels.values():
            channel.drop()
        self.channels.clear()
        return cut

    # -- what the wires share

    @abstractmethod
    def _last_of_direction(self, channel: Channel, now: float) -> bytes:
        """The frame that says: no more bytes in our direction. It stands behind the last of them."""

    def _over(self, channel: Channel, reason: Ended, detail: str) -> list[Happening]:
        """Report an end, once, and let go of what the channel holds."""
        if channel.over:
            return []
        channel.over = True
        self._turns.remove(channel)
        channel.drop()
        return [Over(channel, reason, detail)]

    def _forget(self, channel: Channel) -> None:
        """Nothing more can come for this number."""
        if self.channels.get(channel.number) is channel:
            del self.channels[channel.number]
            channel.drop()
            if self.opens:
                self._numbers.give(channel.number)

    def _listen(self, frame: Frame, now: float) -> list[Happening]:
        """LISTEN on a link that is up: a second one is odd, a third one too many (faults.md F11, F12)."""
        self._listens += 1
        if not self.opens:
            raise RemoteError("LISTEN at the agent")
        if self._listens > 2:
            raise RemoteError("LISTEN for the third time")
        return self._glitch("a second LISTEN", now)

    def _glitch(self, detail: str, now: float) -> list[Happening]:
        self.glitches.add(now)
        return [Glitch(detail)]

    def _check_alive(self, now: float) -> None:
        if self.liveness.dead(now):
            raise RemoteError("silent: a heartbeat stayed unanswered")
