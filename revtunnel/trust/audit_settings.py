"""The settings of the audit file: section [audit].

Rule of this file: no default; schema.py has those.

Source: docs/people.rst; ours.
"""

import os
from dataclasses import dataclass

from revtunnel.ground.policy import AuditLimits
from revtunnel.settings.inifile import Table
from revtunnel.state.audit_file import FILE_NAME

__all__ = ["AuditSettings", "audit_settings"]


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """Where it is, how much is kept, and what a full disk means."""

    file: str | None  # None: there is none
    limits: AuditLimits
    sync: str  # each, lasting, never
    full: str  # refuse, go-on


def audit_settings(table: Table, state_directory: str | None) -> AuditSettings:
    """What [audit] says, beside what is kept in ``state_directory``."""
    file = table.get("audit", "file")
    beside = os.path.join(state_directory, FILE_NAME) if state_directory is not None else None
    return AuditSettings(
        {"auto": beside, "none": None}.get(file, file),
        AuditLimits(table.get("audit", "size"), table.get("audit", "files")),
        table.get("audit", "sync"),
        table.get("audit", "full"),
    )
