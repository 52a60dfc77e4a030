"""The agent's one link, kept up for years: servers in turn, full jitter, GOAWAY honoured, no herd.

Source: faults.md "Thundering herd numbers"; wire/link-extension.md "Liveness"; twisted.md 2.2 (why this is
not a ClientService).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from revtunnel.ground.errors import AnsweredOtherwise
from revtunnel.ground.facts import LinkDown, LinkUp, Report, ServerState
from revtunnel.ground.limits import AgentLimits
from revtunnel.ground.reasons import GoAway
from revtunnel.ground.server_places import ServerPlace, after
from revtunnel.link.agent_link import AgentLink
from revtunnel.link.backoff import BRIEF, Backoff
from revtunnel.link.server_rounds import ServerRounds
from revtunnel.sockets.end_transport import in_words

__all__ = ["Uplink"]


SHUNNED = 16  # addresses whose servers said no
SENT = 3  # times in a row that it goes where it is sent, until a link was stable
# where, seconds, what makes the link once its connection is ready, and addresses that are tried last
Connect = Callable[[ServerPlace, float, Callable[[], AgentLink], Sequence[str]], "Deferred[AgentLink]"]


def _nowhere(link: AgentLink, known: list[ServerPlace]) -> ServerPlace | None:
    return None


def _is_proved(link: AgentLink) -> bool:
    """Whether the server proved who it is, by TLS or by the device's key."""
    return bool(link.tls) or bool(link.server and link.server.proof)


