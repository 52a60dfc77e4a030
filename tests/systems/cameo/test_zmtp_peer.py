"""One connection of a relay: handshake, deadlines, heartbeats, limits, endings; over memory transports."""

from dataclasses import replace

import pytest
from twisted.internet.error import ConnectionDone

from revtunnel.ground.limits import CameoLimits
from revtunnel.systems.cameo.cameo_admission import CameoRules
from revtunnel.systems.cameo.cameo_facts import PeerLeft, PeerRefused
from revtunnel.systems.cameo.zmtp import GREETING, encode_command, encode_ready
from revtunnel.systems.cameo.zmtp_messages import encode_message, encode_more
from tests.support.zmtp_socket import PUBLISHER, RESPONDER, SUBSCRIBER, Site, ZmtpSocket

SERVER = b"0:0"
ENVELOPE = (b"", SERVER, b"")


def refusals(site: Site) -> list[tuple[str, str]]:
    """Reason and detail of every connection that was refused."""
    return [(fact.reason, fact.detail) for fact in site.seen(PeerRefused)]


@pytest.mark.parametrize("cuts", [None, 1, 7])
def test_handshake(cuts: int | None) -> None:
    """Our greeting comes at once, our READY after the peer's; the socket type is that of the port."""
    site = Site(cuts=cuts)
    socket = site.dial(RESPONDER)
    site.pump()
    assert socket.data == GREETING
    socket.say(GREETING + encode_ready(b"ROUTER", SERVER))
    site.pump()
    assert bytes(socket.data[64:]) == encode_ready(b"ROUTER", b"R")
    for where, kind, ours in ((SUBSCRIBER, "SUB", b"XPUB"), (PUBLISHER, "PUB", b"XSUB")):
        socket = site.connect(where, kind)
        assert bytes(socket.data[64:]) == encode_ready(ours)
    site.finish()


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x01\x00",
        b"\xff" * 1_000_000,
        GREETING[:10] + b"\x01\x05",
        GREETING[:12] + b"CURVE",
        GREETING + encode_message([b"too early"]),
        GREETING + encode_command(b"PING", b"\0\0"),
        GREETING + b"\xff",
        GREETING + encode_command(b"READY", b"\x05abc"),
    ],
)
@pytest.mark.parametrize("cuts", [None, 1])
def test_z1_bad_beginnings_are_closed(data: bytes, cuts: int | None) -> None:
    """Cleanly, with one fact, and nothing is left ticking."""
    site = Site(cuts=cuts if len(data) < 1000 else None)
    socket = site.dial(RESPONDER)
    socket.say(data)
    site.advance(3.0)
    assert not socket.open and [reason for reason, _ in refusals(site)] == ["protocol"]
    site.finish()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            b"\x16\x03\x01\x02\x00\x01",
            "greeting begins with 0x16, 0xff wanted; this is TLS: nothing speaks it here",
        ),
        (b"POST /x HTTP/1.1\r\n", "this is HTTP: "),
        (bytes.fromhex("00000400"), "this is rt1: agents dial address in [listener NAME]"),
    ],
)
def test_what_a_stranger_speaks_is_named_in_the_log(said: bytes, words: str) -> None:
    """With the setting that answers it."""
    site = Site()
    site.dial(RESPONDER).say(said)
    site.advance(3.0)
    assert words in refusals(site)[0][1]
    site.finish()


@pytest.mark.parametrize(
    ("where", "kind"),
    [(RESPONDER, "SUB"), (RESPONDER, "REP"), (SUBSCRIBER, "PUB"), (PUBLISHER, "SUB"), (PUBLISHER, "PUSH")],
)
def test_z1_a_socket_that_does_not_belong_here_is_told(where: str, kind: str) -> None:
    """With ERROR, so that it does not come back every 100 ms for ever."""
    site = Site()
    socket = site.connect(where, kind)
    site.advance(3.0)
    assert socket.commands == [b"ERROR"] and not socket.open
    assert refusals(site)[0][0] == "unfit" and kind in refusals(site)[0][1]
    site.finish()


@pytest.mark.parametrize("said", [b"", GREETING[:1], GREETING[:10], GREETING, GREETING + b"\x04"])
def test_the_handshake_has_an_absolute_deadline(said: bytes) -> None:
    """10 seconds from the connect, whatever dribbles in."""
    site = Site()
    socket = site.dial(RESPONDER)
    for byte in said:
        socket.say(bytes((byte,)))
        site.advance(0.1)
    site.advance(9.9 - 0.1 * len(said))
    assert socket.open
    site.advance(0.2)
    assert not socket.open
    assert refusals(site) == [("silent", "no READY in 10 s")]
    site.finish()


