"""The agent's table of EMO data sockets, step by step."""

from dataclasses import replace

import pytest

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import EmoLimits
from revtunnel.systems.emo.emo import Emo, EmoCommand
from revtunnel.systems.emo.emo_targets import AgentAct, AgentDo, AgentSlot, AgentSlotState, AgentTable

LIMITS = EmoLimits()


def said(done: list[AgentDo]) -> list[tuple[str, int]]:
    """The commands among what is to be done."""
    return [(do.command.kind.name, do.command.number) for do in done if do.command is not None]


def acts(done: list[AgentDo]) -> list[AgentAct]:
    """What is to be done."""
    return [do.act for do in done]


def connect(number: int) -> EmoCommand:
    """C of the server."""
    return EmoCommand(Emo.CONNECT, number)


def busy(table: AgentTable, number: int = 1) -> AgentSlot:
    """An index whose client and device talk."""
    (do,) = table.command(connect(number))
    assert do.act is AgentAct.OPEN_SOCKET
    slot = do.slot
    assert slot is not None
    slot.socket = object()
    assert acts(table.socket_opened(slot)) == [AgentAct.DIAL]
    slot.target = object()
    return slot


@pytest.mark.parametrize("first", ["client", "device"])
def test_a_stream_and_the_next_one(first: str) -> None:
    """Both ends in either order, then S; the next C dials without a new socket."""
    table = AgentTable(LIMITS)
    slot = busy(table)
    steps = [lambda: table.end_came(slot), lambda: table.target_ended(slot)]
    one, two = steps if first == "client" else reversed(steps)
    assert acts(one()) == [AgentAct.END_TARGET if first == "client" else AgentAct.SEND_END]
    done = two()
    assert (acts(done)[-2:], said(done)) == ([AgentAct.CLOSE_TARGET, AgentAct.SAY], [("IDLE", 1)])
    assert acts(table.command(connect(1))) == [AgentAct.DIAL]
    assert (slot.end_sent, slot.end_came) == (False, False)


def test_pipelined_commands() -> None:
    """Several C at once open several sockets; nothing waits for a dial."""
    table = AgentTable(LIMITS)
    assert [acts(table.command(connect(number))) for number in (1, 2, 3)] == [[AgentAct.OPEN_SOCKET]] * 3
    assert table.running == 3


def test_a_device_that_is_not_reached() -> None:
    """Terminator and S at once, as the original; a C that overtakes the server's terminator is served."""
    table = AgentTable(LIMITS)
    slot = busy(table)
    slot.target = None
    done = table.not_dialled(slot)
    assert (acts(done), said(done)) == ([AgentAct.SEND_END, AgentAct.SAY], [("IDLE", 1)])
    assert table.command(connect(1)) == []
    with pytest.raises(RemoteError, match="busy"):
        table.command(connect(1))
    done = table.end_came(slot)
    assert (acts(done)[-1], said(done)) == (AgentAct.DIAL, [])
    assert table.not_dialled(slot) != []
    assert said(table.end_came(slot)) == []
    assert slot.state is AgentSlotState.IDLE


def test_a_device_that_resets() -> None:
    """The wire has no word for it but T: a cut stream must not look ended."""
    table = AgentTable(LIMITS)
    done = table.target_reset(busy(table))
    assert said(done) == [("TERMINATE", 1)]
    assert acts(done)[-1] is AgentAct.DROP_SOCKET
    assert table.slots == []


def test_a_socket_that_goes() -> None:
    """The device is cut, T is said; asked again about it, nothing more happens."""
    table = AgentTable(LIMITS)
    slot = busy(table)
    assert acts(table.socket_lost(slot)) == [AgentAct.SAY, AgentAct.RESET_TARGET, AgentAct.DROP_SOCKET]
    assert table.socket_lost(slot) == []
    assert table.target_reset(slot) == table.target_ended(slot) == table.not_dialled(slot) == []


def test_t_of_the_server() -> None:
    """It ends the index; for one nobody knows it means nothing."""
    table = AgentTable(LIMITS)
    busy(table)
    done = table.command(EmoCommand(Emo.TERMINATE, 1))
    assert acts(done) == [AgentAct.RESET_TARGET, AgentAct.DROP_SOCKET, AgentAct.SAY]
    assert said(done) == [("IDLE", 1)]  # as the original does
    assert table.command(EmoCommand(Emo.TERMINATE, 1)) == []


def test_more_than_the_limit() -> None:
    """That client alone is turned away."""
    table = AgentTable(replace(LIMITS, sockets=2))
    busy(table, 1)
    busy(table, 2)
    assert said(table.command(connect(3))) == [("TERMINATE", 3)]
    assert said(table.command(connect(0))) == [("TERMINATE", 0)]
    assert table.running == 2


def test_commands_of_the_server() -> None:
    """PING is answered, what only an agent says is a fault, a busy index too."""
    table = AgentTable(LIMITS)
    assert said(table.command(EmoCommand(Emo.PING))) == [("PONG", 0)]
    for kind in (Emo.IDLE, Emo.PONG, Emo.DATA_SOCKET):
        with pytest.raises(RemoteError, match="from the server"):
            table.command(EmoCommand(kind, 1))
    slot = busy(table)
    with pytest.raises(RemoteError, match="busy"):
        table.command(connect(1))
    table.end_came(slot)
    with pytest.raises(RemoteError, match="nothing was open"):
        table.end_came(slot)


def test_idle_sockets_go_in_the_end() -> None:
    """After ten minutes, with T."""
    table = AgentTable(LIMITS)
    slot = busy(table)
    table.end_came(slot)
    table.target_ended(slot)
    slot.target = None
    table.settled(slot, 100.0)
    assert table.tick(100.0 + LIMITS.idle - 1) == []
    done = table.tick(100.0 + LIMITS.idle)
    assert (said(done), acts(done)) == ([("TERMINATE", 1)], [AgentAct.SAY, AgentAct.DROP_SOCKET])


def test_r16_the_command_socket_goes() -> None:
    """Running streams go on, the rest ends."""
    table = AgentTable(LIMITS)
    running = busy(table, 1)
    table.command(connect(2))
    assert acts(table.lost()) == [AgentAct.DROP_SOCKET]
    assert table.slots == [running]
