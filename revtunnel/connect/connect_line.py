"""The command line of revtunnel-connect, and what it asks for.

Rule of this file: wrong usage ends with 64; nothing is read, asked or printed beyond help and errors; it
imports little, for ``--help`` and a typing error are to be quick.
"""

import argparse
import shlex
from typing import Any, NoReturn

import revtunnel
from revtunnel.connect.outcomes import USAGE

__all__ = ["COMMANDS", "OPTIONS", "parser", "read_line"]

COMMANDS = {
    "login": ("login URL", "keep a token for a server, which is asked for or read from standard input"),
    "logout": ("logout [URL]", "forget the token; tokens are revoked with revtunnelctl"),
    "list": ("list [PATTERN]", "devices and services that you may reach, and which are online"),
    "sessions": ("sessions", "your running sessions, and those that you may observe"),
    "end": ("end SESSION", "end a session of yours"),
    "share": ("share SESSION --with USER", "invite somebody, by a URL that is good once"),
}
_COUNTS = {
    "login": (1, 1),
    "logout": (0, 1),
    "list": (0, 1),
    "sessions": (0, 0),
    "end": (1, 1),
    "share": (1, 1),
}
_SYNOPSIS = """%(prog)s [options] DEVICE/SERVICE ... [--exec COMMAND]
       %(prog)s [options] -W DEVICE/SERVICE
       %(prog)s [options] revtunnel://HOST[:PORT]/s/SESSION#NONCE [--exec COMMAND]
       %(prog)s [options] login URL | logout [URL] | list [PATTERN] | sessions
       %(prog)s [options] end SESSION | share SESSION --with USER [--role ROLE]"""


class _Parser(argparse.ArgumentParser):
    """argparse with the exit status of sysexits.h."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"revtunnel-connect: {message}\nrevtunnel-connect: try: revtunnel-connect --help\n")


def _number(low: float, high: float, kind: Any = int) -> Any:
    def read(text: str) -> Any:
        try:
            number = kind(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{text[:80]!a}: a number of {low:g} to {high:g} wanted")
        return number

    return read


def _command(text: str) -> list[str]:
    """A command as an argument list; a shell never sees it."""
    try:
        words = shlex.split(text)
        [word.format(host="", port="", service="") for word in words]
    except (ValueError, KeyError, IndexError, AttributeError):
        raise argparse.ArgumentTypeError(
            f"{text[:80]!a}: words with {{host}}, {{port}} and {{service}} wanted, other braces doubled"
        ) from None
    if not words:
        raise argparse.ArgumentTypeError("a command wanted")
    return words


# what may be given: flags, the word behind it ("": none), what it is for, and how argparse is to take it
OPTIONS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    (
        "-W",
        "DEVICE/SERVICE",
        "standard input and output are its connection; for ProxyCommand of ssh",
        {"dest": "direct"},
    ),
    (
        "--exec",
        "COMMAND",
        "run this, {host}, {port} and {service} filled in, by no shell; the session ends with it",
        {"dest": "program", "type": _command},
    ),
    (
        "--port",
        "PORT",
        "local port of the one service (default: the service's own, else the next free one)",
        {"type": _number(1, 65535)},
    ),
    (
        "--address-range",
        "",
        "keep the service's own port, on the next address of 127.77.0.0/16 where it is free",
        {},
    ),
    (
        "--listen",
        "ADDRESS",
        "local address (default: 127.0.0.1); where it is not loopback, others can come",
        {"default": "127.0.0.1"},
    ),
    ("--any-user", "", "let other users of this machine come to the local ports", {}),
    ("--private", "", "a session that cannot be shared", {}),
    ("--take-over", "", "a session that somebody invited may take over", {}),
    ("--with", "USER", "share: who is invited", {"dest": "guest"}),
    ("--role", "ROLE", "share: watch, use or take (default: watch)", {"choices": ("watch", "use", "take")}),
    ("--server", "URL", "https://HOST[:PORT] (default: of the last login)", {"default": ""}),
    (
        "--ca",
        "FILE",
        "PEM file with the server's authority (default: the machine's list); login keeps it",
        {"default": ""},
    ),
    ("--plaintext", "", "speak without TLS to another machine: who listens can read the token", {}),
    (
        "--timeout",
        "S",
        "seconds to wait for the server (default: 15)",
        {"type": _number(1, 600, float), "default": 15.0},
    ),
    ("--json", "", "print JSON, one object a line, for programs", {}),
    ("--quiet", "", "print faults only", {}),
)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    rows = [f"  {usage:30}{text}" for usage, text in COMMANDS.values()]
    made = _Parser(
        prog="revtunnel-connect",
        usage=_SYNOPSIS,
        description="Reach services of devices by a revtunnel server, at local ports.",
        epilog="\n".join(["commands:", *rows, "", "The manual is revtunnel-connect(1)."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("what", nargs="*", metavar="DEVICE/SERVICE", help="services of one device")
    for flag, word, text, how in OPTIONS:
        known: dict[str, Any] = {"metavar": word} if word else {"action": "store_true"}
        made.add_argument(flag, help=text, **known, **how)
    made.add_argument("--version", action="version", version=f"revtunnel-connect {revtunnel.__version__}")
    return made


def read_line(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options; ``action`` is a subcommand or ``connect``, ``what`` what it is for. Wrong usage exits."""
    made = parser()
    options = made.parse_intermixed_args(arguments)  # options may stand between words
    options.action = "connect"
    if options.what and options.what[0] in COMMANDS and not options.direct:
        options.action = options.what.pop(0)
        least, most = _COUNTS[options.action]
        if not least <= len(options.what) <= most:
            made.error(f"{COMMANDS[options.action][0]} wanted")
    fault = _fault(options)
    if fault:
        made.error(fault)
    return options


def _fault(options: argparse.Namespace) -> str:
    """What does not go together; "": nothing."""
    connects = options.action == "connect"
    if connects and bool(options.what) == bool(options.direct):
        return "DEVICE/SERVICE, a revtunnel:// URL, a command, or -W DEVICE/SERVICE wanted"
    if options.direct and "" in options.direct.partition("/"):
        return f"-W {options.direct.partition('#')[0][:120]!a}: DEVICE/SERVICE wanted, or a revtunnel:// URL"
    if not connects and options.program:
        return "--exec goes with a session"
    if options.direct and (options.program or options.port or options.address_range):
        return "-W opens no local port: --exec, --port and --address-range do not go with it"
    if options.port and (len(options.what) > 1 or options.address_range):
        return "--port is for one service, and not with --address-range"
    if options.address_range and options.listen != "127.0.0.1":
        return "--address-range and --listen do not go together"
    if (options.action == "share") != bool(options.guest):
        return "share SESSION --with USER wanted"
    return ""
