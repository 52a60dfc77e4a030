"""A web listener on sockets: routes, pages, who is refused with which status, deadlines, limits, TLS."""

import json
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from revtunnel.fleet.access_control import AccessControl
from revtunnel.fleet.penalties import Penalties
from revtunnel.fleet.rates import Rates
from revtunnel.ground.facts import WebRefused
from revtunnel.ground.limits import PenaltyLimits, ServerLimits
from revtunnel.ground.networks import network_of
from revtunnel.process.web.web_listener import WebListener
from revtunnel.process.web.web_routes import WebCall, bearer, route_of
from revtunnel.process.web.web_rules import WebRules
from revtunnel.sockets.listening import Listeners
from revtunnel.sockets.ways.websocket_upgrade import HandshakeRefused, Upgraded
from tests.support.epoll import Loop, own_reactor

HEAD = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


class Echo:
    """A route that lets everybody in who says the token."""

    def __init__(self, prefix: str = "/echo/", browsers: bool = False) -> None:
        self.prefix = prefix
        self.browsers = browsers
        self.calls: list[WebCall] = []
        self.open: list[Upgraded] = []
        self.undone = 0

    def judge(self, call: WebCall, offered: tuple[str, ...]) -> str:
        self.calls.append(call)
        if bearer(call.request) == "wrong":
            raise HandshakeRefused(401, "who is that")
        if bearer(call.request) == "bug":
            raise ZeroDivisionError("a bug of the route")
        call.undo = self.undo
        return offered[0] if offered else ""

    def undo(self) -> None:
        self.undone += 1

    def opened(self, call: WebCall, upgraded: Upgraded) -> None:
        self.open.append(upgraded)


class Place:
    """A listener, its facts, and those who knock."""

    def __init__(self, loop: Loop, limits: ServerLimits | None = None, exempt: bool = True) -> None:
        self.loop = loop
        self.facts: list[Any] = []
        self.state = "ready"
        self.limits = limits or ServerLimits()
        self.access = AccessControl(lambda: 0.0, None, None if exempt else Penalties(PenaltyLimits(), ()))
        self.listener = WebListener(
            loop.reactor, lambda: self.limits, self.access, self.facts.append, lambda: self.state
        )
        self.listener.rules["main"] = WebRules(
            "main", frozenset({"gate.example"}), frozenset({"https://desk"})
        )
        self.echo = Echo()
        self.listener.routes.append(self.echo)
        listeners = Listeners(loop.reactor, self.facts.append)
        self.port = listeners.listen("127.0.0.1", 0, 50, partial(self.listener.came, "main"))
        self.sockets: list[socket.socket] = []

    def knock(self, data: bytes = b"") -> socket.socket:
        """Connect and say something."""
        sock = socket.create_connection(("127.0.0.1", self.port.port))
        sock.setblocking(False)
        self.sockets.append(sock)
        if data:
            sock.sendall(data)
        return sock

    def hear(self, sock: socket.socket) -> bytes:
        """All that comes up to the end, or to an open WebSocket."""
        heard = bytearray()

        def read() -> bool:
            try:
                data = sock.recv(65536)
            except BlockingIOError:
                return heard.startswith(b"HTTP/1.1 101") and heard.endswith(b"\r\n\r\n")
            except ConnectionResetError:
                return True
            heard.extend(data)
            return not data

        self.loop.until(read, "an answer")
        return bytes(heard)

    def ask(self, path: str = "/echo/1", **fields: str | None) -> bytes:
        """What a request for a WebSocket is answered."""
        return self.hear(self.knock(request(path, **fields)))

    def refused(self) -> WebRefused:
        """The last refusal."""
        self.loop.until(lambda: self.facts, "a fact")
        fact = self.facts[-1]
        assert isinstance(fact, WebRefused)
        return fact

    def close(self) -> None:
        self.port.stop()
        os.close(self.port._spare._number)
        self.listener.stop()
        for upgraded in self.echo.open:
            upgraded.end.abort()
        for sock in self.sockets:
            sock.close()


def request(path: str = "/echo/1", method: str = "GET", **fields: str | None) -> bytes:
    """The bytes of a request; a field that is None is left out."""
    named = {**HEAD, **{name.replace("_", "-"): value for name, value in fields.items()}}
    lines = [f"{name}: {value}" for name, value in named.items() if value is not None]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode()


