"""EMO in memory: streams without their command socket, drains, impatience, floods, and who pays for them."""

from dataclasses import replace

import pytest
from twisted.internet.defer import fail

from revtunnel.ground.facts import LinkRefused
from revtunnel.ground.limits import AgentLimits
from revtunnel.ground.reasons import Ended
from revtunnel.streams.dialler import Dialler
from revtunnel.systems.emo.emo import REFUSED, TERMINATOR
from revtunnel.systems.emo.emo_agent import HUNG_UP, EmoAgentLink
from revtunnel.systems.emo.emo_stream import PARTING
from tests.support.memory import CAPACITY, Recorder
from tests.support.reactor import MemoryReactor
from tests.support.world import KIB, Party, World
from tests.systems.emo.test_emo_server import (
    LIMITS,
    LIMITS_IDLE_STEPS,
    TARGETS,
    EmoWorld,
    dial_server,
    leave,
    machine,
)


def lose_command_socket(world: EmoWorld) -> None:
    """The agent's command socket goes; it is back two seconds later."""
    agent = world.agents["mill-1"].uplink.link
    assert agent is not None
    agent.transport.loseConnection()
    world.pump()


@pytest.mark.parametrize("how", ["close", "kick", "stop"])
def test_r16_streams_without_a_command_socket_can_be_ended(how: str) -> None:
    """They are listed under numbers of their own, beside those of the next command socket."""
    world = EmoWorld()
    old, device = world.talk_to()
    lose_command_socket(world)
    world.advance(2)
    new, _ = world.talk_to()
    assert [row.number for row in world.switchboard.streams.rows("mill-1")] == [256, 257]
    if how == "close":
        assert world.switchboard.close_channel("mill-1", 256, "closed by an operator")
    elif how == "kick":
        assert world.switchboard.kick("mill-1", "by an operator", 0)
    else:
        world.switchboard.stop()
    world.pump()
    assert old.was_reset and device.was_reset
    assert new.was_reset is (how != "close")
    left = [row.number for row in world.switchboard.streams.rows("mill-1")]
    assert left == ([257] if how == "close" else [])
    assert not world.outlived()


def test_r16_a_server_drains_after_the_last_of_them() -> None:
    """The command socket was lost before; the stream is waited for."""
    world = EmoWorld()
    client, device = world.talk_to()
    lose_command_socket(world)
    drained = world.switchboard.drain()
    world.advance(5)
    assert not drained.called
    client.say(b"more")
    world.pump()
    assert device.data == b"more"
    for party in (client, device):
        party.close()
    world.pump()
    assert drained.called


def test_r10_streams_of_a_replaced_machine_end_and_leave_nothing() -> None:
    """Their command socket was replaced while they ran; what is left of it goes with the last one."""
    world = EmoWorld()
    client, device = world.talk_to()
    world.add_agent("mill-1", ())
    world.pump()
    assert len(world.outlived()) == 1
    for party in (device, client):
        party.close()
    world.pump()
    assert not world.outlived()
    assert world.ended() == ["closed"]


def test_r10_the_oldest_wins_where_the_listener_says_so() -> None:
    """The second one gets its F, and the first one is not touched."""
    world = EmoWorld()
    (listener,) = world.switchboard.listeners.values()
    world.switchboard.listeners["machines"] = replace(listener, duplicate="oldest")
    client, device = world.talk_to()
    second = machine(world, b"C005010\n")
    assert second.data == b"F0000001\n"
    world.advance(3)
    leave(second)
    assert [fact.reason for fact in world.of(LinkRefused)] == ["duplicate"]
    client.say(b"on")
    world.pump()
    assert device.data == b"on"
    world.finish()


def test_impatient_clients_cost_the_machine_nothing() -> None:
    """A port scanner connects and resets before its data socket is there, ten times."""
    world = EmoWorld(start=False)
    party = machine(world, b"C005010\n", b"PONG   \n")
    for _ in range(10):
        world.client("mill-1", "emo")
        world.pump()
        (slot,) = world.machine().machine.table.slots
        slot.client.abort()
        world.pump()
    assert bytes(party.data).count(b"C000001\n") == 1  # and no other
    data = machine(world, b"P005010\n")
    world.pump()
    assert bytes(party.data).endswith(b"T000001\n")
    leave(data)
    assert len(world.switchboard.links) == 1
    assert world.switchboard._sockets() == 1


def test_a_socket_that_comes_after_its_time_is_no_fault() -> None:
    """It was given up after 30 s; the machine is slow, not hostile."""
    world = EmoWorld(emo=replace(LIMITS, unasked=1), start=False)
    party = machine(world, b"C005010\n", b"PONG   \n")
    world.client("mill-1", "emo")
    for _ in range(6):
        world.advance(5.1)
        party.say(b"PONG   \n")
        world.pump()
    assert bytes(party.data).endswith(b"T000001\n")
    late = machine(world, b"P005010\n")
    world.advance(3)
    leave(late)
    assert len(world.switchboard.links) == 1
    machine(world, b"P005010\n")  # this one was never asked for
    world.pump()
    assert len(world.switchboard.links) == 0


