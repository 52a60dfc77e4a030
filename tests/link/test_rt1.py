"""The extended link: whole lives of channels, and each frame that does not fit."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.origin import Origin, encode_origin
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Target
from revtunnel.link.mux import Glitch, GoingAway, Happening, Wanted
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.streams.channel import ChannelState
from revtunnel.streams.commands import (
    MAX_CREDIT,
    Command,
    decode_reset,
    encode_connect,
    encode_goaway,
    encode_reset,
    encode_window,
)
from revtunnel.streams.frames import Frame, encode_frame
from revtunnel.streams.window import CreditPool
from tests.link.test_handshake import exchange
from tests.support.depth import deep
from tests.support.joined import TARGET, End, Joined, Stream, glitches, joined_rt1
from tests.support.owners import SMALL, OwnersMachine


class Rt1Machine(OwnersMachine):
    """Two rt1 ends: whatever happens, a clean end is a stream that was taken whole, and nothing is left."""

    def join(self) -> Joined:
        return joined_rt1(SMALL)

    @invariant()
    def a_clean_end_is_a_whole_stream(self) -> None:
        """Both ways, whichever end says it."""
        for end in self.joined.ends:
            for stream in end.streams:
                if stream.over is not None and stream.over.reason is Ended.CLOSED:
                    assert stream.whole
                    assert stream.other.whole
                    assert stream.flushed
                    assert stream.other.flushed

    def teardown(self) -> None:
        """Let everything end: nothing is left, anywhere; only what somebody reset was reset."""
        self.joined.finish()
        self.bounds_hold()
        self.a_clean_end_is_a_whole_stream()
        at_rest(self.joined)
        for end in self.joined.ends:
            for stream in end.streams:
                assert stream.over is not None
                spoiled = id(stream) in self.spoiled or id(stream.other) in self.spoiled
                assert spoiled or stream.over.reason is Ended.CLOSED


def at_rest(joined: Joined) -> None:
    """Both ends have nothing left: no channel, no credit out of the pool, no number in use, nothing odd."""
    assert glitches(joined) == []
    for end in joined.ends:
        assert end.mux.channels == {}
        assert end.mux._pool.used == 0  # type: ignore[attr-defined]
        assert not end.mux._turns.waiting
        assert all(stream.channel.state is ChannelState.CLOSED for stream in end.streams)
        assert all(stream.over is not None for stream in end.streams)
    assert joined.server.mux.free_numbers == joined.server.mux.limits.channels


TestRt1Machine = Rt1Machine.TestCase
TestRt1Machine.settings = settings(max_examples=deep(60), stateful_step_count=40, deadline=None)


def test_n26_an_end_of_file_before_the_target_answered_waits_for_it() -> None:
    """A client sends, ends its side and waits while the agent still dials: it gets the whole reply."""
    joined = joined_rt1()
    client = joined.server.connect()
    assert client is not None
    client.send(1000)
    client.finish()
    joined.settle()
    (service,) = joined.agent.streams
    assert len(service.received) == 1000
    assert not service.end_came
    service.open()
    joined.settle()
    assert service.end_came
    service.send(5000)
    joined.finish()
    assert client.whole
    at_rest(joined)


def test_n26_an_empty_request_ends_before_the_target_answered() -> None:
    """The same with nothing to send, and told twice."""
    joined = joined_rt1()
    client = joined.server.connect()
    assert client is not None
    client.finish()
    client.finish()
    joined.settle()
    joined.agent.streams[0].open()
    joined.finish()
    client.finish()
    at_rest(joined)


# -- whole lives


def test_n26_n27_each_direction_ends_by_itself() -> None:
    """A client ends and still gets the whole reply; a service ends and still gets the whole request."""
    for early in (0, 1):
        joined = joined_rt1()
        pair = joined.channel()
        first, second = pair[early], pair[1 - early]
        first.send(1000)
        first.finish()
        joined.settle()
        assert second.end_came
        second.send(50_000)
        joined.settle()
        first.consume()
        second.finish()
        joined.finish()
        assert first.whole
        assert second.whole
        assert first.over is not None
        assert first.over.reason is Ended.CLOSED
        at_rest(joined)


def test_a_clean_end_waits_until_the_last_byte_has_left_for_its_socket() -> None:
    """Both directions have ended on the wire; the client has not taken its bytes, so nothing is over."""
    joined = joined_rt1()
    client, service = joined.channel()
    service.send(1000)
    service.finish()
    client.finish()
    joined.settle()
    service.flush()
    joined.settle()
    assert client.end_came
    assert client.over is service.over is None
    client.flush()
    joined.settle()
    at_rest(joined)


@pytest.mark.parametrize("end", [0, 1])
def test_n28_a_reset_drops_what_waits_and_is_answered_by_a_close(end: int) -> None:
    """The other side sees a reset with its reason, never a clean end; the number is free after both words."""
    joined = joined_rt1()
    pair = joined.channel()
    pair[end].send(60_000)
    pair[end].reset()
    joined.settle()
    for stream in pair:
        assert stream.over is not None
        assert (stream.over.reason, stream.over.detail) == (Ended.RESET_BY_PEER, "a test")
    assert pair[1 - end].received == b""
    assert commands(joined.ends[end])[-1] == Command.RESET
    assert commands(joined.ends[1 - end])[-1] == Command.CLOSE
    at_rest(joined)


def test_two_resets_that_cross_are_each_other_s_answer() -> None:
    """Both sides have said their last word: no further one is said."""
    joined = joined_rt1()
    client, service = joined.channel()
    client.reset(Ended.OPERATOR)
    service.reset(Ended.IDLE)
    joined.settle()
    assert client.over is not None
    assert service.over is not None
    assert (client.over.reason, service.over.reason) == (Ended.OPERATOR, Ended.IDLE)
    assert commands(joined.server)[-1] == commands(joined.agent)[-1] == Command.RESET
    at_rest(joined)


def test_a_reset_after_our_close_is_told_here_and_waits_for_theirs() -> None:
    """The client is lost after everything was said: the number stays taken until the agent's last word."""
    joined = joined_rt1()
    client, service = joined.channel()
    client.finish()
    service.finish()
    joined.settle()
    client.flush()
    client.reset()
    assert client.over is not None
    assert client.over.reason is Ended.RESET_BY_PEER
    assert joined.server.mux.free_numbers == 254
    joined.settle()
    joined.server.read(encode_frame(Command.OPENED, 1))  # late frames are normal now
    joined.server.read(encode_frame(Command.WINDOW, 1, encode_window(1)))
    assert glitches(joined) == []
    service.flush()
    joined.settle()
    at_rest(joined)


