"""What is known of a device, and where devices are kept: by serial, and in the order of serials for listings.

Rule of this file: whatever is asked costs the same with ten devices and with a hundred thousand, but for the
logarithm of an ordered place. ``DeviceStore`` is the form; ``Memory`` keeps what this process has. An engine
that several nodes share is one more: its ``select`` may answer with a device that is at another node.

Source: next/cluster.md section 3; ours.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from sortedcontainers import SortedKeyList

from revtunnel.fleet.holders import Holders
from revtunnel.ground.targets import Offer

__all__ = ["Device", "DeviceStore", "Memory", "in_order"]

Link = TypeVar("Link")


@dataclass(slots=True, eq=False)
class Device(Generic[Link]):
    """What is known of one serial. Times are monotonic seconds.

    ``link`` is the connection that it came by; ``carrier`` (streams/carrier.py) brings the streams of clients
    to it, where its system has such streams.
    """

    serial: str
    link: Link | None = None
    carrier: Any = None
    system: str = ""  # the wire of its link, or of the last one: "rt1", "legacy", "emo", "cccp"
    peer: str = ""  # host:port, likewise
    since: float = 0.0  # online or offline since
    authenticated: bool = False
    offers: tuple[Offer, ...] = ()
    listener: str = ""  # where it came in
    pool: str = ""  # where its ports come from
    labels: tuple[str, ...] = ()  # what operators call it by (ground/labels.py)
    links: int = 0
    channels: int = 0
    bytes_to_device: int = 0
    bytes_to_client: int = 0
    instance: bytes = b""  # which run of its agent has the link, or had the last one; b"": it does not say
    holders: Holders | None = None  # once a link of it was replaced
    barred_until: float = 0.0

    @property
    def online(self) -> bool:
        """Whether a link is up."""
        return self.link is not None


class DeviceStore(Protocol[Link]):
    """Devices by serial. Whoever puts one in takes it out before its ``system`` changes."""

    def select(self, serial: str) -> Device[Link] | None:
        """The device of a serial."""

    def add(self, device: Device[Link]) -> None:
        """It is here."""

    def remove(self, device: Device[Link]) -> None:
        """It is not here any more."""

    def count(self, system: str | None = None) -> int:
        """How many there are, of one system or in all."""

    def page(self, after: str, limit: int | None, system: str | None = None) -> list[Device[Link]]:
        """Those behind ``after`` in the order of serials, ``limit`` at most (None: all)."""


class Memory(Generic[Link]):
    """The devices of this process."""

    def __init__(self) -> None:
        self._devices: dict[str, Device[Link]] = {}
        self._ordered: dict[str, SortedKeyList] = {}  # by system

    def select(self, serial: str) -> Device[Link] | None:
        return self._devices.get(serial)

    def add(self, device: Device[Link]) -> None:
        self._devices[device.serial] = device
        of_system = self._ordered.get(device.system)
        if of_system is None:
            of_system = self._ordered[device.system] = SortedKeyList(key=_serial)
        of_system.add(device)

    def remove(self, device: Device[Link]) -> None:
        del self._devices[device.serial]
        self._ordered[device.system].remove(device)

    def count(self, system: str | None = None) -> int:
        return len(self._devices if system is None else self._ordered.get(system, ()))

    def page(self, after: str, limit: int | None, system: str | None = None) -> list[Device[Link]]:
        chosen = self._ordered.values() if system is None else [self._ordered.get(system, _NONE)]
        behind = (each.irange_key(after, None, inclusive=(False, True)) for each in chosen)
        return in_order(behind, limit)


def in_order(listings: Iterable[Iterable[Device[Link]]], limit: int | None) -> list[Device[Link]]:
    """The first of several ordered listings together."""
    merged: Iterator[Device[Link]] = merge(*listings, key=_serial)
    return list(islice(merged, limit))


def _serial(device: Device[Link]) -> str:
    return device.serial


_NONE = SortedKeyList(key=_serial)
