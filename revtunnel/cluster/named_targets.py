"""What a node asks another one for: an offer of a device that is there, or the other's operations.

Rule of this file: CONNECT's host is SERIAL/OFFER, and its port 1; ``@calls`` in its place is no device.

Source: next/cluster.md section 4; docs/link-protocol.rst "Between nodes".
"""

import re

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.targets import Target

__all__ = ["CALLS", "decode_named", "named", "offer_at"]

CALLS = Target("@calls", 1)
_NAMED = re.compile(r"([!-~]{1,64})/([A-Za-z0-9._-]{1,32})|@calls", re.ASCII)


def named(serial: str, offer: str) -> Target:
    """An offer of a device at another node."""
    return Target(f"{serial}/{offer}", 1)


def offer_at(target: Target) -> tuple[str, str]:
    """Serial and offer again."""
    serial, _, offer = target.host.rpartition("/")
    return serial, offer


def decode_named(payload: bytes) -> Target:
    """The target that a node's CONNECT names. RemoteError: none."""
    host, size = payload[2:-2], int.from_bytes(payload[:2], "big")
    text = host.decode("latin-1")
    if len(payload) < 4 or size != len(host) or payload[-2:] != b"\0\1" or not _NAMED.fullmatch(text):
        raise RemoteError(f"CONNECT of a node: {text[:110]!a} is not SERIAL/OFFER, port 1")
    return Target(text, 1)
