"""revtunnelctl and a real server, each a process of its own, over a real socket."""

import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent.parent
WAIT = 90  # seconds until a hanging process is a failure
SERVER = [sys.executable, "-m", "revtunnel.daemons.run", "server"]
CTL = [sys.executable, "-m", "revtunnel.ctl.ctl"]
INI = """\
[server]
state_directory = {place}/state
drain = 5
[listener main]
address = 127.0.0.1:0
[pool default]
ranges = 29000-29009
[admin]
socket = {place}/run/admin.sock
{more}
"""


class Place:
    """A directory with settings, and the processes that were started in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ini = path / "revtunnel.ini"
        self.socket = path / "run" / "admin.sock"
        self.servers: list[subprocess.Popen[str]] = []
        self.write("")

    def write(self, more: str) -> None:
        """Other settings."""
        self.ini.write_text(INI.format(place=self.path, more=more))

    def start(self) -> "subprocess.Popen[str]":
        """A server, waited for until it answers."""
        server = self.process(SERVER, "--config", str(self.ini))
        self.servers.append(server)
        end = time.monotonic() + WAIT
        while self.ctl("ping")[0] and server.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        return server

    def process(self, command: list[str], *words: str) -> "subprocess.Popen[str]":
        """A process whose output can be read when it has ended."""
        environ = os.environ | {"PYTHONPATH": str(ROOT)}
        environ.pop("REVTUNNEL_CONFIG", None)
        return subprocess.Popen(
            [*command, *words], cwd=self.path, env=environ, text=True, stdin=-3, stdout=-1, stderr=-1
        )

    def ctl(self, *words: str) -> tuple[int, str, str]:
        """Exit status, output and errors of revtunnelctl."""
        with self.process(CTL, "--socket", str(self.socket), *words) as running:
            output, errors = running.communicate(timeout=WAIT)
        return running.returncode, output, errors

    def json(self, *words: str) -> Any:
        """What revtunnelctl says to a program; it must succeed."""
        status, output, errors = self.ctl("--json", *words)
        assert (status, errors) == (0, "")
        return json.loads(output)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A place whose servers are gone afterwards."""
    made = Place(tmp_path)
    yield made
    for server in made.servers:
        server.kill()
        server.communicate()


def test_c4_the_life_of_the_socket(place: Place) -> None:
    """Made closed to others; a second server does not start; a killed one's is replaced; gone at the end."""
    first = place.start()
    assert stat.S_IMODE(place.socket.stat().st_mode) == 0o660
    assert stat.S_IMODE(place.socket.parent.stat().st_mode) == 0o750

    second = place.process(SERVER, "--config", str(place.ini), "--state-directory", "none")
    _, errors = second.communicate(timeout=WAIT)
    assert second.returncode == 1
    assert "another server answers there" in errors
    assert "Traceback" not in errors

    first.kill()
    first.communicate()
    assert place.socket.exists()
    assert place.ctl("ping")[0] == 69
    third = place.start()
    assert place.json("ping")["state"] == "running"
    third.send_signal(signal.SIGTERM)
    assert third.wait(WAIT) == 0
    assert not place.socket.exists()


def test_every_listing_and_change_over_the_real_socket(place: Place) -> None:
    """The command finds the socket by the settings file, and the server does what it says."""
    place.start()
    assert place.json("devices") == {"devices": []}
    assert place.json("ports") == {"ports": []}
    assert place.json("channels") == {"channels": []}
    status = place.json("status")
    assert (status["state"], status["ports"]["default"]["free"]) == ("running", 10)
    assert place.json("enroll", "plc-7", "--out", "plc-7.key") == {"serial": "plc-7", "file": "plc-7.key"}
    assert (place.path / "plc-7.key").read_text().startswith("rtkey1_")
    assert place.json("enrolled") == {"enrolled": ["plc-7"]}
    assert place.ctl("kick", "plc-7") == (1, "", "revtunnelctl: plc-7 is not here\n")
    assert place.json("revoke", "plc-7") == {"revoked": "plc-7"}
    assert place.json("log-level", "debug") == {"log_level": "debug"}
    with place.process(CTL, "--config", str(place.ini), "ping") as running:
        assert running.communicate(timeout=WAIT)[0] == "running\n"


def test_c6_reload_with_wrong_settings_is_1_and_changes_nothing(place: Place) -> None:
    """Each error with file and line; then the good file is taken."""
    place.start()
    place.write("mode = wrong\n[limits]\nclints = 7\n")
    status, output, errors = place.ctl("reload")
    assert (status, output) == (1, "")
    assert f"{place.ini}:10: [admin] mode" in errors
    assert f"{place.ini}:12: [limits] clints" in errors
    assert place.ctl("ping")[0] == 0
    place.write("[limits]\nclients = 7\n")
    assert place.json("reload")["changed"] == ["[limits] clients"]


