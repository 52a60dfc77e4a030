"""What is rare in the data plane's doors and dials: urgent bytes, full kernels, news not read yet."""

import contextlib
import errno
import gc
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from revtunnel.carriers.agent_dials import IDLE
from revtunnel.sockets.data_plane import ASKED, GIVEN
from revtunnel.sockets.data_plane import OPENED as RUNS
from revtunnel.sockets.plane_settings import find_pump

HOST = "127.0.0.1"
LIMITS = 64 * 1024, 256 * 1024, 8, 1024 * 1024  # as of RelayLimits
CONNECT = b"\0\4\x12\0goal"  # what is said is Python's; the plane compares and sends it
OPENED = b"\0\0\x13\0"
pytestmark = pytest.mark.skipif(find_pump() is None, reason="revtunnel._pump was not built")


def until(pump: Any, true: Callable[[], object]) -> None:
    """Take turns until that is so."""
    late = time.monotonic() + 20
    while not true():
        assert time.monotonic() < late
        pump.turn()
        time.sleep(0.001)


def begun() -> Any:
    """A pump without a thread."""
    pump = find_pump()
    assert pump is not None
    return pump()


@contextlib.contextmanager
def connected(small: bool = False) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection; small: the kernel takes little from the first to the second."""
    with socket.create_server((HOST, 0)) as listener, socket.socket() as one:
        if small:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        one.connect(listener.getsockname())
        other, _ = listener.accept()
        with other:
            yield one, other


@contextlib.contextmanager
def door(ended_wait: float, *data: socket.socket) -> Iterator[tuple[Any, Callable[[], socket.socket], int]]:
    """A pump with a door that has these data sockets; what brings a client; the door."""
    pump = begun()
    with socket.create_server((HOST, 0)) as listener, contextlib.ExitStack() as clients:
        listener.setblocking(False)
        stock = pump.stock(*LIMITS)
        for each in data:
            each.setblocking(False)
        assert pump.put(stock, [(each.detach(), number) for number, each in enumerate(data)]) == len(data)
        handle = pump.door(stock, listener.fileno(), CONNECT, False, ended_wait, 100, 0)
        pump.allow(handle, 100, 0, 100)
        yield pump, lambda: clients.enter_context(socket.create_connection(listener.getsockname())), handle
        pump.close_door(handle)
        del pump


def made(pump: Any) -> list[Any]:
    """News of clients; their descriptors are closed."""
    rows = [row for row in pump.take(False) if len(row) > 5]
    for row in rows:
        for number in row[6]:
            if number >= 0:
                socket.close(number)
    return rows


def test_a_data_socket_that_takes_no_more_is_waited_for() -> None:
    """What a client says in pieces before the answer is held, not a fault of its data socket."""
    with connected(small=True) as (near, far), door(0.0, near) as (pump, client, _):
        one, sent = client(), 0
        while sent < 14_000:
            one.send(b"x" * 500)
            sent += 500
            for _ in range(3):
                pump.turn()
        assert made(pump) == []
        heard = bytearray()
        far.setblocking(False)

        def all_heard() -> bool:
            with contextlib.suppress(BlockingIOError):
                heard.extend(far.recv(65536))
            return len(heard) >= len(CONNECT) + sent

        far.send(OPENED)
        until(pump, all_heard)
        assert heard == CONNECT + b"x" * sent


@pytest.mark.parametrize("leaves", [True, False])
def test_a_client_waits_for_one_of_python_s_that_may_be_about_to_leave(leaves: bool) -> None:
    """Not for long, and not again while that one stays; else one after the other would all be Python's."""
    with connected() as (near, far), door(5.0, near) as (pump, client, handle):
        far.setblocking(False)
        pump.allow(handle, 100, 1, 100)
        client().send(b"?")
        pump.turn()
        assert made(pump) == [] and not _has(far)
        if leaves:
            pump.allow(handle, 100, 0, 100)
            until(pump, lambda: _has(far))
            assert far.recv(100) == CONNECT + b"?" and made(pump) == []
        else:
            given = _given(pump)
            client()
            assert [row[1] & (GIVEN | ASKED) for row in (given, _given(pump))] == [GIVEN, GIVEN]
            assert not _has(far)


def test_a_client_given_up_counts_as_python_s_before_python_says_so() -> None:
    """Else the next one could be with a device that takes one at a time while the first is there still."""
    with (
        connected() as (near, far),
        connected() as (spare, unasked),
        door(5.0, near, spare) as (pump, client, _),
    ):
        client()
        far.setblocking(False)
        until(pump, lambda: _has(far))
        far.send(b"\0\0\x7f\0")
        rows: list[Any] = []

        def fetch() -> bool:
            rows.extend(made(pump))
            return False

        until(pump, lambda: fetch() or rows)
        assert rows[0][1] & (GIVEN | ASKED) == GIVEN | ASKED
        client()
        until(pump, lambda: fetch() or _has(unasked) or len(rows) > 1)
        assert not _has(unasked)
        assert rows[1][1] & (GIVEN | ASKED) == GIVEN


def _given(pump: Any) -> Any:
    """The next client that Python has to serve."""
    found: list[Any] = []

    def one() -> bool:
        found.extend(made(pump))
        return bool(found)

    until(pump, one)
    return found[0]


