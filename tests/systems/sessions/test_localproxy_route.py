"""Who comes as a localproxy in source mode, and what becomes of one whose session ends meanwhile."""

from typing import Any

from revtunnel.process.web.web_routes import WebCall
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ways.websocket_messages import WebSocketMessages
from revtunnel.sockets.ways.websocket_upgrade import HandshakeRefused, request_of
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits, WebSocketWire
from revtunnel.systems.sessions.localproxy_route import LocalproxyRoute
from revtunnel.systems.sessions.session_life import SessionEvent
from tests.support.epoll import Loop
from tests.support.session_room import PEER, SessionRoom
from tests.support.web_ends import join_upgraded

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


class Far:
    """The localproxy's side."""

    def __init__(self, loop: Loop, upgraded: Any) -> None:
        self.ends: list[tuple[int, str]] = []
        wire = WebSocketWire(upgraded.engine, WebSocketLimits())
        self.socket = WebSocketMessages(loop.reactor, wire, self)
        EndTransport(loop.reactor, upgraded.end, self.socket).start()

    def received(self, message: bytes | str) -> None:
        """Nothing to do."""

    def may_send(self) -> None:
        """Nothing is said."""

    def closed(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))


def test_a_session_that_ends_while_its_websocket_comes(loop: Loop) -> None:
    """It is closed with the session's word."""
    room = SessionRoom()
    session, nonce = room.begin("ana", "console")
    route, call = route_of(room, loop.reactor), call_with(nonce)
    route.judge(call, (PROTOCOL,))
    client, server = join_upgraded(loop, tcp=True)
    far = Far(loop, client)
    room.live.end(session.id, SessionEvent.OPERATOR)
    route.opened(call, server)
    loop.until(lambda: far.socket.over, "the end")
    assert [reason for _, reason in far.ends] == ["operator"]
    assert far.ends[0][0] > 4000
