"""The handshake of WebSockets: each wrong request and answer, deadlines, limits, who is asked and when."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from revtunnel.ground.errors import LocalError
from revtunnel.sockets.ends import PlainEnd
from revtunnel.sockets.ways.websocket_upgrade import (
    HandshakeRefused,
    Request,
    Upgraded,
    UpgradeRequest,
    accept_end,
    accept_request,
    connect_end,
    request_of,
)
from revtunnel.sockets.ways.websocket_wire import Text, WebSocketLimits, WebSocketWire
from tests.support.epoll import Loop, own_reactor
from tests.support.web_ends import ASKED, LIMITS, anybody, join_upgraded
from tests.support.web_frames import PING, TEXT, frame

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3, and what is to be answered to it
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
FIELDS = {
    "Host": "gate.example:2443",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


@pytest.fixture
def loop(no_leaks: None) -> Iterator[Loop]:
    with own_reactor() as loop:
        yield loop


def head(line: str = "GET /session/client/1 HTTP/1.1", more: str = "", **fields: str | None) -> bytes:
    """A request; a field that is None is left out."""
    named = {name: fields.get(name.replace("-", "_"), value) for name, value in FIELDS.items()}
    lines = [line, *(f"{name}: {value}" for name, value in named.items() if value is not None)]
    return ("\r\n".join(lines) + "\r\n" + more + "\r\n").encode()


class Peer:
    """The other side as a plain socket, and what came of ours."""

    def __init__(
        self,
        loop: Loop,
        limits: WebSocketLimits = LIMITS,
        judge: Any = anybody,
        asked: UpgradeRequest | None = None,
    ) -> None:
        self.loop = loop
        ours, self.sock = socket.socketpair()
        self.sock.setblocking(False)
        end = PlainEnd(ours)
        shaking = (
            accept_end(loop.reactor, end, judge, limits)
            if asked is None
            else connect_end(loop.reactor, end, asked, limits)
        )
        self.result: list[Any] = []
        self.shaking = Deferred.fromCoroutine(shaking).addBoth(self.result.append)
        self.end = end

    def say(self, data: bytes, most: int = 1 << 20) -> None:
        """Write, a piece a turn."""
        for at in range(0, len(data), most):
            self.sock.send(data[at : at + most])
            self.loop.reactor.iterate(0)

    def hear(self) -> bytes:
        """All that comes until ours ends it, or says nothing more."""
        heard = b""

        def read() -> bool:
            nonlocal heard
            try:
                data = self.sock.recv(1 << 16)
            except BlockingIOError:
                return heard.endswith(b"\r\n\r\n") and heard.startswith(b"HTTP/1.1 101")
            except ConnectionResetError:
                return True
            heard += data
            return not data

        self.loop.until(read, "an answer")
        return heard

    def outcome(self) -> Any:
        """The upgraded connection, or what was raised."""
        self.loop.until(lambda: self.result, "the handshake's end")
        return getattr(self.result[0], "value", self.result[0])

    def close(self) -> None:
        """Nothing stays open, and nobody waits for it."""
        self.sock.close()
        self.loop.until(lambda: self.result, "the handshake's end")
        if self.end.fileno() >= 0:
            self.end.abort()


def test_the_example_of_the_rfc(loop: Loop) -> None:
    """Answered with its accept, no extension, and the subprotocol that was picked; byte by byte as well."""
    more = "Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
    for most in (1 << 20, 1):
        peer = Peer(loop, judge=lambda request, offered: offered[1])
        peer.say(head(more=more), most)
        upgraded = peer.outcome()
        answer = peer.hear().decode()
        assert answer.startswith("HTTP/1.1 101 Switching Protocols\r\n")
        assert f"Sec-WebSocket-Accept: {ACCEPT}\r\n" in answer
        assert "Sec-WebSocket-Protocol: superchat\r\n" in answer
        assert "Extensions" not in answer
        assert isinstance(upgraded, Upgraded)
        assert (upgraded.subprotocol, upgraded.request.path) == ("superchat", "/session/client/1")
        peer.close()


@pytest.mark.parametrize(
    ("request_", "status", "word"),
    [
        (head("POST / HTTP/1.1"), 405, "method"),
        (head("GET / HTTP/1.0"), 505, "HTTP/1.0"),
        (head(Connection="close"), 426, "Connection"),
        (head(Upgrade=None), 426, "Upgrade"),
        (head(Upgrade="websocket, h2c"), 426, "Upgrade"),
        (head(Sec_WebSocket_Key=None), 400, "Sec-WebSocket-Key"),
        (head(Sec_WebSocket_Key="c2hvcnQ="), 400, "Sec-WebSocket-Key"),
        (head(Sec_WebSocket_Version="8"), 400, "Sec-WebSocket-Version"),
        (head(Host=None), 400, "Host"),
        (head(more="Host: other\r\n"), 400, "Host"),
        (head(more="Origin: https://a\r\nOrigin: https://b\r\n"), 400, "Origin"),
        (head(more="Content-Length: 5\r\n"), 400, "body"),
        (head(more="Transfer-Encoding: chunked\r\n"), 400, "transfer"),
        (head(more="X: " + "y" * 9000 + "\r\n"), 431, "bytes"),
        (head(more="X: y\r\n" * 200), 431, "headers"),
        (head(more=("X: " + "y" * 8100 + "\r\n") * 2), 431, "16384"),
        (head("GET /" + "y" * 9000 + " HTTP/1.1"), 414, "bytes"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "no request"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", 400, "no request"),
        (head() + frame(PING, b"early", masked=True), 400, "before"),
        (head() + frame(TEXT, b"early", masked=True), 400, "before"),
        (head() + b"\x81", 400, "before"),
        (head() + b"\x81\x85", 400, "before"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_answered_and_nobody_is_asked(
    loop: Loop, request_: bytes, status: int, word: str
) -> None:
    """With the status of HTTP and words; the connection ends in order behind it."""
    asked: list[Request] = []
    peer = Peer(loop, judge=lambda request, offered: asked.append(request) or "")
    peer.say(request_)
    answer = peer.hear()
    peer.sock.close()
    refused = peer.outcome()
    assert isinstance(refused, HandshakeRefused)
    assert (refused.status, asked) == (status, [])
    assert word in refused.why and refused.why.isprintable()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert peer.end.fileno() == -1


def test_who_is_refused_by_the_judge_is_told_why(loop: Loop) -> None:
    """With the judge's status and words."""

    def judge(request: Request, offered: tuple[str, ...]) -> str:
        assert request.headers["Host"] == "gate.example:2443"
        raise HandshakeRefused(410, "the session has ended: idle")

    peer = Peer(loop, judge=judge)
    peer.say(head())
    answer = peer.hear()
    peer.sock.close()
    assert answer.startswith(b"HTTP/1.1 410 Gone\r\n") and answer.endswith(
        b"\r\n\r\nthe session has ended: idle\n"
    )
    assert (peer.outcome().status, peer.outcome().why) == (410, "the session has ended: idle")


