"""What an operator can do with any daemon of ours that has an admin socket: look, watch, drain, reload.

Rule of this file: nothing of what a daemon is for. device_listings.py`` and each daemon's operator add that.

Source: house.md (operator.py); issue "Admin".
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from revtunnel import __version__
from revtunnel.ground.facts import Fact
from revtunnel.process.admin.operation_form import Operation, Row, table_of
from revtunnel.process.admin.process_operations import PROCESS_OPERATIONS
from revtunnel.process.admin.refusals import Busy, Conflict, NotFound, valid
from revtunnel.process.reporting import Reporter

__all__ = ["DaemonOperator"]


class DaemonOperator:
    """The daemon as a process. ``wall`` gives seconds since 1970, for people.

    ``operations`` are those that it has, each with a method; ``known`` are also those of other daemons.
    """

    operations: Mapping[str, Operation] = table_of(*PROCESS_OPERATIONS)

    def __init__(
        self, clock: IReactorTime, reporter: Reporter, name: str, wall: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._reporter = reporter
        self._name = name
        self._wall = wall
        self._since = clock.seconds()
        # set by the daemon, which owns the process
        self.known = self.operations
        self.on_drain: Callable[[], None] = lambda: None
        self.on_reload: Callable[[], Deferred[Row]] | None = None
        self.problems: Callable[[], Mapping[str, str]] = dict  # what is tried again, and why
        self.on_log_level: Callable[[str], None] = lambda level: None
        # asks what an operation is to know from other processes of ours; None: nothing
        self.learn: Callable[[Operation], Deferred[None] | None] = lambda operation: None

    @property
    def draining(self) -> bool:
        """Whether the daemon is on its way out."""
        raise NotImplementedError

    @property
    def state(self) -> str:
        """``running`` or ``draining``."""
        return "draining" if self.draining else "running"

    @property
    def problem(self) -> str | None:
        """Why what was changed last is not on the disk yet, though it counts; None: it is."""
        return None

    def ping(self) -> Row:
        """The least that says the daemon is alive."""
        return {"state": self.state, "name": self._name, "version": __version__}

    def status(self) -> Row:
        """The daemon in one row; more of it where there is more to say."""
        return {
            **self.ping(),
            "since": self.at(self._since),
            "uptime": round(self._clock.seconds() - self._since, 3),
            "problems": [f"{what}: {why}" for what, why in self.problems().items()],
        }

    def watch(self, watcher: Callable[[Fact], None]) -> Callable[[], None]:
        """Have every fact from now on; call the answer to end it."""
        return self._reporter.watch(watcher)

    def drain(self, node: str | None = None) -> "Deferred[Any] | None":
        """Stop as SIGTERM does, or have another ``node`` do so; asking again changes nothing.

        Raises:
            NotFound: there is no such node.
        """
        if node is not None:
            return self.drain_node(node)
        if not self.draining:
            self.on_drain()
        return None

    def drain_node(self, node: str) -> "Deferred[Any] | None":
        """Have a node of a cluster drain."""
        raise NotFound(f"this daemon knows no node {node}")

    def reload(self) -> "Deferred[Row]":
        """Read the settings again: ``changed``, ``needs_restart`` and ``errors``.

        Raises:
            Busy: the daemon is on its way out.
            Conflict: it has no settings to read.
        """
        if self.draining:
            raise Busy("the server is draining")
        if self.on_reload is None:
            raise Conflict("this server cannot reload")
        return self.on_reload()

    def log_level(self, least: str) -> None:
        """Change how much is logged until the next restart or reload.

        Raises:
            Invalid: not a level.
        """
        valid(self.on_log_level, least)

    def at(self, monotonic: float) -> str:
        """A monotonic time as UTC, for people."""
        wall = self._wall() - (self._clock.seconds() - monotonic)
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall))
