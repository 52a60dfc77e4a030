"""Files and what people write: settings, audit lines, PEM and DER, requests for certificates, places."""

import hashlib
import os
import zlib
from collections.abc import Callable, Hashable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.hashes import SHA256

from revtunnel.daemons.agent_reading import load_agent
from revtunnel.daemons.server_reading import load_server
from revtunnel.ground.errors import RemoteError, SettingsError
from revtunnel.ground.networks import network_of
from revtunnel.ground.server_places import parse_server_place
from revtunnel.ground.targets import parse_offer, parse_target
from revtunnel.link.keys import new_key, parse_key
from revtunnel.settings.inifile import Surroundings
from revtunnel.sockets.tls.certificates import (
    CertificateFiles,
    CertificateRefused,
    FaultyFiles,
    TlsSide,
    judge_device,
    read_credentials,
)
from revtunnel.sockets.tls.enroll import (
    decode_certificate,
    decode_enroll,
    encode_certificate,
    encode_enroll,
)
from revtunnel.state.audit_chain import MAX_LINE, NOTHING, NotALine, parse_line, write_line
from revtunnel.state.audit_records import AuditGap, AuditOpened
from revtunnel.state.change_journal import _read_line
from revtunnel.trust.authority import (
    Unfit,
    issue_device,
    key_pem,
    load_authority,
    load_certificate,
    load_key,
    make_authority,
    make_request,
    pem,
    read_request,
)
from revtunnel.trust.authority import new_key as new_private_key
from revtunnel.trust.enrolment import EnrolmentToken, parse_token, write_token
from tests.fuzz.harness import target

ETC = Path(__file__).parents[2] / "etc"


# -- settings

_HERE = Surroundings({}, root=True, home="/nowhere", host_name="gate", default_path="/nowhere/revtunnel.ini")


@cache
def _file() -> int:
    return os.memfd_create("settings")


def _written(data: bytes) -> int:
    os.ftruncate(_file(), 0)
    os.pwrite(_file(), data, 0)
    return _file()


def _loaded(load: Callable[..., Any], data: bytes) -> Hashable:
    _written(data)
    try:
        with mock.patch.dict(
            os.environ, SSL_CERT_FILE="/dev/null", SSL_CERT_DIR="/"
        ):  # the machine's take 7 ms
            load(f"/proc/self/fd/{_file()}", None, _HERE)
    except SettingsError as error:
        assert error.errors and all("\n" not in each for each in error.errors), error.errors
        return min(len(error.errors), 6)
    return None


_SERVER = (
    b"[server]\nlog_level = debug\n[listener main]\naddress = 127.0.0.1:2065, [::1]:2065\n  10.0.0.1:1\n"
    b"keys = enrolled\n[pool default]\nranges = 5000-5010\n[device plc-7]\nports = http=5001\n"
    b"[reservations]\nplc-7 = 5002\n[link]\nanswer = 20 s\n"
)
_AGENT = b"[agent]\nservers = wss://gate/x, gate:2065\nserial = plc-7\nlocal = 10.41.51.152:23, web=h:80\n"
_WORDS = [
    *(
        b"\n",
        b"=",
        b"[",
        b"]",
        b"#",
        b";",
        b"\r\n",
        b"\t",
        b"\n  ",
        b"\xef\xbb\xbf",
        b"yes",
        b"none",
        b"auto",
    ),
    *(
        b"1e9",
        b"99999999999999999999",
        b"-1",
        b"0",
        b"1 MiB",
        b"10 s",
        b"::",
        b"\xc2\xb2",
        b"\xd9\xa3",
        b", ",
    ),
    *(
        b"[listener x]\n",
        b"[pool x]\n",
        b"[device x]\n",
        b"[limits]\n",
        b"[link]\n",
        b"[emo]\n",
        b"tls = yes\n",
    ),
]


@target("settings-server", [_SERVER, b"[server]\nname = x\n", b"[listener a]\nkind = emo\n"], words=_WORDS)
def settings_server(data: bytes) -> Hashable:
    """A server's file: used, or refused in lines."""
    return _loaded(load_server, data)


@target("settings-agent", [_AGENT, b"[agent]\nserial = x\n"], words=_WORDS)
def settings_agent(data: bytes) -> Hashable:
    """An agent's."""
    return _loaded(load_agent, data)


# -- lines

_LINES = [
    write_line(record, NOTHING, 1.8e9)[0]
    for record in (AuditOpened("start", "demo"), AuditGap(3, "then", "full"))
]
_JSON = [
    b"{",
    b"[",
    b'"',
    b":",
    b",",
    b"null",
    b"1e999",
    b"NaN",
    b"-1",
    b"\\ud800",
    b'"seq":1',
    b'"prev":"',
    b"[" * 999,
]


def _hashed(body: bytes) -> bytes:
    return b'%b,"hash":"%b"}\n' % (body, hashlib.sha256(body + b"}").hexdigest().encode())


@target("audit-line", [*_LINES, *(line[:-77] for line in _LINES)], (NotALine,), _JSON)
def audit_line(data: bytes) -> Hashable:
    """A line as it is, and with the hash that it should have."""
    line = data if data.endswith(b"\n") else _hashed(data)
    found = parse_line(line[:MAX_LINE])
    return found.event[:20], bool(found.cause)


