"""The HTTP API of CCCP: /on, /off, /status as documented, /devices and /openapi.json of ours.

Rule of this file: it translates, and refuses before anything is looked up: a request that a web page could
have sent (Origin, Sec-Fetch-Site, a Host that is not ours), one without the token, other methods and paths.
Every answer is one JSON object, whose bytes depend on nothing but its values. A request has to be there whole
within its time, which nothing extends.

``+`` in a query is a blank, as forms have it; a serial with a plus is written %2B.

Source: TCXN CCCP, "Proxy Control API"; wire/cccp.md section 2; faults.md H1 to H17; twisted.md 2.8.
"""

import hashlib
import hmac
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from twisted.internet.defer import CancelledError, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web import resource

from revtunnel.ground.errors import RemoteError
from revtunnel.process.admin.refusals import Busy, Invalid, NotFound
from revtunnel.process.web.http_answers import answered, write_json
from revtunnel.process.web.http_channel import BoundedSite
from revtunnel.process.web.web_rules import is_ours
from revtunnel.sockets.ends import End
from revtunnel.sockets.peeking import has_spoken
from revtunnel.sockets.twisted_transport import TwistedTransport
from revtunnel.systems.cccp.cccp_settings import CccpPart
from revtunnel.systems.cccp.openapi import PAGE, describe_api
from revtunnel.systems.cccp.parameters import read_truth, read_whitelist, read_whole
from revtunnel.systems.cccp.proxy_operator import CallerFailed, DeviceAbsent, NoPorts, OnCall, ProxyOperator
from revtunnel.systems.cccp.proxy_sessions import MAX_TIMEOUT, ProxyOptions
from revtunnel.systems.cccp.registration import parse_registered

__all__ = ["HttpApi"]

log = Logger(namespace="revtunnel.http")
MAX_FIELDS = 32
_CODES: dict[type[Exception], int] = {
    Invalid: 400,
    NotFound: 404,
    CallerFailed: 500,
    NoPorts: 503,
    Busy: 503,
    DeviceAbsent: 504,
}
Fields = dict[str, str]


