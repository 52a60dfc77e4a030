"""A channel as the transport of a Protocol: so two links are joined without a socket between them.

One side of it is what a link asks of a channel's owner, as ``ChannelSocket`` is one; the other is Twisted's
transport, as a ``ClientSocket`` expects it. The rules: what the Protocol does not take is held and not
repaid, so at most the channel's window is; nothing is delivered inside a call of the Protocol's;
``connectionLost`` comes exactly once, in a turn of its own; an end that is not in order is said with its
reason (``because``).

Other than with a socket: there is no kernel that goes on delivering. The end of file counts as written once
it is queued, and a ``loseConnection`` is done when the channel has ended.

Source: streams/streams.py (Link); Twisted's interfaces; ours.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ends import End
from revtunnel.streams.channel_joint import ChannelJoint
from revtunnel.streams.streams import READ, Link

__all__ = ["ChannelTransport"]


@implementer(IConsumer, IPushProducer)
class ChannelTransport:
    """One channel of ``link``, which may be any object with ``blocked``; ``start`` makes the connection.

    ``opened`` is called once, when the Protocol first wants to read or writes: its far side has answered.
    The Protocol must be half-closeable.
    """

    read_size = READ  # as an EndTransport has it: nothing of a socket is to be set

    def __init__(
        self,
        link: Link,
        channel: Any,
        protocol: Any,
        opened: Callable[[], None],
    ) -> None:
        self._link: Link | None = link  # None: the channel has ended
        self._clock = link.clock
        self._channel = channel
        self._protocol = protocol
        self._opened: Callable[[], None] | None = opened
        self._producer: Any = None
        self._held: deque[bytes] = deque()  # of the channel, not delivered yet
        self._wants = False  # the Protocol takes bytes
        self._full = False  # the channel takes none
        self._end_came = False  # its end of file; behind what is held
        self._end_told = False
        self._ending = False  # ours was said
        self._closing = False
        self._delivering = False
        self._due = False  # ``_turn`` will be called
        self._lost: Failure | None = None  # what connectionLost will say, or has said
        self._told = False
        self._why = Ended.RESET_BY_PEER, ""
        channel.owner = self

    def start(self) -> None:
        """Tell the Protocol that it is connected."""
        self._wants = True
        self._protocol.makeConnection(self)
        if self._held or self._end_came:
            self._soon()

    # -- from the link (as ChannelSocket)

    def deliver(self, data: bytes) -> None:
        """Bytes of the other side."""
        if self._closing and self._link is not None:
            self._link.consumed(self._channel, len(data))
        elif self._lost is None:
            self._held.append(bytes(data))
            self._deliver()

    def end_of_file(self) -> None:
        """The other side sends no more."""
        self._end_came = True
        if self._closing and self._link is not None:
            self._end_told = True
            self._link.flushed(self._channel)
        self._deliver()

    def may_read(self) -> None:
        """The queue has room again."""
        if self._full:
            self._full = False
            if self._producer is not None:
                self._producer.resumeProducing()

    def look(self) -> None:
        """Nothing: a channel says its reset by itself."""

    def over(self, reason: Ended) -> None:
        """The channel has ended; in order: what it still owes is delivered before that is said."""
        self._link = None
        if reason is not Ended.CLOSED:
            self._lose(Failure(ConnectionLost(reason.word)))
        elif self._closing:
            self._lose(Failure(ConnectionDone()))

    # -- the Protocol writes

    def write(self, data: bytes) -> None:
        """Twisted's."""
        if self._link is None or self._ending or self._lost is not None:
            return
        self._say_opened()
        if not self._link.send(self._channel, bytes(data)) and not self._full:
            self._full = True
            if self._producer is not None:
                self._producer.pauseProducing()

    def writeSequence(self, iovec: Any) -> None:
        """Twisted's."""
        self.write(b"".join(iovec))

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Twisted's; streaming ones only."""
        self._producer = producer

    def unregisterProducer(self) -> None:
        """Twisted's."""
        self._producer = None

    # -- the Protocol reads

    def pauseProducing(self) -> None:
        """Twisted's."""
        self._wants = False

    def resumeProducing(self) -> None:
        """Twisted's; nothing is delivered before the next turn."""
        self._wants = True
        self._say_opened()
        if self._held or self._end_came:
            self._soon()

    def stopProducing(self) -> None:
        """Twisted's."""
        self.loseConnection()

    # -- the Protocol ends it

    @property
    def disconnecting(self) -> bool:
        """Twisted's: whether ``loseConnection`` was called."""
        return self._closing

    def loseWriteConnection(self) -> None:
        """Twisted's: our end of file, behind what was written."""
        if not self._ending and self._lost is None:
            self._ending = True
            if self._link is not None:
                self._say_opened()
                self._link.end(self._channel)
            self._clock.callLater(0, self._end_written)

    def loseConnection(self) -> None:
        """Twisted's: read no more, and end in order."""
        if self._closing or self._lost is not None:
            return
        self._closing = True
        held, self._held = sum(map(len, self._held)), deque()
        if self._link is not None and held:
            self._link.consumed(self._channel, held)
        if self._link is not None and not self._ending:
            self._ending = True
            self._link.end(self._channel)
        if self._link is not None and self._end_came and not self._end_told:
            self._end_told = True
            self._link.flushed(self._channel)
        if self._link is None:
            self._lose(Failure(ConnectionDone()))

    def because(self, reason: Ended, detail: str) -> None:
        """What the other side is told of an abort."""
        self._why = reason, detail

    def abortConnection(self) -> None:
        """Twisted's: a reset for the other side."""
        if self._lost is None:
            self._lose(Failure(ConnectionAborted()))
            if self._link is not None:
                self._link.reset(self._channel, *self._why)

    def join(self, reactor: Any, far: End, ended: Callable[[Ended, str], None]) -> ChannelJoint:
        """Have the channel go to ``far`` and back, what is held first; the Protocol is told nothing more.

        Raises:
            OSError: the channel has ended, and the Protocol is told so as ever.
        """
        link = self._link
        if link is None or self._lost is not None or self._told:
            raise ConnectionResetError("nothing to join: the channel has ended")
        self._say_opened()
        self._told = True
        held, self._held = [*self._held], deque()
        return ChannelJoint(reactor, far, link, self._channel, held, self._end_came, ended)

    # -- inside

    def _say_opened(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None and self._link is not None:
            opened()

    def _deliver(self) -> None:
        """Give the Protocol what is held, as long as it takes it."""
        if self._delivering or not self._protocol_is_there:
            return
        self._delivering = True
        size = 0
        try:
            while self._held and self._wants:
                data = self._held.popleft()
                size += len(data)
                self._protocol.dataReceived(data)
        finally:
            self._delivering = False
        if size and self._link is not None:
            self._link.consumed(self._channel, size)
        if self._end_came and not self._held and self._wants and not (self._end_told or self._closing):
            self._end_told = True
            if self._link is not None:
                self._link.flushed(self._channel)
            self._protocol.readConnectionLost()

    @property
    def _protocol_is_there(self) -> bool:
        return self._lost is None and not self._told

    def _end_written(self) -> None:
        if self._protocol_is_there:
            self._protocol.writeConnectionLost()

    def _lose(self, reason: Failure) -> None:
        if self._lost is None:
            self._lost = reason
            self._held.clear()
            self._soon()

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        """What had to wait until no call of the Protocol's is under way."""
        self._due = False
        try:
            if self._lost is None:
                self._deliver()
            elif not self._told:
                self._told = True
                if self._producer is not None:
                    self._producer.stopProducing()
                self._protocol.connectionLost(self._lost)
        except Exception:
            log.err()
            self.abortConnection()
