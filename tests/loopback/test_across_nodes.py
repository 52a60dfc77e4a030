"""What systems do for devices at another node: two nodes as processes, with an engine and without.

CCCP's devices are at the second node, its callers at the first; people are at the first, their devices at the
second.
"""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cccp_site import Caller
from tests.support.daemons import Agent, Lab, Server, Settings, laboratory
from tests.support.ports import free_ports, port_block
from tests.support.redis_server import INSTALLED, RedisServer
from tests.support.services import Kept
from tests.support.throwaway_tls import Issuer
from tests.support.traffic import connect, end_of, read_exactly, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
NAMES = ("gate-1", "gate-2")


class Pair:
    """Two nodes, which speak CCCP and let people in; an agent at the second one."""

    def __init__(self, lab: Lab, directory: Path, engine: int, target: str) -> None:
        self.nodes: dict[str, Server] = {}
        self.callers: dict[str, Caller] = {}
        self.registrations: dict[str, int] = {}
        self.links: dict[str, int] = dict(zip(NAMES, free_ports(2), strict=True))
        issuer = Issuer(directory)
        doors = dict(zip(NAMES, free_ports(2), strict=True))
        for name in NAMES:
            api, self.registrations[name] = free_ports(2)
            self.callers[name] = Caller(api)
            issued = issuer.node(name)
            others = {"peers": ", ".join(f"{each}=127.0.0.1:{doors[each]}" for each in NAMES)}
            known = {"address": f"127.0.0.1:{doors[name]}", "engine": f"redis://127.0.0.1:{engine}/0"}
            settings: Settings = {
                "server": {"name": name, "drain": "5 s"},
                "listener main": {"address": f"127.0.0.1:{self.links[name]}"},
                "listener peers": {
                    "address": f"127.0.0.1:{doors[name]}",
                    "kind": "nodes",
                    "tls": "yes",
                    "certificate": issued.certificate_file,
                    "certificate_key": issued.key_file,
                    "authority": issuer.file,
                },
                "cluster": {"node": name, **(known if engine else others)},
                "web main": {"address": "127.0.0.1:0"},
                "cccp": {"enabled": "yes", "http": f"127.0.0.1:{api}", "busy_wait": "1 s"},
                "cccp-project main": {
                    "address": f"127.0.0.1:{self.registrations[name]}",
                    "ranges": port_block(20),
                },
            }
            self.nodes[name] = lab.server(settings, name=name)
        for node in self.nodes.values():
            node.start(wait=False)
        for node in self.nodes.values():
            node.wait_until(node.ready, "readiness")
            node.wait_event("link-up", wire="node")
        self.agent: Agent = lab.agent(
            self.nodes["gate-2"],
            "plc-7",
            offers={"echo": target},
            servers=[f"127.0.0.1:{self.links[each]}" for each in reversed(NAMES)],
        ).start()
        self.nodes["gate-2"].wait_link("plc-7")

    @contextlib.contextmanager
    def device(self, serial: str, at: str = "gate-2") -> Iterator[socket.socket]:
        """A device that registers there and is parked."""
        with connect(self.registrations[at]) as device:
            before = len(self.nodes[at].events("device-registered", serial=serial))
            device.sendall(serial.encode() + b"\rhello to nobody")
            self.nodes[at].wait_event("device-registered", before + 1, serial=serial)
            yield device


@pytest.fixture(scope="module", params=["mesh", "engine"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both, with a device whose service echoes."""
    if request.param == "engine" and not INSTALLED:
        pytest.skip("no engine is installed")
    directory = tmp_path_factory.mktemp("pair")
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(RedisServer(directory)).port if request.param == "engine" else 0
        echo = stack.enter_context(Kept())
        yield Pair(stack.enter_context(laboratory(directory)), directory, engine, echo.target)


def test_on_at_one_node_reaches_a_device_that_is_parked_at_the_other(pair: Pair) -> None:
    """The port is open at the node that was asked; status and off are answered by either."""
    first, second = (pair.callers[name] for name in NAMES)
    with pair.device("CLD-1") as device:
        status, row = first.ask("/on", serial="CLD-1", wait=5)
        assert (status, row["host"]) == (200, "127.0.0.1")
        assert first.status("CLD-1") == (True, False, 0)
        assert second.status("CLD-1") == (True, False, 0)
        with connect(row["port"]) as client:
            client.sendall(b"question")
            assert read_exactly(device, 8) == b"question"
            device.sendall(b"answer")
            assert read_exactly(client, 6) == b"answer"
            assert second.status("CLD-1") == (True, True, 14)
            assert second.ask("/off", serial="CLD-1") == (200, {})
            assert end_of(client) == "reset" and end_of(device) in ("reset", "end of file")
    assert first.status("CLD-1") is None and second.ask("/off", serial="CLD-1")[0] == 404


def test_a_client_waits_for_a_device_that_comes_to_the_other_node(pair: Pair) -> None:
    """What he said first of all is the first that it hears; his end is the end of a one-shot proxy."""
    first = pair.callers["gate-1"]
    with connect(first.on("CLD-2")) as client:
        client.sendall(b"early")
        assert first.status("CLD-2") in ((False, False, 0), (False, True, 0))
        with pair.device("CLD-2") as device:
            assert read_exactly(device, 5) == b"early"
            client.shutdown(socket.SHUT_WR)
            assert end_of(device) == "end of file"
            device.sendall(b"last words")
            device.shutdown(socket.SHUT_WR)
            assert read_exactly(client, 10) == b"last words" and end_of(client) == "end of file"
    wait_until(lambda: first.status("CLD-2") is None, "the end of the proxy")


def test_a_persistent_proxy_finds_its_device_wherever_it_comes_to(pair: Pair) -> None:
    """At the other node, at its own, and there again; each client has all that he said delivered."""
    first = pair.callers["gate-1"]
    port = first.on("CLD-3", persistent="true")
    for number, at in enumerate(("gate-2", "gate-1", "gate-2")):
        with pair.device("CLD-3", at) as device:
            wait_until(lambda: first.status("CLD-3") == (True, False, 10 * number), "it")  # noqa: B023
            with connect(port) as client:
                client.sendall(b"hello")
                assert read_exactly(device, 5) == b"hello"
                device.sendall(b"world")
                assert read_exactly(client, 5) == b"world"
                device.close()
                assert at == "gate-1" or end_of(client) == "end of file"  # there he stays
        wait_until(lambda: first.status("CLD-3") == (False, False, 10 * number + 10), "rest")  # noqa: B023
    assert first.ask("/off", serial="CLD-3") == (200, {})


def test_devices_of_other_wires_are_reached_too_and_a_missing_target_is_said(pair: Pair) -> None:
    """By the first that they offer, or by name."""
    first = pair.callers["gate-1"]
    with connect(first.on("plc-7", target="echo")) as client:
        client.sendall(b"hello")
        assert read_exactly(client, 5) == b"hello"
    wait_until(lambda: first.status("plc-7") is None, "the end of the proxy")
    assert first.ask("/on", serial="plc-7", target="console")[0] == 404
    assert first.ask("/on", serial="CLD-9", wait=1)[0] == 504
