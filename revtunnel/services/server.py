"""The server daemon: settings become objects, objects become a service tree.

Everything is bound in ``privilegedStartService``, after a daemonising twistd has forked; what cannot be bound
stops the start with one clear line.

Source: house.md (services); twisted.md 1.6 and 3.
"""

import os
import time
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred, succeed

from revtunnel import __version__
from revtunnel.core.facts import ServerState, SettingsReloaded
from revtunnel.core.handshake import ListenerRules, ServerHello
from revtunnel.core.keys import Verifier
from revtunnel.core.leases import Leases
from revtunnel.core.pools import Pool, Use
from revtunnel.net.client_ports import ClientPorts
from revtunnel.net.server_link import AgentListener
from revtunnel.net.switchboard import Switchboard
from revtunnel.services.admin import AdminService
from revtunnel.services.ledger import FILE_NAME, SqliteLedger
from revtunnel.services.operator import Operator, Row
from revtunnel.services.options import ServerOptions as Options
from revtunnel.services.process import ExitStatus, SignalService
from revtunnel.services.reporting import Reporter
from revtunnel.services.settings import ListenerSettings, ServerSettings, SettingsError, changes
from revtunnel.services.state_file import LedgerError
from revtunnel.services.systemd import Notifier, NotifyService

__all__ = ["Options", "Server", "makeService"]

EXPIRY_CHECK = 1.0  # seconds between looks for leases whose time is over


def agent_listener(listener: ListenerSettings, settings: ServerSettings) -> AgentListener:
    """What links of one listener get."""
    link = settings.link
    rules = ListenerRules(
        listener.name,
        legacy=listener.kind == "legacy",
        probe=listener.probe,
        keys_required=listener.keys == "required",
        legacy_serial=listener.serial or "",
    )
    hello = ServerHello(
        name=settings.name,
        software=f"revtunnel {__version__}",
        first_window=link.first_window,
        keepalive=link.keepalive,
        spread=settings.limits.herd_spread,
    )
    return AgentListener(
        rules,
        link,
        hello,
        newest=listener.duplicate == "newest",
        pool=listener.pool,
        heartbeat=listener.heartbeat,
        mappings=tuple(mapping.offer for mapping in listener.mappings),
    )


def pools_of(settings: ServerSettings) -> list[Pool]:
    """The pools of the allocator."""
    return [Pool(pool.name, pool.ranges, pool.bind, pool.quarantine, pool.sticky) for pool in settings.pools]


def reservations_of(settings: ServerSettings) -> dict[Use, int]:
    """Fixed ports: those of [reservations], and those that legacy mappings name."""
    fixed = {Use(entry.serial, entry.target): entry.port for entry in settings.reservations}
    for listener in settings.listeners:
        for mapping in listener.mappings:
            if mapping.client_port:
                fixed[Use(listener.serial or "", mapping.offer.name)] = mapping.client_port
    return fixed


