"""The life of one remote session, in one table: who is here, when it is over, and the one word for why.

A session is one granted use: one person, one device, some of its offers, from-until. Rule of this file: an
event moves a session, nothing else does; its owner acts on where it went. Bytes pass elsewhere and are added
up here, for idleness counts payload either way.

============  ============  ===========  ============  ===========  =========================================
state         CLIENT_CAME   CLIENT_LEFT  DEVICE_CAME   DEVICE_LEFT  ends by
============  ============  ===========  ============  ===========  =========================================
REQUESTED     -             -            -             -            DENIED APPROVAL_LATE
CREATED       CLIENT_ONLY   -            DEVICE_ONLY   -            UNUSED CLIENT_GONE DEVICE_LATE DEVICE_GONE
CLIENT_ONLY   CLIENT_ONLY   CREATED      JOINED        -            CLIENT_GONE DEVICE_LATE DEVICE_GONE
DEVICE_ONLY   JOINED        -            DEVICE_ONLY   CREATED      UNUSED CLIENT_GONE
JOINED        JOINED        DEVICE_ONLY  JOINED        CLIENT_ONLY  CLIENT_GONE IDLE
ENDED         -             -            -             -            -
============  ============  ===========  ============  ===========  =========================================

A session that is REQUESTED waits for the device's own say; APPROVED makes it CREATED. MAXIMUM ends all
others; OWNER_END, OPERATOR, REVOKED, MUTED and STOPPED end every state. CLIENT_CAME is anybody with channels,
again and again; CLIENT_LEFT is the last of them. DEVICE_CAME where the device is already: it is swapped.

A lost connection, of the client or of the device, leaves the session alive for ``grace``. The owner's grace
runs while guests go on, and all ends with it.

Source: next/remote-sessions.md section 3; issue 10, part 2 (a grace of 60 s, the four public words).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from revtunnel.ground.declared import limit
from revtunnel.ground.errors import LocalError
from revtunnel.ground.kinds import count, seconds

__all__ = [
    "NEXT",
    "WORDS",
    "RemoteSession",
    "Role",
    "Seat",
    "SessionEvent",
    "SessionLimits",
    "SessionRefused",
    "SessionRequest",
    "SessionState",
    "Warned",
]

_SESSIONS = count("sessions", 1, 1_000_000)


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What the sessions of one server may be and how long they wait; no setting: our own measure."""

    # session_life.py
    idle: float = limit(seconds(60, 3600), 900.0, "time without a byte either way after which a session ends")
    maximum: float = limit(seconds(3600, 864_000), 86_400.0, "time that a session may last")
    warning: float = 60.0  # seconds before either at which the client programs are told; half of it at most
    grace: float = limit(seconds(1, 3600), 60.0, "time that a lost connection, or device, has to come back")
    first_use: float = 60.0  # seconds from the start to the first client, and the life of a nonce
    browser_use: float = 30.0  # the same for a nonce that goes into a web page
    device_wait: float = 30.0  # seconds that the first client waits for the device
    approval: float = 120.0  # seconds that the device's site has for its yes
    seats: int = 16  # connections of people to one session, watchers included
    # remote_sessions.py
    total: int = limit(_SESSIONS, 10_000, "sessions in all")
    per_user: int = limit(_SESSIONS, 32, "sessions of one user at once")
    per_device: int = limit(_SESSIONS, 64, "sessions to one device at once")
    ended: int = 500  # sessions that are over and still listed; the audit has all
    # nonces.py
    invitations: int = 32  # nonces of one session that are not used up
    spent: int = 65_536  # nonces that are over and still known by their fault; the oldest is forgotten first


class SessionState(Enum):
    """Who is connected. The value is the word that operators read."""

    REQUESTED = "requested"  # the device's site is asked
    CREATED = "created"  # nobody
    CLIENT_ONLY = "client"
    DEVICE_ONLY = "device"
    JOINED = "joined"  # both
    ENDED = "ended"


