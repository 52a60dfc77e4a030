"""The responder relay's decisions: identities, routes, who waits, who is parted."""

import json
from typing import Any

import pytest

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import Fact
from revtunnel.ground.limits import CameoLimits
from revtunnel.systems.cameo.cameo_admission import CameoRules
from revtunnel.systems.cameo.cameo_facts import (
    CameoServerGone,
    CameoServerSeen,
    NameReplaced,
    RequestRefused,
    Unroutable,
)
from revtunnel.systems.cameo.cameo_peers import CameoPeer
from revtunnel.systems.cameo.cameo_requests import READ_ONLY
from revtunnel.systems.cameo.cameo_responders import SERVER, Responders
from tests.support.cameo import MAIN, a_peer, message, written

RESPONDER = b"responder-676e576d-6102-42d8-ae24-222a7000dfa0-adder:5"
WEB = CameoRules("web", outside=True, advertise={10000: 21000}, refused_types=READ_ONLY)


class Site:
    """A relay with peers; random bytes are a counter."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.now = 0.0
        self._numbers = iter(range(1, 1000))
        self.relay = Responders(lambda size: next(self._numbers).to_bytes(size, "big"), self.facts.append)

    def join(self, peer: CameoPeer, kind: str = "REQ", identity: bytes = b"") -> list[CameoPeer]:
        """A peer says READY; who is let in."""
        entering = self.relay.join(peer, kind, identity, self.now)
        for each in entering:
            each.ready = True
        return entering

    def server(self) -> CameoPeer:
        """The CAMEO server connects."""
        peer = a_peer("127.0.0.1:9")
        self.join(peer, "ROUTER", SERVER)
        return peer

    def client(self, rules: CameoRules = MAIN, kind: str = "REQ") -> CameoPeer:
        """A client connects from another machine."""
        peer = a_peer("192.0.2.7:5", local=False, rules=rules)
        self.join(peer, kind)
        return peer

    def send(self, peer: CameoPeer, *bodies: bytes) -> CameoPeer | None:
        """A message of a peer."""
        return self.relay.receive(peer, message(*bodies))

    def seen(self, kind: type[Fact]) -> list[Any]:
        """Facts of one kind."""
        return [fact for fact in self.facts if isinstance(fact, kind)]


def test_a_request_and_its_answer() -> None:
    """The server sees who asked and answers by echoing the frames; no table is needed."""
    system = Site()
    server, client = system.server(), system.client()
    assert system.send(client, b"", SERVER, b"", b'{"type":1}') is server
    ((_, origin, _, part),) = written(server)
    assert part == b'{"type":1}' and origin == client.identity
    assert system.send(server, b"", origin, b"", b"answer", b"two") is client
    assert written(client) == [[b"", SERVER, b"", b"answer", b"two"]]


def test_frames_one_and_three_are_made_empty_and_parts_stay() -> None:
    """The relay does not check them; parts pass byte for byte, whatever the form of their headers."""
    system = Site()
    server, client = system.server(), system.client()
    system.send(client, b"junk", SERVER, b"junk", b"", b"x" * 300, b"")
    assert written(server) == [[b"", client.identity, b"", b"", b"x" * 300, b""]]


def test_a_named_peer_may_address_anything() -> None:
    """A responder asks the server, the server a responder."""
    system = Site()
    server, responder = system.server(), a_peer()
    system.join(responder, "ROUTER", RESPONDER)
    assert system.send(server, b"", RESPONDER, b"", b"x") is responder
    assert written(responder) == [[b"", SERVER, b"", b"x"]]
    assert system.send(responder, b"", SERVER, b"", b"y") is server


def test_no_forged_replies() -> None:
    """A client addresses names only: the id of another client, even if it knew it, is of no use to it."""
    system = Site()
    system.server()
    victim, attacker = system.client(), system.client()
    assert system.send(attacker, b"", victim.identity, b"", b'{"value":666}') is None
    assert written(victim) == [] and system.relay.counts["forged"] == 1


def test_ids_of_clients_are_random_and_cannot_be_taken() -> None:
    """17 bytes, the first one zero, the others from the source of randomness."""
    system = Site()
    first, second = system.client(), system.client()
    assert first.identity[:1] == second.identity[:1] == b"\0"
    assert len(first.identity) == 17 and first.identity != second.identity
    assert not first.named


@pytest.mark.parametrize("identity", [SERVER, RESPONDER])
def test_names_from_local_peers_only(identity: bytes) -> None:
    """Nobody from outside becomes the server, before or after the server is there."""
    system = Site()
    for _ in range(2):
        with pytest.raises(RemoteError, match="from another machine"):
            system.join(a_peer(local=False), "ROUTER", identity)
        assert identity not in system.relay.peers or system.relay.peers[identity].local
        system.server()


def test_the_newest_local_holder_of_a_name_wins() -> None:
    """The older connection may be half dead: its end changes nothing, that of the newer gives it the name."""
    system = Site()
    older, newer = system.server(), a_peer("127.0.0.1:10")
    system.join(newer, "ROUTER", SERVER)
    assert system.relay.peers[SERVER] is newer
    assert system.seen(NameReplaced) == [NameReplaced("responder", "0:0", "127.0.0.1:10", older.address)]
    client = system.client()
    assert system.send(client, b"", SERVER, b"", b"x") is newer
    assert system.send(older, b"", client.identity, b"", b"an answer of before") is client
    newest = a_peer("127.0.0.1:11")
    system.join(newest, "ROUTER", SERVER)
    assert system.relay.leave(newer, 0.0) == []
    assert system.send(client, b"", SERVER, b"", b"x") is newest
    assert system.relay.leave(newest, 0.0) == []
    assert system.send(client, b"", SERVER, b"", b"x") is older
    assert system.seen(CameoServerGone) == []
    assert system.relay.leave(older, 0.0) == [client]
    assert len(system.seen(CameoServerGone)) == 1 and not system.relay._older


def test_no_lost_first_request() -> None:
    """Clients without a name wait for the server, in the order they came, and nothing is stored for them."""
    system = Site()
    req, dealer = system.client(), system.client(kind="DEALER")
    responder = a_peer()
    assert list(system.relay.waiting) == [req, dealer]
    assert system.join(responder, "ROUTER", RESPONDER) == [responder]
    server = a_peer()
    assert system.join(server, "ROUTER", SERVER) == [server, req, dealer]
    assert not system.relay.waiting
    assert system.seen(CameoServerSeen) == [CameoServerSeen("127.0.0.1:1", 2)]
    late = a_peer(local=False)
    assert system.join(late) == [late]


def test_a_client_that_gave_up_waiting_is_forgotten() -> None:
    """It is not let in when it is gone."""
    system = Site()
    client = system.client()
    system.relay.leave(client, 0.0)
    server = a_peer()
    assert system.join(server, "ROUTER", SERVER) == [server]


def test_when_the_server_goes_its_req_sockets_are_parted_to_wait() -> None:
    """Those that never asked a responder; DEALER sockets, and who has a request elsewhere, are left alone."""
    system = Site()
    server = system.server()
    asks, both, dealer, idle = system.client(), system.client(), system.client(kind="DEALER"), system.client()
    system.send(asks, b"", SERVER, b"", b"x")
    system.send(both, b"", SERVER, b"", b"x")
    system.send(both, b"", RESPONDER, b"", b"x")
    system.now = 7.5
    assert system.relay.leave(server, system.now) == [asks, idle]
    assert dealer.identity in system.relay.peers
    assert system.seen(CameoServerGone) == [CameoServerGone("127.0.0.1:9", 7.5)]
    assert system.relay.leave(server, system.now) == []


def test_z4_unknown_destinations_are_counted_by_name_and_told_once() -> None:
    """Until somebody has the name; then it may be told again."""
    system = Site()
    system.server()
    client = system.client()
    for _ in range(3):
        assert system.send(client, b"", RESPONDER, b"", b"x") is None
    assert system.relay.unroutable == {RESPONDER.decode(): 3}
    assert len(system.seen(Unroutable)) == 1
    responder = a_peer()
    system.join(responder, "ROUTER", RESPONDER)
    system.relay.leave(responder, 0.0)
    system.send(client, b"", RESPONDER, b"", b"x")
    assert len(system.seen(Unroutable)) == 2


def test_z4_an_answer_after_the_requester_left_is_dropped() -> None:
    """It never goes to another: ids are not used twice."""
    system = Site()
    server, client = system.server(), system.client()
    system.relay.leave(client, 0.0)
    other = system.client()
    assert system.send(server, b"", client.identity, b"", b"late") is None
    assert written(other) == [] and system.relay.counts["client-gone"] == 1
    assert not system.seen(Unroutable)


def test_unroutable_names_are_bounded() -> None:
    """A client that makes names up fills nothing."""
    system = Site()
    client = system.client()
    for number in range(3000):
        system.send(client, b"", b"name-%d" % number, b"", b"x")
    assert len(system.relay.unroutable) == 1000 and len(system.seen(Unroutable)) == 1000
    assert system.relay.counts["unroutable"] == 3000


def test_too_few_frames() -> None:
    """Fewer than envelope and one part: dropped."""
    system = Site()
    server, client = system.server(), system.client()
    for bodies in ((b"",), (b"", SERVER), (b"", SERVER, b"")):
        assert system.send(client, *bodies) is None
    assert written(server) == [] and system.relay.counts["too-short"] == 3


def test_z5_a_backend_that_does_not_take_loses_whole_messages() -> None:
    """Counted, and nobody else is touched."""
    system = Site()
    server = a_peer(limits=CameoLimits(queue_messages=1))
    system.join(server, "ROUTER", SERVER)
    server.outbox.full = True
    client = system.client()
    assert system.send(client, b"", SERVER, b"", b"1") is server
    assert system.send(client, b"", SERVER, b"", b"2") is None
    assert (server.outbox.waiting, server.outbox.dropped, system.relay.counts["slow"]) == (1, 1, 1)


# ---- through an outside listener


def test_port_answers_are_translated_for_an_outside_client_only() -> None:
    """The type of its last request to the server decides; the same answer to others stays."""
    system = Site()
    server, inside, outside = system.server(), system.client(), system.client(WEB)
    answer = b'{"message":"OK","value":10000}'
    for client, value in ((inside, 10000), (outside, 21000)):
        system.send(client, b"", SERVER, b"", b'{"type":36}')
        system.send(server, b"", client.identity, b"", answer)
        ((*_, text),) = written(client)
        assert json.loads(text)["value"] == value
    system.send(outside, b"", SERVER, b"", b'{"type":13}')
    system.send(server, b"", outside.identity, b"", answer)
    assert written(outside)[0][3] == answer


def test_a_ping_of_a_responder_is_not_a_question_for_a_port() -> None:
    """Type 36 means two things: what a responder answers is never touched."""
    system = Site()
    system.server()
    responder, client = a_peer(), system.client(WEB)
    system.join(responder, "ROUTER", RESPONDER)
    system.send(client, b"", SERVER, b"", b'{"type":36}')
    system.send(client, b"", RESPONDER, b"", b'{"type":36}')
    assert written(responder) == [[b"", client.identity, b"", b'{"type":36}']]
    system.send(responder, b"", client.identity, b"", b'{"type":37,"value":10000}')
    assert written(client) == [[b"", RESPONDER, b"", b'{"type":37,"value":10000}']]


def test_policy_by_type() -> None:
    """Refused requests never reach the server; START is answered, a question for a port is not."""
    system = Site()
    server, client = system.server(), system.client(WEB)
    for kind in (3, 29):
        assert system.send(client, b"", SERVER, b"", b'{"type":%d}' % kind) is client
    assert system.send(client, b"", SERVER, b"", b"not json") is client
    assert written(server) == []
    ((first, name, second, text),) = written(client)
    assert (first, name, second, json.loads(text)["value"]) == (b"", SERVER, b"", -1)
    assert [(fact.type, fact.answered) for fact in system.seen(RequestRefused)] == [
        (3, True),
        (29, False),
        (-1, False),
    ]
    assert system.relay.counts["refused"] == 3
    assert system.send(client, b"", SERVER, b"", b'{"type":14}') is server


def test_the_policy_is_of_the_server_only() -> None:
    """A request to a responder is the application's business."""
    system = Site()
    system.server()
    responder, client = a_peer(), system.client(WEB)
    system.join(responder, "ROUTER", RESPONDER)
    assert system.send(client, b"", RESPONDER, b"", b'{"type":3}') is responder
    inside = system.client()
    assert system.send(inside, b"", SERVER, b"", b'{"type":3}') is system.relay.peers[SERVER]
