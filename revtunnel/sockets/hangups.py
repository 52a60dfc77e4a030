"""Who hung up, of connections that nobody reads at present: a second epoll, one reader to the reactor.

The rules: only errors and FINs are asked for, edge-triggered, so that an unread connection costs two system
calls and no turn. epoll reports them only on descriptors it has been given, and a side that is not read has
been taken away from the reactor's. The events of one batch may belong to a descriptor that was closed
meanwhile and given to another connection, so a hang-up is believed only when it is still there.

Source: faults.md N26 to N29; ours.
"""

import errno
import os
import select
import socket
from typing import Any, ClassVar
from typing import Protocol as Typing

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Hangups", "Unread", "hung_up", "is_cut", "reserve"]


class Unread(Typing):
    """A connection that is watched here."""

    @property
    def sock(self) -> socket.socket:
        """Its socket."""

    def left(self, cut: bool) -> None:
        """Its other side has cut it (``hung_up`` says how, once), or else ended."""


@implementer(IReadWriteDescriptor)
class Hangups:
    """Those of one reactor, while there are any."""

    _all: ClassVar[dict[Any, "Hangups"]] = {}
    _spare: ClassVar[list[select.epoll]] = []

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll = self._spare.pop() if self._spare else select.epoll()
        self._unread: dict[int, Unread] = {}
        reactor.addReader(self)

    @classmethod
    def of(cls, reactor: Any) -> "Hangups":
        """The one of this reactor."""
        if reactor not in cls._all:
            cls._all[reactor] = cls(reactor)
        return cls._all[reactor]

    def add(self, unread: Unread, ended: bool = False) -> None:
        """Tell it of a reset and, unless it has ``ended``, of the FIN, also when that has come already."""
        number = unread.sock.fileno()
        self._unread[number] = unread
        self._epoll.register(number, select.EPOLLET | (0 if ended else select.EPOLLRDHUP))

    def remove(self, unread: Unread) -> None:
        """Before it is closed."""
        number = unread.sock.fileno()
        del self._unread[number]
        self._epoll.unregister(number)
        if not self._unread:  # the epoll itself is kept for the next
            del self._all[self._reactor]
            self._reactor.removeReader(self)
            self._spare.append(self._epoll)

    # -- the reactor calls

    def fileno(self) -> int:
        """The second epoll's."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """For what Twisted logs."""
        return "-"

    def doRead(self) -> None:
        """Something happened to some."""
        for number, event in self._epoll.poll(0, 64):
            unread = self._unread.get(number)
            if unread is None:
                continue
            cut = bool(event & select.EPOLLERR) and is_cut(unread.sock)
            if cut or event & select.EPOLLRDHUP:
                unread.left(cut)

    def doWrite(self) -> None:
        """Never asked for."""

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""


def reserve() -> None:
    """Have the one descriptor that all this needs, before descriptors may be short."""
    if not (Hangups._spare or Hangups._all):
        Hangups._spare.append(select.epoll())


def hung_up(sock: socket.socket) -> OSError | None:
    """Why a descriptor has hung up; EPIPE where both directions have ended; None: it has not."""
    if not (events := _events(sock)):
        return None
    number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if events & select.POLLERR else 0
    return OSError(number or errno.EPIPE, os.strerror(number or errno.EPIPE))


def is_cut(sock: socket.socket) -> bool:
    """Whether the other side has reset a connection; POLLHUP would be both ends of file, too."""
    return bool(_events(sock) & select.POLLERR)


def _events(sock: socket.socket) -> int:
    poll = select.poll()
    poll.register(sock, 0)
    return sum(events for _, events in poll.poll(0))
