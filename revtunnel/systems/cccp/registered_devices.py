"""Where CCCP devices come in: each says one line, is told nothing, and is then whoever's the serial is.

The rules: not a byte is sent before a client's byte (over TLS, but the handshake). What does not say a
serial in time is closed, the time is absolute and includes TLS. A serial that nobody listed is held to that
same moment, so that it cannot be told from a slow one. Whoever has said its serial is taken out of Twisted's
transport, and costs an end and one reader.

Source: TCXN CCCP, "Registration in Cloud Proxy"; wire/cccp.md section 2; faults.md R1 to R11.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.strangers import NotLetIn, Stranger, Strangers
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import Report
from revtunnel.ground.first_bytes import Listens, explained
from revtunnel.ground.limits import CccpLimits
from revtunnel.sockets.end_transport import EndTransport, in_words
from revtunnel.sockets.ends import End
from revtunnel.sockets.peeking import has_spoken
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.sockets.tls.tls_stages import Heard, Secured, TlsHandshakes
from revtunnel.systems.cccp.cccp_facts import RegistrationRefused
from revtunnel.systems.cccp.registration import RegistrationDecoder
from revtunnel.systems.cccp.unpaired_end import WithoutLf

__all__ = ["Arrival", "Project", "Registrations"]

PARTING = 2.0  # seconds that somebody who is refused gets to take TLS's last word


@dataclass(frozen=True, slots=True)
class Project:
    """What holds for the devices of one listener and their sessions."""

    name: str
    pool: str  # where their ports come from
    newest: bool = True  # which one stays when a serial comes twice, unproved
    swallow_lf: bool = False
    hold: bool = True  # early bytes of one-shot sessions stay unread; else thrown away
    park: bool = False  # /off leaves the device connected
    timeout: float = 0.0  # seconds to a first client, where /on says none
    serials: frozenset[str] = frozenset()  # empty: everybody is welcome
    identity: Identity | None = None

    def welcomes(self, serial: str) -> bool:
        """Whether the operator knows this device, or takes all."""
        return not self.serials or serial in self.serials


@dataclass(frozen=True, slots=True)
class Arrival:
    """A device that said its serial."""

    serial: str
    project: Project
    end: End
    early: bytes  # payload that came with the line
    authenticated: bool
    tls: str


class Registrations:
    """All connections that have not said their serial. ``came`` gets those that have; the end is its own."""

    def __init__(
        self,
        reactor: Any,
        limits: Callable[[], CccpLimits],
        came: Callable[[Arrival], None],
        report: Report,
        access: AccessControl | None = None,
    ) -> None:
        self.projects: dict[str, Project] = {}
        self.access = access or AccessControl(lambda: 0.0)
        self.draining = False
        self._reactor = reactor
        self._limits = limits
        self._registered = came
        self._report = report
        self._tls = TlsHandshakes(reactor, lambda: limits().handshakes)
        self._places = Strangers(reactor.seconds, limits, self.access)
        self._strangers: dict[_Line, Stranger] = {}

    @property
    def waiting(self) -> int:
        """Connections without a serial."""
        return len(self._strangers)

    def stop(self) -> None:
        """Close everybody who has no serial."""
        self.draining = True
        for line in list(self._strangers):
            line.close("stopping", "the daemon stops")

    # -- from connections

    def came(self, name: str, end: End) -> None:
        """A device of ``projects[name]`` connected: its line is next, or TLS before it."""
        project, peer = self.projects[name], end.peer
        line = _Line(self, project, peer, self._limits().registration)
        try:
            if self.draining:
                raise NotLetIn("stopping", "not even read")
            stranger = self._places.enter(peer, line.give_way, partial(has_spoken, end))
        except NotLetIn as refused:
            end.abort()
            self._report(RegistrationRefused(name, peer, "", refused.reason, str(refused)))
            return
        self._strangers[line] = stranger
        line.heard = stranger.heard
        if project.identity is None:
            EndTransport(self._reactor, end, line).start()
        else:
            self._secure(line, project.identity, end)

    def _secure(self, line: "_Line", identity: Identity, plain: End) -> None:
        securing = self._tls.serve(plain, identity, self._limits().registration, line.heard)
        line.securing = securing

        def done(found: Secured) -> None:
            line.securing = None
            line.tls = found.end.tls_version
            line.certified = found.peer.serial if found.peer is not None else None
            EndTransport(self._reactor, found.end, line).start()

        def failed(failure: Failure) -> None:
            line.securing = None
            reason = getattr(failure.value, "reason", "silent")
            line.over(reason, in_words(failure))

        securing.addCallbacks(done, failed)

    def forget(self, line: "_Line") -> bool:
        """It is no stranger any more; False: it was none."""
        stranger = self._strangers.pop(line, None)
        if stranger is not None:
            stranger.leave()
        return stranger is not None

    def refused(self, line: "_Line", reason: str, detail: str) -> None:
        """It never became a device."""
        self.access.failed(line.peer, reason, line.serial, False, self._reactor.seconds())
        self._report(RegistrationRefused(line.project.name, line.peer, line.serial, reason, detail))

    def said(self, line: "_Line", end: End, early: bytes) -> None:
        """A device said its serial."""
        certified = line.certified is not None
        if certified:
            self.access.proved(line.peer, self.seconds())
        self._registered(Arrival(line.serial, line.project, end, early, certified, line.tls))

    def later(self, seconds: float, call: Callable[[], None]) -> IDelayedCall:
        """The reactor's."""
        timer: IDelayedCall = self._reactor.callLater(seconds, call)
        return timer

    def seconds(self) -> float:
        """The reactor's."""
        now: float = self._reactor.seconds()
        return now


