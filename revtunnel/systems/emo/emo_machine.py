"""The streams of one EMO machine at the server: its data sockets as a carrier.

Rule of this file: the table (emo_sockets.py) decides, this acts. Streams do not need the command socket
that they came with: they outlive it when it is lost, and end with it when it is ended on purpose.

Source: wire/emo.md sections 1 to 3; streams/carrier.py; faults.md R16.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Protocol as Typing

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, Report
from revtunnel.ground.limits import EmoLimits
from revtunnel.ground.reasons import Ended
from revtunnel.streams.clients import ClientSocket
from revtunnel.streams.running import Running
from revtunnel.systems.emo.emo import EmoCommand
from revtunnel.systems.emo.emo_sockets import Act, DataSocketTable, Do, Slot
from revtunnel.systems.emo.emo_stream import EmoChannel, EmoDataSocket

__all__ = ["CommandSocket", "EmoMachine"]

LOOK = 1.0  # seconds between looks at streams that have outlived their command socket


class CommandSocket(Typing):
    """What a machine's streams ask of its command socket (emo_server.py)."""

    clock: IReactorTime

    def say(self, command: EmoCommand) -> None:
        """Write a command, if the connection is still there."""

    def settled(self, expects: bool) -> None:
        """Events were handled; ``expects``: a data socket was asked for and is on its way."""

    def broke(self, error: RemoteError) -> None:
        """The machine has broken the rules of the wire."""


