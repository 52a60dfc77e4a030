"""The server's end: who comes in, who is replaced, who waits for a number, what a legacy device is asked."""

from dataclasses import replace

import pytest

from revtunnel.ground.facts import ChannelEnded, ClientRefused, LinkDown, LinkRefused, LinkUp, PeerGlitch
from revtunnel.ground.limits import LinkLimits, ServerLimits
from revtunnel.ground.networks import NetworkTable, network_of
from revtunnel.ground.reasons import GoAway
from revtunnel.link.agent_link import AgentLink
from revtunnel.link.handshake import (
    AgentHandshake,
    AgentHello,
    ListenerRules,
    ServerHandshake,
    ServerUp,
)
from revtunnel.link.keys import new_key, parse_key, verifier_of
from revtunnel.streams.commands import Command, decode_connect, decode_goaway
from revtunnel.streams.frames import encode_frame
from tests.link.test_link import LISTEN, agent_by_hand, frames, stranger
from tests.support.depth import deep
from tests.support.memory import Recorder
from tests.support.world import CONSOLE, LINK_PORT, SERVER, WEB, WIRES, World

KEY = parse_key(new_key(lambda size: bytes(range(size))))
DENIED = GoAway.DENIED


def refusals(world: World) -> list[str]:
    """The words of links that never were."""
    return [fact.reason for fact in world.of(LinkRefused)]


def with_key(world: World, key: bytes | None, serial: str = "plc-1") -> AgentLink:
    """One more agent, with a key; its first link."""
    agent = world.add_agent(serial, (CONSOLE, WEB), start=False)
    made = agent.uplink._make

    def make(ready: object, left: object) -> AgentLink:
        link = made(ready, left)
        hello = AgentHello(serial, bytes(31) + bytes([len(agent.links)]), (CONSOLE, WEB))
        link._shake = AgentHandshake(hello, key, False)
        return link

    agent.uplink._make = make
    agent.uplink.start()
    world.pump()
    return agent.links[0]


# -- keys


def keyed(start: bool = False) -> World:
    """A world whose listener wants keys and knows plc-1's."""
    world = World(start=start, keys={"plc-1": verifier_of(KEY, "plc-1")})
    world.listener(rules=ListenerRules("rt1-0", keys_required=True))
    return world


def test_a_device_with_its_key_comes_in() -> None:
    """Authenticated on both sides."""
    world = keyed()
    link = with_key(world, KEY)
    assert link.server is not None
    assert link.server.proof
    (up,) = world.of(LinkUp)
    assert up.authenticated
    assert up.listener == "rt1-0"
    client, service = world.talk()
    client.say(b"x")
    world.pump()
    assert service.data == b"x"
    world.finish()


@pytest.mark.parametrize(("serial", "key"), [("plc-1", bytes(32)), ("plc-9", KEY)])
def test_a_wrong_key_and_an_unknown_serial_get_the_same_answer(serial: str, key: bytes) -> None:
    """GOAWAY denied without a text; our own log knows more."""
    world = keyed()
    link = with_key(world, key, serial)
    assert link.ended is not None
    assert link.ended[0] == "denied"
    assert link.ended[1] == "the server says denied: its log says why"
    (fact,) = world.of(LinkRefused)
    assert (fact.reason, fact.serial) == ("denied", serial)
    assert "proof" in fact.detail or "enrolled" in fact.detail
    world.finish()


def test_a_proof_may_take_longer_than_the_probe() -> None:
    """On a listener that serves legacy devices too: the probe's 1 s is for HELLO, the proof has the rest."""
    world = keyed()
    world.listener(
        rules=ListenerRules("rt1-0", legacy=True, keys_required=True, legacy_serial="old"),
        mappings={"old": (CONSOLE,)},
    )
    agent = world.add_agent("plc-1", (CONSOLE, WEB), start=False)
    made = agent.uplink._make

    def make(ready: object, left: object) -> AgentLink:
        link = made(ready, left)
        link._shake = AgentHandshake(AgentHello("plc-1", bytes(32), (CONSOLE, WEB)), KEY, False)
        return link

    agent.uplink._make = make
    agent.uplink.start()
    while not world.link_pairs():
        world.reactor.turn()
    pair = world.link_pairs()[0]
    while pair.to_near.carried + len(pair.to_near.data) < 4 + 4 + 32:  # probe and CHALLENGE are said
        world.reactor.turn()
    pair.sever()
    world.advance(4.0)
    pair.restore()
    world.pump()
    assert [fact.authenticated for fact in world.of(LinkUp)] == [True]
    world.finish()


