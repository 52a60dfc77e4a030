"""Situations that users of tunnels report, one test each, named after what they would say.

Those in memory are quick and drive the clock; those that need sockets and processes are slow. What to look at
in the field stands in docs/operations.rst, "When something is wrong".
"""

import contextlib
import errno
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.penalties import Penalties
from revtunnel.ground.facts import ChannelOpened, LeftEarly, LinkDown, LinkRefused
from revtunnel.ground.limits import LinkLimits, PenaltyLimits
from revtunnel.ground.networks import network_of
from revtunnel.ground.targets import parse_offer
from tests.loopback.test_emo import emo_agent
from tests.support.cameo_site import Relays
from tests.support.cccp_site import CccpDaemon
from tests.support.daemons import Agent, Daemon, Lab, Server
from tests.support.data_world import DataWorld
from tests.support.memory import Recorder
from tests.support.ports import free_ports
from tests.support.reactor import HANGS
from tests.support.services import Banner, Echo, OneAtATime
from tests.support.throwaway_tls import Issued, Issuer
from tests.support.traffic import connect, end_of, leave_with_reset, read_exactly, wait_until
from tests.support.world import LINK_PORT, SERVER, World

slow = pytest.mark.slow
BALANCER = "203.0.113.7"

# -- the path falls silent


def test_the_first_client_after_the_path_fell_silent_is_reset_within_20_s() -> None:
    """Its CONNECT is unanswered as DATA would be: the link is given up as early, for the next one."""
    world = World()
    world.advance(60.0)
    world.link_pairs()[0].sever()
    client = world.client()
    world.advance(21.0)
    assert client.was_reset
    assert [fact.reason for fact in world.of(LinkDown)] == ["silent"]
    world.finish()


def test_an_agent_whose_opened_is_lost_leaves_the_silent_path_within_20_s() -> None:
    """The path falls silent between CONNECT and OPENED: the agent has something unanswered, too."""
    world = World()
    world.advance(60.0)
    world.client()
    while not world.reactor.dialling:
        world.reactor.turn()
    world.link_pairs()[0].sever()
    world.advance(21.0)
    (down,) = (fact for fact in world.agents["plc-1"].facts if isinstance(fact, LinkDown))
    assert down.reason == "silent"
    world.finish()


# -- names


@pytest.mark.parametrize("fault", [HANGS, OSError(errno.EHOSTUNREACH, "No route to host")])
def test_a_target_by_a_name_whose_first_address_is_unreachable_is_reached_by_the_second(
    fault: BaseException,
) -> None:
    """Whether the first refuses or says nothing: then the second is dialled beside it after 0.25 s."""
    world = World(offers=(parse_offer("plc=plc.example:102"),))
    world.reactor.names.answers["plc.example"] = ["10.0.0.6", "10.0.0.5"]
    world.reactor.faults["10.0.0.6", 102] = fault
    service = world.add_service(parse_offer("plc=10.0.0.5:102"))
    client = world.client(name="plc")
    world.advance(0.3)
    assert client.here
    assert len(service.made) == 1
    world.finish()


HANGING = """
import socket, sys, time
asked = socket.getaddrinfo
def hang(host, *more, **other):
    if str(host).endswith(".example"):
        open({mark!r}, "a").close()
        time.sleep(600)
    return asked(host, *more, **other)
socket.getaddrinfo = hang
"""
STUCK = """
import sys, threading, time
if "revtunnel.daemons.run" in sys.orig_argv:
    threading.Thread(target=time.sleep, args=(600,)).start()
"""


