"""Nodes, agents that know all of them, and an engine or none: as processes, hurt from a test.

Rule of this file: a device's offer has one port number at all nodes, each of which listens at an address of
its own, so that a client may come to any of them. Each device of a ``NodesLab`` has a service of its own,
whose bytes say whose they are (keyed_streams.py).
"""

import contextlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.support.daemons import Agent, Lab, Server, Settings, laboratory, merged
from tests.support.keyed_streams import KeyedService, ask
from tests.support.ports import free_ports, port_block
from tests.support.redis_server import RedisServer
from tests.support.throwaway_tls import Issuer

__all__ = ["LEASE", "NAMES", "PATIENCE", "Nodes", "NodesLab", "nodes_lab", "serial_of"]

LEASE = 3  # seconds
PATIENCE = 60.0  # seconds for anything
NAMES = ("one", "two", "three")
AGENT: Settings = {"agent": {"retry_first": 0.2, "retry_most": 1}, "link": {"answer": 2, "busy_answer": 2}}


def serial_of(device: int) -> str:
    """Of a device by its number."""
    return f"plc-{device:05}"


class Nodes:
    """``offers``: of each device, by serial; the first one begins at the first node, and so on.

    Without an engine nodes know each other by their settings, and reserve a port for each offer.
    """

    def __init__(
        self,
        lab: Lab,
        directory: Path,
        offers: Mapping[str, Mapping[str, str]],
        more: Settings,
        names: Sequence[str] = NAMES,
        engine: RedisServer | None = None,
    ) -> None:
        self.lab = lab
        self.engine = engine
        self.offers = offers
        self.nodes: dict[str, Server] = {}
        self.agents: dict[str, Agent] = {}
        self.hosts = {name: f"127.0.0.{number + 1}" for number, name in enumerate(names)}
        self.ports: dict[tuple[str, str], int] = {}  # of a serial and an offer, at every node
        self._more = more
        self._issuer = Issuer(directory, "nodes authority")
        self._block = port_block()
        self._doors = dict(zip(names, free_ports(len(names)), strict=True))
        first = int(self._block.partition("-")[0])
        uses = [(serial, offer) for serial, named in offers.items() for offer in named]
        if engine is None:
            self.ports = {use: first + number for number, use in enumerate(uses)}
            self._block = f"{first}-{first + len(uses) - 1}"
        for name in names:
            self.nodes[name] = self.node(name)

    def node(self, name: str, file: str = "") -> Server:
        """One more process, not started yet; of the same name where ``file`` is another."""
        issued = self._issuer.node(name, file=f"node-{file or name}")
        door = free_ports(1)[0] if file else self._doors[name]
        agents = f"127.0.0.1:{free_ports(1)[0]}"
        cluster: dict[str, object] = {"node": name, "agents_address": agents}
        if self.engine is not None:
            cluster["address"] = f"127.0.0.1:{door}"
            cluster |= {"engine": f"redis://127.0.0.1:{self.engine.port}", "lease": LEASE}
        else:
            cluster["peers"] = ", ".join(f"{each}=127.0.0.1:{port}" for each, port in self._doors.items())
        settings = merged(
            {
                "cluster": cluster,
                "listener main": {"address": agents},
                "listener nodes": {
                    "kind": "nodes",
                    "address": f"127.0.0.1:{door}",
                    "tls": "yes",
                    "certificate": issued.certificate_file,
                    "certificate_key": issued.key_file,
                    "authority": self._issuer.file,
                },
                "pool default": {"nodes": "all", "ranges": self._block, "bind": self.hosts[name]},
                "reservations": {"/".join(use): port for use, port in self.ports.items()},
                "link": {"keepalive": 1, "busy_keepalive": 1},
                "limits": {"herd_spread": 0.2},
            },
            self._more,
        )
        return self.lab.server(settings, name=file or name)

    def start(self) -> None:
        """Nodes, then every device at the node where it begins; until each port is open at each node."""
        for node in self.nodes.values():
            node.start(wait=False)
        for node in self.nodes.values():
            node.wait_until(node.ready, "readiness", PATIENCE)
        names = [*self.nodes]
        for number, serial in enumerate(self.offers):
            at = number % len(names)
            servers = [f"127.0.0.1:{self.nodes[name].port}" for name in names[at:] + names[:at]]
            self.agents[serial] = self.agent(serial, servers, self.offers[serial])
        for agent in self.agents.values():
            agent.wait_event("link-up", patience=PATIENCE)
        for serial, named in self.offers.items():
            for offer in named:
                found = {node.client_port(serial, offer) for node in self.nodes.values()}
                assert found == {self.ports.setdefault((serial, offer), *found)}

    def agent(self, serial: str, servers: Sequence[str], offers: Mapping[str, str], name: str = "") -> Agent:
        """One more, started."""
        agent = Agent(self.lab.directory, serial, servers, offers, AGENT, name=name)
        return self.lab.add(agent).start(wait=False)

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


class NodesLab(Nodes):
    """With an engine, and so many devices."""

    engine: RedisServer

    def __init__(
        self, lab: Lab, directory: Path, devices: int, more: Settings, names: Sequence[str] = NAMES
    ) -> None:
        self.services = [KeyedService(number) for number in range(devices)]
        for service in self.services:
            service.start()
        offers = {serial_of(each.device): {"load": each.target} for each in self.services}
        super().__init__(lab, directory, offers, more, names, engine=RedisServer(directory))

    def start(self) -> None:
        self.engine.start()
        super().start()

    @property
    def devices(self) -> range:
        """Their numbers."""
        return range(len(self.services))

    def ask(self, name: str, device: int, client: int, words: int, patience: float = 5.0) -> str:
        """A client's stream of a device, by the port of a node (keyed_streams.ask)."""
        return ask(self.ports[serial_of(device), "load"], device, client, words, patience, self.hosts[name])

    def reaches(self, name: str, device: int) -> bool:
        """Whether a client of a node gets something of a device, all of it."""
        return self.ask(name, device, random.randrange(65536), 100, 1.0) == "whole"

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