def test_n30_a_refused_dial_is_told_with_its_reason() -> None:
    """The client's channel is over before it was read, and its number is free at once."""
    joined = joined_rt1()
    client = joined.server.connect()
    assert client is not None
    joined.settle()
    joined.agent.streams[0].reset(Ended.REFUSED)
    joined.settle()
    assert client.over is not None
    assert (client.over.reason, client.opened) == (Ended.REFUSED, False)
    at_rest(joined)


def test_n31_a_dial_that_hangs_does_not_hold_up_the_others() -> None:
    """Seven clients are served while the first one's target does not answer."""
    joined = joined_rt1()
    hanging = joined.server.connect()
    assert hanging is not None
    joined.settle()
    for _ in range(7):
        client, service = joined.channel()
        client.send(1000)
        joined.settle()
        assert len(service.received) == 1000
    joined.agent.streams[0].reset(Ended.TIMED_OUT)
    joined.settle()
    assert hanging.over is not None


def test_an_answer_to_a_dial_whose_client_has_left_is_late() -> None:
    """OPENED meets a channel that we have reset: normal, and it opens nothing."""
    joined = joined_rt1()
    client = joined.server.connect()
    assert client is not None
    joined.settle()
    client.reset()
    joined.agent.streams[0].open()
    joined.settle()
    joined.agent.streams[0].channel.owner.open()  # and it is told once only
    joined.settle()
    assert not client.opened
    at_rest(joined)


def test_n25_1000_clients_that_come_and_leave_give_everything_back() -> None:
    """Opened and closed in turn over the numbers, some before they are answered."""
    joined = joined_rt1(LinkLimits(channels=7))
    for turn in range(deep(1000)):
        client = joined.server.connect()
        assert client is not None
        joined.settle()
        if turn % 3:
            joined.agent.streams[-1].open()
            joined.settle()
            client.finish()
            joined.finish()
        else:
            joined.pass_time(0.1)
            client.reset()
            joined.settle()
        del joined.server.streams[:], joined.agent.streams[:], joined.server.wrote[:], joined.agent.wrote[:]
    assert joined.server.mux.running == 0
    at_rest(joined)


def test_n23_the_256th_client_has_no_number_and_harms_nobody() -> None:
    """255 at once; one leaves, and its number is there again after both last words."""
    joined = joined_rt1()
    clients = [joined.server.connect() for _ in range(255)]
    assert joined.server.connect() is None
    joined.settle()
    assert joined.server.mux.running == 255
    first = clients[0]
    assert first is not None
    first.reset()
    assert joined.server.connect() is None
    joined.settle()
    again = joined.server.connect()
    assert again is not None
    assert again.channel.number == first.channel.number


def test_f1_the_story_is_the_same_byte_by_byte() -> None:
    """However the wire cuts, the same frames."""
    stories = []
    for cut in (1, 3, 5, 1 << 20):
        joined = joined_rt1()
        client, service = joined.channel()
        client.send(70)
        service.send(7)
        service.finish()
        client.finish()
        joined.settle(cut)
        joined.finish()
        at_rest(joined)
        stories.append([type(happening).__name__ for happening in joined.server.story])
    assert stories.count(stories[0]) == 4


