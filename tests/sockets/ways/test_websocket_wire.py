"""RFC 6455 rule by rule, both sides, whole, byte by byte and split at random; an equal of Autobahn's cases.

Left out are Autobahn's sections 9 (speed), 12 and 13 (compression, which is never agreed to).
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.protocol import OPEN
from websockets.uri import WebSocketURI

from revtunnel.ground.errors import LocalError
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ways import websocket_wire
from revtunnel.sockets.ways.websocket_wire import (
    Bytes,
    ClientEngine,
    Closed,
    Failed,
    Happening,
    Pong,
    Text,
    WebSocketLimits,
    WebSocketWire,
    close_code,
    close_reason,
    close_words,
)
from tests.support.depth import deep
from tests.support.kernel import random_cuts
from tests.support.web_frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, close, frame, frames

LIMITS = WebSocketLimits()
SIDES = ["server", "client"]
CUTS = ["whole", "byte by byte", "random"]


def wire(side: str, limits: WebSocketLimits = LIMITS, **more: Any) -> WebSocketWire:
    """Our side, open."""
    if side == "server":
        return WebSocketWire.server(limits, **more)
    uri = WebSocketURI(True, "gate.example", 443, "/", "")
    return WebSocketWire(ClientEngine(uri, state=OPEN, max_size=limits.message), limits, **more)


def pieces(data: bytes, cuts: str) -> Iterator[bytes]:
    """The bytes, cut; of many only the first and the last ones."""
    sizes = random_cuts(7, 40)
    left = len(data)
    while left:
        middle = max(0, left - 300) if len(data) - left >= 300 else 0
        size = {"whole": left, "byte by byte": 1, "random": min(left, next(sizes))}[cuts]
        size = max(size, middle)
        yield data[len(data) - left :][:size]
        left -= size


def play(
    side: str, sent: bytes, cuts: str = "whole", **more: Any
) -> tuple[list[Happening], bytes, WebSocketWire]:
    """What happens when the other side sends these bytes, and what we say to it."""
    ours = wire(side, **more)
    happened, said = [], b""
    for piece in pieces(sent, cuts):
        happened += [*ours.receive(piece)]
        said += b"".join(ours.replies())
    return happened, said, ours


Frame = tuple[int, bytes, dict[str, Any]]


class Case(NamedTuple):
    """The other side's frames as (opcode, payload, options), what happens, and what we say."""

    name: str
    sent: list[Frame]
    happens: list[Happening]
    says: list[tuple[int, bytes]]


def f(opcode: int, payload: bytes = b"", **options: Any) -> Frame:
    return opcode, payload, options


def bad(code: int) -> Failed:
    """A fault; the sentence is looked at elsewhere."""
    return Failed(code, "")


def faulty(name: str, code: int, *sent: Frame, happens: Sequence[Happening] = ()) -> Case:
    """A case that ends with our close."""
    return Case(name, [*sent], [*happens, bad(code)], [(CLOSE, b"")])


def closing(name: str, code: int, payload: bytes, reason: str = "") -> Case:
    """A close that is answered with itself."""
    return Case(name, [f(CLOSE, payload)], [Closed(code, reason)], [(CLOSE, payload)])


def code(number: int) -> bytes:
    return number.to_bytes(2, "big")


HELLO = "Hello-µ@ßöäüàá-UTF-8!!"
KOSME = bytes.fromhex("cebae1bdb9cf83cebcceb5")
SIZES = [0, 1, 125, 126, 127, 128, 65535, 65536, 131_072]
MANY = [*"\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\ufffd\uffff\U00010000\U0010ffff", "κόσμε"]
NO_UTF8 = """80 bf 8081 c0 e0 ce f0 fe ff c080 c1bf e08080 e09fbf eda080 edadbf edbfbf eda080edb080 f08080af
    f08fbfbf f4908080 f8888080 cebae1bdb9cf83cebcceb5f4908080656469746564
    cebae1bdb9cf83cebcceb5eda080656469746564 e0a0 f09f98 41c3 c328"""
