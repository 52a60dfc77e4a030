"""Both daemons as ``twistd`` plugins and as commands: they run, and what is wrong has its exit status."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.daemons import ROOT, Agent, Daemon, Lab, Server
from tests.support.ports import port_block
from tests.support.services import Echo
from tests.support.traffic import connect, read_exactly, wait_until

pytestmark = pytest.mark.slow

TWISTD = [str(Path(sys.executable).parent / "twistd")]
FOREGROUND = [*TWISTD, "-n", "--pidfile="]
PLAIN = [sys.executable, "-m", "revtunnel.daemons.run"]


class TwistdServer(Server):
    """The server under ``twistd -n``."""

    def command(self) -> list[str]:
        return [*FOREGROUND, "revtunnel-server", "--config", str(self.config)]


class TwistdAgent(Agent):
    """The agent under ``twistd -n``."""

    def command(self) -> list[str]:
        return [*FOREGROUND, "revtunnel-agent", *self.arguments()]


def call(lab: Lab, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in the test's directory."""
    environment = Daemon(lab.directory, "none").environment()
    return subprocess.run(
        command, cwd=lab.directory, env=environment, capture_output=True, text=True, timeout=90, check=False
    )


def echoed(port: int) -> None:
    """One client's whole life."""
    with connect(port) as client:
        client.sendall(b"through twistd")
        assert read_exactly(client, 14) == b"through twistd"


def test_server_and_agent_under_twistd(lab: Lab) -> None:
    """A client reaches the service, and SIGTERM ends both with status 0 and no file left behind."""
    with Echo() as echo:
        server = lab.add(TwistdServer(lab.directory)).start()
        offers = {"it": echo.target}
        agent = lab.add(TwistdAgent(lab.directory, "plc-7", [f"127.0.0.1:{server.port}"], offers)).start()
        echoed(server.client_port("plc-7", "it"))
        assert agent.stop() == 0
        assert server.stop() == 0
        assert not list(lab.directory.glob("twistd.*"))


def test_twistd_in_the_background(lab: Lab) -> None:
    """It leaves the terminal, keeps its log and pid file, and takes the pid file away at its end."""
    with Echo() as echo:
        server = Server(lab.directory)
        pid_file, log = lab.directory / "server.pid", server.log_path
        twistd = [*TWISTD, f"--pidfile={pid_file}", f"--logfile={log}"]
        done = call(lab, *twistd, "revtunnel-server", "--config", str(server.config))
        assert (done.returncode, done.stderr) == (0, "")
        wait_until(lambda: server.events("state", state="ready"), "readiness")
        pid = int(pid_file.read_text())
        try:
            lab.agent(server, offers={"it": echo.target}).start()
            wait_until(lambda: server.events("listener-opened"), "client port")
            echoed(server.events("listener-opened")[-1]["port"])
            again = call(lab, *twistd, "revtunnel-server", "--config", str(server.config))
            assert again.returncode != 0
        finally:
            os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not pid_file.exists(), "end")
        assert not server.faults()


def start(lab: Lab, *options: str, daemon: str = "server") -> tuple[int, Server]:
    """A daemon that twistd puts into the background, once it says that it is ready; its pid."""
    server = Server(lab.directory, "behind")
    pid_file, log = lab.directory / "behind.pid", server.log_path
    words = [f"--pidfile={pid_file}", f"--logfile={log}", *options]
    done = call(lab, *TWISTD, *words, f"revtunnel-{daemon}", "--config", str(server.config))
    assert (done.returncode, done.stderr) == (0, "")
    wait_until(lambda: server.events("state", state="ready"), "readiness")
    return int(pid_file.read_text()), server


def end(pid: int) -> None:
    """SIGTERM, and wait until it is gone."""
    os.kill(pid, signal.SIGTERM)
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "end")


def test_sigusr1_begins_a_new_log_file(lab: Lab) -> None:
    """As under plain twistd: the old one is .1; a file that logrotate has moved is made anew."""
    pid, server = start(lab)
    try:
        log, first = server.log_path, server.log_path.with_name(server.log_path.name + ".1")
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: log.exists() and "log-rotated" in log.read_text(), "a new file")
        assert "ready" in first.read_text() and "ready" not in log.read_text()
        log.rename(lab.directory / "moved")
        os.kill(pid, signal.SIGUSR1)
        wait_until(lambda: log.exists() and "log-rotated" in log.read_text(), "a new file")
        assert not list(lab.directory.glob("*.log.2"))
    finally:
        end(pid)
    assert "stopped" in log.read_text()


