"""The server's end of a link: who is it, which mux serves it, and one record for every channel.

What a link means to the rest of the server is asked of a ``Hub`` (switchboard.py): may this serial come in,
it is here now, it is gone. How it carries the streams of clients is in link_carrier.py.

Source: wire/link-extension.md; wire/readyagent.md section 5; faults.md F14, N23.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol as Typing

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, LinkStalled, PeerGlitch, Report
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.networks import Network
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.server_places import DATA
from revtunnel.ground.targets import Offer
from revtunnel.link.handshake import LinkDenied, ListenerRules, ServerHandshake, ServerHello, ServerUp
from revtunnel.link.keys import Verifier
from revtunnel.link.legacy import LegacyServerMux
from revtunnel.link.link import USER_TIMEOUT, LinkProtocol, tune
from revtunnel.link.link_carrier import LinkCarrier
from revtunnel.link.mux import (
    Consented,
    Glitch,
    GoingAway,
    Happening,
    Mux,
    Offered,
    Opened,
    Over,
    Recalled,
    ServiceSaid,
    Stalled,
)
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.link.shared_values import limits_for, names_of, nobody_hears
from revtunnel.sockets.end_transport import in_words
from revtunnel.sockets.ends import End
from revtunnel.sockets.tls.certificates import PeerCertificate
from revtunnel.sockets.tls.enroll import MAX_ENROLL
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.sockets.tls.tls_stages import Heard, Secured, TlsFailed
from revtunnel.streams.carrier import Carrier
from revtunnel.streams.channel import Channel
from revtunnel.streams.clients import ClientSocket
from revtunnel.streams.commands import TICKET_SIZE, Command, Feature, encode_goaway, named
from revtunnel.streams.frames import Frame, encode_frame
from revtunnel.streams.offer_messages import Answer
from revtunnel.streams.window import CreditPool

__all__ = ["AgentListener", "Hub", "LinkMaker", "ServerLink"]


class Hub(Typing):
    """What a server link asks of the server."""

    def admit(self, link: "ServerLink", up: ServerUp) -> Verifier | None:
        """The agent passed its handshake; a key: it has to prove that first. Denied: it may not come in."""

    def arrived(self, link: "ServerLink") -> None:
        """The link is up and can carry channels."""

    def leaving(self, link: "ServerLink") -> None:
        """The agent takes no new channels."""

    def departed(self, link: "ServerLink", reason: str, detail: str, cut: int) -> None:
        """A link that was up is gone."""

    def refused(self, link: "ServerLink", reason: str, detail: str) -> None:
        """A connection never became a link."""

    def refused_for(self, link: "ServerLink", word: str) -> int:
        """Seconds for which its address will not be listened to, once it is refused for that."""

    def attach(self, link: "ServerLink", ticket: bytes) -> None:
        """The connection is a data socket: take it with ``hand_over``, or refuse it."""

    def enrol(self, link: "ServerLink", payload: bytes) -> bytes | None:
        """CERTIFICATE's payload, or None: ``certified`` or ``broken`` follows. Denied: it gets none."""

    def no_stranger(self, link: "ServerLink") -> None:
        """The connection is known now, and no link."""

    def expects(self, source: str, change: int) -> None:
        """So many connections more, or less, that were asked for are on their way from an address."""

    def holds(self, change: int) -> None:
        """So many connections more, or less, are open that are no links: their descriptors count."""

    def next_stream(self) -> int:
        """The number of one more stream that has none of a link's."""

    def port_is_open(self, serial: str, target: str) -> bool:
        """Whether clients of a target can come."""

    def consented(self, link: "ServerLink", session: str, yes: bool, why: str) -> None:
        """The device's site answered for a session, or takes its answer back."""

    def offered(self, link: "ServerLink", offers: tuple[Offer, ...], answer: Answer | None) -> None:
        """The agent offers this from now on; ``answer``: to what it was asked for."""

    def instead(self, link: "ServerLink", make: "LinkMaker") -> "ServerLink":
        """The connection speaks another wire than its listener's: who is to have it."""


@dataclass(frozen=True, slots=True)
class AgentListener:
    """One listener for agents: its rules and what its links get."""

    rules: ListenerRules
    limits: LinkLimits
    hello: ServerHello
    duplicate: str = "auto"  # which link of a serial stays (fleet/fleet.py)
    pool: str = "default"
    heartbeat: bool = True  # legacy: ask the device with DATA on number 0
    mappings: Mapping[str, tuple[Offer, ...]] = field(default_factory=dict)  # legacy: what to ask of whom
    identity: Identity | None = None  # for TLS; None: links are plain
    certified_only: bool = False  # without a certificate of the device there is enrolment and nothing else
    make: "LinkMaker | None" = None  # who takes its connections; None: a ServerLink
    checkers: tuple[Network, ...] = ()  # whose connections that come to nothing are only counted
    data: str = "auto"  # what carries channels: link, socket, or auto: sockets, and the link where none comes


