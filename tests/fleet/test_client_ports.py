"""The listening sockets of leases: which port, what is skipped and reported, what a device finds again."""

import errno
from collections.abc import Callable

import pytest

from revtunnel.fleet.pools import Pool, PortState, Use
from revtunnel.ground.facts import ClientRefused, ListenerClosed, ListenerOpened, ListenerRefused
from revtunnel.ground.targets import parse_offer
from revtunnel.sockets.listening import Came
from revtunnel.sockets.ways.proxy_protocol import Refused
from tests.support.recorder import Recorder
from tests.support.world import CONSOLE, POOL, WEB, World


def ports(world: World, serial: str = "plc-1") -> dict[str, int]:
    """The open ports of a device, by target."""
    return {port.lease.target: port.lease.port for port in world.ports.of(serial)}


def restart_agent(world: World, serial: str = "plc-1") -> None:
    """The agent goes and comes back."""
    world.link_pairs()[0].reset()
    world.advance(15.0)


def test_ports_open_with_the_device_and_close_without_it() -> None:
    """Each target has one; the same ones when the device is back."""
    world = World()
    assert ports(world) == {"console": 20000, "web": 20001}
    assert [(fact.target, fact.port) for fact in world.of(ListenerOpened)] == [
        ("console", 20000),
        ("web", 20001),
    ]
    world.link_pairs()[0].reset()
    world.pump()
    assert ports(world) == {}
    assert not world.ports.is_open("plc-1", "console", 20000)
    assert len(world.of(ListenerClosed)) == 2
    assert world.reactor.dial(20000, Recorder()) is None
    assert {lease.state for lease in world.leases.leases_of("plc-1")} == {PortState.STICKY}
    world.advance(15.0)
    assert ports(world) == {"console": 20000, "web": 20001}
    assert world.ports.is_open("plc-1", "console", 20000)
    world.finish()


def test_sticky_ports_are_nobody_elses() -> None:
    """A device that comes while the first is away gets the next ones."""
    world = World(serials=("plc-1", "plc-2"))
    assert ports(world, "plc-2") == {"console": 20002, "web": 20003}
    first, second = world.link_pairs()
    first.reset()
    world.pump()
    assert ports(world) == {}
    world.agents["plc-1"].uplink.stop(0.0)
    second.reset()
    world.advance(15.0)
    assert ports(world, "plc-2") == {"console": 20002, "web": 20003}
    world.finish()


def test_n3_h9_a_port_that_another_program_has_is_skipped() -> None:
    """The next one is taken, nothing is reported as an error, and the lease says which."""
    world = World(start=False)
    world.reactor.taken = {20000: errno.EADDRINUSE, 20001: errno.EADDRINUSE}
    world.agents["plc-1"].uplink.start()
    world.pump()
    assert ports(world) == {"console": 20002, "web": 20003}
    assert world.of(ListenerRefused) == []
    assert world.leases.counts()["default"].spoiled == 2
    world.finish()


def test_n3_when_every_port_is_taken_the_link_stays() -> None:
    """The error names the pool; the device is here without a port."""
    world = World(start=False)
    world.reactor.taken = dict.fromkeys(range(20000, 20100), errno.EADDRINUSE)
    world.agents["plc-1"].uplink.start()
    world.pump()
    assert ports(world) == {}
    assert ["pool default" in fact.detail for fact in world.of(ListenerRefused)] == [True, True]
    assert world.server_link().mux is not None
    world.finish()


def again(world: World, seconds: float = 1.0) -> None:
    """What the server does every second."""
    world.advance(seconds)
    world.ports.expire(world.clock.seconds())
    world.switchboard.enforcement.try_again()
    world.pump()


