"""SERVICE's payload: every state comes through, and nothing else is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import ServiceDown, ServiceUp
from revtunnel.streams.service_state import ServiceState, decode_service, encode_service

STATES = st.builds(
    ServiceState,
    st.from_regex(r"[A-Za-z0-9._-]{1,32}", fullmatch=True),
    st.booleans(),
    st.text(st.characters(categories=("L", "N")), max_size=50),
)


@given(STATES)
def test_every_state_comes_through(state: ServiceState) -> None:
    """Name, state and text."""
    assert decode_service(encode_service(state)) == state


@pytest.mark.parametrize(
    "payload", [b"", b"\1", b"\2\4http", b"\1\5http", b"\1\0", b"\1\4ht p", b"\1\x21" + b"a" * 33]
)
def test_what_is_none(payload: bytes) -> None:
    """Cut, neither up nor down, no name or one that no offer can have."""
    with pytest.raises(RemoteError, match="SERVICE of"):
        decode_service(payload)


@given(st.binary(max_size=240))
def test_bytes_are_a_state_or_an_error(payload: bytes) -> None:
    """Nothing else comes out, and what is said is safe to log."""
    try:
        state = decode_service(payload)
    except RemoteError:
        return
    assert state.detail.isprintable() or not state.detail


def test_long_words_are_cut() -> None:
    """At whole characters."""
    assert decode_service(encode_service(ServiceState("a", False, "\u00e9" * 300))).detail == "\u00e9" * 100


def test_a_fact_for_each() -> None:
    """One word for each."""
    assert ServiceState("http", True, "answers 200").fact("plc-7") == ServiceUp(
        "plc-7", "http", "answers 200"
    )
    assert ServiceState("http", False, "no").fact("plc-7") == ServiceDown("plc-7", "http", "no")
