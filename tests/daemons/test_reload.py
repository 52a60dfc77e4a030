"""Reloads of whole daemons, read in a thread as they are: one after the other, each whole or not at all."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import maybeDeferred
from twisted.internet.task import Clock

from revtunnel.daemons.cccp import Cccp
from revtunnel.daemons.schema import load
from revtunnel.daemons.server import Server
from revtunnel.daemons.server_reading import read_server
from revtunnel.ground.limits import FleetLimits, RelayLimits
from revtunnel.ground.retries import Retries
from revtunnel.process.process import ExitStatus
from revtunnel.process.systemd import Notifier
from revtunnel.settings.inifile import Surroundings
from revtunnel.systems.cccp.cccp_reading import read_cccp
from tests.support.epoll import QUIET, Loop, own_reactor
from tests.support.ports import port_block
from tests.support.throwaway_tls import DAY, Issuer

FILE = """\
[server]
state_directory = none
[listener main]
address = 127.0.0.1:0
[pool default]
ranges = {ports}
[admin]
socket = {socket}
[cccp]
state_directory = none
http = 127.0.0.1:0
admin_socket = {socket}
[cccp-project main]
address = 127.0.0.1:0
"""


class Told:
    """What a daemon has for options: files that a test writes. ``may_go_on``: a reading ends no sooner."""

    def __init__(self, directory: Path, read: Callable[..., Any]) -> None:
        path = directory / "r.ini"
        path.write_text(FILE.format(ports=port_block(40), socket=directory / "a.sock"))
        self._more = directory / "r.ini.d" / "more.ini"
        self._more.parent.mkdir()
        self._load = lambda: load(read, str(path), None, Surroundings({}, False, str(directory), "gate"))
        self.settings = self._load()
        self.have_read = threading.Semaphore(0)
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.threads: set[int] = set()

    def write(self, text: str) -> None:
        """What is set beside what every test has."""
        self._more.write_text(text)

    def load(self) -> Any:
        """The settings."""
        found = self._load()
        self.threads.add(threading.get_ident())
        self.have_read.release()
        assert self.may_go_on.wait(20)
        return found


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A reactor, and its threads."""
    with own_reactor() as loop:
        pool = loop.reactor.getThreadPool()
        pool.start()
        yield loop
        pool.stop()


@pytest.fixture
def server(loop: Loop, tmp_path: Path) -> Iterator[tuple[Server, Told]]:
    """A server, and what it is told."""
    told = Told(tmp_path, read_server)
    daemon = Server(loop.reactor, told, ExitStatus(loop.reactor), Notifier(None))  # type: ignore[arg-type]
    daemon.privilegedStartService()
    yield daemon, told
    loop.wait(maybeDeferred(daemon.stopService))


@pytest.fixture
def cccp(loop: Loop, tmp_path: Path) -> Iterator[tuple[Cccp, Told]]:
    """revtunnel-cccp, and what it is told."""
    told = Told(tmp_path, read_cccp)
    told.write("[relay]\nturn = 128 KiB\n[limits]\nduplicate_swaps = 7\nduplicate_window = 9\n")
    told.settings = told._load()
    daemon = Cccp(loop.reactor, told, ExitStatus(loop.reactor), Notifier(None))  # type: ignore[arg-type]
    daemon.privilegedStartService()
    yield daemon, told
    loop.wait(maybeDeferred(daemon.stopService))


def everything(number: int, keys: str = "") -> str:
    """A file that says ``number`` to every part of a server that takes settings."""
    return (
        f"[server]\ndrain = {number}\n[limits]\nclients = {number}\npool = {number}\n"
        f"[data]\nwarm = {number}\n[relay]\ncalm = {number}\n[penalties]\nsilence = {number}\n"
        f"[device plc-1]\nchannels = {number}\n[link]\nkeepalive = {number}\n"
        f"[authority]\nrenewals = {number}\n{keys}"
    )


