"""What the links of ThingWorx devices ask of the server that they are at.

Source: ours.
"""

from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from revtunnel.ground.facts import Report
from revtunnel.ground.limits import EdgeLimits
from revtunnel.ground.targets import Offer
from revtunnel.systems.thingworx.edge_tunnel import EdgeTunnel
from revtunnel.trust.app_keys import AppKeys

__all__ = ["EdgeHost"]


class EdgeHost(Protocol):
    """The site of all of them (edge_system.py)."""

    clock: IReactorTime
    limits: EdgeLimits
    keys: AppKeys
    hub: Any  # link/server_link.py, Hub; our links have what is asked of its ServerLinks
    report: Report

    def services(self, serial: str) -> tuple[Offer, ...]:
        """What a device has, by its record."""

    def random(self, below: int) -> int:
        """A number from 0 that cannot be guessed."""

    def new_tid(self) -> str:
        """The name of one more tunnel: 128 bits that cannot be guessed."""

    def expect(self, tunnel: EdgeTunnel) -> None:
        """Its WebSocket may come, once."""

    def expect_no_more(self, tunnel: EdgeTunnel) -> None:
        """It must not come any more."""

    def left(self, link: Any) -> None:
        """A link is gone."""
