"""The state file: one SQLite database that one server has for itself, and the journal beside it.

Rule of this file: opening it either works, or works empty with a warning, or says in one sentence why not.
A damaged file is moved aside, not deleted, and so is one that is older than the journal can make good; a file
of a newer program or of another one is not touched; two servers never have the same file (a lock that ends
with its process, however that ends).

Open it after the last fork: neither SQLite nor its locks survive one.

Source: faults.md N37, N38; ours for the rest.
"""

import contextlib
import os
import sqlite3

from revtunnel.state.atomic_file import OPEN, settle
from revtunnel.state.change_journal import Change, ChangeJournal, MissingChanges
from revtunnel.state.lock_file import hold

__all__ = ["NUMBER", "SCHEMA", "TABLES", "LedgerError", "StateFile"]

APPLICATION = 0x72767475  # "rvtu" in the file's header: this database is ours
BUSY = 250  # milliseconds to wait for somebody who reads the file with other tools
JOURNAL = ".changes"  # behind the file's name
MOST_ASIDE = 9  # damaged files that are kept; the last one is overwritten

# one entry for each schema: what makes it from the one before
_UPGRADES = (
    (
        "CREATE TABLE leases (port INTEGER PRIMARY KEY, pool TEXT NOT NULL, serial TEXT NOT NULL,"
        " target TEXT NOT NULL, state TEXT NOT NULL, wanted INTEGER NOT NULL, until REAL)",
    ),
    (
        "CREATE TABLE keys (serial TEXT PRIMARY KEY,"
        " stored_key BLOB NOT NULL CHECK (length(stored_key) = 32),"
        " server_key BLOB NOT NULL CHECK (length(server_key) = 32), enrolled REAL NOT NULL) WITHOUT ROWID",
    ),
    (
        "CREATE TABLE certificates (fingerprint TEXT PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL,"
        " number TEXT NOT NULL, until REAL NOT NULL, issued REAL NOT NULL, revoked REAL) WITHOUT ROWID",
        "CREATE TABLE barred (serial TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID",
        "CREATE TABLE tokens (mark BLOB PRIMARY KEY CHECK (length(mark) = 32), serial TEXT NOT NULL,"
        " until REAL NOT NULL) WITHOUT ROWID",
    ),
    (
        "CREATE TABLE sessions (serial TEXT PRIMARY KEY, project TEXT NOT NULL, port INTEGER NOT NULL,"
        " options TEXT NOT NULL) WITHOUT ROWID",
    ),
    (
        "CREATE TABLE people (name TEXT PRIMARY KEY, note TEXT NOT NULL, member_of TEXT NOT NULL,"
        " created REAL NOT NULL) WITHOUT ROWID",
        "CREATE TABLE people_groups (name TEXT PRIMARY KEY, note TEXT NOT NULL, created REAL NOT NULL)"
        " WITHOUT ROWID",
        "CREATE TABLE user_tokens (mark BLOB PRIMARY KEY CHECK (length(mark) = 32), user TEXT NOT NULL,"
        " note TEXT NOT NULL, created REAL NOT NULL, until REAL NOT NULL, used REAL) WITHOUT ROWID",
        "CREATE TABLE grants (id TEXT PRIMARY KEY, holder TEXT NOT NULL, device TEXT NOT NULL,"
        " services TEXT NOT NULL, actions TEXT NOT NULL, begins REAL, until REAL, created REAL NOT NULL,"
        " made_by TEXT NOT NULL) WITHOUT ROWID",
    ),
    (
        "CREATE TABLE muted (serial TEXT PRIMARY KEY, why TEXT NOT NULL, made_by TEXT NOT NULL,"
        " since REAL NOT NULL) WITHOUT ROWID",
    ),
    (
        "CREATE TABLE edge_keys (serial TEXT PRIMARY KEY,"
        " mark BLOB NOT NULL UNIQUE CHECK (length(mark) = 32), made REAL NOT NULL) WITHOUT ROWID",
    ),
    (
        "CREATE TABLE changes (id INTEGER PRIMARY KEY CHECK (id = 0), number INTEGER NOT NULL)",
        "ALTER TABLE certificates ADD COLUMN parent TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE certificates ADD COLUMN key TEXT NOT NULL DEFAULT ''",
    ),
    (
        "ALTER TABLE people ADD COLUMN role TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE user_tokens ADD COLUMN scope TEXT NOT NULL DEFAULT ''",
        "ALTER TABLE user_tokens ADD COLUMN parent TEXT NOT NULL DEFAULT ''",
        "CREATE TABLE logins (user TEXT PRIMARY KEY, password TEXT NOT NULL, secret BLOB NOT NULL,"
        " step INTEGER NOT NULL) WITHOUT ROWID",
    ),
    (
        "CREATE TABLE reservations (port INTEGER PRIMARY KEY, serial TEXT NOT NULL, target TEXT NOT NULL,"
        " made_by TEXT NOT NULL, since REAL NOT NULL)",
    ),
    (
        "CREATE TABLE subjects (user TEXT PRIMARY KEY, subject TEXT NOT NULL, made INTEGER NOT NULL)"
        " WITHOUT ROWID",
        "CREATE TABLE webhooks (number INTEGER PRIMARY KEY, hook TEXT NOT NULL, id TEXT NOT NULL,"
        " event TEXT NOT NULL, body BLOB NOT NULL, made REAL NOT NULL, why TEXT NOT NULL)",
    ),
    (
        "CREATE TABLE device_records (serial TEXT PRIMARY KEY, keys TEXT NOT NULL, made_by TEXT NOT NULL,"
        " since REAL NOT NULL) WITHOUT ROWID",
        "CREATE TABLE host_keys (service TEXT PRIMARY KEY, key TEXT NOT NULL, made_by TEXT NOT NULL,"
        " since REAL NOT NULL) WITHOUT ROWID",
    ),
    (
        "CREATE TABLE versions (id TEXT PRIMARY KEY, life INTEGER NOT NULL, version INTEGER NOT NULL,"
        " gone INTEGER NOT NULL, until REAL NOT NULL, mark TEXT NOT NULL) WITHOUT ROWID",
    ),
)
SCHEMA = len(_UPGRADES)
# today's columns of each table; the first one is its key
TABLES = {
    "leases": ("port", "pool", "serial", "target", "state", "wanted", "until"),
    "keys": ("serial", "stored_key", "server_key", "enrolled"),
    "certificates": ("fingerprint", "name", "kind", "number", "until", "issued", "revoked", "parent", "key"),
    "barred": ("serial", "since"),
    "tokens": ("mark", "serial", "until"),
    "sessions": ("serial", "project", "port", "options"),
    "people": ("name", "note", "member_of", "created", "role"),
    "people_groups": ("name", "note", "created"),
    "user_tokens": ("mark", "user", "note", "created", "until", "used", "scope", "parent"),
    "grants": ("id", "holder", "device", "services", "actions", "begins", "until", "created", "made_by"),
    "muted": ("serial", "why", "made_by", "since"),
    "edge_keys": ("serial", "mark", "made"),
    "reservations": ("port", "serial", "target", "made_by", "since"),
    "logins": ("user", "password", "secret", "step"),
    "subjects": ("user", "subject", "made"),
    "webhooks": ("number", "hook", "id", "event", "body", "made", "why"),
    "device_records": ("serial", "keys", "made_by", "since"),
    "host_keys": ("service", "key", "made_by", "since"),
    "versions": ("id", "life", "version", "gone", "until", "mark"),
}
NUMBER = "SELECT coalesce(max(number), 0) FROM changes"  # of the last change that is in the database