def taken(daemon: Server) -> set[Any]:
    """What those parts go by."""
    board = daemon.switchboard
    return {
        daemon.settings.drain,
        daemon._signals.deadline,
        board.limits.clients,
        board.fleet.limits.clients,  # type: ignore[attr-defined]
        board.admission.limits.clients,
        board.client_streams.limits.clients,
        board.admission.pool.limit,
        board.data.limits.warm,
        board.data.relay_limits.calm,
        board.access.penalties.limits.silence,
        board.access.records.of("plc-1").channels,
        board.listeners["main"].limits.keepalive,
        daemon.issuer._enrolment.limits.renewals,
    }


def test_the_last_of_two_overlapping_reloads_has_the_last_word(
    loop: Loop, server: tuple[Server, Told]
) -> None:
    """Both are answered with what they changed; every part goes by the last file, read in a thread."""
    daemon, told = server
    told.may_go_on.clear()
    told.write(everything(5))
    first = daemon.reload()
    loop.until(lambda: told.have_read.acquire(blocking=False), "the first reading")
    told.write(everything(6))
    second = daemon.reload()
    loop.settle(quiet=QUIET)
    assert not told.have_read.acquire(blocking=False)  # the second one waits for its turn
    told.may_go_on.set()
    changed = loop.wait(first)["changed"]
    assert "[limits] clients" in changed and "[device plc-1]" in changed
    assert taken(daemon) == {5}
    changed = loop.wait(second)["changed"]
    assert "[limits] clients" in changed and "[device plc-1] channels" in changed
    assert taken(daemon) == {6}
    assert threading.get_ident() not in told.threads


def test_wrong_settings_between_two_good_ones_change_nothing(loop: Loop, server: tuple[Server, Told]) -> None:
    """Each reload reads what is there when its turn comes, and applies all of it or nothing."""
    daemon, told = server
    told.write(everything(5))
    first = daemon.reload()
    loop.until(lambda: told.have_read.acquire(blocking=False), "the first reading")
    told.write(everything(6, "[pool x]\nranges = y\n"))
    second = daemon.reload()
    assert loop.wait(first)["errors"] == []
    (error,) = loop.wait(second)["errors"]
    assert "[pool x] ranges" in error and taken(daemon) == {5}
    told.write(everything(7))
    assert loop.wait(daemon.reload())["errors"] == []
    assert taken(daemon) == {7}


def test_what_cannot_be_used_is_not_taken_by_halves(loop: Loop, server: tuple[Server, Told]) -> None:
    """Ports that do not fit together are found late, when other parts could have changed already."""
    daemon, told = server
    told.write(everything(5))
    loop.wait(daemon.reload())

    def refuse(*_: object) -> None:
        raise ValueError("they do not fit")

    daemon.leases.reload = refuse  # type: ignore[method-assign, assignment]
    told.write(everything(6))
    assert loop.wait(daemon.reload())["errors"] == ["they do not fit"]
    assert taken(daemon) == {5}


# -- listeners


