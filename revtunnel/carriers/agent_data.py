"""The agent's data sockets: brought to the server when it wants them, each for one channel, then relayed.

The rules: a ticket means one connection to the very server of the link that brought it, by the same stages.
Every CONNECT is checked against the agent's own list, as on the link. An unused socket goes with its link; a
running stream does not: it goes on until its programs end it, the server cuts it, or the path is silent. What
keeps sockets from coming is said once in five minutes, not a line for each ticket.

Source: wire/link-extension.md "Data sockets"; faults.md N2, N8, N26 to N30.
"""

import os
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple
from typing import Protocol as Typing

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from revtunnel.carriers.agent_dials import AgentDials, Direct
from revtunnel.carriers.data_opening import AwaitConnect
from revtunnel.carriers.framed_end import BEAT, DEAD, FramedEnd, keep_alive
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, DataSocketsMissing, Report
from revtunnel.ground.limits import AgentLimits, RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target
from revtunnel.sockets.data_plane import DataPlane
from revtunnel.sockets.end_transport import in_words
from revtunnel.sockets.ends import End
from revtunnel.sockets.relay import Relay
from revtunnel.sockets.tcp_info import silence
from revtunnel.streams.commands import Command, encode_reset, number_of
from revtunnel.streams.dialler import Dialler, NotDialled, worded
from revtunnel.streams.frames import encode_frame
from revtunnel.streams.predecessors import Predecessors
from revtunnel.streams.running import sided

__all__ = ["AgentData", "WantingLink"]

OPENED = encode_frame(Command.OPENED, 0)
QUIET = 300.0  # seconds in which missing sockets are said once
LOOK = 5.0  # seconds between looks at the paths of streams
UNOPENED = 1000  # sockets that are remembered


class WantingLink(Typing):
    """What is asked of the link that brought a ticket."""

    serial: str
    peer: str


class _TicketOfLink(NamedTuple):
    link: WantingLink
    ticket: bytes
    until: float