def test_a_listener_without_a_port_gets_one_when_one_comes_free() -> None:
    """It is told once, shown beside its target, and opens while the link lives."""
    world = World(serials=("plc-1", "plc-2"), pools=(Pool("default", ((20000, 20002),), quarantine=60.0),))
    assert ports(world, "plc-2") == {"console": 20002}
    (fact,) = world.of(ListenerRefused)
    assert (fact.serial, fact.target) == ("plc-2", "web")
    assert world.ports.refused.of("plc-2") == {"web": fact.detail}
    for _ in range(20):
        again(world)
    assert len(world.of(ListenerRefused)) == 1
    lease = world.leases.find("plc-1", "web")
    assert lease is not None
    world.ports.close("plc-1", "web")
    world.leases.release(lease, world.clock.seconds())
    for _ in range(59):
        again(world)
    assert ports(world, "plc-2") == {"console": 20002}
    again(world)
    assert ports(world, "plc-2") == {"console": 20002, "web": 20001}
    assert world.ports.refused.of("plc-2") == {}
    assert world.of(ListenerOpened)[-1].serial == "plc-2"
    world.finish()


def test_a_port_that_another_program_held_comes_back_by_itself() -> None:
    """One that the settings reserve does not move; it is tried until that program has gone."""
    world = World(start=False)
    world.leases.reload((POOL,), {Use("plc-1", "web"): 20050}, 0.0)
    world.reactor.taken = {20050: errno.EADDRINUSE}
    world.agents["plc-1"].uplink.start()
    world.pump()
    assert ports(world) == {"console": 20000}
    for _ in range(30):
        again(world)
    assert "another program" in world.ports.refused.of("plc-1")["web"]
    assert len(world.of(ListenerRefused)) == 1
    world.reactor.taken = {}
    for _ in range(60):
        again(world)
    assert ports(world) == {"console": 20000, "web": 20050}
    world.finish()


def test_who_left_is_not_tried_again() -> None:
    """Nor what it offers no more."""
    world = World(pools=(Pool("default", ((20000, 20000),)),))
    assert list(world.ports.refused.of("plc-1")) == ["web"]
    world.ports.withdraw("plc-1", {"console"}, 0.0)
    assert world.ports.refused.of("plc-1") == {}
    restart_agent(world)
    assert list(world.ports.refused.of("plc-1")) == ["web"]
    world.agents["plc-1"].uplink.stop(0.0)
    world.pump()
    assert world.ports.refused.of("plc-1") == {}
    world.finish()


def test_a_name_that_its_device_offers_no_more_ages() -> None:
    """An hour instead of thirty days; a new link with other names says so."""
    world = World()
    world.ports.withdraw("plc-1", {"console"}, world.clock.seconds())
    lease = world.leases.find("plc-1", "web")
    assert lease is not None
    assert lease.until == world.clock.seconds() + 3600.0
    world.finish()


@pytest.mark.parametrize(
    ("code", "text"), [(errno.EACCES, "denied"), (errno.EADDRNOTAVAIL, "assign"), (errno.EMFILE, "files")]
)
def test_c10_other_errors_are_reported_and_try_no_other_port(code: int, text: str) -> None:
    """Where every port would fail alike, one attempt says why; the other target is served."""
    world = World(start=False)
    world.reactor.taken = {20000: code}
    world.agents["plc-1"].uplink.start()
    world.pump()
    (fact,) = world.of(ListenerRefused)
    assert fact.target == "console"
    assert text in fact.detail
    assert "127.0.0.1:20000" in fact.detail
    assert ports(world) == {"web": 20001}
    world.reactor.taken = {}
    restart_agent(world)
    assert ports(world) == {"console": 20000, "web": 20001}
    world.finish()


def test_a_pool_that_refuses_keeps_its_ports_open() -> None:
    """absent = refuse: a client of an absent device is reset at once, and counted."""
    world = World(refuses=True)
    opened = ports(world)
    world.link_pairs()[0].reset()
    world.pump()
    assert ports(world) == opened
    client = world.client()
    world.pump()
    assert client.was_reset
    assert world.switchboard.counts["client-refused device-absent"] == 1
    world.advance(15.0)
    assert ports(world) == opened
    assert world.of(ListenerClosed) == []
    client, service = world.talk()
    client.say(b"again")
    world.pump()
    assert service.data == b"again"
    world.finish()


