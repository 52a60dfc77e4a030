"""What one node does with the numbers that an engine gives: opens, refuses in words, closes, loses."""

import errno
from typing import Any, cast

from twisted.internet.task import Clock, deferLater

from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.node_records import Claim, Wanted
from revtunnel.cluster.redis_claims import ClaimRefused
from revtunnel.cluster.redis_directory import RedisDirectory
from revtunnel.cluster.shared_ports import SharedPool, SharedPorts
from revtunnel.fleet.pools import Use
from revtunnel.ground.facts import ListenerRefused
from tests.support.recorder import Recorder
from tests.support.world import POOL, World

RANGES = ((20000, 20003),)


class Engine:
    """Gives the numbers of one pool, and says so, as RedisDirectory and RedisClaims do."""

    def __init__(self, clock: Clock) -> None:
        self.problem: str | None = None
        self.clock = clock
        self.certain = True
        self.claims = self
        self.known: dict[int, Claim] = {}
        self.released: list[int] = []
        self.asked: list[Wanted] = []
        self.here: Any = None
        self.stands: Any = None
        self.ceased: Any = None
        self.listed: Any = None

    def sure(self, keep: float) -> bool:
        """Whether it is."""
        return self.certain

    async def claim(self, wanted: Wanted) -> Claim:
        """The next one that is free."""
        self.asked.append(wanted)
        await deferLater(self.clock, 0.001)
        if self.problem:
            raise DirectoryAway(self.problem)
        use = wanted.serial, wanted.offer
        held = next((port for port, claim in self.known.items() if claim.use == use), wanted.before)
        numbers = [held, *(port for low, high in wanted.ranges for port in range(low, high + 1))]
        for port in [wanted.fixed] if wanted.fixed else numbers:
            fits = any(low <= port <= high for low, high in wanted.ranges)
            if fits and (port not in self.known or self.known[port].use == use):
                self.known = {at: each for at, each in self.known.items() if each.use != use}
                self.known[port] = claim = Claim(wanted.pool, port, *use)
                return claim
        raise ClaimRefused("no port of the pool is free at any node")

    def release(self, claim: Claim, rest: int) -> None:
        """It is given back."""
        self.released.append(claim.port)


class Node:
    """One server in memory that has such an engine."""

    def __init__(self, everywhere: bool = True, start: bool = True, sticky: float = 60.0) -> None:
        self.world = world = World(start=False)
        self.engine = Engine(world.clock)
        board = world.switchboard
        world.ports.refuses = {"default": everywhere}
        self.shared = SharedPorts(
            *(world.clock, cast(RedisDirectory, self.engine), world.ports, self.is_here),
            *(board.enforcement.open_one, lambda serial: 64),
        )
        self.pool = SharedPool("default", RANGES, everywhere, sticky, 60.0)
        self.shared.take([self.pool])
        world.advance(5.0)  # it is no fresh start
        if start:
            world.agents["plc-1"].uplink.start()
            self.settle()

    def settle(self) -> None:
        """Let what was asked be answered."""
        for _ in range(20):
            self.world.advance(0.01)

    def is_here(self, serial: str) -> bool:
        """Whether a device is."""
        device = self.world.switchboard.fleet.get(serial)
        return device is not None and device.carrier is not None

    @property
    def open(self) -> dict[str, int]:
        """Open ports of all devices, by use."""
        serials = {"plc-1", "plc-9"}
        every = (port.lease for serial in serials for port in self.world.ports.of(serial))
        return {f"{lease.serial}/{lease.target}": lease.port for lease in every}

    def told(self, port: int, serial: str = "plc-9", offer: str = "it") -> Claim:
        """Another node has a number now."""
        self.engine.known[port] = claim = Claim(self.pool.identity, port, serial, offer)
        self.engine.stands(claim)
        self.settle()
        return claim

    def look(self) -> None:
        """As a node does every other second."""
        self.shared.look()
        self.settle()


MINE = {"plc-1/console": 20000, "plc-1/web": 20001}


def test_numbers_are_asked_for_and_kept() -> None:
    """Also when the device comes again, whose return the others are told."""
    node = Node()
    assert node.open == MINE
    node.world.link_pairs()[0].reset()
    node.world.advance(15.0)
    assert node.open == MINE and node.engine.asked[-1].here
    node.world.finish()


def test_while_the_engine_is_away_new_numbers_are_refused_in_words_and_known_ones_go_on() -> None:
    """Until it is back."""
    node = Node(start=False)
    node.engine.problem = "it hangs"
    node.world.agents["plc-1"].uplink.start()
    node.settle()
    assert node.open == {}
    refused = node.world.of(ListenerRefused)
    assert [(fact.target, fact.detail) for fact in refused] == [
        ("console", "directory-away: it hangs"),
        ("web", "directory-away: it hangs"),
    ]
    node.engine.problem = None
    node.look()
    assert node.open == MINE
    node.engine.problem = "it hangs"
    node.world.link_pairs()[0].reset()
    node.world.advance(15.0)
    assert node.open == MINE and len(node.world.of(ListenerRefused)) == 2
    node.engine.problem, asked = None, len(node.engine.asked)
    node.look()
    assert [each.here for each in node.engine.asked[asked:]] == [True, True]  # that it came again
    node.world.finish()


