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
