"""Devices by the thousand in one process: the server's real objects, over connections that lead nowhere.

Real are Switchboard, Fleet, leases and ports, gate, ledger (in memory), and each device's ServerLink with its
mux and timers; for CCCP the whole CccpSite. Not there: sockets, and with them descriptors and the kernel.
`benchmarks.fleet` measures with it, tests/daemons/test_costs.py counts with it.
"""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.daemons.switchboard import Switchboard
from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.client_ports import ClientPorts
from revtunnel.fleet.leases import Leases
from revtunnel.fleet.pools import Pool
from revtunnel.ground.facts import Fact
from revtunnel.ground.policy import CccpLimits, LinkLimits, ServerLimits
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


class Nowhere:
    """A connection, as a transport, whose other side takes everything and says nothing."""

    def __init__(self, number: int, protocol: Any) -> None:
        self.protocol = protocol
        self._peer = IPv4Address("TCP", f"127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}", 40000)
        self._over = False

    def getPeer(self) -> IPv4Address:
        return self._peer

    getHost = getPeer

    def write(self, data: bytes) -> None:
        """Taken."""

    def lose(self) -> None:
        """Its other side, or we, have ended it."""
        if not self._over:
            self._over = True
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def _nothing(self, *_: Any) -> None:
        pass

    registerProducer = unregisterProducer = pauseProducing = resumeProducing = _nothing
    setTcpNoDelay = setTcpKeepAlive = loseWriteConnection = _nothing
    loseConnection = abortConnection = lose


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

    def listenTCP(self, *_: Any) -> _Reactor:
        return self

    def stopListening(self) -> None:
        """Nothing was opened."""


class _NoEnd(End):
    """The end of a registered device that says no more."""

    __slots__ = ()

    def __init__(self) -> None:
        self.sock = SimpleNamespace(fileno=lambda: -1)  # type: ignore[assignment]
        self.peer = "127.0.0.1:40000"

    def fileno(self) -> int:
        return -1

    def abort(self) -> None:
        """Nothing is open."""


class Herd:
    """A server and its devices. ``wall`` is its clock of records; ``facts`` is how many were told."""

    def __init__(self) -> None:
        self.reactor = _Reactor()
        self.facts = 0
        self.wall = 0.0
        clock: Any = self.reactor
        self.leases = Leases([POOL, PROJECTS], clock.seconds(), None, SqliteLedger(None, lambda: 0.0))
        self.ports = ClientPorts(clock, self.leases, {}, 50, self._told)
        access = AccessControl(lambda: self.wall)
        self.board = board = Switchboard(
            clock, clock, LIMITS, self.ports, lambda serial: None, os.urandom, self._told, 1_000_000, access
        )
        rules = ListenerRules("main")
        hello = ServerHello("herd", "herd", 65536)
        patient = LinkLimits(answer=1e9, busy_answer=1e9)  # nobody there answers a PING
        board.listeners["main"] = AgentListener(rules, patient, hello)
        self._factory = board.link_factory("main")
        part = CccpPart(http=(), token=None, limits=CccpLimits(parked=1_000_000, parked_time=1e6))
        ledger, links = SqliteLedger(None, lambda: 0.0), board.client_streams.factory_by_name
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
        link = self._factory.buildProtocol(IPv4Address("TCP", f"127.0.{self.count % 250}.1", 40000))
        connection = Nowhere(self.count, link)
        link.makeConnection(connection)  # type: ignore[union-attr, arg-type]
        for said in (LISTEN, encode_agent_hello(AgentHello(serial, NONCE, offers, "herd"))):
            link.dataReceived(said)  # type: ignore[union-attr]
        return connection

    def registered(self, serial: str) -> None:
        """A device of CCCP is here."""
        self.system.proxies.parking.arrived(Arrival(serial, self.project, _NoEnd(), b"", False, ""))

    def client(self, serial: str) -> Nowhere:
        """A client of a device of rt1."""
        self.count += 1
        client = self.ports.of(serial)[0].door.buildProtocol(None)
        connection = Nowhere(self.count, client)
        client.makeConnection(connection)  # type: ignore[arg-type]
        return connection
