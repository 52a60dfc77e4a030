"""CONNECT as a stage, over a socketpair: what is said, what is left unread, and every way to fail."""

import socket
from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred

from revtunnel.sockets.ends import End, PlainEnd, said
from revtunnel.sockets.stages import client_tls, server_tls
from revtunnel.sockets.ways.http_connect import ProxyCredentials
from revtunnel.sockets.ways.http_proxy import MAX_HEAD, ProxyError, proxy_stage
from revtunnel.sockets.ways.proxy_choice import HttpProxy
from tests.support.epoll import Loop
from tests.support.throwaway_tls import contexts

PROXY = HttpProxy("proxy.plant", 3128, ProxyCredentials("me", "s3cret"))
REQUEST = (
    b"CONNECT gate.example:2065 HTTP/1.1\r\nHost: gate.example:2065\r\n"
    b"Proxy-Authorization: Basic bWU6czNjcmV0\r\n\r\n"
)
OK = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 squid\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[PlainEnd, socket.socket]]:
    near, far = socket.socketpair()
    far.settimeout(5.0)
    with near, far:
        yield PlainEnd(near, "10.0.0.1:3128"), far


def asking(loop: Loop, end: End, host: str = "gate.example") -> "Deferred[End]":
    """The stage under way."""
    return Deferred.fromCoroutine(proxy_stage(loop.reactor, PROXY, host, 2065)(end))


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_what_follows_the_answer_is_the_servers(
    loop: Loop, pair: tuple[PlainEnd, socket.socket], cut: int
) -> None:
    """The request is exact; of bytes that come with the head's last segment none is lost."""
    end, far = pair
    opening = asking(loop, end)
    loop.settle()
    assert far.recv(1000) == REQUEST
    answer = OK + b"\0\0\x10\1"
    for at in range(0, len(answer), cut):
        far.send(answer[at : at + cut])
        loop.reactor.iterate(0)
    found = loop.wait(opening)
    assert found is end
    assert found.peer == "gate.example:2065"
    assert found.sock.recv(100) == b"\0\0\x10\1"


def test_the_peer_of_an_ipv6_server_has_brackets(loop: Loop, pair: tuple[PlainEnd, socket.socket]) -> None:
    """In the request and in the log."""
    end, far = pair
    opening = asking(loop, end, "2001:db8::1")
    far.send(OK)
    assert loop.wait(opening).peer == "[2001:db8::1]:2065"
    assert far.recv(1000).startswith(b"CONNECT [2001:db8::1]:2065 HTTP/1.1\r\n")


def test_tls_runs_inside(loop: Loop, pair: tuple[PlainEnd, socket.socket]) -> None:
    """The handshake goes through the proxy's connection, and the server is told its own name."""
    server, client = (options.getContext() for options in contexts())
    end, far = pair
    opening = asking(loop, end)
    far.send(OK)
    inside = loop.wait(opening)
    assert far.recv(1000) == REQUEST
    near_tls = Deferred.fromCoroutine(client_tls(loop.reactor, client, "gate.example")(inside))
    far_tls = Deferred.fromCoroutine(server_tls(loop.reactor, server)(PlainEnd(far)))
    assert loop.wait(near_tls).peer == "gate.example:2065"
    assert loop.wait(far_tls).connection.get_servername() == b"gate.example"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (
            b"HTTP/1.1 403 Forbidden\r\n\r\n",
            "403 Forbidden: whoever keeps it has to allow CONNECT to gate.example:2065",
        ),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "502 Bad Gateway: it does not reach gate.example:2065"),
        (
            b'HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm="plant 4"\r\n\r\nbody',
            'does not take the user and password of proxy_credentials (Basic "plant 4")',
        ),
        (
            b"HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Negotiate\r\n\r\n",
            "wants NTLM, Negotiate, and only Basic is spoken here: have it let gate.example:2065 pass "
            "without, or name a proxy beside us that speaks it",
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/login\r\n\r\n<html>",
            "answered with a web page (302 Found, which leads to http://portal.example/login), as a portal "
            "does that wants a login first",
        ),
        (
            b"HTTP/1.1 511 Network Authentication Required\r\n\r\n<html>",
            "answered with a web page (511 Network Authentication Required), as a portal does that wants a "
            "login first",
        ),
        (b"SSH-2.0-OpenSSH\r\n", "it does not speak HTTP: 'SSH-2.0-OpenSSH?'"),
        (b"HTTP/1.1 200 " + b"x" * MAX_HEAD, "the head of its answer passes 8192 bytes"),
        (b"HTTP/1.1 200 OK\r\n", "ended after 17 bytes of its head"),
        (b"", "it hung up without an answer"),
    ],
)
def test_any_other_answer_names_the_proxy(
    loop: Loop, pair: tuple[PlainEnd, socket.socket], answer: bytes, why: str
) -> None:
    """One sentence with the proxy, never with its password."""
    end, far = pair
    opening = asking(loop, end)
    loop.settle()
    far.send(answer)
    far.shutdown(socket.SHUT_WR)
    with pytest.raises(ProxyError) as caught:
        loop.wait(opening)
    assert said(caught.value) == f"proxy http://proxy.plant:3128: {why}"
    assert "s3cret" not in repr(caught.value) + str(caught.value)


def test_a_proxy_that_resets(loop: Loop, pair: tuple[PlainEnd, socket.socket]) -> None:
    """Before it has read the request: the words of the cut, with the proxy's name."""
    end, far = pair
    far.close()
    with pytest.raises(ProxyError, match=r"proxy http://proxy\.plant:3128: "):
        loop.wait(asking(loop, end))


def test_a_silent_proxy_is_left_at_the_callers_deadline(
    loop: Loop, pair: tuple[PlainEnd, socket.socket]
) -> None:
    """The socket goes with it."""
    end, _ = pair
    late = asking(loop, end).addTimeout(0.01, loop.reactor)
    with pytest.raises(Exception, match="Deferred"):
        loop.wait(late)
    assert end.fileno() == -1
