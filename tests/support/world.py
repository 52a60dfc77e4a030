"""A whole world in memory: a server, agents, services beside them and clients that only know a port.

Everything is the real thing (Switchboard, ClientPorts, Leases, ServerLink, Uplink, AgentLink, Dialler), over
``tests.support.reactor.MemoryReactor``. ``wire`` is "rt1" or "legacy"; with the latter the listener does not
probe and the agent speaks as to a ReadyAgent server.

::

    world = World("rt1", cuts=1)
    client = world.client()                 # of device plc-1, target console
    client.say(b"hello")
    world.pump()
    (service,) = world.services["console"]
    assert service.data == b"hello"
    world.finish()                          # nothing may be left
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any, TypeVar

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory
from zope.interface import implementer

from revtunnel.daemons.agent_settings import ConsentSettings
from revtunnel.daemons.site_consent import SiteConsent
from revtunnel.daemons.switchboard import Switchboard
from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.client_ports import ClientPorts
from revtunnel.fleet.leases import Leases
from revtunnel.fleet.pools import Pool
from revtunnel.ground.facts import ChannelEnded, Fact
from revtunnel.ground.limits import AgentLimits, LinkLimits, ServerLimits
from revtunnel.ground.server_places import ServerPlace
from revtunnel.ground.targets import Offer, parse_offer
from revtunnel.link.agent_link import AgentLink
from revtunnel.link.following import place_to_go
from revtunnel.link.handshake import AgentHandshake, AgentHello, ListenerRules, ServerHello
from revtunnel.link.keys import Verifier, verifier_of
from revtunnel.link.server_connector import ServerConnector, ServerWay
from revtunnel.link.server_link import AgentListener, ServerLink
from revtunnel.link.uplink import Uplink
from revtunnel.streams.commands import Feature
from revtunnel.streams.dialler import Dialler
from revtunnel.streams.window import CreditPool
from tests.support.depth import deep
from tests.support.memory import CAPACITY, Pair, Recorder, random_cuts
from tests.support.reactor import MemoryReactor

__all__ = ["CONSOLE", "KIB", "MIB", "POOL", "REPLY", "WEB", "WIRES", "Agent", "Party", "World", "pattern"]

WIRES = ("rt1", "legacy")
KIB = 1024
MIB = 1024 * KIB
CONSOLE = parse_offer("console=10.0.0.5:23")
WEB = parse_offer("web=10.0.0.5:80")
SERVER = "192.0.2.1"  # where agents find the server
LINK_PORT = 2065
REPLY = deep(2500)  # bytes that a service which replies says
POOL = Pool("default", ((20000, 20099),), quarantine=60.0, sticky=3600.0)
TheFact = TypeVar("TheFact", bound=Fact)


def pattern(key: str, size: int) -> bytes:
    """``size`` bytes that no other key gives: one that went astray is noticed."""
    return hashlib.shake_128(key.encode()).digest(size)


@implementer(IHalfCloseableProtocol, IPushProducer)
class Party(Recorder):
    """A client or a service: it keeps what it gets and does what the test tells it.

    ``quick`` says what it does by itself: "echo", "reply" (at the end of file), "close" (at the end of file).
    """

    transport: Any

    def __init__(self, key: str = "", quick: str = "") -> None:
        super().__init__()
        self.key = key
        self.quick = quick
        self.sent = bytearray()
        self.full = False
        self.ended = False  # we have sent our end of file
        self.pair: Pair | None = None

    # -- what a test tells it

    def say(self, data: bytes) -> None:
        """Send."""
        self.sent += data
        self.transport.write(data)

    def say_more(self, size: int) -> None:
        """Send the next bytes of its own pattern."""
        self.say(pattern(self.key, len(self.sent) + size)[len(self.sent) :])

    def finish(self) -> None:
        """Send the end of file; what comes is still taken."""
        self.ended = True
        self.transport.unregisterProducer()
        self.transport.loseWriteConnection()

    def close(self) -> None:
        """Close in order, after what was said."""
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def abort(self) -> None:
        """RST."""
        self.transport.abortConnection()

    def stop_reading(self) -> None:
        """Take nothing."""
        self.transport.pauseProducing()

    def read_on(self) -> None:
        """Take what comes."""
        self.transport.resumeProducing()

    # -- what a test looks at

    @property
    def end_came(self) -> bool:
        """Whether the other side's end of file arrived."""
        return "end of file" in self.events

    @property
    def here(self) -> bool:
        """Whether it is connected."""
        return self.lost is None

    @property
    def was_reset(self) -> bool:
        """Whether the connection ended with a reset."""
        return self.lost is not None and self.lost is not ConnectionDone

    # -- Twisted calls these

    def connectionMade(self) -> None:
        super().connectionMade()
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self.quick == "echo":
            self.say(data)

    def readConnectionLost(self) -> None:
        self.events.append("end of file")
        if self.quick == "reply":
            self.say_more(REPLY)
        if self.ended or self.quick:
            self.close()

    def writeConnectionLost(self) -> None:
        self.events.append("write side closed")
        if self.end_came:
            self.close()

    def pauseProducing(self) -> None:
        self.full = True

    def resumeProducing(self) -> None:
        self.full = False

    def stopProducing(self) -> None:
        """connectionLost says it."""


