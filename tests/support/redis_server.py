"""A Redis server of a test's own: it keeps nothing, and is ended by its process id.

Rule of this file: redis-server is used as it is installed, or valkey-server where there is no other or with
REVTUNNEL_ENGINE=valkey, or the program that this names; a test that needs it is skipped by name where there
is none.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import free_ports

__all__ = ["INSTALLED", "PROGRAM", "RedisServer"]


def _program(asked: str) -> str:
    names = {"valkey": ["valkey-server"], "": ["redis-server", "valkey-server"]}.get(asked, [asked])
    return next((name for name in names if shutil.which(name)), names[0])


PROGRAM = _program(os.environ.get("REVTUNNEL_ENGINE", ""))
INSTALLED = shutil.which(PROGRAM) is not None
READY = 20.0  # seconds


class RedisServer:
    """Runs from ``start`` to ``stop``, or for ``with``. ``options`` as on its command line, without the
    dashes."""

    def __init__(self, directory: Path, *options: str, port: int = 0, sentinel: Path | None = None) -> None:
        self.port = port or free_ports(1)[0]
        self.options = list(options)
        self.password = ""
        self._directory = directory
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> Self:
        """Run it, and wait until it answers."""
        words = [PROGRAM] if self._sentinel is None else [PROGRAM, str(self._sentinel), "--sentinel"]
        words += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._directory)]
        if self._sentinel is None:
            words += ["--save", "", "--appendonly", "no"]
        words += [word for option in self.options for word in f"--{option}".split(" ", 1)]
        log = open(self._directory / f"redis-{self.port}.log", "ab")  # noqa: SIM115  the child's
        with log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        end = time.monotonic() + READY
        while not self._answers():
            assert self._process.poll() is None, f"{PROGRAM} ended: see {log.name}"
            assert time.monotonic() < end, f"{PROGRAM} does not answer"
            time.sleep(0.02)
        return self

    @property
    def running(self) -> bool:
        """Whether it was started and not killed."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Of its process."""
        assert self._process is not None
        return self._process.pid

    def memory(self) -> int:
        """Bytes that it has allocated."""
        told = self.ask("INFO", "memory")
        return int(told[told.index("used_memory:") :].split("\r\n")[0].partition(":")[2])

    def kill(self) -> None:
        """As ``kill -9``: with it goes all that it had."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def pause(self) -> None:
        """As ``kill -STOP``."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """As ``kill -CONT``."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *words: str) -> str:
        """One command: its answer, or the head of a long one; an error with its "-"."""
        asked = [("AUTH", self.password), words] if self.password else [words]
        with socket.create_connection(("127.0.0.1", self.port), 5) as sock, sock.makefile("rb") as answers:
            for each in asked:
                sent = "".join(f"${len(word)}\r\n{word}\r\n" for word in each)
                sock.sendall(f"*{len(each)}\r\n{sent}".encode())
                line = answers.readline().decode().strip()
            return answers.read(int(line[1:])).decode() if line[:1] == "$" and line != "$-1" else line

    def _answers(self) -> bool:
        try:
            return self.ask("PING")[:1] in ("+", "-") and not self.ask("PING").startswith("-LOADING")
        except OSError:
            return False
