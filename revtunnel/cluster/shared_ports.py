"""Client ports of pools that nodes share: which number a use has is the engine's to say, for all nodes.

Rule of this file: what the engine has said here holds as long as it could not have said otherwise since
(``RedisDirectory.sure``); anything else is asked, and while it cannot be asked there is no port:
``directory-away``. A lease in the ledger of this node is a wish, which is asked for once the node has joined.
Of a pool whose ports are open at every node, each has the ports of devices wherever they are; of another one
the node where the device is has its port, and one where it was, if ``absent`` keeps it open.

A pool is one and the same at nodes that have it with one name and the same ranges. Which numbers are had is
known over all pools.

Source: issue "Many cores, many nodes" part 4; next/cluster.md section 5; ours.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.node_records import Claim, Wanted
from revtunnel.cluster.redis_claims import ClaimRefused
from revtunnel.cluster.redis_directory import STARTING, RedisDirectory
from revtunnel.fleet.client_ports import ClientPorts, NumberAsked, Ranges
from revtunnel.fleet.leases import LeaseError
from revtunnel.fleet.pools import Lease, PortState, Use

__all__ = ["SharedPool", "SharedPorts"]

log = Logger(namespace="revtunnel")

PAGE = 1000  # leases looked at in one step
SPOILED = 300.0  # seconds that a port is not asked for which another program of this machine has
_PROMISED = PortState.RESERVED, PortState.STICKY


class SharedPool(NamedTuple):
    """``everywhere``: its ports are open at every node; ``sticky``, ``quarantine``: seconds."""

    name: str
    ranges: Ranges
    everywhere: bool
    sticky: float
    quarantine: float
    reserved: Mapping[int, Use] = {}  # by settings, at this node

    @property
    def identity(self) -> str:
        """What makes it one with the pool of another node."""
        return f"{self.name} {','.join(f'{low}-{high}' for low, high in self.ranges)}"


class SharedPorts:
    """Those of one node.

    Args:
        here: whether a device is at this node.
        open_one: opens the port of a use, if it may be open now.
        most: how many ports a device may have.
    """

    def __init__(
        self,
        clock: Any,
        directory: RedisDirectory,
        ports: ClientPorts,
        here: Callable[[str], bool],
        open_one: Callable[[str, str], None],
        most: Callable[[str], int],
    ) -> None:
        self._clock = clock
        self._directory = directory
        self._claims = claims = directory.claims
        self._ports = ports
        self._here = here
        self._open_one = open_one
        self._most = most
        self._began = clock.seconds()
        self._pools: dict[str, SharedPool] = {}
        self._uses: dict[tuple[str, Use], Claim] = {}  # by identity of the pool
        self._asked: dict[Use, tuple[SharedPool, bool]] = {}  # whether it is opened once that is answered
        self._asking = False
        self._waiting: dict[Use, SharedPool] = {}  # for a directory that can be asked
        self._spoiled: dict[int, float] = {}
        self._unsure: set[str] = set()  # pools that were closed
        claims.here = lambda claim: here(claim.serial)
        claims.stands, claims.ceased, claims.listed = self._stands, self._ceased, self._listed
        ports.number, ports.is_taken, ports.is_good = self._number, self._is_taken, self._is_good
        ports.leases.on_ended = self._ended

    def take(self, pools: Iterable[SharedPool]) -> None:
        """These pools are shared, from now on."""
        self._pools = {pool.name: pool for pool in pools}
        self._unsure &= self._pools.keys()
        for claim in [*self._claims.known.values()]:
            self._stands(claim)
        if self._directory.problem is None:
            self._listed()

    def stop(self) -> None:
        """Open nothing more, and ask for nothing."""
        claims = self._claims
        claims.stands = claims.ceased = lambda claim: None
        claims.listed = lambda: None
        self._pools = {}
        self._asked.clear()
        self._waiting.clear()

    def look(self) -> None:
        """Close what may be another's by now, and ask for what waits; to be called every few seconds."""
        for pool in self._pools.values():
            if self._sure(pool):
                self._unsure.discard(pool.name)
            elif pool.name not in self._unsure:
                self._unsure.add(pool.name)
                closed = self._ports.close_pool(pool.name)
                self._waiting.update((Use(*use), pool) for use in closed)
        if self._directory.problem is None and not self._unsure:
            waiting, self._waiting = self._waiting, {}
            for use, pool in waiting.items():
                if self._here(use.serial) or self._ports.leases.find(*use) is not None:
                    self._ask(use, pool)

    # -- what ports ask (client_ports.py)

    def _number(self, use: Use, name: str, ranges: Ranges | None) -> int:
        pool = self._pools.get(name)
        if pool is None or not self._is_shared(use, pool):
            return 0
        fixed, allowed = self._ports.leases.reserved(*use), self._allowed(pool, ranges)
        if not any(low <= (fixed or low) <= high for low, high in allowed):
            raise LeaseError(f"pool {name} has none of the ports that its record allows")
        claim = self._uses.get((pool.identity, use))
        if claim is not None and self._is_wanted(claim, fixed, allowed) and self._sure(pool):
            if self._here(use.serial):  # which others are to know
                self._ask(use, pool, opens=False)
            return claim.port
        problem = self._directory.problem
        if problem is None:
            self._ask(use, pool)
            raise NumberAsked("others are asked")
        self._waiting[use] = pool
        if self._clock.seconds() < self._began + STARTING:
            raise NumberAsked(problem)
        raise LeaseError(f"directory-away: {problem}")

    def _is_taken(self, lease: Lease) -> bool:
        """Another program of this machine has it: its use is to have another one."""
        pool = self._pools.get(lease.pool)
        if pool is None or lease.fixed or not self._is_shared(lease.use, pool):
            return False
        self._spoiled[lease.port] = self._clock.seconds() + SPOILED
        self._ask(lease.use, pool)
        return True

    def _is_good(self, lease: Lease) -> bool:
        pool = self._pools.get(lease.pool)
        if pool is None or not self._is_shared(lease.use, pool):
            return True
        claim = self._uses.get((pool.identity, lease.use))
        return claim is not None and claim.port == lease.port and self._sure(pool)

    def _ended(self, lease: Lease) -> None:
        """It was given back here, or what its device does not offer is over."""
        pool = self._pools.get(lease.pool)
        claim = self._uses.get((pool.identity, lease.use)) if pool is not None else None
        if pool is not None and claim is not None and claim.port == lease.port:
            self._claims.release(claim, round(pool.quarantine * 1000))

    # -- what the engine says (redis_claims.py)

    def _stands(self, claim: Claim) -> None:
        use, now, leases = Use(*claim.use), self._clock.seconds(), self._ports.leases
        self._uses[claim.pool, use] = claim
        pool = next((each for each in self._pools.values() if each.identity == claim.pool), None)
        if pool is not None and not any(low <= claim.port <= high for low, high in pool.ranges):
            return  # somebody else wrote that
        holder = leases.at(claim.port)
        if holder is not None and holder.use != use and holder.pool in self._pools:
            self._lose(holder)
        held = leases.find(*use)
        if pool is None or not (pool.everywhere or held is not None or self._here(use.serial)):
            return
        if not self._here(use.serial):
            if held is not None and held.pool != pool.name and not self._is_newer(claim, held):
                return
            if held is None or held.port != claim.port or not held.sticky:
                leases.grant(use, claim.port, pool.name, now, here=False)
            if not self._ports.is_open(*use, claim.port):
                self._ports.close(*use)
        if not self._ports.is_open(*use, claim.port):
            self._open_one(*use)

    def _ceased(self, claim: Claim) -> None:
        use = Use(*claim.use)
        known = self._uses.get((claim.pool, use))
        if known is not None and known.port == claim.port:
            del self._uses[claim.pool, use]
        pool = next((each for each in self._pools.values() if each.identity == claim.pool), None)
        lease = self._ports.leases.at(claim.port)
        if pool is not None and lease is not None and lease.use == use:
            self._lose(lease)
        for each in self._pools.values():
            if claim.port in each.reserved:
                self._ask(each.reserved[claim.port], each)

    def _listed(self) -> None:
        """All claims are known: ask for what this node's settings and ledger have beside them."""
        for each in self._pools.values():
            for use in each.reserved.values():
                self._again(use, each)
        after = 0
        while page := self._ports.leases.ports(after, PAGE):
            after = page[-1].port
            for lease in page:
                pool = self._pools.get(lease.pool)
                if pool is not None and lease.state in _PROMISED and self._is_shared(lease.use, pool):
                    self._again(lease.use, pool)
        self.look()

    # -- inside

    def _sure(self, pool: SharedPool) -> bool:
        return self._directory.sure(pool.sticky)

    def _is_shared(self, use: Use, pool: SharedPool) -> bool:
        """Not what settings reserve beside the ranges of the pool."""
        fixed = self._ports.leases.reserved(*use)
        return fixed is None or any(low <= fixed <= high for low, high in pool.ranges)

    @staticmethod
    def _is_wanted(claim: Claim, fixed: int | None, allowed: Ranges) -> bool:
        return fixed in (None, claim.port) and any(low <= claim.port <= high for low, high in allowed)

    def _is_newer(self, claim: Claim, held: Lease) -> bool:
        """Than what this use has of another pool."""
        other = self._claims.known.get(held.port)
        return other is None or other.use != claim.use or other.touched < claim.touched

    def _allowed(self, pool: SharedPool, ranges: Ranges | None) -> Ranges:
        """Its ports, of which the record allows these, without those that other programs have."""
        both = [
            (max(low, first), min(high, last))
            for low, high in pool.ranges
            for first, last in (ranges or pool.ranges)
            if max(low, first) <= min(high, last)
        ]
        now = self._clock.seconds()
        self._spoiled = {port: until for port, until in self._spoiled.items() if until > now}
        return tuple(_without(both, self._spoiled))

    def _again(self, use: Use, pool: SharedPool) -> None:
        claim = self._uses.get((pool.identity, use))
        if claim is not None:
            self._stands(claim)
        elif self._here(use.serial):
            self._open_one(*use)
        else:
            self._ask(use, pool)

    def _lose(self, lease: Lease) -> None:
        """The engine says that this port is not its use's."""
        self._ports.close(*lease.use)
        self._ports.leases.release(lease, self._clock.seconds(), tells=False)
        if self._here(lease.serial):
            self._open_one(*lease.use)

    def _ask(self, use: Use, pool: SharedPool, opens: bool = True) -> None:
        _, before = self._asked.get(use, (pool, False))
        self._asked[use] = pool, opens or before
        if not self._asking:
            self._asking = True
            asking = Deferred.fromCoroutine(self._ask_all())
            asking.addErrback(lambda bug: log.failure("asking for ports failed", bug))

    async def _ask_all(self) -> None:
        try:
            while self._asked:
                use = next(iter(self._asked))
                pool, opens = self._asked.pop(use)
                before = self._uses.get((pool.identity, use))
                try:
                    claim = await self._claims.claim(self._wanted(use, pool))
                except DirectoryAway as error:
                    self._waiting[use] = pool
                    if opens:
                        self._refuse(use, f"directory-away: {error}")
                except ClaimRefused as error:
                    self._refuse(use, str(error))
                    self._refused(use, pool)
                else:
                    if opens or before is None or before.port != claim.port:
                        self._stands(claim)
        finally:
            self._asking = False

    def _wanted(self, use: Use, pool: SharedPool) -> Wanted:
        leases, terms = self._ports.leases, (round(pool.sticky * 1000), round(pool.quarantine * 1000))
        held, fixed = leases.find(*use), leases.reserved(*use) or 0
        claim = self._uses.get((pool.identity, use))
        before = claim.port if claim is not None else held.port if held is not None else 0
        ranges = self._allowed(pool, self._ports.allowed(use.serial))
        ranges = tuple(_without(ranges, pool.reserved.keys() - {fixed}))
        told = pool.identity, *use, ranges, fixed, before, self._here(use.serial)
        return Wanted(*told, *terms, self._most(use.serial))

    def _refused(self, use: Use, pool: SharedPool) -> None:
        """It has no port, and whoever opened one by his own ledger closes it."""
        lease = self._ports.leases.find(*use)
        if lease is not None and lease.pool == pool.name and not self._is_good(lease):
            self._ports.close(*use)

    def _refuse(self, use: Use, why: str) -> None:
        if self._here(use.serial) or self._ports.leases.reserved(*use) is not None:
            self._ports.refuse(use, why, self._clock.seconds())


def _without(ranges: Iterable[tuple[int, int]], ports: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ranges that have none of these ports."""
    gone = sorted(set(ports))
    for low, high in ranges:
        for port in gone:
            if low <= port <= high:
                if low < port:
                    yield low, port - 1
                low = port + 1
        if low <= high:
            yield low, high
