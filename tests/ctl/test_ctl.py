"""revtunnelctl over the real door in memory: what it prints, what it ends with."""

import errno
import json
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed

from revtunnel.ctl.command_line import parser
from revtunnel.ctl.ctl import main
from revtunnel.ctl.ctl_files import find_socket
from revtunnel.ctl.manual import printed
from revtunnel.ctl.subcommands import GROUPS
from revtunnel.fleet.device_records import DeviceRecord, DeviceRecords, parse_pattern
from revtunnel.link.keys import parse_key
from revtunnel.settings.inifile import SettingsError, Surroundings
from tests.support.room import SOCKET, Room

Capture = pytest.CaptureFixture[str]


def ended(*words: str) -> int:
    """The exit status of the whole command, for what needs no server."""
    with pytest.raises(SystemExit) as end:
        main(list(words))
    return int(end.value.code or 0)


# ---- looking


def test_devices_for_people(capsys: Capture) -> None:
    """Every column the operator needs, aligned, with units."""
    room = Room(serials=("plc-1", "plc-22"))
    client, _ = room.talk("console", "plc-22")
    client.say(b"x" * 3000)
    room.agents["plc-1"].uplink.stop(0.0)
    room.pump()
    assert room.ctl("devices") == 0
    head, away, online = capsys.readouterr().out.splitlines()
    heads = "SERIAL STATE SINCE LINK ADDRESS TARGETS PORTS CHANNELS TO-DEVICE TO-CLIENT ROUND-TRIP"
    assert head.split() == heads.split()
    assert online.index("online") == away.index("away") == head.index("STATE")
    wanted = r"plc-22 +online +\S+ +rt1 +127.0.0.1:\d+ +console, web +2\d{4}, 2\d{4} +1 +2.9 KiB +0 B .*"
    assert re.fullmatch(wanted, online)
    assert re.fullmatch(r"plc-1 +away +\S+ +- +- +console, web .* -", away)


def test_ports_for_people_say_target_and_port(capsys: Capture) -> None:
    """One can search for ``plc-1/web -> 20001``."""
    room = Room()
    assert room.ctl("ports") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("plc-1/console -> 20000  ")
    assert lines[2].startswith("plc-1/web -> 20001 ")
    assert lines[2].split()[3:] == ["reserved", "yes", "127.0.0.1", "default", "-"]


def test_channels_for_people(capsys: Capture) -> None:
    """Of all devices, or of one; where there are none, that is said beside the output."""
    room = Room(serials=("plc-1", "plc-2"))
    room.talk("web", "plc-2")
    assert room.ctl("channels") == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:3] == ["plc-2", "1", "web"]
    assert room.ctl("channels", "plc-1") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "revtunnelctl: no channels\n")
    assert room.ctl("muted") == 0
    assert capsys.readouterr().err == "revtunnelctl: none\n"


def test_the_record_of_one_device_for_people(capsys: Capture) -> None:
    """Where it comes from, and every rule, with words for any, none and never."""
    room = Room()
    assert room.ctl("device", "plc-1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["serial:   plc-1, online", "record:   none, everything is allowed", "clients:  any"]
    assert lines[-1] == "expires:  never"
    record = DeviceRecord(clients=(), targets=(parse_pattern("*:23"),), channels=3, expires=1_767_225_600.0)
    room.switchboard.access.records = DeviceRecords({"*": record})
    assert room.ctl("device", "plc-1") == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "record:   [device *]",
        "clients:  none",
        "targets:  *:23",
        "ports:    any",
        "channels: 3",
        "expires:  2025-12-31",
    ]
    assert room.ctl("device", "no serial") == 64


