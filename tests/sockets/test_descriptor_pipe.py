"""Messages with descriptors: whole, in order, each with its own; who does not take them, and who is gone."""

import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from twisted.internet.task import Clock

from revtunnel.sockets import descriptor_pipe
from revtunnel.sockets.descriptor_pipe import DescriptorPipe, Message, PipeLost, WaitingPipe, pipe_pair


class Turns(Clock):
    """A reactor that is turned by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()
        self.addReader, self.removeReader = self.readers.add, self.readers.discard
        self.addWriter, self.removeWriter = self.writers.add, self.writers.discard


class Both:
    """A parent's end and a worker's."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.heard: list[Message] = []
        self.told: list[Message] = []
        self.lost: list[str] = []
        ours, theirs = pipe_pair()
        self.parent = DescriptorPipe(self.turns, ours, self.told.append, self.lost.append)
        self.worker = WaitingPipe(self.turns, theirs, self.heard.append, self.lost.append)
        self.ends = ours, theirs


@pytest.fixture
def both() -> Iterator[Both]:
    """Closed at the end."""
    made = Both()
    yield made
    made.parent.end()
    for each in made.ends:
        each.close()


def some_file(text: bytes) -> int:
    """A descriptor that has these bytes to read."""
    reading, writing = os.pipe()
    os.write(writing, text)
    os.close(writing)
    return reading


def content(descriptor: int) -> bytes:
    """What it has; it is closed."""
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def test_messages_arrive_in_order_each_with_its_descriptors(both: Both) -> None:
    """Small and large ones; the sender's own descriptors are closed."""
    given = [some_file(text) for text in (b"one", b"two", b"three")]
    both.parent.send("a", 1, "x")
    both.parent.send("b", descriptors=(given[0],))
    both.parent.send("c", b"z" * 3000)
    both.parent.send("d", 2, descriptors=(given[1], given[2]))
    while len(both.heard) < 4:
        both.worker.doRead()

    assert [(name, values) for name, values, _ in both.heard] == [
        *(("a", (1, "x")), ("b", ())),
        *(("c", (b"z" * 3000,)), ("d", (2,))),
    ]
    assert [content(each) for _, _, found in both.heard for each in found] == [b"one", b"two", b"three"]
    both.worker.send("back", descriptors=(some_file(b"four"),))
    both.parent.doRead()
    assert content(both.told[0][2][0]) == b"four"


def test_what_does_not_fit_waits_and_arrives_whole(both: Both) -> None:
    """The parent goes on; its queue is written when the other reads."""
    both.parent.send("large", b"y" * 2_000_000, descriptors=(some_file(b"of it"),))
    both.parent.send("next")
    assert both.parent in both.turns.writers
    while len(both.heard) < 2:
        both.worker.doRead()
        both.parent.doWrite()
    assert both.parent not in both.turns.writers
    assert len(both.heard[0][1][0]) == 2_000_000
    assert content(both.heard[0][2][0]) == b"of it"


