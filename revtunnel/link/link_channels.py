"""The channels of a link, as the sockets tied to them see it: what they pass on, and what they are told.

Source: streams/streams.py (Link); wire/link-extension.md.
"""

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IReactorTime

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.reasons import Ended
from revtunnel.link.mux import Data, EndOfFile, Happening, Mux
from revtunnel.streams.channel import Channel

__all__ = ["LinkChannels"]


class LinkChannels:
    """The part of a link between its mux and its sockets; link.py has the part between mux and connection."""

    clock: IReactorTime
    mux: Mux | None
    takes_views = True
    _working: bool  # at frames, behind which it writes what waits and looks whether it is to be held

    # -- what the rest of the link has to provide

    def flush(self) -> None:
        """Write what waits, as far as the transport takes it."""
        raise NotImplementedError

    def write_straight(self, mux: Mux, channel: Channel, data: bytes) -> bool:
        """Write one frame past all queues; False: it has to wait in one."""
        raise NotImplementedError

    def broken(self, error: RemoteError) -> None:
        """The other side broke the wire's rules."""
        raise NotImplementedError

    def hold_or_release(self) -> None:
        """Do not read while sockets do not take what they are owed."""
        raise NotImplementedError

    def happened(self, happening: Happening) -> None:
        """Act on Dial, Opened, Over, Glitch, GoingAway, Stalled."""
        raise NotImplementedError

    # -- from the sockets (streams.Link)

    def send(self, channel: Channel, data: bytes) -> bool:
        if self.mux is None or self.write_straight(self.mux, channel, data):
            return True
        self.mux.send(channel, bytes(data))
        self.flush()
        return not channel.blocked

    def end(self, channel: Channel) -> None:
        if self.mux is not None:
            self.mux.end(channel)
            self.flush()

    def consumed(self, channel: Channel, size: int) -> None:
        if self.mux is None:
            return
        try:
            self.mux.consumed(channel, size, self.clock.seconds())
        except RemoteError as error:
            self.broken(error)
            return
        if not self._working:
            self.flush()
            self.hold_or_release()

    def flushed(self, channel: Channel) -> None:
        if self.mux is not None:
            self._guarded(lambda mux: mux.flushed(channel, self.clock.seconds()))

    def reset(self, channel: Channel, reason: Ended, detail: str) -> None:
        if self.mux is not None and not channel.over:
            self._guarded(lambda mux: mux.reset(channel, reason, detail, self.clock.seconds()))

    # -- to the sockets

    def _guarded(self, step: Any) -> None:
        """Run a step of the mux and act on it; a RemoteError ends the link."""
        try:
            self._act(step(self.mux) or ())
        except RemoteError as error:
            self.broken(error)
            return
        self.flush()

    def _act(self, happenings: Iterable[Happening]) -> None:
        for happening in happenings:
            if isinstance(happening, Data):
                if happening.channel.owner is not None:
                    happening.channel.owner.deliver(happening.payload)
            elif isinstance(happening, EndOfFile):
                if happening.channel.owner is not None:
                    happening.channel.owner.end_of_file()
            else:
                self.happened(happening)
