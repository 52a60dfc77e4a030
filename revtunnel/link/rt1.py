"""rt1, the extended link: credit, end of file, connect result, last words, heartbeat.

The rule of a channel's end stands in ``channel.py`` and ``rt1_ends.py``; the rule of credit in ``window.py``.
This file turns frames into moves of those and says what the owner has to do.

Source: wire/link-extension.md; docs/link-protocol.rst.
"""

from collections.abc import Callable

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.origin import Origin, encode_origin
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Target
from revtunnel.link.mux import (
    Data,
    Dial,
    EndOfFile,
    GoingAway,
    Happening,
    Opened,
    Wanted,
)
from revtunnel.link.rt1_before import Rt1Before
from revtunnel.link.send_scheduler import Piece
from revtunnel.streams.channel import Channel, ChannelEvent, ChannelState
from revtunnel.streams.commands import (
    EXACT_SIZE,
    MAX_SIZE,
    MAX_TICKETS,
    After,
    Command,
    decode_connect,
    decode_goaway,
    decode_reset,
    decode_want,
    decode_window,
    encode_after,
    encode_connect,
    encode_goaway,
    encode_want,
    encode_window,
    named,
)
from revtunnel.streams.frames import Frame, encode_frame
from revtunnel.streams.window import CreditPool, ReceiveWindow, SendCredit

__all__ = ["Rt1Mux"]

# they belong to the handshake, to a data socket itself, or to enrolment
_NEVER_HERE = frozenset(
    (
        Command.HELLO,
        Command.CHALLENGE,
        Command.PROOF,
        Command.ATTACH,
        Command.ENROLL,
        Command.CERTIFICATE,
    )
)
GOAWAYS = 3  # that are heard on one link
# where both ends have the feature: from a server, but for those of an agent
_OF_AGENTS = frozenset((Command.CONSENT, Command.SERVICE, Command.OFFERS, Command.RECALLED))
_ASKED_FOR = _OF_AGENTS | frozenset(
    (
        Command.WANT,
        Command.ORIGIN,
        Command.SESSION,
        Command.WITHIN,
        Command.CHANGE,
        Command.RECALL,
        Command.AFTER,
    )
)


