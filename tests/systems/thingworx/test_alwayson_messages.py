"""AlwaysOn: the page's golden bytes, limits, wrong bytes, parts, values, tunnels; and anything at all."""

import base64
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.systems.thingworx import alwayson_messages
from revtunnel.systems.thingworx.alwayson_messages import (
    CHUNK,
    FRAME,
    IDLE,
    NOTHING,
    AlwaysOnCode,
    AlwaysOnMessage,
    AlwaysOnParts,
    AlwaysOnReply,
    AlwaysOnRequest,
    BaseType,
    Binding,
    complete_tunnel,
    decode_alwayson,
    decode_auth,
    decode_bind,
    decode_reply,
    decode_request,
    decode_tunnel,
    encode_alwayson,
    encode_auth,
    encode_bind,
    encode_reply,
    encode_request,
    encode_tunnel,
    start_tunnel,
    tunnel_command,
)

C = AlwaysOnCode
# next/remote-sessions.md section 4 [R, S]
AUTH = bytes.fromhex("0114 00000001 00000000 ffffffff 00 01 06 6170704b6579 0e 6d792d6170702d6b65792d313233")
ANSWER = bytes.fromhex("0140 00000001 00000000 00001234 00 00 ff")
BIND = bytes.fromhex("010a 00000002 00000000 00001234 00 00 0001 06 526f626f7431")
DISCONNECT = bytes.fromhex(
    "0a06526f626f7431021554756e6e656c436f6d6d616e6446726f6d45646765000501 03746964000000 0001"
    "07636f6d6d616e6400000000 000100020003542d31000a444953434f4e4e45435400"
)
KEY = "my-app-key-123"


def fields_of(body: bytes) -> object:
    """The parameters of a request."""
    return AlwaysOnRequest("a", "b", body).fields()


# -- the page's bytes


def test_auth() -> None:
    """The device's first words; its session is not known yet."""
    message = decode_alwayson(AUTH)
    assert message == AlwaysOnMessage(C.AUTH, 1, 0xFFFFFFFF, AUTH[15:])
    assert decode_auth(message.body) == ("appKey", KEY)
    assert encode_alwayson(AlwaysOnMessage(C.AUTH, 1, 0xFFFFFFFF, encode_auth("appKey", KEY))) == AUTH


def test_answer() -> None:
    """No reason, nothing; its session number counts from then on."""
    message = decode_alwayson(ANSWER)
    assert (message.code, message.request, message.session) == (C.SUCCESS, 1, 0x1234)
    assert decode_reply(message.body) == AlwaysOnReply("", NOTHING)
    assert encode_alwayson(AlwaysOnMessage(C.SUCCESS, 1, 0x1234, encode_reply(AlwaysOnReply("")))) == ANSWER


def test_bind() -> None:
    """One name, no gateway."""
    message = decode_alwayson(BIND)
    assert (message.code, message.request, message.session) == (C.BIND, 2, 0x1234)
    assert decode_bind(message.body) == Binding(("Robot1",))
    assert encode_alwayson(AlwaysOnMessage(C.BIND, 2, 0x1234, encode_bind(Binding(("Robot1",))))) == BIND


def test_disconnect() -> None:
    """What the edge says when the service has ended."""
    request = decode_request(DISCONNECT)
    assert (request.entity_type, request.entity) == (0x0A, "Robot1")
    assert (request.characteristic, request.name) == (2, "TunnelCommandFromEdge")
    assert request.fields() == {"tid": "T-1", "command": "DISCONNECT"}
    assert encode_request(request) == DISCONNECT
    ours = tunnel_command("Robot1", "T-1", "DISCONNECT")
    assert encode_request(ours._replace(name="TunnelCommandFromEdge")) == DISCONNECT