class AgentSocket(FramedEnd):
    """One data socket, from ATTACH to the end of its stream."""

    __slots__ = (
        "_asked_at",
        "_await",
        "_data",
        "_dialling",
        "_doubted",
        "_looks",
        "_relay",
        "_target",
        "link",
        "number",
    )

    def __init__(self, data: "AgentData", end: End, link: WantingLink, number: int) -> None:
        super().__init__(data.reactor, end)
        self.link = link
        self.number = number
        self._data = data
        self._await = AwaitConnect()
        self._target: Target | None = None
        self._asked_at = 0.0
        self._dialling: Deferred[End] | None = None
        self._relay: Relay | None = None
        self._doubted = False
        self._looks = 0

    @property
    def used(self) -> bool:
        """Whether the server has asked it for a target."""
        return self._target is not None

    @property
    def is_open(self) -> bool:
        """Whether its target was reached, and so may have had the client's first bytes."""
        return self._relay is not None

    @property
    def session(self) -> str:
        """The remote session that its client is of; empty: of none."""
        return self._await.session

    # -- from the data plane (agent_dials.py)

    def goes_on(self, data: bytes, age: float, is_used: bool, error: int) -> None:
        """Go on where the plane stopped; ``data`` was read so far, CONNECT ``age`` seconds ago.

        ``is_used``: its target was being dialled; ``error``: that failed so.
        """
        self.watch()
        if not is_used:
            self._heard(data)
            return
        self._target = self._await.receive(data)
        self._asked_at = self._data.now() - age
        self.hold()
        if error:
            assert self._target is not None
            failed = worded(OSError(error, os.strerror(error)), self._target)
            self._say_reset(failed.reason, str(failed))

    def runs(
        self, target: Target, service: End, age: float, took: float, plane: DataPlane, handle: int
    ) -> None:
        """Its target was reached after ``took`` seconds, and the plane moves its bytes."""
        self._target = target
        self._asked_at = self._data.now() - age
        self._say_opened(took)
        self._relay = Relay(self._reactor, self.end, service, self._relayed, self._data.relay_limits)
        self._relay.adopt(plane, handle)

    def dies(self, detail: str) -> None:
        """The plane could not say a word on it."""
        self._die(detail)

    def _heard(self, data: bytes) -> None:
        """The same as if it had read that itself."""
        if data:
            try:
                self.received(data)
            except RemoteError as error:
                self._die(str(error))

    # -- before the target answered

    def received(self, data: bytes) -> None:
        target = self._await.receive(data)
        if target is not None:
            self._target = target
            self.hold()
            self._asked_at = self._data.now()
            first = self._data.predecessors.wait(self.link, self._await.after)
            told = self._await.origin, self.session, first
            self._dialling = self._data.dialler.dial(target, *told)
            self._dialling.addCallbacks(self._reached, self._not_reached)

    def died(self, detail: str) -> None:
        dialling, self._dialling = self._dialling, None
        if self._target is not None:
            self._over(Ended.RESET_BY_PEER, f"server: {detail}")
        else:
            self._data.forget(self)
        if dialling is not None:
            dialling.cancel()

    def _reached(self, service: End) -> None:
        if self._dialling is None:  # it is over meanwhile
            service.abort()
            return
        self._dialling = None
        if not self.say(OPENED):
            service.abort()
            return
        self._say_opened(self._data.now() - self._asked_at)
        self._relay = Relay(self._reactor, self.release(), service, self._relayed, self._data.relay_limits)
        self._relay.start(unsent=self._await.early)
        self.tell_unread()

    def _say_opened(self, seconds: float) -> None:
        link, milliseconds = self.link, round(seconds * 1000, 3)
        self._data.report(ChannelOpened(link.serial, self.number, str(self._target), link.peer, milliseconds))

    def _not_reached(self, failure: Failure) -> None:
        error = failure.value
        if self._dialling is None:  # nobody wanted it any more
            return
        self._dialling = None
        assert isinstance(error, NotDialled)
        self._say_reset(error.reason, str(error))

    def _say_reset(self, reason: Ended, detail: str) -> None:
        if self.say(encode_frame(Command.RESET, 0, encode_reset(reason, detail))):
            self.close()
            self._over(reason, detail)

    # -- ends

    def look(self) -> None:
        """Give a sign of life; give up a stream whose server's machine is silent, now and the last time."""
        self._looks += 1
        if self._looks == 1:
            keep_alive(self.end)
        if self._looks % BEAT == 0:
            self.end.beat()
        if self._relay is not None:
            silent = silence(self.end.sock)
            if silent >= DEAD and self._doubted:
                self.stop(Ended.LINK_LOST, f"the server's machine is silent for {silent:.0f} s")
            self._doubted = silent >= DEAD

    def stop(self, reason: Ended, detail: str) -> None:
        """End it: an unused one in order, a stream with resets."""
        dialling, self._dialling = self._dialling, None
        if self._relay is not None:
            self._relay.abort(reason, detail)
        elif self.used:
            self.abort()
            self._over(reason, detail)
        else:
            self.close()
            self._data.forget(self)
        if dialling is not None:
            dialling.cancel()

    def _relayed(self, reason: Ended, detail: str) -> None:
        self._over(reason, sided(detail, "server", "service"))

    def _over(self, reason: Ended, detail: str) -> None:
        relay = self._relay
        self._data.report(
            ChannelEnded(
                self.link.serial,
                self.number,
                str(self._target),
                self.link.peer,
                reason,
                detail,
                round(self._data.now() - self._asked_at, 3),
                relay.to_far if relay is not None else 0,
                relay.to_near if relay is not None else 0,
            )
        )
        self._data.forget(self)


