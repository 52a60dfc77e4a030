"""Tells the engine which links this node has.

Rule of this file: one batch is under way at a time, and what was not heard waits for the next renewal. What
is only said again goes at ``PACE``, from a moment of its own, so that nodes do not come all at once.

Source: next/cluster.md section 6, "engine back"; ours.
"""

import random
from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.node_records import Place
from revtunnel.cluster.own_links import OwnLink, OwnLinks
from revtunnel.cluster.redis_places import place_of
from revtunnel.cluster.redis_scripts import DROP, REGISTER
from revtunnel.sockets.stages import pause

__all__ = ["RedisTeller"]

log = Logger(namespace="revtunnel")

PACE = 1000  # records a second that are only said again
SPREAD = 1.0  # seconds within which nodes begin to


class RedisTeller:
    """``call`` runs a script for this node; ``elsewhere``: the newest link of a serial is not here."""

    def __init__(
        self,
        reactor: Any,
        call: Callable[..., Awaitable[Any]],
        elsewhere: Callable[[str, OwnLink, Place], None],
    ) -> None:
        self.links = OwnLinks()
        self.fault: str | None = None  # what the last batch came to
        self._reactor = reactor
        self._call = call
        self._elsewhere = elsewhere
        self._open = False  # whether the engine knows this node
        self._telling = False

    def arrived(self, serial: str, link: int, wire: str, age: float = 0.0) -> None:
        """A link is up here, since so many seconds."""
        self.links.arrived(serial, OwnLink(link, wire, self._reactor.seconds() - age))
        self._reactor.callLater(0, self._tell)

    def left(self, serial: str, link: int) -> None:
        """It is gone."""
        if self.links.left(serial, link):
            self._reactor.callLater(0, self._tell)

    def renewed(self) -> None:
        """The engine knows us: say what waits, and a little of what it should have."""
        self._open = True
        self.links.look_again()
        self._tell()

    def again(self) -> None:
        """Say everything once more: it may be lost."""
        self._reactor.callLater(random.uniform(0, SPREAD), self._all)

    def stop(self) -> None:
        """Say nothing more."""
        self._open = False

    def _all(self) -> None:
        self.links.assert_all()
        self._tell()

    def _tell(self) -> None:
        if self._open and not self._telling:
            self._telling = True
            telling = Deferred.fromCoroutine(self._told())
            telling.addErrback(lambda bug: log.failure("telling the directory failed", bug))

    async def _told(self) -> None:
        links: dict[str, OwnLink] = {}
        gone: dict[str, int] = {}
        try:
            while self._open:
                if gone := self.links.take_gone():
                    await self._call(DROP, *(each for pair in gone.items() for each in pair))
                links, news = self.links.take()
                if links:
                    await self._register(links)
                elif not gone:
                    self.fault = None
                    break
                gone = {}
                if links and not news:
                    await pause(self._reactor, len(links) / PACE)
        except DirectoryAway as error:
            self.fault = str(error)
            self.links.not_heard(links, gone)
        finally:
            self._telling = False

    async def _register(self, links: dict[str, OwnLink]) -> None:
        now, rows = self._reactor.seconds(), list[object]()
        for serial, own in links.items():
            rows += [serial, own.link, own.wire, own.fence, int(max(0.0, now - own.since) * 1000)]
        answers = await self._call(REGISTER, self.links.floor, *rows)
        for (serial, own), answer in zip(links.items(), answers, strict=True):
            if "fence" in answer:
                self.links.heard(own, answer["fence"])
                continue
            place = place_of(*answer["at"])
            self.links.floor = max(self.links.floor, place.fence)
            self._elsewhere(serial, own, place)
