"""The life of a channel: every state with every event, and the queue."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.errors import LocalError
from revtunnel.streams.channel import LEGACY_NEXT, NEXT, Channel, ChannelEvent, ChannelState
from revtunnel.streams.window import CreditPool, ReceiveWindow, SendCredit
from tests.support.joined import TARGET

# written out a second time, as a person reads the rule; "." is no move
RT1 = """
            OPENED  SEND_EOF  GET_EOF  SEND_CLOSE  GET_CLOSE  SEND_RESET  GET_RESET
OPENING     OPEN    .         .        .           .          SENT_LAST   CLOSED
OPEN        .       SENT_EOF  GOT_EOF  .           .          SENT_LAST   CLOSED
SENT_EOF    .       .         ENDED    .           .          SENT_LAST   CLOSED
GOT_EOF     .       ENDED     .        .           .          SENT_LAST   CLOSED
ENDED       .       .         .        SENT_LAST   GOT_CLOSE  SENT_LAST   CLOSED
GOT_CLOSE   .       .         .        CLOSED      .          CLOSED      .
SENT_LAST   .       .         .        .           CLOSED     .           CLOSED
CLOSED      .       .         .        .           .          .           .
"""
LEGACY = """
            OPENED  SEND_EOF  GET_EOF  SEND_CLOSE  GET_CLOSE  SEND_RESET  GET_RESET
OPENING     OPEN    .         .        SENT_LAST   GOT_CLOSE  .           .
OPEN        .       .         .        SENT_LAST   GOT_CLOSE  .           .
SENT_EOF    .       .         .        .           .          .           .
GOT_EOF     .       .         .        .           .          .           .
ENDED       .       .         .        .           .          .           .
GOT_CLOSE   .       .         .        CLOSED      .          .           .
SENT_LAST   .       .         .        .           CLOSED     .           .
CLOSED      .       .         .        .           .          .           .
"""
TABLES = {"rt1": (NEXT, RT1), "legacy": (LEGACY_NEXT, LEGACY)}


def read(text: str) -> dict[tuple[ChannelState, ChannelEvent], ChannelState]:
    """The moves of a written table."""
    heads, *rows = (line.split() for line in text.strip().splitlines())
    return {
        (ChannelState[row[0]], ChannelEvent[head]): ChannelState[cell]
        for row in rows
        for head, cell in zip(heads, row[1:], strict=True)
        if cell != "."
    }


def in_state(state: ChannelState, table: dict[tuple[ChannelState, ChannelEvent], ChannelState]) -> Channel:
    """A channel that is there."""
    channel = Channel(1, TARGET, 0.0, table)
    channel.state = state
    return channel


@pytest.mark.parametrize("wire", TABLES)
@pytest.mark.parametrize(("state", "event"), list(product(ChannelState, ChannelEvent)))
def test_every_state_with_every_event(wire: str, state: ChannelState, event: ChannelEvent) -> None:
    """Listed moves move; all others raise and leave the state alone."""
    table, text = TABLES[wire]
    goal = read(text).get((state, event))
    channel = in_state(state, table)
    assert channel.allows(event) == (goal is not None)
    if goal is None:
        with pytest.raises(LocalError, match=f"channel 1: {event.name} in {state.name}"):
            channel.step(event)
        assert channel.state is state
    else:
        assert channel.step(event) is goal
        assert channel.state is goal


@pytest.mark.parametrize("wire", TABLES)
def test_every_way_to_the_end_says_one_last_word_of_each_side(wire: str) -> None:
    """Along any path: one CLOSE or RESET of ours at most, one of theirs at most; both before CLOSED.

    The one exception is a RESET that comes first on rt1: the mux answers it by a CLOSE on the same move.
    """
    table, _ = TABLES[wire]
    ours, theirs = (
        (ChannelEvent.SEND_CLOSE, ChannelEvent.SEND_RESET),
        (ChannelEvent.GET_CLOSE, ChannelEvent.GET_RESET),
    )
    paths: list[tuple[ChannelState, tuple[ChannelEvent, ...]]] = [(ChannelState.OPENING, ())]
    ended = 0
    while paths:
        state, path = paths.pop()
        said, heard = (sum(event in words for event in path) for words in (ours, theirs))
        assert said <= 1
        assert heard <= 1
        if state is ChannelState.CLOSED:
            ended += 1
            assert heard == 1
            assert said == 1 or path[-1] is ChannelEvent.GET_RESET
            continue
        moves = [(event, goal) for (begin, event), goal in table.items() if begin is state]
        assert moves, f"{state} is a dead end"
        paths += [(goal, (*path, event)) for event, goal in moves]
    assert ended > 3


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=12),
    st.lists(st.integers(1, 60), min_size=1, max_size=60),
    st.integers(0, 300),
)
def test_what_is_cut_off_the_queue_is_what_was_put(puts: list[bytes], cuts: list[int], credit: int) -> None:
    """Any puts, any cuts: the same bytes in order, never more than asked for or than the credit."""
    channel = Channel(1, TARGET, 0.0, credit=SendCredit(credit))
    whole = b"".join(puts)
    got = b""
    for data in puts:
        channel.put(data)
    for most in cuts:
        left = channel.credit.left if channel.credit is not None else 0
        piece = b"".join(channel.cut(most))
        assert len(piece) == min(most, left, len(whole) - len(got))
        got += piece
        assert channel.queued == len(whole) - len(got)
        assert channel.bytes_sent == len(got)
    assert whole.startswith(got)


def test_a_whole_piece_is_not_copied() -> None:
    """The byte path hands on the object that came; only a part of it is a view."""
    channel = Channel(1, TARGET, 0.0)
    first, second = b"a" * 10, b"b" * 10
    channel.put(first)
    channel.put(second)
    pieces = channel.cut(15)
    assert pieces[0] is first
    assert isinstance(pieces[1], memoryview)
    assert b"".join(channel.cut(100)) == b"b" * 5


def test_sendable_needs_bytes_with_credit_or_an_end_of_file() -> None:
    """Without credit bytes wait, and an end of file waits behind them and for the target's answer."""
    channel = Channel(1, TARGET, 0.0, credit=SendCredit(0))
    assert not channel.sendable
    channel.ending = True
    assert not channel.sendable
    channel.step(ChannelEvent.OPENED)
    assert channel.sendable
    channel.put(b"x")
    assert not channel.sendable
    assert channel.credit is not None
    channel.credit.grow(1)
    assert channel.sendable


def test_the_legacy_wire_has_no_credit_and_no_answer_to_wait_for() -> None:
    """Bytes and an end of file go at once."""
    channel = Channel(1, TARGET, 0.0, LEGACY_NEXT)
    channel.put(b"x")
    assert channel.sendable
    assert channel.cut(9) == [b"x"]
    channel.ending = True
    assert channel.sendable


def test_dropping_gives_the_window_back_once() -> None:
    """What waits is forgotten; the pool gets what was taken from it, the second time nothing."""
    pool = CreditPool(1000)
    window = ReceiveWindow(100, 1000, pool)
    channel = Channel(1, TARGET, 0.0, credit=SendCredit(5), window=window)
    assert window.enlarge(300) == 200
    channel.put(b"abc")
    channel.ending = True
    for _ in range(2):
        channel.drop()
        assert (channel.queued, channel.sendable, channel.window, pool.used) == (0, False, None, 0)
