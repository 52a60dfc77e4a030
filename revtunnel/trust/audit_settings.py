"""The settings of the audit file: section [audit].

Source: docs/people.rst; ours.
"""

import os
from dataclasses import dataclass, field

from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import PLACE, word
from revtunnel.ground.limits import AuditLimits
from revtunnel.settings.inifile import Table
from revtunnel.state.audit_file import FILE_NAME

__all__ = ["AuditSettings", "audit_settings"]


# fmt: off
@dataclass(frozen=True, slots=True)
class AuditSettings:
    """Where it is, how much is kept, and what a full disk means; no file: there is none."""

    file: str | None = setting(PLACE, "auto", "who was let in to what; auto: audit.jsonl in state_directory; "
        "none: there is none")
    sync: str = setting(word("lasting", "each", "never"), "lasting", "what is on the disk before anything "
        "goes on: lasting: all but refusals; each: every record; never: nothing, a power cut may take the "
        "last ones", live=True)
    full: str = setting(word("refuse", "go-on"), "refuse", "when the file takes no records, because the disk "
        "is full, say: refuse: no remote session begins; go-on: they begin unrecorded", live=True)
    limits: AuditLimits = field(default_factory=AuditLimits)
# fmt: on


def audit_settings(table: Table, state_directory: str | None) -> AuditSettings:
    """What [audit] says, beside what is kept in ``state_directory``."""
    file = table.get("audit", "file")
    if file == "auto":
        file = None if state_directory is None else os.path.join(state_directory, FILE_NAME)
    return table.part(AuditSettings, file=file)
