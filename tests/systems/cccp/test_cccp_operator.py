"""CCCP's devices, sessions and pairs as operators see them, over real sockets in one process."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.error import CannotListenError
from twisted.internet.task import Clock

from revtunnel.daemons.schema import load
from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.leases import Leases
from revtunnel.ground.facts import Trouble, TroubleOver
from revtunnel.ground.limits import RelayLimits
from revtunnel.ground.retries import Retries
from revtunnel.process.admin.refusals import NotFound
from revtunnel.process.reporting import Reporter
from revtunnel.settings.inifile import Surroundings
from revtunnel.sockets.listening import Listeners
from revtunnel.state.ledger import SqliteLedger
from revtunnel.systems.cccp.cccp_facts import RegistrationRefused
from revtunnel.systems.cccp.cccp_operator import CccpOperator
from revtunnel.systems.cccp.cccp_reading import read_cccp
from revtunnel.systems.cccp.cccp_store import Kept
from revtunnel.systems.cccp.cccp_system import CccpSystem
from revtunnel.systems.cccp.proxy_operator import OnCall
from revtunnel.systems.cccp.proxy_sessions import ProxyOptions
from tests.support.epoll import Loop, own_reactor
from tests.support.ports import port_block

INI = """\
[cccp]
http = 127.0.0.1:0
[cccp-project main]
address = 127.0.0.1:0
ranges = {ports}
"""


class Site:
    """A CCCP site with its caretaker; devices and clients are plain sockets."""

    def __init__(self, loop: Loop, directory: Path) -> None:
        path = directory / "cccp.ini"
        path.write_text(INI.format(ports=port_block(40)))
        part = load(read_cccp, str(path), None, Surroundings({}, False, str(directory), "host")).part
        self.loop = loop
        self.facts: list[Any] = []
        listeners = Listeners(loop.reactor, self.facts.append)
        ledger = SqliteLedger(None, lambda: 0.0)
        leases = Leases(part.pools, loop.reactor.seconds(), None, ledger)
        self.system = CccpSystem(
            *(loop.reactor, listeners, part, leases, ledger, self.facts.append, AccessControl(lambda: 0.0))
        )
        self.system.start()
        self.operator = CccpOperator(loop.reactor, self.system, leases, ledger, Reporter())
        self.sockets: list[socket.socket] = []

    def connect(self, port: int) -> socket.socket:
        """A socket of somebody's."""
        made = socket.create_connection(("127.0.0.1", port), 20)
        made.settimeout(20)
        self.sockets.append(made)
        return made

    def device(self, serial: str) -> socket.socket:
        """A registered device."""
        made = self.connect(self.system.listening.all[0].port)
        made.sendall(f"{serial}\r".encode())
        self.loop.until(lambda: self.system.proxies.parking.get(serial), "the device")
        return made

    def on(self, serial: str, persistent: bool = True, timeout: float = 0.0) -> int:
        """A proxy: its port."""
        port = self.system.operator.on(
            OnCall(serial, ProxyOptions(persistent, timeout=timeout), project="main")
        )
        assert isinstance(port, int)
        return port

    def pair(self, serial: str, persistent: bool = True) -> tuple[socket.socket, socket.socket]:
        """A device and its client, joined."""
        device = self.device(serial)
        client = self.connect(self.on(serial, persistent))
        self.loop.until(lambda: self.session(serial)["state"] == "joined", "the pair")
        return device, client

    def session(self, serial: str) -> dict[str, Any]:
        """Its row; empty: there is none."""
        rows, _ = self.operator.sessions(serial)
        return rows[0] if rows else {}

    def pass_on(self, source: socket.socket, output: socket.socket, data: bytes) -> None:
        """Bytes from one to the other."""
        source.sendall(data)
        output.setblocking(False)
        got = bytearray()

        def all_there() -> bool:
            with suppress(BlockingIOError):
                got.extend(output.recv(65536))
            return len(got) == len(data)

        self.loop.until(all_there, "the bytes")
        output.settimeout(20)

    def end(self) -> None:
        """Close everything."""
        self.system.stop()
        for each in self.sockets:
            each.close()
        self.loop.settle()


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Site]:
    """A site on a reactor of its own."""
    with own_reactor() as loop:
        made = Site(loop, tmp_path)
        yield made
        made.end()


