"""The client ports of the devices of one worker: listening sockets that its parent has bound, and lends.

The rules: which device has which port is the parent's to say, so nothing is opened here; what is lent is
accepted at until it is given back, or shut by the parent, which closes it for both.

Source: ours.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from revtunnel.fleet.client_ports import Behind, ClientPorts, OpenPort, Ranges
from revtunnel.fleet.pools import Lease
from revtunnel.ground.facts import ClientRefused, Report
from revtunnel.sockets.listening import Listener, Listeners
from revtunnel.streams.clients import Clients

__all__ = ["BorrowedPorts"]


class _Lent(Listener):
    """One socket; ``gone`` is called when the parent has shut it."""

    gone: Callable[[], None] = staticmethod(lambda: None)

    def _give_up(self, why: str) -> None:
        self._close()
        self.gone()


class _Leases:
    """Those of the ports that are lent."""

    def __init__(self, ports: "BorrowedPorts") -> None:
        self.most_of: Any = None  # set by whoever enforces records; it is the parent who gives
        self._ports = ports

    def find(self, serial: str, name: str) -> Lease | None:
        """The lease of a port that is lent."""
        found = (port.lease for port in self._ports.of(serial) if port.lease.target == name)
        return next(found, None)


class BorrowedPorts(ClientPorts):
    """All of one worker."""

    def __init__(self, listeners: Listeners, report: Report) -> None:
        super().__init__(listeners.listen, _Leases(self), {}, 1, report)  # type: ignore[arg-type]
        self._listeners = listeners
        self._told = report

    def lent(self, lease: Lease, clients: Clients, behind: Behind, descriptor: int) -> None:
        """Take clients there."""
        self.give_back(*lease.use)
        opened = OpenPort(lease, clients, served=self.served)

        def refused(peer: str, reason: str, detail: str) -> None:
            self._told(ClientRefused(lease.serial, lease.target, peer, reason))

        came = behind(opened.came, lambda: opened.lease.pool, refused)
        opened.listening = listener = _Lent(self._listeners, came, "port", None)
        listener.gone = lambda: self._drop(opened)
        listener.take(socket.socket(fileno=descriptor))
        self._open.setdefault(lease.serial, {})[lease.target] = opened

    def give_back(self, serial: str, name: str) -> None:
        """Take no more there; the parent does."""
        opened = self._open.get(serial, {}).get(name)
        if opened is not None and opened.listening is not None:
            opened.listening.stop()
            self._drop(opened)

    def _drop(self, opened: OpenPort) -> None:
        ports = self._open.get(opened.lease.serial, {})
        if ports.get(opened.lease.target) is opened:
            del ports[opened.lease.target]
        if not ports:
            with suppress(KeyError):
                del self._open[opened.lease.serial]

    # -- what a server's ports do, and these leave to the parent

    def open(self, clients: Clients, pool: str, now: float, ranges: Ranges | None = None) -> OpenPort | None:
        """As the parent has it; what the offer leads to may have changed."""
        opened = self._open.get(clients.serial, {}).get(clients.name)
        if opened is not None:
            self.recall(opened.lease.use)
            opened.clients.target = clients.target
        return opened

    def withdraw(self, serial: str, names: set[str], now: float) -> None:
        """The parent closes them."""

    def leave(self, serial: str, now: float) -> None:
        """The parent closes them, or takes them back."""

    def keep_promises(self, make: Any, most: int, now: Any) -> Iterator[None]:
        """There are none."""
        return iter(())

    def close_all(self) -> None:
        """Give all of them back."""
        for serial in [*self._open]:
            for port in self.of(serial):
                self.give_back(*port.lease.use)
