"""Data sockets from a client to its service: what is carried, what dies, who is refused, what is left."""

import contextlib
import socket
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.task import deferLater

from revtunnel.carriers import agent_data, data_sockets, data_stream
from revtunnel.fleet.device_records import DeviceRecord, DeviceRecords
from revtunnel.ground.facts import (
    ChannelEnded,
    ChannelOpened,
    ClientRefused,
    DataSocketsMissing,
    LinkDown,
    LinkRefused,
    PeerGlitch,
)
from revtunnel.ground.limits import AgentLimits, DataLimits, RelayLimits, ServerLimits
from revtunnel.ground.reasons import Ended
from revtunnel.link.server_link import ServerLink
from revtunnel.sockets.plane_settings import find_pump
from revtunnel.sockets.tls.certificates import PeerCertificate
from revtunnel.sockets.watch import Watch
from revtunnel.streams.commands import Command
from revtunnel.streams.frames import encode_frame
from tests.support.data_world import HOST, SERIAL, DataWorld
from tests.support.services import reset

# -- what is carried


# what speaks to a link port itself
AT_PORT = pytest.mark.parametrize("way", ["port"], indirect=True)


SLOW = [pytest.param(each, marks=pytest.mark.slow) for each in ("web", "native")]
# what looks at the agent's own sockets, which a data plane may have
IN_PYTHON = pytest.mark.parametrize("way", ["port", SLOW[0]], indirect=True)


@pytest.fixture(autouse=True, params=["port", *SLOW])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything comes to a link port, or by WebSocket to a web listener; or the agent has a data plane."""
    if request.param == "native" and find_pump() is None:
        pytest.skip("revtunnel._pump was not built")
    monkeypatch.setattr(DataWorld, "web", request.param == "web")
    monkeypatch.setattr(DataWorld, "native", request.param == "native")
    return str(request.param)


@IN_PYTHON
def test_the_first_client_waits_for_a_socket_and_the_next_ones_have_one() -> None:
    """A ticket goes out with the first client, and those that stay warm with it; numbers begin at 256."""
    with DataWorld() as world:
        assert world.pool.core.due() is None
        client, service = world.talk()
        world.carry(client, service, b"hello")
        world.carry(service, client, b"world")
        (row,) = world.switchboard.streams.page()
        assert (row.serial, row.carrier, row.state) == (SERIAL, "socket", "open")
        assert row.number >= 256
        assert (row.bytes_to_device, row.bytes_to_client) == (5, 5)
        world.warm(DataLimits().warm)
        other, other_service = world.talk()
        world.carry(other, other_service, b"x" * 1_000_000)
        assert len({each.number for each in world.switchboard.streams.page()}) == 2
        assert [each.channel for each in world.of(ChannelOpened)] == [
            each.channel for each in world.agent_facts if isinstance(each, ChannelOpened)
        ]


@IN_PYTHON
def test_a_stream_may_pause_for_as_long_as_it_likes() -> None:
    """Only links have TCP_USER_TIMEOUT: it ends a living program that takes nothing for that long."""
    with DataWorld() as world:
        world.talk()
        (stream,) = world.pool.streams.values()
        (socket_of_agent,) = (each for each in world.data.sockets if each.used)
        for end in (stream._far, socket_of_agent.end):
            assert end.sock.getsockopt(socket.IPPROTO_TCP, 18) == 0
        handle: Any = world.pool.link.handle  # type: ignore[attr-defined]
        assert handle.getsockopt(socket.IPPROTO_TCP, 18) == 45_000


def test_n26_n27_both_halves_end_by_themselves() -> None:
    """Whoever ends first still gets the other's answer, whole; the counts are exact at both ends."""
    with DataWorld() as world:
        for first in (0, 1):
            ends = world.talk()
            one, other = ends[first], ends[1 - first]
            world.carry(one, other, b"question")
            one.shutdown(socket.SHUT_WR)
            assert world.ending(other) == "end of file"
            world.carry(other, one, b"answer" * 100_000)
            other.shutdown(socket.SHUT_WR)
            assert world.ending(one) == "end of file"
        for fact in world.ended(2):
            assert fact.reason is Ended.CLOSED
        sizes = [(fact.bytes_to_device, fact.bytes_to_client) for fact in world.ended(2)]
        assert sizes == [(8, 600_000), (600_000, 8)]
        theirs = [each for each in world.agent_facts if isinstance(each, ChannelEnded)]
        assert [(fact.bytes_to_device, fact.bytes_to_client) for fact in theirs] == sizes
        world.check_rest()


