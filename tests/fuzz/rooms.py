"""Whole rooms in memory where one caller is hostile: the relays of CAMEO, the HTTP API of a server."""

import re
from collections.abc import Hashable
from functools import cache
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from revtunnel.systems.cameo.cameo_facts import PeerJoined, PeerLeft, PeerRefused
from revtunnel.systems.cameo.zmtp import GREETING, encode_command, encode_ready
from revtunnel.systems.cameo.zmtp_messages import encode_message
from tests.fuzz.harness import pieces, target
from tests.support.desk import Caller, Desk
from tests.support.zmtp_socket import PUBLISHER, RESPONDER, SUBSCRIBER, Site

_PLACES = (RESPONDER, SUBSCRIBER, PUBLISHER)
_KINDS = ("REQ", "ROUTER", "DEALER", "SUB", "XSUB", "PUB", "XPUB", "REP")
_READY = [encode_ready(kind.encode(), b"me" if number < 3 else None) for number, kind in enumerate(_KINDS)]
_SAID = [
    encode_message([b"", b"0:0", b"", b"a request"]),
    encode_message([b"1:1", b"", b"me", b"", b"an answer"]),
    encode_message([b"\1topic"]),
    encode_message([b"topic", b"a publication"]),
    encode_command(b"SUBSCRIBE", b"topic"),
    encode_command(b"CANCEL", b"topic"),
    encode_command(b"PING", b"\0\x0acontext"),
]


@target(
    "cameo",
    [bytes((place,)) + ready + said for place in range(3) for ready in _READY[::2] for said in _SAID],
    words=[*_READY, *_SAID, b"\1\0", b"\0\0", b"topic", b"0:0", b"\5me"],
)
def cameo(data: bytes) -> Hashable:
    """A peer of a relay, beside good ones: it is served or it goes, and nothing is left of it."""
    site = Site()
    where = _PLACES[data[0] % 3 if data else 0]
    good = [site.connect(RESPONDER, "ROUTER", b"0:0"), site.connect(SUBSCRIBER, "SUB")]
    good[1].say(encode_command(b"SUBSCRIBE", b"topic"))
    socket = site.dial(where)
    socket.say(GREETING)
    for piece in pieces(data[1:]):
        if socket.open:
            socket.say(piece)
            site.pump()
    assert all(each.open for each in good)
    seen = frozenset(
        kind.__name__ for kind in (PeerJoined, PeerLeft, PeerRefused) if len(site.seen(kind)) > 2
    )
    refused = {each.reason for each in site.seen(PeerRefused)}
    site.finish()
    return where, seen, frozenset(refused), bool(good[0].messages), bool(good[1].messages)


@cache
def _desk() -> tuple[Desk, bytes]:
    desk = Desk()
    return desk, desk.person("root", "admin").encode()


_TOKEN = b"rtu_token"  # stands for one that is good
_BODY = b'{"serial":"plc-1","reason":"why"}'
_CALLS = [
    b"%b /api/v1/%b HTTP/1.1\r\nHost: gate.example\r\nAuthorization: Bearer %b\r\n%b\r\n%b"
    % (
        method,
        path,
        _TOKEN,
        b"Content-Type: application/json\r\nContent-Length: 33\r\n" if body else b"",
        body,
    )
    for method, path, body in (
        (b"GET", b"devices?limit=5&after=plc-0", b""),
        (b"GET", b"devices/plc-1", b""),
        (b"GET", b"users?name=r*", b""),
        (b"HEAD", b"sessions", b""),
        (b"POST", b"my/sessions", _BODY),
        (b"DELETE", b"sessions/00112233", b""),
        (b"PUT", b"devices/plc-1", _BODY),
        (b"GET", b"watch?event=link-up", b""),
    )
]
_FIELDS = [
    *(b"\r\n", b"\r\n\r\n", b"%00", b"%ff", b"/", b"..", b"?", b"&", b"=", b'"', b"HTTP/1.0", b"\n", b"\0"),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 0\r\n",
        b"Host: x\r\n",
        b"Expect: 100-continue\r\n",
    ),
    *(b"If-Match: *\r\n", b'If-None-Match: ""\r\n', b"Idempotency-Key: a\r\n", b"X-CSRF-Token: a\r\n"),
    *(b"Cookie: session=a\r\n", b"Origin: https://gate.example\r\n", b"5\r\nhello\r\n0\r\n\r\n", _TOKEN),
]


@target("web-http", [*_CALLS, _CALLS[0] * 2], words=_FIELDS)
def web_http(data: bytes) -> Hashable:
    """A caller of the HTTP API, who has a token: each answer is HTTP, and none says that we have failed."""
    desk, token = _desk()
    channel: Any = desk.listener.pages.channel()
    channel.rules, channel.came_from = desk.rules, "192.0.2.7:4711"
    caller = Caller()
    channel.makeConnection(caller)
    for piece in pieces(data.replace(_TOKEN, token)):
        if not caller.disconnecting:
            channel.dataReceived(piece)
    desk.pump()
    answer = caller.value()
    channel.connectionLost(Failure(ConnectionDone()))
    assert not answer or answer.startswith(b"HTTP/1."), answer
    assert not re.search(rb"^HTTP/1.. 500", answer, re.MULTILINE), answer
    return answer[9:12], len(re.findall(rb"^HTTP/1", answer, re.MULTILINE))