def test_f4_the_largest_frame_is_delivered_whole() -> None:
    """65535 bytes in one DATA frame."""
    joined = joined_rt1()
    client, service = joined.channel()
    client.send(65535)
    joined.server.wrote.clear()
    joined.settle()
    assert [len(frame.payload) for frame in joined.server.wrote] == [65535]
    assert service.whole


def test_n4_a_client_that_takes_nothing_bounds_what_is_held_for_it() -> None:
    """The window and the queue, and not a byte more, whatever stands behind."""
    joined = joined_rt1()
    client, service = joined.channel()
    while service.may_send:
        service.send(40_000)
        joined.settle()
        joined.check()
    assert len(client.received) == joined.server.mux.limits.open_window
    assert service.channel.queued < joined.agent.mux.limits.queue + 40_000
    client.consume()
    joined.settle()
    assert service.may_send


def test_a_window_grows_on_a_quick_link_and_the_pool_bounds_the_sum() -> None:
    """Tuning over the wire, with the round trip that the PING measured."""
    joined = joined_rt1(LinkLimits(link_pool=1 << 20))
    joined.pass_time(0.0)
    joined.agent.take()
    joined.server.now = joined.agent.now = 0.1
    joined.settle()
    assert joined.agent.mux.liveness.round_trip == pytest.approx(0.1)
    pairs = [joined.channel() for _ in range(3)]
    joined.agent.mux.liveness.round_trip = 0.1  # what their own questions took was nothing, on this wire
    for _ in range(60):
        for client, service in pairs:
            while client.may_send:
                client.send(60_000)
            joined.settle()
            service.consume()
            joined.check()
        joined.server.now = joined.agent.now = joined.agent.now + 0.01
    sizes = [service.channel.window.size for _, service in pairs if service.channel.window is not None]
    assert max(sizes) > joined.agent.mux.limits.open_window
    assert sum(sizes) <= 3 * joined.agent.mux.limits.first_window + (1 << 20)


def test_a_small_pool_leaves_the_first_window() -> None:
    """Nothing is granted that the server's pool does not have; the channel works with what it has."""
    joined = joined_rt1(server_pool=100)
    client, service = joined.channel()
    assert Command.WINDOW not in commands(joined.server) + commands(joined.agent)
    client.send(60_000)
    joined.settle()
    joined.finish()
    assert service.whole
    at_rest(joined)


def test_the_credit_at_the_start_is_what_the_other_side_granted() -> None:
    """HELLO may say another first window than ours."""
    server = End(Rt1Mux(LinkLimits(), True, 0.0, CreditPool(0), first_window=10))
    client = server.connect()
    assert client is not None
    client.send(50)
    server.take()
    assert [len(frame.payload) for frame in server.wrote if frame.command == Command.DATA] == [10]


def test_goaway_reaches_the_other_side() -> None:
    """Reason, seconds and text."""
    joined = joined_rt1()
    joined.server.mux.goaway(GoAway.STOPPING, 7, "restart")
    joined.settle()
    assert joined.agent.of(GoingAway) == [GoingAway(GoAway.STOPPING, 7, "restart")]


@pytest.mark.parametrize("places", [True, False])
def test_goaway_names_a_place_where_both_have_that(places: bool) -> None:
    """As on the page; an agent of another kind hears what it always heard."""
    joined = joined_rt1()
    assert isinstance(joined.server.mux, Rt1Mux)
    joined.server.mux.places = places
    joined.server.mux.goaway(GoAway.STOPPING, 0, "bye", "gate-2.example:2065")
    joined.settle()
    place = "gate-2.example:2065" if places else ""
    assert joined.agent.of(GoingAway) == [GoingAway(GoAway.STOPPING, 0, "bye", place)]
    ((_, said),) = exchange("about another place")
    assert said == encode_frame(
        Command.GOAWAY, 0, encode_goaway(GoAway.STOPPING, 0, "bye", "gate-2.example:2065")
    )


def test_both_ends_ask_and_are_answered() -> None:
    """25 s of silence, a PING each way, the PONG, and nothing odd; 20 s without an answer end the link."""
    joined = joined_rt1()
    for _ in range(4):
        joined.pass_time(25.1)
        joined.settle()
    assert commands(joined.server).count(Command.PING) == commands(joined.agent).count(Command.PONG) == 4
    assert glitches(joined) == []
    assert joined.server.mux.due(joined.server.now) == 25.0
    joined.pass_time(25.1)
    joined.server.now += 20.0
    with pytest.raises(RemoteError, match="silent: a heartbeat stayed unanswered"):
        joined.server.tick()


# -- frames that do not fit


