"""One client's channel on a data socket, at the server: asked for, answered, relayed, ended.

The rules: a client's first bytes go behind CONNECT, where the agent takes them so, and are kept until OPENED,
one reading beyond RECORD at most. So a socket that dies or is silent before that costs a try on another
socket, and never a byte; but if first bytes were said on it, they may be under way yet, or their target may
have had them: the agent is asked by the link (RECALL), and only what it has taken back is said once more.
From OPENED on the two Ends belong to the relay, and a cut of one is a reset of the other.

A CONNECT that the agent's kernel has not acknowledged after four round trips went nowhere. One that it has
acknowledged is only slow: its target may take as long as the agent lets it.

Source: wire/link-extension.md "Data sockets"; faults.md N8, N26 to N29.
"""

from typing import Any
from typing import Protocol as Typing

from twisted.python.failure import Failure

from revtunnel.carriers.data_opening import AwaitAnswer, OpeningAnswer
from revtunnel.carriers.framed_end import BEAT, FramedEnd, keep_alive
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, Report
from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.origin import encode_origin
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.data_plane import DataPlane
from revtunnel.sockets.end_transport import in_words
from revtunnel.sockets.ends import End, PlainEnd, said
from revtunnel.sockets.relay import Relay
from revtunnel.sockets.tcp_info import acknowledged, silence, unacknowledged
from revtunnel.sockets.watch import Watch
from revtunnel.streams.clients import ClientSocket, Relayed
from revtunnel.streams.commands import Command, encode_after, encode_connect
from revtunnel.streams.frames import encode_frame
from revtunnel.streams.running import Running, relayed_state, sided

__all__ = ["RECALL", "DataSocket", "DataStream", "StreamLink", "StreamPool"]

RECALL = 30.0  # seconds that an agent has to say what has become of a client's first bytes


class StreamLink(Typing):
    """What a stream needs of its pool's link."""

    @property
    def says_origins(self) -> bool:
        """Whether the agent wants to know where its clients come from."""

    @property
    def says_sessions(self) -> bool:
        """Whether the agent is told which remote session a client is of."""

    @property
    def takes_early(self) -> bool:
        """Whether bytes may stand behind CONNECT."""


class StreamPool(Typing):
    """What a socket and a stream need of their pool (data_pool.py)."""

    reactor: Any
    report: Report
    relay_limits: RelayLimits

    @property
    def link(self) -> StreamLink:
        """Whose it is."""

    def now(self) -> float:
        """Monotonic seconds."""

    @property
    def patience(self) -> float:
        """Seconds that a CONNECT may stay unacknowledged."""

    def lost(self, socket: "DataSocket", detail: str) -> None:
        """A waiting socket died."""

    def recall(self, stream: "DataStream") -> None:
        """Ask the agent to take back what was said for a stream, and tell that ``recalled``."""

    def again(self, stream: "DataStream", detail: str) -> None:
        """The socket of a stream was dead: its client needs another one."""

    def ended(self, stream: "DataStream") -> None:
        """A stream is over, its socket closed."""


class DataSocket(FramedEnd):
    """A data socket that was attached: it waits in its pool, or for the answer to a stream's CONNECT."""

    __slots__ = ("_answer", "_mark", "_pool", "number", "since", "stream")

    def __init__(self, reactor: Any, end: End, pool: StreamPool, number: int, now: float) -> None:
        super().__init__(reactor, end)
        self.number = number
        self.since = now
        self.stream: DataStream | None = None
        self._mark = 0  # bytes that the agent's kernel had taken before it was asked
        self._pool = pool
        self._answer = AwaitAnswer()

    def received(self, data: bytes) -> None:
        if self.stream is None:
            raise RemoteError(f"{len(data)} bytes before it was asked for anything")
        answer = self._answer.receive(data)
        if answer is not None:
            self.stream.answered(answer)

    def died(self, detail: str) -> None:
        if self.stream is None:
            self._pool.lost(self, detail)
        else:
            self.stream.refused_by_socket(detail)

    def ask(self, stream: "DataStream") -> None:
        """What is said from now on is for this stream."""
        self.stream = stream
        if not isinstance(self.end, PlainEnd):  # on which a server has said nothing before
            self._mark = acknowledged(self.end.sock)

    @property
    def takes(self) -> bool:
        """Whether the agent's kernel has taken any of what was said since it was asked."""
        if self.stream is None or self.fileno() < 0:
            return False
        taken = acknowledged(self.end.sock)
        if taken < 0:  # no TCP: all or nothing
            return not unacknowledged(self.end.sock)
        return taken > self._mark


