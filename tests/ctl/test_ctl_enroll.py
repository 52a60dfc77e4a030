"""revtunnelctl ca, enroll and revoke: what they print, which files they make, and what counts afterwards."""

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from revtunnel.ctl.ctl import main
from revtunnel.daemons.own_authority import authority_of
from revtunnel.ground.facts import LinkDown
from revtunnel.ground.limits import EnrolmentLimits
from revtunnel.process.admin.refusals import NotFound
from revtunnel.settings.inifile import SettingsError, Surroundings
from revtunnel.sockets.tls.certificates import CertificateFiles, TlsSide, device_serial, read_credentials
from revtunnel.trust.authority import make_request, new_key
from revtunnel.trust.authority_files import AuthorityDirectory
from revtunnel.trust.enrolment import parse_token
from tests.support.room import Room

Capture = pytest.CaptureFixture[str]


def ended(*words: str) -> int:
    """The exit status of the command as a process would have it."""
    with pytest.raises(SystemExit) as caught:
        main(words)
    return int(caught.value.code or 0)


@pytest.fixture
def directory(tmp_path: Path, capsys: Capture) -> Path:
    """Where an authority is."""
    assert ended("ca", "init", "--dir", str(tmp_path / "authority")) == 0
    capsys.readouterr()
    return tmp_path / "authority"


def room_with(directory: Path) -> Room:
    """A server that has taken this authority."""
    room = Room()
    room.issuer.load(str(directory), 90, EnrolmentLimits())
    return room


# ---- ca


