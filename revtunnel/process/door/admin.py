"""The admin door: AMP over a UNIX socket, for revtunnelctl and other programs of this machine.

Rule of this file: no caller can make the server wait, or hold more than a named number of bytes for him. Who
does not read his answers is not read; a watcher who does not read is dropped.

======================  ====================================================================================
limit                   what happens beyond it
======================  ====================================================================================
connections of a role   the next one is closed at once; readers cannot keep operators out
``BOX`` bytes           a command that is longer ends the connection
``BOX_TIME``            a command must be whole so many seconds after its first byte, or after the connect
``IDLE``                a connection without a command and without a watch is closed
``STALLED``             a caller who has not taken a waiting answer is cut
``UNSENT`` bytes        of facts waiting for a watcher, beside the transport's own 64 KiB: he is cut
======================  ====================================================================================

Source: twisted.md 2.5; faults.md C1 to C4, "Mechanisms, exact" (Admin).
"""

import time
from collections import Counter, deque
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.protocols import amp
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.facts import Fact
from revtunnel.process.door.admin_commands import COMMANDS, FactSeen, Role, in_json
from revtunnel.process.door.admin_desk import Desk
from revtunnel.process.door.admin_socket import AdminPort, listen
from revtunnel.process.door.callers import AdminSettings, Caller, caller_at, role_of
from revtunnel.process.door.caretaker import Caretaker
from revtunnel.process.door.refusals import Conflict
from revtunnel.streams.streams import IStream

__all__ = ["AdminFactory", "AdminProtocol", "AdminService"]

log = Logger(namespace="revtunnel.admin")

CONNECTIONS = {Role.OPERATOR: 16, Role.READER: 16, Role.NOBODY: 4}
BOX = 8192  # bytes
BOX_TIME = 10.0  # seconds
IDLE = 60.0  # seconds
STALLED = 30.0  # seconds
UNSENT = 256 * 1024  # bytes
PARTING = 2.0  # seconds that a caller gets to take his last answer


