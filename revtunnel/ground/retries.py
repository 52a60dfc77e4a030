"""What fails for a reason outside this program is tried again by itself, until it is well or not wanted.

Rule of this file: its begin is said once and its end once, however often it is tried between; ``problems``
has it exactly as long as it lasts. The first new try comes after two seconds, each later one after twice the
time, a minute at most, and each up to a fifth earlier, so that many do not come at once.

Source: issue "What fails once is tried again, and what has gone is not served"; ours.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from revtunnel.ground.errors import SettingsError
from revtunnel.ground.facts import Report, Trouble, TroubleOver

__all__ = ["SETTINGS", "Retries", "earlier", "longer"]

SETTINGS = "settings"  # a reload of them

FIRST = 2.0  # seconds to the first new try; doubles each time
LAST = 60.0  # seconds between tries at most
EARLIER = 0.2  # share of the time that a try may be early


def longer(wait: float) -> float:
    """The seconds to wait after a wait of so many was of no use; 0: the first."""
    return min(max(FIRST, 2 * wait), LAST)


def earlier(wait: float, share: float) -> float:
    """A wait that is shorter by that share of what is allowed."""
    return wait * (1 - EARLIER * share)


@dataclass(slots=True)
class _Failing:
    why: str
    since: float
    again: Callable[[], object]
    quiet: bool
    wait: float = 0.0
    due: Any = None  # the timer; None: it is being tried


class Retries:
    """All that a process tries again, by name. ``random_share`` gives floats in [0, 1)."""

    def __init__(self, clock: Any, report: Report, random_share: Callable[[], float] = random.random) -> None:
        self._clock = clock
        self._report = report
        self._random = random_share
        self._failing: dict[str, _Failing] = {}
        self._stopped = False

    @property
    def problems(self) -> dict[str, str]:
        """What fails now, and why it failed last."""
        return {what: each.why for what, each in sorted(self._failing.items())}

    def failed(self, what: str, why: str, again: Callable[[], object], quiet: bool = False) -> None:
        """It failed: ``again`` is called when it is time, and says in the end ``failed`` or ``well``.

        ``quiet``: whoever failed says it himself.
        """
        if self._stopped:
            return
        failing = self._failing.get(what)
        if failing is None:
            failing = self._failing[what] = _Failing(why, self._clock.seconds(), again, quiet)
            if not quiet:
                self._report(Trouble(what, why))
        failing.why, failing.again = why, again
        if failing.due is None:
            failing.wait = longer(failing.wait)
            delay = earlier(failing.wait, self._random())
            failing.due = self._clock.callLater(delay, self._try, failing)

    def settings_failed(self, error: SettingsError, again: Callable[[], object]) -> None:
        """A reload failed: what may pass by itself is tried again, all else somebody has to mend first."""
        if error.passes:
            self.failed(SETTINGS, error.errors[0], again)
        else:
            self.drop(SETTINGS)

    def well(self, what: str) -> None:
        """It is well, whether it failed before or not."""
        failing = self.drop(what)
        if failing is not None and not failing.quiet:
            self._report(TroubleOver(what, round(self._clock.seconds() - failing.since, 3)))

    def drop(self, what: str) -> _Failing | None:
        """It is not wanted any more."""
        failing = self._failing.pop(what, None)
        if failing is not None and failing.due is not None:
            failing.due.cancel()
        return failing

    def stop(self) -> None:
        """Try nothing any more."""
        self._stopped = True
        for what in [*self._failing]:
            self.drop(what)

    @staticmethod
    def _try(failing: _Failing) -> None:
        failing.due = None
        failing.again()
