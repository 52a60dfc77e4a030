"""Listening sockets: each hands over the ends of those who connect, before a byte is read.

The rules: up to 64 connections are accepted a turn, and those that have not gone already (arrivals.py) are
handed over; whoever is let in is the caller's, to read or to abort; a process without descriptors turns away
whoever waits, by means of one descriptor that it holds back, and says so once in ten seconds. What befell one
connection before it was accepted closes no listener (accept(2)); one that gives nothing but errors rests
between its tries, and says so as seldom. A listening socket is closed when its owner says so, not a turn
later; one that somebody else shut is opened again (``Retries``). One of IPv6 takes IPv4 only where it was
told to, whatever this machine's default is, so that 0.0.0.0 and :: stand beside each other. Where the other
side speaks first the kernel keeps whoever says nothing, for some seconds: a crowd of silent connections is
not even accepted.

Source: faults.md N1, N2; performance.md "Connections"; tcp(7), TCP_DEFER_ACCEPT.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Callable
from typing import Any
from typing import Protocol as Typing

from twisted.internet.error import CannotListenError, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IDelayedCall, IReadWriteDescriptor
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.facts import AcceptFailed, NoDescriptors, Report
from revtunnel.ground.retries import Retries
from revtunnel.ground.targets import place
from revtunnel.sockets.addresses import address_of, socket_address, written_address
from revtunnel.sockets.arrivals import Arrivals, Together
from revtunnel.sockets.end_transport import in_words
from revtunnel.sockets.ends import End, PlainEnd, ends_with_reset, said, tune
from revtunnel.sockets.hangups import hung_up

__all__ = ["Came", "Listen", "Listener", "Listeners", "Listening"]

ACCEPTS = 64  # connections one listener takes in a turn
SAID_EVERY = 10.0  # seconds between two reports of missing descriptors, or of failures of one listener
DEFER = 5  # seconds that the kernel keeps who says nothing; it makes them 7, until it has asked three times
REST = 0.1  # seconds that a listener does not look, when it cannot even turn away, or only fails
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PASSES = (errno.EADDRINUSE, errno.EADDRNOTAVAIL, *_NO_ROOM)  # why an address cannot be had as yet
# what accept says of the listening socket; all the rest is of the connection that it would have given
_FATAL = (errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK)

Came = Callable[
    [End], object
]  # somebody connected: his end is the caller's; an exception is a bug, and aborts


class Listening(Typing):
    """What a listening socket's owner may do with it."""

    def stop(self) -> None:
        """Accept no more; the port is free when this returns, and who still waits there is reset."""


Listen = Callable[[str, int, int, Came], Listening]  # as Listeners.listen


class Listeners:
    """Opens the listening sockets of a process. ``report`` is told of missing descriptors.

    Without ``retries`` nothing is tried again.
    """

    def __init__(self, reactor: Any, report: Report, retries: Retries | None = None) -> None:
        self.reactor = reactor
        self.report = report
        self.retries = retries
        self.spare = _Spare(reactor, report)
        self.together = Together()  # who comes in one turn of a listener

    def listen(
        self,
        host: str,
        port: int,
        backlog: int,
        came: Came,
        both: bool = False,
        they_begin: bool = False,
    ) -> "Listener":
        """Listen at an address; port 0 is any. CannotListenError: its ``socketError`` says why not.

        Args:
            both: at ``::`` IPv4 is taken too.
            they_begin: nothing is said to them before they have said something.
        """
        listener = Listener(self, came, "port", (host, port, backlog), both, they_begin)
        listener.open()
        return listener

    def keep(
        self,
        name: str,
        host: str,
        port: int,
        backlog: int,
        came: Came,
        must: bool = False,
        they_begin: bool = False,
    ) -> "Listener":
        """As ``listen``, but what may pass is no error: it is tried again until it can be had.

        Args:
            name: of the settings that want it, for people.
            must: that another program has the port is an error all the same.
            they_begin: as for ``listen``.
        """
        listener = Listener(self, came, name, (host, port, backlog), they_begin=they_begin)
        try:
            listener.open()
        except CannotListenError as error:
            code = error.socketError.errno
            if self.retries is None or code not in _PASSES or (must and code == errno.EADDRINUSE):
                raise
            listener.fail(said(error.socketError))
        return listener

    def adopt(self, descriptor: int, family: int, came: Came) -> "Listener":
        """Listen with a socket that listens already. It is duplicated: the descriptor stays the caller's."""
        listener = Listener(self, came, "port", None)
        listener.take(socket.socket(family, socket.SOCK_STREAM, fileno=os.dup(descriptor)))
        return listener