def test_a_proof_that_never_comes_is_waited_for_10_s() -> None:
    """Not for ever."""
    world = keyed()
    world.listener(rules=ListenerRules("rt1-0", legacy=True, keys_required=True, legacy_serial="old"))
    from revtunnel.link.handshake import encode_agent_hello

    recorder = stranger(world, LISTEN + encode_agent_hello(AgentHello("plc-1", bytes(32), ())))
    assert frames(recorder.data)[-1].command == Command.CHALLENGE
    world.advance(9.0)
    assert recorder.lost is None
    world.advance(2.0)
    assert recorder.lost is not None
    assert refusals(world) == ["silent"]
    world.finish()


# -- duplicates


def test_r8_a_second_link_replaces_the_first() -> None:
    """newest, as shipped: the old one is told, its channels are reset, the ports stay, both facts say it."""
    world = World()
    client, service = world.talk()
    ports = [port.lease.port for port in world.ports.of("plc-1")]
    old = world.agents["plc-1"]
    world.add_agent("plc-1", (CONSOLE, WEB))
    old.random = 1.0
    world.pump()
    assert client.was_reset
    assert service.was_reset
    assert [fact.replaced for fact in world.of(LinkUp)] == [False, True]
    assert [fact.reason for fact in world.of(LinkDown)] == ["replaced"]
    assert [port.lease.port for port in world.ports.of("plc-1")] == ports
    down = next(fact for fact in old.facts if isinstance(fact, LinkDown))
    assert down.reason == "replaced"
    old.uplink.stop(0.0)
    client, service = world.talk()
    client.say(b"x")
    world.pump()
    assert service.data == b"x"
    world.finish()


def test_r8_the_oldest_stays_where_the_listener_says_so() -> None:
    """The second one is told that it is a duplicate, and keeps away as a failure does."""
    world = World()
    world.listener(duplicate="oldest")
    client, _ = world.talk()
    first = world.agents["plc-1"]
    second = world.add_agent("plc-1", (CONSOLE, WEB))
    world.pump()
    assert refusals(world) == ["duplicate"]
    assert second.links[0].ended is not None
    assert second.links[0].ended[0] == "duplicate"
    assert client.here
    second.uplink.stop(0.0)
    world.agents["plc-1"] = first
    world.finish()


def test_r8_legacy_a_second_device_replaces_the_first() -> None:
    """The wire has no name: the listener is the device."""
    world = World("legacy")
    client, _ = world.talk()
    old = world.agents["plc-1"]
    recorder = stranger(world, LISTEN)
    assert client.was_reset
    assert [fact.reason for fact in world.of(LinkDown)] == ["replaced"]
    assert recorder.lost is None
    old.uplink.stop(0.0)
    recorder.transport.abortConnection()  # type: ignore[union-attr]
    world.finish()


def test_r8_legacy_the_oldest_stays_without_a_word() -> None:
    """A device would stumble over GOAWAY: the second connection is just closed."""
    world = World("legacy")
    world.listener(duplicate="oldest")
    recorder = stranger(world, LISTEN)
    assert recorder.lost is not None
    assert recorder.data == b""
    assert refusals(world) == ["duplicate"]
    world.finish()


def test_r9_two_holders_of_one_key_both_stay_out() -> None:
    """The fourth swap in a minute: the new one is denied, the one that is up is closed, for five minutes."""
    world = keyed()
    others = []
    for _ in range(4):
        with_key(world, KEY)
        others.append(world.agents["plc-1"])
        assert world.server_link().mux is not None
    for agent in others[:-1]:
        agent.uplink.stop(0.0)
    last = with_key(world, KEY)
    assert last.ended is not None
    assert last.ended[0] == "denied"
    device = world.switchboard.fleet.get("plc-1")
    assert device is not None
    assert device.link is None
    others[-1].uplink.stop(0.0)
    world.advance(250.0)
    assert device.link is None
    world.advance(200.0)
    assert device.link is not None
    world.finish()


# -- waiting for a number


