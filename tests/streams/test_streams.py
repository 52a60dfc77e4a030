"""Bytes, ends and back-pressure of one client and its service, through whole worlds on both wires."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revtunnel.ground.facts import ChannelEnded, ChannelOpened, LinkStalled
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.targets import parse_offer
from revtunnel.streams.streams import FLUSH
from tests.support.depth import deep
from tests.support.memory import CAPACITY
from tests.support.reactor import HANGS
from tests.support.world import CONSOLE, KIB, MIB, REPLY, WIRES, Party, World

CUTS = (None, 1, "random")
PRINTER = parse_offer("printer=printer.local:9100")
CONSOLE_AT = (CONSOLE.target.host, CONSOLE.target.port)
both_wires = pytest.mark.parametrize("wire", WIRES)
every_cut = pytest.mark.parametrize("cuts", CUTS)


def exchange(world: World, client: Party, service: Party, size: int) -> None:
    """``size`` bytes each way at once arrive whole."""
    client.say_more(size)
    service.say_more(size)
    world.pump()
    assert service.data == client.sent
    assert client.data == service.sent


@both_wires
@every_cut
@pytest.mark.parametrize("capacity", [300, CAPACITY])
def test_bytes_are_exact_both_ways(wire: str, cuts: int | str | None, capacity: int) -> None:
    """CONNECT, OPENED, then data both ways at once, whole, byte by byte and in random pieces."""
    size = deep(1_500, 310) if cuts == 1 else deep(200_000, 70_000) if capacity == CAPACITY else deep(30_000)
    world = World(wire, cuts=cuts, capacity=capacity)
    client, service = world.talk()
    exchange(world, client, service, size)
    (opened,) = world.of(ChannelOpened)
    assert (opened.serial, opened.target) == ("plc-1", "console")
    client.finish()
    service.finish()
    world.pump()
    assert client.end_came
    assert service.end_came
    (ended,) = world.of(ChannelEnded)
    assert (ended.reason.word, ended.bytes_to_device, ended.bytes_to_client) == ("closed", size, size)
    assert world.agents["plc-1"].ended() == ["closed"]
    world.finish()


@both_wires
@settings(max_examples=deep(15), deadline=None)
@given(
    pieces=st.lists(st.tuples(st.booleans(), st.integers(1, 5000)), max_size=12),
    capacity=st.sampled_from((64, 1000, CAPACITY)),
)
def test_any_pieces_arrive_in_order(wire: str, pieces: list[tuple[bool, int]], capacity: int) -> None:
    """Whatever is sent when, each end gets the other's bytes in order."""
    world = World(wire, cuts="random", capacity=capacity)
    client, service = world.talk()
    for from_client, size in pieces:
        (client if from_client else service).say_more(size)
        world.reactor.turn()
        assert client.sent.startswith(service.data)
        assert service.sent.startswith(client.data)
    world.pump()
    assert service.data == client.sent
    assert client.data == service.sent


def test_a_client_is_read_within_its_credit_before_its_target_answered() -> None:
    """rt1: what a client says while the target is dialled waits at the agent, as far as the credit goes."""
    world = World("rt1")
    world.reactor.faults[CONSOLE_AT] = HANGS
    client = world.client()
    client.say_more(1_000_000)
    world.advance(5.0)
    mux = world.server_link().mux
    assert mux is not None
    (channel,) = mux.channels.values()
    assert channel.bytes_sent == LinkLimits().first_window
    assert channel.blocked
    assert client.pair is not None
    assert not client.pair.far.reading
    world.advance(6.0)
    assert client.was_reset
    assert world.ended() == ["timed-out"]
    world.finish()


def test_early_bytes_of_a_legacy_client_wait_for_the_target() -> None:
    """Legacy: the wire knows no answer, so the bytes travel at once, and the agent keeps them."""
    world = World("legacy")
    client = world.client()
    client.say_more(1000)
    client.finish()
    world.pump()
    (service,) = world.services["console"]
    assert service.data == client.sent
    assert service.end_came
    world.finish()


