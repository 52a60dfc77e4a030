"""Host keys of devices' ssh services: what of a key is shown before anybody has proved it."""

import pytest

from revtunnel.trust.host_keys import fingerprint_of, kind_of


def blob(kind: bytes) -> bytes:
    """A key that says so of itself."""
    return len(kind).to_bytes(4, "big") + kind + b"key"


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        (blob(b"ssh-ed25519"), "ssh-ed25519"),
        (blob(b"ecdsa-sha2-nistp256"), "ecdsa-sha2-nistp256"),
        (blob(b"x" * 64), "x" * 64),
        (blob(b"x" * 65), ""),
        (blob(b"\x1b[2Jssh-rsa"), ""),  # clears the screen of whoever is asked
        (blob(b"ssh-rsa\r\nKeep it"), ""),
        (blob(b"ssh-r\xf6a"), ""),
        (b"\x00\x00\x00\x09ssh-rsa", ""),
        (b"\xff\xff\xff\xff", ""),
        (b"", ""),
    ],
)
def test_what_a_key_says_of_itself(key: bytes, kind: str) -> None:
    """Its type, or nothing: no text of a service's gets to a screen as a key."""
    assert kind_of(key) == kind
    assert fingerprint_of(key).startswith("SHA256:")
