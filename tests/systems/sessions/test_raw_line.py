"""One raw connection: who takes nothing, and who does not end, is ended; what it is counted for."""

from collections.abc import Iterator
from typing import Any

import pytest

from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target
from revtunnel.sockets.ways.websocket import WebSocketEnd, unread
from revtunnel.streams.clients import Clients
from revtunnel.systems.sessions.raw_end import RawEnd
from revtunnel.systems.sessions.session_life import Role
from revtunnel.systems.sessions.session_routes import _RawLine
from tests.support.epoll import Loop, own_reactor
from tests.support.session_room import PEER, SessionRoom
from tests.support.web_ends import LIMITS, join_upgraded


@pytest.fixture
def loop(no_leaks: None) -> Iterator[Loop]:
    with own_reactor() as loop:
        yield loop


class Place:
    """A raw connection whose client waits for its stream, and the person's end of it."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.room = room = SessionRoom()
        self.session, nonce = room.begin("ana", "console")
        came = room.live.enter(nonce, self.session.id, PEER, "console")
        near, far = join_upgraded(loop, tcp=True)
        self.person = WebSocketEnd(loop.reactor, near, LIMITS)
        self.end = RawEnd(loop.reactor, far, LIMITS)
        self.line = _RawLine(room.live, came, PEER, self.end)
        told: Any = ("plc-1", "console", Target("10.0.0.5", 23), lambda client: "", lambda client, word: None)
        clients = Clients(loop.reactor, *told, self.line.left)
        self.line.client = clients.client(self.end)
        room.live.attach(self.session, came.seat, self.line)
        self.line.begun = True
        clients.let_in(self.line.client)

    @property
    def seats(self) -> int:
        """People who are connected."""
        return sum(seat.role is not Role.DEVICE for seat in self.session.seats.values())

    def close(self) -> None:
        self.person.abort()
        self.line.client.abort()
        self.loop.until(lambda: self.line.over, "its end")


@pytest.fixture
def place(loop: Loop) -> Iterator[Place]:
    place = Place(loop)
    yield place
    place.close()


def closed(place: Place) -> tuple[int, str]:
    """What the person is told."""
    view = memoryview(bytearray(65536))

    def read() -> bool:
        try:
            while place.person.read_into(view):
                pass
        except OSError:
            return True
        return place.person.closed is not None

    place.loop.until(read, "a close")
    return place.person.closed or (0, "")


def test_one_who_takes_nothing_is_cut_when_its_time_is_up(place: Place) -> None:
    """Counted from the last byte that it took; one that has nothing to take has all the time."""
    line, now = place.line, place.room.live.now()
    line.look(now + 10_000.0)
    while place.end.write(b"x" * 65536):
        pass
    line.look(now + 10_001.0)
    line.look(now + 10_000.0 + LIMITS.stall)
    assert not line.over
    line.look(now + 10_001.0 + LIMITS.stall)
    place.loop.until(lambda: line.over, "its end")
    assert place.seats == 0


def frames_of(end: WebSocketEnd) -> int:
    """How many came, when its owner has read all that is there."""
    while end.read_into(memoryview(bytearray(65536))):
        pass
    return end.wire.frames


def test_w10_a_silent_one_is_pinged_for_balancers(place: Place) -> None:
    """After ``keepalive``, below the minute of a proxy; again each time, for as long as it answers."""
    line, loop, now = place.line, place.loop, place.room.live.now()
    line.look(now)
    line.look(now + LIMITS.keepalive - 1.0)
    for times in (1, 2, 3):
        now += LIMITS.keepalive
        for later in range(3):
            line.look(now + later)
        loop.until(lambda times=times: frames_of(place.person) >= times, "a ping")
        loop.until(lambda times=times: frames_of(place.end) >= times, "its answer")
        line.look(now)
    assert frames_of(place.person) == 3 and not line.over


def test_w6_one_that_answers_no_ping_is_cut(place: Place) -> None:
    """Its seat is free again; not while it may have answered and we do not read it."""
    line, now = place.line, place.room.live.now()
    line.look(now)
    line.look(now + LIMITS.keepalive)
    line.look(now + LIMITS.keepalive + LIMITS.answer - 1.0)
    assert not line.over
    line.look(now + LIMITS.keepalive + LIMITS.answer)
    place.loop.until(lambda: line.over, "its end")
    assert place.seats == 0


def test_w12_one_whose_service_takes_nothing_is_not_taken_for_dead(place: Place) -> None:
    """What it says waits in our kernel, its pongs behind it."""
    line, now = place.line, place.room.live.now()
    place.person.write(b"x" * 1000)
    place.loop.until(lambda: unread(place.end.inner), "bytes in our kernel")
    for seconds in range(0, 600, 5):
        line.look(now + seconds)
    assert not line.over


def test_a_close_that_is_not_answered_has_its_time(place: Place) -> None:
    """Ours; then it is cut."""
    line, now = place.line, place.room.live.now()
    assert place.end.end_writing()
    line.look(now)
    line.look(now + LIMITS.closing - 1.0)
    assert not line.over
    line.look(now + LIMITS.closing)
    place.loop.until(lambda: line.over, "its end")


def test_a_session_that_ends_says_its_word(place: Place) -> None:
    """Whatever its parts would have said."""
    place.line.end("idle", "")
    assert closed(place) == (4000 + Ended.IDLE, "idle")
    place.loop.until(lambda: place.line.over, "its end")
    assert place.seats == 0


def test_a_refused_client_says_why(place: Place) -> None:
    """With the code of what it comes to."""
    place.line.client.refuse("device-absent")
    code, reason = closed(place)
    assert (code, reason.endswith("device-absent")) == (4000 + Ended.LINK_LOST, True)
