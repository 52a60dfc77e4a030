"""Joined pairs of sockets whose bytes a thread moves without Python (``_pump.c``), if it was built.

The rules: a pair begins in the relay (relay.py), which is the specification, and comes here after some
readings, because handing over costs more than a short connection does. From then on Python does nothing for
its bytes; counters and what is held are asked for when somebody wants to know. The sockets stay Python's: the
pump tells that a pair has ended or was cut, and the relay takes it back and closes it in its own ways. What a
relay does beyond that (WebSocket, sides that stay when the other leaves) never comes here. A TLS engine
is the thread's for so long, and nobody else's; where OpenSSL is not found (tls_records.py), TLS stays away.

The thread is started for the first pair, so behind every fork of a daemon; it never needs the interpreter,
and ends before that does. Of ``RelayLimits.pool`` the pairs here have one more.

Source: issue 16 "a data plane beside the control plane"; ours.
"""

import atexit
import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple
from typing import Protocol as Typing
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReadDescriptor
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.errors import SettingsError
from revtunnel.ground.limits import RelayLimits
from revtunnel.sockets.ends import End, PlainEnd, TlsEnd
from revtunnel.sockets.plane_settings import find_pump
from revtunnel.sockets.tls_records import use_functions

if TYPE_CHECKING:
    from revtunnel._pump import Pump

__all__ = [
    "ASKED",
    "BATCH",
    "CUT",
    "DONE",
    "ENDING",
    "GIVEN",
    "IS_ENDING",
    "OPENED",
    "READ_ENDED",
    "UNABLE",
    "WRITE_ENDED",
    "DataPlane",
    "Given",
    "Made",
    "Maker",
    "Told",
    "begin_plane",
]

AFTER = 8  # readings of a pair in Python: a question and its answer are two
BATCH = 64  # news at once, as in _pump.h
ENDING, DONE, CUT = 1, 2, 4  # news of a pair, as there
OPENED, GIVEN, ASKED = 8, 16, 32  # of one that was made there: joined; Python's now; its CONNECT was said
UNABLE = 64  # of whatever accepts there: it does not any more
READ_ENDED, WRITE_ENDED, IS_ENDING = 1, 2, 4  # state of a side, likewise
# of a side: descriptor, state, bytes it has taken, bytes held for it, where its TLS engine is or 0
Given = tuple[int, int, int, bytes, int]


class Told(Typing):
    """Whoever has a pair here: its relay."""

    def told(self, news: int, side: int, number: int) -> None:
        """It is about to end, has ended, or was cut: at ``side`` (0 near, 1 far), by that errno."""

    def broke(self, failure: Failure) -> None:
        """That failed, which was logged."""


class Made(NamedTuple):
    """What Python is told once of a client that was accepted there, or of a data socket that waited there."""

    handle: int
    news: int
    side: int  # that failed, or was cut: 0 the client's, 1 the data socket's
    error: int  # its errno
    maker: int
    number: int  # of its data socket
    descriptors: tuple[int, int]  # of both; -1: none, or closed
    taken: tuple[int, int]  # bytes, by the client and by the data socket
    times: tuple[
        float, float, float
    ]  # seconds since it came; from there until it opened, and ended; -1.0: not
    name: Any  # the client's address, as accept says it
    said: bytes  # what was read of the client before the answer, while there is none
    heard: bytes  # what came of the answer
    unsent: int  # bytes of ``said`` that the data socket did not take


class Maker(Typing):
    """Whoever has a door, or a stock of data sockets, in the plane."""

    def told(self, news: int, side: int, number: int) -> None:
        """News of it, as _pump_doors.c says."""

    def made(self, made: Made) -> None:
        """What came of it."""


