"""EMO over mutual TLS, by proxies, with bulk and with what reads nothing: whole daemons."""

import contextlib
import signal
import socket
import ssl
import threading
from pathlib import Path

import pytest

from tests.loopback.test_emo import emo_agent, emo_server, get, idle, ours
from tests.support.daemons import Agent, Lab, Server
from tests.support.emo_original import TERMINATOR, OriginalClient
from tests.support.growth import Grown
from tests.support.haproxy import INSTALLED, Haproxy
from tests.support.http_proxies import HttpProxy
from tests.support.mtconnect import MtConnect
from tests.support.ports import free_ports
from tests.support.services import BlackHole, Echo
from tests.support.throwaway_tls import Issued, Issuer
from tests.support.traffic import (
    MIB,
    Patterned,
    Reader,
    connect,
    end_of_new,
    exchange,
    in_thread,
    question,
    read_exactly,
    read_pattern,
    wait_until,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(params=["auto", "no"], ids=["modern", "emo"])
def modern(request: pytest.FixtureRequest) -> str:
    """What our two ends speak: rt1 on EMO's port, or EMO."""
    return str(request.param)


def agent_of(lab: Lab, servers: list[str], port: int, target: str, modern: str, **keys: object) -> Agent:
    """Our agent for mill-1, with these settings."""
    settings = {"agent": {"retry_first": "0.1 s", "retry_most": "1 s", **keys}}
    options = ["--emo", "--server-port", str(port), "--modern", modern]
    agent: Agent = lab.add(
        Agent(lab.directory, "mill-1", servers, {"emo": target}, settings=settings, options=options)
    )
    return agent.start()


def tls_server(lab: Lab, issuer: Issuer, port: int) -> Server:
    """A listener for mill-1 that wants certificates."""
    issued = issuer.server("127.0.0.1")
    files = {"certificate": issued.certificate_file, "certificate_key": issued.key_file}
    return emo_server(lab, {"mill-1": port}, tls="yes", authority=issuer.file, **files)


def shown(issuer: Issuer, device: Issued) -> dict[str, object]:
    """What an agent is told of certificates."""
    return {
        "authority": issuer.file,
        "certificate": device.certificate_file,
        "certificate_key": device.key_file,
    }


# ---- TLS


def test_mutual_tls_for_command_and_data_sockets(lab: Lab, modern: str) -> None:
    """Streams, half-closes and bulk; the device counts as authenticated."""
    (port,) = free_ports(1)
    issuer = Issuer(lab.directory)
    server = tls_server(lab, issuer, port)
    with Patterned() as service:
        keys = shown(issuer, issuer.device("mill-1"))
        agent_of(lab, [f"127.0.0.1:{server.port}"], port, service.target, modern, **keys)
        up = server.wait_link("mill-1")
        assert (up["tls"], up["authenticated"]) == ("TLSv1.3", True)
        assert up["wire"] == ("emo" if modern == "no" else "rt1")
        server.client_port("mill-1", "emo")
        for seed in (1, 2):
            exchange(port, seed, 8 * MIB, 8 * MIB)
        assert service.wrong == []


def test_the_certificate_of_another_device_gets_f(lab: Lab, modern: str) -> None:
    """Its port is reserved for mill-1; mill-2 is told no in the wire's own word, and never let in."""
    (port,) = free_ports(1)
    issuer = Issuer(lab.directory)
    server = tls_server(lab, issuer, port)
    other = issuer.device("mill-2")
    context = ssl.create_default_context(cafile=issuer.file)
    context.load_cert_chain(other.certificate_file, other.key_file)
    with (
        connect(server.port) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as stranger,
    ):
        stranger.sendall(b"C%06d\n" % port)
        assert read_exactly(stranger, 9) == b"F0000001\n"
    with connect(server.port) as plain, contextlib.suppress(OSError):
        plain.sendall(b"C%06d\n" % port)  # in plain there is no answer at all
        assert plain.recv(9) == b""
    settings = {"agent": {**shown(issuer, other), "retry_first": "0.1 s", "retry_most": "1 s"}}
    options = ["--emo", "--server-port", str(port), "--modern", modern]
    servers = [f"127.0.0.1:{server.port}"]
    lab.add(
        Agent(lab.directory, "mill-2", servers, {"emo": "127.0.0.1:9"}, settings=settings, options=options)
    ).start()
    refused = server.wait_event("link-refused", count=2, reason="denied")
    assert "mill-2" in refused["detail"] or "mill-1" in refused["detail"]
    assert not server.events("link-up")


# ---- proxies


def test_all_sockets_go_by_the_http_proxy(lab: Lab, modern: str) -> None:
    """One CONNECT for the command socket, one for each data socket."""
    (port,) = free_ports(1)
    with Echo() as echo, HttpProxy() as proxy:
        server = emo_server(lab, {"mill-1": port})
        servers = [f"127.0.0.1:{server.port}"]
        agent_of(lab, servers, port, echo.target, modern, proxy=proxy.url)
        server.client_port("mill-1", "emo")
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                client = stack.enter_context(connect(port))
                client.sendall(b"hello")
                assert read_exactly(client, 5) == b"hello"
            assert proxy.record.count("CONNECT", servers[0]) >= (4 if modern == "no" else 1)


@pytest.mark.skipif(not INSTALLED, reason="haproxy is not installed")
def test_the_same_peer_rule_looks_behind_haproxy(lab: Lab, tmp_path: Path) -> None:
    """PROXY headers say who machine and data socket are; another machine's data socket is refused."""
    (port,) = free_ports(1)
    balanced = {"proxy_protocol": "any", "proxy_from": "127.0.0.1"}
    server = emo_server(lab, {"mill-1": port}, **balanced)
    with MtConnect() as machine, Haproxy(tmp_path, [server.port], "send-proxy-v2") as haproxy:
        door = haproxy.ports[0]
        with OriginalClient(("127.0.0.1", door), port, machine.address, host="127.0.0.21"):
            server.client_port("mill-1", "emo")
            assert server.wait_link("mill-1")["peer"].startswith("127.0.0.21:")
            assert b"sequence" in get(port, "/current")
            with (
                socket.create_connection(("127.0.0.1", door), 10, ("127.0.0.22", 0)) as stranger,
                contextlib.suppress(ConnectionResetError),
            ):
                stranger.sendall(b"P%06d\n" % port)
                assert stranger.recv(1) == b""
            refused = server.wait_event("link-refused", reason="protocol")
            assert refused["peer"].startswith("127.0.0.22:")
            assert b"sequence" in get(port, "/current")


def test_several_machines_behind_one_address(lab: Lab) -> None:
    """Each has its port and its own bytes, also when one of them restarts and many are served at once."""
    ports = free_ports(6)
    machines = {f"mill-{number}": port for number, port in enumerate(ports, 1)}
    server = emo_server(lab, machines)
    with contextlib.ExitStack() as stack:
        agents = []
        for serial, port in machines.items():
            service = stack.enter_context(Patterned())
            agents.append(emo_agent(lab, f"127.0.0.1:{server.port}", serial, port, service.target, "no"))
            server.client_port(serial, "emo")
        running = [in_thread(exchange, port, seed, 20_000, 20_000) for seed in range(1, 16) for port in ports]
        for each in running:
            each.join(60)
        assert [each.problem for each in running] == [None] * len(running)
        agents[0].kill()
        agents[0].start()
        server.wait_link("mill-1", 2)
        server.client_port("mill-1", "emo")
        exchange(ports[0], 99, 10_000, 10_000)


# ---- what is held


def test_n4_a_client_that_stops_reading(lab: Lab, modern: str) -> None:
    """Neither end holds the 256 MiB; another stream goes on; when it reads on nothing is missing.

    The question ends with NULs, which may begin a terminator: they are passed on after a moment.
    """
    size = 256 * MIB
    with Patterned() as service, ours(lab, service.target, modern) as (server, agent, port):
        grown = Grown(server, agent)
        with connect(port) as client:
            client.sendall(question(1, 0, size))
            client.recv(1, socket.MSG_PEEK)
            exchange(port, 2, 8 * MIB, 8 * MIB)
            grown.check()
            assert read_pattern(client, Reader(1 + (1 << 31))) == size
        grown.check()


def test_n5_a_service_that_reads_nothing(lab: Lab, modern: str) -> None:
    """The client is stopped long before its 256 MiB, and its reset ends the stream at both ends."""
    with BlackHole() as hole, ours(lab, hole.target, modern) as (server, agent, port):
        grown = Grown(server, agent)
        with connect(port, patience=2.0) as client:
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < 256 * MIB:
                    sent += client.send(bytes(MIB))
            assert sent < 128 * MIB
            grown.check()
            many = agent.descriptors()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_until(lambda: idle(server), "end of the stream")
        agent.wait_until(lambda: agent.descriptors() < many, "sockets closed")


# ---- life


def test_r16_streams_outlive_the_command_socket_and_drain(lab: Lab) -> None:
    """The agent loses its command socket; the stream is listed, and the server's drain waits for it."""
    with Echo() as echo, ours(lab, echo.target, "no") as (server, agent, port), connect(port) as client:
        client.sendall(b"here")
        assert read_exactly(client, 4) == b"here"
        with connect(server.port) as second:  # a second registration is from the same address: it replaces
            agent.pause()
            second.sendall(b"C%06d\n" % port)
            server.wait_link("mill-1", 2)
            agent.resume()
            client.sendall(b"still")
            assert read_exactly(client, 5) == b"still"
            (row,) = server.control("channels")["channels"]
            assert row["serial"] == "mill-1" and row["channel"] >= 256
        server.signal(signal.SIGTERM)
        server.wait_event("state", state="draining")
        client.sendall(b"more")
        assert read_exactly(client, 4) == b"more"
        assert server.running
        client.close()
        assert server.wait() == 0


def test_settings_of_emo_are_taken_with_a_reload(lab: Lab) -> None:
    """For the command sockets that register afterwards, at the server as at the agent."""
    (port,) = free_ports(1)
    with Echo() as echo:
        server = emo_server(lab, {"mill-1": port})
        server.write(emo={"sockets": 1})
        server.signal(signal.SIGHUP)
        assert "[emo] sockets" in server.wait_event("settings-reloaded")["changed"]
        emo_agent(lab, f"127.0.0.1:{server.port}", "mill-1", port, echo.target, "no")
        server.client_port("mill-1", "emo")
        with connect(port) as one:
            one.sendall(b"one")
            assert read_exactly(one, 3) == b"one"
            assert end_of_new(port) != "still open"
        server.wait_event("client-refused", reason="no-channel")


@pytest.mark.parametrize("whose", ["ours", "original"])
def test_the_server_restarted_under_load(lab: Lab, whose: str) -> None:
    """Killed while twenty clients are served: the machine is back at its port, whoever's it is."""
    (port,) = free_ports(1)
    server = emo_server(lab, {"mill-1": port})
    with MtConnect() as machine, contextlib.ExitStack() as stack:
        if whose == "ours":
            emo_agent(lab, f"127.0.0.1:{server.port}", "mill-1", port, machine.target, "no")
        else:
            address = "127.0.0.1", server.port
            stack.enter_context(OriginalClient(address, port, machine.address, pause=1.0))
        server.client_port("mill-1", "emo")
        stop = threading.Event()
        served = [0]

        def load() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    served[0] += b"sequence" in get(port, "/current")
                stop.wait(0.01)

        loads = [in_thread(load) for _ in range(20)]
        wait_until(lambda: served[0] >= 100, "load")
        server.kill()
        server.start()
        server.client_port("mill-1", "emo")
        stop.set()
        for each in loads:
            each.join(30)
        assert b"sequence" in get(port, "/current")
        assert TERMINATOR not in get(port, "/probe")
