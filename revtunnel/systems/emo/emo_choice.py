"""Whether an agent for EMO offers rt1 first: to every server, until one turned out to be an original.

An original server reads eight bytes, which are LISTEN with its filler, knows them not and hangs up. One of
ours that is overloaded, stopping, or wants another certificate may hang up too, and either can be replaced by
the other: so the question is put again, at the price of one more connection, with the first one that is made
``ask_again`` seconds later. In between EMO is spoken, which both take.

Source: ours; wire/emo.md section 1.
"""

from revtunnel.ground.limits import EmoLimits
from revtunnel.ground.targets import Offer, Target

__all__ = ["PREFIX", "EmoChoice", "modern_offer"]

PREFIX = "emo-"
HUNG_UP = frozenset(("lost", "silent", "refused"))  # how a connection ends whose LISTEN nobody knew


def modern_offer(port: int, target: Target) -> Offer:
    """What an agent offers that would register ``port``."""
    return Offer(f"{PREFIX}{port}", target)


class EmoChoice:
    """``mode``: auto or no. Times are monotonic seconds."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self._original_since: float | None = None

    def offers_rt1(self, now: float, limits: EmoLimits) -> bool:
        """Whether the next connection begins with LISTEN."""
        since = self._original_since
        return self.mode == "auto" and (since is None or now - since >= limits.ask_again)

    def is_original(self, reason: str, now: float) -> bool:
        """Whether a server is an original, by how it ended a connection before it was up."""
        if reason not in HUNG_UP:
            return False
        self._original_since = now
        return True
