"""Three nodes as processes: whoever comes to any of them reaches every device, also when one is killed."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemons import Agent, Lab, Server, Settings, laboratory
from tests.support.ports import free_ports, port_block
from tests.support.services import Kept
from tests.support.throwaway_tls import Issuer
from tests.support.traffic import (
    MIB,
    Patterned,
    connect,
    end_of,
    end_of_new,
    exchange,
    in_thread,
    leave_with_reset,
    read_exactly,
    wait_until,
)

pytestmark = pytest.mark.slow

NAMES = ("gate-1", "gate-2", "gate-3")


class Site:
    """Nodes by name, an agent at each, and one port of every node for every device."""

    def __init__(self, lab: Lab, directory: Path, target: str, echo: str) -> None:
        self.lab = lab
        self.nodes: dict[str, Server] = {}
        self.agents: dict[str, Agent] = {}
        self.port: dict[tuple[str, str], int] = {}  # of a node, for the device that is at another one
        self.echoes: dict[tuple[str, str], int] = {}  # likewise
        self.echo: Kept
        issuer = Issuer(directory)
        doors = dict(zip(NAMES, free_ports(3), strict=True))
        links = dict(zip(NAMES, free_ports(3), strict=True))
        for name in NAMES:
            block = port_block()
            first = int(block.partition("-")[0])
            reserved: dict[str, int] = {}
            for number, other in enumerate(NAMES):
                self.port[name, other] = reserved[f"dev-{other}/it"] = first + number
                self.echoes[name, other] = reserved[f"dev-{other}/echo"] = first + 10 + number
            issued = issuer.node(name)
            settings: Settings = {
                "server": {"name": name, "drain": "5 s"},
                "listener main": {"address": f"127.0.0.1:{links[name]}"},
                "listener peers": {
                    "address": f"127.0.0.1:{doors[name]}",
                    "kind": "nodes",
                    "tls": "yes",
                    "certificate": issued.certificate_file,
                    "certificate_key": issued.key_file,
                    "authority": issuer.file,
                },
                "pool default": {"ranges": block, "nodes": "all"},
                "reservations": reserved,
                "cluster": {
                    "node": name,
                    "peers": ", ".join(f"{each}=127.0.0.1:{doors[each]}" for each in NAMES),
                },
            }
            self.nodes[name] = lab.server(settings, name=name)
        for node in self.nodes.values():
            node.start(wait=False)
        for node in self.nodes.values():
            node.wait_until(node.ready, "readiness")
        for number, name in enumerate(NAMES):
            servers = [f"127.0.0.1:{links[each]}" for each in (*NAMES[number:], *NAMES[:number])]
            offers = {"it": target, "echo": echo}
            agent = lab.agent(self.nodes[name], f"dev-{name}", offers=offers, servers=servers)
            self.agents[name] = agent.start(wait=False)
        for name in NAMES:
            self.nodes[name].wait_link(f"dev-{name}")
        self.wait_linked(NAMES)

    def wait_linked(self, names: tuple[str, ...]) -> None:
        """Every one of these nodes has a link of every other one."""
        for name in names:
            node = self.nodes[name]
            node.wait_until(lambda: self.linked(node) == len(NAMES) - 1, "links of nodes")  # noqa: B023

    @staticmethod
    def linked(node: Server) -> int:
        """How many other nodes have a link to this one."""
        return len({line["serial"] for line in node.events("link-up", wire="node")})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three nodes whose devices have a service that checks every byte, and one that echoes."""
    directory = tmp_path_factory.mktemp("nodes")
    with Patterned() as service, Kept() as echo, laboratory(directory) as lab:
        site = Site(lab, directory, service.target, echo.target)
        site.echo = echo
        yield site
        assert service.wrong == []


def test_a_client_at_each_node_reaches_a_device_at_each(site: Site) -> None:
    """Nine pairs at once, 10 MB each way, every byte that of its own pair, every end in order."""
    pairs = [(at, of) for at in NAMES for of in NAMES]
    threads = [
        in_thread(exchange, site.port[pair], 100 + number, 10_000_000, 10_000_000)
        for number, pair in enumerate(pairs)
    ]
    for thread in threads:
        thread.join(90)
        assert thread.problem is None, thread.problem
    first = site.nodes["gate-1"]
    nodes = first.control("nodes")["nodes"]
    assert [(each["node"], each["state"], each["linked"]) for each in nodes] == [
        (name, "up", True) for name in NAMES
    ]
    first.wait_until(lambda: [each["devices"] for each in first.control("nodes")["nodes"]] == [1, 1, 1], "it")
    devices = first.control("devices")["devices"]
    assert {each["serial"]: each["node"] for each in devices if each["online"]} == {
        f"dev-{name}": name for name in NAMES
    }
    here = first.control("devices", "--here")["devices"]
    assert [each["serial"] for each in here if each["online"]] == ["dev-gate-1"]


