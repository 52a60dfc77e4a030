"""What a server and its workers tell each other, where that is more than a few plain values.

Rule of this file: values that can be pickled, and nothing that acts. The names of messages are methods:
those that a worker is told are its own (worker_board.py), those that it tells are ``Worker``'s (workers.py).

Source: ours.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from revtunnel.daemons.server_settings import ServerSettings
from revtunnel.ground.facts import Fact, names_of
from revtunnel.link.handshake import LinkDenied, ServerUp
from revtunnel.sockets.tls.certificates import PeerCertificate
from revtunnel.streams.running import Running

__all__ = [
    "Answered",
    "Came",
    "FactTold",
    "LinkCame",
    "LinkSaid",
    "Load",
    "WorkerOrders",
    "denied",
    "in_values",
    "raised",
]

Answered = tuple[object, ...]  # reason, detail, serial, told, word, place of a LinkDenied
FactTold = tuple[type[Fact], tuple[Any, ...]]  # its kind and its fields: half the work of pickling it whole


class WorkerOrders(NamedTuple):
    """All that a worker goes by."""

    settings: ServerSettings
    doubt: bool  # who is enrolled is not known
    enrols: bool  # certificates are made here
    grace: float  # seconds for which one that has ended may be renewed


class Came(NamedTuple):
    """A connection of an agent, unread."""

    listener: str
    peer: str
    family: int  # of its address


class LinkCame(NamedTuple):
    """An agent that has passed its handshake."""

    number: int  # of its link, among those of its worker
    listener: str
    peer: str
    source: str
    tls: str
    certificate: PeerCertificate | None
    up: ServerUp


class LinkSaid(NamedTuple):
    """What is known of a link once it is up."""

    sessions: bool
    origins: bool
    changes: bool


class Load(NamedTuple):
    """What a worker has, once a second."""

    strangers: int
    clients: int
    trips: Mapping[int, float]  # round trips by the number of the link, seconds; some of all
    rows: tuple[Running, ...] | None  # None: nobody asked


def in_values(fact: Fact) -> FactTold:
    """A fact, to be made again from its values."""
    return type(fact), tuple([getattr(fact, name) for name in names_of(fact)])


def denied(error: LinkDenied) -> Answered:
    """An error that is no value, as one."""
    return error.reason, str(error), error.serial, error.told, error.word, error.place


def raised(told: Answered | None) -> None:
    """The same again. LinkDenied: it was one."""
    if told is not None:
        raise LinkDenied(*told)  # type: ignore[arg-type]
