"""The links that other nodes have dialled to us: by them our clients reach the devices that are there.

Such a link is a ``ServerLink`` like an agent's, of whoever a node's certificate names, and its carrier takes
clients as any other does. The rules: a node is no device and comes into no fleet; the newest link of a node
stays; a link of our own name is refused.

Source: next/cluster.md section 4; link/server_link.py (Hub).
"""

from collections.abc import Callable, Iterable
from typing import Any

from revtunnel.carriers.data_sockets import DataSockets
from revtunnel.carriers.sockets_first import SocketsFirst
from revtunnel.cluster.named_targets import CALLS
from revtunnel.fleet.rates import Bucket
from revtunnel.ground.facts import LinkDown, LinkUp, Report
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Offer
from revtunnel.link.handshake import LinkDenied, ServerUp
from revtunnel.link.link_carrier import LinkCarrier
from revtunnel.link.mux import Happening, Over
from revtunnel.link.server_link import Hub, LinkMaker, ServerLink
from revtunnel.streams.carrier import Carrier
from revtunnel.streams.channel import Channel
from revtunnel.streams.clients import ClientSocket
from revtunnel.streams.offer_messages import Answer
from revtunnel.streams.running import Running, of_link

__all__ = ["ENDS_STREAMS", "PeerHub", "PeerServerLink"]

# why a link went, if its streams go with it: its path is dead, its node faulty, or we stop
ENDS_STREAMS = frozenset(("silent", "protocol", "stopping"))
SHORT = 64  # channels of a link at once, of all devices that are at that node
AT_ONCE, EACH_SECOND = 8.0, 8.0  # clients of a node that have a data socket though they may be short ones


class _ClientChannels(LinkCarrier):
    """Of the channels of a link, those of clients."""

    def rows(self) -> Iterable[Running]:
        mux = self._link.mux
        for channel in [*mux.channels.values()] if mux is not None else ():
            if not channel.over and channel.owner is not None and channel.target != CALLS:
                yield of_link(self.serial, channel)


class _ShortByLink(SocketsFirst):
    """Short clients by the link: a socket of their own would cost 4 ms of CPU, for TLS; others as ever.

    Nobody knows of the first ones what they will be. So as long as few come they have the sockets that wait,
    AT_ONCE and then EACH_SECOND more, which is some per cent of a core; and a crowd goes by the link.
    """

    crowd = SHORT

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._allowed = Bucket(AT_ONCE, EACH_SECOND, self.pool.now())

    def prefers_link(self, client: ClientSocket) -> bool:
        if not super().prefers_link(client):
            return False
        pool, now = self.pool, self.pool.now()
        pool.core.expect(now, AT_ONCE)
        pool.refill()
        return not (pool.core.warm and self._allowed.take(now))


class PeerServerLink(ServerLink):
    """A node that has dialled us. ``instance`` is which run of it."""

    system = "node"
    far = "node"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.carrier = self.channels = _ClientChannels(self, self.listener.data != "socket")

    def happened(self, happening: Happening) -> None:
        channel = getattr(happening, "channel", None)
        if channel is None or channel.target != CALLS:
            super().happened(happening)
        elif isinstance(happening, Over):
            channel.owner.over(happening.reason)

    def _record(self, channel: Channel, reason: Ended, detail: str) -> None:
        if channel.target != CALLS:
            super()._record(channel, reason, detail)

    @property
    def instance(self) -> int:
        """The run of its process, as a number."""
        hello = self.handshake.hello if self.handshake is not None else None
        return int.from_bytes(hello.instance, "big") if hello is not None else 0