def test_a_record_is_laid_down_shown_and_reset(capsys: Capture) -> None:
    """With who did it; all else is from the settings."""
    room = Room()
    room.switchboard.access.records = DeviceRecords({"*": DeviceRecord(channels=3)})
    assert room.ctl("record", "edit", "plc-1", "--labels", "line=3,hall-b", "--at-once", "1") == 0
    assert capsys.readouterr().out == "the record of plc-1 is changed\n"
    assert room.ctl("record", "show", "plc-1") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["channels", "3", "[device", "*]"] in lines and ["at_once", "1", "root"] in lines
    assert ["labels", "line=3,", "hall-b", "root"] in lines
    assert room.ctl("device", "plc-1") == 0
    assert "laid down: at_once, labels" in capsys.readouterr().out
    assert room.ctl("record", "edit", "plc-1") == 64
    assert room.ctl("record", "reset", "plc-1", "--keys", "labels") == 0
    assert room.ctl("record", "reset", "plc-1") == 0
    assert room.ctl("record", "reset", "plc-1") == 1


def test_status_and_ping_for_people(capsys: Capture) -> None:
    """The state; while it drains a ping asks to try again, so that a health check sees it."""
    room = Room()
    assert room.ctl("status") == 0
    out = capsys.readouterr().out
    assert "state:    running\n" in out
    assert re.search(r"^default +100 +98 +2 +0 ", out, re.MULTILINE)
    assert room.ctl("ping") == 0
    room.operator.on_drain = room.switchboard.drain
    assert room.ctl("drain") == 0
    assert room.ctl("ping") == 75
    assert capsys.readouterr().out.splitlines()[-1] == "draining"


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        (["devices"], {"devices"}),
        (
            ["device", "plc-9"],
            {
                "serial",
                "online",
                "record",
                "expired",
                "locked",
                "labels",
                "muted",
                "kept",
                "services",
                "sessions",
            }
            | {"clients", "targets", "ports", "leases", "channels", "at_once", "expires", "web", "web_host"},
        ),
        (["ports"], {"ports"}),
        (["channels"], {"channels"}),
        (["channels", "plc-9"], {"channels"}),
        (["enrolled"], {"enrolled"}),
        (["ping"], {"state", "name", "version"}),
        (["close", "plc-1", "1"], {"closed"}),
        (["kick", "plc-1", "--retry-after", "9"], {"kicked", "retry_after"}),
        (["enroll", "plc-2"], {"serial", "key"}),
        (["revoke", "plc-3"], {"revoked"}),
        (["drain"], {"draining"}),
        (["reload"], {"changed", "needs_restart", "errors"}),
        (["log-level", "debug"], {"log_level"}),
        (["users"], {"users"}),
        (["mute", "plc-9"], {"muted"}),
        (["muted"], {"muted"}),
        (["audit", "head"], {"file", "seq", "hash", "open", "problem"}),
    ],
)
def test_json_for_programs(capsys: Capture, words: list[str], keys: set[str]) -> None:
    """One line, one object, the same keys whether or not there is anything; before or behind the command."""
    room = Room()
    room.operator.on_reload = lambda: succeed({"changed": [], "needs_restart": [], "errors": []})
    room.ledger.put_key("plc-3", bytes(32), bytes(32))
    room.talk()
    order = [*words, "--json"] if len(words) > 1 else ["--json", *words]
    assert room.ctl(*order) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    (line,) = captured.out.splitlines()
    assert set(json.loads(line)) == keys


def test_json_rows_are_those_of_the_operator(capsys: Capture) -> None:
    """Nothing is lost or renamed on the way."""
    room = Room()
    room.ctl("devices", "--json")
    assert json.loads(capsys.readouterr().out)["devices"] == room.operator.devices()[0]
    room.ctl("status", "--json")
    assert json.loads(capsys.readouterr().out) == room.operator.status()


def test_what_a_device_says_of_itself_cannot_move_the_cursor(capsys: Capture) -> None:
    """Control characters of any value are shown, not obeyed, in tables, JSON, watch and errors."""
    room = Room()
    evil = "\x1b[2Jx\r\n\x07\x9b\u202e"
    rows = room.operator.devices()[0]
    room.operator.devices = lambda **_: ([{**rows[0], "serial": evil, "address": evil}], None)  # type: ignore[method-assign]
    room.ctl("devices")
    room.ctl("devices", "--json")
    assert room.ctl("kick", evil) == 64
    captured = capsys.readouterr()
    assert "\\x1b[2Jx\\r\\n\\x07\\x9b\\u202e" in captured.out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", captured.out + captured.err)
    assert len(captured.out.splitlines()) == 3


