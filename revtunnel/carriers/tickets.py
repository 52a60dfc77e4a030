"""The tickets of data sockets: each is good once, for a short time, and for the one that it was made for.

A ticket is 16 bytes: the number of the channel that it will carry, then 12 random ones. That a number is
public does no harm: 2^96 others would have to be tried, and every try is a connection that is refused.
Looking one up is looking up a key of a dict, whose time says nothing about how much of a guess is right.

Source: wire/link-extension.md "Data sockets"; the number in a ticket is ours.
"""

from collections.abc import Callable
from struct import Struct
from typing import Generic, NamedTuple, TypeVar

from revtunnel.streams.commands import TICKET_SIZE

__all__ = ["FIRST_NUMBER", "Numbering", "Tickets", "number_in"]

Holder = TypeVar("Holder")
FIRST_NUMBER = 256  # the numbers below are those of a link's own channels
_LAST_NUMBER = 2**31 - 1  # what every interface can say
_NUMBER = Struct("!I")
_SECRET = TICKET_SIZE - _NUMBER.size  # random bytes of one
_AT_ONCE = 64 * _SECRET  # random bytes that are asked for at once, for tickets to come


class Numbering:
    """The numbers of channels on data sockets, one server's all in a row; after 2^31 - 1 comes 256 again.

    ``share`` and ``of``: one of several processes has those that leave ``share`` when divided by ``of``.
    """

    def __init__(self, share: int = 0, of: int = 1) -> None:
        self._first = FIRST_NUMBER + (share - FIRST_NUMBER) % of
        self._step = of
        self._next = self._first

    def take(self) -> int:
        """The next number."""
        number = self._next
        self._next = self._first if number > _LAST_NUMBER - self._step else number + self._step
        return number


def number_in(ticket: bytes) -> int:
    """The number of the channel that a ticket, maybe a forged one, is for."""
    return int(_NUMBER.unpack_from(ticket)[0])


class _Ticket(NamedTuple, Generic[Holder]):
    holder: Holder
    until: float  # monotonic seconds


class Tickets(Generic[Holder]):
    """All tickets of one server that are out. ``random_bytes`` must not be guessable.

    How many there may be is the holders' business (warm_pool.py).
    """

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._random = b""
        self._out: dict[bytes, _Ticket[Holder]] = {}

    def __len__(self) -> int:
        return len(self._out)

    def issue(self, holder: Holder, number: int, until: float) -> bytes:
        """A ticket for one socket of ``holder``, good before ``until``."""
        if not self._random:
            self._random = self._random_bytes(_AT_ONCE)
        ticket = _NUMBER.pack(number) + self._random[:_SECRET]
        self._random = self._random[_SECRET:]
        self._out[ticket] = _Ticket(holder, until)
        return ticket

    def holder(self, ticket: bytes, now: float) -> Holder | None:
        """Who it was made for, if it is good; it stays so."""
        found = self._out.get(ticket)
        return found.holder if found is not None and now < found.until else None

    def redeem(self, ticket: bytes, now: float) -> Holder | None:
        """Who it was made for; None: it was never made, or used, withdrawn or too old. It is used up now."""
        holder = self.holder(ticket, now)
        self._out.pop(ticket, None)
        return holder

    def used(self, ticket: bytes) -> Holder | None:
        """Who it was made for, of one that was in time when somebody else saw it. It is used up now."""
        found = self._out.pop(ticket, None)
        return None if found is None else found.holder

    def withdraw(self, ticket: bytes) -> bool:
        """Nobody needs it any more; False: it was used already."""
        return self._out.pop(ticket, None) is not None
