"""Three nodes as processes: whoever comes to any of them reaches every device, also when one is killed."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.nodes_lab import Nodes
from tests.support.daemons import Server, laboratory
from tests.support.services import Kept
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


class Mesh(Nodes):
    """Nodes without an engine, and an agent at each; clients come to any."""

    echo: Kept

    def at(self, name: str, of: str, offer: str = "it") -> tuple[int, str]:
        """Where clients of a node reach the device that begins at another: port and host."""
        return self.ports[f"dev-{of}", offer], self.hosts[name]

    def exchange(self, name: str, of: str, seed: int, size: int) -> None:
        """So many bytes each way, every one that of its seed."""
        port, host = self.at(name, of)
        exchange(port, seed, size, size, host)

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
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Three nodes whose devices have a service that checks every byte, and one that echoes."""
    directory = tmp_path_factory.mktemp("nodes")
    with Patterned() as service, Kept() as echo, laboratory(directory) as lab:
        offers = {f"dev-{name}": {"it": service.target, "echo": echo.target} for name in NAMES}
        site = Mesh(lab, directory, offers, {"server": {"drain": "5 s"}}, NAMES)
        site.echo = echo
        site.start()
        site.wait_linked(NAMES)
        yield site
        assert service.wrong == []


def test_a_client_at_each_node_reaches_a_device_at_each(site: Mesh) -> None:
    """Nine pairs at once, 10 MB each way, every byte that of its own pair, every end in order."""
    pairs = [(at, of) for at in NAMES for of in NAMES]
    threads = [in_thread(site.exchange, *pair, 100 + number, 10_000_000) for number, pair in enumerate(pairs)]
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


def test_ends_of_each_kind_pass_and_records_judge_a_client_where_its_device_is(site: Mesh) -> None:
    """By its own address: half-closes, a reset of the client, and who may not come in there."""
    (port, host), record = site.at("gate-1", "gate-2", "echo"), site.echo.record
    with connect(port, host) as client:
        client.sendall(b"hello")
        assert read_exactly(client, 5) == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert end_of(client) == "end of file"
    record.wait("end", "end of file")
    client = connect(port, host)
    client.sendall(b"again")
    assert read_exactly(client, 5) == b"again"
    leave_with_reset(client)
    record.wait("end", "reset")
    second = site.nodes["gate-2"]
    with connect(port, host) as client:
        client.sendall(b"where")
        read_exactly(client, 5)
        (row,) = second.control("channels", "dev-gate-2")["channels"]
        assert row["client"] == "{}:{}".format(*client.getsockname())
    second.settings["device dev-gate-2"] = {"clients": "192.0.2.0/24"}
    second.write()
    second.control("reload")
    assert end_of_new(port, host=host) == "reset"
    refused = second.wait_event("client-refused", serial="dev-gate-2")
    assert refused["peer"].startswith("127.0.0.1:")
    del second.settings["device dev-gate-2"]
    second.write()
    second.control("reload")


def test_the_devices_of_a_node_that_was_killed_are_reached_by_the_others(site: Mesh) -> None:
    """Its streams end with resets; its agent goes to the next node, where every node finds it."""
    with connect(*site.at("gate-1", "gate-2")) as client:
        client.sendall(b"\0" * 3)
        site.nodes["gate-2"].wait_event("channel-opened", serial="dev-gate-2")
        site.nodes["gate-2"].kill()
        assert end_of(client) == "reset"
    wait_until(lambda: site.nodes["gate-3"].events("link-up", serial="dev-gate-2"), "the agent elsewhere")
    for number, name in enumerate(("gate-1", "gate-3")):
        site.exchange(name, "gate-2", 300 + number, MIB)
    states = {each["node"]: each["state"] for each in site.nodes["gate-1"].control("nodes")["nodes"]}
    assert states == {"gate-1": "up", "gate-2": "away", "gate-3": "up"}
    site.nodes["gate-2"].start()  # and it is a node again
    site.wait_linked(("gate-2",))
    site.exchange("gate-2", "gate-2", 310, MIB)


def test_another_node_is_drained_from_here(site: Mesh) -> None:
    """Its devices are elsewhere while a client still has his stream there; then it ends in order.

    Who calls no node by that name is told so.
    """
    first, third = site.nodes["gate-1"], site.nodes["gate-3"]
    with connect(*site.at("gate-3", "gate-3", "echo")) as client:
        client.sendall(b"hello")
        assert read_exactly(client, 5) == b"hello"
        first.control("drain", "--node", "gate-3")
        others = first, site.nodes["gate-2"]
        wait_until(
            lambda: any(each.events("link-up", serial="dev-gate-3") for each in others),
            "the agent at another node",
        )
        site.exchange("gate-2", "gate-3", 400, MIB)
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
