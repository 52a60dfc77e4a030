"""The listening sockets of leases: opened for a device that is here, closed or refusing while it is away.

The bound socket is the claim on a port: it is bound once and kept; nothing is tried out by binding and
closing. A port that another program holds is set aside and the next one taken. An open socket whose lease
went to another use goes with it. Other settings move the ports that they would not give, and no others; who
is connected stays in any case. What happens to one device looks at its own ports only.

Source: house.md (leases, listener); faults.md H9, N3, C10; issue "absent = close or refuse" ours.
"""

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from twisted.internet.error import CannotListenError

from revtunnel.fleet.leases import LeaseError, Leases, NoFreePort
from revtunnel.fleet.pools import Lease, Use
from revtunnel.fleet.refused_ports import RefusedPorts
from revtunnel.ground.facts import ClientRefused, ListenerClosed, ListenerOpened, ListenerRefused, Report
from revtunnel.sockets.ends import End
from revtunnel.sockets.listening import Came, Listen, Listening
from revtunnel.sockets.ways.proxy_protocol import Refused
from revtunnel.streams.clients import Clients

__all__ = ["ClientPorts", "NumberAsked", "OpenPort", "Ranges"]

PAGE = 200  # leases looked at in one step
TRIES = 256  # ports asked for by number, one after the other, where a record names them

Ranges = tuple[tuple[int, int], ...]  # first and last port of each


def _has(ranges: Ranges, port: int) -> bool:
    return any(low <= port <= high for low, high in ranges)


def _socket_of(lease: Lease) -> tuple[int, str]:
    """What makes a listening socket."""
    return lease.port, lease.address


@dataclass(slots=True, eq=False)
class OpenPort:
    """One lease whose socket is open, and who has it now."""

    lease: Lease
    clients: Clients
    listening: Listening | None = None
    served: "Callable[[OpenPort], None] | None" = None  # told behind each

    def came(self, end: End) -> None:
        """A client connected."""
        self.clients.came(end)
        if self.served is not None:
            self.served(self)


Behind = Callable[[Came, Callable[[], str], Refused], Came]  # the name is that of its pool of then


class NumberAsked(LeaseError):
    """Others are asked which port it has; it is opened once they have said."""


