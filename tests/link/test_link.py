"""What both ends of a link share: deadlines, turns, broken rules, silence, ends that leave nothing behind."""

import socket
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from revtunnel.ground.facts import ChannelEnded, LinkDown, LinkRefused, PeerGlitch
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.targets import Target
from revtunnel.link.link import LinkProtocol, tune
from revtunnel.link.send_scheduler import CONTROL_LIMIT
from revtunnel.sockets.addresses import written_address
from revtunnel.streams.commands import Command, decode_goaway, encode_connect
from revtunnel.streams.frames import Frame, FrameDecoder, encode_frame
from tests.support.depth import deep
from tests.support.memory import Recorder
from tests.support.world import KIB, LINK_PORT, SERVER, WIRES, World

both_wires = pytest.mark.parametrize("wire", WIRES)
LISTEN = encode_frame(Command.LISTEN, 0)


def stranger(world: World, said: bytes = b"", source: str = "203.0.113.9") -> Recorder:
    """A program that dials the listener for agents."""
    recorder = Recorder()
    assert world.reactor.dial(LINK_PORT, recorder, source, SERVER) is not None
    recorder.transport.write(said)  # type: ignore[union-attr]
    world.pump()
    return recorder


def frames(data: bytes | bytearray) -> list[Frame]:
    """What it says."""
    decoder = FrameDecoder(lambda size, command, channel: None)
    decoder.receive(bytes(data))
    return list(decoder.frames())


