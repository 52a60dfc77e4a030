"""The life of a remote session: every pair of the table, every time, seats, and the word of each ending."""

from itertools import product

import pytest

from revtunnel.ground.errors import LocalError
from revtunnel.systems.sessions import session_life
from revtunnel.systems.sessions.session_life import (
    NEXT,
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

S, E = SessionState, SessionEvent
LIMITS = SessionLimits()
MOVES = (E.CLIENT_CAME, E.CLIENT_LEFT, E.DEVICE_CAME, E.DEVICE_LEFT)
ANYWHERE = {E.OWNER_END, E.OPERATOR, E.REVOKED, E.MUTED, E.STOPPED}


def session(now: float = 0.0, limits: SessionLimits = LIMITS, **wish: bool) -> RemoteSession:
    """A session of ana's."""
    return RemoteSession("0" * 32, SessionRequest("ana", "plc-7", ("ssh",), **wish), limits, now)  # type: ignore[arg-type]


def joined(now: float = 0.0, **wish: bool) -> tuple[RemoteSession, Seat, Seat]:
    """A session with its owner's client and its device."""
    found = session(now, **wish)
    return found, found.come(Role.OWNER, "ana", now)[0], found.come(Role.DEVICE, "plc-7", now)[0]


def table() -> dict[tuple[SessionState, SessionEvent], SessionState]:
    """What the table at the head of the module says, and the sentence behind it."""
    rows = [line.split(None, 5) for line in (session_life.__doc__ or "").splitlines()]
    found = {(S.REQUESTED, E.APPROVED): S.CREATED}
    for row in rows:
        if row and row[0] in S.__members__ and len(row) == 6:
            state = S[row[0]]
            found |= {(state, move): S[to] for move, to in zip(MOVES, row[1:5], strict=True) if to != "-"}
            found |= {(state, E[word]): S.ENDED for word in row[5].split() if word != "-"}
    living = [state for state in S if state is not S.ENDED]
    found |= {(state, E.MAXIMUM): S.ENDED for state in living if state is not S.REQUESTED}
    return found | {(state, event): S.ENDED for state in living for event in ANYWHERE}


def test_the_table_of_the_document_is_the_table_of_the_code() -> None:
    """Pair by pair."""
    assert table() == NEXT


@pytest.mark.parametrize(("state", "event"), list(product(S, E)))
def test_every_pair(state: SessionState, event: SessionEvent) -> None:
    """What is listed moves, all else raises and leaves the session alone."""
    found = session(ask=True)
    found.state = state
    wanted = NEXT.get((state, event))
    if wanted is None:
        with pytest.raises(LocalError, match=event.name):
            found.step(event, 1.0)
        assert (found.state, found.ended, found.ended_at) == (state, "", None)
        return
    assert found.step(event, 1.0, "why") is wanted
    assert found.ended == (WORDS[event] if wanted is S.ENDED else "")
    assert found.ended_at == (1.0 if wanted is S.ENDED else None)
    assert found.detail == ("why" if wanted is S.ENDED else "")


def test_every_ending_has_one_word_of_its_own() -> None:
    """The words of the page, each for one event."""
    ending = {event for (_, event), state in NEXT.items() if state is S.ENDED}
    assert WORDS.keys() == ending
    words = (
        "denied approval-timeout unused device-timeout client-gone device-gone idle maximum owner operator"
    )
    assert [*WORDS.values()] == [*words.split(), "revoked", "muted", "stopping"]


def test_the_four_public_words() -> None:
    """initializing, created, started, terminated; a session that lost both sides has still been started."""
    found = session(ask=True)
    said = [found.status]
    found.step(E.APPROVED, 1.0)
    said.append(found.status)
    client = found.come(Role.OWNER, "ana", 2.0)[0]
    said.append(found.status)
    device = found.come(Role.DEVICE, "plc-7", 3.0)[0]
    said.append(found.status)
    found.leave(client, 4.0)
    found.leave(device, 4.0)
    said.append(found.status)
    found.step(E.OPERATOR, 5.0)
    assert [*said, found.status] == [
        *("initializing", "created", "created", "started", "started", "terminated"),
    ]
    assert (found.joined_at, found.over) == (3.0, True)


# -- by time


@pytest.mark.parametrize(
    ("prepare", "at", "event"),
    [
        ("asked", 120.0, E.APPROVAL_LATE),
        ("created", 60.0, E.UNUSED),
        ("device", 60.0, E.UNUSED),
        ("client", 30.0, E.DEVICE_LATE),
        ("client left", 30.0, E.DEVICE_LATE),
        ("both, client left", 70.0, E.CLIENT_GONE),
        ("both, device left", 70.0, E.DEVICE_GONE),
        ("both, both left", 70.0, E.CLIENT_GONE),
        ("both, client left and back", 900.0, E.IDLE),
        ("both", 900.0, E.IDLE),
        ("both, bytes", 86_400.0, E.MAXIMUM),
    ],
)
def test_what_happens_by_time(prepare: str, at: float, event: SessionEvent) -> None:
    """Nothing before its time, then the one event; ``due`` has said no later than that."""
    found = session(ask=prepare == "asked")
    client = found.come(Role.OWNER, "ana", 0.0)[0] if prepare.startswith(("client", "both")) else None
    device = found.come(Role.DEVICE, "plc-7", 0.0)[0] if prepare.startswith(("device", "both")) else None
    if "client left" in prepare or "both left" in prepare:
        assert client is not None
        found.leave(client, 10.0 if device else 5.0)
    if "device left" in prepare or "both left" in prepare:
        assert device is not None
        found.leave(device, 10.0)
    if "back" in prepare:
        found.come(Role.OWNER, "ana", 11.0)
        found.leave(found.come(Role.OWNER, "ana", 12.0)[1][0][0], 13.0)  # the one it displaced: known
        at = 911.0  # joined again; a second connection of a side that is there begins nothing
    if "bytes" in prepare:
        found.moved(1, 0, at - 10.0)
    assert found.expired(at - 0.001) is None
    assert found.due() <= at
    assert found.expired(at) is event
    found.step(event, at)
    assert (found.due(), found.expired(1e9)) == (float("inf"), None)


@pytest.mark.parametrize("sizes", [(1, 0), (0, 1)], ids=["upload", "download"])
def test_bytes_of_either_direction_are_activity(sizes: tuple[int, int]) -> None:
    """Traffic one way only is never idle; nothing moved is nothing."""
    found, _, _ = joined()
    for minute in range(1, 120):
        found.moved(*sizes, minute * 60.0)
        assert found.expired(minute * 60.0) is None
    assert (found.bytes_to_device, found.bytes_to_client) == (119 * sizes[0], 119 * sizes[1])
    found.moved(0, 0, 119 * 60.0 + 899.0)
    assert found.expired(119 * 60.0 + 900.0) is E.IDLE


def test_a_warning_comes_once_before_each_end() -> None:
    """60 s before idle and before maximum; bytes take the idle one back, and it may be said again."""
    found, _, _ = joined()
    assert found.due() == 840.0
    assert found.warning(839.0) is None
    assert found.warning(840.0) == ("idle", 60.0)
    assert found.warning(841.0) is None
    assert found.due() == 900.0
    found.moved(1, 0, 850.0)
    assert (found.due(), found.warning(1689.0), found.warning(1700.0)) == (1690.0, None, ("idle", 50.0))
    found.moved(1, 0, 86_339.0)
    assert found.warning(86_340.0) == ("maximum", 60.0)
    assert found.warning(86_341.0) is None


def test_a_short_idle_time_is_warned_of_half_way() -> None:
    """Never at once after every byte."""
    limits = SessionLimits(idle=60.0)
    found = session(limits=limits)
    found.come(Role.OWNER, "ana", 0.0)
    found.come(Role.DEVICE, "plc-7", 0.0)
    assert (found.warning(29.9), found.warning(30.0)) == (None, ("idle", 30.0))


# -- seats


def test_nobody_comes_to_a_session_that_waits_or_is_over() -> None:
    """Refused with a word, and nothing has changed."""
    found = session(ask=True)
    with pytest.raises(SessionRefused) as waits:
        found.come(Role.OWNER, "ana", 0.0)
    found.step(E.DENIED, 1.0)
    with pytest.raises(SessionRefused, match="denied") as over:
        found.come(Role.DEVICE, "plc-7", 2.0)
    assert (waits.value.word, over.value.word, found.seats) == ("not-approved", "ended", {})


def test_the_owner_who_comes_again_displaces_his_own_lost_connection() -> None:
    """The old one is told so, and that it ends then means nothing."""
    found, first, _ = joined()
    second, displaced = found.come(Role.OWNER, "ana", 1.0)
    assert displaced == [(first, "replaced")]
    found.leave(first, 2.0)
    assert (found.state, found.seat_of(Role.OWNER)) == (S.JOINED, second)


def test_a_device_that_comes_again_is_swapped() -> None:
    """So it is where the first connection is not known to be lost."""
    found, _, first = joined()
    second, displaced = found.come(Role.DEVICE, "plc-7", 1.0)
    found.leave(first, 2.0)
    assert (displaced, found.state, found.seat_of(Role.DEVICE)) == ([(first, "replaced")], S.JOINED, second)


def test_who_takes_it_over_is_the_owner_and_the_old_one_is_told() -> None:
    """His client is ended as taken; only where the session allows it."""
    found, first, _ = joined(take_over=True)
    seat, displaced = found.come(Role.TAKE, "ben", 1.0)
    assert (seat.role, seat.person, found.owner) == (Role.OWNER, "ben", "ben")
    assert (displaced, found.state) == ([(first, "taken")], S.JOINED)
    found, first, device = joined(take_over=True)
    mine = [found.come(role, "ana", 1.0)[0] for role in (Role.USE, Role.USE, Role.WATCH)]
    guest = found.come(Role.USE, "ben", 1.0)[0]
    seat, displaced = found.come(Role.TAKE, "ben", 2.0)
    assert displaced == [(each, "taken") for each in (first, *mine)]  # in browsers as well
    assert [*found.seats.values()] == [device, guest, seat] and found.state is S.JOINED
    other, _, _ = joined()
    with pytest.raises(SessionRefused) as refused:
        other.come(Role.TAKE, "ben", 1.0)
    assert (refused.value.word, other.owner, len(other.seats)) == ("no-take-over", "ana", 2)


def test_a_watcher_is_no_client() -> None:
    """He neither begins a session nor keeps it."""
    found = session()
    watcher = found.come(Role.WATCH, "ben", 0.0)[0]
    assert found.state is S.CREATED
    found.leave(watcher, 1.0)
    assert (found.state, found.expired(60.0)) == (S.CREATED, E.UNUSED)
    found, owner, _ = joined()
    found.come(Role.WATCH, "ben", 0.0)
    found.leave(owner, 1.0)
    assert (found.state, found.expired(61.0)) == (S.DEVICE_ONLY, E.CLIENT_GONE)


def test_the_owners_grace_runs_while_a_guest_goes_on() -> None:
    """The session stays joined, and ends when he has not come back."""
    found, owner, _ = joined()
    guest = found.come(Role.USE, "ben", 1.0)[0]
    found.leave(owner, 10.0)
    assert found.state is S.JOINED
    found.come(Role.USE, "cleo", 20.0)
    found.leave(guest, 30.0)
    assert (found.state, found.expired(69.9), found.expired(70.0)) == (S.JOINED, None, E.CLIENT_GONE)
    found.leave(found.seats[4], 40.0)  # the last one begins no grace anew
    assert (found.state, found.expired(70.0)) == (S.DEVICE_ONLY, E.CLIENT_GONE)
    found.come(Role.OWNER, "ana", 50.0)
    assert found.expired(70.0) is None


def test_guests_keep_a_session_whose_owner_never_came() -> None:
    """The first client of any kind is the first use; the last one's leaving begins the grace."""
    found = session()
    first = found.come(Role.USE, "ben", 50.0)[0]
    found.come(Role.DEVICE, "plc-7", 51.0)
    found.leave(first, 100.0)
    assert (found.state, found.expired(160.0)) == (S.DEVICE_ONLY, E.CLIENT_GONE)
    found.come(Role.USE, "cleo", 120.0)
    assert (found.state, found.expired(160.0)) == (S.JOINED, None)


def test_there_are_only_so_many_seats() -> None:
    """Guests beyond are refused; the owner and the device always find room."""
    found, _, _ = joined()
    for _ in range(15):
        found.come(Role.WATCH, "ben", 0.0)
    for role in (Role.WATCH, Role.USE):
        with pytest.raises(SessionRefused, match="16 people") as refused:
            found.come(role, "ben", 0.0)
        assert refused.value.word == "too-many"
    found.come(Role.OWNER, "ana", 0.0)
    found.come(Role.DEVICE, "plc-7", 0.0)
    assert len(found.seats) == 17
