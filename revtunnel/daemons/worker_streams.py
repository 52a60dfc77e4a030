"""The streams that one worker has, as far as it has told: opened and ended as that happens, all when asked.

The rule: of a device the newest carrier has its streams at that worker; one whose link is gone rests when
there are none, or when a newer one has them.

Source: fleet/streams_of_devices.py; ours.
"""

from collections.abc import Iterator
from typing import Any

from revtunnel.ground.facts import ChannelEnded, ChannelOpened
from revtunnel.ground.reasons import Ended
from revtunnel.streams.carrier import Carrier
from revtunnel.streams.running import Running

__all__ = ["WorkerStreams"]

LOST = "its worker has ended; bytes as far as it told"


class WorkerStreams:
    """Those of one worker."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._of: dict[str, dict[int, Running]] = {}  # by serial and number
        self._carriers: dict[str, Carrier] = {}  # the newest of each device

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    def rows(self) -> Iterator[Running]:
        """All, in no order."""
        for found in self._of.values():
            yield from found.values()

    def newest(self, serial: str) -> Carrier | None:
        """The carrier that has all of a device; None: it has none here any more."""
        return self._carriers.get(serial)

    def of(self, carrier: Carrier) -> dict[int, Running]:
        """Those that a carrier has, by number."""
        return self._of.get(carrier.serial, {}) if self.newest(carrier.serial) is carrier else {}

    def came(self, carrier: Carrier) -> None:
        """A device is here, maybe again."""
        before = self._carriers.get(carrier.serial)
        self._carriers[carrier.serial] = carrier
        if before is not None and before.on_rest is not None:
            before.on_rest()

    def left(self, carrier: Carrier) -> None:
        """Its link is gone."""
        if carrier.serial not in self._of and self._carriers.get(carrier.serial) is carrier:
            del self._carriers[carrier.serial]

    def opened(self, fact: ChannelOpened) -> None:
        """One more."""
        carrier, now = "link" if fact.channel < 256 else "socket", self._reactor.seconds()
        told = fact.serial, fact.channel, fact.target, fact.peer, carrier, "open", now, 0, 0, 0, 0
        self._of.setdefault(fact.serial, {})[fact.channel] = Running(*told)

    def ended(self, serial: str, number: int) -> bool:
        """One less, if it was known; whether it had been opened."""
        found = self._of.get(serial, {})
        row = found.pop(number, None)
        if not found:
            self._rests(serial)
        return row is not None and row.state != "opening"

    def take(self, rows: tuple[Running, ...]) -> None:
        """All that there are, in place of those that were known."""
        before, self._of = self._of, {}
        for row in rows:
            self._of.setdefault(row.serial, {})[row.number] = row
        for serial in before.keys() - self._of.keys():
            self._rests(serial)

    def lost(self) -> Iterator[ChannelEnded]:
        """The worker is gone: how each has ended."""
        now = self._reactor.seconds()
        for row in [*self.rows()]:
            told = row.serial, row.number, row.target, row.client, Ended.LINK_LOST, LOST
            yield ChannelEnded(*told, round(now - row.since, 3), row.bytes_to_device, row.bytes_to_client)

    def _rests(self, serial: str) -> None:
        self._of.pop(serial, None)
        carrier = self._carriers.get(serial)
        if carrier is not None and carrier.on_rest is not None:
            del self._carriers[serial]
            carrier.on_rest()