def test_ends_of_each_kind_pass_and_records_judge_a_client_where_its_device_is(site: Site) -> None:
    """By its own address: half-closes, a reset of the client, and who may not come in there."""
    port, record = site.echoes["gate-1", "gate-2"], site.echo.record
    with connect(port) as client:
        client.sendall(b"hello")
        assert read_exactly(client, 5) == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert end_of(client) == "end of file"
    record.wait("end", "end of file")
    client = connect(port)
    client.sendall(b"again")
    assert read_exactly(client, 5) == b"again"
    leave_with_reset(client)
    record.wait("end", "reset")
    second = site.nodes["gate-2"]
    with connect(port) as client:
        client.sendall(b"where")
        read_exactly(client, 5)
        (row,) = second.control("channels", "dev-gate-2")["channels"]
        assert row["client"] == "{}:{}".format(*client.getsockname())
    second.settings["device dev-gate-2"] = {"clients": "192.0.2.0/24"}
    second.write()
    second.control("reload")
    assert end_of_new(port) == "reset"
    refused = second.wait_event("client-refused", serial="dev-gate-2")
    assert refused["peer"].startswith("127.0.0.1:")
    del second.settings["device dev-gate-2"]
    second.write()
    second.control("reload")


def test_the_devices_of_a_node_that_was_killed_are_reached_by_the_others(site: Site) -> None:
    """Its streams end with resets; its agent goes to the next node, where every node finds it."""
    with connect(site.port["gate-1", "gate-2"]) as client:
        client.sendall(b"\0" * 3)
        site.nodes["gate-2"].wait_event("channel-opened", serial="dev-gate-2")
        site.nodes["gate-2"].kill()
        assert end_of(client) == "reset"
    wait_until(lambda: site.nodes["gate-3"].events("link-up", serial="dev-gate-2"), "the agent elsewhere")
    for number, name in enumerate(("gate-1", "gate-3")):
        exchange(site.port[name, "gate-2"], 300 + number, MIB, MIB)
    states = {each["node"]: each["state"] for each in site.nodes["gate-1"].control("nodes")["nodes"]}
    assert states == {"gate-1": "up", "gate-2": "away", "gate-3": "up"}
    site.nodes["gate-2"].start()  # and it is a node again
    site.wait_linked(("gate-2",))
    exchange(site.port["gate-2", "gate-2"], 310, MIB, MIB)


def test_another_node_is_drained_from_here(site: Site) -> None:
    """Its devices are elsewhere while a client still has his stream there; then it ends in order.

    Who calls no node by that name is told so.
    """
    first, third = site.nodes["gate-1"], site.nodes["gate-3"]
    with connect(site.echoes["gate-3", "gate-3"]) as client:
        client.sendall(b"hello")
        assert read_exactly(client, 5) == b"hello"
        first.control("drain", "--node", "gate-3")
        wait_until(lambda: first.events("link-up", serial="dev-gate-3"), "the agent at the first node")
        exchange(site.port["gate-2", "gate-3"], 400, MIB, MIB)
        assert third.running
        client.sendall(b"still here")
        assert read_exactly(client, 10) == b"still here"
    assert third.wait() == 0
    with pytest.raises(subprocess.CalledProcessError):
        first.control("drain", "--node", "gate-9")


def test_without_a_node_nothing_of_the_cluster_is_imported(tmp_path: Path) -> None:
    """A server that is alone reads the settings of one, and that is all."""
    code = (
        "import json, sys, revtunnel.daemons.server;"
        "print(json.dumps([each for each in sys.modules if each.startswith('revtunnel.cluster.')]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    known = {"cluster_settings", "engine_settings", "node_operations", "node_records"}
    assert {each.rpartition(".")[2] for each in json.loads(done.stdout)} == known
