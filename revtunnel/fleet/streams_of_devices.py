"""All carriers of all devices: one owner for whoever lists, counts or ends streams.

The rule: a question about one device looks at its own carriers and at no other's. A device has one carrier
that takes clients, and now and then older ones whose streams have outlived their connection.

Source: ours.
"""

from revtunnel.ground.reasons import Ended
from revtunnel.streams.carrier import Carrier
from revtunnel.streams.running import Running

__all__ = ["StreamsOfDevices"]


class StreamsOfDevices:
    """Carriers by serial."""

    def __init__(self) -> None:
        self._carriers: dict[str, list[Carrier]] = {}

    def __len__(self) -> int:
        """How many streams run."""
        return sum(carrier.running for carriers in self._carriers.values() for carrier in carriers)

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
        return sum(carrier.running for carrier in self._carriers.get(serial, ()))

    def rows(self, serial: str | None = None) -> list[Running]:
        """The running streams of one device, or all, by serial and number."""
        return sorted(row for carrier in self._of(serial) for row in carrier.rows())

    def serials(self) -> list[str]:
        """The devices that have a carrier."""
        return list(self._carriers)

    def end(self, serial: str, number: int, reason: Ended, detail: str) -> bool:
        """End one stream; False: there is none."""
        return any(carrier.end_stream(number, reason, detail) for carrier in self._of(serial))

    def end_all(self, reason: Ended, detail: str, serial: str | None = None) -> bool:
        """End the streams of one device, or all; False: there were none."""
        ended = [carrier.end_streams(reason, detail) for carrier in self._of(serial)]
        return any(ended)

    def _of(self, serial: str | None) -> list[Carrier]:
        if serial is not None:
            return [*self._carriers.get(serial, ())]
        return [carrier for carriers in self._carriers.values() for carrier in carriers]
