"""A GiB each way, exact, over both kinds of link; a stalled stream hurts nobody else and fills no memory."""

import contextlib
import socket

import pytest

from tests.support.daemons import Agent, Lab, Server
from tests.support.growth import Grown
from tests.support.services import BlackHole
from tests.support.traffic import (
    MIB,
    Patterned,
    Reader,
    connect,
    end_of,
    exchange,
    in_thread,
    question,
    read_pattern,
    stands_still,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

GIB = 1024 * MIB


def legacy_pair(lab: Lab, target: str, link: dict[str, object] | None = None) -> tuple[Server, Agent, int]:
    """A legacy listener that never offers rt1, and our agent on it; the client port of ``target``."""
    listener = {
        "address": "127.0.0.1:0",
        "kind": "legacy",
        "serial": "press-4",
        "probe": "no",
        "mappings": [f"0 -> it={target}"],
    }
    server = lab.server({"listener main": listener, "link": link or {}}).start()
    agent = lab.agent(
        server, "press-4", offers={"it": target}, options=["--legacy"], settings={"link": link or {}}
    ).start()
    port = server.client_port("press-4", "it")
    assert server.wait_link("press-4")["wire"] == "legacy"
    return server, agent, port


def test_one_gib_each_way_over_rt1(lab: Lab) -> None:
    """In turn and at once, every byte compared at both ends; what passes is not kept."""
    with Patterned() as service:
        server, agent = lab.pair(bulk=service.target)
        port = server.client_port("plc-7", "bulk")
        grown = Grown(server, agent)
        exchange(port, 1, GIB, 0)
        exchange(port, 2, 0, GIB)
        exchange(port, 3, GIB, GIB)
        assert (service.taken, service.wrong) == ({1: GIB, 2: 0, 3: GIB}, [])
        grown.check()


@pytest.mark.long
def test_one_gib_each_way_over_a_legacy_link(lab: Lab) -> None:
    """The same without credit: queues and the link's own pauses bound what is held."""
    with Patterned() as service:
        server, agent, port = legacy_pair(lab, service.target)
        grown = Grown(server, agent)
        exchange(port, 1, GIB, 0)
        exchange(port, 2, 0, GIB)
        exchange(port, 3, GIB, GIB)
        assert (service.taken, service.wrong) == ({1: GIB, 2: 0, 3: GIB}, [])
        grown.check()


def test_n6_seven_streams_go_on_beside_a_stalled_one(lab: Lab) -> None:
    """Each of the seven gets every byte, both ways, while the eighth reads nothing; then that reads on."""
    size = 32 * MIB
    with Patterned() as service:
        server, _ = lab.pair(bulk=service.target)
        port = server.client_port("plc-7", "bulk")
        with connect(port) as stalled:
            stalled.sendall(question(8, 0, GIB // 8))
            stalled.recv(1, socket.MSG_PEEK)
            running = [in_thread(exchange, port, seed, size, size) for seed in range(1, 8)]
            for each in running:
                each.join(120)
            done = {seed: service.taken.get(seed) for seed in range(1, 8)}
            assert done == dict.fromkeys(range(1, 8), size) and not service.wrong
            assert [each.problem for each in running] == [None] * 7
            assert read_pattern(stalled, Reader(8 + (1 << 31))) == GIB // 8


def test_n4_a_client_that_stops_reading_a_gib(lab: Lab) -> None:
    """Server and agent hold a window each, not the GiB; when it reads on nothing is missing."""
    with Patterned() as service:
        server, agent = lab.pair(bulk=service.target)
        grown = Grown(server, agent)
        with connect(server.client_port("plc-7", "bulk")) as client:
            client.sendall(question(1, 0, GIB))
            client.recv(1, socket.MSG_PEEK)
            stands_still(service)
            grown.check()
            assert read_pattern(client, Reader(1 + (1 << 31))) == GIB
        grown.check()


def test_n5_a_service_that_reads_nothing(lab: Lab) -> None:
    """The client is stopped long before a GiB; another service of the same device goes on."""
    with BlackHole() as hole, Patterned() as service:
        server, agent = lab.pair(hole=hole.target, bulk=service.target)
        grown = Grown(server, agent)
        with connect(server.client_port("plc-7", "hole"), patience=2.0) as client:
            sent = 0
            with contextlib.suppress(TimeoutError):
                while sent < GIB:
                    sent += client.send(bytes(MIB))
            assert sent < 256 * MIB
            exchange(server.client_port("plc-7", "bulk"), 1, 16 * MIB, 16 * MIB)
            grown.check()


def test_n6_a_legacy_link_gives_up_the_client_that_blocks_it(lab: Lab) -> None:
    """Without credit the link stops for all; in the end the one that blocks is reset, and the rest go on."""
    with Patterned() as service:
        server, agent, port = legacy_pair(lab, service.target, {"legacy_stall": "2 s"})
        grown = Grown(server, agent)
        with connect(port) as stalled:
            stalled.sendall(question(8, 0, GIB))
            stalled.recv(1, socket.MSG_PEEK)
            exchange(port, 1, 8 * MIB, 8 * MIB)
            server.wait_event("link-stalled", serial="press-4")
            server.wait_event("channel-ended", reason="stalled")
            assert end_of(stalled) == "reset"
            exchange(port, 2, 8 * MIB, 8 * MIB)
        grown.check()
        assert not service.wrong
