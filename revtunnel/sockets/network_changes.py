"""Whether this machine's network has changed: an address or a route came or went, as Linux tells it.

The rules: what the kernel tells is dropped unread, since only that it told something matters. ``changed`` is
called once it has said nothing for a second, because an interface that comes up says much, and once in half a
minute at most, because some networks renew their addresses all day. Where there is no such socket, nothing is
told.

Source: netlink(7), rtnetlink(7); issue "What fails once is tried again", 4.
"""

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["NetworkChanges"]

QUIET = 1.0  # seconds without a word after which a change is over
EVERY = 30.0  # seconds between two that are told, at least
READS = 64  # messages that a turn drops
_ROUTE = 0  # NETLINK_ROUTE
_GROUPS = 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE


def open_netlink() -> socket.socket:
    """What the kernel tells of addresses and routes. OSError: it does not."""
    family = getattr(socket, "AF_NETLINK", None)
    if family is None:
        raise OSError("no netlink on this system")
    sock = socket.socket(family, socket.SOCK_RAW, _ROUTE)
    try:
        sock.bind((0, _GROUPS))
    except OSError:
        sock.close()
        raise
    return sock


@implementer(IReadDescriptor)
class NetworkChanges:
    """Calls ``changed`` between ``start`` and ``stop``."""

    def __init__(
        self,
        reactor: Any,
        changed: Callable[[], None],
        opened: Callable[[], socket.socket] = open_netlink,
    ) -> None:
        self._reactor = reactor
        self._changed = changed
        self._open = opened
        self._sock: socket.socket | None = None
        self._timer: IDelayedCall | None = None
        self._told: float | None = None

    def start(self) -> None:
        """Listen from now on, if that is possible here."""
        with contextlib.suppress(OSError):
            self._sock = self._open()
            self._sock.setblocking(False)
            self._reactor.addReader(self)

    def stop(self) -> None:
        """Call nobody any more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        sock, self._sock = self._sock, None
        if sock is not None:
            self._reactor.removeReader(self)
            sock.close()

    # -- the reactor calls

    def fileno(self) -> int:
        """Twisted calls this."""
        return self._sock.fileno() if self._sock is not None else -1

    def logPrefix(self) -> str:
        """Twisted calls this."""
        return "-"

    def connectionLost(self, reason: Failure) -> None:
        """Twisted calls this."""
        self.stop()

    def doRead(self) -> None:
        """Twisted calls this: something changed."""
        for _ in range(READS):
            try:
                if self._sock is None or not self._sock.recv(1):
                    break
            except BlockingIOError:
                break
            except OSError:  # more than there was room for was said
                continue
        if self._timer is None or not self._timer.active():
            self._timer = self._reactor.callLater(QUIET, self._is_quiet)
        else:
            self._timer.reset(max(QUIET, self._timer.getTime() - self._reactor.seconds()))

    def _is_quiet(self) -> None:
        now = self._reactor.seconds()
        wait = 0.0 if self._told is None else self._told + EVERY - now
        if wait > 0:
            self._timer = self._reactor.callLater(wait, self._is_quiet)
            return
        self._told = now
        self._changed()