def status(answer: bytes) -> int:
    """Of an answer; 0: none came."""
    return int(answer.split()[1]) if answer else 0


@pytest.fixture
def loop(no_leaks: None) -> Iterator[Loop]:
    with own_reactor() as loop:
        yield loop


@pytest.fixture
def place(loop: Loop) -> Iterator[Place]:
    place = Place(loop)
    yield place
    place.close()


def test_a_route_gets_the_connection(place: Place) -> None:
    """With its path, query, subprotocol and peer; nothing is reported, and nothing is undone."""
    answer = place.ask("/echo/plc-7?x=1", Sec_WebSocket_Protocol="a.1, b.1")
    assert status(answer) == 101
    assert b"Sec-WebSocket-Protocol: a.1\r\n" in answer
    place.loop.until(lambda: place.echo.open, "the route")
    [call] = place.echo.calls
    assert (call.path, call.query, call.secure, call.origin) == ("/echo/plc-7", "x=1", False, None)
    assert call.peer == "{}:{}".format(*place.sockets[0].getsockname())
    assert (place.facts, place.echo.undone, place.listener.pending) == ([], 0, 0)


@pytest.mark.parametrize(
    ("fields", "wanted", "reason"),
    [
        ({"Host": "evil.example"}, 421, "host"),
        ({"Host": "127.0.0.1:99999999"}, 421, "host"),
        ({"Origin": "https://evil.example"}, 403, "origin"),
        ({"Origin": "https://desk"}, 403, "origin"),  # ours, but this route is for programs
        ({"Authorization": "Bearer wrong"}, 401, "denied"),
        ({"Sec_WebSocket_Version": "7"}, 400, "protocol"),
        ({"Sec_WebSocket_Key": None}, 400, "protocol"),
        ({"Connection": "close"}, 426, "refused"),
        ({"Host": None}, 400, "protocol"),
        ({"path": "/nothing"}, 404, "not-found"),
        ({"path": "/echo"}, 404, "not-found"),
        ({"path": "http://127.0.0.1/echo/1"}, 404, "not-found"),
        ({"method": "POST"}, 405, "method"),
    ],
)
def test_what_is_refused(place: Place, fields: dict[str, str], wanted: int, reason: str) -> None:
    """With its HTTP status, one fact with its word, and the connection ends in order."""
    assert status(place.hear(place.knock(request(**fields)))) == wanted
    fact = place.refused()
    assert (fact.status, fact.reason, fact.listener) == (wanted, reason, "main")
    assert place.echo.open == []


def test_pages_of_ours_and_of_named_origins_may_ask_where_a_route_says_so(place: Place) -> None:
    """The page of the very address that was asked, and one of the settings; by http not over TLS."""
    place.echo.browsers = True
    for origin, host in (
        ("https://desk", "gate.example"),
        ("http://gate.example:81", "GATE.example:81"),
        ("https://127.0.0.1", "127.0.0.1"),
    ):
        assert status(place.ask(Origin=origin, Host=host)) == 101
    assert status(place.ask(Origin="null")) == 403
    assert status(place.ask(Origin="https://127.0.0.1:1")) == 403


def test_what_is_no_websocket_gets_one_answer(place: Place) -> None:
    """Health, 404, 405 and 426 as JSON; the connection ends behind it, whatever else was asked on it."""
    plain = {"Upgrade": None, "Connection": "keep-alive"}
    for path, method, wanted, row in (
        ("/healthz", "GET", 200, {"state": "ready"}),
        ("/healthz", "POST", 405, {"error": "not with this method"}),
        ("/", "GET", 404, {"error": "nothing is here"}),
        ("/echo/1", "GET", 426, {"error": "this is for WebSockets"}),
    ):
        data = request(path, method, **plain)
        answer = place.hear(place.knock(data + request("/healthz", **plain)))
        assert (status(answer), json.loads(answer.rpartition(b"\r\n\r\n")[2])) == (wanted, row)
        assert b"\r\nConnection: close\r\n" in answer
        assert answer.count(b"HTTP/1.1 ") == 1
    place.state = "draining"
    assert status(place.hear(place.knock(request("/healthz", **plain)))) == 503
    assert status(place.hear(place.knock(request("/healthz", **{**plain, "Host": "evil.example"})))) == 421
    place.loop.until(lambda: not place.listener.pages.site.callers, "the end of all callers")