def test_a_client_that_waits_for_the_server_has_no_deadline() -> None:
    """Its own socket has: libzmq comes again after 30 s."""
    site = Site()
    client = site.connect(RESPONDER, "REQ")
    site.advance(3600.0)
    assert client.open and client.data == GREETING
    site.connect(RESPONDER, "ROUTER", SERVER)
    assert client.commands == [b"READY"]
    site.finish()


def test_a_message_before_our_ready_is_an_error() -> None:
    """A client that is held back has to hold back too: nothing is queued for the server."""
    site = Site()
    client = site.connect(RESPONDER, "REQ")
    client.send(*ENVELOPE, b"x")
    site.advance(3.0)
    assert not client.open and site.seen(PeerLeft)[0].detail == "a message before READY"
    site.finish()


@pytest.mark.parametrize("size", [1, 2, 3, 64, 10_000])
def test_z3_no_part_of_a_message_is_passed_on(size: int) -> None:
    """A peer dies at any place of a message: the destination sees nothing of it."""
    wire = encode_message([*ENVELOPE, b"part" * 20, b"x" * 300])
    for at in range(1, len(wire), 37):
        site = Site(cuts=size)
        server = site.connect(RESPONDER, "ROUTER", SERVER)
        client = site.connect(RESPONDER, "REQ")
        client.say(wire + wire[:at])
        site.pump()
        client.pair.near.abortConnection()
        site.pump()
        assert len(server.messages) == 1
        assert len(server.data) - 64 - len(encode_ready(b"ROUTER", b"R")) == len(
            encode_message(server.messages[0])
        )
        site.finish()


def test_z2_oversized_messages_end_the_connection_and_nothing_is_forwarded() -> None:
    """2^63 bytes, a million frames, a byte more than the limit; whole messages before it are delivered."""
    limits = CameoLimits(message=1000)
    good = encode_message([*ENVELOPE, b"good"])
    for bad in (
        b"\x03" + (1 << 63).to_bytes(8, "big"),
        b"\x01\x00" * 1_000_000,
        encode_more(b"") + encode_message([SERVER, b"", b"x" * 1000]),
    ):
        site = Site(limits)
        server = site.connect(RESPONDER, "ROUTER", SERVER)
        client = site.connect(RESPONDER, "REQ")
        client.say(good + bad)
        site.advance(3.0)
        assert not client.open and server.open
        assert [message[3] for message in server.messages] == [b"good"]
        site.finish()


def test_incomplete_messages_count_against_the_pool() -> None:
    """Many peers with half a message each cannot fill the memory."""
    site = Site(CameoLimits(pool=1_000_000))
    site.connect(RESPONDER, "ROUTER", SERVER)
    clients = [site.connect(RESPONDER, "REQ") for _ in range(3)]
    for client in clients:
        client.say(encode_more(b"") + b"\x03" + (900_000).to_bytes(8, "big") + b"x" * 400_000)
        site.pump()
    site.advance(3.0)
    assert [client.open for client in clients] == [True, True, False]
    assert 800_000 <= site.pool.used <= 900_000
    assert "pool limit" in site.seen(PeerLeft)[0].detail
    clients[0].pair.near.abortConnection()
    site.pump()
    assert 400_000 <= site.pool.used <= 450_000
    site.finish()


def test_z8_ping_is_answered_with_its_context() -> None:
    """On every port, at any time after READY; one without a TTL and one with a cut TTL do no harm."""
    site = Site()
    for where, kind in ((RESPONDER, "ROUTER"), (SUBSCRIBER, "SUB"), (PUBLISHER, "PUB")):
        socket = site.connect(where, kind, SERVER)
        for data in (b"\0\0context", b"\0", b""):
            socket.say(encode_command(b"PING", data))
        site.pump()
        assert socket.units[-3:] == [(b"PONG", b"context"), (b"PONG", b""), (b"PONG", b"")]
        site.advance(600.0)
        assert socket.open
    site.finish()


