"""Sessions of serials that two wires know: one rule says who stays, and no end is left without a watcher.

Server, agent, devices and clients are the real ones over loopback, on a reactor that the test turns.
"""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.device_records import DeviceRecord, DeviceRecords, parse_pattern
from revtunnel.fleet.fleet import Fleet, TwoHolders
from revtunnel.fleet.leases import Leases
from revtunnel.fleet.pools import Pool
from revtunnel.ground.facts import ClientRefused, DuplicateDevice, LinkDown
from revtunnel.ground.limits import RelayLimits, ServerLimits
from revtunnel.process.admin.refusals import NotFound
from revtunnel.sockets.listening import Listeners
from revtunnel.state.ledger import SqliteLedger
from revtunnel.systems.cccp.cccp_facts import DeviceGone, ProxyEnded, RegistrationRefused
from revtunnel.systems.cccp.cccp_settings import CccpPart
from revtunnel.systems.cccp.cccp_system import CccpSystem
from revtunnel.systems.cccp.proxy import RunningProxy
from revtunnel.systems.cccp.proxy_operator import OnCall
from revtunnel.systems.cccp.proxy_sessions import Life, ProxyOptions
from revtunnel.systems.cccp.registered_devices import Project
from tests.support.data_world import HOST, SERIAL, DataWorld
from tests.support.epoll import own_reactor
from tests.support.ports import port_block

PART = CccpPart(http=(), token=None)


class BothWires(DataWorld):
    """A server with CCCP in it; ``device`` registers, ``on`` starts a session, ``visit`` is its client."""

    def __init__(self, rule: str = "auto", **options: Any) -> None:
        super().__init__(rule, **options)
        board = self.switchboard
        self.project = Project("main", "default", hold=True)
        self.site = CccpSystem(
            *(self.reactor, self.listeners, PART, self.ports.leases, SqliteLedger(None, lambda: 0.0)),
            *(self._told, board.access, None, board.fleet, board.client_streams.clients_by_name),
        )
        self.site.pending.projects["main"] = self.project
        self.registration = self.listeners.listen(HOST, 0, 50, partial(self.site.pending.came, "main"))
        self._stack.callback(self.loop.settle)
        self._stack.callback(self.registration.stop)

    def _report(self, fact: Any) -> None:
        super()._report(fact)
        if hasattr(self, "site"):
            self.site.told(fact)

    def _told(self, fact: Any) -> None:
        self.switchboard.report(fact)

    def __exit__(self, *how: Any) -> None:
        self.site.stop()
        super().__exit__(*how)

    def device(self, serial: str = SERIAL) -> socket.socket:
        """A device of CCCP; nobody has read its line yet."""
        device = self._connect_to(self.registration.port)
        device.send(serial.encode() + b"\r")
        return device

    def on(self, persistent: bool = True, serial: str = SERIAL) -> RunningProxy:
        """A session."""
        return self.site.proxies.on(serial, self.project, ProxyOptions(persistent))

    def visit(self, proxy: RunningProxy) -> socket.socket:
        """A client of a session; nobody has taken it in yet."""
        return self._connect_to(proxy.port.number)

    def _connect_to(self, port: int) -> socket.socket:
        found = self._stack.enter_context(socket.create_connection((HOST, port)))
        found.setblocking(False)
        return found

    def rest(self) -> None:
        """No client and no stream is left."""
        self.until(lambda: not self.switchboard.clients and not self.data.running, "rest")
        assert self.switchboard.streams.page() == [] and not self.site.proxies.clients

    def alarm(self) -> tuple[str, str, str]:
        """Who stayed of two, and their wires, the newer one's first."""
        self.until(lambda: self.of(DuplicateDevice), "the alarm")
        (fact,) = self.of(DuplicateDevice)
        assert fact.serial == SERIAL
        return fact.stays, fact.wire, fact.older_wire


