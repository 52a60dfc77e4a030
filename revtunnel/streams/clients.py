"""The clients of one lease, as they come to its listening socket.

A client that cannot be served is refused at once, with a reset, and counted; it is never left hanging.

Source: wire/readyagent.md section 5.7; faults.md N1, N23, N25.
"""

import errno
from collections.abc import Callable
from typing import Any
from typing import Protocol as Typing

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.origin import Origin
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import RECORD, End
from revtunnel.sockets.relay import Relay
from revtunnel.sockets.watch import Watch, Watched
from revtunnel.streams.channel import Channel
from revtunnel.streams.commands import After
from revtunnel.streams.streams import ChannelSocket, Link

__all__ = ["ClientSocket", "ClientStream", "Clients", "Relayed"]

# words of refusals that are not for want of something
_REFUSED = {
    "device-absent": Ended.LINK_LOST,
    "draining": Ended.OPERATOR,
    "expired": Ended.NOT_ALLOWED,
    "not-allowed": Ended.NOT_ALLOWED,
}


_early = memoryview(bytearray(RECORD))


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

    def start(self, rest: bytes, unsent: bytes = b"", sent: int = 0) -> None:
        """Begin, with what the device has said already, and what is still to be said to it before all else.

        ``sent``: bytes that were sent to it before.
        """

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
    """One client, and its stream once it was attached or taken. Until then nobody reads it."""

    may_wait = False  # for a device that is away
    forwarded = False  # by another node, so that it is not forwarded again
    named: Target | None = None  # what another node is asked for in place of its target
    not_there: Callable[[], None] | None = None  # what to do once that node says that its device is not there
    who = "client"

    def __init__(
        self, reactor: Any, end: End | None, clients: "Clients", peer: str, origin: Origin | None = None
    ) -> None:
        super().__init__(reactor, end)
        self.since = reactor.seconds()
        self.peer = peer
        self.on_lost: Callable[[], None] | None = None  # for whoever has it while it has no channel
        self.carried: ClientStream | None = None  # its stream, once there is one
        self.after: After | None = None  # whose end its agent is to wait for
        self.early = b""  # what was read of it before its target answered, for whoever brings it there
        self.unread = False  # there may be more behind that, or its end of file
        self.on_finished: Callable[[], None] | None = None  # for who has it beside its stream
        self._clients = clients
        self._origin = origin

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
        """Its target, as its carrier is told."""
        return self.named or self._clients.target

    @property
    def session(self) -> str:
        """The remote session that it is of; empty: of none."""
        return self._clients.session

    @property
    def origin(self) -> Origin | None:
        """Its address and the one that it dialled; None: it is gone, or has none."""
        return self._origin if self._end is None else self._end.origin

    @property
    def waits(self) -> bool:
        """Whether it has no channel yet and is still there."""
        return self.channel is None and self.on_lost is None and not self._lost

    @property
    def has_ended(self) -> bool:
        """Whether its end of file was read; while nobody reads it, or a relay does, ask ``fileno``."""
        return self._read_ended

    def fileno(self) -> int:
        """Its descriptor; -1: it has none, or none any more."""
        return self._end.fileno() if self._end is not None else -1

    def is_here(self) -> bool:
        """Whether it has not reset: asked of the kernel, before work is begun for one that has waited."""
        self.look()
        return not self._lost

    @property
    def moved(self) -> int:
        """Payload bytes of its stream so far, both directions."""
        return self.carried.moved if self.carried is not None else 0

    @property
    def speaks_first(self) -> bool:
        """Whether its first bytes may go before its target has answered: not if that may be another yet."""
        return self.not_there is None

    def begin(self) -> None:
        """What it has said goes with its CONNECT."""
        if isinstance(self.transport, EndTransport) and self.speaks_first:
            self.may_read()
            self.transport.doRead()

    def may_read(self) -> None:
        early, self.early = self.early, b""
        if early:
            self.dataReceived(early)
        super().may_read()

    def read_early(self) -> bytes:
        """What it says while nobody else reads it. OSError: it is cut, or told so already."""
        if self._end is None or self.transport is not None or len(self.early) >= RECORD:
            self.unread = True
            return b""
        size = self._end.read_into(_early) or 0
        self.unread = not size or self._end.slack is None or size >= RECORD - self._end.slack
        said = bytes(_early[:size])
        self.early += said
        return said

    def watch(self, watched: Watched | None) -> None:
        """Tell somebody what happens to it while nobody else reads it; None: nobody any more."""
        if self._end is None or self._end.fileno() < 0:
            return
        watch = Watch.of(self._reactor)
        if watched is None and self._end.is_watched:
            watch.leave(self._end.fileno())
        elif watched is not None and self._end.is_watched:  # as whoever had it before has left it
            watch.belongs(watched)
            watch.again(self._end.fileno())
        elif watched is not None:
            watch.add(watched)
        self._end.is_watched = watched is not None

    def attach(self, link: Link, channel: Channel) -> None:
        super().attach(link, channel)
        self.carried = _OnLink(link, channel)

    def relay(self, far: End, ended: Callable[[Ended, str], None], limits: RelayLimits) -> Relayed:
        """Have its bytes go to ``far`` and back. It is told nothing more; whoever has that says ``finished``.

        Raises:
            OSError: it is lost, and told so as ever.
        """
        if self._lost:
            raise ConnectionResetError(errno.ECONNRESET, "it left")
        if self._end is None:
            transport: Any = self.transport
            joined: Relayed = transport.join(self._reactor, far, ended)
        else:
            joined = Relay(self._reactor, self._end, far, ended, limits)
        self._lost = True
        return joined

    def hand_over(self) -> End | None:
        """Give its connection to somebody else, as if it had not come; None: it has none, or was read.

        Whoever has it says ``finished``.
        """
        end = self._end
        if self._lost or end is None or self.transport is not None or self.early or not end.gathers:
            return None
        self.watch(None)
        self._lost = True
        return end

    def abort(self, reason: Ended = Ended.RESET_BY_PEER, detail: str = "") -> None:
        if self.transport is None and not self._lost:
            self.watch(None)
        super().abort(reason, detail)

    def over(self, reason: Ended) -> None:
        if reason is not Ended.NOT_HERE or not self.looks_again():
            super().over(reason)

    def looks_again(self) -> bool:
        """The node that it was forwarded to has not its device: whether it goes elsewhere, as if new."""
        again, self.not_there = self.not_there, None
        if again is None or self._lost:
            return False
        if self.transport is not None:
            try:
                self._end = self.transport.take()
            except OSError:
                return False
            self.transport = None  # type: ignore[assignment]
        self.link = self.channel = self.carried = None
        again()
        return True

    def end(self, reason: Ended, detail: str) -> None:
        """End its stream, or turn it away while it has none."""
        if self.carried is not None:
            self.carried.end(reason, detail)
        self.abort(reason, detail)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self.on_lost is not None:
            self.on_lost()
        self.finished()

    def finished(self) -> None:
        """It is gone, or what was taken is."""
        self._clients.left(self)
        if self.on_finished is not None:
            self.on_finished()
        self.carried = None  # who has the one has the other

    def refuse(self, reason: str) -> None:
        """Turn the client away with a reset."""
        self._clients.refused(self, reason)
        self.abort(_REFUSED.get(reason, Ended.OUT_OF_RESOURCES), reason)


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

    # one that has its stream already; one that is gone again: of who serves them himself (carriers/doors.py)
    joined: Callable[[ClientSocket], None] = staticmethod(lambda client: None)
    passed: Callable[[], None] = staticmethod(lambda: None)

    def came(self, end: End) -> ClientSocket:
        """A client connected."""
        client = self.client(end)
        self.let_in(client)
        return client

    def came_by(
        self,
        begin: Callable[[ClientSocket], None],
        peer: str,
        origin: Origin | None,
        forwarded: bool = False,
    ) -> None:
        """A client came by a channel; ``begin`` gives it its transport."""
        peer = origin.peer if forwarded and origin is not None else peer
        client = ClientSocket(self._reactor, None, self, peer, origin)
        client.forwarded = forwarded
        begin(client)
        self.let_in(client)

    def client(self, end: End) -> ClientSocket:
        """One that nobody has judged yet, for ``let_in``."""
        return ClientSocket(self._reactor, end, self, end.peer)

    def let_in(self, client: ClientSocket) -> None:
        """Give it its stream, or turn it away."""
        reason = self._admit(client)
        if reason:
            client.refuse(reason)
