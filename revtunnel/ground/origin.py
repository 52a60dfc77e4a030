"""Where a client came from: its own address and the address it came to, and how ORIGIN carries both.

====  =======================  ==============================  =====
byte  meaning                  the rest of the payload         bytes
====  =======================  ==============================  =====
4     IPv4                     4 + u16 client, 4 + u16 server  13
6     IPv6                     16 + u16 client, 16 + u16       37
                               server
====  =======================  ==============================  =====

The first byte is the family. "Client" is the address and port that the client has, "server" the one that it
dialled. An IPv4 client of an IPv6 socket is IPv4 here: its address is never written as ``::ffff:...``.

Source: ours; docs/link-protocol.rst "The client's address".
"""

import ipaddress
from struct import Struct
from typing import NamedTuple

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.targets import place

__all__ = ["MAX_ORIGIN", "Origin", "decode_origin", "encode_origin", "origin_of", "packed_ends"]

_V4 = Struct("!4sH4sH")
_V6 = Struct("!16sH16sH")
_LAYOUT = {4: _V4, 6: _V6}
MAX_ORIGIN = 1 + _V6.size  # bytes of payload


class Origin(NamedTuple):
    """Both ends of a client's connection; the addresses are of one family, in their shortest form."""

    client: str
    client_port: int
    server: str
    server_port: int

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.client else 4

    @property
    def peer(self) -> str:
        """The client as it is written in logs."""
        return place(self.client, self.client_port)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address without its zone."""
    return ipaddress.ip_address(host.partition("%")[0])


def origin_of(client: str, client_port: int, server: str, server_port: int) -> Origin | None:
    """The origin that two written addresses make; None: they are no addresses of one family."""
    try:
        ends = _address(client), _address(server)
    except ValueError:
        return None
    plain = [getattr(end, "ipv4_mapped", None) for end in ends]
    theirs, ours = plain if all(plain) else ends
    if theirs is None or ours is None or theirs.version != ours.version:
        return None
    return Origin(str(theirs), client_port, str(ours), server_port)


def packed_ends(origin: Origin) -> tuple[bytes, int, bytes, int]:
    """The four parts, addresses as 4 or 16 bytes."""
    client, server = ipaddress.ip_address(origin.client), ipaddress.ip_address(origin.server)
    return client.packed, origin.client_port, server.packed, origin.server_port


def encode_origin(origin: Origin) -> bytes:
    """ORIGIN's payload."""
    return bytes((origin.family,)) + _LAYOUT[origin.family].pack(*packed_ends(origin))


def decode_origin(payload: bytes) -> Origin:
    """The origin that an ORIGIN names.

    Raises:
        RemoteError: an unknown family, or another size than the family's.
    """
    layout = _LAYOUT.get(payload[0]) if payload else None
    if layout is None or len(payload) != 1 + layout.size:
        family = payload[0] if payload else "no"
        raise RemoteError(f"ORIGIN of {len(payload)} bytes with family {family}; 4 in 13 or 6 in 37 wanted")
    client, client_port, server, server_port = layout.unpack_from(payload, 1)
    origin = origin_of(_written(client), client_port, _written(server), server_port)
    assert origin is not None  # two addresses of one size
    return origin


def _written(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))