# ---- watch


def test_watch_prints_what_happens_and_ends_after_n(capsys: Capture) -> None:
    """As log lines for people, as JSON lines for programs."""
    room = Room()
    assert room.ctl("watch", "--count", "1", meanwhile=lambda: room.talk() and None) == 0
    line = capsys.readouterr().out
    assert re.fullmatch(r"2027-01-15T08:00:\S+Z debug channel-opened serial=plc-1 channel=1 .*\n", line)

    def close() -> None:
        room.operator.close("plc-1", 1, "anna")

    assert room.ctl("watch", "--count", "1", "--json", meanwhile=close) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["event"], row["reason"], row["level"]) == ("channel-ended", "operator", "info")


def test_watch_ends_with_the_server(capsys: Capture) -> None:
    """69, and a word why."""
    room = Room()

    def stop() -> None:
        for protocol in list(room.factory.present):
            protocol.leave()

    assert room.ctl("watch", meanwhile=stop) == 69
    assert capsys.readouterr().err == "revtunnelctl: the server closed the connection\n"


# ---- changing


def test_close_kick_release_revoke_do_it(capsys: Capture) -> None:
    """Done and said; done twice is not found."""
    room = Room()
    client, _ = room.talk()
    room.ledger.put_key("plc-3", bytes(32), bytes(32))
    assert room.ctl("close", "plc-1", "1") == 0
    assert client.was_reset
    assert room.ctl("close", "plc-1", "1") == 1
    assert room.ctl("release", "plc-1/web") == 1
    assert room.ctl("kick", "plc-1", "--retry-after", "3000") == 0
    assert room.ctl("release", "plc-1/web") == 0
    assert room.ctl("revoke", "plc-3") == 0
    assert room.ctl("revoke", "plc-3") == 1
    captured = capsys.readouterr()
    assert "port 20001 of plc-1/web is given back" in captured.out
    assert captured.err.splitlines() == [
        "revtunnelctl: no channel 1 of plc-1 is open",
        "revtunnelctl: plc-1 is here; kick it first",
        "revtunnelctl: plc-3 has no key, no certificate and no token",
    ]


@pytest.mark.parametrize(
    "words",
    [
        *(["kick"], ["close", "1"], ["channels"], ["sessions"], ["device"]),
        *(["enroll"], ["revoke"], ["mute"], ["unmute"]),
    ],
    ids=lambda words: words[0],
)
def test_a_serial_that_is_none_is_wrong_usage(capsys: Capture, words: list[str]) -> None:
    """64 as docs/admin.rst says, whatever is done with it; nothing is looked up."""
    room, (command, *rest) = Room(), words
    for serial in ("no serial", "", "a" * 65, "caf\u00e9"):
        assert room.ctl(command, serial, *rest) == 64
        assert "serial" in capsys.readouterr().err
    assert room.ctl("release", "no serial/web") == 64


def test_enroll_prints_the_key_and_how_to_use_it(capsys: Capture) -> None:
    """Standard output is the key alone, fit for a file; the agent's command line stands beside it."""
    room = Room()
    assert room.ctl("enroll", "plc-2") == 0
    captured = capsys.readouterr()
    parse_key(captured.out)
    assert len(captured.out.splitlines()) == 1
    assert "revtunnel-agent --serial plc-2 --key-file plc-2.key --server HOST:PORT" in captured.err
    assert room.ctl("enroll", "plc-2") == 1
    assert room.ctl("enroll", "plc-2", "--replace") == 0
    assert room.ctl("enroll", "plc 2") == 64


