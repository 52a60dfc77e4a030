r"""The line of an audit file, how lines hang together, and how to find out whether they do.

A line is one JSON object in ASCII, without floating-point numbers, its members in the order of their names,
nothing between them, but ``hash``, which is the last. ::

    {"by":"root","detail":"","event":"rights-changed","operation":"user-added","prev":"<64 hex>","seq":12,
     "subject":"ana","time":"2026-11-26T12:00:00.000123Z","hash":"<64 hex>"}\n        (in one line)

``seq``    1 in the first line that was ever written, then one more in each
``prev``   ``hash`` of the line before, also over the border of two files; 64 times 0 before the first
``time``   UTC, when it was written; a clock that was set back is seen here
``hash``   SHA-256 of the line without this member: of the bytes before ``,"hash"`` and a closing brace

So a line that was changed does not match its own hash, one that was replaced with its hash does not match
the next, one that is missing or elsewhere leaves a hole in the numbers. Who can write the file can compute
all of it anew, and can cut lines off its end: that is found against a number and a hash kept elsewhere.

Rule of this file: a line is judged by its bytes alone, and only one is held.

Source: ours.
"""

import hashlib
import json
import os
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from revtunnel.ground.errors import LocalError
from revtunnel.state.audit_records import AuditClosed, AuditOpened, AuditRecord, time_text

__all__ = [
    "MAX_LINE",
    "NOTHING",
    "AuditLine",
    "Head",
    "NotALine",
    "Verified",
    "files_of",
    "parse_line",
    "rotated_name",
    "verify",
    "write_line",
]

MAX_LINE = 16 * 1024  # bytes with the newline
MAX_TEXT = 512  # bytes of one text as it is written; the rest is cut off
MAX_LIST = 2048  # the same of one list
_TAIL = re.compile(rb',"hash":"([0-9a-f]{64})"\}\n\Z')
_TAIL_SIZE = 76  # bytes that it matches
_CUT = "..."


class Head(NamedTuple):
    """Where a chain is: the last line's number and hash."""

    seq: int
    hash: str


NOTHING = Head(0, "0" * 64)  # before the first line


class NotALine(ValueError):
    """These bytes are no line as it was written; the text says why."""


class AuditLine(NamedTuple):
    """What holds a line in its chain."""

    seq: int
    prev: str
    hash: str
    event: str
    cause: str  # where it has one

    @property
    def head(self) -> Head:
        """Where the chain is behind this line."""
        return Head(self.seq, self.hash)


def write_line(record: AuditRecord, after: Head, wall: float) -> tuple[bytes, Head]:
    """The line of a record, and where the chain is then. Texts and lists that are too long are cut."""
    values = {name: _short(value) for name, value in record.values().items()}
    values |= {"seq": after.seq + 1, "prev": after.hash, "time": time_text(wall)}
    body = _written(values, sort_keys=True)
    digest = hashlib.sha256(body).hexdigest()
    line = b'%b,"hash":"%b"}\n' % (body[:-1], digest.encode("ascii"))
    if len(line) > MAX_LINE:
        raise LocalError(f"an audit record of {len(line)} bytes, {MAX_LINE} at most")
    return line, Head(after.seq + 1, digest)


def _written(value: Any, sort_keys: bool = False) -> bytes:
    return json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), allow_nan=False).encode("ascii")


def _short(value: Any) -> Any:
    if isinstance(value, str) and len(_written(value)) > MAX_TEXT:
        return value[: _fitting(value[:MAX_TEXT], MAX_TEXT)] + _CUT
    if isinstance(value, list):
        texts = [_short(each) for each in value[:MAX_LIST]]
        whole = len(_written(texts)) <= MAX_LIST
        return texts if whole else [*texts[: _fitting(texts, MAX_LIST)], _CUT]
    return value


def _fitting(parts: Sequence[str], most: int) -> int:
    """How many of the parts may be written before the mark that some are left out."""
    room = most - len(_written([_CUT]))
    return bisect_right(range(len(parts)), room, key=lambda count: len(_written(parts[:count]))) - 1


