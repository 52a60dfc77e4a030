r"""The PROXY protocol: who a connection is for, said by a proxy in the connection's very first bytes.

Version 1 is a line of text, version 2 a binary block. ::

    v1   PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n     client, server, client's port, server's port
         PROXY TCP6 2001:db8::1 2001:db8::9 56324 443\r\n
         PROXY UNKNOWN ...anything...\r\n                    at most 107 bytes with the line end
    v2   0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A                 signature
         21 or 20                                            version 2; PROXY or LOCAL
         11, 21, or another                                  TCP over IPv4, IPv6; others: not known
         u16                                                 bytes that follow
         addresses, ports, then entries                      4 + 4 + 2 + 2, or 16 + 16 + 2 + 2, bytes

Rule of this file: a header is refused as soon as it cannot be right (a line at its end, a block by its head)
and never longer than its limit; what follows it is nobody's business here. Where a header names no client
(LOCAL, UNKNOWN, UDP, UNIX) the connection counts as the sender's own. Entries behind addresses are skipped.

Source: the public specification of the PROXY protocol, versions 1 and 2; the words are ours.
"""

import ipaddress
import re
from struct import Struct
from typing import NamedTuple

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.first_bytes import Listens, explained
from revtunnel.ground.origin import Origin, origin_of, packed_ends

__all__ = ["LONGEST_LINE", "VERSIONS", "ProxyHeader", "decode_header", "encode_header_v1", "encode_header_v2"]

LONGEST_LINE = 107  # bytes of a v1 header, its line end included
VERSIONS = {"v1": frozenset((1,)), "v2": frozenset((2,)), "any": frozenset((1, 2))}  # by name of the setting

_WORD = b"PROXY "
_LINE = re.compile(r"PROXY (TCP4|TCP6) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) ([0-9]{1,5}) ([0-9]{1,5})", re.ASCII)
_SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
_HEAD = Struct("!12sBBH")
_LOCAL, _PROXY = 0x20, 0x21
_TCP = {0x11: Struct("!4s4sHH"), 0x21: Struct("!16s16sHH")}  # by family and protocol
_FAMILIES, _PROTOCOLS = 3, 2  # largest number of each


class ProxyHeader(NamedTuple):
    """One whole header: the client it names, or None, and how many bytes it has."""

    origin: Origin | None
    size: int


def encode_header_v1(origin: Origin | None) -> bytes:
    """The header as a line; None: UNKNOWN."""
    if origin is None:
        return b"PROXY UNKNOWN\r\n"
    ends = f"{origin.client} {origin.server} {origin.client_port} {origin.server_port}"
    return f"PROXY TCP{origin.family} {ends}\r\n".encode("ascii")


def encode_header_v2(origin: Origin | None) -> bytes:
    """The binary header; None: LOCAL."""
    if origin is None:
        return _HEAD.pack(_SIGNATURE, _LOCAL, 0, 0)
    kind = 0x11 if origin.family == 4 else 0x21
    client, client_port, server, server_port = packed_ends(origin)
    block = _TCP[kind].pack(client, server, client_port, server_port)
    return _HEAD.pack(_SIGNATURE, _PROXY, kind, len(block)) + block


def decode_header(data: bytes, versions: frozenset[int], limit: int) -> ProxyHeader | None:
    """The header that ``data``, all that came so far, begins with; None: it is not complete.

    Args:
        data: from the first byte of the connection on; what is behind the header is not looked at.
        versions: 1, 2 or both: a header of another version is refused.
        limit: bytes that a v2 header may have in all; v1 has its own, 107.

    Raises:
        RemoteError: no bytes that follow can make this a header of these versions.
    """
    if 1 in versions and data[: len(_WORD)] == _WORD[: len(data)]:
        return _decode_line(data) if len(data) > len(_WORD) else None
    if 2 in versions and data[: len(_SIGNATURE)] == _SIGNATURE[: len(data)]:
        return _decode_block(data, limit)
    wanted = " or ".join(f"v{version}" for version in sorted(versions))
    words = f"{data[:16].hex(' ')}: no PROXY protocol header {wanted}"
    raise RemoteError(explained(words, data, Listens.PROXY))


def _decode_line(data: bytes) -> ProxyHeader | None:
    line, end, _ = data[:LONGEST_LINE].partition(b"\r\n")
    if b"\n" in line or b"\r" in line[: None if end else -1]:
        raise RemoteError("PROXY line with a bare line feed or return character")
    if not end and len(line) == LONGEST_LINE:
        raise RemoteError(f"PROXY line without its end in {LONGEST_LINE} bytes")
    if not end:
        return None
    size = len(line) + len(end)
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return ProxyHeader(None, size)
    return ProxyHeader(_ends(line), size)


def _ends(line: bytes) -> Origin | None:
    """The addresses of a TCP4 or TCP6 line, read strictly."""
    fault = RemoteError(f"{line.decode('latin-1')!a}: no PROXY line of TCP4 or TCP6")
    match = _LINE.fullmatch(line.decode("latin-1"))
    if not match:
        raise fault
    family, client, server, client_port, server_port = match.groups()
    read = ipaddress.IPv4Address if family == "TCP4" else ipaddress.IPv6Address
    try:
        read(client), read(server)
    except ValueError:
        raise fault from None
    ports = [int(port) for port in (client_port, server_port) if str(int(port)) == port and int(port) < 65536]
    if len(ports) != 2:
        raise fault
    return origin_of(client, ports[0], server, ports[1])


def _decode_block(data: bytes, limit: int) -> ProxyHeader | None:
    _judge_block(data)
    if len(data) < _HEAD.size:
        return None
    _, command, kind, length = _HEAD.unpack_from(data)
    size = _HEAD.size + length
    layout = _TCP.get(kind) if command == _PROXY else None
    if size > limit:
        raise RemoteError(f"PROXY header v2 of {size} bytes, limit {limit}")
    if layout is not None and length < layout.size:
        raise RemoteError(f"PROXY header v2 with {length} bytes of addresses, {layout.size} wanted")
    if len(data) < size:
        return None
    if layout is None:
        return ProxyHeader(None, size)
    client, server, client_port, server_port = layout.unpack_from(data, _HEAD.size)
    return ProxyHeader(origin_of(_written(client), client_port, _written(server), server_port), size)


def _judge_block(data: bytes) -> None:
    """Refuse a version, command, family or protocol that does not exist."""
    command = data[12:13]
    if command and command[0] not in (_LOCAL, _PROXY):
        raise RemoteError(f"PROXY header v2 with version and command 0x{command[0]:02x}, 0x20 or 0x21 wanted")
    kind = data[13:14]
    if command == bytes((_PROXY,)) and kind and (kind[0] >> 4 > _FAMILIES or kind[0] & 15 > _PROTOCOLS):
        raise RemoteError(f"PROXY header v2 with family and protocol 0x{kind[0]:02x}")


def _written(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))
