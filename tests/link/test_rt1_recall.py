"""What was said on a data socket is taken back, or was too late for that."""

from typing import Any

import pytest

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.link.mux import Glitch, Recalled, RecallOf
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.link.rt1_recall import MOST, UNANSWERED
from revtunnel.streams.commands import Command, encode_recalled
from revtunnel.streams.frames import encode_frame
from revtunnel.streams.window import CreditPool
from tests.link.test_rt1 import Joined


def joined(early: bool = True) -> Joined:
    """Two ends whose HELLOs had the bit, or had it not."""
    pool = CreditPool(1 << 30)
    made = Joined(Rt1Mux(LinkLimits(), True, 0.0, pool), Rt1Mux(LinkLimits(), False, 0.0, pool))
    for end in (made.server, made.agent):
        end.mux.early = early
    return made


def recalled(number: int, in_time: int) -> bytes:
    """An answer as a frame."""
    return encode_frame(Command.RECALLED, 0, number.to_bytes(4, "big") + bytes((in_time,)))


@pytest.mark.parametrize("cut", [1, 1000])
def test_each_question_has_its_answer(cut: int) -> None:
    """Whatever the order; who asked is told."""
    ends, told = joined(), []
    for number in (256, 70000):
        ends.server.mux.recall(number, lambda in_time, number=number: told.append((number, in_time)))
    ends.settle(cut)
    assert ends.agent.story == [RecallOf(256), RecallOf(70000)]
    ends.agent.mux.recalled(70000, True)
    ends.agent.mux.recalled(256, False)
    ends.settle(cut)
    happened: Any = ends.server.story
    assert [type(each) for each in happened] == [Recalled, Recalled]
    for each in happened:
        each.told(each.in_time)
    assert told == [(70000, True), (256, False)]


def test_an_agent_that_never_answers_makes_the_server_keep_no_more() -> None:
    """The oldest question is forgotten; its answer, if it comes, is one that nobody waits for."""
    server = joined().server
    for number in range(256, 256 + UNANSWERED + 1):
        server.mux.recall(number, lambda in_time: None)
    assert len(server.mux._asked) == UNANSWERED
    server.read(recalled(256, 1) + recalled(257, 1))
    assert [type(each) for each in server.story] == [Glitch, Recalled]


def test_an_answer_that_nobody_waits_for_is_odd() -> None:
    """Also the second one of the same number; what is neither yes nor no ends the link."""
    server = joined().server
    server.mux.recall(256, lambda in_time: None)
    server.read(recalled(256, 1) + recalled(256, 0) + recalled(257, 1))
    assert [type(each) for each in server.story] == [Recalled, Glitch, Glitch]
    with pytest.raises(RemoteError, match="RECALLED of 5 bytes that ends with 02"):
        server.read(recalled(256, 2))
    with pytest.raises(RemoteError, match="RECALLED of 4 bytes"):
        joined().server.read(encode_frame(Command.RECALLED, 0, b"1234"))


def test_too_many_questions_end_the_link() -> None:
    """Each has an answer, which somebody has to hold."""
    agent = joined().agent
    question = encode_frame(Command.RECALL, 0, (256).to_bytes(4, "big"))
    for _ in range(MOST // 1000):
        agent.read(question * 999)
    with pytest.raises(RemoteError, match="questions about data sockets"):
        agent.read(question * 10)


def test_an_end_that_does_not_know_it_takes_none() -> None:
    """Nor does either end take the frame that is its own."""
    question = encode_frame(Command.RECALL, 0, (256).to_bytes(4, "big"))
    for end in (joined(early=False).agent, joined().server):
        with pytest.raises(RemoteError, match="RECALL on a link that is up"):
            end.read(question)
    answer = encode_frame(Command.RECALLED, 0, encode_recalled(256, True))
    for end in (joined(early=False).server, joined().agent):
        with pytest.raises(RemoteError, match="RECALLED on a link that is up"):
            end.read(answer)
