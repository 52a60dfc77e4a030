"""One HTTP connection within bounds: a whole request within its time, a body within its size.

The rules: a request has to be there whole within ``limits.header`` seconds, which nothing extends; whoever
does not take his last answer is aborted; one who does not take his answers is not read.

Source: faults.md H1 to H17; twisted.md 2.8.
"""

from collections.abc import Callable
from typing import Any
from typing import Protocol as Typing

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http

__all__ = ["BoundedChannel", "HttpLimits"]

PARTING = 2.0  # seconds that a caller gets to take his last answer


class HttpLimits(Typing):
    """What one caller may cost."""

    @property
    def header(self) -> float:
        """Seconds from connect, or from the last answer, to a whole request, absolute."""

    @property
    def body(self) -> int:
        """Bytes of a request's body."""


class BoundedChannel(http.HTTPChannel):
    """One caller: a whole request within its time, a body within its size."""

    transport: Any
    limits: HttpLimits
    clock: Any
    _deadline: IDelayedCall | None = None
    heard: Callable[[], None] = staticmethod(lambda: None)  # to be told that something came
    settled: Callable[[], None] = staticmethod(lambda: None)  # and of a whole request
    _body = 0

    def connectionMade(self) -> None:
        """Twisted calls this."""
        super().connectionMade()
        self._await()

    def dataReceived(self, data: bytes) -> None:
        """Twisted calls this."""
        self.heard()
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        """Twisted calls this."""
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
        """Twisted calls this."""
        self._stop()
        self._body = 0
        self.settled()
        super().allContentReceived()

    def requestDone(self, request: Any) -> None:
        """Twisted calls this."""
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
        """Twisted calls this."""
        self._stop()
        super().connectionLost(reason)

    def _too_large(self) -> None:
        text = b'{"message":"The body is too large"}'
        head = b"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
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