def test_enroll_makes_the_app_key_of_a_thingworx_device(capsys: Capture, tmp_path: Path) -> None:
    """Once, alone on standard output or in a file; it goes with the other keys when the device is revoked."""
    room = Room()
    assert room.ctl("enroll", "Robot1", "--app-key") == 0
    captured = capsys.readouterr()
    assert room.operator.app_keys.serial_of(captured.out.strip()) == "Robot1"
    assert "[device Robot1] services" in captured.err
    assert room.ctl("enroll", "Robot1", "--app-key") == 1
    path = tmp_path / "Robot1.key"
    assert room.ctl("enroll", "Robot1", "--app-key", "--replace", "--out", str(path)) == 0
    assert room.operator.app_keys.serial_of(captured.out.strip()) is None
    assert room.operator.app_keys.serial_of(path.read_text().strip()) == "Robot1"
    assert room.operator.enrolled() == (["Robot1"], None)
    assert room.ctl("revoke", "Robot1") == 0
    assert room.operator.app_keys.serial_of(path.read_text().strip()) is None


def test_enroll_writes_the_key_into_a_file_of_its_own(capsys: Capture, tmp_path: Path) -> None:
    """Mode 0600, not shown; an existing file stays unless it shall be replaced, and no key is made for it."""
    room = Room()
    path = tmp_path / "plc-2.key"
    assert room.ctl("enroll", "plc-2", "--out", str(path)) == 0
    key = path.read_text()
    parse_key(key)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    captured = capsys.readouterr()
    assert key.strip() not in captured.out + captured.err
    assert f"--key-file {path} " in captured.err

    before = room.ledger.key_of("plc-2")
    assert room.ctl("enroll", "plc-3", "--out", str(path)) == 1
    assert room.ctl("enroll", "plc-2", "--out", str(tmp_path / "none" / "key")) == 1
    assert room.ctl("enroll", "plc-2", "--out", str(tmp_path / "other")) == 1
    assert (room.ledger.key_of("plc-2"), room.ledger.key_of("plc-3")) == (before, None)
    assert path.read_text() == key
    assert [each.name for each in tmp_path.iterdir()] == ["plc-2.key"]

    assert room.ctl("enroll", "plc-2", "--out", str(path), "--replace", "--json") == 0
    assert path.read_text() != key
    assert json.loads(capsys.readouterr().out) == {"serial": "plc-2", "file": str(path)}


def test_a_key_that_is_not_on_the_disk_is_a_remark(capsys: Capture) -> None:
    """It counts, status 0, but the operator must know."""
    room = Room()
    room.ledger._connection.execute("PRAGMA query_only = ON")
    assert room.ctl("enroll", "plc-2") == 0
    assert "a restart would forget it" in capsys.readouterr().err


def test_c6_reload_ends_with_1_when_the_settings_are_wrong(capsys: Capture) -> None:
    """Every error on standard error; what changed, and what waits for a restart, on standard output."""
    room = Room()
    row: dict[str, list[str]] = {"changed": ["[limits] clients"], "needs_restart": ["[pool x]"], "errors": []}
    room.operator.on_reload = lambda: succeed(row)
    assert room.ctl("reload") == 0
    assert capsys.readouterr().out == "changed: [limits] clients\nneeds a restart: [pool x]\n"
    row.update(errors=["[listener x] address: 10.0.0.1:2 cannot be opened: no"])
    assert room.ctl("reload") == 1
    out, err = capsys.readouterr()
    assert out == "changed: [limits] clients\nneeds a restart: [pool x]\n" and "all else is in force" in err
    row.update(changed=[], needs_restart=[], errors=["a.ini:1: first", "a.ini:2: second"])
    assert room.ctl("reload") == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.partition(": ")[2] for line in captured.err.splitlines()] == [
        "a.ini:1: first",
        "a.ini:2: second",
        "the settings are wrong; the old ones stay",
    ]
    assert room.ctl("reload", "--json") == 1
    assert json.loads(capsys.readouterr().out) == row
    row.update(errors=[])
    assert room.ctl("reload") == 0
    assert capsys.readouterr().out == "nothing has changed\n"