@implementer(IPushProducer)
class AdminProtocol(amp.BinaryBoxProtocol, amp.BoxDispatcher):
    """One caller. It is its own transport's producer: while that is full no further command is read."""

    if TYPE_CHECKING:
        transport: IStream

    def __init__(self, factory: "AdminFactory") -> None:
        amp.BoxDispatcher.__init__(self, locator=self)
        amp.BinaryBoxProtocol.__init__(self, boxReceiver=self)
        self.caller = Caller(-1, "?")
        self._factory = factory
        self._desk: Desk | None = None
        self._stop_watching: Callable[[], None] | None = None
        self._facts: deque[str] = deque()
        self._unsent = 0
        self._size = 0  # of the box that is being read
        self._deadline: IDelayedCall | None = None
        self._waits_for = ""
        self._dropped = False

    # -- from the transport

    def connectionMade(self) -> None:
        self.caller = self._factory.caller_of(self.transport)
        if not self._factory.enter(self):
            self.drop("too-many", at_once=True)
            return
        role = partial(self._factory.role_of, self.caller)
        self._desk = Desk(self._factory.operator, self.caller, role, self._watch)
        self.transport.registerProducer(self, True)
        self._time("command")

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self._look_at_time()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._dropped = True
        self._cancel_time()
        self._factory.leave(self)
        if self._stop_watching is not None:
            self._stop_watching()
        self._facts.clear()
        super().connectionLost(reason)

    def pauseProducing(self) -> None:
        """The caller does not take what we write."""
        super().pauseProducing()
        self._look_at_time()

    def resumeProducing(self) -> None:
        """He took it all: facts that wait come first, then his next commands."""
        self.paused = False
        while self._facts and not self.paused:
            row = self._facts.popleft()
            self._unsent -= len(row)
            self.callRemote(FactSeen, row=row)
        if not self.paused and not self._dropped:
            super().resumeProducing()

    def stopProducing(self) -> None:
        """The transport is gone; ``connectionLost`` says so."""

    # -- from the parser

    def stringReceived(self, string: bytes) -> None:
        self._size += len(string)
        if self._size > BOX:
            self.drop("too-long")
            return
        super().stringReceived(string)

    def lengthLimitExceeded(self, length: int) -> None:
        self.drop("too-long")

    def ampBoxReceived(self, box: amp.AmpBox) -> None:
        self._size = 0
        self._cancel_time()  # the next box has its own time
        if box.keys() & {amp.COMMAND, amp.ASK, amp.ANSWER, amp.ERROR} == {amp.COMMAND, amp.ASK}:
            super().ampBoxReceived(box)
        else:
            self.drop("no-command")

    def locateResponder(self, name: bytes) -> Callable[[Any], "Deferred[Any]"] | None:
        command = COMMANDS.get(name)
        if command is None or self._desk is None:
            return None
        return lambda box: self._desk.answer(command, box, self)  # type: ignore[union-attr]

    # -- watching

    def _watch(self) -> None:
        if self._stop_watching is not None:
            raise Conflict("this connection watches already")
        self._stop_watching = self._factory.operator.watch(self._fact)

    def _fact(self, fact: Fact) -> None:
        row = in_json({"ts": self._factory.now(), "level": fact.severity.value, **fact.row()})
        if self._dropped:
            return
        if not self.paused:
            self.callRemote(FactSeen, row=row)
            return
        self._facts.append(row)
        self._unsent += len(row)
        if self._unsent > UNSENT:
            self.drop("does-not-read", at_once=True)

    # -- ending

    def drop(self, reason: str, at_once: bool = False) -> None:
        """End this connection for a fault of the caller's; said once in the log."""
        if self._dropped:
            return
        log.warn(
            "admin-dropped", event="admin-dropped", by=self.caller.name, uid=self.caller.uid, reason=reason
        )
        self.leave(at_once)

    def leave(self, at_once: bool = False) -> None:
        """Close, after the answers that wait, or at once."""
        if self._dropped:
            return
        self._dropped = self.paused = True
        self._cancel_time()
        self._facts.clear()
        if at_once:
            self.transport.abortConnection()
            return
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._deadline = self._factory.clock.callLater(PARTING, self.transport.abortConnection)

    # -- time

    def _look_at_time(self) -> None:
        """One deadline at a time; it starts anew only when what is waited for changes."""
        if self._dropped:
            return
        if self.paused:
            self._time("" if self._stop_watching is not None else "reading")
        elif self.recvd or self.state != "init":
            self._time("command")
        else:
            self._time("" if self._stop_watching is not None else "next")

    def _time(self, waits_for: str) -> None:
        if waits_for == self._waits_for:
            return
        self._cancel_time()
        self._waits_for = waits_for
        seconds = {"command": BOX_TIME, "reading": STALLED, "next": IDLE}.get(waits_for)
        if seconds is not None:
            self._deadline = self._factory.clock.callLater(seconds, self._late)

    def _late(self) -> None:
        reason = {"command": "silent", "reading": "does-not-read"}.get(self._waits_for)
        if reason is None:
            self.leave()  # idle: no fault
        else:
            self.drop(reason, at_once=True)

    def _cancel_time(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline, self._waits_for = None, ""


class AdminFactory(ServerFactory):
    """Everybody who is at the door, and what each may do; ``settings`` may change at any time."""

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        operator: Caretaker,
        settings: AdminSettings,
        caller_of: Callable[[Any], Caller] = lambda transport: caller_at(transport.getHandle()),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self.operator = operator
        self.settings = settings
        self.caller_of = caller_of
        self.present: dict[AdminProtocol, Role] = {}
        self._wall = wall

    def buildProtocol(self, addr: IAddress | None) -> AdminProtocol:
        return AdminProtocol(self)

    def role_of(self, caller: Caller) -> Role:
        """What he may do now."""
        return role_of(caller, self.settings)

    def enter(self, protocol: AdminProtocol) -> bool:
        """Count a caller; False: there are too many of his role."""
        role = self.role_of(protocol.caller)
        if Counter(self.present.values())[role] >= CONNECTIONS[role]:
            return False
        self.present[protocol] = role
        return True

    def leave(self, protocol: AdminProtocol) -> None:
        """He is gone."""
        self.present.pop(protocol, None)

    def now(self) -> str:
        """The time of day, as log lines have it."""
        text = datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="milliseconds")
        return text.replace("+00:00", "Z")


class AdminService(Service):
    """The door, open while the server runs."""

    def __init__(self, reactor: Any, operator: Caretaker, settings: AdminSettings) -> None:
        self._reactor = reactor
        self._factory = AdminFactory(reactor, operator, settings)
        self._port: AdminPort | None = None

    @property
    def settings(self) -> AdminSettings:
        """Who may do what; a new value counts at once, but for ``socket`` and ``mode``."""
        return self._factory.settings

    @settings.setter
    def settings(self, settings: AdminSettings) -> None:
        self._factory.settings = settings

    def privilegedStartService(self) -> None:
        """Open the socket.

        Raises:
            OSError: it cannot be had, for example because a server answers there.
        """
        super().privilegedStartService()
        self._port = listen(self._reactor, self.settings, self._factory)

    def startService(self) -> None:
        """Open the socket, where nobody did before."""
        if self._port is None:
            self._port = listen(self._reactor, self.settings, self._factory)
        super().startService()

    def stopService(self) -> Any:
        """Close the socket, remove its file, let everybody go."""
        super().stopService()
        port, self._port = self._port, None
        for protocol in list(self._factory.present):
            protocol.leave()
        return port.stopListening() if port is not None else None
