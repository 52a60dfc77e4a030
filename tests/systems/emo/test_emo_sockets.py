"""The server's table of EMO data sockets: every step of an index's life, and any mixture of events."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import EmoLimits
from revtunnel.systems.emo.emo import Emo, EmoCommand
from revtunnel.systems.emo.emo_sockets import Act, DataSocketTable, Do, Slot, SlotState
from tests.support.depth import deep

LIMITS = EmoLimits()


def said(done: list[Do]) -> list[tuple[str, int]]:
    """The commands among what is to be done."""
    return [(do.command.kind.name, do.command.number) for do in done if do.command is not None]


def acts(done: list[Do]) -> list[Act]:
    """What is to be done."""
    return [do.act for do in done]


def slot_of(table: DataSocketTable, number: int) -> Slot:
    """The row of an index."""
    return next(slot for slot in table.slots if slot.number == number)


def served(table: DataSocketTable, client: str = "client") -> int:
    """A client that talks through a new data socket; the index."""
    (ask,) = said(table.client_came(client, 0.0))
    assert acts(table.socket_came(f"socket {ask[1]}", 0.0))[0] is Act.JOIN
    return ask[1]


def idle(table: DataSocketTable) -> int:
    """An index that waits for its next client."""
    number = served(table)
    slot = slot_of(table, number)
    table.end_came(slot)
    table.client_ended(slot)
    table.command(EmoCommand(Emo.IDLE, number), 0.0)
    assert slot.state is SlotState.IDLE
    return number


def test_a_client_gets_a_new_socket_and_the_next_one_the_same() -> None:
    """C1, the socket, both ends, S; then C1 again and no new socket."""
    table = DataSocketTable(LIMITS)
    assert idle(table) == 1
    done = table.client_came("next", 5.0)
    assert said(done) == [("CONNECT", 1)]
    assert acts(done) == [Act.SAY, Act.JOIN]


@pytest.mark.parametrize("first", ["client", "device"])
def test_half_close_either_way(first: str) -> None:
    """One end is passed on while the other direction goes on; the client is let go after both."""
    table = DataSocketTable(LIMITS)
    slot = slot_of(table, served(table))
    steps = [lambda: table.client_ended(slot), lambda: table.end_came(slot)]
    one, two = steps if first == "client" else reversed(steps)
    assert acts(one()) == [Act.SEND_END if first == "client" else Act.END_CLIENT]
    assert acts(two())[-1] is Act.CLOSE_CLIENT
    assert slot.state is SlotState.DRAINED
    assert table.command(EmoCommand(Emo.IDLE, 1), 0.0) == []
    assert slot.state is SlotState.IDLE


def test_a_device_that_refuses() -> None:
    """Its terminator and S at once: the client is let go, and the deaf agent gets our terminator."""
    table = DataSocketTable(LIMITS)
    slot = slot_of(table, served(table))
    assert acts(table.end_came(slot)) == [Act.END_CLIENT]
    assert acts(table.command(EmoCommand(Emo.IDLE, 1), 0.0)) == [Act.SEND_END, Act.CLOSE_CLIENT]
    assert slot.state is SlotState.IDLE


def test_new_indexes_are_asked_for_one_at_a_time() -> None:
    """Data sockets do not say their index: two on the way could be taken for each other."""
    table = DataSocketTable(LIMITS)
    assert said(table.client_came("a", 0.0)) == [("CONNECT", 1)]
    assert table.client_came("b", 0.0) == []
    done = table.socket_came("first", 0.0)
    assert (done[0].slot.client, said(done)) == ("a", [("CONNECT", 2)])
    assert table.socket_came("second", 0.0)[0].slot.client == "b"


def test_an_index_that_becomes_idle_serves_who_waits() -> None:
    """Whoever waited longest, without a new socket."""
    table = DataSocketTable(LIMITS)
    slot = slot_of(table, served(table))
    table.client_came("asked for", 1.0)
    table.client_came("waits", 2.0)
    table.end_came(slot)
    table.client_ended(slot)
    done = table.command(EmoCommand(Emo.IDLE, 1), 3.0)
    assert (said(done), done[-1].act, slot.client) == ([("CONNECT", 1)], Act.JOIN, "waits")


def test_r15_a_socket_that_never_comes() -> None:
    """The client is refused, T is said, the next one is asked for."""
    table = DataSocketTable(LIMITS)
    table.client_came("a", 0.0)
    table.client_came("b", 1.0)
    assert table.due(0.0) == LIMITS.wait
    assert table.tick(LIMITS.wait - 0.1) == []
    done = table.tick(LIMITS.wait)
    assert (done[0].client, done[0].word) == ("a", "device-silent")
    assert said(done) == [("TERMINATE", 1), ("CONNECT", 2)]
    assert said(table.tick(2 * LIMITS.wait)) == [("TERMINATE", 2)]
    assert (table.slots, table.due(99.0)) == ([], None)
    assert [table.excuse() for _ in range(3)] == [True, True, False]


def test_a_client_that_leaves_before_its_socket_comes() -> None:
    """The socket is the next client's; where there is none, T. Nothing else may be asked for meanwhile."""
    table = DataSocketTable(LIMITS)
    table.client_came("scanner", 0.0)
    assert table.client_lost("scanner", 0.0) == []
    assert (table.running, table.expects) == (0, True)
    assert table.client_came("next", 1.0) == []
    done = table.socket_came("socket", 2.0)
    assert (done[0].act, done[0].slot.client, said(done)) == (Act.JOIN, "next", [])

    table.client_came("a", 0.0)
    table.client_came("b", 0.0)
    table.client_lost("a", 0.0)
    assert table.socket_came("socket", 2.0)[0].slot.client == "b"

    table.client_came("alone", 0.0)
    table.client_lost("alone", 0.0)
    assert acts(table.socket_came("socket", 2.0)) == [Act.SAY, Act.DROP_SOCKET]
    table.client_came("alone", 0.0)
    table.client_lost("alone", 0.0)
    assert acts(table.tick(LIMITS.wait)) == [Act.SAY, Act.DROP_SOCKET]
    table.client_came("alone", 0.0)
    table.client_lost("alone", 0.0)
    assert Act.REFUSE_CLIENT not in acts(table.lost())


