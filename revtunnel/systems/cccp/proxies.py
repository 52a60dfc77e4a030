"""Proxy sessions and the devices they are for: who waits where, who is joined, what ends with what.

Rule of this file: the table (systems/cccp/sessions.py) decides, this acts. A device that is registered and
has no session is parked: read, and thrown away. Every end is in one place at a time: with a LoneEnd, in a
PairRelay, or sent away (``part_from``); and a session that ended holds nothing.

A device whose link is of another wire (``linked``) brings its streams by that link; see linked_devices.py.

Source: TCXN CCCP; wire/cccp.md section 2; faults.md R8 to R10, H7 to H12.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from typing import Protocol as Typing

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Protocol

from revtunnel.fleet.devices import Registry, TwoHolders
from revtunnel.ground.facts import ClientRefused, Report
from revtunnel.ground.networks import address_of
from revtunnel.ground.policy import CccpLimits, RelayLimits, ServerLimits
from revtunnel.ground.reasons import Ended, GoAway
from revtunnel.link.handshake import Denied
from revtunnel.sockets.ends import End
from revtunnel.sockets.tls.tls_stages import TlsDoor
from revtunnel.systems.cccp.cccp_facts import (
    DeviceGone,
    DeviceRegistered,
    DuplicateDevice,
    ProxyEnded,
    ProxyStarted,
    RegistrationRefused,
)
from revtunnel.systems.cccp.lone_end import LoneEnd, part_from
from revtunnel.systems.cccp.pair_relay import PairRelay
from revtunnel.systems.cccp.proxy_ports import TARGET, ProxyPort, ProxyPorts
from revtunnel.systems.cccp.registered_devices import Arrival, Project
from revtunnel.systems.cccp.sessions import Event, Life, Manner, Options, Session

__all__ = ["Device", "Linked", "Proxies", "Proxy", "Store"]


class Store(Typing):
    """What of the sessions survives a restart."""

    def keep(self, proxy: "Proxy") -> None:
        """Remember it as it is now."""

    def drop(self, serial: str) -> None:
        """Forget it."""


class Linked(Typing):
    """Devices of other wires."""

    def here(self, serial: str) -> bool:
        """Whether its link is up."""

    def knows(self, serial: str) -> bool:
        """Whether there is, or was, such a device."""

    def client(self, proxy: "Proxy", address: Any, left: Callable[[], None]) -> Protocol | None:
        """What takes a client of the proxy by the device's link; None: it cannot."""

    def moved(self, proxy: "Proxy") -> int:
        """Payload bytes of the proxy's stream, also just after it ended."""

    def end(self, proxy: "Proxy") -> None:
        """Close the proxy's stream; ``left`` may be called or not."""


class Device:
    """A registered device. ``lone`` has the end, unless a relay has it."""

    __slots__ = ("arrival", "lone", "peer", "since")

    def __init__(self, arrival: Arrival, since: float) -> None:
        self.arrival = arrival
        self.peer = arrival.end.peer
        self.since = since
        self.lone: LoneEnd | None = None


class Proxy:
    """A session with its sockets."""

    def __init__(self, session: Session, project: Project, port: ProxyPort) -> None:
        self.session = session
        self.project = project
        self.port = port
        self.client = ""  # host:port
        self.lone: LoneEnd | None = None  # the client's, unless a relay has it
        self.device: Device | None = None
        self.relay: PairRelay | None = None
        self.by_link = False  # the client goes by the link of a device of another wire
        self.timer: IDelayedCall | None = None

    @property
    def transferred(self) -> int:
        """Payload bytes so far, both directions; exact."""
        relay = self.relay
        return self.session.transferred + (relay.to_far + relay.to_near if relay is not None else 0)


