"""A reactor whose TCP and UNIX connections are EndTransports; everything else is the wrapped reactor's.

The rules: up to 64 connections are accepted a turn; one that is not wanted is reset, never left hanging; a
process without descriptors turns away whoever waits, by means of one descriptor that it holds back, and says
so once in ten seconds. What befell one connection before it was accepted closes no listener (accept(2)); one
that gives nothing but errors rests between its tries, and says so as seldom. A listening socket is closed
when its owner says so, not a turn later. Errors are Twisted's, so that endpoints and callers need not know.

What is not plain (a host name, an address to bind to, a lock file beside a UNIX socket) goes to the wrapped
reactor as it is.

Source: faults.md N1, N2; performance.md "Connections"; Twisted's IReactorTCP, IListeningPort, IConnector.
"""

import contextlib
import errno
import os
import socket
from typing import Any

from twisted.internet.base import BaseConnector
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import (
    CannotListenError,
    ConnectBindError,
    ConnectError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    getConnectError,
)
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorTCP,
    IReactorUNIX,
    IReadWriteDescriptor,
)
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer, providedBy

from revtunnel.ground.facts import AcceptFailed, NoDescriptors, Report
from revtunnel.ground.targets import is_literal
from revtunnel.sockets.addresses import address_of, place, socket_address, written_address
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import PlainEnd, tune
from revtunnel.sockets.hangups import hung_up

__all__ = ["LeanReactor"]

ACCEPTS = 64  # connections one listener takes in a turn
SAID_EVERY = 10.0  # seconds between two reports of missing descriptors, or of failures of one listener
REST = 0.1  # seconds that a listener does not look, when it cannot even turn away, or only fails
FULL = 0.02  # seconds until a UNIX socket with a full backlog is tried again
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# what accept says of the listening socket; all the rest is of the connection that it would have given
_FATAL = (errno.EBADF, errno.EFAULT, errno.EINVAL, errno.ENOTSOCK)


@implementer(IReactorTCP, IReactorUNIX)
class LeanReactor:
    """Wraps a reactor. ``report`` is told of missing descriptors."""

    def __init__(self, reactor: Any, report: Report) -> None:
        self._reactor = reactor
        self._report = report
        self._spare = _Spare(reactor, report)
        for name in ("seconds", "callLater", "addReader", "removeReader", "addWriter", "removeWriter"):
            setattr(self, name, getattr(reactor, name))  # asked often: no way through __getattr__
        alsoProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Listen. CannotListenError: its ``socketError`` says why not."""
        listener = _Port(self._reactor, self._spare, self._report, port, factory, backlog, interface)
        listener.startListening()
        return listener

    def adoptStreamPort(self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory) -> Any:
        """Listen with a socket that listens already. It is duplicated: the descriptor stays the caller's."""
        sock = socket.socket(addressFamily, socket.SOCK_STREAM, fileno=os.dup(fileDescriptor))
        listener = _Port(self._reactor, self._spare, self._report, 0, factory, 0, "", sock)
        listener.startListening()
        return listener

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        """Begin to connect."""
        if bindAddress is not None or not isinstance(port, int) or not is_literal(host.partition("%")[0]):
            return self._reactor.connectTCP(host, port, factory, timeout, bindAddress)
        family, address = socket_address(host, port)
        connector = _Connector(self._reactor, family, address, place(host, port), factory, timeout)
        connector.connect()
        return connector

    def connectUNIX(self, address: str, factory: Any, timeout: float = 30, checkPID: bool = False) -> Any:
        """Begin to connect."""
        if checkPID:
            return self._reactor.connectUNIX(address, factory, timeout, checkPID)
        family, peer = socket.AF_UNIX, f"unix:{os.fsdecode(address)}"
        connector = _Connector(self._reactor, family, address, peer, factory, timeout)
        connector.connect()
        return connector

    def listenUNIX(self, *args: Any, **kw: Any) -> IListeningPort:
        """The wrapped reactor's."""
        port: IListeningPort = self._reactor.listenUNIX(*args, **kw)
        return port


