"""Who waits for whom, of the clients of one service."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.device_records import DeviceRecord, DeviceRecords
from revtunnel.ground.facts import ClientRefused
from revtunnel.ground.limits import ServerLimits
from revtunnel.streams.commands import Feature
from revtunnel.streams.lines import FEW
from tests.support.world import WIRES, Party, World

both_wires = pytest.mark.parametrize("wire", WIRES)


def world_of(at_once: int | None, wire: str = "rt1", server: ServerLimits | None = None) -> World:
    """A device whose services take so many clients at once."""
    records = DeviceRecords({"plc-1": DeviceRecord(at_once=at_once)})
    return World(wire, access=AccessControl(lambda: 0.0, records), server=server)


def running(world: World) -> list[Party]:
    """The connections that the service has now."""
    return [each for each in world.services["console"] if each.here]


@both_wires
def test_a_new_client_waits_for_one_that_has_ended(wire: str) -> None:
    """Until the service has closed too, which is told by its end of file; then at once."""
    world = World(wire)
    first, service = world.talk()
    first.finish()
    world.pump()
    second = world.client()
    world.advance(0.05)
    assert len(world.services["console"]) == 1
    service.close()
    world.pump()
    (_, other) = world.services["console"]
    assert (service.here, other.here, second.here) == (False, True, True)
    second.say(b"hello")
    world.pump()
    assert other.data == b"hello"
    world.finish()


@given(
    steps=st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from([0.0, 0.03, 0.09])), max_size=6),
    also=st.sampled_from([Feature.AFTER, Feature(0)]),
)
def test_a_device_whose_clients_come_one_after_the_other_never_has_two(
    steps: list[tuple[bool, bool, float]], also: Feature
) -> None:
    """Whoever waits, the agent or the server; clients that say something or nothing, in order or cut."""
    world = World(also=also)
    client, service = world.talk()
    for speaks, cuts, pause in steps:
        if speaks:
            client.say(b"x")
            world.pump()
        if cuts:
            client.abort()
        else:
            client.finish()
        world.pump()
        client = world.client()
        if not cuts:
            world.advance(pause)
            assert running(world) == [service]
            service.close()
        world.pump()
        (service,) = running(world)
    world.finish()


@pytest.mark.parametrize("also", [Feature.AFTER, Feature(0)])
def test_it_waits_no_longer_than_it_is_told(also: Feature) -> None:
    """A service may answer for an hour to a client that has ended; the next one waits no more."""
    world = World(also=also)
    first, _ = world.talk()
    first.finish()
    world.pump()
    world.client()
    world.advance(0.09)
    assert len(running(world)) == 1
    world.advance(0.02)
    assert len(running(world)) == 2
    world.talk()
    assert len(running(world)) == 3
    world.finish()


def test_nobody_waits_for_one_that_has_not_ended_nor_for_another_service() -> None:
    """Nor with the setting at 0, nor where many are there at once."""
    world = World()
    world.talk()
    world.talk()
    first, _ = world.talk("web")
    first.finish()
    world.pump()
    world.talk()
    assert world.reactor.seconds() == 0.0
    world.finish()
    world = World(server=ServerLimits(ended_wait=0.0))
    first, _ = world.talk()
    first.finish()
    world.pump()
    world.talk()
    world.finish()
    world = World()
    for _ in range(FEW + 1):
        first, _ = world.talk()
    first.finish()
    world.pump()
    world.talk()
    world.finish()


@both_wires
def test_where_one_is_taken_at_once_the_others_stand_in_line(wire: str) -> None:
    """In their order, none refused; another service of the device has its own."""
    world = world_of(1, wire)
    first, service = world.talk()
    others = [world.client() for _ in range(3)]
    for number, each in enumerate(others):
        each.say(b"client %d" % number)
    world.talk("web")
    world.advance(1.0)
    assert running(world) == [service]
    for number in range(3):
        (now,) = running(world)
        now.close()
        world.clients[number].close()
        world.pump()
        assert [each.data for each in running(world)] == [b"client %d" % number]
    assert first.lost is not None
    assert world.of(ClientRefused) == []
    world.finish()


def test_who_has_waited_too_long_or_finds_the_line_full_is_refused() -> None:
    """With a reset, counted."""
    world = world_of(1, server=ServerLimits(line=2, line_wait=5.0))
    world.talk()
    world.client()
    world.advance(3.0)
    world.client()
    full = world.client()
    world.pump()
    assert full.was_reset
    world.advance(2.0)
    assert [each.was_reset for each in world.clients] == [False, True, False, True]
    assert [fact.reason for fact in world.of(ClientRefused)] == ["too-many-clients"] * 2
    world.finish()


def test_a_device_that_goes_refuses_who_stands_in_line() -> None:
    """Nobody is left hanging."""
    world = world_of(1)
    world.talk()
    waiting = world.client()
    world.pump()
    assert world.switchboard.kick("plc-1", "a test", 60)
    world.pump()
    assert waiting.was_reset
    assert [fact.reason for fact in world.of(ClientRefused)] == ["device-absent"]
    world.finish()


def test_a_record_that_says_so_no_longer_lets_all_go() -> None:
    """As soon as anybody comes or goes."""
    world = world_of(1)
    first, _ = world.talk()
    world.client()
    world.client()
    world.pump()
    assert len(running(world)) == 1
    world.switchboard.access.records = DeviceRecords()
    first.close()
    running(world)[0].close()
    world.pump()
    assert len(running(world)) == 2
    world.finish()


def test_a_thousand_clients_leave_nothing_behind() -> None:
    """Whatever became of them."""
    world = world_of(2, server=ServerLimits(line=10))
    for number in range(1000):
        client = world.client()
        world.pump()
        if number % 3 == 0:
            client.abort()
        elif number % 7 == 0 and running(world):
            running(world)[0].close()
        world.pump()
    world.finish()
    assert world.switchboard.client_streams._lines._lines == {}
