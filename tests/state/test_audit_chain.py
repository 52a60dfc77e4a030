"""The line of an audit file and its chain: written as documented, and whatever is done to it is found."""

import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.errors import LocalError
from revtunnel.state.audit_chain import (
    MAX_LINE,
    NOTHING,
    Head,
    NotALine,
    Verified,
    files_of,
    parse_line,
    rotated_name,
    verify,
    write_line,
)
from revtunnel.state.audit_records import (
    AuditClosed,
    AuditOpened,
    AuditRecord,
    AuditRefused,
    RightsChanged,
    SessionClosed,
    SessionOpened,
)
from tests.support.depth import deep

NOON = 1_800_000_000.0
OPENED = AuditOpened("start", "gate revtunnel 1")


def chain(records: list[AuditRecord], after: Head = NOTHING) -> tuple[list[bytes], Head]:
    """Their lines."""
    lines = []
    for number, record in enumerate(records):
        line, after = write_line(record, after, NOON + number)
        lines.append(line)
    return lines, after


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A file for the lines of one test."""
    yield tmp_path / "audit.jsonl"


def verified(place: Path, lines: list[bytes], head: Head | None = None) -> Verified:
    """What is found in a file of these lines."""
    place.write_bytes(b"".join(lines))
    return verify([str(place)], head)


def refused(number: int) -> AuditRefused:
    """One of many records."""
    return AuditRefused("start", "ana", "", f"plc-{number}", ("ssh",), "192.0.2.1:4711", "", "no-grant")


FIVE, FIVE_HEAD = chain([OPENED, *(refused(number) for number in range(4))])

# ---- the line


def test_the_line_is_as_it_is_documented() -> None:
    """Byte for byte."""
    record = RightsChanged("user-added", "ana", "root")
    line, head = write_line(record, Head(11, "a" * 64), 1_795_694_400.000123)
    body = (
        '{"by":"root","detail":"","event":"rights-changed","operation":"user-added","prev":"'
        + "a" * 64
        + '",'
        '"seq":12,"subject":"ana","time":"2026-11-26T12:00:00.000123Z"}'
    ).encode()
    digest = hashlib.sha256(body).hexdigest()
    assert line == body[:-1] + f',"hash":"{digest}"}}\n'.encode()
    assert head == Head(12, digest)


def test_the_hash_can_be_checked_with_other_tools() -> None:
    """sed and sha256sum, as the manual has it."""
    line, head = write_line(refused(1), NOTHING, NOON)
    command = "sed 's/,\"hash\":\"[0-9a-f]*\"}$/}/' | tr -d '\\n' | sha256sum"
    done = subprocess.run(["sh", "-c", command], input=line, stdout=subprocess.PIPE, check=True)
    assert done.stdout.split()[0].decode() == head.hash


texts = st.text(max_size=40) | st.text('"\\\n\x00\ud800é😀', max_size=40)
records = st.one_of(
    st.builds(RightsChanged, texts, texts, texts, texts),
    st.builds(
        SessionOpened, texts, texts, texts, texts, st.lists(texts, max_size=4).map(tuple), texts, texts
    ),
    st.builds(
        AuditRefused,
        *(texts, texts, texts, texts),
        st.lists(texts, max_size=4).map(tuple),
        *(texts, texts, texts),
        st.integers(1, 2**63),
    ),
    st.builds(
        SessionClosed,
        *(texts, texts, texts, texts),
        st.lists(texts, max_size=4).map(tuple),
        *(texts, texts, texts),
        *(st.integers(0, 2**80), st.integers(0, 2**80), st.integers(0, 2**80), st.integers(0, 9)),
        texts,
    ),
)


@given(records)
def test_any_text_makes_one_line_of_plain_ascii(record: AuditRecord) -> None:
    """Quotes, newlines, halves of characters: what others say can break no line, and is read as it was."""
    line, head = write_line(record, Head(4, "0" * 64), NOON)
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert b"\x00" not in line
    read = parse_line(line)
    assert (read.seq, read.prev, read.event, read.head) == (5, "0" * 64, record.event, head)
    values = json.loads(line)
    assert list(values) == [*sorted(set(values) - {"hash"}), "hash"]
    added = {"hash": head.hash, "prev": "0" * 64, "seq": 5, "time": "2027-01-15T08:00:00.000000Z"}
    assert values == {**record.values(), **added}


@given(st.integers(0, 3000), st.sampled_from("a\x00é😀\ud800"))
def test_what_is_too_long_is_cut(size: int, character: str) -> None:
    """Each text at 512 bytes as it is written, lists at 2048; so that no record is too long for a line."""
    text = character * size
    services = tuple([text] * 200)
    record = AuditRefused(text, text, text, text, services, text, text, text)
    line, _ = write_line(record, NOTHING, NOON)
    assert len(line) <= MAX_LINE
    user = json.loads(line)["user"]
    written = len(json.dumps(text))
    if written <= 512:
        assert user == text
    else:
        assert user.endswith("...")
        assert text.startswith(user[:-3])
        assert 490 < len(json.dumps(user)) <= 512
    assert len(json.dumps(json.loads(line)["services"], separators=(",", ":"))) <= 2048


def test_a_record_that_fits_no_line_is_our_own_fault() -> None:
    """Numbers are not cut."""
    with pytest.raises(LocalError, match="an audit record of"):
        write_line(
            SessionClosed("", "", "", "", (), "", "", "", *[10**4200] * 4, ""),
            NOTHING,
            NOON,
        )


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"", "no newline"),
        (b"\n", "does not end with a hash"),
        (FIVE[0][:-1], "no newline"),
        (FIVE[0][:-3] + b"\n", "does not end with a hash"),
        (FIVE[0].replace(b"start", b"START"), "does not match its own hash"),
        (FIVE[0].replace(b'"}\n', b'"} \n'), "does not end with a hash"),
        (FIVE[0][1:], "does not match its own hash"),
        (FIVE[0][:-10] + FIVE[0][-10:].upper(), "does not"),
    ],
)
def test_what_is_no_line(line: bytes, text: str) -> None:
    """It says why."""
    with pytest.raises(NotALine, match=text):
        parse_line(line)


@pytest.mark.parametrize(
    "body",
    [
        *("{}", '{"seq":1}', "1}", '"}', "{" * 5000 + "}", '{"a":' * 5000 + "}"),
        '{"event":"x","prev":"","seq":"1"}',
        '{"event":"x","prev":"","seq":true}',
        '{"event":"x","prev":0,"seq":1}',
        '{"event":null,"prev":"","seq":1}',
    ],
)
def test_a_good_hash_makes_no_record(body: str) -> None:
    """Somebody else's line with a hash of its own."""
    digest = hashlib.sha256(body.encode()).hexdigest()
    with pytest.raises(NotALine, match="lacks what every record has"):
        parse_line(f'{body[:-1]},"hash":"{digest}"}}\n'.encode())


