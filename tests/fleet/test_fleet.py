"""The fleet: who is here, whose link gives way, when a serial is barred, how many are remembered."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from revtunnel.fleet import fleet
from revtunnel.fleet.fleet import BARRED, Fleet, TwoHolders
from revtunnel.ground.facts import DuplicateDevice
from revtunnel.ground.limits import ServerLimits
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.targets import parse_offer
from revtunnel.link.handshake import LinkDenied
from tests.support.depth import deep
from tests.support.steps import steps

LIMITS = ServerLimits()  # 3 swaps in 60 s
OFFERS = (parse_offer("10.0.0.1:23"), parse_offer("http=127.0.0.1:80"))


def empty() -> Fleet[str]:
    """An empty one; a link is a word here, the registry never looks at it."""
    return Fleet(LIMITS)


def test_a_device_comes_and_goes() -> None:
    """Arrival and leaving are seen, with their times; a device that left is remembered, not counted."""
    known = empty()
    assert known.get("plc-7") is None and len(known) == 0

    assert known.arrive("plc-7", "a", 10.0, offers=OFFERS) is None
    device = known.get("plc-7")
    assert device is not None
    assert (device.online, device.link, device.since, device.links) == (True, "a", 10.0, 1)
    assert device.offers == OFFERS and not device.authenticated
    assert len(known) == 1

    assert known.leave("plc-7", "a", 25.0)
    assert (device.online, device.link, device.since, device.links) == (False, None, 25.0, 1)
    assert len(known) == 0 and known.get("plc-7") is device


def test_devices_are_listed_by_serial() -> None:
    """A listing has one order, whatever the order of arrival."""
    known = empty()
    for serial in ("plc-9", "a", "plc-10"):
        known.arrive(serial, serial, 0.0)
    assert [device.serial for device in known.page("", None)] == ["a", "plc-10", "plc-9"]


def test_a_link_that_was_replaced_takes_nothing_with_it() -> None:
    """When the old link's end is noticed late, the device stays here through the new one."""
    known = empty()
    known.arrive("plc-7", "old", 0.0)
    assert known.arrive("plc-7", "new", 1.0) == "old"
    assert not known.leave("plc-7", "old", 2.0)
    assert not known.leave("plc-8", "old", 2.0)
    device = known.get("plc-7")
    assert device is not None and device.link == "new" and device.since == 1.0


def test_sums_outlive_a_link() -> None:
    """Bytes and channels belong to the device, links are counted over all its life."""
    known = empty()
    known.arrive("plc-7", "a", 0.0)
    device = known.get("plc-7")
    assert device is not None
    device.bytes_to_client += 5
    known.leave("plc-7", "a", 1.0)
    known.arrive("plc-7", "b", 2.0)
    assert known.get("plc-7") is device
    assert (device.bytes_to_client, device.links) == (5, 2)


def test_r8_newest_wins_where_the_listener_says_so() -> None:
    """Without keys, duplicate = newest: the old link is handed out to be closed."""
    known = empty()
    known.arrive("plc-7", "a", 0.0, offers=OFFERS)
    assert known.arrive("plc-7", "b", 1.0, duplicate="auto", offers=OFFERS[:1]) == "a"
    device = known.get("plc-7")
    assert device is not None and device.link == "b" and device.offers == OFFERS[:1]


def test_r8_oldest_stays_where_the_listener_says_so() -> None:
    """Without keys, duplicate = oldest: the newcomer is told so, and nothing of the old link changes."""
    known = empty()
    known.arrive("plc-7", "a", 0.0, offers=OFFERS)
    with pytest.raises(LinkDenied, match="here already") as caught:
        known.arrive("plc-7", "b", 1.0, duplicate="oldest")
    assert caught.value.reason is GoAway.DUPLICATE and caught.value.serial == "plc-7"
    device = known.get("plc-7")
    assert device is not None
    assert (device.link, device.since, device.offers, device.links) == ("a", 0.0, OFFERS, 1)

    known.leave("plc-7", "a", 2.0)
    assert known.arrive("plc-7", "b", 3.0, duplicate="oldest") is None


