"""The way to a place: addresses in turn, UNIX sockets, stages behind them, and the errors of a dial."""

import contextlib
import errno
import socket
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import CancelledError

from revtunnel.sockets.ends import End, said
from revtunnel.sockets.opening import connect, open_end
from revtunnel.sockets.stages import read_some, readable, write_all
from tests.support.epoll import Loop, Names


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def refusing() -> int:
    """A port where nobody listens."""
    with listening() as closed:
        return int(closed.getsockname()[1])


def test_a_name_is_resolved_and_its_addresses_tried(loop: Loop) -> None:
    """The first address refuses, so the second is tried at once; the end knows whom it reached."""
    with listening() as server:
        port = server.getsockname()[1]
        loop.reactor.installNameResolver(Names(service=["127.0.0.9", "127.0.0.1"]))
        end = loop.wait(open_end(loop.reactor, "service", port, 10.0))
        assert end.peer == f"127.0.0.1:{port}"
        end.close()


def test_all_addresses_are_dead_but_one(loop: Loop) -> None:
    """Both families take turns, the one first that the resolver has first; the last of them answers."""
    six = [f"::ffff:127.0.1.{number}" for number in range(1, 4)]
    four = [f"127.0.2.{number}" for number in range(1, 11)]
    tried: list[str] = []

    async def reach(reactor: Any, host: str, port: int) -> End:
        tried.append(host)
        return await connect(reactor, host, port)

    with listening() as server:
        port = server.getsockname()[1]
        loop.reactor.installNameResolver(Names(service=[*six, *four, "127.0.0.1"]))
        end = loop.wait(open_end(loop.reactor, "service", port, 10.0, reach=reach))
        assert end.peer == f"127.0.0.1:{port}"
        end.close()
    assert tried == [six[0], four[0], six[1], four[1], six[2], four[2], *four[3:], "127.0.0.1"]


def test_an_address_that_is_silent_does_not_hold_up_the_next(loop: Loop) -> None:
    """A full backlog swallows the first dial; the second address answers beside it; the first is given up."""
    with socket.socket() as deaf, listening() as server:
        port = server.getsockname()[1]
        deaf.bind(("127.0.0.2", port))
        deaf.listen(0)
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            one.connect_ex(("127.0.0.2", port))
        loop.reactor.installNameResolver(Names(service=["127.0.0.2", "127.0.0.1"]))
        end = loop.wait(open_end(loop.reactor, "service", port, 10.0))
        assert end.peer == f"127.0.0.1:{port}"
        assert loop.reactor.getWriters() == []
        for one in [*crowd, end]:
            one.close()


def test_the_errors_of_a_dial(loop: Loop) -> None:
    """Refused, unknown and late are OSErrors with a sentence each."""
    loop.reactor.installNameResolver(Names())
    with pytest.raises(ConnectionRefusedError) as refused:
        loop.wait(open_end(loop.reactor, "127.0.0.1", refusing(), 10.0))
    assert refused.value.errno == errno.ECONNREFUSED and "refused" in said(refused.value)
    with pytest.raises(OSError, match="the name is unknown"):
        loop.wait(open_end(loop.reactor, "nowhere", 1, 10.0))

    async def forever(end: End) -> End:
        await readable(loop.reactor, end)
        return end

    with listening() as server, pytest.raises(TimeoutError, match=r"did not answer in 0\.05 s"):
        loop.wait(open_end(loop.reactor, "127.0.0.1", server.getsockname()[1], 0.05, [forever]))
    assert loop.reactor.getReaders() == [loop.reactor.waker]


def test_stages_are_gone_through_in_turn(loop: Loop) -> None:
    """Each stage gets the end of the one before; a cancelled dial aborts in whichever it is."""
    said_by: list[str] = []

    def stage(name: str) -> Any:
        async def run(end: End) -> End:
            said_by.append(name)
            await write_all(loop.reactor, end, name.encode())
            return end

        return run

    async def stuck(end: End) -> End:
        await read_some(loop.reactor, end)
        return end

    with listening() as server:
        port = server.getsockname()[1]
        end = loop.wait(open_end(loop.reactor, "127.0.0.1", port, 10.0, [stage("a"), stage("b")]))
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(10) == b"ab" and said_by == ["a", "b"]
        end.close()
        dial = open_end(loop.reactor, "127.0.0.1", port, 10.0, [stuck])
        accepted, _ = server.accept()
        loop.settle()
        dial.cancel()
        with pytest.raises(CancelledError), accepted:
            loop.wait(dial)
        assert loop.reactor.getReaders() == [loop.reactor.waker]


def test_a_unix_socket_with_a_full_backlog_is_waited_for(loop: Loop, tmp_path: Path) -> None:
    """Where TCP would knock again, a UNIX socket says no; it is tried again until it takes us."""
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(path)
        listener.listen(0)
        first = stack.enter_context(socket.socket(socket.AF_UNIX))
        first.connect(path)
        dial = open_end(loop.reactor, f"unix:{path}", 0, 10.0)
        loop.settle()
        assert not dial.called
        given_up = open_end(loop.reactor, f"unix:{path}", 0, 10.0)
        given_up.cancel()
        with pytest.raises(CancelledError):
            loop.wait(given_up)
        stack.enter_context(listener.accept()[0])
        end = loop.wait(dial)
        assert end.peer == f"unix:{path}"
        end.close()
    assert loop.reactor.getDelayedCalls() == [] and loop.reactor.getWriters() == []


def test_a_path_that_is_none(loop: Loop, tmp_path: Path) -> None:
    """Missing, and too long for an address: OSErrors, and no socket is left."""
    with pytest.raises(FileNotFoundError):
        loop.wait(open_end(loop.reactor, f"unix:{tmp_path}/none", 0, 10.0))
    with pytest.raises(OSError):
        loop.wait(open_end(loop.reactor, "unix:" + "x" * 200, 0, 10.0))


def test_this_machine_answers_inside_the_call(loop: Loop, tmp_path: Path) -> None:
    """A connection, or that nobody listens: no turn of the reactor is spent on either."""
    path = str(tmp_path / "sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.create_server(("127.0.0.1", 0)) as tcp:
        listener.bind(path)
        listener.listen()
        port = tcp.getsockname()[1]
        for where in ((f"unix:{path}", 0), ("127.0.0.1", port)):
            dial = open_end(loop.reactor, *where, 10.0, at_once=True)
            assert dial.called
            loop.wait(dial).close()
    refused = open_end(loop.reactor, "127.0.0.1", port, 10.0, at_once=True)
    assert refused.called
    with pytest.raises(ConnectionRefusedError):
        loop.wait(refused)


def test_whoever_did_not_ask_for_that_is_answered_later(loop: Loop) -> None:
    """A connection, or that nobody listens, once the caller has what he was given; given up, it is reset."""
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        port = tcp.getsockname()[1]
        dial = open_end(loop.reactor, "127.0.0.1", port, 10.0)
        assert not dial.called
        loop.wait(dial).close()
        left = open_end(loop.reactor, "127.0.0.1", port, 10.0)
        left.addErrback(lambda _: None).cancel()
        there = [tcp.accept()[0] for _ in range(2)]
        with pytest.raises(ConnectionResetError):
            there[1].recv(1)
        for each in there:
            each.close()
    refused = open_end(loop.reactor, "127.0.0.1", port, 10.0)
    assert not refused.called
    with pytest.raises(ConnectionRefusedError):
        loop.wait(refused)
