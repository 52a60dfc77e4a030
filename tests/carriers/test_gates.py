"""Listeners for agents that the data plane has: who is let in there, who is Python's, what is told when."""

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revtunnel.carriers import gates as module
from revtunnel.carriers.gates import Gates
from revtunnel.ground.facts import ChannelEnded, LinkRefused
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.plane_settings import find_pump
from revtunnel.streams.commands import Command
from revtunnel.streams.frames import encode_frame
from tests.carriers.test_data_sockets import attach, stranger
from tests.support.data_world import HOST, DataWorld
from tests.support.depth import deep

pytestmark = pytest.mark.skipif(find_pump() is None, reason="revtunnel._pump was not built")
V4 = bytes(10) + b"\xff\xff" + socket.inet_aton(HOST)
BATCH = 64


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[DataWorld]:
    """A server whose listener for agents is lent, behind two clients of a port that is lent, too."""
    monkeypatch.setattr(DataWorld, "native", True)
    with DataWorld() as world:
        lent(world)
        yield world


def lent(world: DataWorld) -> Gates:
    """Have clients, until the listener is lent."""
    gates = world.switchboard.data.gates
    for _ in range(3):
        exchange(world)
    world.until(lambda: len(gates) == 1, "a gate")
    return gates


def exchange(world: DataWorld) -> None:
    """One client, a byte there and a byte back."""
    client, service = world.client(), world.service()
    world.carry(client, service, b"?")
    world.carry(service, client, b"!")
    client.close()
    service.close()


def issued(world: DataWorld, count: int = 1) -> list[bytes]:
    """Tickets, whose data sockets the test brings; the agent brings none from now on."""
    pool = world.pool
    world.until(lambda: not pool._tickets, "those that are out")
    world.brings = False
    tickets = world.switchboard.data.issue(pool, count)
    pool._tickets.update(dict.fromkeys(tickets, pool.now()))
    pool.core.hand_out(count)
    return tickets


def ended(world: DataWorld, sock: socket.socket) -> str:
    with contextlib.closing(sock):
        return world.ending(sock)


