"""The grammar of serials."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.serials import MAX_SERIAL, parse_serial


@pytest.mark.parametrize("serial", ["plc-7", "CLD-123456", "a", "A.b_c:d-9", "x" * MAX_SERIAL])
def test_good_serials(serial: str) -> None:
    """A serial is returned as it came."""
    assert parse_serial(serial) == serial


@pytest.mark.parametrize(
    "serial",
    ["", " ", "plc 7", "plc-7\n", "plc-7\r", "../x", "x" * 65, "a/b", "é", "\x1b[2J", "٧", "x" * 10_000],
)
def test_bad_serials(serial: str) -> None:
    """Anything else is refused with a short line that is safe to log."""
    with pytest.raises(RemoteError) as caught:
        parse_serial(serial)
    assert str(caught.value).isprintable() and str(caught.value).isascii() and len(str(caught.value)) < 900


@given(st.text(max_size=70))
def test_f24_any_text_is_a_serial_or_a_remote_error(text: str) -> None:
    """Nothing else is raised."""
    with contextlib.suppress(RemoteError):
        assert parse_serial(text) == text and 1 <= len(text) <= MAX_SERIAL