class Proxies:
    """All of them; ``limits`` is asked each time."""

    def __init__(
        self, reactor: Any, ports: ProxyPorts, limits: Callable[[], CccpLimits], store: Store, report: Report
    ) -> None:
        self.devices: Registry[Device] = Registry(ServerLimits())
        self.ports = ports
        self.linked: Linked | None = None
        self.on_device: Callable[[str], None] = lambda serial: None  # one has come
        self._reactor = reactor
        self._limits = limits
        self._relay_limits = RelayLimits()
        self._store = store
        self._report = report
        self._running: dict[str, Proxy] = {}
        self._here: dict[str, Device] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Proxy]:
        return iter(list(self._running.values()))

    # -- looking

    def get(self, serial: str) -> Proxy | None:
        """The session of a serial."""
        return self._running.get(serial)

    def device(self, serial: str) -> Device | None:
        """The registered device of a serial."""
        return self._here.get(serial)

    def here(self) -> list[Device]:
        """All registered devices."""
        return list(self._here.values())

    def is_here(self, serial: str) -> bool:
        """Whether the device is connected, by whatever wire."""
        return serial in self._here or (self.linked is not None and self.linked.here(serial))

    def transferred(self, proxy: Proxy) -> int:
        """Payload bytes so far."""
        return proxy.transferred + (self.linked.moved(proxy) if proxy.by_link and self.linked else 0)

    # -- what callers do

    def on(self, serial: str, project: Project, options: Options, how: str = "on") -> Proxy:
        """Start a proxy, or give the running one other options; its port is open when this returns.

        Raises:
            NoPort, OSError: as ``ProxyPorts.open``.
        """
        now = self._reactor.seconds()
        proxy = self._running.get(serial)
        if proxy is not None:
            proxy.session.renew(options, now)
            how = "renewed"
        else:
            port = self.ports.open(serial, project.pool, partial(self._client, serial))
            proxy = Proxy(Session(serial, options, now, project.hold), project, port)
            self._running[serial] = proxy
            device = self._here.get(serial)
            if device is not None:
                proxy.device = device
                proxy.session.step(Event.DEVICE_CAME)
        self._watch(proxy)
        self._set_timer(proxy)
        self._store.keep(proxy)
        self._report(ProxyStarted(serial, proxy.port.number, project.name, options.persistent, how))
        return proxy

    def off(self, serial: str, event: Event = Event.OFF, word: str = "") -> Proxy | None:
        """End a session with its client and device; None: there is none."""
        proxy = self._running.get(serial)
        if proxy is not None:
            proxy.session.step(event)
            proxy.session.ended = word or proxy.session.ended
            self._finish(proxy)
        return proxy

    def drop_device(self, serial: str, reason: str) -> bool:
        """Close a registered device; False: it is not here."""
        device = self._here.get(serial)
        if device is None:
            return False
        proxy = self._running.get(serial)
        if proxy is not None and proxy.device is device:
            self._device_left(proxy, reason, "")
        else:
            self._let_go(device, reason, "")
        return True

    def renew(self, serial: str) -> None:
        """A device of another wire left; the port of a session is not to wait for its return."""
        proxy = self._running.get(serial)
        if proxy is not None:
            self.ports.renew(proxy.port)

    def tick(self) -> None:
        """Once a second or so: close who is parked too long."""
        most, now = self._limits().parked_time, self._reactor.seconds()
        for device in self.here() if most else ():
            if now - device.since < most:
                break
            if device.arrival.serial not in self._running:
                self._let_go(device, "parked-too-long", f"{most:g} s without a session")

    def stop(self) -> None:
        """End all at once; persistent sessions keep their promise for the next start."""
        for proxy in self:
            proxy.session.step(Event.STOPPED)
            self._finish(proxy)
        for device in self.here():
            self._let_go(device, "stopping", "")

    # -- devices

    def arrived(self, arrival: Arrival) -> None:
        """A device said its serial."""
        now = self._reactor.seconds()
        device = Device(arrival, now)
        serial = arrival.serial
        full = len(self._here) >= self._limits().parked and serial not in self._here
        before = self._here.get(serial)
        try:
            if full:
                raise Denied(GoAway.OVERLOADED, f"{len(self._here)} devices are here", serial)
            self.devices.arrive(serial, device, now, arrival.authenticated, arrival.project.newest)
        except Denied as error:
            both = isinstance(error, TwoHolders)
            self._alarm(arrival, before, "neither" if both else "oldest")
            if both:
                self.drop_device(serial, "replaced")
            arrival.end.abort()
            reason = "overloaded" if full else "duplicate"
            self._report(RegistrationRefused(arrival.project.name, device.peer, serial, reason, str(error)))
            return
        self._alarm(arrival, before, "newest")
        self._take(device, before)
        self.on_device(serial)

    def _alarm(self, arrival: Arrival, before: Device | None, stays: str) -> None:
        if before is not None:
            fact = DuplicateDevice(
                arrival.serial, arrival.end.peer, before.peer, stays, arrival.authenticated
            )
            self._report(fact)

    def _take(self, device: Device, before: Device | None) -> None:
        """It is here now, instead of the one before."""
        arrival = device.arrival
        serial = arrival.serial
        proxy = self._running.get(serial)
        device.lone = LoneEnd(self._reactor, arrival.end, partial(self._lone_left, device), arrival.early)
        if proxy is not None and proxy.session.step(Event.DEVICE_CAME) is Life.ENDED:
            self._finish(proxy)
            proxy, before = None, self._here.get(serial)
        head = self._part(proxy) if proxy is not None else b""
        if before is not None:
            self._let_go(before, "replaced", f"by {device.peer}")
        self._here.pop(serial, None)
        self._here[serial] = device
        fact = DeviceRegistered(serial, device.peer, arrival.project.name, arrival.authenticated, arrival.tls)
        self._report(fact)
        if proxy is not None:
            proxy.device = device
            self._watch(proxy, head)
        else:
            device.lone.watch(Manner.DISCARD)

    def _lone_left(self, device: Device, detail: str) -> None:
        """It closed, or its line is dead, while it was alone."""
        proxy = self._running.get(device.arrival.serial)
        if proxy is not None and proxy.device is device:
            self._device_left(proxy, "lost" if detail else "closed", detail)
        else:
            self._let_go(device, "lost" if detail else "closed", detail)

    def _device_left(self, proxy: Proxy, reason: str, detail: str) -> None:
        device = proxy.device
        assert device is not None
        self._part(proxy)
        proxy.device = None
        self._let_go(device, reason, detail)
        if proxy.session.step(Event.DEVICE_LEFT) is Life.ENDED:
            self._finish(proxy)
        else:
            self._watch(proxy)

    def _let_go(self, device: Device, reason: str, detail: str) -> None:
        """Close a device that no relay has."""
        serial, now = device.arrival.serial, self._reactor.seconds()
        if self._here.get(serial) is device:
            del self._here[serial]
        self.devices.leave(serial, device, now)
        lone, device.lone = device.lone, None
        if lone is not None:
            lone.leave()
            self._send_away(lone.end)
        self._report(DeviceGone(serial, device.peer, reason, detail, round(now - device.since, 3)))

    def _send_away(self, end: End) -> None:
        if end.fileno() >= 0:
            part_from(self._reactor, end)

    # -- clients

    def _client(self, serial: str, address: Any, peer: str) -> Protocol | None:
        """Who takes a client of this session; None: he is reset."""
        proxy = self._running[serial]
        reason = proxy.session.refuses(address_of(peer))
        if not reason and self.linked is not None and serial not in self._here and self.linked.knows(serial):
            return self._client_by_link(proxy, address, peer)
        if reason:
            self._report(ClientRefused(serial, TARGET, peer, reason))
            return None
        return TlsDoor(partial(self._client_came, proxy, peer))

    def _client_by_link(self, proxy: Proxy, address: Any, peer: str) -> Protocol | None:
        assert self.linked is not None
        found = self.linked.client(proxy, address, partial(self._client_left, proxy))
        if found is not None:
            proxy.client, proxy.by_link = peer, True
            proxy.session.step(Event.CLIENT_CAME)
            self._set_timer(proxy)
        else:
            self._report(ClientRefused(proxy.session.serial, TARGET, peer, "device-absent"))
        return found

    def _client_came(self, proxy: Proxy, peer: str, end: End) -> None:
        if proxy.session.ended:
            end.abort()
            return
        proxy.client = peer
        proxy.lone = LoneEnd(self._reactor, end, partial(self._client_gone, proxy))
        proxy.session.step(Event.CLIENT_CAME)
        self._set_timer(proxy)
        self._watch(proxy)

    def _client_gone(self, proxy: Proxy, detail: str) -> None:
        """It left while it was alone."""
        lone, proxy.lone = proxy.lone, None
        if lone is not None:
            self._send_away(lone.end)
        self._client_left(proxy)

    def _client_left(self, proxy: Proxy) -> None:
        self._count_linked(proxy)
        proxy.client = ""
        if proxy.session.life is Life.ENDED:
            return
        if proxy.session.step(Event.CLIENT_LEFT) is Life.ENDED:
            self._finish(proxy)
        else:
            self._watch(proxy)

    def _count_linked(self, proxy: Proxy) -> None:
        if proxy.by_link and self.linked is not None:
            proxy.session.transferred += self.linked.moved(proxy)
            proxy.by_link = False

    # -- pairs

    def _watch(self, proxy: Proxy, head: bytes = b"") -> None:
        """Let the ends of a session be where its table wants them. ``head`` is for the client, first."""
        device, client, manner = proxy.device, proxy.lone, proxy.session.manner
        if manner is Manner.PASS:
            if proxy.relay is None and device is not None and device.lone is not None and client is not None:
                self._join(proxy, device, client, head)
            return
        for lone in (client, device.lone if device is not None else None):
            if lone is not None:
                lone.watch(manner)

    def _join(self, proxy: Proxy, device: Device, client: LoneEnd, head: bytes) -> None:
        lone, device.lone, proxy.lone = device.lone, None, None
        assert lone is not None
        lone.leave()
        client.leave()
        early = head + lone.early
        ended = partial(self._pair_ended, proxy, device, client.end, lone.end)
        proxy.relay = PairRelay(self._reactor, client.end, lone.end, ended, self._relay_limits)
        proxy.relay.start(head_to_near=early)

    def _part(self, proxy: Proxy) -> bytes:
        """Take a pair apart that has not ended by itself; what the client has not taken yet."""
        return proxy.relay.part() if proxy.relay is not None else b""

    def _pair_ended(
        self, proxy: Proxy, device: Device, near: End, far: End, reason: Ended, detail: str
    ) -> None:
        """Both ends are ours again."""
        relay, session = proxy.relay, proxy.session
        assert relay is not None
        session.transferred = proxy.transferred
        proxy.relay = None
        device.lone = LoneEnd(self._reactor, far, partial(self._lone_left, device))
        proxy.lone = LoneEnd(self._reactor, near, partial(self._client_gone, proxy))
        if reason is Ended.OPERATOR:  # whoever parted them goes on
            return
        if relay.far_left:
            self._device_left(proxy, "lost" if detail else "closed", detail)
        if relay.near_left and session.life is not Life.ENDED:
            self._client_gone(proxy, detail)

    # -- the end

    def _finish(self, proxy: Proxy) -> None:
        """The table said ENDED: close the port at once, and everybody in order."""
        session, serial = proxy.session, proxy.session.serial
        stopping = session.ended == "stopping"
        self._set_timer(proxy)
        self._part(proxy)
        if proxy.by_link and self.linked is not None:
            self._count_linked(proxy)
            self.linked.end(proxy)
        self._running.pop(serial, None)
        self.ports.close(proxy.port, keep=stopping)
        if not stopping:  # else the next start takes up what persists, and says a word of the rest
            self._store.drop(serial)
        lone, proxy.lone = proxy.lone, None
        if lone is not None:
            lone.leave()
            self._send_away(lone.end)
        device, proxy.device = proxy.device, None
        if device is not None:
            self._after(device, session.ended, proxy.project)
        seconds = round(self._reactor.seconds() - session.since, 3)
        self._report(ProxyEnded(serial, proxy.port.number, session.ended, session.transferred, seconds))

    def _after(self, device: Device, word: str, project: Project) -> None:
        """What becomes of the device of a session that ended."""
        if word in ("off", "timed-out") and project.park and device.lone is not None:
            device.lone.watch(Manner.DISCARD)
        else:
            self._let_go(device, "off" if word in ("off", "timed-out") else "session", word)

    def _set_timer(self, proxy: Proxy) -> None:
        """Have the time-out fire when the table says so."""
        timer, proxy.timer = proxy.timer, None
        if timer is not None and timer.active():
            timer.cancel()
        until = proxy.session.until
        if until is not None:
            left = max(0.0, until - self._reactor.seconds())
            proxy.timer = self._reactor.callLater(left, self._timed_out, proxy)

    def _timed_out(self, proxy: Proxy) -> None:
        proxy.timer = None
        if proxy.session.expired(self._reactor.seconds()):
            self.off(proxy.session.serial, Event.TIMED_OUT)
        else:
            self._set_timer(proxy)
