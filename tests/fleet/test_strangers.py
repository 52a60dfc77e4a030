"""Places for strangers: who gets one, who goes for whom, what it costs, and that the count is right."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.penalties import Penalties
from revtunnel.fleet.strangers import NotLetIn, Stranger, Strangers
from revtunnel.ground.limits import PenaltyLimits, ServerLimits


@dataclass
class Door:
    """A table with its clock, and who had to go."""

    pending: int = 8
    share: int = 4
    chance: float = 1.0  # never below it: nobody goes by chance
    now: float = 0.0
    went: list[str] = field(default_factory=list)
    speaking: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.access = AccessControl(lambda: 0.0, None, Penalties(PenaltyLimits()))
        limits = ServerLimits(pending=self.pending, pending_per_source=self.share)
        self.table = Strangers(lambda: self.now, lambda: limits, self.access, lambda: self.chance)

    def come(self, host: str, expected: int = 0, heard: bool = False) -> Stranger:
        """Somebody connects, and is seen to go if he has to."""
        peer = f"[{host}]:1" if ":" in host else f"{host}:1"
        stranger = self.table.enter(
            peer, lambda why: self.went.append(host), lambda: host in self.speaking, expected=expected
        )
        if heard:
            stranger.heard()
        return stranger

    def refused(self, host: str) -> str:
        """Why somebody is not let in."""
        with pytest.raises(NotLetIn) as caught:
            self.come(host)
        return caught.value.reason


def test_the_first_of_the_silent_goes_and_never_who_comes() -> None:
    """Six of eight places are for everybody; who has said something keeps his."""
    door = Door()
    for number in range(1, 7):
        door.come(f"198.51.100.{number}", heard=number == 1)
    assert door.went == []
    for number in range(7, 10):
        door.come(f"198.51.100.{number}")
    assert door.went == ["198.51.100.2", "198.51.100.3", "198.51.100.4"]
    assert len(door.table) == 6


def test_who_has_spoken_unread_does_not_go() -> None:
    """What waits in the kernel counts as said."""
    door = Door()
    door.speaking = {"198.51.100.1"}
    for number in range(1, 8):
        door.come(f"198.51.100.{number}")
    assert door.went == ["198.51.100.2"]


def test_by_chance_from_half_of_the_places_on() -> None:
    """Only who has been silent for a second; below the half nobody goes."""
    door = Door(chance=0.0)
    for number in range(1, 6):
        door.come(f"198.51.100.{number}")
    door.now = 1.0
    door.come("198.51.100.6")
    door.come("198.51.100.7")
    assert door.went == ["198.51.100.1", "198.51.100.2"]
    for each in [*door.table._silent[False]][:3]:
        each.leave()
    door.come("198.51.100.8")
    assert len(door.went) == 2


def test_where_all_have_spoken_the_greediest_source_gives_a_place() -> None:
    """For one whose source has at least two less; else nobody goes."""
    door = Door(pending=8, share=4)
    for _ in range(4):
        door.come("198.51.100.1", heard=True)
    for number in (2, 3):
        door.come(f"198.51.100.{number}", heard=True)
    door.come("198.51.100.4", heard=True)
    door.come("198.51.100.3", heard=True)
    assert door.went == ["198.51.100.1"] * 2
    assert door.refused("198.51.100.3") == "overloaded"
    assert door.refused("198.51.100.1") == "overloaded"
    door.come("198.51.100.5", heard=True)
    door.come("198.51.100.6", heard=True)
    assert door.went[2:] == ["198.51.100.1", "198.51.100.3"]
    assert door.refused("198.51.100.7") == "overloaded"


def test_who_lets_us_wait_longest_goes_and_not_who_waits_for_us() -> None:
    """Stalled handshakes of many addresses; in a crowd of honest ones most wait for their turn."""
    door = Door(pending=8, share=4)
    stalled, waiting, *_ = [door.come(f"198.51.100.{number}", heard=True) for number in range(1, 7)]
    waiting.heard(waits=True)
    door.now = 2.9
    assert door.refused("198.51.100.9") == "overloaded"
    stalled.heard()
    door.now = 3.0
    for number in range(10, 14):
        door.come(f"198.51.100.{number}", heard=True)
    assert door.went == [f"198.51.100.{number}" for number in range(3, 7)]
    assert door.refused("198.51.100.9") == "overloaded"
    waiting.heard()
    door.now = 5.9
    door.come("198.51.100.9", heard=True)
    assert door.went[4:] == ["198.51.100.1"]


def test_a_source_has_its_share_and_its_own_silent_one_goes() -> None:
    """Whatever is free elsewhere."""
    door = Door(pending=100, share=2)
    first, _ = door.come("198.51.100.1"), door.come("198.51.100.1", heard=True)
    door.come("198.51.100.1", heard=True)
    assert len(door.went) == 1
    assert first.state.name == "GONE"
    assert door.refused("198.51.100.1") == "overloaded"
    door.come("198.51.100.2")


def test_an_ipv6_site_has_four_shares_at_most() -> None:
    """A /64 one, a /56 two, a /48 four: a /48 is what one customer may have."""
    door = Door(pending=1000, share=3)
    hosts = [f"2001:db8:1:{block:x}::{n}" for block in range(0x300) for n in (1, 2, 3, 4)]
    for host in hosts[:4]:
        door.come(host)
    assert len(door.table) == 3
    for host in hosts[4 : 4 * 256]:
        door.come(host)
    assert len(door.table) == 6
    for host in hosts[4 * 256 :]:
        door.come(host)
    assert len(door.table) == 12
    door.come("2001:db8:2::1")
    assert len(door.table) == 13


def test_the_last_quarter_is_for_known_sources() -> None:
    """A device proved itself from there lately; while its link is up, however long that is."""
    door = Door(pending=8, share=8)
    door.access.arrived("203.0.113.7:1")
    door.now = 10 * 86_400.0
    for number in range(1, 7):
        door.come(f"198.51.100.{number}", heard=True)
    assert door.refused("198.51.100.9") == "overloaded"
    door.come("203.0.113.7", heard=True)
    door.access.left("203.0.113.7:1", door.now)
    door.now += 86_399.0
    door.come("203.0.113.7", heard=True)
    assert door.went == []
    door.come("203.0.113.7", heard=True)
    assert door.went == ["198.51.100.1"]
    door.now += 2.0
    assert not door.access.knows("203.0.113.7:1", door.now)


def test_what_was_asked_for_is_let_in_beyond_all_limits() -> None:
    """Data sockets: as many as tickets are out, whatever their address owes."""
    door = Door(pending=4, share=1)
    for _ in range(4):
        door.access.failed("198.51.100.1:1", "denied", "", False, 0.0)
    door.come("198.51.100.1", expected=2, heard=True)
    door.come("198.51.100.1", expected=2, heard=True)
    door.come("198.51.100.1", expected=2, heard=True)
    with pytest.raises(NotLetIn):
        door.come("198.51.100.1", expected=2)


def test_who_gives_way_again_and_again_owes_for_it() -> None:
    """Half a second each: a source whose silent connections are pushed out all the time is refused."""
    door = Door(pending=4, share=4)
    for round_ in range(60):
        door.now = round_ * 0.1
        if door.access.penalties.refused_for("198.51.100.1:1", door.now):
            break
        door.come("198.51.100.1")
    assert 30 < round_ < 60
    assert door.went == ["198.51.100.1"] * len(door.went)


def test_a_source_that_owes_too_much_has_few_tries() -> None:
    """A stranger's has two in five seconds; a known one's many, sixteen at once, and the slow one goes."""
    door = Door(pending=1000, share=64)
    for host in ("198.51.100.1", "203.0.113.7"):
        for _ in range(4):
            door.access.failed(f"{host}:1", "protocol", "", False, 0.0)
    door.access.proved("203.0.113.7:1", 0.0)
    for _ in range(4):
        door.come("198.51.100.1").leave()
    assert door.refused("198.51.100.1") == "penalty"
    door.now = 4.9
    assert door.refused("198.51.100.1") == "penalty"
    door.now = 5.0
    for _ in range(2):
        door.come("198.51.100.1").leave()
    assert door.refused("198.51.100.1") == "penalty"
    for _ in range(16):
        door.come("203.0.113.7", heard=True)
    assert door.refused("203.0.113.7") == "overloaded"
    door.now = 8.0
    door.come("203.0.113.7")
    door.come("203.0.113.7")
    assert door.went == ["203.0.113.7"] * 2
    for _ in range(1000):
        try:
            door.come("203.0.113.7").leave()
        except NotLetIn as error:
            assert error.reason == "penalty"
            break
    else:
        pytest.fail("it has tries without end")


def test_tries_of_all_strangers_together_are_bounded() -> None:
    """A thousand sources that owe too much have fifty a second."""
    door = Door(pending=10_000, share=64)
    hosts = [f"198.51.{number // 250}.{number % 250}" for number in range(1000)]
    for host in hosts:
        for _ in range(4):
            door.access.failed(f"{host}:1", "denied", "", False, 0.0)
    tried = 0
    for host in hosts:
        try:
            door.come(host)
            tried += 1
        except NotLetIn:
            pass
    assert tried == 50


def test_one_that_stays_goes_for_nobody() -> None:
    """It is counted until it leaves."""
    door = Door(pending=4, share=4)
    for _ in range(3):
        door.come("198.51.100.1").stays()
    assert door.refused("198.51.100.2") == "overloaded"
    assert door.went == []
    assert not door.table.make_room()


def test_room_for_want_of_something_else() -> None:
    """The first silent one goes, strangers before those that are known."""
    door = Door()
    door.access.proved("203.0.113.7:1", 0.0)
    door.come("203.0.113.7")
    door.come("198.51.100.1")
    assert door.table.make_room()
    assert door.table.make_room()
    assert not door.table.make_room()
    assert door.went == ["198.51.100.1", "203.0.113.7"]


steps = st.lists(
    st.tuples(
        st.sampled_from(["come", "come", "come", "heard", "stays", "leave", "wait"]),
        st.integers(0, 11),
        st.integers(0, 3),
    ),
    max_size=150,
)


@given(steps, st.integers(4, 12), st.integers(1, 5), st.floats(0.0, 1.0))
def test_the_table_by_its_rules(
    story: list[tuple[str, int, int]], pending: int, share: int, chance: float
) -> None:
    """Whatever happens: limits hold, who goes has gone, no place is lost, and nothing is left at the end."""
    door = Door(pending, share, chance)
    door.access.arrived("203.0.113.1:1")
    hosts = [f"198.51.100.{n}" for n in range(6)] + ["203.0.113.1", "203.0.113.1"]
    hosts += [f"2001:db8:1:{n:x}::1" for n in range(4)]
    here: list[Stranger] = []
    for what, number, other in story:
        here = [each for each in here if each.state.name != "GONE"]
        if what == "come":
            silent = [each for each in here if each.state.name == "SILENT" and not each.is_known]
            try:
                here.append(door.come(hosts[number]))
            except NotLetIn as error:
                assert error.reason == "penalty" or error.of_source or not silent
        elif what == "wait":
            door.now += other
        elif here:
            getattr(here[number % len(here)], what)()
        here = [each for each in here if each.state.name != "GONE"]
        assert len(door.table) == len(here) <= pending
        unknown = [each for each in here if not each.is_known]
        assert len(unknown) <= pending - pending // 4
        sizes = Counter(each.blocks[0] for each in unknown)
        assert door.table._sizes.greediest()[1] == max(sizes.values(), default=0)
        assert all(size <= share for size in Counter(each.blocks[0] for each in here).values())
    for each in here:
        each.leave()
    assert (len(door.table), door.table._inside, door.table._silent) == (0, {}, {False: {}, True: {}})
    assert door.table._heard == {}
