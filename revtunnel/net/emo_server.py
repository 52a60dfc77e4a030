"""The server's end of EMO: a connection is a command socket or a data socket, by its first eight bytes.

Rule of this file: the table (core/emo_sockets.py) decides, this acts. A machine is known by the port that is
reserved for it; a data socket has to come from where its command socket came from. What is refused is refused
in the wire's one word for it, and nobody else hears of it.

Source: wire/emo.md; faults.md R12 to R17.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from typing import Protocol as Typing

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from revtunnel.core.channel import Channel
from revtunnel.core.emo_sockets import Act, DataSocketTable, Do, Slot
from revtunnel.core.facts import ChannelEnded, ChannelOpened
from revtunnel.core.handshake import Denied, ServerUp
from revtunnel.net.emo_stream import EmoChannel, EmoDataSocket, EmoDoor
from revtunnel.net.running import Running
from revtunnel.net.server_link import ServerLink
from revtunnel.wire.emo import REFUSED, Emo, EmoCommand, EmoDecoder, encode_emo
from revtunnel.wire.errors import RemoteError
from revtunnel.wire.reasons import Ended, GoAway
from revtunnel.wire.targets import Offer, Target

if TYPE_CHECKING:
    from revtunnel.net.clients import ClientSocket

__all__ = ["EmoHub", "EmoServerLink"]

LEAST_PORT = 1025  # that the original lets a client register


class EmoHub(Typing):
    """What a machine's connection asks of the server, beside what every link asks."""

    def machine(self, port: int) -> "EmoServerLink | None":
        """The command socket that has registered this port."""

    def no_stranger(self, link: "EmoServerLink") -> None:
        """The connection is known now, and no link."""

    def port_is_open(self, serial: str, target: str) -> bool:
        """Whether clients can come."""


class _Trip:
    """What a link knows of its path, as rt1's liveness says it."""

    round_trip: float | None = None


class _Counts:
    """A mux to those who count and list; it carries nothing."""

    wire = "emo"
    opens = True
    origins = False
    early_read = False

    def __init__(self, table: DataSocketTable, most: int) -> None:
        self.channels: dict[int, Any] = {}
        self.liveness = _Trip()
        self._table = table
        self._most = most

    @property
    def running(self) -> int:
        """Clients that are served or wait."""
        return self._table.running

    @property
    def free_numbers(self) -> int:
        """Clients that may still come."""
        return max(0, self._most - self._table.running)

    def take(self, quantum: int, now: float) -> tuple[bytes, list[Any], list[Any]]:
        """Nothing is queued here."""
        return b"", [], []

    def goaway(self, reason: GoAway, retry_after: int, detail: str) -> None:
        """The wire has no word for it."""

    def lost(self) -> list[Channel]:
        """Streams are cut, or go on, one by one."""
        return []


