"""Who is let in: strangers by what their source did before, devices and clients by the record of the device.

The rules: every open is asked here, with a word when the answer is no. What is asked changes nothing but how
many tries are left; only a failure, which is told afterwards, does. A source that owes too much gets a try
now and then all the same, and many where a device proved itself lately: so who proves key or certificate
comes in beside a wrong agent of his site, and what that costs is bounded.

Source: faults.md "Pre-auth limits", "Lockout per serial", "Per-device authority record"; issue "In the place
of the originals", 17.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

from revtunnel.fleet.device_records import DeviceRecords
from revtunnel.fleet.known_sources import KnownSources
from revtunnel.fleet.penalties import Penalties
from revtunnel.fleet.rates import Bucket, Rates
from revtunnel.ground.limits import PenaltyLimits
from revtunnel.ground.networks import network_of
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.targets import Offer
from revtunnel.link.handshake import LinkDenied

__all__ = ["LOOPBACK", "AccessControl"]

LOOPBACK = (network_of("127.0.0.0/8"), network_of("::1"))


TRY_EVERY = 5.0  # seconds to two tries of a source that owes too much and is not known: enrolment takes two


class AccessControl:
    """Records and penalties of one server. ``wall`` gives seconds since 1970."""

    on_records: Callable[[], None] | None = None  # before there are others

    def __init__(
        self,
        wall: Callable[[], float],
        records: DeviceRecords | None = None,
        penalties: Penalties | None = None,
    ) -> None:
        self._wall = wall
        self.records = records or DeviceRecords()
        self.penalties = Penalties(PenaltyLimits(), LOOPBACK) if penalties is None else penalties
        self._known = KnownSources()
        # tries of those that owe too much: from known sources, from others, and from all the others together
        self._tries_of_known = Rates(burst=200.0, second=50.0)
        self._tries = Rates(burst=4.0, second=2.0 / TRY_EVERY, batch=2.0)
        self._tries_of_all = Bucket(50.0, 50.0, 0.0)

    @property
    def records(self) -> DeviceRecords:
        """Those in force."""
        return self._records

    @records.setter
    def records(self, records: DeviceRecords) -> None:
        if self.on_records is not None:
            self.on_records()
        self._records = records
        self._looked = self._wall()

    def ended(self) -> list[str]:
        """Whose records' time was over since this was asked last; ``*`` is the default record."""
        before, self._looked = self._looked, self._wall()
        ends = self._records.ends
        first, last = (bisect_right(ends, at, key=lambda end: end[0]) for at in (before, self._looked))
        return [name for _, name in ends[first:last]]

    def stranger(self, peer: str, now: float) -> str:
        """Why a connection from ``HOST:PORT`` is not even read, or nothing: that takes one of its tries."""
        left = self.penalties.refused_for(peer, now)
        if not left or self._may_try(peer, now):
            return ""
        return f"its address failed too often; refused for {left:.0f} s"

    def next_try(self, peer: str, now: float) -> float:
        """Seconds until a source that is refused is listened to, if none there comes before; 0.0: it is."""
        every = 1.0 if self.knows(peer, now) else TRY_EVERY
        return min(every, self.penalties.refused_for(peer, now))

    def refused_after(self, peer: str, reason: str, now: float) -> float:
        """Seconds for which its source is refused once it has failed so; 0.0: it is not, or is known."""
        return 0.0 if self.knows(peer, now) else self.penalties.refused_after(peer, reason, now)

    def _may_try(self, peer: str, now: float) -> bool:
        if self.knows(peer, now):
            return self._tries_of_known.take(peer, now)
        return self._tries.take(peer, now) and self._tries_of_all.take(now)

    # -- sources that are known

    def knows(self, peer: str, now: float) -> bool:
        """Whether a device proved itself from there lately."""
        return self._known.knows(peer, now)

    def proved(self, peer: str, now: float) -> None:
        """A device proved who it is, from ``HOST:PORT``."""
        limits = self.penalties.limits
        self._known.proved(peer, now, limits.known, limits.sources)

    def arrived(self, peer: str) -> None:
        """The same, and its link is up; ``left`` follows."""
        self._known.arrived(peer)

    def left(self, peer: str, now: float) -> None:
        """The link of a device that proved itself is gone."""
        limits = self.penalties.limits
        self._known.left(peer, now, limits.known, limits.sources)

    # -- devices and clients

    def device(self, serial: str, peer: str, now: float, certified: bool = False) -> None:
        """An agent that passed its handshake wants to come in; ``certified``: by a certificate.

        Raises:
            Denied: its record is over, or its serial is locked to where it comes from. It is told no more
                than after a wrong proof.
        """
        left = self.penalties.locked_for(serial, peer, now)
        if left and not certified:  # a certificate cannot be guessed
            detail = f"serial {serial} failed too often from there; locked for {left:.0f} s"
            raise LinkDenied(GoAway.DENIED, detail, serial, word="locked")
        if self.expired(serial):
            detail = f"the record of {serial} ended on {self.records.of(serial).row()['expires']}"
            raise LinkDenied(GoAway.DENIED, detail, serial, word="expired")

    def client(self, serial: str, peer: str, pool: str, running: int) -> str:
        """Why a client from ``HOST:PORT`` may not have a channel beside ``running`` others, or nothing."""
        most = self.records.of(serial).channels
        refused = self.records.refuses(serial, peer, pool, self._wall())
        return refused or ("too-many-clients" if most is not None and running >= most else "")

    def stream(self, serial: str, peer: str, pool: str, offers: Sequence[Offer]) -> str:
        """Why a running channel of a client to one of these offers must end, in a sentence, or nothing."""
        refused = self.records.refuses(serial, peer, pool, self._wall())
        if refused:
            return "its record is over" if refused == "expired" else "clients from there are not allowed"
        allowed = not offers or self.offers(serial, offers)
        return "" if allowed else "the record of its device does not allow the target"

    def offers(self, serial: str, offers: Iterable[Offer]) -> tuple[Offer, ...]:
        """Those offers of a device that its record allows."""
        record = self.records.of(serial)
        return tuple(offer for offer in offers if record.has_target(offer))

    def expired(self, serial: str) -> bool:
        """Whether a device's record is over."""
        return self.records.expired(serial, self._wall())

    def failed(self, peer: str, reason: str, serial: str, shaken: bool, now: float) -> None:
        """A connection never became a link.

        Args:
            reason: the word of its refusal.
            serial: who it said to be, if it got so far.
            shaken: whether its handshake was in order; what was refused then is no failure.
        """
        if not shaken:
            self.penalties.failed(peer, reason, serial if reason == "denied" else "", now)