@pytest.mark.parametrize("fault", [ZeroDivisionError(), "another"])
def test_a_judge_with_a_bug_is_not_silenced(loop: Loop, fault: Any) -> None:
    """What he raises is raised, and so is a subprotocol that nobody offered."""

    def judge(request: Request, offered: tuple[str, ...]) -> str:
        if isinstance(fault, str):
            return fault
        raise fault

    peer = Peer(loop, judge=judge)
    peer.say(head())
    assert isinstance(peer.outcome(), LocalError if isinstance(fault, str) else ZeroDivisionError)
    peer.close()


def test_a_request_that_an_http_layer_has_read() -> None:
    """The same answers, without any socket."""
    good = request_of("GET", "/x", FIELDS.items())
    answer = accept_request(good, anybody, LIMITS)
    assert answer.data.startswith(b"HTTP/1.1 101 ") and ACCEPT.encode() in answer.data
    assert answer.engine is not None
    ours = WebSocketWire(answer.engine, LIMITS)
    assert [*ours.receive(frame(TEXT, b"hello", masked=True))] == [Text("hello")]
    early = accept_request(good, anybody, LIMITS, early=True)
    assert early.data.startswith(b"HTTP/1.1 400 ") and early.engine is None and early.refused is not None
    bad = accept_request(request_of("POST", "/x", FIELDS.items()), anybody, LIMITS)
    assert bad.data.startswith(b"HTTP/1.1 405 ") and bad.refused is not None and bad.refused.status == 405


