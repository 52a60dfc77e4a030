"""All carriers of all devices: one owner for whoever lists, counts or ends streams.

The rule: a question about one device looks at its own carriers and at no other's. A device has one carrier
that takes clients, and now and then older ones whose streams have outlived their connection.

Source: ours.
"""

from collections.abc import Callable

from sortedcontainers import SortedDict

from revtunnel.ground.reasons import Ended
from revtunnel.streams.carrier import Carrier
from revtunnel.streams.running import Running

__all__ = ["StreamsOfDevices"]


class StreamsOfDevices:
    """Carriers by serial."""

    def __init__(self) -> None:
        self._carriers: dict[str, list[Carrier]] = {}
        # before somebody looks at those of a device, or of all: he knows of all behind that
        self.before: Callable[[str | None], None] = lambda serial: None
        self._clients = SortedDict()  # by serial: how many there are; 0: gone, their streams were not yet

    def __len__(self) -> int:
        """How many streams run."""
        self.before(None)
        return sum(map(self.running_now, self._clients))

    def came(self, serial: str) -> None:
        """A device has a client more."""
        self._clients[serial] = self._clients.get(serial, 0) + 1

    def left(self, serial: str) -> None:
        """And one less; its stream may take a while longer."""
        self._clients[serial] -= 1
        self._drop_if_idle(serial)

    def add(self, carrier: Carrier) -> None:
        """Its device is here."""
        self._carriers.setdefault(carrier.serial, []).append(carrier)

    def remove(self, carrier: Carrier) -> None:
        """It is over."""
        carriers = self._carriers.get(carrier.serial, [])
        if carrier in carriers:
            carriers.remove(carrier)
        if not carriers:
            self._carriers.pop(carrier.serial, None)

    def leave(self, carrier: Carrier) -> None:
        """The connection that it came with is gone; it goes when its last stream has ended."""
        if carrier.running:
            carrier.on_rest = lambda: self._rests(carrier)
        else:
            self.remove(carrier)

    def _rests(self, carrier: Carrier) -> None:
        carrier.on_rest = None
        self.remove(carrier)

    def running(self, serial: str) -> int:
        """How many streams a device has."""
        self.before(serial)
        return self.running_now(serial)

    def running_now(self, serial: str) -> int:
        """The same, of those that are known already."""
        return sum(carrier.running for carrier in self._carriers.get(serial, ()))

    def rows(self, serial: str) -> list[Running]:
        """The running streams of one device, by number."""
        self.before(serial)
        return sorted(row for carrier in self._carriers.get(serial, ()) for row in carrier.rows())

    def page(self, after: tuple[str, int] = ("", 0), limit: int | None = None) -> list[Running]:
        """The running streams of all devices behind ``after``, by serial and number, ``limit`` at most."""
        self.before(None)
        found: list[Running] = []
        idle: list[str] = []
        for serial in self._clients.irange(after[0]):
            if limit is not None and len(found) >= limit:
                break
            rows = self.rows(serial)
            found += [row for row in rows if (row.serial, row.number) > after]
            idle += [] if rows else [serial]
        for serial in idle:
            self._drop_if_idle(serial)
        return found[:limit]

    def serials(self) -> list[str]:
        """The devices that have a carrier."""
        return list(self._carriers)

    def end(self, serial: str, number: int, reason: Ended, detail: str) -> bool:
        """End one stream; False: there is none."""
        self.before(serial)
        return any(carrier.end_stream(number, reason, detail) for carrier in self._of(serial))

    def end_all(self, reason: Ended, detail: str, serial: str | None = None) -> bool:
        """End the streams of one device, or all; False: there were none."""
        self.before(serial)
        ended = [carrier.end_streams(reason, detail) for carrier in self._of(serial)]
        return any(ended)

    def at_rest(self) -> bool:
        """Whether no stream runs; for whoever waits for that and lets no new ones come."""
        self.before(None)
        while self._clients and self._drop_if_idle(self._clients.keys()[-1]):
            pass
        return not self._clients

    def _drop_if_idle(self, serial: str) -> bool:
        idle = not self._clients[serial] and not self.running_now(serial)
        if idle:
            del self._clients[serial]
        return idle

    def _of(self, serial: str | None) -> list[Carrier]:
        if serial is not None:
            return [*self._carriers.get(serial, ())]
        return [carrier for carriers in self._carriers.values() for carrier in carriers]
