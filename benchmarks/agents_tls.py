"""TLS of simulated agents: each has a certificate of its own, and costs little more than its connection.

Rule of this file: one context and one key for all agents of a process. A certificate is made when its agent
dials, by the authority whose key `authority` leaves in the folder; none of them is a file.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Generator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

from tests.support.throwaway_tls import DAY, DEVICE_URI, DEVICES, Issuer, pem

__all__ = ["Secured", "Trust", "authority", "trust"]

AUTHORITY = "test-authority"


def authority(folder: Path, *serials: str) -> str:
    """Make one, a certificate for 127.0.0.1 and those of some devices: the lines of a listener."""
    issuer = Issuer(folder)
    issuer.write(f"{AUTHORITY}.key", pem(issuer.key), 0o600)
    for serial in serials:
        issuer.device(serial)
    mine = issuer.server("127.0.0.1")
    files = {
        "certificate": mine.certificate_file,
        "certificate_key": mine.key_file,
        "authority": issuer.file,
    }
    return "tls = yes\n" + "".join(f"{name} = {file}\n" for name, file in files.items())


class Trust:
    """What all agents of the process have. They look at the server's chain, and not at its name."""

    def __init__(self, folder: Path) -> None:
        text = (folder / f"{AUTHORITY}.key").read_bytes()
        self._signs = serialization.load_pem_private_key(text, None)
        above = x509.load_pem_x509_certificate((folder / f"{AUTHORITY}.pem").read_bytes())
        self._key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(above.subject, x509.Name([]), self._key.public_key())
        builder = builder.not_valid_before(now - DAY).not_valid_after(now + DAY)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        self._builder = builder.add_extension(x509.ExtendedKeyUsage(DEVICES), critical=False)
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.load_verify_locations(str(folder / f"{AUTHORITY}.pem"))
        self._context.set_verify(SSL.VERIFY_PEER)
        self._context.set_mode(SSL.MODE_RELEASE_BUFFERS)

    def connect(self, sock: socket.socket, serial: str) -> Secured:
        """A connection by a socket that is connected."""
        named = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(DEVICE_URI + serial)])
        builder = self._builder.serial_number(x509.random_serial_number())
        signed = builder.add_extension(named, critical=True).sign(self._signs, hashes.SHA256())  # type: ignore[arg-type]
        connection = SSL.Connection(self._context, sock)
        connection.use_certificate(signed)
        connection.use_privatekey(self._key)
        connection.set_connect_state()
        return Secured(connection)


trust = cache(Trust)


class Secured:
    """As a socket, so far as agents use one. OSError: it has ended; BlockingIOError: nothing yet."""

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def shake(self) -> Generator[int]:
        """Shake hands; yields what it waits for."""
        while True:
            try:
                self._connection.do_handshake()
            except SSL.WantReadError:
                yield select.EPOLLIN
            except SSL.WantWriteError:
                yield select.EPOLLOUT
            except SSL.Error as error:
                raise ConnectionAbortedError(str(error)) from None
            else:
                return

    def send(self, data: bytes) -> int:
        """All of it: agents say little."""
        try:
            return int(self._connection.send(data))
        except SSL.Error as error:
            raise ConnectionAbortedError(str(error)) from None

    def recv(self, size: int) -> bytes:
        """What came; b"": the end."""
        try:
            return bytes(self._connection.recv(size))
        except SSL.WantReadError:
            raise BlockingIOError from None
        except SSL.ZeroReturnError:
            return b""
        except SSL.Error as error:
            raise ConnectionAbortedError(str(error)) from None
