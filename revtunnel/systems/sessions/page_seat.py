"""A browser in a session, at the web page of one service: what its cookie stands for.

Rule of this file: it is the Line of one seat, however many connections the browser has; with the seat all of
them are cut.

Source: session_seats.py; ours.
"""

from collections.abc import Callable
from typing import Any
from typing import Protocol as Typing

from revtunnel.ground.reasons import Ended
from revtunnel.systems.sessions.page_places import PagePlace
from revtunnel.systems.sessions.remote_sessions import Came
from revtunnel.systems.sessions.session_seats import HOW_ENDED

__all__ = ["MOST", "PageSeat"]

MOST = 64  # connections of one browser to one page


class _Connection(Typing):
    @property
    def moved(self) -> tuple[int, int]:
        """Bytes to the device and to the client."""

    def cut(self, ended: Ended, word: str) -> None:
        """End it with resets on both sides."""


class PageSeat:
    """One."""

    def __init__(
        self, came: Came, where: PagePlace, service: str, spoken: str, peer: str, left: Callable[[], None]
    ) -> None:
        """``left``: it is over, and its cookie good for nothing."""
        self.peer = peer
        self.session = came.session
        self.seat = came.seat
        self.serial = came.session.wish.serial
        self.service = service
        self.where = where
        self.spoken = spoken
        self.opened = 0  # connections to the device
        self.forget: Callable[[], Any] = lambda: None
        self._left = left
        self._connections: set[_Connection] = set()
        self._sums = 0, 0  # of connections that are gone

    def join(self, connection: _Connection) -> bool:
        """A connection of this browser; False: it has too many."""
        if len(self._connections) >= MOST and connection not in self._connections:
            return False
        self._connections.add(connection)
        return True

    def part(self, connection: _Connection) -> None:
        """One is gone."""
        if connection in self._connections:
            self._connections.remove(connection)
            (down, up), (more_down, more_up) = self._sums, connection.moved
            self._sums = down + more_down, up + more_up

    def leave(self) -> None:
        """The browser has another, or its session has ended already."""
        self.end("replaced", "")
        self._left()

    # -- as a Line

    def moved(self) -> tuple[int, int]:
        all_ = [self._sums, *(each.moved for each in self._connections)]
        return sum(each[0] for each in all_), sum(each[1] for each in all_)

    def connections(self) -> int:
        return self.opened

    def say(self, said: dict[str, Any]) -> None:
        """Nothing: the page is the device's."""

    def end(self, word: str, detail: str) -> None:
        self.forget()
        for each in [*self._connections]:
            each.cut(HOW_ENDED.get(word, Ended.OPERATOR), word)

    def look(self, now: float) -> None:
        """Nothing: connections are looked at whosever they are."""
