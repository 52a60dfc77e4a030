"""A data socket while it still carries frames: it waits, unread by anybody, and is noticed when it dies.

The rule: such a socket says and hears a few bytes at most, so what the kernel does not take at once, or what
does not fit one reading, is a fault of the socket. Its owner lets go of the End (``release``) when raw bytes
begin.

Source: wire/link-extension.md "Data sockets"; performance.md (two small objects for each connection).
"""

import socket
from select import EPOLLOUT
from typing import Any

from twisted.python.failure import Failure

from revtunnel.ground.errors import RemoteError
from revtunnel.sockets.end_transport import in_words
from revtunnel.sockets.ends import RECORD, End, said, set_options
from revtunnel.sockets.hangups import has_ended, hung_up
from revtunnel.sockets.watch import CHANGES, HANGUPS, OVER, Watch

__all__ = ["BEAT", "DEAD", "KEEP_ALIVE", "FramedEnd", "keep_alive"]

BEAT = 5  # looks, 5 s apart, from one sign of life to the next
DEAD = 15.0  # seconds without an acknowledgement; with a second look, 5 s later, a dead path is found in 20 s

# seconds until the first, below the time of any NAT, and between two; how many: a dead path is found in 45 s
KEEP_ALIVE = 25, 5, 4
_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 4), KEEP_ALIVE[0]),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", 5), KEEP_ALIVE[1]),
    (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", 6), KEEP_ALIVE[2]),
)
_scratch = memoryview(bytearray(4 * RECORD))


def keep_alive(end: End) -> None:
    """Set what a data socket needs of its TCP connection that lives for longer than a look."""
    if end.sock.family != socket.AF_UNIX:
        set_options(end.sock, _OPTIONS)


class FramedEnd:
    """One End with the reactor's eye on it. A subclass says what bytes mean, and what a death."""

    __slots__ = ("_held", "_reactor", "_unread", "_watched", "end")

    def __init__(self, reactor: Any, end: End) -> None:
        self._reactor = reactor
        self._watched = False
        self._held = False
        self._unread = False  # something came while it was held, or behind what was read last
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
        self._watched = self.end.is_watched = True
        Watch.of(self._reactor).add(self)
        if self.end.pending:
            self._reactor.callLater(0, self.doRead)

    def hold(self) -> None:
        """Read nothing more, but notice when it is lost or ends."""
        self._held = True

    def tell_unread(self) -> None:
        """Have whoever has the end now told of what came before that, and was not read."""
        if (self._unread or self.end.reads_when_writable) and self.end.is_watched:
            Watch.of(self._reactor).untold(self.end.fileno())

    def release(self) -> End:
        """Read no more: the end is the caller's, who closes it or has it in a relay in this very call."""
        self._watched = False
        return self.end

    def close(self) -> None:
        """End it in order, and say nothing."""
        self._forget()
        self.end.close()

    def abort(self) -> None:
        """End it with a reset, and say nothing."""
        self._forget()
        self.end.abort()

    def _forget(self) -> None:
        self._watched = False
        if self.end.is_watched and self.end.fileno() >= 0:
            Watch.of(self._reactor).closes(self.end.fileno())
        self.end.is_watched = False

    def say(self, data: bytes) -> bool:
        """Write a frame; False: it died of it."""
        self.say_before(data, b"")
        return self.end.fileno() >= 0

    def say_before(self, data: bytes, raw: bytes) -> bytes | memoryview:
        """Write a frame whole, or die of it, and bytes behind it: what of them was not taken."""
        try:
            taken = self.end.write(data + raw)
        except OSError as error:
            self._die(said(error))
            return raw
        if taken < len(data):
            self._die(f"took {taken} of {len(data)} bytes")
        return memoryview(raw)[taken - len(data) :]

    def hears(self, data: bytes) -> None:
        """Bytes that somebody else has read of it."""
        try:
            self.received(data)
        except RemoteError as error:
            self._die(str(error))

    def fails(self, error: OSError) -> None:
        """It was cut while somebody else had it."""
        self._die(said(error))

    # -- the reactor calls

    def fileno(self) -> int:
        """Twisted calls this."""
        return self.end.fileno()

    def logPrefix(self) -> str:
        """Twisted calls this."""
        return "-"

    def doRead(self) -> None:
        """Twisted calls this: readable."""
        self._read(False)

    def happened(self, event: int) -> None:
        """The same, when it has ended too, or was cut."""
        self._read(bool(event & OVER))
        if self._held and self._watched and event & OVER and has_ended(self.end.sock):
            error = hung_up(self.end.sock)
            self._die("ended by the other side" if error is None else said(error))

    def connectionLost(self, reason: Failure) -> None:
        """Twisted calls this: an exception of ours, which it has logged."""
        if self._watched:
            self._die(in_words(reason))

    # -- inside

    def _read(self, over: bool) -> None:
        """Read until there is no more; ``over``: up to its end, which is said to have come."""
        self._unread = more = self._watched
        waited = self.end.reads_when_writable
        while more and self._watched and not self._held:
            try:
                size = self.end.read_into(_scratch)
                is_all = self.end.slack is not None and (size or 0) < len(_scratch) - self.end.slack
                more = size is not None and (over or self.end.pending or not is_all)
                self._unread = more or waited
                if size:
                    self.received(bytes(_scratch[:size]))
            except OSError as error:
                self._die(said(error))
                return
            except RemoteError as error:
                self._die(str(error))
                return
            if size == 0:
                self._die("ended by the other side")
                return
        waits = self.end.reads_when_writable
        if self._watched and (waits or waited) and not (more or self._held):
            Watch.of(self._reactor).again(self.end.fileno(), HANGUPS | EPOLLOUT if waits else CHANGES)

    def _die(self, detail: str) -> None:
        if self.end.fileno() >= 0:
            self.abort()
            self.died(detail)
