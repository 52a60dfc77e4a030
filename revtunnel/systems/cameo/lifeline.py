"""How the programs under CAMEO's names end: with the process that holds the other end of standard input.

The end in order: nobody new, everybody gets what waits for him, for some seconds at most.

Source: wire/cameo.md section 3 (a server that is killed leaves its programs as orphans with the ports).
"""

import contextlib
import gc
import os
import stat
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.systems.cameo.cameo_system import CameoSystem

__all__ = ["Lifeline", "run_until_end"]


@implementer(IReadDescriptor)
class Lifeline:
    """Reads a pipe, whatever comes; ``ended`` is called at its end."""

    def __init__(self, descriptor: int, ended: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._ended = ended
        os.set_blocking(descriptor, False)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "-"

    def doRead(self) -> Any:
        """Twisted calls this: something came, or the end."""
        try:
            if os.read(self._descriptor, 65536):
                return None
        except BlockingIOError:
            return None
        except OSError:  # as good as the end
            pass
        return CONNECTION_DONE

    def connectionLost(self, reason: Failure) -> None:
        """Twisted calls this after the end, and when the reactor has stopped."""
        self._ended()


def run_until_end(reactor: Any, system: CameoSystem, patience: float) -> None:
    """Run the reactor until a signal, or until standard input ends where that is a pipe."""

    def end() -> "Deferred[Any]":
        system.stop_listening()
        done: Deferred[Any] = DeferredList([relay.drain() for relay in system.relays])
        return done.addTimeout(patience, reactor).addErrback(lambda _: None)

    def stop() -> None:
        with contextlib.suppress(ReactorNotRunning):
            reactor.stop()

    reactor.addSystemEventTrigger("before", "shutdown", end)
    reactor.callWhenRunning(gc.freeze)  # what was made so far stays: no collection needs to look at it
    if stat.S_ISFIFO(os.fstat(0).st_mode):
        lifeline = Lifeline(0, stop)
        reactor.callWhenRunning(reactor.addReader, lifeline)
    reactor.run()
