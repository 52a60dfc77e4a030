"""The server's own authority, made and used where nobody runs: for ``revtunnelctl ca``, and ``--public``.

Rule of this file: an authority that is there is never replaced, and a server's certificate that is good for
these names, for more than a third of its life, stays as it is.

Source: docs/admin.rst "Enrolment"; ours.
"""

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from cryptography import x509

from revtunnel.daemons.schema import SECTIONS
from revtunnel.settings.inifile import Name, SettingsError, Surroundings, read_files
from revtunnel.trust.authority import Unfit, load_certificate, read_names
from revtunnel.trust.authority_files import SERVERS, AuthorityDirectory
from revtunnel.trust.authority_settings import AuthoritySettings, authority_settings

__all__ = ["PUBLIC", "authority_of", "public_settings", "renew_own"]

MAX_PEM = 64 * 1024  # bytes of a certificate's file
PUBLIC = ("0.0.0.0", 2065)
FILES = ("certificate", "certificate_key", "authority")  # of a listener


def authority_of(
    config: str | None, around: Surroundings, overrides: Mapping[Name, Any] | None = None
) -> AuthoritySettings:
    """What the settings say about the authority.

    Raises:
        SettingsError: the file that was named cannot be read, or is wrong there.
    """
    found = read_files(config, overrides, around, SECTIONS)
    if config and not os.access(config, os.R_OK):
        raise SettingsError(found.errors)
    mine = [line for line in found.errors if "[authority]" in line or "state_directory" in line]
    if mine:
        raise SettingsError(mine)
    return authority_settings(found, around.kept_in(found.get("server", "state_directory")))


def public_settings(names: list[str], settings: AuthoritySettings, now: datetime) -> dict[Name, Any]:
    """Settings of a server that agents of other machines dial by these names; its files are made.

    Raises:
        SettingsError: a name is none, or a file cannot be made or used.
    """
    try:
        if settings.directory is None:
            raise Unfit("without a state directory there is no authority")
        read_names(names)
        directory = AuthorityDirectory(settings.directory)
        if not directory.is_set_up:
            directory.create("revtunnel", settings.authority_days, now)
        paths = directory.server_files(names)
        if not _is_good(paths[0], names, now):
            paths = directory.issue_server(names, settings.server_days, now)
    except Unfit as error:
        raise SettingsError([f"--public: {error}"]) from None
    except OSError as error:
        raise SettingsError([f"--public: {error.filename or settings.directory}: {error.strerror}"]) from None
    listener: dict[str, Any] = {"address": (PUBLIC,), "tls": True, **dict(zip(FILES, paths, strict=True))}
    return {("listener main", key): value for key, value in listener.items()}


def renew_own(settings: AuthoritySettings, paths: Iterable[str | None], now: datetime) -> list[str]:
    """Make those certificates anew that are near their end, and lie where this authority puts them.

    Raises:
        SettingsError: one cannot be made.
    """
    directory = AuthorityDirectory(str(settings.directory))
    own = {path for path in paths if path is not None and os.path.dirname(path) == directory.file(SERVERS)}
    made = []
    for path in sorted(own):
        try:
            names = [str(name) for name in _read(path)[1]]
            if directory.server_files(names)[0] == path and not _is_good(path, names, now):
                made += directory.issue_server(names, settings.server_days, now)[:1]
        except Unfit as error:
            raise SettingsError([f"{path}: {error}"]) from None
        except OSError as error:
            raise SettingsError([f"{error.filename or path}: {error.strerror}"]) from None
    return made


def _read(path: str) -> tuple[x509.Certificate, list[Any]]:
    """A certificate, and the names in it. OSError, Unfit: it is none of a server."""
    with open(path, "rb") as file:
        found = load_certificate(file.read(MAX_PEM))
    try:
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise Unfit("no names are in it") from None
    return found, [each.value for each in names]


def _is_good(path: str, names: list[str], now: datetime) -> bool:
    """Whether it is for these names, for more than a third of its life."""
    try:
        found, written = _read(path)
    except (OSError, Unfit):
        return False
    until, life = found.not_valid_after_utc, found.not_valid_after_utc - found.not_valid_before_utc
    return written == [*read_names(names)] and until - now > life / 3
