"""The ZMTP codec: golden bytes cut at every position, every limit, random streams and random bytes."""

import re
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.systems.cameo import zmtp
from revtunnel.systems.cameo.zmtp import (
    GREETING,
    check_greeting,
    decode_command,
    decode_ping,
    decode_properties,
    encode_command,
    encode_error,
    encode_pong,
    encode_ready,
)
from revtunnel.systems.cameo.zmtp_messages import (
    MAX_COMMAND,
    MessageDecoder,
    ZmtpCommand,
    ZmtpMessage,
    encode_message,
    encode_more,
    split_frames,
)
from tests.support.depth import deep

MIB = 1024 * 1024
# what libzmq 4.3.5 sends, as captured: greeting of a ROUTER whose id has three bytes, its READY, a request
LIBZMQ_GREETING = bytes.fromhex("ff 0000000000000004 7f 03 01 4e554c4c") + bytes(48)
LIBZMQ_READY = bytes.fromhex(
    "04 2c 05 5245414459 0b 536f636b65742d54797065 00000006 524f55544552 08 4964656e74697479 00000003 303a30"
)
REQUEST = bytes.fromhex("01 00 01 03 303a30 01 00 00 0a") + b'{"type":1}'
SUBSCRIBE = bytes.fromhex("04 10 09 535542534352494245 737461747573")
PING = bytes.fromhex("04 07 04 50494e47 0064")
LONG = bytes.fromhex("02 0000000000000003 666f6f")
STREAM = LIBZMQ_READY + REQUEST + SUBSCRIBE + PING + LONG + encode_message([b"topic", b"x" * 300, b""])


def decoded(
    pieces: Iterable[bytes], most: int = MIB, frames: int = 64, heads: int = 1, keep: int = 0
) -> list[ZmtpMessage | ZmtpCommand]:
    """All units of a stream that comes in these pieces, of which nothing is left over."""
    decoder = MessageDecoder(most, frames, heads, keep)
    found = [unit for piece in pieces for unit in decoder.units(piece)]
    assert decoder.held == 0
    return found


def bodies(units: Iterable[ZmtpMessage | ZmtpCommand]) -> list[list[bytes]]:
    """The messages' frames."""
    return [split_frames(unit.rest) for unit in units if isinstance(unit, ZmtpMessage)]


def refused(data: bytes, most: int = MIB, frames: int = 64) -> str:
    """What a decoder says of bytes it does not take."""
    decoder = MessageDecoder(most, frames)
    with pytest.raises(RemoteError) as caught:
        list(decoder.units(data))
    return str(caught.value)


def test_the_table_of_the_document_is_true() -> None:
    """Every row of bytes in the module's docstring is what the codec reads, and what it writes."""
    rows = re.findall(r"^``([0-9a-f \n]+)`` +(.+)$", zmtp.__doc__ or "", re.MULTILINE)
    table = {row[0]: row[1] for row in rows if " " in row[0]}
    wires = {bytes.fromhex(wire.replace("\n", " ")) for wire in table}
    # a row that spans lines has its meaning beside its first one
    wires.add(SUBSCRIBE)
    for wire in wires:
        (unit,) = decoded([wire])
        if isinstance(unit, ZmtpCommand):
            assert encode_command(*decode_command(unit.body)) == wire
        elif wire != LONG:
            assert encode_message(split_frames(unit.rest)) == wire
    assert {
        encode_message([b"foo"]),
        LONG,
        encode_message([b"a", b""]),
        encode_message([b"\1status"]),
        encode_message([b"\0status"]),
        encode_command(b"SUBSCRIBE", b"status"),
        encode_command(b"CANCEL", b"status"),
        PING,
        encode_pong(b""),
    } == wires


def test_greeting_of_ours() -> None:
    """64 bytes: signature, version 3.0, NULL, not a server."""
    assert GREETING.hex(" ").startswith("ff 00 00 00 00 00 00 00 00 7f 03 00 4e 55 4c 4c 00")
    assert len(GREETING) == 64 and check_greeting(GREETING)


