"""A carrier of two ways: a data socket for each client, and the link where none comes.

The rules: a data socket over TLS costs a handshake, which a short connection is not worth. So over TLS the
link takes the first clients, CROWD of them at once; while one of them has lived for LONG seconds, or once one
has moved HEAVY bytes, the clients of its target are of that kind, and get sockets for WHILE seconds from when
that is seen. When one ended is not kept: it tells by its bytes only, whenever the next one comes.

Source: wire/link-extension.md "Data sockets"; streams/carrier.py; performance.md (connections over TLS).
"""

from collections.abc import Callable, Collection, Iterator

from revtunnel.carriers.data_pool import DataLink, DataPool
from revtunnel.carriers.data_sockets import DataSockets
from revtunnel.carriers.data_stream import DataStream
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target
from revtunnel.streams.carrier import Carrier
from revtunnel.streams.channel import Channel
from revtunnel.streams.clients import ClientSocket
from revtunnel.streams.running import Running

__all__ = ["SocketsFirst"]

CROWD = 32  # clients at once on a link that is to answer keystrokes
LONG = 10.0  # seconds
HEAVY = 1024 * 1024  # bytes, both directions
WHILE = 60.0  # seconds


class SocketsFirst:
    """The data sockets of one link, then ``by_link``; ``only``: that refuses, so better wait for a socket."""

    crowd = CROWD

    def __init__(self, sockets: DataSockets, link: DataLink, by_link: Carrier, only: bool) -> None:
        self.on_rest: Callable[[], None] | None = None
        self.pool: DataPool = sockets.pool(link, only, self._other_way, self._stream_ended)
        self._by_link = by_link
        self._only = only
        self._short: list[tuple[Channel, float]] = []  # of the link's clients; and when each came
        self._sockets_until: dict[Target, float] = {}  # by target, where clients of late were no short ones

    @property
    def serial(self) -> str:
        return self.pool.link.serial

    @property
    def running(self) -> int:
        return len(self.pool.streams) + self._by_link.running

    @property
    def at_once(self) -> bool:
        return True

    def open(self, client: ClientSocket) -> str:
        if self.prefers_link(client):
            word = self._by_link.open(client)
            if client.channel is not None:
                self._short.append((client.channel, client.since))
            return word
        return "" if self.pool.admit(client) else self._by_link.open(client)

    def prefers_link(self, client: ClientSocket) -> bool:
        """Whether clients of its target were short ones of late, where that counts."""
        if self._only or not self.pool.link.tls:
            return False
        now, until = self.pool.now(), self._sockets_until
        for channel, since in self._short:
            is_long = not channel.over and now - since >= LONG
            if is_long or channel.bytes_sent + channel.bytes_received >= HEAVY:
                until.pop(channel.target, None)
                until[channel.target] = now + WHILE
        while until and next(iter(until.values())) <= now:  # the oldest is the first
            del until[next(iter(until))]
        self._short = [each for each in self._short if not each[0].over]
        return client.target not in until and len(self._short) < self.crowd and self._by_link.at_once

    def numbers(self, clients: Collection[ClientSocket]) -> tuple[int, ...] | None:
        carried = [each.carried for each in clients]
        streams = [each for each in carried if isinstance(each, DataStream) and not each.opening]
        known = [each.number for each in streams if self.pool.streams.get(each.number) is each]
        others = [each for each in clients if not isinstance(each.carried, DataStream)]
        channels = self._by_link.numbers(others)
        if channels is None or len(known) + len(channels) < len(clients):
            return None
        return (*known, *channels)

    def rows(self) -> Iterator[Running]:
        yield from (stream.running() for stream in [*self.pool.streams.values()])
        yield from self._by_link.rows()

    def end_stream(self, number: int, reason: Ended, detail: str) -> bool:
        stream = self.pool.streams.get(number)
        if stream is None:
            return self._by_link.end_stream(number, reason, detail)
        stream.end(reason, detail)
        return True

    def end_streams(self, reason: Ended, detail: str) -> bool:
        streams = [*self.pool.streams.values()]
        for stream in streams:
            stream.end(reason, detail)
        return self._by_link.end_streams(reason, detail) or bool(streams)

    def close(self) -> None:
        self.pool.close()

    def drain(self) -> None:
        self.pool.close(other_way=True)

    def _other_way(self, client: ClientSocket) -> None:
        """Serve a client that no data socket came for."""
        word = self._by_link.open(client)
        if word:
            client.refuse(word)

    def _stream_ended(self) -> None:
        if self.on_rest is not None and not self.running:
            self.on_rest()
