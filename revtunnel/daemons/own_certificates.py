"""Certificates of the built-in authority that this server shows itself: made anew in time, for years.

Rule of this file: a certificate stays in force until the new one is on the disk, links that are up go on, and
settings that were edited meanwhile are not its business.

Source: docs/admin.rst "Enrolment"; ours.
"""

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from revtunnel.ground.errors import SettingsError
from revtunnel.ground.retries import Retries

__all__ = ["DAY", "OwnCertificates"]

DAY = 86400.0  # seconds between two looks
WHAT = "certificates of [authority]"  # as ``Retries`` knows it


class OwnCertificates(Service):
    """Looks at the start, and once a day.

    Args:
        renew: makes those anew for which it is time, and says which. SettingsError: one cannot be made.
        take: lets them count from the next connection on.
    """

    def __init__(
        self,
        reactor: Any,
        renew: "Callable[[], Deferred[list[str]]]",
        take: "Callable[[], Deferred[Any]]",
        retries: Retries,
    ) -> None:
        self._reactor = reactor
        self._renew = renew
        self._take = take
        self._retries = retries
        self._waiting: IDelayedCall | None = None

    def startService(self) -> None:
        """A server that was off for long may need one at once."""
        super().startService()
        self._later(0)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._waiting is not None and self._waiting.active():
            self._waiting.cancel()

    def _later(self, delay: float) -> None:
        if self.running:
            self._waiting = self._reactor.callLater(delay, self._look)

    def _look(self) -> None:
        self._renew().addCallback(self._made).addErrback(self._failed)

    def _made(self, anew: list[str]) -> "Deferred[Any] | None":
        self._retries.well(WHAT)
        self._later(DAY)
        return self._take() if anew and self.running else None

    def _failed(self, failure: Failure) -> None:
        """Tried again sooner than the next day."""
        failure.trap(SettingsError)
        if self.running:
            self._retries.failed(WHAT, str(failure.value), self._look)
