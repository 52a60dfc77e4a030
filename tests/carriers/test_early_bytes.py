"""A client's first bytes go with its CONNECT: in one round trip, once, bounded, and never to two targets."""

import contextlib
import os
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.carriers.data_stream import RECALL
from revtunnel.ground.facts import ChannelEnded
from revtunnel.ground.limits import DataLimits, ServerLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ends import RECORD, End, PlainEnd
from revtunnel.sockets.opening import connect
from revtunnel.sockets.tcp_info import unacknowledged
from revtunnel.sockets.watch import Watch
from revtunnel.streams.commands import Feature
from tests.support.data_world import DataWorld
from tests.support.ends import tcp_pair
from tests.support.path import Path
from tests.support.traffic import reset

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, params=["port", "web"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything comes to a link port, or by WebSocket to a web listener."""
    monkeypatch.setattr(DataWorld, "web", request.param == "web")
    return str(request.param)


class Gate:
    """Dials to targets, which go on when the test says so."""

    def __init__(self) -> None:
        self.shut = False
        self.dials: list[Deferred[None]] = []

    async def reach(self, reactor: Any, host: str, port: int) -> End:
        """As ``connect``."""
        if self.shut:
            self.dials.append(Deferred())
            await self.dials[-1]
        return await connect(reactor, host, port)

    def open(self) -> None:
        """All of them."""
        self.shut, dials, self.dials = False, self.dials, []
        for each in dials:
            each.callback(None)


def asked(world: DataWorld, gate: Gate, said: bytes) -> tuple[socket.socket, Any]:
    """A client that has said something, and the agent's socket, which dials for it."""
    gate.shut = True
    client = world.client()
    client.send(said)
    world.until(lambda: gate.dials, "a dial")
    (agent,) = [each for each in world.data.sockets if each.used and each._relay is None]
    return client, agent


def test_they_are_at_the_agent_before_the_target_answers() -> None:
    """What comes later follows behind them, and both ends count them."""
    gate = Gate()
    with DataWorld(reach=gate.reach) as world:
        client, agent = asked(world, gate, b"hello ")
        client.send(b"world")
        stream = world.pool.streams[agent.number]
        world.until(lambda: stream.client.early == b"hello world", "the second piece")
        gate.open()
        service = world.service()
        assert world.hear(service, 11) == b"hello world"
        assert stream.client.early == b""
        world.carry(client, service, b"more" * 100_000)
        world.carry(service, client, b"answer")
        client.close()
        service.close()
        (fact,) = world.ended()
        assert (fact.reason, fact.bytes_to_device, fact.bytes_to_client) == (Ended.CLOSED, 400_011, 6)
        world.check_rest()


def test_an_agent_that_does_not_take_them_gets_none() -> None:
    """The client is read when its target has answered."""
    gate = Gate()
    with DataWorld(reach=gate.reach, early=False) as world:
        _, agent = asked(world, gate, b"hello")
        world.turn()
        assert world.pool.streams[agent.number].client.early == b""
        gate.open()
        assert world.hear(world.service(), 5) == b"hello"


def test_what_is_kept_is_bounded_and_the_end_of_file_waits_behind_it() -> None:
    """A client that says much before its target has answered, and then ends: all of it arrives."""
    gate = Gate()
    data = bytes(range(256)) * 4096
    with DataWorld(reach=gate.reach) as world:
        client, agent = asked(world, gate, b"")
        sent = 0
        for _ in range(20):
            with contextlib.suppress(BlockingIOError):
                sent += client.send(data[sent : sent + 100_000])
            world.turn(2)
        stream = world.pool.streams[agent.number]
        world.until(lambda: len(stream.client.early) >= RECORD, "the first of them")
        assert len(stream.client.early) < 2 * RECORD
        gate.open()
        service = world.service()
        heard = world.hear(service, sent)
        assert heard == data[:sent]
        world.carry(client, service, data[sent:])
        client.shutdown(socket.SHUT_WR)
        assert world.ending(service) == "end of file"
        service.close()
        assert world.ended()[0].bytes_to_device == len(data)
        world.check_rest()


def test_an_end_behind_them_is_heard() -> None:
    """``nc -N``: bytes and the end of file are there before anybody is asked."""
    gate = Gate()
    with DataWorld(reach=gate.reach) as world:
        gate.shut = True
        client = world.client()
        client.send(b"all of it")
        client.shutdown(socket.SHUT_WR)
        world.until(lambda: gate.dials, "a dial")
        world.turn()
        gate.open()
        service = world.service()
        assert world.hear(service, 9) == b"all of it"
        assert world.ending(service) == "end of file"
        service.send(b"thanks")
        service.close()
        assert world.hear(client, 6) == b"thanks"
        assert world.ending(client) == "end of file"
        assert world.ended()[0].reason is Ended.CLOSED
        world.check_rest()


def test_who_is_refused_hears_so_and_nobody_has_them() -> None:
    """And who leaves before that ends the dial."""
    gate = Gate()
    with DataWorld(reach=gate.reach) as world:
        client, _ = asked(world, gate, b"hello")
        world.listening.close()
        gate.open()
        assert world.ending(client) == "reset"
        (fact,) = world.ended()
        assert (fact.reason, fact.bytes_to_device) == (Ended.REFUSED, 0)
        client, _ = asked(world, gate, b"hello")
        reset(client)
        assert world.ended(2)[1].reason is Ended.RESET_BY_PEER
        world.check_rest()


def test_a_socket_that_took_them_before_the_target_answered_costs_a_try() -> None:
    """The agent says that its target has had nothing, and never will."""
    gate = Gate()
    with DataWorld(reach=gate.reach) as world:
        world.talk()
        world.warm(2)
        client, agent = asked(world, gate, b"fire")
        world.until(lambda: not left_over(world.pool.streams[agent.number]), "their arrival")
        agent.abort()
        agent.died("a test")
        world.until(lambda: len(gate.dials) == 2, "another dial")
        gate.open()
        service = world.service()
        assert world.hear(service, 4) == b"fire"
        assert served(world) == []
        world.carry(service, client, b"answer")


def left_over(stream: Any) -> int:
    """Bytes that the agent's kernel has not acknowledged."""
    return unacknowledged(stream._socket.end.sock)


def half_taken(world: DataWorld, gate: Gate) -> Any:
    """A stream whose CONNECT and first bytes are at the agent, and whose last bytes are not."""
    world.talk()
    world.warm(2)
    client, agent = asked(world, gate, b"fire")
    stream = world.pool.streams[agent.number]
    world.until(lambda: not left_over(stream), "their arrival")
    agent.end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    for _ in range(8):  # until its kernel has no room
        client.send(bytes(1000))
        world.loop.settle(lambda: len(stream.client.early), 0.01)
    assert left_over(stream)
    return client, agent


def test_a_socket_that_took_some_of_them_is_not_given_up_for_the_rest() -> None:
    """What was said last may be under way, and the target answer meanwhile."""
    gate = Gate()
    with DataWorld(reach=gate.reach) as world:
        _, agent = half_taken(world, gate)
        for _ in range(4):
            world.advance(1.0)
        assert len(gate.dials) == 1 and world.pool.streams[agent.number].opening
        gate.open()
        agent.end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        assert world.hear(world.service(), 8004) == b"fire" + bytes(8000)


def test_a_socket_that_took_some_of_them_costs_a_try() -> None:
    """As one that took all."""
    gate = Gate()
    with DataWorld(reach=gate.reach) as world:
        _, agent = half_taken(world, gate)
        agent.abort()
        agent.died("a test")
        world.until(lambda: len(gate.dials) == 2, "another dial")
        gate.open()
        assert world.hear(world.service(), 8004) == b"fire" + bytes(8000)
        assert served(world) == []


def test_a_socket_that_took_nothing_costs_a_try() -> None:
    """It was cut while it waited, and nobody has heard of that yet."""
    with DataWorld() as world:
        world.talk()
        world.warm(2)
        number = world.pool._warm[-1].number
        (agent,) = [each for each in world.data.sockets if each.number == number]
        agent.abort()
        agent.died("a test")
        near, far = tcp_pair()
        with near:
            near.send(b"hello")
            (port,) = world.ports.of(world.serial)
            port.came(PlainEnd(far))
            assert world.hear(world.service(), 5) == b"hello"


def test_a_client_without_a_word_gets_another_socket() -> None:
    """The same before he has said anything: nobody can have had it."""
    gate = Gate()
    with DataWorld(reach=gate.reach) as world:
        world.talk()
        world.warm(2)
        client, agent = asked(world, gate, b"")
        agent.abort()
        agent.died("a test")
        world.until(lambda: len(gate.dials) == 2, "another dial")
        client.send(b"hello")
        gate.open()
        assert world.hear(world.service(), 5) == b"hello"


def test_they_go_by_the_link_when_no_socket_takes_them(way: str) -> None:
    """Once, and whole, behind a CONNECT of a channel."""
    if way == "web":
        pytest.skip("a socket pair in the place of a data socket speaks no WebSocket")
    gate = Gate()
    with DataWorld(reach=gate.reach, data=DataLimits(answer=0.1, wait=0.2)) as world:
        client, service = world.talk()
        world.warm(2)
        world.brings = False
        pairs = [silenced(world, each) for each in [*world.pool._warm]]
        client = world.client()
        client.send(b"hello")
        service = world.service()
        assert world.hear(service, 5) == b"hello"
        world.carry(service, client, b"answer")
        assert [row.carrier for row in world.switchboard.streams.page() if row.bytes_to_client == 6] == [
            "link"
        ]
        for each in pairs:
            each.close()


def silenced(world: DataWorld, waiting: Any) -> socket.socket:
    """Have a data socket that waits lead to nobody who reads."""
    near, far = socket.socketpair()
    Watch.of(world.reactor).leave(waiting.fileno())
    waiting.end.sock.detach()
    waiting.end.sock = near
    near.setblocking(False)
    waiting.watch()
    return far


class Late:
    """A data socket whose path holds up what the server says on it, until the test lets it go."""

    def __init__(self, world: DataWorld, waiting: Any) -> None:
        self.number = waiting.number
        self._real = socket.socket(fileno=os.dup(waiting.fileno()))
        self._held = silenced(world, waiting)

    def arrive(self) -> None:
        """It comes after all; whoever said it hears nothing of that, and may have given it up."""
        with contextlib.suppress(BlockingIOError):
            self._real.send(self._held.recv(1 << 16, socket.MSG_DONTWAIT | socket.MSG_PEEK))

    def close(self) -> None:
        """Both ends of it."""
        self._real.close()
        self._held.close()


@contextlib.contextmanager
def late_connect(way: str, gate: Gate, said: bytes = b"hello") -> Iterator[tuple[DataWorld, Any, Late]]:
    """A client whose CONNECT and first bytes are held up on the socket that was taken for it."""
    if way == "web":
        pytest.skip("a socket pair in the place of a data socket speaks no WebSocket")
    with DataWorld(reach=gate.reach, data=DataLimits(answer=0.1)) as world:
        world.talk()
        world.warm(2)
        late = Late(world, world.pool._warm[-1])
        client = world.client()
        client.send(said)
        world.until(lambda: late.number in world.pool.streams, "its stream")
        stream = world.pool.streams[late.number]
        world.until(lambda: stream.client.early == said, "its first bytes")
        yield world, client, late
        late.close()


def served(world: DataWorld) -> list[bytes]:
    """What each further connection to the service was sent at once."""
    world.turn(30)
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            service = world._stack.enter_context(world.listening.accept()[0])
            service.setblocking(False)
            world.loop.settle(partial(_said, service), 0.02)
            found.append(_said(service))
    return found


def _said(service: socket.socket) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return service.recv(1 << 16, socket.MSG_PEEK)
    return b""


def test_a_connect_that_comes_late_finds_nobody(way: str) -> None:
    """Its client has another socket by then, and its target the first bytes: once."""
    with late_connect(way, Gate()) as (world, client, late):
        world.advance(0.6)
        service = world.service()
        assert world.hear(service, 5) == b"hello"
        late.arrive()
        assert served(world) == []
        world.carry(service, client, b"answer")


def test_a_connect_that_was_served_meanwhile_costs_no_second_try(way: str) -> None:
    """The agent has it, has reached the target and has given it the first bytes, and nobody heard of that."""
    with late_connect(way, Gate()) as (world, client, late):
        late.arrive()
        service = world.service()
        assert world.hear(service, 5) == b"hello"
        world.advance(0.6)
        assert world.ending(client) == "reset"
        assert served(world) == []
        world.until(lambda: world.of(ChannelEnded), "its end")
        (fact,) = world.of(ChannelEnded)
        assert fact.reason is Ended.LINK_LOST and "may have had its first bytes" in fact.detail


def test_a_dial_that_runs_is_taken_back(way: str) -> None:
    """The agent has CONNECT, but its target nothing yet: another socket may be tried."""
    gate = Gate()
    with late_connect(way, gate) as (world, client, late):
        gate.shut = True
        late.arrive()
        world.until(lambda: gate.dials, "a dial")
        world.advance(0.6)
        world.until(lambda: len(gate.dials) == 2, "the second dial")
        gate.open()
        service = world.service()
        assert world.hear(service, 5) == b"hello"
        assert served(world) == []
        world.carry(service, client, b"answer")


def test_who_leaves_while_the_agent_is_asked_is_gone(way: str) -> None:
    """And the answer that comes then means nothing; a link that is lost answers nobody."""
    with late_connect(way, Gate()) as (world, client, late):
        said: list[Any] = []
        world.link.recall = lambda number, told: said.append(told)
        world.loop.advance(0.6)
        world.until(lambda: said, "the question")
        reset(client)
        world.until(lambda: world.of(ChannelEnded), "its end")
        said[0](True)
        assert served(world) == []
    with late_connect(way, Gate()) as (world, client, late):
        world.link.recall = lambda number, told: None
        world.loop.advance(0.6)
        world.turn()
        assert late.number in world.pool.streams
        world.pool.close()
        assert world.ending(client) == "reset"
        assert [fact.reason for fact in world.of(ChannelEnded)] == [Ended.LINK_LOST]


def test_an_agent_that_does_not_answer_that_is_not_waited_for(way: str) -> None:
    """Its link lives, but nobody says what has become of the first bytes."""
    with late_connect(way, Gate()) as (world, client, _):
        world.link.recall = lambda number, told: None
        world.advance(0.6)
        world.advance(RECALL + 1.0)
        assert world.ending(client) == "reset"
        assert served(world) == []


def trips(world: DataWorld, path: Path, client: socket.socket, leaving: socket.socket | None = None) -> int:
    """Round trips until the answer to the client's question came; ``leaving``: a service that is to close."""
    answers = bytearray()

    def answered() -> bool:
        with contextlib.suppress(BlockingIOError):
            answers.extend(client.recv(100))
        return bytes(answers) == b"answer"

    served: list[socket.socket] = []

    def serve() -> None:
        if leaving is not None and leaving.fileno() >= 0:
            with contextlib.suppress(BlockingIOError):
                if leaving.recv(100) == b"":
                    assert served == [], "the device had two"
                    leaving.close()
                    world.loop.settle(lambda: [len(way.waits) for way in path.ways], 0.03)
        with contextlib.suppress(BlockingIOError):
            served.append(world._stack.enter_context(world.listening.accept()[0]))
            served[-1].setblocking(False)
        for each in served:
            with contextlib.suppress(BlockingIOError):
                if each.recv(100) == b"question":
                    each.send(b"answer")
        world.loop.settle(lambda: [len(way.waits) for way in path.ways], 0.03)

    world.loop.settle(lambda: [len(each.waits) for each in path.ways], 0.03)
    count = 0
    while not answered():
        count += 1
        assert count < 6, "it never came"
        path.trip(world.loop, to_server=False)
        serve()
        path.trip(world.loop, to_server=True)
    path.held = False
    for each in [*path.ways]:
        each.go()
    return count


@pytest.mark.parametrize(
    ("rule", "early", "wanted"), [("auto", True, 1), ("auto", False, 2), ("link", True, 1)]
)
def test_a_new_connection_costs_one_round_trip(rule: str, early: bool, wanted: int) -> None:
    """From the client's first bytes to its service's answer, over a path that is counted."""
    path = Path()
    with DataWorld(rule, early=early, path=path.before) as world:
        world.talk()
        if rule == "auto":
            world.warm(2)
        path.held = True
        client = world.client()
        client.send(b"question")
        assert trips(world, path, client) == wanted
    path.close()


@pytest.mark.parametrize("after", [Feature.AFTER, Feature(0)])
@pytest.mark.parametrize("rule", ["auto", "link"])
def test_so_does_one_behind_another_that_has_just_ended(rule: str, after: Feature) -> None:
    """Its device takes one connection: the agent waits for that to be closed, and the server need not."""
    path = Path()
    with DataWorld(rule, path=path.before, also=after, server=ServerLimits(ended_wait=10.0)) as world:
        first, service = world.talk()
        service.setblocking(False)
        if rule == "auto":
            world.warm(2)
        path.held = True
        first.close()
        world.turn()
        client = world.client()
        client.send(b"question")
        assert (trips(world, path, client, service) == 1) is bool(after)
    path.close()
