"""An EMO machine in the place of a mux: to those who count, list and measure links; it carries nothing.

Source: ours.
"""

from typing import Any

from revtunnel.ground.reasons import GoAway
from revtunnel.link.send_scheduler import Piece
from revtunnel.streams.channel import Channel
from revtunnel.systems.emo.emo_sockets import DataSocketTable

__all__ = ["EmoCounts"]


class _Trip:
    """What a link knows of its path, as rt1's liveness says it."""

    round_trip: float | None = None


class EmoCounts:
    """What is asked of a link's mux, answered for ``table`` of at most ``most`` data sockets."""

    wire = "emo"
    opens = True
    origins = False
    early_read = False

    def __init__(self, table: DataSocketTable, most: int) -> None:
        self.channels: dict[int, Any] = {}
        self.liveness = _Trip()
        self._table = table
        self._most = most

    @property
    def running(self) -> int:
        """Clients that are served or wait."""
        return self._table.running

    @property
    def free_numbers(self) -> int:
        """Clients that may still come."""
        return max(0, self._most - self._table.running)

    def take(self, quantum: int, now: float) -> tuple[list[Piece], list[Any], list[Any]]:
        """Nothing is queued here."""
        return [], [], []

    def goaway(self, reason: GoAway, retry_after: int, detail: str, place: str = "") -> None:
        """The wire has no word for it."""

    def lost(self) -> list[Channel]:
        """Streams are cut, or go on, one by one."""
        return []
