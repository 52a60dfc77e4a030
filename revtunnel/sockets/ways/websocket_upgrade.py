"""From HTTP to WebSocket: the handshake of either side, on a connection that has no owner yet.

The rules: an absolute deadline, after which the socket is aborted; a bound on all that comes before it is
done. The server's side asks ``judge`` last, when nothing else is wrong, so that a nonce is not used up by a
request that could not have become a WebSocket; whoever sends before our answer is refused. No extension is
agreed to.

::

    upgraded = await accept_end(reactor, end, judge, limits)                      # HandshakeRefused, OSError
    upgraded = await answer_end(reactor, end, request, early, judge, limits)      # read by a RequestReader
    upgraded = await connect_end(reactor, end, UpgradeRequest("gate.example", 2443, "/s/1"), limits)
    answer = accept_request(request_of("GET", path, headers), judge, limits)      # an HTTP layer has read it

Source: RFC 6455 section 4; RFC 9112 section 3.2 (Host); issue 10, part 3.
"""

import errno
import re
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, NamedTuple

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from websockets.datastructures import Headers
from websockets.exceptions import (
    HeaderLineTooLong,
    InvalidStatus,
    NegotiationError,
    RequestLineTooLong,
    TooManyHeaders,
)
from websockets.http11 import Request, Response
from websockets.protocol import OPEN, Protocol
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from revtunnel.ground.errors import AnsweredOtherwise, LocalError
from revtunnel.ground.first_bytes import recognise
from revtunnel.sockets.ends import End
from revtunnel.sockets.stages import read_some, readable, writable, write_all
from revtunnel.sockets.ways.websocket_wire import ClientEngine, ServerEngine, WebSocketLimits, logger

__all__ = [
    "HandshakeRefused",
    "Judge",
    "Request",
    "RequestReader",
    "UpgradeAnswer",
    "UpgradeRequest",
    "Upgraded",
    "accept_end",
    "accept_request",
    "answer_end",
    "connect_end",
    "part",
    "request_of",
]

_TOO_LARGE = {RequestLineTooLong: 414, HeaderLineTooLong: 431, TooManyHeaders: 431}
_SECONDS = re.compile(r"[0-9]{1,5}", re.ASCII)
_STATUS = re.compile(r"HTTP/1\.([01]) ([1-9][0-9]{2})(?: (.*))?", re.ASCII)
MAX_RETRY = 3600  # seconds of a Retry-After that are believed: it may be a gateway's
MAX_WORDS = 160  # characters of a server's own words in our log


class HandshakeRefused(AnsweredOtherwise):
    """No WebSocket came of it: we refused (``judge`` raises this), or the other side did.

    ``status`` is that of HTTP, 0 where there is none; the sentence is for people, and goes to the other side.
    ``page``: the other side answered with a web page. ``retry_after``: seconds that were asked for; 0: none.
    """

    def __init__(self, status: int, why: str, page: bool = False, retry_after: int = 0) -> None:
        super().__init__(errno.ECONNREFUSED, why)
        self.status = status
        self.why = why
        self.page = page
        self.retry_after = retry_after


Judge = Callable[[Request, tuple[str, ...]], str]
"""Given a request and the subprotocols it offers: which of them is spoken, "" for none. Raises
HandshakeRefused. Host, Origin and credentials are for it to look at."""


class Upgraded(NamedTuple):
    """A connection whose handshake is done; a face is to be put on it."""

    end: End
    engine: Protocol
    subprotocol: str  # "": none
    request: Request


class UpgradeAnswer(NamedTuple):
    """What a request comes to: bytes to be written, then an open WebSocket or the end."""

    data: bytes
    engine: ServerProtocol | None  # None: refused
    refused: HandshakeRefused | None


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """What a client asks a server for."""

    host: str
    port: int
    path: str  # with its query, if any
    secure: bool = True
    subprotocols: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)  # may hold credentials


# -- the server's side


def request_of(
    method: str, path: str, headers: Iterable[tuple[str, str]], version: str = "HTTP/1.1"
) -> Request:
    """A request that an HTTP layer has read; header fields in their order, repeated ones repeated."""
    return Request(path, Headers([*headers]), method, version)


def accept_request(
    request: Request, judge: Judge, limits: WebSocketLimits, early: bool = False
) -> UpgradeAnswer:
    """What is answered to a request; ``early``: bytes stood behind it, which no client may send yet."""
    if early:
        return _refusal(HandshakeRefused(400, "bytes came before the handshake was done"))
    return _accept(request, judge, limits)


async def accept_end(reactor: Any, end: End, judge: Judge, limits: WebSocketLimits) -> Upgraded:
    """Read a request, judge it and answer, within ``limits.handshake``.

    Raises:
        HandshakeRefused: it was answered so, and the connection is over.
        OSError: it was cut, or it took too long (TimeoutError).
    """
    return await _in_time(reactor, _accept_end(reactor, end, judge, limits), end, limits)


