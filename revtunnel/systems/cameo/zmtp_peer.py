"""One ZeroMQ connection of a CAMEO relay, the listening side of it.

The rules: nothing is taken from a peer before the handshake is over, and that has a deadline; what a read
brings is passed on at once, one write for each peer it is for; a peer that does not take what is written to
it has its messages wait in its outbox, and lost when that is full, whole ones. A part of a message is never
passed on.

Source: wire/cameo.md section 5; faults.md Z1 to Z5, Z8.
"""

import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING
from typing import Protocol as Typing

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.fleet.strangers import NotLetIn, Stranger
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import Report
from revtunnel.ground.limits import CameoLimits
from revtunnel.sockets.end_transport import EndTransport
from revtunnel.sockets.ends import End
from revtunnel.sockets.peeking import has_spoken
from revtunnel.streams.numbers import Tally
from revtunnel.streams.window import CreditPool
from revtunnel.systems.cameo.cameo_admission import CameoAdmission, CameoRules
from revtunnel.systems.cameo.cameo_facts import PeerLeft, PeerRefused, shown
from revtunnel.systems.cameo.cameo_outbox import Outbox, Piece
from revtunnel.systems.cameo.cameo_peers import CameoPeer, PeerUnfit, read_ready
from revtunnel.systems.cameo.zmtp import (
    GREETING,
    SUBSCRIPTIONS,
    check_greeting,
    decode_command,
    decode_ping,
    encode_error,
    encode_pong,
)
from revtunnel.systems.cameo.zmtp_messages import MessageDecoder, ZmtpCommand, ZmtpMessage

__all__ = ["NameNotAllowed", "Switch", "ZmtpListener", "ZmtpPeer"]

UNCOUNTED = 64 * 1024  # bytes of an incomplete message that do not count against the pool
READ = 64 * 1024  # bytes of one reading; what is missing of an image is read into its own room
PARTING = 2.0  # seconds that a peer gets to take its last bytes and to close
# TCP keepalive: a peer whose machine vanished is found out in a minute
KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


class NameNotAllowed(RemoteError):
    """A name from where names are not allowed; the peer may come back, settings may change."""


class ZmtpListener(Typing):
    """What one port of a relay says to its peers and hears from them."""

    ready: bytes  # our READY
    types: frozenset[str]  # of sockets that may connect
    heads: int  # see MessageDecoder
    keep: int
    runs: bool

    def most_bytes(self) -> int:
        """Bytes of one message."""

    def joined(self, owner: "ZmtpPeer", socket_type: str, identity: bytes) -> None:
        """A peer said READY; RemoteError refuses it."""

    def message(self, peer: CameoPeer, message: ZmtpMessage) -> None:
        """A message of a peer that was let in."""

    def command(self, peer: CameoPeer, name: bytes, data: bytes) -> None:
        """A command that is not of the connection itself."""


class Switch(Typing):
    """What a connection needs of its relay."""

    name: str
    clock: IReactorTime
    limits: CameoLimits
    admission: CameoAdmission
    pool: CreditPool
    report: Report
    connections: "dict[ZmtpPeer, None]"

    def slow(self, peer: CameoPeer) -> None:
        """The first message for a peer was dropped."""

    def left(self, peer: CameoPeer) -> None:
        """A peer that had joined is gone."""

    def touch(self, peer: CameoPeer) -> None:
        """Something was put into a peer's outbox."""

    def flush(self) -> None:
        """Write what was put into outboxes."""


