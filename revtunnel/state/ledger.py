"""The ledger: port leases and device keys in the state file, and what the books of trust/ keep there.

Rule of this file: saving never raises into whoever changed something. What the disk does not take is kept in
memory, counts at once for every question, is told in ``problem``, and goes to the disk with the next change,
or by itself a little later (``retries``).

Deadlines are kept as wall time, because monotonic seconds mean nothing after a reboot; what is read back is
how many seconds are left. Every save is one transaction. Leases and sessions are in the file when it returns:
a killed process loses nothing, a power cut at most the last moments. All else, whom to let in and whom not,
is on the disk then, and in the journal beside the file before that: what the database loses with its log
comes back from there.

Source: faults.md N37; ours.
"""

import contextlib
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sortedcontainers import SortedDict

from revtunnel.fleet.lease_rows import LeaseRow
from revtunnel.fleet.pools import MAX_PORT, PortState
from revtunnel.ground.errors import LocalError
from revtunnel.ground.retries import Retries
from revtunnel.state.change_journal import Change, ChangeJournal
from revtunnel.state.state_directory import ready_directory
from revtunnel.state.state_file import BUSY, JOURNAL, NUMBER, TABLES, LedgerError, StateFile

__all__ = ["FILE_NAME", "KEY_SIZE", "DeviceKey", "LedgerError", "SqliteLedger", "open_ledger"]

FILE_NAME = "revtunnel.db"  # in the state directory
KEY_SIZE = 32  # bytes
STATE = "state file"  # what ``Retries`` know it by

_PUT = {
    table: f"INSERT OR REPLACE INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' for _ in columns)})"
    for table, columns in TABLES.items()
}
_REMOVE = {table: f"DELETE FROM {table} WHERE {columns[0]} = ?" for table, columns in TABLES.items()}
FLEETING = frozenset(("leases", "sessions", "webhooks"))  # what a power cut may take the last moments of
# what the journal keeps when it is begun anew: rows of a table
_REVOCATIONS = {"barred": "true", "certificates": "revoked IS NOT NULL", "versions": "gone"}


class DeviceKey(NamedTuple):
    """What the server keeps of a device's key."""

    stored_key: bytes
    server_key: bytes
    enrolled: float  # wall time, seconds since 1970


