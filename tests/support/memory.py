"""Joined connections in memory that behave as Twisted's TCP does, because they are Twisted's TCP.

Rule of this file: the transport is ``twisted.internet.tcp.Connection`` itself, over a socket and a reactor
made here. Buffers, producers, half-close and the order of callbacks are therefore Twisted's own; what is
modelled is only the kernel (two wires with a capacity) and epoll (who is told what in one turn).
``test_memory.py`` plays the same scripts over real loopback sockets and compares.

::

    network = Network()
    link = network.join(agent, server, capacity=4096, cuts=1)   # Pair: near is the side that dialled
    client = network.join(Recorder(), client_protocol)
    network.pump()            # until nothing moves; raises what a protocol raised
    network.advance(30.0)     # the same with time: network.clock is a twisted.internet.task.Clock
    link.to_far.blocked = True    # silence in one direction; link.sever() for both, link.reset() for RST
    network.held()            # bytes by place

``tls=True`` puts Twisted's real TLS on top (the protocol sees the TLS transport; cuts are of the ciphertext).
``half_close=False`` is the cheap form of TLS's closing rule: the other side's end of file ends everything.

Traps that real transports have and these too: a small ``bufferSize`` also makes reads small; data may
still come in the turn in which reading was paused; a transport that neither reads nor writes does not
notice a reset; ``loseConnection`` after ``loseWriteConnection`` calls ``connectionLost`` at once; closing
with unread input resets; a plain ``loseConnection`` waits for a paused producer only, a TLS one for any.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IReactorFDSet,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.sockets.ends import PlainEnd
from tests.support.kernel import CAPACITY, Cuts, MemorySocket, Wire, random_cuts
from tests.support.recorder import Recorder
from tests.support.throwaway_tls import over_tls

__all__ = [
    "CAPACITY",
    "Cuts",
    "MemoryEndpoint",
    "MemoryPort",
    "MemorySocket",
    "MemoryTransport",
    "Network",
    "OurSide",
    "Pair",
    "Recorder",
    "Wire",
    "random_cuts",
]

FIRST = 1000  # the number of the first socket: none of the system's
_logged: list[BaseException] = []  # what our transports caught, and logged as a bug


def _note_bug(event: Any) -> None:
    failure = event.get("failure") if event.get("isError") else None
    if failure is not None and any("end_transport" in frame[1] for frame in failure.frames):
        _logged.append(failure.value)


log.addObserver(_note_bug)
_PLAIN_ENDS = (error.ConnectionDone, error.ConnectionLost, error.ConnectionAborted)


class MemoryTransport(Connection):
    """Twisted's TCP transport on a MemorySocket; ``name`` is the place in ``Network.held``."""

    def __init__(self, end: MemorySocket, network: "Network") -> None:
        super().__init__(end, None, network)  # type: ignore[arg-type]
        self.end = end  # stays when Twisted deletes its ``socket``
        self.number = end.fileno()
        self.peak = 0  # most bytes that were in the write buffer
        self._network = network
        self._host, self._peer = IPv4Address("TCP", *end._host), IPv4Address("TCP", *end._peer)
        self._half_close = True

    def __repr__(self) -> str:
        return f"<memory transport {self._host.port} to {self._peer.port}>"

    def open(self, protocol: IProtocol, half_close: bool) -> None:
        """Connected from now on, as after accept or connect."""
        self._half_close = half_close
        self.protocol = protocol
        self.connected = 1
        self.startReading()
        protocol.makeConnection(self)

    @property
    def buffered(self) -> int:
        """Bytes that were written and are not on the wire."""
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    @property
    def reading(self) -> bool:
        """Whether the protocol takes bytes: not paused, not at the end."""
        return self in self._network.getReaders()

    def getHost(self) -> IPv4Address:
        """Our address."""
        return self._host

    def getPeer(self) -> IPv4Address:
        """The other side's address."""
        return self._peer

    def write(self, data: bytes) -> None:
        """As Twisted's; keeps the peak."""
        super().write(data)
        self.peak = max(self.peak, self.buffered)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """As Twisted's; keeps the peak."""
        super().writeSequence(iovec)
        self.peak = max(self.peak, self.buffered)

    def readConnectionLost(self, reason: Failure) -> None:
        """The other side's end of file."""
        if self._half_close:
            super().readConnectionLost(reason)
        else:
            self.connectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        """A reason that no network gives is an exception of the protocol: the network raises it."""
        if not reason.check(*_PLAIN_ENDS) and hasattr(self, "socket"):
            self._network.complain(reason.value)
        super().connectionLost(reason)


