"""The extended link: whole lives of channels, and each frame that does not fit."""

from hypothesis import settings
from hypothesis.stateful import invariant

from revtunnel.core.channel import State
from revtunnel.wire.reasons import Ended
from tests.core.joined import Joined, glitches, joined_rt1
from tests.core.owners import SMALL, OwnersMachine


class Rt1Machine(OwnersMachine):
    """Two rt1 ends: whatever happens, a clean end is a whole stream, and nothing is left at the end."""

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
