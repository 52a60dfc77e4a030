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
from twisted.internet.defer import Deferred, gatherResults, succeed

from revtunnel import __version__
from revtunnel.daemons.absent_devices import AbsentDevices
from revtunnel.daemons.daemon import AdministeredDaemon, until
from revtunnel.daemons.kept_ports import KeptPorts
from revtunnel.daemons.kept_records import KeptRecords
from revtunnel.daemons.legacy_devices import fixed_ports
from revtunnel.daemons.operator import Operator
from revtunnel.daemons.own_certificates import OwnCertificates, renewing
from revtunnel.daemons.server_doubts import doubts
from revtunnel.daemons.server_listeners import ServerListeners, agent_listener, agents_by_web, nodes_at
from revtunnel.daemons.server_means import (
    descriptor_budget,
    pools_of,
    refusing,
    reservations_of,
    shared_pools,
)
from revtunnel.daemons.server_options import ServerOptions as Options
from revtunnel.daemons.server_reading import records_of
from revtunnel.daemons.server_settings import ServerSettings
from revtunnel.daemons.switchboard import Switchboard
from revtunnel.daemons.webhooks import Webhooks
from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.client_ports import ClientPorts
from revtunnel.fleet.leases import Leases
from revtunnel.fleet.penalties import Penalties
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.facts import ServerState
from revtunnel.ground.limits import PeopleLimits
from revtunnel.link.server_link import AgentListener
from revtunnel.process.process import ExitStatus
from revtunnel.process.systemd import Notifier
from revtunnel.sockets.data_plane import begin_plane
from revtunnel.sockets.listening import Listeners
from revtunnel.state.audit_file import AuditFile, Sync
from revtunnel.state.ledger import FILE_NAME, open_ledger
from revtunnel.state.session_audit import SessionAudit
from revtunnel.systems.emo.emo_listener import EmoListener
from revtunnel.trust.authority import Unfit
from revtunnel.trust.certificate_book import CertificateBook, verifier_of
from revtunnel.trust.identities import Identities
from revtunnel.trust.issuer import Issuer
from revtunnel.trust.mutes import Mutes
from revtunnel.trust.people_book import open_people
from revtunnel.trust.people_operator import PeopleOperator

if TYPE_CHECKING:
    from revtunnel.cluster.cluster_system import Cluster
    from revtunnel.daemons.web_system import WebSystem
    from revtunnel.daemons.workers import Workers
    from revtunnel.systems.cccp.cccp_system import CccpSystem

__all__ = ["Options", "Server", "makeService"]

DOUBT = "who is enrolled or revoked is in doubt; see Enrolment in docs/admin.rst, take it away, reload"
USURPED = 75  # exit status: try again, once the other one has ended
EXPIRY_CHECK = 1.0  # seconds between looks for leases whose time is over


