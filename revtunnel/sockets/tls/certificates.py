"""Certificates: our own from files, a peer's from its handshake; each is judged here, and nowhere else.

Rule of this file: a certificate that is refused is refused in words that name the check, fit for a log line.
What a certificate is for is read from subjectAltName and extended key usage only; a common name is no name.
A private key is read when it is used, and never repeated.

    device    URI:urn:revtunnel:device:<serial>, exactly one, exact bytes; extended key usage clientAuth
    server    the DNS name or IP address that the agent dials;             extended key usage serverAuth

Source: faults.md "Device identity", N15, N34; twisted.md 0.1; wire/link-extension.md "Negotiation".
"""

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from service_identity.cryptography import verify_certificate_hostname, verify_certificate_ip_address

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.targets import is_literal
from revtunnel.sockets.tls.enroll import DEVICE_URI, device_of

__all__ = [
    "DAMAGED",
    "CertificateFiles",
    "CertificateRefused",
    "Credentials",
    "FaultyFiles",
    "PeerCertificate",
    "TlsSide",
    "device_serial",
    "judge_device",
    "judge_node",
    "judge_server",
    "node_name",
    "private_file_fault",
    "read_credentials",
    "refuse_revoked",
]

MAX_FILE = 4 * 1024 * 1024  # bytes of one PEM file: a list of all public authorities has a quarter MiB
NAMES_SHOWN = 5
NODE_URI = "urn:revtunnel:node:"
SOON = timedelta(days=14)  # before its end a certificate of ours is worth a warning
REVOCATION_MARK = b"-----BEGIN X509 CRL-----"
# what cryptography raises of a certificate that is none, also where one of its parts is looked at first
DAMAGED = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class CertificateRefused(RemoteError):
    """The other side's certificate is not accepted; the text names the check."""


class FaultyFiles(Exception):
    """Files cannot be used; ``faults`` are pairs of the setting's key and what is wrong with its file."""

    def __init__(self, faults: list[tuple[str, str]]) -> None:
        self.faults = faults
        super().__init__("; ".join(f"{key}: {text}" for key, text in faults))


class TlsSide(Enum):
    """Which end shows the certificate."""

    SERVER = (ExtendedKeyUsageOID.SERVER_AUTH,)
    DEVICE = (ExtendedKeyUsageOID.CLIENT_AUTH,)
    NODE = (*SERVER, *DEVICE)  # of a cluster: it dials the others, and they dial it
    GUEST = ()  # of another program's server, which says itself what its clients show


_USERS = {
    TlsSide.SERVER: "servers (serverAuth)",
    TlsSide.DEVICE: "devices (clientAuth)",
    TlsSide.NODE: "nodes (serverAuth and clientAuth)",
}


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where the files of one side are; None: it has none."""

    side: TlsSide
    certificate: str | None = None  # the certificate, then those that lead to its authority
    key: str | None = None
    authority: str | None = None  # who may have signed the other side's; None at an agent: the machine's list
    crl: str | None = None  # certificates that the authority took back


@dataclass(frozen=True, slots=True)
class Credentials:
    """What was in the files, all of it right."""

    chain: tuple[x509.Certificate, ...] = ()
    key: Any = None  # a private key
    authorities: tuple[x509.Certificate, ...] = ()
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    serial: str = ""  # of a device's certificate, or the name in a node's
    warnings: tuple[str, ...] = ()

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """Of everything that was read, in order: two of the same files are equal in this."""
        lists = (crl.fingerprint(hashes.SHA256()).hex() for crl in self.crls)
        return (*map(fingerprint, self.chain), "-", *map(fingerprint, self.authorities), "-", *lists)


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What is kept of a certificate that was accepted."""

    serial: str  # of the device, or the name of the node; "" for a server's
    fingerprint: str  # SHA-256 of the certificate, hexadecimal
    expires: float  # seconds since 1970
    late: bool = False  # it has ended, and is good for its renewal only
    key: str = ""  # SHA-256 of its public key, hexadecimal


