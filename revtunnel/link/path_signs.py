"""Signs of life that are no bytes: the kernel at the agent probes a silent path, both ends see the segments.

A probe, and the answer to it, is a segment without a byte (TCP keepalive): 104 bytes of IP for both, the
same over TLS, and no work for a process. Each end looks now and then whether its kernel has counted more
segments. The agent begins with the time after which it would say PING, and doubles it for every silence that
the path has borne; the server expects the same without being told. Who never saw a segment where one was due,
but was answered when it asked, has a proxy in the way that ends TCP: it asks by PING from then on.

Source: RFC 9293 3.8.4; RFC 5382 REQ-5; tcp_segs_in of Linux; ours.
"""

__all__ = ["PathSigns"]


class PathSigns:
    """Clockless. ``after``: seconds of silence behind which a segment is due; ``most``: what it grows to.

    Args:
        grace: seconds that a probe, or the kernel's timer for it, may be late.
        settle: seconds after the last byte in which its own segments come.
    """

    __slots__ = ("_at", "_counted", "_counted_at", "after", "grace", "most", "seen", "settle")

    def __init__(
        self, first: float, most: float, now: float, grace: float = 10.0, settle: float = 5.0
    ) -> None:
        self.most, self.grace = most, grace
        self.settle = min(settle, first / 2)
        self.after = min(first, most)
        self.seen = False  # whether a segment ever came that no byte explains
        self._at = now
        self._counted = -1
        self._counted_at = float("-inf")

    def counted(self, segments: int, heard: float, now: float) -> bool:
        """What the kernel has counted, -1 where it does not; True: a whole silence was borne.

        ``heard`` is when the last byte came: what is counted from then to the next look says nothing.
        """
        borne = False
        if self._counted_at > heard and segments > self._counted >= 0:
            self._at, self.seen = now - self.grace, True
            borne = now - heard >= self.after
            if borne:
                self.after = min(self.most, self.after * 2)
        self._counted, self._counted_at = segments, now
        return borne

    def last(self, heard: float) -> float:
        """When the last sign of either kind came."""
        return max(heard, self._at)

    def silent(self, heard: float, now: float) -> bool:
        """Whether a segment was due and has not come."""
        return now - self.last(heard) >= self.after + self.grace

    def due(self, heard: float) -> float:
        """When to count next."""
        if self._counted_at <= heard:
            return heard + self.settle
        return self.last(heard) + self.after + self.grace
