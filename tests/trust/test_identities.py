"""The certificates of a server's doors: all of them or none, and what a reload changes."""

from pathlib import Path

import pytest

from revtunnel.daemons.server_settings import ListenerSettings
from revtunnel.ground.errors import SettingsError
from revtunnel.sockets.tls.peer_verification import never_revoked
from revtunnel.trust.identities import Identities
from tests.daemons.test_settings import server
from tests.support.throwaway_tls import DAY, Issuer


def doors(tmp_path: Path, issuer: Issuer, **more: str) -> tuple[ListenerSettings, ...]:
    """A plain listener and two with TLS, whose certificates are a.pem and b.pem."""
    text = "[listener plain]\naddress = 127.0.0.1:1\n"
    for port, name in ((2, "a"), (3, "b")):
        text += f"[listener {name}]\naddress = 127.0.0.1:{port}\ntls = yes\nauthority = {issuer.file}\n"
        text += f"certificate = {tmp_path}/{name}.pem\ncertificate_key = {tmp_path}/{name}.key\n"
        text += "".join(f"{key} = {value}\n" for key, value in more.items())
    return server(tmp_path, text).listeners


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    """Who made a.pem and b.pem."""
    issuer = Issuer(tmp_path)
    for name in ("a", "b"):
        issuer.server("gate.example", file=name)
    return issuer


def test_plain_listeners_have_none(tmp_path: Path, issuer: Issuer) -> None:
    """One for each listener with TLS."""
    found = Identities(never_revoked).read(doors(tmp_path, issuer), False)
    assert found.of("plain") is None and found.of("nobody") is None
    assert {found.of(name).rules.peer for name in ("a", "b")} == {"required"}  # type: ignore[union-attr]


def test_enrolment_opens_tls_to_those_without_a_certificate(tmp_path: Path, issuer: Issuer) -> None:
    """Where certificates can be had, TLS asks and does not insist; the listener lets them do nothing else."""
    found = Identities(never_revoked).read(doors(tmp_path, issuer), True)
    assert found.of("a").rules.peer == "optional"  # type: ignore[union-attr]
    none = Identities(never_revoked).read(doors(tmp_path, issuer, device_certificates="no"), True)
    assert none.of("a").rules.peer == "no"  # type: ignore[union-attr]


def test_new_files_are_named(tmp_path: Path, issuer: Issuer) -> None:
    """What changed is told by what is in the files, not by their names."""
    listeners = doors(tmp_path, issuer)
    old = Identities(never_revoked).read(listeners, False)
    assert old.read(listeners, False).changed(old) == []
    issuer.server("gate.example", file="b")
    assert old.read(listeners, False).changed(old) == ["[listener b] certificate files"]


def test_all_or_none(tmp_path: Path, issuer: Issuer) -> None:
    """Every fault is told, and those that were there are still there."""
    listeners = doors(tmp_path, issuer)
    old = Identities(never_revoked).read(listeners, False)
    before = old.of("a")
    (tmp_path / "a.pem").write_text("nonsense")
    (tmp_path / "b.key").chmod(0o644)
    with pytest.raises(SettingsError) as caught:
        old.read(listeners, False)
    assert [error.split(": ")[0] for error in caught.value.errors] == [
        "[listener a] certificate",
        "[listener b] certificate_key",
    ]
    assert old.of("a") is before


def test_warnings_are_those_of_all_files(tmp_path: Path, issuer: Issuer) -> None:
    """A certificate that begins later is no reason not to start."""
    issuer.server("gate.example", file="b", since=DAY)
    (warning,) = Identities(never_revoked).read(doors(tmp_path, issuer), False).warnings
    assert warning.startswith(f"{tmp_path}/b.pem: certificate is not valid before ")