@pytest.mark.parametrize("duplicate", ["auto", "newest", "oldest"])
def test_r8_a_proved_device_does_not_give_way_to_a_word(duplicate: str) -> None:
    """Who only says a serial cannot push out who proved it, under either rule; nor count as a swap."""
    known = empty()
    known.arrive("plc-7", "proved", 0.0, authenticated=True)
    for _ in range(10):
        with pytest.raises(LinkDenied) as caught:
            known.arrive("plc-7", "said", 1.0, authenticated=False, duplicate=duplicate)
        assert caught.value.reason is GoAway.DUPLICATE
    assert known.arrive("plc-7", "again", 2.0, authenticated=True) == "proved"


@pytest.mark.parametrize("duplicate", ["auto", "newest", "oldest"])
def test_r9_r10_a_proved_device_returns_at_once(duplicate: str) -> None:
    """The half-open old link of a device that proves itself never keeps it out, under either rule."""
    known = empty()
    known.arrive("plc-7", "half-open", 0.0, authenticated=True)
    assert known.arrive("plc-7", "new", 0.1, authenticated=True, duplicate=duplicate) == "half-open"
    known = empty()
    known.arrive("plc-7", "said", 0.0)
    assert known.arrive("plc-7", "proved", 0.1, authenticated=True, duplicate=duplicate) == "said"


def swapping(times: list[float]) -> Fleet[str]:
    """A registry whose device plc-7 replaced its link at these times."""
    known = empty()
    known.arrive("plc-7", "first", 0.0, authenticated=True)
    for at in times:
        known.arrive("plc-7", f"link of {at}", at, authenticated=True)
    return known


def let_go(known: Fleet[str], now: float) -> None:
    """The link of plc-7 that is up ends."""
    device = known.get("plc-7")
    assert device is not None and device.link is not None
    assert known.leave("plc-7", device.link, now)


def test_r9_two_holders_of_one_key_are_both_barred() -> None:
    """The fourth swap in a minute bars the serial for five minutes, and says that the live link must go."""
    known = swapping([10.0, 20.0, 30.0])
    with pytest.raises(TwoHolders, match="two holders") as caught:
        known.arrive("plc-7", "fourth", 40.0, authenticated=True)
    assert caught.value.reason is GoAway.DENIED and caught.value.serial == "plc-7"
    device = known.get("plc-7")
    assert device is not None and device.link == "link of 30.0"  # for the owner to close

    let_go(known, 40.0)
    for authenticated in (True, False):
        with pytest.raises(LinkDenied, match="barred") as again:
            known.arrive("plc-7", "fifth", 40.0 + BARRED - 0.1, authenticated)
        assert again.value.reason is GoAway.DENIED and not isinstance(again.value, TwoHolders)
    assert known.arrive("plc-8", "other", 41.0) is None  # nobody else is barred


def test_r9_after_the_bar_the_count_starts_over() -> None:
    """Five minutes later the device comes in, and three more swaps are no fault."""
    known = swapping([10.0, 20.0, 30.0])
    with pytest.raises(TwoHolders):
        known.arrive("plc-7", "fourth", 40.0, authenticated=True)
    let_go(known, 40.0)
    back = 40.0 + BARRED
    assert known.arrive("plc-7", "a", back, authenticated=True) is None
    for count in range(3):
        assert known.arrive("plc-7", f"b{count}", back + 1 + count, authenticated=True) is not None


def test_r9_slow_swaps_are_no_fault() -> None:
    """Three in any minute are allowed for ever: a swap is forgotten when the window has passed."""
    known = empty()
    known.arrive("plc-7", "first", 0.0, authenticated=True)
    for count in range(100):
        assert known.arrive("plc-7", f"{count}", count * 20.0, authenticated=True) is not None
    device = known.get("plc-7")
    assert device is not None and device.holders is not None
    assert len(device.holders._swaps) <= LIMITS.duplicate_swaps


def test_r9_a_device_whose_link_ended_first_does_not_swap() -> None:
    """Coming back after an end that the server saw is no sign of two holders, however often."""
    known = empty()
    for count in range(50):
        known.arrive("plc-7", "link", count * 0.1, authenticated=True)
        let_go(known, count * 0.1 + 0.05)
    device = known.get("plc-7")
    assert device is not None and device.links == 50


