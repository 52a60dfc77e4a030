"""The steps of a connection that has no owner yet: connect, ask a proxy, shake hands; each may be awaited.

::

    dial = open_end(reactor, "server.example", 7443, 10.0, [proxy_stage, client_tls(reactor, context, name)])
    dial.addCallbacks(lambda end: EndTransport(reactor, end, protocol).start(), failed)

A stage is an async callable that takes an End and gives the one to go on with. The rules: who cancels, or
lets a deadline of his pass (``addTimeout``), has the socket aborted; no step reads a byte that belongs to the
next.

Source: ours; RFC 8305 for the stagger between addresses.
"""

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IReadWriteDescriptor,
    IResolutionReceiver,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.targets import is_literal
from revtunnel.sockets.addresses import place, socket_address
from revtunnel.sockets.ends import RECORD, End, PlainEnd, TlsEnd, tune

__all__ = [
    "Stage",
    "client_tls",
    "open_end",
    "read_some",
    "readable",
    "resolve",
    "server_tls",
    "shake_hands",
    "writable",
    "write_all",
]

STAGGER = 0.25  # seconds that one address gets before the next is tried beside it
ADDRESSES = 16  # of one name, at most
Stage = Callable[[End], Coroutine[Any, Any, End]]
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


# -- connecting


def open_end(
    reactor: Any, host: str, port: int, timeout: float, stages: Sequence[Stage] = ()
) -> "Deferred[End]":
    """Connect and go through ``stages``, all within ``timeout`` seconds.

    Fails with OSError (``said`` has its sentence; TimeoutError is one), or with what a stage raises. A name's
    addresses are tried in turn, the next one beside the first after 0.25 s.
    """

    def too_late(result: Any, seconds: float) -> Any:
        late = TimeoutError(errno.ETIMEDOUT, f"{host}:{port} did not answer in {seconds:g} s")
        return Failure(late) if isinstance(result, Failure) else result

    opening = Deferred.fromCoroutine(_open(reactor, host, port, stages))
    return opening.addTimeout(timeout, reactor, too_late)


async def resolve(reactor: Any, host: str, port: int) -> list[Any]:
    """The addresses of a name, by the reactor's resolver. OSError: there is none."""
    answer: Deferred[list[Any]] = Deferred()
    resolver: IHostnameResolver = reactor.nameResolver
    resolver.resolveHostName(_Answer(answer), host, port)
    found = await answer
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, f"{host}: the name is unknown")
    return found[:ADDRESSES]


async def _open(reactor: Any, host: str, port: int, stages: Sequence[Stage]) -> End:
    if is_literal(host.partition("%")[0]):
        places = [(host, port)]
    else:
        found: list[Any] = await resolve(reactor, host, port)
        places = [(address.host, address.port) for address in found]
    end: End = await (_Race(reactor, places).won if len(places) > 1 else _connect(reactor, *places[0]))
    try:
        for stage in stages:
            end = await stage(end)
    except BaseException:
        end.abort()
        raise
    return end


async def _connect(reactor: Any, host: str, port: int) -> End:
    family, address = socket_address(host, port)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        end = PlainEnd(sock, place(host, port))
        tune(sock)
        code = sock.connect_ex(address)
        if code == errno.EINPROGRESS:
            await writable(reactor, end)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, f"{end.peer}: {os.strerror(code)}")
    except BaseException:
        sock.close()
        raise
    return end


class _Race:
    """Connects to several addresses; ``won`` fires with the first that answers, or with the first error."""

    def __init__(self, reactor: Any, places: Sequence[tuple[str, int]]) -> None:
        self.won: Deferred[End] = Deferred(lambda _: self._stop())
        self._reactor = reactor
        self._places = deque(places)
        self._running: set[Deferred[End]] = set()
        self._timer: IDelayedCall | None = None
        self._error: Failure | None = None
        self._next()

    def _next(self) -> None:
        self._end_timer()
        if self._places:
            attempt = Deferred.fromCoroutine(_connect(self._reactor, *self._places.popleft()))
            self._running.add(attempt)
            if self._places:
                self._timer = self._reactor.callLater(STAGGER, self._next)
            attempt.addCallbacks(
                self._answered, self._failed, callbackArgs=(attempt,), errbackArgs=(attempt,)
            )
        elif not self._running and self._error is not None:
            self.won.errback(self._error)

    def _answered(self, end: End, attempt: "Deferred[End]") -> None:
        self._running.discard(attempt)
        self._stop()
        self.won.callback(end)

    def _failed(self, failure: Failure, attempt: "Deferred[End]") -> None:
        if attempt not in self._running:  # given up by us
            return
        self._running.discard(attempt)
        self._error = self._error or failure
        self._next()

    def _stop(self) -> None:
        self._places.clear()
        self._end_timer()
        running, self._running = self._running, set()
        for attempt in running:
            attempt.cancel()

    def _end_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None


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


@implementer(IResolutionReceiver)
class _Answer:
    """Collects the addresses of a name."""

    def __init__(self, answer: "Deferred[list[Any]]") -> None:
        self._answer = answer
        self._found: list[Any] = []

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        """Twisted calls this."""

    def addressResolved(self, address: IAddress) -> None:
        """Twisted calls this."""
        self._found.append(address)

    def resolutionComplete(self) -> None:
        """Twisted calls this."""
        if not self._answer.called:
            self._answer.callback(self._found)
