"""One server in several processes: devices and clients at each, one door, one log, and a worker that dies."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from revtunnel.sockets.plane_settings import find_pump
from tests.support.daemons import Agent, Lab, Server, Settings
from tests.support.services import Kept
from tests.support.throwaway_tls import Issuer
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

HOST = "127.0.0.1"
QUICK: Settings = {"agent": {"retry_first": "0.1 s", "retry_most": "1 s"}}


def workers_of(server: Server) -> dict[int, int]:
    """The process of each worker, by its number, as the log said last."""
    told = [line["detail"].split() for line in server.events("state", state="worker")]
    return {int(words[1]): int(words[4]) for words in told if words[2:4] == ["is", "process"]}


def children(pid: int) -> list[int]:
    """Processes that a process has started, and theirs."""
    found = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*found, *(below for each in found for below in children(each))]


def begin(port: int, words: bytes) -> socket.socket:
    """A client that has been answered."""
    sock = connect(port)
    sock.sendall(words)
    assert read_exactly(sock, len(words)) == words
    return sock


def channels(server: Server) -> dict[str, dict[str, Any]]:
    """A running stream of each device."""
    return {row["serial"]: row for row in server.control("channels")["channels"]}


class Plant:
    """A server with two workers, and devices that came one after the other, so to each in turn."""

    def __init__(
        self, lab: Lab, echo: str, bulk: str = "127.0.0.1:9", absent: str = "close", **more: object
    ) -> None:
        self.lab = lab
        settings: Settings = {
            "server": {"workers": "2", "drain": "5 s"},
            "listener main": more,
            "pool default": {"absent": absent},
        }
        self.server: Server = lab.server(settings).start()
        self.offers = {"echo": echo, "bulk": bulk}
        self.agents: dict[str, Agent] = {}

    def device(self, serial: str, more: Settings = QUICK) -> Agent:
        """One more."""
        agent = self.lab.agent(self.server, serial, offers=self.offers, settings=more)
        self.agents[serial] = agent.start()
        self.server.client_port(serial, "bulk")
        return agent

    def port(self, serial: str, name: str = "echo") -> int:
        """Where its clients come in."""
        return self.server.client_port(serial, name)


def test_devices_of_both_workers_are_seen_and_reached_through_one_door(lab: Lab) -> None:
    """Streams to each, over data sockets and in plain; listings, close, kick and status know all of them."""
    with Kept() as echo, Patterned() as bulk:
        plant = Plant(lab, echo.target, bulk.target)
        server = plant.server
        assert len(workers_of(server)) == 2
        for serial in ("dev-1", "dev-2"):
            plant.device(serial)
        for number, serial in enumerate(plant.agents):
            exchange(plant.port(serial, "bulk"), number, MIB, 2 * MIB)
        clients = {serial: begin(plant.port(serial), b"hello") for serial in plant.agents}

        assert [row["serial"] for row in server.control("devices")["devices"]] == ["dev-1", "dev-2"]
        rows = channels(server)
        assert {row["bytes_to_client"] for row in rows.values()} == {5}
        assert len({row["channel"] % 3 for row in rows.values()}) == 2, "both at one worker"
        status = server.control("status")
        assert (status["links"], status["clients"], status["channels"]) == (2, 2, 2)

        server.control("close", "dev-1", str(rows["dev-1"]["channel"]))
        assert end_of(clients["dev-1"]) == "reset"
        clients["dev-2"].shutdown(socket.SHUT_WR)
        assert end_of(clients["dev-2"]) == "end of file"
        ended = server.wait_event("channel-ended", serial="dev-2", target="echo")
        assert (ended["reason"], ended["bytes_to_client"]) == ("closed", 5)

        before = plant.port("dev-2")
        server.control("kick", "dev-2")
        server.wait_link("dev-2", 2)
        assert plant.port("dev-2") == before
        begin(before, b"again").close()


def test_a_worker_killed_under_streams_ends_its_own_and_is_replaced(lab: Lab) -> None:
    """Its clients are reset, none ends in order, the other's go on; its device is back, on the same port.

    Whoever connects meanwhile waits for it.
    """
    with Kept() as echo:
        plant = Plant(lab, echo.target, absent="wait")
        server = plant.server
        for serial in ("dev-1", "dev-2"):
            plant.device(serial)
        ports = {serial: plant.port(serial) for serial in plant.agents}
        clients = {serial: [begin(port, b"x") for _ in range(100)] for serial, port in ports.items()}
        rows = channels(server)
        share = rows["dev-1"]["channel"] % 3
        assert rows["dev-2"]["channel"] % 3 != share, "both at one worker"

        os.kill(workers_of(server)[share], signal.SIGKILL)
        early = in_thread(lambda: begin(ports["dev-1"], b"meanwhile").close())
        assert {end_of(each) for each in clients["dev-1"]} == {"reset"}
        for each in clients["dev-2"]:
            each.sendall(b"y")
            assert read_exactly(each, 1) == b"y"
        server.wait_link("dev-1", 2)
        server.wait_until(lambda: len(server.events("state", state="worker")) >= 4, "a new worker")
        assert plant.port("dev-1") == ports["dev-1"]
        begin(ports["dev-1"], b"again").close()
        early.join(20)
        assert early.problem is None and not early.is_alive()
        rows = {row["serial"]: row for row in server.control("devices")["devices"]}
        assert rows["dev-1"]["channels_total"] == 102, "whoever came to the parent counts once"
        lost = server.wait_event("channel-ended", serial="dev-1", reason="link-lost")
        assert "its worker has ended" in lost["detail"]
        assert server.control("status")["counts"]["channel-ended link-lost"] == 100
        assert server.events("channel-ended", serial="dev-2") == []


@pytest.mark.long
def test_a_worker_that_hangs_is_killed_and_its_device_comes_back(lab: Lab) -> None:
    """Its streams are cut, with a reset; whoever is at the other worker, and operators, do not notice."""
    with Kept() as echo:
        plant = Plant(lab, echo.target, absent="wait")
        server = plant.server
        for serial in ("dev-1", "dev-2"):
            plant.device(serial)
        port = plant.port("dev-1")
        hung, other = begin(port, b"x"), begin(plant.port("dev-2"), b"x")
        share = channels(server)["dev-1"]["channel"] % 3
        os.kill(workers_of(server)[share], signal.SIGSTOP)
        for _ in range(25):
            other.sendall(b"y")
            assert read_exactly(other, 1) == b"y"
            assert {row["serial"] for row in server.control("devices")["devices"]} == {"dev-1", "dev-2"}
        assert end_of(hung, 60.0) == "reset"
        told = [line["detail"] for line in server.events("state", state="worker")]
        assert any("it has said nothing for 30 s; it had 1 links" in each for each in told), told
        server.wait_link("dev-1", 2)
        assert plant.port("dev-1") == port
        begin(port, b"again").close()
        other.sendall(b"z")
        assert read_exactly(other, 1) == b"z"


def test_over_tls_each_data_socket_finds_its_worker(lab: Lab) -> None:
    """Two devices behind one address: whichever worker takes a connection, its bytes reach their device."""
    issuer = Issuer(lab.directory)
    issued = issuer.server(HOST)
    files = {
        "certificate": issued.certificate_file,
        "certificate_key": issued.key_file,
        "authority": issuer.file,
    }
    with Kept() as echo, Patterned() as bulk:
        plant = Plant(lab, echo.target, bulk.target, tls="yes", data="socket", **files)
        for serial in ("dev-1", "dev-2"):
            device = issuer.device(serial)
            mine = {"certificate": device.certificate_file, "certificate_key": device.key_file}
            plant.device(serial, {"agent": {**QUICK["agent"], "authority": issuer.file, **mine}})
        for number in range(4):
            for serial in plant.agents:
                exchange(plant.port(serial, "bulk"), number, MIB, MIB)
        clients = [begin(plant.port(serial), b"hello") for serial in plant.agents for _ in range(4)]
        for client in clients:
            client.shutdown(socket.SHUT_WR)
            assert end_of(client) == "end of file"
        plant.server.wait_event("channel-ended", 8, target="echo", reason="closed")


def test_settings_reach_every_worker_and_a_drain_waits_for_all(lab: Lab) -> None:
    """A record is in force at once; a stream that runs ends in order; no process is left behind."""
    with Kept() as echo:
        plant = Plant(lab, echo.target)
        server = plant.server
        for serial in ("dev-1", "dev-2"):
            plant.device(serial)
        ports = {serial: plant.port(serial) for serial in plant.agents}
        clients = {serial: begin(port, b"hello") for serial, port in ports.items()}
        server.write(**{"device dev-1": {"clients": "192.0.2.0/24"}})
        server.signal(signal.SIGHUP)
        server.wait_event("settings-reloaded")
        assert end_of(clients["dev-1"]) == "reset"
        assert end_of_new(ports["dev-1"]) == "reset"

        below = children(server.pid)
        assert len(below) == 3
        server.signal(signal.SIGTERM)
        server.wait_event("state", state="draining")
        wait_until(lambda: end_of_new(ports["dev-2"]) == "refused", "closed port")
        clients["dev-2"].sendall(b"still here")
        assert read_exactly(clients["dev-2"], 10) == b"still here"
        clients["dev-2"].shutdown(socket.SHUT_WR)
        assert end_of(clients["dev-2"]) == "end of file"
        assert server.wait() == 0
        wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in below), "end of workers")


def test_what_a_second_signal_cuts_is_told(lab: Lab) -> None:
    """Streams of a worker end in the log, as those of one process do."""
    with Kept() as echo:
        plant = Plant(lab, echo.target)
        server = plant.server
        plant.device("dev-1")
        client = begin(plant.port("dev-1"), b"hello")
        server.signal(signal.SIGTERM)
        server.wait_event("state", state="draining")
        server.signal(signal.SIGTERM)
        assert end_of(client) == "reset"
        assert server.wait() == 1
        assert [line["reason"] for line in server.events("channel-ended")] == ["link-lost"]
        assert len(server.events("link-down")) == 1


def test_workers_move_bytes_by_the_data_plane(lab: Lab) -> None:
    """That which status names, in the process that has the stream."""
    plane = "native" if find_pump() is not None else "python"
    with Patterned() as bulk:
        plant = Plant(lab, bulk.target, bulk.target)
        plant.device("dev-1")
        exchange(plant.port("dev-1"), 1, MIB, MIB)
        assert plant.server.control("status")["data_plane"] == plane
        below = [Path(f"/proc/{pid}/task") for pid in workers_of(plant.server).values()]
        names = {each.read_text().strip() for task in below for each in task.glob("*/comm")}
        assert ("revtunnel-pump" in names) is (plane == "native")


def test_a_server_without_workers_starts_and_imports_nothing_of_them(lab: Lab) -> None:
    """One process, and no module of theirs in it."""
    server = lab.server({"server": {"workers": "1"}})
    code = (
        "import atexit, sys; from revtunnel.daemons.run import main; "
        "atexit.register(lambda: print(*sys.modules, file=open('modules', 'w'))); "
        f"main(['server', '--config', {str(server.config)!r}])"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=lab.directory, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while b'"ready"' not in process.stdout.readline():
            assert process.poll() is None
        assert children(process.pid) == []
        process.terminate()
        process.stdout.read()
        assert process.wait(20) == 0
    loaded = (lab.directory / "modules").read_text().split()
    assert "revtunnel.daemons.switchboard" in loaded
    new = ("worker", "borrowed_ports", "descriptor_pipe", "loopback_pair")
    assert [name for name in loaded if name.rpartition(".")[2].startswith(new)] == []