class _Line(Protocol):
    """One connection up to the end of its line."""

    transport: Any

    def __init__(self, registrations: Registrations, project: Project, peer: str, seconds: float) -> None:
        self.project = project
        self.peer = peer
        self.heard: Heard = lambda waits=False: None  # to be told that it said something
        self.serial = ""
        self.tls = ""
        self.certified: str | None = None  # the serial in its certificate
        self.securing: Any = None
        self._registrations = registrations
        self._seconds = seconds
        self._until = registrations.seconds() + seconds
        self._decoder: RegistrationDecoder | None = RegistrationDecoder(project.swallow_lf)
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._timer = self._registrations.later(
            max(0.0, self._until - self._registrations.seconds()), self._late
        )

    def dataReceived(self, data: bytes) -> None:
        if self._decoder is None:  # an unknown serial, held; what it says is not looked at
            return
        self.heard()
        try:
            if not self._decoder.receive(data):
                return
            self.serial = self._decoder.serial or ""
            if self.certified not in (None, self.serial):
                raise RemoteError(f"its certificate is for {self.certified}")
        except RemoteError as error:
            self.close("denied" if self.serial else "protocol", str(error))
            return
        decoder, self._decoder = self._decoder, None
        if self.project.welcomes(self.serial):
            self._hand_over(decoder)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over("lost", "" if self.serial == "" else "it was not listed")

    def close(self, reason: str, detail: str) -> None:
        """Say nothing, and close, within a bounded time."""
        self.over(reason, detail)
        if self.securing is not None:
            self.securing.cancel()
        elif self.transport is not None:
            self._timer = self._registrations.later(PARTING, self.transport.abortConnection)
            self.transport.loseConnection()

    def give_way(self, why: str) -> None:
        """Its place is needed for another."""
        self.over("overloaded", why)
        if self.securing is not None:
            self.securing.cancel()
        elif self.transport is not None:
            self.transport.abortConnection()

    def over(self, reason: str, detail: str) -> None:
        """It is no device, once."""
        self._stop_timer()
        if self._registrations.forget(self):
            self._registrations.refused(self, reason, detail)

    def _hand_over(self, decoder: RegistrationDecoder) -> None:
        early, swallow = decoder.take()
        try:
            end = self.transport.take()
        except OSError:
            return  # ``connectionLost`` comes
        self._stop_timer()
        self._registrations.forget(self)
        self._registrations.said(self, WithoutLf(end) if swallow else end, early)

    def _late(self) -> None:
        self._timer = None
        if self.serial:
            self.close("unknown", "nobody listed this serial")
        else:
            said, _ = self._decoder.take() if self._decoder is not None else (b"", False)
            self.close("silent", explained(f"no serial in {self._seconds:g} s", said, Listens.CCCP))

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
