"""The port allocator: who gets which port, for how long, and what a restart leaves of it."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from revtunnel.fleet.lease_rows import LeaseRow
from revtunnel.fleet.leases import HoldsEnough, LeaseError, Leases, NoFreePort, NotReserved, PortTaken, Rules
from revtunnel.fleet.pools import Lease, Pool, PortState, Use
from revtunnel.ground.errors import LocalError
from revtunnel.state.ledger import SqliteLedger
from tests.support.depth import deep

DAY = 86400.0
POOL = Pool("default", ((20000, 20003),))


def leases(*pools: Pool, **others: object) -> Leases:
    """An allocator at second 0."""
    return Leases(pools or (POOL,), 0.0, **others)  # type: ignore[arg-type]


def misplaced(table: Leases) -> list[Lease]:
    """Those that today's settings would not give."""
    return [lease for lease in table._table if table.is_misplaced(lease)]


# ---- promising


def test_a_device_that_asks_again_keeps_its_port() -> None:
    """Asking twice is one promise, and a returning device finds its clients' port as it left it."""
    table = leases()
    first = table.open("plc-7", "http", 0.0)
    assert (first.port, first.address, first.state) == (20000, "127.0.0.1", PortState.RESERVED)
    assert table.open("plc-7", "http", 5.0).port == 20000
    assert table.open("plc-7", "tcp-23", 5.0).port == 20001
    assert table.keep("plc-7", 10.0) == []
    assert [lease.sticky for lease in table.leases_of("plc-7")] == [True, True]
    assert table.open("plc-8", "http", 11.0).port == 20002
    back = table.open("plc-7", "http", 12.0)
    assert (back.port, back.sticky, back.until) == (20000, False, None)
    assert table.take_displaced() == []


def test_a_released_port_rests_and_is_given_last() -> None:
    """A stale client must not reach the next customer's device; the port just lost goes last."""
    table = leases()
    lease = table.open("a", "x", 0.0)
    assert table.release(lease, 1.0)
    assert not table.release(lease, 1.0)
    assert table.find("a", "x") is None
    assert [table.open(serial, "x", 2.0).port for serial in "bcd"] == [20001, 20002, 20003]
    with pytest.raises(NoFreePort, match=r"of 4, 3 are leased \(0 of them .* 1 quarantined, 0 in use"):
        table.open("e", "x", 60.9)
    assert table.open("e", "x", 61.0).port == 20000


def test_a_promise_that_has_ended_does_nothing_to_the_next_one_of_its_port() -> None:
    """Whoever still holds an old lease releases, uses and spoils nothing of the device that has the port."""
    table = leases(Pool("default", ((20000, 20000),), quarantine=0.0))
    old = table.open("a", "x", 0.0)
    assert table.release(old, 1.0)
    new = table.open("b", "x", 2.0, wait=10.0)
    assert new.port == old.port
    assert not table.release(old, 3.0)
    assert not table.used(old, 3.0)
    with pytest.raises(LocalError):
        table.spoil(old, 3.0)
    assert table.at(20000) == new


def test_reservations_are_given_to_their_use_alone() -> None:
    """Inside or outside every range, bound at the pool that has it, else at the pool asked for."""
    inner = Pool("inner", ((30000, 30001),), "10.0.0.1")
    reserved = {Use("a", "x"): 20000, Use("a", "y"): 80, Use("a", "z"): 30001}
    table = leases(POOL, inner, reservations=reserved)
    assert [table.open(serial, "x", 0.0).port for serial in "bcd"] == [20001, 20002, 20003]
    with pytest.raises(NoFreePort, match="1 fixed by the settings"):
        table.open("e", "x", 0.0)
    with pytest.raises(PortTaken):
        table.open("e", "x", 0.0, wanted=20000)
    fixed = table.open("a", "x", 0.0)
    assert (fixed.port, fixed.fixed, fixed.pool) == (20000, True, "default")
    outside = table.open("a", "y", 0.0, pool="inner")
    assert (outside.port, outside.pool, outside.address) == (80, "inner", "10.0.0.1")
    elsewhere = table.open("a", "z", 0.0)
    assert (elsewhere.port, elsewhere.pool, elsewhere.address) == (30001, "inner", "10.0.0.1")
    assert table.release(fixed, 1.0)
    assert table.open("a", "x", 2.0).port == 20000  # no quarantine against oneself
    with pytest.raises(NotReserved, match="port 20000 is reserved for a/x, not port 20003"):
        table.open("a", "x", 3.0, wanted=20003)


