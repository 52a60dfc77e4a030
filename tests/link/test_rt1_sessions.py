"""Sessions on a link: asked, answered, over, and which channel is of which."""

import pytest

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.origin import Origin, encode_origin
from revtunnel.link.mux import Consented, Glitch, SessionAsked, SessionOver
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.link.rt1_sessions import MOST_DUE
from revtunnel.streams.commands import Command, encode_connect
from revtunnel.streams.consent_messages import ConsentRequest, encode_asked, encode_consent, encode_over
from revtunnel.streams.frames import encode_frame
from revtunnel.streams.window import CreditPool
from tests.link.test_rt1 import TARGET, Joined

ID, OTHER = bytes(range(16)).hex(), bytes(range(1, 17)).hex()
ANA = ConsentRequest(ID, "ana", ("ssh", "http"), "192.0.2.7")
CLIENT = Origin("192.0.2.1", 56324, "198.51.100.9", 443)
ORIGIN = encode_frame(Command.ORIGIN, 1, encode_origin(CLIENT))
WITHIN = encode_frame(Command.WITHIN, 1, bytes.fromhex(ID))
CONNECT = encode_frame(Command.CONNECT, 1, encode_connect(TARGET))


def joined(sessions: bool = True, origins: bool = True) -> Joined:
    """Two ends whose HELLOs had the bits, or had them not."""
    pool = CreditPool(1 << 30)
    made = Joined(
        Rt1Mux(LinkLimits(), True, 0.0, pool, origins=origins),
        Rt1Mux(LinkLimits(), False, 0.0, pool, origins=origins),
    )
    for end in (made.server, made.agent):
        end.mux.sessions = sessions
    return made


@pytest.mark.parametrize("cut", [1, 1000])
def test_a_question_and_its_answers(cut: int) -> None:
    """However they are cut."""
    ends = joined()
    ends.server.mux.session(encode_asked(ANA))
    ends.server.mux.session(encode_over(OTHER))
    ends.agent.mux.consent(encode_consent(ID, True))
    ends.agent.mux.consent(encode_consent(ID, False, "the press is open"))
    ends.settle(cut)
    assert ends.agent.story == [SessionAsked(ANA), SessionOver(OTHER)]
    assert ends.server.story == [Consented(ID, True, ""), Consented(ID, False, "the press is open")]


@pytest.mark.parametrize("cut", [1, 1000])
def test_a_channel_says_of_which_session_it_is(cut: int) -> None:
    """In the order WITHIN, ORIGIN, CONNECT; a client of a port is of none."""
    ends = joined()
    ends.server.connect(TARGET, CLIENT, ID)
    ends.server.connect(TARGET, None, OTHER)
    ends.server.connect(TARGET, CLIENT)
    ends.settle(cut)
    assert [frame.command for frame in ends.server.wrote] == [
        *(Command.WITHIN, Command.ORIGIN, Command.CONNECT),
        *(Command.WITHIN, Command.CONNECT),
        *(Command.ORIGIN, Command.CONNECT),
    ]
    channels = [stream.channel for stream in ends.agent.streams]
    assert [(each.session, each.origin) for each in channels] == [(ID, CLIENT), (OTHER, None), ("", CLIENT)]