def test_a_head_that_is_too_large_or_too_slow(place: Place) -> None:
    """431, or the end without a word when its time is up; a byte now and then extends nothing."""
    answer = place.hear(place.knock(request()[:-2] + b"x: " + b"y" * 20_000 + b"\r\n\r\n"))
    assert (status(answer), place.refused().reason) == (431, "protocol")
    place.listener.wire = replace(place.listener.wire, handshake=0.05)
    sock = place.knock(b"GET /echo/1 HTTP/1.1\r\n")
    assert place.hear(sock) == b""
    assert place.refused().reason == "silent"


def test_who_hangs_up_without_a_word_is_not_reported(place: Place) -> None:
    """A balancer looks whether we live."""
    sock = place.knock()
    place.loop.until(lambda: place.listener.pending, "it came")
    sock.close()
    place.loop.until(lambda: not place.listener.pending, "it went")
    assert place.facts == []


def test_bytes_before_the_answer_are_refused(place: Place) -> None:
    """No client may send them yet."""
    assert status(place.hear(place.knock(request() + b"early"))) == 400
    assert place.echo.calls == []


def test_what_was_used_up_for_a_connection_that_is_gone_is_undone(place: Place) -> None:
    """It is reset while it is judged, so the answer cannot be written: ``undo`` in place of ``opened``."""
    sock = place.knock()
    judge = place.echo.judge

    def judge_and_lose(call: WebCall, offered: tuple[str, ...]) -> str:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.close()
        return judge(call, offered)

    place.echo.judge = judge_and_lose  # type: ignore[method-assign]
    sock.sendall(request())
    place.loop.until(lambda: place.echo.undone, "undone")
    assert place.echo.open == []
    assert place.refused().reason == "lost"


def test_a_bug_of_a_route_is_logged_and_costs_nobody_anything(place: Place) -> None:
    """The connection is cut, and nothing is kept of it."""
    logged: list[Any] = []
    globalLogPublisher.addObserver(logged.append)
    try:
        assert place.ask(Authorization="Bearer bug") == b""
    finally:
        globalLogPublisher.removeObserver(logged.append)
    assert [each["failure"].type for each in logged] == [ZeroDivisionError]
    assert (place.facts, place.listener.pending) == ([], 0)


def test_limits_of_those_under_way_and_of_how_often(loop: Loop, no_leaks: None) -> None:
    """Beyond them a connection is reset unread, with a word; penalties do the same to who fails."""
    place = Place(loop, ServerLimits(pending_per_source=2), exempt=False)
    first, second = place.knock(b"G"), place.knock(b"G")
    loop.until(lambda: place.listener.pending == 2, "two")
    assert place.hear(place.knock(request())) == b""
    assert place.refused().reason == "overloaded"
    first.close()
    second.close()
    loop.until(lambda: not place.listener.pending, "none")
    place.listener.rates = Rates(burst=2.0, second=0.0)
    assert [status(place.ask()) for _ in range(3)] == [101, 101, 0]
    assert place.refused().reason == "too-often"
    place.listener.rates = Rates()
    place.limits = ServerLimits(pending_per_source=1)
    silent = place.knock()
    loop.until(lambda: place.listener.pending == 1, "a silent one")
    assert status(place.ask()) == 101
    assert place.hear(silent) == b""
    assert place.refused().detail.startswith("silent for 0.")
    place.limits = ServerLimits()
    answers = [status(place.ask(Authorization="Bearer wrong")) for _ in range(9)]
    assert answers[:4] == [401] * 4
    assert answers[-1] == 0
    assert place.refused().reason == "penalty"
    place.close()


