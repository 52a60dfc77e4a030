"""Devices that are away: which are listed, whose ports stand, who is woken and when, as settings say."""

from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, succeed

from revtunnel.daemons.absent_devices import AbsentDevices
from revtunnel.daemons.server_reading import load_server
from revtunnel.daemons.server_settings import ServerSettings
from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.device_records import DeviceRecord, DeviceRecords
from revtunnel.fleet.pools import Use
from revtunnel.ground.facts import ListenerRefused
from revtunnel.process.wake import WakeDriver
from revtunnel.settings.inifile import Surroundings
from tests.support.world import CONSOLE, POOL, World

AROUND = Surroundings({}, root=False, home="/nowhere", host_name="gate", default_path="/nowhere/r.ini")
LISTENER = "[listener old]\nkind = legacy\nserial = plc-1\nmappings = 0 -> console=10.0.0.5:23\n"
WAKE = "wake_command = /bin/wake\n"
WAITS = "[pool default]\nranges = 20000-20099\nabsent = wait\nwake_wait = 30 s\n"


def read(tmp_path: Path, text: str) -> ServerSettings:
    """The settings of a file."""
    path = tmp_path / "r.ini"
    path.write_text(text)
    return load_server(str(path), None, AROUND)


class Site:
    """A world with the settings of a file; ``woken`` are wakes, which are done at once."""

    def __init__(self, tmp_path: Path, text: str, world: World | None = None, start: bool = True) -> None:
        self.path = tmp_path
        self.world = world or World("legacy", start=False)
        self.absent = AbsentDevices(self.world.reactor, self.world.switchboard, self.world._report)
        self.woken: list[str] = []
        self.take(text)
        if start:
            self.absent.start(())

    def take(self, text: str) -> None:
        """Settings, or other ones."""
        settings = read(self.path, text)
        standing = {pool.name: pool.absent != "close" for pool in settings.pools}
        self.world.ports.refuses = standing
        self.absent.take(settings)
        if self.absent._driver is not None:
            self.absent._driver = self._wake
        self.world.switchboard.enforcement.keep_promises()

    def _wake(self, serial: str) -> Deferred[None]:
        self.woken.append(serial)
        return succeed(None)

    def come(self) -> None:
        """The device that was woken dials out."""
        self.world.agents["plc-1"].uplink.start()
        self.world.advance(15.0)

    def listed(self) -> dict[str, str]:
        """Devices with their wires."""
        return {each.serial: each.system for each in self.world.switchboard.fleet.page("", None)}

    def finish(self) -> None:
        """Nothing may be left."""
        self.absent.stop()
        self.world.finish()


def test_a_device_is_woken_at_the_start_and_when_its_link_is_lost(tmp_path: Path) -> None:
    """And not while it is here, nor when the server stops."""
    site = Site(tmp_path, LISTENER + WAKE)
    assert site.woken == ["plc-1"]
    site.come()
    site.world.advance(600.0)
    assert site.woken == ["plc-1"]
    site.world.agents["plc-1"].uplink.stop(0.0)
    site.world.agents["plc-1"].uplink.abort()
    site.world.pump()
    assert site.woken == ["plc-1", "plc-1"]
    site.absent.stop()
    site.world.advance(6000.0)
    assert site.woken == ["plc-1", "plc-1"]
    site.finish()


def test_a_client_of_a_device_that_never_was_here_waits_for_it(tmp_path: Path) -> None:
    """Its port stands from the start, for settings name it; the device comes because the client does."""
    site = Site(tmp_path, LISTENER + WAKE + WAITS, start=False)
    (port,) = site.world.ports.of("plc-1")
    assert port.lease.target == "console"
    client = site.world.client()
    client.say(b"are you there")
    site.world.pump()
    assert site.woken == ["plc-1"]
    site.come()
    assert site.world.services["console"][-1].data == b"are you there"
    site.finish()


@pytest.mark.parametrize("comes", [True, False])
def test_a_client_of_a_device_that_is_just_let_in_waits_for_it_a_moment(tmp_path: Path, comes: bool) -> None:
    """Whatever its pool says: with workers its link says that it is up a little after it was admitted."""
    site = Site(tmp_path, LISTENER)
    site.come()
    board = site.world.switchboard
    device = board.fleet.get("plc-1")
    assert device is not None
    carrier, device.carrier = device.carrier, None
    client = site.world.client()
    client.say(b"are you there")
    site.world.advance(4.0)
    assert client.here
    if comes:
        device.carrier = carrier
        board.client_streams.device_came("plc-1")
        site.world.pump()
        assert site.world.services["console"][-1].data == b"are you there"
    else:
        site.world.advance(2.0)
        assert client.was_reset
        device.carrier = carrier
    site.finish()


def test_a_device_that_does_not_come_costs_its_clients_what_the_pool_says(tmp_path: Path) -> None:
    """And every client of a closed pool finds a closed port, as before."""
    site = Site(tmp_path, LISTENER + WAKE + WAITS)
    client = site.world.client()
    site.world.advance(29.0)
    assert client.here
    site.world.advance(2.0)
    assert client.was_reset
    site.take(LISTENER + WAKE)
    assert not site.world.ports.of("plc-1")
    site.finish()


