"""The server in the middle: links on one side, clients on the other, one registry and one allocator between.

It answers two questions, each with a word when the answer is no: may this agent come in, may this client have
a channel. Nobody is left hanging: what cannot be served now is refused now.

Source: wire/readyagent.md section 5.7; wire/link-extension.md "Liveness"; faults.md N1, N19, R8 to R10.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTCP, IReactorTime
from twisted.internet.protocol import Protocol

from revtunnel.carriers.data_sockets import DataSockets
from revtunnel.fleet.client_ports import ClientPorts
from revtunnel.fleet.devices import Registry, TwoHolders
from revtunnel.fleet.gate import Gate
from revtunnel.fleet.records import Records
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import (
    ChannelEnded,
    ClientRefused,
    Fact,
    LinkDown,
    LinkRefused,
    LinkUp,
    ListenerRefused,
    PeerGlitch,
    Report,
)
from revtunnel.ground.policy import DataLimits, ServerLimits
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Offer, Target
from revtunnel.link.handshake import Denied, ServerUp
from revtunnel.link.keys import Verifier
from revtunnel.link.server_link import AgentListener, ServerLink, ServerLinkFactory
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import End
from revtunnel.sockets.tls.identity import Identity
from revtunnel.sockets.tls.tls_stages import Secured, TlsDesk, TlsDoor
from revtunnel.streams.clients import ClientFactory, ClientSocket
from revtunnel.streams.running import Running
from revtunnel.streams.window import CreditPool
from revtunnel.systems.emo.emo_modern import ModernLink
from revtunnel.systems.emo.emo_server import EmoServerLink

__all__ = ["Switchboard"]

# ENROLL's payload, serial and fingerprint of the certificate that was shown, address -> CERTIFICATE's payload
Issue = Callable[[bytes, tuple[str, str] | None, str], bytes]


def _issues_nothing(payload: bytes, shown: tuple[str, str] | None, source: str) -> bytes:
    raise Denied(GoAway.DENIED, "certificates are not made here")


# why a link went, if its streams on data sockets go with it: its path is dead, its agent faulty, or we stop
ENDS_STREAMS = frozenset(("silent", "protocol", "stopping"))

NOWHERE = Target("invalid", 0)  # what a device that is away offers; its clients are refused


class Switchboard:
    """Everything that is running in one server. ``descriptors`` is how many sockets it may have in all."""

    def __init__(
        self,
        reactor: IReactorTCP,
        clock: IReactorTime,
        limits: ServerLimits,
        ports: ClientPorts,
        key_of: Callable[[str], Verifier | None],
        random_bytes: Callable[[int], bytes],
        report: Report,
        descriptors: int,
        gate: Gate | None = None,
    ) -> None:
        self.limits = limits
        self.gate = gate or Gate(lambda: 0.0)
        self.ports = ports
        self.registry: Registry[ServerLink] = Registry(limits)
        self.links: set[ServerLink] = set()
        self.listeners: dict[str, AgentListener] = {}
        self.counts: Counter[str] = Counter()
        self.clients = 0
        self.draining = False
        self.issue: Issue = _issues_nothing  # set by whoever has an authority
        self._reactor = reactor
        self._clock = clock
        self._key_of = key_of
        self._random_bytes = random_bytes
        self._tell = report
        self._descriptors = descriptors
        self._tls = TlsDesk(reactor, lambda: self.limits.handshakes)
        self._pool = CreditPool(limits.pool)
        self._pending: Counter[str] = Counter()
        self._strangers: set[ServerLink] = set()
        self._outlived: set[EmoServerLink] = set()  # command sockets that are gone, whose streams run
        self._drained: list[Deferred[None]] = []
        self.data = DataSockets(
            reactor, DataLimits(), random_bytes, lambda: descriptors - self._sockets(), self.report
        )

    # -- links

    def link_factory(self, name: str) -> ServerLinkFactory:
        """What to listen with for agents at ``listeners[name]``, whose rules may change for later links."""
        return ServerLinkFactory(lambda peer: self._first(self.listeners[name], peer))

    def _first(self, listener: AgentListener, peer: str) -> Protocol | None:
        """Who takes a fresh connection: its link, or TLS before it."""
        link = self._stranger(listener, peer)
        if link is None or listener.identity is None:
            return link
        return TlsDoor(partial(self._secure, link, listener.identity))

    def _secure(self, link: ServerLink, identity: Identity, plain: End) -> None:
        """Bring a connection to TLS, and then to its link. It counts as a stranger meanwhile."""

        def done(found: Secured) -> None:
            link.secured(found)
            EndTransport(self._reactor, found.end, link).start()
            link.peer = found.end.peer  # a load balancer may have said who it is

        link.securing = securing = self._tls.serve(plain, identity, link.limits.handshake)
        securing.addCallbacks(done, link.turned_away)

    def _stranger(self, listener: AgentListener, peer: str) -> ServerLink | None:
        source = peer.rpartition(":")[0]
        reason = ""
        limits = self.limits
        penalty = self.gate.stranger(peer, self._clock.seconds())
        expected = self.data.expected(source)  # data sockets that we asked for
        if (
            len(self._strangers) >= self.limits.pending + expected
            or self._pending[source] >= self.limits.pending_per_source + expected
        ):
            reason = "overloaded"
        elif penalty:
            reason = "penalty"
        elif self.draining:
            reason = "stopping"
        elif self._sockets() >= self._descriptors + limits.descriptors_kept:
            reason = "descriptors"
        if reason:
            self.report(LinkRefused(listener.rules.name, peer, "", reason, penalty or "not even read"))
            return None
        nonce = self._random_bytes(32)
        kind = ServerLink if listener.emo is None else EmoServerLink
        link = kind(self._clock, listener, self, self._key_of, nonce, self._pool, self.report)
        self._strangers.add(link)
        self._pending[source] += 1
        link.source, link.peer, link.since = source, peer, self._clock.seconds()
        return link

    # -- machines of EMO (emo_server.EmoHub)

    def machine(self, serial: str, port: int) -> EmoServerLink | None:
        device = self.registry.get(serial)
        link = device.link if device is not None else None
        found = isinstance(link, EmoServerLink) and link.port == port and link.ended is None
        return link if isinstance(link, EmoServerLink) and found else None

    def next_stream(self) -> int:
        return self.data.numbering.take()

    def expects(self, source: str, change: int) -> None:
        self.data.expect(source, change)

    def socket_came(self, change: int) -> None:
        self.data.sockets += change

    def streams_over(self, link: EmoServerLink) -> None:
        self._outlived.discard(link)

    def rt1_instead(self, link: ServerLink) -> ServerLink:
        nonce = self._random_bytes(32)
        made = ModernLink(self._clock, link.listener, self, self._key_of, nonce, self._pool, self.report)
        made.instead_of(link)
        self._strangers.remove(link)
        self._strangers.add(made)
        return made

    def port_is_open(self, serial: str, target: str) -> bool:
        return any(port.factory.name == target for port in self.ports.of(serial))

    def no_stranger(self, link: ServerLink) -> None:
        if link in self._strangers:
            self._strangers.remove(link)
            self._pending[link.source] -= 1
            if not self._pending[link.source]:
                del self._pending[link.source]

    def admit(self, link: ServerLink, up: ServerUp) -> None:
        now = self._clock.seconds()
        if self.draining:
            raise Denied(GoAway.STOPPING, "the server is stopping", up.serial)
        self.gate.device(up.serial, link.peer, now)
        offers = up.hello.offers if up.hello is not None else link.offers
        try:
            old = self.registry.arrive(up.serial, link, now, up.authenticated, link.listener.newest, offers)
        except TwoHolders:
            self.kick(up.serial, "its serial has two holders", 0)
            raise
        self.no_stranger(link)
        self.links.add(link)
        if old is not None:
            link.replaced = True
            old.dismiss("replaced", f"by {link.peer}", GoAway.REPLACED)

    def arrived(self, link: ServerLink) -> None:
        now = self._clock.seconds()
        listener = link.listener
        wire = link.mux.wire if link.mux is not None else ""
        self.report(
            LinkUp(
                link.serial,
                link.peer,
                wire,
                listener.rules.name,
                link.authenticated,
                link.replaced,
                link.tls,
            )
        )
        self._open_ports(link, now)
        if link.takes_sockets and listener.data != "link":
            link.data = self.data.pool(link, listener.data == "socket", partial(self._by_link, link))

    def enrol(self, link: ServerLink, payload: bytes) -> bytes:
        shown = link.certificate
        asked = payload, None if shown is None else (shown.serial, shown.fingerprint), link.source
        answer = self.issue(*asked)
        self.no_stranger(link)
        return answer

    def attach(self, link: ServerLink, ticket: bytes) -> None:
        self.no_stranger(link)
        pool = self.data.redeem(ticket)
        if pool is None:
            link.fail("ticket", "its ticket was never given, or is used or too old", None)
            return
        try:
            if pool.link.door != link.door:
                raise RemoteError("its ticket is another device's")
            end = link.hand_over()
        except (OSError, RemoteError) as error:
            pool.spoilt(ticket)
            link.fail("ticket", str(error), None)
        else:
            self.data.attached(pool, ticket, end)

    def _open_ports(self, link: ServerLink, now: float) -> None:
        """Let clients in to what the device offers and its record allows, and to nothing else."""
        device = self.registry.get(link.serial)
        offers = device.offers if device is not None else ()
        allowed = self.gate.offers(link.serial, offers)
        for offer in offers:
            if offer in allowed:
                factory = self._client_factory(link.serial, offer)
                ranges = self.gate.records.of(link.serial).ports
                self.ports.open(factory, link.listener.pool, now, ranges)
            else:
                detail = f"its record does not allow {offer.target}"
                self.report(ListenerRefused(link.serial, offer.name, detail))
        self.ports.withdraw(link.serial, {offer.name for offer in allowed}, now)

    def leaving(self, link: ServerLink) -> None:
        """The agent takes no new channels; what runs goes on until it closes the link."""
        if link.data is not None:
            link.data.close()
        now = self._clock.seconds()
        if self.registry.leave(link.serial, link, now) and not self.draining:
            self.ports.leave(link.serial, now)

    def departed(self, link: ServerLink, reason: str, detail: str, cut: int) -> None:
        self.links.discard(link)
        lived = round(self._clock.seconds() - (link.up_since or 0.0), 3)
        self.report(LinkDown(link.serial, link.peer, reason, detail, lived, cut))
        self.leaving(link)
        if link.data is not None and reason in ENDS_STREAMS:
            link.data.end(Ended.LINK_LOST, detail)
        if isinstance(link, EmoServerLink):
            if reason in ENDS_STREAMS:
                link.end_streams(Ended.LINK_LOST, detail)
            if link.outlived:
                self._outlived.add(link)
        self._check_drained()

    def refused(self, link: ServerLink, reason: str, detail: str) -> None:
        self.no_stranger(link)
        shaken = link.handshake is not None
        self.gate.failed(link.peer, reason, link.serial, shaken, self._clock.seconds())
        self.report(LinkRefused(link.listener.rules.name, link.peer, link.serial, reason, detail))

    # -- clients

    def keep_promises(self) -> None:
        """Open the ports that refuse for devices which are away; half of our sockets may go there."""
        self.ports.keep_promises(
            lambda serial, name: self._client_factory(serial, Offer(name, NOWHERE)), self._descriptors // 2
        )

    def client_factory(self, serial: str, name: str) -> ClientFactory:
        """What takes clients of a device's target, on whatever port; they are judged as on its own."""
        device = self.registry.get(serial)
        offers = device.offers if device is not None else ()
        return self._client_factory(
            serial, next((each for each in offers if each.name == name), Offer(name, NOWHERE))
        )

    def _client_factory(self, serial: str, offer: Offer) -> ClientFactory:
        ask = self._admit_client, self._refused, self._left
        return ClientFactory(self._clock, serial, offer.name, offer.target, *ask)

    def _admit_client(self, client: ClientSocket) -> str:
        """Give a client its channel, or say why not."""
        self.clients += 1
        device = self.registry.get(client.serial)
        link = device.link if device is not None else None
        if self.draining:
            return "draining"
        if link is None or link.mux is None or device is None:
            return "device-absent"
        running = link.mux.running + self.data.running(client.serial) + self._outliving(client.serial)
        refusal = self.gate.client(client.serial, client.peer, link.listener.pool, running)
        if refusal:
            return refusal
        if self._sockets() > self._descriptors and not self.data.give_way():
            return "descriptors"
        full = running >= self.limits.clients_per_device and (link.mux.free_numbers or link.data)
        if self.clients > self.limits.clients or full:  # without a free number it waits for one
            return "too-many-clients"
        if link.data is None or not link.data.admit(client):
            if link.listener.data == "socket":
                return "no-data-socket"
            if not link.open(client.target, client):
                return "no-channel"
        device.channels += 1
        return ""

    def _outliving(self, serial: str) -> int:
        """Streams of a machine whose command socket is gone."""
        return sum(len(link.running()) for link in self._outlived if link.serial == serial)

    def _by_link(self, link: ServerLink, client: ClientSocket) -> None:
        """Serve a client that no data socket came for."""
        if link.listener.data == "socket":
            client.refuse("no-data-socket")
        elif not link.open(client.target, client):
            client.refuse("no-channel")

    def _refused(self, client: ClientSocket, reason: str) -> None:
        self.report(ClientRefused(client.serial, client.name, client.peer, reason))

    def _left(self, client: ClientSocket) -> None:
        self.clients -= 1
        self._check_drained()

    def _sockets(self) -> int:
        return self.clients + len(self.links) + len(self._strangers) + self.data.count

    # -- what operators and settings do

    def set_limits(self, limits: ServerLimits) -> None:
        """Other limits from now on; what runs stays."""
        self.limits = self.registry.limits = limits
        self._pool.limit = limits.pool

    def report(self, fact: Fact) -> None:
        """Count a fact, keep the device's sums, pass it on."""
        self.counts[fact.word] += 1
        if isinstance(fact, ChannelEnded):
            self.counts[f"channel-ended {fact.reason.word}"] += 1
            device = self.registry.get(fact.serial)
            if device is not None:
                device.bytes_to_device += fact.bytes_to_device
                device.bytes_to_client += fact.bytes_to_client
        elif isinstance(fact, ClientRefused | LinkRefused | LinkDown):
            self.counts[f"{fact.word} {fact.reason}"] += 1
        elif isinstance(fact, PeerGlitch):
            self.counts["glitches"] += 1
        self._tell(fact)

    def kick(self, serial: str, detail: str, retry_after: int, by: str = "") -> bool:
        """End a device's link; it may come back after ``retry_after`` seconds. False: it is not here.

        The agent is told ``detail``; ``by`` stays here.
        """
        device = self.registry.get(serial)
        link = device.link if device is not None else None
        if link is not None:
            link.dismiss("kicked", detail, GoAway.OPERATOR, retry_after, by)
        streams = self.data.end_all(Ended.OPERATOR, detail, serial)
        return self._end_outlived(Ended.OPERATOR, detail, serial) or link is not None or streams

    def _end_outlived(self, reason: Ended, detail: str, serial: str | None = None) -> bool:
        """End the streams of machines whose command socket is gone; False: there were none."""
        found = [link for link in self._outlived if serial in (None, link.serial)]
        for link in found:
            link.end_streams(reason, detail)
        return bool(found)

    def close_channel(self, serial: str, number: int, detail: str) -> bool:
        """End one channel with a reset; False: there is none."""
        return self._end_channel(serial, number, Ended.OPERATOR, detail)

    def _end_channel(self, serial: str, number: int, reason: Ended, detail: str) -> bool:
        if self.data.close_channel(serial, number, reason, detail):
            return True
        for link in [link for link in self._outlived if link.serial == serial]:
            if link.close_channel(number, reason, detail):
                return True
        device = self.registry.get(serial)
        return bool(device and device.link and device.link.close_channel(number, reason, detail))

    def set_records(self, records: Records) -> None:
        """Other records from now on; what they allow no more is cut."""
        self.gate.records = records
        self.end_expired()
        now = self._clock.seconds()
        for link in list(self.links):
            self._open_ports(link, now)
        for row in self.running():
            lease = self.ports.leases.find(row.serial, row.target)
            device = self.registry.get(row.serial)
            offers = device.offers if device is not None else ()
            refusal = self.gate.stream(
                row.serial,
                row.client,
                "" if lease is None else lease.pool,
                [offer for offer in offers if offer.name == row.target],
            )
            if refusal:
                self._end_channel(row.serial, row.number, Ended.NOT_ALLOWED, refusal)

    def end_expired(self) -> None:
        """End the devices whose record is over; to be asked every second or so."""
        if not self.gate.something_ended():
            return
        detail = "its record is over"
        for link in [link for link in self.links if self.gate.expired(link.serial)]:
            link.dismiss("expired", detail, GoAway.DENIED)
        for serial in {row.serial for row in self.running() if self.gate.expired(row.serial)}:
            self.data.end_all(Ended.NOT_ALLOWED, detail, serial)
            self._end_outlived(Ended.NOT_ALLOWED, detail, serial)

    def running(self, serial: str | None = None, link: ServerLink | None = None) -> list[Running]:
        """The running channels of one device, or all, by serial and number; ``link``: on no other link."""
        known = self.links | self._outlived
        links = [link] if link else [link for link in known if serial in (None, link.serial)]
        rows = [row for link in links for row in link.running()]
        rows += [stream.running() for stream in self.data.streams(serial)]
        return sorted(rows)

    def drain(self) -> "Deferred[None]":
        """Take no new ones and ask agents to leave; fires when the last channel has ended."""
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        if not self.draining:
            self.draining = True
            self.ports.close_all()
            for link in list(self._strangers):
                link.fail("stopping", "the server stops", None)
            for link in list(self.links):
                if link.data is not None:
                    link.data.close(by_link=True)
                link.goaway(GoAway.STOPPING, self.limits.retry_after, "the server stops")
        self._check_drained()
        return drained

    def stop(self) -> None:
        """End every link at once; running channels are reset."""
        self.draining = True
        self.ports.close_all()
        for link in list(self._strangers | self.links):
            link.dismiss("stopping", "the server stops", GoAway.STOPPING, self.limits.retry_after)
        self.data.end_all(Ended.LINK_LOST, "the server stops")
        self._end_outlived(Ended.LINK_LOST, "the server stops")

    def _check_drained(self) -> None:
        if not self._drained or self.clients:
            return
        if any(link.mux and link.mux.running for link in self.links):
            return
        drained, self._drained = self._drained, []
        for waiting in drained:
            waiting.callback(None)
