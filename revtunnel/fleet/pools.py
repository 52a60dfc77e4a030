"""The words of the port allocator as values: pools, uses, leases and how a port stands.

Rule of this file: values only, and what makes them valid together. One port number is in at most one pool,
even if two pools bind at different addresses: a number names one promise everywhere.

Source: wire/cccp.md section 2 "port reuse", faults.md N3, C5 and H9; ours for the rest.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.serials import parse_serial

__all__ = ["MAX_PORT", "Lease", "Pool", "PortState", "Use", "conflicts", "parse_use"]

MAX_PORT = 65535


class PortState(Enum):
    """How a port stands. The value is the word on every surface and in the ledger."""

    RESERVED = "reserved"  # promised to its use; the device is there, or was never seen to leave
    STICKY = "sticky"  # promised still, though the device has left
    QUARANTINED = "quarantined"  # given back; nobody else gets it yet
    SPOILED = "spoiled"  # another program on this machine had it
    UNCLAIMED = "unclaimed"  # reserved by name in the settings, not opened; only in listings


class Use(NamedTuple):
    """What a port is promised to: one target of one device."""

    serial: str
    target: str

    def __str__(self) -> str:
        return f"{self.serial}/{self.target}"


@dataclass(frozen=True, slots=True)
class Lease:
    """The promise of one port to one use: a snapshot, replaced at each change; also how a port ended."""

    port: int
    pool: str
    address: str  # where the caller binds; carried, never read here
    serial: str
    target: str
    state: PortState
    fixed: bool  # the settings reserve this port for this use
    wanted: bool  # the caller asked for this port by number, so spoil does not move it
    since: float  # monotonic seconds at which the state began
    until: float | None  # monotonic seconds at which it lapses; None is never

    @property
    def use(self) -> Use:
        """Serial and target name."""
        return Use(self.serial, self.target)

    @property
    def sticky(self) -> bool:
        """Whether the device has left and the promise stands for its return."""
        return self.state is PortState.STICKY


@dataclass(frozen=True, slots=True)
class Pool:
    """Ranges of ports under one name, bound at one address, with one rule for giving them again."""

    name: str
    ranges: tuple[
        tuple[int, int], ...
    ]  # first and last port of each; without any, only fixed ports are given
    address: str = "127.0.0.1"
    quarantine: float = 60.0  # seconds a port given back is kept from everybody else
    sticky: float = 30 * 86400.0  # seconds a device that left keeps its ports; 0: given back at once
    unoffered: float = 3600.0  # seconds a device that is here keeps the port of what it offers no more
    quarantine_least: float | None = None  # seconds after which a port is given if no other is left
    elsewhere: Mapping[int, str] = field(default_factory=dict, hash=False)  # addresses of fixed ports

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and any(first <= port <= last for first, last in self.ranges)

    def __iter__(self) -> Iterator[int]:
        for first, last in self.ranges:
            yield from range(first, last + 1)

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    @property
    def grace(self) -> float:
        """Seconds a device has to come back after a restart of the server: ``sticky``, or the quarantine."""
        return max(self.sticky, self.quarantine)


def parse_use(text: str) -> Use:
    """Read ``SERIAL/TARGET``, as reservations name it.

    Raises:
        ValueError: the serial is none, or the target name is empty, too long or not plain ASCII.
    """
    serial, _, target = text.partition("/")
    if not 1 <= len(target) <= 64 or not all("!" <= character <= "~" for character in target):
        raise ValueError(f"{text[:120]!a}: SERIAL/TARGET wanted")
    try:
        return Use(parse_serial(serial), target)
    except RemoteError as error:
        raise ValueError(str(error)) from None


def conflicts(pools: Sequence[Pool], reservations: Mapping[Use, int]) -> list[str]:
    """Every reason why these pools and reservations cannot stand together; empty when they can."""
    return [*_bad_ranges(pools), *_bad_names(pools), *_bad_reservations(reservations)]


def _bad_ranges(pools: Sequence[Pool]) -> Iterator[str]:
    before: list[tuple[str, int, int]] = []
    for pool in pools:
        for first, last in pool.ranges:
            if not 1 <= first <= last <= MAX_PORT:
                yield f"pool {pool.name}: {first}-{last}: ports of 1 to {MAX_PORT}, smaller one first, wanted"
            for name, low, high in before:
                if first <= high and low <= last:
                    yield f"{first}-{last} of pool {pool.name} overlaps {low}-{high} of pool {name}"
            before.append((pool.name, first, last))


def _bad_names(pools: Sequence[Pool]) -> Iterator[str]:
    names = [pool.name for pool in pools]
    for name in sorted(set(names)):
        if names.count(name) > 1:
            yield f"{names.count(name)} pools are named {name}"


def _bad_reservations(reservations: Mapping[Use, int]) -> Iterator[str]:
    owners: dict[int, Use] = {}
    for use, port in reservations.items():
        if not 1 <= port <= MAX_PORT:
            yield f"port {port} is reserved for {use}: 1 to {MAX_PORT} wanted"
        if port in owners:
            yield f"port {port} is reserved for {owners[port]} and for {use}"
        owners[port] = use