class EmoMachine:
    """One machine in the form of streams/carrier.py; ``unasked`` counts what nobody asked for in a row."""

    def __init__(
        self, link: CommandSocket, limits: EmoLimits, next_stream: Callable[[], int], report: Report
    ) -> None:
        self.serial = ""  # once it has registered
        self.on_rest: Callable[[], None] | None = None
        self.table = DataSocketTable(limits, next_stream)
        self.unasked = 0
        self._most = limits.sockets
        self._link = link
        self._clock = link.clock
        self._report = report
        self._draining = False
        self._alone = False  # the command socket is gone
        self._watching: IDelayedCall | None = None

    # -- as a carrier

    @property
    def running(self) -> int:
        return self.table.running

    @property
    def at_once(self) -> bool:
        return self.table.running < self._most

    def open(self, client: ClientSocket) -> str:
        """A data socket now or when one has come; a word where there are too many."""
        if self._draining:
            return "no-channel"
        client.on_lost = lambda: self._client_lost(client)
        done = self.table.client_came(client, self._clock.seconds())
        if any(do.act is Act.REFUSE_CLIENT for do in done):
            client.on_lost = None
            return "no-channel"
        self.do(done)
        return ""

    def numbers(self, clients: Collection[ClientSocket]) -> None:
        """Nobody at its end waits for a stream to be closed."""

    def rows(self) -> Iterable[Running]:
        return [self._row(slot) for slot in self.table.slots if slot.client is not None]

    def end_stream(self, number: int, reason: Ended, detail: str) -> bool:
        slot = next((slot for slot in self.table.slots if slot.stream == number and slot.client), None)
        if slot is None:
            return False
        client = slot.client
        if slot.socket is None:
            client.on_lost = None
            client.refuse("device-absent")
        self._release(slot, reason, detail)
        self.do(self.table.client_lost(client, self._clock.seconds()))
        return True

    def end_streams(self, reason: Ended, detail: str) -> bool:
        """End every stream, and let every data socket go; who waits is refused."""
        ended = bool(self.running)
        self.do(self.table.lost())
        for slot in self.table.slots:
            self._release(slot, reason, detail)
            slot.socket.abort()
            self.do(self.table.socket_lost(slot, self._clock.seconds()))
        return ended

    def close(self) -> None:
        """Nothing: whoever waits is refused when the command socket is gone."""

    def drain(self) -> None:
        self._draining = True

    # -- its command socket

    def command(self, command: EmoCommand) -> None:
        """S or T of the agent. RemoteError: any other."""
        self.do(self.table.command(command, self._clock.seconds()))

    def tick(self) -> None:
        """Once a second: notice who is gone and is not read at present, and what comes too late."""
        self._look()
        self.do(self.table.tick(self._clock.seconds()))

    def lost(self) -> None:
        """The command socket is gone."""
        self._alone = True
        self.do(self.table.lost())
        if self.table.slots:
            self._watching = self._clock.callLater(LOOK, self._watch)

    def _watch(self) -> None:
        self._watching = None
        self._look()
        if self.table.slots:
            self._watching = self._clock.callLater(LOOK, self._watch)

    def _look(self) -> None:
        for slot in self.table.slots:
            if slot.socket is not None:
                slot.socket.look()
            elif slot.client is not None:
                slot.client.look()

    # -- data sockets (EmoOwner)

    def unexpected(self) -> str:
        """Why a data socket of this machine is not taken, or nothing."""
        if self.table.expects:
            self.unasked = 0
            return ""
        if self.table.excuse():
            return "it was given up before it came"
        self.unasked += 1
        return "nobody asked for it"

    def came(self, socket: EmoDataSocket) -> None:
        """The data socket that was asked for."""
        self.do(self.table.socket_came(socket, self._clock.seconds()))

    def end_came(self, socket: EmoDataSocket) -> None:
        try:
            self.do(self.table.end_came(socket.slot))
        except RemoteError as error:
            self._link.broke(error)

    def far_ended(self, socket: EmoDataSocket) -> None:
        self.do(self.table.client_ended(socket.slot))

    def far_lost(self, socket: EmoDataSocket, reason: Ended, detail: str) -> None:
        client = socket.slot.client
        self._release(socket.slot, reason, detail)
        self.do(self.table.client_lost(client, self._clock.seconds()))

    def socket_lost(self, socket: EmoDataSocket, detail: str) -> None:
        if socket.slot is not None:
            self.do(self.table.socket_lost(socket.slot, self._clock.seconds()))

    # -- what the table wants

    def do(self, actions: list[Do]) -> None:
        """Act, in order."""
        for action in actions:
            if action.command is not None:
                self._link.say(action.command)
            elif action.act is Act.REFUSE_CLIENT:
                action.client.on_lost = None
                action.client.refuse(action.word)
            elif action.act is Act.RESET_CLIENT and action.slot is not None and action.slot.socket is None:
                action.client.on_lost = None  # the agent gave up before its data socket came
                action.client.refuse("no-data-socket")
            elif action.act is Act.END_CLIENT:
                action.client.end_of_file()
            elif action.slot is not None:
                _ACTS[action.act](self, action.slot)
        self._link.settled(self.table.expects)
        if self._alone and not self.table.slots:
            if self._watching is not None:
                self._watching.cancel()
                self._watching = None
            if self.on_rest is not None:
                self.on_rest()

    def _client_lost(self, client: ClientSocket) -> None:
        """It left while it waited."""
        client.on_lost = None
        self.do(self.table.client_lost(client, self._clock.seconds()))

    def _row(self, slot: Slot) -> Running:
        client, channel = slot.client, slot.socket.channel if slot.socket is not None else None
        to_device, to_client = (channel.bytes_sent, channel.bytes_received) if channel is not None else (0, 0)
        state = slot.state.name.lower()
        who = self.serial, slot.stream, client.name, client.peer
        return Running(*who, "socket", state, client.since, to_device, to_client, 0, 0)

    def _join(self, slot: Slot) -> None:
        client, now = slot.client, self._clock.seconds()
        client.on_lost = None
        slot.socket.slot = slot
        milliseconds = round((now - client.since) * 1000, 3)
        self._report(ChannelOpened(self.serial, slot.stream, client.name, client.peer, milliseconds))
        slot.socket.join(client, EmoChannel(slot.stream, now))

    def _send_end(self, slot: Slot) -> None:
        slot.socket.send_end()

    def _close_client(self, slot: Slot) -> None:
        self._release(slot, Ended.CLOSED, "")

    def _reset_client(self, slot: Slot) -> None:
        self._release(slot, Ended.LINK_LOST, "its data socket was cut")

    def _release(self, slot: Slot, reason: Ended, detail: str) -> None:
        if slot.socket is None:
            return
        channel, far = slot.socket.channel, slot.socket.let_go()
        if channel is None or far is None:
            return
        seconds = round(self._clock.seconds() - far.since, 3)
        sums = channel.bytes_sent, channel.bytes_received
        self._report(
            ChannelEnded(self.serial, channel.number, far.name, far.peer, reason, detail, seconds, *sums)
        )
        far.over(reason)

    def _drop_socket(self, slot: Slot) -> None:
        if slot.socket is not None:
            slot.socket.close()


_ACTS: dict[Act, Callable[[EmoMachine, Slot], None]] = {
    Act.JOIN: EmoMachine._join,
    Act.SEND_END: EmoMachine._send_end,
    Act.CLOSE_CLIENT: EmoMachine._close_client,
    Act.RESET_CLIENT: EmoMachine._reset_client,
    Act.DROP_SOCKET: EmoMachine._drop_socket,
}