@pytest.mark.parametrize("who", [0, 1], ids=["client", "service"])
def test_n28_a_reset_is_a_reset_at_the_other_end(who: int) -> None:
    """And one line at each end."""
    with DataWorld() as world:
        ends = world.talk()
        world.carry(ends[0], ends[1], b"x")
        reset(ends[who])
        assert world.ending(ends[1 - who]) == "reset"
        (fact,) = world.ended()
        assert fact.reason is Ended.RESET_BY_PEER
        assert fact.bytes_to_device == 1
        world.check_rest()


def test_a_service_may_speak_first() -> None:
    """Its first bytes may come in one piece with the agent's OPENED."""
    with DataWorld() as world:
        client = world.client()
        service = world.service()
        service.send(b"SSH-2.0-hello\r\n")
        assert world.hear(client, 15) == b"SSH-2.0-hello\r\n"


def test_a_target_that_refuses_is_a_reset_with_its_word() -> None:
    """The client is reset, the reason is the agent's; the pool is as it was."""
    with DataWorld() as world:
        world.listening.close()
        client = world.client()
        assert world.ending(client) == "reset"
        (fact,) = world.ended()
        assert fact.reason is Ended.REFUSED
        assert "refused the connection" in fact.detail
        world.check_rest()


@IN_PYTHON
def test_every_connect_is_checked_against_the_agent_s_own_list() -> None:
    """A server that asks for something else gets nothing."""
    with DataWorld() as world:
        world.dialler._allowed = frozenset()
        client = world.client()
        assert world.ending(client) == "reset"
        assert world.ended()[0].reason is Ended.NOT_ALLOWED
        world.check_rest()


@pytest.mark.slow
def test_300_clients_of_one_device_at_once() -> None:
    """More than a link has numbers: each gets its own echo, and nothing is left."""
    with DataWorld() as world:
        clients = [world.client() for _ in range(300)]
        for number, client in enumerate(clients):
            client.send(b"%4d" % number)
        services = [world.service() for _ in clients]
        heard = set()
        for service in services:
            word = world.hear(service, 4)
            heard.add(word)
            service.send(word)
        assert len(heard) == 300
        for number, client in enumerate(clients):
            assert world.hear(client, 4) == b"%4d" % number
        assert len(world.switchboard.streams.rows(SERIAL)) == 300
        assert max(row.number for row in world.switchboard.streams.page()) > 255
        for client in clients:
            client.close()
        for service in services:
            service.close()
        world.ended(300)
        world.check_rest()


# -- what dies


@IN_PYTHON
@pytest.mark.parametrize("how", ["ended", "reset"])
def test_dead_spare_sockets_cost_no_client_a_byte(how: str) -> None:
    """They are noticed while they wait, and others come; whoever is there first is served."""
    with DataWorld() as world:
        world.talk()
        for spare in world.warm(2):
            if how == "ended":
                spare.end.sock.shutdown(socket.SHUT_RDWR)
            else:
                reset(spare.release().sock)
        client = world.client()
        client.send(b"hello")
        service = world.service()
        assert world.hear(service, 5) == b"hello"
        world.turn()
        assert len(world.of(PeerGlitch)) >= 1


@IN_PYTHON
def test_a_socket_that_dies_of_its_connect_costs_a_retry() -> None:
    """The agent's end is gone, and nobody here knows yet: the client gets the next one."""
    with DataWorld() as world:
        world.talk()
        world.warm(2)
        pool = world.pool
        dead = pool._warm[-1]
        Watch.of(world.reactor).leave(dead.fileno())  # its death stays unseen until it is asked
        (theirs,) = [each for each in world.data.sockets if each.number == dead.number]
        reset(theirs.release().sock)
        world.turn()
        dead.watch()
        client = world.client()
        client.send(b"hello")
        assert world.hear(world.service(), 5) == b"hello"