class CostlyClock:
    """The time of a reactor on which every look at the clock takes 0.1 ms."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._spent = 0.0

    def seconds(self) -> float:
        self._spent += 0.0001
        return float(self._reactor.seconds()) + self._spent

    def callLater(self, delay: float, call: Any, *args: Any, **kw: Any) -> Any:
        return self._reactor.callLater(delay, call, *args, **kw)


def inject(world: World, to_server: bool, data: bytes) -> None:
    """Bytes that the other end never wrote appear on the link."""
    pair = world.link_pairs()[0]
    (pair.to_far if to_server else pair.to_near).put(data)
    world.pump()


def reasons(world: World) -> list[str]:
    """Why links ended or were refused, at the server."""
    return [fact.reason for fact in world.facts if isinstance(fact, LinkDown | LinkRefused)]


# -- the handshake


@pytest.mark.parametrize("said", [b"", LISTEN[:3], LISTEN, LISTEN + b"\x00\x10\x10"])
def test_a_stranger_that_does_not_finish_is_cut_after_10_s(said: bytes) -> None:
    """The deadline is absolute, whatever it said before."""
    world = World(start=False)
    recorder = stranger(world, said)
    world.advance(9.5)
    assert recorder.lost is None
    world.advance(1.0)
    assert recorder.lost is not None
    assert reasons(world) == ["silent"]
    world.finish()


def test_a_stranger_that_dribbles_gets_no_more_time() -> None:
    """One byte each second does not move the deadline."""
    world = World(start=False)
    recorder = stranger(world, LISTEN)
    for byte in bytes((0, 200, 0x10, 1)) + bytes(20):
        recorder.transport.write(bytes((byte,)))  # type: ignore[union-attr]
        world.advance(1.0)
        if recorder.lost is not None:
            break
    assert 9.0 <= world.reactor.seconds() <= 11.0
    assert recorder.lost is not None
    world.finish()


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.0\r\n\r\n", encode_frame(Command.DATA, 1, b"x"), b"\xff\xff\x04\x00" + bytes(100)]
)
def test_f14_a_stranger_that_is_no_agent_is_cut_at_once(said: bytes) -> None:
    """Judged by the first header; nothing is answered."""
    world = World(start=False)
    recorder = stranger(world, said)
    assert recorder.lost is not None
    assert recorder.data == b""
    assert reasons(world) == ["protocol"]
    world.finish()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
            "this is TLS: see tls in [listener NAME]",
        ),
        (b"GET / HTTP/1.0\r\n\r\n", "this is HTTP: CCCP's API is at http in [cccp]"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "this is SSH: clients of devices dial the ports"),
        (b"PROXY UNKNOWN\r\n" + LISTEN, "this is a PROXY header: see proxy_protocol in [listener NAME]"),
        (b"C005010\n", "this is EMO: machines need kind = emo in [listener NAME]"),
        (b"\xff\0\0\0\0\0\0\0\x01\x7f", "this is ZeroMQ: its peers dial proxy_ports in [cameo]"),
    ],
)
@pytest.mark.parametrize("cuts", [None, 1])
def test_f14_what_a_stranger_speaks_is_named_in_the_log(said: bytes, words: str, cuts: int | None) -> None:
    """However its bytes come; with the setting that answers it."""
    world = World(start=False, cuts=cuts)
    stranger(world, said)
    (refused,) = world.of(LinkRefused)
    assert refused.detail.startswith(f"the first frame is not LISTEN; {words}")
    world.finish()


def test_f12_f13_odd_listens_are_accepted_and_counted() -> None:
    """A number and a payload in LISTEN, and a second LISTEN; the third ends it."""
    world = World(start=False)
    recorder = stranger(world, encode_frame(Command.LISTEN, 7, b"abc"))
    assert [frame.command for frame in frames(recorder.data)] == [Command.HELLO]
    recorder.transport.write(LISTEN)  # type: ignore[union-attr]
    world.pump()
    assert recorder.lost is None
    assert len(world.of(PeerGlitch)) == 2
    recorder.transport.write(LISTEN)  # type: ignore[union-attr]
    world.pump()
    assert recorder.lost is not None
    world.finish()


@both_wires
def test_an_agent_whose_server_is_silent_gives_up(wire: str) -> None:
    """An rt1 agent leaves after 10 s; one that may speak legacy takes the silence for a ReadyAgent server."""
    world = World(wire, start=False)
    recorders: list[Recorder] = []

    class Silent(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            recorders.append(self)

    world.reactor.at(SERVER, LINK_PORT).factory = type("F", (), {"buildProtocol": lambda s, a: Silent()})()  # type: ignore[union-attr]
    agent = world.agents["plc-1"]
    agent.uplink.start()
    world.advance(10.5)
    if wire == "rt1":
        assert recorders[0].lost is not None
        words = "the server did not answer LISTEN in 10 s; a ReadyAgent server needs --legacy and no key"
        assert agent.links[0].ended == ("silent", words)
    else:
        assert agent.link.mux is not None
        assert agent.link.mux.wire == "legacy"
    agent.uplink.stop(0.0)
    world.advance(5.0)
    world.finish()


# -- turns


@both_wires
def test_f2_many_frames_are_handled_in_several_turns(wire: str) -> None:
    """5,000 frames in one read: at most ``frames_a_turn`` are handled before the reactor has its turn."""
    world = World(wire, link=LinkLimits(frames_a_turn=100, glitches=10**9), capacity=65536)
    client, service = world.talk()
    link = world.server_link()
    number = next(iter(link.mux.channels))  # type: ignore[union-attr]
    pair = world.link_pairs()[0]
    data = b"".join(encode_frame(Command.DATA, number, bytes((n % 251,))) for n in range(5000))
    pair.to_far.put(data)
    seen = []
    held = False
    while world.reactor.turn():
        seen.append(len(client.data))
        held = held or not pair.far.reading
    assert bytes(client.data) == bytes(n % 251 for n in range(5000))
    steps = [after - before for before, after in pairwise(seen)]
    assert max(steps) <= 200  # two turns' worth may leave in one
    assert held  # meanwhile the link is not read
    assert pair.far.reading
    client.abort()
    service.abort()
    world.pump()
    world.finish()


def test_good_frames_before_a_bad_one_are_delivered() -> None:
    """The link ends with the bad one."""
    world = World()
    client, _ = world.talk()
    number = next(iter(world.server_link().mux.channels))  # type: ignore[union-attr]
    inject(
        world, True, encode_frame(Command.DATA, number, b"good") + encode_frame(Command.CONNECT, 1, bytes(4))
    )
    (ended,) = world.of(ChannelEnded)
    assert ended.bytes_to_client == 4
    assert client.was_reset
    assert reasons(world) == ["protocol"]
    world.finish()


# -- broken rules

BAD_AT_SERVER = {
    "CONNECT at the server": encode_frame(Command.CONNECT, 9, encode_connect(Target("10.0.0.5", 23))),
    "HELLO on a link": encode_frame(Command.HELLO, 1, b"x"),
    "PING of 3": encode_frame(Command.PING, 0, b"abc"),
    "WINDOW of 3": encode_frame(Command.WINDOW, 1, b"abc"),
    "RESET too long": encode_frame(Command.RESET, 1, bytes(300)),
    "GOAWAY too short": encode_frame(Command.GOAWAY, 0, b"a"),
}
BAD_AT_AGENT = {
    "LISTEN at the agent": LISTEN,
    "CONNECT for 0": encode_frame(Command.CONNECT, 0, encode_connect(Target("10.0.0.5", 23))),
    "PROOF on a link": encode_frame(Command.PROOF, 0, bytes(32)),
}


@pytest.mark.parametrize("what", BAD_AT_SERVER)
def test_f11_f21_a_broken_rule_is_answered_with_goaway(what: str) -> None:
    """The agent learns why, its channels are reset, and it comes back later."""
    world = World()
    client, service = world.talk()
    inject(world, True, BAD_AT_SERVER[what])
    assert client.was_reset
    assert service.was_reset
    (fact,) = world.of(LinkDown)
    assert (fact.reason, fact.channels) == ("protocol", 1)
    agent = world.agents["plc-1"]
    down = next(fact for fact in agent.facts if isinstance(fact, LinkDown))
    assert down.reason in ("protocol", "lost")
    assert world.ended() == ["link-lost"]
    world.advance(30.0)
    assert world.server_link() is not None
    world.finish()


@pytest.mark.parametrize("what", BAD_AT_AGENT)
def test_f11_a_broken_rule_of_the_server_ends_the_agents_link(what: str) -> None:
    """The same at the agent's end."""
    world = World()
    client, service = world.talk()
    inject(world, False, BAD_AT_AGENT[what])
    assert client.was_reset
    assert service.was_reset
    down = next(fact for fact in world.agents["plc-1"].facts if isinstance(fact, LinkDown))
    assert down.reason == "protocol"
    world.finish()


