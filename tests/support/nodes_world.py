"""Several nodes in one process over loopback, each with an agent and its device, on one reactor.

Nodes are ``DataWorld``s with a ``Cluster`` between them; their links are TLS, with certificates of nodes. ::

    with NodesWorld(tmp_path, "one", "two") as nodes:
        client, service = nodes.talk("one", "two")      # a client at one, the device of two
        nodes["one"].carry(client, service, b"hello")
"""

import contextlib
import os
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from revtunnel.cluster.cluster_settings import ClusterSettings, PeerPlace
from revtunnel.cluster.cluster_system import Cluster
from revtunnel.cluster.local_directory import Board, LocalDirectory
from revtunnel.cluster.peer_dials import of_nodes
from revtunnel.cluster.peer_hub import PeerServerLink
from revtunnel.daemons.node_board import BoardOfNode
from revtunnel.ground.limits import LinkLimits
from revtunnel.link.handshake import ListenerRules, ServerHello
from revtunnel.link.server_link import AgentListener
from revtunnel.process.admin.daemon_operator import DaemonOperator
from revtunnel.process.reporting import Reporter
from revtunnel.sockets.tls.certificates import CertificateFiles, TlsSide
from revtunnel.sockets.tls.peer_verification import Identity, TlsRules
from revtunnel.streams.commands import Feature
from tests.support.data_world import HOST, DataWorld
from tests.support.throwaway_tls import Issuer
from tests.support.world import pattern

__all__ = ["Node", "NodesWorld"]

MIB = 1024 * 1024


class _Operator(DaemonOperator):
    """Of a node."""

    draining = False


class Node(DataWorld):
    """One node; its device's serial is ``dev-`` and its name."""

    def __init__(self, name: str, issuer: Issuer, first: "Node | None", rule: str, device: str) -> None:
        self.name = name
        loop = first.loop if first is not None else None
        super().__init__(device, serial=f"dev-{name}", loop=loop)
        issued = issuer.node(name)
        files = CertificateFiles(TlsSide.NODE, issued.certificate_file, issued.key_file, issuer.file)
        self.identity = Identity(TlsRules(files))
        limits = of_nodes(LinkLimits())
        features = Feature.ORIGIN | (Feature.DATA_SOCKETS if rule != "link" else Feature(0))
        listener = AgentListener(
            ListenerRules("nodes"),
            limits,
            ServerHello(name, keepalive=limits.keepalive, features=features),
            identity=self.identity,
            make=PeerServerLink,
            data=rule,
        )
        self.switchboard.listeners["nodes"] = listener
        self.cluster: Cluster
        self.door = self.listeners.listen(HOST, 0, 100, self._came)

    def _came(self, end: Any) -> None:
        self.switchboard.admission.came(self.cluster.hub, "nodes", end)

    def join(
        self, peers: tuple[PeerPlace, ...], directory: LocalDirectory | None, begins: bool = True
    ) -> None:
        """Begin to be a node; not ``begins``: it dials when ``cluster.look`` is called."""
        board = BoardOfNode(self.switchboard, lambda serial, detail: None)
        settings = ClusterSettings(node=self.name, peers=peers, agents_address=f"{HOST}:{self.port}")
        self.operator = operator = _Operator(self.reactor, Reporter(), self.name)
        self.cluster = Cluster(
            *(self.reactor, settings, LinkLimits(), self.switchboard),
            *(board, operator, self.identity, self.facts.append, os.urandom, 10_000, directory),
        )
        if begins:
            self.cluster.start()

    def port_for(self, serial: str, offer: str = "echo") -> int:
        """A port of this node for clients of a device, wherever that is."""
        clients = self.switchboard.client_streams.clients_of_absent(serial, offer)
        listener = self.listeners.listen(HOST, 0, 100, clients.came)
        self._stack.callback(listener.stop)
        return listener.port


class NodesWorld:
    """``rule``: what carries clients between nodes, ``socket``, ``link`` or ``auto``; ``device``: to devices.

    ``mesh``: without a directory, every node asks the others; else one is in memory. ``strangers`` dial the
    others, who do not know them; ``twins`` are second processes of nodes, which have not dialled yet.
    """

    def __init__(
        self,
        directory: Path,
        *names: str,
        rule: str = "auto",
        device: str = "auto",
        mesh: bool = True,
        strangers: tuple[str, ...] = (),
        twins: tuple[str, ...] = (),
    ) -> None:
        self._stack = contextlib.ExitStack()
        issuer = Issuer(directory)
        self.nodes: dict[str, Node] = {}
        for name in names:
            first = next(iter(self.nodes.values()), None)
            self.nodes[name] = self._stack.enter_context(Node(name, issuer, first, rule, device))
        self.loop = self.nodes[names[0]].loop
        others = [Node(name, issuer, self.nodes[names[0]], rule, device) for name in (*strangers, *twins)]
        self.others = [self._stack.enter_context(each) for each in others]
        self.twins = self.others[len(strangers) :]
        board = Board(partial(self.loop.reactor.callLater, 0))
        for node in self.nodes.values():
            peers = tuple(
                PeerPlace(each.name, HOST, each.door.port) for each in self.nodes.values() if each is not node
            )
            address = f"{HOST}:{node.door.port}"
            local = LocalDirectory(board, node.name, address, f"{HOST}:{node.port}")
            node.join(peers if mesh else (), None if mesh else local)
        for node in self.nodes.values():
            node.cluster.look()  # nobody waits for the next time
        known = tuple(PeerPlace(each.name, HOST, each.door.port) for each in self.nodes.values())
        for number, node in enumerate(self.others):
            peers = known if number < len(strangers) else known[:1]
            node.join(peers, None, begins=number < len(strangers))
        self.until(lambda: all(len(each.cluster.callers) == len(names) - 1 for each in self.nodes.values()))

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in (*self.nodes.values(), *self.others):
            node.door.stop()
            node.cluster.stop()
        self._stack.close()

    def until(self, condition: Callable[[], Any], what: str = "what must come") -> None:
        """Turn the reactor until it is so."""
        self.loop.until(condition, what)

    def client(self, at: str, of: str, port: int = 0) -> socket.socket:
        """A client at one node of the device of another."""
        port = port or self[at].port_for(f"dev-{of}")
        client = self._stack.enter_context(socket.create_connection((HOST, port)))
        client.setblocking(False)
        return client

    def talk(self, at: str, of: str, port: int = 0) -> tuple[socket.socket, socket.socket]:
        """A client at one node and the service beside the device of another."""
        client = self.client(at, of, port)
        return client, self[of].service()

    def talk_to_both_ends(self, at: str, of: str) -> None:
        """Such a talk whole: bytes are exact both ways, and each half ends by itself."""
        client, service = self.talk(at, of)
        node = self[at]
        node.carry(client, service, pattern("to device", MIB))
        node.carry(service, client, pattern("to client", MIB))
        client.shutdown(socket.SHUT_WR)
        assert node.ending(service) == "end of file"
        node.carry(service, client, pattern("after the end", 100_000))
        service.shutdown(socket.SHUT_WR)
        assert node.ending(client) == "end of file"
