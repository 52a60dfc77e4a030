"""Sockets that are told every change once: on Twisted's turn and on ours."""

import select
import socket
from collections.abc import Iterator

import pytest
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionLost
from twisted.python.failure import Failure

from revtunnel.sockets.reactor_turn import shorten_turns
from revtunnel.sockets.watch import CHANGES, HANGUPS, OVER, Watch


class Told:
    """One that keeps what it is told, and reads nothing."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fileno = sock.fileno
        self.told: list[int] = []
        self.lost: list[Failure] = []
        self.fault: Exception | None = None

    def logPrefix(self) -> str:
        """Twisted calls this."""
        return "-"

    def doRead(self) -> None:
        """Readable and nothing else."""
        self.happened(select.EPOLLIN)

    def happened(self, event: int) -> None:
        """All of it."""
        self.told.append(event)
        if self.fault is not None:
            raise self.fault

    def connectionLost(self, reason: Failure) -> None:
        """After a fault of its own."""
        self.lost.append(reason)


class Room:
    """A reactor, and a socket pair of which one is watched."""

    def __init__(self, our_turn: bool) -> None:
        self.reactor = EPollReactor()
        if our_turn:
            assert shorten_turns(self.reactor)
        self.before = dict(self.reactor._selectables)
        near, self.far = socket.socketpair()
        self.one = Told(near)
        self.watch = Watch.of(self.reactor)

    def turn(self) -> list[int]:
        """What was told in a turn, and in none after it."""
        for _ in range(3):
            self.reactor.iterate(0)
        told, self.one.told = self.one.told, []
        return told


@pytest.fixture(params=[False, True], ids=["Twisted's turn", "ours"])
def room(request: pytest.FixtureRequest) -> Iterator[Room]:
    room = Room(request.param)
    yield room
    assert room.reactor._selectables == room.before
    room.one.sock.close()
    room.far.close()
    for reader in room.reactor.removeAll():
        reader.connectionLost(Failure(ConnectionLost()))
    room.reactor._poller.close()


def test_each_change_is_told_once_and_what_is_left_when_asked(room: Room) -> None:
    """Bytes that nobody reads are no second event; ``again`` says that they are there."""
    room.watch.add(room.one)
    assert room.turn() == []
    room.far.send(b"1")
    assert room.turn() == [select.EPOLLIN]
    assert room.turn() == []
    room.watch.again(room.one.fileno())
    assert room.turn() == [select.EPOLLIN]
    room.watch.again(room.one.fileno(), CHANGES | select.EPOLLOUT)
    assert room.turn() == [select.EPOLLIN | select.EPOLLOUT]
    room.far.shutdown(socket.SHUT_WR)
    (event,) = room.turn()
    assert event & OVER == select.EPOLLRDHUP
    room.watch.closes(room.one.fileno())


def test_what_has_happened_before_is_told_too(room: Room) -> None:
    """Of one that is watched for hang-ups alone, no byte."""
    room.far.send(b"1")
    room.watch.add(room.one, HANGUPS)
    assert room.turn() == []
    room.far.close()
    (event,) = room.turn()
    assert event & OVER and not event & select.EPOLLIN
    room.watch.leave(room.one.fileno())


def test_another_has_it_without_asking_the_kernel(room: Room) -> None:
    """Its events go to whoever has it now; who left hears of nothing."""
    heir = Told(room.one.sock)
    room.watch.add(room.one)
    room.watch.belongs(heir)
    room.far.send(b"1")
    assert (room.turn(), heir.told) == ([], [select.EPOLLIN])
    room.watch.leave(room.one.fileno())
    room.far.send(b"2")
    assert (room.turn(), len(heir.told)) == ([], 1)
    room.reactor.addReader(room.one)  # type: ignore[arg-type]
    assert room.turn()[0] == select.EPOLLIN
    room.reactor.removeReader(room.one)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")
def test_a_fault_of_one_is_told_to_it_and_ends_nothing_else(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logged, and its own affair."""
    faults: list[object] = []
    monkeypatch.setattr("twisted.python.log.err", lambda *about: faults.append(about))
    room.watch.add(room.one)
    room.one.fault = RuntimeError("a bug")
    room.far.send(b"1")
    room.turn()
    assert len(room.one.lost) == 1 and faults
    room.one.fault = None
    room.far.send(b"2")
    assert room.turn() == [select.EPOLLIN]
    room.watch.closes(room.one.fileno())