def agent_by_hand(world: World, serial: str = "plc-1") -> Recorder:
    """An rt1 agent that says nothing of itself after its handshake."""
    from revtunnel.link.handshake import AgentHello, encode_agent_hello

    recorder = stranger(world, LISTEN)
    recorder.transport.write(encode_agent_hello(AgentHello(serial, bytes(32), ())))  # type: ignore[union-attr]
    world.pump()
    assert frames(recorder.data)[-2].command == Command.HELLO
    return recorder


def test_the_goaway_of_a_protocol_error_says_why() -> None:
    """Its reason and text are the last frame on the link, and the connection closes in order."""
    world = World(start=False)
    recorder = agent_by_hand(world)
    recorder.transport.write(encode_frame(Command.CONNECT, 9, bytes(4)))  # type: ignore[union-attr]
    world.pump()
    last = frames(recorder.data)[-1]
    assert last.command == Command.GOAWAY
    reason, _, text, _ = decode_goaway(last.payload)
    assert reason is GoAway.PROTOCOL
    assert "CONNECT" in text
    assert "lost ConnectionDone" in recorder.events
    world.finish()


def test_f22_the_third_channel_that_overspends_ends_the_link() -> None:
    """More than the credit: the channel is reset; the third time it is the link's end."""
    world = World(link=LinkLimits(first_window=1000, open_window=1000, largest_window=1000))
    clients = [world.talk()[0] for _ in range(3)]
    for client in clients:
        client.stop_reading()
    numbers = list(world.server_link().mux.channels)  # type: ignore[union-attr]
    for number in numbers:
        assert reasons(world) == []
        inject(world, True, encode_frame(Command.DATA, number, bytes(1001)))
    assert reasons(world) == ["protocol"]
    assert world.ended() == ["flow-control", "flow-control", "link-lost"]
    world.finish()


