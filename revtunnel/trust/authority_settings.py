"""The settings of the server's own authority.

Rule of this file: whether there is an authority is said by the files in its directory, not by a setting.

Source: docs/admin.rst; ours.
"""

import os
from dataclasses import dataclass, field

from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import PLACE, count, seconds, word
from revtunnel.ground.limits import EnrolmentLimits
from revtunnel.settings.inifile import Table

__all__ = ["AuthoritySettings", "authority_settings"]


# fmt: off
@dataclass(frozen=True, slots=True)
class AuthoritySettings:
    """Where it is, how long certificates live, what enrolment may cost; no directory: there is none."""

    directory: str | None = setting(PLACE, "auto", "where the authority is, once revtunnelctl ca init has "
        "made one; auto: authority in state_directory", live=True)
    authority_days: int = setting(count("days", 1, 36500), "7300", "life of the authority itself")
    server_days: int = setting(count("days", 1, 3650), "825", "life of a server's certificate")
    device_days: int = setting(count("days", 1, 3650), "90", "life of a device's certificate; its agent "
        "renews it", live=True)
    renewal_grace: float = setting(seconds(0, 365 * 86400), "90 d", "time behind the end of a device's "
        "certificate in which it may still be renewed, for the same key, and for nothing else", live=True)
    two_renewals: str = setting(word("tell", "revoke"), "tell", "when one certificate is renewed for two "
        "keys, so that two must hold it: certificate-forked is told; or that, and the device is revoked",
        live=True)
    limits: EnrolmentLimits = field(default_factory=EnrolmentLimits)
# fmt: on


def authority_settings(table: Table, state_directory: str | None) -> AuthoritySettings:
    """What [authority] says, beside what is kept in ``state_directory``."""
    directory = table.get("authority", "directory")
    if directory == "auto":
        directory = None if state_directory is None else os.path.join(state_directory, "authority")
    return table.part(AuthoritySettings, directory=directory)
