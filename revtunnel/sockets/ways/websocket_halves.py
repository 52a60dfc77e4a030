"""A WebSocket whose two directions end one by one, as those of TCP do: for what a relay joins to a socket.

A WebSocket has no half-close. So a direction ends with the text message ``eof`` behind its last bytes, and a
close of 1000 comes when both have ended. The rules: any close, and the end of the connection, before both
have ended is a cut; so is any other text, and bytes behind an ``eof``. An abort is a plain reset, for whoever
has read an end of file reads no close any more: the FIN of a balancer that passes a reset on is a cut there
too (``fin_cuts``).

Source: RFC 6455 sections 5.5.1, 5.5.3 and 7; docs/link-protocol.rst "WebSockets"; ours.
"""

import contextlib
import errno
from typing import Any

from revtunnel.sockets.ways.websocket import WebSocketEnd
from revtunnel.sockets.ways.websocket_upgrade import Upgraded
from revtunnel.sockets.ways.websocket_wire import UNSUPPORTED, Bytes, Closed, Happening, WebSocketLimits

__all__ = ["HalfClosingEnd"]

_EOF = "eof"


class HalfClosingEnd(WebSocketEnd):
    """The byte stream of an upgraded connection, each direction with its own end of file."""

    __slots__ = ("_said",)

    def __init__(self, reactor: Any, upgraded: Upgraded, limits: WebSocketLimits) -> None:
        self._said = False  # our end of file is framed
        super().__init__(reactor, upgraded, limits)

    @property
    def fin_cuts(self) -> bool:
        """As ``End`` says; not behind their close."""
        return not self._has_parted

    @property
    def was_cut(self) -> bool:
        """As ``End`` says: they may be gone when our answer to their close comes, which is a reset."""
        return not self._has_parted and super().was_cut

    def close(self) -> None:
        """As ``End`` says; the close is written if the socket takes it, and nobody waits for theirs."""
        with contextlib.suppress(OSError):
            if self.inner.fileno() >= 0 and self._flush():
                self._out = self.wire.close()
                self._flush()
        super().close()

    def abort(self) -> None:
        """As ``End`` says: a reset."""
        self._stop_flusher()
        self.inner.abort()

    def beat(self) -> None:
        """As ``End`` says; what is under way is sign of life enough."""
        busy = self._out or self.wire.waiting or self._begun
        if not (busy or self._said or self._cut is not None) and self.inner.fileno() >= 0:
            self.wire.queue(self.wire.beat())
            self._push()

    # -- inside

    @property
    def _has_parted(self) -> bool:
        """Their close came, behind both ends: what befalls the connection from then on takes nothing away."""
        return self.closed is not None and self._cut is None

    def _last_word(self) -> bytes:
        if self._cut is not None:
            raise self._cut
        if self._said:
            return b""
        self._said = True
        return self.wire.text(_EOF.encode())

    def _happened(self, happening: Happening) -> None:
        if self._ended and isinstance(happening, Bytes):
            happening = self.wire.refuse(UNSUPPORTED, "bytes behind an end of file")
        super()._happened(happening)

    def _text(self, text: str) -> None:
        if text == _EOF and not self._ended:
            self._ended = True
        else:
            super()._text(text)

    def _close_came(self, close: Closed) -> None:
        if not (self._ended and self._said):
            words = "the other side closed the WebSocket in the middle of its stream"
            self._cut = ConnectionResetError(errno.ECONNRESET, words)