def test_a_fixed_port_may_be_bound_elsewhere() -> None:
    """Inside the ranges or outside, after a restart, a reload, and in the listing before it is opened."""
    uses = {Use("plc-7", "http"): 2323, Use("plc-7", "ftp"): 20001, Use("plc-7", "x"): 2325}
    pool = replace(POOL, elsewhere={2323: "192.0.2.5", 20001: "192.0.2.6"})
    table = leases(pool, reservations=uses)
    assert [(each.port, each.address) for each in table.ports()] == [
        (2323, "192.0.2.5"),
        (2325, "127.0.0.1"),
        (20001, "192.0.2.6"),
    ]
    for target, address in (("http", "192.0.2.5"), ("ftp", "192.0.2.6"), ("x", "127.0.0.1")):
        assert table.open("plc-7", target, 1.0).address == address
    table.reload([replace(pool, elsewhere={2325: "192.0.2.7"})], uses, 2.0)
    assert [each.address for each in table.ports()] == ["127.0.0.1", "192.0.2.7", "127.0.0.1"]


def test_r12_a_port_asked_for_by_number() -> None:
    """EMO registration and legacy mappings: that port or none, and never somebody else's."""
    table = leases(reservations={Use("emo", "x"): 5010})
    assert table.open("a", "x", 0.0, wanted=20002).port == 20002
    assert table.open("a", "x", 1.0, wanted=20002).port == 20002
    assert table.open("emo", "x", 1.0, wanted=5010).fixed
    for port in (22, 0, 70000, -1, 19999):
        with pytest.raises(NotReserved):
            table.open("b", "x", 1.0, wanted=port)
    for port in (20002, 5010):
        with pytest.raises(PortTaken):
            table.open("b", "x", 1.0, wanted=port)
    assert table.find("b", "x") is None
    moved = table.open("a", "x", 2.0, wanted=20003)
    assert moved.port == 20003
    assert [lease.port for lease in table.take_displaced()] == [20002]
    with pytest.raises(PortTaken):
        table.open("b", "x", 3.0, wanted=20002)  # in quarantine after a
    with pytest.raises(NoFreePort, match="no pool named other"):
        table.open("b", "x", 3.0, pool="other")


def test_another_pool_is_another_port() -> None:
    """A listener that was moved to another pool does not leave its devices at the old address."""
    table = leases(POOL, Pool("inner", ((30000, 30000),)))
    first = table.open("a", "x", 0.0)
    assert table.open("a", "x", 1.0, pool="inner").port == 30000
    assert table.take_displaced() == [first]
    assert table.at(20000) is None
    with pytest.raises(NoFreePort):
        table.open("b", "x", 1.0, pool="inner")


def test_one_device_cannot_have_every_port() -> None:
    """Its own oldest unused promise makes room; without one it is refused and nobody else suffers."""
    table = leases()
    table.most_of = lambda serial: 2
    table.open("a", "1", 0.0)
    table.open("a", "2", 0.0)
    with pytest.raises(HoldsEnough, match="a has 2 of the 2 ports that it may have"):
        table.open("a", "3", 0.0)
    table.keep("a", 1.0)
    table.open("a", "1", 2.0)
    table.open("a", "3", 2.0)
    assert [lease.target for lease in table.take_displaced()] == ["2"]
    assert {lease.target for lease in table.leases_of("a")} == {"1", "3"}


def test_nor_have_them_all_one_after_the_other() -> None:
    """What rests after a device counts too, however it comes to rest, until it has rested."""
    table = leases(Pool("default", ((1, 1000),)))
    table.most_of = lambda serial: 4
    for turn in range(100):
        try:
            for name in range(4):
                table.open("a", f"{turn}-{name}", 0.0)
        except HoldsEnough as error:
            assert str(error) == "4 ports rest that a gave back; it may have 4"
        table.keep("a", 0.0)
    assert table.counts()["default"].free == 1000 - 8
    assert table.open("b", "x", 0.0).port == 9
    table.expire(60.0)
    assert table.open("a", "new", 60.0).port == 10


def test_a_device_at_its_limit_loses_what_it_offers_no_more() -> None:
    """It is here, with other names than before: what ends first makes room."""
    table = leases()
    table.most_of = lambda serial: 2
    table.open("a", "old", 0.0)
    table.open("a", "kept", 0.0)
    table.unoffered("a", {"kept", "new"}, {"default"}, 1.0)
    assert table.open("a", "new", 1.0).port == 20002
    assert [lease.target for lease in table.take_displaced()] == ["old"]