def test_start_tunnel() -> None:
    """The page's fields, with an idle clock that never runs out and one connect."""
    request = start_tunnel("Robot1", "t" * 32, "127.0.0.1", 22)
    again = decode_request(encode_request(request))
    assert (again.entity, again.name) == ("Robot1", "StartTunnel")
    fields = again.fields()
    assert json.loads(str(fields.pop("connection"))) == {"host": "127.0.0.1", "port": 22, "num_connects": 1}
    assert fields == {
        "tid": "t" * 32,
        "type": "tcp",
        "chunksize": CHUNK,
        "idle_timeout": IDLE,
        "read_timeout": 30_000,
    }
    assert (CHUNK, IDLE) == (8192, 86_400_000)
    # an integer is type 0x16 in the shape and in the row
    assert bytes.fromhex("01 096368756e6b73697a65 00 16 0000") in request.params
    assert bytes.fromhex("16 00002000 16 05265c00 16 00007530") in request.params


def test_complete_tunnel() -> None:
    """With the peer's name, which must not be missing."""
    fields = complete_tunnel("Robot1", "T-1", "revtunnel", "client-closed").fields()
    assert fields == {"tid": "T-1", "peer_name": "revtunnel", "connection": '{"reason":"client-closed"}'}


def test_the_tables_of_the_document_are_those_of_the_code() -> None:
    """Codes and types of values."""
    rows = [line.split() for line in (alwayson_messages.__doc__ or "").splitlines()]
    named = {
        row[1]: int(row[0], 16) for row in rows if len(row) > 1 and len(row[0]) == 2 and row[1].isupper()
    }
    assert named == {**{each.name: each for each in C}, **{each.name: each for each in BaseType}}
    requests = {row[1] for row in rows if len(row) > 2 and row[2].rstrip(":") == "request"}
    answers = {row[1] for row in rows if len(row) > 2 and row[2] == "answer"}
    assert requests == {each.name for each in C if each.is_request}
    assert answers == {each.name for each in C if each.is_reply}


# -- limits and wrong bytes


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "0 bytes"),
        (AUTH[:14], "14 bytes, 15 are its head"),
        (b"\2" + AUTH[1:], "version 2"),
        (AUTH[:14] + b"\2", "multipart 2"),
        (b"\1\x99" + AUTH[2:], "code 0x99"),
        (AUTH + b"x" * 16_384, "limit 16384"),
    ],
)
def test_what_is_no_message(data: bytes, says: str) -> None:
    """Judged by its size and its head."""
    with pytest.raises(RemoteError, match=says):
        decode_alwayson(data)


@pytest.mark.parametrize("golden", [AUTH[15:], BIND[15:]], ids=["auth", "bind"])
def test_half_a_body_and_more_than_one(golden: bytes) -> None:
    """Cut anywhere, or with bytes behind it."""
    decode = decode_auth if golden == AUTH[15:] else decode_bind
    for size in range(len(golden)):
        with pytest.raises(RemoteError):
            decode(golden[:size])
    with pytest.raises(RemoteError, match="1 bytes behind"):
        decode(golden + b"\0")


def test_half_parameters() -> None:
    """Cut anywhere they cannot be read, and what asks for them says so."""
    request = decode_request(DISCONNECT)
    for size in range(len(request.params)):
        with pytest.raises(RemoteError):
            request._replace(params=request.params[:size]).fields()
    for size in range(len(DISCONNECT) - len(request.params)):
        with pytest.raises(RemoteError):
            decode_request(DISCONNECT[:size])


def test_a_string_of_128_bytes_has_the_long_form() -> None:
    """The top bit of the short one is what tells them apart."""
    assert encode_reply(AlwaysOnReply("x" * 127))[1:2] == b"\x7f"
    assert encode_reply(AlwaysOnReply("x" * 128))[1:5] == bytes.fromhex("80000080")
    assert decode_reply(encode_reply(AlwaysOnReply("x" * 128))) == AlwaysOnReply("x" * 128)


@pytest.mark.parametrize(
    ("decode", "body", "says"),
    [
        (decode_auth, "02 0161 0162 0163 0164", "another number of claims"),
        (decode_auth, "01 02c328 00", "no UTF-8"),
        (decode_auth, "01 ffffffff", "2147483647 bytes wanted"),
        (decode_bind, "00 0101", "257 names, limit 256"),
        (fields_of, "63", "type 99"),
        (fields_of, "0000", "one row wanted"),
        (fields_of, "05 00 00", "one row wanted"),
        (fields_of, "05 00 01 0001", "row 1 of 1 values, 0 wanted"),
        (fields_of, "05 00" + "010000" * 1025 + "00", "limit 1024"),
        (
            fields_of,
            "05" + "01 0161 00 05 0000 00 01 0001 05" * 8,
            "5 deep, limit 4",
        ),
    ],
)  # fmt: skip
def test_limits_of_bodies(decode: object, body: str, says: str) -> None:
    """Judged before what they count is read."""
    with pytest.raises(RemoteError, match=says):
        decode(bytes.fromhex(body))  # type: ignore[operator]


