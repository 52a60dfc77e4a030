"""The fleet: which device is here, by which wire, and what a second connection of the same serial does.

One registry for every wire. A device that proves its identity replaces its old link at once: the old one is
most often half-open. One that cannot follows its listener's rule. A proved serial whose links replace each
other again and again has two holders of one key: both stay out for a while (``TwoHolders``). A serial that
is here by one wire and comes by another is decided by the same rule, and told as ``DuplicateDevice``.

Rule of this file: an arrival or a leave looks at its own device, never at the others.

Source: wire/link-extension.md "Liveness"; wire/cccp.md section 2; faults.md R8 to R10.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from revtunnel.fleet.devices import Device, DeviceStore, Memory, in_order
from revtunnel.ground.facts import DuplicateDevice, Fact
from revtunnel.ground.limits import FleetLimits
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.targets import Offer
from revtunnel.link.handshake import LinkDenied

__all__ = ["Fleet", "TwoHolders"]

Link = TypeVar("Link")
BARRED = 300.0  # seconds
ABSENT_KEPT = 10_000  # absent devices that are remembered


class TwoHolders(LinkDenied):
    """This arrival bars its serial: besides the link that is refused, the one that is up has to be closed."""


class Fleet(Generic[Link]):
    """All devices that are here, and 10,000 that were or may come. ``limits`` may be set anew at any time.

    Of those that were, who never proved his serial is forgotten first: a word costs nothing.
    """

    def __init__(
        self,
        limits: FleetLimits,
        report: Callable[[Fact], None] = lambda fact: None,
        store: DeviceStore[Link] | None = None,
    ) -> None:
        self.limits = limits
        self._report = report
        self._here: DeviceStore[Link] = Memory() if store is None else store
        self._absent: Memory[Link] = Memory()
        # of the absent, who left first first; apart by whether they had proved their serial, or are ours
        self._ages: dict[bool, OrderedDict[str, None]] = {False: OrderedDict(), True: OrderedDict()}

    def get(self, serial: str) -> Device[Link] | None:
        """The device of a serial, here or remembered."""
        return self._here.select(serial) or self._absent.select(serial)

    def page(self, after: str, limit: int | None) -> list[Device[Link]]:
        """Devices that are here or remembered, behind ``after`` in the order of serials."""
        return in_order((self._here.page(after, limit), self._absent.page(after, limit)), limit)

    def here(self, system: str, after: str = "", limit: int | None = None) -> list[Device[Link]]:
        """The same of one system, and of those that are here only."""
        return self._here.page(after, limit, system)

    def count(self, system: str) -> int:
        """How many of one system are here."""
        return self._here.count(system)

    def __len__(self) -> int:
        """How many are here."""
        return self._here.count()

    def arrive(
        self,
        serial: str,
        link: Link,
        now: float,
        authenticated: bool = False,
        newest: bool = True,
        offers: tuple[Offer, ...] = (),
        *,
        system: str = "",
        peer: str = "",
        listener: str = "",
        pool: str = "",
        labels: tuple[str, ...] = (),
        alarm: bool = False,
    ) -> Link | None:
        """A link of this serial is up: the older link to close for it, or None.

        ``alarm``: a second link of a serial is always told, not only one of another system.

        Raises:
            TwoHolders: the serial is barred from now on; the link that is up is still ``get(serial).link``.
            Denied: an older link stays, or the serial is barred already.
        """
        device = self.get(serial) or Device(serial)
        if now < device.barred_until:
            raise LinkDenied(GoAway.DENIED, f"serial {serial} has two holders; barred", serial)
        old, stays = device.link, "newest"
        try:
            if old is not None and authenticated:
                stays = "neither"
                self._count_swap(device, now)
                stays = "newest"
            elif old is not None and (device.authenticated or not newest):
                stays = "oldest"
                raise LinkDenied(GoAway.DUPLICATE, f"serial {serial} is here already", serial)
        finally:
            if old is not None and (alarm or device.system != system):
                twice = peer, device.peer, stays, authenticated, system, device.system
                self._report(DuplicateDevice(serial, *twice))
        self._put_here(device, system)
        device.link, device.carrier, device.since, device.peer = link, None, now, peer
        device.authenticated, device.offers, device.labels = authenticated, offers, labels
        device.listener, device.pool = listener, pool
        device.links += 1
        return old

    def know(
        self,
        serial: str,
        now: float,
        system: str = "",
        listener: str = "",
        pool: str = "",
        offers: tuple[Offer, ...] = (),
    ) -> None:
        """It is one of ours, whether or not it was ever here; no more are kept than of those that were."""
        device = self.get(serial)
        if device is not None:
            device.offers = device.offers if device.links else offers or device.offers
        elif sum(map(len, self._ages.values())) < ABSENT_KEPT:
            told = Device[Link](serial, system=system, since=now, listener=listener, pool=pool, offers=offers)
            self._absent.add(told)
            self._ages[True][serial] = None

    def leave(self, serial: str, link: Link, now: float) -> bool:
        """A link is gone; False when a newer one has its place already."""
        device = self._here.select(serial)
        if device is None or device.link is not link:
            return False
        self._here.remove(device)
        device.link, device.carrier, device.since = None, None, now
        self._absent.add(device)
        self._ages[device.authenticated][serial] = None
        if sum(map(len, self._ages.values())) > ABSENT_KEPT:
            self._forget(next(iter(self._ages[False] or self._ages[True])))
        return True

    def _put_here(self, device: Device[Link], system: str) -> None:
        if device.link is not None:
            self._here.remove(device)
        else:
            self._forget(device.serial)
        device.system = system
        self._here.add(device)

    def _forget(self, serial: str) -> None:
        device = self._absent.select(serial)
        if device is not None:
            for ages in self._ages.values():
                ages.pop(serial, None)
            self._absent.remove(device)

    def _count_swap(self, device: Device[Link], now: float) -> None:
        limits = self.limits
        device.swaps = (*(at for at in device.swaps if now - at < limits.duplicate_window), now)
        if len(device.swaps) > limits.duplicate_swaps:
            device.barred_until = now + BARRED
            device.swaps = ()
            detail = f"serial {device.serial} has two holders: both barred for {BARRED:g} s"
            raise TwoHolders(GoAway.DENIED, detail, device.serial)