class Rt1Mux(Rt1Before):
    """The channels of one rt1 link. ``first_window`` is what the other side's HELLO granted us.

    ``data_sockets``, ``origins``, ``sessions``, ``services``: both ends said in HELLO that they have them.
    """

    wire = "rt1"
    early_read = True  # within the credit that a channel begins with
    places = False  # both ends have said that GOAWAY may name a place

    def __init__(
        self,
        limits: LinkLimits,
        opens: bool,
        now: float,
        pool: CreditPool,
        first_window: int | None = None,
        data_sockets: bool = False,
        origins: bool = False,
    ) -> None:
        super().__init__(limits, opens, now)
        self._pool = CreditPool(limits.link_pool, pool)
        self._first_credit = limits.first_window if first_window is None else first_window
        self._goaways = 0
        self.data_sockets = data_sockets
        self.origins = origins

    def target_of(self, payload: bytes) -> Target:
        """What a CONNECT names; RemoteError: nothing that can be asked for here."""
        return decode_connect(payload)

    def judge(self, size: int, command: int, channel: int) -> None:
        if command == Command.DATA:
            return
        exact = EXACT_SIZE.get(command)  # type: ignore[call-overload]
        if exact is not None and size != exact:
            raise RemoteError(f"{named(command)} of {size} bytes, {exact} wanted")
        most = MAX_SIZE.get(command)  # type: ignore[call-overload]
        if most is not None and size > most and command != Command.CONNECT:
            raise RemoteError(f"{named(command)} of {size} bytes, limit {most}")
        if command in _NEVER_HERE or (command in _ASKED_FOR and not self._asked_for(command)):
            raise RemoteError(f"{named(command)} on a link that is up")

    def receive(self, frame: Frame, now: float) -> list[Happening]:
        self.liveness.heard(now)
        handler = _HANDLERS.get(frame.command)
        if handler is None:
            return self._glitch(f"{named(frame.command)} of {len(frame.payload)} bytes skipped", now)
        return handler(self, frame, now)

    # -- what the owner calls

    def connect(
        self,
        target: Target,
        now: float,
        origin: Origin | None = None,
        session: str = "",
        after: After | None = None,
    ) -> Channel | None:
        number = self._numbers.take()
        if number is None:
            return None
        channel = self._new(number, target, now)
        if self.sessions and session:
            self._turns.control(encode_frame(Command.WITHIN, number, bytes.fromhex(session)))
        if self.origins and origin is not None:
            self._turns.control(encode_frame(Command.ORIGIN, number, encode_origin(origin)))
        if self.after and after is not None:
            self._turns.control(encode_frame(Command.AFTER, number, encode_after(after)))
        self._turns.control(encode_frame(Command.CONNECT, number, encode_connect(target)), asks=True)
        return channel

    def opened(self, channel: Channel) -> None:
        if channel.state is ChannelState.OPENING:
            channel.step(ChannelEvent.OPENED)
            self._turns.control(encode_frame(Command.OPENED, channel.number), asks=True)
            self._turns.schedule(channel)
            self._enlarge(channel)

    def end(self, channel: Channel) -> None:
        """As in Mux; before OPENED it waits for that, and a second one says nothing new."""
        if channel.state is ChannelState.OPENING or channel.allows(ChannelEvent.SEND_EOF):
            super().end(channel)

    def consumed(self, channel: Channel, size: int, now: float) -> None:
        if channel.window is None:
            return
        credit = channel.window.consumed(size, now, self.liveness.round_trip)
        if credit and channel.state in (ChannelState.OPENING, ChannelState.OPEN, ChannelState.SENT_EOF):
            self._turns.control(encode_frame(Command.WINDOW, channel.number, encode_window(credit)))

    def tick(self, now: float) -> list[Happening]:
        self._check_alive(now)
        if self.liveness.should_ask(now):
            self._turns.control(encode_frame(Command.PING, 0, self.liveness.ask(now)))
        return []

    def goaway(self, reason: GoAway, retry_after: int, detail: str, place: str = "") -> None:
        said = encode_goaway(reason, retry_after, detail, place if self.places else "")
        self._turns.control(encode_frame(Command.GOAWAY, 0, said))

    def want(self, tickets: list[bytes]) -> None:
        """Server: ask for one data socket for each ticket."""
        for at in range(0, len(tickets), MAX_TICKETS):
            said = encode_frame(Command.WANT, 0, encode_want(tickets[at : at + MAX_TICKETS]))
            self._turns.control(said, asks=True)

    def take(self, quantum: int, now: float) -> tuple[list[Piece], list[Channel], list[Happening]]:
        if self._pong is not None:
            self._turns.control(encode_frame(Command.PONG, 0, self._pong))
            self._pong = None
        taken = super().take(quantum, now)
        self._unsaid = 0
        return taken

    # -- frames of one channel

    def _connect(self, frame: Frame, now: float) -> list[Happening]:
        if self.opens:
            raise RemoteError("CONNECT at the server")
        if frame.channel == 0 or frame.channel in self.channels:
            raise RemoteError(f"CONNECT for channel {frame.channel}, which is in use")
        before = self._taken_before(frame.channel)
        if self._unsaid >> frame.channel & 1:
            raise RemoteError(f"CONNECT for channel {frame.channel}, whose CLOSE is not yet said")
        try:
            target = self.target_of(frame.payload)
        except RemoteError as error:
            channel = self._new(frame.channel, Target("invalid", 0), now)
            self.reset(channel, Ended.NOT_ALLOWED, str(error), now)
            return self._glitch(str(error), now)
        channel = self._new(frame.channel, target, now)
        channel.origin, channel.session, channel.after = before.origin, before.session, before.after
        self._measure(now)
        return [Dial(channel)]

    def _opened(self, frame: Frame, now: float) -> list[Happening]:
        channel = self.channels.get(frame.channel)
        if channel is None or channel.state is ChannelState.SENT_LAST:
            return self._late(frame, channel, now)
        if not self.opens or channel.state is not ChannelState.OPENING:
            return self._violation(channel, "OPENED out of turn", now)
        channel.step(ChannelEvent.OPENED)
        self._turns.schedule(channel)
        self._enlarge(channel)
        self._measure(now)
        return [Opened(channel)]

    def _data(self, frame: Frame, now: float) -> list[Happening]:
        channel = self.channels.get(frame.channel)
        if channel is None or channel.window is None:
            return self._late(frame, channel, now)
        if channel.state not in (ChannelState.OPEN, ChannelState.SENT_EOF) and not (
            channel.state is ChannelState.OPENING and not self.opens
        ):
            return self._violation(channel, f"DATA in {channel.state.name}", now)
        size = len(frame.payload)
        if not size:
            return self._glitch(f"empty DATA on channel {frame.channel}", now)
        try:
            channel.window.arrive(size)
        except RemoteError as error:
            return self._overspent(channel, str(error), now)
        channel.bytes_received += size
        channel.heard_at = now
        return [Data(channel, frame.payload)]

    def _eof(self, frame: Frame, now: float) -> list[Happening]:
        channel = self.channels.get(frame.channel)
        if channel is None or channel.state is ChannelState.SENT_LAST:
            return self._late(frame, channel, now)
        if not channel.allows(ChannelEvent.GET_EOF):
            return self._violation(channel, f"EOF in {channel.state.name}", now)
        channel.step(ChannelEvent.GET_EOF)
        return [EndOfFile(channel)]

    def _close(self, frame: Frame, now: float) -> list[Happening]:
        channel = self.channels.get(frame.channel)
        if channel is None:
            return self._late(frame, channel, now)
        if channel.state is ChannelState.ENDED:
            channel.step(ChannelEvent.GET_CLOSE)
            return []
        if channel.state is ChannelState.SENT_LAST:
            return self._last_word_came(channel, ChannelEvent.GET_CLOSE, Ended.CLOSED, "")
        if channel.state is ChannelState.GOT_CLOSE:
            return self._glitch(f"a second CLOSE on channel {frame.channel}", now)
        return self._violation(channel, f"CLOSE in {channel.state.name}", now, theirs=True)

    def _reset(self, frame: Frame, now: float) -> list[Happening]:
        channel = self.channels.get(frame.channel)
        if channel is None:
            return self._late(frame, channel, now)
        reason, detail = decode_reset(frame.payload)
        if channel.state is ChannelState.SENT_LAST:
            return self._last_word_came(channel, ChannelEvent.GET_RESET, reason, detail)
        if not channel.allows(ChannelEvent.GET_RESET):
            raise RemoteError(f"RESET on channel {frame.channel} after its last word")
        return self._answer_reset(channel, reason, detail)

    def _window(self, frame: Frame, now: float) -> list[Happening]:
        channel = self.channels.get(frame.channel)
        if channel is None or channel.credit is None or channel.state is ChannelState.SENT_LAST:
            return self._late(frame, channel, now)
        try:
            channel.credit.grow(decode_window(frame.payload))
        except RemoteError as error:
            return self._overspent(channel, str(error), now)
        self._turns.schedule(channel)
        return []

    # -- frames of the link

    def _ping(self, frame: Frame, now: float) -> list[Happening]:
        crowded = self._pong is not None
        self._pong = frame.payload
        return self._glitch("PING before the last one was answered", now) if crowded else []

    def _pong_came(self, frame: Frame, now: float) -> list[Happening]:
        if self.liveness.answered(frame.payload, now):
            return []
        return self._glitch("PONG that nobody asked for", now)

    def _goaway(self, frame: Frame, now: float) -> list[Happening]:
        """A server that drains and then stops says it twice; who goes on saying it says nothing."""
        said = GoingAway(*decode_goaway(frame.payload))
        self._goaways += 1
        return [said] if self._goaways <= GOAWAYS else self._glitch("GOAWAY again and again", now)

    def _want(self, frame: Frame, now: float) -> list[Happening]:
        return [Wanted(decode_want(frame.payload))]

    def _asked_for(self, command: int) -> bool:
        """Whether both ends said that they have what this command belongs to."""
        has = {
            Command.WANT: self.data_sockets,
            Command.ORIGIN: self.origins,
            Command.OFFERS: self.offers,
            Command.CHANGE: self.changes,
            Command.SERVICE: self.services,
            Command.RECALL: self.early,
            Command.RECALLED: self.early,
            Command.AFTER: self.after,
        }
        return self.opens == (command in _OF_AGENTS) and has.get(Command(command), self.sessions)

    # -- inside

    def _late(self, frame: Frame, channel: Channel | None, now: float) -> list[Happening]:
        """A frame for a channel that we have ended is normal, if it was said before the other side knew.

        What that cannot be, more data than it had credit for and frame upon frame of the others, is counted
        like a frame for a number that nobody holds.
        """
        name = Command(frame.command).name
        if channel is None:
            return self._glitch(f"{name} for channel {frame.channel}, not in use", now)
        if frame.command == Command.DATA and frame.payload:
            channel.spare -= len(frame.payload)
            if channel.spare < 0:
                return self._overspent(channel, f"{-channel.spare} bytes beyond its credit, late", now)
            return []
        channel.late += 1
        if channel.late > self.limits.late_frames:
            return self._glitch(
                f"{name} for channel {frame.channel}, the {channel.late}th since it ended", now
            )
        return []

    def _new(self, number: int, target: Target, now: float) -> Channel:
        limits = self.limits
        window = ReceiveWindow(limits.first_window, limits.largest_window, self._pool)
        channel = Channel(number, target, now, credit=SendCredit(self._first_credit), window=window)
        self.channels[number] = channel
        return channel

    def _enlarge(self, channel: Channel) -> None:
        if channel.window is not None and (credit := channel.window.enlarge(self.limits.open_window)):
            self._turns.control(encode_frame(Command.WINDOW, channel.number, encode_window(credit)))

    def _measure(self, now: float) -> None:
        """A round trip, for the tuning of windows, while too few are known."""
        if self.liveness.wants_trip:
            self._turns.control(encode_frame(Command.PING, 0, self.liveness.ask(now)))


