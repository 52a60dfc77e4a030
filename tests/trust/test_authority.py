"""The authority: what it issues, to whom, and what it refuses; OpenSSL's own command reads the same."""

import hashlib
import ipaddress
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from revtunnel.sockets.tls.certificates import CertificateRefused, device_serial, judge_device, judge_server
from revtunnel.sockets.tls.enroll import MAX_CERTIFICATE, MAX_ENROLL, encode_certificate, encode_enroll
from revtunnel.trust.authority import (
    Unfit,
    fingerprint_of,
    issue_device,
    issue_server,
    key_pem,
    load_authority,
    load_certificate,
    make_authority,
    make_request,
    new_key,
    pem,
    pin_of,
    read_names,
    read_request,
)

NOW = datetime(2027, 1, 15, 8, tzinfo=UTC)
AUTHORITY = make_authority("gate", 7300, NOW)
KEY = new_key()


def extension(certificate: x509.Certificate, kind: Any) -> Any:
    """The value of an extension that is there."""
    return certificate.extensions.get_extension_for_class(kind)


def device(serial: str = "plc-7", days: int = 90, now: datetime = NOW) -> x509.Certificate:
    return issue_device(AUTHORITY, serial, KEY.public_key(), days, now)


def server(*names: str) -> x509.Certificate:
    return issue_server(AUTHORITY, list(names), KEY.public_key(), 825, NOW)


# ---- what is issued


def test_the_authority_signs_others_and_nothing_below_them() -> None:
    """P-256, pathlen 0, key usage for signing only, twenty years; its pin is that of its public key."""
    made = AUTHORITY.certificate
    assert isinstance(AUTHORITY.key.curve, ec.SECP256R1)
    constraints = extension(made, x509.BasicConstraints)
    assert constraints.critical and (constraints.value.ca, constraints.value.path_length) == (True, 0)
    usage = extension(made, x509.KeyUsage).value
    assert usage.key_cert_sign and usage.crl_sign and not usage.digital_signature
    assert made.not_valid_after_utc == NOW + timedelta(days=7300)
    spki = made.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert AUTHORITY.pin == pin_of(made) == hashlib.sha256(spki).digest()
    made.verify_directly_issued_by(made)