def test_what_settings_reserve_is_beside_a_devices_share() -> None:
    """The operator said so by name."""
    table = leases(reservations={Use("a", "fixed"): 80, Use("a", "other"): 81})
    table.most_of = lambda serial: 1
    assert [table.open("a", name, 0.0).port for name in ("fixed", "x", "other")] == [80, 20000, 81]
    with pytest.raises(HoldsEnough):
        table.open("a", "y", 0.0)


def test_one_device_with_a_certificate_does_not_keep_a_pool_from_others() -> None:
    """64 other names at each of its connections, and it leaves: an honest device finds a port at once."""
    table = leases(Pool("default", ((1, 100),)))
    for turn in range(4):
        for name in range(64):
            with contextlib.suppress(LeaseError):
                table.open("greedy", f"{turn}-{name}", float(turn))
        table.keep("greedy", float(turn))
    table.expire(100.0)
    for number in range(30):
        table.open(f"early-{number}", "x", 100.0)
        table.keep(f"early-{number}", 0.0)
    table.expire(400.0)
    for number in range(6 + 63):
        assert table.open(f"d-{number}", "x", 500.0)
    assert {lease.serial for lease in table.take_displaced()} == {"greedy"}
    assert len(table.leases_of("greedy")) == 1  # no more than others
    assert all(table.leases_of(f"early-{number}") for number in range(30))


def test_a_name_that_is_offered_no_more_keeps_its_port_for_an_hour() -> None:
    """Counted once, ended by offering it again; neither fixed ports nor those of other pools."""
    table = leases(POOL, Pool("other", ((30000, 30009),)), reservations={Use("a", "fixed"): 80})
    for name in ("x", "y", "z", "fixed"):
        table.open("a", name, 0.0)
    table.open("a", "elsewhere", 0.0, pool="other")
    table.keep("a", 1.0)
    table.open("a", "x", 2.0)
    for now in (2.0, 1000.0):
        table.unoffered("a", {"x"}, {"default"}, now)
    table.open("a", "z", 1001.0)
    assert table.expire(3601.9) == []
    assert [lease.target for lease in table.expire(3602.0)] == ["y"]
    assert {lease.target for lease in table.leases_of("a")} == {"x", "z", "fixed", "elsewhere"}
    table.unoffered("a", {"x"}, {"default"}, 4000.0)
    table.keep("a", 4001.0)
    assert [lease.target for lease in table.expire(7600.0)] == ["z"]


def test_n_ports_rest_until_when() -> None:
    """Whoever is refused hears when it is worth asking again, as the daemon tells times."""
    table = leases()
    for name in "abcd":
        table.release(table.open(name, "x", 0.0), {"a": 5.0}.get(name, 10.0))
    with pytest.raises(NoFreePort, match=r"4 quarantined, 0 .*; 4 ports rest, the first for another 50 s$"):
        table.open("e", "x", 15.0)
    table.until = lambda seconds: f"until {seconds:g}"
    table.expire(69.0)
    for name in "fgh":
        with contextlib.suppress(NoFreePort):
            table.open(name, "x", 69.0)
    with pytest.raises(NoFreePort, match=r"; 3 ports rest, the first until 1$"):
        table.open("i", "x", 69.0)


# ---- ports of other programs


def test_h9_foreign_ports_are_skipped_to_the_last() -> None:
    """EADDRINUSE on every port but one still ends with a port, and all of them with one clear sentence."""
    table = leases()
    lease = table.open("a", "x", 0.0, wait=30.0)
    for port in (20001, 20002, 20003):
        lease = table.spoil(lease, 0.0)
        assert (lease.port, lease.until) == (port, 30.0)
    with pytest.raises(NoFreePort, match=r"of 4, 0 are leased .* 4 in use by other programs"):
        table.spoil(lease, 0.0)
    assert table.find("a", "x") is None
    with pytest.raises(NoFreePort):
        table.open("a", "x", 299.0)
    assert table.open("a", "x", 300.0).port == 20000


def test_h9_a_promised_number_does_not_move() -> None:
    """Clients know a fixed port by heart: another one would be of no use, so the operator hears of it."""
    table = leases(reservations={Use("a", "x"): 80})
    for lease in (table.open("a", "x", 0.0), table.open("b", "x", 0.0, wanted=20001)):
        with pytest.raises(PortTaken, match=f"port {lease.port}, .* is in use by another program"):
            table.spoil(lease, 0.0)
        assert table.at(lease.port) == lease


def test_spoiling_what_is_not_held_is_a_bug() -> None:
    """The caller spoils what it has just been given, or has lost its way."""
    table = leases()
    lease = table.open("a", "x", 0.0)
    table.release(lease, 0.0)
    with pytest.raises(LocalError):
        table.spoil(lease, 0.0)


# ---- time