class OurSide:
    """The side of a pair that is ours: a PlainEnd on a MemorySocket, whoever has it."""

    def __init__(self, end: MemorySocket, network: "Network") -> None:
        self.end = end
        self.plain = PlainEnd(end)  # type: ignore[arg-type]
        self.number = end.fileno()
        self._network = network

    def __repr__(self) -> str:
        return f"<our side to {self.plain.peer}>"

    @property
    def connected(self) -> bool:
        """Whether it is open."""
        return not self.end.closed

    @property
    def buffered(self) -> int:
        """Bytes that were written and are not on the wire."""
        return int(getattr(self.owner, "_size", 0))

    @property
    def reading(self) -> bool:
        """Whether anybody reads it."""
        return self.owner in self._network.getReaders()

    @property
    def owner(self) -> Any:
        """Who read or wrote it last; None: nobody yet."""
        return self._network.owners.get(self.number)

    def pauseProducing(self) -> None:
        """As its transport's."""
        self.owner.pauseProducing()

    def resumeProducing(self) -> None:
        """As its transport's."""
        self.owner.resumeProducing()

    def abortConnection(self) -> None:
        """As its transport's."""
        self.owner.abortConnection()

    def getPeer(self) -> IPv4Address:
        """The other side's address."""
        return IPv4Address("TCP", *self.end._peer)


Side = MemoryTransport | OurSide


class Pair:
    """Two joined transports. ``near`` dialled, ``far`` accepted."""

    def __init__(self, name: str, near: Side, far: Side) -> None:
        self.name = name
        self.near = near
        self.far = far
        self.to_far = near.end.outbox
        self.to_near = far.end.outbox

    @property
    def open(self) -> bool:
        """Whether either side still has its connection."""
        return bool(self.near.connected or self.far.connected)

    def sever(self) -> None:
        """Silence: nothing arrives any more, and nobody is told."""
        self.to_far.blocked = self.to_near.blocked = True

    def restore(self) -> None:
        """End a silence; what was under way arrives."""
        self.to_far.blocked = self.to_near.blocked = False

    def reset(self) -> None:
        """A RST for both sides, as a middle box sends it."""
        self.to_far.reset()
        self.to_near.reset()

    def held(self) -> dict[str, int]:
        """Bytes by place."""
        return {
            f"{self.name}.near": self.near.buffered,
            f"{self.name}.to_far": len(self.to_far.data),
            f"{self.name}.far": self.far.buffered,
            f"{self.name}.to_near": len(self.to_near.data),
        }

    def settle(self) -> bool:
        """Bytes that reached a closed socket are answered by a reset; True if there were any."""
        moved = False
        for wire, back in ((self.to_far, self.to_near), (self.to_near, self.to_far)):
            if wire.reader_closed and wire.data and not wire.blocked:
                wire.data.clear()
                back.reset()
                moved = True
        return moved


