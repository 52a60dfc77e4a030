"""Programs that reach a device by an endpoint, beside real daemons: docs/connect.rst's example, and TLS."""

import os
import re
import socket
import ssl
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.support.connect_program import Program
from tests.support.daemons import ROOT, Lab
from tests.support.services import Service
from tests.support.throwaway_tls import Issuer, pem
from tests.support.web_people import Person

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


class Page(Service):
    """Answers one request and closes, or is cut in the middle."""

    cut = False

    def serve(self, sock: socket.socket, number: int) -> None:
        asked = b""
        while b"\r\n\r\n" not in asked:
            asked += sock.recv(1000)
        self.record.add(asked.split(b"\r\n")[0].decode(), number)
        sock.sendall(b"HTTP/1.0 200 OK\r\n\r\n<probe/>\n")
        if self.cut:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


class Secret(Service):
    """An echo in TLS."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__()
        self._context = context

    def serve(self, sock: socket.socket, number: int) -> None:
        with self._context.wrap_socket(sock, server_side=True) as secure:
            while data := secure.recv(1000):
                secure.sendall(data)
            secure.unwrap()


def written() -> str:
    """The program of the page."""
    text = (ROOT / "docs" / "connect.rst").read_text(encoding="utf-8")
    block = re.search(r"::\n\n((?:    .*\n|\n)+)", text.partition("\nPrograms\n---")[2])
    assert block is not None
    return textwrap.dedent(block[1])


def run(program: str, directory: Path) -> tuple[int, str, str]:
    """Status and outputs of a program of a person with a login."""
    kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=kept | {"XDG_CONFIG_HOME": str(directory), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return done.returncode, done.stdout, done.stderr


def log_in(lab: Lab, directory: Path, **offers: str) -> None:
    """A server with people, a device, and ana's login."""
    server, _ = lab.pair({"web main": {"address": "127.0.0.1:0"}}, **offers)
    ana = Person(server, "ana", ("plc-7", "*"))
    login = Program(directory, "login", f"http://127.0.0.1:{server.web_port}").feed(ana.token.encode())
    assert login.status() == 0, login.err.read_text()
    login.close()


def test_the_example_of_the_page(lab: Lab, tmp_path: Path) -> None:
    """It prints the page and ends; where the device cuts, it fails."""
    with Page() as page:
        log_in(lab, tmp_path, http=page.target)
        assert run(written(), tmp_path) == (0, "HTTP/1.0 200 OK\n\n<probe/>\n", "")
        page.record.wait("GET /probe HTTP/1.0")
        page.cut = True
        status, _, errors = run(written(), tmp_path)
        assert status == 1
        assert "ConnectionLost" in errors


def test_tls_over_it(lab: Lab, tmp_path: Path) -> None:
    """The device's own certificate is judged at this end."""
    issuer = Issuer(tmp_path)
    issued = issuer.server("device.invalid")
    ca = issuer.write("ca.pem", pem(issuer.certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate_file, issued.key_file)
    program = written()
    for old, new in (
        ("connectProtocol(device,", "connectProtocol(endpoints.wrapClientTLS(options, device),"),
        ('end="")', 'end=""); self.transport.loseConnection()'),
    ):
        program = program.replace(old, new)
    lines = [
        "from twisted.internet import ssl",
        f"trusted = ssl.Certificate.loadPEM(open({str(ca)!r}).read())",
        "options = ssl.optionsForClientTLS('device.invalid', ssl.trustRootFromCertificates([trusted]))",
    ]
    with Secret(context) as secret:
        log_in(lab, tmp_path, http=secret.target)
        status, out, errors = run("\n".join([*lines, program]), tmp_path)
    assert (status, out.strip()) == (0, "GET /probe HTTP/1.0"), errors
