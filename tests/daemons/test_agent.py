"""A whole agent and a whole server on one reactor: their builders, reloads, and how they part.

Only processes are not here: signals, exit statuses and the log (test_run.py), and the real network.
"""

import contextlib
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import maybeDeferred

from revtunnel.daemons.agent import Agent, read_key
from revtunnel.daemons.agent_reading import read_agent
from revtunnel.daemons.own_authority import public_settings
from revtunnel.daemons.schema import load
from revtunnel.daemons.server import Server
from revtunnel.daemons.server_reading import read_server
from revtunnel.ground.errors import SettingsError
from revtunnel.ground.facts import (
    CertificateIssued,
    ChannelEnded,
    Fact,
    LinkDown,
    LinkUp,
    ServerState,
    SettingsReloaded,
)
from revtunnel.ground.reasons import GoAway
from revtunnel.process.process import ExitStatus
from revtunnel.process.systemd import Notifier
from revtunnel.settings.inifile import Surroundings
from revtunnel.trust.agent_files import AgentFiles
from revtunnel.trust.authority import issue_device, new_key
from revtunnel.trust.authority_files import AuthorityDirectory, row_of
from revtunnel.trust.authority_settings import AuthoritySettings
from tests.support.epoll import QUIET, Loop, own_reactor
from tests.support.ports import port_block
from tests.support.throwaway_tls import Issuer

SERVER = """\
[server]
state_directory = none
[listener main]
address = 127.0.0.1:0
{listener}
[pool default]
ranges = {ports}
[admin]
socket = {folder}/admin.sock
{more}
"""
AGENT = """\
[agent]
servers = {server}
serial = plc-1
local = echo=127.0.0.1:{echo}
{more}
"""


class Told:
    """What a daemon has for options: a file that the test writes."""

    def __init__(self, path: Path, read: Any, text: str) -> None:
        self._path, self._read = path, read
        self.write(text)
        self.settings = self.load()

    def write(self, text: str) -> None:
        """Other settings, for the next reload."""
        self._path.write_text(text)

    def load(self) -> Any:
        """As the command line does."""
        return load(
            self._read, str(self._path), None, Surroundings({}, False, str(self._path.parent), "gate")
        )


