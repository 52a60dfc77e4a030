"""The program behind ``--exec``: an argument list, never a shell, on our own standard streams.

Rule of this file: its exit status is ours; Ctrl-C is its alone, other signals that end us are passed on.

Source: next/remote-sessions.md section 7; ours.
"""

import contextlib
import os
from shutil import which
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from revtunnel.connect.outcomes import CONFIG, Stop

__all__ = ["Program", "filled_in"]


def filled_in(words: list[str], host: str, port: int, service: str) -> list[str]:
    """The argument list with the place of a service in it."""
    shown = f"[{host}]" if ":" in host else host
    return [word.format(host=shown, port=port, service=service) for word in words]


class Program(ProcessProtocol):
    """A running program; ``over`` fires with its exit status."""

    def __init__(self) -> None:
        self.over: Deferred[int] = Deferred()

    def start(self, reactor: Any, words: list[str]) -> None:
        """Run it. Stop: there is no such program."""
        path = _found(words[0])
        if path is None:
            raise Stop(CONFIG, f"--exec: {words[0][:120]!a}: no such program")
        environ = {name: value for name, value in os.environ.items() if name != "REVTUNNEL_TOKEN"}
        reactor.spawnProcess(self, path, words, env=environ, childFDs={0: 0, 1: 1, 2: 2})

    def pass_on(self, number: int) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessExitedAlready):
            self.transport.signalProcess(number)  # type: ignore[union-attr]

    def processExited(self, reason: Failure) -> None:
        """Twisted calls this; its own children may still have our streams."""
        code, number = getattr(reason.value, "exitCode", None), getattr(reason.value, "signal", None)
        if not self.over.called:
            self.over.callback(code if code is not None else 128 + (number or 0))


def _found(name: str) -> str | None:
    return os.path.abspath(name) if "/" in name and os.access(name, os.X_OK) else which(name)
