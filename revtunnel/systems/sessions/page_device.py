"""One connection of a device's web page to the device: a client of its service, perhaps with TLS inside.

Rule of this file: the client is one as any other, so the device's carrier, its limits and lines have it. It
is one end of a UNIX socket pair, which cannot say a reset, so that end keeps why it was cut, and an end of
file behind that is none.

Source: streams/clients.py; ours.
"""

import socket
from functools import cache
from typing import Any

import h11
from OpenSSL import SSL
from twisted.internet.defer import Deferred, TimeoutError

from revtunnel.ground.origin import Origin
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target, is_literal
from revtunnel.process.web.awaited_connection import AwaitedConnection
from revtunnel.process.web.http_exchange import DeviceFault, HttpSide
from revtunnel.sockets.ends import End, PlainEnd, said
from revtunnel.sockets.stages import Stage, client_tls
from revtunnel.sockets.tls.certificates import CertificateFiles, TlsSide
from revtunnel.sockets.tls.peer_verification import Identity, TlsRules
from revtunnel.sockets.tls.tls_stages import dial_tls
from revtunnel.sockets.twisted_transport import TwistedTransport
from revtunnel.streams.clients import Clients, ClientSocket

__all__ = ["PageDevice", "open_device"]

HANDSHAKE = 20.0  # seconds of TLS with a device, the dial of its agent included
_HTTP = b"http/1.1"


class PageDevice(HttpSide):
    """A connection to a device; ``client`` is what it is to the device's carrier."""

    client: ClientSocket

    def abort(self, ended: Ended, word: str) -> None:
        """Cut it; the service sees a reset."""
        self.client.end(ended, word)
        self.connection.abort()


class _NearEnd(PlainEnd):
    """The end that the carrier has."""

    __slots__ = ("fault",)

    def __init__(self, sock: socket.socket, peer: str, origin: Origin | None) -> None:
        super().__init__(sock, peer)
        self.origin = origin
        self.fault = ""

    def because(self, reason: Ended, detail: str = "") -> None:
        """As ``End`` says."""
        self.fault = self.fault or f"{reason.word}: {detail}".removesuffix(": ")

    def abort(self) -> None:
        """As ``End`` says."""
        self.fault = self.fault or "cut"
        super().abort()


async def open_device(
    reactor: Any, clients: Clients, peer: str, origin: Origin | None, target: Target, spoken: str
) -> PageDevice:
    """A connection; ``spoken``: http, https or https-any. ``peer`` is the person's HOST:PORT.

    Raises:
        DeviceFault: there is none, or it is not who it should be.
    """
    try:
        ours, theirs = socket.socketpair()
    except OSError as error:
        raise DeviceFault(f"{Ended.OUT_OF_RESOURCES.word}: {said(error)}") from None
    near = _NearEnd(theirs, peer, origin)
    client = clients.client(near)
    clients.let_in(client)
    end: End = PlainEnd(ours, peer)
    if spoken != "http":
        try:
            shaking = Deferred.fromCoroutine(_tls(reactor, target, spoken)(end))
            end = await shaking.addTimeout(HANDSHAKE, reactor)
        except BaseException as error:
            fault = near.fault
            client.end(Ended.PROTOCOL, "TLS")
            if not isinstance(error, OSError | TimeoutError):
                raise
            words = said(error) if isinstance(error, OSError) else f"no TLS in {HANDSHAKE:g} s"
            raise DeviceFault(fault or words) from None
    connection = AwaitedConnection(reactor, lambda: near.fault)
    TwistedTransport(reactor, end, connection).start()
    device = PageDevice(connection, h11.CLIENT)
    device.client = client
    return device


def _tls(reactor: Any, target: Target, spoken: str) -> Stage:
    if spoken == "https-any":
        return client_tls(reactor, _anybody(), "" if is_literal(target.host) or target.path else target.host)
    return dial_tls(reactor, _identity(), target.host, lambda: None)


@cache
def _identity() -> Identity:
    """Whom this machine trusts, as it was when it was asked first."""
    return Identity(TlsRules(CertificateFiles(TlsSide.DEVICE), least="1.2", alpn=_HTTP))


@cache
def _anybody() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_verify(SSL.VERIFY_NONE)
    context.set_alpn_protos([_HTTP])
    return context
