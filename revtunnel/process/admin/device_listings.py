"""Devices, channels, sessions and ports of every wire that a daemon speaks, as one listing each.

Rule of this file: a page costs what is on it; each wire gives its own in order, from a place on, and no more
than is asked for. Cursors are a serial, or a serial and the number of a channel.

Source: issue "Admin"; ours.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from itertools import chain
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from revtunnel.fleet.devices import Device
from revtunnel.fleet.fleet import Fleet
from revtunnel.fleet.leases import Leases
from revtunnel.fleet.pools import Lease
from revtunnel.process.admin.daemon_operator import DaemonOperator
from revtunnel.process.admin.device_operations import CHANNELS, DEVICES, PORTS
from revtunnel.process.admin.operation_form import PAGE, Row
from revtunnel.process.admin.paging import most, page
from revtunnel.process.admin.refusals import NotFound
from revtunnel.process.reporting import Reporter
from revtunnel.streams.running import Running

__all__ = ["At", "DeviceOperator", "Place", "Wire"]

Place = tuple[str, int]  # of a channel: serial and number
At = Callable[[float], str]  # a monotonic time for people


class Wire(Protocol):
    """What one wire has. Listings are in order, behind ``after``, and have ``limit`` rows at most."""

    def about(self, device: Device[Any]) -> tuple[list[Running], Row]:
        """The channels of a device that is here or was, and what only its wire knows."""

    def streams(self, serial: str | None, after: Place, limit: int) -> list[Running]:
        """Running channels of one device, or all."""

    def sessions(self, serial: str | None, after: Place, limit: int) -> list[Row]:
        """Granted uses of one device, or all."""

    def counts(self) -> dict[str, int]:
        """For a status; the same of several wires is added up."""

    def facts(self) -> Counter[str]:
        """How often each fact happened."""

    def uses(self, lease: Lease) -> bool:
        """Whether clients are taken on the lease's port."""

    def kick(self, serial: str, detail: str, retry_after: int, by: str) -> bool:
        """End a device's connection; False: it has none."""

    def close(self, serial: str, channel: int, detail: str) -> bool:
        """End a channel with a reset; False: there is none."""


class DeviceOperator(DaemonOperator):
    """A daemon with devices. ``wires`` are those that it speaks, by system; "" has whatever has none."""

    def __init__(
        self,
        clock: IReactorTime,
        reporter: Reporter,
        name: str,
        fleet: Fleet[Any],
        leases: Leases,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock, reporter, name, wall)
        self.wires: dict[str, Wire] = {}
        self._fleet = fleet
        self._leases = leases

    def here(self, serial: str) -> bool:
        """Whether a device is connected, by whatever wire."""
        device = self._fleet.get(serial)
        return device is not None and device.online

    # -- what is

    def status(self) -> Row:
        """The daemon in one row: counts, state, problems."""
        counts: dict[str, int] = {}
        facts: Counter[str] = Counter()
        for wire in self.wires.values():
            facts |= wire.facts()  # what two wires count was told once
            for name, count in wire.counts().items():
                counts[name] = counts.get(name, 0) + count
        return {
            **super().status(),
            "devices": len(self._fleet),
            **counts,
            "ports": {name: asdict(spread) for name, spread in self._leases.counts().items()},
            "counts": dict(sorted(facts.items())),
            "ledger_problem": self.problem or "",
        }

    def devices(self, after: str = "", limit: int = PAGE, here: bool = False) -> Any:
        """Devices that are here or were, by serial; ``here``: also where it is a node of several."""
        found = self._fleet.page(after, most(limit) + 1)
        return page(found, limit, self._device, lambda each: each.serial)

    def channels(
        self, serial: str | None = None, after: Place = ("", 0), limit: int = PAGE
    ) -> tuple[list[Row], Place | None]:
        """Running channels, by serial and number."""
        ahead = most(limit) + 1
        found = sorted(
            chain.from_iterable(each.streams(serial, after, ahead) for each in self.wires.values())
        )
        return page(found, limit, self._channel, lambda each: (each.serial, each.number))

    def sessions(
        self, serial: str | None = None, after: Place = ("", 0), limit: int = PAGE
    ) -> tuple[list[Row], Place | None]:
        """Granted uses of devices, by serial and the number of their channel."""
        ahead = most(limit) + 1
        rows = chain.from_iterable(each.sessions(serial, after, ahead) for each in self.wires.values())
        return page(sorted(rows, key=_place), limit, lambda row: row, _place)

    def ports(self, after: int = 0, limit: int = PAGE) -> tuple[list[Row], int | None]:
        """Every port that is promised, rests or is set aside, by number."""
        found = self._leases.ports(after, most(limit) + 1)
        return page(found, limit, self._port, lambda lease: lease.port)

    # -- what is done

    def close(self, serial: str, channel: int, by: str) -> None:
        """End one channel with a reset.

        Raises:
            NotFound: no such channel runs.
        """
        if not any(wire.close(serial, channel, "closed by an operator") for wire in self.wires.values()):
            raise NotFound(f"no channel {channel} of {serial} is open")

    def kick(self, serial: str, retry_after: int, by: str) -> None:
        """End a device's link and ask it to stay away for ``retry_after`` seconds, where its wire can say so.

        Raises:
            NotFound: the device is not here.
        """
        if not self.cut_off(serial, "by an operator", by, retry_after):
            raise NotFound(f"{serial} is not here")

    def cut_off(self, serial: str, detail: str, by: str, retry_after: int = 0) -> bool:
        """End a device's connections by all wires; False: there were none."""
        ended = [wire.kick(serial, detail, retry_after, by) for wire in self.wires.values()]
        return any(ended)

    # -- rows

    def _device(self, device: Device[Any]) -> Row:
        wire = self.wires.get(device.system) or self.wires[""]
        running, more = wire.about(device)
        if device.online:
            more |= {"link": device.system, "listener": device.listener, "address": device.peer}
        return DEVICES.row(
            device,
            since=self.at(device.since),
            conflict=device.holders.shown(self._clock.seconds()) if device.holders is not None else "",
            channels=len(running),
            channels_total=device.channels,
            links_total=device.links,
            bytes_to_device=device.bytes_to_device + sum(each.bytes_to_device for each in running),
            bytes_to_client=device.bytes_to_client + sum(each.bytes_to_client for each in running),
            **{"link": "", "listener": ""} | more,
        )

    def _channel(self, channel: Running) -> Row:
        seconds = round(self._clock.seconds() - channel.since, 3)
        return CHANNELS.row(channel, channel=channel.number, since=self.at(channel.since), seconds=seconds)

    def _port(self, lease: Lease) -> Row:
        left = None if lease.until is None else round(max(0.0, lease.until - self._clock.seconds()), 1)
        is_open = any(wire.uses(lease) for wire in self.wires.values())
        since = self.at(lease.since)
        return PORTS.row(lease, state=lease.state.value, open=is_open, since=since, left=left)


def _place(row: Row) -> Place:
    return row["serial"], row["channel"]
