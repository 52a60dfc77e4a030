"""Where a device is, as nodes tell each other, and which of two such words is the newer one.

Rule of this file: values and comparisons; no wall clock is compared over nodes. A *fence* is a number that
grows with every arrival that a directory hears of, whoever tells it; the directory alone gives it out. An
*epoch* counts the lives of a node: what was said in an earlier life of it is void.

Source: next/cluster.md sections 2 and 6; ours.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["NODE_NAME", "Claim", "Node", "Place", "Wanted", "is_void", "newer"]

NODE_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,30}[a-z0-9])?", re.ASCII)


class Node(NamedTuple):
    """One life of a node, as it says of itself; ``state``: "up", "draining", or "away" (not heard of)."""

    name: str
    epoch: int
    address: str = ""  # host:port where other nodes dial it
    state: str = "up"
    devices: int = 0
    clients: int = 0
    version: str = ""
    agents: str = ""  # host:port where agents dial it; "": they are sent to others
    seal: str = ""  # which secret its records are sealed with; "none"; "": it does not say

    @classmethod
    def told(cls, row: Mapping[str, Any]) -> "Node":
        """As another node says, whose version may have more to say. ValueError: it makes no sense."""
        known = {name: row[name] for name in cls._fields if name in row}
        try:
            node = cls(**{**known, "epoch": int(row["epoch"])})
        except (ValueError, TypeError, LookupError) as error:
            raise ValueError(f"no node: {error}") from None
        if not NODE_NAME.fullmatch(str(node.name)) or [*map(type, node)] != _TYPES:
            raise ValueError("no node")
        return node


_TYPES = [str, int, str, str, int, int, str, str, str]  # of its fields


class Place(NamedTuple):
    """A link of one serial. ``link`` counts the links of its node's life; ``wire`` as in fleet/devices.py."""

    node: str
    epoch: int
    address: str
    link: int
    fence: int = 0
    wire: str = "rt1"


class Claim(NamedTuple):
    """A port number that nodes share, and the use it has: an offer of a serial. Times are milliseconds."""

    pool: str  # name and ranges (shared_ports.py)
    port: int
    serial: str
    offer: str
    touched: int = 0  # the engine's number of the last proof of life that is known
    keep: int = 0  # it stands for so long without its device
    rest: int = 0  # and is nobody's for so long then
    fixed: bool = False  # settings reserve it

    @property
    def use(self) -> tuple[str, str]:
        """Serial and offer."""
        return self.serial, self.offer


class Wanted(NamedTuple):
    """What a node asks for: a number of ``ranges`` for an offer of a device. Times are milliseconds."""

    pool: str
    serial: str
    offer: str
    ranges: tuple[tuple[int, int], ...]
    fixed: int = 0  # the one that settings reserve; 0: any
    before: int = 0  # the one that it had, if that is still to be had
    here: bool = True  # its device is at this node
    keep: int = 0
    rest: int = 0
    most: int = 0  # ports that a device may have


def newer(one: Place | None, other: Place | None) -> Place | None:
    """Which of two words about one serial stands: the greater fence; all nodes decide alike."""
    if one is None or other is None:
        return one or other
    return max(one, other, key=_rank)


def is_void(place: Place, nodes: Mapping[str, Node]) -> bool:
    """Whether its node is gone, or has begun another life since."""
    node = nodes.get(place.node)
    return node is None or node.epoch != place.epoch or node.state == "away"


def _rank(place: Place) -> tuple[int, int, int, str]:
    return place.fence, place.epoch, place.link, place.node
