"""revtunnelctl ca: the authority's own files, made and listed by whoever owns them; no server is needed.

Rule of this file: a running server is not asked and not told. It finds a new authority on its next reload.

Source: docs/admin.rst "Enrolment".
"""

import os
from argparse import Namespace
from collections.abc import Callable
from datetime import UTC, datetime

from revtunnel.ctl.ctl_files import Wrong
from revtunnel.ctl.ctl_output import remark, say
from revtunnel.ctl.tables import clean, table
from revtunnel.daemons.own_authority import authority_of
from revtunnel.settings.inifile import Surroundings
from revtunnel.trust.authority import Unfit, fingerprint_of
from revtunnel.trust.authority_files import AuthorityDirectory
from revtunnel.trust.authority_settings import AuthoritySettings

__all__ = ["run"]


def run(options: Namespace, around: Surroundings) -> int:
    """Carry a subcommand out.

    Raises:
        Wrong: it cannot be done; the text says why.
        SettingsError: the settings are wrong.
    """
    settings = authority_of(options.config, around)
    path = options.dir or settings.directory
    if path is None:
        raise Wrong("the settings have no directory for an authority: --dir DIR wanted")
    directory = AuthorityDirectory(os.path.abspath(path))
    try:
        return _RUN[options.command](directory, settings, options)
    except Unfit as error:
        raise Wrong(str(error)) from None
    except OSError as error:
        raise Wrong(f"{error.filename or directory.path}: {error.strerror}") from None


def _init(directory: AuthorityDirectory, settings: AuthoritySettings, options: Namespace) -> int:
    if not 1 <= len(options.name) <= 64 or not options.name.isprintable():
        raise Wrong(f"--name {options.name[:80]!a}: 1 to 64 printable characters wanted")
    made = directory.create(options.name, options.days or settings.authority_days, datetime.now(UTC))
    row = {
        "directory": directory.path,
        "certificate": directory.file("authority.pem"),
        "fingerprint": fingerprint_of(made.certificate),
        "until": _day(made.certificate.not_valid_after_utc.timestamp()),
    }
    status = say(options, row, *(f"{name + ':':<13}{clean(str(value))}" for name, value in row.items()))
    if not options.json:
        remark("whoever has authority.key can make devices: keep a copy where nobody else comes")
        remark("next: revtunnelctl ca issue-server NAME")
    return status


def _issue_server(directory: AuthorityDirectory, settings: AuthoritySettings, options: Namespace) -> int:
    if not directory.is_set_up:
        raise Unfit(f"{directory.path}: there is no authority; make one with revtunnelctl ca init")
    out = os.path.abspath(options.out) if options.out else None
    days = options.days or settings.server_days
    paths = directory.issue_server(options.names, days, datetime.now(UTC), out)
    files = dict(zip(("certificate", "certificate_key", "authority"), paths, strict=True))
    lines = [f"{name} = {clean(value)}" for name, value in files.items()]
    status = say(options, {"names": options.names, **files}, *lines)
    if not options.json:
        remark("put these lines into [listener main], with tls = yes, and reload the server")
    return status


def _list(directory: AuthorityDirectory, settings: AuthoritySettings, options: Namespace) -> int:
    if not directory.is_set_up:
        raise Unfit(f"{directory.path}: there is no authority")
    now = datetime.now(UTC).timestamp()
    rows = [
        {
            "kind": row.kind,
            "name": row.name,
            "state": "revoked" if row.revoked is not None else "expired" if row.until <= now else "good",
            "issued": _day(row.issued),
            "until": _day(row.until),
            "number": row.number,
            "fingerprint": row.fingerprint,
        }
        for row in directory.rows()
    ]
    heads = ("kind", "name", "state", "issued", "until", "fingerprint")
    cells = [[str(row[head])[: 16 if head == "fingerprint" else 40] for head in heads] for row in rows]
    return say(options, {"certificates": rows}, *table([head.upper() for head in heads], cells))


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


_RUN: dict[str, Callable[[AuthorityDirectory, AuthoritySettings, Namespace], int]] = {
    "ca init": _init,
    "ca issue-server": _issue_server,
    "ca list": _list,
}
