"""What a person types in answer to a question."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.systems.sessions.typed_lines import MOST, GivenUp, Typed, TypedLines


def asked(echo: bool = True) -> TypedLines:
    """With a question."""
    lines = TypedLines()
    assert lines.ask(echo) == Typed("", None)
    return lines


@pytest.mark.parametrize(
    ("data", "shown", "answer"),
    [
        (b"ana\r", "ana\r\n", "ana"),
        (b"anb\x7fa\n", "anb\b \ba\r\n", "ana"),
        (b"\x7f\bx\r", "x\r\n", "x"),
        (b"wrong\x15ana\r", "wrong" + "\b \b" * 5 + "ana\r\n", "ana"),
        ("zoë\r".encode(), "zoë\r\n", "zoë"),
        (b"a\x1b[A\x00b\xff\r", "a[Ab\ufffd\r\n", "a[Ab\ufffd"),
        (b"\r", "\r\n", ""),
    ],
)
def test_a_line(data: bytes, shown: str, answer: str) -> None:
    """As the screen has it, and as it is meant; without an echo nothing of it shows; in any pieces."""
    assert asked().take(data) == Typed(shown, answer)
    assert asked(echo=False).take(data) == Typed("\r\n", answer)
    lines, seen = asked(), ""
    for byte in data:
        typed = lines.take(bytes((byte,)))
        seen += typed.shown
    assert (seen, typed.answer) == (shown, answer)


@pytest.mark.parametrize("byte", [b"\x03", b"\x04"])
def test_giving_up(byte: bytes) -> None:
    """By Ctrl-C and Ctrl-D, also ahead."""
    with pytest.raises(GivenUp):
        asked().take(b"an" + byte)
    lines = TypedLines()
    lines.keep(byte)
    with pytest.raises(GivenUp):
        lines.ask(True)


def test_what_is_typed_ahead() -> None:
    """It answers the next questions; the rest is for whoever comes then."""
    lines = asked()
    assert lines.take(b"ana\rsecret\rls") == Typed("ana\r\n", "ana")
    assert lines.ask(False) == Typed("\r\n", "secret")
    lines.keep(b" -l\r")
    assert (lines.rest(), lines.rest()) == (b"ls -l\r", b"")
    lines.keep(b"x" * 2 * MOST)
    assert len(lines.rest()) == MOST


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_any_bytes(pieces: list[bytes]) -> None:
    """Nothing that moves the cursor elsewhere is shown, and nothing is without a limit."""
    lines = asked()
    for piece in pieces:
        try:
            typed = lines.take(piece)
        except GivenUp:
            return
        assert "\x1b" not in typed.shown
        assert len(typed.answer or "") <= MOST
        if typed.answer is not None:
            lines = asked()
