"""What stands before an owner: WebSocket, its handshake, PROXY headers, HTTP proxies, the APIs' requests."""

import json
import re
from collections.abc import Hashable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from websockets.protocol import OPEN
from websockets.uri import WebSocketURI
from websockets.utils import accept_key

from revtunnel.daemons.all_operations import OPERATIONS
from revtunnel.ground.errors import RemoteError
from revtunnel.ground.origin import Origin
from revtunnel.process.admin.admin_boxes import in_json, packed, unpacked
from revtunnel.process.admin.refusals import Invalid
from revtunnel.process.web.api_routes import ApiRoutes
from revtunnel.process.web.api_values import checked, query_of, read_body
from revtunnel.sockets.ways.http_connect import decode_answer
from revtunnel.sockets.ways.proxy_header import VERSIONS, decode_header, encode_header_v1, encode_header_v2
from revtunnel.sockets.ways.websocket_upgrade import (
    HandshakeRefused,
    RequestReader,
    UpgradeRequest,
    accept_request,
    connect_end,
)
from revtunnel.sockets.ways.websocket_wire import (
    Bytes,
    ClientEngine,
    Closed,
    Failed,
    Text,
    WebSocketLimits,
    WebSocketWire,
)
from tests.fuzz.harness import pieces, target
from tests.support.web_frames import BINARY, CLOSE, CONT, PING, PONG, TEXT, close, frame

LIMITS = WebSocketLimits(message=500, text=300, pongs=100, head=1000)


# -- WebSocket


def _happenings(wire: WebSocketWire, parts: list[bytes]) -> list[Any]:
    """What came, in order; of a failure its code."""
    found: list[Any] = []
    for part in parts:
        for each in wire.receive(part):
            assert wire.closed is None or isinstance(each, Failed | Closed)
            assert not isinstance(each, Text | Bytes) or len(each[0]) <= LIMITS.message
            found.append(each.code if isinstance(each, Failed) else each)
        assert sum(map(len, wire.replies())) <= LIMITS.pongs + len(part) + 200
    return found


def _frames(masked: bool) -> list[bytes]:
    return [
        frame(TEXT, b"hello", masked=masked),
        frame(BINARY, b"x" * 130, masked=masked),
        frame(TEXT, "\N{EURO SIGN}".encode()[:2], masked=masked, last=False),
        frame(CONT, "\N{EURO SIGN}".encode()[2:], masked=masked),
        frame(PING, b"there?", masked=masked),
        frame(PONG, b"", masked=masked),
        frame(CLOSE, b"\x03\xe8bye", masked=masked),
        close(1000, b"", masked=masked),
    ]


_MASKED, _BARE = _frames(True), _frames(False)


def _websocket(data: bytes, server: bool) -> Hashable:
    def made() -> WebSocketWire:
        if server:
            return WebSocketWire.server(LIMITS)
        uri = WebSocketURI(True, "gate", 443, "/link", "")
        return WebSocketWire(ClientEngine(uri, state=OPEN, max_size=LIMITS.message), LIMITS)

    whole = _happenings(made(), [data])
    assert _happenings(made(), [*pieces(data)]) == whole
    return tuple(type(each).__name__ for each in whole[:4])


@target("websocket-server", [*_MASKED, b"".join(_MASKED)], words=[*_MASKED, b"\x81\xfe", b"\x82\xff"])
def websocket_server(data: bytes) -> Hashable:
    """Frames of a client: whole and in pieces the same happens."""
    return _websocket(data, True)


@target("websocket-client", [*_BARE, b"".join(_BARE)], words=[*_BARE, b"\x81\x7e", b"\x82\x7f"])
def websocket_client(data: bytes) -> Hashable:
    """Frames of a server."""
    return _websocket(data, False)


_UPGRADE = (
    b"GET /link?x=1 HTTP/1.1\r\nHost: gate.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: a, b\r\n\r\n"
)
_LINES = [
    *(each + b"\r\n" for each in _UPGRADE.split(b"\r\n")[1:-2]),
    *(
        b"\r\n",
        b": ",
        b"\r\n\r\n",
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n",
        b"Content-Length: 9\r\n",
    ),
]