def commands(end: End) -> list[int]:
    """What an end has said."""
    return [frame.command for frame in end.wrote]


def server_in(state: ChannelState) -> tuple[End, Stream]:
    """A server's end with channel 1 in a state, everything written."""
    end = End(Rt1Mux(LinkLimits(), True, 0.0, CreditPool(1 << 30)))
    client = end.connect()
    assert client is not None
    lead_to(state, end, client)
    end.take()
    assert client.channel.state is state
    end.wrote.clear()
    return end, client


def lead_to(state: ChannelState, end: End, client: Stream) -> None:
    """The shortest way to a state."""
    if state is ChannelState.OPENING:
        return
    end.read(encode_frame(Command.OPENED, 1))
    if state in (ChannelState.GOT_EOF, ChannelState.ENDED, ChannelState.GOT_CLOSE):
        end.read(encode_frame(Command.EOF, 1))
    if state in (ChannelState.SENT_EOF, ChannelState.ENDED, ChannelState.GOT_CLOSE):
        client.finish()
        end.take()
    if state is ChannelState.GOT_CLOSE:
        end.read(encode_frame(Command.CLOSE, 1))
    if state is ChannelState.SENT_LAST:
        client.reset()


FRAMES = {
    "DATA": encode_frame(Command.DATA, 1, b"x"),
    "OPENED": encode_frame(Command.OPENED, 1),
    "EOF": encode_frame(Command.EOF, 1),
    "CLOSE": encode_frame(Command.CLOSE, 1),
    "RESET": encode_frame(Command.RESET, 1, encode_reset(Ended.IDLE)),
    "WINDOW": encode_frame(Command.WINDOW, 1, encode_window(1)),
}
# what the server does: "." takes it, "-" ignores it, "odd" counts it, "reset" ends the channel with RESET,
# "close" ends it with CLOSE, "over" ends it without a word (all are said), "link" ends the link
ANSWERS = """
            DATA   OPENED  EOF    CLOSE  RESET  WINDOW
OPENING     reset  .       reset  close  close  .
OPEN        .      reset   .      close  close  .
SENT_EOF    .      reset   .      close  close  .
GOT_EOF     reset  reset   reset  close  close  .
ENDED       reset  reset   reset  .      close  .
GOT_CLOSE   reset  reset   reset  odd    link   .
SENT_LAST   -      -       -      over   over   -
"""


@pytest.mark.parametrize("row", ANSWERS.strip().splitlines()[1:])
@pytest.mark.parametrize("name", FRAMES)
def test_every_frame_in_every_state(row: str, name: str) -> None:
    """A frame that breaks the rules ends its channel with one last word of ours, and not the link."""
    state, *cells = row.split()
    answer = dict(zip(FRAMES, cells, strict=True))[name]
    end, client = server_in(ChannelState[state])
    if answer == "link":
        with pytest.raises(RemoteError, match="after its last word"):
            end.read(FRAMES[name])
        return
    end.read(FRAMES[name])
    end.take()
    said = [Command.RESET] if answer == "reset" else [Command.CLOSE] if answer == "close" else []
    assert [c for c in commands(end) if c in (Command.RESET, Command.CLOSE)] == said
    assert (client.over is not None) == (
        answer in ("reset", "close") or ChannelState[state] is ChannelState.SENT_LAST
    )
    odd = answer in ("odd", "reset") or (answer == "close" and name == "CLOSE")
    assert len(end_glitches(end)) == odd
    if answer == "reset":
        assert client.over is not None
        assert client.over.reason is Ended.PROTOCOL
    gone = answer in ("close", "over") or (
        answer == "reset" and ChannelState[state] is ChannelState.GOT_CLOSE
    )
    assert (1 in end.mux.channels) != gone
    assert end.mux.free_numbers == 255 - (not gone)


def end_glitches(end: End) -> list[str]:
    """What an end found odd."""
    return [happening.detail for happening in end.story if isinstance(happening, Glitch)]


@pytest.mark.parametrize("name", FRAMES)
def test_f7_f10_frames_for_a_number_that_nobody_holds_are_odd(name: str) -> None:
    """Counted, and not answered."""
    end, _ = server_in(ChannelState.OPEN)
    end.read(FRAMES[name][:3] + b"\x09" + FRAMES[name][4:])
    end.take()
    assert end_glitches(end) == [f"{name} for channel 9, not in use"]
    assert end.wrote == []


def test_f10_a_payload_on_close_is_skipped() -> None:
    """The frame after it is read."""
    end, client = server_in(ChannelState.GOT_EOF)
    end.read(encode_frame(Command.CLOSE, 9, b"payload") + FRAMES["RESET"])
    assert client.over is not None


def test_f3_empty_data_is_ignored_and_counted() -> None:
    """It costs no credit and reaches nobody."""
    end, client = server_in(ChannelState.OPEN)
    end.read(encode_frame(Command.DATA, 1))
    assert end_glitches(end) == ["empty DATA on channel 1"]
    assert client.over is None


