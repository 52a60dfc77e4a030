"""One node: its links to the others, its directory, and what goes between them and the rest of a server.

Rule of this file: wiring only. The server gives what it has (``NodeBoard``), and is told what it has to know
by what it sets; nothing of this room knows more of it.

Source: next/cluster.md; ours.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from revtunnel.carriers.data_sockets import DataSockets
from revtunnel.cluster.agent_moves import AgentMoves, MovableLink
from revtunnel.cluster.cluster_settings import ClusterSettings
from revtunnel.cluster.device_answers import DeviceAnswers, DevicesHere
from revtunnel.cluster.devices_of_nodes import DevicesOfNodes
from revtunnel.cluster.directory import Directory, DirectoryAway
from revtunnel.cluster.forwarding import Forwarding
from revtunnel.cluster.mesh_directory import MeshDirectory
from revtunnel.cluster.node_calls import NodeCaller, answers_to, call_by
from revtunnel.cluster.node_operations import ANSWERED, NODE_LOAD, NODES, OF_DIRECTORY
from revtunnel.cluster.node_records import Node, Place
from revtunnel.cluster.peer_agent import ForwardedStreams
from revtunnel.cluster.peer_dials import PeerDials
from revtunnel.cluster.peer_hub import PeerHub, PeerServerLink
from revtunnel.fleet.device_consent import DeviceConsent
from revtunnel.fleet.devices import Device
from revtunnel.fleet.fleet import Fleet
from revtunnel.ground.facts import Report, ServerState
from revtunnel.ground.limits import LinkLimits, RelayLimits
from revtunnel.ground.server_places import ServerPlace
from revtunnel.ground.targets import parse_endpoint
from revtunnel.link.server_link import Hub
from revtunnel.process.admin.daemon_operator import DaemonOperator
from revtunnel.process.admin.device_operations import DEVICES
from revtunnel.process.admin.operation_form import Operation, Row
from revtunnel.process.admin.process_operations import DRAIN
from revtunnel.process.admin.refusals import NotFound, OperatorError
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.streams.clients import Clients, ClientSocket

if TYPE_CHECKING:
    from revtunnel.cluster.shared_ports import SharedPorts

__all__ = ["Cluster", "NodeBoard", "merged"]

Page = tuple[list[Row], str | None]  # and the cursor to go on with

LOOK = 2.0  # seconds between looks at the other nodes


class NodeBoard(DevicesHere, Protocol):
    """What a node has (daemons/switchboard.py)."""

    fleet: Fleet[Any]
    data: DataSockets
    say: DeviceConsent

    @property
    def clients(self) -> int:
        """How many are connected."""

    def clients_for_node(self, serial: str, offer: str, session: str) -> Clients | None:
        """Who takes clients of a device that is here; None: it is not."""

    def forward(self, give: Callable[[ClientSocket], str] | None) -> None:
        """Have clients of devices that are not here given away so; None: there are no other nodes."""

    def absent(self, client: ClientSocket, word: str) -> None:
        """Its device is at no other node, or nobody knows."""

    def awaited(self) -> list[str]:
        """Devices that clients here wait for."""

    def device_came(self, serial: str) -> None:
        """Serve those who wait for it: it is at some node."""

    def moved(self, serial: str) -> None:
        """Its link here was replaced by one at another node."""

    @property
    def links(self) -> Collection[MovableLink]:
        """Of agents that are here, of any wire."""

    @property
    def retry_after(self) -> int:
        """Seconds that agents stay away from a server that stops, if they know no other."""

    def send_away(self, place: Callable[[], str]) -> None:
        """Where agents that are refused may go instead."""

    def not_yet(self, why: str) -> None:
        """Refuse agents, who go to another server; "": take them."""


class NodeOperator:
    """What other nodes may call: all that operators may, and what nodes ask each other."""

    def __init__(self, operator: DaemonOperator, directory: Any, answers: DeviceAnswers) -> None:
        asked = OF_DIRECTORY if directory is not None else {}
        self.operations: Mapping[str, Operation] = {**operator.operations, **asked, **ANSWERED}
        self.known = self.operations
        self.answers = answers
        self._operator = operator
        self._directory = directory

    def __getattr__(self, name: str) -> Any:
        return getattr(self._directory if name.startswith("node_") else self._operator, name)


class Cluster:
    """This node. ``directory`` may be an engine's; without one every node is asked."""

    def __init__(
        self,
        reactor: Any,
        settings: ClusterSettings,
        link: LinkLimits,
        hub: Hub,
        board: NodeBoard,
        operator: DaemonOperator,
        identity: Identity,
        report: Report,
        random_bytes: Callable[[int], bytes],
        descriptors: int,
        directory: Directory | None = None,
    ) -> None:
        assert settings.node is not None
        self.settings = settings
        self.callers: dict[str, NodeCaller] = {}
        self._reactor = reactor
        self._board = board
        self._report = report
        self._numbers = count(1)
        self._links: dict[str, tuple[int, str, float]] = {}  # of our devices: number, wire, since when
        self._problem: str | None = None
        self._timer: IDelayedCall | None = None
        self._joining: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None
        self._state, self._parts = "up", False  # its links to others go
        self._measured, self._percent = (reactor.seconds(), time.process_time()), 0
        instance = random_bytes(8)
        told_of = settings.address or "", settings.agents_address or ""
        me = Node(settings.node, int.from_bytes(instance, "big"), told_of[0], agents=told_of[1])
        peers = [each.name for each in settings.others]
        self._mesh = MeshDirectory(reactor, me, peers, self.callers) if directory is None else None
        self.directory: Directory = self._mesh or directory  # type: ignore[assignment]
        self.moves = AgentMoves(reactor, me.name, self.directory.nodes)
        self.hub = PeerHub(me.name, hub, board.data, report, self._is_ours)
        self.hub.on_up, self.hub.on_down = self._linked, self._unlinked
        self.answers = DeviceAnswers(board, board.say, reactor.seconds)
        self.answers.busy = self._load
        asked = self.directory, self.callers, self.ask_all, board.say
        self.devices_elsewhere = DevicesOfNodes(reactor, *asked)
        known = NodeOperator(operator, self._mesh, self.answers)
        streams = ForwardedStreams(
            self._clients_of,
            lambda name: answers_to(reactor, known, name),
            lambda: self.directory.usurped(),
        )
        told = reactor, me.name, instance, link, identity, streams, report, random_bytes, descriptors
        self.dials = PeerDials(*told)
        self.shared: SharedPorts | None = None  # client ports that nodes share, with an engine
        self.forwarding = Forwarding(self.directory, self.hub.carrier, board.absent, self.hub.takes_sessions)

    # -- life

    def start(self) -> None:
        """Join; a directory that is away is a problem, and joined once it is back."""
        board, directory = self._board, self.directory
        for device in board.fleet.page("", None):
            if device.online:
                self._arrived(device)
        board.fleet.on_arrived, board.fleet.on_left = self._arrived, self._left
        board.forward(self.forwarding.open)
        board.send_away(self.moves.place)
        board.say.nodes = self.devices_elsewhere
        directory.moved, directory.mine = self._moved, self._mine
        self._join()
        self.look()

    def _join(self) -> None:
        """Join; with ``without_engine = wait`` agents are refused until then."""
        waits = self._mesh is None and self.settings.without_engine == "wait"
        self._may_come("this node has not joined its cluster yet" if waits else "")

        def away(failure: Failure) -> None:
            failure.trap(DirectoryAway)
            if waits and self._timer is not None:
                self._joining = self._reactor.callLater(LOOK, self._join)

        self.directory.start().addCallbacks(lambda _: self._may_come(""), away)

    def _may_come(self, why_not: str) -> None:
        if self._state == "up":
            self._board.not_yet(why_not)

    @property
    def problems(self) -> dict[str, str]:
        """What fails for an outside reason, for status."""
        problem = self.directory.problem
        return {"directory": f"directory-away: {problem}"} if problem else {}

    def take(self, settings: ClusterSettings, identity: Identity | None, relay: RelayLimits) -> None:
        """Other peers from now on, other files for later links, other limits for later streams."""
        self.settings = settings
        self.dials.identity = identity or self.dials.identity
        self.dials.take(relay)
        if self._mesh is not None:
            self._mesh.peers = tuple(each.name for each in settings.others)
        self.look()

    @property
    def stops(self) -> bool:
        """Whether it takes no more agents."""
        return self._state == "draining"

    def move(self, patience: float) -> "Deferred[None]":
        """Take no more agents, and send those that are here to other nodes, while all are served as ever.

        Fires when they have gone, or two thirds of ``patience`` seconds are over.
        """
        self._state, board = "draining", self._board
        self._say()
        board.not_yet("the node stops")
        return self.moves.begin(board.links, self.settings.drain_pace, patience / 2, board.retry_after)

    def drain(self, patience: float) -> "Deferred[None]":
        """Take no more clients of other nodes; fires when those that came have left."""
        self._state, self._parts = "draining", True
        if self.shared is not None:
            self.shared.stop()
        self._say()
        return self.dials.drain(patience)

    def stop(self) -> "Deferred[None]":
        """Leave; fires when the directory knows, or within PATIENCE."""
        if self._stopped is not None:
            return self._stopped
        for timer in (self._timer, self._joining):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = None
        self.moves.stop()
        if self.shared is not None:
            self.shared.stop()
        self._board.fleet.on_arrived = self._board.fleet.on_left = None
        self._board.forward(None)
        self._board.say.nodes = None
        self.hub.stop()
        self.dials.stop()
        self._stopped = self.directory.stop()
        return self._stopped

    # -- what operators see (node_operations.py)

    def nodes(self, after: str = "", limit: int = 200) -> "Deferred[Page]":
        """Nodes, by name."""
        found = [each for each in self.directory.nodes() if each.name > after]

        def page(told: dict[str, Row]) -> Page:
            told[self.directory.me.name] = self.answers.load()
            rows = [self._row(each, told.get(each.name, {})) for each in found[:limit]]
            return rows, (rows[-1]["node"] if len(found) > limit else None)

        return self.ask_all(NODE_LOAD).addCallback(page)

    def _load(self) -> Row:
        """Per cent of a core since the last look or the one before, and the engine's round trip."""
        trip = self.directory.trip
        return {"load": self._percent, "engine_trip": trip and round(trip, 6)}

    def _measure(self) -> None:
        now, spent = self._reactor.seconds(), time.process_time()
        before, self._measured = self._measured, (now, spent)
        if now > before[0]:
            self._percent = round(100 * (spent - before[1]) / (now - before[0]))

    def _row(self, node: Node, told: Row) -> Row:
        link = self.hub.links.get(node.name)
        here = node.name == self.directory.me.name
        trip = link.round_trip if link is not None else None
        busy = {name: told.get(name) for name in ("load", "engine_trip")}
        seen = {"node": node.name, "here": here, "linked": here or link is not None}
        seen["secret"] = _secret(node.seal, self.directory.me.seal)
        return NODES.row(node, **seen, **busy, epoch=str(node.epoch), round_trip=trip and round(trip, 6))

    def drain_node(self, node: str) -> "Deferred[Any]":
        """Have another node drain. NotFound: there is none of that name, or it has no link to us."""
        if node not in self.callers:
            raise NotFound(f"{node} is no node that has a link to this one")

        def gone(failure: Failure) -> None:
            if node in self.callers:
                failure.raiseException()  # else it has ended before its answer was read

        return self.callers[node].call(DRAIN).addErrback(gone)

    def ask_all(self, operation: Operation, **arguments: Any) -> "Deferred[dict[str, Row]]":
        """One call to every other node: what those answered that did."""
        answered: dict[str, Row] = {}

        def refused(failure: Failure) -> None:
            failure.trap(OperatorError)

        def keep(row: Row, name: str) -> None:
            answered[name] = row

        asked = [
            caller.call(operation, **arguments).addCallback(keep, name).addErrback(refused)
            for name, caller in self.callers.items()
        ]
        return gatherResults(asked).addCallback(lambda _: answered)

    # -- devices

    def devices(self, mine: Page, after: str, limit: int) -> "Deferred[Page]":
        """Devices of all nodes, by serial; of one that two nodes know, where it is, or was last."""
        asked = self.ask_all(DEVICES, after=after or None, limit=limit, here=True)
        return asked.addCallback(
            lambda told: merged([mine, *((row["rows"], row["after"]) for row in told.values())], limit)
        )

    def _clients_of(self, serial: str, offer: str, session: str) -> Clients | None:
        """Who takes a client of another node, whose sessions we have to have heard of."""
        if session and not self.answers.allows(session, serial, offer):
            return None
        return self._board.clients_for_node(serial, offer, session)

    def _arrived(self, device: Device[Any]) -> None:
        number = next(self._numbers)
        self._links[device.serial] = number, device.system, self._reactor.seconds()
        self.directory.arrived(device.serial, number, device.system)

    def _left(self, device: Device[Any]) -> None:
        number, _, _ = self._links.pop(device.serial, (0, "", 0.0))
        if number:
            self.directory.left(device.serial, number)

    def _mine(self) -> Iterator[tuple[str, int, str, float]]:
        now = self._reactor.seconds()
        for serial, (number, wire, since) in self._links.items():
            yield serial, number, wire, now - since

    def _moved(self, serial: str, link: int) -> None:
        if self._links.get(serial, (0, "", 0.0))[0] == link:
            self._board.moved(serial)

    # -- nodes

    def _is_ours(self, name: str) -> bool:
        """Without an engine only those that settings name."""
        return self._mesh is None or name in self._mesh.peers

    def _places(self) -> dict[str, ServerPlace]:
        if self._mesh is not None:
            return {each.name: ServerPlace(each.host, each.port) for each in self.settings.others}
        told = [each for each in self.directory.nodes() if each.address and each.state != "away"]
        places: dict[str, ServerPlace] = {}
        for each in told:
            with suppress(ValueError):  # of whoever wrote that into the engine
                places[each.name] = ServerPlace(*parse_endpoint(each.address))
        return places

    def _linked(self, link: PeerServerLink) -> None:
        caller = call_by(link)
        if caller is not None:
            self.callers[link.serial] = caller
            if self._mesh is not None:
                self._mesh.came_up(link.serial)

    def _unlinked(self, link: PeerServerLink) -> None:
        self.callers.pop(link.serial, None)

    def look(self) -> None:
        """Dial whom there is, say what we have, and say once what the directory wants."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._reactor.callLater(LOOK, self.look)
        self._measure()
        self._say()
        if not self._parts:
            self.dials.dial(self._places())
        for link in [*self.hub.links.values()]:
            caller = self.callers.get(link.serial)
            if caller is None or caller.gone:
                self._linked(link)
        if self._mesh is not None:
            self._mesh.look()
        if self.shared is not None:
            self.shared.look()
        self.answers.look()
        self.devices_elsewhere.refresh()
        for serial in self._board.awaited():
            self.directory.find(serial).addCallbacks(partial(self._awaited, serial), _nothing)
        problem = self.directory.problem
        if problem != self._problem:
            self._problem = problem
            self._report(ServerState("directory", problem or "it can be asked again"))

    def _awaited(self, serial: str, place: Place | None) -> None:
        """A client waits here for a device that may be at another node by now."""
        if place is not None and place.node in self.callers:
            self._board.device_came(serial)

    def _say(self) -> None:
        self.directory.say(self._state, len(self._links), self._board.clients)


def merged(pages: Sequence[Page], limit: int) -> Page:
    """The pages of several nodes as one; nothing behind the end of a page that is not its node's last."""
    ends = [after for _, after in pages if after is not None]
    found: dict[str, Row] = {}
    for row in (row for rows, _ in pages for row in rows):
        before, serial = found.get(row["serial"]), row["serial"]
        if ends and serial > min(ends):
            continue
        if before is None or _standing(row) > _standing(before):
            found[serial] = row
    rows = [found[serial] for serial in sorted(found)]
    more = len(rows) > limit or bool(ends)
    return rows[:limit], (rows[:limit][-1]["serial"] if rows else min(ends)) if more else None


def _secret(seal: str, mine: str) -> str:
    return seal if seal in ("", "none") else "same" if seal == mine else "other"


def _nothing(failure: Failure) -> None:
    """It is asked again soon."""


def _standing(row: Row) -> tuple[bool, bool, str]:
    """A device that is here, then one that was, then one that is known; of those the last."""
    return bool(row.get("online")), bool(row.get("links_total")), str(row.get("since") or "")
