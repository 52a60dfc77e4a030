"""The ledger on real files: what it keeps, whom it lets in, and what becomes of damaged or full disks."""

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from revtunnel.fleet.lease_rows import LeaseRow
from revtunnel.fleet.leases import Leases
from revtunnel.fleet.pools import Pool, PortState
from revtunnel.ground.errors import LocalError
from revtunnel.ground.facts import Fact, Trouble, TroubleOver
from revtunnel.ground.retries import Retries
from revtunnel.state.change_journal import Change, ChangeJournal
from revtunnel.state.ledger import FILE_NAME, DeviceKey, LedgerError, SqliteLedger
from revtunnel.state.state_file import SCHEMA
from tests.support.disks import full_disk
from tests.support.steps import steps

ROW = LeaseRow(20000, "default", "plc-7", "http", PortState.RESERVED, False, None)
ONE, TWO = b"1" * 32, b"2" * 32
PEOPLE = ("people", "people_groups", "user_tokens", "grants", "muted")  # of the fifth schema and the sixth
# and of those behind it
LATER = (
    *("device_records", "host_keys", "subjects", "webhooks", "reservations", *PEOPLE),
    *("edge_keys", "changes", "logins", "versions"),
)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the state file of this test is."""
    return str(tmp_path / FILE_NAME)


@contextlib.contextmanager
def opened(path: str | None, wall: float = 1_700_000_000.0) -> Iterator[SqliteLedger]:
    """A ledger whose wall clock stands still, closed at the end."""
    ledger = SqliteLedger(path, lambda: wall)
    try:
        yield ledger
    finally:
        ledger.close()


def fill(path: str, rows: int = 500) -> None:
    """A state file of several pages."""
    with opened(path) as ledger:
        ledger.save([ROW._replace(port=20000 + number, serial=f"d-{number}") for number in range(rows)], [])
        ledger.put_key("plc-7", ONE, TWO)


# ---- what it keeps


def test_rows_come_back_with_what_is_left_of_their_time(path: str) -> None:
    """Seconds that passed by the wall clock are gone, the rest is as it was written."""
    rows = [
        ROW,
        LeaseRow(20001, "default", "plc-7", "tcp-23", PortState.STICKY, True, 100.0),
        LeaseRow(20002, "default", "a", "x", PortState.QUARANTINED, False, 60.0),
        LeaseRow(20003, "default", "a", "x", PortState.SPOILED, False, -5.0),
    ]
    with opened(path, 1000.0) as ledger:
        ledger.save([*rows, ROW._replace(port=1)], [])
        ledger.save([rows[0]], [1, 2])
        assert sorted(ledger.load()) == rows
    with opened(path, 1070.0) as ledger:
        assert [row.left for row in sorted(ledger.load())] == [None, 30.0, -10.0, -75.0]
        assert ledger.warnings == []


def test_keys_are_kept_replaced_and_withdrawn(path: str) -> None:
    """The two halves that verify a device, and when it was enrolled."""
    with opened(path, 1000.0) as ledger:
        assert ledger.key_of("plc-7") is None
        ledger.put_key("plc-7", ONE, TWO)
        ledger.put_key("plc-8", ONE, ONE)
        assert ledger.remove_key("plc-8")
        assert not ledger.remove_key("plc-8")
    with opened(path, 2000.0) as ledger:
        assert ledger.key_of("plc-7") == DeviceKey(ONE, TWO, 1000.0)
        assert ledger.key_of("plc-8") is None
        ledger.put_key("plc-7", TWO, ONE)
        assert ledger.key_of("plc-7") == DeviceKey(TWO, ONE, 2000.0)
        with pytest.raises(LocalError):
            ledger.put_key("plc-9", ONE[:31], TWO)
        assert ledger.key_of("plc-9") is None


def test_enrolled_serials_are_listed_in_pages() -> None:
    """In order, with a cursor, each once."""
    with opened(None) as ledger:
        for number in range(25):
            ledger.put_key(f"d-{number:02}", ONE, TWO)
        after, seen = "", list[str]()
        while page := ledger.serials_with_keys(after, 10):
            assert len(page) <= 10
            seen += page
            after = page[-1]
        assert seen == [f"d-{number:02}" for number in range(25)]


def test_without_a_path_nothing_touches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In memory, and two of them are not in each other's way."""
    monkeypatch.chdir(tmp_path)
    with opened(None) as one, opened(None) as two:
        one.save([ROW], [])
        assert list(one.load()) == [ROW]
        assert list(two.load()) == []
    assert list(tmp_path.iterdir()) == []


