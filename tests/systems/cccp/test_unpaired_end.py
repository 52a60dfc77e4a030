"""An end without a partner: thrown away or unread, its leaving is heard; who is sent away hears an end."""

import contextlib
import socket

import pytest
from twisted.internet.epollreactor import EPollReactor

from revtunnel.sockets.ends import PlainEnd
from revtunnel.systems.cccp.proxy_sessions import SideMode
from revtunnel.systems.cccp.unpaired_end import UnpairedEnd, WithoutLf, part_from


class Room:
    """A reactor, an end and whoever is at the other side of it."""

    def __init__(self) -> None:
        self.reactor = EPollReactor()
        self.now = 0.0
        self.reactor.seconds = lambda: self.now
        self.other, mine = socket.socketpair()
        self.other.settimeout(5)
        self.end = PlainEnd(mine, "peer:1")
        self.gone: list[str] = []
        self.lone = UnpairedEnd(self.reactor, self.end, self.gone.append, b"early")

    def turn(self, count: int = 5) -> None:
        """Turns of the reactor."""
        for _ in range(count):
            self.reactor.iterate(0)


@pytest.mark.parametrize("manner", [SideMode.DISCARD, SideMode.HOLD])
@pytest.mark.parametrize("first", [b"", b"words"])
def test_leaving_is_heard(manner: SideMode, first: bytes) -> None:
    """Once, also behind bytes that nobody reads."""
    room = Room()
    room.lone.watch(manner)
    room.other.sendall(first)
    room.turn()
    assert room.gone == []
    room.other.close()
    room.turn()
    assert room.gone == [""]
    room.end.close()


def test_held_bytes_are_there_and_thrown_away_ones_are_not() -> None:
    """Manners may change; the early bytes go with the rest."""
    room = Room()
    room.lone.watch(SideMode.HOLD)
    room.other.sendall(b"held")
    room.turn()
    room.lone.leave()
    view = memoryview(bytearray(100))
    assert room.lone.early == b"early" and room.end.read_into(view) == 4
    room.lone.watch(SideMode.HOLD)
    room.lone.watch(SideMode.DISCARD)
    room.other.sendall(b"lost")
    room.turn()
    room.lone.leave()
    room.other.sendall(b"later")
    assert room.lone.early == b"" and room.end.read_into(view) == 5


@pytest.mark.parametrize("answers", [True, False])
def test_who_is_sent_away_hears_an_end_of_file(answers: bool) -> None:
    """What was written before is delivered though he goes on talking; the descriptor is freed in time."""
    room = Room()
    room.end.write(b"bye")
    room.other.sendall(b"unread")
    part_from(room.reactor, room.end, 2.0)
    room.turn()
    assert room.other.recv(10) == b"bye" and room.other.recv(10) == b""
    assert room.end.fileno() >= 0
    if answers:
        room.other.close()
    else:
        room.now += 2.1
    room.turn()
    assert room.end.fileno() == -1
    with contextlib.suppress(OSError):
        room.other.close()


@pytest.mark.parametrize(
    ("pieces", "heard"),
    [([b"\nab"], b"ab"), ([b"\n", b"ab"], b"ab"), ([b"a\nb"], b"a\nb"), ([b"\n\n"], b"\n")],
)
def test_one_line_feed_is_left_out(pieces: list[bytes], heard: bytes) -> None:
    """The very first byte only, whole or in pieces."""
    room = Room()
    end, view, found = WithoutLf(room.end), memoryview(bytearray(100)), b""
    for piece in pieces:
        room.other.sendall(piece)
        size = end.read_into(view)
        found += bytes(view[: size or 0])
    assert found == heard and end.read_into(view) is None
    room.other.close()
    assert end.read_into(view) == 0
