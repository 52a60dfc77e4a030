"""The endpoints' doors: the nonce table with its statuses, where a nonce may stand, what is undone."""

from typing import Any

import pytest

from revtunnel.ground.limits import LinkLimits
from revtunnel.link.handshake import ServerHello
from revtunnel.sockets.ways.websocket_upgrade import HandshakeRefused
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits
from revtunnel.streams.window import CreditPool
from revtunnel.systems.sessions.control_route import SUBPROTOCOL as CONTROL
from revtunnel.systems.sessions.control_route import ControlRoute
from revtunnel.systems.sessions.session_life import Role, SessionEvent
from revtunnel.systems.sessions.session_link import SUBPROTOCOL
from revtunnel.systems.sessions.session_routes import ClientRoute, RawRoute
from revtunnel.trust.user_tokens import write_user_token
from tests.support.session_room import PEER, SessionRoom, call_of


def routes(room: SessionRoom) -> tuple[ClientRoute, RawRoute]:
    """Both endpoints."""
    dial: Any = room.switchboard.client_streams.clients_by_name
    common = room.reactor, room.live, dial, WebSocketLimits()
    pool = CreditPool(1 << 20)
    return ClientRoute(*common, lambda: (LinkLimits(), ServerHello()), pool), RawRoute(*common)


def judged(route: Any, path: str, nonce: str, *offered: str) -> int:
    """The status; 101 when it is let in."""
    call = call_of(path, ("Authorization", f"Bearer {nonce}"))
    try:
        route.judge(call, offered)
    except HandshakeRefused as refused:
        return refused.status
    return 101


CASES = {
    "wrong": 401,
    "no": 401,
    "used": 401,
    "expired": 401,
    "withdrawn": 401,
    "device's": 403,
    "elsewhere": 403,
    "ended": 410,
    "watches": 101,
    "good": 101,
}


@pytest.mark.parametrize("endpoint", ["client", "raw"])
@pytest.mark.parametrize("case", CASES)
def test_the_table_of_nonces(endpoint: str, case: str) -> None:
    """Each fault has its status, its word in the audit, and changes nothing."""
    room = SessionRoom()
    session, nonce = room.begin("ana", "console")
    other, _ = room.begin("ana", "console")
    sessions, now, number = room.live.sessions, room.clock.seconds(), session.id
    if case == "wrong":
        nonce = "A" * 43
    elif case == "no":
        nonce = ""
    elif case == "used":
        room.come(session, nonce)
    elif case == "expired":
        room.come(session, room.live.nonce("ana", number, True))
        room.advance(60.0)
    elif case == "withdrawn":
        sessions.nonces.withdraw(number, "ana")
    elif case == "device's":
        nonce = sessions.nonce(session, Role.DEVICE, "plc-1", now)
    elif case == "elsewhere":
        number = other.id
    elif case == "ended":
        room.live.end(number, SessionEvent.OPERATOR)
    elif case == "watches":
        room.grant("ben", "observe")
        nonce = room.live.share(number, "ana", "ben", Role.WATCH, PEER)
    client, raw = routes(room)
    if endpoint == "client":
        status = judged(client, f"/session/client/{number}", nonce, SUBPROTOCOL)
        assert status == CASES[case]
    else:
        status = judged(raw, f"/session/raw/{number}/console", nonce)
        assert status == CASES[case]
    seats = [seat.role for seat in session.seats.values() if seat.role is not Role.DEVICE]
    words = [reason for action, _, reason in room.refusals()]
    if status == 101:
        assert len(seats) == 1 and words == []
    else:
        said = {"no": "wrong", "device's": "swapped"}.get(case, case)
        assert words == [said]
        assert len(seats) == (case in ("used", "expired"))


def test_what_is_no_endpoint() -> None:
    """404 where nothing is, 400 without the subprotocol; nothing is used up."""
    room = SessionRoom()
    session, nonce = room.begin("ana", "console")
    client, raw = routes(room)
    assert judged(client, f"/session/client/{session.id}", nonce) == 400
    assert judged(client, f"/session/client/{session.id}", nonce, "revtunnel.session.2") == 400
    assert judged(client, f"/session/client/{session.id}x", nonce, SUBPROTOCOL) == 404
    assert judged(raw, f"/session/raw/{session.id}", nonce) == 404
    assert judged(raw, f"/session/raw/{session.id}/a/b", nonce) == 404
    assert judged(raw, f"/session/raw/{session.id}/web", nonce) == 404
    assert judged(raw, f"/session/raw/{session.id}/console", nonce) == 101


def test_where_a_nonce_may_stand() -> None:
    """In Authorization once, or among the subprotocols beside a real one, which is the answer."""
    room = SessionRoom()
    session, nonce = room.begin("ana", "console")
    client, raw = routes(room)
    path = f"/session/raw/{session.id}/console"
    twice = ("Authorization", f"Bearer {nonce}")
    for call, offered in (
        (call_of(path, twice, twice), ()),
        (call_of(path, ("Authorization", f"Basic {nonce}")), ()),
        (call_of(path), (f"nonce.{nonce}",)),
    ):
        with pytest.raises(HandshakeRefused):
            raw.judge(call, offered)
    assert raw.judge(call_of(path), (f"nonce.{nonce}", "binary")) == "binary"
    nonce = room.live.nonce("ana", session.id, False)
    offered = (SUBPROTOCOL, f"nonce.{nonce}")
    assert client.judge(call_of(f"/session/client/{session.id}"), offered) == SUBPROTOCOL


def test_a_connection_that_is_lost_before_it_is_answered_gives_its_seat_back() -> None:
    """The nonce is used up; the session lives its grace."""
    room = SessionRoom()
    session, nonce = room.begin("ana", "console")
    _, raw = routes(room)
    call = call_of(f"/session/raw/{session.id}/console", ("Authorization", f"Bearer {nonce}"))
    raw.judge(call, ())
    assert call.undo is not None
    call.undo()
    assert [seat.role for seat in session.seats.values()] == [Role.DEVICE]
    room.advance(61.0)
    assert session.ended == "client-gone"


def test_who_comes_to_control() -> None:
    """A good token, and so many connections of one user; undone ones count no more."""
    room = SessionRoom()
    route = ControlRoute(room.reactor, room.live, room.asks, "gate", WebSocketLimits())
    route.most_per_user = 2
    token = write_user_token(b"ana".ljust(32))

    def status(text: str, *offered: str) -> tuple[int, Any]:
        call = call_of("/control", ("Authorization", f"Bearer {text}"))
        try:
            assert route.judge(call, offered) == CONTROL
        except HandshakeRefused as refused:
            return refused.status, call
        return 101, call

    assert status(token)[0] == 400
    for text, reason in (("", "malformed"), (write_user_token(b"x" * 32), "unknown")):
        assert status(text, CONTROL)[0] == 401
        assert room.refusals()[-1] == ("login", "", reason)
    assert status(token, CONTROL)[0] == 101
    code, call = status(token, CONTROL)
    assert code == 101
    assert status(token, CONTROL)[0] == 503
    call.undo()
    assert status(token, CONTROL)[0] == 101
