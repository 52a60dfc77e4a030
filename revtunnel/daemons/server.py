"""The server daemon: settings become objects, objects become a service tree.

Everything is bound in ``privilegedStartService``, after a daemonising twistd has forked; what cannot be bound
stops the start with one clear line.

Source: house.md (services); twisted.md 1.6 and 3.
"""

import os
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService
from twisted.internet.defer import Deferred

from revtunnel import __version__
from revtunnel.daemons.absent_devices import AbsentDevices
from revtunnel.daemons.daemon import AdministeredDaemon, until
from revtunnel.daemons.legacy_devices import fixed_ports, offers_at, sources_at
from revtunnel.daemons.operator import Operator
from revtunnel.daemons.options import ServerOptions as Options
from revtunnel.daemons.server_doubts import doubts
from revtunnel.daemons.settings_parts import ListenerSettings, ServerSettings, agents_at
from revtunnel.daemons.switchboard import Switchboard
from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.client_ports import ClientPorts
from revtunnel.fleet.leases import Leases
from revtunnel.fleet.penalties import Penalties
from revtunnel.fleet.pools import Pool, Use
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.facts import LinkRefused, ServerState
from revtunnel.ground.limits import PeopleLimits, ServerLimits
from revtunnel.ground.networks import is_loopback
from revtunnel.link.handshake import ListenerRules, ServerHello
from revtunnel.link.keys import DUMMY, Verifier
from revtunnel.link.server_link import AgentListener
from revtunnel.process.process import ExitStatus
from revtunnel.process.systemd import Notifier
from revtunnel.sockets.listening import Came, Listeners
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.sockets.ways.proxy_protocol import ProxyHeaders, Refused
from revtunnel.sockets.ways.trusted_proxies import HeaderRules, SenderSettings, header_rules
from revtunnel.state.audit_file import AuditFile, Sync
from revtunnel.state.ledger import FILE_NAME, open_ledger
from revtunnel.state.session_audit import SessionAudit
from revtunnel.streams.commands import Feature
from revtunnel.systems.emo.emo_server import EmoServerLink
from revtunnel.systems.emo.emo_stream import EmoListener
from revtunnel.trust.authority import Unfit
from revtunnel.trust.certificate_book import CertificateBook
from revtunnel.trust.identities import Identities, merged
from revtunnel.trust.issuer import Issuer
from revtunnel.trust.mutes import Mutes
from revtunnel.trust.people_book import open_people
from revtunnel.trust.people_operator import PeopleOperator

if TYPE_CHECKING:
    from revtunnel.daemons.web_system import WebSystem
    from revtunnel.process.web.web_listener import WebListener
    from revtunnel.systems.cccp.cccp_system import CccpSystem

__all__ = ["Options", "Server", "makeService"]

DOUBT = "who is enrolled or revoked is in doubt; see Enrolment in docs/admin.rst, take it away, reload"
_FEATURES = Feature.ORIGIN | Feature.SESSIONS | Feature.SERVICES
EXPIRY_CHECK = 1.0  # seconds between looks for leases whose time is over


def agent_listener(
    listener: ListenerSettings,
    settings: ServerSettings,
    identity: Identity | None = None,
    doubt: bool = False,
    machines: dict[int, Any] | None = None,
) -> AgentListener:
    """What links of one listener get.

    ``doubt``: who is enrolled is not known (``SqliteLedger.doubtful``); ``machines``: of EMO, that are here.
    """
    link = settings.link
    wide = any(not is_loopback(host) for host, _ in listener.address)
    rules = ListenerRules(
        listener.name,
        legacy=listener.kind == "legacy",
        probe=listener.probe,
        keys_required=listener.keys == "required" or (doubt and wide),
        legacy_serial=listener.serial or "",
        sources=sources_at(settings, listener),
    )
    hello = ServerHello(
        name=settings.name,
        software=f"revtunnel {__version__}",
        first_window=link.first_window,
        keepalive=link.keepalive,
        spread=settings.limits.herd_spread,
        features=_FEATURES | (Feature(0) if listener.data == "link" else Feature.DATA_SOCKETS),
    )
    return AgentListener(
        rules,
        link,
        hello,
        newest=listener.duplicate == "newest",
        pool=listener.pool,
        heartbeat=listener.heartbeat,
        mappings=offers_at(settings, listener),
        data=listener.data,
        identity=identity,
        certified_only=listener.certified,
        make=partial(EmoServerLink, emo_listener(settings, machines)) if listener.kind == "emo" else None,
    )


