"""Listening sockets as settings change: which are closed, which opened, which left as they are."""

import errno

import pytest
from twisted.internet.error import CannotListenError

from revtunnel.sockets.ends import End
from revtunnel.sockets.listening import Came
from revtunnel.sockets.open_listeners import OpenListeners, WantedListener


def nobody(end: End) -> None:
    """Nobody comes."""
    raise NotImplementedError


class Socket:
    """One listening socket."""

    def __init__(self, room: "Room", place: tuple[str, int], port: int) -> None:
        self.room, self.key, self.port = room, place, port
        self.place = f"{place[0]}:{port}"
        self.is_open = port not in room.taken
        if self.is_open:
            room.steps.append(f"open {self.place}")

    def stop(self) -> None:
        """Closed."""
        self.room.steps.append(f"{'close' if self.is_open else 'forget'} {self.place}")


class Room:
    """What opens them, as Listeners does; ``taken`` are other programs' ports."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.taken: set[int] = set()
        self.open = OpenListeners(self)  # type: ignore[arg-type]

    def listen(self, host: str, port: int, backlog: int, came: Came, they_begin: bool = False) -> Socket:
        """As ``Listeners.listen``."""
        if port in self.taken:
            raise CannotListenError(host, port, OSError(errno.EADDRINUSE, "Address already in use"))
        return Socket(self, (host, port), port or 49_152)

    def keep(
        self,
        name: str,
        host: str,
        port: int,
        backlog: int,
        came: Came,
        must: bool = False,
        they_begin: bool = False,
    ) -> Socket:
        """As ``Listeners.keep``."""
        return self.listen(host, port, backlog, came) if must else Socket(self, (host, port), port or 49_152)

    def change(self, *wanted: WantedListener) -> tuple[list[str], list[str]]:
        """What could not be opened, and what was done."""
        self.steps = []
        self.open.close_others(wanted)
        return self.open.open_missing(wanted), self.steps


def want(name: str, port: int, host: str = "h") -> WantedListener:
    """An address of a listener."""
    return WantedListener(name, host, port, 50, nobody)


def test_what_is_gone_is_closed_before_what_is_new_is_opened() -> None:
    """A port may go from one listener to another; what is wanted as before stays."""
    room = Room()
    room.open.start([want("a", 1), want("b", 2), want("b", 3)])
    assert room.open.places == "h:1, h:2, h:3"
    assert room.change(want("b", 4), want("b", 3), want("c", 1)) == (
        [],
        ["close h:1", "close h:2", "open h:4", "open h:1"],
    )
    assert room.open.places == "h:4, h:3, h:1"
    assert [listener.port for listener in room.open.of("b")] == [4, 3]
    assert room.change(want("b", 4), want("b", 3), want("c", 1)) == ([], [])
    room.open.stop()
    assert room.open.all == [] and room.steps == ["close h:4", "close h:3", "close h:1"]


def test_a_port_that_was_given_is_the_one_that_is_written_later() -> None:
    """``port 0`` was any; who writes the number down means the socket that there is."""
    room = Room()
    room.open.start([want("a", 0)])
    assert room.change(want("a", 0)) == ([], [])
    assert room.change(want("a", 49_152)) == ([], [])
    assert room.change(want("b", 49_152)) == ([], ["close h:49152", "open h:49152"])


def test_one_that_cannot_be_opened_is_told_and_hinders_no_other() -> None:
    """It is kept, to be tried again, and the next reload tries it at once; at a start it may be an error."""
    room = Room()
    room.taken = {2}
    error = "a: h:2 cannot be opened: Address already in use"
    assert room.change(want("a", 1), want("a", 2), want("b", 3)) == ([error], ["open h:1", "open h:3"])
    assert room.change(want("a", 1), want("a", 2), want("b", 3)) == ([error], ["forget h:2"])
    room.taken = set()
    assert room.change(want("a", 1), want("a", 2), want("b", 3)) == ([], ["forget h:2", "open h:2"])
    assert room.open.places == "h:1, h:2, h:3"
    room.taken = {9}
    with pytest.raises(CannotListenError):
        room.open.start([want("a", 9)._replace(must=True)])
