"""Payloads of enrolment: golden bytes, every cut, random bytes, names of devices."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.sockets.tls.enroll import (
    MAX_CERTIFICATE,
    MAX_ENROLL,
    SECRET_SIZE,
    decode_certificate,
    decode_enroll,
    device_of,
    device_uri,
    encode_certificate,
    encode_enroll,
)

SECRET = bytes(range(16))
# by hand, from the tables of docs/link-protocol.rst
ENROLL = bytes.fromhex("01 10 000102030405060708090a0b0c0d0e0f 3003020100")
RENEWAL = bytes.fromhex("01 00 3003020100")
CERTIFICATE = bytes.fromhex("01 0003 300100 0004 30020500")


def test_golden() -> None:
    """Both frames, and ENROLL of a renewal, byte for byte and back."""
    request = bytes.fromhex("3003020100")
    assert encode_enroll(SECRET, request) == ENROLL
    assert decode_enroll(ENROLL) == (SECRET, request)
    assert encode_enroll(b"", request) == RENEWAL
    assert decode_enroll(RENEWAL) == (b"", request)
    pair = bytes.fromhex("300100"), bytes.fromhex("30020500")
    assert encode_certificate(*pair) == CERTIFICATE
    assert decode_certificate(CERTIFICATE) == pair


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x01",
        b"\x01\x00",
        b"\x02\x000",
        b"\x01\x010x",
        b"\x01\x0f" + bytes(16),
        b"\x01\xff" + bytes(300),
    ],
)
def test_bad_enroll(payload: bytes) -> None:
    """Another version, another size of secret, no request: refused, and the text holds none of it."""
    with pytest.raises(RemoteError, match="ENROLL of") as caught:
        decode_enroll(payload)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("size", range(len(CERTIFICATE)))
def test_every_cut_of_a_certificate_frame_is_refused(size: int) -> None:
    """No prefix of a good one is one, and neither is anything behind it."""
    with pytest.raises(RemoteError, match="CERTIFICATE of"):
        decode_certificate(CERTIFICATE[:size])


@pytest.mark.parametrize(
    "payload",
    [
        CERTIFICATE + b"\0",
        b"\x02" + CERTIFICATE[1:],
        b"\x01\0\0\0\x010",
        b"\x01\0\x010\0\0",
        CERTIFICATE + CERTIFICATE[1:6],
    ],
)
def test_bad_certificate(payload: bytes) -> None:
    """Bytes behind the second one, a third one, an empty one, another version."""
    with pytest.raises(RemoteError, match="CERTIFICATE of"):
        decode_certificate(payload)


def test_our_own_limits() -> None:
    """What we would not take we do not make."""
    assert len(encode_enroll(SECRET, bytes(MAX_ENROLL - 18))) == MAX_ENROLL
    for secret, request in ((SECRET, bytes(MAX_ENROLL - 17)), (b"x", b"y"), (SECRET, b"")):
        with pytest.raises(LocalError):
            encode_enroll(secret, request)
    assert len(encode_certificate(b"x", bytes(MAX_CERTIFICATE - 6))) == MAX_CERTIFICATE
    for pair in ((b"x", bytes(MAX_CERTIFICATE - 5)), (b"", b"x"), (b"x", b"")):
        with pytest.raises(LocalError):
            encode_certificate(*pair)


@given(
    st.sampled_from([b"", SECRET]), st.binary(min_size=1, max_size=200), st.binary(min_size=1, max_size=200)
)
def test_round_trip(secret: bytes, one: bytes, other: bytes) -> None:
    """Whatever the DER is, it comes back whole."""
    assert decode_enroll(encode_enroll(secret, one)) == (secret, one)
    assert decode_certificate(encode_certificate(one, other)) == (one, other)


@given(st.binary(max_size=64), st.sampled_from([decode_enroll, decode_certificate]))
def test_random_bytes(payload: bytes, decode: Callable[[bytes], tuple[bytes, bytes]]) -> None:
    """A value or a RemoteError, nothing else."""
    try:
        first, second = decode(payload)
    except RemoteError:
        return
    assert second
    assert decode is decode_certificate or len(first) in (0, SECRET_SIZE)


def test_names_of_devices() -> None:
    """Exact bytes: no other case, no white space, no escapes."""
    assert device_uri("plc-7") == "urn:revtunnel:device:plc-7"
    assert device_of("urn:revtunnel:device:plc-7") == "plc-7"
    for stranger in ("URN:revtunnel:device:plc-7", "urn:revtunnel:server:x", "https://example", ""):
        assert device_of(stranger) is None
    for bad in ("", "a b", "plc-7%20", "caf\xe9", "x" * 65):
        with pytest.raises(RemoteError):
            device_of(f"urn:revtunnel:device:{bad}")
        with pytest.raises(RemoteError):
            device_uri(bad)
