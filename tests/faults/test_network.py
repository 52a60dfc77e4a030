"""The network between server and agent fails in earnest: cut, silent in one direction, lossy.

Client, server and agent live in network namespaces (``namespaces.py``). Settings shorten the time limits.
"""

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from revtunnel.sockets.network_changes import open_netlink
from tests.faults.namespaces import CLIENT_SIDE, SERVER, Net, inside, moved, reason_against
from tests.support.daemons import Agent, Lab, Server
from tests.support.services import Echo
from tests.support.traffic import (
    MIB,
    Patterned,
    Reader,
    connect,
    end_of,
    in_thread,
    question,
    read_exactly,
    read_pattern,
    send_pattern,
    wait_until,
)

pytestmark = pytest.mark.slow

TRAFFIC = ("bytes_acked", "bytes_received", "segs_out")
FAST = {"keepalive": "1 s", "answer": "1 s", "busy_keepalive": "1 s", "busy_answer": "1 s"}


@pytest.fixture(scope="module", autouse=True)
def _namespaces_are_possible() -> None:
    if reason := reason_against("nft"):
        pytest.skip(f"no network namespaces: {reason}")


@pytest.fixture
def net() -> Iterator[Net]:
    """Three namespaces, taken away at the end."""
    with Net() as found:
        yield found


def pair(lab: Lab, net: Net, link: dict[str, object], place: str = "", **offers: str) -> tuple[Server, Agent]:
    """Server and agent, each in its namespace (the agent in ``place``), with the same limits of the link."""
    settings = {
        "listener main": {
            "address": f"{SERVER}:2065",
            "allow_without_keys": "yes",
            "allow_plaintext": "yes",
        },
        "pool default": {"bind": CLIENT_SIDE, "clients": "any"},
        "link": link,
    }
    server = lab.server(settings, prefix=net.prefix(net.server)).start()
    quick = {"retry_first": "0.2 s", "retry_most": "1 s", "connect": "2 s"}
    agent = lab.agent(
        server,
        servers=[f"{SERVER}:2065"],
        offers=offers,
        settings={"link": link, "agent": {**quick, "tls": "no", "allow_plaintext": "yes"}},
        prefix=net.prefix(place or net.agent),
    ).start()
    for name in offers:
        server.client_port("plc-7", name)
    return server, agent


def client_of(net: Net, port: int) -> socket.socket:
    """A client's connection, from its namespace."""
    found: socket.socket = inside(net.client, lambda: connect(port, CLIENT_SIDE))
    return found


def refused(net: Net, port: int) -> bool:
    """Whether a new client is refused at once."""
    try:
        client_of(net, port).close()
    except ConnectionRefusedError:
        return True
    return False


def echoed(net: Net, port: int) -> bool:
    """Whether a new client is served."""
    try:
        with client_of(net, port) as client:
            client.sendall(b"hello")
            return read_exactly(client, 5) == b"hello"
    except OSError:
        return False


def here(client: socket.socket) -> None:
    """One word there and back."""
    client.sendall(b"here")
    assert read_exactly(client, 4) == b"here"


def test_n10_five_seconds_without_a_cable(lab: Lab, net: Net) -> None:
    """A transfer both ways stands still and goes on: no link is lost, no byte is wrong, nothing is reset."""
    size = 64 * MIB
    with moved(Patterned(), net.agent) as service:
        server, agent = pair(lab, net, {}, bulk=service.target)
        with client_of(net, server.client_port("plc-7", "bulk")) as client:
            client.sendall(question(1, size, size))
            reader = Reader(1 + (1 << 31))
            read_pattern(client, reader, MIB)
            net.cut()
            sender = in_thread(send_pattern, client, 1, size)
            time.sleep(5)
            assert sender.is_alive()
            net.mend()
            read_pattern(client, reader)
            assert reader.got == size
        service.record.wait("answered", 1)
        assert service.taken == {1: size} and not service.wrong and sender.problem is None
        assert not server.events("link-down") and not agent.events("link-down")


