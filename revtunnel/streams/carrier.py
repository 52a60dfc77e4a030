"""The contract of a carrier: what can bring the streams of clients to one device.

The framed link is one, data sockets are one that falls back on it, the data sockets of an EMO machine are
one. Whoever has a client asks the carrier of its device, never what kind of link or listener is behind it.

Rule of this file: the form only. A carrier may outlive the connection that it came with; it is over when that
is gone and its last stream has ended.

Source: ours.
"""

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Protocol

from revtunnel.ground.reasons import Ended
from revtunnel.streams.running import Running

if TYPE_CHECKING:
    from revtunnel.streams.clients import ClientSocket

__all__ = ["Carrier"]


class Carrier(Protocol):
    """Carries the streams of clients to one device; numbers of streams are single among those of a device."""

    on_rest: Callable[[], None] | None  # called once its last stream has ended

    @property
    def serial(self) -> str:
        """The device."""

    @property
    def running(self) -> int:
        """Streams that run or open now."""

    @property
    def at_once(self) -> bool:
        """Whether one more client is served or refused at once; False: it waits until another one leaves."""

    def open(self, client: "ClientSocket") -> str:
        """Give a client a stream, now or soon; else the word that it is to be refused with."""

    def numbers(self, clients: Collection["ClientSocket"]) -> tuple[int, ...] | None:
        """By what its agent knows the streams of clients; None: not all, or it cannot wait for their end."""

    def rows(self) -> Iterable[Running]:
        """The streams that run, in any order."""

    def end_stream(self, number: int, reason: Ended, detail: str) -> bool:
        """End one stream with a reset; False: there is none of this number."""

    def end_streams(self, reason: Ended, detail: str) -> bool:
        """End all of them; False: there were none."""

    def close(self) -> None:
        """Take no new clients, refuse those that wait; what runs goes on."""

    def drain(self) -> None:
        """The same, but whoever waits already is served if that can be."""
