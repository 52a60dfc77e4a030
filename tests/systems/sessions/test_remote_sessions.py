"""All sessions of a server: limits, coming in by nonce, sharing, revoking, time; then anything at all."""

from dataclasses import replace
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from revtunnel.ground.errors import LocalError
from revtunnel.systems.sessions.nonces import NonceRefused
from revtunnel.systems.sessions.remote_sessions import Came, RemoteSessions, SeatsLost, SessionWarning
from revtunnel.systems.sessions.session_life import (
    WORDS,
    RemoteSession,
    Role,
    Seat,
    SessionEvent,
    SessionLimits,
    SessionRefused,
    SessionRequest,
    SessionState,
)
from tests.support.depth import deep

LIMITS = SessionLimits()
WISH = SessionRequest("ana", "plc-7", ("ssh",))


def server(limits: SessionLimits = LIMITS) -> RemoteSessions:
    """Sessions with numbered random bytes."""
    numbers = count(1)
    return RemoteSessions(limits, lambda size: next(numbers).to_bytes(size, "big"))


def come(sessions: RemoteSessions, session: RemoteSession, role: Role, person: str, now: float = 0.0) -> Came:
    """Issue a nonce and use it."""
    text = sessions.nonce(session, role, person, now)
    return sessions.enter(text, session.id, role.side, now)


def word(kind: type[SessionRefused] | type[NonceRefused], call: object, *arguments: object) -> str:
    """The word of a refusal."""
    with pytest.raises(kind) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.word


def test_a_session_from_start_to_end() -> None:
    """Both sides come in with their nonces, bytes go, it idles, is warned of and ends, and stays listed."""
    sessions = server()
    session = sessions.start(WISH, 0.0)
    assert len(session.id) == 32
    come(sessions, session, Role.OWNER, "ana", 1.0)
    sessions.device_came(session, 2.0)
    sessions.moved(session, 10, 0, 50.0)
    assert sessions.tick(840.0 + 2.0) == []  # as the first look was asked for; bytes have moved since
    assert sessions.tick(890.0) == [SessionWarning(session, ("idle", 60.0))]  # type: ignore[arg-type]
    assert sessions.tick(949.9) == []
    (over,) = sessions.tick(950.0)
    assert isinstance(over, SeatsLost)
    assert ([seat.role for seat in over.seats], session.ended) == ([Role.OWNER, Role.DEVICE], "idle")
    assert (len(sessions), [*sessions], sessions.get(session.id)) == (0, [session], session)
    assert (sessions.of_device("plc-7"), len(sessions.nonces)) == ([], 0)
    with pytest.raises(LocalError):
        sessions.end(session, SessionEvent.OPERATOR, 951.0)


def test_limits_of_a_person_a_device_and_all() -> None:
    """Refused with the number; an end makes room."""
    sessions = server(replace(LIMITS, total=4, per_user=2, per_device=3))
    mine = [sessions.start(WISH, 0.0) for _ in range(2)]
    assert word(SessionRefused, sessions.start, WISH, 0.0) == "too-many"
    sessions.start(replace(WISH, owner="ben"), 0.0)
    with pytest.raises(SessionRefused, match="3 sessions to plc-7, limit 3"):
        sessions.start(replace(WISH, owner="cleo"), 0.0)
    sessions.start(replace(WISH, owner="cleo", serial="plc-8"), 0.0)
    with pytest.raises(SessionRefused, match="4 sessions run, limit 4"):
        sessions.start(replace(WISH, owner="dan", serial="plc-9"), 0.0)
    sessions.end(mine[0], SessionEvent.OWNER_END, 1.0)
    sessions.start(WISH, 1.0)
    assert (len(sessions), len(sessions.of_device("plc-7"))) == (4, 3)


def test_only_so_many_ended_sessions_are_listed() -> None:
    """The last ones, the last first."""
    sessions = server(replace(LIMITS, ended=2))
    started = [sessions.start(replace(WISH, owner=each), 0.0) for each in "abcd"]
    for session in started[:3]:
        sessions.end(session, SessionEvent.OPERATOR, 1.0)
    assert [*sessions] == [started[3], started[2], started[1]]
    assert sessions.get(started[0].id) is None


def test_the_nonce_of_a_page_is_good_for_half_as_long() -> None:
    """30 s for browsers, 60 s else."""
    sessions = server()
    session = sessions.start(WISH, 0.0)
    page, program = (sessions.nonce(session, Role.OWNER, "ana", 0.0, browser) for browser in (True, False))
    assert word(NonceRefused, sessions.enter, page, session.id, "client", 30.0) == "expired"
    sessions.enter(program, session.id, "client", 59.0)


