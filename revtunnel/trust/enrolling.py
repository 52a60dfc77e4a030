"""The agent's part of enrolment: whom to trust, by a token, and one question to the server.

The rules: a server that a token does not vouch for is told nothing. ``find_authority`` trusts nobody and says
nothing, it only looks at the chain that the server shows, and takes out of it the one certificate whose key
the token names. The question itself is asked on a connection that was judged like any other's.

Source: docs/link-protocol.rst "Enrolment"; twisted.md 0.1.
"""

import contextlib
import errno
import hashlib
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL
from twisted.internet.defer import Deferred

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.targets import is_literal
from revtunnel.link.handshake import Dismissed
from revtunnel.sockets.ends import End
from revtunnel.sockets.stages import client_tls, read_some, write_all
from revtunnel.sockets.tls.enroll import MAX_CERTIFICATE, decode_certificate
from revtunnel.sockets.tls.peer_verification import tls_fault
from revtunnel.sockets.ways.http_proxy import open_way
from revtunnel.sockets.ways.proxy_choice import ProxyChoice
from revtunnel.streams.commands import Command, decode_goaway, named
from revtunnel.streams.frames import Frame, FrameDecoder, encode_frame

__all__ = ["ask", "find_authority"]

MAX_GOAWAY = 203  # bytes of payload
MAX_CHAIN = 16  # certificates that a server may show


def find_authority(
    reactor: Any, choice: ProxyChoice, host: str, port: int, timeout: float, pin: bytes
) -> "Deferred[x509.Certificate]":
    """The certificate of the authority whose public key has the SHA-256 ``pin``, from the server's chain.

    Nothing is said to the server. Fails with OSError, or with RemoteError: it shows no such certificate.
    """
    chain: list[x509.Certificate] = []
    found: list[x509.Certificate] = []
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_verify(SSL.VERIFY_NONE)  # the chain is looked at, nobody is trusted

    def look(connection: SSL.Connection) -> None:
        chain.extend(connection.get_peer_cert_chain(as_cryptography=True) or [])
        found.extend(each for each in chain[:MAX_CHAIN] if _pin(each) == pin)

    def done(end: End) -> x509.Certificate:
        with contextlib.suppress(OSError):
            end.end_writing()  # a reset would look like a fault over there
        end.close()
        if not found:
            shown = chain[-1].issuer.rfc4514_string()[:120] if chain else "nobody"
            whose = f"{end.peer} does not belong to the authority of this token, but to {shown!a}"
            raise RemoteError(f"{whose}: another server, or who opens TLS on the way")
        return found[0]

    stages = [client_tls(reactor, context, "" if is_literal(host) else host, look)]
    return open_way(reactor, choice, host, port, timeout, stages).addCallback(done)


def ask(
    reactor: Any, opening: "Callable[[], Deferred[End]]", payload: bytes, timeout: float
) -> "Deferred[tuple[bytes, bytes]]":
    """Send ENROLL on a new connection: the device's certificate and the authority's, in DER.

    Fails with OSError, Dismissed (the server says no), or RemoteError.
    """
    return Deferred.fromCoroutine(_ask(reactor, opening, payload)).addTimeout(timeout, reactor)


async def _ask(reactor: Any, opening: "Callable[[], Deferred[End]]", payload: bytes) -> tuple[bytes, bytes]:
    end = await opening()
    try:
        await write_all(reactor, end, encode_frame(Command.ENROLL, 0, payload))
        frame = await _frame(reactor, end)
    except OSError as error:  # in TLS 1.3 the verdict on our certificate comes as late as this
        raise ConnectionAbortedError(errno.ECONNABORTED, tls_fault(error)) from None
    finally:
        end.abort()
    if frame.command == Command.GOAWAY:
        raise Dismissed(*decode_goaway(frame.payload))
    return decode_certificate(frame.payload)


async def _frame(reactor: Any, end: End) -> Frame:
    decoder = FrameDecoder(_judge)
    while True:
        data = await read_some(reactor, end)
        if not data:
            raise RemoteError("the server hung up without an answer")
        decoder.receive(data)
        for frame in decoder.frames(1):
            return frame


def _judge(size: int, command: int, channel: int) -> None:
    most = {int(Command.CERTIFICATE): MAX_CERTIFICATE, int(Command.GOAWAY): MAX_GOAWAY}
    if size > most.get(command, -1):
        raise RemoteError(f"the server said {named(command)} of {size} bytes instead of a certificate")


def _pin(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
