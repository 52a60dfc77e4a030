"""The program as a process, beside a small real server: ports, standard streams, losses, refusals."""

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.connect.addressing import parse_server
from revtunnel.connect.connect_line import read_line
from revtunnel.connect.connecting import Connecting
from revtunnel.connect.console_output import Telling
from revtunnel.connect.logins import KeptLogin, Logins
from revtunnel.connect.outcomes import DENIED, Stop
from revtunnel.ground.reasons import Ended
from tests.support.connect_program import Program
from tests.support.epoll import Loop
from tests.support.gate import TOKEN, Gate
from tests.support.world import Party, pattern

pytestmark = pytest.mark.slow


class Echo:
    """A service that gives back what it gets, then its end of file; the first ``stalls`` take nothing."""

    def __init__(self, quick: str = "echo") -> None:
        self.quick = quick
        self.made: list[Party] = []
        self.stalls = 0

    def buildProtocol(self, addr: Any) -> Party:
        """For one connection."""
        party = _Echo("service", self.quick)
        party.stalled = len(self.made) < self.stalls
        self.made.append(party)
        return party


class _Echo(Party):
    stalled = False

    def connectionMade(self) -> None:
        super().connectionMade()
        if not self.stalled:
            self.transport.resumeProducing()

    def pauseProducing(self) -> None:
        super().pauseProducing()
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if not self.stalled:
            self.transport.resumeProducing()


Start = Callable[..., Program]


@pytest.fixture
def gates(loop: Loop) -> Iterator[Callable[..., Gate]]:
    made: list[Gate] = []

    def one(services: dict[str, Any], **more: Any) -> Gate:
        made.append(Gate(loop, {"plc-7": services}, **more))
        return made[-1]

    yield one
    for gate in made:
        gate.close()


@pytest.fixture
def start(loop: Loop, tmp_path: Path) -> Iterator[Start]:
    runs: list[Program] = []

    def one(*arguments: str, **how: Any) -> Program:
        runs.append(Program(tmp_path, *arguments, wait=loop.until, **how))
        return runs[-1]

    yield one
    for run in runs:
        run.close()


@pytest.mark.parametrize("word", ["start", "nonce"])
def test_no_control_connection_stays_after_a_refusal(
    loop: Loop, gates: Callable[..., Gate], tmp_path: Path, word: str
) -> None:
    """Of a session, or of another nonce for one that is lost."""
    gate = gates({"echo": (7, Echo())})
    server = parse_server(gate.url)
    logins = Logins(str(tmp_path / "revtunnel" / "logins.json"))
    logins.keep(server, KeptLogin(TOKEN))
    gate.refusals[word] = {"word": "denied", "why": "a test"}
    options = read_line(["plc-7/echo", "--server", gate.url, "--quiet"])
    connecting = Connecting(loop.reactor, options, logins, Telling(quiet=True))
    run = Deferred.fromCoroutine(connecting.run())
    run.addErrback(lambda failure: failure.trap(Stop) and failure.value.status)
    if word == "nonce":
        loop.until(lambda: connecting.held and connecting.held.link and connecting.held.link.free, "HELLO")
        gate.sessions.clear()  # the nonce to come back with is refused, and another one is asked for
        gate.cut()
    assert loop.wait(run) == DENIED
    loop.until(lambda: all(control.socket.over for control in gate.controls), "the end")


def log_in(start: Start, gate: Gate, token: str = TOKEN) -> Program:
    """With the token on standard input."""
    run = start("login", gate.url)
    run.feed(f"{token}\n".encode())
    run.status()
    return run


def talk(loop: Loop, where: tuple[str, int], data: bytes) -> bytes:
    """Send all of it and our end of file, and read to the other end of file."""
    got: list[Any] = []

    def work() -> None:
        try:
            with socket.create_connection(where, 20) as sock:
                sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
                sender.start()
                pieces = []
                while piece := sock.recv(1 << 16):
                    pieces.append(piece)
                sender.join()
                got.append(b"".join(pieces))
        except OSError as error:
            got.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    loop.until(lambda: got, "an answer")
    thread.join()
    if isinstance(got[0], OSError):
        raise got[0]
    return bytes(got[0])