async def _accept_end(reactor: Any, end: End, judge: Judge, limits: WebSocketLimits) -> Upgraded:
    reader = RequestReader(limits)
    found = None
    while found is None:
        data = await read_some(reactor, end)
        if not data:
            raise OSError(errno.ECONNABORTED, f"ended after {reader.size} bytes of a request")
        found = reader.receive(data)
    try:
        return await answer_end(reactor, end, *found, judge, limits)
    except HandshakeRefused:
        with suppress(CancelledError):  # the deadline
            await part(reactor, end)
        raise


async def answer_end(
    reactor: Any,
    end: End,
    asked: Request | HandshakeRefused,
    early: bool,
    judge: Judge,
    limits: WebSocketLimits,
) -> Upgraded:
    """Answer what a ``RequestReader`` found; the deadline is the caller's.

    Raises:
        HandshakeRefused: it was answered so; ``part`` comes next.
        OSError: it was cut.
    """
    if isinstance(asked, Request):
        answer = accept_request(asked, judge, limits, early)
    else:
        answer = _refusal(asked)
    try:
        await write_all(reactor, end, answer.data)
    except OSError:
        if answer.refused is None:
            raise
    if answer.refused is not None:
        raise answer.refused
    assert isinstance(asked, Request) and answer.engine is not None
    return Upgraded(end, answer.engine, answer.engine.subprotocol or "", asked)


def _accept(request: Request, judge: Judge, limits: WebSocketLimits) -> UpgradeAnswer:
    """Have the library check the request, and ``judge`` behind it.

    Its engine for the handshake reads a request first, so that another one is for the frames.
    """
    engine = ServerProtocol(logger=logger)
    raised: list[BaseException] = []

    def pick(_: ServerProtocol, offered: Any) -> Subprotocol | None:
        try:
            named = judge(request, tuple(map(str, offered)))
            if named and named not in offered:
                raise LocalError(f"subprotocol {named}, which was not offered")
        except BaseException as error:
            raised.append(error)
            raise NegotiationError("refused") from None
        return Subprotocol(named) if named else None

    if len(request.headers.get_all("Host")) != 1:
        return _refusal(HandshakeRefused(400, "exactly one Host wanted"))
    engine.select_subprotocol = pick.__get__(engine)  # type: ignore[method-assign]
    response = engine.accept(request)
    if raised and not isinstance(raised[0], HandshakeRefused):
        raise raised[0]
    if raised:
        assert isinstance(raised[0], HandshakeRefused)
        return _refusal(raised[0])
    if response.status_code != 101:
        words = bytes(response.body).decode().removeprefix("Failed to open a WebSocket connection: ")
        refused = HandshakeRefused(response.status_code, _printable(words.partition("\n")[0]))
        return UpgradeAnswer(response.serialize(), None, refused)
    frames = ServerEngine(state=OPEN, max_size=limits.message, logger=logger)
    frames.subprotocol = engine.subprotocol
    return UpgradeAnswer(response.serialize(), frames, None)


def _refusal(refused: HandshakeRefused) -> UpgradeAnswer:
    response = ServerProtocol(logger=logger).reject(HTTPStatus(refused.status), f"{refused.why}\n")
    if refused.retry_after:
        response.headers["Retry-After"] = str(refused.retry_after)
    return UpgradeAnswer(response.serialize(), None, refused)


class RequestReader:
    """The bytes of a request as they come, all that stand before the handshake is done."""

    def __init__(self, limits: WebSocketLimits) -> None:
        self.size = 0  # bytes so far
        self._limits = limits
        self._tail = b""
        self._engine = ServerProtocol(logger=logger)

    def receive(self, data: bytes) -> tuple[Request | HandshakeRefused, bool] | None:
        """The request, or what is wrong with it, and whether bytes stood behind it; None: it is not whole."""
        self.size, self._tail = self.size + len(data), (self._tail + data)[-4:]
        engine, most = self._engine, self._limits.head
        engine.receive_data(data)
        events = engine.events_received()
        if events and isinstance(events[0], Request) and self.size <= most:
            return events[0], len(events) > 1 or bool(engine.reader.buffer) or self._tail != b"\r\n\r\n"
        if engine.handshake_exc is not None:
            cause = engine.handshake_exc.__cause__ or engine.handshake_exc
            status = next((status for kind, status in _TOO_LARGE.items() if isinstance(cause, kind)), 400)
            return HandshakeRefused(status, _printable(f"no request for a WebSocket: {cause}")), False
        if self.size > most:
            return HandshakeRefused(431, f"the request passes {most} bytes"), False
        return None


# -- the client's side


async def connect_end(reactor: Any, end: End, asked: UpgradeRequest, limits: WebSocketLimits) -> Upgraded:
    """Ask for a WebSocket on a connection, TLS done, within ``limits.handshake``.

    Raises:
        HandshakeRefused: the server said no, with its status, or speaks something else.
        OSError: it was cut, or it took too long (TimeoutError).
    """
    return await _in_time(reactor, _connect_end(reactor, end, asked, limits), end, limits)


