"""The way out through an HTTP proxy, and PROXY headers at both ends, with real daemons and haproxy."""

import contextlib
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.sockets.ends import End, said
from revtunnel.sockets.stages import read_some
from revtunnel.sockets.ways.http_proxy import ProxyError, open_way
from revtunnel.sockets.ways.proxy_choice import ProxyChoice, parse_proxy
from revtunnel.sockets.ways.proxy_header import VERSIONS, ProxyHeader, decode_header
from tests.support.daemons import Agent, Lab, Server
from tests.support.epoll import Loop
from tests.support.haproxy import INSTALLED, Haproxy
from tests.support.http_proxies import ANSWERS, REALM, HttpProxy
from tests.support.services import Banner, Echo, Service
from tests.support.throwaway_tls import Issuer
from tests.support.traffic import connect, read_exactly

pytestmark = pytest.mark.slow
needs_haproxy = pytest.mark.skipif(not INSTALLED, reason="haproxy is not installed")


def ask(sock: socket.socket, data: bytes) -> bytes:
    """What a service that echoes says to it."""
    sock.sendall(data)
    return read_exactly(sock, len(data))


# ---- the step by itself


def way(loop: Loop, proxy: HttpProxy, service: Service, seconds: float = 10.0) -> "Deferred[End]":
    """A connection to a service by a proxy."""
    return open_way(loop.reactor, ProxyChoice(parse_proxy(proxy.url)), *service.address, seconds)


@pytest.mark.parametrize("manner", ["connects", "splits", "waits"])
def test_no_byte_of_the_server_is_lost(loop: Loop, manner: str) -> None:
    """Whether its first bytes come with the proxy's answer or behind it, whatever the cuts."""
    with Banner() as service, HttpProxy(manner) as proxy:
        end = loop.wait(way(loop, proxy, service))
        assert end.peer == service.target
        heard = b""
        while len(heard) < len(service.text):
            heard += loop.wait(Deferred.fromCoroutine(read_some(loop.reactor, end)))
        assert heard == service.text
        end.abort()
        assert proxy.record.count("CONNECT", service.target) == 1


@pytest.mark.parametrize("manner", sorted(ANSWERS))
def test_a_proxy_that_does_not_connect(loop: Loop, manner: str) -> None:
    """One sentence that names it."""
    with Echo() as service, HttpProxy(manner) as proxy:
        with pytest.raises(ProxyError, match=f"proxy {proxy.url}: "):
            loop.wait(way(loop, proxy, service))
        assert service.accepted == 0


def test_a_silent_proxy_has_the_callers_time(loop: Loop) -> None:
    """And no more; its address is in the words."""
    with Echo() as service, HttpProxy("silent") as proxy:
        with pytest.raises(ProxyError) as caught:
            loop.wait(way(loop, proxy, service, 0.2))
        assert said(caught.value) == f"proxy {proxy.url}: did not answer in 0.2 s"
        proxy.record.wait("ended", 1)


def test_a_proxy_that_is_not_there(loop: Loop) -> None:
    """It is the proxy that refused, not the server."""
    with Echo() as service:
        with HttpProxy() as proxy:
            pass
        with pytest.raises(ProxyError, match=f"proxy {proxy.url}: .*refused"):
            loop.wait(way(loop, proxy, service))


# ---- an agent's way out

SECRET = "me:s3cret"


def by_proxy(lab: Lab, server: Server, echo: Echo, proxy: HttpProxy, **keys: object) -> Agent:
    """An agent whose settings name a proxy."""
    settings = {"agent": {"proxy": proxy.url, "retry_first": "0.1 s", "retry_most": "1 s", **keys}}
    return lab.agent(server, offers={"echo": echo.target}, settings=settings).start()


def works(server: Server) -> None:
    """A client reaches the service."""
    with connect(server.client_port("plc-7", "echo")) as client:
        assert ask(client, b"hello") == b"hello"


