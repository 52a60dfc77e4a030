"""The registration line: whatever its pieces, the serial and the payload behind it come out alike."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.errors import RemoteError
from revtunnel.systems.cccp.registration import MAX_LINE, RegistrationDecoder, parse_registered

SERIALS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=64).filter(
    lambda text: "." not in text
)


def feed(data: bytes, size: int, swallow_lf: bool = False) -> RegistrationDecoder:
    """A decoder that was given ``data`` in pieces."""
    decoder = RegistrationDecoder(swallow_lf)
    for start in range(0, len(data), size):
        decoder.receive(data[start : start + size])
    return decoder


@given(SERIALS, st.binary(max_size=200), st.integers(1, 300))
def test_r5_serial_and_payload_in_any_pieces(serial: str, payload: bytes, size: int) -> None:
    """The first payload byte is the one behind the CR; nothing is lost or made up."""
    decoder = feed(serial.encode() + b"\r" + payload, size)
    assert decoder.serial == serial
    assert decoder.take() == (payload, False)


@pytest.mark.parametrize("size", [1, 100])
def test_the_example_of_the_document(size: int) -> None:
    """CLD-123456 and a return."""
    decoder = feed(b"CLD-123456\r", size)
    assert decoder.serial == "CLD-123456"
    assert decoder.take() == (b"", False)


@pytest.mark.parametrize(
    ("sent", "swallow", "left"),
    [
        (b"A\r\n", False, (b"\n", False)),
        (b"A\r\nx", True, (b"x", False)),
        (b"A\r\n\n", True, (b"\n", False)),
        (b"A\rx\n", True, (b"x\n", False)),
        (b"A\r", True, (b"", True)),
        (b"A\r\r", False, (b"\r", False)),
    ],
)
def test_r4_a_line_feed_is_payload_unless_it_is_swallowed(
    sent: bytes, swallow: bool, left: tuple[bytes, bool]
) -> None:
    """One LF directly behind the CR goes where the listener says so; all else is passed on."""
    decoder = feed(sent, len(sent), swallow)
    assert (decoder.serial, decoder.take()) == ("A", left)


@pytest.mark.parametrize(
    "sent",
    [
        b"\r",
        b"a b\r",
        b" a\r",
        b"a \r",
        b"a\x00\r",
        b"../x\r",
        b"..\r",
        b"\x1b[2J\r",
        b"\xc3\xa9\r",
        b"CLD-1\n\r",
    ],
)
def test_r6_what_is_no_serial(sent: bytes) -> None:
    """Refused, and shown escaped."""
    with pytest.raises(RemoteError) as caught:
        feed(sent, 1)
    assert str(caught.value).isprintable() and str(caught.value).isascii()


@pytest.mark.parametrize("size", [1, 65, 1 << 20])
def test_r3_no_return_in_65_bytes(size: int) -> None:
    """64 characters are a serial, 65 bytes without a CR are none; no more is held."""
    assert feed(b"x" * MAX_LINE + b"\r", size).serial == "x" * MAX_LINE
    with pytest.raises(RemoteError, match="no return"):
        feed(b"x" * (1 << 20 if size > 65 else 65), size)
    with pytest.raises(RemoteError):
        feed(b"x" * 65 + b"\r", 66)


def test_case_and_slashes_stay() -> None:
    """Serials differ by case; a slash alone is no path step."""
    assert parse_registered("Cld/1") == "Cld/1" != parse_registered("cld/1")