LinkMaker = Callable[..., "ServerLink"]  # with the arguments of a ServerLink


class ServerLink(LinkProtocol):
    """One agent or device, from its connect on."""

    __slots__ = (
        "_hub",
        "_listened",
        "_pool",
        "_report",
        "_said",
        "_shake",
        "authenticated",
        "by_web",
        "carrier",
        "certificate",
        "channels",
        "handshake",
        "heard",
        "listener",
        "replaced",
        "securing",
        "serial",
        "source",
        "spoke",
        "subprotocol",
        "takes_early",
        "up_since",
    )

    def __init__(
        self,
        clock: IReactorTime,
        listener: AgentListener,
        hub: Hub,
        key_of: Callable[[str], Verifier | None],
        nonce: bytes,
        pool: CreditPool,
        report: Report,
    ) -> None:
        super().__init__(clock, listener.limits)
        self.listener = listener
        self.serial = ""
        self.source = ""  # the address it comes from, for the limit per source
        self.heard: Heard = nobody_hears  # to be told that it said something, while it is no link
        self.replaced = False  # an older link of its serial was closed for it
        self.up_since: float | None = None
        self.authenticated = False
        self.certificate: PeerCertificate | None = None  # that TLS has checked
        self.subprotocol = ""  # of the WebSocket that it came by; "": it came to a link port
        self.by_web = False
        self.takes_early = False  # bytes may stand behind CONNECT on its data sockets
        self.spoke = False  # TLS, or the header of a frame, has come
        self.securing: Deferred[Secured] | None = None  # TLS is under way: there is no transport yet
        self.handshake: ServerUp | None = None
        self._hub = hub
        self._shake = ServerHandshake(listener.rules, listener.limits, key_of, nonce)
        self._pool = pool
        self._report = report
        self.channels = LinkCarrier(self, listener.data != "socket")
        self.carrier: Carrier = self.channels  # what its clients go by: that, or what falls back on it
        self._listened = False
        self._said: tuple[GoAway, int, str, str] | None = None  # in GOAWAY

    def instead_of(self, link: "ServerLink") -> None:
        """Be what this connection has been so far."""
        self.source, self.peer, self.since = link.source, link.peer, link.since
        self.tls, self.certificate = link.tls, link.certificate
        self._shake.certified = self.certificate_serial

    # -- TLS

    @property
    def certificate_serial(self) -> str | None:
        """The device that its certificate proves; None: it showed none."""
        return self.certificate.serial if self.certificate is not None else None

    def secured(self, found: Secured) -> None:
        """TLS is up; the connection comes next."""
        self.securing, self.spoke = None, True
        self.tls, self.certificate = found.end.tls_version, found.peer
        self._shake.certified = self.certificate_serial

    def turned_away(self, failure: Failure) -> None:
        """There is no TLS with it, or it was told to leave meanwhile."""
        error = failure.value
        if self.ended is None:
            reason = error.reason if isinstance(error, TlsFailed) else "silent"
            self.ended = (reason, in_words(failure))
        self.securing = None
        self._lost = True
        self._finish()

    def leave(self, at_once: bool = False) -> None:
        if self.securing is None:
            super().leave(at_once)
        else:  # turned_away follows
            self.ended = self.ended or ("left", "")
            self.securing.cancel()

    # -- the handshake

    def judge_stranger(self, size: int, command: int, channel: int) -> None:
        self.spoke = True
        self.heard()
        if self.subprotocol and (self.subprotocol == DATA) != (command == Command.ATTACH):
            raise RemoteError(f"{named(command)} on a WebSocket of {self.subprotocol}")
        if command == Command.ENROLL and self.tls and not self._listened:
            if channel or size > MAX_ENROLL:
                raise RemoteError(f"ENROLL of {size} bytes on channel {channel}, {MAX_ENROLL} on 0 at most")
            return
        if self.certificate is not None and self.certificate.late:
            ended = datetime.fromtimestamp(self.certificate.expires, UTC).strftime("%Y-%m-%d")
            text = f"its certificate expired on {ended} and may be renewed, nothing else"
            raise LinkDenied(GoAway.EXPIRED, text, self.certificate.serial, text, word="certificate")
        if self.listener.certified_only and self.certificate is None:
            raise LinkDenied(GoAway.DENIED, "no certificate", "", "no certificate", word="certificate")
        if command != Command.ATTACH or (size, channel) != (TICKET_SIZE, 0) or self._listened:
            self._shake.judge(size, command, channel)

    def shake(self, frame: Frame) -> None:
        if frame.command == Command.ATTACH and not self._listened:
            self._hub.attach(self, frame.payload)
            return
        if frame.command == Command.ENROLL and not self._listened:
            self.certified(self._hub.enrol(self, frame.payload))
            return
        self._shake.source = self.source
        answer, up = self._shake.receive(frame)
        self.write(answer)
        while self._shake.oddities:
            self._report(PeerGlitch(self.serial, self.peer, self._shake.oddities.pop(0)))
        if not self._listened and self.listener.rules.legacy and up is None:
            self._set_timer(self.limits.probe)
        self._listened = True
        if up is not None:
            self._admit(up)

    def handshake_is_late(self) -> None:
        try:
            up = self._shake.time_is_up() if self._listened else None
        except RemoteError as error:
            self.broken(error)
            return
        rest = self.since + self.limits.handshake - self.clock.seconds()
        if up is None and rest > 0:  # the probe's time was up: what is owed is a proof
            self._set_timer(rest)
        elif up is None:
            where = "HELLO or its proof" if self._listened else "LISTEN"
            self.fail("silent", f"no {where} in time", None)
        else:
            try:
                self._admit(up)
            except RemoteError as error:
                self.broken(error)

    def broken(self, error: RemoteError) -> None:
        if isinstance(error, LinkDenied):
            self.serial = error.serial
            if not (
                self._shake.serial or self.tls or self.subprotocol
            ):  # a legacy device would stumble over GOAWAY
                self.fail(error.word, str(error), None)
                return
            seconds = self._hub.refused_for(self, error.word)
            hello = self.handshake.hello if self.handshake is not None else None
            place = error.place if hello is not None and Feature.PLACES in hello.features else ""
            said = encode_goaway(error.reason, seconds, error.told, place)
            self.write(encode_frame(Command.GOAWAY, 0, said))
            self.fail(error.word, str(error), None)
        else:
            super().broken(error)

    def _admit(self, up: ServerUp) -> None:
        if up.hello is None and up.serial not in self.listener.mappings:
            raise LinkDenied(GoAway.DENIED, f"{up.serial} is no device of this listener", up.serial)
        self.handshake, self.serial, self.authenticated = up, up.serial, up.authenticated
        self.channels.serial = up.serial
        if (key := self._hub.admit(self, up)) is not None:
            self.handshake, self.serial = None, ""
            self.write(self._shake.challenge(key))
            return
        now = self.clock.seconds()
        if up.hello is None:
            mux: Mux = LegacyServerMux(self.limits, now, self.listener.heartbeat)
        else:
            limits = limits_for(self.limits, up.hello.largest_data)
            both = up.hello.features & self.listener.hello.features
            window, sockets = up.hello.first_window, Feature.DATA_SOCKETS in both
            mux = Rt1Mux(limits, True, now, self._pool, window, data_sockets=sockets)
            self.write(self._shake.welcome(self.listener.hello))
            mux.origins, mux.sessions = Feature.ORIGIN in both, Feature.SESSIONS in both
            mux.offers, mux.changes = Feature.OFFERS in both, Feature.CHANGES in both
            mux.services, mux.places = Feature.SERVICES in both, Feature.PLACES in both
            mux.early, mux.after = self.takes_early, _ = Feature.EARLY in both, Feature.AFTER in both
            mux.offered = names_of(tuple(offer.name for offer in up.hello.offers))
        self.up_since = now
        self.up(mux)
        if up.hello is None:
            tune(self.handle, max(USER_TIMEOUT, self.limits.legacy_answer))
        elif Feature.PROBES in both:
            self.count_segments(self.limits.keepalive, self.listener.hello.kernel_keepalive)
        del self._shake  # nothing is asked of it any more
        self._hub.arrived(self)

    def certified(self, made: bytes | None) -> None:
        """It is no link: it gets a certificate, and goes; None: that comes later."""
        if made is None:
            return
        self.write(encode_frame(Command.CERTIFICATE, 0, made))
        self._finished = True
        self.leave()

    # -- data sockets

    def hand_over(self) -> End:
        """It is no link: give the connection away, with nothing left to do.

        Raises:
            OSError: it is lost.
            RemoteError: more than ATTACH was said.
        """
        if self._decoder.held:
            raise RemoteError(f"{self._decoder.held} bytes behind ATTACH")
        end = self.transport.take()
        self.ended = ("data-socket", "")
        self._lost = self._finished = True
        self._cancel(self._timer)
        return end

    @property
    def system(self) -> str:
        """The wire that it speaks, once it is known who it is."""
        return "legacy" if self.handshake is None or self.handshake.hello is None else "rt1"

    @property
    def offers(self) -> tuple[Offer, ...]:
        """What its device offers that does not say so itself."""
        return self.listener.mappings.get(self.serial, ())

    @property
    def ticket_scope(self) -> str:
        """Where it came in, and with which certificate: a ticket is good at the same one only."""
        return f"{self.listener.rules.name} {self.certificate.serial if self.certificate else ''}"

    @property
    def takes_sockets(self) -> bool:
        """Whether the agent brings data sockets when it is asked."""
        return isinstance(self.mux, Rt1Mux) and self.mux.data_sockets

    @property
    def round_trip(self) -> float | None:
        """Seconds, as measured; None: not yet."""
        return self.mux.liveness.round_trip if self.mux is not None else None

    @property
    def software(self) -> str:
        """What it says it is."""
        hello = self.handshake.hello if self.handshake is not None else None
        return hello.software if hello is not None else ""

    @property
    def says_origins(self) -> bool:
        """Whether the agent wants to know where its clients come from."""
        return self.mux is not None and self.mux.origins

    @property
    def says_sessions(self) -> bool:
        """Whether the agent is asked before a session begins, and told which one a channel is of."""
        return self.mux is not None and self.mux.sessions

    def say_session(self, payload: bytes) -> None:
        """Ask the device's site for a session, or say that one is over (consent_messages.py)."""
        if isinstance(self.mux, Rt1Mux) and self.mux.sessions and self.ended is None:
            self.mux.session(payload)
            self.flush()

    def want(self, tickets: list[bytes]) -> None:
        """Ask the agent for a data socket for each ticket."""
        if isinstance(self.mux, Rt1Mux) and self.ended is None:
            self.mux.want(tickets)
            self.flush()

    def recall(self, number: int, told: Callable[[bool], None]) -> None:
        """Ask the agent to take back what was said on a data socket: ``told`` whether that was in time.

        Nobody is told by a link that has ended, or ends before that.
        """
        if isinstance(self.mux, Rt1Mux) and self.mux.early and self.ended is None:
            self.mux.recall(number, told)
            self.flush()

    # -- ends

    def goaway(self, reason: GoAway, retry_after: int, detail: str, place: str = "") -> None:
        """Ask the agent to leave when its channels have ended, for another place; the same is said once."""
        said, self._said = self._said, (reason, retry_after, detail, place)
        if self.mux is not None and self.ended is None and said != self._said:
            self._guarded(lambda mux: mux.goaway(reason, retry_after, detail, place))

    def dismiss(self, reason: str, detail: str, say: GoAway, retry_after: int = 0, by: str = "") -> None:
        """End the link from our side, its channels with it; the agent is not told who wanted it (``by``)."""
        self.goaway(say, retry_after, detail)
        self.ended = self.ended or (reason, f"{detail}, {by}" if by else detail)
        self.leave()

    # -- what happens

    def happened(self, happening: Happening) -> None:
        if isinstance(happening, Opened):
            channel, client = happening.channel, happening.channel.owner
            milliseconds = round((self.clock.seconds() - client.since) * 1000, 3)
            self._report(ChannelOpened(self.serial, channel.number, client.name, client.peer, milliseconds))
            client.may_read()
        elif isinstance(happening, Over):
            self._record(happening.channel, happening.reason, happening.detail)
            happening.channel.owner.over(happening.reason)
            self.channels.serve()
        elif isinstance(happening, Glitch):
            self._report(PeerGlitch(self.serial, self.peer, happening.detail))
        elif isinstance(happening, Stalled):
            self._report(LinkStalled(self.serial, happening.channel.number, happening.owed))
        elif isinstance(happening, GoingAway):
            self._hub.leaving(self)
        elif isinstance(happening, Consented):
            self._hub.consented(self, *happening)
        elif isinstance(happening, Offered):
            self._hub.offered(self, *happening)
        elif isinstance(happening, ServiceSaid):
            self._report(happening.state.fact(self.serial))
        elif isinstance(happening, Recalled):
            happening.told(happening.in_time)

    def gone(self, reason: str, detail: str, cut: list[Channel]) -> None:
        self.channels.link_gone()
        for channel in cut:
            self._record(channel, Ended.LINK_LOST, detail)
        if self.up_since is None:
            self._hub.refused(self, reason, detail)
        else:
            self._hub.departed(self, reason, detail, len(cut))

    def flush(self) -> None:
        super().flush()
        if self.channels.waiting:
            self.channels.serve()

    def _record(self, channel: Channel, reason: Ended, detail: str) -> None:
        client: ClientSocket | None = channel.owner
        if client is None:  # the link ended before its CONNECT could be said
            return
        seconds = round(self.clock.seconds() - client.since, 3)
        self._report(
            ChannelEnded(
                self.serial,
                channel.number,
                client.name,
                client.peer,
                reason,
                detail,
                seconds,
                channel.bytes_sent,
                channel.bytes_received,
            )
        )
