"""Nodes over a real engine, in one process and one reactor (directory_behaviour.World)."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from revtunnel.cluster import redis_engine
from revtunnel.cluster.redis_directory import RedisDirectory
from revtunnel.cluster.redis_engine import EngineWay
from tests.support.epoll import Loop
from tests.support.redis_server import RedisServer

LEASE = 1.5  # seconds
SLOW = 15.0  # seconds: a machine that does other things besides is no engine that hangs


class RedisWorld:
    """``engine`` runs, and has ``SLOW`` for an answer; views are ended with ``close``."""

    def __init__(self, loop: Loop, directory: Path, *options: str) -> None:
        self.loop = loop
        self._deadline, redis_engine.DEADLINE = redis_engine.DEADLINE, SLOW
        self.engine = RedisServer(directory, *options).start()
        self.way = EngineWay("127.0.0.1", self.engine.port)
        self.views: list[RedisDirectory] = []

    def view(self, name: str, way: EngineWay | None = None) -> RedisDirectory:
        places = f"{name}.example:2066", f"{name}.example:2065"
        found = RedisDirectory(self.loop.reactor, way or self.way, "test", name, *places, LEASE)
        self.views.append(found)
        return found

    def started(self, *names: str) -> list[RedisDirectory]:
        """Views that have joined."""
        views = [self.view(name) for name in names]
        for view in views:
            self.result(view.start())
        return views

    def result(self, waited: "Deferred[Any]") -> Any:
        return self.loop.wait(waited)

    def until(self, condition: Callable[[], Any], what: str = "what must come") -> None:
        # a condition may turn the reactor itself
        self.loop.until(condition, what)

    def die(self, view: Any) -> None:
        self._silence(view)
        name = view.me.name
        self.until(lambda: self.engine.ask("EXISTS", f"rt:test:node:{name}") == ":0", "the end of a lease")
        for other in self.views:
            if not other._stopped:
                other._renew()

    @contextlib.contextmanager
    def lagging(self) -> Iterator[None]:
        """At its end the engine is as it was before: a replica that had not heard of it all."""
        moved = "for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do "
        moved += "redis.call('COPY', key, ARGV[2] .. key:sub(#ARGV[1] + 1), 'REPLACE') end"
        self.engine.ask("EVAL", moved, "0", "rt:test:", "kept:")
        yield
        gone = "for _, key in ipairs(redis.call('KEYS', 'rt:test:*')) do redis.call('DEL', key) end "
        self.engine.ask("EVAL", gone + moved, "0", "kept:", "rt:test:")
        for kind in ("normal", "pubsub"):
            self.engine.ask("CLIENT", "KILL", "TYPE", kind)

    def close(self) -> None:
        """End all."""
        for view in self.views:
            self._silence(view)
        redis_engine.DEADLINE = self._deadline
        self.engine.kill()
        self.loop.settle()

    @staticmethod
    def _silence(view: Any) -> None:
        view._stopped = True
        view._end_timer()
        view._engine.stop()
