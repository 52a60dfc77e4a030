"""The tunnels of one ThingWorx device as a carrier: at most so many at once, and a bounded wait for a place.

The rule: a tunnel's name is 128 random bits, is good for one WebSocket of the same device, and is forgotten
with its tunnel. A tunnel takes its place until its WebSocket is gone, for so long the device has it too.

Source: streams/carrier.py; next/remote-sessions.md section 4.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Protocol as Typing

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from revtunnel.ground.facts import Report
from revtunnel.ground.limits import EdgeLimits
from revtunnel.ground.reasons import Ended
from revtunnel.streams.clients import ClientSocket
from revtunnel.streams.running import Running
from revtunnel.systems.thingworx.edge_tunnel import EdgeTunnel, Stage

__all__ = ["EdgeTunnels", "TunnelStarter"]

LOOK = 1.0  # seconds between looks at clients that are not read
LINGER = 2.0  # seconds of silence after a client's end of file that its tunnel keeps its place from others


class TunnelStarter(Typing):
    """What tunnels ask of their device's link (edge_link.py)."""

    clock: IReactorTime

    def new_tid(self) -> str:
        """The name of one more tunnel."""

    def next_stream(self) -> int:
        """The number of one more stream."""

    def start(self, tunnel: EdgeTunnel, host: str, port: int) -> None:
        """Tell the device to bring a tunnel; it is told more by ``tunnel``'s methods."""

    def end(self, tunnel: EdgeTunnel, why: str) -> None:
        """Tell it that one is over."""

    def forget(self, tunnel: EdgeTunnel) -> None:
        """Nothing is left of it."""


class EdgeTunnels:
    """The carrier of one device, which is over with its link."""

    def __init__(self, link: TunnelStarter, serial: str, limits: EdgeLimits, report: Report) -> None:
        self.serial = serial
        self.clock = link.clock
        self.limits = limits
        self.report = report
        self.on_rest: Callable[[], None] | None = None  # never: its streams end with the link
        self.tunnels: dict[str, EdgeTunnel] = {}
        self._link = link
        self._waiting: deque[tuple[float, ClientSocket]] = deque()  # and when its time is over
        self._closed = False
        self._timer: IDelayedCall | None = None

    # -- as a carrier

    @property
    def running(self) -> int:
        return sum(tunnel.open for tunnel in self.tunnels.values()) + len(self._waiting)

    @property
    def at_once(self) -> bool:
        return len(self.tunnels) < self.limits.tunnels

    def open(self, client: ClientSocket) -> str:
        """A tunnel now, or when there is a place; a word where too many wait."""
        if self._closed:
            return "no-channel"
        if self.at_once:
            self._start(client)
            return ""
        self._waiting = deque(entry for entry in self._waiting if entry[1].waits)
        if len(self._waiting) >= self.limits.waiting:
            return "no-channel"
        self._waiting.append((self.clock.seconds() + self.limits.wait, client))
        self._tick_later()
        return ""

    def numbers(self, clients: Collection[ClientSocket]) -> None:
        """Nobody at its end waits for a stream to be closed."""

    def rows(self) -> Iterable[Running]:
        return [
            each.row() for each in self.tunnels.values() if each.open and each.stage is not Stage.STARTING
        ]

    def end_stream(self, number: int, reason: Ended, detail: str) -> bool:
        for tunnel in self.tunnels.values():
            if tunnel.number == number and tunnel.open:
                tunnel.finish(reason, detail)
                return True
        return False

    def end_streams(self, reason: Ended, detail: str) -> bool:
        found = [each for each in [*self.tunnels.values()] if each.open]
        for tunnel in found:
            tunnel.finish(reason, detail)
        return bool(found)

    def close(self) -> None:
        self._closed = True
        self._refuse_waiting("device-absent")

    def drain(self) -> None:
        self._closed = True

    # -- its tunnels (TunnelOwner)

    def end_of(self, tunnel: EdgeTunnel, why: str) -> None:
        self._link.end(tunnel, why)

    def gone(self, tunnel: EdgeTunnel) -> None:
        if self.tunnels.pop(tunnel.tid, None) is None:
            return
        self._link.forget(tunnel)
        while self._waiting and self.at_once:
            _, client = self._waiting.popleft()
            if client.waits and client.is_here():
                self._start(client)

    # -- inside

    def _start(self, client: ClientSocket) -> None:
        tunnel = EdgeTunnel(self, client, self._link.new_tid(), self._link.next_stream())
        self.tunnels[tunnel.tid] = tunnel
        self._tick_later()
        self._link.start(tunnel, client.target.host, client.target.port)

    def _refuse_waiting(self, word: str) -> None:
        waiting, self._waiting = self._waiting, deque()
        for _, client in waiting:
            if client.waits:
                client.refuse(word)

    def _give_way(self) -> None:
        """A client that has closed looks like one that waits for its answer; it waits not for ever."""
        lingering = sorted(
            (each for each in self.tunnels.values() if each.lingers >= LINGER), key=lambda each: -each.lingers
        )
        for tunnel in lingering[: len(self._waiting)]:
            detail = f"nothing came for {tunnel.lingers:.0f} s behind an end of file, and others wait"
            tunnel.finish(Ended.IDLE, detail)

    def _tick_later(self) -> None:
        if self._timer is None:
            self._timer = self.clock.callLater(LOOK, self._tick)

    def _tick(self) -> None:
        """Notice who left unread, and who has waited too long."""
        self._timer = None
        for tunnel in [*self.tunnels.values()]:
            tunnel.look()
        self._give_way()
        now = self.clock.seconds()
        while self._waiting and (self._waiting[0][0] <= now or not self._waiting[0][1].waits):
            _, client = self._waiting.popleft()
            if client.waits:
                client.refuse("no-channel")
        if self.tunnels or self._waiting:
            self._tick_later()
