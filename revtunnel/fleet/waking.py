"""Which absent devices are woken, and when: such a one dials out only when it is told to.

The rules: one is woken as soon as it is wanted, and again and again until it is here, at times that double;
a client that waits for it shortens none of them below the first. One wake at a time for each device, and so
many in all; the others wait in line. What ``wake`` runs has its own end in time, and says itself how it went.

Source: issue "CCCP" (Offline intent); wire/readyagent.md sections 2 and 4; ours.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from revtunnel.ground.limits import ServerLimits

__all__ = ["Waking"]


class _Device:
    """One that was wanted once."""

    __slots__ = ("last", "running", "timer", "tries")

    def __init__(self) -> None:
        self.tries = 0  # since it was here
        self.last = float("-inf")  # when a wake ended last
        self.timer: IDelayedCall | None = None  # to the next one
        self.running = False

    def stop(self) -> None:
        """There is no next one."""
        if self.timer is not None and self.timer.active():
            self.timer.cancel()
        self.timer = None


class Waking:
    """The wakes of one server.

    Args:
        wake: run for a serial; fires at its end, however it ended. None: nothing is set for it.
        is_here: whether a device is connected.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wake: "Callable[[str], Deferred[Any] | None]",
        is_here: Callable[[str], bool],
        limits: Callable[[], ServerLimits],
    ) -> None:
        self._clock = clock
        self._wake = wake
        self._is_here = is_here
        self._limits = limits
        self._devices: dict[str, _Device] = {}
        self._line: OrderedDict[str, None] = OrderedDict()
        self._running = 0
        self._serving = False
        self._stopped = False

    def want(self, serial: str) -> None:
        """It is away and is to come: wake it now, or as soon as that may be again."""
        if self._stopped or self._is_here(serial):
            return
        device = self._devices.setdefault(serial, _Device())
        if device.running or serial in self._line:
            return
        wait = max(0.0, device.last + self._limits().wake_first - self._clock.seconds())
        if device.timer is None or device.timer.getTime() > self._clock.seconds() + wait:
            self._in(serial, device, wait)

    def arrived(self, serial: str) -> None:
        """It is here."""
        device = self._devices.get(serial)
        if device is not None:
            device.stop()
            device.tries = 0
            self._line.pop(serial, None)

    def stop(self) -> None:
        """Wake nobody any more."""
        self._stopped = True
        self._line.clear()
        for device in self._devices.values():
            device.stop()

    def _in(self, serial: str, device: _Device, wait: float) -> None:
        device.stop()
        if wait:
            device.timer = self._clock.callLater(wait, self._due, serial)
        else:
            self._due(serial)

    def _due(self, serial: str) -> None:
        self._devices[serial].timer = None
        self._line[serial] = None
        self._next()

    def _next(self) -> None:
        if self._serving:  # a wake ended at once
            return
        self._serving = True
        while self._line and self._running < self._limits().wakes:
            serial, _ = self._line.popitem(last=False)
            running = self._wake(serial)
            if running is None:
                del self._devices[serial]
                continue
            self._devices[serial].running = True
            self._running += 1
            running.addBoth(self._ended, serial)
        self._serving = False

    def _ended(self, _: Any, serial: str) -> None:
        limits, device = self._limits(), self._devices[serial]
        device.running = False
        device.last = self._clock.seconds()
        self._running -= 1
        if not self._stopped and not self._is_here(serial):
            wait = min(limits.wake_most, limits.wake_first * 2.0 ** min(device.tries, 30))
            device.tries += 1
            self._in(serial, device, wait)
        self._next()
