"""The end of an audit file after a crash: found, and made whole again.

Rule of this file: no byte is lost. What is behind the last whole record goes to a file of its own, which the
next record names with its hash; only where nothing but the newline is missing is it put there. Whether lines
before the last one are good is not asked here: ``verify`` of audit_chain.py does.

Source: ours.
"""

import contextlib
import hashlib
import os
from typing import NamedTuple

from revtunnel.state.atomic_file import OPEN, write_all
from revtunnel.state.audit_chain import AuditLine, NotALine, parse_line
from revtunnel.state.audit_records import AuditRecovered

__all__ = ["MODE", "last_line", "mend"]

MODE = 0o640
MOST_ASIDE = 9  # broken ends that are kept; the last one is overwritten
_PIECE = 1024 * 1024  # bytes hashed at once


class AuditEnd(NamedTuple):
    """How a file ends."""

    line: AuditLine | None  # the last whole record; None: none was found
    size: int  # bytes up to its end
    rest: bytes  # behind it


def last_line(file: int, most: int) -> AuditEnd:
    """The last whole record among the last ``most`` bytes of an open file.

    Raises:
        OSError: it cannot be read.
    """
    size = os.fstat(file).st_size
    start = max(0, size - most)
    data = _read(file, start, size - start)
    behind = data.rfind(b"\n") + 1
    while behind > 0:
        begin = data.rfind(b"\n", 0, behind - 1) + 1
        with contextlib.suppress(NotALine):  # the rest of a line that began before what was read is none
            return AuditEnd(parse_line(data[begin:behind]), start + behind, data[behind:])
        behind = begin
    return AuditEnd(None, 0, data)


def mend(file: int, directory: int, name: str, most: int) -> tuple[AuditLine | None, AuditRecovered | None]:
    """Let an open file end with a whole record: that record, and what had to be done.

    A file without one among its last ``most`` bytes is renamed, and ``file`` is not ``name`` any more.

    Raises:
        OSError: it cannot be read or written; then it is as it was.
    """
    end = last_line(file, most)
    if not end.rest:
        return end.line, None
    if end.line is None:
        size, digest = os.fstat(file).st_size, _hash(file)
        aside = _aside(directory, name)
        os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory)
        return None, AuditRecovered("set-aside", size, digest, aside)
    whole = _completed(end)
    digest = hashlib.sha256(end.rest).hexdigest()
    if whole is not None:
        os.write(file, b"\n")
        return whole, AuditRecovered("completed", len(end.rest), digest, "")
    aside = _aside(directory, name)
    _keep(directory, aside, end.rest)
    os.ftruncate(file, end.size)
    os.fsync(file)
    return end.line, AuditRecovered("set-aside", len(end.rest), digest, aside)


def _completed(end: AuditEnd) -> AuditLine | None:
    """The record that the rest is, if only its newline is missing."""
    assert end.line is not None
    with contextlib.suppress(NotALine):
        line = parse_line(end.rest + b"\n")
        if (line.seq, line.prev) == (end.line.seq + 1, end.line.hash):
            return line
    return None


def _read(file: int, start: int, size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := os.pread(file, size, start)):
        pieces.append(piece)
        start += len(piece)
        size -= len(piece)
    return b"".join(pieces)


def _hash(file: int) -> str:
    digest, start = hashlib.sha256(), 0
    while piece := os.pread(file, _PIECE, start):
        digest.update(piece)
        start += len(piece)
    return digest.hexdigest()


def _aside(directory: int, name: str) -> str:
    there = set(os.listdir(directory))
    names = [f"{name}.broken-{number}" for number in range(1, MOST_ASIDE + 1)]
    return next((each for each in names if each not in there), names[-1])


def _keep(directory: int, name: str, data: bytes) -> None:
    """Write a new file, in place of one that is overwritten, and put it on the disk."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN, MODE, dir_fd=directory)
    try:
        try:
            write_all(file, data)
            os.fsync(file)
        finally:
            os.close(file)
        os.fsync(directory)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory)
        raise
