"""The benchmark of many devices: it measures what its tables say, over real objects and real links."""

import pytest

from benchmarks import fleet


def test_one_process_gives_every_figure() -> None:
    """Of a small herd; nothing is judged, but nothing is missing either."""
    figures = fleet.inside(60)
    assert set(figures) == set(fleet.INSIDE)
    free = ("collection_ms", "arrival_collection_ms", "memory_kib")  # may be nothing for so few
    assert all(value > 0 for key, value in figures.items() if key not in free)


def test_a_table_has_a_column_for_each_size() -> None:
    """Figures are written as short as they can be read."""
    text = fleet.table(
        {"a": "first", "b": "second"}, {10: {"a": 1234.5, "b": 0.01234}, 2000: {"a": 56.78, "b": 9.0}}
    )
    assert (
        text
        == "|  | 10 | 2,000 |\n| --- | ---: | ---: |\n| first | 1,234 | 56.8 |\n| second | 0.0123 | 9 |\n"
    )


@pytest.mark.long
@pytest.mark.slow
def test_real_links_give_every_figure() -> None:
    """A server, thirty agents, the probe, and every command."""
    figures = fleet.outside(30, 0.2)
    assert set(figures) == set(fleet.OUTSIDE)