def test_promises_survive_a_restart_in_a_file(path: str) -> None:
    """The allocator and the ledger together: the device finds its port."""
    pool = Pool("default", ((20000, 20999),))
    with opened(path) as ledger:
        table = Leases([pool], 50.0, ledger=ledger)
        ports = {serial: table.open(serial, "x", 50.0).port for serial in ("a", "b", "c")}
    with opened(path) as ledger:
        table = Leases([pool], 7.0, ledger=ledger)
        assert {serial: table.open(serial, "x", 7.0).port for serial in ("c", "d", "a", "b")} == {
            **ports,
            "d": 20003,
        }


# ---- the file


def test_the_file_is_for_its_owner_alone(path: str) -> None:
    """It holds keys: 0600 from the first moment, also if it was wider before, also its log."""
    old = os.umask(0)
    try:
        for mode in (None, 0o666):
            if mode is not None:
                os.chmod(path, mode)
            with opened(path) as ledger:
                ledger.save([ROW], [])
                for name in (path, path + "-wal", path + "-shm", path + ".lock"):
                    assert stat.S_IMODE(os.stat(name).st_mode) == 0o600
    finally:
        os.umask(old)


def test_the_file_is_a_write_ahead_log_of_our_schema(path: str) -> None:
    """What an operator's tools see."""
    fill(path, 1)
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert other.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
        assert other.execute("SELECT port, serial FROM leases").fetchall() == [(20000, "d-0")]


def test_n38_a_second_server_is_told_who_has_the_file(path: str) -> None:
    """And gets it once the first one is gone."""
    with (
        opened(path) as first,
        pytest.raises(LedgerError, match=f"in use by another server, process {os.getpid()}$"),
    ):
        first.save([ROW], [])
        SqliteLedger(path, lambda: 0.0)
    with opened(path) as second:
        assert list(second.load()) == [ROW]


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    """The state directory is made by whoever installs the server, with its own rights."""
    with pytest.raises(LedgerError, match="No such file"):
        SqliteLedger(str(tmp_path / "missing" / FILE_NAME), lambda: 0.0)


def test_a_directory_in_its_place_is_an_error(path: str) -> None:
    """Clear text, and the lock is free again."""
    os.mkdir(path)
    for _ in range(2):
        with pytest.raises(LedgerError, match="directory"):
            SqliteLedger(path, lambda: 0.0)


# ---- damage


