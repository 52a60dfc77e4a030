"""Requests of ours to servers that do what they should not: one sentence each, in bounded time and bytes."""

import socket
import time
from typing import Any

import pytest
from twisted.internet.defer import TimeoutError

from revtunnel.process.http_requests import RequestFailed, request
from tests.support.epoll import Loop
from tests.support.services import Service

pytestmark = pytest.mark.slow


class Server(Service):
    """Reads one request and answers with these bytes; then it closes, or is silent."""

    def __init__(self, said: bytes, silent: bool = False) -> None:
        super().__init__()
        self.said = said
        self.silent = silent
        self.head = b""

    def serve(self, sock: socket.socket, number: int) -> None:
        """One request."""
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(4096)
        self.head = head
        for at in range(0, len(self.said), 65536):
            self.send(sock, self.said[at : at + 65536])
        while self.silent and sock.recv(4096):
            pass


def ask(loop: Loop, server: Server, seconds: float = 20.0, **more: Any) -> Any:
    """What is answered."""
    return loop.wait(request(loop.reactor, "GET", f"http://{server.target}/x", seconds, {}, **more))


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.0 201 Made\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 204 None\r\n\r\n", b""),
    ],
)
def test_what_is_answered(loop: Loop, said: bytes, body: bytes) -> None:
    """Its body, however its end is said."""
    with Server(said) as server:
        assert ask(loop, server) == body


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://a/\r\nContent-Length: 0\r\n\r\n",
            "it answered 302",
        ),
        (b"HTTP/1.1 404 No\r\n\r\n" + b"x" * 1_000_000, "it answered 404"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000, "more than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200_000, "more than 65536 bytes"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000, "."),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "its answer broke off"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "."),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "."),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "ParseError"),
        (b"", "its answer broke off"),
    ],
)
def test_an_answer_that_is_none(loop: Loop, said: bytes, why: str) -> None:
    """No redirect is followed, nothing is read without end, nothing is a traceback."""
    with Server(said) as server, pytest.raises(RequestFailed, match=why):
        ask(loop, server)


@pytest.mark.parametrize(
    "place", ["127.0.0.1:99999", "localhost:99999", "127.0.0.1:-5", "[x", ":443", "a..b"]
)
def test_a_place_that_is_none(loop: Loop, place: str) -> None:
    """Said by a discovery document, perhaps; a port beyond all is not another one."""
    with pytest.raises(RequestFailed, match=r"port|IPv6|[Ee]mpty"):
        loop.wait(request(loop.reactor, "GET", f"https://{place}/", 20.0, {}))


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\no"])
def test_one_that_falls_silent_is_given_up(loop: Loop, said: bytes) -> None:
    """Before its answer, or within it; its socket is gone then."""
    with Server(said, silent=True) as server:
        with pytest.raises(TimeoutError):
            ask(loop, server, 0.2)
        end = time.monotonic() + 20.0
        while loop.reactor.getReaders() != [loop.reactor.waker]:
            assert time.monotonic() < end
            loop.reactor.iterate(0.01)


def test_nothing_is_sent_but_what_is_said(loop: Loop) -> None:
    """And a name that no line ends in."""
    with Server(b"HTTP/1.1 204 None\r\n\r\n") as server:
        ask(loop, server)
        lines = sorted(server.head.decode().strip().split("\r\n"))
        assert lines == [
            "Connection: close",
            "GET /x HTTP/1.1",
            f"Host: {server.target}",
            "User-Agent: revtunnel",
        ]
