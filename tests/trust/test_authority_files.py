"""The directory of an authority: modes, whole files, a list that two may write, nothing lost by chance."""

import json
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from revtunnel.sockets.tls.certificates import CertificateFiles, TlsSide, read_credentials
from revtunnel.state.atomic_file import make_directory, write_whole
from revtunnel.trust.authority import Unfit, fingerprint_of, issue_device, new_key
from revtunnel.trust.authority_files import AuthorityDirectory, row_of
from revtunnel.trust.certificate_book import AUTHORITY, DEVICE, SERVER
from tests.support.steps import steps

NOW = datetime.now(UTC)


@pytest.fixture
def directory(tmp_path: Path) -> AuthorityDirectory:
    """One with an authority."""
    made = AuthorityDirectory(str(tmp_path / "authority"))
    made.create("gate", 7300, NOW)
    return made


def mode(path: str | Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_new_authority(directory: AuthorityDirectory) -> None:
    """Directory and key are closed to others whatever the umask; it comes back as it was made."""
    assert directory.is_set_up
    modes = {name: mode(directory.file(name)) for name in ("", "authority.key", "authority.pem", "issued")}
    assert modes == {"": 0o700, "authority.key": 0o600, "authority.pem": 0o644, "issued": 0o600}
    loaded = directory.load()
    (row,) = directory.rows()
    assert (row.kind, row.name, row.fingerprint) == (AUTHORITY, "gate", fingerprint_of(loaded.certificate))
    assert int(row.number, 16) == loaded.certificate.serial_number


def test_an_authority_is_never_replaced(directory: AuthorityDirectory) -> None:
    """All devices would be lost with it; half of one counts too."""
    before = Path(directory.file("authority.key")).read_bytes()
    for name in ("authority.pem", "none"):
        Path(directory.file(name)).unlink(missing_ok=True)
        with pytest.raises(Unfit, match="an authority already"):
            directory.create("other", 7300, NOW)
    assert Path(directory.file("authority.key")).read_bytes() == before


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("no key", "authority.key: No such file"),
        ("no certificate", "authority.pem: No such file"),
        ("open key", "authority.key: others than its owner may use it"),
        ("noise", "authority: no private key"),
    ],
)
def test_an_authority_that_cannot_be_used(directory: AuthorityDirectory, damage: str, reason: str) -> None:
    """Which file, and why."""
    key = Path(directory.file("authority.key"))
    if damage == "no key":
        key.unlink()
    elif damage == "no certificate":
        Path(directory.file("authority.pem")).unlink()
    elif damage == "open key":
        key.chmod(0o640)
    else:
        key.write_bytes(b"noise")
    with pytest.raises(Unfit, match=reason):
        directory.load()


def test_a_server_gets_chain_key_and_authority(directory: AuthorityDirectory, tmp_path: Path) -> None:
    """Files that a listener takes as they are; the key stays when the certificate is made anew."""
    paths = directory.issue_server(["Gate.Example", "192.0.2.1"], 825, NOW)
    assert [os.path.relpath(path, directory.path) for path in paths] == [
        "servers/gate.example.pem",
        "servers/gate.example.key",
        "servers/authority.pem",
    ]
    assert [mode(path) for path in paths] == [0o644, 0o600, 0o644]
    taken = read_credentials(CertificateFiles(TlsSide.SERVER, *paths))
    assert [fingerprint_of(each) for each in taken.chain][1:] == [directory.rows()[0].fingerprint]
    assert taken.warnings == ()
    again = directory.issue_server(["gate.example"], 825, NOW)
    key = read_credentials(CertificateFiles(TlsSide.SERVER, *again)).key
    assert key.private_numbers() == taken.key.private_numbers()
    assert [row.kind for row in directory.rows()] == [AUTHORITY, SERVER, SERVER]
    other = directory.issue_server(["gate.example"], 825, NOW, str(tmp_path / "out"))
    assert {os.path.dirname(path) for path in other} == {str(tmp_path / "out")}


def test_a_server_that_would_overwrite_the_authority(directory: AuthorityDirectory) -> None:
    """A host that is called so must have another name first; nothing is written."""
    with pytest.raises(Unfit, match="name another name first"):
        directory.issue_server(["authority"], 825, NOW, directory.path)
    assert directory.load()
    (tail := Path(directory.file("servers"))).mkdir()
    (tail / "gate.key").write_bytes(b"noise")
    with pytest.raises(Unfit, match=r"gate\.key: no private key"):
        directory.issue_server(["gate"], 825, NOW)
    assert len(directory.rows()) == 1