def restarted(world: World, refuses: bool = True) -> None:
    """As after a restart: every device is away, nothing is open."""
    world.agents["plc-1"].uplink.stop(0.0)
    world.pump()
    world.ports.close_all()
    world.ports.refuses = {"default": refuses}


def test_a_pool_that_refuses_does_so_after_a_restart() -> None:
    """The promised ports open before their devices come, refuse, and are the devices' own when they do."""
    world = World()
    opened = ports(world)
    restarted(world)
    world.switchboard.enforcement.keep_promises()
    assert ports(world) == opened
    client = world.client()
    world.pump()
    assert client.was_reset
    assert world.switchboard.counts["client-refused device-absent"] == 1
    world.add_agent("plc-1", (CONSOLE, WEB))
    world.pump()
    assert ports(world) == opened
    client, service = world.talk()
    client.say(b"here")
    world.pump()
    assert service.data == b"here"
    world.finish()


def test_promises_follow_the_settings() -> None:
    """A pool that closes opens nothing early, and closes what another rule had open."""
    world = World()
    opened = ports(world)
    restarted(world, refuses=False)
    world.switchboard.enforcement.keep_promises()
    assert ports(world) == {}
    world.ports.refuses = {"default": True}
    world.switchboard.enforcement.keep_promises()
    assert ports(world) == opened
    world.ports.refuses = {}
    world.switchboard.enforcement.keep_promises()
    assert ports(world) == {}
    world.finish()


def test_promises_that_cannot_be_kept_at_the_start() -> None:
    """A port that another program has is reported and tried again; no more are opened than allowed."""
    world = World()
    restarted(world)
    world.reactor.taken = {20000: errno.EADDRINUSE}
    world.switchboard.enforcement.keep_promises()
    assert ports(world) == {"web": 20001}
    assert [fact.target for fact in world.of(ListenerRefused)] == ["console"]
    again(world, 60.0)
    assert ports(world) == {"web": 20001}
    world.reactor.taken = {}
    again(world, 60.0)
    assert ports(world) == {"console": 20000, "web": 20001}
    assert len(world.of(ListenerRefused)) == 1
    world.ports.close_all()
    world.switchboard.enforcement.most = 1
    world.switchboard.enforcement.keep_promises()
    assert ports(world) == {"console": 20000}
    assert "1 client ports are open" in world.of(ListenerRefused)[-1].detail
    world.finish()


def test_ports_of_a_device_that_stays_away_are_closed_in_the_end() -> None:
    """The lease is over: also a refusing listener closes."""
    world = World(refuses=True)
    world.agents["plc-1"].uplink.stop(0.0)
    world.pump()
    assert len(ports(world)) == 2
    world.advance(POOL.sticky + 1)
    world.ports.expire(world.reactor.seconds())
    assert ports(world) == {}
    world.finish()


def test_a_pool_that_keeps_nothing_closes_at_once() -> None:
    """sticky = 0: the ports are quarantined when the device leaves, refusing or not."""
    world = World(refuses=True, pools=(Pool("default", ((20000, 20009),), sticky=0.0),))
    world.link_pairs()[0].reset()
    world.pump()
    assert ports(world) == {}
    assert world.leases.counts()["default"].quarantined == 2
    world.finish()


def test_offers_that_changed() -> None:
    """A device that comes back with other targets: one is gone, one is new, one leads elsewhere."""
    world = World(refuses=True)
    world.agents["plc-1"].uplink.stop(0.0)
    world.pump()
    moved, new = parse_offer("console=10.0.0.5:2323"), parse_offer("spare=10.0.0.5:5000")
    for offer in (moved, new):
        world.add_service(offer)
    world.add_agent("plc-1", (moved, new))
    world.pump()
    assert ports(world) == {"console": 20000, "spare": 20002}
    client, service = world.talk("console")
    assert service.key == "console service 0"
    client.say(b"x")
    world.pump()
    assert world.reactor.dialled[-1] == ("10.0.0.5", 2323)
    world.ports.close("plc-1", "spare")
    world.ports.close("plc-1", "spare")
    assert ports(world) == {"console": 20000}
    world.finish()