class Server(AdministeredDaemon):
    """The server's service tree; also what signals act on (process.Daemon)."""

    socket_is_beside = False
    settings: ServerSettings

    def __init__(self, reactor: Any, options: Options, exit_status: ExitStatus, notifier: Notifier) -> None:
        super().__init__(reactor, options, exit_status, notifier)
        self._listeners = Listeners(reactor, self._report, self.retries)
        self._expiry: Any = None
        self.web: WebSystem | None = None
        self.cccp: CccpSystem | None = None
        self.node: Cluster | None = None
        self.workers: Workers | None = None
        self._exit = exit_status
        self._emo = EmoListener({})
        self.webhooks: Webhooks | None = None
        own = OwnCertificates(
            reactor, lambda: renewing(reactor, self.settings), self.take_files, self.retries
        )
        own.setServiceParent(self)

    # -- starting

    def privilegedStartService(self) -> None:
        self._build()
        self.operator.data_plane = begin_plane(self._reactor, self.settings.data_plane, "server")
        self._build_node(self.settings)
        self._build_workers(self.settings)
        self._take_webhooks(self.settings)
        self._take_listeners(self.settings)
        self.listeners.start()
        self.operator.link_port = self.listeners.link_port(self.settings)
        if self.cccp is not None:
            self.cccp.start()
        if self.node is not None:
            self.node.start()
        self.switchboard.enforcement.keep_promises()
        super().privilegedStartService()

    def startService(self) -> None:
        if self.workers is not None:
            self.workers.start()
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
        people = f"; people at {self.listeners.places('web')}" if self.web is not None else ""
        if self.web is not None:
            self.web.offer_first(self.listeners.web_port)
        self.reporter(ServerState("data-plane", self.operator.data_plane))
        self.reporter(ServerState("ready", f"agents at {self.listeners.places('listener')}{people}"))

    def _build(self) -> None:
        settings = self.settings
        self.ledger = open_ledger(settings.state_directory, FILE_NAME, settings.allow_open_state)
        self.kept, self.records = KeptPorts(self.ledger, time.time), KeptRecords(self.ledger, time.time)
        settings = self.settings = self._with_kept(settings)
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
        listen, refuses = partial(self._listeners.listen, both=True), refusing(settings)
        self.ports = ClientPorts(listen, self.leases, refuses, settings.limits.backlog, self._report)
        self.leases.until = until
        self.switchboard = Switchboard(
            self._reactor,
            self._reactor,
            settings.limits,
            self.ports,
            partial(verifier_of, self.ledger, book),
            os.urandom,
            self.reporter,
            descriptor_budget(settings),
            AccessControl(
                time.time, settings.records, Penalties(settings.penalties, settings.penalties.exempt)
            ),
        )
        self.listeners = ServerListeners(self._reactor, self._listeners, self.switchboard)
        self.listeners.stand_before(self.ports)
        self.switchboard.data.take(settings.data, settings.relay)
        self._build_people(settings)
        board, changed = self.switchboard, self.audit.changed
        self.operator = Operator(
            self._reactor,
            self.switchboard,
            self.leases,
            self.ledger,
            self.issuer,
            self.reporter,
            settings.name,
            os.urandom,
            PeopleOperator(self.people, self.grants, time.time, os.urandom, changed, board.labels_of),
            self.mutes,
            self.audit,
        )
        self._tend_kept(self.kept)
        self.switchboard.admission.issue = self.issuer.answer
        self.switchboard.admission.used = self.issuer.used
        self.issuer.cut_off = partial(self.operator.cut_off, by="two_renewals")
        self.issuer.audited = self.audit.changed
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

    def _build_cccp(self, settings: ServerSettings) -> None:
        """CCCP beside the rest, with the same ports, penalties and ledger."""
        if settings.cccp is None:
            return
        # with twisted.web 70 ms of CPU, which a server without CCCP spares
        from revtunnel.systems.cccp.cccp_operator import CccpRows
        from revtunnel.systems.cccp.cccp_system import CccpSystem
        from revtunnel.systems.cccp.idle_devices import SYSTEM

        board = self.switchboard
        told = self._reactor, self._listeners, settings.cccp, self.leases, self.ledger, self._report
        self.cccp = CccpSystem(
            *(*told, board.access),
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
            *(self.operator, self.ledger, os.urandom),
        )
        self.web.start()
        self.listeners.people = self.web.listener
        self.operator.remote.live = self.web.live
        self.operator.wires["remote"] = self.web.rows
        others = self.operator.linked.granted
        mine = self.web.rows.grants
        self.operator.linked.granted = lambda serial, client: others(serial, client) or mine(serial, client)

    def _build_node(self, settings: ServerSettings) -> None:
        """One node of several, if it is one."""
        if settings.cluster.node is None:
            return
        from revtunnel.daemons.node_board import node_of

        told = self._reactor, settings, self.switchboard, self.operator, self._identities, self.listeners
        self.node = node_of(*told, self._report, self.issuer, self.ledger, self.cccp)

        def usurped() -> None:
            """Another process has our node's name: it came later, and may stay."""
            if self._exit.status != USURPED:  # whoever we have dialled says it
                self._exit.status = USURPED
                self._reactor.callLater(0, self._signals.stop_requested, "another process is this node")

        self.node.directory.usurped = usurped

    def _build_workers(self, settings: ServerSettings) -> None:
        if settings.processes == 1:
            return
        from revtunnel.daemons.workers import Workers

        key_of = partial(verifier_of, self.ledger, self.issuer.book)
        told = key_of, self.issuer, self.ledger, lambda: self.settings
        self.workers = Workers(self._reactor, self.switchboard, *told)
        self.workers.attend(self.listeners, self.operator)

    def _load_authority(self, settings: ServerSettings) -> None:
        """Take the authority as its files are now.

        Raises:
            SettingsError: there is one, and it cannot be used.
        """
        mine = settings.authority
        try:
            self.issuer.load(mine.directory, mine.device_days, mine.limits, mine.renewal_grace)
        except Unfit as error:
            raise SettingsError([f"[authority] directory: {error}"], passes=True) from None
        self.issuer.ends_forks = mine.two_renewals == "revoke"

    def _read_identities(self, settings: ServerSettings) -> Identities:
        """The certificates of all listeners. SettingsError: their files cannot be used."""
        identities = Identities(self.issuer.revoked, grace=self.issuer.grace)
        return identities.read(settings.listeners, self.issuer.is_set_up)

    def _all_identities(self) -> list[Identities]:
        return [self._identities, *(each.identities for each in (self.web, self.cccp) if each is not None)]

    def _agent_listeners(self, settings: ServerSettings) -> dict[str, AgentListener]:
        """What links get, by the name of the listener they come by."""
        doubt = self.ledger.doubtful is not None
        return {
            each.name: agent_listener(each, settings, self._identities.of(each.name), doubt, self._emo)
            for each in (*settings.listeners, *agents_by_web(settings))
        }

    def _take_listeners(self, settings: ServerSettings) -> None:
        """What holds for listeners, and which are there; their sockets are for the caller."""
        self.switchboard.set_listeners(self._agent_listeners(settings))
        self.listeners.take(settings)
        certify = (each.tls and each.device_certificates != "no" for each in settings.listeners)
        self.operator.others_certify = any(certify)

    # -- process.Daemon

    def drain(self) -> "Deferred[None]":
        """Send agents to other nodes, take nobody new; fires when the last channel has ended."""
        self.reporter(ServerState("draining", f"at most {self.settings.drain:g} s"))
        moved = self.node.move(self.settings.drain) if self.node is not None else succeed(None)
        return moved.addCallback(lambda _: self._drain())

    def _drain(self) -> "Deferred[None]":
        self.listeners.stop()
        self.absent.stop()
        if self.web is not None:
            self.web.drain()
        beside = [self.workers.drain()] if self.workers is not None else []
        drained = self.switchboard.drain()
        beside += [self.node.drain(self.settings.drain)] if self.node is not None else []
        beside += [self.cccp.drain()] if self.cccp is not None else []
        drained.addCallback(lambda _: gatherResults(beside))
        return drained.addCallback(self._part)

    def abort(self) -> None:
        """Cut everything now."""
        self.listeners.stop()
        self.listeners.stop_headers()
        if self.cccp is not None:
            self.cccp.stop()
        if self.web is not None:
            self.web.stop()
        self.absent.stop()
        self.switchboard.stop()
        if self.workers is not None:
            self.workers.stop()
        if self.node is not None:
            self.node.stop()

    def stopService(self) -> Any:
        """Close what is open; a drained server has nothing left."""
        if self._expiry is not None and self._expiry.active():
            self._expiry.cancel()
        self.abort()
        self.reporter(ServerState("stopped", ""))
        done = super().stopService()
        if self.webhooks is not None:
            self.webhooks.stop()
        self.audit.close()
        self.people.write_uses(time.time())
        self.ledger.close()
        return done

    # -- inside

    def _part(self, _: Any) -> "Deferred[None]":
        """Let the agents have their GOAWAY, and other nodes know, before the process ends."""
        self.switchboard.stop()
        parted: Deferred[None] = Deferred()
        self._reactor.callLater(0.05, parted.callback, None)
        left = self.node.stop() if self.node is not None else None
        return parted.addCallback(lambda _: left)

    async def _take(self, new: ServerSettings) -> tuple[list[str], list[str]]:
        """Apply new settings to what runs: what is gone is closed before what is new is opened.

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
            else:
                self._build_web(new)
            moved = self.leases.reload(pools_of(new), reservations_of(new), self._reactor.seconds())
        except (SettingsError, ValueError) as error:
            self._load_authority(self.settings)
            raise error if isinstance(error, SettingsError) else SettingsError([str(error)]) from None
        changed, self._identities = identities.changed(self._identities), identities
        self._take_limits(new)
        if self.node is not None:
            self.node.take(new.cluster, self._identities.of(nodes_at(new)), new.relay)
            if self.node.shared is not None:
                self.node.shared.take(shared_pools(new))
        self._take_webhooks(new)
        if self.cccp is not None and new.cccp is not None:
            changed += self.cccp.take(new.cccp, new.relay, projects)
        if self.web is not None:
            changed += self.web.take(new)
        self._take_listeners(new)
        self.listeners.close_others()
        if moved:
            self.switchboard.enforcement.make_way()
        self.absent.take(new)
        missing = self.listeners.open_missing()
        if self.cccp is not None:
            missing += self.cccp.open_missing()
        self.operator.link_port = self.listeners.link_port(new)
        if self.web is not None:
            self.web.offer_first(self.listeners.web_port)
        labels = self.switchboard.access.records.labels
        looked = self.switchboard.enforcement.set_records(new.records)
        if self.web is not None:
            self.web.vendors.take(new)  # the services of their devices are in the records
        if labels != new.records.labels:
            self.people.everybody_changed()
        self.absent.wake_fresh()
        self._warn(*self._all_identities())
        await super()._take(new)
        if self.workers is not None:
            self.workers.take()
        await looked
        return changed, missing

    def _loaded(self) -> ServerSettings:
        return self._with_kept(super()._loaded())

    def _with_kept(self, settings: ServerSettings) -> ServerSettings:
        """The same with what operators have reserved, and laid down for devices."""
        fixed = {use: each.client_port for _, each, use in fixed_ports(settings)}
        records = self.records.over(records_of(settings.devices, settings.pools))
        return replace(self.kept.beside(settings, fixed), records=records)

    def _tend_kept(self, kept: KeptPorts) -> None:
        self.operator.kept, self.operator.emo = kept, self._emo.in_vain
        kept.leases, kept.tell, kept.applies = self.leases, self.audit.changed, self._take_kept
        kept.pools = lambda: {pool.name: pool for pool in pools_of(self.settings)}
        kept.fixed = lambda: reservations_of(self.settings)
        self.operator.records = self.records
        self.records.tell, self.records.applies = self.audit.changed, self._take_record

    def _take_record(self, serial: str) -> None:
        """An operator has changed what one device may: as a reload of that alone."""
        labels = self.switchboard.access.records.labels
        new = self.settings = self._with_kept(self.settings)
        self.switchboard.enforcement.set_record(serial, new.records)
        if self.workers is not None:
            self.workers.take()
        if self.web is not None:
            self.web.vendors.take(new)
        if labels != new.records.labels:
            self.people.everybody_changed()

    def _take_kept(self) -> None:
        """An operator has reserved a port, or given one back: as a reload of that alone."""
        new = self.settings = self._with_kept(self.settings)
        if self.leases.reload(pools_of(new), reservations_of(new), self._reactor.seconds()):
            self._take_listeners(new)
            self.switchboard.enforcement.make_way()
            self.absent.take(new)
            self.switchboard.enforcement.set_records(new.records)
            if self.workers is not None:
                self.workers.take()

    def _take_webhooks(self, settings: ServerSettings) -> None:
        """Tell these hooks of facts from now on."""
        if self.webhooks is None:
            about = self._reactor, self.ledger, self.retries, self.reporter, os.urandom
            self.webhooks = self.operator.webhooks = Webhooks(*about)
        if self.webhooks.take(settings.webhooks, settings.name):
            self.reporter.watch(self.webhooks.told)

    def _take_limits(self, new: ServerSettings) -> None:
        self.switchboard.set_limits(new.limits)
        self.switchboard.data.take(new.data, new.relay)
        self.switchboard.access.penalties.take(new.penalties)
        self.ports.refuses = refusing(new)
        self.audit.take(new.audit.limits, Sync(new.audit.sync), new.audit.full == "refuse")

    def _report(self, fact: Any) -> None:
        self.switchboard.report(fact)

    def _expire(self) -> None:
        self.ports.expire(self._reactor.seconds())
        self.switchboard.enforcement.end_expired()
        self.switchboard.enforcement.try_again()
        self.switchboard.client_streams.waiting.look()
        self._expiry = self._reactor.callLater(EXPIRY_CHECK, self._expire)


def makeService(options: Options) -> IService:
    """The service tree of ``twistd revtunnel-server``."""
    from twisted.internet import reactor

    notifier = Notifier.from_environment(os.environ, os.getpid())
    return Server(reactor, options, ExitStatus(reactor), notifier)
