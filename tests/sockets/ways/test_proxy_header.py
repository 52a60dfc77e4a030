"""The PROXY protocol's headers: golden bytes of both versions, every cut, every limit, garbage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.origin import Origin
from revtunnel.sockets.ways.proxy_header import (
    LONGEST_LINE,
    VERSIONS,
    ProxyHeader,
    decode_header,
    encode_header_v1,
    encode_header_v2,
)
from tests.ground.test_origin import ORIGINS, V4, V6

LIMIT = 4096
ANY = VERSIONS["any"]
SIGNATURE = "0d0a0d0a 000d0a51 5549540a"
# laid out by hand after the tables of the public specification, sections 2.1 and 2.2
LINES = [
    (V4, b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n"),
    (V6, b"PROXY TCP6 2001:db8::1 2001:db8::9 56324 443\r\n"),
    (None, b"PROXY UNKNOWN\r\n"),
]
BLOCKS = [
    (V4, f"{SIGNATURE} 21 11 000c c0000201 c6336409 dc04 01bb"),
    (
        V6,
        f"{SIGNATURE} 21 21 0024 20010db8000000000000000000000001 20010db8000000000000000000000009 dc04 01bb",
    ),
    (None, f"{SIGNATURE} 20 00 0000"),
]
GOLDEN = [*LINES, *((origin, bytes.fromhex(wire)) for origin, wire in BLOCKS)]


def whole(data: bytes, versions: frozenset[int] = ANY, limit: int = LIMIT) -> Origin | None:
    """What a complete header names; behind it stands what belongs to somebody else."""
    header = decode_header(data + b"GET", versions, limit)
    assert header is not None and header.size == len(data)
    return header.origin


@pytest.mark.parametrize(("origin", "wire"), LINES)
def test_golden_lines(origin: Origin | None, wire: bytes) -> None:
    """Version 1, both ways."""
    assert encode_header_v1(origin) == wire
    assert whole(wire) == whole(wire, VERSIONS["v1"]) == origin


@pytest.mark.parametrize(("origin", "wire"), BLOCKS)
def test_golden_blocks(origin: Origin | None, wire: str) -> None:
    """Version 2, both ways."""
    assert encode_header_v2(origin) == bytes.fromhex(wire)
    assert whole(bytes.fromhex(wire)) == whole(bytes.fromhex(wire), VERSIONS["v2"]) == origin


@pytest.mark.parametrize(("origin", "wire"), GOLDEN)
def test_a_header_may_be_cut_anywhere(origin: Origin | None, wire: bytes) -> None:
    """Every beginning of a header wants more; the whole one is complete."""
    for end in range(len(wire)):
        assert decode_header(wire[:end], ANY, LIMIT) is None
    assert decode_header(wire, ANY, LIMIT) == ProxyHeader(origin, len(wire))


@pytest.mark.parametrize(
    "text", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"PROXZ", b"proxy ", b"\x00\x00\x04\x00"]
)
def test_garbage_is_refused_with_its_first_wrong_byte(text: bytes) -> None:
    """Whoever sends no header is not waited for."""
    with pytest.raises(RemoteError, match="no PROXY protocol header"):
        decode_header(text, ANY, LIMIT)
    wrong = next(at for at in range(len(text) + 1) if not b"PROXY ".startswith(text[:at]))
    with pytest.raises(RemoteError):
        decode_header(text[:wrong], VERSIONS["v1"], LIMIT)


def test_only_the_versions_that_are_allowed() -> None:
    """A header of the other version is no header; the words name what was wanted."""
    with pytest.raises(RemoteError, match="header v2"):
        decode_header(LINES[0][1], VERSIONS["v2"], LIMIT)
    with pytest.raises(RemoteError, match=r"header v1$"):
        decode_header(bytes.fromhex(BLOCKS[0][1]), VERSIONS["v1"], LIMIT)


def test_the_longest_line() -> None:
    """107 bytes with the line end are the most; a longer line is refused, and one without an end by then."""
    unknown = b"PROXY UNKNOWN " + b"f" * (LONGEST_LINE - 16) + b"\r\n"
    assert len(unknown) == 107 and whole(unknown) is None
    assert decode_header(unknown[:-1], ANY, LIMIT) is None
    for line in (unknown[:-2] + b"f\r\n", b"PROXY UNKNOWN " + b"f" * 200, b"PROXY " * 30):
        with pytest.raises(RemoteError, match="without its end"):
            decode_header(line, ANY, LIMIT)


@pytest.mark.parametrize(
    "line",
    [
        "PROXY TCP4 192.0.2.1 198.51.100.9 56324 443 ",
        "PROXY TCP4  192.0.2.1 198.51.100.9 56324 443",
        "PROXY TCP4 192.0.2.01 198.51.100.9 56324 443",
        "PROXY TCP4 192.0.2.1 198.51.100.256 56324 443",
        "PROXY TCP4 2001:db8::1 2001:db8::9 56324 443",
        "PROXY TCP6 192.0.2.1 198.51.100.9 56324 443",
        "PROXY TCP6 fe80::1%eth0 2001:db8::9 56324 443",
        "PROXY TCP6 2001:db8:::1 2001:db8::9 56324 443",
        "PROXY TCP4 192.0.2.1 198.51.100.9 56324 65536",
        "PROXY TCP4 192.0.2.1 198.51.100.9 056324 443",
        "PROXY TCP4 192.0.2.1 198.51.100.9 +1 443",
        "PROXY TCP4 192.0.2.1 198.51.100.9 56324",
        "PROXY UDP4 192.0.2.1 198.51.100.9 56324 443",
        "PROXY TCP4 192.0.2.1 198.51.100.9 \xb2 443",
        "PROXY UNKNOWNS",
        "PROXY unknown",
        "PROXY ",
    ],
)
def test_lines_are_read_strictly(line: str) -> None:
    """One space, no leading zeroes, no zone, addresses of the family named; the text is safe to log."""
    with pytest.raises(RemoteError, match="no PROXY line") as refused:
        decode_header(line.encode("latin-1") + b"\r\n", ANY, LIMIT)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "line", [b"PROXY UNKNOWN\n", b"PROXY UNKNOWN\rx", b"PROXY TCP4\n\r\n", b"PROXY a\r b\r\n", b"PROXY a\n b"]
)
def test_a_line_ends_with_both_characters(line: bytes) -> None:
    """A bare line feed or return character is no end and may not stand in a line."""
    with pytest.raises(RemoteError, match="bare"):
        decode_header(line, ANY, LIMIT)


def test_mapped_ipv4_in_a_line() -> None:
    """haproxy names an IPv4 client of its IPv6 socket so; it is the IPv4 client."""
    line = b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.9 56324 443\r\n"
    assert whole(line) == V4


def test_a_line_names_two_ends_of_one_kind_or_none() -> None:
    """An IPv6 pair of which one is mapped stays IPv6."""
    line = b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::9 1 2\r\n"
    origin = whole(line)
    assert origin is not None and origin.family == 6


@pytest.mark.parametrize(
    "block",
    [
        f"{SIGNATURE} 21 31 00d8" + "2f" * 216,  # UNIX stream
        f"{SIGNATURE} 21 32 00d8" + "2f" * 216,
        f"{SIGNATURE} 21 12 000c" + "01" * 12,  # UDP over IPv4
        f"{SIGNATURE} 21 22 0024" + "01" * 36,
        f"{SIGNATURE} 21 00 0000",
        f"{SIGNATURE} 21 10 0004 01020304",
        f"{SIGNATURE} 20 11 000c" + "01" * 12,  # LOCAL: what it names is ignored
        f"{SIGNATURE} 20 ff 0003 010203",
    ],
)
def test_blocks_that_name_no_client(block: str) -> None:
    """LOCAL, UDP, UNIX and unknown kinds are headers, skipped by their length, and name nobody."""
    assert whole(bytes.fromhex(block)) is None


@pytest.mark.parametrize("size", [3, 100, LIMIT - 28])
def test_entries_behind_the_addresses_are_skipped(size: int) -> None:
    """TLVs up to the limit cost nothing but their bytes."""
    block = bytes.fromhex(f"{SIGNATURE} 21 11 {12 + size:04x} c0000201 c6336409 dc04 01bb") + b"\x04" * size
    assert whole(block) == V4
    assert decode_header(block[:-1], ANY, LIMIT) is None


@pytest.mark.parametrize(
    ("block", "why"),
    [
        (f"{SIGNATURE} 11", "version and command 0x11"),
        (f"{SIGNATURE} 22", "version and command 0x22"),
        (f"{SIGNATURE} 21 41", "family and protocol 0x41"),
        (f"{SIGNATURE} 21 13", "family and protocol 0x13"),
        (f"{SIGNATURE} 21 11 000b", "11 bytes of addresses, 12"),
        (f"{SIGNATURE} 21 21 000c", "12 bytes of addresses, 36"),
        (f"{SIGNATURE} 21 11 0ff1", "4097 bytes, limit 4096"),
        (f"{SIGNATURE} 20 00 ffff", "65551 bytes, limit 4096"),
    ],
)
def test_a_block_is_judged_by_its_head(block: str, why: str) -> None:
    """What cannot be right is refused before its body comes."""
    with pytest.raises(RemoteError, match=why):
        decode_header(bytes.fromhex(block), ANY, LIMIT)


@given(ORIGINS)
def test_headers_round_trip(origin: Origin | None) -> None:
    """Any origin survives both versions."""
    assert whole(encode_header_v1(origin)) == origin
    assert whole(encode_header_v2(origin)) == origin


@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=120).map(b"PROXY ".__add__),
        st.binary(max_size=60).map(bytes.fromhex(SIGNATURE).__add__),
        st.binary(max_size=60).map((bytes.fromhex(SIGNATURE) + b"!").__add__),
    ),
    st.sampled_from(sorted(VERSIONS)),
)
def test_f24_random_bytes_are_read_or_refused(data: bytes, versions: str) -> None:
    """Nothing but RemoteError, never more than the limits, and a verdict holds whatever comes behind."""
    try:
        header = decode_header(data, VERSIONS[versions], 60)
    except RemoteError as error:
        assert str(error).isprintable()
        with pytest.raises(RemoteError):
            decode_header(data + b"more", VERSIONS[versions], 60)
    else:
        assert header is not None or len(data) < LONGEST_LINE
        assert header is None or header == decode_header(data[: header.size], VERSIONS[versions], 60)