@pytest.mark.parametrize("rule", ["link", "auto"])
def test_a_client_of_a_session_by_the_carrier_of_its_device(rule: str) -> None:
    """Its stream is known as an object: bytes are exact while it runs and afterwards, and /off ends it."""
    with BothWires(rule) as world:
        proxy = world.on()
        client = world.visit(proxy)
        service = world.service()
        world.carry(client, service, b"x" * 70_000)
        world.carry(service, client, b"y" * 30)
        assert world.site.operator.status(SERIAL) == {
            "device_connected": True,
            "client_connected": True,
            "transferred": 70_030,
        }
        client.close()
        service.close()
        world.until(lambda: proxy.session.life is Life.WAITING, "the client's leaving")
        assert proxy.transferred == 70_030 and proxy.linked is None
        second = world.visit(proxy)
        service = world.service()
        world.carry(second, service, b"z")
        third = world.visit(proxy)
        assert world.ending(third) == "reset"
        world.site.operator.off(SERIAL)
        assert world.ending(second) == "reset"
        (ended,) = world.of(ProxyEnded)
        assert (ended.reason, ended.transferred) == ("off", 70_031)
        world.rest()


@pytest.mark.parametrize("rule", ["link", "auto"])
def test_two_clients_of_one_address_are_not_mixed_up(rule: str) -> None:
    """A client of the device's own port has nothing to do with the session's, whatever its address is."""
    with BothWires(rule) as world:
        proxy = world.on()
        client = world.visit(proxy)
        service = world.service()
        world.carry(client, service, b"x")
        other, other_service = world.talk()
        world.carry(other, other_service, b"y" * 500)
        assert proxy.transferred == 1
        proxy.linked.peer = world.switchboard.streams.page()[-1].client  # type: ignore[union-attr]
        assert proxy.transferred == 1
        world.site.operator.off(SERIAL)
        assert world.ending(client) == "reset"
        world.carry(other, other_service, b"still here")


@pytest.mark.parametrize("rule", ["link", "auto"])
def test_a_registered_device_takes_the_place_of_a_linked_one(rule: str) -> None:
    """The client by the link is cut, the session is the new device's, and that one's end is noticed."""
    with BothWires(rule) as world:
        proxy = world.on()
        client = world.visit(proxy)
        service = world.service()
        world.carry(client, service, b"x" * 10)
        device = world.device()
        assert world.alarm() == ("newest", "cccp", "rt1")
        assert world.ending(client) == "reset"
        world.until(lambda: world.of(LinkDown), "the end of the link")
        assert world.of(LinkDown)[0].reason == "replaced"
        assert (proxy.session.life, proxy.linked, proxy.transferred) == (Life.DEVICE, None, 10)
        assert world.ports.of(SERIAL) == []

        world.uplink.abort()  # or it would come back, and win
        second = world.visit(proxy)
        world.carry(second, device, b"to the device")
        world.carry(device, second, b"to the client")
        assert proxy.session.life is Life.JOINED and proxy.transferred == 36
        device.close()
        world.until(lambda: proxy.session.life is Life.CLIENT, "the device's leaving")
        assert world.of(DeviceGone)[0].reason == "closed"
        second.close()
        world.until(lambda: proxy.session.life is Life.WAITING, "the client's leaving")
        assert world.site.operator.devices()[0][0]["connected"] is False


def test_a_session_for_once_ends_with_the_device_that_it_had() -> None:
    """A second device ends it, by whatever wire that comes; the new one is parked."""
    with BothWires() as world:
        proxy = world.on(persistent=False)
        client = world.visit(proxy)
        world.carry(client, world.service(), b"x")
        world.device()
        assert world.alarm() == ("newest", "cccp", "rt1")
        assert world.ending(client) == "reset"
        world.until(lambda: world.of(ProxyEnded), "the end of the session")
        assert world.of(ProxyEnded)[0].reason == "device-replaced"
        assert world.site.counts()["devices"] == 1 and world.site.proxies.get(SERIAL) is None


