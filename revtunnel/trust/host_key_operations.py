"""What an operator can see and do about host keys of devices' ssh services (host_keys.py)."""

from revtunnel.process.admin.operation_form import (
    PROBLEM,
    ROWS,
    Argument,
    CallerRole,
    Column,
    Kind,
    Operation,
)
from revtunnel.process.admin.refusals import NotFound

__all__ = ["HOST_KEY_OPERATIONS"]

HOST_KEY_OPERATIONS = (
    Operation(
        "HostKeys", "host_keys.listed", "host keys of ssh services that people said yes to in a terminal", "",
        (), ROWS, key=("serial", "service"), command="hostkeys", route="GET /host-keys",
        columns=(
            Column("serial", Kind.TEXT, "of the device", "SERIAL"),
            Column("service", Kind.TEXT, "its name", "SERVICE"),
            Column("kind", Kind.TEXT, "of the key", "KIND"),
            Column("fingerprint", Kind.TEXT, "as ``ssh-keygen -l`` shows it", "FINGERPRINT"),
            Column("by", Kind.TEXT, "who said yes", "BY"),
            Column("since", Kind.TIME, "when", "SINCE"),
        ),
    ),
    Operation(
        "HostKeyForget", "host_keys.forget", "forget the host key of a device's ssh service",
        "After the device was set up anew, say: the next key is shown and asked about.",
        (Argument("serial", shown="SERIAL/SERVICE"), Argument("service", shown="SERIAL/SERVICE")), (PROBLEM,),
        role=CallerRole.OPERATOR, named=True, errors=(NotFound,), command="hostkey forget",
        route="DELETE /host-keys/{serial}/{service}",
        said=lambda row: (
            {"forgotten": f"{row['serial']}/{row['service']}"},
            f"the host key of {row['serial']}/{row['service']} is forgotten",
        ),
    ),
)  # fmt: skip
