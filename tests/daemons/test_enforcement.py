"""Other records while devices are here: at once for whoever comes, in slices for whoever is here."""

from dataclasses import replace

import pytest

from benchmarks.herd import WEB as HERDS
from benchmarks.herd import Herd, Nowhere
from revtunnel.fleet.device_records import DEFAULT, DeviceRecord, DeviceRecords, parse_pattern
from revtunnel.fleet.pools import Pool, Use
from revtunnel.ground.facts import ListenerRefused
from revtunnel.ground.networks import network_of
from revtunnel.ground.targets import parse_offer
from revtunnel.link.server_link import ServerLink
from revtunnel.sockets import slices
from tests.support.world import POOL, WEB, Party, World

NOTHING = DeviceRecords(
    {DEFAULT: DeviceRecord(targets=(parse_pattern("console"),))}
)  # not what devices here offer


@pytest.fixture(autouse=True)
def one_step_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a test can act between two devices."""
    monkeypatch.setattr(slices, "SLICE", 0.0)


def crowd(count: int = 5) -> tuple[Herd, dict[str, Nowhere]]:
    """Devices that offer one target, and a client of each."""
    herd = Herd()
    serials = [f"plc-{number}" for number in range(count)]
    for serial in serials:
        herd.agent(serial, HERDS)
    return herd, {serial: herd.client(serial) for serial in serials}


def refused(herd: Herd) -> list[str]:
    """Why clients were turned away."""
    words = herd.board.counts.items()
    return [word.removeprefix("client-refused ") for word, _ in words if word.startswith("client-refused ")]


def test_records_cut_and_close_for_everybody_a_device_a_turn() -> None:
    """After as many turns as there are devices nothing is left that they do not allow; then it is told."""
    herd, _ = crowd()
    told: list[None] = []
    herd.board.enforcement.set_records(NOTHING).addCallback(told.append)
    left = [len(herd.board.streams)]
    while not told:
        herd.reactor.turn()
        left.append(len(herd.board.streams))
    assert left[:6] == [5, 4, 3, 2, 1, 0]
    assert all(herd.ports.of(f"plc-{number}") == [] for number in range(5))
    herd.board.enforcement.set_records(DeviceRecords())
    for _ in range(20):
        herd.reactor.turn()
    assert all(len(herd.ports.of(f"plc-{number}")) == 1 for number in range(5))


def test_a_client_who_comes_before_his_devices_turn_is_judged_by_the_new_records() -> None:
    """The port is still open; the stream is not to be had."""
    herd, _ = crowd()
    herd.board.enforcement.set_records(NOTHING)
    herd.client("plc-4")
    assert refused(herd) == ["not-allowed"] and herd.board.streams.running("plc-4") == 1


def test_newer_records_count_before_the_older_ones_were_everywhere() -> None:
    """The older ones are forgotten; both reloads are told of when the newer one is done."""
    herd, _ = crowd()
    told: list[str] = []
    herd.board.enforcement.set_records(NOTHING).addCallback(lambda _: told.append("older"))
    for _ in range(2):
        herd.reactor.turn()
    clients = DeviceRecord(clients=(network_of("10.0.0.0/8"),))
    newer = herd.board.enforcement.set_records(DeviceRecords({"plc-4": clients}))
    newer.addCallback(lambda _: told.append("newer"))
    while not told:
        herd.reactor.turn()
    assert told == ["older", "newer"]
    left = [row.serial for row in herd.board.streams.page()]
    assert left == ["plc-2", "plc-3"]  # of two the older records had the word, of one the newer
    assert all(len(herd.ports.of(f"plc-{number}")) == 1 for number in range(5))


def test_a_device_that_leaves_in_the_middle_is_left_out() -> None:
    """And one that comes has come under the new records."""
    herd, _ = crowd()
    told: list[None] = []
    herd.board.enforcement.set_records(NOTHING).addCallback(told.append)
    herd.reactor.turn()
    herd.board.kick("plc-3", "a test", 0)
    herd.agent("plc-9", HERDS)
    while not told:
        herd.reactor.turn()
    assert len(herd.board.fleet) == 5 and herd.ports.of("plc-9") == [] and len(herd.board.streams) == 0


def test_the_end_of_the_default_record_is_the_end_of_everybody_who_has_it() -> None:
    """One with a record of its own stays."""
    herd, _ = crowd()
    herd.board.enforcement.set_records(
        DeviceRecords({DEFAULT: DeviceRecord(expires=50.0), "plc-1": DeviceRecord()})
    )
    for _ in range(20):
        herd.reactor.turn()
    assert len(herd.board.fleet) == 5
    herd.wall = 50.0
    herd.board.enforcement.end_expired()
    for _ in range(20):
        herd.reactor.turn()
    assert [device.serial for device in herd.board.fleet.here("rt1")] == ["plc-1"]


def test_a_server_that_drains_opens_nothing_any_more() -> None:
    """The rest of the devices is not looked at, and whoever waits is told."""
    herd, _ = crowd()
    told: list[None] = []
    herd.board.enforcement.set_records(DeviceRecords()).addCallback(told.append)
    herd.reactor.turn()
    herd.board.drain()
    assert told == [None]
    for _ in range(20):
        herd.reactor.turn()
    assert all(herd.ports.of(f"plc-{number}") == [] for number in range(5))


# -- other pools, reservations and listeners


def told(world: World, pools: tuple[Pool, ...] = (POOL,), reservations: dict[Use, int] | None = None) -> None:
    """The server's settings say these from now on."""
    world.leases.reload(pools, reservations or {}, world.clock.seconds())
    world.switchboard.enforcement.make_way()
    world.switchboard.enforcement.set_records(DeviceRecords())
    world.advance(0.1)
    world.pump()


