"""Agents at web listeners: ``/link``, a WebSocket for a link or for a data socket, where ``agents`` is set.

The rule: whoever comes is a stranger of the listener for agents that the web listener is as well, and has its
limits, its keys and its pool. What a device has to show is its key: a certificate is shown to link ports.

Source: docs/link-protocol.rst "WebSockets"; next/remote-sessions.md section 2; ours.
"""

from typing import Any

from revtunnel.daemons.switchboard import Switchboard
from revtunnel.fleet.strangers import NotLetIn
from revtunnel.ground.server_places import DATA, LINK, LINK_PATH
from revtunnel.link.link_websockets import end_of
from revtunnel.process.web.web_routes import WebCall
from revtunnel.sockets.ways.websocket_upgrade import HandshakeRefused, Upgraded
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits

__all__ = ["AgentRoute"]


class AgentRoute:
    """The way from a web listener to the switchboard."""

    prefix = LINK_PATH
    browsers = False

    def __init__(self, reactor: Any, board: Switchboard, limits: WebSocketLimits) -> None:
        self._reactor = reactor
        self._board = board
        self._limits = limits

    def judge(self, call: WebCall, offered: tuple[str, ...]) -> str:
        name = f"web {call.listener}"
        if name not in self._board.listeners:
            raise HandshakeRefused(404, "nothing is here")
        named = next((each for each in (LINK, DATA) if each in offered), None)
        if named is None:
            raise HandshakeRefused(400, f"subprotocol {LINK} or {DATA} wanted")
        try:
            stranger = self._board.admission.enter(call.peer, judged=True)
        except NotLetIn as refused:
            call.reason = refused.reason
            raise HandshakeRefused(503, f"no agents are let in now: {call.reason}") from None
        stranger.heard()  # a request
        call.found, call.undo = (name, stranger), stranger.leave
        return named

    def opened(self, call: WebCall, upgraded: Upgraded) -> None:
        end = end_of(self._reactor, upgraded, self._limits)
        name, stranger = call.found
        self._board.admission.came_by_web(self._board, name, end, stranger, upgraded.subprotocol)
