"""The framed link, what both ends share: frames in, happenings out, and one writer with a bounded buffer.

A link is in its handshake until the end that owns it calls ``up`` with a mux. The mux decides, this Protocol
acts: it hands a quantum to the transport, waits until that has drained, and hands over the next. Any
RemoteError ends the link; its channels end with resets, never with a clean end.

Source: wire/link-extension.md; twisted.md 2.3; faults.md F2, N8, N13.
"""

import contextlib
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IDelayedCall, IPullProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.link.link_channels import LinkChannels
from revtunnel.link.mux import Mux, Over
from revtunnel.link.path_signs import PathSigns
from revtunnel.link.send_scheduler import MESSAGE, Pace
from revtunnel.sockets.end_transport import EndTransport, in_words
from revtunnel.sockets.ends import set_options
from revtunnel.sockets.tcp_info import segments, silence
from revtunnel.streams.channel import Channel, ChannelState
from revtunnel.streams.frames import FrameDecoder

__all__ = ["USER_TIMEOUT", "LinkProtocol", "probe", "tune"]

USER_TIMEOUT = 45.0  # seconds that sent bytes may stay unacknowledged, or untaken by a living peer
LOOK = 64  # frames between two looks at the time of a turn
READ = 256 * 1024  # bytes that one reading takes
PARTING = 2.0  # seconds a refused or failed link gets to take its GOAWAY


