"""The life of a CCCP proxy session, in one table: who is here, whose bytes count, when and why it ends.

Rule of this file: an event moves a session, nothing else does; its owner acts on where it went. Bytes pass
elsewhere (systems/cccp/pair_relay.py); ``transferred`` is added up here.

====================  =================================  ==========================================
                      persistent                         one-shot
====================  =================================  ==========================================
one side leaves       the other stays                    it ends: device-closed, client-closed
a second device       is swapped under the client        it ends: device-replaced; the new one parks
one side alone        its bytes are thrown away          unread until both are there (or thrown away)
a second client       refused                            refused
====================  =================================  ==========================================

Both end by ``/off``, by a time-out without a first client, and with the daemon. The first client cancels the
time-out for good; a further ``/on`` sets it anew unless a client is connected.

Source: TCXN CCCP, "The /on endpoint" to "The /status endpoint"; wire/cccp.md section 2.
"""

from dataclasses import dataclass
from enum import Enum, auto

from revtunnel.ground.errors import LocalError
from revtunnel.ground.networks import Address, Network, within

__all__ = ["MAX_TIMEOUT", "MAX_WHITELIST", "Life", "ProxyEvent", "ProxyOptions", "ProxySession", "SideMode"]

MAX_TIMEOUT = 86_400  # seconds
MAX_WHITELIST = 64  # entries


class Life(Enum):
    """Who is connected. The value is the word that operators read."""

    WAITING = "waiting"  # nobody
    DEVICE = "device"  # the device alone
    CLIENT = "client"  # the client alone
    JOINED = "joined"  # both
    ENDED = "ended"


class ProxyEvent(Enum):
    """What may happen to a session."""

    DEVICE_CAME = auto()
    DEVICE_LEFT = auto()
    CLIENT_CAME = auto()
    CLIENT_LEFT = auto()
    TIMED_OUT = auto()
    OFF = auto()
    STOPPED = auto()  # the daemon ends


class SideMode(Enum):
    """What becomes of the bytes of a side."""

    DISCARD = auto()  # read and thrown away, not counted
    HOLD = auto()  # not read
    PASS = auto()  # relayed and counted


_W, _D, _C, _J, _E = Life.WAITING, Life.DEVICE, Life.CLIENT, Life.JOINED, Life.ENDED
_BOTH = {
    (_W, ProxyEvent.DEVICE_CAME): _D,
    (_W, ProxyEvent.CLIENT_CAME): _C,
    (_W, ProxyEvent.TIMED_OUT): _E,
    (_D, ProxyEvent.CLIENT_CAME): _J,
    (_D, ProxyEvent.TIMED_OUT): _E,
    (_C, ProxyEvent.DEVICE_CAME): _J,
    **{(life, event): _E for life in (_W, _D, _C, _J) for event in (ProxyEvent.OFF, ProxyEvent.STOPPED)},
}
NEXT = {
    True: {  # persistent
        **_BOTH,
        (_D, ProxyEvent.DEVICE_CAME): _D,
        (_D, ProxyEvent.DEVICE_LEFT): _W,
        (_C, ProxyEvent.CLIENT_LEFT): _W,
        (_J, ProxyEvent.DEVICE_CAME): _J,
        (_J, ProxyEvent.DEVICE_LEFT): _C,
        (_J, ProxyEvent.CLIENT_LEFT): _D,
    },
    False: {
        **_BOTH,
        (_D, ProxyEvent.DEVICE_CAME): _E,
        (_D, ProxyEvent.DEVICE_LEFT): _E,
        (_C, ProxyEvent.CLIENT_LEFT): _E,
        (_J, ProxyEvent.DEVICE_CAME): _E,
        (_J, ProxyEvent.DEVICE_LEFT): _E,
        (_J, ProxyEvent.CLIENT_LEFT): _E,
    },
}
WORDS = {
    ProxyEvent.DEVICE_CAME: "device-replaced",
    ProxyEvent.DEVICE_LEFT: "device-closed",
    ProxyEvent.CLIENT_LEFT: "client-closed",
    ProxyEvent.TIMED_OUT: "timed-out",
    ProxyEvent.OFF: "off",
    ProxyEvent.STOPPED: "stopping",
}


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """What ``/on`` may say of a session."""

    persistent: bool = False
    whitelist: tuple[Network, ...] = ()  # empty: anybody
    timeout: float = 0.0  # seconds to a first client; 0: none
    target: str = ""  # which of a device's several targets; "": the first


class ProxySession:
    """One started proxy. Times are monotonic seconds."""

    __slots__ = ("ended", "hold", "life", "options", "serial", "since", "transferred", "until")

    def __init__(self, serial: str, options: ProxyOptions, now: float, hold: bool = True) -> None:
        """``hold``: a one-shot session leaves the bytes of an early side unread, else throws them away."""
        self.serial = serial
        self.options = options
        self.hold = hold
        self.since = now
        self.life = Life.WAITING
        self.ended = ""  # the word, once it has
        self.transferred = 0  # payload bytes that the other side's kernel took, of pairs that are over
        self.until = _until(options, now)  # the first client has to be here by then

    @property
    def device_connected(self) -> bool:
        """As ``/status`` says it."""
        return self.life in (Life.DEVICE, Life.JOINED)

    @property
    def client_connected(self) -> bool:
        """As ``/status`` says it."""
        return self.life in (Life.CLIENT, Life.JOINED)

    def step(self, event: ProxyEvent) -> Life:
        """Something happened.

        Raises:
            LocalError: it cannot happen now; nothing has changed.
        """
        life = NEXT[self.options.persistent].get((self.life, event))
        if life is None:
            raise LocalError(f"{event.name} in {self.life.name}")
        self.life = life
        if life is Life.ENDED:
            self.ended = WORDS[event]
        if event is ProxyEvent.CLIENT_CAME or life is Life.ENDED:
            self.until = None
        return life

    def renew(self, options: ProxyOptions, now: float) -> None:
        """``/on`` once more: other options from now on; who is connected stays."""
        self.options = options
        if not self.client_connected:
            self.until = _until(options, now)

    def refuses(self, client: Address | None) -> str:
        """Why a client from there may not come in now, in a word, or nothing. Changes nothing."""
        if self.life is Life.ENDED:
            return "off"
        if self.options.whitelist and not within(client, self.options.whitelist):
            return "not-allowed"
        return "too-many-clients" if self.client_connected else ""

    def expired(self, now: float) -> bool:
        """Whether its time is over; the owner then says TIMED_OUT."""
        return self.until is not None and now >= self.until

    @property
    def manner(self) -> SideMode:
        """What becomes of the bytes of whoever is here."""
        if self.life is Life.JOINED:
            return SideMode.PASS
        return SideMode.HOLD if self.hold and not self.options.persistent else SideMode.DISCARD


def _until(options: ProxyOptions, now: float) -> float | None:
    return now + options.timeout if options.timeout else None