def is_open(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex(("127.0.0.1", port)) == 0


def ports_of(daemon: Server, section: str) -> list[int]:
    """Where a listener is open."""
    return [listener.port for listener in daemon.listeners.open.of(f"[{section}]")]


def test_listeners_come_and_go(loop: Loop, server: tuple[Server, Told]) -> None:
    """For agents and for people, who had no way in before; the first one is the same socket all the time."""
    daemon, told = server
    (main,) = daemon.listeners.open.of("[listener main]")
    told.write("[listener more]\naddress = 127.0.0.1:0, [::1]:0\n[web desk]\naddress = 127.0.0.1:0\n")
    row = loop.wait(daemon.reload())
    assert row == {"changed": ["[listener more]", "[web desk]"], "needs_restart": [], "errors": []}
    more, (desk,) = ports_of(daemon, "listener more"), ports_of(daemon, "web desk")
    assert len(more) == 2 and is_open(more[0]) and is_open(desk)
    assert sorted(daemon.switchboard.listeners) == ["main", "more"]
    assert daemon.web is not None and list(daemon.web.listener.rules) == ["desk"]
    told.write("[web desk]\naddress = 127.0.0.1:0\nagents = yes\n")
    row = loop.wait(daemon.reload())
    assert (row["changed"], row["errors"]) == (["[listener more]", "[web desk] agents"], [])
    assert not is_open(more[0]) and ports_of(daemon, "web desk") == [desk]
    assert sorted(daemon.switchboard.listeners) == ["main", "web desk"]
    told.write("")
    assert loop.wait(daemon.reload())["changed"] == ["[web desk]"]
    assert not is_open(desk) and daemon.listeners.open.all == [main] and is_open(main.port)


def test_a_listener_that_cannot_be_opened_hinders_nothing_else(
    loop: Loop, server: tuple[Server, Told]
) -> None:
    """It is said, the rest is in force, and it is tried again: by itself, and at the next reload."""
    daemon, told = server
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        text = f"[limits]\nclients = 5\n[listener more]\naddress = 127.0.0.1:{port}, 127.0.0.1:0\n"
        told.write(text)
        row = loop.wait(daemon.reload())
        assert row["changed"] == ["[limits] clients", "[listener more]"] and len(row["errors"]) == 1
        assert f"[listener more]: 127.0.0.1:{port} cannot be opened" in row["errors"][0]
        assert daemon.switchboard.limits.clients == 5
        _, opened = ports_of(daemon, "listener more")
        assert is_open(opened)
        assert list(daemon.retries.problems) == [f"[listener more] 127.0.0.1:{port}"]
    row = loop.wait(daemon.reload())
    assert row == {"changed": [], "needs_restart": [], "errors": []}
    assert ports_of(daemon, "listener more") == [port, opened] and is_open(port)
    assert daemon.retries.problems == {}


def test_a_port_goes_from_a_pool_to_a_listener_and_back(loop: Loop, server: tuple[Server, Told]) -> None:
    """What is closed is closed before what is opened."""
    daemon, told = server
    _, last = daemon.settings.pools[0].ranges[0]
    daemon.ports.open(daemon.switchboard.client_streams.clients_of_absent("plc-1", "x"), "default", 0.0)
    (there,) = daemon.ports.of("plc-1")
    first = there.lease.port
    told.write(f"[pool default]\nranges = {first + 1}-{last}\n[listener more]\naddress = 127.0.0.1:{first}\n")
    row = loop.wait(daemon.reload())
    assert row == {"changed": ["[pool default] ranges", "[listener more]"], "needs_restart": [], "errors": []}
    assert ports_of(daemon, "listener more") == [first] and daemon.ports.of("plc-1") == []
    told.write("")
    assert loop.wait(daemon.reload())["errors"] == []
    assert not is_open(first)


def test_what_is_wrong_leaves_listeners_and_ports(loop: Loop, server: tuple[Server, Told]) -> None:
    """With file and line; nothing was closed, opened or moved."""
    daemon, told = server
    before = daemon.listeners.open.all
    wrong = "[listener main]\naddress = 127.0.0.1:1\n[listener more]\naddress = 127.0.0.1:0\npool = none\n"
    told.write(wrong)
    row = loop.wait(daemon.reload())
    assert row["changed"] == row["needs_restart"] == []
    (error,) = row["errors"]
    assert "more.ini:5: [listener more] pool: there is no [pool none]" in error
    assert daemon.listeners.open.all == before and is_open(before[0].port)


def test_what_needs_a_restart_is_not_used_before(loop: Loop, server: tuple[Server, Told]) -> None:
    """Agents are told the old name; CCCP is not begun, whatever else is said of it."""
    daemon, told = server
    told.write(
        "[server]\nname = other\n[cccp]\nenabled = yes\nhost = x\n[limits]\nbacklog = 7\nclients = 5\n"
    )
    row = loop.wait(daemon.reload())
    assert row["changed"] == ["[limits] clients"] and row["errors"] == []
    restart = ["[server] name", "[limits] backlog", "[cccp]", "[cccp-project main]"]
    assert sorted(row["needs_restart"]) == sorted(restart)
    assert daemon.switchboard.listeners["main"].hello.name == "gate" and daemon.cccp is None
    assert loop.wait(daemon.reload())["needs_restart"] == row["needs_restart"]


def test_who_was_on_his_way_in_when_a_listener_went(loop: Loop, server: tuple[Server, Told]) -> None:
    """The balancer's header comes after the reload: turned away, whatever the listener was for."""
    daemon, told = server
    headed = "proxy_protocol = v1\nproxy_from = 127.0.0.1\n"
    told.write(f"[listener a]\naddress = 127.0.0.1:0\n{headed}[web b]\naddress = 127.0.0.1:0\n{headed}")
    loop.wait(daemon.reload())
    with contextlib.ExitStack() as stack:
        clients = []
        for section in ("listener a", "web b"):
            (port,) = ports_of(daemon, section)
            clients.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), 5)))
            clients[-1].sendall(b"PROXY ")  # who says nothing is not even accepted
        loop.settle(quiet=QUIET)
        told.write("")
        assert loop.wait(daemon.reload())["changed"] == ["[listener a]", "[web b]"]
        for client in clients:
            client.sendall(b"TCP4 192.0.2.1 192.0.2.2 5 6\r\n")
            client.setblocking(False)
            loop.until(lambda client=client: ended(client), "an end")
    counts = daemon.switchboard.counts
    assert counts["link-refused stopping"] == counts["web-refused stopping"] == 1


