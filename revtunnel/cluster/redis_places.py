"""Where devices are: asked of the engine, and remembered for those who have not the time.

Rule of this file: what is remembered is never of a node that is gone, and never more than ``KNOWN``.

Source: next/cluster.md sections 2 and 6; ours.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from revtunnel.cluster.directory import DirectoryAway
from revtunnel.cluster.node_records import Node, Place, is_void
from revtunnel.cluster.redis_scripts import FIND

__all__ = ["RedisPlaces", "place_of"]

KNOWN = 10_000


def place_of(record: list[Any], address: str) -> Place:
    """A record of the engine, and the address of its node. DirectoryAway: of whoever writes there."""
    if [*map(type, record[:5])] != [str, int, int, int, str]:  # one of another version may have more
        raise DirectoryAway("the record of a device makes no sense")
    node, epoch, link, fence, wire = record[:5]
    return Place(node, epoch, address, link, fence, wire)


class RedisPlaces:
    """As one node sees them. ``call`` runs a script for it; ``renew``: its ``nodes`` are too old."""

    def __init__(
        self,
        call: Callable[..., Awaitable[Any]],
        nodes: Callable[[], Mapping[str, Node]],
        renew: Callable[[], None],
    ) -> None:
        self._call = call
        self._nodes = nodes
        self._renew = renew
        self._known: OrderedDict[str, Place] = OrderedDict()

    async def find(self, serial: str) -> Place | None:
        """By the record. DirectoryAway: nobody knows."""
        found = await self._call(FIND, serial)
        if not found:
            self._known.pop(serial, None)
            return None
        place = place_of(*found)
        self.remember(serial, place)
        return place

    def known(self, serial: str) -> Place | None:
        """Where it was, if its node lives."""
        place = self._known.get(serial)
        return None if place is None or is_void(place, self._nodes()) else place

    def remember(self, serial: str, place: Place) -> None:
        """It is there."""
        self._known[serial] = place
        self._known.move_to_end(serial)
        if len(self._known) > KNOWN:
            self._known.popitem(last=False)
        if is_void(place, self._nodes()):  # a node that is newer than our list of them
            self._renew()

    def forget(self, serial: str, place: Place | None = None) -> None:
        """It is not there; None: nor where else it was."""
        if place in (None, self._known.get(serial)):
            self._known.pop(serial, None)
