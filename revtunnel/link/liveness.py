"""Is the other side still there: when to ask, and when to give up.

A side asks (PING) after ``keepalive`` seconds of silence, sooner while something of its own is unanswered:
data, or a frame that asks for another, such as CONNECT and OPENED. Any byte heard is a sign of life. A
question that stays unanswered ends the link: 25 + 20 s when idle, 5 + 15 s with that in flight. Both sides
ask for themselves, so a path that is dead in one direction only is found by both.

A program that answers nothing while it waits for something else, as a ReadyAgent device does while it dials,
gets ``patience`` instead, as long as its kernel acknowledges what is sent (``unacknowledged``).

Where both ends agreed on it, a segment without a byte is a sign of life too (path_signs.py): then a side asks
when such a segment is overdue, and after ``hung`` seconds without a byte, for the sake of the process.

Source: wire/link-extension.md "Liveness"; wire/readyagent.md section 2; faults.md N8, N13.
"""

from revtunnel.ground.limits import LinkLimits
from revtunnel.link.path_signs import PathSigns

__all__ = ["Liveness"]

TRIPS = 8  # round trips that are measured as soon as there is an occasion


class Liveness:
    """Clockless: the owner calls ``heard``, ``sent``, ``dead``, ``should_ask``, and looks again at ``due``.

    It has to look sooner where ``sent`` makes ``due`` sooner.
    """

    __slots__ = (
        "_asked",
        "_asked_for_trip",
        "_doubts",
        "_heard",
        "_limits",
        "_question",
        "_trips",
        "_unanswered",
        "patience",
        "round_trip",
        "signs",
        "unacknowledged",
    )

    def __init__(self, limits: LinkLimits, now: float, patience: float | None = None) -> None:
        self._limits = limits
        self.patience = patience
        self.unacknowledged = (
            0.0  # seconds without a word of the other kernel, though it owes one; the owner's
        )
        self._heard = now
        self._unanswered: float | None = None  # since when what we sent waits for any sign of life
        self._asked: float | None = None  # since when a question is open
        self._question = 0
        self._doubts = False  # the question is there because no segment came
        self.signs: PathSigns | None = None
        self._asked_for_trip: float | None = None
        self._trips = 0  # answered questions
        self.round_trip: float | None = None  # seconds, the smallest of late; None before the first answer

    def heard(self, now: float) -> None:
        """Bytes came in."""
        self._heard = now
        self._unanswered = None
        if self._asked is not None:
            self._asked = None
            if self._doubts and self.signs is not None and not self.signs.seen:
                self.signs = None  # it lives, and its segments do not reach us
            self._doubts = False

    def sent(self, now: float) -> None:
        """Data went out, or what asks for an answer."""
        if self._unanswered is None:
            self._unanswered = now

    @property
    def heard_at(self) -> float:
        """When the last byte came."""
        return self._heard

    @property
    def keepalive(self) -> float:
        """Seconds without a byte before a question."""
        return self._limits.keepalive if self.signs is None else self._limits.hung

    def may_be_busy(self, now: float, looks: float) -> bool:
        """Whether something waits for an answer, and the owner would look (at ``looks``) too late for it."""
        return self._unanswered is not None and looks > self._unanswered + self._limits.busy_keepalive

    @property
    def _limit(self) -> float:
        return self._limits.answer if self._unanswered is None else self._limits.busy_answer

    def dead(self, now: float) -> bool:
        """Whether a question was open for too long, or nothing of what was sent reached a living kernel."""
        if (
            self.patience is not None
            and self.unacknowledged >= self._limits.keepalive + self._limits.busy_answer
        ):
            return True
        if self._asked is None:
            return False
        waited = now - self._asked
        if self.patience is None or self.unacknowledged >= waited:
            return waited >= self._limit
        return waited >= max(self.patience, self._limit)

    def should_ask(self, now: float) -> bool:
        """Whether it is time for a question; ``ask`` makes one."""
        if self._asked is not None:
            return False
        if self.round_trip is None and self._asked_for_trip is None:
            return True
        if self._unanswered is not None and now - self._unanswered >= self._limits.busy_keepalive:
            return True
        if self.signs is not None and self.signs.silent(self._heard, now):
            return True
        return now - self._heard >= self.keepalive

    @property
    def wants_trip(self) -> bool:
        """Whether to ask once more now: the first round trip, that of a link just up, is a slow one."""
        return 0 < self._trips < TRIPS and self._asked is None and self._asked_for_trip is None

    def ask(self, now: float) -> bytes:
        """Open a question: the 8 bytes that the answer must repeat."""
        self._asked = now
        self._asked_for_trip = now
        self._doubts = self.signs is not None and self.signs.silent(self._heard, now)
        self._question += 1
        return self._question.to_bytes(8, "big")

    def answered(self, payload: bytes, now: float) -> bool:
        """Take an answer; False when nothing was asked or the bytes are not the question's."""
        if self._asked_for_trip is None or payload != self._question.to_bytes(8, "big"):
            return False
        self._trips += 1
        trip = max(now - self._asked_for_trip, 1e-6)
        # the smallest, drifting up slowly, so that a better path is believed at once and a worse one soon
        self.round_trip = trip if self.round_trip is None else min(trip, self.round_trip * 1.25)
        self._asked_for_trip = None
        self._asked = None
        return True

    def due(self, now: float) -> float:
        """When to look again, in seconds from now."""
        limits = self._limits
        times = [self._heard + self.keepalive]
        if self._asked is not None:  # an answer does not set the time anew
            soon = self.keepalive if self.signs is None else self.signs.settle
            times = [self._asked + self._limit, now + soon]
        elif self._unanswered is not None:
            times.append(self._unanswered + limits.busy_keepalive)
        if self.signs is not None and self._asked is None:
            times.append(self.signs.due(self._heard))
        if self.patience is not None:  # its kernel has to be looked at meanwhile
            if self._asked is not None and now - self._asked >= self._limit:
                times = []
            times.append(now + min(limits.busy_keepalive, limits.keepalive))
        return max(0.01, min(times) - now)
