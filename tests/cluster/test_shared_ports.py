"""Client ports that nodes share, on real nodes with a real engine: one number, wherever the device is.

One lab for all of it, since three nodes take their time to start; streams say whose they are.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.nodes_lab import NAMES, NodesLab, nodes_lab, serial_of
from tests.support.daemons import Server
from tests.support.keyed_streams import KeyedService, begin
from tests.support.redis_server import INSTALLED, PROGRAM

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not INSTALLED, reason=f"{PROGRAM} is not installed")]


AGAIN = "it can be asked again"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodesLab]:
    """Three nodes, three devices, all ports at all nodes."""
    with nodes_lab(tmp_path_factory.mktemp("ports")) as lab:
        yield lab


def number(node: Server, serial: str) -> int:
    """The port that a node has open for a device, by its log; 0: none."""
    told = [
        line for line in node.events(serial=serial, target="load") if line["event"].startswith("listener-")
    ]
    return int(told[-1]["port"]) if told and told[-1]["event"] == "listener-opened" else 0


def numbers(lab: NodesLab, serial: str) -> set[int]:
    """Those of all nodes that run."""
    return {number(node, serial) for node in lab.nodes.values() if node.running}


def test_a_device_that_moves_keeps_its_port_and_every_node_leads_to_it(lab: NodesLab) -> None:
    """Through another node, then when that one is killed, and once it is back."""
    lab.all_reach(*NAMES)
    begun = dict(lab.ports)
    assert len(set(begun.values())) == 3
    agent = lab.agents[serial_of(0)]
    agent.stop()
    agent.servers.append(agent.servers.pop(0))
    agent.start(wait=False)
    two = lab.nodes["two"]
    two.wait_link(serial_of(0))
    lab.all_reach(*NAMES)
    two.kill()
    lab.all_reach("one", "three")
    for device in lab.devices:
        serial = serial_of(device)
        lab.until(lambda: numbers(lab, serial) == {begun[serial, "load"]}, "the same number")  # noqa: B023
    two.start()
    lab.all_reach(*NAMES)
    assert {serial: number(two, serial) for serial, _ in begun} == {
        key[0]: port for key, port in begun.items()
    }


def test_what_cannot_be_decided_without_the_engine_is_refused_in_words(lab: NodesLab, tmp_path: Path) -> None:
    """Known ports go on; a device that has none gets one when the engine is back, also with nothing, and
    that is nobody else's."""
    begun = dict(lab.ports)
    lab.engine.kill()
    one = lab.nodes["one"]
    lab.until(lambda: one.events("state", state="directory")[-1]["detail"] != AGAIN, "word")
    assert "directory-away" in str(one.control("status"))
    with KeyedService(9) as service:
        lab.agent("new", [f"127.0.0.1:{one.port}"], {"load": service.target})
        refused = one.wait_event("listener-refused", serial="new")
        assert refused["detail"].startswith("directory-away: ")
        lab.all_reach(*NAMES)
        lab.engine.start()
        lab.until(lambda: lab.engine.ask("HLEN", "rt:revtunnel:claims") == ":3", "what the nodes knew")
        known = [f"rt:revtunnel:node:{name}" for name in NAMES]  # the last one begins the half minute anew
        lab.until(lambda: lab.engine.ask("EXISTS", *known) == ":3", "return of all nodes")
        assert number(one, "new") == 0  # another node may know of more, for half a minute
        lab.until(lambda: lab.engine.ask("DEL", "rt:revtunnel:young") and number(one, "new"), "its port")
        port = one.client_port("new", "load")
        assert port not in begun.values()
        lab.ports["new", "load"] = port
        lab.until(lambda: numbers(lab, "new") == {port}, "it at all nodes")
    lab.all_reach(*NAMES)
    assert {serial: numbers(lab, serial) for serial, _ in begun} == {
        serial: {port} for (serial, _), port in begun.items()
    }


def test_of_two_devices_with_one_reservation_one_has_it(lab: NodesLab) -> None:
    """The first; the other's node opens it for neither, until it is given back."""
    first = int(str(lab.nodes["one"].settings["pool default"]["ranges"]).partition("-")[0])
    port = first + 250
    for name, serial in (("one", "left"), ("two", "right")):
        node = lab.nodes[name]
        node.settings["reservations"] = {f"{serial}/load": port}
        node.write()
        node.control("reload")
        node.wait_until(lambda: number(lab.nodes["one"], "left") == port, "the first one's")
    with KeyedService(10) as left, KeyedService(11) as right:
        lab.agent("right", [f"127.0.0.1:{lab.nodes['two'].port}"], {"load": right.target})
        held = lab.agent("left", [f"127.0.0.1:{lab.nodes['one'].port}"], {"load": left.target})
        lab.nodes["two"].wait_event("listener-refused", serial="right", target="load")
        lab.nodes["one"].wait_link("left")
        lab.ports[serial_of(10), "load"] = lab.ports[serial_of(11), "load"] = port
        for name in ("one", "three"):
            lab.until(lambda: lab.reaches(name, 10), "the first one")  # noqa: B023
        assert lab.ask("two", 10, 1, 10) == lab.ask("two", 11, 1, 10) == "none"
        held.stop()
        lab.nodes["one"].wait_event("link-down", serial="left")
        for node in (lab.nodes["one"], lab.nodes["two"]):
            node.settings["reservations"].pop("left/load", None)
            node.write()
            node.control("reload")
        lab.nodes["one"].control("release", "left/load")
        for name in NAMES:
            lab.until(lambda: lab.reaches(name, 11), "the second one")  # noqa: B023


def test_a_device_has_its_caps_at_all_nodes_together(lab: NodesLab) -> None:
    """Clients are counted where it is, whichever node they came by."""
    held = next(name for name, node in lab.nodes.items() if serial_of(1) in lab.held(node))
    node = lab.nodes[held]
    node.settings["limits"] = {**node.settings.get("limits", {}), "clients_per_device": 2}
    node.write()
    node.control("reload")
    before = len(node.events("client-refused", serial=serial_of(1)))
    port = lab.ports[serial_of(1), "load"]
    with begin(port, 1, 5, lab.hosts["one"]), begin(port, 1, 6, lab.hosts["two"]):
        lab.until(lambda: len(node.control("channels", serial_of(1))["channels"]) == 2, "two clients")
        assert lab.ask("three", 1, 7, 10) == "none"
    assert [each["reason"] for each in node.events("client-refused", serial=serial_of(1))][before:] == [
        "too-many-clients"
    ]
