"""The agent's end: it answers CONNECTs by dialling, drains when it is asked to leave, and leaves in order."""

from dataclasses import replace

import pytest
from twisted.internet.protocol import Factory, Protocol

from revtunnel.ground.facts import ChannelEnded, ChannelOpened, LinkDown, LinkUp, PeerGlitch, ServerState
from revtunnel.ground.origin import Origin
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.targets import Target, parse_offer
from revtunnel.link.agent_link import AgentLink
from revtunnel.link.handshake import AgentHandshake, AgentHello
from revtunnel.sockets.ways.proxy_header import encode_header_v1, encode_header_v2
from revtunnel.streams.commands import Command, Feature, encode_connect
from revtunnel.streams.dialler import Header
from revtunnel.streams.frames import encode_frame
from tests.link.test_link import inject
from tests.support.memory import Recorder
from tests.support.reactor import HANGS
from tests.support.world import CONSOLE, LINK_PORT, MIB, SERVER, WEB, WIRES, World

CONSOLE_AT = (CONSOLE.target.host, CONSOLE.target.port)


def downs(world: World, serial: str = "plc-1") -> list[LinkDown]:
    """How the agent's links ended, as it says."""
    return [fact for fact in world.agents[serial].facts if isinstance(fact, LinkDown)]


class _Speaker(Recorder):
    """A server of another kind: it says something and hangs up."""

    def __init__(self, words: bytes) -> None:
        super().__init__()
        self.words = words

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.write(self.words)  # type: ignore[union-attr]
        self.transport.loseConnection()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            "the server does not speak rt1; this is HTTP: a portal on the way that wants a login",
        ),
        (
            b"SSH-2.0-OpenSSH_9.2\r\n",
            "the server does not speak rt1; this is SSH: see servers in [agent]",
        ),
        (
            b"\x15\x03\x03\x00\x02\x02\x46",
            "the server does not speak rt1; this is TLS: see tls in [agent]",
        ),
        (b"220 mail ESMTP\r\n", "the server does not speak rt1; this is mail or FTP: see servers in [agent]"),
        (b"x", "the server does not speak rt1; it begins with 'x': see servers in [agent]"),
        (b"", "the server hung up without a word: does it want TLS? See tls in [agent]"),
    ],
)
def test_a_server_of_another_kind_is_named(words: bytes, why: str) -> None:
    """At the agent, which says why it is away, and with the setting that answers it."""
    world = World(start=False)
    port = LINK_PORT + 1
    world.reactor.serve(SERVER, port, Factory.forProtocol(lambda: _Speaker(words)))
    agent = world.add_agent("plc-2", (CONSOLE,), port=port)
    world.pump()
    away = [fact.detail for fact in agent.facts if isinstance(fact, ServerState)]
    assert why in away[0]


@pytest.mark.parametrize(
    ("words", "ends", "why"),
    [
        (b"220 mail ESMTP\r\n", False, "this is mail or FTP: see servers in [agent]"),
        (b"\xff\xfd\x18\xff\xfd\x20", False, "this is telnet: see servers in [agent]"),
        (b"<html>", False, "this is a web page: a portal on the way that wants a login, or see servers in"),
        (b"\r\n", False, "it begins with 0d 0a: see servers in [agent]"),
        (b"", True, "the server hung up after 5 s without a word, as a web server does: see servers in"),
        (b"", False, "did not answer LISTEN in 10 s; a ReadyAgent server needs --legacy and no key"),
    ],
)
def test_one_that_takes_its_time_too(words: bytes, ends: bool, why: str) -> None:
    """Whatever comes within the time of a handshake is named, though it is no whole frame."""
    world = World(start=False)
    port, there = LINK_PORT + 1, Protocol()
    world.reactor.serve(SERVER, port, Factory.forProtocol(lambda: there))
    agent = world.add_agent("plc-2", (CONSOLE,), port=port)
    world.advance(5.0)
    assert there.transport is not None
    there.transport.write(words)
    if ends:
        there.transport.loseConnection()
    world.advance(5.5)
    away = [fact.detail for fact in agent.facts if isinstance(fact, ServerState) and fact.state == "away"]
    assert why in away[0]


