"""What operators see of devices that have a link (rt1, ReadyAgent, EMO), and can do (wires.Wire)."""

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from revtunnel.daemons.switchboard import Switchboard
from revtunnel.fleet.devices import Device
from revtunnel.fleet.leases import Leases
from revtunnel.fleet.pools import Lease
from revtunnel.link.server_link import ServerLink
from revtunnel.process.admin.device_listings import At, Place
from revtunnel.process.admin.device_operations import SESSIONS
from revtunnel.process.admin.operation_form import Row
from revtunnel.streams.running import Running
from revtunnel.trust.issuer import written

__all__ = ["LinkedRows"]


class LinkedRows:
    """The switchboard's. ``granted``: a client, by device and address, has its use from elsewhere."""

    def __init__(self, switchboard: Switchboard, leases: Leases, at: At) -> None:
        self.granted: Callable[[str, str], bool] = lambda serial, client: False
        # of workers, where there are any: their streams, and how many they have of what is counted
        self.elsewhere: Callable[[], Iterable[Running]] = lambda: ()
        self.beside: Callable[[], dict[str, int]] = dict
        self._switchboard = switchboard
        self._leases = leases
        self._at = at

    def about(self, device: Device[Any]) -> tuple[list[Running], Row]:
        problems = self._switchboard.enforcement.problems(device)
        targets = [
            {
                "name": each.name,
                "target": str(each.target),
                "port": self._port(device.serial, each.name),
                "problem": problems.get(each.name, ""),
                **self._state(device.link, each.name),
            }
            for each in device.offers
        ]
        return self._switchboard.streams.rows(device.serial), {"targets": targets, **self._link(device.link)}

    def streams(self, serial: str | None, after: Place, limit: int) -> list[Running]:
        streams = self._switchboard.streams
        if serial is None:
            others = {each for each in self.elsewhere() if (each.serial, each.number) > after}
            mine = streams.page(after, limit)
            return sorted(others.union(mine))[:limit] if others else mine
        return [each for each in streams.rows(serial) if (each.serial, each.number) > after][:limit]

    def sessions(self, serial: str | None, after: Place, limit: int) -> list[Row]:
        found: list[Row] = []
        while len(found) < limit:
            page = self.streams(serial, after, limit)
            found += [self._session(each) for each in page if not self.granted(each.serial, each.client)]
            if len(page) < limit:
                break
            after = page[-1].serial, page[-1].number
        return found[:limit]

    def counts(self) -> dict[str, int]:
        board = self._switchboard
        board.doors.fetch()
        mine = {"links": len(board.links), "clients": board.clients, "channels": len(board.streams)}
        return mine | {name: mine[name] + count for name, count in self.beside().items()}

    def facts(self) -> Counter[str]:
        self._switchboard.doors.fetch()
        return self._switchboard.counts

    def uses(self, lease: Lease) -> bool:
        return self._switchboard.ports.is_open(lease.serial, lease.target, lease.port)

    def kick(self, serial: str, detail: str, retry_after: int, by: str) -> bool:
        return self._switchboard.kick(serial, detail, retry_after, by)

    def close(self, serial: str, channel: int, detail: str) -> bool:
        return self._switchboard.close_channel(serial, channel, detail)

    # -- rows

    @staticmethod
    def _state(link: ServerLink | None, name: str) -> Row:
        """Whether it answers, if its agent looks at it."""
        mux = getattr(link, "mux", None)  # a ThingWorx device has none
        state = getattr(mux, "service_states", {}).get(name)
        return {"up": state.up if state else None, "detail": state.detail if state else ""}

    def _link(self, link: ServerLink | None) -> Row:
        if link is None:
            return {}
        shown, trip = link.certificate, link.round_trip
        return {
            "way": "web" if link.by_web else "port",
            "tls": link.tls,
            "certificate": shown.fingerprint if shown else "",
            "certificate_until": written(shown.expires) if shown else None,
            "software": link.software,
            "round_trip": None if trip is None else round(trip, 6),
        }

    def _session(self, channel: Running) -> Row:
        return SESSIONS.row(
            channel,
            channel=channel.number,
            kind="port",
            port=self._port(channel.serial, channel.target),
            since=self._at(channel.since),
            bytes=channel.bytes_to_device + channel.bytes_to_client,
            persistent=False,
        )

    def _port(self, serial: str, name: str) -> int | None:
        lease = self._leases.find(serial, name)
        return lease.port if lease else None