def free_port() -> int:
    """One that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def test_login_list_logout(loop: Loop, gates: Callable[..., Gate], start: Start, tmp_path: Path) -> None:
    """The token is kept for its owner only, used, and forgotten."""
    gate = gates({"ssh": (22, Echo()), "http": (80, Echo())})
    assert log_in(start, gate, "wrong").process.returncode == 77
    run = log_in(start, gate)
    assert run.process.returncode == 0, run.err.read_text()
    assert run.out.read_text() == f"logged in at {gate.url} as ana\n"
    kept = tmp_path / "revtunnel" / "logins.json"
    assert kept.stat().st_mode & 0o777 == 0o600
    run = start("list")
    assert run.status() == 0, run.err.read_text()
    lines = [line.split() for line in run.out.read_text().splitlines()]
    assert lines == [
        ["DEVICE", "SERVICE", "PORT", "ONLINE"],
        ["plc-7", "ssh", "22", "yes"],
        ["plc-7", "http", "80", "yes"],
    ]
    gate.refusals["services"] = {"word": "denied", "why": "for people"}
    run = start("list")
    assert run.status() == 77
    assert run.err.read_text() == "revtunnel-connect: denied: for people\n"
    assert start("logout").status() == 0
    assert TOKEN not in kept.read_text()
    assert start("list").status() == 78


def test_a_local_port(loop: Loop, gates: Callable[..., Gate], start: Start) -> None:
    """The service's own port; bytes, half-close; Ctrl-C ends the session for the server too."""
    port = free_port()
    gate = gates({"echo": (port, Echo())})
    log_in(start, gate)
    run = start("--json", "plc-7/echo")
    where = run.event("listening")
    assert (where["address"], where["port"]) == ("127.0.0.1", port)
    data = pattern("bulk", 3_000_000)
    assert talk(loop, ("127.0.0.1", port), data) == data
    loop.until(lambda: gate.texts)
    assert gate.texts == [{"say": "listening", "service": "echo", "address": "127.0.0.1", "port": port}]
    run.process.send_signal(signal.SIGINT)
    assert run.status() == 0, run.err.read_text()
    assert gate.texts[-1] == {"say": "end"}


