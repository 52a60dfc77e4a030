"""Devices that are at other nodes, for whoever has to know more of one than where its clients go.

Rule of this file: the form only. What is known of such a device is what its node said when it was asked last:
it serves to decide what is tried, and its node decides whether it is done. A server that is alone has no
``OtherNodes`` at all.

Source: docs/scale-out.rst; ours.
"""

from typing import NamedTuple, Protocol

from twisted.internet.defer import Deferred

from revtunnel.ground.targets import Offer
from revtunnel.streams.consent_messages import ConsentRequest

__all__ = ["DeviceElsewhere", "OtherNodes"]


class DeviceElsewhere(NamedTuple):
    """A device that is at another node, as that sees it."""

    serial: str
    node: str
    system: str  # its wire, as in devices.py
    peer: str  # host:port
    offers: tuple[Offer, ...]  # that its record allows
    free: bool = True  # whether a client is served at once
    asks: bool = False  # whether its site is asked for remote sessions
    refusal: str = ""  # why it has no remote sessions, or none of this kind


class OtherNodes(Protocol):
    """The other nodes, as one of them asks about devices. What it answers with never fails."""

    def undecided(self, serial: str) -> str | None:
        """Why nobody could say, when asked last, where a device is or what it is; None: it was said."""

    def known(self, serial: str) -> DeviceElsewhere | None:
        """What was said of a device a few seconds ago at most; no I/O."""

    def look(self, serial: str) -> "Deferred[DeviceElsewhere | None]":
        """Ask for a device that is not here; None: it is at none that can be asked, or nobody knows."""

    def page(self, after: str, limit: int) -> "Deferred[list[DeviceElsewhere]]":
        """Devices that are at others behind a serial, in order, at most ``limit``."""

    def ask_for(self, serial: str, asked: ConsentRequest) -> None:
        """Have its node ask a device's site for a session that begins here, and keep it."""

    def over(self, serial: str, session: str) -> None:
        """That session has ended."""
