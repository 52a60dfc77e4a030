"""CCCP with all its parts, from settings: listeners of devices, the sessions, the API; for both daemons.

Source: issue "CCCP"; house.md (services).
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.elsewhere import DeviceElsewhere
from revtunnel.fleet.fleet import Fleet
from revtunnel.fleet.leases import Leases
from revtunnel.fleet.streams_of_devices import StreamsOfDevices
from revtunnel.ground.facts import Fact, LinkDown, LinkUp, Report
from revtunnel.ground.limits import FleetLimits, RelayLimits
from revtunnel.ground.retries import Retries
from revtunnel.process.wake import WakeDriver
from revtunnel.sockets.listening import Listeners
from revtunnel.sockets.open_listeners import OpenListeners, WantedListener
from revtunnel.sockets.tls.peer_verification import Identity, never_revoked
from revtunnel.state.ledger import SqliteLedger
from revtunnel.systems.cccp.cccp_facts import ProxyEnded
from revtunnel.systems.cccp.cccp_settings import CccpPart, ProjectSettings
from revtunnel.systems.cccp.cccp_store import Kept, SessionBook
from revtunnel.systems.cccp.device_carrier import DeviceCarriers
from revtunnel.systems.cccp.devices_at_nodes import Nodes
from revtunnel.systems.cccp.http_api import HttpApi
from revtunnel.systems.cccp.proxies import Links, Proxies
from revtunnel.systems.cccp.proxy_operator import ProxyOperator
from revtunnel.systems.cccp.proxy_ports import TARGET, NoPort, ProxyPorts
from revtunnel.systems.cccp.registered_devices import Project, Registrations
from revtunnel.trust.identities import Identities

__all__ = ["CccpSystem"]

TICK = 1.0  # seconds between looks at who is parked too long


def project_of(each: ProjectSettings, identity: Identity | None) -> Project:
    """What holds for the devices of a project."""
    return Project(
        each.name,
        each.pool.name,
        each.duplicate == "newest",
        each.line_feed == "swallow",
        each.early_data == "hold",
        each.off == "park",
        each.timeout,
        frozenset(each.serials),
        identity,
    )


class CccpSystem:
    """``listening`` are the ports of devices and of the API.

    ``fleet`` and ``links`` are another wire's, where one is spoken beside; else devices are registered here.
    ``streams`` has the carriers of a server where others than proxies may reach registered devices;
    ``revoked`` says by serial and fingerprint which certificates count no more.
    """

    def __init__(
        self,
        reactor: Any,
        listeners: Listeners,
        part: CccpPart,
        leases: Leases,
        ledger: SqliteLedger,
        report: Report,
        access: AccessControl,
        relay_limits: RelayLimits | None = None,
        fleet: Fleet[Any] | None = None,
        links: Links | None = None,
        streams: StreamsOfDevices | None = None,
        next_stream: Callable[[], int] = lambda: 0,
        revoked: Callable[[str, str], bool] = never_revoked,
        retries: Retries | None = None,
    ) -> None:
        self.part = part
        self.listening = OpenListeners(listeners, they_begin=True)
        self.facts: Counter[str] = Counter()
        self._reactor = reactor
        self._report = report
        self._ticking: Any = None
        self._drained: Deferred[None] | None = None
        self._book = SessionBook(ledger)
        self.identities = self._fresh = Identities(revoked, "cccp-project")
        listen = partial(listeners.listen, both=True)
        ports = ProxyPorts(reactor, listen, leases, lambda: self.part.limits.backlog, report)
        self.fleet: Fleet[Any] = Fleet(FleetLimits(), self._told) if fleet is None else fleet
        self.proxies = Proxies(
            *(reactor, ports, lambda: self.part.limits, self._book, self._told),
            *(self.fleet, relay_limits, links, access),
        )
        if streams is not None:
            self.proxies.parking.takers = DeviceCarriers(
                *(self.proxies.parking, streams, next_stream, lambda: self.part.limits),
                *(
                    lambda: self.proxies.relay_limits,
                    report,
                    lambda serial: bool(self.proxies.get(serial)),
                ),
            )
        self.pending = Registrations(
            reactor, lambda: self.part.limits, self.proxies.parking.arrived, self._told, access
        )
        self.pending.projects = self.projects_of(part)
        self.identities = self._fresh
        self.wake = WakeDriver(reactor, lambda serial: self.part.wake, self._told)
        self.operator = ProxyOperator(
            reactor,
            self.proxies,
            lambda: list(self.pending.projects.values()),
            lambda: self.part.limits,
            self.wake,
        )
        self.retries = self.operator.retries = retries
        self.operator.give_up = self._give_up
        self._waiting: dict[str, Kept] = {}  # sessions that are to go on, and have no port as yet
        self.api = HttpApi(self.operator, lambda: self.part)
        self._site = self.api.site(reactor)

    # -- life

    def start(self) -> None:
        """Take up what the last start left, and listen. CannotListenError: a port cannot be had at all."""
        for kept in list(self._book.load()):
            self._take_up(kept)
        self.listening.start(self._wanted())
        self._tick()

    def projects_of(self, part: CccpPart) -> dict[str, Project]:
        """What holds for each project. SettingsError: certificate files cannot be used."""
        self._fresh = self.identities.read(part.projects)
        return {each.name: project_of(each, self._fresh.of(each.name)) for each in part.projects}

    def take(self, part: CccpPart, relay_limits: RelayLimits, projects: dict[str, Project]) -> list[str]:
        """Other settings from now on, with their ``projects_of``; listeners that are gone are closed.

        Devices of a project that is gone, and sessions, stay until they end. The answer: whose certificates
        are others now, as names of settings.
        """
        self.pending.projects = projects
        self.part, self.proxies.relay_limits = part, relay_limits
        self.listening.close_others(self._wanted())
        changed, self.identities = self._fresh.changed(self.identities), self._fresh
        return changed

    def open_missing(self) -> list[str]:
        """Open the listeners that are not open yet; a line for each that cannot be."""
        return self.listening.open_missing(self._wanted())

    def drain(self) -> "Deferred[None]":
        """Take no new ones; fires when no client is connected any more."""
        self._stop_listening()
        drained: Deferred[None] = Deferred()
        self._drained = drained
        self.check_drained()
        return drained

    def stop(self) -> None:
        """End all now."""
        self._stop_listening()
        if self._ticking is not None and self._ticking.active():
            self._ticking.cancel()
        self.proxies.stop()

    def told(self, fact: Fact) -> None:
        """What happens to devices of other wires: callers wait for them, and sessions keep their ports."""
        if isinstance(fact, LinkUp):
            self._reactor.callLater(0, self._came_elsewhere, fact.serial)
        elif isinstance(fact, LinkDown):  # whose ports are about to become those of a device that is away
            self._reactor.callLater(0, self.proxies.left_elsewhere, fact.serial)

    # -- other nodes

    def join(self, nodes: Nodes) -> None:
        """There are other nodes from now on."""
        self.proxies.nodes = nodes

    def awaited(self) -> list[str]:
        """Devices that clients of proxies, or callers, wait for."""
        alone = (each.session.serial for each in self.proxies if each.lone and not each.device)
        return [*alone, *self.operator.awaited]

    def came_to_a_node(self, serial: str) -> None:
        """A device that is awaited may be at another node now."""
        if self.proxies.nodes is not None:
            self.proxies.nodes.look(serial).addCallback(partial(self._at_node, serial))

    def _at_node(self, serial: str, far: DeviceElsewhere | None) -> None:
        if far is not None and far.free and not self.proxies.connected(serial):
            self.proxies.came_elsewhere(serial, far)
            self.operator.device_came(serial)

    def proxy_here(self, serial: str) -> Any:
        """For other nodes: what ``/status`` says here."""
        return self.operator.status_here(serial)

    def proxy_off(self, serial: str) -> bool:
        """For other nodes: end it here; False: there is none."""
        return self.operator.off_here(serial)

    def _came_elsewhere(self, serial: str) -> None:
        self.proxies.came_elsewhere(serial)
        self.operator.device_came(serial)

    def check_drained(self) -> None:
        """Whether the last client is gone."""
        if self._drained is not None and not self.proxies.clients:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def counts(self) -> dict[str, int]:
        """For a status."""
        return {
            "devices": len(self.proxies.parking),
            "unregistered": self.pending.waiting,
            "proxies": len(self.proxies),
            "clients": self.proxies.clients,
        }

    # -- inside

    def _wanted(self) -> list[WantedListener]:
        backlog, found = self.part.limits.backlog, []
        for project in self.part.projects:
            name, came = f"[cccp-project {project.name}]", partial(self.pending.came, project.name)
            found += [WantedListener(name, *address, backlog, came) for address in project.address]
        return found + [WantedListener("[cccp] http", *each, 128, self._site.came) for each in self.part.http]

    def _take_up(self, kept: Kept) -> None:
        """A persistent session goes on, on its port; of any other the end is said."""
        project = self.pending.projects.get(kept.project)
        if not kept.options.persistent or project is None:
            self._end_kept(kept, "restarted")
            return
        try:
            self.proxies.on(kept.serial, project, kept.options, "restart")
        except (NoPort, OSError) as error:
            if self.retries is None:
                self._end_kept(kept, f"restarted: {error}")
                return
            self._waiting[kept.serial] = kept
            self.retries.failed(f"proxy of {kept.serial}", str(error), partial(self._take_up_again, kept))
        else:
            self._waits_no_more(kept.serial)

    def _take_up_again(self, kept: Kept) -> None:
        if self.proxies.get(kept.serial) is None and self._drained is None:
            self._take_up(kept)
        else:
            self._waits_no_more(kept.serial)

    def _waits_no_more(self, serial: str) -> Kept | None:
        if self.retries is not None:
            self.retries.well(f"proxy of {serial}")
        return self._waiting.pop(serial, None)

    def _give_up(self, serial: str) -> bool:
        """A caller ends a session that has no port as yet; False: there is none."""
        kept = self._waits_no_more(serial)
        if kept is not None:
            self._end_kept(kept, "off")
        return kept is not None

    def _end_kept(self, kept: Kept, word: str) -> None:
        leases = self.proxies.ports.leases
        lease = leases.find(kept.serial, TARGET)
        if lease is not None:
            leases.release(lease, self._reactor.seconds())
        self._book.drop(kept.serial)
        self._report(ProxyEnded(kept.serial, kept.port, word, 0, 0.0))

    def _stop_listening(self) -> None:
        self.operator.drain()
        self.pending.stop()
        self.listening.stop()

    def _told(self, fact: Fact) -> None:
        reason = getattr(fact, "reason", "")
        self.facts[f"{fact.word} {reason}" if reason else fact.word] += 1
        self._report(fact)
        if self._drained is not None:
            self._reactor.callLater(0, self.check_drained)

    def _tick(self) -> None:
        self.proxies.parking.tick()
        self.check_drained()
        self._ticking = self._reactor.callLater(TICK, self._tick)