def where(world: World, serial: str = "plc-1") -> dict[str, int]:
    """The open ports of a device, by target; each takes clients at its number."""
    found = {port.lease.target: port.lease.port for port in world.ports.of(serial)}
    assert all(("127.0.0.1", port) in world.reactor.listeners for port in found.values())
    return found


def test_ports_move_that_settings_give_no_more_and_no_others() -> None:
    """Out of the range, and to a reservation; streams of both, and of the port that stays, go on."""
    world = World(serials=("plc-1", "plc-2", "plc-3"))
    streams = [world.talk(serial=f"plc-{number}") for number in (1, 2, 3)]
    before = world.reactor.listeners[("127.0.0.1", where(world, "plc-2")["web"])]
    fewer = replace(POOL, ranges=((20002, 20099),))
    told(world, (fewer,), {Use("plc-3", "console"): 80})
    assert where(world) == {"console": 20006, "web": 20007}
    assert where(world, "plc-2") == {"console": 20002, "web": 20003}
    assert world.reactor.listeners[("127.0.0.1", 20003)] is before
    assert where(world, "plc-3") == {"console": 80, "web": 20005}
    assert world.reactor.dial(20000, Party()) is None and world.reactor.dial(20004, Party()) is None
    for client, service in streams:
        client.say(b"still here")
        world.pump()
        assert service.data.endswith(b"still here")
    world.talk(serial="plc-3")
    world.finish()


def test_two_devices_change_their_reserved_ports() -> None:
    """Each gets the other's: what both give back is there before either asks."""
    one, two = Use("plc-1", "web"), Use("plc-2", "web")
    world = World(serials=("plc-1", "plc-2"))
    told(world, reservations={one: 5001, two: 5002})
    assert (where(world)["web"], where(world, "plc-2")["web"]) == (5001, 5002)
    told(world, reservations={one: 5002, two: 5001})
    assert (where(world)["web"], where(world, "plc-2")["web"]) == (5002, 5001)
    told(world)
    assert where(world)["web"] in range(20000, 20100)
    assert world.of(ListenerRefused) == []
    world.finish()


def test_another_address_is_another_socket_of_the_same_port() -> None:
    """``bind`` changed: the old one is closed, and who has come by it stays."""
    world = World()
    client, service = world.talk("web")
    told(world, (replace(POOL, address="127.0.0.2"),))
    bound = [place for place in world.reactor.listeners if place[1] in (20000, 20001)]
    assert sorted(bound) == [("127.0.0.2", 20000), ("127.0.0.2", 20001)]
    client.say(b"still here")
    world.pump()
    assert service.data == b"still here"
    world.finish()


def test_a_device_that_is_away_moves_when_it_is_back() -> None:
    """Its port is out of the range since; a port that refuses for it is closed at once."""
    world = World(refuses=True)
    world.link_pairs()[0].reset()
    world.pump()
    assert where(world) == {"console": 20000, "web": 20001}
    told(world, (replace(POOL, ranges=((20001, 20099),)),))
    assert where(world) == {"web": 20001}
    world.advance(15.0)
    assert where(world) == {"web": 20001, "console": 20002}
    world.finish()


def test_mappings_of_a_device_that_is_here() -> None:
    """One is new, one leads elsewhere, one is gone: its port is closed, its stream goes on."""
    world = World("legacy")
    client, service = world.talk("console")
    other = replace(WEB, target=parse_offer("web=10.0.0.6:80").target)
    more = parse_offer("ssh=10.0.0.5:22")
    for offer in (other, more):
        world.add_service(offer)
    world.listener(mappings={"plc-1": (other, more)})
    told(world)
    assert where(world) == {"web": 20001, "ssh": 20002}
    world.agents["plc-1"].dialler.offer((other, more))
    world.talk("ssh")
    world.talk("web")
    client.say(b"still here")
    world.pump()
    assert service.data == b"still here"
    world.finish()


def test_a_listener_that_is_gone_leaves_its_device_what_it_has() -> None:
    """Until the link ends: also ports of its mappings alone, and when the name is another device's."""
    world = World("legacy")
    told(world, reservations={Use("plc-1", "web"): 5001})
    (name,) = world.switchboard.listeners
    gone = world.switchboard.listeners[name]
    for left in ({}, {name: replace(gone, mappings={"plc-9": (WEB,)})}):
        world.switchboard.set_listeners(left)
        told(world)
        assert where(world) == {"console": 20000, "web": 5001}
        world.talk("web")
    world.finish()


def test_devices_get_their_ports_from_another_pool() -> None:
    """Their listener says so now."""
    world = World(pools=(POOL, Pool("b", ((30000, 30001),))))
    world.listener(pool="b")
    told(world, (POOL, Pool("b", ((30000, 30001),))))
    assert where(world) == {"console": 30000, "web": 30001}
    device = world.switchboard.fleet.get("plc-1")
    assert device is not None and device.pool == "b"
    world.finish()


def test_who_is_known_by_his_port_keeps_it() -> None:
    """A machine of EMO: other settings count when it registers again."""
    world = World(start=False)
    world.listener(make=ServerLink)
    world.agents["plc-1"].uplink.start()
    world.pump()
    fewer = replace(POOL, ranges=((20002, 20099),))
    told(world, (fewer,), {Use("plc-1", "web"): 5001})
    assert where(world) == {"console": 20000, "web": 20001}
    world.link_pairs()[0].reset()
    world.advance(15.0)
    assert where(world) == {"console": 20002, "web": 5001}
    world.finish()
