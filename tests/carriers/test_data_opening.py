"""The frames before a data socket's raw bytes: whole, byte by byte, with bytes behind them, and wrong."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revtunnel.carriers.data_opening import AwaitAnswer, AwaitConnect, OpeningAnswer
from revtunnel.carriers.tickets import Tickets
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import DataLimits, LinkLimits
from revtunnel.ground.origin import Origin, encode_origin
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Target
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.streams.commands import After, Command, encode_after, encode_connect, encode_reset
from revtunnel.streams.frames import encode_frame
from revtunnel.streams.window import CreditPool
from tests.link.test_handshake import exchange
from tests.support.vectors import FRAMES

CONNECT = encode_frame(Command.CONNECT, 0, encode_connect(Target("10.0.0.5", 23)))
CLIENT = Origin("192.0.2.1", 56324, "198.51.100.9", 443)
ORIGIN = encode_frame(Command.ORIGIN, 0, encode_origin(CLIENT))
WITHIN = encode_frame(Command.WITHIN, 0, bytes(range(16)))
OPENED = encode_frame(Command.OPENED, 0)
REFUSED = encode_frame(Command.RESET, 0, encode_reset(Ended.REFUSED, "nobody there"))


def fed(end: AwaitConnect | AwaitAnswer, data: bytes, size: int) -> OpeningAnswer | Target | None:
    """What comes of it, cut into pieces; the rest of the pieces is not fed."""
    for at in range(0, len(data), size):
        if (found := end.receive(data[at : at + size])) is not None:
            return found
    return None


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_connect_names_the_target(size: int) -> None:
    """However it is cut."""
    end = AwaitConnect()
    assert fed(end, CONNECT, size) == Target("10.0.0.5", 23)
    assert end.origin is None


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_origin_before_it_names_the_client(size: int) -> None:
    """However it is cut; a second one, or one of another size, ends the socket."""
    end = AwaitConnect()
    assert fed(end, ORIGIN + CONNECT, size) == Target("10.0.0.5", 23)
    assert end.origin == CLIENT
    for wrong in (
        ORIGIN + ORIGIN,
        encode_frame(Command.ORIGIN, 0, b"\4"),
        ORIGIN.replace(b"\x1e\0", b"\x1e\1"),
    ):
        with pytest.raises(RemoteError, match="ORIGIN"):
            fed(AwaitConnect(), wrong, size)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_within_before_it_names_the_session(size: int) -> None:
    """Before ORIGIN, if there is one; a second one, a late one, or one of another size, ends the socket."""
    for opening, origin in ((WITHIN + CONNECT, None), (WITHIN + ORIGIN + CONNECT, CLIENT)):
        end = AwaitConnect()
        assert fed(end, opening, size) == Target("10.0.0.5", 23)
        assert (end.session, end.origin) == (bytes(range(16)).hex(), origin)
    for wrong in (WITHIN + WITHIN, ORIGIN + WITHIN, encode_frame(Command.WITHIN, 0, bytes(15))):
        with pytest.raises(RemoteError, match="WITHIN"):
            fed(AwaitConnect(), wrong, size)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_the_answer_is_opened_or_a_reason(size: int) -> None:
    """However it is cut; nothing is an answer before it is whole."""
    assert fed(AwaitAnswer(), OPENED, size) == OpeningAnswer(None, "", b"")
    assert fed(AwaitAnswer(), REFUSED, size) == OpeningAnswer(Ended.REFUSED, "nobody there", b"")
    assert fed(AwaitAnswer(), OPENED[:-1], size) is None
    assert fed(AwaitAnswer(), REFUSED[:-1], size) is None


@given(st.binary(max_size=50), st.integers(1, 60))
def test_bytes_behind_opened_are_the_service_s(rest: bytes, size: int) -> None:
    """Whatever they look like, none is lost."""
    data = OPENED + rest
    answer = AwaitAnswer()
    for at in range(0, len(data), size):
        found = answer.receive(data[at : at + size])
        if found is not None:
            assert found.rest + data[at + size :] == rest
            return
    raise AssertionError("no answer")


def test_what_is_to_be_closed_first_stands_before_connect() -> None:
    """Once, and behind all else."""
    after = encode_frame(Command.AFTER, 0, encode_after(After((300, 5), 0.1)))
    within = encode_frame(Command.WITHIN, 0, bytes(16))
    waiting = AwaitConnect()
    assert waiting.receive(within + after) is None
    assert waiting.receive(CONNECT) is not None
    assert waiting.after == After((300, 5), 0.1)
    for wrong in (after + after, after + within, encode_frame(Command.AFTER, 0, bytes(3))):
        with pytest.raises(RemoteError):
            AwaitConnect().receive(wrong)


def test_what_follows_connect_is_the_clients() -> None:
    """Whatever it looks like: frames are over."""
    waiting = AwaitConnect()
    assert waiting.receive(CONNECT + CONNECT) is not None
    assert waiting.early == CONNECT


@pytest.mark.parametrize("vector", FRAMES, ids=lambda vector: vector.name)
def test_other_frames_end_the_socket(vector: object) -> None:
    """By their header: of the whole wire only CONNECT, OPENED and RESET have a place here, on channel 0."""
    wire, channel, command = vector.wire, vector.channel, vector.command  # type: ignore[attr-defined]
    if channel or command != Command.CONNECT:
        with pytest.raises(RemoteError, match="data socket"):
            AwaitConnect().receive(wire[:4])
    if channel or command not in (Command.OPENED, Command.RESET):
        with pytest.raises(RemoteError, match="data socket"):
            AwaitAnswer().receive(wire[:4])


def test_sizes_are_judged_by_the_header() -> None:
    """A long CONNECT or RESET, and an OPENED with a payload."""
    for end, header in (
        (AwaitConnect(), b"\x01\x04\x01\x00"),
        (AwaitAnswer(), b"\x00\xca\x14\x00"),
        (AwaitAnswer(), b"\x00\x01\x13\x00"),
    ):
        with pytest.raises(RemoteError, match="on a data socket"):
            end.receive(header)


@given(st.lists(st.binary(min_size=1, max_size=9), max_size=10))
def test_whatever_comes_is_an_answer_or_the_other_side_s_fault(pieces: list[bytes]) -> None:
    """Never an exception of ours."""
    for end in (AwaitConnect(), AwaitAnswer()):
        try:
            for piece in pieces:
                if end.receive(piece) is not None:
                    break
        except RemoteError:
            pass


# -- the protocol's own page

PAGE = (Path(__file__).parents[2] / "docs" / "link-protocol.rst").read_text("utf-8")
DATA = DataLimits()


def test_the_page_s_data_socket() -> None:
    """The exchange of the page is what the real parts say and take."""
    said = exchange("on a data socket")
    tickets: Tickets[str] = Tickets(lambda size: b"\xa5" * size)
    ticket = tickets.issue("link", 256, 30.0)
    server = Rt1Mux(LinkLimits(), True, 0.0, CreditPool(0), data_sockets=True)
    server.want([ticket])
    target = Target("10.41.51.152", 23)
    assert said == [
        ("server", b"".join(server.take(1 << 16, 0.0)[0])),
        ("agent", encode_frame(Command.ATTACH, 0, ticket)),
        ("server", encode_frame(Command.CONNECT, 0, encode_connect(target))),
        ("agent", OPENED + b"login:"),
    ]
    assert AwaitConnect().receive(said[2][1]) == target
    assert AwaitAnswer().receive(said[3][1]) == OpeningAnswer(None, "", b"login:")


@pytest.mark.parametrize(
    "phrase",
    [
        f"It is good once, for *{DATA.ticket:g} s*",
        f"or waits for one, at most *{DATA.wait:g} s*",
        f"by the link at once for *{DATA.retry:g} s*",
        f"acknowledged CONNECT after *{DATA.answer:g} s*",
        f"at least *{DATA.warm}* while there are any, at most *{DATA.warm_most}*",
        f"none after *{DATA.warm_idle:g} s* without a client",
    ],
)
def test_the_page_s_numbers_of_data_sockets(phrase: str) -> None:
    """Each default that the page names is the program's."""
    assert phrase in " ".join(PAGE.split())
