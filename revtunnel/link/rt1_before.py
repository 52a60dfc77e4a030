"""What stands before a CONNECT on an rt1 link: its session, its client, the streams that go before it.

Rule of this file: WITHIN, ORIGIN and AFTER come in this order, each once at most, and for the very channel of
the CONNECT that is next; anything else ends the link.

Source: docs/link-protocol.rst; ours.
"""

from typing import NamedTuple

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.origin import Origin, decode_origin
from revtunnel.link.mux import Happening
from revtunnel.link.rt1_recall import Rt1Recall
from revtunnel.streams.commands import After, decode_after
from revtunnel.streams.frames import Frame

__all__ = ["Rt1Before"]


class Before(NamedTuple):
    """What stood before a CONNECT."""

    number: int
    session: str = ""
    origin: Origin | None = None
    after: After | None = None


class Rt1Before(Rt1Recall):
    """The agent's side of it."""

    _announced: Before | None = None  # whose CONNECT is next

    def _taken_before(self, channel: int) -> Before:
        """What stood before this channel's CONNECT, which is here."""
        before = self._announced or Before(channel)
        self._announced = None
        if before.number != channel:
            what = "AFTER" if before.after else "ORIGIN" if before.origin else "WITHIN"
            raise RemoteError(f"CONNECT for channel {channel} behind {what} for {before.number}")
        return before

    def _within(self, frame: Frame, now: float) -> list[Happening]:
        """Of which session the CONNECT behind it is."""
        if self._announced is not None:
            raise RemoteError(f"WITHIN for channel {frame.channel} instead of CONNECT")
        self._announced = Before(frame.channel, frame.payload.hex())
        return []

    def _origin(self, frame: Frame, now: float) -> list[Happening]:
        """Where the client of the CONNECT behind it comes from."""
        before = self._announced or Before(frame.channel)
        if before.origin is not None or before.after is not None or before.number != frame.channel:
            raise RemoteError(f"ORIGIN for channel {frame.channel} instead of CONNECT")
        self._announced = before._replace(origin=decode_origin(frame.payload))
        return []

    def _after(self, frame: Frame, now: float) -> list[Happening]:
        """Which streams are to be closed before the CONNECT behind it is dialled for."""
        before = self._announced or Before(frame.channel)
        if before.after is not None or before.number != frame.channel:
            raise RemoteError(f"AFTER for channel {frame.channel} instead of CONNECT")
        self._announced = before._replace(after=decode_after(frame.payload))
        return []