@pytest.mark.parametrize("rule", ["link", "auto"])
def test_a_linked_device_takes_the_place_of_a_registered_one(rule: str) -> None:
    """The client of the session stays: from now on it goes by the link."""
    with BothWires(rule) as world:
        world.uplink.stop(0.0)
        world.until(lambda: not world.switchboard.links, "the end of the link")
        device = world.device()
        world.until(lambda: world.site.counts()["devices"], "the device")
        proxy = world.on()
        client = world.visit(proxy)
        world.carry(client, device, b"x")
        world.uplink = world.make_uplink()
        world.start()
        assert world.alarm() == ("newest", "rt1", "cccp")
        assert world.ending(device) == "end of file"
        assert world.of(DeviceGone)[0].reason == "replaced"
        service = world.service()
        world.carry(client, service, b"by the link")
        world.carry(service, client, b"and back")
        assert proxy.session.life is Life.JOINED and proxy.transferred == 20
        client.close()
        service.close()
        world.until(lambda: proxy.session.life is Life.WAITING, "the client's leaving")
        world.rest()


def test_a_client_who_waits_is_served_by_whatever_wire_its_device_comes() -> None:
    """Nobody is left hanging beside a device that is here."""
    with BothWires() as world:
        world.uplink.stop(0.0)
        world.until(lambda: not world.switchboard.links, "the end of the link")
        world.device().close()  # the serial was one of CCCP last
        world.until(lambda: world.of(DeviceGone), "the device's leaving")
        proxy = world.on(persistent=False)
        client = world.visit(proxy)
        client.send(b"early")
        world.until(lambda: proxy.session.life is Life.CLIENT, "the client")
        world.uplink = world.make_uplink()
        world.start()
        service = world.service()
        assert world.hear(service, 5) == b"early"
        world.carry(service, client, b"late")
        client.close()
        service.close()
        world.until(lambda: world.of(ProxyEnded), "the end of the session")
        assert (world.of(ProxyEnded)[0].reason, world.of(ProxyEnded)[0].transferred) == ("client-closed", 9)


def test_the_oldest_stays_where_the_newer_ones_listener_says_so() -> None:
    """For both wires; who is turned away changes nothing for who is here."""
    with BothWires() as world:
        world.site.pending.projects["main"] = replace(world.project, newest=False)
        client, service = world.talk()
        device = world.device()
        assert world.alarm() == ("oldest", "cccp", "rt1")
        assert world.ending(device) == "reset"
        assert [fact.reason for fact in world.of(RegistrationRefused)] == ["duplicate"]
        world.carry(client, service, b"still here")


def test_while_a_linked_device_is_away_its_clients_are_reset() -> None:
    """As on its own ports."""
    with BothWires() as world:
        proxy = world.on()
        world.uplink.stop(0.0)
        world.until(lambda: not world.switchboard.links, "the end of the link")
        assert world.ending(world.visit(proxy)) == "reset"
        assert [fact.reason for fact in world.of(ClientRefused)] == ["device-absent"]
        assert proxy.session.life is Life.WAITING


def test_what_the_record_of_a_linked_device_denies_is_no_target() -> None:
    """/on does not take it, and a session that was begun before leads nowhere."""
    with BothWires() as world:
        (name,) = (offer.name for offer in world.offers)
        early = world.on()
        assert world.site.operator.on(OnCall(SERIAL, ProxyOptions(True, target=name))) == early.port.number
        pattern = parse_pattern("10.0.0.1:1")
        world.switchboard.access.records = DeviceRecords({SERIAL: DeviceRecord(targets=(pattern,))})
        with pytest.raises(NotFound, match=f"offers no {name}"):
            world.site.operator.on(OnCall(SERIAL, ProxyOptions(True, target=name)))
        assert world.ending(world.visit(early)) == "reset"
        assert [fact.reason for fact in world.of(ClientRefused)] == ["device-absent"]


