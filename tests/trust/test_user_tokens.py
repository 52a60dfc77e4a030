"""The written form of a user's token, and what is kept of it."""

import contextlib
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.trust.user_tokens import BadToken, UserToken, mark_of, parse_user_token, write_user_token

SECRET = bytes(range(32))
WRITTEN = "rtuser1_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"


@given(st.binary(min_size=32, max_size=32))
def test_a_token_is_read_as_it_was_written(secret: bytes) -> None:
    """Also with what comes along when it is pasted."""
    written = write_user_token(secret)
    assert len(written) == 51
    assert parse_user_token(written) == parse_user_token(f" {written}\r\n") == secret


def test_the_written_form_stays() -> None:
    """Those that were given are out there."""
    assert write_user_token(SECRET) == WRITTEN
    assert mark_of(SECRET) == hashlib.sha256(b"revtunnel user token" + SECRET).digest()


@pytest.mark.parametrize(
    "text",
    [
        *("", "rtuser1_", WRITTEN[:-1], WRITTEN + "A", WRITTEN.replace("rtuser1_", "rttok1_"), WRITTEN[8:]),
        *(WRITTEN[:20] + " " + WRITTEN[20:], WRITTEN[:20] + "!" + WRITTEN[21:], WRITTEN[:-1] + "ä"),
        WRITTEN[:-1] + "9",  # bits behind the last byte: the same secret, written otherwise
        "x" * 100_000,
    ],
)
def test_what_is_no_token_is_not_repeated(text: str) -> None:
    """It may be a secret; its length is said."""
    with pytest.raises(BadToken, match=r"^not a whole token: [0-9]+ characters") as caught:
        parse_user_token(text)
    assert caught.value.word == "malformed"
    assert text.strip()[8:] not in str(caught.value) or len(text) <= 8


@given(st.integers(0, 50), st.characters(min_codepoint=33, max_codepoint=126))
def test_a_character_that_is_another_one_is_another_secret(place: int, other: str) -> None:
    """Or none at all."""
    text = WRITTEN[:place] + other + WRITTEN[place + 1 :]
    if text == WRITTEN:
        return
    with contextlib.suppress(BadToken):
        assert parse_user_token(text) != SECRET


def test_a_token_is_called_by_the_beginning_of_its_hash() -> None:
    """Which says nothing of the secret."""
    assert UserToken(mark_of(SECRET), "ana", "", 0.0, 1.0).id == mark_of(SECRET).hex()[:12]