def test_z8_a_peer_that_asked_for_it_is_dropped_when_silent() -> None:
    """TTL is in tenths of a second; every byte of it starts the time anew; 0 ends the agreement."""
    site = Site()
    quiet, lively, released = (site.connect(SUBSCRIBER, "SUB") for _ in range(3))
    for socket in (quiet, lively, released):
        socket.say(encode_command(b"PING", b"\0\x32"))
    released.say(encode_command(b"PING", b"\0\0"))
    for _ in range(5):
        site.advance(2.0)
        lively.say(encode_command(b"PING", b"\0\x32"))
    site.pump()
    assert (quiet.open, lively.open, released.open) == (False, True, True)
    assert [fact.reason for fact in site.seen(PeerLeft)] == ["silent"]
    site.finish()


def test_unknown_commands_are_ignored() -> None:
    """After READY; a later version of the protocol may have some."""
    site = Site()
    for where, kind in ((RESPONDER, "ROUTER"), (SUBSCRIBER, "SUB"), (PUBLISHER, "PUB")):
        socket = site.connect(where, kind, SERVER)
        socket.say(encode_command(b"NOVELTY", b"x") + encode_ready(kind.encode()))
        site.pump()
        assert socket.open
    site.finish()


def test_z5_a_peer_that_does_not_read_has_a_bounded_queue_and_gets_whole_messages() -> None:
    """When it reads again it gets those that waited, in order, and the burst was said once."""
    limits = CameoLimits(queue_messages=20)
    site = Site(limits, capacity=10_000)
    slow, quick = site.connect(SUBSCRIBER, "SUB"), site.connect(SUBSCRIBER, "SUB", capacity=1 << 20)
    for socket in (slow, quick):
        socket.say(b"\0\2\1t")
    publisher = site.connect(PUBLISHER, "PUB")
    slow.pair.near.pauseProducing()
    for number in range(300):
        publisher.send(b"t", b"%d" % number, b"x" * 2000)
        site.pump()
    assert len(quick.messages) == 300
    peer = site.publisher.peers[0]
    assert peer.outbox.waiting == 20 and peer.outbox.dropped > 200
    assert site.publisher.facts["messages-dropped"] == 1
    slow.pair.near.resumeProducing()
    site.pump()
    numbers = [int(message[1]) for message in slow.messages]
    assert numbers == sorted(numbers) and len(numbers) == 300 - peer.outbox.dropped
    assert all(message[2] == b"x" * 2000 for message in slow.messages)
    publisher.send(b"t", b"last")
    site.pump()
    assert slow.messages[-1] == [b"t", b"last"]
    site.finish()


def test_pongs_do_not_pile_up_either() -> None:
    """A peer that asks and never reads has its answers dropped like messages."""
    site = Site(CameoLimits(queue_messages=50), capacity=2000)
    socket = site.connect(SUBSCRIBER, "SUB")
    socket.pair.near.pauseProducing()
    for _ in range(49):
        socket.say(encode_command(b"PING", b"\0\0" + bytes(16)) * 200)
        site.pump()
    peer = site.publisher.peers[0]
    assert peer.outbox.waiting <= 50 and peer.outbox.dropped > 1000
    site.finish()


@pytest.mark.parametrize("command", [encode_command(b"PING", b"\0\0"), encode_command(b"WHO", b"")])
@pytest.mark.parametrize(("where", "kind"), [(RESPONDER, "ROUTER"), (SUBSCRIBER, "SUB"), (PUBLISHER, "PUB")])
def test_commands_that_change_nothing_have_a_limit(command: bytes, where: int, kind: str) -> None:
    """In a minute; the next minute is another one."""
    site = Site()
    socket = site.connect(where, kind, SERVER)
    for _ in range(2):
        socket.say(command * 9_999)
        site.pump()
        assert socket.open
        site.advance(61.0)
    socket.say(command * 10_000)
    site.pump()
    assert [fact.detail for fact in site.seen(PeerLeft)] == ["10000 commands that change nothing in 60 s"]
    site.finish()


def test_count_limits_refuse_at_once() -> None:
    """For a connection too many the first that says nothing is reset; where all do, itself."""
    site = Site(CameoLimits(connections=4), rules=CameoRules("", outside=True))
    sockets = [site.dial(RESPONDER) for _ in range(5)]
    site.pump()
    assert [socket.open for socket in sockets] == [False] * 2 + [True] * 3
    assert [reason for reason, _ in refusals(site)] == ["overloaded"] * 2
    for each in sockets[2:]:
        each.say(GREETING[:1])
    site.pump()
    late = site.dial(RESPONDER)
    site.pump()
    assert not late.open
    assert refusals(site)[-1][0] == "too-many-connections"
    sockets[2].pair.near.loseConnection()
    site.pump()
    assert site.dial(RESPONDER).open
    site.finish()


