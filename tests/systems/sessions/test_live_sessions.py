"""The sessions of a server: who may start, what cuts them, what is counted, written down and told."""

import json
from pathlib import Path
from typing import Any

import pytest

from revtunnel.daemons.agent_settings import ConsentSettings
from revtunnel.fleet.device_records import DeviceRecord, DeviceRecords
from revtunnel.ground.limits import AuditLimits
from revtunnel.state.audit_file import AuditFile, Sync
from revtunnel.state.session_audit import SessionAudit
from revtunnel.systems.sessions.nonces import NonceRefused
from revtunnel.systems.sessions.session_facts import SessionEnded, SessionStarted
from revtunnel.systems.sessions.session_life import Role, SessionEvent, SessionLimits, SessionRefused
from revtunnel.systems.sessions.session_seats import Start
from tests.support.disks import full_disk
from tests.support.room import NOON
from tests.support.session_room import PEER, Ear, SessionRoom

LIMITS = SessionLimits()


def word(call: Any, *arguments: Any, **more: Any) -> str:
    """The word of a refusal."""
    with pytest.raises((SessionRefused, NonceRefused)) as caught:
        call(*arguments, **more)
    return str(caught.value.word)


def ended(room: SessionRoom) -> list[SessionEnded]:
    """Those that were told."""
    return [each for each in room.facts if isinstance(each, SessionEnded)]


def test_a_listing_counts_what_has_moved_until_now() -> None:
    """For an operator and for the person, not as it was at the last second's look."""
    room = SessionRoom()
    session, nonce = room.begin("ana", "console")
    room.come(session, nonce).sums = 5, 6

    rows, _ = room.operator.sessions()
    assert [row["bytes"] for row in rows] == [11]
    answer = room.ask_control("ana", '{"id": 1, "ask": "sessions"}')
    assert answer is not None
    [row] = answer["ok"]["sessions"]
    assert (row["bytes_to_device"], row["bytes_to_client"]) == (5, 6)


def test_a_session_from_its_start_to_its_end() -> None:
    """Bytes either way are counted once a second and keep it alive; one fact at each end."""
    room = SessionRoom()
    session, nonce = room.begin("ana", "console", "web")
    assert session.status == "created"
    ear = room.come(session, nonce)
    assert session.status == "started"
    ear.opened = 3
    for turn in range(1, 20):
        room.advance(800.0)
        ear.sums = 10 * turn, 0  # upload only
        room.advance(1.0)
    assert (session.over, session.bytes_to_device, ear.said) == (False, 190, [])
    ear.sums = 190, 7
    ear.go()
    assert (session.bytes_to_client, room.live.connected) == (7, 0)
    room.advance(61.0)
    [start] = [each for each in room.facts if isinstance(each, SessionStarted)]
    assert (start.user, start.serial, start.services, start.peer) == (
        "ana",
        "plc-1",
        ("console", "web"),
        PEER,
    )
    [over] = ended(room)
    assert (over.reason, over.connections, over.bytes_to_device, over.bytes_to_client) == (
        "client-gone",
        3,
        190,
        7,
    )
    assert len(room.live) == 0


@pytest.mark.parametrize(
    ("start", "how", "wanted"),
    [
        (Start("plc-1", ("console",)), "ben", "denied"),
        (Start("plc-9", ("console",)), "ben", "denied"),  # one who may not learns nothing of devices
        (Start("plc-9", ("console",)), "ana", "unknown"),
        (Start("plc-1", ("console", "ssh")), "ana", "unknown"),
        (Start("plc-1", ("console",)), "mute", "muted"),
        (Start("plc-1", ("console",)), "offline", "offline"),
        (Start("plc-1", ("console",)), "drain", "stopping"),
        (Start("plc-1", ("console",)), "expired", "denied"),
    ],
)
def test_who_may_not_start(start: Start, how: str, wanted: str) -> None:
    """A word, a fact, and no session."""
    room = SessionRoom()
    if how == "mute":
        room.mutes.mute("plc-1", "root")
    elif how == "offline":
        room.switchboard.kick("plc-1", "a test", 3600)
        room.pump()
    elif how == "drain":
        room.live.drain()
    elif how == "expired":
        room.set_back = -86_401.0  # the clock was set forward
    user = "ben" if how == "ben" else "ana"
    assert word(room.live.start, room.logins[user], start, PEER) == wanted
    reason = {"ben": "no-grant", "expired": "token-expired"}.get(how, wanted)
    assert room.refusals() == [("start", user, reason)]
    assert (len(room.live), len(room.live.sessions)) == (0, 0)