def test_f5_a_hundred_oddities_in_a_minute_end_the_link() -> None:
    """Each is skipped and reported; the hundredth is one too many."""
    world = World()
    odd = encode_frame(0x7F, 3, b"whatever")
    inject(world, True, odd * 99)
    assert reasons(world) == []
    assert world.switchboard.counts["glitches"] == 99
    inject(world, True, odd)
    assert reasons(world) == ["protocol"]
    world.finish()


@pytest.mark.parametrize("credit", [0, 2**31 - 1])
def test_f21_a_window_of_zero_or_too_much_resets_the_channel(credit: int) -> None:
    """Not the link."""
    world = World()
    client, _ = world.talk()
    other, other_service = world.talk("web")
    number = next(iter(world.server_link().mux.channels))  # type: ignore[union-attr]
    inject(world, True, encode_frame(Command.WINDOW, number, credit.to_bytes(4, "big")))
    assert client.was_reset
    other.say(b"x")
    world.pump()
    assert other_service.data == b"x"
    world.finish()


@settings(max_examples=deep(60), deadline=None)
@given(
    wire=st.sampled_from(WIRES),
    to_server=st.booleans(),
    channels=st.integers(0, 2),
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=300),
            st.builds(
                lambda command, channel, payload: encode_frame(command, channel, payload),
                st.one_of(st.integers(0, 0x1C), st.integers(0, 255)),
                st.one_of(st.integers(0, 3), st.integers(0, 255)),
                st.binary(max_size=40),
            ),
        ),
        max_size=12,
    ),
)
def test_f24_random_bytes_never_raise_when_the_link_is_up(
    wire: str, to_server: bool, channels: int, pieces: list[bytes]
) -> None:
    """Strict: what a protocol raises fails the test. What is left afterwards is checked too."""
    world = World(wire, cuts="random")
    for _ in range(channels):
        world.talk()
    pair = world.link_pairs()[0]
    for piece in pieces:
        (pair.to_far if to_server else pair.to_near).put(piece)
        world.pump()
    world.advance(3.0)
    end_all(world)


@settings(max_examples=deep(60), deadline=None)
@given(wire=st.sampled_from(WIRES), listens=st.booleans(), said=st.lists(st.binary(max_size=200), max_size=8))
def test_f24_random_bytes_never_raise_in_the_servers_handshake(
    wire: str, listens: bool, said: list[bytes]
) -> None:
    """With and without a LISTEN before them."""
    world = World(wire, start=False)
    recorder = stranger(world, LISTEN if listens else b"")
    for piece in said:
        recorder.transport.write(piece)  # type: ignore[union-attr]
        world.pump()
    world.advance(20.0)
    if recorder.lost is None:
        recorder.transport.abortConnection()  # type: ignore[union-attr]
        world.pump()
    end_all(world)


@settings(max_examples=deep(60), deadline=None)
@given(wire=st.sampled_from(WIRES), probes=st.booleans(), said=st.lists(st.binary(max_size=200), max_size=8))
def test_f24_random_bytes_never_raise_in_the_agents_handshake(
    wire: str, probes: bool, said: list[bytes]
) -> None:
    """With and without a probe before them."""
    world = World(wire, start=False)
    answers = [encode_frame(Command.HELLO, 1)] if probes else []

    class Server(Recorder):
        def connectionMade(self) -> None:
            super().connectionMade()
            for piece in answers + said:
                self.transport.write(piece)  # type: ignore[union-attr]

    world.reactor.at(SERVER, LINK_PORT).factory = type("F", (), {"buildProtocol": lambda s, a: Server()})()  # type: ignore[union-attr]
    agent = world.agents["plc-1"]
    agent.uplink.start()
    world.advance(3.0)
    agent.uplink.stop(0.0)
    world.advance(5.0)
    assert world.reactor.getDelayedCalls() == []


def end_all(world: World) -> None:
    """Whatever happened: after the end nothing is left."""
    for agent in world.agents.values():
        agent.uplink.stop(0.0)
    world.switchboard.stop()
    world.end_parties()
    world.advance(70.0)
    world.end_parties()
    world.pump()
    assert world.reactor.sockets == 0
    assert world.switchboard.clients == 0
    assert world.switchboard.links == set()
    assert world.switchboard.admission.pool.used == 0
    assert world.reactor.getDelayedCalls() == []


