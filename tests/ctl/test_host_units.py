"""install-units below a directory: what it writes, keeps and takes away. Systemd's tools are only counted."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from revtunnel.ctl.command_line import parser
from revtunnel.ctl.ctl_files import Wrong
from revtunnel.ctl.host_units import Host, install_units, shipped
from revtunnel.daemons.agent_reading import load_agent
from revtunnel.ground.errors import SettingsError
from revtunnel.settings.inifile import Surroundings

UNIT = "etc/systemd/system/revtunnel-server.service"
INI = "etc/revtunnel/revtunnel.ini"
PUBLIC = ("--public", "gate.example", "--clients", "10.1.0.0/16")
AGENT = ("--agent", "plc-7", "--server", "gate:1,wss://gate", "--local", "http=127.0.0.1:80,10.0.0.1:23")


@pytest.fixture(autouse=True)
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The programs are in /opt here, and what would be run."""
    programs = tmp_path / "opt" / "bin"
    programs.mkdir(parents=True)
    for name in ("revtunnel-server", "revtunnelctl"):
        (programs / name).touch(0o755)
    monkeypatch.setattr(sys, "argv", [str(programs / "revtunnelctl")])
    run: list[tuple[str, ...]] = []
    monkeypatch.setattr(Host, "systemd", lambda host, *words: run.append(words))
    monkeypatch.setattr("revtunnel.ctl.host_units.UNSEEN", ("/home/",))
    return run


class Machine:
    """A directory as the root of a system."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root = root
        self._capsys = capsys

    def do(self, *words: str) -> list[str]:
        """What the subcommand says."""
        options = parser().parse_args(["install-units", "--root", str(self.root), *words])
        assert install_units(options) == 0
        return self._capsys.readouterr().out.splitlines()

    def files(self) -> set[str]:
        """All that there are, but for the authority's."""
        found = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return {str(path) for path in found if path.parts[0] == "etc"}


@pytest.fixture
def machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Machine:
    return Machine(tmp_path / "root", capsys)


def test_units_start_the_programs_where_they_are(machine: Machine, tools: list[tuple[str, ...]]) -> None:
    """And users and directories are made by systemd's own tools."""
    said = machine.do()
    assert len(said) == 7 and f"wrote /{UNIT}" in said
    programs = os.path.dirname(sys.argv[0])
    assert f"\nExecStart={programs}/revtunnel-server --config" in (machine.root / UNIT).read_text()
    assert tools == [("systemd-sysusers",), ("systemd-tmpfiles", "--create")]
    text = (machine.root / INI).read_text()
    assert all(line.startswith("#") for line in text.splitlines()) and str(shipped("revtunnel.ini")) in text


def test_a_second_time_nothing_is_written(machine: Machine) -> None:
    """What is the same is the same; what is new is added."""
    machine.do()
    assert machine.do() == []
    assert machine.do(*PUBLIC) == ["wrote /etc/revtunnel/conf.d/public.ini"]
    assert machine.do(*PUBLIC) == []


def test_what_somebody_has_changed_is_kept(machine: Machine) -> None:
    """What nobody has, as by an older version, is replaced."""
    machine.do()
    for name in (INI, UNIT):
        path = machine.root / name
        path.write_text(path.read_text() + "# mine\n")
    record = machine.root / "etc/revtunnel/.installed.json"
    written = json.loads(record.read_text())
    written[UNIT] = Host._hash(str(machine.root / UNIT))  # as if we had written that
    record.write_text(json.dumps(written))
    assert machine.do() == [f"wrote /{UNIT}", f"kept /{INI}"]
    assert (machine.root / INI).read_text().endswith("# mine\n")


def test_a_damaged_list_is_told(machine: Machine) -> None:
    """Nothing is taken for ours then."""
    machine.do()
    (machine.root / "etc/revtunnel/.installed.json").write_text("[1")
    with pytest.raises(Wrong, match="json: damaged"):
        machine.do()


