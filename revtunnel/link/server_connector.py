"""The way from an agent to its server: a proxy if one is set, TLS, a WebSocket where a URL says so, the link.

The rules: nobody is told of a connection before the server has proved its name; no failure is answered with
less (no plaintext after TLS failed, no other authority). Data sockets go the way of the link that wants them,
to the very address that it reached.

Source: wire/link-extension.md "Data sockets"; faults.md N15, N34; twisted.md 0.1.
"""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from revtunnel.ground.server_places import DATA, LINK, ServerPlace
from revtunnel.link.agent_link import AgentLink
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import End
from revtunnel.sockets.opening import Names, Reach, connect, open_end, resolve
from revtunnel.sockets.stages import Stage
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.sockets.tls.tls_stages import dial_tls
from revtunnel.sockets.ways.http_proxy import open_way
from revtunnel.sockets.ways.proxy_choice import DIRECT, ProxyChoice

__all__ = ["ServerConnector", "ServerWay"]


@dataclass(frozen=True, slots=True)
class ServerWay:
    """How servers are reached from now on."""

    identity: Identity | None = None  # what TLS is made from; None: it is never spoken
    tls_for: Callable[[ServerPlace], bool] = field(default=lambda place: True)
    server_name: str | None = None  # that certificates must have; None: the host that is dialled
    proxy: ProxyChoice = DIRECT
    web: Identity | None = None  # the same for wss, where HTTP is named as what is spoken in TLS


class ServerConnector:
    """Opens connections to servers. ``way`` may be replaced; what is open stays.

    ``reach`` connects to one address, as ``connect`` does.
    """

    def __init__(self, reactor: Any, way: ServerWay, reach: Reach = connect) -> None:
        self.way = way
        self._reactor = reactor
        self._reach = reach

    def open(
        self,
        place: ServerPlace,
        timeout: float,
        at: str = "",
        subprotocol: str = LINK,
        names: Names = resolve,
    ) -> "Deferred[End]":
        """A connection to a server, judged and ready, within ``timeout`` seconds.

        ``at`` is the address that the name had before, for one more connection to the same server;
        ``subprotocol`` is what a WebSocket is for, ``names`` finds the addresses. Fails with OSError; its
        sentence is ``ends.said``.
        """
        way, stages, begun = self.way, [], [False]
        host, port = place.host, place.port
        identity = way.web if place.web else way.identity
        if identity is not None and way.tls_for(place):

            def begin() -> None:
                begun[0] = True

            stages.append(dial_tls(self._reactor, identity, way.server_name or place.name or host, begin))
        if place.web:
            from revtunnel.link.link_websockets import dial_websocket  # most agents need none of it

            stages.append(_ended(begun))
            stages.append(dial_websocket(self._reactor, place, subprotocol, timeout))
        try:
            if at and way.proxy.proxy_for(host, port) is None:
                opening = open_end(self._reactor, at, port, timeout, stages, reach=self._reach)
            else:
                to = host, port, timeout, stages, self._reach, names
                opening = open_way(self._reactor, way.proxy, *to)
        except ValueError as error:  # the environment's proxy cannot be used
            return fail(ConnectionError(errno.EINVAL, str(error)))

        def failed(failure: Failure) -> Failure:
            """Say that it was TLS that did not come to an end."""
            if begun[0] and failure.check(TimeoutError):
                late = f"{host}:{port}: the TLS handshake was not done in {timeout:g} s"
                return Failure(TimeoutError(errno.ETIMEDOUT, late))
            return failure

        return opening.addErrback(failed)

    def direct(self, link: Any) -> tuple[str, int] | None:
        """Address and port that ``again`` would connect to and do nothing more; None: it does more."""
        place, at = link.place
        if place.web or self._reach is not connect or not at:
            return None
        if self.way.identity is not None and self.way.tls_for(place):
            return None
        try:
            proxied = self.way.proxy.proxy_for(place.host, place.port) is not None
        except ValueError:  # the environment's cannot be used, which ``open`` says
            return None
        return None if proxied else (at, place.port)

    def connect(
        self,
        place: ServerPlace,
        timeout: float,
        make: Callable[[], AgentLink],
        last: Sequence[str] = (),
    ) -> "Deferred[AgentLink]":
        """A link; ``make`` is called when its connection is ready. As ``Uplink`` wants it.

        ``last`` are addresses that are tried after all others of the name, in that order.
        """
        addresses: list[str] = []

        async def names(reactor: Any, host: str, port: int) -> Sequence[Any]:
            found = sorted(
                await resolve(reactor, host, port),
                key=lambda each: last.index(each.host) if each.host in last else -1,
            )
            addresses.extend(each.host for each in found)
            return found

        def reached(end: End) -> AgentLink:
            link = make()
            link.addresses = tuple(addresses)
            link.tls = end.tls_version
            link.place = place, end.sock.getpeername()[0]
            link.peer = end.peer
            EndTransport(self._reactor, end, link).start()
            return link

        return self.open(place, timeout, names=names).addCallback(reached)

    def again(self, link: Any, timeout: float) -> "Deferred[End]":
        """One more connection to the server of a link, for a data socket."""
        place, at = link.place
        return self.open(place, timeout, at, DATA)


def _ended(begun: list[bool]) -> Stage:
    """TLS came to its end."""

    async def stage(end: End) -> End:
        begun[0] = False
        return end

    return stage
