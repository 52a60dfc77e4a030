"""The caller's end over real UNIX sockets: who does not answer, and what comes of it."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from revtunnel.daemons.all_operations import OPERATIONS
from revtunnel.process.admin.admin_boxes import packed, unpacked
from revtunnel.process.admin.admin_client import AdminClient, NoServer, connect
from revtunnel.process.admin.refusals import Busy, Conflict, Denied, Invalid

PING = OPERATIONS["Ping"]


@contextmanager
def server(answers: Callable[[dict[bytes, bytes]], bytes]) -> Iterator[AdminClient]:
    """A client whose other end answers each command as it is told to, and closes when that is nothing."""
    near, far = socket.socketpair()

    def serve() -> None:
        received = bytearray()
        with far:
            while data := far.recv(4096):
                received += data
                while (box := unpacked(received)) is not None:
                    if not (answer := answers(box)):
                        return
                    far.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    client = AdminClient(near, 20.0)
    yield client
    client.close()
    thread.join(20.0)
    assert not thread.is_alive()


def test_nobody_is_there(tmp_path: Path) -> None:
    """No socket, a dead server's, a queue that is full, a path that is none: each with its own word."""
    path = str(tmp_path / "admin.sock")
    with pytest.raises(NoServer, match="no server has this admin socket"):
        connect(path)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
        with pytest.raises(NoServer, match="nobody listens there"):
            connect(path)
        dead.listen(0)
        with socket.socket(socket.AF_UNIX) as first:
            first.connect(path)
            with pytest.raises(Busy, match="does not accept"):
                connect(path)
    with pytest.raises(Invalid, match="at most 107 bytes"):
        connect(f"/tmp/{'x' * 200}")


def test_an_answer_comes_in_pieces_and_facts_between() -> None:
    """The answer is that of the command; what happened meanwhile is kept for whoever watches."""

    def answers(box: dict[bytes, bytes]) -> bytes:
        fact = packed({b"_command": b"Fact", b"row": b'{"event": "x"}'})
        return fact + packed({b"_answer": box[b"_ask"], b"row": b'{"state": "running"}'}) + fact

    with server(answers) as client:
        assert client.call(PING) == {"row": {"state": "running"}}
        facts = client.facts()
        assert [next(facts), next(facts)] == [{"event": "x"}] * 2


def test_a_server_that_closes_is_busy_and_ends_a_watch() -> None:
    """In the middle of a command, and behind one."""
    with server(lambda box: b"") as client:
        with pytest.raises(Busy, match="closed the connection"):
            client.call(PING)
        assert list(client.facts()) == []
        with pytest.raises(Busy, match="closed the connection"):
            client.call(PING)


@pytest.mark.parametrize(
    ("code", "kind", "text"),
    [
        (b"DENIED", Denied, "why"),
        (b"UNHANDLED", Invalid, "this daemon has no ping"),
        (b"UNKNOWN", Conflict, "its log says why"),
    ],
)
def test_refusals_are_raised(code: bytes, kind: type[Exception], text: str) -> None:
    """By their code, with their text."""

    def answers(box: dict[bytes, bytes]) -> bytes:
        tag = box[b"_ask"]
        return packed({b"_error": tag, b"_error_code": code, b"_error_description": b"why"})

    with server(answers) as client, pytest.raises(kind, match=text):
        client.call(PING)


def test_no_answer_in_time_is_busy() -> None:
    """And the connection is of no more use."""
    near, far = socket.socketpair()
    with far:
        client = AdminClient(near, 0.05)
        with pytest.raises(Busy, match="no answer within"):
            client.call(PING)
        assert near.fileno() == -1
