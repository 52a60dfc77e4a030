"""Registered devices as carriers: one connection is one stream, and whoever comes next waits a while for it.

The rules: a stream takes the end of a parked device as the client of a proxy does, and what the device said
before is thrown away. Nothing dials; the service has one name. With its stream the connection is over, and
the device comes back by itself, so that nobody hears what was for the one before. While a proxy or another
client has it, and while it is on its way back, a client waits, within a bound, then it is ``in-use``; a proxy
that was started meanwhile comes first. An end of file goes on by itself in each direction, and a cut is a
reset. A client that has ended and hears nothing more gives way to others; that of a proxy at another node,
for which one end is the end of both, goes in any case.

Source: streams/carrier.py; wire/cccp.md section 2; ours.
"""

from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from revtunnel.fleet.streams_of_devices import StreamsOfDevices
from revtunnel.ground.facts import ChannelEnded, ChannelOpened, Report
from revtunnel.ground.limits import CccpLimits, RelayLimits
from revtunnel.ground.reasons import Ended
from revtunnel.ground.targets import Offer, Target
from revtunnel.streams.clients import ClientSocket, Relayed
from revtunnel.streams.running import Running, relayed_state, sided
from revtunnel.systems.cccp.idle_devices import IdleDevices, Registered

__all__ = ["SERVICE", "DeviceCarrier", "DeviceCarriers", "DeviceStream"]

SERVICE = Offer("device", Target("device", 0))  # what grants and records call it; nobody dials the target
LINGER = 2.0  # seconds of silence behind a client's end of file that it keeps the device from others


class DeviceStream:
    """A client joined with a device's connection; to the client a ``ClientStream``."""

    __slots__ = ("_carriers", "_client", "_relay", "_seen", "_since", "device", "number")

    def __init__(self, carriers: "DeviceCarriers", client: ClientSocket, device: Registered) -> None:
        self.device = device
        self.number = carriers.next_stream()
        self._carriers = carriers
        self._client = client
        self._relay: Relayed | None = None
        self._seen = -1  # bytes
        self._since = 0.0  # when there were so many first, behind the client's end of file

    def start(self) -> None:
        """Join them. OSError: the client is lost, and told so; the device's end is as it was."""
        carriers, client, device = self._carriers, self._client, self.device
        lone = device.lone
        assert lone is not None
        lone.leave()
        relay = client.relay(lone.end, self._ended, carriers.relay_limits())
        client.carried, self._relay, device.lone = self, relay, None
        milliseconds = round((carriers.reactor.seconds() - client.since) * 1000, 3)
        carriers.report(ChannelOpened(client.serial, self.number, client.name, client.peer, milliseconds))
        relay.start(b"")

    @property
    def client(self) -> str:
        """Its address."""
        return self._client.peer

    @property
    def of_proxy(self) -> bool:
        """Whether its client is that of a proxy, or a port, of another node."""
        return self._client.forwarded and not self._client.session

    @property
    def moved(self) -> int:
        relay = self._relay
        return relay.to_far + relay.to_near if relay is not None else 0

    def end(self, reason: Ended, detail: str) -> None:
        """End it with resets on both sides."""
        if self._relay is not None:
            self._relay.abort(reason, detail)

    def row(self) -> Running:
        """It, as listings show it."""
        client, relay = self._client, self._relay
        assert relay is not None
        moved = relay.to_far, relay.to_near, relay.held_for_far, relay.held_for_near
        who = client.serial, self.number, client.name, client.peer
        return Running(*who, "device", relayed_state(relay.ended), client.since, *moved)

    def lingers(self, now: float) -> float:
        """Seconds of silence behind the client's end of file, as far as it was looked at."""
        relay = self._relay
        if relay is None or not relay.ended[0] or relay.held_for_far or self.moved != self._seen:
            self._seen, self._since = self.moved, now
        return now - self._since

    def _ended(self, reason: Ended, detail: str) -> None:
        """Both ends are closed."""
        carriers, client, relay = self._carriers, self._client, self._relay
        assert relay is not None
        seconds = round(carriers.reactor.seconds() - client.since, 3)
        who = client.serial, self.number, client.name, client.peer
        detail = sided(detail, "client", "device")
        sums = relay.to_far, relay.to_near
        carriers.report(ChannelEnded(*who, reason, detail, seconds, *sums))
        carriers.ended(self, reason, detail)
        client.finished()


