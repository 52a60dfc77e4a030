"""Log lines: one flat line per event, whatever is in it, and never one too many."""

import json
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.ground.reasons import Ended
from revtunnel.process.flood import Flood
from revtunnel.process.log_output import LogOutput
from revtunnel.process.logs import LineObserver, format_json, format_text, level_named, record


class Desk:
    """An observer on a file, with a clock and a logger to feed it."""

    def __init__(self, path: Path, form: str, **settings: Any) -> None:
        self._file = path.open("ab+", buffering=0)
        self.clock = Clock()
        self.output = LogOutput(self._file.fileno())
        self.observer = LineObserver(self.output, form, self.clock.seconds, **settings)
        self.log = Logger("test", observer=LogPublisher(self.observer))

    def lines(self) -> list[str]:
        """Every line so far."""
        self._file.seek(0)
        return self._file.read().decode("ascii").splitlines()

    def rows(self) -> list[dict[str, Any]]:
        """The same, read as JSON."""
        return [json.loads(line) for line in self.lines()]

    def close(self) -> None:
        """Give the descriptors back."""
        self.output.close()
        self._file.close()


@pytest.fixture
def text(tmp_path: Path) -> Iterator[Desk]:
    """A desk that writes text."""
    pending = Desk(tmp_path / "log", "text")
    yield pending
    pending.close()


@pytest.fixture
def rows(tmp_path: Path) -> Iterator[Desk]:
    """A desk that writes JSON."""
    pending = Desk(tmp_path / "log", "json")
    yield pending
    pending.close()


def failure(error: Exception) -> Failure:
    """The error as it arrives from a Deferred, with a traceback."""
    try:
        raise error
    except Exception:
        return Failure()


EVENT = {
    "log_time": 1769860800.25,
    "log_level": level_named("info"),
    "log_format": "link-up",
    "log_namespace": "revtunnel",
    "event": "link-up",
    "serial": "plc-7",
    "peer": "192.0.2.1:4711",
    "authenticated": True,
    "detail": None,
    "channels": 1,
}


def test_the_two_forms_of_an_event() -> None:
    """Time, level and event first, then the event's own fields under their own names."""
    assert format_text(record(EVENT)) == (
        "2026-01-31T12:00:00.250Z info link-up serial=plc-7 peer=192.0.2.1:4711"
        " authenticated=yes detail=- channels=1\n"
    )
    assert json.loads(format_json(record(EVENT))) == {
        "ts": "2026-01-31T12:00:00.250Z",
        "level": "info",
        "event": "link-up",
        "serial": "plc-7",
        "peer": "192.0.2.1:4711",
        "authenticated": True,
        "detail": None,
        "channels": 1,
    }


def test_the_journal_gets_a_priority_instead_of_a_time() -> None:
    """Under systemd a line says how bad it is in the journal's own way."""
    line = format_text(record(EVENT | {"log_level": level_named("warn")}), True)
    assert line.startswith("<4>warn link-up serial=plc-7 ")


def test_reasons_are_words(rows: Desk) -> None:
    """An enumeration is its word, numbers stay numbers, what JSON cannot say becomes text."""
    other = Enum("other", {"SOME": 1}).SOME  # type: ignore[attr-defined]
    rows.log.info(
        "e", event="e", reason=Ended.LINK_LOST, other=other, rate=float("nan"), part=0.1234567, a=(1, b"\xff")
    )
    (row,) = rows.rows()
    assert row["reason"] == "link-lost"
    assert row["other"] == "some"
    assert row["rate"] == "nan"
    assert row["part"] == 0.123457
    assert row["a"] == [1, "\\xff"]


def test_free_text_is_its_words(text: Desk) -> None:
    """A line of Twisted itself has no event name of ours: the words stand for it, and are not said twice."""
    text.log.info("Starting {what}", what="factory", port=23)
    (line,) = text.lines()
    assert line.endswith(" info Starting factory port=23")


def test_nothing_a_peer_says_starts_a_line(text: Desk) -> None:
    """Newlines, escapes and foreign letters are shown, not acted on."""
    text.log.warn("refused", event="refused", serial="a\n2026 info forged", peer="\x1b[31m\x7f\u202e")
    (line,) = text.lines()
    assert 'serial="a\\n2026 info forged"' in line
    assert 'peer="\\u001b[31m\\u007f\\u202e"' in line


@given(
    st.dictionaries(st.sampled_from(["serial", "peer", "detail"]), st.text() | st.binary() | st.floats()),
    st.text(),
)
def test_any_event_is_one_line_of_printable_ascii(fields: dict[str, Any], words: str) -> None:
    """Whatever the values are, both forms are one line, and the JSON form can be read back."""
    event = EVENT | fields | {"log_format": "{words}", "words": words}
    for form in (format_text, format_json):
        line = form(record(event))
        assert line.endswith("\n")
        assert all(" " <= letter <= "~" for letter in line[:-1])
    assert json.loads(format_json(record(event)))["level"] == "info"


