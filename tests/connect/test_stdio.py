"""Standard input and output as a transport: real pipes, either end first, nobody who reads."""

import contextlib
import os
from collections.abc import Iterator

import pytest

from revtunnel.connect.stdio import StandardTransport
from tests.support.epoll import Loop
from tests.support.world import Party

MIB = 1 << 20


class Pipes:
    """A Protocol between two pipes, and their far ends."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        near_in, self.feed = os.pipe()
        self.taken, near_out = os.pipe()
        self.own = near_in, near_out
        os.set_blocking(self.taken, False)
        os.set_blocking(self.feed, False)
        self.party = Party("party")
        self.transport = StandardTransport(loop.reactor, self.party, near_in, near_out)
        self.transport.start()
        self.got = bytearray()

    def read(self) -> bool:
        """Take what is there; True: the end of file."""
        self.loop.reactor.iterate(0)
        try:
            while data := os.read(self.taken, 1 << 16):
                self.got += data
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Let go of all."""
        self.transport.abortConnection()
        self.loop.settle()
        for number in (*self.own, self.feed, self.taken):
            with contextlib.suppress(OSError):
                os.close(number)


@pytest.fixture
def pipes(loop: Loop) -> Iterator[Pipes]:
    pipes = Pipes(loop)
    yield pipes
    pipes.close()


def test_nothing_is_read_before_it_is_wanted(loop: Loop, pipes: Pipes) -> None:
    """Then all of it is, with the end of file behind it; the other direction goes on."""
    os.write(pipes.feed, b"hello")
    os.close(pipes.feed)
    loop.settle()
    assert not pipes.party.data
    pipes.transport.resumeProducing()
    loop.until(lambda: pipes.party.end_came)
    assert pipes.party.data == b"hello"
    pipes.party.say(b"answer")
    assert not pipes.read()
    assert pipes.got == b"answer"
    pipes.party.finish()
    loop.until(pipes.read)
    loop.until(lambda: not pipes.party.here)
    assert not pipes.party.was_reset


def test_a_reader_that_is_slow_stops_the_producer(loop: Loop, pipes: Pipes) -> None:
    """And gets everything."""
    pipes.party.say_more(MIB)
    assert pipes.party.full
    pipes.party.finish()
    loop.until(pipes.read)
    assert pipes.got == pipes.party.sent


def test_a_reader_that_is_gone_is_a_cut(loop: Loop, pipes: Pipes) -> None:
    """Whether something waits for it or not."""
    os.close(pipes.taken)
    pipes.party.say(b"x")
    loop.until(lambda: not pipes.party.here)
    assert pipes.party.was_reset


def test_a_reader_that_goes_while_something_waits(loop: Loop, pipes: Pipes) -> None:
    """The reactor tells it."""
    pipes.party.say_more(MIB)
    os.close(pipes.taken)
    loop.until(lambda: not pipes.party.here)
    assert pipes.party.was_reset


def test_a_close_writes_what_waits(loop: Loop, pipes: Pipes) -> None:
    """Then it is over, in order."""
    pipes.party.say_more(MIB)
    pipes.party.close()
    loop.until(pipes.read)
    loop.until(lambda: not pipes.party.here)
    assert pipes.got == pipes.party.sent
    assert not pipes.party.was_reset


def test_flags_are_put_back(loop: Loop, pipes: Pipes) -> None:
    """A shell may share the descriptors."""
    assert not os.get_blocking(pipes.own[0])
    pipes.transport.abortConnection()
    loop.until(lambda: not pipes.party.here)
    assert os.get_blocking(pipes.own[0])


def test_bulk_both_ways(loop: Loop, pipes: Pipes) -> None:
    """More than pipes hold."""
    pipes.transport.resumeProducing()
    data, at = os.urandom(MIB), 0
    pipes.party.say_more(MIB)
    while len(pipes.party.data) < MIB or len(pipes.got) < MIB:
        if at < MIB:
            with contextlib.suppress(BlockingIOError):
                at += os.write(pipes.feed, data[at : at + (1 << 16)])
        pipes.read()
    assert pipes.party.data == data
    assert pipes.got == pipes.party.sent
