"""The command revtunnelctl: look at a running server and change it, through its admin door.

Rule of this file: the command line, the connection, the exit status. What a subcommand does and prints is in
ctl_actions.py.

====== ===============================================================================================
status when
====== ===============================================================================================
0      done
1      no such device, channel or port; not possible as things are; a reload found wrong settings
64     wrong usage
69     no server answers at the socket
75     try again: no answer in time, too many callers, the server is draining
77     you may not do that
78     wrong settings (check-config, or in the file that should name the socket)
130    ended by Ctrl-C
====== ===============================================================================================

Source: sysexits.h; twisted.md section 7; docs/admin.rst.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

import revtunnel
from revtunnel.ctl.ctl_authority import add_commands, run
from revtunnel.ctl.ctl_files import Wrong, check_config, find_socket
from revtunnel.ctl.tables import clean
from revtunnel.process.door.refusals import Busy, Conflict, Denied, Invalid, NotFound, OperatorError
from revtunnel.settings.inifile import SettingsError, Surroundings

__all__ = ["attempt", "main", "parser", "talk"]

FAILED, USAGE, UNAVAILABLE, TRY_AGAIN, DENIED, CONFIG, INTERRUPTED = 1, 64, 69, 75, 77, 78, 130
LEVELS = ("debug", "info", "warn", "error")
_STATUS = {NotFound: FAILED, Conflict: FAILED, Invalid: USAGE, Busy: TRY_AGAIN, Denied: DENIED}


class _Parser(argparse.ArgumentParser):
    """argparse with the exit status of sysexits.h."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"revtunnelctl: {message}\nrevtunnelctl: try: revtunnelctl --help\n")


def _number(low: float, high: float, kind: Callable[[str], Any] = int) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        with suppress(ValueError):
            if low <= kind(text) <= high:
                return kind(text)
        raise argparse.ArgumentTypeError(f"{text[:80]!a}: a number of {low:g} to {high:g} wanted")

    return read


def _use(text: str) -> tuple[str, str]:
    serial, _, target = text.partition("/")
    if not serial or not target:
        raise argparse.ArgumentTypeError(f"{text[:80]!a}: SERIAL/TARGET wanted, such as plc-7/http")
    return serial, target


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
    """The command line."""
    root = _Parser(
        prog="revtunnelctl",
        description="Look at a running revtunnel-server and change it.",
        epilog="The manual is revtunnelctl(1).",
        parents=[_shared(None)],
    )
    root.add_argument("--version", action="version", version=f"revtunnelctl {revtunnel.__version__}")
    below = root.add_subparsers(dest="action", metavar="COMMAND", required=True)

    add = partial(_add, below)
    _add_looking(add)
    _add_changing(add)
    authority = add("ca", "the certificate authority's own files; needs no server")
    inner = authority.add_subparsers(dest="ca", metavar="COMMAND", required=True)
    add_commands(_add, inner, _number)
    return root


def _add(below: Any, name: str, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = below.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", parents=[_shared(argparse.SUPPRESS)]
    )
    return made