# -- silence


@pytest.mark.parametrize("wire", ["rt1"])
def test_n8_a_silent_path_is_found_idle_in_45_s_and_busy_in_20_s(wire: str) -> None:
    """Both ends find it for themselves, and their programs see resets."""
    for busy, most in ((False, 45.0), (True, 20.0)):
        world = World(wire)
        client, service = world.talk()
        world.advance(60.0)
        world.link_pairs()[0].sever()
        if busy:
            client.say(b"x")
            service.say(b"x")
        world.advance(most + 1.0)
        assert client.was_reset
        assert service.was_reset
        assert reasons(world) == ["silent"]
        down = next(fact for fact in world.agents["plc-1"].facts if isinstance(fact, LinkDown))
        assert down.reason == "silent"
        world.finish()


def test_a_channel_may_end_while_all_are_looked_at() -> None:
    """As one does whose other end is a stream of the same process, such as another node's client."""
    world = World()
    (first, _), (second, _) = world.talk(), world.talk()
    (link,) = world.switchboard.links
    channels = link.mux.channels  # type: ignore[union-attr]
    number, channel = next(iter(channels.items()))
    gone = []

    def look() -> None:
        gone.append(channels.pop(number))

    channel.owner.look = look  # type: ignore[union-attr,method-assign]
    world.advance(60.0)
    assert gone == [channel] and world.switchboard.links == {link}
    channels[number] = channel
    del channel.owner.look  # type: ignore[union-attr]
    for each in (first, second):
        each.abort()
    world.finish()


def test_n8_a_silent_link_is_cut_at_once_and_waits_for_no_buffer() -> None:
    """Nobody is there to take what is left of its bytes, nor a last word."""
    world = World(capacity=300)
    client, _ = world.talk()
    pair = world.link_pairs()[0]
    pair.sever()
    client.say_more(100_000)
    while not reasons(world):
        world.advance(0.25)
    assert reasons(world) == ["silent"]
    assert not pair.far.connected
    world.finish()


@pytest.mark.parametrize("to_server", [True, False])
def test_n13_a_path_that_is_dead_one_way_is_found_by_both(to_server: bool) -> None:
    """What arrives proves nothing of the other direction: an answer is wanted."""
    world = World()
    client, service = world.talk()
    pair = world.link_pairs()[0]
    (pair.to_far if to_server else pair.to_near).blocked = True
    world.advance(80.0)
    assert client.was_reset
    assert service.was_reset
    assert reasons(world)[0] in ("silent", "lost")
    world.finish()


def test_n10_a_path_that_is_silent_for_5_s_costs_nothing() -> None:
    """The link and its channels go on."""
    world = World()
    client, service = world.talk()
    pair = world.link_pairs()[0]
    client.say_more(5000)
    pair.sever()
    service.say_more(5000)
    world.advance(5.0)
    pair.restore()
    world.pump()
    assert client.data == service.sent
    assert service.data == client.sent
    assert reasons(world) == []
    world.finish()


@both_wires
def test_an_idle_link_stays_up_for_a_day(wire: str) -> None:
    """Heartbeats are answered; nothing odd is counted."""
    world = World(wire)
    world.advance(7200.0)
    assert len(world.link_pairs()) == 1
    assert world.of(PeerGlitch) == []
    assert world.agents["plc-1"].links[0].ended is None
    world.finish()


# -- ends


@pytest.mark.parametrize("how", ["kick", "stop", "protocol"])
def test_a_peer_that_does_not_read_is_cut_after_2_s(how: str) -> None:
    """GOAWAY cannot leave: the connection is aborted, and the device is free at once."""
    world = World()
    client, service = world.talk()
    pair = world.link_pairs()[0]
    pair.near.pauseProducing()
    client.say_more(2 * 1024 * KIB)
    world.pump()
    if how == "kick":
        world.switchboard.kick("plc-1", "a test", 0)
    elif how == "stop":
        world.switchboard.stop()
    else:
        pair.to_far.put(BAD_AT_SERVER["PING of 3"])
    world.pump()
    assert pair.far.connected
    assert client.was_reset
    assert world.switchboard.fleet.get("plc-1").link is None  # type: ignore[union-attr]
    world.advance(2.5)
    assert not pair.far.connected
    pair.near.resumeProducing()
    world.pump()
    assert service.was_reset
    world.finish()