def test_r14_a_flood_of_data_sockets() -> None:
    """A few that nobody asked for cost no penalty; one too many ends the command socket."""
    world = EmoWorld(start=False)
    party = machine(world, b"C005010\n", b"PONG   \n")
    for count in range(LIMITS.unasked):
        assert len(world.switchboard.links) == 1, count
        machine(world, b"P005010\n")
        world.pump()
    assert len(world.switchboard.links) == 0
    world.advance(3)
    leave(party)
    assert [fact.reason for fact in world.of(LinkRefused)] == ["ticket"] * LIMITS.unasked


def test_r13_a_stranger_pays_for_what_it_tries() -> None:
    """Data sockets for ports of nobody: after two and four tries it is not even read; what runs goes on."""
    world = EmoWorld()
    client, device = world.talk_to()
    refused = []
    world.switchboard.access.penalties.exempt = ()
    for _ in range(8):
        stranger = Party("stranger")
        stranger.pair = dial_server(world, stranger)
        if stranger.here:
            stranger.say(b"P005999\n")
        world.pump()
        refused = [fact.reason for fact in world.of(LinkRefused)]
    assert refused == ["protocol"] * 6 + ["penalty"] * 2
    client.say(b"unharmed")
    world.pump()
    assert device.data == b"unharmed"


@pytest.mark.parametrize("when", ["idle", "behind the end"])
def test_bytes_of_an_agent_outside_a_stream_reach_nobody(when: str) -> None:
    """They would be the next client's; the data socket goes instead."""
    world = EmoWorld(start=False)
    party = machine(world, b"C005010\n")
    client = world.client("mill-1", "emo")
    world.pump()
    data = machine(world, b"P005010\n")
    extra = b"astray" if when == "behind the end" else b""
    data.say(b"answer" + TERMINATOR + extra)
    world.pump()
    if not extra:
        client.close()
        world.pump()
        party.say(b"S000001\n")
        world.pump()
        data.say(b"astray")
        world.pump()
    leave(data)
    assert client.data == b"answer"
    assert client.was_reset is bool(extra)
    later = world.client("mill-1", "emo")
    world.pump()
    again = machine(world, b"P005010\n")
    again.say(b"right")
    world.pump()
    assert later.data == b"right"


def test_idle_data_sockets_are_closed_after_ten_minutes() -> None:
    """T of the agent; the next client gets a new one."""
    world = EmoWorld()
    client, device = world.talk_to()
    for party in (client, device):
        party.close()
    world.pump()
    assert world.data_sockets() == 1
    for _ in range(LIMITS_IDLE_STEPS):
        world.advance(5)
    assert world.data_sockets() == 0
    assert world.switchboard.data.sockets == 0
    later, again = world.talk_to()
    later.say(b"new")
    world.pump()
    assert again.data == b"new"
    world.finish()


def test_the_agent_drains() -> None:
    """It takes no new clients, ends when the running stream does, and hangs up."""
    world = EmoWorld()
    client, device = world.talk_to()
    stopped = world.agents["mill-1"].uplink.stop(60)
    refused = world.client("mill-1", "emo")
    world.pump()
    assert refused.was_reset
    client.say(b"more")
    world.pump()
    assert device.data == b"more" and not stopped.called
    for party in (client, device):
        party.close()
    world.pump()
    assert stopped.called
    assert len(world.switchboard.links) == 0


def test_the_agents_streams_that_outlived_their_command_socket() -> None:
    """A drain waits for them; an abort ends them."""
    for abort in (False, True):
        world = EmoWorld()
        client, device = world.talk_to()
        lose_command_socket(world)
        remains = world.remains
        drained = remains.drain()
        assert not drained.called
        if abort:
            remains.abort()
        else:
            device.close()
            client.close()
        world.pump()
        assert drained.called
        assert device.was_reset is abort


class Hostile:
    """An agent's command socket to a server that takes nothing it says."""

    def __init__(self) -> None:
        self.reactor = MemoryReactor()
        self.left: list[EmoAgentLink] = []
        target = TARGETS["mill-1"]
        dialler = Dialler(self.reactor, AgentLimits(), [target])
        self.link = EmoAgentLink(
            self.reactor,
            LIMITS,
            "mill-1",
            5010,
            target.target,
            dialler,
            lambda link, factory: fail(ConnectionError()),
            lambda fact: None,
            lambda link: None,
            self.left.append,
        )
        self.pair = self.reactor.join(self.link, Recorder())
        self.pair.to_far.capacity = 10
        self.pair.to_far.blocked = True

    def says(self, words: bytes) -> None:
        """Bytes for the agent."""
        self.pair.far.write(words)
        self.reactor.pump()