def _judge(request: Any, offered: tuple[str, ...]) -> str:
    if request.path.startswith("/no"):
        raise HandshakeRefused(404, "nothing is here", retry_after=5)
    return offered[0] if offered else ""


def _asked(parts: list[bytes]) -> Any:
    reader, found = RequestReader(LIMITS), None
    for part in parts:
        found = reader.receive(part)
        if found is not None:
            break
    return found


@target("upgrade-request", [_UPGRADE, _UPGRADE + b"early", _UPGRADE.replace(b"/link", b"/no")], words=_LINES)
def upgrade_request(data: bytes) -> Hashable:
    """A request for a WebSocket: one answer in HTTP, and an open WebSocket with 101 only."""
    found = _asked([data])
    if found is None or isinstance(found[0], HandshakeRefused):
        return None if found is None else found[0].args[0]
    request, early = found
    cut = _asked([*pieces(data)])
    assert cut is not None and not isinstance(cut[0], HandshakeRefused)
    assert (cut[0].path, [*cut[0].headers.raw_items()]) == (request.path, [*request.headers.raw_items()])
    answer = accept_request(request, _judge, LIMITS, early)
    assert answer.data.startswith(b"HTTP/1.1 101 ") == (answer.engine is not None and answer.refused is None)
    assert answer.data.endswith(b"\r\n\r\n") or answer.refused is not None
    assert not (early and answer.refused is None)
    return answer.data[9:12]


_ACCEPT = b"s3pPLMBiTxaQ9kYGzhZRbK+xOo="  # stands for the right one, which differs with each request
_ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: " + _ACCEPT + b"\r\nSec-WebSocket-Protocol: a\r\n\r\n"
)
_PAGE = b"HTTP/1.1 302 Found\r\nLocation: http://portal/\r\nContent-Type: text/html\r\n\r\n<html>"
_BUSY = b"HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 4\r\n\r\nbusy"


class _Server:
    """An end whose other side says this to whatever it is asked, and ends."""

    writes_when_readable = reads_when_writable = False

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._parts: list[bytes] | None = None
        self._asked = b""
        self.aborted = False

    def write(self, data: bytes | memoryview) -> int:
        self._asked += bytes(data)
        return len(data)

    def read_into(self, view: memoryview) -> int:
        if self._parts is None:
            found = re.search(rb"Sec-WebSocket-Key: (\S+)", self._asked)
            assert found is not None
            accept = accept_key(found[1].decode()).encode()
            self._parts = [*reversed([*pieces(self._data.replace(_ACCEPT, accept))])]
        part = self._parts.pop() if self._parts else b""
        view[: len(part)] = part
        return len(part)

    def abort(self) -> None:
        self.aborted = True


@target(
    "upgrade-answer",
    [_ANSWER, _ANSWER + _BARE[0], _PAGE, _BUSY],
    (HandshakeRefused, OSError),
    [
        *(each + b"\r\n" for each in _ANSWER.split(b"\r\n")),
        b"\r\n",
        b"chunked",
        b"Content-Length: ",
        _BARE[0],
    ],
)
def upgrade_answer(data: bytes) -> Hashable:
    """What a server answers to our request; whatever is wrong, its connection is over."""
    end: Any = _Server(data)
    asked = UpgradeRequest("gate", 443, "/link", subprotocols=("a", "b"))
    done = Deferred.fromCoroutine(connect_end(Clock(), end, asked, LIMITS))
    ended: list[Any] = []
    done.addBoth(ended.append)
    assert ended, "it waits for more than there is"
    if isinstance(ended[0], Failure):
        assert end.aborted
        if not ended[0].check(HandshakeRefused, OSError):
            ended[0].raiseException()
        return type(ended[0].value).__name__, getattr(ended[0].value, "status", 0)
    assert ended[0].subprotocol in ("", "a", "b")
    return ended[0].subprotocol


