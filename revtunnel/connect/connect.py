"""The command revtunnel-connect: its start, its signals, its exit status.

Rule of this file: it knows nothing of what is done; what is needed is imported once it is known what for.
What goes wrong becomes a line on standard error and a status (outcomes.py), never a traceback, unless it is a
bug.

Source: ours.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from revtunnel.connect.connect_line import read_line
from revtunnel.connect.console_output import Telling
from revtunnel.connect.outcomes import Stop

__all__ = ["main", "run"]

INTERRUPTED = 130
FAILED = 1
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command; ends the process."""
    options = read_line(None if arguments is None else [*arguments])
    telling = Telling(options.json, options.quiet, free=not (options.direct or options.program))
    try:
        status = run(options, telling)
        sys.stdout.flush()
    except Stop as stop:
        if str(stop):
            telling.complain(stop)
        status = stop.status
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = FAILED
    sys.exit(status)


def run(options: argparse.Namespace, telling: Telling) -> int:
    """Do what was asked for: the exit status. Stop: as it says."""
    from twisted.internet import reactor as found

    from revtunnel.connect.logins import Logins, place_of
    from revtunnel.sockets.name_threads import resolve_apart
    from revtunnel.sockets.reactor_turn import shorten_turns

    logins = Logins(place_of(os.environ))
    reactor: Any = found
    reactor.seconds = time.monotonic
    shorten_turns(reactor)
    resolve_apart(reactor)
    if options.action == "connect":
        from revtunnel.connect.connecting import Connecting

        connecting = Connecting(reactor, options, logins, telling)
        return _drive(reactor, connecting.run(), connecting.stop)
    from revtunnel.connect.one_shot_commands import Errands

    errand = getattr(Errands(reactor, options, logins, telling), options.action)
    return _drive(reactor, errand(), None)


def _drive(reactor: Any, work: Coroutine[Any, Any, int], stop: Callable[[int, bool], bool] | None) -> int:
    """Run the reactor until the work is done; ``stop`` is told of signals, without it they end the work."""
    from twisted.internet.defer import Deferred

    results: list[Any] = []

    def done(result: Any) -> None:
        results.append(result)
        with suppress(Exception):  # stopped already
            reactor.stop()

    def begin() -> None:
        for number in _SIGNALS:
            signal.signal(number, caught)
        Deferred.fromCoroutine(work).addBoth(done)

    def caught(number: int, frame: Any) -> None:
        reactor.callFromThread(signalled, number)

    def signalled(number: int) -> None:
        if stop is None or not stop(number, number == signal.SIGINT):
            reactor.stop()

    reactor.callWhenRunning(begin)
    reactor.run()
    if not results:
        return INTERRUPTED
    if not isinstance(results[0], int):
        results[0].raiseException()
    return int(results[0])


if __name__ == "__main__":
    main()
