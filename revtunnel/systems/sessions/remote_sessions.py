"""All remote sessions of one server: starting them within limits, letting people in, ending them in time.

The rules: whether a person may is asked before (trust); here a nonce decides who comes in, and the table
(session_life.py) what comes of it. What a tick costs grows with what happens in it, not with the sessions.

::

    session = sessions.start(Wish("ana", "plc-7", ("ssh",)), now)
    nonce = sessions.nonce(session, Role.OWNER, "ana", now)      # to the client program, once
    came = sessions.enter(nonce, session.id, "client", now)      # at the endpoint; NonceRefused: no
    sessions.moved(session, 5, 0, now)
    for news in sessions.tick(now): ...                          # SeatsLost and SessionWarning, each once

Source: next/remote-sessions.md sections 2 and 3; issue 10, part 2.
"""

import heapq
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import NamedTuple

from revtunnel.systems.sessions.nonces import Bound, Nonces
from revtunnel.systems.sessions.session_life import (
    RemoteSession,
    Role,
    Seat,
    SessionEvent,
    SessionLimits,
    SessionRefused,
    SessionRequest,
    Warned,
)

__all__ = ["Came", "RemoteSessions", "SeatsLost", "SessionWarning"]

_INVITATIONS = (Role.WATCH, Role.USE, Role.TAKE)


class Came(NamedTuple):
    """Somebody was let in."""

    session: RemoteSession
    seat: Seat
    displaced: list[tuple[Seat, str]]  # connections to be ended, each with the word to say
    resume: str  # the nonce to come back with, if the connection is lost; "" for a device


class SeatsLost(NamedTuple):
    """Connections that have to be ended; whether the session is over with them it says itself."""

    session: RemoteSession
    seats: list[Seat]


class SessionWarning(NamedTuple):
    """A session will end soon; its people are to be told."""

    session: RemoteSession
    warned: Warned


