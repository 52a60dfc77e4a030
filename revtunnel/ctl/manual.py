"""The parts of docs/admin.rst and man/revtunnelctl.1 that list commands, made from their rows.

Rule of this file: what stands between two marks of these files is printed from here, never edited:

    python -m revtunnel.ctl.manual docs/admin.rst man/revtunnelctl.1

Source: ours.
"""

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import wrap

from revtunnel.ctl.command_line import sentence
from revtunnel.ctl.subcommands import COMMANDS
from revtunnel.daemons.operations import DAEMONS, OPERATIONS
from revtunnel.process.door.operation import Argument, Operation, Role

__all__ = ["printed"]

_MARK = r'^(?:\.\. |\.\\" )'
_PART = re.compile(rf"({_MARK}begin (\w+)\n).*?({_MARK}end\n)", re.MULTILINE | re.DOTALL)


def printed(text: str) -> str:
    """The text of such a file with its parts as they should be."""
    return _PART.sub(lambda found: found[1] + "\n".join(_PARTS[found[2]]()) + "\n" + found[3], text)


def _usage(row: Operation) -> list[str]:
    """The words behind a command, each once."""
    words: dict[str, None] = {}
    either = "|".join(each.shown for each in row.arguments if each.either)
    for each in row.arguments:
        optional = each.shown.startswith("--")
        words[f"[{either if each.either else each.shown}]" if optional else each.shown] = None
    return [word for word in words if word]


# ---- docs/admin.rst


def _columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A simple table."""
    widths = [max(len(row[at]) for row in (heads, *rows)) for at in range(len(heads))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (heads, *rows)]
    rule = "  ".join("=" * width for width in widths)
    return ["", rule, lines[0], rule, *lines[1:], rule, ""]


def _rst_commands() -> list[str]:
    lines = ["", ".. list-table::", ""]
    for command, row in COMMANDS.items():
        options = [f"``{each.shown}``: {each.text}." for each in row.arguments if each.shown.startswith("--")]
        usage = " ".join([command, *_usage(row)])
        text = " ".join(filter(None, [sentence(row.help), row.text, *options]))
        lines += [
            f"   * - ``{usage}``",
            *wrap(text, 120, initial_indent="     - ", subsequent_indent=" " * 7),
        ]
    return [*lines, ""]


def _rst_keys() -> list[str]:
    lines = []
    for row in OPERATIONS.values():
        keys = [(each.name, each.kind.words, each.text) for each in row.columns if each.name]
        if keys:
            lines += ["", f"``{row.command or row.name}``", *_columns(("key", "kind", "meaning"), keys)]
    return lines


def _rst_wire() -> list[str]:
    def shown(fields: Sequence[Argument]) -> str:
        return " ".join(f"[{each.name}]" if each.optional else each.name for each in fields)

    def having(name: str) -> str:
        found = [daemon.removeprefix("revtunnel-") for daemon, table in DAEMONS.items() if name in table]
        return "all" if len(found) == len(DAEMONS) else ", ".join(found)

    rows = [
        [f"``{name}``", shown(row.asked), shown(row.answer), row.role.name.lower(),
         " ".join(error.code for error in row.errors), having(name)]
        for name, row in OPERATIONS.items()
    ]  # fmt: skip
    return _columns(["command", "arguments", "answer", "role", "errors", "daemons"], rows)


# ---- man/revtunnelctl.1


def _man(rows: Sequence[Operation]) -> list[str]:
    lines = []
    for row in rows:
        command, *inner = row.command.split()
        usage = " ".join([*(rf"\fB{_dashes(word)}\fR" for word in inner), *map(_bold, _usage(row))])
        lines += [".TP", f'.BR {_dashes(command)} " {usage}"' if usage else f".B {command}"]
        lines += [_marked(f"{sentence(row.help)} {row.text}".strip())]
        options = [each for each in row.arguments if each.shown.startswith("--") and each.text]
        for each in options:
            lines += [".RS", ".TP", f".B {_bold(each.shown)}", _marked(sentence(each.text)), ".RE"]
    return lines


def _bold(usage: str) -> str:
    """Options in bold, words to be filled in in italics."""
    marked = re.sub(r"--[a-z-]+", lambda found: rf"\fB{found[0]}\fR", usage)
    return _dashes(re.sub(r"(?<![\w-])[A-Z]+\b(?!\\)", lambda found: rf"\fI{found[0]}\fR", marked))


def _marked(text: str) -> str:
    text = re.sub(r"``(.+?)``", r"\\fB\1\\fR", text)
    return _dashes(re.sub(r"\*(.+?)\*", r"\\fI\1\\fR", text))


def _dashes(text: str) -> str:
    return text.replace("-", r"\-")


def _man_of(role: Role) -> list[str]:
    return _man([row for row in COMMANDS.values() if row.role is role and " " not in row.command])


_PARTS: dict[str, Callable[[], list[str]]] = {
    "commands": _rst_commands,
    "keys": _rst_keys,
    "wire": _rst_wire,
    "looking": lambda: _man_of(Role.READER),
    "changing": lambda: _man_of(Role.OPERATOR),
    "authority": lambda: _man([row for row in COMMANDS.values() if " " in row.command]),
}


def main(paths: Sequence[str]) -> int:
    """Print the parts of these files anew."""
    for path in map(Path, paths):
        path.write_text(printed(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
