"""Which client ports the data plane has: those where nothing is judged of a client but how many there are.

The rules: a port is lent behind a client of it that came as ever, while its device is here with plain data
sockets and takes first bytes, and neither pool nor record asks for anything of a client: no header before
it, no networks, no end of its time, no line. How many clients there may be goes along as a number. Any change
of settings, of the device or of its link takes the port back first; the next client lends it again.

What the plane has, and nobody was told of yet, is fetched before anybody looks (``fetch``), and before a
client of the same service is judged here.

Source: issue 16 "as a second step, accepts clients"; carriers/doors.py.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from revtunnel.carriers.data_pool import DataPool
from revtunnel.carriers.doors import Allowed, Door
from revtunnel.carriers.gates import Gates
from revtunnel.carriers.sockets_first import SocketsFirst
from revtunnel.daemons.client_streams import ClientStreams
from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.client_ports import ClientPorts, OpenPort
from revtunnel.fleet.fleet import Fleet
from revtunnel.fleet.pools import Use
from revtunnel.sockets.data_plane import DataPlane
from revtunnel.sockets.listening import Listener

if TYPE_CHECKING:
    from revtunnel.fleet.streams_of_devices import StreamsOfDevices

__all__ = ["LentDoors"]

MOST = 512  # clients at all doors, or at one, that Python was not told of yet


class LentDoors:
    """Those of one server. ``left``: descriptors that connections may still have."""

    def __init__(
        self,
        reactor: Any,
        fleet: Fleet[Any],
        ports: ClientPorts,
        streams: "StreamsOfDevices",
        clients: ClientStreams,
        access: AccessControl,
        left: Callable[[], int],
        gates: Gates,
    ) -> None:
        self._reactor = reactor
        self._fleet = fleet
        self._ports = ports
        self._streams = streams
        self._clients = clients
        self._access = access
        self._left = left
        self._gates = gates
        self._doors: dict[Use, Door] = {}
        self._lent: dict[str, set[Use]] = {}  # by serial
        self._pools: WeakSet[DataPool] = WeakSet()  # that have had doors
        ports.served, ports.recall = self._served, self.recall
        clients.comes, clients.changed = self._comes, self._changed
        access.on_records = self.recall_all
        streams.before = self.fetch

    def __len__(self) -> int:
        return len(self._doors)

    def fetch(self, serial: str | None = None) -> None:
        """Know of all clients that there are or were; of one device's alone, if one is named."""
        plane = DataPlane.of(self._reactor) if self._doors else None
        if plane is not None and (serial is None or serial in self._lent):
            plane.fetch(young=True)

    def recall(self, use: Use) -> None:
        """Have a port back, if it is lent."""
        door = self._doors.get(use)
        if door is not None:
            door.close()

    def recall_device(self, serial: str) -> None:
        """Have all ports of a device back."""
        for use in [*self._lent.get(serial, ())]:
            self.recall(use)

    def recall_all(self) -> None:
        """Have all ports back, and the sockets of their devices."""
        for pool in [*self._pools]:
            pool.spare.unlend()

    # -- inside

    def _comes(self, serial: str, name: str) -> None:
        """Before a client of it is judged: others of it are known."""
        if (serial, name) in self._doors:
            self.fetch(serial)

    def _changed(self, serial: str, name: str) -> None:
        """There are other clients of it in Python: what all doors of the device may have."""
        for use in [*self._lent.get(serial, ())]:
            door = self._doors[use]
            door.allow(self._allowed(use, door.here, door.pool))

    def _served(self, port: OpenPort) -> None:
        """A client came to a port: it is lent, if it may be."""
        plane, use = DataPlane.of(self._reactor), port.lease.use
        if plane is None or use in self._doors or not isinstance(port.listening, Listener):
            return
        pool = self._pool_of(port)
        if pool is None:
            return
        allowed, wait = self._allowed(use, (), pool), self._clients.limits.ended_wait
        if allowed.most and allowed.all:
            try:
                self._pools.add(pool)
                gone = partial(self._gone, use)
                self._doors[use] = Door(plane, pool, port.listening, port.clients, wait, allowed, gone)
                self._gates.lend(plane, pool, pool.spare.lend(plane).handle)
            except OSError:
                return  # it is as well here
            self._lent.setdefault(use.serial, set()).add(use)
            self._changed(*use)

    def _gone(self, use: Use) -> None:
        del self._doors[use]
        self._lent[use.serial].discard(use)
        if not self._lent[use.serial]:
            del self._lent[use.serial]

    def _pool_of(self, port: OpenPort) -> DataPool | None:
        """The data sockets that its clients may be given by the plane; None: they may not."""
        serial, name = port.lease.use
        device, records = self._fleet.get(serial), self._access.records
        carrier = device.carrier if device is not None else None
        if device is None or not isinstance(carrier, SocketsFirst) or self._clients.draining:
            return None
        pool, record = carrier.pool, records.of(serial)
        is_open = self._ports.is_open(serial, name, port.lease.port)
        judged = record.clients is not None or record.expires is not None or record.at_once is not None
        judged = judged or any(records.pools.get(each) is not None for each in (port.lease.pool, device.pool))
        judged = judged or bool(port.clients.session) or self._ports.heads(port.lease.pool)
        simple = pool.spare.is_plain and not pool.closed and not pool.waits and not pool.core.in_doubt
        simple = simple and pool.link.takes_early and not pool.link.tls
        return pool if is_open and simple and not judged else None

    def _allowed(self, use: Use, here: Any, pool: DataPool) -> Allowed:
        """What a door may have now; doors of one device have its clients in equal parts."""
        limits, most = self._clients.limits, self._access.records.of(use.serial).channels
        each = limits.clients_per_device if most is None else min(most, limits.clients_per_device)
        running = self._streams.running_now(use.serial)
        inside = self._clients.inside(*use)
        every = min(MOST, limits.clients - self._clients.count, self._left() // 4)
        mine = min(MOST, (each - running) // max(1, len(pool.spare.doors)))
        return Allowed(max(0, mine), max(0, inside - len(here)), max(0, every))