def ended(client: socket.socket) -> bool:
    """Whether the other side is gone."""
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_projects_of_cccp_come_and_go(loop: Loop, cccp: tuple[Cccp, Told]) -> None:
    """With their ports; the API moves to another one."""
    daemon, told = cccp
    (http,) = daemon.system.listening.of("[cccp] http")
    more = "[cccp-project more]\naddress = 127.0.0.1:0\nranges = 9000-9009\n"
    told.write(f"[cccp]\nhttp = [::1]:0\n{more}")
    row = loop.wait(daemon.reload())
    assert row["errors"] == row["needs_restart"] == []
    assert {"[cccp] http", "[cccp-project more]"} <= set(row["changed"])
    (project,) = daemon.system.listening.of("[cccp-project more]")
    assert is_open(project.port) and not is_open(http.port)
    assert set(daemon.system.pending.projects) == {"main", "more"}
    assert daemon._leases.counts()["cccp-more"].size == 10
    told.write("")
    assert loop.wait(daemon.reload())["errors"] == []
    assert not is_open(project.port) and set(daemon.system.pending.projects) == {"main"}


def test_new_certificates_are_named_for_every_kind_of_listener(loop: Loop, tmp_path: Path) -> None:
    """And what is to be known of them: of web listeners and CCCP's as of those for agents."""
    issuer = Issuer(tmp_path)
    issuer.server("gate.example", file="a")
    files = f"certificate = {tmp_path}/a.pem\ncertificate_key = {tmp_path}/a.key\ntls = yes\n"
    told = Told(tmp_path, read_server)
    told.write(
        f"[listener main]\n{files}authority = {issuer.file}\n"
        f"[cccp]\nenabled = yes\n[cccp-project main]\nranges = 9000-9009\n{files}authority = {issuer.file}\n"
        f"[web main]\naddress = 127.0.0.1:0\nhosts = gate.example\n{files}"
    )
    told.settings = told._load()
    daemon = Server(loop.reactor, told, ExitStatus(loop.reactor), Notifier(None))  # type: ignore[arg-type]
    daemon.privilegedStartService()
    facts: list[Any] = []
    daemon.reporter.watch(facts.append)
    try:
        assert loop.wait(daemon.reload())["changed"] == []
        issuer.server("gate.example", file="a", since=DAY)
        assert loop.wait(daemon.reload())["changed"] == [
            "[listener main] certificate files",
            "[cccp-project main] certificate files",
            "[web main] certificate files",
        ]
        warned = [fact.detail for fact in facts if fact.word == "state" and fact.state == "certificate"]
        assert len(warned) == 3
        assert all(text.startswith(f"{tmp_path}/a.pem: certificate is not valid before") for text in warned)
    finally:
        loop.wait(maybeDeferred(daemon.stopService))