FRAMING = [
    *(Case(f"1.1 text of {n}", [f(TEXT, b"*" * n)], [Text("*" * n)], []) for n in SIZES),
    *(Case(f"1.2 binary of {n}", [f(BINARY, b"\xfe" * n)], [Bytes(b"\xfe" * n)], []) for n in SIZES),
    Case("1.3 length in 16 bits that fits 7", [f(BINARY, b"x", form=16)], [Bytes(b"x")], []),
    Case("1.4 length in 64 bits that fits 7", [f(BINARY, b"x", form=64)], [Bytes(b"x")], []),
]
TEN = [b"%d" % n for n in range(10)]
PINGS = [
    Case("2.1 ping without payload", [f(PING)], [], [(PONG, b"")]),
    Case("2.2 ping", [f(PING, b"Hello, world!")], [], [(PONG, b"Hello, world!")]),
    Case("2.3 ping of no text", [f(PING, b"\x00\xff\xfe\xfd")], [], [(PONG, b"\x00\xff\xfe\xfd")]),
    Case("2.4 ping of 125", [f(PING, b"\xfe" * 125)], [], [(PONG, b"\xfe" * 125)]),
    faulty("2.5 ping of 126", 1002, f(PING, b"\xfe" * 126)),
    Case("2.7 pong that nobody asked for", [f(PONG, b"x")], [Pong(b"x")], []),
    Case("2.9 pong, then ping", [f(PONG), f(PING, b"x")], [Pong(b"")], [(PONG, b"x")]),
    Case("2.10 ten pings", [f(PING, each) for each in TEN], [], [(PONG, each) for each in TEN]),
]
RESERVED = [
    *(
        faulty(f"3.{bits} reserved bits, opcode {op}", 1002, f(op, b"x", reserved=bits))
        for bits in range(1, 8)
        for op in (TEXT, BINARY, PING, CLOSE)
    ),
    faulty(
        "3.8 reserved bits behind a good one",
        1002,
        *(f(TEXT, b"good"), f(TEXT, b"x", reserved=4), f(PING)),
        happens=[Text("good")],
    ),
    *(
        faulty(f"4 opcode {op}", 1002, f(BINARY, b"good"), f(op, b"x"), f(PING), happens=[Bytes(b"good")])
        for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)
    ),
]
FRAGMENTS = [
    faulty("5.1 ping in fragments", 1002, f(PING, b"a", last=False), f(CONT, b"b")),
    faulty("5.2 pong in fragments", 1002, f(PONG, b"a", last=False), f(CONT, b"b")),
    Case("5.3 text in two", [f(TEXT, b"one", last=False), f(CONT, b"two")], [Text("onetwo")], []),
    Case(
        "5.6 ping between fragments",
        [f(TEXT, b"1", last=False), f(PING, b"ping"), f(CONT, b"2")],
        [Text("12")],
        [(PONG, b"ping")],
    ),
    faulty("5.9 continuation of nothing", 1002, f(CONT, b"x"), f(TEXT, b"y")),
    faulty("5.10 the same, not the last", 1002, f(CONT, b"x", last=False), f(TEXT, b"y")),
    faulty("5.15 continuation after the last", 1002, f(TEXT, b"1"), f(CONT, b"2"), happens=[Text("1")]),
    faulty("5.18 a message in a message", 1002, f(TEXT, b"1", last=False), f(TEXT, b"2")),
    faulty("5.18 another in a binary one", 1002, f(BINARY, b"1", last=False), f(BINARY, b"2")),
    Case(
        "5.19 five fragments, pings between",
        [
            *(f(TEXT, b"1", last=False), f(CONT, b"2", last=False), f(PING, b"pongme 1")),
            *(f(CONT, b"3", last=False), f(CONT, b"4", last=False), f(PING, b"pongme 2"), f(CONT, b"5")),
        ],
        [Text("12345")],
        [(PONG, b"pongme 1"), (PONG, b"pongme 2")],
    ),
    Case(
        "5.21 many empty fragments",
        [f(BINARY, last=False), *[f(CONT, last=False)] * 500, f(CONT, b"x"), f(BINARY, b"y")],
        [Bytes(b"x"), Bytes(b"y")],
        [],
    ),
]
TEXTS = [
    Case("6.1 empty text in fragments", [f(TEXT, last=False), f(CONT, last=False), f(CONT)], [Text("")], []),
    Case("6.2 text", [f(TEXT, HELLO.encode())], [Text(HELLO)], []),
    Case(
        "6.2 a fragment for each byte",
        [f(TEXT, last=False), *(f(CONT, bytes((b,)), last=False) for b in HELLO.encode()), f(CONT)],
        [Text(HELLO)],
        [],
    ),
    faulty(
        "6.4 no UTF-8 in a fragment is found there",
        1007,
        *(f(TEXT, KOSME, last=False), f(CONT, b"\xf4\x90\x80\x80", last=False), f(PING)),
    ),
    *(Case(f"6.5 {text!a}", [f(TEXT, text.encode())], [Text(text)], []) for text in MANY),
    *(faulty(f"6.6 no UTF-8: {raw}", 1007, f(TEXT, bytes.fromhex(raw))) for raw in NO_UTF8.split()),
]
ASKED = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]
FORBIDDEN = [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535]
EMPTY = [Closed(1005, "")]
CLOSES = [
    Case("7.1.1 a message, then close", [f(TEXT, b"x"), f(CLOSE)], [Text("x"), *EMPTY], [(CLOSE, b"")]),
    *(
        Case(f"7.1 opcode {each} behind a close", [f(CLOSE), f(each)], EMPTY, [(CLOSE, b"")])
        for each in (CLOSE, PING, TEXT)
    ),
    Case(
        "7.1.5 within a message", [f(TEXT, b"1", last=False), f(CLOSE), f(CONT, b"2")], EMPTY, [(CLOSE, b"")]
    ),
    faulty("7.3.2 close of one byte", 1002, f(CLOSE, b"a")),
    closing("7.3.3 close with a code", 1000, code(1000)),
    closing("7.3.4 with a reason", 1000, code(1000) + b"Hi!", "Hi!"),
    closing("7.3.5 the longest", 1000, code(1000) + b"*" * 123, "*" * 123),
    faulty("7.3.6 one longer", 1002, f(CLOSE, code(1000) + b"*" * 124)),
    faulty("7.5 a reason that is no UTF-8", 1007, f(CLOSE, code(1000) + b"\xce\xba\xed\xa0\x80")),
    *(closing(f"7.7 code {each}", each, code(each)) for each in ASKED),
    *(faulty(f"7.9 no code {each}", 1002, f(CLOSE, code(each))) for each in FORBIDDEN),
]
TOO_LARGE = [
    faulty("10.1 beyond the limit, by its head", 1009, f(BINARY, b"", size=131_073)),
    faulty("10.2 a length of 2^62", 1009, f(TEXT, b"", form=64, size=1 << 62)),
    faulty("10.3 in fragments", 1009, f(BINARY, b"x" * 131_072, last=False), f(CONT, b"y")),
]
CASES = [*FRAMING, *PINGS, *RESERVED, *FRAGMENTS, *TEXTS, *CLOSES, *TOO_LARGE]


