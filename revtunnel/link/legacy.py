"""The legacy ReadyAgent wire: CONNECT, DATA, CLOSE, and nothing else is ever sent to such a peer.

What the wire lacks is made up for here, without a byte that an unmodified device or server could stumble
over: numbers rest until a barrier proves that no late CLOSE can meet a new client; a refused connect is told
from a clean end by two barriers and a moment behind them; sockets that do not take their bytes hold the link
back, and the slowest of them is given up when the others have waited long enough.

``LegacyServerMux`` speaks with a real device, ``LegacyAgentMux`` with a real server.

Source: wire/readyagent.md sections 1 to 5; wire/link-extension.md "Legacy peers"; faults.md F3 to F18.
"""

from abc import abstractmethod

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.origin import Origin
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Target
from revtunnel.link.barrier import Barrier
from revtunnel.link.liveness import Liveness
from revtunnel.link.mux import Data, Dial, EndOfFile, Happening, Mux, Opened, Stalled
from revtunnel.streams.channel import LEGACY_NEXT, Channel, ChannelEvent, ChannelState
from revtunnel.streams.commands import MAX_SIZE, Command, decode_connect, encode_connect, named
from revtunnel.streams.frames import Frame, encode_frame
from revtunnel.streams.numbers import Tally

__all__ = ["LegacyAgentMux", "LegacyServerMux"]

QUESTION = encode_frame(Command.DATA, 0, b"\0")  # a device answers CLOSE 0
CLOSE_EVERY = 1.0  # seconds between two CLOSE answers for one unknown number


