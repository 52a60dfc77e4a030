"""The part of a service tree that daemons with an admin door share: signals, door, reports, log level, ports.

Rule of this file: nothing of what a daemon is for; server.py and cameo.py add that.

Source: house.md (services); twisted.md 1.6 and 3.
"""

from functools import partial
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed

from revtunnel.daemons.operations import OPERATIONS
from revtunnel.ground.facts import SettingsReloaded
from revtunnel.process.admin.admin import AdminService
from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.process.admin.daemon_operator import DaemonOperator
from revtunnel.process.admin.operation import Row
from revtunnel.process.process import ExitStatus, SignalService
from revtunnel.process.reporting import Reporter
from revtunnel.process.systemd import Notifier, NotifyService

__all__ = ["AdministeredDaemon"]


class AdministeredDaemon(MultiService):
    """The service tree; also what signals act on (process.Daemon).

    Args:
        options: with ``load``, and with ``observer``, the log, once it is there.
        deadline: seconds that a drain may take.
    """

    def __init__(
        self, reactor: Any, options: Any, exit_status: ExitStatus, notifier: Notifier, deadline: float
    ) -> None:
        super().__init__()
        self.reporter = Reporter()
        self._reactor = reactor
        self._options = options
        self._notifier = notifier
        self._signals = SignalService(reactor, self, exit_status, notifier, deadline=deadline)
        self._listening: list[Any] = []  # ports

    # -- process.Daemon

    def drain(self) -> "Deferred[None]":
        """Take no new ones, let the old end."""
        raise NotImplementedError

    def abort(self) -> None:
        """Cut everything now."""
        raise NotImplementedError

    def reload(self) -> "Deferred[Row]":
        """Read the settings again; wrong ones change nothing."""
        raise NotImplementedError

    # -- for the daemon

    def _tend(self, operator: DaemonOperator, admin: AdminSettings) -> None:
        """Add signals, the admin door and, last, what says READY."""
        operator.known = OPERATIONS
        operator.on_drain = partial(self._signals.stop_requested, "operator")
        operator.on_reload = self.reload
        operator.on_log_level = self._set_log_level
        self._admin = AdminService(self._reactor, operator, admin)
        notify = NotifyService(self._reactor, self._notifier)
        for service in (self._signals, self._admin, notify):
            service.setServiceParent(self)

    def _reloaded(self, live: list[str], restart: list[str], errors: list[str]) -> "Deferred[Row]":
        """Say what a reload came to."""
        self.reporter(SettingsReloaded(tuple(live), tuple(restart), tuple(errors)))
        return succeed({"changed": live, "needs_restart": restart, "errors": errors})

    def _set_log_level(self, level: str) -> None:
        observer = getattr(self._options, "observer", None)
        if observer is not None:
            observer.set_level(level)

    def _stop_listening(self) -> None:
        for port in self._listening:
            port.stopListening()
        self._listening.clear()

    def _places(self, first: int = 0, last: int | None = None) -> str:
        """Where we listen, for people; or at some of the ports only."""
        addresses = [port.getHost() for port in self._listening[first:last]]
        return ", ".join(f"{address.host}:{address.port}" for address in addresses)