@pytest.mark.parametrize(
    "daemon",
    [
        "server",
        "agent",
        pytest.param("cccp", marks=pytest.mark.long),
        pytest.param("cameo", marks=pytest.mark.long),
    ],
)
def test_sigusr1_without_a_log_file_is_ignored(lab: Lab, daemon: str) -> None:
    """It ends no daemon, whose standard output goes to the journal."""
    config = lab.directory / "all.ini"
    sockets = {"admin": "socket", "cameo": "admin_socket", "cccp": "admin_socket"}
    config.write_text(
        "".join(f"[{section}]\n{key} = {lab.directory}/{section}.sock\n" for section, key in sockets.items())
        + "[server]\nstate_directory = none\n[listener main]\naddress = 127.0.0.1:0\n"
        "[agent]\nstate_directory = none\nservers = 127.0.0.1:9\nserial = d\nlocal = x=127.0.0.1:9\n"
        "[cccp-project main]\naddress = 127.0.0.1:0\n" + f"[pool default]\nranges = {port_block(9)}\n"
    )
    text = config.read_text().replace("[cameo]\n", f"[cameo]\nproxy_ports = {three_ports()}\n")
    config.write_text(text.replace("[cccp]\n", "[cccp]\nstate_directory = none\nhttp = 127.0.0.1:0\n"))
    command = [*FOREGROUND, f"revtunnel-{daemon}", "--config", str(config)]
    environment = Daemon(lab.directory, "none").environment()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "state=ready" in line or "state=away" in line:
                break
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGUSR1)
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        assert process.wait(20) == 0


def three_ports() -> str:
    """For the relays of CAMEO."""
    low = int(port_block(3).partition("-")[0])
    return f"{low}, {low + 1}, {low + 2}"


@pytest.mark.parametrize("way", [FOREGROUND, PLAIN], ids=["twistd", "plain"])
@pytest.mark.parametrize(
    ("daemon", "options", "words"),
    [
        ("server", ["--listen", "nowhere"], ["--listen", "nowhere"]),
        ("agent", ["--server", "127.0.0.1:1", "--local", "host"], ["--local", "host"]),
    ],
)
def test_c9_wrong_usage(lab: Lab, way: list[str], daemon: str, options: list[str], words: list[str]) -> None:
    """Status 64, what is wrong with its value, and no traceback; all words: tests/daemons/test_options.py."""
    name = daemon if way is PLAIN else f"revtunnel-{daemon}"
    done = call(lab, *way, name, *options)
    assert done.returncode == 64, done
    assert all(word in done.stderr for word in words) and "Traceback" not in done.stderr


@pytest.mark.parametrize("way", [FOREGROUND, PLAIN], ids=["twistd", "plain"])
@pytest.mark.parametrize("daemon", ["server", "agent"])
def test_c5_wrong_settings(lab: Lab, way: list[str], daemon: str) -> None:
    """Status 78 and a line for each error."""
    name = daemon if way is PLAIN else f"revtunnel-{daemon}"
    config = lab.directory / "broken.ini"
    config.write_text("[link]\nkeepalive = soon\nno_such_key = 1\n")
    done = call(lab, *way, name, "--config", str(config))
    assert done.returncode == 78, done
    assert "broken.ini:2" in done.stderr and "broken.ini:3" in done.stderr
    if way is PLAIN:
        assert call(lab, *way, name, "--config", str(lab.directory / "absent.ini")).returncode == 78


@pytest.mark.parametrize("way", [FOREGROUND, PLAIN], ids=["twistd", "plain"])
@pytest.mark.parametrize("daemon", ["server", "agent"])
def test_c9_help_version_and_check(lab: Lab, way: list[str], daemon: str) -> None:
    """Status 0; ``--check-config`` opens nothing."""
    name = daemon if way is PLAIN else f"revtunnel-{daemon}"
    for option in ("--help", "--version") if way is PLAIN else ("--help",):
        done = call(lab, *way, name, option)
        assert done.returncode == 0 and "revtunnel" in done.stdout
    config = ROOT / "etc" / "revtunnel.ini"
    more = ["--server", "127.0.0.1:1", "--serial", "plc-7", "--local", "127.0.0.1:23"]
    done = call(
        lab, *way, name, "--config", str(config), "--check-config", *(more if daemon == "agent" else [])
    )
    assert done.returncode == 0 and done.stdout.startswith("ok"), done


def test_c10_a_busy_port_under_twistd(lab: Lab) -> None:
    """Status 1 and one line, as without twistd."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        server = TwistdServer(lab.directory, settings={"listener main": {"address": address}})
        server.complains = True
        lab.add(server).start(wait=False)
        assert server.wait() == 1
        assert len(server.said().splitlines()) == 1 and "in use" in server.said()


@pytest.mark.parametrize(
    "words",
    [
        "revtunnel.daemons.run agent --help",
        "revtunnel.daemons.run server --check-config",
        "revtunnel.ctl.ctl --help",
        "revtunnel.ctl.ctl check-config",
        "revtunnel.connect.connect --help",
    ],
)
def test_a_reader_who_has_seen_enough(lab: Lab, words: str) -> None:
    """``| head``: nothing is said of the pipe that is closed."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", *words.split()],
        cwd=lab.directory,
        env=Daemon(lab.directory, "none").environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=90,
        check=False,
    )
    os.close(writing)
    assert (done.stderr, done.returncode in (0, 1)) == ("", True)
