"""What Protocols of others want of a transport beyond what ours need: addresses, and two socket options.

Source: Twisted's ITransport, ITCPTransport.
"""

import socket
from typing import Any

from twisted.internet.interfaces import IConsumer, IPushProducer, ITCPTransport
from zope.interface import implementer

from revtunnel.sockets.addresses import address_of
from revtunnel.sockets.end_transport import EndTransport

__all__ = ["IStream", "TwistedTransport"]


class IStream(ITCPTransport, IConsumer, IPushProducer):
    """What is asked of a transport; for the type checker only."""


@implementer(ITCPTransport)
class TwistedTransport(EndTransport):
    """An EndTransport with all of it."""

    __slots__ = ()

    def getPeer(self) -> Any:
        """Twisted's."""
        return address_of(self._end.sock.family, self._end.sock.getpeername())

    def getHost(self) -> Any:
        """Twisted's."""
        return address_of(self._end.sock.family, self._end.sock.getsockname())

    def getTcpNoDelay(self) -> bool:
        """Twisted's."""
        return bool(self._end.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Twisted's."""
        self._end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, enabled)

    def getTcpKeepAlive(self) -> bool:
        """Twisted's."""
        return bool(self._end.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Twisted's."""
        self._end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, enabled)
