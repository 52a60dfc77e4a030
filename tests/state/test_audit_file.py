"""The audit file on real disks: what is kept, what a crash or a full disk leaves, who may have it."""

import contextlib
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from revtunnel.ground.limits import AuditLimits
from revtunnel.state.audit_chain import NOTHING, Head, files_of, verify
from revtunnel.state.audit_file import FILE_NAME, AuditFile, AuditFull, Sync
from revtunnel.state.audit_records import AuditRecord, AuditRefused, RightsChanged, SessionOpened
from tests.support.disks import full_disk

NOON = 1_800_000_000.0
LIMITS = AuditLimits()
OPENED = SessionOpened("s1", "ana", "g1", "plc-7", ("ssh",), "192.0.2.1:4711", "192.0.2.9:1")
REFUSED = AuditRefused("start", "ana", "", "plc-7", ("ssh",), "192.0.2.1:4711", "", "no-grant")
CHANGED = RightsChanged("user-added", "ana", "root")


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the file of this test is."""
    return str(tmp_path / FILE_NAME)


def made(path: str, limits: AuditLimits = LIMITS, sync: Sync = Sync.LASTING) -> AuditFile:
    """An open file whose clock stands still."""
    return AuditFile(path, "gate revtunnel 1", limits, sync, lambda: NOON)


@contextlib.contextmanager
def opened(path: str, limits: AuditLimits = LIMITS, sync: Sync = Sync.LASTING) -> Iterator[AuditFile]:
    """One that is closed at the end."""
    file = made(path, limits, sync)
    try:
        yield file
    finally:
        file.close()


def rows(path: str) -> list[dict[str, Any]]:
    """All records of all files, of which nothing is wrong."""
    found = verify(files_of(path))
    assert found.ok, found.fault
    return [json.loads(line) for each in files_of(path) for line in Path(each).read_bytes().splitlines()]


def events(path: str) -> list[str]:
    """What they tell."""
    return [row["event"] for row in rows(path)]


@contextlib.contextmanager
def killed(path: str) -> Iterator[AuditFile]:
    """One that is not closed: nothing is written at its end."""
    file = made(path)
    try:
        yield file
    finally:
        file._let_go()


# ---- what is kept


def test_records_follow_each_other_over_restarts(path: str, no_leaks: None) -> None:
    """One chain; each start and each orderly end is in it."""
    with opened(path) as file:
        file.append(OPENED)
        file.append(REFUSED, CHANGED)
        head = file.head
    with opened(path) as file:
        assert file.head.seq == head.seq + 2  # closed, opened
        file.append(CHANGED)
    assert events(path) == [
        *("audit-opened", "session-opened", "refused", "rights-changed", "audit-closed"),
        *("audit-opened", "rights-changed", "audit-closed"),
    ]
    assert [row["cause"] for row in rows(path) if row["event"] == "audit-opened"] == ["start", "start"]
    assert rows(path)[1] | {"prev": "", "hash": ""} == {
        "device_address": "192.0.2.9:1",
        "event": "session-opened",
        "grant": "g1",
        "hash": "",
        "prev": "",
        "seq": 2,
        "serial": "plc-7",
        "services": ["ssh"],
        "session": "s1",
        "time": "2027-01-15T08:00:00.000000Z",
        "user": "ana",
        "user_address": "192.0.2.1:4711",
    }
    assert verify([path], head).ok
    assert verify([path]).closed


def test_what_was_appended_is_in_the_file_at_once(path: str) -> None:
    """Nothing waits in the process."""
    with opened(path) as file:
        for number in range(5):
            file.append(REFUSED)
            assert verify([path]).head == file.head == Head(number + 2, rows(path)[-1]["hash"])


class Disk:
    """Counts what is waited for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits = 0
        self._real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", self)

    def __call__(self, file: int) -> None:
        self.waits += 1
        self._real(file)