def test_early_bytes_are_kept_while_the_target_is_dialled() -> None:
    """Legacy: data and end of file come before the target answers, and both are passed on when it does."""
    world = World("legacy", offers=(PRINTER,))
    world.reactor.serve("10.0.0.9", 9100, world.service["printer"])
    world.reactor.names.held.add("printer.local")
    world.reactor.names.answers["printer.local"] = ["10.0.0.9"]
    client = world.client(name="printer")
    client.say_more(1000)
    client.finish()
    world.pump()
    assert world.services["printer"] == []
    world.reactor.names.release()
    world.pump()
    (service,) = world.services["printer"]
    assert service.data == client.sent
    assert service.end_came
    world.finish()


@both_wires
@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (None, "refused"),
        (OSError(113, "no route"), "unreachable"),
        (OSError(110, "timed out"), "timed-out"),
        (OSError(24, "too many"), "out-of-resources"),
        (HANGS, "timed-out"),
    ],
)
def test_n30_n31_a_client_whose_target_does_not_answer_is_reset(
    wire: str, fault: BaseException | None, word: str
) -> None:
    """The client sees a reset, the fact has the word; on the legacy wire the agent alone knows the word."""
    world = World(wire)
    other, its_service = world.talk("web")
    if fault is None:
        world.reactor.at(*CONSOLE_AT).stop()  # type: ignore[union-attr]
        world.pump()
    else:
        world.reactor.faults[CONSOLE_AT] = fault
    client = world.client()
    world.pump()
    exchange(world, other, its_service, 5000)
    world.advance(11.0)
    assert world.agents["plc-1"].ended() == [word]
    if wire == "legacy" and fault is HANGS:  # the device said nothing for long: that counts as connected
        assert client.end_came
    else:
        assert client.was_reset
        assert world.ended() == [word if wire == "rt1" else "refused"]
    world.finish()


def test_f16_a_target_that_is_not_on_the_list_is_not_dialled() -> None:
    """The server asks for another target than the agent offers: not-allowed, and no dial."""
    for wire in WIRES:
        world = World(wire)
        port = world.ports.of("plc-1")[0]
        port.clients.target = type(port.clients.target)("10.0.0.5", 22)
        client = world.client(port=port.lease.port)
        world.pump()
        assert client.was_reset
        assert world.agents["plc-1"].ended() == ["not-allowed"]
        assert world.ended() == ["not-allowed" if wire == "rt1" else "refused"]
        assert ("10.0.0.5", 22) not in world.reactor.dialled
        world.finish()


@both_wires
@every_cut
def test_n26_a_client_that_ends_its_direction_gets_the_whole_reply(wire: str, cuts: int | str | None) -> None:
    """Request, end of file, reply, end of file; with our agent the legacy wire can do it too."""
    world = World(wire, cuts=cuts)
    world.service["console"].quick = "reply"
    client = world.client()
    client.say_more(deep(1000))
    client.finish()
    world.pump()
    (service,) = world.services["console"]
    assert service.data == client.sent
    assert client.data == service.sent
    assert len(client.data) == REPLY
    assert client.end_came
    assert not client.was_reset
    assert world.ended() == ["closed"]
    world.finish()


def test_n26_an_end_of_file_at_once_gets_the_whole_reply() -> None:
    """A client that says nothing and ends its direction before the target answered."""
    world = World("rt1")
    world.service["console"].quick = "reply"
    client = world.client()
    client.finish()
    world.pump()
    assert len(client.data) == REPLY
    assert world.ended() == ["closed"]
    world.finish()


@every_cut
def test_n27_a_service_that_ends_its_direction_gets_the_rest(cuts: int | str | None) -> None:
    """rt1: the service has ended, the client goes on sending."""
    world = World("rt1", cuts=cuts)
    client, service = world.talk()
    service.say_more(deep(1000))
    service.finish()
    world.pump()
    assert client.data == service.sent
    assert client.end_came
    client.say_more(deep(3000))
    world.pump()
    assert service.data == client.sent
    assert service.here
    client.finish()
    world.pump()
    assert service.end_came
    assert world.ended() == ["closed"]
    world.finish()


