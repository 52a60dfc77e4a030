"""A connection whose bytes are awaited: one reading at a time, and one write that returns when there is room.

Rule of this file: what was not asked for is not read, but for one reading ahead, which tells of a hang-up; an
end in order is b"", a cut is always an exception. ::

    connection = AwaitedConnection(reactor)
    TwistedTransport(reactor, end, connection).start()
    data = await connection.receive()
    await connection.send(data)

Source: sockets/end_transport.py; ours.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["PARTING", "AwaitedConnection"]

PARTING = 2.0  # seconds that the other side gets to take our last bytes


@implementer(IHalfCloseableProtocol, IPushProducer)
class AwaitedConnection(Protocol):
    """One; whoever reads and whoever writes may be two, but each is one at a time."""

    transport: Any

    def __init__(self, reactor: Any, fault: Callable[[], str] = lambda: "") -> None:
        """``fault``: why an end of file is a cut, where the transport cannot tell."""
        self.received = self.sent = 0  # bytes
        self.full_since: float | None = None  # it takes nothing of what waits
        self.on_over: Callable[[], None] | None = None  # called once it has ended, or is cut
        self._reactor = reactor
        self._fault = fault
        self._came = b""
        self._ended = False
        self._lost: BaseException | None = None
        self._reading: Deferred[None] | None = None
        self._writing: Deferred[None] | None = None

    # -- what its owner does

    async def receive(self) -> bytes:
        """What comes next; b"": it ended in order. OSError: it is cut."""
        while not self._came:
            if self._ended:
                return b""
            if self._lost is not None:
                raise self._cut()
            self._reading = Deferred()
            self.transport.resumeProducing()
            await self._reading
        data, self._came = self._came, b""
        return data

    async def send(self, data: bytes) -> None:
        """Returns when more may be sent. OSError: it is cut."""
        self.sent += len(data)
        if self._lost is None:
            self.transport.write(data)
        while self._lost is None and self.full_since is not None:
            self._writing = Deferred()
            await self._writing
        if self._lost is not None:
            raise self._cut()

    def watch(self, over: Callable[[], None] | None) -> None:
        """Have it called when the other side hangs up while nobody reads; not behind bytes that it said."""
        self.on_over = over
        if over is not None and not self._came and (self._ended or self._lost is not None):
            self._tell_over()
        elif over is not None and not self._came:
            self.transport.resumeProducing()

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come."""
        return self._ended or self._lost is not None

    def abort(self) -> None:
        """Cut it."""
        self.transport.abortConnection()

    def part(self) -> None:
        """End in order, behind what was written, in ``PARTING`` seconds; what still comes is dropped."""
        if self._lost is None:
            self.on_over = None
            parting = Deferred.fromCoroutine(self._part())
            parting.addTimeout(PARTING, self._reactor).addErrback(lambda _: self.abort())

    async def _part(self) -> None:
        self.transport.loseWriteConnection()
        while await self.receive():
            pass
        self.transport.loseConnection()

    # -- the transport calls

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self.transport.pauseProducing()

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        self._came += data
        self.transport.pauseProducing()
        self._wake()

    def readConnectionLost(self) -> None:
        fault = self._fault()
        if fault:
            self._lost = ConnectionResetError(fault)
        self._ended = not fault
        self._wake()
        self._tell_over()

    def writeConnectionLost(self) -> None:
        """Twisted calls this."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended = self._ended or (self._lost is None and reason.check(ConnectionDone) is not None)
        self._lost = self._lost or reason.value
        self._wake()
        self._tell_over()

    def pauseProducing(self) -> None:
        """Twisted calls this: it does not take what was written."""
        self.full_since = self._reactor.seconds()

    def resumeProducing(self) -> None:
        """Twisted calls this: it took all."""
        self.full_since = None
        self._wake()

    def stopProducing(self) -> None:
        """Twisted calls this; ``connectionLost`` says it."""

    def _wake(self) -> None:
        waiting, self._reading, self._writing = (self._reading, self._writing), None, None
        for each in filter(None, waiting):
            if not each.called:
                each.callback(None)

    def _cut(self) -> ConnectionError:
        return ConnectionResetError(self._fault() or str(self._lost))

    def _tell_over(self) -> None:
        over, self.on_over = self.on_over, None
        if over is not None:
            over()
