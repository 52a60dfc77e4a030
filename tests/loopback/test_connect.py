"""The person's program beside a real server and a real device: its ways, losses, and ssh through it."""

import contextlib
import getpass
import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.connect_program import Program, until
from tests.support.daemons import Agent, Lab, Server
from tests.support.http_proxies import HttpProxy
from tests.support.services import Echo, Service, Source, pseudo_random, reset
from tests.support.throwaway_tls import Issuer, pem
from tests.support.web_people import Person

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

MIB = 1 << 20
SSHD = "/usr/sbin/sshd"


class Digest(Service):
    """Reads to the end of file, then says the hash of what came: it needs a half-close."""

    def serve(self, sock: socket.socket, number: int) -> None:
        seen = hashlib.sha256()
        while data := sock.recv(65536):
            seen.update(data)
        sock.sendall(seen.hexdigest().encode())
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)


class Deaf(Service):
    """Takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def serve(self, sock: socket.socket, number: int) -> None:
        self.record.add("deaf", number)
        self.let_go.wait(60)


class Way(Service):
    """Leads to a port of this machine, and can be cut."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._port = port
        self.far: list[socket.socket] = []

    def serve(self, sock: socket.socket, number: int) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as far:
            self.far.append(far)
            back = threading.Thread(target=self._carry, args=(far, sock))
            back.start()
            self._carry(sock, far)
            back.join()

    def cut(self) -> None:
        """RST on all of them, both ways."""
        for sock in [*self.open.values(), *self.far]:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.shutdown(socket.SHUT_RD)
                reset(sock)

    @staticmethod
    def _carry(near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(65536):
                far.sendall(data)
        with contextlib.suppress(OSError):
            far.shutdown(socket.SHUT_WR)


class Desk:
    """Ana at her machine: a server with TLS, a device, a login."""

    def __init__(self, lab: Lab, directory: Path, **offers: str) -> None:
        issuer = Issuer(directory)
        issued = issuer.server("127.0.0.1", "localhost", "gate.invalid")
        self.directory = directory
        self.runs: list[Program] = []
        settings = {
            "web main": {
                "address": "127.0.0.1:0",
                "tls": "yes",
                "certificate": issued.certificate_file,
                "certificate_key": issued.key_file,
                "hosts": "gate.invalid",
            }
        }
        self.server: Server
        self.agent: Agent
        self.server, self.agent = lab.pair(settings, **offers)
        self.ana = Person(self.server, "ana", ("plc-7", "*"))
        self.ca = str(issuer.write("ca.pem", pem(issuer.certificate)))
        self.url = f"https://localhost:{self.server.web_port}"
        self.login(self.ana)

    def login(self, person: Person, url: str = "", where: Path | None = None) -> None:
        """Keep a person's token."""
        run = self.run("login", url or self.url, "--ca", self.ca, where=where)
        run.feed(person.token.encode() + b"\n")
        assert run.status() == 0, run.err.read_text()

    def run(self, *arguments: str, where: Path | None = None, **how: Any) -> Program:
        """The program."""
        self.runs.append(Program(where or self.directory, *arguments, **how))
        return self.runs[-1]

    def ports(self, *arguments: str, **how: Any) -> tuple[Program, dict[str, int]]:
        """A session, and its local ports."""
        run = self.run("--json", *arguments, **how)
        services = [each.rpartition("/")[2] for each in arguments if each.startswith("plc-7/")]
        return run, {service: run.event("listening", service=service)["port"] for service in services}

    def audit(self, event: str) -> list[dict[str, Any]]:
        """Lines of the audit file."""
        assert self.server.control("audit", "head")["open"] >= 0
        path = self.server.directory / f"{self.server.name}.state" / "audit.jsonl"
        lines = [json.loads(line) for line in path.read_text("ascii").splitlines()]
        return [line for line in lines if line["event"] == event]


Sit = Callable[..., Desk]


@pytest.fixture
def desk(lab: Lab, tmp_path: Path) -> Iterator[Sit]:
    made: list[Desk] = []

    def one(**offers: str) -> Desk:
        made.append(Desk(lab, tmp_path, **offers))
        return made[-1]

    yield one
    for each in made:
        for run in each.runs:
            run.close()


def talk(port: int, data: bytes) -> bytes:
    """All of it, then our end of file; everything up to theirs."""
    with socket.create_connection(("127.0.0.1", port), 60) as sock:
        sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
        sender.start()
        heard = b"".join(iter(lambda: sock.recv(65536), b""))
        sender.join()
        return heard


def test_local_ports_with_one_stalled_of_eight(desk: Sit) -> None:
    """Seven get all of theirs, hashes equal, half-close kept; the end is in the audit once."""
    with Digest() as digest, Echo() as echo, Deaf() as deaf:
        ana = desk(digest=digest.target, echo=echo.target, deaf=deaf.target)
        run, ports = ana.ports("plc-7/digest", "plc-7/echo", "plc-7/deaf")
        with socket.create_connection(("127.0.0.1", ports["deaf"]), 10) as stalled:
            stalled.setblocking(False)
            deaf.record.wait("deaf")
            for _ in range(200):
                with contextlib.suppress(BlockingIOError):
                    stalled.send(bytes(MIB))
            results: dict[int, bool] = {}

            def one(number: int) -> None:
                data = os.urandom(4 * MIB)
                wanted = hashlib.sha256(data).hexdigest().encode()
                results[number] = talk(ports["digest"], data) == wanted and talk(ports["echo"], data) == data

            threads = [threading.Thread(target=one, args=(number,)) for number in range(7)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert results == dict.fromkeys(range(7), True)
            deaf.let_go.set()
        assert run.interrupt().status() == 0, run.err.read_text()
        until(lambda: ana.audit("session-closed"), "the record")
        (closed,) = ana.audit("session-closed")
        assert closed["cause"] == "owner"
        assert closed["bytes_to_device"] >= 7 * 8 * MIB


class Pages(BaseHTTPRequestHandler):
    """Of a device: each path has its own page."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = page(self.path)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def page(path: str) -> bytes:
    """Up to 32 KiB."""
    return path.encode() * (1 + sum(path.encode()) * 97 % 4096)


def get(port: int, *paths: str) -> list[bool]:
    """Whether each is right, asked for in turn on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        right = []
        for path in paths:
            connection.request("GET", path)
            right.append(connection.getresponse().read() == page(path))
        return right


class WebServer(ThreadingHTTPServer):
    """Of a device."""

    daemon_threads = True
    request_queue_size = 128


def test_fifty_http_requests_at_once_and_five_hundred_in_turn(desk: Sit) -> None:
    """Each on a connection of its own, opened on demand in one session; more of them on kept ones."""
    with WebServer(("127.0.0.1", 0), Pages) as pages:
        serving = threading.Thread(target=pages.serve_forever)
        serving.start()
        try:
            ana = desk(http=f"127.0.0.1:{pages.server_address[1]}")
            run, ports = ana.ports("plc-7/http")
            with ThreadPoolExecutor(50) as pool:
                at_once = pool.map(lambda number: get(ports["http"], f"/at-once/{number}"), range(50))
                assert [*at_once] == [[True]] * 50
                paths = [f"/kept/{number}" for number in range(20)]
                assert [*pool.map(lambda _: get(ports["http"], *paths), range(8))] == [[True] * 20] * 8
            for number in range(500):
                assert get(ports["http"], f"/in-turn/{number}") == [True]
            assert run.interrupt(signal.SIGTERM).status() == 0
            until(lambda: ana.audit("session-closed"), "the record")
            (closed,) = ana.audit("session-closed")
            assert closed["connections"] == 50 + 8 + 500
        finally:
            pages.shutdown()
            serving.join()


def test_standard_streams_and_programs(desk: Sit) -> None:
    """-W keeps both ends of file; --exec ends with its program."""
    with Digest() as digest:
        ana = desk(digest=digest.target)
        data = os.urandom(8 * MIB)
        run = ana.run("-W", "plc-7/digest")
        run.feed(data)
        assert run.status() == 0, run.err.read_text()
        assert run.out.read_bytes() == hashlib.sha256(data).hexdigest().encode()
        run = ana.run("plc-7/digest", "--exec", "sh -c 'exit 7' {host} {port}")
        assert run.status() == 7, run.err.read_text()
        until(lambda: len(ana.audit("session-closed")) == 2, "the records")


def test_back_within_the_grace(desk: Sit) -> None:
    """The TCP connection is cut twice; the port stays, who waits is served, the session is the same."""
    with Echo() as echo:
        ana = desk(echo=echo.target)
        with Way(ana.server.web_port) as way:
            url = f"https://localhost:{way.port}"
            ana.login(ana.ana, url)
            run, ports = ana.ports("--server", url, "plc-7/echo")
            for count in (1, 2):
                with socket.create_connection(("127.0.0.1", ports["echo"]), 20) as sock:
                    sock.sendall(b"x")
                    assert sock.recv(1) == b"x"
                    way.cut()
                    with pytest.raises(ConnectionResetError):
                        assert sock.recv(1)
                        raise AssertionError("a cut that looks like an end")
                assert talk(ports["echo"], b"again") == b"again"
                until(lambda count=count: len([row for row in run.said() if row["event"] == "back"]) == count)
            assert len(ana.audit("session-opened")) == 1
            assert run.interrupt().status() == 0, run.err.read_text()


def test_what_goes_away(desk: Sit) -> None:
    """A token that is revoked ends it with 77, a device that leaves is 75, a wrong service 77 or 69."""
    with Echo() as echo:
        ana = desk(echo=echo.target)
        run, _ = ana.ports("plc-7/echo")
        assert ana.run("plc-7/nothing").status() in (69, 77)
        assert ana.run("plc-8/echo").status() in (69, 77)
        ana.server.control("user", "remove", "ana")
        assert run.status() == 77, run.err.read_text()
        run = ana.run("list")
        assert run.status() == 77
        ben = Person(ana.server, "ben", ("plc-7", "echo"))
        ana.login(ben)
        ana.agent.stop()
        until(lambda: ana.server.events("link-down"))
        run = ana.run("-W", "plc-7/echo")
        assert run.status() == 75, run.err.read_text()
        assert "offline" in run.err.read_text()


def test_a_colleague_is_invited(desk: Sit) -> None:
    """The address is good once, gives ports of his own, and ends with the owner's session."""
    with Echo() as echo:
        ana = desk(echo=echo.target)
        Person(ana.server, "ben", ("plc-7", "*"))
        run, _ = ana.ports("plc-7/echo")
        session = run.event("session")["session"]
        share = ana.run("share", session, "--with", "ben", "--role", "use")
        assert share.status() == 0, share.err.read_text()
        url = share.out.read_text().strip()
        guest = ana.run("--json", "--ca", ana.ca, url)
        port = guest.event("listening")["port"]
        assert talk(port, b"as ben") == b"as ben"
        again = ana.run("--ca", ana.ca, url)
        assert again.status() == 77, again.err.read_text()
        assert run.interrupt().status() == 0
        assert guest.status() == 0
        assert guest.event("ended")["word"] == "owner"


def test_through_an_http_proxy(desk: Sit) -> None:
    """The environment's, with a name that only it knows; one that refuses is named, its password is not."""
    with Echo() as echo, HttpProxy(credentials="ana:secret") as proxy:
        ana = desk(echo=echo.target)
        proxy.hosts["gate.invalid"] = "127.0.0.1", ana.server.web_port
        url = "https://gate.invalid:2443"
        by = {"environment": {"https_proxy": f"http://ana:secret@{proxy.target}"}}
        login = ana.run("login", url, "--ca", ana.ca, **by)
        assert login.feed(ana.ana.token.encode()).status() == 0, login.err.read_text()
        run, ports = ana.ports("plc-7/echo", **by)
        assert talk(ports["echo"], b"x" * MIB) == b"x" * MIB
        assert run.interrupt().status() == 0
        assert proxy.record.count("CONNECT", "gate.invalid:2443") == 3
        wrong = {"environment": {"https_proxy": f"http://ana:wrong@{proxy.target}"}}
        run = ana.run("list", **wrong)
        assert run.status() == 69
        assert f"proxy http://{proxy.target}" in run.err.read_text()
        assert "wrong" not in run.err.read_text()


@pytest.mark.long
@pytest.mark.timeout(500)
def test_a_gibibyte_each_way(desk: Sit) -> None:
    """Hashes equal, each end of file kept."""
    size = 1024 * MIB
    with Digest() as digest, Source(size) as source:
        ana = desk(digest=digest.target, source=source.target)
        run, ports = ana.ports("plc-7/digest", "plc-7/source")
        with socket.create_connection(("127.0.0.1", ports["digest"]), 60) as sock:
            for block in pseudo_random(size):
                sock.sendall(block)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(100).decode() == source.digest
        seen = hashlib.sha256()
        with socket.create_connection(("127.0.0.1", ports["source"]), 60) as sock:
            while data := sock.recv(MIB):
                seen.update(data)
        assert seen.hexdigest() == source.digest
        assert run.interrupt().status() == 0


class Sshd:
    """An sshd of the user's own, on a free port, with one key."""

    def __init__(self, directory: Path) -> None:
        for name in ("host", "user"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
            subprocess.run(command, check=True)
        shutil.copy(directory / "user.pub", directory / "authorized")
        (directory / "authorized").chmod(0o600)
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        config = directory / "sshd_config"
        lines = [f"Port {self.port}", "ListenAddress 127.0.0.1", f"HostKey {directory / 'host'}"]
        lines += [f"AuthorizedKeysFile {directory / 'authorized'}", "StrictModes no", "UsePAM no"]
        lines += ["PidFile none", "PasswordAuthentication no", f"Subsystem sftp {_sftp()}"]
        config.write_text("\n".join(lines) + "\n")
        with contextlib.suppress(OSError):
            os.makedirs("/run/sshd", exist_ok=True)
        log = open(directory / "sshd.log", "wb")  # noqa: SIM115  the daemon's
        self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=log)
        log.close()
        self.options = ["-F", "none", "-i", str(directory / "user"), "-o", "StrictHostKeyChecking=no"]
        self.options += ["-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-q"]
        until(self._listens, "sshd")

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def close(self) -> None:
        """No sshd any more."""
        self.process.terminate()
        self.process.wait()


def _sftp() -> str:
    places = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server")
    return next((each for each in places if os.path.exists(each)), "internal-sftp")


@pytest.mark.skipif(not os.path.exists(SSHD) or not shutil.which("ssh"), reason="no sshd here")
def test_ssh_through_both_ways(desk: Sit, tmp_path: Path) -> None:
    """A real ssh and sshd: by -W as ProxyCommand, and by a local port; a command, its status, a file."""
    directory = tmp_path / "ssh"
    directory.mkdir()
    sshd = Sshd(directory)
    try:
        ana = desk(ssh=f"127.0.0.1:{sshd.port}")
        root = Path(__file__).resolve().parents[2]
        program = f"{sys.executable} -m revtunnel.connect.connect -W plc-7/ssh"
        environment = {**os.environ, "PYTHONPATH": str(root), "XDG_CONFIG_HOME": str(ana.directory)}
        place = f"{getpass.getuser()}@plc-7"

        def ssh(*words: str, by: list[str], data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
            command = ["ssh", *sshd.options, *by, place, *words]
            return subprocess.run(command, input=data, capture_output=True, env=environment, timeout=60)

        run, ports = ana.ports("plc-7/ssh")
        direct = ["-o", f"ProxyCommand={program}"]
        port = ["-p", str(ports["ssh"]), "-o", "HostName=127.0.0.1"]
        data = os.urandom(4 * MIB)
        wanted = hashlib.sha256(data).hexdigest().encode()
        for by in (direct, port):
            done = ssh("sha256sum; exit 5", by=by, data=data)
            assert done.returncode == 5, done.stderr
            assert done.stdout.split()[0] == wanted
        source = tmp_path / "blob"
        source.write_bytes(data)
        copy = ["scp", *sshd.options, *direct, str(source), f"{place}:{tmp_path / 'copy'}"]
        subprocess.run(copy, check=True, env=environment, timeout=60)
        assert (tmp_path / "copy").read_bytes() == data
        assert run.interrupt().status() == 0
    finally:
        sshd.close()
