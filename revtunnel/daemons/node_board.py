"""A server as a node of a cluster: what the cluster has of its switchboard, and how it is made.

Rule of this file: it is imported where settings name a node, and nowhere else.

Source: cluster/cluster_system.py; ours.
"""

import os
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from revtunnel.cluster.cluster_settings import ClusterSettings
from revtunnel.cluster.cluster_system import Cluster
from revtunnel.cluster.devices_of_nodes import shielded
from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.engine_settings import engine_way, seal_of
from revtunnel.cluster.node_operations import NODE_PROXY, NODE_PROXY_OFF
from revtunnel.daemons.operator import Operator
from revtunnel.daemons.server_listeners import ServerListeners, nodes_at
from revtunnel.daemons.server_means import descriptor_budget, shared_pools
from revtunnel.daemons.server_settings import ServerSettings
from revtunnel.daemons.switchboard import Switchboard
from revtunnel.fleet.devices import Device
from revtunnel.fleet.elsewhere import DeviceElsewhere
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.facts import Report
from revtunnel.ground.reasons import GoAway
from revtunnel.process.admin.operation_form import Row
from revtunnel.sockets.tls.certificates import FaultyFiles
from revtunnel.state.ledger import SqliteLedger
from revtunnel.streams.clients import Clients, ClientSocket
from revtunnel.trust.enrolment import TokenRow, directory_away
from revtunnel.trust.identities import Identities
from revtunnel.trust.issuer import Issuer

if TYPE_CHECKING:
    from revtunnel.cluster.redis_directory import RedisDirectory
    from revtunnel.cluster.shared_ports import SharedPorts
    from revtunnel.cluster.shared_records import SharedRecords
    from revtunnel.systems.cccp.cccp_system import CccpSystem

__all__ = ["BoardOfNode", "node_of"]

ELSEWHERE = "by a link at another node"


class ProxiesOfNodes:
    """The other nodes, as CCCP asks them (devices_at_nodes.Nodes)."""

    def __init__(self, node: Cluster) -> None:
        self._node = node

    def look(self, serial: str) -> "Deferred[DeviceElsewhere | None]":
        return self._node.devices_elsewhere.look(serial)

    def proxies(self, serial: str) -> "Deferred[list[Row]]":
        asked = self._node.ask_all(NODE_PROXY, serial=serial)
        return shielded(asked.addCallback(lambda told: [*told.values()]))

    def proxies_off(self, serial: str) -> "Deferred[int]":
        return shielded(self._node.ask_all(NODE_PROXY_OFF, serial=serial).addCallback(len))


class BoardOfNode:
    """The switchboard, as other nodes see it. ``kick`` ends a device's connection of any wire."""

    def __init__(
        self,
        board: Switchboard,
        kick: Callable[[str, str], object],
        muted: Callable[[str], bool] = lambda serial: False,
    ) -> None:
        """``muted``: whether an operator lets a device have no remote sessions."""
        self.fleet, self.data, self.say = board.fleet, board.data, board.say
        self.cccp: CccpSystem | None = None
        self._board = board
        self._kick = kick
        self._muted = muted

    @property
    def clients(self) -> int:
        return self._board.clients

    def forward(self, give: Callable[[ClientSocket], str] | None) -> None:
        self._board.client_streams.elsewhere = give

    def absent(self, client: ClientSocket, word: str) -> None:
        self._board.client_streams.absent(client, word)

    def awaited(self) -> list[str]:
        proxies = self.cccp.awaited() if self.cccp is not None else []
        return [*{*self._board.client_streams.waiting.serials, *proxies}]

    def device_came(self, serial: str) -> None:
        self._board.client_streams.device_came(serial)
        if self.cccp is not None:
            self.cccp.came_to_a_node(serial)

    def device_here(self, serial: str) -> DeviceElsewhere | None:
        device = self.fleet.get(serial)
        return None if device is None or device.carrier is None else self._as_others_see(device)

    def devices_here(self, after: str, limit: int) -> list[DeviceElsewhere]:
        page = self.fleet.here(None, after, limit)
        return [self._as_others_see(each) for each in page if each.carrier is not None]

    def _as_others_see(self, device: Device[Any]) -> DeviceElsewhere:
        serial = device.serial
        return DeviceElsewhere(
            *(serial, "", device.system, device.peer, self._board.access.offers(serial, device.offers)),
            free=device.carrier.at_once,
            asks=self.say.asks(serial),
            refusal="it takes no sessions now" if self._muted(serial) else self.say.refusal(serial),
        )

    def clients_for_node(self, serial: str, offer: str, session: str) -> Clients | None:
        device = self.fleet.get(serial)
        if device is None or device.carrier is None:
            return None
        return self._board.client_streams.clients_by_name(serial, offer, lambda client: None, session)

    @property
    def links(self) -> Collection[Any]:
        return self._board.links

    @property
    def retry_after(self) -> int:
        return self._board.limits.retry_after

    def send_away(self, place: Callable[[], str]) -> None:
        self._board.elsewhere = place

    def not_yet(self, why: str) -> None:
        self._board.not_yet = why

    def moved(self, serial: str) -> None:
        device = self.fleet.get(serial)
        link: Any = device.link if device is not None else None
        if hasattr(link, "dismiss"):
            link.dismiss("replaced", ELSEWHERE, GoAway.REPLACED)
        else:
            self._kick(serial, ELSEWHERE)


