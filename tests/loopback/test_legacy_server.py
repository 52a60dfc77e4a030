"""A ReadyAgent server that nobody changed (the model, with each of its quirks) against our agent."""

import contextlib
import hashlib
import socket
from collections.abc import Iterator

import pytest

from tests.support.daemons import Agent, Lab
from tests.support.legacy_server import LegacyServer
from tests.support.services import Echo, Hanger, Refuser, ReplyAfterEof, Service, Source, reset
from tests.support.traffic import MIB, Patterned, connect, end_of, exchange, read_exactly, wait_until

pytestmark = pytest.mark.slow

QUIRKS: dict[str, dict[str, object]] = {
    "as it is": {},
    "early DATA": {"early_data": True},
    "no echo CLOSE": {"echo_close": False},
    "split headers misparsed": {"split_header_misparse": True},
    "payloads skipped": {"skip_stray_payload": True},
    "no late data": {"late_data": False},
    "tells of wraps": {"silent_wrap": False},
    "tiny chunks": {"chunk": 64},
    "numbers near the wrap": {"next_id": 250},
}


@contextlib.contextmanager
def served(
    lab: Lab, *services: Service, agent: dict[str, object] | None = None, **quirks: object
) -> Iterator[tuple[LegacyServer, Agent]]:
    """The model, with one mapping for each service, and an agent of ours that is its device."""
    mappings = [(0, each.host, each.port) for each in services]
    with LegacyServer(mappings, **quirks) as server:  # type: ignore[arg-type]
        ours = Agent(
            lab.directory,
            "plc-7",
            [f"127.0.0.1:{server.port}"],
            {f"s{number}": each.target for number, each in enumerate(services)},
            {"agent": {"retry_first": "0.2 s"}, **(agent or {})},  # type: ignore[dict-item]
            ["--legacy"],
        )
        lab.add(ours).start()
        server.record.wait("listening")
        yield server, ours


def echoed(port: int, words: bytes) -> None:
    """One client's whole life."""
    with connect(port) as client:
        client.sendall(words)
        assert read_exactly(client, len(words)) == words


@pytest.mark.parametrize("quirk", QUIRKS)
def test_every_client_gets_its_own(lab: Lab, quirk: str) -> None:
    """In turn, round the numbers and on; then ten that stay while forty pass by, with ends and resets."""
    count = 20 if quirk == "early DATA" else 300
    with Echo() as echo, served(lab, echo, **QUIRKS[quirk]) as (server, agent):
        port = server.client_ports[0]
        for number in range(count):
            echoed(port, b"client %d" % number)
        with contextlib.ExitStack() as stack:
            staying = [stack.enter_context(connect(port)) for _ in range(10)]
            for number, client in enumerate(staying):
                client.sendall(b"%d stays" % number)
                assert read_exactly(client, 7) == b"%d stays" % number
            for number in range(40):
                passing = connect(port)
                passing.sendall(b"passing by")
                (reset if number % 2 else socket.socket.close)(passing)
            for number, client in enumerate(staying):
                client.sendall(b"%d still" % number * 50)
            for number, client in enumerate(staying):
                words = b"%d still" % number * 50
                assert read_exactly(client, len(words)) == words
        assert not agent.events("link-down") and not server.record.count("link lost")
        assert server.wire is not None and bytes(server.wire.received[:4]) == b"\0\0\4\0"


@pytest.mark.parametrize("quirk", ["as it is", "tiny chunks"])
def test_bytes_both_ways(lab: Lab, quirk: str) -> None:
    """Exact in both directions at once."""
    size = MIB if quirk == "tiny chunks" else 16 * MIB
    with Patterned() as service, served(lab, service, **QUIRKS[quirk]) as (server, _):
        for seed in range(2):
            exchange(server.client_ports[0], seed, size, size)
        assert service.taken == {0: size, 1: size} and not service.wrong


