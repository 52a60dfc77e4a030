"""What a node of a cluster has of a server's switchboard (cluster/cluster_system.py, NodeBoard)."""

from collections.abc import Callable
from typing import Any

from revtunnel.daemons.switchboard import Switchboard
from revtunnel.ground.reasons import GoAway
from revtunnel.streams.clients import Clients, ClientSocket

__all__ = ["BoardOfNode"]

ELSEWHERE = "by a link at another node"


class BoardOfNode:
    """The switchboard, as other nodes see it. ``kick`` ends a device's connection of any wire."""

    def __init__(self, board: Switchboard, kick: Callable[[str, str], object]) -> None:
        self.fleet, self.data = board.fleet, board.data
        self._board = board
        self._kick = kick

    @property
    def clients(self) -> int:
        return self._board.clients

    def forward(self, give: Callable[[ClientSocket], str] | None) -> None:
        self._board.client_streams.elsewhere = give

    def absent(self, client: ClientSocket) -> None:
        self._board.client_streams.absent(client)

    def clients_for_node(self, serial: str, offer: str, session: str) -> Clients | None:
        device = self.fleet.get(serial)
        if device is None or device.carrier is None:
            return None
        return self._board.client_streams.clients_by_name(serial, offer, lambda client: None, session)

    def moved(self, serial: str) -> None:
        device = self.fleet.get(serial)
        link: Any = device.link if device is not None else None
        if hasattr(link, "dismiss"):
            link.dismiss("replaced", ELSEWHERE, GoAway.REPLACED)
        else:
            self._kick(serial, ELSEWHERE)
