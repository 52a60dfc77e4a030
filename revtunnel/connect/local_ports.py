"""The local ports of a session: which port, who may come, and one socket for each program that does.

The rules: a service's own port is kept if it can be; else the next free one above (ports that need privileges
are passed over), or with a range of addresses the next address on which it is free. Loopback, and programs of
the same user, unless the person says otherwise. Programs wait, unread, until the session has a channel for
them.

Source: next/remote-sessions.md section 7; ours.
"""

import errno
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from revtunnel.connect.outcomes import CONFIG, Stop
from revtunnel.connect.same_user import is_same_user
from revtunnel.ground.networks import is_loopback
from revtunnel.ground.targets import place
from revtunnel.sockets.ends import End
from revtunnel.sockets.listening import Listener, Listeners
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

    who = "client"

    def __init__(self, reactor: Any, end: End | None, service: str, give: Give, left: Left) -> None:
        """``end``: None where it is given a transport."""
        super().__init__(reactor, end)
        self.service = service
        self._give = give
        self._left = left

    @property
    def waits(self) -> bool:
        """Whether it has no channel yet, and is still there."""
        return self.channel is None and not self._lost

    def connectionMade(self) -> None:
        super().connectionMade()
        if self._end is None:
            self._give(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._left(self)


class LocalPort:
    """One service's port."""

    listener: Listener

    def __init__(self, reactor: Any, service: str, rules: PortRules, give: Give, left: Left) -> None:
        self.service = service
        self._reactor = reactor
        self.address, self.port = "", 0
        self.on_stranger: Callable[[], None] = lambda: None  # somebody was turned away
        self._rules = rules
        self._give = give
        self._left = left

    def came(self, end: End) -> None:
        """A program connected."""
        if self._fits(end.sock):
            self._give(LocalSocket(self._reactor, end, self.service, self._give, self._left))
        else:
            end.abort()
            self.on_stranger()

    @property
    def place(self) -> str:
        """``ADDRESS:PORT``."""
        return place(self.address, self.port)

    def close(self) -> None:
        """Listen no more."""
        self.listener.stop()

    def _fits(self, sock: socket.socket) -> bool:
        try:
            return self._rules.any_user or not is_loopback(sock.getpeername()[0]) or is_same_user(sock)
        except OSError:  # gone by now
            return False


def open_port(
    reactor: Any, listeners: Listeners, service: str, own: int, rules: PortRules, give: Give, left: Left
) -> LocalPort:
    """Listen for a service whose own port is ``own``, 0 if nobody knows. Stop: it cannot be."""
    made = LocalPort(reactor, service, rules, give, left)
    wanted = rules.port or own
    fault: OSError | None = None
    for address, port in _places(rules, wanted):
        try:
            made.listener = listener = listeners.listen(address, port, BACKLOG, made.came, both=True)
        except CannotListenError as error:
            fault = error.socketError
            if fault.errno not in _TAKEN:
                break
        else:
            made.address, made.port = address, listener.port
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
