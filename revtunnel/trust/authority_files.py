"""The files of an authority, for whoever owns their directory: revtunnelctl, and the server that issues.

================  =====  ==========================================================================
file              mode   what
================  =====  ==========================================================================
``authority.pem``  0644   its certificate; what agents and servers trust
``authority.key``  0600   its key: whoever has it makes devices
``issued``         0600   one line of JSON for every certificate, and for every revocation
================  =====  ==========================================================================

and in ``servers``, or where an operator wants them, for each server ::

    NAME.pem       0644   its certificate, then the authority's: new agents need both
    NAME.key       0600   its key
    authority.pem  0644   as above

Rule of this file: the list is added to line by line, the last line of a certificate counts, and a line that
makes no sense is skipped: the ledger knows the same.

Source: ours.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from cryptography import x509

from revtunnel.state.atomic_file import make_directory, write_all, write_whole
from revtunnel.state.state_directory import openness
from revtunnel.trust.authority import (
    Authority,
    Unfit,
    fingerprint_of,
    issue_server,
    key_pem,
    load_authority,
    load_key,
    make_authority,
    new_key,
    pem,
    read_names,
)
from revtunnel.trust.certificate_book import AUTHORITY, KEPT, SERVER, CertificateRow

__all__ = ["AuthorityDirectory", "row_of"]

CERTIFICATE, KEY, ISSUED, SERVERS = "authority.pem", "authority.key", "issued", "servers"
MAX_PEM = 64 * 1024  # bytes of one file


def row_of(certificate: x509.Certificate, kind: str, name: str, now: datetime) -> CertificateRow:
    """What is remembered of a certificate."""
    until = certificate.not_valid_after_utc.timestamp()
    number = f"{certificate.serial_number:x}"
    return CertificateRow(fingerprint_of(certificate), name, kind, number, until, now.timestamp())


class AuthorityDirectory:
    """The directory ``path``; it need not be there."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._known = (0, 0)  # inode of the list, and the byte behind what ``news`` has said

    def file(self, name: str) -> str:
        """The path of a file in it."""
        return os.path.join(self.path, name)

    @property
    def is_set_up(self) -> bool:
        """Whether there is an authority."""
        return os.path.lexists(self.file(CERTIFICATE)) or os.path.lexists(self.file(KEY))

    # -- the authority

    def create(self, name: str, days: int, now: datetime) -> Authority:
        """A new authority in the directory, which is made if needed.

        Raises:
            Unfit: there is one already; it is never replaced.
            OSError: the directory or a file cannot be written.
        """
        if self.is_set_up:
            raise Unfit(f"{self.path}: there is an authority already")
        make_directory(self.path)
        made = make_authority(name, days, now)
        write_whole(self.file(KEY), key_pem(made.key))
        write_whole(self.file(CERTIFICATE), pem(made.certificate), 0o644)
        self.record(row_of(made.certificate, AUTHORITY, name, now))
        return made

    def load(self) -> Authority:
        """The authority.

        Raises:
            Unfit: a file is not there, cannot be read, is damaged, or others may read the key or replace it.
        """
        key = self.file(KEY)
        with _blaming(key):
            if found := openness(self.path):
                raise Unfit(f"others may replace it: {found}")
            if os.stat(key).st_mode & 0o077:
                raise Unfit("others than its owner may use it, mode 0600 wanted")
        certificate, written = self._read(CERTIFICATE), self._read(KEY)
        with _blaming(self.path):
            return load_authority(certificate, written)

    # -- certificates

    def issue_server(self, words: list[str], days: int, now: datetime, into: str | None = None) -> list[str]:
        """Make a server's certificate, named after its first name: the paths of it, its key, the authority's.

        A key that is there stays, so that only one file changes when the certificate is renewed.

        Args:
            into: the directory for them; None: ``servers`` in this one.

        Raises:
            Unfit: a name is none, or the authority or a key cannot be used.
            OSError: a file cannot be written.
        """
        authority = self.load()
        certificate, private, trusted = paths = self.server_files(words, into)
        if certificate == trusted:
            raise Unfit(f"{words[0]}: its file would be that of the authority; name another name first")
        make_directory(os.path.dirname(trusted), 0o755)
        key = self._server_key(private)
        made = issue_server(authority, words, key.public_key(), days, now)
        write_whole(certificate, pem(made, authority.certificate), 0o644)
        write_whole(trusted, pem(authority.certificate), 0o644)
        self.record(row_of(made, SERVER, " ".join(words), now))
        return paths

    def server_files(self, words: list[str], into: str | None = None) -> list[str]:
        """Where ``issue_server`` puts them, which may be there already; Unfit: a name is none."""
        directory = into or self.file(SERVERS)
        stem = os.path.join(directory, str(read_names(words)[0]))
        return [f"{stem}.pem", f"{stem}.key", os.path.join(directory, CERTIFICATE)]

    @staticmethod
    def _server_key(path: str) -> Any:
        try:
            with _blaming(path), open(path, "rb") as file:
                return load_key(file.read(MAX_PEM))
        except Unfit:
            if os.path.lexists(path):
                raise
        key = new_key()
        write_whole(path, key_pem(key))
        return key

    # -- the list

    def record(self, row: CertificateRow) -> None:
        """Add a certificate, or what became of it, to the list.

        Raises:
            OSError: the list cannot be written.
        """
        with self._locked() as directory:
            mode = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(ISSUED, mode, 0o600, dir_fd=directory)
            try:
                if os.geteuid() == 0:
                    owner = os.fstat(directory)
                    os.fchown(descriptor, owner.st_uid, owner.st_gid)
                _append(descriptor, _line(row))
            finally:
                os.close(descriptor)

    def tidy(self, now: datetime) -> None:
        """Drop from the list what ended long ago.

        Raises:
            OSError: the list cannot be read or written.
        """
        with self._locked():
            rows = self.rows()
            kept = [row for row in rows if row.until + KEPT >= now.timestamp()]
            if len(kept) < len(rows):
                write_whole(self.file(ISSUED), b"".join(map(_line, kept)))

    def rows(self) -> list[CertificateRow]:
        """Everything on the list, as it stands now, the oldest first.

        Raises:
            OSError: there is a list, and it cannot be read.
        """
        return self._behind((0, 0))[0]

    def news(self, now: datetime) -> list[CertificateRow]:
        """What came to the list since it was asked last; all of it, tidied, when it is another file.

        Raises:
            OSError: as ``tidy`` and ``rows``.
        """
        try:
            known = os.stat(self.file(ISSUED)).st_ino == self._known[0]
        except FileNotFoundError:
            known = False
        if not known:
            self.tidy(now)
        found, self._known = self._behind(self._known)
        return found

    # -- inside

    def _behind(self, known: tuple[int, int]) -> tuple[list[CertificateRow], tuple[int, int]]:
        """The whole lines of the list behind a place in a file, and the place behind them."""
        found: dict[str, CertificateRow] = {}
        try:
            with open(self.file(ISSUED), "rb") as file:
                about = os.fstat(file.fileno())
                inode, at = known
                at = at if inode == about.st_ino and at <= about.st_size else 0
                file.seek(at)
                for line in file:
                    at += len(line) if line.endswith(b"\n") else 0
                    row = _row(line)
                    before = found.get(row.fingerprint) if row is not None else None
                    if row is not None and (before is None or before.revoked is None):
                        found[row.fingerprint] = row
                return list(found.values()), (about.st_ino, at)
        except FileNotFoundError:
            return [], (0, 0)

    def _read(self, name: str) -> bytes:
        with _blaming(self.file(name)), open(self.file(name), "rb") as file:
            return file.read(MAX_PEM)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The directory, open and ours alone: the server and a command may come at the same moment."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield descriptor
        finally:
            os.close(descriptor)


@contextmanager
def _blaming(path: str) -> Iterator[None]:
    """Say of which file a fault is."""
    try:
        yield
    except OSError as error:
        raise Unfit(f"{path}: {error.strerror}") from None
    except Unfit as error:
        raise Unfit(f"{path}: {error}") from None


def _append(descriptor: int, line: bytes) -> None:
    """Put a line on the disk, whole or not at all."""
    size = os.fstat(descriptor).st_size
    try:
        write_all(descriptor, line)
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _line(row: CertificateRow) -> bytes:
    return json.dumps(row._asdict(), separators=(",", ":")).encode("ascii") + b"\n"


def _row(line: bytes) -> CertificateRow | None:
    try:
        row = CertificateRow(**json.loads(line))
    except (ValueError, TypeError):
        return None
    texts = (row.fingerprint, row.name, row.kind, row.number, row.parent, row.key)
    times = (row.until, row.issued, row.revoked or 0.0)
    sound = all(isinstance(text, str) for text in texts) and all(isinstance(at, int | float) for at in times)
    return row if sound and len(row.fingerprint) == 64 else None
