"""PROXY headers before a connection's protocol: whom it meets, what it is told, and who is refused."""

import ipaddress
import socket
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.ground.origin import Origin
from revtunnel.sockets.ends import End, PlainEnd
from revtunnel.sockets.stages import read_some
from revtunnel.sockets.ways.proxy_header import encode_header_v1, encode_header_v2
from revtunnel.sockets.ways.proxy_protocol import ProxyHeaders
from revtunnel.sockets.ways.trusted_proxies import HeaderRules, header_rules
from tests.ground.test_origin import V4, V6
from tests.support.epoll import Loop

BALANCER = "10.0.0.7:40001"


class Door:
    """A listening socket with headers, without the listening: connections are handed in."""

    def __init__(self, loop: Loop, rules: HeaderRules, most: int = 2) -> None:
        self.loop = loop
        self.clients: list[End] = []
        self.refused: list[tuple[str, str, str]] = []
        self.pending = ProxyHeaders(loop.reactor, lambda: most)
        self.rules: HeaderRules | None = rules
        self.came = self.pending.behind(
            self.clients.append, lambda: self.rules, lambda *why: self.refused.append(why)
        )

    def accept(self, peer: str = BALANCER) -> socket.socket:
        """A connection comes; the far side of it."""
        near, far = socket.socketpair()
        far.settimeout(5.0)
        self.came(PlainEnd(near, peer))
        return far

    def hear(self, end: End) -> bytes:
        """What a client said."""
        return self.loop.wait(Deferred.fromCoroutine(read_some(self.loop.reactor, end)))

    def close(self) -> None:
        """All that were let in."""
        for end in self.clients:
            end.abort()


@pytest.fixture
def rules() -> HeaderRules:
    found = header_rules("any", (ipaddress.ip_network("10.0.0.0/24"),), 536, 5.0)
    assert found is not None
    return found


@pytest.mark.parametrize("encode", [encode_header_v1, encode_header_v2])
@pytest.mark.parametrize("origin", [V4, V6])
@pytest.mark.parametrize("cut", [1, 5, 1000])
def test_the_client_counts_not_the_balancer(
    loop: Loop, rules: HeaderRules, encode: Any, origin: Any, cut: int
) -> None:
    """Address, port and what it dialled are the header's; the bytes behind it are the client's."""
    door = Door(loop, rules)
    with door.accept() as far:
        data = encode(origin) + b"hello"
        for at in range(0, len(data), cut):
            far.send(data[at : at + cut])
            loop.reactor.iterate(0)
        loop.until(lambda: door.clients)
        (client,) = door.clients
        assert door.hear(client) == b"hello"
        assert (client.origin, client.peer) == (origin, origin.peer)
        assert door.pending.waiting == 0
    door.close()
    assert door.refused == []


def test_without_rules_nothing_is_read(loop: Loop, rules: HeaderRules) -> None:
    """Clients are let in as they come; rules that come or go hold for the next ones."""
    door = Door(loop, rules)
    for door.rules, count in ((None, 1), (rules, 1), (None, 2)):
        with door.accept("192.0.2.9:5"):
            assert len(door.clients) == count
    door.close()
    assert [why[1] for why in door.refused] == ["not-allowed"]