@implementer(IReactorFDSet)
class Network:
    """Pairs, a clock, and the turns in which bytes move: due calls, then the events of each transport.

    With ``strict`` (the default) what a protocol raises is raised by ``turn`` and ``pump``, after Twisted's
    own consequence (the connection is lost) has taken place.
    """

    def __init__(self, clock: Clock | None = None, strict: bool = True) -> None:
        self.clock = clock or Clock()
        self.strict = strict
        self.errors: list[BaseException] = []
        self.pairs: list[Pair] = []
        _logged.clear()
        self.owners: dict[int, Any] = {}  # who read or wrote a socket last
        self._live: list[Pair] = []
        self._readers: dict[Any, None] = {}
        self._writers: dict[Any, None] = {}
        self._port = 40000

    # -- joining

    def join(
        self,
        near: IProtocol | None,
        far: IProtocol | None,
        *,
        cuts: Cuts = None,
        cuts_to_near: Cuts = None,
        capacity: int = CAPACITY,
        lossy: bool = False,
        half_close: bool = True,
        tls: bool = False,
        name: str = "",
        port: int = 2065,
        source: str = "127.0.0.1",
    ) -> Pair:
        """Connect two protocols; both have had connectionMade when it returns. None: that side is ours.

        Args:
            cuts: how bytes to ``far`` are cut (see Wire); ``cuts_to_near`` is None for the same again,
                where an iterator cannot serve twice and must be given for each.
            capacity: bytes each wire takes.
            port: of the far side's address; the near side gets a new one.
        """
        back = cuts if cuts_to_near is None and not isinstance(cuts, Iterator) else cuts_to_near
        to_far, to_near = Wire(capacity, cuts, lossy), Wire(capacity, back, lossy)
        self._port += 1
        here, there = (source, self._port), ("127.0.0.1", port)
        number = FIRST + 2 * len(self.pairs)
        ends = (
            MemorySocket(to_near, to_far, number, here, there),
            MemorySocket(to_far, to_near, number + 1, there, here),
        )
        dialled, accepted = (
            OurSide(end, self) if side is None else MemoryTransport(end, self)
            for end, side in zip(ends, (near, far), strict=True)
        )
        pair = Pair(name or f"pair{len(self.pairs)}", dialled, accepted)
        self.pairs.append(pair)
        self._live = [each for each in self._live if each.open or each.to_far.data or each.to_near.data]
        self._live.append(pair)
        if tls:
            near, far = over_tls(near, True, self.clock), over_tls(far, False, self.clock)
        for side, protocol in ((dialled, near), (accepted, far)):
            if isinstance(side, MemoryTransport) and protocol is not None:
                side.open(protocol, half_close)
        return pair

    def endpoint(self, name: str = "", **options: Any) -> "MemoryEndpoint":
        """A place to listen at and to dial; ``options`` as for ``join``."""
        return MemoryEndpoint(self, name, options)

    # -- moving

    def turn(self) -> bool:
        """One turn of the reactor; False if there was nothing to do."""
        moved = self._run_due_calls()
        for pair in self._live:
            moved |= pair.settle()
        stirred = {each for each in self._readers if self._kernel(each).inbox.anything} | self._writers.keys()
        watched = sorted(stirred, key=lambda transport: transport.fileno())
        ready = [(each, *self._events(each)) for each in watched]
        for transport, readable, writable, hung_up in ready:
            if self._watched(transport) and (readable or writable or hung_up):
                moved = True
                self._serve(transport, readable, writable, hung_up)
        self.errors += _logged
        _logged.clear()
        if self.strict and self.errors:
            raise self.errors.pop(0)
        return moved

    def pump(self, most: int = 1_000_000) -> int:
        """Turn until nothing moves; how many turns that took. RuntimeError after ``most`` of them."""
        for count in range(most):
            if not self.turn():
                return count
        raise RuntimeError(f"still moving after {most} turns")

    def advance(self, seconds: float) -> None:
        """Let time pass, from one due call to the next, pumping between."""
        self.pump()
        end = self.clock.seconds() + seconds
        while due := [at for call in self.clock.getDelayedCalls() if (at := call.getTime()) <= end]:
            self.clock.rightNow = max(self.clock.rightNow, min(due))
            self.pump()
        self.clock.rightNow = end

    def held(self) -> dict[str, int]:
        """Bytes in every write buffer and on every wire, places without bytes left out."""
        return {place: size for pair in self.pairs for place, size in pair.held().items() if size}

    def complain(self, problem: BaseException) -> None:
        """Keep an exception of a protocol."""
        if problem not in self.errors:
            self.errors.append(problem)

    def _attempt(self, step: Callable[[], Any]) -> Any:
        """What ``step`` returns, or the exception it raised: Twisted ends the connection with either."""
        try:
            return step()
        except Exception as problem:
            self.complain(problem)
            return problem

    def _run_due_calls(self) -> bool:
        due = [call for call in self.clock.calls if call.getTime() <= self.clock.seconds()]
        for call in due:
            if call in self.clock.calls:  # not cancelled by one before it
                self.clock.calls.remove(call)
                call.called = 1
                self._attempt(lambda call=call: call.func(*call.args, **call.kw))  # type: ignore[misc]
        return bool(due)

    def _kernel(self, reader: Any) -> MemorySocket:
        """The socket of whoever reads or writes."""
        pair = self.pairs[(reader.fileno() - FIRST) // 2]
        return (pair.far if (reader.fileno() - FIRST) % 2 else pair.near).end

    def _watched(self, transport: Any) -> bool:
        return transport in self._readers or transport in self._writers

    def _events(self, transport: Any) -> tuple[bool, bool, bool]:
        end = self._kernel(transport)
        return (
            transport in self._readers and end.readable,
            transport in self._writers and end.writable,
            end.hung_up,
        )

    def _serve(self, transport: Any, readable: bool, writable: bool, hung_up: bool) -> None:
        """What Twisted's epoll reactor does with one transport's events."""
        why: Any = None
        reading = False
        if hung_up and not readable:
            reading = transport in self._readers
            why = CONNECTION_DONE if reading else CONNECTION_LOST
        else:
            if readable:
                why, reading = self._attempt(transport.doRead), True
            if not why and writable:
                why, reading = self._attempt(transport.doWrite), False
        if why:
            self._disconnect(transport, why, reading)

    def _disconnect(self, transport: Any, why: BaseException, reading: bool) -> None:
        self.removeReader(transport)
        reason = Failure(why)
        if reading and isinstance(why, error.ConnectionDone) and isinstance(transport, MemoryTransport):
            self._attempt(lambda: transport.readConnectionLost(reason))
            return
        self.removeWriter(transport)
        self._attempt(lambda: transport.connectionLost(reason))

    # -- what a transport asks of its reactor

    def addReader(self, reader: Any) -> None:
        """The transport reads."""
        self._readers[reader] = None
        self.owners[reader.fileno()] = reader

    def addWriter(self, writer: Any) -> None:
        """The transport has something to write, or to close."""
        self._writers[writer] = None
        self.owners[writer.fileno()] = writer

    def removeReader(self, reader: Any) -> None:
        """The transport does not read."""
        self._readers.pop(reader, None)

    def removeWriter(self, writer: Any) -> None:
        """The transport has nothing to write."""
        self._writers.pop(writer, None)

    def getReaders(self) -> list[Any]:
        """Transports that read."""
        return list(self._readers)

    def getWriters(self) -> list[Any]:
        """Transports that write."""
        return list(self._writers)

    def removeAll(self) -> list[Any]:
        """Forget all."""
        every = [*self._readers, *self._writers]
        self._readers.clear()
        self._writers.clear()
        return every

    def callLater(self, delay: float, what: Callable[..., Any], *args: Any, **kw: Any) -> Any:
        """A call on the network's clock."""
        return self.clock.callLater(delay, what, *args, **kw)

    def seconds(self) -> float:
        """The clock's time."""
        return float(self.clock.seconds())


@implementer(IListeningPort)
class MemoryPort:
    """A listening place; ``stopListening`` makes the endpoint refuse."""

    def __init__(self, endpoint: "MemoryEndpoint", factory: IProtocolFactory) -> None:
        self.factory = factory
        self._endpoint = endpoint

    def startListening(self) -> None:
        """Accept from now on."""
        self._endpoint.port = self
        self.factory.doStart()

    def stopListening(self) -> Deferred[None]:
        """Accept no more; accepted connections stay."""
        if self._endpoint.port is self:
            self._endpoint.port = None
            self.factory.doStop()
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def getHost(self) -> IPv4Address:
        """The address that clients dial."""
        return self._endpoint.address


@implementer(IStreamClientEndpoint, IStreamServerEndpoint)
class MemoryEndpoint:
    """Where one side listens and the other dials. With ``hangs`` a dial is neither answered nor refused."""

    def __init__(self, network: Network, name: str, options: dict[str, Any]) -> None:
        self.address = IPv4Address("TCP", "127.0.0.1", options.get("port", 2065))
        self.port: MemoryPort | None = None
        self.hangs = False
        self.pairs: list[Pair] = []  # every connection that was made, oldest first
        self.dials = 0
        self._network = network
        self._name = name
        self._options = options

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen; a second listener is an error, as on a port."""
        done: Deferred[IListeningPort] = Deferred()
        if self.port is not None:
            busy = OSError("address in use")
            done.errback(error.CannotListenError("127.0.0.1", self.address.port, busy))
        else:
            MemoryPort(self, protocolFactory).startListening()
            done.callback(self.port)  # type: ignore[arg-type]
        return done

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Dial; the answer comes in the next turn. Cancelling gives the dial up."""
        self.dials += 1
        done: Deferred[IProtocol] = Deferred(lambda dial: dial.errback(error.UserError()))
        self._network.callLater(0, self._answer, protocolFactory, done)
        return done

    def _answer(self, factory: IProtocolFactory, done: Deferred[IProtocol]) -> None:
        if done.called or self.hangs:
            return
        near = far = None
        if self.port is not None:
            factory.doStart()
            near, far = factory.buildProtocol(self.address), self.port.factory.buildProtocol(self.address)
        if near is None or far is None:
            done.errback(error.ConnectionRefusedError())
            return
        name = f"{self._name}{len(self.pairs)}" if self._name else ""
        self.pairs.append(self._network.join(near, far, name=name, **self._options))
        done.callback(near)