@target(
    "proxy-answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nrest",
        b'HTTP/1.1 407 No\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n',
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 302 Found\r\nLocation: http://portal/\r\n\r\n",
    ],
    (RemoteError,),
    [b"HTTP/1.1 ", b"\r\n", b"\n\n", b"Proxy-Authenticate: ", b'realm="', b"\\", b"407", b"100"],
)
def proxy_answer(data: bytes) -> Hashable:
    """What an HTTP proxy says to CONNECT; its words are fit to be shown."""
    found = decode_answer(data, 500)
    came = b""
    for piece in pieces(data):
        came += piece
        if (early := decode_answer(came, 500)) is not None:
            assert early == found
            break
    if found is None:
        return None
    assert found.size <= 500 and found.words.isascii() and found.words.isprintable()
    return found.status, found.schemes[:2], bool(found.leads_to)


_ORIGINS = [Origin("192.0.2.1", 56324, "198.51.100.9", 443), Origin("2001:db8::1", 1, "2001:db8::9", 2), None]
_PROXY = [write(origin) for origin in _ORIGINS for write in (encode_header_v1, encode_header_v2)]


@target(
    "proxy-header",
    [*_PROXY, _PROXY[1] + b"data"],
    (RemoteError,),
    [b"\r\n", b" ", b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"::", b"0", b"65535", b"::ffff:1.2.3.4"],
)
def proxy_header(data: bytes) -> Hashable:
    """A header is found where it ends, however its bytes come, and written again it names the same."""
    found = decode_header(data, VERSIONS["any"], 216)
    came = b""
    for piece in pieces(data):
        came += piece
        if (early := decode_header(came, VERSIONS["any"], 216)) is not None:
            assert early == found
            break
    if found is None:
        return None
    assert decode_header(data[: found.size], VERSIONS["any"], 216) == found
    if found.origin is not None:
        for write in (encode_header_v1, encode_header_v2):
            again = decode_header(write(found.origin), VERSIONS["any"], 216)
            assert again is not None and again.origin == found.origin
    return data[:1], found.origin and found.origin.family


# -- APIs

_ROUTES = ApiRoutes(OPERATIONS.values())
_BODY = {
    "serial": "plc-7",
    "name": "x",
    "target": "h:80",
    "limit": 5,
    "reason": "why",
    "replace": True,
    "l": ["a"],
}
_CALLS = [
    f"{each.method} {each.path.translate({123: None, 125: None})}?limit=5\n{json.dumps(_BODY)}".encode()
    for each in _ROUTES.all
]


@target(
    "web-api",
    _CALLS,
    (Invalid,),
    [
        b"%2F",
        b"%00",
        b"%ff",
        b"/",
        b"?",
        b"&",
        b"=",
        b'"',
        b"{}",
        b"[]",
        b"1e999",
        b"NaN",
        b"\\ud800",
        b"null",
        b"-0",
    ],
)
def web_api(data: bytes) -> Hashable:
    """Path, query and body of a call to the HTTP API, as arguments of an operation."""
    line, _, raw = data.partition(b"\n")
    method, _, uri = line.decode("latin-1").partition(" ")
    path, _, query = uri.partition("?")
    routes, texts = _ROUTES.at(path)
    route = routes.get(method)
    if route is None:
        return bool(routes)
    said = query_of(query.encode("latin-1"))
    in_path = dict(zip(route.in_path, texts, strict=True))
    arguments = checked(route.asked, {**said, **in_path}, read_body(raw) if raw else {})
    in_json(arguments).encode("ascii")
    return route.path


_BOXES = [packed({b"_command": b"devices", b"_ask": b"1"}), packed({b"name": b"x" * 300, b"": b""})]


@target("admin-box", [*_BOXES, b"".join(_BOXES)], (ValueError,), [b"\0\0", b"\0\1", b"\1\0"])
def admin_box(data: bytes) -> Hashable:
    """The admin socket's boxes: in pieces as whole, and as they are written."""
    whole, found = bytearray(data), []
    while (box := unpacked(whole, 1000)) is not None:
        found.append(box)
        if b"" not in box:
            assert unpacked(bytearray(packed(box)), None) == box
    held, cut = bytearray(), []
    for piece in pieces(data):
        held += piece
        while (box := unpacked(held, 1000)) is not None:
            cut.append(box)
    assert found == cut and whole == held
    return min(len(found), 3), bool(whole)