@pytest.mark.parametrize("manner", ["connects", "splits"])
def test_an_agent_goes_by_its_proxy(lab: Lab, tmp_path: Path, manner: str) -> None:
    """Also to a server of this machine, since the settings name it; its password comes from a file."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    with Echo() as echo, HttpProxy(manner, credentials=SECRET) as proxy:
        server = lab.server().start()
        agent = by_proxy(lab, server, echo, proxy, proxy_credentials=secret)
        works(server)
        assert proxy.record.count("CONNECT", f"127.0.0.1:{server.port}") >= 1
        assert proxy.record.count("refused") == 0
        assert agent.wait_event("link-up")["peer"] == f"127.0.0.1:{server.port}"
        assert "s3cret" not in agent.log_path.read_text()


def test_an_agent_says_what_its_proxy_wants_and_takes_it_with_a_reload(lab: Lab, tmp_path: Path) -> None:
    """407: the words name proxy and realm; the file that is then set counts from the next try on."""
    with Echo() as echo, HttpProxy(credentials=SECRET) as proxy:
        server = lab.server().start()
        agent = by_proxy(lab, server, echo, proxy)
        agent.wait_until(
            lambda: any(
                f'proxy {proxy.url}: wants a user and a password (Basic "{REALM}")'
                in line["detail"]
                in line["detail"]
                for line in agent.events("state", state="away")
            ),
            "the proxy's wish in the log",
        )
        secret = tmp_path / "secret"
        secret.write_text(SECRET)
        secret.chmod(0o600)
        agent.write(agent={"proxy_credentials": secret})
        agent.signal(signal.SIGHUP)
        works(server)
        assert agent.wait_event("settings-reloaded")["changed"] == [
            "[agent] proxy",
            "[agent] proxy_credentials",
        ]
        agent.signal(signal.SIGHUP)
        assert agent.wait_event("settings-reloaded", 2)["changed"] == []


def test_the_environments_proxy_is_not_for_servers_of_this_machine(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are reached directly."""
    with Echo() as echo, HttpProxy("forbids") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        server, _ = lab.pair(echo=echo.target)
        works(server)
        assert proxy.accepted == 0