class AgentData:
    """All data sockets of one agent. ``connect`` dials the server of a link once more.

    Two fifths of the process's ``descriptors`` may be theirs: each needs a second one for its service.
    """

    socket_class: type[AgentSocket] = AgentSocket

    def __init__(
        self,
        reactor: Any,
        limits: AgentLimits,
        dialler: Dialler,
        connect: Callable[[Any], "Deferred[End]"],
        report: Report,
        descriptors: int = 1 << 20,
    ) -> None:
        self.reactor = reactor
        self.limits = limits
        self._descriptors = descriptors
        self.relay_limits = RelayLimits()
        self.dialler = dialler
        self.report = report
        self.sockets: set[AgentSocket] = set()
        self.predecessors = Predecessors(reactor)
        self._connect = connect
        self._tickets: deque[_TicketOfLink] = deque()
        self._unopened: deque[tuple[WantingLink, int]] = deque(maxlen=UNOPENED)  # the last that went unopened
        self._connecting: dict[Deferred[End], WantingLink] = {}
        self._dialling = False  # ``_next`` is at work
        self._said_at: float | None = None  # that sockets are missing
        self._timer: IDelayedCall | None = None
        self._drained: list[Deferred[None]] = []
        self._stopping = False
        self._dials: AgentDials | None = None

    def use_plane(self, plane: DataPlane | None, direct: Direct) -> None:
        """Have a data plane bring sockets and dial targets where that takes no more than a connect.

        ``direct``: where the data sockets of a link connect to, if that is all that is to be done.
        """
        if plane is not None and not plane.has_dials:  # of two agents in a process one has them
            self._dials = AgentDials(self, plane, self.dialler, direct)
            self._dials.take(self.limits, self.relay_limits)
            self.predecessors.elsewhere = self._dials.take_back

    def take(self, limits: AgentLimits, relay_limits: RelayLimits) -> None:
        """Other limits from now on, for later pairs of sockets."""
        self.limits, self.relay_limits = limits, relay_limits
        if self._dials is not None:
            self._dials.take(limits, relay_limits)

    def now(self) -> float:
        """Monotonic seconds."""
        return float(self.reactor.seconds())

    @property
    def running(self) -> int:
        """Sockets that carry a channel, or are about to."""
        theirs = self._dials.counts()[1] if self._dials is not None else 0
        return theirs + sum(socket.used for socket in self.sockets)

    @property
    def count(self) -> int:
        """Sockets in all."""
        theirs = self._dials.counts()[0] if self._dials is not None else 0
        return theirs + len(self.sockets)

    # -- from the link

    def wanted(self, link: WantingLink, tickets: list[bytes]) -> None:
        """The server wants a socket for each ticket."""
        most = min(self.limits.data_most, self._descriptors * 2 // 5)
        room = most - self.count - len(self._connecting) - len(self._tickets)
        if self._stopping:
            return
        if len(tickets) > room:
            self._say_missing(link, f"{most} data sockets are the limit here")
        tickets = tickets[: max(0, room)]
        left = self._dials.bring(link, tickets) if tickets and self._dials is not None else tickets
        if len(left) < len(tickets):
            self._look_later()
        until = self.now() + self.limits.data_ticket
        self._tickets.extend(_TicketOfLink(link, ticket, until) for ticket in left)
        self._next()

    def recall(self, link: WantingLink, number: int) -> bool:
        """The server gave a socket up: take back what was said on it. False: its target may have had that.

        A socket that is gone is known by those that went before their target was reached. The other way round
        a number too old to be remembered would say that all is well.
        """
        if self._dials is not None:
            self._dials.take_back(link, number)
        mine = (each for each in self.sockets if each.number == number and each.link is link)
        if (socket := next(mine, None)) is None:
            return (link, number) in self._unopened
        if socket.is_open:
            return False
        socket.stop(Ended.LINK_LOST, "the server has tried another data socket")
        return True

    def link_gone(self, link: WantingLink, dead: bool) -> None:
        """The link is over: its unused sockets go too, and if its path is ``dead`` its streams as well."""
        self._tickets = deque(each for each in self._tickets if each.link is not link)
        if self._dials is not None:
            self._dials.link_gone(link, dead)
        for connecting in [each for each, owner in self._connecting.items() if owner is link]:
            connecting.cancel()
        for socket in [each for each in self.sockets if each.link is link and (dead or not each.used)]:
            socket.stop(Ended.LINK_LOST, "the link is silent")
        self._unopened = deque((each for each in self._unopened if each[0] is not link), UNOPENED)

    def end_session(self, session: str, detail: str) -> None:
        """The site takes a session back: its streams end."""
        for socket in [each for each in self.sockets if each.session == session]:
            socket.stop(Ended.NOT_ALLOWED, detail)

    # -- from the daemon

    def settle(self) -> None:
        """Report all that has happened up to now."""
        if self._dials is not None:
            self._dials.settle()

    def drain(self) -> "Deferred[None]":
        """Take no more; fires when the last stream has ended."""
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        self._come_no_more()
        self._take_back(used=False)
        for socket in [each for each in self.sockets if not each.used]:
            socket.stop(Ended.LINK_LOST, "")
        self._check_drained()
        return drained

    def abort(self) -> None:
        """End everything now."""
        self._come_no_more()
        self._take_back()
        for socket in [*self.sockets]:
            socket.stop(Ended.LINK_LOST, "the agent stops")

    # -- from the sockets

    def forget(self, socket: AgentSocket) -> None:
        """It is closed."""
        self.sockets.discard(socket)
        self.predecessors.ended(socket.link, socket.number)
        if not socket.is_open:
            self._unopened.append((socket.link, socket.number))
        self._check_drained()

    # -- from the data plane (agent_dials.py)

    def goes_on(self, link: WantingLink, end: End, number: int) -> AgentSocket:
        """A socket that the plane does nothing more with."""
        socket = self.socket_class(self, end, link, number)
        self.sockets.add(socket)
        self.predecessors.began(link, number)
        return socket

    def missing(self, link: WantingLink, detail: str) -> None:
        """The plane had no connection for a ticket."""
        self._say_missing(link, detail)

    def settled(self) -> None:
        """The plane has told all that there was."""
        self._check_drained()

    # -- inside

    def _take_back(self, used: bool = True) -> None:
        if self._dials is not None:
            self._dials.take_back(used=used)

    def _come_no_more(self) -> None:
        self._stopping = True
        self._tickets.clear()
        for connecting in [*self._connecting]:
            connecting.cancel()

    def _next(self) -> None:
        """Dial for the tickets that wait; a dial that fails at once comes here again, and finds us at it."""
        if self._dialling:
            return
        self._dialling = True
        try:
            while self._tickets and len(self._connecting) < self.limits.data_dials:
                ticket = self._tickets.popleft()
                if self.now() < ticket.until:
                    self._dial(ticket)
        finally:
            self._dialling = False

    def _dial(self, ticket: _TicketOfLink) -> None:
        connecting = self._connect(ticket.link)
        self._connecting[connecting] = ticket.link

        def done(result: Any) -> None:
            self._connecting.pop(connecting, None)
            if isinstance(result, Failure):
                self._failed(ticket.link, result)
            else:
                self._connected(ticket, result)
            if not self._stopping:
                self._next()

        connecting.addBoth(done)

    def _connected(self, ticket: _TicketOfLink, end: End) -> None:
        socket = self.goes_on(ticket.link, end, number_of(ticket.ticket))
        if socket.say(encode_frame(Command.ATTACH, 0, ticket.ticket)):
            socket.watch()
            self._look_later()

    def _failed(self, link: WantingLink, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._say_missing(link, in_words(failure))

    def _say_missing(self, link: WantingLink, detail: str) -> None:
        now = self.now()
        if self._said_at is None or now - self._said_at >= QUIET:
            self._said_at = now
            self.report(DataSocketsMissing(link.serial, link.peer, detail))

    def _look(self) -> None:
        self._timer = None
        for socket in [*self.sockets]:
            socket.look()
        if self._dials is not None:
            self._dials.look()
        if self.count:
            self._look_later()

    def _look_later(self) -> None:
        if self._timer is None:
            self._timer = self.reactor.callLater(LOOK, self._look)

    def _check_drained(self) -> None:
        if self._drained and not self.running:
            drained, self._drained = self._drained, []
            for waiting in drained:
                waiting.callback(None)
