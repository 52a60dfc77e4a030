"""One worker, as its parent knows it: its links, its streams, and what it asks and tells.

Rule of this file: each message of the worker is a method (``heard_NAME``); what it means is the
switchboard's, which is asked as by a link of its own.

Source: worker_board.py says them; ours.
"""

import os
import signal
import socket
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import Any, Protocol

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure

from revtunnel.daemons.switchboard import Switchboard
from revtunnel.daemons.worker_answers import ASKED, Answers
from revtunnel.daemons.worker_links import WorkerLink
from revtunnel.daemons.worker_messages import Came, FactTold, LinkSaid, Load, WorkerOrders
from revtunnel.daemons.worker_streams import WorkerStreams
from revtunnel.ground.facts import (
    ChannelEnded,
    ChannelOpened,
    ClientRefused,
    Fact,
    ServerState,
    ServiceDown,
    ServiceUp,
)
from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.origin import Origin
from revtunnel.ground.targets import Offer
from revtunnel.link.keys import Verifier
from revtunnel.sockets.arrivals import Together
from revtunnel.sockets.descriptor_pipe import GONE, DescriptorPipe, Message
from revtunnel.sockets.ends import End, PlainEnd
from revtunnel.streams.offer_messages import Answer
from revtunnel.streams.service_state import ServiceState
from revtunnel.trust.issuer import Issuer

__all__ = ["Parent", "Worker"]

log = Logger(namespace="revtunnel")


class Parent(Protocol):
    """Who has all workers (workers.py)."""

    reactor: Any
    board: Switchboard
    issuer: Issuer
    orders: WorkerOrders
    drains: bool
    together: Together

    def key_of(self, serial: str) -> Verifier | None:
        """Whose key a device has to prove."""

    def given_on(self, share: int, ticket: bytes, scope: str, peer: str, descriptor: int) -> None:
        """A data socket that came to another worker than its own."""

    def not_lent(self, worker: "Worker", serial: str, name: str) -> None:
        """It had no room for a port that it was lent."""

    def departed(self, serial: str) -> None:
        """A link of a device is gone."""

    def ended(self, worker: "Worker", why: str) -> None:
        """A worker is gone."""


def _fault(failure: Failure, share: int, name: str) -> tuple[()]:
    """One of ours; nothing is the answer."""
    log.failure("worker {share}: {name}", failure, share=share, name=name)
    return ()


def _count(board: Switchboard, serial: str, change: int) -> None:
    device = board.fleet.get(serial)
    if device is not None:
        device.channels += change


def _of_service(board: Switchboard, fact: ServiceUp | ServiceDown) -> None:
    device = board.fleet.get(fact.serial)
    link = device.link if device is not None else None
    if isinstance(link, WorkerLink):
        up = isinstance(fact, ServiceUp)
        link.mux.service_states[fact.service] = ServiceState(fact.service, up, fact.detail)


class _Agents:
    """Connections of agents on their way to a worker: those that come together go together."""

    def __init__(self, worker: "Worker", together: Together) -> None:
        self.handed = 0  # since it said how many it has
        self._worker = worker
        self._together = together
        self._came: list[tuple[Came, int]] = []

    @property
    def waiting(self) -> int:
        """Those that it has not taken."""
        return len(self._came) + self._worker.pipe.giving

    def give(self, listener: str, end: End) -> None:
        """One more."""
        self.handed += 1
        self._came.append((Came(listener, end.peer, int(end.sock.family)), end.sock.detach()))
        self._together.then(self._tell)

    def _tell(self) -> None:
        came, self._came = self._came, []
        agents, given = zip(*came, strict=True)
        self._worker.tell("came", agents, descriptors=given)


