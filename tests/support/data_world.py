"""Server, agent, services and clients over loopback, in one process, with data sockets.

Everything is the real thing, on a reactor that the test turns; clients and services are plain sockets. ::

    with DataWorld() as world:
        client, service = world.talk()
        world.carry(client, service, b"hello")
        world.check_rest()
"""

import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

from twisted.internet.defer import Deferred

from revtunnel.carriers.agent_data import AgentData, AgentSocket
from revtunnel.carriers.data_pool import DataPool
from revtunnel.carriers.sockets_first import SocketsFirst
from revtunnel.daemons.agent_route import AgentRoute
from revtunnel.daemons.agent_settings import ConsentSettings
from revtunnel.daemons.site_consent import SiteConsent
from revtunnel.daemons.switchboard import Switchboard
from revtunnel.fleet.client_ports import ClientPorts
from revtunnel.fleet.leases import Leases
from revtunnel.fleet.pools import Pool
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, Fact
from revtunnel.ground.limits import AgentLimits, DataLimits, LinkLimits, ServerLimits
from revtunnel.ground.server_places import LINK_PATH, ServerPlace
from revtunnel.ground.targets import parse_offer
from revtunnel.link.agent_link import AgentLink
from revtunnel.link.handshake import AgentHandshake, AgentHello, ListenerRules, ServerHello
from revtunnel.link.server_connector import ServerConnector, ServerWay
from revtunnel.link.server_link import AgentListener, ServerLink
from revtunnel.link.uplink import Uplink
from revtunnel.process.web.web_listener import WebListener
from revtunnel.process.web.web_rules import WebRules
from revtunnel.sockets.data_plane import DataPlane
from revtunnel.sockets.ends import End
from revtunnel.sockets.listening import Came, Listeners
from revtunnel.sockets.opening import Reach, connect
from revtunnel.streams.commands import Feature
from revtunnel.streams.dialler import Dialler, Header
from revtunnel.streams.window import CreditPool
from tests.support.epoll import Loop, own_reactor
from tests.support.ports import port_block

__all__ = ["HOST", "SERIAL", "DataWorld"]

HOST = "127.0.0.1"
SERIAL = "plc-1"


