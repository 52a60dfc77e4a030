"""The load generator, load.c: compiled on demand, run with a bound on every measurement.

The program prints "begin" when its measured window opens and a line of JSON when it closes, then keeps its
connections until its standard input ends; so CPU and memory are sampled for exactly that window.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import busy_seconds
from benchmarks.processes import Crew, CrewError

__all__ = ["CompilerMissing", "Load", "Window", "compile_load"]

HERE = Path(__file__).parent
SLACK = 40.0  # seconds a measurement may take beyond its own duration: opening 1,000 connections through ssh


class CompilerMissing(Exception):
    """There is no C compiler on PATH."""


def compile_load(folder: Path = HERE / ".build", name: str = "load") -> Path:
    """Return the compiled program; it is built once for each text of its source."""
    source = HERE / f"{name}.c"
    program = folder / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if program.exists():
        return program
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise CompilerMissing(
            "no C compiler: `cc` is not on PATH (or set CC); the load generator is a C program"
        )
    folder.mkdir(exist_ok=True)
    fresh = program.with_suffix(f".{os.getpid()}")
    subprocess.run([compiler, "-O2", "-pthread", "-o", fresh, source], check=True, timeout=120)
    fresh.replace(program)
    return program


@dataclass(frozen=True)
class Window:
    """What happened while the window was open: the generator's figures, and CPU seconds used by role."""

    figures: dict[str, float]
    cpu: dict[str, float]
    others: float  # cores that anything else kept busy, the benchmark itself included


@dataclass(frozen=True)
class Load:
    """The program, the service it serves, and how to run its other modes against a port."""

    program: Path
    counter: Path
    service: Crew
    port: int

    @classmethod
    def serve(cls, program: Path, folder: Path, port: int) -> Load:
        """Start the service on 127.0.0.1:port; its owner ends it with `service.stop()`."""
        service = Crew(folder)
        counter = folder / "counter"
        service.start("service", [program, "serve", "127.0.0.1", str(port), counter])
        return cls(program, counter, service, port)

    def run(
        self,
        crew: Crew,
        mode: str,
        *words: object,
        seconds: float = 0.0,
        held: Callable[[], None] | None = None,
        host: str = "127.0.0.1",
    ) -> Window:
        """Run one mode; `held` is called while the connections are still open.  CrewError when it fails."""
        if mode == "bulk-up":
            words += (self.counter,)
        with Crew(_fresh(crew.folder)) as generator:
            process = generator.start("generator", [self.program, mode, host, *map(str, words)], talks=True)
            lines = _Lines(process, generator, time.monotonic() + seconds + SLACK)
            lines.expect()
            started, busy, before = time.monotonic(), busy_seconds(), self._cpu(crew, generator)
            figures = json.loads(lines.expect())
            took, busy, after = time.monotonic() - started, busy_seconds() - busy, self._cpu(crew, generator)
            if held is not None:
                held()
        crew.check()
        used = {role: after[role] - before.get(role, 0.0) for role in after}
        return Window(figures, used, max(0.0, busy - sum(used.values())) / took)

    def _cpu(self, crew: Crew, generator: Crew) -> dict[str, float]:
        return crew.cpu() | generator.cpu() | self.service.cpu()


def _fresh(folder: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix="generator-", dir=folder))


class _Lines:
    """Lines of a process's standard output, waited for until a deadline."""

    def __init__(self, process: subprocess.Popen[bytes], crew: Crew, deadline: float) -> None:
        assert process.stdout is not None
        self._fd, self._crew, self._deadline, self._buffer = process.stdout.fileno(), crew, deadline, b""

    def expect(self) -> str:
        while b"\n" not in self._buffer:
            left = self._deadline - time.monotonic()
            if left <= 0 or not select.select([self._fd], [], [], left)[0]:
                raise CrewError("no result in time")
            data = os.read(self._fd, 65536)
            if not data:
                raise CrewError(self._crew.last_words())
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()
