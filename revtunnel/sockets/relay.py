"""Two ends joined: what one reads is written to the other at once, and nothing in between makes objects.

The rules: what the far side does not take is held, at most one reading of it, and the near side is not read
until that is gone. An end of file is passed on behind its bytes, each direction by itself. A cut of either
side is a reset for the other, and what is held is dropped and counted as lost. CLOSED is said only when both
directions ended and the kernel took everything. A turn of the reactor moves a bounded number of bytes each
way, so that a keystroke waits behind one reading of each busy stream and no more.

A reading starts small and doubles while it fills its room and all of it is taken; so only what moves bulk
reads much at once, and a stalled pair holds little. A small message of any connection keeps the readings of
bulk small for a while (measured beside one bulk stream: a ping takes 0.4 ms instead of 1.4). What all pairs
hold is bounded too: when that much is held, every reading is a small one.

Splicing through 1 MiB pipes took the same CPU for one stream as this buffer (0.7 s per GB, two processes)
and 0.4 against 0.6 for 16; it needs two descriptors more for each direction, a pool of enlarged pipes, a
second path for TLS, and still a buffer for what is left in a pipe. Not worth it yet.

Each side is watched (watch.py) from the start to its close, by one system call. So what a reading may have
left, or is not read while the other side holds something, is asked for again; a side that has left while it
is not read is noticed all the same.

Where there is a data plane (data_plane.py), a pair of sockets, plain or TLS, that has had some readings is
handed to it between two events, with what is held; its counters are asked for when they are wanted, and it
is taken back before anything is closed.

Source: performance.md "What a Twisted process can do"; faults.md N4, N5, N26-N29; ours.
"""

import errno
import select
import sys
from collections.abc import Callable
from operator import methodcaller
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.data_plane import CUT, DONE, IS_ENDING, READ_ENDED, WRITE_ENDED, DataPlane, Given
from revtunnel.sockets.end_transport import in_words
from revtunnel.sockets.ends import RECORD, End, said
from revtunnel.sockets.hangups import has_ended, hung_up
from revtunnel.sockets.watch import HANGUPS, OVER, Watch

__all__ = ["Relay"]

LARGEST = 1024 * 1024
_HUNG_UP = ConnectionResetError(errno.ECONNRESET, "it hung up before its stream had ended both ways")
SMALL = 4 * 1024  # bytes of a reading that is a message rather than bulk
_buffer = memoryview(bytearray(LARGEST))  # of all relays: a reading is written or copied before the next


class _All:
    """What the relays of the process know of each other."""

    held = 0  # bytes
    calm = 0  # readings of bulk that are to stay small


_ABORT = methodcaller("abort")  # not End.abort: each kind of end has its own
_CLOSE = methodcaller("close")
_READABLE = select.EPOLLIN | OVER


