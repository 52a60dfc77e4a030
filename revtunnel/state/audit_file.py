"""The audit file: records go to its end, each bound to the one before (audit_chain.py).

Rule of this file: when ``append`` returns, the records are written, whole and in their place, and on the disk
as far as ``Sync`` asks for; when it raises ``AuditFull`` there is nothing of them in the file, and that they
are missing is in the file as soon as it takes something again. Whether a session may go on without its record
is the caller's business.

The file is this process's alone (a lock beside it), and no link is followed to it. A full one is renamed
after its last record, ``audit-000000004711.jsonl``, and another one begun. ``append`` waits for the disk
where that is asked for. Open it after the last fork.

Source: ours.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Sequence
from enum import Enum

from revtunnel.ground.limits import AuditLimits
from revtunnel.state.atomic_file import OPEN, write_all
from revtunnel.state.audit_chain import NOTHING, Head, files_of, rotated_name, write_line
from revtunnel.state.audit_end import MODE, last_line, mend
from revtunnel.state.audit_records import AuditClosed, AuditGap, AuditOpened, AuditRecord, time_text
from revtunnel.state.lock_file import hold

__all__ = ["FILE_NAME", "AuditFile", "AuditFull", "Sync"]

FILE_NAME = "audit.jsonl"  # in the state directory
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # a start goes on with these


class Sync(Enum):
    """What is on the disk, not on its way there, when ``append`` returns; a power cut may take the rest."""

    EACH = "each"  # every record
    LASTING = "lasting"  # all but refusals, and with them what was before
    NEVER = "never"


class AuditFull(Exception):
    """The audit file does not take a record; the text says which file and why."""


class AuditFile:
    """The file that is written. ``limits`` and ``sync`` may be set anew at any time. One thread only."""

    def __init__(
        self, path: str, program: str, limits: AuditLimits, sync: Sync, wall: Callable[[], float]
    ) -> None:
        """Open or make ``path``, whose directory is there; go on where its chain, or the older files', ends.

        Args:
            program: name and version, for the file.
            wall: the wall clock, ``time.time``.

        Raises:
            OSError: another process has it, it is no plain file of ours, or the system says no. A full disk
                is no error here: ``problem`` tells, and ``append`` raises until there is room.
        """
        self.limits = limits
        self.sync = sync
        self.path = os.path.abspath(path)
        self.head = NOTHING  # the last record that was written: kept elsewhere, it proves all before it
        self._program = program
        self._wall = wall
        self._name = os.path.basename(path)
        self._file = -1
        self._size = 0  # bytes of the file, all of them whole records
        self._inode = (0, 0)
        self._cause = AuditOpened.START  # of the next opening
        self._owed: list[AuditRecord] = []  # to be written before anything else
        self._surplus: list[str] = []  # older files that go as soon as that is written
        self._lost, self._since = 0, 0.0
        self._refused: str | None = None  # why the last records were not written
        self._stuck: str | None = None  # why a full file is not replaced
        self._directory = os.open(os.path.dirname(self.path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lock = -1
        try:
            self._lock = hold(self.path)
            self._start()
        except BaseException:
            self._let_go()
            raise

    @property
    def problem(self) -> str | None:
        """Why the last records were not written, or why a full file is not replaced; None: all is well."""
        return self._refused or self._stuck

    def append(self, *records: AuditRecord) -> None:
        """Write records, all of them or none, waiting for the disk once at most.

        Raises:
            AuditFull: none of them is written.
        """
        try:
            if not self._is_ours():
                self._open()
            if self._size >= self.limits.size:
                self._rotate()
            self._put([*self._owed, *self._gap(), *records])
        except OSError as error:
            self._blame(error, len(records))
            raise AuditFull(f"{self.path}: {self._refused}") from None

    def close(self) -> None:
        """Write that this is an orderly end, if there is room, and let another process have the file."""
        with contextlib.suppress(AuditFull):
            self.append(AuditClosed())
        self._let_go()

    # -- files

    def _start(self) -> None:
        try:
            self._open()
            self._put(self._owed)
        except OSError as error:
            if error.errno not in _FULL:
                raise OSError(error.errno, _why(error), self.path) from None
            self._blame(error, 0)

    def _is_ours(self) -> bool:
        """Whether the file is there as we left it; nobody else moves it or writes to it."""
        try:
            status = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        except FileNotFoundError:
            return False
        there = (status.st_dev, status.st_ino) == self._inode
        return self._file >= 0 and there and status.st_size == self._size

    def _open(self) -> None:
        """Take the file that stands there, or a new one, and have it end with a whole record."""
        self._leave()
        file = _opened(self._name, self._directory)
        try:
            line, recovered = mend(file, self._directory, self._name, self.limits.tail)
            if recovered is not None:
                self._owed.append(recovered)
                if line is None:  # that file is another name's now
                    os.close(file)
                    file = -1
                    file = _opened(self._name, self._directory)
            status = os.fstat(file)
            if status.st_size == 0 and self.sync is not Sync.NEVER:
                os.fsync(self._directory)  # it may be new
            if self.head == NOTHING:
                self.head = line.head if line else self._head_of_older()
            self._surplus = self._too_many()
        except BaseException:
            if file >= 0:
                os.close(file)
            raise
        self._file, self._size, self._inode = file, status.st_size, (status.st_dev, status.st_ino)
        others = (each for each in self._owed if not isinstance(each, AuditOpened))
        self._owed = [AuditOpened(self._cause, self._program, tuple(self._surplus)), *others]
        self._cause = AuditOpened.REPLACED

    def _head_of_older(self) -> Head:
        """Where the chain is at the end of the newest file that is full."""
        older = self._older()
        if not older:
            return NOTHING
        file = os.open(older[-1], os.O_RDONLY | OPEN, dir_fd=self._directory)
        try:
            line = last_line(file, self.limits.tail).line
        finally:
            os.close(file)
        return line.head if line else NOTHING

    def _older(self) -> list[str]:
        names = (os.path.basename(path) for path in files_of(self.path))
        return [name for name in names if name != self._name]

    def _too_many(self) -> list[str]:
        older = self._older()
        return older[: max(0, len(older) + 1 - max(1, self.limits.files))]

    def _rotate(self) -> None:
        """Begin another file. Where the full one cannot be renamed it is written up to twice its size."""
        name = rotated_name(self._name, self.head.seq)
        try:
            if name in os.listdir(self._directory):
                raise FileExistsError(errno.EEXIST, f"{name} is there already")
            if self.sync is not Sync.NEVER:
                os.fdatasync(self._file)
            os.rename(self._name, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError as error:
            self._stuck = f"it is full and cannot be renamed: {_why(error)}"
            if self._size >= 2 * self.limits.size:
                raise OSError(errno.EFBIG, self._stuck) from None
            return
        self._stuck = None
        self._cause = AuditOpened.ROTATION
        self._open()

    # -- lines

    def _put(self, records: Sequence[AuditRecord]) -> None:
        """Write records; where that fails the file ends as it did before, or is opened anew.

        Raises:
            OSError: none of them counts.
        """
        head, wall = self.head, self._wall()
        lines = []
        for record in records:
            line, head = write_line(record, head, wall)
            lines.append(line)
        data = b"".join(lines)
        try:
            write_all(self._file, data)
            if self._waits_for(records):
                os.fdatasync(self._file)
        except OSError:
            try:
                os.ftruncate(self._file, self._size)
            except OSError:
                self._leave()
            raise
        self.head = head
        self._size += len(data)
        self._owed = []
        self._lost, self._refused = 0, None
        self._remove()

    def _waits_for(self, records: Sequence[AuditRecord]) -> bool:
        if self.sync is Sync.LASTING:
            return any(record.lasting for record in records)
        return self.sync is Sync.EACH

    def _gap(self) -> list[AuditRecord]:
        return [AuditGap(self._lost, time_text(self._since), self._refused or "")] if self._lost else []

    def _blame(self, error: OSError, lost: int) -> None:
        if lost and not self._lost:
            self._since = self._wall()
        self._lost += lost
        self._refused = _why(error)

    def _remove(self) -> None:
        """Take the files away that are too many, now that it is written that they are."""
        for name in self._surplus:
            with contextlib.suppress(OSError):
                os.unlink(name, dir_fd=self._directory)
        self._surplus = []

    def _leave(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _let_go(self) -> None:
        self._leave()
        for descriptor in (self._lock, self._directory):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self._directory = -1


def _opened(name: str, directory: int) -> int:
    """The descriptor of a plain file of ours, made if it is not there.

    Raises:
        OSError: it is something else, or the system says no.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | OPEN
    try:
        file = os.open(name, flags, MODE, dir_fd=directory)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "is a symbolic link, a plain file wanted") from None
        raise
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no plain file")
        if status.st_nlink != 1:
            raise OSError(errno.EMLINK, "has another name too, or none any more")
        if status.st_uid != os.geteuid():
            raise OSError(errno.EPERM, f"belongs to user {status.st_uid}, not to us")
        if stat.S_IMODE(status.st_mode) != MODE:
            os.fchmod(file, MODE)
    except BaseException:
        os.close(file)
        raise
    return file


def _why(error: OSError) -> str:
    return error.strerror or str(error)
