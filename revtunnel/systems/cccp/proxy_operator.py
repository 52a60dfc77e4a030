"""What callers of the CCCP API can do, as plain methods: on, off, status, devices. Interfaces only translate.

Rule of this file: what is wrong raises one of refusals.py, or NoPorts, before anything has changed. ``/on``
twice is one proxy; a caller may wait for an absent device, who is called (wake.py) once for each request. Of
several nodes the one that was asked has the proxy, and answers for those of the others (devices_at_nodes.py).

Source: TCXN CCCP; wire/cccp.md section 2; house.md (operator.py).
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from revtunnel.fleet.elsewhere import DeviceElsewhere
from revtunnel.ground.limits import CccpLimits
from revtunnel.ground.retries import Retries
from revtunnel.process.admin.refusals import Busy, NotFound
from revtunnel.process.wake import WakeDriver, WakeFailed
from revtunnel.sockets.end_transport import in_words
from revtunnel.systems.cccp.proxies import Proxies
from revtunnel.systems.cccp.proxy import RunningProxy
from revtunnel.systems.cccp.proxy_ports import NoPort
from revtunnel.systems.cccp.proxy_sessions import ProxyOptions
from revtunnel.systems.cccp.registered_devices import Project

__all__ = ["CallerFailed", "DeviceAbsent", "NoPorts", "OnCall", "ProxyOperator"]

Row = dict[str, Any]


class NoPorts(Exception):
    """The document's "No available ports"; ``rest`` says when asking again is of use."""

    def __init__(self, text: str, rest: str) -> None:
        super().__init__(text)
        self.rest = rest


class DeviceAbsent(Exception):
    """The caller waited and the device did not come."""


class CallerFailed(Exception):
    """It could not be done here; the text is for the caller."""


@dataclass(frozen=True, slots=True)
class OnCall:
    """What ``/on`` was asked."""

    serial: str
    options: ProxyOptions = field(default_factory=ProxyOptions)
    wait: float = 0.0
    project: str = ""


class _WaitingCaller:
    """One caller who waits."""

    def __init__(self, proxy: RunningProxy, fresh: bool) -> None:
        self.proxy = proxy
        self.fresh = fresh  # it was started for this caller
        self.came: Deferred[None] = Deferred()
        self.not_woken = ""  # why the last wake for it failed