class SessionEvent(Enum):
    """What may happen to a session."""

    APPROVED = auto()
    CLIENT_CAME = auto()
    CLIENT_LEFT = auto()
    DEVICE_CAME = auto()
    DEVICE_LEFT = auto()
    # by time; in the order in which they win a tie
    APPROVAL_LATE = auto()
    MAXIMUM = auto()
    UNUSED = auto()
    DEVICE_LATE = auto()
    CLIENT_GONE = auto()
    DEVICE_GONE = auto()
    IDLE = auto()
    # by somebody
    DENIED = auto()  # the device's site said no
    OWNER_END = auto()
    OPERATOR = auto()
    REVOKED = auto()  # the person, the token or the grant is no more
    MUTED = auto()  # the device takes no sessions
    STOPPED = auto()  # the server ends


_S, _E = SessionState, SessionEvent
_LIVING = (_S.CREATED, _S.CLIENT_ONLY, _S.DEVICE_ONLY, _S.JOINED)
NEXT: dict[tuple[SessionState, SessionEvent], SessionState] = {
    (_S.REQUESTED, _E.APPROVED): _S.CREATED,
    (_S.CREATED, _E.CLIENT_CAME): _S.CLIENT_ONLY,
    (_S.CREATED, _E.DEVICE_CAME): _S.DEVICE_ONLY,
    (_S.CLIENT_ONLY, _E.CLIENT_CAME): _S.CLIENT_ONLY,
    (_S.CLIENT_ONLY, _E.CLIENT_LEFT): _S.CREATED,
    (_S.CLIENT_ONLY, _E.DEVICE_CAME): _S.JOINED,
    (_S.DEVICE_ONLY, _E.CLIENT_CAME): _S.JOINED,
    (_S.DEVICE_ONLY, _E.DEVICE_CAME): _S.DEVICE_ONLY,
    (_S.DEVICE_ONLY, _E.DEVICE_LEFT): _S.CREATED,
    (_S.JOINED, _E.CLIENT_CAME): _S.JOINED,
    (_S.JOINED, _E.CLIENT_LEFT): _S.DEVICE_ONLY,
    (_S.JOINED, _E.DEVICE_CAME): _S.JOINED,
    (_S.JOINED, _E.DEVICE_LEFT): _S.CLIENT_ONLY,
    **{(_S.REQUESTED, event): _S.ENDED for event in (_E.DENIED, _E.APPROVAL_LATE)},
    **{(state, _E.UNUSED): _S.ENDED for state in (_S.CREATED, _S.DEVICE_ONLY)},
    **{(state, _E.CLIENT_GONE): _S.ENDED for state in _LIVING},
    **{
        (state, event): _S.ENDED
        for state in (_S.CREATED, _S.CLIENT_ONLY)
        for event in (_E.DEVICE_LATE, _E.DEVICE_GONE)
    },
    (_S.JOINED, _E.IDLE): _S.ENDED,
    **{(state, _E.MAXIMUM): _S.ENDED for state in _LIVING},
    **{
        (state, event): _S.ENDED
        for state in (_S.REQUESTED, *_LIVING)
        for event in (_E.OWNER_END, _E.OPERATOR, _E.REVOKED, _E.MUTED, _E.STOPPED)
    },
}
WORDS = {
    _E.DENIED: "denied",
    _E.APPROVAL_LATE: "approval-timeout",
    _E.UNUSED: "unused",
    _E.DEVICE_LATE: "device-timeout",
    _E.CLIENT_GONE: "client-gone",
    _E.DEVICE_GONE: "device-gone",
    _E.IDLE: "idle",
    _E.MAXIMUM: "maximum",
    _E.OWNER_END: "owner",
    _E.OPERATOR: "operator",
    _E.REVOKED: "revoked",
    _E.MUTED: "muted",
    _E.STOPPED: "stopping",
}


class Role(Enum):
    """What one connection to a session is for; a nonce is bound to it."""

    OWNER = "owner"
    DEVICE = "device"
    WATCH = "watch"  # is told about the session, and has no channels
    USE = "use"  # has channels of its own
    TAKE = "take"  # becomes the owner, whose client is ended

    @property
    def side(self) -> str:
        """The endpoint at which it counts: ``client`` or ``device``."""
        return "device" if self is Role.DEVICE else "client"


class SessionRefused(Exception):
    """Something is not possible with this session, or not now; ``word`` is for programs."""

    def __init__(self, word: str, detail: str) -> None:
        super().__init__(detail)
        self.word = word


class Seat(NamedTuple):
    """One connection to a session; a role TAKE has become OWNER by now."""

    number: int
    role: Role
    person: str
    since: float


class Warned(NamedTuple):
    """It will be over soon: ``word`` is ``idle`` or ``maximum``."""

    word: str
    left: float  # seconds


