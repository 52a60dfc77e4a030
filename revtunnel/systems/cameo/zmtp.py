"""ZMTP 3.0, mechanism NULL: what the listening side of a ZeroMQ socket reads and writes.

Frames become messages in zmtp_messages.py; here are the greeting and the commands.

A connection begins with 64 bytes each way, whose first ten a peer may send before it waits for ours::

    ff 00*8 01|7f   signature: the first byte and the low bit of the tenth count, the rest is anybody's
    03 mm           version 3, minor 0 or more
    "NULL" 00*16    mechanism
    as 00*31        as-server, of no meaning here; filler

Then frames: ``flags:u8 size:u8|u64 body``, big endian.

======= ==================================================================
flag    meaning
======= ==================================================================
``01``  more frames of this message follow
``02``  the size has eight bytes
``04``  a command; may stand between two frames of a message
======= ==================================================================

======================================== =====================================================
bytes                                    meaning
======================================== =====================================================
``00 03 666f6f``                         message "foo"
``01 01 61 00 00``                       message of two frames, "a" and ""
``02 0000000000000003 666f6f``           message "foo", size in eight bytes
``00 07 01 737461747573``                subscribe to "status" (3.0)
``00 07 00 737461747573``                cancel it (3.0)
``04 10 09 535542534352494245            subscribe to "status" (3.1)
737461747573``
``04 0d 06 43414e43454c 737461747573``   cancel it (3.1)
``04 07 04 50494e47 0064``               PING, drop me after 10 s of silence
``04 05 04 504f4e47``                    PONG
======================================== =====================================================

Source: wire/cameo.md section 5; rfc.zeromq.org 23/ZMTP and 37/ZMTP.
"""

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.ground.first_bytes import Listens, explained
from revtunnel.systems.cameo.zmtp_messages import COMMAND, MAX_COMMAND, encode_frame

__all__ = [
    "GREETING",
    "MAX_IDENTITY",
    "SUBSCRIPTIONS",
    "check_greeting",
    "decode_command",
    "decode_ping",
    "decode_properties",
    "encode_command",
    "encode_error",
    "encode_pong",
    "encode_ready",
]

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
MAX_IDENTITY = 255  # bytes
MAX_CONTEXT = 16  # bytes of a PING that PONG repeats
SUBSCRIPTIONS = (b"SUBSCRIBE", b"CANCEL")  # commands of a subscriber
_MECHANISM = GREETING[12:32]


# ---- the greeting


def check_greeting(data: bytes | bytearray) -> bool:
    """Whether a whole greeting is at the start of ``data``; judged as early as its bytes allow.

    Raises:
        RemoteError: this peer does not speak ZMTP 3 with mechanism NULL.
    """
    if data[:1] not in (b"", b"\xff"):
        words = f"greeting begins with 0x{data[0]:02x}, 0xff wanted"
        raise RemoteError(explained(words, bytes(data), Listens.CAMEO))
    if len(data) > 9 and not data[9] & 1:
        raise RemoteError(f"byte 9 of the greeting is 0x{data[9]:02x}, an odd one wanted")
    if len(data) > 10 and data[10] < 3:
        raise RemoteError(f"ZMTP version {data[10]}, 3 wanted")
    mechanism = data[12:32]
    if mechanism != _MECHANISM[: len(mechanism)]:
        raise RemoteError(f"mechanism {bytes(mechanism.rstrip(bytes(1)))!a}, NULL wanted")
    return len(data) >= len(GREETING)


# ---- commands


def encode_command(name: bytes, data: bytes = b"") -> bytes:
    """A command frame; both together at most ``MAX_COMMAND`` bytes."""
    body = bytes((len(name),)) + name + data
    if len(body) > MAX_COMMAND:
        raise LocalError(f"command of {len(body)} bytes, limit {MAX_COMMAND}")
    return encode_frame(body, COMMAND)


def decode_command(body: bytes) -> tuple[bytes, bytes]:
    """Name and data of a command.

    Raises:
        RemoteError: there is no name.
    """
    size = body[0] if body else 0
    if not size or len(body) <= size:
        raise RemoteError(f"command of {len(body)} bytes without a name")
    return body[1 : 1 + size], body[1 + size :]


def encode_ready(socket_type: bytes, identity: bytes | None = None) -> bytes:
    """READY with our socket type, and our routing id where the type has one."""
    properties = [(b"Socket-Type", socket_type)]
    if identity is not None:
        properties.append((b"Identity", identity))
    data = [bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value for name, value in properties]
    return encode_command(b"READY", b"".join(data))


def decode_properties(data: bytes) -> dict[bytes, bytes]:
    """The properties of READY by name in lower case: names compare without case.

    Raises:
        RemoteError: the list is cut short, or a name has no bytes.
    """
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        value = at + 1 + data[at] + 4
        size = int.from_bytes(data[value - 4 : value], "big")
        if not data[at] or value + size > len(data):
            raise RemoteError(f"READY is broken at byte {at} of {len(data)}")
        found[data[at + 1 : value - 4].lower()] = data[value : value + size]
        at = value + size
    return found


def decode_ping(data: bytes) -> tuple[float | None, bytes]:
    """Seconds of silence after which the peer wants to be dropped, None for never; and its context."""
    ttl = int.from_bytes(data[:2], "big") if len(data) >= 2 else 0
    return (ttl / 10 if ttl else None), data[2 : 2 + MAX_CONTEXT]


def encode_pong(context: bytes) -> bytes:
    """The answer to a PING of that context."""
    return encode_command(b"PONG", context)


def encode_error(reason: str) -> bytes:
    """ERROR, in place of READY: the peer gives up, it does not come back by itself."""
    text = reason.encode("ascii", "replace")[:255]
    return encode_command(b"ERROR", bytes((len(text),)) + text)
