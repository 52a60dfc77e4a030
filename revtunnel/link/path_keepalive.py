"""What a path bears: how long it may be silent before a proxy or a NAT on it cuts the link.

Rule of this file: only links that were lost within minutes, one after the other and each after about the same
silence, show a path that cuts: a line that is renewed once a day shows none. Such a path is asked after half
of that, from its next link on.

Where kernels probe a silent path (path_signs.py) after more than what its server calls safe, two losses in
such a silence within minutes are enough: it is probed after half of that at most, from the next link on.

Source: faults.md N8, N13; ours.
"""

from collections.abc import Callable, Mapping

__all__ = ["PathKeepalive"]

LOSSES = 3  # in a row
NEAR = 0.8  # of a silence that was to be borne: it was not
WITHIN = 600.0  # seconds
PROBED = " probed"  # behind a path: what its probes must not exceed
SPREAD = 1.5  # times the shortest of these silences the longest may be, and a second


class PathKeepalive:
    """Seconds of silence after which each path is asked, where that is less than its server says.

    Args:
        least: seconds; never less than that.
        known: what was learned before, by path.
        keep: is given everything that is known, whenever that changes.
    """

    def __init__(
        self, least: float, known: Mapping[str, float], keep: Callable[[dict[str, float]], object]
    ) -> None:
        self.least = least
        self._known = dict(known)
        self._keep = keep
        self._lost: dict[
            str, tuple[tuple[float, float], ...]
        ] = {}  # of the last losses in a row: when, silence

    def of(self, path: str) -> float | None:
        """What was learned of a path; None: nothing, it bears what its server says."""
        return self._known.get(path)

    def most(self, path: str, seconds: float) -> float:
        """Seconds of silence that the probes of a path may grow to, where its server says ``seconds``."""
        return min(seconds, self._known.get(path + PROBED, seconds))

    def probe_lost(self, path: str, reason: str, after: float, silence: float, now: float) -> float | None:
        """A link ended whose path was probed ``after`` seconds, ``silence`` after its last sign of life.

        The answer is what its probes may grow to from now on, if that is less.
        """
        path += PROBED
        if reason not in ("lost", "silent") or silence < after * NEAR:
            return None
        before, self._lost[path] = self._lost.get(path, ()), ((now, after),)
        if not before or now - before[0][0] >= WITHIN or before[0][1] > after * SPREAD:
            return None
        del self._lost[path]
        self._known[path] = learned = round(after / 2, 1)
        self._keep(dict(self._known))
        return learned

    def ended(self, path: str, reason: str, silence: float, now: float) -> float | None:
        """A link of ``path`` ended after ``silence`` seconds without a byte: what is learned by that.

        ``silence`` is no more than that after which the link asked: then it was found out by the question.
        What ended on purpose, by its ``reason``, says nothing of the path.
        """
        if reason not in ("lost", "silent"):
            return None
        if silence < 2 * self.least:
            self._lost.pop(path, None)
            return None
        recent = [(at, each) for at, each in self._lost.get(path, ()) if now - at < WITHIN]
        silences = [*(each for _, each in recent), silence]
        if max(silences) > min(silences) * SPREAD + 1:
            recent, silences = [], [silence]
        self._lost[path] = (*recent, (now, silence))
        if len(silences) < LOSSES:
            return None
        del self._lost[path]
        self._known[path] = learned = round(max(self.least, min(silences) / 2), 1)
        self._keep(dict(self._known))
        return learned
