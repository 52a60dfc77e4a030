"""Who is let in of those who come: not who has gone, and last who has ended before a byte."""

import contextlib
import socket
from collections.abc import Callable, Iterator

import pytest
from twisted.internet.task import Clock

from revtunnel.ground.facts import Fact, LeftEarly
from revtunnel.sockets.arrivals import HOUR, MOST, REST, Arrivals, Together
from revtunnel.sockets.ends import End, PlainEnd
from tests.support.traffic import leave_with_reset


class Door:
    """Arrivals at a listening socket; ``guests`` are let in."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.clock = Clock()
        self.told: list[Fact] = []
        self.guests: list[End] = []
        self.together = Together()
        self.arrivals = Arrivals(self.clock, self.told.append, "door", self.guests.append, self.together)
        self._stack = stack
        self._listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=200))

    def client(self, leave: Callable[[socket.socket], object] = lambda sock: None, said: bytes = b"") -> End:
        """One that was accepted, and has left as told by then."""
        client = self._stack.enter_context(socket.create_connection(self._listening.getsockname()))
        client.sendall(said)
        leave(client)
        end = PlainEnd(self._listening.accept()[0])
        self._stack.callback(end.abort)
        return end


@pytest.fixture
def door() -> Iterator[Door]:
    with contextlib.ExitStack() as stack:
        yield Door(stack)


def finish(sock: socket.socket) -> None:
    """FIN; what comes is still taken."""
    sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("said", [b"", b"hello"])
def test_who_has_reset_is_never_let_in(door: Door, said: bytes) -> None:
    """Whatever he said before: nobody can have an answer."""
    gone, here = door.client(leave_with_reset, said), door.client()
    door.arrivals.take([gone, here])
    assert door.guests == [here]
    assert gone.fileno() == -1


def test_who_has_ended_behind_bytes_is_let_in_like_any_other(door: Door) -> None:
    """``nc -N`` with input, in the order in which they came."""
    first, second = door.client(finish, b"hello"), door.client()
    door.arrivals.take([first, second])
    assert door.guests == [first, second]
    assert door.clock.getDelayedCalls() == []


def test_who_has_ended_before_a_byte_is_let_in_behind_the_others(door: Door) -> None:
    """He may be a client of a service that speaks first: alone he is not even late."""
    silent, here = door.client(finish), door.client()
    door.arrivals.take([silent, here])
    assert door.guests == [here, silent]


def test_of_a_scan_one_is_let_in_now_and_then_and_a_client_never_waits(door: Door) -> None:
    """What waits is bounded; the rest is reset, counted and said after an hour."""
    scan = [door.client(lambda sock: sock.close()) for _ in range(100)]
    door.arrivals.take(scan)
    assert door.guests == scan[:1]
    here = door.client()
    door.arrivals.take([here])
    assert door.guests == [scan[0], here]
    for _ in range(30):
        door.clock.advance(REST)
    assert door.guests == [scan[0], here, *scan[1 : 1 + MOST]]
    assert door.told == []
    door.clock.advance(HOUR)
    assert door.told == [LeftEarly("door", 99 - MOST)]
    door.arrivals.stop()
    assert door.clock.getDelayedCalls() == []


def test_what_was_counted_is_said_at_the_end(door: Door) -> None:
    """And who waits still is reset."""
    scan = [door.client(finish) for _ in range(3)]
    gone = door.client(leave_with_reset)
    door.arrivals.take([*scan, gone])
    door.arrivals.stop()
    assert door.guests == scan[:1]
    assert [end.fileno() for end in scan[1:]] == [-1, -1]
    assert door.told == [LeftEarly("door", 1)]
    assert door.clock.getDelayedCalls() == []


def test_a_unix_client_that_has_left_behind_its_words_is_let_in(door: Door) -> None:
    """Where the kernel says HUP for an end in order."""
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    theirs.sendall(b"hello")
    theirs.close()
    end = PlainEnd(ours)
    door.arrivals.take([end])
    assert door.guests == [end]
    end.abort()


def test_what_is_done_for_all_who_come_together_is_done_once_behind_them(door: Door) -> None:
    """By each of two; whoever comes alone, or later, has it done at once."""
    done: list[str] = []
    calls = [lambda: done.append("this"), lambda: done.append("that")]

    def let_in(end: End) -> None:
        done.append("let in")
        for call in calls:
            door.together.then(call)

    door.arrivals._let_in = let_in
    door.arrivals.take([door.client() for _ in range(3)])
    assert done == [*["let in"] * 3, "this", "that"]
    del done[:]
    door.arrivals.take([door.client(finish)])  # who has said nothing comes behind them
    assert done == ["let in", "this", "that"]
    door.together.then(calls[0])
    assert done == ["let in", "this", "that", "this"]


def test_whoever_is_let_in_may_have_others_let_in() -> None:
    """It is done behind all of them."""
    done: list[str] = []
    together = Together()
    call = lambda: done.append("done")  # noqa: E731
    with together:
        together.then(call)
        with together:
            together.then(call)
        assert done == []
    assert done == ["done"]


def test_it_is_done_also_where_one_of_them_is_a_fault_of_ours() -> None:
    """Who was let in before is not to wait for the next one."""
    done: list[str] = []
    together = Together()

    def faulty() -> None:
        with together:
            together.then(lambda: done.append("done"))
            raise ValueError

    with pytest.raises(ValueError):
        faulty()
    assert done == ["done"]
