"""Admission: who may connect to a listener for agents, until it is known what a connection is.

The rules: whoever is not known yet has a place among strangers (fleet/strangers.py), and costs nothing beyond
that. What cannot be served now is refused now, with a word. Who hangs up before a word of his is not told of
one by one, nor is whatever a load balancer that is named as a checker does, which costs it nothing either:
both are counted, and said once an hour.

Source: wire/link-extension.md; faults.md N1, N19, R8 to R10.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from revtunnel.carriers.data_sockets import DataSockets
from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.strangers import NotLetIn, Stranger, Strangers
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import LinkNotBegun, LinkRefused, Report
from revtunnel.ground.limits import ServerLimits
from revtunnel.ground.networks import address_of, within
from revtunnel.ground.reasons import GoAway
from revtunnel.link.handshake import LinkDenied
from revtunnel.link.keys import Verifier
from revtunnel.link.server_link import AgentListener, Hub, LinkMaker, ServerLink
from revtunnel.link.shared_values import nobody_hears
from revtunnel.sockets.arrivals import HourlyCount
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import End
from revtunnel.sockets.peeking import has_spoken, peek
from revtunnel.sockets.stages import part_unread
from revtunnel.sockets.tls.certificates import PeerCertificate
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.sockets.tls.tls_stages import Secured, TlsFailed, TlsHandshakes
from revtunnel.streams.commands import TICKET_SIZE, Command, encode_goaway
from revtunnel.streams.frames import HEADER_SIZE, encode_frame
from revtunnel.streams.window import CreditPool

__all__ = ["LinkAdmission"]

_ATTACH = encode_frame(Command.ATTACH, 0, bytes(TICKET_SIZE))[:HEADER_SIZE]
_ATTACH_SIZE = HEADER_SIZE + TICKET_SIZE
LONGEST = 65_535  # seconds that a GOAWAY can say
PARTINGS = 64  # connections at once that are told when to come again
# ENROLL's payload, the certificate that was shown, address -> CERTIFICATE's payload
Issue = Callable[[bytes, PeerCertificate | None, str], "bytes | Deferred[bytes]"]


def _issues_nothing(payload: bytes, shown: PeerCertificate | None, source: str) -> bytes:
    raise LinkDenied(GoAway.DENIED, "certificates are not made here")


def _no_key(serial: str) -> None:
    return None


def _source_of(peer: str) -> str:
    return peer.rpartition(":")[0]


def _speaks_rt1(listener: AgentListener | None) -> bool:
    """Whether whoever connects there is told in a frame that he is not let in."""
    if listener is None:
        return False
    return listener.identity is None and listener.make is None and not listener.rules.legacy


def _needs_ticket_only(listener: AgentListener | None) -> bool:
    return listener is not None and _speaks_rt1(listener) and not listener.certified_only


def _gives_way(link: ServerLink, why: str) -> None:
    link.ended = link.ended or ("overloaded", why)
    link.leave(at_once=True)


def _denied(link: ServerLink, failure: Failure) -> None:
    if not isinstance(failure.value, RemoteError):
        failure.raiseException()
    link.broken(failure.value)


class LinkAdmission:
    """The connections of all listeners that are no links yet. ``full``: no descriptor is left for more."""

    def __init__(
        self,
        reactor: Any,
        clock: IReactorTime,
        limits: ServerLimits,
        access: AccessControl,
        key_of: Callable[[str], Verifier | None],
        random_bytes: Callable[[int], bytes],
        report: Report,
        data: DataSockets,
    ) -> None:
        self.limits = limits
        self.listeners: dict[str, AgentListener] = {}
        self.strangers: dict[ServerLink, Stranger] = {}
        self.pool = CreditPool(limits.pool)
        self.draining = False
        self.hub_has_keys = False  # ``Hub.admit`` says who has to prove one, where not all have to
        self.full: Callable[[], bool] = lambda: False
        # set by whoever has an authority
        self.issue: Issue = _issues_nothing
        self.used: Callable[[str, str], None] = lambda serial, fingerprint: None
        self._reactor = reactor
        self._clock = clock
        self._access = access
        self._key_of = key_of
        self._random_bytes = random_bytes
        self._report = report
        self._data = data
        self._asking: set[ServerLink] = set()  # whether they get a certificate is not known yet
        self._parting = 0  # connections that were told when to come again
        self._tls = TlsHandshakes(reactor, lambda: self.limits.handshakes)
        self.places = Strangers(clock.seconds, lambda: self.limits, access)
        self._left: dict[str, HourlyCount] = {}  # by listener

    def came(self, hub: Hub, name: str, end: End) -> None:
        """Somebody connected at ``listeners[name]``: he gets his link, or TLS before it."""
        listener = self.listeners.get(name)
        if listener is not None and self._attached_at_once(listener, end):
            return
        try:
            if listener is None:
                raise NotLetIn("stopping", "its listener is gone")
            stranger = self.enter(end.peer, partial(has_spoken, end))
        except NotLetIn as refused:
            self.turn_away(name, end, refused)
            return
        link = self._stranger(hub, listener, stranger)
        if listener.identity is None:
            EndTransport(self._reactor, end, link).start()
        else:
            self._secure(link, listener.identity, end)

    def _attached_at_once(self, listener: AgentListener, end: End) -> bool:
        """Whether it has shown a good ticket already, where nothing else has to be known: no link is made."""
        if not _needs_ticket_only(listener):
            return False
        if self.draining or self.full() or not self._data.expected(_source_of(end.peer)):
            return False
        head = peek(end, _ATTACH_SIZE + 1)
        ticket = head.removeprefix(_ATTACH)
        if len(head) != _ATTACH_SIZE or len(ticket) != TICKET_SIZE:
            return False
        pool = self._data.holder(ticket)
        if pool is None or pool.link.ticket_scope != f"{listener.rules.name} ":
            return False
        if self._data.redeem(ticket) is None:
            return False
        end.sock.recv(_ATTACH_SIZE)
        self._data.attached(pool, ticket, end)
        return True

    def needs_ticket_only(self, name: str) -> bool:
        """Whether a data socket that comes there is judged by its ticket alone."""
        return not self.draining and _needs_ticket_only(self.listeners.get(name))

    def turn_away(self, name: str, end: End, refused: NotLetIn) -> None:
        """Read nothing of a connection. Where a frame can be sent, an agent hears when to come again."""
        self._report(LinkRefused(name, end.peer, "", refused.reason, str(refused)))
        if not (refused.seconds and self._parting < PARTINGS and _speaks_rt1(self.listeners.get(name))):
            end.abort()
            return
        said = encode_goaway(GoAway.OVERLOADED, math.ceil(refused.seconds), str(refused))
        try:
            end.write(encode_frame(Command.GOAWAY, 0, said))
        except OSError:
            end.abort()
            return
        self._parting += 1
        Deferred.fromCoroutine(part_unread(self._reactor, end)).addBoth(self._parted)

    def _parted(self, result: Any) -> Any:
        self._parting -= 1
        return result

    def came_by_web(self, hub: Hub, name: str, end: End, stranger: Stranger, subprotocol: str) -> None:
        """Somebody who was let in (``enter``) has a WebSocket for a link, or for a data socket."""
        listener = self.listeners.get(name)
        if listener is None:
            stranger.leave()
            self.turn_away(name, end, NotLetIn("stopping", "its listener is gone"))
            return
        link = self._stranger(hub, listener, stranger)
        link.by_web, link.subprotocol, link.tls = True, subprotocol, end.tls_version
        link.spoke = True
        EndTransport(self._reactor, end, link).start()

    def enter(self, peer: str, speaks: Callable[[], bool] = lambda: False, judged: bool = False) -> Stranger:
        """A place for a connection that is not even read yet. NotLetIn: it has none.

        ``judged``: what its source owes was looked at.
        """
        if self.draining:
            raise NotLetIn("stopping", "not even read")
        if self.full() and not self.places.make_room():
            raise NotLetIn("descriptors", "not even read")
        expected = self._data.expected(_source_of(peer))  # connections that we asked for
        return self.places.enter(peer, lambda why: None, speaks, expected=expected, judged=judged)

    def _stranger(self, hub: Hub, listener: AgentListener, stranger: Stranger) -> ServerLink:
        link = self._make(hub, listener, listener.make or ServerLink, stranger)
        link.source, link.peer, link.since = _source_of(stranger.peer), stranger.peer, stranger.since
        return link

    def _make(self, hub: Hub, listener: AgentListener, make: LinkMaker, stranger: Stranger) -> ServerLink:
        nonce = self._random_bytes(32)
        asks = listener.rules.keys_required or not self.hub_has_keys
        key_of = self._key_of if asks else _no_key
        link = make(self._clock, listener, hub, key_of, nonce, self.pool, self._report)
        self.strangers[link] = stranger
        link.heard = stranger.heard
        stranger.give_way = partial(_gives_way, link)
        return link

    def _secure(self, link: ServerLink, identity: Identity, plain: End) -> None:
        """Bring a connection to TLS, and then to its link. It counts as a stranger meanwhile."""

        def done(found: Secured) -> None:
            if link.listener.make is not None and found.peer is not None and found.peer.late:
                found.end.abort()  # nothing is renewed on this wire
                link.turned_away(Failure(TlsFailed("certificate", "certificate has expired")))
                return
            link.secured(found)
            EndTransport(self._reactor, found.end, link).start()

        link.securing = securing = self._tls.serve(plain, identity, link.limits.handshake, link.heard)
        securing.addCallbacks(done, link.turned_away)

    # -- what a connection turned out to be

    def no_stranger(self, link: ServerLink) -> None:
        """It is known now."""
        stranger = self.strangers.pop(link, None)
        if stranger is not None:
            stranger.leave()
            link.heard = nobody_hears

    def instead(self, hub: Hub, link: ServerLink, make: LinkMaker) -> ServerLink:
        """It speaks another wire than its listener's: who has it from now on, a stranger like the first."""
        return self._make(hub, link.listener, make, self.strangers.pop(link))

    def enrol(self, link: ServerLink, payload: bytes) -> bytes | None:
        """It is there for a certificate: CERTIFICATE's payload, or None. Denied: it gets none (Hub.enrol)."""
        if link in self._asking:
            raise RemoteError("ENROLL before the answer to ENROLL")
        made = self.issue(payload, link.certificate, link.source)
        if isinstance(made, bytes):
            return self._enrolled(link, made)
        self._asking.add(link)
        made.addCallback(partial(self._enrolled, link)).addCallbacks(link.certified, partial(_denied, link))
        made.addBoth(lambda _: self._asking.discard(link))
        return None

    def _enrolled(self, link: ServerLink, made: bytes) -> bytes:
        self._access.proved(link.peer, self._clock.seconds())
        self.no_stranger(link)
        return made

    def attach(self, link: ServerLink, ticket: bytes) -> None:
        """It is a data socket, if its ticket is good."""
        self.no_stranger(link)
        pool = self._data.redeem(ticket)
        if pool is None:
            link.fail("ticket", "its ticket was never given, or is used or too old", None)
            return
        try:
            if pool.link.ticket_scope != link.ticket_scope:
                raise RemoteError("its ticket is another device's")
            end = link.hand_over()
        except (OSError, RemoteError) as error:
            pool.spoilt(ticket)
            link.fail("ticket", str(error), None)
        else:
            self._data.attached(pool, ticket, end)

    def refused(self, link: ServerLink, reason: str, detail: str) -> None:
        """It never became a link."""
        self.no_stranger(link)
        name, checkers = link.listener.rules.name, link.listener.checkers
        checks, now = bool(checkers) and within(address_of(link.peer), checkers), self._clock.seconds()
        asked_for = reason == "lost" and self._data.expected(link.source)
        harmless = link.handshake is not None or checks or bool(asked_for)
        self._access.failed(link.peer, reason, link.serial, harmless, now)
        if checks or (reason == "lost" and not link.spoke):
            left = self._left.setdefault(name, HourlyCount(self._clock, self._report, name))
            left.add()
            return
        fact = LinkNotBegun if reason == "lost" else LinkRefused
        self._report(fact(name, link.peer, link.serial, reason, detail))

    def say_left(self) -> None:
        """Say now how many left early."""
        for left in self._left.values():
            left.say()

    def refused_for(self, link: ServerLink, word: str) -> int:
        """Seconds for which its address will hardly be listened to, after it is refused by this word."""
        seconds = self._access.refused_after(link.peer, word, self._clock.seconds())
        return min(math.ceil(seconds), LONGEST)

    def stop(self) -> None:
        """Turn everybody away."""
        self.draining = True
        for link in list(self.strangers):
            link.fail("stopping", "the server stops", None)
