"""The agent's dial: only what its own list allows, a bounded number at once, and one word when it fails.

The list is asked on every CONNECT, a remote session's consent after it, and the list again for the addresses
that a listed name resolves to: a name does not open the loopback, the link-local network (cloud metadata
lives there) or a multicast group. Written literally, they are allowed.

A target may want to know who its client is: then a PROXY header is the very first that it is sent.

Source: faults.md "ReadyAgent" row of the threat model, F16, F19, N2, N30 to N32.
"""

import errno
import ipaddress
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.defer import TimeoutError as DialTimeout
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.error import ConnectionRefusedError, DNSLookupError, TimeoutError
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IReactorTime,
    IResolutionReceiver,
)
from twisted.internet.protocol import ClientFactory, Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.origin import Origin
from revtunnel.ground.policy import AgentLimits
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Offer, Target
from revtunnel.streams.streams import ChannelSocket

__all__ = ["Dialler", "Header", "NotDialled", "TargetSocket"]

PLACEHOLDER = "target"  # the name that HostnameEndpoint is given; see _GuardedResolver
Header = Callable[[Origin | None], bytes]
# of clouds, beyond 169.254/16
METADATA = frozenset(("fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # leads to the IPv4 address in its last 32 bits


class NotDialled(Exception):
    """A target was not reached; ``reason`` is the word of it."""

    def __init__(self, reason: Ended, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class TargetSocket(ChannelSocket):
    """The service's side of one channel. ``waiting`` is told when it is connected."""

    waiting: "Deferred[TargetSocket] | None" = None

    def connectionMade(self) -> None:
        super().connectionMade()
        if self.waiting is not None:
            waiting, self.waiting = self.waiting, None
            waiting.callback(self)


class _Attempt(ClientFactory):
    """One connect; ``connected`` fires with the socket. Endpoints do the same and wrap it for good."""

    noisy = False

    def __init__(self, connect: Callable[["_Attempt"], IConnector]) -> None:
        self.connected: Deferred[TargetSocket] = Deferred(self._given_up)
        self._connector = connect(self)

    def buildProtocol(self, addr: IAddress | None) -> TargetSocket:
        made = TargetSocket()
        made.waiting = self.connected
        return made

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        if not self.connected.called:
            self.connected.errback(reason)

    def _given_up(self, connected: "Deferred[TargetSocket]") -> None:
        self._connector.stopConnecting()
        if not connected.called:
            connected.errback(CancelledError())


class _Dial:
    """One dial: it waits for its turn, then it connects."""

    def __init__(self, target: Target, origin: Origin | None, given_up: "Callable[[_Dial], None]") -> None:
        self.target = target
        self.origin = origin
        self.wanted: Deferred[TargetSocket] = Deferred(lambda _: given_up(self))
        self.connecting: Deferred[Any] | None = None


class Dialler:
    """Dials the targets of one agent. ``headers`` encodes the PROXY header of those that want one."""

    def __init__(
        self,
        reactor: Any,
        limits: AgentLimits,
        offers: Sequence[Offer],
        headers: Mapping[Target, Header] | None = None,
    ) -> None:
        self._reactor = reactor
        self._limits = limits
        self._headers = dict(headers or {})
        self._offered = self._allowed = frozenset(offer.target for offer in offers)
        # why a remote session may not have a target, or nothing; set by whoever asks the site
        self.consents: Callable[[str, Target], str] = lambda session, target: "no session is allowed here"
        self._lookups = DeferredSemaphore(limits.lookups)
        self._dialling = 0
        self._waiting: deque[_Dial] = deque()

    @property
    def asks_for_origins(self) -> bool:
        """Whether some target is told who its client is."""
        return bool(self._headers)

    def dial(
        self, target: Target, origin: Origin | None = None, session: str = ""
    ) -> "Deferred[TargetSocket]":
        """Connect to a target; fails with NotDialled. Cancel it when nobody wants it any more.

        ``origin`` is where the client comes from; None: nobody knows. ``session``: the remote session that it
        is of.
        """
        if target not in self._allowed:
            return _failed(Ended.NOT_ALLOWED, f"{target} is not on this agent's list")
        if session and (why := self.consents(session, target)):
            return _failed(Ended.NOT_ALLOWED, why)
        if len(self._waiting) >= self._limits.dials_waiting:
            return _failed(Ended.OUT_OF_RESOURCES, f"{self._dialling} dials run, {len(self._waiting)} wait")
        dial = _Dial(target, origin, self._given_up)
        self._waiting.append(dial)
        self._next()
        return dial.wanted

    def keep(self, offers: Sequence[Offer]) -> None:
        """Dial no target from now on that is not among these, nor any that the agent did not begin with."""
        self._allowed = self._offered & {offer.target for offer in offers}

    def set_limits(self, limits: AgentLimits) -> None:
        """Other limits from now on."""
        self._limits = limits

    def _next(self) -> None:
        while self._waiting and self._dialling < self._limits.dials:
            self._dialling += 1
            self._connect(self._waiting.popleft())

    def _connect(self, dial: "_Dial") -> None:
        def done(result: Any) -> None:
            self._dialling -= 1
            if isinstance(result, Failure):
                dial.wanted.errback(Failure(_worded(result.value, dial.target)))
            else:
                self._say_client(dial, result)
                dial.wanted.callback(result)
            self._next()

        dial.connecting = self._begin(dial.target)
        dial.connecting.addTimeout(self._limits.dial, self._reactor, _timed_out)
        dial.connecting.addBoth(done)

    def _say_client(self, dial: "_Dial", socket: TargetSocket) -> None:
        """Before anybody else can write to it."""
        encode = self._headers.get(dial.target)
        if encode is not None:
            socket.transport.write(encode(dial.origin))

    def _given_up(self, dial: "_Dial") -> None:
        """Nobody wants it any more: its place is free at once."""
        if dial.connecting is None:
            self._waiting.remove(dial)
        else:
            dial.connecting.cancel()

    def _begin(self, target: Target) -> "Deferred[TargetSocket]":
        reactor, timeout = self._reactor, self._limits.dial
        path, host, port = target.path, target.host, target.port
        if path is not None:
            return _Attempt(lambda made: reactor.connectUNIX(path, made, timeout=timeout)).connected
        if target.is_literal:
            return _Attempt(lambda made: reactor.connectTCP(host, port, made, timeout=timeout)).connected
        if host == "localhost":
            endpoint = HostnameEndpoint(reactor, host, port, timeout=timeout)
        else:
            guarded = _GuardedReactor(reactor, self._lookups, host)
            endpoint = HostnameEndpoint(guarded, PLACEHOLDER, port, timeout=timeout)
        factory: Factory = Factory.forProtocol(TargetSocket)
        factory.noisy = False
        connected: Deferred[Any] = endpoint.connect(factory)
        return connected


def _failed(reason: Ended, detail: str) -> "Deferred[TargetSocket]":
    waiting: Deferred[TargetSocket] = Deferred()
    waiting.errback(Failure(NotDialled(reason, detail)))
    return waiting


def _timed_out(result: Any, seconds: float) -> Any:
    """The word of a dial that took too long, in whichever of its stages it was."""
    return Failure(DialTimeout(seconds, "dial")) if isinstance(result, Failure) else result


def _worded(error: BaseException | None, target: Target) -> NotDialled:
    """The word and sentence for a failed connect."""
    code = getattr(error, "osError", None)
    if error is not None and code is None and error.args and isinstance(error.args[0], int):
        code = error.args[0]
    if isinstance(error, ConnectionRefusedError):
        return NotDialled(Ended.REFUSED, f"{target} refused the connection")
    if isinstance(error, TimeoutError | DialTimeout) or code == errno.ETIMEDOUT:
        return NotDialled(Ended.TIMED_OUT, f"{target} did not answer in time")
    if isinstance(error, DNSLookupError):
        return NotDialled(
            Ended.UNREACHABLE, f"{target}: the name is unknown, or only of addresses not allowed"
        )
    if code in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
        return NotDialled(Ended.OUT_OF_RESOURCES, f"{target}: no descriptor or memory left here")
    if code in (errno.ENOENT, errno.ECONNREFUSED):
        return NotDialled(Ended.REFUSED, f"{target}: nobody listens there")
    return NotDialled(Ended.UNREACHABLE, f"{target}: {error}")


def _guarded(address: IAddress) -> bool:
    """Whether a listed name may lead to this address."""
    host = ipaddress.ip_address(str(getattr(address, "host", "0.0.0.0")).partition("%")[0])
    if isinstance(host, ipaddress.IPv6Address):
        carried = ipaddress.IPv4Address(int(host) & 0xFFFFFFFF) if host in NAT64 else None
        host = host.ipv4_mapped or host.sixtofour or carried or host
    guarded = host.is_loopback or host.is_link_local or host.is_multicast or host.is_unspecified
    return not guarded and str(host) not in METADATA


@implementer(IResolutionReceiver)
class _OnlyGuarded:
    """Passes on the addresses that a name may lead to."""

    def __init__(self, receiver: IResolutionReceiver, done: Callable[[], None]) -> None:
        self._receiver = receiver
        self._done = done

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        self._receiver.resolutionBegan(resolutionInProgress)

    def addressResolved(self, address: IAddress) -> None:
        if _guarded(address):
            self._receiver.addressResolved(address)

    def resolutionComplete(self) -> None:
        self._done()
        self._receiver.resolutionComplete()


@implementer(IHostResolution)
class _Resolution:
    """A resolution that cannot be taken back: its thread runs to its end."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Nothing: the answer is ignored by whoever asked."""


@implementer(IHostnameResolver)
class _GuardedResolver:
    """The reactor's resolver, a few questions at a time so that its threads never run out (N32).

    It asks for one name, whatever it is asked: HostnameEndpoint takes none with an underscore.
    """

    def __init__(self, resolver: IHostnameResolver, places: DeferredSemaphore, name: str) -> None:
        self._resolver = resolver
        self._places = places
        self._name = name

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        def ask(_: object) -> None:
            receiver = _OnlyGuarded(resolutionReceiver, self._places.release)
            self._resolver.resolveHostName(receiver, self._name, portNumber, addressTypes, transportSemantics)

        self._places.acquire().addCallback(ask)
        return _Resolution(self._name)


@implementer(IReactorPluggableNameResolver, IReactorTime)
class _GuardedReactor:
    """What HostnameEndpoint asks of a reactor, with our resolver in it, for one name."""

    def __init__(self, reactor: Any, places: DeferredSemaphore, name: str) -> None:
        self._reactor = reactor
        self.nameResolver = _GuardedResolver(reactor.nameResolver, places, name)

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:
        raise NotImplementedError("the guarded resolver stays")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object) -> Any:
        return self._reactor.callLater(delay, callable, *args, **kwargs)

    def getDelayedCalls(self) -> Sequence[Any]:
        return list(self._reactor.getDelayedCalls())

    def seconds(self) -> float:
        return float(self._reactor.seconds())
