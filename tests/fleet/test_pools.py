"""Pools, uses and what makes a set of them valid."""

import pytest

from revtunnel.fleet.pools import Pool, Use, conflicts, parse_use


def test_a_pool_is_its_ranges() -> None:
    """Size, membership and order come from the ranges, ends included."""
    pool = Pool("default", ((20000, 20002), (30000, 30000)))
    assert len(pool) == 4
    assert list(pool) == [20000, 20001, 20002, 30000]
    assert all(port in pool for port in pool)
    assert not any(port in pool for port in (19999, 20003, 29999, 30001, "20000"))


def test_use_is_read_and_written_alike() -> None:
    """The word in the settings is the word in every listing."""
    assert parse_use("plc-7/http") == Use("plc-7", "http")
    assert str(Use("plc-7", "http")) == "plc-7/http"


@pytest.mark.parametrize(
    "text", ["", "plc-7", "plc-7/", "/http", "plc 7/http", "plc-7/ht tp", "a/\x00", "a/é"]
)
def test_bad_uses_are_refused(text: str) -> None:
    """A reservation for something that no device can be is an error of the settings."""
    with pytest.raises(ValueError):
        parse_use(text)


@pytest.mark.parametrize("ends", [(6000, 5000), (0, 10), (60000, 65536), (-1, 5)])
def test_c5_bad_ranges_are_told(ends: tuple[int, int]) -> None:
    """Backwards and out of 1..65535."""
    assert len(conflicts([Pool("a", (ends,))], {})) == 1


def test_every_conflict_is_told_at_once() -> None:
    """The operator reads all of them, not the first."""
    pools = [
        Pool("a", ((100, 200), (150, 160))),
        Pool("b", ((200, 300),)),
        Pool("b", ((400, 400),)),
    ]
    reservations = {Use("d", "x"): 100, Use("d", "y"): 100, Use("d", "z"): 0}
    found = conflicts(pools, reservations)
    assert found == [
        "150-160 of pool a overlaps 100-200 of pool a",
        "200-300 of pool b overlaps 100-200 of pool a",
        "2 pools are named b",
        "port 100 is reserved for d/x and for d/y",
        "port 0 is reserved for d/z: 1 to 65535 wanted",
    ]


def test_what_fits_has_no_conflicts() -> None:
    """Reservations may lie inside a range, outside of all, and pools may be empty."""
    pools = [Pool("a", ((100, 200),)), Pool("b", ())]
    assert conflicts(pools, {Use("d", "x"): 150, Use("d", "y"): 5010}) == []


def test_grace_is_never_shorter_than_the_quarantine() -> None:
    """A pool that keeps nothing for absent devices still waits for them after a restart."""
    assert Pool("a", (), quarantine=60, sticky=0).grace == 60
    assert Pool("a", (), quarantine=60, sticky=3600).grace == 3600
