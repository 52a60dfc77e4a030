"""The data sockets of one link: clients that wait for one, sockets that wait for a client, streams of both.

The rules: how many tickets go out is warm_pool.py's decision; a client that finds no socket waits for one for
a bounded time, and then it goes by the link, or is told. A socket that fails a client costs it another try.

Source: wire/link-extension.md "Data sockets".
"""

from collections.abc import Callable
from typing import Any, NamedTuple
from typing import Protocol as Typing

from revtunnel.carriers.data_stream import DataSocket, DataStream, StreamLink
from revtunnel.carriers.stock import Spare
from revtunnel.carriers.warm_pool import WarmPool
from revtunnel.ground.facts import PeerGlitch, Report
from revtunnel.ground.limits import DataLimits, RelayLimits
from revtunnel.sockets.ends import End
from revtunnel.streams.clients import ClientSocket
from revtunnel.streams.commands import number_of

__all__ = ["LOOK", "DataHub", "DataLink", "DataPool"]

LOOK = 5.0  # seconds between looks
TRIES = 8  # sockets that may fail one client before it counts as a client without any


class DataHub(Typing):
    """What a pool needs of the server (data_sockets.py)."""

    reactor: Any
    limits: DataLimits
    relay_limits: RelayLimits
    report: Report

    def now(self) -> float:
        """Monotonic seconds."""

    @property
    def room(self) -> int:
        """Data sockets that the server can still have."""

    def issue(self, pool: "DataPool", count: int) -> list[bytes]:
        """New tickets for a pool."""

    def withdraw(self, pool: "DataPool", tickets: list[bytes]) -> list[bytes]:
        """Tickets that are good no more: those of them that nobody has used."""

    def unlent(self, pool: "DataPool", tickets: list[bytes]) -> None:
        """Its sockets do not wait in the data plane any more; it has these tickets out."""

    def busy(self, pool: "DataPool") -> None:
        """Look at this pool from now on."""

    def released(self) -> None:
        """A data socket is closed."""

    def remember(self, stream: DataStream) -> None:
        """A stream runs."""

    def forget(self, stream: DataStream) -> None:
        """It runs no more."""


class DataLink(StreamLink, Typing):
    """What a pool needs of its link."""

    serial: str
    peer: str
    source: str  # its address
    tls: str  # the version that it speaks; "": none

    @property
    def ticket_scope(self) -> str:
        """Where it came in: a ticket is good at the same one only."""

    def want(self, tickets: list[bytes]) -> None:
        """Ask the agent for a data socket for each ticket."""

    def recall(self, number: int, told: Callable[[bool], None]) -> None:
        """Ask the agent to take back what was said on a data socket: ``told`` whether that was in time."""

    @property
    def round_trip(self) -> float | None:
        """Seconds, as measured; None: not yet."""


class _WaitingClient(NamedTuple):
    client: ClientSocket
    since: float
    tries: int


