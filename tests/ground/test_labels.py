"""Labels: what is one."""

import pytest

from revtunnel.ground.labels import parse_label


@pytest.mark.parametrize("text", ["hall-b", "line=3", "L" * 32 + "=" + "v" * 64, "a.b_c-d=1.2"])
def test_labels(text: str) -> None:
    """A name, or a name and a value."""
    assert parse_label(text) == text


@pytest.mark.parametrize(
    "text", ["", "=", "line=", "=3", "a=b=c", "a b", "ä", "a\n", "L" * 33, "a=" + "v" * 65, "a*", "a:b"]
)
def test_what_is_no_label_is_shown_escaped_and_cut(text: str) -> None:
    """With what is wanted."""
    with pytest.raises(ValueError, match=r"^label '[\x20-\x7e]{0,130}': NAME or NAME=VALUE wanted"):
        parse_label(text)