# ---- exit status


def test_c1_a_reader_is_denied(capsys: Capture) -> None:
    """77, with who may not do what."""
    room = Room()
    room.caller = room.caller._replace(uid=1003, name="rita")
    assert room.ctl("devices") == 0
    assert room.ctl("kick", "plc-1") == 77
    assert capsys.readouterr().err == "revtunnelctl: rita may not kick, only look\n"


def test_no_answer_in_time_is_try_again(capsys: Capture) -> None:
    """A server that hangs after accepting: 75 after the time given, not for ever."""
    room = Room()
    room.operator.on_reload = lambda: Deferred()
    before = room.clock.seconds()
    assert room.ctl("--timeout", "3", "reload") == 75
    assert room.clock.seconds() - before == pytest.approx(3.0, abs=0.1)
    assert "no answer within 3 seconds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "no"), 69),
        (PermissionError(errno.EACCES, "no"), 77),
        (FileNotFoundError(errno.ENOENT, "no"), 69),
        (BlockingIOError(errno.EAGAIN, "full"), 75),
        (TimeoutError("hangs"), 75),
    ],
)
def test_nobody_at_the_socket(capsys: Capture, fault: Any, status: int) -> None:
    """No server 69, not ours 77, no answer 75; each names the socket."""
    room = Room()
    room.reactor.faults[SOCKET, 0] = fault
    assert room.ctl("ping") == status
    assert SOCKET in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["explode"],
        ["devices", "plc-1"],
        ["close", "plc-1"],
        ["close", "plc-1", "2147483648"],
        ["close", "plc-1", "one"],
        ["kick"],
        ["kick", "plc-1", "--retry-after", "65536"],
        ["release", "plc-1"],
        ["release", "/web"],
        ["watch", "--count", "0"],
        ["log-level", "loud"],
        ["--timeout", "nan", "ping"],
        ["ping", "--nonsense"],
    ],
)
def test_c9_wrong_usage_is_64(capsys: Capture, words: list[str]) -> None:
    """What was wrong and where help is, on standard error; nothing on standard output."""
    assert ended(*words) == 64
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("revtunnelctl: ")
    assert captured.err.endswith("revtunnelctl: try: revtunnelctl --help\n")


def test_c9_help_and_version(capsys: Capture) -> None:
    """Both on standard output, status 0; every subcommand is listed and has help of its own."""
    assert ended("--version") == 0
    assert re.fullmatch(r"revtunnelctl \S+\n", capsys.readouterr().out)
    assert ended("--help") == 0
    shown = capsys.readouterr().out
    for name in ("status", "devices", "ports", "channels", "close", "kick", "release", "enroll", "revoke",
                 "enrolled", "drain", "reload", "watch", "log-level", "check-config", "ping"):  # fmt: skip
        assert re.search(rf"^ +{name}( |$)", shown, re.MULTILINE)
        assert ended(name, "--help") == 0
        assert "--json" in capsys.readouterr().out


def test_a_command_imports_what_it_needs() -> None:
    """No Twisted, no cryptography and no table of settings for a ping: they cost more than all the rest."""
    script = """if True:
        import sys
        from revtunnel.ctl.ctl import main
        try:
            main(["--socket", "/nowhere/at/all", "ping"])
        except SystemExit as end:
            print(end.code, *sorted(sys.modules))
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    status, *modules = done.stdout.split()
    assert status == "69", done
    assert "revtunnel.process.admin.admin_client" in modules
    dear = {
        "twisted",
        "zope",
        "cryptography",
        "OpenSSL",
        "asyncio",
        "dataclasses",
        "revtunnel.daemons.schema",
    }
    assert dear.isdisjoint(modules)


# ---- files


def around(tmp_path: Path, root: bool = False, **environ: str) -> Surroundings:
    """A process whose home is the test's."""
    return Surroundings(environ, root, str(tmp_path), "host", str(tmp_path / "revtunnel.ini"))


