"""The EMO wire: golden commands; a terminator found wherever it is cut, and nothing held that need not be."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.errors import RemoteError
from revtunnel.systems.emo.emo import (
    LONGEST_HELD,
    REFUSED,
    TERMINATOR,
    Emo,
    EmoCommand,
    EmoDecoder,
    EndFinder,
    encode_emo,
)

GOLDEN = [
    (b"C005010\n", EmoCommand(Emo.CONNECT, 5010)),
    (b"P005010\n", EmoCommand(Emo.DATA_SOCKET, 5010)),
    (b"S000001\n", EmoCommand(Emo.IDLE, 1)),
    (b"T000050\n", EmoCommand(Emo.TERMINATE, 50)),
    (b"PING   \n", EmoCommand(Emo.PING)),
    (b"PONG   \n", EmoCommand(Emo.PONG)),
    (b"F0000001\n", EmoCommand(Emo.REFUSED, 1)),
]
STREAM = b"".join(written for written, _ in GOLDEN)


def decoded(*pieces: bytes) -> list[EmoCommand]:
    """All commands of a command socket that gets these pieces."""
    decoder, found = EmoDecoder(), []
    for piece in pieces:
        decoder.receive(piece)
        while (command := decoder.next()) is not None:
            found.append(command)
    return found


@pytest.mark.parametrize(("written", "command"), GOLDEN)
def test_golden_commands(written: bytes, command: EmoCommand) -> None:
    """Both ways, byte for byte."""
    assert encode_emo(command.kind, command.number) == written
    assert decoded(written) == [command]


def test_commands_split_everywhere() -> None:
    """Whole, byte by byte, and cut once at every place: the same commands."""
    expected = [command for _, command in GOLDEN]
    assert decoded(STREAM) == expected
    assert decoded(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == expected
    for cut in range(len(STREAM)):
        assert decoded(STREAM[:cut], STREAM[cut:]) == expected


def test_the_ninth_byte_of_a_refusal_may_come_late() -> None:
    """Eight of its bytes are the refusal; a line feed after it is not yet a fault."""
    assert decoded(REFUSED[:8]) == [EmoCommand(Emo.REFUSED, 1)]


@pytest.mark.parametrize(
    "written", [b"X000001\n", b"C00001 \n", b"C0000011", b"c000001\n", b"\0" * 8, b"PING    ", b"C+00001\n"]
)
def test_r17_what_is_no_command_is_refused(written: bytes) -> None:
    """The good commands before it were given out."""
    decoder = EmoDecoder()
    decoder.receive(GOLDEN[0][0] + written)
    assert decoder.next() == GOLDEN[0][1]
    with pytest.raises(RemoteError, match="no command"):
        decoder.next()


def test_numbers_that_do_not_fit() -> None:
    """Six digits are all there is."""
    for number in (-1, 1_000_000):
        with pytest.raises(ValueError, match="six digits"):
            encode_emo(Emo.CONNECT, number)


def test_bytes_after_a_data_sockets_first_command_are_kept() -> None:
    """They are the stream's."""
    decoder = EmoDecoder()
    decoder.receive(b"P005010\nGET")
    assert decoder.next() == EmoCommand(Emo.DATA_SOCKET, 5010)
    assert decoder.held == b"GET"


def test_terminator_cut_at_each_of_its_places() -> None:
    """Whatever comes before and after it."""
    for cut in range(1, len(TERMINATOR)):
        finder = EndFinder()
        before, nothing = finder.feed(b"last words" + TERMINATOR[:cut])
        assert (before, nothing, finder.held) == (b"last words", b"", cut)
        assert finder.feed(TERMINATOR[cut:] + b"next") == (b"", b"next")
        assert finder.ended


def test_a_beginning_that_was_none_passes() -> None:
    """At every place where it may turn out to be data."""
    for cut in range(1, len(TERMINATOR)):
        finder = EndFinder()
        data = TERMINATOR[:cut]
        first, _ = finder.feed(data)
        second, _ = finder.feed(b"!")
        assert first + second == data + b"!"
        assert not finder.ended