def test_the_longest_absent_device_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that anyone can make up cost a bounded number of entries; who is here is never forgotten."""
    monkeypatch.setattr(fleet, "ABSENT_KEPT", 3)
    known = empty()
    known.arrive("here", "h", 0.0)
    for count in range(20):
        known.arrive(f"made-up-{count}", "x", float(count))
        known.leave(f"made-up-{count}", "x", float(count))
        assert len(known.page("", None)) <= 4
    assert [device.serial for device in known.page("", None)] == [
        "here",
        "made-up-17",
        "made-up-18",
        "made-up-19",
    ]


def test_who_never_proved_his_serial_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made-up names push out each other, and no device that has a key or certificate."""
    monkeypatch.setattr(fleet, "ABSENT_KEPT", 3)
    known = empty()
    for serial in ("proved-1", "proved-2"):
        known.arrive(serial, "p", 0.0, authenticated=True)
        known.leave(serial, "p", 0.0)
    for count in range(20):
        known.arrive(f"made-up-{count}", "x", 1.0)
        known.leave(f"made-up-{count}", "x", 1.0)
    assert [device.serial for device in known.page("", None)] == ["made-up-19", "proved-1", "proved-2"]
    for count in range(3, 6):
        known.arrive(f"proved-{count}", "p", 2.0, authenticated=True)
        known.leave(f"proved-{count}", "p", 2.0)
    assert [device.serial for device in known.page("", None)] == ["proved-3", "proved-4", "proved-5"]


def test_who_is_ours_is_listed_before_he_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what settings say of him, until he says it himself; made-up names do not push him out."""
    monkeypatch.setattr(fleet, "ABSENT_KEPT", 3)
    known = empty()
    offers = (parse_offer("console=10.0.0.5:23"),)
    for count in range(5):
        known.know(f"ours-{count}", 7.0, "legacy", "old", "default")
    assert [device.serial for device in known.page("", None)] == ["ours-0", "ours-1", "ours-2"]
    known.know("ours-0", 8.0, "legacy", "old", "default", offers)
    device = known.get("ours-0")
    assert device is not None and not device.online
    assert (device.system, device.listener, device.offers, device.since) == ("legacy", "old", offers, 7.0)
    known.arrive("ours-0", "link", 9.0, system="rt1")
    known.know("ours-0", 9.0, "legacy", "old", "default", offers)
    assert known.get("ours-0") is device and (device.system, device.offers) == ("rt1", ())
    known.leave("ours-0", "link", 10.0)
    for count in range(20):
        known.arrive(f"made-up-{count}", "x", 11.0)
        known.leave(f"made-up-{count}", "x", 11.0)
    assert [device.serial for device in known.page("", None)] == ["made-up-19", "ours-1", "ours-2"]


def test_many_that_are_here_are_no_reason_to_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cap counts the absent only: ten devices at once stay, whatever the number of absent ones kept."""
    monkeypatch.setattr(fleet, "ABSENT_KEPT", 3)
    known = empty()
    for count in range(10):
        known.arrive(f"plc-{count}", "x", float(count))
    assert len(known) == 10
    known.leave("plc-0", "x", 10.0)
    known.arrive("plc-10", "x", 11.0)
    assert known.get("plc-0") is not None


