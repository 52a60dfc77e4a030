"""An end without a partner: parked, waiting for the other side of its session, or on its way out.

The rules: bytes are read and thrown away, or not read at all; in both cases its leaving is noticed. Whoever
parts hears our end of file behind all that was written, and is read (and ignored) until his own comes or his
time is over, because a close with unread input would be a reset that overtakes what was written. Who does not
get what was for him, or said what was kept and then dropped, is reset instead: a cut is no end.

Source: wire/cccp.md section 2 ("bytes before pairing", "device connects before /on"); ours.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReadWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.sockets.ends import End, said
from revtunnel.sockets.hangups import has_ended, is_cut
from revtunnel.sockets.watch import HANGUPS, Watch
from revtunnel.systems.cccp.proxy_sessions import SideMode

__all__ = ["UnpairedEnd", "WithoutLf", "part_from", "unread"]

PARTING = 2.0  # seconds that somebody who is sent away has for his own end of file
_buffer = memoryview(bytearray(64 * 1024))  # of all: what is read is not looked at


@implementer(IReadWriteDescriptor)
class UnpairedEnd:
    """Watches one end; ``gone(detail)`` is called once, from the reactor, when its owner left.

    ``early`` is what it said before it came here, for whoever takes it over; thrown away with the rest.
    ``owed`` is what was for it and was not taken yet; ``cut``: more was, which was never read.
    """

    __slots__ = ("_gone", "_kept", "_manner", "_reactor", "cut", "early", "end", "fileno", "owed")

    fileno: Callable[[], int]

    def __init__(self, reactor: Any, end: End, gone: Callable[[str], None], early: bytes = b"") -> None:
        self.end = end
        self.early = early
        self.owed = b""
        self.cut = False
        self.fileno = end.sock.fileno
        self._reactor = reactor
        self._gone = gone
        self._manner: SideMode | None = None
        self._kept = False  # what it says is not read

    def watch(self, manner: SideMode) -> None:
        """DISCARD or HOLD from now on."""
        if manner is self._manner:
            return
        self.leave()
        self._manner = manner
        self._kept = manner is SideMode.HOLD
        if self._kept:
            Watch.of(self._reactor).add(self, HANGUPS)
            return
        self.early = b""
        self._reactor.addReader(self)
        if self.end.pending:
            self._reactor.callLater(0, self._pending)

    def leave(self) -> None:
        """Watch no more; the end is the caller's."""
        if self._manner is SideMode.HOLD:
            Watch.of(self._reactor).leave(self.fileno())
        elif self._manner is not None:
            self._reactor.removeReader(self)
            self._reactor.removeWriter(self)
        self._manner = None

    @property
    def whole(self) -> bool:
        """Whether it got all that was for it."""
        return not (self.owed or self.cut)

    def send_away(self) -> None:
        """Close it: in order, or with a reset where bytes are dropped with it."""
        self.leave()
        if self.end.fileno() < 0:
            return
        if self.whole and not (self._kept and (self.early or unread(self.end))):
            part_from(self._reactor, self.end)
        else:
            self.end.abort()

    def lost(self, detail: str) -> None:
        """Its owner left."""
        self.leave()
        gone, self._gone = self._gone, _nobody
        gone(detail)

    def happened(self, event: int) -> None:
        """While it is held: its owner left, if that is still so (watch.py)."""
        if has_ended(self.end.sock):
            self.lost("reset" if is_cut(self.end.sock) else "")

    # -- Twisted calls these

    def logPrefix(self) -> str:
        """For what Twisted logs."""
        return "-"

    def doRead(self) -> None:
        """Readable: throw one reading away."""
        try:
            size = self.end.read_into(_buffer)
        except OSError as error:
            self.lost(said(error))
            return
        if size == 0:
            self.lost("")
        elif self.end.pending:
            self._reactor.callLater(0, self._pending)
        elif self.end.reads_when_writable:
            self._reactor.addWriter(self)

    def doWrite(self) -> None:
        """Writable, which TLS had to wait for."""
        self._reactor.removeWriter(self)
        self.doRead()

    def connectionLost(self, reason: Failure) -> None:
        """Hung up."""
        if self._manner is not None:
            self.doRead()
        if self._manner is SideMode.DISCARD:  # the event was another's who had this descriptor before
            self._reactor.addReader(self)

    def _pending(self) -> None:
        """What TLS has read and not given."""
        if self._manner is SideMode.DISCARD:
            self.doRead()


def _nobody(detail: str) -> None:
    """In place of the owner's callback, which is kept no longer than needed."""


def unread(end: End) -> bool:
    """Whether bytes came that nobody has read; some of them are thrown away."""
    try:
        return bool(end.read_into(_buffer))
    except OSError:
        return False  # its owner sees the reset himself


def part_from(reactor: Any, end: End, seconds: float = PARTING) -> None:
    """Say our end of file, and close when his has come, or after ``seconds``."""
    try:
        done = end.end_writing()
        if not done:
            reactor.callLater(0.05, _say_end, end)
    except OSError:
        end.abort()
        return
    late: list[IDelayedCall] = []

    def close(detail: str) -> None:
        if late and late[0].active():
            late[0].cancel()
        end.close()

    lone = UnpairedEnd(reactor, end, close)
    late.append(reactor.callLater(seconds, lone.lost, ""))
    lone.watch(SideMode.DISCARD)


def _say_end(end: End) -> None:
    """Once more, for TLS; who does not take it now is closed without."""
    try:
        if end.fileno() >= 0:
            end.end_writing()
    except OSError:
        return  # the reading side hears of it too


class WithoutLf(End):
    """An end that leaves one LF out, if it is the very first byte."""

    __slots__ = ("_done", "_end")

    def __init__(self, end: End) -> None:
        self._end = end
        self._done = False
        super().__init__(end.sock, end.peer)

    @property
    def pending(self) -> bool:
        """As ``End`` says."""
        return self._end.pending

    def read_into(self, view: memoryview) -> int | None:
        """As ``End`` says."""
        size = self._end.read_into(view)
        self.reads_when_writable = self._end.reads_when_writable
        if not size or self._done:
            return size
        self._done = True
        if view[0] != ord("\n"):
            return size
        view[: size - 1] = bytes(view[1:size])
        return size - 1 or None

    def write(self, data: bytes | memoryview) -> int:
        """As ``End`` says."""
        taken = self._end.write(data)
        self.writes_when_readable = self._end.writes_when_readable
        return taken

    def end_writing(self) -> bool:
        """As ``End`` says."""
        done = self._end.end_writing()
        self.writes_when_readable = self._end.writes_when_readable
        return done

    def close(self) -> None:
        """As ``End`` says."""
        self._end.close()

    def abort(self) -> None:
        """As ``End`` says."""
        self._end.abort()