class DeviceCarrier:
    """The carrier of one serial, whichever connection the device has now."""

    __slots__ = ("_carriers", "device", "on_rest", "serial", "waiting")

    def __init__(self, carriers: "DeviceCarriers", serial: str) -> None:
        self.serial = serial
        self.on_rest: Callable[[], None] | None = None  # never: ``DeviceCarriers`` knows when
        self.device: Registered | None = None  # None: it is away
        self.waiting: dict[ClientSocket, IDelayedCall] = {}  # in their order
        self._carriers = carriers

    @property
    def stream(self) -> DeviceStream | None:
        """The one that runs."""
        return self.device.stream if self.device is not None else None

    @property
    def running(self) -> int:
        return (self.stream is not None) + len(self.waiting)

    @property
    def at_once(self) -> bool:
        return self.device is not None and self.device.parked

    def open(self, client: ClientSocket) -> str:
        """The device now, or when it is free; a word where nobody may wait, or too many do."""
        limits = self._carriers.limits()
        if client.target != SERVICE.target:
            return "not-allowed"
        if not self.at_once and len(self.waiting) >= (limits.busy_clients if limits.busy_wait else 0):
            return "in-use"
        client.on_lost = partial(self._forget, client)
        late = self._carriers.reactor.callLater(limits.busy_wait, self._give_up, client)
        self.waiting[client] = late
        self._carriers.changed(self)
        self.serve()
        return ""

    def serve(self) -> None:
        """The device is free: the next one has it."""
        here = (each for each in [*self.waiting] if each.is_here())
        while self.device is not None and self.device.parked and (client := next(here, None)) is not None:
            self._forget(client)
            self._carriers.join(client, self.device)
        self._carriers.changed(self)

    def numbers(self, clients: Collection[ClientSocket]) -> None:
        """Nobody at its end waits for a stream to be closed."""

    def rows(self) -> Iterable[Running]:
        return [self.stream.row()] if self.stream is not None else []

    def end_stream(self, number: int, reason: Ended, detail: str) -> bool:
        stream = self.stream
        if stream is None or stream.number != number:
            return False
        stream.end(reason, detail)
        return True

    def end_streams(self, reason: Ended, detail: str) -> bool:
        """End the one that runs, and refuse those who wait."""
        ended = self.stream is not None or bool(self.waiting)
        if self.stream is not None:
            self.stream.end(reason, detail)
        self.close()
        return ended

    def close(self) -> None:
        for client in [*self.waiting]:
            self._give_up(client)

    def drain(self) -> None:
        """Nothing: whoever waits does so within a bound."""

    def look(self, now: float, wanted: bool) -> None:
        """Notice who left unread, and who keeps the device from others for nothing."""
        stream = self.stream
        wanted = wanted or bool(self.waiting) or (stream is not None and stream.of_proxy)
        if stream is not None and stream.lingers(now) >= LINGER and wanted:
            stream.end(Ended.IDLE, "nothing came behind an end of file, and others wait")
        for client in [*self.waiting]:
            client.look()

    def _forget(self, client: ClientSocket) -> None:
        """It waits no longer."""
        late = self.waiting.pop(client)
        if late.active():
            late.cancel()
        client.on_lost = None
        self._carriers.changed(self)

    def _give_up(self, client: ClientSocket) -> None:
        self._forget(client)
        client.refuse("device-absent" if self.device is None else "in-use")


class DeviceCarriers:
    """All of them, for ``parking``; limits are asked each time."""

    offers: tuple[Offer, ...] = (SERVICE,)

    def __init__(
        self,
        parking: IdleDevices,
        streams: StreamsOfDevices,
        next_stream: Callable[[], int],
        limits: Callable[[], CccpLimits],
        relay_limits: Callable[[], RelayLimits],
        report: Report,
        wanted: Callable[[str], bool],
    ) -> None:
        """``wanted``: whether a proxy waits for a device."""
        self.reactor: Any = parking.reactor
        self.next_stream = next_stream
        self.limits = limits
        self.relay_limits = relay_limits
        self.report = report
        self._parking = parking
        self._streams = streams
        self._wanted = wanted
        self._busy: dict[str, DeviceCarrier] = {}  # that have a stream, or clients who wait

    # -- from the parking

    def came(self, device: Registered) -> None:
        """It is here, by a new connection."""
        serial = device.arrival.serial
        carrier = self._busy.get(serial) or DeviceCarrier(self, serial)
        carrier.device = device
        device.known.carrier = device.carried_by = carrier

    def parked(self, device: Registered) -> None:
        """It is free."""
        device.carried_by.serve()

    def gone(self, device: Registered, reason: str, detail: str) -> None:
        """It is let go; what runs is cut."""
        stream, device.stream = device.stream, None
        if stream is not None:
            why = Ended.OPERATOR if reason == "kicked" else Ended.LINK_LOST
            stream.end(why, f"{reason} {detail}".strip())
        carrier = device.carried_by
        if carrier.device is device:
            carrier.device = None
        self.changed(carrier)

    def tick(self) -> None:
        """Once a second or so."""
        for carrier in [*self._busy.values()]:
            carrier.look(self.reactor.seconds(), self._wanted(carrier.serial))

    def stop(self) -> None:
        """Refuse all who wait."""
        for carrier in [*self._busy.values()]:
            carrier.close()

    # -- from carriers and streams

    def join(self, client: ClientSocket, device: Registered) -> None:
        """Give a client a device that is parked; one that is lost by now costs it nothing."""
        self._parking.claim(device)
        device.stream = stream = DeviceStream(self, client, device)
        try:
            stream.start()
        except OSError:
            device.stream = None
            self._parking.park(device)

    def ended(self, stream: DeviceStream, reason: Ended, detail: str) -> None:
        """Its ends are closed: the device is gone with it, unless that is known already."""
        device = stream.device
        if device.stream is stream:
            device.stream = None
            why = ("lost", detail) if detail.startswith("device: ") else ("session", reason.word)
            self._parking.let_go(device, *why)

    def changed(self, carrier: DeviceCarrier) -> None:
        """Whether it has anything that runs may be another now."""
        known = self._busy.get(carrier.serial)
        if carrier.running and known is None:
            self._busy[carrier.serial] = carrier
            self._streams.add(carrier)
        elif known is carrier and not carrier.running:
            del self._busy[carrier.serial]
            self._streams.remove(carrier)