def agents_by_web(settings: ServerSettings) -> list[ListenerSettings]:
    """Web listeners that are listeners for agents too."""
    return [agents_at(each) for each in settings.web if each.agents]


def emo_listener(settings: ServerSettings, machines: dict[int, Any] | None) -> EmoListener:
    """The machines of EMO: every reservation of a target that is called emo."""
    ports = {each.port: (each.serial, each.target) for each in settings.reservations if each.target == "emo"}
    return EmoListener(ports, settings.emo, {} if machines is None else machines)


def pools_of(settings: ServerSettings) -> list[Pool]:
    """The pools of the allocator, each with the addresses that mappings of legacy devices name."""
    elsewhere = {
        each.client_port: each.client_host for _, each, _ in fixed_ports(settings) if each.client_host
    }
    pools = [replace(pool.pool, elsewhere=elsewhere) for pool in settings.pools]
    return pools + (settings.cccp.pools if settings.cccp is not None else [])


def reservations_of(settings: ServerSettings) -> dict[Use, int]:
    """Fixed ports: those of [reservations], and those that legacy mappings name."""
    fixed = {Use(entry.serial, entry.target): entry.port for entry in settings.reservations}
    return fixed | {use: mapping.client_port for _, mapping, use in fixed_ports(settings)}


class Server(AdministeredDaemon):
    """The server's service tree; also what signals act on (process.Daemon)."""

    socket_is_beside = False
    settings: ServerSettings

    def __init__(self, reactor: Any, options: Options, exit_status: ExitStatus, notifier: Notifier) -> None:
        super().__init__(reactor, options, exit_status, notifier)
        self._listeners = Listeners(reactor, self._report, self.retries)
        self._headers = ProxyHeaders(reactor, lambda: self.settings.limits.pending)
        self._expiry: Any = None
        self.web: WebSystem | None = None
        self._agent_ports = 0  # ports for agents among those we listen at
        self.cccp: CccpSystem | None = None
        self._emo_machines: dict[int, Any] = {}  # command sockets by the port they registered

    # -- starting

    def privilegedStartService(self) -> None:
        self._build()
        self._listen()
        if self.cccp is not None:
            self.cccp.start()
        if self.web is not None:
            self.web.start()
        self.switchboard.enforcement.keep_promises()
        super().privilegedStartService()

    def startService(self) -> None:
        super().startService()
        self._expiry = self._reactor.callLater(EXPIRY_CHECK, self._expire)
        self.absent.start(self.operator.enrolled_devices())
        for warning in (*self.ledger.warnings, *self.people_book.warnings):
            self.reporter(ServerState("ledger", warning))
        if self.ledger.doubtful is not None:
            self.reporter(ServerState("ledger", f"{self.ledger.doubtful}: {DOUBT}"))
        for warning in doubts(self.settings):
            self.reporter(ServerState("settings", warning))
        self._warn(*self._all_identities())
        people = f"; people at {self._places(self._agent_ports)}" if self.web is not None else ""
        self.reporter(ServerState("ready", f"agents at {self._places(0, self._agent_ports)}{people}"))

    def _build(self) -> None:
        settings = self.settings
        self.ledger = open_ledger(settings.state_directory, FILE_NAME, settings.allow_open_state)
        self.ledger.retries = self.retries
        book, clock = CertificateBook(self.ledger), self._reactor.seconds
        self.issuer = Issuer(book, settings.authority.limits, clock, os.urandom, self.reporter)
        self.issuer.retries = self.retries
        self._load_authority(settings)
        self._identities = self._read_identities(settings)
        try:
            self.leases = Leases(pools_of(settings), clock(), reservations_of(settings), self.ledger)
        except ValueError as error:
            raise SettingsError([str(error)]) from None
        self.ports = ClientPorts(
            self._listeners.listen, self.leases, _refusing(settings), settings.limits.backlog, self._report
        )
        self.leases.until = until
        self.ports.behind = self._behind
        self.switchboard = Switchboard(
            self._reactor,
            self._reactor,
            settings.limits,
            self.ports,
            self._key_of,
            os.urandom,
            self.reporter,
            descriptor_budget(settings),
            AccessControl(
                time.time, settings.records, Penalties(settings.penalties, settings.penalties.exempt)
            ),
        )
        self.switchboard.data.take(settings.data, settings.relay)
        self._build_people(settings)
        self.operator = Operator(
            self._reactor,
            self.switchboard,
            self.leases,
            self.ledger,
            self.issuer,
            self.reporter,
            settings.name,
            os.urandom,
            PeopleOperator(
                self.people, self.grants, time.time, os.urandom, self.audit.changed, self._labels_of
            ),
            self.mutes,
            self.audit,
        )
        self.switchboard.admission.issue = self.issuer.answer
        self.switchboard.admission.used = self.issuer.used
        self.issuer.cut_off = partial(self.operator.cut_off, by="two_renewals")
        self.absent = AbsentDevices(self._reactor, self.switchboard, self._report)
        self.absent.take(settings)
        self._build_cccp(settings)
        self._build_web(settings)
        self._tend(self.operator, settings.admin)

    def _build_people(self, settings: ServerSettings) -> None:
        """Who may what by name, as the ledger has it, and the file that tells who did."""
        mine, file = settings.audit, None
        if mine.file is not None:
            try:
                program = f"revtunnel-server {__version__}"
                file = AuditFile(mine.file, program, mine.limits, Sync(mine.sync), time.time)
            except OSError as error:
                raise SettingsError([f"[audit] file: {mine.file}: {error.strerror or error}"]) from None
        self.audit = SessionAudit(self._reactor, file, self.reporter, time.time, mine.full == "refuse")
        self.audit.retries = self.retries
        self.people, self.grants, self.people_book = open_people(PeopleLimits(), self.ledger)
        self.mutes = Mutes(self.ledger, time.time, self.audit.changed)

    def _labels_of(self, serial: str) -> tuple[str, ...]:
        return self.switchboard.access.records.of(serial).labels

    def _build_cccp(self, settings: ServerSettings) -> None:
        """CCCP beside the rest, with the same ports, penalties and ledger."""
        if settings.cccp is None:
            return
        # with twisted.web 70 ms of CPU, which a server without CCCP spares
        from revtunnel.systems.cccp.cccp_operator import CccpRows
        from revtunnel.systems.cccp.cccp_system import CccpSystem
        from revtunnel.systems.cccp.idle_devices import SYSTEM

        board = self.switchboard
        self.cccp = CccpSystem(
            *(
                self._reactor,
                self._listeners,
                settings.cccp,
                self.leases,
                self.ledger,
                self._report,
                board.access,
            ),
            *(settings.relay, board.fleet, board.client_streams.clients_by_name),
            *(board.streams, board.next_stream, self.issuer.book.revoked),
            retries=self.retries,
        )
        self.operator.wires[SYSTEM] = rows = CccpRows(self.cccp, self.operator.at)
        self.operator.linked.granted = rows.grants
        self.reporter.watch(self.cccp.told)

    def _build_web(self, settings: ServerSettings) -> None:
        """Where people come in for remote sessions."""
        if not settings.web:
            return
        from revtunnel.daemons.web_system import WebSystem

        self.web = WebSystem(
            *(self._reactor, settings, self.switchboard, self.people, self.grants, self.mutes, self.audit),
            *(self.operator.app_keys, os.urandom, self.operator.at),
        )
        self.operator.remote.live = self.web.live
        self.operator.wires["remote"] = self.web.rows
        others = self.operator.linked.granted
        mine = self.web.rows.grants
        self.operator.linked.granted = lambda serial, client: others(serial, client) or mine(serial, client)

    def _load_authority(self, settings: ServerSettings) -> None:
        """Take the authority as its files are now.

        Raises:
            SettingsError: there is one, and it cannot be used.
        """
        mine = settings.authority
        try:
            self.issuer.load(mine.directory, mine.device_days, mine.limits)
        except Unfit as error:
            raise SettingsError([f"[authority] directory: {error}"], passes=True) from None
        self.issuer.ends_forks = mine.two_renewals == "revoke"

    def _read_identities(self, settings: ServerSettings) -> Identities:
        """The certificates of all listeners. SettingsError: their files cannot be used."""
        return Identities(self.issuer.revoked).read(settings.listeners, self.issuer.is_set_up)

    def _all_identities(self) -> list[Identities]:
        return [self._identities, *(each.identities for each in (self.web, self.cccp) if each is not None)]

    def _agent_listener(self, listener: ListenerSettings, settings: ServerSettings) -> AgentListener:
        doubt = self.ledger.doubtful is not None
        return agent_listener(
            listener, settings, self._identities.of(listener.name), doubt, self._emo_machines
        )

    def _listen(self) -> None:
        for listener in self.settings.listeners:
            self.switchboard.listeners[listener.name] = self._agent_listener(listener, self.settings)
            came = self._headers.behind(
                self.switchboard.agents(listener.name),
                _header_rules(listener, self.settings.limits),
                partial(self._not_let_in, listener.name),
            )
            for host, port in listener.address:
                name, backlog = f"[listener {listener.name}]", self.settings.limits.backlog
                self._listening.append(
                    self._listeners.keep(name, host, port, backlog, came, must=True, they_begin=True)
                )
                if listener.tls and not self.operator.link_port:
                    self.operator.link_port = self._listening[-1].port
            if listener.tls and listener.device_certificates != "no":
                self.operator.others_certify = True
        for listener in agents_by_web(self.settings):
            self.switchboard.listeners[listener.name] = self._agent_listener(listener, self.settings)
        self._agent_ports = len(self._listening)
        if self.web is not None:
            self._listen_for_people(self.web.listener)

    def _listen_for_people(self, listener: "WebListener") -> None:
        limits = self.settings.limits
        for each in self.settings.web:
            refused = partial(listener.not_let_in, each.name)
            people = partial(listener.came, each.name)
            came = self._headers.behind(people, _header_rules(each, limits), refused)
            for host, port in each.address:
                name = f"[web {each.name}]"
                self._listening.append(
                    self._listeners.keep(name, host, port, limits.backlog, came, they_begin=True)
                )

    def _behind(self, came: Came, pool: str, refused: Refused) -> Came:
        """What listens for the clients of a pool."""
        pools = (each for each in self.settings.pools if each.name == pool)
        rules = (_header_rules(each, self.settings.limits) for each in pools)
        return self._headers.behind(came, next(rules, None), refused)

    def _not_let_in(self, listener: str, peer: str, reason: str, detail: str) -> None:
        self._report(LinkRefused(listener, peer, "", reason, detail))

    # -- process.Daemon

    def drain(self) -> "Deferred[None]":
        """Take no new links and clients; fires when the last channel has ended and the rest is closed."""
        self.reporter(ServerState("draining", f"at most {self.settings.drain:g} s"))
        self._stop_listening()
        self.absent.stop()
        if self.web is not None:
            self.web.drain()
        drained = self.switchboard.drain()
        if self.cccp is not None:
            beside = self.cccp.drain()
            drained.addCallback(lambda _: beside)
        return drained.addCallback(self._part)

    def abort(self) -> None:
        """Cut everything now."""
        self._stop_listening()
        self._headers.stop()
        if self.cccp is not None:
            self.cccp.stop()
        if self.web is not None:
            self.web.stop()
        self.absent.stop()
        self.switchboard.stop()

    def stopService(self) -> Any:
        """Close what is open; a drained server has nothing left."""
        if self._expiry is not None and self._expiry.active():
            self._expiry.cancel()
        self.abort()
        self.reporter(ServerState("stopped", ""))
        done = super().stopService()
        self.audit.close()
        self.people.write_uses(time.time())
        self.ledger.close()
        return done

    # -- inside

    def _part(self, _: Any) -> "Deferred[None]":
        """Let the agents have their GOAWAY before the process ends."""
        self.switchboard.stop()
        parted: Deferred[None] = Deferred()
        self._reactor.callLater(0.05, parted.callback, None)
        return parted

    async def _take(self, new: ServerSettings) -> list[str]:
        """Apply new settings to what runs; listeners that came or went need a restart.

        What every device is looked at for takes a while: it is done when that is.
        """
        if self.switchboard.draining:
            raise SettingsError(["the server is stopping"])
        projects = self.cccp.projects_of(new.cccp) if self.cccp is not None and new.cccp is not None else {}
        self._load_authority(new)
        try:
            identities = self._read_identities(new)
            if self.web is not None:
                self.web.read(new.web)
            self.leases.reload(pools_of(new), reservations_of(new), self._reactor.seconds())
        except (SettingsError, ValueError) as error:
            self._load_authority(self.settings)
            raise error if isinstance(error, SettingsError) else SettingsError([str(error)]) from None
        changed, self._identities = identities.changed(self._identities), identities
        if self.cccp is not None and new.cccp is not None:
            changed += self.cccp.take(new.cccp, new.relay, projects)
        self.switchboard.set_limits(new.limits)
        self.switchboard.data.take(new.data, new.relay)
        self.switchboard.access.penalties.take(new.penalties)
        self.ports.refuses = _refusing(new)
        self.absent.take(new)
        labels = self.switchboard.access.records.labels
        looked = self.switchboard.enforcement.set_records(new.records)
        if labels != new.records.labels:
            self.people.everybody_changed()
        self.absent.wake_fresh()
        self.audit.take(new.audit.limits, Sync(new.audit.sync), new.audit.full == "refuse")
        for listener in (*new.listeners, *agents_by_web(new)):
            if listener.name in self.switchboard.listeners:
                self.switchboard.listeners[listener.name] = self._agent_listener(listener, new)
        if self.web is not None:
            changed += self.web.take(new)
        self._warn(*self._all_identities())
        listeners, web = merged(self.settings.listeners, new.listeners), merged(self.settings.web, new.web)
        await super()._take(replace(new, listeners=listeners, web=web))
        await looked
        return changed

    def _key_of(self, serial: str) -> Verifier | None:
        """Whose key is to be proved; a serial with a certificate and no key can prove none."""
        key = self.ledger.key_of(serial)
        if key is not None:
            return Verifier(key.stored_key, key.server_key)
        return DUMMY if self.issuer.book.knows(serial) else None

    def _report(self, fact: Any) -> None:
        self.switchboard.report(fact)

    def _expire(self) -> None:
        self.ports.expire(self._reactor.seconds())
        self.switchboard.enforcement.end_expired()
        self.switchboard.enforcement.try_again()
        self.switchboard.client_streams.waiting.look()
        self._expiry = self._reactor.callLater(EXPIRY_CHECK, self._expire)


def _header_rules(each: SenderSettings, limits: ServerLimits) -> HeaderRules | None:
    return header_rules(each.proxy_protocol, each.proxy_from, limits.proxy_header, limits.proxy_wait)


def _refusing(settings: ServerSettings) -> dict[str, bool]:
    return {pool.name: pool.absent != "close" for pool in settings.pools}


def descriptor_budget(settings: ServerSettings) -> int:
    """How many sockets clients, links and strangers may use together (faults.md N1)."""
    import resource

    most, limits = resource.getrlimit(resource.RLIMIT_NOFILE)[0], settings.limits
    return max(1, min(int(most * limits.descriptors), most - limits.descriptors_kept))


def makeService(options: Options) -> IService:
    """The service tree of ``twistd revtunnel-server``."""
    from twisted.internet import reactor

    notifier = Notifier.from_environment(os.environ, os.getpid())
    return Server(reactor, options, ExitStatus(reactor), notifier)
