"""Offers on a link that is up: said anew, and asked for."""

import pytest

from revtunnel.ground.errors import RemoteError
from revtunnel.ground.limits import LinkLimits
from revtunnel.ground.targets import parse_offer
from revtunnel.link.mux import Glitch, Offered, OffersAsked
from revtunnel.link.rt1 import Rt1Mux
from revtunnel.streams.commands import Command
from revtunnel.streams.frames import Frame, encode_frame
from revtunnel.streams.offer_messages import Answer, OfferChange, encode_change, encode_offers
from revtunnel.streams.window import CreditPool
from tests.link.test_handshake import exchange
from tests.link.test_rt1 import Joined

HTTP, SSH = parse_offer("http=10.0.0.5:80"), parse_offer("ssh=10.0.0.5:22")
ADD, AWAY = OfferChange(SSH, "ssh"), OfferChange(None, "http")


def joined(offers: bool = True, changes: bool = True) -> Joined:
    """Two ends whose HELLOs had the bits, or had them not."""
    pool = CreditPool(1 << 30)
    limits = LinkLimits(offers=2)
    made = Joined(Rt1Mux(limits, True, 0.0, pool), Rt1Mux(limits, False, 0.0, pool))
    for end in (made.server, made.agent):
        end.mux.offers, end.mux.changes = offers, changes
    return made


@pytest.mark.parametrize("cut", [1, 1000])
def test_offers_are_asked_for_and_said(cut: int) -> None:
    """However they are cut; an agent says others also when nobody asks."""
    ends = joined()
    ends.server.mux.change(ADD)
    ends.server.mux.change(AWAY)
    ends.settle(cut)
    assert ends.agent.story == [OffersAsked(ADD, ""), OffersAsked(AWAY, "")]
    ends.agent.mux.offer(encode_offers((HTTP, SSH), Answer(True)))
    ends.agent.mux.offer(encode_offers((SSH,), Answer(False, "no")))
    ends.agent.mux.offer(encode_offers(()))
    ends.settle(cut)
    answers = [Offered((HTTP, SSH), Answer(True)), Offered((SSH,), Answer(False, "no")), Offered((), None)]
    assert ends.server.story == answers


def test_documented_bytes() -> None:
    """The exchange of the page is what the real parts say and take."""
    (_, asked), (_, answered) = exchange("about offers")
    assert asked == encode_frame(Command.CHANGE, 0, encode_change(ADD))
    assert answered == encode_frame(Command.OFFERS, 0, encode_offers((HTTP, SSH), Answer(True)))


@pytest.mark.parametrize("offers", [True, False])
def test_who_has_not_said_that_he_has_it_ends_the_link(offers: bool) -> None:
    """Either frame, of either end, where HELLO had no bit for it; and each from the wrong end."""
    ends = joined(offers, not offers)
    command = Command.CHANGE if offers else Command.OFFERS
    for mux in (ends.server.mux, ends.agent.mux):
        with pytest.raises(RemoteError, match=f"{command.name} on a link that is up"):
            mux.judge(3, command, 0)
    both = joined()
    for mux, wrong in ((both.server.mux, Command.CHANGE), (both.agent.mux, Command.OFFERS)):
        with pytest.raises(RemoteError, match=f"{wrong.name} on a link that is up"):
            mux.judge(3, wrong, 0)


def test_a_change_that_cannot_be_read_is_answered() -> None:
    """With why it cannot; it counts as an oddity."""
    ends = joined()
    for payload in (b"", b"\3x", b"\1nothing", b"\1a=10.0.0.5:99999", b"\2", b"\2\xff"):
        ends.server.mux._turns.control(encode_frame(Command.CHANGE, 0, payload))
    ends.settle(1000)
    asked = [each for each in ends.agent.story if isinstance(each, OffersAsked)]
    assert [each.change for each in asked] == [None] * 6 and all(each.why for each in asked)
    assert sum(isinstance(each, Glitch) for each in ends.agent.story) == 6


@pytest.mark.parametrize(
    "payload",
    [
        encode_offers((HTTP, HTTP)),
        encode_offers((HTTP, SSH, parse_offer("x=10.0.0.5:1"))),
        b"\3\7x=y:0z1",
        b"\3\4none",
        b"\3\xff",
        b"\x0c\0",
        b"\x0c\1\2",
    ],
)
def test_offers_that_are_none_end_the_link(payload: bytes) -> None:
    """Twice, too many, cut, no offer, no answer."""
    ends = joined()
    ends.agent.mux.offer(payload)
    with pytest.raises(RemoteError):
        ends.settle(1000)


def test_offers_that_change_all_the_time_end_the_link() -> None:
    """Sixty times in a minute; as often in an hour is nothing."""
    ends = joined()
    frame = Frame(Command.OFFERS, 0, encode_offers((HTTP,)))
    for number in range(120):
        ends.server.mux.receive(frame, number * 30.0)
    with pytest.raises(RemoteError, match="changes of offers"):
        for number in range(60):
            ends.server.mux.receive(frame, 4000.0 + number / 10)