def test_a_target_that_a_linked_device_offers_no_more_is_absent() -> None:
    """A session of an earlier start may be for one; its clients are not given another."""
    with BothWires() as world:
        proxy = world.site.proxies.on(SERIAL, world.project, ProxyOptions(True, target="gone"))
        assert world.ending(world.visit(proxy)) == "reset"
        assert [fact.reason for fact in world.of(ClientRefused)] == ["device-absent"]


def test_a_device_that_was_never_here_is_of_no_other_wire() -> None:
    """Settings may name a device of CCCP's own: it is waited for as one."""
    with BothWires() as world:
        world.switchboard.fleet.know("CLD-9", 0.0)
        assert world.site.proxies.elsewhere("CLD-9") is None
        world.switchboard.fleet.know("press-4", 0.0, "legacy")
        assert world.site.proxies.elsewhere("press-4") is not None


def test_an_operator_kicks_a_registered_device_like_any_other() -> None:
    """Its end is closed and the fact says why."""
    with BothWires() as world:
        device = world.device("CLD-1")
        world.until(lambda: world.site.counts()["devices"], "the device")
        assert world.switchboard.kick("CLD-1", "by an operator", 0, "anna")
        assert world.ending(device) == "end of file"
        (gone,) = world.of(DeviceGone)
        assert (gone.reason, gone.detail) == ("kicked", "by an operator, anna")


@contextlib.contextmanager
def alone() -> Iterator[tuple[Any, CccpSystem, list[Any]]]:
    """CCCP without another wire."""
    with own_reactor() as loop:
        facts: list[Any] = []
        listeners = Listeners(loop.reactor, facts.append)
        low, high = map(int, port_block().split("-"))
        leases = Leases((Pool("default", ((low, high),)),), 0.0)
        ledger = SqliteLedger(None, lambda: 0.0)
        site = CccpSystem(
            loop.reactor, listeners, PART, leases, ledger, facts.append, AccessControl(lambda: 0.0)
        )
        yield loop, site, facts
        site.stop()
        loop.settle()


def test_a_pair_has_the_limits_that_hold_when_it_is_joined() -> None:
    """[relay] reaches CCCP, and other values reach the pairs that come."""
    with alone() as (loop, site, facts), contextlib.ExitStack() as stack:
        project = Project("main", "default")
        site.pending.projects["main"] = project
        port = Listeners(loop.reactor, facts.append).listen(HOST, 0, 50, partial(site.pending.came, "main"))
        for serial, first in (("a", 12_345), ("b", 54_321)):
            site.proxies.relay_limits = RelayLimits(first=first)
            device = stack.enter_context(socket.create_connection((HOST, port.port)))
            device.sendall(serial.encode() + b"\r")
            loop.until(lambda serial=serial: site.proxies.parking.get(serial))
            proxy = site.proxies.on(serial, project, ProxyOptions())
            client = stack.enter_context(socket.create_connection((HOST, proxy.port.number)))
            loop.until(lambda proxy=proxy: proxy.relay)
            assert proxy.relay is not None and proxy.relay.limits.first == first
            client.close()
            loop.until(lambda serial=serial: site.proxies.get(serial) is None)
        port.stop()


def test_the_limits_of_swaps_reach_the_devices_of_cccp() -> None:
    """duplicate_swaps and duplicate_window: the second proved swap in the window bars the serial."""
    with alone() as (_, site, facts):
        fleet: Fleet[Any] = site.fleet
        fleet.limits = ServerLimits(duplicate_swaps=1, duplicate_window=1000.0)
        for number in range(2):
            fleet.arrive("x", number, 1.0, authenticated=True, system="cccp")
        with pytest.raises(TwoHolders):
            fleet.arrive("x", 2, 900.0, authenticated=True, system="cccp", alarm=True)
        assert [fact.stays for fact in facts if isinstance(fact, DuplicateDevice)] == ["neither"]
        fleet.leave("x", 1, 900.0)
