"""What enrolment leaves beside an agent: whole files, closed, found again where it is clear which."""

import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from revtunnel.daemons.agent_reading import load_agent
from revtunnel.ground.errors import SettingsError
from revtunnel.settings.inifile import Surroundings
from revtunnel.sockets.tls.certificates import CertificateFiles, TlsSide, read_credentials
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.trust.agent_files import AgentFiles, kept_files
from revtunnel.trust.authority import issue_device, issue_server, key_pem, make_authority, new_key, pem
from revtunnel.trust.tls_settings_checks import agent_rules

NOW = datetime.now(UTC)
AUTHORITY = make_authority("gate", 7300, NOW)
AROUND = Surroundings({}, root=False, home="/nowhere", host_name="plc-9", default_path="/nowhere/r.ini")


def leave(directory: Path, serial: str, days: int = 90, now: datetime = NOW) -> AgentFiles:
    """Files as an enrolment leaves them."""
    files, key = AgentFiles(str(directory), serial), new_key()
    files.trust(AUTHORITY.certificate)
    files.keep(key, issue_device(AUTHORITY, serial, key.public_key(), days, now))
    return files


def test_files_are_closed_whole_and_usable(tmp_path: Path) -> None:
    """One file with key and certificate, which TLS takes as both."""
    files = leave(tmp_path / "state", "plc-7")
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (tmp_path / "state").iterdir()}
    assert modes == {"plc-7.pem": 0o600, "plc-7.authority.pem": 0o644}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    taken = read_credentials(
        CertificateFiles(TlsSide.DEVICE, files.certificate, files.certificate, files.authority)
    )
    assert (taken.serial, taken.warnings) == ("plc-7", ())
    assert files.trusted() == AUTHORITY.certificate


def test_good_until_its_end(tmp_path: Path) -> None:
    """Absent, damaged or ended is not good: the next token is used."""
    assert not AgentFiles(str(tmp_path), "plc-7").is_good(NOW)
    files = leave(tmp_path, "plc-7", 5)
    assert files.is_good(NOW)
    assert not files.is_good(NOW + timedelta(days=6))
    Path(files.certificate).write_bytes(b"noise")
    assert not files.is_good(NOW)


def test_found_where_it_is_clear_which(tmp_path: Path) -> None:
    """By serial; else the only one, or the one of the host name."""
    assert kept_files(None, "plc-7", "plc-9") is None
    assert kept_files(str(tmp_path / "none"), "auto", "plc-9") is None
    seven = leave(tmp_path, "plc-7")
    for serial in ("plc-7", "auto"):
        found = kept_files(str(tmp_path), serial, "plc-9")
        assert found is not None and found.certificate == seven.certificate
    assert kept_files(str(tmp_path), "plc-8", "plc-9") is None
    leave(tmp_path, "plc-8")
    assert kept_files(str(tmp_path), "auto", "other") is None
    nine = leave(tmp_path, "plc-9")
    found = kept_files(str(tmp_path), "auto", "plc-9")
    assert found is not None and found.certificate == nine.certificate


def settings(tmp_path: Path, text: str = "") -> Path:
    path = tmp_path / "r.ini"
    head = f"[agent]\nservers = gate:2065\nlocal = 10.0.0.5:23\nstate_directory = {tmp_path}\n"
    path.write_text(head + text)
    return path


def test_an_agent_takes_what_enrolment_left(tmp_path: Path) -> None:
    """Certificate, key, authority and serial, without a word in its settings; what is written there wins."""
    files = leave(tmp_path, "plc-7")
    found = load_agent(str(settings(tmp_path)), None, AROUND)
    assert found.serial == "plc-7"
    assert (found.certificate, found.certificate_key) == (files.certificate, files.certificate)
    assert found.authority == files.authority
    other = load_agent(str(settings(tmp_path, "authority = system\n")), None, AROUND)
    assert (other.authority, other.certificate) == (None, files.certificate)
    none = load_agent(str(settings(tmp_path, "certificate = none\n")), None, AROUND)
    assert (none.certificate, none.certificate_key, none.authority, none.serial) == (
        None,
        None,
        None,
        "plc-9",
    )
    plain = load_agent(str(settings(tmp_path, "tls = no\nallow_plaintext = yes\n")), None, AROUND)
    assert (plain.certificate, plain.authority) == (None, None)


def test_two_devices_of_one_machine(tmp_path: Path) -> None:
    """Each by its serial; without one neither is taken."""
    leave(tmp_path, "plc-7")
    eight = leave(tmp_path, "plc-8")
    assert (
        load_agent(str(settings(tmp_path, "serial = plc-8\n")), None, AROUND).certificate == eight.certificate
    )
    assert load_agent(str(settings(tmp_path)), None, replace(AROUND, host_name="x")).certificate is None


def test_a_certificate_that_ended_is_said(tmp_path: Path) -> None:
    """The agent starts all the same: the server may renew it, or a person brings a token."""
    files = leave(tmp_path, "plc-7", 5, NOW - timedelta(days=6))
    found = load_agent(str(settings(tmp_path)), None, AROUND)
    assert (found.certificate, found.serial) == (files.certificate, "plc-7")
    assert found.token_file == str(tmp_path / "plc-7.token")
    (warning,) = Identity(agent_rules(found)).credentials.warnings
    assert "certificate expired on" in warning and "is the clock of this machine right?" in warning


def test_a_servers_certificate_is_no_devices(tmp_path: Path) -> None:
    """Somebody copied the wrong file there."""
    files, key = leave(tmp_path, "plc-7"), new_key()
    made = issue_server(AUTHORITY, ["gate"], key.public_key(), 5, NOW)
    Path(files.certificate).write_bytes(key_pem(key) + pem(made))
    with pytest.raises(SettingsError, match="not for devices"):
        load_agent(str(settings(tmp_path)), None, AROUND)


def test_a_try_is_made_again_with_its_key(tmp_path: Path) -> None:
    """Also after a restart, until the certificate has come; then with another."""
    files = leave(tmp_path, "plc-7")
    key = files.next_key()
    assert stat.S_IMODE((tmp_path / "plc-7.next.key").stat().st_mode) == 0o600
    again = AgentFiles(str(tmp_path), "plc-7").next_key()
    assert again.public_key() == key.public_key()
    files.keep(key, issue_device(AUTHORITY, "plc-7", key.public_key(), 90, NOW))
    assert not (tmp_path / "plc-7.next.key").exists()
    assert files.next_key().public_key() != key.public_key()


@pytest.mark.parametrize("found", [b"noise", None], ids=["damaged", "of the certificate that came"])
def test_a_key_of_no_use_is_not_asked_with(tmp_path: Path, found: bytes | None) -> None:
    """The power went before the file was gone: the key is the certificate's that we have."""
    files, key = leave(tmp_path, "plc-7"), new_key()
    files.keep(key, issue_device(AUTHORITY, "plc-7", key.public_key(), 90, NOW))
    (tmp_path / "plc-7.next.key").write_bytes(found or key_pem(key))
    asked = files.next_key()
    assert asked.public_key() != key.public_key()
    assert files.next_key().public_key() == asked.public_key()