class Site:
    """A server, an agent with an echo service, and the test as client and service."""

    def __init__(
        self, loop: Loop, folder: Path, listener: str = "", server: str = "", agent: str = ""
    ) -> None:
        self.loop = loop
        self.folder = folder
        self.facts: list[Fact] = []
        self.stack = contextlib.ExitStack()
        self.service = self.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.service.setblocking(False)
        # it is turned by hand, so that it never starts
        loop.reactor.callWhenRunning = lambda call, *more: loop.reactor.callLater(0, call, *more)
        text = SERVER.format(listener=listener, ports=port_block(20), folder=folder, more=server)
        told = Told(folder / "server.ini", read_server, text)
        self.server = self._daemon(Server, told)
        self.server.privilegedStartService()
        self.server.startService()
        (port,) = (each.port for each in self.server.listeners.open.all)
        self.words = {"server": f"127.0.0.1:{port}", "echo": self.service.getsockname()[1]}
        self.told = Told(folder / "agent.ini", read_agent, AGENT.format(**self.words, more=agent))
        self.ended: list[int] = []
        self.agent = self._daemon(Agent, self.told)
        self.agent.reporter.watch(self.facts.append)
        self.agent.startService()

    def _daemon(self, kind: Any, told: Any) -> Any:
        status = ExitStatus(self.loop.reactor, lambda call: None, lambda status: None)
        status.end = lambda status=0: self.ended.append(status)  # type: ignore[method-assign]
        return kind(self.loop.reactor, told, status, Notifier(None))

    def set(self, more: str = "", **words: object) -> SettingsReloaded:
        """Reload the agent with these settings: what it said."""
        self.told.write(AGENT.format(**self.words | words, more=more))
        before = len(self.of(SettingsReloaded))
        self.agent.reload()
        (said,) = self.of(SettingsReloaded)[before:]
        return said

    def of(self, kind: Any) -> list[Any]:
        """The agent's facts of one kind."""
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def up(self, count: int = 1) -> None:
        """The agent's link is, for the ``count``-th time."""
        self.loop.until(lambda: len(self.of(LinkUp)) >= count, "a link")

    def port(self, service: str = "echo") -> int:
        """Where its clients come."""

        def found() -> list[int]:
            ports = self.server.ports.of("plc-1")
            return [each.lease.port for each in ports if each.lease.use.target == service]

        self.loop.until(found, "a client port")
        return found()[0]

    def talk(self, port: int) -> tuple[socket.socket, socket.socket]:
        """A client and its service, which have said a word each."""
        client = self.stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        client.setblocking(False)
        found: list[socket.socket] = []

        def accepted() -> bool:
            with contextlib.suppress(BlockingIOError):
                found.append(self.service.accept()[0])
            return bool(found)

        self.loop.until(accepted, "a dial")
        service = self.stack.enter_context(found[0])
        service.setblocking(False)
        self.carry(client, service, b"question")
        self.carry(service, client, b"answer")
        return client, service

    def carry(self, one: socket.socket, other: socket.socket, data: bytes) -> None:
        """It arrives."""
        one.sendall(data)
        heard = bytearray()

        def whole() -> bool:
            with contextlib.suppress(BlockingIOError):
                heard.extend(other.recv(100))
            return heard == data

        self.loop.until(whole, f"{data!r}")

    def close(self) -> None:
        """Both end."""
        for daemon in (self.agent, self.server):
            daemon._signals.restore()
            self.loop.wait(maybeDeferred(daemon.stopService))
        self.loop.settle()
        self.stack.close()
        for call in self.loop.reactor.getDelayedCalls():
            call.cancel()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Any]:
    """``Site`` with other settings."""
    with own_reactor() as loop:
        pool, made = loop.reactor.getThreadPool(), list[Site]()
        pool.start()

        def one(**settings: str) -> Site:
            made.append(Site(loop, tmp_path, **settings))
            return made[-1]

        yield one
        for site in made:
            site.close()
        pool.stop()


def test_a_client_is_served_and_both_say_what_they_do(make: Any) -> None:
    """From start to stop; the agent's own words, in order."""
    site = make()
    site.up()
    site.talk(site.port())
    started = site.of(ServerState)[0]
    assert started.state == "started" and started.detail.startswith("plc-1 offers echo=127.0.0.1:")
    site.agent.abort()
    site.loop.until(lambda: site.of(ChannelEnded) and site.of(LinkDown), "its end")


def test_over_tls_with_certificates(make: Any, tmp_path: Path) -> None:
    """Files are read at the start and at a reload, which says that they are others."""
    issuer = Issuer(tmp_path)
    ours, mine = issuer.server("127.0.0.1"), issuer.device("plc-1")
    listener = f"tls = yes\ncertificate = {ours.certificate_file}\ncertificate_key = {ours.key_file}\n"
    files = f"certificate = {mine.certificate_file}\ncertificate_key = {mine.key_file}\n"
    agent = f"tls = yes\nauthority = {issuer.file}\n{files}"
    site = make(listener=f"{listener}authority = {issuer.file}\n", agent=agent)
    site.up()
    assert site.of(LinkUp)[0].tls == "TLSv1.3"
    assert site.set(agent).changed == ()
    issuer.device("plc-1", file="plc-1")
    assert site.set(agent).changed == ("[agent] certificate files",)
    (tmp_path / "plc-1.key").unlink()
    (error,) = site.set(agent).errors
    assert "[agent] certificate_key" in error and "plc-1.key" in error
    site.talk(site.port())