@pytest.mark.parametrize("wire", WIRES)
def test_n23_with_every_number_in_use_the_next_client_waits(wire: str) -> None:
    """It gets the first number that is free; nobody is thrown out for it."""
    world = World(wire, link=LinkLimits(channels=3))
    world.service["console"].quick = "close"
    pairs = [world.talk() for _ in range(3)]
    late = world.client()
    world.advance(2.0)
    assert len(world.services["console"]) == 3
    assert all(client.here for client, _ in pairs)
    pairs[0][0].abort()
    world.advance(1.0)
    service = world.services["console"][-1]
    late.say(b"at last")
    world.pump()
    assert service.data == b"at last"
    assert world.of(ClientRefused) == []
    world.finish()


@pytest.mark.parametrize("wire", WIRES)
def test_n23_after_5_s_a_waiting_client_is_refused(wire: str) -> None:
    """With a reset and a word; each has its own 5 s."""
    world = World(wire, link=LinkLimits(channels=1))
    world.talk()
    first = world.client()
    world.advance(3.0)
    second = world.client()
    world.advance(2.5)
    assert first.was_reset
    assert second.here
    assert [fact.reason for fact in world.of(ClientRefused)] == ["no-channel"]
    world.advance(3.0)
    assert second.was_reset
    world.finish()


def test_n23_so_many_may_wait_and_no_more() -> None:
    """The next is refused at once; one that has left no longer counts."""
    world = World("legacy", link=LinkLimits(channels=1, waiting=2))
    world.talk()
    waiting = [world.client() for _ in range(2)]
    third = world.client()
    world.pump()
    assert third.was_reset
    for _, socket in list(world.server_link().channels.waiting):
        if socket.waits:
            socket.abort()
    world.pump()
    fourth = world.client()
    world.pump()
    assert fourth.here
    assert len(world.server_link().channels.waiting) == 1
    assert all(client.was_reset for client in waiting)
    world.finish()


def test_n23_hundreds_that_wait_are_served_together() -> None:
    """255 leave at once, 250 have waited: all get their numbers, in a loop. (A barrier frees all at once.)"""
    numbers = deep(255, 20)
    count = numbers - 5
    world = World("legacy", link=LinkLimits(channels=numbers))
    world.service["console"].quick = world.service["web"].quick = "close"
    first = [world.talk("web")[0] for _ in range(numbers)]
    late = [world.client() for _ in range(count)]
    world.pump()
    assert len(world.server_link().channels.waiting) == count
    for client in first:
        client.abort()
    world.advance(2.0)
    assert world.of(ClientRefused) == []
    for client in late:
        client.say(b"x")
    world.pump()
    assert sum(service.data == b"x" for service in world.services["console"]) == count
    world.finish()


# -- legacy listeners


def test_a_device_that_ignores_the_probe_is_served_after_1_s() -> None:
    """One empty HELLO is all it saw; then CONNECT as a ReadyAgent server sends it."""
    world = World("legacy", start=False)
    world.listener(rules=ListenerRules("legacy-0", legacy=True, probe=True, legacy_serial="plc-1"))
    recorder = stranger(world, LISTEN)
    assert recorder.data == bytes.fromhex("00001001")
    assert world.ports.of("plc-1") == []
    world.advance(1.1)
    (up,) = world.of(LinkUp)
    assert (up.wire, up.serial, up.authenticated) == ("legacy", "plc-1", False)
    world.client()
    world.pump()
    connect = [frame for frame in frames(recorder.data) if frame.command == Command.CONNECT]
    assert decode_connect(connect[0].payload) == CONSOLE.target
    recorder.transport.abortConnection()  # type: ignore[union-attr]
    world.finish()


def test_r8_a_device_that_is_turned_away_after_the_probe() -> None:
    """The oldest stays: also when the second one's second is up."""
    world = World("legacy", start=False)
    rules = ListenerRules("legacy-0", legacy=True, probe=True, legacy_serial="plc-1")
    world.listener(rules=rules, duplicate="oldest")
    first, second = stranger(world, LISTEN), stranger(world, LISTEN)
    world.advance(1.5)
    assert first.lost is None
    assert second.lost is not None
    assert refusals(world) == ["duplicate"]
    first.transport.abortConnection()  # type: ignore[union-attr]
    world.finish()


