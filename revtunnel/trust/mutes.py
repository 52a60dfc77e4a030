"""Devices that take no remote sessions, because an operator said so; kept in the state file.

Rule of this file: a change counts at once, whatever the disk says; then whoever watches is told. Clients of
ports and proxy sessions are not concerned. When a damaged ledger was moved aside nothing is muted.

Source: ours.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from sortedcontainers import SortedDict

from revtunnel.ground.serials import parse_serial
from revtunnel.process.admin.operation_form import PAGE, Row
from revtunnel.process.admin.paging import page
from revtunnel.process.admin.refusals import Conflict, Invalid, NotFound, valid
from revtunnel.state.audit_records import RightsChanged
from revtunnel.state.ledger import SqliteLedger
from revtunnel.trust.issuer import written

__all__ = ["Muted", "Mutes"]

MOST = 100_000  # devices
MAX_WHY = 128  # characters


class Muted(NamedTuple):
    """One device that is muted."""

    serial: str
    why: str
    by: str
    since: float  # seconds since 1970

    @property
    def text(self) -> str:
        """For listings, where nothing means not muted."""
        return self.why or f"by {self.by}"


class Mutes:
    """All of them. ``watchers`` are called with a serial that has just been muted."""

    def __init__(
        self, ledger: SqliteLedger, wall: Callable[[], float], tell: Callable[[RightsChanged], None]
    ) -> None:
        """``tell`` hears of all that was done, and must not raise.

        Raises:
            LedgerError: the file cannot be read.
        """
        self.watchers: list[Callable[[str], None]] = []
        self._ledger = ledger
        self._wall = wall
        self._tell = tell
        rows = ledger.select("SELECT serial, why, made_by, since FROM muted")
        self._muted = SortedDict((str(values[0]), Muted(*values)) for values in rows)
        ledger.takers["muted"] = self._take

    def __len__(self) -> int:
        return len(self._muted)

    def of(self, serial: str) -> Muted | None:
        """Whether and why a device is muted."""
        found: Muted | None = self._muted.get(serial)
        return found

    def muted(self, after: str = "", limit: int = PAGE) -> tuple[list[Row], str | None]:
        """Devices that are muted, by serial."""
        return page(self._muted.irange(after, inclusive=(False, True)), limit, self._row)

    def _row(self, serial: str) -> Row:
        muted = self._muted[serial]
        return {**muted._asdict(), "since": written(muted.since)}

    def mute(self, serial: str, by: str, why: str = "") -> None:
        """Refuse new sessions to a device, and end those that run; muted again, the words are others.

        Raises:
            Invalid: not a serial, or the words cannot be shown in one line.
            Conflict: too many are muted.
        """
        valid(parse_serial, serial)
        if len(why) > MAX_WHY or not why.isprintable():
            raise Invalid(f"--why of {len(why)} characters: up to {MAX_WHY} wanted, none of them a control")
        if len(self._muted) >= MOST and serial not in self._muted:
            raise Conflict(f"{len(self._muted)} devices are muted, {MOST} at most")
        self._tell(RightsChanged("device-muted", serial, by, why))
        self._take(serial, tuple(Muted(serial, why, by, self._wall())))

    def unmute(self, serial: str, by: str) -> None:
        """Let a device take sessions again.

        Raises:
            NotFound: it is not muted.
        """
        if serial not in self._muted:
            raise NotFound(f"{serial[:80]} is not muted")
        self._take(serial, None)
        self._tell(RightsChanged("device-unmuted", serial, by))

    def _take(self, serial: str, row: tuple[Any, ...] | None) -> None:
        self._muted.pop(serial, None)
        if row is not None:
            self._muted[serial] = Muted(*row)
        self._ledger.change([("muted", serial, row)])
        for watcher in list(self.watchers) if row is not None else ():
            watcher(serial)