def _add_looking(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    add("status", "the server as a whole: counts, state, problems")
    add("ping", "is the server alive; status 75 while it drains")
    add("devices", "devices that are here or were")
    add("device", "what one device may do: its record").add_argument("serial", metavar="SERIAL")
    add("ports", "client ports: whose, and how they stand")
    add("channels", "running channels").add_argument("serial", metavar="SERIAL", nargs="?")
    add("enrolled", "serials that have a device key")
    add("peers", "peers of the CAMEO relays")
    watch = add("watch", "print what happens, as it happens")
    watch.add_argument("--count", metavar="N", type=_number(1, 1e9), help="end after N lines")
    check = add("check-config", "check a settings file; needs no server")
    check.add_argument(
        "file", metavar="FILE", nargs="?", help="default: the one of --config, or the usual one"
    )


def _add_changing(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    close = add("close", "end one channel")
    close.add_argument("serial", metavar="SERIAL")
    close.add_argument("channel", metavar="CHANNEL", type=_number(0, 2**31 - 1))
    cut = add("cut", "end the connection of one peer of the CAMEO relays")
    cut.add_argument("peer", metavar="PEER", help="its address, as peers shows it")
    kick = add("kick", "end a device's link; it comes back by itself")
    kick.add_argument("serial", metavar="SERIAL")
    kick.add_argument(
        "--retry-after",
        metavar="S",
        type=_number(0, 65535),
        default=0,
        help="seconds it shall stay away (default: 0)",
    )
    release = add("release", "give back the port of an absent device's target")
    release.add_argument("use", metavar="SERIAL/TARGET", type=_use)
    _add_enrolling(add)
    add("drain", "stop the server in order, as SIGTERM does")
    add("reload", "read the settings again, as SIGHUP does; status 1 when they are wrong")
    add("log-level", "log from this level on").add_argument("level", metavar="LEVEL", choices=LEVELS)


def _add_enrolling(add: Callable[[str, str], argparse.ArgumentParser]) -> None:
    enroll = add("enroll", "give a device a certificate where the server has an authority, else a key")
    enroll.description = (
        "Give a device what it proves itself with. Where the server has an authority: a one-time token, in a "
        "line to be pasted beside the device, or with --out or --csr a certificate. Elsewhere: a device key."
    )
    enroll.add_argument("serial", metavar="SERIAL")
    form = enroll.add_mutually_exclusive_group()
    form.add_argument("--token", action="store_true", help="print the line with a one-time token")
    form.add_argument("--csr", metavar="FILE", help="make the certificate for this request (PKCS #10)")
    form.add_argument("--key", action="store_true", help="make a device key in any case")
    enroll.add_argument(
        "--out",
        metavar="PATH",
        help="where to put it: a directory for a certificate and its key, a file for a key",
    )
    enroll.add_argument(
        "--server", metavar="HOST:PORT", help="where the agent shall dial (default: what the server knows)"
    )
    enroll.add_argument(
        "--replace",
        action="store_true",
        help="also where there is one already, which does not count any more",
    )
    revoke = add("revoke", "withdraw key, certificates and token of a device and cut it off")
    revoke.add_argument("serial", metavar="SERIAL")
    revoke.add_argument(
        "--lift", action="store_true", help="let its certificates of another authority count again"
    )


async def attempt(work: Coroutine[Any, Any, int]) -> int:
    """The exit status of a subcommand; what went wrong is said here."""
    try:
        return await work
    except Wrong as error:
        return _complain(error, FAILED)
    except OperatorError as error:
        return _complain(error, next(status for kind, status in _STATUS.items() if isinstance(error, kind)))


def offline(work: Callable[[], int]) -> int:
    """The exit status of a subcommand that needs no server."""
    try:
        return work()
    except Wrong as error:
        return _complain(error, FAILED)


def _complain(error: object, status: int) -> int:
    for line in str(error).splitlines():
        print(f"revtunnelctl: {clean(line)}", file=sys.stderr)
    return status


async def talk(reactor: Any, path: str, options: argparse.Namespace) -> int:
    from revtunnel.ctl.ctl_actions import ACTIONS
    from revtunnel.process.door.admin_client import TIMEOUT, NoServer, connect

    try:
        client = await connect(reactor, path, options.timeout or TIMEOUT)
    except NoServer as error:
        return _complain(error, UNAVAILABLE)
    try:
        return await ACTIONS[options.action](client, options)
    finally:
        client.close()


def _run(path: str, options: argparse.Namespace) -> int:
    """Run the reactor until the subcommand is done, or until Ctrl-C."""
    from twisted.internet import reactor
    from twisted.internet.defer import CancelledError, Deferred

    loop: Any = reactor
    results: list[Any] = []

    def ended(result: Any) -> None:
        results.append(result)
        loop.stop()

    def begin() -> None:
        work = Deferred.fromCoroutine(attempt(talk(loop, path, options)))
        signal.signal(signal.SIGINT, lambda *_: loop.callFromThread(work.cancel))
        work.addBoth(ended)

    loop.callWhenRunning(begin)
    loop.run(installSignalHandlers=False)
    if isinstance(results[0], int):
        return results[0]
    if results[0].check(CancelledError):
        return INTERRUPTED
    results[0].raiseException()
    raise AssertionError("not reached")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command; ends the process."""
    options = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        if options.action == "check-config":
            status = check_config(options.file or options.config, bool(options.json))
        elif options.action == "ca":
            status = offline(lambda: run(options, Surroundings.here()))
        else:
            status = _run(find_socket(options.socket, options.config, Surroundings.here()), options)
        sys.stdout.flush()
    except SettingsError as error:
        status = _complain("\n".join(error.errors), CONFIG)
    except OSError as error:  # our output has no place
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = FAILED if isinstance(error, BrokenPipeError) else _complain(error, FAILED)
    sys.exit(status)


if __name__ == "__main__":
    main()
