"""An agent's data sockets between a server and services that a test plays, over loopback, with either plane.

The agent is ``AgentData`` and its ``Dialler``; all sockets are real. ::

    with agent_site("native") as site:
        socket = site.attached()
        socket.send(site.connect + b"question")
"""

import contextlib
import gc
import socket
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import Deferred

from revtunnel.carriers.agent_data import AgentData
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, DataSocketsMissing
from revtunnel.ground.limits import AgentLimits, RelayLimits
from revtunnel.ground.targets import Offer, Target
from revtunnel.sockets.data_plane import DataPlane
from revtunnel.sockets.ends import End
from revtunnel.sockets.opening import open_end
from revtunnel.streams.commands import TICKET_SIZE, Command, decode_reset, encode_connect
from revtunnel.streams.dialler import Dialler
from revtunnel.streams.frames import encode_frame
from tests.support.epoll import Loop, own_reactor

__all__ = ["HOST", "OPENED", "AgentSite", "agent_site", "asks"]

HOST = "127.0.0.1"
OPENED = encode_frame(Command.OPENED, 0)
FIRST = 256  # the number of the first data socket


def asks(target: Target) -> bytes:
    """CONNECT for a target."""
    return encode_frame(Command.CONNECT, 0, encode_connect(target))


class Link:
    """Who brings tickets."""

    serial = "plc-1"

    def __init__(self, peer: str) -> None:
        self.peer = peer


class AgentSite:
    """``plane``: python or native; ``link`` is the one that brings tickets."""

    def __init__(self, loop: Loop, plane: str, limits: AgentLimits | None = None) -> None:
        self.loop = loop
        self.limits = limits or AgentLimits()
        self.stack = contextlib.ExitStack()
        self.server = self.listen()
        self.services = self.listen()
        self.target = Target(HOST, self.services.getsockname()[1])
        self.connect = asks(self.target)
        self.facts: list[Any] = []
        self.port = self.server.getsockname()[1]
        self.link = self.new_link()
        self.dialler = Dialler(loop.reactor, self.limits, (Offer("it", self.target),))
        self.data = AgentData(loop.reactor, self.limits, self.dialler, self._connect, self.facts.append)
        self.plane = DataPlane(loop.reactor) if plane == "native" else None
        self.data.use_plane(self.plane, lambda link: (HOST, self.port))
        self.data.take(self.limits, RelayLimits())
        self.next = FIRST

    def listen(self) -> socket.socket:
        """A listener that does not block."""
        listener = self.stack.enter_context(socket.create_server((HOST, 0), backlog=1000))
        listener.setblocking(False)
        return listener

    def new_link(self) -> Any:
        """A link of the agent's, as far as it is asked anything."""
        return Link(f"{HOST}:{self.port}")

    def _connect(self, link: Any) -> "Deferred[End]":
        return open_end(self.loop.reactor, HOST, self.port, self.limits.connect)

    def close(self) -> None:
        """Nothing stays, neither here nor in the plane."""
        self.data.abort()
        self.until(lambda: self.data.count == 0)
        if self.plane is not None:
            assert len(self.plane) == 0
            self.plane.close()
            self.data._dials = self.plane = None
            self.dialler.on_offer = lambda: None
            self.data.predecessors.elsewhere = lambda link, number: None
            gc.collect()  # it has descriptors
        for call in self.loop.reactor.getDelayedCalls():
            call.cancel()
        self.stack.close()

    # -- acting

    def want(self, count: int = 1, link: Any = None) -> None:
        """So many tickets come."""
        numbers = range(self.next, self.next + count)
        self.next += count
        tickets = [number.to_bytes(4, "big") + bytes(TICKET_SIZE - 4) for number in numbers]
        self.data.wanted(self.link if link is None else link, tickets)

    def attached(self, link: Any = None) -> socket.socket:
        """A ticket, and what the server has of it, behind ATTACH."""
        self.want(1, link)
        number = self.next - 1
        end = self.accepted(self.server)
        frame = encode_frame(Command.ATTACH, 0, number.to_bytes(4, "big") + bytes(TICKET_SIZE - 4))
        assert self.hear(end, len(frame)) == frame
        return end

    def opened(self, said: bytes = b"") -> tuple[socket.socket, socket.socket]:
        """A stream: the server's end and the service's, with what stands behind CONNECT."""
        end = self.attached()
        end.send(self.connect + said)
        service = self.accepted(self.services)
        assert self.hear(end, len(OPENED)) == OPENED
        assert self.hear(service, len(said)) == said
        return end, service

    def accepted(self, listener: socket.socket) -> socket.socket:
        """The next connection there."""
        found: list[socket.socket] = []

        def came() -> bool:
            with contextlib.suppress(BlockingIOError):
                found.append(listener.accept()[0])
            return bool(found)

        self.until(came)
        found[0].setblocking(False)
        return self.stack.enter_context(found[0])

    # -- looking

    def until(self, condition: Any) -> None:
        """Turn the reactor until it is so."""
        self.loop.until(condition)

    def hear(self, end: socket.socket, size: int) -> bytes:
        """So many bytes."""
        heard = bytearray()

        def enough() -> bool:
            with contextlib.suppress(BlockingIOError):
                while len(heard) < size:
                    more = end.recv(size - len(heard))
                    assert more, f"ended after {bytes(heard)!r}"
                    heard.extend(more)
            return len(heard) == size

        self.until(enough)
        return bytes(heard)

    def reset(self, end: socket.socket) -> tuple[Any, str]:
        """The RESET that it is sent, behind which it ends."""
        size = int.from_bytes(self.hear(end, 4)[:2], "big")
        found = decode_reset(self.hear(end, size))
        assert self.loop.ending(end) == "end"
        return found

    def of(self, kind: Any) -> list[Any]:
        """Facts of a kind."""
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def ended(self, count: int = 1) -> list[ChannelEnded]:
        """So many channels have ended, and as many were opened before or had no answer."""
        self.until(lambda: len(self.of(ChannelEnded)) >= count)
        assert {fact.channel for fact in self.of(ChannelOpened)} <= {*range(FIRST, self.next)}
        return self.of(ChannelEnded)

    def missing(self) -> DataSocketsMissing:
        """That sockets are missing was said."""
        self.until(lambda: self.of(DataSocketsMissing))
        (fact,) = self.of(DataSocketsMissing)
        return fact  # type: ignore[no-any-return]


@contextlib.contextmanager
def agent_site(plane: str, limits: AgentLimits | None = None) -> Iterator[AgentSite]:
    """One on a reactor of its own."""
    with own_reactor() as loop:
        site = AgentSite(loop, plane, limits)
        try:
            yield site
        finally:
            site.close()