def begin_with(code: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Pythons that this test starts run ``code`` first."""
    (directory / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(directory), prepend=":")


@slow
@pytest.mark.parametrize("whose", ["server", "target"])
def test_an_agent_whose_resolver_hangs_ends_at_sigterm(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """It waits for no thread of a resolver: neither for the name of its server nor for that of a target."""
    mark = tmp_path / "asked"
    begin_with(HANGING.format(mark=str(mark)), tmp_path, monkeypatch)
    server = lab.server().start()
    place = "gate.example:7443" if whose == "server" else f"127.0.0.1:{server.port}"
    agent: Agent = lab.agent(
        server, servers=[place], offers={"it": "plc.example:102"}, options=["--plaintext"]
    )
    agent.start()
    if whose == "target":
        port = server.client_port("plc-7", "it")
        with connect(port):
            wait_until(mark.exists, "question to the resolver")
    wait_until(mark.exists, "question to the resolver")
    assert agent.stop(60) == 0


@slow
@pytest.mark.parametrize("kind", ["server", "agent", "cccp", "cameo"])
def test_a_daemon_in_which_a_thread_hangs_ends_at_sigterm(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Python itself would wait for that thread at the end; nobody has to kill the daemon."""
    begin_with(STUCK, tmp_path, monkeypatch)
    made: dict[str, Any] = {"server": Server, "cccp": CccpDaemon, "cameo": Relays}
    daemon: Daemon
    if kind == "agent":
        daemon = lab.add(Agent(tmp_path, "plc-7", ["127.0.0.1:9"], {"it": "127.0.0.1:102"}))
    else:
        daemon = lab.add(made[kind](tmp_path))
    daemon.start()
    daemon.signal(signal.SIGTERM)
    assert daemon.wait(60) == 0


# -- who has gone


@slow
def test_of_500_scans_that_reset_none_reaches_the_device(lab: Lab) -> None:
    """They are there all at once, when the server comes to look; a client behind them is served."""
    with Echo() as echo:
        server, _ = lab.pair(it=echo.target)
        port = server.client_port("plc-7", "it")
        server.pause()
        for _ in range(500):
            with connect(port) as scan:
                leave_with_reset(scan)
        with connect(port) as client:
            server.resume()
            client.sendall(b"here")
            assert read_exactly(client, 4) == b"here"
        assert echo.accepted == 1


@slow
@pytest.mark.parametrize("data", ["link", "socket"])
def test_of_500_scans_that_close_few_reach_the_device_and_a_client_is_served_before_them(
    lab: Lab, data: str
) -> None:
    """A FIN without a byte may be a client that only listens: one now and then is let in, last of all."""
    with Echo() as echo:
        server, _ = lab.pair({"listener main": {"data": data}}, it=echo.target)
        port = server.client_port("plc-7", "it")
        server.pause()
        for _ in range(500):
            connect(port).close()
        with connect(port) as client:
            server.resume()
            client.sendall(b"here")
            assert read_exactly(client, 4) == b"here"
        assert echo.accepted < 100
        server.stop()
        assert server.events("left-early")[-1]["connections"] > 400


@slow
def test_a_client_that_says_its_words_and_ends_at_once_has_its_answer(lab: Lab) -> None:
    """``nc -N``: data and FIN stand there before the server looks."""
    with Echo() as echo:
        server, _ = lab.pair(it=echo.target)
        port = server.client_port("plc-7", "it")
        server.pause()
        with connect(port) as client:
            client.sendall(b"here")
            client.shutdown(socket.SHUT_WR)
            server.resume()
            assert read_exactly(client, 4) == b"here"
            assert end_of(client) == "end of file"


@slow
def test_a_client_that_only_listens_and_ends_at_once_has_its_banner(lab: Lab) -> None:
    """``nc -N`` with nothing to say, where the service speaks first."""
    with Banner(b"220 here\r\n") as service:
        server, _ = lab.pair(it=service.target)
        port = server.client_port("plc-7", "it")
        server.pause()
        with connect(port) as client:
            client.shutdown(socket.SHUT_WR)
            server.resume()
            assert read_exactly(client, 10) == b"220 here\r\n"


@slow
def test_a_client_that_reset_while_it_waited_for_a_channel_makes_no_dial() -> None:
    """The number that is free goes to the next one who is still there."""
    with DataWorld("link", link=LinkLimits(channels=1)) as world:
        first, _ = world.talk()
        gone, here = world.client(), world.client()
        world.until(lambda: len(world.link.channels.waiting or ()) == 2)
        leave_with_reset(gone)
        leave_with_reset(first)
        service = world.service()
        world.carry(service, here, b"for the second")
        assert len(world.of(ChannelOpened)) == 2
        here.close()
        service.close()
        world.until(lambda: not world.switchboard.clients, "rest")


@slow
def test_a_client_that_reset_while_it_waited_for_a_data_socket_makes_no_dial() -> None:
    """The socket that comes is for the next one who is still there."""
    with DataWorld() as world:
        held: list[Deferred[None]] = []

        def connecting(link: Any) -> Deferred[Any]:
            waiting: Deferred[None] = Deferred()
            held.append(waiting)
            return waiting.addCallback(lambda _: world.connector.again(link, 10.0))

        world.data._connect = connecting
        gone, here = world.client(), world.client()
        world.until(lambda: held and len(world.pool._waiting) == 2)
        leave_with_reset(gone)
        for waiting in held:
            waiting.callback(None)
        service = world.service()
        world.carry(service, here, b"for the second")
        assert len(world.of(ChannelOpened)) == 1
        world.data._connect = world._connect
        here.close()
        service.close()
        world.check_rest()


# -- health checks


def look_in(world: World, said: bytes = b"") -> None:
    """A load balancer looks whether the listener for agents lives."""
    balancer = Recorder()
    assert world.reactor.dial(LINK_PORT, balancer, BALANCER, SERVER) is not None
    balancer.transport.write(said)  # type: ignore[union-attr]
    balancer.transport.loseConnection()  # type: ignore[union-attr]
    world.pump()


@pytest.mark.parametrize("named", [False, True])
def test_a_day_of_health_checks_is_a_line_an_hour(named: bool) -> None:
    """They connect and hang up: no warning, no penalty, and the agent beside them is not concerned."""
    world = World(access=AccessControl(lambda: 0.0, penalties=Penalties(PenaltyLimits())))
    world.listener(checkers=(network_of(BALANCER),) if named else ())
    for _ in range(24 * 60):
        look_in(world)
        world.advance(60.0)
    said = world.of(LeftEarly)
    assert 23 <= len(said) <= 24
    assert {fact.connections for fact in said} <= {60, 61}
    assert world.of(LinkRefused) == []
    assert world.switchboard.counts["left-early"] == sum(fact.connections for fact in said)
    world.finish()


def test_a_checker_that_is_named_may_say_what_it_likes() -> None:
    """Its HTTP is no garbage, and never costs its address; that of anybody else is and does."""
    world = World(access=AccessControl(lambda: 0.0, penalties=Penalties(PenaltyLimits())))
    for _ in range(7):
        look_in(world, b"OPTIONS / HTTP/1.0\r\n\r\n")
    assert [fact.reason for fact in world.of(LinkRefused)] == ["protocol"] * 6 + ["penalty"]
    world.advance(60.0)
    world.listener(checkers=(network_of(BALANCER),))
    for _ in range(10):
        look_in(world, b"OPTIONS / HTTP/1.0\r\n\r\n")
    assert len(world.of(LinkRefused)) == 7
    world.advance(3600.0)
    assert [fact.connections for fact in world.of(LeftEarly)] == [10]
    world.finish()


# -- a device that takes one connection at a time


PATIENT = {"limits": {"ended_wait": "10 s"}}  # for a machine on which closing takes longer than it should


def again_and_again(port: int, times: int) -> int:
    """A client that asks, is answered, closes and connects again at once: how often that went well."""
    well = 0
    for number in range(times):
        with contextlib.suppress(OSError), connect(port) as client:
            client.sendall(b"%08d" % number)
            well += read_exactly(client, 8) == b"%08d" % number
    return well


@slow
@pytest.mark.parametrize(
    ("data", "tls"),
    [
        ("link", False),
        ("socket", True),
        pytest.param("link", True, marks=pytest.mark.long),
        pytest.param("socket", False, marks=pytest.mark.long),
    ],
)
def test_a_plc_that_takes_one_connection_serves_a_client_that_comes_again_500_times(
    lab: Lab, data: str, tls: bool
) -> None:
    """What ended earlier is closed at the PLC before the next one is dialled."""
    server_settings: dict[str, dict[str, object]] = {"listener main": {"data": data}}
    agent_settings: dict[str, dict[str, object]] = {"agent": {}}
    if tls:
        issuer = Issuer(lab.directory)
        ours, theirs = issuer.server("127.0.0.1"), issuer.device("plc-7")
        server_settings["listener main"] |= {"tls": "yes", **files(issuer, ours)}
        agent_settings["agent"] |= files(issuer, theirs)
    with OneAtATime() as plc:
        server, _ = lab.pair(server_settings | PATIENT, agent_settings, it=plc.target)
        assert again_and_again(server.client_port("plc-7", "it"), 500) == 500
        assert plc.refused == 0


@slow
def test_a_plc_behind_a_legacy_link_serves_a_client_that_comes_again_500_times(lab: Lab) -> None:
    """Its CLOSE is answered once the PLC has closed."""
    with OneAtATime() as plc:
        listener = {"kind": "legacy", "serial": "plc-7", "mappings": f"0 -> it={plc.target}"}
        server = lab.server({"listener main": listener, **PATIENT}).start()
        lab.agent(server, offers={"it": plc.target}, options=["--legacy"]).start()
        assert again_and_again(server.client_port("plc-7", "it"), 500) == 500
        assert plc.refused == 0


@slow
def test_a_machine_behind_emo_serves_a_client_that_comes_again_500_times(lab: Lab) -> None:
    """Over EMO's own wire."""
    (port,) = free_ports(1)
    settings = {"listener main": {"kind": "emo"}, "reservations": {"mill-1/emo": port}}
    with OneAtATime() as plc:
        server = lab.server(settings | PATIENT).start()
        emo_agent(lab, f"127.0.0.1:{server.port}", "mill-1", port, plc.target, "no")
        assert again_and_again(server.client_port("mill-1", "emo"), 500) == 500
        assert plc.refused == 0


@slow
@pytest.mark.parametrize(
    ("where", "data"),
    [
        ("record", "link"),
        ("agent", "socket"),
        pytest.param("record", "socket", marks=pytest.mark.long),
        pytest.param("agent", "link", marks=pytest.mark.long),
    ],
)
def test_ten_people_at_a_plc_that_takes_one_wait_in_line(lab: Lab, where: str, data: str) -> None:
    """With ``at_once = 1`` in the record of the device, or at its agent: all are served, none is refused."""
    server_settings: dict[str, dict[str, object]] = {"listener main": {"data": data}}
    record = {"device plc-7": {"at_once": 1}} if where == "record" else {}
    agent_settings = {"agent": {"at_once": "it=1"}} if where == "agent" else {}
    with OneAtATime() as plc, contextlib.ExitStack() as stack:
        server, _ = lab.pair(server_settings | record, agent_settings, it=plc.target)
        port = server.client_port("plc-7", "it")
        people = [stack.enter_context(connect(port)) for _ in range(10)]
        for each in people:
            each.sendall(b"here")
        for each in people:
            assert read_exactly(each, 4) == b"here"
            each.close()
        assert plc.refused == 0


def files(issuer: Issuer, issued: Issued) -> dict[str, object]:
    """What either side is told of certificates."""
    return {
        "authority": issuer.file,
        "certificate": issued.certificate_file,
        "certificate_key": issued.key_file,
    }
