"""A data socket while it still carries frames: it waits, unread by anybody, and is noticed when it dies.

The rule: such a socket says and hears a few bytes at most, so what the kernel does not take at once, or what
does not fit one reading, is a fault of the socket. Its owner lets go of the End (``release``) when raw bytes
begin.

Source: wire/link-extension.md "Data sockets"; performance.md (two small objects for each connection).
"""

import contextlib
import socket
from typing import Any

from twisted.python.failure import Failure

from revtunnel.ground.errors import RemoteError
from revtunnel.sockets.end_transport import in_words
from revtunnel.sockets.ends import RECORD, End, said

__all__ = ["BEAT", "DEAD", "FramedEnd", "prepare"]

BEAT = 5  # looks, 5 s apart, from one sign of life to the next
DEAD = 15.0  # seconds without an acknowledgement; with a second look, 5 s later, a dead path is found in 20 s

_OPTIONS = (
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 4), 25),  # seconds; below the time of any NAT
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", 5), 5),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", 6), 4),  # so a dead path is found in 45 s
)
_scratch = memoryview(bytearray(RECORD))


def prepare(end: End) -> None:
    """Set what a data socket needs of its TCP connection beyond what all have (``ends.tune``)."""
    if end.sock.family != socket.AF_UNIX:
        for level, number, value in _OPTIONS:
            with contextlib.suppress(OSError):
                end.sock.setsockopt(level, number, value)


class FramedEnd:
    """One End with the reactor's eye on it. A subclass says what bytes mean, and what a death."""

    __slots__ = ("_reactor", "_watched", "end")

    def __init__(self, reactor: Any, end: End) -> None:
        self._reactor = reactor
        self._watched = False
        self.end = end

    # -- what a subclass has to provide

    def received(self, data: bytes) -> None:
        """Bytes of the other side; RemoteError: it dies of them."""
        raise NotImplementedError

    def died(self, detail: str) -> None:
        """It was lost, ended or broke the rules; it is released and aborted already. Said once."""
        raise NotImplementedError

    # -- what a subclass calls

    def watch(self) -> None:
        """Read from now on."""
        self._watched = True
        self._reactor.addReader(self)
        if self.end.pending:
            self._reactor.callLater(0, self.doRead)

    def release(self) -> End:
        """Read no more: the end is the caller's."""
        if self._watched:
            self._watched = False
            self._reactor.removeReader(self)
        return self.end

    def abort(self) -> None:
        """End it with a reset, and say nothing."""
        self.release().abort()

    def say(self, data: bytes) -> bool:
        """Write a frame; False: it died of it."""
        try:
            taken = self.end.write(data)
        except OSError as error:
            self._die(said(error))
            return False
        if taken < len(data):
            self._die(f"took {taken} of {len(data)} bytes")
        return taken == len(data)

    # -- the reactor calls

    def fileno(self) -> int:
        """Twisted calls this."""
        return self.end.fileno()

    def logPrefix(self) -> str:
        """Twisted calls this."""
        return "-"

    def doRead(self) -> None:
        """Twisted calls this: readable."""
        if not self._watched:
            return
        try:
            size = self.end.read_into(_scratch)
            if size:
                self.received(bytes(_scratch[:size]))
        except OSError as error:
            self._die(said(error))
        except RemoteError as error:
            self._die(str(error))
        else:
            if size == 0:
                self._die("ended by the other side")
            elif size and self._watched and self.end.pending:
                self._reactor.callLater(0, self.doRead)

    def connectionLost(self, reason: Failure) -> None:
        """Twisted calls this: a hang-up, of which it has forgotten us, or an exception of ours."""
        if self._watched:
            self._die(in_words(reason))

    # -- inside

    def _die(self, detail: str) -> None:
        if self.end.fileno() >= 0:
            self.abort()
            self.died(detail)