def test_n27_on_the_legacy_wire_a_service_that_ends_ends_both_ways() -> None:
    """CLOSE is the wire's only end: all the service said arrives, and the client sees a clean end."""
    world = World("legacy")
    client, service = world.talk()
    service.say_more(100_000)
    service.close()
    world.pump()
    assert client.data == service.sent
    assert client.end_came
    client.say_more(100)
    client.finish()
    world.pump()
    assert world.ended() == ["closed"]
    world.finish()


@pytest.mark.parametrize("who", ["client", "service"])
@every_cut
def test_n28_a_reset_is_a_reset_at_the_other_side(who: str, cuts: int | str | None) -> None:
    """rt1: RST of either program arrives as RST at the other."""
    world = World("rt1", cuts=cuts, capacity=deep(2000))
    client, service = world.talk()
    exchange(world, client, service, deep(3000))
    one, other = (client, service) if who == "client" else (service, client)
    one.abort()
    world.pump()
    assert other.was_reset
    assert world.ended() == ["reset-by-peer"]
    assert world.agents["plc-1"].ended() == ["reset-by-peer"]
    world.finish()


def test_n28_what_was_not_delivered_is_dropped_with_the_reset() -> None:
    """A reset behind 1 MiB that the client does not read: it gets a prefix and no clean end."""
    world = World("rt1")
    client, service = world.talk()
    client.stop_reading()
    service.say_more(MIB)
    world.pump()
    service.abort()
    world.pump()
    client.read_on()
    world.pump()
    assert client.was_reset
    assert not client.end_came
    assert service.sent.startswith(client.data)
    assert len(client.data) < MIB
    world.finish()


@both_wires
@every_cut
def test_a_lost_link_is_never_a_clean_end(wire: str, cuts: int | str | None) -> None:
    """Both programs see a reset, also when one direction had ended before."""
    world = World(wire, cuts=cuts)
    pairs = [world.talk(), world.talk("web")]
    for client, service in pairs:
        exchange(world, client, service, deep(1000))
    if wire == "rt1":
        pairs[1][1].finish()
        world.pump()
    world.link_pairs()[0].reset()
    world.pump()
    assert pairs[0][0].was_reset
    assert pairs[0][1].was_reset
    assert set(world.ended()) == {"link-lost"}
    assert set(world.agents["plc-1"].ended()) == {"link-lost"}
    if wire == "rt1":
        pairs[1][0].say(b"after its end of file a program notices a reset when it writes")
        world.pump()
        assert pairs[1][0].was_reset
    world.finish()


def test_a_client_that_does_not_take_its_last_bytes_is_reset() -> None:
    """A link went behind its device's CLOSE: what is there may be flushed, and what is not taken is cut."""
    world = World("legacy", capacity=300)
    client, service = world.talk()
    client.stop_reading()
    service.say_more(100_000)
    service.close()
    world.pump()
    world.link_pairs()[0].reset()
    world.pump()
    assert world.ended() == ["closed"]
    assert client.pair is not None and client.pair.far.connected
    world.advance(FLUSH)
    assert not client.pair.far.connected
    client.read_on()
    world.pump()
    assert client.was_reset and not client.end_came
    world.finish()


@both_wires
@pytest.mark.parametrize("stalled", ["client", "service"])
def test_n4_n5_a_program_that_stops_reading_holds_a_bounded_amount(wire: str, stalled: str) -> None:
    """Bytes held everywhere stay within the window (legacy: its limits), and nothing is lost afterwards."""
    limits = LinkLimits(legacy_queue_hard=256 * KIB, legacy_link_queue=MIB, legacy_stall=1e9)
    world = World(wire, link=limits)
    client, service = world.talk()
    slow, quick = (client, service) if stalled == "client" else (service, client)
    slow.stop_reading()
    total = 3 * MIB
    most = 0
    while len(quick.sent) < total:
        if not quick.full:
            quick.say_more(16 * KIB)
        world.reactor.turn()
        held = sum(world.reactor.held().values())
        most = max(most, held)
        if quick.full and not world.reactor.turn():
            break
    assert quick.full  # it was paused: the transport is full
    assert most < 1.3 * MIB
    sent = len(quick.sent)
    slow.read_on()
    world.pump()
    assert not quick.full
    assert slow.data == quick.sent
    assert sent < total
    world.finish()


