"""Section [admin] for whichever daemon has an admin socket: everybody who is named there exists."""

import grp
import pwd

from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.settings.inifile import Table
from revtunnel.settings.sections import Section

__all__ = ["ADMIN", "read_admin"]

ADMIN = Section(
    "admin",
    "server",
    "Where revtunnelctl comes in, a UNIX socket.",
    ("revtunnel.process.admin.admin_settings:AdminSettings",),
)


def read_admin(table: Table, socket: str) -> AdminSettings:
    """The settings of the admin socket at ``socket``, which is never ``auto``."""
    for key in ("operators", "readers"):
        for person in table.get("admin", key):
            try:
                if person.startswith("@"):
                    grp.getgrnam(person[1:])
                elif not person.isdigit():
                    pwd.getpwnam(person)
            except KeyError:
                table.complain("admin", key, f"{person!a}: no such user or group on this machine")
    return table.part(AdminSettings, socket=socket)
