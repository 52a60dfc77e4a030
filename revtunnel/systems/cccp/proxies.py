"""All proxy sessions: who starts and ends them, and what ends with what.

Rule of this file: the table (proxy_sessions.py) decides, this acts. A device that is registered and
has no session is parked (idle_devices.py); where the ends of a session are is proxy.py's; and a session that
ended holds nothing.

A device that is here by another wire is reached by ``/on`` too: its client goes by that wire's carrier, made
and judged as a client of any port of that device. The table sees such a device for as long as a client has
it: with the client it comes and goes. The same where a device is at another node: that is asked for when the
client comes, who is not read meanwhile, and he goes by the link of that node.

Source: TCXN CCCP; wire/cccp.md section 2; faults.md R8 to R10, H7 to H12; ours for other wires.
"""

from collections.abc import Callable, Iterator
from functools import partial
from heapq import merge
from itertools import groupby, islice
from typing import Any
from typing import Protocol as Typing

from sortedcontainers import SortedDict

from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.devices import Device
from revtunnel.fleet.elsewhere import DeviceElsewhere
from revtunnel.fleet.fleet import Fleet
from revtunnel.ground.facts import ClientRefused, Report
from revtunnel.ground.limits import CccpLimits, RelayLimits
from revtunnel.ground.networks import address_of
from revtunnel.sockets.ends import End
from revtunnel.streams.clients import Clients, ClientSocket
from revtunnel.systems.cccp.cccp_facts import ProxyEnded, ProxyStarted
from revtunnel.systems.cccp.devices_at_nodes import Nodes
from revtunnel.systems.cccp.idle_devices import SYSTEM, IdleDevices, Registered
from revtunnel.systems.cccp.proxy import RunningProxy
from revtunnel.systems.cccp.proxy_ports import TARGET, ProxyPorts
from revtunnel.systems.cccp.proxy_sessions import Life, ProxyEvent, ProxyOptions, ProxySession
from revtunnel.systems.cccp.registered_devices import Project

__all__ = ["Links", "Proxies", "SessionStore"]

# what takes a client of a device's target by the carrier of its wire: serial, name of the target, who is told
# when the client has left
Links = Callable[[str, str, Callable[[ClientSocket], None]], Clients]


class SessionStore(Typing):
    """What of the sessions survives a restart."""

    def keep(self, proxy: RunningProxy) -> None:
        """Remember it as it is now."""

    def drop(self, serial: str) -> None:
        """Forget it."""