def test_h12_a_first_client_and_its_time_out_are_never_both() -> None:
    """Either the client was first or the lease is over, in whichever order they are told."""
    table = leases()
    early = table.open("a", "x", 0.0, wait=60.0)
    late = table.open("b", "x", 0.0, wait=60.0)
    assert table.next_expiry() == 60.0
    assert table.used(early, 59.9)
    assert not table.used(late, 60.0)
    assert [lease.use for lease in table.expire(60.0)] == [late.use]
    assert not table.used(late, 60.0)
    assert table.used(early, 1e6)
    assert table.expire(1e6) == []


def test_asking_again_starts_the_wait_again() -> None:
    """And asking without one ends it."""
    table = leases()
    table.open("a", "x", 0.0, wait=60.0)
    table.open("a", "x", 50.0, wait=60.0)
    assert table.expire(109.0) == []
    table.open("a", "x", 109.0)
    assert table.next_expiry() is None


def test_an_absent_device_loses_its_ports_in_the_end() -> None:
    """After 30 days; at once where the pool keeps nothing; a pending wait is not made longer by it."""
    table = leases(POOL, Pool("brief", ((30000, 30001),), sticky=0))
    table.open("a", "x", 0.0)
    table.open("a", "y", 0.0, wait=60.0)
    brief = table.open("a", "z", 0.0, pool="brief")
    assert table.keep("a", 10.0) == [brief]
    assert table.keep("a", 20.0) == []  # told twice, counted once
    assert [lease.since for lease in table.leases_of("a")] == [10.0, 10.0]
    assert [lease.target for lease in table.expire(60.0)] == ["y"]
    assert table.expire(10.0 + 30 * DAY - 1) == []
    assert [lease.target for lease in table.expire(10.0 + 30 * DAY)] == ["x"]
    assert table.leases_of("a") == []


def test_a_full_pool_takes_back_from_who_is_away_longest() -> None:
    """Only when nothing else is left, never within the quarantine, and the caller hears whose it was."""
    table = leases()
    for second, serial in enumerate("abcd"):
        table.open(serial, "x", 0.0)
        table.keep(serial, float(second))
    with pytest.raises(NoFreePort, match="4 of them to devices that are away"):
        table.open("e", "x", 59.0)
    assert table.open("e", "x", 60.0).port == 20000
    assert [lease.serial for lease in table.take_displaced()] == ["a"]
    assert table.find("a", "x") is None
    assert table.open("b", "x", 61.0).port == 20001
    assert table.open("f", "x", 100.0).port == 20002
    assert table.counts()["default"].sticky == 1


def test_taking_back_can_be_switched_off() -> None:
    """Then a full pool is full."""
    table = leases(rules=Rules(reclaim=False))
    for serial in "abcd":
        table.open(serial, "x", 0.0)
        table.keep(serial, 0.0)
    with pytest.raises(NoFreePort):
        table.open("e", "x", DAY)


def test_h8_ten_thousand_cycles_leave_the_free_count() -> None:
    """No port leaks, whatever the order; and each gets its turn."""
    table = leases(Pool("default", ((20000, 20099),)))
    seen = set()
    for cycle in range(deep(10_000)):
        lease = table.open(f"d-{cycle % 300}", "x", float(cycle))
        seen.add(lease.port)
        assert table.release(lease, float(cycle))
    table.expire(10_100.0)
    assert table.counts()["default"].free == 100
    assert len(seen) == 100
    assert table.next_expiry() is None
    assert table.ports() == []


# ---- other settings


def test_reload_keeps_every_lease_and_tells_the_odd_ones() -> None:
    """A changed range cuts nobody off; what today's settings would not give is listed."""
    table = leases()
    for serial in "abc":
        table.open(serial, "x", 0.0)
    fewer = Pool("default", ((20001, 20001), (20010, 20011)), "0.0.0.0")
    table.reload([fewer], {Use("b", "x"): 20001, Use("c", "x"): 80}, 10.0)
    assert [lease.port for lease in misplaced(table)] == [20000, 20002]
    assert {lease.address for lease in table.leases_of("a")} == {"0.0.0.0"}
    assert table.counts()["default"].outside == 2
    assert table.at(20001).fixed  # type: ignore[union-attr]
    assert table.open("a", "x", 20.0).port == 20000  # stands until released
    assert table.open("c", "x", 20.0).port == 80  # moves to what is reserved for it
    assert [lease.port for lease in table.take_displaced()] == [20002]
    assert [table.open(serial, "x", 30.0).port for serial in "de"] == [20010, 20011]
    assert [lease.port for lease in misplaced(table)] == [20000]
    assert table.release(table.open("a", "x", 40.0), 40.0)
    assert [lease.port for lease in table.ports()] == [80, 20001, 20010, 20011]