def test_a_persistent_proxy_whose_address_is_not_there_yet_is_started_later(system: Site) -> None:
    """And ended before, where a caller wants that."""
    clock, said = Clock(), list[Any]()
    retries = system.system.retries = Retries(clock, said.append, lambda: 0.0)
    ports, listen = system.system.proxies.ports, system.system.proxies.ports._listen

    def refuse(host: str, port: int, *_: Any) -> Any:
        raise CannotListenError(host, port, OSError(99, "Cannot assign requested address"))

    ports._listen = refuse
    for serial in ("CLD-1", "CLD-2"):
        system.system._take_up(Kept(serial, "main", 0, ProxyOptions(True)))
    clock.advance(2)
    assert list(retries.problems) == ["proxy of CLD-1", "proxy of CLD-2"]
    system.system.operator.off("CLD-2")
    ports._listen = listen
    clock.advance(4)
    assert system.session("CLD-1")["state"] == "waiting"
    assert system.session("CLD-2") == {}
    assert [fact.reason for fact in system.facts if fact.word == "proxy-ended"] == ["off"]
    assert [type(fact) for fact in said] == [Trouble, Trouble, TroubleOver, TroubleOver]
    assert clock.getDelayedCalls() == []


def was_reset(sock: socket.socket) -> bool:
    """Whether the other side cut it."""
    try:
        return sock.recv(1) == b"?"
    except ConnectionResetError:
        return True


def test_a_device_is_a_row_like_all_others(system: Site) -> None:
    """Where it came in and from, its port once it has a session, and that it was here when it has gone."""
    device = system.device("CLD-1")
    (row,), more = system.operator.devices()
    assert more is None
    assert (row["serial"], row["online"], row["link"], row["listener"]) == ("CLD-1", True, "cccp", "main")
    assert row["address"] == "{}:{}".format(*device.getsockname())
    assert (row["authenticated"], row["tls"], row["channels"]) == (False, "", 0)
    assert row["targets"] == [{"name": "cccp", "target": "", "port": None}]
    columns = system.operator.operations["Devices"].columns
    assert row.keys() == {each.name for each in columns if each.name}
    port = system.on("CLD-1")
    ((row,), _) = system.operator.devices()
    assert row["targets"][0]["port"] == port
    device.close()
    system.loop.until(lambda: not system.operator.devices()[0][0]["online"], "its leaving")
    ((row,), _) = system.operator.devices()
    assert (row["link"], row["address"], row["links_total"]) == ("", "", 1)
    assert system.operator.status()["devices"] == 0


def test_bytes_and_channels_of_a_device_are_counted(system: Site) -> None:
    """While a pair runs, and when it is over; as those of its channel and of its session."""
    device, client = system.pair("CLD-1")
    system.pass_on(client, device, b"x" * 1000)
    system.pass_on(device, client, b"y" * 300)
    (channel,), _ = system.operator.channels()
    assert (channel["serial"], channel["channel"], channel["carrier"]) == ("CLD-1", 0, "pair")
    assert channel["client"] == "{}:{}".format(*client.getsockname())
    assert (channel["bytes_to_device"], channel["bytes_to_client"]) == (1000, 300)
    assert channel.keys() == {each.name for each in system.operator.operations["Channels"].columns}
    assert system.session("CLD-1")["bytes"] == 1300
    ((row,), _) = system.operator.devices()
    assert (row["bytes_to_device"], row["bytes_to_client"], row["channels"]) == (1000, 300, 1)
    assert system.operator.status()["channels"] == system.operator.status()["clients"] == 1
    client.close()
    system.loop.until(lambda: system.session("CLD-1")["state"] == "device", "the client's leaving")
    assert system.operator.channels()[0] == []
    ((row,), _) = system.operator.devices()
    assert (row["bytes_to_device"], row["bytes_to_client"]) == (1000, 300)
    assert (row["channels"], row["channels_total"]) == (0, 1)
    assert system.session("CLD-1")["bytes"] == 1300


def test_a_session_is_a_row_with_a_client_or_without(system: Site) -> None:
    """Port, state, who, until when a first client has to come, and of which project."""
    port = system.on("CLD-1", persistent=False, timeout=600.0)
    row = system.session("CLD-1")
    assert row.keys() == {each.name for each in system.operator.operations["Sessions"].columns}
    assert (row["kind"], row["state"], row["port"], row["client"]) == ("cccp", "waiting", port, "")
    assert (row["persistent"], row["project"], row["channel"]) == (False, "main", 0)
    assert row["until"] > row["since"]
    client = system.connect(port)
    system.loop.until(lambda: system.session("CLD-1")["state"] == "client", "the client")
    row = system.session("CLD-1")
    assert (row["client"], row["until"]) == ("{}:{}".format(*client.getsockname()), None)
    assert system.operator.channels()[0] == []
    assert system.operator.sessions("CLD-2") == ([], None)
    (lease,), _ = system.operator.ports()
    assert (lease["serial"], lease["port"], lease["open"]) == ("CLD-1", port, True)