class Worker:
    """One process, which has ``links``, and ``strangers`` and those that were handed to it since."""

    def __init__(self, workers: Parent, share: int, sock: socket.socket) -> None:
        self.share = share
        self.reactor = workers.reactor
        self.pid = 0
        self.since = self.reactor.seconds()
        self.looks = 0  # since it said something
        self.is_ready = self.is_over = False
        self.errors: list[str] = []
        self.links: dict[int, WorkerLink] = {}
        self.streams = WorkerStreams(self.reactor)
        self.expected: Counter[str] = Counter()  # data sockets that are on their way, by address
        self.agents = _Agents(self, workers.together)
        self.strangers = self.clients = 0
        self._workers = workers
        self._board = workers.board
        self._answers = Answers(self.reactor, workers.board, workers.issuer, workers.key_of)
        self._asked: list[Deferred[None]] = []
        self._drained: Deferred[None] | None = None
        self.pipe = DescriptorPipe(self.reactor, sock, self._received, self._lost)

    # -- for its parent

    @property
    def drains(self) -> bool:
        return self._workers.drains

    @property
    def relay_limits(self) -> RelayLimits:
        return self._board.data.relay_limits

    def tell(self, name: str, *values: Any, descriptors: tuple[int, ...] = ()) -> None:
        if self.pid:
            self.pipe.send(name, *values, descriptors=descriptors)
            return
        for each in descriptors:  # it has not got its orders yet, which come first
            os.close(each)

    def counted(self, serial: str) -> None:
        """A stream that its client's side here counts; ``_fact`` does, too."""
        _count(self._board, serial, -1)

    def ask(self) -> "Deferred[None]":
        """Fires when it has said what it has."""
        asked: Deferred[None] = Deferred()
        self._asked.append(asked)
        self.tell("look", True)
        return asked

    def drain(self) -> "Deferred[None]":
        """Have it leave; fires when it has nothing any more."""
        if not self.is_ready:
            return succeed(None)
        self._drained = self._drained or Deferred()
        self.tell("leave")
        return self._drained

    def kill(self, why: str) -> None:
        """End a process that does not answer."""
        self.pipe.end(why)

    def bury(self, reason: str = "lost", detail: str = "its worker has ended") -> None:
        """It has ended: so have its links and streams."""
        for fact in self.streams.lost():
            self._fact(fact)
        for link in [*self.links.values()]:
            self._depart(link, reason, detail, 0)
        asked, self._asked = self._asked, []
        for each in (*asked, *filter(None, [self._drained])):
            if not each.called:
                each.callback(None)

    # -- from the worker

    def _received(self, message: Message) -> None:
        name, values, descriptors = message
        self.looks = 0
        if name in ASKED:
            answer = maybeDeferred(self._answer, name, *values[1:]).addCallback(lambda found: (found,))
            answer.addErrback(_fault, self.share, name).addCallback(partial(self.tell, "answer", values[0]))
            return
        try:
            getattr(self, f"heard_{name}")(*values, *descriptors)
        except Exception:
            _fault(Failure(), self.share, name)

    def _answer(self, name: str, *values: Any) -> Any:
        if name != "admit":
            return getattr(self._answers, name)(*values)
        link = self._answers.admit(self, *values)
        if isinstance(link, WorkerLink):
            self.links[link.number] = link
            return None
        return link

    def _lost(self, why: str) -> None:
        self.is_over = True
        if self.pid and why not in (GONE, ""):  # it may hang, with its connections open
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self._workers.ended(self, why)

    def heard_hello(self, pid: int) -> None:
        self.pid = pid
        self.tell("begin", self._workers.orders)

    def heard_ready(self) -> None:
        self.is_ready = True
        self._board.report(ServerState("worker", f"worker {self.share} is process {self.pid}"))

    def heard_faulty(self, errors: list[str]) -> None:
        self.errors = [] if self.is_ready else errors
        for each in errors if self.is_ready else ():
            self._board.report(ServerState("worker", f"worker {self.share} keeps its settings: {each}"))

    def heard_logged(self, line: dict[str, Any]) -> None:
        told = {name: value for name, value in line.items() if name not in ("ts", "level", "event")}
        level = LogLevel.levelWithName(line["level"])
        log.emit(level, line["event"], event=line["event"], worker=self.share, **told)

    def heard_news(self, facts: list[FactTold], expected: dict[str, int]) -> None:
        for source, change in expected.items():
            self.expected[source] += change
            if self.expected[source] <= 0:
                del self.expected[source]
        for kind, values in facts:
            self._fact(kind(*values))

    def heard_load(self, load: Load) -> None:
        self.strangers, self.clients, self.agents.handed = load.strangers, load.clients, 0
        for number, trip in load.trips.items():
            if number in self.links:
                self.links[number].round_trip = trip
        if load.rows is not None:
            self.streams.take(load.rows)
            asked, self._asked = self._asked, []
            for each in asked:
                if not each.called:
                    each.callback(None)

    def heard_drained(self) -> None:
        self._board.check_drained()  # streams of clients that came to us were its, and nobody looked since
        if self._drained is not None and not self._drained.called:
            self._drained.callback(None)

    # -- what it tells

    def heard_failed(self, peer: str, reason: str, serial: str, shaken: bool) -> None:
        self._board.access.failed(peer, reason, serial, shaken, self.reactor.seconds())

    def heard_arrived(self, number: int, told: LinkSaid) -> None:
        link: Any = self.links.get(number)
        if link is not None:
            link.said(told, self.reactor.seconds())
            self.streams.came(link.carrier)
            self._board.arrived(link)

    def heard_leaving(self, number: int) -> None:
        link: Any = self.links.get(number)
        if link is not None:
            self._board.leaving(link)

    def heard_departed(self, number: int, reason: str, detail: str, cut: int) -> None:
        if number in self.links:
            self._depart(self.links[number], reason, detail, cut)

    def heard_offered(self, number: int, offers: tuple[Offer, ...], answer: Answer | None) -> None:
        link: Any = self.links.get(number)
        if link is not None:
            self._board.offered(link, offers, answer)

    def heard_consented(self, number: int, session: str, yes: bool, why: str) -> None:
        link: Any = self.links.get(number)
        if link is not None:
            self._board.consented(link, session, yes, why)

    def heard_attach(self, share: int, ticket: bytes, scope: str, peer: str, descriptor: int) -> None:
        self._workers.given_on(share, ticket, scope, peer, descriptor=descriptor)

    def heard_client(self, serial: str, name: str, peer: str, origin: Origin | None, descriptor: int) -> None:
        """A client whose device it has no more."""
        if descriptor < 0:
            self._board.report(ClientRefused(serial, name, peer, "descriptors"))
            return
        end = PlainEnd(socket.socket(fileno=descriptor), peer)
        end.origin = origin
        ports = (port for port in self._board.ports.of(serial) if port.clients.name == name)
        port = next(ports, None)
        if port is None:
            end.abort()
        else:
            port.clients.came(end)

    def heard_not_lent(self, serial: str, name: str) -> None:
        self._workers.not_lent(self, serial, name)

    # -- inside

    def _depart(self, link: Any, reason: str, detail: str, cut: int) -> None:
        del self.links[link.number]
        link.up_since = link.up_since or self.reactor.seconds()
        self._board.departed(link, reason, detail, cut)
        self._workers.departed(link.serial)
        self.streams.left(link.carrier)

    def _fact(self, fact: Fact) -> None:
        """Something happened there."""
        if isinstance(fact, ChannelOpened):
            self.streams.opened(fact)
            _count(self._board, fact.serial, 1)
        elif isinstance(fact, ServiceUp | ServiceDown):
            _of_service(self._board, fact)
        self._board.report(fact)
        if isinstance(fact, ChannelEnded) and not self.streams.ended(fact.serial, fact.channel):
            _count(self._board, fact.serial, 1)  # it was never opened
