"""What the owner of sessions tells the audit file: who was let in, who was not, how it ended.

::

    audit.opened("5f..", "ana", "3a..", "plc-7", ("ssh",), "192.0.2.7:4711", "198.51.100.3:5000")  # AuditFull
    audit.closed("5f..", to_device, to_client, connections, "idle")
    audit.refused("start", "ana", "plc-7", ("ssh",), "192.0.2.7:4711", "no-grant")

Rule of this file: an opening is on the disk when ``opened`` returns, and where it cannot be there is no
session (``full = refuse``); nothing else ever raises. Closings of one turn of the reactor wait for the disk
once, and equal refusals of one second are one record. A session has one closing record however often it is
closed, and none if it was never opened. That the file takes nothing is told once, and so is that it does.

Source: ours.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any, NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from revtunnel.ground.facts import AuditProblem, Report
from revtunnel.ground.limits import AuditLimits
from revtunnel.ground.retries import Retries
from revtunnel.state.audit_file import AuditFile, AuditFull, Sync
from revtunnel.state.audit_records import (
    AuditRecord,
    AuditRefused,
    RightsChanged,
    SessionClosed,
    SessionOpened,
    time_text,
)

__all__ = ["AuditFull", "SessionAudit"]

REFUSALS = 1.0  # seconds that a refusal waits for others that are the same
KINDS = 256  # different refusals that may wait


class _Open(NamedTuple):
    record: SessionOpened
    opened: str
    since: float  # monotonic


class SessionAudit:
    """The audit of one server. ``file`` None: there is none, and nothing is refused for that.

    ``refuse``: a session whose opening is not written does not begin. It may be set anew at any time.
    """

    def __init__(
        self,
        clock: IReactorTime,
        file: AuditFile | None,
        report: Report,
        wall: Callable[[], float],
        refuse: bool = True,
    ) -> None:
        self.refuse = refuse
        self.retries: Retries | None = None
        self._clock = clock
        self._file = file
        self._report = report
        self._wall = wall
        self._open: dict[str, _Open] = {}
        self._closings: list[AuditRecord] = []
        self._refusals: dict[AuditRefused, tuple[AuditRefused, int]] = {}  # by kind: the first, and how many
        self._timer: IDelayedCall | None = None
        self._told = ""

    @property
    def problem(self) -> str:
        """Why the file does not take records, or nothing."""
        return "" if self._file is None else self._file.problem or ""

    def take(self, limits: AuditLimits, sync: Sync, refuse: bool) -> None:
        """Other settings from now on."""
        self.refuse = refuse
        if self._file is not None:
            self._file.limits, self._file.sync = limits, sync

    def head(self) -> dict[str, Any]:
        """The newest record by number and hash: kept elsewhere, they prove all before it."""
        self._quietly()
        file = self._file
        return {
            "file": "" if file is None else file.path,
            "seq": 0 if file is None else file.head.seq,
            "hash": "" if file is None else file.head.hash,
            "open": len(self._open),
            "problem": self.problem,
        }

    # -- sessions

    def opened(
        self,
        session: str,
        user: str,
        grant: str,
        serial: str,
        services: Sequence[str],
        user_address: str,
        device_address: str = "",
    ) -> None:
        """A session begins now.

        Raises:
            AuditFull: it must not, for its record cannot be written.
        """
        record = SessionOpened(session, user, grant, serial, tuple(services), user_address, device_address)
        now = _Open(record, time_text(self._wall()), self._clock.seconds())
        try:
            self._write(record)
        except AuditFull:
            if self.refuse:
                raise
        self._open[session] = now

    def closed(
        self, session: str, to_device: int, to_client: int, connections: int, cause: str, by: str = ""
    ) -> None:
        """A session is over: bytes each way, connections that it had, one word why, and who ended it."""
        known = self._open.pop(session, None)
        if known is None:
            return
        opening = {field.name: getattr(known.record, field.name) for field in fields(known.record)}
        self._closings.append(
            SessionClosed(
                **opening,
                opened=known.opened,
                milliseconds=round((self._clock.seconds() - known.since) * 1000),
                bytes_to_device=to_device,
                bytes_to_client=to_client,
                connections=connections,
                cause=cause,
                by=by,
            )
        )
        self._soon(0.0)

    def refused(
        self,
        action: str,
        user: str,
        serial: str,
        services: Sequence[str],
        user_address: str,
        cause: str,
        grant: str = "",
        device_address: str = "",
    ) -> None:
        """Somebody may not: ``action`` is login, start, share, ...; ``user`` is empty where nobody knows.

        Refusals that differ in the user's port only are the same.
        """
        record = AuditRefused(
            action, user, grant, serial, tuple(services), user_address, device_address, cause
        )
        kind = replace(record, user_address=user_address.rpartition(":")[0])
        first, times = self._refusals.get(kind, (record, 0))
        self._refusals[kind] = first, times + 1
        if len(self._refusals) < KINDS:
            self._soon(REFUSALS)
        else:
            self._quietly()

    def changed(self, change: RightsChanged) -> None:
        """An operator changed who may what; that counts whatever the disk says."""
        self._quietly(change)

    def close(self) -> None:
        """Write what waits, and that this is an orderly end."""
        self._quietly()
        if self._file is not None:
            self._file.close()
            self._file = None

    # -- inside

    def _soon(self, delay: float) -> None:
        """Write what waits in so many seconds, or earlier."""
        at = self._clock.seconds() + delay
        if self._timer is not None and self._timer.active():
            if self._timer.getTime() <= at:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(delay, self._quietly)

    def _quietly(self, *records: AuditRecord) -> None:
        with suppress(AuditFull):  # the file tells that they are missing, as soon as it can
            self._write(*records)

    def _write(self, *records: AuditRecord) -> None:
        """Write what waits, then these, at once.

        Raises:
            AuditFull: none of them is written.
        """
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        refusals = [replace(first, times=times) for first, times in self._refusals.values()]
        waiting, self._closings, self._refusals = [*refusals, *self._closings], [], {}
        if self._file is None or not (waiting or records):
            return
        try:
            self._file.append(*waiting, *records)
        finally:
            self._tell()

    def _tell(self) -> None:
        if (self.problem == "") != (self._told == ""):
            self._report(AuditProblem(self.problem))
        self._told = self.problem
        if self.retries is None:
            return
        if self.problem:
            self.retries.failed("audit file", self.problem, self._try_again, quiet=True)
        else:
            self.retries.well("audit file")

    def _try_again(self) -> None:
        """Write what is owed, with nothing new."""
        if self._file is not None:
            with suppress(AuditFull):
                self._file.append()
            self._tell()