@implementer(IPullProducer)
class LinkProtocol(LinkChannels, Protocol):
    """One end of a link. ``ServerLink`` and ``AgentLink`` say what its happenings mean there."""

    __slots__ = (
        "_decoder",
        "_finished",
        "_flushing",
        "_full",
        "_held",
        "_looks",
        "_lost",
        "_more",
        "_pace",
        "_timer",
        "_working",
        "clock",
        "ended",
        "limits",
        "mux",
        "peer",
        "since",
        "tls",
    )

    far = "agent"  # who is at the other end

    if TYPE_CHECKING:
        transport: EndTransport  # type: ignore[assignment]

    def __init__(self, clock: IReactorTime, limits: LinkLimits) -> None:
        self.clock = clock
        self.limits = limits
        self.mux: Mux | None = None
        self.peer = "?"
        self.since = 0.0  # of its connect: TLS counts into the time for the handshake
        self.tls = ""  # the version that is spoken
        self.ended: tuple[str, str] | None = None  # reason word and detail, once it has one
        self._decoder = FrameDecoder(self.judge_stranger)
        self._pace = Pace(limits)
        self._full = False
        self._flushing = False
        self._working = False
        self._held = False  # the transport is paused by us
        self._timer: IDelayedCall | None = None
        self._looks = 0.0  # when the timer is due
        self._more: IDelayedCall | None = None
        self._lost = False
        self._finished = False

    @property
    def handle(self) -> Any:
        """The socket below."""
        return self.transport.getHandle()

    # -- what an end has to provide

    def judge_stranger(self, size: int, command: int, channel: int) -> None:
        """Refuse a frame of the handshake by its header."""
        raise NotImplementedError

    def shake(self, frame: Any) -> None:
        """Take a frame of the handshake."""
        raise NotImplementedError

    def handshake_is_late(self) -> None:
        """The handshake's time is up."""
        raise NotImplementedError

    def gone(self, reason: str, detail: str, cut: list[Channel]) -> None:
        """The link is lost, and these channels with it."""
        raise NotImplementedError

    # -- from the transport

    def connectionMade(self) -> None:
        now = self.clock.seconds()
        self.since = self.since or now
        self.transport.read_size = READ
        # a pull producer is asked whenever the transport is empty: our own quantum is the whole buffer
        self.transport.registerProducer(self, False)
        self._set_timer(max(0.0, self.since + self.limits.handshake - now))

    def dataReceived(self, data: bytes) -> None:
        if self.ended is None:
            self._decoder.lend(data)
            self._work()
            self._decoder.keep()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        self._cancel(self._timer)
        self._cancel(self._more)
        self._timer = self._more = None
        self.ended = self.ended or ("lost", f"the {self.far} {in_words(reason)}")
        self._finish()

    def resumeProducing(self) -> None:
        """The transport is empty."""
        if self._full:
            self._full = False
            if self._pace.drained(self.clock.seconds()):
                bound_unsent(self.handle, self._pace.unsent)
            self.flush()

    def stopProducing(self) -> None:
        """The transport is lost; ``connectionLost`` says it."""

    # -- what an end calls

    def up(self, mux: Mux) -> None:
        """The handshake is done; frames belong to the mux from here on."""
        self.mux = mux
        self._decoder.judge = mux.judge
        self.transport.gives_views = True  # from now on: frames are copied one by one
        bound_unsent(self.handle, self._pace.unsent)
        tune(self.handle)  # not before: what becomes a data socket must not end because its service pauses
        self._set_timer(0.0)

    def count_segments(self, first: float, most: float) -> None:
        """Take the segments that come for signs of life (path_signs.py)."""
        if self.mux is not None:
            grace, settle = self.limits.answer / 2, self.limits.busy_keepalive
            self.mux.liveness.signs = signs = PathSigns(first, most, self.clock.seconds(), grace, settle)
            tune(self.handle, most + grace + self.limits.answer)
            self.path_bears(signs)

    def path_bears(self, signs: PathSigns) -> None:
        """A silence was borne, ``signs.after`` is the next: of the agent's kernel, and ours need not ask."""
        probe(self.handle, 0)

    def flush(self) -> None:
        """Write what waits, as far as the transport takes it."""
        if self._flushing or self._working or self.ended is not None or self.mux is None:
            return
        if self._full or not self.mux.waiting:
            return
        self._flushing = True
        try:
            while not self._full and self.ended is None and self._write_quantum(self.mux):
                pass
        except RemoteError as error:
            self.fail("protocol", str(error))
        finally:
            self._flushing = False

    def write_straight(self, mux: Mux, channel: Channel, data: bytes) -> bool:
        """Write one frame past all queues; False: it has to wait in one."""
        if self._full or self._flushing or self._working or self.ended is not None:
            return False
        now, size = self.clock.seconds(), len(data)
        header = mux.straight(channel, size, self._pace.quantum, now)
        if not header:
            return False
        self._full = True  # until the transport asks for more
        self._pace.handed(len(header) + size, now)  # half a quantum is one reading with its header
        if size <= MESSAGE:
            self.transport.write(header + data)
        else:
            self.transport.writeSequence([header, data])
        return True

    def write(self, data: bytes) -> None:
        """Write a frame of the handshake, or our last words."""
        if data and not self._lost:
            self.transport.write(data)

    def fail(self, reason: str, detail: str, say: GoAway | None = GoAway.PROTOCOL) -> None:
        """End the link for a fault; an rt1 peer is told ``say`` first. Its channels end now, with resets."""
        if self.ended is not None:
            return
        self.ended = (reason, detail)
        if self.mux is not None and say is not None:
            with contextlib.suppress(RemoteError):
                self.mux.goaway(say, 0, detail)
        self.leave(at_once=reason == "silent")

    def leave(self, at_once: bool = False) -> None:
        """Close the transport: after what was written and our last words, but within 2 s; or at once."""
        self.ended = self.ended or ("left", "")
        if self.mux is not None and not at_once:  # whether the transport is full or not: nothing follows
            with contextlib.suppress(RemoteError):
                self.write(b"".join(self.mux.take(0, self.clock.seconds())[0]))
        self._finish()
        if self._lost:
            return
        self._cancel(self._timer)
        self.transport.unregisterProducer()
        if at_once:
            self.transport.abortConnection()
        else:
            self.transport.loseConnection()
            self._timer = self.clock.callLater(PARTING, self.transport.abortConnection)

    # -- inside

    def _finish(self) -> None:
        """Once: report the end and cut the channels that still ran."""
        if self._finished:
            return
        self._finished = True
        word, detail = self.ended or ("lost", "")
        cut: list[Channel] = []
        if self.mux is not None:
            self._let_go(self.mux)
            cut = self.mux.lost()
        self.gone(word, detail, cut)
        for channel in cut:
            if channel.owner is not None:
                channel.owner.over(Ended.LINK_LOST)

    def _let_go(self, mux: Mux) -> None:
        """A channel on which the other side has said CLOSE lacks nothing: its socket flushes by itself.

        Not at a legacy agent, where CLOSE says that the client has ended and the service may still answer.
        """
        if mux.opens or mux.wire == "rt1":
            for channel in [*mux.channels.values()]:
                if channel.state in (ChannelState.GOT_CLOSE, ChannelState.CLOSED) and not channel.over:
                    channel.over = True
                    self.happened(Over(channel, Ended.CLOSED, ""))

    def _work(self) -> None:
        """Handle frames for one turn, ``frames_a_turn`` or ``time_a_turn``, then it is the reactor's (F2)."""
        if self._working:
            return
        self._working = True
        taken, most = 0, self.limits.frames_a_turn
        until = self.clock.seconds() + self.limits.time_a_turn
        try:
            for frame in self._decoder.frames(most):
                taken += 1
                if self.mux is None:
                    self.shake(frame)
                else:
                    self._act(self.mux.receive(frame, self.clock.seconds()))
                if self.ended is not None:
                    return
                if taken % LOOK == 0 and self.clock.seconds() >= until:
                    most = taken
                    break
        except RemoteError as error:
            self.broken(error)
            return
        finally:
            self._working = False
        if taken >= most and self._more is None:
            self._more = self.clock.callLater(0, self._work_more)
        self.hold_or_release()
        self.flush()

    def _work_more(self) -> None:
        self._more = None
        self.hold_or_release()
        self._work()

    def broken(self, error: RemoteError) -> None:
        """The other side broke the wire's rules."""
        words = str(error).removeprefix("silent: ")
        self.fail("protocol" if words == str(error) else "silent", words)

    def _write_quantum(self, mux: Mux) -> bool:
        """Give the transport its next bytes; False when there were none."""
        now = self.clock.seconds()
        pieces, readable, later = mux.take(self._pace.quantum, now)
        if pieces:
            self._full = True
            self._pace.handed(sum(map(len, pieces)), now)
            self.transport.writeSequence(pieces)
            if mux.liveness.may_be_busy(now, self._looks):
                self._set_timer(mux.due(now))
        for channel in readable:
            if channel.owner is not None:
                channel.owner.may_read()
        self._act(later)
        return bool(pieces)

    def hold_or_release(self) -> None:
        """Do not read while frames wait for the next turn, or sockets do not take what they are owed."""
        hold = self._more is not None or (self.mux is not None and self.mux.holds_back)
        if hold != self._held and not self._lost and self.ended is None:
            self._held = hold
            if hold:
                self.transport.pauseProducing()
            else:
                self.transport.resumeProducing()

    def _tick(self) -> None:
        self._timer = None
        if self.ended is not None:
            return
        if self.mux is None:
            self.handshake_is_late()
            return
        mux = self.mux
        for channel in [*mux.channels.values()]:
            if channel.owner is not None and not channel.over:
                channel.owner.look()
        alive, now = mux.liveness, self.clock.seconds()
        if alive.patience is not None:
            alive.unacknowledged = silence(self.handle)
        if alive.signs is not None and alive.signs.counted(segments(self.handle), alive.heard_at, now):
            self.path_bears(alive.signs)
        self._guarded(lambda mux: mux.tick(now))
        if self.ended is None:
            self.hold_or_release()
            self._set_timer(mux.due(self.clock.seconds()))

    def _set_timer(self, delay: float) -> None:
        self._cancel(self._timer)
        self._looks = self.clock.seconds() + delay
        self._timer = self.clock.callLater(delay, self._tick)

    @staticmethod
    def _cancel(call: IDelayedCall | None) -> None:
        if call is not None and call.active():
            call.cancel()


