"""The registered devices: who is here, who gives way to whom, and who is parked too long without a session.

Rule of this file: an end without a session is read, and thrown away. Whether a second device of a serial
comes in is the fleet's decision (fleet/fleet.py), whatever wire the first one came by.

Source: TCXN CCCP; wire/cccp.md section 2; faults.md R8 to R10.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any
from typing import Protocol as Typing

from revtunnel.fleet.devices import Device
from revtunnel.fleet.fleet import Fleet, TwoHolders
from revtunnel.ground.deadlines import Deadlines
from revtunnel.ground.facts import Report
from revtunnel.ground.limits import CccpLimits
from revtunnel.ground.networks import Network, address_of, block_of
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.targets import Offer
from revtunnel.link.handshake import LinkDenied
from revtunnel.sockets.ends import End
from revtunnel.systems.cccp.cccp_facts import DeviceGone, DeviceRegistered, RegistrationRefused
from revtunnel.systems.cccp.proxy_sessions import SideMode
from revtunnel.systems.cccp.registered_devices import Arrival
from revtunnel.systems.cccp.unpaired_end import UnpairedEnd

__all__ = ["SYSTEM", "DeviceSessions", "IdleDevices", "Registered", "Takers"]

SYSTEM = "cccp"  # in the fleet


class DeviceSessions(Typing):
    """What becomes of devices that have a session."""

    def device_came(self, device: "Registered", before: "Registered | None") -> None:
        """It is here now, instead of another one."""

    def device_left(self, device: "Registered", reason: str, detail: str) -> None:
        """It is to go, or gone. Whoever has no session for it lets it go."""


class Takers(Typing):
    """Who takes parked devices for clients of other doors than a proxy's (device_carrier.py)."""

    offers: tuple[Offer, ...]

    def came(self, device: "Registered") -> None:
        """It is here."""

    def parked(self, device: "Registered") -> None:
        """It is free."""

    def gone(self, device: "Registered", reason: str, detail: str) -> None:
        """It is let go, with whatever has it."""

    def tick(self) -> None:
        """Once a second or so."""

    def stop(self) -> None:
        """No device comes any more."""


class Registered:
    """A registered device: to the fleet its link. ``lone`` has the end, unless a relay has it.

    ``stream``: the one that a taker joined it with; ``carried_by``: the taker's carrier of its serial.
    """

    __slots__ = (
        *("_parking", "arrival", "carried_by", "known", "lone", "parked", "peer", "since", "source"),
        "stream",
    )

    known: Device["Registered"]  # the fleet's

    def __init__(self, parking: "IdleDevices", arrival: Arrival, since: float) -> None:
        self.arrival = arrival
        self.peer = arrival.end.peer
        self.since = since
        self.lone: UnpairedEnd | None = None
        self.parked = False
        self.stream: Any = None
        self.carried_by: Any = None
        self.source: Network | None = None  # whose share it is of, while it is
        self._parking = parking

    def alone(self, end: End, early: bytes = b"") -> None:
        """Its end is with no relay, or not any more."""
        parking = self._parking
        self.lone = UnpairedEnd(parking.reactor, end, partial(parking.lone_left, self), early)

    def dismiss(self, reason: str, detail: str, say: GoAway, retry_after: int = 0, by: str = "") -> None:
        """As a link's (link/server_link.py); the wire has no word for it, so the end is closed."""
        self._parking.sessions.device_left(self, reason, f"{detail}, {by}" if by else detail)


def _source(device: Registered) -> Network | None:
    """Whose share a device is of: its address's, if it showed no certificate."""
    address = None if device.arrival.authenticated else address_of(device.peer)
    return None if address is None else block_of(address)