def test_f5_unknown_commands_are_skipped_with_their_payload_until_there_are_100() -> None:
    """The frame after one is read; the hundredth in a minute ends the link."""
    end, client = server_in(ChannelState.OPEN)
    end.read(encode_frame(0x42, 1, b"whatever") + encode_frame(0x05, 0) + FRAMES["DATA"])
    assert client.received == b"x"
    assert end_glitches(end) == ["command 0x42 of 8 bytes skipped", "command 0x05 of 0 bytes skipped"]
    with pytest.raises(RemoteError, match="100 oddities in 60 s"):
        end.read(encode_frame(0x42, 1) * 98)


def test_f11_connect_at_the_server_and_listen_at_the_agent_end_the_link() -> None:
    """Only the server opens channels, only the agent offers itself."""
    joined = joined_rt1()
    with pytest.raises(RemoteError, match="CONNECT at the server"):
        joined.server.read(encode_frame(Command.CONNECT, 1, encode_connect(TARGET)))
    with pytest.raises(RemoteError, match="LISTEN at the agent"):
        joined.agent.read(encode_frame(Command.LISTEN, 0))


def test_f12_a_second_listen_is_odd_and_a_third_ends_the_link() -> None:
    """The first one began the link."""
    end, _ = server_in(ChannelState.OPEN)
    end.read(encode_frame(Command.LISTEN, 0))
    assert end_glitches(end) == ["a second LISTEN"]
    with pytest.raises(RemoteError, match="LISTEN for the third time"):
        end.read(encode_frame(Command.LISTEN, 0))


@pytest.mark.parametrize(
    "payload",
    [b"", b"\0", b"\0\xff", b"\0\x05ab\0\x17", b"\0\x02ab\0\x17tail", b"\0\x02ab\0\0", b"\0\x02a \0\x17"],
)
def test_f15_f16_a_connect_that_names_nothing_is_refused(payload: bytes) -> None:
    """RESET with not-allowed, counted, never dialled; the server's answer gives the number back."""
    joined = joined_rt1()
    end = joined.agent
    end.read(encode_frame(Command.CONNECT, 5, payload))
    end.take()
    assert end.streams == []
    assert [(f.command, f.channel, decode_reset(f.payload)[0]) for f in end.wrote] == [
        (Command.RESET, 5, Ended.NOT_ALLOWED)
    ]
    assert len(glitches(joined)) == 1
    end.read(encode_frame(Command.CLOSE, 5))
    assert end.mux.channels == {}


@pytest.mark.parametrize("number", [0, 5])
def test_f17_a_connect_for_a_number_in_use_ends_the_link(number: int) -> None:
    """The server knows which numbers are free; 0 never is one."""
    end = End(Rt1Mux(LinkLimits(), False, 0.0, CreditPool(0)))
    connect = encode_connect(TARGET)
    end.read(encode_frame(Command.CONNECT, 5, connect))
    with pytest.raises(RemoteError, match=f"CONNECT for channel {number}, which is in use"):
        end.read(encode_frame(Command.CONNECT, number, connect))


def test_a_server_that_says_opened_breaks_the_rules() -> None:
    """Only the agent reaches targets."""
    joined = joined_rt1()
    _, service = joined.channel()
    joined.agent.read(encode_frame(Command.OPENED, 1))
    assert service.over is not None
    assert service.over.reason is Ended.PROTOCOL


def given_up(number: int) -> bytes:
    """A channel that a server opens and resets in one breath."""
    connect = encode_frame(Command.CONNECT, number, encode_connect(TARGET))
    return connect + encode_frame(Command.RESET, number, encode_reset(Ended.RESET_BY_PEER))


def test_n25_clients_that_leave_at_once_never_end_a_link() -> None:
    """10,000 of them in no time, as many at once as there are numbers: each gets its CLOSE, none is odd."""
    joined = joined_rt1()
    for _ in range(deep(40)):
        for _ in range(255):
            stream = joined.server.connect()
            assert stream is not None
            stream.reset()
        joined.settle()
    at_rest(joined)


def test_f20_a_server_that_does_not_wait_for_close_is_left() -> None:
    """All numbers once is what an honest one can do; one of them again, before we wrote a word, is not."""
    end = End(Rt1Mux(LinkLimits(), False, 0.0, CreditPool(0)))
    for _ in range(3):
        end.read(b"".join(map(given_up, range(1, 256))))
        end.mux.take(1, end.now)
    end.read(given_up(5))
    with pytest.raises(RemoteError, match="CONNECT for channel 5, whose CLOSE is not yet said"):
        end.read(given_up(5))


