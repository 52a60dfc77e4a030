"""CCCP's devices, sessions and pairs as operators see them, over real sockets in one process."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from revtunnel.fleet.gate import Gate
from revtunnel.fleet.leases import Leases
from revtunnel.process.door.refusals import NotFound
from revtunnel.process.reporting import Reporter
from revtunnel.settings.inifile import Surroundings
from revtunnel.sockets.lean_reactor import LeanReactor
from revtunnel.state.ledger import SqliteLedger
from revtunnel.systems.cccp.cccp_operator import CccpCaretaker
from revtunnel.systems.cccp.cccp_settings import load_cccp
from revtunnel.systems.cccp.cccp_site import CccpSite
from revtunnel.systems.cccp.proxy_operator import OnCall
from revtunnel.systems.cccp.sessions import Options
from tests.support.daemons import port_block
from tests.support.epoll import Loop, own_reactor

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
        part = load_cccp(str(path), None, Surroundings({}, False, str(directory), "host")).part
        self.loop = loop
        self.facts: list[Any] = []
        lean = LeanReactor(loop.reactor, self.facts.append)
        ledger = SqliteLedger(None, lambda: 0.0)
        leases = Leases(part.pools, loop.reactor.seconds(), None, ledger)
        self.site = CccpSite(loop.reactor, lean, part, leases, ledger, self.facts.append, Gate(lambda: 0.0))
        self.site.start()
        self.operator = CccpCaretaker(loop.reactor, self.site, leases, ledger, Reporter())
        self.sockets: list[socket.socket] = []

    def connect(self, port: int) -> socket.socket:
        """A socket of somebody's."""
        made = socket.create_connection(("127.0.0.1", port), 20)
        made.settimeout(20)
        self.sockets.append(made)
        return made

    def device(self, serial: str) -> socket.socket:
        """A registered device."""
        made = self.connect(self.site.listening[0].getHost().port)
        made.sendall(f"{serial}\r".encode())
        self.loop.until(lambda: self.site.proxies.parking.get(serial), "the device")
        return made

    def on(self, serial: str, persistent: bool = True, timeout: float = 0.0) -> int:
        """A proxy: its port."""
        port = self.site.operator.on(OnCall(serial, Options(persistent, timeout=timeout), project="main"))
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

    def pass_on(self, source: socket.socket, sink: socket.socket, data: bytes) -> None:
        """Bytes from one to the other."""
        source.sendall(data)
        sink.setblocking(False)
        got = bytearray()

        def all_there() -> bool:
            with suppress(BlockingIOError):
                got.extend(sink.recv(65536))
            return len(got) == len(data)

        self.loop.until(all_there, "the bytes")
        sink.settimeout(20)

    def end(self) -> None:
        """Close everything."""
        self.site.stop()
        for each in self.sockets:
            each.close()
        self.loop.settle()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site on a reactor of its own."""
    with own_reactor() as loop:
        made = Site(loop, tmp_path)
        yield made
        made.end()


def was_reset(sock: socket.socket) -> bool:
    """Whether the other side cut it."""
    try:
        return sock.recv(1) == b"?"
    except ConnectionResetError:
        return True


def test_a_device_is_a_row_like_all_others(site: Site) -> None:
    """Where it came in and from, its port once it has a session, and that it was here when it has gone."""
    device = site.device("CLD-1")
    (row,), more = site.operator.devices()
    assert more is None
    assert (row["serial"], row["online"], row["link"], row["listener"]) == ("CLD-1", True, "cccp", "main")
    assert row["address"] == "{}:{}".format(*device.getsockname())
    assert (row["authenticated"], row["tls"], row["channels"]) == (False, "", 0)
    assert row["targets"] == [{"name": "cccp", "target": "", "port": None}]
    columns = site.operator.operations["Devices"].columns
    assert row.keys() == {each.name for each in columns if each.name}
    port = site.on("CLD-1")
    ((row,), _) = site.operator.devices()
    assert row["targets"][0]["port"] == port
    device.close()
    site.loop.until(lambda: not site.operator.devices()[0][0]["online"], "its leaving")
    ((row,), _) = site.operator.devices()
    assert (row["link"], row["address"], row["links_total"]) == ("", "", 1)
    assert site.operator.status()["devices"] == 0


def test_bytes_and_channels_of_a_device_are_counted(site: Site) -> None:
    """While a pair runs, and when it is over; as those of its channel and of its session."""
    device, client = site.pair("CLD-1")
    site.pass_on(client, device, b"x" * 1000)
    site.pass_on(device, client, b"y" * 300)
    (channel,), _ = site.operator.channels()
    assert (channel["serial"], channel["channel"], channel["carrier"]) == ("CLD-1", 0, "pair")
    assert channel["client"] == "{}:{}".format(*client.getsockname())
    assert (channel["bytes_to_device"], channel["bytes_to_client"]) == (1000, 300)
    assert channel.keys() == {each.name for each in site.operator.operations["Channels"].columns}
    assert site.session("CLD-1")["bytes"] == 1300
    ((row,), _) = site.operator.devices()
    assert (row["bytes_to_device"], row["bytes_to_client"], row["channels"]) == (1000, 300, 1)
    assert site.operator.status()["channels"] == site.operator.status()["clients"] == 1
    client.close()
    site.loop.until(lambda: site.session("CLD-1")["state"] == "device", "the client's leaving")
    assert site.operator.channels()[0] == []
    ((row,), _) = site.operator.devices()
    assert (row["bytes_to_device"], row["bytes_to_client"]) == (1000, 300)
    assert (row["channels"], row["channels_total"]) == (0, 1)
    assert site.session("CLD-1")["bytes"] == 1300


def test_a_session_is_a_row_with_a_client_or_without(site: Site) -> None:
    """Port, state, who, until when a first client has to come, and of which project."""
    port = site.on("CLD-1", persistent=False, timeout=600.0)
    row = site.session("CLD-1")
    assert row.keys() == {each.name for each in site.operator.operations["Sessions"].columns}
    assert (row["kind"], row["state"], row["port"], row["client"]) == ("cccp", "waiting", port, "")
    assert (row["persistent"], row["project"], row["channel"]) == (False, "main", 0)
    assert row["until"] > row["since"]
    client = site.connect(port)
    site.loop.until(lambda: site.session("CLD-1")["state"] == "client", "the client")
    row = site.session("CLD-1")
    assert (row["client"], row["until"]) == ("{}:{}".format(*client.getsockname()), None)
    assert site.operator.channels()[0] == []
    assert site.operator.sessions("CLD-2") == ([], None)
    (lease,), _ = site.operator.ports()
    assert (lease["serial"], lease["port"], lease["open"]) == ("CLD-1", port, True)


def test_kick_ends_the_device_and_what_is_joined_to_it(site: Site) -> None:
    """A persistent session waits for it; one that is not ends. Done twice is not found."""
    device, client = site.pair("CLD-1")
    site.operator.kick("CLD-1", 0, "anna")
    site.loop.until(lambda: not site.operator.devices()[0][0]["online"], "its leaving")
    assert device.recv(1) == b""
    assert site.session("CLD-1")["state"] == "client"
    gone = next(fact for fact in site.facts if fact.word == "device-gone")
    assert (gone.reason, gone.detail) == ("kicked", "by an operator, anna")
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)
    with pytest.raises(NotFound):
        site.operator.kick("CLD-1", 0, "anna")
    site.pair("CLD-2", persistent=False)
    site.operator.kick("CLD-2", 0, "anna")
    assert site.session("CLD-2") == {}


def test_close_resets_the_client_of_a_pair(site: Site) -> None:
    """The device of a persistent session stays; one that is not ends, with its word; number 0 only."""
    device, client = site.pair("CLD-1")
    site.pass_on(client, device, b"x" * 100)
    for serial, number in (("CLD-1", 1), ("CLD-9", 0)):
        with pytest.raises(NotFound):
            site.operator.close(serial, number, "anna")
    site.operator.close("CLD-1", 0, "anna")
    assert was_reset(client)
    row = site.session("CLD-1")
    assert (row["state"], row["client"], row["bytes"]) == ("device", "", 100)
    with pytest.raises(NotFound):
        site.operator.close("CLD-1", 0, "anna")
    again = site.connect(row["port"])
    site.loop.until(lambda: site.session("CLD-1")["state"] == "joined", "the next client")
    site.pass_on(again, device, b"more")

    device, client = site.pair("CLD-2", persistent=False)
    site.operator.close("CLD-2", 0, "anna")
    assert was_reset(client)
    site.loop.settle()
    assert device.recv(1) == b""
    assert site.session("CLD-2") == {}
    ended = next(fact for fact in site.facts if fact.word == "proxy-ended")
    assert (ended.serial, ended.reason) == ("CLD-2", "operator")


def test_a_parked_device_was_let_go_by_off_and_by_nothing_else(site: Site) -> None:
    """Where the project keeps devices after /off, an end of the session by its client still closes it."""
    part = site.site.part
    site.site.take(replace(part, projects=tuple(replace(each, off="park") for each in part.projects)))
    device, client = site.pair("CLD-1", persistent=False)
    client.close()
    site.loop.until(lambda: site.session("CLD-1") == {}, "the end of the session")
    assert device.recv(1) == b""
    device, client = site.pair("CLD-2", persistent=False)
    site.site.operator.off("CLD-2")
    assert client.recv(1) == b""
    assert site.site.proxies.parking.get("CLD-2") is not None


def test_listings_come_in_pages(site: Site) -> None:
    """Every row once, in order, whatever the size of a page."""
    serials = [f"CLD-{number}" for number in range(7)]
    for serial in reversed(serials):
        site.pair(serial)
    for size in (1, 2, 3, 7, 200):
        seen: list[str] = []
        after: Any = ""
        while after is not None:
            rows, after = site.operator.devices(after, size)
            assert 0 < len(rows) <= size
            seen += [row["serial"] for row in rows]
        assert seen == serials
        for listing in (site.operator.channels, site.operator.sessions):
            seen, after = [], ("", 0)
            while after is not None:
                rows, after = listing(None, after, size)
                assert 0 < len(rows) <= size
                seen += [row["serial"] for row in rows]
            assert seen == serials
