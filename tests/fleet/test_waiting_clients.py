"""Clients of a device that is away: held until it comes, or for a while; and who is not held at all."""

from dataclasses import replace

import pytest

from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.device_records import DeviceRecord, DeviceRecords
from revtunnel.ground.facts import ChannelEnded, ClientRefused
from revtunnel.ground.limits import ServerLimits
from revtunnel.ground.networks import network_of
from tests.fleet.test_client_ports import restarted
from tests.support.world import CONSOLE, WEB, WIRES, Party, World

WAIT = 60.0


def waiting(world: World) -> list[str]:
    """Let the clients of its ports wait; who was wanted."""
    wanted: list[str] = []
    world.switchboard.client_streams.waits = lambda client: ("default", WAIT)
    world.switchboard.client_streams.wanted = wanted.append
    return wanted


def away(wire: str = "rt1", **options: object) -> tuple[World, list[str]]:
    """A world whose device is away and whose ports stand."""
    world = World(wire, refuses=True, **options)  # type: ignore[arg-type]
    wanted = waiting(world)
    world.agents["plc-1"].uplink.stop(0.0)
    world.advance(1.0)
    return world, wanted


def back(world: World) -> None:
    """The device comes."""
    world.add_agent("plc-1", (CONSOLE, WEB))
    world.pump()


def words(world: World) -> list[str]:
    """Why clients were refused."""
    return [fact.reason for fact in world.of(ClientRefused)]


@pytest.mark.parametrize("wire", WIRES)
def test_a_client_waits_for_its_device(wire: str) -> None:
    """What it has said meanwhile is the service's, and the time it waited is told."""
    world, wanted = away(wire)
    client, other = world.client(), world.client(name="web")
    client.say(b"hello")
    world.advance(30.0)
    assert client.here and other.here and not client.data
    assert wanted == ["plc-1", "plc-1"]
    back(world)
    assert world.services["console"][-1].data == b"hello"
    world.services["web"][-1].say(b"you waited")
    world.pump()
    assert other.data == b"you waited"
    assert not words(world)
    world.advance(100.0)
    assert client.here
    world.finish()


def test_also_after_a_restart() -> None:
    """When nobody knows yet what the device offers."""
    world = World()
    waiting(world)
    restarted(world)
    world.switchboard.enforcement.keep_promises()
    client = world.client()
    world.pump()
    back(world)
    client.say(b"here")
    world.pump()
    assert world.services["console"][-1].data == b"here"
    world.finish()


def test_a_device_that_does_not_come() -> None:
    """The client is reset when its time is over."""
    world, _ = away()
    client = world.client()
    world.advance(WAIT - 1)
    assert client.here
    world.advance(2.0)
    assert client.was_reset
    assert words(world) == ["device-absent"]
    world.finish()


def test_a_device_that_offers_it_no_more() -> None:
    """Its client is refused, and not sent to what was there before."""
    world = World()
    waiting(world)
    restarted(world)
    world.switchboard.enforcement.keep_promises()
    client = world.client(name="web")
    world.pump()
    world.add_agent("plc-1", (CONSOLE,))
    world.pump()
    assert client.was_reset
    assert words(world) == ["device-absent"]
    assert not world.of(ChannelEnded)
    world.finish()


@pytest.mark.parametrize("how", ["drain", "stop"])
def test_a_server_that_leaves_holds_nobody(how: str) -> None:
    """A drain does not wait for who waits."""
    world, _ = away()
    client = world.client()
    world.pump()
    done = getattr(world.switchboard, how)()
    world.pump()
    assert client.was_reset
    assert words(world) == ["draining"]
    assert done is None or done.called
    world.finish()


def test_who_may_not_have_the_device_wakes_nobody() -> None:
    """By its record, as if it were here."""
    record = DeviceRecord(clients=(network_of("192.0.2.0/24"),))
    world, wanted = away(access=AccessControl(lambda: 0.0, DeviceRecords({"plc-1": record})))
    client = world.client()
    world.pump()
    assert client.was_reset
    assert (words(world), wanted) == (["not-allowed"], [])
    world.finish()


def test_no_more_than_a_device_may_have_wait_for_it() -> None:
    """And when it comes, each is judged again."""
    world, _ = away(server=replace(ServerLimits(), clients_per_device=2))
    clients: list[Party] = [world.client() for _ in range(3)]
    world.pump()
    assert [each.here for each in clients] == [True, True, False]
    assert words(world) == ["too-many-clients"]
    world.switchboard.set_limits(replace(ServerLimits(), clients_per_device=1))
    back(world)
    assert [each.here for each in clients] == [True, False, False]
    world.finish()


def test_a_member_of_a_session_does_not_wait() -> None:
    """Whoever asked for it is told at once."""
    world, wanted = away()
    member = world.member("some-session")
    world.pump()
    assert member.was_reset
    assert (words(world), wanted) == (["device-absent"], [])
    world.finish()