# -- deadlines and cuts


@pytest.mark.parametrize("said", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"], ids=["nothing", "half a request"])
def test_who_does_not_finish_a_request_is_cut(loop: Loop, said: bytes) -> None:
    """At the absolute deadline, with a reset."""
    peer = Peer(loop, replace(LIMITS, handshake=0.05))
    peer.say(said)
    late = peer.outcome()
    assert isinstance(late, TimeoutError) and "0.05 s" in str(late)
    assert peer.end.fileno() == -1
    peer.close()


def test_who_does_not_go_after_a_refusal_is_cut(loop: Loop) -> None:
    """It had its answer, and is known by it."""
    peer = Peer(loop, replace(LIMITS, handshake=0.05))
    peer.say(head(Upgrade=None))
    assert peer.outcome().status == 426
    assert peer.end.fileno() == -1
    peer.close()


def test_who_hangs_up_in_a_request(loop: Loop) -> None:
    """A cut, with the bytes that had come."""
    peer = Peer(loop)
    peer.say(b"GET / HT")
    peer.sock.close()
    assert "ended after 8 bytes" in str(peer.outcome())
    assert isinstance(peer.outcome(), OSError) and peer.end.fileno() == -1


# -- the client's side


def answer(status: str = "101 Switching Protocols", more: str = "", **fields: str | None) -> bytes:
    named = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": "?", **fields}
    lines = [
        f"HTTP/1.1 {status}",
        *(f"{name}: {value}" for name, value in named.items() if value is not None),
    ]
    return ("\r\n".join(lines) + "\r\n" + more + "\r\n").encode()


def test_what_a_client_asks(loop: Loop) -> None:
    """Path with its query, host with its port, subprotocols, credentials in a header, no extension."""
    asked = UpgradeRequest(
        "gate.example", 2443, "/s/1?x=y", True, ("a", "b"), (("Authorization", "Bearer secret"),)
    )
    peer = Peer(loop, asked=asked)
    loop.reactor.iterate(0)
    request = peer.sock.recv(4096).decode()
    for line in (
        "GET /s/1?x=y HTTP/1.1",
        "Host: gate.example:2443",
        "Sec-WebSocket-Protocol: a, b",
        "Authorization: Bearer secret",
    ):
        assert f"{line}\r\n" in request
    assert "Extensions" not in request and "Origin" not in request
    assert "secret" not in repr(asked)
    peer.close()
    assert isinstance(peer.outcome(), OSError)


@pytest.mark.parametrize(
    ("said", "status", "word"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 6\r\n\r\nused\r\n", 401, "401 Unauthorized: used"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n" + b"y" * 100, 503, "503 Service Unavailable: yyy"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", 302, "302 Found"),
        (answer(), 0, "Sec-WebSocket-Accept"),
        (answer(Upgrade=None), 0, "Upgrade"),
        (b"HTTP/1.0 200 OK\r\n\r\n", 200, "200 OK"),
        (b"HTTP/1.1 302 Found\r\nLocation: /in\r\n\r\n", 302, "302 Found, which leads to /in"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", 0, "this is SSH"),
        (b"hello\xff\r\n", 0, "it begins with 'hello\\xff\\r\\n'"),
        (b"", 0, "it hung up without an answer"),
        (b"HTTP/1.1 101 x\r\nX: " + b"y" * 9000, 0, "8192"),
        (b"HTTP/1.1 101 x\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 500, 0, ""),
    ],
)  # fmt: skip
def test_what_a_server_answers_that_is_no_websocket(loop: Loop, said: bytes, status: int, word: str) -> None:
    """Refused, with its status where there is one, in a printable line; and the socket is gone."""
    peer = Peer(loop, asked=ASKED)
    peer.say(said)
    peer.sock.shutdown(socket.SHUT_WR)
    refused = peer.outcome()
    assert isinstance(refused, HandshakeRefused)
    assert refused.status == status and word in refused.why and refused.why.isprintable()
    assert peer.end.fileno() == -1
    peer.close()


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        ("Retry-After: 20", 20),
        ("Retry-After: 99999", 3600),
        ("Retry-After: Fri, 27 Nov 2026 00:00:00 GMT", 0),
        ("Retry-After: 5\r\nRetry-After: 6", 0),
        ("X: 1", 0),
    ],
)
def test_when_to_come_again(loop: Loop, field: str, seconds: int) -> None:
    """As far as a server says it in seconds, and an hour at most: it may be a gateway's."""
    peer = Peer(loop, asked=ASKED)
    peer.say(f"HTTP/1.1 429 Too Many Requests\r\n{field}\r\nContent-Length: 0\r\n\r\n".encode())
    refused = peer.outcome()
    assert isinstance(refused, HandshakeRefused)
    assert (refused.status, refused.retry_after) == (429, seconds)
    peer.close()


@pytest.mark.parametrize("status", ["200 OK", "502 Bad Gateway"])
def test_a_web_page_is_known_by_its_head(loop: Loop, status: str) -> None:
    """However large it is, and though it never ends."""
    peer = Peer(loop, asked=ASKED)
    peer.say(f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\n\r\n<html>".encode() + bytes(30_000))
    refused = peer.outcome()
    assert isinstance(refused, HandshakeRefused)
    assert (refused.status, refused.page) == (int(status[:3]), True)
    assert refused.why == f"answered with a web page: {status}"
    peer.close()


@pytest.mark.parametrize(
    "field", ["Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: other"]
)
def test_what_was_not_asked_for_is_refused(loop: Loop, field: str) -> None:
    """An extension, or another subprotocol."""
    from websockets.utils import accept_key

    peer = Peer(loop, asked=ASKED)
    loop.reactor.iterate(0)
    key = next(
        line for line in peer.sock.recv(4096).decode().split("\r\n") if line.startswith("Sec-WebSocket-Key")
    )
    peer.say(answer(more=field + "\r\n").replace(b"?", accept_key(key.partition(": ")[2]).encode()))
    assert isinstance(peer.outcome(), HandshakeRefused)
    peer.close()


def test_a_server_that_never_answers_is_left(loop: Loop) -> None:
    """At the deadline; and one that hangs up, when it does."""
    late = Peer(loop, replace(LIMITS, handshake=0.05), asked=ASKED)
    assert isinstance(late.outcome(), TimeoutError)
    late.close()
    gone = Peer(loop, asked=ASKED)
    gone.say(b"HTTP/1.1 101 Switch")
    gone.sock.close()
    assert isinstance(gone.outcome(), OSError)


@pytest.mark.parametrize("how", [{}, {"most": 1}, {"most": 7}, {"tls": True}], ids=str)
def test_both_sides_of_ours(loop: Loop, how: dict[str, Any]) -> None:
    """They agree on a subprotocol, however little goes at once."""
    client, server = join_upgraded(loop, **how)
    assert client.subprotocol == server.subprotocol == "revtunnel.session.1"
    assert server.request.headers["Host"] == "gate.example:2443"
    for each in (client, server):
        each.end.abort()
