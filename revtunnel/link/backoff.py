"""How long an agent stays away before it tries again.

Full jitter: U(0, min(most, first * 2**n)), n counting the failures. A link that came up halves them, one that
lived for a stable minute makes them none; one that fell at once changes nothing, or a server that cuts all
it lets in would see a storm. A try after a lost link is spread over what the server asked for at least, so
that a herd does not return in one second. The longest wait is for servers that say no; one that had us lately
and is not reached now is restarted, and looked for more often, by fewer the larger its herd is.

What a server announces is waited for, and no longer.

Source: faults.md "Thundering herd numbers"; wire/link-extension.md (herd spread); issue "Under attack", 4.
First step 0.5 s: ours.
"""

from collections.abc import Callable

from revtunnel.ground.limits import AgentLimits

__all__ = ["BRIEF", "Backoff"]

BRIEF = 1.0  # seconds that a link must live to be one
LATELY = 600.0  # seconds since its last link, within which a server is looked for more often
SOON = 10.0  # longest wait then, at a spread of a second or less; ten spreads above


class Backoff:
    """Clockless. ``random`` gives floats in [0, 1)."""

    def __init__(self, limits: AgentLimits, random: Callable[[], float]) -> None:
        self.limits = limits
        self._random = random
        self.failures = 0
        self._spread = 1.0  # what the last server asked for

    def after_failure(self, away: float | None = None) -> float:
        """Seconds to wait after a link that did not come up.

        ``away``: seconds since the last one, if none was reached; None: a server said no, or there was none.
        """
        most = self.limits.retry_most
        if away is not None and away < LATELY:
            most = min(most, SOON * max(1.0, self._spread))
        longest = self._longest(most)
        self.failures += 1
        return self._random() * longest

    def after_loss(self, lived: float, spread: float, retry_after: float = 0.0) -> float:
        """Seconds to wait after a link that was up for ``lived`` seconds."""
        self._spread = spread
        if lived >= self.limits.stable:
            self.failures = 0
        elif lived >= BRIEF:
            self.failures //= 2
        if retry_after or self.failures == 0:
            self.failures += 1
            return retry_after + self._random() * spread
        longest = self._longest(self.limits.retry_most)
        self.failures += lived < BRIEF  # the end of another is no failure yet
        return self._random() * max(spread, longest)

    def announced(self, retry_after: float) -> float:
        """Seconds to wait where a server said how long; others that it told so do not come in that second."""
        self.failures += 1
        return retry_after + self._random() * max(1.0, self._spread)

    def _longest(self, most: float) -> float:
        return min(most, self.limits.retry_first * 2.0 ** min(self.failures, 30))
