"""EMO from client to device in memory: our server, our agent, and every rule of the page between them."""

import errno
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from revtunnel.fleet.pools import Use
from revtunnel.ground.facts import ChannelEnded, ClientRefused, Fact, LinkDown, LinkRefused, LinkUp
from revtunnel.ground.limits import EmoLimits
from revtunnel.ground.server_places import ServerPlace
from revtunnel.ground.targets import Offer, parse_offer
from revtunnel.link.handshake import ListenerRules, ServerHello
from revtunnel.link.server_connector import ServerConnector, ServerWay
from revtunnel.link.server_link import AgentListener
from revtunnel.link.uplink import Uplink
from revtunnel.sockets.opening import open_end
from revtunnel.sockets.tls.certificates import PeerCertificate
from revtunnel.streams.carrier import Carrier
from revtunnel.streams.dialler import Dialler
from revtunnel.streams.window import CreditPool
from revtunnel.systems.emo.emo import TERMINATOR
from revtunnel.systems.emo.emo_agent import EmoAgentLink, EmoRemains
from revtunnel.systems.emo.emo_listener import EmoListener
from revtunnel.systems.emo.emo_server import EmoServerLink
from revtunnel.systems.emo.emo_sockets import SlotState
from tests.support.depth import deep
from tests.support.world import LINK_PORT, MIB, POOL, SERVER, Agent, Party, World, pattern

PORTS = {"mill-1": 5010, "mill-2": 5011}
TARGETS = {"mill-1": parse_offer("emo=10.0.0.5:5000"), "mill-2": parse_offer("emo=10.0.0.6:5000")}
LIMITS = EmoLimits()
LIMITS_IDLE_STEPS = 122  # of five seconds


class EmoWorld(World):
    """Machines mill-1 and mill-2 behind one listener of kind emo."""

    def __init__(self, *, emo: EmoLimits = LIMITS, serials: tuple[str, ...] = ("mill-1",), **options: Any):
        self.emo = emo
        self.remains = EmoRemains()
        super().__init__("emo", serials=serials, offers=(), **options)
        for serial in serials:
            self.add_service(Offer(serial, TARGETS[serial].target))
        self.pump()

    def _listen(self, number: int, serial: str, offers: tuple[Offer, ...], heartbeat: bool) -> None:
        self.leases.reload([POOL], {Use(name, "emo"): port for name, port in PORTS.items()}, 0.0)
        ports = {port: (name, "emo") for name, port in PORTS.items()}
        rules = ListenerRules("machines")
        self.door = EmoListener(ports, self.emo)
        make = partial(EmoServerLink, self.door)
        listener = AgentListener(
            rules, self.link_limits, ServerHello("server"), heartbeat=heartbeat, make=make
        )
        self.switchboard.listeners[rules.name] = listener
        self.reactor.serve(SERVER, LINK_PORT, self.switchboard.agents(rules.name))

    def add_agent(
        self, serial: str, offers: tuple[Offer, ...], start: bool = True, port: int = LINK_PORT
    ) -> Agent:
        facts: list[Fact] = []
        reach = self.reactor.reach
        dialler = Dialler(self.reactor, self.agent_limits, [TARGETS[serial]], reach=reach)

        def connect(link: Any) -> Any:
            return open_end(self.reactor, SERVER, LINK_PORT, 10.0, reach=reach)

        def make(ready: Any, left: Any) -> Any:
            target = TARGETS[serial].target
            link = EmoAgentLink(
                self.reactor,
                self.emo,
                serial,
                PORTS[serial],
                target,
                dialler,
                connect,
                facts.append,
                ready,
                left,
                self.remains,
            )
            agent.links.append(link)  # type: ignore[arg-type]
            return link

        uplink = Uplink(
            *(self.reactor, [ServerPlace(SERVER, LINK_PORT)], self.agent_limits, lambda: agent.random, make),
            *(facts.append, ServerConnector(self.reactor, ServerWay(), reach).connect),
        )
        agent = self.agents[serial] = Agent(uplink, dialler, CreditPool(MIB), facts)
        if start:
            uplink.start()
        return agent

    def check_rest(self) -> None:
        assert self.switchboard.clients == 0
        assert self.reactor.dialling == 0
        for link in self.switchboard.links:
            assert link.mux is not None
            assert not link.mux.running

    def machine(self, serial: str = "mill-1") -> EmoServerLink:
        """The server's end of a machine's command socket."""
        link = self.server_link(serial)
        assert isinstance(link, EmoServerLink)
        return link

    def talk_to(self, serial: str = "mill-1") -> tuple[Party, Party]:
        """A client and its device, connected."""
        before = len(self.services[serial])
        client = self.client(serial, "emo")
        self.pump()
        (device,) = self.services[serial][before:]
        return client, device

    def outlived(self) -> list[Carrier]:
        """Machines whose command socket is gone and whose streams run."""
        everyone = self.switchboard.streams._carriers.values()
        return [carrier for carriers in everyone for carrier in carriers if carrier.on_rest is not None]

    def data_sockets(self) -> int:
        """Data sockets that are open."""
        open_pairs = self.link_pairs()
        return len(open_pairs) - len(self.switchboard.links)