def test_a_message_of_ours_fits_a_frame() -> None:
    """We send none in parts."""
    with pytest.raises(LocalError, match="limit 8192"):
        encode_alwayson(AlwaysOnMessage(C.POST, 1, 1, b"x" * (FRAME - 14)))
    assert len(encode_alwayson(AlwaysOnMessage(C.POST, 1, 1, b"x" * (FRAME - 15)))) == FRAME


def test_a_request_that_nobody_reads_may_carry_anything() -> None:
    """It is answered NOT_FOUND by its entity and name; only who asks for its fields reads them."""
    body = bytes.fromhex("0a 0161 01 0170 01 0168 0176 09 deadbeef")
    request = decode_request(body)
    assert request.params == bytes.fromhex("09 deadbeef")  # behind one header, a name and a value
    assert (request.entity, request.characteristic, request.name) == ("a", 1, "p")
    with pytest.raises(RemoteError):
        request.fields()
    assert AlwaysOnRequest("a", "b").fields() == {}
    reply = decode_reply(bytes.fromhex("01 026e6f 05 00 00"))
    assert reply == AlwaysOnReply("no", bytes.fromhex("05 00 00"))


def test_values_of_every_type() -> None:
    """With aspects of fields, and a table in a table."""
    body = (
        "05"
        + "01 0161 0164 01 0001 0178 16 00000007"
        + "".join(
            f"01 01{name:02x} 00 {kind} 0000"
            for name, kind in zip(b"bcdefg", ("02", "03", "16", "ff", "05", "00"), strict=True)
        )
    )
    body += "00 01 0007 01 3ff8000000000000 02 01 03 0000018bcfe56800 16 ffffffff ff"
    body += "05 01 0178 00 00 0000 00 01 0001 00 0179 00"
    long = "80000080" + "7a" * 128
    fields = AlwaysOnRequest("a", "b", bytes.fromhex(body + "00" + long + "00")).fields()
    assert fields == {
        "a": 1.5,
        "b": True,
        "c": 1_700_000_000_000,
        "d": -1,
        "e": None,
        "f": [{"x": "y"}],
        "g": "z" * 128,
    }  # fmt: skip


# -- parts


def part(number: int, parts: int, data: bytes, request: int = 7, size: int = 8192) -> AlwaysOnMessage:
    """A part of a POST to Robot1."""
    head = number.to_bytes(2, "big") + parts.to_bytes(2, "big") + size.to_bytes(2, "big")
    return AlwaysOnMessage(C.POST, request, 1, head + DISCONNECT[:8] + data, multipart=True)


def test_parts_become_one_message() -> None:
    """In any order, twice or not; a request's entity is said with each."""
    parts = AlwaysOnParts()
    whole = decode_alwayson(AUTH)
    assert parts.receive(whole) is whole
    cut = DISCONNECT[8:40], DISCONNECT[40:]
    assert parts.receive(part(2, 2, cut[1])) is None
    assert parts.receive(part(2, 2, b"again")) is None
    found = parts.receive(part(1, 2, cut[0]))
    assert found == AlwaysOnMessage(C.POST, 7, 1, DISCONNECT)
    assert decode_request(found.body).fields()["command"] == "DISCONNECT"
    reply = AlwaysOnMessage(C.SUCCESS, 9, 1, bytes.fromhex("0001 0001 2000 00 ff"), multipart=True)
    assert parts.receive(reply) == AlwaysOnMessage(C.SUCCESS, 9, 1, b"\0\xff")
    assert len(parts) == 0


