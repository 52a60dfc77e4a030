"""Records and penalties in whole worlds: who is let in, who is not even read, what is said of it."""

import pytest

from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.device_records import DeviceRecord, DeviceRecords, parse_pattern
from revtunnel.fleet.penalties import Penalties
from revtunnel.fleet.pools import Use
from revtunnel.ground.facts import ChannelEnded, ClientRefused, LinkDown, LinkRefused, ListenerRefused
from revtunnel.ground.limits import PenaltyLimits
from revtunnel.ground.networks import network_of
from revtunnel.link.keys import verifier_of
from tests.support.recorder import Recorder
from tests.support.world import CONSOLE, LINK_PORT, POOL, SERVER, WEB, World

LOCAL, ELSEWHERE = (network_of("127.0.0.0/8"),), (network_of("10.0.0.0/8"),)
KEY = bytes(range(32))
END = 1_767_225_600.0  # the end of 2025


def access(records: DeviceRecords | None = None, wall: float = 0.0, **limits: float) -> AccessControl:
    """A gate at which loopback is an address like any other."""
    return AccessControl(lambda: wall, records, Penalties(PenaltyLimits(**limits)))  # type: ignore[arg-type]


def only(**values: object) -> DeviceRecords:
    """One record, for plc-1."""
    return DeviceRecords({"plc-1": DeviceRecord(**values)})  # type: ignore[arg-type]


def refusals(world: World) -> list[str]:
    """Why agents were refused."""
    return [fact.reason for fact in world.of(LinkRefused)]


def ports(world: World) -> dict[str, int]:
    """The open ports of plc-1, by target."""
    return {port.lease.target: port.lease.port for port in world.ports.of("plc-1")}


def say(world: World, data: bytes) -> Recorder:
    """A stranger says something at the listener for agents."""
    stranger = Recorder()
    pair = world.reactor.dial(LINK_PORT, stranger, host=SERVER)
    assert pair is not None
    if stranger.lost is None:
        pair.near.write(data)
    world.pump()
    return stranger


# -- records


@pytest.mark.parametrize(("clients", "served"), [(LOCAL, True), (ELSEWHERE, False)])
def test_a_client_is_asked_where_it_comes_from(clients: object, served: bool) -> None:
    """One that the record does not name is reset, with its own word."""
    world = World(access=access(only(clients=clients)))
    client = world.client()
    world.pump()
    assert client.was_reset is not served
    assert [fact.reason for fact in world.of(ClientRefused)] == ([] if served else ["not-allowed"])
    world.finish()


def test_a_pool_s_own_networks() -> None:
    """They hold for devices without a record too."""
    world = World(access=access(DeviceRecords(pools={"default": ELSEWHERE})))
    client = world.client()
    world.pump()
    assert client.was_reset
    assert world.switchboard.counts["client-refused not-allowed"] == 1
    world.finish()


def test_a_record_s_most_channels() -> None:
    """The next client is refused, and let in when one has left."""
    world = World(access=access(only(channels=1)))
    client, _ = world.talk()
    late = world.client()
    world.pump()
    assert late.was_reset
    assert [fact.reason for fact in world.of(ClientRefused)] == ["too-many-clients"]
    client.abort()
    world.pump()
    world.talk()
    world.finish()


def test_an_offer_outside_the_record_is_not_opened() -> None:
    """It is reported; the others are."""
    world = World(access=access(only(targets=(parse_pattern("*:23"),))))
    assert list(ports(world)) == ["console"]
    (refused,) = world.of(ListenerRefused)
    assert (refused.target, refused.detail) == ("web", "its record does not allow 10.0.0.5:80")
    world.finish()


def test_a_device_gets_ports_of_its_record_only() -> None:
    """Those of others are theirs; what it held elsewhere is given back; none left is said."""
    world = World(access=access(only(ports=((20050, 20051),))), serials=("plc-2", "plc-1"))
    assert ports(world) == {"console": 20050, "web": 20051}
    world.switchboard.access.records = only(ports=((20051, 20052), (20000, 20001)))
    world.link_pairs()[1].reset()
    world.advance(15.0)
    assert ports(world) == {"console": 20052, "web": 20051}
    world.switchboard.access.records = only(ports=((20000, 20001), (20052, 20052)))
    world.link_pairs()[1].reset()
    world.advance(15.0)
    assert ports(world) == {"console": 20052}
    assert "20000-20001, 20052-20052, is free in pool default" in world.of(ListenerRefused)[-1].detail
    world.finish()