CUTS = [None, 1, "random"]


@pytest.fixture(params=CUTS, ids=["whole", "bytes", "random"])
def world(request: pytest.FixtureRequest) -> EmoWorld:
    """One machine, its bytes cut in three ways."""
    return EmoWorld(cuts=request.param)


def test_registration_opens_the_reserved_port(world: EmoWorld) -> None:
    """And it looks like any other device."""
    assert world.port("mill-1", "emo") == 5010
    (up,) = world.of(LinkUp)
    assert (up.serial, up.wire, up.listener) == ("mill-1", "emo", "machines")
    assert world.machine().mux.liveness.round_trip is not None
    world.finish()


def test_a_stream_both_ways_and_half_close(world: EmoWorld) -> None:
    """The client says its last, the device still answers, and both end in order."""
    client, device = world.talk_to()
    client.say(b"GET")  # three bytes are not held back for more
    world.pump()
    assert device.data == b"GET"
    device.say(bytes(range(256)))
    world.pump()
    assert client.data == bytes(range(256))
    client.finish()
    world.pump()
    assert device.end_came and not client.end_came
    device.say(b"the rest")
    device.close()
    world.pump()
    assert client.data.endswith(b"the rest")
    assert client.end_came and not client.was_reset
    assert world.ended() == ["closed"]
    (slot,) = world.machine().machine.table.slots
    assert slot.state is SlotState.IDLE
    world.finish()


def test_200_streams_in_turn_use_one_data_socket() -> None:
    """C for the same index each time, every byte at its own client."""
    world = EmoWorld(cuts="random")
    streams = deep(200)
    for number in range(streams):
        client, device = world.talk_to()
        client.say_more(1 + number)
        world.pump()
        device.say_more(3 * number)
        device.close()
        world.pump()
        assert device.data == pattern(client.key, 1 + number)
        assert client.data == pattern(device.key, 3 * number)
        client.close()
        world.pump()
    assert world.data_sockets() == 1
    assert world.ended() == ["closed"] * streams
    world.finish()


def test_20_streams_at_once_use_20_data_sockets() -> None:
    """Each its own; then they are idle and serve the next 20."""
    world = EmoWorld(cuts="random")
    for _ in range(2):
        clients = [world.client("mill-1", "emo") for _ in range(20)]
        world.pump()
        for client in clients:
            client.say_more(500)
        world.pump()
        devices = world.services["mill-1"][-20:]
        assert {bytes(device.data) for device in devices} == {pattern(c.key, 500) for c in clients}
        for party in [*devices, *clients]:
            party.close()
        world.pump()
        assert world.data_sockets() == 20
    world.finish()


def test_no_byte_crosses_between_machines() -> None:
    """Two machines, two waiting applications, data sockets arriving in the other order."""
    world = EmoWorld(serials=("mill-1", "mill-2"))
    one, two = world.client("mill-1", "emo"), world.client("mill-2", "emo")
    one.say(b"for one")
    two.say(b"for two")
    world.pump()
    assert [device.data for device in world.services["mill-1"]] == [b"for one"]
    assert [device.data for device in world.services["mill-2"]] == [b"for two"]
    world.finish()


def test_a_device_that_refuses(world: EmoWorld) -> None:
    """The client sees its end at once, the index is free again, and the next client is served."""
    world.reactor.faults["10.0.0.5", 5000] = ConnectionRefusedError("nobody")
    client = world.client("mill-1", "emo")
    client.say(b"is anybody there")
    world.pump()
    assert client.end_came or client.was_reset
    if client.here:
        client.close()
    world.pump()
    del world.reactor.faults["10.0.0.5", 5000]
    late, device = world.talk_to()
    late.say(b"hello")
    world.pump()
    assert device.data == b"hello"
    assert world.data_sockets() == 1
    world.finish()


