"""A reactor in memory: listening, dialling and resolving, over ``memory.Network``.

Rule of this file: our own code listens and dials as in the open, by ``listen`` and ``reach``, and its ends
are real ones on sockets of memory; Twisted's goes through its BaseConnector. What a test steers is the world
outside: who listens where, who refuses or hangs, what a name means, which port another program has.

::

    reactor = MemoryReactor()
    reactor.serve("10.0.0.5", 23, factory)                 # a service; reach and connectUNIX find it
    reactor.faults["10.0.0.6", 23] = HANGS                 # or an exception that the dial ends with
    reactor.taken[20000] = errno.EADDRINUSE                # listen raises CannotListenError with it
    reactor.names.answers["printer.local"] = ["10.0.0.7"]  # or hold it: reactor.names.held.add(name)
    reactor.join_options = lambda port: {"cuts": 1}        # how connections to that port are wired
    pair = reactor.dial(20000, Recorder())                 # a client, connected when it returns; or None
"""

import errno
import ipaddress
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.base import BaseConnector
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionRefusedError
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IListeningPort,
    IProtocol,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
    IResolutionReceiver,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.sockets.addresses import UNIX
from revtunnel.sockets.ends import End
from revtunnel.sockets.listening import Came
from tests.support.memory import Network, OurSide, Pair
from tests.support.programs import Program

__all__ = ["HANGS", "MemoryReactor"]

HANGS = TimeoutError("neither answered nor refused")  # among ``faults``: nothing comes of the dial
Where = tuple[str, int]
EVERYWHERE = ("", "0.0.0.0", "::")


class _Listener:
    """One listening socket: ``factory`` is Twisted's, for a test's own, or what takes an end."""

    def __init__(self, reactor: "MemoryReactor", where: Where, factory: Any) -> None:
        self.where = where
        self.factory = factory
        self._reactor = reactor
        reactor.listeners[where] = self

    def stop(self) -> None:
        """Accept no more."""
        if self._reactor.listeners.get(self.where) is self:
            del self._reactor.listeners[self.where]


class _Connector(BaseConnector):
    """Twisted's connector, whose transport is a ``_Dial`` until the connection is there."""

    def __init__(
        self, reactor: "MemoryReactor", where: Where, factory: Any, timeout: float | None, unix: bool = False
    ) -> None:
        super().__init__(factory, timeout, reactor)
        self.where = where
        self._unix = unix

    def getDestination(self) -> IAddress:
        """What is dialled."""
        return UNIXAddress(self.where[0]) if self._unix else address_of(*self.where)

    def _makeTransport(self) -> "_Dial":
        return _Dial(self.reactor, self)


class _Dial:
    """One connect under way; the answer comes in the next turn."""

    def __init__(self, reactor: "MemoryReactor", connector: _Connector) -> None:
        self._reactor = reactor
        self._connector = connector
        self._over = False
        reactor.dialled.append(connector.where)
        reactor.dialling += 1
        reactor.most_dialling = max(reactor.most_dialling, reactor.dialling)
        self._call = reactor.callLater(0, self._answer)

    def failIfNotConnected(self, problem: BaseException) -> None:
        """The connector's time-out, its cancelling, and our own refusals."""
        if self._end():
            self._connector.connectionFailed(Failure(problem))

    def loseConnection(self) -> None:
        """Never asked: a connected dial hands the connector its real transport."""
        raise NotImplementedError

    def _end(self) -> bool:
        first, self._over = not self._over, True
        if first:
            self._reactor.dialling -= 1
            if self._call.active():
                self._call.cancel()
        return first

    def _answer(self) -> None:
        where = self._connector.where
        fault = self._reactor.faults.get(where)
        listener = self._reactor.at(*where)
        if fault is HANGS:
            return
        if fault is not None or listener is None:
            self.failIfNotConnected(fault or ConnectionRefusedError())
            return
        self._end()
        near = self._connector.buildProtocol(self._connector.getDestination())
        if near is not None:
            self._connector.transport = self._reactor.meet(near, listener).near  # type: ignore[assignment]


@implementer(IHostResolution)
class _Question:
    """A lookup under way."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Nobody in Twisted does."""


