"""Two muxes joined by real frame decoders, each with an owner that does what it is told and keeps the story.

Nothing moves by itself: ``take`` lets an end write, ``deliver`` lets the other read so many bytes of it, so a
test can cut and delay the wire as it likes. ``settle`` moves everything until nothing is left to move.

What every pair has to keep is watched all the time: a received byte is the next byte that was sent, an end is
told once, bounds of queues and windows hold, and on rt1 each side says one last word per channel and nothing
after it.
"""

from dataclasses import dataclass, field
from typing import Any

from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.origin import Origin
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target
from revtunnel.link.legacy import LegacyAgentMux, LegacyServerMux
from revtunnel.link.mux import Data, Dial, EndOfFile, Glitch, Happening, Mux, Opened, Over, Stalled
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.streams.channel import Channel
from revtunnel.streams.commands import After, Command
from revtunnel.streams.frames import Frame, FrameDecoder
from revtunnel.streams.window import CreditPool

__all__ = ["TARGET", "End", "Joined", "Stream", "joined_legacy", "joined_rt1"]

TARGET = Target("10.41.51.152", 23)
PATTERN = bytes(i * 13 % 256 for i in range(251)) + b"..odd"


@dataclass
class Stream:
    """One channel at one end, as its socket would see it."""

    end: "End"
    channel: Channel
    other: Any = None  # the stream, or the model's service, at the other end
    opened: bool = False
    sent: bytearray = field(default_factory=bytearray)
    received: bytearray = field(default_factory=bytearray)
    unconsumed: int = 0
    may_send: bool = True
    largest: int = 0  # bytes of the largest send
    ended: bool = False  # our end of file was passed on
    end_came: bool = False  # theirs came
    flushed: bool = False
    over: Over | None = None

    def send(self, size: int) -> bool:
        """Send the next ``size`` bytes of this stream's own sequence."""
        begin = (len(self.sent) + self.channel.number * 8 + self.end.mux.opens) % len(PATTERN)
        data = (PATTERN * (2 + size // len(PATTERN)))[begin : begin + size]
        self.sent += data
        self.largest = max(self.largest, size)
        self.may_send = self.end.mux.send(self.channel, data)
        return self.may_send

    def finish(self) -> None:
        """Our end of file."""
        self.ended = True
        self.end.mux.end(self.channel)

    def open(self) -> None:
        """The target answered (agent)."""
        self.opened = True
        self.end.mux.opened(self.channel)

    def consume(self, most: int = 1 << 30) -> None:
        """Bytes leave for the socket."""
        size = min(most, self.unconsumed)
        self.unconsumed -= size
        self.end.mux.consumed(self.channel, size, self.end.now)

    def flush(self) -> None:
        """All bytes and the end of file have left for the socket."""
        self.consume()
        self.flushed = True
        self.end.happened(self.end.mux.flushed(self.channel, self.end.now))

    def reset(self, reason: Ended = Ended.RESET_BY_PEER) -> None:
        """The socket was lost, or never came up."""
        self.end.happened(self.end.mux.reset(self.channel, reason, "a test", self.end.now))

    @property
    def whole(self) -> bool:
        """Whether everything that the other side ever sent is here."""
        return self.other is not None and self.received == self.other.sent


class End:
    """One mux with its decoder, its owner, and the bytes that it wrote and the other has not read."""

    def __init__(self, mux: Mux) -> None:
        self.mux = mux
        self.decoder = FrameDecoder(mux.judge)
        self.wire = bytearray()
        self.now = 0.0
        self.streams: list[Stream] = []
        self.story: list[Happening] = []
        self.wrote: list[Frame] = []  # what it said
        self._reader = FrameDecoder(lambda size, command, channel: None)
        self._silent: set[int] = set()  # numbers on which it has said its last word

    # -- the bytes

    def take(self, quantum: int = 1 << 16) -> int:
        """Let the mux write once; how much it wrote."""
        pieces, readable, later = self.mux.take(quantum, self.now)
        data = b"".join(pieces)
        self._watch(data)
        self.wire += data
        for channel in readable:
            channel.owner.may_send = True
        self.happened(later)
        return len(data)

    def read(self, data: bytes) -> None:
        """Read bytes of the other end."""
        self.decoder.receive(data)
        for frame in self.decoder.frames():
            self.happened(self.mux.receive(frame, self.now))

    def tick(self) -> None:
        """The timer."""
        self.happened(self.mux.tick(self.now))

    def connect(
        self,
        target: Target = TARGET,
        origin: Origin | None = None,
        session: str = "",
        after: After | None = None,
    ) -> Stream | None:
        """A client comes (server)."""
        channel = self.mux.connect(target, self.now, origin, session, after)
        return None if channel is None else self._stream(channel)

    # -- what happens

    def happened(self, happenings: list[Happening]) -> None:
        """Keep the story, and hand each happening to its stream."""
        for happening in happenings:
            self.story.append(happening)
            if isinstance(happening, Dial):
                self._silent.discard(happening.channel.number)  # it has a new life
                self._stream(happening.channel)
            elif isinstance(happening, Data | EndOfFile | Opened | Over):
                self._tell(happening.channel.owner, happening)

    def of(self, kind: type) -> list[Happening]:
        """The happenings of one kind."""
        return [happening for happening in self.story if isinstance(happening, kind)]

    @property
    def live(self) -> list[Stream]:
        """Streams that are not over."""
        return [stream for stream in self.streams if stream.over is None]

    def _stream(self, channel: Channel) -> Stream:
        stream = channel.owner = Stream(self, channel)
        self.streams.append(stream)
        return stream

    def _tell(self, stream: Stream, happening: Happening) -> None:
        assert stream.over is None, f"{happening} after {stream.over}"
        if isinstance(happening, Data):
            assert not stream.end_came, "data after the end of file"
            assert happening.payload
            stream.received += happening.payload
            stream.unconsumed += len(happening.payload)
            if stream.other is not None:
                begin = len(stream.received) - len(happening.payload)
                assert stream.other.sent[begin : len(stream.received)] == happening.payload, (
                    "not what was sent"
                )
        elif isinstance(happening, EndOfFile):
            assert not stream.end_came, "a second end of file"
            stream.end_came = True
        elif isinstance(happening, Opened):
            assert not stream.opened, "opened twice"
            stream.opened = True
        elif isinstance(happening, Over):
            stream.over = happening

    def _watch(self, data: bytes) -> None:
        """Keep what was said; after a last word (rt1) nothing more is said on a number."""
        self._reader.receive(data)
        for frame in self._reader.frames():
            self.wrote.append(frame)
            if frame.command == Command.CONNECT:
                self._silent.discard(frame.channel)
            elif self.mux.wire == "rt1" and frame.channel:
                assert frame.channel not in self._silent, f"{frame} after the last word"
                if frame.command in (Command.CLOSE, Command.RESET):
                    self._silent.add(frame.channel)

    def check(self) -> None:
        """Bounds that hold at any moment."""
        limits, mux = self.mux.limits, self.mux
        held = [channel.window.size for channel in mux.channels.values() if channel.window is not None]
        assert sum(held) <= len(held) * limits.first_window + limits.link_pool
        for channel in mux.channels.values():
            window = channel.window
            if window is not None:
                assert 0 <= window.held <= window.size
                assert window.left >= 0
                assert window.owed >= 0
        for stream in self.live:
            assert stream.channel.queued < limits.queue + max(stream.largest, 1)


class Joined:
    """A server's end and an agent's end."""

    def __init__(self, server: Mux, agent: Mux) -> None:
        self.server, self.agent = End(server), End(agent)

    @property
    def ends(self) -> tuple[End, End]:
        """Both."""
        return self.server, self.agent

    def other(self, end: End) -> End:
        """The other one."""
        return self.agent if end is self.server else self.server

    def pass_time(self, seconds: float, tick: bool = True) -> None:
        """Move both clocks."""
        for end in self.ends:
            end.now += seconds
            if tick:
                end.tick()

    def deliver(self, end: End, most: int = 1 << 30, cut: int = 1 << 30) -> int:
        """Let ``end`` read up to ``most`` bytes that the other wrote, ``cut`` at a time."""
        source = self.other(end).wire
        data = bytes(source[:most])
        del source[:most]
        for at in range(0, len(data), cut):
            before = len(end.streams)
            end.read(data[at : at + cut])
            if end is self.agent:
                self._pair(end.streams[before:])
        return len(data)

    def settle(self, cut: int = 1 << 30, quantum: int = 1 << 16) -> None:
        """Write and read at both ends until nothing moves."""
        moved = True
        while moved:
            moved = False
            for end in self.ends:
                moved = end.take(quantum) > 0 or moved
                moved = self.deliver(self.other(end), cut=cut) > 0 or moved

    def finish(self) -> None:
        """Every owner does what ends its streams in order, until nothing moves."""
        for _ in range(500):
            self.settle()
            if not self._act():
                return
        raise AssertionError("never at rest")

    def channel(self) -> tuple[Stream, Stream]:
        """An open channel: its stream at the server and at the agent."""
        client = self.server.connect()
        assert client is not None
        self.settle()
        service = self.agent.streams[-1]
        service.open()
        self.settle()
        assert client.other is service
        return client, service

    def check(self) -> None:
        """Bounds that hold at any moment, at both ends."""
        for end in self.ends:
            end.check()

    def _pair(self, dialled: list[Stream]) -> None:
        """A CONNECT came: this service belongs to the client that now holds the number."""
        for service in dialled:
            number = service.channel.number
            client = next(c for c in self.server.streams if c.other is None and c.channel.number == number)
            client.other, service.other = service, client
            assert client.sent.startswith(service.received)

    def _act(self) -> bool:
        acted = False
        for end in self.ends:
            for stream in end.live:
                acted = self._act_on(end, stream) or acted
        return acted

    @staticmethod
    def _act_on(end: End, stream: Stream) -> bool:
        if not (stream.opened or end.mux.opens):
            stream.open()
        elif (stream.opened or end.mux.early_read) and not stream.ended:
            stream.finish()
        elif stream.unconsumed:
            stream.consume()
        elif stream.end_came and not stream.flushed:
            stream.flush()
        else:
            return False
        return True


def joined_rt1(limits: LinkLimits | None = None, server_pool: int = 1 << 30) -> Joined:
    """Two rt1 ends; both draw on pools of their own."""
    limits = limits or LinkLimits()
    return Joined(
        Rt1Mux(limits, True, 0.0, CreditPool(server_pool)),
        Rt1Mux(limits, False, 0.0, CreditPool(server_pool)),
    )


def joined_legacy(limits: LinkLimits | None = None, asks: bool = True) -> Joined:
    """Our server's legacy end and our agent's."""
    limits = limits or LinkLimits()
    return Joined(LegacyServerMux(limits, 0.0, asks), LegacyAgentMux(limits, 0.0))


def glitches(joined: Joined) -> list[str]:
    """What each end found odd in the other."""
    return [h.detail for end in joined.ends for h in end.of(Glitch) if isinstance(h, Glitch)]


def stalls(end: End) -> list[Stalled]:
    """What held an end's link back."""
    return [h for h in end.of(Stalled) if isinstance(h, Stalled)]