def test_services_come_and_go_at_a_reload_and_streams_stay(make: Any) -> None:
    """The server is told over the link that is up; what runs goes on, and the other has a port."""
    site = make()
    site.up()
    client, service = site.talk(site.port())
    said = site.set(echo=f"{site.words['echo']}\n    web=127.0.0.1:9")
    assert said.changed == ("[agent] local: added web",)
    site.port("web")
    site.carry(client, service, b"still here")
    site.set()
    site.loop.until(lambda: len(site.server.ports.of("plc-1")) == 1, "the end of a port")
    assert len(site.of(LinkUp)) == 1


def test_wrong_settings_change_nothing(make: Any) -> None:
    """They are said with file and line, and the agent goes on with those of before."""
    site = make()
    site.up()
    said = site.set("no_such_setting = 1")
    assert said.changed == () and "no_such_setting" in said.errors[0]
    said = site.set("legacy = yes")
    assert (said.changed, said.needs_restart, said.errors) == ((), ("[agent] legacy",), ())
    site.talk(site.port())


def test_data_sockets_may_be_taken_away_at_a_reload(make: Any) -> None:
    """By the agent: the next link brings none, and clients go by it."""
    site = make(agent="data_sockets = no")
    site.up()
    site.talk(site.port())
    assert [row.carrier for row in site.server.switchboard.streams.page()] == ["link"]


def test_a_drain_waits_for_its_streams(make: Any) -> None:
    """New clients are refused, the one that runs is served to its end, then the drain is over."""
    site = make()
    site.up()
    client, service = site.talk(site.port())
    drained: list[object] = []
    site.agent.drain().addCallback(drained.append)
    site.loop.settle()
    site.carry(client, service, b"still here")
    assert not drained
    client.close()
    service.close()
    site.loop.until(lambda: drained, "the end of the drain")
    site.server.drain().addCallback(drained.append)
    site.loop.until(lambda: len(drained) == 2, "that of the server's")
    assert not site.server.listeners.open.all


def test_a_server_that_went_is_looked_for_until_it_is_back(make: Any) -> None:
    """With its back-off; a reload does not wait for that."""
    site = make(agent="retry_first = 60 s\nretry_most = 60 s\n")
    site.up()
    site.server.switchboard.kick("plc-1", "by a test", 0)
    site.loop.until(lambda: site.of(LinkDown), "its end")
    site.set("retry_first = 50 s\nretry_most = 60 s\n")
    site.up(2)