_DAMAGE = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_ERROR,
)  # the last: a table is missing


class LedgerError(Exception):
    """The state file cannot be used; the text is for the operator, the server does not start."""


class _Damaged(Exception):
    """The file is not what was once written."""


class StateFile:
    """An open state file. ``warnings`` tells what the operator should know about how it opened.

    ``number`` is that of the last change in it; ``owed``: what the journal has and it has not.
    """

    def __init__(self, path: str | None) -> None:
        """Open or make the file ``path``; None is a database in memory, gone at the end.

        Raises:
            LedgerError: another server has it, a newer or another program wrote it, or the system says no.
        """
        self.path = path
        self.warnings: list[str] = []
        self.moved_aside: str | None = None
        self.journal: ChangeJournal | None = None
        self.number = 0
        self.owed: list[Change] = []
        self._lock = None if path is None else _lock(path)
        try:
            self.connection = self._open()
        except BaseException:
            self._let_go()
            raise

    @property
    def aside(self) -> list[str]:
        """Damaged files that stand beside it, from this start or an earlier one."""
        return [] if self.path is None else [name for name in _aside(self.path) if os.path.exists(name)]

    def close(self) -> None:
        """Close the file and let another server have it."""
        self.connection.close()
        self._let_go()

    def _let_go(self) -> None:
        if self.journal is not None:
            self.journal.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open(self) -> sqlite3.Connection:
        if self.path is None:
            return _connect(":memory:")
        try:
            journal = self.journal = ChangeJournal(self.path + JOURNAL)
            self._touch(self.path)
            try:
                return self._compared(_connect(self.path), journal)
            except _Damaged as error:
                aside = self.moved_aside = _move_aside(self.path)
                self.warnings.append(f"{self.path} was damaged ({error}): kept as {aside}, started empty")
            self._touch(self.path)
            self.owed = journal.everything()
            return _connect(self.path)
        except (sqlite3.Error, OSError, _Damaged) as error:
            raise LedgerError(f"{self.path}: {error}") from None

    def _compared(self, connection: sqlite3.Connection, journal: ChangeJournal) -> sqlite3.Connection:
        """The database, once it is known what it lacks."""
        try:
            self.number = _number(connection, NUMBER)
            self.owed = journal.since(self.number)
        except MissingChanges as error:
            connection.close()
            raise _Damaged(str(error)) from None
        return connection

    def _touch(self, path: str) -> None:
        """Make the file if it is not there; nobody else may read it, for it holds keys."""
        existed = os.path.lexists(path)
        if os.path.islink(path):  # it has another name, with another lock
            raise LedgerError(f"{path} is a symbolic link: name the directory that the file is in")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | OPEN, 0o600)
        try:
            status = os.fstat(descriptor)
            if existed and status.st_size == 0:
                self.warnings.append(f"{path} was empty")
            if status.st_mode & 0o177:
                os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        if not existed:
            settle(os.path.dirname(path) or ".")