def test_kick_ends_the_device_and_what_is_joined_to_it(system: Site) -> None:
    """A persistent session waits for it; one that is not ends. Done twice is not found."""
    device, client = system.pair("CLD-1")
    system.operator.kick("CLD-1", 0, "anna")
    system.loop.until(lambda: not system.operator.devices()[0][0]["online"], "its leaving")
    assert device.recv(1) == b""
    assert system.session("CLD-1")["state"] == "client"
    gone = next(fact for fact in system.facts if fact.word == "device-gone")
    assert (gone.reason, gone.detail) == ("kicked", "by an operator, anna")
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)
    with pytest.raises(NotFound):
        system.operator.kick("CLD-1", 0, "anna")
    system.pair("CLD-2", persistent=False)
    system.operator.kick("CLD-2", 0, "anna")
    assert system.session("CLD-2") == {}


def test_close_resets_the_client_of_a_pair(system: Site) -> None:
    """The device of a persistent session stays; one that is not ends, with its word; number 0 only."""
    device, client = system.pair("CLD-1")
    system.pass_on(client, device, b"x" * 100)
    for serial, number in (("CLD-1", 1), ("CLD-9", 0)):
        with pytest.raises(NotFound):
            system.operator.close(serial, number, "anna")
    system.operator.close("CLD-1", 0, "anna")
    assert was_reset(client)
    row = system.session("CLD-1")
    assert (row["state"], row["client"], row["bytes"]) == ("device", "", 100)
    with pytest.raises(NotFound):
        system.operator.close("CLD-1", 0, "anna")
    again = system.connect(row["port"])
    system.loop.until(lambda: system.session("CLD-1")["state"] == "joined", "the next client")
    system.pass_on(again, device, b"more")

    device, client = system.pair("CLD-2", persistent=False)
    system.operator.close("CLD-2", 0, "anna")
    assert was_reset(client)
    system.loop.settle()
    assert device.recv(1) == b""
    assert system.session("CLD-2") == {}
    ended = next(fact for fact in system.facts if fact.word == "proxy-ended")
    assert (ended.serial, ended.reason) == ("CLD-2", "operator")


def test_a_parked_device_was_let_go_by_off_and_by_nothing_else(system: Site) -> None:
    """Where the project keeps devices after /off, an end of the session by its client still closes it."""
    part = system.system.part
    part = replace(part, projects=tuple(replace(each, off="park") for each in part.projects))
    system.system.take(part, RelayLimits(), system.system.projects_of(part))
    device, client = system.pair("CLD-1", persistent=False)
    client.close()
    system.loop.until(lambda: system.session("CLD-1") == {}, "the end of the session")
    assert device.recv(1) == b""
    device, client = system.pair("CLD-2", persistent=False)
    system.system.operator.off("CLD-2")
    assert client.recv(1) == b""
    assert system.system.proxies.parking.get("CLD-2") is not None


def test_one_address_parks_its_share_of_devices(system: Site) -> None:
    """Those without a certificate; a serial that is here may come again, and who leaves makes room."""
    part = system.system.part
    limits = replace(part.limits, parked_per_source=2)
    part = replace(part, limits=limits)
    system.system.take(part, RelayLimits(), system.system.projects_of(part))
    first = system.device("A")
    system.device("B")
    third = system.connect(system.system.listening.all[0].port)
    third.sendall(b"C\r")
    system.loop.until(lambda: refused(system), "the refusal")
    (fact,) = refused(system)
    assert (fact.reason, fact.detail) == (
        "overloaded",
        "2 devices without a certificate are here from 127.0.0.1/32",
    )
    for _ in range(3):
        before = system.system.proxies.parking.get("A")
        again = system.connect(system.system.listening.all[0].port)
        again.sendall(b"A\r")
        system.loop.until(lambda: system.system.proxies.parking.get("A") is not before, "the next one")  # noqa: B023
    first.close()
    again.close()
    system.loop.until(lambda: system.system.proxies.parking.get("A") is None, "its leaving")
    system.device("C")
    assert len(refused(system)) == 1


def refused(system: Site) -> list[RegistrationRefused]:
    """Devices that were turned away."""
    return [fact for fact in system.facts if isinstance(fact, RegistrationRefused)]


def test_listings_come_in_pages(system: Site) -> None:
    """Every row once, in order, whatever the size of a page."""
    serials = [f"CLD-{number}" for number in range(7)]
    for serial in reversed(serials):
        system.pair(serial)
    for size in (1, 2, 3, 7, 200):
        seen: list[str] = []
        after: Any = ""
        while after is not None:
            rows, after = system.operator.devices(after, size)
            assert 0 < len(rows) <= size
            seen += [row["serial"] for row in rows]
        assert seen == serials
        for listing in (system.operator.channels, system.operator.sessions):
            seen, after = [], ("", 0)
            while after is not None:
                rows, after = listing(None, after, size)
                assert 0 < len(rows) <= size
                seen += [row["serial"] for row in rows]
            assert seen == serials
