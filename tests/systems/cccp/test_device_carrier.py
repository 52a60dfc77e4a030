"""Registered devices as carriers: one stream a connection, others wait, no cut looks like an end.

Server's parts, devices and clients are the real ones over loopback, on a reactor that the test turns.
"""

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from revtunnel.daemons.client_streams import ClientStreams
from revtunnel.daemons.schema import load
from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.device_records import DeviceRecord, DeviceRecords, parse_pattern
from revtunnel.fleet.fleet import Fleet
from revtunnel.fleet.leases import Leases
from revtunnel.fleet.streams_of_devices import StreamsOfDevices
from revtunnel.ground.facts import ChannelEnded, ClientRefused
from revtunnel.ground.limits import CccpLimits, FleetLimits, ServerLimits
from revtunnel.ground.reasons import Ended
from revtunnel.settings.inifile import Surroundings
from revtunnel.sockets.ends import PlainEnd
from revtunnel.sockets.listening import Listeners
from revtunnel.state.ledger import SqliteLedger
from revtunnel.systems.cccp.cccp_facts import DeviceGone
from revtunnel.systems.cccp.cccp_reading import read_cccp
from revtunnel.systems.cccp.cccp_system import CccpSystem
from revtunnel.systems.cccp.proxy_operator import OnCall
from revtunnel.systems.cccp.proxy_sessions import ProxyOptions
from tests.support.epoll import Loop, own_reactor
from tests.support.ports import port_block
from tests.systems.cccp.test_cccp_operator import INI

SERIAL = "CLD-1"
PIECE = bytes(1 << 16)


class Served:
    """CCCP beside the streams of a server; ``client`` is one as a session brings it."""

    def __init__(self, loop: Loop, directory: Path) -> None:
        path = directory / "cccp.ini"
        path.write_text(INI.format(ports=port_block(40)))
        part = load(read_cccp, str(path), None, Surroundings({}, False, str(directory), "host")).part
        self.loop = loop
        self.facts: list[Any] = []
        self.sockets: list[socket.socket] = []
        listeners = Listeners(loop.reactor, self.facts.append)
        ledger = SqliteLedger(None, lambda: 0.0)
        leases = Leases(part.pools, loop.reactor.seconds(), None, ledger)
        self.fleet: Fleet[Any] = Fleet(FleetLimits(), self.facts.append)
        self.streams = StreamsOfDevices()
        self.access = AccessControl(lambda: 0.0)
        self.clients = ClientStreams(
            loop.reactor, ServerLimits(), self.fleet, self.streams, self.access, self.facts.append
        )
        numbers = iter(range(256, 1000))
        self.system = CccpSystem(
            *(
                loop.reactor,
                listeners,
                part,
                leases,
                ledger,
                self.facts.append,
                self.access,
                None,
                self.fleet,
            ),
            *(self.clients.clients_by_name, self.streams, lambda: next(numbers)),
        )
        self.system.start()

    def limits(self, **values: Any) -> None:
        """Other ones."""
        self.system.part = replace(self.system.part, limits=replace(CccpLimits(), **values))

    def connect(self, port: int) -> socket.socket:
        """A socket of somebody's."""
        made = socket.create_connection(("127.0.0.1", port), 20)
        made.settimeout(20)
        self.sockets.append(made)
        return made

    def device(self, said: bytes = b"") -> socket.socket:
        """It registers, for the first time or again."""
        before = self.system.proxies.parking.get(SERIAL)
        made = self.connect(self.system.listening.all[0].port)
        made.sendall(f"{SERIAL}\r".encode() + said)
        self.loop.until(lambda: self.system.proxies.parking.get(SERIAL) not in (None, before), "the device")
        return made

    def client(self, name: str = "device", serial: str = SERIAL) -> socket.socket:
        """A client of a service."""
        with socket.create_server(("127.0.0.1", 0)) as door:
            mine = self.connect(door.getsockname()[1])
            theirs = door.accept()[0]
        self.clients.clients_by_name(serial, name, lambda client: None).came(PlainEnd(theirs))
        return mine

    def on(self, **options: Any) -> int:
        """A proxy: its port."""
        port = self.system.operator.on(OnCall(SERIAL, ProxyOptions(**options), project="main"))
        assert isinstance(port, int)
        return port

    def carry(self, source: socket.socket, output: socket.socket, data: bytes) -> None:
        """All of it arrives."""
        rest, heard = memoryview(data), bytearray()
        source.setblocking(False)
        output.setblocking(False)

        def moved() -> bool:
            nonlocal rest
            with suppress(BlockingIOError):
                while rest:
                    rest = rest[source.send(rest) :]
            with suppress(BlockingIOError):
                while len(heard) < len(data) and (more := output.recv(1 << 20)):
                    heard.extend(more)
            return len(heard) >= len(data)

        self.loop.until(moved, "the bytes")
        assert heard == data

    def readable(self, sock: socket.socket) -> None:
        """Turn until something has come."""
        sock.setblocking(False)

        def there() -> bool:
            with suppress(BlockingIOError):
                return bool(sock.recv(1, socket.MSG_PEEK))
            return False

        self.loop.until(there, "bytes")

    def of(self, kind: Any) -> list[Any]:
        """Facts of one kind."""
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def refused(self) -> list[str]:
        """Why clients were turned away."""
        return [fact.reason for fact in self.of(ClientRefused)]

    def rest(self) -> None:
        """No client and no stream is left."""
        self.loop.until(lambda: not self.clients.count and self.streams.at_rest(), "rest")
        assert self.streams.serials() == []

    def end(self) -> None:
        """Close everything."""
        self.system.stop()
        for each in self.sockets:
            each.close()
        self.loop.settle()
        assert not self.clients.count and self.streams.at_rest()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Served]:
    """A server's parts on a reactor of their own."""
    with own_reactor() as loop:
        made = Served(loop, tmp_path)
        yield made
        made.end()


