"""Devices of other wires (rt1, ReadyAgent, EMO) as a proxy session sees them: clients go by their link.

The rule: a session's port and its manners are CCCP's; who may have a stream, and how it is carried, is the
switchboard's, as for the clients of any port.

Source: issue "CCCP" (``/on`` reaches every kind of device); ours.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.protocol import Protocol

from revtunnel.daemons.switchboard import Switchboard
from revtunnel.ground.facts import ChannelEnded, Fact
from revtunnel.streams.clients import ClientSocket
from revtunnel.systems.cccp.proxies import Proxy

__all__ = ["LinkedDevices"]


class LinkedDevices:
    """The switchboard's devices (``proxies.Linked``). ``told`` must hear of every fact."""

    def __init__(self, switchboard: Switchboard) -> None:
        self._switchboard = switchboard
        self._clients: dict[str, ClientSocket] = {}  # by serial
        self._sums: dict[str, int] = {}  # bytes of streams that ended

    def here(self, serial: str) -> bool:
        """Whether its link is up."""
        device = self._switchboard.registry.get(serial)
        return device is not None and device.online

    def knows(self, serial: str) -> bool:
        """Whether there is, or was, such a device."""
        return self._switchboard.registry.get(serial) is not None

    def targets(self, serial: str) -> list[str]:
        """The names of what it offers and its record allows."""
        device = self._switchboard.registry.get(serial)
        offers = device.offers if device is not None else ()
        return [offer.name for offer in self._switchboard.gate.offers(serial, offers)]

    def client(self, proxy: Proxy, address: Any, left: Callable[[], None]) -> Protocol | None:
        """A client for the session's target, or the first one; None: the device is away, or has no such."""
        serial, wanted = proxy.session.serial, proxy.session.options.target
        names = self.targets(serial)
        if not self.here(serial) or not names or wanted not in ("", *names):
            return None
        self._sums[serial] = 0
        factory = self._switchboard.client_streams.factory_by_name(serial, wanted or names[0])
        found = factory.buildProtocol(address)
        leave = factory.left
        factory.left = partial(self._left, leave, left)
        self._clients[serial] = found
        return found

    def moved(self, proxy: Proxy) -> int:
        """Payload bytes of the stream, also just after it ended."""
        serial = proxy.session.serial
        client = self._clients.get(serial)
        peer = client.peer if client is not None else None
        rows = [row for row in self._switchboard.running(serial) if row.client == peer]
        return self._sums.get(serial, 0) + sum(row.bytes_to_device + row.bytes_to_client for row in rows)

    def end(self, proxy: Proxy) -> None:
        """Close the stream of a session."""
        client = self._clients.get(proxy.session.serial)
        if client is None:
            return
        for row in self._switchboard.running(proxy.session.serial):
            if row.client == client.peer:
                self._switchboard.close_channel(row.serial, row.number, "its proxy session ended")
                return
        client.abort()

    def told(self, fact: Fact) -> None:
        """Keep the sum of a session's stream."""
        if isinstance(fact, ChannelEnded):
            client = self._clients.get(fact.serial)
            if client is not None and client.peer == fact.peer:
                self._sums[fact.serial] = fact.bytes_to_device + fact.bytes_to_client

    def _left(
        self, leave: Callable[[ClientSocket], None], left: Callable[[], None], client: ClientSocket
    ) -> None:
        leave(client)
        if self._clients.get(client.serial) is client:
            left()
            del self._clients[client.serial]
