"""The directory in Redis or Valkey (directory.Directory): the life of one node in it.

Rule of this file: the records decide. What is remembered here is what the last renewal said; news only
bring the next one forward. Whoever gets no answer that can be relied on is told ``DirectoryAway``: an
engine that was emptied does not say "nowhere".

Source: next/cluster.md sections 2 and 6; ours.
"""

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

import revtunnel
from revtunnel.cluster.cluster_settings import MOST_NODES
from revtunnel.cluster.directory import PATIENCE, DirectoryAway
from revtunnel.cluster.node_lease import DOUBT, LENGTH, RENEWED, NodeLease, Standing
from revtunnel.cluster.node_records import NODE_NAME, Node, Place
from revtunnel.cluster.own_links import OwnLink
from revtunnel.cluster.redis_claims import RedisClaims
from revtunnel.cluster.redis_engine import EngineWay, RedisEngine
from revtunnel.cluster.redis_places import RedisPlaces
from revtunnel.cluster.redis_scripts import LEAVE, RENEW
from revtunnel.cluster.redis_teller import RedisTeller

__all__ = ["RedisDirectory"]

log = Logger(namespace="revtunnel")

STARTING = 3 * PATIENCE  # seconds that a start waits: for a connection, a PING and the first lease
_NO = {  # what scripts say instead of an answer
    "usurped": "another process has this node's name",
    "lost": "the engine was emptied, and is told everything again",
    "crowded": f"the cluster has {MOST_NODES} nodes, which is the most",
    "young": "the engine was emptied, and may not have been told everything again",
}
_STANDINGS = {
    Standing.JOINING: "this node has not joined yet",
    Standing.DOUBTFUL: "renewals of this node's lease do not come through",
    Standing.LOST: "this node's lease has run out",
    Standing.LEFT: _NO["usurped"],
}