def test_z1_greeting_byte_by_byte() -> None:
    """A good greeting is not refused at any length, and whole at 64 bytes only; libzmq fills it otherwise."""
    for greeting in (GREETING, LIBZMQ_GREETING):
        assert [check_greeting(greeting[:size]) for size in range(65)] == [False] * 64 + [True]
        assert check_greeting(bytearray(greeting) + b"\x04\x2a")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"GET / HTTP/1.1", "begins with 0x47"),
        (b"\x01\x00", "begins with 0x01"),  # ZMTP 1.0
        (b"\xff" + bytes(9), "byte 9"),
        (b"\xff" + bytes(8) + b"\x7f\x01", "version 1"),  # ZMTP 2.0
        (b"\xff" * 64, "mechanism"),
        (GREETING[:12] + b"PLAIN".ljust(20, b"\0"), "mechanism b'PLAIN'"),
        (GREETING[:12] + b"CURVE", "mechanism b'CURVE'"),
        (GREETING[:16] + b"X", "mechanism b'NULLX'"),
    ],
)
def test_z1_greeting_refused(data: bytes, text: str) -> None:
    """Garbage, older versions, a flood of 0xFF, another mechanism: refused at the first wrong byte."""
    with pytest.raises(RemoteError, match=re.escape(text)):
        check_greeting(data)
    assert check_greeting(data[:1] if data[0] == 0xFF else b"") is False


def test_captured_bytes() -> None:
    """What libzmq really sends is understood."""
    ready, request, subscribe, ping, long, publication = decoded([STREAM], heads=3)
    assert isinstance(ready, ZmtpCommand) and isinstance(request, ZmtpMessage)
    name, data = decode_command(ready.body)
    assert (name, decode_properties(data)) == (b"READY", {b"socket-type": b"ROUTER", b"identity": b"0:0"})
    assert request == ZmtpMessage([b"", b"0:0", b""], REQUEST, 4)
    assert split_frames(request.rest) == [b"", b"0:0", b"", b'{"type":1}']
    assert isinstance(subscribe, ZmtpCommand) and decode_command(subscribe.body) == (b"SUBSCRIBE", b"status")
    assert isinstance(ping, ZmtpCommand) and decode_ping(decode_command(ping.body)[1]) == (10.0, b"")
    assert isinstance(long, ZmtpMessage) and long == ZmtpMessage([b"foo"], LONG, 1)
    assert isinstance(publication, ZmtpMessage) and publication.heads == [b"topic", b"x" * 300, b""]


def test_our_ready() -> None:
    """The bytes of READY with and without an identity."""
    assert encode_ready(b"XPUB").hex(" ") == (
        "04 1a 05 52 45 41 44 59 0b 53 6f 63 6b 65 74 2d 54 79 70 65 00 00 00 04 58 50 55 42"
    )
    (unit,) = decoded([encode_ready(b"ROUTER", b"0:0")])
    assert isinstance(unit, ZmtpCommand) and encode_ready(b"ROUTER", b"0:0") == LIBZMQ_READY


@pytest.mark.parametrize(("heads", "keep"), [(1, 0), (3, 3), (0, 0), (5, 2)])
def test_every_cut_gives_the_same_units(heads: int, keep: int) -> None:
    """Two cuts at every pair of nearby places, and one anywhere, change nothing."""
    whole = decoded([STREAM], heads=heads, keep=keep)
    for at in range(len(STREAM) + 1):
        assert decoded([STREAM[:at], STREAM[at:]], heads=heads, keep=keep) == whole
        for more in (1, 2, 9):
            pieces = [STREAM[:at], STREAM[at : at + more], STREAM[at + more :]]
            assert decoded(pieces, heads=heads, keep=keep) == whole