class _Refused(Exception):
    """Not even looked at."""

    def __init__(self, code: int, message: str, header: tuple[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.header = header


class HttpApi(resource.Resource):
    """The one resource; ``part``, who may call and what callers are told, is asked each time."""

    isLeaf = True

    def __init__(self, operator: ProxyOperator, part: Callable[[], CccpPart]) -> None:
        super().__init__()
        self.part = part
        self._operator = operator
        self._answers: dict[bytes, tuple[tuple[bytes, ...], Callable[[Any, Fields], Any]]] = {
            b"/on": ((b"GET", b"POST"), self._on),
            b"/off": ((b"GET", b"POST"), self._off),
            b"/status": ((b"GET", b"POST"), self._status),
            b"/devices": ((b"GET",), self._devices),
            b"/openapi.json": ((b"GET",), self._openapi),
        }

    def site(self, reactor: Any) -> "_Site":
        """What to listen with."""
        return _Site(self, reactor, lambda: self.part().limits)

    def render(self, request: Any) -> Any:
        done = maybeDeferred(self._carry_out, request).addErrback(_as_answer)
        return answered(request, done, _write, cancels=True)

    def _carry_out(self, request: Any) -> Any:
        self._check_origin(request)
        fields = _fields(request)
        self._check_token(request, fields)
        methods, answer = self._answers.get(request.path, ((), self._status))
        if not methods:
            raise _Refused(404, "Not found")
        if request.method not in methods:
            raise _Refused(405, "Method not allowed", ("Allow", ", ".join(map(bytes.decode, methods))))
        return maybeDeferred(answer, request, _single(fields)).addCallback(lambda row: (200, row, None))

    # -- who asks

    def _check_origin(self, request: Any) -> None:
        """No page of a browser asks here."""
        headers = request.requestHeaders
        site = headers.getRawHeaders(b"sec-fetch-site", [b"none"])
        if headers.hasHeader(b"origin") or any(each not in (b"none", b"same-origin") for each in site):
            raise _Refused(403, "Not for web pages")
        hosts = headers.getRawHeaders(b"host", [])
        if len(hosts) > 1 or not all(self._is_ours(host.decode("latin-1")) for host in hosts):
            raise _Refused(403, "Not for this host")

    def _is_ours(self, host: str) -> bool:
        return is_ours(host, {(self.part().host or "").lower(), *self.part().hosts})

    def _check_token(self, request: Any, fields: list[tuple[str, str]]) -> None:
        wanted = self.part().token
        if wanted is None:
            return
        said = request.requestHeaders.getRawHeaders(b"authorization", [b""])
        scheme, _, token = said[0].partition(b" ")
        right = hmac.compare_digest(hashlib.sha256(token.strip()).digest(), wanted)
        in_query = any(name in ("token", "access_token") for name, _ in fields)
        if not right or scheme.lower() != b"bearer" or len(said) != 1 or in_query:
            raise _Refused(401, "A bearer token is wanted", ("WWW-Authenticate", "Bearer"))

    # -- what is asked

    def _on(self, request: Any, fields: Fields) -> Any:
        options = ProxyOptions(
            read_truth("persistent", fields.get("persistent", "false")),
            read_whitelist(fields["ip_whitelist"]) if "ip_whitelist" in fields else (),
            read_whole("timeout", fields.get("timeout", "0"), 0, MAX_TIMEOUT),
            fields.get("target", ""),
        )
        wait = read_whole("wait", fields.get("wait", "0"), 0, int(self.part().limits.wait))
        call = OnCall(_serial(fields), options, wait, fields.get("project", ""))
        host = self.part().host or request.getHost().host
        return maybeDeferred(self._operator.on, call).addCallback(lambda port: {"host": host, "port": port})

    def _off(self, request: Any, fields: Fields) -> Any:
        return maybeDeferred(self._operator.off, _serial(fields)).addCallback(lambda _: {})

    def _status(self, request: Any, fields: Fields) -> Any:
        return self._operator.status(_serial(fields))

    def _devices(self, request: Any, fields: Fields) -> Any:
        limit = read_whole("limit", fields.get("limit", str(PAGE)), 1, PAGE)
        rows, more = self._operator.devices(fields.get("after", ""), limit)
        return {"devices": rows, "next": more}

    def _openapi(self, request: Any, fields: Fields) -> Any:
        return describe_api(self.part().token is not None, int(self.part().limits.wait))


# ---- parameters


def _fields(request: Any) -> list[tuple[str, str]]:
    """Those of the query, and of a form in the body."""
    texts = [request.uri.partition(b"?")[2]]
    kind = request.requestHeaders.getRawHeaders(b"content-type", [b""])[0]
    if kind.partition(b";")[0].strip().lower() == b"application/x-www-form-urlencoded":
        texts.append(request.content.read())
    try:
        return [
            pair
            for text in texts
            for pair in parse_qsl(
                text.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
            )
        ]
    except ValueError:
        raise Invalid("The parameters cannot be read") from None


def _single(fields: list[tuple[str, str]]) -> Fields:
    names = [name for name, _ in fields]
    if double := next((name for name in names if names.count(name) > 1), None):
        raise Invalid(f"{double[:40]!a} is given twice")
    return dict(fields)


def _serial(fields: Fields) -> str:
    try:
        return parse_registered(fields["serial"])
    except KeyError:
        raise Invalid("serial is missing") from None
    except RemoteError as error:
        raise Invalid(str(error)) from None


# ---- answers


def _as_answer(failure: Failure) -> tuple[int, dict[str, Any], tuple[str, str] | None]:
    """The answer that says what went wrong; a bug is logged."""
    error = failure.value
    if isinstance(error, _Refused):
        return error.code, {"message": str(error)}, error.header
    if isinstance(error, NoPorts):
        log.warn("no-ports", event="no-ports", detail=str(error))
        rest = {"detail": error.rest} if error.rest else {}
        return 503, {"message": "No available ports", **rest}, None
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), None)
    if code is not None:
        return code, {"message": str(error)}, None
    if not isinstance(error, CancelledError):
        log.failure("request failed", failure)
    return 500, {"message": "Internal error"}, None


def _write(request: Any, code: int, row: dict[str, Any], header: tuple[str, str] | None) -> None:
    write_json(request, code, row, dict([header] if header else []))


# ---- the connection


class _Site(BoundedSite):
    """The API's connections; beyond the limit somebody who says nothing goes."""

    def came(self, end: End) -> None:
        """Somebody connected."""
        channel = self.channel(end.peer, partial(has_spoken, end))
        if channel is None:
            end.abort()
        else:
            TwistedTransport(self._clock, end, channel).start()