class EmoServerLink(ServerLink):
    """One connection of an EMO client: of no role, then a command socket or a data socket."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert self.listener.emo is not None
        self._door: EmoDoor = self.listener.emo
        self.port = 0
        self._emo_hub: EmoHub = self._hub  # type: ignore[assignment]
        self._commands = EmoDecoder()
        self._table = DataSocketTable(self._door.limits)
        self._data: EmoDataSocket | None = None  # it is a data socket
        self._heard = 0.0
        self._asked: float | None = None  # when a PING was said that is not answered yet
        self._answers = False  # it has answered a PING: its silence means something
        self._unasked = 0
        self._leaving = False

    # -- the connection

    def connectionMade(self) -> None:
        super().connectionMade()
        self._set_timer(self._door.limits.first)

    def dataReceived(self, data: bytes) -> None:
        if self._data is not None:
            self._data.received(data)
        elif self.ended is None:
            self._heard = self.clock.seconds()
            self._commands.receive(data)
            self._read_commands()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._data is not None:
            self._lost = True
            self._cancel(self._timer)
            self._data.lost(reason.getErrorMessage())
        else:
            super().connectionLost(reason)

    def handshake_is_late(self) -> None:
        self.fail("silent", f"no command in {self._door.limits.first:g} s", None)

    def _read_commands(self) -> None:
        try:
            while self.ended is None and self._data is None:
                command = self._commands.next()
                if command is None:
                    return
                if self.mux is None:
                    self._first_command(command)
                elif command.kind is Emo.PONG:
                    self._answered()
                else:
                    self._do(self._table.command(command, self.clock.seconds()))
        except Denied as error:
            self.serial = error.serial or self.serial
            self._refuse(error.word, str(error))
        except RemoteError as error:
            self.fail("protocol", str(error), None)

    def _first_command(self, command: EmoCommand) -> None:
        if command.kind is Emo.CONNECT:
            self._register(command.number)
        elif command.kind is Emo.DATA_SOCKET:
            self._become_data_socket(command.number)
        else:
            raise RemoteError(f"{command.kind.name} as the first command")

    def _refuse(self, reason: str, detail: str) -> None:
        self.write(REFUSED)
        self.fail(reason, detail, None)

    # -- a command socket

    def _register(self, port: int) -> None:
        reserved = self._door.ports.get(port) if port >= LEAST_PORT else None
        if reserved is None:
            self._refuse("denied", f"port {port} is reserved for no device here")
            return
        serial, target = reserved
        if self.certificate_serial not in (None, serial):
            raise Denied(GoAway.DENIED, f"the certificate is for {self.certificate_serial}", serial)
        self.port, self.serial = port, serial
        self.authenticated = self.certificate_serial is not None
        self.handshake = ServerUp(serial, None, self.authenticated)
        self._hub.admit(self, self.handshake)
        self.mux = _Counts(self._table, self._door.limits.sockets)  # type: ignore[assignment]
        self.up_since = self.clock.seconds()
        self._hub.arrived(self)
        if not self._emo_hub.port_is_open(serial, target):
            self._refuse("denied", f"port {port} cannot be opened")
            return
        self._ask()

    @property
    def offers(self) -> tuple[Offer, ...]:
        """The one target; where it is only the agent knows."""
        _, target = self._door.ports[self.port]
        return (Offer(target, Target("device.invalid", self.port)),)

    def _ask(self) -> None:
        now = self.clock.seconds()
        if self.listener.heartbeat:
            self.write(encode_emo(Emo.PING))
            self._asked = now
        self._set_timer(1.0)

    def _answered(self) -> None:
        self._answers = True
        if self.mux is not None and self._asked is not None:
            self.mux.liveness.round_trip = max(1e-6, self.clock.seconds() - self._asked)
            self._asked = None

    def _tick(self) -> None:
        self._timer = None
        if self.ended is not None:
            return
        if self.mux is None:
            self.handshake_is_late()
            return
        now, limits = self.clock.seconds(), self._door.limits
        silent = now - self._heard
        if self._answers and silent >= limits.silence:
            self.fail("silent", f"no command in {limits.silence:g} s", None)
            return
        for slot in self._table.slots:
            if slot.client is not None:
                slot.client.look()
        self._do(self._table.tick(now))
        if silent >= limits.heartbeat and self._asked is None:
            self._ask()
        else:
            self._set_timer(1.0)

    def goaway(self, reason: GoAway, retry_after: int, detail: str) -> None:
        """The wire has no word for it: the command socket is closed when nobody uses it any more."""
        self._leaving = True
        self._leave_if_idle(detail)

    def _leave_if_idle(self, detail: str = "") -> None:
        if self._leaving and self.mux is not None and self.ended is None and not self._table.running:
            self.ended = ("stopping", detail)
            self.leave()

    def dismiss(self, reason: str, detail: str, say: GoAway, retry_after: int = 0, by: str = "") -> None:
        self.ended = self.ended or (reason, f"{detail}, {by}" if by else detail)
        for slot in self._table.slots if reason != "replaced" else ():
            self._cut(slot, Ended.OPERATOR if reason == "kicked" else Ended.LINK_LOST, detail)
            if slot.socket is not None:
                slot.socket.abort()
        self.leave()

    def gone(self, reason: str, detail: str, cut: list[Channel]) -> None:
        if self.up_since is None:
            self._hub.refused(self, reason, detail)
            return
        self._do(self._table.lost())
        self._hub.departed(self, reason, detail, 0)

    # -- a data socket

    def _become_data_socket(self, port: int) -> None:
        machine = self._emo_hub.machine(port)
        if machine is None:
            raise RemoteError(f"a data socket for port {port}, which nobody has registered")
        if machine.source != self.source or machine.certificate_serial != self.certificate_serial:
            raise RemoteError(f"a data socket for port {port}, which {machine.peer} has registered")
        early = self._commands.held
        self._cancel(self._timer)
        self._emo_hub.no_stranger(self)
        self._finished = True
        self.transport.unregisterProducer()
        limits = self._door.limits
        self._data = EmoDataSocket(self.clock, self.transport, machine, limits)
        machine.data_came(self._data)
        if early:
            self._data.received(early)

    def data_came(self, socket: EmoDataSocket) -> None:
        """A data socket of this machine."""
        try:
            self._do(self._table.socket_came(socket, self.clock.seconds()))
        except RemoteError as error:
            socket.abort()
            self._unasked += 1
            if self._unasked >= self._door.limits.unasked:
                self.fail("protocol", str(error), None)

    # -- clients

    def open(self, target: Target, client: "ClientSocket") -> bool:
        """Give a client a data socket, now or when one has come; False: there are too many."""
        if self._leaving:
            return False
        client.on_lost = lambda: self._client_lost(client)
        done = self._table.client_came(client, self.clock.seconds())
        refused = any(do.act is Act.REFUSE_CLIENT for do in done)
        if refused:
            client.on_lost = None
            return False
        self._do(done)
        return True

    def _client_lost(self, client: "ClientSocket") -> None:
        """It left while it waited."""
        client.on_lost = None
        self._do(self._table.client_lost(client, self.clock.seconds()))

    def running(self) -> list[Running]:
        """The streams that run on its data sockets, in any order."""
        return [self._row(slot) for slot in self._table.slots if slot.client is not None]

    def _row(self, slot: Slot) -> Running:
        client, channel = slot.client, slot.socket.channel if slot.socket is not None else None
        to_device, to_client = (channel.bytes_sent, channel.bytes_received) if channel is not None else (0, 0)
        state = slot.state.name.lower()
        who = self.serial, slot.number, client.name, client.peer
        return Running(*who, "socket", state, client.since, to_device, to_client, 0, 0)

    def close_channel(self, number: int, reason: Ended, detail: str) -> bool:
        """End one stream; False when there is none."""
        slot = next((slot for slot in self._table.slots if slot.number == number and slot.client), None)
        if slot is None:
            return False
        client = slot.client
        self._cut(slot, reason, detail)
        self._do(self._table.client_lost(client, self.clock.seconds()))
        return True

    # -- what the table wants

    def _do(self, actions: list[Do]) -> None:
        for action in actions:
            if action.command is not None:
                if self.ended is None and not self._lost:
                    self.write(encode_emo(action.command.kind, action.command.number))
            elif action.act is Act.REFUSE_CLIENT:
                action.client.on_lost = None
                action.client.refuse(action.word)
            elif action.act is Act.RESET_CLIENT and action.slot is not None and action.slot.socket is None:
                action.client.on_lost = None  # the agent gave up before its data socket came
                action.client.refuse("no-data-socket")
            elif action.slot is not None:
                _ACTS[action.act](self, action.slot)
        self._leave_if_idle()

    def _join(self, slot: Slot) -> None:
        client, now = slot.client, self.clock.seconds()
        client.on_lost = None
        slot.socket.slot = slot
        milliseconds = round((now - client.since) * 1000, 3)
        self._report(ChannelOpened(self.serial, slot.number, client.name, client.peer, milliseconds))
        slot.socket.join(client, EmoChannel(slot.number, now))

    def _send_end(self, slot: Slot) -> None:
        slot.socket.send_end()

    def _end_client(self, slot: Slot) -> None:
        if slot.client is not None:
            slot.client.end_of_file()

    def _close_client(self, slot: Slot) -> None:
        self._release(slot, Ended.CLOSED, "")

    def _reset_client(self, slot: Slot) -> None:
        self._release(slot, Ended.LINK_LOST, "its data socket was cut")

    def _cut(self, slot: Slot, reason: Ended, detail: str) -> None:
        if slot.client is not None and slot.socket is None:
            slot.client.on_lost = None
            slot.client.refuse("device-absent")
        elif slot.client is not None:
            self._release(slot, reason, detail)

    def _release(self, slot: Slot, reason: Ended, detail: str) -> None:
        if slot.socket is None:
            return
        channel, far = slot.socket.channel, slot.socket.let_go()
        if channel is None or far is None:
            return
        seconds = round(self.clock.seconds() - far.since, 3)
        sums = channel.bytes_sent, channel.bytes_received
        self._report(
            ChannelEnded(self.serial, slot.number, far.name, far.peer, reason, detail, seconds, *sums)
        )
        far.over(reason)

    def _drop_socket(self, slot: Slot) -> None:
        if slot.socket is not None:
            slot.socket.close()

    # -- from data sockets (EmoOwner)

    def end_came(self, socket: EmoDataSocket) -> None:
        try:
            self._do(self._table.end_came(socket.slot))
        except RemoteError as error:
            self.fail("protocol", str(error), None)

    def far_ended(self, socket: EmoDataSocket) -> None:
        self._do(self._table.client_ended(socket.slot))

    def far_lost(self, socket: EmoDataSocket, reason: Ended, detail: str) -> None:
        client = socket.slot.client
        self._release(socket.slot, reason, detail)
        self._do(self._table.client_lost(client, self.clock.seconds()))

    def socket_lost(self, socket: EmoDataSocket, detail: str) -> None:
        if socket.slot is not None:
            self._do(self._table.socket_lost(socket.slot, self.clock.seconds()))


_ACTS: dict[Act, Callable[[EmoServerLink, Slot], None]] = {
    Act.JOIN: EmoServerLink._join,
    Act.SEND_END: EmoServerLink._send_end,
    Act.END_CLIENT: EmoServerLink._end_client,
    Act.CLOSE_CLIENT: EmoServerLink._close_client,
    Act.RESET_CLIENT: EmoServerLink._reset_client,
    Act.DROP_SOCKET: EmoServerLink._drop_socket,
}
