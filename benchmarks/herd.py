"""Devices by the thousand in one process: the server's real objects, over connections that lead nowhere.

Real are Switchboard, Fleet, leases and ports, gate, ledger (in memory), and each device's ServerLink with its
mux and timers; for CCCP the whole CccpSite. Not there: sockets, and with them descriptors and the kernel.
`benchmarks.fleet` measures with it, tests/daemons/test_costs.py counts with it.
"""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.daemons.switchboard import Switchboard
from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.client_ports import ClientPorts
from revtunnel.fleet.leases import Leases
from revtunnel.fleet.pools import Pool
from revtunnel.ground.facts import Fact
from revtunnel.ground.limits import CccpLimits, LinkLimits, ServerLimits
from revtunnel.ground.targets import Offer, parse_offer
from revtunnel.link.handshake import LISTEN, ListenerRules, ServerHello
from revtunnel.link.hellos import AgentHello, encode_agent_hello
from revtunnel.link.server_link import AgentListener
from revtunnel.sockets.ends import End
from revtunnel.state.ledger import SqliteLedger
from revtunnel.systems.cccp.cccp_settings import CccpPart
from revtunnel.systems.cccp.cccp_system import CccpSystem
from revtunnel.systems.cccp.registered_devices import Arrival, Project

__all__ = ["WEB", "Herd", "Nowhere"]

POOL = Pool("default", ((2000, 61999),), quarantine=60.0)
PROJECTS = Pool("cccp-main", ((62000, 65000),), quarantine=0.0)
WEB = parse_offer("web=127.0.0.1:80")
NONCE = bytes(32)
LIMITS = ServerLimits(clients=1_000_000, pending=1_000_000, pending_per_source=1_000_000)


class Nowhere(End):
    """A connection whose other side takes everything and says nothing; ``protocol`` has it."""

    __slots__ = ("protocol",)
    gathers = True

    def __init__(self, number: int) -> None:
        self.sock = SimpleNamespace(fileno=lambda: -1, family=socket.AF_UNIX)  # type: ignore[assignment]
        self.peer = f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}:40000"
        self.reads_when_writable = self.writes_when_readable = False
        self._origin = None
        self.is_watched = False
        self.protocol: Any = None

    def read_into(self, view: memoryview) -> int | None:
        return None

    def write(self, data: bytes | memoryview) -> int:
        return len(data)

    def write_pieces(self, pieces: list[bytes | memoryview]) -> int:
        return sum(map(len, pieces))

    def end_writing(self) -> bool:
        return True

    def is_parting(self) -> None:
        """Nothing is open."""

    close = abort = is_parting

    def lose(self) -> None:
        """Its other side has gone."""
        self.protocol.transport.connectionLost(Failure(ConnectionResetError("gone")))


@implementer(IReactorTime)
class _Reactor:
    """Timers of a real reactor that nobody else has; ports that are only noted."""

    def __init__(self) -> None:
        self._reactor = EPollReactor()
        self.seconds, self.callLater = self._reactor.seconds, self._reactor.callLater
        self.addReader = self.removeReader = self.addWriter = self.removeWriter = lambda reader: None

    def turn(self) -> None:
        """What is due, once."""
        self._reactor.runUntilCurrent()

    def listen(self, *_: Any, **__: Any) -> _Reactor:
        return self

    def stop(self) -> None:
        """Nothing was opened."""


class Herd:
    """A server and its devices. ``wall`` is its clock of records; ``facts`` is how many were told."""

    def __init__(self) -> None:
        self.reactor = _Reactor()
        self.facts = 0
        self.wall = 0.0
        clock: Any = self.reactor
        self.leases = Leases([POOL, PROJECTS], clock.seconds(), None, SqliteLedger(None, lambda: 0.0))
        self.ports = ClientPorts(clock.listen, self.leases, {}, 50, self._told)
        access = AccessControl(lambda: self.wall)
        self.board = board = Switchboard(
            clock, clock, LIMITS, self.ports, lambda serial: None, os.urandom, self._told, 1_000_000, access
        )
        rules = ListenerRules("main")
        hello = ServerHello("herd", "herd", 65536)
        patient = LinkLimits(answer=1e9, busy_answer=1e9)  # nobody there answers a PING
        board.listeners["main"] = AgentListener(rules, patient, hello)
        self._came = board.agents("main")
        part = CccpPart(
            http=(),
            token=None,
            limits=CccpLimits(parked=1_000_000, parked_per_source=1_000_000, parked_time=1e6),
        )
        ledger, links = SqliteLedger(None, lambda: 0.0), board.client_streams.clients_by_name
        self.system = CccpSystem(
            clock, clock, part, self.leases, ledger, self._told, access, None, board.fleet, links
        )
        self.project = Project("main", PROJECTS.name)
        self.count = 0

    def _told(self, fact: Fact) -> None:
        self.facts += 1

    # -- devices

    def agent(self, serial: str, *offers: Offer) -> Nowhere:
        """A device of rt1 is here."""
        self.count += 1
        connection = Nowhere(self.count)
        self._came(connection)
        (link,) = self.board.admission.strangers
        connection.protocol = link
        for said in (LISTEN, encode_agent_hello(AgentHello(serial, NONCE, offers, "herd"))):
            link.dataReceived(said)
        return connection

    def registered(self, serial: str) -> None:
        """A device of CCCP is here."""
        self.system.proxies.parking.arrived(Arrival(serial, self.project, Nowhere(1), b"", False, ""))

    def client(self, serial: str) -> Nowhere:
        """A client of a device of rt1."""
        self.count += 1
        connection = Nowhere(self.count)
        connection.protocol = self.ports.of(serial)[0].clients.came(connection)
        return connection
