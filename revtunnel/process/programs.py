"""Running a program of the site: words that no shell sees, little is kept of what it says, it can be killed.

Rule of this file: it gets nothing of our environment but a plain ``PATH``, and what is named. Cancelled, it
is killed with what it began itself, and nobody waits for it any more. For that ``setsid`` gives it a session
of its own, which Twisted cannot; where that is not installed, it is killed alone.

Source: issue "CCCP" (Offline intent); ours.
"""

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

__all__ = ["ProgramFailed", "run"]

SAID = 400  # bytes of its last output that are kept
PATH = "/usr/local/bin:/usr/bin:/bin"


class ProgramFailed(Exception):
    """It could not be run, or did not end with 0; the text is how it ended, and its last line."""

    def __init__(self, how: str, said: str = "") -> None:
        super().__init__(": ".join([how, *([said] if said else [])]))
        self.said = said


class _Program(ProcessProtocol):
    def __init__(self) -> None:
        self.done: Deferred[str] = Deferred(lambda _: self._kill())
        self._said = b""
        self._group: int | None = None  # it outlives the program while there is anybody in it

    def connectionMade(self) -> None:
        self._group = self.transport.pid if self.transport is not None else None

    def outReceived(self, data: bytes) -> None:
        self._said = (self._said + data)[-SAID:]

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        if self.done.called:
            return
        last = self._said.decode("ascii", "backslashreplace").strip().splitlines()[-1:]
        said = "".join(each if each.isprintable() else "?" for each in "".join(last))
        if reason.check(ProcessDone):
            self.done.callback(said)
        else:
            self.done.errback(ProgramFailed(_how_ended(reason.value), said))

    def _kill(self) -> None:
        with suppress(ProcessExitedAlready):
            if self.transport is not None:
                self.transport.signalProcess("KILL")
        with suppress(OSError):  # nobody is there any more, or it had no group yet
            if self._group is not None:
                os.killpg(self._group, signal.SIGKILL)


def _how_ended(error: Any) -> str:
    if error.signal is not None:
        known = {each.value: each.name for each in signal.Signals}
        return f"killed by {known.get(error.signal, f'signal {error.signal}')}"
    return f"exit code {error.exitCode}"


def run(reactor: Any, words: Sequence[str], environ: Mapping[str, str] | None = None) -> "Deferred[str]":
    """Run a program: the last line that it said, once it has ended with 0; else ProgramFailed.

    Add a time-out; cancelled, it is killed.
    """
    program = _Program()
    done = program.done
    found = shutil.which(words[0])
    if found is None:
        return fail(ProgramFailed(f"{words[0]}: it is not there, or is no program"))
    setsid = shutil.which("setsid")
    line = [*([] if setsid is None else [setsid]), found, *words[1:]]
    try:
        reactor.spawnProcess(program, line[0], line, env={"PATH": PATH, **(environ or {})})
    except OSError as error:
        return fail(ProgramFailed(f"{words[0]}: {error.strerror}"))
    return done
