"""The tables of the port allocator: who holds which port, how the others stand, what the ledger must hear.

Rule of this file: no choice is made here. Each change goes through ``place``, ``forget`` or ``rest``, which
keep all tables in step and note the port; ``save`` brings the noted ports to the ledger in one step.

Source: ours.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from revtunnel.fleet.free_ports import Counts, FreePorts
from revtunnel.fleet.lease_rows import Ledger, row_of
from revtunnel.fleet.pools import MAX_PORT, Lease, Pool, PortState, Use, conflicts
from revtunnel.ground.deadlines import Deadlines

__all__ = ["LeaseTable"]

_NO_POOL = Pool("", ())  # rules for leases whose pool the settings have no more


class LeaseTable:
    """Every lease by use and by port, and the pools that their ports come from and go back to."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._changed: dict[int, Lease | None] = {}  # not yet in the ledger; None: drop the port
        self.arrange((), {})

    def arrange(self, pools: Sequence[Pool], reservations: Mapping[Use, int]) -> None:
        """Empty tables for these pools and reservations; ValueError and no change when they conflict."""
        found = conflicts(pools, reservations)
        if found:
            raise ValueError("; ".join(found))
        self._reservations = dict(reservations)
        self._owners = {port: use for use, port in reservations.items()}
        self._elsewhere = {port: host for pool in pools for port, host in pool.elsewhere.items()}
        self._free = {pool.name: FreePorts(pool, self._owners) for pool in pools}
        self._uses: dict[str, dict[str, Lease]] = {}
        self._ports: dict[int, Lease] = {}
        self._ends: Deadlines[int] = Deadlines()
        self._outside: Counter[str] = Counter()  # by pool: leases whose port is in none of its ranges
        # one byte a port: found in the time that a look at 64 KiB takes, whatever they hold
        self._held = bytearray(MAX_PORT + 1)  # 1: leased
        self._listed = bytearray(MAX_PORT + 1)  # 1: leased, reserved or resting; or it was of late
        for port in self._owners:
            self._listed[port] = 1

    def stands_for(self, pools: Sequence[Pool], reservations: Mapping[Use, int]) -> bool:
        """Whether ``arrange`` would change nothing but empty the tables."""
        return [free.pool for free in self._free.values()] == [*pools] and self._reservations == reservations

    def fill(self, known: Iterable[Lease], now: float) -> None:
        """Put leases and ended ones into empty tables, in the order in which they came to be."""
        promised = (PortState.RESERVED, PortState.STICKY)
        ended = []
        for lease in sorted(known, key=lambda lease: lease.since):
            pool = self.home(lease.port, lease.pool)
            if lease.state not in promised:
                ended.append(lease)
                continue
            if self.find(lease.use) is not None or lease.port in self._ports:  # not a ledger of ours
                ended.append(replace(lease, state=PortState.QUARANTINED, until=now + pool.quarantine))
                continue
            fixed = self._reservations.get(lease.use) == lease.port
            address = pool.address if pool.name in self._free else lease.address
            if (lease.pool, lease.address, lease.fixed) != (pool.name, address, fixed):
                lease = replace(lease, pool=pool.name, address=address, fixed=fixed)
            self.place(lease)
        for lease in ended:
            self.rest(lease)
        for free in self._free.values():
            free.lapse(now)

    def home(self, port: int, name: str) -> Pool:
        """The pool that has ``port`` in its ranges, else the one of this name, else one without ranges.

        Its address is where that port is bound.
        """
        named = self.pool(name)
        homes = (free.pool for free in self._free.values() if port in free.pool)
        home = next(homes, named if named.name == name else replace(named, name=name))
        return replace(home, address=self._elsewhere[port]) if port in self._elsewhere else home

    def pool(self, name: str) -> Pool:
        """The pool of this name, else one without ranges."""
        free = self._free.get(name)
        return _NO_POOL if free is None else free.pool

    def covering(self, port: int) -> FreePorts | None:
        """The pool that gives out ``port``; None for fixed ports and those of no pool."""
        return next((free for free in self._free.values() if free.covers(port)), None)

    def __iter__(self) -> Iterator[Lease]:
        """Every lease."""
        return iter(self._ports.values())

    def find(self, use: Use) -> Lease | None:
        """The lease of one use."""
        return self._uses.get(use.serial, {}).get(use.target)

    def of_serial(self, serial: str) -> list[Lease]:
        """The leases of one device."""
        return list(self._uses.get(serial, {}).values())

    def at(self, port: int) -> Lease | None:
        """The lease of one port."""
        return self._ports.get(port)

    def quarantined_of(self, serial: str) -> int:
        """How many ports are quarantined that one device had last."""
        return sum(free.quarantined_of(serial) for free in self._free.values())

    def reserved_port(self, use: Use) -> int | None:
        """The port that the settings reserve for this use."""
        return self._reservations.get(use)

    def owner(self, port: int) -> Use | None:
        """The use that the settings reserve this port for."""
        return self._owners.get(port)

    def free(self, name: str) -> FreePorts | None:
        """The ports of one pool."""
        return self._free.get(name)

    def history(self) -> list[Lease]:
        """How every port that is known and not leased ended last."""
        return [ended for free in self._free.values() for ended in free.history()]

    def lapse(self, now: float) -> list[Lease]:
        """Free the ports that have rested enough; returns the leases whose time is over, still in place."""
        for free in self._free.values():
            free.lapse(now)
        return [self._ports[port] for port in self._ends.due(now)]

    def next_expiry(self) -> float | None:
        """When ``lapse`` has something to do next."""
        ends = [self._ends.earliest(), *(free.next_expiry() for free in self._free.values())]
        return min((when for when in ends if when is not None), default=None)

    def place(self, lease: Lease) -> None:
        """Enter a lease, in place of the one that the use has on the same port."""
        self._uses.setdefault(lease.serial, {})[lease.target] = lease
        self._outside[lease.pool] += lease.port not in self._ports and lease.port not in self.pool(lease.pool)
        self._ports[lease.port] = lease
        self._held[lease.port] = self._listed[lease.port] = 1
        self._ends.set(lease.port, lease.until)
        self._changed[lease.port] = lease
        free = self.covering(lease.port)
        if free is not None:
            free.hold(lease.port)
            if lease.sticky:
                free.away.add(lease.port, lease.serial, lease.since)

    def forget(self, lease: Lease) -> None:
        """Take a lease out of the tables; what becomes of its port is for the caller to say."""
        targets = self._uses[lease.serial]
        del targets[lease.target]
        if not targets:
            del self._uses[lease.serial]
        del self._ports[lease.port]
        self._outside[lease.pool] -= lease.port not in self.pool(lease.pool)
        self._held[lease.port] = 0
        self._ends.set(lease.port, None)

    def end(self, lease: Lease, now: float) -> None:
        """End a lease and quarantine its port."""
        self.forget(lease)
        until = now + self.home(lease.port, lease.pool).quarantine
        self.rest(replace(lease, state=PortState.QUARANTINED, since=now, until=until))

    def rest(self, ended: Lease) -> None:
        """Hand an ended lease's port to its pool, or forget it when no pool has it."""
        home = next((free for free in self._free.values() if ended.port in free.pool), None)
        if home is not None and ended.port not in self._ports:
            home.rest(ended)
            self._listed[ended.port] = 1
        self._changed[ended.port] = None if home is None else self._ports.get(ended.port, ended)

    def save_dropped(self) -> None:
        """After a reload: the rows are as they were, but for ports that no pool has any more."""
        gone = [port for port, lease in self._changed.items() if lease is None]
        self._changed.clear()
        if gone:
            self._ledger.save((), gone)

    def save(self, now: float) -> None:
        """Bring the ledger up to date in one step."""
        if not self._changed:
            return
        rows = [row_of(lease, now) for lease in self._changed.values() if lease is not None]
        gone = [port for port, lease in self._changed.items() if lease is None]
        self._changed.clear()
        self._ledger.save(rows, gone)

    def unheld(self, ranges: Iterable[tuple[int, int]]) -> Iterator[int]:
        """The ports of some ranges that are no lease's, in order."""
        for low, high in ranges:
            port = low - 1
            while (port := self._held.find(0, port + 1, high + 1)) >= 0:
                yield port

    def page(self, after: int, limit: int) -> list[Lease]:
        """At most ``limit`` ports above ``after`` that are not free, in order."""
        page: list[Lease] = []
        while len(page) < limit and (after := self._listed.find(1, after + 1)) >= 0:
            entry = self._entry(after)
            if entry is not None:
                page.append(entry)
            else:
                self._listed[after] = 0
        return page

    def counts(self) -> dict[str, Counts]:
        """How the ports of each pool are spread; costs no walk over them."""
        outside = self._outside
        return {
            name: replace(free.counts(), outside=outside[name]) for name, free in sorted(self._free.items())
        }

    def _entry(self, port: int) -> Lease | None:
        """What the listing says of a port."""
        if port in self._ports:
            return self._ports[port]
        if port in self._owners:
            home = self.home(port, "")
            use = self._owners[port]
            return Lease(port, home.name, home.address, *use, PortState.UNCLAIMED, True, False, 0.0, None)
        return next((free.resting[port] for free in self._free.values() if port in free.resting), None)