# -- listening


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
                PlainEnd(listening.accept()[0]).abort()
                count += 1
        self.hold()
        self._turned_away += count
        now = self._reactor.seconds()
        if self._said is None or now - self._said >= SAID_EVERY:
            said, self._turned_away, self._said = self._turned_away, 0, now
            self._report(NoDescriptors(said, os.strerror(why.errno or 0)))
        return count > 0


@implementer(IListeningPort, IReadWriteDescriptor)
class _Port:
    """One listening socket."""

    def __init__(
        self,
        reactor: Any,
        spare: _Spare,
        report: Report,
        port: int,
        factory: IProtocolFactory,
        backlog: int,
        interface: str,
        adopted: socket.socket | None = None,
    ) -> None:
        self._reactor = reactor
        self._spare = spare
        self._report = report
        self._place = (interface, port)
        self._factory: Any = factory
        self._backlog = backlog
        self._sock: socket.socket | None = None
        self._adopted = adopted
        self._resting: IDelayedCall | None = None
        self._failures = 0  # since they were said
        self._said: float | None = None

    def startListening(self) -> None:
        """Bind and listen. CannotListenError: as Twisted's."""
        self._spare.hold()
        sock, self._adopted = self._adopted or self._bound(), None
        sock.setblocking(False)
        self._sock = sock
        self._factory.doStart()
        self._reactor.addReader(self)

    def stopListening(self) -> "Deferred[None]":
        """Accept no more; the port is free when this returns, and who still waits there is reset."""
        sock, self._sock = self._sock, None
        if sock is not None:
            if self._resting is not None and self._resting.active():
                self._resting.cancel()
            self._sock = sock  # the reactor asks for its number
            self._reactor.removeReader(self)
            self._sock = None
            sock.close()
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> Any:
        """Where it listens."""
        if self._sock is None:
            family, address = socket_address(*self._place)
            return address_of(family, address)
        return address_of(self._sock.family, self._sock.getsockname())

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
            self._give_up(reason.getErrorMessage())
        elif hung_up(self._sock) is not None:
            self._give_up("it was shut by somebody else")
        else:  # the event was of another who had this descriptor before
            self._reactor.addReader(self)

    def doWrite(self) -> None:
        """Twisted never calls this."""

    def doRead(self) -> None:
        """Twisted calls this: somebody waits."""
        failed = 0
        for _ in range(ACCEPTS):
            if self._sock is None:  # closed by whom we let in
                return
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._turn_away(self._sock, error)
                    return
                if error.errno in _FATAL:
                    self._give_up(os.strerror(error.errno or 0))
                    return
                failed += 1
                if failed == ACCEPTS:
                    self._only_fails(error)
            else:
                self._let_in(sock, address)

    def _bound(self) -> socket.socket:
        sock = None
        try:
            family, address = socket_address(*self._place)
            sock = socket.socket(family, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tune(sock)  # what is accepted inherits it
            sock.bind(address)
            sock.listen(self._backlog)
        except OSError as error:
            if sock is not None:
                sock.close()
            raise CannotListenError(*self._place, error) from None
        return sock

    def _let_in(self, sock: socket.socket, address: Any) -> None:
        peer = address_of(sock.family, address)
        end = PlainEnd(sock, place(peer.host, peer.port))
        try:
            protocol = self._factory.buildProtocol(peer)
        except Exception:
            log.err()
            protocol = None
        if protocol is None:
            end.abort()
        else:
            EndTransport(self._reactor, end, protocol, peer).start()

    def _turn_away(self, sock: socket.socket, error: OSError) -> None:
        if not self._spare.turn_away(sock, error):
            self._rest()

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
        self._say_failed(1, f"{why}; nobody is let in there any more")
        self.stopListening()

    def _say_failed(self, failures: int, detail: str) -> None:
        try:
            where = written_address(self.getHost())
        except OSError:
            where = place(*self._place)
        self._report(AcceptFailed(where, failures, detail))


# -- connecting


class _Connector(BaseConnector):
    """Twisted's connector: its states, its time-out, its calls of the factory."""

    def __init__(
        self, reactor: Any, family: int, address: Any, peer: str, factory: Any, timeout: float
    ) -> None:
        super().__init__(factory, timeout, reactor)
        self.family = family
        self.address = address
        self.peer = peer

    def getDestination(self) -> IAddress:
        """Where to."""
        destination: IAddress = address_of(self.family, self.address)
        return destination

    def _makeTransport(self) -> Any:
        return _Dial(self.reactor, self)


@implementer(IReadWriteDescriptor)
class _Dial:
    """One connect under way; it ends with a failure, or by starting a transport."""

    def __init__(self, reactor: Any, connector: _Connector) -> None:
        self._reactor = reactor
        self._connector = connector
        self._over = False
        self._call: IDelayedCall | None = None
        self._sock: socket.socket | None = None
        try:
            self._sock = sock = socket.socket(connector.family, socket.SOCK_STREAM)
        except OSError as error:
            self._soon(self.failIfNotConnected, ConnectBindError(error.errno, error.strerror))
            return
        sock.setblocking(False)
        tune(sock)
        self._try(sock)

    def failIfNotConnected(self, error: BaseException) -> None:
        """Twisted calls this: too late, or not wanted any more; so do we."""
        if not self._over:
            self._leave()
            if self._sock is not None:
                self._sock.close()
            self._connector.connectionFailed(Failure(error))

    def fileno(self) -> int:
        """Twisted calls this."""
        return self._sock.fileno() if self._sock is not None else -1

    def logPrefix(self) -> str:
        """Twisted calls this."""
        return "-"

    def doRead(self) -> None:
        """Twisted never calls this."""

    def doWrite(self) -> None:
        """Twisted calls this: connected, or refused."""
        if self._over or self._sock is None:
            return
        code = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.failIfNotConnected(getConnectError((code, os.strerror(code))))
            return
        try:
            self._sock.getpeername()
        except OSError:  # the event was of another who had this descriptor before
            self._reactor.addWriter(self)
        else:
            self._connected()

    def connectionLost(self, reason: Failure) -> None:
        """Twisted calls this: refused, mostly; it has forgotten us."""
        self.doWrite()

    def _try(self, sock: socket.socket) -> None:
        try:
            code = sock.connect_ex(self._connector.address)
        except OSError as error:  # a path that is no address
            self._soon(self.failIfNotConnected, ConnectError(string=str(error)))
            return
        if code == errno.EINPROGRESS:
            self._reactor.addWriter(self)
        elif code == errno.EAGAIN:  # UNIX: the backlog is full
            self._call = self._reactor.callLater(FULL, self._try, sock)
        elif code:
            self._soon(self.failIfNotConnected, getConnectError((code, os.strerror(code))))
        else:
            self._soon(self._connected)

    def _soon(self, step: Any, *args: Any) -> None:
        """Not inside the call that began it."""
        self._call = self._reactor.callLater(0, step, *args)

    def _leave(self) -> None:
        self._over = True
        self._reactor.removeWriter(self)
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _connected(self) -> None:
        self._leave()
        assert self._sock is not None
        connector = self._connector
        end = PlainEnd(self._sock, connector.peer)
        destination = connector.getDestination()
        protocol = connector.buildProtocol(destination)
        if protocol is None:
            end.abort()
            connector.transport = None
            connector.connectionLost(Failure(ConnectionAborted()))
            return
        transport = _Dialled(self._reactor, end, protocol, destination, connector)
        connector.transport = transport  # type: ignore[assignment]
        transport.start()


class _Dialled(EndTransport):
    """A transport whose connector wants to know when it is over."""

    __slots__ = ("_connector",)

    def __init__(
        self, reactor: Any, end: PlainEnd, protocol: IProtocol, peer: IAddress, connector: _Connector
    ) -> None:
        super().__init__(reactor, end, protocol, peer)
        self._connector = connector

    def _over(self, reason: Failure) -> None:
        self._connector.connectionLost(reason)
