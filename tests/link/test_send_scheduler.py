"""Who sends next: control first, then the channels in turn; and how much at once."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.link.send_scheduler import CONTROL_LIMIT, MESSAGE, Pace, SendScheduler
from revtunnel.streams.channel import Channel, ChannelEvent
from revtunnel.streams.commands import Command
from revtunnel.streams.frames import encode_frame
from revtunnel.streams.window import SendCredit
from tests.support.joined import TARGET, joined_rt1

LIMITS = LinkLimits()


def loaded(number: int, size: int, credit: int | None = None) -> Channel:
    """An open channel with bytes to send."""
    channel = Channel(number, TARGET, 0.0, credit=None if credit is None else SendCredit(credit))
    channel.step(ChannelEvent.OPENED)
    if size:
        channel.put(bytes(size))
    return channel


def take_turns(turns: SendScheduler, rounds: int) -> list[int]:
    """The numbers of the channels that had a turn, each with one frame."""
    order = []
    while len(order) < rounds and (channel := turns.next()) is not None:
        turns.cut(channel, 1 << 16)
        turns.had_turn(channel)
        order.append(channel.number)
    return order


def test_channels_take_turns_in_the_order_in_which_they_came() -> None:
    """One with a great backlog sends no more often than one with a small one."""
    turns = SendScheduler(LIMITS)
    for number, size in ((1, 10_000_000), (2, 40_000), (3, MESSAGE + 1)):
        turns.schedule(loaded(number, size))
    assert take_turns(turns, 9) == [1, 2, 3, 1, 2, 1, 2, 1, 1]


def test_n6_eight_channels_with_unequal_backlogs_get_equal_shares() -> None:
    """Over 800 turns of a link, whatever the backlogs, nobody is more than one frame ahead."""
    turns = SendScheduler(LIMITS)
    channels = [loaded(number, LIMITS.frame * (100 + 50 * number)) for number in range(1, 9)]
    for channel in channels:
        turns.schedule(channel)
    for turn in range(800):
        channel = turns.next()
        assert channel is not None
        turns.cut(channel, 1 << 16)
        turns.had_turn(channel)
        if turn % 8 == 7:
            assert {c.bytes_sent for c in channels} == {(turn // 8 + 1) * LIMITS.frame}


def test_n6_a_message_waits_for_no_bulk() -> None:
    """A keystroke among seven bulk transfers is the next; more than a message takes its turn."""
    turns = SendScheduler(LIMITS)
    for number in range(1, 8):
        turns.schedule(loaded(number, 10_000_000))
    take_turns(turns, 23)
    turns.schedule(loaded(8, 1))
    turns.schedule(loaded(9, MESSAGE + 1))
    order = take_turns(turns, 9)
    assert order.index(8) == 0
    assert order.index(9) == 8


def test_n6_a_channel_passes_the_circle_once_a_turn() -> None:
    """Who says message upon message has a message and his turn of the circle between two turns of another."""
    turns = SendScheduler(LIMITS)
    bulk, chatty = loaded(1, 10_000_000), loaded(2, 100)
    turns.schedule(bulk)
    turns.schedule(chatty)
    order = []
    for _ in range(10):
        channel = turns.next()
        assert channel is not None
        turns.cut(channel, 1 << 16)
        turns.had_turn(channel)
        order.append(channel.number)
        if channel is chatty:
            chatty.put(bytes(100))
            turns.schedule(chatty)
    assert order == [2, 1, 2, 2, 1, 2, 2, 1, 2, 2]


def test_a_message_that_grows_meanwhile_goes_in_part() -> None:
    """What was put behind it takes its turn."""
    turns = SendScheduler(LIMITS)
    turns.schedule(loaded(1, 10_000_000))
    channel = loaded(2, 10)
    turns.schedule(channel)
    channel.put(bytes(100_000))
    assert turns.next() is channel
    _, size = turns.cut(channel, 1 << 18)
    turns.had_turn(channel)
    assert size == MESSAGE + 4
    assert take_turns(turns, 2) == [1, 2]


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from((1, 100, MESSAGE, MESSAGE + 1, 40_000))), max_size=60
    ),
    st.lists(st.integers(1, 12), min_size=1, max_size=60),
)
@settings(deadline=None)
def test_n6_nobody_starves_and_a_message_waits_for_a_bounded_number_of_bytes(
    said: list[tuple[int, int]], turns_between: list[int]
) -> None:
    """Who is in the circle has a turn within one round; who may pass it waits for messages only."""
    turns = SendScheduler(LIMITS)
    channels = {number: loaded(number, 0) for number in range(1, 6)}
    waits: dict[int, int] = {}  # turns of others in the circle since it joined that
    between: Counter[int] = Counter()  # turns as a message since the last one of the circle
    for (number, size), count in zip(said, turns_between * 60, strict=False):
        channels[number].put(bytes(size))
        turns.schedule(channels[number])
        for _ in range(count):
            channel = turns.next()
            if channel is None:
                break
            _, cut = turns.cut(channel, 1 << 16)
            turns.had_turn(channel)
            if turns.passing:
                between[channel.number] += 1
                assert between[channel.number] == 1
                assert cut <= MESSAGE + 4
            else:
                between.clear()
                waits.pop(channel.number, None)
                for other in channels.values():
                    if other.scheduled and other is not channel:
                        waits[other.number] = waits.get(other.number, 0) + 1
                assert max(waits.values(), default=0) <= len(channels)
    while (channel := turns.next()) is not None:
        turns.cut(channel, 1 << 16)
        turns.had_turn(channel)
    assert not any(channel.queued for channel in channels.values())


def test_n6_seven_busy_channels_go_on_beside_a_stalled_one() -> None:
    """The stalled one spends its credit and waits; the others share all of what the link carries."""
    joined = joined_rt1()
    pairs = [joined.channel() for _ in range(8)]
    stalled, busy = pairs[0], pairs[1:]
    for _ in range(200):
        for client, _ in pairs:
            while client.may_send:
                client.send(30_000)
        joined.server.take()
        joined.deliver(joined.agent)
        for _, service in busy:
            service.consume()
        joined.agent.take()
        joined.deliver(joined.server)
    assert len(stalled[1].received) == LIMITS.open_window
    shares = [len(service.received) for _, service in busy]
    assert sum(shares) > 150 * (1 << 16)
    assert max(shares) - min(shares) <= 2 * (LIMITS.frame + 30_000)


def test_control_frames_go_before_all_data() -> None:
    """A CONNECT does not wait behind a bulk transfer."""
    joined = joined_rt1()
    client, _ = joined.channel()
    client.send(60_000)
    joined.server.connect()
    joined.server.wrote.clear()
    joined.server.take()
    assert [frame.command for frame in joined.server.wrote] == [Command.CONNECT, Command.DATA]


def test_control_is_taken_whole_and_once() -> None:
    """In the order in which it was said."""
    turns = SendScheduler(LIMITS)
    turns.control(b"first")
    turns.control(b"second")
    assert turns.waiting
    assert turns.take_control() == ([b"first", b"second"], 11)
    assert turns.take_control() == ([], 0)
    assert not turns.waiting


def test_f23_control_that_the_other_side_never_reads_ends_the_link() -> None:
    """256 KiB may wait, one byte more may not."""
    turns = SendScheduler(LIMITS)
    turns.control(bytes(CONTROL_LIMIT))
    with pytest.raises(RemoteError, match="262145 bytes of control frames unread, limit 262144"):
        turns.control(b"x")


def test_only_a_channel_with_something_to_send_is_scheduled_and_only_once() -> None:
    """Twice in the circle would be twice the share."""
    turns = SendScheduler(LIMITS)
    empty, spent, ready = loaded(1, 0), loaded(2, 5, credit=0), loaded(3, 50_000)
    for channel in (empty, spent, ready, ready):
        turns.schedule(channel)
    assert turns.next() is ready
    assert turns.next() is None


def test_a_removed_channel_has_no_turn() -> None:
    """Taken out of the middle; one that has no turn is left alone."""
    turns = SendScheduler(LIMITS)
    channels = [loaded(number, 10) for number in (1, 2, 3)]
    for channel in channels:
        turns.schedule(channel)
    turns.remove(channels[1])
    turns.remove(channels[1])
    assert take_turns(turns, 9) == [1, 3]


@pytest.mark.parametrize(
    ("others", "quantum", "credit", "size"),
    [
        (0, 1 << 16, None, 65535),  # alone: as large as a frame can be
        (1, 1 << 16, None, 16384),  # while others wait
        (0, 8192, None, 8192),  # a slow link
        (0, 1, None, 4096),  # never smaller than the smallest quantum
        (0, 1 << 18, 777, 777),  # never more than the credit
    ],
)
def test_the_size_of_one_frame(others: int, quantum: int, credit: int | None, size: int) -> None:
    """One turn is one DATA frame with its header, within the frame's limits, the quantum and the credit."""
    turns = SendScheduler(LIMITS)
    channel = loaded(9, 200_000, credit)
    for number in range(1, others + 1):
        turns.schedule(loaded(number, MESSAGE + 1))
    pieces, total = turns.cut(channel, quantum)
    assert b"".join(pieces) == encode_frame(Command.DATA, 9, bytes(size))
    assert total == size + 4


def test_pace_follows_the_speed_of_the_link() -> None:
    """Doubled when a quantum drains within 5 ms, halved beyond 20 ms, and kept between; within its limits."""
    pace = Pace(LIMITS)
    sizes, unsent, changes = [], [], []
    for took in (0.004, 0.004, 0.004, 0.010, 0.030, 0.030, 0.030, 0.030, 0.030, 0.030, 0.030):
        pace.handed(pace.quantum, 1.0)
        changes.append(pace.drained(1.0 + took))
        sizes.append(pace.quantum // 1024)
        unsent.append(pace.unsent // 1024)
    assert sizes == [128, 256, 256, 256, 128, 64, 32, 16, 8, 4, 4]
    assert unsent == [64, 128, 128, 128, 64, 32, 16, 8, 8, 8, 8]
    assert changes == [True, True, False, False, *[True] * 6, False]


def test_pace_learns_nothing_from_a_small_write() -> None:
    """A keystroke drains quickly on any link."""
    pace = Pace(LIMITS)
    pace.handed(100, 1.0)
    pace.drained(1.0)
    assert pace.quantum == 64 * 1024