class DataWorld:
    """``rule`` is the listener's ``data``; ``sockets`` says whether the agent has data sockets.

    Set ``web`` before: the agent comes by WebSocket, to a web listener. Or ``native``: it has a data plane.
    """

    web = False
    native = False

    def __init__(
        self,
        rule: str = "auto",
        *,
        sockets: bool = True,
        data: DataLimits | None = None,
        server: ServerLimits | None = None,
        agent: AgentLimits | None = None,
        link: LinkLimits | None = None,
        descriptors: int = 10_000,
        header: Header | None = None,
        site: ConsentSettings | None = None,
        early: bool = True,
        also: Feature = Feature.AFTER,
        reach: Reach = connect,
        path: Callable[[Any, int], int] = lambda reactor, port: port,
        serial: str = SERIAL,
        loop: Loop | None = None,
    ) -> None:
        """``loop``: of another world, which is ended after this one."""
        self._stack = contextlib.ExitStack()
        self.early = early
        self.also = also
        self.serial = serial
        self._shares = loop is not None
        self.loop = loop or self._stack.enter_context(own_reactor())
        if not self._shares:
            threads = self.loop.reactor.getThreadPool()  # that look up names
            threads.start()
            self._stack.callback(threads.stop)
        self.facts: list[Fact] = []
        self.agent_facts: list[Fact] = []
        self.reactor = self.loop.reactor
        self.listeners = Listeners(self.reactor, self.facts.append)
        self.brings = True  # whether the agent's dials for data sockets are made at all
        self.link_limits = link or LinkLimits()
        self._agent_limits = agent or AgentLimits()
        self.listening = self._stack.enter_context(socket.create_server((HOST, 0), backlog=1000))
        self.listening.setblocking(False)
        self.offers = (parse_offer(f"echo={HOST}:{self.listening.getsockname()[1]}"),)
        low, high = map(int, port_block().split("-"))
        pool = Pool("default", ((low, high),), quarantine=60.0, sticky=3600.0)
        self.ports = ClientPorts(self.listeners.listen, Leases((pool,), 0.0), {}, 1000, self._report)
        self.switchboard = Switchboard(
            self.reactor,
            self.reactor,
            server or ServerLimits(),
            self.ports,
            lambda serial: None,
            os.urandom,
            self._report,
            descriptors,
        )
        self.switchboard.data.limits = data or DataLimits()
        self._listen(rule)
        self.place = self.place._replace(port=path(self.reactor, self.port))
        self._headers = {self.offers[0].target: header} if header is not None else {}
        self.dialler = Dialler(self.reactor, self._agent_limits, self.offers, self._headers, reach)
        self.data = AgentData(
            self.reactor, self._agent_limits, self.dialler, self._connect, self.agent_facts.append
        )
        if self.native and DataPlane.of(self.reactor) is None:
            plane = DataPlane(self.reactor)
            self._stack.callback(plane.close)
            self.data.use_plane(plane, self._direct)
        self.consent: SiteConsent | None = None
        if site is not None:
            targets = {offer.name: offer.target for offer in self.offers}
            self.consent = SiteConsent(self.loop.reactor, site, targets, self.agent_facts.append)
            self.consent.cut, self.dialler.consents = self.data.end_session, self.consent.may_dial
        self.sockets = sockets
        self.uplink = self.make_uplink()
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.uplink.abort()
        self.data.abort()
        self.switchboard.stop()
        self.agents.stop()
        for use in [] if self._shares else self.loop.reactor.getDelayedCalls():
            use.cancel()
        for _ in range(5):
            self.loop.reactor.iterate(0.001)
        self._stack.close()

    # -- building

    def _listen(self, rule: str) -> None:
        rules = ListenerRules("main")
        hello = ServerHello(
            "server",
            "a test",
            keepalive=25.0,
            features=Feature(7) | Feature.EARLY | Feature.PLACES | Feature.AFTER,
        )
        listener = AgentListener(rules, self.link_limits, hello, data=rule)
        self.switchboard.listeners["main"] = listener
        self.switchboard.listeners["other"] = replace(listener, rules=ListenerRules("other"))
        came = self._web() if self.web else self.switchboard.agents("main")
        self.agents = self.listeners.listen(HOST, 0, 1000, came, they_begin=self.native)
        self.port = self.agents.port
        by_ticket = self.switchboard.admission.needs_ticket_only
        ports = {} if self.web else {"main": [self.agents]}
        self.switchboard.data.gates.listening = lambda name: ports[name] if by_ticket(name) else []
        self.place = ServerPlace(HOST, self.port, LINK_PATH if self.web else "")
        self.connector = ServerConnector(self.reactor, ServerWay())

    def _web(self) -> Came:
        """A web listener that is ``main`` for agents."""
        board = self.switchboard
        web = WebListener(self.reactor, lambda: board.limits, board.access, self._report)
        web.expected = board.data.expected
        web.rules["main"] = WebRules("main")
        board.listeners["web main"] = board.listeners["main"]
        web.routes.append(AgentRoute(self.reactor, board, web.wire))
        self._stack.callback(web.stop)
        return partial(web.came, "main")

    def _connect(self, link: Any) -> "Deferred[End]":
        if not self.brings:
            return Deferred(lambda _: None)
        return self.connector.again(link, 10.0)

    def _direct(self, link: Any) -> tuple[str, int] | None:
        return self.connector.direct(link) if self.brings else None

    def make_uplink(self) -> Uplink:
        """The agent's way to the server."""

        def make(ready: Any, left: Any) -> AgentLink:
            features = self.also | (Feature.DATA_SOCKETS if self.sockets else Feature(0))
            features |= Feature.EARLY | Feature.PLACES if self.early else Feature.PLACES
            features |= Feature.ORIGIN if self._headers else Feature(0)
            features |= Feature.SESSIONS if self.consent is not None else Feature(0)
            hello = AgentHello(self.serial, os.urandom(32), self.offers, "a test", features=features)
            shake = AgentHandshake(hello, None, False)
            pool, facts = CreditPool(1 << 28), self.agent_facts.append
            limits, data = self.link_limits, self.data if self.sockets else None
            return AgentLink(
                *(self.reactor, limits, self.serial, shake, self.dialler, pool, facts, ready, left, data),
                self.consent,
            )

        return Uplink(
            *(self.reactor, [self.place], self._agent_limits, lambda: 0.0, make),
            *(self.agent_facts.append, self.connector.connect),
        )

    def start(self) -> None:
        """The link is up, and its port is open."""
        self.uplink.start()
        self.until(lambda: self.ports.of(self.serial))

    def _report(self, fact: Fact) -> None:
        fact.row()
        self.facts.append(fact)

    # -- acting

    def until(self, condition: Any, what: str = "what must come") -> None:
        """Turn the reactor until it is so."""
        self.loop.until(condition, what)

    def turn(self, count: int = 10) -> None:
        """A few turns."""
        for _ in range(count):
            self.loop.reactor.iterate(0.001)

    def advance(self, seconds: float) -> None:
        """What is under way comes, then so much time passes, then what is due."""
        self.turn()
        self.loop.advance(seconds)
        self.turn()

    def client(self) -> socket.socket:
        """A client; nobody has taken it in yet."""
        (port,) = (each.lease.port for each in self.ports.of(self.serial))
        client = self._stack.enter_context(socket.create_connection((HOST, port)))
        client.setblocking(False)
        return client

    def service(self) -> socket.socket:
        """The next connection that the agent made to the service."""
        found: list[socket.socket] = []

        def accepted() -> bool:
            with contextlib.suppress(BlockingIOError):
                found.append(self.listening.accept()[0])
            return bool(found)

        self.until(accepted, "a connection to the service")
        found[0].setblocking(False)
        return self._stack.enter_context(found[0])

    def talk(self) -> tuple[socket.socket, socket.socket]:
        """A client and its service, with the channel between them open."""
        opened = len(self.of(ChannelOpened))
        client = self.client()
        service = self.service()
        self.until(lambda: len(self.of(ChannelOpened)) > opened, "a channel")
        return client, service

    def hear(self, end: socket.socket, size: int) -> bytes:
        """So many bytes."""
        heard = bytearray()

        def enough() -> bool:
            with contextlib.suppress(BlockingIOError):
                while len(heard) < size and (more := end.recv(size - len(heard))):
                    heard.extend(more)
            return len(heard) == size

        self.until(enough, f"{size} bytes")
        return bytes(heard)

    def carry(self, sender: socket.socket, receiver: socket.socket, data: bytes) -> None:
        """All of it arrives, whatever its size."""
        rest, heard = memoryview(data), bytearray()

        def moved() -> bool:
            nonlocal rest
            with contextlib.suppress(BlockingIOError):
                while rest:
                    rest = rest[sender.send(rest) :]
            with contextlib.suppress(BlockingIOError):
                while len(heard) < len(data):
                    more = receiver.recv(1 << 20)
                    assert more, f"ended after {len(heard)} bytes"
                    heard.extend(more)
            return len(heard) >= len(data)

        self.until(moved, f"{len(data)} bytes")
        assert heard == data

    def ending(self, end: socket.socket) -> str:
        """How a connection ends: "end of file" or "reset"."""
        found: list[str] = []

        def ended() -> bool:
            try:
                if not end.recv(1 << 16):
                    found.append("end of file")
            except BlockingIOError:
                return False
            except OSError:
                found.append("reset")
            return bool(found)

        self.until(ended, "an ending")
        return found[0]

    # -- looking

    @property
    def link(self) -> ServerLink:
        """The server's end of the link."""
        device = self.switchboard.fleet.get(self.serial)
        assert device is not None and device.link is not None
        return device.link

    @property
    def pool(self) -> DataPool:
        """The server's data sockets of the link."""
        assert isinstance(self.link.carrier, SocketsFirst)
        return self.link.carrier.pool

    def warm(self, count: int) -> list[AgentSocket]:
        """So many sockets wait, at both ends: the agent's."""
        self.until(
            lambda: self.pool.core.warm == count and not self.pool.core.coming, f"{count} spare sockets"
        )
        return [each for each in self.data.sockets if not each.used]

    def of(self, kind: Any) -> list[Any]:
        """The server's facts of one kind."""
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def ended(self, count: int = 1) -> list[ChannelEnded]:
        """So many channels have ended, at both ends alike: the server's facts."""
        theirs = lambda: [fact for fact in self.agent_facts if isinstance(fact, ChannelEnded)]  # noqa: E731
        self.until(lambda: len(self.of(ChannelEnded)) >= count and len(theirs()) >= count, "ends of channels")
        return self.of(ChannelEnded)

    def check_rest(self) -> None:
        """No client, stream or channel is left, and what is counted is what there is."""
        self.until(lambda: not self.switchboard.clients and not self.data.running, "rest")
        board = self.switchboard
        assert board.streams.page() == []
        self.until(lambda: not board.admission.strangers and not self.pool.core.coming)
        assert board.data.sockets == self.pool.core.warm == len(self.pool.spare)
        self.until(lambda: self.data.count == self.pool.core.warm)
        assert len(board.data._tickets) == 0
        assert not board.data._expected
