"""The server's end of EMO: a connection is a command socket or a data socket, by its first eight bytes.

Rule of this file: the table (systems/emo/emo_sockets.py) decides, this acts. A machine is known by the port
that is reserved for it; a data socket has to come from where its command socket came from. What is refused is
refused in the wire's one word for it, and nobody else hears of it.

Source: wire/emo.md; faults.md R12 to R17.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from typing import Protocol as Typing

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import ChannelEnded, ChannelOpened
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Offer, Target
from revtunnel.link.handshake import Denied, ServerUp
from revtunnel.link.link import tune
from revtunnel.link.server_link import ServerLink
from revtunnel.streams.channel import Channel
from revtunnel.streams.running import Running
from revtunnel.systems.emo.emo import REFUSED, Emo, EmoCommand, EmoDecoder, encode_emo
from revtunnel.systems.emo.emo_counts import EmoCounts
from revtunnel.systems.emo.emo_sockets import Act, DataSocketTable, Do, Slot
from revtunnel.systems.emo.emo_stream import EmoChannel, EmoDataSocket, EmoDoor

if TYPE_CHECKING:
    from revtunnel.streams.clients import ClientSocket

__all__ = ["EmoHub", "EmoServerLink"]

LEAST_PORT = 1025  # that the original lets a client register
FIRST_OF_RT1 = b"\0"  # of LISTEN and ATTACH; every command of EMO begins with a letter
_WORDS = {"kicked": Ended.OPERATOR, "expired": Ended.NOT_ALLOWED}  # why streams end with their command socket


class EmoHub(Typing):
    """What a machine's connection asks of the server, beside what every link asks."""

    def machine(self, serial: str, port: int) -> "EmoServerLink | None":
        """The command socket that has registered this port."""

    def no_stranger(self, link: ServerLink) -> None:
        """The connection is known now, and no link."""

    def port_is_open(self, serial: str, target: str) -> bool:
        """Whether clients can come."""

    def next_stream(self) -> int:
        """The number of one more stream."""

    def expects(self, source: str, change: int) -> None:
        """So many data sockets more, or less, are on their way from an address."""

    def socket_came(self, change: int) -> None:
        """So many data sockets more, or less, are open."""

    def streams_over(self, link: "EmoServerLink") -> None:
        """The last stream has ended that had outlived this command socket."""

    def rt1_instead(self, link: ServerLink) -> ServerLink:
        """The connection is an agent's of this project: who is to have it."""


