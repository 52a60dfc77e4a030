"""The agent's end of EMO: a command socket that registers a port, and data sockets opened when it says so.

Rule of this file: the table (systems/emo/emo_targets.py) decides, this acts. Nothing on the command socket
ever waits for a data socket or for the device. Every dial goes through the agent's own list.

Source: wire/emo.md sections 1 to 3.
"""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, PeerGlitch, Report
from revtunnel.ground.first_bytes import Listens
from revtunnel.ground.limits import EmoLimits
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target
from revtunnel.link.link import tune
from revtunnel.sockets.end_transport import EndTransport, in_words
from revtunnel.sockets.ends import End
from revtunnel.streams.dialler import Dialler, NotDialled
from revtunnel.streams.numbers import Tally
from revtunnel.streams.streams import ChannelSocket
from revtunnel.systems.emo.emo import Emo, EmoCommand, EmoDecoder, encode_emo
from revtunnel.systems.emo.emo_stream import PARTING, EmoChannel, EmoDataSocket
from revtunnel.systems.emo.emo_targets import AgentAct, AgentDo, AgentSlot, AgentTable

__all__ = ["HUNG_UP", "EmoAgentLink", "EmoRemains"]

HUNG_UP = "the server hung up without a word: has it kind = emo in [listener NAME]? Does it want TLS?"


class EmoRemains:
    """Command sockets of an agent that are gone, whose streams run on (faults.md R16)."""

    def __init__(self) -> None:
        self._links: set[EmoAgentLink] = set()
        self._drained: list[Deferred[None]] = []

    def add(self, link: "EmoAgentLink") -> None:
        """The command socket is gone."""
        self._links.add(link)

    def discard(self, link: "EmoAgentLink") -> None:
        """Its last stream has ended."""
        self._links.discard(link)
        self._tell()

    def drain(self) -> "Deferred[None]":
        """Fires when the last of these streams has ended."""
        drained: Deferred[None] = Deferred()
        self._drained.append(drained)
        self._tell()
        return drained

    def abort(self) -> None:
        """End them all."""
        for link in [*self._links]:
            link.leave(at_once=True)

    def _tell(self) -> None:
        if not self._links:
            drained, self._drained = self._drained, []
            for waiting in drained:
                waiting.callback(None)


class _DataConnection(Protocol):
    """One data socket to the server; it says its P and passes everything on."""

    socket: EmoDataSocket | None = None
    transport: Any

    def __init__(self, link: "EmoAgentLink", slot: AgentSlot) -> None:
        self._link = link
        self._slot = slot

    def connectionMade(self) -> None:
        tune(self.transport.getHandle(), 0)
        self._link.data_connected(self._slot, self)

    def dataReceived(self, data: bytes) -> None:
        if self.socket is not None:
            self.socket.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.socket is not None:
            self.socket.lost(in_words(reason))


