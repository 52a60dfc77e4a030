"""The ports of one pool that are kept for devices which are away, in the order in which they are taken back.

Rule of this file: who keeps the most goes first, and of his ports the one that he left first; among equals
who left first. So a device that left many behind cannot keep one from a device that asks for its first.

Source: ours.
"""

from collections import OrderedDict

from sortedcontainers import SortedList

__all__ = ["AwayPorts"]


class AwayPorts:
    """Ports with whose they are and since when; each step costs the logarithm of their number."""

    def __init__(self) -> None:
        self._ports: dict[int, tuple[str, float]] = {}  # serial, since
        self._recent: OrderedDict[int, None] = OrderedDict()  # not looked at by ``first`` yet, oldest first
        self._ripe: dict[str, OrderedDict[int, None]] = {}  # by serial, oldest first
        self._ranks = SortedList()  # of each serial in _ripe

    def __len__(self) -> int:
        return len(self._ports)

    def add(self, port: int, serial: str, since: float) -> None:
        """A device left at ``since``; one told late may be taken back late."""
        self.drop(port)
        self._ports[port] = serial, since
        self._recent[port] = None

    def drop(self, port: int) -> None:
        """It is not one of them any more, if it was."""
        serial, _ = self._ports.get(port, ("", 0.0))
        if port in self._recent:
            del self._recent[port]
        elif port in self._ports:
            self._ranks.remove(self._rank(serial))
            del self._ripe[serial][port]
            self._keep_rank(serial)
        self._ports.pop(port, None)

    def first(self, since: float) -> int | None:
        """The port to take back, of those whose device left at or before ``since``; None: there is none."""
        while self._recent:
            port = next(iter(self._recent))
            serial, left = self._ports[port]
            if left > since:
                break
            del self._recent[port]
            if serial in self._ripe:
                self._ranks.remove(self._rank(serial))
            self._ripe.setdefault(serial, OrderedDict())[port] = None
            self._keep_rank(serial)
        return next(iter(self._ripe[self._ranks[0][-1]])) if self._ranks else None

    def _rank(self, serial: str) -> tuple[int, float, str]:
        ports = self._ripe[serial]
        return -len(ports), self._ports[next(iter(ports))][1], serial

    def _keep_rank(self, serial: str) -> None:
        if self._ripe[serial]:
            self._ranks.add(self._rank(serial))
        else:
            del self._ripe[serial]