class Proxies:
    """All of them; ``limits`` is asked each time, ``relay_limits`` may be set anew and hold for later pairs.

    ``links``: None where no other wire is spoken. ``access`` has the records of such devices.
    """

    def __init__(
        self,
        reactor: Any,
        ports: ProxyPorts,
        limits: Callable[[], CccpLimits],
        store: SessionStore,
        report: Report,
        fleet: Fleet[Any],
        relay_limits: RelayLimits | None = None,
        links: Links | None = None,
        access: AccessControl | None = None,
    ) -> None:
        self.ports = ports
        self.parking = IdleDevices(reactor, fleet, limits, report)
        self.parking.sessions = self
        self.relay_limits = relay_limits or RelayLimits()
        self.clients = 0  # sessions that have one
        self.nodes: Nodes | None = None  # beside this one
        self.on_device: Callable[[str], None] = lambda serial: None  # one has come
        self._fleet = fleet
        self._links = links
        self._access = access or AccessControl(lambda: 0.0)
        self._reactor = reactor
        self._store = store
        self._report = report
        self._running = SortedDict()  # Proxy by serial

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[RunningProxy]:
        return iter(list(self._running.values()))

    # -- looking

    def get(self, serial: str) -> RunningProxy | None:
        """The session of a serial."""
        proxy: RunningProxy | None = self._running.get(serial)
        return proxy

    def page(self, after: str, limit: int) -> list[str]:
        """The serials of registered devices and of sessions behind ``after``, ``limit`` at most, in order."""
        here = (device.arrival.serial for device in self.parking.page(after, limit))
        running = self._running.irange(after, inclusive=(False, True))
        return [serial for serial, _ in islice(groupby(merge(here, running)), limit)]

    def sessions(self, after: str, limit: int, joined: bool = False) -> list[RunningProxy]:
        """Sessions behind a serial, by serial, ``limit`` at most; ``joined``: only those with a pair."""
        found = (self._running[each] for each in self._running.irange(after, inclusive=(False, True)))
        return list(islice((each for each in found if each.relay is not None or not joined), limit))

    def connected(self, serial: str) -> bool:
        """Whether the device is connected to this server, by whatever wire."""
        device = self._fleet.get(serial)
        return device is not None and device.online

    def is_here(self, serial: str) -> bool:
        """The same, and no stream of another door has it."""
        return self.connected(serial) and self.in_use(serial) is None

    def in_use(self, serial: str) -> Any:
        """The stream that has a registered device for a client of another door; None: nobody has."""
        device = self.parking.get(serial)
        return device.stream if device is not None else None

    def elsewhere(self, serial: str) -> Device[Any] | None:
        """The device of another wire that is, or was, here by this serial."""
        device = self._fleet.get(serial)
        others = device is not None and device.system not in ("", SYSTEM)  # "": nobody knows by which
        return device if self._links and others else None

    def targets(self, serial: str) -> list[str]:
        """The names of what a device of another wire offers and its record allows."""
        device = self.elsewhere(serial)
        offers = device.offers if device is not None else ()
        return [offer.name for offer in self._access.offers(serial, offers)]

    # -- what callers do

    def on(self, serial: str, project: Project, options: ProxyOptions, how: str = "on") -> RunningProxy:
        """Start a proxy, or give the running one other options; its port is open when this returns.

        Raises:
            NoPort, OSError: as ``ProxyPorts.open``.
        """
        now = self._reactor.seconds()
        proxy = self.get(serial)
        if proxy is not None:
            proxy.session.renew(options, now)
            how = "renewed"
        else:
            port = self.ports.open(serial, project.pool, partial(self._client_came, serial))
            session = ProxySession(serial, options, now, project.hold)
            proxy = RunningProxy(self._reactor, session, project, port, self, lambda: self.relay_limits)
            self._running[serial] = proxy
            device = self.parking.get(serial)
            if device is not None and device.stream is None:
                self._give(proxy, device)
                self._step(proxy, ProxyEvent.DEVICE_CAME)
        proxy.watch()
        self._set_timer(proxy)
        self._store.keep(proxy)
        self._report(ProxyStarted(serial, proxy.port.number, project.name, options.persistent, how))
        return proxy

    def off(self, serial: str, event: ProxyEvent = ProxyEvent.OFF, word: str = "") -> RunningProxy | None:
        """End a session with its client and device; None: there is none."""
        proxy = self.get(serial)
        if proxy is not None:
            self._step(proxy, event)
            proxy.session.ended = word or proxy.session.ended
            self._finish(proxy)
        return proxy

    def cut_pair(self, serial: str, word: str) -> bool:
        """Reset the client of a pair, as if he had left; ``word``: why a session that ends with it did."""
        proxy = self.get(serial)
        if proxy is None or proxy.relay is None:
            return False
        proxy.part_for_good()
        lone = proxy.release()
        assert lone is not None
        lone.end.abort()
        proxy.client = ""
        if self._step(proxy, ProxyEvent.CLIENT_LEFT) is Life.ENDED:
            proxy.session.ended = word
            self._finish(proxy)
        else:
            proxy.watch()
        return True

    def stop(self) -> None:
        """End all at once; persistent sessions keep their promise for the next start."""
        for proxy in self:
            self._step(proxy, ProxyEvent.STOPPED)
            self._finish(proxy)
        self.parking.stop()

    # -- devices of ours (parking.DeviceSessions)

    def device_came(self, device: Registered, before: Registered | None) -> None:
        """It is here now, instead of another one of this wire or of another."""
        serial = device.arrival.serial
        proxy = self.get(serial)
        if proxy is not None and self._step(proxy, ProxyEvent.DEVICE_CAME) is Life.ENDED:
            self._finish(proxy)  # with the one before
            proxy = before = None
        elif proxy is not None and proxy.linked is not None:  # a carrier's stream cannot go over to an end
            proxy.send_client_away()
            self._step(proxy, ProxyEvent.CLIENT_LEFT)
        elif proxy is not None:
            proxy.part()
        if before is not None:
            self.parking.let_go(before, "replaced", f"by {device.peer}")
        self.parking.registered(device)
        if proxy is not None:
            self._give(proxy, device)
            proxy.watch()
        else:
            self.parking.park(device)
        self.on_device(serial)

    def device_left(self, device: Registered, reason: str, detail: str) -> None:
        """It closed, its line is dead, another one has its place, or an operator wants it gone."""
        proxy = self.get(device.arrival.serial)
        if proxy is None or proxy.device is not device:
            self.parking.let_go(device, reason, detail)
            return
        proxy.part_for_good()
        proxy.device = None
        self.parking.let_go(device, reason, detail)
        if self._step(proxy, ProxyEvent.DEVICE_LEFT) is Life.ENDED:
            self._finish(proxy)
        else:
            proxy.watch()

    def _give(self, proxy: RunningProxy, device: Registered) -> None:
        proxy.device = device
        self.parking.claim(device)

    # -- devices of other wires

    def came_elsewhere(self, serial: str, far: DeviceElsewhere | None = None) -> None:
        """A device is here by another wire, or at another node: a client who waits for it goes by that."""
        proxy = self.get(serial)
        if proxy is None or proxy.lone is None or proxy.device is not None:
            return
        clients = self._by_link(proxy, far)
        lone = proxy.release() if clients is not None else None
        if clients is not None and lone is not None:
            self._step(proxy, ProxyEvent.DEVICE_CAME)
            proxy.linked = clients.came(lone.end)

    def left_elsewhere(self, serial: str) -> None:
        """One left; the port of a session is not to wait for its return."""
        proxy = self.get(serial)
        if proxy is not None:
            self.ports.renew(proxy.port)

    def _by_link(self, proxy: RunningProxy, far: DeviceElsewhere | None = None) -> Clients | None:
        """What takes the session's client by the carrier of its device; None: that is away, or lacks it."""
        serial, wanted = proxy.session.serial, proxy.session.options.target
        names = self.targets(serial) if far is None else [each.name for each in far.offers]
        if self._links is None or not names or wanted not in ("", *names):
            return None
        if far is None and not self.is_here(serial):
            return None
        return self._links(serial, wanted or names[0], partial(self._linked_left, proxy))

    def _linked_left(self, proxy: RunningProxy, client: ClientSocket) -> None:
        if proxy.linked is not client:  # it was sent away
            return
        proxy.unlink()
        if self._step(proxy, ProxyEvent.CLIENT_LEFT) is Life.ENDED:
            self._finish(proxy)
        else:
            self._step(proxy, ProxyEvent.DEVICE_LEFT)

    # -- clients

    def _client_came(self, serial: str, end: End) -> None:
        """A client of this session connected."""
        proxy: RunningProxy = self._running[serial]
        if proxy.session.refuses(address_of(end.peer)) or self.nodes is None or self.connected(serial):
            self._judged(proxy, end, None)
        elif proxy.looking is not None:
            end.abort()
            self._report(ClientRefused(serial, TARGET, end.peer, "too-many-clients"))
        else:
            proxy.look(self.nodes, end, partial(self._judged, proxy))

    def _judged(self, proxy: RunningProxy, end: End, far: DeviceElsewhere | None) -> None:
        """Let a client in, or turn it away; ``far``: its device is at another node, or was until now."""
        serial, reason = proxy.session.serial, proxy.session.refuses(address_of(end.peer))
        far = None if self.connected(serial) else far
        here = far is None and self.elsewhere(serial) is None
        clients = None if reason or here else self._by_link(proxy, far)
        if reason or not (here or clients):
            end.abort()
            self._report(ClientRefused(serial, TARGET, end.peer, reason or "device-absent"))
            return
        if clients is not None:
            proxy.client = end.peer
            self._step(proxy, ProxyEvent.DEVICE_CAME)
        else:
            proxy.client_came(end.peer, end)
        self._step(proxy, ProxyEvent.CLIENT_CAME)
        self._set_timer(proxy)
        if clients is not None:
            proxy.linked = clients.came(end)
        else:
            proxy.watch()

    def client_left(self, proxy: RunningProxy) -> None:
        """The client of a pair, or who waited, is gone."""
        proxy.client = ""
        if self._step(proxy, ProxyEvent.CLIENT_LEFT) is Life.ENDED:
            self._finish(proxy)
        else:
            proxy.watch()

    # -- the table and the end

    def _step(self, proxy: RunningProxy, event: ProxyEvent) -> Life:
        """Where an event leads; whoever has a client counts."""
        session = proxy.session
        self.clients -= session.client_connected
        try:
            return session.step(event)
        finally:
            self.clients += session.client_connected

    def _finish(self, proxy: RunningProxy) -> None:
        """The table said ENDED: close the port at once, and everybody in order."""
        session, serial = proxy.session, proxy.session.serial
        stopping = session.ended == "stopping"
        self._set_timer(proxy)
        del self._running[serial]
        self.ports.close(proxy.port, keep=stopping)
        if not stopping:  # else the next start takes up what persists, and says a word of the rest
            self._store.drop(serial)
        proxy.send_client_away()
        device, proxy.device = proxy.device, None
        if device is not None:
            self._after(device, session.ended, proxy.project)
        seconds = round(self._reactor.seconds() - session.since, 3)
        self._report(ProxyEnded(serial, proxy.port.number, session.ended, session.transferred, seconds))

    def _after(self, device: Registered, word: str, project: Project) -> None:
        """What becomes of the device of a session that ended."""
        kept = word in ("off", "timed-out") and project.park
        if kept and device.lone is not None and device.lone.whole:
            self.parking.park(device)
        else:
            self.parking.let_go(device, "off" if word in ("off", "timed-out") else "session", word)

    def _set_timer(self, proxy: RunningProxy) -> None:
        """Have the time-out fire when the table says so."""
        timer, proxy.timer = proxy.timer, None
        if timer is not None and timer.active():
            timer.cancel()
        until = proxy.session.until
        if until is not None:
            left = max(0.0, until - self._reactor.seconds())
            proxy.timer = self._reactor.callLater(left, self._timed_out, proxy)

    def _timed_out(self, proxy: RunningProxy) -> None:
        proxy.timer = None
        if proxy.session.expired(self._reactor.seconds()):
            self.off(proxy.session.serial, ProxyEvent.TIMED_OUT)
        else:
            self._set_timer(proxy)
