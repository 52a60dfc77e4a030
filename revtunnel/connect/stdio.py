"""Standard input and output as the connection of a program, for ``-W``.

The rules: each direction ends by itself: the end of standard input is passed on, standard output is closed at
the other side's end of file and not before all is written. What is written waits here only until the producer
has stopped, and it is asked to at once. Flags of descriptors that a shell may share are put back at the end.

Traps stepped around: a reader's end behind a pipe is told by the reactor as a hang-up; epoll does not take
files, which Twisted then asks in every turn.

Source: Twisted's interfaces; OpenSSH, ProxyCommand in ssh_config(5); ours.
"""

import contextlib
import os
from collections import deque
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IPushProducer,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.reasons import Ended

__all__ = ["StandardTransport"]

READ = 64 * 1024 - 4  # bytes of one reading: a frame of a link


class _Descriptor:
    """One of the two, as the reactor sees it."""

    def __init__(self, owner: "StandardTransport", number: int) -> None:
        self._owner = owner
        self._number = number
        self._blocked = os.get_blocking(number)
        os.set_blocking(number, False)

    def fileno(self) -> int:
        return self._number

    def logPrefix(self) -> str:
        return "-"

    def put_back(self, close: bool) -> None:
        """Let go of it."""
        if self._number >= 0:
            with contextlib.suppress(OSError):
                os.set_blocking(self._number, self._blocked)
            if close:  # the number is not given to anybody else
                empty = os.open(os.devnull, os.O_RDWR)
                os.dup2(empty, self._number)
                os.close(empty)
            self._number = -1


@implementer(IReadDescriptor)
class _Input(_Descriptor):
    def doRead(self) -> None:
        """Twisted calls this: readable."""
        self._owner.readable()

    def connectionLost(self, reason: Failure) -> None:
        """Twisted calls this: a hang-up; there may be bytes before it."""
        self._owner.input_hung_up()


@implementer(IWriteDescriptor)
class _Output(_Descriptor):
    def doWrite(self) -> None:
        """Twisted calls this: writable."""
        self._owner.writable()

    def connectionLost(self, reason: Failure) -> None:
        """Twisted calls this: nobody reads it any more."""
        self._owner.output_lost()


@implementer(IConsumer, IPushProducer)
class StandardTransport:
    """A transport of two descriptors for a half-closeable Protocol; ``start`` makes the connection."""

    read_size = READ  # as an EndTransport has it: nothing of a socket is to be set

    def __init__(self, reactor: Any, protocol: Any, input_fd: int = 0, output_fd: int = 1) -> None:
        self._reactor = reactor
        self._protocol = protocol
        self._input = _Input(self, input_fd)
        self._output = _Output(self, output_fd)
        self._producer: Any = None
        self._waiting: deque[bytes] = deque()
        self._full = False  # the producer was told to stop
        self._reads = False
        self._read_ended = False
        self._ending = False  # our end of file is behind what waits
        self._write_ended = False
        self._closing = False
        self._over = False

    def start(self) -> None:
        """Tell the Protocol that it is connected."""
        self._protocol.makeConnection(self)

    # -- the Protocol calls

    def write(self, data: bytes) -> None:
        """Twisted's."""
        if self._over or self._ending or not data:
            return
        self._waiting.append(bytes(data))
        if len(self._waiting) == 1:
            self.writable()
            if self._waiting and not self._over:
                self._reactor.addWriter(self._output)
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

    def pauseProducing(self) -> None:
        """Twisted's."""
        self._reads = False
        self._reactor.removeReader(self._input)

    def resumeProducing(self) -> None:
        """Twisted's."""
        if not (self._over or self._read_ended):
            self._reads = True
            self._reactor.addReader(self._input)

    def stopProducing(self) -> None:
        """Twisted's."""
        self.loseConnection()

    def loseWriteConnection(self) -> None:
        """Twisted's: close the output behind what waits."""
        if not self._ending:
            self._ending = True
            self._reactor.callLater(0, self._end_if_written)

    def loseConnection(self) -> None:
        """Twisted's: read no more, write what waits, then it is over."""
        if not (self._over or self._closing):
            self._closing = self._ending = True
            self._reactor.callLater(0, self._end_if_written)

    def because(self, reason: Ended, detail: str) -> None:
        """Nothing: a pipe cannot say why."""

    def abortConnection(self) -> None:
        """Twisted's."""
        self._reactor.callLater(0, self._finish, ConnectionAborted())

    # -- the descriptors call

    def readable(self) -> None:
        """Bytes wait, or the end of file."""
        if self._over or not self._reads:
            return
        try:
            data = os.read(self._input.fileno(), READ)
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(ConnectionLost(error.strerror))
            return
        if data:
            self._protocol.dataReceived(data)
        else:
            self._input_ended()

    def input_hung_up(self) -> None:
        """The writer is gone; what it wrote is still there. Twisted has forgotten the descriptor."""
        if self._reads and not (self._over or self._read_ended):
            self.readable()
            if self._reads and not (self._over or self._read_ended):
                self._reactor.callLater(0, self.input_hung_up)

    def output_lost(self) -> None:
        """Nobody takes what is written."""
        if not self._write_ended:
            self._finish(ConnectionLost("standard output is closed"))

    def writable(self) -> None:
        """There is room."""
        try:
            while self._waiting:
                data = self._waiting[0]
                taken = os.write(self._output.fileno(), data)
                if taken == len(data):
                    self._waiting.popleft()
                else:
                    self._waiting[0] = data[taken:]
        except BlockingIOError:
            return
        except OSError as error:
            self._finish(ConnectionLost(error.strerror))
            return
        self._reactor.removeWriter(self._output)
        if self._ending:
            self._end_if_written()
        elif self._full:
            self._full = False
            if self._producer is not None:
                self._producer.resumeProducing()

    # -- inside

    def _input_ended(self) -> None:
        self._read_ended, self._reads = True, False
        self._reactor.removeReader(self._input)
        self._protocol.readConnectionLost()

    def _end_if_written(self) -> None:
        if self._over or self._waiting:
            return
        if not self._write_ended:
            self._write_ended = True
            self._reactor.removeWriter(self._output)
            self._output.put_back(close=True)
            if not self._closing:
                self._protocol.writeConnectionLost()
        if self._closing:
            self._finish(ConnectionDone())

    def _finish(self, reason: Exception) -> None:
        if self._over:
            return
        self._over = True
        self._waiting.clear()
        self._reactor.removeReader(self._input)
        self._reactor.removeWriter(self._output)
        self._input.put_back(close=False)
        self._output.put_back(close=False)
        self._protocol.connectionLost(Failure(reason))
