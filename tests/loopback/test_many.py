"""Many clients of one device: in turn, at once, one too many, and gone before they were there."""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from tests.support.daemons import Daemon, Lab
from tests.support.services import Echo, reset
from tests.support.traffic import connect, end_of_new, read_exactly, wait_until

pytestmark = pytest.mark.slow
SOON = {"data": {"warm_idle": "1 s"}}  # spare data sockets go as soon as nobody comes any more


def say(client: socket.socket, number: int) -> bytes:
    """Send a word that nobody else sends."""
    words = b"client %d. " % number * (1 + number % 300)
    client.sendall(words)
    return words


def hear(client: socket.socket, words: bytes) -> None:
    """The same word comes back, whole."""
    assert read_exactly(client, len(words)) == words


def arrive(port: int) -> socket.socket:
    """A client; one that the server reset before connect could tell is there, and refused, all the same."""
    try:
        return connect(port)
    except ConnectionResetError:
        refused, other = socket.socketpair()
        other.close()
        return refused


@contextlib.contextmanager
def clients(port: int, count: int) -> Iterator[list[socket.socket]]:
    """So many connections at once."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(connect(port)) for _ in range(count)]


@contextlib.contextmanager
def given_back(*daemons: Daemon) -> Iterator[None]:
    """At the end each daemon has as many descriptors as at the beginning."""
    before = [daemon.descriptors() for daemon in daemons]
    yield
    for daemon, number in zip(daemons, before, strict=True):
        wait_until(
            lambda d=daemon, n=number: d.descriptors() <= n,  # type: ignore[misc]
            f"return to {number} descriptors of {daemon.name}, {daemon.descriptors()} are open",
        )


def test_a_thousand_clients_in_turn(lab: Lab) -> None:
    """Numbers come round four times, and every client gets its own echo."""
    with Echo() as echo:
        server, agent = lab.pair(SOON, echo=echo.target)
        port = server.client_port("plc-7", "echo")
        with given_back(server, agent):
            for number in range(1000):
                with connect(port) as client:
                    hear(client, say(client, number))
        assert echo.accepted == 1000


def test_two_hundred_clients_at_once(lab: Lab) -> None:
    """Each gets its own echo, all being there at the same time, several rounds of them."""
    with Echo() as echo:
        server, agent = lab.pair(SOON, echo=echo.target)
        port = server.client_port("plc-7", "echo")
        with given_back(server, agent):
            for _ in range(3):
                with clients(port, 200) as all_of_them:
                    for _ in range(2):
                        words = [say(client, number) for number, client in enumerate(all_of_them)]
                        for client, word in zip(all_of_them, words, strict=True):
                            hear(client, word)


def test_n23_one_client_more_than_there_are_numbers(lab: Lab) -> None:
    """It waits for a number and is then reset; one that comes free in time is its own; nobody is harmed."""
    settings = {"link": {"number_wait": "2 s"}, "listener main": {"data": "link"}}
    with Echo() as echo:
        server, _ = lab.pair(settings, echo=echo.target)
        port = server.client_port("plc-7", "echo")
        with clients(port, 255) as served:
            for number, client in enumerate(served):
                hear(client, say(client, number))
            assert end_of_new(port, b"too many") == "reset"
            server.wait_event("client-refused", reason="no-channel")
            with connect(port) as lucky:
                word = say(lucky, 999)
                served[100].close()
                hear(lucky, word)
            for number, client in enumerate(served[:100]):
                hear(client, say(client, number))


def test_n23_the_limit_of_clients_per_device(lab: Lab) -> None:
    """Beyond the operator's own limit a client is reset at once, and the next one is served when one left."""
    with Echo() as echo:
        server, _ = lab.pair({"limits": {"clients_per_device": 3}}, echo=echo.target)
        port = server.client_port("plc-7", "echo")
        with clients(port, 3) as served:
            for number, client in enumerate(served):
                hear(client, say(client, number))
            assert end_of_new(port) == "reset"
            server.wait_event("client-refused", reason="too-many-clients")
            served[0].close()
            server.wait_event("channel-ended")
            with connect(port) as client:
                hear(client, say(client, 4))


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["closed", "reset"])
def test_n25_clients_that_leave_at_once(lab: Lab, leave: object) -> None:
    """After 3,000 of them the link is up, every descriptor is back, and all 255 numbers can be had."""
    with Echo() as echo:
        server, agent = lab.pair(SOON, echo=echo.target)
        port = server.client_port("plc-7", "echo")
        with given_back(server, agent):
            for _ in range(3000):
                leave(arrive(port))  # type: ignore[operator]
        assert server.control("status")["channels"] == 0
        with clients(port, 255) as all_of_them:
            words = [say(client, number) for number, client in enumerate(all_of_them)]
            for client, word in zip(all_of_them, words, strict=True):
                hear(client, word)
        assert len(server.events("link-down")) == 0


def test_n1_a_thousand_clients_and_256_descriptors(lab: Lab) -> None:
    """The server turns clients away early, keeps the link, says so in few lines, and recovers by itself."""
    with Echo() as echo:
        server = lab.server({"limits": {"clients_per_device": 1000}, **SOON})
        server.descriptors_most = 256
        server.start()
        first = lab.agent(server, offers={"echo": echo.target}).start()
        port = server.client_port("plc-7", "echo")
        before = server.descriptors()
        with contextlib.ExitStack() as stack:
            crowd = [stack.enter_context(arrive(port)) for _ in range(1000)]
            for client in crowd:
                client.setblocking(False)
            wait_until(lambda: sum(map(is_open, crowd)) <= 220, "refusals")
            served = [client for client in crowd if is_open(client)]
            assert len(served) > 100
            other = lab.agent(server, "plc-8", offers={"echo": echo.target}).start()
            server.client_port("plc-8", "echo")
            for number, client in enumerate(served[:50]):
                client.settimeout(20)
                hear(client, say(client, number))
            assert server.control("status")["devices"] == 2  # the admin socket is open
            refusals = [line for line in server.events() if line["level"] == "warn"]
            assert 1 <= len(refusals) <= 25, len(refusals)
        wait_until(lambda: server.descriptors() <= before + 5, "descriptors back")
        wait_until(lambda: not server.control("status")["clients"], "those of workers back")
        with connect(port) as client:
            hear(client, say(client, 1))
        assert first.running and other.running and len(server.events("link-down")) == 0


def is_open(client: socket.socket) -> bool:
    """Whether a non-blocking connection was not ended by the other side."""
    try:
        return bool(client.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_n2_an_agent_without_descriptors(lab: Lab) -> None:
    """A dial that finds none is a reset with its reason; the link and running channels stay."""
    with Echo() as echo:
        server = lab.server().start()
        agent = lab.agent(server, offers={"echo": echo.target})
        agent.descriptors_most = 64
        agent.start()
        port = server.client_port("plc-7", "echo")
        with connect(port) as early:
            hear(early, say(early, 1))
            with clients(port, 150):
                server.wait_event("channel-ended", reason="out-of-resources")
                hear(early, say(early, 2))
            wait_until(lambda: agent.descriptors() < 40, "descriptors back")
            with connect(port) as late:
                hear(late, say(late, 3))
        assert len(server.events("link-down")) == 0
