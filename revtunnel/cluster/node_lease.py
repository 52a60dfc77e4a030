"""What a node knows of its own lease: whether the others believe that it is here.

One lease for the node, none for a device: a node that is believed has all its records with it, and one that
is not has none. The table, with what leads from one standing to the next::

    JOINING --granted--> HELD --doubt passed--> DOUBTFUL --length passed--> LOST
                          ^---------renewed---------'--------renewed---------'
    any of them --a later run has this name, or we leave--> LEFT

Rule of this file: a lease is counted from the moment at which its renewal was *asked*, on this process's
own monotonic clock; no clock of another machine is compared with it. Who doubts goes on serving and claims
nothing. Who was not believed for a while asserts all that it has before it is believed again.

Source: next/cluster.md section 2, section 6; issue "Many cores, many nodes" part 1.
"""

from dataclasses import dataclass
from enum import Enum, auto

__all__ = ["DOUBT", "LENGTH", "RENEWED", "NodeLease", "Standing"]

LENGTH = 10.0  # seconds that the engine keeps a lease
RENEWED = 3.0  # seconds between renewals
DOUBT = 0.7  # share of its length after which it is doubtful: two renewals and a deadline


class Standing(Enum):
    """How a node stands with the others."""

    JOINING = auto()  # never had a lease
    HELD = auto()
    DOUBTFUL = auto()  # believed still, but renewals do not come through
    LOST = auto()  # not believed any more; what it had may be at others
    LEFT = auto()  # for good


@dataclass(slots=True)
class NodeLease:
    """One run of one node. Times are monotonic seconds of this process, and never run backwards."""

    length: float = LENGTH
    epoch: int = 0  # which run of this name; given with the first grant
    left: str = ""  # why it left: "left", "replaced"
    asked: float | None = None  # when the renewal was asked that was granted last

    def standing(self, now: float) -> Standing:
        """How it stands at this moment."""
        if self.left:
            return Standing.LEFT
        if self.asked is None:
            return Standing.JOINING
        age = now - self.asked
        if age >= self.length:
            return Standing.LOST
        return Standing.DOUBTFUL if age >= self.length * DOUBT else Standing.HELD

    def may_claim(self, now: float) -> bool:
        """Whether it may take what others could take as well."""
        return self.standing(now) is Standing.HELD

    def granted(self, asked: float, now: float, epoch: int, kept: bool) -> bool:
        """The engine said yes to what was asked then: whether all that is here has to be asserted.

        Args:
            epoch: the run that the engine has of this name.
            kept: the engine had this lease; if not it was empty, or had given us up.
        """
        if self.left:
            return False
        if self.epoch and epoch != self.epoch:
            self.replaced()
            return False
        lapsed = not kept or self.standing(now) in (Standing.JOINING, Standing.LOST)
        self.epoch = epoch
        self.asked = asked if self.asked is None else max(self.asked, asked)
        return lapsed

    def replaced(self) -> None:
        """A later run has this name: this one drains and ends."""
        self.left = self.left or "replaced"

    def leave(self) -> None:
        """This run ends in order."""
        self.left = self.left or "left"
