"""The settings of a node, and what they mean together with those of its listener for nodes.

Rule of this file: it is imported by whoever reads settings, so it imports nothing of the cluster itself.

Source: next/cluster.md; ours.
"""

import re
from dataclasses import dataclass
from typing import NamedTuple

from revtunnel.cluster.engine_settings import EngineSettings
from revtunnel.cluster.node_records import NODE_NAME
from revtunnel.ground.declared import setting
from revtunnel.ground.kinds import SettingKind, count, many, nothing, text
from revtunnel.ground.targets import parse_endpoint_or, place

__all__ = ["MOST_NODES", "ClusterSettings", "PeerPlace"]

MOST_NODES = 32  # each has a link to every other


class PeerPlace(NamedTuple):
    """Where another node is dialled."""

    name: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.name}={place(self.host, self.port)}"


def _read_node(text: str) -> str:
    if not NODE_NAME.fullmatch(text):
        raise ValueError(f"{text[:80]!a}: 1 to 32 of a-z 0-9 . - wanted")
    return text


def _read_peer(text: str) -> PeerPlace:
    name, equals, rest = text.partition("=")
    if not equals:
        raise ValueError(f"{text[:80]!a}: NAME=HOST:PORT wanted")
    return PeerPlace(_read_node(name.strip()), *parse_endpoint_or(rest.strip(), None))


def _read_address(text: str) -> str:
    return place(*parse_endpoint_or(text, None))


_NODE = nothing("none", SettingKind("name", "none, or 1 to 32 of a-z 0-9 . -", _read_node))
_PEERS = many("NAME=HOST:PORT", _read_peer, 0, MOST_NODES - 1)
_ADDRESS = nothing("none", SettingKind("place", "none or HOST:PORT", _read_address))
_CLUSTER = text("name", "1 to 32 of A-Z a-z 0-9 . _ -", re.compile(r"[A-Za-z0-9._-]{1,32}").pattern)


# fmt: off
@dataclass(frozen=True, kw_only=True)
class ClusterSettings(EngineSettings):
    """What a server is told that is one node of several."""

    node: str | None = setting(_NODE, "none", "name of this node, also in its certificate: URI "
        "urn:revtunnel:node:NAME; none: this server is alone")
    cluster: str = setting(_CLUSTER, "revtunnel", "name of the cluster; several may share an engine")
    address: str | None = setting(_ADDRESS, "none", "where other nodes dial this one, which is told to them "
        "by the engine; leads to the [listener NAME] with kind = nodes")
    agents_address: str | None = setting(_ADDRESS, "none", "where agents dial this node, its "
        "[listener NAME] of kind rt1: a node that stops sends its agents there; none: none is sent here")
    drain_pace: int = setting(count("agents", 1, 100_000), "20", "agents a second that this node sends to "
        "others when it stops; more, if else not all were asked in half of drain in [limits]", live=True)
    peers: tuple[PeerPlace, ...] = setting(_PEERS, "", "the nodes, where there is no engine that knows them; "
        "each asks all the others then where a device is. This one may be among them", live=True)

    @property
    def others(self) -> tuple[PeerPlace, ...]:
        """Peers but this one."""
        return tuple(each for each in self.peers if each.name != self.node)
# fmt: on