@implementer(IPushProducer)
class EmoAgentLink(Protocol):
    """One command socket, from its connect on, in the form that ``Uplink`` keeps up.

    Args:
        port: the server's port that clients dial, 1025 to 65535.
        connect: makes a further connection to the server of this link.
        remains: knows this link while streams run that outlived it.
    """

    transport: Any
    server = None  # says nothing about itself
    mux = SimpleNamespace(wire="emo")  # to those who report
    retry_after = 0
    at_once = False  # the next try need not wait
    leaving = False  # a server of this wire sends nobody away
    place = ("", 0, "")  # of the server, as link/server_connector.py says it
    tls = ""  # set by whoever brought the connection to TLS

    def __init__(
        self,
        clock: IReactorTime,
        limits: EmoLimits,
        serial: str,
        port: int,
        target: Target,
        dialler: Dialler,
        connect: Callable[["EmoAgentLink"], "Deferred[End]"],
        report: Report,
        ready: Callable[["EmoAgentLink"], None],
        left: Callable[["EmoAgentLink"], None],
        remains: EmoRemains | None = None,
    ) -> None:
        self._remains = remains or EmoRemains()
        self.clock = clock
        self.limits = limits
        self.serial = serial
        self.peer = "?"
        self.up_since: float | None = None
        self.ended: tuple[str, str] | None = None
        self.cut = 0
        self._port = port
        self.target = target
        self._dialler = dialler
        self._connect = connect
        self._report = report
        self._ready = ready
        self._left = left
        self._decoder = EmoDecoder(Listens.SERVER)
        self._idle = Tally(limits.idle_frames, 60.0, "commands that change nothing")
        self._table = AgentTable(limits)
        self._heard = 0.0
        self._heartbeat = False  # an old server says nothing: its silence means nothing
        self._timer: IDelayedCall | None = None
        self._departing = False
        self._lost = False

    # -- the command socket

    def connectionMade(self) -> None:
        tune(self.transport.getHandle())
        self._heard = self.clock.seconds()
        self.transport.registerProducer(self, True)
        self._say(EmoCommand(Emo.CONNECT, self._port))
        self._timer = self.clock.callLater(self.limits.first, self._tick)

    def dataReceived(self, data: bytes) -> None:
        if self.ended is not None:
            return
        self._heard = self.clock.seconds()
        self._decoder.receive(data)
        try:
            while self.ended is None and (command := self._decoder.next()) is not None:
                self._take(command)
        except RemoteError as error:
            self.fail("protocol", str(error))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        _stop(self._timer)
        wordless = self.up_since is None and reason.check(ConnectionDone)
        self.ended = self.ended or ("lost", HUNG_UP if wordless else f"the server {in_words(reason)}")
        self._lost = True
        self._do(self._table.lost())
        if self._table.slots:
            self._remains.add(self)
            self._timer = self.clock.callLater(1.0, self._watch)
        self._left(self)

    def pauseProducing(self) -> None:
        """The server does not take our answers: it is not heard meanwhile."""
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """It has taken them all."""
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The transport is lost; ``connectionLost`` says it."""

    def _watch(self) -> None:
        """Look after streams that outlived the command socket."""
        self._look()
        if self._table.slots:
            self._timer = self.clock.callLater(1.0, self._watch)

    def _look(self) -> None:
        """Notice who is gone and is not read at present."""
        for slot in self._table.slots:
            if slot.socket is not None:
                slot.socket.look()

    def fail(self, reason: str, detail: str) -> None:
        """End the command socket."""
        if self.ended is None:
            self.ended = (reason, detail)
            self._close()

    def depart(self) -> None:
        """Take no new clients: the wire has no word for it but hanging up; running streams go on."""
        self._departing = True
        self._leave_if_idle()

    def leave(self, at_once: bool = False) -> None:
        """Close everything."""
        self.ended = self.ended or ("stopping", "the agent stops")
        for slot in self._table.slots:
            if slot.target is not None:
                self._cut(slot, Ended.LINK_LOST, "the agent stops")
            if slot.socket is not None:
                slot.socket.abort()
            self._do(self._table.socket_lost(slot))
        if at_once and not self._lost:
            self.transport.abortConnection()
        elif not self._lost:
            self._close()

    def _close(self) -> None:
        """Behind what was said, but within a bounded time."""
        _stop(self._timer)
        self._timer = self.clock.callLater(PARTING, self.transport.abortConnection)
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _take(self, command: EmoCommand) -> None:
        if command.kind is Emo.REFUSED:
            self.fail("denied", f"the server refuses port {self._port}")
            return
        self._is_up()
        self._heartbeat = self._heartbeat or command.kind is Emo.PING
        if self._departing and command.kind is Emo.CONNECT:
            self._idle.add(self._heard)
            self._say(EmoCommand(Emo.TERMINATE, command.number))
            return
        actions = self._table.command(command)
        if command.kind is Emo.PING or not actions:
            self._idle.add(self._heard)
        self._do(actions)

    def _is_up(self) -> None:
        """The wire has no word of welcome: a command, or a while without refusal, is as good."""
        if self.up_since is None:
            self.up_since = self.clock.seconds()
            self._ready(self)

    def _tick(self) -> None:
        now = self.clock.seconds()
        self._is_up()
        if self._heartbeat and now - self._heard >= self.limits.silence:
            self.fail("silent", f"no command in {self.limits.silence:g} s")
            return
        self._look()
        self._do(self._table.tick(now))
        if self.ended is None:
            self._timer = self.clock.callLater(1.0, self._tick)

    def _say(self, command: EmoCommand) -> None:
        if self.ended is None:
            self.transport.write(encode_emo(command.kind, command.number))

    def _leave_if_idle(self) -> None:
        if self._departing and self.ended is None and not self._table.running:
            self.ended = ("stopping", "the agent stops")
            self._close()

    # -- what the table wants

    def _do(self, actions: list[AgentDo]) -> None:
        for action in actions:
            slot = action.slot
            if action.command is not None:
                self._say(action.command)
            elif slot is not None:
                _ACTS[action.act](self, slot)
        self._leave_if_idle()
        if self._lost and not self._table.slots:
            _stop(self._timer)
            self._remains.discard(self)

    def _no_socket(self, slot: AgentSlot, failure: Failure) -> None:
        self._report(PeerGlitch(self.serial, self.peer, f"no data socket: {in_words(failure)}"))
        self._do(self._table.socket_lost(slot))

    def data_connected(self, slot: AgentSlot, connection: _DataConnection) -> None:
        """A data socket reached the server."""
        if slot not in self._table.slots or self.ended is not None:
            connection.transport.abortConnection()
            return
        connection.transport.write(encode_emo(Emo.DATA_SOCKET, self._port))
        connection.socket = slot.socket = EmoDataSocket(self.clock, connection.transport, self, self.limits)
        slot.socket.slot = slot
        self._do(self._table.socket_opened(slot))

    def _dial(self, slot: AgentSlot) -> None:
        since = self.clock.seconds()
        slot.target = dialling = self._dialler.dial(self.target)
        dialling.addCallbacks(
            partial(self._reached, slot, since), lambda failure: self._not_reached(slot, failure)
        )

    def _reached(self, slot: AgentSlot, since: float, end: End) -> None:
        slot.target = target = ChannelSocket(self.clock, end)
        channel = EmoChannel(slot.number, since)
        milliseconds = round((self.clock.seconds() - since) * 1000, 3)
        self._report(ChannelOpened(self.serial, slot.number, str(self.target), self.peer, milliseconds))
        slot.socket.join(target, channel)

    def _not_reached(self, slot: AgentSlot, failure: Failure) -> None:
        slot.target = None
        error = failure.value
        if not isinstance(error, NotDialled):
            return  # nobody wants it any more
        self._record(slot, EmoChannel(slot.number, self.clock.seconds()), error.reason, str(error))
        if slot.socket is not None and slot in self._table.slots:
            actions = self._table.not_dialled(slot)
            self._do(actions)
            slot.socket.discard()

    def _cut(self, slot: AgentSlot, reason: Ended, detail: str) -> None:
        target, slot.target = slot.target, None
        if isinstance(target, Deferred):
            target.cancel()
        elif slot.socket is not None:
            channel, far = slot.socket.channel, slot.socket.let_go()
            if channel is not None and far is not None:
                self.cut += 1
                self._record(slot, channel, reason, detail)
                far.over(reason)

    # -- from data sockets (EmoOwner)

    def end_came(self, socket: EmoDataSocket) -> None:
        try:
            self._do(self._table.end_came(socket.slot))
        except RemoteError as error:
            self.fail("protocol", str(error))

    def far_ended(self, socket: EmoDataSocket) -> None:
        self._do(self._table.target_ended(socket.slot))

    def far_lost(self, socket: EmoDataSocket, reason: Ended, detail: str) -> None:
        self._cut(socket.slot, reason, detail)
        self._do(self._table.target_reset(socket.slot))

    def socket_lost(self, socket: EmoDataSocket, detail: str) -> None:
        self._do(self._table.socket_lost(socket.slot))

    # -- records

    def _record(self, slot: AgentSlot, channel: EmoChannel, reason: Ended, detail: str) -> None:
        seconds = round(self.clock.seconds() - channel.since, 3)
        sums = channel.bytes_received, channel.bytes_sent
        self._report(
            ChannelEnded(
                self.serial, slot.number, str(self.target), self.peer, reason, detail, seconds, *sums
            )
        )


def _stop(timer: IDelayedCall | None) -> None:
    if timer is not None and timer.active():
        timer.cancel()


def _send_end(link: EmoAgentLink, slot: AgentSlot) -> None:
    slot.socket.send_end()


def _drop_socket(link: EmoAgentLink, slot: AgentSlot) -> None:
    if slot.socket is not None:
        slot.socket.close()


def _end_target(link: EmoAgentLink, slot: AgentSlot) -> None:
    if isinstance(slot.target, ChannelSocket):
        slot.target.end_of_file()


def _close_target(link: EmoAgentLink, slot: AgentSlot) -> None:
    channel, far = slot.socket.channel, slot.socket.let_go()
    slot.target = None
    link._table.settled(slot, link.clock.seconds())
    if far is not None and channel is not None:
        link._record(slot, channel, Ended.CLOSED, "")
        far.over(Ended.CLOSED)


def _reset_target(link: EmoAgentLink, slot: AgentSlot) -> None:
    link._cut(slot, Ended.RESET_BY_PEER, "its data socket was cut")


def _open_socket(link: EmoAgentLink, slot: AgentSlot) -> None:
    def reached(end: End) -> None:
        EndTransport(link.clock, end, _DataConnection(link, slot)).start()

    link._connect(link).addCallbacks(reached, lambda failure: link._no_socket(slot, failure))


_ACTS: dict[AgentAct, Callable[[EmoAgentLink, AgentSlot], None]] = {
    AgentAct.OPEN_SOCKET: _open_socket,
    AgentAct.DIAL: EmoAgentLink._dial,
    AgentAct.END_TARGET: _end_target,
    AgentAct.SEND_END: _send_end,
    AgentAct.CLOSE_TARGET: _close_target,
    AgentAct.RESET_TARGET: _reset_target,
    AgentAct.DROP_SOCKET: _drop_socket,
}
