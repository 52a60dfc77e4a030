"""The fleet: which device is here, by which wire, and what a second connection of the same serial does.

One registry for every wire. A device that proves its identity replaces its old link at once: the old one is
most often half-open. One that cannot follows its listener's rule, which decides for all once a serial has two
holders (holders.py): the newest link stays, the oldest, or both stay out for a while (``TwoHolders``). That,
and a serial that is here by one wire and comes by another, is told as ``DuplicateDevice``.

Rule of this file: an arrival or a leave looks at its own device, never at the others.

Source: wire/link-extension.md "Liveness"; wire/cccp.md section 2; faults.md R8 to R10.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from revtunnel.fleet.devices import Device, DeviceStore, Memory, in_order
from revtunnel.fleet.holders import Holders
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
        # told of each device that is here now, or is not any more; None: nobody is
        self.on_arrived: Callable[[Device[Link]], None] | None = None
        self.on_left: Callable[[Device[Link]], None] | None = None

    def get(self, serial: str) -> Device[Link] | None:
        """The device of a serial, here or remembered."""
        return self._here.select(serial) or self._absent.select(serial)

    def page(self, after: str, limit: int | None) -> list[Device[Link]]:
        """Devices that are here or remembered, behind ``after`` in the order of serials."""
        return in_order((self._here.page(after, limit), self._absent.page(after, limit)), limit)

    def here(self, system: str | None, after: str = "", limit: int | None = None) -> list[Device[Link]]:
        """The same of one system, or of all, and of those that are here only."""
        return self._here.page(after, limit, system)

    def count(self, system: str) -> int:
        """How many of one system are here."""
        return self._here.count(system)

    @property
    def absent(self) -> int:
        """How many are remembered that were here."""
        return self._absent.count()

    def __len__(self) -> int:
        """How many are here."""
        return self._here.count()

    def arrive(
        self,
        serial: str,
        link: Link,
        now: float,
        authenticated: bool = False,
        duplicate: str = "auto",
        offers: tuple[Offer, ...] = (),
        *,
        system: str = "",
        peer: str = "",
        listener: str = "",
        pool: str = "",
        labels: tuple[str, ...] = (),
        instance: bytes = b"",
        alarm: bool = False,
    ) -> Link | None:
        """A link of this serial is up: the older link to close for it, or None.

        Args:
            duplicate: the rule: newest, oldest, refuse-both, or auto: refuse-both for who proves its serial,
                newest for others.
            instance: which run of its agent came.
            alarm: a second link of a serial is always told, not only one of another system.

        Raises:
            TwoHolders: the serial is barred from now on; the link that is up is still ``get(serial).link``.
            Denied: an older link stays, or the serial is barred already.
        """
        device = self.get(serial) or Device(serial)
        if now < device.barred_until:
            if device.holders is not None:
                device.holders.seen(now, *device.holders.peers)
            raise LinkDenied(GoAway.DENIED, f"serial {serial} has two holders; barred", serial)
        old = device.link
        if old is not None and not (authenticated is device.authenticated and _same_run(device, instance)):
            stays, news = self._judge(device, peer, instance, authenticated, duplicate, now)
            if news or alarm or device.system != system:
                twice = peer, device.peer, stays, authenticated, system, device.system
                self._report(DuplicateDevice(serial, *twice))
            if stays == "oldest":
                raise LinkDenied(GoAway.DUPLICATE, f"serial {serial} is here already", serial)
            if stays == "neither":
                self._bar(device, now)
        self._put_here(device, system)
        device.link, device.carrier, device.since, device.peer = link, None, now, peer
        device.authenticated, device.offers, device.labels = authenticated, offers, labels
        device.listener, device.pool, device.instance = listener, pool, instance
        device.links += 1
        if self.on_arrived is not None:
            self.on_arrived(device)
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
        if self.on_left is not None:
            self.on_left(device)
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

    def _judge(
        self,
        device: Device[Link],
        peer: str,
        instance: bytes,
        authenticated: bool,
        duplicate: str,
        now: float,
    ) -> tuple[str, bool]:
        """Which stays, "newest", "oldest" or "neither", and whether it is news that there are two holders."""
        if not authenticated and (device.authenticated or duplicate == "oldest"):
            return "oldest", False
        if duplicate == "auto":
            duplicate = "refuse-both" if authenticated else "newest"
        holders = device.holders = device.holders or Holders()
        two = holders.swapped(device.instance, instance, now, self.limits)
        if not two and (now >= holders.until or duplicate == "refuse-both"):  # the bar has passed
            return "newest", False
        news = holders.seen(now, device.peer, peer)
        return ("neither" if duplicate == "refuse-both" else duplicate), news

    @staticmethod
    def _bar(device: Device[Link], now: float) -> None:
        device.barred_until = now + BARRED
        where = device.holders.shown(now) if device.holders is not None else ""
        detail = f"serial {device.serial} has two holders, {where}: both barred for {BARRED:g} s"
        raise TwoHolders(GoAway.DENIED, detail, device.serial)


def _same_run(device: Device[Any], instance: bytes) -> bool:
    return bool(instance) and instance == device.instance