def test_a_devices_certificate() -> None:
    """One URI with the serial, clientAuth and nothing else, the days that were asked for."""
    made = device()
    assert device_serial(made) == "plc-7"
    names = list(extension(made, x509.SubjectAlternativeName).value)
    assert names == [x509.UniformResourceIdentifier("urn:revtunnel:device:plc-7")]
    assert list(extension(made, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not extension(made, x509.BasicConstraints).value.ca
    assert made.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert made.not_valid_after_utc == NOW + timedelta(days=90)
    made.verify_directly_issued_by(AUTHORITY.certificate)
    assert judge_device(made, lambda serial, fingerprint: False).fingerprint == fingerprint_of(made)


def test_a_servers_certificate() -> None:
    """Its names as agents dial them, addresses as addresses, serverAuth and nothing else."""
    made = server("Gate.Example.", "192.0.2.1", "[2001:db8::1]", "gate.example")
    names = extension(made, x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gate.example"]
    assert names.get_values_for_type(x509.IPAddress) == [
        ipaddress.ip_address("192.0.2.1"),
        ipaddress.ip_address("2001:db8::1"),
    ]
    assert list(extension(made, x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    for name in ("gate.example", "192.0.2.1", "2001:db8::1"):
        judge_server(made, name)


def test_neither_can_play_the_other() -> None:
    """A device's certificate is no server's, and the other way round."""
    with pytest.raises(Exception, match="not for servers"):
        judge_server(device(), "plc-7")
    with pytest.raises(Exception, match="not for devices"):
        judge_device(server("gate.example"), lambda serial, fingerprint: False)


def test_numbers_are_random() -> None:
    """Two certificates never share one, and none can be guessed."""
    numbers = {device().serial_number for _ in range(5)}
    assert len(numbers) == 5 and all(number.bit_length() > 100 for number in numbers)


def test_no_certificate_outlives_its_authority() -> None:
    """The last one ends with it, and then there are no more."""
    late = NOW + timedelta(days=7290)
    assert device(now=late).not_valid_after_utc == AUTHORITY.certificate.not_valid_after_utc
    with pytest.raises(Unfit, match="expired"):
        device(now=NOW + timedelta(days=7300))


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "*.example",
        "a b",
        "-x",
        "x-",
        "a..b",
        "10.0.0.256",
        "caf\xe9.example",
        "x" * 64,
        "a/b",
        "..",
        "1.2.3",
    ],
)
def test_what_is_no_name_of_a_server(name: str) -> None:
    """No certificate is made for it, and so none without a name."""
    with pytest.raises(Unfit, match="wanted"):
        server(name)


def test_a_server_has_a_name_and_not_too_many() -> None:
    """Twice the same name is one."""
    assert read_names(["a", "A", "a."]) == ("a",)
    for words in ([], [f"n{number}" for number in range(33)]):
        with pytest.raises(Unfit, match="1 to 32"):
            read_names(words)


# ---- requests


@pytest.mark.parametrize(
    "key",
    [
        new_key(),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-256", "P-384", "Ed25519", "RSA"],
)
def test_requests_that_are_taken(key: Any) -> None:
    """Key and serial come out of DER and PEM, and the certificate is for that key."""
    data = make_request("plc-7", key)
    assert len(encode_enroll(bytes(16), data)) < MAX_ENROLL
    request = read_request(data)
    assert (request.serial, request.public_key) == ("plc-7", key.public_key())
    assert read_request(x509.load_der_x509_csr(data).public_bytes(Encoding.PEM)).serial == "plc-7"
    made = issue_device(AUTHORITY, "plc-7", request.public_key, 90, NOW)
    assert made.public_key() == key.public_key()
    both = made.public_bytes(Encoding.DER), AUTHORITY.certificate.public_bytes(Encoding.DER)
    assert len(encode_certificate(*both)) < MAX_CERTIFICATE


def request(*names: x509.GeneralName, subject: str = "root", key: Any = KEY, extra: Any = None) -> bytes:
    """A request with any names."""
    builder = x509.CertificateSigningRequestBuilder(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if extra is not None:
        builder = builder.add_extension(extra, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_names_of_a_request_are_ignored() -> None:
    """Whatever it calls itself, and whatever it would like to be: only its key goes into the certificate."""
    wish = x509.BasicConstraints(ca=True, path_length=None)
    data = request(x509.DNSName("gate.example"), subject="gate.example", extra=wish)
    taken = read_request(data)
    assert taken.serial is None
    made = issue_device(AUTHORITY, "plc-7", taken.public_key, 90, NOW)
    assert device_serial(made) == "plc-7"
    assert not extension(made, x509.BasicConstraints).value.ca
    assert "gate.example" not in made.public_bytes(Encoding.DER).decode("latin-1")


def uri(serial: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(f"urn:revtunnel:device:{serial}")


BROKEN = bytearray(make_request("plc-7", KEY))
BROKEN[-1] ^= 1
REFUSED = {
    "nothing": (b"", "no certificate request"),
    "noise": (b"\x30\x03\x02\x01\x00", "no certificate request"),
    "a certificate": (AUTHORITY.certificate.public_bytes(Encoding.DER), "no certificate request"),
    "PEM of noise": (b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END", "no certificate request"),
    "not signed with its key": (bytes(BROKEN), "not signed with its key"),
    "cut": (make_request("plc-7", KEY)[:-3], "no certificate request"),
    "another version": (
        make_request("plc-7", KEY).replace(b"\2\1\0", b"\2\1\1", 1),
        "no certificate request",
    ),
    "two devices": (request(uri("a"), uri("b")), "several devices"),
    "no serial": (request(uri("a%20b")), "damaged"),
    "RSA 1024": (request(key=rsa.generate_private_key(65537, 1024)), "1024 bits"),
    "P-521": (request(key=ec.generate_private_key(ec.SECP521R1())), "secp521r1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_requests_that_are_refused(name: str) -> None:
    """With the reason, in one printable line."""
    data, reason = REFUSED[name]
    with pytest.raises(Unfit, match=reason) as caught:
        read_request(data)
    assert str(caught.value).isprintable()


def test_a_key_of_another_kind() -> None:
    """It is not even looked at further."""
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    data = builder.sign(ed448.Ed448PrivateKey.generate(), None).public_bytes(Encoding.DER)
    with pytest.raises(Unfit, match="another kind"):
        read_request(data)


# ---- PEM


def test_an_authority_comes_back_from_its_files() -> None:
    """Both files, and only if they belong together and may sign."""
    written = pem(AUTHORITY.certificate), key_pem(AUTHORITY.key)
    assert load_authority(*written).certificate == AUTHORITY.certificate
    refused = {
        "no certificate": (b"x", written[1]),
        "no private key": (written[0], b"x"),
        "not that of the certificate": (written[0], key_pem(KEY)),
        "not that of an authority": (pem(device()), key_pem(KEY)),
    }
    for reason, pair in refused.items():
        with pytest.raises(Unfit, match=reason):
            load_authority(*pair)


def test_a_certificate_in_either_form() -> None:
    """DER as on the wire, PEM as in files."""
    for encoding in (Encoding.DER, Encoding.PEM):
        assert load_certificate(device().public_bytes(encoding))
    with pytest.raises(Unfit, match="no certificate"):
        load_certificate(b"\x30\x00")


P256 = bytes.fromhex("2a8648ce3d030107")  # the curve, as it stands in a key
DAMAGES = {
    "another version": (b"\xa0\3\2\1\2", b"\xa0\3\2\1\7"),
    "a curve that nobody knows": (P256, P256[:-1] + b"\x7f"),
    "no point of the curve": (P256 + b"\3\x42\0\4", P256 + b"\3\x42\0\5"),
    "an extension twice": (b"\x55\x1d\x0f", b"\x55\x1d\x11"),
    "a name that is no text": (b"urn:revtunnel", b"\xffrn:revtunnel"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_certificate_is_refused_in_words(name: str) -> None:
    """Whoever sent it, and whatever the library says to it."""
    good, bad = DAMAGES[name]
    made = device().public_bytes(Encoding.DER)
    assert good in made
    with pytest.raises((Unfit, CertificateRefused), match="damaged"):
        device_serial(load_certificate(made.replace(good, bad)))
    root = AUTHORITY.certificate.public_bytes(Encoding.DER).replace(good, bad)
    if root != AUTHORITY.certificate.public_bytes(Encoding.DER):
        with pytest.raises(Unfit, match=r"damaged|not that of"):
            load_authority(root, key_pem(AUTHORITY.key))


# ---- OpenSSL


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="the command openssl is wanted")
def test_openssl_reads_the_same(tmp_path: Path) -> None:
    """Its own verification, for each purpose, and what it prints of the extensions."""
    real = datetime.now(UTC)
    authority = make_authority("gate", 10, real)
    made = {
        "device": issue_device(authority, "plc-7", KEY.public_key(), 5, real),
        "server": issue_server(authority, ["gate.example", "192.0.2.1"], KEY.public_key(), 5, real),
        "authority": authority.certificate,
    }
    for name, certificate in made.items():
        (tmp_path / f"{name}.pem").write_bytes(pem(certificate))

    def openssl(*words: str) -> str:
        done = subprocess.run(["openssl", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def verify(name: str, purpose: str, *more: str) -> str:
        words = ("-CAfile", "authority.pem", "-x509_strict", "-purpose", purpose, *more, f"{name}.pem")
        return openssl("verify", *words)

    assert verify("device", "sslclient") == "device.pem: OK\n"
    assert verify("server", "sslserver", "-verify_hostname", "gate.example") == "server.pem: OK\n"
    assert verify("server", "sslserver", "-verify_ip", "192.0.2.1") == "server.pem: OK\n"
    assert "mismatch" in verify("server", "sslserver", "-verify_hostname", "other.example")
    assert "purpose" in verify("device", "sslserver")
    assert "purpose" in verify("server", "sslclient")
    text = openssl("x509", "-noout", "-text", "-in", "device.pem")
    for words in (
        "URI:urn:revtunnel:device:plc-7",
        "TLS Web Client Authentication",
        "CA:FALSE",
        "Digital Signature",
    ):
        assert words in text
    assert "TLS Web Server" not in text
    text = openssl("x509", "-noout", "-text", "-in", "authority.pem")
    for words in ("CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "prime256v1"):
        assert words in text
    (tmp_path / "request.der").write_bytes(make_request("plc-7", KEY))
    text = openssl("req", "-verify", "-noout", "-text", "-inform", "DER", "-in", "request.der")
    assert "URI:urn:revtunnel:device:plc-7" in text and "verify OK" in text