class ProxyOperator:
    """``projects`` gives them in their order."""

    def __init__(
        self,
        reactor: Any,
        proxies: Proxies,
        projects: Callable[[], Sequence[Project]],
        limits: Callable[[], CccpLimits],
        wake: WakeDriver,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.proxies = proxies
        self.draining = False
        self.retries: Retries | None = None  # without them a wake is not tried again
        self.give_up: Callable[[str], bool] = lambda serial: False  # of what waits to be started
        self._reactor = reactor
        self._projects = projects
        self._limits = limits
        self._wake = wake
        self._wall = wall
        self._waiting: dict[str, list[_WaitingCaller]] = {}
        self._callers = 0  # that wait
        proxies.on_device = self.device_came

    # -- the document's

    def on(self, call: OnCall) -> "int | Deferred[int]":
        """Start a proxy, or change the running one: its port.

        Raises:
            Busy: we are stopping, or too many wait.
            NotFound: the serial is not listed, or there is no such project or target.
            NoPorts, CallerFailed
        """
        nodes = self.proxies.nodes
        if nodes is None or self.draining or self.proxies.connected(call.serial):
            return self._on(call)
        return nodes.look(call.serial).addCallback(lambda far: self._on(call, far))

    def _on(self, call: OnCall, far: DeviceElsewhere | None = None) -> "int | Deferred[int]":
        """The same; ``far``: the device is at another node."""
        if self.draining:
            raise Busy("stopping")
        running = self.proxies.get(call.serial)
        project = running.project if running is not None else self._project(call, far is not None)
        targets = self.proxies.targets(call.serial) if far is None else [each.name for each in far.offers]
        if call.options.target and call.options.target not in targets:
            raise NotFound(f"The device offers no {call.options.target}")
        there = far is not None and far.free
        absent = call.wait > 0 and not (there or self.proxies.is_here(call.serial))
        if absent and self._callers >= self._limits().waiting:
            raise Busy("too many callers wait for devices")
        try:
            proxy = self.proxies.on(call.serial, project, self._with_default(call.options, project))
        except NoPort as error:
            raise NoPorts(str(error), error.rest) from None
        except OSError as error:
            raise CallerFailed(str(error)) from None
        return self._wait(proxy, running is None, call.wait) if absent else proxy.port.number

    def off(self, serial: str) -> "Deferred[Any] | None":
        """End it, with its client and device, at whichever nodes it is. NotFound: there is none."""
        ended = self.off_here(serial)
        nodes = self.proxies.nodes
        if nodes is not None:
            return nodes.proxies_off(serial).addCallback(lambda others: _found(others or ended))
        _found(ended)
        return None

    def off_here(self, serial: str) -> bool:
        """The same at this node; False: there is none."""
        return self.proxies.off(serial) is not None or self.give_up(serial)

    def status(self, serial: str) -> "Row | Deferred[Row]":
        """The three answers, of the proxy here, else of one at another node. NotFound: there is none."""
        row, nodes = self.status_here(serial), self.proxies.nodes
        if row is None and nodes is not None:
            return nodes.proxies(serial).addCallback(lambda rows: _found(rows[0] if rows else None))
        found: Row | Deferred[Row] = _found(row)
        return found

    def status_here(self, serial: str) -> "Row | Deferred[Row] | None":
        """The same of the proxy here alone, whose device may be at another node; None: there is none."""
        proxy, nodes = self.proxies.get(serial), self.proxies.nodes
        if proxy is None:
            return None
        row = {
            "device_connected": proxy.session.device_connected or self.proxies.is_here(serial),
            "client_connected": proxy.session.client_connected,
            "transferred": proxy.transferred,
        }
        if nodes is None or row["device_connected"] or self.proxies.connected(serial):
            return row
        return nodes.look(serial).addCallback(
            lambda far: {**row, "device_connected": far is not None and far.free}
        )

    # -- ours

    def devices(self, after: str = "", limit: int = 200) -> tuple[list[Row], str | None]:
        """Registered devices and devices with a proxy, by serial: a page, and the serial to go on after."""
        found = self.proxies.page(after, limit + 1)
        rows = [self._device(serial) for serial in found[:limit]]
        return rows, (found[limit - 1] if len(found) > limit else None)

    @property
    def awaited(self) -> list[str]:
        """Devices that callers wait for."""
        return [*self._waiting]

    def device_came(self, serial: str) -> None:
        """It is connected: whoever waits for it is answered."""
        for waiting in self._waiting.pop(serial, []):
            waiting.came.callback(None)

    def drain(self) -> None:
        """Start no more proxies; nobody waits any longer."""
        self.draining = True
        for serial in list(self._waiting):
            for waiting in self._waiting.pop(serial):
                waiting.came.errback(Failure(Busy("stopping")))

    def _project(self, call: OnCall, at_a_node: bool = False) -> Project:
        """The one named, or its device's, or the first that lists or takes the serial."""
        projects = self._projects()
        device = self.proxies.parking.get(call.serial)
        if call.project:
            projects = [each for each in projects if each.name == call.project]
            if not projects:
                raise NotFound("No such project")
        elif device is not None:
            return device.arrival.project
        listed = [each for each in projects if call.serial in each.serials]
        found = [*listed, *(each for each in projects if each.welcomes(call.serial))]
        if not found:
            if at_a_node or self.proxies.elsewhere(call.serial) is not None:
                return projects[0]
            raise NotFound("No such device")
        return found[0]

    @staticmethod
    def _with_default(options: ProxyOptions, project: Project) -> ProxyOptions:
        return replace(options, timeout=options.timeout or project.timeout)

    def _wait(self, proxy: RunningProxy, fresh: bool, seconds: float) -> "Deferred[int]":
        serial = proxy.session.serial
        waiting = _WaitingCaller(proxy, fresh)
        self._waiting.setdefault(serial, []).append(waiting)
        self._callers += 1
        waking = self._wake.wake(serial) if self.proxies.in_use(serial) is None else None
        if waking is not None:
            waking.addErrback(self._not_woken, serial)
        late = f"The device did not connect within {seconds:g} s"
        waiting.came.addTimeout(
            min(seconds, self._limits().wait), self._reactor, lambda result, _: _late(result, waiting, late)
        )
        return waiting.came.addBoth(self._waited, waiting)

    def _not_woken(self, failure: Failure, serial: str) -> None:
        """Try again while anybody waits for the device; he is told in the end."""
        failure.trap(WakeFailed)
        why = in_words(failure)
        waiting = self._waiting.get(serial, [])
        for each in [*waiting]:
            each.not_woken = why
            if self.retries is None:
                each.came.errback(CallerFailed(f"Wake: {why}"))
        if waiting and self.retries is not None:
            again = partial(self._wake_again, serial)
            self.retries.failed(f"waking {serial}", why, again, quiet=True)  # the driver says it

    def _wake_again(self, serial: str) -> None:
        waking = self._wake.wake(serial)
        if waking is not None:
            waking.addCallbacks(lambda _: self._woken(serial), self._not_woken, errbackArgs=(serial,))

    def _woken(self, serial: str) -> None:
        for each in self._waiting.get(serial, []):
            each.not_woken = ""
        if self.retries is not None:
            self.retries.well(f"waking {serial}")

    def _waited(self, result: Any, waiting: _WaitingCaller) -> Any:
        serial = waiting.proxy.session.serial
        self._callers -= 1
        rest = [each for each in self._waiting.get(serial, []) if each is not waiting]
        if rest:
            self._waiting[serial] = rest
        else:
            self._waiting.pop(serial, None)
            if self.retries is not None:
                self.retries.drop(f"waking {serial}")
        proxy = self.proxies.get(serial)
        if isinstance(result, Failure):
            hung_up = result.check(CancelledError)
            if (
                waiting.fresh
                and proxy is waiting.proxy
                and not proxy.session.client_connected
                and not hung_up
            ):
                self.proxies.off(serial, word="device-absent")
            return result
        if proxy is not waiting.proxy:
            raise CallerFailed("The proxy was stopped meanwhile")
        return proxy.port.number

    def _device(self, serial: str) -> Row:
        proxy, device = self.proxies.get(serial), self.proxies.parking.get(serial)
        taken = self.proxies.in_use(serial)
        client = taken.client if taken is not None else proxy.client if proxy is not None else ""
        now = self._reactor.seconds()
        since = self._wall() - (now - device.since) if device is not None else None
        return {
            "serial": serial,
            "connected": taken is not None or self.proxies.is_here(serial),
            "in_use": taken is not None,
            "address": device.peer if device is not None else None,
            "project": device.arrival.project.name if device is not None else proxy.project.name,  # type: ignore[union-attr]
            "authenticated": device.arrival.authenticated if device is not None else False,
            "since": None if since is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since)),
            "port": proxy.port.number if proxy is not None else None,
            "persistent": proxy.session.options.persistent if proxy is not None else None,
            "client": client or None,
        }


def _found(found: Any) -> Any:
    if not found:
        raise NotFound("No proxy for this device")
    return found


def _late(result: Any, waiting: _WaitingCaller, text: str) -> Any:
    if not (isinstance(result, Failure) and result.check(CancelledError)):
        return result
    if waiting.not_woken:
        return Failure(CallerFailed(f"Wake: {waiting.not_woken}"))
    return Failure(DeviceAbsent(text))
