"""The server's end of EMO: a connection is a command socket or a data socket, by its first eight bytes.

Rule of this file: the table (systems/emo/emo_sockets.py) decides, this acts. A machine is known by the port
that is reserved for it; a data socket has to come from where its command socket came from. What is refused is
refused in the wire's one word for it, and nobody else hears of it.

Source: wire/emo.md; faults.md R12 to R17.
"""

from functools import partial
from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.first_bytes import Listens, explained
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import Offer, Target
from revtunnel.link.handshake import LinkDenied, ServerUp
from revtunnel.link.link import tune
from revtunnel.link.server_link import ServerLink
from revtunnel.sockets.end_transport import in_words
from revtunnel.streams.channel import Channel
from revtunnel.streams.numbers import Tally
from revtunnel.systems.emo.emo import LEAST_PORT, REFUSED, Emo, EmoCommand, EmoDecoder, encode_emo
from revtunnel.systems.emo.emo_counts import EmoCounts
from revtunnel.systems.emo.emo_listener import EmoListener
from revtunnel.systems.emo.emo_machine import EmoMachine
from revtunnel.systems.emo.emo_modern import ModernLink
from revtunnel.systems.emo.emo_stream import EmoDataSocket

__all__ = ["EmoServerLink"]

FIRST_OF_RT1 = b"\0"  # of LISTEN and ATTACH; every command of EMO begins with a letter
_WORDS = {"kicked": Ended.OPERATOR, "expired": Ended.NOT_ALLOWED}  # why streams end with their command socket


