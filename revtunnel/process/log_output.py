"""Where log lines leave the process: a descriptor that may be full, blocked or gone.

Rule of this file: a write never blocks and never raises. A line that does not fit now is dropped whole and
counted; a line that was begun is finished before another one starts, so that lines stay lines.

A regular file that was given with its path can be rotated, as twistd does it: it becomes PATH.1, what was
PATH.1 becomes PATH.2 and so on, and lines go on into a new file. Where another program has moved it away,
only the latter is done.

Standard output is shared with other processes, so its own flags are left alone: a socket is written with
MSG_DONTWAIT, a pipe or terminal is opened once more without blocking, a regular file is written directly.
"""

import os
import select
import socket
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import count

__all__ = ["LogOutput", "open_log", "write_when_ready"]

MAX_WRITE = 4096  # bytes that poll() promises a pipe has room for (PIPE_BUF)
_AGAIN = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class LogOutput:
    """Lines on a descriptor, which stays the caller's; ``close`` gives back what the sink opened itself.

    ``journal`` is true when it is the stream that systemd's journal reads; ``dropped`` counts lines lost.
    ``path``, if any, is where the file lies, absolute.
    """

    def __init__(self, descriptor: int, environ: Mapping[str, str] | None = None, path: str = "") -> None:
        status = os.fstat(descriptor)
        self.journal = (environ or {}).get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
        self.dropped = 0
        self._rest = b""
        self._write: Callable[[bytes], int]
        self._close: Callable[[], None]
        self._path = path if stat.S_ISREG(status.st_mode) else ""
        self._device_and_number = status.st_dev, status.st_ino
        if stat.S_ISSOCK(status.st_mode):
            self._use_socket(descriptor)
        elif stat.S_ISREG(status.st_mode):
            self._use(os.dup(descriptor))
        else:
            self._use_stream(descriptor)

    def write(self, line: bytes) -> bool:
        """Write one line, or drop and count it; False when it was dropped."""
        written = self.offer(line)
        self.dropped += not written
        return written

    def offer(self, line: bytes) -> bool:
        """Write one line if that is possible now; False when not, and nothing is counted."""
        if not self._finish():
            return False
        written = self._attempt(line)
        self._rest = line[written:] if written else b""
        self._finish()
        return bool(written)

    def rotate(self) -> bool:
        """Go on in a new file; False when there is no path. A line that was begun loses its end.

        Raises:
            OSError: that cannot be done; lines go where they went.
        """
        if not self._path:
            return False
        with suppress(FileNotFoundError):
            now = os.stat(self._path)
            if (now.st_dev, now.st_ino) == self._device_and_number:
                _shift(self._path)
        fresh = open_log(self._path)
        self._close()
        self._rest = b""
        status = os.fstat(fresh)
        self._device_and_number = status.st_dev, status.st_ino
        self._use(fresh)
        return True

    def close(self) -> None:
        """Write no more: every further line is dropped."""
        self._close()
        self._write, self._close = (lambda data: 0), (lambda: None)

    def _finish(self) -> bool:
        """Whether nothing of an earlier line is left over."""
        while self._rest:
            written = self._attempt(self._rest)
            if not written:
                return False
            self._rest = self._rest[written:]
        return True

    def _attempt(self, data: bytes) -> int:
        try:
            return self._write(data)
        except OSError:  # full disk, reader gone, would block: all the same to the service
            return 0

    def _use(self, own: int) -> None:
        self._write = lambda data: os.write(own, data)
        self._close = lambda: os.close(own)

    def _use_socket(self, descriptor: int) -> None:
        own = socket.socket(fileno=os.dup(descriptor))
        self._write = lambda data: own.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        self._close = own.close

    def _use_stream(self, descriptor: int) -> None:
        try:
            self._use(os.open(f"/proc/self/fd/{descriptor}", _AGAIN))
        except OSError:  # another user's pipe: ask before each write
            own = os.dup(descriptor)
            self._use(own)
            self._write = lambda data: write_when_ready(own, data)


def open_log(path: str) -> int:
    """A descriptor that appends to the file, so that it may be truncated by a rotation; OSError: none."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _shift(path: str) -> None:
    free = next(number for number in count(1) if not os.path.lexists(f"{path}.{number}"))
    for number in range(free, 1, -1):
        os.rename(f"{path}.{number - 1}", f"{path}.{number}")
    os.rename(path, f"{path}.1")


def write_when_ready(descriptor: int, data: bytes) -> int:
    """Write as much as surely does not block; 0 when that is nothing. For pipes with one writer."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    if not poll.poll(0):
        return 0
    return os.write(descriptor, data[:MAX_WRITE])
