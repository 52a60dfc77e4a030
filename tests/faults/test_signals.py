"""SIGTERM, SIGINT, SIGHUP and SIGPIPE at work, with clients in the middle of something."""

import hashlib
import signal
import socket

import pytest

from tests.support.daemons import Lab
from tests.support.services import Echo, Source, digest_of
from tests.support.traffic import (
    MIB,
    Patterned,
    Reader,
    connect,
    end_of,
    end_of_new,
    question,
    read_exactly,
    read_pattern,
    wait_until,
)

pytestmark = pytest.mark.slow


def test_n19_sigterm_in_a_transfer(lab: Lab) -> None:
    """The listeners close, the agent is told, the transfer goes on to its last byte, exit status 0."""
    size = 128 * MIB
    with Patterned() as service:
        server, agent = lab.pair(bulk=service.target)
        port, door = server.client_port("plc-7", "bulk"), server.port
        with connect(port) as client:
            client.sendall(question(1, 0, size))
            reader = Reader(1 + (1 << 31))
            read_pattern(client, reader, 8 * MIB)
            server.signal(signal.SIGTERM)
            server.wait_event("state", state="draining")
            wait_until(lambda: end_of_new(port) == "refused", "refusal of new clients")
            assert end_of_new(door) == "refused"
            read_pattern(client, reader)
            assert reader.got == size
        assert server.wait() == 0
        assert agent.wait_event("link-down")["reason"] == "stopping"
        assert agent.running


def test_n19_sigterm_while_the_client_still_sends(lab: Lab) -> None:
    """The other direction: what the client sends after SIGTERM arrives, and its end of file too."""
    with Patterned() as service:
        server, _ = lab.pair(bulk=service.target)
        with connect(server.client_port("plc-7", "bulk")) as client:
            client.sendall(question(1, 0, 0))
            server.wait_event("channel-opened")
            server.signal(signal.SIGTERM)
            server.wait_event("state", state="draining")
            client.shutdown(socket.SHUT_WR)
            assert end_of(client) == "end of file"
        assert server.wait() == 0


def test_n19_what_does_not_end_in_time_is_reset(lab: Lab) -> None:
    """At the deadline the rest is cut, with resets and never with an end of file, and the status is 0."""
    with Echo() as echo:
        server, _ = lab.pair({"server": {"drain": "1 s"}}, it=echo.target)
        with connect(server.client_port("plc-7", "it")) as client:
            client.sendall(b"here")
            assert read_exactly(client, 4) == b"here"
            server.signal(signal.SIGTERM)
            assert end_of(client) == "reset"
        assert server.wait() == 0
        assert server.events("drain-timed-out")
        echo.record.wait("failed", 1, "ConnectionResetError")


@pytest.mark.parametrize("data", ["link", "socket"])
def test_n19_an_agent_cuts_what_outlasts_its_drain(lab: Lab, data: str) -> None:
    """Ten seconds after SIGTERM its streams are reset, and it has ended in order."""
    with Echo() as echo:
        server, agent = lab.pair({"listener main": {"data": data}}, it=echo.target)
        with connect(server.client_port("plc-7", "it")) as client:
            client.sendall(b"here")
            assert read_exactly(client, 4) == b"here"
            agent.signal(signal.SIGTERM)
            assert end_of(client) == "reset"
        assert agent.wait() == 0


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_n20_a_second_signal_aborts(lab: Lab, second: signal.Signals) -> None:
    """Clients are reset at once and the status says that it was no clean stop."""
    with Echo() as echo:
        server, agent = lab.pair(it=echo.target)
        with connect(server.client_port("plc-7", "it")) as client:
            client.sendall(b"here")
            assert read_exactly(client, 4) == b"here"
            server.signal(signal.SIGTERM)
            server.wait_event("state", state="draining")
            server.signal(second)
            assert server.wait() == 1
            assert end_of(client) == "reset"
        assert agent.wait_event("state", state="away")


def test_an_idle_server_stops_at_once(lab: Lab) -> None:
    """Nothing to wait for: status 0, and the agent tries again."""
    with Echo() as echo:
        server, agent = lab.pair(it=echo.target)
        assert server.stop() == 0
        assert agent.wait_event("state", state="away")
        server.start()
        agent.wait_event("link-up", 2)


def test_c6_sighup_with_good_and_with_broken_settings(lab: Lab) -> None:
    """Good ones hold for the next client; broken ones change nothing, and the log lists what is wrong."""
    with Echo() as echo:
        server, _ = lab.pair(it=echo.target)
        port = server.client_port("plc-7", "it")
        with connect(port) as first:
            first.sendall(b"here")
            assert read_exactly(first, 4) == b"here"
            server.write(limits={"clients_per_device": 1})
            server.signal(signal.SIGHUP)
            said = server.wait_event("settings-reloaded")
            assert said["errors"] == [] and "[limits] clients_per_device" in said["changed"]
            assert end_of_new(port) == "reset"
            good = server.config.read_text()
            server.config.write_text(good + "[limits]\nclients_per_device = many\nno_such_key = 1\n")
            server.signal(signal.SIGHUP)
            said = server.wait_event("settings-reloaded", 2)
            assert len(said["errors"]) >= 2 and said["changed"] == []
            assert end_of_new(port) == "reset"
            server.config.write_text(good.replace("clients_per_device = 1", "clients_per_device = 2"))
            server.signal(signal.SIGHUP)
            assert server.wait_event("settings-reloaded", 3)["errors"] == []
            with connect(port) as fourth:
                fourth.sendall(b"in")
                assert read_exactly(fourth, 2) == b"in"
            first.sendall(b"still")
            assert read_exactly(first, 5) == b"still"


def test_c6_sighup_at_the_agent(lab: Lab) -> None:
    """Broken settings are said and not taken; the link stays."""
    with Echo() as echo:
        server, agent = lab.pair(it=echo.target)
        good = agent.config.read_text()
        agent.config.write_text(good + "[link]\nkeepalive = soon\n")
        agent.signal(signal.SIGHUP)
        assert agent.wait_event("settings-reloaded")["errors"]
        agent.config.write_text(good)
        agent.signal(signal.SIGHUP)
        assert agent.wait_event("settings-reloaded", 2)["errors"] == []
        assert not agent.events("link-down") and not server.events("link-down")


def test_n20_a_storm_of_sighup_and_sigpipe(lab: Lab) -> None:
    """Hundreds of both in the middle of a transfer: few reloads, and every byte arrives."""
    size = 32 * MIB
    with Source(size) as service:
        server, agent = lab.pair(it=service.target)
        with connect(server.client_port("plc-7", "it")) as client:
            digest = hashlib.sha256()
            while data := client.recv(MIB):
                digest.update(data)
                for daemon in (server, agent):
                    daemon.signal(signal.SIGHUP)
                    daemon.signal(signal.SIGPIPE)
        assert digest.hexdigest() == digest_of(size)
        for daemon in (server, agent):
            daemon.wait_event("settings-reloaded")
            assert len(daemon.events("settings-reloaded")) <= 10
            assert daemon.running


def test_sigint_is_as_sigterm(lab: Lab) -> None:
    """Control-C of a server at a terminal: drained, status 0."""
    server = lab.server().start()
    server.signal(signal.SIGINT)
    assert server.wait() == 0
