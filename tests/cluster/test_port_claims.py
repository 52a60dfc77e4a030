"""Port numbers that nodes share, over a real engine: one use a number, one number a use, and until when."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.cluster.claim_scripts import CLAIM
from revtunnel.cluster.cluster_settings import MOST_NODES
from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.node_records import Claim, Wanted
from revtunnel.cluster.redis_claims import ClaimRefused
from revtunnel.cluster.redis_directory import RedisDirectory
from tests.cluster.redis_world import LEASE, RedisWorld
from tests.support.epoll import own_reactor
from tests.support.redis_server import INSTALLED, PROGRAM

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INSTALLED, reason=f"{PROGRAM} is not installed")]
RANGES = ((7000, 7002),)
DAY = 86_400_000
FIELDS = {"keep": DAY, "rest": 60_000, "most": 64}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RedisWorld]:
    """An engine, and nodes to come."""
    with own_reactor() as loop:
        world = RedisWorld(loop, tmp_path)
        yield world
        world.close()


class Asks:
    """Asks for numbers, as nodes do."""

    def __init__(self, world: RedisWorld) -> None:
        self.world = world

    def port(self, view: RedisDirectory, serial: str, offer: str = "it", **more: Any) -> int:
        """The number of a use; 0: it has none, for ``why``."""
        wanted = Wanted("p", serial, offer, RANGES)._replace(**{**FIELDS, **more})
        try:
            claim: Claim = self.world.result(Deferred.fromCoroutine(view.claims.claim(wanted)))
        except ClaimRefused as error:
            self.why = str(error)
            return 0
        return claim.port

    def known(self, view: RedisDirectory) -> dict[int, str]:
        """What a node knows: port and serial."""
        return {port: claim.serial for port, claim in sorted(view.claims.known.items())}

    def all_know(self, views: list[RedisDirectory], wanted: dict[int, str]) -> None:
        """Wait for it."""
        self.world.until(lambda: all(self.known(view) == wanted for view in views))


@pytest.fixture
def asks(world: RedisWorld) -> Asks:
    """Over that engine."""
    return Asks(world)


def passed(seconds: float) -> Callable[[], bool]:
    """Whether so much time has passed from now."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def test_a_number_has_one_use_and_a_use_one_number(world: RedisWorld, asks: Asks) -> None:
    """Whichever node asks; all learn of it, also one that joins later."""
    views = world.started("one", "two")
    one, two = views
    assert asks.port(one, "d1") == 7000
    assert asks.port(two, "d1") == 7000
    assert asks.port(two, "d2") == 7001
    assert asks.port(one, "d3", before=7001) == 7002  # that is taken
    assert asks.port(two, "d4") == 0 and "no port" in asks.why
    asks.all_know(views, {7000: "d1", 7001: "d2", 7002: "d3"})
    asks.all_know(world.started("late"), {7000: "d1", 7001: "d2", 7002: "d3"})
    assert world.engine.ask("HLEN", "rt:test:ports") == ":3"


def test_who_has_just_been_given_a_number_knows_its_proof_of_life(world: RedisWorld, asks: Asks) -> None:
    """So that an engine that is emptied in that moment hears of it with its time, and not as the oldest."""
    (one,) = world.started("one")
    one.claims._take = lambda rows: None  # type: ignore[method-assign]  # no news
    assert asks.port(one, "d1") == 7000
    assert one.claims.known[7000].touched > 0


def test_what_was_given_back_rests_and_is_given_last(world: RedisWorld, asks: Asks) -> None:
    """Only its use may take back what has not ended; a node gives back no number of another's device."""
    one, two = world.started("one", "two")
    asks.port(one, "d1")
    one.claims.release(one.claims.known[7000], 0)
    asks.all_know([two], {})
    assert asks.port(two, "d2") == 7001
    two.claims.release(two.claims.known[7001], 60_000)
    asks.all_know([one, two], {})
    assert asks.port(two, "d2", ranges=((7001, 7001),)) == 0
    assert asks.port(two, "d3") == 7002
    assert asks.port(two, "d4") == 7000
    one.claims.release(Claim("p", 7000, "d4", "it"), 0)
    assert asks.port(two, "d4") == 7000
    assert asks.port(one, "d5", before=7000) == 0