def test_the_environments_proxy_knows_a_server_that_the_agent_does_not(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy alone looks its name up; a password may stand in the variable, and is not logged."""
    with Echo() as echo:
        server = lab.server().start()
        hosts = {"gate.test": ("127.0.0.1", server.port)}
        with HttpProxy(hosts=hosts, credentials=SECRET) as proxy:
            monkeypatch.setenv("https_proxy", f"http://{SECRET}@{proxy.target}")
            monkeypatch.setenv("no_proxy", "other.test, 10.0.0.0/8")
            plain = {"agent": {"tls": "no", "allow_plaintext": "yes"}}
            offers = {"echo": echo.target}
            agent = lab.agent(server, servers=["gate.test:2065"], offers=offers, settings=plain).start()
            works(server)
            assert proxy.record.count("CONNECT", "gate.test:2065") >= 1
            assert agent.wait_event("link-up")["peer"] == "gate.test:2065"
            assert "s3cret" not in agent.log_path.read_text()


def certified(issuer: Issuer) -> tuple[dict[str, object], dict[str, object]]:
    """The settings of a listener that is gate.test, and of an agent that is plc-7; each checks the other."""
    server, device = issuer.server("gate.test"), issuer.device("plc-7")
    of_server = {
        "tls": "yes",
        "certificate": server.certificate_file,
        "certificate_key": server.key_file,
        "authority": issuer.file,
    }
    of_agent = {
        "certificate": device.certificate_file,
        "certificate_key": device.key_file,
        "authority": issuer.file,
    }
    return of_server, of_agent


def test_tls_is_spoken_with_the_server_and_not_with_the_proxy(lab: Lab, tmp_path: Path) -> None:
    """The certificate must name the server, whatever the proxy is called; data sockets go the same way."""
    of_server, of_agent = certified(Issuer(tmp_path))
    with Echo() as echo:
        server = lab.server({"listener main": of_server}).start()
        with HttpProxy(hosts=dict.fromkeys(("gate.test", "other.test"), ("127.0.0.1", server.port))) as proxy:
            for name in ("other.test", "gate.test"):
                settings = {"agent": {"proxy": proxy.url, **of_agent}}
                offers = {"echo": echo.target}
                agent = lab.agent(
                    server, servers=[f"{name}:2065"], offers=offers, settings=settings, name=name
                ).start()
                if name == "other.test":
                    away = agent.wait_event("state", state="away")
                    assert "certificate" in away["detail"] and "other.test" in away["detail"]
                    agent.stop()
            works(server)
            assert server.wait_link("plc-7")["tls"].startswith("TLSv1.3")
            assert proxy.record.count("CONNECT", "gate.test:2065") >= 1


# ---- PROXY headers


class Headed(Service):
    """Reads a header, keeps it in ``headers`` and echoes what follows."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[ProxyHeader] = []

    def serve(self, sock: socket.socket, number: int) -> None:
        """Read the header byte by byte, then echo."""
        data = b""
        while (header := decode_header(data, VERSIONS["any"], 4096)) is None:
            data += read_exactly(sock, 1)
        self.headers.append(header)
        self.record.add("header", number)
        while more := sock.recv(65536):
            sock.sendall(more)


@contextlib.contextmanager
def client_from(source: str, port: int) -> Iterator[socket.socket]:
    """A client with an address of its own."""
    with socket.create_connection(("127.0.0.1", port), 10, (source, 0)) as client:
        yield client


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_service_knows_the_client_of_its_channel(lab: Lab, version: str) -> None:
    """With what is shipped: the client's own address, and the port that it dialled, before its first byte."""
    with Headed() as service:
        settings = {"agent": {"proxy_protocol": f"web={version}"}}
        server, _ = lab.pair(agent_settings=settings, web=service.target)
        port = server.client_port("plc-7", "web")
        for source in ("127.0.0.1", "127.0.0.9"):
            with client_from(source, port) as client:
                assert ask(client, b"hello") == b"hello"
                origin = service.headers[-1].origin
                assert origin == (*client.getsockname(), "127.0.0.1", port)


BALANCED = {"proxy_protocol": "any", "proxy_from": "127.0.0.1"}


def told(server: Server, event: str, **fields: Any) -> dict[str, Any]:
    """The newest event of the server's log."""
    return server.wait_event(event, **fields)


@needs_haproxy
@pytest.mark.parametrize(
    "option", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"]
)
def test_clients_behind_haproxy(lab: Lab, tmp_path: Path, option: str) -> None:
    """Server and service see the client's address, not haproxy's, and the port that it dialled there."""
    with Headed() as service:
        settings = {"agent": {"proxy_protocol": "web=v2"}}
        server, _ = lab.pair({"pool default": BALANCED}, settings, web=service.target)
        port = server.client_port("plc-7", "web")
        with (
            Haproxy(tmp_path, [port], option) as haproxy,
            client_from("127.0.0.9", haproxy.ports[0]) as client,
        ):
            assert ask(client, b"hello" * 1000) == b"hello" * 1000
            origin = service.headers[-1].origin
            assert origin == (*client.getsockname(), "127.0.0.1", haproxy.ports[0])
            host, number = client.getsockname()
            told(server, "channel-opened", peer=f"{host}:{number}")


@needs_haproxy
@pytest.mark.parametrize("option", ["send-proxy", "send-proxy-v2"])
def test_agents_behind_haproxy(lab: Lab, tmp_path: Path, option: str) -> None:
    """The link's peer is the agent's own address; a stranger without a header gets nothing."""
    with Echo() as echo:
        server = lab.server({"listener main": BALANCED}).start()
        with Haproxy(tmp_path, [server.port], option) as haproxy:
            servers = [f"127.0.0.1:{haproxy.ports[0]}"]
            lab.agent(server, servers=servers, offers={"echo": echo.target}).start()
            works(server)
            assert server.wait_link("plc-7")["peer"] in haproxy.clients(haproxy.ports[0])
            with contextlib.suppress(ConnectionResetError), connect(server.port) as stranger:
                stranger.sendall(b"\0\0\4\0")  # LISTEN
                assert stranger.recv(1) == b""
            refused = told(server, "link-refused", reason="proxy-header")
            assert "no PROXY protocol header" in refused["detail"]


@needs_haproxy
def test_a_header_stands_before_tls(lab: Lab, tmp_path: Path) -> None:
    """The agent's own address is the link's, and TLS is with the server: haproxy only passes it on."""
    of_server, of_agent = certified(Issuer(tmp_path))
    with Echo() as echo:
        server = lab.server({"listener main": {**of_server, **BALANCED}}).start()
        with Haproxy(tmp_path, [server.port], "send-proxy-v2") as haproxy:
            servers = [f"127.0.0.1:{haproxy.ports[0]}"]
            settings = {"agent": {**of_agent, "server_name": "gate.test"}}
            lab.agent(server, servers=servers, offers={"echo": echo.target}, settings=settings).start()
            works(server)
            up = server.wait_link("plc-7")
            assert up["tls"].startswith("TLSv1.3")
            assert up["peer"] in haproxy.clients(haproxy.ports[0])


def test_who_is_not_named_is_refused_with_or_without_a_header(lab: Lab) -> None:
    """At client ports as at agents' doors; the log names the port's device and target."""
    nobody = {"proxy_protocol": "any", "proxy_from": "127.0.0.77"}
    with Echo() as echo:
        server, _ = lab.pair({"pool default": nobody}, echo=echo.target)
        port = server.client_port("plc-7", "echo")
        for said_first in (b"", b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"):
            with contextlib.suppress(ConnectionResetError), connect(port) as client:  # even while it connects
                client.sendall(said_first)
                assert client.recv(1) == b""
        refused = told(server, "client-refused", count=2)
        assert (refused["reason"], refused["serial"], refused["target"]) == ("not-allowed", "plc-7", "echo")
        with client_from("127.0.0.77", port) as balancer:
            balancer.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nhello")
            assert read_exactly(balancer, 5) == b"hello"
        told(server, "channel-ended", peer="192.0.2.1:1")
