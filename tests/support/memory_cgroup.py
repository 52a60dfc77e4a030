"""A memory cgroup for one daemon of a test: its limit, and whether the kernel ended somebody in it.

Rule of this file: only the kernel's own files (cgroups(7)), version 1 or 2, whichever has the memory
controller here. Needs root; ``reason_against`` says why not.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["MemoryCgroup", "memory_cgroup", "reason_against"]

_ROOTS = (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))


class MemoryCgroup:
    """One group; what runs in it and all that it uses is counted."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._second = not (place / "memory.limit_in_bytes").exists()

    @property
    def prefix(self) -> list[str]:
        """What stands before a command that is to run inside."""
        return ["sh", "-c", f'echo $$ > {self._place}/cgroup.procs && exec "$@"', "sh"]

    def limit(self, size: int) -> None:
        """So many bytes at most."""
        name = "memory.max" if self._second else "memory.limit_in_bytes"
        (self._place / name).write_text(str(size))

    def used(self) -> int:
        """Bytes that are counted now."""
        name = "memory.current" if self._second else "memory.usage_in_bytes"
        return int((self._place / name).read_text())

    def killed(self) -> int:
        """How many processes the kernel has ended here for want of memory."""
        text = (self._place / ("memory.events" if self._second else "memory.oom_control")).read_text()
        return int(dict(line.split() for line in text.splitlines())["oom_kill"])


def _made() -> Path:
    for root in _ROOTS:
        place = root / f"revtunnel-test-{os.getpid()}"
        try:
            place.mkdir()
        except OSError:
            continue
        if any((place / name).exists() for name in ("memory.limit_in_bytes", "memory.max")):
            return place
        place.rmdir()
    raise OSError("no memory cgroup can be made here")


def reason_against() -> str:
    """Why there can be no such group here; empty if there can."""
    try:
        _made().rmdir()
    except OSError as problem:
        return str(problem)
    return ""


@contextmanager
def memory_cgroup() -> Iterator[MemoryCgroup]:
    """A group that is taken away at the end, when nothing runs in it any more."""
    place = _made()
    try:
        yield MemoryCgroup(place)
    finally:
        place.rmdir()
