"""What each device has by its record and its listener: open ports, streams, or nothing any more.

The rule: other settings count at once for whoever comes, and device by device for whoever is here; thousands
of devices are looked at in slices (sockets/slices.py), and no device is looked at for another one's sake. A
device whose listener is gone keeps what it has, until it leaves.

Source: faults.md "Per-device authority record", N33.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from revtunnel.daemons.client_streams import ClientStreams
from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.client_ports import ClientPorts
from revtunnel.fleet.device_records import DEFAULT, DeviceRecords
from revtunnel.fleet.devices import Device
from revtunnel.fleet.fleet import Fleet
from revtunnel.fleet.streams_of_devices import StreamsOfDevices
from revtunnel.ground.facts import ListenerRefused, Report
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Offer
from revtunnel.link.server_link import AgentListener, ServerLink
from revtunnel.sockets.slices import Slices

__all__ = ["Enforcement"]

OVER = "its record is over"
_OURS = ("rt1", "legacy", "emo")  # systems whose links come by listeners for agents


def _not_allowed(offer: Offer) -> str:
    return f"its record does not allow {offer.target}"


class Enforcement:
    """The records of one server, kept up. ``most``: sockets that may be open for devices that are away."""

    def __init__(
        self,
        clock: IReactorTime,
        access: AccessControl,
        fleet: Fleet[Any],
        ports: ClientPorts,
        streams: StreamsOfDevices,
        client_streams: ClientStreams,
        report: Report,
        listeners: Mapping[str, AgentListener],
        most: int,
    ) -> None:
        self._clock = clock
        self._access = access
        self._fleet = fleet
        self._ports = ports
        self._streams = streams
        self._client_streams = client_streams
        self._report = report
        self._listeners = listeners
        self.most = most
        self._slices = Slices(clock)
        ports.allowed = lambda serial: access.records.of(serial).ports
        ports.leases.most_of = lambda serial: access.records.of(serial).leases

    def open_ports(self, link: ServerLink) -> None:
        """Let clients in to what the device offers and its record allows, and to nothing else."""
        now = self._clock.seconds()
        device = self._fleet.get(link.serial)
        offers = device.offers if device is not None else ()
        allowed = self._access.offers(link.serial, offers)
        self._ports.withdraw(link.serial, {offer.name for offer in allowed}, now)
        keeps = self._keeps_ports(link)
        for offer in offers:
            if offer not in allowed:
                self._report(ListenerRefused(link.serial, offer.name, _not_allowed(offer)))
            elif not keeps or not self._ports.is_open(link.serial, offer.name):
                self._open(link.serial, offer, link.listener.pool, now)

    def problems(self, device: Device[Any]) -> dict[str, str]:
        """Why a device that is here has no client port for what it offers, by target."""
        allowed = self._access.offers(device.serial, device.offers)
        denied = {each.name: _not_allowed(each) for each in device.offers if each not in allowed}
        return denied | self._ports.refused.of(device.serial)

    def try_again(self) -> None:
        """Open ports that were refused, where it is time or one has come free; to be asked every second."""
        for serial, name in self._ports.due(self._clock.seconds()):
            self.open_one(serial, name)

    def open_one(self, serial: str, name: str) -> None:
        """Open one port, if that may be open now."""
        now, device = self._clock.seconds(), self._fleet.get(serial)
        offers = self._access.offers(serial, device.offers if device is not None else ())
        offer = next((each for each in offers if each.name == name), None)
        if device is None or device.carrier is None:
            self._ports.open_away(serial, name, self._client_streams.clients_of_absent, now)
        elif offer is None:
            self._ports.refused.drop(serial, name)
        else:
            self._open(serial, offer, device.pool, now)

    def set_records(self, records: DeviceRecords) -> "Deferred[None]":
        """Other records from now on; fires when what they allow no more is cut for every device."""
        self._access.records = records
        return self._slices.run(self._apply())

    def set_record(self, serial: str, records: DeviceRecords) -> None:
        """Records that differ in this device only: what it may no more is cut at once."""
        self._access.records = records
        self._judge(serial)
        self._slices.run(self._apply() if self._slices.busy else self._promises())

    def make_way(self) -> None:
        """Close, at once, the client ports that are not where settings have them; others follow."""

        def keeps(serial: str) -> bool:
            device = self._fleet.get(serial)
            link = device.link if device is not None else None
            return hasattr(link, "listener") and self._keeps_ports(link)

        self._ports.make_way(self._clock.seconds(), keeps)

    def end_expired(self) -> None:
        """End the devices whose record is over; to be asked every second or so."""
        ended = self._access.ended()
        if DEFAULT in ended:
            self._slices.run(self._apply())
        else:
            for serial in ended:
                self._judge(serial)

    def keep_promises(self) -> None:
        """Open the ports that refuse for devices which are away, at once."""
        for _ in self._promises():
            pass

    def stop(self) -> None:
        """Look at no more devices."""
        self._slices.stop()

    # -- inside

    def _listener_now(self, link: Any) -> AgentListener | None:
        """What its listener is by now; None: gone, or not that of this device any more."""
        found = self._listeners.get(link.listener.rules.name)
        is_there = found is not None and (link.system != "legacy" or link.serial in found.mappings)
        return found if is_there else None

    def _keeps_ports(self, link: Any) -> bool:
        """Whether it has the ports that it came to, whatever settings say now."""
        if link.system not in _OURS:  # what is said in other sections
            return False
        is_known_by_it = link.listener.make is not None  # EMO
        return is_known_by_it or self._listener_now(link) is None

    def follow(self, link: ServerLink, device: Device[Any]) -> None:
        """Let a device that is here go by what its listener is by now."""
        found = self._listener_now(link) if link.system in _OURS else None
        if found is not None and found is not link.listener:
            link.listener, device.pool = found, found.pool
            if link.system == "legacy":
                device.offers = link.offers

    def _open(self, serial: str, offer: Offer, pool: str, now: float) -> None:
        clients = self._client_streams.clients(serial, offer)
        self._ports.open(clients, pool, now, self._access.records.of(serial).ports)

    def _apply(self) -> Iterator[None]:
        """A step for each device that is here or has streams, then one for each port."""
        for serial in self._streams.serials():
            self._judge(serial)
            yield
        yield from self._promises()

    def _promises(self) -> Iterator[None]:
        return self._ports.keep_promises(
            self._client_streams.clients_of_absent, self.most, self._clock.seconds
        )

    def _judge(self, serial: str) -> None:
        """Let a device have what its record allows now, and nothing else."""
        device = self._fleet.get(serial)
        link = device.link if device is not None and device.carrier is not None else None
        if not hasattr(link, "listener"):  # of CCCP: its clients have no ports of ours
            link = None
        if self._access.expired(serial):
            if link is not None:
                link.dismiss("expired", OVER, GoAway.DENIED)
            self._streams.end_all(Ended.NOT_ALLOWED, OVER, serial)
            return
        if link is not None and device is not None:
            self.follow(link, device)
            self.open_ports(link)
        for row in self._streams.rows(serial):
            lease = self._ports.leases.find(serial, row.target)
            offers = [each for each in device.offers if each.name == row.target] if device is not None else []
            refusal = self._access.stream(serial, row.client, "" if lease is None else lease.pool, offers)
            if refusal:
                self._streams.end(serial, row.number, Ended.NOT_ALLOWED, refusal)
