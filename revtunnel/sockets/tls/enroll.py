"""The payloads of ENROLL and CERTIFICATE, and what a device is called in a certificate.

===========  ===========================================================================================
frame        payload
===========  ===========================================================================================
ENROLL       u8 version 1; u8 size of the secret, 16 or 0 (renewal); secret; request, PKCS #10 in DER
CERTIFICATE  u8 version 1; u16 size, certificate of the device; u16 size, that of the authority; DER
===========  ===========================================================================================

Rule of this file: sizes only. Nothing here looks into the DER.

Source: ours; docs/link-protocol.rst "Enrolment". The name: faults.md "Device identity".
"""

from struct import Struct

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.ground.serials import parse_serial

__all__ = [
    "DEVICE_URI",
    "MAX_CERTIFICATE",
    "MAX_ENROLL",
    "SECRET_SIZE",
    "decode_certificate",
    "decode_enroll",
    "device_of",
    "device_uri",
    "encode_certificate",
    "encode_enroll",
]

VERSION = 1
SECRET_SIZE = 16  # bytes
MAX_ENROLL = 4096  # bytes of payload
MAX_CERTIFICATE = 8192  # bytes of payload
DEVICE_URI = "urn:revtunnel:device:"

_U16 = Struct("!H")


def device_uri(serial: str) -> str:
    """What stands in subjectAltName of the certificate of ``serial``."""
    return DEVICE_URI + parse_serial(serial)


def device_of(uri: str) -> str | None:
    """The serial that a URI names, byte for byte; None: it names no device.

    Raises:
        RemoteError: it is one of ours, and what it names is no serial.
    """
    return parse_serial(uri[len(DEVICE_URI) :]) if uri.startswith(DEVICE_URI) else None


def encode_enroll(secret: bytes, request: bytes) -> bytes:
    """ENROLL's payload; an empty ``secret`` asks for a renewal.

    Raises:
        LocalError: the secret has another size, or the request is too long.
    """
    payload = bytes((VERSION, len(secret))) + secret + request
    if len(secret) not in (0, SECRET_SIZE) or len(payload) > MAX_ENROLL or not request:
        raise LocalError(f"ENROLL with a secret of {len(secret)} and a request of {len(request)} bytes")
    return payload


def decode_enroll(payload: bytes) -> tuple[bytes, bytes]:
    """Secret, empty for a renewal, and request.

    Raises:
        RemoteError: another version, another size of secret, or no request. The secret is not repeated.
    """
    if len(payload) < 2 or payload[0] != VERSION:
        raise RemoteError(f"ENROLL of {len(payload)} bytes, version {VERSION} wanted")
    begin = 2 + payload[1]
    if payload[1] not in (0, SECRET_SIZE) or len(payload) <= begin:
        raise RemoteError(f"ENROLL of {len(payload)} bytes with a secret of {payload[1]}")
    return payload[2:begin], payload[begin:]


def encode_certificate(certificate: bytes, authority: bytes) -> bytes:
    """CERTIFICATE's payload.

    Raises:
        LocalError: the two are too long, or one is empty.
    """
    parts = (certificate, authority)
    if not all(parts) or sum(map(len, parts)) > MAX_CERTIFICATE - 5:
        raise LocalError(f"CERTIFICATE of {len(certificate)} and {len(authority)} bytes")
    return bytes((VERSION,)) + b"".join(_U16.pack(len(part)) + part for part in parts)


def decode_certificate(payload: bytes) -> tuple[bytes, bytes]:
    """The device's certificate and the authority's.

    Raises:
        RemoteError: another version, or sizes that do not fill the payload exactly.
    """
    if not payload or payload[0] != VERSION:
        raise RemoteError(f"CERTIFICATE of {len(payload)} bytes, version {VERSION} wanted")
    parts: list[bytes] = []
    at = 1
    while at < len(payload) and len(parts) < 2:
        end = at + 2 + (_U16.unpack_from(payload, at)[0] if at + 2 <= len(payload) else len(payload))
        parts.append(payload[at + 2 : end])
        at = end
    if at != len(payload) or len(parts) != 2 or not all(parts):
        raise RemoteError(f"CERTIFICATE of {len(payload)} bytes does not hold two certificates")
    return parts[0], parts[1]
