"""Both relays over memory transports: requests, publications, and what happens when peers come and go."""

import json

import pytest

from revtunnel.ground.limits import CameoLimits
from revtunnel.systems.cameo.cameo_admission import CameoRules
from revtunnel.systems.cameo.cameo_facts import PeerLeft, PeerRefused
from revtunnel.systems.cameo.zmtp import encode_command
from tests.support.zmtp_socket import PUBLISHER, RESPONDER, SUBSCRIBER, Site

SERVER = b"0:0"
OUTSIDE = CameoRules("web", outside=True, advertise={10000: 21000})


@pytest.mark.parametrize("cuts", [None, 1, 5])
def test_request_and_answer(cuts: int | None) -> None:
    """Both directions, whatever the pieces; several in one read go out in one write."""
    site = Site(cuts=cuts)
    server = site.connect(RESPONDER, "ROUTER", SERVER)
    client = site.connect(RESPONDER, "DEALER")
    for number in range(10):
        client.send(b"", SERVER, b"", b"%d" % number)
    site.pump()
    assert [message[3] for message in server.messages] == [b"%d" % number for number in range(10)]
    origin = server.messages[0][1]
    server.send(b"", origin, b"", b"answer", b"")
    site.pump()
    assert client.messages == [[b"", SERVER, b"", b"answer", b""]]
    site.finish()


def test_one_write_for_each_peer_and_read() -> None:
    """A burst that arrives together leaves together."""
    site = Site()
    server = site.connect(RESPONDER, "ROUTER", SERVER)
    client = site.connect(RESPONDER, "DEALER")
    before = len(server.pieces)
    for number in range(100):
        client.send(b"", SERVER, b"", b"%d" % number)
    site.pump()
    assert len(server.messages) == 100 and len(server.pieces) == before + 1
    site.finish()


def test_no_lost_first_request() -> None:
    """The client is let in at the moment the server is there; the relay kept nothing of it."""
    site = Site()
    client = site.connect(RESPONDER, "REQ")
    assert client.commands == []
    server = site.connect(RESPONDER, "ROUTER", SERVER)
    assert client.commands == [b"READY"]
    client.send(b"", SERVER, b"", b"first")
    site.pump()
    assert server.messages[0][3] == b"first"
    site.finish()


def test_req_sockets_wait_again_when_the_server_is_gone() -> None:
    """They are parted in order, what was on its way to them first, and come back to wait."""
    site = Site()
    server = site.connect(RESPONDER, "ROUTER", SERVER)
    client, dealer = site.connect(RESPONDER, "REQ"), site.connect(RESPONDER, "DEALER")
    client.send(b"", SERVER, b"", b"x")
    site.pump()
    server.send(b"", server.messages[0][1], b"", b"answer")
    server.pair.near.loseConnection()
    site.advance(3.0)
    assert client.messages == [[b"", SERVER, b"", b"answer"]]
    assert (client.open, dealer.open) == (False, True)
    assert [fact.reason for fact in site.seen(PeerLeft)] == ["lost", "no-server"]
    again = site.connect(RESPONDER, "REQ")
    assert again.commands == []
    site.finish()


def test_newest_local_holder_of_a_name_wins() -> None:
    """Requests go to the newer one; the older one is left alone, else it came back as the newest."""
    site = Site()
    older, newer = (site.connect(RESPONDER, "ROUTER", SERVER) for _ in range(2))
    client = site.connect(RESPONDER, "REQ")
    client.send(b"", SERVER, b"", b"x")
    site.pump()
    assert older.messages == [] and len(newer.messages) == 1
    newer.pair.near.abortConnection()
    site.pump()
    client.send(b"", SERVER, b"", b"y")
    site.pump()
    assert len(older.messages) == 1
    site.finish()


def test_names_from_outside_are_refused() -> None:
    """Also when the agent that carries them is on this machine; without ERROR, for settings may change."""
    site = Site()
    intruder = site.connect(RESPONDER, "ROUTER", SERVER, rules=OUTSIDE)
    site.advance(3.0)
    assert not intruder.open and intruder.commands == []
    assert [fact.reason for fact in site.seen(PeerRefused)] == ["name-not-allowed"]
    assert SERVER not in site.responder.responders.peers
    site.finish()


