"""Port numbers that nodes share, as one node knows them and tells of them.

Rule of this file: a number is had when the engine has said so, and never before. What is known here is what
the engine said last. An engine that was emptied gets back what was known, with the number of its last proof
of life, before anything is learnt of it; what could not be given back is given back later. With each new
connection, which may lead to a replica that lacks the last moments, all nodes say what their devices have.

Source: next/cluster.md section 5; ours.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from revtunnel.cluster.claim_scripts import CLAIM, CLAIMED, RELEASE
from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.node_records import Claim, Wanted

__all__ = ["ClaimRefused", "RedisClaims"]

log = Logger(namespace="revtunnel")

PAGE = 500  # ports that are learnt in one call
FIELDS = 9  # of a record; one of another version may have more


class ClaimRefused(Exception):
    """There is no number; the text says why."""


class RedisClaims:
    """``call`` runs a script for this node; ``here``: whether the device of a claim is at it."""

    def __init__(self, call: Callable[..., Awaitable[Any]]) -> None:
        self.here: Callable[[Claim], bool] = lambda claim: False
        self.stands: Callable[[Claim], None] = lambda claim: None
        self.ceased: Callable[[Claim], None] = lambda claim: None
        self.listed: Callable[[], None] = lambda: None  # all are known that there are
        self.known: dict[int, Claim] = {}
        self._call = call
        self._era = ""
        self._told_era = ""  # whose engine knows all that we knew
        self._is_replaced = False
        self._seen = "0"
        self._unreleased: list[tuple[Claim, int]] = []
        self._running = self._again = False

    @property
    def floor(self) -> int:
        """The greatest number that is known."""
        return max((each.touched for each in self.known.values()), default=0)

    async def claim(self, wanted: Wanted) -> Claim:
        """The number that this use has now.

        Raises:
            DirectoryAway: nobody knows.
            ClaimRefused: it has none.
        """
        ranges, fixed = json.dumps(wanted.ranges), int(wanted.fixed > 0)
        asked = wanted.pool, wanted.serial, wanted.offer, wanted.fixed, wanted.before, int(wanted.here), 0
        answer = await self._call(CLAIM, *asked, wanted.keep, wanted.rest, wanted.most, fixed, ranges)
        if len(answer) < 3:
            full = "no port of the pool is free at any node"
            raise ClaimRefused(f"it has the {wanted.most} ports that it may have" if answer else full)
        port, serial, offer, touched = answer
        if (serial, offer) != (wanted.serial, wanted.offer):
            raise ClaimRefused(f"port {port} is another device's" if serial else f"port {port} rests")
        terms = wanted.keep, wanted.rest, wanted.fixed > 0
        known = self.known.get(port)
        self.known[port] = claim = Claim(wanted.pool, port, serial, offer, touched, *terms)
        if known is not None and known.use != claim.use:
            self.ceased(known)  # the news will name the new use only
        return claim

    def release(self, claim: Claim, rest: int) -> None:
        """Give it back, now or once that can be; it rests for so many milliseconds."""
        self._unreleased.append((claim, rest))
        self.look()

    def replaced(self) -> None:
        """Of what was said last the engine may know nothing."""
        self._is_replaced = True

    def renewed(self, era: str, newest: str) -> None:
        """What a renewal said: since when the engine knows anything, and the number of the last change."""
        self._era = era
        self.look()

    def look(self) -> None:
        """Say what waits and learn what is new; once more if that is under way."""
        self._again = True
        if not self._running and self._era:
            self._running = True
            running = Deferred.fromCoroutine(self._run())
            running.addErrback(lambda bug: log.failure("learning of ports failed", bug))

    async def _run(self) -> None:
        try:
            while self._again:
                self._again = False
                if self._era != self._told_era or self._is_replaced:
                    await self._tell_again(self._era == self._told_era)
                while self._unreleased:
                    claim, rest = self._unreleased[0]
                    done = await self._call(RELEASE, claim.port, *claim.use, rest)
                    del self._unreleased[0]
                    if not done and claim.port in self.known:
                        self.stands(self.known[claim.port])
                await self._learn()
        except DirectoryAway:
            pass  # the next renewal begins anew
        finally:
            self._running = False

    async def _tell_again(self, mine: bool) -> None:
        """The engine was emptied, or is new to us; ``mine``: what devices have that are here, no more."""
        era, given = self._era, {claim.port for claim, _ in self._unreleased}
        for claim in [*self.known.values()]:
            here, fixed = int(self.here(claim)), int(claim.fixed)
            if claim.port in given or mine > here:
                continue
            asked = claim.pool, *claim.use, claim.port, 0, here, max(1, claim.touched)
            ranges = json.dumps([[claim.port, claim.port]])
            await self._call(CLAIM, *asked, claim.keep, claim.rest, 0, fixed, ranges)
        seen, number = set[int](), "0"
        while (page := await self._page(number)) is not None:
            number, rows = page
            seen |= {port for port, claim in rows.items() if claim is not None}
            self._take(rows)
        self._take({port: None for port in [*self.known] if port not in seen})
        self._seen, self._told_era, self._is_replaced = number, era, False
        self.listed()

    async def _learn(self) -> None:
        while (page := await self._page(self._seen)) is not None:
            self._seen, rows = page
            self._take(rows)

    async def _page(self, number: str) -> tuple[str, dict[int, Claim | None]] | None:
        """Changes behind that number; None: there are none."""
        last, found = await self._call(CLAIMED, number, PAGE)
        return (last, {port: _claim(port, row) for port, row in found if port}) if found else None

    def _take(self, rows: dict[int, Claim | None]) -> None:
        for port, claim in rows.items():
            old = self.known.pop(port, None)
            if claim is not None:
                self.known[port] = claim
            if old is not None and (claim is None or old.use != claim.use):
                self.ceased(old)
            if claim is not None:
                self.stands(claim)


def _claim(port: int, row: Any) -> Claim | None:
    if not row or not row[1]:
        return None
    pool, serial, offer, touched, _, _, keep, rest, fixed = row[:FIELDS]
    return Claim(pool, port, serial, offer, touched, keep, rest, bool(fixed))
