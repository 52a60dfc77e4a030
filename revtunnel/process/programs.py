"""Running a program of the site: words that no shell sees, little is kept of what it says, it can be killed.

Rule of this file: it gets nothing of our environment but a plain ``PATH``, and what is named. Cancelled, it
is killed, and nobody waits for it any more; what it began itself is not: a script ends with ``exec``.

Source: issue "CCCP" (Offline intent); ours.
"""

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

    def outReceived(self, data: bytes) -> None:
        """Twisted calls this."""
        self._said = (self._said + data)[-SAID:]

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        """Twisted calls this."""
        if self.done.called:
            return
        last = self._said.decode("ascii", "backslashreplace").strip().splitlines()[-1:]
        said = "".join(each if each.isprintable() else "?" for each in "".join(last))
        if reason.check(ProcessDone):
            self.done.callback(said)
        else:
            self.done.errback(ProgramFailed(reason.getErrorMessage(), said))

    def _kill(self) -> None:
        with suppress(ProcessExitedAlready):
            if self.transport is not None:
                self.transport.signalProcess("KILL")


def run(reactor: Any, words: Sequence[str], environ: Mapping[str, str] | None = None) -> "Deferred[str]":
    """Run a program: the last line that it said, once it has ended with 0; else ProgramFailed.

    Add a time-out; cancelled, it is killed.
    """
    program = _Program()
    done = program.done
    try:
        reactor.spawnProcess(program, words[0], list(words), env={"PATH": PATH, **(environ or {})})
    except OSError as error:
        return fail(ProgramFailed(f"{words[0]}: {error.strerror}"))
    return done
