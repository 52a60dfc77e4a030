"""A whole server with all its parts on one reactor: what it is made of, what it refuses, its end."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import maybeDeferred

from revtunnel.daemons.schema import load
from revtunnel.daemons.server import DOUBT, Server
from revtunnel.daemons.server_means import descriptor_budget, pools_of
from revtunnel.daemons.server_reading import read_server
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.facts import Fact, ServerState
from revtunnel.process.process import ExitStatus
from revtunnel.process.systemd import Notifier
from revtunnel.settings.inifile import Surroundings
from tests.support.epoll import Loop, own_reactor
from tests.support.ports import port_block

FILE = """\
[server]
state_directory = {folder}/state
[listener main]
address = 127.0.0.1:0
[pool default]
ranges = {ports}
[admin]
socket = {folder}/admin.sock
"""
PARTS = """\
[web desk]
address = 127.0.0.1:0
page = yes
[cccp]
enabled = yes
http = 127.0.0.1:0
[cccp-project main]
address = 127.0.0.1:0
ranges = {ports}
[thingworx]
enabled = yes
[localproxy]
devices = yes
"""


class Place:
    """Servers on one reactor, each ended at the end."""

    def __init__(self, loop: Loop, folder: Path) -> None:
        self.loop = loop
        self.folder = folder
        self.facts: list[Fact] = []
        self.made: list[Server] = []
        self.ports = port_block(20)
        loop.reactor.callWhenRunning = lambda call, *more: loop.reactor.callLater(0, call, *more)

    def make(self, more: str = "") -> Server:
        """Built from these settings, not started."""
        path = self.folder / "r.ini"
        path.write_text(FILE.format(folder=self.folder, ports=self.ports) + more)

        class Told:
            def load(self) -> Any:
                around = Surroundings({}, False, str(path.parent), "gate")
                return load(read_server, str(path), None, around)

        told: Any = Told()
        told.settings = told.load()
        status = ExitStatus(self.loop.reactor, lambda call: None, lambda status: None)
        server = Server(self.loop.reactor, told, status, Notifier(None))
        server.reporter.watch(self.facts.append)
        return server

    def start(self, more: str = "") -> Server:
        """One that is ready."""
        server = self.make(more)
        self.made.append(server)
        server.privilegedStartService()
        server.startService()
        return server

    def stop(self, server: Server) -> None:
        """Its end."""
        self.made.remove(server)
        server._signals.restore()
        self.loop.wait(maybeDeferred(server.stopService))

    def said(self, state: str) -> list[str]:
        """What was said of one state."""
        return [each.detail for each in self.facts if isinstance(each, ServerState) and each.state == state]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with own_reactor() as loop:
        pool, place = loop.reactor.getThreadPool(), Place(loop, tmp_path)
        pool.start()
        yield place
        for server in [*place.made]:
            place.stop(server)
        loop.settle()
        for call in loop.reactor.getDelayedCalls():
            call.cancel()
        pool.stop()


def is_open(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_all_parts_share_ports_fleet_and_ledger(place: Place) -> None:
    """And all of them are closed by a drain, which ends when nobody is there."""
    server = place.start(PARTS.format(ports=port_block(4)))
    assert server.cccp is not None and server.web is not None and server.web.vendors.edge is not None
    assert [pool.name for pool in pools_of(server.settings)] == ["default", "cccp-main"]
    (ready,) = place.said("ready")
    assert ready.startswith("agents at 127.0.0.1:") and "; people at 127.0.0.1:" in ready
    ports = [each.port for each in server.listeners.open.all]
    assert len(ports) == 2 and all(is_open(port) for port in ports)
    drained: list[object] = []
    server.drain().addCallback(drained.append)
    place.loop.until(lambda: drained, "the end of the drain")
    assert not any(is_open(port) for port in ports)
    place.stop(server)
    assert place.said("draining") and place.said("stopped")


def test_all_parts_take_other_settings(place: Place) -> None:
    """One reload, of everything that may change without a restart."""
    parts = PARTS.format(ports=port_block(4))
    server = place.start(parts)
    more = (
        parts.replace("page = yes", "page = no").replace("[thingworx]", "[thingworx]\ntunnels = 3")
        + "[limits]\nclients = 5\n"
    )
    (place.folder / "r.ini").write_text(FILE.format(folder=place.folder, ports=place.ports) + more)
    row = place.loop.wait(server.reload())
    assert row["errors"] == []
    assert sorted(row["changed"]) == ["[limits] clients", "[thingworx] tunnels", "[web desk] page"]
    assert server.switchboard.limits.clients == 5
    assert server.web is not None and server.web.vendors.edge is not None
    assert server.web.vendors.edge.limits.tunnels == 3
    assert "page" not in server.web.listener.rules["desk"].parts


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("[audit]\nfile = {folder}/no/audit.jsonl\n", "[audit] file"),
        ("[authority]\ndirectory = {folder}/none\n", "[authority] directory"),
        ("[reservations]\nplc-1/a = 2000\nplc-1/b = 2000\n", "2000"),
    ],
    ids=["audit", "authority", "reservations"],
)
def test_c5_what_it_does_not_start_with(place: Place, more: str, where: str) -> None:
    """Named with its section and key, before anything listens."""
    (place.folder / "none").mkdir()
    for name in ("authority.pem", "authority.key"):
        (place.folder / "none" / name).write_text("noise")
        (place.folder / "none" / name).chmod(0o600)
    with pytest.raises(SettingsError) as caught:
        server = place.make(more.format(folder=place.folder))
        server.privilegedStartService()
    assert where in str(caught.value)


def test_n37_a_ledger_in_doubt_is_said_at_the_start(place: Place) -> None:
    """Who is enrolled or revoked is not known then."""
    server = place.start()
    place.stop(server)
    for name in ("", "-wal", ".changes", ".marks"):
        for path in (place.folder / "state").glob(f"*{name}"):
            if path.is_file():
                path.write_bytes(b"noise" * 1000)
    server = place.start()
    assert server.ledger.doubtful is not None
    assert f"{server.ledger.doubtful}: {DOUBT}" in place.said("ledger")


def test_once_a_second_what_is_over_is_ended(place: Place) -> None:
    """Again and again, until it stops."""
    server = place.start()
    calls: list[float] = []
    server.ports.expire = calls.append  # type: ignore[method-assign]
    for _ in range(3):
        place.loop.advance(1.0)
        place.loop.settle()
    assert len(calls) == 3
    place.stop(server)
    place.loop.advance(5.0)
    place.loop.settle()
    assert len(calls) == 3


def test_n1_descriptors_are_kept_for_links(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A share of what the process may have, and never all of it."""
    settings = place.make("[limits]\ndescriptors = 0.5\ndescriptors_kept = 100\n").settings
    for most, budget in ((1000, 500), (150, 50), (90, 1)):
        monkeypatch.setattr("resource.getrlimit", lambda which, most=most: (most, most))
        assert descriptor_budget(settings) == budget


def test_a_server_that_stops_takes_no_settings(place: Place) -> None:
    """A reload is answered so."""
    server = place.start()
    server.drain()
    assert place.loop.wait(server.reload())["errors"] == ["the server is stopping"]
