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
from tests.support.connect_program import Program
from tests.support.daemons import Agent, Lab, Server, Settings, laboratory
from tests.support.emo_original import OriginalClient
from tests.support.mtconnect import MtConnect
from tests.support.ports import free_ports, port_block
from tests.support.redis_server import INSTALLED, RedisServer
from tests.support.services import Kept
from tests.support.throwaway_tls import Issuer
from tests.support.traffic import connect, end_of, read_exactly, wait_until
from tests.support.web_people import Person, code_of

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
        self.emo, self.mill = free_ports(2)
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
            if name == "gate-2":
                settings["listener emo"] = {"address": f"127.0.0.1:{self.emo}", "kind": "emo"}  # type: ignore[index]
                settings["reservations"] = {"mill-1/emo": self.mill}  # type: ignore[index]
            self.nodes[name] = lab.server(settings, name=name)
        for node in self.nodes.values():
            node.start(wait=False)
        for node in self.nodes.values():
            node.wait_until(node.ready, "readiness", 60.0)
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


def test_a_machine_of_emo_is_reached_through_the_other_node(pair: Pair) -> None:
    """Its command socket and its data sockets are at its node; the client is not."""
    with MtConnect() as machine, OriginalClient(("127.0.0.1", pair.emo), pair.mill, machine.address):
        pair.nodes["gate-2"].client_port("mill-1", "emo")
        for port in (pair.callers["gate-1"].on("mill-1"), pair.mill):
            with connect(port) as client:
                client.settimeout(8.0)
                client.sendall(b"GET /probe HTTP/1.1\r\nHost: a machine of the show\r\n\r\n")
                assert b"200 OK" in client.recv(4096), port


@pytest.fixture(scope="module")
def ana(pair: Pair) -> Person:
    """Known at the first node, with a grant of what is at the second."""
    return Person(pair.nodes["gate-1"], "ana", ("plc-7", "*"), ("CLD-5", "*"))


def test_a_person_at_one_node_has_a_session_to_a_device_at_the_other(pair: Pair, ana: Person) -> None:
    """She sees it, its site is asked by its own node, and her address is known there; an end is an end."""
    first, second = pair.nodes.values()
    states = {row["node"]: (row["state"], row["load"] is None) for row in second.control("nodes")["nodes"]}
    assert states == dict.fromkeys(NAMES, ("up", False))
    with ana.control() as control:
        services = control.ask("services")["services"]
        assert [(row["device"], row["service"], row["online"]) for row in services] == [
            ("plc-7", "echo", True)
        ]
        assert control.ask("services", device="plc-7")["services"] == services
        session, nonce = control.start("echo")
        (given,) = pair.agent.events("session-consent", session=session)
        assert (given["user"], given["answer"]) == ("ana", "yes")
        with ana.raw(session, "echo", nonce) as web:
            web.send(b"hello")
            assert web.recv(timeout=20) == b"hello"
            (row,) = second.control("channels", "plc-7")["channels"]
            assert row["client"] == "{}:{}".format(*web.socket.getsockname())
            (mine,) = first.control("sessions", "plc-7")["sessions"]
            assert (mine["user"], mine["kind"], mine["bytes"]) == ("ana", "remote", 10)
            control.ask("end", session=session)
            assert code_of(web) == (4009, "owner")
        second.control("mute", "plc-7", "--why", "works are done")
        refused = control.answer("start", device="plc-7", services=["echo"])["error"]
        assert refused["word"] == "denied"
        second.control("unmute", "plc-7")


def test_a_session_ends_where_the_device_s_node_takes_it_back(pair: Pair, ana: Person) -> None:
    """A device that is muted at its node, and a session that nobody there has heard of."""
    first, second = pair.nodes.values()
    with ana.control() as control:
        session, nonce = control.start("echo")
        with ana.raw(session, "echo", nonce) as web:
            web.send(b"hello")
            assert web.recv(timeout=20) == b"hello"
            second.control("mute", "plc-7")
            assert code_of(web)[1] == "revoked"
        first.wait_event("session-ended", session=session, reason="revoked")
        second.control("unmute", "plc-7")


def test_the_person_s_program_reaches_a_device_at_the_other_node(
    pair: Pair, ana: Person, tmp_path: Path
) -> None:
    """revtunnel-connect with one that registered by CCCP, through its node and another."""
    with pair.device("CLD-5") as device:
        place = f"http://127.0.0.1:{pair.nodes['gate-1'].web_port}"
        login = Program(tmp_path, "login", place).feed(ana.token.encode() + b"\n")
        assert login.status() == 0, login.err.read_text()
        program = Program(tmp_path, "--json", "CLD-5/device")
        with contextlib.closing(program), connect(program.event("listening")["port"]) as client:
            client.sendall(b"question")
            assert read_exactly(device, 8) == b"question"
            device.sendall(b"answer")
            device.shutdown(socket.SHUT_WR)
            assert read_exactly(client, 6) == b"answer" and end_of(client) == "end of file"


def test_a_session_outlives_the_node_of_its_device_and_not_its_own(pair: Pair, ana: Person) -> None:
    """Its agent goes to the other node, and the session with it; a node that ends says so."""
    first, second = pair.nodes.values()
    with ana.control() as control:
        session, nonce = control.start("echo")
        with ana.raw(session, "echo", nonce) as web:
            web.send(b"hello")
            assert web.recv(timeout=20) == b"hello"
            second.kill()
            assert code_of(web)[0] != 1000
        first.wait_link("plc-7")
        nonce = control.ask("nonce", session=session)["nonce"]
        with ana.raw(session, "echo", nonce) as web:
            web.send(b"again")
            assert web.recv(timeout=20) == b"again"
            first.ask_to_end()
            assert code_of(web)[1] == "stopping"
    assert first.wait() == 0
