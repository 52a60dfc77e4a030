"""The last hour as numbers, for the charts of the page: one sample in ten seconds, in memory.

Rule of this file: a device is sampled while somebody looks at it, and ``LOOKS`` seconds longer; so many at
once, and the one that nobody looked at for longest makes room. What was not sampled is null.

Source: issue 13 "How"; ours.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from revtunnel.process.admin.operation_form import Row
from revtunnel.process.admin.refusals import NotFound

__all__ = ["Series"]

STEP = 10.0  # seconds
KEPT = 360
LOOKS = 600.0
DEVICES = 64
Sample = Mapping[str, float | None]


@dataclass(slots=True)
class _Ring:
    looked: float
    samples: "deque[Sample]" = field(default_factory=lambda: deque(maxlen=KEPT))


class Series:
    """Of one server. ``sample``: of the whole, now; ``of_device``: of one device, None: it is not known."""

    def __init__(
        self,
        clock: Any,
        at: Callable[[float], str],
        sample: Callable[[], Sample],
        of_device: Callable[[str], Sample | None],
    ) -> None:
        """``at``: a monotonic time for people."""
        self._clock = clock
        self._at = at
        self._sample = sample
        self._of_device = of_device
        self._whole = _Ring(0.0)
        self._devices: OrderedDict[str, _Ring] = OrderedDict()
        self._last = 0.0
        self._next: IDelayedCall | None = None

    def start(self) -> None:
        """Sample now, and every ten seconds."""
        self._next = self._clock.callLater(STEP, self.start)
        self._last = now = self._clock.seconds()
        self._whole.samples.append(self._sample())
        for serial, ring in [*self._devices.items()]:
            found = self._of_device(serial)
            if now - ring.looked > LOOKS:
                del self._devices[serial]
            else:
                ring.samples.append(found or {})

    def stop(self) -> None:
        """No more."""
        if self._next is not None and self._next.active():
            self._next.cancel()

    def series(self, serial: str | None = None) -> Row:
        """The samples of the server, or of a device from now on.

        Raises:
            NotFound: there is no such device.
        """
        ring = self._whole if serial is None else self._look(serial)
        names = dict.fromkeys(name for sample in ring.samples for name in sample)
        values = {name: [sample.get(name) for sample in ring.samples] for name in names}
        return {"step": STEP, "until": self._at(self._last), "series": values}

    def _look(self, serial: str) -> _Ring:
        ring = self._devices.get(serial)
        if ring is None:
            found = self._of_device(serial)
            if found is None:
                raise NotFound(f"there is no device {serial[:80]!a}")
            ring = self._devices[serial] = _Ring(0.0)
            ring.samples.append(found)
        ring.looked = self._clock.seconds()
        self._devices.move_to_end(serial)
        while len(self._devices) > DEVICES:
            self._devices.popitem(last=False)
        return ring
