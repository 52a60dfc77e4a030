"""The steps of a connection that has no owner yet: ask a proxy, shake hands; each may be awaited.

A stage is an async callable that takes an End and gives the one to go on with. The rules: who cancels, or
lets a deadline of his pass (``addTimeout``), has the socket aborted; no step reads a byte that belongs to the
next.

Source: ours.
"""

import contextlib
import socket
from collections.abc import Callable, Coroutine
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import (
    IReadWriteDescriptor,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.sockets.ends import RECORD, End, TlsEnd

__all__ = [
    "Stage",
    "client_tls",
    "part_unread",
    "pause",
    "read_some",
    "readable",
    "server_tls",
    "shake_hands",
    "writable",
    "write_all",
]

Stage = Callable[[End], Coroutine[Any, Any, End]]
PARTING = 1.0  # seconds that somebody who is refused gets to take our last words
DROPS = 8  # records of his that are read and dropped meanwhile
Check = Callable[[SSL.Connection], Any]


# -- primitives


def readable(reactor: Any, end: End) -> "Deferred[None]":
    """Fires when ``end`` can be read, or has ended; at once if it holds what it has read already."""
    wait = _Wait(reactor, end)
    if end.pending:
        wait.fire()
    else:
        reactor.addReader(wait)
    return wait.done


def writable(reactor: Any, end: End) -> "Deferred[None]":
    """Fires when ``end`` can be written, or is cut."""
    wait = _Wait(reactor, end)
    reactor.addWriter(wait)
    return wait.done


async def pause(reactor: Any, seconds: float) -> None:
    """Returns so many seconds later."""
    over: Deferred[None] = Deferred(lambda _: call.cancel())
    call = reactor.callLater(seconds, over.callback, None)
    await over


async def read_some(reactor: Any, end: End, most: int = RECORD) -> bytes:
    """At least one byte and at most ``most``; b"" at the end of file. OSError: the connection is cut."""
    view = memoryview(bytearray(most))
    while (size := end.read_into(view)) is None:
        await (writable if end.reads_when_writable else readable)(reactor, end)
    return bytes(view[:size])


async def write_all(reactor: Any, end: End, data: bytes) -> None:
    """Returns when all of it was taken. OSError: the connection is cut."""
    rest = memoryview(data)
    while rest:
        rest = rest[end.write(rest) :]
        if rest:
            await (readable if end.writes_when_readable else writable)(reactor, end)


async def shake_hands(reactor: Any, end: TlsEnd) -> TlsEnd:
    """The TLS handshake. OSError: it failed, and the socket is aborted."""
    try:
        while not end.handshake():
            await (writable if end.reads_when_writable else readable)(reactor, end)
    except BaseException:
        end.abort()
        raise
    return end


async def part_unread(reactor: Any, end: End) -> None:
    """Close within a second, so that our last words arrive: a reset for unread input may overtake them.

    Not a byte of the other side's is kept, and few are read.
    """
    sock, until = end.sock, reactor.seconds() + PARTING
    with contextlib.suppress(OSError, TimeoutError, CancelledError):
        sock.shutdown(socket.SHUT_WR)
        for _ in range(DROPS):
            left = max(0.0, until - reactor.seconds())
            await readable(reactor, End(sock)).addTimeout(left, reactor)
            if not sock.recv(RECORD):
                break
    end.close()


# -- stages


def client_tls(reactor: Any, context: SSL.Context, name: str = "", check: Check | None = None) -> Stage:
    """TLS as the client. ``check`` is given the connection after the handshake, and raises to refuse it."""

    async def stage(end: End) -> End:
        return await _checked(reactor, TlsEnd.connecting(context, end.sock, name, end.peer), check)

    return stage


def server_tls(reactor: Any, context: SSL.Context, check: Check | None = None) -> Stage:
    """TLS as the server; ``check`` as for the client."""

    async def stage(end: End) -> End:
        return await _checked(reactor, TlsEnd.accepting(context, end.sock, end.peer), check)

    return stage


async def _checked(reactor: Any, end: TlsEnd, check: Check | None) -> TlsEnd:
    await shake_hands(reactor, end)
    try:
        if check is not None:
            check(end.connection)
    except BaseException:
        end.abort()
        raise
    return end


@implementer(IReadWriteDescriptor)
class _Wait:
    """Waits once for one event of an end."""

    __slots__ = ("_end", "_reactor", "_waiting", "done")

    def __init__(self, reactor: Any, end: End) -> None:
        self._reactor = reactor
        self._end = end
        self._waiting = True
        self.done: Deferred[None] = Deferred(self._given_up)

    def fire(self) -> None:
        """The event has come."""
        if self._waiting:
            self._leave()
            self.done.callback(None)

    def fileno(self) -> int:
        """Twisted calls this."""
        return self._end.fileno()

    def logPrefix(self) -> str:
        """Twisted calls this."""
        return "-"

    def doRead(self) -> None:
        """Twisted calls this: readable."""
        self.fire()

    def doWrite(self) -> None:
        """Twisted calls this: writable."""
        self.fire()

    def connectionLost(self, reason: Failure) -> None:
        """Twisted calls this: a hang-up, of which the next call of the end says more."""
        self.fire()

    def _leave(self) -> None:
        self._waiting = False
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)

    def _given_up(self, done: "Deferred[None]") -> None:
        if self._waiting:
            self._leave()
            self._end.abort()
