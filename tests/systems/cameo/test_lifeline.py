"""The pipe whose end is the end: real pipes, no reactor."""

import os

from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure

from revtunnel.systems.cameo.lifeline import Lifeline


def test_what_comes_is_ignored_and_the_end_is_told(no_leaks: None) -> None:
    """Nothing, bytes, bytes before the end, the end."""
    reading, writing = os.pipe()
    ended: list[None] = []
    line = Lifeline(reading, lambda: ended.append(None))
    assert line.fileno() == reading
    assert line.doRead() is None
    os.write(writing, b"x" * 5000)
    assert line.doRead() is None
    os.close(writing)
    assert line.doRead() is CONNECTION_DONE
    assert not ended
    line.connectionLost(Failure(CONNECTION_DONE))
    assert ended == [None]
    os.close(reading)


def test_a_descriptor_that_is_gone_is_the_end_too() -> None:
    """Whatever reading says, only bytes and patience mean life."""
    reading, writing = os.pipe()
    line = Lifeline(reading, lambda: None)
    os.close(reading)
    os.close(writing)
    assert line.doRead() is CONNECTION_DONE