def test_a_refusal_at_the_door_spends_nothing() -> None:
    """A nonce that came before the site's yes, or to the wrong door, is good afterwards."""
    sessions = server()
    session = sessions.start(replace(WISH, ask=True), 0.0)
    text = sessions.nonce(session, Role.OWNER, "ana", 0.0)
    assert word(SessionRefused, sessions.enter, text, session.id, "client", 1.0) == "not-approved"
    sessions.approve(session, 2.0)
    assert word(NonceRefused, sessions.enter, text, session.id, "device", 3.0) == "swapped"
    sessions.enter(text, session.id, "client", 4.0)
    assert word(NonceRefused, sessions.enter, text, session.id, "client", 5.0) == "used"
    sessions.end(session, SessionEvent.OPERATOR, 6.0)
    assert word(SessionRefused, sessions.nonce, session, Role.OWNER, "ana", 7.0) == "ended"
    late = sessions.start(replace(WISH, ask=True), 8.0)
    assert sessions.tick(128.0) == [SeatsLost(late, [])]
    assert late.ended == "approval-timeout"


def test_a_nonce_of_an_ended_session_says_so() -> None:
    """410, not 401."""
    sessions = server()
    session = sessions.start(WISH, 0.0)
    text = sessions.nonce(session, Role.OWNER, "ana", 0.0)
    sessions.end(session, SessionEvent.MUTED, 1.0)
    with pytest.raises(NonceRefused) as caught:
        sessions.enter(text, session.id, "client", 2.0)
    assert (caught.value.word, caught.value.status) == ("ended", 410)


def test_a_lost_client_comes_back_within_the_grace() -> None:
    """With the nonce it was given, which is another each time; later the session is over."""
    sessions = server()
    session = sessions.start(WISH, 0.0)
    came = come(sessions, session, Role.OWNER, "ana")
    sessions.device_came(session, 0.0)
    sessions.leave(session, came.seat, 10.0)
    assert session.state is SessionState.DEVICE_ONLY
    again = sessions.enter(came.resume, session.id, "client", 69.0)
    assert (session.state, again.seat.role, again.resume != came.resume) == (
        SessionState.JOINED,
        Role.OWNER,
        True,
    )
    sessions.leave(session, came.seat, 70.0)  # the first connection's end, late
    assert sessions.tick(100.0) == []
    sessions.leave(session, again.seat, 100.0)
    assert sessions.nonces.judge(again.resume, session.id, "client", 159.9).person == "ana"
    assert word(NonceRefused, sessions.enter, again.resume, session.id, "client", 160.0) == "expired"
    assert [type(each) for each in sessions.tick(160.0)] == [SeatsLost]
    assert session.ended == "client-gone"


def test_a_client_token_makes_a_nonce_good_within_the_grace() -> None:
    """As AWS's program wants it: the same credentials at each reconnect."""
    sessions = server()
    session = sessions.start(WISH, 0.0)
    text = sessions.nonce(session, Role.OWNER, "ana", 0.0)
    first = sessions.enter(text, session.id, "client", 1.0, token="t" * 32)
    assert first.resume == ""
    sessions.device_came(session, 1.0)
    second = sessions.enter(text, session.id, "client", 500.0, token="t" * 32)
    assert second.displaced == [(first.seat, "replaced")]
    assert word(NonceRefused, sessions.enter, text, session.id, "client", 501.0) == "used"
    sessions.leave(session, second.seat, 510.0)
    sessions.enter(text, session.id, "client", 569.0, token="t" * 32)
    assert session.state is SessionState.JOINED


def test_sharing() -> None:
    """Only by the owner, never of a private session; each invitation once; all ends with the owner's."""
    sessions = server()
    session = sessions.start(WISH, 0.0)
    come(sessions, session, Role.OWNER, "ana")
    text = sessions.invite(session, "ana", "ben", Role.USE, 1.0)
    guest = sessions.enter(text, session.id, "client", 2.0)
    assert (guest.seat.role, guest.seat.person, guest.displaced) == (Role.USE, "ben", [])
    watcher = sessions.enter(
        sessions.invite(session, "ana", "cleo", Role.WATCH, 2.0), session.id, "client", 2.0
    )
    assert word(NonceRefused, sessions.enter, text, session.id, "client", 3.0) == "used"
    assert word(SessionRefused, sessions.invite, session, "ben", "cleo", Role.WATCH, 3.0) == "not-owner"
    assert word(SessionRefused, sessions.invite, session, "ana", "ben", Role.TAKE, 3.0) == "no-take-over"
    with pytest.raises(ValueError, match="no invitation"):
        sessions.invite(session, "ana", "ben", Role.OWNER, 3.0)
    private = sessions.start(replace(WISH, private=True, take_over=True), 0.0)
    assert word(SessionRefused, sessions.invite, private, "ana", "ben", Role.WATCH, 3.0) == "private"
    seats = sessions.end(session, SessionEvent.OWNER_END, 4.0)
    assert {guest.seat, watcher.seat} < {*seats} and len(seats) == 3
    assert word(SessionRefused, sessions.invite, session, "ana", "ben", Role.USE, 5.0) == "ended"


