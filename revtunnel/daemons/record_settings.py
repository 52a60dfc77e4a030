"""Records and penalties out of a settings table: who may reach which device, and until when.

Rule of this file: what a device's own section does not say is taken from [device *]; client ports that other
machines reach have to say for whom they are.

Source: faults.md "Per-device authority record", "Bind defaults"; ours.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol as Typing

from revtunnel.fleet.records import DEFAULT, DeviceRecord, DeviceRecords, Pattern
from revtunnel.ground.networks import Network
from revtunnel.ground.targets import Offer
from revtunnel.settings.inifile import SECTION_OF, Table
from revtunnel.trust.tls_settings import is_loopback

__all__ = ["DeviceSettings", "PoolClients", "check_clients", "device_settings", "records_of"]


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """One device, or all others where ``name`` is ``*``; None is any, or never."""

    name: str
    clients: tuple[Network, ...] | None
    targets: tuple[Pattern, ...] | None
    ports: tuple[tuple[int, int], ...] | None
    channels: int  # 0: no limit of its own
    expires: float | None  # seconds since 1970
    labels: tuple[str, ...]
    sessions: str  # any, asked, no
    services: tuple[Offer, ...]  # of a ThingWorx device, or of a localproxy


class PoolClients(Typing):
    """Part of a pool's settings."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def bind(self) -> str:
        """Where its ports are."""

    @property
    def clients(self) -> tuple[Network, ...] | None:
        """Who may use them; None is anybody."""


def device_settings(table: Table) -> tuple[DeviceSettings, ...]:
    """Every [device SERIAL], with what it takes from [device *]."""
    common = f"device {DEFAULT}"

    def value(label: str, key: str) -> Any:
        return table.get(label if (label, key) in table.values else common, key)

    keys = SECTION_OF["device"].keys
    nothing = DeviceSettings(DEFAULT, **{key.name: key.value for key in keys})
    found = [
        DeviceSettings(label.split()[1], **{key.name: value(label, key.name) for key in keys})
        for label in table.named("device")
    ]
    return tuple(each for each in found if each != nothing)


def check_clients(table: Table, pools: Iterable[PoolClients]) -> None:
    """Ports that other machines reach are for somebody who was named, by the pool or for all devices."""
    said = (f"device {DEFAULT}", "clients") in table.values
    for pool in pools:
        label = f"pool {pool.name}"
        if said or is_loopback(pool.bind) or (label, "clients") in table.origins:
            continue
        text = f"{pool.bind} is reached by other machines, which reach the devices then"
        wanted = "clients = 10.1.0.0/16, or whoever may, or, if that is meant, clients = any"
        table.complain(label, "bind", f"{text}, wanted: {wanted}")


def records_of(devices: Sequence[DeviceSettings], pools: Iterable[PoolClients]) -> DeviceRecords:
    """What the server asks."""
    return DeviceRecords(
        {each.name: DeviceRecord(each.ports, each.targets, each.clients, each.channels or None, each.expires,
                           each.labels, each.sessions, each.services)
         for each in devices},
        {pool.name: pool.clients for pool in pools},
    )  # fmt: skip
