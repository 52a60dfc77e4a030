"""The scripts: who may write what, and who may not."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.cluster import redis_scripts as scripts
from revtunnel.cluster.claim_scripts import CLAIM
from revtunnel.cluster.redis_engine import RedisEngine
from tests.cluster.redis_world import RedisWorld
from tests.support.epoll import own_reactor
from tests.support.redis_server import INSTALLED, PROGRAM

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INSTALLED, reason=f"{PROGRAM} is not installed")]


CLAIMS = ["all", "d", "ssh", 0, 0, 1, 0, 0, 0, 64, 0, "[[7000, 7001]]"]  # of a port


class Desk:
    """Runs scripts as whoever one likes."""

    def __init__(self, world: RedisWorld) -> None:
        self.world = world
        self.engine = RedisEngine(world.loop.reactor, world.way, ("rt:test:all",))
        self.engine.start()
        world.until(lambda: self.engine.problem is None)

    def run(self, script: str, *args: object) -> Any:
        """What it says."""
        return self.world.result(Deferred.fromCoroutine(self.engine.call(script, "rt:test:", *args)))

    def join(self, name: str, epoch: int = 0) -> int:
        """A node's renewal, the first one for 0: its epoch."""
        said = self.run(scripts.RENEW, name, epoch, 0, 10_000, 32, f"{name}:1", "up", 0, 0, "1")
        return int(said[0]) if isinstance(said, list) else -1

    def register(self, name: str, epoch: int, serial: str, link: int, fence: int = 0, age: int = 0) -> Any:
        """One record."""
        said = self.run(scripts.REGISTER, name, epoch, 0, serial, link, "rt1", fence, age)
        return said if isinstance(said, str) else said[0]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """Over an engine of its own."""
    with own_reactor() as loop:
        world = RedisWorld(loop, tmp_path)
        desk = Desk(world)
        yield desk
        desk.engine.stop()
        world.close()


def test_an_older_fence_is_refused(desk: Desk) -> None:
    """By a record of a node that lives; a node that is gone has none."""
    one, two = desk.join("one"), desk.join("two")
    old = desk.register("one", one, "d", 1)["fence"]
    new = desk.register("two", two, "d", 1)["fence"]
    assert new > old
    assert desk.register("one", one, "d", 1, old) == {"at": [["two", two, 1, new, "rt1"], "two:1"]}
    assert desk.run(scripts.FIND, "one", one, "d") == [["two", two, 1, new, "rt1"], "two:1"]
    assert desk.run(scripts.LEAVE, "two", two) is True
    assert desk.run(scripts.FIND, "one", one, "d") is False
    assert desk.register("one", one, "d", 1, old) == {"fence": old}


def test_who_came_longer_ago_is_older(desk: Desk) -> None:
    """Also where it is told later."""
    one, two = desk.join("one"), desk.join("two")
    desk.register("one", one, "d", 1, age=1000)
    assert "at" in desk.register("two", two, "d", 1, age=5000)
    assert "fence" in desk.register("two", two, "d", 2, age=10)


def test_who_came_later_is_newer_however_many_numbers_were_given_meanwhile(desk: Desk) -> None:
    """They run ahead of the engine's clock; a link that came some moments ago is told with that age."""
    one, two = desk.join("one"), desk.join("two")
    for turn in range(1, 30):
        shared = [each for number in range(40) for each in (f"{turn}-{number}", "x")]
        desk.run(scripts.SHARE, "two", two, 0, *shared)  # 40 numbers
        desk.register("two", two, f"d{turn}", 1)
        began = time.monotonic()
        while time.monotonic() < began + turn % 4 / 1000:
            pass
        age = int((time.monotonic() - began) * 1000)
        assert "fence" in desk.register("one", one, f"d{turn}", 1, age=age)
        assert "at" in desk.register("two", two, f"d{turn}", 1, fence=1)


def test_a_word_that_is_said_twice_is_the_same(desk: Desk) -> None:
    """Its answer was lost: the fence stays. An older link of the same node changes nothing."""
    one = desk.join("one")
    fence = desk.register("one", one, "d", 2)["fence"]
    assert desk.register("one", one, "d", 2, age=3000) == {"fence": fence}
    assert desk.register("one", one, "d", 1)["at"][0][2] == 2


def test_a_stranger_takes_nothing_away(desk: Desk) -> None:
    """Nor does an earlier run, or an earlier link."""
    one, two = desk.join("one"), desk.join("two")
    desk.register("one", one, "d", 5)
    for name, epoch, link in (("two", two, 5), ("one", one - 1, 5), ("one", one, 4)):
        assert desk.run(scripts.DROP, name, epoch, "d", link) == 0
    assert desk.run(scripts.DROP, "one", one, "d", 5, "nobody", 1) == 1
    assert desk.run(scripts.FIND, "two", two, "d") is False


def test_a_link_that_was_never_told_takes_the_record_of_the_older_one_with_it(desk: Desk) -> None:
    """It took that one's place, and left before a word of it was said."""
    one = desk.join("one")
    desk.register("one", one, "d", 5)
    assert desk.run(scripts.DROP, "one", one, "d", 4) == 0
    assert desk.run(scripts.DROP, "one", one, "d", 6) == 1
    assert desk.run(scripts.FIND, "one", one, "d") is False


def test_a_later_run_of_a_name_ends_the_earlier_one(desk: Desk) -> None:
    """In every word that it has; what it had is void."""
    one = desk.join("one")
    desk.register("one", one, "d", 1)
    again = desk.join("one")
    assert again > one
    assert desk.join("one", one) == -1
    assert desk.register("one", one, "d", 2) == "usurped"
    assert desk.run(CLAIM, "one", one, *CLAIMS) == "usurped"
    assert desk.run(scripts.FIND, "one", again, "d") is False
    assert desk.run(scripts.LEAVE, "one", one) is False


def test_an_engine_that_was_emptied_knows_nobody(desk: Desk) -> None:
    """And does not say "nowhere" before whoever was there had the time to come back."""
    one = desk.join("one")
    desk.world.engine.ask("FLUSHALL")
    for script, args in ((scripts.FIND, ["d"]), (CLAIM, CLAIMS)):
        assert desk.run(script, "one", one, *args) == "lost"
    assert desk.join("one", one) == one
    assert desk.run(scripts.FIND, "one", one, "d") == "young"
    assert desk.world.engine.ask("DEL", "rt:test:young") == ":1"
    assert desk.run(scripts.FIND, "one", one, "d") is False


def test_records_of_a_later_version_that_say_more_are_read(desk: Desk) -> None:
    """Of a node, and of a link."""
    world, now = desk.world, 9_000_000_000
    (view,) = world.started("one")
    world.engine.ask("SET", "rt:test:node:new", '[7, "new:1", "up", 1, 0, "9.0", "more"]')
    world.engine.ask("ZADD", "rt:test:nodes", str(now), "new")
    world.engine.ask("SET", "rt:test:dev:d", '["new", 7, 1, 5, "rt1", "more"]')
    world.until(lambda: [each.name for each in view.nodes()] == ["new", "one"])
    place = world.result(view.find("d"))
    assert place is not None and (place.node, place.address) == ("new", "new:1")
