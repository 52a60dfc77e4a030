"""Where a client came from: both ends, in one spelling, and the payload of ORIGIN."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.origin import Origin, decode_origin, encode_origin, origin_of

V4 = Origin("192.0.2.1", 56324, "198.51.100.9", 443)
V6 = Origin("2001:db8::1", 56324, "2001:db8::9", 443)
# by hand, from the table at the head of the module
GOLDEN = [
    (V4, "04 c0000201 dc04 c6336409 01bb"),
    (V6, "06 20010db8000000000000000000000001 dc04 20010db8000000000000000000000009 01bb"),
]
PORT = st.integers(0, 65535)
ORIGINS = st.one_of(
    st.builds(origin_of, st.ip_addresses(v=4).map(str), PORT, st.ip_addresses(v=4).map(str), PORT),
    st.builds(origin_of, st.ip_addresses(v=6).map(str), PORT, st.ip_addresses(v=6).map(str), PORT),
)


@pytest.mark.parametrize(("origin", "wire"), GOLDEN)
def test_golden_payloads(origin: Origin, wire: str) -> None:
    """Family, client, server, each address with its port, big endian."""
    assert encode_origin(origin) == bytes.fromhex(wire)
    assert decode_origin(bytes.fromhex(wire)) == origin


@pytest.mark.parametrize(
    ("client", "server", "origin"),
    [
        ("192.0.2.1", "198.51.100.9", V4),
        ("::ffff:192.0.2.1", "::ffff:198.51.100.9", V4),
        ("2001:DB8:0::1", "2001:db8::9", V6),
        ("fe80::1%eth0", "fe80::2", Origin("fe80::1", 56324, "fe80::2", 443)),
        ("192.0.2.1", "2001:db8::9", None),
        ("/run/x.sock", "", None),
        ("localhost", "127.0.0.1", None),
    ],
)
def test_two_addresses_make_an_origin(client: str, server: str, origin: Origin | None) -> None:
    """Mapped IPv4 is IPv4, a zone is dropped; what is no pair of addresses of one family is not known."""
    assert origin_of(client, 56324, server, 443) == origin


def test_the_client_as_logs_write_it() -> None:
    """IPv6 goes into brackets."""
    assert (V4.peer, V6.peer) == ("192.0.2.1:56324", "[2001:db8::1]:56324")
    assert (V4.family, V6.family) == (4, 6)


@pytest.mark.parametrize(
    "payload", ["", "00", "01", "0000", "04", "04" + "00" * 11, "04" + "00" * 13, "06" + "00" * 12]
)
def test_other_payloads_are_refused(payload: str) -> None:
    """A family that does not exist and any other size than the family's are the server's fault."""
    with pytest.raises(RemoteError, match="ORIGIN"):
        decode_origin(bytes.fromhex(payload))


@given(ORIGINS)
def test_payloads_round_trip(origin: Origin) -> None:
    """Any origin survives the wire."""
    assert decode_origin(encode_origin(origin)) == origin


@given(st.binary(max_size=60))
def test_f24_random_payloads_raise_nothing_but_remote_error(payload: bytes) -> None:
    """A payload is read, or refused with a text that is safe to log."""
    try:
        decode_origin(payload)
    except RemoteError as error:
        assert str(error).isprintable()
