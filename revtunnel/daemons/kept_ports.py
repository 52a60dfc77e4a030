"""Ports that operators reserve, beside those of the settings, until they give them back.

Rule of this file: a port that the settings name is the settings'; what was reserved for it, or for its use,
counts again when they name it no more.

Source: issue "In the place of the originals" (EMO); ours.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from revtunnel.daemons.server_settings import Reservation, ServerSettings
from revtunnel.fleet.leases import Leases
from revtunnel.fleet.pools import MAX_PORT, Pool, Use, parse_use
from revtunnel.process.admin.refusals import Conflict, Invalid, NotFound, valid
from revtunnel.state.audit_records import RightsChanged
from revtunnel.state.ledger import SqliteLedger
from revtunnel.systems.emo.emo import LEAST_PORT

__all__ = ["KeptPorts"]

MOST = 4096


class _Kept(NamedTuple):
    port: int
    serial: str
    target: str
    by: str
    since: float

    @property
    def use(self) -> Use:
        return Use(self.serial, self.target)


class KeptPorts:
    """All of them. ``pools``: where a port is picked from; ``applies`` is called after each change."""

    def __init__(self, ledger: SqliteLedger, wall: Callable[[], float]) -> None:
        self.leases: Leases  # set by the daemon
        self.pools: Callable[[], Mapping[str, Pool]] = dict
        self.fixed: Callable[[], Mapping[Use, int]] = dict  # all ports that are reserved, these too
        self.tell: Callable[[RightsChanged], None] = lambda change: None
        self.applies: Callable[[], None] = lambda: None
        self._ledger = ledger
        self._wall = wall
        rows = ledger.select("SELECT port, serial, target, made_by, since FROM reservations")
        self._kept = {int(values[0]): _Kept(*values) for values in rows}

    def beside(self, settings: ServerSettings, others: Mapping[Use, int]) -> ServerSettings:
        """The settings with what is kept; ``others``: ports that they fix elsewhere."""
        named = tuple(each for each in settings.reservations if not each.kept)
        uses = {Use(each.serial, each.target) for each in named} | others.keys()
        ports = {each.port for each in named} | set(others.values())
        kept = tuple(
            Reservation(each.serial, each.target, each.port, kept=True)
            for each in self._kept.values()
            if each.port not in ports and each.use not in uses
        )
        return replace(settings, reservations=(*named, *kept))

    def reserve(self, serial: str, target: str, by: str, port: int = 0, pool: str = "default") -> int:
        """Reserve a port for a use: this one, the one that it has, or else one that is free in a pool.

        Raises:
            Invalid: no use, or no port that can be reserved.
            Conflict: it has a reserved port, or the port is another's; or nothing is free.
        """
        use = valid(parse_use, f"{serial}/{target}")
        if port and not LEAST_PORT <= port <= MAX_PORT:
            raise Invalid(f"port {port}: {LEAST_PORT} to {MAX_PORT} wanted")
        before = self.fixed().get(use) or self._port_of(use)
        if before:
            raise Conflict(f"port {before} is reserved for {use}")
        if len(self._kept) >= MOST:
            raise Conflict(f"{len(self._kept)} ports are reserved so, {MOST} at most")
        port = port or self._picked(use, pool)
        held = self.leases.at(port)
        other = self._owners().get(port) or (held and held.use)
        if other not in (None, use):
            raise Conflict(f"port {port} is that of {other}")
        kept = self._kept[port] = _Kept(port, *use, by, self._wall())
        self._ledger.change([("reservations", port, tuple(kept))])
        self.tell(RightsChanged("port-reserved", str(use), by, str(port)))
        self.applies()
        return port

    def unreserve(self, serial: str, target: str, by: str) -> int:
        """Give a reserved port back; whoever has it may keep it as others keep theirs.

        Raises:
            Invalid: no use.
            NotFound: nothing was reserved for it but by the settings.
        """
        use = valid(parse_use, f"{serial}/{target}")
        port = self._port_of(use)
        if not port:
            raise NotFound(f"no operator has reserved a port for {use}")
        del self._kept[port]
        self._ledger.change([("reservations", port, None)])
        self.tell(RightsChanged("port-unreserved", str(use), by, str(port)))
        self.applies()
        return port

    def _port_of(self, use: Use) -> int:
        return next((port for port, kept in self._kept.items() if kept.use == use), 0)

    def _picked(self, use: Use, name: str) -> int:
        held = self.leases.find(*use)
        if held is not None:
            return held.port
        pool = self.pools().get(name)
        if pool is None:
            raise Invalid(f"there is no [pool {name}]")
        owners = self._owners()
        for port in self.leases.unheld(pool.ranges):
            if port >= LEAST_PORT and port not in owners:
                return port
        raise Conflict(f"pool {name} has no port that is free")

    def _owners(self) -> dict[int, Use]:
        mine = {port: kept.use for port, kept in self._kept.items()}
        return mine | {port: use for use, port in self.fixed().items()}