@pytest.mark.parametrize("who", ["client", "device"])
def test_n28_a_reset_is_passed_on(world: EmoWorld, who: str) -> None:
    """It never looks like a clean end; its data socket goes, the command socket stays."""
    client, device = world.talk_to()
    client.say(b"x" * 50_000)
    (client if who == "client" else device).abort()
    world.pump()
    other = device if who == "client" else client
    assert other.was_reset
    assert world.data_sockets() == 0
    assert len(world.switchboard.links) == 1
    assert world.ended() != ["closed"]
    world.finish()


def test_r16_streams_outlive_the_command_socket() -> None:
    """New clients are refused at once meanwhile; the machine comes back, and new streams with it."""
    world = EmoWorld()
    client, device = world.talk_to()
    agent = world.agents["mill-1"].uplink.link
    assert agent is not None
    agent.transport.loseConnection()
    world.pump()
    client.say(b"still")
    world.pump()
    assert device.data == b"still"
    device.say(b"here")
    world.pump()
    assert client.data == b"here"
    for party in (client, device):
        party.close()
    world.pump()
    assert world.ended() == ["closed"]
    world.advance(2)
    later, again = world.talk_to()
    later.say(b"new")
    world.pump()
    assert again.data == b"new"
    world.finish()


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"C005012\n", b"F0000001\n"),  # reserved for nobody
        (b"C000022\n", b"F0000001\n"),
        (b"C000000\n", b"F0000001\n"),
        (b"C5010 \n\n", b""),
        (b"P005099\n", b""),
        (b"P005010\n", b""),  # registered, and nobody asked
        (b"S000001\n", b""),
        (b"GET / HTTP/1.1\r\n", b""),
    ],
)
def test_r12_r13_strangers(said: bytes, answer: bytes) -> None:
    """A port that is not reserved, a socket that nobody asked for, garbage: refused, and nobody is harmed."""
    world = EmoWorld()
    client, device = world.talk_to()
    stranger = Party("stranger")
    stranger.pair = dial_server(world, stranger)
    stranger.say(said)
    world.pump()
    world.advance(3)
    assert stranger.data == answer
    leave(stranger)
    client.say(b"unharmed")
    world.pump()
    assert device.data == b"unharmed"
    world.finish()


@pytest.mark.parametrize(
    ("said", "reason", "words"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "protocol", "this is TLS: see tls in [listener NAME]"),
        (b"GET / HTTP/1.1\r\n", "protocol", "this is HTTP: "),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "protocol", "this is SSH: "),
        (b"PROXY UNKNOWN\r\n", "protocol", "this is a PROXY header: see proxy_protocol in [listener NAME]"),
        (b"mill-1\r", "silent", "this is a serial of CCCP: devices dial address in [cccp-project NAME]"),
    ],
)
def test_what_a_stranger_speaks_is_named_in_the_log(said: bytes, reason: str, words: str) -> None:
    """Also what is too short for a command and is waited for in vain."""
    world = EmoWorld()
    stranger = Party("stranger")
    stranger.pair = dial_server(world, stranger)
    stranger.say(said)
    world.advance(3)
    (refused,) = world.of(LinkRefused)
    assert (refused.reason, words in refused.detail) == (reason, True), refused.detail
    leave(stranger)
    world.finish()


@pytest.mark.parametrize("word", [b"PONG   \n", b"S000042\n", b"T000042\n"])
def test_a_flood_of_commands_that_change_nothing_ends_the_machine(word: bytes) -> None:
    """Each by itself is normal."""
    world = EmoWorld(start=False)
    party = machine(world, b"C005010\n", word * 9000)
    assert not [each for each in world.facts if isinstance(each, LinkDown)]
    party.say(word * 1002)
    world.pump()
    assert [each.reason for each in world.facts if isinstance(each, LinkDown)] == ["protocol"]


def leave(stranger: Party) -> None:
    """Somebody whom the server has hung up on goes."""
    assert stranger.was_reset or stranger.end_came
    if stranger.here:
        stranger.close()


def machine(world: EmoWorld, *words: bytes) -> Party:
    """A machine that says so much and nothing else."""
    party = Party("machine")
    party.pair = dial_server(world, party)
    for word in words:
        party.say(word)
        world.pump()
    return party


def dial_server(world: EmoWorld, party: Party) -> Any:
    """A connection to the listener for machines."""
    return world.reactor.dial(LINK_PORT, party, host=SERVER)