@pytest.mark.parametrize("nuls", range(1, 60))
def test_runs_of_nuls(nuls: int) -> None:
    """Only the last five may begin a terminator; the terminator behind any run is found."""
    finder = EndFinder()
    passed, _ = finder.feed(b"\0" * nuls)
    assert (len(passed), finder.held) == (max(0, nuls - 5), min(5, nuls))
    more, rest = finder.feed(TERMINATOR)
    assert (passed + more, rest, finder.ended) == (b"\0" * nuls, b"", True)


def test_all_byte_values_pass_at_once() -> None:
    """But for a NUL at the very end nothing is held."""
    every = bytes(range(256))
    assert EndFinder().feed(every) == (every, b"")


def test_a_cut_stream_gives_what_was_held() -> None:
    """Without a terminator these bytes were data; the stream can be used again after an end."""
    finder = EndFinder()
    finder.feed(b"x" + TERMINATOR[:7])
    assert finder.flush() == TERMINATOR[:7]
    finder.feed(TERMINATOR)
    finder.again()
    assert finder.feed(b"more") == (b"more", b"")
    assert not finder.ended


PARTS = st.lists(
    st.one_of(st.binary(max_size=60), st.sampled_from([TERMINATOR[:k] for k in range(1, 45)])), max_size=8
)


@given(PARTS, st.lists(st.integers(0, 400), max_size=6), st.binary(max_size=20))
def test_any_stream_in_any_pieces(parts: list[bytes], cuts: list[int], after: bytes) -> None:
    """Everything before the first terminator arrives, in order, and never more than 44 bytes are held."""
    stream = b"".join(parts) + TERMINATOR + after
    places = sorted({0, len(stream), *(min(cut, len(stream)) for cut in cuts)})
    finder, got, rest = EndFinder(), b"", b""
    for first, last in pairwise(places):
        if finder.ended:
            rest += stream[first:last]
            continue
        more, rest = finder.feed(stream[first:last])
        got += more
        assert finder.held <= LONGEST_HELD
    end = stream.find(TERMINATOR)
    assert (got, rest) == (stream[:end], stream[end + len(TERMINATOR) :])


def test_nuls_are_released_and_may_still_be_a_terminator() -> None:
    """A message that ends with NULs does not wait for the next one; whatever comes then is cut rightly."""
    for count in range(1, 6):
        finder = EndFinder()
        assert finder.feed(b"message" + bytes(count)) == (b"message", b"")
        assert (finder.release(), finder.release()) == (bytes(count), b"")
        assert finder.held == 0
        assert finder.feed(TERMINATOR[count:] + b"next") == (b"", b"next")
        assert finder.ended
    finder = EndFinder()
    finder.feed(b"m\0\0\0")
    assert finder.release() == b"\0\0\0"
    assert finder.feed(b"\0\0\0\0") == (b"", b"")  # three of these seven were given out, five may begin one
    assert finder.release() == b"\0\0\0\0"
    assert finder.feed(b"x") == (b"x", b"")
    finder.feed(TERMINATOR[:20])
    assert finder.release() == b""  # more than NULs: that is no message
    assert finder.flush() == TERMINATOR[:20]


@given(
    st.lists(st.tuples(st.binary(max_size=6) | st.just(bytes(3)) | st.just(TERMINATOR[:9]), st.booleans()))
)
def test_nothing_is_lost_or_doubled_by_releases(pieces: list[tuple[bytes, bool]]) -> None:
    """Whenever they happen: what comes out, and what is held, is what went in."""
    finder = EndFinder()
    out = b""
    for piece, release in pieces:
        out += finder.feed(piece)[0]
        if release:
            out += finder.release()
    assert out + finder.flush() == b"".join(piece for piece, _ in pieces)
