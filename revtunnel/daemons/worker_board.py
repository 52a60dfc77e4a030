"""What one worker has: the links and clients that it was given, and a parent that decides who may come.

The rules: a worker is a switchboard (switchboard.py) without ledger, fleet of all, ports of its own or log.
Who comes in, with which key or certificate, in whose place, and what it costs his address if he fails, is
the parent's to say (``call``: the worker waits). What happened is told afterwards (``tell``), in order. Bytes
of streams never go by the parent.

Source: docs/scale-out.rst "Several workers"; ours.
"""

import os
import socket
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from revtunnel.carriers.tickets import Numbering, number_in
from revtunnel.cluster.forwarded_clients import ForwardedSocket
from revtunnel.daemons.borrowed_ports import BorrowedPorts
from revtunnel.daemons.server_listeners import ServerListeners, agent_listener
from revtunnel.daemons.server_means import descriptor_budget
from revtunnel.daemons.switchboard import Switchboard
from revtunnel.daemons.worker_messages import (
    Came,
    FactTold,
    LinkCame,
    LinkSaid,
    Load,
    WorkerOrders,
    in_values,
    raised,
)
from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.pools import Lease
from revtunnel.ground.errors import RemoteError, SettingsError
from revtunnel.ground.facts import ClientRefused, Fact, LinkDown, LinkRefused, LinkUp, ListenerRefused
from revtunnel.ground.origin import Origin
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Offer
from revtunnel.link.handshake import ServerUp
from revtunnel.link.keys import Verifier
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.link.server_link import ServerLink
from revtunnel.sockets.data_plane import begin_plane
from revtunnel.sockets.descriptor_pipe import WaitingPipe
from revtunnel.sockets.ends import End, PlainEnd, said
from revtunnel.sockets.listening import Listeners
from revtunnel.sockets.loopback_pair import loopback_pair
from revtunnel.sockets.relay import Relay
from revtunnel.sockets.tls.certificates import PeerCertificate
from revtunnel.streams.clients import ClientSocket
from revtunnel.streams.offer_messages import Answer, OfferChange
from revtunnel.trust.identities import Identities

__all__ = ["ToParent", "WorkerBoard"]

log = Logger(namespace="revtunnel")

TRIPS = 100  # round trips that are said in a second
_WITHOUT_WAITING = socket.SOCK_STREAM | socket.SOCK_NONBLOCK  # as it is: no system call finds that out
SOON = 0.01  # seconds: a message costs two processes a turn
_PARENTS = (LinkUp, LinkDown, ListenerRefused)  # facts that the parent finds by itself, of what it is told


class ToParent:
    """What a worker says. News of SOON seconds goes together, and before whatever else is said."""

    def __init__(self, reactor: Any, pipe: WaitingPipe) -> None:
        self._reactor = reactor
        self._pipe = pipe
        self._facts: list[FactTold] = []
        self._expected: Counter[str] = Counter()  # what changed
        self._known: Counter[str] = Counter()  # what the parent knows
        self._telling: IDelayedCall | None = None

    def fact(self, fact: Fact) -> None:
        """Something happened."""
        if not isinstance(fact, _PARENTS):
            self._facts.append(in_values(fact))
            self._telling = self._telling or self._reactor.callLater(SOON, self._tell)

    def expects(self, source: str, change: int) -> None:
        """So many data sockets more, or less, are on their way from an address."""
        self._expected[source] += change
        if change > 0 and not self._known[source]:  # before the agent can come
            self._flush()
        self._telling = self._telling or self._reactor.callLater(SOON, self._tell)

    def tell(self, name: str, *values: Any, descriptors: tuple[int, ...] = ()) -> None:
        """Say something, and give descriptors away."""
        self._flush()
        self._pipe.send(name, *values, descriptors=descriptors)

    def call(self, name: str, *values: Any) -> Any:
        """Ask, and wait."""
        self._flush()
        return self._pipe.call(name, *values)

    def _tell(self) -> None:
        self._telling = None
        self._flush()

    def _flush(self) -> None:
        if self._facts or self._expected:
            facts, self._facts = self._facts, []
            expected, self._expected = self._expected, Counter()
            self._known.update(expected)
            for source in expected:
                if not self._known[source]:
                    del self._known[source]
            self._pipe.send("news", facts, dict(expected))


