"""Log lines on descriptors that are full, blocked or gone (real pipes and sockets, inside this process)."""

import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from revtunnel.process.log_output import LogOutput, open_log, write_when_ready

LINE = b"x" * 99 + b"\n"
STEP = 4096


@pytest.fixture
def pipe(no_leaks: None) -> Iterator[tuple[int, int]]:
    """A pipe whose ends are closed at the end, if they still are open."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def drained(descriptor: int) -> bytes:
    """What a pipe holds now."""
    os.set_blocking(descriptor, False)
    pieces = []
    try:
        while piece := os.read(descriptor, 65536):
            pieces.append(piece)
    except BlockingIOError:
        pass
    return b"".join(pieces)


def test_n18_a_blocked_pipe_never_blocks_the_writer(pipe: tuple[int, int]) -> None:
    """With nobody reading, lines are dropped and counted; when read again, every line is whole."""
    reader, writer = pipe
    output = LogOutput(writer)
    size = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    asked = size // len(LINE) + 100

    written = sum(output.write(LINE) for _ in range(asked))

    assert 0 < written < asked
    assert output.dropped == asked - written
    got = drained(reader)
    assert output.write(b"after\n")
    got += drained(reader)
    assert got == LINE * written + b"after\n"
    output.close()


def test_the_flags_of_a_shared_output_are_left_alone(pipe: tuple[int, int]) -> None:
    """The pipe may be somebody else's standard output too: it stays blocking for them."""
    output = LogOutput(pipe[1])
    assert output.write(b"line\n")
    assert os.get_blocking(pipe[1])
    output.close()


def test_n18_a_blocked_socket_never_blocks_the_writer(no_leaks: None) -> None:
    """The journal is a stream socket: the same there, and its flags stay as they were."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        output = LogOutput(ours.fileno())
        written = 0
        while output.write(LINE):
            written += 1
        assert output.dropped == 1
        assert ours.getblocking()
        assert theirs.recv(len(LINE)) == LINE
        output.close()
    assert written > 0


def test_n17_a_full_disk_is_counted_and_survived() -> None:
    """Where no byte can be stored, nothing is raised and every line is counted."""
    with open("/dev/full", "wb", buffering=0) as full:
        output = LogOutput(full.fileno())
        assert [output.write(LINE), output.write(LINE)] == [False, False]
        assert output.dropped == 2
        output.close()


def test_n20_a_reader_that_left_is_survived(pipe: tuple[int, int]) -> None:
    """EPIPE is a dropped line, not an exception and not a signal."""
    reader, writer = pipe
    output = LogOutput(writer)
    os.close(reader)
    assert not output.write(LINE)
    output.close()


def test_a_file_is_appended_to(tmp_path: Path) -> None:
    """A regular file is written through the descriptor that was given, at its place."""
    with open(tmp_path / "log", "ab", buffering=0) as file:
        file.write(b"first\n")
        output = LogOutput(file.fileno())
        assert output.write(b"second\n")
        output.close()
        assert not output.write(b"third\n")
    assert (tmp_path / "log").read_bytes() == b"first\nsecond\n"


def test_without_proc_a_pipe_is_asked_first(pipe: tuple[int, int]) -> None:
    """The fall-back for a pipe that cannot be opened again: it writes only what surely fits."""
    reader, writer = pipe
    total = 0
    while written := write_when_ready(writer, b"y" * 3 * STEP):
        assert written == STEP
        total += written
    assert len(drained(reader)) == total


def test_the_journal_is_recognised_by_its_stream(pipe: tuple[int, int]) -> None:
    """JOURNAL_STREAM may be inherited: only when it names our very output is that the journal."""
    status = os.fstat(pipe[1])
    ours = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
    for environ, expected in ((ours, True), ({"JOURNAL_STREAM": "8:1"}, False), ({}, False)):
        output = LogOutput(pipe[1], environ)
        assert output.journal is expected
        output.close()


def contents(directory: Path) -> dict[str, bytes]:
    """The files of a directory by name."""
    return {each.name: each.read_bytes() for each in sorted(directory.iterdir())}


def test_a_file_is_rotated_as_twistd_does_it(tmp_path: Path, no_leaks: None) -> None:
    """The newest of the old ones is .1; the new one has the rights of the first."""
    path = tmp_path / "log"
    descriptor = open_log(str(path))
    output = LogOutput(descriptor, path=str(path))
    os.close(descriptor)
    for line in (b"a\n", b"b\n", b"c\n"):
        assert output.write(line)
        assert output.rotate()
    assert output.write(b"d\n")
    assert contents(tmp_path) == {"log": b"d\n", "log.1": b"c\n", "log.2": b"b\n", "log.3": b"a\n"}
    assert path.stat().st_mode & 0o777 == 0o640
    output.close()


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path, no_leaks: None) -> None:
    """As logrotate moves it: nothing else is touched."""
    path = tmp_path / "log"
    descriptor = open_log(str(path))
    output = LogOutput(descriptor, path=str(path))
    os.close(descriptor)
    output.write(b"old\n")
    path.rename(tmp_path / "moved")
    (tmp_path / "log.1").write_bytes(b"of somebody else")
    assert output.rotate()
    output.write(b"new\n")
    assert contents(tmp_path) == {"log": b"new\n", "log.1": b"of somebody else", "moved": b"old\n"}
    output.close()


def test_what_cannot_be_rotated_goes_on(tmp_path: Path, no_leaks: None) -> None:
    """A directory that is gone; standard output and pipes have no path."""
    folder = tmp_path / "logs"
    folder.mkdir()
    descriptor = open_log(str(folder / "log"))
    output, plain = LogOutput(descriptor, path=str(folder / "log")), LogOutput(descriptor)
    os.close(descriptor)
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):
        output.rotate()
    assert output.write(LINE)
    assert not plain.rotate()
    assert (tmp_path / "elsewhere" / "log").read_bytes() == LINE
    output.close()
    plain.close()