@implementer(IPushProducer)
class ZmtpPeer(Protocol):
    """The connection; ``peer`` is what the relay's decisions know of it, None until it was admitted."""

    if TYPE_CHECKING:
        transport: EndTransport  # type: ignore[assignment]

    def __init__(self, switch: Switch, rules: CameoRules, ear: ZmtpListener, end: End) -> None:
        self.peer: CameoPeer | None = None
        self._switch = switch
        self._connection = end
        self._rules = rules
        self._ear = ear
        self._decoder = MessageDecoder(0, switch.limits.frames, ear.heads, ear.keep, ear.runs)
        self._greeting: bytearray | None = bytearray()  # until it is whole
        self._deadline: IDelayedCall | None = None  # of the handshake, then of the parting
        self._silence: IDelayedCall | None = None  # the peer asked to be dropped at its end
        self._ttl = 0.0
        self._idle = Tally(switch.limits.idle_frames, 60.0, "commands that change nothing")
        self._counted = 0  # bytes of the pool that an incomplete message has
        self._stranger: Stranger | None = None  # its place
        self._over = False  # nothing more is taken from this peer, or written to it

    # -- from the transport

    def connectionMade(self) -> None:
        switch, address, origin = self._switch, self._connection.peer, self._connection.origin
        if origin is None:  # reset by now
            self._over = True
            self.transport.abortConnection()
            return
        try:
            self._stranger = switch.admission.enter(
                *(origin.client, origin.server, self._rules, self._give_way),
                partial(has_spoken, self._connection),
            )
        except NotLetIn as refused:
            self._over = True
            switch.report(PeerRefused(switch.name, address, refused.reason, ""))
            self.transport.abortConnection()
            return
        local = switch.admission.is_local(origin.client, origin.server, self._rules)
        outbox = Outbox(switch.limits, switch.pool, self._slow)
        self.peer = CameoPeer(address, local, self._rules, switch.clock.seconds(), outbox, self)
        switch.connections[self] = None
        self._tune()
        self.transport.registerProducer(self, True)
        self.transport.write(GREETING)
        self._deadline = switch.clock.callLater(switch.limits.handshake, self._late)

    def dataReceived(self, data: bytes | memoryview) -> None:
        self._received(data, len(data))

    def filled(self, size: int) -> None:
        """So many bytes were read into the room of a large frame."""
        self._received(None, size)

    def _received(self, data: bytes | memoryview | None, size: int) -> None:
        peer = self.peer
        if self._over or peer is None:
            return
        peer.bytes_received += size
        if self._stranger is not None and not peer.socket_type:
            self._stranger.heard()
        if self._silence is not None:
            self._silence.reset(self._ttl)
        try:
            if data is None:
                self._take(peer, self._decoder.filled(size))
            elif self._greeting is None:
                self._take(peer, self._decoder.units(data))
            else:
                self._take(peer, self._decoder.units(self._greet(self._greeting, data)))
            self.transport.into = self._decoder.room
            if self._decoder.held > UNCOUNTED or self._counted:
                self._count()
        except RemoteError as error:
            self._refuse(error)
        self._switch.flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._leave("lost", "")
        self._cancel()
        if self._stranger is not None:
            self._stranger.leave()
        if self.peer is not None:
            self._switch.connections.pop(self, None)
            self.peer.outbox.clear()
            self._switch.flush()

    def pauseProducing(self) -> None:
        """The transport has more than it likes."""
        if self.peer is not None:
            self.peer.outbox.full = True

    def resumeProducing(self) -> None:
        """The transport took everything: what waited longest comes first."""
        if self.peer is None or self._over:
            return
        outbox = self.peer.outbox
        outbox.full = False
        while not outbox.full and (data := outbox.portion()):
            self.transport.write(data)

    def stopProducing(self) -> None:
        """The transport is lost; ``connectionLost`` says it."""

    # -- from the relay

    @property
    def joined(self) -> bool:
        """Whether the peer's READY came and was accepted, and it is not gone."""
        return self.peer is not None and bool(self.peer.socket_type) and not self._over

    def let_in(self) -> None:
        """Answer the peer's READY; its messages may come from now on."""
        assert self.peer is not None
        self.peer.ready = True
        self._decoder.most_bytes = self._ear.most_bytes()
        self.transport.write(self._ear.ready)

    def flush(self) -> None:
        """Write what this turn brought for the peer."""
        if self.peer is not None and not self._over:
            pieces = self.peer.outbox.turn()
            if pieces:
                self._write(pieces)

    def part(self, reason: str) -> None:
        """Write what waits, end in order, and let the peer come back when it likes."""
        if self._over or self.peer is None:
            return
        outbox = self.peer.outbox
        self._write(outbox.turn())
        for data in iter(outbox.portion, b""):
            self.transport.write(data)
        self._leave(reason, "")
        self.transport.unregisterProducer()
        self.transport.loseWriteConnection()  # and read on: unread input would destroy our last bytes
        self._give_time()

    def cut(self, reason: str, detail: str = "") -> None:
        """End at once."""
        if not self._over:
            self._leave(reason, detail)
            self.transport.abortConnection()

    # -- inside

    def _write(self, pieces: list[Piece]) -> None:
        self.transport.writeSequence(pieces)

    def _greet(self, greeting: bytearray, data: bytes | memoryview) -> bytes | memoryview:
        """Read the greeting; what is behind it."""
        before = len(greeting)
        greeting += data[: len(GREETING) - before]
        if not check_greeting(greeting):
            return b""
        self._greeting = None
        return data[len(GREETING) - before :]

    def _take(self, peer: CameoPeer, units: Iterator[ZmtpMessage | ZmtpCommand]) -> None:
        message = self._ear.message
        for unit in units:
            if type(unit) is ZmtpMessage:
                peer.messages_received += unit.messages
                message(peer, unit)
            else:
                self._command(peer, unit)  # type: ignore[arg-type]
            if self._over:
                return

    def _command(self, peer: CameoPeer, command: ZmtpCommand) -> None:
        if not peer.socket_type:
            self._ear.joined(self, *read_ready(command, self._ear.types))
            self._cancel()
            if self._stranger is not None:
                self._stranger.stays()
            return
        name, data = decode_command(command.body)
        if name not in SUBSCRIPTIONS:
            self._idle.add(self._switch.clock.seconds())
        if not peer.ready:
            return  # before our READY there is nothing to say
        if name == b"PING":
            ttl, context = decode_ping(data)
            self._drop_after(ttl)
            peer.outbox.add(encode_pong(context))
            self._switch.touch(peer)
        else:
            self._ear.command(peer, name, data)

    def _drop_after(self, ttl: float | None) -> None:
        """The peer sends something at least so often from now on."""
        if ttl == self._ttl and self._silence is not None:
            return
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        if ttl is not None:
            self._ttl = ttl
            self._silence = self._switch.clock.callLater(ttl, self._silent)

    def _silent(self) -> None:
        self._silence = None
        self.cut("silent", f"nothing for {self._ttl:g} s")
        self._switch.flush()

    def _count(self) -> None:
        """Have the pool know of an incomplete message."""
        held = self._decoder.held if self._decoder.held > UNCOUNTED else 0
        more = held - self._counted
        if more > 0 and not self._switch.pool.take(more):
            raise RemoteError(f"no room for {held} bytes of a message, pool limit {self._switch.pool.limit}")
        if more < 0:
            self._switch.pool.give(-more)
        self._counted = held

    def _give_way(self, why: str) -> None:
        """Its place is needed for another."""
        self.cut("overloaded", why)

    def _late(self) -> None:
        self._deadline = None
        self._end("silent", f"no READY in {self._switch.limits.handshake:g} s")

    def _refuse(self, error: RemoteError) -> None:
        if self._over:
            return
        if isinstance(error, PeerUnfit):
            self.transport.write(encode_error(str(error)))
        words = {PeerUnfit: "unfit", NameNotAllowed: "name-not-allowed"}
        self._end(words.get(type(error), "protocol"), str(error))

    def _end(self, reason: str, detail: str) -> None:
        """End for a fault of the peer's."""
        if not self._over:
            self._leave(reason, detail)
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            self._give_time()

    def _give_time(self) -> None:
        self._cancel()
        self._deadline = self._switch.clock.callLater(PARTING, self.transport.abortConnection)

    def _leave(self, reason: str, detail: str) -> None:
        """Say once that the peer is gone."""
        peer, switch = self.peer, self._switch
        if self._over or peer is None:
            return
        self._over = True
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None
        if self._counted:
            switch.pool.give(self._counted)
            self._counted = 0
        if not peer.socket_type:
            if reason != "lost":
                switch.report(PeerRefused(switch.name, peer.address, reason, detail))
            return
        seconds = round(switch.clock.seconds() - peer.since, 3)
        sent, dropped = peer.outbox.messages_sent, peer.outbox.dropped
        received, name = peer.messages_received, shown(peer.identity)
        switch.report(
            PeerLeft(switch.name, peer.address, name, reason, detail, seconds, received, sent, dropped)
        )
        switch.left(peer)

    def _slow(self) -> None:
        if self.peer is not None:
            self._switch.slow(self.peer)

    def _cancel(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _tune(self) -> None:
        self.transport.read_size = READ
        self.transport.gives_views = True
        for option, seconds in KEEPALIVE:
            with contextlib.suppress(OSError):
                self._connection.sock.setsockopt(socket.IPPROTO_TCP, option, seconds)
