"""Data sockets between real daemons: exact bytes, crowds, killed processes, and what operators see and do."""

import contextlib
import hashlib
import shutil
import socket
import subprocess

import pytest

from tests.support.daemons import Lab, Server
from tests.support.services import Echo, Kept, ReplyAfterEof, digest_of
from tests.support.traffic import (
    MIB,
    Patterned,
    connect,
    end_of,
    end_of_new,
    exchange,
    in_thread,
    read_exactly,
    wait_until,
)

pytestmark = pytest.mark.slow


def say(client: socket.socket, words: bytes) -> None:
    """They come back."""
    client.sendall(words)
    assert read_exactly(client, len(words)) == words


def channels(server: Server) -> list[dict[str, object]]:
    """What ``revtunnelctl channels`` lists."""
    found: list[dict[str, object]] = server.control("channels")["channels"]
    return found


def test_streams_of_all_sizes_are_exact(lab: Lab) -> None:
    """From nothing to 64 MiB, both ways at once, several beside each other; the counts are exact too."""
    sizes = [(0, 0), (1, 0), (0, 1), (1, 65537), (70_000, 3), (MIB, 5 * MIB), (64 * MIB, 64 * MIB)]
    with Patterned() as service:
        server, _ = lab.pair(it=service.target)
        port = server.client_port("plc-7", "it")
        for _ in range(2):
            threads = [in_thread(exchange, port, seed, *both) for seed, both in enumerate(sizes)]
            for thread in threads:
                thread.join(120)
                assert thread.problem is None, thread.problem
        ended = len(sizes) * 2
        server.wait_until(lambda: server.control("status")["channels"] == 0, "the end of all channels")
        assert service.wrong == []
        assert server.control("status")["counts"]["channel-ended closed"] == ended
        (device,) = server.control("devices")["devices"]
        wanted = sum(16 + 4 + to_device for to_device, _ in sizes) * 2
        assert device["bytes_to_device"] == wanted
        assert device["bytes_to_client"] == sum(to_client for _, to_client in sizes) * 2


def test_n26_nc_waits_for_the_whole_reply(lab: Lab) -> None:
    """``nc -N`` through a data socket, many times: a clean end is whole."""
    if shutil.which("nc") is None:
        pytest.skip("no nc here")
    with ReplyAfterEof(MIB) as service:
        server, _ = lab.pair(late=service.target)
        port = server.client_port("plc-7", "late")
        for _ in range(20):
            command = ["nc", "-N", "127.0.0.1", str(port)]
            answer = subprocess.run(
                command, input=b"x" * 100_000, stdout=subprocess.PIPE, timeout=60, check=True
            )
            assert hashlib.sha256(answer.stdout[32:]).hexdigest() == digest_of(MIB, 1)


def test_300_clients_of_one_device(lab: Lab) -> None:
    """At once, each with its own echo; listed with their numbers and carrier."""
    with Echo() as echo, contextlib.ExitStack() as stack:
        server, _ = lab.pair(echo=echo.target)
        port = server.client_port("plc-7", "echo")
        crowd = [stack.enter_context(connect(port)) for _ in range(300)]
        for number, client in enumerate(crowd):
            client.sendall(b"client %d " % number)
        for number, client in enumerate(crowd):
            words = b"client %d " % number
            assert read_exactly(client, len(words)) == words
        rows = channels(server)
        assert len(rows) == 300
        assert {row["carrier"] for row in rows} == {"socket"}
        assert all(int(str(row["channel"])) > 255 for row in rows)


def test_an_operator_closes_a_stream_and_kicks_a_device(lab: Lab) -> None:
    """As with any other channel; nobody else is harmed by the first."""
    with Kept() as service:
        server, _ = lab.pair(echo=service.target)
        port = server.client_port("plc-7", "echo")
        with connect(port) as one, connect(port) as other:
            say(one, b"one")
            say(other, b"other")
            first = min(int(str(row["channel"])) for row in channels(server))
            server.control("close", "plc-7", str(first))
            assert end_of(one) == "reset"
            say(other, b"still here")
            server.control("kick", "plc-7")
            assert end_of(other) == "reset"
        service.record.wait("end", "reset", count=2)
        ended = server.wait_event("channel-ended", 2)
        assert ended["reason"] == "operator"


@pytest.mark.parametrize("who", ["agent", "server"])
def test_n21_a_killed_daemon_ends_its_streams_with_resets(lab: Lab, who: str) -> None:
    """kill -9: neither side sees a clean end."""
    with Kept() as service:
        server, agent = lab.pair(echo=service.target)
        with connect(server.client_port("plc-7", "echo")) as client:
            say(client, b"hello")
            (agent if who == "agent" else server).kill()
            assert end_of(client) == "reset"
            service.record.wait("end", "reset")


def test_dead_spare_sockets_cost_no_byte(lab: Lab) -> None:
    """The kernel destroys them, on either side; the next clients are served, whole."""
    with Echo() as echo:
        server, _ = lab.pair(echo=echo.target)
        port = server.client_port("plc-7", "echo")
        for side in ("sport", "dport"):
            with connect(port) as first:
                say(first, b"first")
            server.wait_until(lambda: server.control("status")["channels"] == 0, "rest")
            command = ["ss", "-K", "state", "established", f"{side} = :{server.port}"]
            done = subprocess.run(command, capture_output=True, check=False)
            if done.returncode or not done.stdout.count(b"\n"):
                pytest.skip("this kernel destroys no sockets")
            server.wait_event("link-up", 1 if side == "sport" else 2)
            for number in range(20):
                wait_until(lambda: is_served(port, b"client %d" % number), "a client that is served")  # noqa: B023


def is_served(port: int, words: bytes) -> bool:
    """Whether a new client has its words back; False: there was no port at that moment."""
    with contextlib.suppress(ConnectionError), connect(port) as client:
        client.sendall(words)
        return read_exactly(client, len(words)) == words
    return False


def test_an_agent_may_be_told_to_bring_none(lab: Lab) -> None:
    """Then its link serves its clients; a listener that wants sockets only refuses them, with a word."""
    with Echo() as echo:
        server, _ = lab.pair({}, {"agent": {"data_sockets": "no"}}, echo=echo.target)
        with connect(server.client_port("plc-7", "echo")) as client:
            say(client, b"by the link")
            assert [row["carrier"] for row in channels(server)] == ["link"]
        other = lab.server({"listener main": {"data": "socket"}}, name="other").start()
        lab.agent(
            other, "plc-8", offers={"echo": echo.target}, settings={"agent": {"data_sockets": "no"}}
        ).start()
        assert end_of_new(other.client_port("plc-8", "echo")) == "reset"
        other.wait_event("client-refused", reason="no-data-socket")


def test_a_stopping_agent_lets_its_streams_end(lab: Lab) -> None:
    """SIGTERM: no new clients, the running stream goes on, and the agent leaves when it has ended."""
    with Kept() as service:
        server, agent = lab.pair(echo=service.target)
        with connect(server.client_port("plc-7", "echo")) as client:
            say(client, b"before")
            agent.ask_to_end()
            server.wait_event("link-down")
            say(client, b"after")
            client.shutdown(socket.SHUT_WR)
            assert end_of(client) == "end of file"
        assert agent.wait() == 0
        service.record.wait("end", "end of file")