def _bound(host: str, port: int, backlog: int, both: bool) -> socket.socket:
    sock = None
    try:
        family, address = socket_address(host, port)
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        tune(sock)  # what is accepted inherits it
        sock.bind(address)
        sock.listen(backlog)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise CannotListenError(host, port, error) from None
    return sock


class _Spare:
    """A descriptor held back, for turning away whoever waits when there is no other left."""

    def __init__(self, reactor: Any, report: Report) -> None:
        self._reactor = reactor
        self._report = report
        self._number: int | None = None
        self._turned_away = 0
        self._said: float | None = None

    def hold(self) -> None:
        """Hold a descriptor back, if there is one."""
        if self._number is None:
            with contextlib.suppress(OSError):
                self._number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def turn_away(self, listening: socket.socket, why: OSError) -> bool:
        """Reset the connections that wait. False: that was not possible, and they go on waiting."""
        held, self._number = self._number, None
        if held is not None:
            os.close(held)
        count = 0
        with contextlib.suppress(OSError):
            while count < ACCEPTS:
                PlainEnd(listening.accept()[0], inherits=True).abort()
                count += 1
        self.hold()
        self._turned_away += count
        now = self._reactor.seconds()
        if self._said is None or now - self._said >= SAID_EVERY:
            said, self._turned_away, self._said = self._turned_away, 0, now
            self._report(NoDescriptors(said, os.strerror(why.errno or 0)))
        return count > 0