def test_a_device_that_left_keeps_its_number_as_long_as_it_may(world: RedisWorld, asks: Asks) -> None:
    """And not while it is at any node."""
    one, two = world.started("one", "two")
    for link, (serial, keep) in enumerate((("d1", DAY), ("d2", 300), ("d3", 0))):
        one.arrived(serial, link, "rt1")
        asks.port(one, serial, keep=keep, rest=0)
    world.until(lambda: world.engine.ask("EXISTS", "rt:test:dev:d3") == ":1")
    world.until(passed(1.0))
    asks.all_know([two], {7000: "d1", 7001: "d2", 7002: "d3"})
    assert asks.port(two, "d4") == 0
    for link, serial in enumerate(("d1", "d2", "d3")):
        one.left(serial, link)
    asks.all_know([two], {7000: "d1"})
    assert asks.port(two, "d4") in (7001, 7002)


def test_the_death_of_a_node_frees_or_keeps_numbers_as_their_time_says(world: RedisWorld, asks: Asks) -> None:
    """Counted from when it was heard last, also where it lives again."""
    one, two = world.started("one", "two")
    for link, (serial, keep) in enumerate((("d1", DAY), ("d2", 0))):
        one.arrived(serial, link, "rt1")
        asks.port(one, serial, keep=keep, rest=0)
    world.until(lambda: len(two.claims.known) == 2)
    world.die(one)
    asks.all_know([two], {7000: "d1"})
    (again,) = world.started("one")
    asks.all_know([again, two], {7000: "d1"})
    assert asks.port(two, "d1") == 7000


def test_a_full_pool_takes_what_is_kept_for_those_who_are_away_longest(world: RedisWorld, asks: Asks) -> None:
    """Not of one that has only just left, nor of one that settings name."""
    one, two = world.started("one", "two")
    for link, serial in enumerate(("d1", "d2")):
        one.arrived(serial, link, "rt1")
        asks.port(one, serial, rest=0)
    asks.port(one, "d0", fixed=7002, here=False, rest=0)
    world.until(lambda: world.engine.ask("EXISTS", "rt:test:dev:d2") == ":1")
    assert asks.port(two, "d3", rest=0) == 0
    for link, serial in enumerate(("d1", "d2")):
        one.left(serial, link)
        world.until(lambda: world.engine.ask("EXISTS", f"rt:test:dev:{serial}") == ":0")  # noqa: B023
    assert asks.port(two, "d3", rest=0) == 7000
    asks.all_know([one, two], {7000: "d3", 7001: "d2", 7002: "d0"})


def test_a_device_has_no_more_ports_than_it_may_at_all_nodes_together(world: RedisWorld, asks: Asks) -> None:
    """What settings reserve is beside it, and what it offers no more goes for what it does."""
    one, two = world.started("one", "two")
    one.arrived("d", 1, "rt1")
    world.until(lambda: world.engine.ask("EXISTS", "rt:test:dev:d") == ":1")
    assert [asks.port(one, "d", "a", most=2), asks.port(two, "d", "b", most=2)] == [7000, 7001]
    assert asks.port(two, "d", "c", most=2) == 0 and "the 2 ports" in asks.why
    assert asks.port(two, "d", "c", most=2, fixed=7002) == 7002
    one.left("d", 1)
    world.until(lambda: world.engine.ask("EXISTS", "rt:test:dev:d") == ":0")
    assert asks.port(two, "d", "e", most=2) == 0 and "no port" in asks.why  # that of "a" would rest
    asks.all_know([one, two], {7000: "d", 7001: "d", 7002: "d"})
    asks.port(one, "d", "a", most=2, rest=0, here=False)
    assert asks.port(two, "d", "e", most=2) == 7000


