"""Two connections to Redis or Valkey, one for calls and one for news, each made again whenever it is lost.

Rule of this file: nothing waits for an engine that does not answer. A call has ``DEADLINE``; the first that
passes it ends the connection, and for ``OPEN`` seconds nobody asks again. Without a connection a call fails
at once. Whether an engine is there is asked by a PING every ``PINGED`` seconds. News only hasten: whoever
missed some is told so, by ``missed``.

txredisapi has the protocol; its pool is not used, since that queues commands of an engine that is down for
ever, and gives up for good where a password is refused.

Source: next/cluster.md section 1; Redis documentation ("Redis serialization protocol", "Sentinel clients").
"""

import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from txredisapi import ConnectionError as Lost
from txredisapi import RedisError, RedisProtocol, SubscriberProtocol

from revtunnel.cluster.directory import PATIENCE, DirectoryAway
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import said
from revtunnel.sockets.opening import open_end
from revtunnel.sockets.stages import Stage, pause
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.sockets.tls.tls_stages import dial_tls

__all__ = ["EngineWay", "RedisEngine"]

DEADLINE = PATIENCE  # seconds
OPEN = 2.0  # seconds until an engine that did not answer is asked again; the longest wait of others
FIRST = 0.1  # seconds to the first new try after a loss
PINGED = 5.0  # seconds
DENIED = ("NOAUTH", "WRONGPASS", "READONLY", "MASTERDOWN")  # another connection may lead to one who may


@dataclass(frozen=True, slots=True)
class EngineWay:
    """How an engine is reached. ``host`` may be ``unix:PATH``; with ``sentinels`` it is the master's name."""

    host: str
    port: int = 6379
    database: int = 0
    user: str = ""
    password: Callable[[], str] = field(
        default=lambda: ""
    )  # asked for each connection. OSError: it cannot be had
    identity: Identity | None = None  # what TLS is made from; None: plain
    sentinels: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        if self.sentinels:
            return f"the master {self.host} of its sentinels"
        return self.host if self.host.startswith("unix:") else f"{self.host}:{self.port}"


class RedisEngine:
    """Scripts to run, and what others publish.

    ``up``: calls can be made now, also again; ``down``: they cannot, for ``problem``; ``heard``: a message;
    ``missed``: messages may have been lost.
    """

    def __init__(self, reactor: Any, way: EngineWay, channels: tuple[str, ...]) -> None:
        self.up: Callable[[], None] = lambda: None
        self.down: Callable[[], None] = lambda: None
        self.heard: Callable[[Any], None] = lambda message: None
        self.missed: Callable[[], None] = lambda: None
        self._calls = _Kept(reactor, way, _Caller, self._calling, lambda: self.down())
        self._news = _Kept(reactor, way, _Listener, self._listening)
        self._reactor = reactor
        self._channels = channels

    @property
    def problem(self) -> str | None:
        """Why no call can be made; None: one can."""
        return self._calls.problem

    def start(self) -> None:
        """Connect, now and always again."""
        self._calls.start()
        self._news.start()

    def stop(self) -> None:
        """End both connections for good."""
        self._calls.stop()
        self._news.stop()

    async def call(self, script: str, prefix: str, *args: object) -> Any:
        """Run a script: what its JSON says. DirectoryAway: it was not run, or nobody knows."""
        protocol = self._calls.protocol
        if protocol is None:
            raise DirectoryAway(self.problem or "not connected")
        try:
            said = await protocol.eval(script, [prefix], [str(each) for each in args])
            return json.loads(said.decode("utf-8", "replace") if isinstance(said, bytes) else said)
        except RedisError as error:
            text = str(error)
            if isinstance(error, Lost) or text.startswith(DENIED):
                self._calls.drop(protocol, text)
            raise DirectoryAway(text) from None
        except (ValueError, TypeError, RecursionError):
            raise DirectoryAway("the engine's answer makes no sense") from None

    async def _calling(self, protocol: Any) -> None:
        self._reactor.callLater(0, self.up)

    async def _listening(self, protocol: Any) -> None:
        def heard(pattern: Any, channel: str, message: str) -> None:
            try:
                self.heard(json.loads(message))
            except (ValueError, RecursionError):  # not from one of us: look what there is
                self.missed()

        protocol.messageReceived = heard
        await protocol.subscribe(list(self._channels))
        self._reactor.callLater(0, self.missed)