class PeerHub:
    """All of them, by name. ``board`` does for these links what it does for agents' (server_link.Hub)."""

    def __init__(
        self,
        me: str,
        board: Hub,
        data: DataSockets,
        report: Report,
        let_in: Callable[[str], bool] = lambda name: True,
    ) -> None:
        """``let_in``: whether a node of this name is one of ours."""
        self.links: dict[str, PeerServerLink] = {}
        self.draining = False
        self.on_up: Callable[[PeerServerLink], None] = lambda link: None
        self.on_down: Callable[[PeerServerLink], None] = lambda link: None
        self._me = me
        self._board = board
        self._data = data
        self._report = report
        self._let_in = let_in

    def carrier(self, name: str) -> Carrier | None:
        """What takes clients to a node; None: it has no link to us."""
        link = self.links.get(name)
        return link.carrier if link is not None else None

    def takes_sessions(self, name: str) -> bool:
        """Whether a node is told which remote session a client is of."""
        link = self.links.get(name)
        return link is not None and link.says_sessions

    def stop(self) -> None:
        """End all."""
        self.draining = True
        for link in [*self.links.values()]:
            link.dismiss("stopping", "the node stops", GoAway.STOPPING)

    # -- what links ask (server_link.Hub)

    def admit(self, link: ServerLink, up: ServerUp) -> None:
        if self.draining:
            raise LinkDenied(GoAway.STOPPING, "the node is stopping", up.serial)
        if up.serial == self._me:
            raise LinkDenied(GoAway.DUPLICATE, f"node {self._me} is this one", up.serial)
        if not up.authenticated or not self._let_in(up.serial):
            raise LinkDenied(GoAway.DENIED, f"{up.serial} is no node of this cluster", up.serial)
        self._board.no_stranger(link)
        old = self.links.get(up.serial)
        if old is not None:
            link.replaced = True
            old.dismiss("replaced", f"by {link.peer}", GoAway.REPLACED)

    def arrived(self, link: ServerLink) -> None:
        assert isinstance(link, PeerServerLink)
        name = link.listener.rules.name
        self._report(LinkUp(link.serial, link.peer, link.system, name, True, link.replaced, link.tls))
        if link.takes_sockets:
            only = link.listener.data == "socket"
            made = SocketsFirst if only else _ShortByLink
            link.carrier = made(self._data, link, link.channels, only)
        self.links[link.serial] = link
        self.on_up(link)

    def leaving(self, link: ServerLink) -> None:
        """It takes no new clients."""
        link.carrier.close()
        if self.links.get(link.serial) is link:
            del self.links[link.serial]
            assert isinstance(link, PeerServerLink)
            self.on_down(link)

    def departed(self, link: ServerLink, reason: str, detail: str, cut: int) -> None:
        lived = round(link.clock.seconds() - (link.up_since or 0.0), 3)
        self._report(LinkDown(link.serial, link.peer, reason, detail, lived, cut))
        self.leaving(link)
        if reason in ENDS_STREAMS:
            link.carrier.end_streams(Ended.LINK_LOST, detail)

    def consented(self, link: ServerLink, session: str, yes: bool, why: str) -> None:
        """Nobody asks a node for that."""

    def offered(self, link: ServerLink, offers: tuple[Offer, ...], answer: Answer | None) -> None:
        """Nor is it asked for offers."""

    def enrol(self, link: ServerLink, payload: bytes) -> bytes:
        raise LinkDenied(GoAway.DENIED, "certificates of nodes are not made here")

    def port_is_open(self, serial: str, target: str) -> bool:
        return False

    def refused(self, link: ServerLink, reason: str, detail: str) -> None:
        self._board.refused(link, reason, detail)

    def refused_for(self, link: ServerLink, word: str) -> int:
        return self._board.refused_for(link, word)

    def attach(self, link: ServerLink, ticket: bytes) -> None:
        self._board.attach(link, ticket)

    def no_stranger(self, link: ServerLink) -> None:
        self._board.no_stranger(link)

    def expects(self, source: str, change: int) -> None:
        self._board.expects(source, change)

    def holds(self, change: int) -> None:
        self._board.holds(change)

    def next_stream(self) -> int:
        return self._board.next_stream()

    def instead(self, link: ServerLink, make: LinkMaker) -> ServerLink:
        return self._board.instead(link, make)
