"""The port allocator: which port is promised to which target of which device, and until when.

Rule of this file: a promise is not a socket. Nothing is bound here; the caller binds ``lease.address`` and
``lease.port`` and keeps that socket as long as it means to (never bind, close and bind again), and calls
``spoil`` when the system says that another program has the port. Every change that must survive a restart is
in the ledger before the method returns.

A use (one target of one device) holds at most one lease; a port is promised to at most one use.

    open ----> RESERVED --keep--> STICKY --open--> RESERVED   the device left, and came back to its port
    release, or its time is over  --> the port is QUARANTINED, then free, last in the queue
    spoil    --> the port is SPOILED for a while, the use has the next one

Source: wire/cccp.md section 2, wire/emo.md section 3 (registration), faults.md N3, H8, H9, H12; ours for
sticky leases, spoiled ports and reclaiming.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from revtunnel.fleet.free_ports import Counts, FreePorts
from revtunnel.fleet.lease_rows import Ledger, VolatileLedger, revive
from revtunnel.fleet.lease_table import LeaseTable
from revtunnel.fleet.pools import Lease, Pool, PortState, Use
from revtunnel.ground.errors import LocalError

__all__ = ["HoldsEnough", "LeaseError", "Leases", "NoFreePort", "NotReserved", "PortTaken", "Rules"]

MOST = 64  # ports of one device where nobody says otherwise


class LeaseError(Exception):
    """No port can be promised; the text says why, with numbers, and names no other device.

    ``rest``: when asking again is of use, as far as quarantines say it.
    """

    def __init__(self, text: str, rest: str = "") -> None:
        super().__init__("; ".join(filter(None, (text, rest))))
        self.rest = rest


class NoFreePort(LeaseError):
    """Every port of the pool is leased, quarantined, spoiled or fixed; CCCP answers 503."""


class HoldsEnough(LeaseError):
    """The device has as many ports as it may."""


class NotReserved(LeaseError):
    """The port asked for by number is not this use's to have; EMO answers F."""


class PortTaken(LeaseError):
    """The port asked for by number, or fixed by the settings, is held by something else."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all pools."""

    spoiled_for: float = 300.0  # seconds a port found in use by another program is set aside
    reclaim: bool = True  # an exhausted pool takes back ports of devices that are away (away_ports.py)


