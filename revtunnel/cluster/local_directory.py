"""A directory that is in memory: that of nodes in one process.

Rule of this file: it is always there and answers at once. ``Board`` has the records, ``LocalDirectory`` is
one node's view of it; what one tells is done before it returns, and told to the others in turns of their own.

Source: directory.py; ours.
"""

from collections.abc import Callable, Iterable
from typing import Any

from sortedcontainers import SortedDict
from twisted.internet.defer import Deferred, succeed

from revtunnel.cluster.node_records import Node, Place, is_void, newer

__all__ = ["Board", "LocalDirectory"]


class Board:
    """The records. ``later`` calls something in a turn of its own."""

    def __init__(self, later: Callable[..., Any]) -> None:
        self.views: dict[str, LocalDirectory] = {}
        self.nodes: dict[str, Node] = {}
        self.places = SortedDict()  # by serial
        self.later = later
        self._epochs: dict[str, int] = {}
        self._fence = 0

    def join(self, view: "LocalDirectory") -> int:
        """A node begins a life: its epoch."""
        name = view.me.name
        old = self.views.get(name)
        if old is not None and old is not view:
            self.later(old.usurped)
        self._epochs[name] = epoch = self._epochs.get(name, 0) + 1
        self.views[name] = view
        return epoch

    def part(self, view: "LocalDirectory") -> None:
        """It ends."""
        if self.views.get(view.me.name) is view:
            del self.views[view.me.name]
            del self.nodes[view.me.name]

    def place(self, serial: str) -> Place | None:
        """Where it is."""
        place = self.places.get(serial)
        return None if place is None or is_void(place, self.nodes) else place

    def put(self, serial: str, place: Place) -> None:
        """A link came up there, newer than all before."""
        old = self.place(serial)
        self._fence += 1
        self.places[serial] = place = place._replace(fence=self._fence)
        if old is not None and old.node != place.node and newer(old, place) is place:
            self.later(self.views[old.node].moved, serial, old.link)


class LocalDirectory:
    """One node's view of a board (directory.Directory)."""

    problem: str | None = None
    trip: float | None = None

    def __init__(self, board: Board, name: str, address: str = "", agents: str = "") -> None:
        self.me = Node(name, 0, address, agents=agents)
        self.moved: Callable[[str, int], None] = lambda serial, link: None
        self.mine: Callable[[], Iterable[tuple[str, int, str, float]]] = lambda: ()
        self.usurped: Callable[[], None] = lambda: None
        self._board = board

    @property
    def _joined(self) -> bool:
        return self._board.views.get(self.me.name) is self

    def start(self) -> "Deferred[None]":
        self.me = self.me._replace(epoch=self._board.join(self))
        self._board.nodes[self.me.name] = self.me
        for serial, link, wire, _ in self.mine():
            self.arrived(serial, link, wire)
        return succeed(None)

    def stop(self) -> "Deferred[None]":
        self._board.part(self)
        return succeed(None)

    def say(self, state: str, devices: int, clients: int) -> None:
        self.me = self.me._replace(state=state, devices=devices, clients=clients)
        if self._joined:
            self._board.nodes[self.me.name] = self.me

    def arrived(self, serial: str, link: int, wire: str) -> None:
        if self._joined:
            me = self.me
            self._board.put(serial, Place(me.name, me.epoch, me.address, link, wire=wire))

    def left(self, serial: str, link: int) -> None:
        place = self._board.places.get(serial)
        if place is not None and (place.node, place.epoch, place.link) == (self.me.name, self.me.epoch, link):
            del self._board.places[serial]

    def find(self, serial: str) -> "Deferred[Place | None]":
        return succeed(self._board.place(serial))

    def known(self, serial: str) -> Place | None:
        return self._board.place(serial)

    def forget(self, serial: str, place: Place) -> None:
        """Nothing: what it knows is what there is."""

    def nodes(self) -> list[Node]:
        return [self._board.nodes[name] for name in sorted(self._board.nodes)]
