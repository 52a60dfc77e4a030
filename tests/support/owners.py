"""Owners at both ends of a joined pair do anything that they may, in any order: the base of machines.

A machine has one rule that picks among named moves: rules of their own would be switched off in most runs,
and the stories worth telling need many moves. ``pick`` chooses stream and size for every move.
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from revtunnel.ground.limits import LinkLimits
from tests.support.joined import End, Joined, Stream

__all__ = ["PICKS", "SMALL", "OwnersMachine", "one_of", "size_of"]

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
PICKS = st.integers(0, 1023)
MOVES = (
    *("connect", "answers", "answers", "send", "send", "send_all", "consume", "consume", "finish", "flush"),
    *("take", "take_little", "deliver", "deliver_cut", "pass_all", "pass_all", "time", "reset"),
)


def one_of(things: list, pick: int):  # type: ignore[no-untyped-def, type-arg]
    """One of the things, or None when there are none."""
    return things[(pick >> 1) % len(things)] if things else None


def size_of(pick: int) -> int:
    """1 to 150 bytes."""
    return 1 + pick * 7 % 150


class OwnersMachine(RuleBasedStateMachine):
    """Its subclasses join a pair of one wire, and say what has to hold there."""

    def join(self) -> Joined:
        """The pair."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.joined = self.join()
        self.spoiled: set[int] = set()  # streams that somebody reset

    @initialize(channels=st.integers(0, 3))
    def begin(self, channels: int) -> None:
        """Some channels are open already."""
        for _ in range(channels):
            self.joined.channel()

    @rule(move=st.sampled_from(MOVES), pick=PICKS)
    def act(self, move: str, pick: int) -> None:
        """One move at one end."""
        end = self.joined.ends[pick & 1]
        streams = [stream for stream in end.live if stream.opened or end is self.joined.server]
        getattr(self, move)(end, one_of(streams, pick), pick)

    @invariant()
    def bounds_hold(self) -> None:
        """Windows, pools and queues stay within their limits."""
        self.joined.check()

    # -- moves; a client may have bytes and an end of file before its target answered

    def connect(self, end: End, stream: Stream | None, pick: int) -> None:
        """A client comes; a number is there or it is not."""
        free = self.joined.server.mux.free_numbers
        assert (self.joined.server.connect() is not None) == (free > 0)

    def answers(self, end: End, stream: Stream | None, pick: int) -> None:
        """The agent reached a target."""
        dialled = one_of([stream for stream in self.joined.agent.live if not stream.opened], pick)
        if dialled is not None:
            dialled.open()

    def reset(self, end: End, stream: Stream | None, pick: int) -> None:
        """A socket is lost, a dial is refused; rarely, so that the others come far."""
        lost = one_of(end.live, pick)
        if lost is not None and pick % 3 == 0:
            self.spoiled.add(id(lost))
            lost.reset()

    def send(self, end: End, stream: Stream | None, pick: int) -> None:
        """A socket has bytes."""
        if stream is not None and stream.may_send and not stream.ended:
            stream.send(size_of(pick))

    def send_all(self, end: End, stream: Stream | None, pick: int) -> None:
        """All sockets have bytes, more than their queues like."""
        for _ in range(4):
            for each in end.live:
                if each.opened:
                    self.send(end, each, pick)

    def finish(self, end: End, stream: Stream | None, pick: int) -> None:
        """A socket has an end of file."""
        if stream is not None and not stream.ended:
            stream.finish()

    def consume(self, end: End, stream: Stream | None, pick: int) -> None:
        """A socket takes bytes."""
        if stream is not None and stream.unconsumed:
            stream.consume(size_of(pick))

    def flush(self, end: End, stream: Stream | None, pick: int) -> None:
        """A socket has taken everything and its end of file."""
        if stream is not None and stream.end_came and not stream.flushed:
            stream.flush()

    def take(self, end: End, stream: Stream | None, pick: int) -> None:
        """A transport wants bytes."""
        end.take()

    def take_little(self, end: End, stream: Stream | None, pick: int) -> None:
        """A slow transport wants bytes."""
        end.take(size_of(pick))

    def deliver(self, end: End, stream: Stream | None, pick: int) -> None:
        """Bytes come in."""
        self.joined.deliver(end, size_of(pick))

    def deliver_cut(self, end: End, stream: Stream | None, pick: int) -> None:
        """Bytes come in, one by one."""
        self.joined.deliver(end, size_of(pick), cut=1)

    def pass_all(self, end: End, stream: Stream | None, pick: int) -> None:
        """An end writes and the other reads."""
        end.take()
        self.joined.deliver(self.joined.other(end))

    def time(self, end: End, stream: Stream | None, pick: int) -> None:
        """Time passes, timers fire; the whole story is shorter than any limit."""
        self.joined.pass_time((pick >> 1) % 50 / 1000)