def test_n11_longer_than_the_limits(lab: Lab, net: Net) -> None:
    """Both sides notice by themselves, clients are reset, new ones refused; then the port serves again."""
    with moved(Echo(), net.agent) as echo:
        server, agent = pair(lab, net, FAST, it=echo.target)
        port = server.client_port("plc-7", "it")
        with client_of(net, port) as client:
            here(client)
            net.cut()
            client.sendall(b"into the void")
            assert end_of(client) == "reset"
        assert server.wait_event("link-down")["reason"] == "silent"
        assert agent.wait_event("link-down")["reason"] == "silent"
        wait_until(lambda: refused(net, port), "refusal")
        echo.record.wait("failed", 1, "ConnectionResetError")
        net.mend()
        server.wait_link("plc-7", 2)
        assert server.client_port("plc-7", "it") == port
        wait_until(lambda: echoed(net, port), "service")


@pytest.mark.parametrize("way", ["to server", "to agent"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_n13_one_direction_is_dead(lab: Lab, net: Net, way: str, busy: bool) -> None:
    """Bytes arrive in one direction only: both sides find out, idle or with data under way."""
    with moved(Echo(), net.agent) as echo:
        server, agent = pair(lab, net, FAST, it=echo.target)
        port = server.client_port("plc-7", "it")
        with client_of(net, port) as client:
            here(client)
            if way == "to server":
                net.filter('iifname "to-a" drop')
            else:
                net.filter_agent('iifname "to-s" drop')
            if busy:
                client.sendall(bytes(100_000))
            server.wait_event("link-down")
            agent.wait_event("link-down")
            assert end_of(client) == "reset"
        assert "silent" in {
            server.wait_event("link-down")["reason"],
            agent.wait_event("link-down")["reason"],
        }
        wait_until(lambda: refused(net, port), "refusal")
        net.clear()
        server.wait_link("plc-7", 2)
        wait_until(lambda: echoed(net, port), "service")
        assert server.client_port("plc-7", "it") == port


def test_n12_loss(lab: Lab, net: Net) -> None:
    """Two of a hundred packets are lost in each direction: it takes its time, and every byte is right."""
    size = 8 * MIB
    with moved(Patterned(), net.agent) as service:
        server, agent = pair(lab, net, {}, bulk=service.target)
        net.filter('iifname "to-a" numgen random mod 100 < 2 drop')
        net.filter_agent('iifname "to-s" numgen random mod 100 < 2 drop')
        with client_of(net, server.client_port("plc-7", "bulk")) as client:
            client.sendall(question(1, size, size))
            sender = in_thread(send_pattern, client, 1, size)
            assert read_pattern(client, Reader(1 + (1 << 31))) == size
            sender.join(60)
        service.record.wait("answered", 1)
        assert service.taken == {1: size} and not service.wrong
        assert not server.events("link-down") and not agent.events("link-down")


def test_n9_a_router_that_forgets_all_of_its_connections(lab: Lab, net: Net) -> None:
    """Nobody is told: both sides find out, clients are reset, and the agent is back through a new mapping."""
    net.behind_nat(forgets=600)
    with moved(Echo(), net.site) as echo:
        server, agent = pair(lab, net, FAST, net.site, it=echo.target)
        port = server.client_port("plc-7", "it")
        before = server.wait_link("plc-7")["peer"]
        assert before.startswith("10.77.1.2:")
        with client_of(net, port) as client:
            here(client)
            net.forget()
            client.sendall(b"into the void")
            assert end_of(client) == "reset"
        assert server.wait_event("link-down")["reason"] == "silent"
        assert agent.wait_event("link-down")["reason"] == "silent"
        assert server.wait_link("plc-7", 2)["peer"] != before
        wait_until(lambda: echoed(net, port), "service")
        assert server.client_port("plc-7", "it") == port
        echo.record.wait("failed", 1, "ConnectionResetError")


def test_n9_a_link_is_kept_by_its_own_words(lab: Lab, net: Net) -> None:
    """Through a router that forgets who is silent: other connections as old as the link are lost by then."""
    net.behind_nat(forgets=5)
    with moved(Echo(), net.site) as echo, moved(Echo(SERVER), net.server) as outside:
        talks = {"keepalive": "1 s", "busy_keepalive": "1 s"}
        server, agent = pair(lab, net, talks, net.site, it=echo.target)
        port = server.client_port("plc-7", "it")
        with contextlib.ExitStack() as stack:
            silent = [inside(net.site, lambda: connect(outside.port, SERVER, 3.0)) for _ in range(40)]
            for each in silent:
                stack.enter_context(each)
            wait_until(lambda: not answers(silent.pop()), "lost mapping", every=1.0)
        assert echoed(net, port)
        assert not server.events("link-down") and not agent.events("link-down")


def test_n9_a_silent_link_is_kept_by_its_kernel(lab: Lab, net: Net) -> None:
    """Not a byte is said: segments without one keep the mapping, and the server counts them."""
    net.behind_nat(forgets=4)
    with moved(Echo(), net.site) as echo, moved(Echo(SERVER), net.server) as outside:
        quiet = {**FAST, "kernel_keepalive": "2 s", "hung": "1 h"}
        server, agent = pair(lab, net, quiet, net.site, it=echo.target)
        port = server.client_port("plc-7", "it")
        time.sleep(1.0)  # its first words are over
        before = traffic_of(net.site, 2065)
        silent = inside(net.site, lambda: connect(outside.port, SERVER, 1.0))
        with silent:
            wait_until(
                lambda: traffic_of(net.site, 2065)["segs_out"] >= before["segs_out"] + 3, "probes", 20.0
            )
            assert not answers(silent)
        after = traffic_of(net.site, 2065)
        assert after["bytes_acked"] - before["bytes_acked"] == 0
        assert after["bytes_received"] == before["bytes_received"]
        assert echoed(net, port)
        assert not server.events("link-down") and not agent.events("link-down")


@pytest.mark.long
def test_n9_probes_that_came_too_late_come_sooner(lab: Lab, net: Net) -> None:
    """A router that forgets sooner than the silence has grown cuts two links; then that is learned."""
    net.behind_nat(forgets=5)
    with moved(Echo(), net.site) as echo:
        quiet = {**FAST, "keepalive": "2 s", "kernel_keepalive": "8 s"}
        server, agent = pair(lab, net, quiet, net.site, it=echo.target)
        told = agent.wait_event("state", state="keepalive", patience=60.0)
        assert told["detail"] == f"{SERVER}:2065 cuts what is silent for 8 s: probed after 4 s from now on"
        assert len(agent.events("link-down")) == 2
        server.wait_link("plc-7", 3)
        time.sleep(15.0)
        assert echoed(net, server.client_port("plc-7", "it"))
        assert len(agent.events("link-down")) == 2


def traffic_of(name: str, port: int) -> dict[str, int]:
    """What the kernel has counted of the one connection to a port, in a namespace."""
    command = [*Net.prefix(name), "ss", "-tinH", "dport", "=", str(port)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = [word.partition(":") for word in shown.split()]
    return {key: int(value) for key, _, value in words if key in TRAFFIC and value.isdigit()}


def answers(connection: socket.socket) -> bool:
    """Whether an echo that was silent until now is still there."""
    try:
        connection.sendall(b"?")
        return connection.recv(1) == b"?"
    except TimeoutError:
        return False


def test_a_reset_from_the_middle(lab: Lab, net: Net) -> None:
    """A box on the way resets the link: clients are reset, the agent is back at once with the same port."""
    with moved(Echo(), net.agent) as echo:
        server, agent = pair(lab, net, FAST, it=echo.target)
        port = server.client_port("plc-7", "it")
        with client_of(net, port) as client:
            here(client)
            net.filter('iifname "to-a" meta l4proto tcp reject with tcp reset')
            client.sendall(b"poke")
            assert end_of(client) == "reset"
        agent.wait_event("link-down")
        net.clear()
        server.wait_link("plc-7", 2)
        wait_until(lambda: echoed(net, port), "service")
        assert server.client_port("plc-7", "it") == port


def test_a_changed_address_is_told(net: Net) -> None:
    """To a socket of its namespace: an address that comes, and one that goes."""
    sock: socket.socket = inside(net.agent, open_netlink)
    with sock:
        sock.settimeout(20.0)
        for change in ("add", "del"):
            argv = ["ip", "-n", net.agent, "addr", change, "10.77.9.9/24", "dev", "lo"]
            subprocess.run(argv, check=True)
            assert sock.recv(4096)