class DataPool:
    """The spare sockets of one link, the clients that wait for one, and the streams that came of both.

    ``instead`` serves a client that gets no socket: by the link, or with a word. ``only``: there is no link
    to go by, so that a client waits where it would not otherwise. ``stream_ended`` is called after each.
    """

    def __init__(
        self,
        hub: DataHub,
        link: DataLink,
        only: bool,
        instead: Callable[[ClientSocket], None],
        stream_ended: Callable[[], None],
    ) -> None:
        self.link = link
        self.core = WarmPool(hub.limits)
        self.closed = False
        self.streams: dict[int, DataStream] = {}
        self.reactor = hub.reactor
        self.relay_limits = hub.relay_limits
        self.now = hub.now
        self.report = hub.report
        self._hub = hub
        self._only = only
        self._instead = instead
        self._stream_ended = stream_ended
        self.spare = Spare(self)
        self._warm = self.spare.here
        self._tickets: dict[bytes, float] = {}  # and when each was given
        self._waiting: dict[ClientSocket, _WaitingClient] = {}

    # -- clients

    def admit(self, client: ClientSocket) -> bool:
        """Serve a client by a data socket, now or soon; False: it should go by the link."""
        if self.closed:
            return False
        now = self.now()
        self.core.limits = self._hub.limits
        may_wait = self.core.client(now)
        if (socket := self.spare.draw()) is not None:
            self._start(client, socket, 0)
            self.refill()
            return True
        hopeless = not may_wait or (not self._tickets and self._hub.room < 1)
        if not hopeless or self._only:
            self._wait(client, 0)
        self.refill()
        return client in self._waiting

    def recall(self, stream: DataStream) -> None:
        """Ask the agent to take back what was said for a stream, and tell that ``recalled``."""
        if self.closed:
            stream.recalled(False)
        else:
            self.link.recall(stream.number, stream.recalled)

    def again(self, stream: DataStream, detail: str) -> None:
        """The socket of a stream was dead: its client gets another one."""
        self.ended(stream)
        client, tries = stream.client, stream.tries + 1
        self.report(PeerGlitch(self.link.serial, self.link.peer, f"data socket {stream.number}: {detail}"))
        if self.closed or tries >= TRIES:
            self._go_without(client)
        elif (socket := self.spare.draw()) is not None:
            self._start(client, socket, tries)
        else:
            self._wait(client, tries)
        self.refill()

    def _wait(self, client: ClientSocket, tries: int) -> None:
        self._waiting[client] = _WaitingClient(client, self.now(), tries)
        self.core.waiting += 1
        client.on_lost = lambda: self._no_more(client)
        self._hub.busy(self)

    def _no_more(self, client: ClientSocket) -> None:
        """A client does not wait any longer."""
        del self._waiting[client]
        self.core.waiting -= 1
        client.on_lost = None

    def _start(self, client: ClientSocket, socket: DataSocket, tries: int) -> None:
        self.core.gone()
        self.stream(client, socket, tries).ask(self.now())

    def stream(self, client: ClientSocket, socket: DataSocket, tries: int = 0) -> DataStream:
        """A client and its socket are a stream from now on."""
        stream = DataStream(self, client, socket, tries)
        self.streams[stream.number] = stream
        self._hub.remember(stream)
        return stream

    def _go_without(self, client: ClientSocket) -> None:
        if self.closed:
            client.refuse("device-absent")
        else:
            self._instead(client)

    # -- sockets

    def attached(self, ticket: bytes, end: End) -> None:
        """The agent brought a socket."""
        now = self.now()
        took = now - self._tickets.pop(ticket)
        number = number_of(ticket)
        self.core.came(now, took)
        here = (each for each in self._waiting.values() if each.client.is_here())
        if (waiting := next(here, None) if self._waiting else None) is not None:
            client, _, tries = waiting
            self._no_more(client)
            self._start(client, self.socket(end, number), tries)
            self.refill()
        else:
            self.spare.put(end, number)

    def let_in(self, tickets: list[bytes]) -> None:
        """The agent brought sockets, which wait in the data plane; clients that wait here get theirs."""
        now = self.now()
        for ticket in tickets:
            self.core.came(now, now - self._tickets.pop(ticket))
        for waiting in [*self._waiting.values()]:
            socket = self.spare.draw() if waiting.client.is_here() else None
            if socket is not None and waiting.client in self._waiting:
                self._no_more(waiting.client)
                self._start(waiting.client, socket, waiting.tries)
        self.refill()

    def unwatched(self, end: End, number: int) -> DataSocket:
        """A data socket."""
        return DataSocket(self.reactor, end, self, number, self.now())

    def socket(self, end: End, number: int) -> DataSocket:
        """One that is watched from now on."""
        socket = self.unwatched(end, number)
        socket.watch()
        return socket

    # -- those that the data plane has (stock.py, doors.py)

    def unlent(self) -> None:
        """None is to wait there any more."""
        self._hub.unlent(self, [*self._tickets])

    def used(self, count: int) -> None:
        """So many were given to clients there."""
        now = self.now()
        self.core.limits = self._hub.limits
        for _ in range(count):
            self.core.client(now)
            self.core.gone()
        self.refill()

    def passed(self) -> None:
        """A stream is over of which there never was an object, its socket closed."""
        self._hub.released()
        self._stream_ended()

    def spoilt(self, ticket: bytes) -> None:
        """Somebody else brought a ticket of this link: it is used up."""
        del self._tickets[ticket]
        self.core.expired()

    def lost(self, socket: DataSocket, detail: str) -> None:
        """A waiting socket died."""
        self._warm.remove(socket)
        self.core.gone()
        self._hub.released()
        self.report(PeerGlitch(self.link.serial, self.link.peer, f"data socket {socket.number}: {detail}"))

    def ended(self, stream: DataStream) -> None:
        """A stream is over, its socket closed."""
        del self.streams[stream.number]
        self._hub.forget(stream)
        self._hub.released()
        self._stream_ended()

    def refill(self) -> None:
        """Hand out the tickets that are missing, close the sockets that are too many."""
        if self.closed:
            return
        now = self.now()
        count = self.core.missing(now, self._hub.room)
        if count:
            tickets = self._hub.issue(self, count)
            self._tickets.update(dict.fromkeys(tickets, now))
            self.core.hand_out(count)
            self.link.want(tickets)
            self._hub.busy(self)
        for _ in range(self.core.surplus(now)):
            if not self.give_way():
                break  # clients have taken them

    def give_way(self) -> bool:
        """Close a socket that waits; False: there is none."""
        socket = self.spare.draw(oldest=True)
        if socket is not None:
            self._drop(socket)
        return socket is not None

    def _drop(self, socket: DataSocket) -> None:
        self.core.gone()
        socket.close()
        self._hub.released()

    # -- time and ends

    @property
    def patience(self) -> float:
        """Seconds that a CONNECT may stay unacknowledged."""
        return max(self._hub.limits.answer, 4 * (self.link.round_trip or 0.0))

    def look_at_waiting(self, now: float) -> None:
        """Who has waited long enough goes another way."""
        limits = self._hub.limits
        for waiting in [*self._waiting.values()]:
            waiting.client.look()
            if waiting.client in self._waiting and now - waiting.since >= limits.wait:
                self._no_more(waiting.client)
                self.core.gave_up(waiting.since, now)
                self._go_without(waiting.client)
        self.refill()

    def look(self, now: float) -> None:
        """Forget tickets that are too old, shrink."""
        old = [ticket for ticket, given in self._tickets.items() if now - given >= self._hub.limits.ticket]
        self._withdraw(old)
        self.spare.keep_alive(now, LOOK, 2 * LOOK)
        self.refill()

    @property
    def waits(self) -> bool:
        """Whether a client waits."""
        return bool(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing of it needs to be looked at."""
        return self.core.due() is None

    def close(self, other_way: bool = False) -> None:
        """No socket comes any more; what runs goes on. ``other_way``: clients that wait get ``instead``."""
        if self.closed:
            return
        self.spare.unlend()
        self.closed = True
        self._withdraw([*self._tickets])
        for socket in self._warm:
            self._drop(socket)
        self._warm.clear()
        for stream in [*self.streams.values()]:
            stream.link_lost()
        for client in [*self._waiting]:
            self._no_more(client)
            if other_way:
                self._instead(client)
            else:
                client.refuse("device-absent")

    def _withdraw(self, tickets: list[bytes]) -> None:
        """Those that were used, which is about to be told, stay."""
        gone = self._hub.withdraw(self, tickets)
        for ticket in gone:
            del self._tickets[ticket]
        self.core.expired(len(gone))
