"""The arithmetic of the benchmark's report, on figures made up here."""

from __future__ import annotations

import pytest

from benchmarks import table

PASSES = [
    {
        "direct": {"up_1": 4000.0},
        "haproxy x2": {"up_1": 1000.0, "ping_p50": 90.0},
        "bore": {"ping_p50": 60.0},
    },
    {
        "direct": {"up_1": 3000.0},
        "haproxy x2": {"up_1": 1500.0, "ping_p50": 80.0},
        "bore": {"ping_p50": 70.0},
    },
    {"direct": {"up_1": 5000.0}, "haproxy x2": {"up_1": 1100.0}, "bore": {"ping_p50": 65.0}},
]


def test_medians_skip_the_passes_without_a_figure() -> None:
    """A row that failed in one pass still has a median of the others."""
    middle = table.medians(PASSES)
    assert middle["direct"] == {"up_1": 4000.0}
    assert middle["haproxy x2"] == {"up_1": 1100.0, "ping_p50": 85.0}
    assert list(middle) == ["direct", "haproxy x2", "bore"]


def test_a_sum_is_made_in_each_pass_before_the_median() -> None:
    """Medians of parts do not add up to the median of the whole."""
    parts = [(1.0, 9.0), (2.0, 1.0), (3.0, 2.0)]
    passes = [{"a": {"idle_pss_server": server, "idle_pss_agent": agent}} for server, agent in parts]
    assert table.medians(passes)["a"]["idle_pss"] == 5.0


def test_no_sum_without_all_of_its_parts() -> None:
    """A system whose agent was not measured has no total that looks cheap."""
    assert "idle_pss" not in table.medians([{"a": {"idle_pss_server": 1.0}}])["a"]


def test_spread_is_relative_to_the_median_and_needs_two_passes() -> None:
    """One pass says nothing about noise."""
    assert table.spreads(PASSES)["direct"]["up_1"] == pytest.approx(0.5)
    assert table.spreads(PASSES[:1]) == {"direct": {}, "haproxy x2": {}, "bore": {}}


def test_best_peer_is_the_largest_rate_and_the_smallest_delay() -> None:
    """Neither the direct connection nor our own rows are peers."""
    best = table.best_peers(table.medians(PASSES), ["haproxy x2", "bore", "absent"])
    assert best["up_1"] == ("haproxy x2", 1100.0)
    assert best["ping_p50"] == ("bore", 65.0)
    assert "connect_1" not in best


def test_ratios_leave_out_what_either_side_lacks() -> None:
    """No ratio to nothing, and none to zero."""
    middle = table.medians(PASSES)
    assert table.ratios(middle, middle["direct"])["haproxy x2"] == {"up_1": 0.275}
    assert table.ratios(middle, {"up_1": 0.0}) == {"direct": {}, "haproxy x2": {}, "bore": {}}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.00123, "0.00123"),
        (0.5, "0.500"),
        (99.96, "100"),
        (6789.4, "6,789"),
        (-19.1, "-19.1"),
    ],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    """Wide enough to compare, narrow enough for a table."""
    assert table.number(value) == text


def test_the_report_shows_missing_figures_and_remarks() -> None:
    """A reader sees what was not measured, and why."""
    middle = table.medians(PASSES)
    text = table.markdown(
        middle, table.spreads(PASSES), ["haproxy x2", "bore"], "direct", {"cores": 2}, ["not measured: frp"]
    )
    assert "| bore | – / – |" in text
    assert "- cores: 2\n" in text
    assert text.endswith("- not measured: frp\n")
    widths = [line.count("|") for line in text.split("\n") if line.startswith("| system | up 1 / 16")]
    assert widths == [len(table.WIDE) + 1]
