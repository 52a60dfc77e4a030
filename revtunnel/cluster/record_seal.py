"""What is written into the engine, closed with a secret that all nodes have and the engine has not.

Rule of this file: without the secret nobody can make a record, alter one, or put one in another's place; nor
see what is in it, or even whose it is: its name is a keyed hash. Who can write there can still keep back what
was changed last, or show an old record again, which only a node believes that knows no newer one.

A secret is the file's bytes without white space at its ends, 32 at least; two keys are made of it, for names
and for what they name, and a mark by which nodes see who has another one, each of one cluster only.
AES-256-GCM, a random nonce of 96 bits before it.

Source: NIST SP 800-38D section 8.2.2; RFC 5869 (HKDF); ours.
"""

import base64
import hashlib
import hmac
import json
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from revtunnel.sockets.tls.certificates import private_file_fault

__all__ = ["OpenRecords", "SealedRecords", "read_secret"]

LEAST = 32  # bytes of a secret
MOST = 4096
NONCE = 12
NAME = 32  # bytes of a keyed hash
MARK = 8  # bytes


def read_secret(path: str) -> bytes:
    """The secret in a file.

    Raises:
        ValueError: it is none, or may be read by everybody; the text says why, and nothing of it.
    """
    fault = private_file_fault(path)
    if fault is not None:
        raise ValueError(fault)
    with open(path, "rb") as file:
        secret = file.read(MOST + 1).strip()
    if not LEAST <= len(secret) <= MOST:
        raise ValueError(f"{len(secret)} bytes, {LEAST} to {MOST} wanted: openssl rand -base64 48 makes some")
    return secret


class OpenRecords:
    """Without a secret: everybody can read and write them. ``mark``: which secret, for others to see."""

    mark = "none"

    def name(self, id: str) -> str:
        """What a record is called in the engine."""
        return id

    def close(self, id: str, text: str) -> str:
        """What is written there."""
        return text

    def open(self, name: str, value: str) -> tuple[str, str] | None:
        """A record and its text; None: nobody of us wrote it."""
        return name, value


class SealedRecords(OpenRecords):
    """With one."""

    def __init__(self, secret: bytes, cluster: str) -> None:
        told = f"revtunnel records of {cluster}".encode()
        keys = HKDF(SHA256(), 2 * NAME + MARK, None, told).derive(secret)
        self._named, self._box, self.mark = keys[:NAME], AESGCM(keys[NAME:-MARK]), keys[-MARK:].hex()

    def name(self, id: str) -> str:
        return hmac.new(self._named, id.encode(), hashlib.sha256).hexdigest()

    def close(self, id: str, text: str) -> str:
        nonce, plain = os.urandom(NONCE), json.dumps([id, text]).encode("ascii")
        return base64.b64encode(nonce + self._box.encrypt(nonce, plain, self.name(id).encode())).decode()

    def open(self, name: str, value: str) -> tuple[str, str] | None:
        try:
            data = base64.b64decode(value, validate=True)
            id, text = json.loads(self._box.decrypt(data[:NONCE], data[NONCE:], name.encode()))
        except (ValueError, InvalidTag):
            return None
        return id, text