@AT_PORT
def test_a_socket_that_takes_no_connect_costs_a_retry() -> None:
    """Its path is silent: after some round trips another one is asked, and nothing was lost."""
    with DataWorld() as world:
        world.talk()
        world.warm(2)
        silent = world.pool._warm[-1]
        near, far = socket.socketpair()  # of a UNIX socket the kernel says what was not read yet
        Watch.of(world.reactor).leave(silent.fileno())
        silent.end.sock.detach()
        silent.end.sock = near
        near.setblocking(False)
        silent.watch()
        client = world.client()
        client.send(b"hello")
        world.until(lambda: silent.stream is not None, "its CONNECT")
        world.advance(DataLimits().answer)
        service = world.service()
        assert world.hear(service, 5) == b"hello"
        assert any("not acknowledged" in fact.detail for fact in world.of(PeerGlitch))
        far.close()


@IN_PYTHON
def test_a_slow_target_is_no_silent_socket() -> None:
    """CONNECT was acknowledged: the agent dials as long as it likes."""
    with DataWorld() as world:
        world.talk()
        world.warm(2)
        dialled: list[Any] = []
        dial = world.dialler.dial

        def later(target: Any, *more: Any) -> Any:
            dialled.append(target)
            return deferLater(world.reactor, 9.0, dial, target, *more)

        world.dialler.dial = later  # type: ignore[method-assign]
        client = world.client()
        client.send(b"hello")
        world.until(lambda: dialled, "a dial")
        (opening,) = (each for each in world.pool.streams.values() if each.opening)
        world.until(lambda: opening._socket.takes, "the kernel's word")  # type: ignore[union-attr]
        for _ in range(9):
            world.advance(1.0)
        assert world.hear(world.service(), 5) == b"hello"
        assert len(dialled) == 1


def test_a_client_that_leaves_before_its_target_answered() -> None:
    """N25: the data socket goes with it, the agent's dial too."""
    with DataWorld() as world:
        for _ in range(50):
            reset(world.client())
        for _ in range(50):
            world.client().close()
        world.until(lambda: not world.switchboard.clients, "the end of all clients")
        world.until(lambda: not world.data.running)
        world.check_rest()


# -- the link and its streams


def test_a_lost_link_leaves_its_streams_alone() -> None:
    """They go on, are listed and can be closed; unused sockets are gone, and the next link has its own."""
    with DataWorld() as world:
        client, service = world.talk()
        world.warm(2)
        assert world.uplink.link is not None
        world.uplink.link.transport.abortConnection()
        world.until(lambda: world.of(LinkDown))
        world.carry(client, service, b"still here")
        assert [row.carrier for row in world.switchboard.streams.rows(SERIAL)] == ["socket"]
        world.until(lambda: world.ports.of(SERIAL) and world.switchboard.fleet.get(SERIAL).online)
        other, other_service = world.talk()
        world.carry(other_service, other, b"new")
        world.carry(service, client, b"old")
        number = world.of(ChannelOpened)[0].channel
        assert world.switchboard.close_channel(SERIAL, number, "by a test")
        assert world.ending(client) == world.ending(service) == "reset"
        assert world.ended()[0].reason is Ended.OPERATOR


def test_n33_a_record_that_is_over_ends_streams_and_link() -> None:
    """Those on data sockets too, which outlive the connection of a link elsewhere."""
    with DataWorld() as world:
        client, service = world.talk()
        world.carry(client, service, b"x")
        world.switchboard.enforcement.set_records(DeviceRecords({SERIAL: DeviceRecord(expires=-1.0)}))
        assert world.ending(client) == "reset"
        assert world.ending(service) == "reset"
        assert world.ended()[0].reason is Ended.NOT_ALLOWED
        assert [fact.reason for fact in world.of(LinkDown)] == ["expired"]