def test_a_number_may_come_again_at_once_when_the_agent_said_close_first() -> None:
    """The server's CLOSE frees it: a CONNECT right behind that is fine."""
    end = End(Rt1Mux(LinkLimits(), False, 0.0, CreditPool(0)))
    connect = encode_frame(Command.CONNECT, 5, encode_connect(TARGET))
    end.read(connect)
    end.streams[0].reset()
    end.mux.take(1, end.now)
    end.read(encode_frame(Command.CLOSE, 5) + connect)
    assert len(end.streams) == 2


@pytest.mark.parametrize("credit", [0, MAX_CREDIT, MAX_CREDIT + 1])
def test_f21_credit_that_cannot_be_resets_the_channel(credit: int) -> None:
    """Zero, a sum beyond 2^31-1, a number beyond it."""
    end, client = server_in(ChannelState.OPEN)
    end.read(encode_frame(Command.WINDOW, 1, credit.to_bytes(4, "big")))
    assert client.over is not None
    assert client.over.reason is Ended.FLOW_CONTROL


def test_f22_a_spender_of_credit_that_it_has_not_is_reset_and_the_third_time_ends_the_link() -> None:
    """One byte over, on three channels."""
    end = End(Rt1Mux(LinkLimits(), True, 0.0, CreditPool(0)))
    clients = [end.connect() for _ in range(3)]
    over = [
        encode_frame(Command.OPENED, n) + encode_frame(Command.DATA, n, bytes(40_000)) * 2 for n in (1, 2, 3)
    ]
    for client, data in zip(clients[:2], over, strict=False):
        end.read(data)
        assert client is not None
        assert client.over is not None
        assert client.over.reason is Ended.FLOW_CONTROL
    with pytest.raises(RemoteError, match="flow control broken 3 times"):
        end.read(over[2])


def test_f23_a_ping_flood_is_answered_once() -> None:
    """One PONG is owed at most, with the last question; the rest is counted, and too much ends the link."""
    end, _ = server_in(ChannelState.OPEN)
    pings = [encode_frame(Command.PING, 0, bytes(7) + bytes([n])) for n in range(101)]
    end.read(b"".join(pings[:50]))
    end.take()
    assert [(f.command, f.payload[7]) for f in end.wrote] == [(Command.PONG, 49)]
    assert len(end_glitches(end)) == 49
    with pytest.raises(RemoteError, match="100 oddities"):
        end.read(b"".join(pings[49:]) + pings[0])


def test_f23_a_pong_that_nobody_asked_for_is_odd() -> None:
    """And two answers to one question."""
    end, _ = server_in(ChannelState.OPEN)
    end.read(encode_frame(Command.PONG, 0, bytes(8)))
    assert end_glitches(end) == ["PONG that nobody asked for"]


@pytest.mark.parametrize(
    ("command", "size", "text"),
    [
        (Command.PING, 7, "PING of 7 bytes, 8 wanted"),
        (Command.WINDOW, 5, "WINDOW of 5 bytes, 4 wanted"),
        (Command.EOF, 1, "EOF of 1 bytes, 0 wanted"),
        (Command.RESET, 202, "RESET of 202 bytes, limit 201"),
        (Command.GOAWAY, 60000, "GOAWAY of 60000 bytes, limit 467"),
        (Command.HELLO, 0, "HELLO on a link that is up"),
        (Command.PROOF, 32, "PROOF on a link that is up"),
        (Command.ENROLL, 32, "ENROLL on a link that is up"),
        (Command.CERTIFICATE, 32, "CERTIFICATE on a link that is up"),
        (Command.WANT, 16, "WANT on a link that is up"),
        (Command.ATTACH, 16, "ATTACH on a link that is up"),
    ],
)
def test_f24_a_header_is_judged_before_its_payload_comes(command: Command, size: int, text: str) -> None:
    """Four bytes are enough to refuse a frame."""
    end, _ = server_in(ChannelState.OPEN)
    with pytest.raises(RemoteError, match=text):
        end.read(encode_frame(command, 1, bytes(size))[:4])


FUZZED = st.lists(
    st.one_of(
        st.binary(max_size=30),
        st.builds(
            encode_frame,
            st.sampled_from([int(command) for command in Command] + [0, 5, 255]),
            st.integers(0, 3),
            st.one_of(
                st.just(b""),
                st.binary(max_size=9),
                st.just(encode_connect(TARGET)),
                st.just(encode_reset(Ended.IDLE, "x")),
                st.integers(1, 1 << 20).map(encode_window),
                st.just(encode_goaway(GoAway.OPERATOR)),
            ),
        ),
    ),
    max_size=40,
)


@given(FUZZED, st.booleans())
@settings(max_examples=deep(80), deadline=None)
def test_f24_whatever_comes_in_is_the_other_side_s_fault(pieces: list[bytes], opens: bool) -> None:
    """Random bytes and random frames: a RemoteError or nothing, and the bounds hold."""
    end = End(Rt1Mux(SMALL, opens, 0.0, CreditPool(1000)))
    for _ in range(3 * opens):
        end.connect()
    for piece in pieces:
        try:
            end.read(piece)
        except RemoteError:
            return
        end.mux.take(1 << 16, 0.0)
        end.check()