class _ParentsAccess(AccessControl):
    """Penalties are the parent's, who let them come so far."""

    def __init__(self, parent: ToParent) -> None:
        super().__init__(time.time)
        self._parent = parent

    def stranger(self, peer: str, now: float) -> str:
        return ""

    def refused_after(self, peer: str, reason: str, now: float) -> float:
        return float(self._parent.call("refused_after", peer, reason))

    def failed(self, peer: str, reason: str, serial: str, shaken: bool, now: float) -> None:
        self._parent.tell("failed", peer, reason, serial, shaken)


class WorkerBoard(Switchboard):
    """One worker, the ``share``-th ``of`` several processes. Its parent's messages are its methods."""

    def __init__(self, reactor: Any, parent: ToParent, orders: WorkerOrders, share: int, of: int) -> None:
        self._parent = parent
        self._listens = Listeners(reactor, self.report)
        self._share, self._of = share, of
        self._numbers = count(1)
        self._by_number: dict[int, ServerLink] = {}
        self._number_of: dict[ServerLink, int] = {}
        self._reactor = reactor
        self._round: list[int] = []  # links whose round trips are still to be said
        settings = orders.settings
        self.borrowed = BorrowedPorts(self._listens, self.report)
        super().__init__(
            *(reactor, reactor, settings.limits, self.borrowed, self._key_of, os.urandom),
            *(parent.fact, descriptor_budget(settings), _ParentsAccess(parent)),
        )
        begin_plane(reactor, settings.data_plane, "server")
        self._headers = ServerListeners(reactor, self._listens, self)
        self._headers.stand_before(self.borrowed)
        self.data.numbering = Numbering(share, of)
        self.data.on_expected = parent.expects
        self.client_streams.elsewhere = self._elsewhere
        self.admission.issue = self._issue
        self.admission.hub_has_keys = True
        self.take(orders)

    # -- what the parent says

    def take(self, orders: WorkerOrders) -> None:
        """Other settings from now on. SettingsError: their files cannot be used; nothing has changed."""
        settings = orders.settings
        mine = [each for each in settings.listeners if each.kind == "rt1"]
        identities = Identities(
            lambda *who: bool(self._parent.call("revoked", *who)), grace=lambda: orders.grace
        )
        identities = identities.read(mine, orders.enrols)
        self.set_limits(settings.limits)
        self.data.take(settings.data, settings.relay)
        self.set_listeners(
            {
                each.name: agent_listener(each, settings, identities.of(each.name), orders.doubt)
                for each in mine
            }
        )
        self._headers.take(settings)
        self.enforcement.set_records(settings.records)

    def change(self, orders: WorkerOrders) -> None:
        """The same; what is wrong is told. What devices may hangs on no file, and counts in any case."""
        try:
            self.take(orders)
        except SettingsError as error:
            self.enforcement.set_records(orders.settings.records)
            self._parent.tell("faulty", error.errors)

    def came(self, agents: Sequence[Came], *descriptors: int) -> None:
        """Agents connected."""
        for (listener, peer, family), descriptor in zip(agents, descriptors, strict=True):
            if descriptor < 0:
                self.report(LinkRefused(listener, peer, "", "descriptors", "not even read"))
                continue
            sock = socket.socket(family, _WITHOUT_WAITING, 0, descriptor)
            end = PlainEnd(sock, peer, inherits=True)
            try:
                self.admission.came(self, listener, end)
            except Exception:
                log.failure("{peer}", peer=peer)
                end.abort()

    def attached(self, ticket: bytes, scope: str, peer: str, descriptor: int) -> None:
        """A data socket of ours came to another worker."""
        pool = self.data.redeem(ticket)
        if descriptor < 0:
            if pool is not None:
                pool.spoilt(ticket)
            self.report(LinkRefused(scope.partition(" ")[0], peer, "", "descriptors", "not taken over"))
            return
        end = PlainEnd(socket.socket(fileno=descriptor), peer)
        if pool is not None and pool.link.ticket_scope == scope:
            self.data.attached(pool, ticket, end)
            return
        if pool is not None:
            pool.spoilt(ticket)
        end.abort()
        self.access.failed(peer, "ticket", "", False, self._clock.seconds())
        self.report(LinkRefused(scope.partition(" ")[0], peer, "", "ticket", "its ticket is not good"))

    def client(
        self, serial: str, name: str, peer: str, origin: Origin | None, session: str, descriptor: int
    ) -> None:
        """A client that came to the parent."""
        if descriptor < 0:
            self.report(ClientRefused(serial, name, peer, "descriptors"))
            return
        end = PlainEnd(socket.socket(fileno=descriptor), peer)
        end.origin = origin
        clients = self.client_streams.clients_by_name(serial, name, lambda client: None, session)
        client = clients.client(end)
        client.forwarded = True  # and not given back
        clients.let_in(client)

    def join(
        self, serial: str, name: str, peer: str, origin: Origin | None, session: str, first: bool, given: int
    ) -> None:
        """One that stays the parent's, who joins it with this connection once it is answered there.

        ``first``: what it says may go before that; ``given``: the descriptor.
        """
        if given < 0:
            self.report(ClientRefused(serial, name, peer, "descriptors"))
            return
        end = PlainEnd(socket.socket(fileno=given), peer)
        clients = self.client_streams.clients_by_name(serial, name, lambda client: None, session)
        client = ForwardedSocket(self._reactor, end, clients, origin, lambda client: None, first)
        client.peer = peer
        clients.let_in(client)

    def port(self, lease: Lease, descriptor: int) -> None:
        """Take the clients of a device there."""
        if descriptor < 0:
            self._parent.tell("not_lent", *lease.use)
            return
        device = self.fleet.get(lease.serial)
        offers = device.offers if device is not None else ()
        offer = next((each for each in offers if each.name == lease.target), None)
        of, clients = lease.use, self.client_streams
        takes = clients.clients(of[0], offer) if offer is not None else clients.clients_of_absent(*of)
        self.borrowed.lent(lease, takes, self._headers.before_clients, descriptor)

    def give_back(self, serial: str, name: str) -> None:
        """And no more."""
        self.borrowed.give_back(serial, name)

    def dismiss(self, number: int, reason: str, detail: str, say: GoAway, after: int, by: str) -> None:
        """End a link."""
        if number in self._by_number:
            self._by_number[number].dismiss(reason, detail, say, after, by)

    def goaway(self, number: int, reason: GoAway, after: int, detail: str, place: str) -> None:
        """Ask an agent to leave."""
        if number in self._by_number:
            self._by_number[number].goaway(reason, after, detail, place)

    def session(self, number: int, payload: bytes) -> None:
        """Ask a device's site for a session, or say that it is over."""
        if number in self._by_number:
            self._by_number[number].say_session(payload)

    def change_offer(self, number: int, change: OfferChange) -> None:
        """Have an agent change what it offers."""
        link = self._by_number.get(number)
        if link is not None and isinstance(link.mux, Rt1Mux):
            link.mux.change(change)
            link.flush()

    def end(self, serial: str, number: int | None, reason: Ended, detail: str) -> None:
        """End one stream of a device, or all."""
        if number is None:
            self.streams.end_all(reason, detail, serial)
        else:
            self.streams.end(serial, number, reason, detail)

    def leave(self) -> None:
        """Drain, and say when that is done."""

        def drained(_: object) -> None:
            self.admission.say_left()
            self._parent.tell("drained")

        self.drain().addCallback(drained)

    def look(self, rows: bool) -> None:
        """Say what we have; of round trips all where somebody asks for rows, else some in turn."""
        self._round = [*self._by_number] if rows else self._round or [*self._by_number]
        looked = self._round if rows else self._round[-TRIPS:]
        trips = {number: self._by_number[number].round_trip for number in looked if number in self._by_number}
        known = {number: round(trip, 6) for number, trip in trips.items() if trip is not None}
        del self._round[len(self._round) - len(looked) :]
        running = tuple(self.streams.page()) if rows else None  # of clients that nobody had told of, too
        self._parent.tell("load", Load(len(self.admission.strangers), self.clients, known, running))

    # -- what links ask

    def admit(self, link: ServerLink, up: ServerUp) -> Verifier | None:
        number, now = next(self._numbers), self._clock.seconds()
        came = LinkCame(
            number, link.listener.rules.name, link.peer, link.source, link.tls, link.certificate, up
        )
        said = self._parent.call("admit", came)
        if isinstance(said, Verifier):
            return said
        raised(said)
        self._by_number[number], self._number_of[link] = link, number
        assert up.hello is not None
        before = self.fleet.get(up.serial)
        if before is not None and before.link is not None:  # the parent has said that it ends
            self.fleet.leave(up.serial, before.link, now)
        self.fleet.arrive(
            *(up.serial, link, now, up.authenticated, "newest", up.hello.offers),
            system=link.system,
            peer=link.peer,
            pool=link.listener.pool,
            listener=link.listener.rules.name,
        )
        self.no_stranger(link)
        self.links.add(link)
        if up.authenticated:
            self.access.arrived(link.peer)
        return None

    def arrived(self, link: ServerLink) -> None:
        super().arrived(link)
        mux = link.mux
        changes = isinstance(mux, Rt1Mux) and mux.changes
        told = LinkSaid(link.says_sessions, link.says_origins, changes)
        self._parent.tell("arrived", self._number_of[link], told)

    def leaving(self, link: ServerLink) -> None:
        super().leaving(link)
        if link in self._number_of:
            self._parent.tell("leaving", self._number_of[link])

    def departed(self, link: ServerLink, reason: str, detail: str, cut: int) -> None:
        number = self._forget(link)
        super().departed(link, reason, detail, cut)
        self._parent.tell("departed", number, reason, detail, cut)

    def refused(self, link: ServerLink, reason: str, detail: str) -> None:
        super().refused(link, reason, detail)
        if link in self._number_of:  # it failed between the parent's yes and its first frame
            self.links.discard(link)
            self.fleet.leave(link.serial, link, self._clock.seconds())
            self._parent.tell("departed", self._forget(link), reason, detail, 0)

    def offered(self, link: ServerLink, offers: tuple[Offer, ...], answer: Answer | None) -> None:
        super().offered(link, offers, answer)
        self._parent.tell("offered", self._number_of[link], offers, answer)

    def consented(self, link: ServerLink, session: str, yes: bool, why: str) -> None:
        self._parent.tell("consented", self._number_of[link], session, yes, why)

    def attach(self, link: ServerLink, ticket: bytes) -> None:
        share = number_in(ticket) % self._of
        if share in (0, self._share):
            super().attach(link, ticket)
            return
        self.no_stranger(link)
        told = share, ticket, link.ticket_scope, link.peer
        try:
            end = link.hand_over()
        except (OSError, RemoteError) as error:
            link.fail("ticket", str(error), None)
            return
        try:
            given = end.sock.detach() if end.gathers else self._joined(end)
        except OSError as error:
            end.abort()
            self.report(LinkRefused(link.listener.rules.name, link.peer, "", "ticket", said(error)))
            return
        self._parent.tell("attach", *told, descriptors=(given,))

    # -- inside

    def _forget(self, link: ServerLink) -> int:
        number = self._number_of.pop(link)
        del self._by_number[number]
        return number

    def _joined(self, end: End) -> int:
        """The descriptor of a connection that goes on with what this end, which has TLS, says."""
        ours, theirs = loopback_pair()
        self.holds(2)
        relay = Relay(
            self._reactor, end, PlainEnd(ours), lambda reason, detail: self.holds(-2), self.data.relay_limits
        )
        self._reactor.callLater(0, relay.start)
        return theirs.detach()

    def _elsewhere(self, client: ClientSocket) -> str:
        """A client whose device is not here any more: the parent knows where it is, or lets it wait."""
        origin = client.origin
        end = client.hand_over()
        if end is None:
            return "device-absent"
        told = client.serial, client.name, end.peer, origin
        self._parent.tell("client", *told, descriptors=(end.sock.detach(),))
        client.finished()
        return ""

    def _key_of(self, serial: str) -> Verifier | None:
        found: Verifier | None = self._parent.call("key", serial)
        return found

    def _issue(self, payload: bytes, shown: PeerCertificate | None, source: str) -> bytes:
        refused, made = self._parent.call("issue", payload, shown, source)
        raised(refused)
        return bytes(made)