class EmoServerLink(ServerLink):
    """One connection of an EMO client: of no role, then a command socket or a data socket."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        assert self.listener.emo is not None
        self._door: EmoDoor = self.listener.emo
        self.port = 0
        self._emo_hub: EmoHub = self._hub  # type: ignore[assignment]
        self._commands = EmoDecoder()
        self._table = DataSocketTable(self._door.limits, self._emo_hub.next_stream)
        self._instead: ServerLink | None = None  # it is an agent's of this project
        self._data: EmoDataSocket | None = None  # it is a data socket
        self._heard = 0.0
        self._asked: float | None = None  # when a PING was said that is not answered yet
        self._answers = False  # it has answered a PING: its silence means something
        self._unasked = 0  # data sockets that nobody asked for, since the last one that was
        self._expecting = False
        self._leaving = False
        self._watching: IDelayedCall | None = None  # over streams that outlived the command socket

    # -- the connection

    def connectionMade(self) -> None:
        super().connectionMade()
        self._set_timer(self._door.limits.first)

    def dataReceived(self, data: bytes) -> None:
        if self._data is not None:
            self._data.received(data)
        elif self._instead is not None:
            self._instead.dataReceived(data)
        elif self.ended is None and self.mux is None and data[:1] == FIRST_OF_RT1 and not self._commands.held:
            self._become_rt1()
            self.dataReceived(data)
        elif self.ended is None:
            self._heard = self.clock.seconds()
            self._commands.receive(data)
            self._read_commands()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._data is not None:
            self._lost = True
            self._emo_hub.socket_came(-1)
            self._data.lost(reason.getErrorMessage())
        elif self._instead is not None:
            self._instead.connectionLost(reason)
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

    def _become_rt1(self) -> None:
        """Let a link of rt1 have the connection."""
        self._cancel(self._timer)
        self._finished = True
        self.transport.unregisterProducer()
        self._instead = self._emo_hub.rt1_instead(self)
        self._instead.makeConnection(self.transport)
        self._instead.peer = self.peer

    # -- a command socket

    def _register(self, port: int) -> None:
        reserved = self._door.ports.get(port) if port >= LEAST_PORT else None
        if reserved is None:
            self._refuse("denied", f"port {port} is reserved for no device here")
            return
        serial, target = reserved
        if self.listener.certified_only and self.certificate is None:
            raise Denied(GoAway.DENIED, "no certificate", serial, word="certificate")
        if self.certificate_serial not in (None, serial):
            raise Denied(GoAway.DENIED, f"the certificate is for {self.certificate_serial}", serial)
        self.port, self.serial = port, serial
        self.authenticated = self.certificate_serial is not None
        self.handshake = ServerUp(serial, None, self.authenticated)
        self._hub.admit(self, self.handshake)
        self.mux = EmoCounts(self._table, self._door.limits.sockets)  # type: ignore[assignment]
        tune(self.handle)
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
        self._look()
        self._do(self._table.tick(now))
        if silent >= limits.heartbeat and self._asked is None:
            self._ask()
        else:
            self._set_timer(1.0)

    def _look(self) -> None:
        """Notice who is gone and is not read at present."""
        for slot in self._table.slots:
            if slot.socket is not None:
                slot.socket.look()
            elif slot.client is not None:
                slot.client.look()

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
        if reason != "replaced":
            self.end_streams(_WORDS.get(reason, Ended.LINK_LOST), detail)
        self.leave()

    def gone(self, reason: str, detail: str, cut: list[Channel]) -> None:
        if self.up_since is None:
            self._hub.refused(self, reason, detail)
            return
        self._do(self._table.lost())
        self._hub.departed(self, reason, detail, 0)
        if self.outlived:
            self._watching = self.clock.callLater(1.0, self._watch)

    # -- streams whose command socket is gone (faults.md R16)

    @property
    def outlived(self) -> bool:
        """Whether streams run that do not need the command socket any more."""
        return self._finished and bool(self._table.slots)

    def end_streams(self, reason: Ended, detail: str) -> None:
        """End every stream, and let every data socket go; who waits is refused."""
        self._do(self._table.lost())
        for slot in self._table.slots:
            self._release(slot, reason, detail)
            slot.socket.abort()
            self._do(self._table.socket_lost(slot, self.clock.seconds()))

    def _watch(self) -> None:
        self._watching = None
        self._look()
        if self.outlived:
            self._watching = self.clock.callLater(1.0, self._watch)

    # -- a data socket

    def _become_data_socket(self, port: int) -> None:
        reserved = self._door.ports.get(port)
        if reserved is None:
            raise RemoteError(f"a data socket for port {port}, which is reserved for no device here")
        machine = self._emo_hub.machine(reserved[0], port)
        if machine is not None and not self._is_beside(machine):
            raise RemoteError(f"a data socket for port {port}, which {machine.peer} has registered")
        fault = "nobody has registered it" if machine is None else machine.unexpected()
        if machine is None or fault:  # in honest hands, when a command socket was lost
            self.fail("ticket", f"a data socket for port {port}: {fault}", None)
            return
        early = self._commands.held
        self._cancel(self._timer)
        self._emo_hub.no_stranger(self)
        self._finished = True
        self.transport.unregisterProducer()
        tune(self.handle, 0)  # a stream may be paused for as long as its client likes
        self._emo_hub.socket_came(1)
        self._data = EmoDataSocket(self.clock, self.transport, machine, self._door.limits, early=False)
        machine.data_came(self._data)
        if early:
            self._data.received(early)

    def _is_beside(self, machine: "EmoServerLink") -> bool:
        """Whether this is the same agent: by its certificate, else by where it comes from."""
        if self.certificate_serial is not None or machine.certificate_serial is not None:
            return self.certificate_serial == machine.certificate_serial
        return self.source == machine.source

    def unexpected(self) -> str:
        """Why a data socket of this machine is not taken, or nothing."""
        if self._table.expects:
            self._unasked = 0
            return ""
        if self._table.excuse():
            return "it was given up before it came"
        self._unasked += 1
        if self._unasked >= self._door.limits.unasked:
            self.fail("protocol", f"{self._unasked} data sockets that nobody asked for", None)
        return "nobody asked for it"

    def data_came(self, socket: EmoDataSocket) -> None:
        """The data socket that was asked for."""
        self._do(self._table.socket_came(socket, self.clock.seconds()))

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
        who = self.serial, slot.stream, client.name, client.peer
        return Running(*who, "socket", state, client.since, to_device, to_client, 0, 0)

    def close_channel(self, number: int, reason: Ended, detail: str) -> bool:
        """End one stream; False when there is none."""
        slot = next((slot for slot in self._table.slots if slot.stream == number and slot.client), None)
        if slot is None:
            return False
        client = slot.client
        if slot.socket is None:
            client.on_lost = None
            client.refuse("device-absent")
        self._release(slot, reason, detail)
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
            elif action.act is Act.END_CLIENT:
                action.client.end_of_file()
            elif action.slot is not None:
                _ACTS[action.act](self, action.slot)
        if self._table.expects != self._expecting:
            self._expecting = not self._expecting
            self._emo_hub.expects(self.source, 1 if self._expecting else -1)
        self._leave_if_idle()
        if self._finished and not self._table.slots:
            self._cancel(self._watching)
            self._watching = None
            self._emo_hub.streams_over(self)

    def _join(self, slot: Slot) -> None:
        client, now = slot.client, self.clock.seconds()
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
        seconds = round(self.clock.seconds() - far.since, 3)
        sums = channel.bytes_sent, channel.bytes_received
        self._report(
            ChannelEnded(self.serial, channel.number, far.name, far.peer, reason, detail, seconds, *sums)
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
    Act.CLOSE_CLIENT: EmoServerLink._close_client,
    Act.RESET_CLIENT: EmoServerLink._reset_client,
    Act.DROP_SOCKET: EmoServerLink._drop_socket,
}
