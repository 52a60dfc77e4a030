"""Connections as they come: whoever has gone already is dropped before anything is made for him.

The rules: what was accepted in one turn is looked at once, by one system call for all of it.

Who has reset is gone. Who has ended (FIN) behind bytes of his is a client like any other: ``nc -N`` with
input. Who has ended before a byte is a port scan or a health check nearly always, and now and then a program
that only listens; nothing in TCP tells these apart before something is sent. So he is let in, but behind all
others: one in REST seconds, and while MOST wait so the next ones are reset.

Those that were dropped are counted and said once an hour, for they are no fault of anybody's.

Source: issues "10,000 port scans", "what has gone is not served"; ours.
"""

import select
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from revtunnel.ground.facts import LeftEarly, Report
from revtunnel.sockets.ends import End

__all__ = ["Arrivals", "HourlyCount", "Together"]

REST = 0.1  # seconds between two that ended before a byte
MOST = 16  # of them that wait
HOUR = 3600.0  # seconds between two lines about them


class HourlyCount:
    """Counts those who left early at one place; one line an hour, while there are any."""

    def __init__(self, reactor: Any, report: Report, place: str) -> None:
        self._reactor = reactor
        self._report = report
        self._place = place
        self._count = 0
        self._timer: IDelayedCall | None = None

    def add(self) -> None:
        """One more."""
        self._count += 1
        if self._timer is None:
            self._timer = self._reactor.callLater(HOUR, self.say)

    def say(self) -> None:
        """Say how many there were since the last time, now; there is no timer after that."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
        if self._count:
            self._report(LeftEarly(self._place, self._count))
            self._count = 0


class Together:
    """Those who are let in one behind the other, at any listener: what is done once for all of them."""

    def __init__(self) -> None:
        self._calls: list[Callable[[], object]] = []
        self._depth = 0  # whoever is let in may have others let in

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *raised: object) -> None:
        self._depth -= 1
        if self._calls and not self._depth:
            calls, self._calls = self._calls, []
            for call in calls:
                call()

    def then(self, call: Callable[[], object]) -> None:
        """Call this once behind the last of them; at once, if nobody is being let in."""
        if not self._depth:
            call()
        elif call not in self._calls:
            self._calls.append(call)


class Arrivals:
    """Those of one listener; ``let_in`` is given the ends of those who are still there."""

    def __init__(
        self,
        reactor: Any,
        report: Report,
        place: str,
        let_in: Callable[[End], None],
        together: Together | None = None,
    ) -> None:
        self.left = HourlyCount(reactor, report, place)
        self._reactor = reactor
        self._let_in = let_in
        self._together = together or Together()
        self._silent: deque[End] = deque()  # ended before a byte
        self._resting: IDelayedCall | None = None
        self._stopped = False

    def take(self, ends: Sequence[End], listening: socket.socket | None = None) -> bool:
        """Let in who is still there, of those that were accepted; whether more wait at ``listening``."""
        poll = select.poll()
        for end in ends:
            poll.register(end.sock, select.POLLRDHUP)
        if listening is not None:
            poll.register(listening, select.POLLIN)
        events = dict(poll.poll(0)) if ends or listening is not None else {}
        more = listening is not None and listening.fileno() in events
        with self._together:
            for end in ends:
                event = events.get(end.fileno(), 0) if events else 0
                if event & select.POLLERR:
                    self.drop(end)
                elif event and _has_said_nothing(end):
                    self._silent.append(end)
                else:
                    self._let_in(end)
        if self._stopped:  # perhaps by whom we let in
            self._end_silent()
        elif self._silent and self._resting is None:
            self._next()
        while len(self._silent) > MOST:
            self.drop(self._silent.pop())
        return more

    def stop(self) -> None:
        """Nobody is let in any more; who waits is reset."""
        if self._resting is not None and self._resting.active():
            self._resting.cancel()
        self._stopped = True
        self._end_silent()
        self.left.say()

    def _next(self) -> None:
        """Let in one of those who have said nothing."""
        self._resting = None
        if self._silent:
            self._resting = self._reactor.callLater(REST, self._next)
            self._let_in(self._silent.popleft())

    def _end_silent(self) -> None:
        while self._silent:
            self._silent.pop().abort()

    def drop(self, end: End) -> None:
        """One that was cut already."""
        self.left.add()
        end.abort()


def _has_said_nothing(end: End) -> bool:
    """Of one whose end of file has come: whether that is all."""
    try:
        return end.sock.recv(1, socket.MSG_PEEK) == b""
    except OSError:  # reset since
        return True
