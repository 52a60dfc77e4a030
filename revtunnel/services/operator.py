"""The one place that lists, opens, closes, drains: plain methods with plain values, for every door.

Listings come in pages: ``(rows, next)``, where ``next`` is the cursor for the next page, or None at the end.
Doors (AMP now, HTTP later) only translate. Who may call what is the door's business; who did it arrives as
``by``.

Source: house.md (operator.py); issue "Admin"; faults.md C1 to C3.
"""

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from revtunnel import __version__
from revtunnel.core.devices import Device
from revtunnel.core.facts import DeviceEnrolled, DeviceRevoked, Fact
from revtunnel.core.keys import new_key, parse_key, verifier_of
from revtunnel.core.leases import Leases
from revtunnel.net.server_link import ServerLink
from revtunnel.net.switchboard import Switchboard
from revtunnel.services.ledger import SqliteLedger
from revtunnel.services.refusals import Busy, Conflict, Invalid, NotFound
from revtunnel.services.reporting import Reporter
from revtunnel.wire.errors import RemoteError
from revtunnel.wire.serials import parse_serial

__all__ = ["PAGE", "Operator", "Row"]

Row = dict[str, Any]
PAGE = 200  # rows at most


class Operator:
    """Everything an operator can see and do. ``wall`` gives seconds since 1970, for people."""

    def __init__(
        self,
        clock: IReactorTime,
        switchboard: Switchboard,
        leases: Leases,
        ledger: SqliteLedger,
        reporter: Reporter,
        name: str,
        random_bytes: Callable[[int], bytes],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._switchboard = switchboard
        self._leases = leases
        self._ledger = ledger
        self._reporter = reporter
        self._name = name
        self._random_bytes = random_bytes
        self._wall = wall
        self._since = clock.seconds()
        # set by the daemon, which owns the process
        self.on_drain: Callable[[], None] = lambda: None
        self.on_reload: Callable[[], Deferred[Row]] | None = None
        self.on_log_level: Callable[[str], None] = lambda level: None

    @property
    def state(self) -> str:
        """``running`` or ``draining``."""
        return "draining" if self._switchboard.draining else "running"

    # -- what is

    def ping(self) -> Row:
        """The least that says the server is alive."""
        return {"state": self.state, "name": self._name, "version": __version__}

    def status(self) -> Row:
        """The server in one row: counts, state, problems."""
        board = self._switchboard
        return {
            **self.ping(),
            "since": self._at(self._since),
            "uptime": round(self._clock.seconds() - self._since, 3),
            "devices": len(board.registry),
            "links": len(board.links),
            "clients": board.clients,
            "channels": sum(link.mux.running for link in board.links if link.mux),
            "ports": {name: asdict(counts) for name, counts in self._leases.counts().items()},
            "counts": dict(sorted(board.counts.items())),
            "ledger_problem": self._ledger.problem or "",
        }

    def devices(self, after: str = "", limit: int = PAGE) -> tuple[list[Row], str | None]:
        """Devices that are here or were, by serial."""
        found = [device for device in self._switchboard.registry if device.serial > after]
        return self._page([self._device(d) for d in found[: self._most(limit)]], found, limit, "serial")

    def ports(self, after: int = 0, limit: int = PAGE) -> tuple[list[Row], int | None]:
        """Every port that is promised, rests or is set aside, by number."""
        limit = self._most(limit)
        leases = self._leases.ports(after, limit)
        now = self._clock.seconds()
        rows = [
            {
                "serial": lease.serial,
                "target": lease.target,
                "port": lease.port,
                "address": lease.address,
                "pool": lease.pool,
                "state": lease.state.value,
                "open": self._switchboard.ports.is_open(lease.serial, lease.target, lease.port),
                "fixed": lease.fixed,
                "since": self._at(lease.since),
                "left": None if lease.until is None else round(max(0.0, lease.until - now), 1),
            }
            for lease in leases
        ]
        return rows, (leases[-1].port if len(leases) == limit else None)

    def channels(
        self, serial: str | None = None, after: tuple[str, int] = ("", 0), limit: int = PAGE
    ) -> tuple[list[Row], tuple[str, int] | None]:
        """Running channels, by serial and number."""
        limit = self._most(limit)
        rows: list[Row] = []
        for link in sorted(self._switchboard.links, key=lambda link: link.serial):
            if serial is None or link.serial == serial:
                rows += [row for row in self._channels(link) if (row["serial"], row["channel"]) > after]
            if len(rows) > limit:
                break
        rows = rows[: limit + 1]
        if len(rows) <= limit:
            return rows, None
        return rows[:limit], (rows[limit - 1]["serial"], rows[limit - 1]["channel"])

    def enrolled(self, after: str = "", limit: int = PAGE) -> tuple[list[str], str | None]:
        """Serials that have a device key."""
        limit = self._most(limit)
        serials = self._ledger.serials_with_keys(after, limit)
        return serials, (serials[-1] if len(serials) == limit else None)

    @property
    def problem(self) -> str | None:
        """Why what was changed last is not on the disk yet, though it counts; None: it is."""
        return self._ledger.problem

    def watch(self, watcher: Callable[[Fact], None]) -> Callable[[], None]:
        """Have every fact from now on; call the answer to end it."""
        return self._reporter.watch(watcher)

    # -- what is done

    def close(self, serial: str, channel: int, by: str) -> None:
        """End one channel with a reset.

        Raises:
            NotFound: no such channel runs.
        """
        if not self._switchboard.close_channel(serial, channel, f"closed by {by}"):
            raise NotFound(f"no channel {channel} of {serial} is open")

    def kick(self, serial: str, retry_after: int, by: str) -> None:
        """End a device's link and ask it to stay away for ``retry_after`` seconds, 0 to 65535.

        Raises:
            NotFound: the device is not here.
            Invalid: the time is out of range.
        """
        if not 0 <= retry_after <= 65535:
            raise Invalid(f"retry-after {retry_after}: 0 to 65535 seconds wanted")
        if not self._switchboard.kick(serial, f"by {by}", retry_after):
            raise NotFound(f"{serial} is not here")

    def release(self, serial: str, target: str, by: str) -> int:
        """Give back the port of an absent device's target; the port number.

        Raises:
            NotFound: nothing is promised to it.
            Conflict: the device is here and uses it.
        """
        lease = self._leases.find(serial, target)
        if lease is None:
            raise NotFound(f"no port is promised to {serial}/{target}")
        device = self._switchboard.registry.get(serial)
        if device is not None and device.online:
            raise Conflict(f"{serial} is here; kick it first")
        self._switchboard.ports.close(serial, target)
        self._leases.release(lease, self._clock.seconds())
        return lease.port

    def enroll(self, serial: str, by: str, replace: bool = False) -> str:
        """Make a device key; it is shown here once and never again.

        Raises:
            Invalid: not a serial.
            Conflict: the serial has a key and ``replace`` is False.
        """
        try:
            parse_serial(serial)
        except RemoteError as error:
            raise Invalid(str(error)) from None
        if self._ledger.key_of(serial) is not None and not replace:
            raise Conflict(f"{serial} has a key already; revoke it first, or replace it")
        key = new_key(self._random_bytes)
        verifier = verifier_of(parse_key(key), serial)
        self._ledger.put_key(serial, verifier.stored_key, verifier.server_key)
        self._reporter(DeviceEnrolled(serial, by))
        self._switchboard.kick(serial, f"enrolled by {by}", 0)
        return key

    def revoke(self, serial: str, by: str) -> None:
        """Withdraw a device key and cut the device's link.

        Raises:
            NotFound: the serial has no key.
        """
        if not self._ledger.remove_key(serial):
            raise NotFound(f"{serial} has no key")
        self._reporter(DeviceRevoked(serial, by))
        self._switchboard.kick(serial, f"revoked by {by}", 0)

    def drain(self) -> None:
        """Stop the server as SIGTERM does. Asking again changes nothing; a second signal would abort."""
        if not self._switchboard.draining:
            self.on_drain()

    def reload(self) -> "Deferred[Row]":
        """Read the settings again: ``changed``, ``needs_restart`` and ``errors``.

        Raises:
            Busy: the server is on its way out.
            Conflict: this server has no settings to read.
        """
        if self._switchboard.draining:
            raise Busy("the server is draining")
        if self.on_reload is None:
            raise Conflict("this server cannot reload")
        return self.on_reload()

    def log_level(self, level: str) -> None:
        """Change how much is logged until the next restart or reload.

        Raises:
            Invalid: not a level.
        """
        try:
            self.on_log_level(level)
        except ValueError as error:
            raise Invalid(str(error)) from None

    # -- rows

    def _device(self, device: Device[ServerLink]) -> Row:
        link = device.link
        mux = link.mux if link is not None else None
        running = [channel for channel in mux.channels.values() if not channel.over] if mux else []
        trip = mux.liveness.round_trip if mux else None
        hello = link.handshake.hello if link is not None and link.handshake else None
        return {
            "serial": device.serial,
            "online": device.online,
            "since": self._at(device.since),
            "link": mux.wire if mux else "",
            "listener": link.listener.rules.name if link else "",
            "address": link.peer if link else "",
            "authenticated": device.authenticated,
            "software": hello.software if hello else "",
            "targets": [
                self._target(device.serial, offer.name, str(offer.target)) for offer in device.offers
            ],
            "channels": len(running),
            "channels_total": device.channels,
            "links_total": device.links,
            "bytes_to_device": device.bytes_to_device + sum(c.bytes_sent for c in running),
            "bytes_to_client": device.bytes_to_client + sum(c.bytes_received for c in running),
            "round_trip": None if trip is None else round(trip, 6),
        }

    def _target(self, serial: str, name: str, target: str) -> Row:
        lease = self._leases.find(serial, name)
        return {"name": name, "target": target, "port": lease.port if lease else None}

    def _channels(self, link: ServerLink) -> list[Row]:
        if link.mux is None:
            return []
        now = self._clock.seconds()
        return [
            {
                "serial": link.serial,
                "channel": channel.number,
                "target": channel.owner.name,
                "client": channel.owner.peer,
                "state": channel.state.name.lower().replace("_", "-"),
                "since": self._at(channel.owner.since),
                "seconds": round(now - channel.owner.since, 3),
                "bytes_to_device": channel.bytes_sent,
                "bytes_to_client": channel.bytes_received,
                "waiting_to_device": channel.queued,
                "waiting_to_client": channel.window.held if channel.window is not None else channel.owed,
            }
            for channel in sorted(link.mux.channels.values(), key=lambda channel: channel.number)
            if not channel.over and channel.owner is not None
        ]

    def _at(self, monotonic: float) -> str:
        """A monotonic time as UTC, for people."""
        wall = self._wall() - (self._clock.seconds() - monotonic)
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wall))

    @staticmethod
    def _most(limit: int) -> int:
        return max(1, min(limit, PAGE))

    def _page(self, rows: list[Row], found: list[Any], limit: int, key: str) -> tuple[list[Row], str | None]:
        return rows, (rows[-1][key] if rows and len(found) > self._most(limit) else None)