def test_from_nothing_to_an_authority(capsys: Capture, tmp_path: Path) -> None:
    """init, issue-server, list: what was made, where, and the lines for the settings."""
    ini = tmp_path / "r.ini"
    ini.write_text(f"[server]\nstate_directory = {tmp_path}/state\n[authority]\nserver_days = 30\n")
    shared = ("--config", str(ini))
    assert ended("ca", "init", *shared, "--name", "plant 7") == 0
    shown = capsys.readouterr()
    assert f"directory:   {tmp_path}/state/authority\n" in shown.out
    assert "authority.key" in shown.err
    assert ended("ca", "issue-server", "gate.example", "192.0.2.1", *shared) == 0
    lines = dict(line.split(" = ") for line in capsys.readouterr().out.splitlines())
    assert list(lines) == ["certificate", "certificate_key", "authority"]
    assert read_credentials(CertificateFiles(TlsSide.SERVER, *lines.values())).warnings == ()
    assert ended("ca", "list", *shared) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in table] == ["KIND", "authority", "server"]
    assert table[2][1:4] == ["gate.example", "192.0.2.1", "good"]
    assert ended("ca", "list", *shared, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["certificates"]
    assert [(row["kind"], row["state"]) for row in rows] == [("authority", "good"), ("server", "good")]


def test_what_ca_refuses(capsys: Capture, tmp_path: Path, directory: Path) -> None:
    """One line each, status 1; an authority is never replaced."""
    before = (directory / "authority.key").read_bytes()
    nothing = str(tmp_path / "nothing")
    for words, reason in (
        (("init", "--dir", str(directory)), "there is an authority already"),
        (("issue-server", "gate", "--dir", nothing), "make one with revtunnelctl ca init"),
        (("list", "--dir", nothing), "there is no authority"),
        (("issue-server", "*.example", "--dir", str(directory)), "a host name or an IP address wanted"),
        (("init", "--dir", nothing, "--name", "a\nb"), "printable"),
        (("init", "--dir", "/proc/nothing"), "/proc"),
    ):
        assert ended("ca", *words) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert reason in captured.err
        assert len(captured.err.splitlines()) == 1
    assert (directory / "authority.key").read_bytes() == before
    assert not os.path.exists(nothing)
    assert ended("ca") == 64
    assert ended("ca", "issue-server") == 64


def test_where_the_authority_is(tmp_path: Path) -> None:
    """The settings say it, else it is in the state directory; wrong settings are said, not guessed around."""
    around = Surroundings({}, False, str(tmp_path), "host", str(tmp_path / "revtunnel.ini"))
    found = authority_of(None, around)
    assert found.directory == str(tmp_path / ".local/state/revtunnel/authority")
    (tmp_path / "revtunnel.ini").write_text(
        "[authority]\ndirectory = /x/y\ndevice_days = 7\n[limits]\nnope = 1\n"
    )
    assert (authority_of(None, around).directory, authority_of(None, around).device_days) == ("/x/y", 7)
    (tmp_path / "revtunnel.ini").write_text("[authority]\ndirectory = x\n")
    with pytest.raises(SettingsError, match=r"ini:2: \[authority\] directory"):
        authority_of(None, around)
    with pytest.raises(SettingsError):
        authority_of(str(tmp_path / "none.ini"), around)


# ---- enroll


def test_with_an_authority_enroll_prints_one_line(capsys: Capture, directory: Path) -> None:
    """A token by itself, or asked for; the server as it is known, or as it is given."""
    room = room_with(directory)
    assert room.ctl("enroll", "plc-2") == 0
    (line,) = capsys.readouterr().out.splitlines()
    words = line.split()
    assert (words[:2], words[3:]) == (["revtunnel-agent", "--enroll"], ["--server", "HOST:PORT"])
    assert parse_token(words[2]).serial == "plc-2"
    AuthorityDirectory(str(directory)).issue_server(["2001:db8::1"], 825, datetime.now(UTC))
    room.issuer.load(str(directory), 90, EnrolmentLimits())
    room.operator.link_port = 2065
    assert room.ctl("enroll", "plc-2", "--token") == 0
    assert capsys.readouterr().out.split()[3:] == ["--server", "[2001:db8::1]:2065"]
    assert room.ctl("enroll", "plc-2", "--server", "gate.example:7", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert set(row) == {"serial", "token", "server", "line"}
    assert row["line"].endswith("--server gate.example:7")


def test_a_key_in_any_case(capsys: Capture, directory: Path) -> None:
    """Without an authority, or with --key; then --out is a file."""
    assert Room().ctl("enroll", "plc-2") == 0
    assert capsys.readouterr().out.startswith("rtkey1_")
    room = room_with(directory)
    assert room.ctl("enroll", "plc-2", "--key") == 0
    assert capsys.readouterr().out.startswith("rtkey1_")
    assert Room().ctl("enroll", "plc-3", "--token") == 1
    assert "revtunnelctl ca init" in capsys.readouterr().err


def test_key_and_certificate_made_here(capsys: Capture, directory: Path, tmp_path: Path) -> None:
    """Files that an agent takes as they are; the private key never was at the server."""
    room, out = room_with(directory), tmp_path / "out"
    assert room.ctl("enroll", "plc-2", "--out", str(out)) == 0
    lines = dict(line.split(" = ") for line in capsys.readouterr().out.splitlines())
    assert stat.S_IMODE(os.stat(lines["certificate_key"]).st_mode) == 0o600
    files = CertificateFiles(
        TlsSide.DEVICE, lines["certificate"], lines["certificate_key"], lines["authority"]
    )
    assert read_credentials(files).serial == "plc-2"
    assert room.ctl("enroll", "plc-2", "--out", str(out)) == 1
    assert "there is such a file already" in capsys.readouterr().err
    assert room.ctl("enroll", "plc-2", "--out", str(tmp_path / "other")) == 1
    assert "has a certificate already" in capsys.readouterr().err
    before = room.issuer.book.good("plc-2")
    assert room.ctl("enroll", "plc-2", "--out", str(out), "--replace") == 0
    assert all(room.issuer.book.revoked("plc-2", row.fingerprint) for row in before)
    assert read_credentials(files).serial == "plc-2"


def test_a_request_of_the_device(capsys: Capture, directory: Path, tmp_path: Path) -> None:
    """Printed, or put where it is wanted; what is no request is refused."""
    room, key, csr = room_with(directory), new_key(), tmp_path / "r.csr"
    csr.write_bytes(x509.load_der_x509_csr(make_request("plc-2", key)).public_bytes(Encoding.PEM))
    assert room.ctl("enroll", "plc-2", "--csr", str(csr)) == 0
    made = x509.load_pem_x509_certificate(capsys.readouterr().out.encode())
    assert (device_serial(made), made.public_key()) == ("plc-2", key.public_key())
    out = tmp_path / "out"
    assert room.ctl("enroll", "plc-2", "--csr", str(csr), "--out", str(out), "--replace", "--json") == 0
    assert set(json.loads(capsys.readouterr().out)) == {"serial", "certificate", "authority"}
    assert sorted(each.name for each in out.iterdir()) == ["authority.pem", "plc-2.pem"]
    assert room.ctl("enroll", "plc-3", "--csr", str(csr)) == 64
    assert "for plc-2, not for plc-3" in capsys.readouterr().err
    csr.write_bytes(b"noise")
    assert room.ctl("enroll", "plc-2", "--csr", str(csr), "--replace") == 64
    assert room.ctl("enroll", "plc-2", "--csr", str(tmp_path / "none"), "--replace") == 1
    csr.write_bytes(bytes(20_000))
    assert room.ctl("enroll", "plc-2", "--csr", str(csr), "--replace") == 1
    assert "more than 16384 bytes" in capsys.readouterr().err


def test_a_full_disk_costs_no_certificate(directory: Path, tmp_path: Path, capsys: Capture) -> None:
    """The key is written before the server is asked."""
    room = room_with(directory)
    (tmp_path / "file").touch()
    assert room.ctl("enroll", "plc-2", "--out", str(tmp_path / "file" / "x")) == 1
    assert room.issuer.book.good("plc-2") == []
    assert capsys.readouterr().err


# ---- revoke


def test_revoke_takes_everything_and_cuts(capsys: Capture, directory: Path, tmp_path: Path) -> None:
    """Key, certificates and token of that device; the link goes, and the agent is not told by whom."""
    room = room_with(directory)
    assert room.ctl("enroll", "plc-1", "--out", str(tmp_path / "out")) == 0
    (row,) = room.issuer.book.good("plc-1")
    assert room.ctl("revoke", "plc-1") == 0
    assert room.issuer.book.revoked("plc-1", row.fingerprint)
    (down,) = room.of(LinkDown)
    assert (down.reason, down.detail) == ("kicked", "revoked by an operator, root")
    assert all("root" not in fact.detail for fact in room.agents["plc-1"].facts if isinstance(fact, LinkDown))
    assert room.ctl("revoke", "plc-1") == 1
    assert "no key, no certificate and no token" in capsys.readouterr().err
    assert room.ctl("enroll", "plc-8", "--token") == 0
    assert room.ctl("revoke", "plc-8") == 0
    assert ended("ca", "list", "--dir", str(directory), "--json") == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])["certificates"]
    assert [row["state"] for row in last] == ["good", "revoked"]


def test_certificates_of_another_authority(capsys: Capture) -> None:
    """Any serial can be barred, known here or not; lifted, strange certificates count again."""
    room = Room()
    room.operator.others_certify = True
    assert not room.issuer.book.revoked("plc-9", "f" * 64)
    assert room.ctl("revoke", "plc-9") == 0
    assert room.issuer.book.revoked("plc-9", "f" * 64)
    assert room.ctl("revoke", "plc-9") == 1
    assert room.ctl("revoke", "plc 9") == 64
    assert room.ctl("revoke", "plc-9", "--lift") == 0
    assert not room.issuer.book.revoked("plc-9", "f" * 64)
    assert room.ctl("revoke", "plc-9", "--lift") == 1
    capsys.readouterr()


def test_about_the_authority(directory: Path) -> None:
    """What programs see of it."""
    room = room_with(directory)
    room.operator.token("plc-2", "anna")
    row = room.operator.authority()
    assert (row["directory"], row["tokens"], row["certificates"]) == (str(directory), 1, 0)
    with pytest.raises(NotFound):
        Room().operator.authority()
