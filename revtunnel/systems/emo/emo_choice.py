"""Whether an agent for EMO offers rt1 first: to every server, until one turned out to be an original.

An original server reads eight bytes, gets the four of LISTEN, and hangs up after three seconds. That is paid
once in ``ask_again`` seconds and not with every connection, however often those are made: what counts is when
it was asked last. In between a server that was replaced by one of ours is spoken to in EMO, which it takes.
One that hangs up at once may be one of ours that is overloaded, stopping, or wants another certificate; that
is believed for a minute.

Source: ours.
"""

from revtunnel.ground.limits import EmoLimits

__all__ = ["EmoChoice"]

HUNG_UP = frozenset(("lost", "silent", "refused"))  # how a connection ends whose LISTEN nobody knew
PATIENT = 1.0  # seconds after which a server that hangs up did not do so at once
DOUBT = 60.0  # seconds for which one that did is taken for an original


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

    def is_original(self, reason: str, lasted: float, now: float) -> bool:
        """Whether a server is an original: it ended a connection before it was up, after so many seconds."""
        if reason not in HUNG_UP:
            return False
        self._original_since = now
        self._believed = DOUBT if lasted < PATIENT else float("inf")
        return True
