"""The remote sessions of a server with their connections: who may start, come, share, and when it is over.

The rules: what is not allowed is refused with a word, told as a fact and written to the audit, and changes
nothing. Every session has one opening record before anybody can use it, and one closing record. Rights are
asked for again when people or grants change, and when the time of what allowed them is over: what they no
longer allow is cut then, not at its next connection. A device that goes leaves the session its grace. A tick
a second counts bytes, looks for devices, and ends what is due; lives are measured by a clock that nobody
sets, validity by the wall clock.

Source: next/remote-sessions.md sections 1 to 3; issue 10, parts 2 and 4; ours.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from revtunnel.fleet.device_consent import ConsentRequest, DeviceConsent
from revtunnel.ground.facts import Report
from revtunnel.state.audit_records import RightsChanged
from revtunnel.state.session_audit import AuditFull, SessionAudit
from revtunnel.systems.sessions.nonces import Bound, NonceRefused
from revtunnel.systems.sessions.remote_sessions import Came, RemoteSessions, SeatsLost
from revtunnel.systems.sessions.session_facts import PersonRefused, SessionEnded, SessionStarted
from revtunnel.systems.sessions.session_life import (
    RemoteSession,
    Role,
    Seat,
    SessionEvent,
    SessionRefused,
    SessionRequest,
    SessionState,
)
from revtunnel.systems.sessions.session_rights import Rights
from revtunnel.systems.sessions.session_seats import Line, Live, Seated, Start
from revtunnel.trust.grants import Action
from revtunnel.trust.people import People
from revtunnel.trust.user_tokens import Login

__all__ = ["LiveSessions"]

TICK = 1.0  # seconds


class LiveSessions:
    """All of them; ``tick`` begins, ``stop`` ends everything. One thread only."""

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        sessions: RemoteSessions,
        people: People,
        rights: Rights,
        audit: SessionAudit,
        report: Report,
        say: DeviceConsent,
        muted: Callable[[str], bool] = lambda serial: False,
    ) -> None:
        """``say``: what sites say; ``muted``: whether an operator lets a device have no sessions."""
        self.sessions = sessions
        self.rights = rights
        self.people = people
        self.draining = False
        self.connected = 0  # connections of seats
        self.wall = wall
        self.on_tick: list[Callable[[float], None]] = []
        self.pages: Any = None  # DevicePages, once web pages of devices are anywhere
        self.now: Callable[[], float] = clock.seconds  # monotonic
        self._clock = clock
        self._audit = audit
        self._report = report
        self._say = say
        self._muted = muted
        self._live: dict[str, Live] = {}
        self._numbers = 0
        self._timer: IDelayedCall | None = None
        self._unwatch = people.watch(self._changed)

    # -- starting

    def start(self, login: Login, asked: Start, peer: str) -> RemoteSession:
        """A session for somebody who logged in; one that is ``waiting`` begins when the site has said yes.

        Raises:
            SessionRefused: ``denied``, ``unknown``, ``muted``, ``offline``, ``too-many``, ``audit``,
                ``stopping``.
        """
        try:
            return self._start(login, asked, peer)
        except SessionRefused as refused:
            reason = getattr(refused, "why", "") or refused.word
            self.refused("start", login.user, asked.serial, asked.services, peer, reason)
            raise

    def _start(self, login: Login, asked: Start, peer: str) -> RemoteSession:
        serial, services = asked.serial, asked.services
        if self.draining:
            raise SessionRefused("stopping", "the server is stopping")
        verdict = self.rights.may(login, Action.START, serial, services, self.wall())
        if verdict.grant is None:
            refused = SessionRefused("denied", f"for people: {verdict.why}")
            refused.why = verdict.why  # type: ignore[attr-defined]
            raise refused
        if undecided := self.rights.undecided(serial):
            raise SessionRefused("offline", undecided)
        offered = {offer.name for offer in self.rights.services(serial)}
        missing = next((each for each in services if each not in offered), None)
        if self.rights.device(serial) is None or missing is not None:
            what = serial if missing is None else f"{serial}/{missing}"
            raise SessionRefused("unknown", f"there is no {what}")
        if self._muted(serial):
            raise SessionRefused("muted", f"{serial} takes no sessions now")
        if refusal := self._say.refusal(serial):
            raise SessionRefused("denied", refusal)
        if not self.rights.reachable(serial):
            raise SessionRefused("offline", f"{serial} is not connected")
        asks = self._say.asks(serial)
        wish = SessionRequest(
            login.user, serial, services, verdict.grant.id, asked.private, asked.take_over, asks
        )
        session = self.sessions.start(wish, self.now())
        device = self.rights.device(serial)
        address = device.peer if device is not None else ""
        try:
            self._audit.opened(session.id, login.user, wish.grant, serial, services, peer, address)
        except AuditFull:
            self.sessions.end(session, SessionEvent.OPERATOR, self.now(), "its record could not be written")
            raise SessionRefused("audit", "sessions cannot be recorded now") from None
        self._numbers += 1
        self._live[session.id] = Live(session, login, peer, self._numbers, verdict.until)
        self._report(SessionStarted(session.id, login.user, serial, services, peer))
        question = ConsentRequest(session.id, login.user, services, peer.rpartition(":")[0])
        self._say.ask(serial, question, partial(self._said, session))
        return session

    def when_answered(self, session: RemoteSession, call: Callable[[], None]) -> bool:
        """Have it called once the device's site has answered, or too late; False: nobody is waited for."""
        live = self._live.get(session.id)
        if live is None or session.state is not SessionState.REQUESTED:
            return False
        live.answered = call
        return True

    def _said(self, session: RemoteSession, yes: bool, why: str) -> None:
        """The site said yes or no, or takes its yes back."""
        live = self._live.get(session.id)
        if live is None:
            return
        requested = session.state is SessionState.REQUESTED
        if not yes:
            wish = session.wish
            self.refused("consent", session.owner, wish.serial, wish.offers, live.peer, "site")
            self.end(session.id, SessionEvent.DENIED if requested else SessionEvent.REVOKED, why)
        elif requested:
            self.sessions.approve(session, self.now())
            live.tell()

    # -- nonces

    def nonce(self, user: str, number: str, browser: bool, page: str = "") -> str:
        """What one more connection of a session's owner comes in with; in a browser it replaces none.

        ``page``: it opens the web page of this service, and nothing else.

        Raises:
            SessionRefused: ``unknown``, ``ended``, ``too-many``.
        """
        session = self.sessions.running(number)
        if session.owner != user:
            raise SessionRefused("unknown", "there is no such session of yours")
        role = Role.USE if browser else Role.OWNER
        return self.sessions.nonce(session, role, user, self.now(), browser, page)

    def share(
        self,
        number: str,
        by: str,
        person: str,
        role: Role,
        peer: str,
        operator: bool = False,
        life: float = 0.0,
    ) -> str:
        """What a second person comes in with: single use, to watch, use or take the session over.

        ``operator``: an operator does it in the owner's name; ``life``: seconds that it is good, 0: a minute.

        Raises:
            SessionRefused: ``unknown``, ``denied``, ``private``, ``no-take-over``, ``ended``, ``too-many``.
        """
        session = self.sessions.running(number)
        wish, wall = session.wish, self.wall()
        try:
            if not operator and session.owner != by:
                raise SessionRefused("unknown", "there is no such session of yours")
            if not operator:
                verdict = self.rights.may(by, Action.SHARE, wish.serial, wish.offers, wall)
                if not verdict.allowed:
                    raise SessionRefused("denied", f"for people: {verdict.why}")
            verdict = self.rights.guest(person, role is Role.WATCH, wish.serial, wish.offers, wall)
            if not verdict.allowed:
                raise SessionRefused("denied", f"{person} may not: {verdict.why}")
            nonce = self.sessions.invite(session, session.owner, person, role, self.now(), life)
        except SessionRefused as refused:
            self.refused("share", by, session.wish.serial, session.wish.offers, peer, refused.word)
            raise
        self._live[number].sooner(verdict.until)
        self._audit.changed(RightsChanged("session-shared", f"{number}/{person}", by, role.value))
        return nonce

    def unshare(self, number: str, by: str, person: str, operator: bool = False) -> None:
        """Take back what somebody was let in by: links that wait are good no more, connections are cut.

        Raises:
            SessionRefused: ``unknown``, ``ended``.
        """
        session = self.sessions.running(number)
        if person == session.owner or not (operator or session.owner == by):
            raise SessionRefused("unknown", "there is no such session of yours, or it is not shared so")
        self.sessions.nonces.withdraw(number, person)
        for seat in [*session.seats.values()]:
            if seat.person == person and seat.role is not Role.DEVICE:
                self._send_away(self._live[number], seat, f"by {by}")
        self._audit.changed(RightsChanged("session-unshared", f"{number}/{person}", by))

    # -- coming and going

    def enter(
        self, nonce: str, number: str, peer: str, service: str | None = None, token: str = "", page: str = ""
    ) -> Came:
        """Let in whoever shows a nonce; ``service``: the one that he wants, where he wants one.

        ``page``: it has to be for the web page of this service.

        ``token``: whoever says one may use the nonce again with it, within the grace.

        ``attach`` comes next, or ``left`` if his connection is gone.

        Raises:
            NonceRefused: with its status.
            SessionRefused: ``not-of-it``, ``denied``, ``no-take-over``, ``too-many``.
        """
        bound = self.judge(nonce, number, peer, service, token, page)
        try:
            came = self.sessions.enter(nonce, number, "client", self.now(), "", token)
        except SessionRefused as error:
            _not_let_in(self, number, bound, peer, error.word)
            raise
        live = self._live[number]
        if bound.role is Role.TAKE:
            live.login = None
        for seat, word in came.displaced:
            self._cut(live, seat, word, f"by {came.seat.person}")
        self._device(live, self.now())
        return came

    def judge(
        self, nonce: str, number: str, peer: str, service: str | None = None, token: str = "", page: str = ""
    ) -> Bound:
        """What a nonce lets in to, if it does now; it stays good. Arguments and errors as of ``enter``."""
        bound = None
        try:
            bound = self.sessions.nonces.judge(nonce, number, "client", self.now(), "", token)
            session = self.sessions.running(number)
            if bound.page != page:
                raise SessionRefused("not-of-it", "this nonce is not for that")
            if service is not None and service not in session.wish.offers:
                raise SessionRefused("not-of-it", "this service is not of the session")
            if bound.person != session.owner:  # an invitation is worth what its person may now
                watches, wish = bound.role is Role.WATCH, session.wish
                verdict = self.rights.guest(bound.person, watches, wish.serial, wish.offers, self.wall())
                if not verdict.allowed:
                    raise SessionRefused("denied", f"for people: {verdict.why}")
        except (NonceRefused, SessionRefused) as error:
            _not_let_in(self, number, bound or getattr(error, "bound", None), peer, error.word)
            raise
        return bound

    def attach(self, session: RemoteSession, seat: Seat, line: Line) -> None:
        """The connection of a seat is there; it is ended at once if the seat was lost meanwhile."""
        live = self._live.get(session.id)
        if live is None or seat.number not in session.seats:
            line.end(session.ended or "replaced", session.detail)
            return
        live.seated[seat.number] = Seated(seat, line)
        self.connected += 1

    def left(self, session: RemoteSession, seat: Seat) -> None:
        """The connection of a seat is over; who had it may come back within the grace."""
        live = self._live.get(session.id)
        if live is None:
            return
        self._count(live, self.now())
        self._unseat(live, seat)
        self.sessions.leave(session, seat, self.now())

    # -- ending

    def end(self, number: str, event: SessionEvent, detail: str = "", by: str = "") -> None:
        """End a session for a cause that is no time.

        Raises:
            SessionRefused: ``unknown``, ``ended``.
        """
        live = self._live.get(self.sessions.running(number).id)
        assert live is not None
        self._count(live, self.now())
        self._over(SeatsLost(live.session, self.sessions.end(live.session, event, self.now(), detail)), by)

    def end_by(self, login: Login, number: str, peer: str) -> None:
        """Somebody ends a session of his own, or another's where he may.

        Raises:
            SessionRefused: ``unknown``, ``ended``, ``denied``.
        """
        session = self.sessions.running(number)
        wish = session.wish
        if session.owner == login.user:
            self.end(number, SessionEvent.OWNER_END)
        elif self.rights.may(login, Action.END, wish.serial, wish.offers, self.wall()).allowed:
            self.end(number, SessionEvent.OPERATOR, f"by {login.user}", login.user)
        else:
            self.refused("end", login.user, wish.serial, wish.offers, peer, "no-grant")
            raise SessionRefused("unknown", "there is no such session of yours")

    def mute(self, serial: str) -> None:
        """A device takes no sessions any more: those that run end."""
        for session in self.sessions.of_device(serial):
            self.end(session.id, SessionEvent.MUTED)

    def drain(self) -> None:
        """Start no more, and end what runs."""
        self.draining = True
        for number in [*self._live]:
            self.end(number, SessionEvent.STOPPED)

    def stop(self) -> None:
        """As ``drain``, and look at nothing any more."""
        self.drain()
        self._unwatch()
        self._unwatch = lambda: None
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    # -- what is

    def __len__(self) -> int:
        """Sessions that run."""
        return len(self._live)

    def all(self) -> list[Live]:
        """What is kept of each."""
        return [*self._live.values()]

    def counted(self, session: RemoteSession) -> RemoteSession:
        """The same, with the bytes that have moved until now."""
        live = self._live.get(session.id)
        if live is not None:
            self._count(live, self.now())
        return session

    def refused(
        self, action: str, user: str, serial: str, services: Iterable[str], peer: str, reason: str
    ) -> None:
        """Somebody may not: told once, and written down."""
        named = tuple(services)
        self._report(PersonRefused(action, user, serial, named, peer, reason))
        self._audit.refused(action, user, serial, named, peer, reason)

    # -- once a second

    def tick(self) -> None:
        """What time brings; called once, it comes again every second."""
        self._timer = self._clock.callLater(TICK, self.tick)
        now, wall = self.now(), self.wall()
        for live in [*self._live.values()]:
            self._count(live, now)
            self._device(live, now)
            for seated in [*live.seated.values()]:
                seated.line.look(now)
            if live.until is not None and wall >= live.until and not live.session.over:
                self._ask_again(live)
        for news in self.sessions.tick(now):
            if isinstance(news, SeatsLost):
                self._over(news)
            else:
                said = {"say": "warning", "seconds": round(news.warned.left), "why": news.warned.word}
                for seated in [*self._live[news.session.id].seated.values()]:
                    seated.line.say(said)
        for ticked in self.on_tick:
            ticked(now)

    # -- inside

    def _count(self, live: Live, now: float) -> None:
        """Add up what moved since the last look."""
        to_device = to_client = 0
        for seated in live.seated.values():
            down, up = seated.line.moved()
            to_device += down - seated.to_device
            to_client += up - seated.to_client
            seated.to_device, seated.to_client = down, up
        if to_device or to_client:
            self.sessions.moved(live.session, to_device, to_client, now)

    def _device(self, live: Live, now: float) -> None:
        """Notice that the device has gone, or come."""
        session, here = live.session, self.rights.reachable(live.session.wish.serial)
        if here and live.device is None and session.state is not SessionState.REQUESTED:
            live.device = self.sessions.device_came(session, now).seat
        elif not here and live.device is not None:
            self.sessions.leave(session, live.device, now)
            live.device = None

    def _cut(self, live: Live, seat: Seat, word: str, detail: str) -> None:
        """Somebody has lost his seat."""
        self._count(live, self.now())
        line = self._unseat(live, seat)
        if line is not None:
            line.end(word, detail)

    def _send_away(self, live: Live, seat: Seat, why: str) -> None:
        """Somebody has no right to his seat any more, and does not come back."""
        self._cut(live, seat, "revoked", why)
        self.sessions.leave(live.session, seat, self.now())
        self.sessions.nonces.withdraw(live.session.id, seat.person)

    def _unseat(self, live: Live, seat: Seat) -> Line | None:
        """Its connection counts no more."""
        seated = live.seated.pop(seat.number, None)
        if seated is None:
            return None
        self.connected -= 1
        live.connections += seated.line.connections()
        return seated.line

    def _over(self, lost: SeatsLost, by: str = "") -> None:
        """A session has ended: everybody goes, and it is written down."""
        session = lost.session
        live = self._live.pop(session.id)
        lines = [self._unseat(live, seated.seat) for seated in [*live.seated.values()]]
        sums = session.bytes_to_device, session.bytes_to_client
        self._audit.closed(session.id, *sums, live.connections, session.ended, by)
        seconds = round((session.ended_at or self.now()) - session.since, 3)
        self._report(
            SessionEnded(
                *(session.id, session.owner, session.wish.serial, session.ended, session.detail),
                *(seconds, live.connections, *sums),
            )
        )
        self._say.over(session.id)
        for line in filter(None, lines):
            line.end(session.ended, session.detail)
        live.tell()

    # -- rights that change

    def _changed(self, users: frozenset[str]) -> None:
        """People or grants are others now; the sessions of those concerned are looked at."""
        for live in [*self._live.values()]:
            seats = live.session.seats.values()
            if live.session.owner in users or any(seat.person in users for seat in seats):
                self._ask_again(live)

    def _ask_again(self, live: Live) -> None:
        """Cut who may no longer, and note until when the others may."""
        session, wish, wall = live.session, live.session.wish, self.wall()
        who: Login | str = live.login or session.owner
        verdict = self.rights.may(who, Action.START, wish.serial, wish.offers, wall)
        if not verdict.allowed:
            self.end(session.id, SessionEvent.REVOKED, verdict.why)
            return
        live.until = verdict.until
        for seat in [*session.seats.values()]:
            if seat.role in (Role.OWNER, Role.DEVICE) or seat.person == session.owner:
                continue
            watches = seat.role is Role.WATCH
            verdict = self.rights.guest(seat.person, watches, wish.serial, wish.offers, wall)
            if verdict.allowed:
                live.sooner(verdict.until)
            else:
                self._send_away(live, seat, verdict.why)


def _not_let_in(live: LiveSessions, number: str, bound: Bound | None, peer: str, word: str) -> None:
    known, user = live.sessions.get(number), bound.person if bound is not None else ""
    serial, offers = (known.wish.serial, known.wish.offers) if known is not None else ("", ())
    live.refused("enter", user, serial, offers, peer, word)