def test_who_takes_a_session_over_has_it_alone() -> None:
    """The old owner's client is told, his way back is closed, and he may share it no more."""
    sessions = server()
    session = sessions.start(replace(WISH, take_over=True), 0.0)
    first = come(sessions, session, Role.OWNER, "ana")
    spare = sessions.nonce(session, Role.OWNER, "ana", 0.0)
    browser = sessions.nonce(session, Role.USE, "ana", 0.0, browser=True)
    text = sessions.invite(session, "ana", "ben", Role.TAKE, 1.0)
    taker = sessions.enter(text, session.id, "client", 2.0)
    assert (taker.displaced, session.owner) == ([(first.seat, "taken")], "ben")
    for each in (first.resume, spare, browser):
        assert word(NonceRefused, sessions.enter, each, session.id, "client", 3.0) == "withdrawn"
    assert word(SessionRefused, sessions.invite, session, "ana", "ana", Role.TAKE, 3.0) == "not-owner"
    sessions.leave(session, taker.seat, 4.0)
    assert sessions.enter(taker.resume, session.id, "client", 5.0).seat.role is Role.OWNER


def test_a_tick_costs_what_happens_in_it() -> None:
    """With 5,000 sessions that run, a tick in which nothing is due looks at none of them."""
    sessions = server(replace(LIMITS, per_user=10_000, per_device=10_000))
    looked = []
    for _ in range(5000):
        session = sessions.start(WISH, 0.0)
        session.expired = lambda now, session=session: looked.append(session)  # type: ignore[method-assign, assignment, misc]
    assert (sessions.tick(59.0), looked, sessions._heap[0][0]) == ([], [], 60.0)


def test_times_of_ended_sessions_do_not_pile_up() -> None:
    """A million sessions that end early leave a heap for those that run."""
    sessions = server()
    for _ in range(2000):
        session = sessions.start(WISH, 0.0)
        sessions.end(session, SessionEvent.OWNER_END, 0.0)
    assert len(sessions._heap) <= 64 + 2


def test_times_that_were_put_off_do_not_pile_up() -> None:
    """A look that an earlier one has replaced is dropped when its time comes."""
    sessions = server()
    session = sessions.start(WISH, 0.0)
    came = come(sessions, session, Role.OWNER, "ana")
    sessions.device_came(session, 0.0)
    sessions.tick(60.0)  # the next look is at 840
    sessions.leave(session, came.seat, 100.0)  # at 160
    come(sessions, session, Role.OWNER, "ana", 110.0)
    assert sessions.tick(160.0) == []  # at 950
    assert (sessions.tick(840.0), len(sessions._heap), sessions._heap[0][0]) == ([], 1, 950.0)


