"""Completion of the command lines for bash, made from the tables that the programs read theirs with.

Rule of this file: what is in etc/bash-completion is printed from here, never edited:

    python -m revtunnel.ctl.completion etc/bash-completion

Words and options are completed, and the names of files; nothing is asked of a server.

Source: bash(1) "Programmable Completion"; ours.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from revtunnel.connect import connect_line
from revtunnel.ctl.command_line import parser
from revtunnel.daemons.agent_options import AgentOptions
from revtunnel.daemons.cameo_options import CameoOptions
from revtunnel.daemons.cccp_options import CccpOptions
from revtunnel.daemons.daemon_options import DaemonOptions
from revtunnel.daemons.server_options import ServerOptions

__all__ = ["completions"]

_FILES = {"FILE", "DIR", "PATH"}  # what an option's value is called where it is a file
_DAEMONS: tuple[type[DaemonOptions], ...] = (ServerOptions, AgentOptions, CameoOptions, CccpOptions)
_SCRIPT = """\
# Completion of {program} for bash; printed by: python -m revtunnel.ctl.completion
_{name}() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} given= words= at
    [[ $current == = ]] && current=
    [[ $before == = ]] && before=${{COMP_WORDS[COMP_CWORD-2]}}
    case $before in{values}
    esac
    for ((at = 1; at < COMP_CWORD; at++)); do
        case ${{COMP_WORDS[at]}} in
        {taking}) ((at++)) ;;
        -*) ;;
        *) given+=" ${{COMP_WORDS[at]}}" ;;
        esac
    done
    case $given in{commands}
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}}
complete -F _{name} {program}
"""
_OF_FILES = 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;'
_OF_WORDS = 'mapfile -t COMPREPLY < <(compgen -W "{}" -- "$current"); return ;;'


class Line(NamedTuple):
    """What a program may be told.

    Attributes:
        files: options with a file behind them.
        choices: options with one of some words behind them.
        others: options with anything else behind them.
        commands: by what was given so far, what may come.
    """

    program: str
    files: set[str]
    choices: dict[str, str]
    others: set[str]
    commands: dict[str, list[str]]


def completions() -> dict[str, str]:
    """The scripts, by the name of their program."""
    lines = [_of_parser(parser(), "revtunnelctl"), _of_connect(), *map(_of_daemon, _DAEMONS)]
    return {line.program: _script(line) for line in lines}


def _script(line: Line) -> str:
    values = [(" | ".join(sorted(line.files)), _OF_FILES)]
    values += [(option, _OF_WORDS.format(words)) for option, words in sorted(line.choices.items())]
    values.append((" | ".join(sorted(line.others)), "return ;;"))
    # the longest first: what stands behind a command may be anything
    commands = sorted(line.commands.items(), key=lambda item: -len(item[0].split()))
    usual = min((words for given, words in commands if given), key=len, default=[])
    rows = [(f'" {given}" | " {given} "*', words) for given, words in commands if given and words != usual]
    rows += [('""', line.commands[""]), ("*", usual or line.commands[""])]
    return _SCRIPT.format(
        program=line.program,
        name=line.program.replace("-", "_"),
        values="".join(f"\n    {options}) {what}" for options, what in values if options),
        taking=" | ".join(sorted({*line.files, *line.choices, *line.others})),
        commands="".join(f'\n    {given}) words="{" ".join(words)}" ;;' for given, words in rows),
    )


def _of_parser(root: argparse.ArgumentParser, program: str) -> Line:
    line = Line(program, set(), {}, set(), {})

    def walk(at: argparse.ArgumentParser, given: str) -> None:
        words: list[str] = []
        for action in at._actions:
            if isinstance(action, argparse._SubParsersAction):
                words += dict.fromkeys(name.split()[0] for name in action.choices)
                for name, below in action.choices.items():
                    if name.split()[1:]:  # a command that goes on from another
                        line.commands.setdefault(" ".join(name.split()[:-1]), []).append(name.split()[-1])
                    walk(below, f"{given} {name}".strip())
            else:
                words += action.option_strings or map(str, action.choices or ())
                _take(line, action)
        line.commands[given] = [*words, *line.commands.get(given, [])]

    walk(root, "")
    return line


def _take(line: Line, action: argparse.Action) -> None:
    for option in action.option_strings:
        if action.nargs == 0:
            continue
        if action.choices:
            line.choices[option] = " ".join(map(str, action.choices))
        elif action.metavar in _FILES:
            line.files.add(option)
        else:
            line.others.add(option)


def _of_connect() -> Line:
    line = _of_parser(connect_line.parser(), "revtunnel-connect")
    options = line.commands[""]
    line.commands[""] = [*connect_line.COMMANDS, *options]
    return line


def _of_daemon(kind: type[DaemonOptions]) -> Line:
    options = kind()
    files = {*kind.paths, "config"}
    line = Line(kind.program, set(), {}, set(), {"": sorted({*_long(options)} - {"--key"})})
    for name in options.longOpt:
        option = f"--{name.removesuffix('=')}"
        if name.endswith("=") and option in ("--log-format", "--log-level"):
            words = "text json" if option == "--log-format" else "debug info warn error"
            line.choices[option] = words
        elif name.endswith("="):
            (line.files if name.removesuffix("=") in files else line.others).add(option)
    return line


def _long(options: DaemonOptions) -> Iterator[str]:
    return (f"--{name.removesuffix('=')}" for name in options.longOpt)


if __name__ == "__main__":
    for program, text in completions().items():
        Path(sys.argv[1], program).write_text(text, encoding="utf-8")