@dataclass(frozen=True, slots=True)
class SessionRequest:
    """What is asked for, after the grant was found."""

    owner: str
    serial: str
    offers: tuple[str, ...]  # names of the device's offers
    grant: str = ""  # what allowed it, for the audit
    private: bool = False  # never shared
    take_over: bool = False  # somebody invited may take it over
    ask: bool = False  # the device's site has to say yes first


class RemoteSession:
    """One session. Times are monotonic seconds."""

    def __init__(self, number: str, wish: SessionRequest, limits: SessionLimits, now: float) -> None:
        self.id = number  # public: 32 hexadecimal digits
        self.wish = wish
        self.owner = wish.owner  # whoever took it over, later on
        self.limits = limits
        self.state = SessionState.REQUESTED
        self.since = now
        self.joined_at: float | None = None  # for the first time
        self.ended_at: float | None = None
        self.ended = ""  # the word, once it has
        self.detail = ""
        self.bytes_to_device = 0
        self.bytes_to_client = 0
        self.seats: dict[int, Seat] = {}
        self._numbers = 0
        self._times: dict[SessionEvent, float] = {}  # what happens by time, and when
        self._active = now  # of the last payload byte, or of the last join
        self._warned: set[str] = set()
        self._owner_was_here = False
        if wish.ask:
            self._times[SessionEvent.APPROVAL_LATE] = now + limits.approval
        else:
            self.step(SessionEvent.APPROVED, now)

    # -- what it is

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self.state is SessionState.ENDED

    @property
    def status(self) -> str:
        """One of the four public words: initializing, created, started, terminated."""
        if self.state is SessionState.REQUESTED:
            return "initializing"
        if self.over:
            return "terminated"
        return "created" if self.joined_at is None else "started"

    def seat_of(self, role: Role) -> Seat | None:
        """The owner's connection, or the device's."""
        return next((seat for seat in self.seats.values() if seat.role is role), None)

    @property
    def _has_client(self) -> bool:
        return any(seat.role in (Role.OWNER, Role.USE) for seat in self.seats.values())

    # -- what happens

    def step(self, event: SessionEvent, now: float, detail: str = "") -> SessionState:
        """Something happened, other than somebody's coming or leaving.

        Raises:
            LocalError: it cannot happen now; nothing has changed.
        """
        state = NEXT.get((self.state, event))
        if state is None:
            raise LocalError(f"{event.name} in {self.state.name}")
        before, self.state = self.state, state
        if event is SessionEvent.APPROVED:
            self._times = {
                SessionEvent.UNUSED: now + self.limits.first_use,
                SessionEvent.MAXIMUM: now + self.limits.maximum,
            }
        elif state is SessionState.ENDED:
            self.ended, self.detail, self.ended_at = WORDS[event], detail, now
            self._times.clear()
        elif state is SessionState.JOINED is not before:
            self.joined_at = now if self.joined_at is None else self.joined_at
            self._active = now
        return state

    def come(self, role: Role, person: str, now: float) -> tuple[Seat, list[tuple[Seat, str]]]:
        """Somebody, or the device, has proved who it is: its seat, and whoever loses his for it, with a word.

        Raises:
            SessionRefused: ``ended``, ``not-approved``, ``no-take-over``, ``too-many``; nothing has changed.
        """
        self._check(role)
        fresh = Role.OWNER if role is Role.TAKE else role
        word = "taken" if role is Role.TAKE else "replaced"
        displaced = [(self.seats.pop(seat.number), word) for seat in self._displaced(role)]
        if role is Role.TAKE:
            self.owner = person
        self._numbers += 1
        seat = self.seats[self._numbers] = Seat(self._numbers, fresh, person, now)
        if fresh is Role.DEVICE:
            self._forget(SessionEvent.DEVICE_LATE, SessionEvent.DEVICE_GONE)
            self.step(SessionEvent.DEVICE_CAME, now)
        elif fresh is not Role.WATCH:
            self._client_came(fresh, now)
        return seat, displaced

    def leave(self, seat: Seat, now: float) -> None:
        """A connection is over. A session that gave the seat to another, or ended, knows it already."""
        if self.over or self.seats.pop(seat.number, None) is None:
            return
        if seat.role is Role.DEVICE:
            self._times[SessionEvent.DEVICE_GONE] = now + self.limits.grace
            self.step(SessionEvent.DEVICE_LEFT, now)
        elif seat.role is not Role.WATCH:
            last = not self._has_client
            if last or seat.role is Role.OWNER:
                self._times.setdefault(SessionEvent.CLIENT_GONE, now + self.limits.grace)
            if last:
                self.step(SessionEvent.CLIENT_LEFT, now)

    def moved(self, to_device: int, to_client: int, now: float) -> None:
        """So many payload bytes went each way."""
        self.bytes_to_device += to_device
        self.bytes_to_client += to_client
        if to_device or to_client:
            self._active = now
            self._warned.discard("idle")

    # -- by time

    def due(self) -> float:
        """When to look next, with ``expired`` and ``warning``; infinity: never. Bytes only make it later."""
        ends = min((at for at, _ in self._deadlines()), default=float("inf"))
        warns = (over - lead for word, over, lead in self._warnings() if word not in self._warned)
        return min(ends, *warns, float("inf"))

    def expired(self, now: float) -> SessionEvent | None:
        """What has happened by time, the earliest first; its owner says so with ``step``."""
        due = [(at, event.value) for at, event in self._deadlines() if at <= now]
        return SessionEvent(min(due)[1]) if due else None

    def warning(self, now: float) -> Warned | None:
        """What the client programs have to be told now; said once."""
        for word, over, lead in self._warnings():
            if over - lead <= now and word not in self._warned:
                self._warned.add(word)
                return Warned(word, max(0.0, over - now))
        return None

    # -- inside

    def _check(self, role: Role) -> None:
        """Refuse who may not come now."""
        if self.over:
            raise SessionRefused("ended", f"the session has ended: {self.ended}")
        if self.state is SessionState.REQUESTED:
            raise SessionRefused("not-approved", "the device's site has not said yes")
        if role is Role.TAKE and not self.wish.take_over:
            raise SessionRefused("no-take-over", "this session cannot be taken over")
        people = sum(seat.role is not Role.DEVICE for seat in self.seats.values())
        if role in (Role.USE, Role.WATCH) and people >= self.limits.seats:
            raise SessionRefused("too-many", f"{people} people are connected, limit {self.limits.seats}")

    def _displaced(self, role: Role) -> list[Seat]:
        """Who loses his seat for one who comes: whoever has the only one, or all of the owner before."""
        seats = [*self.seats.values()]
        if role is Role.TAKE:
            return [seat for seat in seats if seat.person == self.owner and seat.role.side == "client"]
        return [seat for seat in seats if seat.role is role and role in (Role.OWNER, Role.DEVICE)]

    def _client_came(self, role: Role, now: float) -> None:
        """Whose absence was waited for is here; the first one waits for the device."""
        first = SessionEvent.UNUSED in self._times
        self._forget(SessionEvent.UNUSED)
        if role is Role.OWNER or not self._owner_is_missed:
            self._forget(SessionEvent.CLIENT_GONE)
        if role is Role.OWNER:
            self._owner_was_here = True
        if first and self.state is SessionState.CREATED and SessionEvent.DEVICE_GONE not in self._times:
            self._times[SessionEvent.DEVICE_LATE] = now + self.limits.device_wait
        self.step(SessionEvent.CLIENT_CAME, now)

    @property
    def _owner_is_missed(self) -> bool:
        """Whether the owner was here and has left."""
        return self._owner_was_here and self.seat_of(Role.OWNER) is None

    def _forget(self, *events: SessionEvent) -> None:
        for event in events:
            self._times.pop(event, None)

    def _deadlines(self) -> Iterator[tuple[float, SessionEvent]]:
        for event, at in self._times.items():
            yield at, event
        if self.state is SessionState.JOINED:
            yield self._active + self.limits.idle, SessionEvent.IDLE

    def _warnings(self) -> Iterator[tuple[str, float, float]]:
        """What is warned of, when it will be over, and how long before that it is said.

        At most half of the idle time before: bytes then never move a warning to before what it replaces.
        """
        limits, maximum = self.limits, self._times.get(SessionEvent.MAXIMUM)
        if maximum is not None:
            yield "maximum", maximum, min(limits.warning, limits.maximum / 2)
        if self.state is SessionState.JOINED:
            yield "idle", self._active + limits.idle, min(limits.warning, limits.idle / 2)