async def _connect_end(reactor: Any, end: End, asked: UpgradeRequest, limits: WebSocketLimits) -> Upgraded:
    path, _, query = asked.path.partition("?")
    offers = [Subprotocol(each) for each in asked.subprotocols] or None
    engine = ClientEngine(
        WebSocketURI(asked.secure, asked.host, asked.port, path, query),
        subprotocols=offers,
        max_size=limits.message,
        logger=logger,
    )
    request = engine.connect()
    for name, value in asked.headers:
        request.headers[name] = value
    engine.send_request(request)
    await write_all(reactor, end, b"".join(engine.data_to_send()))
    await _read_answer(reactor, end, engine, limits)
    return Upgraded(end, engine, engine.subprotocol or "", request)


async def _read_answer(reactor: Any, end: End, engine: ClientEngine, limits: WebSocketLimits) -> None:
    """Read until the WebSocket is open; what came behind the answer stays in the engine."""
    size, head = 0, b""
    while True:
        data = await read_some(reactor, end)
        size += len(data)
        if b"\r\n\r\n" not in head:
            head += data
            _refuse_page(head)
        if data:
            engine.receive_data(data)
        else:
            engine.receive_eof()
        if engine.handshake_exc is not None:
            raise _server_refused(engine.handshake_exc) if head[:5] == b"HTTP/" else _no_http(head)
        if engine.events and isinstance(engine.events[0], Response):
            del engine.events[0]
            return
        if not data:
            raise OSError(errno.ECONNABORTED, f"ended after {size} bytes of an answer")
        if size > limits.head:
            raise HandshakeRefused(0, f"the answer passes {limits.head} bytes")


def _refuse_page(head: bytes) -> None:
    """Whoever answers as to a browser need not end his answer; its head says enough. HandshakeRefused: so."""
    whole, end, _ = head.partition(b"\r\n\r\n")
    first, *fields = whole.decode("latin-1").split("\r\n")
    match = _STATUS.fullmatch(first)
    if not end or match is None or match[2] == "101":
        return
    named = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in fields)}
    page, where = "html" in named.get("content-type", ""), named.get("location", "")
    if page or where or match[1] == "0":
        words = f"{'answered with a web page: ' * page}{match[2]} {match[3] or ''}".strip()
        words += f", which leads to {where}" if where else ""
        if match[2] == "511" or (where and match[2] in ("302", "303", "307")):
            words += ", as a portal does that wants a login first"
        raise HandshakeRefused(int(match[2]), _printable(words), page)


def _no_http(head: bytes) -> HandshakeRefused:
    spoken = recognise(head)
    if not head:
        return HandshakeRefused(0, "it hung up without an answer: is a web listener there?")
    what = f"this is {spoken.value}" if spoken else f"it begins with {head[:24].decode('latin-1')!a}"
    return HandshakeRefused(0, f"it does not speak WebSocket: {what}")


def _server_refused(error: Exception) -> HandshakeRefused:
    """What a server's answer says, for people."""
    if isinstance(error, InvalidStatus):
        response = error.response
        words = bytes(response.body[: 4 * MAX_WORDS]).decode("utf-8", "replace").strip().partition("\n")[0]
        status = f"{response.status_code} {response.reason_phrase}"
        said = response.headers.get_all("Retry-After")
        seconds = min(int(said[0]), MAX_RETRY) if len(said) == 1 and _SECONDS.fullmatch(said[0]) else 0
        why = _printable(f"{status}: {words}" if words else status)
        return HandshakeRefused(response.status_code, why, retry_after=seconds)
    cause = error.__cause__ or error
    return HandshakeRefused(0, _printable(f"it does not speak WebSocket: {cause}"))


# -- both


async def _in_time(
    reactor: Any, doing: Coroutine[Any, Any, Upgraded], end: End, limits: WebSocketLimits
) -> Upgraded:
    """Within the deadline, or the socket is aborted; so it is after any fault."""

    def too_late(result: Any, seconds: float) -> Any:
        late = TimeoutError(errno.ETIMEDOUT, f"no WebSocket in {seconds:g} s")
        return Failure(late) if isinstance(result, Failure) and result.check(CancelledError) else result

    shaking = Deferred.fromCoroutine(doing)
    try:
        upgraded: Upgraded = await shaking.addTimeout(limits.handshake, reactor, too_late)
    except BaseException:
        end.abort()
        raise
    return upgraded


async def part(reactor: Any, end: End) -> None:
    """End in order, so that the answer is read: our end of file, then theirs; the caller has the deadline."""
    try:
        while not end.end_writing():
            await (readable if end.writes_when_readable else writable)(reactor, end)
        while await read_some(reactor, end):
            pass
        end.close()
    except OSError:
        end.abort()


def _printable(text: str) -> str:
    return "".join(each if " " <= each <= "~" else "?" for each in text)[:MAX_WORDS]
