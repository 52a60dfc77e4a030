"""The server in the middle: every word of refusal, every limit, counts, and how it drains and stops."""

from dataclasses import replace

import pytest
from twisted.internet.defer import Deferred

from revtunnel.ground.facts import ClientRefused, LinkDown, LinkRefused, LinkUp
from revtunnel.ground.limits import LinkLimits, ServerLimits
from revtunnel.ground.reasons import GoAway
from revtunnel.streams.commands import Command, decode_goaway
from revtunnel.streams.frames import encode_frame
from revtunnel.trust.enrolment import directory_away
from tests.link.test_link import LISTEN, agent_by_hand, frames, stranger
from tests.support.depth import deep
from tests.support.memory import Recorder
from tests.support.world import CONSOLE, LINK_PORT, SERVER, WEB, WIRES, World

LIMITS = ServerLimits()


def words(world: World) -> list[str]:
    """Why clients were refused."""
    return [fact.reason for fact in world.of(ClientRefused)]


# -- clients


def test_n1_more_clients_than_a_device_may_have() -> None:
    """The next is refused at once; when one has left, another may come."""
    world = World(server=replace(LIMITS, clients_per_device=2), serials=("plc-1", "plc-2"))
    client, _ = world.talk()
    world.talk("web")
    late = world.client()
    world.pump()
    assert late.was_reset
    assert words(world) == ["too-many-clients"]
    world.talk(serial="plc-2")
    client.abort()
    world.pump()
    world.talk()
    assert world.switchboard.counts["client-refused too-many-clients"] == 1
    world.finish()


def test_n1_more_clients_than_the_server_may_have() -> None:
    """All devices together."""
    world = World(server=replace(LIMITS, clients=2), serials=("plc-1", "plc-2"))
    world.talk()
    world.talk(serial="plc-2")
    late = world.client(serial="plc-2")
    world.pump()
    assert late.was_reset
    assert words(world) == ["too-many-clients"]
    world.finish()


def test_n1_descriptors_are_kept_for_links() -> None:
    """Clients are refused first; a link still comes in, in the place of a silent stranger."""
    limits = replace(LIMITS, descriptors_kept=2)
    world = World(server=limits, descriptors=3)
    world.talk()
    world.talk()
    late = world.client()
    world.pump()
    assert late.was_reset
    assert words(world) == ["descriptors"]
    first, second, third = (stranger(world) for _ in range(3))
    assert first.lost is not None
    assert second.lost is None
    assert third.lost is None
    for each in (second, third):
        each.transport.write(LISTEN)  # type: ignore[union-attr]
    world.pump()
    assert stranger(world).lost is not None
    assert [fact.reason for fact in world.of(LinkRefused)] == ["overloaded", "descriptors"]
    world.advance(11.0)
    world.finish()


def test_a_client_of_a_device_that_is_leaving_is_refused() -> None:
    """The agent drains: its listeners are closed, or refuse."""
    world = World(refuses=True)
    client, service = world.talk()
    world.agents["plc-1"].uplink.stop(20.0)
    world.pump()
    late = world.client()
    world.pump()
    assert late.was_reset
    assert words(world) == ["device-absent"]
    client.say(b"x")
    world.pump()
    assert service.data == b"x"
    world.finish()


def test_n25_clients_that_come_and_go_leave_nothing() -> None:
    """300 in turn, some gone before their target answered."""
    world = World()
    for number in range(deep(300)):
        client = world.client()
        if number % 3:
            world.pump()
        client.abort() if number % 2 else client.close()
        world.pump()
        world.end_parties()
    world.advance(5.0)
    world.check_rest()
    assert world.server_link().mux.free_numbers == 255  # type: ignore[union-attr]
    assert world.of(ClientRefused) == []
    world.finish()


# -- strangers


