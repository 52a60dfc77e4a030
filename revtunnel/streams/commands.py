"""The commands of the link and what they carry: CONNECT, HELLO's TLVs, RESET, WINDOW, GOAWAY.

====  ===========  =========  =============================  ========================================
byte  name         direction  payload                        channel byte
====  ===========  =========  =============================  ========================================
0x01  CONNECT      s->a       u16 length, host, u16 port     the new channel
0x02  CLOSE        both       none                           the channel
0x03  DATA         both       1..65535 bytes                 the channel
0x04  LISTEN       a->s       none                           0
0x10  HELLO        both       none (probe) or TLVs           version
0x11  CHALLENGE    s->a       32 bytes                       0
0x12  PROOF        a->s       32 bytes                       0
0x13  OPENED       a->s       none                           the channel
0x14  RESET        both       u8 reason, UTF-8 <= 200 bytes  the channel
0x15  EOF          both       none                           the channel
0x16  WINDOW       both       u32 credit                     the channel
0x17  PING         both       8 bytes                        0
0x18  PONG         both       8 bytes                        0
0x19  GOAWAY       both       u8 reason, u16 seconds, text   0
0x1a  WANT         s->a       n x 16-byte tickets            0
0x1b  ATTACH       a->s       16-byte ticket                 0
0x1c  ENROLL       a->s       u8 version, secret, request    0
0x1d  CERTIFICATE  s->a       u8 version, two certificates   0
0x1e  ORIGIN       s->a       u8 family, client, server      the channel
0x1f  SESSION      s->a       u8 what, 16-byte id, TLVs      0
0x20  CONSENT      a->s       16-byte id, u8 answer, text    0
0x21  WITHIN       s->a       16-byte id                     the channel
0x22  SERVICE      a->s       u8 up, u8 length, name, text   0
0x23  OFFERS       a->s       TLVs                           0
0x24  CHANGE       s->a       u8 what, offer                 0
0x25  RECALL       s->a       u32 number                     0
0x26  RECALLED     a->s       u32 number, u8 in time         0
0x27  AFTER        s->a       u16 milliseconds, n x u32      the channel
====  ===========  =========  =============================  ========================================

Source: wire/readyagent.md section 1 (1 to 4), wire/link-extension.md (0x10 to 0x1b); ours
(0x1c and 0x1d, whose payloads are in sockets/tls/enroll.py, 0x1e, in ground/origin.py, 0x1f to 0x21, in
streams/consent_messages.py, 0x22, in streams/service_state.py, 0x23 and 0x24, in streams/offer_messages.py,
0x25 and 0x26, in link/rt1_recall.py, and 0x27, here).
"""

import re
from collections.abc import Iterator
from enum import IntEnum, IntFlag
from struct import Struct
from typing import NamedTuple

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.ground.origin import MAX_ORIGIN
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import MAX_HOST, MAX_LABEL, Target, target_of

__all__ = [
    "COMMANDS",
    "EXACT_SIZE",
    "MAX_SIZE",
    "MAX_TICKETS",
    "TICKET_SIZE",
    "VERSION",
    "After",
    "Command",
    "Feature",
    "Tlv",
    "cut",
    "decode_after",
    "decode_connect",
    "decode_goaway",
    "decode_recalled",
    "decode_reset",
    "decode_tlvs",
    "decode_want",
    "decode_window",
    "encode_after",
    "encode_connect",
    "encode_goaway",
    "encode_recalled",
    "encode_reset",
    "encode_tlvs",
    "encode_want",
    "encode_window",
    "named",
    "number_of",
    "plain",
]

VERSION = 1  # of rt1, in the channel byte of HELLO
MAX_TEXT = 200  # bytes of text in RESET and GOAWAY
MAX_PLACE = MAX_HOST + 8  # bytes of HOST:PORT in GOAWAY, IPv6 in brackets
MAX_CREDIT = 2**31 - 1  # bytes in one WINDOW, and in one channel's sum
TICKET_SIZE = 16  # bytes: u32 number of the channel it is for, then 12 that nobody can guess
MAX_TICKETS = 256  # in one WANT
MAX_AFTER = 8  # streams in one AFTER


