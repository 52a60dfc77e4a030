"""The clients of one lease: a listening socket, and one socket per client.

A client that cannot be served is refused at once, with a reset, and counted; it is never left hanging.

Source: wire/readyagent.md section 5.7; faults.md N1, N23, N25.
"""

from collections.abc import Callable
from typing import Any
from typing import Protocol as Typing

from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.python.failure import Failure

from revtunnel.ground.origin import Origin, origin_of
from revtunnel.ground.policy import RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target
from revtunnel.sockets.addresses import written_address
from revtunnel.sockets.ends import End
from revtunnel.sockets.relay import Relay
from revtunnel.streams.channel import Channel
from revtunnel.streams.streams import ChannelSocket, Link

__all__ = ["ClientFactory", "ClientSocket", "ClientStream", "Relayed"]

# words of refusals that are not for want of something
_REFUSED = {
    "device-absent": Ended.LINK_LOST,
    "draining": Ended.OPERATOR,
    "expired": Ended.NOT_ALLOWED,
    "not-allowed": Ended.NOT_ALLOWED,
}


class ClientStream(Typing):
    """The stream of a client, whatever carries it; also after its end."""

    @property
    def moved(self) -> int:
        """Payload bytes so far, both directions."""

    def end(self, reason: Ended, detail: str) -> None:
        """End it with resets on both sides, if it has not ended."""


class Relayed(Typing):
    """A client joined with the end that leads to its device: a ``Relay``, or a ``ChannelJoint``."""

    @property
    def to_far(self) -> int:
        """Bytes."""

    @property
    def to_near(self) -> int:
        """Bytes."""

    @property
    def held_for_far(self) -> int:
        """Bytes."""

    @property
    def held_for_near(self) -> int:
        """Bytes."""

    @property
    def ended(self) -> tuple[bool, bool]:
        """Whether the client, and the device, has said its end of file."""

    def start(self, early: bytes, rest: bytes) -> None:
        """Begin, with what the client and the device have said already."""

    def abort(self, reason: Ended, detail: str) -> None:
        """End it with resets on both sides."""


class _OnLink:
    """A channel with the link, or the like of one, that carries it."""

    __slots__ = ("_channel", "_link")

    def __init__(self, link: Link, channel: Any) -> None:
        self._link = link
        self._channel = channel

    @property
    def moved(self) -> int:
        return int(self._channel.bytes_sent + self._channel.bytes_received)

    def end(self, reason: Ended, detail: str) -> None:
        self._link.reset(self._channel, reason, detail)


class ClientSocket(ChannelSocket):
    """One client. ``admit`` gives it a channel, or answers with a word that says why not."""

    def __init__(self, clock: IReactorTime, factory: "ClientFactory") -> None:
        self.since = clock.seconds()
        self.peer = "?"
        self.on_lost: Callable[[], None] | None = None  # for whoever has it while it has no channel
        self.carried: ClientStream | None = None  # its stream, once there is one
        self._factory = factory

    @property
    def serial(self) -> str:
        """The device it wants."""
        return self._factory.serial

    @property
    def name(self) -> str:
        """The name of its target."""
        return self._factory.name

    @property
    def target(self) -> Target:
        """Its target."""
        return self._factory.target

    @property
    def session(self) -> str:
        """The remote session that it is of; empty: of none."""
        return self._factory.session

    @property
    def origin(self) -> Origin | None:
        """Its address and the one that it dialled; None: it is gone, or has none."""
        try:
            peer, host = self.transport.getPeer(), self.transport.getHost()
        except OSError:
            return None
        if not (hasattr(peer, "port") and hasattr(host, "port")):
            return None
        return origin_of(peer.host, peer.port, host.host, host.port)

    @property
    def waits(self) -> bool:
        """Whether it has no channel yet and is still there."""
        return self.channel is None and self.on_lost is None and not self._lost

    @property
    def moved(self) -> int:
        """Payload bytes of its stream so far, both directions."""
        return self.carried.moved if self.carried is not None else 0

    def attach(self, link: Link, channel: Channel) -> None:
        super().attach(link, channel)
        self.carried = _OnLink(link, channel)

    def relay(
        self, reactor: Any, far: End, ended: Callable[[Ended, str], None], limits: RelayLimits
    ) -> tuple[Relayed, bytes]:
        """Have its bytes go to ``far`` and back; with what was read already. It is told nothing more.

        Raises:
            OSError: it is lost, and told so as ever.
        """
        if hasattr(self.transport, "join"):
            joint: Relayed = self.transport.join(reactor, far, ended)
            self._lost = True
            return joint, b""
        near, early = self.hand_over()
        return Relay(reactor, near, far, ended, limits), early

    def end(self, reason: Ended, detail: str) -> None:
        """End its stream, or turn it away while it has none."""
        if self.carried is not None:
            self.carried.end(reason, detail)
        self.abort(reason, detail)

    def connectionMade(self) -> None:
        self.peer = written_address(self.transport.getPeer())
        self._factory.clients.add(self)
        super().connectionMade()
        reason = self._factory.admit(self)
        if reason:
            self.refuse(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self.on_lost is not None:
            self.on_lost()
        self.finished()

    def finished(self) -> None:
        """It is gone, or what was handed over is."""
        self._factory.clients.discard(self)
        self._factory.left(self)
        self.carried = None  # who has the one has the other

    def refuse(self, reason: str) -> None:
        """Turn the client away with a reset."""
        self._factory.refused(self, reason)
        self.abort(_REFUSED.get(reason, Ended.OUT_OF_RESOURCES), reason)


class ClientFactory(ServerFactory):
    """The clients of one target of one device. ``session``: the remote session that they are of."""

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        serial: str,
        name: str,
        target: Target,
        admit: Callable[[ClientSocket], str],
        refused: Callable[[ClientSocket, str], None],
        left: Callable[[ClientSocket], None],
        session: str = "",
    ) -> None:
        self.session = session
        self.serial = serial
        self.name = name
        self.target = target
        self.admit = admit
        self.refused = refused
        self.left = left
        self.clients: set[ClientSocket] = set()
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> ClientSocket:
        return ClientSocket(self._clock, self)
