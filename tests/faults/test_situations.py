"""Situations that users of tunnels report, one test each, named after what they would say.

Those in memory are quick and drive the clock; those that need sockets and processes are slow. What to look at
in the field stands in docs/operations.rst, "When something is wrong".
"""

import errno
import signal
from pathlib import Path
from typing import Any

import pytest

from revtunnel.ground.facts import LinkDown
from revtunnel.ground.targets import parse_offer
from tests.support.cameo_site import Relays
from tests.support.cccp_site import CccpDaemon
from tests.support.daemons import Agent, Daemon, Lab, Server
from tests.support.reactor import HANGS
from tests.support.traffic import connect, wait_until
from tests.support.world import World

slow = pytest.mark.slow

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
    assert agent.stop() == 0


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
