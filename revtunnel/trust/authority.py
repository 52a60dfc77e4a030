"""A small certificate authority: its own certificate, certificates for servers and for devices.

Rule of this file: values in, values out; no file, no clock, no certificate without a subjectAltName. Servers
get serverAuth and devices clientAuth, never both, so that no device can play the server. Of a request only
the public key is taken over.

Keys that we make are EC P-256. Certificates begin ``SLACK`` before now, for machines whose clock is behind,
and none outlives the authority.

Source: twisted.md 0.1 and 8; faults.md "Device identity", "TLS"; docs/link-protocol.rst "Enrolment".
"""

import hashlib
import ipaddress
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from revtunnel.ground.errors import RemoteError
from revtunnel.sockets.tls.certificates import DAMAGED
from revtunnel.sockets.tls.enroll import device_of, device_uri

__all__ = [
    "Authority",
    "CertificateRequest",
    "Unfit",
    "fingerprint_of",
    "issue_device",
    "issue_server",
    "key_mark",
    "key_pem",
    "load_authority",
    "load_certificate",
    "load_key",
    "make_authority",
    "make_request",
    "new_key",
    "pem",
    "pin_of",
    "read_names",
    "read_request",
]

AUTHORITY_URI = "urn:revtunnel:authority"
SLACK = timedelta(minutes=5)
RSA_BITS = 2048, 4096
MOST_NAMES = 32  # of one server
CURVES = ec.SECP256R1, ec.SECP384R1

_LABEL = "(?!-)[a-z0-9_-]{1,63}(?<!-)"
_DNS = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*", re.ASCII)


class Unfit(Exception):
    """What was given cannot be used; the text says why, for whoever gave it."""


@dataclass(frozen=True, slots=True)
class Authority:
    """The certificate that everybody trusts, and its key."""

    certificate: x509.Certificate
    key: Any

    @property
    def pin(self) -> bytes:
        """What tokens carry to say whom to trust."""
        return pin_of(self.certificate)


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """What is taken from a request: a public key whose owner signed it, and the device that it names."""

    public_key: Any
    serial: str | None  # None: it names none


# ---- the authority


def make_authority(name: str, days: int, now: datetime) -> Authority:
    """A new authority; ``name`` is for people, 1 to 64 characters."""
    key = new_key()
    subject = _subject(name)
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    builder = (
        _builder(subject, subject, key.public_key(), now, now + timedelta(days=days))
        .add_extension(constraints, critical=True)
        .add_extension(_usage(signs_others=True), critical=True)
        # a name that nobody dials; it is there because nothing here is issued without one
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(AUTHORITY_URI)]), False)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def load_authority(certificate: bytes, key: bytes) -> Authority:
    """An authority from the PEM of both files.

    Raises:
        Unfit: one of them is damaged, it may not sign, or they do not belong together.
    """
    found = load_certificate(certificate)
    loaded = load_key(key)
    if _spki(loaded.public_key()) != _spki(found.public_key()):
        raise Unfit("the key is not that of the certificate")
    try:
        constraints = found.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, *DAMAGED):
        constraints = None
    if constraints is None or not constraints.ca:
        raise Unfit("the certificate is not that of an authority")
    return Authority(found, loaded)


def pin_of(certificate: x509.Certificate) -> bytes:
    """SHA-256 of its SubjectPublicKeyInfo."""
    return hashlib.sha256(_spki(certificate.public_key())).digest()


def key_mark(key: Any) -> str:
    """SHA-256 of a public key, 64 hexadecimal digits."""
    return hashlib.sha256(_spki(key)).hexdigest()


