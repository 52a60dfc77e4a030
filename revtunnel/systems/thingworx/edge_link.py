"""The AlwaysOn link of one ThingWorx device: who it is, and what is said between it and this server.

===========  ==========================================================================================
it says      and gets
===========  ==========================================================================================
AUTH         a session number, if its key is the one that the WebSocket was asked for with; else 81, and out
BIND         its one serial: it is here; any other name: 83, and out, unless it is here already
UNBIND       40, and its link is closed
POST         TunnelCommandFromEdge: 40, and the tunnel is told; 40 also for a tunnel that is over
the rest     84: properties, events and other services belong to a platform; counted, and told once a minute
===========  ==========================================================================================

The rules: every request is answered at once, for the SDK does nothing else before that; what cannot be read
ends the link. Its tunnels end with it, for the word that a service has ended could not come any more.

Source: next/remote-sessions.md section 4.
"""

from twisted.internet.interfaces import IDelayedCall

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.ground.facts import PeerGlitch
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Offer
from revtunnel.link.handshake import LinkDenied, ServerUp
from revtunnel.link.server_link import AgentListener
from revtunnel.sockets.ways.websocket_messages import WebSocketMessages
from revtunnel.sockets.ways.websocket_wire import close_words
from revtunnel.systems.thingworx.alwayson_messages import (
    NOTHING,
    AlwaysOnCode,
    AlwaysOnMessage,
    AlwaysOnParts,
    AlwaysOnReply,
    AlwaysOnRequest,
    complete_tunnel,
    decode_alwayson,
    decode_auth,
    decode_bind,
    decode_request,
    encode_alwayson,
    encode_reply,
    encode_request,
    start_tunnel,
    tunnel_command,
)
from revtunnel.systems.thingworx.edge_host import EdgeHost
from revtunnel.systems.thingworx.edge_tunnel import EdgeTunnel
from revtunnel.systems.thingworx.edge_tunnels import EdgeTunnels

__all__ = ["EdgeLink"]

GLITCHES = 60.0  # seconds between two lines about messages that are not taken
PEER = "revtunnel"  # whom a tunnel was for; the SDK wants a name and does nothing with it
_ENDS = {"kicked": Ended.OPERATOR, "expired": Ended.NOT_ALLOWED}  # why streams end with their link
C = AlwaysOnCode