def test_what_a_node_that_is_cut_off_may_hold_is_nobody_elses(world: RedisWorld, asks: Asks) -> None:
    """It serves its ports as long as they may be its own; then, or when it was heard, they are others'."""
    one, two = world.started("one", "two")
    for link, serial in enumerate(("d1", "d2", "d3")):
        one.arrived(serial, link, "rt1")
        asks.port(one, serial, keep=2500 if serial == "d3" else DAY, rest=0)
    world.until(lambda: len(two.claims.known) == 3)
    world.die(one)  # for two it is away; as one cut off is
    assert asks.port(two, "d4") == 0 and "no port" in asks.why  # nor of d1, which is away longest
    two.claims.release(two.claims.known[7001], 0)
    asks.all_know([two], {7000: "d1", 7002: "d3"})
    assert asks.port(two, "d4") == 0
    world.until(lambda: asks.port(two, "d4") == 7002)
    world.started("one")
    assert asks.port(two, "d5") == 7001


def test_what_makes_no_sense_in_the_engine_keeps_nobody_from_his_port(world: RedisWorld, asks: Asks) -> None:
    """It is nobody's number, and written over."""
    one, two = world.started("one", "two")
    odd = ("{", "5", "[]", '["p", 1, "it", 1, "", 0, 1, 1, 0]', '["p", "x", "it", "y"]', '["p", "x", [], 5]')
    for number, text in enumerate(odd):
        port = str(7000 + number) if number < 3 else f"odd{number}"
        world.engine.ask("HSET", "rt:test:claims", port, text)
        world.engine.ask("ZADD", "rt:test:claimed", str(number + 1), port)
    world.engine.ask("SET", "rt:test:dev:d1", "5")
    one.arrived("d1", 1, "rt1")
    assert asks.port(one, "d1") == 7000 and asks.port(two, "d2") == 7001
    asks.all_know([one, two, *world.started("late")], {7000: "d1", 7001: "d2"})
    world.until(lambda: world.result(two.find("d1")) is not None)
    for text in ("[1]", '["one"]', '["one", 1, 1]', "{}", "[[], 1, 1, 1, 1]"):
        world.engine.ask("SET", "rt:test:dev:d1", text)
        assert world.result(two.find("d1")) is None
    world.engine.ask("SET", "rt:test:dev:d1", f'["one", {one.me.epoch}, 1, 1, {{}}]')
    with pytest.raises(DirectoryAway, match="no sense"):
        world.result(two.find("d1"))


def test_of_two_who_want_one_reservation_the_first_has_it(world: RedisWorld, asks: Asks) -> None:
    """And what was given at random moves where settings name another."""
    one, two = world.started("one", "two")
    assert asks.port(one, "d1", fixed=7001) == 7001
    assert asks.port(two, "d2", fixed=7001) == 0 and asks.why == "port 7001 is another device's"
    had = asks.port(two, "d2")
    assert had in (7000, 7002)
    assert asks.port(two, "d2", fixed=7001) == 0
    asks.all_know([one, two], {7001: "d1", had: "d2"})  # it has what it had until the other is free
    assert asks.port(two, "d1") == 7001
    two.claims.release(two.claims.known[7001], 0)
    asks.all_know([one, two], {had: "d2"})
    assert asks.port(two, "d2", fixed=7001) == 7001
    asks.all_know([one, two], {7001: "d2"})