def fingerprint_of(certificate: x509.Certificate) -> str:
    """SHA-256 of the whole certificate, 64 hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


# ---- certificates


def read_names(words: list[str]) -> tuple[str | ipaddress.IPv4Address | ipaddress.IPv6Address, ...]:
    """The names of a server as it is dialled: host names in lower case, or IP addresses.

    Raises:
        Unfit: one is neither, one is a wildcard, there is none or there are too many.
    """
    found: dict[Any, None] = {}
    for word in words:
        try:
            found[ipaddress.ip_address(word.strip("[]"))] = None
            continue
        except ValueError:
            name = word.lower().removesuffix(".")
        if not _DNS.fullmatch(name) or name.rpartition(".")[2].isdigit():
            raise Unfit(f"{word[:80]!a}: a host name or an IP address wanted, as agents dial it")
        found[name] = None
    if not 1 <= len(found) <= MOST_NAMES:
        raise Unfit(f"{len(found)} names, 1 to {MOST_NAMES} wanted")
    return tuple(found)


def issue_server(
    authority: Authority, words: list[str], public_key: Any, days: int, now: datetime
) -> x509.Certificate:
    """A certificate for a server that is dialled by any of these names.

    Raises:
        Unfit: a name is none.
    """
    names = read_names(words)
    entries = [x509.DNSName(name) if isinstance(name, str) else x509.IPAddress(name) for name in names]
    return _issue(authority, str(names[0]), entries, ExtendedKeyUsageOID.SERVER_AUTH, public_key, days, now)


def issue_device(
    authority: Authority, serial: str, public_key: Any, days: int, now: datetime
) -> x509.Certificate:
    """A certificate for the device ``serial``."""
    entries = [x509.UniformResourceIdentifier(device_uri(serial))]
    return _issue(authority, serial, entries, ExtendedKeyUsageOID.CLIENT_AUTH, public_key, days, now)


def _issue(
    authority: Authority,
    name: str,
    names: list[Any],
    use: x509.ObjectIdentifier,
    public_key: Any,
    days: int,
    now: datetime,
) -> x509.Certificate:
    until = min(now + timedelta(days=days), authority.certificate.not_valid_after_utc)
    if until <= now:
        raise Unfit("the certificate of the authority has expired")
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _builder(_subject(name), authority.certificate.subject, public_key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_others=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(signer, critical=False)
    )
    return builder.sign(authority.key, _digest(authority.key))


def _builder(
    subject: x509.Name, issuer: x509.Name, public_key: Any, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder(issuer, subject, public_key, x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _usage(signs_others: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_others,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_others,
        crl_sign=signs_others,
        encipher_only=False,
        decipher_only=False,
    )


def _digest(key: Any) -> Any:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


# ---- requests


def make_request(serial: str, key: Any) -> bytes:
    """A request for a certificate of ``serial``, PKCS #10 in DER."""
    name = x509.UniformResourceIdentifier(device_uri(serial))
    builder = x509.CertificateSigningRequestBuilder(_subject(serial))
    signed = builder.add_extension(x509.SubjectAlternativeName([name]), critical=False).sign(
        key, _digest(key)
    )
    return signed.public_bytes(Encoding.DER)


def read_request(data: bytes) -> CertificateRequest:
    """Read a request in DER or PEM.

    Raises:
        Unfit: it is damaged, its key is weak or of another kind, its signature is wrong, or it names several
            devices. The text is fit for a log line.
    """
    try:
        found = (x509.load_pem_x509_csr if b"-----BEGIN" in data else x509.load_der_x509_csr)(data)
        key: Any = found.public_key()
    except DAMAGED:
        raise Unfit("no certificate request (PKCS #10), or a damaged one") from None
    _check_key(key)  # before it is used: what is too large takes long
    try:
        signed = found.is_signature_valid
    except (ValueError, InvalidSignature, UnsupportedAlgorithm):
        signed = False
    if not signed:
        raise Unfit("the request is not signed with its key")
    return CertificateRequest(key, _device(found))


def _check_key(key: Any) -> None:
    if isinstance(key, rsa.RSAPublicKey):
        if not RSA_BITS[0] <= key.key_size <= RSA_BITS[1]:
            raise Unfit(f"an RSA key of {key.key_size} bits, {RSA_BITS[0]} to {RSA_BITS[1]} wanted")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, CURVES):
            raise Unfit(f"a key on the curve {key.curve.name}, P-256 or P-384 wanted")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise Unfit("a key of another kind than EC, Ed25519 or RSA")


def _device(request: x509.CertificateSigningRequest) -> str | None:
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        found = {serial for serial in map(device_of, uris) if serial is not None}
    except x509.ExtensionNotFound:
        return None
    except (RemoteError, *DAMAGED):
        raise Unfit("the names in the request are damaged") from None
    if len(found) > 1:
        raise Unfit("the request names several devices")
    return found.pop() if found else None


# ---- keys and PEM


def new_key() -> ec.EllipticCurvePrivateKey:
    """A private key on P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def load_key(data: bytes) -> Any:
    """A private key of PEM.

    Raises:
        Unfit: there is none, or it has a passphrase.
    """
    try:
        return load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Unfit("no private key without a passphrase, in PEM") from None


def key_pem(key: Any) -> bytes:
    """A private key in PEM, without a passphrase: the mode of its file protects it."""
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def pem(*certificates: x509.Certificate) -> bytes:
    """Certificates in PEM, one behind the other."""
    return b"".join(each.public_bytes(Encoding.PEM) for each in certificates)


def load_certificate(data: bytes) -> x509.Certificate:
    """One certificate, the first of a PEM file, or DER; its key can be used.

    Raises:
        Unfit: there is none.
    """
    read = x509.load_pem_x509_certificate if b"-----BEGIN" in data else x509.load_der_x509_certificate
    try:
        found = read(data)
        found.public_key()
    except DAMAGED:
        raise Unfit("no certificate, or a damaged one") from None
    return found


def _spki(key: Any) -> bytes:
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