def test_a_port_that_is_taken(loop: Loop, gates: Callable[..., Gate], start: Start) -> None:
    """The next one; or the same one at another address; or no other one, if it was asked for."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        gate = gates({"echo": (port, Echo())})
        log_in(start, gate)
        run = start("--json", "plc-7/echo")
        where = run.event("listening")
        assert port < where["port"] <= port + 100
        assert talk(loop, ("127.0.0.1", where["port"]), b"x") == b"x"
        run.process.send_signal(signal.SIGTERM)
        assert run.status() == 0
        run = start("--json", "--address-range", "plc-7")
        where = run.event("listening")
        assert where["port"] == port
        assert where["address"].startswith("127.77.0.")
        assert talk(loop, (where["address"], port), b"x") == b"x"
        run = start("--port", str(port), "plc-7/echo")
        assert run.status() == 78
        assert "Address already in use" in run.err.read_text()


def test_standard_input_and_output(loop: Loop, gates: Callable[..., Gate], start: Start) -> None:
    """All bytes, either end of file by itself, nothing else on standard output."""
    gate = gates({"echo": (7, Echo()), "reply": (0, Echo("reply"))})
    log_in(start, gate)
    data = pattern("bulk", 3_000_000)
    run = start("-W", "plc-7/echo")
    feeder = threading.Thread(target=run.feed, args=(data,))
    feeder.start()
    assert run.status() == 0, run.err.read_text()
    feeder.join()
    assert run.out.read_bytes() == data
    run = start("-W", "plc-7/reply", stdin=subprocess.DEVNULL)
    assert run.status() == 0, run.err.read_text()
    assert run.out.read_bytes() == gate.devices["plc-7"]["reply"][1].made[0].sent


def test_a_refused_service_and_a_cut_are_told(loop: Loop, gates: Callable[..., Gate], start: Start) -> None:
    """By the status and a sentence."""
    gate = gates({"echo": (7, Echo())})
    log_in(start, gate)
    run = start("-W", "plc-7/nothing")
    assert run.status() == 77
    assert "not-allowed" in run.err.read_text()
    run = start("-W", "plc-7/echo")
    service = gate.devices["plc-7"]["echo"][1]
    loop.until(lambda: service.made)
    service.made[-1].abort()
    assert run.status() == 69
    run = start("-W", "plc-7/echo")
    loop.until(lambda: len(service.made) == 2)
    gate.cut()
    assert run.status() == 75, run.err.read_text()


def test_a_program_and_its_status(loop: Loop, gates: Callable[..., Gate], start: Start) -> None:
    """Its argument list is filled in, no shell sees it, and its status is ours."""
    gate = gates({"echo": (free_port(), Echo())})
    log_in(start, gate)
    code = "import sys,socket; s=socket.create_connection((sys.argv[1],int(sys.argv[2]))); s.sendall(b'hi'); "
    code += "print(s.recv(2).decode(), sys.argv[3:]); sys.exit(23)"
    run = start(
        "plc-7/echo", "--exec", f'{sys.executable} -c "{code}" {{host}} {{port}} "$HOME; {{service}}"'
    )
    assert run.status() == 23, run.err.read_text()
    assert run.out.read_text() == "hi ['$HOME; echo']\n"
    assert start("plc-7/echo", "--exec", "/nowhere/program").status() == 78
    run = start("plc-7/echo", "--exec", f"{sys.executable} -c 'import os; os.kill(os.getpid(), 9)'")
    assert run.status() == 137


def test_a_lost_connection_comes_back(loop: Loop, gates: Callable[..., Gate], start: Start) -> None:
    """The port stays open, who comes meanwhile waits, what ran is reset and told."""
    port = free_port()
    gate = gates({"echo": (port, Echo())})
    log_in(start, gate)
    run = start("--json", "plc-7/echo")
    run.event("listening")
    with socket.create_connection(("127.0.0.1", port), 20) as before:
        before.sendall(b"x")
        loop.until(lambda: gate.devices["plc-7"]["echo"][1].made)
        gate.refuse = 503
        gate.cut()
        assert run.event("lost")["channels"] == 1
        with pytest.raises(ConnectionResetError):
            before.recv(10)
            before.recv(10)
        loop.until(lambda: gate.requests[-1][0] != "/control")
        gate.refuse = 0
        assert talk(loop, ("127.0.0.1", port), b"again") == b"again"
    run.event("back")
    gate.end(Ended.IDLE, "idle")
    assert run.status() == 75
    assert run.event("ended")["word"] == "idle"


def test_a_session_that_ended_meanwhile(loop: Loop, gates: Callable[..., Gate], start: Start) -> None:
    """410 is not tried against."""
    gate = gates({"echo": (free_port(), Echo())})
    log_in(start, gate)
    run = start("plc-7/echo")
    loop.until(lambda: gate.texts)
    gate.refuse = 410
    gate.cut()
    assert run.status() == 75
    assert "a test says so" in run.err.read_text()


def test_a_session_that_was_handed_over(loop: Loop, gates: Callable[..., Gate], start: Start) -> None:
    """The URL is good once, and needs no login; the nonce is in no sentence."""
    gate = gates({"echo": (free_port(), Echo())})
    session = gate.start("plc-7")
    nonce = gate.nonce(session)
    url = f"revtunnel://127.0.0.1:{gate.port}/s/{session}#{nonce}"
    run = start("--plaintext", "--json", url)
    where = run.event("listening")
    assert talk(loop, (where["address"], where["port"]), b"x") == b"x"
    run.process.send_signal(signal.SIGHUP)
    assert run.status() == 0
    run = start("--plaintext", url)
    assert run.status() == 77
    assert "401" in run.err.read_text()
    assert nonce not in run.err.read_text()


def test_eight_at_once_one_of_them_stalled(loop: Loop, gates: Callable[..., Gate], start: Start) -> None:
    """Seven get all of theirs, byte for byte."""
    port = free_port()
    echo = Echo()
    echo.stalls = 1
    gate = gates({"echo": (port, echo)})
    log_in(start, gate)
    run = start("--json", "plc-7/echo")
    run.event("listening")
    with socket.create_connection(("127.0.0.1", port), 20) as stalled:
        stalled.setblocking(False)
        loop.until(lambda: echo.made)
        for _ in range(64):
            try:
                stalled.send(bytes(1 << 20))
            except BlockingIOError:
                loop.reactor.iterate(0.01)
        results: dict[int, bytes] = {}

        def one(number: int) -> None:
            with socket.create_connection(("127.0.0.1", port), 20) as sock:
                data = pattern(str(number), 2_000_000)
                sender = threading.Thread(target=lambda: (sock.sendall(data), sock.shutdown(socket.SHUT_WR)))
                sender.start()
                results[number] = b"".join(iter(lambda: sock.recv(1 << 16), b""))
                sender.join()

        threads = [threading.Thread(target=one, args=(number,)) for number in range(7)]
        for thread in threads:
            thread.start()
        loop.until(lambda: len(results) == 7, "seven")
        for thread in threads:
            thread.join()
        assert all(results[number] == pattern(str(number), 2_000_000) for number in range(7))


def test_what_is_wrong_before_anything_is_asked(loop: Loop, start: Start) -> None:
    """Statuses of configuration and of servers that are not there."""
    assert start("plc-7/ssh").status() == 78
    run = start("--server", f"http://127.0.0.1:{free_port()}", "list")
    assert run.status() == 77  # no login for it
    run = start("login", f"http://127.0.0.1:{free_port()}")
    run.feed(b"token\n")
    assert run.status() == 69
    assert "refused the connection" in run.err.read_text()
    run = start("login", "http://192.0.2.1:80")
    run.feed(b"token\n")
    assert run.status() == 78
    assert "without TLS" in run.err.read_text()
