"""Runs of publications and room for images: the same messages as one by one. The plain ones: test_zmtp.py."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revtunnel.ground.errors import RemoteError
from revtunnel.systems.cameo.zmtp_messages import (
    MAX_ROOM,
    MessageDecoder,
    ZmtpMessage,
    encode_message,
    split_frames,
    split_run,
)
from tests.support.depth import deep

MIB = 1024 * 1024
PING = bytes.fromhex("04 07 04 50494e47 0064")
publications = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([b"", b"a", b"ab", b"t" * 300]), st.binary(max_size=300)).map(list),
        st.lists(st.binary(max_size=3), min_size=1, max_size=3),
    ),
    max_size=12,
)


@given(publications, st.lists(st.integers(1, 900), min_size=1), st.booleans())
@settings(max_examples=deep(150), deadline=None)
def test_runs_are_the_same_messages(messages: list[list[bytes]], sizes: list[int], views: bool) -> None:
    """In any pieces, given as bytes or as a view whose bytes change afterwards; PINGs stand between them."""
    stream = b"".join(encode_message(each) + PING * (len(each) == 3) for each in messages)
    decoder, found, at = MessageDecoder(MIB, 64, runs=True), [], 0
    while at < len(stream):
        piece = bytearray(stream[at : at + sizes[len(found) % len(sizes)]])
        at += len(piece)
        for unit in decoder.units(memoryview(piece) if views else bytes(piece)):
            if isinstance(unit, ZmtpMessage):
                parts = split_run(unit.rest)
                assert len(parts) == unit.messages and all(split_frames(p)[:1] == unit.heads for p in parts)
                found += map(split_frames, parts)
        piece[:] = b"?" * len(piece)
    assert found == messages and decoder.held == 0


large = st.integers(0, 400_000).map(lambda size: random.Random(size).randbytes(size))


@given(
    st.lists(st.lists(st.one_of(st.binary(max_size=9), large), min_size=1, max_size=4), max_size=4),
    st.lists(st.integers(1, 150_000), min_size=1, max_size=4),
    st.integers(0, 3),
    st.booleans(),
)
@settings(max_examples=deep(60), deadline=None)
def test_large_frames_have_their_room(
    messages: list[list[bytes]], sizes: list[int], keep: int, into: bool
) -> None:
    """Whether what is missing is given as bytes or was put into the room, all of it or less at a time."""
    stream = b"".join(map(encode_message, messages))
    decoder, found, at, turn = MessageDecoder(1 << 30, 64, 2, keep), [], 0, 0
    while at < len(stream):
        piece = stream[at : at + sizes[turn % len(sizes)]]
        turn += 1
        if into and decoder.room is not None:
            piece = piece[: len(decoder.room)]
            decoder.room[: len(piece)] = piece
            found += decoder.filled(len(piece))
        else:
            found += decoder.units(memoryview(piece))
        at += len(piece)
        assert decoder.held <= at + MAX_ROOM
    assert decoder.held == 0 and decoder.room is None
    assert [split_frames(bytes(unit.rest)) for unit in found] == [each[keep:] for each in messages]
    assert [(unit.heads, unit.frames) for unit in found] == [(each[:2], len(each)) for each in messages]


@pytest.mark.parametrize(
    ("size", "roomy"), [(33_000, False), (33_100, True), (262_000, True), (300_000, False)]
)
def test_only_frames_of_some_size_have_room(size: int, roomy: bool) -> None:
    """A header alone must not cost memory that nobody has filled; so much of it counts as held."""
    decoder = MessageDecoder(1 << 30, 64)
    assert list(decoder.units(encode_message([bytes(size)])[:300])) == []
    assert (decoder.room is not None) is roomy
    assert decoder.held == (size + 9 if roomy else 300)


def test_a_run_ends_where_its_topic_does() -> None:
    """And before a message above the limit, which is refused behind it."""
    runs = [(b"a", 3), (b"ab", 1), (b"a", 2)]
    wire = b"".join(encode_message([topic, b"x" * 300]) * count for topic, count in runs)
    decoder = MessageDecoder(1000, 64, runs=True)
    units = [unit for unit in decoder.units(wire) if isinstance(unit, ZmtpMessage)]
    assert [(unit.heads[0], unit.messages) for unit in units] == runs
    found = []
    with pytest.raises(RemoteError, match="message of 1"):
        for unit in decoder.units(encode_message([b"a", b"x"]) + encode_message([b"a", b"x" * 1000])):
            found.append(unit)
    assert [unit.heads for unit in found if isinstance(unit, ZmtpMessage)] == [[b"a"]]
