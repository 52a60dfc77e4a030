"""The command revtunnelctl: look at a running server and change it, through its admin socket.

Rule of this file: the connection and the exit status; what is needed for one subcommand is imported for no
other. The command line is command_line.py's; what a subcommand does and prints is ctl_actions.py's.

====== ===============================================================================================
status when
====== ===============================================================================================
0      done
1      no such device, channel or port; not possible as things are; a reload found wrong settings; a user
       may not what was asked; an audit file is broken
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
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from revtunnel.ctl.command_line import parser
from revtunnel.ctl.ctl_files import Wrong, check_config, find_socket
from revtunnel.ctl.tables import clean
from revtunnel.ground.errors import SettingsError
from revtunnel.process.admin.admin_client import TIMEOUT, AdminClient, NoServer, connect
from revtunnel.process.admin.refusals import Busy, Conflict, Denied, Invalid, NotFound, OperatorError

__all__ = ["attempt", "main", "talk"]

FAILED, USAGE, UNAVAILABLE, TRY_AGAIN, DENIED, CONFIG, INTERRUPTED = 1, 64, 69, 75, 77, 78, 130
_STATUS: dict[type[Exception], int] = {
    NotFound: FAILED,
    Conflict: FAILED,
    Invalid: USAGE,
    Busy: TRY_AGAIN,
    Denied: DENIED,
    NoServer: UNAVAILABLE,
}


def attempt(work: Callable[[], int]) -> int:
    """The exit status of a subcommand; what went wrong is said here."""
    try:
        return work()
    except (Wrong, SettingsError) as error:
        return _complain(error, CONFIG if isinstance(error, SettingsError) else FAILED)
    except (OperatorError, NoServer) as error:
        return _complain(error, _STATUS[type(error)])


def _complain(error: object, status: int) -> int:
    for line in str(error).splitlines():
        print(f"revtunnelctl: {clean(line)}", file=sys.stderr)
    return status


def talk(options: argparse.Namespace, path: str, dial: Callable[..., AdminClient] = connect) -> int:
    """Ask the server at the socket, and print what it says: the exit status."""
    from revtunnel.ctl.ctl_actions import act

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job has it ignored
    client = dial(path, options.timeout or TIMEOUT)
    try:
        return act(client, options)
    finally:
        client.close()


def _work(options: argparse.Namespace) -> int:
    if options.command == "check-config":
        return check_config(options.file or options.config, bool(options.json))
    if options.command == "audit verify":
        from revtunnel.ctl.ctl_audit import verify_audit

        return verify_audit(options)
    if options.command.startswith("ca "):
        from revtunnel.ctl.ctl_authority import run
        from revtunnel.settings.inifile import Surroundings

        return run(options, Surroundings.here())
    if options.command == "install-units":
        from revtunnel.ctl.host_units import install_units

        return install_units(options)
    return talk(options, find_socket(options.socket, options.config))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command; ends the process."""
    options = parser().parse_args(arguments)
    streams: tuple[Any, ...] = sys.stdout, sys.stderr
    for stream in streams:
        with suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")
    try:
        status = attempt(lambda: _work(options))
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except OSError as error:  # our output has no place
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = FAILED if isinstance(error, BrokenPipeError) else _complain(error, FAILED)
    sys.exit(status)


if __name__ == "__main__":
    main()