class Services(Factory):
    """The services of one target; ``made`` has one for every connection."""

    noisy = False

    def __init__(self, name: str) -> None:
        self.name = name
        self.quick = ""
        self.made: list[Party] = []

    def buildProtocol(self, addr: Any) -> Party:
        service = Party(f"{self.name} service {len(self.made)}", self.quick)
        self.made.append(service)
        return service


@dataclass
class Agent:
    """One agent; ``facts`` is what it reports."""

    uplink: Uplink
    dialler: Dialler
    pool: CreditPool
    facts: list[Fact] = field(default_factory=list)
    links: list[AgentLink] = field(default_factory=list)
    random: float = 0.5
    consent: SiteConsent | None = None

    @property
    def link(self) -> AgentLink:
        """Its link."""
        assert self.uplink.link is not None
        return self.uplink.link

    def ended(self) -> list[str]:
        """Why its channels ended."""
        return [fact.reason.word for fact in self.facts if isinstance(fact, ChannelEnded)]


class World:
    """Server, agents, services, clients. ``cuts`` is None (whole), a number of bytes, or "random"."""

    def __init__(
        self,
        wire: str = "rt1",
        *,
        cuts: int | str | None = None,
        capacity: int = CAPACITY,
        link: LinkLimits | None = None,
        server: ServerLimits | None = None,
        agent: AgentLimits | None = None,
        serials: tuple[str, ...] = ("plc-1",),
        offers: tuple[Offer, ...] = (CONSOLE, WEB),
        pools: tuple[Pool, ...] = (POOL,),
        refuses: bool = False,
        descriptors: int = 10_000,
        keys: dict[str, Verifier] | None = None,
        key: bytes | None = None,
        heartbeat: bool = True,
        start: bool = True,
        access: AccessControl | None = None,
        site: ConsentSettings | None = None,
        also: Feature = Feature.AFTER,
    ) -> None:
        """``site``: both ends know of remote sessions, and that is what agents' sites say to them.

        ``also``: what agents have besides.

        ``key`` is every agent's, and enrolled.
        """
        self.site, self.also = site, also
        self.key = key
        keys = keys or ({each: verifier_of(key, each) for each in serials} if key is not None else {})
        self.wire = wire
        self.reactor = MemoryReactor()
        self.clock = self.reactor.clock
        self.facts: list[Fact] = []
        self.services: dict[str, list[Party]] = {}
        self.service: dict[str, Services] = {}
        self.clients: list[Party] = []
        self.agents: dict[str, Agent] = {}
        self.link_limits = link or LinkLimits()
        self.agent_limits = agent or AgentLimits()
        self._cuts, self._capacity, self._seeds = cuts, capacity, count()
        self.reactor.join_options = self._options
        self.leases = Leases(pools, 0.0)
        self.ports = ClientPorts(
            self.reactor.listen, self.leases, {pool.name: refuses for pool in pools}, 50, self._report
        )
        self.switchboard = Switchboard(
            self.reactor,
            self.reactor,
            server or ServerLimits(),
            self.ports,
            keys.get,
            self._nonce,
            self._report,
            descriptors,
            access,
        )
        for offer in offers:
            self.add_service(offer)
        for number, serial in enumerate(serials):
            self._listen(number, serial, offers, heartbeat)
            self.add_agent(serial, offers, start, LINK_PORT + number)
        if start:
            self.pump()

    # -- building

    def add_service(self, offer: Offer, quick: str = "") -> Services:
        """A service at a target's address."""
        factory = Services(offer.name)
        factory.quick = quick
        self.services[offer.name], self.service[offer.name] = factory.made, factory
        self.reactor.serve(offer.target.path or offer.target.host, offer.target.port, factory)
        return factory

    def add_agent(
        self, serial: str, offers: tuple[Offer, ...], start: bool = True, port: int = LINK_PORT
    ) -> Agent:
        """An agent; the second of one serial replaces the first in ``agents``."""
        pool = CreditPool(256 * MIB)
        dialler = Dialler(self.reactor, self.agent_limits, offers, reach=self.reactor.reach)
        facts: list[Fact] = []
        consent, features = None, Feature.OFFERS | Feature.CHANGES | Feature.PLACES | self.also
        if self.site is not None:
            targets = {offer.name: offer.target for offer in offers}
            consent = SiteConsent(self.reactor, self.site, targets, facts.append)
            features |= Feature.SESSIONS
            dialler.consents = consent.may_dial

        def make(ready: Any, left: Any) -> AgentLink:
            window = self.link_limits.first_window
            hello = AgentHello(serial, self._nonce(32), offers, "a test", window, features=features)
            shake = AgentHandshake(hello, self.key, self.wire == "legacy")
            told = pool, facts.append, ready, left, None, consent
            link = AgentLink(self.reactor, self.link_limits, serial, shake, dialler, *told)
            agent.links.append(link)
            return link

        uplink = Uplink(
            *(
                self.reactor,
                [ServerPlace(SERVER, port)],
                self.agent_limits,
                lambda: agent.random,
                make,
                facts.append,
            ),
            ServerConnector(self.reactor, ServerWay(), self.reactor.reach).connect,
        )
        uplink.sent_to = partial(place_to_go, rule="configured")
        agent = self.agents[serial] = Agent(uplink, dialler, pool, facts, consent=consent)
        if start:
            uplink.start()
        return agent

    def _listen(self, number: int, serial: str, offers: tuple[Offer, ...], heartbeat: bool) -> None:
        legacy = self.wire == "legacy"
        rules = ListenerRules(
            f"{self.wire}-{number}", legacy=legacy, probe=not legacy, legacy_serial=serial if legacy else ""
        )
        hello = ServerHello(
            "server",
            "a test",
            self.link_limits.first_window,
            keepalive=self.link_limits.keepalive,
            features=Feature.OFFERS
            | Feature.CHANGES
            | Feature.PLACES
            | Feature.AFTER
            | Feature(0 if self.site is None else Feature.SESSIONS),
        )
        mappings = {serial: offers} if legacy else {}
        listener = AgentListener(rules, self.link_limits, hello, heartbeat=heartbeat, mappings=mappings)
        self.switchboard.listeners[rules.name] = listener
        self.reactor.serve(SERVER, LINK_PORT + number, self.switchboard.agents(rules.name))

    def listener(self, number: int = 0, **changes: Any) -> AgentListener:
        """A listener for agents, with changes for later links."""
        name = f"{self.wire}-{number}"
        self.switchboard.listeners[name] = changed = replace(self.switchboard.listeners[name], **changes)
        return changed

    def _options(self, port: int) -> dict[str, Any]:
        options: dict[str, Any] = {"capacity": self._capacity}
        if self._cuts == "random":
            options["cuts"] = random_cuts(next(self._seeds), 700)
            options["cuts_to_near"] = random_cuts(next(self._seeds), 700)
        elif self._cuts is not None:
            options["cuts"] = self._cuts
        return options

    def _nonce(self, size: int) -> bytes:
        return pattern(f"nonce {next(self._seeds)}", size)

    def _report(self, fact: Fact) -> None:
        fact.row()
        self.facts.append(fact)

    # -- acting

    def pump(self) -> None:
        """Until nothing moves."""
        self.reactor.pump()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.reactor.advance(seconds)

    def port(self, serial: str = "plc-1", name: str = "console") -> int:
        """Where clients of a target connect."""
        (found,) = (port.lease.port for port in self.ports.of(serial) if port.lease.target == name)
        return found

    def client(self, serial: str = "plc-1", name: str = "console", port: int | None = None) -> Party:
        """A client, connected; nothing has moved yet."""
        client = Party(f"client {len(self.clients)}")
        client.pair = self.reactor.dial(port or self.port(serial, name), client)
        assert client.pair is not None
        self.clients.append(client)
        return client

    def member(self, session: str, name: str = "console", serial: str = "plc-1") -> Party:
        """A client of a remote session, connected; nothing has moved yet."""
        clients = self.switchboard.client_streams.clients_by_name(serial, name, lambda client: None, session)
        port = 30_000 + len(self.clients)
        self.reactor.serve("127.0.0.1", port, clients.came)
        return self.client(port=port)

    def talk(self, name: str = "console", serial: str = "plc-1") -> tuple[Party, Party]:
        """A client and its service, connected through the link."""
        before = len(self.services[name])
        client = self.client(serial, name)
        self.pump()
        (service,) = self.services[name][before:]
        return client, service

    def server_link(self, serial: str = "plc-1") -> ServerLink:
        """The server's end of a device's link."""
        device = self.switchboard.fleet.get(serial)
        assert device is not None
        assert device.link is not None
        return device.link

    def link_pairs(self) -> list[Pair]:
        """The connections between agents and server that are up."""
        ports = range(LINK_PORT, LINK_PORT + 100)
        return [pair for pair in self.reactor.pairs if pair.open and pair.near.getPeer().port in ports]

    # -- looking

    def of(self, kind: type[TheFact]) -> list[TheFact]:
        """The server's facts of one kind."""
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def ended(self) -> list[str]:
        """Why the server's channels ended, in order."""
        return [fact.reason.word for fact in self.of(ChannelEnded)]

    def muxes(self) -> Iterator[Any]:
        """The muxes of every link that is up, both ends."""
        for link in self.switchboard.links:
            yield link.mux
        for agent in self.agents.values():
            if agent.uplink.link is not None and agent.uplink.link.mux is not None:
                yield agent.uplink.link.mux

    def check_rest(self) -> None:
        """Without clients nothing may be held anywhere, though the links are up."""
        assert self.switchboard.clients == 0
        for mux in self.muxes():
            assert not mux.running
            assert mux.channels == {}
            assert not mux._turns.waiting
        assert self.switchboard.admission.pool.used == 0
        assert all(agent.pool.used == 0 for agent in self.agents.values())
        links = sum(bool(end.connected) for pair in self.link_pairs() for end in (pair.near, pair.far))
        assert self.reactor.sockets == links
        assert self.reactor.dialling == 0

    def end_parties(self) -> None:
        """Every client and service that is still here resets its connection."""
        for party in [*self.clients, *(each for made in self.services.values() for each in made)]:
            if party.here:
                party.abort()

    def finish(self) -> None:
        """End everything: no socket, channel, timer or pool byte may be left."""
        for _ in range(2):  # one that waited may have got a service after that
            self.end_parties()
            self.advance(self.link_limits.echo_wait + 5)
        self.check_rest()
        for agent in self.agents.values():
            agent.uplink.stop(1.0)
        self.pump()
        self.switchboard.stop()
        self.advance(5.0)
        assert self.switchboard.links == set()
        assert self.switchboard.admission.strangers == {}
        assert len(self.switchboard.admission.places) == 0
        assert self.reactor.sockets == 0
        assert self.reactor.getDelayedCalls() == []
