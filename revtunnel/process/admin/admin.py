"""The admin socket: AMP over a UNIX socket, for revtunnelctl and other programs of this machine.

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
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.facts import Fact
from revtunnel.ground.retries import Retries
from revtunnel.process.admin.admin_boxes import in_json, packed, unpacked, written
from revtunnel.process.admin.admin_calls import AdminCalls
from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.process.admin.admin_socket import AdminPort, listen
from revtunnel.process.admin.callers import Caller, caller_at, role_of
from revtunnel.process.admin.daemon_operator import DaemonOperator
from revtunnel.process.admin.operation_form import CallerRole
from revtunnel.process.admin.refusals import Conflict, OperatorError
from revtunnel.process.logs import timestamp
from revtunnel.sockets.twisted_transport import IStream

__all__ = ["STALLED", "AdminFactory", "AdminProtocol", "AdminService"]

log = Logger(namespace="revtunnel.admin")

CONNECTIONS = {CallerRole.OPERATOR: 16, CallerRole.READER: 16, CallerRole.NOBODY: 4}
BOX = 8192  # bytes
BOX_TIME = 10.0  # seconds
IDLE = 60.0  # seconds
STALLED = 30.0  # seconds
UNSENT = 256 * 1024  # bytes
MAX_WHY = 2000  # characters of an error's text
LOOK = 10.0  # seconds between two looks whether the socket still has its name
ADMIN = "admin socket"  # what ``Retries`` know it by
TIMES = {"command": BOX_TIME, "reading": STALLED, "next": IDLE}  # for what is waited
PARTING = 2.0  # seconds that a caller gets to take his last answer


@implementer(IPushProducer)
class AdminProtocol(Protocol):
    """One caller. It is its own transport's producer: while that is full no further command is read."""

    transport: IStream
    times: Mapping[str, float] = TIMES

    def __init__(self, factory: "AdminFactory") -> None:
        self.caller = Caller(-1, "?")
        self._factory = factory
        self._calls: AdminCalls
        self._received = bytearray()
        self._paused = False
        self._stop_watching: Callable[[], None] | None = None
        self._facts: deque[str] = deque()
        self._unsent = 0
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
        self._calls = AdminCalls(self._factory.operator, self.caller, role, self._watch)
        self.transport.registerProducer(self, True)
        self._time("command")

    def dataReceived(self, data: bytes) -> None:
        if not self._dropped:
            self._received += data
            self._read_on()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._dropped = True
        self._cancel_time()
        self._factory.leave(self)
        if self._stop_watching is not None:
            self._stop_watching()
        self._facts.clear()

    def pauseProducing(self) -> None:
        """The caller does not take what we write."""
        self._paused = True
        self.transport.pauseProducing()
        self._look_at_time()

    def resumeProducing(self) -> None:
        """He took it all: facts that wait come first, then his next commands."""
        self._paused = False
        while self._facts and not self._paused:
            row = self._facts.popleft()
            self._unsent -= len(row)
            self._tell(row)
        if not self._paused and not self._dropped:
            self.transport.resumeProducing()
            self._read_on()

    def stopProducing(self) -> None:
        """The transport is gone; ``connectionLost`` says so."""

    # -- commands

    def _read_on(self) -> None:
        """Carry out what is whole, as long as its answers are taken."""
        try:
            while not (self._paused or self._dropped) and (box := unpacked(self._received, BOX)) is not None:
                self._cancel_time()  # the next box has its own time
                self._carry_out(box)
        except ValueError:
            self.drop("too-long")
        self._look_at_time()

    def _carry_out(self, box: dict[bytes, bytes]) -> None:
        if box.keys() & {b"_command", b"_ask", b"_answer", b"_error"} != {b"_command", b"_ask"}:
            self.drop("no-command")
            return
        name = box[b"_command"].decode("ascii", "replace")
        operation = self._factory.operator.known.get(name)
        if operation is None:
            self._refuse(box[b"_ask"], "UNHANDLED", f"Unhandled Command: {name[:80]!a}")
            return
        done = self._calls.answer(operation, box)
        done.addCallback(lambda answer: self._send({b"_answer": box[b"_ask"], **answer}))
        done.addErrback(self._failed, box[b"_ask"])

    def _failed(self, failure: Failure, tag: bytes) -> None:
        if isinstance(failure.value, OperatorError):
            self._refuse(tag, failure.value.code, str(failure.value)[:MAX_WHY])
            return
        log.failure("a command failed", failure)
        self._refuse(tag, "UNKNOWN", "Unknown Error")
        self.leave()

    def _refuse(self, tag: bytes, code: str, why: str) -> None:
        self._send(written({"_error": tag, "_error_code": code, "_error_description": why}))

    def _send(self, box: dict[bytes, bytes]) -> None:
        self.transport.write(packed(box))

    # -- watching

    def _watch(self) -> None:
        if self._stop_watching is not None:
            raise Conflict("this connection watches already")
        self._stop_watching = self._factory.operator.watch(self._fact)

    def _fact(self, fact: Fact) -> None:
        row = in_json({"ts": self._factory.now(), "level": fact.severity.value, **fact.row()})
        if self._dropped:
            return
        if not self._paused:
            self._tell(row)
            return
        self._facts.append(row)
        self._unsent += len(row)
        if self._unsent > UNSENT:
            self.drop("does-not-read", at_once=True)

    def _tell(self, row: str) -> None:
        """Say a fact; it is not answered."""
        self._send(written({"_command": "Fact", "row": row}))

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
        self._dropped = True
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
        if self._paused:
            self._time("" if self._stop_watching is not None else "reading")
        elif self._received:
            self._time("command")
        else:
            self._time("" if self._stop_watching is not None else "next")

    def _time(self, waits_for: str) -> None:
        if waits_for == self._waits_for:
            return
        self._cancel_time()
        self._waits_for = waits_for
        seconds = self.times.get(waits_for)
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
    """Everybody who is at the socket, and what each may do; ``settings`` may change at any time."""

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        operator: DaemonOperator,
        settings: AdminSettings,
        caller_of: Callable[[Any], Caller] = lambda transport: caller_at(transport.getHandle()),
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.clock = clock
        self.operator = operator
        self.settings = settings
        self.caller_of = caller_of
        self.present: dict[AdminProtocol, CallerRole] = {}
        self._wall = wall

    def buildProtocol(self, addr: IAddress | None) -> AdminProtocol:
        return AdminProtocol(self)

    def role_of(self, caller: Caller) -> CallerRole:
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
        return timestamp(self._wall())


class AdminService(Service):
    """The socket, open while the server runs; made anew where somebody took its file away."""

    def __init__(
        self, reactor: Any, operator: DaemonOperator, settings: AdminSettings, retries: Retries
    ) -> None:
        self._reactor = reactor
        self._factory = AdminFactory(reactor, operator, settings)
        self._port: AdminPort | None = None
        self._place = settings  # it and the mode stay as they were at the start
        self._retries = retries
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

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
        self._looking.start(LOOK)

    def stopService(self) -> Any:
        """Close the socket, remove its file, let everybody go."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()
        port, self._port = self._port, None
        for protocol in list(self._factory.present):
            protocol.leave()
        return port.stopListening() if port is not None else None

    def _look(self) -> None:
        if self._port is not None and not self._port.is_reached and ADMIN not in self._retries.problems:
            self._retries.failed(ADMIN, f"{self._place.socket} was taken away", self._open_again)

    def _open_again(self) -> None:
        if self._port is None:
            return
        try:
            port = listen(self._reactor, self._place, self._factory)
        except OSError as error:
            self._retries.failed(ADMIN, str(error), self._open_again)
        else:
            self._port.abandon()
            self._port = port
            self._retries.well(ADMIN)