class EdgeLink:
    """One device, from its WebSocket on, in the form that the switchboard knows links by."""

    system = "thingworx"
    takes_sockets = False
    by_web = True
    handshake = None
    certificate = None

    def __init__(
        self, host: EdgeHost, listener: AgentListener, serial: str, peer: str, tls: str, software: str
    ) -> None:
        self.serial = serial
        self.peer = peer
        self.tls = tls
        self.software = software
        self.listener = listener
        self.clock = host.clock
        self.carrier = EdgeTunnels(self, serial, host.limits, host.report)
        self.authenticated = True
        self.replaced = False
        self.up_since: float | None = None
        self.ended: tuple[str, str] | None = None
        self.strays = 0  # messages that were not taken
        self._host = host
        self._socket: WebSocketMessages | None = None
        self._parts = AlwaysOnParts()
        self._session = 0  # 0: it has not said AUTH
        self._requests = 0
        self._starting: dict[int, EdgeTunnel] = {}  # by request, until it is answered
        self._told_strays = 0
        self._stray = ""
        self._glitches: IDelayedCall | None = None
        self._leaving = False
        self._late = self.clock.callLater(host.limits.first, self._is_late)

    # -- as the switchboard knows a link

    @property
    def offers(self) -> tuple[Offer, ...]:
        """What its record says that it has: it does not say so itself."""
        return self._host.services(self.serial)

    @property
    def round_trip(self) -> float | None:
        """Seconds, as measured; None: not yet."""
        return self._socket.round_trip if self._socket is not None else None

    def goaway(self, reason: GoAway, retry_after: int, detail: str, place: str = "") -> None:
        """The wire has no word for it: the link is closed when no tunnel is open any more."""
        self._leaving = True
        self._leave_if_idle()

    def dismiss(self, reason: str, detail: str, say: GoAway, retry_after: int = 0, by: str = "") -> None:
        """End the link from our side, its tunnels with it."""
        self.fail(reason, f"{detail}, {by}" if by else detail)

    def fail(self, reason: str, detail: str) -> None:
        """End it, once."""
        if self.ended is not None:
            return
        self.ended = reason, detail
        if self.up_since is not None:
            self.carrier.end_streams(_ENDS.get(reason, Ended.LINK_LOST), detail)
        if self._socket is not None:
            self._socket.close(1000 if reason in ("stopping", "left") else 1008, reason)
        self._gone()

    # -- the WebSocket (MessageOwner)

    def opened(self, socket: WebSocketMessages) -> None:
        """Its connection."""
        self._socket = socket

    def received(self, message: bytes | str) -> None:
        if self.ended is not None:
            return
        try:
            if isinstance(message, str):
                raise RemoteError("a text message, where AlwaysOn's binary ones are wanted")
            whole = self._parts.receive(decode_alwayson(message))
            if whole is not None:
                self._take(whole)
        except LinkDenied as error:
            self.fail(error.word, str(error))
        except RemoteError as error:
            self.fail("protocol", str(error))

    def may_send(self) -> None:
        """Nothing waits here for room."""

    def closed(self, code: int, reason: str) -> None:
        self._socket = None
        self.fail("lost", close_words(code, reason))

    # -- what it says

    def _take(self, message: AlwaysOnMessage) -> None:
        if message.code is C.AUTH:
            self._auth(message)
        elif not self._session or message.session != self._session:
            self._answer(message, C.UNAUTHORIZED)
            raise RemoteError(f"{message.code.name} in session {message.session}, which is not its own")
        elif message.code.is_reply:
            self._answered(message)
        elif message.code is C.BIND:
            self._bind(message)
        elif message.code is C.UNBIND:
            self._unbind(message)
        elif message.code is C.POST:
            self._asked(message)
        elif message.code is C.KEEP_ALIVE:
            self._answer(message, C.SUCCESS)
        else:
            self._not_taken(message, message.code.name)

    def _auth(self, message: AlwaysOnMessage) -> None:
        name, key = decode_auth(message.body)
        if name.lower() != "appkey" or self._host.keys.serial_of(key) != self.serial:
            self._answer(message, C.UNAUTHORIZED)
            raise LinkDenied(
                GoAway.DENIED, f"AUTH with another {name[:32]!a} than the WebSocket's", self.serial
            )
        self._session = self._session or 1 + self._host.random(0x7FFF_FFFE)
        self._answer(message._replace(session=self._session), C.SUCCESS)

    def _bind(self, message: AlwaysOnMessage) -> None:
        names = decode_bind(message.body).names
        if set(names) != {self.serial}:
            self._answer(message, C.FORBIDDEN, "not the name that this key is for")
            said = ", ".join(names)[:160]
            if self.up_since is None:
                raise LinkDenied(GoAway.DENIED, f"the key of {self.serial} binds {said!a}", self.serial)
            self._odd(f"BIND of {said!a}")
            return
        if self.up_since is None:
            try:
                self._host.hub.admit(self, ServerUp(self.serial, None, True))
            except LinkDenied:
                self._answer(message, C.FORBIDDEN)
                raise
            self._late.cancel()
            self.up_since = self.clock.seconds()
            self._answer(message, C.SUCCESS)
            self._host.hub.arrived(self)
        else:
            self._answer(message, C.SUCCESS)

    def _unbind(self, message: AlwaysOnMessage) -> None:
        names = decode_bind(message.body).names
        self._answer(message, C.SUCCESS)
        if self.serial in names:
            self.fail("left", "it said UNBIND")

    def _asked(self, message: AlwaysOnMessage) -> None:
        asked = decode_request(message.body)
        if asked.name != "TunnelCommandFromEdge" or asked.entity != self.serial or self.up_since is None:
            self._not_taken(message, f"service {asked.name[:64]!a} of {asked.entity[:64]!a}")
            return
        fields = asked.fields()
        self._answer(message, C.SUCCESS)
        tunnel = self.carrier.tunnels.get(str(fields.get("tid")))
        command = str(fields.get("command"))
        if command == "DISCONNECT" and tunnel is not None:
            tunnel.service_ended()
        elif command == "CANCEL" and tunnel is not None:
            tunnel.cancelled()
        elif command not in ("DISCONNECT", "CANCEL"):
            self._odd(f"TunnelCommandFromEdge {command[:32]!a}")

    def _answered(self, message: AlwaysOnMessage) -> None:
        tunnel = self._starting.pop(message.request, None)
        if tunnel is not None and message.code is not C.SUCCESS:
            tunnel.cancelled(f"the device answers {message.code.name} to StartTunnel")

    # -- what it is told

    def _answer(self, message: AlwaysOnMessage, code: AlwaysOnCode, reason: str = "") -> None:
        body = encode_reply(AlwaysOnReply(reason, NOTHING))
        self._say(AlwaysOnMessage(code, message.request, message.session, body))

    def _request(self, request: AlwaysOnRequest) -> int:
        self._requests = self._requests % 0x7FFF_FFFF + 1
        self._say(AlwaysOnMessage(C.POST, self._requests, self._session, encode_request(request)))
        return self._requests

    def _say(self, message: AlwaysOnMessage) -> None:
        if self._socket is None or self.ended is not None:
            return
        try:
            self._socket.send(encode_alwayson(message))
        except LocalError:
            self.fail("silent", f"it takes nothing: {self._socket.waiting} bytes wait")

    # -- of its tunnels (TunnelStarter)

    def new_tid(self) -> str:
        return self._host.new_tid()

    def next_stream(self) -> int:
        number: int = self._host.hub.next_stream()
        return number

    def start(self, tunnel: EdgeTunnel, host: str, port: int) -> None:
        self._host.expect(tunnel)
        self._starting[self._request(start_tunnel(self.serial, tunnel.tid, host, port))] = tunnel

    def end(self, tunnel: EdgeTunnel, why: str) -> None:
        self._host.expect_no_more(tunnel)
        self._request(tunnel_command(self.serial, tunnel.tid, "DISCONNECT"))
        self._request(complete_tunnel(self.serial, tunnel.tid, PEER, why))

    def forget(self, tunnel: EdgeTunnel) -> None:
        self._host.expect_no_more(tunnel)
        self._starting = {request: each for request, each in self._starting.items() if each is not tunnel}
        self._leave_if_idle()

    # -- what is odd

    def _not_taken(self, message: AlwaysOnMessage, what: str) -> None:
        self._answer(message, C.NOT_FOUND)
        self._odd(what)

    def _odd(self, what: str) -> None:
        """Counted; told at once, and then once a minute as long as there are more."""
        self.strays += 1
        self._stray = what
        if self._glitches is None:
            self._tell_strays()

    def _tell_strays(self) -> None:
        count, self._told_strays = self.strays - self._told_strays, self.strays
        self._glitches = None
        if count and self.ended is None:
            detail = f"{count} messages that are not taken here, the last: {self._stray}"
            self._host.report(PeerGlitch(self.serial, self.peer, detail))
            self._glitches = self.clock.callLater(GLITCHES, self._tell_strays)

    # -- ends

    def _is_late(self) -> None:
        said = "BIND" if self._session else "AUTH"
        self.fail("silent", f"no {said} in {self._host.limits.first:g} s")

    def _leave_if_idle(self) -> None:
        if self._leaving and self.ended is None and not self.carrier.running:
            self.fail("stopping", "")

    def _gone(self) -> None:
        for timer in (self._late, self._glitches):
            if timer is not None and timer.active():
                timer.cancel()
        reason, detail = self.ended or ("lost", "")
        if self.up_since is None:
            self._host.hub.refused(self, reason, detail)
        else:
            self._host.hub.departed(self, reason, detail, 0)
        self._host.left(self)