class Command(IntEnum):
    """The command byte."""

    CONNECT = 0x01
    CLOSE = 0x02
    DATA = 0x03
    LISTEN = 0x04
    HELLO = 0x10
    CHALLENGE = 0x11
    PROOF = 0x12
    OPENED = 0x13
    RESET = 0x14
    EOF = 0x15
    WINDOW = 0x16
    PING = 0x17
    PONG = 0x18
    GOAWAY = 0x19
    WANT = 0x1A
    ATTACH = 0x1B
    ENROLL = 0x1C
    CERTIFICATE = 0x1D
    ORIGIN = 0x1E
    SESSION = 0x1F
    CONSENT = 0x20
    WITHIN = 0x21
    SERVICE = 0x22
    OFFERS = 0x23
    CHANGE = 0x24
    RECALL = 0x25
    RECALLED = 0x26
    AFTER = 0x27


COMMANDS = frozenset(int(command) for command in Command)


def named(command: int) -> str:
    """A command byte for people: its name, or ``command 0x99`` where it has none."""
    return Command(command).name if command in COMMANDS else f"command {command:#04x}"


EXACT_SIZE = {
    Command.CHALLENGE: 32,
    Command.PROOF: 32,
    Command.OPENED: 0,
    Command.EOF: 0,
    Command.WINDOW: 4,
    Command.PING: 8,
    Command.PONG: 8,
    Command.ATTACH: 16,
    Command.WITHIN: 16,
    Command.RECALL: 4,
    Command.RECALLED: 5,
}
MAX_SIZE = {
    Command.CONNECT: 2 + MAX_HOST + 2,
    Command.RESET: 1 + MAX_TEXT,
    Command.GOAWAY: 3 + MAX_TEXT + 1 + MAX_PLACE,
    Command.WANT: MAX_TICKETS * TICKET_SIZE,
    Command.ORIGIN: MAX_ORIGIN,
    Command.SESSION: 4096,
    Command.CONSENT: 16 + 1 + MAX_TEXT,
    Command.WITHIN: 16,
    Command.OFFERS: 20_000,
    Command.CHANGE: 1 + 32 + 1 + MAX_HOST + 8,
    Command.SERVICE: 2 + MAX_LABEL + MAX_TEXT,
    Command.AFTER: 2 + MAX_AFTER * 4,
}

_U16 = Struct("!H")
_U32 = Struct("!I")
_GOAWAY = Struct("!BH")
_PLACE = re.compile(rb"[!-~]{1,%d}" % MAX_PLACE)


class Tlv(IntEnum):
    """Types in HELLO. An unknown type is skipped."""

    SERIAL = 1  # agent: ASCII
    NONCE = 2  # agent: 32 bytes
    OFFER = 3  # agent, repeated: name, "=", written target
    SOFTWARE = 4  # both: UTF-8
    FEATURES = 5  # both: u32 bits
    WINDOW = 6  # both: u32, credit implied at CONNECT towards the sender of this TLV
    LARGEST_DATA = 7  # both: u32, largest DATA payload the sender of this TLV takes
    KEEPALIVE = 8  # server: u16 seconds
    SPREAD = 9  # server: u16, tenths of a second over which a lost herd spreads its return
    NAME = 10  # server: UTF-8
    PROOF = 11  # server: 32 bytes, it knows this device's key
    INSTANCE = 12  # agent: 1 to 16 random bytes, the same for all links of one run of it
    PROBES = 13  # server: u16 seconds


class Feature(IntFlag):
    """Bits of the entry FEATURES. An unknown bit means nothing."""

    DATA_SOCKETS = 1  # agent: it answers WANT; server: it takes ATTACH
    ORIGIN = 2  # agent: it wants ORIGIN before CONNECT; server: it can say it
    SESSIONS = 4  # agent: it answers SESSION; server: it asks before a session begins, and says WITHIN
    SERVICES = 8  # agent: it says SERVICE; server: it hears it
    OFFERS = 16  # agent: it says OFFERS when they change; server: it takes them
    CHANGES = 32  # agent: it answers CHANGE; server: it asks
    PROBES = 128  # agent: its kernel probes the silent path; server: it takes segments for signs of life
    # agent: it takes bytes behind CONNECT on a data socket, and answers RECALL; server: it may send them. 64
    # was the same without RECALL, so that a CONNECT that came late could give its target the bytes once more
    EARLY = 256
    PLACES = 512  # agent: it reads a place in GOAWAY; server: it may say one
    AFTER = 1024  # agent: it dials only after the streams that AFTER names are closed; server: it may say it


