"""Admission: who may connect to a listener for agents, until it is known what a connection is.

The rule: whoever is not known yet is counted, by address too, and costs nothing beyond that. What cannot be
served now is refused now, with a word. Who hangs up before a word of his is nobody's fault, nor is whatever a
load balancer that is named as a checker does: both are counted, and said once an hour.

Source: wire/link-extension.md; faults.md N1, N19, R8 to R10.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from revtunnel.carriers.data_sockets import DataSockets
from revtunnel.fleet.access_control import AccessControl
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import LinkNotBegun, LinkRefused, Report
from revtunnel.ground.limits import ServerLimits
from revtunnel.ground.networks import address_of, within
from revtunnel.ground.reasons import GoAway
from revtunnel.link.handshake import LinkDenied
from revtunnel.link.keys import Verifier
from revtunnel.link.server_link import AgentListener, Hub, LinkMaker, ServerLink
from revtunnel.sockets.arrivals import HourlyCount
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import End
from revtunnel.sockets.tls.certificates import PeerCertificate
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.sockets.tls.tls_stages import Secured, TlsFailed, TlsHandshakes
from revtunnel.streams.window import CreditPool

__all__ = ["LinkAdmission"]

# ENROLL's payload, the certificate that was shown, address -> CERTIFICATE's payload
Issue = Callable[[bytes, PeerCertificate | None, str], bytes]


def _issues_nothing(payload: bytes, shown: PeerCertificate | None, source: str) -> bytes:
    raise LinkDenied(GoAway.DENIED, "certificates are not made here")


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
        self.strangers: set[ServerLink] = set()
        self.pool = CreditPool(limits.pool)
        self.draining = False
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
        self._tls = TlsHandshakes(reactor, lambda: self.limits.handshakes)
        self._pending: Counter[str] = Counter()
        self._left: dict[str, HourlyCount] = {}  # by listener

    def came(self, hub: Hub, name: str, end: End) -> None:
        """Somebody connected at ``listeners[name]``: he gets his link, or TLS before it."""
        listener, peer = self.listeners.get(name), end.peer
        reason, detail = self.refusal(peer)
        if listener is None or reason:
            self._turn_away(name, end, reason or "stopping", detail)
            return
        link = self._stranger(hub, listener, peer)
        if listener.identity is None:
            EndTransport(self._reactor, end, link).start()
        else:
            self._secure(link, listener.identity, end)

    def came_by_web(self, hub: Hub, name: str, end: End, subprotocol: str) -> None:
        """Somebody whom ``refusal`` let in has a WebSocket for a link, or for a data socket."""
        listener = self.listeners.get(name)
        if listener is None:
            self._turn_away(name, end, "stopping", "its listener is gone")
            return
        link = self._stranger(hub, listener, end.peer)
        link.by_web, link.subprotocol, link.tls = True, subprotocol, end.tls_version
        link.spoke = True
        EndTransport(self._reactor, end, link).start()

    def refusal(self, peer: str) -> tuple[str, str]:
        """Why a connection is not even read: word and detail, or nothing."""
        limits, source = self.limits, peer.rpartition(":")[0]
        penalty = self._access.stranger(peer, self._clock.seconds())
        expected = self._data.expected(source)  # connections that we asked for
        reason = ""
        if (
            len(self.strangers) >= limits.pending + expected
            or self._pending[source] >= limits.pending_per_source + expected
        ):
            reason = "overloaded"
        elif penalty:
            reason = "penalty"
        elif self.draining:
            reason = "stopping"
        elif self.full():
            reason = "descriptors"
        return reason, penalty or "not even read"

    def _turn_away(self, name: str, end: End, reason: str, detail: str) -> None:
        end.abort()
        self._report(LinkRefused(name, end.peer, "", reason, detail))

    def _stranger(self, hub: Hub, listener: AgentListener, peer: str) -> ServerLink:
        link = self._make(hub, listener, listener.make or ServerLink)
        link.source, link.peer, link.since = peer.rpartition(":")[0], peer, self._clock.seconds()
        self._pending[link.source] += 1
        return link

    def _make(self, hub: Hub, listener: AgentListener, make: LinkMaker) -> ServerLink:
        nonce = self._random_bytes(32)
        link = make(self._clock, listener, hub, self._key_of, nonce, self.pool, self._report)
        self.strangers.add(link)
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

        link.securing = securing = self._tls.serve(plain, identity, link.limits.handshake)
        securing.addCallbacks(done, link.turned_away)

    # -- what a connection turned out to be

    def no_stranger(self, link: ServerLink) -> None:
        """It is known now."""
        if link in self.strangers:
            self.strangers.remove(link)
            self._pending[link.source] -= 1
            if not self._pending[link.source]:
                del self._pending[link.source]

    def instead(self, hub: Hub, link: ServerLink, make: LinkMaker) -> ServerLink:
        """It speaks another wire than its listener's: who has it from now on, a stranger like the first."""
        made = self._make(hub, link.listener, make)
        self.strangers.remove(link)
        return made

    def enrol(self, link: ServerLink, payload: bytes) -> bytes:
        """It is there for a certificate: CERTIFICATE's payload. Denied: it gets none."""
        answer = self.issue(payload, link.certificate, link.source)
        self.no_stranger(link)
        return answer

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
        if (reason == "lost" and not link.spoke) or (checkers and within(address_of(link.peer), checkers)):
            left = self._left.setdefault(name, HourlyCount(self._clock, self._report, name))
            left.add()
            return
        shaken = link.handshake is not None
        self._access.failed(link.peer, reason, link.serial, shaken, self._clock.seconds())
        fact = LinkNotBegun if reason == "lost" else LinkRefused
        self._report(fact(name, link.peer, link.serial, reason, detail))

    def say_left(self) -> None:
        """Say now how many left early."""
        for left in self._left.values():
            left.say()

    def stop(self) -> None:
        """Turn everybody away."""
        self.draining = True
        for link in list(self.strangers):
            link.fail("stopping", "the server stops", None)
