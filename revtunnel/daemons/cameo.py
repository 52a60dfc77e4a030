"""The CAMEO daemon: both relays in one process, their ports, and the manners of a daemon.

Source: wire/cameo.md section 5 (mode "Service"); house.md (services); twisted.md 1.6 and 3.
"""

import os
import socket
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred, DeferredList

from revtunnel.daemons.cameo_options import CameoOptions as Options
from revtunnel.daemons.daemon import AdministeredDaemon
from revtunnel.ground.facts import ServerState
from revtunnel.process.process import ExitStatus
from revtunnel.process.systemd import Notifier
from revtunnel.systems.cameo.cameo_operator import CameoOperator
from revtunnel.systems.cameo.cameo_settings import CameoSettings
from revtunnel.systems.cameo.cameo_system import CameoSystem

__all__ = ["Cameo", "Options", "makeService"]


class Cameo(AdministeredDaemon):
    """The service tree; also what signals act on (process.Daemon)."""

    settings: CameoSettings

    def __init__(self, reactor: Any, options: Options, exit_status: ExitStatus, notifier: Notifier) -> None:
        super().__init__(reactor, options, exit_status, notifier)
        self.system = CameoSystem(reactor, self.settings, self.reporter, self.retries)
        self.operator = CameoOperator(
            reactor, self.system.responder, self.system.publisher, self.reporter, socket.gethostname()
        )

    # -- starting

    def privilegedStartService(self) -> None:
        self.system.start()
        self._tend(self.operator, self.settings.admin)
        super().privilegedStartService()

    def startService(self) -> None:
        super().startService()
        self.reporter(ServerState("ready", f"peers at {self.system.listening.places}"))

    # -- process.Daemon

    def drain(self) -> "Deferred[None]":
        """Take no new connections, give everybody what waits; fires when all are gone."""
        self.operator.leaving = True
        self.reporter(ServerState("draining", f"at most {self.settings.drain:g} s"))
        self.system.stop_listening()
        return DeferredList([relay.drain() for relay in self.system.relays]).addCallback(lambda _: None)

    def abort(self) -> None:
        """Cut everybody now."""
        self.system.stop_listening()
        for relay in self.system.relays:
            relay.abort()

    def stopService(self) -> Any:
        """Close what is open; drained relays have nothing left."""
        self.abort()
        self.reporter(ServerState("stopped", ""))
        return super().stopService()

    # -- inside

    async def _take(self, new: CameoSettings) -> tuple[list[str], list[str]]:
        """Apply new settings to what runs."""
        missing = self.system.take(new)
        await super()._take(new)
        return [], missing


def makeService(options: Options) -> IService:
    """The service tree of ``twistd revtunnel-cameo``."""
    from twisted.internet import reactor

    notifier = Notifier.from_environment(os.environ, os.getpid())
    return Cameo(reactor, options, ExitStatus(reactor), notifier)
