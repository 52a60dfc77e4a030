"""The directory without an engine: every node is asked where a device is, and told of each that arrives.

For a few nodes whose places are in the settings. The rules: the youngest link of a serial stands, by ages,
which no clock of day has a say in; of two that are of one age, within ``TIE``, that at the node whose name
is greater. That node alone judges of the two, for what is measured twice may be on either side of ``TIE``. A
node that has no link to us is away, and what is there is nowhere.

Source: next/cluster.md section 6 ("engine down"); ours.
"""

import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

import revtunnel
from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.node_calls import NodeCaller
from revtunnel.cluster.node_operations import ABOUT, CAME, WHERE
from revtunnel.cluster.node_records import Node, Place, newer
from revtunnel.process.admin.operation_form import Row
from revtunnel.process.admin.refusals import Invalid, OperatorError

__all__ = ["MeshDirectory"]

TIE = 1.0  # seconds
KNOWN = 65_536  # places that are remembered
TOGETHER = 64  # links told in one call
SOON = 0.02  # seconds in which arrivals are put together
ODD = OperatorError, ValueError, TypeError, LookupError  # no answer of a node, or one that makes no sense


class MeshDirectory:
    """One node's view (directory.Directory). ``callers`` are the nodes that have a link to us now."""

    problem: str | None = None
    trip: float | None = None

    def __init__(
        self,
        clock: IReactorTime,
        me: Node,
        peers: Iterable[str],
        callers: Mapping[str, NodeCaller],
    ) -> None:
        self.me = me._replace(version=revtunnel.__version__)
        self.peers = tuple(peers)
        self.moved: Callable[[str, int], None] = lambda serial, link: None
        self.mine: Callable[[], Iterable[tuple[str, int, str, float]]] = lambda: ()
        self.usurped: Callable[[], None] = lambda: None
        self._clock = clock
        self._callers = callers
        self._here: dict[str, tuple[int, str, float]] = {}  # link, wire, and since when
        self._nodes: dict[str, Node] = {}
        self._known: OrderedDict[str, Place] = OrderedDict()
        self._untold: dict[str, None] = {}
        self._telling: IDelayedCall | None = None

    def start(self) -> "Deferred[None]":
        for serial, link, wire, age in self.mine():
            self._here[serial] = link, wire, self._clock.seconds() - age
        return succeed(None)

    def stop(self) -> "Deferred[None]":
        if self._telling is not None and self._telling.active():
            self._telling.cancel()
        self._here.clear()
        return succeed(None)

    def say(self, state: str, devices: int, clients: int) -> None:
        self.me = self.me._replace(state=state, devices=devices, clients=clients)

    # -- devices

    def arrived(self, serial: str, link: int, wire: str) -> None:
        self._here[serial] = link, wire, self._clock.seconds()
        self._known.pop(serial, None)
        self._untold[serial] = None
        if self._telling is None:
            self._telling = self._clock.callLater(SOON, self._tell_all)

    def left(self, serial: str, link: int) -> None:
        if self._here.get(serial, (0,))[0] == link:
            del self._here[serial]

    def find(self, serial: str) -> "Deferred[Place | None]":
        asked = [
            caller.call(WHERE, serial=serial).addCallback(partial(self._place, name))
            for name, caller in self._callers.items()
        ]
        found: Deferred[Any] = gatherResults(asked, consumeErrors=True)
        return found.addCallbacks(partial(self._newest, serial), _failed)

    def known(self, serial: str) -> Place | None:
        place = self._known.get(serial)
        return place if place is not None and place.node in self._callers else None

    def forget(self, serial: str, place: Place) -> None:
        if self._known.get(serial) == place:
            del self._known[serial]

    # -- nodes

    def nodes(self) -> list[Node]:
        seen = {self.me.name: self.me}
        for name in self.peers:
            node = self._nodes.get(name, Node(name, 0))
            seen[name] = node if name in self._callers else node._replace(state="away")
        return [seen[name] for name in sorted(seen)]

    def look(self) -> None:
        """Ask every node what it has; to be called every few seconds."""
        for name, caller in self._callers.items():
            told = caller.call(ABOUT).addCallback(partial(self._about, name))
            told.addErrback(lambda failure: failure.trap(*ODD))

    def came_up(self, name: str) -> None:
        """A node has a link to us: tell it what we have."""
        self._known.clear()
        self._tell([name], [*self._here])

    # -- what other nodes ask

    def node_about(self) -> Row:
        """What we are and have."""
        return {**self.me._asdict(), "epoch": str(self.me.epoch)}

    def node_where(self, serial: str) -> Row:
        """Our link of a device; nothing: there is none."""
        if serial not in self._here:
            return {}
        link, wire, since = self._here[serial]
        return {"link": link, "wire": wire, "age": self._clock.seconds() - since}

    def node_came(self, links: str, by: str) -> Row:
        """Another node has these links: those of ours that are older end, the newer are named."""
        name, now, stay = by.removeprefix("node "), self._clock.seconds(), list[str]()
        told = _read_ages(links)
        both = [serial for serial in told if serial in self._here]
        for serial in told:
            self._known.pop(serial, None)
        if name > self.me.name:  # which judges, once it knows
            self._clock.callLater(0, self._tell, [name], both)
            return {"stay": stay}
        for serial in both:
            link, _, since = self._here[serial]
            if told[serial] < now - since - TIE:
                del self._here[serial]  # what is judged once is not judged again
                self._clock.callLater(0, self.moved, serial, link)
            else:
                stay.append(serial)
        return {"stay": stay}

    # -- inside

    def _place(self, name: str, row: Row) -> Place | None:
        if not row:
            return None
        since = round((self._clock.seconds() - row["age"]) * 1000)
        node = self._nodes.get(name, Node(name, 0))
        return Place(name, node.epoch, node.address, row["link"], since, row["wire"])

    def _newest(self, serial: str, places: list[Place | None]) -> Place | None:
        found: Place | None = None
        for place in places:
            found = newer(found, place)
        if found is not None:
            self._known[serial] = found
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)
        return found

    def _about(self, name: str, row: Row) -> None:
        self._nodes[name] = Node.told(row)

    def _tell_all(self) -> None:
        self._telling = None
        serials, self._untold = [*self._untold], {}
        self._tell([*self._callers], serials)

    def _tell(self, names: list[str], serials: list[str]) -> None:
        now = self._clock.seconds()
        for at in range(0, len(serials), TOGETHER):
            some = [each for each in serials[at : at + TOGETHER] if each in self._here]
            ages = json.dumps({each: round(now - self._here[each][2], 3) for each in some})
            links = {each: self._here[each][0] for each in some}
            for name in names if links else ():
                if name not in self._callers:
                    continue
                told = self._callers[name].call(CAME, links=ages)
                told.addCallback(partial(self._stayed, links)).addErrback(lambda failure: failure.trap(*ODD))

    def _stayed(self, links: Mapping[str, int], row: Row) -> None:
        """Links there that are newer than ours were."""
        for serial in row["stay"]:
            if self._here.get(serial, (0,))[0] == links.get(serial):
                del self._here[serial]
                self.moved(serial, links[serial])


def _read_ages(links: str) -> dict[str, float]:
    """Seconds by serial. Invalid: that is something else."""
    try:
        told = json.loads(links)
        return {str(serial): float(age) for serial, age in told.items()}
    except (ValueError, TypeError, AttributeError, RecursionError, OverflowError):
        raise Invalid("links: JSON of serials and seconds wanted") from None


def _failed(failure: Failure) -> Any:
    error = getattr(failure.value, "subFailure", failure).value
    raise DirectoryAway(f"a node does not answer: {error}")
