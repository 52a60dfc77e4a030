"""The soak: short runs over every carrier, and whether it would notice what it looks for."""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.load import compile_load
from benchmarks.peers import accepts, free_ports
from benchmarks.standing import Standing
from tests.support.services import reset
from tests.support.traffic import wait_until

ROOT = Path(soak.__file__).parent.parent
HEADER = 56  # bytes of soak.c's struct header
WHERE = HEADER + 1003  # the byte of a connection that is spoiled
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="soak.c needs cc")


@pytest.mark.parametrize(
    "argv", [["--carriers", "pigeons"], ["--carriers", ","], ["--gib", "0"], ["--connections", "0"]]
)
def test_usage_errors_exit_with_64(argv: list[str]) -> None:
    """Nothing is started for a command line that cannot be meant."""
    with pytest.raises(SystemExit) as stopped:
        soak.main(argv)
    assert stopped.value.code == 64


def test_what_is_held_beyond_before_is_named() -> None:
    """Every kind counts but memory; kept sockets are allowed where a carrier keeps them."""
    before, after = Standing(3, 4, 5, 2, 2, 6, 50.0), Standing(4, 5, 5, 2, 2, 6, 90.0)
    assert after.beyond(before, 0) == ["4 sockets, 3 before", "5 pipes, 4 before"]
    assert after.beyond(before, 1) == ["5 pipes, 4 before"]
    assert before.beyond(after, 0) == []


def test_ends_that_tell_different_things_are_named() -> None:
    """A stream that ended well for one end only, and a cut that nobody made."""
    one = {"finished": 1, "sum": "0f", "finished_out": 7, "finished_in": 9, "cuts_seen": 1, "cuts_made": 0}
    two = {**one, "finished": 2, "sum": "f1"}
    other = {
        "finished": 3,
        "sum": "100",
        "finished_in": 14,
        "finished_out": 18,
        "cuts_seen": 0,
        "cuts_made": 2,
        "headless": 0,
    }
    assert list(soak.disagreements([one, two], other)) == []
    wrong = {**other, "finished": 2, "cuts_seen": 1}
    assert list(soak.disagreements([one, two], wrong)) == [
        "streams finished: clients 3, service 2",
        "cuts by clients: 0, of which the service saw 1",
    ]


@pytest.mark.long
@pytest.mark.slow
@needs_cc
@pytest.mark.parametrize("carrier", [each.name for each in soak.CARRIERS])
def test_a_short_run_finds_nothing(carrier: str) -> None:
    """64 MiB and 300 connections: no byte wrong, nothing held afterwards, both ends agree.

    A process of its own, because the command takes over signal handlers and all of its children.
    """
    kind = next(each for each in soak.CARRIERS if each.name == carrier)
    found = kind.found()
    if found is None or found.missing():
        pytest.skip(f"no {carrier} here")
    command = [sys.executable, "-m", "benchmarks.soak", "--carriers", carrier, "--gib", "0.0625", "--json"]
    done = subprocess.run(
        [*command, "--connections", "300"], cwd=ROOT, capture_output=True, text=True, timeout=170
    )
    (outcome,) = json.loads(done.stdout)
    assert outcome["faults"] == [] and done.returncode == 0, done.stderr
    assert outcome["short"]["connections"] == 300 and outcome["channels"] == 0
    moved = outcome["bulk"]["bytes"] + outcome["bulk"]["sent"]
    assert moved > 48 * soak.MIB
    service = outcome["service"]
    assert service["finished"] > 300
    # a wire without a word for it tells the service of no cut; who has gone before his turn is not dialled
    assert kind.loose or service["cuts_seen"] > 0


# ---- a relay that does what ours must not