def test_the_service_manager_is_told_which_server_it_has(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or why it has none."""
    said = list[str]()
    monkeypatch.setattr(Notifier, "status", lambda notifier, text: said.append(text))
    site = make()
    site.up()
    assert said == [f"link to {site.words['server']}, gate"]
    site.server.switchboard.kick("plc-1", "for a test", 0)
    site.loop.until(lambda: len(said) > 1)
    assert said[1].startswith(f"no link: {site.words['server']}: for a test; next try in ")


@pytest.mark.parametrize("follow", ["configured", "no"])
def test_an_agent_that_is_sent_to_where_it_is(make: Any, follow: str) -> None:
    """As ``follow`` says."""
    site = make(agent=f"follow = {follow}")
    site.up()
    (link,) = site.server.switchboard.links
    link.goaway(GoAway.STOPPING, 0, "the node stops", site.words["server"])
    site.up(2)
    away = [fact.detail for fact in site.of(ServerState) if fact.state == "away"]
    refused = [fact.detail for fact in site.of(ServerState) if fact.state == "follow"]
    assert (", as it says" in away[0]) == (follow == "configured")
    where = site.words["server"]
    assert refused == ([] if follow == "configured" else [f"{where} sends us to {where}: follow = no"])


def test_an_agent_for_one_errand_ends_with_its_link(make: Any) -> None:
    """``once``: with the status of how it went."""
    site = make(agent="once = yes")
    site.up()
    site.server.switchboard.kick("plc-1", "by a test", 0)
    site.loop.until(lambda: site.ended, "its end")


def test_an_agent_that_nobody_needs_ends(make: Any) -> None:
    """``idle_end`` after its last client."""
    site = make(agent="idle_end = 30 s")
    site.up()
    client, service = site.talk(site.port())
    site.loop.advance(60)
    site.loop.settle()
    assert not site.ended
    client.close()
    service.close()
    site.loop.until(lambda: site.of(ChannelEnded), "the end of a channel")
    site.loop.advance(31)
    site.loop.until(lambda: site.ended, "its end")


@pytest.mark.parametrize("modern", ["auto", "no"])
def test_an_agent_that_speaks_emo(make: Any, modern: str) -> None:
    """With a server that knows rt1 as well it speaks that, unless it may not."""
    ports = port_block(2)
    low = int(ports.partition("-")[0])
    site = make(
        listener="kind = emo",
        server=f"[reservations]\nplc-1/emo = {low}\n",
        agent=f"emo = yes\nserver_port = {low}\nmodern = {modern}\n",
    )
    site.loop.until(lambda: site.server.ports.of("plc-1"), "a machine")
    client, service = site.talk(low)
    said = site.set(f"emo = yes\nserver_port = {low}\nmodern = {modern}\n", echo=9)
    assert said.changed == ("[agent] local: changed echo",)
    site.carry(client, service, b"still here")
    site.agent.drain()
    client.close()
    service.close()
    site.loop.settle()


def test_other_headers_for_services_are_told(make: Any) -> None:
    """A service that is to hear who its client is; a link without that says that the next one has it."""
    site = make()
    site.up()
    site.set("proxy_protocol = echo=v1\n")
    assert any("from the next link on" in each.detail for each in site.of(ServerState))


@pytest.mark.parametrize(("age", "server_knows_first"), [(10, False), (91, False), (10, True)])
def test_an_enrolled_agent_renews_when_it_has_to(
    make: Any, tmp_path: Path, age: int, server_knows_first: bool
) -> None:
    """Not while it is good; before anything else once it has ended; and when a server says that it has."""
    authority, now = tmp_path / "authority", datetime.now(UTC)
    made = public_settings(["127.0.0.1"], AuthoritySettings(directory=str(authority)), now)
    mine = {name: made["listener main", name] for name in ("certificate", "certificate_key", "authority")}
    directory, key = AuthorityDirectory(str(authority)), new_key()
    held = directory.load()
    begun = now - timedelta(days=age)
    certificate = issue_device(held, "plc-1", key.public_key(), 90, begun)
    directory.record(row_of(certificate, "device", "plc-1", begun))
    files = AgentFiles(str(tmp_path / "agent"), "plc-1")
    files.trust(held.certificate)
    files.keep(key, certificate)
    site = make(
        listener="tls = yes\n" + "".join(f"{name} = {value}\n" for name, value in mine.items()),
        server=f"[authority]\ndirectory = {authority}\n",
        agent=f"tls = yes\nstate_directory = {tmp_path / 'agent'}\ncertificate = {files.certificate}\n"
        f"certificate_key = {files.certificate}\nauthority = {files.authority}\n",
    )
    site.up()
    assert len(site.of(CertificateIssued)) == (age > 90)
    if server_knows_first:
        site.server.switchboard.fleet.get("plc-1").link.dismiss("ended", "by its clock", GoAway.EXPIRED)
        site.loop.until(lambda: site.of(CertificateIssued), "another certificate")
        site.up(2)
    site.talk(site.port())


@pytest.mark.parametrize("text", ["not a key", "0" * 63])
def test_a_key_file_that_holds_no_key(tmp_path: Path, text: str) -> None:
    """It is named, its contents are not."""
    path = tmp_path / "key"
    path.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_key(str(path))
    assert str(path) in str(caught.value) and text not in str(caught.value)
    assert read_key(None) is None


def test_an_agent_that_is_ended_before_it_has_a_link_makes_none(make: Any) -> None:
    """Its first connection is under way then."""
    site = make()
    drained: list[object] = []
    site.agent.drain().addCallback(drained.append)
    site.agent.abort()
    site.loop.until(lambda: drained, "the end of the drain")
    site.loop.settle(quiet=QUIET)
    assert not site.of(LinkUp) and not site.server.ports.of("plc-1")