def refusals(world: EmoWorld) -> list[tuple[str, str]]:
    """Word and sentence of everybody who was refused."""
    return [(fact.reason, fact.detail) for fact in world.of(LinkRefused)]


def showing(world: EmoWorld, serial: str | None, **rules: Any) -> None:
    """Whoever connects from now on shows the certificate of this device, or none, as TLS would say it."""
    listener = world.switchboard.listeners["machines"]

    def make(*args: Any) -> EmoServerLink:
        link = EmoServerLink(world.door, *args)
        link.certificate = None if serial is None else PeerCertificate(serial, "ab" * 32, 0.0)
        return link

    world.switchboard.listeners["machines"] = replace(listener, make=make, **rules)


@pytest.mark.parametrize(
    ("shown", "only", "refused"),
    [
        ("mill-1", True, None),
        (None, False, None),
        ("mill-2", False, ("denied", "the certificate is for mill-2")),
        (None, True, ("certificate", "no certificate")),
    ],
)
def test_n34_whose_certificate_a_port_is_for(
    shown: str | None, only: bool, refused: tuple[str, str] | None
) -> None:
    """Its machine's; and none, where the listener does without."""
    world = EmoWorld(start=False)
    showing(world, shown, certified_only=only)
    party = machine(world, b"C005010\n")
    assert party.data == (b"F0000001\n" if refused else b"PING   \n")
    assert refusals(world) == ([refused] if refused else [])
    assert [up.authenticated for up in world.of(LinkUp)] == ([] if refused else [shown is not None])


@pytest.mark.parametrize(
    ("shown", "source"), [("mill-2", "127.0.0.1"), (None, "127.0.0.1"), (None, "198.51.100.9")]
)
def test_r13_a_data_socket_is_its_own_machines(shown: str | None, source: str) -> None:
    """Who has registered the port is known by certificate where there is one, and else by address."""
    world = EmoWorld(start=False)
    own = "mill-1" if source == "127.0.0.1" else None
    showing(world, own)
    machine(world, b"C005010\n")
    client = world.client("mill-1", "emo")
    world.pump()
    showing(world, shown)
    thief = Party("thief")
    thief.pair = world.reactor.dial(LINK_PORT, thief, source, SERVER)
    thief.say(b"P005010\n" + b"not the device")
    world.pump()
    assert [word for word, _ in refusals(world)] == ["protocol"] and not client.data
    showing(world, own)
    machine(world, b"P005010\n").say(b"the device")
    world.pump()
    assert client.data == b"the device"


def test_r12_a_port_that_another_program_has_is_refused() -> None:
    """The machine hears its F, and is no device that nobody could reach."""
    world = EmoWorld(start=False)
    world.reactor.taken[5010] = errno.EADDRINUSE
    party = machine(world, b"C005010\n")
    assert party.data.endswith(b"F0000001\n")
    world.advance(3)
    assert len(world.switchboard.links) == 0
    assert world.of(LinkDown)[0].detail == "port 5010 cannot be opened"


def test_r12_a_port_below_1025_is_no_machines() -> None:
    """Also where the settings reserve it: the original lets none register it."""
    world = EmoWorld(start=False)
    listener = world.switchboard.listeners["machines"]
    make = partial(EmoServerLink, EmoListener({1024: ("mill-1", "emo")}, LIMITS))
    world.switchboard.listeners["machines"] = replace(listener, make=make)
    assert machine(world, b"C001024\n").data == b"F0000001\n"


def test_a_silent_stranger_goes_after_three_seconds() -> None:
    """Absolute: bytes that come now and then do not prolong it."""
    world = EmoWorld()
    stranger = Party("stranger")
    stranger.pair = dial_server(world, stranger)
    for _ in range(2):
        stranger.say(b"C")
        world.advance(1.4)
        assert stranger.here
    world.advance(0.4)
    leave(stranger)
    assert [fact.reason for fact in world.of(LinkRefused)] == ["silent"]
    world.finish()


def test_r10_a_machine_that_registers_again_is_served_at_once() -> None:
    """Its old command socket lingers: the newest wins, running streams go on."""
    world = EmoWorld()
    client, device = world.talk_to()
    world.add_agent("mill-1", ())
    world.pump()
    assert world.of(LinkUp)[-1].replaced
    client.say(b"on")
    world.pump()
    assert device.data == b"on"
    later, again = world.talk_to()
    later.say(b"new")
    world.pump()
    assert again.data == b"new"


