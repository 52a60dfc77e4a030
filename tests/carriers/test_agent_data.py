"""The agent's data sockets where no connection comes of a ticket; the rest is in test_data_sockets.py."""

import errno
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, fail

from revtunnel.carriers.agent_data import UNOPENED, AgentData
from revtunnel.ground.facts import DataSocketsMissing
from revtunnel.ground.limits import AgentLimits
from revtunnel.ground.reasons import Ended
from revtunnel.sockets.ends import End, PlainEnd
from revtunnel.streams.commands import TICKET_SIZE
from revtunnel.streams.dialler import Dialler
from tests.support.ends import tcp_pair
from tests.support.reactor import MemoryReactor

LIMITS = AgentLimits()


class Link(NamedTuple):
    """Who brought the tickets."""

    serial: str = "plc-1"
    peer: str = "192.0.2.1:2065"


class Agent:
    """Data sockets of an agent; ``dials`` are the connects that were begun."""

    def __init__(self) -> None:
        self.facts: list[Any] = []
        self.dials: list[Deferred[End]] = []
        self.dialling = False  # whether a dial takes time, or fails at once
        self.reactor = MemoryReactor()
        self.data = AgentData(
            self.reactor, LIMITS, Dialler(self.reactor, LIMITS, ()), self._connect, self.facts.append
        )

    def _connect(self, link: Any) -> "Deferred[End]":
        self.dials.append(Deferred() if self.dialling else fail(_unreachable()))
        return self.dials[-1]

    def want(self, count: int) -> None:
        """So many tickets come."""
        self.data.wanted(Link(), [number.to_bytes(TICKET_SIZE, "big") for number in range(count)])


def _unreachable() -> OSError:
    return OSError(errno.ENETUNREACH, "Network is unreachable")


def test_thousands_of_dials_that_fail_at_once() -> None:
    """Each ticket is tried once, in a loop, and it is said once."""
    agent = Agent()
    agent.want(LIMITS.data_most)
    assert len(agent.dials) == LIMITS.data_most
    (fact,) = agent.facts
    assert isinstance(fact, DataSocketsMissing) and "unreachable" in fact.detail


def test_dials_that_begin_to_fail_at_once() -> None:
    """The network went while some were under way: the tickets behind them are tried in the same turn."""
    agent = Agent()
    agent.dialling = True
    agent.want(LIMITS.data_most)
    assert len(agent.dials) == LIMITS.data_dials
    agent.dialling = False
    agent.dials[0].errback(_unreachable())
    assert len(agent.dials) == LIMITS.data_most
    assert len(agent.data._connecting) == LIMITS.data_dials - 1


def test_what_was_said_on_a_socket_that_is_gone_is_taken_back_if_it_is_remembered() -> None:
    """It went before its target was reached. One that nobody remembers may have reached it."""
    agent, links = Agent(), (Link(), Link("plc-1", "192.0.2.1:2066"))
    agent.dialling = True
    for link in links:
        agent.data.wanted(link, [(300).to_bytes(4, "big") + bytes(TICKET_SIZE - 4)])
    ends = [tcp_pair() for _ in links]
    for dial, (_, far) in zip(agent.dials, ends, strict=True):
        dial.callback(PlainEnd(far))
    for socket in [*agent.data.sockets]:
        socket.stop(Ended.LINK_LOST, "a test")
    assert [agent.data.recall(link, 300) for link in links] == [True, True]
    assert not agent.data.recall(links[0], 301)
    agent.data.link_gone(links[0], dead=False)
    assert [agent.data.recall(link, 300) for link in links] == [False, True]
    agent.data._unopened.extend((links[0], number) for number in range(UNOPENED))
    assert not agent.data.recall(links[1], 300)
    for near, _ in ends:
        near.close()


def test_tickets_that_wait_for_their_dial_are_counted() -> None:
    """A server that asks again and again gets no more sockets than the limit, and what is beyond is said."""
    agent = Agent()
    agent.dialling = True
    agent.want(LIMITS.data_most)
    assert (len(agent.dials), agent.facts) == (LIMITS.data_dials, [])
    agent.want(1)
    assert len(agent.data._tickets) == LIMITS.data_most - LIMITS.data_dials
    assert [type(fact) for fact in agent.facts] == [DataSocketsMissing]


def test_a_ticket_that_waited_too_long_is_not_dialled_for() -> None:
    """The server has forgotten it; a connection that brings it would count as a stranger's."""
    agent = Agent()
    agent.dialling = True
    agent.want(LIMITS.data_dials + 3)
    agent.reactor.advance(LIMITS.data_ticket)
    agent.dialling = False
    agent.dials[0].errback(_unreachable())
    assert len(agent.dials) == LIMITS.data_dials
    assert not agent.data._tickets