def test_reload_that_does_not_fit_changes_nothing() -> None:
    """Wrong settings keep the old ones."""
    table = leases()
    lease = table.open("a", "x", 0.0)
    with pytest.raises(ValueError, match="overlaps"):
        table.reload([POOL, replace(POOL, name="again")], {}, 1.0)
    assert table.at(20000) == lease
    assert table.counts()["default"].size == 4


def test_a_port_reserved_while_another_holds_it() -> None:
    """A present device keeps it, an absent one gives it up to whom it is reserved for."""
    table = leases()
    table.open("a", "x", 0.0)
    table.reload([POOL], {Use("b", "x"): 20000}, 1.0)
    assert [lease.serial for lease in misplaced(table)] == ["a"]
    with pytest.raises(PortTaken, match="still leased to another use"):
        table.open("b", "x", 2.0)
    assert table.open("a", "x", 2.0).port == 20000
    table.keep("a", 3.0)
    assert table.open("b", "x", 4.0).port == 20000
    assert [lease.serial for lease in table.take_displaced()] == ["a"]
    assert table.open("a", "x", 5.0).port == 20001


def test_an_absent_device_is_moved_off_a_port_reserved_since() -> None:
    """When it returns before the new owner comes."""
    table = leases()
    table.open("a", "x", 0.0)
    table.keep("a", 0.0)
    table.reload([POOL], {Use("b", "x"): 20000}, 1.0)
    assert table.open("a", "x", 2.0).port == 20001
    assert table.open("b", "x", 2.0).port == 20000


def test_a_reservation_that_goes_away_leaves_a_resting_port() -> None:
    """Its quarantine holds for the others, as for any port given back."""
    table = leases(Pool("default", ((20000, 20000),)), reservations={Use("a", "x"): 20000})
    table.release(table.open("a", "x", 0.0), 0.0)
    table.reload([Pool("default", ((20000, 20000),))], {}, 1.0)
    with pytest.raises(NoFreePort, match="1 quarantined"):
        table.open("b", "x", 59.0)
    assert table.open("b", "x", 60.0).port == 20000


def test_a_renamed_pool_keeps_its_leases() -> None:
    """Ports say which pool a lease is of; one whose pool is gone is moved when its device returns."""
    table = leases(POOL, Pool("old", ((30000, 30001),)))
    table.open("a", "x", 0.0)
    gone = table.open("b", "x", 0.0, pool="old")
    table.reload([replace(POOL, name="new")], {}, 1.0)
    assert misplaced(table) == [gone]
    assert table.open("a", "x", 1.0, pool="new").port == 20000
    assert table.open("b", "x", 1.0, pool="new").port == 20001
    assert table.at(30000) is None


# ---- looking


def test_pages_of_ports_are_whole_and_in_order() -> None:
    """Leases, resting ports and unopened reservations, page by page, while ports come and go."""
    table = leases(Pool("default", ((20000, 20099),)), reservations={Use("f", "x"): 80})
    held = [table.open(f"d-{number}", "x", 0.0) for number in range(50)]
    table.release(held[7], 0.0)
    table.spoil(held[9], 0.0)
    words = {lease.port: lease.state.value for lease in table.ports(limit=1000)}
    assert words[80] == "unclaimed"
    assert (words[20007], words[20009], words[20050]) == ("quarantined", "spoiled", "reserved")
    after, pages = 0, []
    while page := table.ports(after, 7):
        pages += [lease.port for lease in page]
        after = pages[-1]
    assert pages == sorted(words) == [80, *range(20000, 20051)]
    table.expire(300.0)
    assert len(table.ports(limit=1000)) == 50


def test_a_port_that_is_free_again_is_not_listed() -> None:
    """Also when a refused request, not expire, was what noticed it."""
    table = leases()
    table.release(table.open("a", "x", 0.0), 0.0)
    table.open("b", "x", 0.0)
    assert [lease.port for lease in table.ports()] == [20000, 20001]
    with pytest.raises(PortTaken):
        table.open("c", "x", 100.0, wanted=20001)
    assert [lease.port for lease in table.ports()] == [20001]


# ---- restarts


