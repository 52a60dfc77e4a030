"""The person's program as a process, with its output in files and a configuration directory of its own.

::

    run = Program(tmp_path, "--json", "plc-7/ssh")
    run.event("listening")["port"]
    run.interrupt(); assert run.status() == 0
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.fork_server import spawn

__all__ = ["Program", "until"]

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0  # seconds to wait for what must come
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def until(condition: Callable[[], Any], what: str = "what must come") -> None:
    """Look until it is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited {PATIENCE:g} s for {what}"
        time.sleep(0.01)


class Program:
    """``wait`` waits for a condition; ``environment`` is added to the test's, without its proxies."""

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        wait: Callable[..., None] = until,
        environment: dict[str, str] | None = None,
        **how: Any,
    ) -> None:
        self._wait = wait
        number = len([*directory.glob("*.out")])
        self.out, self.err = directory / f"{number}.out", directory / f"{number}.err"
        kept = {name: value for name, value in os.environ.items() if name.lower() not in _PROXIES}
        kept |= {"PYTHONPATH": str(ROOT), "XDG_CONFIG_HOME": str(directory), **(environment or {})}
        command = [sys.executable, "-m", "revtunnel.connect.connect", *arguments]
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            streams = {"stdin": subprocess.PIPE, "stdout": out, "stderr": err, **how}
            self.process = spawn(command, env=kept, **streams)

    def feed(self, data: bytes) -> "Program":
        """Its standard input, all of it."""
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.close()
        return self

    def said(self) -> list[dict[str, Any]]:
        """What it said in JSON so far."""
        return [json.loads(line) for line in self.out.read_text().splitlines() if line.startswith("{")]

    def event(self, word: str, **fields: Any) -> dict[str, Any]:
        """Wait for an event."""
        found: list[dict[str, Any]] = []

        def came() -> bool:
            ended = self.process.poll() is not None
            rows = [row for row in self.said() if row["event"] == word]
            found[:] = [row for row in rows if fields.items() <= row.items()]
            assert found or not ended, f"no {word}: {self.err.read_text()}"
            return bool(found)

        self._wait(came, word)
        return found[-1]

    def interrupt(self, number: signal.Signals = signal.SIGINT) -> "Program":
        """Ctrl-C."""
        self.process.send_signal(number)
        return self

    def status(self) -> int:
        """Wait for its end."""
        self._wait(lambda: self.process.poll() is not None, "the program's end")
        return int(self.process.returncode)

    def close(self) -> None:
        """Whatever it does, it is over."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
