"""The settings of the server's own authority.

Rule of this file: whether there is an authority is said by the files in its directory, not by a setting.

Source: docs/admin.rst; ours.
"""

import os
from dataclasses import dataclass, fields

from revtunnel.ground.policy import EnrolmentLimits
from revtunnel.settings.inifile import Table

__all__ = ["AuthoritySettings", "authority_settings"]


@dataclass(frozen=True, slots=True)
class AuthoritySettings:
    """Where it is, how long certificates live, what enrolment may cost."""

    directory: str | None  # it need not exist; None: there is none
    authority_days: int
    server_days: int
    device_days: int
    limits: EnrolmentLimits


def authority_settings(table: Table, state_directory: str | None) -> AuthoritySettings:
    """What [authority] says, beside what is kept in ``state_directory``."""
    directory = table.get("authority", "directory")
    beside = os.path.join(state_directory, "authority") if state_directory is not None else None
    limits = {field.name: table.get("authority", field.name) for field in fields(EnrolmentLimits)}
    return AuthoritySettings(
        {"auto": beside, "none": None}.get(directory, directory),
        table.get("authority", "authority_days"),
        table.get("authority", "server_days"),
        table.get("authority", "device_days"),
        EnrolmentLimits(**limits),
    )
