"""Pages: so many rows, a cursor where there is more, and no row made that is on no page."""

import pytest

from revtunnel.ground.serials import parse_serial
from revtunnel.process.admin.operation_form import PAGE
from revtunnel.process.admin.paging import most, page
from revtunnel.process.admin.refusals import Invalid, valid


@pytest.mark.parametrize(
    ("there", "limit", "rows", "cursor"),
    [
        (0, 2, 0, None),
        (2, 2, 2, None),
        (3, 2, 2, 1),
        (3, 0, 1, 0),
        (3, -5, 1, 0),
        (PAGE, 9_999, PAGE, None),
        (PAGE + 1, 9_999, PAGE, PAGE - 1),
    ],
)
def test_a_page(there: int, limit: int, rows: int, cursor: int | None) -> None:
    """Its size is 1 to PAGE, whatever is asked for; the cursor is that of its last row."""
    made: list[int] = []
    found, behind = page(range(there), limit, lambda each: made.append(each) or each)  # type: ignore[func-returns-value]
    assert (found, behind) == ([*range(rows)], cursor)
    assert len(made) == rows <= most(limit)


def test_a_place_that_is_not_the_thing() -> None:
    """As ``place`` says it."""
    assert page("abc", 2, str.upper, lambda each: (each, 0)) == (["A", "B"], ("b", 0))


def test_a_wrong_argument_is_refused_in_its_parsers_words() -> None:
    """Whatever the parser raises for it."""
    assert valid(parse_serial, "plc-7") == "plc-7"
    with pytest.raises(Invalid, match="serial"):
        valid(parse_serial, "")
    with pytest.raises(Invalid, match="invalid literal"):
        valid(int, "x")
