"""Who comes as a localproxy in source mode."""

from typing import Any

from revtunnel.process.web.web_routes import WebCall
from revtunnel.sockets.ways.websocket_upgrade import HandshakeRefused, request_of
from revtunnel.systems.sessions.localproxy_route import LocalproxyRoute
from revtunnel.systems.sessions.session_life import SessionEvent
from tests.support.session_room import PEER, SessionRoom

PROTOCOL = "aws.iot.securetunneling-3.0"


def route_of(room: SessionRoom, reactor: Any) -> LocalproxyRoute:
    """For sources: a device has no listener."""
    none: Any = None
    dial: Any = room.switchboard.client_streams.clients
    return LocalproxyRoute(reactor, room.live, dial, none, none, none, none, room.facts.append)


def call_with(nonce: str) -> WebCall:
    """A source's request."""
    headers = [("Host", "gate.example"), ("access-token", nonce)]
    request = request_of("GET", "/tunnel?local-proxy-mode=source", headers)
    return WebCall(request, "/tunnel", "local-proxy-mode=source", PEER, True, None, "main")


def status_of(route: LocalproxyRoute, nonce: str) -> int:
    """What is answered."""
    try:
        route.judge(call_with(nonce), (PROTOCOL,))
    except HandshakeRefused as refused:
        return refused.status
    return 101


def test_nonces_as_at_the_other_endpoints() -> None:
    """A session that has ended is 410, and whose nonce it was is known of a used one too."""
    room = SessionRoom()
    session, nonce = room.begin("ana", "console")
    route = route_of(room, room.reactor)
    assert status_of(route, nonce) == 101
    assert status_of(route, nonce) == 401
    later = room.live.nonce("ana", session.id, False)
    room.live.end(session.id, SessionEvent.OPERATOR)
    assert status_of(route, later) == 410
    assert status_of(route, "A" * 43) == status_of(route, "?") == status_of(route, "") == 401
    assert room.refusals()[:2] == [("enter", "ana", "used"), ("enter", "ana", "ended")]
    assert {user for _, user, _ in room.refusals()[2:]} == {""}
