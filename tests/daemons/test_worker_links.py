"""A client that came to the parent, of a device at a worker: one connection more within this machine.

Two nodes; the device of the second is at a worker of it, which is here the same process: what the parent
tells is done by the methods of a worker's board. Everything between the two is real.
"""

import socket
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.cluster.forwarded_clients import ForwardedSocket
from revtunnel.daemons.worker_board import WorkerBoard
from revtunnel.daemons.worker_links import WorkerCarrier
from revtunnel.daemons.worker_streams import WorkerStreams
from revtunnel.ground.facts import ChannelEnded, ChannelOpened
from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.data_plane import AFTER, DataPlane
from revtunnel.sockets.ends import RECORD, PlainEnd
from revtunnel.sockets.loopback_pair import loopback_pair
from revtunnel.sockets.plane_settings import find_pump
from revtunnel.sockets.relay import Relay, _Side
from revtunnel.streams.clients import Clients, ClientSocket
from revtunnel.streams.dialler import NotDialled
from tests.support.data_world import DataWorld
from tests.support.nodes_world import NodesWorld
from tests.support.world import pattern

pytestmark = pytest.mark.slow

MIB = 1024 * 1024


class ToWorker:
    """The worker of a node's device."""

    drains = False
    relay_limits = RelayLimits()

    def __init__(self, node: DataWorld) -> None:
        self.reactor = node.reactor
        self.streams = WorkerStreams(node.reactor)
        self.refuses = ""
        self.clients: list[ClientSocket] = []
        self._node = node
        device = node.switchboard.fleet.get(node.serial)
        assert device is not None and device.carrier is not None
        self._carrier = device.carrier
        device.carrier = WorkerCarrier(self, node.serial)  # type: ignore[assignment]
        self._board = Namespace(client_streams=self, _reactor=node.reactor)

    def tell(self, name: str, *values: Any, descriptors: tuple[int, ...] = ()) -> None:
        getattr(WorkerBoard, name)(self._board, *values, *descriptors)

    def counted(self, serial: str) -> None:
        """Nobody counts."""

    def clients_by_name(self, serial: str, name: str, left: Any, session: str = "") -> Clients:
        """As a worker's client_streams."""
        target = self._node.offers[0].target

        def admit(client: ClientSocket) -> str:
            self.clients.append(client)
            return self.refuses or self._carrier.open(client)

        refused = lambda client, reason: None  # noqa: E731
        return Clients(self.reactor, serial, name, target, admit, refused, self.clients.remove, session)


class Site(NodesWorld):
    """``worker`` has the device of node two."""

    def __init__(self, directory: Path, rule: str) -> None:
        super().__init__(directory, "one", "two", rule=rule)
        self.worker = ToWorker(self["two"])

    def joined(self) -> Any:
        """What the parent has of its only client."""
        (client,) = self["two"].cluster.dials.data._forwarded
        return client.carried


