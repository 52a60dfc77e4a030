"""The CAMEO daemon: both relays in one process, their ports, and the manners of a daemon.

Source: wire/cameo.md section 5 (mode "Service"); house.md (services); twisted.md 1.6 and 3.
"""

import os
import socket
from dataclasses import replace
from typing import Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred, DeferredList

from revtunnel.core.cameo_admission import Admission, Door
from revtunnel.core.facts import ServerState
from revtunnel.core.window import CreditPool
from revtunnel.net.lean_reactor import LeanReactor
from revtunnel.net.relays import PublisherRelay, Relay, ResponderRelay
from revtunnel.services.cameo_operator import CameoOperator
from revtunnel.services.cameo_options import CameoOptions as Options
from revtunnel.services.cameo_settings import CameoSettings, cameo_changes
from revtunnel.services.caretaker import Row
from revtunnel.services.daemon import DoorDaemon
from revtunnel.services.inifile import SettingsError
from revtunnel.services.process import ExitStatus
from revtunnel.services.systemd import Notifier

__all__ = ["Cameo", "Options", "makeService"]


class Cameo(DoorDaemon):
    """The service tree; also what signals act on (process.Daemon)."""

    def __init__(self, reactor: Any, options: Options, exit_status: ExitStatus, notifier: Notifier) -> None:
        super().__init__(reactor, options, exit_status, notifier, options.settings.limits.drain)
        settings = self.settings = options.settings
        self.admission = Admission(settings.limits, settings.allow, settings.trusted)
        common = (reactor, settings.limits, self.admission, CreditPool(settings.limits.pool), self.reporter)
        self.responder = ResponderRelay(*common, random_bytes=os.urandom)
        self.publisher = PublisherRelay(*common)
        self.operator = CameoOperator(
            reactor, self.responder, self.publisher, self.reporter, socket.gethostname()
        )
        self._doors: dict[str, Any] = {}  # factories of outside listeners, whose door a reload may change

    # -- starting

    def privilegedStartService(self) -> None:
        self._listen()
        self._tend(self.operator, self.settings.admin)
        super().privilegedStartService()

    def startService(self) -> None:
        super().startService()
        self.reporter(ServerState("ready", f"peers at {self._places()}"))

    def _listen(self) -> None:
        settings = self.settings
        responder, subscriber, publisher = settings.proxy_ports
        lean = LeanReactor(self._reactor, self.reporter)
        main = (
            (responder, self.responder.port(Door(""))),
            (subscriber, self.publisher.subscribers(Door(""))),
            (publisher, self.publisher.publishers(Door("", publishing=True))),
        )
        places = [(host, port, factory) for port, factory in main for host in settings.bind]
        for outside in settings.outside:
            for endpoints, make in (
                (outside.responder, self.responder.port),
                (outside.subscriber, self.publisher.subscribers),
            ):
                factory = make(outside.door)
                self._doors.setdefault(outside.name, []).append(factory)
                places += [(host, port, factory) for host, port in endpoints]
        for host, port, factory in places:
            self._listening.append(lean.listenTCP(port, factory, settings.limits.backlog, host))

    # -- process.Daemon

    def drain(self) -> "Deferred[None]":
        """Take no new connections, give everybody what waits; fires when all are gone."""
        self.operator.leaving = True
        self.reporter(ServerState("draining", f"at most {self.settings.limits.drain:g} s"))
        self._stop_listening()
        return DeferredList([relay.drain() for relay in self._relays()]).addCallback(lambda _: None)

    def abort(self) -> None:
        """Cut everybody now."""
        self._stop_listening()
        for relay in self._relays():
            relay.abort()

    def reload(self) -> "Deferred[Row]":
        """Take what changed in the settings and can change live; wrong settings change nothing."""
        try:
            new = self._options.load()
        except SettingsError as error:
            return self._reloaded([], [], error.errors)
        live, restart = cameo_changes(self.settings, new)
        self._take(new)
        return self._reloaded(live, restart, [])

    def stopService(self) -> Any:
        """Close what is open; drained relays have nothing left."""
        self.abort()
        self.reporter(ServerState("stopped", ""))
        return super().stopService()

    # -- inside

    def _relays(self) -> tuple[Relay, Relay]:
        return self.responder, self.publisher

    def _take(self, new: CameoSettings) -> None:
        """Apply new settings to what runs; ports that came or went need a restart."""
        self.admission.allowed, self.admission.trusted = new.allow, new.trusted
        for relay in self._relays():
            relay.set_limits(new.limits)
        for outside in new.outside:
            for factory in self._doors.get(outside.name, ()):
                factory.door = outside.door
        self._admin.settings = new.admin
        self._signals.deadline = new.limits.drain
        self._set_log_level(new.log_level)
        kept = {name: getattr(self.settings, name) for name in ("proxy_ports", "bind", "log_file")}
        self.settings = replace(new, **kept)


def makeService(options: Options) -> IService:
    """The service tree of ``twistd revtunnel-cameo``."""
    from twisted.internet import reactor

    notifier = Notifier.from_environment(os.environ, os.getpid())
    return Cameo(reactor, options, ExitStatus(reactor), notifier)