class Uplink:
    """Connects, waits, connects again, until ``stop``. ``make`` builds a link with a fresh handshake.

    ``connect`` brings about what it is told of (link/server_connector.py). ``sent_to`` says where a link that
    has ended sends us (link/following.py): it is gone to once, and not from link to link that do not last.
    Who is sent on ``SENT`` times, and kept by none for a stable minute, goes by his list, as after failures.
    """

    def __init__(
        self,
        reactor: Any,
        servers: Sequence[ServerPlace],
        limits: AgentLimits,
        random: Callable[[], float],
        make: Callable[[Callable[[AgentLink], None], Callable[[AgentLink], None]], AgentLink],
        report: Report,
        connect: Connect,
    ) -> None:
        self.link: AgentLink | None = None
        self.rounds = ServerRounds(reactor, servers, random)
        self.sent_to: Callable[[AgentLink, list[ServerPlace]], ServerPlace | None] = _nowhere
        self._dial = connect
        self._reactor = reactor
        self._limits = limits
        self._backoff = Backoff(limits, random)
        self._make = make
        self._report = report
        self._shunned: list[str] = []  # the last one to be tried last
        self._place: ServerPlace | None = None  # of the last try; None: DNS was asked where
        self._sent = False  # the last try was for where a server had sent us
        self._sends = 0  # such tries since a link was stable
        self._lost_at: float | None = None  # the last link that had come up
        self._waiting: IDelayedCall | None = None
        self._connecting: Deferred[Any] | None = None
        self._stopping = False
        self._stopped: list[Deferred[None]] = []

    def start(self) -> None:
        """Begin; the first try is made at once."""
        if not self._stopping:
            self._connect()

    def hurry(self) -> None:
        """What stood in the way is gone: wait no longer."""
        if not self._stopping and self._waiting is not None and self._waiting.active():
            self._waiting.reset(0)

    def stop(self, patience: float) -> "Deferred[None]":
        """Take no new channels, let the running ones end for ``patience`` seconds, then leave."""
        stopped: Deferred[None] = Deferred()
        self._stopped.append(stopped)
        self._come_back_no_more()
        link = self.link
        if link is None:
            self._tell_stopped()
        else:
            link.depart()
            self._waiting = self._reactor.callLater(patience, link.leave)
        return stopped

    def abort(self) -> None:
        """Leave at once and for good; running channels are reset."""
        self._come_back_no_more()
        if self.link is not None:
            self.link.leave(at_once=True)

    def change(self, servers: Sequence[ServerPlace], limits: AgentLimits) -> None:
        """Other servers and limits, from the next try on."""
        self.rounds.take(servers)
        self._limits = self._backoff.limits = limits

    # -- inside

    def _come_back_no_more(self) -> None:
        self._stopping = True
        if self._waiting is not None and self._waiting.active():
            self._waiting.cancel()
        if self._connecting is not None:
            self._connecting.cancel()

    def _tell_stopped(self) -> None:
        stopped, self._stopped = self._stopped, []
        for waiting in stopped:
            waiting.callback(None)

    def _connect(self) -> None:
        self._waiting = None
        self._connecting = Deferred.fromCoroutine(self._reach())
        self._connecting.addCallbacks(self._connected, self._failed)

    async def _reach(self) -> AgentLink:
        """A connection to the next server."""
        seconds, self._place = self._limits.connect, None
        self._place = place = await self.rounds.next()
        make = partial(self._make, self._ready, self._left)
        dial = self._dial(place, seconds, make, self._shunned)
        return await dial.addTimeout(seconds, self._reactor)

    def _connected(self, link: AgentLink) -> None:
        self._connecting = None
        self.link = link

    def _failed(self, failure: Failure) -> None:
        self._connecting, where = None, str(self._place or self.rounds.asked)
        self._sent = False
        if not self._stopping:
            error = failure.value
            refused = isinstance(error, AnsweredOtherwise | ConnectionResetError)
            retry_after = error.retry_after if isinstance(error, AnsweredOtherwise) else 0
            self._again(self._after_failure(refused, retry_after), where, after(where, in_words(failure)))

    def _ready(self, link: AgentLink) -> None:
        wire = link.mux.wire if link.mux is not None else ""
        name = link.server.name if link.server is not None else ""
        self._report(LinkUp(link.serial, link.peer, wire, name, _is_proved(link), False, link.tls))

    def _left(self, link: AgentLink) -> None:
        self.link = None
        reason, detail = link.ended or ("lost", "")
        lived = 0.0
        if link.up_since is not None:
            self._lost_at = self._reactor.seconds()
            lived = self._lost_at - link.up_since
            self._report(LinkDown(link.serial, link.peer, reason, detail, round(lived, 3), link.cut))
            if lived >= self._limits.stable:
                self.rounds.renew()
                self._sends = 0
        if (link.up_since is None or link.leaving) and not link.at_once:
            self._shun(link.place[1])
        sent = self._where_to(link, lived)
        if sent is not None:
            self.rounds.first(sent)
            detail, delay = f"{detail or reason}; to {sent}, as it says", 0.0
        elif self._sends > SENT:
            detail = f"{detail or reason}; sent on {SENT} times"
            delay = self._after_failure(True, link.retry_after)
        elif link.up_since is not None:
            spread = link.server.spread if link.server is not None else 1.0
            # of one server of several that stops: the others are there
            others = len(link.addresses) > 1 or len(self.rounds.places) > 1
            away = 0 if others and reason == GoAway.STOPPING.word else link.retry_after
            delay = self._backoff.after_loss(lived, spread, away)
        elif link.at_once and self._place is not None:  # the same server, in another way
            self.rounds.first(self._place)
            delay = 0.0
        else:
            delay = self._after_failure(True, link.retry_after)
        if self._stopping:
            if self._waiting is not None and self._waiting.active():
                self._waiting.cancel()
            self._tell_stopped()
            return
        self._again(delay, link.peer, detail or reason)

    def _where_to(self, link: AgentLink, lived: float) -> ServerPlace | None:
        """Where it sends us, if we go: not on and on, from one that does not keep us to the next."""
        sent, self._sent = self._sent, False
        if self._stopping or (sent and lived < BRIEF):
            return None
        try:
            place = self.sent_to(link, self.rounds.places)
        except ValueError as error:
            self._report(ServerState("follow", f"{link.peer} sends us to {link.elsewhere}: {error}"))
            return None
        if place is not None:
            self._sends = min(self._sends, SENT) + 1
        self._sent = place is not None and self._sends <= SENT
        return place if self._sent else None

    def _shun(self, address: str) -> None:
        """Try it last from now on: whoever is there does not want us."""
        others = [each for each in self._shunned if each != address]
        self._shunned = [*others[1 - SHUNNED :], address]

    def _after_failure(self, refused: bool, retry_after: int) -> float:
        """The back-off counts rounds: with several servers the next one is tried soon."""
        if not self.rounds.over:
            return min(self._limits.retry_first, 0.1)
        if retry_after:
            return self._backoff.announced(retry_after)
        away = None if refused or self._lost_at is None else self._reactor.seconds() - self._lost_at
        return self._backoff.after_failure(away)

    def _again(self, delay: float, where: str, why: str) -> None:
        self._report(ServerState("away", f"{where}: {why}; next try in {delay:.1f} s"))
        self._waiting = self._reactor.callLater(delay, self._connect)
