"""Files that former programs wrote: each schema as it was, row by row, and what a node makes of them."""

import contextlib
import hashlib
import sqlite3
from pathlib import Path

import pytest

from revtunnel.cluster.shared_tables import SHARED_TABLES, SharedTables
from revtunnel.state import state_file
from revtunnel.state.ledger import FILE_NAME, SqliteLedger
from revtunnel.state.state_file import SCHEMA

NOON = 1_800_000_000.0
KEY = b"k" * 32
# of the twelfth schema, which was the last one that no node shared: a row of each table that they share now
ROWS = {
    "people_groups": ("ops", "", NOON),
    "people": ("ana", "plant 3", "ops", NOON, "admin"),
    "user_tokens": (b"m" * 32, "ana", "", NOON, NOON + 1e6, None, "", ""),
    "grants": ("9", "@ops", "*", "*", "start", None, None, NOON, "ops"),
    "logins": ("ana", "hash", b"s" * 20, 7),
    "subjects": ("ana", "sub-1", 1),
    "keys": ("plc", KEY, KEY, NOON),
    "edge_keys": ("edge", b"e" * 32, NOON),
    "tokens": (b"t" * 32, "new", NOON + 60),
    "muted": ("plc", "why", "ops", NOON),
    "host_keys": ("plc ssh", "AAAA", "ana", NOON),
    "barred": ("bad", NOON),
}
BESIDE = {
    "leases": (21000, "default", "plc", "ssh", "leased", 1, None),
    "reservations": (21001, "plc", "web", "ops", NOON),
    "device_records": ("plc", "{}", "ops", NOON),
}


def made(path: str, schema: int) -> sqlite3.Connection:
    """A file as the program of a schema made it."""
    connection = sqlite3.connect(path)
    for statements in state_file._UPGRADES[:schema]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {state_file.APPLICATION}")
    connection.execute(f"PRAGMA user_version = {schema}")
    return connection


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Of a file of the twelfth schema, with a row in each table."""
    path = str(tmp_path / FILE_NAME)
    with contextlib.closing(made(path, 12)) as connection, connection:
        for table, row in {**ROWS, **BESIDE}.items():
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    return path


def opened(path: str) -> "contextlib.closing[SqliteLedger]":
    """The ledger in a file."""
    return contextlib.closing(SqliteLedger(path, lambda: NOON))


def test_what_files_were_made_by_is_not_altered() -> None:
    """They are out there; a new schema is one entry more."""
    said = hashlib.sha256(repr(state_file._UPGRADES[:13]).encode()).hexdigest()
    assert said[:16] == "5123bea3a4bef529"


@pytest.mark.parametrize("schema", range(1, SCHEMA))
def test_every_schema_is_brought_up_to_today(tmp_path: Path, schema: int) -> None:
    """To tables and columns as a new file has them, once."""
    old, new = str(tmp_path / "old"), str(tmp_path / "new")
    made(old, schema).close()
    for _ in range(2):
        with opened(old) as one, opened(new) as other:
            listed = "SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name"
            assert one.select(listed) == other.select(listed) and one.warnings == []
            assert one.select("PRAGMA user_version") == [(SCHEMA,)]


def test_a_file_of_the_twelfth_schema_is_shared_whole(path: str) -> None:
    """Every row stays as it is, is told to the others, and gives way to what they have."""
    with opened(path) as ledger:
        assert {table: [*ledger.rows(table).values()] for table in ROWS} == {
            table: [row] for table, row in ROWS.items()
        }
        assert all([*ledger.rows(table).values()] == [row] for table, row in BESIDE.items())
        tables = SharedTables(ledger)
        assert {row[2] for row in ledger.rows("versions").values()} == {0}
        told = dict(tables.to_share())
        assert {id.partition(":")[0] for id in told} == {*SHARED_TABLES} and len(told) == len(ROWS)
    with opened(path) as ledger:  # as after a restart of today's program
        tables = SharedTables(ledger)
        assert {row[2] for row in ledger.rows("versions").values()} == {1} and dict(tables.to_share()) == told
        ledger.change([("keys", "plc", None)])
        with contextlib.closing(SqliteLedger(None, lambda: NOON)) as empty:
            SharedTables(empty).learn(dict(tables.to_share()))
            assert {table for table in SHARED_TABLES if empty.rows(table)} == {*SHARED_TABLES} - {"keys"}
