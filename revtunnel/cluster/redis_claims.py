"""Port numbers that are open everywhere, as one node knows them and tells of them.

Rule of this file: a number is had when the engine has said so, and never before. What is known here is what
a renewal brought last. An engine that was emptied gets back what was known before anything is learnt of it;
what could not be given back is given back later.

Source: next/cluster.md section 5; ours.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.node_records import Claim
from revtunnel.cluster.redis_scripts import CLAIM, RELEASE

__all__ = ["RedisClaims"]


class RedisClaims:
    """``call`` runs a script for this node; ``tell`` is called with each that begins to stand, or ceases
    to."""

    def __init__(self, call: Callable[..., Awaitable[Any]], tell: Callable[[Claim, bool], None]) -> None:
        self.revision = ""  # of what is known
        self._call = call
        self._tell = tell
        self._era = ""
        self._known: dict[int, Claim] = {}
        self._unreleased: list[Claim] = []

    def all(self) -> list[Claim]:
        """Those that are known, in the order of ports."""
        return [self._known[port] for port in sorted(self._known)]

    async def claim(self, wanted: Claim) -> Claim:
        """The one that stands. DirectoryAway: nobody knows."""
        port, (pool, serial, offer) = await self._call(CLAIM, *wanted)
        return Claim(pool, port, serial, offer)

    def release(self, claim: Claim) -> None:
        """Give it back, now or once that can be."""
        self._unreleased.append(claim)
        self._soon()

    def renewed(self, era: str, revision: str, rows: Any) -> None:
        """What a renewal said; ``rows`` False: nothing changed since our revision."""
        emptied, self._era = self._era not in ("", era), era
        if emptied and self._known:
            self.revision = ""
            self._soon((*self.all(),))
        elif rows is not False:
            self.revision = revision
            self._learn({port: Claim(pool, port, serial, offer) for port, (pool, serial, offer) in rows})
        if self._unreleased:
            self._soon()

    def _soon(self, again: tuple[Claim, ...] = ()) -> None:
        def away(failure: Failure) -> None:
            failure.trap(DirectoryAway)
            if again:
                self._era = "lost"  # the next renewal begins anew

        Deferred.fromCoroutine(self._say(again)).addErrback(away)

    async def _say(self, again: tuple[Claim, ...]) -> None:
        for claim in again:
            if claim not in self._unreleased:
                await self.claim(claim)
        while self._unreleased:
            claim = self._unreleased[0]
            await self._call(RELEASE, claim.port, claim.pool, claim.serial, claim.offer)
            if claim in self._unreleased:
                self._unreleased.remove(claim)

    def _learn(self, claims: dict[int, Claim]) -> None:
        old, self._known = self._known, claims
        for port, claim in old.items():
            if claims.get(port) != claim:
                self._tell(claim, False)
        for port, claim in claims.items():
            if old.get(port) != claim:
                self._tell(claim, True)
