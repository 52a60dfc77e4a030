"""The publisher relay: publications go once to everybody who wants them, subscriptions to every publisher.

Source: wire/cameo.md sections 2 and 5 (XPUB/XSUB); faults.md Z5 to Z7.
"""

from collections import Counter
from collections.abc import Iterable

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import CameoLimits
from revtunnel.systems.cameo.cameo_peers import CameoPeer
from revtunnel.systems.cameo.cameo_topics import Topics
from revtunnel.systems.cameo.zmtp_messages import ZmtpMessage, encode_message

__all__ = ["Publications"]

_CANCEL, _SUBSCRIBE = b"\0", b"\1"


class Publications:
    """Publishers, subscribers and topics.

    Attributes:
        counts: messages that went nowhere, by reason.
        astray: publishers that missed a subscription, because they do not take what is written to them; cut
            off and back again they are told everything.
    """

    def __init__(self, limits: CameoLimits) -> None:
        self.publishers: dict[CameoPeer, None] = {}
        self.topics: Topics[CameoPeer] = Topics(limits.topics, limits.topic)
        self.most_of_source = limits.topics_per_source
        self.counts: Counter[str] = Counter()
        self._of_sources: Counter[str] = Counter()  # topics, by address of other machines
        self.astray: set[CameoPeer] = set()

    def join_publisher(self, peer: CameoPeer) -> None:
        """A publisher is ready: it is told everything that is wanted."""
        self.publishers[peer] = None
        for prefix in self.topics:
            self._tell((peer,), _SUBSCRIBE, prefix)

    def leave(self, peer: CameoPeer) -> Iterable[CameoPeer]:
        """A publisher or subscriber is gone; the peers whose outboxes got something for that."""
        self.publishers.pop(peer, None)
        self.astray.discard(peer)
        self._count(peer, -self.topics.count(peer))
        gone = self.topics.leave(peer)
        for prefix in gone:
            self._tell(self.publishers, _CANCEL, prefix)
        return list(self.publishers) if gone else ()

    def subscribe(self, peer: CameoPeer, prefix: bytes, wanted: bool) -> Iterable[CameoPeer]:
        """A subscriber wants a prefix, or no longer; the peers whose outboxes got something for that.

        Raises:
            RemoteError: it passes a limit.
        """
        known = self.topics.has(peer, prefix)
        if wanted and not known and self._of_sources.get(_host(peer), 0) >= self.most_of_source:
            raise RemoteError(f"more than {self.most_of_source} topics from {_host(peer)}")
        change = self.topics.subscribe if wanted else self.topics.cancel
        last_or_first = change(peer, prefix)
        self._count(peer, wanted - known)
        if not last_or_first:
            return ()
        self._tell(self.publishers, _SUBSCRIBE if wanted else _CANCEL, prefix)
        return list(self.publishers)

    def receive(self, message: ZmtpMessage) -> tuple[CameoPeer, ...]:
        """Pass a publication, or a run of them, on to everybody who wants it."""
        found = self.topics.match(message.heads[0])
        if not found:
            self.counts["unwanted"] += message.messages
        for peer in found:
            dropped = peer.outbox.add_run(message.rest, message.messages)
            if dropped:
                self.counts["slow"] += dropped
        return found

    def request(self, peer: CameoPeer, message: ZmtpMessage) -> Iterable[CameoPeer]:
        """A subscriber's message: a subscription in the form of ZMTP 3.0; anything else is dropped.

        Raises:
            RemoteError: it passes a limit.
        """
        body = message.heads[0]
        if message.frames != 1 or body[:1] not in (_CANCEL, _SUBSCRIBE):
            self.counts["no-subscription"] += 1
            return ()
        return self.subscribe(peer, body[1:], body[:1] == _SUBSCRIBE)

    def _tell(self, publishers: Iterable[CameoPeer], verb: bytes, prefix: bytes) -> None:
        message = encode_message([verb + prefix])
        self.astray.update(peer for peer in publishers if not peer.outbox.add(message))

    def _count(self, peer: CameoPeer, change: int) -> None:
        """Keep the sum of its machine."""
        if peer.local or not change:
            return
        self._of_sources[_host(peer)] += change
        if not self._of_sources[_host(peer)]:
            del self._of_sources[_host(peer)]


def _host(peer: CameoPeer) -> str:
    return peer.address.rpartition(":")[0]
