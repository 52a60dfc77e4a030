"""What an operator sees of the CAMEO relays, and can do with them: plain methods for the admin socket.

Source: wire/cameo.md section 5 ("Status"); issue "CAMEO".
"""

import time
from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime

from revtunnel.process.admin.daemon_operator import DaemonOperator
from revtunnel.process.admin.operation_form import PAGE, Row
from revtunnel.process.admin.paging import page
from revtunnel.process.admin.refusals import NotFound
from revtunnel.process.reporting import Reporter
from revtunnel.systems.cameo.cameo_facts import shown
from revtunnel.systems.cameo.cameo_operations import CAMEO_OPERATIONS, PEERS
from revtunnel.systems.cameo.cameo_peers import CameoPeer
from revtunnel.systems.cameo.cameo_responders import SERVER
from revtunnel.systems.cameo.relays import CameoRelay, PublisherRelay, ResponderRelay

__all__ = ["CameoOperator"]

MOST_UNROUTABLE = 50  # names in a status, the most wanted ones


class CameoOperator(DaemonOperator):
    """Both relays. ``leaving`` is set by the daemon when it drains."""

    operations = CAMEO_OPERATIONS

    def __init__(
        self,
        clock: IReactorTime,
        responder: ResponderRelay,
        publisher: PublisherRelay,
        reporter: Reporter,
        name: str,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock, reporter, name, wall)
        self.leaving = False
        self._responder = responder
        self._publisher = publisher

    @property
    def draining(self) -> bool:
        return self.leaving

    def status(self) -> Row:
        """The relays in one row."""
        responder, publications = self._responder, self._publisher.publications
        return {
            **super().status(),
            "cameo_server": self._server(),
            "responder": {
                **self._relay(responder),
                "waiting_clients": len(responder.responders.waiting),
                "unroutable": dict(responder.responders.unroutable.most_common(MOST_UNROUTABLE)),
            },
            "publisher": {
                **self._relay(self._publisher),
                "publishers": len(publications.publishers),
                "topics": len(publications.topics),
            },
            "connections": responder.admission.connections,
            "waiting_bytes": responder.pool.used,
            "counts": dict(sorted((responder.facts + self._publisher.facts).items())),
        }

    def peers(self, after: str = "", limit: int = PAGE) -> tuple[list[Row], str | None]:
        """Everybody who is connected and past his handshake, by address."""
        found = sorted(
            (peer.address, relay.name, peer)
            for relay in self._relays()
            for peer in relay.peers
            if peer.address > after
        )
        return page(found, limit, lambda each: self._peer(*each[1:]), lambda each: each[0])

    def cut(self, peer: str) -> None:
        """End a peer's connection; it may come back.

        Raises:
            NotFound: nobody has this address.
        """
        if not any(relay.close(peer) for relay in self._relays()):
            raise NotFound(f"no peer {peer[:80]} is connected")

    def _relays(self) -> Sequence[CameoRelay]:
        return self._responder, self._publisher

    def _server(self) -> Row:
        """Whether the CAMEO server itself is connected, and since when."""
        responders = self._responder.responders
        peer, since = responders.peers.get(SERVER), responders.server_since
        if peer is None or since is None:
            return {"connected": False, "address": "", "since": None, "seconds": None}
        seconds = round(self._clock.seconds() - since, 3)
        return {"connected": True, "address": peer.address, "since": self.at(since), "seconds": seconds}

    def _relay(self, relay: CameoRelay) -> Row:
        peers = relay.peers
        return {
            "peers": len(peers),
            "messages": relay.messages + sum(peer.messages_received for peer in peers),
            "dropped": dict(sorted(relay.counts.items())),
        }

    def _peer(self, relay: str, peer: CameoPeer) -> Row:
        box = peer.outbox
        return PEERS.row(
            peer,
            peer=peer.address,
            relay=relay,
            type=peer.socket_type,
            identity=shown(peer.identity),
            outside=peer.rules.name,
            let_in=peer.ready,
            since=self.at(peer.since),
            seconds=round(self._clock.seconds() - peer.since, 3),
            messages_from_peer=peer.messages_received,
            messages_to_peer=box.messages_sent,
            bytes_from_peer=peer.bytes_received,
            bytes_to_peer=box.bytes_sent,
            waiting=box.waiting,
            waiting_bytes=box.waiting_bytes,
            dropped=box.dropped,
            topics=len(self._publisher.publications.topics.of(peer)),
        )
