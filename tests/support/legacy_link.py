"""What the models of the legacy device and of the legacy server share: one link socket and its byte tap.

Rule of this file: nothing of the project is imported; the bytes are those of wire/readyagent.md section 1.
"""

import argparse
import contextlib
import socket
import struct
import threading
from dataclasses import MISSING, fields
from typing import Any

from tests.support.services import hang_up

__all__ = ["CLOSE", "CONNECT", "DATA", "LISTEN", "NAMES", "LinkSocket", "add_switches", "chosen_switches"]

CONNECT, CLOSE, DATA, LISTEN = 1, 2, 3, 4
NAMES = {CONNECT: "CONNECT", CLOSE: "CLOSE", DATA: "DATA", LISTEN: "LISTEN"}
KEPT = 1 << 20  # bytes of each direction that the tap keeps


class LinkSocket:
    """A link: frames are sent whole by any thread, read by one; the first MiB each way is kept."""

    def __init__(self, sock: socket.socket, misparse: bool) -> None:
        self.sock = sock
        self.received = bytearray()
        self.sent = bytearray()
        self._misparse = misparse
        self._lock = threading.Lock()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, command: int, channel: int, payload: bytes = b"") -> None:
        """One frame; blocks while the link is full. A lost link is for the reading thread to notice."""
        frame = struct.pack("!HBB", len(payload), command, channel) + payload
        with contextlib.suppress(OSError), self._lock:
            self.sent += frame[: KEPT - len(self.sent)]
            self.sock.sendall(frame)

    def header(self) -> tuple[int, int, int] | None:
        """Size, command, channel; None at the end. A misparsing link reads once, as if zeros followed."""
        raw = self._recv(4) if self._misparse else self.exactly(4)
        if raw and self._misparse:
            raw = raw.ljust(4, b"\0")
        return struct.unpack("!HBB", raw) if len(raw) == 4 else None

    def exactly(self, size: int) -> bytes:
        """``size`` bytes; fewer only at the end."""
        parts = []
        while size and (part := self._recv(size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Hang up."""
        hang_up(self.sock)

    def _recv(self, size: int) -> bytes:
        try:
            data = self.sock.recv(size)
        except OSError:
            return b""
        self.received += data[: KEPT - len(self.received)]
        return data


def add_switches(parser: argparse.ArgumentParser, kind: type[Any]) -> None:
    """One option for each field with a default: ``--no-echo-close``, ``--read-size 100``."""
    for field in fields(kind):
        if field.default is MISSING:
            continue
        option = "--" + field.name.replace("_", "-")
        if isinstance(field.default, bool):
            parser.add_argument(option, action=argparse.BooleanOptionalAction, default=field.default)
        else:
            parser.add_argument(option, type=type(field.default), default=field.default)


def chosen_switches(parsed: argparse.Namespace, kind: type[Any]) -> dict[str, Any]:
    """What ``add_switches`` read, as arguments of the dataclass."""
    return {each.name: getattr(parsed, each.name) for each in fields(kind) if each.default is not MISSING}