def test_r15_a_data_socket_that_never_comes() -> None:
    """After 30 s the client is refused; the machine stays."""
    world = EmoWorld(start=False)
    party = machine(world, b"C005010\n")
    client = world.client("mill-1", "emo")
    world.pump()
    world.advance(29)
    assert client.here
    world.advance(2)
    assert client.was_reset
    assert [fact.reason for fact in world.of(ClientRefused)] == ["device-silent"]
    assert bytes(party.data).replace(b"PING   \n", b"") == b"C000001\nT000001\n"
    assert len(world.switchboard.links) == 1


def test_the_51st_client_alone_is_refused() -> None:
    """The original shuts the machine."""
    world = EmoWorld(emo=replace(LIMITS, sockets=3))
    clients = [world.client("mill-1", "emo") for _ in range(4)]
    world.pump()
    assert [client.was_reset for client in clients] == [False, False, False, True]
    for client in clients[:3]:
        client.say_more(10)
    world.pump()
    assert all(len(device.data) == 10 for device in world.services["mill-1"])
    world.finish()


def test_a_client_that_does_not_read_stops_its_device_alone() -> None:
    """Little is held; the next stream is not touched."""
    world = EmoWorld()
    slow, talker = world.talk_to()
    slow.stop_reading()
    sent = 0
    while not talker.full and sent < 8 * MIB:
        talker.say(b"x" * 65536)
        sent += 65536
        world.pump()
    assert talker.full
    assert sent < 3 * MIB
    other, device = world.talk_to()
    other.say(b"quick")
    world.pump()
    assert device.data == b"quick"
    slow.read_on()
    world.pump()
    assert len(slow.data) == sent
    world.finish()


def test_close_and_kick() -> None:
    """An operator ends one stream, or the machine; clients see a reset."""
    world = EmoWorld()
    one, _ = world.talk_to()
    two, _ = world.talk_to()
    rows = world.switchboard.streams.rows("mill-1")
    assert [(row.number, row.target, row.carrier) for row in rows] == [
        (256, "emo", "socket"),
        (257, "emo", "socket"),
    ]
    assert world.switchboard.close_channel("mill-1", 256, "closed by an operator")
    world.pump()
    assert one.was_reset and not two.was_reset
    assert world.switchboard.kick("mill-1", "by an operator", 0)
    world.pump()
    assert two.was_reset
    assert {fact.reason.word for fact in world.of(ChannelEnded)} == {"operator"}
    assert not world.switchboard.close_channel("mill-1", 257, "again")


def test_a_silent_machine_is_dropped_once_it_has_answered() -> None:
    """30 s after its last word; one that never answered a PING stays, and new clients wait for it."""
    for words, left in (((b"C005010\n", b"PONG   \n"), 0), ((b"C005010\n",), 1)):
        world = EmoWorld(start=False)
        machine(world, *words)
        world.advance(28)
        assert len(world.switchboard.links) == 1
        world.advance(4)
        assert len(world.switchboard.links) == left


@pytest.mark.parametrize("garbage", [b"\0" * 8, b"GET / HT", b"C000001\n", b"P005010\n", b"F0000001\n"])
def test_r17_data_on_a_command_socket(garbage: bytes) -> None:
    """The machine is dropped for it, and its streams are reset; another machine is not touched."""
    world = EmoWorld(serials=("mill-2",))
    client, device = world.talk_to("mill-2")
    faulty = machine(world, b"C005010\n")
    waiting = world.client("mill-1", "emo")
    world.pump()
    faulty.say(garbage)
    world.advance(3)
    leave(faulty)
    assert waiting.was_reset
    assert [(fact.serial, fact.reason) for fact in world.of(LinkDown)] == [("mill-1", "protocol")]
    client.say(b"unharmed")
    world.pump()
    assert device.data == b"unharmed"


def test_the_terminator_as_payload_ends_the_stream(world: EmoWorld) -> None:
    """The wire cannot do better; nothing after it reaches anybody else."""
    client, device = world.talk_to()
    client.say(b"before" + TERMINATOR + b"after")
    world.pump()
    assert (device.data, device.end_came) == (b"before", True)


def test_messages_of_44_and_45_bytes_pass_at_once(world: EmoWorld) -> None:
    """The original holds what is shorter than its terminator."""
    client, device = world.talk_to()
    for size in (1, 44, 45):
        client.say(b"m" * size)
        world.pump()
    assert len(device.data) == 90
    world.finish()
