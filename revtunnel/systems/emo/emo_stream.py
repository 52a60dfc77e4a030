"""An EMO data socket, at either end: raw bytes both ways, and a terminator where a stream ends.

It is the ``Link`` (streams.py) of one client or device socket at a time, and outlives it. What comes while
nobody is joined to it waits here, within a limit, and is the next stream's. Either side, when full, stops the
other; nothing waits for more bytes than could still be a terminator.

Source: wire/emo.md sections 1 to 3; house.md rule 3.
"""

from typing import Any
from typing import Protocol as Typing

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from revtunnel.ground.limits import EmoLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.hangups import is_cut
from revtunnel.streams.streams import ChannelSocket
from revtunnel.systems.emo.emo import TERMINATOR, EndFinder

__all__ = ["EmoChannel", "EmoDataSocket", "EmoOwner"]

PARTING = 2.0  # seconds that the last bytes on a data socket get


class EmoChannel:
    """One stream over a data socket, in the form that a ``ChannelSocket`` knows."""

    __slots__ = ("blocked", "bytes_received", "bytes_sent", "number", "over", "owner", "since")

    def __init__(self, number: int, since: float) -> None:
        self.number = number
        self.since = since
        self.owner: Any = None
        self.blocked = False
        self.over = False
        self.bytes_sent = 0  # on the data socket
        self.bytes_received = 0


class EmoOwner(Typing):
    """Who decides about a data socket: the command socket it belongs to."""

    def end_came(self, socket: "EmoDataSocket") -> None:
        """The terminator."""

    def far_ended(self, socket: "EmoDataSocket") -> None:
        """The client's or device's end of file."""

    def far_lost(self, socket: "EmoDataSocket", reason: Ended, detail: str) -> None:
        """The client or device is gone without an end in order."""

    def socket_lost(self, socket: "EmoDataSocket", detail: str) -> None:
        """The data socket is gone, or cannot be used any more."""


@implementer(IPushProducer)
class EmoDataSocket:
    """Owned by a connection's Protocol, which passes ``received`` and ``lost`` on.

    ``early``: the other end may speak before we say who is joined. So the server may, whose C goes another
    way; an agent that does is at fault, and its bytes must not reach the next client.
    """

    def __init__(
        self, clock: IReactorTime, transport: Any, owner: EmoOwner, limits: EmoLimits, early: bool = True
    ) -> None:
        self.clock = clock
        self.owner = owner
        self.slot: Any = None  # the owner's
        self.channel: EmoChannel | None = None
        self._transport = transport
        self._limits = limits
        self._far: ChannelSocket | None = None
        self._finder = EndFinder()
        self._early = b""  # came while nobody was joined
        self._may_be_early = early
        self._parting: IDelayedCall | None = None
        self._nuls: IDelayedCall | None = None
        self._incoming = False  # a stream of the other end runs: bytes are its, until the terminator
        self._owed = 0  # bytes given to the far socket that it has not taken
        self._held = False
        self._lost = False
        transport.registerProducer(self, True)

    # -- from its connection

    def received(self, data: bytes) -> None:
        """Bytes of the other end."""
        if self._lost:
            return
        self._early += data
        if self._incoming:
            self._take_early()
        if self._early and not self._may_be_early and not self._lost:
            self.abort()
            self.owner.socket_lost(self, "bytes where no stream was open")
        self._hold_or_release()

    def lost(self, detail: str) -> None:
        """The connection is gone. What was held back is dropped with it: the stream was cut."""
        for timer in (self._parting, self._nuls):
            if timer is not None and timer.active():
                timer.cancel()
        if not self._lost:
            self._lost = True
            self.owner.socket_lost(self, detail)

    def pauseProducing(self) -> None:
        """The other end does not take what is written."""
        if self.channel is not None:
            self.channel.blocked = True

    def resumeProducing(self) -> None:
        """It has taken everything."""
        if self.channel is not None and self.channel.blocked:
            self.channel.blocked = False
            if self._far is not None:
                self._far.may_read()

    def stopProducing(self) -> None:
        """The connection is lost; ``lost`` says it."""

    # -- from its owner

    def join(self, far: ChannelSocket, channel: EmoChannel) -> None:
        """Carry this client's or device's stream from now on."""
        self.channel, self._far, self._owed = channel, far, 0
        far.attach(self, channel)  # type: ignore[arg-type]
        self._begin()
        if self._far is far:
            far.may_read()

    def discard(self) -> None:
        """Nobody is there for this stream: drop what comes until its end."""
        self._begin()

    def send_end(self) -> None:
        """The terminator, behind what was sent."""
        if not self._lost:
            self._transport.write(TERMINATOR)

    def let_go(self) -> ChannelSocket | None:
        """The stream is over: whoever was joined, for the owner to end as it must."""
        far, self._far, self.channel = self._far, None, None
        self._hold_or_release()
        return far

    def close(self) -> None:
        """Close the connection, within a bounded time; nothing more is heard of it."""
        if not self._lost:
            self._lost = True
            self._transport.unregisterProducer()
            self._transport.resumeProducing()  # or its end would not be noticed
            self._transport.loseConnection()
            self._parting = self.clock.callLater(PARTING, self._transport.abortConnection)

    def abort(self) -> None:
        """The same with a reset."""
        if not self._lost:
            self._lost = True
            self._transport.abortConnection()

    def look(self) -> None:
        """Notice its reset, and that of whoever is joined, while they are not read; to be asked often."""
        if self._far is not None:
            self._far.look()
        handle = self._transport.getHandle() if self._held and not self._lost else None
        if handle is not None and is_cut(handle):
            self._transport.abortConnection()

    # -- from the client or device (streams.Link)

    def send(self, channel: EmoChannel, data: bytes) -> bool:
        if channel is not self.channel or self._lost:
            return True
        channel.bytes_sent += len(data)
        self._transport.write(data)  # may call pauseProducing before it returns
        return not channel.blocked

    def end(self, channel: EmoChannel) -> None:
        if channel is self.channel:
            self.owner.far_ended(self)

    def consumed(self, channel: EmoChannel, size: int) -> None:
        if channel is self.channel:
            self._owed -= size
            self._hold_or_release()

    def flushed(self, channel: EmoChannel) -> None:
        """Nothing: the owner knows when both ends were said."""

    def reset(self, channel: EmoChannel, reason: Ended, detail: str) -> None:
        if channel is self.channel:
            self.owner.far_lost(self, reason, detail)

    # -- inside

    def _begin(self) -> None:
        self._incoming = True
        self._finder.again()
        self._take_early()
        self._hold_or_release()

    def _take_early(self) -> None:
        early, self._early = self._early, b""
        payload, rest = self._finder.feed(early)
        self._pass_on(payload)
        if self._finder.held and (self._nuls is None or not self._nuls.active()):
            self._nuls = self.clock.callLater(self._limits.nul_wait, self._release_nuls)
        if self._finder.ended:
            self._incoming, self._early = False, rest
            self.owner.end_came(self)

    def _pass_on(self, payload: bytes) -> None:
        if payload and self.channel is not None and self._far is not None:
            self.channel.bytes_received += len(payload)
            self._owed += len(payload)
            self._far.deliver(payload)

    def _release_nuls(self) -> None:
        """Bytes of a message whose last ones are NULs."""
        if self._incoming and not self._lost:
            self._pass_on(self._finder.release())

    def _hold_or_release(self) -> None:
        hold = self._owed >= self._limits.held or len(self._early) >= self._limits.held
        if hold != self._held and not self._lost:
            self._held = hold
            if hold:
                self._transport.pauseProducing()
            else:
                self._transport.resumeProducing()