class DataStream:
    """A client and its data socket, from CONNECT to the end of both."""

    __slots__ = (
        "_asked_at",
        "_doubt",
        "_doubted",
        "_far",
        "_looks",
        "_pool",
        "_relay",
        "_socket",
        "_unsent",
        "client",
        "number",
        "over",
        "tries",
    )

    def __init__(self, pool: StreamPool, client: ClientSocket, socket: DataSocket, tries: int) -> None:
        self.client = client
        self.number = socket.number
        self.tries = tries  # sockets that failed this client before
        self.over = False
        self._pool = pool
        self._socket: DataSocket | None = socket
        self._relay: Relayed | None = None
        self._far = socket.end
        self._asked_at = 0.0
        self._unsent: bytes | memoryview = b""  # of the client's first bytes, what the socket did not take
        self._doubt = ""  # why its socket failed, while the agent is asked what it has had of it
        self._doubted = False  # silent when it was looked at last
        self._looks = 0
        client.carried = self

    # -- from asked to open

    def ask(self, now: float) -> None:
        """Have the agent dial the client's target."""
        assert self._socket is not None
        self._asked_at = now
        self._socket.ask(self)
        self.client.on_lost = self.client_left
        origin = self.client.origin if self._pool.link.says_origins else None
        asks = encode_frame(Command.ORIGIN, 0, encode_origin(origin)) if origin is not None else b""
        if self.client.session and self._pool.link.says_sessions:
            asks = encode_frame(Command.WITHIN, 0, bytes.fromhex(self.client.session)) + asks
        if self.client.after is not None:
            asks += encode_frame(Command.AFTER, 0, encode_after(self.client.after))
        asks += encode_frame(Command.CONNECT, 0, encode_connect(self.client.target))
        try:
            if self._pool.link.takes_early and self.client.speaks_first:
                self.client.watch(self)
                self.client.read_early()
        except OSError:
            self.client.abort()  # the stream ends in the next turn
        self._unsent = self._socket.say_before(asks, self.client.early)

    def asked(self, since: float, unsent: bytes) -> None:
        """Its CONNECT was said in the data plane, which has given both up; ``unsent``: of its first bytes."""
        assert self._socket is not None
        self._asked_at, self._unsent = since, unsent
        self._socket.ask(self)
        self.client.on_lost = self.client_left
        self.client.watch(self)
        self._socket.watch()

    def goes_on(self, plane: DataPlane, handle: int, milliseconds: float) -> None:
        """The data plane has opened it, and has its bytes."""
        assert self._socket is not None
        socket, self._socket = self._socket, None
        self._far = socket.release()
        client, pool = self.client, self._pool
        pool.report(ChannelOpened(client.serial, self.number, client.name, client.peer, milliseconds))
        self._relay = relay = client.relay(self._far, self._relayed, pool.relay_limits)
        assert isinstance(relay, Relay)
        relay.adopt(plane, handle)

    # -- the reactor calls, by Watch: the client says something before the agent has answered

    def fileno(self) -> int:
        """The client's."""
        return self.client.fileno()

    def doRead(self) -> None:
        """Readable: its first bytes."""
        if self._socket is None or self._unsent:
            self.client.unread = True
            return
        try:
            said = self.client.read_early()
        except OSError:
            self.client.abort()
            return
        if said:
            self._unsent = self._socket.say_before(b"", said)

    def happened(self, event: int) -> None:
        """The same; whether it has ended as well is seen when its target has answered."""
        self.client.look()
        self.doRead()
        self.client.unread = True

    def connectionLost(self, reason: Failure) -> None:
        """An exception of ours, which is logged."""
        self.end(Ended.RESET_BY_PEER, f"client: {in_words(reason)}")

    @property
    def opening(self) -> bool:
        """Whether the agent has not answered yet."""
        return self._socket is not None or (bool(self._doubt) and not self.over)

    def answered(self, answer: OpeningAnswer) -> None:
        """The agent's word."""
        assert self._socket is not None
        socket, self._socket = self._socket, None
        if answer.reason is not None:
            socket.close()
            self.client.watch(None)
            self._end(answer.reason, answer.detail)
            if answer.reason is not Ended.NOT_HERE or not self.client.looks_again():
                self.client.abort(answer.reason, answer.detail)
            return
        far = self._far = socket.release()
        try:
            relay = self.client.relay(far, self._relayed, self._pool.relay_limits)
        except OSError as error:
            socket.abort()
            self._end(Ended.RESET_BY_PEER, f"client: {said(error)}")
            return
        milliseconds = round((self._pool.now() - self.client.since) * 1000, 3)
        client = self.client
        self._pool.report(ChannelOpened(client.serial, self.number, client.name, client.peer, milliseconds))
        self._relay = relay
        early, self.client.early = self.client.early, b""
        unsent = bytes(self._unsent)
        relay.start(answer.rest, unsent, len(early) - len(unsent))
        if self.client.unread and self.client.fileno() >= 0:
            Watch.of(self._pool.reactor).untold(self.client.fileno())
        socket.tell_unread()

    def refused_by_socket(self, detail: str) -> None:
        """The socket is no good: the client gets another one, once nobody can have had its bytes."""
        self._socket = None
        if self.client.early:
            self._asked_at, self._doubt = self._pool.now(), detail
            self._pool.recall(self)
        else:
            self._try_again(detail)

    def recalled(self, in_time: bool) -> None:
        """What the agent says; False: its target may have had the first bytes."""
        if self.over:
            return
        detail, self._doubt = self._doubt, ""
        if in_time:
            self._try_again(detail)
        else:
            self.end(Ended.LINK_LOST, f"agent: {detail}, and its target may have had its first bytes")

    def link_lost(self) -> None:
        """Nobody will say what has become of what was said."""
        if self._doubt:
            self.recalled(False)

    def _try_again(self, detail: str) -> None:
        self.over = True
        self.client.on_lost = None
        self.client.watch(None)
        self._pool.again(self, detail)

    def client_left(self) -> None:
        """The client is gone before its target answered."""
        self.end(Ended.RESET_BY_PEER, "the client left before its target had answered")

    # -- what time and operators do

    def look_at_opening(self, now: float) -> None:
        """Give up a socket that did not take CONNECT, and an agent that does not say what it has had."""
        self.client.look()
        if self._doubt and now - self._asked_at >= RECALL:
            self.recalled(False)
        socket, patience = self._socket, self._pool.patience
        if socket is not None and now - self._asked_at >= patience and not socket.takes:
            socket.abort()
            self.refused_by_socket(f"CONNECT was not acknowledged in {patience:.1f} s")

    def look_at_running(self, dead: float) -> None:
        """Give up a stream whose agent's machine was silent for ``dead`` seconds, now and the last time."""
        if self._relay is None:
            return
        self._looks += 1
        if self._looks == 1:
            keep_alive(self._far)
        if self._looks % BEAT == 0:
            self._far.beat()
        silent = silence(self._far.sock)
        if silent >= dead and self._doubted:
            self.end(Ended.LINK_LOST, f"the agent's machine is silent for {silent:.0f} s")
        self._doubted = silent >= dead

    def end(self, reason: Ended, detail: str) -> None:
        """End it with resets on both sides."""
        if self.over:
            return
        if self._relay is not None:
            self._relay.abort(reason, detail)
            return
        if self._socket is not None:
            self._socket.abort()
        self.client.on_lost = None
        self.client.abort(reason, detail)
        self._end(reason, detail)

    @property
    def moved(self) -> int:
        """Payload bytes so far, both directions."""
        return self._relay.to_far + self._relay.to_near if self._relay is not None else 0

    def running(self) -> Running:
        """As listings show it."""
        client, relay = self.client, self._relay
        state, to_device, to_client, held_to_device, held_to_client = "opening", 0, 0, 0, 0
        if relay is not None:
            state = relayed_state(relay.ended)
            to_device, to_client = relay.to_far, relay.to_near
            held_to_device, held_to_client = relay.held_for_far, relay.held_for_near
        return Running(
            client.serial,
            self.number,
            client.name,
            client.peer,
            "socket",
            state,
            client.since,
            to_device,
            to_client,
            held_to_device,
            held_to_client,
        )

    # -- inside

    def _relayed(self, reason: Ended, detail: str) -> None:
        """Both directions have ended, or one side was cut."""
        self._end(reason, sided(detail, "client", "agent"))

    def _end(self, reason: Ended, detail: str) -> None:
        """Once: say it, with exact bytes, and give back what is held."""
        self.over = True
        self._socket = None
        client, relay = self.client, self._relay
        client.on_lost = None
        now = self._pool.now()
        self._pool.report(
            ChannelEnded(
                client.serial,
                self.number,
                client.name,
                client.peer,
                reason,
                detail,
                round(now - client.since, 3),
                relay.to_far if relay is not None else 0,
                relay.to_near if relay is not None else 0,
            )
        )
        self._pool.ended(self)
        if relay is not None:
            client.finished()
