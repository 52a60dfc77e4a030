"""What ``--public`` makes: an authority once, a certificate when it is needed, settings that can start."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from twisted.python import usage

from revtunnel.daemons.own_authority import PUBLIC, public_settings
from revtunnel.daemons.server_options import ServerOptions
from revtunnel.ground.errors import SettingsError
from revtunnel.settings.inifile import Surroundings
from revtunnel.trust.authority_settings import AuthoritySettings

NOW = datetime.now(UTC)


def made(path: Path, *names: str, after: float = 0.0) -> tuple[dict[Any, Any], bytes]:
    """The settings, and the certificate, so many days from now."""
    found = public_settings([*names], AuthoritySettings(directory=str(path)), NOW + timedelta(days=after))
    return found, Path(found["listener main", "certificate"]).read_bytes()


def test_all_is_made_once_and_stays(tmp_path: Path) -> None:
    """A second start changes no file."""
    found, first = made(tmp_path / "a", "gate.example", "10.1.0.1")
    assert found["listener main", "address"] == (PUBLIC,)
    names = ("certificate", "certificate_key", "authority")
    assert all(os.path.exists(found["listener main", name]) for name in names)
    assert made(tmp_path / "a", "Gate.example.", "10.1.0.1") == (found, first)


def test_another_name_or_an_end_that_is_near_is_a_new_certificate(tmp_path: Path) -> None:
    """With the same key and the same authority."""
    found, first = made(tmp_path, "gate.example")
    key = Path(found["listener main", "certificate_key"]).read_bytes()
    assert made(tmp_path, "gate.example", after=540)[1] == first
    assert made(tmp_path, "gate.example", after=560)[1] != first
    assert made(tmp_path, "gate.example", "gate")[1] != first
    assert Path(found["listener main", "certificate_key"]).read_bytes() == key


def options(tmp_path: Path, *words: str) -> ServerOptions:
    """After a command line, on a machine with a state directory in the test's."""
    found = ServerOptions()
    around = {"STATE_DIRECTORY": str(tmp_path)}
    found.around = Surroundings(around, root=True, home="/", host_name="gate", default_path="/nowhere/r.ini")
    found.parseOptions([*words])
    return found


def test_only_with_clients_are_client_ports_for_others(tmp_path: Path) -> None:
    """And a reload says the same."""
    alone = options(tmp_path, "--public", "gate.example")
    assert (alone.settings.listeners[0].address, alone.settings.pools[0].bind) == ((PUBLIC,), "127.0.0.1")
    both = options(tmp_path, "--public", "gate.example", "--clients", "10.1.0.0/16")
    assert (both.settings.pools[0].bind, len(both.settings.pools[0].clients or ())) == ("0.0.0.0", 1)
    assert both.load() == both.settings


def test_what_else_is_on_the_command_line_wins(tmp_path: Path) -> None:
    """The state directory, and where agents come in."""
    words = ["--public", "gate.example", "--listen", "127.0.0.1:7", "--state-directory", str(tmp_path / "s")]
    settings = options(tmp_path, *words).settings
    assert settings.listeners[0].address == (("127.0.0.1", 7),)
    assert str(settings.listeners[0].certificate).startswith(str(tmp_path / "s" / "authority"))


def test_what_cannot_be_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong names and places are settings, options that exclude each other are usage."""
    with pytest.raises(SystemExit) as caught:
        options(tmp_path, "--public", "*.example")
    assert (caught.value.code, list(tmp_path.iterdir())) == (78, [])
    assert "--public: '*.example'" in capsys.readouterr().err
    for other in (["--certificate", "x"], ["--check-config"]):
        with pytest.raises(usage.UsageError, match="exclude each other"):
            options(tmp_path, "--public", "gate.example", *other)
    with pytest.raises(SettingsError, match="without a state directory"):
        public_settings(["gate"], AuthoritySettings(directory=None), NOW)
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="file"):
        public_settings(["gate"], AuthoritySettings(directory=str(tmp_path / "file" / "a")), NOW)
