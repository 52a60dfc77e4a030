"""A server in memory with its admin socket: the real operator over the real world of ``tests.support.world``.

::

    room = Room(serials=("plc-1", "plc-2"))
    assert room.ask("Ping")["row"]["state"] == "running"       # one command, as root
    visitor = room.visit(uid=1000, name="anna")                # a connection that a test drives by hand
    status = room.ctl("devices", "--json")                     # revtunnelctl, its output by capsys
"""

import json
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.protocols import amp

from revtunnel.ctl.command_line import parser
from revtunnel.ctl.ctl import attempt, talk
from revtunnel.daemons.all_operations import OPERATIONS
from revtunnel.daemons.kept_ports import KeptPorts
from revtunnel.daemons.operator import Operator
from revtunnel.daemons.webhooks import Webhooks
from revtunnel.ground.facts import Fact
from revtunnel.ground.limits import EnrolmentLimits, PeopleLimits
from revtunnel.ground.retries import Retries
from revtunnel.link.keys import Verifier
from revtunnel.process.admin.admin import AdminFactory
from revtunnel.process.admin.admin_client import AdminClient, connect
from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.process.admin.callers import Caller
from revtunnel.process.reporting import Reporter
from revtunnel.state.ledger import SqliteLedger
from revtunnel.state.session_audit import SessionAudit
from revtunnel.systems.emo.ports_in_vain import PortsInVain
from revtunnel.trust.certificate_book import CertificateBook
from revtunnel.trust.issuer import Issuer
from revtunnel.trust.mutes import Mutes
from revtunnel.trust.people_book import open_people
from revtunnel.trust.people_operator import PeopleOperator
from tests.support.memory import Pair, Recorder
from tests.support.world import World

__all__ = ["NOON", "SOCKET", "STRANGER", "MemorySocket", "Room", "Visitor", "box"]

SOCKET = "/run/revtunnel/admin.sock"
NOON = 1_800_000_000.0  # the wall clock at the world's second 0
STRANGER = 4_000_000  # a uid that nobody has


class _Keys(dict[str, Verifier]):
    """What the world asks for keys: the ledger."""

    ledger: SqliteLedger

    def get(self, serial: str, default: Any = None) -> Any:
        key = self.ledger.key_of(serial)
        return Verifier(key.stored_key, key.server_key) if key is not None else default

    def __bool__(self) -> bool:
        return True


class Visitor(Recorder):
    """The caller's end of a connection."""

    pair: Pair

    @property
    def near(self) -> Any:
        """His transport."""
        return self.pair.near

    @property
    def far(self) -> Any:
        """The server's transport."""
        return self.pair.far

    @property
    def open(self) -> bool:
        """Whether either side still has the connection."""
        return self.pair.open

    @property
    def answers(self) -> list[dict[str, Any]]:
        """The boxes that the server wrote, ``row`` and ``rows`` read."""
        boxes = [
            {key.decode(): value.decode() for key, value in each.items()}
            for each in amp.parseString(bytes(self.data))
        ]
        return [{key: _read(key, value) for key, value in each.items()} for each in boxes]


def _read(key: str, value: str) -> Any:
    return json.loads(value) if key in ("row", "rows") else value


class MemorySocket:
    """What a program has instead of a UNIX socket: when it waits, the room moves, and ``meanwhile`` happens.

    A time-out takes the time that it was set to.
    """

    def __init__(self, room: "Room", visitor: Visitor, meanwhile: Callable[[], None] | None = None) -> None:
        self._room = room
        self._visitor = visitor
        self._meanwhile = meanwhile
        self._taken = 0
        self._seconds: float | None = None

    def settimeout(self, seconds: float | None) -> None:
        """For ``recv``."""
        self._seconds = seconds

    def sendall(self, data: bytes) -> None:
        """To the server."""
        if not self._visitor.open:
            raise BrokenPipeError
        self._visitor.near.write(data)

    def recv(self, size: int) -> bytes:
        """What came; b"" at the end."""
        self._room.pump()
        if self._taken == len(self._visitor.data) and self._meanwhile is not None and self._seconds is None:
            happens, self._meanwhile = self._meanwhile, None
            happens()
            self._room.pump()
        if self._taken == len(self._visitor.data) and self._visitor.near.connected:
            assert self._seconds is not None, "it would wait for ever"
            self._room.advance(self._seconds)
        if self._taken == len(self._visitor.data) and self._visitor.near.connected:
            raise TimeoutError
        found = bytes(self._visitor.data[self._taken : self._taken + size])
        self._taken += len(found)
        return found

    def close(self) -> None:
        """End of it."""
        self._visitor.near.loseConnection()
        self._room.pump()


