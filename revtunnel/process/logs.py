"""What an operator reads: one flat line per event, text or JSON, on standard output or in a file.

Rule of this file: logging never hurts the service. A line that cannot be written at once is dropped and
counted, the same line over and over is summarised, and nothing a peer sent can start a line of its own.

A line, as text and as JSON::

    2026-01-31T12:00:00.250Z info link-up serial=plc-7 peer=192.0.2.1:4711 wire=rt1
    {"ts": "2026-01-31T12:00:00.250Z", "level": "info", "event": "link-up", "serial": "plc-7", ...}

``event`` is the event's own field of that name, else ``log`` (free text of this program or of Twisted, in
``message``) or ``failure``. Every other field of an event that does not start with ``log_`` is printed as it
is named. An exception is a traceback only when it is a bug: a ``RemoteError`` is one ``error`` field.

Under systemd (JOURNAL_STREAM names our output) a text line starts with ``<N>``, the priority of sd-daemon(3),
in place of the time, which the journal keeps itself.

Source: twisted.logger; sd-daemon(3); ours.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from zope.interface import implementer

from revtunnel.ground.errors import RemoteError
from revtunnel.process.flood import Flood
from revtunnel.process.log_output import LogOutput

__all__ = ["LineObserver", "format_json", "format_text", "level_named", "record", "timestamp"]

MAX_VALUE = 1024  # characters of one value; the rest is cut
MAX_TRACEBACK = 16384  # characters of a traceback; its head is cut, the end names the error
PRIORITY = {
    LogLevel.debug: 7,
    LogLevel.info: 6,
    LogLevel.warn: 4,
    LogLevel.error: 3,
    LogLevel.critical: 2,
}
RANK = {level: rank for rank, level in enumerate(PRIORITY)}
# what twisted's old logging puts beside the log_* names
_LEGACY = frozenset(
    {"format", "message", "time", "system", "isError", "failure", "why", "printed", "eventSource"}
)
_OURS = ("ts", "level", "event", "message", "traceback")
_FREE = ("log", "failure")  # events of no name of their own
_BARE = re.compile(r"[A-Za-z0-9_.:/@+,<>()\[\]-]+")

Record = dict[str, Any]


def level_named(name: str) -> Any:
    """The ``LogLevel`` of debug, info, warn (or warning), error, critical.

    Raises:
        ValueError: there is no level of that name.
    """
    try:
        return LogLevel.levelWithName({"warning": "warn"}.get(name.lower(), name.lower()))
    except Exception:  # twisted's InvalidLogLevelError is no ValueError
        raise ValueError(f"log level {name!r}: use debug, info, warn, error or critical") from None


def record(event: LogEvent) -> Record:
    """The flat form of an event, its values being what JSON can say; times in UTC, milliseconds."""
    flat: Record = {
        "ts": timestamp(event.get("log_time", 0.0)),
        "level": event.get("log_level", LogLevel.info).name,
        "event": str(event.get("event", "failure" if "log_failure" in event else "log")),
    }
    for name, value in event.items():
        if not name.startswith("log_") and name not in _LEGACY and name not in _OURS:
            flat[name] = _plain(value)
    text = formatEvent(event)
    if text and text != flat["event"]:
        flat["message"] = _cut(text)
    if "log_failure" in event:
        flat |= _failure(event["log_failure"])
    return flat


def timestamp(seconds: float) -> str:
    """Seconds since 1970 as every line has them."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _failure(failure: Any) -> Record:
    error = f"{failure.type.__name__}: {failure.getErrorMessage()}"
    if failure.check(RemoteError):
        return {"error": _cut(error)}
    return {"error": _cut(error), "traceback": failure.getTraceback()[-MAX_TRACEBACK:]}


def _plain(value: Any) -> Any:
    if type(value) is str:
        return _cut(value)
    if isinstance(value, Enum):
        return getattr(value, "word", value.name.lower())
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else str(value)
    if isinstance(value, bytes):
        return _cut(value[: MAX_VALUE + 1].decode("ascii", "backslashreplace"))
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in list(value)[:MAX_VALUE]]
    return _cut(_text(value))


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:  # a broken __str__ of somebody's must not lose the line
        return f"<{type(value).__name__}: {type(error).__name__} in __str__>"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "..."


def _escape(text: str) -> str:
    """ASCII without control characters, in Python's notation."""
    return text.encode("unicode_escape").decode("ascii")


def format_json(flat: Mapping[str, Any], journal: bool = False) -> str:
    """One JSON object and a newline; pure ASCII, no control characters. ``journal`` changes nothing."""
    return json.dumps(flat, ensure_ascii=True).replace("\x7f", "\\u007f") + "\n"


def format_text(flat: Mapping[str, Any], journal: bool = False) -> str:
    """One line of ``time level event name=value ...``; a traceback follows in indented lines."""
    level = LogLevel.levelWithName(flat["level"])
    head = f"<{PRIORITY[level]}>" if journal else f"{flat['ts']} "
    words = [f"{head}{flat['level']} {_escape(flat['event'])}"]
    if flat["event"] == "log":  # free text: the words themselves
        words = [f"{head}{flat['level']}", _escape(flat.get("message", ""))]
    words += [f"{_escape(name)}={_value(value)}" for name, value in flat.items() if _is_field(flat, name)]
    trace = [_escape(line) for line in flat.get("traceback", "").splitlines()]
    indent = f"<{PRIORITY[level]}>    | " if journal else "    | "
    return "\n".join([" ".join(words), *(indent + line for line in trace)]) + "\n"