@pytest.fixture(params=["socket", "link"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """Clients of the other node come on data sockets, or by the link."""
    with Site(tmp_path, request.param) as site:
        yield site


@pytest.fixture
def by_socket(tmp_path: Path) -> Iterator[Site]:
    """On data sockets."""
    with Site(tmp_path, "socket") as site:
        yield site


def test_bytes_are_exact_both_ways_and_each_half_ends_by_itself(site: Site) -> None:
    """Through both nodes and the connection between parent and worker; nothing is left behind."""
    site.talk_to_both_ends("one", "two")
    site.until(lambda: not site.worker.clients and not site["two"].switchboard.clients)


@pytest.mark.parametrize("who", ["client", "service"])
def test_a_reset_of_either_side_resets_the_other(site: Site, who: str) -> None:
    """And is no end in order."""
    client, service = site.talk("one", "two")
    site["one"].carry(client, service, b"hello")
    cut, stays = (client, service) if who == "client" else (service, client)
    cut.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    cut.close()
    assert site["one"].ending(stays) == "reset"
    site.until(lambda: not site.worker.clients and not site["two"].switchboard.clients)


def test_the_device_is_told_the_clients_own_address(site: Site) -> None:
    """Not that of the connection within this machine."""
    client, _ = site.talk("one", "two")
    address = "{}:{}".format(*client.getsockname())
    site.until(lambda: site["two"].of(ChannelOpened))
    assert [fact.peer for fact in site["two"].of(ChannelOpened)] == [address]
    (there,) = site.worker.clients
    assert there.origin is not None and there.origin.peer == address


def test_the_device_is_told_no_address_of_a_client_that_has_none(by_socket: Site) -> None:
    """Least of all that of this machine, which an allow list may have."""
    node = by_socket["two"]
    gone = lambda *client: None  # noqa: E731
    clients = Clients(node.reactor, node.serial, "echo", node.offers[0].target, lambda client: "", gone, gone)
    theirs, ours = loopback_pair()
    client = ForwardedSocket(node.reactor, PlainEnd(ours), clients, None, gone)
    assert client.origin is None
    client.abort()
    theirs.close()


def test_what_the_service_refuses_is_said_at_the_clients_node(site: Site) -> None:
    """With the reason of the agent beside the device, by way of the worker and its parent."""
    site["two"].listening.close()
    client = site.client("one", "two")
    assert site["one"].ending(client) == "reset"
    site.until(lambda: site["one"].of(ChannelEnded))
    assert [fact.reason.word for fact in site["one"].of(ChannelEnded)] == ["refused"]


def test_whom_the_worker_refuses_hears_why(site: Site) -> None:
    """As one of the same process would."""
    site.worker.refuses = "not-allowed"
    client = site.client("one", "two")
    assert site["one"].ending(client) == "reset"
    site.until(lambda: site["one"].of(ChannelEnded))
    (ended,) = site["one"].of(ChannelEnded)
    assert ended.reason is Ended.NOT_ALLOWED
    site.until(lambda: not site.worker.clients and not site["two"].switchboard.clients)


def test_a_worker_that_dies_before_its_answer_resets_the_client(site: Site) -> None:
    """Its end of the connection is cut with it."""
    node, dial = site["two"], site["two"].dialler.dial
    node.dialler.dial = lambda *more: Deferred()  # type: ignore[method-assign,assignment]
    client = site.client("one", "two")
    site.until(lambda: site.worker.clients, "the client at the worker")
    (there,) = site.worker.clients
    assert there._end is not None
    super(type(there), there).abort()
    assert site["one"].ending(client) == "reset"
    (ended,) = site["one"].of(ChannelEnded)
    assert ended.reason is Ended.LINK_LOST
    node.dialler.dial = dial  # type: ignore[method-assign]


def test_a_client_that_leaves_before_the_answer_leaves_the_worker_too(site: Site) -> None:
    """Nobody dials for it any longer than that takes to be seen."""
    node, answer = site["two"], Deferred[Any]()
    node.dialler.dial = lambda *more: answer  # type: ignore[method-assign,assignment]
    client = site.client("one", "two")
    site.until(lambda: site.worker.clients, "the client at the worker")
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    site["one"].advance(1.0)
    site.until(lambda: not site["two"].switchboard.clients, "its end at the parent")
    site["one"].advance(1.0)
    site.until(lambda: not site.worker.clients, "its end at the worker")


class Own:
    """A client of the parent itself, such as CCCP's, whose device is slow to reach its service."""

    def __init__(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node, self._asked = site["two"], list[tuple[Deferred[Any], tuple[Any, ...]]]()
        self._dial = self.node.dialler.dial
        monkeypatch.setattr(self.node.dialler, "dial", self._late)
        near, self.far = loopback_pair()
        board = self.node.switchboard.client_streams
        clients = board.clients_by_name(self.node.serial, self.node.offers[0].name, lambda client: None)
        self.client = clients.came(PlainEnd(near))
        self._site = site
        site.until(lambda: self._asked, "a dial")

    def _late(self, *asked: Any) -> "Deferred[Any]":
        self._asked.append((Deferred(), asked))
        return self._asked[-1][0]

    def answer(self) -> None:
        """It is reached."""
        wanted, asked = self._asked.pop()
        self._dial(*asked).chainDeferred(wanted)

    def refuse(self) -> None:
        """It is not."""
        self._asked.pop()[0].errback(NotDialled(Ended.REFUSED, "not now"))


@pytest.mark.parametrize("size", [5, 3 * RECORD])
def test_first_bytes_of_a_client_of_the_parent_do_not_wait_for_the_answer(
    by_socket: Site, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """They go as those of a client at a port, a record at most; none is lost, or comes twice."""
    own, first = Own(by_socket, monkeypatch), pattern("first", size)
    own.far.send(first)
    (there,) = by_socket.worker.clients
    by_socket.until(lambda: len(there.early) >= min(size, RECORD), "first bytes at the worker")
    assert len(there.early) <= 2 * RECORD
    own.answer()
    service = own.node.service()
    assert own.node.hear(service, size) == first
    own.node.carry(service, own.far, pattern("answer", MIB))
    own.node.carry(own.far, service, pattern("more", MIB))
    own.far.shutdown(socket.SHUT_WR)
    assert own.node.ending(service) == "end of file"
    service.shutdown(socket.SHUT_WR)
    assert own.node.ending(own.far) == "end of file"
    by_socket.until(lambda: own.node.of(ChannelEnded))
    (ended,) = own.node.of(ChannelEnded)
    assert (ended.bytes_to_device, ended.bytes_to_client) == (size + MIB, MIB)
    by_socket.until(lambda: not by_socket.worker.clients and not own.node.switchboard.clients)


@pytest.mark.parametrize("size", [0, 5, 3 * RECORD])
def test_a_client_of_the_parent_that_is_refused_is_reset_whatever_it_has_said(
    by_socket: Site, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """And so is one that leaves before."""
    own = Own(by_socket, monkeypatch)
    own.far.send(pattern("first", size))
    own.far.shutdown(socket.SHUT_WR)
    by_socket["two"].turn()
    own.refuse()
    assert own.node.ending(own.far) == "reset"
    by_socket.until(lambda: not by_socket.worker.clients and not own.node.switchboard.clients)


@pytest.mark.skipif(find_pump() is None, reason="revtunnel._pump was not built")
@pytest.mark.parametrize("both", [True, False])
def test_the_parents_part_is_the_data_planes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, both: bool
) -> None:
    """Of each pair Python reads some times, whatever is moved; without a plane it reads all."""
    readings: list[_Side] = []
    pull = _Side.pull

    def counted(side: _Side, over: bool = False) -> None:
        readings.append(side)
        pull(side, over)

    monkeypatch.setattr(_Side, "pull", counted)
    monkeypatch.setattr(DataWorld, "native", both)
    with Site(tmp_path, "socket") as site:
        client, service = site.talk("one", "two")
        for number in range(2 * AFTER):
            site["one"].carry(client, service, pattern(f"first {number}", 100))
        relay = site.joined()._relay
        assert type(relay) is Relay
        plane = DataPlane.of(site["two"].reactor)
        assert (relay._handle is not None) is both
        before = sum(each.relay is relay for each in readings)
        site["one"].carry(service, client, pattern("more", 4 * MIB))
        after = sum(each.relay is relay for each in readings)
        if plane is not None:
            assert before <= 2 * AFTER and after == before
        else:
            assert after - before >= 4
        assert (relay.to_far, relay.to_near) == (200 * AFTER, 4 * MIB)


def test_what_comes_while_its_end_changes_hands_is_not_lost(by_socket: Site) -> None:
    """The other node may speak as soon as it has our answer."""
    client, service = by_socket.client("one", "two"), None
    client.send(b"at once")
    service = by_socket["two"].service()
    assert by_socket["one"].hear(service, 7) == b"at once"
    client.shutdown(socket.SHUT_WR)
    assert by_socket["one"].ending(service) == "end of file"
