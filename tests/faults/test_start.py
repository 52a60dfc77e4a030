"""What cannot start says so in one line and leaves; ports that others hold are stepped over."""

import os
import socket
import subprocess

import pytest

from tests.support.daemons import Agent, Daemon, Lab
from tests.support.services import Echo
from tests.support.traffic import connect, read_exactly, wait_until

pytestmark = pytest.mark.slow


def refuses(daemon: Daemon, *words: str, status: int = 1) -> None:
    """AssertionError unless it ends with that status and exactly one line, which holds these words."""
    daemon.complains = True
    daemon.start(wait=False)
    assert daemon.wait() == status
    lines = daemon.said().splitlines()
    assert len(lines) == 1, lines
    assert all(word in lines[0] for word in words), lines[0]


def test_c10_a_busy_port(lab: Lab) -> None:
    """The port for agents is another program's."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = lab.server({"listener main": {"address": f"127.0.0.1:{port}"}})
        refuses(server, "revtunnel-server", str(port), "in use")


def test_c10_one_of_two_ports_is_busy(lab: Lab) -> None:
    """No half-started server: the first listener, which could be had, is not left open."""
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("127.0.0.1", 0)) as free:
        busy, port = other.getsockname()[1], free.getsockname()[1]
        free.close()
        server = lab.server({"listener main": {"address": f"127.0.0.1:{port}, 127.0.0.1:{busy}"}})
        refuses(server, str(busy))
        assert not server.events("state", state="ready")


def test_c10_an_address_that_is_not_there_yet(lab: Lab) -> None:
    """192.0.2.1 is nobody's, but may come with a network that is late: it is tried again, the rest runs."""
    wide = {"allow_without_keys": "yes", "allow_plaintext": "yes"}
    server = lab.server({"listener main": {"address": "127.0.0.1:0, 192.0.2.1:2065", **wide}}).start()
    what = "[listener main] 192.0.2.1:2065"
    assert "assign" in server.wait_event("trouble", what=what)["detail"]
    assert server.control("status")["problems"] == [f"{what}: Cannot assign requested address"]


def test_n38_two_servers_on_one_config(lab: Lab) -> None:
    """The second ends with a message; the first notices nothing."""
    with Echo() as echo:
        server, _ = lab.pair(it=echo.target)
        second = lab.server(name="second")
        second.config.write_text(server.config.read_text())
        refuses(second, "revtunnel-server")
        with connect(server.client_port("plc-7", "it")) as client:
            client.sendall(b"here")
            assert read_exactly(client, 4) == b"here"
        assert server.admin_socket.exists()


def test_c5_broken_settings(lab: Lab) -> None:
    """Status 78, one line for each error, with file and line, before any socket is opened."""
    server = lab.server({"listener main": {"address": "here"}, "pool default": {"ranges": "6000-5000"}})
    server.complains = True
    server.start(wait=False)
    assert server.wait() == 78
    lines = server.said().splitlines()
    assert len(lines) == 2 and all(f"{server.config}:" in line for line in lines)
    assert not (server.directory / "server.state").exists()


def test_a_state_directory_that_cannot_be_made(lab: Lab) -> None:
    """A file stands in its place: one line, status 1."""
    (lab.directory / "server.state").write_text("")
    refuses(lab.server(), "server.state")


def test_an_agent_without_a_server_waits_for_one(lab: Lab) -> None:
    """Nobody there is no reason to end: it says so, and comes when the server does."""
    with Echo() as echo, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        agent = Agent(lab.directory, "plc-7", [f"127.0.0.1:{port}"], {"it": echo.target})
        lab.add(agent).start()
        assert "refused" in agent.wait_event("state", state="away")["detail"]
        server = lab.server({"listener main": {"address": f"127.0.0.1:{port}"}}).start()
        server.wait_link("plc-7")


def test_c8_an_agent_that_was_told_nothing(lab: Lab) -> None:
    """No server, no service: usage, status 64, and what is wanted."""
    agent = Agent(lab.directory, "plc-7", [], {})
    agent.complains = True
    lab.add(agent).start(wait=False)
    assert agent.wait() == 64
    assert "--server" in agent.said() and "--local" in agent.said()


def test_h9_a_client_port_of_another_program(lab: Lab) -> None:
    """It is stepped over, and the next one of the range is opened."""
    with Echo() as echo, socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        server, _ = lab.pair({"pool default": {"ranges": f"{taken}-{taken + 20}"}}, it=echo.target)
        port = server.client_port("plc-7", "it")
        assert taken < port <= taken + 20
        with connect(port) as client:
            client.sendall(b"here")
            assert read_exactly(client, 4) == b"here"


def test_n3_a_range_that_is_used_up(lab: Lab) -> None:
    """The target beyond it has no port, which the log says; the link and the others work."""
    with Echo() as echo:
        server = lab.server()
        low = int(str(server.settings["pool default"]["ranges"]).partition("-")[0])
        server.write(**{"pool default": {"ranges": f"{low}-{low + 1}"}})
        server.start()
        lab.agent(server, offers=dict.fromkeys("abc", echo.target)).start()
        server.wait_link("plc-7")
        server.wait_event("listener-refused", serial="plc-7")
        assert len(server.events("listener-opened")) == 2 and not server.events("link-down")


def test_n3_two_servers_share_a_range(lab: Lab) -> None:
    """Each opens what the other has not, and none ends for it."""
    with Echo() as echo:
        first = lab.server(name="first")
        shared = {"pool default": {"ranges": first.settings["pool default"]["ranges"]}}
        second = lab.server(shared, name="second")
        found = set()
        for server in (first.start(), second.start()):
            lab.agent(server, f"of-{server.name}", offers={"a": echo.target, "b": echo.target}).start()
            found |= {server.client_port(f"of-{server.name}", name) for name in "ab"}
        assert len(found) == 4


def test_a_pool_on_an_address_that_is_not_ours(lab: Lab) -> None:
    """The server runs, the link is up, and the log says why there is no client port."""
    with Echo() as echo:
        server = lab.server({"pool default": {"bind": "192.0.2.1", "clients": "any"}}).start()
        lab.agent(server, offers={"it": echo.target}).start()
        assert "192.0.2.1" in server.wait_event("listener-refused", serial="plc-7")["detail"]
        assert not server.events("link-down")


def full_pipe() -> tuple[int, int]:
    """Both ends of a pipe that takes no more bytes."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    return reading, writing


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_n18_a_log_that_nobody_reads(lab: Lab) -> None:
    """Standard output is a pipe that is full: not one line gets out, and clients are served all the same."""
    with Echo() as echo, socket.create_server(("127.0.0.1", 0)) as free:
        door = free.getsockname()[1]
        free.close()
        server = lab.server({"listener main": {"address": f"127.0.0.1:{door}"}})
        low = int(str(server.settings["pool default"]["ranges"]).partition("-")[0])
        server.write(reservations={"plc-7/it": low})
        reading, writing = full_pipe()
        server.process = subprocess.Popen(server.command(), stdout=writing, env=server.environment())
        os.close(writing)
        agent = Agent(lab.directory, "plc-7", [f"127.0.0.1:{door}"], {"it": echo.target})
        lab.add(agent).start()
        agent.wait_event("link-up")
        wait_until(lambda: answers(low), "client port")  # the server's log, which would say so, is not there
        for number in range(50):
            words = b"client %d" % number
            with connect(low) as client:
                client.sendall(words)
                assert read_exactly(client, len(words)) == words
        os.close(reading)
        assert server.running
