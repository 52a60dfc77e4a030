"""Boxes on the wire, held against Twisted's own AMP; arguments and what is wrong with them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols import amp

from revtunnel.process.admin.admin_boxes import packed, read, unpacked, written
from revtunnel.process.admin.operation_form import Argument, Kind
from revtunnel.process.admin.refusals import Invalid

BOXES = st.lists(
    st.dictionaries(st.binary(min_size=1, max_size=255), st.binary(max_size=300), min_size=1, max_size=5),
    max_size=5,
)


@given(BOXES, st.integers(1, 40))
def test_boxes_are_those_of_twisted(boxes: list[dict[bytes, bytes]], step: int) -> None:
    """Ours are read by it, and its own by us, however they are cut."""
    ours = b"".join(packed(box) for box in boxes)
    assert [dict(each) for each in amp.parseString(ours)] == boxes
    sent = b"".join(amp.AmpBox(box).serialize() for box in boxes)
    received, found = bytearray(), []
    for start in range(0, len(sent), step):
        received += sent[start : start + step]
        while (box := unpacked(received)) is not None:
            found.append(box)
    assert (found, received) == (boxes, b"")


def test_a_box_that_is_too_long_is_known_before_it_is_whole() -> None:
    """A name above 255 bytes; names and values above what is allowed; at the limit it is a box."""
    with pytest.raises(ValueError, match="too long"):
        unpacked(bytearray(b"\x01\x00"))
    with pytest.raises(ValueError, match="too long"):
        unpacked(bytearray(b"\x00\x01k\x00\x64"), 100)
    whole = packed({b"k": b"v" * 99})
    assert unpacked(bytearray(whole), 100) == {b"k": b"v" * 99}
    assert unpacked(bytearray(whole[:-1]), 100) is None
    with pytest.raises(Invalid):
        packed({b"k": b"v" * 65_536})


FIELDS = (
    Argument("text", optional=True),
    Argument("number", Kind.NUMBER, optional=True, high=9),
    Argument("truth", Kind.YES_NO, optional=True),
    Argument("raw", Kind.RAW, optional=True),
)


@given(
    st.none() | st.text(max_size=20), st.none() | st.integers(0, 9), st.none() | st.booleans(),
    st.none() | st.binary(max_size=20),
)  # fmt: skip
def test_what_is_written_is_read(
    text: str | None, number: int | None, truth: bool | None, raw: bytes | None
) -> None:
    """Each kind, and nothing in place of nothing."""
    values = {"text": text, "number": number, "truth": truth, "raw": raw}
    assert read(FIELDS, written(values)) == values


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ({}, "serial is missing"),
        ({b"serial": b"\xff"}, r"serial b'\\xff': text wanted"),
        ({b"serial": b"x", b"number": b"many"}, "number b'many': number wanted"),
        ({b"serial": b"x", b"number": b"10"}, "number 10: 0 to 9 wanted"),
        ({b"serial": b"x", b"number": b"-1"}, "number -1: 0 to 9 wanted"),
        ({b"serial": b"x", b"truth": b"true"}, "truth b'true': yes or no wanted"),
    ],
)
def test_wrong_arguments_say_what_and_where(box: dict[bytes, bytes], text: str) -> None:
    """The name, the value cut and escaped, and what is wanted."""
    with pytest.raises(Invalid, match=text):
        read((Argument("serial"), *FIELDS), box)
