"""One TCP (or UNIX) socket tied to one channel of a link: a client at the server, a service at the agent.

The rules: a socket is not read before its channel is open; either end, when full, stops the other; end of
file is passed on in each direction by itself; an abnormal end is an abort, which the far program sees as a
reset.

Twisted's traps that this file steps around: closing (or half-closing) with a producer registered never
finishes, so the producer is unregistered first; a close with unread input in the kernel becomes a reset that
can destroy our last bytes at the peer, so after our end of file the rest of the input is read and dropped.
A paused socket is not in epoll, so that ``look`` has to ask for its reset.

Source: twisted.md 2.3; house.md example 2; wire/link-extension.md.
"""

from typing import TYPE_CHECKING, Any
from typing import Protocol as Typing

from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.reasons import Ended
from revtunnel.sockets.end_transport import EndTransport, in_words
from revtunnel.sockets.ends import End
from revtunnel.sockets.hangups import is_cut
from revtunnel.streams.channel import Channel
from revtunnel.streams.frames import HEADER_SIZE

__all__ = ["ChannelSocket", "Link"]


FLUSH = 60.0  # seconds that a far program may take for its last bytes, once the channel has ended
READ = 65536 - HEADER_SIZE  # bytes of one reading: with its header, four whole TLS records
LINGER = 5.0  # seconds that it may go on sending after its end of file, where nobody can have it any more


class Link(Typing):
    """What a socket needs of the link that carries its channel."""

    clock: IReactorTime
    # it may have ``takes_views``: what is given to ``send`` may be a view, good until that returns

    def send(self, channel: Channel, data: bytes) -> bool:
        """Pass bytes on; False: stop reading until ``may_read``."""

    def end(self, channel: Channel) -> None:
        """Pass an end of file on."""

    def consumed(self, channel: Channel, size: int) -> None:
        """Bytes left for the socket."""

    def flushed(self, channel: Channel) -> None:
        """Everything, end of file included, left for the socket."""

    def reset(self, channel: Channel, reason: Ended, detail: str) -> None:
        """End the channel abnormally."""


@implementer(IPushProducer, IHalfCloseableProtocol)
class ChannelSocket(Protocol):
    """A connected end and, once ``attach`` was called, its channel and a transport."""

    if TYPE_CHECKING:
        transport: EndTransport  # type: ignore[assignment]

    who = "service"  # that this end is of
    link: Link | None = None
    channel: Channel | None = None
    _owed = 0  # bytes written and not repaid yet
    _full = False  # the transport has more than it likes
    _end_came = False  # the other side's end of file: nothing more is written
    _read_ended = False
    _write_ended = False
    _lost = False
    _patience: IDelayedCall | None = None

    def __init__(self, reactor: Any, end: End | None) -> None:
        """``end``: None where there is none, and its maker gives it a transport that has ``because``."""
        self._end = end
        self._reactor = reactor

    # -- from the transport

    def connectionMade(self) -> None:
        self.transport.read_size = READ
        self.transport.registerProducer(self, True)
        self.transport.pauseProducing()  # nothing is read that cannot be placed

    def dataReceived(self, data: bytes) -> None:
        if self.channel is not None and self.link is not None and not self.link.send(self.channel, data):
            self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        self._read_ended = True
        if self.channel is not None and self.link is not None:
            self.link.end(self.channel)
        self._close_if_done()

    def writeConnectionLost(self) -> None:
        self._write_ended = True
        if self.channel is not None and self.link is not None:
            self.link.flushed(self.channel)
        self._close_if_done()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        if self.channel is not None and self.link is not None and not self._finished:
            self.link.reset(self.channel, Ended.RESET_BY_PEER, f"{self.who}: {in_words(reason)}")

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        self._repay()

    def stopProducing(self) -> None:
        """The transport is lost; ``connectionLost`` says it."""

    # -- from the link

    def attach(self, link: Link, channel: Channel) -> None:
        """Tie this socket to its channel; it is read from ``may_read`` on."""
        if self._end is not None and not self._lost:  # else that is told in a moment
            EndTransport(self._reactor, self._end, self).start()
        self.link, self.channel = link, channel
        channel.owner = self
        if self._end is not None and self.transport is not None:
            self.transport.gives_views = getattr(link, "takes_views", False)

    def may_read(self) -> None:
        """The target answered, or the queue has room again."""
        blocked = self.channel is not None and self.channel.blocked
        if not (self._lost or self._read_ended or blocked):
            self.transport.resumeProducing()

    def deliver(self, data: bytes) -> None:
        """Bytes of the other side."""
        if self._lost or self._end_came:
            return
        self._owed += len(data)
        self.transport.write(data)  # may call pauseProducing before it returns
        if not self._full:
            self._repay()

    def end_of_file(self) -> None:
        """The other side sends no more."""
        if not (self._lost or self._end_came):
            self._end_came = True
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def over(self, reason: Ended) -> None:
        """The channel has ended: in order, or with a reset for the far program."""
        link, self.link, self.channel = self.link, None, None
        if self._lost or self._finished:
            return
        if reason is not Ended.CLOSED or link is None:
            self.abort(reason)
            return
        self._part()
        if self._end_came:
            self.may_read()  # to its end of file, and dropped: see the head of this file
        else:
            self.transport.unregisterProducer()
            self.transport.loseConnection()
        self._patience = link.clock.callLater(LINGER if self._write_ended else FLUSH, self.abort)

    def look(self) -> None:
        """Notice the reset of a far program that is not read at present; the link asks with every tick."""
        end = self._end
        if not self._lost and end is not None and end.fileno() >= 0 and is_cut(end.sock):
            self.abort()

    def abort(self, reason: Ended = Ended.RESET_BY_PEER, detail: str = "") -> None:
        """End with a reset, which says why where the connection can."""
        if self._lost:
            return
        if self._end is not None:
            self._end.because(reason, detail)
        else:
            self.transport.because(reason, detail)  # type: ignore[attr-defined]
        if self.transport is not None:
            self.transport.abortConnection()
        elif self._end is not None:
            self._end.abort()
            self._lost = True
            self._reactor.callLater(0, self.connectionLost, Failure(ConnectionAborted()))

    # -- inside

    @property
    def _finished(self) -> bool:
        return self._read_ended and self._write_ended

    def _close_if_done(self) -> None:
        if self._finished and not self._lost:
            self._part()
            self.transport.loseConnection()

    def _part(self) -> None:
        if self._end is not None:
            self._end.is_parting()

    def _repay(self) -> None:
        owed, self._owed = self._owed, 0
        if owed and self.channel is not None and self.link is not None:
            self.link.consumed(self.channel, owed)
