"""Data sockets that wait: when the pool is refilled for those that have come."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.task import Clock

from revtunnel.carriers.stock import Spare
from revtunnel.ground.limits import RelayLimits
from revtunnel.sockets.ends import End, PlainEnd


class Pump:
    """Has room for so many sockets in its one stock."""

    def __init__(self, room: int) -> None:
        self.room = room

    def put(self, stock: int, sockets: list[tuple[int, int]]) -> int:
        done = min(self.room, len(sockets))
        self.room -= done
        return done


class Plane:
    def __init__(self, room: int) -> None:
        self.pump = Pump(room)

    def lend(self, make: Any, owner: Any) -> int:
        return 1


class Pool:
    """Counts its refills."""

    def __init__(self) -> None:
        self.reactor = Clock()
        self.relay_limits = RelayLimits()
        self.refills = 0

    def used(self, count: int) -> None:
        raise AssertionError("nobody took one")

    def refill(self) -> None:
        self.refills += 1

    def socket(self, end: End, number: int) -> Any:
        return number


@pytest.fixture
def end() -> Iterator[PlainEnd]:
    with socket.socket() as sock:
        yield PlainEnd(sock, "agent")


def test_without_a_plane_each_one_refills_the_pool(end: PlainEnd) -> None:
    pool = Pool()
    spare = Spare(pool)
    for number in range(3):
        spare.put(end, number)
    assert (len(spare), pool.refills) == (3, 3)


@pytest.mark.parametrize("room", [0, 3])
def test_all_of_one_turn_refill_it_once(end: PlainEnd, room: int) -> None:
    pool = Pool()
    spare = Spare(pool)
    spare.lend(Plane(room))  # type: ignore[arg-type]
    for number in range(3):
        spare.put(end, number)
    assert pool.refills == 0
    pool.reactor.advance(0)
    assert pool.refills == 1
    assert len(spare.here) == 3 - room
