"""The clients of devices: who may have a stream, and the word for who may not.

The rule: a client is given to the carrier of its device, now or in its turn (streams/lines.py), or refused at
once; nobody is left hanging. One that came to a port may wait for a device that is away, where its pool says
so, and for so long.

Source: wire/readyagent.md section 5.7; faults.md N1, N23.
"""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.fleet import Fleet
from revtunnel.fleet.streams_of_devices import StreamsOfDevices
from revtunnel.fleet.waiting_clients import WaitingClients
from revtunnel.ground.facts import ClientRefused, Report
from revtunnel.ground.limits import ServerLimits
from revtunnel.ground.targets import Offer, Target
from revtunnel.streams.carrier import Carrier
from revtunnel.streams.clients import Clients, ClientSocket
from revtunnel.streams.lines import WAITS, Lines

__all__ = ["ClientStreams"]

Left = Callable[[ClientSocket], None]
NOWHERE = Target("invalid", 0)  # what a device that is away offers; its clients are refused


class ClientStreams:
    """All clients of a server. ``make_room`` says whether there is a descriptor for one more."""

    def __init__(
        self,
        reactor: Any,
        limits: ServerLimits,
        fleet: Fleet[Any],
        streams: StreamsOfDevices,
        access: AccessControl,
        report: Report,
    ) -> None:
        self.limits = limits
        self.count = 0  # sockets, those that are being turned away included
        self.draining = False
        self.make_room: Callable[[], bool] = lambda: True
        self.on_left: Callable[[], None] = lambda: None
        self.waiting = WaitingClients(reactor)
        # the pool of a client's port, and how long it may wait for its device; 0: it may not
        self.waits: Callable[[ClientSocket], tuple[str, float]] = lambda client: ("", 0.0)
        self.wanted: Callable[[str], None] = lambda serial: None  # a client waits for this device
        # gives a client to the node where its device is, or says a word; None: there are no other nodes
        self.elsewhere: Callable[[ClientSocket], str] | None = None
        # a client comes to a service, or has left it: whoever serves others of it by himself (lent_doors.py)
        self.comes: Callable[[str, str], None] = lambda serial, name: None
        self.changed: Callable[[str, str], None] = lambda serial, name: None
        self._reactor = reactor
        self._fleet = fleet
        self._streams = streams
        self._access = access
        self._report = report
        self._of_ports = self._admit_or_wait, self._refused, self._left  # the same for all of them
        self._lines = Lines(
            reactor,
            lambda: self.limits,
            lambda serial: access.records.of(serial).at_once,
            self._serve,
            self._numbers,
        )

    def clients(self, serial: str, offer: Offer, left: Left | None = None, session: str = "") -> Clients:
        """What takes clients of a device's offer, on whatever port; ``left`` is called after each.

        ``session``: the remote session that they are of, which the agent is told.
        """
        admit, refused, gone = self._of_ports
        if left is not None:
            admit, gone = self._admit, partial(self._left_and_tell, left)
        clients = Clients(self._reactor, serial, offer.name, offer.target, admit, refused, gone, session)
        clients.joined, clients.passed = self._joined, partial(self._passed, serial)
        return clients

    def inside(self, serial: str, name: str) -> int:
        """How many clients of a service are in, or wait for others of it."""
        return self._lines.inside(serial, name)

    def _joined(self, client: ClientSocket) -> None:
        """A client that has its stream already."""
        self.count += 1
        self._streams.came(client.serial)
        self._lines.joined(client)
        self._passed(client.serial)
        self.changed(client.serial, client.name)

    def _passed(self, serial: str) -> None:
        """A device has had a channel more."""
        device = self._fleet.get(serial)
        if device is not None:
            device.channels += 1

    def clients_of_absent(self, serial: str, name: str) -> Clients:
        """The same for a device that is away; its clients are refused until it comes."""
        return self.clients(serial, Offer(name, NOWHERE))

    def clients_by_name(self, serial: str, name: str, left: Left, session: str = "") -> Clients:
        """The same for what a device offers under a name; they are judged as on its own port."""
        device = self._fleet.get(serial)
        offers = device.offers if device is not None else ()
        offer = next((each for each in offers if each.name == name), Offer(name, NOWHERE))
        return self.clients(serial, offer, left, session)

    def _admit(self, client: ClientSocket) -> str:
        """Give a client its stream, now or soon, or say why not."""
        self.comes(client.serial, client.name)
        self.count += 1
        self._streams.came(client.serial)
        word = self._enter(client)
        self.changed(client.serial, client.name)
        return word

    def _admit_or_wait(self, client: ClientSocket) -> str:
        """The same; one whose device is away may wait for it."""
        client.may_wait = True
        word = self._admit(client)
        return self._wait(client) if word == "device-absent" else word

    def absent(self, client: ClientSocket, word: str) -> None:
        """Its device is at no other node: it waits where it may, or is refused with the word.

        One whose device came here while others were asked is served.
        """
        device = self._fleet.get(client.serial)
        if device is not None and device.carrier is not None:
            word = self._enter(client) if client.target != NOWHERE else "device-absent"
        elif word == "device-absent" and client.may_wait:
            word = self._wait(client)
        if word:
            client.refuse(word)

    def _wait(self, client: ClientSocket) -> str:
        pool, seconds = self.waits(client)
        if not seconds:
            return "device-absent"
        waiting = self.waiting.count(client.serial)
        full = self.count > self.limits.clients or waiting >= self.limits.clients_per_device
        word = self._access.client(client.serial, client.peer, pool, waiting)
        word = word or ("" if self.make_room() else "descriptors") or ("too-many-clients" if full else "")
        if not word:
            self.waiting.hold(client, seconds)
            self.wanted(client.serial)
        return word

    def device_came(self, serial: str) -> None:
        """Serve those who waited for it, if it still offers what they want."""
        device = self._fleet.get(serial)
        here = device.carrier if device is not None else None
        for client in self.waiting.take(serial):
            word = self._enter(client) if here is None or client.target != NOWHERE else "device-absent"
            if word:
                client.refuse(word)

    def stop(self) -> None:
        """Take nobody any more; who waits for a device has waited in vain."""
        self.draining = True
        self.waiting.refuse("draining")

    def _enter(self, client: ClientSocket) -> str:
        word = self._refusal(client)
        if word == "device-absent" and self.elsewhere is not None and not client.forwarded:
            return self._refusal_here(client) or self.elsewhere(client)
        word = word or self._lines.enter(client)
        return "" if word == WAITS else word or self._open(client)

    def _refusal_here(self, client: ClientSocket) -> str:
        """Why a client that another node is to have may not even come in here; the rest is judged there."""
        pool = self.waits(client)[0] if client.may_wait else ""
        word = self._access.client(client.serial, client.peer, pool, 0)
        word = word or ("" if self.make_room() else "descriptors")
        return word or ("too-many-clients" if self.count > self.limits.clients else "")

    def _serve(self, client: ClientSocket) -> None:
        """The same for one that has waited in line."""
        word = self._refusal(client) or self._open(client)
        if word:
            client.refuse(word)

    def _refusal(self, client: ClientSocket) -> str:
        """Why it may not have a stream now, or nothing."""
        device = self._fleet.get(client.serial)
        carrier = device.carrier if device is not None else None
        if self.draining:
            return "draining"
        if carrier is None or device is None:
            return "device-absent"
        running = self._streams.running(client.serial)
        refusal = self._access.client(client.serial, client.peer, device.pool, running)
        unknown = client.forwarded and client.target == NOWHERE  # it offers nothing of that name
        if unknown or not self._access.offers(client.serial, (Offer(client.name, client.target),)):
            refusal = "not-allowed"  # new records, which have not come to its port yet
        if refusal:
            return refusal
        if not self.make_room():
            return "descriptors"
        full = running >= self.limits.clients_per_device and carrier.at_once
        # without a free number it waits for one
        return "too-many-clients" if self.count > self.limits.clients or full else ""

    def _open(self, client: ClientSocket) -> str:
        """Give it to its device; a word if that cannot be."""
        device = self._fleet.get(client.serial)
        if device is None or device.carrier is None:
            return "device-absent"
        word: str = device.carrier.open(client)
        if not word:
            device.channels += 1
        return word

    def _numbers(self, serial: str, clients: Collection[ClientSocket]) -> tuple[int, ...] | None:
        """As Carrier says."""
        device = self._fleet.get(serial)
        carrier: Carrier | None = device.carrier if device is not None else None
        return None if carrier is None else carrier.numbers(clients)

    def _refused(self, client: ClientSocket, reason: str) -> None:
        self._report(ClientRefused(client.serial, client.name, client.peer, reason))

    def _left(self, client: ClientSocket) -> None:
        self.count -= 1
        self._streams.left(client.serial)
        self._lines.left(client)
        self.changed(client.serial, client.name)
        self.on_left()

    def _left_and_tell(self, told: Left, client: ClientSocket) -> None:
        self._left(client)
        told(client)
