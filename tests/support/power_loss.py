"""A disk that loses its power: what a process did to the files of one directory, cut off at any step.

``disk_log.c`` is built and loaded before the process's own C library, and logs each create, write, truncate,
sync, rename and unlink. From the log any moment is made anew: with all that was written, as after a kill; or
with what was synced only, as a file system may leave it that promises nothing else: a file has what it had at
its last sync, and the directory the names that it had at its own last one; or with some of the rest.

Source: the tools of OSDI 2014, "All File Systems Are Not Created Equal" (ALICE), in small; ours.
"""

import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

__all__ = ["GCC", "Disk", "Step", "play", "recorded"]

GCC = shutil.which("gcc")
_HEAD = struct.Struct("<cQQQ")
MARKS = "marks"  # a file in the directory; a line in it says what was answered


class Step(NamedTuple):
    """One record of the log."""

    kind: str
    inode: int
    offset: int
    data: bytes


@dataclass
class _File:
    now: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    writes: list[tuple[int, bytes]] = field(default_factory=list)  # since then; a size and None: truncated

    def write(self, at: int, data: bytes) -> None:
        _put(self.now, at, data)
        self.writes.append((at, data))


def _put(content: bytearray, at: int, data: bytes) -> None:
    if len(content) < at:
        content.extend(bytes(at - len(content)))
    content[at : at + len(data)] = data


def recorded(program: str, directory: Path, log: Path, *arguments: str) -> list[Step]:
    """What a Python program, given as text, did in a directory that is empty now."""
    assert GCC is not None
    library = log.with_suffix(".so")
    source = Path(__file__).with_name("disk_log.c")
    subprocess.run([GCC, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    around = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "DISK_LOG": str(log),
        "DISK_LOG_BELOW": str(directory),
    }
    subprocess.run([sys.executable, "-c", program, str(directory), *arguments], env=around, check=True)
    return [*_steps(log.read_bytes())]


def _steps(data: bytes) -> Iterator[Step]:
    at = 0
    while at < len(data):
        kind, inode, offset, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        yield Step(kind.decode(), inode, offset, data[at : at + size])
        at += size


class Disk:
    """The files of the directory at one moment of the log."""

    def __init__(self) -> None:
        self._files: dict[int, _File] = {}  # by inode, which may come again for another file
        self._names: dict[str, _File] = {}
        self._kept: dict[str, _File] = {}  # names as of the directory's last sync

    @property
    def answered(self) -> list[str]:
        """The lines of ``marks``."""
        marks = self._names.get(MARKS)
        return [] if marks is None else bytes(marks.now).decode().split()

    def take(self, step: Step) -> None:
        """Let a step happen."""
        if step.kind == "C":
            self._files[step.inode] = self._names[step.data.decode()] = _File()
        elif step.kind == "R":
            old, new = step.data.decode().split("\0")
            self._names[new] = self._names.pop(old)
        elif step.kind == "U":
            self._names.pop(step.data.decode(), None)
        elif step.kind == "S" and step.inode not in self._files:
            self._kept = dict(self._names)
        else:
            self._of_file(self._files[step.inode], step)

    @staticmethod
    def _of_file(file: _File, step: Step) -> None:
        if step.kind == "W":
            file.write(step.offset, step.data)
        elif step.kind == "T":
            del file.now[step.offset :]
            file.writes.append((step.offset, b""))
        else:
            file.synced, file.writes = bytes(file.now), []

    def killed(self, into: Path) -> None:
        """The process was killed here: the system writes all of it."""
        self._write(into, {name: bytes(file.now) for name, file in self._names.items()})

    def dark(self, into: Path) -> None:
        """The power went here: what was not synced is gone."""
        self._write(into, {name: file.synced for name, file in self._kept.items()})

    def torn(self, into: Path, chance: random.Random) -> None:
        """The power went here: of what was not synced some writes are there, of names the old or the new."""
        names = self._names if chance.random() < 0.5 else self._kept
        self._write(into, {name: self._some(file, chance) for name, file in names.items()})

    @staticmethod
    def _some(file: _File, chance: random.Random) -> bytes:
        content = bytearray(file.synced)
        for at, data in file.writes:
            if chance.random() < 0.5:
                continue
            if data:
                _put(content, at, data)
            else:
                del content[at:]
        return bytes(content)

    @staticmethod
    def _write(into: Path, contents: dict[str, bytes]) -> None:
        for name, content in contents.items():
            if name != MARKS and not name.endswith((".lock", "-shm")):
                (into / name).write_bytes(content)


def play(steps: list[Step]) -> Iterator[Disk]:
    """The same disk before the first step, and after each."""
    disk = Disk()
    yield disk
    for step in steps:
        disk.take(step)
        yield disk
