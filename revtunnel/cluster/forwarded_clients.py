"""A client that another node forwards: at its device's node it is a client like those of its ports.

What differs is how it is told that the device answered, or why not: by OPENED or RESET on the data socket of
the node that asked, which carries its raw bytes from then on. Its address is the one that ORIGIN names.

Source: next/cluster.md section 4; carriers/data_opening.py.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionAborted
from twisted.python.failure import Failure

from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.origin import Origin
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ends import End
from revtunnel.streams.clients import Clients, ClientSocket, Relayed
from revtunnel.streams.commands import Command, encode_reset
from revtunnel.streams.frames import encode_frame

__all__ = ["ForwardedSocket"]

OPENED = encode_frame(Command.OPENED, 0)


class ForwardedSocket(ClientSocket):
    """A client on a node's data socket, on which CONNECT was said. ``gone`` is called once it is."""

    def __init__(
        self,
        reactor: Any,
        end: End,
        clients: Clients,
        origin: Origin | None,
        gone: Callable[["ForwardedSocket"], None],
        first: bool = False,
    ) -> None:
        """``first``: whoever forwards it sends what it says before he has our answer."""
        super().__init__(reactor, end, clients, origin.peer if origin is not None else end.peer, origin)
        self.forwarded = True
        self.unread = True  # what befell it since CONNECT, a data socket that is no more was told
        self._answered = False
        self._first = first
        self._gone = gone

    @property
    def origin(self) -> Origin | None:
        """As it was said; never the addresses of this connection, which are those of who forwards it."""
        return self._origin

    @property
    def speaks_first(self) -> bool:
        """Not where the other node sends nothing before it has our answer."""
        return self._first

    def begin(self) -> None:
        """By a link nothing is read before our answer: whatever has us read there says that it is given."""

    def relay(self, far: End, ended: Callable[[Ended, str], None], limits: RelayLimits) -> Relayed:
        if not (self._lost or self._answered) and self._end is not None:
            try:
                self._say(OPENED)
            except OSError:
                self.abort()
                raise
        return super().relay(far, ended, limits)

    def may_read(self) -> None:
        self._open()
        super().may_read()

    def deliver(self, data: bytes) -> None:
        self._open()
        super().deliver(data)

    def end_of_file(self) -> None:
        self._open()
        super().end_of_file()

    def abort(self, reason: Ended = Ended.RESET_BY_PEER, detail: str = "") -> None:
        """Before the device has answered: say why, and close in order."""
        end, said = self._end, encode_frame(Command.RESET, 0, encode_reset(reason, detail))
        if self._lost or self._answered or end is None:
            super().abort(reason, detail)
            return
        try:
            self._say(said)
        except OSError:
            super().abort(reason, detail)
            return
        if self.transport is not None:
            self.transport.unregisterProducer()
            self.transport.loseConnection()
        else:
            self.watch(None)
            self._lost = True
            end.close()
            self._reactor.callLater(0, self.connectionLost, Failure(ConnectionAborted()))

    def finished(self) -> None:
        super().finished()
        self._gone(self)

    def _open(self) -> None:
        if not (self._answered or self._lost) and self.transport is not None:
            self._say(OPENED)

    def _say(self, frame: bytes) -> None:
        """The answer, on an end on which nothing was written: the kernel has room for it."""
        self._answered = True
        if self.transport is not None:
            self.transport.write(frame)
        elif self._end is not None and self._end.write(frame) < len(frame):
            raise ConnectionResetError("it did not take the answer")
