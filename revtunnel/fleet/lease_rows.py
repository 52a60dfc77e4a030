"""What of a promise crosses a restart: a row, and the way from monotonic seconds to a row and back.

Rule of this file: no clock reading crosses a restart, only how much time was left. The ledger may keep it as
wall time; whatever the wall clock did meanwhile, nothing read back lasts longer than the rules of its pool.
A row whose time is over is still worth keeping: it says when its port was given back, so the port that was
lost last stays the last one to be given again.

Source: ours.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from revtunnel.fleet.pools import Lease, Pool, PortState

__all__ = ["LeaseRow", "Ledger", "VolatileLedger", "revive", "row_of"]


class LeaseRow(NamedTuple):
    """One port as the ledger keeps it; the port is the key."""

    port: int
    pool: str
    serial: str
    target: str
    state: PortState  # never UNCLAIMED
    wanted: bool
    left: float | None  # seconds until the state lapses, negative when it did; None is never


class Ledger(Protocol):
    """Where rows are kept. ``save`` does not raise for a full or broken disk: it keeps what it was told."""

    def load(self) -> Iterable[LeaseRow]:
        """Every row, ``left`` counted from this moment."""

    def save(self, rows: Sequence[LeaseRow], gone: Sequence[int]) -> None:
        """Keep these rows instead of what was known of their ports, drop the ports ``gone``; all or none."""


class VolatileLedger:
    """A ledger for allocators whose promises end with the process."""

    def load(self) -> Iterable[LeaseRow]:
        """Nothing."""
        return ()

    def save(self, rows: Sequence[LeaseRow], gone: Sequence[int]) -> None:
        """Nothing."""


def row_of(lease: Lease, now: float) -> LeaseRow:
    """The lease as the ledger keeps it."""
    left = None if lease.until is None else lease.until - now
    return LeaseRow(lease.port, lease.pool, lease.serial, lease.target, lease.state, lease.wanted, left)


def revive(row: LeaseRow, pool: Pool, spoiled_for: float, now: float) -> Lease:
    """The lease that a row read back stands for. Every device is away after a restart, so RESERVED is STICKY.

    ``fixed`` is for the caller to set: the settings may have changed.
    """
    lease = Lease(
        port=row.port,
        pool=pool.name,
        address=pool.address,
        serial=row.serial,
        target=row.target,
        state=row.state,
        fixed=False,
        wanted=row.wanted,
        since=now,
        until=None,
    )
    most = {PortState.QUARANTINED: pool.quarantine, PortState.SPOILED: spoiled_for}.get(row.state, pool.grace)
    until = now + (most if row.left is None else min(row.left, most))
    if row.state is PortState.STICKY:
        return replace(lease, since=min(now, until - pool.sticky), until=until)
    if row.state is PortState.RESERVED:
        return replace(lease, state=PortState.STICKY, until=until)
    return replace(lease, until=until)