class LegacyMux(Mux):
    """What both ends of a legacy link share."""

    wire = "legacy"
    early_read = True
    answers = False

    def __init__(self, limits: LinkLimits, opens: bool, now: float) -> None:
        super().__init__(limits, opens, now)
        self._idle = Tally(limits.idle_frames, limits.glitch_window, "frames that change nothing")
        self._out_of_step = Tally(limits.legacy_glitches, limits.glitch_window, "unknown frames")
        self._owed = 0
        self._held_since: float | None = None
        self._closed_at: dict[int, float] = {}  # unknown number -> when CLOSE was last sent for it

    def judge(self, size: int, command: int, channel: int) -> None:
        if command == Command.CONNECT and size > MAX_SIZE[Command.CONNECT]:
            raise RemoteError(f"CONNECT of {size} bytes, limit {MAX_SIZE[Command.CONNECT]}")
        if command not in (Command.CONNECT, Command.CLOSE, Command.DATA, Command.LISTEN) and size > 4096:
            raise RemoteError(f"{named(command)} of {size} bytes on a legacy link")

    def receive(self, frame: Frame, now: float) -> list[Happening]:
        self.liveness.heard(now)
        if frame.command == Command.DATA:
            return self._data(frame, now)
        if frame.command == Command.CLOSE:
            return self._close(frame, now)
        if frame.command == Command.CONNECT:
            return self._connect(frame, now)
        if frame.command == Command.LISTEN:
            return self._listen(frame, now)
        self._out_of_step.add(now)
        return self._glitch(f"{named(frame.command)} of {len(frame.payload)} bytes skipped", now)

    def consumed(self, channel: Channel, size: int, now: float) -> None:
        if channel.over:
            return
        if size > channel.owed:
            raise LocalError(f"{size} bytes consumed, {channel.owed} owed")
        channel.owed -= size
        self._owed -= size

    @property
    def holds_back(self) -> bool:
        limits = self.limits
        if self._owed <= limits.legacy_queue_hard:
            return False
        return self._owed > limits.legacy_link_queue or any(
            channel.owed > limits.legacy_queue_hard for channel in self.channels.values()
        )

    def goaway(self, reason: GoAway, retry_after: int, detail: str, place: str = "") -> None:
        """The wire has no word for it."""

    def opened(self, channel: Channel) -> None:
        if channel.state is ChannelState.OPENING:
            channel.step(ChannelEvent.OPENED)

    def tick(self, now: float) -> list[Happening]:
        if self.holds_back:
            self.liveness.heard(now)  # what is not read cannot be heard: its silence is ours
        self._check_alive(now)
        if self.liveness.should_ask(now):
            self._ask(now)
        return self._watch_stall(now)

    def due(self, now: float) -> float:
        due = min(self.liveness.due(now), self.limits.busy_keepalive)  # what is held for a CONNECT grows old
        return min(due, 1.0) if self.holds_back else due

    # -- what the ends do each in its way

    @abstractmethod
    def _ask(self, now: float) -> None:
        """Send something that a living peer answers; where nothing can be asked, silence means nothing."""

    @abstractmethod
    def _connect(self, frame: Frame, now: float) -> list[Happening]: ...

    @abstractmethod
    def _close(self, frame: Frame, now: float) -> list[Happening]: ...

    @abstractmethod
    def _unknown_data(self, frame: Frame, now: float) -> list[Happening]: ...

    # -- shared steps

    def _data(self, frame: Frame, now: float) -> list[Happening]:
        channel = self.channels.get(frame.channel)
        if channel is None:
            return self._unknown_data(frame, now)
        if channel.over or channel.state in (ChannelState.GOT_CLOSE, ChannelState.CLOSED):
            if channel.over:
                channel.heard_at = now  # it has not come to our CLOSE yet
                if channel.state is ChannelState.SENT_LAST:
                    self._answer_unknown(frame.channel, now)  # or takes that for an end of file
            return [] if frame.payload else self._nothing(now)
        if not frame.payload:
            return self._glitch(f"empty DATA on channel {frame.channel}", now)
        return self._arrived(channel, frame.payload, now)

    def _arrived(self, channel: Channel, payload: bytes, now: float) -> list[Happening]:
        size = len(payload)
        channel.owed += size
        self._owed += size
        channel.bytes_received += size
        channel.heard_at = now
        return [Data(channel, payload)]

    def _nothing(self, now: float) -> list[Happening]:
        """A frame that changes nothing: normal where each end forgets by itself, but not in a flood."""
        self._idle.add(now)
        return []

    def _send_close(self, number: int) -> None:
        self._turns.control(encode_frame(Command.CLOSE, number))

    def _answer_unknown(self, number: int, now: float) -> None:
        """CLOSE for a number that nobody holds, or whose client is gone; once a second, never for a CLOSE."""
        if now - self._closed_at.get(number, float("-inf")) >= CLOSE_EVERY:
            self._closed_at[number] = now
            self._send_close(number)

    def _over(self, channel: Channel, reason: Ended, detail: str) -> list[Happening]:
        self._owed -= channel.owed
        channel.owed = 0
        return super()._over(channel, reason, detail)

    def _watch_stall(self, now: float) -> list[Happening]:
        """Give up the socket that owes most when the link was held back for too long."""
        if not self.holds_back:
            self._held_since = None
            return []
        worst = max(self.channels.values(), key=lambda channel: channel.owed)
        if self._held_since is None:
            self._held_since = now
            return [Stalled(worst, worst.owed)]
        if now - self._held_since < self.limits.legacy_stall:
            return []
        self._held_since = None
        return self.reset(worst, Ended.STALLED, f"{worst.owed} bytes not taken", now)


