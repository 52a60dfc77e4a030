"""Who has no client port, why, and when it is tried again.

Rule of this file: what is refused is told once and tried again until it is there or not wanted any more: on
a timer, later each time, as ``Retries`` do it for what is few; and, where only a port was missing, as soon as
its pool has one. Whoever was refused first comes first.

Source: ours.
"""

import random
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from revtunnel.ground.deadlines import Deadlines
from revtunnel.ground.retries import earlier, longer

__all__ = ["RefusedPorts"]

AT_ONCE = 64  # tries in one step


@dataclass(slots=True)
class _Refused:
    detail: str
    wait: float


class RefusedPorts:
    """Targets without a port, of devices that are here, or away where their ports stay open without them.

    A device's share of leases bounds them.
    """

    def __init__(self, random_share: Callable[[], float] = random.random) -> None:
        self._random = random_share
        self._refused: dict[str, dict[str, _Refused]] = {}  # by serial and target
        self._due: Deadlines[tuple[str, str]] = Deadlines()
        self._queues: dict[str, OrderedDict[tuple[str, str], None]] = {}  # by pool: only a port is missing

    def add(self, serial: str, target: str, detail: str, now: float, pool: str | None) -> bool:
        """It was refused, for want of a port of ``pool`` if one is named; False: again."""
        targets = self._refused.setdefault(serial, {})
        before = targets.get(target)
        wait = longer(0.0 if before is None else before.wait)
        targets[target] = _Refused(detail, wait)
        self._due.set((serial, target), now + earlier(wait, self._random()))
        if pool is None:
            self._leave_queues(serial, target)
        else:
            self._queues.setdefault(pool, OrderedDict())[serial, target] = None
        return before is None

    def drop(self, serial: str, target: str) -> None:
        """It has a port, or wants none."""
        targets = self._refused.get(serial, {})
        if targets.pop(target, None) is None:
            return
        if not targets:
            del self._refused[serial]
        self._due.set((serial, target), None)
        self._leave_queues(serial, target)

    def keep(self, serial: str, targets: set[str]) -> None:
        """Drop all of a device but these."""
        for target in list(self._refused.get(serial, {})):
            if target not in targets:
                self.drop(serial, target)

    def of(self, serial: str) -> dict[str, str]:
        """Why a device's targets have no port, by target."""
        return {target: each.detail for target, each in self._refused.get(serial, {}).items()}

    def due(self, now: float, free: Callable[[str], int]) -> list[tuple[str, str]]:
        """Whose time it is; ``free`` says how many ports a pool has to give now."""
        found: dict[tuple[str, str], None] = {}
        for pool, queue in self._queues.items():
            found.update(dict.fromkeys(islice(queue, min(free(pool), AT_ONCE))))
        found.update(dict.fromkeys(islice(self._due.due(now), max(0, AT_ONCE - len(found)))))
        return list(found)

    def _leave_queues(self, serial: str, target: str) -> None:
        for pool, queue in list(self._queues.items()):
            queue.pop((serial, target), None)
            if not queue:
                del self._queues[pool]