class Server(MultiService):
    """The server's service tree; also what signals act on (process.Daemon)."""

    def __init__(self, reactor: Any, options: Options, exit_status: ExitStatus, notifier: Notifier) -> None:
        super().__init__()
        self.settings = options.settings
        self.reporter = Reporter()
        self._reactor = reactor
        self._options = options
        self._exit = exit_status
        self._notifier = notifier
        self._expiry: Any = None
        self._signals = SignalService(
            reactor, self, exit_status, notifier, deadline=self.settings.limits.drain
        )
        self._listening: list[Any] = []

    # -- starting

    def privilegedStartService(self) -> None:
        self._build()
        self._listen()
        self.switchboard.keep_promises()
        super().privilegedStartService()

    def startService(self) -> None:
        super().startService()
        self._expiry = self._reactor.callLater(EXPIRY_CHECK, self._expire)
        for warning in self.ledger.warnings:
            self.reporter(ServerState("ledger", warning))
        self.reporter(ServerState("ready", self._where()))

    def _build(self) -> None:
        settings = self.settings
        self.ledger = _open_ledger(settings.state_directory)
        now = self._reactor.seconds()
        try:
            self.leases = Leases(pools_of(settings), now, reservations_of(settings), self.ledger)
        except ValueError as error:
            raise SettingsError([str(error)]) from None
        self.ports = ClientPorts(
            self._reactor, self.leases, _refusing(settings), settings.limits.backlog, self._report
        )
        self.switchboard = Switchboard(
            self._reactor,
            self._reactor,
            settings.limits,
            self.ports,
            self._key_of,
            os.urandom,
            self.reporter,
            descriptor_budget(settings),
        )
        self.operator = Operator(
            self._reactor,
            self.switchboard,
            self.leases,
            self.ledger,
            self.reporter,
            settings.name,
            os.urandom,
        )
        self.operator.on_drain = partial(self._signals.stop_requested, "operator")
        self.operator.on_reload = self.reload
        self.operator.on_log_level = self._set_log_level
        self._signals.setServiceParent(self)
        self._add_admin()
        NotifyService(self._reactor, self._notifier).setServiceParent(self)

    def _add_admin(self) -> None:
        self._admin = AdminService(self._reactor, self.operator, self.settings.admin)
        self._admin.setServiceParent(self)

    def _listen(self) -> None:
        for listener in self.settings.listeners:
            self.switchboard.listeners[listener.name] = agent_listener(listener, self.settings)
            factory = self.switchboard.link_factory(listener.name)
            for host, port in listener.address:
                self._listening.append(
                    self._reactor.listenTCP(port, factory, self.settings.limits.backlog, host)
                )

    # -- process.Daemon

    def drain(self) -> "Deferred[None]":
        """Take no new links and clients; fires when the last channel has ended and the rest is closed."""
        self.reporter(ServerState("draining", f"at most {self.settings.limits.drain:g} s"))
        self._stop_listening()
        return self.switchboard.drain().addCallback(self._part)

    def abort(self) -> None:
        """Cut everything now."""
        self._stop_listening()
        self.switchboard.stop()

    def reload(self) -> "Deferred[Row]":
        """Take what changed in the settings and can change live; wrong settings change nothing."""
        try:
            new = self._options.load()
            live, restart = changes(self.settings, new)
            self.leases.reload(pools_of(new), reservations_of(new), self._reactor.seconds())
        except SettingsError as error:
            return self._reloaded([], [], error.errors)
        except ValueError as error:
            return self._reloaded([], [], [str(error)])
        self._take(new)
        return self._reloaded(live, restart, [])

    def stopService(self) -> Any:
        """Close what is open; a drained server has nothing left."""
        if self._expiry is not None and self._expiry.active():
            self._expiry.cancel()
        self.abort()
        self.reporter(ServerState("stopped", ""))
        done = super().stopService()
        self.ledger.close()
        return done

    # -- inside

    def _part(self, _: None) -> "Deferred[None]":
        """Let the agents have their GOAWAY before the process ends."""
        self.switchboard.stop()
        parted: Deferred[None] = Deferred()
        self._reactor.callLater(0.05, parted.callback, None)
        return parted

    def _take(self, new: ServerSettings) -> None:
        """Apply new settings to what runs; listeners that came or went need a restart."""
        self.switchboard.set_limits(new.limits)
        self.ports.refuses = _refusing(new)
        self.switchboard.keep_promises()
        for listener in new.listeners:
            if listener.name in self.switchboard.listeners:
                self.switchboard.listeners[listener.name] = agent_listener(listener, new)
        self._admin.settings = new.admin
        self._signals.deadline = new.limits.drain
        self._set_log_level(new.log_level)
        self.settings = replace(new, listeners=self.settings.listeners)

    def _reloaded(self, live: list[str], restart: list[str], errors: list[str]) -> "Deferred[Row]":
        self.reporter(SettingsReloaded(tuple(live), tuple(restart), tuple(errors)))
        return succeed({"changed": live, "needs_restart": restart, "errors": errors})

    def _set_log_level(self, level: str) -> None:
        observer = getattr(self._options, "observer", None)
        if observer is not None:
            observer.set_level(level)

    def _key_of(self, serial: str) -> Verifier | None:
        key = self.ledger.key_of(serial)
        return Verifier(key.stored_key, key.server_key) if key is not None else None

    def _report(self, fact: Any) -> None:
        self.switchboard.report(fact)

    def _expire(self) -> None:
        self.ports.expire(self._reactor.seconds())
        self._expiry = self._reactor.callLater(EXPIRY_CHECK, self._expire)

    def _stop_listening(self) -> None:
        for port in self._listening:
            port.stopListening()
        self._listening.clear()

    def _where(self) -> str:
        addresses = [port.getHost() for port in self._listening]
        return "agents at " + ", ".join(f"{address.host}:{address.port}" for address in addresses)


def _open_ledger(directory: str | None) -> SqliteLedger:
    path = None
    if directory is not None:
        os.makedirs(directory, mode=0o750, exist_ok=True)
        path = os.path.join(directory, FILE_NAME)
    try:
        return SqliteLedger(path, time.time)
    except LedgerError as error:
        raise OSError(str(error)) from None


def _refusing(settings: ServerSettings) -> dict[str, bool]:
    return {pool.name: pool.absent == "refuse" for pool in settings.pools}


def descriptor_budget(settings: ServerSettings) -> int:
    """How many sockets clients, links and strangers may use together (faults.md N1)."""
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    limits = settings.limits
    return max(1, min(int(most * limits.descriptors), most - limits.descriptors_kept))


def makeService(options: Options) -> IService:
    """The service tree of ``twistd revtunnel-server``."""
    from twisted.internet import reactor

    notifier = Notifier.from_environment(os.environ, os.getpid())
    return Server(reactor, options, ExitStatus(reactor), notifier)