class LegacyServerMux(LegacyMux):
    """The server's end, towards a ReadyAgent device; ``asks`` False: never send the question on number 0."""

    def __init__(self, limits: LinkLimits, now: float, asks: bool = True) -> None:
        super().__init__(limits, True, now)
        self.liveness = Liveness(limits, now, limits.legacy_answer)
        self._asks = asks
        self._barrier: Barrier[tuple[str, Channel]] = Barrier()
        self._question = b""
        self._resting: list[tuple[float, Channel]] = []  # without questions numbers rest by time

    def connect(
        self,
        target: Target,
        now: float,
        origin: Origin | None = None,
        session: str = "",
        after: object = None,
    ) -> Channel | None:
        number = self._numbers.take()
        if number is None:
            return None
        channel = self.channels[number] = Channel(number, target, now, LEGACY_NEXT)
        self._turns.control(encode_frame(Command.CONNECT, number, encode_connect(target)), asks=True)
        if self._asks:
            self._barrier.wait(("opened", channel), answers=2)
            self._ask_if_wanted(now)
        return channel

    def reset(self, channel: Channel, reason: Ended, detail: str, now: float) -> list[Happening]:
        if channel.allows(ChannelEvent.SEND_CLOSE) and channel.state is not ChannelState.GOT_CLOSE:
            channel.step(ChannelEvent.SEND_CLOSE)
            channel.heard_at = self._closed_at[channel.number] = now
            self._send_close(channel.number)
        return self._ended(channel, reason, detail)

    def flushed(self, channel: Channel, now: float) -> list[Happening]:
        channel.flushed = True
        return self._ended(channel, Ended.CLOSED, "")

    def tick(self, now: float) -> list[Happening]:
        happenings = super().tick(now)
        for channel in list(self.channels.values()):
            if channel.state is ChannelState.SENT_LAST and now >= channel.heard_at + self.limits.echo_wait:
                happenings += self._closed_by_device(channel, now)
        rested = [channel for until, channel in self._resting if until <= now]
        self._resting = [entry for entry in self._resting if entry[0] > now]
        for channel in rested:
            self._rested(channel)
        return happenings

    def due(self, now: float) -> float:
        """As in Mux; also when the first echo is given up, and when the first number has rested."""
        mute = [
            channel.heard_at for channel in self.channels.values() if channel.state is ChannelState.SENT_LAST
        ]
        waits = [heard_at + self.limits.echo_wait for heard_at in mute]
        waits += [until for until, _ in self._resting]
        return min(super().due(now), max(0.01, min(waits, default=now + 60.0) - now))

    def _last_of_direction(self, channel: Channel, now: float) -> bytes:
        channel.step(ChannelEvent.SEND_CLOSE)
        channel.heard_at = self._closed_at[channel.number] = now
        return encode_frame(Command.CLOSE, channel.number)

    def straight(self, channel: Channel, size: int, quantum: int, now: float) -> bytes:
        """As in Mux; nothing of what ``send`` drops."""
        gone = channel.state in (ChannelState.GOT_CLOSE, ChannelState.CLOSED)
        return b"" if gone else super().straight(channel, size, quantum, now)

    def send(self, channel: Channel, data: bytes) -> bool:
        """As in Mux; what a client says after its device has closed is dropped, nobody can have it."""
        return channel.state in (ChannelState.GOT_CLOSE, ChannelState.CLOSED) or super().send(channel, data)

    def end(self, channel: Channel) -> None:
        if channel.allows(ChannelEvent.SEND_CLOSE) and channel.state is not ChannelState.GOT_CLOSE:
            super().end(channel)

    def _ask(self, now: float) -> None:
        if not self._asks:
            self.liveness.heard(now)
            return
        self._barrier.ask()
        self._question = self.liveness.ask(now)
        self._turns.control(QUESTION)

    def _ask_if_wanted(self, now: float) -> None:
        if self._barrier.wanted:
            self._ask(now)

    def _connect(self, frame: Frame, now: float) -> list[Happening]:
        raise RemoteError("CONNECT at the server")

    def _arrived(self, channel: Channel, payload: bytes, now: float) -> list[Happening]:
        return self._now_open(channel, now) + super()._arrived(channel, payload, now)

    def _unknown_data(self, frame: Frame, now: float) -> list[Happening]:
        self._answer_unknown(frame.channel, now)
        if frame.channel == 0 and not frame.payload:
            return self._nothing(now)  # an agent of ours asks whether we live
        return self._glitch(f"DATA for number {frame.channel}, not in use", now)

    def _close(self, frame: Frame, now: float) -> list[Happening]:
        if frame.channel == 0:
            return self._answered(now)
        channel = self.channels.get(frame.channel)
        if channel is None or not channel.allows(ChannelEvent.GET_CLOSE):
            return self._nothing(now)
        return self._closed_by_device(channel, now)

    def _closed_by_device(self, channel: Channel, now: float) -> list[Happening]:
        refused = self._is_refusal(channel, now)
        channel.step(ChannelEvent.GET_CLOSE)
        self._rest(channel, now)
        if refused:
            return self._ended(channel, Ended.REFUSED, "the device closed before it had connected")
        if channel.over:
            return []
        self._turns.remove(channel)
        channel.drop()
        return [EndOfFile(channel)]

    def _is_refusal(self, channel: Channel, now: float) -> bool:
        """Whether a CLOSE says that the device could not connect; it may answer before it knows that."""
        if channel.state is ChannelState.OPENING:
            return self._asks
        early = now - channel.heard_at < self.limits.legacy_refusal
        return channel.state is ChannelState.OPEN and early and not channel.bytes_received

    def _answered(self, now: float) -> list[Happening]:
        passed = self._barrier.answer()
        if passed is None:
            return self._nothing(now)
        if not self._barrier.open:  # else it answers an older question than the one that is timed
            self.liveness.answered(self._question, now)
        happenings: list[Happening] = []
        for what, channel in passed:
            if what == "opened":
                happenings += self._now_open(channel, now)
            else:
                self._rested(channel)
        self._ask_if_wanted(now)
        return happenings

    def _now_open(self, channel: Channel, now: float) -> list[Happening]:
        if channel.state is not ChannelState.OPENING:
            return []
        channel.step(ChannelEvent.OPENED)
        channel.heard_at = now
        return [Opened(channel)]

    def _rest(self, channel: Channel, now: float) -> None:
        """The device said CLOSE: its number rests until nothing late can come for it."""
        if self._asks:
            self._barrier.wait(("rested", channel))
            self._ask_if_wanted(now)
        else:
            self._resting.append((now + self.limits.echo_wait / 2, channel))

    def _rested(self, channel: Channel) -> None:
        channel.rested = True
        if channel.over:
            self._forget(channel)

    def _ended(self, channel: Channel, reason: Ended, detail: str) -> list[Happening]:
        if channel.state is ChannelState.GOT_CLOSE:
            channel.step(ChannelEvent.SEND_CLOSE)  # nothing is sent: the device has forgotten the number
        happenings = self._over(channel, reason, detail)
        if channel.rested:
            self._forget(channel)
        return happenings


