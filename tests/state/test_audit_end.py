"""The end of an audit file after a crash: every cut of it is made whole, and nothing is thrown away."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from revtunnel.state.audit_chain import NOTHING, AuditLine, Head, parse_line, write_line
from revtunnel.state.audit_end import last_line, mend
from revtunnel.state.audit_records import AuditOpened, AuditRecovered, RightsChanged
from tests.support.depth import deep

NAME = "audit.jsonl"
TAIL = 4096


def lines(count: int, head: Head = NOTHING) -> list[bytes]:
    """So many records."""
    found = []
    for number in range(count):
        record = RightsChanged("user-added", f"u{number}", "root") if number else AuditOpened("start", "x")
        line, head = write_line(record, head, 1.0)
        found.append(line)
    return found


THREE = lines(3)


class Place:
    """A directory with one file, open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.directory = os.open(path, os.O_RDONLY)
        self.file = -1

    def write(self, data: bytes) -> None:
        """Let that be the file."""
        self.close()
        (self.path / NAME).write_bytes(data)
        self.file = os.open(self.path / NAME, os.O_RDWR | os.O_APPEND)

    def mend(self) -> tuple[AuditLine | None, AuditRecovered | None]:
        """Make it whole."""
        return mend(self.file, self.directory, NAME, TAIL)

    def close(self) -> None:
        """Close the file."""
        if self.file >= 0:
            os.close(self.file)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A directory of this test."""
    made = Place(tmp_path)
    yield made
    made.close()
    os.close(made.directory)


def test_a_whole_file_is_left_alone(place: Place) -> None:
    """An empty one too."""
    place.write(b"".join(THREE))
    assert place.mend() == (parse_line(THREE[2]), None)
    place.write(b"")
    assert place.mend() == (None, None)
    assert os.listdir(place.path) == [NAME]


def test_every_cut_of_the_last_line_is_set_aside(place: Place) -> None:
    """But the one where only the newline is missing: that is put there."""
    before, last = b"".join(THREE[:2]), THREE[2]
    cuts = sorted({*range(1, len(last) - 1, 100 // deep(100)), len(last) - 3, len(last) - 2})
    for count, cut in enumerate(cuts, 1):
        place.write(before + last[:cut])
        line, recovered = place.mend()
        assert line == parse_line(THREE[1])
        name = f"{NAME}.broken-{min(count, 9)}"
        digest = hashlib.sha256(last[:cut]).hexdigest()
        assert recovered == AuditRecovered("set-aside", cut, digest, name)
        assert (place.path / name).read_bytes() == last[:cut]
        assert (place.path / name).stat().st_mode & 0o777 == 0o640
        assert (place.path / NAME).read_bytes() == before
    place.write(before + last[:-1])
    digest = hashlib.sha256(last[:-1]).hexdigest()
    assert place.mend() == (parse_line(last), AuditRecovered("completed", len(last) - 1, digest, ""))
    assert (place.path / NAME).read_bytes() == before + last
    assert len(os.listdir(place.path)) == 10


def test_a_whole_line_that_does_not_follow_is_no_end(place: Path) -> None:
    """Whatever its own hash says."""
    assert isinstance(place, Place)
    another = lines(1, Head(2, "1" * 64))[0]  # of the right number, behind another one
    for stranger in (lines(1)[0], lines(3, Head(7, "1" * 64))[2], another):
        place.write(b"".join(THREE[:2]) + stranger[:-1])
        line, recovered = place.mend()
        assert line == parse_line(THREE[1])
        assert recovered is not None
        assert recovered.how == "set-aside"


@pytest.mark.parametrize(
    "rest", [b"\x00" * 3000, b"\x00" * 50 + b"\n", b"\n", b"{}\n{}\n", b"x" * 900 + b"\n" + b"y"]
)
def test_what_a_power_cut_leaves_is_set_aside(place: Place, rest: bytes) -> None:
    """Zeros, with newlines among them or not."""
    place.write(b"".join(THREE) + rest)
    line, recovered = place.mend()
    assert line == parse_line(THREE[2])
    assert recovered is not None
    assert (place.path / recovered.kept_as).read_bytes() == rest
    assert (place.path / NAME).read_bytes() == b"".join(THREE)


@pytest.mark.parametrize("size", [1, 100, TAIL, TAIL + 1, 3 * TAIL])
def test_a_file_without_an_end_is_set_aside_whole(place: Place, size: int) -> None:
    """Also when its good lines lie too far back."""
    data = (b"".join(THREE) if size > TAIL else b"") + b"\x00" * size
    place.write(data)
    line, recovered = place.mend()
    assert (line, recovered) == (
        None,
        AuditRecovered("set-aside", len(data), hashlib.sha256(data).hexdigest(), f"{NAME}.broken-1"),
    )
    assert os.listdir(place.path) == [f"{NAME}.broken-1"]
    assert (place.path / f"{NAME}.broken-1").read_bytes() == data


def test_only_the_end_of_a_large_file_is_read(place: Place) -> None:
    """The last record is found wherever the reading begins."""
    many = lines(40)
    place.write(b"".join(many))
    for most in range(len(many[-1]), 3 * len(many[-1]), 7):
        end = last_line(place.file, most)
        assert (end.line, end.rest) == (parse_line(many[-1]), b"")
        assert end.size == sum(map(len, many))
    assert last_line(place.file, len(many[-1]) - 1).line is None
