"""What goes between a server and its workers comes out as it went in."""

import pickle
from dataclasses import fields

import pytest

from revtunnel.daemons.worker_messages import denied, in_values, raised
from revtunnel.ground import facts
from revtunnel.ground.facts import ChannelEnded, Fact
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.link.handshake import LinkDenied


def test_a_fact_is_made_again_from_its_values() -> None:
    """Also one with a reason, which is no plain value."""
    fact = ChannelEnded("plc-7", 256, "ssh", "192.0.2.1:5", Ended.CLOSED, "", 1.5, 7, 8)
    kind, values = pickle.loads(pickle.dumps(in_values(fact)))
    assert kind(*values) == fact


def test_every_kind_of_fact_takes_its_fields_in_order() -> None:
    """None has one that is not given to it."""
    kinds = [each for each in vars(facts).values() if isinstance(each, type) and issubclass(each, Fact)]
    assert len(kinds) > 20
    for kind in kinds:
        values = tuple(range(len(fields(kind))))
        assert in_values(kind(*values)) == (kind, values)


def test_a_refusal_is_raised_with_all_that_it_says() -> None:
    """What the agent is told, and what it is not."""
    error = LinkDenied(GoAway.DUPLICATE, "it is here already", "plc-7", "told", "word", "gate-2:2065")
    with pytest.raises(LinkDenied, match="it is here already") as caught:
        raised(pickle.loads(pickle.dumps(denied(error))))
    again = caught.value
    assert (again.reason, again.serial, again.told, again.word, again.place) == (
        *(GoAway.DUPLICATE, "plc-7", "told", "word", "gate-2:2065"),
    )
    raised(None)