class Vandal(threading.Thread):
    """Forwards to `port`, a thread for each pair, and spoils what goes to the device."""

    def __init__(self, port: int, crime: str) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.front: int = self.listener.getsockname()[1]
        self._port = port
        self._crime = crime
        self._services: list[socket.socket] = []
        self._met = threading.Barrier(2)  # both headers have gone where they belong

    def run(self) -> None:
        """Called by ``start``."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                service = socket.create_connection(("127.0.0.1", self._port))
                self._services.append(service)
                mine = len(self._services) - 1
                threading.Thread(target=self._join, args=(client, service, mine), daemon=True).start()

    def _join(self, client: socket.socket, service: socket.socket, mine: int) -> None:
        onward = {client: service, service: client}
        passed = 0
        try:
            while onward:
                for source in select.select(list(onward), [], [])[0]:
                    data = self._read(source, source is client)
                    if not data:
                        onward.pop(source).shutdown(socket.SHUT_WR)
                    elif source is client:
                        self._to_device(data, passed, service, mine)
                        passed += len(data)
                    else:
                        client.sendall(data)
        except OSError:
            reset(client)
            reset(service)
        else:
            client.close()
            service.close()

    def _read(self, source: socket.socket, is_client: bool) -> bytes:
        try:
            return source.recv(65536)
        except ConnectionError:
            if is_client and self._crime == "hide":
                return b""  # a cut looks like an end
            raise

    def _to_device(self, data: bytes, passed: int, service: socket.socket, mine: int) -> None:
        at = WHERE - passed
        if self._crime == "flip" and 0 <= at < len(data):
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        if self._crime == "lose" and 0 <= at < len(data):
            data = data[:at] + data[at + 1 :]
        if self._crime == "swap":
            header = max(0, HEADER - passed)
            service.sendall(data[:header])
            if passed < HEADER <= passed + len(data):
                self._met.wait(10)
            data, service = data[header:], self._services[mine ^ 1]
        service.sendall(data)


@contextlib.contextmanager
def _service(program: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    (port,) = free_ports(1)
    words = [program, "service", "127.0.0.1", str(port), "1", "1", "0"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: accepts(port), "service")
        try:
            yield port, process
        finally:
            process.kill()


def _client(
    program: Path, port: int, count: int, at_once: int, first: int
) -> subprocess.CompletedProcess[str]:
    numbers = map(str, (port, 1, 1, 0, 0, count, at_once, first))
    command = [program, "client", "127.0.0.1", *numbers]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=100)


@pytest.mark.long
@pytest.mark.slow
@needs_cc
@pytest.mark.parametrize(
    ("crime", "words"),
    [
        ("flip", "wrong byte at 1003"),
        ("lose", "at 1003 stands byte 1004 of connection"),
        ("swap", "at 0 stands byte 0 of connection"),
        ("hide", "an end in order of a stream that was cut"),
    ],
)
def test_crimes_of_a_relay_are_found(crime: str, words: str) -> None:
    """One bit, one byte less, another client's bytes, a cut that looks like an end: each is named."""
    program = compile_load(name="soak")
    with _service(program) as (port, service):
        vandal = Vandal(port, crime)
        vandal.start()
        # these two send over 4 KiB each and are not cut
        count, at_once = (2, 2) if crime == "swap" else (200, 8)
        first = 125 if crime == "swap" else 0
        client = _client(program, vandal.front, count, at_once, first)
        said, _ = service.communicate(timeout=60)
        vandal.listener.close()
    assert service.returncode == 1 and words in said, said + client.stdout


@pytest.mark.long
@pytest.mark.slow
@needs_cc
def test_a_relay_that_does_nothing_wrong_is_let_alone() -> None:
    """The same forwarder without a crime: whole streams and cut ones, and no fault."""
    program = compile_load(name="soak")
    with _service(program) as (port, service):
        vandal = Vandal(port, "none")
        vandal.start()
        client = _client(program, vandal.front, 200, 8, 0)
        said, _ = service.communicate(timeout=60)
        vandal.listener.close()
    assert (service.returncode, client.returncode) == (0, 0), said + client.stdout