def test_ports_that_may_be_another_s_by_now_are_closed_until_that_is_known() -> None:
    """Those of devices that are here, and of others."""
    node = Node()
    node.told(20003)
    both = {**MINE, "plc-9/it": 20003}
    assert node.open == both
    node.engine.problem, node.engine.certain = "it hangs", False
    node.look()
    assert node.open == {}
    node.engine.problem, node.engine.certain = None, True
    node.look()
    assert node.open == both
    node.world.finish()


def test_ports_of_devices_elsewhere_are_open_where_the_pool_says_everywhere() -> None:
    """Until their numbers are given back; what another use has then is its own."""
    for everywhere in (True, False):
        node = Node(everywhere)
        claim = node.told(20003)
        assert ("plc-9/it" in node.open) is everywhere
        del node.engine.known[20003]
        node.engine.ceased(claim)
        assert node.open == MINE
        node.told(20003, offer="other")
        assert (node.open.get("plc-9/other") == 20003) is everywhere
        node.world.finish()


def test_what_is_no_number_of_the_pool_is_not_opened() -> None:
    """Whoever writes that into the engine has no other port opened by it."""
    node = Node()
    node.told(20010)
    assert node.open == MINE
    node.told(20003)
    assert node.open == {**MINE, "plc-9/it": 20003}
    node.world.finish()


def test_what_this_node_gave_by_its_own_ledger_is_a_wish() -> None:
    """Where the engine has that number for another, its device gets the next one."""
    node = Node(start=False)
    for target, port in (("console", 20000), ("web", 20001)):
        node.world.leases.grant(Use("plc-1", target), port, "default", node.world.clock.seconds(), here=False)
    assert not any(map(node.world.ports.is_good, node.world.leases.leases_of("plc-1")))
    node.told(20001)
    assert node.open == {"plc-9/it": 20001}
    node.shared._listed()
    node.settle()
    node.world.agents["plc-1"].uplink.start()
    node.settle()
    assert node.open == {"plc-1/console": 20000, "plc-9/it": 20001, "plc-1/web": 20002}
    node.world.finish()


def test_a_number_that_another_program_has_here_is_changed_for_all_nodes() -> None:
    """At the node of its device; elsewhere that node alone has no port, and says so."""
    node = Node(start=False)
    node.world.reactor.taken = {20000: errno.EADDRINUSE, 20003: errno.EADDRINUSE}
    node.told(20003)
    assert [(fact.serial, fact.target) for fact in node.world.of(ListenerRefused)] == [("plc-9", "it")]
    node.world.agents["plc-1"].uplink.start()
    node.settle()
    assert set(node.open) == set(MINE) and sorted(node.open.values()) == [20001, 20002]
    assert 20000 not in node.engine.known
    node.world.finish()


def test_a_full_pool_is_told_once(tmp_path: object) -> None:
    """By the words of the engine."""
    node = Node(start=False)
    for port in range(20000, 20004):
        node.told(port, offer=f"o{port}")
    node.world.agents["plc-1"].uplink.start()
    node.settle()
    for _ in range(10):
        node.look()
        node.world.switchboard.enforcement.try_again()
        node.world.advance(1.0)
    details = [fact.detail for fact in node.world.of(ListenerRefused) if fact.serial == "plc-1"]
    assert details == ["no port of the pool is free at any node"] * 2
    node.world.finish()


def test_what_is_given_back_here_is_given_back_for_all() -> None:
    """And who knocks there then is not let in."""
    node = Node()
    lease = node.world.leases.find("plc-1", "web")
    assert lease is not None
    node.world.ports.close("plc-1", "web")
    node.world.leases.release(lease, node.world.clock.seconds())
    assert node.engine.released == [20001]
    assert node.world.reactor.dial(20001, Recorder()) is None
    node.world.finish()


def test_what_settings_reserve_is_asked_for_before_its_device_is_here() -> None:
    """So that no other node gives it away; a node that drains opens nothing more."""
    node = Node(everywhere=False, start=False)
    node.world.leases.reload((POOL,), {Use("plc-1", "web"): 20003}, node.world.clock.seconds())
    node.shared.take([node.pool._replace(reserved={20003: Use("plc-1", "web")})])
    node.settle()
    assert [(each.fixed, each.here) for each in node.engine.asked] == [(20003, False)]
    assert node.open == {}
    node.world.agents["plc-1"].uplink.start()
    node.settle()
    assert node.open == {"plc-1/console": 20000, "plc-1/web": 20003}
    claim, asked = node.engine.known[20003], len(node.engine.asked)
    node.engine.ceased(claim._replace(serial="plc-9"))  # whoever had it has it no more
    node.settle()
    assert node.engine.asked[asked].fixed == 20003
    node.shared.stop()
    node.told(20001)
    assert len(node.open) == 2
    node.world.finish()


def test_a_number_that_ceased_is_not_used_again_unasked() -> None:
    """Whichever of the engine's words for it, an answer or the news, came last."""
    node = Node()
    port = next(iter(node.open.values()))
    claim = node.engine.known.pop(port)
    node.engine.problem = "down"
    node.engine.ceased(claim._replace(touched=claim.touched + 1))
    node.settle()
    assert port not in node.open.values()