def test_remove_takes_away_what_nobody_has_changed(machine: Machine) -> None:
    """What was there before stays, and so does what was changed."""
    (machine.root / "etc/systemd/system").mkdir(parents=True)
    (machine.root / "etc/systemd/system/revtunnel-cccp.service").write_text("mine")
    machine.do(*PUBLIC)
    with open(machine.root / INI, "a") as file:
        file.write("[admin]\n")
    said = machine.do("--remove")
    assert f"removed /{UNIT}" in said and f"kept /{INI}" in said and "kept /var/lib/revtunnel" in said
    assert machine.files() == {INI, "etc/systemd/system/revtunnel-cccp.service"}
    (machine.root / INI).unlink()
    assert machine.do("--remove") == ["kept /var/lib/revtunnel"]


def test_remove_leaves_nothing_where_nothing_was_changed(machine: Machine) -> None:
    """Not even a directory of settings."""
    machine.do(*AGENT)
    machine.do("--remove")
    assert machine.files() == set()
    assert not (machine.root / "etc/revtunnel").exists()


def test_remove_wants_services_disabled(machine: Machine) -> None:
    """A link to a unit that is gone would stay."""
    machine.do()
    wants = machine.root / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir()
    (wants / "revtunnel-server.service").symlink_to(f"/{UNIT}")
    with pytest.raises(Wrong, match="enabled: revtunnel-server; systemctl disable --now"):
        machine.do("--remove")


def test_settings_of_an_agent_can_be_read(machine: Machine) -> None:
    """Two servers, two offers, and its state where the unit looks."""
    machine.do(*AGENT)
    path = machine.root / "etc/revtunnel/agents/plc-7.ini"
    around = Surroundings({}, root=True, home="/", host_name="x", default_path="/nowhere/r.ini")
    found = load_agent(str(path), None, around)
    assert (found.serial, len(found.servers), [each.name for each in found.local]) == (
        "plc-7", 2, ["http", "tcp-23"],
    )  # fmt: skip
    assert found.state_directory == "/var/lib/revtunnel-agent/plc-7"
    assert (machine.root / "var/lib/revtunnel-agent/plc-7").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("--clients", "any"), "--clients goes with --public"),
        (("--server", "a:1"), "go with --agent"),
        (("--agent", "../x", "--server", "a:1", "--local", "b:2"), "'../x': 1 to 64 of"),
        (("--agent", "x"), "--server HOST:PORT and --local HOST:PORT wanted"),
        (("--agent", "x", "--server", "a", "--local", "b:2"), "--server: 'a': HOST:PORT wanted"),
        (("--agent", "x", "--server", "a:1", "--local", "b"), "--local: 'b': HOST:PORT wanted"),
        (("--public", "*.x"), "--public: '\\*.x'"),
        (("--public", "x", "--clients", "10.1.2"), "--clients: "),
    ],
)
def test_wrong_words_change_nothing(machine: Machine, words: tuple[str, ...], wanted: str) -> None:
    """They are named before the first file is written."""
    with pytest.raises((Wrong, SettingsError), match=wanted):
        machine.do(*words)
    assert not machine.root.exists() or machine.files() == set()


def test_programs_that_no_service_sees_are_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of a person's own pipx, or where there are none."""
    programs = os.path.dirname(os.path.realpath(sys.argv[0]))
    monkeypatch.setattr("revtunnel.ctl.host_units.UNSEEN", (f"{programs}/",))
    with pytest.raises(Wrong, match="no service sees that; install into /opt"):
        machine.do()
    monkeypatch.setattr("sysconfig.get_path", lambda kind: "/nowhere")
    os.unlink(os.path.join(programs, "revtunnel-server"))
    with pytest.raises(Wrong, match="/nowhere: revtunnel-server is not there"):
        machine.do()


def test_without_systemd_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its tools are not there, or do not do it."""
    monkeypatch.undo()
    host = Host(str(tmp_path))
    with pytest.raises(Wrong, match="no-such-tool is not here"):
        host.systemd("no-such-tool")
    with pytest.raises(Wrong, match="false: "):
        host.systemd("false")


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    """Names the file."""
    (tmp_path / "file").touch()
    options: Any = argparse.Namespace(
        root=str(tmp_path / "file"), remove=False, json=True,
        **dict.fromkeys(("public", "clients", "agent", "server", "local")),
    )  # fmt: skip
    with pytest.raises(Wrong, match="file"):
        install_units(options)