@pytest.mark.parametrize(
    ("sync", "waits"), [(Sync.EACH, [1, 1, 1, 1]), (Sync.LASTING, [1, 0, 1, 1]), (Sync.NEVER, [0, 0, 0, 0])]
)
def test_the_disk_is_waited_for_as_it_is_set(
    path: str, sync: Sync, waits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for all records of a call; refusals, of which there may be many, wait for the next other one."""
    with opened(path, sync=sync) as file:
        disk = Disk(monkeypatch)
        for records, expected in zip(
            ([OPENED], [REFUSED, REFUSED], [REFUSED, CHANGED], [CHANGED] * 5), waits, strict=True
        ):
            before = disk.waits
            file.append(*records)
            assert disk.waits - before == expected


# ---- whose file


def test_the_file_is_for_owner_and_group(path: str) -> None:
    """0640 whatever the umask is, and whatever it was before."""
    old = os.umask(0)
    try:
        for mode in (None, 0o666):
            if mode is not None:
                os.chmod(path, mode)
            with opened(path):
                assert stat.S_IMODE(os.stat(path).st_mode) == 0o640
    finally:
        os.umask(old)
    old = os.umask(0o077)
    try:
        with opened(path + ".x"):
            assert stat.S_IMODE(os.stat(path + ".x").st_mode) == 0o640
    finally:
        os.umask(old)


def test_one_process_writes(path: str, no_leaks: None) -> None:
    """The other one is told who."""
    with opened(path) as file:
        with pytest.raises(OSError, match=f"in use by another server, process {os.getpid()}"):
            made(path)
        file.append(OPENED)
    with opened(path):
        pass


def put_link(path: Path) -> None:
    """A link to a file of somebody else."""
    (path.parent / "precious").write_text("kept")
    path.symlink_to(path.parent / "precious")


def put_other_name(path: Path) -> None:
    """A file with a second name."""
    (path.parent / "precious").write_text("kept")
    os.link(path.parent / "precious", path)


@pytest.mark.parametrize(
    ("put", "text"),
    [
        (put_link, "is a symbolic link"),
        (put_other_name, "has another name too"),
        (os.mkfifo, "is no plain file"),
        (os.mkdir, "directory"),
    ],
)
def test_nothing_else_is_taken_for_it(path: str, put: Any, text: str, no_leaks: None) -> None:
    """It is not opened, waited for or written to; the lock is free again."""
    put(Path(path))
    for _ in range(2):
        with pytest.raises(OSError, match=text):
            made(path)
    precious = Path(path).parent / "precious"
    assert not precious.exists() or precious.read_text() == "kept"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_not_taken(path: str, no_leaks: None) -> None:
    """He could change it under our hands."""
    Path(path).touch()
    os.chown(path, 65534, 65534)
    with pytest.raises(OSError, match="belongs to user 65534"):
        made(path)


def test_a_missing_directory_is_an_error(tmp_path: Path, no_leaks: None) -> None:
    """It is made by whoever installs the server."""
    with pytest.raises(FileNotFoundError):
        made(str(tmp_path / "missing" / FILE_NAME))


# ---- rotation


def small(files: int = 100) -> AuditLimits:
    """A few records a file."""
    return replace(LIMITS, size=1000, files=files)


def test_rotation_keeps_the_chain(path: str, no_leaks: None) -> None:
    """Over files and restarts; a file is called after its last record."""
    for _ in range(3):
        with opened(path, small()) as file:
            for _ in range(10):
                file.append(REFUSED)
    names = files_of(path)
    assert len(names) > 5
    for name in names[:-1]:
        last = json.loads(Path(name).read_bytes().splitlines()[-1])
        assert name.endswith(f"audit-{last['seq']:012}.jsonl")
        assert 1000 <= os.stat(name).st_size < 2000
        assert stat.S_IMODE(os.stat(name).st_mode) == 0o640
    assert events(path).count("refused") == 30
    firsts = [json.loads(Path(name).read_bytes().splitlines()[0]) for name in names]
    assert {(row["event"], row["cause"]) for row in firsts[1:]} == {("audit-opened", "rotation")}
    for name in names[1:-1]:
        assert not verify([each for each in names if each != name]).ok


def test_the_oldest_files_go_and_it_is_written_that_they_did(path: str) -> None:
    """So many stay, the one being written among them."""
    with opened(path, small(3)) as file:
        for _ in range(30):
            file.append(REFUSED)
            assert len(files_of(path)) <= 3
    kept = {Path(name).name for name in files_of(path)}
    told = [name for row in rows(path) for name in row.get("removed", [])]
    assert told
    assert not kept & set(told)
    assert rows(path)[0]["seq"] > 1
    with opened(path, small(1)):
        assert files_of(path) == [path]
    assert len(rows(path)[-2]["removed"]) == 2


def test_only_the_newest_file_is_needed_to_go_on(path: str) -> None:
    """A crash between renaming the full one and making another."""
    with killed(path) as file:
        file.append(REFUSED)
        head = file.head
    older = Path(path).with_name("audit-000000000002.jsonl")
    Path(path).rename(older)
    with opened(path) as file:
        assert file.head.seq == head.seq + 1
    assert events(path) == ["audit-opened", "refused", "audit-opened", "audit-closed"]


def test_a_full_file_that_cannot_be_renamed_is_written_on(path: str) -> None:
    """Up to twice its size, then nothing is taken; told all the time, and mended when the way is free."""
    with opened(path, small()) as file:
        while os.stat(path).st_size < 1000:
            file.append(REFUSED)
        blocks = []
        with pytest.raises(
            AuditFull, match=r"it is full and cannot be renamed: audit-0000000000[0-9]*\.jsonl is there"
        ):
            while True:
                blocks.append(Path(path).with_name(f"audit-{file.head.seq:012}.jsonl"))
                blocks[-1].write_text("old")
                file.append(REFUSED)
                assert "cannot be renamed" in str(file.problem)
        assert 2000 <= os.stat(path).st_size < 3000
        for block in blocks:
            assert block.read_text() == "old"
            block.unlink()
        file.append(REFUSED)
        assert file.problem is None
    assert os.stat(files_of(path)[0]).st_size >= 2000
    assert events(path).count("audit-gap") == 1


# ---- a disk that does not take it


def test_a_full_disk_is_an_error_for_the_caller_and_leaves_no_half(path: str, no_leaks: None) -> None:
    """The file ends with a whole record; how many are missing is the next thing that is in it."""
    with opened(path) as file:
        file.append(OPENED)
        head, size = file.head, os.stat(path).st_size
        with full_disk(size + 100):
            for _ in range(3):
                with pytest.raises(AuditFull, match=r"audit\.jsonl: File too large"):
                    file.append(REFUSED, OPENED)
                assert file.problem == "File too large"
                assert os.stat(path).st_size == size
                assert verify([path]).head == file.head == head
        file.append(CHANGED)
        assert file.problem is None
    assert events(path) == [
        *("audit-opened", "session-opened", "audit-gap", "rights-changed", "audit-closed")
    ]
    gap = rows(path)[2]
    assert (gap["lost"], gap["since"], gap["problem"]) == (6, "2027-01-15T08:00:00.000000Z", "File too large")


def test_a_start_on_a_full_disk_goes_on(path: str, no_leaks: None) -> None:
    """Nothing is taken until there is room; then all that has to be there comes first."""
    with full_disk(10):
        file = made(path)
        assert file.problem == "File too large"
        with pytest.raises(AuditFull):
            file.append(OPENED)
    file.append(OPENED)
    assert file.problem is None
    file.close()
    assert events(path) == ["audit-opened", "audit-gap", "session-opened", "audit-closed"]


def test_an_end_on_a_full_disk_is_an_end(path: str, no_leaks: None) -> None:
    """It cannot be written that it was in order."""
    file = made(path)
    with full_disk(os.stat(path).st_size):
        file.close()
    assert not verify([path]).closed
    with opened(path):
        pass


def test_a_disk_that_fails_when_it_is_waited_for(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it did not take for sure is taken out again."""
    with opened(path) as file:
        real = os.fdatasync

        def fails(descriptor: int) -> None:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(os, "fdatasync", fails)
        with pytest.raises(AuditFull, match="Input/output error"):
            file.append(OPENED)
        monkeypatch.setattr(os, "fdatasync", real)
        file.append(CHANGED)
    assert events(path) == ["audit-opened", "audit-gap", "rights-changed", "audit-closed"]


def test_what_cannot_even_be_taken_out_is_set_aside(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is opened anew for the next record, as after a crash."""
    with opened(path) as file:
        size = os.stat(path).st_size
        with full_disk(size + 100), monkeypatch.context() as patch:

            def fails(descriptor: int, length: int) -> None:
                raise OSError(5, "Input/output error")

            patch.setattr(os, "ftruncate", fails)
            with pytest.raises(AuditFull):
                file.append(OPENED)
            assert os.stat(path).st_size == size + 100
        file.append(CHANGED)
    assert events(path) == [
        *("audit-opened", "audit-opened", "audit-recovered", "audit-gap", "rights-changed", "audit-closed")
    ]
    assert len(Path(path + ".broken-1").read_bytes()) == 100


# ---- somebody else's hands


def test_a_file_that_was_taken_away_is_made_again(path: str) -> None:
    """Its records are missing then, and that is found; moved, they are not."""
    with opened(path) as file:
        file.append(OPENED)
        Path(path).rename(path + ".1")
        file.append(CHANGED)
        assert verify([path + ".1", path]).ok
        assert b'"cause":"replaced"' in Path(path).read_bytes().splitlines()[0]
        os.unlink(path)
        file.append(CHANGED)
    assert verify([path + ".1", path]).fault == f"{path}:1: records 3 to 4 are missing before record 5"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o640


def test_a_link_that_is_put_in_its_place_is_not_followed(path: str) -> None:
    """Nothing is taken until it is gone."""
    with opened(path) as file:
        os.unlink(path)
        put_link(Path(path))
        for _ in range(2):
            with pytest.raises(AuditFull, match="is a symbolic link"):
                file.append(CHANGED)
        assert (Path(path).parent / "precious").read_text() == "kept"
        os.unlink(path)
        file.append(CHANGED)
        assert file.problem is None


@pytest.mark.parametrize("what", ["cut", "grown", "emptied", "older"])
def test_a_file_that_somebody_else_wrote_to_is_told(path: str, what: str) -> None:
    """The chain goes on from what we know, so that whatever was lost is found."""
    with opened(path) as file:
        file.append(OPENED)
        whole = Path(path).read_bytes()
        file.append(CHANGED)
        lines = Path(path).read_bytes().splitlines(keepends=True)
        data = {
            "cut": b"".join(lines)[:-30],
            "grown": b"".join(lines) + b"hello",
            "emptied": b"",
            "older": whole,
        }[what]
        Path(path).write_bytes(data)
        file.append(REFUSED)
    found = verify([path])
    assert (
        found.fault[len(path) :]
        == {
            "cut": ":3: record 3 is missing before record 4",
            "grown": "",
            "emptied": ":1: records before 4 were taken away while the file was being written",
            "older": ":3: record 3 is missing before record 4",
        }[what]
    )
    text = Path(path).read_text()
    assert '"cause":"replaced"' in text
    assert ("audit-recovered" in text) == (what in ("cut", "grown"))


# ---- crashes


def test_a_torn_line_is_set_aside_and_told(path: str) -> None:
    """The next start goes on behind the last whole one."""
    with killed(path) as file:
        file.append(OPENED)
    with open(path, "ab") as other:
        other.write(b'{"half')
    with opened(path) as file:
        file.append(CHANGED)
    assert events(path) == [
        *(
            "audit-opened",
            "session-opened",
            "audit-opened",
            "audit-recovered",
            "rights-changed",
            "audit-closed",
        )
    ]
    row = rows(path)[3]
    assert (row["how"], row["bytes"], row["kept_as"]) == ("set-aside", 6, "audit.jsonl.broken-1")
    assert Path(path + ".broken-1").read_bytes() == b'{"half'


@pytest.mark.parametrize("running", [False, True])
def test_a_torn_line_stays_where_it_is_until_there_is_room_to_keep_it(path: str, running: bool) -> None:
    """Nothing is cut off that is not kept elsewhere; nothing is left of what was not kept whole."""
    with killed(path) as file:
        file.append(OPENED)
        if running:
            with open(path, "ab") as other:
                other.write(b"x" * 3000)
            with full_disk(2000):
                for _ in range(2):
                    with pytest.raises(AuditFull):
                        file.append(CHANGED)
                assert sorted(os.listdir(Path(path).parent)) == [FILE_NAME, FILE_NAME + ".lock"]
            file.append(CHANGED)
    if not running:
        with open(path, "ab") as other:
            other.write(b"x" * 3000)
        with full_disk(2000):
            file = made(path)
            assert file.problem == "File too large"
        file.append(CHANGED)
        file.close()
    assert Path(path + ".broken-1").read_bytes() == b"x" * 3000
    assert [event for event in events(path) if event != "audit-closed"] == [
        *("audit-opened", "session-opened", "audit-opened", "audit-recovered"),
        *(["audit-gap"] if running else []),
        "rights-changed",
    ]


def test_a_line_without_its_newline_is_completed(path: str) -> None:
    """It was written, so it counts."""
    with killed(path) as file:
        file.append(OPENED)
    os.truncate(path, os.stat(path).st_size - 1)
    with opened(path):
        pass
    assert events(path) == [
        *("audit-opened", "session-opened", "audit-opened", "audit-recovered", "audit-closed")
    ]
    assert rows(path)[3]["how"] == "completed"


def test_a_file_of_nothing_but_garbage_is_set_aside(path: str, no_leaks: None) -> None:
    """And the chain goes on from the file before it, or begins."""
    Path(path).write_bytes(b"\x00" * 5000)
    with opened(path, small()) as file:
        assert file.head.seq == 2
        for _ in range(5):
            file.append(REFUSED)
    assert events(path)[:2] == ["audit-opened", "audit-recovered"]
    before = rows(path)
    Path(path).write_bytes(b"\x00" * 5000)
    with opened(path, small()):
        pass
    older = [
        row for row in before if row["seq"] <= json.loads(Path(path).read_bytes().splitlines()[0])["seq"]
    ]
    assert events(path) == [
        *(row["event"] for row in older[:-1]),
        *("audit-opened", "audit-recovered", "audit-closed"),
    ]
    assert len(Path(path + ".broken-2").read_bytes()) == 5000


WRITER = """
import sys, time
from revtunnel.ground.limits import AuditLimits
from revtunnel.state.audit_file import AuditFile, Sync
from revtunnel.state.audit_records import RightsChanged
file = AuditFile(sys.argv[1], "test", AuditLimits(size=20_000, files=1000), Sync.NEVER, time.time)
print("ready", flush=True)
for number in range(10_000_000):
    file.append(*[RightsChanged("user-added", f"u{number}", "root")] * (1 + number % 5))
    print(file.head.seq, file.head.hash, flush=True)
"""


@pytest.mark.slow
def test_kill_9_leaves_all_that_was_said_in_an_unbroken_chain(path: str) -> None:
    """At any moment, forty times; each start goes on where the last one was.

    A write that crosses a page is cut where the kill finds it: that record was not said, and is set aside.
    """
    dice = random.Random(7)
    head = NOTHING
    cut = 0
    for _ in range(40):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            lines = [writer.stdout.readline() for _ in range(dice.randrange(200))]
            time.sleep(dice.random() / 100)  # the moment is any
            writer.kill()
            said = [line for line in [*lines, *writer.stdout.readlines()] if line.endswith("\n")]
        if said:
            seq, digest = said[-1].split()
            head = Head(int(seq), digest)
        found = verify(files_of(path), head)
        assert found.ok or found.fault.endswith("is not whole: it has no newline"), found.fault
        cut += not found.ok
        if said:
            # one append, and the two records of another file's beginning
            assert 0 <= found.head.seq - head.seq <= 5 + 2
    with opened(path, replace(LIMITS, files=1000)) as file:
        assert file.head.seq > found.head.seq
    assert verify(files_of(path), head).ok
    assert events(path).count("audit-opened") >= 41
    assert events(path).count("audit-recovered") == cut


FILLER = """
import sys, time
from dataclasses import replace
from revtunnel.ground.limits import AuditLimits
from revtunnel.state.audit_chain import verify
from revtunnel.state.audit_file import AuditFile, AuditFull, Sync
from revtunnel.state.audit_records import RightsChanged
import os
directory = sys.argv[1]
file = AuditFile(directory + "/audit.jsonl", "test", AuditLimits(), Sync.EACH, time.time)
ballast = directory + "/ballast"
for turn in range(3):
    with open(ballast, "wb", buffering=0) as other:
        other.write(b"x" * 100_000)
    try:
        while True:
            file.append(RightsChanged("user-added", "ana", "root"))
    except AuditFull as error:
        assert "No space left on device" in str(error), error
    for _ in range(4):
        try:
            file.append(RightsChanged("user-added", "ana", "root"))
        except AuditFull:
            pass
    head = file.head
    assert verify([file.path]).head == head
    os.unlink(ballast)
    file.append(RightsChanged("user-added", "ben", "root"))
    assert file.problem is None
file.close()
lines = open(file.path).read()
assert lines.count("audit-gap") == 3, lines.count("audit-gap")
print(verify([file.path]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file system of its own")
def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A small file system in a mount namespace: filled, emptied and filled again, three times."""
    script = f'mount -t tmpfs -o size=400k none "{tmp_path}" && exec "$0" -c "$1" "{tmp_path}"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable, FILLER],
        capture_output=True,
        text=True,
    )
    if "unshare failed" in done.stderr or "mount" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(": unbroken\n")


def test_signals_of_size_limits_are_not_ours() -> None:
    """A limit on file sizes is an error, not an end: Python ignores its signal."""
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN


@pytest.mark.parametrize("record", [OPENED, CHANGED, REFUSED])
def test_refusals_alone_do_not_last(record: AuditRecord) -> None:
    """By the record's own word."""
    assert record.lasting == (record is not REFUSED)