class Relay:
    """A pair of ends; ``ended(reason, detail)`` is called exactly once, when both are closed.

    That may be inside ``start`` or ``abort``, and otherwise comes from the reactor.
    """

    __slots__ = (
        "_ended",
        "_far",
        "_handle",
        "_near",
        "_patience",
        "_plane",
        "_seen",
        "limits",
        "over",
        "reactor",
        "stays",
        "watch",
    )
    is_plain = True  # it does nothing that a data plane does not

    def __init__(
        self, reactor: Any, near: End, far: End, ended: Callable[[Ended, str], None], limits: RelayLimits
    ) -> None:
        self.reactor = reactor
        self.limits = limits
        self.over = False
        self.watch: Watch | None = None  # once it has begun
        self.stays = sys.maxsize  # readings before the data plane has it
        self._ended = ended
        self._near = _Side(self, near, "near")
        self._far = _Side(self, far, "far")
        self._near.other, self._far.other = self._far, self._near
        self._patience: IDelayedCall | None = None
        self._seen = 0  # bytes moved when that began
        self._plane: DataPlane | None = None
        self._handle: int | None = None  # while the plane has it

    @property
    def to_far(self) -> int:
        """Bytes that the far side's kernel has taken; kept when all is over."""
        self._look()
        return self._far.taken

    @property
    def to_near(self) -> int:
        """Bytes that the near side's kernel has taken; kept when all is over."""
        self._look()
        return self._near.taken

    @property
    def lost(self) -> int:
        """Bytes that were read from one side and cannot be given to the other any more."""
        return self._near.lost + self._far.lost

    @property
    def held(self) -> int:
        """Bytes that were read from one side and not taken by the other yet."""
        return sum(self._look())

    @property
    def held_for_far(self) -> int:
        """Those of the near side."""
        return self._look()[1]

    @property
    def held_for_near(self) -> int:
        """Those of the far side."""
        return self._look()[0]

    @property
    def ended(self) -> tuple[bool, bool]:
        """Whether the end of file came from the near side, and from the far one."""
        self._look()
        return self._near.read_ended, self._far.read_ended

    def start(self, head: bytes = b"", unsent: bytes = b"", sent: int = 0) -> None:
        """Begin; ``head`` is for the near side: bytes that were read from the far one before it came here.

        ``unsent`` is the same for the far one, which has taken ``sent`` bytes before.
        """
        self._far.taken = sent
        for side, early in ((self._near, head), (self._far, unsent)):
            if early and not self.over:
                side.push(memoryview(early))
        if self.is_plain:
            self._plane = DataPlane.for_ends(self.reactor, self._near.end, self._far.end)
            if self._plane is not None:
                self.stays = self._plane.after
                self.hand_over()
        sides = [] if self.over or self._handle is not None else [self._near, self._far]
        for side in sides:
            side.begin()
        for side in sides:
            side.pull_inside()

    def adopt(self, plane: DataPlane, handle: int) -> None:
        """Begin with a pair that the plane has made of the two ends, and has."""
        self._plane, self._handle = plane, handle
        plane.adopted(self, handle)
        self._look()
        self.check()

    def abort(self, reason: Ended, detail: str = "") -> None:
        """End at once: both sides see a reset."""
        if not self.over:
            for side in (self._near, self._far):
                side.end.because(reason)
            self._finish(_ABORT, reason, detail)

    def cut(self, side: "_Side", error: OSError) -> None:
        """One side is gone, so the other goes too."""
        self.abort(Ended.RESET_BY_PEER, f"{side.name}: {said(error)}")

    def pass_end(self, end: End) -> bool:
        """Give a side the other's end of file, behind all its bytes; False: once more when writable."""
        return end.end_writing()

    # -- while the data plane has it

    def hand_over(self) -> None:
        """Have the plane move its bytes from now on, once it has stayed long enough; between two events."""
        if self.stays > 0 or self.over or self._plane is None or self._handle is not None:
            return
        near, far = self._near, self._far
        if near.end.engine is None or far.end.engine is None:
            self.stays = 1
            return
        try:
            self._handle = self._plane.join(self, near.given(), far.given(), self.limits)
        except OSError:  # no memory or no thread: it is as well here
            self._plane, self.stays = None, sys.maxsize
            return
        for side in (near, far):
            side._hold(None)
            if side.end.is_watched:
                Watch.of(self.reactor).leave(side.fileno())
                side.end.is_watched = False

    def told(self, news: int, side: int, number: int) -> None:
        """As data_plane.py says."""
        if news & CUT:
            cut = (self._near, self._far)[side]
            self.cut(cut, cut.end.broken(number))
        elif news & DONE:
            self._finish(_CLOSE, Ended.CLOSED, "")
        else:
            self._look()
            self.check()

    def broke(self, failure: Failure) -> None:
        """Likewise."""
        self.abort(Ended.RESET_BY_PEER, in_words(failure))

    def _look(self) -> tuple[int, int]:
        """Bring the sides up to date; how many bytes are held for near and far."""
        if self._handle is None or self._plane is None:
            return len(self._near.held or b""), len(self._far.held or b"")
        near, far = self._plane.counts(self._handle)
        self._near.became(near[0], near[2])
        self._far.became(far[0], far[2])
        return near[1], far[1]

    def _take_back(self) -> None:
        if self._handle is None or self._plane is None:
            return
        sides, self._handle = self._plane.leave(self._handle), None
        for side, (taken, lost, state, held) in zip((self._near, self._far), sides, strict=True):
            side.became(taken, state)
            side.lost += lost
            if held:
                side.held = memoryview(held)
                _All.held += len(held)

    # -- inside

    def check(self) -> None:
        """A direction has ended or is about to, or the last held bytes have gone."""
        near, far = self._near, self._far
        if self.over or not (near.ending and far.ending):
            return
        if near.write_ended and far.write_ended:
            self._finish(_CLOSE, Ended.CLOSED, "")
        elif self._patience is None:
            self._wait()

    def _wait(self) -> None:
        """Both programs have ended: whoever takes none of the rest for ``flush`` seconds never will."""
        self._seen = self.to_near + self.to_far
        self._patience = self.reactor.callLater(self.limits.flush, self._waited)

    def _waited(self) -> None:
        if self.to_near + self.to_far != self._seen:
            self._wait()
        else:
            self.abort(Ended.STALLED, "the last bytes were not taken")

    def _finish(self, how: Callable[[End], None], reason: Ended, detail: str) -> None:
        self._take_back()
        self.over = True
        if self._patience is not None and self._patience.active():
            self._patience.cancel()
        for side in (self._near, self._far):
            side.leave(how)
        ended, self._ended = self._ended, _said_already
        ended(reason, detail)


