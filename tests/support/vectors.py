"""Golden bytes, each with the place it comes from.

[R] in a source: these bytes were seen on the wire between the original programs. The others are spelled out
by the page that is named. Nothing here is computed by the code under test.
"""

from typing import NamedTuple

__all__ = [
    "CONNECTS",
    "FRAMES",
    "LEGACY",
    "M3DA_COMMAND",
    "M3DA_HELLO_START",
    "M3DA_NOTHING",
    "RT1",
    "Vector",
]


class Vector(NamedTuple):
    """One frame as bytes and as what it says."""

    name: str
    source: str
    wire: bytes
    command: int
    channel: int
    payload: bytes


def _vector(name: str, source: str, wire: str, command: int, channel: int, payload: bytes = b"") -> Vector:
    return Vector(name, source, bytes.fromhex(wire), command, channel, payload)


# wire/readyagent.md section 1, "Exact bytes"
LEGACY = [
    _vector("LISTEN", "readyagent.md 1 [R]", "00 00 04 00", 4, 0),
    _vector(
        "CONNECT 10.41.51.152:23",
        "readyagent.md 1 [R]",
        "00 10 01 01  00 0c 31 30 2e 34 31 2e 35 31 2e 31 35 32 00 17",
        1,
        1,
        b"\x00\x0c10.41.51.152\x00\x17",
    ),
    _vector(
        "CONNECT printer.local:9100",
        "readyagent.md 1 [R]",
        "00 11 01 02  00 0d 70 72 69 6e 74 65 72 2e 6c 6f 63 61 6c 23 8c",
        1,
        2,
        b"\x00\x0dprinter.local\x23\x8c",
    ),
    _vector("DATA hello", "readyagent.md 1", "00 05 03 01 68 65 6c 6c 6f", 3, 1, b"hello"),
    _vector("CLOSE 1", "readyagent.md 1", "00 00 02 01", 2, 1),
    # section 2: a payload that the real device, out of step, ran as CLOSE 5
    _vector("CLOSE 5", "readyagent.md 2 [R]", "00 00 02 05", 2, 5),
    # section 5.3: the heartbeat against a device, its answer, and the one against a server
    _vector("DATA on id 0", "readyagent.md 5.3 [R]", "00 01 03 00 00", 3, 0, b"\x00"),
    _vector("CLOSE 0", "readyagent.md 5.3 [R]", "00 00 02 00", 2, 0),
    _vector("DATA of no bytes", "readyagent.md 5.3", "00 00 03 00", 3, 0),
    _vector("id 255", "readyagent.md 2 [R]", "00 00 02 ff", 2, 255),
    _vector("largest DATA", "readyagent.md 2 [R]", "ff ff 03 ff" + "5a" * 65535, 3, 255, b"\x5a" * 65535),
]

# what the CONNECT frames above name
CONNECTS = {
    "CONNECT 10.41.51.152:23": ("10.41.51.152", 23),
    "CONNECT printer.local:9100": ("printer.local", 9100),
}

COMMANDS = "link-extension.md Commands"
NEGOTIATION = "link-extension.md Negotiation"
DATA_SOCKETS = "link-extension.md Data sockets"
ENROLMENT = "docs/link-protocol.rst Enrolment"
ORIGINS = "docs/link-protocol.rst The client's address"
SESSIONS = "docs/link-protocol.rst Sessions"
SERVICES = "docs/link-protocol.rst Services that are looked at"
_NONCE = bytes(range(32))
_SESSION = bytes(range(16))
_MARK = bytes(range(1, 9))
_TICKETS = bytes(range(16)), bytes(range(16, 32))

