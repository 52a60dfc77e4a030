"""The local ports of a session: which port, who may come, and one socket for each program that does.

The rules: a service's own port is kept if it can be; else the next free one above (ports that need privileges
are passed over), or with a range of addresses the next address on which it is free. Loopback, and programs of
the same user, unless the person says otherwise. Programs wait, unread, until the session has a channel for
them.

Source: next/remote-sessions.md section 7; ours.
"""

import errno
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.python.failure import Failure

from revtunnel.connect.outcomes import CONFIG, Stop
from revtunnel.connect.same_user import is_same_user
from revtunnel.ground.targets import is_literal
from revtunnel.sockets.addresses import place
from revtunnel.streams.streams import ChannelSocket

__all__ = ["LocalPort", "LocalSocket", "PortRules", "open_port"]

TRIES = 100  # ports above the wanted one, or addresses
BACKLOG = 128
RANGE = ipaddress.ip_network("127.77.0.0/16")
UNPRIVILEGED = 1024
_TAKEN = (errno.EADDRINUSE, errno.EACCES)
Give = Callable[["LocalSocket"], None]
Left = Callable[["LocalSocket"], None]


@dataclass(frozen=True, slots=True)
class PortRules:
    """What the person asked for."""

    listen: str = "127.0.0.1"
    port: int = 0  # 0: the service's own
    range: bool = False  # the port stays, the address changes
    any_user: bool = False


class LocalSocket(ChannelSocket):
    """A program's connection, in want of a channel to a service."""

    def __init__(self, service: str, give: Give, left: Left) -> None:
        self.service = service
        self._give = give
        self._left = left

    @property
    def waits(self) -> bool:
        """Whether it has no channel yet, and is still there."""
        return self.channel is None and not self._lost

    def connectionMade(self) -> None:
        super().connectionMade()
        self._give(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._left(self)


class LocalPort(ServerFactory):
    """One service's port."""

    noisy = False
    listener: IListeningPort

    def __init__(self, service: str, rules: PortRules, give: Give, left: Left) -> None:
        self.service = service
        self.address, self.port = "", 0
        self.on_stranger: Callable[[], None] = lambda: None  # somebody was turned away
        self._rules = rules
        self._give = give
        self._left = left

    def buildProtocol(self, addr: IAddress | None) -> LocalSocket:
        return LocalSocket(self.service, self._judged, self._left)

    @property
    def place(self) -> str:
        """``ADDRESS:PORT``."""
        return place(self.address, self.port)

    def close(self) -> None:
        """Listen no more."""
        self.listener.stopListening()

    def _judged(self, socket: LocalSocket) -> None:
        handle: Any = socket.transport.getHandle()  # type: ignore[attr-defined]
        try:
            fits = self._rules.any_user or not _is_loopback(handle.getpeername()[0]) or is_same_user(handle)
        except OSError:  # gone by now
            fits = False
        if fits:
            self._give(socket)
        else:
            self.on_stranger()
            socket.abort()


def open_port(reactor: Any, service: str, own: int, rules: PortRules, give: Give, left: Left) -> LocalPort:
    """Listen for a service whose own port is ``own``, 0 if nobody knows. Stop: it cannot be."""
    made = LocalPort(service, rules, give, left)
    wanted = rules.port or own
    fault: OSError | None = None
    for address, port in _places(rules, wanted):
        try:
            made.listener = reactor.listenTCP(port, made, BACKLOG, address)
        except CannotListenError as error:
            fault = error.socketError
            if fault.errno not in _TAKEN:
                break
        else:
            host: Any = made.listener.getHost()
            made.address, made.port = host.host, host.port
            return made
    why = fault.strerror if fault is not None else "no port left"
    raise Stop(CONFIG, f"no local port for {service}: {rules.listen} port {wanted}: {why}")


def _places(rules: PortRules, wanted: int) -> list[tuple[str, int]]:
    """Where to try, in this order."""
    if rules.range:
        return [(str(RANGE[number]), wanted) for number in range(1, TRIES + 1)]
    if rules.port:
        return [(rules.listen, rules.port)]
    first = max(wanted, UNPRIVILEGED - 1) + 1
    cycle = [*range(first, min(first + TRIES, 65536))] if wanted else []
    return [(rules.listen, port) for port in (wanted, *cycle, 0)]


def _is_loopback(host: str) -> bool:
    return is_literal(host) and ipaddress.ip_address(host.partition("%")[0]).is_loopback