def parse_line(line: bytes) -> AuditLine:
    """Judge one line with its newline.

    Raises:
        NotALine: it is none, or was changed.
    """
    if not line.endswith(b"\n"):
        raise NotALine("is not whole: it has no newline")
    match = _TAIL.search(line, max(0, len(line) - _TAIL_SIZE))
    if match is None:
        raise NotALine("is not a record: it does not end with a hash")
    body = line[: match.start()] + b"}"
    digest = hashlib.sha256(body).hexdigest()
    if digest.encode("ascii") != match[1]:
        raise NotALine("was changed: it does not match its own hash")
    try:
        values = json.loads(body)
        seq, prev, event = values["seq"], values["prev"], values["event"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise NotALine("is not a record: it lacks what every record has") from None
    if type(seq) is not int or not isinstance(prev, str) or not isinstance(event, str):
        raise NotALine("is not a record: it lacks what every record has")
    return AuditLine(seq, prev, digest, event, str(values.get("cause", "")))


@dataclass(frozen=True, slots=True)
class Verified:
    """What verifying found. ``str`` of it is for people."""

    fault: str  # ``FILE:LINE: why`` of the first one; empty: none
    lines: int  # that were good
    first: int  # number of the first one; above 1: older files were removed, or are not here
    head: Head  # the last good one
    closed: bool = False  # it was an orderly end

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.fault

    def __str__(self) -> str:
        if self.fault:
            return self.fault
        end = "" if self.closed else ", not closed"
        return f"{self.lines} records, {self.first} to {self.head.seq}, hash {self.head.hash}{end}: unbroken"


def rotated_name(name: str, seq: int) -> str:
    """What a full file is called whose last record is ``seq``: ``audit-000000004711.jsonl``."""
    stem, ending = os.path.splitext(name)
    return f"{stem}-{seq:012}{ending}"


def files_of(path: str) -> list[str]:
    """The files of a chain whose newest is ``path``, the oldest first; those that are there.

    Raises:
        OSError: the directory cannot be read.
    """
    directory, name = os.path.split(path)
    stem, ending = os.path.splitext(name)
    form = re.compile(rf"{re.escape(stem)}-[0-9]{{12,}}{re.escape(ending)}", re.ASCII)
    older = (each for each in os.listdir(directory or ".") if form.fullmatch(each))
    names = sorted(older, key=lambda each: (len(each), each))
    return [os.path.join(directory, each) for each in (*names, *([name] if os.path.exists(path) else []))]


def verify(paths: Iterable[str], head: Head | None = None) -> Verified:
    """Find the first line of a chain that was changed, is missing or is not in its place.

    Args:
        paths: its files, the oldest first, as ``files_of`` has them.
        head: number and hash that were kept elsewhere; the chain has to come by there.

    Raises:
        OSError: a file cannot be read.
    """
    state = _Chain(head)
    lines = _lines(paths)
    for place, number, line in lines:
        fault = state.take(line, number)
        if fault == _HOLE:
            fault = state.hole(lines)
        if fault:
            return state.result(f"{place}:{number}: {fault}")
    return state.result(state.end())


_HOLE = "hole"


class _Chain:
    """What is known of the lines so far."""

    def __init__(self, head: Head | None) -> None:
        self._wanted = head
        self._last: AuditLine | None = None
        self._line: AuditLine | None = None  # the one that is judged
        self._first = 0
        self._lines = 0

    def take(self, raw: bytes, number: int) -> str:
        """What is wrong with the next line; nothing, and it is the last one now."""
        try:
            line = self._line = parse_line(raw)
        except NotALine as error:
            return str(error)
        fault = self._follows(line)
        if not fault and number == 1 and line.event != AuditOpened.event:
            fault = f"records are missing before {line.seq}: every file begins with {AuditOpened.event}"
        if not fault and self._wanted and line.seq == self._wanted.seq and line.hash != self._wanted.hash:
            fault = f"record {line.seq} is not the one whose hash was kept elsewhere"
        if not fault:
            self._last = line
            self._first = self._first or line.seq
            self._lines += 1
        return fault

    def _follows(self, line: AuditLine) -> str:
        last = self._last
        if last is None:
            if line.seq < 1 or (line.seq == 1 and line.prev != NOTHING.hash):
                return "the first record that was ever written has others before it"
            taken = line.event == AuditOpened.event and line.cause == AuditOpened.REPLACED
            return (
                f"records before {line.seq} were taken away while the file was being written" if taken else ""
            )
        if line.seq > last.seq + 1:
            return _HOLE
        if line.seq <= last.seq:
            return f"record {line.seq} comes behind {last.seq}: it is repeated, or out of order"
        if line.prev != last.hash:
            return f"record {line.seq} does not follow record {last.seq}: that one was replaced, or this one"
        return ""

    def hole(self, rest: Iterable[tuple[str, int, bytes]]) -> str:
        """Words for the numbers that are not there: elsewhere, or nowhere."""
        assert self._last is not None
        assert self._line is not None
        wanted, found = self._last.seq + 1, self._line.seq
        for place, number, raw in rest:
            try:
                if parse_line(raw).seq == wanted:
                    return f"record {found} is out of order: {wanted} comes later, at {place}:{number}"
            except NotALine:
                continue
        missing = f"record {wanted} is" if found == wanted + 1 else f"records {wanted} to {found - 1} are"
        return f"{missing} missing before record {found}"

    def end(self) -> str:
        """What is wrong with where the chain ends."""
        if self._wanted is None or self._wanted == NOTHING:
            return ""
        if self._last and self._last.seq >= self._wanted.seq >= self._first:
            return ""
        return f"record {self._wanted.seq}, whose hash was kept elsewhere, is not here"

    def result(self, fault: str) -> Verified:
        """All that was found."""
        last = self._last
        head, closed = (last.head, last.event == AuditClosed.event) if last else (NOTHING, False)
        return Verified(fault, self._lines, self._first, head, closed)


def _lines(paths: Iterable[str]) -> Iterator[tuple[str, int, bytes]]:
    """Path, number from 1 and bytes of each line; one that is too long comes in pieces that are no lines."""
    for path in paths:
        number = 0
        with open(path, "rb") as file:
            while line := file.readline(MAX_LINE):
                number += 1
                yield path, number, line
