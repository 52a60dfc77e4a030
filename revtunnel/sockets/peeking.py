"""Reading the head of a connection, and not one byte of what stands behind it.

What follows a head belongs to somebody else: to the TLS engine, which works on the socket itself, to a link,
to a client. So a head is looked at in the kernel's buffer, and only what belongs to it is taken out.

Source: ours.
"""

import errno
import socket
from collections.abc import Callable
from typing import Any, TypeVar
from typing import Protocol as Typing

from revtunnel.sockets.ends import RECORD, End, said
from revtunnel.sockets.stages import readable

__all__ = ["HeadEnded", "Sized", "has_spoken", "peek", "read_head"]


class HeadEnded(ConnectionError):
    """The connection ended, or was cut, within a head; ``size`` bytes of it had come."""

    def __init__(self, size: int, why: str) -> None:
        super().__init__(errno.ECONNABORTED, why)
        self.size = size


class Sized(Typing):
    """A head that was read."""

    @property
    def size(self) -> int:
        """Its bytes."""


Head = TypeVar("Head", bound=Sized)


def peek(end: End, most: int) -> bytes:
    """What waits to be read, which may be nothing; ``end`` is plain, or nothing was read of it yet."""
    try:
        return end.sock.recv(most, socket.MSG_PEEK)
    except OSError:
        return b""


def has_spoken(end: End) -> bool:
    """Whether something does."""
    return bool(peek(end, 1))


async def read_head(reactor: Any, end: End, decode: Callable[[bytes], Head | None]) -> Head:
    """Read until ``decode``, which is given all that came so far, finds a whole head; it bounds the size.

    ``end`` is plain. HeadEnded: no more will come; what ``decode`` raises passes through.
    """
    held = b""
    while True:
        try:
            fresh = await _peek(reactor, end)
        except OSError as error:
            raise HeadEnded(len(held), said(error)) from None
        if not fresh:
            raise HeadEnded(len(held), f"ended after {len(held)} bytes of its head")
        head = decode(held + fresh)
        size = len(fresh) if head is None else head.size - len(held)
        if size:
            end.sock.recv_into(memoryview(bytearray(size)))
        if head is not None:
            return head
        held += fresh


async def _peek(reactor: Any, end: End) -> bytes:
    """What waits in the kernel's buffer, at least one byte; b"": the end of file."""
    while True:
        try:
            return end.sock.recv(RECORD, socket.MSG_PEEK)
        except BlockingIOError:
            await readable(reactor, end)
