"""The CCCP daemon: devices that register, proxies for them, the control API, and the manners of a daemon.

Source: wire/cccp.md; house.md (services); twisted.md 1.6 and 3.
"""

import os
import time
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred

from revtunnel.daemons.cccp_options import CccpOptions as Options
from revtunnel.daemons.daemon import AdministeredDaemon, until
from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.leases import Leases
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.facts import ServerState
from revtunnel.process.process import ExitStatus
from revtunnel.process.systemd import Notifier
from revtunnel.sockets.listening import Listeners
from revtunnel.state.ledger import open_ledger
from revtunnel.systems.cccp.cccp_operator import CccpOperator
from revtunnel.systems.cccp.cccp_settings import CccpSettings
from revtunnel.systems.cccp.cccp_system import CccpSystem

__all__ = ["Cccp", "Options", "makeService"]

FILE_NAME = "cccp.db"  # in the state directory


class Cccp(AdministeredDaemon):
    """The service tree; also what signals act on (process.Daemon)."""

    settings: CccpSettings

    def __init__(self, reactor: Any, options: Options, exit_status: ExitStatus, notifier: Notifier) -> None:
        super().__init__(reactor, options, exit_status, notifier)
        self.system: CccpSystem

    def privilegedStartService(self) -> None:
        settings = self.settings
        self.ledger = open_ledger(settings.state_directory, FILE_NAME, settings.allow_open_state)
        self.ledger.retries = self.retries
        try:
            self._leases = leases = Leases(settings.part.pools, self._reactor.seconds(), None, self.ledger)
        except ValueError as error:
            raise SettingsError([str(error)]) from None
        leases.until = until
        listeners = Listeners(self._reactor, self.reporter, self.retries)
        self.system = CccpSystem(
            *(
                self._reactor,
                listeners,
                settings.part,
                leases,
                self.ledger,
                self.reporter,
                AccessControl(time.time),
            ),
            settings.relay,
            retries=self.retries,
        )
        self.system.fleet.limits = settings.fleet
        self.system.start()
        operator = CccpOperator(self._reactor, self.system, leases, self.ledger, self.reporter)
        self._tend(operator, settings.admin)
        super().privilegedStartService()

    def startService(self) -> None:
        super().startService()
        for warning in self.ledger.warnings:
            self.reporter(ServerState("ledger", warning))
        self._warn(self.system.identities)
        self.reporter(ServerState("ready", f"devices and callers at {self.system.listening.places}"))

    # -- process.Daemon

    def drain(self) -> "Deferred[None]":
        """Take no new devices, callers and proxies; fires when the last client has gone."""
        self.reporter(ServerState("draining", f"at most {self.settings.drain:g} s"))
        return self.system.drain()

    def abort(self) -> None:
        """Cut everybody now."""
        self.system.stop()

    async def _take(self, new: CccpSettings) -> tuple[list[str], list[str]]:
        """Apply new settings to what runs."""
        projects = self.system.projects_of(new.part)
        try:
            self._leases.reload(new.part.pools, {}, self._reactor.seconds())
        except ValueError as error:
            raise SettingsError([str(error)]) from None
        changed = self.system.take(new.part, new.relay, projects)
        self.system.fleet.limits = new.fleet
        self._warn(self.system.identities)
        await super()._take(new)
        return changed, self.system.open_missing()

    def stopService(self) -> Any:
        """Close what is open."""
        self.abort()
        self.reporter(ServerState("stopped", ""))
        done = super().stopService()
        self.ledger.close()
        return done


def makeService(options: Options) -> IService:
    """The service tree of ``twistd revtunnel-cccp``."""
    from twisted.internet import reactor

    notifier = Notifier.from_environment(os.environ, os.getpid())
    return Cccp(reactor, options, ExitStatus(reactor), notifier)
