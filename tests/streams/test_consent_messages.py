"""What is said about sessions, byte for byte: the page's, every value there and back, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.errors import RemoteError
from revtunnel.streams.commands import MAX_SIZE, Command
from revtunnel.streams.consent_messages import (
    MAX_SERVICES,
    ConsentRequest,
    decode_consent,
    decode_session,
    encode_asked,
    encode_consent,
    encode_over,
)
from revtunnel.streams.frames import encode_frame
from tests.link.test_handshake import exchange
from tests.support.vectors import FRAMES

ID = bytes(range(16)).hex()
RAW = bytes(range(16))
ANA = ConsentRequest(ID, "ana", ("ssh",))
PAYLOAD = {vector.name: vector.payload for vector in FRAMES}
USERS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", fullmatch=True)
SERVICES = st.from_regex(r"[A-Za-z0-9._][A-Za-z0-9._-]{0,31}", fullmatch=True)
IDS = st.binary(min_size=16, max_size=16).map(bytes.hex)


def entry(kind: int, value: bytes) -> bytes:
    """One of a SESSION."""
    return bytes((kind, len(value))) + value


def test_golden_bytes() -> None:
    """Those of the page, both ways."""
    assert encode_asked(ANA) == PAYLOAD["SESSION for ana, ssh"]
    assert decode_session(PAYLOAD["SESSION for ana, ssh"]) == ANA
    assert encode_over(ID) == PAYLOAD["SESSION over"]
    assert decode_session(PAYLOAD["SESSION over"]) == ID
    assert encode_consent(ID, False, "no") == PAYLOAD["CONSENT no"]
    assert decode_consent(PAYLOAD["CONSENT no"]) == (ID, False, "no")
    assert decode_consent(PAYLOAD["CONSENT yes"]) == (ID, True, "")


def test_the_page_s_exchange() -> None:
    """What the page shows of a session is what is encoded."""
    assert exchange("about a session") == [
        ("server", encode_frame(Command.SESSION, 0, encode_asked(ANA))),
        ("agent", encode_frame(Command.CONSENT, 0, encode_consent(ID, False, "no"))),
        ("agent", encode_frame(Command.CONSENT, 0, encode_consent(ID, True))),
        ("server", encode_frame(Command.WITHIN, 5, RAW)),
        ("server", encode_frame(Command.SESSION, 0, encode_over(ID))),
    ]


@given(IDS, USERS, st.lists(SERVICES, min_size=1, max_size=MAX_SERVICES, unique=True), st.booleans())
def test_every_question_comes_as_it_went(session: str, user: str, services: list[str], known: bool) -> None:
    """And the longest one fits into a frame of its size."""
    asked = ConsentRequest(session, user, tuple(services), "[2001:db8::1]:65535" if known else "")
    payload = encode_asked(asked)
    assert len(payload) <= MAX_SIZE[Command.SESSION]
    assert decode_session(payload) == asked
    for size in range(len(payload)):  # no part of it is another question
        try:
            assert decode_session(payload[:size]) != asked
        except RemoteError:
            continue


@given(IDS, st.booleans(), st.text(max_size=300))
def test_every_answer_comes_as_it_went(session: str, yes: bool, why: str) -> None:
    """Its text cut, and without what a terminal would obey."""
    payload = encode_consent(session, yes, why)
    assert len(payload) <= MAX_SIZE[Command.CONSENT]
    found = decode_consent(payload)
    assert found[:2] == (session, yes)
    assert found[2].isprintable()


@given(st.binary(max_size=80))
def test_any_bytes_are_read_or_refused(payload: bytes) -> None:
    """In no other way than by RemoteError, with a short text."""
    for read in (decode_session, decode_consent):
        try:
            read(payload)
        except RemoteError as error:
            assert len(str(error)) < 300


@pytest.mark.parametrize(
    "entries",
    [
        b"",
        entry(1, b"ana"),
        entry(2, b"ssh"),
        entry(1, b"ana") + entry(1, b"ben") + entry(2, b"ssh"),
        entry(1, b"-rf") + entry(2, b"ssh"),
        entry(1, b"a b") + entry(2, b"ssh"),
        entry(1, b"$(reboot)") + entry(2, b"ssh"),
        entry(1, "änne".encode()) + entry(2, b"ssh"),
        entry(1, b"") + entry(2, b"ssh"),
        entry(1, b"x" * 65) + entry(2, b"ssh"),
        entry(1, b"ana") + entry(2, b"-v"),
        entry(1, b"ana") + entry(2, b"ssh;id"),
        entry(1, b"ana") + entry(2, b"ssh") + entry(3, b"-x"),
        entry(1, b"ana") + entry(2, b"ssh") + entry(3, b"1.2.3.4") + entry(3, b"1.2.3.5"),
        entry(1, b"ana") + b"".join(entry(2, b"s%d" % number) for number in range(65)),
        entry(1, b"ana") + b"\2\5ssh",
    ],
)
def test_names_that_are_none_are_refused(entries: bytes) -> None:
    """They may become words of a command line: no blank, no option, no sign of a shell."""
    with pytest.raises(RemoteError, match=r"SESSION|HELLO is cut"):
        decode_session(b"\1" + RAW + entries)


def test_an_address_that_cannot_be_said_is_not() -> None:
    """The site is asked all the same."""
    assert decode_session(encode_asked(ANA._replace(address="/run/a socket"))) == ANA


def test_what_is_not_known_is_skipped() -> None:
    """A later version may say more."""
    later = entry(9, b"\xff") + entry(1, b"ana") + entry(200, b"") + entry(2, b"ssh")
    assert decode_session(b"\1" + RAW + later) == ANA
    assert decode_session(b"\2" + RAW + b"later") == ID


@pytest.mark.parametrize("payload", [b"", b"\1", b"\3" + RAW, b"\0" + RAW, b"\2" + RAW[:-1]])
def test_a_session_without_an_id_is_none(payload: bytes) -> None:
    """Nor one of another kind."""
    with pytest.raises(RemoteError, match="SESSION of"):
        decode_session(payload)


@pytest.mark.parametrize("payload", [b"", RAW, RAW + b"\2", RAW[:-1] + b"\1"])
def test_a_consent_that_is_neither_yes_nor_no(payload: bytes) -> None:
    """Is refused: nothing is taken for a yes."""
    with pytest.raises(RemoteError, match="CONSENT of"):
        decode_consent(payload)
