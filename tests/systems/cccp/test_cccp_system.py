"""What a server with CCCP gives its projects."""

from pathlib import Path

from revtunnel.systems.cccp.cccp_settings import ProjectSettings
from revtunnel.systems.cccp.cccp_system import project_of
from revtunnel.trust.identities import Identities
from tests.sockets.tls.test_peer_verification import Room, meet


def test_a_device_that_the_built_in_authority_revoked_cannot_register(tmp_path: Path) -> None:
    """Its certificate counted for as long as it was good; a list of the authority (crl) was asked only."""
    room = Room(tmp_path)
    settings = ProjectSettings(
        name="main",
        tls=True,
        certificate=room.server.certificate_file,
        certificate_key=room.server.key_file,
        authority=room.issuer.file,
    )
    found = Identities(lambda serial, fingerprint: serial in room.revoked, "cccp-project").read([settings])
    identity = project_of(settings, found.of("main")).identity
    assert identity is not None

    assert meet(identity, room.at_agent()).said == b"hello"
    room.revoked.add("plc-7")
    met = meet(identity, room.at_agent())
    assert (met.server, met.said) == ("certificate of plc-7 is revoked", b"")
