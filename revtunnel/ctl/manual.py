"""The parts of docs/admin.rst, docs/api.rst and man/revtunnelctl.1 that are made from rows of operations.

Rule of this file: what stands between two marks of these files is printed from here, never edited:

    python -m revtunnel.ctl.manual docs/admin.rst docs/api.rst man/revtunnelctl.1

Source: ours.
"""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import wrap

from revtunnel.ctl.command_line import sentence
from revtunnel.ctl.subcommands import COMMANDS
from revtunnel.daemons.all_operations import DAEMONS, OPERATIONS
from revtunnel.daemons.own_operations import OWN
from revtunnel.process.admin.operation_form import Argument, CallerRole, Operation
from revtunnel.process.admin.refusals import REFUSALS
from revtunnel.process.web.api_routes import ROOT, ApiRoutes

__all__ = ["printed"]

_MARK = r'^(?:\.\. |\.\\" )'
_PART = re.compile(rf"({_MARK}begin (\w+)\n).*?({_MARK}end\n)", re.MULTILINE | re.DOTALL)


def printed(text: str) -> str:
    """The text of such a file with its parts as they should be."""
    return _PART.sub(lambda found: found[1] + "\n".join(_PARTS[found[2]]()) + "\n" + found[3], text)


def _usage(row: Operation) -> list[str]:
    """The words behind a command, each once."""
    either = "|".join(each.shown for each in row.arguments if each.either)
    words = [each.shown if each.shown[:1] != "-" else f"[{each.shown}]" for each in row.arguments]
    words = [f"[{either}]" if each.either else word for word, each in zip(words, row.arguments, strict=True)]
    return [word for word in dict.fromkeys(words) if word]


def _options(row: Operation) -> list[Argument]:
    return [each for each in row.arguments if each.shown.startswith("--")]


# ---- docs/admin.rst


def _table(*rows: Sequence[str]) -> list[str]:
    """A simple table; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    rule = "  ".join("=" * width for width in widths)
    return ["", rule, lines[0], rule, *lines[1:], rule, ""]


def _commands() -> list[str]:
    lines = ["", ".. list-table::", ""]
    for command, row in COMMANDS.items():
        options = [f"``{each.shown}``: {each.text}." for each in _options(row)]
        text = " ".join(filter(None, [sentence(row.help), row.text, *options]))
        cell = wrap(text, 120, initial_indent="     - ", subsequent_indent=" " * 7)
        lines += [f"   * - ``{' '.join([command, *_usage(row)])}``", *cell]
    return [*lines, ""]


def _keys() -> list[str]:
    lines = []
    for row in OPERATIONS.values():
        keys = [(each.name, each.kind.words, each.text) for each in row.columns if each.name]
        if keys:
            lines += ["", f"``{row.command or row.name}``", *_table(("key", "kind", "meaning"), *keys)]
    return lines


def _wire() -> list[str]:
    codes = {kind: code for code, kind in REFUSALS.items()}
    rows = []
    for name, row in OPERATIONS.items():
        asked, answer = (
            " ".join(f"[{each.name}]" if each.optional else each.name for each in fields)
            for fields in (row.asked, row.answer)
        )
        having = [daemon.removeprefix("revtunnel-") for daemon, table in DAEMONS.items() if name in table]
        errors = " ".join(codes[error] for error in row.errors)
        rows.append((f"``{name}``", asked, answer, row.role.name.lower(), errors, ", ".join(having)))
    return _table(("command", "arguments", "answer", "role", "errors", "daemons"), *rows)


# ---- docs/api.rst


def _routes() -> list[str]:
    rows = [*DAEMONS["revtunnel-server"].values(), *OWN.values()]
    lines = ["", ".. list-table::", "", "   * - method and path", "     - who", "     - what"]
    for each in sorted(ApiRoutes(rows).all, key=lambda route: (route.path, route.method)):
        row = each.operation
        text = f"{sentence(row.help)} {row.text}".strip()
        lines += [f"   * - ``{each.method} {ROOT}{each.path}``", f"     - {_WHO[row.role]}"]
        lines += wrap(text, 120, initial_indent="     - ", subsequent_indent=" " * 7)
    return [*lines, ""]


_WHO = {CallerRole.NOBODY: "person", CallerRole.READER: "reader", CallerRole.OPERATOR: "admin"}


# ---- man/revtunnelctl.1


def _man(rows: Sequence[Operation]) -> list[str]:
    lines = []
    for row in rows:
        command, *inner = row.command.split()
        usage = " ".join([*(f"``{word}``" for word in inner), *map(_filled_in, _usage(row))])
        lines += [".TP", f'.BR {_roff(command)} " {_roff(usage)}"' if usage else f".B {_roff(command)}"]
        lines += [_roff(f"{sentence(row.help)} {row.text}".strip())]
        for each in _options(row):
            lines += [".RS", ".TP", f".B {_roff(_filled_in(each.shown))}", _roff(sentence(each.text)), ".RE"]
    return lines


def _filled_in(usage: str) -> str:
    """Words of a usage line with their marks: as they are, or to be filled in."""
    return re.sub("[A-Z]+", r"*\g<0>*", re.sub("--[a-z-]+", r"``\g<0>``", usage))


def _roff(text: str) -> str:
    marked = re.sub(r"\*(.+?)\*", r"\\fI\1\\fR", re.sub(r"``(.+?)``", r"\\fB\1\\fR", text))
    return marked.replace("-", r"\-")


def _of_daemons(role: CallerRole) -> list[str]:
    return _man([row for row in COMMANDS.values() if row.role is role and not row.command.startswith("ca ")])


_PARTS: dict[str, Callable[[], list[str]]] = {
    "commands": _commands,
    "keys": _keys,
    "wire": _wire,
    "routes": _routes,
    "looking": lambda: _of_daemons(CallerRole.READER),
    "changing": lambda: _of_daemons(CallerRole.OPERATOR),
    "authority": lambda: _man([row for row in COMMANDS.values() if row.command.startswith("ca ")]),
}

if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(printed(path.read_text(encoding="utf-8")), encoding="utf-8")
