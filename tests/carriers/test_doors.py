"""Client ports that the data plane has: what is lent, what of it is seen, and what comes back when."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.fleet.device_records import DeviceRecord, DeviceRecords
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, ClientRefused
from revtunnel.ground.limits import ServerLimits
from revtunnel.ground.networks import network_of
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.sockets.data_plane import DataPlane
from revtunnel.sockets.opening import connect
from revtunnel.sockets.plane_settings import find_pump
from tests.support.data_world import SERIAL, DataWorld
from tests.support.door_drive import OPENED, Brought, DoorWorld
from tests.support.traffic import reset

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_pump() is None, reason="revtunnel._pump was not built"),
]


@pytest.fixture(autouse=True)
def native(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a data plane."""
    monkeypatch.setattr(DataWorld, "native", True)


@pytest.fixture
def world() -> Iterator[DataWorld]:
    """Its port is lent."""
    with DataWorld() as world:
        lent(world)
        yield world


def lent(world: DataWorld) -> None:
    """Let two clients come and go: behind the second the port is lent, if it may be."""
    for _ in range(2):
        client, service = world.talk()
        for each in (client, service):
            each.close()
        world.until(lambda: not world.switchboard.clients, "their end")
        world.until(lambda: len(world.pool.spare) >= 2, "spare sockets")


def took(world: DataWorld) -> Any:
    """The door; there is one."""
    assert len(world.switchboard.doors) == 1
    (door,) = world.switchboard.doors._doors.values()
    return door


def short(world: DataWorld) -> None:
    """A client: a question, its answer, both ends."""
    client = world.client()
    client.send(b"question")
    service = world.service()
    assert world.hear(service, 8) == b"question"
    service.send(b"answer")
    assert world.hear(client, 6) == b"answer"
    client.close()
    service.close()


