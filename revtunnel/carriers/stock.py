"""The data sockets of one link that wait for clients: here, or in the data plane, which gives them away.

The rules: none waits there before a client port of their device is lent (doors.py). What waits there is
watched there; one that dies or speaks comes back, and what ails it is found here. How many were given away is
told in batches. A socket that is no plain TCP connection never waits there.

Source: issue 16 "as a second step, accepts clients"; _pump_doors.c.
"""

import socket
from collections.abc import Callable
from typing import Any
from typing import Protocol as Typing

from revtunnel.carriers.data_stream import DataSocket
from revtunnel.carriers.framed_end import KEEP_ALIVE, keep_alive
from revtunnel.ground.limits import RelayLimits
from revtunnel.sockets.data_plane import DataPlane, Made
from revtunnel.sockets.ends import End, PlainEnd

__all__ = ["Spare", "Stock", "end_of"]

_TCP = (socket.AF_INET, socket.AF_INET6)


def end_of(descriptor: int, peer: str) -> PlainEnd:
    """The end of a connection that the plane gave back; it was set to end with a reset before."""
    return PlainEnd(socket.socket(fileno=descriptor), peer, inherits=True)


class Closable(Typing):
    """A client port that the data plane has, with these sockets."""

    def close(self) -> None:
        """Take it back."""


class SparePool(Typing):
    """Whose data sockets they are: their pool (data_pool.py)."""

    reactor: Any
    relay_limits: RelayLimits

    def now(self) -> float:
        """Monotonic seconds."""

    def used(self, count: int) -> None:
        """So many were given to clients in the plane."""

    def refill(self) -> None:
        """Others have come."""

    def unlent(self) -> None:
        """None of its sockets is to come to the plane by itself any more."""

    def socket(self, end: End, number: int) -> DataSocket:
        """A data socket, which is watched from now on."""


class Spare:
    """All of one link's."""

    def __init__(self, pool: SparePool) -> None:
        self.here: list[DataSocket] = []
        self.doors: set[Closable] = set()
        self.is_plain = False  # whether the last one was such as the data plane can have
        self._pool = pool
        self._stock: Stock | None = None
        self._coming: list[tuple[End, int]] = []  # that go there behind this turn of the reactor

    def __len__(self) -> int:
        return len(self.here) + len(self._coming) + (len(self._stock) if self._stock is not None else 0)

    def put(self, end: End, number: int) -> None:
        """One more waits; the pool is refilled now, or once for all that come in this turn."""
        self.is_plain = type(end) is PlainEnd and end.sock.family in _TCP
        if self._stock is None or not self.is_plain:
            self.back(end, number)
            self._pool.refill()
            return
        if not self._coming:
            self._pool.reactor.callLater(0, self._came)
        self._coming.append((end, number))

    def _came(self) -> None:
        self._go()
        self._pool.refill()

    def _go(self) -> None:
        """All of this turn together: each handing over costs as much."""
        coming, self._coming = self._coming, []
        for end, number in coming if self._stock is None else self._stock.put(coming):
            self.back(end, number)

    def draw(self, oldest: bool = False) -> DataSocket | None:
        """Take one that waits; None: none does."""
        if self._coming:
            return self._pool.socket(*self._coming.pop())
        if self.here:
            return self.here.pop(0 if oldest else -1)
        drawn = self._stock.draw() if self._stock is not None else None
        return self._pool.socket(*drawn) if drawn is not None else None

    def back(self, end: End, number: int) -> None:
        """One waits here."""
        self.here.append(self._pool.socket(end, number))

    def keep_alive(self, now: float, since: float, until: float) -> None:
        """Set what a socket needs that waits for longer, of those that have waited for so many seconds."""
        for each in self.here:
            if since <= now - each.since < until:
                keep_alive(each.end)
        if self._stock is not None:
            self._stock.keep_alive(since, until)

    def lend(self, plane: DataPlane) -> "Stock":
        """What they wait in there, from now on. OSError: there can be none."""
        if self._stock is None:
            self._stock = Stock(plane, self._pool.relay_limits, self._pool.used, self.back)
        return self._stock

    def unlend(self) -> None:
        """Have nothing there any more."""
        for door in [*self.doors]:
            door.close()
        self._go()
        if self._stock is not None:
            self._pool.unlent()
        stock, self._stock = self._stock, None
        if stock is not None:
            while (drawn := stock.draw()) is not None:
                self.back(*drawn)
            stock.plane.fetch()  # those that have died there
            stock.close()


class Stock:
    """Those in the plane. ``used``: so many were given away; ``back``: one has died there, or spoken."""

    def __init__(
        self,
        plane: DataPlane,
        limits: RelayLimits,
        used: Callable[[int], None],
        back: Callable[[End, int], None],
    ) -> None:
        """OSError: no memory, descriptors or threads."""
        self.plane = plane
        self._used, self._back = used, back
        given = limits.first, limits.turn, limits.calm, limits.pool
        self.handle = plane.lend(lambda pump: pump.stock(*given), self)

    def __len__(self) -> int:
        return self.plane.pump.stocked(self.handle)

    def put(self, sockets: list[tuple[End, int]]) -> list[tuple[End, int]]:
        """Have these wait there; those that cannot are the caller's still."""
        while sockets:
            done = self.plane.pump.put(self.handle, [(end.fileno(), number) for end, number in sockets])
            for end, _ in sockets[:done]:
                end.sock.detach()
            sockets = sockets[done:]
            if not done:  # no memory, or the kernel watches no more of them
                break
        return sockets

    def draw(self) -> tuple[End, int] | None:
        """Take the oldest back; None: there is none."""
        drawn = self.plane.pump.draw(self.handle)
        return None if drawn is None else (end_of(drawn[0], "agent"), drawn[1])

    def keep_alive(self, since: float, until: float) -> None:
        """Set what a socket needs that waits for longer, of those that have waited for so many seconds."""
        self.plane.pump.keep_alive(self.handle, since, until, *KEEP_ALIVE)

    def close(self) -> None:
        """It is empty, and no door has it any more."""
        self.plane.pump.close_stock(self.handle)
        self.plane.take_back(self.handle)

    # -- the plane calls

    def told(self, news: int, side: int, number: int) -> None:
        """Some were given away."""
        self._used(side)

    def made(self, made: Made) -> None:
        """One has died there, or spoken."""
        self._back(end_of(made.descriptors[1], "agent"), made.number)