def anonymous(happened: list[Happening]) -> list[Happening]:
    """Without the sentences of faults."""
    return [bad(each.code) if isinstance(each, Failed) else each for each in happened]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rfc_6455(case: Case, side: str) -> None:
    """What happens and what is said is the case's, however the bytes come; our frames are as they must be."""
    client = side == "server"
    sent = b"".join(
        frame(opcode, payload, masked=client, **options) for opcode, payload, options in case.sent
    )
    for cuts in CUTS:
        check(case, *play(side, sent, cuts), client)


def check(case: Case, happened: list[Happening], said: bytes, ours: WebSocketWire, client: bool) -> None:
    """The other side was a client or a server."""
    assert anonymous(happened) == case.happens
    told = [*frames(said)]
    assert all(each.masked is (not client) and each.last and not each.reserved for each in told)
    fault = next((each for each in happened if isinstance(each, Failed)), None)
    if fault is None:
        assert [(each.opcode, each.payload) for each in told] == case.says
        return
    assert (told[-1].opcode, told[-1].payload[:2]) == (CLOSE, fault.code.to_bytes(2, "big"))
    assert [each.opcode for each in told] == [opcode for opcode, _ in case.says]
    assert ours.closed == (fault.code, fault.detail)
    assert fault.detail and fault.detail.isprintable() and len(fault.detail) < 200
    assert [*ours.receive(frame(TEXT, b"more", masked=client))] == []


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, CLOSE])
def test_a_frame_that_is_masked_wrongly(side: str, opcode: int) -> None:
    """A client's has to be masked, a server's must not be (RFC 6455 section 5.1)."""
    happened, _, _ = play(side, frame(opcode, b"", masked=side == "client"))
    assert anonymous(happened) == [bad(1002)]


def test_the_codes_of_the_document_are_those_that_are_said() -> None:
    """Each code in the table at the head of the module."""
    rows = [line.split(None, 1) for line in (websocket_wire.__doc__ or "").splitlines()]
    codes = {int(row[0]) for row in rows if len(row) == 2 and row[0].isdigit()}
    assert codes == {1000, 1002, websocket_wire.UNSUPPORTED, 1007, 1009, websocket_wire.CUT, 4001}


# -- what is ours beside the RFC's


@pytest.mark.parametrize("side", SIDES)
def test_a_stream_has_no_borders(side: str) -> None:
    """Fragments are passed on as they come, and nothing of them is held."""
    masked = side == "server"
    sent = [
        frame(BINARY, b"one", masked=masked, last=False),
        frame(CONT, b"", masked=masked, last=False),
        frame(CONT, b"two", masked=masked),
        frame(BINARY, b"three", masked=masked),
    ]
    happened, _, _ = play(side, b"".join(sent), streams=True)
    assert happened == [Bytes(b"one"), Bytes(b"two"), Bytes(b"three")]