def test_a_reload_wakes_whom_it_is_news_for(tmp_path: Path) -> None:
    """Another device, another way; nobody else, however often it is asked for."""
    site = Site(tmp_path, LISTENER)
    assert site.woken == []
    for _ in range(3):
        site.take(LISTENER + WAKE)
        site.absent.wake_fresh()
        site.world.advance(200.0)
    often = len(site.woken)
    assert often == len([0, 60, 180, 420])
    real = site.absent._rules_of("plc-1")
    assert (real.command, real.seconds, real.most) == ("/bin/wake", 20.0, 16)
    site.take(LISTENER + WAKE.replace("wake\n", "wake better\n"))
    site.absent.wake_fresh()
    assert len(site.woken) == often + 1
    site.take(LISTENER)
    assert not site.absent._rules_of("plc-1")
    site.finish()


def test_a_device_whose_record_is_over_is_not_woken(tmp_path: Path) -> None:
    """It would not be let in."""
    access = AccessControl(lambda: 2e9, DeviceRecords({"plc-1": DeviceRecord(expires=1e9)}))
    site = Site(tmp_path, LISTENER + WAKE, World("legacy", start=False, access=access))
    site.world.advance(600.0)
    assert site.woken == []
    site.finish()


def test_who_is_listed_before_he_was_here(tmp_path: Path) -> None:
    """Those that settings name, those of the ledger's leases, and those who are enrolled."""
    more = "[device plc-3]\nchannels = 3\n[device *]\nchannels = 9\n[reservations]\nplc-4/http = 4000\n"
    shared = "[listener many]\naddress = 127.0.0.1:1\nkind = legacy\nmappings = 0 -> x=h:1\n"
    one = "[legacy-device plc-2]\nlistener = many\nsource = 10.0.0.7\n"
    world = World("legacy", start=False)
    world.leases.open("plc-5", "console", 0.0)
    world.leases.keep("plc-5", 0.0)
    site = Site(tmp_path, LISTENER + shared + one + more, world, start=False)
    site.absent.start(["plc-6", "plc-1"])
    assert site.listed() == {
        "plc-1": "legacy",
        "plc-2": "legacy",
        **dict.fromkeys(("plc-3", "plc-4", "plc-5", "plc-6"), ""),
    }
    device = world.switchboard.fleet.get("plc-1")
    assert device is not None and not device.online
    assert (device.offers, device.listener) == ((CONSOLE,), "old")
    site.come()
    assert device.online and device.links == 1
    site.finish()


def test_a_pool_that_is_too_small_for_all_says_so_once(tmp_path: Path) -> None:
    """At the start; the device's own coming settles it."""
    small = "[pool default]\nranges = 20000\nabsent = wait\n"
    mappings = LISTENER + "    0 -> web=10.0.0.5:80\n"
    pool = World("legacy", start=False, pools=(POOL.__class__("default", ((20000, 20000),)),))
    site = Site(tmp_path, mappings + small, pool)
    (refused,) = pool.of(ListenerRefused)
    assert (refused.serial, refused.target) == ("plc-1", "web")
    assert pool.leases.find("plc-1", "console") is not None
    site.finish()


def test_fixed_ports_stand_before_their_device_came(tmp_path: Path) -> None:
    """Also at an address of their own."""
    fixed = LISTENER.replace("0 -> console", "127.0.0.9:2323 -> console")
    world = World("legacy", start=False)
    world.leases.reload(
        [POOL.__class__(POOL.name, POOL.ranges, elsewhere={2323: "127.0.0.9"})],
        {Use("plc-1", "console"): 2323},
        0.0,
    )
    site = Site(tmp_path, fixed + WAITS, world)
    (port,) = world.ports.of("plc-1")
    assert (port.lease.port, port.lease.address) == (2323, "127.0.0.9")
    site.finish()


def test_a_fixed_port_that_another_absent_device_had(tmp_path: Path) -> None:
    """It changes hands with the settings, with the socket that stood for the other one."""
    world = World("legacy", start=False)
    site = Site(tmp_path, LISTENER + WAITS, world)
    (port,) = world.ports.of("plc-1")
    world.leases.reload([POOL], {Use("plc-2", "console"): port.lease.port}, 0.0)
    fixed = LISTENER.replace("0 -> console", f"{port.lease.port} -> console").replace("plc-1", "plc-2")
    site.take(fixed + WAITS)
    assert not world.ports.of("plc-1")
    assert [each.lease.port for each in world.ports.of("plc-2")] == [port.lease.port]
    site.finish()


@pytest.mark.parametrize("text", ["", "wake_url = https://gate.example/wake\n"])
def test_the_driver_is_there_where_somebody_can_be_woken(tmp_path: Path, text: str) -> None:
    """A server without such devices has no part of it."""
    site = Site(tmp_path, LISTENER, start=False)
    site.absent.take(read(tmp_path, LISTENER + text))
    driver = getattr(site.absent._driver, "__self__", None)
    assert isinstance(driver, WakeDriver) is bool(text)
    site.finish()