def encode_connect(target: Target) -> bytes:
    """CONNECT's payload."""
    host = target.host.encode("ascii")
    return _U16.pack(len(host)) + host + _U16.pack(target.port)


def decode_connect(payload: bytes) -> Target:
    """The target that a CONNECT names.

    Raises:
        RemoteError: the payload is cut, too long, or names nothing that can be dialled (faults.md F15, F16).
    """
    if len(payload) < 4:
        raise RemoteError(f"CONNECT of {len(payload)} bytes, at least 4 wanted")
    (length,) = _U16.unpack_from(payload)
    if len(payload) != 2 + length + 2:
        raise RemoteError(f"CONNECT of {len(payload)} bytes says its host has {length}")
    try:
        host = payload[2 : 2 + length].decode("ascii")
        return target_of(host, _U16.unpack_from(payload, 2 + length)[0])
    except ValueError as error:
        raise RemoteError(f"CONNECT: {error}") from None


def plain(data: bytes) -> str:
    """Text from the other side, safe to log: one line, printable."""
    text = data[:MAX_TEXT].decode("utf-8", "replace")
    return "".join(character if character.isprintable() else "?" for character in text)


def cut(text: str) -> bytes:
    """A text of at most 200 bytes, whole characters."""
    return text.encode("utf-8")[:MAX_TEXT].decode("utf-8", "ignore").encode("utf-8")


def encode_reset(reason: Ended, text: str = "") -> bytes:
    """RESET's payload; a text over 200 bytes is cut."""
    return bytes((reason,)) + cut(text)


def decode_reset(payload: bytes) -> tuple[Ended, str]:
    """Reason and text of a RESET; an unknown reason counts as PROTOCOL with its number in the text."""
    if not payload:
        raise RemoteError("RESET without a reason")
    text = plain(payload[1:])
    try:
        reason = Ended(payload[0])
    except ValueError:
        return Ended.PROTOCOL, f"reason {payload[0]}: {text}"
    return (Ended.PROTOCOL if reason is Ended.CLOSED else reason), text


def encode_goaway(reason: GoAway, retry_after: int = 0, text: str = "", place: str = "") -> bytes:
    """GOAWAY's payload; ``retry_after`` in seconds, 0 to 65535; ``place``: where to go instead, HOST:PORT."""
    said = _GOAWAY.pack(reason, retry_after) + cut(text.replace("\0", "?"))
    return said + b"\0" + place.encode("ascii") if place else said


def decode_goaway(payload: bytes) -> tuple[GoAway, int, str, str]:
    """Reason, seconds to stay away, text and place of a GOAWAY; a place that is none is none."""
    if len(payload) < _GOAWAY.size:
        raise RemoteError(f"GOAWAY of {len(payload)} bytes, at least {_GOAWAY.size} wanted")
    number, retry_after = _GOAWAY.unpack_from(payload)
    said, _, place = payload[_GOAWAY.size :].partition(b"\0")
    text, where = plain(said), place.decode("ascii") if _PLACE.fullmatch(place) else ""
    try:
        return GoAway(number), retry_after, text, where
    except ValueError:
        return GoAway.PROTOCOL, retry_after, f"reason {number}: {text}", where


def encode_window(credit: int) -> bytes:
    """WINDOW's payload."""
    if not 1 <= credit <= MAX_CREDIT:
        raise LocalError(f"credit of {credit} bytes")
    return _U32.pack(credit)