def _said_already(reason: Ended, detail: str) -> None:
    """In place of the owner's callback, which is kept no longer than needed."""


class _Side:
    """One end of a pair, as ``Watch`` knows it."""

    __slots__ = (
        "end",
        "ending",
        "fileno",
        "held",
        "lost",
        "name",
        "other",
        "read_ended",
        "relay",
        "room",
        "taken",
        "write_ended",
    )

    other: "_Side"
    fileno: Callable[[], int]  # -1 once closed

    def __init__(self, relay: Relay, end: End, name: str) -> None:
        self.relay = relay
        self.end = end
        self.fileno = end.sock.fileno
        self.name = name
        self.held: memoryview | None = None  # for this side, which does not take it
        self.taken = 0  # bytes, by this side
        self.lost = 0  # bytes for this side that were held when all was cut
        self.room = relay.limits.first  # bytes of the next reading
        self.ending = False  # its end of file is known to come
        self.read_ended = False  # it came
        self.write_ended = False  # the other's end of file was passed on to it

    # -- the reactor calls, by Watch

    def logPrefix(self) -> str:
        """For what Twisted logs."""
        return "relay"

    def doRead(self) -> None:
        """Readable."""
        if self.end.writes_when_readable:
            self.flush()
        self.pull()
        if self.relay.stays < 1:
            self.relay.hand_over()

    def happened(self, event: int) -> None:
        """Anything else than readable alone."""
        if event & select.EPOLLOUT or self.end.writes_when_readable:
            self.flush()
        if self.read_ended or self.other.held is not None:
            self._left(event)
        elif event & _READABLE or self.end.reads_when_writable:
            self.pull(bool(event & OVER))
            if self.read_ended and event & select.EPOLLERR:
                self._left(select.EPOLLERR)  # it was cut behind its end of file
        if self.relay.stays < 1:
            self.relay.hand_over()

    def connectionLost(self, reason: Failure) -> None:
        """An exception of ours, which is logged: nobody knows what of its bytes has gone on."""
        self.relay.abort(Ended.RESET_BY_PEER, f"{self.name}: {in_words(reason)}")

    def _left(self, event: int) -> None:
        """While it is not read: whether it has ended, or was cut, and still is."""
        if self.relay.over or not event & OVER:
            return
        if event & select.EPOLLERR and self.end.was_cut and (error := hung_up(self.end.sock)):
            self.relay.cut(self, error)
        elif event & select.EPOLLRDHUP and has_ended(self.end.sock):
            if self.read_ended and self.end.fin_cuts:
                self.relay.cut(self, _HUNG_UP)
            else:
                self.ending = True
                self.relay.check()

    # -- the data plane's

    def given(self) -> Given:
        """What it is to know of this side."""
        state = READ_ENDED * self.read_ended | WRITE_ENDED * self.write_ended | IS_ENDING * self.ending
        return self.fileno(), state, self.taken, bytes(self.held or b""), self.end.engine or 0

    def became(self, taken: int, state: int) -> None:
        """What it knows now."""
        self.taken = taken
        self.read_ended, self.write_ended = bool(state & READ_ENDED), bool(state & WRITE_ENDED)
        self.ending = bool(state & (READ_ENDED | IS_ENDING))

    # -- bytes

    def pull(self, over: bool = False) -> None:
        """Read once, and give it to the other side; ``over``: its end is said to come, so up to that."""
        end, other, relay, limits = self.end, self.other, self.relay, self.relay.limits
        relay.stays -= 1
        waited = end.reads_when_writable
        while not (self.read_ended or other.held is not None or relay.over):
            room = self.room
            if room > limits.first and _All.calm:
                _All.calm -= 1
                room = limits.first
            if _All.held >= limits.pool:
                room = RECORD
            try:
                size = end.read_into(_buffer[:room])
            except OSError as error:
                relay.cut(self, error)
                return
            if size:
                other.push(_buffer[:size])
                if size < SMALL:
                    if room == limits.first:
                        _All.calm = limits.calm
                elif room - size < RECORD and other.held is None and room == self.room:
                    self.room = min(room * 2, limits.turn)
                if end.slack is None or size >= room - end.slack:
                    self.settle()  # perhaps that was not all
                    over = False
            elif size == 0:
                if end.fin_cuts and not self.write_ended and (self.ending or (over and has_ended(end.sock))):
                    relay.cut(self, _HUNG_UP)
                    return
                self.ending = self.read_ended = True
                other.flush()
            if not (end.pending or (over and size)):
                break
        if waited or end.reads_when_writable:
            self.settle()  # for the one event or for the other
        elif over and other.held is not None:
            self._left(OVER)

    def push(self, data: memoryview) -> None:
        """Write what the other side sent, and hold what is not taken. Nothing is held before."""
        try:
            taken = self.end.write(data)
        except OSError as error:
            self.lost += len(data)
            self.relay.cut(self, error)
            return
        self.taken += taken
        if taken < len(data):
            self.held = memoryview(bytes(data[taken:]))
            _All.held += len(self.held)
            self.other.room = self.relay.limits.first
            self.settle()

    def flush(self) -> None:
        """Write what is held, then the end of file if that is next."""
        if self.relay.over:
            return
        held = self.held is not None
        try:
            if self.held is not None:
                taken = self.end.write(self.held)
                self.taken += taken
                self._hold(self.held[taken:])
            if self.held is None and self.other.read_ended and not self.write_ended:
                is_last = self.read_ended and self.other.write_ended and self.end.close_ends
                self.write_ended = is_last or self.relay.pass_end(self.end)
        except OSError as error:
            self.relay.cut(self, error)
            return
        self.relay.check()
        if self._waits:
            self.settle()
        elif held and not self.relay.over:
            self.other.settle()
            self.other.pull_inside()

    def _hold(self, rest: memoryview | None) -> None:
        """Go on holding what is left of it, if any; the memory is given back as a whole."""
        if self.held is not None and not rest:
            _All.held -= memoryview(self.held.obj).nbytes
        self.held = rest or None

    # -- the watch

    @property
    def _waits(self) -> bool:
        """Whether it has to be written."""
        return self.held is not None or (self.other.read_ended and not self.write_ended)

    def begin(self) -> None:
        """Be told from now on what happens to this side, and what has happened already."""
        watch = self.relay.watch = Watch.of(self.relay.reactor)
        if self.end.is_watched:
            watch.belongs(self)
        else:
            watch.add(self)
            self.end.is_watched = True
        if self._waits:
            self.settle()

    def pull_inside(self) -> None:
        """Pull what is in the end already, of which no event will ever tell."""
        if not self.relay.over and self.end.pending:
            self.pull()

    def settle(self) -> None:
        """Be told once more what is so, and when it can be written, if it waits for that."""
        if self.relay.over or self.relay.watch is None:
            return
        end, events = self.end, HANGUPS
        if not end.reads_when_writable:
            events |= select.EPOLLIN
        if end.reads_when_writable or (self._waits and not end.writes_when_readable):
            events |= select.EPOLLOUT
        self.relay.watch.again(self.fileno(), events)

    def leave(self, how: Callable[[End], None]) -> None:
        """Leave the watch, and close."""
        if self.held is not None:
            self.lost += len(self.held)
            self._hold(None)
        if self.end.is_watched:
            watch = Watch.of(self.relay.reactor)
            self.end.is_watched = False
            (watch.closes if how in (_ABORT, _CLOSE) else watch.leave)(self.fileno())
        how(self.end)