def test_the_s_that_answers_t_is_not_taken_for_another() -> None:
    """The original says S after T too; an index that was given up is the last to be used again."""
    table = DataSocketTable(replace(LIMITS, sockets=3))
    served(table, "a")
    table.client_lost("a", 0.0)
    assert [served(table, name) for name in ("b", "c", "d")] == [2, 3, 1]
    table.client_lost("d", 0.0)
    table.client_came("e", 0.0)
    assert table.command(EmoCommand(Emo.IDLE, 1), 0.0) == []  # its socket is on its way yet
    slot = table.socket_came("socket", 0.0)[0].slot
    assert acts(table.end_came(slot)) == [Act.END_CLIENT]  # no end is sent before the client's


def test_a_client_waits_for_s_rather_than_for_a_new_socket() -> None:
    """S is on its way when both ends were said; where it does not come, a new socket is asked for."""
    table = DataSocketTable(LIMITS)
    slot = slot_of(table, served(table, "first"))
    table.client_ended(slot)
    table.end_came(slot)
    assert table.client_came("next", 0.0) == []
    assert said(table.command(EmoCommand(Emo.IDLE, 1), 0.1)) == [("CONNECT", 1)]
    table.client_ended(slot)
    table.end_came(slot)
    assert table.tick(1.0) == []
    assert said(table.client_came("third", 1.0)) == [("CONNECT", 2)]
    other = table.socket_came("socket", 1.1)[0].slot
    table.client_ended(other)
    table.end_came(other)
    assert table.client_came("fourth", 1.2) == []
    assert table.tick(2.0) == []
    assert said(table.tick(3.0)) == [("CONNECT", 3)]


def test_streams_have_numbers_of_their_own() -> None:
    """An index serves many, and another command socket of the machine has the same indexes."""
    numbers = iter(range(256, 300))
    table = DataSocketTable(LIMITS, lambda: next(numbers))
    slot = slot_of(table, idle(table))
    assert slot.stream == 256
    table.client_came("next", 0.0)
    assert (slot.number, slot.stream) == (1, 257)


def test_r14_a_socket_that_nobody_asked_for() -> None:
    """It is a fault of the agent."""
    with pytest.raises(RemoteError, match="nobody asked"):
        DataSocketTable(LIMITS).socket_came("socket", 0.0)


def test_the_51st_client_alone_is_refused() -> None:
    """The original ends the whole machine."""
    table = DataSocketTable(replace(LIMITS, sockets=3))
    for number in range(3):
        served(table, f"client {number}")
    done = table.client_came("one more", 0.0)
    assert [(do.act, do.client, do.word) for do in done] == [
        (Act.REFUSE_CLIENT, "one more", "too-many-clients")
    ]
    assert [slot.state for slot in table.slots] == [SlotState.BUSY] * 3


def test_a_client_that_resets_ends_its_index() -> None:
    """T, and the socket goes: its stream was cut. One that only waits leaves no trace."""
    table = DataSocketTable(LIMITS)
    served(table, "a")
    table.client_came("b", 0.0)
    table.client_came("c", 0.0)
    assert table.client_lost("c", 0.0) == []
    assert acts(table.client_lost("a", 0.0)) == [Act.SAY, Act.DROP_SOCKET]
    assert [slot.number for slot in table.slots] == [2]


