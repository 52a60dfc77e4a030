"""The two CAMEO relays: the responder relay on one port, the publisher relay between two.

Both only listen. What goes where is decided in systems/cameo/cameo_responders.py and
systems/cameo/cameo_publications.py; here the decisions meet the connections.

Source: wire/cameo.md sections 1, 2 and 5; house.md (relays.py).
"""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import Fact, Report
from revtunnel.ground.limits import CameoLimits
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import End
from revtunnel.streams.window import CreditPool
from revtunnel.systems.cameo.cameo_admission import CameoAdmission, CameoRules
from revtunnel.systems.cameo.cameo_facts import MessagesDropped, PeerJoined, shown
from revtunnel.systems.cameo.cameo_peers import CameoPeer
from revtunnel.systems.cameo.cameo_publications import Publications
from revtunnel.systems.cameo.cameo_responders import Responders
from revtunnel.systems.cameo.zmtp import SUBSCRIPTIONS, encode_ready
from revtunnel.systems.cameo.zmtp_messages import ZmtpMessage
from revtunnel.systems.cameo.zmtp_peer import NameNotAllowed, ZmtpListener, ZmtpPeer

__all__ = ["CameoRelay", "PublisherRelay", "RelayPort", "ResponderRelay"]


class RelayPort:
    """The connections of one listener; a new ``rules`` holds for those that come."""

    def __init__(self, relay: "CameoRelay", rules: CameoRules, ear: ZmtpListener) -> None:
        self.rules = rules
        self._relay = relay
        self._ear = ear

    def came(self, end: End) -> None:
        """A peer connected."""
        peer = ZmtpPeer(self._relay, self.rules, self._ear, end)
        EndTransport(self._relay.clock, end, peer).start()


class CameoRelay:
    """What both have: connections, limits, one flush for each turn.

    Args:
        pool: bytes that may wait for the peers of all relays of this process.
    """

    name = ""

    def __init__(
        self,
        clock: IReactorTime,
        limits: CameoLimits,
        admission: CameoAdmission,
        pool: CreditPool,
        report: Report,
    ) -> None:
        self.clock = clock
        self.limits = limits
        self.admission = admission
        self.pool = pool
        self.report = self._noted(report)
        self.connections: dict[ZmtpPeer, None] = {}
        self.facts: Counter[str] = Counter()  # by word
        self.messages = 0  # that peers which are gone had sent
        self._touched: dict[CameoPeer, None] = {}
        self._drained: Deferred[None] | None = None

    @property
    def peers(self) -> list[CameoPeer]:
        """Those that finished their handshake, or wait to be let in."""
        return [owner.peer for owner in self.connections if owner.joined and owner.peer is not None]

    @property
    def counts(self) -> Counter[str]:
        """Messages that went nowhere, by reason."""
        raise NotImplementedError

    def set_limits(self, limits: CameoLimits) -> None:
        """New limits; messages of connections that are there keep the old ones."""
        self.limits = self.admission.limits = limits
        self.pool.limit = limits.pool

    def drain(self) -> "Deferred[None]":
        """Part with everybody in order; fires when all are gone."""
        for owner in list(self.connections):
            owner.part("stopping")
        if not self.connections:
            return succeed(None)
        self._drained = Deferred()
        return self._drained

    def abort(self) -> None:
        """Cut everybody now."""
        for owner in list(self.connections):
            owner.cut("stopping")

    def close(self, address: str) -> bool:
        """Cut the peer at ``address``, host:port; False: there is none."""
        found = [
            owner
            for owner in self.connections
            if owner.joined and owner.peer and owner.peer.address == address
        ]
        for owner in found:
            owner.cut("operator")
        self.flush()
        return bool(found)

    # -- from the connections (Switch)

    def slow(self, peer: CameoPeer) -> None:
        """The first message for a peer was dropped."""
        box = peer.outbox
        name = shown(peer.identity)
        self.report(MessagesDropped(self.name, peer.address, name, box.waiting, box.waiting_bytes))

    def left(self, peer: CameoPeer) -> None:
        """A peer is gone."""
        self.messages += peer.messages_received

    def touch(self, peer: CameoPeer) -> None:
        """Something was put into a peer's outbox."""
        self._touched[peer] = None

    def flush(self) -> None:
        """Write what was put into outboxes, one write each."""
        while self._touched:
            touched, self._touched = self._touched, {}
            for peer in touched:
                peer.owner.flush()
        if self._drained is not None and not self.connections:
            drained, self._drained = self._drained, None
            drained.callback(None)

    # -- inside

    def _touch_all(self, peers: Iterable[CameoPeer]) -> None:
        for peer in peers:
            self._touched[peer] = None

    def _say_joined(self, peer: CameoPeer, waits: bool = False) -> None:
        name = shown(peer.identity)
        self.report(PeerJoined(self.name, peer.address, peer.socket_type, name, waits))

    def _noted(self, report: Report) -> Callable[[Fact], None]:
        def note(fact: Fact) -> None:
            self.facts[fact.word] += 1
            report(fact)

        return note


