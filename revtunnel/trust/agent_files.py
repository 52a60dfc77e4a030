"""What enrolment leaves in the state directory of an agent, and how it is found again.

=========================  =====  ======================================================================
file                       mode   what
=========================  =====  ======================================================================
``SERIAL.pem``             0600   the device's private key and its certificate: one file, so that they
                                  change together
``SERIAL.authority.pem``   0644   the authority that servers are judged by
``SERIAL.next.key``        0600   the key of a certificate that was asked for and has not come
=========================  =====  ======================================================================

Rule of this file: what is not asked for by name is found only where it is clear which one is meant.

Source: ours.
"""

import os
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from cryptography import x509

from revtunnel.state.atomic_file import make_directory, write_whole
from revtunnel.trust.authority import Unfit, key_pem, load_certificate, load_key, new_key, pem
from revtunnel.trust.tls_settings import AgentTls

__all__ = ["AgentFiles", "kept_files", "with_kept_files"]

MAX_PEM = 64 * 1024  # bytes
AUTHORITY = ".authority.pem"


class AgentFiles:
    """The files of the device ``serial`` in ``directory``, which need not be there."""

    def __init__(self, directory: str, serial: str) -> None:
        self.certificate = os.path.join(directory, f"{serial}.pem")
        self.authority = os.path.join(directory, f"{serial}{AUTHORITY}")
        self._next = os.path.join(directory, f"{serial}.next.key")
        self._directory = directory

    def is_good(self, now: datetime) -> bool:
        """Whether both files are there and the certificate has not ended."""
        try:
            return os.path.exists(self.authority) and self.load().not_valid_after_utc > now
        except (OSError, Unfit):
            return False

    @property
    def is_there(self) -> bool:
        """Whether there is a certificate, good or not any more."""
        return os.path.exists(self.certificate) and os.path.exists(self.authority)

    def load(self) -> x509.Certificate:
        """The device's certificate.

        Raises:
            OSError, Unfit: it cannot be read.
        """
        with open(self.certificate, "rb") as file:
            return load_certificate(file.read(MAX_PEM))

    def trusted(self) -> x509.Certificate:
        """The authority's certificate; raises as ``load``."""
        with open(self.authority, "rb") as file:
            return load_certificate(file.read(MAX_PEM))

    def trust(self, authority: x509.Certificate) -> None:
        """Keep the authority.

        Raises:
            OSError: it cannot be written.
        """
        make_directory(self._directory)
        write_whole(self.authority, pem(authority), 0o644)

    def next_key(self) -> Any:
        """The key to ask for a certificate with: that of the last try, whose answer was lost, or a new one.

        The server takes a second key for a second holder of the certificate that is renewed.

        Raises:
            OSError: it cannot be kept.
        """
        with suppress(OSError, Unfit):
            with open(self._next, "rb") as file:
                key = load_key(file.read(MAX_PEM))
            if not self._is_kept(key):
                return key
        key = new_key()
        make_directory(self._directory)
        write_whole(self._next, key_pem(key))
        return key

    def kept_key(self) -> Any:
        """The key of the device's certificate; raises as ``load``."""
        with open(self.certificate, "rb") as file:
            return load_key(file.read(MAX_PEM))

    def _is_kept(self, key: Any) -> bool:
        """Whether the answer had come, and only this file had not gone."""
        try:
            return bool(self.load().public_key() == key.public_key())
        except (OSError, Unfit):
            return False

    def keep(self, key: Any, certificate: x509.Certificate) -> None:
        """Keep a key and its certificate, in place of those before.

        Raises:
            OSError: they cannot be written; those before are still there.
        """
        make_directory(self._directory)
        write_whole(self.certificate, key_pem(key) + pem(certificate))
        with suppress(OSError):
            os.unlink(self._next)


def kept_files(directory: str | None, serial: str, host_name: str) -> AgentFiles | None:
    """What enrolment left: for ``serial``, or with "auto" for the host name or the only one that is there."""
    if directory is None:
        return None
    if serial != "auto":
        names = [serial]
    else:
        names = [name.removesuffix(AUTHORITY) for name in _listed(directory) if name.endswith(AUTHORITY)]
        names = [host_name] if host_name in names else names
    found = [AgentFiles(directory, name) for name in names]
    here = [each for each in found if os.path.exists(each.certificate)]
    return here[0] if len(here) == 1 else None


def with_kept_files(tls: AgentTls, serial: str, host_name: str) -> AgentTls:
    """The settings of TLS, "auto" in them replaced by what enrolment left, or by nothing."""
    files = None
    if tls.tls != "no" and tls.certificate == "auto":
        files = kept_files(tls.state_directory, serial, host_name)
    certificate, authority = (files.certificate, files.authority) if files is not None else (None, None)
    return replace(
        tls,
        certificate=certificate if tls.certificate == "auto" else tls.certificate,
        certificate_key=certificate or tls.certificate_key,
        authority=authority if tls.authority == "auto" else tls.authority,
    )


def _listed(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []
