"""An agent of ours at a listener for EMO machines: rt1 in the place of its machine, and who is refused."""

import pytest

from revtunnel.ground.facts import LinkRefused, LinkUp
from revtunnel.ground.targets import Offer
from revtunnel.link.handshake import ListenerRules
from revtunnel.link.keys import Verifier, verifier_of
from revtunnel.systems.emo.emo import TERMINATOR
from revtunnel.systems.emo.emo_choice import modern_offer
from tests.support.world import Agent, World
from tests.systems.emo.test_emo_server import PORTS, TARGETS, EmoWorld, machine

KEY = bytes(range(32))


class ModernWorld(EmoWorld):
    """Its agents speak rt1; ``port`` is what they would register."""

    def __init__(self, port: int = 5010, *, serial: str = "mill-1", keyed: str = "", cuts: object = None):
        self.asked = port
        self.keyed = keyed
        self.agent_serial = serial
        super().__init__(serials=("mill-1",), cuts=cuts)

    def add_agent(
        self, serial: str, offers: tuple[Offer, ...], start: bool = True, port: int = 2065
    ) -> Agent:
        offer = modern_offer(self.asked, TARGETS[serial].target)
        return World.add_agent(self, self.agent_serial, (offer,), start, port)


@pytest.mark.parametrize("cuts", [None, 1])
def test_it_is_the_device_of_its_port(cuts: object) -> None:
    """The same serial, target name and client port as in EMO, whatever the agent calls itself."""
    world = ModernWorld(serial="some-host", cuts=cuts)
    (up,) = world.of(LinkUp)
    assert (up.serial, up.wire, up.authenticated) == ("mill-1", "rt1", False)
    assert world.port("mill-1", "emo") == PORTS["mill-1"]
    client, device = world.talk_to()
    payload = bytes(range(256)) + TERMINATOR + b"\0\0\0"
    client.say(payload)
    world.pump()
    assert device.data == payload
    device.say(payload)
    world.pump()
    assert client.data == payload
    client.close()
    device.close()
    world.pump()
    assert world.ended() == ["closed"]


@pytest.mark.parametrize("port", [5012, 22, 0, 70000])
def test_r12_a_port_that_is_reserved_for_nobody(port: int) -> None:
    """It is denied, with the reason in words, and opens nothing."""
    world = ModernWorld(port)
    refused = world.of(LinkRefused)
    assert refused and {fact.reason for fact in refused} == {"denied"}
    assert "reserved for no device" in refused[0].detail
    assert not world.of(LinkUp)
    (row,), _ = world.door.in_vain.in_vain()
    assert (row["port"], row["why"], row["times"]) == (port, refused[0].detail, len(refused))


def test_an_agent_with_other_offers_is_no_machine() -> None:
    """A listener for EMO opens reserved ports and no others."""
    world = ModernWorld()
    world.switchboard.kick("mill-1", "by the test", 3600)
    World.add_agent(world, "plc-7", (Offer("console", TARGETS["mill-1"].target),))
    world.pump()
    assert "one offer named emo-PORT wanted" in world.of(LinkRefused)[-1].detail


@pytest.mark.parametrize("legacy", [False, True])
def test_a_listener_of_another_kind_says_that_it_has_no_machines(legacy: bool) -> None:
    """It would give the machine any port of its pool, and nobody would find it."""
    world = World(start=False, serials=())
    world._listen(0, "plc-1", (), True)
    world.listener(rules=ListenerRules("rt1-0", legacy=legacy, legacy_serial="plc-1"))
    agent = world.add_agent("mill-1", (modern_offer(5010, TARGETS["mill-1"].target),))
    world.pump()
    (refused,) = world.of(LinkRefused)
    words = "an agent with emo = yes needs a listener with kind = emo"
    assert (refused.reason, refused.serial, refused.detail) == ("denied", "mill-1", words)
    assert agent.links[0].ended == ("denied", f"the server says denied: {words}")


def test_a_proved_serial_must_be_the_ports() -> None:
    """Whoever proves to be another device does not get this port."""
    world = ModernWorld()
    assert len(world.of(LinkUp)) == 1
    world.switchboard.kick("mill-1", "by the test", 3600)
    world.pump()
    keys: dict[str, Verifier] = {"mill-2": verifier_of(KEY, "mill-2")}
    world.switchboard.admission._key_of = keys.get
    World.add_agent(
        world, "mill-2", (modern_offer(5010, TARGETS["mill-1"].target),)
    )  # has no key: it cannot answer
    world.pump()
    world.advance(3)
    assert [fact.serial for fact in world.of(LinkUp)] == ["mill-1"]


def test_the_newest_wins_across_the_two_wires() -> None:
    """A machine that was ours is served by an original client next, and the other way round."""
    world = ModernWorld()
    party = machine(world, b"C005010\n")
    assert [fact.wire for fact in world.of(LinkUp)] == ["rt1", "emo"]
    assert world.of(LinkUp)[-1].replaced
    world.client("mill-1", "emo")
    world.pump()
    assert bytes(party.data).endswith(b"C000001\n")