def test_strangers_of_one_source_are_limited() -> None:
    """Others still come in; a place is free when one is gone, and nothing is kept of the source."""
    world = World(start=False, server=replace(LIMITS, pending_per_source=2))
    first = stranger(world, source="203.0.113.1")
    second = stranger(world, source="203.0.113.1")
    for each in (first, second):
        each.transport.write(LISTEN)  # type: ignore[union-attr]
    world.pump()
    third = stranger(world, source="203.0.113.1")
    assert third.lost is not None
    assert third.data == b""
    other = stranger(world, source="203.0.113.2")
    assert other.lost is None
    (fact,) = world.of(LinkRefused)
    assert (fact.reason, fact.peer.rpartition(":")[0]) == ("overloaded", "203.0.113.1")
    first.transport.abortConnection()  # type: ignore[union-attr]
    world.pump()
    assert stranger(world, source="203.0.113.1").lost is None
    world.advance(11.0)
    assert len(world.switchboard.admission.places) == 0
    world.finish()


def test_n36_strangers_in_all_are_limited() -> None:
    """Who was silent longest goes for who comes; an agent that is up is not disturbed."""
    world = World(server=replace(LIMITS, pending=3))
    client, service = world.talk()
    kept = [stranger(world, source=f"203.0.113.{n}") for n in range(5)]
    assert [each.lost is None for each in kept] == [False, False, True, True, True]
    client.say(b"x")
    world.pump()
    assert service.data == b"x"
    assert world.switchboard.counts["link-refused overloaded"] == 2
    world.advance(11.0)
    world.finish()


def test_a_link_that_came_in_is_no_stranger() -> None:
    """It frees its place among those that have not finished."""
    world = World(start=False, server=replace(LIMITS, pending_per_source=1))
    first = agent_by_hand(world, "plc-1")
    second = agent_by_hand(world, "plc-2")
    assert first.lost is None
    assert second.lost is None
    assert len(world.switchboard.fleet) == 2
    for each in (first, second):
        each.transport.abortConnection()  # type: ignore[union-attr]
    world.pump()
    world.finish()


def test_a_source_is_told_from_another_by_its_address() -> None:
    """Without its port."""
    world = World(start=False)
    world.reactor.dial(LINK_PORT, Recorder(), "203.0.113.1", SERVER)
    (link,) = world.switchboard.admission.strangers
    assert link.source == "203.0.113.1"


# -- counts


@pytest.mark.parametrize("wire", WIRES)
def test_counts_and_sums(wire: str) -> None:
    """Facts by word, channels by reason, bytes by device."""
    world = World(wire)
    world.service["console"].quick = "reply"
    for _ in range(3):
        client = world.client()
        client.say_more(100)
        client.finish()
        world.pump()
    device = world.switchboard.fleet.get("plc-1")
    assert device is not None
    assert (device.channels, device.links) == (3, 1)
    assert device.bytes_to_device == 300
    assert device.bytes_to_client == sum(len(each.data) for each in world.clients)
    counts = world.switchboard.counts
    assert counts["channel-ended"] == counts["channel-ended closed"] == 3
    assert counts["link-up"] == 1
    world.link_pairs()[0].reset()
    world.pump()
    assert counts["link-down"] == counts["link-down lost"] == 1
    world.finish()


def test_limits_can_change() -> None:
    """For those who come later."""
    world = World()
    client, _ = world.talk()
    world.switchboard.set_limits(replace(LIMITS, clients=1, pool=0))
    late = world.client()
    world.pump()
    assert late.was_reset
    assert client.here
    assert world.switchboard.fleet.limits.clients == 1
    assert world.switchboard.admission.pool.limit == 0
    world.finish()


def test_a_pool_without_credit_still_serves() -> None:
    """Windows stay at their first size."""
    world = World(server=replace(LIMITS, pool=0))
    client, service = world.talk()
    client.say_more(300_000)
    service.say_more(300_000)
    world.pump()
    assert service.data == client.sent
    assert client.data == service.sent
    assert world.switchboard.admission.pool.used == 0
    world.finish()


# -- operators


def test_kick() -> None:
    """The link ends with its channels, and the device may come back after the time it was told."""
    world = World()
    client, _ = world.talk()
    assert not world.switchboard.kick("plc-9", "nobody", 0)
    assert world.switchboard.kick("plc-1", "for a test", 5)
    assert not world.switchboard.kick("plc-1", "twice", 5)
    world.pump()
    assert client.was_reset
    assert [fact.reason for fact in world.of(LinkDown)] == ["kicked"]
    assert world.ports.of("plc-1") == []
    world.advance(10.0)
    assert world.server_link().mux is not None
    world.finish()


