"""The links that we dial to other nodes, one to each, kept up; by them their clients reach our devices.

The rules: a node is dialled by the name that its certificate must have; one that is not known any more is
left. Silence is noticed in six seconds, so that nobody waits for a node that is dead.

Source: next/cluster.md section 4; link/uplink.py.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, cast

from twisted.internet.defer import Deferred

from revtunnel import __version__
from revtunnel.cluster.peer_agent import ForwardedStreams, NoSite, PeerAgentLink, PeerData
from revtunnel.ground.facts import Fact, LinkUp, Report, ServerState
from revtunnel.ground.limits import AgentLimits, LinkLimits, RelayLimits
from revtunnel.ground.server_places import ServerPlace
from revtunnel.link.handshake import AgentHandshake, AgentHello
from revtunnel.link.server_connector import ServerConnector, ServerWay
from revtunnel.link.uplink import Uplink
from revtunnel.sockets.ends import End
from revtunnel.sockets.tls.peer_verification import Identity
from revtunnel.streams.commands import Feature
from revtunnel.streams.window import CreditPool

__all__ = ["FEATURES", "PeerDials", "of_nodes"]

KEEPALIVE, ANSWER = 2.0, 4.0  # seconds
RETRY_MOST = 3.0  # seconds between two dials
POOL = 256 * 1024 * 1024  # bytes of credit beyond the first windows
FEATURES = Feature.ORIGIN | Feature.DATA_SOCKETS | Feature.SESSIONS


def of_nodes(limits: LinkLimits) -> LinkLimits:
    """The limits of links between nodes."""
    idle = replace(limits, keepalive=KEEPALIVE, answer=ANSWER)
    return replace(idle, busy_keepalive=KEEPALIVE, busy_answer=ANSWER)


class _Dial:
    """One node that we dial; that it cannot be had is told once, until it can."""

    uplink: Uplink

    def __init__(self, place: ServerPlace, report: Report) -> None:
        self.place = place
        self._report = report
        self._away = False

    def report(self, fact: Fact) -> None:
        """Pass on what its uplink tells."""
        away = isinstance(fact, ServerState)
        if not (away and self._away):
            self._report(fact)
        self._away = away or (self._away and not isinstance(fact, LinkUp))


class PeerDials:
    """All of them. ``instance`` is the run of this process, ``descriptors`` how many it may have."""

    def __init__(
        self,
        reactor: Any,
        me: str,
        instance: bytes,
        limits: LinkLimits,
        identity: Identity,
        streams: ForwardedStreams,
        report: Report,
        random_bytes: Callable[[int], bytes],
        descriptors: int,
    ) -> None:
        self.identity = identity  # may be replaced: for later connections
        self._reactor = reactor
        self._me = me
        self._instance = instance
        self._limits = of_nodes(limits)
        self._agent_limits = replace(AgentLimits(), retry_most=RETRY_MOST, data_most=65535)
        self._streams = streams
        self._report = report
        self._random_bytes = random_bytes
        self._pool = CreditPool(POOL)
        self._dials: dict[str, _Dial] = {}
        self._connectors: dict[str, ServerConnector] = {}
        told = reactor, self._agent_limits, cast(Any, None), self._again, report, descriptors
        self.data = PeerData(*told)
        self.data.streams = streams

    def take(self, relay: RelayLimits) -> None:
        """Other limits of pairs from now on."""
        self.data.take(self._agent_limits, relay)

    def dial(self, places: Mapping[str, ServerPlace]) -> None:
        """Dial these nodes, and no others."""
        for name in [*self._dials]:
            if places.get(name) != self._dials[name].place:
                self._dials.pop(name).uplink.abort()
        for name, place in places.items():
            if name not in self._dials and name != self._me:
                self._begin(name, place)

    def drain(self, patience: float) -> "Deferred[None]":
        """Take no more clients of other nodes; fires when those that are here have left."""
        drained = self.data.drain()
        for each in self._dials.values():
            each.uplink.stop(patience)
        return drained

    def stop(self) -> None:
        """End all."""
        self.dial({})
        self.data.abort()

    def _begin(self, name: str, place: ServerPlace) -> None:
        way = ServerWay(self.identity, server_name=name)
        self._connectors[name] = connector = ServerConnector(self._reactor, way)
        self._dials[name] = dial = _Dial(place, self._report)
        told = self._reactor, [place], self._agent_limits, random.random
        dial.uplink = Uplink(*told, partial(self._make, name), dial.report, connector.connect)
        dial.uplink.start()

    def _make(self, name: str, ready: Callable[[Any], None], left: Callable[[Any], None]) -> PeerAgentLink:
        hello = AgentHello(
            *(self._me, self._random_bytes(32), (), f"revtunnel {__version__}", self._limits.first_window),
            features=FEATURES,
            instance=self._instance,
        )
        told = self._reactor, self._limits, self._me, AgentHandshake(hello, None, False), cast(Any, None)
        link = PeerAgentLink(*told, self._pool, self._report, ready, left, self.data, NoSite())
        link.node, link.streams = name, self._streams
        return link

    def _again(self, link: PeerAgentLink) -> "Deferred[End]":
        return self._connectors[link.node].again(link, self._agent_limits.connect)
