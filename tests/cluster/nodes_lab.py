"""Three nodes, an engine, and agents that know all of them: as processes, hurt from a test.

Rule of this file: each device has a service of its own, whose bytes say whose they are (keyed_streams.py);
its ports stay open at every node where it was once, so that a client may come to any of them.
"""

import contextlib
import random
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.agents import Herd, arguments
from tests.support.daemons import Agent, Lab, Server, Settings, laboratory, merged
from tests.support.keyed_streams import KeyedService, ask
from tests.support.ports import free_ports
from tests.support.redis_server import RedisServer
from tests.support.throwaway_tls import Issuer

__all__ = ["LEASE", "NodesLab", "nodes_lab"]

LEASE = 3  # seconds
PATIENCE = 40.0  # seconds for anything
NAMES = ("one", "two", "three")


class NodesLab:
    """``devices`` agents, each at the node that comes first for it."""

    def __init__(self, lab: Lab, directory: Path, devices: int, more: Settings) -> None:
        self.engine = RedisServer(directory)
        self.services = [KeyedService(number) for number in range(devices)]
        self.nodes: dict[str, Server] = {}
        self.agents: list[Agent] = []
        self.ports: dict[tuple[str, int], int] = {}  # node, device: where clients come in
        self._lab = lab
        self._more = more
        self._issuer = Issuer(directory, "nodes authority")
        for name in NAMES:
            self.nodes[name] = self.node(name)

    def node(self, name: str, file: str = "") -> Server:
        """One more process, not started yet; of the same name where ``file`` is another."""
        issued = self._issuer.node(name, file=f"node-{file or name}")
        agents, port = free_ports(2)
        settings = merged(
            {
                "cluster": {
                    "node": name,
                    "address": f"127.0.0.1:{port}",
                    "engine": f"redis://127.0.0.1:{self.engine.port}",
                    "lease": LEASE,
                },
                "listener nodes": {
                    "kind": "nodes",
                    "address": f"127.0.0.1:{port}",
                    "tls": "yes",
                    "certificate": issued.certificate_file,
                    "certificate_key": issued.key_file,
                    "authority": self._issuer.file,
                },
                "listener main": {"address": f"127.0.0.1:{agents}"},
                "pool default": {"absent": "refuse"},
                "link": {"keepalive": 1, "busy_keepalive": 1},
                "limits": {"herd_spread": 0.2},
            },
            self._more,
        )
        return self._lab.server(settings, name=file or name)

    def start(self) -> None:
        """Engine, nodes, services; then every device at each node for once, and at last where it begins."""
        self.engine.start()
        for service in self.services:
            service.start()
        for node in self.nodes.values():
            node.start(wait=False)
        for node in self.nodes.values():
            node.wait_until(node.ready, "readiness")
        for node in self.nodes.values() if self.services else ():
            self._show(node)
        names = [*self.nodes]
        for number in self.devices:
            first = number % len(names)
            self._agent(number, names[first:] + names[:first])
        for agent in self.agents:
            agent.wait_event("link-up", patience=PATIENCE)

    def _show(self, node: Server) -> None:
        """Every device comes to this node once, and leaves its port behind."""
        serials = [f"plc-{number:05}" for number in range(len(self.services))]
        words = ["--port", str(node.port), "--count", str(len(serials)), "--offer", "load=127.0.0.1:1"]
        herd = Herd(arguments(words))
        while herd.up < len(serials):
            herd.turn()
        for number, serial in enumerate(serials):
            self.ports[node.name, number] = node.client_port(serial, "load")
        herd.close()
        for serial in serials:
            node.wait_event("link-down", serial=serial)

    def _agent(self, number: int, names: list[str]) -> None:
        agent = Agent(
            self._lab.directory,
            f"plc-{number:05}",
            [f"127.0.0.1:{self.nodes[name].port}" for name in names],
            {"load": self.services[number].target},
            {"agent": {"retry_first": 0.2, "retry_most": 1}, "link": {"answer": 2, "busy_answer": 2}},
        )
        self.agents.append(self._lab.add(agent).start(wait=False))

    def reaches(self, name: str, device: int) -> bool:
        """Whether a client of a node gets something of a device, all of it."""
        return ask(self.ports[name, device], device, random.randrange(65536), 100, 1.0) == "whole"

    @property
    def devices(self) -> range:
        """Their numbers."""
        return range(len(self.services))

    @staticmethod
    def held(node: Server) -> set[str]:
        """Whose links it has."""
        return {row["serial"] for row in node.control("devices", "--here")["devices"] if row["online"]}

    def until(self, condition: object, what: str) -> float:
        """Seconds until it is so."""
        assert callable(condition)
        begun = time.monotonic()
        while not condition():
            assert time.monotonic() < begun + PATIENCE, f"no {what} in {PATIENCE:g} s"
            time.sleep(0.02)
        return time.monotonic() - begun

    def all_reach(self, *names: str) -> float:
        """Seconds until clients of these nodes reach every device."""
        pairs = [(name, device) for name in names for device in self.devices]
        return self.until(lambda: all(self.reaches(*each) for each in pairs), "way")

    def close(self) -> None:
        """End what is not the lab's."""
        for service in self.services:
            service.stop()
        self.engine.kill()


@contextlib.contextmanager
def nodes_lab(directory: Path, devices: int = 3, more: Settings | None = None) -> Iterator[NodesLab]:
    """All of it, started; ``more``: settings of all nodes."""
    with laboratory(directory) as lab:
        found = NodesLab(lab, directory, devices, more or {})
        try:
            found.start()
            yield found
        finally:
            found.close()
