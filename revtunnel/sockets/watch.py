"""Sockets that are told every change of theirs once: one system call for each, however long it lives.

The rules: a socket is given to epoll once, edge-triggered, and only ``leave`` takes it away again; closing it
does so by itself. So whoever is told reads until there is no more, or asks ``again``; what he does not read
now he has to ask for when he wants it. One that hands its socket over to another leaves it watched. The
events of one batch may belong to a descriptor that was closed meanwhile and given to another connection: an
end or a cut is believed only when it is still there (hangups.py).

On a reactor whose turn is ours (reactor_turn.py) the reactor's own epoll has them; otherwise a second one,
which is one more reader of the reactor's while it watches anything.

Source: epoll(7); faults.md N26 to N29; ours.
"""

import select
from typing import Any, ClassVar
from typing import Protocol as Typing
from weakref import WeakKeyDictionary, ref

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["CHANGES", "HANGUPS", "OVER", "Watch", "Watched"]

HANGUPS = select.EPOLLET | select.EPOLLRDHUP | select.EPOLLPRI  # with resets, which are always told
CHANGES = HANGUPS | select.EPOLLIN
# in an event: an end of file, or a cut; or urgent data, where a reading stops short though there is more
OVER = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR | select.EPOLLPRI


class Watched(Typing):
    """Whoever has a socket that is watched here."""

    def fileno(self) -> int:
        """Its descriptor."""

    def doRead(self) -> None:
        """It is readable, and nothing else happened."""

    def happened(self, event: int) -> None:
        """All else, as epoll says it."""


@implementer(IReadWriteDescriptor)
class Watch:
    """Those of one reactor."""

    _all: ClassVar["WeakKeyDictionary[Any, Watch]"] = WeakKeyDictionary()
    _last: ClassVar[tuple[Any, Any]] = (
        lambda: None,
        None,
    )  # the reactor that was asked for last, and its own

    def __init__(self, reactor: Any, poller: Any = None, owners: dict[int, Any] | None = None) -> None:
        """``poller`` and ``owners`` are the reactor's own, where its turn knows what is watched here."""
        self._reactor = reactor if poller is None else None  # which has to be told that there are some
        self._poller = poller or select.epoll()
        self._owners: dict[int, Any] = {} if owners is None else owners
        self._all[reactor] = self
        Watch._last = ref(reactor), self

    @classmethod
    def of(cls, reactor: Any) -> "Watch":
        """The one of this reactor."""
        asked, watch = cls._last
        if asked() is not reactor:
            watch = cls._all.get(reactor) or cls(reactor)
            Watch._last = ref(reactor), watch
        return watch  # type: ignore[no-any-return]

    def add(self, watched: Watched, events: int = CHANGES) -> None:
        """Tell it what happens from now on, and what is so already."""
        number = watched.fileno()
        if self._reactor is not None and not self._owners:
            self._reactor.addReader(self)
        self._poller.register(number, events)
        self._owners[number] = watched

    def again(self, number: int, events: int = CHANGES) -> None:
        """Tell once more what is so, and only of these events from now on."""
        self._poller.modify(number, events)

    def belongs(self, watched: Watched) -> None:
        """It is told from now on what happens to this socket, which was another's."""
        self._owners[watched.fileno()] = watched

    def untold(self, number: int) -> None:
        """Have a side of a relay ask for what was told to the owner before it, who did not read it."""
        owner = self._owners.get(number)
        if owner is not None:  # else the data plane has it, which asks by itself
            owner.settle()

    def closes(self, number: int) -> None:
        """It is closed in this very call."""
        self._owners.pop(number, None)
        if self._reactor is not None and not self._owners:
            self._reactor.removeReader(self)
            self._poller.close()
            del self._all[self._reactor]
            Watch._last = (lambda: None, None)

    def leave(self, number: int) -> None:
        """Tell nothing more; it goes on elsewhere."""
        self._poller.unregister(number)
        self.closes(number)

    # -- the reactor calls

    def fileno(self) -> int:
        """The second epoll's."""
        return int(self._poller.fileno())

    def logPrefix(self) -> str:
        """For what Twisted logs."""
        return "-"

    def doRead(self) -> None:
        """Something happened to some."""
        for number, event in self._poller.poll(0, 64):
            watched = self._owners.get(number)
            if watched is None:
                continue  # it left during this very turn
            try:
                watched.happened(event)
            except Exception:
                log.err()
                watched.connectionLost(Failure())

    def doWrite(self) -> None:
        """Never asked for."""

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""