# ---- whatever is done to a chain


def test_a_whole_chain_is_unbroken(place: Path) -> None:
    """And says where it begins and ends, and whether that was in order."""
    found = verified(place, FIVE, FIVE_HEAD)
    assert found == Verified("", 5, 1, FIVE_HEAD, False)
    assert str(found) == f"5 records, 1 to 5, hash {FIVE_HEAD.hash}, not closed: unbroken"
    lines, head = chain([OPENED, AuditClosed()])
    assert str(verified(place, lines)) == f"2 records, 1 to 2, hash {head.hash}: unbroken"


def test_an_empty_file_is_no_fault_but_has_nothing(place: Path) -> None:
    """Unless something was kept elsewhere."""
    assert verified(place, []) == Verified("", 0, 0, NOTHING)
    found = verified(place, [], FIVE_HEAD)
    assert found.fault == "record 5, whose hash was kept elsewhere, is not here"


def test_every_byte_that_is_changed_is_found_in_its_line(place: Path) -> None:
    """Each one of the file, newlines too, and the line before it is still good."""
    whole = b"".join(FIVE)
    ends = [sum(map(len, FIVE[: number + 1])) for number in range(5)]
    borders = {end - at for end in ends for at in (1, 2, 3)}
    for position in sorted({*range(0, len(whole), 100 // deep(100)), *borders}):
        byte, mask = whole[position], (0x01, 0x20, 0x80)[position % 3]
        place.write_bytes(whole[:position] + bytes([byte ^ mask]) + whole[position + 1 :])
        found = verify([str(place)])
        number = next(number for number, end in enumerate(ends) if position < end) + 1
        assert found.fault.startswith(f"{place}:{number}: "), (position, found.fault)
        assert found.lines == number - 1


@given(st.data())
def test_any_change_of_any_chain_is_found(data: st.DataObject) -> None:
    """A byte changed, added or taken; a line dropped, said twice or moved: the first place where it shows.

    What is cut off the end is found by the head that was kept elsewhere.
    """
    lines, head = chain([OPENED, *data.draw(st.lists(records, min_size=1, max_size=8))])
    last = len(lines) - 1
    number = data.draw(st.integers(0, last))
    what = data.draw(st.sampled_from(["byte", "more", "less", "drop", "twice", "swap", "move", "cut"]))
    bad = list(lines)
    line = lines[number]
    at = data.draw(st.integers(0, len(line) - 1))
    first = number
    if what == "byte":
        other = data.draw(st.integers(0, 255).filter(lambda byte: byte != line[at]))
        bad[number] = line[:at] + bytes([other]) + line[at + 1 :]
    elif what == "more":
        bad[number] = line[:at] + data.draw(st.binary(min_size=1, max_size=3)) + line[at:]
    elif what == "less":
        bad[number] = line[:at] + line[at + 1 :]
    elif what == "drop":
        del bad[number]
    elif what == "twice":
        bad.insert(number, line)
        first = number + 1
    elif what == "swap":
        number = data.draw(st.integers(0, last - 1))
        bad[number], bad[number + 1] = bad[number + 1], bad[number]
        first = number
    elif what == "move":
        target = data.draw(st.integers(0, last).filter(lambda place: place != number))
        bad.insert(target, bad.pop(number))
        first = min(number, target)
    else:
        bad[number] = line[:at]
        del bad[number + 1 :]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory) / "audit.jsonl"
        found = verified(place, bad, head)
        assert not found.ok
        ends_early = (what == "drop" and number == last) or (what == "cut" and at == 0)
        if ends_early:
            assert found.fault == f"record {head.seq}, whose hash was kept elsewhere, is not here"
        else:
            assert found.fault.startswith(f"{place}:{first + 1}: "), (what, found.fault)
            assert not verify([str(place)]).ok
        assert verified(place, lines, head).ok


@pytest.mark.parametrize(
    ("order", "fault"),
    [
        ([0, 2, 3, 4], "2: record 2 is missing before record 3"),
        ([0, 3, 4], "2: records 2 to 3 are missing before record 4"),
        ([0, 2, 1, 3, 4], "2: record 3 is out of order: 2 comes later, at {place}:3"),
        ([0, 2, 3, 1, 4], "2: record 3 is out of order: 2 comes later, at {place}:4"),
        ([0, 1, 1, 2], "3: record 2 comes behind 2: it is repeated, or out of order"),
        ([0, 1, 2, 3, 4, 0], "6: record 1 comes behind 5: it is repeated, or out of order"),
        ([1, 2, 3], "1: records are missing before 2: every file begins with audit-opened"),
    ],
)
def test_what_is_missing_or_elsewhere_is_said(place: Path, order: list[int], fault: str) -> None:
    """With the numbers."""
    found = verified(place, [FIVE[number] for number in order])
    assert found.fault == f"{place}:" + fault.format(place=place)


def test_the_first_fault_is_told_whatever_comes_behind_it(place: Path) -> None:
    """Lines that are none do not stop the search for the one that is missing."""
    found = verified(place, [FIVE[0], FIVE[2], b"nothing\n", FIVE[1]])
    assert str(found) == f"{place}:2: record 3 is out of order: 2 comes later, at {place}:4"


def test_a_line_that_is_replaced_with_its_hash_is_found_by_the_next(place: Path) -> None:
    """And the last one by what was kept elsewhere."""
    forged, _ = write_line(refused(99), Head(2, json.loads(FIVE[1])["hash"]), NOON)
    found = verified(place, [*FIVE[:2], forged, *FIVE[3:]])
    text = "record 4 does not follow record 3: that one was replaced, or this one"
    assert found.fault == f"{place}:4: {text}"
    forged, _ = write_line(refused(99), Head(4, json.loads(FIVE[3])["hash"]), NOON)
    assert verified(place, [*FIVE[:4], forged]).ok
    found = verified(place, [*FIVE[:4], forged], FIVE_HEAD)
    assert found.fault == f"{place}:5: record 5 is not the one whose hash was kept elsewhere"


def test_a_chain_written_anew_is_found_by_what_was_kept_elsewhere(place: Path) -> None:
    """Only by that: who can write the file can compute a hash."""
    lines, _ = chain([OPENED, *(refused(number) for number in range(7, 17))])
    assert verified(place, lines).ok
    found = verified(place, lines, FIVE_HEAD)
    assert found.fault == f"{place}:5: record 5 is not the one whose hash was kept elsewhere"


def test_what_was_kept_may_be_older_than_the_end(place: Path) -> None:
    """The chain has to come by there."""
    assert verified(place, FIVE, Head(3, json.loads(FIVE[2])["hash"])).ok


def test_what_was_kept_must_not_be_older_than_the_beginning(place: Path) -> None:
    """Its file may have been removed in order, but nobody can say so: ask for a later one."""
    lines, _ = chain([AuditOpened("rotation", "x"), refused(1)], Head(9, "1" * 64))
    assert verified(place, lines, Head(10, json.loads(lines[0])["hash"])).ok
    text = "record 9, whose hash was kept elsewhere, is not here"
    assert verified(place, lines, Head(9, "1" * 64)).fault == text


def test_a_file_that_was_taken_away_is_found_by_the_next_one(place: Path) -> None:
    """Who wrote it missed it, and its first record says so; behind that file it is no fault."""
    lines, _ = chain([AuditOpened(AuditOpened.REPLACED, "x"), refused(1)], FIVE_HEAD)
    text = "records before 6 were taken away while the file was being written"
    assert verified(place, lines).fault == f"{place}:1: {text}"
    assert verified(place, [*FIVE, *lines]).ok


def test_lines_that_are_too_long_are_not_held(place: Path) -> None:
    """A file of one line of 100 MB is no reason to have 100 MB."""
    with place.open("wb") as file:
        file.write(FIVE[0])
        file.truncate(100_000_000)
    assert re.search(r":2: is not whole", verify([str(place)]).fault)


# ---- files


def test_a_chain_goes_over_files(tmp_path: Path) -> None:
    """In the order of their names; one that is missing in the middle is found."""
    path = tmp_path / "audit.jsonl"
    head, names = NOTHING, []
    for number in range(4):
        lines, head = chain([AuditOpened("rotation", "x"), refused(number)], head)
        name = path if number == 3 else tmp_path / rotated_name(path.name, head.seq)
        name.write_bytes(b"".join(lines))
        names.append(str(name))
    assert files_of(str(path)) == names
    assert verify(names) == Verified("", 8, 1, head)
    assert verify(names[1:]).first == 3
    found = verify([names[0], *names[2:]])
    assert found.fault == f"{names[2]}:1: records 3 to 4 are missing before record 5"
    found = verify([names[0], names[2], names[1], names[3]])
    assert found.fault == f"{names[2]}:1: record 5 is out of order: 3 comes later, at {names[1]}:1"


def test_a_file_that_lost_its_first_line_does_not_begin_a_chain(place: Path) -> None:
    """Removing a whole file looks like rotation; removing lines does not."""
    lines, _ = chain([AuditOpened("rotation", "x"), refused(1), refused(2)], Head(9, "1" * 64))
    assert verified(place, lines).first == 10
    text = f"{place}:1: records are missing before 11: every file begins with audit-opened"
    assert verified(place, lines[1:]).fault == text


def test_the_very_first_record_has_nothing_before_it(place: Path) -> None:
    """Number 1 with a hash before it, or number 0."""
    for head in (Head(0, "1" * 64), Head(-1, "0" * 64)):
        lines, _ = chain([OPENED], head)
        assert "first record that was ever written" in verified(place, lines).fault


def test_names_of_files(tmp_path: Path) -> None:
    """Numbers in order, also where they grow; other files are not taken for ours."""
    for name in (
        *("audit-000000000009.jsonl", "audit-1000000000000.jsonl", "audit-000000000010.jsonl"),
        *("audit-1.jsonl", "audit-00000000000x.jsonl", "audit.jsonl.broken-1", "other.jsonl"),
        *("audit.jsonl.lock", "audit-000000000011.jsonl.gz", "audit.jsonl"),
    ):
        (tmp_path / name).touch()
    assert [Path(each).name for each in files_of(str(tmp_path / "audit.jsonl"))] == [
        *("audit-000000000009.jsonl", "audit-000000000010.jsonl", "audit-1000000000000.jsonl", "audit.jsonl")
    ]
    assert files_of(str(tmp_path / "plain")) == []
    assert rotated_name("plain", 7) == "plain-000000000007"


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """Not a broken chain."""
    with pytest.raises(FileNotFoundError):
        verify([str(tmp_path / "missing")])
