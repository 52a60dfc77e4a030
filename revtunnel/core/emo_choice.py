"""Whether an agent for EMO offers rt1 first: to every server, until one turned out to be an original.

An original server reads eight bytes, gets the four of LISTEN, and hangs up after three seconds. That is paid
once in ``ask_again`` seconds and not with every connection, however often those are made: what counts is when
it was asked last. In between a server that was replaced by one of ours is spoken to in EMO, which it takes.

Source: ours.
"""

from revtunnel.core.policy import EmoLimits

__all__ = ["EmoChoice"]

HUNG_UP = frozenset(("lost", "silent"))  # how a connection ends whose LISTEN nobody knew
DOUBTFUL = "refused"  # or it was our certificate that it did not want, as TLS says it
DOUBT = 60.0  # seconds for which that is believed


class EmoChoice:
    """``mode``: auto or no. Times are monotonic seconds."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self._original_since: float | None = None
        self._believed = float("inf")

    def offers_rt1(self, now: float, limits: EmoLimits) -> bool:
        """Whether the next connection begins with LISTEN."""
        if self.mode != "auto":
            return False
        since = self._original_since
        return since is None or now - since >= min(self._believed, limits.ask_again)

    def is_original(self, reason: str, now: float) -> bool:
        """Whether a server is an original that ended a connection before it was up, with this word."""
        if reason not in HUNG_UP and reason != DOUBTFUL:
            return False
        self._original_since = now
        self._believed = DOUBT if reason == DOUBTFUL else float("inf")
        return True
