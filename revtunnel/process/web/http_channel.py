"""One HTTP connection within bounds: a whole request within its time, a body within its size.

The rules: a request has to be there whole within ``limits.header`` seconds, which nothing extends; whoever
does not take his last answer is aborted; one who does not take his answers is not read.

Source: faults.md H1 to H17; twisted.md 2.8.
"""

from collections.abc import Callable
from typing import Any, NamedTuple
from typing import Protocol as Typing

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http, server

from revtunnel.fleet.strangers import NotLetIn, Strangers

__all__ = ["BoundedChannel", "BoundedSite", "HttpLimits"]

PARTING = 2.0  # seconds that a caller gets to take his last answer


class HttpLimits(Typing):
    """What one caller may cost."""

    @property
    def header(self) -> float:
        """Seconds from connect, or from the last answer, to a whole request, absolute."""

    @property
    def body(self) -> int:
        """Bytes of a request's body."""

    @property
    def connections(self) -> int:
        """Callers at once."""


class BoundedChannel(http.HTTPChannel):
    """One caller: a whole request within its time, a body within its size."""

    transport: Any
    limits: HttpLimits
    too_large = "application/json", b'{"message":"The body is too large"}'
    clock: Any
    _deadline: IDelayedCall | None = None
    heard: Callable[[], None] = staticmethod(lambda: None)  # to be told that something came
    settled: Callable[[], None] = staticmethod(lambda: None)  # and of a whole request
    _body = 0

    def connectionMade(self) -> None:
        super().connectionMade()
        self._await()

    def dataReceived(self, data: bytes) -> None:
        self.heard()
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        super().allHeadersReceived()
        if self.length is not None and self.length > self.limits.body:
            self._too_large()

    def rawDataReceived(self, data: bytes) -> None:
        """Twisted calls this: a body, or what came behind a request."""
        if not self._handlingRequest:
            self._body += len(data)
            if self._body > 2 * self.limits.body:
                self._too_large()
                return
        super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        self._stop()
        self._body = 0
        self.settled()
        super().allContentReceived()

    def requestDone(self, request: Any) -> None:
        super().requestDone(request)
        if self.persistent and self._deadline is None and not self._handlingRequest:
            self._await()

    def pauseProducing(self) -> None:
        """Twisted calls this: the caller does not take his answers, so what he asked already waits."""
        self.paused = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """Twisted calls this: he took them all."""
        self.paused = False
        super().resumeProducing()
        if not self._handlingRequest:
            self.dataReceived(b"")

    def loseConnection(self) -> None:
        """Twisted calls this, and so do we: close behind what was written, within a bounded time."""
        self._stop()
        super().loseConnection()
        self._deadline = self.clock.callLater(PARTING, self.transport.abortConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stop()
        super().connectionLost(reason)

    def _too_large(self) -> None:
        kind, text = self.too_large
        head = f"HTTP/1.1 413 Content Too Large\r\nContent-Type: {kind}\r\nConnection: close\r\n".encode()
        self.transport.write(head + b"Content-Length: %d\r\n\r\n" % len(text) + text)
        self.dataReceived = self.rawDataReceived = self.lineReceived = lambda *_: None  # type: ignore[method-assign]
        self.length = 1
        self.loseConnection()

    def _await(self) -> None:
        self._deadline = self.clock.callLater(self.limits.header, self.loseConnection)

    def _stop(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None and deadline.active():
            deadline.cancel()


class _Callers(NamedTuple):
    """How many there may be."""

    pending: int
    pending_per_source: int


class BoundedSite(server.Site):
    """Makes the channels of callers, so many at once; nothing listens with it."""

    noisy = False
    protocol: Any = BoundedChannel

    def __init__(self, root: Any, reactor: Any, limits: Callable[[], HttpLimits]) -> None:
        """``limits``: what one caller may cost now."""
        super().__init__(root, reactor=reactor, timeout=None, parsePOSTFormSubmission=False)
        self._clock = reactor
        self._limits = limits
        self._places = Strangers(reactor.seconds, self._callers, reserve=0)

    @property
    def callers(self) -> int:
        """How many there are."""
        return len(self._places)

    def channel(self, peer: str = "", speaks: Callable[[], bool] = lambda: False) -> Any:
        """A protocol for one connection of ``HOST:PORT``; None: too many have one, and all say something."""
        channel: Any = self.buildProtocol(None)
        channel.limits, channel.clock = self._limits(), self._clock
        try:
            stranger = self._places.enter(peer, lambda why: channel.transport.abortConnection(), speaks)
        except NotLetIn:
            return None
        channel.heard, channel.settled = stranger.heard, stranger.stays
        lost = channel.connectionLost

        def over(reason: Failure = connectionDone) -> None:
            stranger.leave()
            lost(reason)

        channel.connectionLost = over
        return channel

    def _callers(self) -> "_Callers":
        most = self._limits().connections
        return _Callers(most, most)

    def log(self, request: Any) -> None:
        """Twisted's access log; ours says what changed."""
