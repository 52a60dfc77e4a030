"""What the audit file holds, as frozen values: who was let in to what, who was not, and who changed that.

Rule of this file: plain text, whole numbers and lists of texts only. Payload, keys, nonces and tokens never
appear. A session has exactly one opening and one closing record, a refusal has one, or one for many that are
the same.

Source: ours.
"""

from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, ClassVar

__all__ = [
    "AuditClosed",
    "AuditGap",
    "AuditOpened",
    "AuditRecord",
    "AuditRecovered",
    "AuditRefused",
    "RightsChanged",
    "SessionClosed",
    "SessionOpened",
    "time_text",
]


def time_text(moment: float) -> str:
    """Seconds since 1970 as UTC with microseconds: ``2026-11-26T12:00:00.000123Z``."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """The base of every record. Addresses are ``HOST:PORT``; an empty text is not known."""

    event: ClassVar[str] = "audit"
    lasting: ClassVar[bool] = (
        True  # it is on the disk before anything goes on, unless a setting says otherwise
    )

    def values(self) -> dict[str, Any]:
        """The record as it goes into JSON."""
        found: dict[str, Any] = {"event": self.event}
        for each in fields(self):
            value = getattr(self, each.name)
            found[each.name] = list(value) if isinstance(value, tuple) else value
        return found


@dataclass(frozen=True, slots=True)
class SessionOpened(AuditRecord):
    """A session began; the time of its line is when."""

    event: ClassVar[str] = "session-opened"

    session: str  # its id, which is no secret
    user: str
    grant: str  # id of the one that allowed it
    serial: str
    services: tuple[str, ...]
    user_address: str
    device_address: str


@dataclass(frozen=True, slots=True)
class SessionClosed(AuditRecord):
    """A session is over; the time of its line is when."""

    event: ClassVar[str] = "session-closed"

    session: str
    user: str
    grant: str
    serial: str
    services: tuple[str, ...]
    user_address: str
    device_address: str
    opened: str  # as ``time_text`` writes it
    milliseconds: int  # that it lasted, by a clock that nobody sets
    bytes_to_device: int
    bytes_to_client: int
    connections: int
    cause: str  # one word
    by: str = ""  # who ended it, where that was somebody


@dataclass(frozen=True, slots=True)
class AuditRefused(AuditRecord):
    """Somebody may not; with an empty user nobody knows who it was."""

    event: ClassVar[str] = "refused"
    lasting: ClassVar[bool] = False  # a flood of them must not cost a disk access each

    action: str  # login, start, share, ...
    user: str
    grant: str  # the one that is over or not yet in force, where there is one
    serial: str
    services: tuple[str, ...]
    user_address: str
    device_address: str
    cause: str  # one word
    times: int = 1  # how many of the same this record stands for


@dataclass(frozen=True, slots=True)
class RightsChanged(AuditRecord):
    """An operator changed who may what."""

    event: ClassVar[str] = "rights-changed"

    operation: str  # user-added, token-revoked, grant-removed, ...
    subject: str  # ana, ana/3f5e10c27a9b, @night/ben
    by: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class AuditOpened(AuditRecord):
    """The first line of every file, and of every start of the program in a file that is there."""

    event: ClassVar[str] = "audit-opened"
    START: ClassVar[str] = "start"
    ROTATION: ClassVar[str] = "rotation"
    REPLACED: ClassVar[str] = "replaced"  # the file was not any more as it had been left

    cause: str  # one of these
    program: str  # its name and version
    removed: tuple[str, ...] = ()  # files that were taken away because there were too many


@dataclass(frozen=True, slots=True)
class AuditClosed(AuditRecord):
    """An orderly end of the program; a start without one before it: it was killed, or lines are missing."""

    event: ClassVar[str] = "audit-closed"


@dataclass(frozen=True, slots=True)
class AuditRecovered(AuditRecord):
    """The file did not end with a whole record, after a crash, say."""

    event: ClassVar[str] = "audit-recovered"

    how: str  # completed: only the newline was missing; set-aside: the bytes are in another file now
    bytes: int
    sha256: str
    kept_as: str  # name of that file


@dataclass(frozen=True, slots=True)
class AuditGap(AuditRecord):
    """Records were not taken by the disk; whoever wanted them written was told."""

    event: ClassVar[str] = "audit-gap"

    lost: int
    since: str  # as ``time_text`` writes it
    problem: str
