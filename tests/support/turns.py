"""A TLS client whose connection two threads may use: one reads while the other writes.

Python before 3.13 lets both into OpenSSL at once, and what one of them is told may be the other's: a reader
that only had to wait was told of an end. Here they take turns, and wait for the socket outside of OpenSSL.

::

    context = trusting("ca.pem")
"""

import select
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

__all__ = ["InTurns", "trusting"]


class InTurns(ssl.SSLSocket):
    """``recv``, ``send`` and ``sendall`` as ever; time-outs are kept."""

    _turn: threading.Lock
    _patience: float | None

    def do_handshake(self, block: bool = False) -> None:
        """The handshake is one thread's; what follows is not."""
        super().do_handshake(block)
        self._turn, self._patience = threading.Lock(), self.gettimeout()
        super().settimeout(0)

    def settimeout(self, value: float | None) -> None:
        """As ever."""
        if hasattr(self, "_turn"):
            self._patience = value
        else:
            super().settimeout(value)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """As ever."""
        return self._in_turn(super().recv, buflen, flags)

    def send(self, data: Any, flags: int = 0) -> int:
        """As ever; ``sendall`` is many of these."""
        return self._in_turn(super().send, data, flags)

    def _in_turn(self, call: Callable[..., Any], *arguments: Any) -> Any:
        if not hasattr(self, "_turn"):
            return call(*arguments)
        end = None if self._patience is None else time.monotonic() + self._patience
        while True:
            try:
                with self._turn:
                    return call(*arguments)
            except (ssl.SSLWantReadError, BlockingIOError):  # the latter once ``shutdown`` has ended TLS
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            poll = select.poll()
            poll.register(self, events)
            if not poll.poll(None if end is None else max(0.0, end - time.monotonic()) * 1000):
                raise TimeoutError("timed out")


def trusting(authority: str) -> ssl.SSLContext:
    """A client's context, by whose connections this is so."""
    context = ssl.create_default_context(cafile=authority)
    context.sslsocket_class = InTurns
    return context