def test_a_stream_takes_a_parked_device_and_lets_it_go_with_its_end(site: Served) -> None:
    """Early bytes are thrown away, half-close is kept, everything arrives; the device is not parked again."""
    device = site.device(b"early")
    device.sendall(b"while parked")
    site.loop.settle(quiet=0.03)
    client = site.client()
    site.carry(client, device, b"x" * 300_000)
    (row,) = site.streams.page()
    assert (row.serial, row.target, row.carrier, row.state, row.number) == (
        SERIAL,
        "device",
        "device",
        "open",
        256,
    )
    client.shutdown(socket.SHUT_WR)
    assert site.loop.ending(device) == "end"
    site.carry(device, client, b"y" * 300_000)
    device.close()
    assert site.loop.ending(client) == "end"
    site.rest()
    (ended,) = site.of(ChannelEnded)
    assert (ended.reason, ended.bytes_to_device, ended.bytes_to_client) == (Ended.CLOSED, 300_000, 300_000)
    assert [(fact.reason, fact.detail) for fact in site.of(DeviceGone)] == [("session", "closed")]
    known = site.fleet.get(SERIAL)
    assert known is not None and not known.online and known.carrier is None and known.channels == 1
    again = site.device()
    site.carry(site.client(), again, b"next")


@pytest.mark.parametrize("who", ["device", "client"])
def test_a_cut_of_either_is_a_reset_of_the_other(site: Served, who: str) -> None:
    """With its reason, and with the word for the device that was lost."""
    device = site.device()
    client = site.client()
    site.carry(client, device, b"x")
    cut, other = (device, client) if who == "device" else (client, device)
    cut.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    cut.close()
    assert site.loop.ending(other) == "reset"
    site.rest()
    (ended,) = site.of(ChannelEnded)
    assert ended.reason is Ended.RESET_BY_PEER and ended.detail.startswith(f"{who}: ")
    assert site.of(DeviceGone)[0].reason == ("lost" if who == "device" else "session")


def test_who_takes_nothing_stops_the_other(site: Served) -> None:
    """A device that says more than its client takes is not read, and loses nothing."""
    device, client = site.device(), site.client()
    device.setblocking(False)
    sent = 0

    def stuck() -> bool:
        nonlocal sent
        with suppress(BlockingIOError):
            while True:
                sent += device.send(PIECE)
        return any(row.waiting_to_client for row in site.streams.page())

    site.loop.until(stuck, "held bytes")
    device.shutdown(socket.SHUT_WR)
    heard = 0
    client.setblocking(False)

    def all_there() -> bool:
        nonlocal heard
        with suppress(BlockingIOError):
            while more := client.recv(1 << 20):
                heard += len(more)
        return heard == sent

    site.loop.until(all_there, "all of it")


def test_the_next_client_waits_until_the_device_is_back(site: Served) -> None:
    """In their order; a proxy session sees that it is in use, and comes first when it is back."""
    device, first = site.device(), site.client()
    site.carry(first, device, b"1")
    second, third = site.client(), site.client()
    assert site.streams.running(SERIAL) == 3
    first.close()
    device.close()
    site.loop.until(lambda: site.of(ChannelEnded), "the end of the first")
    device = site.device()
    site.carry(second, device, b"2")
    port = site.on()
    (row,), _ = site.system.operator.devices()
    assert row["connected"] and row["in_use"] and row["client"] == "{}:{}".format(*second.getsockname())
    assert not site.system.operator.status(SERIAL)["device_connected"]
    visitor = site.connect(port)
    visitor.sendall(b"waits")
    second.close()
    device.close()
    site.loop.until(lambda: len(site.of(ChannelEnded)) == 2, "the end of the second")
    device = site.device()
    site.loop.until(lambda: site.system.operator.status(SERIAL)["client_connected"], "the visitor")
    site.readable(device)
    assert device.recv(5) == b"waits"
    assert site.streams.running(SERIAL) == 1  # the third
    visitor.close()
    site.loop.until(lambda: site.system.proxies.get(SERIAL) is None, "the end of the proxy")
    site.carry(third, site.device(), b"3")
    assert site.refused() == []


