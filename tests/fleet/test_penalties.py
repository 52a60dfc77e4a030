"""Failures per source and per serial: what they cost, how it goes away, what is bounded."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.fleet.penalties import Penalties
from revtunnel.ground.limits import PenaltyLimits
from revtunnel.ground.networks import network_of

LIMITS = PenaltyLimits()
HERE, THERE = "198.51.100.1:5", "198.51.100.2:5"
failures = st.lists(
    st.tuples(
        st.floats(0.0, 60.0),  # seconds since the one before
        st.integers(1, 3),  # which source
        st.sampled_from(["denied", "silent", "protocol", "lost", "overloaded"]),
    ),
    max_size=60,
)


def test_a_source_is_refused_above_15_seconds() -> None:
    """Three wrong proofs are 15 s and harmless, the fourth is too much, for as long as all cost together."""
    penalties = Penalties(LIMITS)
    for _ in range(3):
        penalties.failed(HERE, "denied", "", 100.0)
    assert penalties.refused_for(HERE, 100.0) == 0.0
    penalties.failed(HERE, "denied", "", 100.0)
    assert penalties.refused_for(HERE, 100.0) == 20.0
    assert penalties.refused_for("198.51.100.1:6", 119.0) == 1.0
    assert penalties.refused_for(HERE, 120.0) == 0.0
    assert penalties.refused_for(THERE, 100.0) == 0.0


def test_slow_failures_never_add_up() -> None:
    """One wrong device behind an address of thousands, once a minute for a day: nobody is refused."""
    penalties = Penalties(LIMITS)
    for minute in range(24 * 60):
        penalties.failed(HERE, "denied", "", minute * 60.0)
        assert penalties.refused_for(HERE, minute * 60.0) == 0.0


@given(failures)
def test_penalties_by_their_rule(story: list[tuple[float, int, str]]) -> None:
    """A model of one sum per source: added by weight, capped, gone by the second, sticky once applied."""
    weights = {"denied": 5.0, "silent": 10.0, "protocol": 10.0, "lost": LIMITS.hangup}
    penalties, now = Penalties(LIMITS), 0.0
    owed: dict[int, float] = defaultdict(float)
    refused: set[int] = set()
    unsure: set[int] = set()  # who owed just as much as is refused, but for a rounding
    for pause, source, reason in story:
        now += pause
        for each in list(owed):
            owed[each] = max(0.0, owed[each] - pause)
            if not owed[each]:
                refused.discard(each)
                unsure.discard(each)
        penalties.failed(f"198.51.100.{source}:9", reason, "", now)
        if reason in weights:
            owed[source] = min(600.0, owed[source] + weights[reason])
            if owed[source] > 15.0 + 1e-6:
                refused.add(source)
            elif owed[source] > 15.0 - 1e-6:
                unsure.add(source)
        for each in (1, 2, 3):
            left = penalties.refused_for(f"198.51.100.{each}:1", now)
            if each in refused or each not in unsure:
                assert left == pytest.approx(owed[each] if each in refused else 0.0, abs=1e-6)
            assert left <= LIMITS.most


def test_nothing_owes_more_than_600_seconds() -> None:
    """However much somebody fails, ten minutes of silence make him a stranger again."""
    penalties = Penalties(LIMITS)
    for _ in range(1000):
        penalties.failed(HERE, "protocol", "", 5.0)
    assert penalties.refused_for(HERE, 5.0) == 600.0
    assert penalties.refused_for(HERE, 605.0) == 0.0


def test_an_ipv6_site_is_one_source_and_mapped_ipv4_is_ipv4() -> None:
    """A /64 has as many addresses as it likes; that is no way out."""
    penalties = Penalties(LIMITS)
    for number in range(1, 5):
        penalties.failed(f"[2001:db8:1:2::{number}]:5", "protocol", "", 0.0)
        penalties.failed(f"[::ffff:198.51.100.1]:{number}", "protocol", "", 0.0)
    assert penalties.refused_for("[2001:db8:1:2:ffff::9]:1", 0.0) == 40.0
    assert penalties.refused_for("[2001:db8:1:3::1]:1", 0.0) == 0.0
    assert penalties.refused_for(HERE, 0.0) == 40.0


def test_who_is_exempt_never_owes() -> None:
    """Its failures are not even kept."""
    penalties = Penalties(LIMITS, [network_of("127.0.0.0/8"), network_of("::1")])
    for peer in ("127.0.0.1:5", "[::1]:5", "[::ffff:127.0.0.1]:5", "unix:/run/x"):
        for _ in range(20):
            penalties.failed(peer, "protocol", "plc-1", 0.0)
        assert penalties.refused_for(peer, 0.0) == 0.0
        assert penalties.locked_for("plc-1", peer, 0.0) == 0.0
    assert penalties.known == 0


def test_the_table_forgets_who_failed_longest_ago() -> None:
    """It never holds more than its limit, and a new failure makes an old source young."""
    penalties = Penalties(PenaltyLimits(sources=3))
    for number in (1, 2, 3, 1, 4):
        for _ in range(2):
            penalties.failed(f"198.51.100.{number}:5", "protocol", f"plc-{number}", 0.0)
        assert penalties.known <= 3
    refused = [n for n in range(1, 5) if penalties.refused_for(f"198.51.100.{n}:5", 0.0)]
    assert refused == [1, 3, 4]
    assert len(penalties._serials) == 3


def test_a_site_with_many_addresses_forgets_its_own() -> None:
    """A /48 has 65,536 sources, as many as there are places; whoever else is refused stays refused."""
    penalties = Penalties(PenaltyLimits(sources=64))
    for _ in range(4):
        penalties.failed(HERE, "denied", "", 0.0)
        penalties.failed("[2001:db8:1::1]:5", "denied", "", 0.0)
    for block in range(1000):
        penalties.failed(f"[2001:db8:2:{block:x}::1]:5", "denied", "", 1.0)
    assert penalties.refused_for(HERE, 1.0) == 19.0
    assert penalties.refused_for("[2001:db8:1::7]:5", 1.0) == 19.0
    assert penalties.known == 2 + 64 // 16
    for number in range(200):
        penalties.failed(f"198.51.{number}.1:5", "denied", "", 2.0)
    assert penalties.known == 64
    assert penalties._sites == {}


def test_a_serial_is_locked_to_those_that_failed() -> None:
    """Ten failures in ten minutes, from two sources: both are out for ten minutes, the device is not."""
    penalties = Penalties(LIMITS)
    for number in range(10):
        assert penalties.locked_for("plc-1", HERE, number * 50.0) == 0.0
        penalties.failed((HERE, THERE)[number % 2], "denied", "plc-1", number * 50.0)
    assert penalties.locked_for("plc-1", HERE, 450.0) == 600.0
    assert penalties.locked_for("plc-1", THERE, 1049.0) == 1.0
    assert penalties.locked_for("plc-1", THERE, 1050.0) == 0.0
    assert penalties.locked_for("plc-1", "203.0.113.9:5", 450.0) == 0.0
    assert penalties.locked_for("plc-2", HERE, 450.0) == 0.0


def test_a_serial_that_fails_slowly_is_not_locked() -> None:
    """Nine in any ten minutes may fail for ever."""
    penalties = Penalties(LIMITS)
    for number in range(100):
        penalties.failed(HERE, "denied", "plc-1", number * 67.0)
        assert penalties.locked_for("plc-1", HERE, number * 67.0) == 0.0


@given(failures, st.integers(1, 5))
def test_what_is_kept_of_a_serial_is_bounded(story: list[tuple[float, int, str]], most: int) -> None:
    """No more failures and sources than it takes to lock it."""
    penalties, now = Penalties(PenaltyLimits(serial_failures=most)), 0.0
    for pause, source, reason in story:
        now += pause
        penalties.failed(f"198.51.100.{source}:9", reason, "plc-1", now)
        for entry in penalties._serials.values():
            assert len(entry.failures) < most or most == 1
            assert len(entry.locked) <= most
