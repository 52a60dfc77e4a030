"""The part of a service tree that daemons with an admin socket share: signals, reports, reloads, ports.

Rule of this file: nothing of what a daemon is for; server.py and cameo.py add that.

Source: house.md (services); twisted.md 1.6 and 3.
"""

import time
from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from revtunnel.daemons.all_operations import OPERATIONS
from revtunnel.daemons.schema import SECTIONS
from revtunnel.ground.declared import updated
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.facts import ServerState, SettingsReloaded
from revtunnel.ground.retries import SETTINGS, Retries
from revtunnel.process.admin.admin import AdminService
from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.process.admin.daemon_operator import DaemonOperator
from revtunnel.process.admin.operation_form import Row
from revtunnel.process.process import ExitStatus, SignalService
from revtunnel.process.reporting import Reporter
from revtunnel.process.systemd import Notifier, NotifyService
from revtunnel.trust.identities import Identities

__all__ = ["AdministeredDaemon", "until"]

log = Logger(namespace="revtunnel.daemon")


def until(seconds: float) -> str:
    """When so many seconds from now are over, by the clock of this machine."""
    return time.strftime("until %H:%M:%S", time.localtime(time.time() + seconds))


class AdministeredDaemon(MultiService):
    """The service tree; also what signals act on (process.Daemon).

    Args:
        options: with ``settings``, ``load``, and with ``observer``, the log, once it is there.
    """

    socket_is_beside = True  # the server's, so that ``socket`` in [admin] is not ours

    def __init__(self, reactor: Any, options: Any, exit_status: ExitStatus, notifier: Notifier) -> None:
        super().__init__()
        observer = getattr(options, "observer", None)
        self.reporter = Reporter(None if observer is None else observer.admits)
        self.retries = Retries(reactor, self.reporter)
        self.settings = options.settings
        self._reactor = reactor
        self._options = options
        self._notifier = notifier
        self._signals = SignalService(reactor, self, exit_status, notifier, deadline=self.settings.drain)
        self._reloading = DeferredLock()  # one after the other: the last one has the last word

    # -- process.Daemon

    def drain(self) -> "Deferred[None]":
        """Take no new ones, let the old end."""
        raise NotImplementedError

    def abort(self) -> None:
        """Cut everything now."""
        raise NotImplementedError

    def reload(self) -> "Deferred[Row]":
        """Take what changed in the settings and can change live; wrong settings change nothing."""
        return self._reloading.run(lambda: Deferred.fromCoroutine(self._reload()))

    def take_files(self) -> "Deferred[None]":
        """Read the files again that the settings name, and not the settings."""
        return self._reloading.run(lambda: Deferred.fromCoroutine(self._take_files()))

    def stopService(self) -> Any:
        """Try nothing again any more."""
        self.retries.stop()
        return super().stopService()

    # -- for the daemon

    def _tend(self, operator: DaemonOperator, admin: AdminSettings) -> None:
        """Add signals, the admin socket and, last, what says READY."""
        operator.known = OPERATIONS
        operator.on_drain = partial(self._signals.stop_requested, "operator")
        operator.on_reload = self.reload
        operator.on_log_level = self._set_log_level
        operator.problems = lambda: self.retries.problems
        self._admin = AdminService(self._reactor, operator, admin, self.retries)
        notify = NotifyService(self._reactor, self._notifier)
        for service in (self._signals, self._admin, notify):
            service.setServiceParent(self)

    async def _take(self, new: Any) -> tuple[list[str], list[str]]:
        """Apply new settings to what runs, those that need a restart as they were.

        What changed beside them, and what could not be done, though all the rest is in force.

        Raises:
            SettingsError: they cannot be used; nothing has changed.
        """
        self._admin.settings = new.admin
        self._signals.deadline = new.drain
        self._set_log_level(new.log_level)
        self.settings = new
        return [], []

    # -- inside

    def _reload_again(self) -> None:
        done = self._reloading.run(lambda: Deferred.fromCoroutine(self._reload(again=True)))
        done.addErrback(lambda bug: log.failure("reload failed", bug))

    async def _reload(self, again: bool = False) -> Row:
        live: list[str] = []
        restart: list[str] = []
        errors: list[str] = []
        try:
            pool = self._reactor.getThreadPool()
            new, live, restart = await deferToThreadPool(self._reactor, pool, self._read)
            beside, errors = await self._take(new)
            live += beside
        except SettingsError as error:
            live, restart, errors = [], [], error.errors
            self.retries.settings_failed(error, self._reload_again)
            if again and error.passes:  # that was said
                return {}
        else:
            self.retries.well(SETTINGS)
        self.reporter(SettingsReloaded(tuple(live), tuple(restart), tuple(errors)))
        return {"changed": live, "needs_restart": restart, "errors": errors}

    async def _take_files(self) -> None:
        changed, errors = await self._take(self.settings)
        self.reporter(SettingsReloaded(tuple(changed), (), tuple(errors)))

    def _read(self) -> tuple[Any, list[str], list[str]]:
        """What holds from now on and what it changes: in a thread, for thousands of sections take long."""
        new = self._loaded()
        live, restart = SECTIONS.differences(self.settings, new)
        restart = [each for each in restart if not self.socket_is_beside or each != "[admin] socket"]
        return updated(self.settings, new), live, restart

    def _loaded(self) -> Any:
        """The settings as they are written. SettingsError: they cannot be used."""
        return self._options.load()

    def _set_log_level(self, level: str) -> None:
        observer = getattr(self._options, "observer", None)
        if observer is not None:
            observer.set_level(level)

    def _warn(self, *identities: Identities) -> None:
        """Say what the operator should know of certificate files."""
        for warning in (text for each in identities for text in each.warnings):
            self.reporter(ServerState("certificate", warning))