def test_ports_are_translated_at_the_outside_door() -> None:
    """And nowhere else."""
    site = Site()
    server = site.connect(RESPONDER, "ROUTER", SERVER)
    inside, outside = site.connect(RESPONDER, "REQ"), site.connect(RESPONDER, "REQ", rules=OUTSIDE)
    for client, value in ((inside, 10000), (outside, 21000)):
        client.send(b"", SERVER, b"", b'{"type":36}')
        site.pump()
        server.send(b"", server.messages[-1][1], b"", b'{"message":"OK","value":10000}')
        site.pump()
        assert json.loads(client.messages[-1][3])["value"] == value
    site.finish()


def test_a_request_before_the_answer_of_a_dead_relay_is_not_answered_twice() -> None:
    """Z4: the id of a client that left is never given again."""
    site = Site()
    server = site.connect(RESPONDER, "ROUTER", SERVER)
    first = site.connect(RESPONDER, "REQ")
    first.send(b"", SERVER, b"", b"x")
    site.pump()
    first.pair.near.loseConnection()
    site.pump()
    second = site.connect(RESPONDER, "REQ")
    server.send(b"", server.messages[0][1], b"", b"late")
    site.pump()
    assert second.messages == [] and site.responder.counts["client-gone"] == 1
    site.finish()


@pytest.mark.parametrize("as_command", [False, True])
def test_publications(as_command: bool) -> None:
    """Subscriptions of ZMTP 3.0 and 3.1 alike; publications arrive whole and once."""
    site = Site()
    publisher = site.connect(PUBLISHER, "PUB")
    subscriber, other = site.connect(SUBSCRIBER, "SUB"), site.connect(SUBSCRIBER, "SUB")
    for topic in (b"status", b"st"):
        subscriber.say(encode_command(b"SUBSCRIBE", topic)) if as_command else subscriber.send(b"\1" + topic)
    other.send(b"\1result")
    site.pump()
    assert publisher.messages == [[b"\1status"], [b"\1st"], [b"\1result"]]
    publisher.send(b"status", b'{"id":1}')
    publisher.send(b"keyvalue", b"{}")
    site.pump()
    assert subscriber.messages == [[b"status", b'{"id":1}']] and other.messages == []
    subscriber.say(encode_command(b"CANCEL", b"status")) if as_command else subscriber.send(b"\0status")
    other.pair.near.loseConnection()
    site.pump()
    assert publisher.messages[3:] == [[b"\0status"], [b"\0result"]]
    site.finish()


def test_z6_a_flood_of_subscriptions_ends_the_subscriber() -> None:
    """10 000 topics pass, one more does not; a topic of 1 MiB is refused from its header."""
    site = Site()
    publisher = site.connect(PUBLISHER, "PUB", capacity=1 << 24)
    flood, long = site.connect(SUBSCRIBER, "SUB"), site.connect(SUBSCRIBER, "SUB")
    for number in range(10_001):
        flood.send(b"\1topic-%d" % number)
    long.say(b"\2" + (1 << 20).to_bytes(8, "big"))
    site.advance(3.0)
    assert not flood.open and not long.open and publisher.open
    assert len(site.publisher.publications.topics) == 0
    assert len(publisher.messages) == 20_000
    site.finish()


def test_z7_everything_is_said_again_to_a_publisher_that_comes_back() -> None:
    """Once each."""
    site = Site()
    subscriber = site.connect(SUBSCRIBER, "SUB")
    for topic in (b"a", b"b", b"b"):
        subscriber.send(b"\1" + topic)
    first = site.connect(PUBLISHER, "PUB")
    assert first.messages == [[b"\1a"], [b"\1b"]]
    first.pair.near.loseConnection()
    site.pump()
    assert site.connect(PUBLISHER, "PUB").messages == [[b"\1a"], [b"\1b"]]
    site.finish()


def test_a_publisher_that_never_reads_is_cut_when_it_misses_a_subscription() -> None:
    """It would publish what nobody wants, or not what somebody does."""
    site = Site(CameoLimits(queue_messages=5), capacity=100)
    publisher, subscriber = site.connect(PUBLISHER, "PUB"), site.connect(SUBSCRIBER, "SUB")
    publisher.pair.near.pauseProducing()
    for number in range(2000):
        subscriber.send(b"\1" + b"x" * 200 + b"%d" % number)
        site.pump()
    assert not publisher.pair.far.connected
    assert site.seen(PeerLeft)[0].detail == "does not read its subscriptions"
    site.finish()


def test_an_operator_can_cut_a_peer() -> None:
    """By its address."""
    site = Site()
    client = site.connect(SUBSCRIBER, "SUB")
    address = site.publisher.peers[0].address
    assert site.publisher.close(address) and not site.publisher.close(address)
    site.pump()
    assert not client.open and site.seen(PeerLeft)[0].reason == "operator"
    site.finish()