def test_every_service_has_to_be_granted() -> None:
    """One that is not is enough for a no; the earliest end counts for all."""
    room = SessionRoom()
    room.grant("ben", "start", services="console", until=NOON + 100.0)
    assert word(room.begin, "ben", "console", "web") == "denied"
    room.grant("ben", "start", services="web", id="g8")
    session, nonce = room.begin("ben", "console", "web")
    ear = room.come(session, nonce)
    room.advance(99.0)
    assert ear.ended == []
    room.advance(2.0)
    assert ear.ended == ["revoked"]
    assert (session.ended, session.detail) == ("revoked", "over")


@pytest.mark.parametrize("how", ["token", "user", "grant", "label", "clock"])
def test_rights_that_go_cut_at_once(how: str) -> None:
    """Whatever took them away; a clock that is set back gives nothing back, and takes nothing."""
    room = SessionRoom()
    session, nonce = room.begin("ana", "console")
    ear = room.come(session, nonce)
    if how == "token":
        room.people.revoke_token("ana", None)
    elif how == "user":
        room.people.remove_user("ana")
    elif how == "grant":
        room.grants.remove("g1")
    elif how == "label":
        room.grants.remove("g1")
        room.grant("ana", "start", device="label=line=3")
        assert ear.ended == ["revoked"]
    else:
        room.set_back = 10 * 86_400.0
        ear.sums = 1, 1
        room.advance(2.0)
        assert (ear.ended, session.over) == ([], False)
        room.live.end(session.id, SessionEvent.OPERATOR)
        return
    assert ear.ended == ["revoked"]
    assert [each.reason for each in ended(room)] == ["revoked"]
    assert word(room.live.enter, nonce, session.id, PEER) == "used"


def test_warnings_and_idleness() -> None:
    """Said to everybody who is connected, once; then it ends."""
    room = SessionRoom()
    session, nonce = room.begin("ana", "console")
    ear = room.come(session, nonce)
    room.advance(LIMITS.idle - LIMITS.warning + 1.0)
    assert ear.said == [{"say": "warning", "seconds": 60, "why": "idle"}] or ear.said[0]["seconds"] in (
        59,
        60,
    )
    ear.sums = 1, 0
    room.advance(LIMITS.warning + 1.0)
    assert ear.ended == []
    room.advance(LIMITS.idle + 1.0)
    assert ear.ended == ["idle"]
    assert [each["why"] for each in ear.said] == ["idle", "idle"]


@pytest.mark.parametrize("way", [(1, 0), (0, 1)], ids=["up", "down"])
def test_traffic_one_way_only_is_never_idle(way: tuple[int, int]) -> None:
    """A firmware image that is sent for hours, a camera that is watched: one byte a while is enough."""
    room = SessionRoom()
    session, nonce = room.begin("ana", "console")
    ear = room.come(session, nonce)
    for _ in range(12):
        room.advance(LIMITS.idle - LIMITS.warning - 10.0)
        ear.sums = ear.sums[0] + way[0], ear.sums[1] + way[1]
        room.advance(2.0)
    assert (ear.ended, ear.said, session.over) == ([], [], False)
    room.advance(LIMITS.idle + 1.0)
    assert ear.ended == ["idle"]


def test_a_device_that_goes_and_comes() -> None:
    """Its grace is the session's; back in time it goes on, else it ends; no new session meanwhile."""
    room = SessionRoom()
    session, nonce = room.begin("ana", "console")
    ear = room.come(session, nonce)
    room.switchboard.kick("plc-1", "a test", 0)
    room.advance(0.1)
    room.advance(1.0)
    assert not session.over
    room.advance(30.0)  # the agent comes back by itself
    assert (session.status, session.over, ear.ended) == ("started", False, [])
    room.switchboard.kick("plc-1", "a test", 3600)
    room.advance(2.0)
    room.advance(LIMITS.grace)
    assert ear.ended == ["device-gone"]