@pytest.mark.parametrize("damage", ["noise", "cut", "half", "page", "table"])
def test_n37_a_damaged_file_is_moved_aside(path: str, damage: str) -> None:
    """The server starts empty, says so, and the old bytes are still there for whoever can read them."""
    fill(path)
    if damage == "table":
        with contextlib.closing(sqlite3.connect(path)) as other:
            other.execute("DROP TABLE leases")
    before = Path(path).read_bytes()
    size = len(before)
    after = {
        "noise": os.urandom(size),
        "cut": before[:300],
        "half": before[: size // 2],
        "page": before[:4096] + bytes(4096) + before[8192:],
        "table": before,
    }[damage]
    Path(path).write_bytes(after)
    with opened(path) as ledger:
        assert ledger.moved_aside == path + ".corrupt-1"
        (warning,) = ledger.warnings
        assert "was damaged" in warning
        assert "corrupt-1, started empty" in warning
        assert list(ledger.load()) == []
        ledger.save([ROW], [])
    assert Path(path + ".corrupt-1").read_bytes() == after
    with opened(path) as ledger:
        assert (ledger.warnings, ledger.moved_aside, list(ledger.load())) == ([], None, [ROW])


def test_n37_damage_again_and_again_fills_no_disk(path: str) -> None:
    """Nine files are kept, and a damaged file's log never meets the new one."""
    for number in range(1, 12):
        Path(path).write_bytes(b"x" * 5000)
        Path(path + "-wal").write_bytes(b"y" * 5000)
        with opened(path) as ledger:
            assert ledger.moved_aside == f"{path}.corrupt-{min(number, 9)}"
            ledger.save([ROW], [])
            assert list(ledger.load()) == [ROW]
    assert len(list(Path(path).parent.glob("*.corrupt-?"))) == 9


def test_n37_a_moved_file_leaves_doubt_until_somebody_takes_it_away(path: str) -> None:
    """Who was enrolled or revoked may be in it only; a restart does not make that good."""
    with opened(path) as ledger:
        assert ledger.doubtful is None
    Path(path).write_bytes(b"x" * 5000)
    for _ in range(2):
        with opened(path) as ledger:
            assert ledger.doubtful == path + ".corrupt-1"
            moved = Path(path + ".corrupt-1").rename(path + ".kept")
            assert ledger.doubtful is None
            moved.rename(path + ".corrupt-1")
    with opened(None) as ledger:
        assert ledger.doubtful is None


def test_n37_an_empty_file_is_a_new_one_with_a_warning(path: str) -> None:
    """Cut to nothing: there is nothing to keep, but the operator should know; keys are in the journal."""
    fill(path)
    os.truncate(path, 0)
    with opened(path) as ledger:
        assert ledger.warnings == [
            f"{path} was empty",
            f"{path} lacked 1 changes, which {path}.changes had",
        ]
        assert list(ledger.load()) == []
        assert ledger.serials_with_keys() == ["plc-7"]


def test_rows_that_make_no_sense_are_skipped(path: str) -> None:
    """One spoiled row costs one port its history, and is told."""
    fill(path, 4)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("UPDATE leases SET state = 'lost' WHERE port = 20000")
        other.execute("UPDATE leases SET until = 'soon' WHERE port = 20001")
        other.execute("UPDATE leases SET serial = CAST(x'ff41' AS TEXT) WHERE port = 20002")
        other.execute("UPDATE leases SET port = 70000 WHERE port = 20003")
        other.commit()
    with opened(path) as ledger:
        assert list(ledger.load()) == []
        assert [warning.split()[5] for warning in ledger.warnings] == ["20000", "20001", "20002", "70000"]


# ---- schemas


def test_a_newer_file_is_not_touched(path: str) -> None:
    """Going back to an older program is a decision for people."""
    fill(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    before = Path(path).read_bytes()
    for _ in range(2):
        with pytest.raises(LedgerError, match=f"has schema {SCHEMA + 1}, this program knows up to {SCHEMA}"):
            SqliteLedger(path, lambda: 0.0)
    assert Path(path).read_bytes() == before


def test_an_older_file_is_brought_up_to_date(path: str) -> None:
    """The first schema had leases only; they stay."""
    fill(path, 3)
    with contextlib.closing(sqlite3.connect(path)) as other:
        for table in ("keys", "certificates", "barred", "tokens", "sessions", *LATER):
            other.execute(f"DROP TABLE {table}")
        other.execute("PRAGMA user_version = 1")
    os.unlink(path + ".changes")
    with opened(path) as ledger:
        assert ledger.warnings == []
        assert len(list(ledger.load())) == 3
        ledger.put_key("plc-7", ONE, TWO)
    with opened(path) as ledger:
        assert ledger.serials_with_keys() == ["plc-7"]


def test_a_file_without_certificates_gets_their_tables(path: str) -> None:
    """The second schema had leases and keys; both stay."""
    fill(path, 3)
    with contextlib.closing(sqlite3.connect(path)) as other:
        for table in ("certificates", "barred", "tokens", "sessions", *LATER):
            other.execute(f"DROP TABLE {table}")
        other.execute("PRAGMA user_version = 2")
    os.unlink(path + ".changes")
    with opened(path) as ledger:
        assert (ledger.warnings, ledger.serials_with_keys()) == ([], ["plc-7"])
        ledger.change([("barred", "plc-8", ("plc-8", 1.0))])
        assert ledger.select("SELECT serial FROM barred") == [("plc-8",)]


def test_a_file_without_people_gets_their_tables(path: str) -> None:
    """The fourth schema had everything but people and grants; it stays."""
    fill(path, 3)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("INSERT INTO sessions VALUES ('plc-7', 'default', 21000, '{}')")
        for table in LATER:
            other.execute(f"DROP TABLE {table}")
        for column in ("parent", "key"):
            other.execute(f"ALTER TABLE certificates DROP COLUMN {column}")
        other.execute("PRAGMA user_version = 4")
        other.commit()
    os.unlink(path + ".changes")
    with opened(path) as ledger:
        assert (ledger.warnings, ledger.serials_with_keys()) == ([], ["plc-7"])
        assert ledger.select("SELECT serial, port FROM sessions") == [("plc-7", 21000)]
        ledger.change([("people", "ana", ("ana", "", "", 1.0, "reader"))])
        assert ledger.problem is None
        assert ledger.select("SELECT name FROM people") == [("ana",)]


def test_the_journal_of_an_older_program_lacks_columns(path: str) -> None:
    """They are empty then."""
    fill(path, 3)
    journal = ChangeJournal(path + ".changes")
    journal.append([("people", "ana", ("ana", "plant 3", "", 1.0))])
    journal.close()
    with opened(path) as ledger:
        assert ledger.select("SELECT name, note, role FROM people") == [("ana", "plant 3", "")]


def test_another_programs_database_is_not_touched(path: str) -> None:
    """A wrong setting must not eat somebody's data."""
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE leases (who TEXT)")
    with pytest.raises(LedgerError, match="another program"):
        SqliteLedger(path, lambda: 0.0)
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("SELECT * FROM leases").fetchall() == []


# ---- a disk that does not take it


def test_n37_a_full_disk_loses_nothing_while_the_process_lives(path: str) -> None:
    """Nothing is raised, the change counts, `problem` tells, and the next change brings all to the disk."""
    with opened(path) as ledger:
        ledger.save([ROW], [])
        ledger.put_key("old", ONE, TWO)
        with full_disk(4096):
            ledger.save([ROW._replace(port=20001)], [20000])
            assert ledger.problem is not None
            ledger.put_key("new", ONE, TWO)
            assert ledger.remove_key("old")
            assert [row.port for row in ledger.load()] == [20001]
            assert ledger.serials_with_keys() == ["new"]
            assert ledger.key_of("old") is None
        ledger.save([ROW._replace(port=20002)], [])
        assert ledger.problem is None
    with opened(path) as ledger:
        assert sorted(row.port for row in ledger.load()) == [20001, 20002]
        assert ledger.serials_with_keys() == ["new"]


def test_n37_what_a_full_disk_did_not_take_is_saved_by_itself(path: str) -> None:
    """In order, seconds after there is room; the problem lasts as long, and is said at both ends."""
    clock, facts = Clock(), list[Fact]()
    with opened(path) as ledger:
        ledger.retries = Retries(clock, facts.append, lambda: 0.0)
        ledger.put_key("old", ONE, TWO)
        with full_disk(4096):
            ledger.put_key("new", ONE, TWO)
            assert ledger.remove_key("new")
            ledger.save([ROW], [])
            ledger.change([BARRED])
            clock.advance(2)
            assert list(ledger.retries.problems) == ["state file"]
        clock.advance(4)
        assert (ledger.problem, ledger.retries.problems) == (None, {})
        assert [type(fact) for fact in facts] == [Trouble, TroubleOver]
        for file in (path, path + "-wal", path + ".changes"):  # as kill -9 leaves them
            shutil.copy(file, file.replace(FILE_NAME, "copy"))
    with opened(path.replace(FILE_NAME, "copy")) as ledger:
        assert ledger.warnings == []
        assert ledger.serials_with_keys() == ["old"]
        assert ledger.load() == [ROW]
        assert ledger.select("SELECT serial FROM barred") == [("plc-9",)]


def test_a_file_locked_by_other_tools_is_written_later(path: str) -> None:
    """Somebody's open transaction holds up one save, not the server."""
    with opened(path) as ledger, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for port in range(20000, 20100):
            ledger.save([ROW._replace(port=port)], [])
        assert ledger.problem == "database is locked"
        other.execute("COMMIT")
        ledger.save([], [20000])
        assert ledger.problem is None
        assert other.execute("SELECT count(*) FROM leases").fetchone() == (99,)


def test_a_save_that_fails_half_way_keeps_no_transaction_open(path: str) -> None:
    """It was begun and could not be written: the next one begins anew, and brings both."""
    with opened(path) as ledger:
        says_no = "BEFORE INSERT ON keys BEGIN SELECT RAISE(FAIL, 'not now'); END"
        ledger._connection.execute(f"CREATE TEMP TRIGGER no {says_no}")
        ledger.put_key("one", ONE, TWO)
        assert ledger.problem == "not now"
        ledger._connection.execute("DROP TRIGGER no")
        ledger.put_key("two", ONE, TWO)
        assert ledger.problem is None
    with opened(path) as ledger:
        assert ledger.serials_with_keys() == ["one", "two"]


def test_what_is_on_the_disk_is_not_written_again(path: str) -> None:
    """Nor held: what somebody else took out of the file does not come back with the next change."""
    with opened(path) as ledger, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        ledger.save([ROW], [])
        other.execute("DELETE FROM leases")
        ledger.save([ROW._replace(port=20001)], [])
        assert other.execute("SELECT port FROM leases").fetchall() == [(20001,)]


def test_closing_tries_once_more(path: str) -> None:
    """What was pending is not lost by an orderly stop."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        with opened(path) as ledger:
            other.execute("BEGIN IMMEDIATE")
            ledger.save([ROW], [])
            assert ledger.problem
            other.execute("COMMIT")
        assert other.execute("SELECT count(*) FROM leases").fetchone() == (1,)


def test_use_after_close_is_a_bug(path: str) -> None:
    """Not a problem of the disk, so it is not hidden."""
    with opened(path) as ledger:
        pass
    with pytest.raises(sqlite3.ProgrammingError):
        ledger.save([ROW], [])


# ---- processes

WRITER = """
import sys, time
from revtunnel.fleet.lease_rows import LeaseRow
from revtunnel.fleet.pools import PortState
from revtunnel.state.ledger import SqliteLedger
ledger = SqliteLedger(sys.argv[1], time.time)
for number in range(1_000_000):
    port, gone = 20000 + number % 1000, 20000 + (number + 500) % 1000
    ledger.save([LeaseRow(port, "default", f"d-{number}", "x", PortState.RESERVED, False, None)], [gone])
    print(number, flush=True)
"""


@pytest.mark.slow
def test_n38_kill_9_of_a_writer_leaves_all_it_had_said(path: str) -> None:
    """Killed in the middle of its writes, five times: what it told as saved is there, its lock is not."""
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            for number in range(1100):
                assert writer.stdout.readline() == f"{number}\n"
            with pytest.raises(LedgerError, match=f"process {writer.pid}$"):
                SqliteLedger(path, lambda: 0.0)
            writer.kill()
            said = 1099 + len(writer.stdout.readlines())
        with opened(path) as ledger:
            assert ledger.warnings == []
            rows = {row.port: row.serial for row in ledger.load()}
            newest = max(int(serial[2:]) for serial in rows.values())
            assert newest in (said, said + 1)
            assert set(rows.values()) == {f"d-{number}" for number in range(newest - 499, newest + 1)}


def test_a_page_of_serials_costs_no_look_at_the_others() -> None:
    """Ten of twenty and ten of two hundred."""
    costs = []
    for size in (20, 200):
        with opened(None) as ledger:
            for number in range(size):
                ledger.put_key(f"d-{number:03}", ONE, TWO)
            costs.append(steps(ledger.serials_with_keys, "d-005", 10))
    assert costs[1] <= costs[0] * 1.3


def test_a_link_to_a_file_elsewhere_is_not_followed(path: str, tmp_path: Path) -> None:
    """It has a lock beside each of its names: two servers could have it."""
    other = tmp_path / "elsewhere.db"
    fill(str(other), 1)
    before = other.read_bytes()
    os.symlink(other, path)
    with pytest.raises(LedgerError, match="symbolic link"):
        SqliteLedger(path, lambda: 0.0)
    assert other.read_bytes() == before


# ---- the journal beside it


def test_a_number_that_is_none_is_no_line(path: str) -> None:
    """Even with the sum that it should have, as only somebody can write who means to."""
    text = b'{"number":1e999,"changes":[]}'
    Path(path + ".changes").write_bytes(b"%08x %b\n" % (zlib.crc32(text), text))
    journal = ChangeJournal(path + ".changes")
    assert (journal.number, journal.everything()) == (0, [])
    journal.close()


BARRED = ("barred", "plc-9", ("plc-9", 5.0))


def wipe_log(path: str) -> None:
    """The write-ahead log is gone."""
    os.unlink(path + "-wal")


def spoil_log(path: str) -> None:
    """It is damaged: SQLite takes it for empty."""
    log = Path(path + "-wal")
    log.write_bytes(os.urandom(log.stat().st_size))


def empty(path: str) -> None:
    """The database is cut to nothing, its log goes with it."""
    os.truncate(path, 0)
    os.unlink(path + "-wal")


def lose(path: str) -> None:
    """The database is gone."""
    os.unlink(path)
    os.unlink(path + "-wal")


def spoil(path: str) -> None:
    """The database is noise."""
    Path(path).write_bytes(os.urandom(20_000))


HARM = [wipe_log, spoil_log, empty, lose, spoil]


def killed_after(path: str, changes: list[Change]) -> None:
    """A server that made these changes is killed: its log stays."""
    ledger = SqliteLedger(path, lambda: 5.0)
    ledger.change(changes)
    for suffix in ("", "-wal", ".changes"):
        shutil.copy(path + suffix, path + suffix + "~")
    ledger.close()
    for suffix in ("", "-wal", ".changes"):
        os.replace(path + suffix + "~", path + suffix)
    Path(path + "-shm").unlink(missing_ok=True)


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("anew", [False, True], ids=["first journal", "begun anew"])
def test_a_revocation_outlives_the_database(path: str, harm: Callable[[str], None], anew: bool) -> None:
    """Log damaged, lost, database empty, gone, noise: who was revoked is; doubt where more may be missing."""
    fill(path)
    with opened(path) as ledger:
        ledger.change([("barred", "plc-8", ("plc-8", 4.0))])
        if anew:
            ledger._begin_journal(ledger._file.journal)  # type: ignore[arg-type]
    killed_after(path, [BARRED, ("keys", "new", ("new", ONE, TWO, 5.0))])
    harm(path)
    for _ in range(2):  # and at the start after that
        with opened(path) as ledger:
            assert sorted(ledger.select("SELECT serial FROM barred")) == [("plc-8",), ("plc-9",)]
            assert ledger.key_of("new") == DeviceKey(ONE, TWO, 5.0)
            assert (ledger.key_of("plc-7") is not None) or ledger.doubtful
            assert bool(ledger.doubtful) == (harm is spoil or (anew and harm in (empty, lose)))
            assert ledger.problem is None


def test_an_older_database_is_taken_for_damaged(path: str) -> None:
    """A copy from before the journal was begun anew: what went in between is nowhere else."""
    fill(path)
    shutil.copy(path, path + ".old")
    with opened(path) as ledger:
        ledger.change([BARRED])
        ledger._begin_journal(ledger._file.journal)  # type: ignore[arg-type]
    os.replace(path + ".old", path)
    with opened(path) as ledger:
        assert "changes 2 to 2 are not all in" in ledger.warnings[0]
        assert ledger.doubtful == path + ".corrupt-1"
        assert ledger.select("SELECT serial FROM barred") == [("plc-9",)]


def test_a_large_journal_is_begun_anew(path: str) -> None:
    """With the revocations, which it keeps for ever, and nothing else."""
    with opened(path) as ledger:
        ledger.change([BARRED])
        for number in range(60):
            ledger.change([("people", "ana", ("ana", "x" * 100_000, "", float(number), ""))])
        assert os.path.getsize(path + ".changes") < 3_000_000
    assert b'"plc-9"' in Path(path + ".changes").read_bytes().splitlines()[0]
    os.truncate(path, 0)
    with opened(path) as ledger:
        assert ledger.select("SELECT serial FROM barred") == [("plc-9",)]
        assert ledger.doubtful


def test_a_file_of_before_the_journal_gets_one(path: str) -> None:
    """And is missed from then on, when it is emptied: it had rows."""
    fill(path)
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("DELETE FROM changes")
        other.commit()
    os.unlink(path + ".changes")
    with opened(path) as ledger:
        assert (ledger.warnings, ledger.doubtful) == ([], None)
    os.truncate(path, 0)
    with opened(path) as ledger:
        assert ledger.doubtful


def test_an_empty_database_that_never_had_a_row_is_no_doubt(path: str) -> None:
    """A server that was installed and never used."""
    with opened(path) as ledger:
        ledger.save([ROW], [])
    os.truncate(path, 0)
    with opened(path) as ledger:
        assert (ledger.warnings, ledger.doubtful) == ([f"{path} was empty"], None)


def test_the_journal_s_damage_is_told_and_mended(path: str) -> None:
    """The database has it all: the journal is begun anew."""
    fill(path)
    with opened(path) as ledger:
        ledger.change([BARRED])
        ledger.change([("barred", "plc-5", ("plc-5", 5.0))])
    journal = Path(path + ".changes")
    whole = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([whole[0], b"noise\n", *whole[2:]]))
    with opened(path) as ledger:
        assert ledger.warnings == [f"{path}.changes: line 2 is damaged: begun anew"]
        assert ledger.doubtful is None
    with opened(path) as ledger:
        assert ledger.warnings == []
        ledger.change([("barred", "plc-6", ("plc-6", 5.0))])
    os.truncate(path, 0)
    with opened(path) as ledger:
        found = ledger.select("SELECT serial FROM barred ORDER BY serial")
        assert found == [("plc-5",), ("plc-6",), ("plc-9",)]
        assert ledger.doubtful


def test_a_line_that_was_not_finished_is_dropped(path: str) -> None:
    """Nobody was answered for it; the next one stands in its place."""
    fill(path)
    with opened(path) as ledger:
        ledger.change([BARRED])
    with Path(path + ".changes").open("ab") as journal:
        journal.write(b'1234abcd {"number":3,"chan')
    with opened(path) as ledger:
        assert ledger.warnings == []
        ledger.change([("barred", "plc-6", ("plc-6", 5.0))])
    os.truncate(path, 0)
    with opened(path) as ledger:
        assert [serial for (serial,) in ledger.select("SELECT serial FROM barred")] == ["plc-6", "plc-9"]


def test_a_journal_that_takes_nothing_is_a_problem(path: str) -> None:
    """The database has the change, and the journal gets it with the next one."""
    with opened(path) as ledger:
        ledger.put_key("old", ONE, TWO)
        with full_disk(os.path.getsize(path + ".changes") + 10):
            ledger.change([BARRED])
            assert ledger.problem is not None
        ledger.change([("barred", "plc-6", ("plc-6", 5.0))])
        assert ledger.problem is None
    os.truncate(path, 0)
    with opened(path) as ledger:
        assert [serial for (serial,) in ledger.select("SELECT serial FROM barred")] == ["plc-6", "plc-9"]
        assert ledger.serials_with_keys() == ["old"]


def refusing(real: Callable[..., int], name: str) -> Callable[..., int]:
    """``os.open`` in a process that has no descriptor left for one file."""

    def refuse(path: object, *arguments: int, **named: int) -> int:
        if path == name:
            raise OSError(24, os.strerror(24))
        return real(path, *arguments, **named)

    return refuse


def test_a_journal_that_was_replaced_and_not_opened_is_written_no_more(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No change goes to the file that has no name any more: it waits for the new one."""
    with opened(path) as ledger:
        ledger.put_key("old", ONE, TWO)
        monkeypatch.setattr("revtunnel.state.change_journal.LARGE", 10)
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", refusing(os.open, path + ".changes"))
            ledger.put_key("new", ONE, TWO)
            ledger.change([BARRED])
            assert ledger.problem is not None and ".changes" in ledger.problem
        ledger.change([("barred", "plc-6", ("plc-6", 5.0))])
        assert ledger.problem is None
    os.truncate(path, 0)
    with opened(path) as ledger:
        assert [serial for (serial,) in ledger.select("SELECT serial FROM barred")] == ["plc-6", "plc-9"]


def test_a_journal_that_was_taken_away_is_begun_anew(path: str) -> None:
    """By somebody who tidied up: what follows goes to a file that has a name, with the revocations so far."""
    with opened(path) as ledger:
        ledger.change([BARRED])
        os.unlink(path + ".changes")
        ledger.change([("barred", "plc-6", ("plc-6", 5.0))])
        assert ledger.problem is None
    os.truncate(path, 0)
    with opened(path) as ledger:
        assert [serial for (serial,) in ledger.select("SELECT serial FROM barred")] == ["plc-6", "plc-9"]


@pytest.mark.parametrize("bring", [lambda ledger: ledger.save([ROW], []), lambda ledger: ledger.change([])])
def test_what_reached_the_journal_late_is_not_missed_in_the_database(
    path: str, bring: Callable[[SqliteLedger], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number in the database follows, whatever brings the change to the journal in the end."""

    def refuse(journal: ChangeJournal, changes: object) -> None:
        raise OSError(28, os.strerror(28))

    with opened(path) as ledger:
        ledger.put_key("old", ONE, TWO)
        with monkeypatch.context() as patch:
            patch.setattr(ChangeJournal, "append", refuse)
            ledger.change([BARRED])
            assert ledger.problem is not None
        bring(ledger)
        assert ledger.problem is None
    with opened(path) as ledger:
        assert ledger.warnings == []


def test_leases_do_not_wait_for_the_disk(path: str) -> None:
    """They come and go with devices, and a power cut may take the last of them."""
    with opened(path) as ledger:
        for port in range(20000, 20100):
            ledger.save([ROW._replace(port=port)], [])
        assert ledger.select("PRAGMA synchronous") == [(1,)]
        assert len(Path(path + ".changes").read_bytes().splitlines()) == 1
        ledger.put_key("a", ONE, TWO)
        assert ledger.select("PRAGMA synchronous") == [(2,)]


def test_the_journal_is_for_its_owner_alone_and_no_link(path: str) -> None:
    """It holds what checks keys, as the database does."""
    fill(path)
    assert stat.S_IMODE(os.stat(path + ".changes").st_mode) == 0o600
    os.rename(path + ".changes", path + ".else")
    os.symlink(path + ".else", path + ".changes")
    with pytest.raises(LedgerError, match="changes"):
        SqliteLedger(path, lambda: 0.0)
