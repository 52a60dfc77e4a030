"""The extended link: whole lives of channels, and each frame that does not fit."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from revtunnel.core.channel import State
from revtunnel.core.policy import LinkLimits
from revtunnel.wire.reasons import Ended
from tests.core.joined import Joined, Stream, glitches, joined_rt1

SMALL = LinkLimits(
    channels=3,
    first_window=64,
    open_window=256,
    largest_window=1024,
    link_pool=700,
    queue=100,
    frame=32,
    lone_frame=50,
    smallest_quantum=16,
)
ENDS = st.sampled_from((0, 1))
SIZES = st.integers(1, 150)
PICK = st.integers(0, 255)


class Rt1Machine(RuleBasedStateMachine):
    """Owners at both ends do anything that they may, in any order, on a wire that cuts and delays."""

    def __init__(self) -> None:
        super().__init__()
        self.joined = joined_rt1(SMALL)
        self.spoiled: set[int] = set()  # streams that somebody reset

    def pick(self, end: int, which: int, *, opened: bool = True) -> Stream | None:
        """One of the live streams of an end."""
        live = [stream for stream in self.joined.ends[end].live if stream.opened or not opened]
        return live[which % len(live)] if live else None

    def spoil(self, stream: Stream) -> None:
        """From now on this channel need not be whole."""
        self.spoiled.add(id(stream))

    @initialize(channels=st.integers(0, 3))
    def begin(self, channels: int) -> None:
        """Some channels are open already."""
        for _ in range(channels):
            self.joined.channel()

    @rule()
    def connect(self) -> None:
        """A client comes; a number is there or it is not."""
        free = self.joined.server.mux.free_numbers
        assert (self.joined.server.connect() is not None) == (free > 0)

    @rule(which=PICK)
    def target_answers(self, which: int) -> None:
        """The agent reached a target."""
        waiting = [stream for stream in self.joined.agent.live if not stream.opened]
        if waiting:
            waiting[which % len(waiting)].open()

    @rule(end=ENDS, which=PICK, chance=st.integers(0, 7))
    def reset(self, end: int, which: int, chance: int) -> None:
        """A socket is lost, a dial is refused; rarely, so that the others come far."""
        stream = self.pick(end, which, opened=False)
        if stream is not None and chance == 7:
            self.spoil(stream)
            stream.reset()

    @rule(end=ENDS, which=PICK, size=SIZES)
    def send(self, end: int, which: int, size: int) -> None:
        """A socket has bytes; a client may have them before its target answered."""
        stream = self.pick(end, which, opened=end == 1)
        if stream is not None and stream.may_send and not stream.ended:
            stream.send(size)

    @rule(end=ENDS)
    def send_all(self, end: int) -> None:
        """Every socket that may be read has bytes."""
        for stream in self.joined.ends[end].live:
            while (stream.opened or end == 0) and stream.may_send and not stream.ended:
                stream.send(37)

    @rule(end=ENDS, which=PICK)
    def finish(self, end: int, which: int) -> None:
        """A socket has an end of file; a client may have it before its target answered."""
        stream = self.pick(end, which, opened=end == 1)
        if stream is not None and not stream.ended:
            stream.finish()

    @rule(end=ENDS, which=PICK, size=SIZES)
    def consume(self, end: int, which: int, size: int) -> None:
        """A socket takes bytes."""
        stream = self.pick(end, which)
        if stream is not None and stream.unconsumed:
            stream.consume(size)

    @rule(end=ENDS, which=PICK)
    def flush(self, end: int, which: int) -> None:
        """A socket has taken everything and its end of file."""
        stream = self.pick(end, which)
        if stream is not None and stream.end_came and not stream.flushed:
            stream.flush()

    @rule(end=ENDS, quantum=st.sampled_from((1, 40, 1 << 16)))
    def take(self, end: int, quantum: int) -> None:
        """A transport wants bytes."""
        self.joined.ends[end].take(quantum)

    @rule(end=ENDS, most=st.integers(1, 300), cut=st.sampled_from((1, 7, 300)))
    def deliver(self, end: int, most: int, cut: int) -> None:
        """Bytes come in."""
        self.joined.deliver(self.joined.ends[end], most, cut)

    @rule(end=ENDS)
    def pass_all(self, end: int) -> None:
        """An end writes and the other reads."""
        self.joined.ends[end].take()
        self.joined.deliver(self.joined.ends[1 - end])

    @precondition(lambda self: self.joined.server.now < 2.0)
    @rule(seconds=st.sampled_from((0.001, 0.05)))
    def pass_time(self, seconds: float) -> None:
        """Time passes, timers fire."""
        self.joined.pass_time(seconds)

    @invariant()
    def bounds_hold(self) -> None:
        """Windows, pools and queues stay within their limits; nothing odd was seen."""
        self.joined.check()
        for end in self.joined.ends:
            for stream in end.streams:
                if stream.over is not None and stream.over.reason is Ended.CLOSED:
                    assert stream.whole
                    assert stream.other is not None
                    assert stream.other.whole

    def teardown(self) -> None:
        """Let everything end: nothing is left, anywhere."""
        self.joined.finish()
        self.bounds_hold()
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
        assert all(stream.channel.state is State.CLOSED for stream in end.streams)
        assert all(stream.over is not None for stream in end.streams)
    assert joined.server.mux.free_numbers == joined.server.mux.limits.channels


TestRt1Machine = Rt1Machine.TestCase
TestRt1Machine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


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
