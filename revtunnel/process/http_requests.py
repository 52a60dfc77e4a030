"""One request to somebody else's HTTP server: whole, in bounded time and bytes.

Rule of this file: it is dialled as all the rest is, certificates are verified as a browser does, no redirect
is followed, and nothing is sent but what the caller says. Whatever is wrong at the other end, and any answer
but 2xx, is a RequestFailed with one sentence.

Source: RFC 9110; ours.
"""

from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import Cooperator
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    BrowserLikePolicyForHTTPS,
    FileBodyProducer,
    RequestTransmissionFailed,
    ResponseDone,
    ResponseFailed,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from revtunnel.sockets.addresses import address_of
from revtunnel.sockets.ends import End, said
from revtunnel.sockets.opening import Reach, connect, open_end
from revtunnel.sockets.twisted_transport import TwistedTransport

__all__ = ["RequestFailed", "request"]

ANSWER = 64 * 1024  # bytes that one connection may bring, TLS and all
_FAULTS = (
    *(OSError, ValueError, ConnectionClosed, SSL.Error),
    *(ResponseFailed, RequestTransmissionFailed),
)


class RequestFailed(Exception):
    """It came to nothing; the text says why."""


def request(
    reactor: Any,
    method: str,
    url: str,
    seconds: float,
    headers: Mapping[str, str],
    body: bytes = b"",
    most: int = ANSWER,
    authority: str | None = None,
    reach: Reach = connect,
) -> "Deferred[bytes]":
    """Ask, and read the body of the answer; fails with RequestFailed, or TimeoutError after ``seconds``.

    Args:
        most: bytes that the connection may bring; one more, and it is cut.
        authority: file with the certificates that may have signed the server's; None: those of the system.
        reach: connects to one address, or raises OSError because that must not be.
    """
    way = _Way(reactor, seconds, most, authority, reach)
    asking = Deferred.fromCoroutine(_ask(reactor, way, method, url, headers, body))
    return asking.addTimeout(seconds, reactor)


async def _ask(
    reactor: Any, way: "_Way", method: str, url: str, headers: Mapping[str, str], body: bytes
) -> bytes:
    fields = Headers({name: [value] for name, value in {"User-Agent": "revtunnel", **headers}.items()})
    taking_turns = Cooperator(scheduler=partial(reactor.callLater, 0))
    content = FileBodyProducer(BytesIO(body), taking_turns) if body else None
    agent = Agent.usingEndpointFactory(reactor, way)
    try:
        answer = await agent.request(method.encode(), url.encode(), fields, content)
        if not 200 <= answer.code < 300:
            raise RequestFailed(f"it answered {answer.code}")
        whole = _Body()
        answer.deliverBody(whole)
        pieces = await whole.done
        if way.fault:  # a body without a length, whose end was ours
            raise RequestFailed(way.fault)
        return b"".join(pieces)
    except _FAULTS as error:
        if any(each.check(CancelledError) for each in getattr(error, "reasons", ())):
            raise CancelledError from None  # it was given up: by the deadline, or by who asked
        raise RequestFailed(way.fault or _sentence(error)) from None
    finally:
        way.cut()


def _sentence(error: BaseException) -> str:
    if isinstance(error, ResponseFailed | RequestTransmissionFailed):
        return "; ".join(dict.fromkeys(_sentence(each.value) for each in error.reasons))
    if isinstance(error, SSL.Error):
        reasons = error.args[0] if error.args else ()
        return f"TLS: {', '.join(str(each[-1]) for each in reasons) or 'broken off'}"
    if isinstance(error, OSError):
        return said(error)
    if isinstance(error, ConnectionClosed):
        return "its answer broke off"
    return f"{type(error).__name__}: {error}"[:200]


class _Body(Protocol):
    """What is behind the status; ``done`` has its pieces at its end."""

    def __init__(self) -> None:
        self.done: Deferred[list[bytes]] = Deferred()
        self._pieces: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(self._pieces)
        else:
            self.done.errback(ConnectionClosed())


@implementer(IAgentEndpointFactory, IStreamClientEndpoint)
class _Way:
    """Where one request goes to. ``fault``: why it was cut by us."""

    def __init__(self, reactor: Any, seconds: float, most: int, authority: str | None, reach: Reach) -> None:
        self.fault = ""
        self._reactor = reactor
        self._seconds = seconds
        self._most = self._left = most
        self._authority = authority
        self._reach = reach
        self._place = "", 0
        self._transport: Any = None

    def cut(self) -> None:
        """It is over, whatever still comes."""
        if self._transport is not None:
            self._transport.abortConnection()

    def endpointForURI(self, uri: URI) -> Any:
        if not 0 < uri.port < 65536:
            raise ValueError(f"{uri.port} is no port")
        self._place = uri.host.decode("ascii").strip("[]"), uri.port
        if uri.scheme != b"https":
            return self
        policy = BrowserLikePolicyForHTTPS(self._roots())
        return wrapClientTLS(policy.creatorForNetloc(uri.host, uri.port), self)

    def _roots(self) -> Any:
        if self._authority is None:
            return None
        with open(self._authority, "rb") as file:
            found = load_pem_x509_certificates(file.read())
        return trustRootFromCertificates(
            [Certificate.loadPEM(each.public_bytes(Encoding.PEM)) for each in found]
        )

    def connect(self, protocolFactory: IProtocolFactory) -> "Deferred[Any]":
        """Twisted calls this."""

        def reached(end: End) -> Any:
            peer = address_of(end.sock.family, end.sock.getpeername())
            protocol: Any = protocolFactory.buildProtocol(peer)
            protocol.dataReceived = partial(self._counted, protocol.dataReceived)
            self._transport = TwistedTransport(self._reactor, end, protocol)
            self._transport.start()
            return protocol

        return open_end(self._reactor, *self._place, self._seconds, reach=self._reach).addCallback(reached)

    def _counted(self, pass_on: Callable[[bytes], None], data: bytes) -> None:
        """Pass bytes on, up to so many."""
        if self._left > 0:
            pass_on(data[: self._left])
        self._left -= len(data)
        if self._left < 0 and not self.fault:
            self.fault = f"it answered more than {self._most} bytes"
            self.cut()