class EmoServerLink(ServerLink):
    """One connection of an EMO client: of no role, then a command socket or a data socket."""

    system = "emo"

    def __init__(self, serves: EmoListener, *args: Any) -> None:
        super().__init__(*args)
        self.port = 0
        self.machine = EmoMachine(self, serves.limits, self._hub.next_stream, self._report)
        self.carrier = self.machine
        self._serves = serves
        self._commands = EmoDecoder()
        self._instead: ServerLink | None = None  # it is an agent's of this project
        self._data: EmoDataSocket | None = None  # it is a data socket
        self._heard = 0.0
        limits = self.limits
        self._idle = Tally(limits.idle_frames, limits.glitch_window, "commands that change nothing")
        self._asked: float | None = None  # when a PING was said that is not answered yet
        self._answers = False  # it has answered a PING: its silence means something
        self._expecting = False
        self._leaving = False

    # -- the connection

    def connectionMade(self) -> None:
        super().connectionMade()
        self._set_timer(self._serves.limits.first)

    def dataReceived(self, data: bytes) -> None:
        if self._data is not None:
            self._data.received(data)
        elif self._instead is not None:
            self._instead.dataReceived(data)
        elif self.ended is None and self.mux is None and data[:1] == FIRST_OF_RT1 and not self._commands.held:
            self._become_rt1()
            self.dataReceived(data)
        elif self.ended is None:
            self._heard, self.spoke = self.clock.seconds(), True
            if self.mux is None:
                self.heard()
            self._commands.receive(data)
            self._read_commands()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._data is not None:
            self._lost = True
            self._hub.holds(-1)
            self._data.lost(in_words(reason))
        elif self._instead is not None:
            self._instead.connectionLost(reason)
        else:
            super().connectionLost(reason)

    def handshake_is_late(self) -> None:
        words = f"no command in {self._serves.limits.first:g} s"
        self.fail("silent", explained(words, self._commands.held, Listens.EMO), None)

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
                elif self.machine.table.means_nothing(command):
                    self._idle.add(self._heard)
                    self.machine.command(command)
                else:
                    self.machine.command(command)
        except LinkDenied as error:
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
        self._serves.in_vain.add(self.port, self.source, detail)
        self.write(REFUSED)
        self.fail(reason, detail, None)

    def _become_rt1(self) -> None:
        """Let a link of rt1 have the connection."""
        self._cancel(self._timer)
        self._finished = True
        self.transport.unregisterProducer()
        self._instead = self._hub.instead(self, partial(ModernLink, self._serves))
        self._instead.instead_of(self)
        self._instead.makeConnection(self.transport)
        self._instead.peer = self.peer

    # -- a command socket

    def _register(self, port: int) -> None:
        self.port = port
        reserved = self._serves.ports.get(port) if port >= LEAST_PORT else None
        if reserved is None:
            self._refuse("denied", f"port {port} is reserved for no device here")
            return
        serial, target = reserved
        if self.listener.certified_only and self.certificate is None:
            raise LinkDenied(GoAway.DENIED, "no certificate", serial, word="certificate")
        if self.certificate_serial not in (None, serial):
            raise LinkDenied(GoAway.DENIED, f"the certificate is for {self.certificate_serial}", serial)
        self.serial = serial
        self.machine.serial = serial
        self.authenticated = self.certificate_serial is not None
        self.handshake = ServerUp(serial, None, self.authenticated)
        self._hub.admit(self, self.handshake)
        self.mux = EmoCounts(self.machine.table, self._serves.limits.sockets)  # type: ignore[assignment]
        tune(self.handle)
        self.up_since = self.clock.seconds()
        self._serves.machines[port] = self
        self._hub.arrived(self)
        if not self._hub.port_is_open(serial, target):
            self._refuse("denied", f"port {port} cannot be opened")
            return
        self._serves.in_vain.registered(port)
        self._ask()

    @property
    def offers(self) -> tuple[Offer, ...]:
        """The one target; where it is only the agent knows."""
        _, target = self._serves.ports[self.port]
        return (Offer(target, Target("device.invalid", self.port)),)

    def _ask(self) -> None:
        now = self.clock.seconds()
        if self.listener.heartbeat:
            self.write(encode_emo(Emo.PING))
            self._asked = now
        self._set_timer(1.0)

    def _answered(self) -> None:
        if self._asked is None:
            self._idle.add(self._heard)
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
        now, limits = self.clock.seconds(), self._serves.limits
        silent = now - self._heard
        if self._answers and silent >= limits.silence:
            self.fail("silent", f"no command in {limits.silence:g} s", None)
            return
        self.machine.tick()
        if silent >= limits.heartbeat and self._asked is None:
            self._ask()
        else:
            self._set_timer(1.0)

    def goaway(self, reason: GoAway, retry_after: int, detail: str, place: str = "") -> None:
        """The wire has no word for it: the command socket is closed when nobody uses it any more."""
        self._leaving = True
        self._leave_if_idle(detail)

    def _leave_if_idle(self, detail: str = "") -> None:
        if self._leaving and self.mux is not None and self.ended is None and not self.machine.running:
            self.ended = ("stopping", detail)
            self.leave()

    def dismiss(self, reason: str, detail: str, say: GoAway, retry_after: int = 0, by: str = "") -> None:
        self.ended = self.ended or (reason, f"{detail}, {by}" if by else detail)
        if reason != "replaced":
            self.machine.end_streams(_WORDS.get(reason, Ended.LINK_LOST), detail)
        self.leave()

    def gone(self, reason: str, detail: str, cut: list[Channel]) -> None:
        if self.up_since is None:
            self._hub.refused(self, reason, detail)
            return
        if self._serves.machines.get(self.port) is self:
            del self._serves.machines[self.port]
        self.machine.lost()
        self._hub.departed(self, reason, detail, 0)

    # -- of its streams (emo_machine.CommandSocket)

    def say(self, command: EmoCommand) -> None:
        if self.ended is None and not self._lost:
            self.write(encode_emo(command.kind, command.number))

    def settled(self, expects: bool) -> None:
        if expects != self._expecting:
            self._expecting = expects
            self._hub.expects(self.source, 1 if expects else -1)
        self._leave_if_idle()

    def broke(self, error: RemoteError) -> None:
        self.fail("protocol", str(error), None)

    # -- a data socket

    def _become_data_socket(self, port: int) -> None:
        beside = self._serves.machines.get(port)
        if beside is None and port not in self._serves.ports:
            raise RemoteError(f"a data socket for port {port}, which is reserved for no device here")
        if beside is not None and beside.ended is not None:
            beside = None
        if beside is not None and not self._is_beside(beside):
            raise RemoteError(f"a data socket for port {port}, which {beside.peer} has registered")
        fault = "nobody has registered it" if beside is None else beside.unexpected()
        if beside is None or fault:  # in honest hands, when a command socket was lost
            self.fail("ticket", f"a data socket for port {port}: {fault}", None)
            return
        early = self._commands.held
        self._cancel(self._timer)
        self._hub.no_stranger(self)
        self._finished = True
        self.transport.unregisterProducer()
        tune(self.handle, 0)  # a stream may be paused for as long as its client likes
        self._hub.holds(1)
        self._data = EmoDataSocket(
            self.clock, self.transport, beside.machine, self._serves.limits, early=False
        )
        beside.machine.came(self._data)
        if early:
            self._data.received(early)

    def _is_beside(self, machine: "EmoServerLink") -> bool:
        """Whether this is the same agent: by its certificate, else by where it comes from."""
        if self.certificate_serial is not None or machine.certificate_serial is not None:
            return self.certificate_serial == machine.certificate_serial
        return self.source == machine.source

    def unexpected(self) -> str:
        """Why a data socket of this machine is not taken, or nothing; too many of them end it."""
        fault = self.machine.unexpected()
        if self.machine.unasked >= self._serves.limits.unasked:
            self.fail("protocol", f"{self.machine.unasked} data sockets that nobody asked for", None)
        return fault
