"""How the channels of an rt1 link end: an end of file for each direction, then a last word of each side.

The rule of a channel's end stands in ``channel.py``. A number is free again once both last words were said,
and ours was written.

Source: wire/link-extension.md; docs/link-protocol.rst.
"""

from typing import Any

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.reasons import Ended
from revtunnel.link.mux import Happening, Mux
from revtunnel.streams.channel import Channel, ChannelEvent, ChannelState
from revtunnel.streams.commands import Command, encode_reset
from revtunnel.streams.frames import encode_frame

__all__ = ["Rt1Ends"]


class Rt1Ends(Mux):
    """The ends of rt1's channels; rt1.py has the rest of their lives."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._violations = 0
        self._unsaid = 0  # a bit for each number whose CLOSE, which frees them, waits to be written

    def reset(self, channel: Channel, reason: Ended, detail: str, now: float) -> list[Happening]:
        if channel.allows(ChannelEvent.SEND_RESET):
            channel.step(ChannelEvent.SEND_RESET)
            said = encode_frame(Command.RESET, channel.number, encode_reset(reason, detail))
            self._turns.control(said, asks=True)
        happenings = self._over(channel, reason, detail)
        if channel.state is ChannelState.CLOSED:
            self._forget(channel)
        return happenings

    def flushed(self, channel: Channel, now: float) -> list[Happening]:
        channel.flushed = True
        return self._say_close(channel)

    def _last_of_direction(self, channel: Channel, now: float) -> bytes:
        channel.step(ChannelEvent.SEND_EOF)
        self._say_close(channel)
        return encode_frame(Command.EOF, channel.number)

    def _say_close(self, channel: Channel) -> list[Happening]:
        """Our last word, once both directions ended and all was delivered."""
        if (
            not channel.flushed
            or channel.over
            or channel.state not in (ChannelState.ENDED, ChannelState.GOT_CLOSE)
        ):
            return []
        state = channel.step(ChannelEvent.SEND_CLOSE)
        self._turns.control(encode_frame(Command.CLOSE, channel.number))
        if state is not ChannelState.CLOSED:
            return []
        self._unsaid |= 1 << channel.number
        happenings = self._over(channel, Ended.CLOSED, "")
        self._forget(channel)
        return happenings

    def _last_word_came(
        self, channel: Channel, event: ChannelEvent, reason: Ended, detail: str
    ) -> list[Happening]:
        channel.step(event)
        happenings = self._over(channel, reason, detail)
        self._forget(channel)
        return happenings

    def _answer_reset(self, channel: Channel, reason: Ended, detail: str) -> list[Happening]:
        self._turns.control(encode_frame(Command.CLOSE, channel.number))
        self._unsaid |= 1 << channel.number
        return self._last_word_came(channel, ChannelEvent.GET_RESET, reason, detail)

    def _violation(self, channel: Channel, detail: str, now: float, theirs: bool = False) -> list[Happening]:
        """The other side broke the rules on one channel; ``theirs``: it said its last word with that."""
        happenings = self._glitch(f"channel {channel.number}: {detail}", now)
        if theirs and channel.allows(ChannelEvent.GET_RESET):
            return happenings + self._answer_reset(channel, Ended.PROTOCOL, detail)
        if channel.allows(ChannelEvent.SEND_RESET):
            return happenings + self.reset(channel, Ended.PROTOCOL, detail, now)
        return happenings

    def _overspent(self, channel: Channel, detail: str, now: float) -> list[Happening]:
        self._violations += 1
        if self._violations >= self.limits.violations:
            raise RemoteError(f"flow control broken {self._violations} times: {detail}")
        return self.reset(channel, Ended.FLOW_CONTROL, detail, now)