def test_texts_beside_a_stream_have_a_limit_of_their_own() -> None:
    """Judged as they come: the fragment that passes it is the last."""
    good = frame(TEXT, b"x" * 16, masked=True)
    more = frame(TEXT, b"x" * 10, masked=True, last=False) + frame(CONT, b"x" * 7, masked=True, last=False)
    happened, _, _ = play("server", good + more, streams=True, text=16)
    assert happened == [Text("x" * 16), Failed(1009, "text of 17 bytes, limit 16")]


def test_answers_to_pings_that_nobody_takes_do_not_pile_up() -> None:
    """The RFC's own way: only the last is answered; a close stays."""
    ours = wire("server")
    for n in range(1000):
        assert [*ours.receive(frame(PING, b"%0100d" % n, masked=True))] == []
        assert ours.waiting <= LIMITS.pongs + 102
    [*ours.receive(close(1000, masked=True))]
    told = [*frames(b"".join(ours.replies()))]
    assert told[-2].payload == b"%0100d" % 999
    assert told[-1].opcode == CLOSE


@pytest.mark.parametrize("side", SIDES)
def test_what_we_say(side: str) -> None:
    """Messages, pieces of messages, pings, a close; then nothing more."""
    ours = wire(side)
    said = [
        ours.binary(memoryview(b"data")),
        ours.text(b"te", True, False),
        ours.ping(b"p"),
        ours.text(b"", False, False),
        ours.text(b"xt", False, True),
        ours.close(4011, "link-lost"),
        ours.close(1000),
        ours.ping(b"late"),
    ]
    told = [(each.opcode, each.payload, each.last) for each in frames(b"".join(said))]
    assert told == [
        (BINARY, b"data", True),
        (TEXT, b"te", False),
        (PING, b"p", True),
        (CONT, b"", False),
        (CONT, b"xt", True),
        (CLOSE, b"\x0f\xablink-lost", True),
    ]
    assert {each.masked for each in frames(b"".join(said))} == {side == "client"}
    with pytest.raises(LocalError):
        ours.binary(b"late")


@pytest.mark.parametrize("side", SIDES)
def test_what_is_under_way_when_we_close_is_delivered(side: str) -> None:
    """Until the other side's close comes."""
    ours = wire(side)
    ours.close(1000)
    masked = side == "server"
    sent = frame(BINARY, b"under way", masked=masked) + close(1000, masked=masked)
    assert [*ours.receive(sent)] == [Bytes(b"under way"), Closed(1000, "")]
    assert ours.replies() == []


def test_codes_and_endings() -> None:
    """4000 + the number; 1000 only in order; no other code looks like it."""
    assert {ended: close_code(ended) for ended in Ended}[Ended.CLOSED] == 1000
    assert [close_code(ended) for ended in Ended if ended] == [4000 + ended for ended in Ended if ended]
    assert close_words(4001, "refused") == "4001 refused"
    assert close_words(4011, "link-lost: gone\n") == "4011 link-lost (link-lost: gone?)"
    assert close_words(1009, "") == "1009 message too big"
    assert close_words(4999, "") == "4999"


@given(st.text(max_size=200))
def test_a_reason_always_fits(text: str) -> None:
    """123 bytes of UTF-8 without half a character."""
    reason = close_reason(text)
    assert len(reason.encode()) <= 123 and reason.isprintable()
    assert wire("client").close(1011, text)


@given(
    st.lists(
        st.tuples(st.sampled_from([TEXT, BINARY]), st.text(max_size=300), st.integers(1, 50)), max_size=8
    ),
    st.sampled_from(SIDES),
    st.data(),
)
@settings(max_examples=deep(60), deadline=None)
def test_what_one_says_the_other_hears(
    messages: list[tuple[int, str, int]], side: str, data: st.DataObject
) -> None:
    """Messages in any pieces, bytes cut anywhere, pings between: the same messages, in order."""
    ours, theirs = wire(side), wire(SIDES[side == "server"])
    sent, wanted = b"", []
    for opcode, text, size in messages:
        raw = text.encode()
        cut = [raw[at : at + size] for at in range(0, len(raw), size)] or [b""]
        say = ours.text if opcode == TEXT else ours.binary
        for n, piece in enumerate(cut):
            sent += say(piece, n == 0, n == len(cut) - 1) + ours.ping(b"")
        wanted.append(Text(text) if opcode == TEXT else Bytes(raw))
    heard = []
    while sent:
        size = data.draw(st.integers(1, len(sent)))
        heard += [*theirs.receive(sent[:size])]
        sent = sent[size:]
    assert heard == wanted


@given(st.binary(max_size=400), st.sampled_from(SIDES))
@settings(max_examples=deep(200), deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes, side: str) -> None:
    """Never an exception; after a fault nothing is told any more."""
    happened, said, _ = play(side, data)
    assert not any(isinstance(each, Failed | Closed) for each in happened[:-1])
    assert all(each.last for each in frames(said))