@implementer(IReadDescriptor)
class DataPlane:
    """The pairs of one reactor."""

    _all: ClassVar["WeakKeyDictionary[Any, DataPlane]"] = WeakKeyDictionary()

    def __init__(self, reactor: Any, after: int = AFTER, threaded: bool = True) -> None:
        """``threaded``: else nothing moves but in ``turn``, for tests.

        Raises:
            OSError: no descriptors.
            ValueError: the extension was not built.
        """
        pump = find_pump()
        if pump is None:
            raise ValueError("it was not built, for want of a C compiler; see docs/operations.rst")
        self.after = after
        self._reactor = reactor
        self._threaded = threaded
        self._pump = pump()
        self.has_tls = use_functions(self._pump)
        self._relays: dict[int, Told] = {}
        self._makers: dict[int, Maker] = {}
        self._given: deque[tuple[Maker, Made]] = deque()
        self._giving = False
        self._rows: deque[tuple[Any, ...]] = deque()  # fetched, and not told yet
        self._begun = False
        self._dial_told: Callable[[tuple[Any, ...]], None] | None = None
        self._dials_settled: Callable[[], None] | None = None
        self._all[reactor] = self

    @classmethod
    def of(cls, reactor: Any) -> "DataPlane | None":
        """The one of this reactor, if it has any."""
        return cls._all.get(reactor)

    @classmethod
    def for_ends(cls, reactor: Any, *ends: End) -> "DataPlane | None":
        """That one, if it can move bytes between such ends."""
        plane, kinds = cls.of(reactor), {type(end) for end in ends}
        can = plane is not None and kinds <= ({PlainEnd, TlsEnd} if plane.has_tls else {PlainEnd})
        return plane if can else None

    def __len__(self) -> int:
        return len(self._relays)

    def join(self, relay: Told, near: Given, far: Given, limits: RelayLimits) -> int:
        """Move a pair's bytes from now on; its handle. What both have is not watched by anybody else.

        Raises:
            OSError: no memory, descriptors or threads; the pair is as it was.
        """
        self.begin()
        handle = self._pump.join(near, far, (limits.first, limits.turn, limits.calm, limits.pool))
        self._relays[handle] = relay
        return handle

    def counts(self, handle: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Of near and far now: bytes taken, bytes held for it, state."""
        return self._pump.counts(handle)

    def leave(self, handle: int) -> tuple[tuple[int, int, int, bytes], tuple[int, int, int, bytes]]:
        """Take a pair back. Of near and far: bytes taken, bytes lost, state, bytes held for it."""
        del self._relays[handle]
        return self._pump.leave(handle)

    def adopted(self, relay: Told, handle: int) -> None:
        """A pair that was made here is that relay's from now on."""
        self._relays[handle] = relay

    # -- data sockets that an agent brings (carriers/agent_dials.py); what they take is as in _pump_dials.c

    def begin_dials(self, told: Callable[[tuple[Any, ...]], None], settled: Callable[[], None]) -> "Pump":
        """Where they are brought, for one agent; ``told`` has each row, then comes ``settled``."""
        self._dial_told, self._dials_settled = told, settled
        return self._pump

    @property
    def untold(self) -> int:
        """News that was fetched and has not been told yet: this is asked by somebody who is being told."""
        return len(self._rows)

    @property
    def has_dials(self) -> bool:
        """Whether some agent has them already."""
        return self._dial_told is not None

    def begin(self) -> None:
        """Start the thread, if it does not run yet; so behind every fork.

        Raises:
            OSError: there is none.
        """
        if not self._begun:
            if self._threaded:
                self._pump.start()
                atexit.register(self._pump.stop)  # before TLS engines, and OpenSSL itself, go under it
            self._reactor.addReader(self)
            self._begun = True

    def fetch(self, young: bool = False) -> None:
        """Have all told that has happened; ``young``: also of pairs that were made there a moment ago."""
        full = True
        while full:
            rows = self._pump.take(young)
            full = len(rows) == BATCH
            self._tell(rows)

    # -- doors and stocks (carriers/doors.py, carriers/stock.py)

    def lend(self, lent: Callable[["Pump"], int], maker: Maker) -> int:
        """Have something made there, of which the maker is told: its handle.

        Raises:
            OSError: no memory, descriptors or threads.
        """
        self.begin()
        handle = lent(self._pump)
        self._makers[handle] = maker
        return handle

    def take_back(self, handle: int) -> None:
        """It is gone there."""
        del self._makers[handle]

    @property
    def pump(self) -> "Pump":
        """The extension's."""
        return self._pump

    def turn(self) -> None:
        """Without a thread: move what can be moved now."""
        self._pump.turn()

    def close(self) -> None:
        """End the thread; there are no pairs any more."""
        if self._begun:
            self._reactor.removeReader(self)
            self._pump.stop()
            atexit.unregister(self._pump.stop)
        del self._all[self._reactor]

    # -- the reactor calls

    def fileno(self) -> int:
        """Readable when there is news."""
        return self._pump.fileno()

    def logPrefix(self) -> str:
        """For what Twisted logs."""
        return "-"

    def doRead(self) -> None:
        """There is news of some pairs; one may take another back, of which there is none then."""
        self._tell(self._pump.take(False))

    def _tell(self, rows: list[tuple[Any, ...]]) -> None:
        """Tell all, in order, also if somebody who is told fetches more."""
        dials = False
        self._rows.extend(rows)
        while self._rows:
            handle, news, side, number, *more = self._rows.popleft()
            relay = self._relays.get(handle)
            try:
                if len(more) == 1 and self._dial_told is not None:
                    dials = True
                    self._dial_told(*more)
                elif more:
                    self._was_made(Made(handle, news, side, number, *more))
                elif relay is not None:
                    relay.told(news, side, number)
                elif handle in self._makers:
                    self._makers[handle].told(news, side, number)
            except Exception:
                log.err()
                if relay is not None:
                    relay.broke(Failure())
        if dials and self._dials_settled is not None:
            self._dials_settled()
        if not self._giving:
            self._give()

    def _was_made(self, made: Made) -> None:
        """What is to begin anew in Python comes behind all that has begun there."""
        maker = self._makers.get(made.maker)
        if maker is None:  # it has gone without its clients: they are cut
            self._nobodys(made)
        elif made.news & (GIVEN | ASKED) == GIVEN:
            self._given.append((maker, made))
        else:
            maker.made(made)

    def _nobodys(self, made: Made) -> None:
        log.msg(f"nobody has {made.maker:#x}, of which the data plane told: it is closed")
        if made.news & OPENED and not made.news & (DONE | CUT):
            self._pump.leave(made.handle)
        for descriptor in made.descriptors:
            if descriptor >= 0:
                os.close(descriptor)

    def _give(self) -> None:
        self._giving = True
        while self._given:
            maker, made = self._given.popleft()
            try:
                maker.made(made)
            except Exception:
                log.err()
        self._giving = False

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""


def begin_plane(reactor: Any, wanted: str, section: str) -> str:
    """Have a data plane as ``data_plane`` in that section says; which one runs: python or native.

    Raises:
        SettingsError: it cannot be had.
    """
    if wanted == "python" or (wanted == "auto" and find_pump() is None):
        return "python"
    try:
        if DataPlane.of(reactor) is None:
            DataPlane(reactor)
    except (OSError, ValueError) as error:
        raise SettingsError([f"[{section}] data_plane: {wanted}: {error}"]) from None
    return "native"