def test_who_takes_nothing_is_lost(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a limit, and nothing is sent any more; what was given is closed."""
    monkeypatch.setattr(descriptor_pipe, "LIMIT", 1_000_000)
    both.parent.send("large", b"y" * 900_000)
    given = some_file(b"")
    both.parent.send("more", b"y" * 900_000, descriptors=(given,))
    assert len(both.lost) == 1 and "did not take" in both.lost[0]
    with pytest.raises(OSError):
        os.fstat(given)
    both.parent.send("nothing")
    assert len(both.lost) == 1


@contextmanager
def room_for(count: int) -> Iterator[None]:
    """So many descriptors more, and no other."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(count)]
    held = [os.dup(0)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (held[0], limits[1]))
    for each in free:
        os.close(each)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        for each in held:
            os.close(each)


@pytest.mark.parametrize("size", [10, 100_000])
def test_descriptors_for_which_there_is_no_room_cost_nobody_else_anything(both: Both, size: int) -> None:
    """The message arrives, with those that could be taken; so does what is said before and behind it."""
    both.parent.send("before", descriptors=(some_file(b"one"),))
    given = [some_file(text) for text in (b"two", b"three", b"four")]
    both.parent.send("short", b"z" * size, descriptors=(*given,))
    both.parent.send("none", descriptors=(some_file(b"five"),))
    with room_for(2):
        while len(both.heard) < 3:
            both.worker.doRead()
            both.parent.doWrite()
    both.parent.send("behind", descriptors=(some_file(b"six"),))
    both.worker.doRead()
    found = [[content(each) if each >= 0 else None for each in found] for _, _, found in both.heard]
    assert found == [[b"one"], [b"two", None, None], [None], [b"six"]]
    assert [name for name, _, _ in both.heard] == ["before", "short", "none", "behind"]
    assert both.lost == []


def test_an_answer_is_waited_for_and_nothing_else_is_lost(both: Both) -> None:
    """What came before it is kept for the next turn, in order."""
    both.parent.send("before", descriptors=(some_file(b"mine"),))
    both.parent.send("answer", 1, (None,))
    both.parent.send("behind")
    assert both.worker.call("question", 5) is None
    assert both.heard == []
    both.turns.advance(0)
    assert [name for name, _, _ in both.heard] == ["before", "behind"]
    assert content(both.heard[0][2][0]) == b"mine"
    both.parent.doRead()
    assert both.told == [("question", (1, 5), [])]


def test_each_notices_that_the_other_is_gone(both: Both) -> None:
    """A question is answered by an error, a reading by the end."""
    both.ends[1].shutdown(socket.SHUT_RDWR)
    both.parent.doRead()
    assert both.lost == ["the other process is gone"]
    with pytest.raises(PipeLost):
        both.worker.call("question")


def test_descriptors_that_wait_are_counted(both: Both) -> None:
    """Until the kernel has them."""
    both.parent.send("large", b"y" * 2_000_000)
    for _ in range(3):
        both.parent.send("given", descriptors=(some_file(b""),))
    assert both.parent.giving == 3
    while len(both.heard) < 4:
        both.worker.doRead()
        both.parent.doWrite()
    assert both.parent.giving == 0
    for _, _, found in both.heard:
        for each in found:
            os.close(each)


def test_a_pipe_that_fails_says_how(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process may live: that is not the word for one that is gone."""

    class Full:
        def sendmsg(self, *told: object) -> int:
            raise OSError(12, "Cannot allocate memory")

        def close(self) -> None:
            """Nothing."""

    monkeypatch.setattr(both.parent, "_sock", Full())
    both.parent.send("given")
    assert both.lost == ["Cannot allocate memory"]


class Refusing:
    """A socket that takes no descriptors, as the kernel does while it holds too many of one user."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def sendmsg(self, told: list[bytes], beside: list[Any] = []) -> int:  # noqa: B006
        if beside:
            raise OSError(errno.ETOOMANYREFS, "Too many references: cannot splice")
        return self._sock.sendmsg(told)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@pytest.mark.parametrize("who", ["parent", "worker"])
def test_what_the_kernel_does_not_take_arrives_without_its_descriptors(
    both: Both, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """They are closed; the next ones are taken as ever."""
    end, told = getattr(both, who), both.heard if who == "parent" else both.told
    sock, given = end._sock, [some_file(b"one"), some_file(b"two")]
    end.send("before", descriptors=(some_file(b"zero"),))
    monkeypatch.setattr(end, "_sock", Refusing(sock))
    end.send("short", 5, descriptors=(*given,))
    monkeypatch.setattr(end, "_sock", sock)
    end.send("behind", descriptors=(some_file(b"three"),))
    for each in given:
        with pytest.raises(OSError):
            os.fstat(each)
    while len(told) < 3:
        (both.worker if who == "parent" else both.parent).doRead()
    assert [(name, values) for name, values, _ in told] == [("before", ()), ("short", (5,)), ("behind", ())]
    found = [[content(each) if each >= 0 else None for each in found] for _, _, found in told]
    assert found == [[b"zero"], [None, None], [b"three"]]
    assert both.lost == []