# -- drain and stop


def test_n19_drain_waits_for_the_channels_and_takes_nothing_new() -> None:
    """Listeners close, agents are told, running channels end as they like; then it fires."""
    world = World(server=replace(LIMITS, retry_after=600), serials=("plc-1", "plc-2"))
    client, service = world.talk()
    waits = stranger(world, LISTEN)
    fired: list[object] = []
    world.switchboard.drain().addCallback(fired.append)
    world.pump()
    assert waits.lost is not None
    assert fired == []
    assert world.reactor.dial(20000, Recorder()) is None
    assert stranger(world).lost is not None
    assert [fact.reason for fact in world.of(LinkRefused)] == ["stopping", "stopping"]
    client.say_more(5000)
    service.say_more(5000)
    world.pump()
    assert client.data == service.sent
    assert service.data == client.sent
    client.finish()
    service.finish()
    world.pump()
    assert fired == [None]
    assert world.ended() == ["closed"]
    assert world.link_pairs() == []
    assert world.agents["plc-1"].links[0].retry_after == 600
    world.finish()


@pytest.mark.parametrize("wire", WIRES)
def test_drain_without_channels_fires_at_once(wire: str) -> None:
    """And once for everybody who asked."""
    world = World(wire, server=replace(LIMITS, retry_after=600))
    fired: list[int] = []
    world.switchboard.drain().addCallback(lambda _: fired.append(1))
    world.switchboard.drain().addCallback(lambda _: fired.append(2))
    assert fired == [1, 2]
    world.pump()
    world.finish()


def test_drain_twice_while_channels_run_fires_twice() -> None:
    """An operator asked, then a signal."""
    world = World(server=replace(LIMITS, retry_after=600))
    client, _ = world.talk()
    fired: list[int] = []
    world.switchboard.drain().addCallback(lambda _: fired.append(1))
    world.switchboard.drain().addCallback(lambda _: fired.append(2))
    world.pump()
    assert fired == []
    client.abort()
    world.pump()
    assert fired == [1, 2]
    world.finish()


@pytest.mark.parametrize("who", ["client", "service"])
def test_drain_fires_when_the_last_legacy_channel_has_ended(who: str) -> None:
    """The link stays, for the wire has no word for it; the channel's end is what counts."""
    world = World("legacy")
    client, service = world.talk()
    fired: list[object] = []
    world.switchboard.drain().addCallback(fired.append)
    world.pump()
    assert fired == []
    if who == "client":
        world.services["console"][0].quick = "close"
        client.finish()
    else:
        service.close()
    world.pump()
    client.close()
    world.advance(6.0)
    assert fired == [None]
    world.finish()


def test_a_client_that_waits_for_a_number_while_it_drains_is_not_left_hanging() -> None:
    """Nor does it keep the server from its end."""
    world = World(server=replace(LIMITS, retry_after=600), link=LinkLimits(channels=1))
    client, _ = world.talk()
    late = world.client()
    world.pump()
    fired: list[object] = []
    world.switchboard.drain().addCallback(fired.append)
    world.advance(1.0)
    client.abort()
    world.advance(6.0)
    assert late.was_reset  # it got the number, and its agent was about to leave
    world.end_parties()
    world.advance(6.0)
    assert fired == [None]
    world.finish()


def test_a_client_that_was_accepted_while_the_listeners_closed_is_refused() -> None:
    """The kernel had it before, or its PROXY header came late."""
    world = World(server=replace(LIMITS, retry_after=600))
    port = world.ports.of("plc-1")[0]
    keep, _ = world.talk()
    world.switchboard.drain()
    client = Recorder()
    pair = world.reactor.join(client, None)
    port.came(pair.far.plain)  # type: ignore[union-attr]
    world.pump()
    assert client.lost is not None
    assert words(world) == ["draining"]
    keep.abort()
    world.pump()
    world.finish()


