"""The settings of CCCP out of a table: what they mean together, the token of callers.

Rule of this file: who may register and who may call from other machines has to be said by name.

Source: wire/cccp.md section 2; faults.md "Bind defaults"; ours.
"""

import hashlib
import os

from revtunnel.ground.networks import is_loopback
from revtunnel.process.wake_settings import ONE_WANTED
from revtunnel.settings.admin_people import read_admin
from revtunnel.settings.inifile import Surroundings, Table
from revtunnel.sockets.tls.certificates import private_file_fault
from revtunnel.systems.cccp.cccp_settings import CccpPart, CccpSettings, ProjectSettings
from revtunnel.trust.tls_settings_checks import check_listener_tls, check_plaintext

__all__ = ["cccp_part", "read_cccp"]

TOKEN = "revtunnel-cccp.token"  # in $CREDENTIALS_DIRECTORY
LEAST_TOKEN = 16  # characters


def read_cccp(table: Table, around: Surroundings) -> CccpSettings:
    """The settings of revtunnel-cccp."""
    socket = around.socket(table.get("cccp", "admin_socket"), "cccp")
    return table.part(
        CccpSettings,
        state_directory=around.kept_in(table.get("cccp", "state_directory")),
        admin_socket=socket,
        part=cccp_part(table, around),
        admin=read_admin(table, socket),
        files=tuple(table.files),
    )


def cccp_part(table: Table, around: Surroundings) -> CccpPart:
    """What both daemons take from the table; what is wrong with it is noted there."""
    part = table.part(
        CccpPart,
        enabled=True,
        token=_token(table, around),
        projects=table.parts(ProjectSettings, "main"),
    )
    _check_door(table, part)
    for project in part.projects:
        label = f"cccp-project {project.name}"
        check_listener_tls(table, label, project)
        _check_width(table, label, project)
    return part


def _token(table: Table, around: Surroundings) -> bytes | None:
    path = table.get("cccp", "token_file")
    if path == "auto":
        path = os.path.join(around.environ.get("CREDENTIALS_DIRECTORY", ""), TOKEN)
        path = path if os.path.isabs(path) and os.path.exists(path) else None
    if path is None:
        return None
    fault = private_file_fault(path)
    text = b""
    if fault is None:
        with open(path, "rb") as file:
            text = file.read(4097).strip()
        if not LEAST_TOKEN <= len(text) <= 4096 or not text.isascii() or len(text.split()) != 1:
            fault = f"one word of {LEAST_TOKEN} to 4096 characters wanted"
    if fault is not None:
        table.complain("cccp", "token_file", f"{path}: {fault}")
    return hashlib.sha256(text).digest()


def _check_door(table: Table, part: CccpPart) -> None:
    wide = [host for host, _ in part.http if not is_loopback(host)]
    if wide and part.token is None and not part.allow_without_token:
        wanted = "token_file = PATH, or, if that is meant, allow_without_token = yes"
        table.complain(
            "cccp", "http", f"{wide[0]} lets other machines call without a token, wanted: {wanted}"
        )
    if part.wake_command and part.wake_url:
        table.complain("cccp", "wake_url", ONE_WANTED)


def _check_width(table: Table, label: str, project: ProjectSettings) -> None:
    """Whom a listener that other machines reach lets in, and whether in plain."""
    wide = [host for host, _ in project.address if not is_loopback(host)]
    if not wide:
        return
    if not project.certified and not project.allow_open:
        wanted = "tls = yes with device_certificates = required, or, if that is meant, allow_open = yes"
        table.complain(label, "address", f"{wide[0]} lets anybody register any serial, wanted: {wanted}")
    check_plaintext(table, label, wide[0], project)