def test_a_link_of_ours_never_says_an_unknown_target() -> None:
    """What is connected to is written as it was given."""
    end = End(Rt1Mux(LinkLimits(), True, 0.0, CreditPool(0)))
    end.connect(Target("::1", 80))
    end.take()
    assert end.wrote == [Frame(Command.CONNECT, 1, encode_connect(Target("::1", 80)))]


def test_a_lost_link_names_the_channels_that_were_not_over_once() -> None:
    """Their windows go back to the pool; nothing is sent or told afterwards."""
    joined = joined_rt1()
    (one, _), (two, _), (three, service) = (joined.channel() for _ in range(3))
    two.reset()
    three.finish()
    service.finish()
    joined.settle()
    mux = joined.server.mux
    assert [channel.number for channel in mux.lost()] == [1, 3]
    assert mux.lost() == []
    assert (mux.running, joined.server.mux._pool.used) == (0, 0)  # type: ignore[attr-defined]
    story: list[Happening] = mux.reset(one.channel, Ended.LINK_LOST, "", 0.0) + mux.flushed(
        three.channel, 0.0
    )
    mux.consumed(one.channel, 0, 0.0)
    mux.end(one.channel)
    assert mux.send(one.channel, b"x")
    assert story == []


def test_data_after_both_directions_ended_is_odd_and_reaches_nobody() -> None:
    """Our CLOSE is said, theirs is awaited; a byte now breaks the rules, but no word is left to say so."""
    end, client = server_in(ChannelState.ENDED)
    client.flush()
    end.take()
    end.read(FRAMES["DATA"])
    assert end_glitches(end) == ["channel 1: DATA in SENT_LAST"]
    assert client.over is None
    end.read(FRAMES["CLOSE"])
    assert client.over is not None
    assert client.over.reason is Ended.CLOSED
    client.reset()  # told late: there is nothing left to end
    assert end.mux.free_numbers == 255
    assert not end.mux.holds_back  # credit holds each channel back, never the link


def test_tickets_reach_an_agent_that_has_data_sockets() -> None:
    """As many frames as they need, in order; one that has none ends the link, and so does a bad one."""
    tickets = [n.to_bytes(16, "big") for n in range(300)]
    server = Rt1Mux(LinkLimits(), True, 0.0, CreditPool(0), data_sockets=True)
    server.want(tickets)
    said = b"".join(server.take(1 << 20, 0.0)[0])
    agent = End(Rt1Mux(LinkLimits(), False, 0.0, CreditPool(0), data_sockets=True))
    agent.read(said)
    wanted = [each.tickets for each in agent.story if isinstance(each, Wanted)]
    assert [len(each) for each in wanted] == [256, 44]
    assert wanted[0] + wanted[1] == tickets
    with pytest.raises(RemoteError, match="WANT of 17 bytes"):
        agent.read(encode_frame(Command.WANT, 0, bytes(17)))
    with pytest.raises(RemoteError, match="WANT on a link that is up"):
        End(Rt1Mux(LinkLimits(), False, 0.0, CreditPool(0))).read(said)


def named(agent_asks: bool = True) -> Joined:
    """Two ends whose HELLOs had the bit for ORIGIN, or had it not."""
    limits, pool = LinkLimits(), CreditPool(1 << 30)
    return Joined(
        Rt1Mux(limits, True, 0.0, pool, origins=agent_asks),
        Rt1Mux(limits, False, 0.0, pool, origins=agent_asks),
    )


CLIENT = Origin("192.0.2.1", 56324, "198.51.100.9", 443)


@pytest.mark.parametrize("cut", [1, 1000])
def test_an_agent_that_asked_learns_where_a_client_comes_from(cut: int) -> None:
    """ORIGIN stands before CONNECT, in one write; a client without an address has none."""
    joined = named()
    for origin in (CLIENT, None, CLIENT):
        joined.server.connect(TARGET, origin)
    joined.settle(cut)
    said = [frame.command for frame in joined.server.wrote]
    assert said == [Command.ORIGIN, Command.CONNECT, Command.CONNECT, Command.ORIGIN, Command.CONNECT]
    assert [stream.channel.origin for stream in joined.agent.streams] == [CLIENT, None, CLIENT]


def test_an_agent_that_did_not_ask_learns_nothing() -> None:
    """No ORIGIN is sent, and one that comes ends the link; so it does at a server."""
    joined = named(agent_asks=False)
    joined.server.connect(TARGET, CLIENT)
    joined.settle()
    assert [frame.command for frame in joined.server.wrote] == [Command.CONNECT]
    assert joined.agent.streams[0].channel.origin is None
    frame = encode_frame(Command.ORIGIN, 1, encode_origin(CLIENT))
    for end in (joined.agent, named().server):
        with pytest.raises(RemoteError, match="ORIGIN on a link that is up"):
            end.read(frame)


