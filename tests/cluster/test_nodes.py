"""A client at one node and a device at another: every byte, every ending, every word, over one more hop."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from revtunnel.ground.facts import ChannelEnded, ChannelOpened, ClientRefused
from tests.support.nodes_world import NodesWorld
from tests.support.world import pattern

MIB = 1024 * 1024


@pytest.fixture(params=["auto", "link"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NodesWorld]:
    """Two nodes; clients go by data sockets between them, or by the link."""
    with NodesWorld(tmp_path, "one", "two", rule=request.param) as world:
        yield world


def test_bytes_are_exact_both_ways_and_each_half_ends_by_itself(nodes: NodesWorld) -> None:
    """What a client says at one node its service hears at the other, and the other way."""
    client, service = nodes.talk("one", "two")
    node = nodes["one"]
    node.carry(client, service, pattern("to device", MIB))
    node.carry(service, client, pattern("to client", MIB))
    client.shutdown(socket.SHUT_WR)
    assert node.ending(service) == "end of file"
    node.carry(service, client, pattern("after the end", 100_000))
    service.shutdown(socket.SHUT_WR)
    assert node.ending(client) == "end of file"
    nodes.until(lambda: not nodes["one"].switchboard.clients and not nodes["two"].switchboard.clients)


def test_a_reset_of_either_side_resets_the_other(nodes: NodesWorld) -> None:
    """Also through two nodes a cut is no end in order."""
    for cut_client in (True, False):
        client, service = nodes.talk("one", "two")
        nodes["one"].carry(client, service, b"hello")
        cut, stays = (client, service) if cut_client else (service, client)
        cut.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        cut.close()
        assert nodes["one"].ending(stays) == "reset"


def test_the_device_s_node_knows_the_client_s_own_address(nodes: NodesWorld) -> None:
    """Its facts name it, and its records judge it."""
    client, service = nodes.talk("one", "two")
    address = "{}:{}".format(*client.getsockname())
    nodes.until(lambda: nodes["two"].of(ChannelOpened))
    assert [fact.peer for fact in nodes["two"].of(ChannelOpened)] == [address]
    rows = nodes["two"].switchboard.streams.rows("dev-two")
    assert [row.client for row in rows] == [address]
    client.close()
    assert nodes["two"].ending(service) in ("end of file", "reset")


def test_what_the_service_refuses_is_said_at_the_client_s_node(nodes: NodesWorld) -> None:
    """With the reason of the agent beside the device."""
    nodes["two"].listening.close()
    client = nodes.client("one", "two")
    assert nodes["one"].ending(client) == "reset"
    nodes.until(lambda: nodes["one"].of(ChannelEnded))
    assert [fact.reason.word for fact in nodes["one"].of(ChannelEnded)] == ["refused"]


def test_a_device_that_is_nowhere_is_absent(nodes: NodesWorld) -> None:
    """And what it does not offer is not allowed."""
    client = nodes.client("one", "three")
    assert nodes["one"].ending(client) == "reset"
    assert [fact.reason for fact in nodes["one"].of(ClientRefused)] == ["device-absent"]
    port = nodes["one"].port_for("dev-two", "console")
    client = nodes.client("one", "two", port)
    assert nodes["one"].ending(client) == "reset"
    nodes.until(lambda: nodes["two"].of(ClientRefused) or nodes["one"].of(ChannelEnded))


def test_a_device_that_went_elsewhere_is_looked_for_once_more(tmp_path: Path) -> None:
    """What is remembered of it was wrong: its client gets its stream all the same, or is refused in words."""
    with NodesWorld(tmp_path, "one", "two", "three", mesh=False) as nodes:
        client, service = nodes.talk("one", "two")
        place = nodes["one"].cluster.directory.known("dev-two")
        assert place is not None and place.node == "two"
        nodes["one"].cluster.directory.known = lambda serial: place._replace(node="three")  # type: ignore[method-assign]
        again, second = nodes.talk("one", "two")
        nodes["one"].carry(again, second, b"hello")
        (ended,) = (fact for fact in nodes["one"].of(ChannelEnded) if fact.reason.word == "not-here")
        assert ended.peer == "{}:{}".format(*again.getsockname())
        nodes["two"].uplink.abort()
        nodes.until(lambda: not nodes["two"].switchboard.links)
        lost = nodes.client("one", "two")
        assert nodes["one"].ending(lost) == "reset"
        assert [fact.reason for fact in nodes["one"].of(ClientRefused)] == ["device-absent"]
        client.close()
        service.close()


def test_the_newest_link_of_a_serial_stays(tmp_path: Path) -> None:
    """A device that comes to another node is served there, and its old link is told so."""
    for mesh in (True, False):
        with NodesWorld(tmp_path, "one", "two", mesh=mesh) as nodes:
            one, two = nodes["one"], nodes["two"]
            nodes.until(lambda: one.switchboard.links)  # noqa: B023
            if mesh:
                one.loop.settle(quiet=0.05)
            moved = one.serial
            two.serial = moved
            two.uplink.abort()
            nodes.until(lambda: not two.switchboard.links)  # noqa: B023
            one.uplink._come_back_no_more()  # its agent does not fight for it
            two.uplink = two.make_uplink()
            two.uplink.start()
            nodes.until(lambda: two.switchboard.links and not one.switchboard.links)  # noqa: B023
            reasons = [fact.reason for fact in one.facts if type(fact).__name__ == "LinkDown"]
            assert "replaced" in reasons


def test_a_node_that_is_cut_off_is_not_asked(tmp_path: Path) -> None:
    """Its devices are nowhere, and a client hears so at once."""
    with NodesWorld(tmp_path, "one", "two") as nodes:
        client, service = nodes.talk("one", "two")
        nodes["two"].cluster.stop()
        nodes.until(lambda: "two" not in nodes["one"].cluster.callers)
        late = nodes.client("one", "two")
        assert nodes["one"].ending(late) == "reset"
        assert [fact.reason for fact in nodes["one"].of(ClientRefused)] == ["device-absent"]
        states = {each.name: each.state for each in nodes["one"].cluster.directory.nodes()}
        assert states == {"one": "up", "two": "away"}
        client.close()
        service.close()


def test_a_stranger_and_one_s_own_name_are_refused(tmp_path: Path) -> None:
    """A certificate of the same authority is not enough where the settings name the nodes."""
    with NodesWorld(tmp_path, "one", "two") as nodes:
        cluster = nodes["one"].cluster
        assert not cluster._is_ours("three") and cluster._is_ours("two")