def test_data_sockets_come_there_and_python_hears_of_them(
    world: DataWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hundred only those are handed over whose tickets were out before, and all counts are right."""
    handed: list[Any] = []
    given = world.agents.given
    monkeypatch.setattr(world.agents, "given", lambda *told: handed.append(told) or given(*told))
    for _ in range(100):
        exchange(world)
    world.until(lambda: len(world.of(ChannelEnded)) == 103, "all ends")
    assert {fact.reason for fact in world.of(ChannelEnded)} == {Ended.CLOSED}
    data = world.switchboard.data
    world.until(lambda: not len(data._tickets) and data.sockets == world.pool.core.warm, "rest")
    assert (world.pool.core.coming, data.expected(HOST)) == (0, 0)
    assert world.pool.core.warm == len(world.pool.spare)
    assert len(handed) < 10


@pytest.mark.parametrize("kind", ["wrong", "used", "more", "less", "other frame", "nothing"])
def test_whoever_has_no_good_ticket_is_judged_as_ever(world: DataWorld, kind: str) -> None:
    """Refused with a word, or waited for; a good ticket with bytes behind it is a data socket that speaks."""
    tickets, pool = issued(world, 2), world.pool
    good = attach(tickets[0])
    if kind == "used":
        stranger(world, good)
        world.until(lambda: tickets[0] not in pool._tickets, "the first")
    said = {
        "wrong": attach(tickets[0][:4] + bytes(12)),
        "used": good,
        "more": good + b"x",
        "less": good[:19],
        "other frame": encode_frame(Command.PING, 0, b""),
        "nothing": b"",
    }[kind]
    before = len(world.of(LinkRefused))
    sock = stranger(world, said)
    if kind in ("less", "nothing"):
        world.turn(20)
        assert (
            world.switchboard.admission.strangers or kind == "nothing"
        )  # TCP_DEFER_ACCEPT keeps silent ones
        sock.send(good[len(said) :])
        world.until(lambda: tickets[0] not in pool._tickets, "its ticket")
        sock.close()
        return
    if kind == "more":
        world.until(lambda: tickets[0] not in pool._tickets, "its ticket")
    else:
        world.until(lambda: len(world.of(LinkRefused)) > before, "a word")
    assert ended(world, sock) in ("reset", "end of file")


def test_a_ticket_of_another_address_or_another_listener_is_python_s(world: DataWorld) -> None:
    """The plane knows of both, and lets neither in."""
    pool, data = world.pool, world.switchboard.data
    world.brings = False
    gates = data.gates
    for scope, stock, address in [*gates._pools.values()]:
        gates._pools[pool] = scope, stock, address[:-1] + b"\x09"
    (ticket,) = data.issue(pool, 1)
    pool._tickets[ticket] = pool.now()
    pool.core.hand_out(1)
    gates._pools[pool] = scope, stock, address
    came: list[Any] = []
    given = type(world.agents).given

    def watched(self: Any, *told: Any) -> None:
        came.append(told)
        given(self, *told)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(world.agents), "given", watched)
        sock = stranger(world, attach(ticket))
        world.until(lambda: ticket not in pool._tickets, "its ticket")
    assert len(came) == 1
    sock.close()


def test_strangers_come_in_there(world: DataWorld) -> None:
    """A crowd of them, which Python judges one by one."""
    before = len(world.of(LinkRefused))
    crowd = [stranger(world, b"GET / HTTP/1.1\r\n\r\n") for _ in range(100)]
    world.until(lambda: len(world.of(LinkRefused)) >= before + 100, "a word for each")
    for sock in crowd:
        sock.close()
    exchange(world)


@pytest.mark.parametrize("first", ["in pieces", "more"])
def test_a_ticket_that_python_took_is_not_good_there_again(world: DataWorld, first: str) -> None:
    """Whoever shows it the second time is refused, and is no data socket that nobody counts."""
    (ticket,), pool = issued(world), world.pool
    said = attach(ticket) + (b"x" if first == "more" else b"")
    sock = stranger(world, said[:10])
    world.turn()
    sock.send(said[10:])
    world.until(lambda: ticket not in pool._tickets, "its ticket")
    refused_again(world, ticket)
    sock.close()


def test_a_ticket_that_was_used_there_is_not_good_in_python(
    world: DataWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before Python has heard of that."""
    (ticket,), pool, gates = issued(world), world.pool, world.switchboard.data.gates
    with monkeypatch.context() as patch:
        patch.setattr(gates, "fetch", lambda: None)
        warm = len(pool.spare)
        sock = stranger(world, attach(ticket))
        world.until(lambda: len(pool.spare) == warm + 1, "it in its stock")
        assert ticket in pool._tickets
        refused_again(world, ticket, counted=False)
    gates.fetch()
    assert ticket not in pool._tickets
    data = world.switchboard.data
    world.until(lambda: data.sockets == pool.core.warm == len(pool.spare), "rest")
    assert data.expected(HOST) == len(pool._tickets)
    sock.close()


def refused_again(world: DataWorld, ticket: bytes, counted: bool = True) -> None:
    """The second who shows it."""
    before = len(world.of(LinkRefused))
    late = stranger(world, attach(ticket))
    world.until(lambda: len(world.of(LinkRefused)) > before, "a word")
    assert world.of(LinkRefused)[-1].reason == "ticket"
    assert ended(world, late) in ("reset", "end of file")
    assert not counted or world.pool.core.warm == len(world.pool.spare), "one that nobody counts"


def test_a_listener_that_could_not_accept_is_lent_again(world: DataWorld) -> None:
    """With the next client port that is lent, though its device had sockets there all the time."""
    gates = world.switchboard.data.gates
    (gate,) = gates._gates.values()
    gate.close()
    for door in [*world.switchboard.doors._doors.values()]:
        door.close()
    lent(world)


def test_tickets_that_are_withdrawn_are_good_no_more(world: DataWorld) -> None:
    """They are too old; but one that was used already, and not told of yet, stays."""
    first, second = issued(world, 2)
    pool, data = world.pool, world.switchboard.data
    warm = pool.core.warm
    sock = stranger(world, attach(first))
    world.until(lambda: len(pool.spare) == warm + 1 or first not in pool._tickets, "it in its stock")
    pool._withdraw([each for each in (first, second) if each in pool._tickets])
    data.gates.fetch()
    assert not {first, second} & {*pool._tickets}
    assert pool.core.coming == len(pool._tickets)
    world.until(lambda: data.sockets == pool.core.warm == len(pool.spare), "rest")
    late = stranger(world, attach(second))
    assert ended(world, late) in ("reset", "end of file")
    assert [fact.reason for fact in world.of(LinkRefused)] == ["ticket"]
    sock.close()


def test_all_is_taken_back_with_the_last_pool(world: DataWorld) -> None:
    """Python accepts again, the tickets that are out are good there, and the next client lends it anew."""
    gates = world.switchboard.data.gates
    world.switchboard.doors.recall_all()
    assert len(gates) == 0
    assert not gates._pools
    exchange(world)
    lent(world)
    world.switchboard.drain()
    assert len(gates) == 0


def test_a_listener_that_is_closed_is_shut_there_too(world: DataWorld) -> None:
    """Its place is free at once."""
    world.agents.stop()
    assert len(world.switchboard.data.gates) == 0
    with socket.create_server((HOST, world.port)):
        pass


@pytest.mark.parametrize(
    "asks", [{"certified_only": True}, {"identity": object()}], ids=["certificate", "tls"]
)
def test_where_more_than_a_ticket_is_asked_for_it_is_not_lent(
    asks: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data sockets come as ever."""
    monkeypatch.setattr(DataWorld, "native", True)
    with DataWorld() as world:
        admission = world.switchboard.admission
        assert admission.needs_ticket_only("main")
        main = admission.listeners["main"]
        admission.listeners["main"] = replace(main, **asks)
        assert not admission.needs_ticket_only("main")
        assert not world.switchboard.data.gates.listening("main")
        admission.listeners["main"] = main
        world.switchboard.data.gates.listening = lambda name: ()
        for _ in range(5):
            exchange(world)
        assert len(world.switchboard.data.gates) == 0


def test_descriptors_that_are_short_are_python_s_to_judge(world: DataWorld) -> None:
    """The plane says that it cannot accept; Python has the listener back."""
    gates = world.switchboard.data.gates
    (gate,) = gates._gates.values()
    gate.told(module.UNABLE, 0, 24)
    world.until(lambda: not len(gates), "its return")
    exchange(world)


def test_sources_that_are_no_addresses_are_not_lent() -> None:
    """A UNIX socket, for one."""
    assert module._address("unix:") is None
    assert module._address(HOST) == V4
    assert module._address("::1") == socket.inet_pton(socket.AF_INET6, "::1")


@settings(max_examples=deep(60), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["expect", "unexpect", "twice"]), st.integers(0, 40)), max_size=120)
)
def test_the_table_of_tickets_is_a_set(steps: list[tuple[bool, int]]) -> None:
    """Of tickets whose places collide: what was put in is found and taken out once, whatever the order."""
    pump = find_pump()()  # type: ignore[misc]
    listening = socket.create_server((HOST, 0))
    listening.setblocking(False)
    gate = pump.gate(listening.fileno(), 1)
    stock = pump.stock(16384, 16384, 0, 1 << 20)
    known: set[int] = set()

    def ticket(number: int) -> bytes:
        return struct.pack("!I", number) + bytes([number % 3, 0, 0, 0]) + bytes(7) + bytes([number])

    for puts, number in steps:
        if puts and number not in known:
            assert pump.expect(1, stock, V4, 5.0, ticket(number)) == 1
            known.add(number)
        elif not puts:
            assert pump.unexpect(ticket(number)) == b""
            known.discard(number)
    found = set()
    for number in range(41):
        client = socket.create_connection(listening.getsockname())
        client.send(attach(ticket(number)))
        pump.turn()
        pump.turn()
        if pump.came() == ticket(number):
            found.add(number)
        for _, _, _, _, *more in pump.take(True):
            for descriptor in more[2] if more else ():
                if descriptor >= 0:
                    os.close(descriptor)
        client.close()
    assert found == known
    pump.close_gate(gate)
    assert pump.take(True) == []
    while (drawn := pump.draw(stock)) is not None:
        os.close(drawn[0])
    listening.close()
