"""The network has changed: told once when it is quiet, seldom, and not where nobody tells."""

import socket
from typing import Any

from twisted.internet.task import Clock

from revtunnel.sockets.network_changes import EVERY, QUIET, READS, NetworkChanges, open_netlink


class Kernel(Clock):
    """A reactor with one socket, which tells what ``says`` is given."""

    def __init__(self) -> None:
        super().__init__()
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.readers: list[Any] = []
        self.told: list[float] = []
        self.addReader, self.removeReader = self.readers.append, self.readers.remove
        self.changes = NetworkChanges(self, lambda: self.told.append(self.seconds()), lambda: self.ours)
        self.changes.start()

    def says(self, count: int = 1) -> None:
        """Messages, and a turn."""
        for _ in range(count):
            self.theirs.send(b"something of many bytes")
        for reader in self.readers:
            reader.doRead()

    def finish(self) -> None:
        """Stop; nothing is left."""
        self.changes.stop()
        self.theirs.close()
        assert self.ours.fileno() == -1
        assert (self.readers, self.getDelayedCalls()) == ([], [])


def test_a_burst_is_one_change_once_it_is_quiet() -> None:
    """However many messages; each puts it off."""
    kernel = Kernel()
    for _ in range(5):
        kernel.says(3)
        kernel.advance(QUIET / 2)
    assert kernel.told == []
    kernel.advance(QUIET / 2)
    assert kernel.told == [3.0 * QUIET]
    kernel.advance(1000)
    assert len(kernel.told) == 1
    kernel.finish()


def test_a_network_that_changes_all_day_is_told_seldom() -> None:
    """Twice a minute, and the last one is not lost."""
    kernel = Kernel()
    for _ in range(60):
        kernel.says()
        kernel.advance(2.0)
    assert [round(after - before) for before, after in zip(kernel.told, kernel.told[1:], strict=False)] == [
        round(EVERY)
    ] * (len(kernel.told) - 1)
    assert len(kernel.told) == 4
    kernel.advance(EVERY)
    assert len(kernel.told) == 5
    kernel.finish()


def test_a_turn_is_short_and_a_stop_is_a_stop() -> None:
    """What one turn leaves comes with the next; a timer that runs is stopped."""
    kernel = Kernel()
    kernel.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    kernel.says(8)
    assert READS > 8
    kernel.finish()
    assert kernel.told == []
    kernel.changes.stop()


def test_where_nobody_tells() -> None:
    """No netlink, or not allowed."""

    def fails() -> socket.socket:
        raise OSError(97, "Address family not supported by protocol")

    clock = Clock()
    changes = NetworkChanges(clock, lambda: None, fails)
    changes.start()
    changes.stop()
    assert changes.fileno() == -1


def test_linux_opens_it_for_everybody() -> None:
    """No right is needed."""
    open_netlink().close()