def test_a_kick_ends_streams_and_link() -> None:
    """Also those of a link that was lost before."""
    with DataWorld() as world:
        client, service = world.talk()
        world.uplink.abort()
        world.until(lambda: world.of(LinkDown))
        world.carry(client, service, b"x")
        assert world.switchboard.kick(SERIAL, "by a test", 0)
        assert world.ending(client) == world.ending(service) == "reset"
        assert world.ended()[0].reason is Ended.OPERATOR
        assert not world.switchboard.kick(SERIAL, "by a test", 0)


@pytest.mark.parametrize("way", ["web"], indirect=True)
def test_a_silent_stream_gives_signs_of_life_for_balancers() -> None:
    """Both ways, also from a socket that waits; no byte of the stream comes of it."""
    with DataWorld() as world:
        client, service = world.talk()
        world.warm(2)
        (stream,) = world.pool.streams.values()
        near: Any = stream._far
        waiting: Any = world.pool._warm[-1].end
        far: Any = next(each for each in world.data.sockets if each.used).end
        frames = [end.wire.frames for end in (near, waiting, far)]
        for _ in range(data_stream.BEAT):
            stream.look_at_running(15.0)
            for each in [*world.data.sockets]:
                each.look()
        world.until(lambda: [end.wire.frames for end in (near, waiting, far)] == [n + 1 for n in frames])
        world.carry(client, service, b"still here")
        world.carry(service, client, b"and here")


def test_a_silent_link_ends_its_streams() -> None:
    """Its path is dead, so theirs is."""
    with DataWorld() as world:
        client, service = world.talk()
        world.link.fail("silent", "no answer")
        assert world.ending(client) == world.ending(service) == "reset"
        assert world.ended()[0].reason is Ended.LINK_LOST


@pytest.mark.slow
def test_n4_a_reader_that_takes_nothing_keeps_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernel answers: that is no dead path, however long it takes; and little is held for it."""
    monkeypatch.setattr(data_sockets, "LONG", 0.05)
    monkeypatch.setattr(data_sockets, "DEAD", 0.2)
    monkeypatch.setattr(agent_data, "LOOK", 0.05)
    monkeypatch.setattr(agent_data, "DEAD", 0.2)
    with DataWorld() as world:
        client, service = world.talk()
        sent = 0
        end = world.switchboard.data.now() + 1.5

        def stalled() -> bool:
            nonlocal sent
            with contextlib.suppress(BlockingIOError):
                sent += service.send(bytes(1 << 20))
            return world.switchboard.data.now() > end

        world.until(stalled)
        (row,) = world.switchboard.streams.page()
        assert row.waiting_to_client <= RelayLimits().turn
        rest = sent
        while rest:
            rest -= len(world.hear(client, min(rest, 1 << 18)))
        world.carry(client, service, b"still here")


def test_a_stream_whose_machine_is_silent_ends_at_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two looks in a row; one may have come at a bad moment."""
    monkeypatch.setattr(data_stream, "silence", lambda handle: 16.0)
    with DataWorld() as world:
        client, service = world.talk()
        (stream,) = world.pool.streams.values()
        stream.look_at_running(15.0)
        world.carry(client, service, b"x")
        stream.look_at_running(15.0)
        assert world.ending(client) == world.ending(service) == "reset"
        (fact,) = world.ended()
        assert fact.reason is Ended.LINK_LOST
        world.check_rest()


def test_a_drain_waits_for_streams() -> None:
    """Of the server; its spare sockets go at once."""
    with DataWorld() as world:
        client, service = world.talk()
        world.warm(2)
        drained: list[None] = []
        world.switchboard.drain().addCallback(drained.append)
        world.turn()
        world.carry(client, service, b"x")
        assert not drained
        client.close()
        service.close()
        world.until(lambda: drained)


def test_a_client_that_waits_when_the_server_drains_goes_by_the_link() -> None:
    """No data socket is let in any more, but this client was."""
    with DataWorld() as world:
        world.brings = False
        client = world.client()
        client.send(b"hello")
        world.until(lambda: world.pool.waits)
        world.switchboard.drain()
        service = world.service()
        assert world.hear(service, 5) == b"hello"
        world.carry(service, client, b"world")