def test_facts_of_a_channel_at_the_agent() -> None:
    """Opened and ended, with the target as it is written and the server as the peer."""
    world = World()
    client, service = world.talk()
    client.say(b"12345")
    service.say(b"123")
    world.pump()
    client.finish()
    service.finish()
    world.pump()
    facts = world.agents["plc-1"].facts
    (up,) = (fact for fact in facts if isinstance(fact, LinkUp))
    assert (up.serial, up.wire, up.listener, up.replaced) == ("plc-1", "rt1", "server", False)
    (opened,) = (fact for fact in facts if isinstance(fact, ChannelOpened))
    assert (opened.target, opened.peer) == ("10.0.0.5:23", "127.0.0.1:2065")
    (ended,) = (fact for fact in facts if isinstance(fact, ChannelEnded))
    assert (ended.reason.word, ended.bytes_to_device, ended.bytes_to_client) == ("closed", 5, 3)
    world.finish()


def test_the_agent_says_how_many_channels_its_link_took_along() -> None:
    """Two run, one has ended in order."""
    world = World()
    for _ in range(2):
        world.talk()
    client, service = world.talk()
    client.finish()
    service.finish()
    world.pump()
    world.link_pairs()[0].reset()
    world.pump()
    assert [fact.channels for fact in downs(world)] == [2]
    assert world.of(LinkDown)[0].channels == 2
    world.finish()


def test_goaway_drains_and_then_the_agent_leaves() -> None:
    """Running channels end as they like, byte for byte; the last end is the link's."""
    world = World()
    client, service = world.talk()
    world.server_link().goaway(GoAway.STOPPING, 0, "for a test")
    world.pump()
    link = world.agents["plc-1"].link
    assert link.leaving
    client.say_more(5000)
    service.say_more(5000)
    world.pump()
    assert service.data == client.sent
    client.finish()
    service.finish()
    world.pump()
    assert world.ended() == ["closed"]
    assert not client.was_reset
    assert downs(world)[0].reason == "stopping"
    assert downs(world)[0].detail == "for a test"
    world.advance(5.0)
    assert world.server_link().mux is not None
    world.finish()


def test_goaway_to_an_idle_agent_ends_the_link_at_once() -> None:
    """Nothing to wait for."""
    world = World()
    world.server_link().goaway(GoAway.STOPPING, 0, "")
    world.pump()
    assert downs(world)[0].reason == "stopping"
    world.finish()


def test_the_last_word_of_the_last_channel_arrives_over_a_full_link() -> None:
    """An agent that leaves with its last CLOSE unsaid would turn a whole stream into a reset."""
    world = World(capacity=1000)
    client, service = world.talk()
    world.agents["plc-1"].uplink.stop(30.0)
    world.pump()
    client.finish()
    service.say_more(50_000)
    service.finish()
    world.pump()
    assert client.data == service.sent
    assert world.ended() == ["closed"]
    assert client.end_came
    assert not client.was_reset
    world.finish()


@pytest.mark.parametrize("wire", WIRES)
def test_depart_waits_for_running_channels(wire: str) -> None:
    """stop() fires when they have ended; new clients are refused meanwhile (rt1), or found gone."""
    world = World(wire)
    client, service = world.talk()
    stopped: list[object] = []
    world.agents["plc-1"].uplink.stop(20.0).addCallback(stopped.append)
    world.advance(1.0)
    assert stopped == []
    if wire == "rt1":
        assert world.ports.of("plc-1") == []
    client.say_more(2000)
    world.pump()
    assert service.data == client.sent
    service.close()
    client.finish()
    world.pump()
    assert stopped == [None]
    assert world.ended() == ["closed"]
    assert downs(world)[0].reason == "stopping"
    world.finish()


def test_depart_gives_up_when_patience_ends() -> None:
    """What still runs is reset on both sides."""
    world = World()
    client, service = world.talk()
    stopped: list[object] = []
    world.agents["plc-1"].uplink.stop(20.0).addCallback(stopped.append)
    world.advance(19.0)
    assert stopped == []
    world.advance(2.0)
    assert stopped == [None]
    assert client.was_reset
    assert service.was_reset
    world.finish()


