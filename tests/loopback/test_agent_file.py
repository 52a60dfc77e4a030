"""The agent as one file: made here, run by a Python that has nothing of ours, with a client through it."""

import subprocess
import sys
from pathlib import Path

import pytest

from revtunnel.daemons.agent_file import build
from tests.support.daemons import Agent, Lab
from tests.support.services import Echo
from tests.support.traffic import connect, read_exactly

pytestmark = pytest.mark.slow

BARE = [getattr(sys, "_base_executable", sys.executable), "-I", "-S"]  # no site-packages, no PYTHONPATH


class FileAgent(Agent):
    """The agent out of one file."""

    def command(self) -> list[str]:
        return [*BARE, str(self.directory / "agent.pyz"), *self.arguments()]

    def environment(self) -> dict[str, str]:
        return super().environment() | {"CACHE_DIRECTORY": str(self.directory / "cache")}


def test_the_agent_as_one_file(lab: Lab) -> None:
    """It has all that it needs with it, TLS too, unpacks itself once and starts again from there."""
    said = build(str(lab.directory / "agent.pyz"))
    assert "twisted" in said and "cryptography" in said
    with Echo() as echo:
        server = lab.server().start()
        agent = FileAgent(lab.directory, "plc-7", [f"127.0.0.1:{server.port}"], {"echo": echo.target})
        lab.add(agent).start()
        for start in (1, 2):
            server.wait_link("plc-7", start)
            with connect(server.client_port("plc-7", "echo")) as client:
                client.sendall(b"hello")
                assert read_exactly(client, 5) == b"hello"
            assert agent.stop() == 0
            if start == 1:
                agent.start()
    (unpacked,) = (lab.directory / "cache").iterdir()
    assert Path(unpacked, "site", "revtunnel", "daemons", "agent.py").exists()
    checked = subprocess.run(
        [*agent.command(), "--tls", "--check-config"], env=agent.environment(), check=True
    )
    assert checked.returncode == 0
