"""Starting a daemon: exit codes and words, the same from our command and from twistd.

A stand-in daemon is written into a directory of its own; what starts it, twistd included, is the real thing.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.scripts import twistd

from revtunnel.daemons.run import AGENT, SERVER, DaemonMaker
from tests.support.traffic import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT = 90  # seconds until a hanging process is a failure

STAND_IN = """
import os, sys
from twisted.application.service import MultiService, Service
from twisted.internet import endpoints, protocol, reactor
from twisted.logger import Logger
from twisted.python import usage
from revtunnel.process.process import ExitStatus, SignalService
from revtunnel.ground.errors import SettingsError
from revtunnel.process.systemd import Notifier

class Options(usage.Options):
    synopsis = "Usage: stand-in [options]"
    optParameters = [[name, None, None] for name in ("log-format", "log-level", "port", "do")]

    def opt_version(self):
        print("stand-in 1.0")
        sys.exit(0)

    def postOptions(self):
        if self["do"] == "post-settings":
            raise SettingsError(["a.ini:1: first", "a.ini:2: second"])

class Daemon(Service):
    def __init__(self, options):
        self.options = options
    def privilegedStartService(self):
        reactor.listenTCP(int(self.options["port"] or 0), protocol.Factory(), interface="127.0.0.1")
    def startService(self):
        super().startService()
        if self.options["do"] == "bug":
            raise ZeroDivisionError("the bug")
        if self.options["do"] == "end":
            reactor.callWhenRunning(self.options.exit.end, 75)
        else:
            reactor.callWhenRunning(Logger().info, "state", event="state", state="ready")
    def drain(self):
        Logger().info("state", event="state", state="draining")
    def abort(self):
        pass
    def reload(self):
        Logger().info("state", event="state", state="reloaded")

def makeService(options):
    if options["do"] == "make-settings":
        raise SettingsError(["a.ini:3: third"])
    options.exit = ExitStatus(reactor)
    root, daemon = MultiService(), Daemon(options)
    daemon.setServiceParent(root)
    SignalService(reactor, daemon, options.exit, Notifier(None), 5.0).setServiceParent(root)
    return root
"""
PLUGIN = """
from revtunnel.daemons.run import DaemonMaker
standin = DaemonMaker("stand-in", "standin", "a daemon that does nothing")
"""
COMMAND = "import sys; from revtunnel.daemons.run import run, DaemonMaker; "
COMMAND += "run(DaemonMaker('stand-in', 'standin', ''), sys.argv[1:])"
OURS = [sys.executable, "-c", COMMAND]
RUN_TWISTD = "from twisted.scripts.twistd import run; run()"
TWISTD = [sys.executable, "-c", RUN_TWISTD, "--nodaemon", "--pidfile=", "stand-in"]
BOTH = pytest.mark.parametrize("command", [OURS, TWISTD], ids=["ours", "twistd"])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with the stand-in daemon and its plugin."""
    (tmp_path / "standin.py").write_text(STAND_IN)
    (tmp_path / "twisted" / "plugins").mkdir(parents=True)
    (tmp_path / "twisted" / "plugins" / "standin_plugins.py").write_text(PLUGIN)
    return tmp_path


def started(place: Path, command: list[str], *arguments: str) -> "subprocess.Popen[str]":
    """The daemon as a process of its own."""
    environ = os.environ | {"PYTHONPATH": f"{place}:{ROOT}"}
    return subprocess.Popen(
        [*command, *arguments],
        cwd=place,
        env=environ,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=-1,
        stderr=-1,
    )


