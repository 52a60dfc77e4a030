"""The device's node: what it brings to a node that it has dialled, and how it answers what that asks for.

It is an agent whose offers are not listed but found: CONNECT names a device and its offer (named_targets.py),
and is answered by the code that serves the clients of that device here. The rules: a device that is not here
is answered with NOT_HERE, and never looked for elsewhere; so a stream passes one link between nodes at most.

Source: next/cluster.md section 4; link/agent_link.py; carriers/agent_data.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.protocol import Protocol

from revtunnel.carriers.agent_data import AgentData, AgentSocket
from revtunnel.carriers.data_opening import AwaitConnect
from revtunnel.cluster.forwarded_clients import ForwardedSocket
from revtunnel.cluster.named_targets import CALLS, decode_named, offer_at
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Target
from revtunnel.link.agent_link import AgentLink
from revtunnel.link.mux import GoingAway, Happening
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.streams.channel import Channel
from revtunnel.streams.channel_transport import ChannelTransport
from revtunnel.streams.clients import Clients
from revtunnel.streams.consent_messages import ConsentRequest

__all__ = ["ForwardedStreams", "NoSite", "PeerAgentLink", "PeerData"]


@dataclass(slots=True)
class ForwardedStreams:
    """What the node has for others.

    Attributes:
        clients: of a device that is here, by serial, offer and session; None: it is not here.
        calls: who answers calls of a node, by its name.
        usurped: another process has our name: its link to a node took the place of ours.
    """

    clients: Callable[[str, str, str], Clients | None]
    calls: Callable[[str], Protocol]
    usurped: Callable[[], None] = lambda: None

    def of(self, target: Target, session: str) -> Clients | None:
        """Who takes a client that another node forwards."""
        return self.clients(*offer_at(target), session)


def _absent(target: Target) -> str:
    return f"{offer_at(target)[0]} is not at this node"


class NoSite:
    """A node's links say of which session a client is; for one it is asked by a call (device_answers.py)."""

    def asked(self, link: AgentLink, asked: ConsentRequest) -> None:
        link.consent(asked.session, False, "a node is asked by a call")

    def over(self, session: str) -> None:
        """Nothing is known of it by this link."""

    def link_gone(self, link: AgentLink) -> None:
        """Nobody asked by it."""


class PeerMux(Rt1Mux):
    """rt1, but a CONNECT names an offer of a device."""

    def target_of(self, payload: bytes) -> Target:
        return decode_named(payload)


class PeerAgentLink(AgentLink):
    """Our end of a link to a node that we have dialled; ``node`` is its name."""

    mux_class = PeerMux
    far = "node"
    node = ""
    streams: ForwardedStreams

    def _dial(self, channel: Channel) -> None:
        def opened() -> None:
            self._guarded(lambda mux: mux.opened(channel))

        def begin(protocol: Any) -> None:
            ChannelTransport(self, channel, protocol, opened).start()

        if channel.target == CALLS:
            begin(self.streams.calls(self.node))
            return
        clients = self.streams.of(channel.target, channel.session)
        if clients is None:
            self.reset(channel, Ended.NOT_HERE, _absent(channel.target))
            return
        clients.came_by(begin, self.peer, channel.origin, forwarded=True)

    def happened(self, happening: Happening) -> None:
        super().happened(happening)
        if isinstance(happening, GoingAway) and happening.reason is GoAway.REPLACED:
            self.streams.usurped()

    def _record(self, channel: Channel, reason: Ended, detail: str) -> None:
        """Nothing: the carrier of its device tells of it."""


class PeerSocket(AgentSocket):
    """One data socket that we brought to another node: CONNECT on it makes it a client's."""

    __slots__ = ()
    _data: "PeerData"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._await = AwaitConnect(decode_named)

    def received(self, data: bytes) -> None:
        target = self._await.receive(data)
        if target is None:
            return
        if self._await.early:
            raise RemoteError(f"{len(self._await.early)} bytes behind CONNECT on a data socket of a node")
        if target == CALLS:
            raise RemoteError("calls go by the link")
        clients = self._data.streams.of(target, self.session)
        if clients is None:
            self._target = target
            self._say_reset(Ended.NOT_HERE, _absent(target))
            return
        end = self.release()
        self._data.forget(self)
        self._data.forward(self.link, end, clients, self._await.origin)

    def _over(self, reason: Ended, detail: str) -> None:
        self._data.forget(self)


class PeerData(AgentData):
    """All data sockets that we brought to other nodes, and the clients that came on them."""

    socket_class = PeerSocket
    streams: ForwardedStreams

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._forwarded: dict[ForwardedSocket, Any] = {}  # and by which link

    def forward(self, link: Any, end: Any, clients: Clients, origin: Any) -> None:
        """Somebody forwards a client."""
        client = ForwardedSocket(self.reactor, end, clients, origin, self._gone)
        self._forwarded[client] = link
        clients.let_in(client)

    def link_gone(self, link: Any, dead: bool) -> None:
        super().link_gone(link, dead)
        for client in [each for each, by in self._forwarded.items() if dead and by is link]:
            client.end(Ended.LINK_LOST, "the other node is silent")

    def _gone(self, client: ForwardedSocket) -> None:
        self._forwarded.pop(client, None)
