"""The HTTP api against its own description: whatever a generic client sends, answers are as documented."""

import hashlib
import json
import re
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from revtunnel.fleet.fleet import Fleet
from revtunnel.fleet.leases import Leases
from revtunnel.fleet.pools import Pool
from revtunnel.ground.limits import CccpLimits, ServerLimits
from revtunnel.process.wake import WakeDriver
from revtunnel.process.web.http_channel import PARTING
from revtunnel.state.ledger import SqliteLedger
from revtunnel.systems.cccp.cccp_settings import CccpPart
from revtunnel.systems.cccp.cccp_store import SessionBook
from revtunnel.systems.cccp.http_api import HttpApi
from revtunnel.systems.cccp.openapi import describe_api
from revtunnel.systems.cccp.proxies import Proxies
from revtunnel.systems.cccp.proxy_operator import ProxyOperator
from revtunnel.systems.cccp.proxy_ports import ProxyPorts
from revtunnel.systems.cccp.registered_devices import Project
from tests.support.depth import deep
from tests.support.reactor import MemoryReactor
from tests.support.recorder import Recorder

HERE = IPv4Address("TCP", "127.0.0.1", 2080)
KINDS: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}


OPEN = CccpPart(token=None)


class Door:
    """A api with everything behind it, over memory."""

    def __init__(self, ports: int = 3, part: CccpPart = OPEN, quarantine: float = 0.0) -> None:
        self.reactor = MemoryReactor()
        limits = CccpLimits()
        pool = Pool("p", ((21000, 21000 + ports - 1),), quarantine=quarantine)
        leases = Leases([pool], self.reactor.seconds())
        told = self.facts = []  # type: list[Any]
        self.book = SessionBook(SqliteLedger(None, lambda: 0.0))
        self.proxies = Proxies(
            self.reactor,
            ProxyPorts(self.reactor, self.reactor.listen, leases, lambda: 50, told.append),
            lambda: limits,
            self.book,
            told.append,
            Fleet(ServerLimits(), told.append),
        )
        part = replace(part, limits=limits)
        wake = WakeDriver(self.reactor, lambda serial: part.wake, told.append)
        self.operator = ProxyOperator(
            self.reactor, self.proxies, lambda: [Project("main", "p")], lambda: limits, wake
        )
        self.site = HttpApi(self.operator, lambda: part).site(self.reactor)

    def send(self, data: bytes) -> bytes:
        """What a connection answers to these bytes."""
        channel = self.site.channel()
        transport = StringTransport(HERE, HERE)
        channel.makeConnection(transport)
        channel.dataReceived(data)
        self.reactor.advance(0)
        return transport.value()

    def ask(self, target: str, method: str = "GET") -> tuple[int, Any]:
        """Status and value of an answer."""
        answer = self.send(f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"application/json" in head and b"no-store" in head
        return int(head.split()[1]), json.loads(body) if body else None


def fits(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value is of a schema, as far as ours go."""
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if not any(isinstance(value, KINDS[kind]) for kind in kinds):
        return False
    if isinstance(value, bool) and "boolean" not in kinds:
        return False
    if isinstance(value, dict):
        known = schema.get("properties", {})
        if schema.get("additionalProperties") is False and set(value) - set(known):
            return False
        return set(schema.get("required", ())) <= set(value) and all(
            fits(known[name], each) for name, each in value.items() if name in known
        )
    if isinstance(value, list):
        return all(fits(schema["items"], each) for each in value)
    if isinstance(value, int) and not isinstance(value, bool):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    return True


API = describe_api(token=False, wait=300)
ANYTHING = st.one_of(
    st.text(max_size=70),
    st.sampled_from(["CLD-1", "true", "0", "1", "127.0.0.1", "::1/64", "-1", "a,b", "%00"]),
)


def of_schema(schema: dict[str, Any]) -> st.SearchStrategy[str]:
    """Values that the description allows."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema["type"] in ("integer", "number"):
        return st.integers(schema["minimum"], min(schema["maximum"], 300)).map(str)
    if "pattern" in schema:
        return st.from_regex(schema["pattern"], fullmatch=True)
    if schema["type"] == "array":
        return st.lists(of_schema(schema["items"]), min_size=1, max_size=5).map(",".join)
    return st.sampled_from(["main", "plc"])


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, str]:
    """Path, method and target of a request, right or wrong in any parameter."""
    path = draw(st.sampled_from(sorted(API["paths"])))
    method = draw(st.sampled_from(sorted(API["paths"][path])))
    fields = []
    for parameter in API["paths"][path][method]["parameters"]:
        if parameter["name"] == "wait":
            continue  # its answer is not there at once; see the tests of the daemon
        if draw(st.integers(0, 3)) or parameter["required"]:
            right = draw(st.integers(0, 3))
            value = draw(of_schema(parameter["schema"]) if right else ANYTHING)
            fields.append((parameter["name"], value))
    return path, method, f"{path}?{urlencode(fields)}"


@settings(max_examples=deep(150), deadline=None)
@given(st.lists(requests(), min_size=1, max_size=8))
def test_every_answer_is_documented(calls: list[tuple[str, str, str]]) -> None:
    """No 500, no status and no body that the description does not have, in any order of calls."""
    api = Door()
    for path, method, target in calls:
        status, row = api.ask(target, method.upper())
        documented = API["paths"][path][method]["responses"]
        assert str(status) in documented and status != 500
        schema = documented[str(status)]["content"]["application/json"]["schema"]
        assert fits(schema, row), (status, row)


def test_right_calls_are_taken() -> None:
    """Not everything is refused: the examples of the document."""
    api = Door()
    target = "/on?serial=CLD-1&persistent=true&ip_whitelist=127.0.0.1,10.0.0.0/8&timeout=60"
    assert api.ask(target) == (200, {"host": "127.0.0.1", "port": 21000})
    said = {"device_connected": False, "client_connected": False, "transferred": 0}
    assert api.ask("/status?serial=CLD-1") == (200, said)
    assert api.ask("/off?serial=CLD-1") == (200, {})


SECRET = b"a long secret"
# of a SHA-256 that begins with the same two bytes as the secret's
ALIKE = next(
    b"guess %d" % number
    for number in range(10_000_000)
    if hashlib.sha256(b"guess %d" % number).digest()[:2] == hashlib.sha256(SECRET).digest()[:2]
)


@pytest.mark.parametrize(
    ("status", "query", "heads"),
    [
        (200, "", [b"Bearer " + SECRET]),
        (200, "", [b"bearer  " + SECRET + b" "]),
        (401, "", []),
        (401, "", [b"Bearer "]),
        (401, "", [b"Bearer " + SECRET[:-1]]),
        (401, "", [b"Bearer " + ALIKE]),
        (401, "", [b"Basic " + SECRET]),
        (401, "", [b"Bearer " + SECRET, b"Bearer other"]),
        (401, "?access_token=a+long+secret", [b"Bearer " + SECRET]),
        (401, "?token=a+long+secret", []),
    ],
)
def test_h1_who_has_the_token(status: int, query: str, heads: list[bytes]) -> None:
    """The whole of it, once, in its header and nowhere else; who has it not learns nothing of paths."""
    api = Door(part=CccpPart(token=hashlib.sha256(SECRET).digest()))
    said = b"".join(b"Authorization: %b\r\n" % head for head in heads)
    for path in ("/openapi.json", "/nowhere"):
        answer = api.send(f"GET {path}{query} HTTP/1.1\r\n".encode() + said + b"\r\n")
        known = 404 if path == "/nowhere" and status == 200 else status
        assert answer.startswith(b"HTTP/1.1 %d" % known)


@pytest.mark.parametrize(
    ("status", "head"),
    [
        (200, ""),
        (200, "Host: localhost:8080"),
        (200, "Host: 192.0.2.7"),
        (200, "Host: [2001:db8::7]:80"),
        (200, "Host: CCCP.example"),
        (200, "Host: other.example:80"),
        (200, "Host: localhost\r\nSec-Fetch-Site: same-origin"),
        (403, "Host: evil.example"),
        (403, "Host: localhost.evil.example"),
        (403, "Host: localhost@evil.example"),
        (403, "Host: localhost\r\nHost: localhost"),
        (403, "Host: localhost\r\nOrigin: http://localhost"),
        (403, "Host: localhost\r\nOrigin: null"),
        (403, "Host: localhost\r\nSec-Fetch-Site: cross-site"),
        (403, "Host: localhost\r\nSec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site"),
    ],
)
def test_h2_no_web_page_gets_through(status: int, head: str) -> None:
    """Neither one that a browser says is a page's, nor one by a name that somebody has rebound."""
    api = Door(part=replace(OPEN, host="cccp.example", hosts=("other.example",)))
    lines = f"{head}\r\n" if head else ""
    answer = api.send(f"GET /on?serial=A HTTP/1.1\r\n{lines}\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 %d" % status)
    assert len(api.proxies) == (status == 200)


@pytest.mark.parametrize(
    ("status", "query"),
    [
        (200, "serial=A&timeout=86400"),
        (400, "serial=A&timeout=86401"),
        (400, "serial=A&serial=A"),
        (400, "serial=A&persistent=true&persistent=true"),
        (200, f"serial=A&ip_whitelist={','.join(f'10.0.0.{n}' for n in range(64))}"),
        (400, f"serial=A&ip_whitelist={','.join(f'10.0.0.{n}' for n in range(65))}"),
        (400, "serial=A&ip_whitelist=127.0.0.1,"),
        (200, "serial=A&ip_whitelist=10.0.0.1/8"),
        (400, "serial=A&ip_whitelist=10.0.0.1/255.0.0.0"),
    ],
)
def test_h3_h6_what_may_be_said_once_and_how_much_of_it(status: int, query: str) -> None:
    """A second value is never the one that another program would take; nothing is left out in silence."""
    api = Door()
    assert api.ask(f"/on?{query}")[0] == status
    assert len(api.proxies) == (status == 200)


def test_h14_a_body_without_a_length_has_its_limit_too() -> None:
    """It is told so and closed before it is whole."""
    api = Door()
    channel = api.site.channel()
    transport = StringTransport(HERE, HERE)
    channel.makeConnection(transport)
    channel.dataReceived(b"POST /off HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b"400\r\n" + b"x" * 1024 + b"\r\n"
    sent = 0
    while not transport.disconnecting:
        channel.dataReceived(piece)
        sent += len(piece)
        assert sent <= 2 * CccpLimits().body + len(piece)
    assert transport.value().startswith(b"HTTP/1.1 413")


def test_h15_only_so_many_callers_at_once() -> None:
    """For the next one somebody silent goes; where nobody is, it is closed at once, until one has left."""
    api = Door()
    callers = [api.site.channel() for _ in range(CccpLimits().connections)]
    assert None not in callers
    transports = [StringTransport(HERE, HERE) for _ in callers]
    for caller, transport in zip(callers, transports, strict=True):
        caller.makeConnection(transport)
        if caller is not callers[0]:
            caller.dataReceived(b"G")
    last = api.site.channel()
    assert [each.disconnected for each in transports].count(True) == 1
    assert transports[0].disconnected
    last.makeConnection(StringTransport(HERE, HERE))
    last.dataReceived(b"G")
    assert api.site.channel() is None
    last.connectionLost(Failure(ConnectionDone()))
    assert api.site.channel() is not None


def test_bodies_are_stable_bytes() -> None:
    """The same answer is the same bytes, keys in the document's order and without blanks."""
    api = Door(1)
    request = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for target, body in (
        (b"/on?serial=A", b'{"host":"127.0.0.1","port":21000}'),
        (b"/on?serial=A", b'{"host":"127.0.0.1","port":21000}'),
        (b"/on?serial=B", b'{"message":"No available ports"}'),
        (b"/status?serial=A", b'{"device_connected":false,"client_connected":false,"transferred":0}'),
        (b"/off?serial=A", b"{}"),
    ):
        assert api.send(request % target).endswith(b"\r\n\r\n" + body)


def test_a_caller_hears_until_when_ports_rest() -> None:
    """Beside the document's text, where nothing but time is missing."""
    api = Door(2, quarantine=60.0)
    for serial in ("A", "B"):
        api.ask(f"/on?serial={serial}")
    assert api.ask("/on?serial=C") == (503, {"message": "No available ports"})
    api.ask("/off?serial=A")
    api.reactor.advance(15.0)
    code, body = api.ask("/on?serial=C")
    assert (code, body["message"]) == (503, "No available ports")
    assert body["detail"] == "1 port rests for another 45 s"
    answers = API["paths"]["/on"]["get"]["responses"]
    assert fits(answers["503"]["content"]["application/json"]["schema"], body)


def test_h17_transferred_is_an_exact_integer() -> None:
    """Beyond 2**53 too."""
    api = Door()
    api.ask("/on?serial=A")
    proxy = api.proxies.get("A")
    assert proxy is not None
    proxy.session.transferred = 2**53 + 1
    assert api.ask("/status?serial=A")[1]["transferred"] == 2**53 + 1


@given(st.binary(max_size=300))
def test_h14_any_bytes_at_all(data: bytes) -> None:
    """Nothing escapes from the parser, and no proxy comes of it."""
    api = Door()
    answer = api.send(data + b"\r\n\r\n")
    assert not answer or re.match(rb"HTTP/1\.[01] (4..|505)", answer)
    assert len(api.proxies) == 0


def test_the_description_is_whole() -> None:
    """Every operation has an id of its own and documented answers; a token is asked for by scheme."""
    described = describe_api(token=True, wait=300)
    operations = [each for path in described["paths"].values() for each in path.values()]
    ids = [each["operationId"] for each in operations]
    assert described["openapi"] == "3.1.0" and len(set(ids)) == len(ids) == 8
    assert all("401" in each["responses"] and each["security"] == [{"token": []}] for each in operations)
    assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    api = Door()
    assert api.ask("/openapi.json") == (200, json.loads(json.dumps(API)))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_h15_a_request_has_to_be_there_in_time(method: str) -> None:
    """The time is absolute; a request that is being answered is not cut."""
    api = Door()
    channel = api.site.channel()
    transport = StringTransport(HERE, HERE)
    channel.makeConnection(transport)
    for _ in range(9):
        channel.dataReceived(b"X" if not transport.value() else b"")
        api.reactor.advance(1.0)
    assert not transport.disconnecting
    api.reactor.advance(1.5)
    assert transport.disconnecting


@pytest.mark.parametrize(
    ("said", "wait"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", CccpLimits().header),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", 0.0),
        (b"nonsense\r\n\r\n", 0.0),
        (b"POST /off HTTP/1.1\r\nContent-Length: 5000\r\n\r\n", 0.0),
    ],
    ids=["kept alive", "closing", "garbage", "too long"],
)
def test_a_caller_who_reads_nothing_is_cut(said: bytes, wait: float) -> None:
    """However its connection is to end, it does not wait for a buffer that never empties; no timer stays."""
    api = Door()
    channel = api.site.channel()
    pair = api.reactor.join(Recorder(), channel, capacity=20)
    pair.to_near.blocked = True
    pair.near.write(said)
    api.reactor.advance(wait)
    assert pair.far.connected and pair.far.buffered and pair.far.disconnecting
    api.reactor.advance(PARTING)
    assert not pair.far.connected
    assert api.reactor.getDelayedCalls() == []


def test_a_caller_who_has_read_everything_is_let_go_in_order() -> None:
    """One that was kept alive and said no more sees an end of file; and no timer stays."""
    api = Door()
    caller = Recorder()
    api.reactor.join(caller, api.site.channel()).near.write(b"GET / HTTP/1.1\r\n\r\n")
    api.reactor.advance(CccpLimits().header)
    assert caller.data.startswith(b"HTTP/1.1 404")
    assert caller.lost is ConnectionDone
    assert api.reactor.getDelayedCalls() == []


@pytest.mark.parametrize(
    "wait", [b"", b"GET /on?serial=B&wait=1 HTTP/1.1\r\n\r\n"], ids=["", "behind a wait"]
)
def test_answers_wait_for_a_caller_who_does_not_take_them(wait: bytes) -> None:
    """Requests in one piece are answered as he reads: what waits for him is bounded, nothing is lost."""
    api = Door()
    caller = Recorder()
    pair = api.reactor.join(caller, api.site.channel(), capacity=1000)
    pair.to_near.blocked = True
    pair.near.write(wait + b"GET /openapi.json HTTP/1.1\r\n\r\n" * 1500)
    api.reactor.advance(2.0)
    one = len(api.send(b"GET /openapi.json HTTP/1.1\r\n\r\n"))
    assert 64 * 1024 < pair.far.peak < 64 * 1024 + 2 * one
    pair.to_near.blocked = False
    api.reactor.pump()
    assert caller.data.count(b"HTTP/1.1 200") == 1500
    assert caller.data.count(b"HTTP/1.1 504") == (1 if wait else 0)
    assert caller.data.endswith(b"}")


def test_many_requests_in_one_piece_are_no_recursion() -> None:
    """Each is answered, however many one reading brings."""
    answer = Door().send(b"GET / HTTP/1.1\r\n\r\n" * 3000)
    assert answer.count(b"HTTP/1.1 404") == 3000