def test_origin_belongs_to_the_connect_behind_it() -> None:
    """Another number there, a second ORIGIN, or a payload that is none: the link ends, nobody is mistaken."""
    origin = encode_frame(Command.ORIGIN, 1, encode_origin(CLIENT))
    for wrong, why in (
        (origin + encode_frame(Command.CONNECT, 2, encode_connect(TARGET)), "CONNECT for channel 2 behind"),
        (origin + origin, "instead of CONNECT"),
        (encode_frame(Command.ORIGIN, 1, b"\4" + bytes(11)), "ORIGIN of 12 bytes"),
        (encode_frame(Command.ORIGIN, 1, bytes(38)), "ORIGIN of 38 bytes, limit 37"),
    ):
        agent = named().agent
        with pytest.raises(RemoteError, match=why):
            agent.read(wrong)
        assert agent.streams == []


def test_an_origin_before_a_connect_that_cannot_be_dialled_is_gone_with_it() -> None:
    """The next client is not taken for that one."""
    joined = named()
    joined.agent.read(encode_frame(Command.ORIGIN, 1, encode_origin(CLIENT)))
    joined.agent.read(encode_frame(Command.CONNECT, 1, b"bad!") + encode_frame(Command.CLOSE, 1))
    joined.agent.read(encode_frame(Command.CONNECT, 2, encode_connect(TARGET)))
    assert [stream.channel.origin for stream in joined.agent.streams] == [None]


# ---- frames that change nothing


def test_who_goes_on_saying_goaway_is_odd() -> None:
    """A server that drains and then stops says it twice; a flood of it ends the link."""
    end, _ = server_in(ChannelState.OPEN)
    goaway = encode_frame(Command.GOAWAY, 0, encode_goaway(GoAway.STOPPING, 0, ""))
    end.read(goaway * 3)
    assert sum(isinstance(each, GoingAway) for each in end.story) == 3
    with pytest.raises(RemoteError, match="100 oddities"):
        end.read(goaway * 100)
    assert sum(isinstance(each, GoingAway) for each in end.story) == 3


@pytest.mark.parametrize("name", ["OPENED", "EOF", "WINDOW"])
def test_late_frames_have_a_limit(name: str) -> None:
    """What crossed our last word is normal; what comes for ever after it ends the link."""
    end, _ = server_in(ChannelState.SENT_LAST)
    end.read(FRAMES[name] * 64)
    assert end_glitches(end) == []
    with pytest.raises(RemoteError, match="100 oddities"):
        end.read(FRAMES[name] * 100)


def test_late_data_is_within_the_credit_that_was_given() -> None:
    """As many bytes as the other side may have sent before it knew; more is what it is on a channel."""
    end, client = server_in(ChannelState.OPEN)
    end.take()
    given = client.channel.window.left  # type: ignore[union-attr]
    client.reset()
    whole, rest = divmod(given, 60_000)
    end.read(
        encode_frame(Command.DATA, 1, bytes(60_000)) * whole + encode_frame(Command.DATA, 1, bytes(rest))
    )
    assert end_glitches(end) == []
    with pytest.raises(RemoteError, match="flow control broken 3 times: 3 bytes beyond its credit, late"):
        end.read(FRAMES["DATA"] * 3)


def test_late_data_without_a_byte_has_a_limit() -> None:
    """It costs no credit."""
    end, _ = server_in(ChannelState.SENT_LAST)
    with pytest.raises(RemoteError, match="100 oddities"):
        end.read(encode_frame(Command.DATA, 1) * 164)


ALL = {
    **FRAMES,
    "DATA": encode_frame(Command.DATA, 1, bytes(100)),
    "LISTEN": encode_frame(Command.LISTEN, 0),
    "PING": encode_frame(Command.PING, 0, bytes(8)),
    "PONG": encode_frame(Command.PONG, 0, bytes(8)),
    "GOAWAY": encode_frame(Command.GOAWAY, 0, encode_goaway(GoAway.STOPPING, 0, "")),
    "empty DATA": encode_frame(Command.DATA, 1),
    "unknown": encode_frame(0x42, 0),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("state", [ChannelState.OPEN, ChannelState.GOT_EOF, ChannelState.SENT_LAST])
def test_no_frame_comes_100_000_times(name: str, state: ChannelState) -> None:
    """Whatever it is: it breaks a rule or is counted, if it does not bring bytes or credit."""
    end, _ = server_in(state)
    if name in ("DATA", "WINDOW") and state is not ChannelState.SENT_LAST:
        return
    with pytest.raises(RemoteError):
        for _ in range(1000):
            end.read(ALL[name] * 100)
