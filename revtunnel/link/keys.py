"""Proof of a device key without showing it, and without the server being able to play the device.

The key is 32 random bytes, shown once. The server keeps two hashes made from it: with ``stored_key`` it can
check a proof, not make one; with ``server_key`` it proves that it knows this device. So a copy of the
server's ledger alone does not open a way in, and an agent with a key notices a false server. (A copy of the
ledger makes a false server, and with a PROOF read off a plain link it gives away ``client_key``: TLS.)

====================  ==================================================================================
client_key            HMAC-SHA-256(key, "rt1 device" | serial)
stored_key            SHA-256(client_key)
server_key            HMAC-SHA-256(key, "rt1 server" | serial)
transcript            "rt1 agent" or "rt1 server" | 0 | serial | 0 | server nonce | agent nonce | binding
PROOF, 32 bytes       client_key XOR HMAC-SHA-256(stored_key, agent transcript)
HELLO's proof         HMAC-SHA-256(server_key, server transcript)
====================  ==================================================================================

Source: wire/link-extension.md "Negotiation"; the split into two keys follows RFC 5802 section 3. The binding
ties a proof to its connection: handshake.py puts the SHA-256 of the exchange there; what TLS exports belongs
behind it.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "DUMMY",
    "Verifier",
    "check_device",
    "new_key",
    "parse_key",
    "prove_device",
    "prove_server",
    "verifier_of",
]

PREFIX = "rtkey1_"
KEY_SIZE = 32


@dataclass(frozen=True, slots=True)
class Verifier:
    """What the server keeps of a device key: 32 bytes each."""

    stored_key: bytes
    server_key: bytes


DUMMY = Verifier(bytes(32), bytes(32))  # an unknown serial is checked against this, to take the same time


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def _transcript(role: bytes, serial: str, server_nonce: bytes, agent_nonce: bytes, binding: bytes) -> bytes:
    return b"\0".join((b"rt1 " + role, serial.encode("ascii"), server_nonce + agent_nonce + binding))


def new_key(random_bytes: Callable[[int], bytes]) -> str:
    """A new device key in its written form."""
    return PREFIX + base64.urlsafe_b64encode(random_bytes(KEY_SIZE)).rstrip(b"=").decode("ascii")


def parse_key(text: str) -> bytes:
    """The 32 bytes of a written key; white space around it is ignored.

    Raises:
        ValueError: not a device key. The text is not repeated in the message: it may be a secret.
    """
    text = text.strip()
    if not text.startswith(PREFIX):
        raise ValueError(f"a device key begins with {PREFIX}")
    written = text[len(PREFIX) :]
    try:
        key = base64.urlsafe_b64decode(written + "=")
    except ValueError:
        key = b""
    # the decoder skips and swaps characters: only the one spelling of a key is a key
    if base64.urlsafe_b64encode(key) != written.encode("ascii", "replace") + b"=" or len(key) != KEY_SIZE:
        raise ValueError(f"a device key has 43 of A-Z a-z 0-9 - _ after {PREFIX}")
    return key


def verifier_of(key: bytes, serial: str) -> Verifier:
    """What the server keeps."""
    name = serial.encode("ascii")
    client_key = _hmac(key, b"rt1 device" + name)
    return Verifier(hashlib.sha256(client_key).digest(), _hmac(key, b"rt1 server" + name))


def prove_device(
    key: bytes, serial: str, server_nonce: bytes, agent_nonce: bytes, binding: bytes = b""
) -> bytes:
    """PROOF's payload."""
    client_key = _hmac(key, b"rt1 device" + serial.encode("ascii"))
    stored_key = hashlib.sha256(client_key).digest()
    mask = _hmac(stored_key, _transcript(b"agent", serial, server_nonce, agent_nonce, binding))
    return bytes(a ^ b for a, b in zip(client_key, mask, strict=True))


def check_device(
    verifier: Verifier,
    serial: str,
    proof: bytes,
    server_nonce: bytes,
    agent_nonce: bytes,
    binding: bytes = b"",
) -> bool:
    """Whether the proof was made with the key; takes the same time either way. 32 bytes, else it was not."""
    if len(proof) != KEY_SIZE:
        return False
    mask = _hmac(verifier.stored_key, _transcript(b"agent", serial, server_nonce, agent_nonce, binding))
    client_key = bytes(a ^ b for a, b in zip(proof, mask, strict=True))
    return hmac.compare_digest(hashlib.sha256(client_key).digest(), verifier.stored_key)


def prove_server(
    verifier: Verifier, serial: str, server_nonce: bytes, agent_nonce: bytes, binding: bytes = b""
) -> bytes:
    """The server's proof in its HELLO; the agent makes the same from its key and compares."""
    return _hmac(verifier.server_key, _transcript(b"server", serial, server_nonce, agent_nonce, binding))
