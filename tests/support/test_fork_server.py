"""A program started by fork is the one that Python would have started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import fork_server
from tests.support.daemons import laboratory
from tests.support.fork_server import Forked, output_of, spawn

pytestmark = pytest.mark.slow

CTL = [sys.executable, "-m", "revtunnel.ctl.ctl"]


def ran(command: list[str], words: bytes = b"") -> tuple[type, int, bytes, bytes]:
    """What kind of process it was, its status and its outputs."""
    with spawn(
        command, env=os.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as run:
        run.stdin.write(words)
        run.stdin.close()
        return type(run), run.wait(30), run.stdout.read(), run.stderr.read()


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["nonsense"], ["--socket", "/none", "ping"]])
def test_status_and_outputs_are_the_same(words: list[str]) -> None:
    """Also of what fails."""
    plain = subprocess.run([*CTL, *words], capture_output=True, check=False)
    kind, *found = ran([*CTL, *words])
    assert kind is Forked
    assert found == [plain.returncode, plain.stdout, plain.stderr]


def test_other_programs_and_other_pythons_are_started_as_ever() -> None:
    """A program that is not ours, and what Python itself is told by its environment."""
    assert ran(["cat"], b"words") == (subprocess.Popen, 0, b"words", b"")
    for told in ({"PYTHONDEVMODE": "1"}, {"PYTHONPATH": "/elsewhere"}, {"LD_PRELOAD": ""}):
        with spawn([*CTL, "--version"], env={**os.environ, **told}) as run:
            assert type(run) is subprocess.Popen


def test_an_output_that_fails_is_an_error() -> None:
    """With the status; and one that takes too long is ended."""
    with pytest.raises(subprocess.CalledProcessError, match="status 64"):
        output_of([*CTL, "nonsense"], env=os.environ)
    with pytest.raises(subprocess.TimeoutExpired):
        output_of(["sleep", "30"], timeout=0.1, env=os.environ)


def test_a_daemon_has_no_more_than_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors, limit of them, environment, directory, signals: beside one that Python started."""
    seen = []
    for kind in (Forked, subprocess.Popen):
        monkeypatch.setattr(fork_server, "_can_fork", lambda *_, kind=kind: kind is Forked)
        directory = tmp_path / kind.__name__
        directory.mkdir()
        with laboratory(directory) as lab:
            server = lab.server()
            server.descriptors_most = 300
            server.start()
            assert type(server.process) is kind
            status = Path(f"/proc/{server.pid}/status").read_text().splitlines()
            limits = Path(f"/proc/{server.pid}/limits").read_text()
            opened = sorted(os.readlink(each) for each in Path(f"/proc/{server.pid}/fd").iterdir())
            seen.append(
                [
                    [line for line in status if line.startswith("SigIgn")],
                    [line.split()[3:5] for line in limits.splitlines() if "open files" in line],
                    [name.split(":")[0].replace(str(directory), "") for name in opened],
                    os.readlink(f"/proc/{server.pid}/cwd") == str(directory),
                    server.stop(),
                ]
            )
            server.start()
            server.kill()
            assert server.wait() == -signal.SIGKILL
    assert seen[0] == seen[1]
