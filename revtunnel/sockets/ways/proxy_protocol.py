"""Connections that begin with a PROXY header: whom a load balancer sends, known by the client's own address.

The rules: the header is read before anything else, TLS included, and not a byte behind it; whoever is not
named as a sender is refused, and so is a sender without a right header in time. From then on the connection's
peer, for logs, limits and lists, is the client that the header names; where it names none, the sender. Who
hangs up without a word is looking whether we live, and is not reported.

Source: the public specification of the PROXY protocol; sockets/ways/trusted_proxies.py; ours.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.python import log
from twisted.python.failure import Failure

from revtunnel.ground.errors import RemoteError
from revtunnel.sockets.addresses import address_of, place
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import End, said
from revtunnel.sockets.peeking import HeadEnded, read_head
from revtunnel.sockets.ways.proxy_header import ProxyHeader
from revtunnel.sockets.ways.trusted_proxies import HeaderRules

__all__ = ["ProxyHeaders", "Refused"]

Refused = Callable[[str, str, str], None]  # "host:port", a word, a sentence


class _Headed(NamedTuple):
    """One listening socket whose connections have headers."""

    factory: Any
    rules: HeaderRules
    refused: Refused


class ProxyHeaders:
    """All connections of one server whose header has not come. ``most`` says how many may be."""

    def __init__(self, reactor: Any, most: Callable[[], int]) -> None:
        self._reactor = reactor
        self._most = most
        self._reading: set[Deferred[ProxyHeader]] = set()

    @property
    def waiting(self) -> int:
        """Headers that are awaited."""
        return len(self._reading)

    def behind(self, factory: Any, rules: HeaderRules | None, refused: Refused) -> Any:
        """What to listen with, on a LeanReactor: ``factory`` sees clients only, whose headers were read."""
        return factory if rules is None else _HeadedFactory(self, _Headed(factory, rules, refused))

    def stop(self) -> None:
        """Wait for no header any more."""
        for reading in list(self._reading):
            reading.cancel()

    # -- from the factories

    @property
    def full(self) -> bool:
        """Whether nobody's header can be awaited now."""
        return len(self._reading) >= self._most()

    def read(self, end: End, headed: _Headed) -> None:
        """Read the header, then let the client in."""
        reading = Deferred.fromCoroutine(read_head(self._reactor, end, headed.rules.decode))
        self._reading.add(reading)
        reading.addTimeout(headed.rules.wait, self._reactor)

        def done(result: Any) -> Any:
            self._reading.discard(reading)
            if not isinstance(result, Failure):
                self._let_in(end, headed, result)
            elif not result.check(CancelledError):
                self._refuse(end, headed, result)

        reading.addBoth(done).addErrback(lambda bug: log.err(bug))

    def _let_in(self, end: End, headed: _Headed, header: ProxyHeader) -> None:
        protocol = None
        try:
            peer, host = _sides(end, header)
            end.peer = place(peer.host, peer.port)
            protocol = headed.factory.buildProtocol(peer)
        except OSError:  # reset meanwhile
            return
        finally:
            if protocol is None:
                end.abort()
        if protocol is not None:
            _HeadedTransport(self._reactor, end, protocol, peer, host).start()

    def _refuse(self, end: End, headed: _Headed, failure: Failure) -> None:
        error, peer = failure.value, end.peer
        end.abort()
        if isinstance(error, TimeoutError):
            headed.refused(peer, "silent", f"no PROXY header in {headed.rules.wait:g} s")
        elif isinstance(error, RemoteError):
            headed.refused(peer, "proxy-header", str(error))
        elif isinstance(error, HeadEnded) and not error.size:
            return
        elif isinstance(error, OSError):
            headed.refused(peer, "lost", said(error))
        else:
            failure.raiseException()


def _sides(end: End, header: ProxyHeader) -> tuple[Any, Any]:
    """Twisted's addresses of the client and of what it dialled."""
    sock, origin = end.sock, header.origin
    if origin is None:
        return address_of(sock.family, sock.getpeername()), address_of(sock.family, sock.getsockname())
    kind = IPv6Address if origin.family == 6 else IPv4Address
    return kind("TCP", origin.client, origin.client_port), kind("TCP", origin.server, origin.server_port)


class _HeadedFactory(ServerFactory):
    """Lets senders in whose header is to be read."""

    noisy = False

    def __init__(self, pending: ProxyHeaders, headed: _Headed) -> None:
        self._pending = pending
        self._headed = headed

    def doStart(self) -> None:
        """Twisted calls this."""
        self._headed.factory.doStart()

    def doStop(self) -> None:
        """Twisted calls this."""
        self._headed.factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        host, port = getattr(addr, "host", ""), getattr(addr, "port", 0)
        if not self._headed.rules.trusts(host):
            why = "not-allowed", "only those that proxy_from names are let in here"
        elif self._pending.full:
            why = "overloaded", "too many PROXY headers are awaited"
        else:
            return _HeaderProtocol(self._pending, self._headed)
        self._headed.refused(place(host, port), *why)
        return None


class _HeaderProtocol(Protocol):
    """Takes an accepted connection away from its transport before a byte is read."""

    def __init__(self, pending: ProxyHeaders, headed: _Headed) -> None:
        self._pending = pending
        self._headed = headed

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self._pending.read(transport.take()[0], self._headed)


class _HeadedTransport(EndTransport):
    """A transport whose own address is the one that the client dialled."""

    __slots__ = ("_host",)

    def __init__(self, reactor: Any, end: End, protocol: IProtocol, peer: IAddress, host: IAddress) -> None:
        super().__init__(reactor, end, protocol, peer)
        self._host = host

    def getHost(self) -> Any:
        """Twisted's."""
        return self._host