def test_two_mappings(lab: Lab) -> None:
    """Each CONNECT names its own target of the list."""
    with Source(1000, seed=1) as first, Source(2000, seed=2) as second:  # noqa: SIM117
        with served(lab, first, second) as (server, _):
            for port, service in zip(server.client_ports, (first, second), strict=True):
                with connect(port) as client:
                    data = read_exactly(client, 10_000)
                    assert hashlib.sha256(data).hexdigest() == service.digest


def test_n26_a_late_reply(lab: Lab) -> None:
    """The client's end of file is a CLOSE here; a service that answers after it is still heard whole."""
    with ReplyAfterEof(MIB) as service, served(lab, service) as (server, _):
        with connect(server.client_ports[0]) as client:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        assert answer[:32] == hashlib.sha256(b"question").digest() and len(answer) == 32 + MIB


def test_a_refused_target_and_one_that_is_not_listed(lab: Lab) -> None:
    """Both are a CLOSE: the client's connection ends at once, and the link goes on."""
    with Refuser() as nobody, Echo() as echo:
        mappings = [(0, nobody.host, nobody.port), (0, "127.0.0.1", 9), (0, echo.host, echo.port)]
        with LegacyServer(mappings) as server:
            agent = Agent(
                lab.directory,
                "plc-7",
                [f"127.0.0.1:{server.port}"],
                {"nobody": nobody.target, "echo": echo.target},
                options=["--legacy"],
            )
            lab.add(agent).start()
            server.record.wait("listening")
            for port in server.client_ports[:2]:
                with connect(port) as client:
                    assert end_of(client) == "end of file"
            assert agent.wait_event("channel-ended", reason="refused")
            assert agent.wait_event("channel-ended", reason="not-allowed")
            echoed(server.client_ports[2], b"go on")


def test_n31_a_target_that_hangs_stops_nobody(lab: Lab) -> None:
    """Unlike the real device, ours goes on while a connect waits."""
    with Hanger() as hanger, Echo() as echo, served(lab, hanger, echo) as (server, _):  # noqa: SIM117
        with connect(server.client_ports[0]):
            for number in range(20):
                echoed(server.client_ports[1], b"meanwhile %d" % number)


def test_f17_a_number_that_is_given_away(lab: Lab) -> None:
    """The server hands a running client's number to the next one without a word: the old service is reset."""
    with Echo() as echo, served(lab, echo, workers=400) as (server, _), contextlib.ExitStack() as stack:
        port = server.client_ports[0]
        clients = [stack.enter_context(connect(port)) for _ in range(257)]
        for number, client in enumerate(clients[1:]):
            words = b"%d is here" % number
            client.sendall(words)
            assert read_exactly(client, len(words)) == words
        assert end_of(clients[0]) == "end of file"
        echo.record.wait("ended", 1)


def test_a_severed_link_is_dialled_again(lab: Lab) -> None:
    """Services see a reset, not an end of file, and the agent is back by itself."""
    with Echo() as echo, served(lab, echo, one_device=False) as (server, agent):
        with connect(server.client_ports[0]) as client:
            client.sendall(b"here")
            assert read_exactly(client, 4) == b"here"
            assert server.wire is not None
            server.wire.close()
            echo.record.wait("failed", 1, "ConnectionResetError")
        agent.wait_event("link-down")
        server.record.wait("listening", count=2)
        wait_until(lambda: server.wire is not None, "link")
        echoed(server.client_ports[0], b"and back")


def test_n8_a_silent_server_is_noticed(lab: Lab) -> None:
    """Empty DATA is the question; a server that lives answers it for ever, over many keepalives."""
    fast = {"link": {"keepalive": "1 s", "answer": "2 s", "busy_keepalive": "1 s", "busy_answer": "2 s"}}
    with Echo() as echo, served(lab, echo, agent=fast) as (server, agent):
        echoed(server.client_ports[0], b"one")
        server.record.wait("frame", "DATA", 0, 0, count=3)
        echoed(server.client_ports[0], b"two")
        assert not agent.events("link-down")
