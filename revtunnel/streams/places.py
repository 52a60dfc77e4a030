"""How many connections a target takes at once: who dials it beyond that waits for a place.

The rules: a place is taken from the dial on until the connection is closed, by us or by a reset, so that the
next one comes behind it at the target too. First come, first served, within bounds of number and time.

Source: issue "a PLC that takes one connection at a time"; ours.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore, TimeoutError

from revtunnel.ground.limits import AgentLimits
from revtunnel.sockets.ends import End, PlainEnd

__all__ = ["NoPlace", "Places"]


class NoPlace(Exception):
    """None was free in time, or too many wait for one."""


class _PlacedEnd(PlainEnd):
    """A connection that gives its place back when it is over."""

    __slots__ = ("_give_back",)

    def __init__(self, end: End, give_back: Callable[[], object]) -> None:
        super().__init__(end.sock, end.peer)
        self._give_back: Callable[[], object] | None = give_back

    def close(self) -> None:
        """As ``End`` says."""
        super().close()
        self._over()

    def abort(self) -> None:
        """As ``End`` says."""
        super().abort()
        self._over()

    def _over(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


class Places:
    """Those of one target, ``most`` in all."""

    def __init__(self, reactor: Any, most: int) -> None:
        self.most = most
        self._reactor = reactor
        self._free = DeferredSemaphore(most)

    async def connect(self, limits: AgentLimits, dial: "Callable[[], Deferred[End]]") -> End:
        """Dial once there is a place. NoPlace: there was none; what ``dial`` fails with passes through."""
        if not self._free.tokens and len(self._free.waiting) >= limits.line:
            raise NoPlace(f"takes {self.most} at once, and {limits.line} wait")
        try:
            await self._free.acquire().addTimeout(limits.line_wait, self._reactor)
        except TimeoutError:
            raise NoPlace(f"takes {self.most} at once, and had no place in {limits.line_wait:g} s") from None
        try:
            return _PlacedEnd(await dial(), self._give_back)
        except BaseException:
            self._give_back()
            raise

    def _give_back(self) -> None:
        """In the next turn: who waits dials, and whoever closed is still at it."""
        self._reactor.callLater(0, self._free.release)
