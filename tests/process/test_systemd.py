"""What the service manager hears, at a real datagram socket, with the clock in our hands."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock

from revtunnel.process.systemd import Notifier, NotifyService


class Manager:
    """The service manager's end of the notification socket."""

    def __init__(self, address: str) -> None:
        self.environ = {"NOTIFY_SOCKET": address, "PATH": "/bin"}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.setblocking(False)

    def heard(self) -> list[list[str]]:
        """The lines of every message since the last call."""
        messages = []
        while True:
            try:
                messages.append(self._socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return messages

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, no_leaks: None) -> Iterator[Manager]:
    """A manager at a socket file."""
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.close()


def test_what_is_said(manager: Manager) -> None:
    """Every message in the words of sd_notify(3)."""
    notifier = Notifier.from_environment(manager.environ, 7)
    notifier.ready(pid=8)
    notifier.status("one\nline")
    notifier.alive()
    notifier.reloading(12.5)
    notifier.ready()
    notifier.stopping("draining", 31.0)
    notifier.stopping()
    notifier.extend(1.5)
    assert manager.heard() == [
        ["READY=1", "STATUS=ready", "MAINPID=8"],
        ["STATUS=one line"],
        ["WATCHDOG=1"],
        ["RELOADING=1", "MONOTONIC_USEC=12500000", "STATUS=reloading"],
        ["READY=1", "STATUS=one line"],
        ["STOPPING=1", "STATUS=draining", "EXTEND_TIMEOUT_USEC=31000000"],
        ["STOPPING=1", "STATUS=stopping"],
        ["EXTEND_TIMEOUT_USEC=1500000"],
    ]


def test_an_abstract_socket(no_leaks: None) -> None:
    """A leading @ names a socket without a file."""
    manager = Manager(f"@revtunnel-test-{os.getpid()}")
    Notifier.from_environment(manager.environ, 7).alive()
    assert manager.heard() == [["WATCHDOG=1"]]
    manager.close()


def test_children_do_not_speak_for_us(manager: Manager) -> None:
    """The variables are gone from the environment, everything else stays."""
    manager.environ |= {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}
    assert Notifier.from_environment(manager.environ, 7).watchdog == 30.0
    assert manager.environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "extra",
    [
        {},
        *({"WATCHDOG_USEC": usec} for usec in ("", "0", "-1", "x")),
        {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "8"},
    ],
)
def test_no_watchdog(manager: Manager, extra: dict[str, str]) -> None:
    """Nobody waits for us: no time, a senseless one, or one meant for another process."""
    assert Notifier.from_environment(manager.environ | extra, 7).watchdog is None


def test_nobody_listens(tmp_path: Path) -> None:
    """Without a socket, or with one that is gone or cannot be, telling does nothing."""
    for environ in (
        {},
        {"NOTIFY_SOCKET": ""},
        {"NOTIFY_SOCKET": str(tmp_path / "gone")},
        {"NOTIFY_SOCKET": "x" * 200},
    ):
        Notifier.from_environment(environ, 7).ready()


def test_a_manager_that_does_not_read_blocks_nobody(manager: Manager) -> None:
    """A full queue loses messages, never time."""
    notifier = Notifier.from_environment(manager.environ, 7)
    for _ in range(5000):
        notifier.alive()
    assert 0 < len(manager.heard()) < 5000


def test_ready_when_the_reactor_runs_and_alive_at_half_time(manager: Manager) -> None:
    """READY once everything started, WATCHDOG at half the time, STOPPING at the end, then silence."""
    reactor = MemoryReactorClock()
    notifier = Notifier.from_environment(manager.environ | {"WATCHDOG_USEC": "20000000"}, 7)
    service = NotifyService(reactor, notifier)
    service.startService()
    assert manager.heard() == [["WATCHDOG=1"]]
    for hook, args, kwargs in reactor.whenRunningHooks:
        hook(*args, **kwargs)
    assert manager.heard() == [["READY=1", "STATUS=ready", f"MAINPID={os.getpid()}"]]
    reactor.advance(9.9)
    assert manager.heard() == []
    reactor.advance(0.2)
    assert manager.heard() == [["WATCHDOG=1"]]

    service.stopService()
    assert manager.heard() == [["STOPPING=1", "STATUS=stopping"]]
    reactor.advance(10.0)
    assert manager.heard() == [["WATCHDOG=1"]]  # a slow stop is not a hanging loop
    for stop in reactor.triggers["after"]["shutdown"]:
        stop[0](*stop[1], **stop[2])
    assert reactor.getDelayedCalls() == []


def test_a_held_service_does_not_say_ready(manager: Manager) -> None:
    """Who is ready later says so itself; without a watchdog there is no timer."""
    reactor = MemoryReactorClock()
    service = NotifyService(reactor, Notifier.from_environment(manager.environ, 7), held=True)
    service.startService()
    assert reactor.whenRunningHooks == []
    assert reactor.getDelayedCalls() == []
    assert manager.heard() == []
