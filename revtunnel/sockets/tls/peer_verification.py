"""Who is at the other end of a TLS connection: contexts from files, and the judgement of its certificate.

Rule of this file: nobody is let in by an exception. OpenSSL judges the chain of signatures, its times and its
uses; we judge what the certificate says, in the same callback, so that a refused peer gets an alert and not a
byte more; and when the handshake is done ``Guard.verdict`` asks for all of it once more. Either refusal has
words (``Guard.fault``).

What a certificate says is remembered by its bytes, of those that were good: a device shows the same one on
its link and on each data socket. Only that: its signatures, times, uses and the list of the authority are
judged by OpenSSL in every handshake, the server's list of revoked certificates is asked in every one, and
other files make another Identity, which remembers nothing.

Twisted's own TLS takes a server certificate that has no subjectAltName for any name (26.4 and 26.10): its
verify callback leaves such a certificate to OpenSSL, which knows nothing of names. That is why the name is
checked here, and every exception on the way refuses.

Renegotiation, compression and session tickets are off: a resumed session would not be judged again.

Source: twisted.md 0.1, 2.4; faults.md "TLS", N15, N34.
"""

import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, X509, X509StoreFlags, dump_certificate

from revtunnel.ground.targets import is_literal
from revtunnel.sockets.ends import BROKE_TLS, CUT, said, sentence
from revtunnel.sockets.tls.certificates import (
    CertificateFiles,
    CertificateRefused,
    Credentials,
    FaultyFiles,
    PeerCertificate,
    TlsSide,
    day,
    judge_device,
    judge_node,
    judge_server,
    read_credentials,
    refuse_revoked,
)

__all__ = [
    "ALPN",
    "BY_ANOTHER",
    "HUNG_UP",
    "Guard",
    "Identity",
    "Judged",
    "TlsRules",
    "never_revoked",
    "silent_refusal",
    "tls_fault",
]

ALPN = b"revtunnel/1"  # offered by agents; a balancer may choose by it, a server takes agents without it too
CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"  # of TLS 1.2; those of 1.3 are all good
_PEER = {
    "required": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
    "optional": SSL.VERIFY_PEER,
    "no": SSL.VERIFY_NONE,
}
_OPTIONS = (
    SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
)
BY_ANOTHER = "is signed by another authority"
_EXPIRED = 10  # of the same
REMEMBERED = 1024  # certificates of one identity that are not read again; a few hundred bytes each
_OTHER_AUTHORITY = {2, 7, 18, 19, 20, 21}  # codes of X509_verify_cert: no way from it to one of ours


@dataclass(frozen=True, slots=True)
class TlsRules:
    """What one listener, or an agent, does with TLS."""

    files: CertificateFiles
    least: str = "1.3"  # or 1.2
    peer: str = "required"  # a server asks for device certificates: required, optional, no
    alpn: bytes = ALPN  # what a client says it will speak

    @property
    def side(self) -> TlsSide:
        """Which end we are."""
        return self.files.side


def never_revoked(serial: str, fingerprint: str) -> bool:
    """For whoever keeps no list."""
    return False


# ---- judging


def chain_fault(code: int, certificate: x509.Certificate, depth: int, now: datetime) -> str:
    """What OpenSSL has against a certificate, in our words; ``depth`` 0 is the peer's own."""
    whose = "certificate" if depth == 0 else "certificate of its authority"
    if code == 9:
        since = day(certificate.not_valid_before_utc)
        return f"{whose} is not valid before {since}: is the clock of this machine right? It says {day(now)}"
    if code == 10:
        return f"{whose} expired on {day(certificate.not_valid_after_utc)}"
    if code in _OTHER_AUTHORITY:
        issuer = certificate.issuer.rfc4514_string()[:120]
        return f"{whose} {BY_ANOTHER} ({issuer!a})"
    words = {
        3: "is not covered by the list of revoked certificates",
        11: "is covered by a list of revoked certificates that is not valid yet",
        12: "is covered by a list of revoked certificates that is out of date",
        23: "is revoked",
        24: "may not sign others",
        26: "is for another use, by its extended key usage",
        66: "has a key that is too short",
        67: "has a key that is too short",
        68: "is signed with a weak digest",
    }
    return f"{whose} {words.get(code, f'is refused by check {code} of OpenSSL')}"


