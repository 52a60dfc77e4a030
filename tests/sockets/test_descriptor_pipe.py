"""Messages with descriptors: whole, in order, each with its own; who does not take them, and who is gone."""

import os
import socket
from collections.abc import Iterator
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
            raise OSError(109, "Too many references: cannot splice")

        def close(self) -> None:
            """Nothing."""

    monkeypatch.setattr(both.parent, "_sock", Full())
    both.parent.send("given")
    assert both.lost == ["Too many references: cannot splice"]
