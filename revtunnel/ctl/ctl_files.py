"""What revtunnelctl does with files of its own: where the socket is, settings to check.

Rule of this file: no server is needed for anything here. Source: twisted.md section 7; faults.md C5; ours.
"""

import json
import os
from typing import TYPE_CHECKING

from revtunnel.ground.errors import SettingsError

if TYPE_CHECKING:
    from revtunnel.settings.inifile import Surroundings

__all__ = ["Wrong", "check_config", "find_socket"]

CONFIG = 78  # exit status: wrong settings


class Wrong(Exception):
    """A file cannot be used; the text says which and why."""


def find_socket(named: str | None, config: str | None, around: "Surroundings | None" = None) -> str:
    """The socket that was named, else the one of the settings file, else the first usual one that exists.

    Raises:
        SettingsError: the file that was named cannot be read, or its socket is wrong.
    """
    if named:
        return os.path.abspath(named)
    from dataclasses import replace

    from revtunnel.settings.admin_people import ADMIN
    from revtunnel.settings.inifile import Surroundings, read_files
    from revtunnel.settings.sections import Sections

    around = around or Surroundings.here()
    table = read_files(config, None, around, Sections(ADMIN))  # the other sections would take a while
    name = ("admin", "socket")
    if config and not (table.sound(*name) and os.access(config, os.R_OK)):
        from revtunnel.daemons.schema import SECTIONS

        raise SettingsError(read_files(config, None, around, SECTIONS).errors)
    if table.sound(*name) and table.get(*name) != "auto":
        return str(table.get(*name))
    system, own = replace(around, root=True, environ={}), replace(around, root=False)
    usual: list[str] = [each.admin_socket() for each in (around, system, own)]
    return next((path for path in usual if _may_be_there(path)), usual[0])


def _may_be_there(path: str) -> bool:
    try:
        os.stat(path)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _print(value: dict[str, object]) -> None:
    print(json.dumps(value))


def check_config(path: str | None, in_json: bool) -> int:
    """As ``revtunnel-server --check-config``: the exit status."""
    from revtunnel.daemons.server_options import ServerOptions
    from revtunnel.daemons.server_reading import load_server

    if not in_json:
        try:
            ServerOptions().parseOptions(["--check-config", *(["--config", path] if path else [])])
        except SystemExit as end:
            return int(end.code or 0)
        return 0
    try:
        load_server(path)
    except SettingsError as error:
        _print({"ok": False, "errors": error.errors})
        return CONFIG
    _print({"ok": True, "errors": []})
    return 0
