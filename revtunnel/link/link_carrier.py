"""The channels of one framed link as a carrier: a number for each client, or a bounded wait for one.

Source: streams/carrier.py; wire/readyagent.md section 5.7; faults.md N23.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable

from twisted.internet.interfaces import IDelayedCall

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.reasons import Ended
from revtunnel.link.link import LinkProtocol
from revtunnel.streams.channel import ChannelState
from revtunnel.streams.clients import ClientSocket
from revtunnel.streams.running import Running, of_link

__all__ = ["LinkCarrier"]


class LinkCarrier:
    """A link in the form of streams/carrier.py; the link tells it when a number may be free.

    ``carries``: whether clients may go by it at all, or only by data sockets.
    """

    __slots__ = ("_carries", "_link", "_patience", "_serving", "on_rest", "serial", "waiting")

    def __init__(self, link: LinkProtocol, carries: bool) -> None:
        self.on_rest: Callable[[], None] | None = None  # never: its streams end with the link
        # and when their time is over; made with the first
        self.waiting: deque[tuple[float, ClientSocket]] | None = None
        self.serial = ""  # once the link is up
        self._link = link
        self._carries = carries
        self._patience: IDelayedCall | None = None
        self._serving = False

    @property
    def running(self) -> int:
        return self._link.mux.running if self._link.mux is not None else 0

    @property
    def at_once(self) -> bool:
        return self._link.mux is not None and self._link.mux.free_numbers > 0

    def open(self, client: ClientSocket) -> str:
        """A channel now, or when a number is free; a word if the link broke, or too many wait already."""
        link, mux = self._link, self._link.mux
        if mux is None:
            return "device-absent"
        if not self._carries:
            return "no-data-socket"
        try:
            origin = client.origin if mux.origins else None
            asked = link.clock.seconds(), origin, client.session, client.after
            channel = mux.connect(client.target, *asked)
        except RemoteError as error:
            link.broken(error)
            return "no-channel"
        if channel is None:
            return "" if self._wait(client) else "no-channel"
        client.attach(link, channel)
        if not mux.answers:
            client.may_read()
        elif mux.early_read:
            client.begin()
        link.flush()
        return ""

    def numbers(self, clients: Collection[ClientSocket]) -> tuple[int, ...] | None:
        mux = self._link.mux
        known = [each.channel for each in clients if each.link is self._link and each.channel is not None]
        if mux is None or not mux.after or len(known) < len(clients):
            return None
        # a channel that is not open yet, the agent has perhaps not heard of when a data socket names it
        opening = any(channel.state is ChannelState.OPENING for channel in known)
        return None if opening else tuple(channel.number for channel in known)

    def rows(self) -> Iterable[Running]:
        mux = self._link.mux
        for channel in [*mux.channels.values()] if mux is not None else ():
            if not channel.over and channel.owner is not None:
                yield of_link(self.serial, channel)

    def end_stream(self, number: int, reason: Ended, detail: str) -> bool:
        mux = self._link.mux
        channel = mux.channels.get(number) if mux is not None else None
        if channel is None or channel.over:
            return False
        self._link.reset(channel, reason, detail)
        return True

    def end_streams(self, reason: Ended, detail: str) -> bool:
        ended = [self.end_stream(row.number, reason, detail) for row in self.rows()]
        return any(ended)

    def close(self) -> None:
        """Nothing: the mux knows when its link is on its way out."""

    drain = close

    # -- clients that wait for a number

    def serve(self) -> None:
        """Give the numbers that are free to those who wait."""
        mux = self._link.mux
        if self._serving:  # each that gets a number flushes, and comes here again
            return
        self._serving = True
        while self.waiting and mux is not None and mux.free_numbers and self._link.ended is None:
            _, client = self.waiting.popleft()
            if client.waits and client.is_here():
                self.open(client)
        self._serving = False

    def link_gone(self) -> None:
        """Refuse those who wait."""
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        waiting, self.waiting = self.waiting or (), None
        for _, client in waiting:
            if client.waits:
                client.refuse("device-absent")

    def _wait(self, client: ClientSocket) -> bool:
        """Whether there is a place to wait in."""
        limits, clock = self._link.limits, self._link.clock
        waiting = deque() if self.waiting is None else self.waiting
        if len(waiting) >= limits.waiting:
            waiting = deque(entry for entry in waiting if entry[1].waits)
        self.waiting = waiting
        if len(waiting) >= limits.waiting:
            return False
        waiting.append((clock.seconds() + limits.number_wait, client))
        if self._patience is None:
            self._patience = clock.callLater(limits.number_wait, self._give_up)
        return True

    def _give_up(self) -> None:
        self._patience = None
        now = self._link.clock.seconds()
        while self.waiting and self.waiting[0][0] <= now:
            _, client = self.waiting.popleft()
            if client.waits:
                client.refuse("no-channel")
        if self.waiting:
            delay = max(0.0, self.waiting[0][0] - now)
            self._patience = self._link.clock.callLater(delay, self._give_up)