def test_the_third_port_is_closed_to_others() -> None:
    """Even behind an agent on this machine."""
    site = Site()
    socket = site.dial(PUBLISHER, CameoRules("", publishing=True, outside=True))
    site.pump()
    assert not socket.open and refusals(site) == [("not-local", "")]
    site.finish()


def test_drain_gives_everybody_what_waits_and_ends_in_order() -> None:
    """No byte of a whole message is lost; who does not close is cut after two seconds."""
    site = Site(capacity=5000)
    subscriber, stubborn = site.connect(SUBSCRIBER, "SUB"), site.connect(RESPONDER, "ROUTER", SERVER)
    stubborn.pair.far.end.inbox.blocked = True
    subscriber.say(b"\0\1\1")
    publisher = site.connect(PUBLISHER, "PUB")
    subscriber.pair.near.pauseProducing()
    for number in range(100):
        publisher.send(b"%d" % number, b"x" * 3000)
    site.pump()
    ended: list[None] = []
    for relay in site.relays():
        relay.drain().addCallback(ended.append)
    subscriber.pair.near.resumeProducing()
    site.pump()
    assert len(subscriber.messages) == 100 and not subscriber.open
    site.advance(2.1)
    assert len(ended) == 2
    assert {fact.reason for fact in site.seen(PeerLeft)} == {"stopping"}
    site.finish()


def publications_wait(site: Site) -> ZmtpSocket:
    """A subscriber that has not taken what was published for it."""
    subscriber, publisher = site.connect(SUBSCRIBER, "SUB"), site.connect(PUBLISHER, "PUB")
    subscriber.say(b"\0\1\1")
    site.pump()
    subscriber.pair.near.pauseProducing()
    for number in range(20):
        publisher.send(b"%d" % number, b"x" * 3000)
    site.pump()
    return subscriber


def test_a_drain_waits_for_who_takes_nothing_and_then_cuts_it() -> None:
    """After two seconds, whatever is in the buffer."""
    site = Site(capacity=5000)
    subscriber = publications_wait(site)
    drained = site.publisher.drain()
    site.advance(1.9)
    assert not drained.called and subscriber.pair.far.connected
    site.advance(0.2)
    assert drained.called and not subscriber.pair.far.connected
    site.finish()


def test_what_a_peer_says_while_it_is_parted_with_costs_it_nothing() -> None:
    """It was on its way: read and dropped, for what meets a closed socket makes a reset of our last bytes."""
    site = Site(capacity=1 << 20, lossy=True)
    subscriber = publications_wait(site)
    subscriber.pair.to_far.blocked = True
    subscriber.say(b"\0\2\1t")
    site.publisher.drain()
    site.pump()
    subscriber.pair.to_far.blocked = False
    site.pump()
    subscriber.pair.near.resumeProducing()
    site.pump()
    assert len(subscriber.messages) == 20 and subscriber.lost is ConnectionDone
    site.finish()


def test_a_client_that_waits_is_told_nothing_before_it_is_let_in() -> None:
    """Its READY is the first thing it hears, whatever it asks meanwhile."""
    site = Site()
    client = site.connect(RESPONDER, "REQ")
    client.say(encode_command(b"PING", b"\0\0again"))
    site.pump()
    assert client.open and client.data == GREETING
    site.connect(RESPONDER, "ROUTER", SERVER)
    assert client.commands == [b"READY"]
    site.finish()


def test_limits_may_change() -> None:
    """A reload counts for connections that come, and for the count of them at once."""
    site = Site()
    site.connect(RESPONDER, "ROUTER", SERVER)
    smaller = replace(site.limits, message=100, connections=4, topics=1)
    for relay in site.relays():
        relay.set_limits(smaller)
    client = site.connect(RESPONDER, "REQ")
    client.send(*ENVELOPE, b"x" * 200)
    subscriber = site.connect(SUBSCRIBER, "SUB")
    subscriber.say(b"\0\2\1a\0\2\1b")
    site.advance(3.0)
    assert not client.open and not subscriber.open
    site.finish()
