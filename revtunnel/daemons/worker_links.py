"""Links of devices that a worker has, as the server sees them: what it asks of a link, it is told, or tells.

Rule of this file: to the switchboard, to listings, sessions and changes of offers these are links and
carriers like others; what they cannot do at once they have done by their worker.

Source: link/server_link.py, streams/carrier.py; ours.
"""

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.python.failure import Failure

from revtunnel.carriers.data_opening import AwaitAnswer, OpeningAnswer
from revtunnel.carriers.framed_end import FramedEnd
from revtunnel.daemons.worker_messages import LinkCame, LinkSaid
from revtunnel.daemons.worker_streams import WorkerStreams
from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Offer
from revtunnel.link.server_link import AgentListener
from revtunnel.sockets.end_transport import in_words
from revtunnel.sockets.ends import End, PlainEnd
from revtunnel.sockets.loopback_pair import loopback_pair
from revtunnel.sockets.watch import Watch
from revtunnel.streams.offer_messages import OfferChange
from revtunnel.streams.running import Running
from revtunnel.streams.service_state import ServiceState

if TYPE_CHECKING:
    from revtunnel.streams.clients import ClientSocket, Relayed

__all__ = ["ToWorker", "WorkerCarrier", "WorkerLink"]


class ToWorker(Protocol):
    """One worker (workers.py)."""

    reactor: Any
    streams: WorkerStreams

    @property
    def relay_limits(self) -> RelayLimits:
        """Of a client that has to be joined with a worker."""

    @property
    def drains(self) -> bool:
        """Whether it was told to leave, with all its links."""

    def tell(self, name: str, *values: Any, descriptors: tuple[int, ...] = ()) -> None:
        """Have it do something (worker_board.py)."""

    def counted(self, serial: str) -> None:
        """A stream of a client that came to us is counted here, and will be once more as it is told."""


class _FarMux:
    """What is asked of the mux of a link."""

    def __init__(self, link: "WorkerLink") -> None:
        self.service_states: dict[str, ServiceState] = {}
        self.changes = False
        self._link = link

    def change(self, change: OfferChange) -> None:
        """Have the agent change what it offers."""
        self._link.worker.tell("change_offer", self._link.number, change)


class WorkerLink:
    """One link."""

    system = "rt1"
    by_web = False
    takes_sockets = False  # its worker has them
    offers: tuple[Offer, ...] = ()

    def __init__(self, worker: ToWorker, came: LinkCame, listener: AgentListener) -> None:
        self.worker = worker
        self.number = came.number
        self.listener = listener
        self.serial = came.up.serial
        self.authenticated = came.up.authenticated
        self.peer, self.source = came.peer, came.source
        self.tls, self.certificate = came.tls, came.certificate
        self.software = came.up.hello.software if came.up.hello is not None else ""
        self.replaced = False
        self.up_since: float | None = None
        self.round_trip: float | None = None
        self.says_sessions = self.says_origins = False
        self.mux = _FarMux(self)
        self.carrier: Any = WorkerCarrier(worker, self.serial)

    def said(self, told: LinkSaid, now: float) -> None:
        """It is up."""
        self.up_since = now
        self.says_sessions, self.says_origins = told.sessions, told.origins
        self.mux.changes = told.changes

    def flush(self) -> None:
        """What was said has gone already."""

    def say_session(self, payload: bytes) -> None:
        """As a link does."""
        self.worker.tell("session", self.number, payload)

    def goaway(self, reason: GoAway, retry_after: int, detail: str, place: str = "") -> None:
        """As a link does; a worker that leaves does it by itself."""
        if not self.worker.drains:
            self.worker.tell("goaway", self.number, reason, retry_after, detail, place)

    def dismiss(self, reason: str, detail: str, say: GoAway, retry_after: int = 0, by: str = "") -> None:
        """As a link does."""
        self.worker.tell("dismiss", self.number, reason, detail, say, retry_after, by)