def test_n6_one_stalled_client_does_not_stop_the_others() -> None:
    """rt1: seven others on the same link get everything while one takes nothing."""
    world = World("rt1")
    stalled, its_service = world.talk()
    stalled.stop_reading()
    its_service.say_more(2 * MIB)
    world.pump()
    others = [world.talk() for _ in range(7)]
    for _, service in others:
        service.say_more(300 * KIB)
    world.pump()
    for client, service in others:
        assert client.data == service.sent
    assert len(stalled.data) == 0
    stalled.read_on()
    world.pump()
    assert stalled.data == its_service.sent
    world.finish()


def test_n6_legacy_a_stalled_client_is_given_up_after_30_s() -> None:
    """The legacy link is held back, the event says so, and the slowest client is reset, not the link."""
    limits = LinkLimits(legacy_queue_hard=64 * KIB, legacy_link_queue=256 * KIB, busy_answer=60.0)
    world = World("legacy", link=limits)
    stalled, its_service = world.talk()
    other, other_service = world.talk("web")
    stalled.stop_reading()
    its_service.say_more(2 * MIB)
    world.pump()
    other_service.say_more(100 * KIB)
    world.pump()
    assert other.data != other_service.sent
    assert world.server_link().mux.holds_back  # type: ignore[union-attr]
    assert not world.link_pairs()[0].far.reading
    world.advance(40.0)
    (fact,) = world.of(LinkStalled)
    assert fact.serial == "plc-1"
    assert world.ended() == ["stalled"]
    stalled.read_on()
    world.pump()
    assert stalled.was_reset
    assert other.data == other_service.sent
    world.finish()


def test_n6_legacy_an_agent_whose_service_takes_nothing_gives_it_up() -> None:
    """The same at the agent's end, towards a ReadyAgent server."""
    limits = LinkLimits(legacy_queue_hard=64 * KIB, legacy_link_queue=256 * KIB)
    world = World("legacy", link=limits)
    client, service = world.talk()
    service.stop_reading()
    client.say_more(2 * MIB)
    world.advance(40.0)
    agent = world.agents["plc-1"]
    assert agent.ended() == ["stalled"]
    assert [fact for fact in agent.facts if isinstance(fact, LinkStalled)]
    service.read_on()
    world.pump()
    assert service.was_reset
    world.finish()


@both_wires
def test_sockets_are_paused_and_resumed_with_the_credit(wire: str) -> None:
    """The client's socket is not read while its queue is full, and read again when it has drained."""
    world = World(wire)
    client, service = world.talk()
    world.link_pairs()[0].to_near.blocked = True  # nothing reaches the agent
    client.say_more(MIB)
    world.pump()
    assert client.pair is not None
    assert not client.pair.far.reading
    world.link_pairs()[0].restore()
    world.pump()
    assert client.pair.far.reading
    assert service.data == client.sent
    world.finish()


def test_a_client_that_leaves_while_its_target_is_dialled_ends_the_dial() -> None:
    """The reset is noticed on the legacy wire, where the client is read; the dial is given up."""
    world = World("legacy")
    world.reactor.faults[CONSOLE_AT] = HANGS
    client = world.client()
    world.pump()
    assert world.reactor.dialling == 1
    client.abort()
    world.pump()
    assert world.ended() == ["reset-by-peer"]
    world.advance(11.0)
    assert world.reactor.dialling == 0
    world.finish()


def test_a_client_that_is_aborted_in_the_turn_of_its_channel_ends_it() -> None:
    """Its reset was noticed, and its carrier gave it a channel before that was told."""
    world = World()
    client = Party("late")
    pair = world.reactor.join(client, None)
    clients = world.ports.of("plc-1")[0].clients
    admit, clients._admit = clients._admit, lambda one: one.abort() or admit(one)  # type: ignore[func-returns-value]
    clients.came(pair.far.plain)  # type: ignore[union-attr]
    clients._admit = admit
    world.pump()
    assert client.was_reset
    assert world.ended() == ["reset-by-peer"]
    world.finish()
