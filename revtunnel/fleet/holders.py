"""Whether one serial has two holders: two machines that take its link from each other.

Rule of this file: an agent says in HELLO which run of it this is (``instance``). A run that comes again after
another one had its place shows that both live, however slowly they take turns; the same run coming again is
one machine whose old link is half-open. Of who says no instance only quick swaps count.

Source: faults.md R8 to R10; docs/link-protocol.rst "GOAWAY"; ours.
"""

from revtunnel.ground.limits import FleetLimits

__all__ = ["Holders"]

KEPT = 600.0  # seconds that a conflict is shown behind its last sign, and that a run is remembered
RETURNS = 2  # of runs that had been replaced, within that time
RUNS = 4  # that were replaced and are remembered


class Holders:
    """The swaps of one serial. Times are monotonic seconds."""

    __slots__ = ("_gone", "_returns", "_swaps", "peers", "until")

    def __init__(self) -> None:
        self.until = 0.0  # of the conflict
        self.peers = ("", "")  # of the link that was there, and of the one that came
        self._gone: tuple[bytes, ...] = ()  # runs that were replaced, the last one last
        self._returns: tuple[float, ...] = ()
        self._swaps: tuple[float, ...] = ()

    def swapped(self, old: bytes, new: bytes, now: float, limits: FleetLimits) -> bool:
        """The run ``new`` comes while ``old`` is here: whether that makes two holders; b"": it says none."""
        if old:
            self._gone = (*(each for each in self._gone if each != old), old)[-RUNS:]
        if not new:
            self._swaps = (*(at for at in self._swaps if now - at < limits.duplicate_window), now)
            return len(self._swaps) > limits.duplicate_swaps
        if new in self._gone:
            self._returns = (*(at for at in self._returns if now - at < KEPT), now)
        return len(self._returns) >= RETURNS

    def seen(self, now: float, older: str, newer: str) -> bool:
        """There are two, at these addresses: whether that is news."""
        news, self.until = now >= self.until, now + KEPT
        self.peers = older, newer
        self._swaps = self._returns = ()
        return news

    def shown(self, now: float) -> str:
        """Both addresses, as long as there are two; else nothing."""
        return " and ".join(self.peers) if now < self.until else ""