@target(
    "journal-line", [b'{"number":7,"changes":[["t",{"hex":"00"},[1,"x",null]]],"base":true}'], words=_JSON
)
def journal_line(data: bytes) -> Hashable:
    """A line of the journal of changes with the sum that it should have."""

    found = _read_line(b"%08x %b\n" % (zlib.crc32(data), data))
    return None if found is None else (len(found.changes), found.base)


# -- what people write

_READERS: list[tuple[Callable[[str], Any], Callable[[Any], str] | None]] = [
    (parse_target, str),
    (parse_offer, lambda offer: f"{offer.name}={offer.target}"),
    (parse_server_place, str),
    (network_of, str),
    (parse_token, write_token),
    (parse_key, None),
]
_PLACES = [
    *("10.41.51.152:23", "http=[fe80::1%eth0]:80", "x=unix:/run/x.sock", "wss://gate:443/link", "10.0.0.0/8"),
    *(write_token(EnrolmentToken(bytes(32), bytes(16), "plc-7")), new_key(lambda size: bytes(size))),
]


@target(
    "places",
    [bytes((kind,)) + each.encode() for kind in range(len(_READERS)) for each in _PLACES],
    (ValueError,),
    [
        b":",
        b"[",
        b"]",
        b"%",
        b"/",
        b"=",
        b"unix:",
        b"::ffff:",
        b"0",
        b"65536",
        b"\xd9\xa3",
        b"\0",
        b" ",
        b".",
    ],
)
def places(data: bytes) -> Hashable:
    """Targets, offers, servers, networks, tokens, keys: as written again they are the same."""
    read, write = _READERS[data[0] % len(_READERS) if data else 0]
    said = read(data[1:].decode("utf-8", "surrogateescape"))
    assert write is None or read(write(said)) == said
    return data[:1]


# -- certificates


@cache
def _authority() -> Any:
    return make_authority("test", 100, datetime.now(UTC))


@cache
def _key() -> Any:
    return new_private_key()


def _documents() -> list[bytes]:
    authority, key = _authority(), _key()
    request = make_request("plc-7", key)
    device = issue_device(authority, "plc-7", key.public_key(), 100, datetime.now(UTC))
    der = device.public_bytes(serialization.Encoding.DER)
    root = authority.certificate.public_bytes(serialization.Encoding.DER)
    written = x509.load_der_x509_csr(request).public_bytes(serialization.Encoding.PEM)
    return [request, written, der, root, pem(device), pem(authority.certificate), key_pem(key)]


def _crl() -> bytes:
    authority, now = _authority(), datetime.now(UTC)
    builder = x509.CertificateRevocationListBuilder(authority.certificate.subject, now, now + timedelta(9))
    return builder.sign(authority.key, SHA256()).public_bytes(serialization.Encoding.PEM)


_DOCUMENTS = _documents()
_DER = [b"\x30\x80", b"\x02\x01", b"\x06\x03\x55\x1d\x11", b"\x86", b"\x04", b"\xa3", b"\x05\0", b"\xff" * 5]


@target("certificates", _DOCUMENTS, (Unfit, CertificateRefused), [*_DER, b"-----BEGIN ", b"-----", b"\n"])
def certificates(data: bytes) -> Hashable:
    """Requests, certificates and keys in DER and PEM, from strangers and from files."""
    done: list[str] = []
    for read in (read_request, load_key, lambda said: load_authority(said, _DOCUMENTS[-1])):
        try:
            read(data)
            done.append("read")
        except Unfit as error:
            done.append(str(error)[:30])
    certificate = load_certificate(data)
    peer = judge_device(certificate, lambda serial, mark: False)
    return tuple(done), peer.serial == "plc-7"


@target(
    "credentials",
    [
        b"".join(_DOCUMENTS[-3:]),
        b"".join((_DOCUMENTS[-2], _DOCUMENTS[-1], _crl())),
        b"".join(_DOCUMENTS[-2:]),
    ],
    (FaultyFiles,),
    [b"-----BEGIN CERTIFICATE-----\n", b"-----BEGIN X509 CRL-----\n", b"-----END ", b"-----", b"MII", b"\n"],
)
def credentials(data: bytes) -> Hashable:
    """One file as certificate, key, authority and revocation list, for either side."""
    os.fchmod(_written(data), 0o600)
    side = TlsSide.DEVICE if len(data) % 2 else TlsSide.SERVER
    found = read_credentials(CertificateFiles(side, *[f"/proc/self/fd/{_file()}"] * 4))
    return len(found.chain), len(found.crls), found.serial[:3]


@target(
    "names", [b"\x30\x18\x86\x16urn:revtunnel:device:x", b"\x30\x04\x82\x02ab"], (Unfit,), [*_DER, b"urn:"]
)
def names(data: bytes) -> Hashable:
    """A request that is signed as it should be, with anything for its subjectAltName."""
    extension = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, data)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = builder.add_extension(extension, critical=False).sign(_key(), SHA256())
    return read_request(signed.public_bytes(serialization.Encoding.DER)).serial


@target(
    "enrolment",
    [encode_enroll(bytes(16), _DOCUMENTS[0]), encode_enroll(b"", b"x"), encode_certificate(b"abc", b"defg")],
    (RemoteError,),
)
def enrolment(data: bytes) -> Hashable:
    """ENROLL and CERTIFICATE: what is read is written so."""
    if len(data) % 2:
        secret, request = decode_enroll(data)
        assert encode_enroll(secret, request) == data or len(data) > 4096
        return bool(secret)
    parts = decode_certificate(data)
    assert encode_certificate(*parts) == data or len(data) > 8192
    return len(parts[0]) > 3
