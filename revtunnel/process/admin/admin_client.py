"""The caller's end of the admin socket: for revtunnelctl, and for other programs of this machine.

    client = connect("/run/revtunnel/admin.sock")
    devices = client.rows(OPERATIONS["Devices"])
    client.call(OPERATIONS["Kick"], serial="plc-7", retry_after=60)

Rule of this file: the standard library only, and no reactor: a call waits for its answer.

Source: docs/admin.rst.
"""

import errno
import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from revtunnel.process.admin.admin_boxes import packed, read, refusal_of, unpacked, written
from revtunnel.process.admin.operation_form import MAX_PATH, ROW, Operation, Row
from revtunnel.process.admin.refusals import Busy, Denied, Invalid

__all__ = ["AdminClient", "NoServer", "connect"]

TIMEOUT = 15.0  # seconds until an answer must be there
_RECEIVED = 64 * 1024  # bytes at once


class NoServer(Exception):
    """Nobody answers at the admin socket; the text says why."""


_REFUSALS: dict[int | None, tuple[type[Exception], str]] = {
    errno.ENOENT: (NoServer, "no server has this admin socket"),
    errno.ECONNREFUSED: (NoServer, "nobody listens there; the server was killed, or stops"),
    errno.EACCES: (Denied, "you may not use this socket"),
    errno.EPERM: (Denied, "you may not use this socket"),
    errno.EAGAIN: (Busy, "the server does not accept connections now"),
    errno.ETIMEDOUT: (Busy, "the server does not accept connections now"),
}


class AdminClient:
    """One connection to a server's admin socket.

    Every call fails with one of refusals.py: Busy also when there was no answer in time or the server closed
    the connection.
    """

    def __init__(self, sock: Any, timeout: float = TIMEOUT) -> None:
        self._sock = sock
        self._timeout = timeout
        self._received = bytearray()
        self._facts: deque[Row] = deque()

    def call(self, operation: Operation, **arguments: Any) -> Row:
        """One command and its answer; a ``row`` in it is read already."""
        end = time.monotonic() + self._timeout
        try:
            self._sock.settimeout(self._timeout)
            self._sock.sendall(packed(written({"_command": operation.name, "_ask": 1, **arguments})))
            while (box := self._next(end)) is not None:
                if b"_answer" in box:
                    answer = read(operation.answer, box)
                    return {"row": json.loads(answer["row"])} if operation.answer is ROW else answer
                if b"_error" in box:
                    raise refusal_of(operation, box)
        except TimeoutError:
            self.close()
            raise Busy(f"no answer within {self._timeout:g} seconds") from None
        except ConnectionError:
            pass
        raise Busy("the server closed the connection: it stops, or too many are there")

    def rows(self, operation: Operation, **arguments: Any) -> list[Any]:
        """A whole listing, page after page."""
        found: list[Any] = []
        after: str | None = None
        while True:
            answer = self.call(operation, after=after, **arguments)
            found += json.loads(answer["rows"])
            after = answer["after"]
            if after is None:
                return found

    def facts(self) -> Iterator[Row]:
        """After Watch: everything that happens, until the server closes the connection."""
        try:
            while self._facts or self._next(None) is not None:
                while self._facts:
                    yield self._facts.popleft()
        except ConnectionError:
            return

    def close(self) -> None:
        """End the connection."""
        self._sock.close()

    def _next(self, end: float | None) -> dict[bytes, bytes] | None:
        """The next box, by ``end``; what happened is put aside first. None: the server has closed.

        Raises:
            TimeoutError, OSError
        """
        while (box := unpacked(self._received)) is None:
            self._sock.settimeout(None if end is None else max(0.001, end - time.monotonic()))
            data = self._sock.recv(_RECEIVED)
            if not data:
                return None
            self._received += data
        if box.get(b"_command") == b"Fact":
            self._facts.append(json.loads(box[b"row"]))
        return box


def _dial(path: str, timeout: float) -> socket.socket:
    dialled = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        dialled.settimeout(timeout)
        dialled.connect(path)
    except BaseException:
        dialled.close()
        raise
    return dialled


def connect(path: str, timeout: float = TIMEOUT, dial: Callable[[str, float], Any] = _dial) -> AdminClient:
    """A connection to the server whose admin socket is at ``path``.

    Raises:
        NoServer: there is no such socket, or nobody listens at it.
        Denied: the system does not let us.
        Busy: it takes no more connections now.
        Invalid: the path is too long for a socket.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise Invalid(f"admin socket {path[:80]!a}...: at most {MAX_PATH} bytes wanted")
    try:
        return AdminClient(dial(path, timeout), timeout)
    except OSError as error:
        number = errno.ETIMEDOUT if isinstance(error, TimeoutError) else error.errno
        kind, why = _REFUSALS.get(number, (NoServer, error.strerror or str(error)))
        raise kind(f"{path}: {why}") from None