class WorkerCarrier:
    """The streams of one device at one worker, in the form of streams/carrier.py: the newest has them all."""

    def __init__(self, worker: ToWorker, serial: str) -> None:
        self.on_rest: Callable[[], None] | None = None
        self.serial = serial
        self._worker = worker

    at_once = True

    @property
    def running(self) -> int:
        return len(self._worker.streams.of(self))

    def open(self, client: "ClientSocket") -> str:
        """Give a client of a port away; another one stays ours, and is joined with the worker."""
        word = self._give(client)
        if not word:
            self._worker.counted(self.serial)
        return word

    def _give(self, client: "ClientSocket") -> str:
        session, origin = client.session, client.origin
        told = client.serial, client.name, client.peer, origin, session
        end = client.hand_over() if client.may_wait else None
        if end is not None:
            self._worker.tell("client", *told, descriptors=(end.sock.detach(),))
            client.finished()
            return ""
        try:
            ours, theirs = loopback_pair()
        except OSError:
            return "descriptors"
        self._worker.tell("join", *told, client.speaks_first, descriptors=(theirs.detach(),))
        _Joined(self._worker, client, PlainEnd(ours))
        return ""

    def numbers(self, clients: Collection["ClientSocket"]) -> None:
        """Nobody at its end waits for a stream to be closed."""

    def rows(self) -> Iterable[Running]:
        return [*self._worker.streams.of(self).values()]

    def end_stream(self, number: int, reason: Ended, detail: str) -> bool:
        if number not in self._worker.streams.of(self):
            return False
        self._worker.tell("end", self.serial, number, reason, detail)
        return True

    def end_streams(self, reason: Ended, detail: str) -> bool:
        if self._worker.streams.newest(self.serial) is not self:
            return False
        self._worker.tell("end", self.serial, None, reason, detail)  # also those that it has not told of yet
        return self.running > 0

    def close(self) -> None:
        """Its worker knows."""

    drain = close


class _Answer(FramedEnd):
    """Our end of the connection with a worker until that has answered, as a node does on a data socket."""

    def __init__(self, reactor: Any, end: End, joined: "_Joined") -> None:
        super().__init__(reactor, end)
        self._joined = joined
        self._await = AwaitAnswer()

    def received(self, data: bytes) -> None:
        answer = self._await.receive(data)
        if answer is not None:
            self._joined.answered(answer)

    def died(self, detail: str) -> None:
        self._joined.end(Ended.LINK_LOST, f"worker: {detail}")


class _Joined:
    """A client of ours whose bytes go to a worker, where it is a client that was forwarded.

    They begin to when the device has answered there, in a relay like any other: of a client of another node
    the data plane may have it, TLS and all. Only first bytes of a client of our own go before that.
    """

    def __init__(self, worker: ToWorker, client: "ClientSocket", far: End) -> None:
        self._worker = worker
        self._client = client
        self._answer = _Answer(worker.reactor, far, self)
        self._relay: Relayed | None = None
        self._unsent: bytes | memoryview = b""  # of its first bytes, what the connection did not take
        self._over = False
        client.carried, client.on_lost = self, self._left
        client.watch(self)
        self._answer.watch()

    @property
    def moved(self) -> int:
        """Payload bytes so far, both directions."""
        return self._relay.to_far + self._relay.to_near if self._relay is not None else 0

    def answered(self, answer: OpeningAnswer) -> None:
        """What came of it."""
        client, far = self._client, self._answer.release()
        if answer.reason is not None:
            self.end(answer.reason, answer.detail)
            return
        self._over, client.on_lost = True, None
        try:
            self._relay = relay = client.relay(far, self._relayed, self._worker.relay_limits)
        except OSError:  # it is told so as ever
            self._answer.abort()
            return
        early, client.early = client.early, b""
        unsent = bytes(self._unsent)
        relay.start(answer.rest, unsent, len(early) - len(unsent))
        if client.unread and client.fileno() >= 0:
            Watch.of(self._worker.reactor).untold(client.fileno())
        self._answer.tell_unread()

    def end(self, reason: Ended, detail: str) -> None:
        """End it with resets on both sides."""
        if self._relay is not None:
            self._relay.abort(reason, detail)
        elif not self._over:
            self._left()
            self._client.watch(None)
            self._client.abort(reason, detail)

    def _left(self) -> None:
        """The client is gone, or is told to go, before there was an answer."""
        self._over, self._client.on_lost = True, None
        self._answer.abort()

    def _relayed(self, reason: Ended, detail: str) -> None:
        self._client.finished()

    # -- the reactor calls, by Watch: something comes of the client, or it goes, before there is an answer

    def fileno(self) -> int:
        """The client's."""
        return self._client.fileno()

    def doRead(self) -> None:
        """Its first bytes; all else is read once there is an answer."""
        client = self._client
        client.unread = True
        if self._over or self._unsent or not client.speaks_first:
            return
        try:
            said = client.read_early()
        except OSError:
            client.abort()
            return
        if said:
            self._unsent = self._answer.say_before(b"", said)

    def happened(self, event: int) -> None:
        """The same; it may be gone."""
        self._client.look()
        self.doRead()
        self._client.unread = True

    def connectionLost(self, reason: Failure) -> None:
        """An exception of ours, which is logged."""
        self.end(Ended.RESET_BY_PEER, f"client: {in_words(reason)}")
