"""A client port whose clients the data plane accepts and gives data sockets, and what Python hears of them.

The rules: a client that has ended again before anybody asked is two facts and no object. One that lives
longer, or that somebody asks for, becomes a stream like all others, whose bytes stay where they are. Whatever
is no plain opening comes here as it is (CONNECT said or not, what was read, what was heard) and goes on as if
Python had had it from the beginning. Whoever takes the port back has all of its clients.

Source: issue 16 "as a second step, accepts clients"; _pump_doors.c.
"""

import errno
import os
from collections.abc import Callable
from typing import Any, NamedTuple
from typing import Protocol as Typing

from revtunnel.carriers.data_pool import DataPool
from revtunnel.carriers.stock import end_of
from revtunnel.ground.facts import ChannelEnded, ChannelOpened
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.addresses import address_of, written_address
from revtunnel.sockets.data_plane import ASKED, CUT, DONE, OPENED, DataPlane, Made, Maker
from revtunnel.sockets.ends import said
from revtunnel.streams.clients import Clients, ClientSocket
from revtunnel.streams.commands import Command, encode_connect
from revtunnel.streams.frames import encode_frame
from revtunnel.streams.running import sided

__all__ = ["Allowed", "Door", "Lent", "lend"]


class Allowed(NamedTuple):
    """Clients that a door may have without that Python was told of them, and all doors; those of Python."""

    most: int
    outside: int
    all: int


class Lent(Typing):
    """A listening socket that somebody else accepts at (sockets/listening.py)."""

    @property
    def family(self) -> int:
        """Of its addresses."""

    def lend_here(self, before_close: Callable[[], None]) -> int:
        """Its descriptor, until ``take_back_here``; -1: it is not to be had now."""

    def take_back_here(self) -> None:
        """Accept ourselves again."""

    def given(self, descriptor: int, address: Any, error: int) -> None:
        """Somebody who was accepted there, of whom nothing was read; an errno: he is cut."""


def lend(
    plane: DataPlane, port: Lent, close: Callable[[], None], make: Callable[[Any, int], int], maker: Maker
) -> int:
    """Have the plane accept at a port, by what ``make`` makes of its descriptor there: that one's handle.

    ``close`` is called before the port is closed. OSError: it cannot be lent, and nothing has changed.
    """
    descriptor = port.lend_here(close)
    if descriptor < 0:
        raise OSError(errno.EBUSY, "somebody else has it")
    try:
        return plane.lend(lambda pump: make(pump, descriptor), maker)
    except OSError:
        port.take_back_here()
        raise


class Door:
    """One client port. ``closed`` is called once Python has it again."""

    def __init__(
        self,
        plane: DataPlane,
        pool: DataPool,
        port: Lent,
        clients: Clients,
        ended_wait: float,
        allowed: Allowed,
        closed: Callable[[], object],
    ) -> None:
        """OSError: it cannot be lent, and nothing has changed."""
        self._plane = plane
        self.pool = pool
        self._port = port
        self._clients = clients
        self._closed = closed
        self._over = False
        self.here: set[ClientSocket] = set()  # those that became streams, and have their bytes there
        stock = pool.spare.lend(plane).handle
        connect = encode_frame(Command.CONNECT, 0, encode_connect(clients.target))
        told = connect, pool.link.says_origins, ended_wait, *allowed[:2]
        self.handle = lend(
            plane, port, self.close, lambda pump, number: pump.door(stock, number, *told), self
        )
        pool.spare.doors.add(self)
        self.allow(allowed)

    def allow(self, allowed: Allowed) -> None:
        """Other numbers from now on."""
        if not self._over:
            self._plane.pump.allow(self.handle, *allowed)

    def close(self) -> None:
        """Take it back, with all its clients."""
        if self._over:
            return
        self._over = True
        self._plane.pump.close_door(self.handle)
        self._plane.fetch(young=True)
        self._plane.take_back(self.handle)
        self.pool.spare.doors.discard(self)
        self._port.take_back_here()
        self._closed()

    # -- the plane calls

    def told(self, news: int, side: int, number: int) -> None:
        """It cannot accept there: Python can, or says why not."""
        self.pool.reactor.callLater(0, self.close)

    def made(self, made: Made) -> None:
        """What came of a client."""
        if made.news & OPENED and made.news & (DONE | CUT):
            self._passed(made)
        elif made.news & OPENED:
            self._goes_on(made)
        elif made.news & ASKED:
            self._opens(made)
        else:
            self._begins(made)

    # -- inside

    def _passed(self, made: Made) -> None:
        """It came and went."""
        pool, clients = self.pool, self._clients
        about = clients.serial, made.number, clients.name, self._peer(made)
        reason, detail = Ended.CLOSED, ""
        if made.news & CUT:
            name = ("near", "far")[made.side]
            cut = said(OSError(made.error, os.strerror(made.error)))
            reason, detail = Ended.RESET_BY_PEER, sided(f"{name}: {cut}", "client", "agent")
        _, opened, ended = made.times
        to_client, to_device = made.taken
        pool.report(ChannelOpened(*about, round(opened * 1000, 3)))
        pool.report(ChannelEnded(*about, reason, detail, round(ended, 3), to_device, to_client))
        clients.passed()
        pool.passed()

    def _goes_on(self, made: Made) -> None:
        """It is a stream from now on, whose bytes stay where they are."""
        client = self._client(made)
        socket = self.pool.unwatched(end_of(made.descriptors[1], "agent"), made.number)
        self.here.add(client)
        client.on_finished = lambda: self.here.discard(client)
        self._clients.joined(client)
        stream = self.pool.stream(client, socket)
        stream.goes_on(self._plane, made.handle, round(made.times[1] * 1000, 3))

    def _opens(self, made: Made) -> None:
        """Its CONNECT was said, and it is not open."""
        client = self._client(made)
        client.early, client.unread = made.said, True
        socket = self.pool.unwatched(end_of(made.descriptors[1], "agent"), made.number)
        self._clients.joined(client)
        stream = self.pool.stream(client, socket)
        stream.asked(client.since, made.said[len(made.said) - made.unsent :])
        if made.heard:
            socket.hears(made.heard)
        elif made.error and made.side == 0:
            client.abort()
        elif made.error:
            socket.fails(OSError(made.error, os.strerror(made.error)))

    def _begins(self, made: Made) -> None:
        """Nothing was said for it."""
        descriptor, other = made.descriptors
        if other < 0:
            self._port.given(descriptor, made.name, made.error)
            return
        self.pool.core.back()
        self.pool.spare.back(end_of(other, "agent"), made.number)
        client = self._client(made)
        client.early, client.unread = made.said, True
        self._clients.let_in(client)

    def _client(self, made: Made) -> ClientSocket:
        client = self._clients.client(end_of(made.descriptors[0], self._peer(made)))
        client.since -= made.times[0]
        return client

    def _peer(self, made: Made) -> str:
        return written_address(address_of(self._port.family, made.name))