def bound_unsent(handle: Any, size: int) -> None:
    """Bytes that the kernel of a TCP connection takes beyond those it has sent."""
    if isinstance(handle, socket.socket) and handle.family in (socket.AF_INET, socket.AF_INET6):
        set_options(handle, [(socket.IPPROTO_TCP, getattr(socket, "TCP_NOTSENT_LOWAT", 25), size)])


def tune(handle: Any, user_timeout: float = USER_TIMEOUT) -> None:
    """Socket options of a link that Twisted has no call for; a transport without a socket is left alone.

    The kernel ends a connection after ``user_timeout`` seconds also if its peer lives and takes nothing;
    0: it does not.
    """
    if not isinstance(handle, socket.socket) or handle.family not in (socket.AF_INET, socket.AF_INET6):
        return
    options = (
        ("TCP_USER_TIMEOUT", 18, int(user_timeout * 1000)),
        ("TCP_KEEPIDLE", 4, 30),
        ("TCP_KEEPINTVL", 5, 10),
    )
    for name, number, value in options:
        with contextlib.suppress(OSError):
            handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name, number), value)


def probe(handle: Any, after: float) -> None:
    """Have the kernel ask for a sign of life after so many seconds without one; 0: never."""
    if isinstance(handle, socket.socket) and handle.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            if after:
                handle.setsockopt(
                    socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", 4), max(1, round(after))
                )
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, after > 0)