class _Kept:
    """One connection. ``ready`` is awaited with each before it is used; ``down``: there is none."""

    def __init__(
        self,
        reactor: Any,
        way: EngineWay,
        kind: type,
        ready: Callable[[Any], Awaitable[None]],
        down: Callable[[], None] = lambda: None,
    ) -> None:
        self.protocol: Any = None
        self.problem: str | None = "not connected yet"
        self.way = way
        self._reactor = reactor
        self._ready = ready
        self._kind = kind
        self._down = down
        self._running: Deferred[None] | None = None
        self._last = ""  # why the connection that is there will have ended

    def start(self) -> None:
        self._running = Deferred.fromCoroutine(self._keep())
        self._running.addErrback(lambda failure: failure.trap(CancelledError))

    def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()

    def drop(self, protocol: Any, why: str) -> None:
        """Make another one; nobody asks by this one from now on, as late answers would be taken for his."""
        if protocol is self.protocol:
            self.protocol, self._last = None, why
            self.problem = f"{self.way}: {why}"
            protocol.transport.abortConnection()

    async def _keep(self) -> None:
        wait = FIRST
        while True:
            self._last, began = "", self._reactor.seconds()
            try:
                await self._once()
                why = self._last or "the connection was lost"
            except (OSError, RedisError) as error:
                why = said(error) if isinstance(error, OSError) else str(error)
            finally:
                self.protocol = None
            self.problem = f"{self.way}: {why}"
            self._down()
            lived = self._reactor.seconds() - began
            wait = OPEN if "seconds" in why else FIRST if lived > OPEN else min(2 * wait, OPEN)
            await pause(self._reactor, wait * random.uniform(0.7, 1.0))

    async def _once(self) -> None:
        """From one connection to its end."""
        protocol = await _connected(self._reactor, self._kind, self.way, await self._where())
        lost = protocol.whenDisconnected()
        try:
            await protocol.ping()
            await self._ready(protocol)
            self.protocol, self.problem = protocol, None
            self._ping(protocol)
            await lost
        finally:
            protocol.transport.abortConnection()

    def _ping(self, protocol: Any) -> None:
        def unanswered(failure: Failure) -> None:
            failure.trap(RedisError)
            self.drop(protocol, str(failure.value))

        if protocol is self.protocol:
            protocol.ping().addErrback(unanswered)
            self._reactor.callLater(PINGED, self._ping, protocol)

    async def _where(self) -> tuple[str, int]:
        """The engine's host and port."""
        way, words = self.way, []
        for host, port in way.sentinels:
            asked = EngineWay(host, port, identity=way.identity)
            try:
                sentinel = await _connected(self._reactor, _Caller, asked, (host, port))
                try:
                    found = await sentinel.execute_command("SENTINEL", "get-master-addr-by-name", way.host)
                finally:
                    sentinel.transport.abortConnection()
                if found:
                    return str(found[0]), int(found[1])
                words.append(f"{asked} knows no master {way.host}")
            except (OSError, RedisError) as error:
                words.append(said(error) if isinstance(error, OSError) else f"{asked}: {error}")
        if words:
            raise ConnectionError("; ".join(words))
        return way.host, way.port


class _Factory:
    """What a protocol of txredisapi asks of the one that made it."""

    isLazy = False
    why = ""

    def stopTrying(self) -> None:
        """Whether to try again is said elsewhere."""

    def connectionError(self, why: str) -> None:
        """Password or database were refused."""
        self.why = why


class _Caller(RedisProtocol):  # type: ignore[misc]
    """For calls."""


class _Listener(SubscriberProtocol):  # type: ignore[misc]
    """For news."""


async def _connected(reactor: Any, kind: type, way: EngineWay, place: tuple[str, int]) -> Any:
    """A protocol that was let in. OSError, RedisError: there is none."""
    host, port = place
    stages: list[Stage] = []
    if way.identity is not None:
        stages.append(dial_tls(reactor, way.identity, host, lambda: None))
    password = way.password()
    end = await open_end(reactor, host, port, DEADLINE, stages)
    database = way.database or None
    user = way.user or None
    protocol = kind("utf-8", "strict", DEADLINE, password or None, database, False, user)
    protocol.callLater, protocol.factory = reactor.callLater, _Factory()
    up: Deferred[Any] = Deferred(lambda _: protocol.transport.abortConnection())
    protocol.whenConnected().addCallback(up.callback)

    def refused(_: Any) -> None:
        if not up.called:
            up.errback(ConnectionError(protocol.factory.why or "it hung up"))

    protocol.whenDisconnected().addCallback(refused)
    EndTransport(reactor, end, protocol).start()
    return await up
