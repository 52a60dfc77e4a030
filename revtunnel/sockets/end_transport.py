"""An End as our Protocols see it: Twisted's transport, but each write is tried at once.

The rules: one reading a turn, into one buffer that all transports share. ``connectionLost`` comes exactly
once and never inside a call of the protocol's, except as with Twisted: in a ``loseConnection`` behind our
end of file. Writing is outgoing.py's.

Other than Twisted's: a producer does not hold back ``loseConnection``; nothing that is written behind
``loseConnection`` or ``loseWriteConnection`` is sent; bytes that were given up never end in a clean close,
but in a reset; ``abortConnection`` frees the descriptor at once. The kernel's rule stays: a close with unread
input is a reset, and the owner has to read to the end first.

Traps stepped around: the kernel tells of a reset once, and the next call sees an end of file, so what a
failed write learnt is kept. epoll's events of one batch may belong to a descriptor that was closed meanwhile
and given to another, so a hang-up is believed only when it is still there.

Source: ours; performance.md "What a Twisted process can do"; twisted.md 2.3; Twisted's interfaces.
"""

import contextlib
import socket
from typing import Any

from twisted.internet.defer import TimeoutError as Late
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    IReadWriteDescriptor,
    ISystemHandle,
)
from twisted.internet.protocol import Protocol
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.errors import LocalError
from revtunnel.sockets.ends import RECORD, End, TlsEnd, said
from revtunnel.sockets.hangups import hung_up
from revtunnel.sockets.outgoing import TURN, Outgoing
from revtunnel.sockets.watch import Watch

__all__ = ["EndTransport", "in_words"]

_READ = 64 * 1024  # bytes a reading, unless the protocol wants more: what a channel may queue
_NOBODY = Protocol()
_shared = memoryview(bytearray(TURN))  # what is read is copied out before anybody is called, or lent


class _Lent:
    """Whether a protocol has a view of the shared buffer: what is read meanwhile goes elsewhere."""

    now = False


def _room(size: int) -> memoryview:
    """Where a reading goes that has no other place."""
    return memoryview(bytearray(size)) if _Lent.now else _shared[:size]


def _lend(protocol: IProtocol, view: memoryview) -> None:
    """Let a protocol have it until it returns."""
    before, _Lent.now = _Lent.now, True
    try:
        protocol.dataReceived(view)  # type: ignore[arg-type]
    finally:
        _Lent.now = before


