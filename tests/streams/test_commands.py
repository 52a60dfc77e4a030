"""What the commands carry: the table in the docstring, golden payloads, limits, random bytes."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.ground.targets import MAX_HOST, Target, parse_target, target_of
from revtunnel.streams import commands
from revtunnel.streams.commands import (
    COMMANDS,
    EXACT_SIZE,
    MAX_CREDIT,
    MAX_SIZE,
    MAX_TEXT,
    MAX_TICKETS,
    TICKET_SIZE,
    Command,
    Feature,
    Tlv,
    decode_connect,
    decode_goaway,
    decode_reset,
    decode_tlvs,
    decode_want,
    decode_window,
    encode_connect,
    encode_goaway,
    encode_reset,
    encode_tlvs,
    encode_want,
    encode_window,
    named,
    number_of,
)
from tests.support.vectors import CONNECTS, FRAMES, M3DA_COMMAND, M3DA_NOTHING

PAYLOAD = {vector.name: vector.payload for vector in FRAMES}


def table() -> list[list[str]]:
    """The rows of the byte table at the head of the module."""
    lines = (commands.__doc__ or "").splitlines()
    rules = [at for at, line in enumerate(lines) if line.startswith("====")]
    edges = [match.span() for match in re.finditer("=+", lines[rules[0]])]
    return [
        [line[begin : end if end < edges[-1][1] else None].strip() for begin, end in edges]
        for line in lines[rules[1] + 1 : rules[2]]
    ]


def test_the_table_is_the_enumeration() -> None:
    """Byte and name of every row are those of Command, in order, and none is missing."""
    assert [(int(row[0], 16), row[1]) for row in table()] == [(int(each), each.name) for each in Command]
    assert frozenset(int(row[0], 16) for row in table()) == COMMANDS


def test_a_command_is_named_for_people() -> None:
    """By its name in the table, else by its byte as the table has those."""
    assert [named(each) for each in (Command.CERTIFICATE, 0x1D, 0x42, 5)] == [
        *("CERTIFICATE", "CERTIFICATE", "command 0x42", "command 0x05"),
    ]


def test_the_table_gives_direction_and_channel() -> None:
    """Every row says who sends and what the channel byte holds."""
    for row in table():
        assert row[2] in ("s->a", "a->s", "both"), row
        assert row[4] in ("0", "the channel", "the new channel", "version"), row


def test_the_table_gives_the_sizes_that_are_enforced() -> None:
    """Where the code asks for an exact size the row says the same; limits of text are those of the row."""
    sizes = {"none": 0, "32 bytes": 32, "u32 credit": 4, "8 bytes": 8, "16-byte ticket": 16}
    sizes |= {"16-byte id": 16, "u32 number": 4, "u32 number, u8 in time": 5}
    rows = {row[1]: row[3] for row in table()}
    for command, size in EXACT_SIZE.items():
        assert sizes[rows[command.name]] == size
    assert f"<= {MAX_TEXT} bytes" in rows["RESET"]
    assert MAX_SIZE == {
        Command.CONNECT: 259,
        Command.RESET: 201,
        Command.GOAWAY: 467,
        Command.WANT: 4096,
        Command.ORIGIN: 37,
        Command.SESSION: 4096,
        Command.CONSENT: 217,
        Command.WITHIN: 16,
        Command.SERVICE: 234,
        Command.OFFERS: 20_000,
        Command.CHANGE: 297,
        Command.AFTER: 34,
    }
    assert rows["DATA"] == "1..65535 bytes"


@pytest.mark.parametrize("name", CONNECTS)
def test_connect_golden(name: str) -> None:
    """The recorded CONNECTs name their targets, and the targets encode to them."""
    host, port = CONNECTS[name]
    assert decode_connect(PAYLOAD[name]) == Target(host, port)
    assert encode_connect(Target(host, port)) == PAYLOAD[name]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00",
        b"\x00\x00\x17",
        PAYLOAD["CONNECT 10.41.51.152:23"][:-1],
        PAYLOAD["CONNECT 10.41.51.152:23"][:5],
        b"\xff\xff10.41.51.152\x00\x17",
        b"\x00\x0b10.41.51.152\x00\x17",
        PAYLOAD["CONNECT 10.41.51.152:23"] + b"\x00",
    ],
    ids=[
        "empty",
        "1 byte",
        "3 bytes",
        "no port",
        "cut host",
        "length too large",
        "length too small",
        "trailing",
    ],
)
def test_f15_malformed_connect(payload: bytes) -> None:
    """Empty, cut, lying about its length, or with bytes after it: refused, never guessed."""
    with pytest.raises(RemoteError, match="CONNECT"):
        decode_connect(payload)


def test_f15_every_cut_of_a_connect_is_refused() -> None:
    """No prefix of a good CONNECT is one."""
    whole = PAYLOAD["CONNECT printer.local:9100"]
    for size in range(len(whole)):
        with pytest.raises(RemoteError):
            decode_connect(whole[:size])


def connect(host: bytes, port: int = 23) -> bytes:
    """A CONNECT payload with any host."""
    return len(host).to_bytes(2, "big") + host + port.to_bytes(2, "big")


@pytest.mark.parametrize(
    "host",
    [
        b"",
        b"a" * 255,
        b"a" * 256,
        b"a" * 64,
        b"plc\x00.local",
        b"10.0.0.1 ",
        b" 10.0.0.1",
        b"10.0.0.1\n",
        b"10.0.0",
        b"10.0.0.256",
        b"2130706433",
        b"0x7f.1",
        b"-x.local",
        b"x..local",
        b".",
        b"caf\xc3\xa9",
        b"[::1]",
        b"::1%eth 0",
        b"fe80::1%\x1b[2J",
        b"fe80::1%",
        b"fe80::1%eth0/../x",
        b"host:23",
        b"unix:",
        b"unix:/",
        b"unix:relative",
        b"unix:/run/x",
        b"a/b",
    ],
)
def test_f16_connect_to_what_is_no_host(host: bytes) -> None:
    """Nothing that is no name, address or path gets past the grammar; the text is safe to log."""
    with pytest.raises(RemoteError) as caught:
        decode_connect(connect(host))
    assert str(caught.value).isprintable()


def test_f16_connect_to_port_0() -> None:
    """Port 0 is refused, except with a UNIX path, where it is the only one."""
    with pytest.raises(RemoteError, match="port 0"):
        decode_connect(connect(b"10.0.0.1", 0))
    assert decode_connect(connect(b"unix:/run/x", 0)) == Target("unix:/run/x", 0)


def test_f16_different_spellings_are_one_target() -> None:
    """What an allow list compares is canonical: case, final dot, IPv6 spelling, mapped IPv4."""
    assert decode_connect(connect(b"Printer.LOCAL.")) == Target("printer.local", 23)
    assert decode_connect(connect(b"0:0:0:0:0:0:0:1")) == Target("::1", 23)
    assert decode_connect(connect(b"FE80::0:1%eth0")) == Target("fe80::1%eth0", 23)
    assert decode_connect(connect(b"::ffff:127.0.0.1")) == Target("127.0.0.1", 23)


def test_longest_connect_is_the_limit() -> None:
    """The largest host that can be named fits the size limit of CONNECT."""
    longest = target_of("a" * 63 + "." + "b" * 63 + "." + "c" * 63 + "." + "d" * 61, 65535)
    assert len(longest.host) == 253 <= MAX_HOST
    assert len(encode_connect(longest)) <= MAX_SIZE[Command.CONNECT]
    assert decode_connect(encode_connect(longest)) == longest


def test_reset_golden() -> None:
    """Reason and text, as in the vectors."""
    assert decode_reset(PAYLOAD["RESET refused"]) == (Ended.REFUSED, "")
    assert decode_reset(PAYLOAD["RESET with text"]) == (Ended.UNREACHABLE, "DNS?")
    assert encode_reset(Ended.UNREACHABLE, "DNS?") == PAYLOAD["RESET with text"]


def test_reset_of_strangers() -> None:
    """No reason is an error; an unknown one, or "closed", which is no reset, counts as a protocol fault."""
    with pytest.raises(RemoteError):
        decode_reset(b"")
    assert decode_reset(b"\xc8why") == (Ended.PROTOCOL, "reason 200: why")
    assert decode_reset(b"\x00") == (Ended.PROTOCOL, "")


def test_text_is_cut_and_made_safe() -> None:
    """200 bytes at most both ways, never half a character, nothing unprintable."""
    assert len(encode_reset(Ended.IDLE, "é" * 300)) == 1 + MAX_TEXT
    assert len(encode_reset(Ended.IDLE, "x" + "é" * 300)) == MAX_TEXT  # 199 bytes: the last is whole
    _, text = decode_reset(b"\x01ok\x1b[31m\r\n\xff" + b"x" * 300)
    assert text.startswith("ok?[31m??\ufffdx") and len(text) <= MAX_TEXT and text.isprintable()


def test_goaway_golden() -> None:
    """Reason, seconds and text, as in the vector."""
    payload = PAYLOAD["GOAWAY, back in 300 s"]
    assert decode_goaway(payload) == (GoAway.STOPPING, 300, "bye", "")
    assert encode_goaway(GoAway.STOPPING, 300, "bye") == payload
    assert len(encode_goaway(GoAway.DENIED, 0, "x" * 999)) == 203
    assert len(encode_goaway(GoAway.DENIED, 0, "x" * 999, "g" * 263)) == MAX_SIZE[Command.GOAWAY]


def test_a_goaway_names_a_place() -> None:
    """Behind its text, which has no zero of its own; what is no place there is none."""
    payload = encode_goaway(GoAway.STOPPING, 7, "a\0b", "gate-2:2065")
    assert payload == b"\x01\x00\x07a?b\x00gate-2:2065"
    assert decode_goaway(payload) == (GoAway.STOPPING, 7, "a?b", "gate-2:2065")
    for odd in (b"", b"gate 2", b"g\xc3\xa4te:1", b"gate\0:1", b"g" * 264, b"gate:1\n"):
        assert decode_goaway(b"\x01\x00\x07hm\0" + odd) == (GoAway.STOPPING, 7, "hm", "")


def test_goaway_of_strangers() -> None:
    """A cut one is an error; an unknown reason counts as a protocol fault."""
    with pytest.raises(RemoteError):
        decode_goaway(b"\x01\x00")
    assert decode_goaway(b"\x63\x00\x05hm") == (GoAway.PROTOCOL, 5, "reason 99: hm", "")


def test_window_golden() -> None:
    """Credit, as in the vectors."""
    assert decode_window(PAYLOAD["WINDOW of 256 KiB"]) == 262144
    assert decode_window(PAYLOAD["WINDOW, the largest"]) == MAX_CREDIT == 2**31 - 1
    assert encode_window(262144) == PAYLOAD["WINDOW of 256 KiB"]


@pytest.mark.parametrize(
    "payload", [b"\0\0\0\0", b"\x80\0\0\0", b"\xff\xff\xff\xff", b"", b"\0\0\1", b"\0\0\0\0\1"]
)
def test_f21_window_of_zero_or_too_much(payload: bytes) -> None:
    """Zero, more than 2^31-1, and any other size than four bytes are refused."""
    with pytest.raises(RemoteError, match="WINDOW"):
        decode_window(payload)


@pytest.mark.parametrize("credit", [0, -1, MAX_CREDIT + 1])
def test_we_announce_no_such_window(credit: int) -> None:
    """Our own wrong credit is a bug, not a frame."""
    with pytest.raises(LocalError):
        encode_window(credit)


def test_tlvs_golden() -> None:
    """The serial of the HELLO vector; unknown types are handed on for the reader to skip."""
    assert list(decode_tlvs(PAYLOAD["HELLO with serial"])) == [(Tlv.SERIAL, b"plc-7")]
    assert encode_tlvs([(Tlv.SERIAL, b"plc-7")]) == PAYLOAD["HELLO with serial"]
    assert list(decode_tlvs(b"")) == []
    assert list(decode_tlvs(b"\xc8\x00\x01\x01a")) == [(200, b""), (1, b"a")]


@pytest.mark.parametrize("payload", [b"\x01", b"\x01\x05plc", b"\x01\x00\x02", b"\x01\x01"])
def test_cut_tlvs(payload: bytes) -> None:
    """An entry that ends after the payload does is refused."""
    with pytest.raises(RemoteError, match="cut"):
        list(decode_tlvs(payload))


def test_we_send_no_value_over_255_bytes() -> None:
    """The length field has one byte."""
    assert list(decode_tlvs(encode_tlvs([(4, b"x" * 255)]))) == [(4, b"x" * 255)]
    with pytest.raises(LocalError, match="256"):
        encode_tlvs([(4, b"x" * 256)])


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=255)), max_size=10))
def test_tlvs_round_trip(entries: list[tuple[int, bytes]]) -> None:
    """Any entries come back, in order."""
    assert list(decode_tlvs(encode_tlvs(entries))) == entries


NUMBER = re.compile(r"(^|\.)([0-9]+|0x[0-9a-f]*)$")
LABEL = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,10}[a-z0-9_])?", fullmatch=True)
HOST = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.lists(LABEL, min_size=1, max_size=4).map(".".join).filter(lambda name: not NUMBER.search(name)),
)


@given(HOST, st.integers(1, 65535))
def test_connect_round_trip(host: str, port: int) -> None:
    """Any target survives the wire, and its written form reads back as itself."""
    target = target_of(host, port)
    assert decode_connect(encode_connect(target)) == target
    assert parse_target(str(target)) == target


@given(st.sampled_from([each for each in Ended if each]), st.text(max_size=60))
def test_reset_round_trip(reason: Ended, text: str) -> None:
    """Reason always, text as far as it is printable and short."""
    decoded, seen = decode_reset(encode_reset(reason, text))
    assert decoded is reason and (seen == text or not text.isprintable() or len(text.encode()) > MAX_TEXT)


@given(st.sampled_from(list(GoAway)), st.integers(0, 65535), st.text(max_size=60))
def test_goaway_round_trip(reason: GoAway, seconds: int, text: str) -> None:
    """Reason and seconds always come back."""
    assert decode_goaway(encode_goaway(reason, seconds, text))[:2] == (reason, seconds)


@given(st.integers(1, MAX_CREDIT))
def test_window_round_trip(credit: int) -> None:
    """Any credit comes back."""
    assert decode_window(encode_window(credit)) == credit


@pytest.mark.parametrize(
    "decode",
    [decode_connect, decode_goaway, decode_reset, decode_window, lambda data: list(decode_tlvs(data))],
)
@given(data=st.binary(max_size=300))
def test_f24_random_payloads_raise_nothing_but_remote_error(
    decode: Callable[[bytes], object], data: bytes
) -> None:
    """Every payload decoder takes garbage, or refuses it with a text that is safe to log."""
    try:
        decode(data)
    except RemoteError as error:
        assert str(error).isprintable() and len(str(error)) < 500


def test_the_recorded_command_to_connect_is_well_formed() -> None:
    """The M3DA vectors share their envelope, and the length byte of the payload is right (0x25 is 36)."""
    envelope = M3DA_NOTHING[:-2]
    assert M3DA_COMMAND.startswith(envelope) and M3DA_COMMAND.endswith(b"TCPRemoteConnect*\x00\x00")
    assert len(M3DA_COMMAND) == len(envelope) + 1 + 36 + 1


def test_want_golden() -> None:
    """Two tickets, as in the vector, each with the number of its channel in front."""
    payload = PAYLOAD["WANT two data sockets"]
    tickets = decode_want(payload)
    assert tickets == [payload[:16], payload[16:]] == [PAYLOAD["ATTACH"], bytes(range(16, 32))]
    assert encode_want(tickets) == payload
    assert [number_of(ticket) for ticket in tickets] == [0x00010203, 0x10111213]
    assert EXACT_SIZE[Command.ATTACH] == TICKET_SIZE == 16
    assert (Feature.DATA_SOCKETS, Feature.ORIGIN) == (1, 2)


@pytest.mark.parametrize("size", [0, 1, 15, 17, 33, 16 * MAX_TICKETS + 16])
def test_want_of_strangers(size: int) -> None:
    """None, half a ticket, and more than a frame may have are refused."""
    with pytest.raises(RemoteError, match="WANT"):
        decode_want(bytes(size))


@pytest.mark.parametrize("tickets", [[], [bytes(15)], [bytes(16)] * (MAX_TICKETS + 1)])
def test_want_of_ours(tickets: list[bytes]) -> None:
    """We never say what we would not take."""
    with pytest.raises(LocalError):
        encode_want(tickets)
    assert len(decode_want(encode_want([bytes(16)] * MAX_TICKETS))) == MAX_TICKETS