def node_of(
    reactor: Any,
    settings: ServerSettings,
    board: Switchboard,
    operator: Operator,
    identities: Identities,
    listeners: ServerListeners,
    report: Report,
    issuer: Issuer,
    ledger: SqliteLedger,
    cccp: "CccpSystem | None",
) -> Cluster:
    """This server's node.

    Raises:
        SettingsError: the files of the engine cannot be used.
    """
    mine, kick, identity = settings.cluster, operator.cut_off, identities.of(nodes_at(settings))
    assert identity is not None
    engine = _engine_of(reactor, settings, board)
    directory, shared = engine if engine is not None else (None, None)
    own = BoardOfNode(
        board,
        lambda serial, detail: kick(serial, detail, "another node"),
        lambda serial: operator.mutes.of(serial) is not None,
    )
    told_of = reactor, mine, settings.link, board, own, operator, identity, report
    node = Cluster(*told_of, os.urandom, descriptor_budget(settings), directory)
    node.shared = shared
    node.dials.take(settings.relay)
    if cccp is not None:
        own.cccp, node.answers.proxies = cccp, cccp
        cccp.join(ProxiesOfNodes(node))
    operator.cluster, tried = node, operator.problems
    doubts: dict[str, str] = {}
    if directory is not None:
        doubts = _share(reactor, mine, directory, board, kick, issuer, ledger).problems
    operator.problems = lambda: {**tried(), **node.problems, **doubts}
    listeners.nodes = lambda name: partial(board.admission.came, node.hub, name)
    return node


def _engine_of(
    reactor: Any, settings: ServerSettings, board: Switchboard
) -> "tuple[RedisDirectory, SharedPorts] | None":
    """The directory that an engine keeps, and the ports that nodes share by it; None: there is none.

    Raises:
        SettingsError: the files of the engine cannot be used.
    """
    mine = settings.cluster
    if mine.engine is None or mine.node is None:
        return None
    # with its client 60 ms of CPU, which a node without an engine spares
    from revtunnel.cluster.redis_directory import RedisDirectory
    from revtunnel.cluster.shared_ports import SharedPorts

    try:
        way = engine_way(mine)
    except FaultyFiles as error:
        raise SettingsError([f"[cluster] {key}: {text}" for key, text in error.faults]) from None
    places = mine.address or "", mine.agents_address or ""
    engine = RedisDirectory(reactor, way, mine.cluster, mine.node, *places, mine.lease)

    def is_here(serial: str) -> bool:
        device = board.fleet.get(serial)
        return device is not None and device.carrier is not None

    most, open_one = board.ports.leases.most_of, board.enforcement.open_one
    shared = SharedPorts(reactor, engine, board.ports, is_here, open_one, most)
    shared.take(shared_pools(settings))
    return engine, shared


def _share(
    reactor: Any,
    mine: ClusterSettings,
    engine: "RedisDirectory",
    board: Switchboard,
    kick: Callable[[str, str, str], object],
    issuer: Issuer,
    ledger: SqliteLedger,
) -> "SharedRecords":
    """Have nodes know the same of safety: revocations, and with a secret what the state file says of rights.

    Raises:
        SettingsError: the secret cannot be used.
    """
    from revtunnel.cluster.shared_penalties import SharedPenalties
    from revtunnel.cluster.shared_records import SharedRecords
    from revtunnel.cluster.shared_revocations import SharedRevocations
    from revtunnel.cluster.shared_tables import SharedTables

    def revoked(serials: set[str]) -> None:
        for serial in serials:
            device = board.fleet.get(serial)
            shown = getattr(device.link, "certificate", None) if device is not None else None
            if shown is not None and issuer.book.revoked(serial, shown.fingerprint):
                kick(serial, "its certificate was revoked at another node", "another node")

    def took(table: str, key: Any) -> None:
        if table == "barred":
            revoked({key})
        elif table in ("keys", "edge_keys"):
            kick(key, "its key was changed at another node", "another node")

    try:
        seal = seal_of(mine, mine.cluster)
    except FaultyFiles as error:
        raise SettingsError([f"[cluster] {key}: {text}" for key, text in error.faults]) from None
    revocations = SharedRevocations(issuer.book, revoked, serials=seal is None)
    if seal is None:
        return SharedRecords(engine, (revocations,))
    records = SharedRecords(engine, (SharedTables(ledger, took), revocations), seal)

    async def first(token: TokenRow) -> bool:
        try:
            return await records.first(f"tokens:{token.mark.hex()}", token.left)
        except DirectoryAway as error:
            raise directory_away(str(error)) from None

    SharedPenalties(engine, board.access.penalties, seal, reactor.seconds)
    issuer.first = lambda token: Deferred.fromCoroutine(first(token))
    issuer.unsure = lambda: engine.problem or ("" if records.is_joined else "this node has not joined yet")
    return records
