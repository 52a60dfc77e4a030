"""Where facts go: one log line each, and to whoever watches.

A watcher that is slow is cut by its own connection, not here. A line of a flood is counted, and nothing is
made of it: most facts are about connections. Source: ground/facts.py.
"""

from collections.abc import Callable
from typing import Any

from twisted.logger import Logger, LogLevel

from revtunnel.ground.facts import Fact, Severity

__all__ = ["Reporter"]

log = Logger(namespace="revtunnel")

_LEVELS = {
    Severity.DEBUG: LogLevel.debug,
    Severity.INFO: LogLevel.info,
    Severity.WARN: LogLevel.warn,
    Severity.ERROR: LogLevel.error,
}


class Reporter:
    """Call it with a fact. ``admits``: whether its line is printed (``LineObserver.admits``), if known."""

    def __init__(self, admits: Callable[[Any, str, Any, str], bool] | None = None) -> None:
        self._admits = admits
        self._watchers: set[Callable[[Fact], None]] = set()

    def __call__(self, fact: Fact) -> None:
        level = _LEVELS[fact.severity]
        if self._admits is None:
            log.emit(level, fact.word, **fact.row())
        elif self._admits(level, fact.word, getattr(fact, "reason", ""), getattr(fact, "serial", "")):
            log.emit(level, fact.word, log_admitted=True, **fact.row())
        for watcher in list(self._watchers):
            watcher(fact)

    def watch(self, watcher: Callable[[Fact], None]) -> Callable[[], None]:
        """Have every fact from now on; call the answer to end it."""
        self._watchers.add(watcher)
        return lambda: self._watchers.discard(watcher)