class RedisDirectory:
    """One node's view. ``length`` is that of its lease, in seconds."""

    def __init__(
        self,
        reactor: Any,
        way: EngineWay,
        cluster: str,
        name: str,
        address: str = "",
        agents: str = "",
        length: float = LENGTH,
    ) -> None:
        self.me = Node(name, 0, address, version=revtunnel.__version__, agents=agents)
        self.moved: Callable[[str, int], None] = lambda serial, link: None
        self.mine: Callable[[], Iterable[tuple[str, int, str, float]]] = lambda: ()
        self.usurped: Callable[[], None] = lambda: None
        self._reactor = reactor
        self._prefix = f"rt:{cluster}:"
        self._engine = RedisEngine(reactor, way, (f"{self._prefix}to:{name}", f"{self._prefix}all"))
        self._engine.up = self._up
        self._engine.down = self._not_yet
        self._engine.heard = self._heard
        self._engine.missed = self._missed
        self._lease = NodeLease(length)
        self._nodes: dict[str, Node] = {}
        self._teller = RedisTeller(reactor, self.call, self._elsewhere)
        self._places = RedisPlaces(self.call, lambda: self._nodes, self._renew)
        self.claims = RedisClaims(self._claiming)
        # what each renewal says of revocations
        self.shared: Callable[[str, str], None] = lambda number, era: None
        self.replaced: Callable[[], None] = lambda: None  # the engine may lack what it had
        self.renewed: Callable[[], None] = lambda: None
        self.told: Callable[[str, str], None] = lambda name, value: None  # what another node published
        self.trip: float | None = None
        self._fault: str | None = None  # what the last renewal came to
        self._starting: Deferred[None] | None = None
        self._timer: Any = None
        self._renewing = self._stopped = False

    @property
    def problem(self) -> str | None:
        standing = _STANDINGS.get(self._lease.standing(self._now()))
        return self._engine.problem or self._fault or standing or self._teller.fault

    def _now(self) -> float:
        return float(self._reactor.seconds())

    async def call(self, script: str, *args: object) -> Any:
        """Run a script as this node. DirectoryAway: it was not run, or what it says is of no use."""
        told = await self._engine.call(script, self._prefix, self.me.name, self.me.epoch, *args)
        if told == "usurped" and not self._lease.left:
            self._lease.replaced()
            self._teller.stop()
            self._reactor.callLater(0, self.usurped)
        elif told == "lost":
            self._renew()
        if isinstance(told, str):
            raise DirectoryAway(_NO.get(told, told[:80]))
        return told

    # -- life

    def start(self) -> "Deferred[None]":
        if self._lease.may_claim(self._now()):
            return succeed(None)
        if self._starting is None and not self.me.epoch:
            for serial, link, wire, age in self.mine():
                self._teller.arrived(serial, link, wire, age)
            self._engine.start()
        self._starting = started = Deferred[None]()
        self._reactor.callLater(STARTING, self._not_yet, started)
        return started

    def _not_yet(self, starting: "Deferred[None] | None" = None) -> None:
        """A start came to nothing for now; None: whichever waits."""
        if self._starting is not None and starting in (None, self._starting) and not self._starting.called:
            self._starting.errback(DirectoryAway(self.problem or "it did not answer"))

    def stop(self) -> "Deferred[None]":
        joined = self._lease.asked is not None and not self._lease.left and self._engine.problem is None
        self._stopped = True
        self._lease.leave()
        self._teller.stop()
        self._end_timer()
        leaving: Deferred[Any] = Deferred.fromCoroutine(self.call(LEAVE)) if joined else succeed(None)

        def end(_: Any) -> None:
            self._engine.stop()

        return leaving.addBoth(end)

    def say(self, state: str, devices: int, clients: int) -> None:
        changed = state != self.me.state
        self.me = self.me._replace(state=state, devices=devices, clients=clients)
        if changed and self.me.epoch:
            self._renew()

    def _up(self) -> None:
        """There is a connection again; it may lead to a replica that had not heard of all."""
        self.claims.replaced()
        self.replaced()
        self._renew()

    def _renew(self) -> None:
        """Now, if none is under way; the next one in a while."""
        if self._renewing or self._stopped or self._lease.left:
            return
        self._renewing = True
        self._end_timer()
        renewing = Deferred.fromCoroutine(self._renewed())
        renewing.addErrback(lambda bug: log.failure("renewing a lease failed", bug))

    def _end_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    async def _renewed(self) -> None:
        asked, length, me = self._now(), self._lease.length, self.me
        floor = max(self._teller.links.floor, self.claims.floor)
        said = floor, round(length * 1000), MOST_NODES
        try:
            told = await self.call(RENEW, *said, *me[2:])
            if not _is_granted(told):
                raise DirectoryAway("what the engine says of our lease makes no sense")
            self._fault, self.trip = None, self._now() - asked
            if not self._stopped:
                self._granted(asked, *told)
        except DirectoryAway as error:
            self._fault = str(error)
        finally:
            self._renewing = False
            if not self._stopped:
                self._timer = self._reactor.callLater(length * RENEWED / LENGTH, self._renew)

    def _granted(self, asked: float, epoch: int, kept: bool, nodes: list[Any], *rest: Any) -> None:
        lapsed = self._lease.granted(asked, self._now(), epoch, kept)
        self.me = self.me._replace(epoch=epoch)
        self._nodes = {name: _node(name, row) for name, row in nodes if NODE_NAME.fullmatch(name)}
        self._nodes[self.me.name] = self.me
        number, era, newest = rest
        self._teller.renewed()
        self.claims.renewed(era, newest)
        self.shared(number, era)
        self.renewed()
        starting, self._starting = self._starting, None
        if starting is None and lapsed:
            self._teller.again()
        elif starting is not None and not starting.called:
            starting.callback(None)

    # -- news

    def _heard(self, message: Any) -> None:
        match message:
            case ["moved", str() as serial, int() as link, epoch]:
                if epoch == self.me.epoch:
                    self._moved(serial, link)
            case ["told", str() as name, str() as value]:
                self.told(name, value)
            case ["claims"]:
                self.claims.look()
            case _:
                self._renew()

    def _missed(self) -> None:
        """News may have been lost: look at everything."""
        if self.me.epoch:
            self._teller.again()
            self._renew()

    def _moved(self, serial: str, link: int) -> None:
        if self._teller.links.moved(serial, link):
            self._reactor.callLater(0, self.moved, serial, link)

    def _elsewhere(self, serial: str, own: OwnLink, place: Place) -> None:
        if place.node != self.me.name:
            self._places.remember(serial, place)
            self._moved(serial, own.link)

    # -- devices

    def arrived(self, serial: str, link: int, wire: str) -> None:
        self._places.forget(serial)
        self._teller.arrived(serial, link, wire)

    def left(self, serial: str, link: int) -> None:
        self._teller.left(serial, link)

    def find(self, serial: str) -> "Deferred[Place | None]":
        return Deferred.fromCoroutine(self._places.find(serial))

    def known(self, serial: str) -> Place | None:
        return self._places.known(serial)

    def forget(self, serial: str, place: Place) -> None:
        self._places.forget(serial, place)

    def nodes(self) -> list[Node]:
        return [self._nodes[name] for name in sorted(self._nodes)]

    # -- port numbers

    def sure(self, keep: float) -> bool:
        """Whether no claim of ours that stands ``keep`` seconds without its device can be another's yet."""
        asked, length = self._lease.asked, self._lease.length
        if asked is None or self._lease.left:
            return False
        return self._now() - asked < max(length * DOUBT, keep - length)

    async def _claiming(self, script: str, *args: object) -> Any:
        if not self._lease.may_claim(self._now()):
            raise DirectoryAway(self.problem or "no lease")
        return await self.call(script, *args)


def _node(name: str, row: Any) -> Node:
    """As it wrote of itself, or somebody else; one of another version may have written more, or less."""
    away = Node(name, 0, state="away")
    try:
        return Node.told({"name": name, **dict(zip(Node._fields[1:], row, strict=False))}) if row else away
    except (ValueError, TypeError):
        return away


def _is_granted(told: Any) -> bool:
    """Whether it has the form of what RENEW says; a list that is empty is {} there."""
    if not isinstance(told, list) or len(told) != 6 or not isinstance(told[2] or [], list):
        return False
    return [type(told[at]) for at in (0, 1, 3, 4, 5)] == [int, bool, str, str, str]
