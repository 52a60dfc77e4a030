"""Programs that a memory reactor begins: a test sees their words and lets them end."""

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.python.failure import Failure

__all__ = ["Program"]


class Program:
    """One that runs; it is the process's transport as well."""

    pid = None

    def __init__(self, protocol: Any, words: Sequence[str], environ: Mapping[str, str]) -> None:
        self.words = list(words)[words[0].endswith("/setsid") :]
        self.environ = dict(environ)
        self.signals: list[str] = []
        self.ended = False
        self._protocol = protocol

    def signalProcess(self, name: str) -> None:
        """Our code calls this; the end comes later, if at all."""
        self.signals.append(name)

    def end(self, status: int | None, said: bytes = b"") -> None:
        """It says something and ends; None: by a signal."""
        self.ended = True
        if said:
            self._protocol.outReceived(said)
        failed = ProcessTerminated(status, None if status is not None else 9)
        self._protocol.processEnded(Failure(ProcessDone(0) if status == 0 else failed))