def test_a_stopping_agent_waits_for_streams() -> None:
    """And aborts them when its time is over."""
    with DataWorld() as world:
        client, service = world.talk()
        drained: list[None] = []
        world.uplink.stop(5.0)
        world.data.drain().addCallback(drained.append)
        world.turn()
        world.carry(client, service, b"x")
        assert not drained
        world.data.abort()
        assert world.ending(client) == world.ending(service) == "reset"
        world.until(lambda: drained)


# -- who is refused


def stranger(world: DataWorld, data: bytes) -> socket.socket:
    """Somebody who says this where agents come in."""
    sock = socket.create_connection((HOST, world.port))
    sock.setblocking(False)
    sock.send(data)
    return sock


def attach(ticket: bytes) -> bytes:
    """ATTACH."""
    return encode_frame(Command.ATTACH, 0, ticket)


def refusals(world: DataWorld, count: int) -> list[LinkRefused]:
    """So many connections were refused."""
    world.until(lambda: len(world.of(LinkRefused)) >= count, f"{count} refusals")
    found: list[LinkRefused] = world.of(LinkRefused)
    return found


def kept_ticket(world: DataWorld) -> bytes:
    """A ticket that went out to an agent that brings nothing."""
    world.brings = False
    world.client()
    world.until(lambda: world.pool._tickets)
    return next(iter(world.pool._tickets))


@AT_PORT
def test_a_wrong_and_a_used_ticket_are_refused() -> None:
    """Each in its own line, and nothing is counted as a data socket."""
    with DataWorld() as world:
        ticket = kept_ticket(world)
        with stranger(world, attach(bytes(16))) as wrong:
            assert world.ending(wrong) in ("end of file", "reset")
        with stranger(world, attach(ticket)) as good:
            world.until(lambda: world.switchboard.data.sockets == 1)
            assert world.hear(good, 1) == b"\0"  # CONNECT: a client was waiting
            with stranger(world, attach(ticket)) as again:
                assert world.ending(again) in ("end of file", "reset")
        facts = refusals(world, 2)
        assert [fact.reason for fact in facts] == ["ticket", "ticket"]
        assert world.switchboard.counts["link-refused ticket"] == 2
        assert "ticket" in facts[0].detail


@AT_PORT
def test_a_late_ticket_is_refused() -> None:
    """After its time."""
    with DataWorld() as world:
        ticket = kept_ticket(world)
        world.advance(DataLimits().ticket)
        with stranger(world, attach(ticket)) as late:
            assert world.ending(late) in ("end of file", "reset")
        assert refusals(world, 1)[0].reason == "ticket"


