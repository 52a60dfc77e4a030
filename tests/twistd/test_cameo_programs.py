"""cameo-rep-proxy and cameo-pub-proxy, started as the CAMEO server starts them.

CAMEO's own acceptance suite runs against them when CAMEO_TEST_JAR names an installed test jar (with the
libraries it needs) and CAMEO_TESTS_XML the tests.xml of the same source tree; see docs/cameo.rst.
"""

import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from revtunnel.systems.cameo.zmtp import GREETING
from tests.support.daemons import ROOT, ini
from tests.support.ports import free_ports
from tests.support.traffic import connect, read_exactly, wait_until

pytest.importorskip("zmq", exc_type=ImportError)  # the support module speaks it
from tests.support.cameo_site import Programs, program

pytestmark = pytest.mark.slow

LAUNCHER = [sys.executable, "-m", "tests.support.cameo_launcher"]
WHICH = {"responder": 1, "publisher": 2}


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    """Both programs may be started; those that were are killed at the end."""
    held = Programs(tmp_path)
    yield held
    held.kill()


def greeted(port: int) -> None:
    """A relay answers there."""
    wait_until(lambda: answers(port), f"relay at {port}")


def answers(port: int) -> bool:
    """Whether somebody sends ZMTP's greeting."""
    try:
        with connect(port) as peer:
            return read_exactly(peer, 64) == GREETING
    except (OSError, AssertionError):
        return False


def waiting_in(pipe: object) -> int:
    """Bytes that a pipe holds."""
    held = bytearray(4)
    fcntl.ioctl(pipe, termios.FIONREAD, held)  # type: ignore[call-overload]
    return int.from_bytes(held, sys.byteorder)


@pytest.mark.parametrize("which", WHICH)
def test_pipes_that_nobody_reads_stay_empty_whatever_happens(programs: Programs, which: str) -> None:
    """Garbage by the thousand is logged elsewhere; no child process, no file but the log; then SIGKILL."""
    before = set(os.listdir(programs.directory))
    ports = free_ports(WHICH[which])
    process = programs.launch(program(which, *ports))
    programs.running.append(process)
    for port in ports:
        greeted(port)
        for _ in range(500):
            with connect(port) as peer:
                peer.sendall(b"GET / HTTP/1.1\r\n\r\n" * 50)
    wait_until(lambda: "peer-refused" in programs.log.read_text(), "log")
    for port in ports:
        greeted(port)
    assert waiting_in(process.stdout) == waiting_in(process.stderr) == 0
    assert Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text() == ""
    assert set(os.listdir(programs.directory)) - before == {"programs.log"}
    process.kill()
    assert process.wait(10) == -signal.SIGKILL
    assert not any(answers(port) for port in ports)


@pytest.mark.parametrize("which", WHICH)
def test_the_end_of_standard_input_is_the_end(programs: Programs, which: str) -> None:
    """What comes on it is not looked at; its end is the death of the server, and the ports are free again."""
    ports = free_ports(WHICH[which])
    for _ in range(2):
        process = programs.launch(program(which, *ports))
        programs.running.append(process)
        for port in ports:
            greeted(port)
        assert process.stdin is not None
        process.stdin.write(b"nothing of interest\n" * 1000)
        process.stdin.flush()
        greeted(ports[0])
        process.stdin.close()
        assert process.wait(10) == 0