def finished(place: Path, command: list[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a daemon that ends by itself."""
    with started(place, command, *arguments) as process:
        try:
            output, errors = process.communicate(timeout=WAIT)
        finally:
            process.kill()
    return process.returncode, output, errors


@pytest.fixture
def busy_port() -> Iterator[int]:
    """A port that is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_the_daemons_and_their_names() -> None:
    """Plugin and command share one name, and their modules are where the plugins look."""
    assert [(maker.tapname, maker.module) for maker in (SERVER, AGENT)] == [
        ("revtunnel-server", "revtunnel.daemons.server"),
        ("revtunnel-agent", "revtunnel.daemons.agent"),
    ]
    assert isinstance(SERVER, DaemonMaker)


@pytest.mark.slow
@BOTH
def test_c9_help_and_version(place: Path, command: list[str]) -> None:
    """Both answer on standard output with status 0, and usage names the command that was given."""
    status, output, _ = finished(place, command, "--version")
    assert (status, output.strip()) == (0, "stand-in 1.0")
    status, output, _ = finished(place, command, "--help")
    assert status == 0
    by = "" if command is OURS else "twistd [options] "
    assert output.startswith(f"Usage: {by}stand-in [options]\n")
    assert "--log-format" in output


@pytest.mark.slow
@BOTH
def test_c9_wrong_usage_is_64(place: Path, command: list[str]) -> None:
    """An unknown option, a stray word, a wrong level: the command's own name, and where help is."""
    for wrong in (["--nonsense"], ["stray"], ["--log-level", "loud"], ["--log-format", "xml"]):
        status, output, errors = finished(place, command, *wrong)
        assert status == 64
        assert output == ""
        assert re.fullmatch(r"stand-in: .*\nstand-in: try: stand-in --help\n", errors)


@pytest.mark.slow
@BOTH
def test_c5_wrong_settings_are_78_with_every_line(place: Path, command: list[str]) -> None:
    """Found while options are read or while the service is made: every error, no traceback."""
    status, _, errors = finished(place, command, "--do", "post-settings")
    assert (status, errors) == (78, "stand-in: a.ini:1: first\nstand-in: a.ini:2: second\n")
    status, _, errors = finished(place, command, "--do", "make-settings")
    assert (status, errors) == (78, "stand-in: a.ini:3: third\n")


@pytest.mark.slow
@BOTH
def test_c10_a_busy_port_is_1_in_clear_words(place: Path, command: list[str], busy_port: int) -> None:
    """What cannot be opened is named, without a traceback."""
    status, output, errors = finished(place, command, "--port", str(busy_port))
    assert status == 1
    assert errors.startswith(f"stand-in: cannot start: Couldn't listen on 127.0.0.1:{busy_port}: ")
    assert "Traceback" not in output + errors


@pytest.mark.slow
@BOTH
def test_a_bug_is_1_with_its_traceback(place: Path, command: list[str]) -> None:
    """What is our fault is shown in full."""
    status, output, errors = finished(place, command, "--do", "bug")
    assert status == 1
    assert "ZeroDivisionError: the bug" in output + errors


@pytest.mark.slow
@BOTH
def test_a_service_chooses_the_exit_status(place: Path, command: list[str]) -> None:
    """A service that ends the process says with what."""
    assert finished(place, command, "--do", "end")[0] == 75


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_n19_n20_signals_of_a_real_process(place: Path, command: list[str], number: int) -> None:
    """Hang-ups reload once, the first stop signal ends the process well: status 0, also under twistd."""
    with started(place, command, "--log-format", "json") as process:
        assert process.stdout is not None
        states = []
        try:
            for line in process.stdout:
                states.append(json.loads(line).get("state"))
                if states[-1] == "ready":
                    for _ in range(5):
                        process.send_signal(signal.SIGHUP)
                if states[-1] == "reloaded":
                    process.send_signal(number)
            assert process.wait(WAIT) == 0
        finally:
            process.kill()
    assert [state for state in states if state] == ["ready", "reloaded", "draining"]


@pytest.mark.slow
def test_twistds_own_log_file_is_kept(place: Path) -> None:
    """--logfile still says where lines go; --syslog and --logger would leave them to twistd."""
    command = [*TWISTD[:-1], "--logfile=own.log", TWISTD[-1]]
    status, output, _ = finished(place, command, "--do", "end")
    assert (status, output) == (75, "")
    assert "reactor class" in (place / "own.log").read_text()


@pytest.mark.slow
def test_daemonising_twistd_starts_and_stops(place: Path, busy_port: int) -> None:
    """In the background: a failed start is told; after a good one there is a pid file, until the end."""
    command = [*TWISTD[:-3], "--pidfile=own.pid", TWISTD[-1]]
    status, _, errors = finished(place, command, "--port", str(busy_port))
    assert status == 1
    assert "CannotListenError" in errors
    assert finished(place, command)[0] == 0
    pid_file, log = place / "own.pid", place / "twistd.log"
    wait_until(lambda: "ready" in log.read_text(), "ready")  # twistd returns before its reactor runs
    os.kill(int(pid_file.read_text()), signal.SIGTERM)
    wait_until(lambda: not pid_file.exists(), "end")
    assert "draining" in log.read_text()


def test_every_option_of_twistd_is_described() -> None:
    """The table in docs/operations.rst says what each does with our daemons, and names no other."""
    text = (ROOT / "docs/operations.rst").read_text(encoding="utf-8")
    table = text.partition("Under twistd\n---")[2].partition("\nLogs\n")[0]
    heads = "".join(line for line in table.splitlines() if line.startswith("   * - "))
    described = set(re.findall(r"``--([a-z_-]+)", heads))
    options = [name.rstrip("=") for name in twistd.ServerOptions().longOpt]  # type: ignore[attr-defined]
    assert described == {*options}


def test_an_agent_imports_nothing_that_only_servers_need() -> None:
    """It stands on small machines: no state file, no WebSocket, no settings of others, until wanted."""
    asked = "import sys, revtunnel.daemons.agent; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, check=True, timeout=60
    )
    loaded = set(done.stdout.split())

    assert "revtunnel.link.agent_link" in loaded
    for name in ("sqlite3", "websockets", "prometheus_client", "argon2", "sortedcontainers", "automat"):
        assert name not in loaded, name
    rooms = {name.split(".")[2] for name in loaded if name.startswith("revtunnel.systems.")}
    assert rooms <= {"emo"}, rooms
    for name in (
        "daemons.server_settings",
        "link.server_link",
        "link.legacy",
        "state.state_file",
        "sockets.ways.websocket",
    ):
        assert f"revtunnel.{name}" not in loaded, name


def test_the_file_that_an_agent_shares_with_a_server_is_read_whole(tmp_path: Path) -> None:
    """Sections of others are checked like its own."""
    file = tmp_path / "revtunnel.ini"
    file.write_text("[agent]\nservers = 127.0.0.1:1\nlocal = 127.0.0.1:23\n[pool default]\nranges = 7-3\n")
    asked = (
        "from revtunnel.daemons.run import main; main(['agent', '--check-config', '--config', sys.argv[1]])"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {asked}", str(file)], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 78
    assert f"{file}:5: [pool default] ranges" in done.stderr
