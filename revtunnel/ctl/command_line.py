"""The command line of revtunnelctl, made from the rows of its subcommands.

Rule of this file: wrong usage ends with 64; nothing is asked or printed beyond help and errors.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, NoReturn

import revtunnel
from revtunnel.ctl.subcommands import COMMANDS, GROUPS
from revtunnel.process.admin.operation_form import Argument, Kind, Operation, Row

__all__ = ["arguments_of", "parser", "sentence"]

USAGE = 64
_LONGER = {command for command in COMMANDS if command.rpartition(" ")[0] in COMMANDS}


class _Parser(argparse.ArgumentParser):
    """argparse with the exit status of sysexits.h, and with commands that go on from another one."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """``grant`` and ``remove`` are one word, behind each other."""
        words = sys.argv[1:] if args is None else list(args)
        pairs = (f"{first} {second}" for first, second in pairwise(words))
        at = next((at for at, pair in enumerate(pairs) if pair in _LONGER), None)
        if at is not None:
            words[at : at + 2] = [" ".join(words[at : at + 2])]
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"revtunnelctl: {message}\nrevtunnelctl: try: revtunnelctl --help\n")


def _number(low: float, high: float, kind: Callable[[str], Any] = int) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        with suppress(ValueError):
            if low <= kind(text) <= high:
                return kind(text)
        raise argparse.ArgumentTypeError(f"{text[:80]!a}: a number of {low} to {high} wanted")

    return read


def _both(text: str) -> tuple[str, str]:
    """SERIAL/TARGET; a serial may have slashes, the name of a target has none."""
    serial, _, target = text.rpartition("/")
    if not serial or not target:
        raise argparse.ArgumentTypeError(f"{text[:80]!a}: SERIAL/TARGET wanted, such as plc-7/http")
    return serial, target


def _entries(text: str) -> list[str]:
    return [each for each in text.split(",") if each]


def _shared(default: Any) -> _Parser:
    """Options that may stand before and behind the subcommand; behind it, only what is given counts."""
    shared = _Parser(add_help=False, argument_default=default)
    shared.add_argument("--json", action="store_true", default=default, help="print JSON, for programs")
    shared.add_argument("--socket", metavar="PATH", help="the server's admin socket")
    shared.add_argument("--config", metavar="FILE", help="settings file that names the socket")
    shared.add_argument(
        "--timeout",
        metavar="S",
        type=_number(0.1, 3600, float),
        help="seconds to wait for an answer (default: 15)",
    )
    return shared


def parser() -> argparse.ArgumentParser:
    """The command line; ``command`` is the subcommand."""
    root = _Parser(
        prog="revtunnelctl",
        description="Look at a running revtunnel-server and change it.",
        epilog="The manual is revtunnelctl(1).",
        parents=[_shared(None)],
    )
    root.add_argument("--version", action="version", version=f"revtunnelctl {revtunnel.__version__}")
    below = root.add_subparsers(dest="command", metavar="COMMAND", required=True)
    shared = _shared(argparse.SUPPRESS)
    inner: dict[str, Any] = {}
    for row in COMMANDS.values():
        group, _, name = row.command.rpartition(" ")
        if group in COMMANDS:  # a command itself; see ``_Parser``
            group, name = "", row.command
        if group and group not in inner:
            text = GROUPS[group]
            made = below.add_parser(group, help=text, description=sentence(text), parents=[shared])
            inner[group] = made.add_subparsers(dest="command", metavar="COMMAND", required=True)
        text = _plain(f"{sentence(row.help)} {row.text}".strip())
        made = inner.get(group, below).add_parser(name, help=row.help, description=text, parents=[shared])
        made.set_defaults(command=row.command)
        _add_arguments(made, row.arguments)
    return root


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _plain(text: str) -> str:
    """The text of a row without its marks."""
    return text.replace("``", "").replace("*", "")


def _add_arguments(made: argparse.ArgumentParser, arguments: Sequence[Argument]) -> None:
    seen: set[str] = set()
    either = made.add_mutually_exclusive_group() if any(each.either for each in arguments) else made
    for each in arguments:
        first, _, second = each.shown.partition(" ")
        known: dict[str, Any] = {"help": each.text or None}
        if each.kind is Kind.NUMBER:
            known["type"] = _number(each.low, each.high)
        if each.kind is Kind.LIST:
            known["type"] = _entries
        if each.default is not None:
            known |= {"default": each.default, "help": f"{each.text} (default: {each.default})"}
        if first.startswith("--"):
            known |= {"metavar": second} if second else {"action": "store_true"}
            (either if each.either else made).add_argument(first, dest=each.name, **known)
        elif "/" not in first:
            nargs = {"...": "+"}.get(second, "?" if first.startswith("[") else None)
            choices = each.words or None
            made.add_argument(each.name, metavar=first.strip("[]"), nargs=nargs, choices=choices, **known)
        elif first not in seen:
            made.add_argument("both", metavar=first, type=_both)
        seen.add(first)


def arguments_of(row: Operation, options: argparse.Namespace) -> Row:
    """What a subcommand was given, by the names of its arguments."""
    both = iter(getattr(options, "both", ()))
    return {
        each.name: next(both) if "/" in each.shown else getattr(options, each.name) for each in row.arguments
    }