@implementer(IConsumer, IPushProducer, IReadWriteDescriptor, ISystemHandle)
class EndTransport(Outgoing):
    """One connection; ``start`` tells the protocol of it.

    The protocol may set three things: ``read_size``, 16 KiB to TURN, is how many bytes a reading takes at
    most; with ``gives_views`` it is given a view of the shared buffer, good until it returns; ``into`` is
    where the next readings go, if there is room for a RECORD, and then its ``filled(size)`` is called.
    """

    __slots__ = (
        "__weakref__",
        "_closing",
        "_due",
        "_ending",
        "_failed",
        "_fin_waits",
        "_open",
        "_protocol",
        "_reactor",
        "_read_ended",
        "_reads",
        "_told",
        "_wants",
        "_write_ended",
        "_writes",
        "gives_views",
        "into",
        "read_size",
    )

    def __init__(self, reactor: Any, end: End, protocol: IProtocol) -> None:
        super().__init__(end)
        self.read_size = _READ
        self.gives_views = False
        self.into: memoryview | None = None
        self._reactor = reactor
        self._protocol = protocol
        self._open = True  # the end is ours and may be used
        self._told = False  # the protocol knows that it is over, or need not
        self._due = False  # ``_turn`` will be called
        self._failed: Failure | None = None  # what ``connectionLost`` will say
        # reading
        self._wants = True  # the protocol takes bytes
        self._read_ended = False
        self._reads = False  # the reactor tells us: readable
        self._writes = False  # the reactor tells us: writable
        self._closing = False  # loseConnection was called
        self._ending = False  # loseWriteConnection was called
        self._fin_waits = False  # our end of file was begun and did not fit
        self._write_ended = False

    def start(self) -> None:
        """Tell the protocol that it is connected, and read for it from then on."""
        if self._end.is_watched:
            Watch.of(self._reactor).leave(self._end.fileno())
            self._end.is_watched = False
        try:
            self._protocol.makeConnection(self)  # type: ignore[arg-type]
        except BaseException:
            self._broken()
        self._watch()

    def take(self) -> End:
        """Hand the end over; nothing is told to the protocol any more, which has had every reading whole.

        Raises:
            OSError: the connection is lost, or cut.
            LocalError: bytes wait to be written, which only this transport knows of.
        """
        if not self._open or self._failed is not None:
            raise ConnectionResetError(f"nothing to take: it {in_words(self._failed or _done())}")
        if self._size or self._ending or self._closing:
            raise LocalError(f"cannot take a connection with {self._size} bytes to write, or an ending")
        self._leave_reactor()
        self._open, self._told = False, True
        self._producer, self._protocol = None, _NOBODY
        return self._end

    # -- the protocol writes

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Twisted's."""
        if self._open:
            super().registerProducer(producer, streaming)
        else:
            producer.stopProducing()

    # -- the protocol reads

    def pauseProducing(self) -> None:
        """Twisted's; at most what is being delivered comes after it."""
        self._wants = False
        self._watch()

    def resumeProducing(self) -> None:
        """Twisted's; nothing is delivered before the next turn."""
        if self._open and not (self._wants or self._read_ended or self._closing):
            self._wants = True
            if self._end.pending:
                self._soon()
            self._watch()

    # -- the protocol ends it

    @property
    def disconnecting(self) -> bool:
        """Twisted's: whether ``loseConnection`` was called."""
        return self._closing

    def loseConnection(self) -> None:
        """Twisted's: read no more, write what waits, then end in order."""
        if not self._open or self._closing:
            return
        self._closing = True
        self._wants = False
        if self._write_ended:
            self._finish(_done())
        else:
            self._after_flush()

    stopProducing = loseConnection

    def loseWriteConnection(self) -> None:
        """Twisted's: our end of file, behind what waits; ``writeConnectionLost`` says when."""
        if self._open and not (self._closing or self._ending):
            self._ending = True
            self._after_flush()

    def abortConnection(self) -> None:
        """Twisted's: end with a reset, now; ``connectionLost`` comes in the next turn."""
        if self._open:
            self._release(in_order=False)
            self._failed = Failure(ConnectionAborted())
            self._soon()

    # -- what it is

    def getHandle(self) -> socket.socket | None:
        """Twisted's: the socket; None when it is closed, or another's."""
        return self._end.sock if self._open else None

    # -- the reactor calls

    def fileno(self) -> int:
        """Twisted calls this."""
        return self._end.fileno()

    def logPrefix(self) -> str:
        """Twisted calls this."""
        return "-"

    def doRead(self) -> None:
        """Twisted calls this: readable."""
        self._spent = 0
        if self._open and self._end.writes_when_readable:
            self._flush()
        if self._open and self._wants:
            self._read()
            self._watch()

    def doWrite(self) -> None:
        """Twisted calls this: writable."""
        self._spent = 0
        if self._open and self._end.reads_when_writable and self._wants:
            self._read()
        if self._open:
            self._flush()

    def connectionLost(self, reason: Failure) -> None:
        """Twisted calls this: a hang-up, or an exception of the protocol, of which it has forgotten us."""
        if not self._open:
            return
        self._reads = self._writes = False
        if reason.check(ConnectionDone, ConnectionLost):
            if self._wants:
                self._read()
            if not self._open or hung_up(self._end.sock) is None:
                self._watch()
                return
            reason = self._failed or Failure(ConnectionLost("hung up"))
        self._finish(reason)

    # -- inside

    @property
    def _deaf(self) -> bool:
        """Whether nothing is written any more."""
        return not self._open or self._closing or self._ending or self._failed is not None

    def _read(self) -> None:
        """One reading."""
        into = self.into if self.into is not None and len(self.into) >= RECORD else None
        try:
            room = _room(self.read_size) if into is None else into
            size = self._end.read_into(room)
        except OSError as error:
            self._finish(self._failed or _cut(error))
            return
        if size:
            if into is not None:
                self._protocol.filled(size)  # type: ignore[attr-defined]
            else:
                if self.gives_views:
                    _lend(self._protocol, room[:size])
                else:
                    self._protocol.dataReceived(bytes(room[:size]))
            if self._wants and self._open and self._end.pending:
                self._soon()
        elif size == 0:
            self._end_of_file()

    def _end_of_file(self) -> None:
        self._wants, self._read_ended = False, True
        if self._failed is not None:
            self._finish(self._failed)
        elif IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.readConnectionLost()
        else:
            self._finish(_done())

    def _write_failed(self, error: OSError) -> None:
        """The connection is cut; what had come before is still delivered in the next turn."""
        self._failed = _cut(error)
        self._drop()
        self._soon()
        self._watch()

    def _flush(self) -> None:
        """Write what waits, then do what comes behind it."""
        if self._write_waiting():
            if self._closing or (self._ending and not self._write_ended):
                self._end_writing()
            else:
                self._want_more()
        self._watch()

    def _end_writing(self) -> None:
        try:
            self._fin_waits = not self._end.end_writing()
        except OSError as error:
            self._write_failed(error)
            return
        if self._fin_waits:
            return
        self._write_ended = True
        if self._closing:
            self._finish(_done())
        elif IHalfCloseableProtocol.providedBy(self._protocol):
            self._protocol.writeConnectionLost()

    def _after_flush(self) -> None:
        """Go on when nothing waits; not now, for this is a call of the protocol's."""
        if not self._size:
            self._soon()
        self._watch()

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            self._reactor.callLater(0, self._turn)

    def _turn(self) -> None:
        """What had to wait until no call of the protocol's is under way."""
        self._due = False
        self._spent = 0
        try:
            if self._open and self._wants and (self._failed is not None or self._end.pending):
                self._read()
            if self._failed is not None:
                self._finish(self._failed)
            elif self._open:
                self._flush()
        except BaseException:
            self._broken()

    def _watch(self) -> None:
        """Have the reactor tell what we want to know, and nothing else."""
        if not self._open:
            return
        reads, writes = self._wants, self._size > 0 or self._fin_waits
        end = self._end
        if end.reads_when_writable or end.writes_when_readable:  # TLS: waiting for the other event
            late_read, late_write = reads and end.reads_when_writable, writes and end.writes_when_readable
            reads, writes = late_write or (reads and not late_read), late_read or (writes and not late_write)
        if reads is not self._reads:
            self._reads = reads
            (self._reactor.addReader if reads else self._reactor.removeReader)(self)
        if writes is not self._writes:
            self._writes = writes
            (self._reactor.addWriter if writes else self._reactor.removeWriter)(self)

    def _leave_reactor(self) -> None:
        if self._reads:
            self._reads = False
            self._reactor.removeReader(self)
        if self._writes:
            self._writes = False
            self._reactor.removeWriter(self)

    def _release(self, in_order: bool) -> None:
        """Give the descriptor up."""
        self._leave_reactor()
        self._open = self._wants = False
        if in_order and not self._size:
            with contextlib.suppress(OSError):
                if not self._write_ended:
                    self._end.end_writing()
                if isinstance(self._end, TlsEnd) and not self._read_ended:
                    self._end.read_into(_room(RECORD))  # session tickets are unread input as well
            self._end.close()
        else:
            self._end.abort()
        self._drop()

    def _finish(self, reason: Failure) -> None:
        """It is over: release what is held, and tell."""
        if self._open:
            self._release(in_order=reason.check(ConnectionDone) is not None)
        if self._told:
            return
        self._told = True
        producer, self._producer = self._producer, None
        protocol, self._protocol = self._protocol, _NOBODY
        if producer is not None:
            producer.stopProducing()
        protocol.connectionLost(reason)

    def _broken(self) -> None:
        """The protocol raised: a bug, logged, and the end of this connection."""
        log.err()
        self._finish(Failure())


def in_words(reason: Failure) -> str:
    """What the other side did, behind its name, or why it failed; Twisted's own words say it twice over."""
    error = reason.value
    if isinstance(error, ConnectionDone):
        return "hung up"
    if isinstance(error, ConnectionLost):
        return str(error.args[0]) if error.args else "is lost"
    if isinstance(error, Late) and len(error.args) > 1:  # of Deferred.addTimeout
        return f"did not answer in {error.args[0]:g} s"
    return said(error) if isinstance(error, OSError) else reason.getErrorMessage() or type(error).__name__


def _done() -> Failure:
    return Failure(ConnectionDone())


def _cut(error: OSError) -> Failure:
    return Failure(ConnectionLost(said(error)))
