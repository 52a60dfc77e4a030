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

from twisted.internet.interfaces import IReactorTime

from revtunnel.daemons.server_operations import SERVER_OPERATIONS
from revtunnel.daemons.switchboard import Switchboard
from revtunnel.fleet.devices import Device
from revtunnel.fleet.leases import Leases
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.facts import DeviceEnrolled, DeviceRevoked, RevocationLifted
from revtunnel.ground.serials import parse_serial
from revtunnel.link.keys import new_key, parse_key, verifier_of
from revtunnel.process.door.caretaker import Caretaker
from revtunnel.process.door.operation import PAGE, Row
from revtunnel.process.door.refusals import Conflict, Invalid, NotFound
from revtunnel.process.reporting import Reporter
from revtunnel.state.ledger import SqliteLedger
from revtunnel.streams.running import Running
from revtunnel.trust.issuer import Issuer, written

__all__ = ["PAGE", "Operator", "Row"]

REPLACED = "its certificate was replaced by an operator"


class Operator(Caretaker):
    """Everything an operator can see and do. ``wall`` gives seconds since 1970, for people."""

    operations = SERVER_OPERATIONS

    def __init__(
        self,
        clock: IReactorTime,
        switchboard: Switchboard,
        leases: Leases,
        ledger: SqliteLedger,
        issuer: Issuer,
        reporter: Reporter,
        name: str,
        random_bytes: Callable[[int], bytes],
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock, reporter, name, wall)
        self._switchboard = switchboard
        self._leases = leases
        self._ledger = ledger
        self._issuer = issuer
        self._random_bytes = random_bytes
        # set by the daemon, which owns the process
        self.link_port = 0  # where agents come in with TLS; 0: nowhere
        self.others_certify = False  # devices may show certificates that were not made here

    @property
    def draining(self) -> bool:
        return self._switchboard.draining

    # -- what is

    def status(self) -> Row:
        """The server in one row: counts, state, problems."""
        board = self._switchboard
        return {
            **super().status(),
            "devices": len(board.fleet),
            "links": len(board.links),
            "clients": board.clients,
            "channels": len(board.streams),
            "ports": {name: asdict(counts) for name, counts in self._leases.counts().items()},
            "penalties": board.gate.penalties.refused(self._clock.seconds()),
            "counts": dict(sorted(board.counts.items())),
            "ledger_problem": self.problem or "",
        }

    def devices(self, after: str = "", limit: int = PAGE) -> tuple[list[Row], str | None]:
        """Devices that are here or were, by serial."""
        limit = self._most(limit)
        found = self._switchboard.fleet.page(after, limit + 1)
        rows = [self._device(each) for each in found[:limit]]
        return rows, (found[limit - 1].serial if len(found) > limit else None)

    def record(self, serial: str) -> Row:
        """What a device may do now: its record, where that comes from, and who is locked out of its serial.

        Raises:
            Invalid: not a serial.
        """
        try:
            parse_serial(serial)
        except RemoteError as error:
            raise Invalid(str(error)) from None
        gate = self._switchboard.gate
        device = self._switchboard.fleet.get(serial)
        return {
            "serial": serial,
            "online": device is not None and device.online,
            "record": gate.records.source(serial),
            **gate.records.of(serial).row(),
            "expired": gate.expired(serial),
            "locked": gate.penalties.locked_of(serial, self._clock.seconds()),
        }

    def ports(self, after: int = 0, limit: int = PAGE) -> tuple[list[Row], int | None]:
        """Every port that is promised, rests or is set aside, by number."""
        ports = self._switchboard.ports
        return self._port_rows(
            self._leases, lambda lease: ports.is_open(lease.serial, lease.target, lease.port), after, limit
        )

    def channels(
        self, serial: str | None = None, after: tuple[str, int] = ("", 0), limit: int = PAGE
    ) -> tuple[list[Row], tuple[str, int] | None]:
        """Running channels, by serial and number."""
        limit = self._most(limit)
        streams = self._switchboard.streams
        if serial is None:
            found = streams.page(after, limit + 1)
        else:
            found = [each for each in streams.rows(serial) if (each.serial, each.number) > after]
        rows = [self._channel(each) for each in found[:limit]]
        if len(found) <= limit:
            return rows, None
        return rows, (found[limit - 1].serial, found[limit - 1].number)

    def enrolled(self, after: str = "", limit: int = PAGE) -> tuple[list[str], str | None]:
        """Serials that have a device key."""
        limit = self._most(limit)
        serials = self._ledger.serials_with_keys(after, limit)
        return serials, (serials[-1] if len(serials) == limit else None)

    @property
    def problem(self) -> str | None:
        """Why what was changed last is not on the disk yet, though it counts; None: it is."""
        return self._ledger.problem or self._issuer.problem

    # -- what is done

    def close(self, serial: str, channel: int, by: str) -> None:
        """End one channel with a reset.

        Raises:
            NotFound: no such channel runs.
        """
        if not self._switchboard.close_channel(serial, channel, "closed by an operator"):
            raise NotFound(f"no channel {channel} of {serial} is open")

    def kick(self, serial: str, retry_after: int, by: str) -> None:
        """End a device's link and ask it to stay away for ``retry_after`` seconds, 0 to 65535.

        Raises:
            NotFound: the device is not here.
            Invalid: the time is out of range.
        """
        if not 0 <= retry_after <= 65535:
            raise Invalid(f"retry-after {retry_after}: 0 to 65535 seconds wanted")
        if not self._switchboard.kick(serial, "by an operator", retry_after, by):
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
        device = self._switchboard.fleet.get(serial)
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
        self._check_serial(serial)
        if self._ledger.key_of(serial) is not None and not replace:
            raise Conflict(f"{serial} has a key already; revoke it first, or replace it")
        key = new_key(self._random_bytes)
        verifier = verifier_of(parse_key(key), serial)
        self._ledger.put_key(serial, verifier.stored_key, verifier.server_key)
        self._reporter(DeviceEnrolled(serial, by))
        self._switchboard.kick(serial, "enrolled by an operator", 0, by)
        return key

    def authority(self) -> Row:
        """The authority of this server in one row.

        Raises:
            NotFound: there is none.
        """
        return self._issuer.about()

    def token(self, serial: str, by: str, replace: bool = False) -> Row:
        """A one-time token for an agent, shown here once, and where that agent should dial, as far as known.

        Raises:
            Invalid: not a serial.
            NotFound: there is no authority.
            Conflict: the serial has a certificate and ``replace`` is False; with it, that one is revoked.
            Busy: too many tokens wait.
        """
        self._check_serial(serial)
        before = self._issuer.book.good(serial)
        token = self._issuer.token(serial, by, replace)
        if before:
            self._switchboard.kick(serial, REPLACED, 0, by)
        names = self._issuer.server_names
        host = f"[{names[0]}]" if names and ":" in names[0] else "".join(names[:1])
        return {"token": token, "server": f"{host}:{self.link_port}" if host and self.link_port else ""}

    def certify(self, serial: str, request: bytes, by: str, replace: bool = False) -> tuple[bytes, bytes]:
        """A certificate for the key of a request (PKCS #10), and the authority's; both in DER.

        Raises:
            Invalid: not a serial, or the request cannot be used.
            NotFound, Conflict: as for ``token``.
        """
        self._check_serial(serial)
        before = self._issuer.book.good(serial)
        made = self._issuer.certify(serial, request, by, replace)
        if before:
            self._switchboard.kick(serial, REPLACED, 0, by)
        return made

    def revoke(self, serial: str, by: str, lift: bool | None = False) -> None:
        """Withdraw key, certificates and tokens of a device, and cut it off; ``lift``: as ``lift`` does.

        Raises:
            Invalid: not a serial, where any serial may have a certificate.
            NotFound: the serial has none of them.
        """
        if lift:
            self.lift(serial, by)
            return
        had_key = self._ledger.remove_key(serial)
        if self._issuer.has(serial) or (self.others_certify and not self._issuer.book.barred(serial)):
            self._check_serial(serial)
            self._issuer.revoke(serial)
        elif not had_key:
            raise NotFound(f"{serial} has no key, no certificate and no token")
        self._reporter(DeviceRevoked(serial, by))
        self._switchboard.kick(serial, "revoked by an operator", 0, by)

    def lift(self, serial: str, by: str) -> None:
        """Let certificates of a revoked serial count again that another authority made.

        Raises:
            NotFound: it is not revoked.
        """
        if not self._issuer.book.lift(serial):
            raise NotFound(f"{serial} is not revoked")
        self._reporter(RevocationLifted(serial, by))

    # -- rows

    def _device(self, device: Device[Any]) -> Row:
        link = device.link if device.carrier is not None else None  # else it is of another wire
        mux = link.mux if link is not None else None
        running = self._switchboard.streams.rows(device.serial)
        trip = mux.liveness.round_trip if mux else None
        hello = link.handshake.hello if link is not None and link.handshake else None
        shown = link.certificate if link is not None else None
        return {
            "serial": device.serial,
            "online": device.online,
            "since": self._at(device.since),
            "link": device.system if device.online else "",
            "listener": device.listener if device.online else "",
            "address": device.peer if device.online else "",
            "authenticated": device.authenticated,
            "tls": link.tls if link else "",
            "certificate": shown.fingerprint if shown else "",
            "certificate_until": written(shown.expires) if shown else None,
            "software": hello.software if hello else "",
            "targets": [
                self._target(device.serial, offer.name, str(offer.target)) for offer in device.offers
            ],
            "channels": len(running),
            "channels_total": device.channels,
            "links_total": device.links,
            "bytes_to_device": device.bytes_to_device + sum(each.bytes_to_device for each in running),
            "bytes_to_client": device.bytes_to_client + sum(each.bytes_to_client for each in running),
            "round_trip": None if trip is None else round(trip, 6),
        }

    def _target(self, serial: str, name: str, target: str) -> Row:
        lease = self._leases.find(serial, name)
        return {"name": name, "target": target, "port": lease.port if lease else None}

    def _channel(self, channel: Running) -> Row:
        return {
            "serial": channel.serial,
            "channel": channel.number,
            "target": channel.target,
            "client": channel.client,
            "carrier": channel.carrier,
            "state": channel.state,
            "since": self._at(channel.since),
            "seconds": round(self._clock.seconds() - channel.since, 3),
            "bytes_to_device": channel.bytes_to_device,
            "bytes_to_client": channel.bytes_to_client,
            "waiting_to_device": channel.waiting_to_device,
            "waiting_to_client": channel.waiting_to_client,
        }

    @staticmethod
    def _check_serial(serial: str) -> None:
        try:
            parse_serial(serial)
        except RemoteError as error:
            raise Invalid(str(error)) from None
