"""README's way between two machines, word for word: its own lines, each on its machine.

The machines are network namespaces, and know ``gate.example`` from an /etc/hosts of their own. Other than on
two machines, state directories are told by the environment, for the test may run as root.
"""

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.namespaces import SERVER, Net, inside, moved, reason_against
from tests.support.services import Echo
from tests.support.traffic import end_of, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "revtunnel-server": "revtunnel.daemons.run server",
    "revtunnel-agent": "revtunnel.daemons.run agent",
    "revtunnelctl": "revtunnel.ctl.ctl",
}
GATE = "10.1.0.1"  # the server, seen from the network that README lets in
TOKEN = r"rttok1_[A-Za-z0-9_.-]+"


@pytest.fixture(scope="module", autouse=True)
def _namespaces_are_possible() -> None:
    if reason := reason_against("unshare", "mount"):
        pytest.skip(f"no network namespaces: {reason}")


def written() -> list[str]:
    """The commands of README.rst for two machines, without the remarks behind them."""
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    text = text.partition("Between machines links are TLS")[2].partition("As services of systemd")[0]
    return [line.partition("  #")[0].strip() for line in text.splitlines() if line.startswith("    ")]


class Machine:
    """A namespace with hosts, programs and directories of its own."""

    def __init__(self, net: Net, name: str, directory: Path, gate: str) -> None:
        directory.mkdir()
        self.log = directory / "log"
        self._directory = directory
        (directory / "hosts").write_text(f"127.0.0.1 localhost\n{gate} gate.example\n")
        (directory / "revtunnel.ini").touch()
        (directory / "bin").mkdir()
        for program, module in PROGRAMS.items():
            path = directory / "bin" / program
            path.write_text(f'#!/bin/sh\nexec {sys.executable} -m {module} "$@"\n')
            path.chmod(0o755)
        into = 'mount --bind "$0" /etc/hosts && exec "$@"'
        self._prefix = ["unshare", "-m", "sh", "-c", into, str(directory / "hosts"), *net.prefix(name)]
        self._running: list[subprocess.Popen[bytes]] = []

    def _how(self) -> dict[str, Any]:
        kept = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
        kept |= {
            "PATH": f"{self._directory / 'bin'}:{kept['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(self._directory),
            "REVTUNNEL_CONFIG": str(self._directory / "revtunnel.ini"),
            "STATE_DIRECTORY": str(self._directory / "state"),
            "RUNTIME_DIRECTORY": str(self._directory / "run"),
        }
        return {"env": kept, "cwd": self._directory, "stdin": subprocess.DEVNULL}

    def run(self, line: str) -> str:
        """What a command says."""
        done = subprocess.run(
            [*self._prefix, *shlex.split(line)], **self._how(), capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def begin(self, line: str, until: str) -> None:
        """Start a command that stays, and wait for a word in its log."""
        with open(self.log, "ab") as log:
            words = [*self._prefix, *shlex.split(line)]
            self._running.append(subprocess.Popen(words, **self._how(), stdout=log, stderr=log))
        self.wait(until)

    def wait(self, word: str) -> None:
        """Until it stands in the log."""

        def said() -> bool:
            assert self._running[-1].poll() is None, self.log.read_text()
            return word in self.log.read_text()

        wait_until(said, word, 120.0)

    def end(self) -> None:
        """Stop what stays."""
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(60)
        print(self.log.read_text() if self.log.exists() else "")


@pytest.fixture
def net() -> Iterator[Net]:
    with Net() as found:
        found.address(found.server, "to-c", f"{GATE}/16")
        found.address(found.client, "to-s", "10.1.0.2/16")
        found.address(found.agent, "lo", "10.41.51.152/32")
        yield found


@pytest.fixture
def machines(net: Net, tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """The server's and the agent's."""
    server = Machine(net, net.server, tmp_path / "server", GATE)
    agent = Machine(net, net.agent, tmp_path / "agent", SERVER)
    yield server, agent
    agent.end()
    server.end()


class Console(Echo):
    """The device's telnet, where README's agent expects it."""

    def listen(self) -> socket.socket:
        return socket.create_server(("10.41.51.152", 23))


def test_two_commands_at_the_server_one_beside_the_device(
    net: Net, machines: tuple[Machine, Machine]
) -> None:
    """Who is in the network that was named reaches the console, and nobody else."""
    serve, enroll, dial, telnet = written()
    server, agent = machines
    server.begin(serve, "state=ready")
    line = server.run(enroll).strip()
    assert re.sub(TOKEN, "rttok1_...", line) == dial.partition(" --local ")[0]

    with moved(Console(), net.agent):
        agent.begin(f"{line} --local {dial.partition(' --local ')[2]}", "link-up")
        host, port = telnet.split()[1:]
        assert host == "gate.example"
        server.wait(f"port={port}")
        assert re.search(rf"plc-7/tcp-23 .*\b{port}\b", server.run("revtunnelctl ports"))

        def visit(source: str, gate: str) -> socket.socket:
            return inside(
                net.client,
                lambda: socket.create_connection((gate, int(port)), 20, source_address=(source, 0)),
            )

        with visit("10.1.0.2", GATE) as client:
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
        try:
            with visit("10.77.2.2", "10.77.2.1") as stranger:
                seen = end_of(stranger)
        except ConnectionResetError:  # the reset may be there before connect returns
            seen = "reset"
        assert seen == "reset"
