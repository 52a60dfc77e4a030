"""Requests to the CAMEO server: their type, what is refused and how, which answers are rewritten."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.systems.cameo.cameo_requests import (
    LARGEST,
    PORT_QUESTIONS,
    READ_ONLY,
    UNREADABLE,
    refusal,
    request_type,
    translated,
)
from revtunnel.systems.cameo.zmtp_messages import encode_message, split_frames

PORTS = {10000: 21000, 10001: 21001}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b'{"type":3}', 3),
        (b'{"name":"x","type" : 36, "value":{"type":4}}', 36),
        (b'{"\\u0074ype":3}', 3),
        (b'{"type":3,"type":1}', UNREADABLE),
        (b'{"type":"3"}', UNREADABLE),
        (b'{"type":3.0}', UNREADABLE),
        (b'{"type":true}', UNREADABLE),
        (b'{"type":-3}', UNREADABLE),
        (b'{"Type":3}', UNREADABLE),
        (b"[3]", UNREADABLE),
        (b'[{"type":3}]', UNREADABLE),
        (b"", UNREADABLE),
        (b"\xff\xfe", UNREADABLE),
        ('{"type":3}'.encode("utf-16"), UNREADABLE),
        (b'\xef\xbb\xbf{"type":3}', UNREADABLE),
        (b"[" * 100_000, UNREADABLE),
        (b'{"type":3,"x":"' + b"x" * LARGEST + b'"}', UNREADABLE),
    ],
)
def test_type_of_a_request(text: bytes, kind: int) -> None:
    """Only what every reader understands alike has a type."""
    assert request_type(encode_message([text, b"data"])) == kind


@given(st.binary(max_size=50))
def test_random_requests_do_no_harm(text: bytes) -> None:
    """Anything else has none."""
    assert request_type(encode_message([text])) == UNREADABLE
    rest = encode_message([text])
    assert translated(rest, 36, PORTS) == rest


def test_refusals_are_understood_by_callers_and_never_taken_for_a_port() -> None:
    """START and STOP raise the message of -1; a question for a port gets no answer."""
    for kind in READ_ONLY - PORT_QUESTIONS:
        answer = refusal(kind)
        assert answer is not None
        assert json.loads(split_frames(answer)[0]) == {"value": -1, "message": f"refused: request {kind}"}
    assert {3, 4} <= READ_ONLY - PORT_QUESTIONS
    for kind in (*PORT_QUESTIONS, UNREADABLE):
        assert refusal(kind) is None


@pytest.mark.parametrize("kind", [17, 36])
def test_ports_of_the_relays_are_translated(kind: int) -> None:
    """The value changes, everything else stays, further frames too."""
    answer = encode_message([b'{"message":"OK","value":10001,"list":[{"a":1}]}', b"more"])
    first, second = split_frames(translated(answer, kind, PORTS))
    assert json.loads(first) == {"message": "OK", "value": 21001, "list": [{"a": 1}]}
    assert second == b"more"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b'{"message":"OK","value":10000}', 13),
        (b'{"message":"OK","value":10000}', None),
        (b'{"message":"OK","value":10002}', 36),
        (b'{"message":"OK","value":"10000"}', 36),
        (b'{"message":"OK","value":true}', 36),
        (b'{"message":"OK"}', 36),
        (b"no json", 36),
    ],
)
def test_everything_else_passes_byte_for_byte(text: bytes, kind: int | None) -> None:
    """Other questions, ports that are not in the map, answers that have none."""
    answer = encode_message([text])
    assert translated(answer, kind, PORTS) is answer