def test_stop_ends_everything_at_once() -> None:
    """Channels are reset, agents are told when to come back, strangers are hung up."""
    world = World(server=replace(LIMITS, retry_after=600), serials=("plc-1", "plc-2"))
    pairs = [world.talk(), world.talk(serial="plc-2")]
    hand = agent_by_hand(world, "plc-3")
    waits = stranger(world, LISTEN)
    world.switchboard.stop()
    world.pump()
    assert all(party.was_reset for pair in pairs for party in pair)
    assert world.ended() == ["link-lost", "link-lost"]
    assert waits.lost is not None
    last = frames(hand.data)[-1]
    assert last.command == Command.GOAWAY
    assert decode_goaway(last.payload)[:2] == (GoAway.STOPPING, 600)
    assert [fact.reason for fact in world.of(LinkDown)] == ["stopping"] * 3
    assert world.link_pairs() == []
    world.finish()


def test_an_agent_that_finishes_its_handshake_while_it_drains_is_denied() -> None:
    """It was let in as a stranger before."""
    world = World(start=False)
    world.agents["plc-1"].uplink.start()
    while not world.switchboard.admission.strangers:
        world.reactor.turn()
    world.switchboard.draining = True
    world.pump()
    (fact,) = world.of(LinkRefused)
    assert (fact.reason, fact.serial) == ("stopping", "plc-1")
    assert world.agents["plc-1"].links[0].ended is not None
    assert world.agents["plc-1"].links[0].ended[0] == "stopping"
    world.finish()


def test_a_node_that_waits_for_its_cluster_sends_agents_elsewhere() -> None:
    """As one that stops, until it has joined."""
    world = World(start=False)
    world.switchboard.not_yet = "this node has not joined"
    world.agents["plc-1"].uplink.start()
    world.pump()
    (fact,) = world.of(LinkRefused)
    assert (fact.reason, fact.detail) == ("stopping", "this node has not joined")
    world.switchboard.not_yet = ""
    world.advance(60)
    assert world.of(LinkUp)
    world.finish()


def test_two_devices_in_one_world_do_not_meet() -> None:
    """Every stream's bytes are its own, though all numbers are the same."""
    world = World(serials=("plc-1", "plc-2"), cuts="random")
    talks = [world.talk(name, serial) for serial in ("plc-1", "plc-2") for name in ("console", "web") * 3]
    for client, service in talks:
        client.say_more(5000)
        service.say_more(5000)
    world.pump()
    for client, service in talks:
        assert client.data == service.sent
        assert service.data == client.sent
    assert CONSOLE != WEB
    assert (SERVER, LINK_PORT) in world.reactor.dialled
    world.finish()


# -- certificates that are decided later


def enroller(world: World) -> Recorder:
    """Somebody who asked for a certificate, as over TLS."""
    seen = stranger(world)
    *_, link = world.switchboard.admission.strangers
    link.tls = "TLSv1.3"
    seen.transport.write(encode_frame(Command.ENROLL, 0, bytes(40)))  # type: ignore[union-attr]
    world.pump()
    return seen


def test_whoever_waits_for_a_certificate_gets_it_or_a_word() -> None:
    """Other nodes are asked: he waits as a stranger does, and who asks again meanwhile breaks the rules."""
    world, waiting = World(), list[Deferred[bytes]]()

    def issue(*asked: object) -> Deferred[bytes]:
        waiting.append(Deferred())
        return waiting[-1]

    world.switchboard.admission.issue = issue
    good, bad, twice, gone = (enroller(world) for _ in range(4))
    assert len(waiting) == 4 and len(world.switchboard.admission.strangers) == 4
    twice.transport.write(encode_frame(Command.ENROLL, 0, bytes(40)))  # type: ignore[union-attr]
    gone.transport.abortConnection()  # type: ignore[union-attr]
    world.pump()
    assert len(waiting) == 4
    waiting[0].callback(b"made")
    for each in waiting[1:]:
        each.errback(directory_away("nobody knows"))
    world.pump()
    (made,) = frames(good.data)
    assert (made.command, made.payload) == (Command.CERTIFICATE, b"made")
    (away,) = frames(bad.data)
    assert away.command == Command.GOAWAY
    assert decode_goaway(away.payload)[::2] == (GoAway.OVERLOADED, "directory-away: ask again")
    assert sorted(fact.reason for fact in world.of(LinkRefused)) == ["directory-away", "lost", "protocol"]
    assert not world.switchboard.admission.strangers and not world.switchboard.admission._asking
    world.advance(11.0)
    world.finish()
