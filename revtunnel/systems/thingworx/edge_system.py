"""ThingWorx devices at a web listener: one WebSocket for a device's link, one for each of its tunnels.

===============================  ====================================================================
path                             what it is
===============================  ====================================================================
/Thingworx/WS                    the AlwaysOn link
/Thingworx/WSTunnelServer/TID    a tunnel, whose name was told to the device; good once
===============================  ====================================================================

The rules: both are asked for with the device's app key in ``appKey``, so that nobody unknown has a WebSocket
here. No frame is larger than ``Max-Frame-Size``. No extension is agreed to, and no subprotocol.

Source: next/remote-sessions.md section 4.
"""

from collections.abc import Callable
from typing import Any

from revtunnel.ground.facts import Report
from revtunnel.ground.limits import EdgeLimits
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.targets import Offer
from revtunnel.link.server_link import AgentListener
from revtunnel.process.web.web_routes import WebCall
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ways.websocket_messages import WebSocketMessages
from revtunnel.sockets.ways.websocket_upgrade import HandshakeRefused, Request, Upgraded
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits, WebSocketWire
from revtunnel.systems.thingworx.alwayson_messages import FRAME, MAX_MESSAGE
from revtunnel.systems.thingworx.edge_link import EdgeLink
from revtunnel.systems.thingworx.edge_tunnel import EdgeTunnel
from revtunnel.trust.app_keys import AppKeys

__all__ = ["EdgeSystem"]

LINK, TUNNEL = "/Thingworx/WS", "/Thingworx/WSTunnelServer/"
LEAST_FRAME = 1024  # bytes: what we say in one piece fits
TID_BYTES = 16
KEEPALIVE = 300.0  # seconds of silence before a ping: the SDK sends its own every 55 s
ANSWER = 60.0  # seconds for its answer


class EdgeSystem:
    """All ThingWorx devices of one server, as a route of its web listeners."""

    prefix = "/Thingworx/"
    browsers = False

    def __init__(
        self,
        reactor: Any,
        hub: Any,
        keys: AppKeys,
        limits: EdgeLimits,
        services: Callable[[str], tuple[Offer, ...]],
        listener: Callable[[str], AgentListener],
        random_bytes: Callable[[int], bytes],
        report: Report,
    ) -> None:
        """``services``: of a serial, by its record; ``listener``: what links get at a web listener."""
        self.clock = reactor
        self.hub = hub
        self.keys = keys
        self.limits = limits
        self.services = services
        self.report = report
        self.draining = False
        self.links: set[EdgeLink] = set()
        self._listener = listener
        self._reactor = reactor
        self._random_bytes = random_bytes
        self._expected: dict[str, EdgeTunnel] = {}

    # -- as a route

    def judge(self, call: WebCall, offered: tuple[str, ...]) -> str:
        """Let a device in by its key. HandshakeRefused: 401, 403, 404, 503, or 400 for its Max-Frame-Size."""
        request = call.request
        serial = self.keys.serial_of(_one(request, "appKey"))
        if serial is None:
            call.reason = "denied"
            raise HandshakeRefused(401, "the appKey is of no device here")
        frame = _frame(request)
        if self.draining:
            raise HandshakeRefused(503, "the server is stopping")
        if call.path == LINK:
            call.found = serial, frame
            return ""
        tunnel = self._expected.get(call.path.removeprefix(TUNNEL)) if call.path.startswith(TUNNEL) else None
        if tunnel is None:
            raise HandshakeRefused(404, "there is no such tunnel")
        if tunnel.serial != serial:
            raise HandshakeRefused(403, "the tunnel is another device's")
        del self._expected[tunnel.tid]
        call.found = tunnel, frame
        call.undo = lambda: tunnel.cancelled("its WebSocket was lost at once")
        return ""

    def opened(self, call: WebCall, upgraded: Upgraded) -> None:
        """A link begins, or a tunnel has come."""
        found, frame = call.found
        if isinstance(found, EdgeTunnel):
            found.came(self._reactor, upgraded, frame)
            return
        limits = WebSocketLimits(message=MAX_MESSAGE, piece=frame, keepalive=KEEPALIVE, answer=ANSWER)
        who = found, call.peer, upgraded.end.tls_version, _one(call.request, "User-Agent")[:64]
        link = EdgeLink(self, self._listener(call.listener), *who)
        self.links.add(link)
        socket = WebSocketMessages(self._reactor, WebSocketWire(upgraded.engine, limits), link)
        link.opened(socket)
        EndTransport(self._reactor, upgraded.end, socket).start()

    # -- as a host of links

    def random(self, below: int) -> int:
        return int.from_bytes(self._random_bytes(8), "big") % below

    def new_tid(self) -> str:
        return self._random_bytes(TID_BYTES).hex()

    def expect(self, tunnel: EdgeTunnel) -> None:
        self._expected[tunnel.tid] = tunnel

    def expect_no_more(self, tunnel: EdgeTunnel) -> None:
        self._expected.pop(tunnel.tid, None)

    def left(self, link: EdgeLink) -> None:
        self.links.discard(link)

    # -- what operators and settings do

    @property
    def sockets(self) -> int:
        """WebSockets that are no links: of tunnels, also those that may come, and of links not up yet."""
        return sum(len(link.carrier.tunnels) + (link.up_since is None) for link in self.links)

    def stop(self) -> None:
        """Turn everybody away whose link is not up; those that are up the switchboard ends."""
        self.draining = True
        for link in [each for each in self.links if each.up_since is None]:
            link.dismiss("stopping", "the server stops", GoAway.STOPPING)


def _one(request: Request, name: str) -> str:
    """The value of a field; "": it is not there, or more than once."""
    found = request.headers.get_all(name)
    return found[0].strip() if len(found) == 1 else ""


def _frame(request: Request) -> int:
    text = _one(request, "Max-Frame-Size") or str(FRAME)
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= LEAST_FRAME):
        raise HandshakeRefused(400, f"Max-Frame-Size: a number of {LEAST_FRAME} or more wanted")
    return min(int(text), 65_536)