@pytest.mark.parametrize(
    ("number", "parts", "size", "says"),
    [
        (0, 2, 8192, "part 0"),
        (3, 2, 8192, "part 3 of 2"),
        (1, 65, 1, "limit 64"),
        (1, 3, 8192, "limit 16384"),
    ],
)
def test_wrong_parts(number: int, parts: int, size: int, says: str) -> None:
    """Judged by their head."""
    held = AlwaysOnParts()
    with pytest.raises(RemoteError, match=says):
        held.receive(part(number, parts, b"x", size=size))
    assert len(held) == 0


def test_parts_that_do_not_fit_their_beginning() -> None:
    """Another number of parts, or more bytes than were said."""
    held = AlwaysOnParts()
    assert held.receive(part(1, 2, b"x")) is None
    with pytest.raises(RemoteError, match="of 3, 2 at first"):
        held.receive(part(2, 3, b"x", size=1))
    held.receive(part(1, 3, b"x" * 9000, size=1))
    with pytest.raises(RemoteError, match="limit 16384"):
        held.receive(part(2, 3, b"x" * 9000, size=1))
    with pytest.raises(RemoteError, match="wanted at"):
        held.receive(AlwaysOnMessage(C.POST, 1, 1, b"\0\1\0", multipart=True))
    assert len(held) == 0


def test_only_so_many_messages_wait_for_their_parts() -> None:
    """The oldest is forgotten for the next."""
    held = AlwaysOnParts(most=3)
    for request in range(5):
        assert held.receive(part(1, 2, b"x", request)) is None
    assert len(held) == 3
    assert held.receive(part(2, 2, b"y", 4)) is not None
    assert held.receive(part(2, 2, b"y", 0)) is None


# -- tunnels


def test_a_tunnel_is_base64_in_pieces() -> None:
    """8,176 bytes are 10,904 characters, as the SDK says them."""
    data = os.urandom(20_000)
    texts = [*encode_tunnel(data)]
    assert [len(text) for text in texts] == [10_904, 10_904, len(base64.b64encode(data[16_352:]))]
    assert b"".join(map(decode_tunnel, texts)) == data
    assert [*encode_tunnel(b"")] == []


@pytest.mark.parametrize("text", ["abc", "ab\ncd===", "äöü=", "a===", "ab_-"])
def test_what_is_no_base64(text: str) -> None:
    """Refused in words."""
    with pytest.raises(RemoteError, match="no base64"):
        decode_tunnel(text)


# -- anything


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=200), st.integers(-(2**31), 2**31 - 1))
def test_what_is_written_is_read(one: str, two: str, three: str, number: int) -> None:
    """Strings of any length in every body."""
    assert decode_auth(encode_auth(one, two)) == (one, two)
    for gateway in (None, (one, two)):
        assert decode_bind(encode_bind(Binding((three, one), gateway))) == Binding((three, one), gateway)
    request = tunnel_command(one, two, three)
    assert decode_request(encode_request(request)) == request
    assert request.fields() == {"tid": two, "command": three}
    assert decode_reply(encode_reply(AlwaysOnReply(one))) == AlwaysOnReply(one)
    assert alwayson_messages._service(one, two, {"n": number}).fields() == {"n": number}


@given(
    st.sampled_from(C),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=300),
    st.booleans(),
)
def test_any_message_comes_back(
    code: AlwaysOnCode, request: int, session: int, endpoint: int, body: bytes, multipart: bool
) -> None:
    """Head and body."""
    message = AlwaysOnMessage(code, request, session, body, endpoint, multipart)
    assert decode_alwayson(encode_alwayson(message)) == message


@given(st.binary(max_size=300), st.integers(0, 5))
def test_any_bytes_are_read_or_refused(data: bytes, which: int) -> None:
    """A RemoteError or a value, nothing else."""
    readers = [
        decode_alwayson,
        decode_auth,
        decode_bind,
        lambda body: decode_request(body).fields(),
        decode_reply,
        lambda body: AlwaysOnParts().receive(AlwaysOnMessage(C.POST, 1, 1, body, multipart=True)),
    ]
    try:
        readers[which](data)  # type: ignore[operator]
    except RemoteError as error:
        assert len(str(error)) < 300
