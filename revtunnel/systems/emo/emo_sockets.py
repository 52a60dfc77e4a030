"""The data sockets of one EMO machine at the server: which index serves which client, and when it is idle.

Rule of this file: events change a row of the table and return what is to be done, in order; payload does not
pass through here. An index that the agent does not know yet is asked for alone: data sockets say their port,
not their index, so that two on their way at once could be taken for each other and later commands would mean
the wrong one. For the same reason it is asked for until it comes, also when its client has left, and an index
that was given up with T is the last to be used again: the original answers T with an S.

======  ==========================================================  ==========================================
state   means                                                       leaves it by
======  ==========================================================  ==========================================
ASKED   C was said, the data socket is on its way; its client may   its coming (BUSY), ``wait`` (gone)
        be gone already, and the next one takes its place
BUSY    a client and the device talk                                both ends said (DRAINED)
DRAINED both ends said, the agent has not said S                    S (IDLE)
IDLE    waits for the next client                                   a client (BUSY), T or a loss (gone)
======  ==========================================================  ==========================================

Source: wire/emo.md sections 1 to 3; the asking alone is ours.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, NamedTuple

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.ground.limits import EmoLimits
from revtunnel.systems.emo.emo import Emo, EmoCommand

__all__ = ["Act", "DataSocketTable", "Do", "Slot", "SlotState"]


class SlotState(Enum):
    """Where an index is in its life; the table is in the head of this file."""

    ASKED = auto()
    BUSY = auto()
    DRAINED = auto()
    IDLE = auto()
    GONE = auto()


class Act(Enum):
    """What is to be done about an index; ``SAY`` about the command socket."""

    SAY = auto()  # ``command`` on the command socket
    JOIN = auto()  # read the client and the data socket from now on
    SEND_END = auto()  # the terminator on the data socket, behind what was sent
    END_CLIENT = auto()  # the device said its last: pass an end of file on to the client
    CLOSE_CLIENT = auto()  # both ends were said: let the client go in order
    RESET_CLIENT = auto()  # the stream was cut
    REFUSE_CLIENT = auto()  # never served; ``word`` says why
    DROP_SOCKET = auto()  # close the data socket


class Do(NamedTuple):
    """One thing to be done, for whom."""

    act: Act
    slot: "Slot | None" = None
    command: EmoCommand | None = None
    client: Any = None
    word: str = ""


@dataclass(slots=True, eq=False)
class Slot:
    """One index. ``client`` and ``socket`` belong to the owner and are not looked into."""

    number: int
    stream: int = 0  # what operators call its client's stream; no two streams of a server share one
    state: SlotState = SlotState.ASKED
    client: Any = None
    socket: Any = None
    since: float = 0.0
    end_sent: bool = False
    end_came: bool = False
    idle_said: bool = False
    slow: bool = False  # S is not to be waited for any more


class DataSocketTable:
    """All indexes of one machine. Clients beyond the limit are refused; nobody else is touched.

    ``next_stream`` gives the numbers of streams.
    """

    def __init__(self, limits: EmoLimits, next_stream: Callable[[], int] = lambda: 0) -> None:
        self._limits = limits
        self._next_stream = next_stream
        self._slots: dict[int, Slot] = {}
        self._used: dict[int, None] = {}  # indexes that were given up, the one longest ago first
        self._owed: set[int] = set()  # indexes for which we said T, which is answered with S
        self._late = 0  # data sockets that may still come for an index that was given up
        self._waiting: deque[tuple[float, Any]] = deque()  # clients that need an index nobody has yet
        self._lost = False

    @property
    def slots(self) -> list[Slot]:
        """Every index that is known, by number."""
        return [self._slots[number] for number in sorted(self._slots)]

    @property
    def running(self) -> int:
        """Clients that are served or wait."""
        return len(self._waiting) + sum(slot.client is not None for slot in self._slots.values())

    # -- clients

    def client_came(self, client: Any, now: float) -> list[Do]:
        """Give a client an idle index, ask for a new one, or let it wait its turn to ask."""
        idle = [slot for slot in self.slots if slot.state is SlotState.IDLE]
        if idle:
            return self._serve(idle[0], client, now)
        asked = self._asked()
        if asked is not None and asked.client is None:
            self._assign(asked, client)
            return []
        if len(self._slots) + len(self._waiting) >= self._limits.sockets:
            return [Do(Act.REFUSE_CLIENT, client=client, word="too-many-clients")]
        self._waiting.append((now, client))
        return self._ask(now)

    def client_ended(self, slot: Slot) -> list[Do]:
        """A client's end of file."""
        if slot.state is not SlotState.BUSY or slot.end_sent:
            return []
        slot.end_sent = True
        return [Do(Act.SEND_END, slot), *self._settle(slot)]

    def client_lost(self, client: Any, now: float) -> list[Do]:
        """A client is gone before its stream ended in order, or before it was served."""
        self._waiting = deque(entry for entry in self._waiting if entry[1] is not client)
        slot = next((slot for slot in self._slots.values() if slot.client is client), None)
        if slot is None:
            return []
        slot.client = None
        if slot.state is SlotState.ASKED:  # its data socket comes all the same: for whoever is next
            if self._waiting:
                self._assign(slot, self._waiting.popleft()[1])
            return []
        return self._terminate(slot, now)

    # -- data sockets

    @property
    def expects(self) -> bool:
        """Whether a data socket was asked for and is on its way."""
        return self._asked() is not None

    def excuse(self) -> bool:
        """Whether one that nobody expects may be one that was given up before it came; used up by that."""
        self._late, late = max(0, self._late - 1), self._late
        return late > 0

    def socket_came(self, socket: Any, now: float) -> list[Do]:
        """A data socket of this machine: it is the one that was asked for.

        Raises:
            RemoteError: none was.
        """
        slot = self._asked()
        if slot is None:
            raise RemoteError("a data socket that nobody asked for")
        slot.socket, slot.state = socket, SlotState.BUSY
        if slot.client is None:
            return self._terminate(slot, now)
        return [Do(Act.JOIN, slot), *self._ask(now)]

    def end_came(self, slot: Slot) -> list[Do]:
        """The terminator: the device has ended."""
        if slot.state is not SlotState.BUSY or slot.end_came:
            raise RemoteError(f"data socket {slot.number}: a terminator where nothing was open")
        slot.end_came = True
        return [Do(Act.END_CLIENT, slot, client=slot.client), *self._settle(slot)]

    def socket_lost(self, slot: Slot, now: float) -> list[Do]:
        """A data socket is gone; its client, if any, was cut."""
        return [*self._let_go(slot), *self._ask(now)]

    # -- commands

    def command(self, command: EmoCommand, now: float) -> list[Do]:
        """S or T of the agent; about an index nobody knows they mean nothing.

        Raises:
            RemoteError: any other command.
        """
        if command.kind not in (Emo.IDLE, Emo.TERMINATE):
            raise RemoteError(f"{command.kind.name} on a command socket")
        slot = self._slots.get(command.number)
        if command.kind is Emo.TERMINATE:
            return [*self._let_go(slot), Do(Act.DROP_SOCKET, slot), *self._ask(now)] if slot else []
        if slot is None or (slot.state is SlotState.ASKED and command.number in self._owed):
            self._owed.discard(command.number)  # the answer to our T
            return []
        slot.idle_said = True  # while it is asked for too: the device refused, and S overtook its socket
        return self._settle(slot)

    def means_nothing(self, command: EmoCommand) -> bool:
        """Whether an S or T is about an index that nobody knows, nor a T of ours waits for."""
        return command.number not in self._slots and command.number not in self._owed

    # -- time

    def tick(self, now: float) -> list[Do]:
        """Give up an index that was asked for in vain, and clients that waited too long to be asked for."""
        done: list[Do] = []
        slot = self._asked()
        if slot is not None and now - slot.since >= self._limits.wait:
            self._late += 1
            if slot.client is not None:
                done.append(Do(Act.REFUSE_CLIENT, slot, client=slot.client, word="device-silent"))
            slot.client = None
            done += self._terminate(slot, now)
        while self._waiting and now - self._waiting[0][0] >= self._limits.wait:
            done.append(Do(Act.REFUSE_CLIENT, client=self._waiting.popleft()[1], word="device-silent"))
        done += self._ask(now)
        for slot in self._slots.values():
            slot.slow = slot.state is SlotState.DRAINED
        return done

    def due(self, now: float) -> float | None:
        """Seconds until ``tick`` has something to do; None: nothing waits."""
        slot = self._asked()
        times = [slot.since] if slot is not None else []
        times += [self._waiting[0][0]] if self._waiting else []
        return max(0.0, min(times) + self._limits.wait - now) if times else None

    def lost(self) -> list[Do]:
        """The command socket is gone: running streams go on, everything else ends (faults.md R16)."""
        self._lost = True
        done = [Do(Act.REFUSE_CLIENT, client=client, word="device-absent") for _, client in self._waiting]
        self._waiting.clear()
        for slot in self.slots:
            if slot.state is SlotState.ASKED:
                if slot.client is not None:
                    done.append(Do(Act.REFUSE_CLIENT, slot, client=slot.client, word="device-absent"))
                self._forget(slot)
            elif slot.state is not SlotState.BUSY:
                done += [*self._let_go(slot), Do(Act.DROP_SOCKET, slot)]
        return done

    # -- inside

    def _asked(self) -> Slot | None:
        return next((slot for slot in self._slots.values() if slot.state is SlotState.ASKED), None)

    def _ask(self, now: float) -> list[Do]:
        """Ask for the next new index, if none is on its way.

        Nor if enough are about to be idle: S is here one way earlier than a new data socket could be.
        """
        settling = sum(slot.state is SlotState.DRAINED and not slot.slow for slot in self._slots.values())
        if len(self._waiting) <= settling or self._asked() is not None:
            return []
        number = self._free_index()
        slot = self._slots[number] = Slot(number, since=now)
        self._assign(slot, self._waiting.popleft()[1])
        return [Do(Act.SAY, slot, EmoCommand(Emo.CONNECT, number))]

    def _free_index(self) -> int:
        """The lowest that was never used, else the one that was given up longest ago."""
        free = [n for n in range(1, self._limits.sockets + 1) if n not in self._slots]
        number = next((n for n in free if n not in self._used), 0)
        if not number:
            number = next(n for n in self._used if n in free)
            del self._used[number]
        return number

    def _assign(self, slot: Slot, client: Any) -> None:
        slot.client, slot.stream = client, self._next_stream()

    def _serve(self, slot: Slot, client: Any, now: float) -> list[Do]:
        slot.state, slot.since = SlotState.BUSY, now
        self._assign(slot, client)
        slot.end_sent = slot.end_came = slot.idle_said = slot.slow = False
        return [Do(Act.SAY, slot, EmoCommand(Emo.CONNECT, slot.number)), Do(Act.JOIN, slot)]

    def _settle(self, slot: Slot) -> list[Do]:
        """Move on when both ends, and S, have been said."""
        done: list[Do] = []
        if slot.state is SlotState.BUSY and slot.idle_said and slot.end_came and not slot.end_sent:
            # the agent has let go of its device and waits, deaf, for our terminator
            slot.end_sent = True
            done.append(Do(Act.SEND_END, slot))
        if slot.state is SlotState.BUSY and slot.end_sent and slot.end_came:
            slot.state = SlotState.DRAINED
            done.append(Do(Act.CLOSE_CLIENT, slot, client=slot.client))
            slot.client = None
        if slot.state is SlotState.DRAINED and self._lost:  # nobody is there to say S
            return [*done, *self._let_go(slot), Do(Act.DROP_SOCKET, slot)]
        if slot.state is SlotState.DRAINED and slot.idle_said:
            slot.state = SlotState.IDLE
            done += self._next_for(slot)
        return done

    def _next_for(self, slot: Slot) -> list[Do]:
        """An index became idle: the client that waited longest takes it."""
        if not self._waiting:
            return []
        since, client = self._waiting.popleft()
        return self._serve(slot, client, since)

    def _terminate(self, slot: Slot, now: float) -> list[Do]:
        """Give an index up, and tell the agent."""
        self._owed.add(slot.number)
        said = Do(Act.SAY, slot, EmoCommand(Emo.TERMINATE, slot.number))
        return [said, *self._let_go(slot), Do(Act.DROP_SOCKET, slot), *self._ask(now)]

    def _let_go(self, slot: Slot) -> list[Do]:
        client, slot.client = slot.client, None
        self._forget(slot)
        if client is None:
            return []
        return [Do(Act.RESET_CLIENT, slot, client=client)]

    def _forget(self, slot: Slot) -> None:
        if slot.state is SlotState.GONE:
            raise LocalError(f"index {slot.number} is gone already")
        slot.state = SlotState.GONE
        del self._slots[slot.number]
        self._used[slot.number] = None
