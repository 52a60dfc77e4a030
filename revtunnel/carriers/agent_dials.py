"""What of an agent's data sockets the data plane in C brings, opens and ends without Python.

The rules: only a link without TLS, proxy and WebSocket is served so, and only targets for which a dial needs
nothing but a connect: an address, no PROXY header, no places. The plane is told of them by the dialler's list
whenever that changes, before anything else is done. What it gives back goes on as an ``AgentSocket`` in the
state that it is in, so all words, refusals and retries are said there. A stream that lives for a while comes
here as it runs; a short one is two facts. Whoever asks for anything that is counted has it told first.

Source: wire/link-extension.md "Data sockets"; _pump_dials.c; ours.
"""

import errno
import os
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any
from typing import Protocol as Typing

from revtunnel.ground.facts import ChannelEnded, ChannelOpened, Report
from revtunnel.ground.limits import AgentLimits, RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target, place
from revtunnel.sockets.addresses import socket_address
from revtunnel.sockets.data_plane import DataPlane
from revtunnel.sockets.ends import PlainEnd, said
from revtunnel.streams.commands import Command, encode_connect
from revtunnel.streams.dialler import Dialler
from revtunnel.streams.frames import encode_frame

__all__ = ["AgentDials", "Direct"]

MISSED, IDLE, FAILED, DIED, TAKEN, RUNS, CLOSED = range(1, 8)  # what a row says, as in _pump_dials.c
GOALS = 256  # targets that the plane looks through
LATE = 30.0  # seconds; longer than anything of the plane's is untold
Direct = Callable[[Any], tuple[str, int] | None]  # of a link: address and port that a bare connect reaches
Place = tuple[str, int, int, bool]  # address, port, scope, whether it stays within this machine


class GivenBack(Typing):
    """What is told to the owner of all data sockets."""

    report: Report

    def now(self) -> float:
        """Monotonic seconds."""

    def goes_on(self, link: Any, end: PlainEnd, number: int) -> Any:
        """The AgentSocket that a socket of the plane's becomes."""

    def missing(self, link: Any, detail: str) -> None:
        """No connection came of a ticket."""

    def settled(self) -> None:
        """All was told that there was to tell."""


@dataclass(slots=True)
class _Owner:
    """A link whose tickets the plane has."""

    link: Any
    host: str
    port: int
    number: int
    left: int = 0  # of which nothing was heard yet
    gone: bool = False


