"""The agents of a node that stops, sent to the others one after the other.

Rule of this file: whoever is asked to go is told of one place, the living node that has fewest devices,
those included that were sent there since it said so. Devices whose link carries streams are asked last, for
they stay until those have ended; all have been asked when half of the time that is left is over. Until it
is his turn an agent is served as ever, and who does not go is not cut off here.

Source: docs/scale-out.rst; ours.
"""

import math
from collections import Counter, deque
from collections.abc import Callable, Collection
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from revtunnel.cluster.node_records import Node
from revtunnel.ground.reasons import GoAway

__all__ = ["AgentMoves", "MovableLink"]

SYSTEM = "rt1"
TICK = 0.1  # seconds between two handfuls


class MovableLink(Protocol):
    """A link of an agent (link/server_link.py)."""

    system: str
    carrier: Any

    def goaway(self, reason: GoAway, retry_after: int, detail: str, place: str = "") -> None:
        """Ask it to leave, for another place."""


class AgentMoves:
    """``nodes`` are those of the cluster as they are known now, ``me`` is the name of this one."""

    def __init__(self, clock: IReactorTime, me: str, nodes: Callable[[], list[Node]]) -> None:
        self._clock = clock
        self._me = me
        self._nodes = nodes
        self._said: dict[str, int] = {}  # devices of each node, as it said last
        self._sent: Counter[str] = Counter()  # agents to each since
        self._timer: IDelayedCall | None = None

    def place(self) -> str:
        """Where the next agent may go instead; "": no other node is known that takes any."""
        others = [each for each in self._others() if each.agents]
        for each in others:
            if self._said.get(each.name) != each.devices:
                self._said[each.name], self._sent[each.name] = each.devices, 0
        if not others:
            return ""
        chosen = min(others, key=lambda each: (each.devices + self._sent[each.name], each.name))
        self._sent[chosen.name] += 1
        return chosen.agents

    def begin(
        self, links: Collection[MovableLink], pace: float, half: float, retry_after: int = 0
    ) -> "Deferred[None]":
        """Ask all agents to go; fires when none is left, or after ``half`` seconds and a third of those.

        Args:
            links: those that are here, now and later.
            pace: agents a second; more where not all would be asked in ``half`` seconds.
            retry_after: seconds to stay away, for an agent that knows no other server.
        """
        mine = sorted(_agents(links), key=lambda link: link.carrier.running)
        if not (mine and half and self._others()):
            return succeed(None)
        moved: Deferred[None] = Deferred(lambda _: self.stop())
        rest, begun, asked = deque(mine), self._clock.seconds(), 0
        pace = max(pace, len(mine) / (half * 0.9))

        def tick() -> None:
            nonlocal asked
            age = self._clock.seconds() - begun
            due = min(len(mine), math.ceil(pace * (age + TICK)))
            while asked < due:
                asked, link = asked + 1, rest.popleft()
                if link in links:
                    link.goaway(GoAway.STOPPING, retry_after, "the node stops", self.place())
            if age < half * 4 / 3 and any(link.system == SYSTEM for link in links):
                self._timer = self._clock.callLater(TICK, tick)
            else:
                moved.callback(None)

        tick()
        return moved

    def stop(self) -> None:
        """Ask nobody any more."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()

    # -- inside

    def _others(self) -> list[Node]:
        return [each for each in self._nodes() if each.name != self._me and each.state == "up"]


def _agents(links: Collection[MovableLink]) -> "list[MovableLink]":
    return [link for link in links if link.system == SYSTEM]
