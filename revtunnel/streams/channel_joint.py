"""A channel of one link joined with a connection that leads to a device, in the form of ``sockets/relay.py``.

The rules are those of a ``ChannelSocket``, which this is one of: each side, when full, stops the other; each
end of file goes on by itself; a cut of either is a reset of the other. ``ended`` is told once, when the
connection is closed; the channel then has what it still owes in its own queue.

Source: streams/streams.py; sockets/relay.py; ours.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from revtunnel.ground.reasons import Ended
from revtunnel.sockets.end_transport import in_words
from revtunnel.sockets.ends import End
from revtunnel.streams.streams import ChannelSocket, Link

__all__ = ["ChannelJoint"]


class ChannelJoint(ChannelSocket):
    """``near`` is the channel, ``far`` the connection."""

    def __init__(
        self,
        reactor: Any,
        far: End,
        link: Link,
        channel: Any,
        held: list[bytes],
        end_came: bool,
        ended: Callable[[Ended, str], None],
    ) -> None:
        self._of = channel  # also after its end
        self._held = held  # of the channel, until ``start``
        self._end_waits = end_came
        self._ended = ended
        self._why: tuple[Ended, str] | None = None
        super().__init__(reactor, far)
        self.attach(link, channel)

    @property
    def to_far(self) -> int:
        """Payload bytes of the channel that came."""
        return int(self._of.bytes_received)

    @property
    def to_near(self) -> int:
        """Payload bytes that the channel sent."""
        return int(self._of.bytes_sent)

    @property
    def held_for_far(self) -> int:
        """Bytes that the connection has not taken."""
        return self._owed

    @property
    def held_for_near(self) -> int:
        """Bytes that the channel has not sent."""
        return int(self._of.queued)

    @property
    def ended(self) -> tuple[bool, bool]:
        """Whether the channel's, and the connection's, end of file came."""
        return self._end_came, self._read_ended

    def start(self, rest: bytes) -> None:
        """Begin; ``rest`` is what the connection has said already."""
        held, self._held = self._held, []
        for data in held:
            self.deliver(data)
        if rest:
            self.dataReceived(rest)
        if self._end_waits:
            self.end_of_file()
        self.may_read()

    def abort(self, reason: Ended = Ended.RESET_BY_PEER, detail: str = "") -> None:
        """End it with resets on both sides."""
        self._why = self._why or (reason, detail)
        link, channel = self.link, self.channel
        self.link = self.channel = None
        if link is not None and channel is not None:
            channel.owner = None
            link.reset(channel, reason, detail)
        super().abort()

    def over(self, reason: Ended) -> None:
        if reason is not Ended.CLOSED:
            self._why = self._why or (reason, f"near: {reason.word}")
        super().over(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted calls this."""
        if self._why is None and not self._finished:
            self._why = Ended.RESET_BY_PEER, f"far: {in_words(reason)}"
        super().connectionLost(reason)
        self._ended(*(self._why or (Ended.CLOSED, "")))
