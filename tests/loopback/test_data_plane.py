"""Real daemons with either data plane: the same bytes, listings, ends; and which one really runs."""

from pathlib import Path

import pytest

from revtunnel.sockets.plane_settings import find_pump
from tests.loopback.test_workers import children
from tests.support.daemons import Agent, Daemon, Lab, Server
from tests.support.services import Kept
from tests.support.traffic import MIB, Patterned, connect, end_of, exchange, in_thread, read_exactly

pytestmark = pytest.mark.slow


@pytest.fixture(params=["python", "native"])
def plane(request: pytest.FixtureRequest) -> str:
    """Either, where it was built."""
    if request.param == "native" and find_pump() is None:
        pytest.skip("revtunnel._pump was not built")
    return str(request.param)


def threads(daemon: Daemon) -> set[str]:
    """Their names, those of its workers with them."""
    tasks = [Path(f"/proc/{pid}/task") for pid in (daemon.pid, *children(daemon.pid))]
    return {each.read_text().strip() for task in tasks for each in task.glob("*/comm")}


def pair(lab: Lab, plane: str, **offers: str) -> tuple[Server, Agent]:
    """A server and an agent that both have it."""
    told = {"data_plane": plane}
    return lab.pair({"server": told}, {"agent": told}, **offers)


def test_streams_are_exact_and_so_are_counts(lab: Lab, plane: str) -> None:
    """Short ones, and those that are handed over; afterwards nothing is held."""
    sizes = [(0, 0), (1, 65537), (MIB, 5 * MIB), (6 * MIB, 6 * MIB)]
    with Patterned() as service:
        server, agent = pair(lab, plane, it=service.target)
        assert server.control("status")["data_plane"] == plane
        server.wait_event("state", state="data-plane", detail=plane)
        agent.wait_event("state", state="data-plane", detail=plane)
        port = server.client_port("plc-7", "it")
        running = [in_thread(exchange, port, seed, *both) for seed, both in enumerate(sizes)]
        for thread in running:
            thread.join(60)
            assert thread.problem is None, thread.problem
        server.wait_until(lambda: server.control("status")["channels"] == 0, "the end of all channels")
        assert service.wrong == []
        (device,) = server.control("devices")["devices"]
        assert device["bytes_to_device"] == sum(20 + to_device for to_device, _ in sizes)
        assert device["bytes_to_client"] == sum(to_client for _, to_client in sizes)
        for daemon in (server, agent):
            assert ("revtunnel-pump" in threads(daemon)) is (plane == "native")


def test_operators_see_and_end_what_was_handed_over(lab: Lab, plane: str) -> None:
    """Bytes so far in the listing; a stream that is closed is a reset for both; killed, too."""
    with Kept() as service:
        server, agent = pair(lab, plane, echo=service.target)
        port = server.client_port("plc-7", "echo")
        with connect(port) as one, connect(port) as other:
            for client in (one, other):
                for _ in range(20):
                    client.sendall(b"question")
                    assert read_exactly(client, 8) == b"question"
            assert ("revtunnel-pump" in threads(server)) is (plane == "native")
            rows = server.control("channels")["channels"]
            assert [(row["bytes_to_device"], row["bytes_to_client"]) for row in rows] == [(160, 160)] * 2
            server.control("close", "plc-7", str(min(int(row["channel"]) for row in rows)))
            assert end_of(one) == "reset"
            service.record.wait("end", "reset")
            other.sendall(b"still here")
            assert read_exactly(other, 10) == b"still here"
            agent.kill()
            assert end_of(other) == "reset"
            service.record.wait("end", "reset", count=2)
