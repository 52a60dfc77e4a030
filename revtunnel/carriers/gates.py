"""Listeners for agents at which the data plane lets data sockets in by their tickets.

The rules: a listener is lent while client ports of agents that came by it are (doors.py), if nothing but a
ticket is asked for there: no TLS, no header before it, no certificate. The plane knows tickets that were made
since then, of agents whose data sockets wait there. Whatever comes without one is handed over unread,
and is judged as if it had been accepted here. A ticket that it has let in is used, though Python is told
in batches; so the plane is asked before one is withdrawn.

Source: issue 16 "takes tickets"; _pump_gates.c; daemons/link_admission.py.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from revtunnel.carriers.doors import Lent, lend
from revtunnel.ground.networks import address_of
from revtunnel.sockets.data_plane import BATCH, UNABLE, DataPlane, Made
from revtunnel.streams.commands import TICKET_SIZE

if TYPE_CHECKING:
    from revtunnel.carriers.data_pool import DataPool

__all__ = ["Gate", "Gates"]


def _address(source: str) -> bytes | None:
    """As the plane compares them; None: it is none of IP."""
    address = address_of(source)
    if address is None or "%" in source:  # a zone is not compared there
        return None
    return address.packed if address.version == 6 else bytes(10) + b"\xff\xff" + address.packed


def _split(tickets: bytes) -> list[bytes]:
    return [tickets[at : at + TICKET_SIZE] for at in range(0, len(tickets), TICKET_SIZE)]


class Gate:
    """One listening socket."""

    def __init__(self, gates: "Gates", plane: DataPlane, port: Lent, scope: int) -> None:
        """OSError: it cannot be lent, and nothing has changed."""
        self._gates, self._plane, self._port = gates, plane, port
        self._over = False
        self.handle = lend(plane, port, self.close, lambda pump, number: pump.gate(number, scope), self)

    def close(self) -> None:
        """Take it back."""
        if self._over:
            return
        self._over = True
        self._gates.closed(self._port)
        self._plane.pump.close_gate(self.handle)
        self._plane.fetch()
        self._gates.fetch()
        self._plane.take_back(self.handle)
        self._port.take_back_here()

    # -- the plane calls

    def told(self, news: int, side: int, number: int) -> None:
        """Tickets were used, or it cannot accept there: Python can, or says why not."""
        self._gates.fetch()
        if news & UNABLE:
            self._gates.soon(self.close)

    def made(self, made: Made) -> None:
        """Somebody came whom Python judges."""
        self._port.given(made.descriptors[0], made.name, made.error)


class Gates:
    """All of one server's. ``came``: these tickets were used.

    ``listening``: the sockets of a listener by its name; none: more than a ticket is asked for there.
    """

    def __init__(self, reactor: Any, came: Callable[[list[bytes]], None]) -> None:
        self.listening: Callable[[str], Sequence[Lent]] = lambda name: ()
        self._reactor = reactor
        self._came = came
        self._plane: DataPlane | None = None
        self._gates: dict[Lent, Gate] = {}
        self._scopes: dict[str, int] = {}  # by the name of a listener
        self._pools: dict[DataPool, tuple[int, int, bytes]] = {}  # scope, stock, address

    def __len__(self) -> int:
        return len(self._gates)

    def lend(self, plane: DataPlane, pool: "DataPool", stock: int) -> None:
        """Have the plane let in the data sockets of a pool, which wait there, if it may."""
        name, address = pool.link.ticket_scope.removesuffix(" "), _address(pool.link.source)
        if address is None or pool.link.ticket_scope == name:
            return
        self._plane = plane
        scope = self._scopes.setdefault(name, len(self._scopes))
        ports = self.listening(name)
        for port in ports:
            if port not in self._gates:
                with suppress(OSError):  # Python lets them in as well
                    self._gates[port] = Gate(self, plane, port, scope)
        if ports:
            self._pools[pool] = scope, stock, address

    def expect(self, pool: "DataPool", tickets: list[bytes], seconds: float) -> None:
        """These were made for it, and are good for so long."""
        known = self._pools.get(pool)
        if known is not None and self._plane is not None:
            scope, stock, address = known
            self._plane.pump.expect(scope, stock, address, seconds, b"".join(tickets))

    def unexpect(self, tickets: list[bytes]) -> list[bytes]:
        """They are good no more: all but those that were used, which is about to be told."""
        if self._plane is None:
            return tickets
        used: set[bytes] = set()
        for at in range(0, len(tickets), BATCH):
            used.update(_split(self._plane.pump.unexpect(b"".join(tickets[at : at + BATCH]))))
        return [each for each in tickets if each not in used] if used else tickets

    def leave(self, pool: "DataPool", tickets: list[bytes]) -> None:
        """Let nobody in for it any more; it has these out. The last one takes the listeners along."""
        if self._pools.pop(pool, None) is None:
            return
        self.unexpect(tickets)
        self.fetch()
        if not self._pools:
            for gate in [*self._gates.values()]:
                gate.close()

    def fetch(self) -> None:
        """Tell which tickets were used."""
        if self._plane is not None and (used := self._plane.pump.came()):
            self._came(_split(used))

    def closed(self, port: Lent) -> None:
        """That is lent no more."""
        del self._gates[port]

    def soon(self, close: Callable[[], None]) -> None:
        """Behind whatever is told now."""
        self._reactor.callLater(0, close)