@pytest.mark.parametrize("command", [b"PING   \n", b"T000007\n"])
def test_commands_that_change_nothing_have_a_limit_at_the_agent_too(command: bytes) -> None:
    """In a minute; heartbeats are far below it."""
    agent = Hostile()
    agent.pair.to_far.blocked = False
    agent.says(command * 9_000)
    for _ in range(3):
        agent.reactor.advance(LIMITS.silence - 5)
        agent.says(b"PING   \n")
    agent.says(command * 9_998)
    assert agent.link.ended is None
    agent.says(command)
    assert agent.link.ended == ("protocol", "10000 commands that change nothing in 60 s")


@pytest.mark.parametrize("how", ["refused", "no command!", "departs", "leaves"])
def test_a_server_that_does_not_read_keeps_no_agent(how: str) -> None:
    """However the command socket is to end: the agent does not wait for its last words to be taken."""
    hostile = Hostile()
    hostile.says(b"PING   \n" * 10)
    if how == "departs":
        hostile.link.depart()
    elif how == "leaves":
        hostile.link.leave()
    else:
        hostile.says(REFUSED if how == "refused" else how.encode())
    hostile.reactor.pump()
    assert hostile.pair.near.disconnecting and not hostile.left
    hostile.reactor.advance(PARTING)
    assert hostile.left == [hostile.link] and hostile.reactor.getDelayedCalls() == []


def test_a_server_that_only_asks_is_not_heard() -> None:
    """What waits for it is bounded, and in the end it is left."""
    hostile = Hostile()
    hostile.says(b"PING   \n" * 9_000)
    assert hostile.pair.near.peak < 200 * KIB
    hostile.reactor.advance(LIMITS.silence + 1 + PARTING)
    assert hostile.left == [hostile.link] and hostile.link.ended is not None
    assert hostile.link.ended[0] == "silent"
    assert hostile.reactor.getDelayedCalls() == []


def test_pings_are_answered_when_the_server_reads_on() -> None:
    """None is lost."""
    hostile = Hostile()
    hostile.says(b"PING   \n" * 9_000)
    hostile.pair.to_far.blocked = False
    hostile.pair.to_far.capacity = CAPACITY
    hostile.reactor.pump()
    server = hostile.pair.far.protocol
    assert isinstance(server, Recorder)
    assert server.data == b"C005010\n" + b"PONG   \n" * 9_000


def test_a_record_that_is_over_ends_a_machine() -> None:
    """With the word of it; and it does not come in again."""
    world = EmoWorld()
    client, _ = world.talk_to()
    lose_command_socket(world)
    (machine,) = world.outlived()
    machine.end_streams(Ended.NOT_ALLOWED, "its record is over")
    world.pump()
    assert client.was_reset
    assert world.ended() == [Ended.NOT_ALLOWED.word]


@pytest.mark.parametrize("cuts", [None, 1])
def test_a_message_that_ends_with_nuls_is_passed_on(cuts: object) -> None:
    """They may begin a terminator, and are let go after a moment; the end is found all the same."""
    world = EmoWorld(cuts=cuts)
    client, device = world.talk_to()
    client.say(b"binary\0\0\0")
    world.pump()
    assert device.data == b"binary"
    world.advance(1)
    assert device.data == b"binary\0\0\0"
    client.finish()
    world.pump()
    assert device.end_came and device.data == b"binary\0\0\0"
    device.close()
    world.pump()
    assert world.ended() == ["closed"]
    world.finish()


def test_a_listener_of_another_kind_is_told_by_its_silence() -> None:
    """Both logs say which setting answers it."""
    world = EmoWorld(serials=())
    World._listen(world, 0, "mill-1", (), True)
    agent = world.add_agent("mill-1", ())
    world.pump()
    assert agent.links[0].ended == ("lost", HUNG_UP)
    for words in (HUNG_UP, world.of(LinkRefused)[0].detail):
        assert "kind = emo in [listener NAME]" in words


def test_an_end_is_passed_to_the_client_whose_it_is() -> None:
    """S may overtake a terminator: the index then serves the next client at once, who has not ended."""
    world = EmoWorld(emo=replace(LIMITS, sockets=3), start=False)
    party = machine(world, b"C005010\n")
    one = world.client("mill-1", "emo")
    world.pump()
    data = machine(world, b"P005010\n")
    world.client("mill-1", "emo")  # for whom a new one is asked
    two = world.client("mill-1", "emo")
    world.pump()
    party.say(b"S000001\n")  # the device refused, and this was faster than the terminator
    world.pump()
    data.say(TERMINATOR)
    world.pump()
    assert one.end_came or one.lost is not None
    assert not two.end_came and two.here
    data.say(b"hello two")
    world.pump()
    assert two.data == b"hello two"