# ---- what a certificate says


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the whole certificate, hexadecimal."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def day(moment: datetime) -> str:
    """A date as people write it to each other."""
    return moment.strftime("%Y-%m-%d")


def _names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        raise CertificateRefused("certificate has no name (no subjectAltName)") from None
    except DAMAGED as error:
        raise CertificateRefused(f"certificate is damaged: {error}") from None


def device_serial(certificate: x509.Certificate) -> str:
    """The serial that a certificate was issued for, byte for byte.

    Raises:
        CertificateRefused: it is for no device, for several, or the serial is none.
    """
    uris = _names(certificate).get_values_for_type(x509.UniformResourceIdentifier)
    try:
        found = [serial for uri in uris if (serial := device_of(uri)) is not None]
    except RemoteError as error:
        raise CertificateRefused(f"certificate: {error}") from None
    if len(found) != 1:
        text = f"{len(found)} device names" if found else "no device name"
        raise CertificateRefused(f"certificate has {text} (exactly one URI {DEVICE_URI}SERIAL is wanted)")
    return found[0]


def node_name(certificate: x509.Certificate) -> str:
    """The name of the node that a certificate was issued for.

    Raises:
        CertificateRefused: it is for none, for several, or for a device as well.
    """
    uris = _names(certificate).get_values_for_type(x509.UniformResourceIdentifier)
    found = [uri.removeprefix(NODE_URI) for uri in uris if uri.startswith(NODE_URI)]
    if len(found) != 1 or len(uris) != 1:
        wanted = f"exactly one URI {NODE_URI}NAME is wanted, and no other"
        raise CertificateRefused(f"certificate has {len(found)} names of nodes ({wanted})")
    return found[0]


def _check_purpose(certificate: x509.Certificate, side: TlsSide) -> None:
    wanted = _USERS[side]
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        raise CertificateRefused(
            f"certificate names no use: extended key usage for {wanted} wanted"
        ) from None
    except DAMAGED as error:
        raise CertificateRefused(f"certificate is damaged: {error}") from None
    if any(each not in usage for each in side.value):
        raise CertificateRefused(f"certificate is not for {wanted}, by its extended key usage")


def _shown(certificate: x509.Certificate) -> str:
    """The names of a certificate, for a log line."""
    names = [str(getattr(name, "value", name)) for name in _names(certificate)]
    more = [f"{len(names) - NAMES_SHOWN} more"] if len(names) > NAMES_SHOWN else []
    text = ", ".join([*(name[:80] for name in names[:NAMES_SHOWN]), *more])
    return "".join(character if character.isprintable() else "?" for character in text)


def _kept(certificate: x509.Certificate, serial: str) -> PeerCertificate:
    key = hashlib.sha256(_public(certificate.public_key())).hexdigest()
    until = certificate.not_valid_after_utc.timestamp()
    return PeerCertificate(serial, fingerprint(certificate), until, key=key)


# ---- the other side's


def judge_server(certificate: x509.Certificate, name: str) -> PeerCertificate:
    """Whether this is the server called ``name``, a host name or an IP address. Its signature is not judged.

    Raises:
        CertificateRefused: it is not; any other exception means the same.
    """
    _check_purpose(certificate, TlsSide.SERVER)
    names = _shown(certificate)
    try:
        if is_literal(name):
            verify_certificate_ip_address(certificate, name)
        else:
            verify_certificate_hostname(certificate, name)
    except Exception as error:  # CertificateError and whatever else: nothing of it may let a server in
        raise CertificateRefused(f"certificate is for {names}, not for {name}") from error
    return _kept(certificate, "")


def judge_node(certificate: x509.Certificate, name: str = "") -> PeerCertificate:
    """Which node this is, and that it is the one called ``name``, if that is said.

    Raises:
        CertificateRefused: it is none, or another one; any other exception means the same.
    """
    _check_purpose(certificate, TlsSide.NODE)
    peer = _kept(certificate, node_name(certificate))
    if name not in ("", peer.serial):
        raise CertificateRefused(f"certificate is for node {peer.serial}, not for {name}")
    return peer