class Room(World):
    """The world, an operator, the door. Callers are root unless they say who they are."""

    def __init__(self, **options: Any) -> None:
        self.reporter = Reporter()
        self.ledger = SqliteLedger(None, lambda: NOON)
        keys = _Keys()
        keys.ledger = self.ledger
        super().__init__("rt1", keys=keys, **options)
        book = CertificateBook(self.ledger)
        limits = EnrolmentLimits()
        self.issuer = Issuer(book, limits, self.clock.seconds, os.urandom, self.reporter, self.wall)
        self.people, self.grants, _ = open_people(PeopleLimits(), self.ledger)
        self.audit = SessionAudit(self.clock, None, self.reporter, self.wall)
        self.mutes = Mutes(self.ledger, self.wall, self.audit.changed)
        self.operator = Operator(
            self.reactor,
            self.switchboard,
            self.leases,
            self.ledger,
            self.issuer,
            self.reporter,
            "gate",
            os.urandom,
            PeopleOperator(
                self.people, self.grants, self.wall, os.urandom, self.audit.changed, self._labels_of
            ),
            self.mutes,
            self.audit,
            self.wall,
        )
        self.hooks = self.operator.webhooks = Webhooks(
            self.reactor, self.ledger, Retries(self.clock, self.reporter), self.reporter, os.urandom
        )
        self.operator.kept = self.kept = KeptPorts(self.ledger, self.wall)
        self.kept.leases = self.leases
        self.operator.emo = PortsInVain(self.wall)
        self.settings = AdminSettings(SOCKET, 0o660, ("anna", "@wheel", "1001"), ("rita",))
        self.caller = Caller(0, "root")
        self.factory = AdminFactory(
            self.reactor, self.operator, self.settings, lambda transport: self.caller, self.wall
        )
        self.reactor.serve(SOCKET, 0, self.factory)

    def wall(self) -> float:
        """Seconds since 1970."""
        return NOON + self.clock.seconds()

    def _labels_of(self, serial: str) -> tuple[str, ...]:
        return self.switchboard.access.records.of(serial).labels

    def _report(self, fact: Fact) -> None:
        super()._report(fact)
        self.reporter(fact)

    def visit(self, name: str = "root", uid: int = 0, *groups: str) -> Visitor:
        """A connection of a caller that the test writes on by hand."""
        self.caller = Caller(uid, name, frozenset(groups))
        visitor = Visitor()
        visitor.pair = self.reactor.meet(visitor, self.reactor.at(SOCKET, 0))
        return visitor

    def caller_as(self, name: str, uid: int, *groups: str) -> AdminClient:
        """A connection of a caller with our own client on it."""
        return AdminClient(MemorySocket(self, self.visit(name, uid, *groups)))

    def ask(self, command: str, *, by: AdminClient | None = None, **arguments: Any) -> Any:
        """One command and its answer; what it fails with is raised."""
        speaker = by or self.caller_as("root", 0)
        try:
            return speaker.call(OPERATIONS[command], **arguments)
        finally:
            if by is None:
                speaker.close()

    def rows(self, command: str, **arguments: Any) -> list[Any]:
        """A whole listing."""
        speaker = self.caller_as("root", 0)
        found = speaker.rows(OPERATIONS[command], **arguments)
        speaker.close()
        return found

    def ctl(self, *words: str, meanwhile: Callable[[], None] | None = None) -> int:
        """The exit status of revtunnelctl; ``meanwhile`` happens while it watches."""
        options = parser().parse_args(list(words))

        def dial(path: str, seconds: float) -> MemorySocket:
            if fault := self.reactor.faults.get((path, 0)):
                raise fault
            visitor = Visitor()
            visitor.pair = self.reactor.meet(visitor, self.reactor.at(path, 0))
            return MemorySocket(self, visitor, meanwhile)

        return attempt(lambda: talk(options, SOCKET, partial(connect, dial=dial)))


def box(command: str, tag: str = "1", **values: str) -> bytes:
    """A command as its bytes."""
    pairs = {"_command": command, "_ask": tag, **values}
    return amp.AmpBox({name.encode(): value.encode() for name, value in pairs.items()}).serialize()