@implementer(IReadWriteDescriptor)
class Listener:
    """One listening socket, at ``place`` (host:port), also while it is not open."""

    def __init__(
        self,
        listeners: Listeners,
        came: Came,
        name: str,
        where: tuple[str, int, int] | None,
        both: bool = False,
        they_begin: bool = False,
    ) -> None:
        """``where``: host, port and backlog, to open it with; None: it can only be ``take``n."""
        self._reactor = listeners.reactor
        self._spare = listeners.spare
        self._together = listeners.together
        self._report = listeners.report
        self._retries = listeners.retries
        self._came = came
        self._name = name
        self._trouble = ""  # what ``Retries`` know it by
        self._where = where
        self._both = both
        self._they_begin = they_begin
        self._sock: socket.socket | None = None
        self.family: int = socket.AF_INET  # of its addresses
        self._resting: IDelayedCall | None = None
        self._is_lent = False
        self._guest: Callable[[], None] | None = None  # who accepts in our place, in this process
        self._failures = 0  # since they were said
        self._said: float | None = None
        self.place = "" if where is None else place(*where[:2])
        self.port = 0 if where is None else where[1]

    @property
    def is_open(self) -> bool:
        """Whether anybody can come in."""
        return self._sock is not None

    def open(self) -> None:
        """Listen. CannotListenError: its ``socketError`` says why not."""
        assert self._where is not None
        host, _, backlog = self._where
        sock = _bound(host, self.port, backlog, self._both)  # a port that was chosen once stays
        if self._they_begin:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER)
        self.take(sock)

    def take(self, sock: socket.socket) -> None:
        """Listen with this socket."""
        self._spare.hold()
        sock.setblocking(False)
        ends_with_reset(sock)
        self.family = sock.family
        where = address_of(sock.family, sock.getsockname())
        self.place = written_address(where)
        self.port = int(getattr(where, "port", 0))
        self._sock = sock
        told = self._reactor, self._report, self.place, self._let_in, self._together
        self._arrivals = Arrivals(*told)
        self._reactor.addReader(self)

    def fail(self, why: str) -> None:
        """It cannot be had now; it is tried again, where that is of use."""
        if self._retries is not None and self._where is not None:
            self._trouble = self._trouble or f"{self._name} {self.place}"
            self._retries.failed(self._trouble, why, self._open_again)

    def stop(self) -> None:
        """Accept no more; the port is free when this returns, and who still waits there is reset."""
        if self._retries is not None:
            self._retries.drop(self._trouble)
        self._close()

    def lend(self) -> int:
        """A descriptor of it for another process of ours, which accepts in our place until ``take_back``.

        The socket stays ours: when we stop it, it is shut for both. OSError: there is no descriptor,
        and nothing has changed.
        """
        assert self._sock is not None
        if self._guest is not None:
            self._guest()
        lent = os.dup(self._sock.fileno())
        self._is_lent = True
        self._stand_by()
        return lent

    def lend_here(self, before_close: Callable[[], None]) -> int:
        """Its descriptor for somebody of this process who accepts in our place until ``take_back_here``.

        ``before_close`` is called when it is about to be closed. -1: it is not to be had now.
        """
        resting = self._resting is not None and self._resting.active()
        if self._sock is None or self._is_lent or self._guest is not None or resting:
            return -1
        self._guest = before_close
        self._reactor.removeReader(self)
        return self._sock.fileno()

    def take_back_here(self) -> None:
        """Accept ourselves again, unless it is about to be closed."""
        if self._guest is not None and self._sock is not None:
            self._reactor.addReader(self)
        self._guest = None

    def given(self, descriptor: int, address: Any, error: int) -> None:
        """Somebody who was accepted in our place, of whom nothing was read; an errno: he is cut."""
        sock = socket.socket(fileno=descriptor)
        end = PlainEnd(sock, written_address(address_of(sock.family, address)), inherits=True)
        if self._sock is None:
            end.abort()
        elif error:
            self._arrivals.drop(end)
        else:
            self._arrivals.take([end])

    def take_back(self) -> None:
        """Accept ourselves again; the other has to close its own."""
        if self._is_lent and self._sock is not None:
            self._reactor.addReader(self)
        self._is_lent = False

    # -- the reactor calls

    def fileno(self) -> int:
        """Twisted calls this."""
        return self._sock.fileno() if self._sock is not None else -1

    def logPrefix(self) -> str:
        """Twisted calls this."""
        return "-"

    def connectionLost(self, reason: Failure) -> None:
        """Twisted calls this: shut by somebody, or an exception in ``doRead``: a bug, which it has logged."""
        if self._sock is None:
            return
        if not reason.check(ConnectionDone, ConnectionLost):
            self._give_up(in_words(reason))
        elif hung_up(self._sock) is not None:
            self._give_up("it was shut by somebody else")
        else:  # the event was of another who had this descriptor before
            self._reactor.addReader(self)

    def doWrite(self) -> None:
        """Twisted never calls this."""

    def doRead(self) -> None:
        """Twisted calls this: somebody waits."""
        if self._sock is not None:
            came: list[End] = []
            goes_on = self._accept(self._sock, came, 1)
            if self._arrivals.take(came, self._sock) and goes_on and self._sock is not None:
                came = []
                self._accept(self._sock, came, ACCEPTS - 1)
                self._arrivals.take(came)

    # -- inside

    def _accept(self, listening: socket.socket, came: list[End], most: int) -> bool:
        """Accept who waits; False: there is no more to be had now."""
        failed, family = 0, listening.family
        for _ in range(most):
            try:
                sock, address = listening.accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in _NO_ROOM:
                    if not self._spare.turn_away(listening, error):
                        self._rest()
                    return False
                if error.errno in _FATAL:
                    self._give_up(os.strerror(error.errno or 0))
                    return False
                failed += 1
                if failed == ACCEPTS - 1:
                    self._only_fails(error)
            else:
                came.append(PlainEnd(sock, written_address(address_of(family, address)), inherits=True))
        return True

    def _close(self) -> None:
        if self._guest is not None:
            self._guest()
        sock = self._sock
        if sock is not None:
            self._stand_by()
            self._sock = None
            if self._is_lent:  # a socket that does not listen keeps its port from nobody (SO_REUSEADDR)
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
            sock.close()
            self._arrivals.stop()

    def _stand_by(self) -> None:
        if self._resting is not None and self._resting.active():
            self._resting.cancel()
        self._reactor.removeReader(self)

    def _open_again(self) -> None:
        try:
            self.open()
        except CannotListenError as error:
            self.fail(said(error.socketError))
        else:
            assert self._retries is not None
            self._retries.well(self._trouble)

    def _let_in(self, end: End) -> None:
        if self._sock is None:  # closed by whom we let in before
            end.abort()
            return
        try:
            self._came(end)
        except Exception:
            log.err()
            end.abort()

    def _only_fails(self, error: OSError) -> None:
        """A turn gave nothing else: whatever waits there is not even taken away, so it would never end."""
        self._failures += ACCEPTS
        now = self._reactor.seconds()
        if self._said is None or now - self._said >= SAID_EVERY:
            self._said = now
            self._say_failed(self._failures, os.strerror(error.errno or 0))
            self._failures = 0
        self._rest()

    def _rest(self) -> None:
        self._reactor.removeReader(self)
        self._resting = self._reactor.callLater(REST, self._reactor.addReader, self)

    def _give_up(self, why: str) -> None:
        again = self._retries is not None and self._where is not None
        more = "it is opened again" if again else "nobody is let in there any more"
        self._say_failed(1, f"{why}; {more}")
        self._close()
        self.fail(why)

    def _say_failed(self, failures: int, detail: str) -> None:
        self._report(AcceptFailed(self.place, failures, detail))