def test_watch_follows_and_drain_ends_the_server(place: Place) -> None:
    """A line for what another call did; the server ends in order and the watcher is told."""
    server = place.start()
    with place.process(CTL, "--socket", str(place.socket), "watch", "--json") as watching:
        assert watching.stdout is not None
        while not (first := _line(watching)):  # until it has begun to watch
            place.ctl("enroll", "plc-7", "--replace")
        assert json.loads(first)["event"] == "device-enrolled"
        status, output, _ = place.ctl("drain")
        assert (status, output.startswith("the server takes no new ones")) == (0, True)
        assert server.wait(WAIT) == 0
        rest, errors = watching.communicate(timeout=WAIT)
    assert watching.returncode == 69
    assert "the server closed the connection" in errors
    states = [row["state"] for row in map(json.loads, rest.splitlines()) if row["event"] == "state"]
    assert states == ["draining", "stopped"]


@pytest.mark.parametrize("inherited", [signal.SIG_DFL, signal.SIG_IGN], ids=["default", "ignored"])
def test_ctrl_c_ends_a_watch(place: Place, inherited: signal.Handlers) -> None:
    """130, and no traceback; also where the shell started it in the background, with the signal ignored."""
    place.start()
    before = signal.signal(signal.SIGINT, inherited)
    try:
        command = place.process(CTL, "--socket", str(place.socket), "watch")
    finally:
        signal.signal(signal.SIGINT, before)
    with command as watching:
        while not _line(watching):
            place.ctl("enroll", "plc-7", "--replace")
        watching.send_signal(signal.SIGINT)
        try:
            _, errors = watching.communicate(timeout=WAIT)
        finally:
            watching.kill()  # or its end would be waited for without a limit
    assert (watching.returncode, errors) == (130, "")


def test_c2_c3_a_caller_who_stalls_hurts_nobody(place: Place) -> None:
    """Half a command and silence on all of its connections: another user's command is answered."""
    place.start()
    stalled = [socket.socket(socket.AF_UNIX) for _ in range(10)]
    for each in stalled:
        each.connect(str(place.socket))
        each.sendall(b"\x00\x08_comm")
    assert place.ctl("status")[0] == 0
    for each in stalled:
        each.close()


def test_a_reader_of_our_output_who_leaves_is_no_traceback(place: Place) -> None:
    """``revtunnelctl status | true``."""
    place.start()
    running = place.process(CTL, "--socket", str(place.socket), "status")
    assert running.stdout is not None
    assert running.stderr is not None
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait(WAIT) == 1
    running.stderr.close()


def _line(running: "subprocess.Popen[str]") -> str:
    """A line of output, if one comes soon."""
    ready, _, _ = select.select([running.stdout], [], [], 0.5)
    return running.stdout.readline() if ready and running.stdout else ""


# ---- people and the audit file


def test_people_outlive_a_killed_server_and_the_audit_tells_of_them(place: Place) -> None:
    """Users, grants and mutes are there again; the chain goes on over a kill, a restart and a moved file."""
    place.write("[device plc-7]\nlabels = line=3\n")
    server = place.start()
    status, token, _ = place.ctl("user", "add", "ana")
    assert (status, token.startswith("rtuser1_")) == (0, True)
    assert place.ctl("grant", "ana", "label=line=3", "ssh")[0] == 0
    assert place.ctl("mute", "plc-9", "--why", "a press is being mended")[0] == 0
    head = place.ctl("audit", "head")[1].strip()
    server.kill()
    server.wait(WAIT)
    server = place.start()
    assert place.ctl("may", "ana", "start", "plc-7/ssh")[0] == 0
    assert place.ctl("may", "ana", "start", "plc-8/ssh")[0] == 1
    assert [row["why"] for row in place.json("muted")["muted"]] == ["a press is being mended"]
    place.write("[device plc-7]\nlabels = line=4\n[audit]\nfull = go-on\n")
    changed = place.json("reload")["changed"]
    assert set(changed) == {"[device plc-7] labels", "[audit] full"}
    assert place.ctl("may", "ana", "start", "plc-7/ssh")[0] == 1
    assert place.ctl("user", "remove", "ana")[0] == 0
    server.terminate()
    server.wait(WAIT)
    verified = place.ctl("--config", str(place.ini), "audit", "verify", "--head", head)
    assert (verified[0], verified[2]) == (0, "")
    assert verified[1].endswith(": unbroken\n") and "not closed" not in verified[1]
    audit = place.path / "state" / "audit.jsonl"
    assert stat.S_IMODE(audit.stat().st_mode) == 0o640
    told = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [line.get("operation", line["event"]) for line in told] == [
        *("audit-opened", "user-added", "grant-added", "device-muted"),
        *("audit-opened", "user-removed", "audit-closed"),
    ]
    assert token.strip() not in audit.read_text()
    audit.write_text(audit.read_text().replace('"plc-9"', '"plc-8"'))
    status, said, _ = place.ctl("--config", str(place.ini), "audit", "verify")
    assert (status, said) == (1, f"{audit}:4: was changed: it does not match its own hash\n")


def test_an_audit_file_that_cannot_be_had_stops_the_start(place: Place) -> None:
    """One clear line; nothing is listened on."""
    target = place.path / "elsewhere"
    target.touch()
    (place.path / "link.jsonl").symlink_to(target)
    place.write(f"[audit]\nfile = {place.path}/link.jsonl\n")
    server = place.process(SERVER, "--config", str(place.ini))
    output, errors = server.communicate(timeout=WAIT)
    assert server.returncode == 78
    assert "is a symbolic link, a plain file wanted" in output + errors
    assert "Traceback" not in output + errors