def test_a_restart_keeps_ports_quarantines_and_order() -> None:
    """The monotonic clock starts anew, the machine was down for 10 s: what was promised stands."""
    time = 1_700_000_000.0
    ledger = SqliteLedger(None, lambda: time)
    pool = Pool("default", ((20000, 20004),))
    before = Leases([pool], 5000.0, ledger=ledger)
    a, b, c = (before.open(serial, "x", 5000.0) for serial in "abc")
    before.open("d", "x", 5000.0, wait=30.0)
    before.release(b, 5000.0)
    time += 10
    before.release(a, 5010.0)
    before.keep("c", 5010.0)
    time += 10
    after = Leases([pool], 3.0, ledger=ledger)
    assert {lease.use: lease.port for lease in after.ports() if lease.sticky} == {
        Use("c", "x"): 20002,
        Use("d", "x"): 20003,
    }
    assert after.find("c", "x").until == 3.0 - 10 + 30 * DAY  # type: ignore[union-attr]
    assert [lease.serial for lease in after.expire(13.0)] == ["d"]  # 30 s from its open
    assert after.open("e", "x", 13.0).port == 20004  # never used
    with pytest.raises(NoFreePort, match="3 quarantined"):
        after.open("f", "x", 42.9)
    assert [after.open(serial, "x", 90.0).port for serial in "fgh"] == [20001, 20000, 20003]
    assert after.open("c", "x", 90.0).port == c.port


def test_after_a_restart_who_left_before_it_goes_first() -> None:
    """With a full pool every device that was there has the quarantine's time to return."""
    time = 0.0
    ledger = SqliteLedger(None, lambda: time)
    before = Leases([POOL], 0.0, ledger=ledger)
    for serial in "abcd":
        before.open(serial, "x", 0.0)
    for second, serial in enumerate("ca"):
        before.keep(serial, float(second))
        time += 1.0
    time = 100.0
    after = Leases([POOL], 0.0, ledger=ledger)
    assert [after.open(serial, "x", 0.0).port for serial in "ef"] == [20002, 20000]
    assert [lease.serial for lease in after.take_displaced()] == ["c", "a"]
    with pytest.raises(NoFreePort):
        after.open("g", "x", 59.0)
    assert after.open("b", "x", 59.0).port == 20001
    assert after.open("g", "x", 60.0).port == 20003


def test_a_wrong_wall_clock_makes_nothing_last_longer() -> None:
    """A clock that was set back a year costs at most one quarantine and one sticky time."""
    time = 1_700_000_000.0
    ledger = SqliteLedger(None, lambda: time)
    before = Leases([POOL], 0.0, ledger=ledger)
    before.release(before.open("a", "x", 0.0), 0.0)
    before.open("b", "x", 0.0)
    before.keep("b", 0.0)
    before.spoil(before.open("c", "x", 0.0), 0.0)
    time -= 365 * DAY
    after = Leases([POOL], 0.0, ledger=ledger)
    assert {lease.port: lease.until for lease in after.ports()} == {
        20000: 60.0,
        20001: 30 * DAY,
        20002: 300.0,
        20003: 30 * DAY,
    }


def test_a_pool_that_keeps_nothing_waits_a_quarantine_after_a_restart() -> None:
    """The server went, not the device: it is back within seconds and finds its port."""
    ledger = SqliteLedger(None, lambda: 0.0)
    pool = replace(POOL, sticky=0.0)
    Leases([pool], 0.0, ledger=ledger).open("a", "x", 0.0)
    after = Leases([pool], 0.0, ledger=ledger)
    assert after.expire(59.0) == []
    assert after.open("a", "x", 59.0).port == 20000


def test_two_rows_of_one_use_become_one_lease() -> None:
    """Whatever wrote such a ledger, a use never has two ports."""
    ledger = SqliteLedger(None, lambda: 0.0)
    rows = [
        LeaseRow(port, "default", "a", "x", PortState.RESERVED, False, None) for port in (20000, 20001, 7)
    ]
    ledger.save(rows, [])
    table = Leases([POOL], 0.0, ledger=ledger)
    assert len(table.leases_of("a")) == 1
    assert [lease.state.value for lease in table.ports()].count("quarantined") >= 1
    assert len(Leases([POOL], 0.0, ledger=ledger).ports()) == len(table.ports())


# ---- all of it, in any order

SERIALS = ["a", "b", "c", "d"]
TARGETS = ["x", "y", "z"]
MAIN = Pool("default", ((100, 103),), quarantine=60, sticky=600)
INNER = Pool("inner", ((200, 201), (210, 210)), quarantine=30, sticky=0)
SETTINGS: list[tuple[list[Pool], dict[Use, int]]] = [
    ([MAIN, INNER], {Use("a", "x"): 103, Use("b", "y"): 50}),
    ([MAIN, INNER], {Use("c", "z"): 101}),
    ([replace(MAIN, ranges=((100, 101), (120, 121)))], {}),
    ([replace(INNER, name="default"), replace(MAIN, name="inner")], {Use("a", "x"): 121}),
]
SPOILED_FOR = 300


