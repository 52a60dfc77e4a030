"""A model of the ReadyAgent device, as far as a mux can tell: what it answers to which frame, and when.

Its services do what a test tells them; the echo of a CLOSE waits until a test lets it go.

Source: wire/readyagent.md section 2.
"""

from dataclasses import dataclass, field

from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target
from revtunnel.link.legacy import LegacyServerMux
from revtunnel.link.mux import EndOfFile, Over
from revtunnel.streams.commands import Command, decode_connect
from revtunnel.streams.frames import Frame, FrameDecoder, encode_frame
from tests.support.joined import PATTERN, TARGET, End, Stream

__all__ = ["REFUSED", "Device", "Service"]

REFUSED = Target("10.41.51.152", 9)


@dataclass
class Service:
    """A local service's connection."""

    number: int
    client: Stream
    received: bytearray = field(default_factory=bytearray)
    sent: bytearray = field(default_factory=bytearray)
    ended: str = ""  # "refused", "by itself" or "told"


class Device:
    """The device's end, joined to a server's end."""

    def __init__(self, limits: LinkLimits | None = None, asks: bool = True) -> None:
        self.server = End(LegacyServerMux(limits or LinkLimits(), 0.0, asks))
        self.wire = bytearray()  # what it wrote and the server has not read
        self.services: dict[int, Service] = {}
        self.echoes: list[int] = []  # CLOSE frames that it will say a moment later
        self._decoder = FrameDecoder(lambda size, command, channel: None)

    # -- what a test does

    def connect(self, target: Target = TARGET) -> Stream | None:
        """A client comes to the server."""
        return self.server.connect(target)

    def read(self, most: int = 1 << 30) -> None:
        """Read what the server wrote; a refused connect is told after this read."""
        data = bytes(self.server.wire[:most])
        del self.server.wire[:most]
        self._decoder.receive(data)
        refused: list[int] = []
        for frame in self._decoder.frames():
            self._handle(frame, refused)
        for number in refused:
            self._say(Command.CLOSE, number)

    def send(self, service: Service, size: int) -> None:
        """A service has bytes."""
        begin = (service.number * 3 + len(service.sent)) % len(PATTERN)
        data = (PATTERN * (2 + size // len(PATTERN)))[begin : begin + size]
        service.sent += data
        self._say(Command.DATA, service.number, data)

    def end(self, service: Service) -> None:
        """A service ends by itself."""
        self._gone(service, "by itself")
        self._say(Command.CLOSE, service.number)

    def echo(self, which: int = 0) -> None:
        """A moment has passed for one CLOSE."""
        if self.echoes:
            self._say(Command.CLOSE, self.echoes.pop(which % len(self.echoes)))

    def answer(self, most: int = 1 << 30) -> None:
        """The server reads what the device wrote."""
        data = bytes(self.wire[:most])
        del self.wire[:most]
        self.server.read(data)

    def settle(self, echo: bool = True) -> None:
        """Everything is written and read; echoes too, or not."""
        moved = True
        while moved:
            moved = self.server.take() > 0
            self.read()
            while echo and self.echoes:
                self.echo()
            moved = moved or bool(self.wire)
            self.answer()
            self.check()

    def pass_time(self, seconds: float) -> None:
        """The server's clock moves."""
        self.server.now += seconds
        self.server.tick()

    def check(self) -> None:
        """No client was ended for another's reason, or got another's bytes."""
        self.server.check()
        for happening in self.server.story:
            if isinstance(happening, EndOfFile):
                service = happening.channel.owner.other
                assert service is not None, "ended before its CONNECT was read"
                assert service.ended, "ended by a late CLOSE"
            elif isinstance(happening, Over) and happening.reason is Ended.REFUSED:
                assert happening.channel.owner.other.ended in ("refused", "by itself")

    # -- what it is

    def _handle(self, frame: Frame, refused: list[int]) -> None:
        service = self.services.get(frame.channel)
        if frame.command == Command.CONNECT:
            assert service is None, "a number in use was used again"
            assert frame.channel not in self.echoes, "a number was used before its echo"
            self._connect(frame, refused)
        elif frame.command == Command.DATA:
            if service is not None:
                service.received += frame.payload
                assert service.client.sent.startswith(service.received)
            elif frame.payload:
                self._say(Command.CLOSE, frame.channel)
        elif frame.command == Command.CLOSE:
            if service is not None:
                self._gone(service, "told")
                self.echoes.append(frame.channel)
        else:
            raise AssertionError(f"{frame} would bring a real device out of step")

    def _connect(self, frame: Frame, refused: list[int]) -> None:
        number = frame.channel
        client = next(s for s in self.server.streams if s.other is None and s.channel.number == number)
        service = client.other = Service(number, client)
        if decode_connect(frame.payload) == REFUSED:
            service.ended = "refused"
            refused.append(number)
        else:
            self.services[number] = service

    def _gone(self, service: Service, how: str) -> None:
        service.ended = how
        del self.services[service.number]

    def _say(self, command: Command, number: int, payload: bytes = b"") -> None:
        self.wire += encode_frame(command, number, payload)
