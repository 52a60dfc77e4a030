"""A client at one node and a device at another: every byte, every ending, every word, over one more hop."""

import socket
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.carriers.sockets_first import HEAVY, SocketsFirst
from revtunnel.cluster import peer_hub
from revtunnel.cluster.cluster_system import merged
from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.named_targets import named
from revtunnel.cluster.peer_hub import AT_ONCE
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, ClientRefused, LinkRefused, ServerState
from revtunnel.ground.limits import AgentLimits
from revtunnel.link.following import place_to_go
from revtunnel.process.admin.operation_form import Row
from revtunnel.process.admin.refusals import NotFound
from tests.support.nodes_world import NodesWorld


@pytest.fixture(params=["socket auto", "auto auto", "socket link", "link link"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NodesWorld]:
    """Two nodes; clients go by data sockets or by the link, between nodes and then to the device."""
    between, device = request.param.split()
    with NodesWorld(tmp_path, "one", "two", rule=between, device=device) as world:
        yield world


def test_bytes_are_exact_both_ways_and_each_half_ends_by_itself(nodes: NodesWorld) -> None:
    """What a client says at one node its service hears at the other, and the other way."""
    nodes.talk_to_both_ends("one", "two")
    nodes.until(lambda: not nodes["one"].switchboard.clients and not nodes["two"].switchboard.clients)


def test_a_few_clients_have_the_sockets_that_wait_and_a_crowd_goes_by_the_link(tmp_path: Path) -> None:
    """The first one by the link; then as many as may, each by a socket that was there already."""
    with NodesWorld(tmp_path, "one", "two") as nodes:
        hub = nodes["one"].cluster.hub
        nodes.talk("one", "two")
        carrier = hub.carrier("two")
        assert isinstance(carrier, SocketsFirst)
        for number in range(int(AT_ONCE) + 3):
            if number < AT_ONCE:
                nodes.until(lambda: carrier.pool.core.warm, "a socket that waits")
            carrier._allowed._since = carrier.pool.now()  # type: ignore[attr-defined]
            client, service = nodes.talk("one", "two")
            nodes["one"].carry(client, service, b"hello")
        ways = Counter(row.carrier for row in carrier.rows())
        assert ways == {"link": 4, "socket": AT_ONCE}


def test_a_heavy_client_has_sockets_for_the_next_ones_of_its_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link is for short ones; those of other devices of that node go on there."""
    monkeypatch.setattr(peer_hub, "AT_ONCE", 0.0)
    monkeypatch.setattr(peer_hub, "EACH_SECOND", 0.0)
    with NodesWorld(tmp_path, "one", "two") as nodes:
        hub = nodes["one"].cluster.hub

        def ways() -> list[str]:
            carrier = hub.carrier("two")
            return sorted(row.carrier for row in carrier.rows()) if carrier is not None else []

        client, service = nodes.talk("one", "two")
        nodes["one"].carry(client, service, b"hello")
        nodes.talk("one", "two")
        nodes.until(lambda: ways() == ["link", "link"])
        nodes["one"].carry(service, client, bytes(HEAVY))
        client, service = nodes.talk("one", "two")
        nodes["one"].carry(client, service, b"hello")
        assert ways() == ["link", "link", "socket"]
        carrier: Any = hub.carrier("two")
        there, other = (SimpleNamespace(target=named(each, "echo")) for each in ("dev-two", "dev-2"))
        assert carrier.prefers_link(other) and not carrier.prefers_link(there)


def test_a_reset_of_either_side_resets_the_other(nodes: NodesWorld) -> None:
    """Also through two nodes a cut is no end in order."""
    for cut_client in (True, False):
        client, service = nodes.talk("one", "two")
        nodes["one"].carry(client, service, b"hello")
        cut, stays = (client, service) if cut_client else (service, client)
        cut.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        cut.close()
        assert nodes["one"].ending(stays) == "reset"


def test_a_cut_between_nodes_before_the_target_answered_is_told(tmp_path: Path) -> None:
    """It came when nobody read that client, and the service must not wait for him."""
    with NodesWorld(tmp_path, "one", "two", rule="socket") as nodes:
        node, answer, dial = nodes["two"], Deferred[None](), nodes["two"].dialler.dial
        node.dialler.dial = lambda *more: answer.addCallback(lambda _: dial(*more))  # type: ignore[method-assign,assignment,return-value]
        nodes.client("one", "two")
        nodes.until(lambda: any(each.opening for each in node.switchboard.data._opening), "its CONNECT")
        (stream,) = nodes["one"].switchboard.data._opening
        assert stream._socket is not None
        stream._socket.end.sock.shutdown(socket.SHUT_WR)  # over TLS that is no end in order
        nodes.loop.settle(quiet=0.1)
        answer.callback(None)
        assert node.ending(node.service()) == "reset"


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
    nodes.until(lambda: nodes["two"].of(ClientRefused) and nodes["one"].of(ChannelEnded))
    assert [fact.reason for fact in nodes["two"].of(ClientRefused)] == ["not-allowed"]
    assert [fact.reason.word for fact in nodes["one"].of(ChannelEnded)] == ["not-allowed"]


@pytest.mark.parametrize("away", [False, True])
def test_a_device_that_comes_while_the_directory_is_asked_serves_its_client(
    away: bool, tmp_path: Path
) -> None:
    """Whatever the answer says: it is here."""
    with NodesWorld(tmp_path, "one", "two") as nodes:
        one, asked = nodes["one"], Deferred[Any]()
        one.uplink.abort()
        nodes.until(lambda: not one.switchboard.links)
        one.cluster.directory.find = lambda serial: asked  # type: ignore[method-assign]
        port = one.switchboard.client_streams.clients_of_absent("dev-one", "echo")
        listening = one.listeners.listen("127.0.0.1", 0, 100, port.came)
        client = nodes.client("one", "one", listening.port)
        nodes.until(lambda: one.switchboard.clients == 1)
        one.uplink = one.make_uplink()
        one.uplink.start()
        nodes.until(lambda: one.switchboard.links)
        (offer,) = one.switchboard.fleet.get("dev-one").offers  # type: ignore[union-attr]
        port.target = offer.target  # as the port has it, once it is opened for a device that is here
        asked.errback(DirectoryAway("no")) if away else asked.callback(None)
        one.carry(client, one.service(), b"at once")
        listening.stop()


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


def test_a_client_that_waits_is_served_when_its_device_comes_to_another_node(tmp_path: Path) -> None:
    """Where its pool lets it wait."""
    with NodesWorld(tmp_path, "one", "two") as nodes:
        one, two = nodes["one"], nodes["two"]
        two.uplink.abort()
        nodes.until(lambda: not two.switchboard.links)
        one.switchboard.client_streams.waits = lambda client: ("default", 60.0)
        client = nodes.client("one", "two")
        nodes.until(lambda: one.switchboard.client_streams.waiting.serials == ["dev-two"])
        two.uplink = two.make_uplink()
        two.uplink.start()
        nodes.until(lambda: two.switchboard.links)
        one.cluster.look()
        two.carry(client, two.service(), b"at last")


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


def test_whoever_is_not_among_the_peers_is_refused(tmp_path: Path) -> None:
    """A certificate of the same authority is not enough where the settings name the nodes."""
    with NodesWorld(tmp_path, "one", "two", strangers=("three",)) as nodes:
        nodes.until(lambda: nodes["one"].of(LinkRefused))
        refused = nodes["one"].of(LinkRefused)[0]
        assert (refused.reason, refused.detail) == ("denied", "three is no node of this cluster")
        assert set(nodes["one"].cluster.hub.links) == {"two"}


def test_of_two_processes_with_one_name_the_earlier_is_told(tmp_path: Path) -> None:
    """By whichever node the later one has dialled."""
    told: list[str] = []
    with NodesWorld(tmp_path, "one", "two", twins=("two",)) as nodes:
        nodes["two"].cluster.directory.usurped = lambda: told.append("two")
        nodes.twins[0].cluster.look()
        nodes.until(lambda: told)
        nodes["two"].cluster.dials.stop()


def test_listings_of_several_nodes_are_one(tmp_path: Path) -> None:
    """In the order of serials, page by page; of a device that two know, where it is."""

    def row(serial: str, node: str, online: bool = True, since: str = "2026-01-01") -> Row:
        return {"serial": serial, "node": node, "online": online, "links_total": 1, "since": since}

    one = [row("a", "one"), row("c", "one", False, "2026-03-01"), row("e", "one")]
    two = [row("b", "two"), row("c", "two"), row("d", "two", False)]
    rows, after = merged([(one, None), (two, None)], 200)
    assert [(each["serial"], each["node"]) for each in rows] == [
        ("a", "one"), ("b", "two"), ("c", "two"), ("d", "two"), ("e", "one"),
    ]  # fmt: skip
    assert after is None
    rows, after = merged([(one, None), (two, None)], 2)
    assert ([each["serial"] for each in rows], after) == (["a", "b"], "b")
    rows, after = merged([(one, "e"), (two[:2], "c")], 200)
    assert ([each["serial"] for each in rows], after) == (["a", "b", "c"], "c")
    assert merged([([], None), ([], None)], 200) == ([], None)


def test_a_node_is_drained_from_another_one(tmp_path: Path) -> None:
    """Whether or not its answer comes before its end; one that has no link is not found."""
    with NodesWorld(tmp_path, "one", "two") as nodes:
        cluster, told = nodes["one"].cluster, list[object]()
        nodes["two"].operator.on_drain = nodes["two"].cluster.stop
        nodes["one"].loop.wait(cluster.drain_node("two").addBoth(told.append))
        assert isinstance(told[0], dict | None)
        nodes.until(lambda: "two" not in cluster.callers)
        with pytest.raises(NotFound):
            cluster.drain_node("two")


@pytest.mark.parametrize("mesh", [True, False])
def test_the_agents_of_a_node_move_while_it_serves_them(mesh: bool, tmp_path: Path) -> None:
    """A stream goes on, clients of either node reach the device where it went; later agents are sent on."""
    with NodesWorld(tmp_path, "one", "two", mesh=mesh) as nodes:
        one, two = nodes["one"], nodes["two"]
        two.cluster.look()
        one.cluster.look()
        nodes.until(lambda: all(each.agents for each in one.cluster.directory.nodes()))
        one.uplink.change([one.place, two.place], AgentLimits())
        one.uplink.sent_to = partial(place_to_go, rule="configured")
        client, service = nodes.talk("two", "one")
        assert not one.cluster.stops
        moved = list[object]()
        one.cluster.move(30.0).addBoth(moved.append)
        nodes.until(lambda: two.switchboard.fleet.get("dev-one"), "its device")
        nodes.until(lambda: moved)
        assert moved == [None]
        assert one.cluster.stops
        one.carry(client, service, b"as before")
        (port,) = (each.lease.port for each in two.ports.of("dev-one"))
        for name, number in (("two", port), ("one", 0)):
            nodes[name].carry(*nodes.talk(name, "one", number), b"here")
        one.uplink.rounds.first(one.place)
        two.switchboard.kick("dev-one", "for a test", 0)
        nodes.until(lambda: one.of(LinkRefused), "a refusal")
        nodes.until(lambda: two.switchboard.fleet.get("dev-one").link)  # type: ignore[union-attr]
        assert [(each.serial, each.reason) for each in one.of(LinkRefused)] == [("dev-one", "stopping")]
        assert (
            ", as it says" in [each.detail for each in one.agent_facts if isinstance(each, ServerState)][-1]
        )


def test_nodes_are_listed_with_the_links_to_them(tmp_path: Path) -> None:
    """As this node sees them."""
    with NodesWorld(tmp_path, "one", "two") as nodes:
        cluster = nodes["one"].cluster
        nodes["two"].cluster.look()
        cluster.look()

        def page(after: str = "", limit: int = 200) -> Any:
            return nodes.loop.wait(cluster.nodes(after, limit))

        nodes.until(lambda: [each.devices for each in cluster.directory.nodes()] == [1, 1])
        assert [(row["devices"], row["load"] is None, row["engine_trip"]) for row in page()[0]] == [
            (1, False, None),
            (1, False, None),
        ]
        rows, after = page("", 1)
        assert (rows[0]["node"], rows[0]["here"], after) == ("one", True, "one")
        rows, after = page("one", 1)
        assert (rows[0]["node"], rows[0]["linked"], rows[0]["state"], after) == ("two", True, "up", None)
