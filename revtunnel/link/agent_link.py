"""The agent's end of a link: it answers CONNECTs by dialling targets, and nothing else.

Source: wire/link-extension.md; wire/readyagent.md sections 2 and 3; faults.md F15 to F19, N30, N31.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol as Typing

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, LinkStalled, PeerGlitch, Report
from revtunnel.ground.first_bytes import Listens, explained
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.server_places import ServerPlace
from revtunnel.ground.targets import Offer
from revtunnel.link.handshake import AgentHandshake, AgentUp, Dismissed, ServerHello
from revtunnel.link.link import LinkProtocol, probe
from revtunnel.link.mux import (
    Dial,
    Glitch,
    GoingAway,
    Happening,
    Mux,
    OffersAsked,
    Over,
    RecallOf,
    SessionAsked,
    SessionOver,
    Stalled,
    Wanted,
)
from revtunnel.link.path_signs import PathSigns
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.sockets.ends import End
from revtunnel.sockets.tcp_info import segments
from revtunnel.sockets.tls.peer_verification import silent_refusal
from revtunnel.streams.channel import Channel
from revtunnel.streams.commands import Feature
from revtunnel.streams.consent_messages import ConsentRequest, encode_consent
from revtunnel.streams.dialler import Dialler, NotDialled
from revtunnel.streams.frames import Frame
from revtunnel.streams.offer_messages import Answer, encode_offers
from revtunnel.streams.predecessors import Predecessors
from revtunnel.streams.service_state import ServiceState
from revtunnel.streams.streams import ChannelSocket
from revtunnel.streams.window import CreditPool

__all__ = ["AgentLink", "TargetSide"]

QUICK = 1.0  # seconds in which a server hangs up that wants something else than LISTEN


class _Service(ChannelSocket):
    """The connection to a target; ``closed`` is called once it is closed."""

    def __init__(self, clock: IReactorTime, end: End, closed: Callable[[], None]) -> None:
        super().__init__(clock, end)
        self._closed = closed

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._closed()


class TargetSide:
    """The owner of a channel at the agent: keeps what comes for a target until it is reached, then passes on.

    What it keeps is bounded by the channel's first window, or by the legacy hold-back. ``closed`` is called
    once the target has no connection of it any more, or never had one.
    """

    def __init__(self, channel: Channel, since: float, closed: Callable[[], None] = lambda: None) -> None:
        self.channel = channel
        self.since = since
        self._closed = closed
        self.dialling: Deferred[End] | None = None
        self.socket: ChannelSocket | None = None
        self._early: deque[bytes] = deque()
        self._ended_early = False

    def reached(self, link: "AgentLink", end: End) -> None:
        """The target answered: give it what came meanwhile."""
        self.socket = socket = _Service(link.clock, end, self._closed)
        socket.attach(link, self.channel)
        self.channel.owner = self
        while self._early:
            socket.deliver(self._early.popleft())
        if self._ended_early:
            socket.end_of_file()
        socket.may_read()

    def deliver(self, data: bytes) -> None:
        if self.socket is None:
            self._early.append(bytes(data))
        else:
            self.socket.deliver(data)

    def end_of_file(self) -> None:
        if self.socket is None:
            self._ended_early = True
        else:
            self.socket.end_of_file()

    def may_read(self) -> None:
        if self.socket is not None:
            self.socket.may_read()

    def look(self) -> None:
        if self.socket is not None:
            self.socket.look()

    def over(self, reason: Ended) -> None:
        self._early.clear()
        if self.socket is not None:
            self.socket.over(reason)
            return
        if self.dialling is not None:
            self.dialling.cancel()
        self._closed()


class DataSocketBringer(Typing):
    """Who brings data sockets to the server that has asked for them on this link (carriers/agent_data.py)."""

    predecessors: Predecessors

    def wanted(self, link: "AgentLink", tickets: list[bytes]) -> None:
        """Bring one for each ticket."""

    def recall(self, link: "AgentLink", number: int) -> bool:
        """Take back what was said on a data socket; False: its target may have had it."""

    def link_gone(self, link: "AgentLink", dead: bool) -> None:
        """Its tickets are worth nothing any more; ``dead``: neither are the streams that came of them."""


class SessionConsent(Typing):
    """Who says whether a remote session may be (daemons/site_consent.py)."""

    def asked(self, link: "AgentLink", asked: ConsentRequest) -> None:
        """The server asks: answer with ``link.consent``."""

    def over(self, session: str) -> None:
        """A session is over."""

    def link_gone(self, link: "AgentLink") -> None:
        """Whoever asked is gone."""


class AgentLink(LinkProtocol):
    """One connection to a server, from its connect on. ``ready`` and ``left`` tell the uplink."""

    at_once = False  # the next try need not wait
    mux_class = Rt1Mux
    # seconds of silence before it asks, and the same if its path was found to cut; None: as the server says
    asks_after: Callable[["AgentLink"], float | None] = staticmethod(lambda link: None)
    is_cut_after: Callable[["AgentLink"], float | None] = staticmethod(lambda link: None)
    # seconds that the kernel may let its path be silent, given what the server says; 0: it is asked by PING
    kernel_asks: Callable[["AgentLink", float], float] = staticmethod(lambda link, seconds: 0.0)
    far = "server"

    def __init__(
        self,
        clock: IReactorTime,
        limits: LinkLimits,
        serial: str,
        handshake: AgentHandshake,
        dialler: Dialler,
        pool: CreditPool,
        report: Report,
        ready: Callable[["AgentLink"], None],
        left: Callable[["AgentLink"], None],
        data: DataSocketBringer | None = None,
        site: SessionConsent | None = None,
    ) -> None:
        super().__init__(clock, limits)
        self.serial = serial
        self.server: ServerHello | None = None
        self.up_since: float | None = None
        self.place = ServerPlace("", 0), ""  # of the server, and the address that answered
        self.addresses: tuple[str, ...] = ()  # of the name that was dialled
        self.retry_after = 0
        self.elsewhere = ""  # where the server says that we may go instead
        self.leaving = False
        self.cut = 0  # channels that ended with it
        self.why_leaving = ("stopping", "")
        # who is asked for other offers, and answers with ``offer``
        self.offers_asked: Callable[[AgentLink, OffersAsked], None] = lambda link, asked: None
        self._shake = handshake
        self._heard = False  # a frame of the server's has come
        self._dialler = dialler
        self._pool = pool
        self._report = report
        self._ready = ready
        self._left = left
        self._data = data
        self._predecessors = Predecessors(clock) if data is None else data.predecessors
        self._site = site

    def connectionMade(self) -> None:
        super().connectionMade()
        self._shake.server_known = bool(self.tls)
        if self.is_cut_after(self) is not None:  # what is silent on a data socket would be cut
            self._shake.leave_out(Feature.DATA_SOCKETS)
            self._data = None
        if segments(self.handle) < 0 or not self.kernel_asks(self, 1.0):
            self._shake.leave_out(Feature.PROBES)
        if self.place[0].web:  # what lets HTTPS pass may let nothing else
            self._shake.leave_out(Feature.PLACES)
        self.write(self._shake.start())

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.leaving:  # the server said why before it hung up
            self.ended = self.ended or self.why_leaving
        elif self.place[0].web and not self._heard:
            self.ended = self.ended or ("lost", "its WebSocket ended without a word of a server's")
        elif self.tls and not self._heard:
            self.ended = self.ended or ("refused", silent_refusal(reason.value))
        elif not self._heard:
            self.ended = self.ended or self._unheard(reason)
        super().connectionLost(reason)
        self._left(self)

    def _unheard(self, reason: Failure) -> tuple[str, str] | None:
        """Why it ended before a frame came, if that can be told."""
        if self._decoder.held:
            return "protocol", self._named()
        if not reason.check(ConnectionDone):
            return None
        waited = self.clock.seconds() - self.since
        if waited < QUICK:
            return "lost", "the server hung up without a word: does it want TLS? See tls in [agent]"
        words = f"the server hung up after {waited:.0f} s without a word, as a web server does"
        return "lost", f"{words}: see servers in [agent]"

    def _named(self) -> str:
        """What is there in place of a server, by its first bytes."""
        return explained("the server does not speak rt1", self._decoder.rest(), Listens.SERVER)

    # -- the handshake

    def judge_stranger(self, size: int, command: int, channel: int) -> None:
        self._shake.judge(size, command, channel)

    def shake(self, frame: Frame) -> None:
        self._heard = True
        answer, up = self._shake.receive(frame)
        self.write(answer)
        if up is not None:
            self._begin(up)

    def handshake_is_late(self) -> None:
        up = self._shake.time_is_up()
        if up is None and self._decoder.held and not self._heard:
            self.fail("protocol", self._named(), None)
        elif up is None:
            self.fail("silent", self._shake.unanswered(self.limits.handshake), None)
        else:
            self._begin(up)

    def _begin(self, up: AgentUp) -> None:
        now = self.clock.seconds()
        self.server = up.hello
        both = self._shake.mine.features & (up.hello.features if up.hello is not None else Feature(0))
        if up.hello is None:
            from revtunnel.link.legacy import LegacyAgentMux  # most agents need none of it

            mux: Mux = LegacyAgentMux(self.limits, now)
        else:
            largest = min(self.limits.lone_frame, up.hello.largest_data)
            limits = replace(
                self.limits,
                lone_frame=largest,
                frame=min(self.limits.frame, largest),
                keepalive=self.asks_after(self) or up.hello.keepalive,
            )
            sockets = self._data is not None and Feature.DATA_SOCKETS in up.hello.features
            mux = self.mux_class(limits, False, now, self._pool, up.hello.first_window, sockets)
            mux.origins = Feature.ORIGIN in both
            mux.sessions = Feature.SESSIONS in both and self._site is not None
            mux.offers, mux.changes = Feature.OFFERS in both, Feature.CHANGES in both
            mux.services, mux.early = Feature.SERVICES in both, Feature.EARLY in both
            mux.after = Feature.AFTER in both
        self.up_since = now
        self.up(mux)
        if up.hello is not None and Feature.PROBES in both:
            self.count_segments(up.hello.keepalive, self.kernel_asks(self, up.hello.kernel_keepalive))
        self._ready(self)
        if up.first is not None:
            self._guarded(lambda mux: mux.receive(up.first, now))

    def path_bears(self, signs: PathSigns) -> None:
        """The next question of the kernel's comes after that."""
        probe(self.handle, signs.after)

    def broken(self, error: RemoteError) -> None:
        if isinstance(error, Dismissed):
            self.retry_after, self.elsewhere = error.retry_after, error.place
            self.fail(error.reason.word, str(error), None)
        elif not self._heard and self.mux is None:
            self.fail("protocol", self._named(), None)
        else:
            super().broken(error)

    def depart(self) -> None:
        """Take no new channels, and leave when the running ones have ended."""
        self.leaving = True
        if self.mux is None:
            self.leave()
            return
        self._guarded(lambda mux: mux.goaway(GoAway.STOPPING, 0, "the agent stops"))
        self._leave_if_idle()

    # -- what happens

    def happened(self, happening: Happening) -> None:
        if isinstance(happening, Dial):
            self._dial(happening.channel)
        elif isinstance(happening, Over):
            side: TargetSide | None = happening.channel.owner
            self._record(happening.channel, happening.reason, happening.detail)
            if side is not None:
                side.over(happening.reason)
            self._leave_if_idle()
        elif isinstance(happening, Glitch):
            self._report(PeerGlitch(self.serial, self.peer, happening.detail))
        elif isinstance(happening, Stalled):
            self._report(LinkStalled(self.serial, happening.channel.number, happening.owed))
        elif isinstance(happening, SessionAsked | SessionOver):
            self._of_session(happening)
        elif isinstance(happening, RecallOf):
            self._recall(happening.number)
        elif isinstance(happening, OffersAsked):
            self.offers_asked(self, happening)
        elif isinstance(happening, Wanted):
            if self._data is not None and not self.leaving:
                self._data.wanted(self, happening.tickets)
        elif isinstance(happening, GoingAway):
            self.retry_after = happening.retry_after
            self.elsewhere = happening.place or self.elsewhere
            self.leaving = True
            self.why_leaving = (happening.reason.word, happening.detail)
            self._leave_if_idle()

    def gone(self, reason: str, detail: str, cut: list[Channel]) -> None:
        self.cut = len(cut)
        for channel in cut:
            self._record(channel, Ended.LINK_LOST, detail)
        if self._data is not None:
            self._data.link_gone(self, dead=reason == "silent")
        if self._site is not None:
            self._site.link_gone(self)

    def _recall(self, number: int) -> None:
        """The server gave a data socket up."""
        in_time = self._data is not None and self._data.recall(self, number)
        if isinstance(self.mux, Rt1Mux):
            self.mux.recalled(number, in_time)

    def _leave_if_idle(self) -> None:
        if self.leaving and self.ended is None and self.mux is not None and not self.mux.running:
            self.ended = self.why_leaving
            self.leave()

    # -- sessions

    def _of_session(self, happening: SessionAsked | SessionOver) -> None:
        if self._site is None:
            return
        if isinstance(happening, SessionOver):
            self._site.over(happening.session)
        else:
            self._site.asked(self, happening.asked)

    def consent(self, session: str, yes: bool, why: str) -> None:
        """Answer the server for the site; a no after a yes takes that back."""
        if isinstance(self.mux, Rt1Mux) and self.mux.sessions and self.ended is None:
            self.mux.consent(encode_consent(session, yes, why))
            self.flush()

    def end_session(self, session: str, detail: str) -> None:
        """The site takes a session back: its channels end."""
        channels = self.mux.channels.values() if self.mux is not None else ()
        for channel in [each for each in channels if each.session == session and not each.over]:
            self.reset(channel, Ended.NOT_ALLOWED, detail)

    # -- offers

    @property
    def offers(self) -> tuple[Offer, ...]:
        """What the server was told at the beginning."""
        return self._shake.mine.offers

    def offer(self, offers: tuple[Offer, ...], answer: Answer | None = None) -> bool:
        """Tell the server what is offered from now on; False: the next link does."""
        if not isinstance(self.mux, Rt1Mux) or not self.mux.offers or self.ended is not None:
            return False
        self.mux.offer(encode_offers(offers, answer))
        self.flush()
        return True

    def say_service(self, state: ServiceState) -> None:
        """Tell the server whether a service answers, if it wants to know."""
        if isinstance(self.mux, Rt1Mux) and self.ended is None:
            self.mux.say_service(state)
            self.flush()

    # -- dialling

    def _dial(self, channel: Channel) -> None:
        streams, number = self._predecessors, channel.number
        first = streams.wait(self, channel.after)
        streams.began(self, number)
        side = TargetSide(channel, self.clock.seconds(), lambda: streams.ended(self, number))
        channel.owner = side
        side.dialling = self._dialler.dial(channel.target, channel.origin, channel.session, first)
        side.dialling.addCallbacks(
            lambda end: self._reached(side, end), lambda failure: self._not_reached(side, failure)
        )

    def _reached(self, side: TargetSide, end: End) -> None:
        channel = side.channel
        if not channel.over:
            self._guarded(lambda mux: mux.opened(channel))
        if channel.over:  # by then, or by that
            end.abort()
            return
        milliseconds = round((self.clock.seconds() - side.since) * 1000, 3)
        self._report(ChannelOpened(self.serial, channel.number, str(channel.target), self.peer, milliseconds))
        side.reached(self, end)
        self.flush()

    def _not_reached(self, side: TargetSide, failure: Failure) -> None:
        error = failure.value
        assert isinstance(error, NotDialled)
        self.reset(side.channel, error.reason, str(error))

    def _record(self, channel: Channel, reason: Ended, detail: str) -> None:
        side: TargetSide | None = channel.owner
        since = side.since if side is not None else self.clock.seconds()
        self._report(
            ChannelEnded(
                self.serial,
                channel.number,
                str(channel.target),
                self.peer,
                reason,
                detail,
                round(self.clock.seconds() - since, 3),
                channel.bytes_received,
                channel.bytes_sent,
            )
        )