class SqliteLedger:
    """Leases (``core.lease_rows.Ledger``) and keys. One thread only."""

    problem: str | None = None  # why the last save did not reach the disk
    retries: Retries | None = None
    _wait = BUSY  # milliseconds for the lock of somebody else
    _number = 0  # of the last change in the journal

    def __init__(self, path: str | None, wall: Callable[[], float]) -> None:
        """Open ``path``, usually ``FILE_NAME`` in the state directory; None keeps all in memory.

        Args:
            wall: the wall clock, ``time.time``.

        Raises:
            LedgerError: the file cannot be used; the server must not start.
        """
        self._file = StateFile(path)
        self._connection = self._file.connection
        self._wall = wall
        # table and key -> whole row, or None to remove it: what is not on the disk yet
        self._pending: dict[tuple[str, int | str | bytes], tuple[Any, ...] | None] = {}
        self._unsaid: list[Change] = []  # what is not in the journal yet
        self._syncs = False  # each transaction waits for the disk
        self._gathers = False  # what is changed waits for the end of ``together``
        # by table, who holds its rows in memory: takes one that another node changed, or None: it is gone
        self.takers: dict[str, Callable[[Any, tuple[Any, ...] | None], object]] = {"keys": self._take_key}
        # what nodes keep with each change of what they share (cluster/shared_tables.py)
        self.beside: Callable[[Sequence[Change]], Sequence[Change]] = lambda changes: ()
        try:
            self._catch_up()
        except BaseException:
            self._file.close()
            raise
        # all keys are held, so that a disk that cannot be read never makes a device look as if it had none
        stored = self.select(_select("keys"))
        self._keys = SortedDict((serial, DeviceKey(*values)) for serial, *values in stored)

    @property
    def warnings(self) -> list[str]:
        """What the operator should know: a damaged file was moved aside, rows were skipped."""
        return self._file.warnings

    @property
    def moved_aside(self) -> str | None:
        """Where a damaged file was moved to. Its keys are not known: enrolled devices look new."""
        return self._file.moved_aside

    @property
    def doubtful(self) -> str | None:
        """A damaged file beside ours, from whatever start: who was enrolled or revoked may be in it only.

        The doubt ends when an operator has taken that file away.
        """
        return next(iter(self._file.aside), None)

    @property
    def wall(self) -> float:
        """Seconds since 1970."""
        return self._wall()

    def close(self) -> None:
        """Try once more to save what is pending, and close the file."""
        self._flush()
        self._file.close()

    # ---- leases

    def load(self) -> list[LeaseRow]:
        """Every row, with the seconds that are left by the wall clock; rows that make no sense are skipped.

        Raises:
            LedgerError: the file cannot be read.
        """
        now = self._wall()
        rows = [self._row(values, now) for values in self.rows("leases").values()]
        return [row for row in rows if row is not None]

    def save(self, rows: Sequence[LeaseRow], gone: Sequence[int]) -> None:
        """Keep these rows, drop these ports, in one transaction."""
        now = self._wall()
        changes: list[Change] = []
        for row in rows:
            until = None if row.left is None else now + row.left
            values = (row.port, row.pool, row.serial, row.target, row.state.value, int(row.wanted), until)
            changes.append(("leases", row.port, values))
        self.change([*changes, *(("leases", port, None) for port in gone)])

    def _row(self, values: tuple[Any, ...], now: float) -> LeaseRow | None:
        port, pool, serial, target, state, wanted, until = values
        texts = all(isinstance(text, str) and text.isascii() for text in (pool, serial, target))
        with contextlib.suppress(ValueError, TypeError):
            left = None if until is None else float(until) - now
            if texts and 1 <= port <= MAX_PORT and (left is None or math.isfinite(left)):
                return LeaseRow(port, pool, serial, target, PortState(state), bool(wanted), left)
        self.warnings.append(f"the ledger's row of port {port} makes no sense and is skipped")
        return None

    # ---- keys

    def key_of(self, serial: str) -> DeviceKey | None:
        """The key of a device, or None if it is not enrolled."""
        key: DeviceKey | None = self._keys.get(serial)
        return key

    def put_key(self, serial: str, stored_key: bytes, server_key: bytes) -> None:
        """Enrol a device now, or give it another key. It counts at once; ``problem`` if the disk lacks it."""
        if len(stored_key) != KEY_SIZE or len(server_key) != KEY_SIZE:
            raise LocalError(f"keys of {len(stored_key)} and {len(server_key)} bytes, {KEY_SIZE} wanted")
        key = DeviceKey(bytes(stored_key), bytes(server_key), self._wall())
        self._keys[serial] = key
        self.change([("keys", serial, (serial, *key))])

    def remove_key(self, serial: str) -> bool:
        """Withdraw a device's key; False when it had none."""
        if self._keys.pop(serial, None) is None:
            return False
        self.change([("keys", serial, None)])
        return True

    def _take_key(self, serial: str, row: tuple[Any, ...] | None) -> None:
        self._keys.pop(serial, None)
        if row is not None:
            self._keys[serial] = DeviceKey(*row[1:])
        self.change([("keys", serial, row)])

    def serials_with_keys(self, after: str = "", limit: int = 100) -> list[str]:
        """A page of enrolled serials in order, above ``after``."""
        return list(islice(self._keys.irange(after, inclusive=(False, True)), limit))

    # ---- what others keep here

    def change(self, changes: Iterable[Change]) -> None:
        """Keep rows (table, key, whole row) or, with None for the row, drop them, in one transaction."""
        changes = [*changes]
        for change in (*changes, *self.beside(changes)):
            table, key, row = change
            self._pending[table, key] = row
            if table not in FLEETING:
                self._unsaid.append(change)
        self._flush()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """All that is changed meanwhile goes to the disk at the end, in one transaction."""
        self._gathers = True
        try:
            yield
        finally:
            self._gathers = False
            self._flush()

    def take(self, table: str, key: int | str | bytes, row: tuple[Any, ...] | None) -> object:
        """Have what another node changed count here, and keep it; False: its owner is not known yet."""
        if table in self.takers:
            return self.takers[table](key, row)
        self.change([(table, key, row)])
        return None

    def rows(self, table: str) -> dict[int | str | bytes, tuple[Any, ...]]:
        """Whole rows of a table by their keys, also those that the disk lacks; raises as ``select``."""
        known: dict[Any, tuple[Any, ...] | None] = {row[0]: row for row in self.select(_select(table))}
        known.update({key: row for (name, key), row in self._pending.items() if name == table})
        return {key: row for key, row in known.items() if row is not None}

    def row(self, table: str, key: int | str | bytes) -> tuple[Any, ...] | None:
        """One of these; raises as ``select``."""
        if (table, key) in self._pending:
            return self._pending[table, key]
        return next(iter(self.select(f"{_select(table)} WHERE {TABLES[table][0]} = ?", (key,))), None)

    def select(self, query: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Rows that are on the disk.

        Raises:
            LedgerError: the file cannot be read.
        """
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise LedgerError(f"{self._file.path}: {error}") from None

    # ---- within

    def _flush(self) -> None:
        """Bring what is pending to the disk, all or nothing, after the journal has it."""
        if self._gathers or not (self._pending or self._unsaid):
            return
        lasting = bool(self._unsaid) or any(table not in FLEETING for table, _ in self._pending)
        unsaid = self._say()
        try:
            self._write(lasting)
        except sqlite3.ProgrammingError:  # a closed file, another thread: ours
            raise
        except sqlite3.DatabaseError as error:
            with contextlib.suppress(sqlite3.DatabaseError):  # often it was rolled back already
                self._connection.execute("ROLLBACK")
            self._blame(str(error), 0)
        else:
            self._pending.clear()
            self._blame(unsaid, BUSY)
            self._shorten()

    def _say(self) -> str | None:
        """Write what must not be forgotten to the journal; why it does not take it."""
        journal = self._file.journal
        try:
            if self._unsaid and journal is not None:
                try:
                    journal.append(self._unsaid)
                except FileNotFoundError:  # somebody took it away
                    self._replace_journal(journal)
                    journal.append(self._unsaid)
                self._number = journal.number
        except (OSError, LedgerError, sqlite3.DatabaseError) as error:
            return f"{self._file.path}{JOURNAL}: {getattr(error, 'strerror', None) or error}"
        self._unsaid = []
        return None

    def _replace_journal(self, journal: ChangeJournal) -> None:
        """Begin it anew as the database is; what that has not is to be said again."""
        ((self._number,),) = self.select(NUMBER)
        self._begin_journal(journal)
        lasting = [(table, key, row) for (table, key), row in self._pending.items() if table not in FLEETING]
        self._unsaid = [*lasting, *self._unsaid]

    def _blame(self, problem: str | None, wait: int) -> None:
        """Note how the last save went. While the file is not usable nobody waits for its lock again."""
        if wait != self._wait:
            self._connection.execute(f"PRAGMA busy_timeout = {wait}")
        self.problem, self._wait = problem, wait
        if self.retries is None:
            return
        if problem is None:
            self.retries.well(STATE)
        else:
            self.retries.failed(STATE, problem, self._flush)

    def _write(self, lasting: bool) -> None:
        execute = self._connection.execute
        if lasting != self._syncs:
            execute(f"PRAGMA synchronous = {'FULL' if lasting else 'NORMAL'}")
            self._syncs = lasting
        execute("BEGIN IMMEDIATE")
        if lasting:
            execute("INSERT OR REPLACE INTO changes (id, number) VALUES (0, ?)", (self._number,))
        for (table, key), row in self._pending.items():
            if row is None:
                execute(_REMOVE[table], (key,))
            else:
                execute(_PUT[table], row)
        execute("COMMIT")

    # ---- the journal

    def _catch_up(self) -> None:
        """Bring the database to where the journal is, and have a journal.

        Raises:
            LedgerError: the disk does not take it.
        """
        file, journal = self._file, self._file.journal
        self._number = file.number
        if journal is None:
            return
        if file.owed and file.moved_aside is None:
            file.warnings.append(f"{file.path} lacked {len(file.owed)} changes, which {journal.path} had")
        self._pending.update(
            {(table, key): _whole(table, row) for table, key, row in file.owed if table in _PUT}
        )
        self._number = max(file.number, journal.number, int(self._has_rows()))
        try:
            if self._number > file.number:
                self._write(lasting=True)
                self._pending.clear()
            if journal.damage:
                file.warnings.append(f"{journal.damage}: begun anew")
            if journal.damage or not journal.is_there or journal.number != self._number:
                self._begin_journal(journal)
        except (sqlite3.Error, OSError) as error:
            raise LedgerError(f"{file.path}: {error}") from None
        journal.forget()

    def _has_rows(self) -> bool:
        """Whether there is anything that must not be forgotten."""
        kept = (table for table in _PUT if table not in FLEETING)
        return any(self.select(f"SELECT 1 FROM {table} LIMIT 1") for table in kept)

    def _begin_journal(self, journal: ChangeJournal) -> None:
        """Begin the journal anew; the database is whole without its log first."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        rows = [
            (table, row[0], row)
            for table, which in _REVOCATIONS.items()
            for row in self.select(f"{_select(table)} WHERE {which}")
        ]
        journal.begin(self._number, rows)

    def _shorten(self) -> None:
        """Begin a large journal anew, if the disk takes that; else it is tried again."""
        journal = self._file.journal
        if journal is not None and journal.is_large and not self._unsaid:
            with contextlib.suppress(OSError, sqlite3.Error):
                self._begin_journal(journal)


def _whole(table: str, row: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
    """A row of a journal; what an older program did not have yet is empty."""
    return row if row is None else row + ("",) * (len(TABLES[table]) - len(row))


def _select(table: str) -> str:
    return f"SELECT {', '.join(TABLES[table])} FROM {table}"


def open_ledger(directory: str | None, name: str, allow_open: bool = False) -> SqliteLedger:
    """The ledger ``name`` in a state directory, which is made; in memory only where there is none.

    ``allow_open``: others than its owner may write in the directory, which is warned of.

    Raises:
        OSError: it cannot be made, opened or read, others may write there, or another server has it.
    """
    path, warning = None, ""
    if directory is not None:
        warning = ready_directory(directory, allow_open)
        path = os.path.join(directory, name)
    try:
        ledger = SqliteLedger(path, time.time)
    except LedgerError as error:
        raise OSError(str(error)) from None
    ledger.warnings.extend([warning] if warning else [])
    return ledger