def _lock(path: str) -> int:
    try:
        return hold(path)
    except OSError as error:
        raise LedgerError(error.strerror) from None


def _connect(path: str) -> sqlite3.Connection:
    """An open database of today's schema.

    Raises:
        _Damaged: nothing can be trusted in it.
        LedgerError: it is not for this program.
    """
    connection = sqlite3.connect(path, timeout=BUSY / 1000, isolation_level=None)
    connection.text_factory = lambda text: text.decode("utf-8", "replace")
    try:
        _check(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        _upgrade(connection)
        for table, columns in TABLES.items():
            connection.execute(f"SELECT {', '.join(columns)} FROM {table} LIMIT 0")
        connection.execute(NUMBER)
    except sqlite3.DatabaseError as error:
        connection.close()
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGE:
            raise _Damaged(str(error)) from None
        raise
    except BaseException:
        connection.close()
        raise
    return connection


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def _check(connection: sqlite3.Connection, path: str) -> None:
    """Judge whose file it is before anything is written to it, then whether it is whole."""
    version = _number(connection, "PRAGMA user_version")
    owner = _number(connection, "PRAGMA application_id")
    tables = _number(connection, "SELECT count(*) FROM sqlite_master")
    if owner != APPLICATION and (owner or version or tables):
        raise LedgerError(f"{path} is the database of another program")
    if version > SCHEMA:
        raise LedgerError(
            f"{path} has schema {version}, this program knows up to {SCHEMA}: a newer one wrote it"
        )
    (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise _Damaged(verdict)


def _upgrade(connection: sqlite3.Connection) -> None:
    """Bring the schema up to today's, all or nothing."""
    version = _number(connection, "PRAGMA user_version")
    if version == SCHEMA:
        return
    connection.execute("BEGIN IMMEDIATE")
    for statements in _UPGRADES[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {SCHEMA}")
    connection.execute("COMMIT")


def _aside(path: str) -> list[str]:
    return [f"{path}.corrupt-{number}" for number in range(1, MOST_ASIDE + 1)]


def _move_aside(path: str) -> str:
    """Rename a damaged file and what belongs to it; returns its new name."""
    names = _aside(path)
    aside = next((name for name in names if not os.path.exists(name)), names[-1])
    os.replace(path, aside)
    for suffix in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.replace(path + suffix, aside + suffix)
    return aside
