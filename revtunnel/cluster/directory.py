"""The directory of a cluster: which device is where, and which nodes there are.

Rule of this file: the form only. What a node asks is answered within ``PATIENCE`` or fails with
``DirectoryAway``; what a node tells (``arrived``, ``left``) never fails and is never waited for: a directory
that is away hears all of it again once it is back. A record is overwritten by a newer
fence only (node_records.py).

``local_directory.py`` keeps it in one process; another directory of the same form passes
tests/cluster/directory_behaviour.py.

Source: next/cluster.md sections 2, 3 and 6; ours.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet.defer import Deferred

from revtunnel.cluster.node_records import Node, Place

__all__ = ["PATIENCE", "Directory", "DirectoryAway"]

PATIENCE = 1.0  # seconds


class DirectoryAway(Exception):
    """It cannot be asked now; the text says why. Whoever needs the answer is refused ``directory-away``."""


class Directory(Protocol):
    """What one node (``me``) sees of its cluster, and tells it.

    Set by the owner before ``start``; they are called in turns of their own:

    ``moved``: a serial has a newer link at another node than our ``link`` of it, which is to end (REPLACED).
    ``mine``: all our links now, (serial, link, wire, age in seconds), to be told again to a directory that
    lost them; ages are monotonic, so that no wall clocks are compared.
    ``usurped``: another process lives under our name; this one is to drain and end with status 75.
    """

    me: Node
    moved: Callable[[str, int], None]
    mine: Callable[[], Iterable[tuple[str, int, str, float]]]
    usurped: Callable[[], None]

    trip: float | None  # seconds to an engine and back, when it was asked last; None: there is none

    @property
    def problem(self) -> str | None:
        """Why it cannot be asked now, for status and people; None: it can."""

    def start(self) -> "Deferred[None]":
        """Join under ``me.name`` with an epoch of its own; fires once that is so. DirectoryAway: not yet.

        It goes on trying by itself.
        """

    def stop(self) -> "Deferred[None]":
        """Leave: our records are void from now on. Fires within PATIENCE, whatever happens."""

    def say(self, state: str, devices: int, clients: int) -> None:
        """What others see of us from now on: "up" or "draining", and how much we have."""

    # -- devices

    def arrived(self, serial: str, link: int, wire: str) -> None:
        """A link of it is up here; ``link`` grows with each."""

    def left(self, serial: str, link: int) -> None:
        """That link is gone. What is newer of this serial stays."""

    def find(self, serial: str) -> "Deferred[Place | None]":
        """Where it is, by the record and never by what is remembered; None: at no node that lives.

        Fails with DirectoryAway.
        """

    def known(self, serial: str) -> Place | None:
        """Where it was when it was last heard of, as far as that is remembered and not void; no I/O."""

    def forget(self, serial: str, place: Place) -> None:
        """Its device was not there: remember that place no longer."""

    # -- nodes

    def nodes(self) -> list[Node]:
        """Those that live, and those that were here lately ("away"), by name; ours is one; no I/O."""
