"""How long an agent stays away before it tries again.

Full jitter: U(0, min(most, first * 2**n)), n counting the failures since the last link that lived for a
stable minute. The first try after a lost link is spread over what the server asked for, so that a herd does
not return in one second; a GOAWAY's retry-after comes on top.

Source: faults.md "Thundering herd numbers"; wire/link-extension.md (herd spread). First step 0.5 s: ours.
"""

from collections.abc import Callable

from revtunnel.ground.limits import AgentLimits

__all__ = ["Backoff"]


class Backoff:
    """Clockless. ``random`` gives floats in [0, 1)."""

    def __init__(self, limits: AgentLimits, random: Callable[[], float]) -> None:
        self.limits = limits
        self._random = random
        self.failures = 0

    def after_failure(self) -> float:
        """Seconds to wait after a link that did not come up."""
        most = min(self.limits.retry_most, self.limits.retry_first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return self._random() * most

    def after_loss(self, lived: float, spread: float, retry_after: float = 0.0) -> float:
        """Seconds to wait after a link that was up for ``lived`` seconds."""
        if lived >= self.limits.stable:
            self.failures = 0
        if retry_after or self.failures == 0:
            self.failures += 1
            return retry_after + self._random() * spread
        return self.after_failure()
