"""Which ports of one pool are free, and which comes next.

Rule of this file: a port of a pool is in exactly one of six places: fixed (reserved by name, never given to
others), leased, quarantined, spoiled, free after use, or fresh (never used). Fresh ports go first and a
cursor walks over them once; then the free port that was given back longest ago. So the port that somebody
just lost is the last one that somebody else gets.

    fresh --> leased --> quarantined --> free --> leased ...      (given back)
              leased --> spoiled -----> free                      (the system says another program has it)

Source: wire/cccp.md section 2 "port reuse", faults.md N3 and H9; ours for the rest.
"""

from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from revtunnel.fleet.away_ports import AwayPorts
from revtunnel.fleet.pools import Lease, Pool, PortState, Use
from revtunnel.ground.deadlines import Deadlines

__all__ = ["Counts", "FreePorts"]


@dataclass(frozen=True, slots=True)
class Counts:
    """How the ports of a pool are spread: the first five after ``size`` add up to it."""

    size: int
    free: int
    leased: int
    fixed: int
    quarantined: int
    spoiled: int
    sticky: int  # of those leased: the device has left
    outside: int = 0  # leases under this pool's name whose port is in none of its ranges


class FreePorts:
    """The ports of one pool. It knows numbers and how they ended; who holds them is for leases.py.

    ``away`` has those whose devices have left; who leases a port anew takes it out of there.
    """

    def __init__(self, pool: Pool, reserved: Collection[int]) -> None:
        self.pool = pool
        self._fixed = frozenset(port for port in reserved if port in pool)
        self._fresh = iter(pool)
        self._leased: set[int] = set()
        self.away = AwayPorts()  # leased, their devices have left
        self._resting: dict[int, Lease] = {}  # quarantined or spoiled
        self._spoiled = 0  # of those resting
        self._quarantined: Counter[str] = Counter()  # of those resting, by the serial that had them
        self._ends: Deadlines[int] = Deadlines()
        self._free: OrderedDict[int, Lease] = OrderedDict()  # given back longest ago first
        self._aside: dict[int, Lease] = {}  # how fixed ports ended, should their reservation go away

    def covers(self, port: int) -> bool:
        """Whether ``port`` is of this pool and not reserved by name."""
        return port in self.pool and port not in self._fixed

    def take(self, now: float) -> int | None:
        """The next free port, leased from now on; None when there is none."""
        self.lapse(now)
        port = next((port for port in self._fresh if self._is_fresh(port)), None)
        if port is None:
            port = next(iter(self._free), None)
        if port is None:
            port = self._rested_least(now)
        if port is not None:
            self.hold(port)
        return port

    def claim(self, port: int, use: Use, now: float) -> bool:
        """Lease exactly this port if it is free, or in quarantine after this same use."""
        self.lapse(now)
        last = self._resting.get(port)
        own = last is not None and last.state is PortState.QUARANTINED and last.use == use
        if not (own or port in self._free or self._is_fresh(port)):
            return False
        self.hold(port)
        return True

    def hold(self, port: int) -> None:
        """Lease this covered port, whatever it was."""
        self._forget(port)
        self._leased.add(port)

    def rest(self, ended: Lease) -> None:
        """A port of this pool was given back or spoiled; it is free again from ``ended.until`` on."""
        port = ended.port
        if port in self._fixed:
            self._aside[port] = ended
            return
        self._forget(port)
        self._resting[port] = ended
        self._spoiled += ended.state is PortState.SPOILED
        self._quarantined[ended.serial] += ended.state is PortState.QUARANTINED
        self._ends.set(port, ended.until)

    def lapse(self, now: float) -> None:
        """Free the ports whose quarantine or spoiled time is over."""
        for port in self._ends.due(now):
            ended = self._resting[port]
            self._forget(port)
            self._free[port] = ended

    def next_expiry(self) -> float | None:
        """When the next quarantine or spoiled time ends."""
        return self._ends.earliest()

    @property
    def resting(self) -> Mapping[int, Lease]:
        """The ports that are quarantined or spoiled, and how they ended."""
        return self._resting

    def quarantined_of(self, serial: str) -> int:
        """How many ports are quarantined that a device had last."""
        return self._quarantined.get(serial, 0)

    def given_back_first(self) -> Lease | None:
        """How the port ended that is quarantined longest."""
        resting = self._resting.values()
        return next((each for each in resting if each.state is PortState.QUARANTINED), None)

    def history(self) -> list[Lease]:
        """How every port that is not leased ended last; what another FreePorts needs to go on from here."""
        return [*self._free.values(), *self._resting.values(), *self._aside.values()]

    def counts(self) -> Counts:
        """How the ports are spread; costs no walk over them."""
        size, fixed, leased, resting = len(self.pool), len(self._fixed), len(self._leased), len(self._resting)
        return Counts(
            size=size,
            free=size - fixed - leased - resting,
            leased=leased,
            fixed=fixed,
            quarantined=resting - self._spoiled,
            spoiled=self._spoiled,
            sticky=len(self.away),
        )

    def _rested_least(self, now: float) -> int | None:
        """A port that has been quarantined long enough for a pool without others."""
        least, first = self.pool.quarantine_least, self.given_back_first()
        rested = least is not None and first is not None and first.since <= now - least
        return first.port if first is not None and rested else None

    def _is_fresh(self, port: int) -> bool:
        known = port in self._leased or port in self._resting or port in self._free
        return self.covers(port) and not known

    def _forget(self, port: int) -> None:
        """Take the port out of whichever place it is in."""
        self._leased.discard(port)
        self.away.drop(port)
        self._free.pop(port, None)
        ended = self._resting.pop(port, None)
        if ended is not None:
            self._ends.set(port, None)
            self._spoiled -= ended.state is PortState.SPOILED
            self._quarantined[ended.serial] -= ended.state is PortState.QUARANTINED
            if not self._quarantined[ended.serial]:
                del self._quarantined[ended.serial]