class Judged:
    """What certificates say; ``judge`` reads one, for the name that was dialled, or raises to refuse it."""

    def __init__(
        self, judge: Callable[[x509.Certificate, str], PeerCertificate], most: int = REMEMBERED
    ) -> None:
        self._judge = judge
        self._most = most
        self._found: dict[tuple[bytes, str], PeerCertificate] = {}  # by SHA-256; the oldest first

    def of(self, shown: X509, name: str) -> PeerCertificate:
        """What it says, and whether that is right; of the same bytes it was read once."""
        key = sha256(dump_certificate(FILETYPE_ASN1, shown)).digest(), name
        found = self._found.get(key)
        if found is None:
            found = self._judge(shown.to_cryptography(), name)
            if len(self._found) >= self._most:
                del self._found[next(iter(self._found))]
            self._found[key] = found
        return found


class Guard:
    """The judgement of one connection's peer. ``fault`` says why it was refused, ``peer`` whom it shows.

    ``name``: whom it has to be. ``grace``: seconds behind its end in which the peer's own certificate is
    still taken; it is ``late`` then.
    """

    __slots__ = ("_grace", "_judged", "_name", "_revoked", "fault", "needed", "peer")

    def __init__(
        self,
        judged: Judged,
        needed: bool,
        name: str = "",
        grace: float = 0.0,
        revoked: Callable[[str, str], bool] = never_revoked,
    ) -> None:
        self._judged = judged
        self._name = name
        self._grace = grace
        self._revoked = revoked
        self.needed = needed  # somebody without a certificate is refused
        self.peer: PeerCertificate | None = None
        self.fault = ""

    def look(self, shown: X509, code: int, depth: int, good: bool) -> bool:
        """Called by OpenSSL for every certificate of the chain, the peer's own last."""
        try:
            if not good:
                self._forgive(shown, code, depth)
            if depth == 0:
                peer = self._judged.of(shown, self._name)
                refuse_revoked(peer, self._revoked)
                self.peer = replace(peer, late=True) if time.time() >= peer.expires else peer
        except CertificateRefused as error:
            self.fault = str(error)
        except Exception as error:  # whatever it is, it lets nobody in
            self.fault = f"certificate cannot be judged: {type(error).__name__} {str(error)[:120]!a}"
        return not self.fault

    def _forgive(self, shown: X509, code: int, depth: int) -> None:
        """Let its end pass within the grace; CertificateRefused: it is that of nobody, or something else."""
        certificate, now = shown.to_cryptography(), datetime.now(UTC)
        ago = (now - certificate.not_valid_after_utc).total_seconds()
        if code != _EXPIRED or depth or ago >= self._grace:
            raise CertificateRefused(chain_fault(code, certificate, depth, now))

    def verdict(self, connection: SSL.Connection) -> PeerCertificate | None:
        """Who is there, once the handshake is done; None: somebody without a certificate, who may be.

        Raises:
            CertificateRefused: nothing may be sent to this peer, and nothing of it may be read.
        """
        certificate = connection.get_peer_certificate()
        if not self.fault and certificate is None and self.needed:
            self.fault = "no certificate"
        if not self.fault and certificate is not None and self.peer is None:  # OpenSSL has not asked us
            self.fault = "certificate was not checked against the authority"
        if not self.fault and certificate is not None:
            self.look(certificate, 0, 0, True)
        if self.fault:
            raise CertificateRefused(self.fault)
        return self.peer if certificate is not None else None


def _look(connection: SSL.Connection, shown: X509, code: int, depth: int, good: int) -> bool:
    guard: Guard | None = connection.get_app_data()
    return guard is not None and guard.look(shown, code, depth, bool(good))


# ---- contexts


def _context(rules: TlsRules, credentials: Credentials) -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION if rules.least == "1.2" else SSL.TLS1_3_VERSION)
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # an idle link holds no record buffers
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_cipher_list(CIPHERS)
    _show(context, rules, credentials)
    _trust(context, rules, credentials)
    if rules.side is not TlsSide.DEVICE:
        context.set_alpn_select_callback(_select)
    if rules.side is not TlsSide.SERVER:
        context.set_alpn_protos([rules.alpn])
    return context


def _select(connection: SSL.Connection, offered: list[bytes]) -> Any:
    return ALPN if ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def _show(context: SSL.Context, rules: TlsRules, credentials: Credentials) -> None:
    """What we show of ourselves."""
    if not credentials.chain or credentials.key is None:
        return
    try:
        context.use_certificate(credentials.chain[0])
        for each in credentials.chain[1:]:
            context.add_extra_chain_cert(each)
        context.use_privatekey(credentials.key)
        context.check_privatekey()
    except SSL.Error as error:  # a key that is too short, an algorithm that OpenSSL does not know
        text = f"{rules.files.certificate}: OpenSSL does not take it: {_reasons(error)}"
        raise FaultyFiles([("certificate", text)]) from None