def test_strangers_are_refused_before_they_are_read(loop: Loop, rules: HeaderRules) -> None:
    """Only those that are named may say for whom they come, also when what they say is right."""
    door = Door(loop, rules)
    with door.accept("192.0.2.9:5") as far:
        assert far.recv(10) == b""
    assert door.refused == [
        ("192.0.2.9:5", "not-allowed", "only those that proxy_from names are let in here")
    ]
    assert door.clients == []


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        (b"GET / HTTP/1.1\r\n", "proxy-header", "no PROXY protocol header v1 or v2"),
        (b"\x16\x03\x01\x02\x00\x01", "proxy-header", "this is TLS: its sender puts no header before it"),
        (b"PROXY TCP4 x y 1 2\r\n", "proxy-header", "no PROXY line"),
        (b"PROXY" + b" " * 200, "proxy-header", "without its end"),
        (encode_header_v2(None)[:-2] + b"\xff\xff", "proxy-header", "65551 bytes, limit 536"),
        (b"PROXY TCP4 192", "lost", "ended after 14 bytes"),
    ],
)
def test_a_sender_must_send_a_header(
    loop: Loop, rules: HeaderRules, data: bytes, reason: str, words: str
) -> None:
    """Garbage, an endless line, a block over the limit, half a header: refused in words, with the sender."""
    door = Door(loop, rules)
    with door.accept() as far:
        far.send(data)
        far.shutdown(socket.SHUT_WR)
        loop.until(lambda: door.refused)
        ((peer, word, detail),) = door.refused
        assert (peer, word) == ("10.0.0.7:40001", reason)
        assert words in detail
        assert door.pending.waiting == 0
        assert door.clients == []


def test_a_look_whether_we_live_is_not_reported(loop: Loop, rules: HeaderRules) -> None:
    """A balancer connects every other second and hangs up: that is no event."""
    door = Door(loop, rules)
    door.accept().close()
    loop.until(lambda: not door.pending.waiting)
    assert door.refused == []


def test_a_header_has_its_time(loop: Loop, rules: HeaderRules) -> None:
    """From the accept on, whatever trickles in."""
    door = Door(loop, replace(rules, wait=0.05))
    with door.accept() as far:
        far.send(b"PRO")
        loop.until(lambda: door.refused)
        assert door.refused == [("10.0.0.7:40001", "silent", "no PROXY header in 0.05 s")]
        assert far.recv(10) == b""
    assert door.pending.waiting == 0


def test_so_many_headers_are_awaited_and_no_more(loop: Loop, rules: HeaderRules) -> None:
    """The next one is refused; when one has come there is room again."""
    door = Door(loop, rules, most=2)
    first, second, third = door.accept(), door.accept(), door.accept()
    assert [reason for _, reason, _ in door.refused] == ["overloaded"]
    assert third.recv(10) == b""
    first.send(encode_header_v1(V4))
    loop.until(lambda: door.clients)
    fourth = door.accept()
    fourth.send(encode_header_v1(V4))
    loop.until(lambda: len(door.clients) == 2)
    for far in (first, second, third, fourth):
        far.close()
    loop.until(lambda: not door.pending.waiting)
    door.close()


def test_a_bug_behind_the_header_resets(
    loop: Loop, rules: HeaderRules, capfd: pytest.CaptureFixture[str]
) -> None:
    """As without a header: nobody is left hanging."""
    door = Door(loop, rules)
    door.came = door.pending.behind(lambda end: 1 // 0, lambda: rules, lambda *why: None)
    with door.accept() as far:
        far.send(encode_header_v2(V4))
        loop.until(lambda: not door.pending.waiting)
        assert far.recv(10) == b""


def test_stopping_waits_for_nobody(loop: Loop, rules: HeaderRules) -> None:
    """All that are awaited are cut, and none is reported."""
    door = Door(loop, rules)
    with door.accept() as first, door.accept() as second:
        door.pending.stop()
        assert door.pending.waiting == 0
        assert first.recv(10) == second.recv(10) == b""
    assert door.refused == []
    assert loop.reactor.getReaders() == [loop.reactor.waker]
    assert loop.reactor.getDelayedCalls() == []


@pytest.mark.slow
@pytest.mark.parametrize("encode", [encode_header_v1, encode_header_v2])
def test_a_header_without_a_client_is_the_senders_own(loop: Loop, rules: HeaderRules, encode: Any) -> None:
    """LOCAL and UNKNOWN: the connection counts as the balancer's, with the kernel's addresses."""
    door = Door(loop, rules)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near = listener.accept()[0]
        door.came(PlainEnd(near, BALANCER))
        far.send(encode(None))
        loop.until(lambda: door.clients)
        assert door.clients[0].peer == BALANCER
        assert door.clients[0].origin == Origin(*far.getsockname(), *listener.getsockname())
        far.close()
        door.close()
