"""What the run was made on: processor, kernel, versions, and how quiet the machine was."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import revtunnel

__all__ = ["Quiet", "available", "busy_seconds", "describe", "wait_for_quiet"]

VERSION_COMMANDS = {
    "haproxy": "-v",
    "ssh": "-V",
    "frps": "--version",
    "rathole": "--version",
    "bore": "--version",
    "chisel": "--version",
    "wstunnel": "--version",
}
QUIET = 0.1  # cores busy with anything, over one second


@dataclass(frozen=True)
class Quiet:
    """How quiet the machine was when a pass began, and the seconds that were waited for it."""

    busy_cores: float
    load_average: float  # of the last minute; after the first pass it is mostly our own
    waited: float

    def __str__(self) -> str:
        load = f"{self.busy_cores:.2f} cores busy, load average {self.load_average:.2f}"
        return f"{load}, waited {self.waited:.0f} s"


def wait_for_quiet(patience: float = 60.0) -> Quiet:
    """Wait until less than QUIET cores are busy, `patience` seconds at most; say how it was."""
    started = time.monotonic()
    busy = _busy_cores()
    while busy > QUIET and time.monotonic() - started < patience:
        busy = _busy_cores()
    return Quiet(busy, os.getloadavg()[0], time.monotonic() - started)


def _busy_cores() -> float:
    before, started = busy_seconds(), time.monotonic()
    time.sleep(1)
    return (busy_seconds() - before) / (time.monotonic() - started)


def busy_seconds() -> float:
    """CPU seconds of all cores since boot, without idle and waiting; with those the hypervisor took."""
    values = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return (sum(values) - values[3] - values[4]) / os.sysconf("SC_CLK_TCK")


def available() -> int:
    """Bytes of memory that new programs could have."""
    return int(_field("/proc/meminfo", "MemAvailable").split()[0]) * 1024


def describe() -> dict[str, str | int]:
    """Return machine, kernel and the versions of everything that was found."""
    facts: dict[str, str | int] = {
        "processor": _field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "revtunnel": revtunnel.__version__ + _commit(),
    }
    try:
        import twisted

        facts["twisted"] = twisted.__version__
    except ImportError:
        pass
    return facts | {
        name: _first_line(name, option) for name, option in VERSION_COMMANDS.items() if shutil.which(name)
    }


def _field(path: str, name: str) -> str:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _first_line(*argv: str) -> str:
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip().split("\n")[0]


def _commit() -> str:
    """Return " (commit)" of the tree, "+" after it when something was changed since; empty outside git."""
    root = Path(__file__).parent.parent
    try:
        done = subprocess.run(
            ["git", "-C", root, "describe", "--always", "--dirty=+"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return f" ({done.stdout.strip()})" if done.returncode == 0 else ""
