"""What operators see of CCCP's devices, sessions and pairs at the admin socket, and can do with them.

Source: wire/cccp.md; issue "Admin".
"""

import socket
from collections import Counter
from typing import Any

from revtunnel.fleet.devices import Device
from revtunnel.fleet.leases import Leases
from revtunnel.fleet.pools import Lease
from revtunnel.ground.reasons import GoAway
from revtunnel.process.admin.device_listings import At, DeviceOperator, Place
from revtunnel.process.admin.device_operations import SESSIONS
from revtunnel.process.admin.operation_form import Row
from revtunnel.process.reporting import Reporter
from revtunnel.state.ledger import SqliteLedger
from revtunnel.streams.running import Running
from revtunnel.systems.cccp.cccp_operations import CCCP_OPERATIONS
from revtunnel.systems.cccp.cccp_system import CccpSystem
from revtunnel.systems.cccp.idle_devices import Registered
from revtunnel.systems.cccp.proxy import RunningProxy
from revtunnel.systems.cccp.proxy_ports import TARGET

__all__ = ["CccpOperator", "CccpRows"]


class CccpRows:
    """CCCP as one of the wires (wires.Wire). A pair, and a session, has the number 0 at its device."""

    def __init__(self, system: CccpSystem, at: At) -> None:
        self._system = system
        self._proxies = system.proxies
        self._at = at

    def about(self, device: Device[Any]) -> tuple[list[Running], Row]:
        proxy = self._proxies.get(device.serial)
        port = None if proxy is None else proxy.port.number
        names = {TARGET: port} | {each.name: None for each in device.offers}
        more: Row = {"targets": [{"name": name, "target": "", "port": at} for name, at in names.items()]}
        if isinstance(device.link, Registered):
            more["tls"] = device.link.arrival.tls
            if device.link.stream is not None:
                return [device.link.stream.row()], more
        return _pair(proxy), more

    def streams(self, serial: str | None, after: Place, limit: int) -> list[Running]:
        return [each for proxy in self._behind(serial, after, limit, True) for each in _pair(proxy)]

    def sessions(self, serial: str | None, after: Place, limit: int) -> list[Row]:
        return [self._session(proxy) for proxy in self._behind(serial, after, limit)]

    def counts(self) -> dict[str, int]:
        sessions, counts = list(self._proxies), self._system.counts()
        del counts["devices"]  # the fleet's, of all wires
        counts["clients"] -= sum(proxy.linked is not None for proxy in sessions)  # another wire counts them
        return {**counts, "channels": sum(proxy.relay is not None for proxy in sessions)}

    def facts(self) -> Counter[str]:
        return self._system.facts

    def uses(self, lease: Lease) -> bool:
        proxy = self._proxies.get(lease.serial)
        return proxy is not None and lease.target == TARGET and proxy.port.number == lease.port

    def kick(self, serial: str, detail: str, retry_after: int, by: str) -> bool:
        device = self._proxies.parking.get(serial)
        if device is not None:
            device.dismiss("kicked", detail, GoAway.OPERATOR, retry_after, by)
        return device is not None

    def close(self, serial: str, channel: int, detail: str) -> bool:
        return channel == 0 and self._proxies.cut_pair(serial, "operator")

    def grants(self, serial: str, client: str) -> bool:
        """Whether a client that goes by a device's link has its use from a session."""
        proxy = self._proxies.get(serial)
        return proxy is not None and proxy.linked is not None and proxy.linked.peer == client

    # -- inside

    def _behind(
        self, serial: str | None, after: Place, limit: int, joined: bool = False
    ) -> list[RunningProxy]:
        """Sessions by serial; each has the number 0, so what is behind a place is of a later serial."""
        if serial is None:
            return self._proxies.sessions(after[0], limit, joined)
        proxy = self._proxies.get(serial)
        return [] if proxy is None or serial <= after[0] else [proxy]

    def _session(self, proxy: RunningProxy) -> Row:
        session = proxy.session
        return SESSIONS.row(
            session,
            channel=0,
            kind="cccp",
            state=session.life.value,
            target=session.options.target or TARGET,
            port=proxy.port.number,
            client=proxy.client,
            since=self._at(session.since),
            until=None if session.until is None else self._at(session.until),
            bytes=proxy.transferred,
            persistent=session.options.persistent,
            project=proxy.project.name,
        )


def _pair(proxy: RunningProxy | None) -> list[Running]:
    """The channel of a session whose ends are joined."""
    if proxy is None or proxy.relay is None:
        return []
    relay, serial = proxy.relay, proxy.session.serial
    moved = relay.to_far, relay.to_near, relay.held_for_far, relay.held_for_near
    return [Running(serial, 0, TARGET, proxy.client, "pair", "open", proxy.client_since, *moved)]


class CccpOperator(DeviceOperator):
    """The daemon as operators see it; proxies are started and ended by the API."""

    operations = CCCP_OPERATIONS

    def __init__(
        self, clock: Any, system: CccpSystem, leases: Leases, ledger: SqliteLedger, reporter: Reporter
    ) -> None:
        super().__init__(clock, reporter, socket.gethostname(), system.fleet, leases)
        self.wires[""] = CccpRows(system, self.at)
        self._system = system
        self._ledger = ledger

    @property
    def draining(self) -> bool:
        return self._system.operator.draining

    @property
    def problem(self) -> str | None:
        return self._ledger.problem
