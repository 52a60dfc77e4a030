"""The one place that lists, opens, closes, drains: plain methods with plain values, for every interface.

Listings come in pages: ``(rows, next)``, where ``next`` is the cursor for the next page, or None at the end.
Interfaces (AMP, HTTP) only translate. Who may call what is the interface's business; who did it arrives as
``by``.

Source: house.md (operator.py); issue "Admin"; faults.md C1 to C3.
"""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from revtunnel.daemons.kept_ports import KeptPorts
from revtunnel.daemons.kept_records import KeptRecords
from revtunnel.daemons.linked_rows import LinkedRows
from revtunnel.daemons.server_operations import SERVER_OPERATIONS
from revtunnel.daemons.switchboard import Switchboard
from revtunnel.daemons.webhooks import Webhooks
from revtunnel.fleet.devices import Device
from revtunnel.fleet.leases import Leases
from revtunnel.ground.facts import DeviceEnrolled, DeviceRevoked, RevocationLifted
from revtunnel.ground.serials import parse_serial
from revtunnel.link.keys import new_key, parse_key, verifier_of
from revtunnel.process.admin.device_listings import DeviceOperator
from revtunnel.process.admin.operation_form import PAGE, Row
from revtunnel.process.admin.paging import most
from revtunnel.process.admin.refusals import Conflict, NotFound, valid
from revtunnel.process.reporting import Reporter
from revtunnel.state.ledger import SqliteLedger
from revtunnel.state.session_audit import SessionAudit
from revtunnel.systems.emo.ports_in_vain import PortsInVain
from revtunnel.systems.sessions.session_operator import SessionOperator
from revtunnel.trust.app_keys import AppKeys
from revtunnel.trust.host_keys import HostKeys
from revtunnel.trust.issuer import Issuer
from revtunnel.trust.mutes import Mutes
from revtunnel.trust.people_operator import PeopleOperator

if TYPE_CHECKING:
    from revtunnel.cluster.cluster_system import Cluster

__all__ = ["Operator"]

REPLACED = "its certificate was replaced by an operator"


