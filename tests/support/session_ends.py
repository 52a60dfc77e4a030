"""A remote session's WebSocket with both ends on it, and what each end's owner was told.

::

    session = Session(loop, {"ssh": services})     # services: anything with buildProtocol
    socket = session.open("ssh", Recorder...)      # a local program's connection, already in the session
    session.settle()
"""

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IProtocol

from revtunnel.ground.limits import LinkLimits
from revtunnel.link.handshake import ServerHello
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import PlainEnd, tune
from revtunnel.sockets.ways.websocket import WebSocketEnd
from revtunnel.streams.streams import ChannelSocket
from revtunnel.streams.window import CreditPool
from revtunnel.systems.sessions.session_link import SessionClient, SessionServer, serve_session
from tests.support.ends import tcp_pair
from tests.support.epoll import Loop
from tests.support.web_ends import LIMITS, join_upgraded

__all__ = ["Made", "Session", "Told"]


class Made:
    """Those of a test's own factory."""

    def __init__(self, factory: Any) -> None:
        self._factory = factory

    def came_by(self, begin: Callable[[Any], None], peer: str, origin: Any) -> None:
        """One more."""
        begin(self._factory.buildProtocol(None))


class Told:
    """The owner of either end; it keeps what it is told."""

    def __init__(self, services: dict[str, Any] | None = None) -> None:
        self.services = services or {}
        self.ups = 0
        self.texts: list[dict[str, Any]] = []
        self.ended: list[tuple[str, str, str]] = []  # service, reason, detail
        self.bytes: list[tuple[int, int]] = []  # of each channel: sent, received
        self.over: list[tuple[str, str, int]] = []  # reason, detail, channels cut

    def clients_of(self, link: Any, service: str) -> Any:
        """Of this session, or None."""
        found = self.services.get(service)
        return found if found is None or hasattr(found, "came_by") else Made(found)

    def up(self, link: Any) -> None:
        """HELLO came."""
        self.ups += 1

    def texted(self, link: Any, said: dict[str, Any]) -> None:
        """A command."""
        self.texts.append(said)

    def channel_ended(self, link: Any, channel: Any, reason: Any, detail: str) -> None:
        """A channel is over."""
        self.ended.append((channel.target.host, reason.word, detail))
        self.bytes.append((channel.bytes_sent, channel.bytes_received))

    def gone(self, link: Any, reason: str, detail: str, cut: int) -> None:
        """The connection is over."""
        self.over.append((reason, detail, cut))


class Session:
    """Both ends, up."""

    def __init__(
        self, loop: Loop, services: dict[str, Any], limits: LinkLimits | None = None, **how: Any
    ) -> None:
        self.loop = loop
        limits = limits or LinkLimits()
        self.at_server, self.at_client = Told(services), Told()
        client, server = join_upgraded(loop, **{"tcp": True, **how})
        for upgraded in (client, server):
            tune(upgraded.end.sock)
        pools = CreditPool(1 << 30), CreditPool(1 << 30)
        hello = ServerHello("gate", "a test", limits.first_window)
        self.server = SessionServer(loop.reactor, limits, hello, pools[0], self.at_server)
        serve_session(loop.reactor, server, self.server, LIMITS)
        self.client = SessionClient(loop.reactor, limits, pools[1], self.at_client)
        end = WebSocketEnd(loop.reactor, client, LIMITS, self.client.text_came)
        self.client.carried_by(end, loop.reactor)
        self.transports: list[EndTransport] = []
        loop.until(lambda: self.at_client.ups, "the server's HELLO")

    def open(self, service: str, program: IProtocol) -> ChannelSocket:
        """A local program connects, and its connection is given a channel."""
        near, far = tcp_pair()
        local = ChannelSocket(self.loop.reactor, PlainEnd(near))
        self.transports.append(EndTransport(self.loop.reactor, PlainEnd(far), program))
        self.transports[-1].start()
        assert self.client.open(local, service) is not None
        return local

    def sever(self) -> None:
        """Cut the TCP connection below the WebSocket."""
        assert self.client.web is not None
        self.client.web.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of everything."""
        for link in (self.client, self.server):
            if not link._lost:
                link.transport.abortConnection()
        for transport in self.transports:
            transport.abortConnection()
        self.loop.settle()
        for link in (self.client, self.server):
            assert not link._lost or link._timer is None