@both_wires
@pytest.mark.parametrize("whose", ["agent", "server"])
def test_no_timer_outlives_its_link(whose: str, wire: str) -> None:
    """Lost while channels run and others wait for a number: only the agent's return is planned."""
    limits = LinkLimits(channels=1)
    world = World(wire, link=limits)
    world.talk()
    waiting = world.client()
    world.pump()
    assert len(world.server_link().channels.waiting) == 1
    pair = world.link_pairs()[0]
    (pair.near if whose == "agent" else pair.far).abortConnection()
    world.pump()
    assert waiting.was_reset
    calls = world.reactor.getDelayedCalls()
    assert [call.func.__name__ for call in calls] == ["_connect"]
    world.finish()


def test_calls_after_the_end_do_nothing() -> None:
    """Sockets and timers may still call a link that is gone."""
    world = World()
    client, _ = world.talk()
    link = world.server_link()
    channel = next(iter(link.mux.channels.values()))  # type: ignore[union-attr]
    link.fail("protocol", "a test")
    link.fail("silent", "twice")
    assert link.ended == ("protocol", "a test")
    link.dataReceived(b"more")
    link.reset(channel, ended_word(), "late")
    link.send(channel, b"late")
    link.end(channel)
    link.consumed(channel, 0)
    link.flushed(channel)
    link.goaway(GoAway.STOPPING, 0, "late")
    link.dismiss("late", "", GoAway.STOPPING)
    world.pump()
    link.leave()
    link.write(b"late")
    link.flush()
    link.resumeProducing()
    link.stopProducing()
    assert client.was_reset
    assert reasons(world) == ["protocol"]
    world.finish()


def ended_word() -> Any:
    """Some reason."""
    from revtunnel.ground.reasons import Ended

    return Ended.OPERATOR


def test_before_its_handshake_a_link_carries_nothing() -> None:
    """Calls of sockets that cannot exist yet are harmless; the ends' own parts are not there in the base."""
    link = LinkProtocol(World(start=False).clock, LinkLimits())
    channel: Any = None
    assert link.send(channel, b"x")
    link.end(channel)
    link.consumed(channel, 1)
    link.flushed(channel)
    link.reset(channel, ended_word(), "")
    link.flush()
    for missing in (
        lambda: link.judge_stranger(0, 0, 0),
        lambda: link.shake(None),
        link.handshake_is_late,
        lambda: link.happened(channel),
        lambda: link.gone("", "", []),
    ):
        with pytest.raises(NotImplementedError):
            missing()


@pytest.mark.parametrize(
    ("address", "written"),
    [
        (IPv4Address("TCP", "192.0.2.1", 5), "192.0.2.1:5"),
        (IPv6Address("TCP", "2001:db8::1", 5), "[2001:db8::1]:5"),
        (UNIXAddress(b"/run/x"), "unix:/run/x"),
        (UNIXAddress(None), "unix:"),
        (None, "unix:"),
    ],
)
def test_written_addresses(address: Any, written: str) -> None:
    """One form everywhere."""
    assert written_address(address) == written


