"""revtunnelctl audit verify: whether an audit file is as it was written; no server is needed.

Rule of this file: what is found is judged by audit_chain.py.

Source: docs/people.rst.
"""

import os
import re
from argparse import Namespace

from revtunnel.ctl.ctl_files import Wrong
from revtunnel.ctl.ctl_output import say
from revtunnel.ctl.tables import clean
from revtunnel.daemons.schema import SECTIONS
from revtunnel.process.admin.refusals import Invalid
from revtunnel.settings.inifile import SettingsError, Surroundings, read_files
from revtunnel.state.audit_chain import Head, files_of, verify
from revtunnel.trust.audit_settings import audit_settings

__all__ = ["verify_audit"]

_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})", re.ASCII)


def verify_audit(options: Namespace, around: Surroundings | None = None) -> int:
    """Print how many records are good, or the first line that is not: the exit status 0 or 1.

    Raises:
        Wrong: there is nothing to be verified, or it cannot be read.
        Invalid: ``--head`` is none.
        SettingsError: the settings file that was named cannot be read.
    """
    head = _head(options.head)
    path = options.file or _usual(options.config, around or Surroundings.here())
    if not os.path.exists(path) and options.file:
        raise Wrong(f"{path}: there is no such file")
    try:
        found = verify(files_of(path), head)
    except OSError as error:
        raise Wrong(f"{error.filename or path}: {error.strerror}") from None
    row = {
        "ok": found.ok,
        "fault": found.fault,
        "records": found.lines,
        "first": found.first,
        "seq": found.head.seq,
        "hash": found.head.hash,
        "closed": found.closed,
    }
    say(options, row, clean(found))
    return 0 if found.ok else 1


def _head(text: str | None) -> Head | None:
    if text is None:
        return None
    match = _HEAD.fullmatch(text)
    if match is None:
        raise Invalid(f"--head {text[:80]!a}: SEQ:HASH wanted, as revtunnelctl audit head prints it")
    return Head(int(match[1]), match[2])


def _usual(config: str | None, around: Surroundings) -> str:
    found = read_files(config, None, around, SECTIONS)
    if config and not os.access(config, os.R_OK):
        raise SettingsError(found.errors)
    settings = audit_settings(found, around.kept_in(found.get("server", "state_directory")))
    if settings.file is None:
        raise Wrong("the settings have no audit file: FILE wanted")
    return settings.file
