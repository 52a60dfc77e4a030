"""The relay of a proxy session: the first end of file or cut dissolves the pair, and the ends go back.

The rules: what the side that left had said is given to the other first, as far as that takes it; no end of
file is passed on here, because a persistent session keeps the side that stays. When ``ended`` is called the
reactor knows neither end any more, and both are the owner's: ``near_left`` and ``far_left`` say who is gone.
After STALLED both are, and are closed.

Source: wire/cccp.md section 2 ("non-persistent close", "two devices, one serial"); ours.
"""

from collections.abc import Callable
from typing import Any

from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ends import End, said
from revtunnel.sockets.relay import Relay

__all__ = ["PairRelay"]


def _keep(end: End) -> None:
    """Leave it open."""


class PairRelay(Relay):
    """``near`` is the client, ``far`` the device."""

    __slots__ = ("_cut_by", "far_left", "near_left")
    is_plain = False

    def __init__(
        self, reactor: Any, near: End, far: End, ended: Callable[[Ended, str], None], limits: RelayLimits
    ) -> None:
        super().__init__(reactor, near, far, ended, limits)
        self.near_left = self.far_left = False
        self._cut_by = ""

    def pass_end(self, end: End) -> bool:
        """Not passed on: the owner decides."""
        return True

    def part(self) -> tuple[bytes, bytes]:
        """Dissolve it now: what client and device have not taken yet; ``ended`` is called with OPERATOR."""
        rest = bytes(self._near.held or b""), bytes(self._far.held or b"")
        if not self.over:
            self._finish(_keep, Ended.OPERATOR, "")
        return rest

    def abort(self, reason: Ended, detail: str = "") -> None:
        """End at once: both sides see a reset."""
        self.near_left = self.far_left = True
        super().abort(reason, detail)

    def cut(self, side: Any, error: OSError) -> None:
        """One side is gone; what it had said before still goes to the other."""
        if self.over:
            return
        self._cut_by = self._cut_by or f"{side.name}: {said(error)}"
        side.read_ended = side.ending = side.write_ended = True
        if side.held is not None:
            side.lost += len(side.held)
            side._hold(None)
        self.check()

    def check(self) -> None:
        """Dissolve when a side has left and the other has all of it."""
        near, far = self._near, self._far
        if self.over:
            return
        self.near_left, self.far_left = near.read_ended, far.read_ended
        if (near.read_ended and far.held is None) or (far.read_ended and near.held is None):
            reason = Ended.RESET_BY_PEER if self._cut_by else Ended.CLOSED
            self._finish(_keep, reason, self._cut_by)
        elif (near.ending or far.ending) and self._patience is None:
            self._wait()