def test_mute_operator_owner_and_stop() -> None:
    """Each with its word; what ends the server ends every session."""
    room = SessionRoom()
    ears = []
    for how in range(4):
        session, nonce = room.begin("ana", "console")
        ears.append(room.come(session, nonce))
        if how == 0:
            room.mutes.mute("plc-1", "root")
            room.mutes.unmute("plc-1", "root")
        elif how == 1:
            room.live.end(session.id, SessionEvent.OPERATOR, "by root", "root")
        elif how == 2:
            room.live.end_by(room.logins["ana"], session.id, PEER)
        else:
            room.live.stop()
        assert word(room.live.end, session.id, SessionEvent.OPERATOR) == "ended"
    assert [ear.ended for ear in ears] == [["muted"], ["operator"], ["owner"], ["stopping"]]
    assert word(room.live.end, "0" * 32, SessionEvent.OPERATOR) == "unknown"
    room.people.remove_user("ana")  # nobody listens any more


def test_who_may_end_anothers_session() -> None:
    """One with the right; to one without it there is no such session."""
    room = SessionRoom()
    session, _ = room.begin("ana", "console")
    assert word(room.live.end_by, room.logins["ben"], session.id, PEER) == "unknown"
    assert room.refusals() == [("end", "ben", "no-grant")]
    room.grant("ben", "end")
    room.live.end_by(room.logins["ben"], session.id, PEER)
    assert (session.ended, session.detail) == ("operator", "by ben")


def test_sharing() -> None:
    """By the owner with the right, to whom may; his right is asked for until he comes, and after."""
    room = SessionRoom()
    session, nonce = room.begin("ana", "console", take_over=True)
    mine = room.come(session, nonce)
    share = room.live.share
    assert word(share, session.id, "ana", "ben", Role.USE, PEER) == "denied"
    assert word(share, session.id, "ben", "ben", Role.USE, PEER) == "unknown"
    room.grant("ben", "observe")
    assert word(share, session.id, "ana", "ben", Role.USE, PEER) == "denied"
    watching = room.come(session, share(session.id, "ana", "ben", Role.WATCH, PEER))
    assert watching.seat.role is Role.WATCH
    text = share(session.id, "ana", "ben", Role.WATCH, PEER)
    room.grants.remove("g9")
    assert (watching.ended, mine.ended) == (["revoked"], [])
    assert word(room.live.enter, text, session.id, PEER) == "withdrawn"
    room.grant("ben", "start")
    text = share(session.id, "ana", "ben", Role.USE, PEER)
    room.grants.remove("g9")
    assert word(room.live.enter, text, session.id, PEER) == "denied"
    room.grant("ben", "start")
    his = room.come(session, share(session.id, "ana", "ben", Role.TAKE, PEER))
    assert (mine.ended, session.owner, his.seat.role) == (["taken"], "ben", Role.OWNER)
    room.grants.remove("g9")
    assert (his.ended, session.ended) == (["revoked"], "revoked")


def test_private_sessions_are_not_shared() -> None:
    """Whoever asks, the operator included."""
    room = SessionRoom()
    room.grant("ben", "start")
    session, _ = room.begin("ana", "console", private=True)
    for operator in (False, True):
        assert word(room.live.share, session.id, "ana", "ben", Role.USE, PEER, operator) == "private"


def test_a_second_connection_of_the_owner_replaces_the_first_but_not_one_of_a_browser() -> None:
    """The program comes back; a page opens one connection beside the other."""
    room = SessionRoom()
    session, nonce = room.begin("ana", "console")
    first = room.come(session, nonce)
    page = room.come(session, room.live.nonce("ana", session.id, browser=True))
    second = room.come(session, room.live.nonce("ana", session.id, browser=False))
    assert (first.ended, page.ended, second.ended) == (["replaced"], [], [])
    assert word(room.live.nonce, "ben", session.id, False) == "unknown"