def test_the_socket_is_found(tmp_path: Path) -> None:
    """Named; in the settings file; else the first usual place where there is one, else the first."""
    own = tmp_path / ".local/state/revtunnel/admin.sock"
    assert find_socket("/x/y", None, around(tmp_path)) == "/x/y"
    assert find_socket(None, None, around(tmp_path)) == str(own)
    run = tmp_path / "run" / "revtunnel"
    run.mkdir(parents=True)
    (run / "admin.sock").touch()
    assert find_socket(None, None, around(tmp_path, XDG_RUNTIME_DIR=str(run.parent))) == str(
        run / "admin.sock"
    )
    (tmp_path / "revtunnel.ini").write_text("[admin]\nsocket = /from/the.file\n")
    assert find_socket(None, None, around(tmp_path)) == "/from/the.file"
    other = tmp_path / "other.ini"
    other.write_text("[admin]\nsocket = /from/other\n[server]\nnonsense = 1\n")
    assert find_socket(None, str(other), around(tmp_path)) == "/from/other"


def test_root_also_finds_the_socket_of_a_server_of_its_own(tmp_path: Path) -> None:
    """Started by hand below the home directory, where the system's is not there."""
    own = tmp_path / ".local/state/revtunnel/admin.sock"
    own.parent.mkdir(parents=True)
    own.touch()
    found = find_socket(None, None, around(tmp_path, root=True))
    assert found in (str(own), "/run/revtunnel/admin.sock")
    assert found == str(own) or Path(found).exists()


def test_c5_a_settings_file_that_cannot_name_the_socket(tmp_path: Path) -> None:
    """Missing, or wrong just there: its errors, not a guess."""
    with pytest.raises(SettingsError):
        find_socket(None, str(tmp_path / "none.ini"), around(tmp_path))
    wrong = tmp_path / "wrong.ini"
    wrong.write_text("[admin]\nsocket = relative\n")
    with pytest.raises(SettingsError, match=r"wrong\.ini:2"):
        find_socket(None, str(wrong), around(tmp_path))
    assert ended("--config", str(wrong), "ping") == 78


def test_c5_check_config_needs_no_server(capsys: Capture, tmp_path: Path) -> None:
    """ok and 0, or every error and 78; the same file by argument or option; JSON too."""
    good, bad = tmp_path / "good.ini", tmp_path / "bad.ini"
    good.write_text("[server]\nname = gate\n")
    bad.write_text("[server]\nnmae = gate\n\n[limits]\nclients = many\n")
    assert ended("check-config", str(good)) == 0
    assert capsys.readouterr().out.startswith("ok\n")
    assert ended("check-config", "--config", str(bad)) == 78
    errors = capsys.readouterr().err
    assert f"{bad}:2" in errors
    assert f"{bad}:5" in errors
    assert ended("--json", "check-config", str(good)) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "errors": []}
    assert ended("--json", "check-config", str(bad)) == 78
    assert len(json.loads(capsys.readouterr().out)["errors"]) == 2


def test_the_manual_and_the_page_have_every_command() -> None:
    """Nothing can be done that is not described, and what is printed from the rows is up to date."""
    root = Path(__file__).parents[2]
    for path, parts in (("docs/admin.rst", 3), ("docs/api.rst", 1), ("man/revtunnelctl.1", 3)):
        text = (root / path).read_text()
        assert text.count("begin ") >= parts
        assert printed(text) == text, f"python -m revtunnel.ctl.manual {path}"
    manual = (root / "man" / "revtunnelctl.1").read_text().replace("\\-", "-")
    page = (root / "docs" / "admin.rst").read_text()
    (commands,) = [each.choices for each in parser()._actions if isinstance(each.choices, dict)]
    for name, command in commands.items():
        assert re.search(rf"^\.BI?R? {name.partition(' ')[0]}( |$)", manual, re.MULTILINE)
        assert name in GROUPS or re.search(rf"^   \* - ``{name}( |``)", page, re.MULTILINE)
        for option in command._option_string_actions:
            assert option in manual
