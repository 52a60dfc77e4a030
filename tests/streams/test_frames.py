"""The frame codec: golden vectors, every way to cut them, limits, random bytes."""

import random
import tracemalloc
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.streams.commands import COMMANDS, EXACT_SIZE, MAX_SIZE
from revtunnel.streams.frames import (
    HEADER_SIZE,
    MAX_PAYLOAD,
    Frame,
    FrameDecoder,
    encode_frame,
    encode_header,
)
from tests.support.vectors import FRAMES, LEGACY, Vector

SMALL = [vector for vector in FRAMES if len(vector.wire) < 100]
STREAM = b"".join(vector.wire for vector in SMALL)
WHOLE = [Frame(vector.command, vector.channel, vector.payload) for vector in SMALL]


def lenient(size: int, command: int, channel: int) -> None:
    """A judge that takes everything."""


def strict(size: int, command: int, channel: int) -> None:
    """A judge such as a link has."""
    if command not in COMMANDS:
        raise RemoteError(f"unknown command {command}")
    if size != EXACT_SIZE.get(command, size) or size > MAX_SIZE.get(command, MAX_PAYLOAD):  # type: ignore[call-overload]
        raise RemoteError(f"payload of {size} bytes for command {command}")


def decoded(pieces: Iterable[bytes]) -> list[Frame]:
    """All frames of a stream that comes in these pieces."""
    decoder = FrameDecoder(lenient)
    found = []
    for piece in pieces:
        decoder.receive(piece)
        found += decoder.frames()
    assert decoder.held == 0
    return found


@pytest.mark.parametrize("vector", FRAMES, ids=lambda vector: vector.name)
def test_golden(vector: Vector) -> None:
    """Each vector decodes to what it says, and encodes to the same bytes."""
    assert decoded([vector.wire]) == [Frame(vector.command, vector.channel, vector.payload)]
    assert encode_frame(vector.command, vector.channel, vector.payload) == vector.wire
    assert encode_header(len(vector.payload), vector.command, vector.channel) == vector.wire[:HEADER_SIZE]


def test_golden_vectors_are_distinct_and_named_by_known_commands() -> None:
    """No vector stands for a command outside the table, and the legacy ones stay within the legacy four."""
    assert len({vector.wire for vector in FRAMES}) == len(FRAMES)
    assert {vector.command for vector in FRAMES} == COMMANDS
    assert {vector.command for vector in LEGACY} == {1, 2, 3, 4}


def test_f1_every_split_gives_the_same_frames() -> None:
    """One cut at every place of a stream of all small vectors changes nothing."""
    for at in range(len(STREAM) + 1):
        assert decoded([STREAM[:at], STREAM[at:]]) == WHOLE


def test_f1_byte_by_byte() -> None:
    """A dribble of single bytes gives the same frames, each as soon as its last byte is there."""
    decoder = FrameDecoder(lenient)
    found: list[Frame] = []
    ends = {sum(len(vector.wire) for vector in SMALL[: count + 1]) for count in range(len(SMALL))}
    for at in range(len(STREAM)):
        decoder.receive(STREAM[at : at + 1])
        new = list(decoder.frames())
        assert bool(new) == (at + 1 in ends)
        found += new
    assert found == WHOLE


def test_a_payload_in_crumbs_takes_little_more_than_its_bytes() -> None:
    """Two bytes at a time: an object for each would take 25 times what the payload does."""
    payload = random.Random(1).randbytes(60_000)
    wire, decoder = encode_frame(3, 1, payload), FrameDecoder(lenient)
    tracemalloc.start()
    for at in range(0, len(wire) - 2, 2):
        decoder.receive(wire[at : at + 2])
        assert list(decoder.frames()) == []
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert decoder.held == len(wire) - 2 and held < 2 * len(wire)
    decoder.receive(wire[-2:])
    assert list(decoder.frames()) == [Frame(3, 1, payload)]


def test_trailing_bytes_wait() -> None:
    """Bytes of the next frame are held, counted, and used when the rest comes."""
    decoder = FrameDecoder(lenient)
    decoder.receive(b"\x00\x00\x04\x00\x00\x05\x03\x01he")
    assert list(decoder.frames()) == [Frame(4, 0, b"")]
    assert decoder.held == 6 and list(decoder.frames()) == []
    decoder.receive(b"llo\x00")
    assert list(decoder.frames()) == [Frame(3, 1, b"hello")]
    assert decoder.held == 1


def test_f2_a_thousand_frames_are_cut_in_portions() -> None:
    """``most`` bounds the frames of one call, so that the caller can yield; the rest stays."""
    decoder = FrameDecoder(lenient)
    decoder.receive(b"\x00\x00\x03\x07" * 3000)
    sizes = []
    while portion := list(decoder.frames(1024)):
        sizes.append(len(portion))
    assert sizes == [1024, 1024, 952] and decoder.held == 0
    assert list(decoder.frames(0)) == []


def test_f2_an_abandoned_portion_loses_nothing() -> None:
    """A caller that stops in the middle of a portion finds the next frame in the next one."""
    decoder = FrameDecoder(lenient)
    decoder.receive(STREAM)
    found = [next(decoder.frames()) for _ in range(3)]
    decoder.receive(b"")
    assert found + list(decoder.frames()) == WHOLE


def test_what_is_not_cut_can_be_taken() -> None:
    """A stream may go on without frames behind one of them."""
    decoder = FrameDecoder(lenient)
    decoder.receive(b"\x00\x00\x13\x00SSH-2.0")
    assert list(decoder.frames(1)) == [Frame(0x13, 0, b"")]
    assert decoder.rest() == b"SSH-2.0"