class LegacyAgentMux(LegacyMux):
    """The agent's end, towards a ReadyAgent server: it answers as a device would."""

    def __init__(self, limits: LinkLimits, now: float) -> None:
        super().__init__(limits, False, now)
        self._early: dict[int, tuple[float, list[bytes]]] = {}
        self._early_size = 0
        self._left: dict[int, int] = {}  # bytes a service had said when its client left
        self._replies: dict[int, int] = {}  # the same, when last looked at
        self._closed: set[int] = set()  # we said CLOSE first: DATA is late, until the server says a word
        self._asked_on: int | None = None
        self._question = b""

    def connect(
        self,
        target: Target,
        now: float,
        origin: Origin | None = None,
        session: str = "",
        after: object = None,
    ) -> Channel | None:
        raise LocalError("an agent opens no channels")

    def reset(self, channel: Channel, reason: Ended, detail: str, now: float) -> list[Happening]:
        if channel.over:
            return []
        self._send_close(channel.number)
        return self._closed_here(channel, reason, detail)

    def flushed(self, channel: Channel, now: float) -> list[Happening]:
        channel.flushed = True
        channel.heard_at = now
        return []

    def tick(self, now: float) -> list[Happening]:
        happenings = super().tick(now)
        for number in [n for n, (since, _) in self._early.items() if now - since >= self.limits.early_wait]:
            self._drop_early(number)
            self._send_close(number)
        for channel in [each for each in self.channels.values() if each.state is ChannelState.GOT_CLOSE]:
            patience = self.limits.legacy_linger if channel.flushed else self.limits.legacy_stall
            if channel.queued or channel.bytes_sent != self._replies[channel.number]:
                self._replies[channel.number] = channel.bytes_sent
                channel.heard_at = now  # it still says its reply
            elif now - channel.heard_at > patience:
                happenings += self.reset(channel, Ended.CLOSED, "the client left, the service stayed", now)
        return happenings

    def due(self, now: float) -> float:
        lingering = any(channel.state is ChannelState.GOT_CLOSE for channel in self.channels.values())
        return min(super().due(now), 0.5) if self._early or lingering else super().due(now)

    def _last_of_direction(self, channel: Channel, now: float) -> bytes:
        """The service ended: CLOSE, and the number is the server's again."""
        self._later += self._closed_here(channel, Ended.CLOSED, "")
        return encode_frame(Command.CLOSE, channel.number)

    def _closed_here(self, channel: Channel, reason: Ended, detail: str) -> list[Happening]:
        """We say CLOSE; what the server had sent by then is not early DATA of the number's next client."""
        if channel.step(ChannelEvent.SEND_CLOSE) is ChannelState.SENT_LAST:
            self._closed.add(channel.number)
        happenings = self._over(channel, reason, detail)
        self._forget(channel)
        return happenings

    def _ask(self, now: float) -> None:
        """Empty DATA on a number nobody holds: a server that lives answers with CLOSE."""
        used = self.channels.keys() | self._early.keys()
        number = next((n for n in (0, *range(255, 0, -1)) if n not in used), None)
        if number is None:
            self.liveness.heard(now)
            return
        self._asked_on = number
        self._question = self.liveness.ask(now)
        self._turns.control(encode_frame(Command.DATA, number))

    def _connect(self, frame: Frame, now: float) -> list[Happening]:
        happenings: list[Happening] = []
        old = self.channels.pop(frame.channel, None)
        if old is not None:  # without a CLOSE: it would meet the new client
            happenings += self._glitch(f"CONNECT for number {frame.channel}, which was in use", now)
            happenings += self._over(old, Ended.RESET_BY_PEER, "the server gave its number to another client")
        self._closed.discard(frame.channel)
        early = self._drop_early(frame.channel)
        try:
            target = decode_connect(frame.payload)
        except RemoteError as error:
            self._send_close(frame.channel)
            return happenings + self._glitch(str(error), now)
        channel = self.channels[frame.channel] = Channel(frame.channel, target, now, LEGACY_NEXT)
        happenings.append(Dial(channel))
        for payload in early:
            happenings += self._arrived(channel, payload, now)
        return happenings

    def _close(self, frame: Frame, now: float) -> list[Happening]:
        if frame.channel == self._asked_on:
            self._asked_on = None
            self.liveness.answered(self._question, now)
        self._closed.discard(frame.channel)
        early = self._drop_early(frame.channel)
        channel = self.channels.get(frame.channel)
        if channel is None:
            odd = f"CLOSE {frame.channel} took early DATA away"
            return self._glitch(odd, now) if early else self._nothing(now)
        if not channel.allows(ChannelEvent.GET_CLOSE):
            return self._closed_twice(channel, now)
        channel.step(
            ChannelEvent.GET_CLOSE
        )  # also while dialling: what the client sent before is still delivered
        channel.heard_at = now
        self._left[channel.number] = self._replies[channel.number] = channel.bytes_sent
        return [EndOfFile(channel)]

    def _closed_twice(self, channel: Channel, now: float) -> list[Happening]:
        """After DATA of ours it is an answer: nobody is there any more. Before, it means nothing."""
        if channel.bytes_sent == self._left[channel.number]:
            return self._nothing(now)
        return self.reset(channel, Ended.RESET_BY_PEER, "the server closed again: its client is gone", now)

    def _unknown_data(self, frame: Frame, now: float) -> list[Happening]:
        if not frame.payload or frame.channel in self._closed:
            return [] if frame.payload else self._nothing(now)
        if frame.channel == 0 and frame.payload == b"\0":
            self._send_close(0)  # the server's question
            return []
        if self._early_size + len(frame.payload) > self.limits.early_data:
            self._drop_early(frame.channel)
            self._answer_unknown(frame.channel, now)
            return self._glitch(f"DATA for number {frame.channel}, not in use", now)
        self._early.setdefault(frame.channel, (now, []))[1].append(bytes(frame.payload))
        self._early_size += len(frame.payload)
        return []

    def _drop_early(self, number: int) -> list[bytes]:
        """Take away what came before its CONNECT."""
        _, payloads = self._early.pop(number, (0.0, []))
        self._early_size -= sum(map(len, payloads))
        return payloads
