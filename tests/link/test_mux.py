"""What both wires share: the queue between a socket and its link, and who may be read again."""

from collections.abc import Callable

import pytest

from revtunnel.ground.limits import LinkLimits
from revtunnel.link.send_scheduler import MESSAGE
from revtunnel.streams.commands import Command
from revtunnel.streams.frames import encode_frame
from tests.support.joined import Joined, joined_legacy, joined_rt1

LIMITS = LinkLimits()


@pytest.fixture(params=[joined_rt1, joined_legacy])
def joined(request: pytest.FixtureRequest) -> Joined:
    """A pair of each wire."""
    make: Callable[[], Joined] = request.param
    return make()


def test_a_socket_is_stopped_at_64_kib_and_read_again_at_half(joined: Joined) -> None:
    """No more is queued than that and one read; the socket is named once, when half has gone."""
    client, _ = joined.channel()
    assert client.send(LIMITS.queue - 1)
    assert not client.send(1)
    assert client.channel.queued == LIMITS.queue
    named = []
    for _ in range(20):
        _, readable, _ = joined.server.mux.take(4096, 0.0)
        named += [(channel, channel.queued) for channel in readable]
    assert named == [(client.channel, LIMITS.queue // 2 - 4096)]


def test_a_socket_stays_stopped_until_it_is_named(joined: Joined) -> None:
    """Bytes that come in spite of the answer are kept, and the answer stays the same."""
    client, service = joined.channel()
    assert not client.send(LIMITS.queue)
    joined.server.take(40_000)
    joined.server.take(1)
    assert client.may_send
    assert not client.send(LIMITS.queue)
    assert not client.send(10)
    joined.finish()
    assert service.whole


def test_take_gives_about_a_quantum(joined: Joined) -> None:
    """At least one frame when there is something, and at most one frame over."""
    pairs = [joined.channel() for _ in range(5)]
    for client, _ in pairs:
        client.send(60_000)
    joined.server.wrote.clear()
    sizes = [joined.server.take(20_000) for _ in range(50)]
    assert max(sizes) < 20_000 + LIMITS.lone_frame + 4
    assert sum(sizes) == 5 * 60_000 + 4 * len(joined.server.wrote)
    assert sizes[-1] == 0


def test_an_end_of_file_stands_behind_the_last_byte(joined: Joined) -> None:
    """However small the quantum."""
    client, service = joined.channel()
    client.send(100_000)
    client.finish()
    for _ in range(200):
        joined.server.take(100)
        joined.deliver(joined.agent)
    assert service.whole
    assert service.end_came


def test_f25_a_lost_link_cuts_its_channels_once(joined: Joined) -> None:
    """Each is named once, and none that was over; their sockets may go on telling, it means nothing."""
    one, other = joined.channel()
    two, _ = joined.channel()
    two.reset()
    for end, stream in ((joined.server, one), (joined.agent, other)):
        assert stream.channel in end.mux.lost()
        assert end.mux.lost() == []
        assert end.mux.running == 0
        assert end.mux.send(stream.channel, b"x")
        end.mux.end(stream.channel)
        end.mux.consumed(stream.channel, 0, 0.0)
        assert end.mux.reset(stream.channel, two.over.reason if two.over else 11, "", 0.0) == []  # type: ignore[arg-type]


def test_n29_bytes_are_counted_where_they_pass(joined: Joined) -> None:
    """Sent when they were handed out, received when they came in: what was queued at the end was lost."""
    client, service = joined.channel()
    client.send(50_000)
    joined.server.take(10_000)
    sent = client.channel.bytes_sent
    assert sent + client.channel.queued == 50_000
    joined.deliver(joined.agent)
    assert service.channel.bytes_received == sent
    client.reset()
    assert client.channel.bytes_sent == sent


def test_a_message_goes_straight_when_nothing_waits(joined: Joined) -> None:
    """Its frame is that of the queue, its credit is spent, and nothing stays behind."""
    client, service = joined.channel()
    joined.settle()
    mux, channel = joined.server.mux, client.channel
    left = channel.credit.left if channel.credit is not None else 0
    data = bytes(range(200))
    frame = mux.straight(channel, len(data), MESSAGE, 0.0) + data
    assert frame == encode_frame(Command.DATA, channel.number, data)
    assert channel.credit is None or channel.credit.left == left - 200
    assert channel.bytes_sent == 200
    assert not mux.waiting
    client.sent += data
    joined.server.wire += frame
    joined.settle()
    assert service.whole


def test_nothing_goes_straight_past_what_waits(joined: Joined) -> None:
    """Bytes of its own channel or another, a control frame; nor too much, or of a channel that is over."""
    client, _ = joined.channel()
    other, _ = joined.channel()
    joined.settle()
    mux, channel = joined.server.mux, client.channel
    assert mux.straight(channel, MESSAGE + 1, MESSAGE, 0.0) == b""
    assert mux.straight(channel, 0, MESSAGE, 0.0) == b""
    other.send(1)
    assert mux.waiting
    assert mux.straight(channel, 1, MESSAGE, 0.0) == b""
    joined.settle()
    client.send(1)
    assert mux.straight(channel, 1, MESSAGE, 0.0) == b""
    joined.settle()
    joined.server.connect()
    assert mux.straight(channel, 1, MESSAGE, 0.0) == b""
    joined.settle()
    if channel.credit is not None:
        channel.credit.left = 1
        assert mux.straight(channel, 2, MESSAGE, 0.0) == b""
    client.reset()
    assert mux.straight(channel, 1, MESSAGE, 0.0) == b""


def test_a_message_is_within_what_the_other_side_takes() -> None:
    """LARGEST_DATA may be less than a message."""
    joined = joined_rt1(LinkLimits(lone_frame=100, frame=100))
    client, _ = joined.channel()
    joined.settle()
    assert joined.server.mux.straight(client.channel, 101, MESSAGE, 0.0) == b""
    assert joined.server.mux.straight(client.channel, 100, MESSAGE, 0.0)