class ResponderRelay(CameoRelay):
    """Requests and answers between clients and everything that has a name; also the Ear of its port."""

    name = "responder"
    ready = encode_ready(b"ROUTER", b"R")
    types = frozenset(("REQ", "DEALER", "ROUTER"))
    heads = keep = 3
    runs = False

    def __init__(self, *arguments: Any, random_bytes: Callable[[int], bytes]) -> None:
        super().__init__(*arguments)
        self.responders = Responders(random_bytes, self.report)

    def port(self, rules: CameoRules) -> RelayPort:
        """The connections of a listener."""
        return RelayPort(self, rules, self)

    @property
    def counts(self) -> Counter[str]:
        return self.responders.counts

    def most_bytes(self) -> int:
        """Bytes of one message."""
        return self.limits.message

    def joined(self, owner: ZmtpPeer, socket_type: str, identity: bytes) -> None:
        """A peer said READY: let it in, or have it wait for the CAMEO server."""
        assert owner.peer is not None
        try:
            entering = self.responders.join(owner.peer, socket_type, identity, self.clock.seconds())
        except RemoteError as error:
            raise NameNotAllowed(str(error)) from None
        self._say_joined(owner.peer, waits=not entering)
        for peer in entering:
            peer.owner.let_in()

    def message(self, peer: CameoPeer, message: ZmtpMessage) -> None:
        """Pass a message on."""
        destination = self.responders.receive(peer, message)
        if destination is not None:
            self._touched[destination] = None

    def command(self, peer: CameoPeer, name: bytes, data: bytes) -> None:
        """Nothing is known here beyond PING."""

    def left(self, peer: CameoPeer) -> None:
        super().left(peer)
        for other in self.responders.leave(peer, self.clock.seconds()):
            other.owner.part("no-server")


class PublisherRelay(CameoRelay):
    """Publications from the third port to the second, subscriptions the other way."""

    name = "publisher"

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.publications = Publications(self.limits)

    def publishers(self, rules: CameoRules) -> RelayPort:
        """The connections of a listener for publishers."""
        return RelayPort(self, rules, _Publishers(self))

    def subscribers(self, rules: CameoRules) -> RelayPort:
        """The connections of a listener for subscribers."""
        return RelayPort(self, rules, _Subscribers(self))

    def set_limits(self, limits: CameoLimits) -> None:
        super().set_limits(limits)
        topics = self.publications.topics
        topics.most, topics.longest = limits.topics, limits.topic
        self.publications.most_of_source = limits.topics_per_source

    @property
    def counts(self) -> Counter[str]:
        return self.publications.counts

    def left(self, peer: CameoPeer) -> None:
        super().left(peer)
        self._touch_all(self.publications.leave(peer))

    def flush(self) -> None:
        super().flush()
        while self.publications.astray:
            self.publications.astray.pop().owner.cut("protocol", "does not read its subscriptions")


class _Publishers:
    """The Ear of the third port."""

    ready = encode_ready(b"XSUB")
    types = frozenset(("PUB", "XPUB"))
    heads, keep, runs = 1, 0, True

    def __init__(self, relay: PublisherRelay) -> None:
        self._relay = relay
        self._receive = relay.publications.receive
        self._touched: tuple[CameoPeer, ...] = ()

    def most_bytes(self) -> int:
        return self._relay.limits.message

    def joined(self, owner: ZmtpPeer, socket_type: str, identity: bytes) -> None:
        peer = owner.peer
        assert peer is not None
        peer.socket_type = socket_type
        self._relay._say_joined(peer)
        owner.let_in()
        self._relay.publications.join_publisher(peer)
        self._relay.touch(peer)

    def message(self, peer: CameoPeer, message: ZmtpMessage) -> None:
        self._relay._touch_all(self._receive(message))

    def command(self, peer: CameoPeer, name: bytes, data: bytes) -> None:
        """A publisher has nothing else to say."""


class _Subscribers:
    """The Ear of the second port."""

    ready = encode_ready(b"XPUB")
    types = frozenset(("SUB", "XSUB"))
    heads, keep, runs = 1, 0, False

    def __init__(self, relay: PublisherRelay) -> None:
        self._relay = relay

    def most_bytes(self) -> int:
        return self._relay.limits.topic + 10  # verb and the longer header

    def joined(self, owner: ZmtpPeer, socket_type: str, identity: bytes) -> None:
        assert owner.peer is not None
        owner.peer.socket_type = socket_type
        self._relay._say_joined(owner.peer)
        owner.let_in()

    def message(self, peer: CameoPeer, message: ZmtpMessage) -> None:
        self._relay._touch_all(self._relay.publications.request(peer, message))

    def command(self, peer: CameoPeer, name: bytes, data: bytes) -> None:
        if name in SUBSCRIPTIONS:
            change = self._relay.publications.subscribe(peer, data, name == b"SUBSCRIBE")
            self._relay._touch_all(change)
