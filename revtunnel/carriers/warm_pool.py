"""How many data sockets of one link should wait for clients: decisions only, no socket and no timer.

The pool follows the load. What it should hold is what clients took of late within twice the time that a new
socket needs to come: with that, a steady stream of clients never waits. A burst is remembered and forgotten
by half every ten seconds. While there are clients now and then, ``warm`` sockets wait at least; a link
without a client for ``warm_idle`` seconds has none, and then nothing of it ticks.

A link whose sockets do not come at all (a firewall, a proxy that admits one connection) is *in doubt*:
nobody waits for them any more, and one socket every ``retry`` seconds is asked for as a test.

The laws, which the tests hold it to: what waits and what was asked for is never more than ``warm_most``; it
is never raised beyond what is wanted; whoever waits has a ticket out, or a reason to be told.

Source: wire/link-extension.md "Data sockets"; performance.md (a handshake belongs off a client's path).
"""

from math import exp

from revtunnel.ground.limits import DataLimits

__all__ = ["WarmPool"]

HALF_LIFE = 10.0  # seconds in which the memory of a burst halves
SHORTEST = 0.1  # seconds over which clients are counted at least
FINE = 0.005  # seconds that are no time
STEP = 5.0  # seconds between looks while sockets wait


class WarmPool:
    """The count of one link's spare sockets. The owner tells what happens and asks what to do."""

    def __init__(self, limits: DataLimits) -> None:
        self.limits = limits
        self.waiting = 0  # clients that have no socket yet
        self.warm = 0  # sockets that have no client
        self.coming = 0  # tickets out
        self.in_doubt = False
        self._level = 0.0  # clients of late, each fading over `_span`
        self._burst = 0.0  # the highest level of late
        self._client_at: float | None = None  # None: standby
        self._looked_at = 0.0
        self._test_at = 0.0  # in doubt: when the next socket is asked for
        self._came_at: float | None = None
        self._refill: float | None = None  # seconds from a ticket to its socket

    # -- what happens

    def client(self, now: float) -> bool:
        """A client came: it takes a socket or waits for one. False: it should not wait, none would come."""
        self._fade(now)
        self._level += 1.0
        self._burst = max(self._burst, self._level)
        self._client_at = now
        return not self.in_doubt

    def expect(self, now: float, spare: float) -> None:
        """One came who may go another way: so many are to wait for others."""
        self._fade(now)
        self._burst = max(self._burst, spare)
        self._client_at = now

    def came(self, now: float, took: float | None = None) -> None:
        """A socket is there, ``took`` seconds after its ticket."""
        self.coming -= 1
        self.warm += 1
        self._came_at = now
        self.in_doubt = False
        if took is not None:
            self._refill = took if self._refill is None else 0.8 * self._refill + 0.2 * took

    def gone(self) -> None:
        """A spare socket is no more: a client took it, it died, or it was closed."""
        self.warm -= 1

    def back(self) -> None:
        """One that a client had taken is spare again."""
        self.warm += 1

    def expired(self, count: int = 1) -> None:
        """Tickets were not used in time."""
        self.coming -= count

    def gave_up(self, since: float, now: float) -> None:
        """A client has waited since then for nothing. If no socket came meanwhile, there will be none."""
        if (self._came_at is None or self._came_at < since) and not self.in_doubt:
            self.in_doubt = True
            self._test_at = now + self.limits.retry

    # -- what to do

    def wanted(self, now: float) -> int:
        """How many sockets there should be, waiting or asked for."""
        return min(self.limits.warm_most, self._spare(now) + self.waiting)

    def missing(self, now: float, room: int) -> int:
        """How many tickets to hand out now; ``room``: sockets that the server can still have."""
        there = self.warm + self.coming
        if self.in_doubt and not self.waiting:
            return self._test(now) if room > 0 and not there else 0
        wanted = self.wanted(now)
        lacking = min(wanted - there, room)
        if lacking <= 0:
            return 0
        uncovered = self.waiting > there and wanted < self.limits.warm_most
        # otherwise by the quarter, so that many clients do not mean as many frames
        return lacking if uncovered or 4 * (wanted - there) >= wanted else 0

    def hand_out(self, count: int) -> None:
        """So many tickets went out."""
        self.coming += count

    def surplus(self, now: float) -> int:
        """How many waiting sockets to close."""
        return max(0, min(self.warm, self.warm + self.coming - self.wanted(now)))

    def due(self) -> float | None:
        """Seconds until the owner should look again; None: nothing waits, nothing is out, nothing ticks."""
        return STEP if self.warm or self.coming or self.waiting else None

    # -- inside

    @property
    def _span(self) -> float:
        return max(SHORTEST, 2 * (self._refill or 0.0))

    def _fade(self, now: float) -> None:
        past = max(0.0, now - self._looked_at)
        if past < FINE:
            return
        self._looked_at = now
        self._level *= exp(-past / self._span)
        self._burst = max(self._level, self._burst * 0.5 ** (past / HALF_LIFE))

    def _stands_by(self, now: float) -> bool:
        """Whether no client came for so long that none is expected."""
        if self._client_at is not None and now - self._client_at >= self.limits.warm_idle:
            self._client_at = None
            self._level = self._burst = 0.0
        return self._client_at is None

    def _spare(self, now: float) -> int:
        """How many should wait, without a client in sight."""
        if self._stands_by(now) or self.in_doubt:
            return 0
        self._fade(now)
        return min(self.limits.warm_most, max(self.limits.warm, round(self._burst)))

    def _test(self, now: float) -> int:
        """In doubt: one socket now and then, whether they come again."""
        if self._stands_by(now) or now < self._test_at:
            return 0
        self._test_at = now + self.limits.retry
        return 1