def judge_device(certificate: x509.Certificate, revoked: Callable[[str, str], bool]) -> PeerCertificate:
    """Which device this is. Its signature is not judged. ``revoked`` is asked with serial and fingerprint.

    Raises:
        CertificateRefused: it is none, or not any more; any other exception means the same.
    """
    _check_purpose(certificate, TlsSide.DEVICE)
    peer = _kept(certificate, device_serial(certificate))
    refuse_revoked(peer, revoked)
    return peer


def refuse_revoked(peer: PeerCertificate, revoked: Callable[[str, str], bool]) -> None:
    """The same of one that was judged before.

    Raises:
        CertificateRefused: it was good, and is not any more.
    """
    if revoked(peer.serial, peer.fingerprint):
        raise CertificateRefused(f"certificate of {peer.serial} is revoked")


# ---- our own


def private_file_fault(path: str) -> str | None:
    """Why a file must not, or cannot, hold a key; a group may read it where root owns it."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
    except OSError as error:
        return f"{error.strerror}, a file that can be read wanted"
    if not stat.S_ISREG(status.st_mode):
        return "not a plain file"
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
    if status.st_mode & (stat.S_IROTH | stat.S_IWOTH):
        return f"{mode} opens it to everybody, 0600 wanted"
    if status.st_mode & stat.S_IWGRP:
        return f"{mode} lets its group write it, 0600 wanted"
    if status.st_mode & stat.S_IRGRP and status.st_uid != 0:
        return f"{mode} lets its group read it, 0600 wanted, or root as its owner"
    return None


def _server_name(leaf: x509.Certificate) -> str:
    if not any(isinstance(name, x509.DNSName | x509.IPAddress) for name in _names(leaf)):
        raise CertificateRefused("certificate has neither a DNS name nor an IP address")
    return ""


_NAMED = {
    TlsSide.SERVER: _server_name,
    TlsSide.DEVICE: device_serial,
    TlsSide.NODE: node_name,
    TlsSide.GUEST: lambda leaf: "",
}


@dataclass
class _Reading:
    """Files on their way; every fault is kept, with the key of its setting."""

    now: datetime
    faults: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def blame(self, key: str, path: str, text: str) -> None:
        self.faults.append((key, f"{path}: {text}"))

    def read(self, key: str, path: str) -> bytes | None:
        try:
            with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
                data = file.read(MAX_FILE + 1)
        except OSError as error:
            self.blame(key, path, f"{error.strerror}, a file that can be read wanted")
            return None
        if len(data) > MAX_FILE:
            self.blame(key, path, f"more than {MAX_FILE} bytes")
            return None
        return data

    def certificates(self, key: str, path: str) -> tuple[x509.Certificate, ...]:
        data = self.read(key, path)
        if data is None:
            return ()
        try:
            return tuple(x509.load_pem_x509_certificates(data))
        except DAMAGED:
            self.blame(key, path, "no certificate, or a damaged one; PEM wanted")
        return ()

    def own(self, files: CertificateFiles, path: str) -> tuple[tuple[x509.Certificate, ...], str]:
        """The chain that we show, and the serial in it if we are a device."""
        chain = self.certificates("certificate", path)
        serial = ""
        if chain:
            leaf = chain[0]
            try:
                if files.side is not TlsSide.GUEST:
                    _check_purpose(leaf, files.side)
                serial = _NAMED[files.side](leaf)
            except CertificateRefused as error:
                self.blame("certificate", path, str(error))
            self.check_time("certificate", path, leaf, files.side)
        return chain, serial

    def check_time(self, key: str, path: str, certificate: x509.Certificate, side: TlsSide) -> None:
        """Expired is a fault of a server, and none of a device, which has a way back to a good one.

        "Not yet" is none: a device without a battery wakes in 1970 (N15).
        """
        until = certificate.not_valid_after_utc
        if until < self.now and side is TlsSide.DEVICE:
            self.warnings.append(f"{path}: certificate expired on {day(until)}: {_clock(self.now)}")
        elif until < self.now:
            self.blame(key, path, f"certificate expired on {day(until)}")
        elif until < self.now + SOON and until - certificate.not_valid_before_utc > 3 * SOON:
            self.warnings.append(f"{path}: certificate expires on {day(until)}")
        elif certificate.not_valid_before_utc > self.now:
            since = day(certificate.not_valid_before_utc)
            self.warnings.append(f"{path}: certificate is not valid before {since}: {_clock(self.now)}")

    def private_key(self, path: str, chain: tuple[x509.Certificate, ...]) -> Any:
        if fault := private_file_fault(path):
            self.blame("certificate_key", path, fault)
            return None
        try:
            key = serialization.load_pem_private_key(self.read("certificate_key", path) or b"", None)
        except TypeError:
            self.blame("certificate_key", path, "a passphrase protects it, and nobody is there to be asked")
            return None
        except (ValueError, UnsupportedAlgorithm):
            self.blame("certificate_key", path, "no private key, or a damaged one; PEM wanted")
            return None
        if chain and not _is_key_of(key, chain[0]):
            self.blame("certificate_key", path, "it is not the key of the certificate")
        return key

    def authorities(self, path: str, side: TlsSide) -> tuple[x509.Certificate, ...]:
        found = self.certificates("authority", path)
        valid = [each for each in found if each.not_valid_after_utc >= self.now]
        if found and not valid:
            last = day(max(each.not_valid_after_utc for each in found))
            text = f"certificate of the authority expired on {last}"
            if side is TlsSide.DEVICE:
                self.warnings.append(f"{path}: {text}: {_clock(self.now)}")
            else:
                self.blame("authority", path, text)
        return found

    def crls(
        self, path: str, authorities: tuple[x509.Certificate, ...]
    ) -> tuple[x509.CertificateRevocationList, ...]:
        pieces = (self.read("crl", path) or b"").split(REVOCATION_MARK)[1:]
        try:
            found = tuple(x509.load_pem_x509_crl(REVOCATION_MARK + piece) for piece in pieces)
        except DAMAGED:
            found = ()
        if not found:
            self.blame("crl", path, "no list of revoked certificates, or a damaged one; PEM wanted")
        for crl in found:
            until = crl.next_update_utc
            if until is not None and until < self.now:
                self.blame("crl", path, f"its next update was due on {day(until)}, a current list wanted")
            if authorities and not any(_signed(crl, authority) for authority in authorities):
                self.blame("crl", path, "signed by none of the authorities")
        return found


def _public(key: Any) -> bytes:
    encoding, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return bytes(key.public_bytes(encoding, form))


def _is_key_of(key: Any, certificate: x509.Certificate) -> bool:
    try:
        return _public(key.public_key()) == _public(certificate.public_key())
    except DAMAGED:
        return False


def _signed(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    try:
        key: Any = authority.public_key()
        return crl.issuer == authority.subject and crl.is_signature_valid(key)
    except (TypeError, *DAMAGED):
        return False


def _clock(now: datetime) -> str:
    return f"is the clock of this machine right? It says {day(now)}"


def read_credentials(files: CertificateFiles, now: datetime | None = None) -> Credentials:
    """Read and judge what we show and what we trust. ``now`` is the wall clock; None: this machine's.

    Raises:
        FaultyFiles: with every fault of every file.
    """
    reading = _Reading(now or datetime.now(UTC))
    chain: tuple[x509.Certificate, ...] = ()
    serial, key = "", None
    if files.certificate is not None:
        chain, serial = reading.own(files, files.certificate)
    if files.key is not None:
        key = reading.private_key(files.key, chain)
    authorities = reading.authorities(files.authority, files.side) if files.authority is not None else ()
    crls = reading.crls(files.crl, authorities) if files.crl is not None else ()
    if reading.faults:
        raise FaultyFiles(reading.faults)
    return Credentials(chain, key, authorities, crls, serial, tuple(reading.warnings))
