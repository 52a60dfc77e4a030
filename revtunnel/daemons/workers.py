"""The workers of one server, seen from their parent: which of them has whom, and what they are told.

The parent has whatever there may be one of: listening sockets, ports, ledger, authority, records, penalties,
log, admin socket, and the systems beside rt1. It accepts agents and gives each connection, unread, to a
worker; whoever has passed its handshake there is admitted here, and is a link like others (worker_links.py).
The client ports of a device are lent to the worker that has it, so that bytes go by no second process.

The rules: a data socket goes to the worker that asked for it: in plain its ticket says whose it is, behind
TLS its address does, where one worker alone expects somebody from there; one that came to the wrong worker is
given on. Everybody else goes to the worker with the fewest links. A worker that ends is replaced at once, one
that ends within SHORT seconds after a pause; its links are over for the parent, as if all had been cut.

Source: docs/scale-out.rst "Several workers"; next/cluster.md section 7; ours.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall

import revtunnel
from revtunnel.carriers.tickets import Numbering, number_in
from revtunnel.daemons.operator import Operator
from revtunnel.daemons.server_listeners import ServerListeners
from revtunnel.daemons.server_settings import ServerSettings
from revtunnel.daemons.switchboard import Switchboard
from revtunnel.daemons.worker import Worker
from revtunnel.daemons.worker_links import WorkerLink
from revtunnel.daemons.worker_messages import WorkerOrders
from revtunnel.daemons.worker_process import WANTED
from revtunnel.fleet.client_ports import OpenPort
from revtunnel.fleet.strangers import NotLetIn
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.facts import LinkRefused, ServerState
from revtunnel.process.admin.operation_form import Operation
from revtunnel.sockets.arrivals import Together
from revtunnel.sockets.descriptor_pipe import pipe_pair
from revtunnel.sockets.ends import End
from revtunnel.sockets.peeking import peek
from revtunnel.state.ledger import SqliteLedger
from revtunnel.streams.commands import TICKET_SIZE, Command
from revtunnel.streams.frames import HEADER_SIZE, encode_frame
from revtunnel.streams.running import Running
from revtunnel.trust.issuer import Issuer

__all__ = ["Workers"]

LOOK = 1.0  # seconds between two looks at each
SILENT = 30.0  # seconds without an answer, after which a worker is ended
SHORT = 5.0  # seconds
PAUSE = 1.0  # seconds until one is replaced that has lived for less
BEGIN = 60.0  # seconds until all must be there at the start
LEARN = 2.0  # seconds that workers have to say what they have, for a listing
LEARNS = frozenset(("devices", "channels", "sessions", "status", "close", "kick"))
_BUSY = "overloaded", "no worker takes it now"
_ATTACH = encode_frame(Command.ATTACH, 0, bytes(TICKET_SIZE))[:HEADER_SIZE]


def _load(worker: Worker) -> int:
    return len(worker.links) + worker.strangers + worker.agents.handed


class Workers:
    """All of one server; ``count`` of them. ``settings`` are those of now."""

    def __init__(
        self,
        reactor: Any,
        board: Switchboard,
        key_of: Callable[[str], Any],
        issuer: Issuer,
        ledger: SqliteLedger,
        settings: Callable[[], ServerSettings],
    ) -> None:
        self.reactor = reactor
        self.board = board
        self.key_of = key_of
        self.issuer = issuer
        self.drains = False
        self.together = Together()
        self.orders: WorkerOrders
        self.all: dict[int, Worker] = {}  # by share; 0 is the parent's
        self._ledger, self._settings = ledger, settings
        self._count = count = settings().processes
        self._lent: dict[str, dict[str, tuple[Worker, OpenPort, str]]] = {}  # by serial and target
        self._nursery: subprocess.Popen[bytes] | None = None
        self._asks: socket.socket | None = None
        self._timers: set[IDelayedCall] = set()
        self._learning: list[Deferred[None]] = []
        self._stopped = False
        board.data.numbering = Numbering(0, count + 1)
        board.ports.served = None  # the data plane of whichever has them would have to have the device, too
        board.ports.on_open, board.ports.on_left_open = self._opened, self._left_open
        board.far_links = lambda: sum(len(worker.links) for worker in self.all.values())

    # -- life

    def attend(self, listeners: ServerListeners, operator: Operator) -> None:
        """Have agents of these listeners come to us, and this operator see what we have."""
        listeners.workers = lambda name: partial(self._came, name)
        self.together = listeners.together
        operator.learn = self.learn
        operator.linked.elsewhere, operator.linked.beside = self.rows, self.counts

    def start(self) -> None:
        """Make all of them, and wait for them. SettingsError, OSError: one cannot be had."""
        self.orders = self._orders_now()
        for share in range(1, self._count + 1):
            self._make(share)
        end = self.reactor.seconds() + BEGIN
        while waiting := [each for each in self.all.values() if not each.is_ready]:
            waiting[0].pipe.wait(max(0.0, end - self.reactor.seconds()))
            if waiting[0].errors:
                raise SettingsError(waiting[0].errors)
            if waiting[0].is_over or self.reactor.seconds() >= end:
                raise OSError(f"worker {waiting[0].share} did not begin")
        self._later(LOOK, self._look)

    def take(self) -> None:
        """Other settings."""
        self.orders = self._orders_now()  # also for those that are made later
        for worker in self.all.values():
            worker.tell("change", self.orders)

    def drain(self) -> "Deferred[Any]":
        """Have all leave; fires when the last one has nothing any more, or has ended."""
        self.drains = True
        return gatherResults([worker.drain() for worker in self.all.values()])

    def stop(self) -> None:
        """End all, with whatever they have."""
        self._stopped = True
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        for worker in [*self.all.values()]:
            worker.bury("stopping", "the server stops")
            worker.pipe.end("it does not answer" if worker.looks > 1 else "")
        if self._asks is not None:
            self._asks.close()
        if self._nursery is not None:
            with suppress(subprocess.TimeoutExpired):
                self._nursery.wait(1.0)
        self._asks = self._nursery = None

    # -- for listings

    def counts(self) -> dict[str, int]:
        """For a status."""
        workers = self.all.values()
        streams = sum(len(each.streams) for each in workers)
        return {"clients": sum(each.clients for each in workers), "channels": streams}

    def rows(self) -> Iterator[Running]:
        """The streams of all, in no order."""
        for worker in self.all.values():
            yield from worker.streams.rows()

    def learn(self, operation: Operation) -> "Deferred[None] | None":
        """Fires when all have said what they have, or had their time."""
        if operation.method not in LEARNS:
            return None
        asked = [worker.ask() for worker in self.all.values() if worker.is_ready]
        done: Deferred[None] = gatherResults(asked, consumeErrors=True).addCallback(lambda _: None)
        return done.addTimeout(LEARN, self.reactor).addErrback(lambda failure: None)

    # -- from workers

    def given_on(self, share: int, ticket: bytes, scope: str, peer: str, descriptor: int) -> None:
        """A data socket that came to another worker than its own."""
        worker, told = self.all.get(share), (scope.partition(" ")[0], peer, "")
        if descriptor < 0:
            self.board.report(LinkRefused(*told, "descriptors", "not taken over"))
        elif worker is None or not worker.is_ready:
            os.close(descriptor)
            self.board.report(LinkRefused(*told, "ticket", "its worker has ended"))
        else:
            worker.tell("attached", ticket, scope, peer, descriptors=(descriptor,))

    def not_lent(self, worker: Worker, serial: str, name: str) -> None:
        """It had no room for a port that it was lent: clients come to us, and are given on one by one."""
        lent = self._lent.get(serial, {}).get(name)
        if lent is not None and lent[0] is worker:
            self._left_open(lent[1])

    def departed(self, serial: str) -> None:
        """A link of a device is gone: forget what of its ports was lent and is closed."""
        lent = self._lent.get(serial, {})
        for name in [name for name in lent if not self.board.ports.is_open(serial, name)]:
            del lent[name]
        if not lent:
            self._lent.pop(serial, None)

    def ended(self, worker: Worker, why: str) -> None:
        """A worker is gone, and its links with it."""
        if self._stopped or self.all.get(worker.share) is not worker:
            return
        del self.all[worker.share]
        lived = self.reactor.seconds() - worker.since
        text = (
            f"worker {worker.share}, process {worker.pid}, has ended: {why}; it had {len(worker.links)} links"
        )
        self.board.report(ServerState("worker", text))
        worker.bury()
        for error in worker.errors:
            self.board.report(ServerState("worker", error))
        if not self.drains:
            self._later(PAUSE if lived < SHORT else 0.0, self._make_again, worker.share)

    # -- agents

    def _came(self, name: str, end: End) -> None:
        """Somebody connected at the listener of this name."""
        board, now = self.board, self.reactor.seconds()
        source = end.peer.rpartition(":")[0]
        worker = self._expecting(name, source, end)
        if worker is None:
            refused = "" if self.drains else board.access.stranger(end.peer, now)
            if refused:
                left = board.access.next_try(end.peer, now)
                board.admission.turn_away(name, end, NotLetIn("penalty", refused, seconds=left))
                return
            there = [each for each in self.all.values() if each.is_ready and not self._is_behind(each)]
            worker = min(there, key=_load, default=None)
        if worker is None or self.drains or self._is_behind(worker):
            why = ("stopping", "no worker is there") if self.drains or not self.all else _BUSY
            board.report(LinkRefused(name, end.peer, "", *why))
            end.abort()
            return
        worker.agents.give(name, end)

    def _is_behind(self, worker: Worker) -> bool:
        """Whether it has not taken what it was given, so that the rest would be held here."""
        return worker.agents.waiting >= self.board.limits.pending

    def _expecting(self, name: str, source: str, end: End) -> Worker | None:
        """Whose data socket it is, as far as can be seen."""
        expecting = [each for each in self.all.values() if each.expected[source]]
        if not expecting:
            return None
        listener = self.board.listeners.get(name)
        if listener is not None and listener.identity is None:
            head = peek(end, HEADER_SIZE + TICKET_SIZE)
            ticket = head.removeprefix(_ATTACH)
            if len(head) == HEADER_SIZE + TICKET_SIZE and len(ticket) == TICKET_SIZE:
                found = self.all.get(number_in(ticket) % (self._count + 1))
                return found if found is not None and found.is_ready else None
            return None if head else max(expecting, key=lambda each: each.expected[source])
        return max(expecting, key=lambda each: each.expected[source])

    # -- ports

    def _opened(self, port: OpenPort) -> None:
        """A port stands open for a device that is here: whoever has the device has its clients."""
        serial, name = port.lease.use
        device = self.board.fleet.get(serial)
        link = device.link if device is not None else None
        worker = link.worker if isinstance(link, WorkerLink) else None
        before = self._lent.get(serial, {}).get(name)
        if before is not None and before[1] is port and before[::2] == (worker, port.lease.pool):
            return
        self._left_open(port)
        listening: Any = port.listening
        if isinstance(worker, Worker):
            try:
                lent = listening.lend()
            except OSError:  # its clients come to us, and are given on one by one
                return
            self._lent.setdefault(serial, {})[name] = worker, port, port.lease.pool
            worker.tell("port", port.lease, descriptors=(lent,))

    def _left_open(self, port: OpenPort) -> None:
        """A port stays open, and is ours again."""
        serial, name = port.lease.use
        lent = self._lent.get(serial, {}).pop(name, None)
        if lent is not None and lent[1] is port:
            lent[0].tell("give_back", serial, name)
            listening: Any = port.listening
            listening.take_back()

    # -- inside

    def _orders_now(self) -> WorkerOrders:
        told = self._settings(), self._ledger.doubtful is not None, self.issuer.is_set_up, self.issuer.grace()
        return WorkerOrders(*told)

    def _make(self, share: int) -> None:
        """Make one worker."""
        if self._stopped or self.drains:
            return
        ours, theirs = pipe_pair()
        with theirs:
            self._ask_nursery(share, theirs)
        self.all[share] = Worker(self, share, ours)

    def _make_again(self, share: int) -> None:
        """The same while all runs; one that cannot be had is tried again."""
        try:
            self._make(share)
        except OSError as error:
            text = f"worker {share} cannot be made: {error.strerror or error}"
            self.board.report(ServerState("worker", text))
            self._later(PAUSE, self._make_again, share)

    def _ask_nursery(self, share: int, theirs: socket.socket) -> None:
        wanted = [WANTED.pack(share, self._count + 1)]
        if self._asks is not None:
            with suppress(OSError):
                socket.send_fds(self._asks, wanted, [theirs.fileno()])
                return
            self._asks.close()
        self._asks, far = pipe_pair()
        root = str(Path(revtunnel.__file__).resolve().parents[1])
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
        with far:
            self._nursery = subprocess.Popen(
                [sys.executable, "-P", "-m", "revtunnel.daemons.worker_process", str(far.fileno())],
                pass_fds=(far.fileno(),),
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": paths},
            )
        socket.send_fds(self._asks, wanted, [theirs.fileno()])

    def _look(self) -> None:
        self._later(LOOK, self._look)
        for worker in [*self.all.values()]:
            worker.looks += 1  # not seconds: after a pause of our own nobody was listened to yet
            if worker.looks > SILENT / LOOK:
                worker.kill(f"it has said nothing for {SILENT:g} s")
            else:
                worker.tell("look", False)

    def _later(self, seconds: float, call: Callable[..., None], *values: Any) -> None:
        def now() -> None:
            self._timers.discard(timer)
            call(*values)

        timer = self.reactor.callLater(seconds, now)
        self._timers.add(timer)