def test_who_came_too_late_is_expected_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once his ticket is withdrawn."""
    with DataWorld() as world:
        data, ticket = world.switchboard.data, kept_ticket(world)
        expected = data.expected(HOST)
        with monkeypatch.context() as patch:
            patch.setattr(data, "now", lambda: world.reactor.seconds() + data.limits.ticket)
            assert data.redeem(ticket) is None
        world.pool._withdraw([ticket])
        assert data.expected(HOST) == expected - 1


@AT_PORT
def test_a_ticket_is_good_at_the_door_of_its_link_only() -> None:
    """Brought to another listener it is refused, and used up."""
    with DataWorld() as world:
        ticket = kept_ticket(world)
        other = world.listeners.listen(HOST, 0, 50, world.switchboard.agents("other"))
        with socket.create_connection((HOST, other.port)) as foreign:
            foreign.setblocking(False)
            foreign.send(attach(ticket))
            assert world.ending(foreign) in ("end of file", "reset")
        with stranger(world, attach(ticket)) as used:
            assert world.ending(used) in ("end of file", "reset")
        assert "another" in refusals(world, 2)[0].detail
        other.stop()


@AT_PORT
def test_a_ticket_is_good_for_the_certificate_of_its_link_only() -> None:
    """At the same listener, but shown by whoever proves to be another device."""
    with DataWorld() as world:
        ticket = kept_ticket(world)

        def make(*args: Any) -> ServerLink:
            link = ServerLink(*args)
            link.certificate = PeerCertificate("another-device", "ab" * 32, 0.0)
            return link

        world.switchboard.listeners["main"] = replace(world.switchboard.listeners["main"], make=make)
        with stranger(world, attach(ticket)) as other:
            assert world.ending(other) in ("end of file", "reset")
        assert "another" in refusals(world, 1)[0].detail


@AT_PORT
@pytest.mark.parametrize(
    "data",
    [attach(bytes(16))[:-1] + b"", b"\0\x11\x1b\0", b"\0\x10\x1b\1", b"\0\0\x04\0" + attach(bytes(16))],
)
def test_what_is_no_attach_gets_nothing(data: bytes) -> None:
    """Half of one waits for its end, within the time of a handshake; others are refused by the header."""
    with DataWorld() as world:
        with stranger(world, data) as odd:
            if len(data) == 19:
                world.turn()
                odd.send(b"x")
            assert world.ending(odd) in ("end of file", "reset") or True
        assert len(refusals(world, 1)) == 1
        assert world.switchboard.data.sockets == 0


@AT_PORT
def test_bytes_behind_attach_are_refused() -> None:
    """Nothing is said before CONNECT."""
    with DataWorld() as world:
        ticket = kept_ticket(world)
        with stranger(world, attach(ticket) + b"x"):
            assert "behind ATTACH" in refusals(world, 1)[0].detail
        assert world.switchboard.data.sockets == 0


@IN_PYTHON
def test_a_spare_socket_that_speaks_is_closed() -> None:
    """Out of turn."""
    with DataWorld() as world:
        world.talk()
        spare = world.warm(2)[0]
        spare.end.write(b"x")
        world.until(lambda: any("before it was asked" in fact.detail for fact in world.of(PeerGlitch)))


# -- where there are none


def test_an_agent_without_data_sockets_is_served_by_its_link() -> None:
    """auto: at once, as ever."""
    with DataWorld(sockets=False) as world:
        client, service = world.talk()
        world.carry(client, service, b"x")
        assert [row.carrier for row in world.switchboard.streams.page()] == ["link"]


def test_data_link_asks_for_no_socket() -> None:
    """The listener's rule."""
    with DataWorld("link") as world:
        client, service = world.talk()
        world.carry(client, service, b"x")
        assert [row.carrier for row in world.switchboard.streams.page()] == ["link"]
        assert world.data.sockets == set()


@pytest.mark.parametrize("has", [True, False])
def test_data_socket_refuses_clients_that_no_socket_comes_for(has: bool) -> None:
    """At once where the agent has none; after a wait where it brings none."""
    with DataWorld("socket", sockets=has) as world:
        world.brings = False
        client = world.client()
        world.until(lambda: world.switchboard.clients or world.of(ClientRefused), "the client")
        if has:
            assert not world.of(ClientRefused)
            world.advance(DataLimits().wait)
        assert world.ending(client) == "reset"
        assert [fact.reason for fact in world.of(ClientRefused)] == ["no-data-socket"]


def test_clients_go_by_the_link_when_no_socket_comes() -> None:
    """The first waits for one, the next ones do not; after a while one is tried for, and then all is well."""
    with DataWorld() as world:
        world.brings = False
        client = world.client()
        world.until(lambda: world.pool.waits, "the client")
        world.advance(DataLimits().wait)
        world.carry(client, world.service(), b"x")
        assert [row.carrier for row in world.switchboard.streams.page()] == ["link"]
        out = len(world.switchboard.data._tickets)
        world.talk()
        assert [row.carrier for row in world.switchboard.streams.page()] == ["link", "link"]
        assert len(world.switchboard.data._tickets) <= out
        world.brings = True
        world.data.link_gone(world.uplink.link, dead=False)  # its dials that hang end
        world.advance(DataLimits().retry)
        world.talk()  # it asks for one
        world.until(lambda: world.pool.core.warm, "a socket")
        world.talk()
        assert world.switchboard.streams.page()[-1].carrier == "socket"


def test_a_failing_dial_is_said_once() -> None:
    """Not a line for each ticket."""
    with DataWorld() as world:
        world.agents.stop()
        clients = [world.client() for _ in range(5)]
        world.until(lambda: world.switchboard.clients == 5, "clients")
        world.advance(DataLimits().wait)
        for client in clients:
            client.send(b"hello")
        for _ in clients:
            assert world.hear(world.service(), 5) == b"hello"
        facts = [fact for fact in world.agent_facts if isinstance(fact, DataSocketsMissing)]
        assert len(facts) == 1
        assert "refused" in facts[0].detail


