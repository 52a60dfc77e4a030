"""The parts of man/revtunnel-connect.1 and docs/connect.rst that list options, commands and exit statuses.

Rule of this file: what stands between two marks of these files is printed from the tables of the program:

    python -m revtunnel.connect.connect_manual man/revtunnel-connect.1 docs/connect.rst

Source: ours.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from revtunnel.connect import outcomes
from revtunnel.connect.connect_line import COMMANDS, OPTIONS

__all__ = ["printed"]

_MARK = r'^(?:\.\. |\.\\" )'
_PART = re.compile(rf"({_MARK}begin (\w+)\n).*?({_MARK}end\n)", re.MULTILINE | re.DOTALL)
_STATUS = re.compile(r"^(\d+|other) +(.*)\n((?: {7}.*\n)*)", re.MULTILINE)


def printed(text: str) -> str:
    """The text of such a file with its parts as they should be."""
    return _PART.sub(lambda found: found[1] + "\n".join(_PARTS[found[2]]()) + "\n" + found[3], text)


def _roff(text: str) -> str:
    marked = re.sub(r"``(.+?)``", r"\\fB\1\\fR", text)
    return marked.replace("-", r"\-").replace("'", r"\(aq")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _statuses() -> list[tuple[str, str]]:
    """Out of the table at the head of outcomes.py."""
    found = _STATUS.finditer(outcomes.__doc__ or "")
    return [(each[1], " ".join(f"{each[2]} {each[3]}".split())) for each in found]


def _man_options() -> list[str]:
    lines = []
    for flag, word, text, _ in OPTIONS:
        shown = f'.BI {_roff(flag)} " {_roff(word)}"' if word else f".B {_roff(flag)}"
        lines += [".TP", shown, _roff(_sentence(text))]
    return lines


def _man_commands() -> list[str]:
    lines = []
    for usage, text in COMMANDS.values():
        lines += [".TP", f".B {_roff(usage)}", _roff(_sentence(text))]
    return lines


def _man_statuses() -> list[str]:
    return [line for status, text in _statuses() for line in (".TP", f".B {status}", _roff(_sentence(text)))]


def _listed(rows: list[tuple[str, str]]) -> list[str]:
    """A definition list."""
    return ["", *(line for term, text in rows for line in (term, f"    {_sentence(text)}")), ""]


_PARTS: dict[str, Callable[[], list[str]]] = {
    "manoptions": _man_options,
    "mancommands": _man_commands,
    "manstatuses": _man_statuses,
    "options": lambda: _listed(
        [(f"``{f'{flag} {word}'.strip()}``", text) for flag, word, text, _ in OPTIONS]
    ),
    "commands": lambda: _listed([(f"``{usage}``", text) for usage, text in COMMANDS.values()]),
    "statuses": lambda: _listed(_statuses()),
}

if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(printed(path.read_text(encoding="utf-8")), encoding="utf-8")