def test_a_remote_error_is_never_a_traceback(text: Desk) -> None:
    """What the other side did wrong is one line."""
    text.log.failure("link {n}", failure(RemoteError("payload of 70000 bytes, limit 65535")), n=1)
    (line,) = text.lines()
    assert line.endswith('error="RemoteError: payload of 70000 bytes, limit 65535"')


def test_a_bug_is_a_traceback(text: Desk, rows: Desk) -> None:
    """What we did wrong is shown in full: indented after its line as text, inside the line as JSON."""
    text.log.failure("oops", failure(LocalError("two\nlines")))
    head, *trace = text.lines()
    assert ' critical failure message=oops error="LocalError: two\\nlines"' in head
    assert trace and all(line.startswith("    | ") for line in trace)
    assert any("test_logs.py" in line for line in trace)


def test_a_bug_is_one_json_line(rows: Desk) -> None:
    """The traceback of a bug is a field of the one object."""
    rows.log.failure("oops", failure(LocalError("bad")))
    (row,) = rows.rows()
    assert row["event"] == "failure"
    assert "LocalError: bad" in row["traceback"]


def test_values_are_cut() -> None:
    """A value cannot make a line endless."""
    assert len(format_json(record(EVENT | {"serial": "s" * 100_000, "raw": b"b" * 100_000}))) < 3000


def test_a_value_that_cannot_be_printed_does_not_lose_the_line() -> None:
    """Somebody's broken __str__ is named instead."""

    class Broken:
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert record(EVENT | {"what": Broken()})["what"] == "<Broken: ZeroDivisionError in __str__>"


def test_the_level_changes_at_run_time(text: Desk) -> None:
    """Debug lines appear from the moment they are asked for, and go again."""
    text.log.debug("one")
    text.observer.set_level("debug")
    text.log.debug("two")
    text.observer.set_level("warning")
    text.log.info("three")
    assert [line.split()[-1] for line in text.lines()] == ["two"]
    assert text.observer.level == "warn"


def test_the_form_changes_at_run_time(text: Desk) -> None:
    """Settings are read after the first lines; from then on their form holds."""
    text.log.info("one")
    text.observer.set_form("json")
    text.log.info("two")
    first, second = text.lines()
    assert first.endswith(" info one")
    assert json.loads(second)["message"] == "two"


def test_unknown_names_are_refused(text: Desk) -> None:
    """Level and form stay what they were."""
    with pytest.raises(ValueError, match="loud"):
        text.observer.set_level("loud")
    with pytest.raises(ValueError, match="xml"):
        text.observer.set_form("xml")
    text.log.info("still text")
    assert text.observer.level == "info"
    assert text.lines()[0].endswith(" info still text")


def test_n1_a_flood_of_refusals_is_summed_up(text: Desk) -> None:
    """A thousand refusals in a minute, each with another serial, are ten lines and a number."""
    for number in range(1000):
        text.log.warn("refused", event="link-refused", reason="denied", serial=f"x{number}")
    assert len(text.lines()) == 10

    text.clock.advance(60.0)
    text.observer.summarise()

    assert text.lines()[10].endswith(" warn suppressed of=link-refused more=990 reason=denied")
    assert len(text.lines()) == 11


def test_news_of_many_devices_is_no_flood(text: Desk) -> None:
    """After a restart every device comes back: each is told."""
    for number in range(50):
        text.log.info("up", event="link-up", serial=f"plc-{number}")
    assert len(text.lines()) == 50


def test_a_flood_of_one_device_is_a_flood(text: Desk) -> None:
    """A device that flaps is told ten times a minute, and then summed up by the next line of any kind."""
    for _ in range(12):
        text.log.info("up", event="link-up", serial="plc-7")
    text.clock.advance(61.0)
    text.log.info("link-down", event="link-down", serial="plc-8")
    assert [line.split(" ", 2)[2] for line in text.lines()[10:]] == [
        "suppressed of=link-up more=2 serial=plc-7",
        "link-down serial=plc-8",
    ]


def test_free_text_floods_by_its_words(text: Desk) -> None:
    """Lines of no event are the same when they say the same."""
    for number in range(3):
        for _ in range(20):
            text.log.info("number {n}", n=number)
    assert len(text.lines()) == 30


def test_n17_lost_lines_are_told_when_there_is_room_again(tmp_path: Path) -> None:
    """Lines that a full disk swallowed are counted, and the number is the first thing written afterwards."""

    class Disk(LogOutput):
        full = False

        def offer(self, line: bytes) -> bool:
            return not self.full and super().offer(line)

    with (tmp_path / "log").open("ab", buffering=0) as file:
        disk = Disk(file.fileno())
        observer = LineObserver(disk, "text", Clock().seconds, flood=Flood(lines=100))
        log = Logger("test", observer=observer)
        disk.full = True
        for _ in range(3):
            log.info("lost")
        disk.full = False
        log.info("kept")
        log.info("kept")
        disk.close()
    assert observer.dropped == 3
    words = [line.split(" ", 1)[1] for line in (tmp_path / "log").read_text("ascii").splitlines()]
    assert words == ["warn log-lines-dropped lines=3", "info kept", "info kept"]