class IdleDevices:
    """All of them. ``limits`` is asked each time; ``sessions`` is set by whoever has them."""

    sessions: DeviceSessions

    def __init__(
        self, reactor: Any, fleet: Fleet[Any], limits: Callable[[], CccpLimits], report: Report
    ) -> None:
        self.reactor = reactor
        self.takers: Takers | None = None
        self._fleet = fleet
        self._limits = limits
        self._report = report
        self._of_sources: Counter[Network] = Counter()  # those that showed no certificate
        self._parked: Deadlines[str] = Deadlines()  # since when each is here that has no session

    def __len__(self) -> int:
        return self._fleet.count(SYSTEM)

    def get(self, serial: str) -> Registered | None:
        """The registered device of a serial."""
        device = self._fleet.get(serial)
        return device.link if device is not None and isinstance(device.link, Registered) else None

    def page(self, after: str = "", limit: int | None = None) -> list[Registered]:
        """Those behind ``after`` in the order of serials, ``limit`` at most."""
        found = self._fleet.here(SYSTEM, after, limit)
        return [device.link for device in found if device.link is not None]

    def arrived(self, arrival: Arrival) -> None:
        """A device said its serial."""
        device = Registered(self, arrival, self.reactor.seconds())
        serial, project = arrival.serial, arrival.project
        full = self._full(device) if self.get(serial) is None else ""
        try:
            if full:
                raise LinkDenied(GoAway.OVERLOADED, full, serial)
            before = self._fleet.arrive(
                *(
                    serial,
                    device,
                    device.since,
                    arrival.authenticated,
                    "auto" if project.newest else "oldest",
                ),
                offers=self.takers.offers if self.takers is not None else (),
                system=SYSTEM,
                peer=device.peer,
                listener=project.name,
                pool=project.pool,
                alarm=True,
            )
        except LinkDenied as error:
            holder = self._fleet.get(serial) if isinstance(error, TwoHolders) else None
            if holder is not None and holder.link is not None:
                holder.link.dismiss("replaced", "its serial has two holders", GoAway.DENIED)
            arrival.end.abort()
            reason = "overloaded" if full else "duplicate"
            self._report(RegistrationRefused(project.name, device.peer, serial, reason, str(error)))
            return
        self._take(device, before)

    def _full(self, device: Registered) -> str:
        """Why there is no place for one more, or nothing."""
        limits = self._limits()
        if len(self) >= limits.parked:
            return f"{len(self)} devices are here"
        source = _source(device)
        if source is not None and self._of_sources[source] >= limits.parked_per_source:
            return f"{self._of_sources[source]} devices without a certificate are here from {source}"
        return ""

    def _take(self, device: Registered, before: Any) -> None:
        """It is here now, instead of the one before."""
        arrival = device.arrival
        device.source = _source(device)
        if device.source is not None:
            self._of_sources[device.source] += 1
        known = self._fleet.get(arrival.serial)
        assert known is not None
        device.known = known
        device.alone(arrival.end, arrival.early)
        if self.takers is not None:
            self.takers.came(device)
        if before is not None and not isinstance(before, Registered):
            before.dismiss("replaced", f"by {device.peer}", GoAway.REPLACED)
            before = None
        self.sessions.device_came(device, before)

    def registered(self, device: Registered) -> None:
        """Say that it is here."""
        arrival = device.arrival
        told = device.peer, arrival.project.name, arrival.authenticated, arrival.tls
        self._report(DeviceRegistered(arrival.serial, *told))

    def park(self, device: Registered) -> None:
        """It has no session."""
        if device.lone is not None:
            device.lone.watch(SideMode.DISCARD)
        self._parked.set(device.arrival.serial, device.since)
        device.parked = True
        if self.takers is not None:
            self.takers.parked(device)

    def claim(self, device: Registered) -> None:
        """It has one, or is taken."""
        device.parked = False
        self._parked.set(device.arrival.serial, None)

    def let_go(self, device: Registered, reason: str, detail: str) -> None:
        """Close a device that no relay has."""
        serial, now = device.arrival.serial, self.reactor.seconds()
        if self.get(serial) in (device, None):  # else the entry is its successor's
            self._parked.set(serial, None)
        device.parked = False
        self._fleet.leave(serial, device, now)
        source, device.source = device.source, None
        if source is not None:
            self._of_sources[source] -= 1
            if not self._of_sources[source]:
                del self._of_sources[source]
        lone, device.lone = device.lone, None
        if lone is not None:
            lone.send_away()
        if self.takers is not None:
            self.takers.gone(device, reason, detail)
        self._report(DeviceGone(serial, device.peer, reason, detail, round(now - device.since, 3)))

    def tick(self) -> None:
        """Once a second or so: close who is parked too long."""
        most = self._limits().parked_time
        for serial in self._parked.due(self.reactor.seconds() - most) if most else ():
            device = self.get(serial)
            if device is not None:
                self.let_go(device, "parked-too-long", f"{most:g} s without a session")
        if self.takers is not None:
            self.takers.tick()

    def stop(self) -> None:
        """Close all at once."""
        for device in self.page():
            self.let_go(device, "stopping", "")
        if self.takers is not None:
            self.takers.stop()

    def lone_left(self, device: Registered, detail: str) -> None:
        """It closed, or its line is dead, while it was alone."""
        self.sessions.device_left(device, "lost" if detail else "closed", detail)
