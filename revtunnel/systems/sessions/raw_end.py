"""The WebSocket of one raw connection to a service, as an End.

Source: next/remote-sessions.md sections 2 and 6; ours.
"""

from collections.abc import Callable
from typing import Any

from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ways.websocket import LENIENT, WebSocketEnd
from revtunnel.sockets.ways.websocket_upgrade import Upgraded
from revtunnel.sockets.ways.websocket_wire import WebSocketLimits, close_code
from revtunnel.systems.sessions.session_seats import HOW_ENDED

__all__ = ["RawEnd"]


class RawEnd(WebSocketEnd):
    """A WebSocket of bytes that counts them, and knows since when it takes none."""

    __slots__ = ("_named", "stuck", "to_client", "to_device", "told")

    def __init__(self, reactor: Any, upgraded: Upgraded, limits: WebSocketLimits) -> None:
        self.to_device = self.to_client = 0  # bytes
        self.told: Callable[[bytes], None] | None = None  # is given a copy of what goes to the client
        self.stuck = False  # the last write was not taken whole
        self._named = False  # why it ends is known, whatever its parts say
        super().__init__(reactor, upgraded, limits, texts="bytes", clean=LENIENT)
        self.origin = upgraded.end.origin

    def read_into(self, view: memoryview) -> int | None:
        """As ``End`` says."""
        size = super().read_into(view)
        self.to_device += size or 0
        return size

    def write(self, data: bytes | memoryview) -> int:
        """As ``End`` says."""
        taken = super().write(data)
        self.to_client += taken
        self.stuck = taken < len(data)
        if taken and self.told is not None:
            self.told(bytes(data[:taken]))
        return taken

    def because(self, ended: Ended, detail: str = "") -> None:
        """As ``WebSocketEnd`` says."""
        if not self._named:
            super().because(ended, detail)

    def because_of(self, word: str) -> None:
        """What ``abort`` is to say when its session ends, or its seat is lost."""
        self._why = close_code(HOW_ENDED.get(word, Ended.OPERATOR)), word
        self._named = True
