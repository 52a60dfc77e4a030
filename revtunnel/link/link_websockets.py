"""Links and data sockets over WebSocket: what they are at either end, and the agent's step behind TLS.

A link is a byte stream of frames in binary messages, and ends with a close. A data socket ends each direction
by itself (sockets/ways/websocket_halves.py).

Source: docs/link-protocol.rst "WebSockets"; next/remote-sessions.md section 2; ours.
"""

from typing import Any

import revtunnel
from revtunnel.ground.server_places import DATA, ServerPlace
from revtunnel.sockets.ends import End
from revtunnel.sockets.stages import Stage
from revtunnel.sockets.ways.websocket import WebSocketEnd
from revtunnel.sockets.ways.websocket_halves import HalfClosingEnd
from revtunnel.sockets.ways.websocket_upgrade import HandshakeRefused, Upgraded, UpgradeRequest, connect_end
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits

__all__ = ["dial_websocket", "end_of"]

_GATEWAY = frozenset((502, 503, 504))


def end_of(reactor: Any, upgraded: Upgraded, limits: WebSocketLimits) -> WebSocketEnd:
    """What a link, or a data socket, is carried by."""
    kind = HalfClosingEnd if upgraded.subprotocol == DATA else WebSocketEnd
    return kind(reactor, upgraded, limits)


def dial_websocket(reactor: Any, place: ServerPlace, subprotocol: str, timeout: float) -> Stage:
    """A WebSocket with a server's web listener. ConnectionError: whoever is there has none for us."""
    limits = WebSocketLimits(handshake=timeout)
    agent = (("User-Agent", f"revtunnel-agent/{revtunnel.__version__}"),)
    asked = UpgradeRequest(place.host, place.port, place.path, place.secure, (subprotocol,), agent)

    async def stage(end: End) -> End:
        try:
            upgraded = await connect_end(reactor, end, asked, limits)
        except HandshakeRefused as refused:
            words = _words(refused, place)
            raise HandshakeRefused(refused.status, words, refused.page, refused.retry_after) from None
        if upgraded.subprotocol != subprotocol:
            end.abort()
            words = f"its WebSocket at {place.path} does not speak {subprotocol}: it is no revtunnel server"
            raise HandshakeRefused(0, words)
        return end_of(reactor, upgraded, limits)

    return stage


def _words(refused: HandshakeRefused, place: ServerPlace) -> str:
    """What an answer means that is no WebSocket."""
    if refused.page and refused.status in _GATEWAY:
        return f"{refused.why}: the server behind this gateway is not there"
    if refused.page or refused.status // 100 in (2, 3):
        return f"{refused.why}: this is no revtunnel server"
    if refused.status == 404:
        return f"{refused.why}: no agents are let in at {place.path}, see agents in [web NAME] of its server"
    return refused.why
