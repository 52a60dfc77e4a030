"""What one who watches says to a screen: what could be a key or a pointer is dropped, in whatever pieces."""

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.systems.sessions.rfb_watching import RfbWatching, is_screen

BEGIN = b"RFB 003.008\n\x01\x00"
WITH_PASSWORD = b"RFB 003.007\n\x02" + bytes(range(16)) + b"\x00"
PASS = {
    "format": b"\x00" + bytes(19),
    "encodings": b"\x02\x00\x00\x03" + bytes(12),
    "picture": b"\x03" + bytes(9),
    "continuous": b"\x96\x01" + bytes(8),
    "fence": b"\xf8" + bytes(7) + b"\x05hello",
}
DROP = {
    "key": b"\x04\x01\x00\x00" + struct.pack("!I", 0xFF0D),
    "pointer": b"\x05\x01\x00\x09\x00\x09",
    "clipboard": b"\x06\x00\x00\x00\x00\x00\x00\x04text",
    "large clipboard": b"\x06\x00\x00\x00" + struct.pack("!i", -8) + bytes(8),
    "power": b"\xfa\x00\x01\x02",
    "size": b"\xfb\x00\x00\x09\x00\x09\x01\x00" + bytes(16),
    "scan code": b"\xff\x00" + bytes(10),
}
ALL = PASS | DROP


def watched(version: bytes = b"RFB 003.008\n") -> RfbWatching:
    """Of a screen that has said its version, in two pieces, and more."""
    found = RfbWatching()
    for piece in (version[:5], version[5:], b"\x01\x01"):
        found.heard(piece)
    return found


@given(
    st.sampled_from([BEGIN, WITH_PASSWORD]),
    st.lists(st.sampled_from(sorted(ALL)), max_size=12),
    st.lists(st.integers(1, 9), min_size=1, max_size=5),
)
def test_only_what_asks_for_pictures_goes_on(begin: bytes, names: list[str], sizes: list[int]) -> None:
    """And nobody else is sent away for it: the last byte of the beginning says so."""
    data = begin + b"".join(ALL[name] for name in names)
    watching, out, at, turn = watched(), b"", 0, 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        out += watching.take(data[at : at + size])
        at, turn = at + size, turn + 1
    assert out == begin[:-1] + b"\x01" + b"".join(PASS.get(name, b"") for name in names)


@pytest.mark.parametrize(
    "data",
    [
        b"RFB 003.003\n",
        b"GET / HTTP/1",
        b"RFB 003.008\n\x13",
        BEGIN + b"\x07",
        BEGIN + b"\xff\x01",
        BEGIN + PASS["picture"] + b"\xfc",
    ],
)
def test_what_is_not_known_is_a_fault(data: bytes) -> None:
    """It could be a key."""
    with pytest.raises(ValueError, match=r"wanted|not known"):
        watched().take(data)


@pytest.mark.parametrize(
    "version", [b"", b"RFB 003.00", b"RFB 003.003\n", b"RFB 003.005\n", b"SSH-2.0-x\r\n"]
)
def test_a_screen_of_another_version_reads_the_same_bytes_otherwise(version: bytes) -> None:
    """So nothing goes there: with 3.3 the padding of a message could be a key."""
    with pytest.raises(ValueError, match="of the screen"):
        watched(version).take(BEGIN)
    for good in (b"RFB 003.008\n", b"RFB 003.889\n", b"RFB 004.001\n"):
        assert watched(good).take(BEGIN)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """No more comes out than went in, and nothing but a fault is raised."""
    for begin in (b"", BEGIN):
        with contextlib.suppress(ValueError):
            assert len(watched().take(begin + data)) <= len(begin + data)


def test_what_a_screen_is_called() -> None:
    """As the page decides it."""
    assert [is_screen(each) for each in ("vnc", "VNC-2", "console", "novnc")] == [True, True, False, False]