@pytest.mark.parametrize(
    ("said", "trusted", "peer"),
    [
        ("203.0.113.9", "127.0.0.1", "203.0.113.9:0"),
        (
            "198.51.100.1, 203.0.113.9",
            "127.0.0.1",
            "203.0.113.9:0",
        ),  # what stands before it is the client's own word
        ("203.0.113.9 ,\t10.0.0.7", "127.0.0.1, 10.0.0.0/8", "203.0.113.9:0"),
        ("10.0.0.8, 10.0.0.7", "127.0.0.1, 10.0.0.0/8", "10.0.0.8:0"),
        ("2001:db8::1", "127.0.0.1", "[2001:db8::1]:0"),
        ("[2001:db8::1]:4711", "127.0.0.1", "[2001:db8::1]:0"),
        ("::ffff:203.0.113.9", "127.0.0.1", "203.0.113.9:0"),
        ("203.0.113.9", "10.0.0.0/8", None),
        ("203.0.113.9", "", None),
        ("unknown", "127.0.0.1", None),
        ("203.0.113.9,", "127.0.0.1", None),
        (None, "127.0.0.1", None),
    ],
)
def test_whom_a_balancer_names(place: Place, said: str | None, trusted: str, peer: str | None) -> None:
    """The last address that is no balancer's, where a balancer of the settings says so."""
    networks = tuple(network_of(each.strip()) for each in trusted.split(",") if each)
    rules = place.listener.rules
    rules["main"] = replace(rules["main"], forwarded_from=networks)
    assert status(place.ask(X_Forwarded_For=said)) == 101
    assert place.echo.calls[0].peer == (peer or "{}:{}".format(*place.sockets[0].getsockname()))


def test_behind_a_balancer_whoever_fails_or_floods_pays_for_it_himself(loop: Loop, no_leaks: None) -> None:
    """Not the balancer, by which all the others come."""
    place = Place(loop, ServerLimits(pending_per_source=1), exempt=False)
    balancer = (network_of("127.0.0.1"),)
    place.listener.rules["main"] = replace(place.listener.rules["main"], forwarded_from=balancer)
    place.listener.rates = Rates(burst=9.0, second=0.0)
    two = place.knock(), place.knock()
    loop.until(lambda: place.listener.pending == 2, "two")
    for sock in two:
        sock.close()

    def ask(peer: str, token: str = "right") -> int:
        return status(place.ask(X_Forwarded_For=peer, Authorization=f"Bearer {token}"))

    assert [ask("203.0.113.9", "wrong") for _ in range(9)] == [401] * 8 + [429]  # four of them are tries
    assert (place.refused().reason, place.refused().peer) == ("penalty", "203.0.113.9:0")
    assert b"Retry-After: 5\r\n" in place.ask(X_Forwarded_For="203.0.113.9")
    assert [ask("203.0.113.10") for _ in range(10)] == [101] * 9 + [429]
    assert place.refused().reason == "too-often"
    assert ask("203.0.113.11") == 101
    place.listener.expected = {"203.0.113.10": 1}.__contains__
    assert ask("203.0.113.10") == 101  # a data socket that was asked for
    place.close()


def test_a_stopping_listener(place: Place) -> None:
    """Turns away who is under way and who comes."""
    sock = place.knock(b"GET ")
    place.loop.until(lambda: place.listener.pending, "it came")
    place.listener.stop()
    assert place.hear(sock) == b""
    assert place.hear(place.knock(request())) == b""
    assert {each.reason for each in place.facts} == {"stopping"}


def test_the_longest_prefix_that_fits_is_asked() -> None:
    """One with a slash at its end stands for what is behind it, another for itself."""
    routes = [Echo("/a/"), Echo("/a/b/"), Echo("/control")]
    for path, wanted in (
        ("/a/x", "/a/"),
        ("/a/b/c", "/a/b/"),
        ("/a/b", "/a/"),
        ("/control", "/control"),
        ("/control/", None),
        ("/controls", None),
        ("/a", None),
    ):
        assert getattr(route_of(routes, path), "prefix", None) == wanted


def test_rates_forget_the_source_that_was_quiet_longest() -> None:
    """Tokens come back with time, never with a clock that goes back, and the table is bounded."""
    rates = Rates(burst=1.0, second=1.0, sources=2)
    assert [rates.take("192.0.2.1:5", at) for at in (0.0, 0.5, 1.1, 1.0, 2.3)] == [
        True,
        False,
        True,
        False,
        True,
    ]
    assert rates.take("unix:/x", 0.0)
    for host in ("192.0.2.2", "[2001:db8::1]:5", "[2001:db8::2]:5"):
        rates.take(host, 3.0)
    assert len(rates) == 2
    assert rates.take("192.0.2.1", 3.0)
