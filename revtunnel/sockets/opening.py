"""The way to a place: connect, and go through the stages of the connection, all within one deadline.

::

    dial = open_end(reactor, "server.example", 7443, 10.0, [proxy_stage, client_tls(reactor, context, name)])
    dial.addCallbacks(lambda end: EndTransport(reactor, end, protocol).start(), failed)

The rules: the addresses of a name are tried in turn, one family and then the other, the next one beside the
first after 0.25 s; whoever
cancels, or whose time is over, has every socket of it aborted. A connection within this machine may come
inside the call that began it, and so may a failure.

Source: ours; RFC 8305 for their order and the stagger between addresses.
"""

import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from itertools import zip_longest
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IResolutionReceiver,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.targets import is_literal, place
from revtunnel.sockets.addresses import UNIX, socket_address
from revtunnel.sockets.ends import End, PlainEnd, said, tune
from revtunnel.sockets.stages import Stage, pause, writable

__all__ = ["Names", "Reach", "connect", "open_end", "resolve"]

STAGGER = 0.25  # seconds that one address gets before the next is tried beside it
ADDRESSES = 16  # of one name, at most
_UNDER_WAY = (errno.EINPROGRESS, errno.EALREADY)
FULL = 0.02  # seconds until a UNIX socket with a full backlog is tried again
Names = Callable[[Any, str, int], Coroutine[Any, Any, Sequence[Any]]]  # reactor, name, port: its addresses
Reach = Callable[[Any, str, int], Coroutine[Any, Any, End]]  # reactor, address, port: connected


async def resolve(reactor: Any, host: str, port: int) -> Sequence[Any]:
    """The addresses of a name, by the reactor's resolver, both families in turn. OSError: there is none."""
    answer: Deferred[list[Any]] = Deferred()
    resolver: IHostnameResolver = reactor.nameResolver
    resolver.resolveHostName(_Answer(answer), host, port)
    found = await answer
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, f"{host}: the name is unknown")
    families = [[each for each in found if (":" in each.host) is six] for six in (False, True)]
    families.sort(key=lambda family: found[0] not in family)  # whose address the resolver has first
    return [each for pair in zip_longest(*families) for each in pair if each is not None]


class _Begun:
    """A connect that was begun; ``code`` is 0 once it is done."""

    __slots__ = ("address", "code", "end")

    def __init__(self, host: str, port: int) -> None:
        """OSError: there is no socket to be had, or no such address."""
        family, self.address = socket_address(host, port)
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self.end = PlainEnd(sock, place(host, port))
            tune(sock, within=host == "::1" or host.startswith("127."))
            self.code = sock.connect_ex(self.address)
            if self.code == errno.EINPROGRESS:
                self.code = sock.connect_ex(self.address)  # which this machine may have answered already
        except BaseException:
            sock.close()
            raise

    async def reached(self, reactor: Any, host: str, port: int) -> End:
        """The connection; OSError: there is none."""
        sock, code = self.end.sock, self.code
        try:
            while code == errno.EAGAIN:  # UNIX: the backlog is full
                await pause(reactor, FULL)
                code = sock.connect_ex(self.address)
            while code in _UNDER_WAY:
                await writable(reactor, self.end)
                code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code and not _is_connected(sock):
                    code = errno.EINPROGRESS
            if code:
                raise OSError(code, f"{self.end.peer}: {said(OSError(code, os.strerror(code)))}")
        except BaseException:
            sock.close()
            raise
        return self.end


async def connect(reactor: Any, host: str, port: int) -> End:
    """A connection to an address, or to ``unix:PATH``; for as long as it takes."""
    return await _Begun(host, port).reached(reactor, host, port)


def _is_connected(sock: socket.socket) -> bool:
    """False: the event was of another who had this descriptor before."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def open_end(
    reactor: Any,
    host: str,
    port: int,
    timeout: float,
    stages: Sequence[Stage] = (),
    names: Names = resolve,
    reach: Reach = connect,
    at_once: bool = False,
) -> "Deferred[End]":
    """Connect and go through ``stages``, all within ``timeout`` seconds.

    Fails with OSError (``said`` has its sentence; TimeoutError is one), or with what a stage raises.

    Args:
        host: an address, a name, or ``unix:PATH``.
        names: finds the addresses of a name.
        reach: connects to one address.
        at_once: it may be answered before this returns, as the kernel answers for addresses of this machine.
    """

    def too_late(result: Any, seconds: float) -> Any:
        late = TimeoutError(errno.ETIMEDOUT, f"{place(host, port)} did not answer in {seconds:g} s")
        return Failure(late) if isinstance(result, Failure) else result

    if at_once and reach is connect and _is_address(host):
        try:
            begun = _Begun(host, port)
        except Exception:
            return fail()
        if not (begun.code or stages):
            return succeed(begun.end)
        reach = begun.reached
    opening = Deferred.fromCoroutine(_open(reactor, host, port, stages, names, reach))
    opening.addTimeout(timeout, reactor, too_late)
    return _soon(reactor, opening) if opening.called and not at_once else opening


def _soon(reactor: Any, opening: "Deferred[End]") -> "Deferred[End]":
    """The same answer, in the next turn."""

    def given_up(_: Any) -> None:
        call.cancel()
        opening.addCallbacks(lambda end: end.abort(), lambda _: None)

    answer: Deferred[End] = Deferred(given_up)
    call = reactor.callLater(0, opening.chainDeferred, answer)
    return answer


def _is_address(host: str) -> bool:
    return host.startswith(UNIX) or is_literal(host.partition("%")[0])


async def _open(
    reactor: Any, host: str, port: int, stages: Sequence[Stage], names: Names, reach: Reach
) -> End:
    if _is_address(host):
        end = await reach(reactor, host, port)
    else:
        found = (await names(reactor, host, port))[:ADDRESSES]
        end = await _Race(reactor, [(each.host, each.port) for each in found], reach).won
    try:
        for stage in stages:
            end = await stage(end)
    except BaseException:
        end.abort()
        raise
    return end


class _Race:
    """Connects to several addresses; ``won`` fires with the first that answers, or with the first error."""

    def __init__(self, reactor: Any, places: Sequence[tuple[str, int]], reach: Reach) -> None:
        self.won: Deferred[End] = Deferred(lambda _: self._stop())
        self._reactor = reactor
        self._reach = reach
        self._places = deque(places)
        self._running: set[Deferred[End]] = set()
        self._timer: IDelayedCall | None = None
        self._error: Failure | None = None
        self._next()

    def _next(self) -> None:
        self._end_timer()
        if self._places:
            attempt = Deferred.fromCoroutine(self._reach(self._reactor, *self._places.popleft()))
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
