"""Certificates of the built-in authority that this server shows itself: made anew in time, for years.

Rule of this file: a certificate stays in force until the new one is on the disk, links that are up go on, and
settings that were edited meanwhile are not its business.

Source: docs/admin.rst "Enrolment"; ours.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure

from revtunnel.daemons.own_authority import renew_own
from revtunnel.daemons.server_settings import ServerSettings
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.retries import Retries

__all__ = ["DAY", "OwnCertificates", "renewing"]

DAY = 86400.0  # seconds between two looks
WHAT = "certificates of [authority]"  # as ``Retries`` knows it


def renewing(reactor: Any, settings: ServerSettings) -> "Deferred[tuple[list[str], list[str]]]":
    """Make those of all listeners anew for which it is time, in a thread: which, and why others cannot be."""
    projects = settings.cccp.projects if settings.cccp is not None else ()
    shown = [each.certificate for each in (*settings.listeners, *settings.web, *projects)]
    pool, now = reactor.getThreadPool(), datetime.now(UTC)
    return deferToThreadPool(reactor, pool, renew_own, settings.authority, shown, now)


class OwnCertificates(Service):
    """Looks at the start, and once a day.

    Args:
        renew: makes those anew for which it is time; which, and why others cannot be made.
        take: lets them count from the next connection on. SettingsError: not now.
    """

    def __init__(
        self,
        reactor: Any,
        renew: "Callable[[], Deferred[tuple[list[str], list[str]]]]",
        take: "Callable[[], Deferred[Any]]",
        retries: Retries,
    ) -> None:
        self._reactor = reactor
        self._renew = renew
        self._take = take
        self._retries = retries
        self._waiting: IDelayedCall | None = None
        self._untaken = False  # one was made, and is not in force yet

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
        Deferred.fromCoroutine(self._renewed()).addErrback(self._failed)

    async def _renewed(self) -> None:
        anew, errors = await self._renew()
        self._untaken = self._untaken or bool(anew)
        if self._untaken and self.running:
            await self._take()
            self._untaken = False
        if errors:
            raise SettingsError(errors)
        self._retries.well(WHAT)
        self._later(DAY)

    def _failed(self, failure: Failure) -> None:
        """Tried again sooner than the next day."""
        failure.trap(SettingsError)
        if self.running:
            self._retries.failed(WHAT, str(failure.value), self._look)