def test_depart_before_the_handshake_leaves_at_once() -> None:
    """There is nobody to say it to."""
    world = World(start=False)
    agent = world.agents["plc-1"]
    agent.uplink.start()
    while agent.uplink.link is None:
        world.reactor.turn()
    stopped: list[object] = []
    agent.uplink.stop(20.0).addCallback(stopped.append)
    world.pump()
    assert stopped == [None]
    assert agent.links[0].up_since is None
    world.finish()


def test_a_dial_that_nobody_wants_any_more_is_given_up() -> None:
    """The channel is closed while its target's name is looked up: the late answer opens nothing."""
    world = World(offers=(parse_offer("printer=printer.local:9100"),))
    world.reactor.names.held.add("printer.local")
    world.reactor.names.answers["printer.local"] = ["10.0.0.9"]
    client = world.client(name="printer")
    world.pump()
    (number,) = world.server_link().mux.channels  # type: ignore[union-attr]
    assert world.switchboard.close_channel("plc-1", number, "by hand")
    world.pump()
    assert client.was_reset
    assert world.agents["plc-1"].ended() == ["operator"]
    world.reactor.names.release()
    world.advance(1.0)
    assert ("10.0.0.9", 9100) not in world.reactor.dialled
    world.finish()


def test_a_whole_stream_whose_link_ends_behind_it_is_a_clean_end() -> None:
    """Legacy: CLOSE and the link's end arrive together, while the client has most of the bytes to come."""
    world = World("legacy")
    client, service = world.talk()
    client.stop_reading()
    service.say_more(300_000)
    service.close()
    world.agents["plc-1"].uplink.stop(5.0)
    world.pump()
    assert world.link_pairs() == []
    client.read_on()
    world.pump()
    assert client.data == service.sent
    assert client.end_came
    assert world.ended() == ["closed"]
    world.finish()


def test_f15_a_connect_that_names_nothing_is_refused() -> None:
    """rt1: RESET not-allowed and an oddity; the link goes on."""
    world = World()
    client, _ = world.talk()
    odd = (b"\0\x05ab\0\x17", encode_connect(Target("a b", 23)), encode_connect(Target("10.0.0.5", 0)))
    for number, payload in enumerate(odd, 97):
        inject(world, False, encode_frame(Command.CONNECT, number, payload))
    agent = world.agents["plc-1"]
    assert len([fact for fact in agent.facts if isinstance(fact, PeerGlitch)]) == 3
    assert client.here
    assert world.reactor.dialled[-1] == CONSOLE_AT
    client.abort()
    world.pump()
    agent.uplink.abort()
    world.pump()
    world.finish()


def test_f17_a_connect_for_a_number_in_use_ends_an_rt1_link() -> None:
    """Nobody knows any more which client is meant."""
    world = World()
    client, _ = world.talk()
    inject(world, False, encode_frame(Command.CONNECT, 1, encode_connect(WEB.target)))
    assert downs(world)[0].reason == "protocol"
    assert client.was_reset
    world.finish()


def test_f17_legacy_a_connect_for_a_number_in_use_ends_the_old_client() -> None:
    """The service of the old one sees a reset; the new one gets its own service."""
    world = World("legacy")
    _, service = world.talk()
    inject(world, False, encode_frame(Command.CONNECT, 1, encode_connect(WEB.target)))
    assert service.was_reset
    assert len(world.services["web"]) == 1
    agent = world.agents["plc-1"]
    assert agent.ended() == ["reset-by-peer"]
    world.finish()


def test_f18_data_before_its_connect_is_held_for_a_second() -> None:
    """A reference server can do this: the service gets it; without a CONNECT it is dropped."""
    world = World("legacy")
    world.pump()
    connect = encode_frame(Command.CONNECT, 7, encode_connect(CONSOLE.target))
    inject(world, False, encode_frame(Command.DATA, 7, b"early"))
    inject(world, False, connect)
    assert world.services["console"][0].data == b"early"
    inject(world, False, encode_frame(Command.DATA, 8, b"stray"))
    world.advance(6.0)
    inject(world, False, encode_frame(Command.CONNECT, 8, encode_connect(CONSOLE.target)))
    assert world.services["console"][1].data == b""
    world.finish()


