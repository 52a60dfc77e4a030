"""Remote sessions through nginx and haproxy as they are installed, set up as docs/sessions.rst says."""

import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.loopback.test_connect import Digest, talk
from tests.support.balancers import WAYS, Way
from tests.support.connect_program import Program
from tests.support.daemons import Lab, Server
from tests.support.ports import free_ports
from tests.support.services import Echo
from tests.support.throwaway_tls import Issuer, pem
from tests.support.turns import trusting
from tests.support.web_people import Person

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

MIB = 1 << 20
PERSON = "127.0.0.9"  # where people are, to be told from the balancer


class Site:
    """A server, a device, and a balancer that people come by."""

    def __init__(self, lab: Lab, way: Way, **offers: str) -> None:
        self.way = way
        self.directory = lab.directory
        issuer = Issuer(lab.directory)
        issued = issuer.server("127.0.0.1", "localhost", "gate.example")
        certificate, key = Path(issued.certificate_file), Path(issued.key_file)
        shutil.copy(certificate, lab.directory / "gate.pem")
        shutil.copy(key, lab.directory / "gate.key")
        (lab.directory / "gate-and-key.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
        self.ca = str(issuer.write("ca.pem", pem(issuer.certificate)))
        self.context = trusting(self.ca)
        self.server: Server
        self.server, _ = lab.pair(way.settings(lab.directory), **offers)
        self.ana = Person(self.server, "ana", ("plc-7", "*"))
        (self.port,) = free_ports(1)

    def connect(self) -> socket.socket:
        """A person's connection to the balancer, TLS done."""
        sock = socket.create_connection(("127.0.0.1", self.port), 20, (PERSON, 0))
        return self.context.wrap_socket(sock, server_hostname="gate.example")

    def over(self) -> dict[str, Any]:
        """For ``Person``'s WebSockets, which do not begin another TLS in this one."""
        return {"sock": self.connect(), "port": self.port}

    def program(self, *arguments: str) -> Program:
        """The person's program."""
        return Program(self.directory, *arguments)


def ask(sock: socket.socket, path: str, host: str = "gate.example") -> tuple[int, bytes]:
    """A plain request on a connection that is kept: status and body."""
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    heard = b""
    while b"\r\n\r\n" not in heard:
        heard += (piece := sock.recv(1))
        assert piece, heard
    head = heard.lower()
    size = int(head.partition(b"content-length:")[2].split()[0])
    body = b""
    while len(body) < size:
        body += (piece := sock.recv(size - len(body)))
        assert piece
    return int(heard.split()[1]), body


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def site(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Site]:
    """A place for each of the page's ways that this machine has."""
    way: Way = request.param
    if way.missing:
        pytest.skip(f"no {way.program} here")
    with Echo() as echo, Digest() as digest:
        site = Site(lab, way, echo=echo.target, digest=digest.target)
        with way.run(lab.directory, site.port, site.server.web_port):
            yield site


def test_pages_and_web_sockets(site: Site) -> None:
    """Again and again, so that what a balancer keeps for reuse is tried too; for whom it is, is known."""
    server, ana = site.server, site.ana
    for _ in range(3):
        with site.ana.control(**site.over()) as control:
            session, nonce = control.start("echo")
            with ana.raw(session, "echo", nonce, **site.over()) as web:
                sent, got = os.urandom(MIB), b""
                for at in range(0, MIB, 65536):
                    web.send(sent[at : at + 65536])
                while len(got) < MIB:
                    piece = web.recv(timeout=20)
                    assert isinstance(piece, bytes)
                    got += piece
                assert got == sent
            control.ask("end", session=session)
        with site.connect() as sock:
            assert ask(sock, "/healthz") == (200, b'{"state":"ready"}')
    started = server.events("session-started")
    assert [each["peer"].rpartition(":")[0] for each in started] == [PERSON] * 3
    assert {each["peer"].rpartition(":")[0] for each in server.events("channel-opened")} == {PERSON}


def test_a_web_socket_on_a_connection_that_had_answers(site: Site) -> None:
    """A balancer keeps the client's connection over several requests; ours is another one for each."""
    if site.way.tls_at_server:
        pytest.skip("its connections are the client's own: one answer each")
    sock = site.connect()
    for _ in range(3):
        assert ask(sock, "/healthz") == (200, b'{"state":"ready"}')
        assert ask(sock, "/control")[0] == 426
        assert ask(sock, "/healthz", "evil.example")[0] in (421, 503)
    with site.ana.control(sock=sock, port=site.port) as control:
        assert control.hello["user"] == "ana"


def test_the_persons_program(site: Site) -> None:
    """Login, local ports, many connections in turn, both ends of file, standard streams."""
    url = f"https://localhost:{site.port}"
    login = site.program("login", url, "--ca", site.ca).feed(site.ana.token.encode())
    assert login.status() == 0, login.err.read_text()
    run = site.program("--json", "plc-7/echo", "plc-7/digest")
    try:
        ports = {name: run.event("listening", service=name)["port"] for name in ("echo", "digest")}
        data = os.urandom(4 * MIB)
        wanted = hashlib.sha256(data).hexdigest().encode()
        assert talk(ports["digest"], data) == wanted
        assert talk(ports["echo"], data) == data
        for number in range(50):
            assert talk(ports["echo"], b"%d" % number) == b"%d" % number
        assert run.interrupt().status() == 0, run.err.read_text()
    finally:
        run.close()
    run = site.program("-W", "plc-7/digest").feed(data)
    try:
        assert run.status() == 0, run.err.read_text()
        assert run.out.read_bytes() == wanted
    finally:
        run.close()
