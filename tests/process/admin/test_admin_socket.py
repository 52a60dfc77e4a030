"""The socket of the door: whose callers are, who may, and what stands in its place."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor as installed
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from revtunnel.ground.facts import Fact, Trouble, TroubleOver
from revtunnel.ground.retries import Retries
from revtunnel.process.admin.admin import AdminService
from revtunnel.process.admin.admin_settings import AdminSettings
from revtunnel.process.admin.admin_socket import listen, make_room
from revtunnel.process.admin.callers import Caller, caller_at, role_of
from revtunnel.process.admin.operation_form import CallerRole
from tests.support.room import Room

reactor: Any = installed


def settings(path: Path, mode: int = 0o660) -> AdminSettings:
    """A door for nobody but root and us."""
    return AdminSettings(str(path), mode, (), ())


def turn(until: Any, seconds: float = 10.0) -> None:
    """Run the reactor until something holds."""
    end = reactor.seconds() + seconds
    while not until() and reactor.seconds() < end:
        reactor.iterate(0.01)
    assert until()


def waited(done: "Deferred[Any] | None") -> None:
    """Run the reactor until a Deferred has fired."""
    if done is not None:
        turn(lambda: done.called)


@pytest.fixture
def dead(tmp_path: Path) -> Path:
    """The socket of a server that was killed."""
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
    return path


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Path]:
    """The socket of a server that answers, its queue being full or not."""
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(0)
        yield path


@pytest.mark.usefixtures("no_leaks")
def test_c1_the_kernel_says_who_calls() -> None:
    """Our own uid, name and groups, from a real socket."""
    one, other = socket.socketpair()
    with one, other:
        caller = caller_at(one)
    assert caller.uid == os.geteuid()
    assert role_of(caller, AdminSettings("/x", 0o660, (), ())) is CallerRole.OPERATOR


def test_c1_a_person_is_a_name_a_uid_or_a_group() -> None:
    """Never one taken for the other: a user who is called like a group, or like a number."""
    door = AdminSettings("/x", 0o660, ("anna", "1001", "@wheel"), ("@staff",))

    def role(uid: int, name: str, *groups: str) -> CallerRole:
        return role_of(Caller(uid, name, frozenset(groups)), door)

    assert role(2000, "anna") is role(1001, "bob") is role(2001, "carl", "wheel") is CallerRole.OPERATOR
    assert role(2002, "dora", "staff") is CallerRole.READER
    assert role(2003, "wheel") is role(2004, "1001") is role(2005, "x", "anna") is CallerRole.NOBODY


@pytest.mark.usefixtures("no_leaks")
def test_c4_a_dead_servers_socket_is_taken_away(dead: Path) -> None:
    """After a connect test; a directory that is missing is made, closed to others."""
    make_room(str(dead))
    assert not dead.exists()
    fresh = dead.parent / "a" / "b" / "admin.sock"
    before = os.umask(0o077)
    try:
        make_room(str(fresh))
    finally:
        os.umask(before)
    assert stat.S_IMODE(fresh.parent.stat().st_mode) == 0o750


@pytest.mark.usefixtures("no_leaks")
def test_c4_a_live_servers_socket_is_left_alone(live: Path) -> None:
    """Also when its queue is full; the text says what to do."""
    callers = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for caller in callers:
        caller.setblocking(False)
        with pytest.raises(OSError, match="another server answers there"):
            make_room(str(live))
        caller.connect_ex(str(live))
    for caller in callers:
        caller.close()
    assert live.exists()


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_c4_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    """A wrong path must not cost anybody a file."""
    path = tmp_path / "admin.sock"
    make = {"file": path.touch, "directory": path.mkdir, "link": lambda: path.symlink_to("/dev/null")}[kind]
    make()
    with pytest.raises(OSError, match="no socket is there"):
        make_room(str(path))
    assert os.path.lexists(path)


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    """With the path, not a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"admin socket .*(Not a directory|File exists)"):
        make_room(str(tmp_path / "file" / "a" / "admin.sock"))


def test_a_path_too_long_for_a_socket_is_a_clear_error(tmp_path: Path) -> None:
    """The settings refuse it too; a command line may bring it."""
    with pytest.raises(OSError, match="at most 107 wanted"):
        listen(reactor, settings(tmp_path / ("x" * 107)), Factory.forProtocol(Protocol))


@pytest.mark.slow
@pytest.mark.parametrize("mode", [0o600, 0o660])
def test_c4_the_socket_has_its_mode_from_the_first_moment(
    tmp_path: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is bound it is as open as it will be, whatever the umask; the umask comes back."""
    seen: list[int] = []
    path = tmp_path / "admin.sock"
    chmod = os.chmod

    def watched(name: Any, wanted: int, **options: Any) -> None:
        seen.append(stat.S_IMODE(path.stat().st_mode))
        chmod(name, wanted, **options)

    monkeypatch.setattr(os, "chmod", watched)
    before = os.umask(0)
    try:
        port = listen(reactor, settings(path, mode), Factory.forProtocol(Protocol))
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert seen == [mode]
    assert stat.S_IMODE(path.stat().st_mode) == mode
    waited(port.stopListening())
    assert not path.exists()


@pytest.mark.slow
def test_c4_stopping_removes_only_its_own_file(tmp_path: Path) -> None:
    """A file that is gone is no error, and a newer server's socket stays."""
    path = tmp_path / "admin.sock"
    for replaced in (False, True):
        port = listen(reactor, settings(path), Factory.forProtocol(Protocol))
        path.unlink()
        if replaced:
            path.touch()
        waited(port.stopListening())
        assert path.exists() is replaced


@pytest.mark.slow
def test_a_socket_that_was_taken_away_is_made_anew(tmp_path: Path) -> None:
    """By a tidy program, or for another server's, which is left alone; both ends of that are said."""
    clock, facts, path = Clock(), list[Fact](), tmp_path / "admin.sock"
    retries = Retries(clock, facts.append, lambda: 0.0)
    service = AdminService(reactor, Room().operator, settings(path), retries)
    service.startService()
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen(5)
        service._look()
        clock.advance(2)
        assert "another server answers there" in retries.problems["admin socket"]
        service._look()
    clock.advance(4)
    assert [type(fact) for fact in facts] == [Trouble, TroubleOver]
    assert path.exists()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
    waited(service.stopService())
    assert not path.exists()


@pytest.mark.slow
def test_the_service_answers_and_takes_its_socket_with_it(dead: Path) -> None:
    """Over a real socket with real credentials: a stale file is replaced, a second server refused."""
    room = Room()
    retries = Retries(Clock(), lambda fact: None)
    service = AdminService(reactor, room.operator, settings(dead), retries)
    service.privilegedStartService()
    service.startService()
    second = AdminService(reactor, room.operator, settings(dead), retries)
    with pytest.raises(OSError, match="another server answers there"):
        second.privilegedStartService()
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(dead))
        caller.sendall(b"\x00\x08_command\x00\x04Ping\x00\x04_ask\x00\x011\x00\x00")
        caller.setblocking(False)
        data = bytearray()

        def answered() -> bool:
            with suppress(BlockingIOError):
                data.extend(caller.recv(65536))
            return b"running" in data

        turn(answered)
        waited(service.stopService())
        turn(lambda: not service._factory.present)
    assert not dead.exists()