def _trust(context: SSL.Context, rules: TlsRules, credentials: Credentials) -> None:
    """Who may have signed what the other side shows."""
    peer = rules.peer if rules.side is TlsSide.SERVER else "required"
    context.set_verify(_PEER[peer], _look)
    store = context.get_cert_store()
    if store is None or peer == "no":
        return
    if rules.side in (TlsSide.DEVICE, TlsSide.GUEST) and rules.files.authority is None:
        context.set_default_verify_paths()
    for authority in credentials.authorities:
        store.add_cert(X509.from_cryptography(authority))
    for crl in credentials.crls:
        store.add_crl(crl)
    # an authority in the middle may be trusted without the one above it
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN | (X509StoreFlags.CRL_CHECK if credentials.crls else 0))


_JUDGES: dict[TlsSide, Callable[[x509.Certificate, str], PeerCertificate]] = {
    TlsSide.NODE: judge_node,
    TlsSide.SERVER: lambda shown, name: judge_device(shown, never_revoked),
    TlsSide.DEVICE: judge_server,
    TlsSide.GUEST: judge_server,
}


class Identity:
    """What new connections are made from: the files as they were when this was made."""

    def __init__(
        self,
        rules: TlsRules,
        revoked: Callable[[str, str], bool] = never_revoked,
        grace: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Read the files; ``grace`` as for ``Guard``, asked at every handshake.

        Raises:
            FaultyFiles: with every fault of every file.
        """
        self._revoked = revoked
        self._grace = grace
        self._judged = Judged(_JUDGES[rules.side])
        self.rules = rules
        self.credentials = read_credentials(rules.files)
        self._context = _context(rules, self.credentials)

    def accept(self, sock: socket.socket) -> tuple[SSL.Connection, Guard]:
        """The server's end on a connected socket, its handshake not begun."""
        needed = self.rules.peer == "required"
        if self.rules.side is TlsSide.NODE:
            guard = Guard(self._judged, True)
        else:
            guard = Guard(self._judged, needed, "", self._grace(), self._revoked)
        connection = self._connection(sock, guard)
        connection.set_accept_state()
        return connection, guard

    def connect(self, sock: socket.socket, name: str) -> tuple[SSL.Connection, Guard]:
        """The agent's end; the server must be ``name``, a host name or an IP address; of a node: that one."""
        guard = Guard(self._judged, True, name)
        connection = self._connection(sock, guard)
        if not is_literal(name):  # RFC 6066 allows no address
            connection.set_tlsext_host_name(name.encode("ascii"))
        connection.set_connect_state()
        return connection, guard

    def _connection(self, sock: socket.socket, guard: Guard) -> SSL.Connection:
        connection = SSL.Connection(self._context, sock)
        connection.set_app_data(guard)
        return connection


# ---- what went wrong, in words


HUNG_UP = "it hung up in the middle of the handshake"
REFUSED = "the other side refused our certificate"
_ALERTS = {
    "certificate expired": "expired",
    "certificate revoked": "revoked",
    "unknown ca": "signed by another authority",
    "bad certificate": "bad",
    "certificate unknown": "not accepted",
    "unsupported certificate": "of a kind it does not take",
    "certificate required": "there is none",
    "access denied": "not accepted",
    "internal error": "not accepted",  # OpenSSL's word where an application refuses, as we do
}
_REASONS = {
    "peer did not return a certificate": "no certificate",
    "wrong version number": "this is no TLS",
    "http request": "this is HTTP, not TLS",
    "packet length too long": "this is no TLS",
    "unsupported protocol": "no TLS version in common (see tls_least)",
    "alert protocol version": "no TLS version in common (see tls_least)",
    "no shared cipher": "no cipher in common",
    "unexpected eof": HUNG_UP,
    CUT: HUNG_UP,
    "reset the connection": HUNG_UP,
}


def _reasons(error: BaseException) -> str:
    """What OpenSSL says, whether it raised it itself or an End passed it on."""
    error = sentence(error) if isinstance(error, SSL.Error) else error
    text = said(error) if isinstance(error, OSError) else str(error) or type(error).__name__
    return text.removeprefix(f"{BROKE_TLS}: ")


def silent_refusal(error: BaseException | None) -> str:
    """Why a server hung up behind the agent's own end of the handshake, where TLS 1.3 tells its verdict."""
    words = tls_fault(error) if error is not None else ""
    if words.startswith(REFUSED):
        return words
    return "the server hung up right after the TLS handshake: does it take our certificate?"


def tls_fault(error: BaseException) -> str:
    """What a handshake, or a read soon after it, failed for: our refusal, the other side's, or bad bytes."""
    if isinstance(error, CertificateRefused):
        return str(error)
    text = _reasons(error)
    for alert, word in _ALERTS.items():
        if f"alert {alert}" in text:
            return f"{REFUSED}: {word}"
    return next((words for reason, words in _REASONS.items() if reason in text), f"TLS: {text}")