def test_one_who_watches_and_a_service_of_another_session() -> None:
    """At the raw endpoint: neither is let in, and the nonce stays good where it belongs."""
    room = SessionRoom()
    room.grant("ben", "observe")
    session, nonce = room.begin("ana", "console")
    watch = room.live.share(session.id, "ana", "ben", Role.WATCH, PEER)
    assert word(room.live.enter, watch, session.id, PEER, "console") == "watch"
    assert word(room.live.enter, nonce, session.id, PEER, "web") == "not-of-it"
    assert room.refusals() == [("enter", "ben", "watch"), ("enter", "ana", "not-of-it")]
    room.come(session, watch)
    room.come(session, nonce)


def test_a_seat_that_was_lost_before_its_connection_was_there() -> None:
    """It is told so at once; an undone one is no longer counted."""
    room = SessionRoom()
    session, nonce = room.begin("ana", "console")
    came = room.live.enter(nonce, session.id, PEER)
    room.live.left(session, came.seat)  # undone
    assert came.seat.number not in session.seats
    came = room.live.enter(room.live.nonce("ana", session.id, False), session.id, PEER)
    room.live.end(session.id, SessionEvent.OPERATOR)
    ear = Ear(room, session, came.seat)
    room.live.attach(session, came.seat, ear)
    assert ear.ended == ["operator"]


def test_the_audit_has_both_ends_and_no_session_begins_without_it(tmp_path: Path) -> None:
    """One opening, one closing, each refusal; a full disk is a word, and nothing runs."""
    room = SessionRoom()
    path = tmp_path / "audit.jsonl"
    file = AuditFile(str(path), "a test", AuditLimits(), Sync.LASTING, room.wall)
    room.live._audit = audit = SessionAudit(room.clock, file, room.facts.append, room.wall)
    session, nonce = room.begin("ana", "console")
    ear = room.come(session, nonce)
    ear.sums, ear.opened = (5, 6), 2
    word(room.begin, "ben", "console")
    room.advance(1.0)
    with full_disk(0):
        assert word(room.begin, "ana", "console") == "audit"
    assert len(room.live) == len(room.live.sessions) == 1
    room.live.end(session.id, SessionEvent.OPERATOR, "by root", "root")
    audit.close()
    lines = [json.loads(line) for line in path.read_text("ascii").splitlines()]
    found = {line["event"]: line for line in lines}
    assert found["session-opened"]["user_address"] == PEER
    closed = found["session-closed"]
    assert (closed["bytes_to_device"], closed["bytes_to_client"], closed["connections"]) == (5, 6, 2)
    assert (closed["cause"], closed["by"]) == ("operator", "root")
    assert {line["cause"] for line in lines if line["event"] == "refused"} == {"no-grant", "audit"}


def test_limits_of_sessions() -> None:
    """In all, of a user, to a device."""
    room = SessionRoom(SessionLimits(total=3, per_user=2, per_device=3))
    room.grant("ben", "start")
    for user in ("ana", "ana", "ben"):
        room.begin(user, "console")
    assert word(room.begin, "ana", "console") == "too-many"
    assert word(room.begin, "ben", "console") == "too-many"


def test_the_site_of_a_device_is_asked_first() -> None:
    """A yes begins the session, and the answer of /control waits for it; a no, or one taken back, ends it."""
    for rules, wanted in ((ConsentSettings("allow"), "ok"), (ConsentSettings("no"), "error")):
        room = SessionRoom(site=rules)
        text = json.dumps({"id": 1, "ask": "start", "device": "plc-1", "services": ["console"]})
        assert room.ask_control("ana", text) is None
        [live] = room.live.all()
        assert live.session.status == "initializing"
        room.pump()
        [answer] = room.told
        assert wanted in answer
        if wanted == "error":
            assert answer["error"]["word"] == "denied"
            assert [each.reason for each in ended(room)] == ["denied"]
            assert room.refusals() == [("consent", "ana", "site")]
            continue
        ear = room.come(live.session, answer["ok"]["nonce"])
        consented = room.switchboard.say.consented
        assert consented("plc-1", live.session.id, False, "the press is open")
        assert (ear.ended, live.session.detail) == (["revoked"], "the press is open")


def test_a_record_may_refuse_sessions() -> None:
    """``sessions = no`` in its settings, or ``asked`` where the device cannot be asked."""
    room = SessionRoom()
    for policy in ("no", "asked"):
        room.switchboard.access.records = DeviceRecords({"plc-1": DeviceRecord(sessions=policy)})
        assert word(room.begin, "ana", "console") == "denied"
