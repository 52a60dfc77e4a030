"""A server in memory with its admin door: the real operator over the real world of ``tests.support.world``.

::

    room = Room(serials=("plc-1", "plc-2"))
    assert room.ask(Ping)["row"]["state"] == "running"         # one command, as root
    visitor = room.visit(uid=1000, name="anna")                # a connection that a test drives by hand
    status = room.ctl("devices", "--json")                     # revtunnelctl, its output by capsys
"""

import json
import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.protocols import amp
from twisted.python.failure import Failure

from revtunnel.ctl.ctl import attempt, parser, talk
from revtunnel.daemons.operator import Operator
from revtunnel.ground.facts import Fact
from revtunnel.ground.policy import EnrolmentLimits
from revtunnel.link.keys import Verifier
from revtunnel.process.door.admin import AdminFactory
from revtunnel.process.door.admin_client import AdminClient
from revtunnel.process.door.admin_commands import AdminCommand
from revtunnel.process.door.callers import AdminSettings, Caller
from revtunnel.process.reporting import Reporter
from revtunnel.state.ledger import SqliteLedger
from revtunnel.trust.certificate_book import CertificateBook
from revtunnel.trust.issuer import Issuer
from tests.support.memory import Pair, Recorder
from tests.support.world import World

__all__ = ["NOON", "SOCKET", "STRANGER", "Room", "Visitor", "box"]

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
        self.operator = Operator(
            self.reactor,
            self.switchboard,
            self.leases,
            self.ledger,
            self.issuer,
            self.reporter,
            "gate",
            os.urandom,
            self.wall,
        )
        self.settings = AdminSettings(SOCKET, 0o660, ("anna", "@wheel", "1001"), ("rita",))
        self.caller = Caller(0, "root")
        self.factory = AdminFactory(
            self.reactor, self.operator, self.settings, lambda transport: self.caller, self.wall
        )
        self.reactor.serve(SOCKET, 0, self.factory)

    def wall(self) -> float:
        """Seconds since 1970."""
        return NOON + self.clock.seconds()

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
        self.caller = Caller(uid, name, frozenset(groups))
        protocol = AdminClient(self.reactor)
        self.reactor.meet(protocol, self.reactor.at(SOCKET, 0))
        return protocol

    def ask(self, command: type[AdminCommand], *, by: AdminClient | None = None, **arguments: Any) -> Any:
        """One command and its answer; what it fails with is raised."""
        speaker = by or self.caller_as("root", 0)
        try:
            return self.result(Deferred.fromCoroutine(speaker.call(command, **arguments)))
        finally:
            if by is None:
                speaker.close()
                self.pump()

    def rows(self, command: type[AdminCommand], **arguments: Any) -> list[Any]:
        """A whole listing."""
        speaker = self.caller_as("root", 0)
        found: list[Any] = self.result(Deferred.fromCoroutine(speaker.rows(command, **arguments)))
        speaker.close()
        self.pump()
        return found

    def result(self, asked: "Deferred[Any]") -> Any:
        """What a Deferred came to, once everything has moved."""
        kept: list[Any] = []
        asked.addBoth(kept.append)
        self.pump()
        assert kept, "no answer came"
        if isinstance(kept[0], Failure):
            kept[0].raiseException()
        return kept[0]

    def ctl(self, *words: str, meanwhile: Callable[[], None] = lambda: None) -> int:
        """The exit status of revtunnelctl; ``meanwhile`` happens while it runs."""
        options = parser().parse_args(list(words))
        running = Deferred.fromCoroutine(attempt(talk(self.reactor, SOCKET, options)))
        self.pump()
        meanwhile()
        status: int = self.result(running)
        return status


def box(command: str, tag: str = "1", **values: str) -> bytes:
    """A command as its bytes."""
    pairs = {"_command": command, "_ask": tag, **values}
    return amp.AmpBox({name.encode(): value.encode() for name, value in pairs.items()}).serialize()