def test_the_list_remembers_what_was_revoked(directory: AuthorityDirectory) -> None:
    """The last line counts, but what was revoked stays so; lines that make no sense are skipped."""
    authority = directory.load()
    made = issue_device(authority, "plc-7", new_key().public_key(), 90, NOW)
    row = row_of(made, DEVICE, "plc-7", NOW)
    directory.record(row)
    directory.record(row._replace(revoked=5.0))
    directory.record(row)
    wrong = [
        {"fingerprint": 1},
        [],
        {**row._asdict(), "until": "soon"},
        {**row._asdict(), "fingerprint": "ab"},
    ]
    with open(directory.file("issued"), "ab") as file:
        file.write(b"{cut\n\xff\n" + b"".join(json.dumps(each).encode() + b"\n" for each in wrong))
    assert directory.rows()[1:] == [row._replace(revoked=5.0)]
    assert AuthorityDirectory("/nowhere").rows() == []


def test_the_list_does_not_grow_for_ever(directory: AuthorityDirectory) -> None:
    """What ended a year ago goes; a list without such is not written anew."""
    authority = directory.load()
    made: list[x509.Certificate] = []
    for days in (1, 40):
        made.append(issue_device(authority, "plc-7", new_key().public_key(), days, NOW))
        directory.record(row_of(made[-1], DEVICE, "plc-7", NOW))
    before = os.stat(directory.file("issued")).st_ino
    directory.tidy(NOW)
    assert os.stat(directory.file("issued")).st_ino == before
    directory.tidy(NOW + timedelta(days=368))
    kept = [directory.rows()[0].fingerprint, fingerprint_of(made[1])]
    assert [row.fingerprint for row in directory.rows()] == kept
    assert mode(directory.file("issued")) == 0o600


def test_two_write_the_list_at_once(directory: AuthorityDirectory) -> None:
    """Server and command, while a third one tidies: no line is lost."""
    row = directory.rows()[0]

    def write(letter: str) -> None:
        for number in range(20):
            AuthorityDirectory(directory.path).record(
                row._replace(fingerprint=f"{letter}{number:02}".ljust(64, "0"))
            )
            directory.tidy(NOW)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(directory.rows()) == 41


# ---- whole files


def test_a_file_is_whole_or_as_before(tmp_path: Path) -> None:
    """Replaced with its mode; when that fails nothing is left beside it."""
    path = tmp_path / "x"
    write_whole(str(path), b"one", 0o644)
    write_whole(str(path), b"two")
    assert (path.read_bytes(), mode(path)) == (b"two", 0o600)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "y").touch()
    with pytest.raises(OSError, match="directory"):
        write_whole(str(tmp_path / "full"), b"three")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["full", "x"]
    with pytest.raises(OSError, match="No such file"):
        write_whole(str(tmp_path / "none" / "z"), b"")


def test_directories_are_made_on_the_way(tmp_path: Path) -> None:
    """Only the last one is closed; one that is there stays as it is."""
    make_directory(str(tmp_path / "a" / "b"))
    assert (mode(tmp_path / "a"), mode(tmp_path / "a" / "b")) == (0o755, 0o700)
    make_directory(str(tmp_path / "a"))
    assert mode(tmp_path / "a") == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="root wanted")
def test_what_root_makes_belongs_to_the_daemon(tmp_path: Path) -> None:
    """An administrator sets the authority up, and the server, another user, reads it."""
    os.chown(tmp_path, 4711, 4712)
    directory = AuthorityDirectory(str(tmp_path / "authority"))
    directory.create("gate", 10, NOW)
    directory.issue_server(["gate"], 5, NOW)
    found = [tmp_path / "authority", *(tmp_path / "authority").rglob("*")]
    assert {(each.stat().st_uid, each.stat().st_gid) for each in found} == {(4711, 4712)}
    assert len(found) == 8


def test_the_list_is_read_on_from_where_it_was_read_to(directory: AuthorityDirectory) -> None:
    """A reload costs what is new; another file is read whole, and what is half written later."""
    first = directory.rows()
    assert directory.news(NOW) == first
    assert directory.news(NOW) == []
    row = first[0]._replace(fingerprint="ab" * 32)
    AuthorityDirectory(directory.path).record(row)
    assert directory.news(NOW) == [row]
    line = json.dumps(row._replace(fingerprint="cd" * 32)._asdict()).encode()
    with open(directory.file("issued"), "ab") as file:
        file.write(line[:50])
    assert directory.news(NOW) == []
    with open(directory.file("issued"), "ab") as file:
        file.write(line[50:] + b"\n")
    assert [each.fingerprint for each in directory.news(NOW)] == ["cd" * 32]
    assert [each.fingerprint[:2] for each in directory.rows()[1:]] == ["ab", "cd"]
    for number in range(20):
        directory.record(row._replace(fingerprint=f"{number:064}"))
    assert len(directory.news(NOW)) == 20
    assert steps(directory.news, NOW) < steps(directory.rows) / 2
    os.replace(directory.file("issued"), directory.file("old"))
    assert directory.news(NOW) == []
    directory.record(row)
    assert directory.news(NOW) == [row]