def test_who_waits_is_refused_in_time(site: Served) -> None:
    """Too many, too long, not at all: a word for each, and the stream that runs is left alone."""
    site.limits(busy_wait=0.2, busy_clients=1)
    device, first = site.device(), site.client()
    waiting = site.client()
    assert site.loop.ending(site.client()) == "reset"
    assert site.loop.ending(waiting) == "reset"
    site.limits(busy_wait=0.0)
    assert site.loop.ending(site.client()) == "reset"
    assert site.refused() == ["in-use"] * 3
    site.carry(first, device, b"still here")
    site.on()  # a device that a proxy has is waited for in the same way
    first.close()
    device.close()
    site.loop.until(lambda: site.of(ChannelEnded), "the end of the first")
    site.device()
    assert site.loop.ending(site.client()) == "reset"
    assert site.refused()[3:] == ["in-use"]


def test_a_client_who_leaves_waits_no_longer(site: Served) -> None:
    """His place is another's, and the device is not given to somebody who is gone."""
    site.device(), site.client()
    waiting = site.client()
    waiting.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    waiting.close()
    site.loop.until(lambda: site.streams.running(SERIAL) == 1, "his leaving")
    assert site.refused() == []


def test_an_absent_device_and_a_service_that_there_is_not(site: Served) -> None:
    """Refused at once, as for every wire; a record may deny the service by its name."""
    assert site.loop.ending(site.client()) == "reset"
    site.device()
    assert site.loop.ending(site.client("ssh")) == "reset"
    record = DeviceRecord(targets=(parse_pattern("*:22"),))
    site.access.records = DeviceRecords({SERIAL: record})
    assert site.loop.ending(site.client()) == "reset"
    site.access.records = DeviceRecords({SERIAL: replace(record, targets=(parse_pattern("device"),))})
    site.client()
    assert site.refused() == ["device-absent", "not-allowed", "not-allowed"]
    assert site.streams.running(SERIAL) == 1


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("kick", Ended.OPERATOR),
        ("close", Ended.OPERATOR),
        ("stop", Ended.LINK_LOST),
        ("twin", Ended.LINK_LOST),
    ],
)
def test_ends_from_outside_are_resets(site: Served, how: str, reason: Ended) -> None:
    """For both sides, and for whoever waits; a newer connection of the device is parked."""
    device, client = site.device(), site.client()
    site.carry(client, device, b"x")
    waiting = site.client()
    registered = site.system.proxies.parking.get(SERIAL)
    assert registered is not None
    if how == "kick":
        registered.dismiss("kicked", "by an operator", None)  # type: ignore[arg-type]
        site.streams.end_all(Ended.OPERATOR, "by an operator", SERIAL)
    elif how == "close":
        assert not site.streams.end(SERIAL, 9, Ended.OPERATOR, "")
        assert site.streams.end(SERIAL, 256, Ended.OPERATOR, "closed by an operator")
    elif how == "stop":
        site.system.stop()
    else:
        site.carry(waiting, site.device(), b"the newer one's")
    assert (site.loop.ending(client), site.loop.ending(device)) == ("reset", "reset")
    assert site.of(ChannelEnded)[0].reason is reason
    if how in ("kick", "stop"):
        assert site.loop.ending(waiting) == "reset"
        site.rest()


def test_who_has_ended_and_hears_nothing_gives_way(site: Served) -> None:
    """To one who waits, and to nobody else; it is a reset, for the device had not ended."""
    device, client = site.device(), site.client()
    client.shutdown(socket.SHUT_WR)
    site.loop.until(lambda: [row.state for row in site.streams.page()] == ["sent-eof"], "the end of file")
    registered = site.system.proxies.parking.get(SERIAL)
    assert registered is not None
    site.loop.until(lambda: registered.stream.lingers(site.loop.reactor.seconds()) > 2.1, "2 s")
    site.system.proxies.parking.tick()
    assert not site.of(ChannelEnded)
    waiting = site.client()
    site.system.proxies.parking.tick()
    assert site.loop.ending(client) == "reset"
    assert site.of(ChannelEnded)[0].reason is Ended.IDLE
    assert site.loop.ending(device) in ("end", "reset")
    site.carry(waiting, site.device(), b"next")


def test_a_standalone_daemon_offers_nothing(tmp_path: Path) -> None:
    """Nobody but a proxy can reach its devices: no service, no carrier."""
    with own_reactor() as loop:
        site = Served(loop, tmp_path)
        site.system.proxies.parking.takers = None
        site.device()
        known = site.fleet.get(SERIAL)
        assert known is not None and known.carrier is None and known.offers == ()
        site.end()
