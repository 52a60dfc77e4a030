"""The journal beside a state file: every change that must not be forgotten, a line each, on the disk.

It stands beside the database because it fails by other ways: SQLite takes back silently what was in a log
that is damaged or gone, and an empty database is a good one. A line is ::

    <crc32 of the rest, 8 hex> {"number":17,"changes":[["barred","plc-7",["plc-7",1764200000.0]]]}

and the first one, which stands for all before it, has ``"base":true`` and the revocations that were so far.

Rule of this file: the numbers of the lines follow each other. A last line that is not whole was never said to
anybody and is dropped; a hole before it is told. Nothing is written to a file that has not its name any more.
Bytes in a change are ``{"hex": ...}``.

Source: ours.
"""

import errno
import json
import os
import stat
import zlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from revtunnel.state.atomic_file import OPEN, write_all, write_whole

__all__ = ["Change", "ChangeJournal", "MissingChanges", "change_of", "plain"]

Change = tuple[
    str, "int | str | bytes", "tuple[Any, ...] | None"
]  # table, key, whole row or None: it is gone

LARGE = 4 * 1024 * 1024  # bytes beyond which it is begun anew


class MissingChanges(Exception):
    """A database is older than the journal can make good; the text says what is missing."""


class _Line(NamedTuple):
    number: int
    changes: list[Change]
    base: bool


class ChangeJournal:
    """The journal ``path``, of one process. ``number``: of the last line; 0: there is none."""

    def __init__(self, path: str) -> None:
        """Read what is there.

        Raises:
            OSError: it cannot be read, or is no plain file.
        """
        self.path = path
        self.number = 0
        self.damage = ""  # what was wrong with it
        self._lines: list[_Line] = []
        self._size = 0  # bytes of whole lines
        self._file = -1
        self._waits = False  # it was begun anew, and is opened by whoever writes next
        with suppress(FileNotFoundError):
            self._file = _opened(path)
            self._read()

    @property
    def is_there(self) -> bool:
        """Whether there is a file."""
        return self._file >= 0

    @property
    def is_large(self) -> bool:
        """Whether it should be begun anew."""
        return self._size > LARGE

    def since(self, number: int) -> list[Change]:
        """All changes behind one number, in order; with 0 those of the base too.

        Raises:
            MissingChanges: some of them are not here.
        """
        wanted = [line for line in self._lines if line.number > number]
        numbers = [line.number for line in wanted]
        if wanted and (wanted[0].base or numbers != [*range(number + 1, self.number + 1)]):
            raise MissingChanges(f"changes {number + 1} to {self.number} are not all in {self.path}")
        return self._changes(wanted)

    def everything(self) -> list[Change]:
        """All changes that can be read, in order."""
        return self._changes(self._lines)

    def forget(self) -> None:
        """What was read is in the database now."""
        self._lines = []

    def append(self, changes: Iterable[Change]) -> None:
        """Write a line; it is on the disk then.

        Raises:
            FileNotFoundError: it is not there, for the file is not: it has to be begun anew.
            OSError: it is not there.
        """
        data = _written(_Line(self.number + 1, list(changes), base=False))
        self._be_open()
        if os.fstat(self._file).st_size != self._size:
            os.ftruncate(self._file, self._size)  # a line that was not finished
        write_all(self._file, data)
        os.fsync(self._file)
        self._size += len(data)
        self.number += 1

    def begin(self, number: int, changes: Iterable[Change]) -> None:
        """Begin anew: one line that stands for all up to a number, in place of what there was.

        Raises:
            OSError: it is as it was.
        """
        data = _written(_Line(number, list(changes), base=True))
        write_whole(self.path, data)
        self.close()  # that is another file now
        self._size, self.number, self._waits = len(data), number, True

    def close(self) -> None:
        """Let go of the file."""
        self._waits = False
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    # -- inside

    def _be_open(self) -> None:
        """Have the file open that has the name. FileNotFoundError: it is gone; OSError: it cannot be had."""
        if self._waits:
            self._file, self._waits = _opened(self.path), False
        if not os.path.samestat(os.lstat(self.path), os.fstat(self._file)):
            raise FileNotFoundError(errno.ENOENT, "another file has its name")

    def _read(self) -> None:
        with open(self._file, "rb", closefd=False) as file:
            broken = 0
            for count, data in enumerate(file, 1):
                line = _read_line(data)
                if line is None:
                    broken = broken or count
                    continue
                if broken:
                    self.damage = f"{self.path}: line {broken} is damaged"
                self._lines.append(line)
                self.number = line.number
                self._size = file.tell()
            self.damage = self.damage or ("" if self._lines else f"{self.path} is damaged")

    @staticmethod
    def _changes(lines: Iterable[_Line]) -> list[Change]:
        return [change for line in lines for change in line.changes]


def _opened(path: str) -> int:
    """The descriptor of a plain file that is there. OSError: it is not, or is something else."""
    file = os.open(path, os.O_RDWR | os.O_APPEND | OPEN)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, f"{path} is no plain file")
    return file


def _written(line: _Line) -> bytes:
    body = {"number": line.number, "changes": [plain(each) for each in line.changes]}
    text = json.dumps({**body, "base": True} if line.base else body, separators=(",", ":")).encode("ascii")
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _read_line(data: bytes) -> _Line | None:
    """A line; None: it is none, or not what was written."""
    try:
        mark, text = data[:8], data[9:-1]
        if not data.endswith(b"\n") or int(mark, 16) != zlib.crc32(text):
            return None
        values = json.loads(text)
        changes, number = [*map(change_of, values["changes"])], values["number"]
        return _Line(number, changes, bool(values.get("base"))) if type(number) is int else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def plain(change: Change) -> list[Any]:
    """A change as JSON has it."""
    table, key, row = change
    return [table, _hex(key), None if row is None else [*map(_hex, row)]]


def change_of(values: list[Any]) -> Change:
    """What ``plain`` made a list of. ValueError, TypeError, KeyError: it did not."""
    table, key, row = values
    return table, _unhex(key), None if row is None else tuple(map(_unhex, row))


def _hex(value: Any) -> Any:
    return {"hex": value.hex()} if isinstance(value, bytes) else value


def _unhex(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value
