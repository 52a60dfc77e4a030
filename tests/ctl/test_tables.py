"""What people read: units, ages, aligned columns, and nothing that a terminal would obey."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ctl.tables import age, clean, few, listed, size, table, trip, wall_seconds
from revtunnel.process.admin.operation_form import Column, Kind


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (3 * 1024**3, "3.0 GiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    """Whole bytes below a KiB, one decimal above, never 1024 of a unit."""
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (-3, "0s"),
        (59.9, "59s"),
        (60, "1m00s"),
        (3599, "59m59s"),
        (3600, "1h00m"),
        (86399, "23h59m"),
        (1_000_000, "11d13h"),
    ],
)
def test_ages(seconds: float | None, text: str) -> None:
    """Two units at most; a clock that went back does not show a negative age."""
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "-"), (0.000_42, "0.42 ms"), (0.018, "18 ms"), (1.26, "1.3 s")]
)
def test_round_trips(seconds: float | None, text: str) -> None:
    """Milliseconds below a second, with decimals only where they tell something."""
    assert trip(seconds) == text


def test_wall_times_are_read() -> None:
    """The form that the server writes; anything else is no time, and no crash."""
    assert wall_seconds("1970-01-01T00:01:00Z") == 60.0
    assert wall_seconds("yesterday") is None


def test_columns_are_aligned() -> None:
    """Numbers to the right where asked, an empty cell shows, no blanks at the end of a line."""
    lines = table(("NAME", "BYTES", "NOTE"), [("a", "1", ""), ("longer", "1000", "x")], right="BYTES")
    assert lines == [
        "NAME    BYTES  NOTE",
        "a           1  -",
        "longer   1000  x",
    ]


def test_what_a_row_does_not_have_is_a_dash() -> None:
    """A remote session has no port."""
    assert table(("SERIAL", "PORT", "USER"), [("plc-7", None, "")]) == [
        "SERIAL  PORT  USER",
        "plc-7   -     -",
    ]


@pytest.mark.parametrize("kind", [Kind.NUMBER, Kind.TEXT])
def test_what_a_row_of_a_listing_does_not_have_is_a_dash(kind: Kind) -> None:
    """Python's word for that is nobody's business."""
    columns = [Column("serial", Kind.TEXT, "", "SERIAL"), Column("port", kind, "", "PORT")]
    assert listed(columns, [{"serial": "plc-7", "port": None}])[1].split() == ["plc-7", "-"]


def test_a_long_list_is_cut_in_a_cell() -> None:
    """Four entries and how many more there are."""
    assert few(["a", 2]) == "a, 2"
    assert few(range(10)) == "0, 1, 2, 3, +6"


@given(st.text())
def test_nothing_reaches_a_terminal_as_control(text: str) -> None:
    """Escapes, bells, line ends, direction marks, lone surrogates: all of them become plain characters."""
    assert all(each.isprintable() for each in clean(text))


def test_escaping_can_be_told_from_the_text_itself() -> None:
    """A device that calls itself backslash-n is not one with a line end in its name."""
    assert clean("a\x1b[2J\nb") == "a\\x1b[2J\\nb"
    assert clean("a\\n") == "a\\\\n"
    assert clean("Gerät 7") == "Gerät 7"
