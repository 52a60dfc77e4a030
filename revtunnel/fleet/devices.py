"""Which device is here, through which link, and what a second link of the same serial does.

A device that proves its identity replaces its old link at once: the old one is most often half-open. One that
cannot follows its listener's rule. A proved serial whose links replace each other again and again has two
holders of one key: both stay out for a while (``TwoHolders``).

Source: wire/link-extension.md "Liveness"; faults.md R8 to R10.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from revtunnel.ground.policy import ServerLimits
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.targets import Offer
from revtunnel.link.handshake import Denied

__all__ = ["Device", "Registry", "TwoHolders"]

Link = TypeVar("Link")
BARRED = 300.0  # seconds
ABSENT_KEPT = 10_000  # absent devices that are remembered


class TwoHolders(Denied):
    """This arrival bars its serial: besides the link that is refused, the one that is up has to be closed."""


@dataclass(slots=True)
class Device(Generic[Link]):
    """What is known of one serial. Times are monotonic seconds."""

    serial: str
    link: Link | None = None
    since: float = 0.0  # online or offline since
    authenticated: bool = False
    offers: tuple[Offer, ...] = ()
    links: int = 0
    channels: int = 0
    bytes_to_device: int = 0
    bytes_to_client: int = 0
    swaps: list[float] = field(default_factory=list)
    barred_until: float = 0.0

    @property
    def online(self) -> bool:
        """Whether a link is up."""
        return self.link is not None


class Registry(Generic[Link]):
    """All devices that are here, and the last 10,000 that were."""

    def __init__(self, limits: ServerLimits) -> None:
        self.limits = limits
        self._devices: dict[str, Device[Link]] = {}

    def get(self, serial: str) -> Device[Link] | None:
        """The device of a serial, here or remembered."""
        return self._devices.get(serial)

    def __iter__(self) -> Iterator[Device[Link]]:
        return iter(sorted(self._devices.values(), key=lambda device: device.serial))

    def __len__(self) -> int:
        return sum(device.online for device in self._devices.values())

    def arrive(
        self,
        serial: str,
        link: Link,
        now: float,
        authenticated: bool = False,
        newest: bool = True,
        offers: tuple[Offer, ...] = (),
    ) -> Link | None:
        """A link of this serial is up: the older link to close for it, or None.

        Raises:
            TwoHolders: the serial is barred from now on; the link that is up is still ``get(serial).link``.
            Denied: an older link stays, or the serial is barred already.
        """
        device = self._devices.get(serial)
        if device is None:
            self._make_room()
            device = self._devices[serial] = Device(serial)
        if now < device.barred_until:
            raise Denied(GoAway.DENIED, f"serial {serial} has two holders; barred", serial)
        old = device.link
        if old is not None and authenticated:
            self._count_swap(device, now)
        elif old is not None and (device.authenticated or not newest):
            raise Denied(GoAway.DUPLICATE, f"serial {serial} is here already", serial)
        device.link, device.since = link, now
        device.authenticated, device.offers = authenticated, offers
        device.links += 1
        return old

    def leave(self, serial: str, link: Link, now: float) -> bool:
        """A link is gone; False when a newer one has its place already."""
        device = self._devices.get(serial)
        if device is None or device.link is not link:
            return False
        device.link, device.since = None, now
        return True

    def _count_swap(self, device: Device[Link], now: float) -> None:
        limits = self.limits
        device.swaps = [at for at in device.swaps if now - at < limits.duplicate_window] + [now]
        if len(device.swaps) > limits.duplicate_swaps:
            device.barred_until = now + BARRED
            device.swaps = []
            detail = f"serial {device.serial} has two holders: both barred for {BARRED:g} s"
            raise TwoHolders(GoAway.DENIED, detail, device.serial)

    def _make_room(self) -> None:
        """Forget the device that is absent for longest when too many are remembered."""
        if len(self._devices) < ABSENT_KEPT:
            return
        absent = [device for device in self._devices.values() if not device.online]
        if len(absent) >= ABSENT_KEPT:
            del self._devices[min(absent, key=lambda device: device.since).serial]
