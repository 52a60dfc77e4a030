"""Channels of a session that go on by data sockets: real ends, both ways, and every way in which one ends."""

from collections.abc import Iterator
from typing import Any

import pytest

from revtunnel.ground.facts import ChannelEnded
from revtunnel.ground.reasons import Ended
from tests.support.data_world import SERIAL, DataWorld
from tests.support.session_ends import Session
from tests.support.world import Party, pattern

MIB = 1 << 20


class Joined:
    """A device with data sockets, and a session to it."""

    def __init__(self, world: DataWorld) -> None:
        self.world = world
        streams = world.switchboard.client_streams
        self.left: list[Any] = []
        factory = streams.clients_by_name(SERIAL, "echo", self.left.append)
        self.session = Session(world.loop, {"echo": factory})

    def talk(self) -> tuple[Party, Any]:
        """A program and its service."""
        program = Party("program")
        self.session.open("echo", program)
        return program, self.world.service()

    def row(self) -> Any:
        """The one stream, as listings have it."""
        (row,) = self.world.switchboard.streams.page()
        return row


@pytest.fixture
def joined() -> Iterator[Joined]:
    with DataWorld("socket") as world:
        joined = Joined(world)
        yield joined
        joined.session.close()
        world.check_rest()


def test_bytes_and_ends_of_file_both_ways(joined: Joined) -> None:
    """Bulk, then each end of file by itself; the row and the fact have the bytes of it."""
    world = joined.world
    program, service = joined.talk()
    program.say_more(2 * MIB)
    assert world.hear(service, 2 * MIB) == program.sent
    data = pattern("service", 3 * MIB)
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[service.send(rest) :]
        except BlockingIOError:
            world.turn(1)
    world.until(lambda: len(program.data) == len(data))
    assert program.data == data
    assert joined.row().carrier == "socket"
    assert joined.row().bytes_to_device == 2 * MIB
    program.finish()
    assert world.ending(service) == "end of file"
    service.send(b"the last words")
    service.close()
    world.until(lambda: not program.here)
    assert not program.was_reset
    assert program.data.endswith(b"the last words")
    (fact,) = world.ended()
    assert (fact.reason.word, fact.bytes_to_device) == ("closed", 2 * MIB)
    assert fact.bytes_to_client == len(data) + len(b"the last words")
    assert joined.left


def test_early_bytes_go_with_it(joined: Joined) -> None:
    """A program that speaks and ends before its service is there."""
    program = Party("program")
    joined.session.open("echo", program)
    program.say(b"early")
    program.finish()
    service = joined.world.service()
    assert joined.world.hear(service, 5) == b"early"
    assert joined.world.ending(service) == "end of file"
    service.send(b"answer")
    service.close()
    joined.world.until(lambda: not program.here)
    assert program.data == b"answer"


def test_a_reset_of_either_side_is_one_of_the_other(joined: Joined) -> None:
    """And says whose it was."""
    world = joined.world
    program, service = joined.talk()
    program.say(b"x")
    world.hear(service, 1)
    program.abort()
    assert world.ending(service) == "reset"
    program, service = joined.talk()
    program.say(b"x")
    world.hear(service, 1)
    service.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SO_LINGER
    service.close()
    world.until(lambda: not program.here)
    assert program.was_reset
    facts = world.ended(2)
    assert [fact.reason.word for fact in facts] == ["reset-by-peer"] * 2
    assert [fact.detail.partition(":")[0] for fact in facts] == ["client", "agent"]


def test_who_takes_nothing_holds_a_window(joined: Joined) -> None:
    """The program is stopped, and everything comes in the end."""
    world = joined.world
    program, service = joined.talk()
    program.say_more(32 * MIB)
    world.until(lambda: joined.row().bytes_to_device > MIB)
    world.turn(200)
    assert joined.row().waiting_to_device <= 4 * MIB
    assert world.hear(service, 32 * MIB) == program.sent


def test_an_operator_ends_it(joined: Joined) -> None:
    """The program's side is told the reason."""
    world = joined.world
    program, service = joined.talk()
    program.say(b"x")
    world.hear(service, 1)
    number = joined.row().number
    device = world.switchboard.fleet.get(SERIAL)
    assert device is not None and device.carrier is not None
    assert device.carrier.end_stream(number, Ended.OPERATOR, "by a test")
    world.until(lambda: not program.here)
    assert world.ending(service) == "reset"
    assert joined.session.at_client.ended == [("echo", "operator", "by a test")]
    assert [fact.reason.word for fact in world.of(ChannelEnded)] == ["operator"]


def test_the_session_ends_with_streams(joined: Joined) -> None:
    """All of them are reset, the services too."""
    world = joined.world
    program, service = joined.talk()
    program.say(b"x")
    world.hear(service, 1)
    joined.session.sever()
    world.until(lambda: not program.here)
    assert world.ending(service) == "reset"
    assert program.was_reset
