"""A path between agent and server whose round trips are counted: what is under way waits until it is let go.

Rule of this file: no clock. A held path keeps what either side says, its end of file as well; ``trip`` lets
all of it go one way. So how many trips something takes is counted, whatever the machine does meanwhile.

::

    path = Path()
    with DataWorld(path=path.before) as world:   # free, as any path
        path.held = True
        path.trip(to_server=False); path.trip(to_server=True)     # one round trip
"""

import contextlib
import socket
from typing import Any

from tests.support.epoll import QUIET, Loop

__all__ = ["Path"]


class _Way:
    """One direction of one connection."""

    def __init__(self, path: "Path", near: socket.socket, far: socket.socket, to_server: bool) -> None:
        self.path, self.near, self.far, self.to_server = path, near, far, to_server
        self.waits = bytearray()
        self.ended = self.passed = False  # near has said its end of file; far was told
        self.fileno = near.fileno
        path.ways.append(self)
        path.reactor.addReader(self)

    def logPrefix(self) -> str:
        """Twisted calls this."""
        return "-"

    def doRead(self) -> None:
        """Something is said."""
        try:
            data = self.near.recv(1 << 16)
        except OSError:
            self.close()
            return
        self.waits += data
        if not data:
            self.ended = True
            self.path.reactor.removeReader(self)
        if not self.path.held:
            self.go()

    def go(self) -> None:
        """Let it go."""
        said, self.waits = self.waits, bytearray()
        with contextlib.suppress(OSError):
            self.far.sendall(said)
            if self.ended:
                self.passed = True
                self.far.shutdown(socket.SHUT_WR)
        if all(each.passed for each in self.path.ways if self.near in (each.near, each.far)):
            self.close()

    def close(self) -> None:
        """One side was cut, or both have ended: both are closed."""
        for way in [each for each in self.path.ways if self.near in (each.near, each.far)]:
            self.path.reactor.removeReader(way)
            self.path.ways.remove(way)
        self.near.close()
        self.far.close()

    def connectionLost(self, reason: Any) -> None:
        """Twisted calls this: cut."""
        self.close()


class Path:
    """All connections of an agent to its server."""

    def __init__(self) -> None:
        self.held = False
        self.ways: list[_Way] = []
        self.reactor: Any = None

    def before(self, reactor: Any, port: int) -> int:
        """The port to dial in place of the server's."""
        self.reactor, self._server = reactor, port
        self._listening = socket.create_server(("127.0.0.1", 0))
        reactor.addReader(self)
        return int(self._listening.getsockname()[1])

    def trip(self, loop: Loop, to_server: bool) -> None:
        """What is under way in this direction arrives, and whatever comes of it at once is said."""
        for way in [each for each in self.ways if each.to_server is to_server]:
            way.go()
        loop.settle(lambda: [len(way.waits) for way in self.ways], QUIET)

    def close(self) -> None:
        """No path any more."""
        self.reactor.removeReader(self)
        self._listening.close()
        for way in [*self.ways]:
            if way in self.ways:
                way.close()

    def fileno(self) -> int:
        """Twisted calls this."""
        return self._listening.fileno()

    def logPrefix(self) -> str:
        """Twisted calls this."""
        return "-"

    def doRead(self) -> None:
        """An agent dials."""
        agent = self._listening.accept()[0]
        server = socket.create_connection(("127.0.0.1", self._server))
        for sock in (agent, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _Way(self, agent, server, to_server=True)
        _Way(self, server, agent, to_server=False)

    def connectionLost(self, reason: Any) -> None:
        """Twisted calls this."""