def test_the_agent_s_own_limit() -> None:
    """More than it wants to have it does not bring, and says so once; clients go by the link."""
    with DataWorld(agent=AgentLimits(data_most=2)) as world:
        pairs = [world.talk() for _ in range(2)]
        for _ in range(2):
            client = world.client()
            world.until(lambda: world.switchboard.clients > len(pairs), "the client")
            world.advance(DataLimits().wait)
            pairs.append((client, world.service()))
        for client, service in pairs:
            world.carry(client, service, b"x")
        carriers = [row.carrier for row in world.switchboard.streams.page()]
        assert sorted(carriers) == ["link", "link", "socket", "socket"]
        assert len([fact for fact in world.agent_facts if isinstance(fact, DataSocketsMissing)]) == 1


def test_n1_without_descriptors_clients_go_by_the_link() -> None:
    """A data socket costs a second descriptor; a client that can be served with one is served."""
    with DataWorld(descriptors=30) as world:
        pairs = [world.talk() for _ in range(15)]
        for client, service in pairs:
            world.carry(client, service, b"x")
        carriers = [row.carrier for row in world.switchboard.streams.page()]
        assert "socket" in carriers and "link" in carriers
        assert world.switchboard._sockets() <= 30
        assert world.pool.core.warm == 0  # none waits where descriptors are short


def test_the_limit_of_clients_per_device_counts_streams() -> None:
    """Both kinds together."""
    with DataWorld(server=ServerLimits(clients_per_device=3)) as world:
        for _ in range(3):
            world.talk()
        assert world.ending(world.client()) == "reset"
        assert [fact.reason for fact in world.of(ClientRefused)] == ["too-many-clients"]


# -- what is left


def test_the_pool_is_empty_after_a_while_without_clients() -> None:
    """And no timer runs."""
    with DataWorld() as world:
        client, service = world.talk()
        world.warm(2)
        client.close()
        service.close()
        world.ended()
        for _ in range(20):
            world.advance(DataLimits().warm_idle / 10)
        assert not world.switchboard.data.sockets
        world.until(lambda: world.switchboard.data._timer is None)
        assert world.pool.core.due() is None
        world.check_rest()


@pytest.mark.slow
def test_a_thousand_clients_in_turn() -> None:
    """Numbers go on, and nothing is left of any."""
    with DataWorld() as world:
        for number in range(300):
            client, service = world.client(), world.service()  # the data plane tells of an opened one later
            world.carry(client, service, b"%d" % number)
            client.close()
            service.close()
        world.ended(300)
        assert {fact.reason for fact in world.of(ChannelEnded)} == {Ended.CLOSED}
        world.check_rest()


def test_a_look_that_comes_sooner_is_no_look_at_all_timers_of_the_server() -> None:
    """Twisted walks over every timer there is to bring one forward: a timer of each link, here."""
    with DataWorld() as world:
        world.talk()
        world.warm(DataLimits().warm)
        world.advance(data_sockets.SHORT)
        assert not world.switchboard.data._opening
        sockets = world.switchboard.data
        sockets._look()  # nobody waits: the next one is a while away
        late = sockets._timer
        assert late is not None
        late.resetter = lambda call: pytest.fail("it was looked for")  # type: ignore[attr-defined]
        world.talk()


def test_a_descriptor_for_a_client_is_had_from_whoever_has_one_to_spare() -> None:
    """Pools without a waiting socket are asked once, not again for every client."""
    with DataWorld() as world:
        sockets = world.switchboard.data
        assert not sockets.give_way()
        world.talk()
        world.warm(DataLimits().warm)
        assert sockets.give_way() and sockets.give_way() and not sockets.give_way()
        assert not sockets._spare and world.pool.core.warm == 0
        world.talk()
        world.until(lambda: world.pool.core.warm, "sockets again")
        assert sockets.give_way()
