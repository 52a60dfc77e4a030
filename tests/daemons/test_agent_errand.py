"""An agent that does not stay: when it ends, with which status, and when it does not."""

from typing import Any

import pytest
from twisted.internet.task import Clock

from revtunnel.daemons.agent_errand import DONE, NO_CLIENT, NO_SERVER, AgentErrand
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, Fact, LinkDown, LinkUp, ServerState
from revtunnel.ground.reasons import Ended

UP = LinkUp("plc-7", "gate:2065", "rt1", "gate", True, False)
DOWN = LinkDown("plc-7", "gate:2065", "lost", "", 1.0, 0)
AWAY = ServerState("away", "gate:2065: Connection refused")


def opened(channel: int = 1) -> ChannelOpened:
    return ChannelOpened("plc-7", channel, "10.0.0.5:23", "gate:2065", 1.0)


def ended(channel: int = 1, reason: Ended = Ended.CLOSED) -> ChannelEnded:
    return ChannelEnded("plc-7", channel, "10.0.0.5:23", "gate:2065", reason, "", 1.0, 0, 0)


class Told:
    """An errand, a clock, and the status that it ended with."""

    def __init__(self, once: bool = False, idle: float | None = None, tries: int = 1) -> None:
        self.clock = Clock()
        self.statuses: list[int] = []
        self.said: list[str] = []
        self.tell: Any = None
        self.late: list[Fact] = []  # what is told only to who asks
        self.errand = AgentErrand(
            *(self.clock, lambda: tries, once, idle, self.watch, self.report, self.statuses.append),
            lambda: self.hears(*self.late) and None,
        )
        self.errand.startService()

    def watch(self, watcher: Any) -> None:
        self.tell = watcher

    def report(self, fact: Fact) -> None:
        assert isinstance(fact, ServerState)
        self.said.append(fact.detail)

    def hears(self, *facts: Fact) -> list[int]:
        for fact in facts:
            self.tell(fact)
        return self.statuses


def test_once_ends_with_its_first_link() -> None:
    """With what it was for, or without."""
    assert Told(once=True).hears(UP, opened(), ended(), DOWN, DOWN) == [DONE]
    assert Told(once=True).hears(UP, DOWN) == [NO_CLIENT]
    assert Told(once=True).hears(UP, ended(reason=Ended.REFUSED), DOWN) == [DONE]  # one came


def test_once_tries_every_server_once() -> None:
    """And then there is none."""
    told = Told(once=True, tries=2)
    assert told.hears(AWAY) == []
    assert told.hears(AWAY, AWAY) == [NO_SERVER]
    assert told.said == ["every server was tried: no server had a link for it"]
    assert told.clock.getDelayedCalls() == []


def test_it_ends_when_nobody_has_used_it_for_a_while() -> None:
    """Counted from the start, and from the end of the last client on."""
    told = Told(idle=60.0)
    told.hears(UP)
    told.clock.advance(59.0)
    told.hears(opened(1), opened(2), ended(1))
    told.clock.advance(1000.0)
    told.hears(ended(2))
    told.clock.advance(59.0)
    told.hears(DOWN, AWAY, UP, ended(3, Ended.REFUSED))  # it comes back, and a client is refused
    told.clock.advance(59.0)
    assert told.statuses == []
    told.clock.advance(1.0)
    assert told.statuses == [DONE]
    assert told.said == ["no client for 60 s: done"]


@pytest.mark.parametrize(("facts", "status"), [([AWAY] * 9, NO_SERVER), ([UP, DOWN, AWAY], NO_CLIENT)])
def test_what_it_ends_with_where_no_client_came(facts: list[Fact], status: int) -> None:
    """A server that was never there is told apart from clients that were not."""
    told = Told(idle=60.0)
    told.hears(*facts)
    told.clock.advance(60.0)
    assert told.statuses == [status]


def test_streams_of_one_number_are_counted_each() -> None:
    """Data sockets and channels of the link have numbers of their own."""
    told = Told(idle=60.0)
    told.hears(UP, opened(1), opened(1), ended(1))
    told.clock.advance(100.0)
    assert told.hears(ended(1)) == []
    told.clock.advance(60.0)
    assert told.statuses == [DONE]


def test_who_stops_it_comes_first() -> None:
    """No status of its own then."""
    told = Told(once=True, idle=60.0)
    told.errand.stopService()
    assert told.hears(UP, DOWN) == []
    assert told.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("late", "statuses"), [([], [NO_CLIENT]), ([opened()], []), ([opened(), ended()], [])]
)
def test_a_client_of_the_last_moment_counts(late: list[Fact], statuses: list[int]) -> None:
    """What happened a moment ago is asked for before it ends."""
    told = Told(idle=5.0)
    told.hears(UP)
    told.late = late
    told.clock.advance(5.0)
    assert told.statuses == statuses
    told.late = []
    told.clock.advance(5.0)
    assert told.statuses == ([] if late == [opened()] else statuses or [DONE])