class Operator(DeviceOperator):
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
        people: PeopleOperator,
        mutes: Mutes,
        audit: SessionAudit,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(clock, reporter, name, switchboard.fleet, leases, wall)
        self.linked = LinkedRows(switchboard, leases, self.at)
        self.wires[""] = self.linked
        self.people = people
        self.remote = SessionOperator()
        self.offers = switchboard.offer_changes
        self.mutes = mutes
        self.kept: KeptPorts  # set by the daemon
        self.emo: PortsInVain  # likewise
        self.webhooks: Webhooks  # likewise
        self.records: KeptRecords  # set by the daemon
        self.audit = audit
        self._nodes: Cluster | None = None
        self._switchboard = switchboard
        self._ledger = ledger
        self._issuer = issuer
        self._random_bytes = random_bytes
        self.app_keys = AppKeys(ledger, random_bytes)
        self.host_keys = HostKeys(ledger, wall, audit.changed)
        # set by the daemon, which owns the process
        self.link_port = 0  # where agents come in with TLS; 0: nowhere
        self.data_plane = ""  # python or native: what moves the bytes of joined sockets
        self.others_certify = False  # devices may show certificates that were not made here

    @property
    def draining(self) -> bool:
        return self._switchboard.draining or (self._nodes is not None and self._nodes.stops)

    # -- what is

    def status(self) -> Row:
        """The server in one row: counts, state, problems."""
        penalties = self._switchboard.access.penalties.refused(self._clock.seconds())
        return {
            **super().status(),
            "data_plane": self.data_plane,
            "penalties": penalties,
            "forked": self._issuer.book.forked()[:PAGE],
            "users": self.people.count,
            "muted": len(self.mutes),
            "remote_sessions": self.remote.count,
            "audit_problem": self.audit.problem,
        }

    def record(self, serial: str) -> Row:
        """What a device may do now: its record, where that comes from, and who is locked out of its serial.

        Raises:
            Invalid: not a serial.
        """
        valid(parse_serial, serial)
        access = self._switchboard.access
        return {
            "serial": serial,
            "online": self.here(serial),
            "record": access.records.source(serial),
            **access.records.of(serial).row(),
            "kept": self.records.keys_of(serial),
            "expired": access.expired(serial),
            "muted": self._muted(serial),
            "locked": access.penalties.locked_of(serial, self._clock.seconds()),
        }

    def enrolled(self, after: str = "", limit: int = PAGE) -> tuple[list[str], str | None]:
        """Serials that have a device key, or an app key."""
        limit = most(limit)
        found = {*self._ledger.serials_with_keys(after, limit), *self.app_keys.serials(after, limit)}
        serials = sorted(found)[:limit]
        return serials, (serials[-1] if len(serials) == limit else None)

    def enrolled_devices(self) -> Iterator[str]:
        """Whoever has a key, an app key or a certificate."""
        after: str | None = ""
        while after is not None:
            page, after = self.enrolled(after)
            yield from page
        yield from self._issuer.book.holders()

    @property
    def problem(self) -> str | None:
        """Why what was changed last is not on the disk yet, though it counts; None: it is."""
        return self._ledger.problem or self._issuer.problem

    # -- what is done

    def release(self, serial: str, target: str, by: str) -> int:
        """Give back the port of an absent device's target; the port number.

        Raises:
            NotFound: nothing is promised to it.
            Conflict: the device is here and uses it.
        """
        lease = self._leases.find(serial, target)
        if lease is None:
            raise NotFound(f"no port is promised to {serial}/{target}")
        if self.here(serial):
            raise Conflict(f"{serial} is here; kick it first")
        if any(wire.uses(lease) for wire in self.wires.values() if wire is not self.linked):
            raise Conflict(f"a session of {serial} has it; end that first")
        self._switchboard.ports.close(serial, target)
        self._leases.release(lease, self._clock.seconds())
        return lease.port

    def enroll(self, serial: str, by: str, replace: bool = False) -> str:
        """Make a device key; it is shown here once and never again.

        Raises:
            Invalid: not a serial.
            Conflict: the serial has a key and ``replace`` is False.
        """
        valid(parse_serial, serial)
        if self._ledger.key_of(serial) is not None and not replace:
            raise Conflict(f"{serial} has a key already; revoke it first, or replace it")
        key = new_key(self._random_bytes)
        verifier = verifier_of(parse_key(key), serial)
        self._ledger.put_key(serial, verifier.stored_key, verifier.server_key)
        self._reporter(DeviceEnrolled(serial, by))
        self.linked.kick(serial, "enrolled by an operator", 0, by)
        return key

    def app_key(self, serial: str, by: str, replace: bool = False) -> str:
        """Make the app key of a ThingWorx device; it is shown here once and never again.

        Raises:
            Invalid: not a serial.
            Conflict: the serial has an app key and ``replace`` is False.
        """
        valid(parse_serial, serial)
        if self.app_keys.has(serial) and not replace:
            raise Conflict(f"{serial} has an app key already; revoke it first, or replace it")
        key = self.app_keys.make(serial)
        self._reporter(DeviceEnrolled(serial, by))
        self.linked.kick(serial, "enrolled by an operator", 0, by)
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
        valid(parse_serial, serial)
        before = self._issuer.book.good(serial)
        token = self._issuer.token(serial, by, replace)
        if before:
            self.cut_off(serial, REPLACED, by)
        names = self._issuer.server_names
        host = f"[{names[0]}]" if names and ":" in names[0] else "".join(names[:1])
        return {"token": token, "server": f"{host}:{self.link_port}" if host and self.link_port else ""}

    def certify(self, serial: str, request: bytes, by: str, replace: bool = False) -> tuple[bytes, bytes]:
        """A certificate for the key of a request (PKCS #10), and the authority's; both in DER.

        Raises:
            Invalid: not a serial, or the request cannot be used.
            NotFound, Conflict: as for ``token``.
        """
        valid(parse_serial, serial)
        before = self._issuer.book.good(serial)
        made = self._issuer.certify(serial, request, by, replace)
        if before:
            self.cut_off(serial, REPLACED, by)
        return made

    def revoke(self, serial: str, by: str, lift: bool = False) -> None:
        """Withdraw key, certificates and tokens of a device, and cut it off; ``lift``: as ``lift`` does.

        Raises:
            Invalid: not a serial, where any serial may have a certificate.
            NotFound: the serial has none of them.
        """
        if lift:
            self.lift(serial, by)
            return
        keys = self._ledger.remove_key(serial), self.app_keys.remove(serial)
        if self._issuer.has(serial) or (self.others_certify and not self._issuer.book.barred(serial)):
            valid(parse_serial, serial)
            self._issuer.revoke(serial)
        elif not any(keys):
            raise NotFound(f"{serial} has no key, no certificate and no token")
        self._reporter(DeviceRevoked(serial, by))
        self.cut_off(serial, "revoked by an operator", by)

    def lift(self, serial: str, by: str) -> None:
        """Let certificates of a revoked serial count again that another authority made.

        Raises:
            NotFound: it is not revoked.
        """
        if not self._issuer.book.lift(serial):
            raise NotFound(f"{serial} is not revoked")
        self._reporter(RevocationLifted(serial, by))

    def devices(self, after: str = "", limit: int = PAGE, here: bool = False) -> Any:
        mine = super().devices(after, limit)
        return mine if here or self._nodes is None else self._nodes.devices(mine, after, most(limit))

    def drain_node(self, node: str) -> "Deferred[Any] | None":
        if self._nodes is not None and node == self._nodes.directory.me.name:
            return self.drain()
        return self.cluster.drain_node(node)

    @property
    def cluster(self) -> "Cluster":
        """The nodes. NotFound: there are no others."""
        if self._nodes is None:
            raise NotFound("this server is no node of a cluster")
        return self._nodes

    @cluster.setter
    def cluster(self, cluster: "Cluster") -> None:
        self._nodes = cluster

    def _device(self, device: Device[Any]) -> Row:
        labels = sorted(self._switchboard.access.records.of(device.serial).labels)
        node = self._nodes.directory.me.name if self._nodes is not None else ""
        row = super()._device(device)
        return {**row, "muted": self._muted(device.serial), "labels": labels, "node": node}

    def _muted(self, serial: str) -> str:
        muted = self.mutes.of(serial)
        return muted.text if muted else ""