class Leases:
    """All promises of one server. ``now`` is monotonic seconds and never goes back."""

    def __init__(
        self,
        pools: Sequence[Pool],
        now: float,
        reservations: Mapping[Use, int] | None = None,
        ledger: Ledger | None = None,
        rules: Rules | None = None,
    ) -> None:
        """Take up the promises that the ledger kept; their devices count as away.

        Raises:
            ValueError: pools and reservations do not fit together (``pools.conflicts``).
        """
        self.most_of: Callable[[str], int] = lambda serial: MOST  # ports that a device may have
        self.on_ended: Callable[[Lease], None] = lambda lease: None  # given back, or its time is over
        self.until: Callable[[float], str] = _for_another  # how an end is told that is so many seconds away
        ledger = ledger or VolatileLedger()
        self._rules = rules or Rules()
        self._displaced: list[Lease] = []
        self._table = table = LeaseTable(ledger)
        table.arrange(pools, reservations or {})
        spoiled_for = self._rules.spoiled_for
        table.fill(
            [revive(row, table.home(row.port, row.pool), spoiled_for, now) for row in ledger.load()], now
        )
        table.save(now)

    # ---- promising

    def open(
        self,
        serial: str,
        target: str,
        now: float,
        pool: str = "default",
        wait: float | None = None,
        wanted: int | None = None,
    ) -> Lease:
        """Promise a port, or renew the promise the use already holds.

        In this order: the port it holds, if that is of ``pool`` and of the number asked for; the port that
        the settings reserve for it; ``wanted``; the next free port of the pool; one that is kept for a device
        which is away (away_ports.py). A use that gets another port than it held has given that back
        (``take_displaced``).

        Args:
            wait: seconds the port may stay without a first client (``used``), counted anew at each call.
            wanted: the one port number that will do.

        Raises:
            NoFreePort: the pool has none left.
            HoldsEnough: the device has as many as it may, or as many rest that it had.
            NotReserved: ``wanted`` is outside the pool's ranges, or another port is fixed for this use.
            PortTaken: ``wanted`` or the fixed port is promised to another use, quarantined or spoiled.
        """
        use = Use(serial, target)
        number = self._number(use, wanted)
        held = self.find(serial, target)
        until = None if wait is None else now + wait
        try:
            if held is None or not self._fits(held, pool, number):
                held = self._move(use, held, pool, number, now)
            lease = replace(held, state=PortState.RESERVED, since=now, until=until, wanted=wanted is not None)
            self._table.place(lease)
        finally:
            self._table.save(now)
        return lease

    def spoil(self, lease: Lease, now: float) -> Lease:
        """The system says that another program has this port: set it aside and promise the next one.

        Call it until a port can be bound: it ends with NoFreePort, after every port of the pool was tried.

        Raises:
            PortTaken: the port is fixed or was asked for by number; the lease stays as it is.
            NoFreePort: the pool has none left; the use holds no lease any more.
        """
        held = self._table.at(lease.port)
        if held is None or held.use != lease.use:
            raise LocalError(f"port {lease.port} is not leased to {lease.use}")
        if held.fixed or held.wanted:
            why = "reserved for" if held.fixed else "asked for by"
            raise PortTaken(
                f"port {held.port}, {why} {held.use}, is in use by another program of this machine"
            )
        self._table.forget(held)
        self._table.rest(
            replace(held, state=PortState.SPOILED, since=now, until=now + self._rules.spoiled_for)
        )
        try:
            moved = replace(held, port=self._pick(held.pool, now))
            self._table.place(moved)
        finally:
            self._table.save(now)
        return moved

    def used(self, lease: Lease, now: float) -> bool:
        """The first client came: the lease waits no longer. False when it is too late or the lease ended."""
        held = self._table.at(lease.port)
        if held is None or held.use != lease.use or (held.until is not None and held.until <= now):
            return False
        if held.state is PortState.RESERVED and held.until is not None:
            self._table.place(replace(held, until=None))
            self._table.save(now)
        return True

    def grant(self, use: Use, port: int, pool: str, now: float, here: bool = True) -> Lease:
        """Others decide which port it has (nodes that share a pool): whoever else has it here has it no more.

        ``here``: its device is; else it is kept for it, and has no end.
        """
        for held in (self._table.at(port), self._table.find(use)):
            if held is not None and (held.use, held.port) != (use, port):
                self._displace(held, now)
        home, fixed = self._table.home(port, pool), self._table.reserved_port(use) == port
        state = PortState.RESERVED if here else PortState.STICKY
        lease = Lease(port, home.name, home.address, *use, state, fixed, True, now, None)
        self._table.place(lease)
        self._table.save(now)
        return lease

    # ---- ending

    def release(self, lease: Lease, now: float, tells: bool = True) -> bool:
        """Give the port back; it is quarantined, then free. False when the lease had ended already.

        ``tells``: ``on_ended``, which others have not decided.
        """
        held = self._table.at(lease.port)
        if held is None or held.use != lease.use:
            return False
        self._table.end(held, now)
        self._table.save(now)
        if tells:
            self.on_ended(held)
        return True

    def keep(self, serial: str, now: float) -> list[Lease]:
        """The device left: its leases wait for its return. Returns those that ended at once instead.

        A lease that still waits for its first client ends when that time is over, if it is the earlier one.
        """
        ended = []
        for held in self.leases_of(serial):
            sticky = self._table.pool(held.pool).sticky
            if held.sticky:
                continue
            if sticky <= 0:
                self._table.end(held, now)
                ended.append(held)
                continue
            until = now + sticky if held.until is None else min(held.until, now + sticky)
            self._table.place(replace(held, state=PortState.STICKY, since=now, until=until))
        self._table.save(now)
        return ended

    def unoffered(self, serial: str, names: Collection[str], pools: Collection[str], now: float) -> None:
        """The device is here and offers ``names`` only: its other leases of these pools end before long."""
        for held in self.leases_of(serial):
            if held.target in names or held.fixed or held.pool not in pools:
                continue
            until = now + self._table.pool(held.pool).unoffered
            if held.until is None or held.until > until:
                self._table.place(replace(held, until=until))
        self._table.save(now)

    def expire(self, now: float) -> list[Lease]:
        """End every lease whose time is over and return them: the caller closes their listeners."""
        lapsed = self._table.lapse(now)
        for lease in lapsed:
            self._table.end(lease, now)
        self._table.save(now)
        for lease in lapsed:
            self.on_ended(lease)
        return lapsed

    def next_expiry(self) -> float | None:
        """When ``expire`` has something to do next, or None."""
        return self._table.next_expiry()

    def take_displaced(self) -> list[Lease]:
        """Leases that ``open`` and ``spoil`` ended since the last call: moved, or taken back for another use.

        To be asked after each of them and before binding: a listener that the caller still has on one of
        these ports must be closed first.
        """
        displaced, self._displaced = self._displaced, []
        return displaced

    # ---- changing the settings

    def reload(
        self, pools: Sequence[Pool], reservations: Mapping[Use, int], now: float, rules: Rules | None = None
    ) -> bool:
        """Take other pools and reservations. Every lease stands, also one out of place (``is_misplaced``).

        False: they are no others.

        The ``address`` and ``pool`` of leases may have changed: ask for them again.

        Raises:
            ValueError: they do not fit together; nothing has changed then.
        """
        if self._table.stands_for(pools, reservations):
            self._rules = rules or self._rules
            return False
        known = [*self._table, *self._table.history()]
        self._table.arrange(pools, reservations)
        self._rules = rules or self._rules
        self._table.fill(known, now)
        self._table.save_dropped()
        return True

    def is_misplaced(self, lease: Lease) -> bool:
        """Whether today's settings would not give it: it stands until released, or moved by an ``open``."""
        table = self._table
        return not lease.fixed and (
            table.reserved_port(lease.use) is not None or table.covering(lease.port) is None
        )

    # ---- looking

    def find(self, serial: str, target: str) -> Lease | None:
        """The lease of one use."""
        return self._table.find(Use(serial, target))

    def reserved(self, serial: str, target: str) -> int | None:
        """The port that the settings reserve for one use, held or not."""
        return self._table.reserved_port(Use(serial, target))

    def leases_of(self, serial: str) -> list[Lease]:
        """The leases of one device."""
        return self._table.of_serial(serial)

    def at(self, port: int) -> Lease | None:
        """The lease of one port."""
        return self._table.at(port)

    def unheld(self, ranges: Iterable[tuple[int, int]]) -> Iterator[int]:
        """The ports of some ranges, first and last of each, that are no lease's; in order."""
        return self._table.unheld(ranges)

    def ports(self, after: int = 0, limit: int = 100) -> list[Lease]:
        """A page of every port that is not free, in order: at most ``limit`` of them, above port ``after``.

        Among them quarantined and spoiled ones with their last use, and reservations that nobody has opened.
        """
        return self._table.page(after, limit)

    def free(self, pool: str) -> int:
        """How many ports a pool has to give."""
        free = self._table.free(pool)
        return 0 if free is None else free.counts().free

    def counts(self) -> dict[str, Counts]:
        """How the ports of each pool are spread."""
        return self._table.counts()

    # ---- within

    def _number(self, use: Use, wanted: int | None) -> int | None:
        """The one port that will do for this use, if there is one."""
        fixed = self._table.reserved_port(use)
        if wanted is not None and fixed is not None and wanted != fixed:
            raise NotReserved(f"port {fixed} is reserved for {use}, not port {wanted}")
        return wanted if fixed is None else fixed

    def _fits(self, held: Lease, pool: str, number: int | None) -> bool:
        """Whether the use may go on with the port it holds."""
        if number is not None:
            return held.port == number
        reserved = self._table.owner(held.port) not in (None, held.use)
        return held.pool == pool and not (reserved and held.sticky)

    def _move(self, use: Use, held: Lease | None, pool: str, number: int | None, now: float) -> Lease:
        """A lease of another port than the use held; the state is for the caller to set."""
        fixed = number is not None and self._table.reserved_port(use) == number
        if held is None and not fixed:
            self._make_room(use.serial, now)
        port = self._pick(pool, now) if number is None else self._name(use, pool, number, now)
        if held is not None:
            self._displace(held, now)
        home = self._table.home(port, pool)
        return Lease(port, home.name, home.address, *use, PortState.RESERVED, fixed, False, now, None)

    def _make_room(self, serial: str, now: float) -> None:
        """Keep a device within its number of leases: of those that have an end, the one whose is next goes.

        What settings reserve is beside it. Those that rest after it are counted too: else it could have all
        of a pool, one after the other.
        """
        most = self.most_of(serial)
        held = [lease for lease in self.leases_of(serial) if not lease.fixed]
        ending = [lease for lease in held if lease.until is not None]
        if len(held) >= most and not ending:
            raise HoldsEnough(f"{serial} has {len(held)} of the {most} ports that it may have")
        resting = self._table.quarantined_of(serial)
        if resting >= max(most, 1):
            raise HoldsEnough(f"{resting} ports rest that {serial} gave back; it may have {most}")
        if len(held) >= most:
            self._displace(min(ending, key=lambda lease: lease.until or now), now)

    def _name(self, use: Use, pool: str, port: int, now: float) -> int:
        """Take one port by number."""
        owner, holder = self._table.owner(port), self._table.at(port)
        if owner == use:
            if holder is not None and not holder.sticky:
                raise PortTaken(f"port {port}, reserved for {use}, is still leased to another use")
            if holder is not None:
                self._displace(holder, now)
            return port
        if owner is not None:
            raise PortTaken(f"port {port}, asked for by {use}, is reserved for another use")
        free = self._table.free(pool)
        if free is None or port not in free.pool:
            raise NotReserved(
                f"port {port}, asked for by {use}, is not in pool {pool} and not reserved for it"
            )
        if not free.claim(port, use, now):
            raise PortTaken(f"port {port}, asked for by {use}, is not free in pool {pool}")
        return port

    def _pick(self, pool: str, now: float) -> int:
        """Take the next port of a pool."""
        free = self._table.free(pool)
        if free is None:
            raise NoFreePort(f"there is no pool named {pool}")
        port = free.take(now)
        if port is None and self._rules.reclaim:
            port = self._reclaim(free, now)
        if port is None:
            raise NoFreePort(_exhausted(pool, free.counts()), _rest(free, now, self.until))
        return port

    def _reclaim(self, free: FreePorts, now: float) -> int | None:
        """Take back a port that is kept for a device which is away.

        Not of one that left within the quarantine: its clients would meet somebody else's device. So a
        restart with a full pool gives every device that long to return.
        """
        port = free.away.first(now - free.pool.quarantine)
        holder = None if port is None else self._table.at(port)
        if holder is not None:
            self._table.forget(holder)
            self._displaced.append(holder)
        return port

    def _displace(self, lease: Lease, now: float) -> None:
        self._table.end(lease, now)
        self._displaced.append(lease)


def _exhausted(pool: str, counts: Counts) -> str:
    return (
        f"pool {pool} has no free port: of {counts.size}, {counts.leased} are leased"
        f" ({counts.sticky} of them to devices that are away), {counts.fixed} fixed by the settings,"
        f" {counts.quarantined} quarantined, {counts.spoiled} in use by other programs"
    )


def _for_another(seconds: float) -> str:
    return f"for another {seconds:.0f} s"


def _rest(free: FreePorts, now: float, until: Callable[[float], str]) -> str:
    count, first = free.counts().quarantined, free.given_back_first()
    if first is None or first.until is None:
        return ""
    ports = "1 port rests" if count == 1 else f"{count} ports rest, the first"
    return f"{ports} {until(max(0.0, first.until - now))}"
