"""The other nodes of a cluster, as CCCP asks them: where a device is, and which proxies they have.

Rule of this file: the form only. A proxy is at the node whose ``/on`` was called, with its port; a device may
be at any. Its client goes there by the link between the nodes, as a client of a port does. ``/off`` and
``/status`` mean the serial, wherever it has its proxy. What fails is no answer, never an error.

Source: docs/scale-out.rst; wire/cccp.md section 2; ours.
"""

from typing import Any, Protocol

from twisted.internet.defer import Deferred

from revtunnel.fleet.elsewhere import DeviceElsewhere

__all__ = ["Nodes"]

Row = dict[str, Any]


class Nodes(Protocol):
    """Those beside this one."""

    def look(self, serial: str) -> "Deferred[DeviceElsewhere | None]":
        """A device that is at one of them."""

    def proxies(self, serial: str) -> "Deferred[list[Row]]":
        """What ``/status`` says at those that have a proxy for it."""

    def proxies_off(self, serial: str) -> "Deferred[int]":
        """End those; how many there were."""