# wire/link-extension.md, "Negotiation", "Commands" and "Data sockets"
RT1 = [
    _vector("HELLO probe", NEGOTIATION, "00 00 10 01", 0x10, 1),
    _vector(
        "HELLO with serial",
        NEGOTIATION,
        "00 07 10 01  01 05 70 6c 63 2d 37",
        0x10,
        1,
        b"\x01\x05plc-7",
    ),
    _vector("CHALLENGE", NEGOTIATION, "00 20 11 00" + bytes(range(32)).hex(), 0x11, 0, _NONCE),
    _vector("PROOF", NEGOTIATION, "00 20 12 00" + bytes(range(32)).hex(), 0x12, 0, _NONCE),
    _vector("OPENED", COMMANDS, "00 00 13 07", 0x13, 7),
    _vector("RESET refused", COMMANDS, "00 01 14 07 01", 0x14, 7, b"\x01"),
    _vector("RESET with text", COMMANDS, "00 05 14 07 02 44 4e 53 3f", 0x14, 7, b"\x02DNS?"),
    _vector("EOF", COMMANDS, "00 00 15 07", 0x15, 7),
    _vector("WINDOW of 256 KiB", COMMANDS, "00 04 16 07 00 04 00 00", 0x16, 7, b"\0\x04\0\0"),
    _vector(
        "WINDOW, the largest",
        COMMANDS,
        "00 04 16 07 7f ff ff ff",
        0x16,
        7,
        b"\x7f\xff\xff\xff",
    ),
    _vector(
        "PING",
        COMMANDS,
        "00 08 17 00 01 02 03 04 05 06 07 08",
        0x17,
        0,
        _MARK,
    ),
    _vector(
        "PONG",
        COMMANDS,
        "00 08 18 00 01 02 03 04 05 06 07 08",
        0x18,
        0,
        _MARK,
    ),
    _vector(
        "GOAWAY, back in 300 s",
        COMMANDS,
        "00 06 19 00 01 01 2c 62 79 65",
        0x19,
        0,
        b"\x01\x01,bye",
    ),
    _vector(
        "WANT two data sockets",
        DATA_SOCKETS,
        "00 20 1a 00" + bytes(range(32)).hex(),
        0x1A,
        0,
        _TICKETS[0] + _TICKETS[1],
    ),
    _vector(
        "ATTACH",
        DATA_SOCKETS,
        "00 10 1b 00" + bytes(range(16)).hex(),
        0x1B,
        0,
        _TICKETS[0],
    ),
    _vector(
        "ENROLL with a secret",
        ENROLMENT,
        "00 17 1c 00 01 10" + bytes(range(16)).hex() + "30 03 02 01 00",
        0x1C,
        0,
        b"\x01\x10" + bytes(range(16)) + b"0\x03\x02\x01\x00",
    ),
    _vector(
        "CERTIFICATE of two",
        ENROLMENT,
        "00 0c 1d 00 01 00 03 30 01 00 00 04 30 02 05 00",
        0x1D,
        0,
        b"\x01\x00\x030\x01\x00\x00\x040\x02\x05\x00",
    ),
    _vector(
        "ORIGIN 192.0.2.1:56324 to 198.51.100.9:443",
        ORIGINS,
        "00 0d 1e 07 04 c0 00 02 01 dc 04 c6 33 64 09 01 bb",
        0x1E,
        7,
        b"\x04\xc0\x00\x02\x01\xdc\x04\xc6\x33\x64\x09\x01\xbb",
    ),
    _vector(
        "SESSION for ana, ssh",
        SESSIONS,
        "00 1b 1f 00 01 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 01 03 61 6e 61 02 03 73 73 68",
        0x1F,
        0,
        b"\x01" + _SESSION + b"\x01\x03ana\x02\x03ssh",
    ),
    _vector(
        "SESSION over",
        SESSIONS,
        "00 11 1f 00 02 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f",
        0x1F,
        0,
        b"\x02" + _SESSION,
    ),
    _vector(
        "CONSENT no",
        SESSIONS,
        "00 13 20 00 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 00 6e 6f",
        0x20,
        0,
        _SESSION + b"\x00no",
    ),
    _vector(
        "CONSENT yes",
        SESSIONS,
        "00 11 20 00 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 01",
        0x20,
        0,
        _SESSION + b"\x01",
    ),
    _vector(
        "WITHIN 5", SESSIONS, "00 10 21 05 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f", 0x21, 5, _SESSION
    ),
    _vector("SERVICE up", SERVICES, "00 06 22 00 01 04 68 74 74 70", 0x22, 0, b"\x01\x04http"),
    _vector("SERVICE down", SERVICES, "00 08 22 00 00 04 68 74 74 70 6e 6f", 0x22, 0, b"\x00\x04httpno"),
    _vector(
        "OFFERS: http=h:80",
        "docs/link-protocol.rst, Offers",
        "00 0b 23 00 03 09 68 74 74 70 3d 68 3a 38 30",
        0x23,
        0,
        b"\3\x09http=h:80",
    ),
    _vector(
        "CHANGE: http taken away",
        "docs/link-protocol.rst, Offers",
        "00 05 24 00 02 68 74 74 70",
        0x24,
        0,
        b"\2http",
    ),
    _vector("RECALL 256", DATA_SOCKETS, "00 04 25 00 00 00 01 00", 0x25, 0, b"\0\0\1\0"),
    _vector("RECALLED 256", DATA_SOCKETS, "00 05 26 00 00 00 01 00 01", 0x26, 0, b"\0\0\1\0\1"),
    _vector("AFTER", DATA_SOCKETS, "00 06 27 05 00 64 00 00 01 00", 0x27, 5, b"\0\x64\0\0\1\0"),
]

FRAMES = LEGACY + RT1

# wire/readyagent.md section 4: how the command to connect arrives (M3DA over TCP)
M3DA_HELLO_START = bytes.fromhex("60 c1 03 69 64 12")  # then the device id, then 00 00
M3DA_NOTHING = bytes.fromhex("60 c1 03 69 64 06 73 72 76 07 73 74 61 74 75 73 e0 87 00 00 00")
M3DA_COMMAND = bytes.fromhex(
    "60 c1 03 69 64 06 73 72 76 07 73 74 61 74 75 73 e0 87 00"  # envelope, header {id="srv", status=200}
    "25"  # payload of 36 bytes
    "61 0e 40 73 79 73 2e 63 6f 6d 6d 61 6e 64 73"  # Message, path "@sys.commands"
    "3c"  # ticket 1; 3b = 0: no acknowledgement wanted
    "c1 11 54 43 50 52 65 6d 6f 74 65 43 6f 6e 6e 65 63 74 2a 00"  # body {TCPRemoteConnect = {}}
    "00"  # empty footer
)