class ClientPorts:
    """All open client listeners. ``refuses`` names the pools whose ports stay open without their device."""

    def __init__(
        self, listen: Listen, leases: Leases, refuses: Mapping[str, bool], backlog: int, report: Report
    ) -> None:
        self.leases = leases
        self.refuses = refuses
        self.refused = RefusedPorts()
        self._listen = listen
        self._backlog = backlog
        self._report = report
        self._open: dict[str, dict[str, OpenPort]] = {}  # by serial and target
        self._count = 0
        self.on_open: Callable[[OpenPort], None] = lambda port: None  # for a device that is here
        self.on_left_open: Callable[[OpenPort], None] = lambda port: None  # it is away now
        self.behind: Behind = lambda came, pool, refused: came  # what listens instead of it
        self.heads: Callable[[str], bool] = lambda pool: False  # whether that reads a header first
        self.served: Callable[[OpenPort], None] | None = None  # a client was let in there
        self.recall: Callable[[Use], None] = lambda use: None  # whoever has a port has it no more
        # of pools that several nodes share: the port that others say a use has, 0: it is ours to say
        # (LeaseError: none, NumberAsked: not yet); what another program has; whether a lease is good by now
        self.number: Callable[[Use, str, Ranges | None], int] = lambda use, pool, ranges: 0
        self.is_taken: Callable[[Lease], bool] = lambda lease: False
        self.is_good: Callable[[Lease], bool] = lambda lease: True
        self.allowed: Callable[[str], Ranges | None] = lambda serial: None  # ports that a device may have

    def of(self, serial: str) -> list[OpenPort]:
        """The open listeners of one device."""
        return list(self._open.get(serial, {}).values())

    def is_open(self, serial: str, name: str, port: int | None = None) -> bool:
        """Whether the listener of this target takes clients, on this port if one is named."""
        there = self._open.get(serial, {}).get(name)
        return there is not None and port in (None, there.lease.port)

    def close(self, serial: str, name: str) -> None:
        """Close one listener, if it is open; its promise stays."""
        self._close((serial, name))

    def open(self, clients: Clients, pool: str, now: float, ranges: Ranges | None = None) -> OpenPort | None:
        """Open the port of a target, the one it had before if possible; None without one.

        It is reported then, once for all tries (``refused``).

        ``ranges``: the ports that its device may have; None is any.
        """
        use = (clients.serial, clients.name)
        try:
            lease = self._promise(use, pool, now, ranges)
            there = self._open.get(clients.serial, {}).get(clients.name)
            if there is not None and _socket_of(there.lease) == _socket_of(lease):
                self.recall(lease.use)
                there.lease, there.clients.target = lease, clients.target
                self.on_open(there)
                return there
            self._close(use)
            opened = self._bind(lease, clients, now)
        except NumberAsked:
            self._close(use)
            return None
        except (LeaseError, OSError) as error:
            self._close(use)
            self.refuse(use, str(error), now, pool if isinstance(error, NoFreePort) else None)
            return None
        finally:
            self._close_displaced()
        self._add(opened)
        self.on_open(opened)
        return opened

    def refuse(self, use: tuple[str, str], why: str, now: float, pool: str | None = None) -> None:
        """It has no port, for want of one of ``pool`` if one is named: told once, and tried again."""
        if self.refused.add(*use, why, now, pool):
            self._report(ListenerRefused(*use, why))

    def make_way(self, now: float, keeps: Callable[[str], bool]) -> None:
        """Settings changed: close what they would not open so, and give back the ports that they do not give.

        ``open`` gets others for devices that are here. ``keeps``: whether a serial has its ports until it
        leaves, whatever they say.
        """
        for port in [port for serial in self._open for port in self.of(serial)]:
            use = port.lease.use
            lease = self.leases.find(*use)
            if lease is None or (self.leases.is_misplaced(lease) and not keeps(use.serial)):
                self._close(use)
                if lease is not None and not lease.sticky:
                    self.leases.release(lease, now)
            elif _socket_of(lease) != _socket_of(port.lease):
                self._close(use)
            else:
                port.lease = lease

    def leave(self, serial: str, now: float) -> None:
        """The device is away: keep its promises; close its sockets, unless their pool refuses instead."""
        self.refused.keep(serial, set())
        for lease in self.leases.keep(serial, now):
            self._close((lease.serial, lease.target))
        for port in self.of(serial):
            if not self.refuses.get(port.lease.pool, False):
                self._close((serial, port.clients.name))
            else:
                self.on_left_open(port)

    def promise(
        self, serial: str, names: Iterable[str], pool: str, now: float, ranges: Ranges | None = None
    ) -> None:
        """Have leases for what a device will offer that is away and may never have been here."""
        for name in names:
            held = self.leases.find(serial, name)
            if held is None or self.leases.is_misplaced(held):
                try:
                    self._promise((serial, name), pool, now, ranges)
                except NumberAsked:
                    continue
                except LeaseError as error:
                    self._report(ListenerRefused(serial, name, str(error)))
        self._close_displaced()
        self.leases.keep(serial, now)

    def keep_promises(
        self, make: Callable[[str, str], Clients], most: int, now: Callable[[], float]
    ) -> Iterator[None]:
        """Let the ports of devices that are away stand as their pools say: after a start, and other settings.

        A step for each port; what happens to a port between two steps is taken as it is then.

        Args:
            make: gives the clients of a serial and the name of its target.
            most: sockets that may be open for clients; ports beyond stay closed until their device comes.
        """
        for lease in self._each_away():
            if lease is not None and not self.refuses.get(lease.pool, False):
                self._close(lease.use)
            yield
        for lease in self._each_away():
            if lease is not None and self._may_open_early(lease):
                if self._count >= most:
                    detail = f"{most} client ports are open; those of devices that are away stay closed"
                    self._report(ListenerRefused(*lease.use, detail))
                    return
                self._open_early(lease, make(*lease.use), now())
            yield

    def _may_open_early(self, lease: Lease) -> bool:
        refuses = self.refuses.get(lease.pool, False) and not self.leases.is_misplaced(lease)
        return refuses and not self.is_open(*lease.use) and self.is_good(lease)

    def _each_away(self) -> Iterator[Lease | None]:
        """The lease of every port in turn; None for one that is not a device's which is away now."""
        after = 0
        while page := self.leases.ports(after, PAGE):
            after = page[-1].port
            for lease in page:
                yield lease if lease.sticky and self.leases.at(lease.port) is lease else None

    def withdraw(self, serial: str, names: set[str], now: float) -> None:
        """The device is here and offers ``names`` only: close the sockets of others, and let them age."""
        self.refused.keep(serial, names)
        self.leases.unoffered(serial, names, self.refuses, now)
        for port in self.of(serial):
            if port.clients.name not in names:
                self._close((serial, port.clients.name))

    def due(self, now: float) -> list[tuple[str, str]]:
        """Serial and target of every refused port that should be tried again now."""
        return self.refused.due(now, self.leases.free)

    def expire(self, now: float) -> None:
        """Close the sockets of leases whose time is over."""
        for lease in self.leases.expire(now):
            self._close((lease.serial, lease.target))

    def close_pool(self, name: str) -> list[Use]:
        """Close the ports of a pool, whose promises stay: serials and targets."""
        every = (port.lease for ports in self._open.values() for port in ports.values())
        closed = [lease.use for lease in every if lease.pool == name]
        for use in closed:
            self._close(use)
        return closed

    def close_all(self) -> None:
        """Take no more clients anywhere; the promises stay."""
        self.refused = RefusedPorts()
        for serial in list(self._open):
            for port in self.of(serial):
                self._close((serial, port.clients.name))

    def _promise(self, use: tuple[str, str], pool: str, now: float, ranges: Ranges | None) -> Lease:
        """The lease of a target, with a port of ``ranges``.

        Raises:
            LeaseError: there is none; what the target held is given back.
        """
        number = self.number(Use(*use), pool, ranges)
        if number:
            return self.leases.grant(Use(*use), number, pool, now)
        held = self.leases.find(*use)
        if held is not None and self.leases.is_misplaced(held):
            self._close(use)
            self.leases.release(held, now)
            held = None
        if ranges is None:
            return self.leases.open(*use, now, pool)
        if held is not None and _has(ranges, held.port):
            held = self.leases.open(*use, now, pool)
            if _has(ranges, held.port):
                return held
        if held is not None:
            self._close(use)
            self.leases.release(held, now)
        fixed = self.leases.reserved(*use)
        for port in (
            islice(self.leases.unheld(ranges), TRIES) if fixed is None else (fixed,) * _has(ranges, fixed)
        ):
            with contextlib.suppress(LeaseError):
                return self.leases.open(*use, now, pool, wanted=port)
        allowed = ", ".join(f"{low}-{high}" for low, high in ranges)
        raise LeaseError(f"none of the ports that its record allows, {allowed}, is free in pool {pool}")

    def _bind(self, lease: Lease, clients: Clients, now: float) -> OpenPort:
        while (inherited := self._close_displaced(lease)) is None:
            try:
                return self._opened(lease, clients)
            except CannotListenError as error:
                if error.socketError.errno != errno.EADDRINUSE:
                    raise OSError(f"{lease.address}:{lease.port}: {error.socketError.strerror}") from None
                if self.is_taken(lease):
                    raise NumberAsked("another one") from None
                lease = self.leases.spoil(lease, now)
        inherited.lease, inherited.clients = lease, clients
        return inherited

    def open_away(self, serial: str, name: str, make: Callable[[str, str], Clients], now: float) -> None:
        """Try again to open a port of a device that is away, if it is still to stand open."""
        lease = self.leases.find(serial, name)
        if lease is not None and lease.sticky and self._may_open_early(lease):
            self._open_early(lease, make(serial, name), now)
        else:
            self.refused.drop(serial, name)

    def _open_early(self, lease: Lease, clients: Clients, now: float) -> None:
        """Open the port of a device that is away; one that cannot be had is tried again."""
        try:
            self._add(self._opened(lease, clients))
        except CannotListenError as error:
            self.refuse(lease.use, str(error), now)

    def _opened(self, lease: Lease, clients: Clients) -> OpenPort:
        opened = OpenPort(lease, clients, served=self.served)

        def refused(peer: str, reason: str, detail: str) -> None:
            self._report(ClientRefused(opened.clients.serial, opened.clients.name, peer, reason))

        came = self.behind(opened.came, lambda: opened.lease.pool, refused)
        opened.listening = self._listen(lease.address, lease.port, self._backlog, came)
        return opened

    def _close_displaced(self, heir: Lease | None = None) -> OpenPort | None:
        """Close the sockets of leases that ended for others; the one at the heir's port is its own now."""
        inherited = None
        for lost in self.leases.take_displaced():
            there = self._open.get(lost.serial, {}).get(lost.target)
            if there is None or there.lease.port != lost.port:
                continue
            if heir is not None and _socket_of(there.lease) == _socket_of(heir):
                inherited = self._take(lost.use)
            else:
                self._close(lost.use)
        return inherited

    def _close(self, use: tuple[str, str]) -> None:
        port = self._take(use)
        if port is not None and port.listening is not None:
            port.listening.stop()

    def _add(self, opened: OpenPort) -> None:
        self.refused.drop(*opened.lease.use)
        self._open.setdefault(opened.lease.serial, {})[opened.lease.target] = opened
        self._count += 1
        self._report(ListenerOpened(*opened.lease.use, opened.lease.port))

    def _take(self, use: tuple[str, str]) -> OpenPort | None:
        """It is not ours any more, if it was."""
        serial, name = use
        ports = self._open.get(serial, {})
        port = ports.pop(name, None)
        if port is not None:
            self.recall(Use(serial, name))
            self._count -= 1
            if not ports:
                del self._open[serial]
            self._report(ListenerClosed(serial, name, port.lease.port))
        return port