def test_f4_largest_data() -> None:
    """65535 bytes are delivered whole, in whatever pieces they come; 65536 cannot be framed."""
    payload = bytes(range(256)) * 256
    wire = encode_frame(3, 9, payload[:65535])
    pieces = [wire[at : at + 1000] for at in range(0, len(wire), 1000)]
    assert decoded(pieces) == [Frame(3, 9, payload[:65535])]
    with pytest.raises(LocalError, match="65536"):
        encode_frame(3, 9, payload)


def test_a_header_is_judged_once_and_before_its_payload() -> None:
    """The judge sees size, command and channel as soon as the header is whole, and only then."""
    seen: list[tuple[int, int, int]] = []
    decoder = FrameDecoder(lambda *header: seen.append(header))
    for piece in (b"\x00\x05\x03", b"\x01", b"he", b"l", b"lo"):
        decoder.receive(piece)
        frames = list(decoder.frames())
    assert seen == [(5, 3, 1)] and frames == [Frame(3, 1, b"hello")]


def test_good_frames_before_a_bad_one_are_delivered() -> None:
    """The refusal comes after them, and without waiting for the bad frame's payload."""
    decoder = FrameDecoder(strict)
    decoder.receive(b"\x00\x05\x03\x01hello\x00\x00\x02\x01\xff\xff\x99\x00")
    frames: Iterator[Frame] = decoder.frames()
    assert [next(frames), next(frames)] == [Frame(3, 1, b"hello"), Frame(2, 1, b"")]
    with pytest.raises(RemoteError, match="unknown command 153"):
        next(frames)


def test_a_frame_over_its_limit_is_refused_from_its_header() -> None:
    """A judge's limit acts before the body: nothing of it has to be held."""
    decoder = FrameDecoder(strict)
    decoder.receive(b"\x00\x05\x16\x01")  # a WINDOW of five bytes
    with pytest.raises(RemoteError):
        list(decoder.frames())


def test_payloads_are_bytes_of_their_own() -> None:
    """A kept payload does not change when the decoder goes on."""
    decoder = FrameDecoder(lenient)
    decoder.receive(b"\x00\x05\x03\x01hello")
    (frame,) = decoder.frames()
    decoder.receive(b"\x00\x05\x03\x01other")
    list(decoder.frames())
    assert frame.payload == b"hello" and type(frame.payload) is bytes


FRAME = st.builds(Frame, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=300))


@settings(deadline=None)
@given(st.lists(FRAME, max_size=8), st.lists(st.integers(1, 40), min_size=1))
def test_round_trip_in_any_pieces(frames: list[Frame], sizes: list[int]) -> None:
    """Any frames, encoded and cut in any pieces, come back."""
    stream = b"".join(encode_frame(*frame) for frame in frames)
    pieces, turn = [], 0
    while stream:
        size = sizes[turn % len(sizes)]
        pieces.append(stream[:size])
        stream, turn = stream[size:], turn + 1
    assert decoded(pieces) == frames


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=10))
def test_f24_random_bytes_raise_nothing_but_remote_error(pieces: list[bytes]) -> None:
    """Garbage is refused with RemoteError or waits; no more than what came is held."""
    decoder = FrameDecoder(strict)
    try:
        for piece in pieces:
            decoder.receive(piece)
            for frame in decoder.frames():
                assert frame.command in COMMANDS
    except RemoteError:
        pass
    assert decoder.held <= sum(map(len, pieces))


@settings(deadline=None)
@given(st.binary(max_size=400), st.integers(0, 400))
def test_f24_cut_garbage_is_the_same_garbage(data: bytes, at: int) -> None:
    """Two pieces or one: the same frames, the same refusal."""

    def outcome(pieces: list[bytes]) -> tuple[list[Frame], str]:
        decoder = FrameDecoder(strict)
        found: list[Frame] = []
        try:
            for piece in pieces:
                decoder.receive(piece)
                found.extend(decoder.frames())
        except RemoteError as error:
            return found, str(error)
        return found, f"{decoder.held} held"

    assert outcome([data]) == outcome([data[:at], data[at:]])


@given(
    st.lists(st.integers(0, 3000), min_size=1, max_size=12),
    st.lists(st.integers(1, 4000), min_size=1, max_size=20),
    st.integers(1, 3),
)
@settings(deadline=None)
def test_f1_a_view_is_needed_until_it_is_kept(sizes: list[int], cuts: list[int], most: int) -> None:
    """The buffer of a reading is written over behind ``keep``; portions and cuts change nothing."""
    wire = b"".join(encode_frame(3, number, bytes((number,)) * size) for number, size in enumerate(sizes))
    scratch = memoryview(bytearray(4000))
    decoder = FrameDecoder(lenient)
    found: list[Frame] = []
    at = turn = 0
    while at < len(wire):
        size = min(cuts[turn % len(cuts)], len(wire) - at)
        scratch[:size] = wire[at : at + size]
        before = decoder.held
        decoder.lend(scratch[:size])
        assert decoder.held == before + size
        found += (frame._replace(payload=bytes(frame.payload)) for frame in decoder.frames(most))
        held = decoder.held
        decoder.keep()
        scratch[:size] = b"\xff" * size
        assert decoder.held == held
        at, turn = at + size, turn + 1
    while portion := list(decoder.frames(most)):
        found += portion
    assert found == [Frame(3, number, bytes((number,)) * size) for number, size in enumerate(sizes)]
    assert decoder.held == 0