def test_a_short_client_is_two_facts(world: DataWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact bytes, its address and its number; and no object at all."""
    door = took(world)
    monkeypatch.setattr(door, "_client", None)
    device = world.switchboard.fleet.get(SERIAL)
    before = device.channels, device.bytes_to_device, device.bytes_to_client
    count = len(world.of(ChannelEnded))
    short(world)
    world.until(lambda: len(world.of(ChannelEnded)) > count, "its facts")
    opened, ended = world.of(ChannelOpened)[-1], world.of(ChannelEnded)[-1]
    assert (opened.channel, opened.peer) == (ended.channel, ended.peer)
    assert ended.reason is Ended.CLOSED and (ended.bytes_to_device, ended.bytes_to_client) == (8, 6)
    assert (device.channels, device.bytes_to_device, device.bytes_to_client) == (
        before[0] + 1,
        before[1] + 8,
        before[2] + 6,
    )
    assert world.switchboard.clients == 0
    world.check_rest()


def test_one_that_somebody_looks_at_is_listed_and_goes_on(world: DataWorld) -> None:
    """At once, with its bytes so far; it can be closed, which is a reset for both."""
    client = world.client()
    client.send(b"question")
    service = world.service()
    assert world.hear(service, 8) == b"question"
    service.send(b"an answer")
    assert world.hear(client, 9) == b"an answer"
    (row,) = world.switchboard.streams.rows(SERIAL)
    assert (row.bytes_to_device, row.bytes_to_client, row.client) == (
        8,
        9,
        f"127.0.0.1:{client.getsockname()[1]}",
    )
    assert world.switchboard.clients == len(world.switchboard.streams) == 1
    world.carry(client, service, b"more" * 100_000)
    assert world.switchboard.close_channel(SERIAL, row.number, "closed")
    assert world.ending(client) == world.ending(service) == "reset"
    assert world.ended(3)[-1].reason is Ended.OPERATOR


def test_one_that_lives_is_known_by_itself(world: DataWorld) -> None:
    """Without that anybody asks."""
    client, service = world.client(), world.service()
    world.until(lambda: world.switchboard.client_streams.count == 1, "its stream")
    world.carry(client, service, b"x" * 10)
    client.shutdown(socket.SHUT_WR)
    assert world.ending(service) == "end of file"
    world.carry(service, client, b"y" * 300_000)
    service.close()
    assert world.ending(client) == "end of file"
    assert world.ended(3)[-1].reason is Ended.CLOSED
    world.check_rest()


@pytest.mark.parametrize("who", [0, 1])
def test_a_reset_is_a_reset_at_the_other_end_and_says_whose(world: DataWorld, who: int) -> None:
    """While the plane has closed both already."""
    ends = world.client(), world.service()
    ends[0].send(b"x")
    world.hear(ends[1], 1)
    reset(ends[who])
    assert world.ending(ends[1 - who]) == "reset"
    end = world.ended(3)[-1]
    assert end.reason is Ended.RESET_BY_PEER and end.detail.startswith(("client: ", "agent: ")[who])
    world.check_rest()


def test_a_target_that_refuses_is_a_reset_with_its_word(world: DataWorld) -> None:
    """As if Python had asked."""
    world.listening.close()
    client = world.client()
    assert world.ending(client) == "reset"
    assert world.ended(3)[-1].reason is Ended.REFUSED
    world.check_rest()


@pytest.mark.parametrize("how", ["link", "kick", "drain", "limits", "records", "port"])
def test_a_port_is_taken_back_with_whoever_is_there(how: str) -> None:
    """One that is open, and one that has no answer yet; what becomes of them is as ever."""
    with DoorWorld(True) as world:
        opened, asked = two(world)
        peers = ["{}:{}".format(*client.getsockname()) for client in (opened[0], asked[0])]
        board = world.switchboard
        {
            "link": lambda: world.link.dismiss("left", "a test", GoAway.OPERATOR, 0),
            "kick": lambda: board.kick(SERIAL, "a test", 0),
            "drain": board.drain,
            "limits": lambda: board.set_limits(replace(board.limits, clients=77)),
            "records": lambda: board.enforcement.set_records(DeviceRecords()),
            "port": lambda: world.ports.close(SERIAL, "echo"),
        }[how]()
        assert len(board.doors) == 0
        assert how == "kick" or board.clients == 2
        if how == "kick":
            assert [world.ending(each) for each in (*opened, asked[0])] == ["reset"] * 3
        else:
            asked[1].sock.send(OPENED + b"late")
            assert world.hear(asked[0], 4) == b"late"
            world.carry(opened[0], opened[1], b"goes on")
            for each in (*opened, asked[0], asked[1].sock):
                each.close()
        world.until(lambda: {*peers} <= {fact.peer for fact in world.of(ChannelEnded)}, "their ends")
        assert [fact.peer in peers for fact in world.of(ChannelEnded)].count(True) == 2
        world.until(lambda: not board.clients, "rest")


def two(world: DoorWorld) -> tuple[tuple[socket.socket, socket.socket], tuple[socket.socket, Brought]]:
    """A client that has its answer, and one that waits for it, at a door."""
    found: list[Brought] = []

    def one() -> Brought:
        world.until(lambda: found.extend(world.asked()) or found, "a CONNECT")
        return found.pop()

    # those that came before the door wait in Python, and go first
    while len(world.pool.spare._stock or ()) < 2:
        with world.client() as client:
            brought = one()
            brought.sock.send(OPENED)
            brought.sock.close()
            assert world.ending(client) == "end of file"
        world.until(lambda: not world.switchboard.clients, "its end")
        world.until(lambda: len(world.pool.spare) >= 2, "spare sockets")
        world.turn()
    assert len(world.switchboard.doors) == 1
    client = world.client()
    client.send(b"x")
    brought = one()
    assert (brought.opening.early or world.hear(brought.sock, 1)) == b"x"  # behind CONNECT, or by itself
    brought.sock.send(OPENED + b"y")
    assert world.hear(client, 1) == b"y"
    waits = world.client()
    waits.send(b"z")
    return (client, brought.sock), (waits, one())


@pytest.mark.parametrize(
    "record",
    [
        {"clients": (network_of("127.0.0.0/8"),)},
        {"at_once": 3},
        {"expires": 4e9},
        {"channels": 0},
    ],
    ids=str,
)
def test_a_port_where_clients_are_judged_is_not_lent(record: dict[str, Any]) -> None:
    """Networks, a line, an end of its time, no clients at all."""
    with DataWorld() as world:
        world.switchboard.enforcement.set_records(DeviceRecords({SERIAL: DeviceRecord(**record)}))
        if record.get("channels") == 0:
            assert world.ending(world.client()) == "reset"
        else:
            lent(world)
        assert len(world.switchboard.doors) == 0


def test_a_port_with_headers_is_not_lent() -> None:
    """Whose reader is Python's."""
    with DataWorld() as world:
        world.ports.heads = lambda pool: True
        lent(world)
        assert len(world.switchboard.doors) == 0


def test_limits_hold_for_those_that_nobody_was_told_of() -> None:
    """The third client at once is refused with its word."""
    with DataWorld(server=ServerLimits(clients_per_device=2)) as world:
        lent(world)
        assert len(world.switchboard.doors) == 1
        ends = [(world.client(), world.service()) for _ in range(2)]
        third = world.client()
        assert world.ending(third) == "reset"
        assert [fact.reason for fact in world.of(ClientRefused)] == ["too-many-clients"]
        ends[0][0].close()
        ends[0][1].close()
        world.until(lambda: world.switchboard.clients == 1)
        short(world)


def test_a_client_waits_until_those_that_ended_are_gone() -> None:
    """For ``ended_wait`` at most, and once."""
    with DoorWorld(True) as world:
        world.switchboard.set_limits(replace(world.switchboard.limits, ended_wait=10.0))
        (client, service), (waits, brought) = two(world)
        brought.sock.send(OPENED)
        client.shutdown(socket.SHUT_WR)
        assert world.ending(service) == "end of file"
        late = world.client()
        world.turn(50)
        assert not [*world.asked()]
        service.close()
        found: list[Brought] = []
        world.until(lambda: found.extend(world.asked()) or found, "a CONNECT")
        for each in (client, late, waits, brought.sock, found[0].sock):
            each.close()


def test_who_comes_when_no_data_socket_is_there_is_served_as_ever(world: DataWorld) -> None:
    """It waits for one."""
    while world.pool.give_way():
        pass
    short(world)
    assert not world.of(ClientRefused)


def test_a_plane_that_cannot_have_it_leaves_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory: clients are served all the same."""

    def fails(self: DataPlane, *_: Any) -> int:
        raise OSError(12, "no memory")

    with DataWorld() as world:
        monkeypatch.setattr(DataPlane, "lend", fails)
        lent(world)
        assert len(world.switchboard.doors) == 0
        short(world)


def test_a_listening_socket_that_was_shut_is_python_s_again(world: DataWorld) -> None:
    """Which says so, and opens it again where it may."""
    took(world)
    (port,) = world.ports.of(SERIAL)
    port.listening._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
    world.until(lambda: len(world.switchboard.doors) == 0, "the door")


def test_one_that_ended_before_a_byte_is_let_in_last(world: DataWorld) -> None:
    """As ever: it may only listen."""
    took(world)
    client = world.client()
    client.shutdown(socket.SHUT_WR)
    service = world.service()
    service.send(b"said")
    assert world.hear(client, 4) == b"said"


def test_a_door_is_python_s_alone_where_nobody_dials() -> None:
    """A held dial keeps nothing: what waits for its answer becomes known."""
    gate: list[Deferred[None]] = []

    async def reach(reactor: Any, host: str, port: int) -> Any:
        if gate:
            await gate[0]
        return await connect(reactor, host, port)

    with DataWorld(reach=reach) as world:
        lent(world)
        gate.append(Deferred())
        client = world.client()
        client.send(b"x")
        world.until(lambda: world.switchboard.client_streams.count == 1, "its stream")
        (row,) = world.switchboard.streams.rows(SERIAL)
        assert row.state == "opening"
        gate[0].callback(None)
        service = world.service()
        assert world.hear(service, 1) == b"x"


def test_an_agent_that_comes_again_has_its_ports_back_first(world: DataWorld) -> None:
    """Clients of the older link go on; the next ones are the new link's."""
    door = took(world)
    client, service = world.client(), world.service()
    client.send(b"x")
    assert world.hear(service, 1) == b"x"
    old = world.link
    world.uplink.abort()
    world.until(lambda: len(world.switchboard.doors) == 0, "the door")
    assert door._over and world.switchboard.clients == 1
    world.carry(client, service, b"goes on")
    world.uplink = world.make_uplink()
    world.uplink.start()
    world.until(lambda: world.ports.of(SERIAL) and world.link is not old, "the new link")
    short(world)


def test_others_clients_are_not_asked_for(world: DataWorld) -> None:
    """Who looks at one device makes no objects of another one's clients."""
    client, service = world.client(), world.service()
    client.send(b"x")
    assert world.hear(service, 1) == b"x"
    assert world.switchboard.streams.running("another") == 0
    assert world.switchboard.client_streams.count in (0, 1)  # it may have lived for long enough
    assert world.switchboard.streams.running(SERIAL) == world.switchboard.client_streams.count == 1


def test_doors_of_one_device_have_its_clients_in_equal_parts(world: DataWorld) -> None:
    """What one gets, the others have not."""
    doors = world.switchboard.doors
    ((use, door),) = doors._doors.items()
    limits = replace(world.switchboard.limits, clients_per_device=9)
    world.switchboard.client_streams.limits = limits
    assert doors._allowed(use, door.here, door.pool).most == 9
    world.pool.spare.doors.add(door := object())  # type: ignore[arg-type]
    assert doors._allowed(use, (), world.pool).most == 4
    client, service = world.client(), world.service()
    client.send(b"x")
    assert world.hear(service, 1) == b"x"
    assert world.switchboard.streams.running(SERIAL) == 1
    assert doors._allowed(use, (), world.pool).most == 4
    world.pool.spare.doors.discard(door)  # type: ignore[arg-type]
    assert doors._allowed(use, (), world.pool).most == 8