def test_a_device_that_answers_the_probe_with_data_is_legacy_at_once() -> None:
    """A real device may say CLOSE or DATA for an old number first."""
    world = World("legacy", start=False)
    world.listener(rules=ListenerRules("legacy-0", legacy=True, probe=True, legacy_serial="plc-1"))
    recorder = stranger(world, LISTEN + encode_frame(Command.CLOSE, 3))
    assert [fact.wire for fact in world.of(LinkUp)] == ["legacy"]
    recorder.transport.abortConnection()  # type: ignore[union-attr]
    world.finish()


@pytest.mark.parametrize("probe", [False, True])
def test_devices_that_share_a_listener_are_told_apart_by_their_address(probe: bool) -> None:
    """Each is asked for its own services; who comes from elsewhere is told from them, not taken for one."""
    world = World("legacy", serials=("plc-1",), start=False)
    sources = NetworkTable((network_of(f"10.0.0.{number}"), f"plc-{number}") for number in (1, 2))
    rules = ListenerRules("legacy-0", legacy=True, probe=probe, sources=sources)
    world.listener(rules=rules, mappings={"plc-1": (CONSOLE,), "plc-2": (WEB,)})
    devices = {}
    for source in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
        devices[source] = stranger(world, LISTEN, source)
    world.advance(1.1)
    assert {fact.serial: fact.peer.partition(":")[0] for fact in world.of(LinkUp)} == {
        "plc-1": "10.0.0.1",
        "plc-2": "10.0.0.2",
    }
    (refused,) = world.of(LinkRefused)
    assert (refused.reason, refused.serial) == ("denied", "")
    assert refused.detail == "no device of this listener comes from 10.0.0.3"
    assert devices["10.0.0.3"].lost is not None
    assert devices["10.0.0.3"].data == (bytes.fromhex("00001001") if probe else b"")
    world.client("plc-2", "web")
    world.pump()
    connects = {
        source: [each for each in frames(device.data) if each.command == Command.CONNECT]
        for source, device in devices.items()
    }
    assert [decode_connect(each.payload) for each in connects["10.0.0.2"]] == [WEB.target]
    assert not connects["10.0.0.1"]
    for device in devices.values():
        device.transport.abortConnection()  # type: ignore[union-attr]
    world.finish()


def test_a_certificate_tells_a_device_of_a_shared_listener_too() -> None:
    """And rules out another one that its address would say."""
    sources = NetworkTable([(network_of("10.0.0.1"), "plc-1")])
    rules = ListenerRules("l", legacy=True, probe=False, sources=sources)
    shake = ServerHandshake(rules, LinkLimits(), lambda serial: None, bytes(32))
    shake.source, shake.certified = "10.0.0.1", "plc-2"
    (frame,) = frames(LISTEN)
    assert shake.receive(frame) == (b"", ServerUp("plc-2", None, True))


def test_a_certificate_of_a_device_of_another_listener() -> None:
    """It would be a device with nothing to reach."""
    world = World("legacy", start=False)
    world.listener(rules=ListenerRules("legacy-0", legacy=True, probe=False), mappings={"plc-2": (CONSOLE,)})
    recorder = Recorder()
    world.reactor.dial(LINK_PORT, recorder, host=SERVER)
    (link,) = world.switchboard.admission.strangers
    link._shake.certified = "plc-1"
    recorder.transport.write(LISTEN)  # type: ignore[union-attr]
    world.pump()
    (refused,) = world.of(LinkRefused)
    assert (refused.serial, refused.detail) == ("plc-1", "plc-1 is no device of this listener")
    assert recorder.lost is not None and not recorder.data
    world.finish()


def test_an_rt1_agent_at_a_legacy_listener_with_probe_speaks_rt1() -> None:
    """Under its own serial, with its own offers."""
    world = World("legacy", serials=("plc-7",), start=False)
    world.listener(rules=ListenerRules("legacy-0", legacy=True, probe=True, legacy_serial="old"))
    world.agents["plc-7"].uplink.start()
    world.pump()
    (up,) = world.of(LinkUp)
    assert (up.wire, up.serial) == ("rt1", "plc-7")
    world.finish()


def test_a_legacy_device_is_asked_nothing_where_the_heartbeat_is_off() -> None:
    """heartbeat = no: not one frame that a service's client did not cause."""
    world = World("legacy", start=False, heartbeat=False)
    recorder = stranger(world, LISTEN)
    world.advance(600.0)
    assert recorder.data == b""
    assert recorder.lost is None
    recorder.transport.abortConnection()  # type: ignore[union-attr]
    world.finish()