def test_a_reload_that_met_half_written_certificates_is_done_later(loop: Loop, tmp_path: Path) -> None:
    """Somebody writes certificate and key one after the other; a fault of the settings waits for him."""
    issuer = Issuer(tmp_path)
    issuer.server("gate.example", file="a")
    files = tmp_path / "a.pem", tmp_path / "a.key"
    tls = f"tls = yes\ncertificate = {files[0]}\ncertificate_key = {files[1]}\n"
    told = Told(tmp_path, read_server)
    told.write(f"[listener main]\n{tls}authority = {issuer.file}\n")
    told.settings = told._load()
    daemon = Server(loop.reactor, told, ExitStatus(loop.reactor), Notifier(None))  # type: ignore[arg-type]
    clock, facts = Clock(), list[Any]()
    daemon.retries = Retries(clock, daemon.reporter, lambda: 0.0)
    daemon.reporter.watch(facts.append)
    daemon.privilegedStartService()
    words = ("trouble", "trouble-over", "settings-reloaded")
    try:
        key = files[1].read_bytes()
        issuer.server("gate.example", file="a")
        new_key = files[1].read_bytes()
        files[1].write_bytes(key)
        (error,) = loop.wait(daemon.reload())["errors"]
        assert "[listener main] certificate" in error
        for seconds in (2, 4):
            assert daemon.operator.status()["problems"] == [f"settings: {error}"]
            clock.advance(seconds)
            loop.wait(daemon._reloading.run(lambda: None))
        files[1].write_bytes(new_key)
        clock.advance(8)
        loop.wait(daemon._reloading.run(lambda: None))
        said = [fact for fact in facts if fact.word in words]
        assert [fact.word for fact in said] == [words[0], words[2], words[1], words[2]]
        assert said[-1].changed == ("[listener main] certificate files",)
        assert daemon.operator.status()["problems"] == []
        told.write("[pool x]\nranges = y\n")
        loop.wait(daemon.reload())
        assert daemon.retries.problems == {} and clock.getDelayedCalls() == []
    finally:
        loop.wait(maybeDeferred(daemon.stopService))


def test_cccp_alone_goes_by_relay_and_by_the_limits_of_a_fleet(loop: Loop, cccp: tuple[Cccp, Told]) -> None:
    """[relay], duplicate_swaps and duplicate_window, as inside the server: at the start and at a reload."""
    daemon, told = cccp
    assert daemon.system.proxies.relay_limits == RelayLimits(turn=128 * 1024)
    assert daemon.system.fleet.limits == FleetLimits(duplicate_swaps=7, duplicate_window=9.0)
    told.write("[relay]\nturn = 256 KiB\n[limits]\nduplicate_swaps = 8\nclients = 5\n[admin]\nsocket = /x\n")
    row = loop.wait(daemon.reload())
    assert row["changed"] == ["[limits] duplicate_swaps", "[limits] duplicate_window", "[relay] turn"]
    assert row["needs_restart"] == []
    assert daemon.system.proxies.relay_limits == RelayLimits(turn=256 * 1024)
    assert daemon.system.fleet.limits == FleetLimits(duplicate_swaps=8)