def decode_window(payload: bytes) -> int:
    """The credit of a WINDOW, 1 to 2^31-1 bytes.

    Raises:
        RemoteError: not of four bytes, zero or too large (faults.md F21).
    """
    if len(payload) != _U32.size:
        raise RemoteError(f"WINDOW with a payload of {len(payload)} bytes")
    (credit,) = _U32.unpack(payload)
    if not 1 <= credit <= MAX_CREDIT:
        raise RemoteError(f"WINDOW of {credit} bytes")
    return int(credit)


def encode_tlvs(entries: list[tuple[int, bytes]]) -> bytes:
    """Type, length and value of each entry; a value has at most 255 bytes."""
    parts = []
    for kind, value in entries:
        if len(value) > 255:
            raise LocalError(f"TLV {kind} of {len(value)} bytes, limit 255")
        parts.append(bytes((kind, len(value))) + value)
    return b"".join(parts)


def decode_tlvs(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each entry, in order.

    Raises:
        RemoteError: the last entry is cut.
    """
    at = 0
    while at < len(payload):
        if at + 2 > len(payload) or at + 2 + payload[at + 1] > len(payload):
            raise RemoteError(f"HELLO is cut at byte {at} of {len(payload)}")
        end = at + 2 + payload[at + 1]
        yield payload[at], payload[at + 2 : end]
        at = end


def encode_want(tickets: list[bytes]) -> bytes:
    """WANT's payload: 1 to 256 tickets."""
    if not 1 <= len(tickets) <= MAX_TICKETS or any(len(ticket) != TICKET_SIZE for ticket in tickets):
        raise LocalError(f"WANT of {len(tickets)} tickets")
    return b"".join(tickets)


def decode_want(payload: bytes) -> list[bytes]:
    """The tickets of a WANT, 1 to 256 of 16 bytes.

    Raises:
        RemoteError: none, half of one, or too many.
    """
    if not payload or len(payload) % TICKET_SIZE or len(payload) > MAX_TICKETS * TICKET_SIZE:
        raise RemoteError(f"WANT of {len(payload)} bytes, 1 to {MAX_TICKETS} tickets of {TICKET_SIZE} wanted")
    return [payload[at : at + TICKET_SIZE] for at in range(0, len(payload), TICKET_SIZE)]


def encode_recalled(number: int, in_time: bool) -> bytes:
    """RECALLED's payload."""
    return _U32.pack(number) + bytes((in_time,))


def decode_recalled(payload: bytes) -> tuple[int, bool]:
    """Of which data socket it speaks, and whether its target has had nothing and never will.

    Raises:
        RemoteError: it says neither.
    """
    if len(payload) != 5 or payload[4] > 1:
        raise RemoteError(
            f"RECALLED of {len(payload)} bytes that ends with {payload[-1:].hex() or 'nothing'}"
        )
    return number_of(payload), payload[4] == 1


class After(NamedTuple):
    """The streams that are to be closed at their service before a dial begins, and for how long to wait."""

    numbers: tuple[int, ...]
    seconds: float


def encode_after(after: After) -> bytes:
    """AFTER's payload: 1 to 8 numbers, 65 seconds at most."""
    if not 1 <= len(after.numbers) <= MAX_AFTER:
        raise LocalError(f"AFTER of {len(after.numbers)} streams")
    milliseconds = min(65535, round(after.seconds * 1000))
    return _U16.pack(milliseconds) + b"".join(map(_U32.pack, after.numbers))


def decode_after(payload: bytes) -> After:
    """What AFTER says.

    Raises:
        RemoteError: it names no stream, half of one, or too many.
    """
    if not 6 <= len(payload) <= MAX_SIZE[Command.AFTER] or (len(payload) - 2) % 4:
        raise RemoteError(f"AFTER of {len(payload)} bytes, 2 and 1 to {MAX_AFTER} numbers of 4 wanted")
    numbers = tuple(int(number) for (number,) in _U32.iter_unpack(payload[2:]))
    return After(numbers, _U16.unpack_from(payload)[0] / 1000)


def number_of(ticket: bytes) -> int:
    """The number of the channel that a ticket is for; 256 and more, so that no channel of a link has it."""
    return int(_U32.unpack_from(ticket)[0])