@pytest.mark.parametrize("refuses", [True, False])
def test_a_port_that_the_settings_reserved_meanwhile_is_taken_at_the_next_arrival(refuses: bool) -> None:
    """Also when the old port is still open because it refuses."""
    world = World(refuses=refuses)
    world.leases.reload([POOL], {Use("plc-1", "console"): 20050}, world.reactor.seconds())
    restart_agent(world)
    assert ports(world) == {"console": 20050, "web": 20001}
    client, service = world.talk()
    client.say(b"x")
    world.pump()
    assert service.data == b"x"
    world.finish()


def test_a_pool_that_was_taken_out_of_the_settings_is_reported() -> None:
    """An arrival that finds no pool keeps its link, and its old port is closed with its lease."""
    world = World(refuses=True)
    world.leases.reload([Pool("other", ((21000, 21009),))], {}, world.reactor.seconds())
    world.listener(pool="gone")
    restart_agent(world)
    assert world.server_link().mux is not None
    assert {fact.target for fact in world.of(ListenerRefused)} == {"console", "web"}
    for port in world.ports.of("plc-1"):
        assert world.leases.find("plc-1", port.lease.target) == port.lease
    world.finish()


def test_a_refusing_port_is_taken_back_when_its_pool_is_exhausted() -> None:
    """The device that is away longest loses its port: the same number, bound anew for the other device."""
    pool = Pool("default", ((20000, 20001),), quarantine=10.0)
    world = World(refuses=True, pools=(pool,), serials=("plc-1",))
    world.agents["plc-1"].uplink.stop(0.0)
    world.advance(20.0)
    assert sorted(ports(world).values()) == [20000, 20001]
    world.add_agent("plc-2", (CONSOLE, WEB))
    world.advance(1.0)
    assert sorted(ports(world, "plc-2").values()) == [20000, 20001]
    assert ports(world) == {}
    client, service = world.talk(serial="plc-2")
    client.say(b"x")
    world.pump()
    assert service.data == b"x"
    assert world.leases.counts()["default"].spoiled == 0
    world.finish()


def test_the_same_target_under_two_devices_has_two_ports() -> None:
    """A client reaches the device whose port it dialled."""
    world = World(serials=("plc-1", "plc-2"))
    for serial in ("plc-1", "plc-2"):
        client, service = world.talk(serial=serial)
        client.say(serial.encode())
        world.pump()
        assert service.data == serial.encode()
        assert world.agents[serial].link.mux is not None
        assert world.agents[serial].link.mux.running == 1
    world.finish()


def test_the_listener_is_where_its_pool_says() -> None:
    """The pool's address is bound."""
    world = World(pools=(Pool("default", ((20000, 20009),), address="127.0.0.2"),))
    assert ("127.0.0.2", 20000) in world.reactor.listeners
    world.finish()


def test_what_comes_before_the_clients_of_a_pool() -> None:
    """PROXY headers, say: what is given listens, and a refusal names device and target."""
    world = World(start=False)
    asked: list[tuple[str, Refused]] = []

    def behind(came: Came, pool: Callable[[], str], refused: Refused) -> Came:
        asked.append((pool(), refused))
        return lambda end: end.abort()

    world.ports.behind = behind
    world.add_agent("plc-1", (CONSOLE, WEB))
    world.pump()
    assert [pool for pool, _ in asked] == ["default", "default"]
    recorder = Recorder()
    world.reactor.dial(20000, recorder)
    world.pump()
    assert recorder.lost is not None
    assert world.services["console"] == []
    asked[1][1]("192.0.2.1:5", "proxy-header", "no PROXY line")
    assert world.of(ClientRefused) == [ClientRefused("plc-1", "web", "192.0.2.1:5", "proxy-header")]
    world.finish()
