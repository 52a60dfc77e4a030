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
from revtunnel.link.backoff import Backoff
from revtunnel.sockets.end_transport import in_words

__all__ = ["Uplink"]


# where, seconds, and what makes the link once its connection is ready
Connect = Callable[[ServerPlace, float, Callable[[], AgentLink]], "Deferred[AgentLink]"]


def _is_proved(link: AgentLink) -> bool:
    """Whether the server proved who it is, by TLS or by the device's key."""
    return bool(link.tls) or bool(link.server and link.server.proof)


class Uplink:
    """Connects, waits, connects again, until ``stop``. ``make`` builds a link with a fresh handshake.

    ``connect`` brings about what it is told of (link/server_connector.py).
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
        self._dial = connect
        self._reactor = reactor
        self._servers = servers
        self._limits = limits
        self._backoff = Backoff(limits, random)
        self._make = make
        self._report = report
        self._turn = 0
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
        self._servers, self._limits = servers, limits
        self._backoff.limits = limits

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
        place = self._servers[self._turn % len(self._servers)]
        self._turn += 1
        make = partial(self._make, self._ready, self._left)
        self._connecting = self._dial(place, self._limits.connect, make)
        self._connecting.addTimeout(self._limits.connect, self._reactor)
        self._connecting.addCallbacks(self._connected, self._failed, errbackArgs=(str(place),))

    def _connected(self, link: AgentLink) -> None:
        self._connecting = None
        self.link = link

    def _failed(self, failure: Failure, where: str) -> None:
        self._connecting = None
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
        now = self._reactor.seconds()
        if link.up_since is not None:
            lived = now - link.up_since
            self._report(LinkDown(link.serial, link.peer, reason, detail, round(lived, 3), link.cut))
            self._lost_at = now
            spread = link.server.spread if link.server is not None else 1.0
            # of one server of several that stops: the others are there
            others = len(self._servers) > 1 and reason == GoAway.STOPPING.word
            delay = self._backoff.after_loss(lived, spread, 0 if others else link.retry_after)
        elif link.at_once:  # the same server, in another way
            self._turn, delay = self._turn - 1, 0.0
        else:
            delay = self._after_failure(True, link.retry_after)
        if self._stopping:
            if self._waiting is not None and self._waiting.active():
                self._waiting.cancel()
            self._tell_stopped()
            return
        self._again(delay, link.peer, detail or reason)

    def _after_failure(self, refused: bool, retry_after: int) -> float:
        """The back-off counts rounds: with several servers the next one is tried soon."""
        if self._turn % len(self._servers):
            return min(self._limits.retry_first, 0.1)
        if retry_after:
            return self._backoff.announced(retry_after)
        away = None if refused or self._lost_at is None else self._reactor.seconds() - self._lost_at
        return self._backoff.after_failure(away)

    def _again(self, delay: float, where: str, why: str) -> None:
        self._report(ServerState("away", f"{where}: {why}; next try in {delay:.1f} s"))
        self._waiting = self._reactor.callLater(delay, self._connect)