class AgentDials:
    """The plane's part of the data sockets of one agent, which is ``data``."""

    def __init__(self, data: GivenBack, plane: DataPlane, dialler: Dialler, direct: Direct) -> None:
        self._data = data
        self._plane = plane
        self._pump = plane.begin_dials(self.told, self.settled)
        self._dialler = dialler
        self._direct = direct
        self._numbers = count(1)
        self._owners: dict[int, _Owner] = {}
        self._targets: dict[int, Target] = {}
        self._ids: dict[Target, int] = {}  # of those on the list
        self._gone: deque[tuple[float, int]] = deque()  # of others, and until when dials of them may be told
        self._limits = AgentLimits()
        dialler.on_offer = self.offered

    def take(self, limits: AgentLimits, relay: RelayLimits) -> None:
        """Other limits from now on. Half of the dials in flight are the plane's while it has a link."""
        self._limits = limits
        self._share()
        self._pump.dial_limits(
            (limits.data_dials, limits.connect),
            (limits.dials // 2, limits.dial),
            (relay.first, relay.turn, relay.calm, relay.pool),
        )
        self.offered()

    def offered(self) -> None:
        """The dialler's list has changed: nothing else is dialled from now on."""
        simple = [(target, where) for target in self._dialler.simple() if (where := _place(target))][:GOALS]
        now, listed = self._data.now(), {target for target, _ in simple}
        for target in [each for each in self._ids if each not in listed]:
            self._gone.append((now + self._limits.dial + LATE, self._ids.pop(target)))
        self._pump.allow_goals([(self._id(target), _connect(target), where) for target, where in simple])
        while self._gone and self._gone[0][0] <= now:
            del self._targets[self._gone.popleft()[1]]

    def _share(self) -> None:
        self._dialler.elsewhere = self._limits.dials // 2 if self._owners else 0

    def _id(self, target: Target) -> int:
        """The number by which the plane names a target."""
        if target not in self._ids:
            number = self._ids[target] = next(self._numbers)
            self._targets[number] = target
        return self._ids[target]

    # -- tickets

    def bring(self, link: Any, tickets: list[bytes]) -> list[bytes]:
        """Bring a socket for each ticket; those that are left: for want of memory, or of a direct way."""
        owner = self._owner_of(link)
        if owner is None:
            return tickets
        where = _where(owner.host, owner.port)
        try:
            self._plane.begin()
        except OSError:  # no thread: as well in Python
            where = None
        if where is None:
            return tickets
        brought = self._pump.bring(owner.number, where, b"".join(tickets), self._limits.data_ticket)
        owner.left += brought
        return tickets[brought:]

    def _owner_of(self, link: Any) -> _Owner | None:
        direct = self._direct(link)
        if direct is None:
            return None
        for owner in self._owners.values():
            if owner.link is link and (owner.host, owner.port) == direct:
                return owner
        number = next(self._numbers)
        owner = self._owners[number] = _Owner(link, *direct, number)
        self._share()
        return owner

    # -- what is asked

    def counts(self) -> tuple[int, int]:
        """Sockets that the plane has, and those that carry a channel or are about to."""
        (there, used), untold = self._pump.dial_counts(), self._plane.untold
        return there + untold, used + untold

    def settle(self) -> None:
        """Be told of all that has happened, of streams that have just begun, too."""
        self._plane.fetch(young=True)

    def take_back(self, link: Any = None, number: int = -1, used: bool = True) -> None:
        """What the plane has of a link, or of all, goes on in Python; without those that are ``used``."""
        self._plane.fetch()
        owners = [each for each in self._owners.values() if link is None or each.link is link]
        for owner in owners:
            owner.left -= self._pump.withdraw(owner.number, number, used)
        self._plane.fetch()

    def link_gone(self, link: Any, dead: bool) -> None:
        """A link is over: what waits goes with it, and if its path is ``dead`` its streams as well."""
        self.settle()
        self.take_back(link, used=dead)
        for owner in [each for each in self._owners.values() if each.link is link]:
            owner.gone = True
            self._forget(owner)

    def look(self) -> None:
        """Sockets that wait for longer than from one look to the next are kept alive."""
        self._pump.keep_alive_dials()

    # -- what the plane tells

    def told(self, row: tuple[Any, ...]) -> None:
        """One row of _pump_dials.c."""
        what, number, *rest = row
        owner = self._owners[number]
        owner.left -= 1
        if what == MISSED:
            self._missed(owner, *rest)
        elif what == RUNS:
            self._runs(owner, *rest)
        elif what == CLOSED:
            self._closed(owner, *rest)
        else:
            self._given(owner, what, *rest)
        self._forget(owner)

    def settled(self) -> None:
        """There are no more rows."""
        self._data.settled()

    def _forget(self, owner: _Owner) -> None:
        if owner.gone and not owner.left:
            self._owners.pop(owner.number, None)
            self._share()

    def _missed(self, owner: _Owner, number: int, code: int) -> None:
        """No connection came."""
        where = place(owner.host, owner.port)
        if code == errno.ETIMEDOUT:
            self._data.missing(owner.link, f"{where} did not answer in {self._limits.connect:g} s")
        elif code != errno.ECANCELED:
            self._data.missing(owner.link, f"{where}: {_words(code)}")

    def _given(
        self, owner: _Owner, what: int, number: int, age: float, code: int, descriptor: int, data: bytes
    ) -> None:
        """A socket that the plane does nothing more with."""
        mine = self._data.goes_on(owner.link, _end(owner.host, owner.port, descriptor), number)
        mine.goes_on(data, age, what != IDLE, code if what == FAILED else 0)
        if what == DIED:
            mine.dies(_words(code))

    def _runs(
        self,
        owner: _Owner,
        number: int,
        goal: int,
        opened: float,
        age: float,
        handle: int,
        near: int,
        far: int,
    ) -> None:
        """A stream that lives."""
        target = self._targets[goal]
        mine = self._data.goes_on(owner.link, _end(owner.host, owner.port, near), number)
        mine.runs(target, _end(target.host, target.port, far), age, opened, self._plane, handle)

    def _closed(
        self,
        owner: _Owner,
        number: int,
        goal: int,
        opened: float,
        seconds: float,
        side: int,
        code: int,
        to_far: int,
        to_near: int,
    ) -> None:
        """A stream that was."""
        link, target = owner.link, str(self._targets[goal])
        self._data.report(ChannelOpened(link.serial, number, target, link.peer, round(opened * 1000, 3)))
        reason, detail = Ended.CLOSED, ""
        if side >= 0:
            reason, detail = Ended.RESET_BY_PEER, f"{('server', 'service')[side]}: {_words(code)}"
        who = link.serial, number, target, link.peer
        self._data.report(ChannelEnded(*who, reason, detail, round(seconds, 3), to_far, to_near))


def _words(code: int) -> str:
    return said(OSError(code, os.strerror(code)))


def _connect(target: Target) -> bytes:
    return encode_frame(Command.CONNECT, 0, encode_connect(target))


def _place(target: Target) -> Place | None:
    return _where(target.host, target.port) if target.is_literal else None


def _where(host: str, port: int) -> Place | None:
    """An address as the plane wants it; None: there is no such interface."""
    try:
        _, address = socket_address(host, port)
    except (OSError, ValueError):
        return None
    scope = address[3] if len(address) > 2 else 0
    return address[0], port, scope, host == "::1" or host.startswith("127.")


def _end(host: str, port: int, descriptor: int) -> PlainEnd:
    """A connection of the plane's, which has set its options."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
    return PlainEnd(socket.socket(family, kind, 0, descriptor), place(host, port), inherits=True)