def test_a_port_that_the_settings_reserve_must_be_in_the_record_too() -> None:
    """Both are the operator's words; where they differ nothing is opened."""
    world = World(access=access(only(ports=((20050, 20060),))), start=False)
    world.leases.reload([POOL], {Use("plc-1", "console"): 20055, Use("plc-1", "web"): 20070}, 0.0)
    world.agents["plc-1"].uplink.start()
    world.pump()
    assert ports(world) == {"console": 20055}
    assert [fact.target for fact in world.of(ListenerRefused)] == ["web"]
    world.finish()


def test_a_record_that_is_over() -> None:
    """Its device is refused and told no more than any stranger; a client that comes in time is served."""
    world = World(access=access(only(expires=END), wall=END), serials=("plc-1", "plc-2"))
    (refused,) = world.of(LinkRefused)
    assert (refused.reason, refused.detail) == ("expired", "the record of plc-1 ended on 2025-12-31")
    assert world.ports.of("plc-1") == []
    assert world.ports.of("plc-2") != []
    assert world.switchboard.access.penalties.known == 0
    world.finish()


# -- penalties


def test_f24_who_says_garbage_is_not_read_any_more() -> None:
    """Twice 10 s are above 15, and four tries make it 60; after that long it is a stranger again."""
    world = World(access=access())
    for _ in range(7):
        say(world, b"GET / HTTP/1.1\r\n\r\n")
    assert refusals(world) == ["protocol"] * 6 + ["penalty"]
    assert world.of(LinkRefused)[-1].detail == "its address failed too often; refused for 60 s"
    world.advance(60.0)
    say(world, b"GET / HTTP/1.1\r\n\r\n")
    assert refusals(world)[7:] == ["protocol"]
    world.finish()


def test_who_says_nothing_in_time_pays_too() -> None:
    """And who hangs up by himself hardly: a health check does that."""
    world = World(access=access())
    for _ in range(5):
        stranger = Recorder()
        pair = world.reactor.dial(LINK_PORT, stranger, host=SERVER)
        assert pair is not None
        pair.near.loseConnection()
        world.pump()
    assert refusals(world) == []
    for _ in range(2):
        world.reactor.dial(LINK_PORT, Recorder(), host=SERVER)
    world.advance(10.0)
    for _ in range(4):
        say(world, b"GET / HTTP/1.1\r\n\r\n")
    say(world, b"")
    assert refusals(world) == ["silent", "silent", *["protocol"] * 4, "penalty"]
    world.advance(60.0)
    world.finish()


def test_a_crowd_that_hangs_up_without_a_word_pays() -> None:
    """Ten a second for six seconds is no health check: each owes half a second."""
    world = World(access=access())
    for _ in range(60):
        stranger = Recorder()
        pair = world.reactor.dial(LINK_PORT, stranger, host=SERVER)
        assert pair is not None
        if stranger.lost is None:
            pair.near.loseConnection()
        world.advance(0.1)
    words = refusals(world)
    assert words == ["penalty"] * len(words)
    assert len(words) > 5
    world.advance(60.0)
    world.finish()


# -- one NAT for a plant


def test_a_good_device_beside_a_wrong_one_is_not_delayed() -> None:
    """Its link falls while its address owes minutes: it is back with its first try, and so is another."""
    world = World(access=access(), key=KEY)
    for _ in range(20):
        say(world, b"GET / HTTP/1.1\r\n\r\n")
    assert world.switchboard.access.penalties.refused_for("127.0.0.1:9", world.reactor.seconds()) > 100.0
    world.link_pairs()[0].reset()
    world.advance(2.0)
    assert set(ports(world)) == {CONSOLE.name, WEB.name}
    assert "penalty" not in refusals(world)
    world.finish()


def test_loopback_pays_nothing_by_itself() -> None:
    """A server that was told nothing exempts it."""
    world = World()
    for _ in range(10):
        say(world, b"GET / HTTP/1.1\r\n\r\n")
    assert refusals(world) == ["protocol"] * 10
    world.finish()


