"""EMO on loopback: our daemons, and the models of the original client and server against them."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.daemons import Agent, Lab, Server
from tests.support.emo_original import TERMINATOR, OriginalClient, OriginalServer
from tests.support.mtconnect import MtConnect, parts
from tests.support.ports import free_ports
from tests.support.services import Echo, ReplyAfterEof, reset
from tests.support.traffic import MIB, Patterned, connect, end_of, exchange, read_exactly, wait_until

pytestmark = pytest.mark.slow


def emo_server(lab: Lab, machines: dict[str, int], **listener: object) -> Server:
    """A server with one listener of kind emo and these ports reserved."""
    settings = {
        "listener main": {"address": "127.0.0.1:0", "kind": "emo", **listener},
        "reservations": {f"{serial}/emo": port for serial, port in machines.items()},
    }
    return lab.server(settings).start()


@pytest.fixture(params=["auto", "no"], ids=["modern", "emo"])
def modern(request: pytest.FixtureRequest) -> str:
    """What our two ends speak: rt1 on EMO's port, or EMO."""
    return str(request.param)


def emo_agent(lab: Lab, server: str, serial: str, port: int, target: str, modern: str = "auto") -> Agent:
    """Our agent as the machine's end; ``server`` is HOST:PORT."""
    options = ["--emo", "--server-port", str(port), "--modern", modern]
    agent: Agent = lab.add(Agent(lab.directory, serial, [server], {"emo": target}, options=options))
    return agent.start()


@contextlib.contextmanager
def ours(lab: Lab, target: str, modern: str) -> Iterator[tuple[Server, Agent, int]]:
    """Server and agent, both ours, and the port that stands for the machine."""
    (port,) = free_ports(1)
    server = emo_server(lab, {"mill-1": port})
    agent = emo_agent(lab, f"127.0.0.1:{server.port}", "mill-1", port, target, modern)
    server.client_port("mill-1", "emo")
    yield server, agent, port


def get(port: int, path: str) -> bytes:
    """One request of an HTTP client that ends its side, and all of the answer."""
    with connect(port) as client:
        client.sendall(b"GET %b HTTP/1.1\r\nHost: machine\r\n\r\n" % path.encode())
        client.shutdown(socket.SHUT_WR)
        return read_exactly(client, 1 << 20)


def idle(server: Server) -> bool:
    """Whether no stream runs."""
    return server.control("status")["channels"] == 0


def test_both_ends_ours_200_in_turn_and_20_at_once(lab: Lab, modern: str) -> None:
    """One data socket serves the former; the latter have one each; the port is shown as any other."""
    with MtConnect() as machine, ours(lab, machine.target, modern) as (server, agent, port):
        for number in range(200):
            assert b"sequence" in get(port, "/probe" if number % 2 else "/current")
        many = agent.descriptors()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(connect(port)) for _ in range(20)]
            for client in clients:
                client.sendall(b"GET /current HTTP/1.1\r\n\r\n")
            for client in clients:
                assert b"200 OK" in client.recv(4096)
            assert len(server.control("channels")["channels"]) == 20
            assert agent.descriptors() >= many + 20
        (row,) = server.control("ports")["ports"]
        assert (row["serial"], row["target"], row["port"]) == ("mill-1", "emo", port)
        (device,) = server.control("devices")["devices"]
        assert (device["link"], device["online"]) == ("emo" if modern == "no" else "rt1", True)


