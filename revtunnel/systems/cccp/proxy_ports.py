"""The client ports of proxy sessions: a lease, its listening socket, and who may come in.

The rule: the port is bound before anybody is told of it, a port that another program has is set aside and the
next one tried, and a client that may not come in is reset before a byte is read.

Source: wire/cccp.md section 2 ("dynamic port bind", "503"); faults.md H8, H9.
"""

import errno
from collections.abc import Callable
from typing import Any

from twisted.internet.error import CannotListenError

from revtunnel.fleet.leases import LeaseError, Leases
from revtunnel.fleet.pools import Lease
from revtunnel.ground.facts import ListenerClosed, ListenerOpened, Report
from revtunnel.ground.targets import place
from revtunnel.sockets.listening import Came, Listen, Listening

__all__ = ["TARGET", "NoPort", "ProxyPort", "ProxyPorts"]

TARGET = "cccp"  # what the lease of a session is for


class NoPort(Exception):
    """Every port is taken; the text is for the log, ``rest`` says when asking again is of use."""

    def __init__(self, text: str, rest: str) -> None:
        super().__init__(text)
        self.rest = rest


class ProxyPort:
    """One open port."""

    def __init__(self, lease: Lease, listening: Listening) -> None:
        self.lease = lease
        self._listening = listening

    @property
    def number(self) -> int:
        """The port."""
        return self.lease.port

    def stop(self) -> None:
        """Accept no more; whoever waits there is reset."""
        self._listening.stop()


class ProxyPorts:
    """Opens and closes them."""

    def __init__(
        self, clock: Any, listen: Listen, leases: Leases, backlog: Callable[[], int], report: Report
    ) -> None:
        self.leases = leases
        self._clock = clock
        self._listen = listen
        self._backlog = backlog
        self._report = report

    def open(self, serial: str, pool: str, came: Came) -> ProxyPort:
        """Bind a port, the one of the serial's standing promise if there is one.

        ``came`` is told of each client.

        Raises:
            NoPort: none is left.
            OSError: the system does not let us bind there.
        """
        try:
            lease = self.leases.open(serial, TARGET, self._clock.seconds(), pool)
            while True:
                try:
                    port = self._listen(lease.address, lease.port, self._backlog(), came)
                except CannotListenError as error:
                    lease = self._next(lease, error)
                else:
                    break
        except LeaseError as error:
            raise NoPort(str(error), error.rest) from None
        finally:
            self.leases.take_displaced()
        self._report(ListenerOpened(serial, TARGET, lease.port))
        return ProxyPort(lease, port)

    def renew(self, port: ProxyPort) -> None:
        """Promise it as on the first day."""
        lease = port.lease
        port.lease = self.leases.open(lease.serial, lease.target, self._clock.seconds(), lease.pool)

    def close(self, port: ProxyPort, keep: bool = False) -> None:
        """Close it; ``keep``: the promise stands."""
        port.stop()
        if not keep:
            self.leases.release(port.lease, self._clock.seconds())
        self._report(ListenerClosed(port.lease.serial, TARGET, port.number))

    def _next(self, lease: Lease, error: CannotListenError) -> Lease:
        if error.socketError.errno != errno.EADDRINUSE:
            self.leases.release(lease, self._clock.seconds())
            raise OSError(f"{place(lease.address, lease.port)}: {error.socketError.strerror}") from None
        return self.leases.spoil(lease, self._clock.seconds())