def _is_field(flat: Mapping[str, Any], name: str) -> bool:
    """Whether text shows it as NAME=VALUE; free text has most of its values among its words already."""
    if flat["event"] == "log" and (name == "message" or str(flat[name]) in flat.get("message", "")):
        return False
    return name not in ("ts", "level", "event", "traceback")


def _value(value: Any) -> str:
    if isinstance(value, str):
        return value if _BARE.fullmatch(value) else _escape_quoted(value)
    if isinstance(value, list):
        return "[" + ",".join(_value(item) for item in value) + "]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)


def _escape_quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=True).replace("\x7f", "\\u007f")


FORMS: dict[str, Callable[[Mapping[str, Any], bool], str]] = {"text": format_text, "json": format_json}


@implementer(ILogObserver)
class LineObserver:
    """Twisted's log as lines on a sink; the level can change while it runs.

    Args:
        sink: where lines go.
        form: text or json.
        now: seconds, monotonic; asked once per event, for the flood limit only.
        level: the lowest level printed, a name of ``level_named``.
        flood: which lines are suppressed.
    """

    def __init__(
        self,
        output: LogOutput,
        form: str,
        now: Callable[[], float],
        level: str = "info",
        flood: Flood | None = None,
    ) -> None:
        self._output = output
        self.set_form(form)
        self._now = now
        self._flood = Flood() if flood is None else flood
        self._told = 0
        self.set_level(level)

    @property
    def level(self) -> str:
        """The lowest level that is printed."""
        return str(self._level.name)

    @property
    def dropped(self) -> int:
        """Lines lost so far because the output was full, blocked or gone."""
        return self._output.dropped

    def set_form(self, name: str) -> None:
        """Print lines as ``text`` or ``json`` from now on; ValueError for any other name."""
        if name not in FORMS:
            raise ValueError(f"log format {name!r}: use text or json")
        self._form = FORMS[name]

    def set_level(self, name: str) -> None:
        """Print from this level on; ValueError for an unknown name."""
        self._level = level_named(name)
        self._rank = RANK[self._level]

    def prints(self, level: Any) -> bool:
        """Whether lines of a level are printed."""
        return RANK.get(level, 0) >= self._rank

    def __call__(self, event: LogEvent) -> None:
        """Print one event, never raising: called by twisted.logger."""
        level = event.get("log_level", LogLevel.info)
        if event.get("log_admitted"):
            self._print(record(event))
        elif _is_named(event):
            if self.admits(level, str(event["event"]), event.get("reason", ""), event.get("serial", "")):
                self._print(record(event))
        elif self.prints(level):
            flat = record(event)
            if self._admits(_likeness_of_free(flat)):
                self._print(flat)

    def admits(self, level: Any, event: str, reason: Any, serial: Any) -> bool:
        """Whether a named event is printed, by its level and as one of many, as which it is counted.

        Its line is asked for here or given to the log, not both, unless it is marked ``log_admitted``.
        """
        return self.prints(level) and self._admits(_likeness_of_named(level, event, reason, serial))

    def _admits(self, likeness: tuple[str, str, str, str]) -> bool:
        now = self._now()
        self.summarise(now)
        return self._flood.admit(likeness, now)  # a line of many, which is not printed, costs little

    def rotate(self) -> None:
        """Go on in a new file, where the output is a file; what cannot be done is a line in the old one."""
        try:
            if self._output.rotate():
                self._print(_own_line("log-rotated", "info"))
        except OSError as error:
            self._print(_own_line("log-not-rotated", "error", error=str(error)))

    def summarise(self, now: float | None = None) -> None:
        """Print the summaries of floods whose minute is over; also called by a timer, for quiet times."""
        now = self._now() if now is None else now
        for (level, event, text, serial), more in self._flood.over(now):
            named = {"message" if event in _FREE else "reason": text, "serial": serial}
            self._print(
                _own_line("suppressed", level, of=event, more=more, **{k: v for k, v in named.items() if v})
            )

    def _print(self, flat: Record) -> None:
        lost = self._output.dropped - self._told
        if lost and self._output.offer(self._line(_own_line("log-lines-dropped", "warn", lines=lost))):
            self._told += lost
        self._output.write(self._line(flat))

    def _line(self, flat: Record) -> bytes:
        return self._form(flat, self._output.journal).encode("ascii", "backslashreplace")


def _is_named(event: LogEvent) -> bool:
    return event.get("event", "log") not in _FREE


def _likeness_of_free(flat: Record) -> tuple[str, str, str, str]:
    """What makes two lines of free text the same: the words."""
    return flat["level"], flat["event"], flat.get("message", "") or flat.get("error", ""), ""


def _likeness_of_named(level: Any, event: str, reason: Any, serial: Any) -> tuple[str, str, str, str]:
    """What makes two events the same: name and reason, and the device for news.

    A warning may be about anybody who can connect, with any serial: there the device does not count.
    """
    serial = serial if RANK[level] <= RANK[LogLevel.info] else ""
    return level.name, event, str(_plain(reason)), str(_plain(serial))


def _own_line(event: str, level: str, **fields: Any) -> Record:
    return {"ts": timestamp(datetime.now(UTC).timestamp()), "level": level, "event": event, **fields}