class Allocator(RuleBasedStateMachine):
    """Any sequence of calls, restarts and reloads, against a plain dictionary of who was told which port."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 1_700_000_000  # the world's; the allocator sees it less self.boot
        self.boot = 1_699_990_000
        self.pools, self.reserved = SETTINGS[0]
        self.ledger = SqliteLedger(None, lambda: float(self.time))
        self.rules = Rules(spoiled_for=SPOILED_FOR)
        self.told: dict[Use, int] = {}
        self.resting: dict[int, tuple[Use, PortState, int]] = {}  # last use, why, until
        self.start()

    @property
    def now(self) -> float:
        """The allocator's clock."""
        return float(self.time - self.boot)

    def start(self) -> None:
        self.table = Leases(self.pools, self.now, self.reserved, self.ledger, self.rules)
        self.table.most_of = lambda serial: 3

    def pool_of(self, port: int) -> Pool | None:
        return next((pool for pool in self.pools if port in pool), None)

    def give_back(self, lease: Lease, state: PortState = PortState.QUARANTINED) -> None:
        """Note that a lease ended; its port rests, if a pool has it."""
        assert self.told.pop(lease.use) == lease.port
        pool = self.pool_of(lease.port)
        if pool is not None:
            rest = int(pool.quarantine) if state is PortState.QUARANTINED else SPOILED_FOR
            self.resting[lease.port] = (lease.use, state, self.time + rest)

    def note_displaced(self, port: int | None) -> None:
        """What open and spoil took from others; the one whose port was passed on does not rest."""
        for lease in self.table.take_displaced():
            if lease.port == port:
                assert self.told.pop(lease.use) == port
            else:
                self.give_back(lease)

    def rests(self, port: int, use: Use, by_number: bool) -> bool:
        """Whether this port must not be given to this use now."""
        last, state, until = self.resting.get(port, (use, PortState.QUARANTINED, 0))
        return until > self.time and not (by_number and last == use and state is PortState.QUARANTINED)

    def free_ports(self, name: str) -> list[int]:
        """What the pool has to give, by the model."""
        pool = next((pool for pool in self.pools if pool.name == name), None)
        taken = {*self.told.values(), *self.reserved.values()}
        resting = {port for port, (_, _, until) in self.resting.items() if until > self.time}
        return [] if pool is None else [port for port in pool if port not in taken | resting]

    @initialize(settings=st.sampled_from(SETTINGS))
    def begin(self, settings: tuple[list[Pool], dict[Use, int]]) -> None:
        """Start with any of the settings."""
        self.reload(settings)

    @rule(
        use=st.builds(Use, st.sampled_from(SERIALS), st.sampled_from(TARGETS)),
        pool=st.sampled_from(["default", "default", "inner"]),
        wait=st.none() | st.integers(1, 100),
        wanted=st.none() | st.none() | st.sampled_from([50, 100, 103, 120, 200, 7]),
    )
    def open(self, use: Use, pool: str, wait: int | None, wanted: int | None) -> None:
        """A device comes, returns, or asks for a port by number."""
        held = self.table.find(*use)
        free = self.free_ports(pool)
        try:
            lease = self.table.open(*use, self.now, pool, wait, wanted)
        except LeaseError as error:
            self.note_displaced(None)
            if isinstance(error, NoFreePort) and wanted is None:
                assert not free
            assert self.table.find(*use) == held
            return
        self.note_displaced(lease.port)
        number = self.reserved.get(use, wanted)
        if number is not None:
            assert lease.port == number
        elif (
            held is not None
            and held.pool == pool
            and not (held.sticky and held.port in self.reserved.values())
        ):
            assert lease.port == held.port
        else:
            assert lease.pool == pool
        if held is None or lease.port != held.port:
            assert lease.port not in self.told.values()
            assert lease.fixed or self.pool_of(lease.port)
            assert lease.fixed or lease.port not in self.reserved.values()
            assert lease.fixed or not self.rests(lease.port, use, wanted is not None)
        assert lease.fixed == (self.reserved.get(use) == lease.port)
        self.resting.pop(lease.port, None)
        self.told[use] = lease.port

    @rule(data=st.data())
    def spoil(self, data: st.DataObject) -> None:
        """The port is another program's."""
        if not self.told:
            return
        use = data.draw(st.sampled_from(sorted(self.told)))
        held = self.table.find(*use)
        assert held is not None
        free = self.free_ports(held.pool)
        try:
            lease = self.table.spoil(held, self.now)
        except PortTaken:
            assert held.fixed or held.wanted
            return
        except NoFreePort:
            assert not free
            self.give_back(held, PortState.SPOILED)
            return
        self.give_back(held, PortState.SPOILED)
        self.note_displaced(lease.port)
        assert lease.port != held.port
        assert not self.rests(lease.port, use, False)
        self.resting.pop(lease.port, None)
        self.told[use] = lease.port

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """A use gives its port back."""
        if self.told:
            lease = self.table.find(*data.draw(st.sampled_from(sorted(self.told))))
            assert lease is not None
            assert self.table.release(lease, self.now)
            self.give_back(lease)

    @rule(serial=st.sampled_from(SERIALS))
    def keep(self, serial: str) -> None:
        """A device leaves."""
        for lease in self.table.keep(serial, self.now):
            self.give_back(lease)

    @rule(data=st.data())
    def use(self, data: st.DataObject) -> None:
        """A first client comes: if it was in time, only a departure can end the lease."""
        if self.told:
            lease = self.table.find(*data.draw(st.sampled_from(sorted(self.told))))
            assert lease is not None
            in_time = lease.until is None or lease.until > self.now
            assert self.table.used(lease, self.now) == in_time
            after = self.table.find(*lease.use)
            assert after is not None
            assert lease.sticky or not in_time or after.until is None

    @rule(seconds=st.sampled_from([0, 1, 29, 31, 59, 61, 299, 700]))
    def wait(self, seconds: int) -> None:
        """Time passes; what lapsed is told once, and next_expiry knew of it."""
        due = self.table.next_expiry()
        self.time += seconds
        lapsed = self.table.expire(self.now)
        assert not lapsed or (due is not None and due <= self.now)
        for lease in lapsed:
            assert lease.until is not None and lease.until <= self.now
            self.give_back(lease)
        due = self.table.next_expiry()
        assert due is None or due > self.now
        for name, counts in self.table.counts().items():
            assert counts.free == len(self.free_ports(name))

    @rule(down=st.integers(0, 100), since_boot=st.integers(0, 1000))
    def restart(self, down: int, since_boot: int) -> None:
        """The server dies and comes back, on a rebooted machine maybe, with the same promises."""
        self.time += down
        self.boot = self.time - since_boot
        self.start()

    @rule(settings=st.sampled_from(SETTINGS))
    def reload(self, settings: tuple[list[Pool], dict[Use, int]]) -> None:
        """Other ranges and reservations, live: no promise is lost."""
        self.pools, self.reserved = settings
        self.table.reload(self.pools, self.reserved, self.now)
        odd = misplaced(self.table)
        for use, port in self.told.items():
            given = port in self.reserved.values() or self.pool_of(port) is None or use in self.reserved
            fixed = self.reserved.get(use) == port
            assert (use in {lease.use for lease in odd}) == (given and not fixed)
        self.resting = {port: rest for port, rest in self.resting.items() if self.pool_of(port)}

    @invariant()
    def nobody_has_more_than_his_share(self) -> None:
        """Beside what the settings reserve; what a restart or reload finds is more at most by those."""
        for serial in SERIALS:
            reserved = sum(use.serial == serial for settings in SETTINGS for use in settings[1])
            assert len(self.table.leases_of(serial)) <= 3 + reserved

    @invariant()
    def promises_stand(self) -> None:
        """Everybody still has the port that was told; no port is told twice."""
        assert len(set(self.told.values())) == len(self.told)
        held = {lease.use: lease.port for serial in SERIALS for lease in self.table.leases_of(serial)}
        assert held == self.told
        assert all(self.table.at(port).use == use for use, port in held.items())  # type: ignore[union-attr]

    @invariant()
    def counts_add_up(self) -> None:
        """Each port of a pool is counted once."""
        for name, counts in self.table.counts().items():
            parts = (counts.free, counts.leased, counts.fixed, counts.quarantined, counts.spoiled)
            assert min(parts) >= 0
            assert sum(parts) == counts.size
            assert counts.sticky <= counts.leased
            assert counts.free <= len(self.free_ports(name))

    @invariant()
    def listing_is_whole(self) -> None:
        """Every lease and every reservation is in the pages, in order."""
        first = self.table.ports(limit=5)
        ports = [lease.port for lease in first + self.table.ports(first[-1].port if first else 0, 1000)]
        assert ports == sorted(set(ports))
        assert {*self.told.values(), *self.reserved.values()} <= set(ports)

    def teardown(self) -> None:
        """Close the ledger."""
        self.ledger.close()


TestAllocator = Allocator.TestCase
TestAllocator.settings = settings(max_examples=deep(60), stateful_step_count=50, deadline=None)