def test_an_engine_that_comes_back_with_nothing_hears_of_all_numbers(world: RedisWorld, asks: Asks) -> None:
    """Before any is given; where two nodes differ, the newest proof of life stands."""
    one, two = world.started("one", "two")
    one.arrived("d1", 1, "rt1")
    asks.port(one, "d1")
    asks.port(two, "d2", here=False)
    asks.all_know([one, two], {7000: "d1", 7001: "d2"})
    world.engine.kill()
    world.until(lambda: one.problem is not None and two.problem is not None)
    for view in (one, two):
        with pytest.raises(DirectoryAway):
            asks.port(view, "d3")
    old = one.claims.known[7001]
    one.claims.known[7001] = old._replace(serial="older", touched=old.touched - 1)
    one.claims.known[7002] = Claim("p", 7002, "only one", "it", old.touched, DAY)
    one.claims.here = lambda claim: claim.serial == "d1"
    world.engine.start()
    asks.all_know([one, two], {7000: "d1", 7001: "d2", 7002: "only one"})
    with pytest.raises(DirectoryAway, match="emptied"):
        asks.port(two, "d3")  # others may know of more
    assert asks.port(two, "d1") == 7000


def test_what_is_said_again_of_a_device_that_is_here_is_newer_than_of_one_that_is_not(
    world: RedisWorld, asks: Asks
) -> None:
    """Whichever proof of life an engine that was emptied hears first; and no living device is moved by it."""
    one, two = world.started("one", "two")
    begun = round(time.time() * 1000) - 3_600_000

    def again(view: RedisDirectory, serial: str, touched: int, here: bool) -> str:
        told = ("p", serial, "it", 7000, 0, int(here), begun + touched, DAY, 60_000, 0, 0, "[[7000, 7000]]")
        return str(world.result(Deferred.fromCoroutine(view.claims._call(CLAIM, *told)))[1])

    assert again(two, "away", 200, here=False) == "away"
    assert again(one, "older", 100, here=False) == "away"
    assert again(one, "here", 100, here=True) == "here"
    assert again(two, "too", 300, here=True) == again(two, "newer", 3_700_000, here=False) == "here"
    asks.all_know([one, two], {7000: "here"})
    assert world.engine.ask("HGET", "rt:test:ports", "away") == "$-1"


def test_a_replica_that_had_not_heard_of_a_number_hears_of_it_again(world: RedisWorld, asks: Asks) -> None:
    """Before it gives that to another, in all but the first moment."""
    one, two = world.started("one", "two")
    one.claims.here = lambda claim: claim.serial == "d1"
    with world.lagging():
        assert asks.port(one, "d1") == 7000
        asks.all_know([one, two], {7000: "d1"})
    world.until(lambda: world.engine.ask("HLEN", "rt:test:claims") == ":1")
    asks.all_know([one, two], {7000: "d1"})
    world.until(lambda: one.problem is None and two.problem is None)
    assert asks.port(two, "d2") == 7001


def test_a_node_knows_how_long_it_may_believe(world: RedisWorld) -> None:
    """What stands longer without its device than the engine was silent is still its own."""
    (one,) = world.started("one")
    assert one.sure(0) and one.sure(DAY)
    assert one._lease.asked is not None
    one._lease.asked -= LEASE * 0.8
    assert one.sure(DAY) and not one.sure(0) and not one.sure(LEASE * 1.5)
    one._renew()
    world.until(lambda: one.sure(0))


def test_there_are_no_more_nodes_than_a_mesh_can_have(world: RedisWorld) -> None:
    """The next one is told so, and joins when there is room."""
    (one,) = world.started("one")
    for number in range(MOST_NODES - 1):
        world.engine.ask("SET", f"rt:test:node:n{number}", '[1, "n:1", "up", 0, 0, "1"]')
        world.engine.ask("ZADD", "rt:test:nodes", "9000000000", f"n{number}")
    late = world.view("late")
    late.start().addErrback(lambda failure: None)
    world.until(lambda: "32 nodes" in (late.problem or ""))
    one._renew()  # who is there stays
    world.until(lambda: one.problem is None)
    world.engine.ask("DEL", "rt:test:node:n3")
    world.until(lambda: late.problem is None)