class RemoteSessions:
    """Every session that runs, and the last that ended. ``random_bytes`` must not be guessable."""

    def __init__(self, limits: SessionLimits, random_bytes: Callable[[int], bytes]) -> None:
        self.limits = limits
        self.nonces = Nonces(random_bytes, limits.invitations, limits.spent)
        self._random_bytes = random_bytes
        self._running: dict[str, RemoteSession] = {}
        self._ended: dict[str, RemoteSession] = {}  # the oldest first
        self._owners: dict[str, set[str]] = {}  # whose session counts for whom: who started it
        self._devices: dict[str, set[str]] = {}
        self._heap: list[tuple[float, int, str]] = []  # when to look at a session, no later
        self._looked: dict[str, float] = {}  # the earliest of a session's times in the heap
        self._order = count()

    def __len__(self) -> int:
        """Sessions that run."""
        return len(self._running)

    def __iter__(self) -> Iterator[RemoteSession]:
        """Those that run, then those that ended, the last one first."""
        yield from self._running.values()
        yield from reversed(self._ended.values())

    def get(self, number: str) -> RemoteSession | None:
        """A session that runs, or one that ended of late."""
        return self._running.get(number) or self._ended.get(number)

    def running(self, number: str) -> RemoteSession:
        """One that runs.

        Raises:
            SessionRefused: ``unknown``, ``ended``.
        """
        session = self.get(number)
        if session is None:
            raise SessionRefused("unknown", "there is no such session")
        _refuse_ended(session)
        return session

    def of_device(self, serial: str) -> list[RemoteSession]:
        """The running sessions to a device."""
        return [self._running[each] for each in self._devices.get(serial, ())]

    # -- beginning

    def start(self, wish: SessionRequest, now: float) -> RemoteSession:
        """A session, for somebody whose right to it was found.

        Raises:
            SessionRefused: ``too-many``: in all, of the person, to the device.
        """
        limits = self.limits
        for what, has, most in (
            ("sessions run", len(self._running), limits.total),
            (f"sessions of {wish.owner}", len(self._owners.get(wish.owner, ())), limits.per_user),
            (f"sessions to {wish.serial}", len(self._devices.get(wish.serial, ())), limits.per_device),
        ):
            if has >= most:
                raise SessionRefused("too-many", f"{has} {what}, limit {most}")
        session = RemoteSession(self._random_bytes(16).hex(), wish, limits, now)
        self._running[session.id] = session
        self._owners.setdefault(wish.owner, set()).add(session.id)
        self._devices.setdefault(wish.serial, set()).add(session.id)
        self._look(session)
        return session

    def approve(self, session: RemoteSession, now: float) -> None:
        """The device's site said yes. LocalError: it was not asked, or the session is over."""
        session.step(SessionEvent.APPROVED, now)
        self._look(session)

    # -- nonces

    def nonce(
        self,
        session: RemoteSession,
        role: Role,
        person: str,
        now: float,
        browser: bool = False,
        page: str = "",
    ) -> str:
        """What the owner's client, or the device, comes in with; ``browser``: it goes into a web page.

        ``page``: it is for the page of this service of the device, and nothing else.

        Raises:
            SessionRefused: ``ended``, or ``too-many`` nonces of the session wait.
        """
        _refuse_ended(session)
        life = session.limits.browser_use if browser else session.limits.first_use
        return self.nonces.issue(Bound(session.id, role, person, page), now, now + life)

    def invite(
        self, session: RemoteSession, by: str, person: str, role: Role, now: float, life: float = 0.0
    ) -> str:
        """What a second person, whose rights were found, comes in with: to watch, use or take it.

        ``life``: seconds that it is good; 0: as every other nonce.

        Raises:
            SessionRefused: ``ended``, ``not-owner``, ``private``, ``no-take-over``, ``too-many``.
        """
        if role not in _INVITATIONS:
            raise ValueError(f"{role} is no invitation")
        _refuse_ended(session)
        if by != session.owner:
            raise SessionRefused("not-owner", f"only {session.owner} can share this session")
        if session.wish.private:
            raise SessionRefused("private", "this session is private and cannot be shared")
        if role is Role.TAKE and not session.wish.take_over:
            raise SessionRefused("no-take-over", "this session cannot be taken over")
        until = now + (life or session.limits.first_use)
        return self.nonces.issue(Bound(session.id, role, person), now, until)

    # -- coming and going

    def enter(self, text: str, number: str, side: str, now: float, person: str = "", token: str = "") -> Came:
        """Let in whoever shows a nonce at an endpoint of session ``number``; the rest as in ``Nonces.judge``.

        Raises:
            NonceRefused: with its word and HTTP status; nothing has changed.
            SessionRefused: ``not-approved``, ``no-take-over``, ``too-many``; nothing has changed.
        """
        bound = self.nonces.judge(text, number, side, now, person, token)
        session = self._running[number]  # with a session its nonces end
        before = session.owner
        seat, displaced = session.come(bound.role, bound.person, now)
        self.nonces.spend(text, token)
        if bound.role is Role.TAKE:
            self.nonces.withdraw(number, before)
        resume = ""
        if side == "client" and not token:
            resume = self.nonces.resume(Bound(number, seat.role, seat.person))
        self._look(session)
        return Came(session, seat, displaced, resume)

    def device_came(self, session: RemoteSession, now: float) -> Came:
        """The device is there by its own link, which has proved it already."""
        seat, displaced = session.come(Role.DEVICE, session.wish.serial, now)
        self._look(session)
        return Came(session, seat, displaced, "")

    def leave(self, session: RemoteSession, seat: Seat, now: float) -> None:
        """A connection is over; who had it may come back within the grace."""
        if session.over or seat.number not in session.seats:
            return
        session.leave(seat, now)
        self.nonces.hasten(Bound(session.id, seat.role, seat.person), now + session.limits.grace)
        self._look(session)

    def moved(self, session: RemoteSession, to_device: int, to_client: int, now: float) -> None:
        """So many payload bytes went each way; nothing is due earlier for it."""
        session.moved(to_device, to_client, now)

    # -- ending

    def end(self, session: RemoteSession, event: SessionEvent, now: float, detail: str = "") -> list[Seat]:
        """End a session for a cause that is no time; the connections to be ended. LocalError: it is over."""
        session.step(event, now, detail)
        return self._file(session)

    def tick(self, now: float) -> list[SeatsLost | SessionWarning]:
        """What has happened by time."""
        news: list[SeatsLost | SessionWarning] = []
        while self._heap and self._heap[0][0] <= now:
            at, _, number = heapq.heappop(self._heap)
            session = self._running.get(number)
            if session is None or self._looked[number] != at:
                continue  # it has ended, or an earlier look has put in another
            del self._looked[number]
            event = session.expired(now)
            if event is not None:
                session.step(event, now)
                news.append(SeatsLost(session, self._file(session)))
                continue
            while (warned := session.warning(now)) is not None:
                news.append(SessionWarning(session, warned))
            self._look(session)
        return news

    # -- inside

    def _look(self, session: RemoteSession) -> None:
        """Have the next tick look at it in time."""
        due = session.due()
        if due < self._looked.get(session.id, float("inf")):
            self._looked[session.id] = due
            heapq.heappush(self._heap, (due, next(self._order), session.id))

    def _file(self, session: RemoteSession) -> list[Seat]:
        """It has ended: count it no more, keep it listed, and say who has to be told."""
        del self._running[session.id]
        self._looked.pop(session.id, None)
        for table, key in ((self._owners, session.wish.owner), (self._devices, session.wish.serial)):
            table[key].discard(session.id)
            if not table[key]:
                del table[key]
        self.nonces.end(session.id)
        self._ended[session.id] = session
        for number in [*islice(self._ended, max(0, len(self._ended) - self.limits.ended))]:
            del self._ended[number]
        if len(self._heap) > 2 * len(self._looked) + 64:  # times of sessions that ended early
            self._heap = [entry for entry in self._heap if self._looked.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        seats = [*session.seats.values()]
        session.seats.clear()
        return seats


def _refuse_ended(session: RemoteSession) -> None:
    if session.over:
        raise SessionRefused("ended", f"the session has ended: {session.ended}")