@pytest.mark.parametrize(("heads", "keep"), [(1, 0), (3, 3)])
def test_byte_by_byte(heads: int, keep: int) -> None:
    """A dribble of single bytes gives the same units."""
    pieces = [STREAM[at : at + 1] for at in range(len(STREAM))]
    assert decoded(pieces, heads=heads, keep=keep) == decoded([STREAM], heads=heads, keep=keep)


@pytest.mark.parametrize("size", [1, 7, 64, 10_000])
def test_a_command_between_the_frames_of_a_message(size: int) -> None:
    """libzmq puts a PING between two frames when its time has come: it is no part of the message."""
    wire = encode_more(b"topic") + PING + encode_more(b"one") + PING + PING + encode_message([b"two"])
    pieces = [wire[at : at + size] for at in range(0, len(wire), size)]
    for keep in (0, 1, 2):
        units = decoded(pieces, heads=1, keep=keep)
        assert [type(unit) for unit in units] == [ZmtpCommand, ZmtpCommand, ZmtpCommand, ZmtpMessage]
        assert units[-1] == ZmtpMessage([b"topic"], encode_message([b"topic", b"one", b"two"][keep:]), 3)


def test_z2_a_length_of_2_to_63_is_refused_from_its_header() -> None:
    """Nothing is waited for, nothing is held."""
    assert "limit 1048576" in refused(bytes.fromhex("02 8000000000000000"))
    assert "limit 1048576" in refused(bytes.fromhex("03 ffffffffffffffff"))
    assert "command" in refused(bytes.fromhex("06 8000000000000000"))


def test_z2_a_million_frames_are_refused() -> None:
    """The number of a message's frames has a limit of its own, since empty frames weigh nothing."""
    assert "64 frames" in refused(b"\1\0" * 1_000_000)
    assert len(decoded([b"\1\0" * 63 + b"\0\0"])) == 1


def test_z2_a_message_above_its_limit_is_refused_and_the_one_before_it_delivered() -> None:
    """The limit is of the whole message, all frames and headers; exactly the limit passes."""
    assert len(decoded([b"\2" + (991).to_bytes(8, "big") + bytes(991)], most=1000)) == 1
    decoder = MessageDecoder(1000, 64)
    found = []
    with pytest.raises(RemoteError, match="1001 bytes or more, limit 1000"):
        for unit in decoder.units(b"\0\1a" + b"\1\xff" + bytes(255) + b"\2" + (735).to_bytes(8, "big")):
            found.append(unit)
    assert found == [ZmtpMessage([b"a"], b"\0\1a", 1)]


def test_no_message_before_its_time() -> None:
    """Before READY the limit is 0; commands are read all the same."""
    decoder = MessageDecoder(0, 64)
    assert len(list(decoder.units(LIBZMQ_READY))) == 1
    with pytest.raises(RemoteError, match="before READY"):
        list(decoder.units(b"\0\0"))


@pytest.mark.parametrize("flags", [0x05, 0x07, 0x08, 0x10, 0x80, 0xFF])
def test_bad_flags(flags: int) -> None:
    """Reserved flags, and a command with more to come, are refused at their first byte."""
    assert "flags" in refused(bytes((flags,)))


def test_commands_have_a_limit() -> None:
    """The header of a command that is too long is enough; we write none ourselves."""
    assert "limit 4096" in refused(b"\6" + (MAX_COMMAND + 1).to_bytes(8, "big"))
    assert len(decoded([encode_command(b"X", bytes(MAX_COMMAND - 2))])) == 1
    with pytest.raises(LocalError):
        encode_command(b"X", bytes(MAX_COMMAND))


@pytest.mark.parametrize("body", [b"", b"\0", b"\0abc", b"\5READ", b"\xff"])
def test_a_command_needs_a_name(body: bytes) -> None:
    """An empty or a cut name is refused; a name whose data is empty is none of these."""
    if body == b"\5READ":
        body = body[:4]
    with pytest.raises(RemoteError, match="without a name"):
        decode_command(body)


def test_a_command_may_have_no_data() -> None:
    """PONG without a context."""
    assert decode_command(b"\4PONG") == (b"PONG", b"")


