"""How much goes through a server, as sums that never fall: for charts, metrics and whoever else counts.

Rule of this file: what has ended is added up as it is told; what runs is walked, in slices, every
``STEP`` seconds; nobody who asks waits for that. Between two looks a sum stands still.

Source: issue 13 "How"; ours.
"""

from collections.abc import Iterator
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from revtunnel.daemons.switchboard import Switchboard
from revtunnel.ground.facts import ChannelEnded, Fact
from revtunnel.sockets.slices import Slices

__all__ = ["Traffic"]

STEP = 5.0
PAGE = 200  # streams of one slice


class Traffic:
    """Bytes of all channels since the start, and what waits in those that run."""

    def __init__(self, clock: Any, board: Switchboard) -> None:
        self.to_device = self.to_client = 0
        self.waiting_to_device = self.waiting_to_client = 0
        self._clock = clock
        self._board = board
        self._ended = [0, 0]
        self._slices = Slices(clock)
        self._next: IDelayedCall | None = None

    def told(self, fact: Fact) -> None:
        """A fact, one of all."""
        if isinstance(fact, ChannelEnded):
            self._ended[0] += fact.bytes_to_device
            self._ended[1] += fact.bytes_to_client

    def start(self) -> None:
        """Look now, and again and again."""
        self._next = self._clock.callLater(STEP, self.start)
        self._slices.run(self._walk())

    def stop(self) -> None:
        """No more."""
        self._slices.stop()
        if self._next is not None and self._next.active():
            self._next.cancel()

    def _walk(self) -> Iterator[None]:
        sums = [*self._ended, 0, 0]
        after = "", 0
        while True:
            page = self._board.streams.page(after, PAGE)
            for each in page:
                sums[0] += each.bytes_to_device
                sums[1] += each.bytes_to_client
                sums[2] += each.waiting_to_device
                sums[3] += each.waiting_to_client
            if len(page) < PAGE:
                break
            after = page[-1].serial, page[-1].number
            yield
        # one that ended during the walk may be missing, never counted twice: the sums stand still then
        self.to_device = max(self.to_device, sums[0])
        self.to_client = max(self.to_client, sums[1])
        self.waiting_to_device, self.waiting_to_client = sums[2], sums[3]