@pytest.mark.parametrize("how", ["lost", "T"])
def test_a_socket_that_goes_resets_its_client(how: str) -> None:
    """Never a clean end; an idle one goes quietly."""
    for busy in (True, False):
        table = DataSocketTable(LIMITS)
        number = served(table) if busy else idle(table)
        slot = slot_of(table, number)
        command = EmoCommand(Emo.TERMINATE, number)
        done = table.socket_lost(slot, 0.0) if how == "lost" else table.command(command, 0.0)
        assert (Act.RESET_CLIENT in acts(done)) is busy
        assert table.slots == []


def test_r16_running_streams_outlive_the_command_socket() -> None:
    """They end in their own time and leave no idle socket; who waits is refused."""
    table = DataSocketTable(LIMITS)
    slot = slot_of(table, served(table))
    table.client_came("asked for", 0.0)
    table.client_came("waits", 0.0)
    words = [(do.client, do.word) for do in table.lost() if do.act is Act.REFUSE_CLIENT]
    assert words == [("waits", "device-absent"), ("asked for", "device-absent")]
    assert table.slots == [slot]
    table.client_ended(slot)
    assert acts(table.end_came(slot))[-2:] == [Act.CLOSE_CLIENT, Act.DROP_SOCKET]
    assert table.slots == []


def test_commands_that_make_no_sense() -> None:
    """S and T for an index nobody knows mean nothing; other letters are a fault."""
    table = DataSocketTable(LIMITS)
    assert table.command(EmoCommand(Emo.IDLE, 7), 0.0) == []
    assert table.command(EmoCommand(Emo.TERMINATE, 7), 0.0) == []
    with pytest.raises(RemoteError, match="CONNECT"):
        table.command(EmoCommand(Emo.CONNECT, 1), 0.0)
    slot = slot_of(table, idle(table))
    with pytest.raises(RemoteError, match="nothing was open"):
        table.end_came(slot)
    assert table.client_ended(slot) == []


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order: each client is served by one index, and told its end once."""

    def __init__(self) -> None:
        super().__init__()
        self.table = DataSocketTable(replace(LIMITS, sockets=4))
        self.now = 0.0
        self.names = iter(range(10**6))
        self.here: set[int] = set()

    def do(self, done: list[Do]) -> None:
        """What the owner does: clients that are let go are gone."""
        for act in done:
            if act.act in (Act.REFUSE_CLIENT, Act.CLOSE_CLIENT, Act.RESET_CLIENT):
                self.here.remove(act.client)

    @rule()
    def client(self) -> None:
        name = next(self.names)
        self.here.add(name)
        self.do(self.table.client_came(name, self.now))

    @rule()
    def socket(self) -> None:
        try:
            self.do(self.table.socket_came(object(), self.now))
        except RemoteError:
            assert all(slot.state is not SlotState.ASKED for slot in self.table.slots)

    @rule(which=st.integers(0, 9), kind=st.sampled_from([Emo.IDLE, Emo.TERMINATE]))
    def command(self, which: int, kind: Emo) -> None:
        self.do(self.table.command(EmoCommand(kind, which), self.now))

    @precondition(lambda self: any(slot.state is SlotState.BUSY for slot in self.table.slots))
    @rule(which=st.integers(0, 9), what=st.integers(0, 3))
    def stream(self, which: int, what: int) -> None:
        busy = [slot for slot in self.table.slots if slot.state is SlotState.BUSY]
        slot = busy[which % len(busy)]
        if what == 0 and not slot.end_came:
            self.do(self.table.end_came(slot))
        elif what == 1:
            self.do(self.table.client_ended(slot))
        elif what == 2:
            self.do(self.table.socket_lost(slot, self.now))
        elif what == 3:
            self.here.remove(slot.client)
            self.do(self.table.client_lost(slot.client, self.now))

    @rule(seconds=st.floats(0.1, 40.0))
    def time(self, seconds: float) -> None:
        self.now += seconds
        self.do(self.table.tick(self.now))

    @rule()
    def lost(self) -> None:
        self.do(self.table.lost())
        streams = {slot.client for slot in self.table.slots}
        assert streams == self.here
        self.here.clear()
        self.table = DataSocketTable(replace(LIMITS, sockets=4))

    @invariant()
    def everybody_is_somewhere(self) -> None:
        assert self.table.running == len(self.here)
        assert len(self.table.slots) <= 4
        assert sum(slot.state is SlotState.ASKED for slot in self.table.slots) <= 1
        assert all((slot.client in self.here) or slot.client is None for slot in self.table.slots)


AnyOrder.TestCase.settings = settings(max_examples=deep(60), stateful_step_count=40, deadline=None)
TestAnyOrder = AnyOrder.TestCase
