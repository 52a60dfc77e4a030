"""Owners at both ends of a joined pair do anything that they may, in any order: the base of machines."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from revtunnel.core.policy import LinkLimits
from tests.core.joined import Joined, Stream

__all__ = ["SMALL", "OwnersMachine"]

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


class OwnersMachine(RuleBasedStateMachine):
    """Its subclasses join a pair of one wire, and say what has to hold there."""

    def join(self) -> Joined:
        """The pair."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.joined = self.join()
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
        """Every socket that may be read has bytes, more than its queue likes."""
        for stream in self.joined.ends[end].live * 4:
            if (stream.opened or end == 0) and stream.may_send and not stream.ended:
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
        """Windows, pools and queues stay within their limits."""
        self.joined.check()