def test_the_right_key_does_not_help_while_the_serial_is_locked() -> None:
    """It is refused with its own word, which costs nothing, and let in when the time is over."""
    world = World(access=access(serial_failures=2, authentication=1.0), start=False)
    for _ in range(2):
        world.switchboard.access.failed("127.0.0.1:5", "denied", "plc-1", False, 0.0)
    world.agents["plc-1"].uplink.start()
    world.advance(590.0)
    assert set(refusals(world)) == {"locked"}
    assert world.ports.of("plc-1") == []
    world.advance(100.0)
    assert set(ports(world)) == {CONSOLE.name, WEB.name}
    world.finish()


def test_a_device_that_brought_none_before_has_its_tries_too() -> None:
    """Enrolled at a site where a wrong agent was first: it is in with the next try of its address."""
    world = World(access=access(), key=KEY, start=False)
    for _ in range(20):
        say(world, b"GET / HTTP/1.1\r\n\r\n")
    world.agents["plc-1"].uplink.start()
    world.advance(6.0)
    assert set(ports(world)) == {CONSOLE.name, WEB.name}
    world.finish()


def test_an_agent_is_told_when_its_address_has_a_try_and_waits_no_longer() -> None:
    """GOAWAY before a byte of its own is read; it dials again in the second after."""
    world = World(access=access(), start=False)
    while refusals(world)[-1:] != ["penalty"]:
        say(world, b"GET / HTTP/1.1\r\n\r\n")
    agent = world.agents["plc-1"]
    agent.uplink.start()
    world.pump()
    assert agent.links[0].retry_after == 5
    known = len(world.reactor.dialled)
    world.advance(5.0)
    assert len(world.reactor.dialled) == known
    world.advance(1.0)
    assert set(ports(world)) == {CONSOLE.name, WEB.name}
    world.finish()


def test_who_is_refused_hears_what_that_costs_unless_its_site_is_known() -> None:
    """A wrong key behind an address of strangers waits as long as that is refused; another as it likes."""
    for known in (False, True):
        world = World(access=access(), keys={"plc-1": verifier_of(KEY, "plc-1")}, start=False)
        world.key = bytes(32)
        agent = world.add_agent("plc-1", (WEB,), start=False)
        if known:
            world.switchboard.access.proved("127.0.0.1:1", 0.0)
        for _ in range(3):
            world.switchboard.access.failed("127.0.0.1:5", "denied", "", False, 0.0)
        agent.uplink.start()
        world.pump()
        assert (refusals(world), agent.links[0].retry_after) == (["denied"], 0 if known else 20)
        world.finish()


# -- other records


def test_other_records_cut_what_they_do_not_allow() -> None:
    """A client from elsewhere, a target, and nothing else; listeners follow."""
    world = World(access=access(), serials=("plc-1", "plc-2"))
    console, _ = world.talk()
    web, _ = world.talk("web")
    other, _ = world.talk(serial="plc-2")
    world.switchboard.enforcement.set_records(only(targets=(parse_pattern("web"),)))
    world.pump()
    assert (console.was_reset, web.was_reset, other.was_reset) == (True, False, False)
    assert list(ports(world)) == ["web"]
    (ended,) = world.of(ChannelEnded)
    assert (ended.reason.word, ended.target) == ("not-allowed", "console")
    assert ended.detail == "the record of its device does not allow the target"
    world.switchboard.enforcement.set_records(only(clients=ELSEWHERE))
    world.pump()
    assert (web.was_reset, other.was_reset) == (True, False)
    assert world.of(ChannelEnded)[-1].detail == "clients from there are not allowed"
    assert set(ports(world)) == {"web", "console"}
    world.switchboard.enforcement.set_records(DeviceRecords())
    world.talk()
    world.finish()


def test_a_record_that_ends_while_its_device_is_here() -> None:
    """The link goes at that second with its own word, its channels with it, and does not come back."""
    wall = [END - 1]
    world = World(access=AccessControl(lambda: wall[0], only(expires=END)), serials=("plc-1", "plc-2"))
    client, _ = world.talk()
    other, _ = world.talk(serial="plc-2")
    world.switchboard.enforcement.end_expired()
    world.pump()
    assert not client.was_reset
    wall[0] = END
    late = world.client()
    world.pump()
    assert late.was_reset
    assert [fact.reason for fact in world.of(ClientRefused)] == ["expired"]
    world.switchboard.enforcement.end_expired()
    world.advance(15.0)
    assert client.was_reset
    assert not other.was_reset
    assert [fact.reason for fact in world.of(LinkDown)] == ["expired"]
    assert set(refusals(world)) == {"expired"}
    world.switchboard.enforcement.end_expired()
    world.finish()