def test_a_killed_server_leaves_no_orphans(tmp_path: Path) -> None:
    """SIGKILL of the launcher, which runs no shutdown hook: both programs end by themselves."""
    first, second, third = free_ports()
    lines = [json.dumps(program("responder", first)), json.dumps(program("publisher", second, third))]
    launcher = subprocess.Popen(LAUNCHER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert launcher.stdin is not None and launcher.stdout is not None
    launcher.stdin.write("\n".join(lines))
    launcher.stdin.close()
    pids = [int(word) for word in launcher.stdout.readline().split()]
    for port in (first, second, third):
        greeted(port)
    launcher.kill()
    launcher.wait(10)
    launcher.stdout.close()
    wait_until(lambda: not any(is_running(pid) for pid in pids), "end of the programs")


def is_running(pid: int) -> bool:
    """Whether a process exists that has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_standard_input_that_is_no_pipe_says_nothing(programs: Programs) -> None:
    """Started from a shell, or by systemd with /dev/null, a program runs until it is told to stop."""
    (port,) = free_ports(1)
    process = subprocess.Popen(
        program("responder", port),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=programs.directory,
        env={**os.environ, "PYTHONPATH": str(ROOT), "REVTUNNEL_CONFIG": str(programs.config)},
    )
    programs.running.append(process)
    greeted(port)
    assert process.poll() is None
    process.terminate()
    assert process.wait(10) in (0, -signal.SIGTERM)


@pytest.mark.parametrize(
    ("which", "words"),
    [
        ("responder", []),
        ("responder", ["port"]),
        ("responder", ["0"]),
        ("responder", ["65536"]),
        ("responder", ["10000", "10001"]),
        ("publisher", ["10001"]),
        ("publisher", ["10001", "-1"]),
    ],
)
def test_wrong_arguments(which: str, words: list[str]) -> None:
    """Usage on standard output, status 1, as the C++ programs do it."""
    done = subprocess.run([*program(which), *words], capture_output=True, text=True, cwd=ROOT, timeout=90)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("usage: cameo-") and done.stdout.count("\n") == 1


@pytest.mark.parametrize("which", WHICH)
def test_a_port_that_is_taken(which: str) -> None:
    """One line on standard output, status 1."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ports = [*free_ports(WHICH[which] - 1), taken]
        done = subprocess.run(program(which, *ports), capture_output=True, text=True, cwd=ROOT, timeout=90)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.count("\n") == 1 and str(taken) in done.stdout and "in use" in done.stdout


def test_wrong_settings(tmp_path: Path) -> None:
    """Each error on standard output, status 78."""
    config = tmp_path / "wrong.ini"
    config.write_text(ini({"cameo": {"message": "much", "nonsense": 1}}))
    environment = {**os.environ, "REVTUNNEL_CONFIG": str(config)}
    done = subprocess.run(
        program("responder", *free_ports(1)),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        timeout=90,
    )
    assert (done.returncode, done.stderr) == (78, "")
    assert "wrong.ini:2" in done.stdout and "wrong.ini:3" in done.stdout


def test_ports_are_open_before_anything_large_is_imported() -> None:
    """The first moment needs no Twisted and nothing else of ours."""
    code = (
        "import sys, revtunnel.daemons.cameo_programs as it; "
        "print(*[name for name in sys.modules if name.startswith(('twisted', 'zope', 'revtunnel'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert set(done.stdout.split()) == {
        "revtunnel",
        "revtunnel.daemons",
        "revtunnel.daemons.cameo_programs",
    }


@pytest.mark.skipif(
    not (os.environ.get("CAMEO_TEST_JAR") and os.environ.get("CAMEO_TESTS_XML")),
    reason="CAMEO_TEST_JAR and CAMEO_TESTS_XML name no installed CAMEO",
)
@pytest.mark.timeout(900)
def test_cameos_own_acceptance_suite(tmp_path: Path) -> None:
    """Its server starts our programs from PATH; every Java test of its table of results is OK."""
    for name, which in (("cameo-rep-proxy", "responder"), ("cameo-pub-proxy", "publisher")):
        path = tmp_path / name
        path.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
            f"from revtunnel.daemons.cameo_programs import {which}\n{which}()\n"
        )
        path.chmod(0o755)
    root = Path(os.environ["CAMEO_TESTS_XML"]).resolve().parents[2]
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment["CLASSPATH"] = os.environ["CAMEO_TEST_JAR"]
    command = ["java", "eu.ill.cameo.test.TestSelector", "java", "1", "true"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, timeout=800)
    print(done.stdout[-20_000:], done.stderr[-5000:])
    results = dict(
        re.findall(r"^(test\w+) +(OK|ERROR .*)$", done.stdout.partition("Results")[2], re.MULTILINE)
    )
    assert done.returncode == 0 and len(results) >= 20
    assert {name: result for name, result in results.items() if result != "OK"} == {}
