"""Joined pairs of plain sockets whose bytes a thread moves without Python (``_pump.c``), if it was built.

The rules: a pair begins in the relay (relay.py), which is the specification, and comes here after some
readings, because handing over costs more than a short connection does. From then on Python does nothing for
its bytes; counters and what is held are asked for when somebody wants to know. The sockets stay Python's: the
pump tells that a pair has ended or was cut, and the relay takes it back and closes it in its own ways. What a
relay does beyond that (TLS, WebSocket, sides that stay when the other leaves) never comes here.

The thread is started for the first pair, so behind every fork of a daemon; it never needs the interpreter. Of
``RelayLimits.pool`` the pairs here have one more.

Source: issue 16 "a data plane beside the control plane"; ours.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar
from typing import Protocol as Typing
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReadDescriptor
from twisted.python import log
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.errors import SettingsError
from revtunnel.ground.limits import RelayLimits
from revtunnel.sockets.plane_settings import find_pump

if TYPE_CHECKING:
    from revtunnel._pump import Pump

__all__ = ["CUT", "DONE", "IS_ENDING", "READ_ENDED", "WRITE_ENDED", "DataPlane", "Given", "begin_plane"]

AFTER = 8  # readings of a pair in Python: a question and its answer are two
ENDING, DONE, CUT = 1, 2, 4  # news of a pair, as in _pump.c
READ_ENDED, WRITE_ENDED, IS_ENDING = 1, 2, 4  # state of a side, likewise
Given = tuple[int, int, int, bytes]  # of a side: descriptor, state, bytes it has taken, bytes held for it


class Told(Typing):
    """Whoever has a pair here: its relay."""

    def told(self, news: int, side: int, number: int) -> None:
        """It is about to end, has ended, or was cut: at ``side`` (0 near, 1 far), by that errno."""

    def broke(self, failure: Failure) -> None:
        """That failed, which was logged."""


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
        self._relays: dict[int, Told] = {}
        self._begun = False
        self._dial_told: Callable[[tuple[Any, ...]], None] | None = None
        self._dials_settled: Callable[[], None] | None = None
        self._all[reactor] = self

    @classmethod
    def of(cls, reactor: Any) -> "DataPlane | None":
        """The one of this reactor, if it has any."""
        return cls._all.get(reactor)

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
            self._reactor.addReader(self)
            self._begun = True

    def fetch(self) -> None:
        """Have all told that has happened."""
        while rows := self._pump.take(False):
            self._tell(rows)

    def turn(self) -> None:
        """Without a thread: move what can be moved now."""
        self._pump.turn()

    def close(self) -> None:
        """End the thread; there are no pairs any more."""
        if self._begun:
            self._reactor.removeReader(self)
            self._pump.stop()
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
        dials = False
        for handle, news, side, number, *more in rows:
            relay = self._relays.get(handle)
            try:
                if more and self._dial_told is not None:
                    dials = True
                    self._dial_told(*more)
                elif relay is not None:
                    relay.told(news, side, number)
            except Exception:
                log.err()
                if relay is not None:
                    relay.broke(Failure())
        if dials and self._dials_settled is not None:
            self._dials_settled()

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