class Anything(RuleBasedStateMachine):
    """People, devices, ends and time in any order. The model: who sits where, and what is over."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = replace(LIMITS, total=4, per_user=3, per_device=3, ended=3)
        self.sessions = server(self.limits)
        self.now = 0.0
        self.all: list[RemoteSession] = []
        self.seats: list[tuple[RemoteSession, Seat]] = []  # that the model believes in
        self.over: list[RemoteSession] = []

    def running(self, at: int) -> RemoteSession | None:
        found = [each for each in self.all if each not in self.over]
        return found[at % len(found)] if found else None

    def lose(self, session: RemoteSession, seats: list[Seat]) -> None:
        """The session has ended; exactly those who sat there are told."""
        assert session not in self.over
        assert {*seats} == {seat for of, seat in self.seats if of is session}
        self.over.append(session)
        self.seats = [each for each in self.seats if each[0] is not session]
        assert session.ended in WORDS.values()

    @rule(owner=st.sampled_from("ab"), serial=st.sampled_from("xy"), take=st.booleans(), ask=st.booleans())
    def start(self, owner: str, serial: str, take: bool, ask: bool) -> None:
        """Refused exactly at a limit."""
        live = [each for each in self.all if each not in self.over]
        full = (
            len(live) >= 4
            or sum(each.wish.owner == owner for each in live) >= 3
            or sum(each.wish.serial == serial for each in live) >= 3
        )
        wish = SessionRequest(owner, serial, ("ssh",), take_over=take, ask=ask)
        if full:
            assert word(SessionRefused, self.sessions.start, wish, self.now) == "too-many"
        else:
            self.all.append(self.sessions.start(wish, self.now))

    @rule(at=st.integers(0, 9))
    def approve(self, at: int) -> None:
        """The site says yes."""
        session = self.running(at)
        if session is not None and session.state is SessionState.REQUESTED:
            self.sessions.approve(session, self.now)

    @rule(at=st.integers(0, 9), role=st.sampled_from(Role))
    def come(self, at: int, role: Role) -> None:
        """Owner and device are one each; a taker puts the owner out, from all his seats."""
        session = self.running(at)
        if session is None:
            return
        before = session.owner
        text = self.sessions.nonce(session, role, before, self.now)
        try:
            came = self.sessions.enter(text, session.id, role.side, self.now)
        except SessionRefused as refused:
            asked = session.state is SessionState.REQUESTED
            assert refused.word == ("not-approved" if asked else "no-take-over")
            assert asked or (role is Role.TAKE and not session.wish.take_over)
            self.sessions.nonces.withdraw(session.id, session.owner, role)
            return
        gone = {seat for seat, _ in came.displaced}
        assert gone == {
            seat
            for of, seat in self.seats
            if of is session
            and (
                (seat.role is came.seat.role and seat.role in (Role.OWNER, Role.DEVICE))
                or (role is Role.TAKE and seat.role is not Role.DEVICE and seat.person == before)
            )
        }
        self.seats = [each for each in self.seats if each[1] not in gone or each[0] is not session]
        self.seats.append((session, came.seat))

    @rule(at=st.integers(0, 99))
    def leave(self, at: int) -> None:
        """A connection ends."""
        if self.seats:
            session, seat = self.seats.pop(at % len(self.seats))
            self.sessions.leave(session, seat, self.now)

    @rule(at=st.integers(0, 9), cause=st.sampled_from([SessionEvent.OWNER_END, SessionEvent.MUTED]))
    def end(self, at: int, cause: SessionEvent) -> None:
        """By somebody."""
        session = self.running(at)
        if session is not None:
            self.lose(session, self.sessions.end(session, cause, self.now))

    @rule(at=st.integers(0, 9), sizes=st.sampled_from([(1, 0), (0, 1)]))
    def move(self, at: int, sizes: tuple[int, int]) -> None:
        """Bytes, where both are there."""
        session = self.running(at)
        if session is not None and session.state is SessionState.JOINED:
            self.sessions.moved(session, *sizes, self.now)

    @rule(seconds=st.sampled_from([1.0, 29.0, 31.0, 61.0, 500.0, 841.0]))
    def wait(self, seconds: float) -> None:
        """Time; what is over is told once, and nothing is told that is not due."""
        self.now += seconds
        due = {each.id for each in self.all if each not in self.over and each.expired(self.now)}
        told = set()
        for news in self.sessions.tick(self.now):
            if isinstance(news, SeatsLost):
                told.add(news.session.id)
                self.lose(news.session, news.seats)
            else:
                assert 0 <= news.warned.left <= self.limits.warning
        assert told == due
        assert self.sessions.tick(self.now) == []

    @invariant()
    def books_agree(self) -> None:
        """Seats, states and lists are the model's; the times to look at are no more than the sessions."""
        live = [each for each in self.all if each not in self.over]
        assert [*self.sessions] == [*live, *self.over[: -self.limits.ended - 1 : -1]]
        for session in live:
            mine = {seat for of, seat in self.seats if of is session}
            assert {*session.seats.values()} == mine
            client = any(seat.role in (Role.OWNER, Role.USE) for seat in mine)
            device = any(seat.role is Role.DEVICE for seat in mine)
            if session.state is not SessionState.REQUESTED:
                assert (
                    session.state
                    is {
                        (False, False): SessionState.CREATED,
                        (True, False): SessionState.CLIENT_ONLY,
                        (False, True): SessionState.DEVICE_ONLY,
                        (True, True): SessionState.JOINED,
                    }[client, device]
                )
            assert session.expired(self.now) is None
            assert self.sessions._looked[session.id] <= session.due()
        times = [(at, number) for at, _, number in self.sessions._heap]
        assert len(times) == len({*times}) <= 64 + 6 * len(live)


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=deep(60), stateful_step_count=40, deadline=None)