def test_bytes_are_exact_both_ways(lab: Lab, modern: str) -> None:
    """64 MiB up and down at once, several streams, mixed sizes."""
    with Patterned() as service, ours(lab, service.target, modern) as (_, _, port):
        exchange(port, 1, 32 * MIB, 32 * MIB)
        threads = [
            threading.Thread(target=exchange, args=(port, seed, seed * 100_003, seed * 70_001), daemon=True)
            for seed in range(2, 12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()


def test_half_close_and_every_byte_value(lab: Lab, modern: str) -> None:
    """A client that ends its side gets the whole reply; NULs and short messages are nothing special."""
    with (
        ReplyAfterEof() as service,
        ours(lab, service.target, modern) as (_, _, port),
        connect(port) as client,
    ):
        for size in (1, 44, 45, 256):
            client.sendall(bytes(range(256))[:size])
        client.sendall(b"\0" * 1000)
        client.shutdown(socket.SHUT_WR)
        assert len(read_exactly(client, 1 << 20)) > 0
        assert end_of(client) == "end of file"


def test_resets_either_way(lab: Lab, modern: str) -> None:
    """A client's abort reaches the service, or it would stream for ever."""
    with MtConnect() as machine, ours(lab, machine.target, modern) as (server, _, port):
        client = connect(port)
        client.sendall(b"GET /sample?interval=10 HTTP/1.1\r\n\r\n")
        assert [number for number, _ in parts(client, 3)] == [1, 2, 3]
        reset(client)
        machine.record.wait("ended")
        wait_until(lambda: idle(server), "end of the stream")


def test_a_stream_of_parts_beside_a_download(lab: Lab, modern: str) -> None:
    """Every part arrives, in order, while the same machine serves bulk."""
    with (
        MtConnect() as machine,
        ours(lab, machine.target, modern) as (_, _, port),
        connect(port) as watcher,
        connect(port) as bulk,
    ):
        watcher.sendall(b"GET /sample?interval=50 HTTP/1.1\r\n\r\n")
        bulk.sendall(b"GET /download?size=%d HTTP/1.1\r\n\r\n" % (256 * MIB))
        loaded = threading.Thread(target=drain, args=(bulk, 256 * MIB), daemon=True)
        loaded.start()
        assert [number for number, _ in parts(watcher, 60)] == list(range(1, 61))
        loaded.join(60)
        assert not loaded.is_alive()


def drain(sock: socket.socket, least: int) -> None:
    """Read so many bytes."""
    while least > 0:
        got = len(sock.recv(1 << 20))
        assert got
        least -= got


@pytest.mark.parametrize("heartbeat", ["yes", "no"])
def test_the_original_client_against_our_server(lab: Lab, heartbeat: str) -> None:
    """With PING and without; streams in turn, at once, half-closed."""
    (port,) = free_ports(1)
    server = emo_server(lab, {"mill-1": port}, heartbeat=heartbeat)
    with (
        MtConnect() as machine,
        OriginalClient(
            ("127.0.0.1", server.port), port, machine.address, heartbeat=heartbeat == "yes"
        ) as client,
    ):
        server.client_port("mill-1", "emo")
        for _ in range(20):
            assert b"sequence" in get(port, "/current")
        assert client.record.count("data socket") < 20
        with contextlib.ExitStack() as stack:
            many = [stack.enter_context(connect(port)) for _ in range(10)]
            for each in many:
                each.sendall(b"GET /probe HTTP/1.1\r\nHost: a machine of the show\r\n\r\n")
            for each in many:
                assert b"200 OK" in each.recv(4096)


def test_the_show_client_loses_the_command_after_a_ping(lab: Lab) -> None:
    """So a listener for it is told to send none; with one it would not be served."""
    (port,) = free_ports(1)
    server = emo_server(lab, {"mill-1": port}, heartbeat="yes")
    with (
        MtConnect() as machine,
        OriginalClient(("127.0.0.1", server.port), port, machine.address, heartbeat=False) as client,
    ):
        server.client_port("mill-1", "emo")
        client.record.wait("command", b"PING   \n")
        with connect(port) as lost:
            lost.sendall(b"GET /probe HTTP/1.1\r\n\r\n")
            lost.settimeout(1)
            with pytest.raises(TimeoutError):
                lost.recv(1)


def test_the_original_clients_device_refuses(lab: Lab) -> None:
    """The client sees its end; the deaf machine gets our terminator and serves the next one."""
    (port, nobody) = free_ports(2)
    server = emo_server(lab, {"mill-1": port})
    with OriginalClient(("127.0.0.1", server.port), port, ("127.0.0.1", nobody)) as client:
        server.client_port("mill-1", "emo")
        for _ in range(3):
            with connect(port) as refused:
                refused.sendall(b"GET /probe HTTP/1.1\r\n\r\n" + b" " * 100)
                assert end_of(refused) != "still open"
        assert client.record.count("device refused") == 3
        assert client.record.count("data socket") == 1


def test_a_port_that_is_not_reserved_is_refused_in_nine_bytes(lab: Lab) -> None:
    """The original client tries again, for ever; nobody else is harmed."""
    (port, other) = free_ports(2)
    server = emo_server(lab, {"mill-1": port})
    client = OriginalClient(("127.0.0.1", server.port), other, ("127.0.0.1", other), pause=0.1)
    with client:
        client.record.wait("command", b"F0000001", count=2)
    server.wait_event("link-refused", reason="denied")
    (row,) = server.control("ports-in-vain")["ports-in-vain"]
    assert (row["port"], row["address"], row["times"] >= 2) == (other, "127.0.0.1", True)
    server.control("reserve", "mill-2/emo", "--port", str(other))
    assert server.control("ports-in-vain")["ports-in-vain"] == []


def test_our_agent_against_the_original_server(lab: Lab) -> None:
    """Registered, streams in turn and at once, a device that refuses, the server's loss."""
    (port,) = free_ports(1)
    with MtConnect() as machine, OriginalServer() as server:
        agent = emo_agent(lab, f"127.0.0.1:{server.port}", "mill-1", port, machine.target)
        server.record.wait("registered", port)
        for _ in range(20):
            assert b"sequence" in get(port, "/current")
        assert server.record.count("data socket", port) < 20
        with contextlib.ExitStack() as stack:
            many = [stack.enter_context(connect(port)) for _ in range(5)]
            for each in many:
                each.sendall(b"GET /probe HTTP/1.1\r\nHost: a machine of the show\r\n\r\n")
            for each in many:
                assert b"200 OK" in each.recv(4096)
        agent.wait_event("link-up", wire="emo")


def test_the_original_servers_port_is_taken(lab: Lab) -> None:
    """F of nine bytes: our agent says so, and goes on trying."""
    (port,) = free_ports(1)
    with OriginalServer() as server, socket.create_server(("127.0.0.1", port)), Echo() as echo:
        agent = emo_agent(lab, f"127.0.0.1:{server.port}", "mill-1", port, echo.target)
        agent.wait_until(
            lambda: any("refuses port" in str(line.get("detail")) for line in agent.events("state")),
            "refusal",
        )


def test_two_machines_and_no_byte_crosses(lab: Lab) -> None:
    """The original gives B's socket to A's application when both wait."""
    ports = free_ports(2)
    machines = dict(zip(("mill-1", "mill-2"), ports, strict=True))
    server = emo_server(lab, machines)
    with Patterned() as service:
        for serial, port in machines.items():
            emo_agent(lab, f"127.0.0.1:{server.port}", serial, port, service.target)
            server.client_port(serial, "emo")
        threads = [
            threading.Thread(target=exchange, args=(port, seed, 50_000, 50_000), daemon=True)
            for seed in range(1, 20)
            for port in ports
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()


def test_the_server_restarts_under_load(lab: Lab, modern: str) -> None:
    """Streams end with resets, the agent is back at the same port."""
    with Echo() as echo, ours(lab, echo.target, modern) as (server, _, port):
        client = connect(port)
        client.sendall(b"here")
        assert read_exactly(client, 4) == b"here"
        server.kill()
        assert end_of(client) == "reset"
        server.start()
        server.client_port("mill-1", "emo")
        with connect(port) as again:
            again.sendall(b"back")
            assert read_exactly(again, 4) == b"back"


def test_the_three_bare_arguments_of_the_original(lab: Lab) -> None:
    """Server port, address, port."""
    (port,) = free_ports(1)
    server = emo_server(lab, {"mill-1": port})
    with Echo() as echo:
        host, _, local = echo.target.rpartition(":")
        options = ["--emo", str(port), host, local]
        lab.add(Agent(lab.directory, "mill-1", [f"127.0.0.1:{server.port}"], {}, options=options)).start()
        server.client_port("mill-1", "emo")
        with connect(port) as client:
            client.sendall(TERMINATOR[5:])
            assert read_exactly(client, 40) == TERMINATOR[5:]


def test_every_byte_and_the_terminator_in_modern_mode(lab: Lab) -> None:
    """What EMO's wire cannot carry, rt1 does, on the same port, to the same reservation."""
    payload = bytes(range(256)) + TERMINATOR + b"\0" * 100 + TERMINATOR[:44]
    with Echo() as echo, ours(lab, echo.target, "auto") as (server, _, port), connect(port) as client:
        client.sendall(payload)
        assert read_exactly(client, len(payload)) == payload
        assert server.wait_link("mill-1")["wire"] == "rt1"
        (row,) = server.control("ports")["ports"]
        assert (row["serial"], row["target"], row["port"]) == ("mill-1", "emo", port)


def test_an_original_server_knows_at_once_that_it_is_not_meant(lab: Lab) -> None:
    """It has its eight bytes with LISTEN; then, and after every loss, EMO is spoken at once."""
    (port,) = free_ports(1)
    with Echo() as echo, OriginalServer() as server:
        agent = emo_agent(lab, f"127.0.0.1:{server.port}", "mill-1", port, echo.target)
        server.record.wait("registered", port)
        assert server.record.count("garbage") == 1
        for times in (2, 3):
            agent.wait_event("link-up", count=times - 1, wire="emo")
            server.drop_machines()
            server.record.wait("registered", port, count=times, timeout=20)
        assert (server.record.count("garbage"), server.record.count("too little")) == (1, 0)
        agent.wait_event("link-up", count=3, wire="emo")
        assert len(agent.events("link-down")) == 2


def test_whom_the_modern_path_refuses(lab: Lab) -> None:
    """A port that is reserved for nobody: the same denial, and no EMO after it."""
    (port, other) = free_ports(2)
    server = emo_server(lab, {"mill-1": port})
    with Echo() as echo:
        agent = emo_agent(lab, f"127.0.0.1:{server.port}", "mill-1", other, echo.target)
        refused = server.wait_event("link-refused", reason="denied")
        assert f"port {other} is reserved for no device here" in refused["detail"]
        agent.wait_event("state", state="away")
        assert not server.events("link-up")


def test_a_port_that_an_operator_reserves(lab: Lab) -> None:
    """A machine has it at once and after a restart, without the settings, until it is given back."""
    server = emo_server(lab, {})
    port = server.control("reserve", "mill-1/emo")["port"]
    with Echo() as echo:
        emo_agent(lab, f"127.0.0.1:{server.port}", "mill-1", port, echo.target, "no")
        for _ in range(2):
            assert server.client_port("mill-1", "emo") == port
            with connect(port) as client:
                client.sendall(b"here")
                assert read_exactly(client, 4) == b"here"
            server.stop()
            server.start()
        assert server.control("unreserve", "mill-1/emo")["port"] == port
        assert not any(row["fixed"] for row in server.control("ports")["ports"])


def test_a_machine_that_nobody_knows_by_name(lab: Lab) -> None:
    """First come, first served, of ports that the settings set apart for that."""
    (port,) = free_ports(1)
    settings = {
        "listener main": {"kind": "emo", "first_come": port, "address": "127.0.0.1:0"},
    }
    server = lab.server(settings).start()
    with Echo() as echo:
        emo_agent(lab, f"127.0.0.1:{server.port}", "somebody", port, echo.target, "no")
        assert server.client_port(f"emo-{port}", "emo") == port
        with connect(port) as client:
            client.sendall(b"here")
            assert read_exactly(client, 4) == b"here"
