"""All data sockets of a server: who may bring one in, what runs on them, and the timer behind them.

The rules: a socket is let in for a ticket only, once, and serves the link that the ticket was given to. What
costs a descriptor is counted before it comes: a ticket that is out counts as a socket. A running stream does
not depend on its link's connection, only on its standing: a lost link leaves it alone, an ended one ends it.

One timer serves all: every half second while clients wait for sockets or answers, every five seconds while
sockets wait or streams run, and none else. The half seconds look at those who wait only, the others at all of
them, in slices.

Source: wire/link-extension.md "Data sockets"; faults.md N1, N8, N25.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from revtunnel.carriers.data_pool import LOOK, DataLink, DataPool
from revtunnel.carriers.data_stream import DataStream
from revtunnel.carriers.framed_end import DEAD
from revtunnel.carriers.gates import Gates
from revtunnel.carriers.tickets import Numbering, Tickets
from revtunnel.ground.facts import Report
from revtunnel.ground.limits import DataLimits, RelayLimits
from revtunnel.sockets.ends import End
from revtunnel.sockets.slices import Slices
from revtunnel.streams.clients import ClientSocket

__all__ = ["DataSockets"]

SHORT, LONG = 0.5, LOOK  # seconds between looks


class DataSockets:
    """``descriptors_left`` says how many connections the server may still have, tickets taken off."""

    def __init__(
        self,
        reactor: Any,
        limits: DataLimits,
        random_bytes: Callable[[int], bytes],
        descriptors_left: Callable[[], int],
        report: Report,
    ) -> None:
        self.reactor = reactor
        self.limits = limits
        self.relay_limits = RelayLimits()
        self.report = report
        self.sockets = 0  # attached, waiting or in use
        self._descriptors_left = descriptors_left
        self._tickets: Tickets[DataPool] = Tickets(random_bytes)
        self.gates = Gates(reactor, self._let_in)  # where the data plane does that
        self._expected: Counter[str] = Counter()  # by address
        self.numbering = Numbering()
        self.on_expected: Callable[[str, int], None] = lambda source, change: None  # as ``expect`` says
        self._streams: set[DataStream] = set()
        self._opening: set[DataStream] = set()
        self._busy: set[DataPool] = set()
        self._waiting: set[DataPool] = set()  # for whom a client waits, or did so when it was looked at last
        self._slices = Slices(reactor)
        self._spare: OrderedDict[DataPool, None] = OrderedDict()  # those that have, or had, sockets that wait
        self._timer: IDelayedCall | None = None
        self._long_at = 0.0

    def take(self, limits: DataLimits, relay_limits: RelayLimits) -> None:
        """Other limits from now on, for later pairs of sockets."""
        self.limits, self.relay_limits = limits, relay_limits

    def now(self) -> float:
        """Monotonic seconds."""
        return float(self.reactor.seconds())

    # -- what the server asks

    @property
    def count(self) -> int:
        """Descriptors that data sockets have or are about to have."""
        return self.sockets + len(self._tickets)

    def pool(
        self,
        link: DataLink,
        only: bool,
        instead: Callable[[ClientSocket], None],
        stream_ended: Callable[[], None],
    ) -> DataPool:
        """The pool of a link that is up and whose agent has data sockets."""
        return DataPool(self, link, only, instead, stream_ended)

    def expected(self, source: str) -> int:
        """Data sockets that are about to come from an address."""
        return self._expected[source]

    def expect(self, source: str, change: int) -> None:
        """So many data sockets more, or less, are on their way from an address."""
        self._expected[source] += change
        if not self._expected[source]:
            del self._expected[source]
        self.on_expected(source, change)

    def holder(self, ticket: bytes) -> DataPool | None:
        """The same, without using it up."""
        return self._tickets.holder(ticket, self.now())

    def redeem(self, ticket: bytes) -> DataPool | None:
        """Whom a connection with this ticket is for; then call ``attached``, or the pool's ``spoilt``."""
        pool = self.holder(ticket)  # a late one stays until its pool withdraws it
        if pool is None or not self.gates.unexpect([ticket]):  # or it was used there
            return None
        self._tickets.redeem(ticket, self.now())
        self._came(pool)
        return pool

    def attached(self, pool: DataPool, ticket: bytes, end: End) -> None:
        """The connection is a data socket now."""
        self.sockets += 1
        self._spare[pool] = None
        pool.attached(ticket, end)

    def _let_in(self, tickets: list[bytes]) -> None:
        """The data plane did, and they wait there; those of one pool are looked at once."""
        pools: dict[DataPool, list[bytes]] = {}
        for ticket in tickets:
            pool = self._tickets.used(ticket)
            if pool is not None:
                pools.setdefault(pool, []).append(ticket)
        for pool, used in pools.items():
            self.expect(pool.link.source, -len(used))
            self.sockets += len(used)
            self._spare[pool] = None
            pool.let_in(used)

    def give_way(self) -> bool:
        """Close one socket that waits, for somebody who needs a descriptor now; False: none waits."""
        while self._spare:
            if next(iter(self._spare)).give_way():
                return True
            self._spare.popitem(last=False)
        return False

    # -- what pools ask (data_pool.DataHub)

    @property
    def room(self) -> int:
        """Data sockets that the server can still have; as many descriptors are left to clients."""
        return max(0, self._descriptors_left() // 2)

    def issue(self, pool: DataPool, count: int) -> list[bytes]:
        until = self.now() + self.limits.ticket
        self.expect(pool.link.source, count)
        tickets = [self._tickets.issue(pool, self.numbering.take(), until) for _ in range(count)]
        self.gates.expect(pool, tickets, self.limits.ticket)
        return tickets

    def withdraw(self, pool: DataPool, tickets: list[bytes]) -> list[bytes]:
        gone = self.gates.unexpect(tickets)
        for ticket in gone:
            if self._tickets.withdraw(ticket):
                self._came(pool)
        return gone

    def unlent(self, pool: DataPool, tickets: list[bytes]) -> None:
        self.gates.leave(pool, tickets)

    def busy(self, pool: DataPool) -> None:
        self._busy.add(pool)
        if pool.waits:
            self._waiting.add(pool)
        self._look_within(SHORT if pool.waits else LONG)

    def released(self) -> None:
        self.sockets -= 1

    def remember(self, stream: DataStream) -> None:
        self._streams.add(stream)
        self._opening.add(stream)
        self._look_within(SHORT)

    def forget(self, stream: DataStream) -> None:
        self._opening.discard(stream)
        self._streams.discard(stream)

    def _came(self, pool: DataPool) -> None:
        """One of the expected is here, or will not come."""
        self.expect(pool.link.source, -1)

    # -- time

    def _look_within(self, delay: float) -> None:
        if self._timer is None:
            self._timer = self.reactor.callLater(delay, self._look)
        elif self._timer.getTime() - self.now() > delay:
            self._timer.cancel()  # ``reset`` to sooner would look for this call among all of the reactor's
            self._timer = self.reactor.callLater(delay, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self.now()
        for stream in [*self._opening]:
            if stream.opening:
                stream.look_at_opening(now)
            else:
                self._opening.discard(stream)
        for pool in [*self._waiting]:
            pool.look_at_waiting(now)
            if not pool.waits:
                self._waiting.discard(pool)
        if now >= self._long_at:
            self._long_at = now + LONG
            self._slices.run(self._long_look())
        if self._opening or self._waiting:
            self._look_within(SHORT)
        elif self._busy or self._streams:
            self._look_within(LONG)

    def _long_look(self) -> Iterator[None]:
        for pool in [*self._busy]:
            pool.look(self.now())
            if pool.idle:
                self._busy.discard(pool)
                self._spare.pop(pool, None)
            yield
        for stream in [*self._streams]:
            if stream in self._streams:  # still
                stream.look_at_running(DEAD)
            yield