def test_f6_the_third_unknown_frame_ends_a_legacy_link() -> None:
    """Skipped twice, with its payload; then the peer cannot be in step."""
    world = World("legacy", start=False)
    recorder = stranger(world, LISTEN)
    for size in (0, 5):
        recorder.transport.write(encode_frame(0x55, 1, bytes(size)))  # type: ignore[union-attr]
        world.pump()
        assert recorder.lost is None
    assert len(world.of(PeerGlitch)) == 2
    recorder.transport.write(encode_frame(0x55, 1))  # type: ignore[union-attr]
    world.pump()
    assert recorder.lost is not None
    assert Command.GOAWAY not in {frame.command for frame in frames(recorder.data)}
    world.finish()


def test_f7_data_for_a_number_nobody_holds() -> None:
    """One CLOSE a second, and nobody gets the bytes."""
    world = World("legacy", start=False, link=LinkLimits(glitches=1000))
    recorder = stranger(world, LISTEN)
    for _ in range(10):
        recorder.transport.write(encode_frame(Command.DATA, 9, b"stray"))  # type: ignore[union-attr]
        world.pump()
    closes = [frame for frame in frames(recorder.data) if frame.command == Command.CLOSE]
    assert len(closes) == 1
    assert world.switchboard.counts["glitches"] == 10
    recorder.transport.abortConnection()  # type: ignore[union-attr]
    world.finish()


# -- what operators do


def test_dismissed_with_a_time_to_stay_away() -> None:
    """The GOAWAY carries reason and seconds."""
    world = World(start=False)
    recorder = agent_by_hand(world)
    assert world.switchboard.kick("plc-1", "for a test", 77)
    world.pump()
    said = decode_goaway(frames(recorder.data)[-1].payload)
    assert said == (GoAway.OPERATOR, 77, "for a test", "")
    assert recorder.lost is not None
    world.finish()


def test_a_channel_that_an_operator_closes() -> None:
    """Reset on both sides with the operator's word; a number without a channel is none."""
    world = World()
    client, service = world.talk()
    link = world.server_link()
    (number,) = link.mux.channels  # type: ignore[union-attr]
    assert not link.channels.end_stream(number + 1, type(world.of(ChannelEnded)), "")  # type: ignore[arg-type]
    assert world.switchboard.close_channel("plc-1", number, "by hand")
    assert not world.switchboard.close_channel("plc-1", number, "twice")
    assert not world.switchboard.close_channel("plc-9", 1, "nobody")
    world.pump()
    assert client.was_reset
    assert service.was_reset
    (fact,) = world.of(ChannelEnded)
    assert (fact.reason.word, fact.detail) == ("operator", "by hand")
    world.finish()


def test_an_agent_that_says_how_much_it_takes_gets_no_more() -> None:
    """largest_data of HELLO bounds our frames, first_window our first bytes."""
    from revtunnel.link.handshake import encode_agent_hello

    world = World(start=False)
    hello = AgentHello("plc-1", bytes(32), (CONSOLE,), first_window=3000, largest_data=1024)
    recorder = stranger(world, LISTEN)
    recorder.transport.write(encode_agent_hello(hello))  # type: ignore[union-attr]
    world.pump()
    client = world.client()
    client.say_more(10_000)
    world.pump()
    (number,) = world.server_link().mux.channels  # type: ignore[union-attr]
    recorder.transport.write(encode_frame(Command.OPENED, number))  # type: ignore[union-attr]
    world.pump()
    sizes = [len(frame.payload) for frame in frames(recorder.data) if frame.command == Command.DATA]
    assert max(sizes) == 1024
    assert sum(sizes) == 3000
    recorder.transport.abortConnection()  # type: ignore[union-attr]
    world.finish()


def test_limits_of_a_listener_are_its_own() -> None:
    """Changed for later links; the link that is up keeps its own."""
    world = World(server=replace(ServerLimits(), clients_per_device=10))
    world.listener(limits=LinkLimits(channels=2))
    assert world.server_link().limits.channels == 255
    world.link_pairs()[0].reset()
    world.advance(15.0)
    assert world.server_link().limits.channels == 2
    world.finish()
