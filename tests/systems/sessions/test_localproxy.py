"""AWS's localproxy: the page's bytes, cuts, limits, wrong bytes; its three versions; any order of events."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from revtunnel.ground.errors import LocalError, RemoteError
from revtunnel.systems.sessions import localproxy
from revtunnel.systems.sessions.localproxy import (
    MAX_CONNECTIONS,
    MAX_DATA,
    MAX_MESSAGE,
    Arrived,
    Begun,
    Cut,
    LocalproxyConnections,
    LocalproxyDecoder,
    LocalproxyMessage,
    LocalproxyType,
    encode_localproxy,
)
from tests.support.depth import deep

T, M = LocalproxyType, LocalproxyMessage
NEXT, WIRE = "next/remote-sessions.md 5 [R]", "wire/remote-sessions.md 3 [R]"
# source, bytes, what they say
VECTORS = [
    (NEXT, "0008 0805 320453534831", M(T.SERVICE_IDS, names=("SSH1",))),
    (WIRE, "000d 0805 320453534831 3203574542", M(T.SERVICE_IDS, names=("SSH1", "WEB"))),
    (NEXT, "000c 08021001 2a0453534831 3801", M(T.STREAM_START, 1, service="SSH1", number=1)),
    (NEXT, "000c 08061001 2a0453534831 3802", M(T.CONNECTION_START, 1, service="SSH1", number=2)),
    (NEXT, "000c 08071001 2a0453534831 3801", M(T.CONNECTION_RESET, 1, service="SSH1", number=1)),
    (WIRE, "0013 08011001 220568656c6c6f 2a0453534831 3801", M(T.DATA, 1, b"hello", "SSH1", number=1)),
    (NEXT, "000a 08021001 2a0453534831", M(T.STREAM_START, 1, service="SSH1")),
    (NEXT, "000a 08031001 2a0453534831", M(T.STREAM_RESET, 1, service="SSH1")),
    (NEXT, "0004 08021001", M(T.STREAM_START, 1)),
    (NEXT, "0004 08021002", M(T.STREAM_START, 2)),
]
START_V3, NEXT_V3, END_V3 = (bytes.fromhex(VECTORS[at][1]) for at in (2, 3, 4))
START_V2, END_V2, START_V1 = (bytes.fromhex(VECTORS[at][1]) for at in (6, 7, 8))


def decode(data: bytes, cut: int = 1 << 20) -> list[LocalproxyMessage]:
    """All messages, ``cut`` bytes at a time."""
    decoder = LocalproxyDecoder()
    return [each for at in range(0, len(data), cut) for each in decoder.receive(data[at : at + cut])]


def framed(body: str) -> bytes:
    """A body in hexadecimal behind its length."""
    data = bytes.fromhex(body)
    return len(data).to_bytes(2, "big") + data


# -- bytes


@pytest.mark.parametrize(("source", "wire", "message"), VECTORS)
def test_the_bytes_of_the_page(source: str, wire: str, message: LocalproxyMessage) -> None:
    """Both ways, byte for byte; with more behind them, and cut anywhere."""
    data = bytes.fromhex(wire)
    assert encode_localproxy(message) == data
    for cut in (1 << 20, 1, 3):
        assert decode(data * 3 + data[:-1], cut) == [message] * 3


def test_the_types_of_the_document_are_those_of_the_code() -> None:
    """And so are its fields, with their limits."""
    rows = [line.split() for line in (localproxy.__doc__ or "").splitlines()]
    named = {int(row[0]): row[1] for row in rows if len(row) > 2 and row[0].isdigit()}
    assert {number: name for number, name in named.items() if name.isupper()} == {
        each: each.name for each in T
    }
    fields = {int(row[0]): row[1] for row in rows if row and row[0].isdigit() and row[1].islower()}
    assert fields.keys() == localproxy._WIRE.keys()
    assert {number for number, how in fields.items() if how == "varint"} == {1, 2, 3, 7}


def test_the_largest_message_fits() -> None:
    """64,512 bytes of data with every field at its largest; one more is a bug of ours."""
    largest = M(T.DATA, 2**31 - 1, b"x" * MAX_DATA, "s" * 128, (), 2**32 - 1, True)
    data = encode_localproxy(largest)
    assert len(data) <= 2 + MAX_MESSAGE
    assert decode(data, 1000) == [largest]
    with pytest.raises(LocalError):
        encode_localproxy(largest._replace(data=b"x" * (MAX_DATA + 1)))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("08", "without its end"),
        ("08" + "ff" * 10 + "01", "without its end"),
        ("0a0101", "field 1 with wire type 2"),
        ("2001", "field 4 with wire type 0"),
        ("0002", "field 0"),
        ("0b", "field 1 with wire type 3"),
        ("9b01", "of .* bytes"),  # a group, which nobody has used for ten years
        ("2205616263", "field 4 of 5 bytes, 3 are left"),
        ("22ffffffff0f", "field 4 of 4294967295 bytes"),
        ("4100", "field 8 of 8 bytes, 1 are left"),
        ("2a02c328", "no UTF-8"),
        ("2a8101" + "61" * 129, "service of 129 bytes, limit 128"),
        ("0805" + "320161" * 17, "17 localproxy services, limit 16"),
        ("080210ffffffffffffffffff01", "out of range"),
        ("0802108080808008", "out of range"),
        ("0802100138ffffffffffff01", "out of range"),
        ("22" + "81f803" + "78" * (MAX_DATA + 1), "data of 64513 bytes, limit 64512"),
    ],
)
def test_what_is_no_message(body: str, says: str) -> None:
    """Each fault in words, behind the good ones."""
    decoder = LocalproxyDecoder()
    good = decoder.receive(START_V1 + framed(body))
    assert next(good) == VECTORS[8][2]
    with pytest.raises(RemoteError, match=says) as caught:
        next(good)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 200


def test_a_length_is_judged_before_what_it_counts() -> None:
    """By two bytes."""
    with pytest.raises(RemoteError, match="65025 bytes, limit 65024"):
        decode((MAX_MESSAGE + 1).to_bytes(2, "big"))
    assert decode(MAX_MESSAGE.to_bytes(2, "big")) == []


def test_what_is_unknown_is_skipped_and_what_comes_twice_counts_last() -> None:
    """As protobuf has it."""
    body = "0801 0802 1001 4008 4a0161 4d00000000 4100000000 00000000 2a0161 2a0162"
    assert decode(framed(body)) == [M(T.STREAM_START, 1, service="b")]


@given(
    st.builds(
        M,
        st.integers(0, 2**31),
        st.integers(0, 2**31 - 1),
        st.binary(max_size=500),
        st.text(max_size=30),
        st.lists(st.text(min_size=1, max_size=10), max_size=16).map(tuple),
        st.integers(0, 2**32 - 1),
        st.booleans(),
    ),
    st.integers(1, 50),
)
def test_any_message_comes_back(message: LocalproxyMessage, cut: int) -> None:
    """What is written is read."""
    assert decode(encode_localproxy(message), cut) == [message]


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """A RemoteError or messages, nothing else."""
    for stream in (data, len(data).to_bytes(2, "big") + data):
        for connections in (LocalproxyConnections(("a",), True), LocalproxyConnections(("a",), False)):
            try:
                list(connections.receive(stream))
            except RemoteError as error:
                assert str(error).isprintable()


# -- versions


def test_a_source_of_version_3() -> None:
    """Several connections of a service, each ended by itself, answered in kind."""
    ours = LocalproxyConnections(("SSH1", "WEB"), source=True)
    assert ours.service_ids() == bytes.fromhex("000d 0805 320453534831 3203574542")
    hello = bytes.fromhex(VECTORS[5][1])
    assert [*ours.receive(START_V3 + hello + NEXT_V3)] == [
        Begun(1, "SSH1"),
        Arrived(1, b"hello"),
        Begun(2, "SSH1"),
    ]
    assert ours.data(1, b"hello") == hello
    assert ours.reset(1) == END_V3
    assert (ours.reset(1), ours.data(1, b"late")) == (b"", b"")
    assert [*ours.receive(hello + END_V3)] == []  # crossed our reset
    assert [*ours.receive(framed("08011001 2a0453534831 3802"))] == []  # no bytes are no news
    assert ours.keys == (2,)
    assert [*ours.receive(framed("08031001 2a0453534831"))] == [Cut(2)]
    with pytest.raises(RemoteError, match="stream 1, which does not run"):
        list(ours.receive(NEXT_V3))


def test_a_source_of_version_2() -> None:
    """One connection of a service at a time: the next one ends it."""
    ours = LocalproxyConnections(("SSH1", "WEB"), source=True)
    assert [*ours.receive(START_V2)] == [Begun(1, "SSH1")]
    assert ours.data(1, b"x") == framed("08011001 220178 2a0453534831")
    second = framed("08021002 2a0453534831")
    other = framed("08021003 2a03574542")
    assert [*ours.receive(second + other)] == [Cut(1), Begun(2, "SSH1"), Begun(3, "WEB")]
    assert ours.reset(2) == framed("08031002 2a0453534831")
    assert [*ours.receive(framed("08021004 2a0453534831"))] == [Begun(4, "SSH1")]
    assert [*ours.receive(framed("08031002 2a0453534831"))] == []  # crossed our reset: the next one stays
    assert [*ours.receive(framed("08021005 2a0453534831"))] == [Cut(4), Begun(5, "SSH1")]
    assert [*ours.receive(framed("08031005 2a0453534831"))] == [Cut(5)]
    assert [*ours.receive(framed("08031003 2a03574542"))] == [Cut(3)]
    assert ours.keys == ()


def test_a_source_of_version_1() -> None:
    """It names nothing: the first service is meant."""
    ours = LocalproxyConnections(("SSH1", "WEB"), source=True)
    assert [*ours.receive(START_V1 + framed("08011001 220178"))] == [Begun(1, "SSH1"), Arrived(1, b"x")]
    assert ours.data(1, b"y") == framed("08011001 220179")
    assert [*ours.receive(framed("08021002"))] == [Cut(1), Begun(2, "SSH1")]
    assert ours.reset(2) == framed("08031002")


def test_a_version_1_source_is_never_joined_raw_to_a_version_3_destination() -> None:
    """What the one says is said anew to the other."""
    person, device = LocalproxyConnections(("SSH1",), True), LocalproxyConnections(("SSH1",), False)
    said = b""
    for happening in person.receive(START_V1 + framed("08011001 220568656c6c6f")):
        if isinstance(happening, Begun):
            key, start = device.start(happening.service) or (0, b"")
            said += start
        elif isinstance(happening, Arrived):
            said += device.data(key, happening.data)
    assert said == START_V3 + bytes.fromhex(VECTORS[5][1])


def test_a_destination_of_version_3() -> None:
    """The first connection begins a stream, further ones join it, also when none runs any more."""
    ours = LocalproxyConnections(("SSH1",), source=False)
    assert ours.start("SSH1") == (1, START_V3)
    assert ours.start("SSH1") == (2, NEXT_V3)
    assert [*ours.receive(END_V3 + bytes.fromhex(VECTORS[5][1]))] == [Cut(1)]
    assert ours.reset(2) == framed("08071001 2a0453534831 3802")
    assert ours.start("SSH1") == (3, framed("08061001 2a0453534831 3803"))
    with pytest.raises(LocalError):
        ours.start("WEB")


@pytest.mark.parametrize(
    ("version", "start", "end"), [(2, START_V2, END_V2), (1, START_V1, framed("08031001"))]
)
def test_a_destination_of_an_older_version_has_one_at_a_time(version: int, start: bytes, end: bytes) -> None:
    """A second one would end the first: it has to wait."""
    ours = LocalproxyConnections(("SSH1",), False, version)
    assert ours.start("SSH1") == (1, start)
    assert ours.start("SSH1") is None
    assert ours.reset(1) == end
    key, said = ours.start("SSH1") or (0, b"")
    assert key == 2 and said[5] == 2  # another stream


def test_large_data_goes_in_several_messages() -> None:
    """Of 64,512 bytes each."""
    ours = LocalproxyConnections(("SSH1",), False)
    ours.start("SSH1")
    said = decode(ours.data(1, b"x" * 150_000))
    assert [len(each.data) for each in said] == [MAX_DATA, MAX_DATA, 150_000 - 2 * MAX_DATA]


def test_who_opens_too_many_or_names_another_service_is_reset() -> None:
    """At once, and nothing is told of it."""
    ours = LocalproxyConnections(("SSH1",), True)
    assert [*ours.receive(framed("08021001 2a03574542 3801"))] == []
    assert bytes(ours.replies) == framed("08071001 2a03574542 3801")
    ours.replies.clear()
    assert [*ours.receive(framed("08021005 2a0158"))] == []
    assert bytes(ours.replies) == framed("08031005 2a0158")
    ours.replies.clear()
    list(ours.receive(START_V3))
    for number in range(2, MAX_CONNECTIONS + 1):
        list(ours.receive(encode_localproxy(M(T.CONNECTION_START, 1, service="SSH1", number=number))))
    assert (len(ours.keys), bytes(ours.replies)) == (MAX_CONNECTIONS, b"")
    more = encode_localproxy(M(T.CONNECTION_START, 1, service="SSH1", number=500))
    assert [*ours.receive(more)] == []
    assert decode(bytes(ours.replies)) == [M(T.CONNECTION_RESET, 1, service="SSH1", number=500)]
    far = LocalproxyConnections(("SSH1",), False)
    assert all(far.start("SSH1") for _ in range(MAX_CONNECTIONS))
    assert far.start("SSH1") is None


@pytest.mark.parametrize(
    ("source", "sent", "says"),
    [
        (True, "0801 2a0161", "stream 0"),
        (True, "0805 320161", "SERVICE_IDS from a localproxy"),
        (False, "08021001", "STREAM_START from a localproxy"),
        (False, "08061001 3801", "CONNECTION_START from a localproxy"),
        (True, "08061001 2a0453534831", "does not run"),
        (True, "0809", "type 9, which may not be ignored"),
        (True, "", "type 0, which may not be ignored"),
    ],
)
def test_what_breaks_the_rules(source: bool, sent: str, says: str) -> None:
    """A RemoteError in words."""
    with pytest.raises(RemoteError, match=says):
        list(LocalproxyConnections(("SSH1",), source).receive(framed(sent)))


def test_what_may_be_ignored_is_and_a_session_reset_ends_all() -> None:
    """The future, and the end."""
    ours = LocalproxyConnections(("SSH1",), True)
    assert [*ours.receive(framed("0809 1801") + START_V3 + NEXT_V3 + framed("0804"))] == [
        *(Begun(1, "SSH1"), Begun(2, "SSH1"), Cut(1), Cut(2)),
    ]
    with pytest.raises(RemoteError, match="does not run"):
        list(ours.receive(NEXT_V3))
    theirs = LocalproxyConnections(("SSH1",), False)
    theirs.start("SSH1")
    assert (theirs.session_reset(), theirs.keys) == (framed("0804"), ())
    with pytest.raises(RemoteError, match="does not run"):  # it has no number of its own
        list(LocalproxyConnections(("SSH1",), True).receive(START_V3 + framed("08061001 2a0453534831")))
    with pytest.raises(RemoteError, match="begins twice"):
        list(LocalproxyConnections(("SSH1",), True).receive(START_V3 + framed("08061001 2a0453534831 3801")))


class Joined(RuleBasedStateMachine):
    """A source's user and a destination's service through our two ends, bytes delivered when they like."""

    def __init__(self) -> None:
        super().__init__()
        self.person = LocalproxyConnections(("a", "b"), source=True)
        self.device = LocalproxyConnections(("a", "b"), source=False)
        self.stock = LocalproxyConnections(("a", "b"), source=False)  # plays the stock source: it opens too
        self.service = LocalproxyConnections(("a", "b"), source=True)  # and the stock destination
        self.pairs: dict[int, int] = {}  # the person's key to the device's
        self.up = self.down = b""  # on their way to the destination, and to the source
        self.sent: dict[int, bytes] = {}
        self.got: dict[int, bytes] = {}

    @rule(service=st.sampled_from("ab"))
    def connect(self, service: str) -> None:
        """The user."""
        opened = self.stock.start(service)
        if opened is not None:
            self.sent[opened[0]] = b""
            self.to_us(opened[1])

    @precondition(lambda self: self.stock.keys)
    @rule(at=st.integers(0, 9), data=st.binary(min_size=1, max_size=50))
    def say(self, at: int, data: bytes) -> None:
        """The user."""
        key = self.stock.keys[at % len(self.stock.keys)]
        self.sent[key] += data
        self.to_us(self.stock.data(key, data))

    @precondition(lambda self: self.stock.keys)
    @rule(at=st.integers(0, 9))
    def hang_up(self, at: int) -> None:
        """The user."""
        key = self.stock.keys[at % len(self.stock.keys)]
        self.to_us(self.stock.reset(key))

    def to_us(self, data: bytes) -> None:
        """Our two ends pass it on, said anew."""
        for happening in self.person.receive(data):
            if isinstance(happening, Begun):
                key, said = self.device.start(happening.service) or (0, b"")
                self.pairs[happening.key] = key
                self.up += said
            elif isinstance(happening, Arrived):
                self.up += self.device.data(self.pairs[happening.key], happening.data)
            else:
                self.up += self.device.reset(self.pairs.pop(happening.key))
        assert not self.person.replies

    @rule(size=st.integers(1, 60))
    def deliver(self, size: int) -> None:
        """The destination reads some of it."""
        data, self.up = self.up[:size], self.up[size:]
        for happening in self.service.receive(data):
            if isinstance(happening, Begun):
                self.got[happening.key] = b""
            elif isinstance(happening, Arrived):
                self.got[happening.key] += happening.data

    @invariant()
    def bytes_belong_to_their_connection(self) -> None:
        """What the n-th connection of the service got is the beginning of what the n-th user said."""
        for key, got in self.got.items():
            assert self.sent[key].startswith(got)
        assert len(self.device.keys) == len(self.pairs)


TestJoined = Joined.TestCase
TestJoined.settings = settings(max_examples=deep(40), stateful_step_count=40)
