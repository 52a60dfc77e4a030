"""The simplest end of a connection: a Protocol that keeps what it was told."""

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Recorder"]


class Recorder(Protocol):
    """An end that keeps what it was told: ``data``, and ``events`` with data runs merged.

    It is not half-closeable; add ``IHalfCloseableProtocol`` by ``Recorder.half_closing()``.
    """

    def __init__(self) -> None:
        self.data = bytearray()
        self.pieces: list[int] = []
        self.events: list[str] = []
        self.lost: type[BaseException] | None = None

    @staticmethod
    def half_closing() -> "Recorder":
        """A recorder that is told of each direction's end."""
        return _HalfClosing()

    def connectionMade(self) -> None:
        """Twisted calls this."""
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        """Twisted calls this."""
        if self.events[-1] != "data":
            self.events.append("data")
        self.pieces.append(len(data))
        self.data += data

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Twisted calls this."""
        self.lost = reason.type
        self.events.append(f"lost {reason.type.__name__}")


@implementer(IHalfCloseableProtocol)
class _HalfClosing(Recorder):
    def readConnectionLost(self) -> None:
        """Twisted calls this."""
        self.events.append("end of file")

    def writeConnectionLost(self) -> None:
        """Twisted calls this."""
        self.events.append("write side closed")
