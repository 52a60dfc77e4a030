"""Ports that machines of EMO asked for in vain, for operators who look for a machine that does not come.

Rule of this file: one row a port, which goes when the port is reserved or registered. ``MOST`` rows at most:
whoever was silent for longest makes way. Not kept over a restart: who still asks is there again soon.

Source: issue "In the place of the originals" (EMO); ours.
"""

import time
from collections.abc import Callable, Collection
from typing import NamedTuple

from revtunnel.process.admin.operation_form import PAGE, Row
from revtunnel.process.admin.paging import page
from revtunnel.trust.issuer import written

__all__ = ["PortsInVain"]

MOST = 256


class _Refused(NamedTuple):
    address: str
    why: str
    times: int
    first: float  # seconds since 1970
    last: float


class PortsInVain:
    """All of one server. ``wall`` gives seconds since 1970."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall
        self._rows: dict[int, _Refused] = {}  # who asked last comes last
        self._reserved: set[int] = set()

    def add(self, port: int, address: str, why: str) -> None:
        """Somebody asked for a port and did not get it."""
        now = self._wall()
        before = self._rows.pop(port, None)
        times, first = (before.times, before.first) if before else (0, now)
        self._rows[port] = _Refused(address, why, times + 1, first, now)
        if len(self._rows) > MOST:
            del self._rows[next(iter(self._rows))]

    def registered(self, port: int) -> None:
        """Somebody asked for it and got it."""
        self._rows.pop(port, None)

    def reserved(self, ports: Collection[int]) -> None:
        """These are reserved from now on, and no others."""
        for port in set(ports) - self._reserved:
            self._rows.pop(port, None)
        self._reserved = set(ports)

    def in_vain(self, after: int = -1, limit: int = PAGE) -> tuple[list[Row], int | None]:
        """All rows by port, so many at most behind ``after``, and where to go on."""
        return page(sorted(port for port in self._rows if port > after), limit, self._row)

    def _row(self, port: int) -> Row:
        row = self._rows[port]
        return {"port": port, **row._asdict(), "first": written(row.first), "last": written(row.last)}
