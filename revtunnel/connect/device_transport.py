"""A channel of a session as any Protocol expects its transport.

Rule of this file: what ``ChannelTransport`` has other than Twisted is made up for: Protocols that are not
half-closeable, producers that are to be asked for each piece, and a ``loseConnection`` that waits for its
producer. To a Protocol that is not half-closeable the other side's end of file is the end, once everything
that it wrote is there as well.

Source: Twisted's ITransport, IConsumer, IHalfCloseableProtocol; ours.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IReactorTime, ITransport
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.streams.channel_transport import ChannelTransport
from revtunnel.streams.streams import FLUSH, Link

__all__ = ["DeviceTransport"]


class _Told:
    """The Protocol as a ChannelTransport wants it."""

    def __init__(self, protocol: Any, gone: Callable[[], None]) -> None:
        self._protocol = protocol
        self._gone = gone
        self._halves = IHalfCloseableProtocol.providedBy(protocol)
        self._ended = 0  # directions
        self._transport: Any = None

    def makeConnection(self, transport: Any) -> None:
        """It is there."""
        self._transport = transport
        self._protocol.makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        """Bytes of the service."""
        self._guarded(self._protocol.dataReceived, data)

    def readConnectionLost(self) -> None:
        """The service sends no more."""
        if self._halves:
            self._guarded(self._protocol.readConnectionLost)
            self._end_one()
        else:
            self._transport.end()

    def writeConnectionLost(self) -> None:
        """Our end of file has left."""
        if self._halves:
            self._guarded(self._protocol.writeConnectionLost)
        self._end_one()

    def connectionLost(self, reason: Failure) -> None:
        """It is over."""
        self._gone()
        self._protocol.connectionLost(reason)

    def _guarded(self, call: Callable[..., Any], *arguments: Any) -> None:
        """A bug of the Protocol ends its connection, as with Twisted, and not the link that it came by."""
        try:
            call(*arguments)
        except Exception:
            log.err()
            self._transport.abortConnection()

    def _end_one(self) -> None:
        self._ended += 1
        if self._ended == 2:
            self._transport.end()


class _Pulled:
    """A producer that is to be asked for each piece, as one that is told to stop and to go on."""

    def __init__(self, clock: IReactorTime, producer: Any) -> None:
        self._clock = clock
        self._producer = producer
        self._goes = False
        self._due = False

    def resumeProducing(self) -> None:
        """Ask, from the next turn on."""
        self._goes = True
        if not self._due:
            self._due = True
            self._clock.callLater(0, self._ask)

    def pauseProducing(self) -> None:
        """Ask no more."""
        self._goes = False

    def stopProducing(self) -> None:
        """Nor ever again."""
        self._goes = False
        self._producer.stopProducing()

    def _ask(self) -> None:
        self._due = False
        if self._goes:
            self._producer.resumeProducing()
        if self._goes:
            self.resumeProducing()


@implementer(ITransport)
class DeviceTransport(ChannelTransport):
    """One channel; ``gone`` is called before the Protocol is told that it is over."""

    def __init__(
        self, link: Link, channel: Any, protocol: Any, address: Any, gone: Callable[[], None]
    ) -> None:
        super().__init__(link, channel, _Told(protocol, self._over), lambda: None)
        self._gone = gone
        self._address = address
        self._will_close = False
        self._patience: IDelayedCall | None = None

    @property
    def disconnecting(self) -> bool:
        """Twisted's: whether ``loseConnection`` was called."""
        return self._closing or self._will_close

    def getPeer(self) -> Any:
        """Twisted's: device and service."""
        return self._address

    def getHost(self) -> Any:
        """Twisted's: the same, for there is no address of our own."""
        return self._address

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Twisted's, of both kinds."""
        if self._producer is not None:
            raise RuntimeError(f"{producer} cannot be registered: {self._producer} is")
        if self._lost is not None:
            producer.stopProducing()
            return
        made = producer if streaming else _Pulled(self._clock, producer)
        super().registerProducer(made, True)
        if self._full:
            made.pauseProducing()
        elif not streaming:
            made.resumeProducing()

    def unregisterProducer(self) -> None:
        """Twisted's; a ``loseConnection`` that waited for it is done."""
        if isinstance(self._producer, _Pulled):
            self._producer.pauseProducing()
        super().unregisterProducer()
        if self._will_close:
            self.end()

    def loseConnection(self) -> None:
        """Twisted's: behind what the producer has still to say."""
        if self._producer is None:
            self.end()
        self._will_close = True

    def end(self) -> None:
        """End in order, whatever a producer has to say; where the service does not, with a reset."""
        super().loseConnection()
        if self._patience is None and self._lost is None:
            self._patience = self._clock.callLater(FLUSH, self.abortConnection)

    def _over(self) -> None:
        """The Protocol is about to be told."""
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        self._gone()
