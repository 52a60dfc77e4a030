"""The directory over a real engine: as all directories, and what an engine alone can do to it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.directory_behaviour import DirectoryBehaviour
from tests.cluster.redis_world import RedisWorld
from tests.support.epoll import own_reactor
from tests.support.redis_server import INSTALLED, PROGRAM

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INSTALLED, reason=f"{PROGRAM} is not installed")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RedisWorld]:
    """An engine, and nodes to come."""
    with own_reactor() as loop:
        world = RedisWorld(loop, tmp_path)
        yield world
        world.close()


class TestRedisDirectory(DirectoryBehaviour):
    """As all directories."""


def test_records_of_nodes_that_make_no_sense_are_of_nodes_that_are_away(world: RedisWorld) -> None:
    """Whoever wrote them; the others are known all the same, and no lease is lost by it."""
    (one,) = world.started("one")
    odd = ("[1]", '[1, 2, "up"]', '[1, "a:1", "up", "many"]', '[1, "a:1", [], 0, 0, "1", "", ""]', '["x"]')
    for number, text in enumerate(odd):
        world.engine.ask("SET", f"rt:test:node:odd{number}", text)
        world.engine.ask("ZADD", "rt:test:nodes", "9000000000", f"odd{number}")
    world.engine.ask("ZADD", "rt:test:nodes", "9000000000", "no name!")
    world.started("two")
    one._renew()
    world.until(lambda: len(one.nodes()) == 2 + len(odd))
    assert {each.name: each.state for each in one.nodes()} == {
        **{f"odd{number}": "up" if number == 0 else "away" for number in range(len(odd))},
        "one": "up",
        "two": "up",
    }
    assert one.problem is None