@implementer(IHostnameResolver)
class Names:
    """The resolver: an address means itself, a name what ``answers`` says, or nothing."""

    def __init__(self, network: Network) -> None:
        self.answers: dict[str, list[str]] = {"localhost": ["127.0.0.1"]}
        self.held: set[str] = set()  # names that are not answered until ``release``
        self.asked: list[str] = []
        self.asking = 0
        self.most_asking = 0
        self._network = network
        self._waiting: list[tuple[IResolutionReceiver, str, int]] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Twisted calls this."""
        question = _Question(hostName)
        self.asked.append(hostName)
        self.asking += 1
        self.most_asking = max(self.most_asking, self.asking)
        resolutionReceiver.resolutionBegan(question)
        if hostName in self.held:
            self._waiting.append((resolutionReceiver, hostName, portNumber))
        else:
            self._network.callLater(0, self._answer, resolutionReceiver, hostName, portNumber)
        return question

    def release(self, most: int = 1 << 30) -> None:
        """Answer ``most`` of the lookups that are held back."""
        ready, self._waiting = self._waiting[:most], self._waiting[most:]
        for waiting in ready:
            self._answer(*waiting)

    def _answer(self, receiver: IResolutionReceiver, name: str, port: int) -> None:
        self.asking -= 1
        try:
            found = [str(ipaddress.ip_address(name))]
        except ValueError:
            found = self.answers.get(name, [])
        for address in found:
            receiver.addressResolved(address_of(address, port))
        receiver.resolutionComplete()


@implementer(IReactorTCP, IReactorUNIX, IReactorTime, IReactorPluggableNameResolver)
class MemoryReactor(Network):
    """What ClientPorts, Uplink and Dialler use of a reactor."""

    def __init__(self, strict: bool = True) -> None:
        super().__init__(strict=strict)
        self.listeners: dict[Where, _Listener] = {}
        self.taken: dict[int, int] = {}  # port -> errno that listening meets there
        self.faults: dict[Where, BaseException] = {}
        self.names = Names(self)
        self.join_options: Callable[[int], dict[str, Any]] = lambda port: {}
        self.dialled: list[Where] = []  # every connect that was tried
        self.dialling = 0  # connects under way
        self.most_dialling = 0
        self.programs: list[Program] = []  # that were begun

    # -- what a test does

    def serve(self, host: str, port: int, factory: Any) -> _Listener:
        """A service at any address, by a factory or what takes an end; a UNIX socket's host is its path."""
        return _Listener(self, (host, port), factory)

    def at(self, host: str, port: int) -> _Listener | None:
        """Who accepts there."""
        places = (self.listeners.get((place, port)) for place in (host, *EVERYWHERE))
        return next((place for place in places if place is not None), None)

    def dial(
        self, port: int, protocol: IProtocol, source: str = "127.0.0.1", host: str = "127.0.0.1"
    ) -> Pair | None:
        """Connect at once; None if nobody listens. ``source`` is what the listener is told."""
        listener = self.at(host, port)
        return None if listener is None else self.meet(protocol, listener, source)

    def meet(self, near: IProtocol | None, listener: _Listener, source: str = "127.0.0.1") -> Pair:
        """A connection that a listener accepted."""
        port, factory = listener.where[1], listener.factory
        build = getattr(factory, "buildProtocol", None)
        far = build(IPv4Address("TCP", source, 40001 + len(self.pairs))) if build is not None else None
        pair = self.join(near, far, port=port, source=source, **self.join_options(port))
        if isinstance(pair.far, OurSide):
            factory(pair.far.plain)
        return pair

    @property
    def sockets(self) -> int:
        """Connections, each end counted by itself, that are not closed."""
        return sum(bool(end.connected) for pair in self.pairs for end in (pair.near, pair.far))

    # -- what our code does

    def spawnProcess(
        self, protocol: Any, executable: str, args: Sequence[str], env: Mapping[str, str]
    ) -> None:
        """A program, which ends when the test wants."""
        program = Program(protocol, args, env)
        self.programs.append(program)
        protocol.makeConnection(program)

    @property
    def nameResolver(self) -> IHostnameResolver:
        """Twisted asks for this."""
        return self.names

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        """Not here."""
        raise NotImplementedError

    def getDelayedCalls(self) -> Sequence[Any]:
        """What is due one day."""
        return list(self.clock.getDelayedCalls())

    def listen(self, host: str, port: int, backlog: int, came: Came, both: bool = False) -> _Listener:
        """As ``Listeners.listen``: the socket is bound when this returns, or CannotListenError is raised."""
        code = self.taken.get(port, 0)
        held = any(at == port and place in (host, *EVERYWHERE) for place, at in self.listeners)
        if code or held:
            code = code or errno.EADDRINUSE
            raise CannotListenError(host, port, OSError(code, os.strerror(code)))
        return self.serve(host, port, came)

    async def reach(self, reactor: Any, host: str, port: int) -> End:
        """As ``opening.connect``; the answer comes in the next turn."""
        where = host.removeprefix(UNIX), port
        self.dialled.append(where)
        self.dialling += 1
        self.most_dialling = max(self.most_dialling, self.dialling)
        answer: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self.callLater(0, answer.callback, None)
        try:
            await answer
            fault, listener = self.faults.get(where), self.at(*where)
            if fault is HANGS:
                await Deferred()
            if fault is not None or listener is None:
                raise fault or OSError(errno.ECONNREFUSED, "Connection refused")
        finally:
            self.dialling -= 1
        side = self.meet(None, listener).near
        assert isinstance(side, OurSide)
        side.end._peer = where  # as it was dialled
        return side.plain

    def connectUNIX(
        self, address: str, factory: Any, timeout: float = 30, checkPID: bool = False
    ) -> _Connector:
        """Begin a dial."""
        return self._connect(_Connector(self, (address, 0), factory, timeout, unix=True))

    def listenUNIX(self, *args: Any, **kw: Any) -> IListeningPort:
        """Not here: use ``serve``."""
        raise NotImplementedError

    def _connect(self, connector: _Connector) -> _Connector:
        connector.connect()
        return connector


def address_of(host: str, port: int) -> IPv4Address | IPv6Address:
    """The address object of a literal."""
    return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)
