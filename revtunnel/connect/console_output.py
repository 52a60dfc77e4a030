"""What the program says: lines for people, or JSON for programs; a line of progress on a terminal only.

Rule of this file: nothing that others sent goes to a terminal with its control characters. What is wanted
goes to standard output, unless that belongs to somebody else (``-W``, ``--exec``); what is about it to
standard error.

Source: ours.
"""

import json
import sys
from typing import Any, TextIO

__all__ = ["Telling", "clean", "sized"]

_WORDS = {
    "session": "session {session}: {device}, {role}",
    "listening": "{device}/{service} is at {place}",
    "lost": "the connection is lost ({detail}); {channels} running connections were reset; trying again",
    "back": "back after {seconds} s",
    "warning": "the session ends in {seconds} s: {why}",
    "reset": "a connection to {service} was ended: {word} {detail}",
    "stranger": "a program of another user was turned away at the port of {service}; see --any-user",
    "ended": "the session has ended: {detail}",
}
_WANTED = frozenset(("session", "listening"))


def clean(text: object) -> str:
    """One printable line."""
    return "".join(each if each.isprintable() else "?" for each in str(text))[:500]


def sized(size: int) -> str:
    """Bytes for people."""
    number = float(size)
    for unit in ("B", "kB", "MB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


class Telling:
    """Where it goes. ``free``: standard output is ours."""

    def __init__(self, as_json: bool = False, quiet: bool = False, free: bool = True) -> None:
        self._json = as_json
        self._quiet = quiet
        self._out: TextIO = sys.stdout if free else sys.stderr
        self._shown = 0  # characters of the line of progress
        self.progresses = free and not (as_json or quiet) and sys.stderr.isatty()

    def happened(self, event: str, **more: Any) -> None:
        """Something that the person may want to know."""
        self._clear()
        if self._json:
            print(json.dumps({"event": event, **more}), file=self._out, flush=True)
        elif not self._quiet or event == "ended":
            shown = clean(
                _WORDS[event].format_map({key: clean(value) for key, value in more.items()})
            ).rstrip()
            if event in _WANTED:
                print(shown, file=self._out, flush=True)
            else:
                self.complain(shown)

    def complain(self, text: object) -> None:
        """A fault."""
        self._clear()
        print(f"revtunnel-connect: {clean(text)}", file=sys.stderr, flush=True)

    def progress(self, text: str) -> None:
        """The line of progress, in place of the last one."""
        if self.progresses:
            line = clean(text)[:100]
            print(f"\r{line.ljust(self._shown)}", end="", file=sys.stderr, flush=True)
            self._shown = len(line)

    def rows(self, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
        """A table, or each row as JSON."""
        if self._json:
            for row in rows:
                print(json.dumps(row))
            return
        table = [[clean(row.get(column, "")) for column in columns] for row in rows]
        widths = [max(map(len, cells)) for cells in zip(columns, *table, strict=True)]
        for cells in (tuple(map(str.upper, columns)), *table):
            print("  ".join(map(str.ljust, cells, widths)).rstrip())

    def _clear(self) -> None:
        if self._shown:
            print(f"\r{' ' * self._shown}\r", end="", file=sys.stderr, flush=True)
            self._shown = 0