def _has(end: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        return bool(end.recv(4, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    return False


def test_urgent_bytes_that_come_while_a_goal_is_dialled() -> None:
    """They are given to it behind those before them, and nothing waits for more to come."""
    pump = begun()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server((HOST, 0)))
        goal = stack.enter_context(socket.create_server((HOST, 0), backlog=0))
        fillers = [stack.enter_context(socket.socket()) for _ in range(4)]
        for each in fillers:
            each.setblocking(False)
            each.connect_ex(goal.getsockname())
        pump.dial_limits((4, 5.0), (4, 20.0), LIMITS)
        pump.allow_goals([(1, CONNECT, (*goal.getsockname(), 0, True))])
        pump.bring(1, (*server.getsockname(), 0, True), b"\0\0\1\0" + bytes(12), 5.0)
        pump.turn()
        end, _ = server.accept()
        stack.enter_context(end)
        assert end.recv(100)
        end.send(CONNECT + b"a")
        until(pump, lambda: pump.dial_counts()[1])
        end.send(b"bc")
        end.send(b"!", socket.MSG_OOB)
        end.send(b"rest")
        for _ in range(20):
            pump.turn()
            time.sleep(0.001)
        for each in fillers:
            each.close()
        goal.setblocking(False)
        heard = b""

        def all_heard() -> bool:
            nonlocal heard
            with contextlib.suppress(BlockingIOError):
                service, _ = goal.accept()
                stack.enter_context(service)
                service.settimeout(0.2)
                with contextlib.suppress(TimeoutError):
                    while piece := _turned(pump, service):
                        heard += piece
            return b"a" in heard

        until(pump, all_heard)
        assert heard == b"abc!rest"
        pump.withdraw(-1, -1, True)
        pump.take(True)


def _turned(pump: Any, service: socket.socket) -> bytes:
    for _ in range(5):
        pump.turn()
    return service.recv(100)


def test_what_a_client_said_first_is_not_kept_behind_the_answer() -> None:
    """A pair may live for long, and nobody asks for it any more."""
    with connected() as (near, far), door(0.0, near) as (pump, client, _):
        one = client()
        one.send(b"x" * 10_000)
        far.setblocking(False)
        until(pump, lambda: _has(far))
        far.send(OPENED + b"!")
        until(pump, lambda: _has(one))
        (row,) = (row for row in pump.take(True) if len(row) > 5)
        assert (row[1], row[10]) == (RUNS, b"")
        pump.leave(row[0])
        for number in row[6]:
            socket.close(number)


def test_a_deadline_that_is_shorter_comes_first() -> None:
    """Other limits are for the dials that begin behind them, which do not wait for those before."""
    pump = begun()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server((HOST, 0)))
        goal = stack.enter_context(socket.create_server((HOST, 0), backlog=0))
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(goal.getsockname())
        dialled = []
        for number, seconds in enumerate((600.0, 0.01, 300.0)):
            pump.dial_limits((4, 5.0), (4, seconds), LIMITS)
            pump.allow_goals([(1, CONNECT, (*goal.getsockname(), 0, True))])
            pump.bring(1, (*server.getsockname(), 0, True), bytes((0, 0, 1, number)) + bytes(12), 5.0)
            pump.turn()
            end, _ = server.accept()
            dialled.append(stack.enter_context(end))
            end.send(CONNECT)
            until(pump, lambda: pump.dial_counts()[1] == len(dialled))
        rows: list[Any] = []
        until(pump, lambda: rows or rows.extend(pump.take(False)))
        ((_, _, number, *_, error, descriptor, _),) = (row[4] for row in rows)
        assert (number, error) == (0x101, errno.ETIMEDOUT)
        socket.close(descriptor)
        pump.withdraw(-1, -1, True)
        for row in pump.take(True):
            socket.close(row[4][-2])


def test_rows_for_which_there_is_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever they are of is cut, and no descriptor stays; those behind are told."""
    testing = pytest.importorskip("_testcapi")
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: None)
    gc.collect()  # of what other tests had
    begin = len(os.listdir("/proc/self/fd"))
    told = [_take_two(testing, at) for at in range(30)]
    assert {1, 2} <= {*told}  # one of two rows; both
    assert len(os.listdir("/proc/self/fd")) <= begin


def _take_two(testing: Any, at: int) -> int:
    """How many rows there were of a stream that runs, and of a client whose data socket spoke nonsense."""
    with (
        connected() as (near, far),
        connected() as (other_near, other_far),
        door(0.0, near, other_near) as (pump, client, _),
    ):
        for end, answer in ((far, OPENED), (other_far, b"nonsense")):
            client()
            end.setblocking(False)
            until(pump, lambda end=end: _has(end))
            end.send(answer)
        for _ in range(3):
            pump.turn()
        testing.set_nomemory(at, at + 1)
        try:
            rows = pump.take(True)
        except MemoryError:  # there was no list
            rows = []
        finally:
            testing.remove_mem_hooks()
        clients = [row for row in [*rows, *pump.take(True)] if len(row) > 5]
        for row in clients:
            if row[1] & RUNS:
                pump.leave(row[0])
            for number in row[6]:
                socket.close(number)
        return len(clients)


def test_goals_that_cannot_be_read_leave_none() -> None:
    """What was allowed before is dialled no more, as it may be forbidden now."""
    pump = begun()
    with socket.create_server((HOST, 0)) as server, socket.create_server((HOST, 0)) as goal:
        pump.dial_limits((4, 5.0), (4, 5.0), LIMITS)
        good = 1, CONNECT, (*goal.getsockname(), 0, True)
        pump.allow_goals([good])
        with pytest.raises(ValueError, match="is no address"):
            pump.allow_goals([good, (2, CONNECT, ("nowhere", 1, 0, True))])
        assert pump.bring(1, (*server.getsockname(), 0, True), bytes(16), 5.0) == 1
        pump.turn()
        end, _ = server.accept()
        with end:
            end.send(CONNECT)
            rows: list[Any] = []
            until(pump, lambda: rows or rows.extend(pump.take(False)))
            what, *_, descriptor, data = rows[0][4]
            assert (what, data) == (IDLE, CONNECT)
            socket.close(descriptor)