def test_arrivals_cost_the_same_when_more_are_here_than_absent_ones_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Devices that are here do not count against those that were, and nobody is looked for."""
    costs = []
    for size in (100, 1000):
        monkeypatch.setattr(fleet, "ABSENT_KEPT", size // 2)
        known = empty()
        for count in range(size):
            known.arrive(f"gone-{count}", "x", 0.0)
            known.leave(f"gone-{count}", "x", 0.0)
            known.arrive(f"here-{count}", "x", 0.0)
        costs.append(steps(lambda known=known: [known.arrive("new", "x", 1.0), known.leave("new", "x", 2.0)]))
        assert (len(known), len(known.page("", None))) == (size, size + size // 2)
    assert costs[1] <= costs[0] * 1.2


# -- several wires


def told(**options: object) -> tuple[Fleet[str], list[DuplicateDevice]]:
    """A fleet and its alarms; plc-7 is here by rt1."""
    facts: list[Any] = []
    known: Fleet[str] = Fleet(LIMITS, facts.append)
    known.arrive("plc-7", "rt1 link", 0.0, system="rt1", peer="192.0.2.1:1", **options)  # type: ignore[arg-type]
    return known, facts


def test_r8_a_serial_of_another_wire_is_decided_by_the_same_rule_and_told() -> None:
    """The newest wins where its listener says so; both wires and addresses are named."""
    known, facts = told()
    old = known.arrive("plc-7", "device", 1.0, system="cccp", peer="192.0.2.2:2")
    assert old == "rt1 link"
    (fact,) = facts
    assert (fact.stays, fact.wire, fact.older_wire) == ("newest", "cccp", "rt1")
    assert (fact.peer, fact.older, fact.authenticated) == ("192.0.2.2:2", "192.0.2.1:1", False)
    assert (known.count("rt1"), known.count("cccp"), len(known)) == (0, 1, 1)
    device = known.get("plc-7")
    assert device is not None and (device.system, device.peer) == ("cccp", "192.0.2.2:2")
    assert [each.link for each in known.here("cccp")] == ["device"] and known.here("rt1") == []
    assert not known.leave("plc-7", "rt1 link", 2.0) and known.leave("plc-7", "device", 3.0)
    assert device.system == "cccp" and known.count("cccp") == 0


@pytest.mark.parametrize("duplicate", ["auto", "newest", "oldest"])
def test_r8_a_proved_device_does_not_give_way_to_a_word_of_another_wire(duplicate: str) -> None:
    """And the other way round: whoever proves itself comes in."""
    known, facts = told(authenticated=True)
    with pytest.raises(LinkDenied):
        known.arrive("plc-7", "device", 1.0, duplicate=duplicate, system="cccp")
    assert [fact.stays for fact in facts] == ["oldest"]
    assert (
        known.arrive("plc-7", "proved", 2.0, authenticated=True, duplicate=duplicate, system="cccp")
        == "rt1 link"
    )
    assert [fact.stays for fact in facts] == ["oldest", "newest"]


def test_r9_two_holders_of_one_key_may_come_by_different_wires() -> None:
    """Their swaps are counted together, and each is told."""
    known, facts = told(authenticated=True)
    for count in range(LIMITS.duplicate_swaps):
        system = "rt1" if count % 2 else "cccp"
        known.arrive("plc-7", f"{count}", 1.0, authenticated=True, system=system)
    with pytest.raises(TwoHolders):
        known.arrive("plc-7", "last", 1.0, authenticated=True, system="rt1")
    assert [fact.stays for fact in facts] == ["newest"] * LIMITS.duplicate_swaps + ["neither"]


def test_a_second_link_of_the_same_wire_is_told_where_that_asks_for_it() -> None:
    """A half-open link is everyday life on rt1 and an alarm on CCCP, which knows no proof."""
    known, facts = told()
    known.arrive("plc-7", "again", 1.0, system="rt1")
    assert facts == []
    known.arrive("plc-8", "one", 1.0, system="cccp", alarm=True)
    known.arrive("plc-8", "two", 2.0, system="cccp", alarm=True)
    assert [fact.serial for fact in facts] == ["plc-8"]


def test_limits_may_be_set_anew() -> None:
    """The next swap is counted by them."""
    known, _ = told(authenticated=True)
    known.limits = replace(LIMITS, duplicate_swaps=0)
    with pytest.raises(TwoHolders):
        known.arrive("plc-7", "again", 1.0, authenticated=True)


# -- two machines with one serial


def taking_turns(known: Fleet[str], turns: int, every: float, **more: Any) -> list[str]:
    """Runs A and B take the link from each other: what each coming led to, old link or word of refusal."""
    came = []
    for turn in range(turns):
        name = "AB"[turn % 2]
        told = {"instance": name.encode() * 8, "peer": f"192.0.2.{turn % 2 + 1}:5", "system": "rt1"}
        try:
            came.append(known.arrive("plc-7", f"{name}{turn}", turn * every, **told, **more) or "none")
        except LinkDenied as error:
            came.append(type(error).__name__ if isinstance(error, TwoHolders) else error.reason.word)
    return came


def conflict(known: Fleet[str], now: float) -> str:
    """What devices show."""
    device = known.get("plc-7")
    return "" if device is None or device.holders is None else device.holders.shown(now)


@pytest.mark.parametrize("every", [1.0, 50.0, 250.0])
@pytest.mark.parametrize("proved", [False, True])
def test_two_machines_that_take_turns_are_told_once(proved: bool, every: float) -> None:
    """However slowly: who comes again after another had its place lives beside that one."""
    facts: list[Any] = []
    known: Fleet[str] = Fleet(LIMITS, facts.append)
    came = taking_turns(known, 12, every, authenticated=proved, duplicate="newest")
    assert came == ["none", *(f"{'AB'[turn % 2]}{turn}" for turn in range(11))]
    (fact,) = facts
    assert (fact.serial, fact.peer, fact.older) == ("plc-7", "192.0.2.2:5", "192.0.2.1:5")
    assert fact.stays == "newest"
    assert conflict(known, 11 * every + 599) == "192.0.2.1:5 and 192.0.2.2:5"
    assert conflict(known, 11 * every + 600) == ""


def test_the_setting_decides_between_them() -> None:
    """The oldest, or neither; as shipped neither of those that prove their serial, else the newest."""
    came = taking_turns(empty(), 6, 50.0, duplicate="oldest", authenticated=True)
    assert came == ["none", "A0", "B1", "duplicate", "A2", "duplicate"]
    for more in ({"duplicate": "refuse-both"}, {"authenticated": True}):
        came = taking_turns(empty(), 5, 50.0, **more)
        assert came == ["none", "A0", "B1", "TwoHolders", "denied"]
    assert taking_turns(empty(), 20, 50.0)[-1] == "A18"


def test_one_machine_whose_links_break_is_no_conflict() -> None:
    """The same run comes again and again while its old link is half-open; and so do its restarts."""
    known = empty()
    for count in range(50):
        known.arrive("plc-7", f"{count}", count * 1.0, authenticated=True, instance=b"A" * 8)
    for count in range(50):
        known.arrive("plc-7", f"r{count}", 50.0 + count, authenticated=True, instance=bytes([count]) * 8)
    assert conflict(known, 100.0) == ""


def test_a_run_is_no_proof() -> None:
    """Who only says a serial takes nothing from who proved it, whatever run it calls itself."""
    known = empty()
    known.arrive("plc-7", "proved", 0.0, authenticated=True, instance=b"A" * 8)
    with pytest.raises(LinkDenied, match="here already"):
        known.arrive("plc-7", "said", 1.0, instance=b"A" * 8)


class Story(RuleBasedStateMachine):
    """Any order of arrivals and ends, beside a plain dict of who should be here."""

    def __init__(self) -> None:
        super().__init__()
        self.known: Fleet[int] = Fleet(replace(LIMITS, duplicate_swaps=1))
        self.here: dict[str, int] = {}
        self.now = 0.0
        self.next = 0

    @rule(serial=st.sampled_from("abc"), proved=st.booleans(), newest=st.booleans(), wait=st.floats(0, 400))
    def arrive(self, serial: str, proved: bool, newest: bool, wait: float) -> None:
        """A newcomer replaces exactly the link it was given, or nothing changes."""
        self.now += wait
        self.next += 1
        try:
            old = self.known.arrive(serial, self.next, self.now, proved, "auto" if newest else "oldest")
        except LinkDenied as denied:
            assert denied.serial == serial
            return
        assert old == self.here.get(serial)
        self.here[serial] = self.next

    @rule(serial=st.sampled_from("abc"), current=st.booleans())
    def leave(self, serial: str, current: bool) -> None:
        """Only the link that is up takes its device away."""
        link = self.here.get(serial, -1) if current else -1
        assert self.known.leave(serial, link, self.now) == (link != -1)
        if link != -1:
            del self.here[serial]

    @invariant()
    def agrees(self) -> None:
        """The registry says who is here as the dict does."""
        assert {
            device.serial: device.link for device in self.known.page("", None) if device.online
        } == self.here
        assert len(self.known) == len(self.here)


TestStory = Story.TestCase
TestStory.settings = settings(max_examples=deep(50), stateful_step_count=20, deadline=None)
