"""The caller's end of the admin door: for revtunnelctl, and for other programs that run a reactor.

    client = await connect(reactor, "/run/revtunnel/admin.sock")
    devices = await client.rows(Devices)
    await client.call(Kick, serial="plc-7", retry_after=60)

Source: docs/admin.rst.
"""

import errno
import json
import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectError, ConnectionClosed, ConnectionRefusedError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import ClientCreator, connectionDone
from twisted.protocols import amp
from twisted.python.failure import Failure

from revtunnel.process.door.admin_commands import MAX_PATH, AdminCommand, FactSeen, Watch
from revtunnel.process.door.refusals import Busy, Denied, Invalid

__all__ = ["AdminClient", "NoServer", "connect"]

TIMEOUT = 15.0  # seconds until an answer must be there


class NoServer(Exception):
    """Nobody answers at the admin socket; the text says why."""


_REFUSALS: dict[int | None, tuple[type[Exception], str]] = {
    None: (Busy, "the server does not accept connections now"),
    errno.ENOENT: (NoServer, "no server has this admin socket"),
    errno.ECONNREFUSED: (NoServer, "nobody listens there; the server was killed, or stops"),
    errno.EACCES: (Denied, "you may not use this socket"),
    errno.EPERM: (Denied, "you may not use this socket"),
}


class AdminClient(amp.BinaryBoxProtocol, amp.BoxDispatcher):
    """One connection to a server's admin door.

    Every call fails with one of ``admin_commands.ERRORS``, or with Busy when there was no answer in time or
    the server closed the connection.
    """

    def __init__(self, clock: IReactorTime, timeout: float = TIMEOUT) -> None:
        amp.BoxDispatcher.__init__(self, locator=self)
        amp.BinaryBoxProtocol.__init__(self, boxReceiver=self)
        self.closed: Deferred[None] = Deferred()
        self._clock = clock
        self._timeout = timeout
        self._seen: Callable[[dict[str, Any]], None] = lambda row: None

    async def call(self, command: type[AdminCommand], **arguments: Any) -> dict[str, Any]:
        """One command and its answer; a ``row`` in it is read already."""
        asked: Deferred[dict[str, Any]] = self.callRemote(command, **arguments)
        try:
            answer = await asked.addTimeout(self._timeout, self._clock)
        except TimeoutError:
            self.close()
            raise Busy(f"no answer within {self._timeout:g} seconds") from None
        except ConnectionClosed:
            raise Busy("the server closed the connection: it stops, or too many are there") from None
        return answer | {"row": json.loads(answer["row"])} if "row" in answer else answer

    async def rows(self, command: type[AdminCommand], **arguments: Any) -> list[Any]:
        """A whole listing, page after page."""
        found: list[Any] = []
        after: str | None = None
        while True:
            answer = await self.call(command, after=after, **arguments)
            found += json.loads(answer["rows"])
            after = answer.get("after")
            if after is None:
                return found

    async def watch(self, seen: Callable[[dict[str, Any]], None]) -> None:
        """Have ``seen`` called with everything that happens, until ``closed``."""
        self._seen = seen
        await self.call(Watch)

    def close(self) -> None:
        """End the connection."""
        if self.transport is not None:
            self.transport.loseConnection()

    # -- from Twisted

    def locateResponder(self, name: bytes) -> Callable[[Any], Any] | None:
        return self._fact if name == FactSeen.commandName else None

    def _fact(self, box: Any) -> amp.AmpBox:
        self._seen(json.loads(FactSeen.parseArguments(box, self)["row"]))
        return amp.AmpBox()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if not self.closed.called:
            self.closed.callback(None)


async def connect(reactor: Any, path: str, timeout: float = TIMEOUT) -> AdminClient:
    """A connection to the server whose admin socket is at ``path``.

    Raises:
        NoServer: there is no such socket, or nobody listens at it.
        Denied: the system does not let us.
        Busy: it takes no more connections now.
        Invalid: the path is too long for a socket.
    """
    if len(os.fsencode(path)) > MAX_PATH:
        raise Invalid(f"admin socket {path[:80]!a}...: at most {MAX_PATH} bytes wanted")
    creator = ClientCreator(reactor, AdminClient, reactor, timeout)
    try:
        client: AdminClient = await creator.connectUNIX(path, timeout)
    except (ConnectError, OSError) as error:
        number = getattr(error, "osError", None)  # None: a full queue, or no answer in time
        if number is None and isinstance(error, ConnectionRefusedError):
            number = errno.ECONNREFUSED
        kind, why = _REFUSALS.get(number, (NoServer, str(error)))
        raise kind(f"{path}: {why}") from None
    return client
