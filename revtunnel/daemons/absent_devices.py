"""Devices that are away: listed, their ports held, their clients told to wait, legacy ones woken.

Rule of this file: settings and ledger say which devices there are; what happens to one that is here is the
switchboard's. Other settings count for what comes next.

Source: issue "In the place of the originals" (ReadyAgent); wire/readyagent.md section 2; ours.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from twisted.internet.defer import Deferred

from revtunnel.daemons.legacy_devices import legacy_devices
from revtunnel.daemons.server_settings import PoolSettings, ServerSettings
from revtunnel.daemons.switchboard import Switchboard
from revtunnel.fleet.device_records import DEFAULT
from revtunnel.fleet.waking import Waking
from revtunnel.ground.facts import Report
from revtunnel.process.wake_settings import WakeRules
from revtunnel.streams.clients import ClientSocket

__all__ = ["AbsentDevices"]

PAGE = 1000  # leases looked at in one step
ARRIVES = 5.0  # seconds that clients wait for a link that was let in, at a worker, and is not up yet


class AbsentDevices:
    """Those of one server."""

    def __init__(self, reactor: Any, board: Switchboard, report: Report) -> None:
        self._reactor = reactor
        self._board = board
        self._report = report
        self._waits: dict[str, float] = {}  # pools whose clients wait, and how long
        self._rules: dict[str, WakeRules] = {}  # by serial
        self._fresh: list[str] = []  # those whose rules are new
        self._driver: Callable[[str], Deferred[None] | None] | None = None
        self._waking = Waking(reactor, self._wake, self._is_here, lambda: board.limits)
        board.client_streams.waits = self._may_wait
        board.client_streams.wanted = self._waking.want
        board.on_arrived = self._waking.arrived
        board.on_departed = self._waking.want

    def take(self, settings: ServerSettings) -> None:
        """The settings, or other ones."""
        self._waits = {pool.name: pool.wake_wait for pool in settings.pools if pool.absent == "wait"}
        limits = settings.limits
        legacy = [*legacy_devices(settings)]
        places = ((each.serial, each.listener) for each in legacy)
        rules = {
            serial: found
            for serial, at in places
            if (found := WakeRules(at.wake_command, at.wake_url, limits.wake, limits.wakes))
        }
        self._fresh = [serial for serial, found in rules.items() if self._rules.get(serial) != found]
        self._rules = rules
        if self._rules and self._driver is None:
            # with twisted.web 70 ms of CPU, which a server without it spares
            from revtunnel.process.wake import WakeDriver

            self._driver = WakeDriver(self._reactor, self._rules_of, self._report).wake
        standing = {pool.name for pool in settings.pools if pool.absent != "close"}
        now = self._reactor.seconds()
        for each in legacy:
            offers = tuple(mapping.offer for mapping in each.mappings)
            told = each.listener.name, each.listener.pool, offers
            self._board.fleet.know(each.serial, now, "legacy", *told)
            if each.listener.pool in standing and not self._is_here(each.serial):
                ranges = self._board.access.records.of(each.serial).ports
                names = (offer.name for offer in offers)
                self._board.ports.promise(each.serial, names, each.listener.pool, now, ranges)
        for pool in settings.pools:
            if pool.nodes == "all" and settings.cluster.node is not None:
                self._promise_reserved(settings, pool)
        self._know(each.name for each in settings.devices if each.name != DEFAULT)
        self._know(each.serial for each in settings.reservations)

    def _promise_reserved(self, settings: ServerSettings, pool: PoolSettings) -> None:
        """Have the reserved ports of a pool for devices that may be at other nodes."""
        ports, now = self._board.ports, self._reactor.seconds()
        for each in settings.reservations:
            if any(low <= each.port <= high for low, high in pool.ranges) and not self._is_here(each.serial):
                ranges = self._board.access.records.of(each.serial).ports
                ports.promise(each.serial, (each.target,), pool.name, now, ranges)

    def start(self, enrolled: Iterable[str]) -> None:
        """List whom the ledger knows, by leases or as enrolled, and wake whoever is away."""
        self._know(self._leaseholders())
        self._know(enrolled)
        self.wake_fresh()

    def wake_fresh(self) -> None:
        """Wake those who are away and for whom the settings said nothing before, or something else."""
        fresh, self._fresh = self._fresh, []
        for serial in fresh:
            self._waking.want(serial)

    def stop(self) -> None:
        """Wake nobody any more."""
        self._waking.stop()

    def _know(self, serials: Iterable[str]) -> None:
        for serial in serials:
            self._board.fleet.know(serial, self._reactor.seconds())

    def _leaseholders(self) -> Iterator[str]:
        after = 0
        while page := self._board.ports.leases.ports(after, PAGE):
            after = page[-1].port
            yield from (lease.serial for lease in page if lease.sticky)

    def _is_here(self, serial: str) -> bool:
        device = self._board.fleet.get(serial)
        return device is not None and device.online

    def _may_wait(self, client: ClientSocket) -> tuple[str, float]:
        lease = self._board.ports.leases.find(client.serial, client.name)
        device = self._board.fleet.get(client.serial)
        arrives = device is not None and device.online and device.carrier is None
        seconds = ARRIVES if arrives else 0.0
        return ("", 0.0) if lease is None else (lease.pool, self._waits.get(lease.pool, seconds))

    def _rules_of(self, serial: str) -> WakeRules:
        return self._rules.get(serial, WakeRules())

    def _wake(self, serial: str) -> "Deferred[None] | None":
        if self._driver is None or self._board.access.expired(serial):
            return None
        return self._driver(serial)
