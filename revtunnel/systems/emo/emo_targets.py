"""The data sockets of one EMO machine at the agent: what each command of the server asks for.

Rule of this file: events change a row and return what is to be done; payload does not pass through here.

=======  ========================================================  =======================================
state    means                                                     leaves it by
=======  ========================================================  =======================================
OPENING  the data socket is on its way to the server               its coming (BUSY), failure (gone)
BUSY     a client and the device talk, or the device is dialled    both ends said (IDLE; S is said)
IDLE     waits for the next C                                      C (BUSY), ``idle`` seconds (gone; T)
=======  ========================================================  =======================================

Source: wire/emo.md sections 1 and 3.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import EmoLimits
from revtunnel.systems.emo.emo import Emo, EmoCommand

__all__ = ["AgentAct", "AgentDo", "AgentSlot", "AgentSlotState", "AgentTable"]


class AgentSlotState(Enum):
    """Where an index is in its life; the table is in the head of this file."""

    OPENING = auto()
    BUSY = auto()
    IDLE = auto()
    GONE = auto()


class AgentAct(Enum):
    """What is to be done about an index; ``SAY`` and ``PONG`` about the command socket."""

    SAY = auto()
    OPEN_SOCKET = auto()  # a new data socket to the server
    DIAL = auto()  # the device; what the client says meanwhile waits in the data socket
    END_TARGET = auto()  # the client said its last: an end of file for the device
    SEND_END = auto()  # the terminator on the data socket
    CLOSE_TARGET = auto()  # both ends were said
    RESET_TARGET = auto()  # the stream was cut
    DROP_SOCKET = auto()


class AgentDo(NamedTuple):
    """One thing to be done."""

    act: AgentAct
    slot: "AgentSlot | None" = None
    command: EmoCommand | None = None


@dataclass(slots=True, eq=False)
class AgentSlot:
    """One index. ``socket`` and ``target`` belong to the owner."""

    number: int
    state: AgentSlotState = AgentSlotState.OPENING
    socket: Any = None
    target: Any = None
    idle_since: float = 0.0
    end_sent: bool = False  # our terminator, for the device's end
    end_came: bool = False  # the server's, for the client's end
    idle_said: bool = False  # S was said before the server's terminator came
    again: bool = False  # C came before that terminator


class AgentTable:
    """All indexes of one command socket."""

    def __init__(self, limits: EmoLimits) -> None:
        self._limits = limits
        self._slots: dict[int, AgentSlot] = {}

    @property
    def slots(self) -> list[AgentSlot]:
        """Every index that is known, by number."""
        return [self._slots[number] for number in sorted(self._slots)]

    @property
    def running(self) -> int:
        """Indexes with a client."""
        return sum(slot.state is not AgentSlotState.IDLE for slot in self._slots.values())

    def command(self, command: EmoCommand) -> list[AgentDo]:
        """A command of the server; PING is answered, S is the agent's own and means nothing here.

        Raises:
            RemoteError: a command that no server says, or an index that is busy.
        """
        if command.kind is Emo.PING:
            return [AgentDo(AgentAct.SAY, None, EmoCommand(Emo.PONG))]
        if command.kind is Emo.CONNECT:
            return self._connect(command.number)
        if command.kind is Emo.TERMINATE:
            slot = self._slots.get(command.number)
            said = AgentDo(AgentAct.SAY, None, EmoCommand(Emo.IDLE, command.number))
            return [*self._let_go(slot), said] if slot is not None else []  # S as the original says it
        raise RemoteError(f"{command.kind.name} from the server")

    def socket_opened(self, slot: AgentSlot) -> list[AgentDo]:
        """The data socket reached the server, and has said its P."""
        slot.state = AgentSlotState.BUSY
        return [AgentDo(AgentAct.DIAL, slot)]

    def not_dialled(self, slot: AgentSlot) -> list[AgentDo]:
        """The device was not reached: end the stream and say S at once, as the original does.

        The server answers with its terminator; what comes before that is dropped. The next C for this index
        may overtake it on the command socket, and is then served behind it.
        """
        if slot.state is not AgentSlotState.BUSY or slot.end_sent:
            return []
        slot.end_sent = slot.idle_said = True
        said = AgentDo(AgentAct.SAY, slot, EmoCommand(Emo.IDLE, slot.number))
        return [AgentDo(AgentAct.SEND_END, slot), said, *self._settle(slot)]

    def target_ended(self, slot: AgentSlot) -> list[AgentDo]:
        """The device's end of file, or its end."""
        if slot.state is not AgentSlotState.BUSY or slot.end_sent:
            return []
        slot.end_sent = True
        return [AgentDo(AgentAct.SEND_END, slot), *self._settle(slot)]

    def target_reset(self, slot: AgentSlot) -> list[AgentDo]:
        """The device cut its connection: a stream that was cut must not look ended, so the index goes."""
        if slot.state is not AgentSlotState.BUSY:
            return []
        said = AgentDo(AgentAct.SAY, slot, EmoCommand(Emo.TERMINATE, slot.number))
        return [said, *self._let_go(slot)]

    def end_came(self, slot: AgentSlot) -> list[AgentDo]:
        """The terminator: the client has ended."""
        if slot.state is not AgentSlotState.BUSY or slot.end_came:
            raise RemoteError(f"data socket {slot.number}: a terminator where nothing was open")
        slot.end_came = True
        return [AgentDo(AgentAct.END_TARGET, slot), *self._settle(slot)]

    def socket_lost(self, slot: AgentSlot) -> list[AgentDo]:
        """A data socket is gone or never came."""
        if slot.state is AgentSlotState.GONE:
            return []
        said = AgentDo(AgentAct.SAY, slot, EmoCommand(Emo.TERMINATE, slot.number))
        return [said, *self._let_go(slot)]

    def settled(self, slot: AgentSlot, now: float) -> None:
        """The index became idle at this time."""
        slot.idle_since = now

    def tick(self, now: float) -> list[AgentDo]:
        """Close data sockets that nobody used for long."""
        done: list[AgentDo] = []
        for slot in self.slots:
            if slot.state is AgentSlotState.IDLE and now - slot.idle_since >= self._limits.idle:
                done.append(AgentDo(AgentAct.SAY, slot, EmoCommand(Emo.TERMINATE, slot.number)))
                done += self._let_go(slot)
        return done

    def lost(self) -> list[AgentDo]:
        """The command socket is gone: running streams go on to their end, idle ones end now (R16)."""
        return [
            action
            for slot in self.slots
            if slot.state is not AgentSlotState.BUSY
            for action in self._let_go(slot)
        ]

    # -- inside

    def _connect(self, number: int) -> list[AgentDo]:
        slot = self._slots.get(number)
        if slot is None:
            if number < 1 or len(self._slots) >= self._limits.sockets:
                return [AgentDo(AgentAct.SAY, None, EmoCommand(Emo.TERMINATE, number))]
            slot = self._slots[number] = AgentSlot(number)
            return [AgentDo(AgentAct.OPEN_SOCKET, slot)]
        if slot.state is AgentSlotState.IDLE:
            return self._dial(slot)
        if slot.idle_said and not slot.again:
            slot.again = True
            return []
        raise RemoteError(f"C for index {number}, which is busy")

    def _dial(self, slot: AgentSlot) -> list[AgentDo]:
        slot.state = AgentSlotState.BUSY
        slot.end_sent = slot.end_came = slot.idle_said = slot.again = False
        return [AgentDo(AgentAct.DIAL, slot)]

    def _settle(self, slot: AgentSlot) -> list[AgentDo]:
        if not (slot.end_sent and slot.end_came):
            return []
        slot.state = AgentSlotState.IDLE
        done = [AgentDo(AgentAct.CLOSE_TARGET, slot)]
        if not slot.idle_said:
            done.append(AgentDo(AgentAct.SAY, slot, EmoCommand(Emo.IDLE, slot.number)))
        return [*done, *self._dial(slot)] if slot.again else done

    def _let_go(self, slot: AgentSlot) -> list[AgentDo]:
        slot.state = AgentSlotState.GONE
        del self._slots[slot.number]
        reset = [AgentDo(AgentAct.RESET_TARGET, slot)] if slot.target is not None else []
        return [*reset, AgentDo(AgentAct.DROP_SOCKET, slot)]
