"""Who watches a terminal: what he is shown, what he may not say, and that he holds up nobody."""

import json
from typing import Any

import pytest

from revtunnel.ground.errors import LocalError
from revtunnel.ground.reasons import Ended
from revtunnel.systems.sessions.session_life import Role
from revtunnel.systems.sessions.session_watching import (
    ANEW,
    BEHIND,
    KEPT,
    PIECE,
    Screens,
    Terminal,
    WatchLine,
)
from tests.support.session_room import PEER, SessionRoom


class Socket:
    """In the place of his WebSocket: it takes ``room`` bytes."""

    def __init__(self) -> None:
        self.room = BEHIND
        self.sent: list[bytes | str] = []
        self.ends: list[tuple[str, int, str]] = []

    def send(self, message: bytes | str) -> bool:
        """As WebSocketMessages says."""
        if self.room <= 0:
            raise LocalError("sent after no was said")
        assert len(message) <= PIECE
        self.sent.append(message)
        self.room -= len(message)
        return self.room > 0

    def close(self, code: int, reason: str) -> None:
        """In order."""
        self.ends.append(("close", code, reason))

    def abort(self, code: int, reason: str) -> None:
        """At once."""
        self.ends.append(("abort", code, reason))

    @property
    def seen(self) -> bytes:
        """The terminal's bytes."""
        return b"".join(each for each in self.sent if isinstance(each, bytes))

    @property
    def said(self) -> list[Any]:
        """The texts."""
        return [json.loads(each) for each in self.sent if isinstance(each, str)]


class Watched(SessionRoom):
    """ana has a terminal at the console, ben may watch."""

    def __init__(self) -> None:
        super().__init__()
        self.grant("ben", "observe")
        self.session, self.nonce = self.begin("ana", "console")
        self.screens = Screens()
        self.terminal = self.screens.enter(self.session.id, "console")

    def watcher(self) -> tuple[WatchLine, Socket]:
        """ben comes."""
        nonce = self.live.share(self.session.id, "ana", "ben", Role.WATCH, PEER)
        came = self.live.enter(nonce, self.session.id, PEER, "console")
        line, socket = WatchLine(self.live, came, PEER, self.screens, "console"), Socket()
        line.socket = socket  # type: ignore[assignment]
        self.live.attach(self.session, came.seat, line)
        self.terminal.watch(line)
        return line, socket

    @property
    def watching(self) -> int:
        """Seats of those who do."""
        return sum(seat.role is Role.WATCH for seat in self.session.seats.values())


def test_who_comes_sees_the_screen_and_what_is_shown_from_then_on() -> None:
    """The last of it, and no more than is kept."""
    room = Watched()
    told, over = room.terminal.begin()
    told(b"old" + b"x" * KEPT)
    told(b"login: ")
    room.terminal.shaped(132, 50)
    _, socket = room.watcher()
    assert socket.said == [{"live": True}, {"size": [132, 50]}]
    assert socket.seen.endswith(b"xlogin: ") and b"old" not in socket.seen and len(socket.seen) < KEPT + 8
    told(b"ana\r\n")
    assert socket.seen.endswith(b"login: ana\r\n")
    room.terminal.shaped(80, 24)
    over()
    assert socket.said[2:] == [{"size": [80, 24]}, {"live": False}]
    second, _ = room.terminal.begin()
    told(b"late")  # of the connection that is over
    second(b"new")
    assert socket.seen.endswith(b"ana\r\n" + ANEW + b"new") and socket.said[4:] == [{"live": True}]
    third, past = room.watcher()
    assert past.seen == b"new" and not third.over


@pytest.mark.parametrize("message", [b"rm -rf /\r", "text", b""])
def test_who_says_anything_is_ended(message: bytes | str) -> None:
    """And his seat is free."""
    room = Watched()
    line, socket = room.watcher()
    assert room.watching == 1
    line.received(message)
    [(how, code, reason)] = socket.ends
    assert (how, code, reason) == ("abort", 4000 + Ended.NOT_ALLOWED, "not-allowed: who watches says nothing")
    assert (room.watching, line.over) == (0, True)
    line.closed(1006, "")
    line.see(b"more")
    assert socket.sent == ['{"live": false}']


def test_who_does_not_keep_up_is_ended_and_the_others_go_on() -> None:
    """In the middle of what is shown, whose pieces are bounded."""
    room = Watched()
    told, _ = room.terminal.begin()
    slow, fast = room.watcher(), room.watcher()
    slow[1].room = 2 * PIECE
    told(b"y" * 5 * PIECE)
    assert [how for how, _, _ in slow[1].ends] == ["abort"]
    assert slow[0].over and not fast[0].over
    assert len(fast[1].seen) == 5 * PIECE
    assert room.watching == 1


def test_the_end_of_the_session_is_his_too() -> None:
    """With its word; nothing of a session is kept when nobody fills or watches it."""
    room = Watched()
    line, socket = room.watcher()
    room.live.unshare(room.session.id, "ana", "ben")
    assert socket.ends == [("close", 4000 + Ended.REFUSED, "revoked")]
    assert line.over and room.watching == 0 and len(room.screens) == 1
    room.screens.leave(room.session.id, "console")
    assert len(room.screens) == 0
    assert isinstance(room.screens.enter(room.session.id, "console"), Terminal)


def test_what_he_sees_is_no_traffic_of_the_session() -> None:
    """An idle session ends under him."""
    room = Watched()
    line, _ = room.watcher()
    assert (line.moved(), line.connections()) == ((0, 0), 0)
