"""The clients of one lease, as they come to its listening socket.

A client that cannot be served is refused at once, with a reset, and counted; it is never left hanging.

Source: wire/readyagent.md section 5.7; faults.md N1, N23, N25.
"""

import errno
from collections.abc import Callable
from typing import Any
from typing import Protocol as Typing

from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from revtunnel.ground.origin import Origin
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target
from revtunnel.sockets.ends import End
from revtunnel.streams.channel import Channel
from revtunnel.streams.streams import ChannelSocket, Link

__all__ = ["ClientSocket", "ClientStream", "Clients"]


class ClientStream(Typing):
    """The stream of a client, whatever carries it; also after its end."""

    @property
    def moved(self) -> int:
        """Payload bytes so far, both directions."""

    def end(self, reason: Ended, detail: str) -> None:
        """End it with resets on both sides, if it has not ended."""


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
    """One client, and its stream once it was attached or taken. Until then nobody reads it."""

    def __init__(self, reactor: Any, end: End, clients: "Clients") -> None:
        super().__init__(reactor, end)
        self.since = reactor.seconds()
        self.peer = end.peer
        self.on_lost: Callable[[], None] | None = None  # for whoever has it while it has no channel
        self.carried: ClientStream | None = None  # its stream, once there is one
        self._clients = clients

    @property
    def serial(self) -> str:
        """The device it wants."""
        return self._clients.serial

    @property
    def name(self) -> str:
        """The name of its target."""
        return self._clients.name

    @property
    def target(self) -> Target:
        """Its target."""
        return self._clients.target

    @property
    def session(self) -> str:
        """The remote session that it is of; empty: of none."""
        return self._clients.session

    @property
    def origin(self) -> Origin | None:
        """Its address and the one that it dialled; None: it is gone, or has none."""
        return self._end.origin

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

    def take(self) -> End:
        """Its connection, for whoever carries it in another way than a channel and says ``finished``.

        Raises:
            ConnectionResetError: it is lost, and told so as ever.
        """
        if self._lost:
            raise ConnectionResetError(errno.ECONNRESET, "it left")
        self._lost = True
        return self._end

    def end(self, reason: Ended, detail: str) -> None:
        """End its stream, or turn it away while it has none."""
        if self.carried is not None:
            self.carried.end(reason, detail)
        self.abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self.on_lost is not None:
            self.on_lost()
        self.finished()

    def finished(self) -> None:
        """It is gone, or what was taken is."""
        self._clients.left(self)
        self.carried = None  # who has the one has the other

    def refuse(self, reason: str) -> None:
        """Turn the client away with a reset."""
        self._clients.refused(self, reason)
        self.abort()

    def abort(self) -> None:
        if self.transport is None and not self._lost:
            self._reactor.callLater(0, self.connectionLost, Failure(ConnectionAborted()))
        super().abort()


class Clients:
    """The clients of one target of one device, and what they ask; ``came`` is told of each that connected.

    Args:
        admit: gives a client its stream, or answers with a word that says why not.
        left: it is gone, ``refused`` or not.
        session: the remote session that they are of.
    """

    def __init__(
        self,
        reactor: Any,
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
        self.refused = refused
        self.left = left
        self._reactor = reactor
        self._admit = admit

    def came(self, end: End) -> ClientSocket:
        """A client connected."""
        client = ClientSocket(self._reactor, end, self)
        reason = self._admit(client)
        if reason:
            client.refuse(reason)
        return client
