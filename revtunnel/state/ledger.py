"""The ledger: port leases and device keys in the state file, and what the books of trust/ keep there.

Rule of this file: saving never raises into whoever changed something. What the disk does not take is kept in
memory, counts at once for every question, is told in ``problem``, and goes to the disk with the next change.

Deadlines are kept as wall time, because monotonic seconds mean nothing after a reboot; what is read back is
how many seconds are left. Every save is one transaction, in the file when ``save`` returns: a killed process
loses nothing, a power cut at most the last moments, and neither damages the file.

Source: faults.md N37; ours.
"""

import contextlib
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, NamedTuple

from sortedcontainers import SortedDict

from revtunnel.fleet.lease_rows import LeaseRow
from revtunnel.fleet.pools import MAX_PORT, PortState
from revtunnel.ground.errors import LocalError
from revtunnel.state.state_file import BUSY, LedgerError, StateFile

__all__ = ["FILE_NAME", "KEY_SIZE", "DeviceKey", "LedgerError", "SqliteLedger", "open_ledger"]

FILE_NAME = "revtunnel.db"  # in the state directory
KEY_SIZE = 32  # bytes

_PUT = {
    "leases": "INSERT OR REPLACE INTO leases (port, pool, serial, target, state, wanted, until)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)",
    "keys": "INSERT OR REPLACE INTO keys (serial, stored_key, server_key, enrolled) VALUES (?, ?, ?, ?)",
    "certificates": "INSERT OR REPLACE INTO certificates"
    " (fingerprint, name, kind, number, until, issued, revoked) VALUES (?, ?, ?, ?, ?, ?, ?)",
    "barred": "INSERT OR REPLACE INTO barred (serial, since) VALUES (?, ?)",
    "tokens": "INSERT OR REPLACE INTO tokens (mark, serial, until) VALUES (?, ?, ?)",
    "sessions": "INSERT OR REPLACE INTO sessions (serial, project, port, options) VALUES (?, ?, ?, ?)",
    "people": "INSERT OR REPLACE INTO people (name, note, member_of, created) VALUES (?, ?, ?, ?)",
    "people_groups": "INSERT OR REPLACE INTO people_groups (name, note, created) VALUES (?, ?, ?)",
    "user_tokens": "INSERT OR REPLACE INTO user_tokens (mark, user, note, created, until, used)"
    " VALUES (?, ?, ?, ?, ?, ?)",
    "grants": "INSERT OR REPLACE INTO grants"
    " (id, holder, device, services, actions, begins, until, created, made_by)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "muted": "INSERT OR REPLACE INTO muted (serial, why, made_by, since) VALUES (?, ?, ?, ?)",
    "edge_keys": "INSERT OR REPLACE INTO edge_keys (serial, mark, made) VALUES (?, ?, ?)",
}
_REMOVE = {
    "leases": "DELETE FROM leases WHERE port = ?",
    "keys": "DELETE FROM keys WHERE serial = ?",
    "certificates": "DELETE FROM certificates WHERE fingerprint = ?",
    "barred": "DELETE FROM barred WHERE serial = ?",
    "tokens": "DELETE FROM tokens WHERE mark = ?",
    "sessions": "DELETE FROM sessions WHERE serial = ?",
    "people": "DELETE FROM people WHERE name = ?",
    "people_groups": "DELETE FROM people_groups WHERE name = ?",
    "user_tokens": "DELETE FROM user_tokens WHERE mark = ?",
    "grants": "DELETE FROM grants WHERE id = ?",
    "muted": "DELETE FROM muted WHERE serial = ?",
    "edge_keys": "DELETE FROM edge_keys WHERE serial = ?",
}
Change = tuple[str, "int | str | bytes", "tuple[Any, ...] | None"]


class DeviceKey(NamedTuple):
    """What the server keeps of a device's key."""

    stored_key: bytes
    server_key: bytes
    enrolled: float  # wall time, seconds since 1970


class SqliteLedger:
    """Leases (``core.lease_rows.Ledger``) and keys. One thread only."""

    problem: str | None = None  # why the last save did not reach the disk

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
        # all keys are held, so that a disk that cannot be read never makes a device look as if it had none
        stored = self.select("SELECT serial, stored_key, server_key, enrolled FROM keys")
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
        stored = self.select("SELECT port, pool, serial, target, state, wanted, until FROM leases")
        known: dict[int | str | bytes, tuple[Any, ...] | None] = {values[0]: values for values in stored}
        known.update({key: values for (table, key), values in self._pending.items() if table == "leases"})
        rows = [self._row(values, now) for values in known.values() if values is not None]
        return [row for row in rows if row is not None]

    def save(self, rows: Sequence[LeaseRow], gone: Sequence[int]) -> None:
        """Keep these rows, drop these ports, in one transaction."""
        now = self._wall()
        for row in rows:
            until = None if row.left is None else now + row.left
            values = (row.port, row.pool, row.serial, row.target, row.state.value, int(row.wanted), until)
            self._pending["leases", row.port] = values
        for port in gone:
            self._pending["leases", port] = None
        self._flush()

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
        self._pending["keys", serial] = (serial, *key)
        self._flush()

    def remove_key(self, serial: str) -> bool:
        """Withdraw a device's key; False when it had none."""
        if self._keys.pop(serial, None) is None:
            return False
        self._pending["keys", serial] = None
        self._flush()
        return True

    def serials_with_keys(self, after: str = "", limit: int = 100) -> list[str]:
        """A page of enrolled serials in order, above ``after``."""
        return list(islice(self._keys.irange(after, inclusive=(False, True)), limit))

    # ---- what others keep here

    def change(self, changes: Iterable[Change]) -> None:
        """Keep rows (table, key, whole row) or, with None for the row, drop them, in one transaction."""
        self._pending.update({(table, key): row for table, key, row in changes})
        self._flush()

    def select(self, query: str) -> list[tuple[Any, ...]]:
        """Rows that are on the disk.

        Raises:
            LedgerError: the file cannot be read.
        """
        try:
            return self._connection.execute(query).fetchall()
        except sqlite3.DatabaseError as error:
            raise LedgerError(f"{self._file.path}: {error}") from None

    # ---- within

    def _flush(self) -> None:
        """Bring what is pending to the disk, all or nothing."""
        if not self._pending:
            return
        try:
            self._write()
        except sqlite3.ProgrammingError:  # a closed file, another thread: ours
            raise
        except sqlite3.DatabaseError as error:
            with contextlib.suppress(sqlite3.DatabaseError):  # often it was rolled back already
                self._connection.execute("ROLLBACK")
            self._blame(str(error))
        else:
            self._pending.clear()
            self._blame(None)

    def _blame(self, problem: str | None) -> None:
        """Note how the last save went. While the file is not usable nobody waits for its lock again."""
        if (problem is None) != (self.problem is None):
            self._connection.execute(f"PRAGMA busy_timeout = {BUSY if problem is None else 0}")
        self.problem = problem

    def _write(self) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        for (table, key), row in self._pending.items():
            if row is None:
                execute(_REMOVE[table], (key,))
            else:
                execute(_PUT[table], row)
        execute("COMMIT")


def open_ledger(directory: str | None, name: str) -> SqliteLedger:
    """The ledger ``name`` in a state directory, which is made; in memory only where there is none.

    Raises:
        OSError: it cannot be made, opened or read, or another server has it.
    """
    path = None
    if directory is not None:
        os.makedirs(directory, mode=0o750, exist_ok=True)
        path = os.path.join(directory, name)
    try:
        return SqliteLedger(path, time.time)
    except LedgerError as error:
        raise OSError(str(error)) from None
