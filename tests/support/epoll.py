"""A real reactor of a test's own, turned by the test: for sockets, where memory is no proof.

Rule of this file: nothing waits for a time to pass, ``advance`` lets the reactor's clock go; ``until`` waits
for what must come, and ``settle`` turns until nothing happens, which is for things that must not come.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.python.failure import Failure

from revtunnel.sockets.reactor_turn import shorten_turns

__all__ = ["QUIET", "Loop", "Names", "own_reactor"]

MOST = 40.0  # seconds to wait for what must come
QUIET = 0.03  # seconds without an event after which TCP sockets of this machine count as settled
STOP = 0.1  # seconds of those that pass between two looks at a reactor's clock
TURNS = 5  # turns without an event; enough for a socketpair, where nothing is under way


class Loop:
    """A reactor and its turns."""

    def __init__(self) -> None:
        self.reactor = EPollReactor()
        self._now = self._looked = time.monotonic()
        self.reactor.seconds = self._seconds
        shorten_turns(self.reactor)  # as the daemons do

    def advance(self, seconds: float) -> None:
        """Let the reactor's clock go on at one go; what is due comes with the next turn."""
        self._now += seconds

    def _seconds(self) -> float:
        """The reactor's clock: what a busy machine keeps from us at one go is little of its time."""
        looked = time.monotonic()
        self._now += min(looked - self._looked, STOP)
        self._looked = looked
        return self._now

    def until(self, condition: Callable[[], Any], what: str = "what must come") -> None:
        """Turn until it is so."""
        end = time.monotonic() + MOST
        while not condition():
            assert time.monotonic() < end, f"waited {MOST:g} s for {what}"
            self.reactor.iterate(0.01)

    def wait(self, deferred: "Deferred[Any]") -> Any:
        """What it fires with; raises what it fails with."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        self.until(lambda: results, "a Deferred")
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def ending(self, sock: socket.socket) -> str:
        """How a connection ends, whatever comes before: "end" or "reset"."""
        found: list[str] = []
        sock.setblocking(False)

        def ended() -> bool:
            try:
                while sock.recv(1 << 20):
                    pass
                found.append("end")
            except BlockingIOError:
                return False
            except ConnectionError:
                found.append("reset")
            return True

        self.until(ended, "an ending")
        return found[0]

    def settle(self, seen: Callable[[], Any] = lambda: 0, quiet: float = 0.0) -> None:
        """Turn until ``seen`` has not changed for some turns, and for ``quiet`` seconds.

        Of which we may not have had one: turns count that wait as long.
        """
        since, last, turns = time.monotonic(), seen(), 0
        least = 2 * TURNS if quiet else TURNS
        while turns < least or time.monotonic() < since + quiet:
            self.reactor.iterate(quiet / least)
            turns += 1
            if (now := seen()) != last:
                since, last, turns = time.monotonic(), now, 0


class Names:
    """A resolver that knows what it was told; the reactor's own needs threads, and those a running one."""

    def __init__(self, **answers: list[str]) -> None:
        self.answers = answers

    def resolveHostName(
        self, resolutionReceiver: Any, hostName: str, portNumber: int = 0, **more: object
    ) -> Any:
        """Twisted calls this."""
        resolutionReceiver.resolutionBegan(None)
        for host in self.answers.get(hostName, []):
            resolutionReceiver.addressResolved(IPv4Address("TCP", host, portNumber))
        resolutionReceiver.resolutionComplete()


@contextlib.contextmanager
def own_reactor() -> Iterator[Loop]:
    """A reactor that leaves no descriptor behind."""
    loop = Loop()
    try:
        yield loop
    finally:
        loop.reactor.removeAll()
        loop.reactor._poller.close()
        waker = loop.reactor.waker
        waker.connectionLost(Failure(ConnectionError()))
