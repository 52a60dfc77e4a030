"""A model of the ReadyAgent server: what it says for its clients, and what it makes of an agent's frames.

It may send a client's first bytes before its CONNECT, answers a CLOSE by a CLOSE, and uses number 0. Numbers
are few here and come again as soon as both sides have said CLOSE; giving away a number that is in use, which
the real one does after 256 clients, is left to a test that asks for it.

Source: wire/readyagent.md section 3.
"""

from collections import deque
from dataclasses import dataclass, field

from revtunnel.ground.limits import LinkLimits
from revtunnel.link.legacy import LegacyAgentMux
from revtunnel.streams.commands import Command, encode_connect
from revtunnel.streams.frames import FrameDecoder, encode_frame
from tests.support.joined import PATTERN, TARGET, End, Stream

__all__ = ["Client", "RealServer"]


@dataclass
class Client:
    """One client of the real server."""

    number: int
    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)
    connected: bool = False  # its CONNECT was said
    left: bool = False  # it has said its end of file, which became a CLOSE
    ended: bool = False  # the agent's CLOSE came
    service: Stream | None = None


class RealServer:
    """The server's end, joined to an agent's end."""

    def __init__(self, numbers: int, limits: LinkLimits | None = None) -> None:
        self.agent = End(LegacyAgentMux(limits or LinkLimits(), 0.0))
        self.wire = bytearray()
        self.clients: list[Client] = []
        self.at: dict[int, Client] = {}
        self._free = deque([*range(1, numbers), 0])
        self._decoder = FrameDecoder(lambda size, command, channel: None)

    # -- what a test does

    def connect(self, early: int = 0) -> Client | None:
        """A client comes, and perhaps says something before its CONNECT is out."""
        if not self._free:
            return None
        client = Client(self._free.popleft())
        self.clients.append(client)
        self.at[client.number] = client
        if early:
            self.send(client, early)
        self._say(Command.CONNECT, client.number, encode_connect(TARGET))
        client.connected = True
        return client

    def send(self, client: Client, size: int) -> None:
        """A client has bytes; they never look like the question of a server of ours."""
        begin = (client.number * 5 + len(client.sent)) % len(PATTERN)
        data = (PATTERN * (2 + size // len(PATTERN)))[begin : begin + size]
        client.sent += data
        self._say(Command.DATA, client.number, data)

    def leave(self, client: Client) -> None:
        """A client's end of file."""
        client.left = True
        self._say(Command.CLOSE, client.number)

    def read(self, most: int = 1 << 30) -> None:
        """Read what the agent wrote."""
        data = bytes(self.agent.wire[:most])
        del self.agent.wire[:most]
        self._decoder.receive(data)
        for frame in self._decoder.frames():
            client = self.at.get(frame.channel)
            if frame.command == Command.CLOSE:
                self._close(client)
            elif client is None:
                self._say(Command.CLOSE, frame.channel)
            else:
                client.received += frame.payload

    def answer(self, most: int = 1 << 30) -> None:
        """The agent reads what the server wrote."""
        data = bytes(self.wire[:most])
        del self.wire[:most]
        before = len(self.agent.streams)
        self.agent.read(data)
        for service in self.agent.streams[before:]:
            client = next(c for c in self.clients if c.service is None and c.number == service.channel.number)
            client.service, service.other = service, client

    def settle(self) -> None:
        """Everything is written and read."""
        while self.agent.take() + len(self.wire) + len(self.agent.wire):
            self.read()
            self.answer()
            self.check()

    def check(self) -> None:
        """Nobody got another's bytes."""
        self.agent.check()
        for client in self.clients:
            service = client.service
            if service is not None:
                assert client.sent.startswith(service.received)
                assert service.sent.startswith(client.received)

    # -- what it is

    def _close(self, client: Client | None) -> None:
        if client is None:
            return
        client.ended = True
        del self.at[client.number]
        self._free.append(client.number)
        if not client.left:
            self._say(Command.CLOSE, client.number)

    def _say(self, command: Command, number: int, payload: bytes = b"") -> None:
        self.wire += encode_frame(command, number, payload)
