"""The agents of a node that stops: where each is sent, how fast, and what becomes of those that stay."""

from typing import Any

import pytest
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from revtunnel.cluster.agent_moves import AgentMoves
from revtunnel.cluster.node_records import Node
from revtunnel.ground.reasons import GoAway

ME = Node("me", 1, state="draining", devices=50, agents="me:1")


class Link:
    """Of an agent with so many streams; it goes when it is asked, if it has none."""

    def __init__(self, here: "set[Link]", running: int = 0, system: str = "rt1") -> None:
        self.carrier: Any = self
        self.running, self.system = running, system
        self.asked: list[tuple[GoAway, int, str]] = []
        self._here = here
        here.add(self)

    def goaway(self, reason: GoAway, retry_after: int, detail: str, place: str = "") -> None:
        self.asked.append((reason, retry_after, place))
        if not self.running:
            self._here.discard(self)


def node(name: str, devices: int = 0, state: str = "up", agents: bool = True) -> Node:
    return Node(name, 1, state=state, devices=devices, agents=f"{name}:2065" if agents else "")


class Cluster:
    """Nodes, links, and their moves."""

    def __init__(self, *nodes: Node) -> None:
        self.clock = Clock()
        self.nodes = [ME, *nodes]
        self.links: set[Link] = set()
        self.moves = AgentMoves(self.clock, "me", lambda: self.nodes)
        self.told: list[Any] = []

    def begin(self, pace: float = 10, half: float = 15.0) -> None:
        self.moves.begin(self.links, pace, half, 600).addBoth(self.told.append)

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds * 20)):
            self.clock.advance(0.05)


def test_the_node_with_fewest_devices_is_next() -> None:
    """With those that were sent there since it said how many it has; none goes where none is wanted."""
    cluster = Cluster(
        node("a", 4),
        node("b", 2),
        node("c", 0, state="away"),
        node("d", agents=False),
        node("e", 0, "draining"),
    )
    assert [cluster.moves.place() for _ in range(5)] == ["b:2065", "b:2065", "a:2065", "b:2065", "a:2065"]
    cluster.nodes[1:3] = [node("a", 6), node("b", 5)]
    assert [cluster.moves.place() for _ in range(3)] == ["b:2065", "a:2065", "b:2065"]
    cluster.nodes = [ME, node("d", agents=False)]
    assert cluster.moves.place() == ""


def test_agents_go_at_a_pace() -> None:
    """Each is asked once; the last one ends it."""
    cluster = Cluster(node("a"), node("b"))
    links = [Link(cluster.links) for _ in range(30)]
    cluster.begin()
    cluster.advance(1.0)
    assert 17 <= len(cluster.links) <= 20
    assert cluster.told == []
    cluster.advance(2.2)
    assert cluster.told == [None]
    assert {len(link.asked) for link in links} == {1}
    assert {link.asked[0][:2] for link in links} == {(GoAway.STOPPING, 600)}
    assert sorted(link.asked[0][2] for link in links) == ["a:2065"] * 15 + ["b:2065"] * 15
    assert not cluster.clock.getDelayedCalls()


def test_all_are_asked_in_half_of_the_time() -> None:
    """However many there are."""
    cluster = Cluster(node("a"))
    for _ in range(3000):
        Link(cluster.links)
    cluster.begin(pace=1)
    cluster.advance(7.0)
    assert 1300 < len(cluster.links) < 1700
    cluster.advance(7.0)
    assert cluster.told == [None]


def test_who_has_streams_is_asked_last_and_may_stay() -> None:
    """Until the time is over; what is gone by itself is not asked, nor is another wire."""
    cluster = Cluster(node("a"))
    busy, other = Link(cluster.links, running=1), Link(cluster.links, system="legacy")
    idle = [Link(cluster.links) for _ in range(10)]
    cluster.begin()
    gone = next(link for link in idle if not link.asked)
    cluster.links.discard(gone)
    cluster.advance(0.6)
    assert not busy.asked
    cluster.advance(10.0)
    assert (len(busy.asked), other.asked, gone.asked) == (1, [], [])
    assert cluster.links == {busy, other}
    assert cluster.told == []
    cluster.advance(10.0)
    assert cluster.told == [None]


@pytest.mark.parametrize("nodes", [[], [node("a", state="away")], [node("a", state="draining")]])
def test_without_another_node_nobody_is_sent(nodes: list[Node]) -> None:
    """It is over at once; so it is without agents, and without time."""
    cluster = Cluster(*nodes)
    link = Link(cluster.links)
    cluster.begin()
    assert (cluster.told, link.asked) == ([None], [])
    cluster.nodes.append(node("b"))
    cluster.begin(half=0.0)
    cluster.links.clear()
    cluster.begin()
    assert (cluster.told, link.asked) == ([None] * 3, [])


def test_without_places_agents_find_their_way_alone() -> None:
    """They are asked all the same."""
    cluster = Cluster(node("a", agents=False))
    link = Link(cluster.links)
    cluster.begin()
    assert link.asked == [(GoAway.STOPPING, 600, "")]


def test_it_may_be_given_up() -> None:
    """By whoever waits, or by a node that ends."""
    for stop in (False, True):
        cluster = Cluster(node("a"))
        for _ in range(30):
            Link(cluster.links)
        moved = cluster.moves.begin(cluster.links, 10, 15.0)
        told = list[Any]()
        moved.addErrback(lambda failure: told.append(failure.type))  # noqa: B023
        cluster.moves.stop() if stop else moved.cancel()
        cluster.advance(20.0)
        assert told == ([] if stop else [CancelledError])
        assert len(cluster.links) == 29