def test_f2_slow_frames_are_handled_in_more_turns() -> None:
    """2 ms are a turn too: where a frame takes 0.1 ms, 64 are handled and the rest waits."""
    world = World(link=LinkLimits(glitches=10**9), capacity=65536)
    client, _ = world.talk()
    link = world.server_link()
    link.clock = CostlyClock(world.reactor)  # type: ignore[assignment]
    number = next(iter(link.mux.channels))  # type: ignore[union-attr]
    world.link_pairs()[0].to_far.put(b"".join(encode_frame(Command.DATA, number, b"x") for _ in range(640)))
    seen = []
    while world.reactor.turn():
        seen.append(len(client.data))
    assert len(client.data) == 640
    assert {b - a for a, b in pairwise(seen)} <= {0, 64, 128}
    world.finish()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_socket_options_are_set_where_they_exist(family: int) -> None:
    """A TCP socket has them; another kind and no socket are left alone."""
    with socket.socket(family) as handle:
        tune(handle)
        if family == socket.AF_INET:
            assert handle.getsockopt(socket.IPPROTO_TCP, 18) == 45_000
            tune(handle, 150.0)
            assert handle.getsockopt(socket.IPPROTO_TCP, 18) == 150_000
    tune(None)


def test_control_frames_that_nobody_reads_end_the_link() -> None:
    """256 KiB of them: the other side makes us talk and does not read."""
    world = World(link=LinkLimits(first_window=4, open_window=4, largest_window=4))
    client, _ = world.talk()
    pair = world.link_pairs()[0]
    pair.near.pauseProducing()
    number = next(iter(world.server_link().mux.channels))  # type: ignore[union-attr]
    some = encode_frame(Command.DATA, number, b"ab") * 8000
    while not reasons(world):
        inject(world, True, some)
    assert reasons(world) == ["protocol"]
    assert client.was_reset
    assert world.ended() == ["link-lost"]
    world.advance(3.0)
    pair.near.resumeProducing()
    world.finish()


@pytest.mark.parametrize("act", ["consumed", "flushed", "reset", "open", "goaway", "kick", "tick", "pong"])
def test_one_control_frame_too_many_ends_the_link_wherever_it_is_said(act: str) -> None:
    """From a socket, a timer or an operator: nothing is raised, the channels are reset."""
    world = World()
    client, service = world.talk()
    bulk, _ = world.talk("web")
    client.stop_reading()
    service.say_more(400 * KIB if act == "consumed" else 100 * KIB)
    if act == "flushed":
        service.finish()
        client.finish()
    world.pump()
    link = world.server_link()
    pair = world.link_pairs()[0]
    pair.near.pauseProducing()
    bulk.say_more(400 * KIB)
    world.pump()
    assert link.mux is not None
    link.mux._turns.control(bytes(CONTROL_LIMIT))
    if act in ("consumed", "flushed"):
        client.read_on()
    elif act == "reset":
        world.switchboard.close_channel("plc-1", 1, "a test")
    elif act == "open":
        late = world.client()
    elif act == "goaway":
        world.switchboard.drain()
    elif act == "kick":
        world.switchboard.kick("plc-1", "a test", 0)
    elif act == "pong":
        inject(world, True, encode_frame(Command.PING, 0, bytes(8)))
        pair.near.resumeProducing()
    world.advance(7.0)
    assert reasons(world)[0] == "protocol"
    client.read_on()
    world.pump()
    assert bulk.was_reset
    if act == "open":
        assert late.was_reset
        assert world.switchboard.counts["client-refused no-channel"] == 1
    world.advance(3.0)
    pair.near.resumeProducing()
    end_all(world)


@pytest.mark.parametrize("act", ["opened", "depart"])
def test_one_control_frame_too_many_ends_the_agents_link(act: str) -> None:
    """The answer of a target, and the agent's own leaving."""
    world = World()
    client, service = world.talk()
    world.reactor.names.held.add("slow.local")
    late = world.client()
    pair = world.link_pairs()[0]
    while not pair.near.end.inbox.data and world.reactor.turn():
        pass
    pair.far.pauseProducing()
    service.say_more(400 * KIB)
    world.reactor.turn()
    mux = world.agents["plc-1"].link.mux
    assert mux is not None
    mux._turns.control(bytes(CONTROL_LIMIT))
    if act == "depart":
        world.agents["plc-1"].uplink.stop(5.0)
    world.advance(3.0)
    down = next(fact for fact in world.agents["plc-1"].facts if isinstance(fact, LinkDown))
    assert down.reason in ("protocol", "stopping", "left")
    assert service.was_reset
    pair.far.resumeProducing()
    world.pump()
    assert client.was_reset
    assert late.was_reset
    end_all(world)