def test_n31_a_hanging_target_blocks_nobody() -> None:
    """The reference agent's reader stands still meanwhile; ours serves the others."""
    world = World("legacy")
    world.reactor.faults[CONSOLE_AT] = HANGS
    world.client()
    world.pump()
    client, service = world.talk("web")
    client.say_more(MIB)
    world.pump()
    assert service.data == client.sent
    world.finish()


def test_retry_after_and_word_of_a_link_that_was_replaced() -> None:
    """GOAWAY came while channels ran: its word is the end's, not 'lost'."""
    world = World()
    world.talk()
    world.switchboard.kick("plc-1", "for a test", 30)
    world.pump()
    assert downs(world)[0].reason == "operator"
    world.advance(29.0)
    assert world.link_pairs() == []
    world.advance(3.0)
    assert len(world.link_pairs()) == 1
    world.finish()


def test_legacy_glitches_of_the_server_are_told() -> None:
    """An unknown frame is skipped and told; the third ends the link."""
    world = World("legacy")
    for number in range(3):
        assert downs(world) == []
        inject(world, False, encode_frame(0x60 + number, 1))
    assert downs(world)[0].reason == "protocol"
    world.finish()


# -- services that are told who their client is


def telling(wire: str, encode: Header, server_can: bool = True) -> World:
    """A world whose console wants a PROXY header; its web service wants none."""
    world = World(wire, start=False)
    plain = world.listener(0).hello
    world.listener(hello=replace(plain, features=Feature.ORIGIN if server_can else Feature(0)))
    agent = world.add_agent("plc-1", (CONSOLE, WEB), start=False)
    agent.dialler._headers[CONSOLE.target] = encode
    made = agent.uplink._make

    def make(ready: object, left: object) -> AgentLink:
        link = made(ready, left)
        hello = AgentHello("plc-1", bytes(32), (CONSOLE, WEB), features=Feature.ORIGIN)
        link._shake = AgentHandshake(hello, None, wire == "legacy")
        return link

    agent.uplink._make = make
    agent.uplink.start()
    world.pump()
    return world


@pytest.mark.parametrize("encode", [encode_header_v1, encode_header_v2])
def test_a_service_is_told_who_its_client_is(encode: Header) -> None:
    """Its first bytes are the header with the client's address and the port that it dialled."""
    world = telling("rt1", encode)
    client, service = world.talk()
    client.say(b"hello")
    world.pump()
    pair = client.pair
    assert pair is not None
    peer = pair.far.getPeer()
    wanted = encode(Origin(peer.host, peer.port, "127.0.0.1", world.port("plc-1", "console")))
    assert bytes(service.data) == wanted + b"hello"
    service.say(b"world")
    world.pump()
    assert client.data == b"world"
    other, web = world.talk("web")
    other.say(b"plain")
    world.pump()
    assert web.data == b"plain"
    world.finish()


@pytest.mark.parametrize(("wire", "server_can"), [("legacy", True), ("rt1", False)])
def test_where_nobody_can_say_it_the_client_is_unknown(wire: str, server_can: bool) -> None:
    """A legacy link has no word for it, an older server does not know it: the service still gets a header."""
    world = telling(wire, encode_header_v2, server_can)
    client, service = world.talk()
    client.say(b"hello")
    world.pump()
    assert bytes(service.data) == encode_header_v2(None) + b"hello"
    world.finish()


def test_nothing_is_said_of_clients_to_agents_that_do_not_ask() -> None:
    """A server that could say it keeps it to itself."""
    world = World(start=False)
    world.listener(hello=replace(world.listener(0).hello, features=Feature.ORIGIN))
    world.add_agent("plc-1", (CONSOLE, WEB))
    world.pump()
    client, service = world.talk()
    client.say(b"hello")
    world.pump()
    assert service.data == b"hello"
    mux = world.server_link().mux
    assert mux is not None and not mux.origins
    world.finish()