@pytest.mark.parametrize("cut", range(1, len(LIBZMQ_READY) - 8))
def test_ready_cut_short(cut: int) -> None:
    """Properties that end early are refused, unless the cut leaves whole ones."""
    data = LIBZMQ_READY[8:][:cut]
    if cut in (22,):
        assert list(decode_properties(data)) == [b"socket-type"]
    else:
        with pytest.raises(RemoteError, match="broken"):
            decode_properties(data)


def test_properties_compare_without_case() -> None:
    """Java and C++ peers write the names as they like."""
    data = b"\x0bSOCKET-TYPE\0\0\0\3REQ\x08identity\0\0\0\0"
    assert decode_properties(data) == {b"socket-type": b"REQ", b"identity": b""}
    with pytest.raises(RemoteError):
        decode_properties(b"\0\0\0\0\0")


def test_z8_ping() -> None:
    """Its TTL is in tenths of a second, 0 is none; a PING without a TTL has none; contexts are cut at 16."""
    assert decode_ping(b"\0\1abc") == (0.1, b"abc")
    assert decode_ping(b"\0\0") == (None, b"")
    assert decode_ping(b"\7") == (None, b"")
    assert decode_ping(b"\xff\xff" + bytes(100)) == (6553.5, bytes(16))
    assert encode_pong(b"abc") == bytes.fromhex("04 08 04 504f4e47 616263")


def test_error_command() -> None:
    """The reason is ASCII of at most 255 bytes."""
    assert encode_error("no").hex(" ") == "04 09 05 45 52 52 4f 52 02 6e 6f"
    (unit,) = decoded([encode_error("\u00e4" * 300)])
    assert isinstance(unit, ZmtpCommand) and decode_command(unit.body)[1] == b"\xff" + b"?" * 255


def test_held_bytes_are_counted() -> None:
    """What waits for more: of an incomplete frame, and of an incomplete message."""
    decoder = MessageDecoder(MIB, 64)
    wire = encode_message([b"a" * 10, b"b" * 1000])
    for at in range(len(wire) - 1):
        assert list(decoder.units(wire[at : at + 1])) == []
        assert decoder.held == at + 1
    assert len(list(decoder.units(wire[-1:]))) == 1 and decoder.held == 0


frames = st.lists(st.binary(max_size=400), min_size=1, max_size=6)


@given(st.lists(frames, max_size=8), st.lists(st.integers(1, 300), min_size=1), st.integers(0, 4))
@settings(max_examples=deep(100), deadline=None)
def test_any_messages_in_any_pieces(messages: list[list[bytes]], sizes: list[int], keep: int) -> None:
    """What is encoded is decoded, whatever the pieces; heads and rest are what was asked for."""
    stream, pieces, at = b"".join(map(encode_message, messages)), [], 0
    while at < len(stream):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(stream[at : at + size])
        at += size
    units = decoded(pieces, heads=2, keep=keep)
    assert bodies(units) == [message[keep:] for message in messages]
    assert [unit.heads for unit in units if isinstance(unit, ZmtpMessage)] == [m[:2] for m in messages]


@given(st.binary(max_size=300), st.integers(1, 20))
@settings(max_examples=deep(200), deadline=None)
def test_random_bytes_do_no_harm(data: bytes, size: int) -> None:
    """Anything is either cut or refused with RemoteError, never more, and the pieces do not matter."""

    def outcome(pieces: list[bytes]) -> tuple[list[object], str]:
        decoder, found = MessageDecoder(1000, 8), []
        try:
            for piece in pieces:
                for unit in decoder.units(piece):
                    found.append(unit)
                assert decoder.held <= 1000 + MAX_COMMAND
        except RemoteError as error:
            return found, str(error)
        return found, ""

    cut = outcome([data[at : at + size] for at in range(0, len(data), size)])
    assert cut == outcome([data])
    for read in (check_greeting, decode_command, decode_properties, decode_ping):
        try:
            read(data)
        except RemoteError:
            continue
