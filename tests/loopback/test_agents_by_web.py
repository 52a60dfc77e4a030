"""Agents over WebSocket between real daemons: exact bytes and ends, HTTP proxies, cuts, wrong places."""

import contextlib
import hashlib
import os
import signal
import socket
import time
from collections.abc import Callable

import pytest

from revtunnel.link.keys import new_key, parse_key, verifier_of
from revtunnel.state.ledger import FILE_NAME, SqliteLedger
from tests.support.daemons import Agent, Lab, Server
from tests.support.http_proxies import HttpProxy
from tests.support.ports import free_ports
from tests.support.services import Echo, HalfCloseFirst, Kept, ReplyAfterEof, Resetter, Service, digest_of
from tests.support.throwaway_tls import Issuer
from tests.support.traffic import (
    MIB,
    Patterned,
    connect,
    end_of,
    exchange,
    in_thread,
    leave_with_reset,
    read_exactly,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SOON = {"retry_first": "0.1 s", "retry_most": "1 s"}


class Site:
    """A server whose web listener lets agents in, TLS of our own authority, and a device with its key."""

    def __init__(self, lab: Lab, web: dict[str, object] | None = None, **server: object) -> None:
        self.lab = lab
        self.authority = Issuer(lab.directory)
        issued = self.authority.server("127.0.0.1")
        tls = {"tls": "yes", "certificate": issued.certificate_file, "certificate_key": issued.key_file}
        listener = {"address": f"127.0.0.1:{free_ports(1)[0]}", "agents": "yes", **tls, **(web or {})}
        self.server: Server = lab.server({"web main": listener, "server": server})
        self.key = lab.directory / "plc-7.key"
        self.key.write_text(self._enrol("plc-7") + "\n")
        self.key.chmod(0o600)
        self.server.start()

    def _enrol(self, serial: str) -> str:
        key = new_key(os.urandom)
        verifier = verifier_of(parse_key(key), serial)
        state = self.server.directory / f"{self.server.name}.state"
        state.mkdir(exist_ok=True)
        ledger = SqliteLedger(str(state / FILE_NAME), time.time)
        ledger.put_key(serial, verifier.stored_key, verifier.server_key)
        ledger.close()
        return key

    @property
    def url(self) -> str:
        """Of its web listener."""
        return f"wss://127.0.0.1:{self.server.web_port}"

    def agent(self, url: str = "", keyed: bool = True, **more: object) -> Agent:
        """Started; ``more`` are settings of [agent], and services to offer under ``offers``."""
        offers = more.pop("offers", {"it": "127.0.0.1:9"})
        if keyed:
            more["key_file"] = self.key
        settings = {"agent": {**SOON, "authority": self.authority.file, **more}}
        agent: Agent = self.lab.agent(
            self.server, servers=[url or self.url], offers=offers, settings=settings
        ).start()
        return agent

    def port(self, name: str) -> int:
        """Where clients come in."""
        return self.server.client_port("plc-7", name)

    def carriers(self) -> set[str]:
        """What carries the channels that run."""
        return {row["carrier"] for row in self.server.control("channels")["channels"]}


def away(agent: Agent, words: str) -> None:
    """It says why it is not connected."""
    found: Callable[[], object] = lambda: any(  # noqa: E731
        words in line["detail"] for line in agent.events("state", state="away")
    )
    agent.wait_until(found, f"{words!r} in its log")


@pytest.mark.parametrize("data", ["link", "socket"])
def test_bytes_and_ends_are_those_of_tcp(lab: Lab, data: str) -> None:
    """A MiB each way, compared; an end of file of either side lets the other talk on; a reset is one."""
    with Patterned() as it, ReplyAfterEof(MIB) as late, HalfCloseFirst() as first, Resetter(after=4) as cuts:
        site = Site(lab, {"data": data})
        services = {"it": it, "late": late, "first": first, "cuts": cuts}
        agent = site.agent(offers={name: each.target for name, each in services.items()})
        link = site.server.wait_link("plc-7")
        assert (link["listener"], link["authenticated"], link["wire"]) == ("web main", True, "rt1")
        assert link["tls"].startswith("TLS") and agent.wait_event("link-up")["tls"].startswith("TLS")
        exchange(site.port("it"), 1, MIB, MIB)
        threads = [in_thread(exchange, site.port("it"), seed, 300_000, 300_000) for seed in range(2, 10)]
        for thread in threads:
            thread.join(60)
        with connect(site.port("late")) as client:
            for _ in range(16):
                client.sendall(bytes(65536))
            client.shutdown(socket.SHUT_WR)
            assert len(read_exactly(client, 32)) == 32
            heard = read_exactly(client, MIB)
            assert (len(heard), end_of(client)) == (MIB, "end of file")
        assert digest_of(MIB, 1) == hashlib.sha256(heard).hexdigest()
        with connect(site.port("first")) as client:
            assert read_exactly(client, 100) == b"that was all"  # and its end of file
            client.sendall(b"I talk on" * 1000)
            assert site.carriers() == {data}
        with connect(site.port("cuts")) as client:
            client.sendall(b"four")
            assert end_of(client) == "reset"
        site.server.wait_event("channel-ended", target="cuts", reason="reset-by-peer")
        first.record.wait("end of file")


def test_a_client_that_resets_resets_its_service(lab: Lab) -> None:
    """And the other way round, in the middle of a half-closed stream as well."""
    with Kept() as kept:
        site = Site(lab, {"data": "socket"})
        site.agent(offers={"kept": kept.target})
        client = connect(site.port("kept"))
        client.sendall(b"hello")
        assert read_exactly(client, 5) == b"hello"
        leave_with_reset(client)
        kept.record.wait("end", "reset")


def test_devices_says_how_it_came(lab: Lab) -> None:
    """By web; and one at the link port beside it does not."""
    with Echo() as echo:
        site = Site(lab)
        site.agent(offers={"echo": echo.target})
        lab.agent(site.server, "plc-8", offers={"echo": echo.target}).start()
        site.server.wait_link("plc-7")
        site.server.wait_link("plc-8")
        rows = {row["serial"]: row for row in site.server.control("devices")["devices"]}
        assert (rows["plc-7"]["way"], rows["plc-7"]["listener"]) == ("web", "web main")
        assert (rows["plc-8"]["way"], rows["plc-8"]["listener"]) == ("port", "main")
        assert rows["plc-7"]["authenticated"] and rows["plc-7"]["tls"]


def test_through_an_http_proxy_and_back_after_a_cut(lab: Lab) -> None:
    """Link and data sockets go by CONNECT; when the server was gone, the agent comes back."""
    with Echo() as echo, HttpProxy(credentials="me:s3cret") as proxy:
        site = Site(lab, {"data": "socket"})
        secret = site.authority.write("secret", b"me:s3cret", 0o600)
        agent = site.agent(offers={"echo": echo.target}, proxy=proxy.url, proxy_credentials=secret)
        port = site.port("echo")
        with connect(port) as client:
            client.sendall(b"hello")
            assert read_exactly(client, 5) == b"hello"
            assert proxy.record.count("CONNECT", f"127.0.0.1:{site.server.web_port}") >= 2
            web_port = site.server.web_port
            site.server.kill()
            assert end_of(client) == "reset"
        agent.wait_event("link-down")
        site.server.start()
        assert site.server.web_port == web_port
        site.server.wait_link("plc-7")
        with connect(site.port("echo")) as client:
            client.sendall(b"again")
            assert read_exactly(client, 5) == b"again"


def test_a_server_that_drains_lets_what_runs_end(lab: Lab) -> None:
    """SIGTERM: the running stream goes on to its end, and the agent is told to come back later."""
    with Echo() as echo:
        site = Site(lab, {"data": "socket"}, drain="20 s")
        agent = site.agent(offers={"echo": echo.target})
        with connect(site.port("echo")) as client:
            client.sendall(b"hello")
            assert read_exactly(client, 5) == b"hello"
            site.server.signal(signal.SIGTERM)
            site.server.wait_event("state", state="draining")
            client.sendall(b"still here")
            assert read_exactly(client, 10) == b"still here"
            client.shutdown(socket.SHUT_WR)
            assert end_of(client) == "end of file"
        assert site.server.wait() == 0
        assert agent.wait_event("link-down")["reason"] == "stopping"


def test_an_agent_that_stops_lets_what_runs_end(lab: Lab) -> None:
    """Its GOAWAY and the end of its link are in order over a WebSocket too."""
    with Echo() as echo:
        site = Site(lab, {"data": "link"})
        agent = site.agent(offers={"echo": echo.target})
        with connect(site.port("echo")) as client:
            client.sendall(b"hello")
            assert read_exactly(client, 5) == b"hello"
            agent.signal(signal.SIGTERM)
            agent.wait_event("state", state="draining")
            client.sendall(b"bye")
            assert read_exactly(client, 3) == b"bye"
            client.shutdown(socket.SHUT_WR)
            assert end_of(client) == "end of file"
        assert agent.wait() == 0
        down = site.server.wait_event("link-down", serial="plc-7")
        assert (down["reason"], down["detail"]) == ("lost", "the agent hung up")


def test_who_has_no_key_is_not_let_in(lab: Lab) -> None:
    """Keys are required unless the settings say otherwise."""
    site = Site(lab)
    away(site.agent(keyed=False), "the server asks for the device key of plc-7, and no key file is set")
    site.server.wait_event("link-not-begun", listener="web main")
    assert not site.server.events("link-up")


def test_a_listener_that_lets_no_agents_in(lab: Lab) -> None:
    """The agent's words name the path and the setting; another path is no better."""
    site = Site(lab, {"agents": "no"})
    away(
        site.agent(),
        "404 Not Found: nothing is here: no agents are let in at /link, see agents in [web NAME]",
    )


class Portal(Service):
    """Answers every request with these bytes, over TLS, and keeps the connection."""

    def __init__(self, answer: bytes) -> None:
        super().__init__()
        self.answer = answer

    def serve(self, sock: socket.socket, number: int) -> None:
        """Once."""
        with contextlib.suppress(OSError):
            sock.recv(65536)
            sock.sendall(self.answer)
            sock.recv(65536)


PAGE = b"Content-Type: text/html\r\nContent-Length: 50000\r\n\r\n<html>Log in to the guest network" + bytes(
    1000
)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            b"HTTP/1.1 200 OK\r\n" + PAGE,
            "answered with a web page: 200 OK: this is no revtunnel server",
        ),
        (
            b"HTTP/1.1 502 Bad Gateway\r\n" + PAGE,
            "answered with a web page: 502 Bad Gateway: the server behind this gateway is not there",
        ),
        (
            b"HTTP/1.0 302 Found\r\nLocation: http://portal.example/in\r\n\r\n",
            "302 Found, which leads to http://portal.example/in, as a portal does that wants a login first",
        ),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "it does not speak WebSocket: this is SSH"),
    ],
    ids=["portal", "balancer", "redirect", "ssh"],
)
def test_what_answers_in_the_servers_place(lab: Lab, answer: bytes, words: str) -> None:
    """A portal's page, a balancer's 502, a redirection, something else: in clear words, and tried again."""
    with Portal(answer) as portal:
        offers, settings = {"it": "127.0.0.1:9"}, {"agent": SOON}
        agent = lab.add(Agent(lab.directory, "plc-7", [f"ws://{portal.target}"], offers, settings)).start()
        away(agent, f"ws://{portal.target}/link: ")
        away(agent, words)
        agent.wait_event("state", 3)


def test_a_hundred_clients_at_once(lab: Lab) -> None:
    """What the server asked for is not too often, whatever one address may knock without that."""
    with Patterned() as it:
        site = Site(lab, {"data": "socket"})
        site.agent(offers={"it": it.target})
        port = site.port("it")
        threads = [in_thread(exchange, port, seed, 20_000, 20_000) for seed in range(100)]
        for thread in threads:
            thread.join(90)
        assert not site.server.events("web-refused")
