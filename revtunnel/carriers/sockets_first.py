"""A carrier of two ways: a data socket for each client, and the link where none comes.

Source: wire/link-extension.md "Data sockets"; streams/carrier.py.
"""

from collections.abc import Callable, Iterator

from revtunnel.carriers.data_pool import DataLink, DataPool
from revtunnel.carriers.data_sockets import DataSockets
from revtunnel.ground.reasons import Ended
from revtunnel.streams.carrier import Carrier
from revtunnel.streams.clients import ClientSocket
from revtunnel.streams.running import Running

__all__ = ["SocketsFirst"]


class SocketsFirst:
    """The data sockets of one link, then ``by_link``; ``only``: that refuses, so better wait for a socket."""

    def __init__(self, sockets: DataSockets, link: DataLink, by_link: Carrier, only: bool) -> None:
        self.on_rest: Callable[[], None] | None = None
        self.pool: DataPool = sockets.pool(link, only, self._other_way, self._stream_ended)
        self._by_link = by_link

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
        return "" if self.pool.admit(client) else self._by_link.open(client)

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