_HANDLERS: dict[int, Callable[[Rt1Mux, Frame, float], list[Happening]]] = {  # one table for all links
    Command.CONNECT: Rt1Mux._connect,
    Command.CLOSE: Rt1Mux._close,
    Command.DATA: Rt1Mux._data,
    Command.LISTEN: Rt1Mux._listen,
    Command.OPENED: Rt1Mux._opened,
    Command.RESET: Rt1Mux._reset,
    Command.EOF: Rt1Mux._eof,
    Command.WINDOW: Rt1Mux._window,
    Command.PING: Rt1Mux._ping,
    Command.PONG: Rt1Mux._pong_came,
    Command.GOAWAY: Rt1Mux._goaway,
    Command.WANT: Rt1Mux._want,
    Command.ORIGIN: Rt1Mux._origin,
    Command.SESSION: Rt1Mux._session,
    Command.CONSENT: Rt1Mux._consented,
    Command.WITHIN: Rt1Mux._within,
    Command.OFFERS: Rt1Mux._offers,
    Command.CHANGE: Rt1Mux._change,
    Command.SERVICE: Rt1Mux._service,
    Command.RECALL: Rt1Mux._recall,
    Command.RECALLED: Rt1Mux._recalled,
    Command.AFTER: Rt1Mux._after,
}