def test_an_end_that_does_not_know_sessions_hears_nothing_of_them() -> None:
    """And each of the three commands ends its link; so does the other side's."""
    ends = joined(sessions=False)
    ends.server.connect(TARGET, CLIENT, ID)
    ends.settle()
    assert [frame.command for frame in ends.server.wrote] == [Command.ORIGIN, Command.CONNECT]
    session = encode_frame(Command.SESSION, 0, encode_over(ID))
    consent = encode_frame(Command.CONSENT, 0, encode_consent(ID, True))
    for name, wrong in (
        ("agent", session), ("agent", WITHIN), ("agent", consent), ("server", consent)
    ):  # fmt: skip
        with pytest.raises(RemoteError, match="on a link that is up"):
            getattr(joined(sessions=False), name).read(wrong)
    for name, wrong in (("agent", consent), ("server", session), ("server", WITHIN)):
        with pytest.raises(RemoteError, match="on a link that is up"):
            getattr(joined(), name).read(wrong)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (WITHIN + WITHIN, "WITHIN for channel 1 instead of CONNECT"),
        (ORIGIN + WITHIN, "WITHIN for channel 1 instead of CONNECT"),
        (WITHIN + ORIGIN + ORIGIN, "ORIGIN for channel 1 instead of CONNECT"),
        (WITHIN + encode_frame(Command.ORIGIN, 2, encode_origin(CLIENT)), "ORIGIN for channel 2 instead"),
        (WITHIN + encode_frame(Command.CONNECT, 2, encode_connect(TARGET)), "behind WITHIN for 1"),
        (encode_frame(Command.WITHIN, 1, bytes(15)), "WITHIN of 15 bytes"),
        (encode_frame(Command.SESSION, 0, b"\1" + bytes(15)), "SESSION of 16 bytes"),
        (encode_frame(Command.SESSION, 0, bytes(4097)), "SESSION of 4097 bytes, limit 4096"),
    ],
)
def test_what_stands_before_a_connect_belongs_to_it(wrong: bytes, why: str) -> None:
    """Nobody's session is taken for another's: the link ends."""
    agent = joined().agent
    with pytest.raises(RemoteError, match=why):
        agent.read(wrong)
    assert agent.streams == []


def test_the_session_of_a_connect_that_cannot_be_dialled_is_gone_with_it() -> None:
    """The next client is not taken for one of it."""
    agent = joined().agent
    agent.read(WITHIN + encode_frame(Command.CONNECT, 1, b"bad!") + encode_frame(Command.CLOSE, 1))
    agent.read(encode_frame(Command.CONNECT, 2, encode_connect(TARGET)))
    assert [stream.channel.session for stream in agent.streams] == [""]


def test_a_question_that_cannot_be_read_is_answered_with_no() -> None:
    """It is an oddity, and the link goes on."""
    ends = joined()
    ends.agent.read(encode_frame(Command.SESSION, 0, b"\1" + bytes.fromhex(ID) + b"\1\4a; b\2\3ssh"))
    assert [type(each) for each in ends.agent.story] == [Glitch]
    ends.settle()
    (answer,) = ends.server.story
    assert isinstance(answer, Consented)
    assert (answer.session, answer.yes) == (ID, False)
    assert "user 'a; b' is none" in answer.why


def test_what_nobody_asked_for_has_a_limit() -> None:
    """An answer may be taken back, and a session of the link before may end; a flood of that ends us."""
    ends = joined()
    ends.server.mux.session(encode_asked(ANA))
    answer = encode_frame(Command.CONSENT, 0, encode_consent(ID, False, ""))
    ends.server.read(answer * 101)
    assert ends.server.story == [Consented(ID, False, "")] * 101
    with pytest.raises(RemoteError, match="100 oddities"):
        ends.server.read(answer)
    over = encode_frame(Command.SESSION, 0, encode_over(OTHER))
    ends.agent.read(over * 99)
    with pytest.raises(RemoteError, match="100 oddities"):
        ends.agent.read(over)


def test_what_was_asked_for_long_ago_allows_no_flood() -> None:
    """Thousands of sessions that are over leave neither end an allowance without a bound."""
    ends = joined()
    for _ in range(3 * MOST_DUE):
        ends.server.mux.session(encode_asked(ANA))
        ends.server.mux.session(encode_over(ID))
        ends.agent.mux.consent(encode_consent(ID, True))
        ends.settle()
    for end, frame in (
        (ends.server, encode_frame(Command.CONSENT, 0, encode_consent(ID, False, ""))),
        (ends.agent, encode_frame(Command.SESSION, 0, encode_over(OTHER))),
    ):
        end.read(frame * 99)
        with pytest.raises(RemoteError, match="100 oddities"):
            end.read(frame * (MOST_DUE + 1))


def test_the_end_of_a_session_wants_no_answer() -> None:
    """So it allows none."""
    ends = joined()
    for _ in range(100):
        ends.server.mux.session(encode_over(ID))
    with pytest.raises(RemoteError, match="100 oddities"):
        ends.server.read(encode_frame(Command.CONSENT, 0, encode_consent(ID, False, "")) * 100)
